//! The operations of futexes after `patch_locks`: the same answers as the kernel's, with waiters of both kinds.
#![allow(unsafe_code)]

mod common;
#[path = "common/own.rs"]
mod own_threads;

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenling::{spawn, yield_now};
use libc::{
    EAGAIN, EFAULT, EINVAL, ETIMEDOUT, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE,
    FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
};
use own_threads::{own, patched_locks};

/// What a call returned, or minus the errno.
type Answer = i64;

/// How a call is made.
type Call = fn([usize; 6]) -> Answer;

/// The program's `syscall`, which is patched.
fn green(arguments: [usize; 6]) -> Answer {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the words and spans outlive the call, or are bad on purpose, which is an error.
    let result = unsafe { libc::syscall(libc::SYS_futex, a, b, c, d, e, f) };
    if result < 0 { -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { result }
}

/// The kernel itself.
fn kernel(arguments: [usize; 6]) -> Answer {
    let [a, b, c, d, e, f] = arguments;
    let result: i64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `green`.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") libc::SYS_futex => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as in `green`.
    unsafe {
        std::arch::asm!("svc 0", in("x8") libc::SYS_futex, inlateout("x0") a as i64 => result, in("x1") b, in("x2") c,
            in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    result
}

/// The operation on a private futex.
fn private(operation: c_int) -> usize {
    (operation | FUTEX_PRIVATE_FLAG) as usize
}

fn at(word: &AtomicU32) -> usize {
    std::ptr::from_ref(word).expose_provenance()
}

fn at_span(span: &libc::timespec) -> usize {
    std::ptr::from_ref(span).expose_provenance()
}

fn span(tv_sec: i64, tv_nsec: i64) -> libc::timespec {
    libc::timespec { tv_sec, tv_nsec }
}

/// The moment `millis` from now on a clock.
fn moment(clock: c_int, millis: i64) -> libc::timespec {
    let mut now = span(0, 0);
    // SAFETY: the struct lives until the call returns.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let nanos = now.tv_nsec + millis * 1_000_000;
    span(now.tv_sec + nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// The code of a FUTEX_WAKE_OP.
fn code(operation: u32, number: u32, comparison: u32, with: u32) -> usize {
    (operation << 28 | (number & 0xfff) << 12 | comparison << 24 | with & 0xfff) as usize
}

/// Addresses at which no word is: none, unmapped, the kernel's, not aligned.
fn bad_addresses(word: usize) -> [usize; 5] {
    [0, 4096, 1 << 46, 1 << 63, word + 2]
}

/// The answers to calls for which nothing waits, and that do not wait long.
fn answers_without_waiters(call: Call) -> Vec<(String, Answer)> {
    // Four, since one of the bad limits is read from here.
    let words = [5, 6, 0, 0].map(AtomicU32::new);
    let [one, two] = [at(&words[0]), at(&words[1])];
    let all = u32::MAX as usize;
    let mut answers = Vec::new();
    let mut ask = |what: &str, arguments: [usize; 6]| {
        let shown = arguments.map(|argument| {
            if argument == one {
                1
            } else if argument == two {
                2
            } else {
                argument
            }
        });
        answers.push((
            format!("{what} {}", if what.is_empty() { format!("{shown:?}") } else { String::new() }),
            call(arguments),
        ));
    };
    let (wait, bitset) = (private(FUTEX_WAIT), private(FUTEX_WAIT_BITSET));
    ask("mismatch", [one, wait, 4, 0, 0, 0]);
    ask("mismatch, bits", [one, bitset, 4, 0, 0, all]);
    ask("no bits", [one, bitset, 5, 0, 0, 0]);
    ask("no bits, mismatch", [one, bitset, 4, 0, 0, 0]);
    for (name, limit) in [
        ("short", span(0, 2_000_000)),
        ("zero", span(0, 0)),
        ("negative", span(-1, 0)),
        ("too many nanoseconds", span(0, 1_000_000_000)),
        ("negative nanoseconds", span(0, -1)),
    ] {
        for expected in [4, 5] {
            ask(&format!("{name} {expected}"), [one, wait, expected, at_span(&limit), 0, 0]);
            ask(&format!("{name} bits {expected}"), [one, bitset, expected, at_span(&limit), 0, 1]);
            ask(&format!("{name} no bits {expected}"), [one, bitset, expected, at_span(&limit), 0, 0]);
        }
    }
    for (clock, flag) in [(libc::CLOCK_MONOTONIC, 0), (libc::CLOCK_REALTIME, FUTEX_CLOCK_REALTIME)] {
        let soon = moment(clock, 2);
        ask("a moment", [one, private(FUTEX_WAIT_BITSET | flag), 5, at_span(&soon), 0, all]);
        ask("a moment that was", [one, private(FUTEX_WAIT_BITSET | flag), 5, at_span(&span(1, 0)), 0, all]);
        ask("a span by that clock", [one, private(FUTEX_WAIT | flag), 5, at_span(&span(0, 1_000_000)), 0, all]);
        ask("a wake-up by that clock", [one, private(FUTEX_WAKE | flag), 1, 0, 0, 0]);
    }
    for (number, bad) in bad_addresses(one).into_iter().enumerate() {
        let limit = span(0, 1_000_000);
        ask(&format!("wait at {}", number), [bad, wait, 5, 0, 0, 0]);
        ask(&format!("wait at {} with a limit", number), [bad, wait, 5, at_span(&limit), 0, 0]);
        ask(&format!("wait with a bad limit {}", number), [one, wait, 4, bad & !2, 0, 0]);
        ask(&format!("wake at {}", number), [bad, private(FUTEX_WAKE), 1, 0, 0, 0]);
        ask(&format!("move from {}", number), [bad, private(FUTEX_CMP_REQUEUE), 1, 1, two, 5]);
        ask(&format!("move to {}", number), [one, private(FUTEX_CMP_REQUEUE), 1, 1, bad, 5]);
        ask(&format!("move without a look to {}", number), [one, private(FUTEX_REQUEUE), 1, 1, bad, 5]);
        ask(&format!("change {}", number), [one, private(FUTEX_WAKE_OP), 1, 1, bad, code(1, 1, 0, 0)]);
        ask(&format!("wake {} and change", number), [bad, private(FUTEX_WAKE_OP), 1, 1, two, code(1, 0, 0, 0)]);
    }
    for count in [0, 1, i32::MAX, -1, i32::MIN] {
        ask(&format!("wake {count}"), [one, private(FUTEX_WAKE), count as usize, 0, 0, 0]);
        ask(&format!("wake {count}, bits"), [one, private(FUTEX_WAKE_BITSET), count as usize, 0, 0, 3]);
        ask(&format!("wake {count}, no bits"), [one, private(FUTEX_WAKE_BITSET), count as usize, 0, 0, 0]);
        ask(&format!("move {count}"), [one, private(FUTEX_REQUEUE), 1, count as usize, two, 0]);
        ask(&format!("wake {count} and move"), [one, private(FUTEX_CMP_REQUEUE), count as usize, 1, two, 5]);
        ask(&format!("mismatch {count}"), [one, private(FUTEX_CMP_REQUEUE), 1, count as usize, two, 4]);
    }
    ask("no operation", [one, private(99), 1, 0, 0, 0]);
    // Each change of the second word.
    for operation in 0..16 {
        for number in [0, 3, 31, 0xfff] {
            words[1].store(0x1234, Ordering::Relaxed);
            let answer = call([one, private(FUTEX_WAKE_OP), 1, 1, two, code(operation, number, 0, 7)]);
            let word = words[1].load(Ordering::Relaxed);
            answers.push((format!("change {operation} {number}: {word:#x}"), answer));
        }
    }
    answers
}

#[test]
fn what_nothing_waits_for_is_answered_as_the_kernel_does() {
    let Some(_guard) = patched_locks() else { return };
    let expected = std::thread::spawn(|| answers_without_waiters(kernel)).join().unwrap();
    let errors: Vec<Answer> = expected.iter().map(|answer| answer.1).collect();
    for errno in [EAGAIN, EFAULT, EINVAL, ETIMEDOUT, libc::ENOSYS] {
        assert!(errors.contains(&-i64::from(errno)), "{errno} is among them");
    }
    for (name, answers) in [
        ("an OS thread", std::thread::spawn(|| answers_without_waiters(green)).join().unwrap()),
        ("main", answers_without_waiters(green)),
        ("a green thread", own(|| answers_without_waiters(green)).join().unwrap()),
        ("a light one", spawn(|| answers_without_waiters(green)).join().unwrap()),
    ] {
        for (mine, kernels) in answers.iter().zip(&expected) {
            assert_eq!(mine, kernels, "{name}");
        }
    }
}

/// The kinds of waiters.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Green,
    OsThread,
    /// One of each.
    Mixed,
}

/// Waiters for one word, which count how many were woken by it and by the other.
struct Waiters {
    words: Arc<[AtomicU32; 2]>,
    woken: Arc<AtomicUsize>,
    last: Arc<AtomicUsize>,
}

impl Waiters {
    /// Starts a waiter for each of `bits`, one after the other.
    fn start(kind: Kind, call: Call, bits: &[u32]) -> Waiters {
        let words = Arc::new([AtomicU32::new(5), AtomicU32::new(5)]);
        let waiters = Waiters { words, woken: Arc::default(), last: Arc::default() };
        for (number, &bits) in (1..).zip(bits) {
            let (words, woken, last) =
                (Arc::clone(&waiters.words), Arc::clone(&waiters.woken), Arc::clone(&waiters.last));
            let green_one = kind == Kind::Green || kind == Kind::Mixed && number % 2 == 1;
            let started = Arc::new(AtomicBool::new(false));
            let begun = Arc::clone(&started);
            let wait = move || {
                begun.store(true, Ordering::Release);
                let answer = call([at(&words[0]), private(FUTEX_WAIT_BITSET), 5, 0, 0, bits as usize]);
                assert_eq!(answer, 0);
                last.store(number, Ordering::Relaxed);
                woken.fetch_add(1, Ordering::Release);
            };
            if green_one {
                drop(own(wait));
                yield_now();
            } else {
                std::thread::spawn(wait);
                while !started.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // It sleeps soon; the test would fail, and not pass wrongly, if it did not.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        waiters
    }

    /// Waits until `count` waiters were woken, and a moment longer. Returns how many were.
    fn woken(&self, count: usize) -> usize {
        let end = Instant::now() + Duration::from_secs(20);
        while self.woken.load(Ordering::Acquire) < count && Instant::now() < end {
            greenling::sleep(Duration::from_millis(1));
        }
        greenling::sleep(Duration::from_millis(10));
        self.woken.load(Ordering::Acquire)
    }
}

/// Makes the same calls with seven waiters of a kind. Returns the answers, and how many waiters were woken by then.
fn answers_with_waiters(kind: Kind, call: Call) -> Vec<(Answer, usize)> {
    let waiters = Waiters::start(kind, call, &[1, 1, 2, 4, 4, 4, 4]);
    let [one, two] = [at(&waiters.words[0]), at(&waiters.words[1])];
    let mut total = 0;
    let mut answers = Vec::new();
    let mut ask = |wakes: usize, arguments| {
        total += wakes;
        let answer = call(arguments);
        answers.push((answer, waiters.woken(total)));
    };
    ask(0, [one, private(FUTEX_WAKE_BITSET), 9, 0, 0, 8]);
    ask(1, [one, private(FUTEX_WAKE_BITSET), 9, 0, 0, 2]);
    ask(0, [one, private(FUTEX_CMP_REQUEUE), 1, 1, two, 4]);
    ask(0, [two, private(FUTEX_WAKE), 9, 0, 0, 0]);
    // A number of 0 wakes one.
    ask(1, [one, private(FUTEX_WAKE), 0, 0, 0, 0]);
    ask(1, [one, private(FUTEX_CMP_REQUEUE), 1, 2, two, 5]);
    ask(0, [one, private(FUTEX_REQUEUE), 0, 0, two, 0]);
    ask(1, [two, private(FUTEX_WAKE), 1, 0, 0, 0]);
    // Changes the second word from 5 to 7, and wakes there, too.
    ask(2, [one, private(FUTEX_WAKE_OP), 1, 9, two, code(1, 2, 0, 5)]);
    assert_eq!(waiters.words[1].load(Ordering::Relaxed), 7);
    ask(1, [one, private(FUTEX_WAKE_OP), 9, 9, two, code(1, 2, 0, 5)]);
    ask(0, [one, private(FUTEX_WAKE), 9, 0, 0, 0]);
    ask(0, [two, private(FUTEX_WAKE), 9, 0, 0, 0]);
    answers
}

#[test]
fn waiters_are_woken_and_moved_as_the_kernel_does() {
    let Some(_guard) = patched_locks() else { return };
    let expected = answers_with_waiters(Kind::OsThread, kernel);
    assert_eq!(answers_with_waiters(Kind::Green, green), expected, "green threads");
    assert_eq!(answers_with_waiters(Kind::OsThread, green), expected, "OS threads");
    assert_eq!(answers_with_waiters(Kind::Mixed, green), expected, "both");
}

#[test]
fn a_wake_up_of_many_reaches_both_kinds() {
    let Some(_guard) = patched_locks() else { return };
    for operation in [FUTEX_WAKE, FUTEX_CMP_REQUEUE] {
        let waiters = Waiters::start(Kind::Mixed, green, &[u32::MAX; 7]);
        let [one, two] = [at(&waiters.words[0]), at(&waiters.words[1])];
        // Four of them are green.
        assert_eq!(green([one, private(operation), 5, 0, two, 5]), 5, "{operation}");
        assert_eq!(waiters.woken(5), 5);
        // Those that are left wait in the kernel.
        assert_eq!(green([one, private(FUTEX_CMP_REQUEUE), 0, 9, two, 5]), 2);
        assert_eq!(green([two, private(FUTEX_WAKE), 9, 0, 0, 0]), 2);
        assert_eq!(waiters.woken(7), 7);
    }
}

#[test]
fn green_threads_are_woken_in_order_of_arrival() {
    let Some(_guard) = patched_locks() else { return };
    let waiters = Waiters::start(Kind::Green, green, &[u32::MAX; 40]);
    let one = at(&waiters.words[0]);
    for number in 1..=20 {
        assert_eq!(green([one, private(FUTEX_WAKE), 1, 0, 0, 0]), 1);
        assert_eq!(waiters.woken(number), number);
        assert_eq!(waiters.last.load(Ordering::Relaxed), number);
    }
    assert_eq!(green([one, private(FUTEX_WAKE), 100, 0, 0, 0]), 20);
    assert_eq!(waiters.woken(40), 40);
}

#[test]
fn a_limit_is_kept_on_both_clocks_and_others_run_meanwhile() {
    let Some(_guard) = patched_locks() else { return };
    let word = AtomicU32::new(5);
    let ticks = std::rc::Rc::new(std::cell::Cell::new(0));
    let ticker = spawn({
        let ticks = std::rc::Rc::clone(&ticks);
        move || {
            loop {
                ticks.set(ticks.get() + 1);
                greenling::sleep(Duration::from_millis(1));
            }
        }
    });
    yield_now();
    let realtime = FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME;
    for (operation, limit) in [
        (FUTEX_WAIT, span(0, 30_000_000)),
        (FUTEX_WAIT_BITSET, moment(libc::CLOCK_MONOTONIC, 30)),
        (realtime, moment(libc::CLOCK_REALTIME, 30)),
    ] {
        // The moments were taken before the first wait.
        let limit = match operation {
            FUTEX_WAIT => limit,
            FUTEX_WAIT_BITSET => moment(libc::CLOCK_MONOTONIC, 30),
            _ => moment(libc::CLOCK_REALTIME, 30),
        };
        let (begin, before) = (Instant::now(), ticks.get());
        assert_eq!(green([at(&word), private(operation), 5, at_span(&limit), 0, 1]), -i64::from(ETIMEDOUT));
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(29) && took < Duration::from_secs(5), "{operation}: {took:?}");
        assert!(ticks.get() > before, "nothing ran during {operation}");
    }
    ticker.kill();
    let _ = ticker.join();
}

#[test]
fn a_wait_that_was_woken_in_time_is_no_timeout() {
    let Some(_guard) = patched_locks() else { return };
    let word = Arc::new(AtomicU32::new(5));
    let waker = spawn({
        let word = Arc::clone(&word);
        move || assert_eq!(green([at(&word), private(FUTEX_WAKE), 1, 0, 0, 0]), 1)
    });
    let limit = span(60, 0);
    assert_eq!(green([at(&word), private(FUTEX_WAIT), 5, at_span(&limit), 0, 0]), 0);
    waker.join().unwrap();
}

#[test]
fn a_futex_that_is_shared_between_processes_is_the_kernels() {
    let Some(_guard) = patched_locks() else { return };
    let word = Arc::new(AtomicU32::new(5));
    let waker = std::thread::spawn({
        let word = Arc::clone(&word);
        move || {
            // A private wake-up does not reach it, as in the kernel.
            while green([at(&word), FUTEX_WAKE as usize, 1, 0, 0, 0]) == 0 {
                assert_eq!(green([at(&word), private(FUTEX_WAKE), 1, 0, 0, 0]), 0);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    assert_eq!(green([at(&word), FUTEX_WAIT as usize, 5, 0, 0, 0]), 0);
    waker.join().unwrap();
}

#[test]
fn the_child_of_a_fork_has_no_waiters() {
    let Some(_guard) = patched_locks() else { return };
    let waiters = Waiters::start(Kind::Green, green, &[1, 1]);
    let one = at(&waiters.words[0]);
    // SAFETY: the child makes two calls and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let answers = [green([one, private(FUTEX_WAKE), 9, 0, 0, 0]), green([one, private(FUTEX_WAIT), 4, 0, 0, 0])];
        // SAFETY: it ends the child.
        unsafe { libc::_exit(if answers == [0, -i64::from(EAGAIN)] { 7 } else { 8 }) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's own.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 7);
    assert_eq!(green([one, private(FUTEX_WAKE), 9, 0, 0, 0]), 2);
    assert_eq!(waiters.woken(2), 2);
}
