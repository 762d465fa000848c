//! Exploration: what it finds, in how many schedules, what it says.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use greenling::sim::{self, Config, Explored, Failure, FailureKind, Strategy};
use greenling::sync::Mutex;
use greenling::{Greenlet, channel, select, sleep, spawn, thread, yield_now};

const ALL: Strategy = Strategy::Exhaustive { choices: usize::MAX };

/// Two threads that take two locks, in opposite orders.
fn two_locks() {
    let locks = Rc::new((Mutex::new(()), Mutex::new(())));
    let (here, there) = (Rc::clone(&locks), Rc::clone(&locks));
    let one = spawn(move || {
        let _first = here.0.lock().unwrap();
        let _second = here.1.lock().unwrap();
    });
    let other = spawn(move || {
        let _first = there.1.lock().unwrap();
        let _second = there.0.lock().unwrap();
    });
    one.join().unwrap();
    other.join().unwrap();
}

/// Does work that has nothing to do with the bug: its deviations are what shrinking leaves out.
fn busy(log: &Mutex<Vec<&str>>) {
    (0..20).for_each(|_| log.lock().unwrap().push("busy"));
}

/// Looks, then waits for a lock, then parks: a wake-up that comes meanwhile is lost.
fn lost_wake_up() {
    let work = Rc::new(Cell::new(false));
    let sleeper = Rc::new(RefCell::new(None::<thread::Thread>));
    let log = Rc::new(Mutex::new(Vec::new()));
    let (work2, sleeper2, log2) = (Rc::clone(&work), Rc::clone(&sleeper), Rc::clone(&log));
    spawn(move || {
        busy(&log2);
        work2.set(true);
        let sleeping = sleeper2.take();
        if let Some(thread) = sleeping {
            thread.unpark();
        }
    });
    busy(&log);
    if !work.get() {
        log.lock().unwrap().push("nothing to do");
        sleeper.replace(Some(thread::current()));
        thread::park();
    }
}

#[test]
fn random_schedules_find_a_deadlock_of_two_locks() {
    // The order of life never shows it.
    assert!(Config::new().strategy(Strategy::Fifo).schedules(10).check(two_locks).is_ok());
    // From a hundred places to begin at, and in the worst of them in at most a hundred schedules.
    let found = |seed| Config::new().seed(seed * 1000_u64).shrink(false).check(two_locks).unwrap_err();
    let worst = (0..100_u64).map(|seed| found(seed).schedules()).max().unwrap();
    println!("a deadlock of two locks: found in {worst} schedules at worst");
    assert!(worst <= 100, "{worst}");
    let failure = found(0);
    assert_eq!(failure.kind(), FailureKind::Deadlock);
    assert!(failure.message().contains("wait for each other") || failure.message().contains("deadlock"), "{failure}");
}

#[test]
fn every_strategy_that_varies_finds_it() {
    for strategy in [Strategy::Random, Strategy::Pct { depth: 2 }, Strategy::Pct { depth: 3 }, ALL] {
        let failure = Config::new().strategy(strategy).check(two_locks).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Deadlock, "{strategy:?}");
    }
}

#[test]
fn a_lost_wake_up_is_found_and_shrunk_to_one_switch() {
    let failure = Config::new().check(lost_wake_up).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Deadlock);
    println!("{failure}\n{}", failure.trace());
    assert!(failure.found_with() > failure.schedule().deviations(), "{failure}");
    assert_eq!((failure.schedule().deviations(), failure.trace().preemptions()), (1, 1), "{}", failure.trace());
}

/// Counts the schedules in which a bug of depth 2 shows: one certain step of one thread comes before all of the others.
#[test]
fn pct_finds_a_bug_of_depth_two_at_its_proven_rate() {
    const THREADS: u64 = 4;
    const SCHEDULES: u64 = 5000;
    let (hits, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let program = || {
        let lock = Rc::new(Mutex::new(()));
        // Thread 0 sets this for one step; thread 1 asks at its first step whether it is set.
        let window = Rc::new(Cell::new(false));
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (lock, window) = (Rc::clone(&lock), Rc::clone(&window));
                spawn(move || {
                    let was_seen = number == 1 && window.get();
                    for step in 0..5 {
                        window.set(number == 0 && step >= 3);
                        drop(lock.lock().unwrap());
                    }
                    window.set(window.get() && number != 0);
                    was_seen
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|seen| *seen).count() > 0
    };
    let config = Config::new().strategy(Strategy::Pct { depth: 2 }).schedules(SCHEDULES).progress(false);
    let explored = config
        .check(|| {
            if program() {
                hits.fetch_add(1, Ordering::Relaxed);
            }
            most.fetch_max(1, Ordering::Relaxed);
        })
        .unwrap();
    // The number of choices in the order of life is at most the average, since threads that go on make more.
    let choices = explored.choices() as f64 / SCHEDULES as f64;
    let proven = 1.0 / ((THREADS + 1) as f64 * choices);
    let rate = hits.into_inner() as f64 / SCHEDULES as f64;
    println!("PCT: rate {rate:.4}, proven {proven:.4}, {choices:.1} choices in a schedule");
    assert!(rate >= proven, "rate {rate}, proven {proven}");
}

#[test]
fn all_schedules_of_a_small_program_are_run_once() {
    // Two threads of two steps each, and main that waits for both: the orders are counted by hand.
    let seen = std::sync::Mutex::new(std::collections::BTreeMap::new());
    let explored = Config::new().strategy(ALL).check(|| {
        let order = Rc::new(RefCell::new(String::new()));
        let step = |name: char| {
            let order = Rc::clone(&order);
            spawn(move || {
                order.borrow_mut().push(name);
                yield_now();
                order.borrow_mut().push(name);
            })
        };
        let (a, b) = (step('a'), step('b'));
        a.join().unwrap();
        b.join().unwrap();
        *seen.lock().unwrap().entry(order.take()).or_insert(0) += 1;
    });
    let explored: Explored = explored.unwrap();
    assert!(explored.is_complete());
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.values().sum::<u64>(), explored.schedules());
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), ["aabb", "abab", "abba", "baab", "baba", "bbaa"]);
}

#[test]
fn a_bound_is_reported_and_not_hidden() {
    let program = || {
        let threads: Vec<_> = (0..3).map(|_| spawn(|| (0..3).for_each(|_| yield_now()))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    };
    let bounded = Config::new().strategy(Strategy::Exhaustive { choices: 3 }).check(program).unwrap();
    assert!(!bounded.is_complete() && bounded.cut() == bounded.schedules(), "{bounded}");
    let few = Config::new().strategy(ALL).schedules(10).check(program).unwrap();
    assert_eq!((few.schedules(), few.is_complete(), few.cut()), (10, false, 0));
    assert!(few.to_string().ends_with("there may be others"), "{few}");
}

#[test]
fn each_ready_arm_of_a_select_is_a_choice() {
    let taken = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let explored = Config::new().strategy(ALL).check(|| {
        let ends: [_; 3] = std::array::from_fn(|_| channel::unbounded());
        ends.iter().for_each(|(send, _)| send.send(()).unwrap());
        let arm = select! {
            recv(ends[0].1) -> _ => 0,
            recv(ends[1].1) -> _ => 1,
            recv(ends[2].1) -> _ => 2,
        };
        taken.lock().unwrap().insert(arm);
    });
    assert!(explored.unwrap().is_complete());
    assert_eq!(taken.into_inner().unwrap().into_iter().collect::<Vec<_>>(), [0, 1, 2]);
}

/// Checks `program` in a few schedules, which must fail.
fn failure_of(program: impl Fn() + Sync) -> Failure {
    Config::new().max_turns(10_000).check(program).unwrap_err()
}

#[test]
fn each_kind_of_failure_is_told() {
    let failure = failure_of(|| panic!("main panics"));
    assert_eq!(failure.kind(), FailureKind::Panic);
    assert!(failure.message().starts_with("main panics, at tests/sim/explore.rs:"), "{failure}");

    let failure = failure_of(|| drop(spawn(|| panic!("nothing joins"))));
    assert_eq!(failure.kind(), FailureKind::Panic);
    assert!(failure.message().starts_with("thread #2 panicked, and no thread joins it: nothing joins"), "{failure}");

    let failure = failure_of(|| drop(spawn(thread::park)));
    assert_eq!(failure.kind(), FailureKind::Leak);
    assert!(failure.message().contains("#2 parked") || failure.message().contains("#2"), "{failure}");

    let failure = failure_of(thread::park);
    assert_eq!(failure.kind(), FailureKind::Deadlock);

    let failure = failure_of(|| {
        let number = Rc::new(Cell::new(0));
        let seen = Rc::clone(&number);
        sim::invariant(move || assert!(seen.get() < 3, "it is three"));
        for n in 0..5 {
            number.set(n);
            yield_now();
        }
    });
    assert_eq!(failure.kind(), FailureKind::Invariant);
    assert!(failure.message().contains("it is three, at tests/sim/explore.rs:"), "{failure}");

    for endless in [
        || loop {
            yield_now()
        },
        || loop {
            drop(Mutex::new(()).lock())
        },
    ] {
        let failure = failure_of(endless);
        assert_eq!(failure.kind(), FailureKind::NoEnd);
    }
    let failure = failure_of(|| {
        let stuck = spawn(|| {
            loop {
                yield_now()
            }
        });
        stuck.join().unwrap();
    });
    assert_eq!(failure.kind(), FailureKind::NoEnd);
}

#[test]
fn what_others_ask_for_is_no_failure() {
    // A panic that is joined, a thread that ends after main, and a leak that is allowed.
    Config::new().check(|| assert!(spawn(|| panic!("joined")).join().is_err())).unwrap();
    Config::new().check(|| drop(spawn(|| sleep(Duration::from_secs(5))))).unwrap();
    Config::new().allow_leaks(true).check(|| drop(spawn(thread::park))).unwrap();
}

#[test]
fn what_is_found_does_not_depend_on_the_number_of_os_threads() {
    let rare = || {
        two_locks();
        assert!(sim::random() % 50 != 7);
    };
    let one = Config::new().check(rare).unwrap_err();
    for os_threads in [2, 4] {
        let several = Config::new().os_threads(os_threads).check(rare).unwrap_err();
        assert_eq!((several.seed(), several.schedule()), (one.seed(), one.schedule()));
    }
    let explored = Config::new().os_threads(3).schedules(500).check(|| drop(spawn(yield_now))).unwrap();
    assert_eq!(explored.schedules(), 500);
}

#[test]
fn a_kill_at_every_suspension_finds_what_is_left_behind() {
    // A flag that an unwinding leaves set; a guard would clear it.
    let broken = || {
        let busy = Rc::new(Cell::new(false));
        let flag = Rc::clone(&busy);
        let worker = spawn(move || {
            for _ in 0..3 {
                yield_now();
            }
            flag.set(true);
            yield_now();
            flag.set(false);
        });
        let _ = worker.join();
        assert!(!busy.get(), "it is busy for ever");
    };
    let fifo = Config::new().strategy(Strategy::Fifo);
    let failure = fifo.check_kills(broken).unwrap_err();
    assert!(failure.message().starts_with("it is busy for ever"), "{failure}");
    assert_eq!(failure.schedule().to_string(), "0:k4", "the fourth time that it leaves the CPU");
}

#[test]
fn a_kill_sweep_comes_to_the_first_suspension_of_a_greenlet_too() {
    let killed = std::sync::Mutex::new(Vec::new());
    let swept = Config::new().strategy(Strategy::Fifo).check_kills(|| {
        let ended = Rc::new(Cell::new(0));
        let steps = Rc::clone(&ended);
        let thread = spawn(move || {
            let greenlet = Greenlet::new(move |()| {
                for step in 1..=2 {
                    sleep(Duration::from_secs(1));
                    steps.set(step);
                }
            });
            greenlet.switch(());
        });
        let _ = thread.join();
        killed.lock().unwrap().push(ended.get());
    });
    assert!(swept.unwrap().is_complete());
    // Without a kill, with one in either sleep, and the run that finds that there are no others.
    assert_eq!(killed.into_inner().unwrap(), [2, 0, 1, 2]);
}

#[test]
fn a_run_leaves_nothing_to_the_next_one() {
    greenling::green_local!(static NUMBER: Cell<u32> = Cell::new(0));
    Config::new()
        .schedules(50)
        .check(|| {
            NUMBER.with(|number| {
                assert_eq!(number.get(), 0);
                number.set(1);
            });
            thread::current().unpark();
            assert_eq!(sim::elapsed(), Duration::ZERO);
            let begin = greenling::time::now();
            drop(spawn(|| sleep(Duration::from_secs(9))));
            sleep(Duration::from_secs(1));
            assert_eq!(greenling::time::now() - begin, Duration::from_secs(1));
        })
        .unwrap();
}

/// In a release build: `cargo test --release --test sim ten_thousand -- --nocapture`.
#[test]
fn ten_thousand_schedules_take_about_a_second() {
    let explored = Config::new()
        .schedules(10_000)
        .check(|| {
            let lock = Rc::new(Mutex::new(0));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let lock = Rc::clone(&lock);
                    spawn(move || *lock.lock().unwrap() += 1)
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(*lock.lock().unwrap(), 3);
        })
        .unwrap();
    let rate = explored.schedules() as f64 / explored.time().as_secs_f64();
    println!("{explored}: {rate:.0} schedules a second");
}
