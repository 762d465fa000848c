//! The watch: a hub that is held up is reported once, with what holds it, and once more when it turns; no other is.
//!
//! Each test runs a program in a process of its own (`told`).
#![allow(unsafe_code)]

mod common;
mod told;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use greenling::{hub, sleep, spawn, thread};
use told::{Program, compute_until, idle_until, told};

/// The limit of most programs.
const LIMIT: Duration = Duration::from_millis(200);

/// Runs `program` in a process of its own, as the test `name`, with `variables` in its environment. After each line of
/// its standard error in which the next of `expected` stands, the program is told a line. Returns its standard error.
fn conduct(name: &str, variables: &[(&str, &str)], expected: &[&str], program: fn()) -> String {
    let _guard = common::guard();
    let mut running = Program::start(name, variables, program);
    for expected in expected {
        running.read_to(expected);
        running.tell();
    }
    running.end()
}

/// Returns how often `part` stands in `text`.
fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Checks that one hub was reported once, and turned once.
fn assert_once(text: &str) {
    let reports = [count(text, "has not turned for"), count(text, "turns again after")];
    assert_eq!((reports, count(text, "greenling: ")), ([1, 1], 2), "{text}");
}

/// Spawns a green thread with a name.
fn named(name: &str, f: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new().name(name.to_owned()).spawn(f).unwrap()
}

#[test]
fn a_thread_that_computes_is_reported_once_and_again_when_the_hub_turns() {
    let name = "a_thread_that_computes_is_reported_once_and_again_when_the_hub_turns";
    let text = conduct(name, &[], &["has not turned", "turns again"], || {
        hub::watch(LIMIT).unwrap();
        named("hog", || compute_until(1)).join().unwrap();
        idle_until(2);
    });
    assert_once(&text);
    assert!(text.contains("\"hog\", spawned at tests/watch.rs:"), "{text}");
    assert!(text.contains("\" runs\n") && text.contains("greenling::yield_now()"), "{text}");
    if cfg!(not(feature = "sanitizer")) {
        assert!(text.contains("watch::told::compute_until (watch-"), "{text}");
    }
}

#[test]
fn a_read_of_a_pipe_is_named_and_goes_on() {
    let text = conduct("a_read_of_a_pipe_is_named_and_goes_on", &[], &["has not turned", "turns again"], || {
        hub::watch(LIMIT).unwrap();
        let (mut from, mut to) = std::io::pipe().unwrap();
        let os = std::thread::spawn(move || {
            while !told(1) {
                std::thread::sleep(Duration::from_millis(1));
            }
            to.write_all(b"x").unwrap();
        });
        // The signal of the watch has interrupted it, and the kernel has started it again.
        let reader = named("reader", move || assert_eq!(from.read(&mut [0; 4]).unwrap(), 1));
        reader.join().unwrap();
        os.join().unwrap();
        idle_until(2);
    });
    assert_once(&text);
    assert!(text.contains("is in system call read of descriptor ") && text.contains("(pipe:["), "{text}");
    assert!(text.contains("\"reader\"") && text.contains("    read ("), "{text}");
}

#[test]
fn a_lock_of_std_that_an_os_thread_holds_is_a_wait_in_futex_and_no_thread_is_blamed() {
    let name = "a_lock_of_std_that_an_os_thread_holds_is_a_wait_in_futex_and_no_thread_is_blamed";
    let text = conduct(name, &[], &["has not turned", "turns again"], || {
        hub::watch(LIMIT).unwrap();
        let lock = Arc::new(Mutex::new(()));
        let (tell, held) = std::sync::mpsc::channel();
        let holder = Arc::clone(&lock);
        let os = std::thread::spawn(move || {
            let _guard = holder.lock().unwrap();
            tell.send(()).unwrap();
            while !told(1) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        held.recv().unwrap();
        named("waiter", move || drop(lock.lock().unwrap())).join().unwrap();
        os.join().unwrap();
        idle_until(2);
    });
    assert_once(&text);
    assert!(text.contains("system call futex, which waits for a lock, a channel or the end of an OS thread"), "{text}");
    assert!(text.contains("\"waiter\"") && !text.contains("held by"), "{text}");
}

#[test]
fn many_short_waits_are_added_up_and_reported_once() {
    let name = "many_short_waits_are_added_up_and_reported_once";
    let text = conduct(name, &[], &["was held up for", "is held up no more"], || {
        hub::watch(LIMIT).unwrap();
        // What a client with OS threads inside does at each call.
        let answer = (Mutex::new(()), Condvar::new());
        let client = named("client", move || {
            while !told(1) {
                let guard = answer.0.lock().unwrap();
                drop(answer.1.wait_timeout(guard, Duration::from_millis(30)).unwrap());
                sleep(Duration::from_millis(1));
            }
        });
        client.join().unwrap();
        idle_until(2);
    });
    assert_eq!((count(&text, "was held up for"), count(&text, "greenling: ")), (1, 2), "{text}");
    assert!(text.contains("turns; now green thread #") && text.contains("\"client\""), "{text}");
    // The wait may be over, while the OS thread has no processor.
    assert!(text.contains("system call futex") || text.contains("\" runs\n"), "{text}");
}

#[test]
fn a_hub_that_idles_or_works_well_and_a_main_that_is_alone_are_never_reported() {
    let name = "a_hub_that_idles_or_works_well_and_a_main_that_is_alone_are_never_reported";
    let text = conduct(name, &[], &[], || {
        // Idle, with a thread that waits.
        hub::watch(Duration::from_millis(250)).unwrap();
        let parked = spawn(thread::park);
        let before = hub::metrics().epoll_calls;
        sleep(Duration::from_secs(4));
        // Nor is it disturbed, at each limit say: a signal would end a wait in epoll.
        let waits = hub::metrics().epoll_calls - before;
        assert!(waits < 8, "{waits}");
        hub::watch(Duration::from_secs(1)).unwrap();
        parked.thread().unpark();
        parked.join().unwrap();
        // Main is alone: nothing is held up.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2500) {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_millis(1500));
        // Threads that take turns.
        let began = Instant::now();
        let workers: Vec<_> = (0..10)
            .map(|_| {
                spawn(move || {
                    while began.elapsed() < Duration::from_millis(2500) {
                        thread::yield_now();
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    assert_eq!(text, "");
}

#[test]
fn a_hub_that_has_to_wait_for_a_processor_is_not_reported() {
    if std::fs::read_to_string("/proc/thread-self/schedstat").is_err() {
        eprintln!("skipped: the kernel does not count these waits");
        return;
    }
    let text = conduct("a_hub_that_has_to_wait_for_a_processor_is_not_reported", &[], &[], || {
        // One processor for this OS thread and sixteen that compute.
        let mut one = nix::sched::CpuSet::new();
        let all = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
        one.set((0..nix::sched::CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap()).unwrap()).unwrap();
        hub::watch(LIMIT).unwrap();
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one).unwrap();
        for _ in 0..16 {
            std::thread::spawn(|| compute_until(usize::MAX));
        }
        // Threads that take turns of 4 ms, without the waits.
        let used = || Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        let began = Instant::now();
        let workers: Vec<_> = (0..10)
            .map(|_| {
                spawn(move || {
                    while began.elapsed() < 20 * LIMIT {
                        let before = used();
                        while used() - before < Duration::from_millis(4) {}
                        thread::yield_now();
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        // Else this has shown nothing.
        assert!(hub::metrics().held_up > 4 * LIMIT, "{:?}", hub::metrics().held_up);
    });
    assert_eq!(text, "");
}

#[test]
fn a_report_that_nothing_reads_stops_the_watch_and_no_hub() {
    let text = conduct("a_report_that_nothing_reads_stops_the_watch_and_no_hub", &[], &[], || {
        // Standard error is a full pipe from now on.
        let (_from, mut to) = std::io::pipe().unwrap();
        // SAFETY: the call takes integers, the first a descriptor of this function.
        let size = unsafe { nix::libc::fcntl(to.as_raw_fd(), nix::libc::F_SETPIPE_SZ, 4096) };
        to.write_all(&vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
        // SAFETY: the call takes two descriptors; this function has the first, and nothing here owns the second.
        assert_eq!(unsafe { nix::libc::dup2(to.as_raw_fd(), 2) }, 2);
        hub::watch(LIMIT).unwrap();
        named("hog", || while !is_in_write("greenling-watch") {}).join().unwrap();
        // A timer does not fire beside these calls unless the monitor ticks; in the end, the process would be killed.
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(60));
            std::process::exit(1);
        });
        let (tell, told) = greenling::sync::mpsc::channel::<()>();
        let busy = spawn(move || while told.try_recv() == Err(greenling::sync::mpsc::TryRecvError::Empty) {});
        sleep(Duration::from_millis(20));
        drop(tell);
        busy.join().unwrap();
        assert!(is_in_write("greenling-watch"));
    });
    assert_eq!(text, "");
}

/// Reports whether an OS thread with this name waits in write(2).
fn is_in_write(name: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.flatten().any(|task| {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        read("comm").trim_end() == name && read("syscall").starts_with(&format!("{} ", nix::libc::SYS_write))
    })
}

#[test]
fn each_of_two_hubs_is_reported_for_itself() {
    let name = "each_of_two_hubs_is_reported_for_itself";
    let text = conduct(name, &[], &["has not turned", "has not turned", "turns again", "turns again"], || {
        hub::watch(LIMIT).unwrap();
        let run = |name: &'static str| {
            move || {
                named(name, || compute_until(2)).join().unwrap();
                idle_until(4);
            }
        };
        let hubs = ["first", "second"].map(|name| std::thread::spawn(run(name)));
        hubs.into_iter().for_each(|os| os.join().unwrap());
    });
    assert_eq!([count(&text, "has not turned"), count(&text, "turns again")], [2, 2], "{text}");
    assert_eq!([count(&text, "\"first\""), count(&text, "\"second\"")], [1, 1], "{text}");
}

#[test]
fn main_that_blocks_while_green_threads_live_is_named() {
    let text = conduct("main_that_blocks_while_green_threads_live_is_named", &[], &["has not turned"], || {
        hub::watch(LIMIT).unwrap();
        let parked = spawn(thread::park);
        thread::yield_now();
        while !told(1) {
            std::thread::sleep(Duration::from_millis(5000));
        }
        drop(parked);
    });
    assert!(text.contains("main has it") && text.contains("nanosleep"), "{text}");
}

#[test]
fn a_thread_with_its_own_thread_locals_and_one_on_the_smallest_stack_are_reported() {
    let name = "a_thread_with_its_own_thread_locals_and_one_on_the_smallest_stack_are_reported";
    let expected = ["has not turned", "turns again", "has not turned", "turns again"];
    let text = conduct(name, &[], &expected, || {
        hub::watch(LIMIT).unwrap();
        thread::Builder::new().name("small".into()).stack_size(1).spawn(|| compute_until(1)).unwrap().join().unwrap();
        idle_until(2);
        let own = thread::Builder::new().name("own".into()).own_thread_locals();
        match own.spawn(|| compute_until(3)) {
            Ok(own) => own.join().unwrap(),
            // Not on this system.
            Err(_) => named("own", || compute_until(3)).join().unwrap(),
        }
        idle_until(4);
    });
    assert_eq!([count(&text, "\"small\""), count(&text, "\"own\"")], [1, 1], "{text}");
}

#[test]
fn a_thread_that_has_blocked_all_signals_is_reported_without_its_name() {
    let name = "a_thread_that_has_blocked_all_signals_is_reported_without_its_name";
    let text = conduct(name, &[], &["has not turned", "turns again"], || {
        hub::watch(LIMIT).unwrap();
        nix::sys::signal::SigSet::all().thread_block().unwrap();
        named("deaf", || compute_until(1)).join().unwrap();
        idle_until(2);
    });
    assert_once(&text);
    assert!(text.contains("no real-time signal is free and not blocked") && text.contains("\" runs\n"), "{text}");
}

#[test]
fn the_environment_begins_the_watch() {
    let expected = ["has not turned", "turns again"];
    let text = conduct("the_environment_begins_the_watch", &[("GREENLING_WATCH", "200ms")], &expected, || {
        named("hog", || compute_until(1)).join().unwrap();
        idle_until(2);
    });
    assert_once(&text);
}

#[test]
fn a_bad_value_in_the_environment_is_one_line_and_no_watch() {
    for value in ["soon", "1", "-1s", "5ms", ""] {
        let name = "a_bad_value_in_the_environment_is_one_line_and_no_watch";
        let text = conduct(name, &[("GREENLING_WATCH", value)], &[], || {
            sleep(Duration::from_millis(1));
            std::thread::spawn(|| sleep(Duration::from_millis(1))).join().unwrap();
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line = format!("greenling: GREENLING_WATCH={value}: not a time of 20 ms and more");
        assert!(text.starts_with(&line), "{text}");
    }
}

#[test]
fn a_limit_that_is_too_short_is_refused_and_zero_ends_the_watch() {
    let name = "a_limit_that_is_too_short_is_refused_and_zero_ends_the_watch";
    let text = conduct(name, &[], &[], || {
        let error = hub::watch(Duration::from_millis(19)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        hub::watch(LIMIT).unwrap();
        hub::watch(Duration::ZERO).unwrap();
        let hog = spawn(|| {
            let began = Instant::now();
            while began.elapsed() < 3 * LIMIT {
                std::hint::spin_loop();
            }
        });
        hog.join().unwrap();
    });
    assert_eq!(text, "");
}

#[test]
fn a_process_that_ends_while_its_hub_is_held_up_ends_and_a_forked_child_has_no_watch() {
    let name = "a_process_that_ends_while_its_hub_is_held_up_ends_and_a_forked_child_has_no_watch";
    let text = conduct(name, &[], &["has not turned"], || {
        hub::watch(LIMIT).unwrap();
        let hog = || {
            compute_until(1);
            // SAFETY: the child makes a hub in an OS thread of its own, as the limits of the crate allow, and exits.
            match unsafe { nix::unistd::fork() }.unwrap() {
                nix::unistd::ForkResult::Child => {
                    let os = std::thread::spawn(|| {
                        let began = Instant::now();
                        let hog = spawn(move || while began.elapsed() < 3 * LIMIT {});
                        hog.join().unwrap();
                    });
                    os.join().unwrap();
                    // SAFETY: ends the process, and runs nothing.
                    unsafe { libc_exit(0) }
                }
                nix::unistd::ForkResult::Parent { child } => {
                    nix::sys::wait::waitpid(child, None).unwrap();
                    std::process::exit(0);
                }
            }
        };
        let _ = named("hog", hog).join();
    });
    assert_eq!(count(&text, "greenling: "), 1, "{text}");
}

unsafe extern "C" {
    /// See _exit(2).
    #[link_name = "_exit"]
    fn libc_exit(code: i32) -> !;
}
