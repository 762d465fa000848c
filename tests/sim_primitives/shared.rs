//! What locks and channels between hubs promise to the threads of one hub: `greenling::hub::sync`,
//! `greenling::hub::channel`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use greenling::hub::channel;
use greenling::hub::sync::{Condvar, LazyLock, Mutex, Once, OnceLock, RwLock, Semaphore};
use greenling::{sleep, spawn, yield_now};

use super::{Count, SOON, TICK, join_all, threads};

/// One holder at a time, no increment lost, and the lock free at the end.
pub(crate) fn mutex() {
    let (lock, inside) = (Arc::new(Mutex::new(0)), Rc::new(Cell::new(0)));
    let (lock2, inside2) = (Arc::clone(&lock), Rc::clone(&inside));
    let counted = join_all(threads(4, move |number| {
        let held = match number {
            0 | 1 => lock2.lock().ok(),
            2 => lock2.lock_timeout(TICK).ok(),
            _ => lock2.try_lock().ok(),
        };
        let Some(mut held) = held else { return 0 };
        let _count = Count::of(&inside2);
        assert_eq!(inside2.get(), 1);
        sleep(TICK);
        *held += 1;
        1
    }));
    assert_eq!(inside.get(), 0);
    assert_eq!(*lock.try_lock().expect("it is free"), counted.iter().sum::<u32>());
}

/// Readers together, a writer alone.
pub(crate) fn rwlock() {
    let lock = Arc::new(RwLock::new(()));
    let inside = Rc::new((Cell::new(0), Cell::new(0)));
    let (lock2, inside2) = (Arc::clone(&lock), Rc::clone(&inside));
    let reads = move || {
        let _count = Count::of(&inside2.0);
        assert_eq!(inside2.1.get(), 0);
        sleep(TICK);
    };
    let inside2 = Rc::clone(&inside);
    let writes = move || {
        let _count = Count::of(&inside2.1);
        assert_eq!((inside2.0.get(), inside2.1.get()), (0, 1));
        sleep(TICK);
    };
    join_all(threads(6, move |number| match number {
        0 => drop(lock2.read().map(|_held| reads())),
        1 => drop(lock2.write().map(|_held| writes())),
        2 => drop(lock2.try_read().map(|_held| reads())),
        3 => drop(lock2.try_write().map(|_held| writes())),
        4 => drop(lock2.read_timeout(TICK).map(|_held| reads())),
        _ => drop(lock2.write_timeout(TICK).map(|_held| writes())),
    }));
    assert!(lock.try_write().is_ok(), "it is free");
    assert_eq!((inside.0.get(), inside.1.get()), (0, 0));
}

/// Each notification wakes one that can use it: a waiter that is killed, or has no time left, passes it on.
pub(crate) fn condvar() {
    let state = Arc::new((Mutex::new(0), Condvar::new()));
    let all = threads(4, {
        let state = Arc::clone(&state);
        move |number| {
            let (tokens, changed) = (&state.0, &state.1);
            let mut held = tokens.lock().unwrap();
            match number {
                0 => held = changed.wait_while(held, |tokens| *tokens == 0).unwrap(),
                1 => held = changed.wait_timeout_while(held, SOON, |tokens| *tokens == 0).unwrap().0,
                2 => {
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
    for _ in 0..4 {
        *state.0.lock().unwrap() += 1;
        state.1.notify_one();
        yield_now();
    }
    let ended = join_all(all).len();
    assert_eq!(*state.0.lock().unwrap(), 4 - ended);
    state.1.notify_all();
}

/// At most as many inside as there are permits, and all permits back at the end.
pub(crate) fn semaphore() {
    let (permits, inside) = (Arc::new(Semaphore::new(2)), Rc::new(Cell::new(0)));
    let (permits2, inside2) = (Arc::clone(&permits), Rc::clone(&inside));
    join_all(threads(5, move |number| {
        let permit = match number {
            0 => permits2.try_acquire(),
            1 => permits2.acquire_timeout(TICK),
            _ => Some(permits2.acquire()),
        };
        let _count = permit.as_ref().map(|_| Count::of(&inside2));
        assert!(inside2.get() <= 2);
        sleep(TICK);
        drop(permit);
    }));
    assert_eq!(permits.available_permits(), 2);
    permits.acquire().forget();
    permits.release().unwrap();
}

/// A closure runs once to its end; after a kill inside it another one does.
pub(crate) fn once() {
    let shared = Arc::new((Once::new(), OnceLock::new(), LazyLock::new(|| (sleep(TICK), 7).1)));
    let (runs, shared2) = (Rc::new(Cell::new(0)), Arc::clone(&shared));
    let runs2 = Rc::clone(&runs);
    let waiter = spawn(move || {
        shared2.0.wait();
        *shared2.1.wait()
    });
    let shared2 = Arc::clone(&shared);
    let all = threads(2, move |number| {
        shared2.0.call_once(|| {
            yield_now();
            runs2.set(runs2.get() + 1);
        });
        let value = *shared2.1.get_or_init(|| (sleep(TICK), number).1);
        assert_eq!((shared2.1.get(), *LazyLock::force(&shared2.2)), (Some(&value), 7));
        value
    });
    let mut values = join_all(all);
    assert_eq!(runs.get(), 1);
    values.extend(waiter.join());
    assert!(values.iter().all(|value| Some(value) == shared.1.get()), "{values:?}");
    assert!(shared.0.is_completed());
    shared.0.call_once_force(|_| unreachable!("it is done"));
    assert_eq!(*LazyLock::force_mut(&mut LazyLock::new(|| (yield_now(), 8).1)), 8);
    shared.0.wait_force();
}

/// Values come out in the order in which each sender has sent them, each once.
pub(crate) fn channels() {
    let (send, receive) = channel(Some(1));
    let senders = threads(3, move |number| {
        for value in 0..2 {
            let sent = match number {
                0 => send.send((number, value)).is_ok(),
                1 => send.send_timeout((number, value), SOON).is_ok(),
                _ => send.try_send((number, value)).is_ok(),
            };
            if !sent {
                return value;
            }
        }
        2
    });
    let receiver = spawn(move || {
        let mut got: Vec<_> = receive.recv_timeout(TICK).into_iter().collect();
        got.extend(receive.try_recv());
        got.extend(receive.recv());
        got.extend(receive.iter());
        got
    });
    let sent = join_all(senders);
    if let Ok(got) = receiver.join() {
        for number in 0..3 {
            let own: Vec<_> = got.iter().filter(|(from, _)| *from == number).map(|(_, value)| *value).collect();
            assert!(own.iter().copied().eq(0..own.len()), "{got:?}");
        }
        assert!(got.len() >= sent.iter().sum(), "{got:?} {sent:?}");
    }
}
