//! Faults on purpose: each kind happens where it can, is part of the schedule, and is not there unless asked for.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::process::Command;
use std::rc::Rc;
use std::sync::Mutex as OsMutex;
use std::time::Duration;

use greenling::group::Pool;
use greenling::sim::{self, Config, FailureKind, FaultKind, Faults, Strategy};
use greenling::sync::{Condvar, Mutex};
use greenling::thread::{Builder, current, park, park_timeout};
use greenling::{channel, sleep, spawn, timeout, yield_now};

const SECOND: Duration = Duration::from_secs(1);

/// Returns a configuration for schedules as in life, in which only `kinds` go wrong.
fn only(kinds: &[FaultKind]) -> Config {
    Config::new().strategy(Strategy::Fifo).faults(Faults::new().only(kinds))
}

/// Takes it that a notification is what ends a wait.
fn waits_with_if() {
    let place = Rc::new((Mutex::new(None), Condvar::new()));
    let theirs = Rc::clone(&place);
    spawn(move || {
        sleep(SECOND);
        *theirs.0.lock().unwrap() = Some(7);
        theirs.1.notify_one();
    });
    let mut held = place.0.lock().unwrap();
    if held.is_none() {
        held = place.1.wait(held).unwrap();
    }
    assert_eq!(*held, Some(7), "it was woken, so it is there");
}

/// Takes it that `park` returns after an unpark only.
fn parks_once() {
    let ready = Rc::new(Cell::new(false));
    let (theirs, main) = (Rc::clone(&ready), current());
    spawn(move || {
        sleep(SECOND);
        theirs.set(true);
        main.unpark();
    });
    park();
    assert!(ready.get(), "it was unparked, so it is ready");
}

/// Takes a value out of a channel inside of a time limit, and has it in its hands when the limit strikes.
pub(crate) fn loses_a_value_to_a_timeout() {
    let (send, receive) = channel::unbounded();
    (0..3).for_each(|number| send.send(number).unwrap());
    drop(send);
    let got = RefCell::new(Vec::new());
    let take = || {
        let number = receive.recv()?;
        sleep(Duration::from_millis(1));
        got.borrow_mut().push(number);
        Ok::<(), channel::RecvError>(())
    };
    while !matches!(timeout(SECOND, take), Ok(Err(_))) {}
    assert_eq!(got.into_inner(), [0, 1, 2], "a value was lost");
}

/// Takes it that threads can always be spawned.
fn spawns_for_certain() {
    let threads: Vec<_> = (0..3).map(|number| spawn(move || number)).collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>(), 3);
}

/// Takes it that a sleep ends in time.
fn sleeps_to_the_second() {
    sleep(SECOND);
    assert_eq!(sim::elapsed(), SECOND, "it slept too long");
}

/// Takes it that its double of a disk writes all at once, and never fails.
fn writes_for_certain() {
    let mut disk = Vec::<u8>::new();
    let mut write = |bytes: &[u8]| {
        sim::may_fail(&[FaultKind::Interrupted, FaultKind::NoDescriptors, FaultKind::Reset])?;
        let moved = sim::transferred(bytes.len());
        disk.extend(&bytes[..moved]);
        io::Result::Ok(moved)
    };
    let written = write(b"all").unwrap_or_else(|error| panic!("the disk says {:?}", error.kind()));
    assert_eq!(written, 3, "a short write");
}

/// A program with a bug, the kind of fault that shows it, and how the report begins.
type Bug = (FaultKind, fn(), &'static str);

/// All of them.
const BUGS: [Bug; 9] = [
    (FaultKind::SpuriousWake, waits_with_if, "assertion `left == right` failed: it was woken, so it is there"),
    (FaultKind::SpuriousWake, parks_once, "it was unparked, so it is ready, at tests/sim/faults.rs:"),
    (FaultKind::Timeout, loses_a_value_to_a_timeout, "assertion `left == right` failed: a value was lost"),
    (FaultKind::Spawn, spawns_for_certain, "failed to spawn a green thread: "),
    (FaultKind::LateTimer, sleeps_to_the_second, "assertion `left == right` failed: it slept too long"),
    (FaultKind::Interrupted, writes_for_certain, "the disk says Interrupted, at tests/sim/faults.rs:"),
    (FaultKind::NoDescriptors, writes_for_certain, "the disk says "),
    (FaultKind::Reset, writes_for_certain, "the disk says ConnectionReset, at tests/sim/faults.rs:"),
    (FaultKind::Short, writes_for_certain, "assertion `left == right` failed: a short write"),
];

#[test]
fn each_kind_is_found_by_a_sweep_by_seeds_and_by_plan_and_shrunk_to_one() {
    for (kind, program, begin) in BUGS {
        Config::new().check(program).unwrap_or_else(|failure| panic!("{kind}: without a fault: {failure}"));
        let planned = Config::new().faults(Faults::new().rate(0.0).at(kind, 1));
        for failure in [only(&[kind]).check_faults(program), only(&[kind]).check(program), planned.check(program)] {
            let failure = failure.expect_err(begin);
            assert_eq!(failure.kind(), FailureKind::Panic, "{kind}: {failure}");
            assert!(failure.message().starts_with(begin), "{kind}: {failure}");
            assert_eq!(failure.trace().faults(), 1, "{kind}: {}", failure.trace());
            assert!(failure.trace().to_string().contains(&format!(" fault: {kind}")), "{}", failure.trace());
        }
        // What is not asked for does not happen.
        let others: Vec<_> = [FaultKind::NoMemory, FaultKind::WouldBlock].into();
        only(&others).check_faults(program).unwrap_or_else(|failure| panic!("{kind}: {failure}"));
    }
}

#[test]
fn shrinking_leaves_out_the_faults_that_are_not_needed() {
    let program = || {
        let sleepers: Vec<_> = (0..10).map(|number| spawn(move || sleep(number * SECOND))).collect();
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        parks_once();
    };
    let faults = Faults::new().only(&[FaultKind::SpuriousWake, FaultKind::LateTimer]).rate(0.5);
    let failure = Config::new().faults(faults).check(program).unwrap_err();
    println!("{failure}\n{}", failure.trace());
    assert!(failure.found_with() > 5);
    assert_eq!((failure.schedule().deviations(), failure.trace().faults()), (1, 1));
}

#[test]
fn without_faults_no_choice_is_another() {
    let program = || {
        let thread = spawn(|| timeout(SECOND, || (yield_now(), park_timeout(SECOND))));
        yield_now();
        let _ = thread.join().unwrap();
    };
    let plain = Config::new().seed(3).trace(program);
    assert_eq!(Config::new().seed(3).faults(Faults::new().only(&[])).trace(program), plain);
    assert_eq!(plain.faults(), 0);
    // And with faults the same seed gives the same ones.
    let faults = || Config::new().seed(3).faults(Faults::new().rate(0.5)).trace(program);
    assert!(faults().faults() > 0);
    assert_eq!(faults(), faults());
}

#[test]
fn timers_are_late_and_never_early() {
    let lateness = OsMutex::new(std::collections::BTreeSet::new());
    only(&[FaultKind::LateTimer])
        .check(|| {
            let before = sim::elapsed();
            sleep(SECOND);
            lateness.lock().unwrap().insert(sim::elapsed() - before - SECOND);
            let before = sim::elapsed();
            assert!(timeout(SECOND, park).is_err());
            assert!(sim::elapsed() - before >= SECOND);
        })
        .unwrap();
    let micro = Duration::from_micros(1);
    let all = [Duration::ZERO, micro, 1000 * micro, SECOND];
    assert!(lateness.into_inner().unwrap().into_iter().eq(all));
}

#[test]
fn time_that_passes_fires_what_is_due_and_nothing_before() {
    let swept = Config::new().check_timeouts(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let threads: Vec<_> = [3, 1, 2]
            .into_iter()
            .map(|number: u32| {
                let order = Rc::clone(&order);
                spawn(move || {
                    assert!(timeout(number * SECOND, park).is_err());
                    assert!(sim::elapsed() >= number * SECOND);
                    order.borrow_mut().push(number);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut order = order.take();
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3]);
    });
    // Nothing, or one of three waits.
    assert_eq!(swept.unwrap().schedules(), 4);
}

#[test]
fn a_spawn_fails_with_an_error_and_what_was_reserved_does_not() {
    let seen = OsMutex::new(std::collections::BTreeSet::new());
    let swept = only(&[FaultKind::Spawn]).check_faults(|| {
        let spawned = Builder::new().spawn(|| 7);
        if let Err(error) = &spawned {
            seen.lock().unwrap().insert(error.kind());
        }
        assert!(spawned.is_err() || spawned.unwrap().join().unwrap() == 7);
    });
    assert_eq!(swept.unwrap().schedules(), 3);
    assert!(seen.into_inner().unwrap().into_iter().eq([ErrorKind::WouldBlock, ErrorKind::OutOfMemory]));
    // A pool that has a place gives the closure back if there is no stack, and never panics.
    let faults = Faults::new().only(&[FaultKind::Spawn]).rate(0.5);
    Config::new()
        .faults(faults)
        .check(|| {
            let (pool, ran) = (Pool::new(4), Rc::new(Cell::new(0)));
            let mut given_back = 0;
            for _ in 0..4 {
                let ran = Rc::clone(&ran);
                match pool.try_spawn(move || ran.set(ran.get() + 1)) {
                    Ok(thread) => thread.join().unwrap(),
                    Err(_) => given_back += 1,
                }
            }
            assert_eq!(ran.get() + given_back, 4);
        })
        .unwrap();
}

#[test]
fn kills_by_seed_come_in_pairs_too() {
    let most = OsMutex::new(0);
    let faults = Faults::new().only(&[FaultKind::Kill]).rate(0.3);
    Config::new()
        .faults(faults)
        .check(|| {
            let lock = Rc::new(Mutex::new(()));
            let held = || {
                let lock = Rc::clone(&lock);
                spawn(move || {
                    let _held = lock.lock().unwrap();
                    yield_now();
                })
            };
            let threads = [held(), held(), held()];
            let killed = threads.into_iter().filter_map(|thread| thread.join().err()).filter(|e| e.is_killed()).count();
            assert!(lock.try_lock().is_ok());
            let mut most = most.lock().unwrap();
            *most = killed.max(*most);
        })
        .unwrap();
    assert_eq!(most.into_inner().unwrap(), 3);
    // Only by name.
    let faults = Faults::new().rate(1.0);
    Config::new().faults(faults).check(|| assert!(Builder::new().spawn(yield_now).is_err())).unwrap();
}

#[test]
fn a_chance_is_a_chance_and_a_place_has_a_number() {
    let message = |f: fn() -> Faults| {
        let payload = std::panic::catch_unwind(f).unwrap_err();
        payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
    };
    assert_eq!(message(|| Faults::new().rate(1.5)).unwrap(), "a chance of 1.5: not between 0 and 1");
    assert_eq!(message(|| Faults::new().rate(f64::NAN)).unwrap(), "a chance of NaN: not between 0 and 1");
    assert_eq!(message(|| Faults::new().at(FaultKind::Spawn, 0)).unwrap(), "the first place has the number 1");
    // Outside of a simulation nothing fails.
    assert!(sim::may_fail(&[FaultKind::Reset]).is_ok());
    assert_eq!(sim::transferred(9), 9);
}

/// Not a test by itself: [`each_fault_is_replayed_by_its_line`] starts it, with the number of a bug.
#[test]
#[ignore = "fails; a child of another test"]
fn has_a_fault() {
    let number: usize = std::env::var("GREENLING_TEST_BUG").unwrap().parse().unwrap();
    let (kind, program, _) = BUGS[number];
    sim::fault_sweep(Config::new().faults(Faults::new().only(&[kind])), program);
}

#[test]
fn each_fault_is_replayed_by_its_line() {
    let child = |number: usize, seed: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "faults::has_a_fault", "--nocapture"]).env_remove("GREENLING_SEED");
        command.env("RUST_BACKTRACE", "0").env("GREENLING_TEST_BUG", number.to_string());
        if let Some(seed) = seed {
            command.env("GREENLING_SEED", seed);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success(), "bug {number} with {seed:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let line_of = |text: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix("replay: GREENLING_SEED=").map(str::to_owned));
        line.unwrap_or_else(|| panic!("{text}"))
    };
    for (number, (kind, _, begin)) in BUGS.into_iter().enumerate() {
        let line = line_of(&child(number, None));
        let (seed, command) = line.split_once(' ').unwrap();
        assert_eq!(command, "cargo test faults::has_a_fault -- --exact");
        let again = child(number, Some(seed));
        assert!(again.contains(begin), "{kind}: {again}");
        assert_eq!(line_of(&again), line, "{kind}");
    }
}
