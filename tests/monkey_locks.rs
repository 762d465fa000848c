//! Locks that block the OS thread: std's, which are reported when they hold up a hub, and those of files, which are green.
#![allow(unsafe_code)]

mod common;
#[path = "common/patched.rs"]
mod helpers;

use std::ffi::c_int;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::Output;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant};

use greenling::thread::Builder;
use greenling::{spawn, yield_now};
use helpers::{errno, no_other_runs, others_run, patched, set_errno};

/// A second is what a wait may take before it is reported.
const LONGER: Duration = Duration::from_millis(1300);

/// The process ends with success when a report was written and there was time for a second one, whatever its other
/// threads wait for. A thread that waits in a lock writes the report itself, when the machine lets it.
fn end_after_the_report() {
    let (mut reports, writer) = std::io::pipe().unwrap();
    let mut stderr = File::from(std::io::stderr().as_fd().try_clone_to_owned().unwrap());
    // SAFETY: both are open, and 2 stays so.
    unsafe { libc::dup2(writer.as_raw_fd(), 2) };
    // SAFETY: the descriptor is this pipe's.
    unsafe { libc::fcntl(reports.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    std::thread::spawn(move || {
        let begin = Instant::now();
        let (mut text, mut part) = (Vec::new(), [0; 4096]);
        let [enough, forever] = [2500, 60_000].map(Duration::from_millis);
        while begin.elapsed() < enough || !text.windows(11).any(|at| at == b"greenling: ") && begin.elapsed() < forever
        {
            std::thread::sleep(Duration::from_millis(20));
            while let Ok(count) = reports.read(&mut part)
                && count > 0
            {
                text.extend_from_slice(&part[..count]);
            }
        }
        stderr.write_all(&text).unwrap();
        // SAFETY: it ends the process.
        unsafe { libc::_exit(0) };
    });
}

/// Starts a green thread with a name.
fn named(name: &str, f: impl FnOnce() + 'static) {
    drop(Builder::new().name(name.into()).spawn(f).unwrap());
}

/// The lines of the report, without those of the test harness.
fn report(output: &Output) -> Vec<String> {
    let text = common::stderr(output);
    text.lines().skip_while(|line| !line.starts_with("greenling: ")).map(String::from).collect()
}

/// The place in this file that a report shows for what was spawned in `named`.
fn place_of_named() -> String {
    let line = include_str!("monkey_locks.rs").lines().position(|line| line.contains("Builder::new().name(name"));
    format!("spawned at {}:{}:", file!(), line.unwrap() + 1)
}

#[test]
fn a_lock_held_over_a_patched_call_is_reported_with_its_holder() {
    let out = common::child("a_lock_held_over_a_patched_call_is_reported_with_its_holder", || {
        let _guard = patched();
        let (lock, other) = (Rc::new(Mutex::new(1)), Rc::new(Mutex::new(2)));
        let (near, far) = UnixStream::pair().unwrap();
        let (reads, bystands) = (Rc::clone(&lock), Rc::clone(&other));
        named("bystander", move || {
            let _held = bystands.lock().unwrap();
            std::thread::sleep(Duration::from_secs(60));
        });
        named("holder", move || {
            let mut held = reads.lock().unwrap();
            *held += (&near).read(&mut [0]).unwrap();
        });
        yield_now();
        end_after_the_report();
        named("waiter", move || *lock.lock().unwrap() += 1);
        greenling::sleep(Duration::from_secs(60));
        drop(far);
    });
    assert!(out.status.success(), "{out:?}");
    let lines = report(&out);
    let place = place_of_named();
    assert!(lines[0].contains("\"waiter\", ") && lines[0].contains(&place), "{lines:?}");
    assert!(lines[0].contains("has blocked its OS thread for "), "{lines:?}");
    assert!(lines[1].contains("likely held"), "{lines:?}");
    // An optimised build may leave a pointer that is not used any more in main's frame, too.
    let holder = lines.iter().find(|line| line.contains("\"holder\" waits until descriptor"));
    assert!(holder.is_some_and(|line| line.contains(&place)), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("bystander")), "{lines:?}");
    assert!(lines.last().unwrap().contains("greenling::sync::Mutex"), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("greenling: ")).count(), 1, "one report: {lines:?}");
}

#[test]
fn main_is_found_to_hold_a_lock_and_the_reader_of_another_kind() {
    let out = common::child("main_is_found_to_hold_a_lock_and_the_reader_of_another_kind", || {
        let _guard = patched();
        let lock = Arc::new(RwLock::new(String::from("x")));
        let wanted = Arc::clone(&lock);
        named("writer", move || wanted.write().unwrap().push('y'));
        end_after_the_report();
        let read = lock.read().unwrap();
        std::thread::sleep(Duration::from_secs(60));
        drop(read);
    });
    let lines = report(&out);
    assert!(lines[0].contains("\"writer\", "), "{lines:?}");
    assert!(lines[1].contains("likely held") && lines[2].starts_with("  main sleeps, for "), "{lines:?}");
}

#[test]
fn a_thread_that_holds_nothing_is_listed_if_no_holder_is_found() {
    let out = common::child("a_thread_that_holds_nothing_is_listed_if_no_holder_is_found", || {
        let _guard = patched();
        named("sleeper", || std::thread::sleep(Duration::from_secs(60)));
        yield_now();
        end_after_the_report();
        // Nobody will ever send, and nobody has to do with it.
        let (sender, receiver) = mpsc::channel::<()>();
        let _ = receiver.recv();
        drop(sender);
    });
    let lines = report(&out);
    assert!(lines[0].starts_with("greenling: main has blocked its OS thread"), "{lines:?}");
    assert!(lines[1].contains("none of the others"), "{lines:?}");
    assert!(lines[2].contains("\"sleeper\" sleeps"), "{lines:?}");
}

/// Also that std's waits go on as they would without.
#[test]
fn waits_that_end_in_time_are_not_reported_and_end_as_ever() {
    let out = common::child("waits_that_end_in_time_are_not_reported_and_end_as_ever", || {
        let _guard = patched();
        named("other", || std::thread::sleep(Duration::from_secs(60)));
        yield_now();
        // A lock that another OS thread gives back.
        let lock = Arc::new(Mutex::new(1));
        let (taken, is_taken) = mpsc::channel();
        let holder = {
            let lock = Arc::clone(&lock);
            std::thread::spawn(move || {
                let mut held = lock.lock().unwrap();
                taken.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(100));
                *held += 1;
            })
        };
        is_taken.recv().unwrap();
        assert_eq!(*lock.lock().unwrap(), 2);
        holder.join().unwrap();
        // A channel from another OS thread, with and without a limit.
        let (sender, receiver) = mpsc::channel();
        let feeder = std::thread::spawn(move || {
            for n in 0..3 {
                std::thread::sleep(Duration::from_millis(20));
                sender.send(n).unwrap();
            }
        });
        assert_eq!(receiver.recv(), Ok(0));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(30)), Ok(1));
        assert_eq!(receiver.recv(), Ok(2));
        feeder.join().unwrap();
        // A time limit.
        let (limit, begin) = (Duration::from_millis(100), Instant::now());
        let (_held, waited) = Condvar::new().wait_timeout(lock.lock().unwrap(), limit).unwrap();
        assert!(waited.timed_out() && begin.elapsed() >= limit);
    });
    assert!(out.status.success(), "{out:?}");
    assert_eq!(report(&out), [""; 0]);
}

/// None of these waits takes a second, for a channel and for the end of an OS thread; all of them hold up the others.
/// On a busy machine one of them may take a second all the same, and is reported by itself. Then they are made again.
#[test]
fn short_waits_that_hold_up_a_hub_for_long_are_reported_together() {
    let make = || {
        let _guard = patched();
        let ask = || {
            let (send, receive) = mpsc::channel();
            let helper = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(150));
                send.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(150));
            });
            receive.recv().unwrap();
            helper.join().unwrap();
        };
        let threads: Vec<_> = (0..6).map(|_| spawn(ask)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    };
    let what = " waits for locks, channels or other OS threads have blocked this OS thread for 1.";
    let mut tries = (0..10).map(|_| {
        let out = common::child("short_waits_that_hold_up_a_hub_for_long_are_reported_together", make);
        assert!(out.status.success());
        report(&out)
    });
    let lines = tries.find(|lines| lines.len() == 2 && lines[0].contains(what)).expect("a report of all");
    assert!(lines[0].contains("green threads take turns meanwhile"), "{lines:?}");
    assert!(lines[1].contains("own_thread_locals") && lines[1].contains("patch_locks"), "{lines:?}");
}

#[test]
fn a_hub_with_no_thread_to_hold_up_is_not_reported() {
    let out = common::child("a_hub_with_no_thread_to_hold_up_is_not_reported", || {
        let _guard = patched();
        spawn(|| ()).join().unwrap();
        let begin = Instant::now();
        std::thread::park_timeout(LONGER);
        assert!(begin.elapsed() >= LONGER);
    });
    assert!(out.status.success(), "{out:?}");
    assert_eq!(report(&out), [""; 0]);
}

/// One futex call, its arguments and its answer.
fn futex(word: *const AtomicU32, operation: c_int, value: u32, span: Option<libc::timespec>, bits: u32) -> (i64, i32) {
    let span = span.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    set_errno(0);
    // SAFETY: the word is one or none, which the kernel refuses; the span lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_futex, word, operation, value, span, null_mut::<u32>(), bits) };
    (result, if result < 0 { errno() } else { 0 })
}

/// The moment `from_now` on a clock.
fn moment(clock: c_int, from_now: Duration) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives until the call returns.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let nanos = now.tv_nsec + i64::from(from_now.subsec_nanos());
    libc::timespec {
        tv_sec: now.tv_sec + from_now.as_secs() as i64 + nanos / 1_000_000_000,
        tv_nsec: nanos % 1_000_000_000,
    }
}

/// Answers to calls of each kind that need not wait long.
fn futex_answers() -> Vec<(i64, i32)> {
    let word = AtomicU32::new(5);
    let word = &raw const word;
    let private = libc::FUTEX_PRIVATE_FLAG;
    let short = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let bad = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    let [wait, bitset] = [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET].map(|operation| operation | private);
    let realtime = libc::FUTEX_CLOCK_REALTIME;
    vec![
        futex(word, wait, 4, None, 0),
        futex(word, bitset, 4, None, !0),
        futex(word, wait, 5, Some(short), 0),
        futex(word, libc::FUTEX_WAIT, 5, Some(short), 0),
        futex(word, bitset, 5, Some(moment(libc::CLOCK_MONOTONIC, Duration::from_millis(2))), !0),
        futex(word, bitset | realtime, 5, Some(moment(libc::CLOCK_REALTIME, Duration::from_millis(2))), 1),
        futex(word, bitset, 5, Some(short), !0),
        futex(word, wait, 5, Some(bad), 0),
        futex(word, bitset, 5, None, 0),
        futex(std::ptr::null(), wait, 5, None, 0),
        futex(word.wrapping_byte_add(2), wait, 5, None, 0),
        futex(word, libc::FUTEX_WAKE | private, 1, None, 0),
        futex(word, 99, 1, None, 0),
        futex(word, libc::FUTEX_WAKE_OP | realtime, 1, None, 0),
    ]
}

#[test]
fn a_futex_answers_as_the_kernel_does() {
    let _guard = patched();
    let expected = std::thread::spawn(futex_answers).join().unwrap();
    named("other", || std::thread::sleep(Duration::from_secs(60)));
    yield_now();
    assert_eq!(futex_answers(), expected, "main");
    greenling::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(futex_answers(), expected, "a green thread"));
    });
    let errors: Vec<i32> = expected.iter().map(|answer| answer.1).collect();
    let known = [libc::EAGAIN, libc::EAGAIN, libc::ETIMEDOUT, libc::ETIMEDOUT, libc::ETIMEDOUT, libc::ETIMEDOUT];
    assert_eq!(errors[..6], known, "they meant what they should");
    greenling::hub::shutdown();
}

/// Runs `body` in a child whose first wait is reported in the middle; with a word that is 5, and another green thread.
fn with_a_report_in_the_middle(name: &str, body: impl FnOnce(Arc<AtomicU32>)) {
    let out = common::child(name, || {
        let _guard = patched();
        named("other", || std::thread::sleep(Duration::from_secs(60)));
        yield_now();
        body(Arc::new(AtomicU32::new(5)));
    });
    assert!(out.status.success(), "{out:?}");
    let reports = report(&out).iter().filter(|line| line.starts_with("greenling: ")).count();
    assert_eq!(reports, 1, "{out:?}");
}

/// That a call ends when its time is over, and not a slice later.
fn assert_takes(length: Duration, call: impl Fn() -> (i64, i32)) {
    let begin = Instant::now();
    assert_eq!(call(), (-1, libc::ETIMEDOUT));
    let took = begin.elapsed();
    assert!(took >= length && took < length + Duration::from_millis(900), "{took:?}");
}

const WAIT: c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const BITSET: c_int = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;

#[test]
fn a_length_of_time_is_kept_over_a_report_and_later_waits_are_not_reported_again() {
    with_a_report_in_the_middle(
        "a_length_of_time_is_kept_over_a_report_and_later_waits_are_not_reported_again",
        |word| {
            let length = libc::timespec { tv_sec: 1, tv_nsec: 300_000_000 };
            for _ in 0..2 {
                assert_takes(LONGER, || futex(Arc::as_ptr(&word), WAIT, 5, Some(length), 0));
            }
        },
    );
}

#[test]
fn a_moment_is_kept_over_a_report() {
    with_a_report_in_the_middle("a_moment_is_kept_over_a_report", |word| {
        let at = Arc::as_ptr(&word);
        assert_takes(LONGER, || futex(at, BITSET, 5, Some(moment(libc::CLOCK_MONOTONIC, LONGER)), !0));
    });
}

#[test]
fn a_time_of_day_is_kept_over_a_report() {
    with_a_report_in_the_middle("a_time_of_day_is_kept_over_a_report", |word| {
        let operation = BITSET | libc::FUTEX_CLOCK_REALTIME;
        let at = Arc::as_ptr(&word);
        assert_takes(LONGER, || futex(at, operation, 5, Some(moment(libc::CLOCK_REALTIME, LONGER)), !0));
    });
}

#[test]
fn a_wake_after_a_report_arrives() {
    with_a_report_in_the_middle("a_wake_after_a_report_arrives", |word| {
        let waker = std::thread::spawn({
            let word = Arc::clone(&word);
            move || {
                let begin = Instant::now();
                std::thread::sleep(LONGER);
                // The word stays as it is, so the waiter must be one, or it would wait for ever.
                while futex(Arc::as_ptr(&word), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1, None, 0).0 == 0 {
                    assert!(begin.elapsed() < 20 * LONGER, "nobody waits");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        assert_eq!(futex(Arc::as_ptr(&word), WAIT, 5, None, 0), (0, 0));
        waker.join().unwrap();
    });
}

/// A file with no name, opened twice.
fn file_opened_twice() -> (File, File) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("greenling-locks-{}-{number}", std::process::id()));
    let first = File::create(&path).unwrap();
    let second = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    (first, second)
}

fn flock(file: &File, operation: c_int) -> (c_int, i32) {
    set_errno(0);
    // SAFETY: it takes numbers.
    let result = unsafe { libc::flock(file.as_raw_fd(), operation) };
    (result, errno())
}

#[test]
fn the_lock_of_a_file_is_waited_for_in_the_hub() {
    let _guard = patched();
    let (first, second) = file_opened_twice();
    assert_eq!(flock(&first, libc::LOCK_EX), (0, 0));
    no_other_runs(|| assert_eq!(flock(&second, libc::LOCK_SH | libc::LOCK_NB), (-1, libc::EWOULDBLOCK)));
    let holder = helpers::later(move || assert_eq!(flock(&first, libc::LOCK_UN), (0, 0)));
    others_run(|| assert_eq!(flock(&second, libc::LOCK_EX), (0, 0)));
    holder.join().unwrap();
    assert_eq!(flock(&second, 77), (-1, libc::EINVAL));
    drop(second);
    let (first, second) = file_opened_twice();
    assert_eq!([flock(&first, libc::LOCK_SH), flock(&second, libc::LOCK_SH)], [(0, 0); 2]);
}

#[test]
fn a_waiter_that_is_killed_never_gets_the_lock_of_a_file() {
    let _guard = patched();
    let (first, second) = file_opened_twice();
    let second = Rc::new(second);
    assert_eq!(flock(&first, libc::LOCK_EX), (0, 0));
    let victim = spawn({
        let second = Rc::clone(&second);
        move || assert_eq!(flock(&second, libc::LOCK_EX), (-1, libc::ECANCELED))
    });
    yield_now();
    victim.kill();
    victim.join().unwrap();
    let ended = greenling::timeout(Duration::from_millis(5), || flock(&second, libc::LOCK_EX));
    assert_eq!(ended, Ok((-1, libc::ETIMEDOUT)));
    assert_eq!(flock(&first, libc::LOCK_UN), (0, 0));
    assert_eq!(flock(&first, libc::LOCK_EX | libc::LOCK_NB), (0, 0), "nobody has it");
    writeln!(&first, "still open").unwrap();
}
