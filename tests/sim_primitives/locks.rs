//! What locks and signals of one hub promise: `greenling::sync`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use greenling::sync::{
    AsyncResult, Barrier, Condvar, Event, LazyLock, Mutex, Once, OnceLock, RwLock, RwLockWriteGuard,
};
use greenling::sync::{Semaphore, WaitGroup};
use greenling::{sleep, spawn, timeout, yield_now};

use super::{Count, SOON, TICK, join_all, threads};

/// One holder at a time, no increment lost, and the lock free at the end.
pub(crate) fn mutex() {
    let lock = Rc::new(Mutex::new(0));
    let inside = Rc::new(Cell::new(false));
    let (lock2, inside2) = (Rc::clone(&lock), Rc::clone(&inside));
    let ended = join_all(threads(3, move |_| {
        for _ in 0..2 {
            // A kill does not poison.
            let mut held = lock2.lock().unwrap();
            assert!(!inside2.replace(true), "two are inside");
            let _leave = Leave(&inside2);
            yield_now();
            *held += 1;
        }
    }));
    assert!(!inside.get());
    let count = *lock.try_lock().expect("it is free");
    assert!(count >= 2 * ended.len() && count <= 6, "{count}");
}

/// Clears a flag when dropped.
struct Leave<'a>(&'a Cell<bool>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A lock that is held goes to the threads in the order in which they asked for it.
pub(crate) fn mutex_in_order() {
    let lock = Rc::new(Mutex::new(()));
    let (asked, got) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
    let held = lock.lock().unwrap();
    let all = threads(3, {
        let (lock, asked, got) = (Rc::clone(&lock), Rc::clone(&asked), Rc::clone(&got));
        move |number| {
            asked.borrow_mut().push(number);
            let _held = lock.lock().unwrap();
            got.borrow_mut().push(number);
        }
    });
    // All have asked when time passes.
    sleep(TICK);
    drop(held);
    join_all(all);
    let got = got.borrow();
    let in_order: Vec<_> = asked.borrow().iter().copied().filter(|number| got.contains(number)).collect();
    assert_eq!(*got, in_order, "the order in which they asked");
}

/// A time limit ends the wait for a lock, and leaves the lock to the others.
pub(crate) fn mutex_limits() {
    let lock = Rc::new(Mutex::new(0));
    let lock2 = Rc::clone(&lock);
    join_all(threads(4, move |number| {
        let held = match number {
            0 => lock2.lock().ok(),
            1 => lock2.try_lock().ok(),
            2 => lock2.lock_timeout(TICK).ok(),
            _ => timeout(TICK, || lock2.lock().unwrap()).ok(),
        };
        if let Some(mut held) = held {
            *held += 1;
            sleep(TICK);
        }
    }));
    assert!(lock.try_lock().is_ok(), "it is free");
}

/// A queue of one place: what is put in comes out, in order. After a kill of one the other gives up.
pub(crate) fn condvar() {
    let place = Rc::new((Mutex::new(None), Condvar::new(), Condvar::new()));
    let taken = Rc::new(RefCell::new(Vec::new()));
    let (place2, taken2) = (Rc::clone(&place), Rc::clone(&taken));
    let patience = Duration::from_secs(1);
    let consumer = spawn(move || {
        for _ in 0..3 {
            let held = place2.0.lock().unwrap();
            let (mut held, _) = place2.1.wait_timeout_while(held, patience, |place| place.is_none()).unwrap();
            let Some(number) = held.take() else { return false };
            taken2.borrow_mut().push(number);
            place2.2.notify_one();
        }
        true
    });
    let producer = spawn(move || {
        for number in 0..3 {
            let held = place.0.lock().unwrap();
            let (mut held, waited) = place.2.wait_timeout_while(held, patience, |place| place.is_some()).unwrap();
            if waited.timed_out() {
                return false;
            }
            *held = Some(number);
            place.1.notify_one();
        }
        true
    });
    let (produced, consumed) = (producer.join(), consumer.join());
    if let (Ok(produced), Ok(consumed)) = (produced, consumed) {
        assert!(produced && consumed, "a notification was lost");
        assert_eq!(*taken.borrow(), [0, 1, 2]);
    }
    let taken = taken.borrow();
    assert!(taken.iter().copied().eq(0..taken.len()), "{taken:?}");
}

/// Each notification wakes one that can use it: a waiter that is killed, or has no time left, passes it on.
pub(crate) fn condvar_passes_on() {
    let state = Rc::new((Mutex::new(0), Condvar::new()));
    let all = threads(3, {
        let state = Rc::clone(&state);
        move |number| {
            let (tokens, changed) = (&state.0, &state.1);
            let mut held = tokens.lock().unwrap();
            match number {
                0 => held = changed.wait_while(held, |tokens| *tokens == 0).unwrap(),
                1 => {
                    while *held == 0 {
                        held = changed.wait(held).unwrap();
                    }
                }
                _ => {
                    while *held == 0 {
                        held = changed.wait_timeout(held, TICK).unwrap().0;
                    }
                }
            }
            *held -= 1;
        }
    });
    for _ in 0..3 {
        *state.0.lock().unwrap() += 1;
        state.1.notify_one();
        yield_now();
    }
    let ended = join_all(all).len();
    assert_eq!(*state.0.lock().unwrap(), 3 - ended);
    state.1.notify_all();
}

/// Readers together, a writer alone.
pub(crate) fn rwlock() {
    let lock = Rc::new(RwLock::new(0_u32));
    let inside = Rc::new((Cell::new(0_u32), Cell::new(0_u32)));
    let (lock2, inside2) = (Rc::clone(&lock), Rc::clone(&inside));
    join_all(threads(4, move |number| {
        let (readers, writers) = (&inside2.0, &inside2.1);
        if number % 2 == 0 {
            let _held = lock2.read().unwrap();
            let _count = Count::of(readers);
            assert_eq!(writers.get(), 0);
            yield_now();
        } else {
            let mut held = lock2.write().unwrap();
            let _count = Count::of(writers);
            assert_eq!((readers.get(), writers.get()), (0, 1));
            yield_now();
            *held += 1;
        }
    }));
    assert!(lock.try_write().is_ok(), "it is free");
    assert_eq!((inside.0.get(), inside.1.get()), (0, 0));
}

/// Readers and writers with time limits, and one that goes from the one to the other.
pub(crate) fn rwlock_limits() {
    let lock = Rc::new(RwLock::new(0_u32));
    let lock2 = Rc::clone(&lock);
    join_all(threads(5, move |number| match number {
        0 => {
            let mut held = lock2.write().unwrap();
            *held += 1;
            let held = RwLockWriteGuard::downgrade(held);
            sleep(TICK);
            assert!(*held <= 2);
        }
        1 => drop(lock2.read_timeout(TICK).map(|_held| sleep(TICK))),
        2 => drop(lock2.write_timeout(TICK).map(|mut held| *held += 1)),
        3 => drop(lock2.try_read().map(|_held| yield_now())),
        _ => drop(lock2.try_write().map(|_held| yield_now())),
    }));
    assert!(lock.try_write().is_ok(), "it is free");
}

/// At most as many inside as there are permits, and all permits back at the end.
pub(crate) fn semaphore() {
    let permits = Rc::new(Semaphore::new(2));
    let inside = Rc::new(Cell::new(0));
    let (permits2, inside2) = (Rc::clone(&permits), Rc::clone(&inside));
    join_all(threads(4, move |number| {
        let permit =
            if number == 3 { permits2.acquire_timeout(Duration::from_micros(1)) } else { Some(permits2.acquire()) };
        let _count = permit.as_ref().map(|_| Count::of(&inside2));
        assert!(inside2.get() <= 2);
        sleep(Duration::from_micros(1));
        drop(permit);
    }));
    assert_eq!(permits.available_permits(), 2);
}

/// A permit that was handed to a waiter which ends instead goes to the next one.
pub(crate) fn semaphore_passes_on() {
    let (permits, got) = (Rc::new(Semaphore::new(0)), Rc::new(Cell::new(0)));
    let (permits2, got2) = (Rc::clone(&permits), Rc::clone(&got));
    let all = threads(3, move |number| {
        // Two of the limits end when the permits come.
        let permit = match number {
            0 => timeout(TICK, || permits2.acquire()).ok(),
            1 => permits2.acquire_timeout(TICK),
            _ => Some(permits2.acquire()),
        };
        if let Some(permit) = permit {
            got2.set(got2.get() + 1);
            permit.forget();
        }
    });
    sleep(TICK);
    for _ in 0..3 {
        permits.release().unwrap();
    }
    join_all(all);
    assert_eq!(permits.available_permits(), 3 - got.get());
    assert_eq!(permits.try_acquire().is_some(), got.get() < 3);
}

/// Nobody passes a barrier alone, and all pass an event.
pub(crate) fn event_and_barrier() {
    let (event, barrier, arrived) = (Rc::new(Event::new()), Rc::new(Barrier::new(3)), Rc::new(Cell::new(0)));
    let (event2, barrier2, arrived2) = (Rc::clone(&event), Rc::clone(&barrier), Rc::clone(&arrived));
    let all = threads(3, move |number| {
        if number == 2 {
            event2.set();
        } else {
            event2.wait();
        }
        arrived2.set(arrived2.get() + 1);
        // After a kill the others never pass.
        if timeout(Duration::from_secs(1), || barrier2.wait()).is_ok() {
            assert_eq!(arrived2.get(), 3);
        }
    });
    // After a kill of the one that sets it, too.
    sleep(Duration::from_secs(1));
    event.set();
    join_all(all);
}

/// Each set of an event that clears itself lets one through: one that is killed meanwhile passes its turn on.
pub(crate) fn event_passes_on() {
    let event = Rc::new(Event::auto_reset());
    let event2 = Rc::clone(&event);
    let all = threads(3, move |number| match number {
        0 => assert!(event2.wait_timeout(SOON)),
        _ => event2.wait(),
    });
    for _ in 0..3 {
        sleep(TICK);
        event.set();
    }
    let ended = join_all(all).len();
    assert_eq!(event.is_set(), ended < 3);
}

/// A closure runs once to its end; after a kill inside it another one does.
pub(crate) fn once() {
    let shared = Rc::new((Once::new(), OnceLock::new(), LazyLock::new(|| (sleep(TICK), 7).1)));
    let (runs, shared2) = (Rc::new(Cell::new(0)), Rc::clone(&shared));
    let runs2 = Rc::clone(&runs);
    let waiter = spawn(move || {
        shared2.0.wait();
        assert!(shared2.0.is_completed());
        *shared2.1.wait()
    });
    let shared2 = Rc::clone(&shared);
    let all = threads(2, move |number| {
        shared2.0.call_once(|| {
            yield_now();
            runs2.set(runs2.get() + 1);
        });
        let value = *shared2.1.get_or_init(|| {
            sleep(TICK);
            number
        });
        assert_eq!((shared2.1.get(), *LazyLock::force(&shared2.2)), (Some(&value), 7));
        value
    });
    let mut values = join_all(all);
    assert_eq!(runs.get(), 1);
    values.extend(waiter.join());
    assert!(values.iter().all(|value| Some(value) == shared.1.get()), "{values:?}");
    // A closure that is killed is not done, and one may be forced to run where another one has panicked.
    assert!(shared.0.is_completed());
    shared.0.call_once_force(|_| unreachable!("it is done"));
    assert_eq!(*LazyLock::force_mut(&mut LazyLock::new(|| (yield_now(), 8).1)), 8);
    shared.0.wait_force();
}

/// A wait for work that is not done yet ends when all of it is, also if it ends by a kill.
pub(crate) fn wait_group() {
    let (group, done) = (Rc::new(WaitGroup::new()), Rc::new(Cell::new(0)));
    group.add(3);
    let waiters = threads(2, {
        let (group, done) = (Rc::clone(&group), Rc::clone(&done));
        move |number| {
            match number {
                0 => group.wait(),
                _ => assert!(group.wait_timeout(SOON)),
            }
            assert_eq!(done.get(), 3);
        }
    });
    let (group2, done2) = (Rc::clone(&group), Rc::clone(&done));
    let workers = threads(3, move |_| {
        // A kill is counted, too; but not one before the first turn.
        let _done = group2.done_on_drop();
        let _count = Counts(&done2);
        yield_now();
    });
    let begun = join_all(workers).len();
    while group.remaining() > 0 {
        assert!(begun < 3);
        done.set(done.get() + 1);
        group.done();
    }
    join_all(waiters);
}

/// Counts when it is dropped.
struct Counts<'a>(&'a Cell<u32>);

impl Drop for Counts<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// All that wait for a result get it.
pub(crate) fn async_result() {
    let result = Rc::new(AsyncResult::<u32>::new());
    let result2 = Rc::clone(&result);
    let waiters = threads(3, move |number| match number {
        0 => assert_eq!(result2.wait(), Ok(&5)),
        1 => assert_eq!(result2.get(), Ok(5)),
        _ => assert_eq!(result2.wait_timeout(SOON), Some(Ok(&5))),
    });
    let result2 = Rc::clone(&result);
    let setter = spawn(move || {
        sleep(TICK);
        result2.set(5).unwrap();
    });
    if setter.join().is_err() {
        assert!(!result.is_set() && result.try_wait().is_none());
        result.set(5).unwrap();
    }
    join_all(waiters);
    assert_eq!(result.set(6), Err(6));
}
