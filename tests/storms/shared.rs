//! `hub::sync` in a storm: hubs with many green threads, and OS threads without a hub, all at the same locks; kills,
//! timeouts and ends of OS threads at random. Nothing is lost, one is in at a time, and all end.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{self, OnDrop, Random};
use greenling::hub::sync::{Condvar, Mutex, OnceLock, RwLock, Semaphore};
use greenling::thread::{JoinHandle, spawn, yield_now};
use greenling::{hub, sleep, timeout};

/// OS threads with a hub.
const HUBS: usize = 3;

/// OS threads without one.
const PLAIN: usize = 2;

/// Green threads of each hub.
const CROWD: u64 = 100;

/// What each of them does, how often.
const ROUNDS: u64 = 30;

/// What happened.
#[derive(Default)]
struct Outcome {
    /// Green threads that returned.
    returned: usize,
    /// Green threads that were killed.
    killed: usize,
}

/// The life of an OS thread with a hub: starts its crowd, kills some of it, and waits for the rest.
fn hub_main(mut random: Random, body: Arc<dyn Fn(&mut Random) + Send + Sync>) -> Outcome {
    let before = hub::live_threads();
    let threads: Vec<JoinHandle<()>> = (0..CROWD)
        .map(|_| {
            let (body, mut random) = (Arc::clone(&body), random.fork());
            spawn(move || {
                for _ in 0..ROUNDS {
                    if random.below(4) == 0 {
                        let _ = timeout(Duration::from_micros(random.below(2000)), || body(&mut random));
                    } else {
                        body(&mut random);
                    }
                }
            })
        })
        .collect();
    for _ in 0..CROWD / 2 {
        threads[random.below(CROWD) as usize].kill();
        match random.below(3) {
            0 => sleep(Duration::from_micros(random.below(500))),
            _ => yield_now(),
        }
    }
    let mut outcome = Outcome::default();
    for thread in threads {
        match thread.join() {
            Ok(()) => outcome.returned += 1,
            Err(error) => {
                assert!(error.is_killed(), "{error:?}");
                outcome.killed += 1;
            }
        }
    }
    assert_eq!(hub::live_threads(), before, "no thread is left");
    outcome
}

/// Runs `body` everywhere at once. Some hubs end while their threads are in the midst of it, and are unwound.
fn storm(body: impl Fn(&mut Random) + Send + Sync + 'static) {
    let (mut random, body) = (Random::new(), Arc::new(body) as Arc<dyn Fn(&mut Random) + Send + Sync>);
    let hubs: Vec<_> = (0..HUBS)
        .map(|_| {
            let (random, body) = (random.fork(), Arc::clone(&body));
            std::thread::spawn(move || hub_main(random, body))
        })
        .collect();
    let plain: Vec<_> = (0..PLAIN)
        .map(|_| {
            let (mut random, body) = (random.fork(), Arc::clone(&body));
            std::thread::spawn(move || (0..CROWD * ROUNDS / 4).for_each(|_| body(&mut random)))
        })
        .collect();
    for _ in 0..10 {
        let (mut random, body) = (random.fork(), Arc::clone(&body));
        let short = std::thread::spawn(move || {
            for _ in 0..5 {
                let (body, mut random) = (Arc::clone(&body), random.fork());
                drop(spawn(move || (0..ROUNDS).for_each(|_| body(&mut random))));
            }
            sleep(Duration::from_micros(random.below(1000)));
            hub::shutdown();
        });
        short.join().expect("it ends in peace");
    }
    plain.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let outcomes: Vec<Outcome> = hubs.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    let (returned, killed) =
        outcomes.iter().fold((0, 0), |all, outcome| (all.0 + outcome.returned, all.1 + outcome.killed));
    assert_eq!(returned + killed, HUBS * CROWD as usize, "all have ended");
    assert!(returned > 0, "{killed} killed");
}

/// A short time limit.
fn limit(random: &mut Random) -> Duration {
    Duration::from_micros(random.below(1000))
}

/// Lets others run while something is held, of this hub and of others.
fn dawdle(random: &mut Random) {
    match random.below(8) {
        0 => sleep(Duration::from_micros(random.below(50))),
        1..4 => yield_now(),
        _ => {}
    }
}

/// A number that every holder reads and writes back later: a second holder meanwhile would be one addition lost.
struct Ledger {
    /// Written by holders only, in two steps.
    sum: AtomicU64,
    /// Holders in it.
    inside: AtomicUsize,
    /// Additions, counted one by one.
    additions: AtomicU64,
}

impl Ledger {
    /// An empty one.
    fn new() -> Arc<Ledger> {
        Arc::new(Ledger { sum: AtomicU64::new(0), inside: AtomicUsize::new(0), additions: AtomicU64::new(0) })
    }

    /// Adds one, alone.
    fn add(&self, random: &mut Random) {
        // Relaxed: the lock under test is what orders them.
        assert_eq!(self.inside.fetch_add(1, Ordering::Relaxed), 0, "alone");
        let _out = OnDrop::new(|| {
            self.inside.fetch_sub(1, Ordering::Relaxed);
        });
        let seen = self.sum.load(Ordering::Relaxed);
        dawdle(random);
        self.sum.store(seen + 1, Ordering::Relaxed);
        self.additions.fetch_add(1, Ordering::Relaxed);
    }

    /// None was lost.
    fn check(&self) {
        assert_eq!(self.sum.load(Ordering::Relaxed), self.additions.load(Ordering::Relaxed));
        assert!(self.additions.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn a_shared_mutex_survives_a_storm() {
    let _guard = common::guard();
    let (lock, ledger) = (Arc::new(Mutex::new(0_u64)), Ledger::new());
    let (theirs, written) = (Arc::clone(&lock), Arc::clone(&ledger));
    storm(move |random| {
        let guard = match random.below(4) {
            0 => theirs.lock_timeout(limit(random)).ok(),
            1 => theirs.try_lock().ok(),
            _ => Some(theirs.lock().unwrap()),
        };
        if let Some(mut guard) = guard {
            written.add(random);
            *guard += 1;
        }
    });
    ledger.check();
    let guard = lock.try_lock().expect("free and sound");
    assert_eq!(*guard, ledger.sum.load(Ordering::Relaxed));
}

#[test]
fn a_shared_rwlock_survives_a_storm() {
    let _guard = common::guard();
    let (lock, ledger) = (Arc::new(RwLock::new(0_u64)), Ledger::new());
    let (theirs, written) = (Arc::clone(&lock), Arc::clone(&ledger));
    storm(move |random| {
        if random.below(3) == 0 {
            let guard = match random.below(2) {
                0 => theirs.write_timeout(limit(random)).ok(),
                _ => Some(theirs.write().unwrap()),
            };
            if let Some(mut guard) = guard {
                written.add(random);
                *guard += 1;
            }
        } else {
            let guard = match random.below(2) {
                0 => theirs.read_timeout(limit(random)).ok(),
                _ => Some(theirs.read().unwrap()),
            };
            if let Some(guard) = guard {
                let seen = *guard;
                assert_eq!(written.inside.load(Ordering::Relaxed), 0, "no writer beside a reader");
                dawdle(random);
                assert_eq!(*guard, seen);
            }
        }
    });
    ledger.check();
    let guard = lock.try_write().expect("free and sound");
    assert_eq!(*guard, ledger.sum.load(Ordering::Relaxed));
}

#[test]
fn a_shared_semaphore_survives_a_storm() {
    let _guard = common::guard();
    let (semaphore, inside) = (Arc::new(Semaphore::bounded(3)), Arc::new(AtomicUsize::new(0)));
    let (theirs, counted) = (Arc::clone(&semaphore), Arc::clone(&inside));
    storm(move |random| {
        let permit = match random.below(3) {
            0 => theirs.acquire_timeout(limit(random)),
            1 => theirs.try_acquire(),
            _ => Some(theirs.acquire()),
        };
        if permit.is_some() {
            assert!(counted.fetch_add(1, Ordering::Relaxed) < 3);
            let _out = OnDrop::new(|| {
                counted.fetch_sub(1, Ordering::Relaxed);
            });
            dawdle(random);
        }
    });
    assert_eq!((semaphore.available_permits(), inside.load(Ordering::Relaxed)), (3, 0));
    assert!(semaphore.release().is_err());
}

/// Tokens in a box: one is put in when the box is empty and a thread waits, with one notification. A lost one is a
/// waiter that never ends: the box is not empty then, and no other notification comes.
#[test]
fn a_shared_condvar_survives_a_storm() {
    let _guard = common::guard();
    let shared = Arc::new((Mutex::new(0_u64), Condvar::new(), AtomicUsize::new(0)));
    let [put, taken] = [(), ()].map(|()| Arc::new(AtomicU64::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let feeder = {
        let (shared, put, over) = (Arc::clone(&shared), Arc::clone(&put), Arc::clone(&over));
        std::thread::spawn(move || {
            let (tokens, changed, waiting) = &*shared;
            while !over.load(Ordering::Relaxed) {
                let mut held = tokens.lock().unwrap();
                if *held == 0 && waiting.load(Ordering::Relaxed) > 0 {
                    *held += 1;
                    put.fetch_add(1, Ordering::Relaxed);
                    changed.notify_one();
                }
                drop(held);
                std::thread::yield_now();
            }
        })
    };
    let (theirs, counted) = (Arc::clone(&shared), Arc::clone(&taken));
    storm(move |random| {
        let (tokens, changed, waiting) = &*theirs;
        dawdle(random);
        let held = tokens.lock().unwrap();
        waiting.fetch_add(1, Ordering::Relaxed);
        let _out = OnDrop::new(|| {
            waiting.fetch_sub(1, Ordering::Relaxed);
        });
        let mut held = match random.below(3) {
            0 => {
                let (held, result) = changed.wait_timeout_while(held, limit(random), |tokens| *tokens == 0).unwrap();
                if result.timed_out() {
                    return;
                }
                held
            }
            _ => changed.wait_while(held, |tokens| *tokens == 0).unwrap(),
        };
        *held -= 1;
        counted.fetch_add(1, Ordering::Relaxed);
    });
    over.store(true, Ordering::Relaxed);
    feeder.join().unwrap();
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!(*shared.0.try_lock().expect("free and sound"), count(&put) - count(&taken));
    assert!(count(&taken) > 0);
}

#[test]
fn an_initialiser_is_found_in_a_shared_storm() {
    let _guard = common::guard();
    let cells: Arc<Vec<OnceLock<u64>>> = Arc::new((0..200).map(|_| OnceLock::new()).collect());
    let (theirs, made) = (Arc::clone(&cells), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&made);
    storm(move |random| {
        let number = random.below(200);
        let value = *theirs[number as usize].get_or_init(|| {
            dawdle(random);
            counted.fetch_add(1, Ordering::Relaxed);
            number
        });
        assert_eq!(value, number);
    });
    let full = cells.iter().filter(|cell| cell.get().is_some()).count() as u64;
    assert_eq!(full, made.load(Ordering::Relaxed), "each was made once");
    assert!((0..).zip(&*cells).all(|(number, cell)| *cell.get_or_init(|| number) == number), "none is stuck");
}
