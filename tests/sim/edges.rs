//! Programs at the edge: payloads that panic, panics without a message, runs that do not end, runs inside of runs.

use std::fs::OpenOptions;
use std::panic::{catch_unwind, panic_any, resume_unwind};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use greenling::sim::{self, Config, FailureKind, Strategy};
use greenling::sync::Mutex;
use greenling::{sleep, spawn, yield_now};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb");
    }
}

#[test]
fn a_payload_that_panics_is_a_failure_like_others() {
    let failure = Config::new().check(|| panic_any(Bomb)).unwrap_err();
    assert_eq!((failure.kind(), failure.schedules()), (FailureKind::Panic, 1));
    assert!(failure.message().starts_with("a panic without a message, at tests/sim/edges.rs:"), "{failure}");
    let pct = Config::new().strategy(Strategy::Pct { depth: 2 });
    assert_eq!(pct.check(|| panic_any(Bomb)).unwrap_err().kind(), FailureKind::Panic);
    assert_eq!(pct.check_kills(|| panic_any(Bomb)).unwrap_err().kind(), FailureKind::Panic);
    assert!(pct.trace(|| panic_any(Bomb)).is_empty());
}

#[test]
fn the_message_is_that_of_the_panic_that_ended_main() {
    let message = |f: fn()| Config::new().check(f).unwrap_err().message().to_owned();
    assert_eq!(message(|| resume_unwind(Box::new("goes on"))), "goes on");
    assert_eq!(message(|| resume_unwind(Box::new(17))), "a panic without a message");
    let after_another = message(|| {
        assert!(spawn(|| panic!("another")).join().is_err());
        resume_unwind(Box::new(String::from("goes on")));
    });
    assert_eq!(after_another, "goes on");
}

#[test]
fn threads_that_go_on_after_main_are_an_error_and_no_hang() {
    let ticks = || {
        drop(spawn(|| {
            loop {
                sleep(Duration::from_secs(1));
            }
        }));
    };
    let failure = Config::new().max_turns(1000).check(ticks).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::NoEnd);
    let text = failure.message();
    // The time is said, since time did pass.
    assert!(text.starts_with("no end: main has returned, and threads still run after 1000 turns, at "), "{text}");
    assert!(text.ends_with("s of virtual time; if they are to, allow leaks"), "{text}");
    // A run has no bound but this one.
    let yields = || {
        drop(spawn(|| {
            loop {
                yield_now();
            }
        }));
    };
    let payload = catch_unwind(|| sim::run(1, yields)).unwrap_err();
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.starts_with("no end: main has returned"), "{text}");
}

/// `cargo test --release --test sim shrinking_of_long -- --ignored`.
#[test]
#[ignore = "takes ten seconds in a debug build"]
fn shrinking_of_long_runs_ends_soon() {
    let (runs, steps) = (AtomicU64::new(0), 25_000);
    let failure = Config::new()
        .check(|| {
            runs.fetch_add(1, Ordering::Relaxed);
            let lock = Rc::new(Mutex::new(()));
            let taken = Rc::clone(&lock);
            let other = spawn(move || (0..steps).for_each(|_| drop(taken.lock())));
            (0..steps).for_each(|_| drop(lock.lock()));
            other.join().unwrap();
            // Three deviations are needed, so many lists of one and of two are tried.
            assert!((0..8).map(|_| sim::choose(2)).sum::<usize>() < 3);
        })
        .unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Panic);
    let runs = runs.into_inner();
    println!("{runs} runs, {} deviations", failure.schedule().deviations());
    assert!(runs < 1000, "{runs}");
}

#[test]
fn pct_takes_any_bound_and_any_depth() {
    for depth in [0, 1, 3] {
        Config::new().strategy(Strategy::Pct { depth }).max_turns(u64::MAX).run(|| {
            drop(spawn(yield_now));
            yield_now();
        });
    }
}

#[test]
fn the_longest_sleeps_end_and_the_farthest_deadlines_are_deadlines() {
    sim::run(1, || {
        for _ in 0..2 {
            sleep(Duration::MAX);
        }
        let end = sim::elapsed();
        assert!(end > Duration::from_secs(400 * 365 * 24 * 3600));
        assert_eq!(sim::elapsed(), end);
    });
    sim::run(1, || {
        let mut far = greenling::time::now();
        for power in (0..64).rev() {
            far = far.checked_add(Duration::from_secs(1 << power)).unwrap_or(far);
        }
        greenling::timeout_at(far, || sleep(Duration::from_secs(1))).unwrap();
        assert_eq!(sim::elapsed(), Duration::from_secs(1));
    });
}

#[test]
fn a_count_that_went_past_schedules_does_not_claim_all() {
    // What no seed has a part in: each other run has no choice.
    let runs = AtomicU64::new(0);
    let explored = Config::new().strategy(Strategy::Exhaustive { choices: usize::MAX }).check(|| {
        if runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            sim::choose(2);
        }
    });
    assert!(!explored.unwrap().is_complete());
}

#[test]
fn a_simulation_in_a_simulation_has_its_own_time_and_says_no_wrong_test() {
    let times = sim::run(1, || {
        sleep(Duration::from_secs(5));
        let inner = sim::run(2, || {
            sleep(Duration::from_secs(1));
            (sim::seed(), sim::elapsed())
        });
        (inner, sim::seed(), sim::elapsed())
    });
    assert_eq!(times, ((Some(2), Duration::from_secs(1)), Some(1), Duration::from_secs(5)));
    sim::run(1, || {
        let failure = Config::new().check(|| panic!("inside")).unwrap_err();
        assert_eq!(failure.replay(), "GREENLING_SEED=0:");
    });
}

/// Not a test by itself: what [`a_hook_of_the_programs_own_hides_no_message`] starts.
#[test]
#[ignore = "a child of another test"]
fn has_a_hook_of_its_own() {
    // The first hub of the process sets a hook that passes panics on; this one does not.
    Config::new().schedules(1).check(|| ()).unwrap();
    std::panic::set_hook(Box::new(|_| ()));
    let message = |f: fn()| Config::new().check(f).unwrap_err().message().to_owned();
    println!("[{}]", message(|| drop(spawn(|| panic!("it has {} messages", 1)))));
    println!("[{}]", message(|| drop(spawn(|| panic_any(17)))));
    println!("[{}]", message(|| panic!("main has one")));
}

#[test]
fn a_hook_of_the_programs_own_hides_no_message() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "edges::has_a_hook_of_its_own", "--nocapture"]);
    let output = command.env_remove("GREENLING_SEED").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in [
        "[thread #2 panicked, and no thread joins it: it has 1 messages]",
        "[thread #2 panicked, and no thread joins it: a panic without a message]",
        "[main has one]",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// Not a test by itself: what [`the_environment_and_standard_error_may_be_anything`] starts.
#[test]
#[ignore = "a child of another test"]
fn fails_without_a_standard_error() {
    // The schedule of the environment is for the outer one.
    assert_eq!(sim::run(1, || (sim::seed(), sim::run(2, sim::seed))), (Some(9), Some(2)));
    let payload = catch_unwind(|| sim::run(1, || panic_any(17))).unwrap_err();
    println!("the payload is {:?}", payload.downcast_ref::<i32>());
}

#[test]
fn the_environment_and_standard_error_may_be_anything() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "edges::fails_without_a_standard_error", "--nocapture"]);
    let output = command.env("GREENLING_SEED", "9").stderr(full).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("the payload is Some(17)"), "{text}");
}
