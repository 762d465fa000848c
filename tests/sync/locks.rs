//! `sync::{Mutex, RwLock, Condvar, Barrier, Once, OnceLock, LazyLock}`: std's promises, and those of the module's page.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::common::{self, Log, OnDrop, settle};
use greenling::sim::advance;
use greenling::sync::{
    Barrier, Condvar, LazyLock, Mutex, MutexGuard, Once, OnceLock, RwLock, RwLockWriteGuard, TryLockError,
};
use greenling::thread::{Builder, JoinHandle, park, scope, spawn, yield_now};
use greenling::{TimeoutError, no_switch, shield, sleep, timeout};

/// Long enough that it never passes in a test.
const LONG: Duration = Duration::from_secs(3600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(5);

/// The message of the panic of `f`.
fn panic_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
    }
}

/// A thread with a name.
fn named<T: 'static>(name: &str, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    Builder::new().name(name.to_owned()).spawn(f).expect("spawn")
}

// ---- Mutex ----------------------------------------------------------------------------------------------------------

#[test]
fn a_mutex_lets_one_in_at_a_time_in_the_order_they_came() {
    let _guard = common::guard();
    let (lock, log) = (Rc::new(Mutex::new(0)), Log::default());
    let held = lock.lock().unwrap();
    let threads: Vec<_> = (0..5)
        .map(|n| {
            let (lock, log) = (Rc::clone(&lock), log.clone());
            spawn(move || {
                let mut value = lock.lock().unwrap();
                log.say(format!("+{n}"));
                yield_now();
                *value += 1;
                log.say(format!("-{n}"));
            })
        })
        .collect();
    settle();
    assert_eq!(log.text(), "");
    drop(held);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "+0 -0 +1 -1 +2 -2 +3 -3 +4 -4");
    assert_eq!(*lock.lock().unwrap(), 5);
}

#[test]
fn nothing_overtakes_a_chosen_waiter() {
    let _guard = common::guard();
    let lock = Rc::new(Mutex::new(()));
    let held = lock.lock().unwrap();
    let waiter = spawn({
        let lock = Rc::clone(&lock);
        move || drop(lock.lock().unwrap())
    });
    settle();
    drop(held);
    // The waiter has not run, and is the holder.
    assert!(matches!(no_switch(|| lock.try_lock().map(drop)), Err(TryLockError::WouldBlock)));
    drop(lock.lock().unwrap());
    assert!(waiter.is_finished(), "it came first");
}

#[test]
fn a_waiter_that_is_killed_after_it_was_chosen_passes_the_lock_on() {
    let _guard = common::guard();
    let lock = Rc::new(Mutex::new(0));
    let held = lock.lock().unwrap();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let lock = Rc::clone(&lock);
            spawn(move || *lock.lock().unwrap() += 1)
        })
        .collect();
    settle();
    drop(held);
    threads[0].kill();
    threads[1].kill();
    let killed = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    assert_eq!(killed, 2);
    assert_eq!(*lock.lock().unwrap(), 1);
    assert!(!lock.is_poisoned());
}

#[test]
fn a_lock_timeout_ends_in_time_and_a_lock_in_the_same_turn_wins() {
    let _guard = common::guard();
    let lock = Rc::new(Mutex::new(()));
    let held = lock.lock().unwrap();
    let began = Instant::now();
    assert!(matches!(lock.lock_timeout(SHORT), Err(TryLockError::WouldBlock)));
    assert!(began.elapsed() >= SHORT);
    drop(held);
    common::in_virtual_time(|| {
        let lock = Rc::new(Mutex::new(()));
        let held = lock.lock().unwrap();
        let waiter = spawn({
            let lock = Rc::clone(&lock);
            move || lock.lock_timeout(SHORT).is_ok()
        });
        yield_now();
        advance(2 * SHORT);
        drop(held);
        assert!(waiter.join().unwrap(), "chosen before any thread looked at the clock");
        assert!(lock.try_lock().is_ok());
    });
}

#[test]
fn a_panic_poisons_and_a_kill_or_timeout_does_not() {
    let _guard = common::guard();
    let lock = Rc::new(Mutex::new(0));
    let holder = |f: fn()| {
        let lock = Rc::clone(&lock);
        spawn(move || {
            let _held = lock.lock().unwrap();
            f();
        })
    };
    let killed = holder(park);
    settle();
    killed.kill();
    assert!(killed.join().unwrap_err().is_killed());
    assert!(!lock.is_poisoned(), "by a kill");
    let limited = holder(|| assert_eq!(timeout(SHORT, park), Err(TimeoutError::Elapsed)));
    limited.join().unwrap();
    let theirs = Rc::clone(&lock);
    let inside = timeout(SHORT, move || {
        let _held = theirs.lock().unwrap();
        // Passes through a timeout and a scope that are not meant.
        let _ = timeout(LONG, || scope(|_| park()));
    });
    assert_eq!(inside, Err(TimeoutError::Elapsed));
    assert!(!lock.is_poisoned(), "by a timeout");
    assert!(holder(|| panic!("on purpose")).join().is_err());
    assert!(lock.is_poisoned(), "by a panic");
    assert_eq!(*lock.lock().expect_err("poisoned").into_inner(), 0);
    assert!(matches!(lock.try_lock(), Err(TryLockError::Poisoned(_))));
    lock.clear_poison();
    // After a timeout was caught, a panic is a panic.
    assert!(
        holder(|| {
            let _ = timeout(SHORT, park);
            panic!("on purpose")
        })
        .join()
        .is_err()
    );
    assert!(lock.is_poisoned());
    let mut lock = Rc::into_inner(lock).unwrap();
    assert!(lock.get_mut().is_err() && lock.into_inner().is_err());
}

#[test]
fn a_guard_that_was_made_while_unwinding_does_not_poison() {
    let _guard = common::guard();
    let lock = Rc::new(Mutex::new(()));
    let theirs = Rc::clone(&lock);
    let thread = spawn(move || {
        let _cleanup = OnDrop::new(move || drop(theirs.lock().unwrap()));
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert!(!lock.is_poisoned());
}

#[test]
fn locking_twice_panics_and_names_the_thread() {
    let _guard = common::guard();
    let lock = Mutex::new(());
    let _held = lock.lock().unwrap();
    assert!(panic_of(|| drop(lock.lock())).contains("main locks a Mutex that it holds already"));
}

#[test]
fn a_contended_lock_while_unwinding_panics_and_names_both() {
    let _guard = common::guard();
    let lock = Rc::new(Mutex::new(()));
    let theirs = Rc::clone(&lock);
    let holder = named("holder", move || {
        let _held = theirs.lock().unwrap();
        park();
    });
    settle();
    let (theirs, said) = (Rc::clone(&lock), Rc::new(Cell::new(None)));
    let say = Rc::clone(&said);
    let victim = named("victim", move || {
        let _cleanup = OnDrop::new(move || {
            assert!(matches!(theirs.try_lock(), Err(TryLockError::WouldBlock)));
            assert!(matches!(theirs.lock_timeout(LONG), Err(TryLockError::WouldBlock)), "as if the time was up");
            say.set(Some(panic_of(|| drop(theirs.lock()))));
        });
        park();
    });
    settle();
    victim.kill();
    assert!(victim.join().unwrap_err().is_killed());
    let said = said.take().expect("it was refused");
    assert!(said.contains("\"victim\"") && said.contains("\"holder\"") && said.contains("unwinding"), "{said}");
    holder.kill();
    assert!(holder.join().is_err());
    assert!(lock.try_lock().is_ok());
}

#[test]
fn a_contended_lock_in_a_destructor_ends_the_process_with_both_names() {
    let out = common::child("locks::a_contended_lock_in_a_destructor_ends_the_process_with_both_names", || {
        let lock = Rc::new(Mutex::new(()));
        let theirs = Rc::clone(&lock);
        let _holder = named("holder", move || {
            let _held = theirs.lock().unwrap();
            park();
        });
        settle();
        let victim = named("victim", move || {
            let _cleanup = OnDrop::new(move || drop(lock.lock().unwrap()));
            panic!("on purpose");
        });
        let _ = victim.join();
    });
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("\"victim\" cannot wait for a Mutex that #") && said.contains("\"holder\" holds"), "{said}");
}

#[test]
fn a_deadlock_of_two_mutexes_is_reported_with_holders_and_cycle() {
    let _guard = common::guard();
    let (one, two) = (Rc::new(Mutex::new(())), Rc::new(Mutex::new(())));
    let have_one = Rc::new(Cell::new(0));
    let philosopher = |name: &str, first: &Rc<Mutex<()>>, second: &Rc<Mutex<()>>| {
        let (first, second, have_one) = (Rc::clone(first), Rc::clone(second), Rc::clone(&have_one));
        named(name, move || {
            let _first = first.lock().unwrap();
            have_one.set(have_one.get() + 1);
            while have_one.get() < 2 {
                yield_now();
            }
            let _second = second.lock().unwrap();
        })
    };
    let kant = philosopher("kant", &one, &two);
    let hume = philosopher("hume", &two, &one);
    settle();
    settle();
    // Waiters behind one that is killed see the new holder's name, too.
    let theirs = Rc::clone(&one);
    let behind = named("behind", move || drop(theirs.lock().unwrap()));
    let text = panic_of(|| drop(behind.join()));
    assert!(text.contains("\"kant\" waits for a Mutex that #"), "{text}");
    assert!(
        text.lines().any(|line| line.contains("\"behind\" waits for a Mutex that") && line.contains("\"kant\" holds"))
    );
    let cycle = text.lines().find(|line| line.contains("cycle:")).unwrap_or_else(|| panic!("no cycle: {text}"));
    assert!(cycle.contains("\"kant\" -> ") && cycle.contains("\"hume\""), "{cycle}");
    assert!(kant.kill());
    hume.join().unwrap();
}

#[test]
fn a_lock_inside_no_switch_panics_only_if_it_must_wait() {
    let _guard = common::guard();
    let lock = Rc::new(Mutex::new(1));
    assert_eq!(no_switch(|| *lock.lock().unwrap()), 1);
    let theirs = Rc::clone(&lock);
    let _holder = spawn(move || {
        let _held = theirs.lock().unwrap();
        park();
    });
    settle();
    assert!(panic_of(|| no_switch(|| drop(lock.lock()))).contains("no_switch"));
}

#[test]
fn a_mutex_has_stds_traits() {
    let lock: Mutex<i32> = Mutex::default();
    assert_eq!(format!("{lock:?}"), "Mutex { data: 0, poisoned: false, .. }");
    let held = lock.lock().unwrap();
    assert_eq!(format!("{held} {held:?} {lock:?}"), "0 0 Mutex { data: <locked>, poisoned: false, .. }");
    drop(held);
    let unsized_value: &Mutex<[i32]> = &Mutex::from([1, 2]);
    assert_eq!(unsized_value.lock().unwrap().len(), 2);
}

/// Lets others run while it is shown.
struct SlowToShow;

impl fmt::Debug for SlowToShow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        settle();
        f.write_str("shown")
    }
}

#[test]
fn a_lock_that_is_shown_is_held_until_its_value_was_written() {
    let _guard = common::guard();
    let locks = Rc::new((Mutex::new(SlowToShow), RwLock::new(SlowToShow)));
    let theirs = Rc::clone(&locks);
    let shows = spawn(move || format!("{:?} {:?}", theirs.0, theirs.1));
    let theirs = Rc::clone(&locks);
    let locker = spawn(move || {
        drop(theirs.0.lock().unwrap());
        drop(theirs.1.write().unwrap());
    });
    let text = shows.join().unwrap();
    assert_eq!(text, "Mutex { data: shown, poisoned: false, .. } RwLock { data: shown, poisoned: false, .. }");
    locker.join().unwrap();
    let (one, two) = (locks.0.lock().unwrap(), locks.1.write().unwrap());
    let text = format!("{:?} {:?}", locks.0, locks.1);
    assert_eq!(text.matches("<locked>").count(), 2, "{text}");
    drop((one, two));
}

// ---- RwLock ---------------------------------------------------------------------------------------------------------

#[test]
fn readers_in_a_row_go_in_together_and_stand_behind_a_writer() {
    let _guard = common::guard();
    let (lock, log) = (Rc::new(RwLock::new(0)), Log::default());
    let held = lock.write().unwrap();
    let threads: Vec<_> = "rrwrrw"
        .chars()
        .map(|kind| {
            let (lock, log) = (Rc::clone(&lock), log.clone());
            spawn(move || {
                if kind == 'r' {
                    let value = lock.read().unwrap();
                    log.say(format!("r{}", *value));
                    yield_now();
                    log.say("/r");
                } else {
                    let mut value = lock.write().unwrap();
                    *value += 1;
                    log.say("w");
                    yield_now();
                    log.say("/w");
                }
            })
        })
        .collect();
    settle();
    assert_eq!(log.text(), "");
    drop(held);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "r0 r0 /r /r w /w r1 r1 /r /r w /w");
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_behind_it_in() {
    let _guard = common::guard();
    common::in_virtual_time(|| {
        for kill in [true, false] {
            let lock = Rc::new(RwLock::new(()));
            let held = lock.read().unwrap();
            let theirs = Rc::clone(&lock);
            let writer = spawn(move || theirs.write_timeout(if kill { LONG } else { SHORT }).is_ok());
            settle();
            let theirs = Rc::clone(&lock);
            let reader = spawn(move || drop(theirs.read().unwrap()));
            settle();
            assert!(lock.try_read().is_err(), "no barging past the writer");
            assert!(!reader.is_finished());
            if kill {
                writer.kill();
            }
            reader.join().unwrap();
            assert!(!writer.join().unwrap_or(false));
            drop(held);
            assert!(lock.try_write().is_ok());
        }
    });
}

#[test]
fn a_client_that_is_killed_after_it_was_let_in_leaves_again() {
    let _guard = common::guard();
    let lock = Rc::new(RwLock::new(()));
    for write in [true, false] {
        let held = lock.write().unwrap();
        let theirs = Rc::clone(&lock);
        let chosen = spawn(move || if write { drop(theirs.write()) } else { drop(theirs.read()) });
        let theirs = Rc::clone(&lock);
        let next = spawn(move || drop(theirs.write().unwrap()));
        settle();
        drop(held);
        chosen.kill();
        next.join().unwrap();
        assert!(chosen.join().is_err());
        assert!(lock.try_write().is_ok());
    }
}

#[test]
fn a_writer_that_becomes_a_reader_lets_no_writer_in_between() {
    let _guard = common::guard();
    for (line, meanwhile, after) in [
        (["read", "write", "late"], "read 0", "read 0 write late 1"),
        (["write", "read", "late"], "", "write read 1 late 1"),
    ] {
        let (lock, log) = (Rc::new(RwLock::new(0)), Log::default());
        let writer = lock.write().unwrap();
        let threads: Vec<_> = line
            .into_iter()
            .map(|what| {
                let (lock, log) = (Rc::clone(&lock), log.clone());
                spawn(move || match what {
                    "write" => {
                        *lock.write().unwrap() += 1;
                        log.say(what);
                    }
                    _ => log.say(format!("{what} {}", *lock.read().unwrap())),
                })
            })
            .collect();
        settle();
        let reader = RwLockWriteGuard::downgrade(writer);
        settle();
        assert_eq!((log.text().as_str(), *reader), (meanwhile, 0));
        drop(reader);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.text(), after);
    }
}

#[test]
fn a_writers_panic_poisons_a_rwlock_and_a_readers_does_not() {
    let _guard = common::guard();
    let lock = Rc::new(RwLock::new(0));
    let theirs = Rc::clone(&lock);
    let reader = spawn(move || {
        let _held = theirs.read().unwrap();
        panic!("on purpose");
    });
    assert!(reader.join().is_err());
    assert!(!lock.is_poisoned());
    let theirs = Rc::clone(&lock);
    let writer = spawn(move || {
        let _held: RwLockWriteGuard<'_, i32> = theirs.write().unwrap();
        panic!("on purpose");
    });
    assert!(writer.join().is_err());
    assert!(lock.read().is_err() && lock.write().is_err());
    lock.clear_poison();
    assert!(lock.read().is_ok());
}

#[test]
fn locking_what_one_writes_panics_and_a_timed_out_read_does_not_hang() {
    let _guard = common::guard();
    let lock = RwLock::new(());
    let _held = lock.write().unwrap();
    assert!(panic_of(|| drop(lock.read())).contains("main locks a RwLock that it writes already"));
    assert!(panic_of(|| drop(lock.write())).contains("main locks a RwLock that it writes already"));
    assert!(matches!(lock.read_timeout(SHORT), Err(TryLockError::WouldBlock)));
    assert!(matches!(lock.write_timeout(Duration::ZERO), Err(TryLockError::WouldBlock)));
}

#[test]
fn upgrading_a_read_lock_is_a_deadlock_that_main_is_told_of() {
    let _guard = common::guard();
    let lock = RwLock::new(());
    let _held = lock.read().unwrap();
    assert!(panic_of(|| drop(lock.write())).contains("main waits to write a RwLock that others read"));
}

// ---- Condvar --------------------------------------------------------------------------------------------------------

/// A mutex and a condvar.
fn pair<T>(value: T) -> Rc<(Mutex<T>, Condvar)> {
    Rc::new((Mutex::new(value), Condvar::new()))
}

#[test]
fn notifications_reach_waiters_in_order_and_only_those_that_wait() {
    let _guard = common::guard();
    common::in_virtual_time(|| {
        let (pair, log) = (pair(()), Log::default());
        pair.1.notify_all();
        pair.1.notify_one();
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (pair, log) = (Rc::clone(&pair), log.clone());
                spawn(move || {
                    let held = pair.0.lock().unwrap();
                    let _held = pair.1.wait(held).unwrap();
                    log.say(n);
                })
            })
            .collect();
        settle();
        assert_eq!(log.text(), "", "nothing is remembered");
        pair.1.notify_one();
        settle();
        assert_eq!(log.text(), "0");
        pair.1.notify_all();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.text(), "0 1 2 3");
    });
}

#[test]
fn a_notification_of_a_killed_waiter_goes_to_the_next() {
    let _guard = common::guard();
    // Killed right after the notification, and killed while it waits for the lock after it.
    for lock_is_taken in [false, true] {
        let pair = pair(());
        let waiter = || {
            let pair = Rc::clone(&pair);
            spawn(move || {
                let held = pair.0.lock().unwrap();
                drop(pair.1.wait(held).unwrap());
            })
        };
        let (first, second) = (waiter(), waiter());
        settle();
        let held = pair.0.lock().unwrap();
        pair.1.notify_one();
        if lock_is_taken {
            settle();
        }
        first.kill();
        settle();
        drop(held);
        second.join().unwrap();
        assert!(first.join().unwrap_err().is_killed());
    }
}

#[test]
fn a_condvar_wait_has_stds_timeouts() {
    let _guard = common::guard();
    let pair = pair(0);
    let began = Instant::now();
    let (held, result) = pair.1.wait_timeout(pair.0.lock().unwrap(), SHORT).unwrap();
    assert!(result.timed_out() && began.elapsed() >= SHORT);
    let (held, result) = pair.1.wait_timeout_while(held, SHORT, |value| *value == 0).unwrap();
    assert!(result.timed_out());
    let theirs = Rc::clone(&pair);
    let setter = spawn(move || {
        for _ in 0..3 {
            *theirs.0.lock().unwrap() += 1;
            theirs.1.notify_all();
            yield_now();
        }
    });
    let (held, result) = pair.1.wait_timeout_while(held, LONG, |value| *value < 3).unwrap();
    assert!(!result.timed_out());
    assert_eq!(*held, 3);
    setter.join().unwrap();
    let held: MutexGuard<'_, i32> = pair.1.wait_while(held, |value| *value == 0).unwrap();
    assert_eq!(*held, 3);
}

#[test]
fn a_killed_condvar_wait_unwinds_without_the_lock() {
    let _guard = common::guard();
    let pair = pair(());
    let theirs = Rc::clone(&pair);
    let waiter = spawn(move || drop(theirs.1.wait(theirs.0.lock().unwrap())));
    settle();
    let held = pair.0.lock().unwrap();
    waiter.kill();
    assert!(waiter.join().unwrap_err().is_killed(), "although the lock is taken");
    drop(held);
    assert!(!pair.0.is_poisoned());
}

#[test]
fn a_condvar_wait_while_unwinding_panics_or_times_out_at_once() {
    let _guard = common::guard();
    let (pair, said) = (pair(()), Rc::new(Cell::new(None)));
    let say = Rc::clone(&said);
    let thread = spawn(move || {
        let _cleanup = OnDrop::new(move || {
            let held = pair.0.lock().unwrap();
            let (held, result) = pair.1.wait_timeout(held, LONG).unwrap();
            assert!(result.timed_out());
            let (held, result) = pair.1.wait_timeout_while(held, LONG, |_| true).unwrap();
            assert!(result.timed_out());
            say.set(Some(panic_of(|| drop(pair.1.wait(held)))));
        });
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert!(said.take().expect("it was refused").contains("cannot wait for a Condvar"));
}

// ---- Barrier --------------------------------------------------------------------------------------------------------

#[test]
fn a_barrier_opens_for_each_round_and_has_one_leader() {
    let _guard = common::guard();
    let (barrier, round, leaders) = (Rc::new(Barrier::new(4)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let (barrier, round, leaders) = (Rc::clone(&barrier), Rc::clone(&round), Rc::clone(&leaders));
            spawn(move || {
                for expected in 0..10 {
                    (0..n).for_each(|_| yield_now());
                    assert_eq!(round.get(), expected);
                    if barrier.wait().is_leader() {
                        leaders.set(leaders.get() + 1);
                        round.set(expected + 1);
                    }
                    yield_now();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(leaders.get(), 10);
}

#[test]
fn a_thread_that_is_killed_at_a_barrier_was_not_there() {
    let _guard = common::guard();
    let barrier = Rc::new(Barrier::new(2));
    let waiter = || {
        let barrier = Rc::clone(&barrier);
        spawn(move || barrier.wait().is_leader())
    };
    let first = waiter();
    settle();
    first.kill();
    assert!(first.join().is_err());
    assert_eq!(timeout(SHORT, || barrier.wait().is_leader()), Err(TimeoutError::Elapsed));
    let second = waiter();
    settle();
    assert!(!second.is_finished());
    assert!(barrier.wait().is_leader());
    assert!(!second.join().unwrap());
    // Chosen, then killed: the others have met already.
    let third = waiter();
    settle();
    assert!(barrier.wait().is_leader());
    third.kill();
    let fourth = waiter();
    settle();
    assert!(third.join().is_err() && !fourth.is_finished());
    assert!(barrier.wait().is_leader());
    assert!(!fourth.join().unwrap());
}

#[test]
fn a_barrier_for_zero_threads_is_open_as_stds() {
    assert!(Barrier::new(0).wait().is_leader());
    assert!(Barrier::new(1).wait().is_leader());
}

// ---- Once, OnceLock, LazyLock ---------------------------------------------------------------------------------------

#[test]
fn a_second_initialiser_waits_for_the_first() {
    let _guard = common::guard();
    common::in_virtual_time(|| {
        let (lock, log) = (Rc::new(OnceLock::new()), Log::default());
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (lock, log) = (Rc::clone(&lock), log.clone());
                spawn(move || {
                    let value = *lock.get_or_init(|| {
                        log.say("begin");
                        sleep(SHORT);
                        log.say("end");
                        n
                    });
                    log.say(value);
                })
            })
            .collect();
        settle();
        assert_eq!(lock.get(), None);
        assert_eq!(*lock.wait(), 0);
        assert_eq!(lock.set(7), Err(7));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(log.text(), "begin end 0 0 0");
    });
}

#[test]
fn the_next_initialiser_takes_over_from_one_that_is_killed_or_panics() {
    let _guard = common::guard();
    for panics in [false, true] {
        let lock = Rc::new(OnceLock::new());
        let theirs = Rc::clone(&lock);
        let first = spawn(move || {
            theirs.get_or_init(|| {
                yield_now();
                if panics { panic!("on purpose") } else { park() }
            });
        });
        settle();
        let theirs = Rc::clone(&lock);
        let second = spawn(move || theirs.get_or_init(|| ()).to_owned());
        settle();
        first.kill();
        second.join().unwrap();
        assert!(first.join().is_err());
        assert!(lock.get().is_some());
    }
}

#[test]
fn a_once_is_poisoned_by_a_panic_and_not_by_a_kill() {
    let _guard = common::guard();
    let once = Rc::new(Once::new());
    let theirs = Rc::clone(&once);
    let killed = spawn(move || theirs.call_once(park));
    settle();
    killed.kill();
    assert!(killed.join().is_err());
    let theirs = Rc::clone(&once);
    assert!(spawn(move || theirs.call_once(|| panic!("on purpose"))).join().is_err());
    assert!(panic_of(|| once.call_once(|| ())).contains("poisoned"));
    assert!(panic_of(|| once.wait()).contains("poisoned"));
    once.call_once_force(|state| assert!(state.is_poisoned()));
    assert!(once.is_completed());
    once.wait();
    once.call_once(|| panic!("never called"));
}

#[test]
fn a_once_that_asks_for_itself_panics() {
    let _guard = common::guard();
    let once = Once::new();
    assert!(panic_of(|| once.call_once(|| once.call_once(|| ()))).contains("inside the closure of a Once"));
    let lock = OnceLock::new();
    assert!(panic_of(|| assert_eq!(*lock.get_or_init(|| *lock.get_or_init(|| 1)), 1)).contains("inside the closure"));
}

#[test]
fn a_lazy_lock_is_made_once_even_if_its_maker_is_killed() {
    let _guard = common::guard();
    let count = Rc::new(Cell::new(0));
    let made = Rc::clone(&count);
    let lazy = Rc::new(LazyLock::new(move || {
        settle();
        settle();
        made.set(made.get() + 1);
        made.get()
    }));
    let theirs = Rc::clone(&lazy);
    let first = spawn(move || **theirs);
    settle();
    first.kill();
    assert_eq!(**lazy, 1);
    assert_eq!((*LazyLock::force(&lazy), count.get()), (1, 1));
    let broken: LazyLock<i32> = LazyLock::new(|| panic!("on purpose"));
    assert_eq!(panic_of(|| assert_eq!(*broken, 1)), "on purpose");
    assert!(panic_of(|| assert_eq!(*broken, 1)).contains("poisoned"));
}

#[test]
fn a_once_lock_has_stds_methods() {
    let mut lock = OnceLock::from(3);
    assert_eq!((lock.get(), format!("{lock:?}")), (Some(&3), String::from("OnceLock(3)")));
    assert_eq!(lock.clone(), lock);
    *lock.get_mut().unwrap() = 4;
    assert_eq!((lock.take(), lock.take(), lock.into_inner()), (Some(4), None, None));
}

/// Kills are put off, so this is about the lock and not about `shield`.
#[test]
fn a_shielded_wait_for_a_lock_ends_with_the_lock() {
    let _guard = common::guard();
    let lock = Rc::new(Mutex::new(0));
    let held = lock.lock().unwrap();
    let theirs = Rc::clone(&lock);
    let waiter = spawn(move || shield(|| *theirs.lock().unwrap() += 1));
    settle();
    waiter.kill();
    settle();
    drop(held);
    settle();
    assert!(waiter.is_finished());
    assert_eq!(*lock.lock().unwrap(), 1);
}
