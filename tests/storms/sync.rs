//! A thousand threads at one lock, signal or channel, or at several of them, killed and timed out
//! at random: nothing is lost, no thread hangs, nothing leaks.
//!
//! `GREENLING_SEED=n` repeats a run.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::common::{self, OnDrop, Random};
use greenling::sync::{AsyncResult, Barrier, Condvar, Event, Mutex, OnceLock, RwLock, Semaphore, WaitGroup};
use greenling::thread::{JoinHandle, current, spawn, yield_now};
use greenling::{Select, channel, hub, select, sleep, timeout};

/// Threads in a storm.
const THREADS: usize = 1000;

/// How a storm ended.
struct Outcome {
    /// Threads that ended by themselves, their time limits included.
    returned: usize,
    /// Threads that were killed.
    killed: usize,
}

/// Runs `body` in a thousand threads, each with a source of random numbers, some of them under an outer timeout; kills
/// some at random moments, and calls `help` between the kills and until all have ended.
fn storm(body: impl Fn(&mut Random) + 'static, mut help: impl FnMut(&mut Random)) -> Outcome {
    let before = hub::live_threads();
    let (mut random, body) = (Random::new(), Rc::new(body));
    let mut threads: Vec<JoinHandle<()>> = (0..THREADS)
        .map(|_| {
            let (body, mut random) = (Rc::clone(&body), random.fork());
            spawn(move || {
                if random.below(4) == 0 {
                    let _ = timeout(Duration::from_micros(random.below(3000)), || body(&mut random));
                } else {
                    body(&mut random);
                }
            })
        })
        .collect();
    let mut kills = 0;
    while threads.iter().any(|thread| !thread.is_finished()) {
        if kills < THREADS {
            kills += 1;
            let victim = random.below(THREADS as u64 * 3) as usize;
            if let Some(thread) = threads.get(victim) {
                thread.kill();
            }
        }
        help(&mut random);
        // Not before some kills have met a thread: on a busy machine all may be over after one sleep.
        if kills > 50 && random.below(20) == 0 {
            sleep(Duration::from_micros(random.below(200)));
        } else {
            yield_now();
        }
    }
    let mut outcome = Outcome { returned: 0, killed: 0 };
    for thread in threads.drain(..) {
        match thread.join() {
            Ok(()) => outcome.returned += 1,
            Err(error) => {
                assert!(error.is_killed(), "{error:?}");
                outcome.killed += 1;
            }
        }
    }
    assert_eq!(outcome.returned + outcome.killed, THREADS);
    assert!(outcome.killed > 0 && outcome.returned > 0, "{} killed", outcome.killed);
    assert_eq!(hub::live_threads(), before, "no thread is left");
    outcome
}

/// A short time limit.
fn limit(random: &mut Random) -> Duration {
    Duration::from_micros(random.below(2000))
}

/// Lets others run while something is held.
fn dawdle(random: &mut Random) {
    for _ in 0..random.below(3) {
        yield_now();
    }
}

#[test]
fn a_mutex_survives_a_storm() {
    let _guard = common::guard();
    let (mutex, inside) = (Rc::new(Mutex::new(0_u64)), Rc::new(Cell::new(0)));
    let (theirs, counted) = (Rc::clone(&mutex), Rc::clone(&inside));
    storm(
        move |random| {
            for _ in 0..3 {
                let guard = match random.below(2) {
                    0 => theirs.lock_timeout(limit(random)).ok(),
                    _ => Some(theirs.lock().unwrap()),
                };
                let Some(mut guard) = guard else { continue };
                assert_eq!(counted.replace(1), 0, "alone");
                let _out = OnDrop::new(|| counted.set(0));
                dawdle(random);
                *guard += 1;
            }
        },
        |_| {},
    );
    assert!(*mutex.try_lock().expect("free and sound") > 0);
}

#[test]
fn a_rwlock_survives_a_storm() {
    let _guard = common::guard();
    let lock = Rc::new(RwLock::new(()));
    let (readers, writers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let theirs = Rc::clone(&lock);
    storm(
        move |random| {
            for _ in 0..3 {
                if random.below(3) > 0 {
                    let guard = match random.below(2) {
                        0 => theirs.read_timeout(limit(random)).ok(),
                        _ => Some(theirs.read().unwrap()),
                    };
                    let Some(_guard) = guard else { continue };
                    readers.set(readers.get() + 1);
                    let _out = OnDrop::new(|| readers.set(readers.get() - 1));
                    assert_eq!(writers.get(), 0);
                    dawdle(random);
                } else {
                    let guard = match random.below(2) {
                        0 => theirs.write_timeout(limit(random)).ok(),
                        _ => Some(theirs.write().unwrap()),
                    };
                    let Some(_guard) = guard else { continue };
                    assert_eq!((writers.replace(1), readers.get()), (0, 0));
                    let _out = OnDrop::new(|| writers.set(0));
                    dawdle(random);
                }
            }
        },
        |_| {},
    );
    assert!(lock.try_write().is_ok(), "free and sound");
}

#[test]
fn a_semaphore_survives_a_storm() {
    let _guard = common::guard();
    let (semaphore, inside) = (Rc::new(Semaphore::bounded(5)), Rc::new(Cell::new(0)));
    let theirs = Rc::clone(&semaphore);
    storm(
        move |random| {
            for _ in 0..3 {
                let permit = match random.below(2) {
                    0 => theirs.acquire_timeout(limit(random)),
                    _ => Some(theirs.acquire()),
                };
                let Some(_permit) = permit else { continue };
                inside.set(inside.get() + 1);
                let _out = OnDrop::new(|| inside.set(inside.get() - 1));
                assert!(inside.get() <= 5);
                dawdle(random);
            }
        },
        |_| {},
    );
    assert_eq!(semaphore.available_permits(), 5);
    assert!(semaphore.release().is_err());
}

#[test]
fn a_condvar_survives_a_storm() {
    let _guard = common::guard();
    let pair = Rc::new((Mutex::new((0_u64, 0_u64)), Condvar::new()));
    let (theirs, ours) = (Rc::clone(&pair), Rc::clone(&pair));
    storm(
        move |random| {
            let (lock, changed) = &*theirs;
            let held = lock.lock().unwrap();
            if random.below(2) == 0 {
                let (mut held, result) =
                    changed.wait_timeout_while(held, limit(random), |(items, _)| *items == 0).unwrap();
                if !result.timed_out() {
                    held.0 -= 1;
                    held.1 += 1;
                }
            } else {
                let mut held = changed.wait_while(held, |(items, _)| *items == 0).unwrap();
                held.0 -= 1;
                held.1 += 1;
            }
        },
        // One notification for each item: if one was lost, a thread would wait for ever beside an item.
        move |random| {
            let (items, taken) = {
                let mut held = ours.0.lock().unwrap();
                held.0 += 1;
                *held
            };
            ours.1.notify_one();
            assert!(taken <= THREADS as u64 && items > 0);
            dawdle(random);
        },
    );
    assert!(pair.0.try_lock().expect("free and sound").1 > 0);
}

#[test]
fn an_auto_reset_event_survives_a_storm() {
    let _guard = common::guard();
    let (event, passed, sets) = (Rc::new(Event::auto_reset()), Rc::new(Cell::new(0_u64)), Cell::new(0_u64));
    let (theirs, counted) = (Rc::clone(&event), Rc::clone(&passed));
    storm(
        move |random| match random.below(2) {
            0 => {
                let set = theirs.wait_timeout(limit(random));
                counted.set(counted.get() + u64::from(set));
            }
            _ => {
                theirs.wait();
                counted.set(counted.get() + 1);
            }
        },
        |_| {
            sets.set(sets.get() + 1);
            event.set();
        },
    );
    assert!(passed.get() > 0 && passed.get() <= sets.get());
}

#[test]
fn what_wakes_all_waiters_survives_a_storm() {
    let _guard = common::guard();
    let (event, result, group) = (Rc::new(Event::new()), Rc::new(AsyncResult::<u64>::new()), Rc::new(WaitGroup::new()));
    group.add(1);
    let (event2, result2, group2) = (Rc::clone(&event), Rc::clone(&result), Rc::clone(&group));
    let rounds = Cell::new(0);
    storm(
        move |random| {
            if random.below(2) == 0 {
                event2.wait_timeout(limit(random));
                result2.wait_timeout(limit(random));
                group2.wait_timeout(limit(random));
            } else {
                event2.wait();
                assert_eq!(result2.get(), Ok(7));
                group2.wait();
            }
        },
        |_| {
            rounds.set(rounds.get() + 1);
            match rounds.get() {
                200 => event.set(),
                300 => result.set(7).unwrap(),
                400 => group.done(),
                _ => {}
            }
        },
    );
    assert!(event.is_set() && result.is_set() && group.remaining() == 0);
}

#[test]
fn an_initialiser_is_found_in_a_storm() {
    let _guard = common::guard();
    let (lock, tries) = (Rc::new(OnceLock::new()), Rc::new(Cell::new(0)));
    let (theirs, counted) = (Rc::clone(&lock), Rc::clone(&tries));
    storm(
        move |random| {
            let value = *theirs.get_or_init(|| {
                counted.set(counted.get() + 1);
                // Long enough that some are killed at it.
                for _ in 0..100 + random.below(300) {
                    yield_now();
                }
                7
            });
            assert_eq!(value, 7);
        },
        |_| {},
    );
    assert_eq!(lock.get(), Some(&7));
    assert!(tries.get() >= 1);
}

/// A thread that has no other to meet leaves after a while, and was not there.
#[test]
fn a_barrier_survives_a_storm() {
    let _guard = common::guard();
    let (barrier, met, led) = (Rc::new(Barrier::new(10)), Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(0_usize)));
    let (theirs, passed, leaders) = (Rc::clone(&barrier), Rc::clone(&met), Rc::clone(&led));
    storm(
        move |random| {
            (0..random.below(100)).for_each(|_| yield_now());
            if let Ok(result) = timeout(Duration::from_millis(100) + limit(random), || theirs.wait()) {
                leaders.set(leaders.get() + usize::from(result.is_leader()));
                passed.set(passed.get() + 1);
            }
        },
        |_| {},
    );
    // Of ten that meet one leads; some of the others are killed on the way out.
    assert!(led.get() > 0 && met.get() <= 10 * led.get(), "{} of {}", led.get(), met.get());
    assert_eq!(timeout(Duration::ZERO, || barrier.wait().is_leader()), Err(greenling::TimeoutError::Elapsed));
    let last = Rc::new(Cell::new(0));
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let (barrier, last) = (Rc::clone(&barrier), Rc::clone(&last));
            spawn(move || {
                let leads = barrier.wait().is_leader();
                last.set(last.get() + usize::from(leads));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("ten are here, and no other thread was counted"));
    assert_eq!(last.get(), 1);
}

/// Comes late, so that not all meet at once and are done.
fn stroll(random: &mut Random) {
    (0..random.below(100)).for_each(|_| yield_now());
}

/// What became of the values of a storm.
#[derive(Default)]
struct Ledger {
    /// How many were made.
    made: Cell<usize>,
    /// How many were received.
    received: Cell<usize>,
    /// How many came back to the sender, or ended with its call.
    kept: Cell<usize>,
}

/// A value that notes its end.
struct Value {
    /// Where.
    ledger: Rc<Ledger>,
    /// Who made it.
    maker: greenling::thread::ThreadId,
    /// Somebody received it.
    received: bool,
}

impl Value {
    /// One of the calling thread's.
    fn new(ledger: &Rc<Ledger>) -> Value {
        ledger.made.set(ledger.made.get() + 1);
        Value { ledger: Rc::clone(ledger), maker: current().id(), received: false }
    }

    /// It was received.
    fn receive(mut self) {
        self.received = true;
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let count = match self.received {
            true => &self.ledger.received,
            false => {
                assert_eq!(self.maker, current().id(), "a value that was sent was dropped elsewhere: it is lost");
                &self.ledger.kept
            }
        };
        count.set(count.get() + 1);
    }
}

impl Ledger {
    /// Every value was received or kept.
    fn check(&self) {
        let (made, received, kept) = (self.made.get(), self.received.get(), self.kept.get());
        assert_eq!(made, received + kept, "{received} received, {kept} kept");
        assert!(received > 0 && kept > 0, "{received} received, {kept} kept");
    }
}

#[test]
fn a_channel_survives_a_storm() {
    let _guard = common::guard();
    for capacity in [0, 1, 7] {
        let ledger = Rc::new(Ledger::default());
        let (send, receive) = channel::bounded::<Value>(capacity);
        let (theirs, to, from) = (Rc::clone(&ledger), send.clone(), receive.clone());
        storm(
            move |random| {
                for _ in 0..3 {
                    stroll(random);
                    match random.below(4) {
                        0 => drop(to.send(Value::new(&theirs))),
                        1 => drop(to.send_timeout(Value::new(&theirs), limit(random))),
                        2 => from.recv().expect("open").receive(),
                        _ => drop(from.recv_timeout(limit(random)).map(Value::receive)),
                    }
                    assert!(from.len() <= capacity + THREADS);
                }
            },
            |random| match random.below(2) {
                0 => drop(send.try_send(Value::new(&ledger))),
                _ => drop(receive.try_recv().map(Value::receive)),
            },
        );
        receive.try_iter().for_each(Value::receive);
        ledger.check();
        // Nothing of the threads that died is left in the channel: it has its room, and no more.
        let room = (0..=capacity).take_while(|_| send.try_send(Value::new(&ledger)).is_ok()).count();
        assert_eq!(room, capacity);
        receive.try_iter().for_each(Value::receive);
    }
}

#[test]
fn a_select_survives_a_storm() {
    let _guard = common::guard();
    let ledger = Rc::new(Ledger::default());
    let (narrow, wide) = (channel::rendezvous::<Value>(), channel::bounded::<Value>(3));
    let (turn, passed, sets) = (Rc::new(Event::auto_reset()), Rc::new(Cell::new(0_u64)), Cell::new(0_u64));
    let (theirs, a, b) = (Rc::clone(&ledger), narrow.clone(), wide.clone());
    let (event, counted) = (Rc::clone(&turn), Rc::clone(&passed));
    let pass = move || counted.set(counted.get() + 1);
    storm(
        move |random| {
            for _ in 0..3 {
                stroll(random);
                let mut slot = (random.below(2) == 0).then(|| Value::new(&theirs));
                match random.below(5) {
                    0 => select! {
                        recv(a.1) -> value => value.expect("open").receive(),
                        send_from(b.0, slot) -> sent => assert!(sent.is_ok()),
                        wait(event) => pass(),
                        after(limit(random)) => (),
                    },
                    1 => select! {
                        biased;
                        send(a.0, Value::new(&theirs)) -> sent => assert!(sent.is_ok()),
                        recv(b.1) -> value => value.expect("open").receive(),
                        send_from(b.0, slot) -> sent => assert!(sent.is_ok()),
                    },
                    2 => select! {
                        recv(b.1.clone()) -> value => value.expect("open").receive(),
                        send(a.0.clone(), Value::new(&theirs)) -> sent => assert!(sent.is_ok()),
                        recv(b.1) -> value => value.expect("open").receive(),
                        default(after: limit(random)) => (),
                    },
                    3 => {
                        let (more, long) = (Value::new(&theirs), limit(random));
                        let mut select = Select::new();
                        select.recv(&a.1, |value| value.expect("open").receive());
                        select.recv(&b.1, |value| value.expect("open").receive());
                        select.send(&a.0, more, |sent| assert!(sent.is_ok()));
                        select.send_from(&b.0, &mut slot, |sent| assert!(sent.is_ok()));
                        select.wait(&event, |()| pass());
                        // Two waits with one set: what lost the first time goes on.
                        let _ = select.select_timeout(long);
                        let _ = select.select_timeout(long);
                    }
                    _ => select! {
                        wait(event) => pass(),
                        recv(b.1) -> value => value.expect("open").receive(),
                        recv(a.1) -> value => value.expect("open").receive(),
                    },
                }
            }
        },
        |random| match random.below(5) {
            0 => drop(narrow.0.try_send(Value::new(&ledger))),
            1 => drop(wide.0.try_send(Value::new(&ledger))),
            2 => drop(narrow.1.try_recv().map(Value::receive)),
            3 => drop(wide.1.try_recv().map(Value::receive)),
            _ => {
                sets.set(sets.get() + 1);
                turn.set();
            }
        },
    );
    wide.1.try_iter().for_each(Value::receive);
    narrow.1.try_iter().for_each(Value::receive);
    ledger.check();
    assert!(passed.get() > 0 && passed.get() <= sets.get());
    // Nobody is left in any line.
    assert!(narrow.0.is_full() && !wide.0.is_full() && wide.0.is_empty());
    turn.set();
    assert!(turn.is_set());
}
