//! Signals: none is lost, waiters get them in order, and afterwards everything is as it was.
//!
//! The test harness has OS threads of its own that block nothing, so here a signal is sent to the OS thread of the
//! test; `signals_main_thread.rs` has what takes a whole process.
#![allow(unsafe_code)] // to send signals to one OS thread, and to look at what is blocked

mod common;

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Primitive, Subject, Wakes, five_properties};
use greenling::process::Command;
use greenling::signal::{SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2, Signals, ctrl_c};
use greenling::{TimeoutError, no_switch, spawn, timeout, yield_now};

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(5);

/// Sends a signal to this OS thread.
fn raise(signal: i32) {
    // SAFETY: raise takes an integer, and the signal is blocked or harmless here (raise(3)).
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// Whether a signal is blocked in this OS thread.
fn is_blocked(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal - 1)) != 0
}

/// Calls a function when a panic drops it.
fn while_panicking(f: impl FnOnce()) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _last = common::OnDrop::new(f);
        std::panic::resume_unwind(Box::new("expected"));
    }));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"expected"));
}

#[test]
fn a_signal_that_came_before_the_call_is_not_lost() {
    let _guard = common::guard();
    let signals = Signals::new([SIGUSR1, SIGUSR2]).unwrap();
    assert_eq!(signals.try_recv().unwrap(), None);
    raise(SIGUSR2);
    raise(SIGUSR2);
    let signal = signals.recv().unwrap();
    assert_eq!((signal.number(), signal.to_string()), (SIGUSR2, "SIGUSR2".to_owned()));
    assert_eq!(signal.sender(), Some(std::process::id()));
    // SAFETY: it takes nothing and cannot fail (getuid(2)).
    assert_eq!(signal.user(), Some(unsafe { libc::getuid() }));
    assert_eq!(signals.try_recv().unwrap(), None, "two of a kind melt into one");
}

#[test]
fn a_signal_wakes_its_waiter_while_others_run() {
    let _guard = common::guard();
    let signals = Signals::new([SIGUSR1]).unwrap();
    let waiter = spawn(move || signals.recv().unwrap().number());
    yield_now();
    assert!(!waiter.is_finished());
    raise(SIGUSR1);
    assert_eq!(waiter.join().unwrap(), SIGUSR1);
}

#[test]
fn the_iterator_goes_on_for_ever_and_waits_for_each() {
    let _guard = common::guard();
    let signals = Rc::new(Signals::new([SIGUSR1, SIGUSR2]).unwrap());
    let log = common::Log::default();
    let (theirs, said) = (Rc::clone(&signals), log.clone());
    let server = spawn(move || {
        for signal in &*theirs {
            said.say(signal.unwrap());
        }
    });
    for signal in [SIGUSR1, SIGUSR2, SIGUSR1] {
        raise(signal);
        let patience = Instant::now() + Duration::from_secs(60);
        let before = log.text().len();
        while log.text().len() == before {
            assert!(Instant::now() < patience);
            greenling::sleep(Duration::from_micros(100));
        }
    }
    assert_eq!(log.text(), "SIGUSR1 SIGUSR2 SIGUSR1");
    server.kill();
    assert!(server.join().unwrap_err().is_killed());
    raise(SIGUSR2);
    assert_eq!(signals.iter().next().unwrap().unwrap().number(), SIGUSR2, "nothing was left behind");
}

#[test]
fn a_limit_is_never_early_and_takes_no_signal() {
    let _guard = common::guard();
    let signals = Signals::new([SIGUSR1]).unwrap();
    let began = Instant::now();
    assert_eq!(signals.recv_timeout(SHORT).unwrap(), None);
    assert!(began.elapsed() >= SHORT);
    assert_eq!(timeout(SHORT, || signals.recv().map(drop).unwrap()), Err(TimeoutError::Elapsed));
    raise(SIGUSR1);
    assert_eq!(signals.recv_timeout(Duration::ZERO).unwrap().unwrap().number(), SIGUSR1);
    assert_eq!(timeout(SHORT, ctrl_c).map(drop), Err(TimeoutError::Elapsed));
    assert!(!is_blocked(SIGINT));
}

#[test]
fn blocked_is_what_is_waited_for_and_nothing_afterwards() {
    let _guard = common::guard();
    let first = Signals::new([SIGUSR1, SIGUSR1, SIGHUP]).unwrap();
    assert!(is_blocked(SIGUSR1) && is_blocked(SIGHUP) && !is_blocked(SIGUSR2));
    let second = Signals::new([SIGUSR1, SIGUSR2]).unwrap();
    drop(first);
    assert!(is_blocked(SIGUSR1) && !is_blocked(SIGHUP) && is_blocked(SIGUSR2), "the second one still waits");
    drop(second);
    assert!(!is_blocked(SIGUSR1) && !is_blocked(SIGUSR2));
    // What the program itself has blocked stays so.
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: it fills the set, which is room for one (sigemptyset(3)).
    assert_eq!(unsafe { libc::sigemptyset(set.as_mut_ptr()) }, 0);
    // SAFETY: the set was filled (sigaddset(3)).
    assert_eq!(unsafe { libc::sigaddset(set.as_mut_ptr(), SIGUSR2) }, 0);
    // SAFETY: the set was filled and lives until the call returns; null is no place for the old one
    // (pthread_sigmask(3)).
    assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) }, 0);
    drop(Signals::new([SIGUSR1, SIGUSR2]).unwrap());
    assert!(!is_blocked(SIGUSR1) && is_blocked(SIGUSR2));
}

#[test]
fn a_kill_of_the_waiter_unblocks_too() {
    let _guard = common::guard();
    let waiter = spawn(ctrl_c);
    yield_now();
    assert!(is_blocked(SIGINT));
    waiter.kill();
    assert!(waiter.join().unwrap_err().is_killed());
    assert!(!is_blocked(SIGINT));
}

#[test]
fn what_cannot_be_received_is_an_error_and_blocks_nothing() {
    let _guard = common::guard();
    for bad in [SIGKILL, SIGSTOP, libc::SIGSEGV, libc::SIGBUS, 0, -1, 32, 65, i32::MAX] {
        let error = Signals::new([SIGUSR1, bad]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        assert!(error.to_string().contains("cannot be received"), "{error}");
    }
    assert_eq!(Signals::new([]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(!is_blocked(SIGUSR1));
}

#[test]
fn while_unwinding_nothing_waits_and_what_is_there_is_taken() {
    let _guard = common::guard();
    let signals = Signals::new([SIGUSR1]).unwrap();
    raise(SIGUSR1);
    while_panicking(|| assert_eq!(signals.recv().unwrap().number(), SIGUSR1));
    while_panicking(|| {
        assert_eq!(signals.recv().unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(signals.recv_timeout(SHORT).unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(signals.try_recv().unwrap(), None);
    });
    assert!(catch_unwind(AssertUnwindSafe(|| no_switch(|| signals.recv().map(drop)))).is_err());
    raise(SIGUSR1);
    assert_eq!(signals.recv().unwrap().number(), SIGUSR1);
}

#[test]
fn an_os_thread_that_ends_takes_its_waiters_out() {
    let _guard = common::guard();
    std::thread::spawn(|| {
        drop(spawn(|| Signals::new([SIGUSR1]).unwrap().recv().map(drop)));
        thread_local! {
            static LAST: std::cell::RefCell<Option<Signals>> = const { std::cell::RefCell::new(None) };
        }
        LAST.with(|last| *last.borrow_mut() = Some(Signals::new([SIGUSR2]).unwrap()));
        yield_now();
    })
    .join()
    .unwrap();
}

#[test]
fn children_start_with_nothing_blocked_that_is_received_here() {
    let _guard = common::guard();
    let blocked = |command: &mut Command| {
        let outputs = [command.args(["SigBlk", "/proc/self/status"]).output(), command.output()];
        let [first, second] = outputs.map(|output| String::from_utf8(output.unwrap().stdout).unwrap());
        assert_eq!(first, second, "{command:?} a second time");
        first.trim_start_matches("SigBlk:").trim().to_owned()
    };
    const NOTHING: &str = "0000000000000000";
    // Made before, and after; std forks by itself for one that changes its user, even to the same.
    let mut early = Command::new("grep");
    let _signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, libc::SIGRTMAX()]).unwrap();
    let mut changed = Command::new("grep");
    // SAFETY: it takes nothing and cannot fail (getuid(2)).
    changed.as_std_mut().uid(unsafe { libc::getuid() });
    for command in [&mut early, &mut Command::new("grep"), &mut changed] {
        assert_eq!(blocked(command), NOTHING, "{command:?}");
    }
    // Another OS thread inherits it; its children do not.
    let other = std::thread::spawn(move || (is_blocked(SIGTERM), blocked(&mut Command::new("grep"))));
    assert_eq!(other.join().unwrap(), (true, NOTHING.to_owned()));
    // And what std leaves in its own children is the reason for all this.
    let theirs = std::process::Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap();
    assert_ne!(theirs.stdout, format!("SigBlk:\t{NOTHING}\n").into_bytes());
}

/// Real-time signals are counted: each wakes one.
#[test]
fn receiving_a_signal_has_the_five_properties() {
    let _guard = common::guard();
    five_properties(&Primitive {
        name: "Signals::recv",
        wakes: Wakes::One,
        make: || {
            let signals = Rc::new(Signals::new([libc::SIGRTMIN()]).unwrap());
            while signals.try_recv().unwrap().is_some() {}
            let other = Rc::clone(&signals);
            Subject::new(move || drop(signals.recv().unwrap().to_string()), || raise(libc::SIGRTMIN()))
                .or_for(move |limit| other.recv_timeout(limit).unwrap().is_some())
        },
    });
}
