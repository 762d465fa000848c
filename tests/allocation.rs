//! Nothing that runs over and over allocates: counted by the allocator, after a warm-up that fills the pools.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::task::Poll;
use std::time::{Duration, Instant};

use greenling::sync::{Condvar, Event, Mutex, Once, OnceLock, RwLock, Semaphore, WaitGroup};
use greenling::thread::{park, scope, sleep_until, spawn, yield_now};
use greenling::{Greenlet, channel, select, sleep, timeout};

thread_local! {
    /// Allocations of this OS thread. No destructor, so the allocator may touch it at any time.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the count is a plain cell of the calling thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations in the second of two equal runs: the first one is the warm-up. So are two milliseconds of yields: the
/// first busy hub of a process starts the monitor, and how soon a hub counts as busy depends on the machine.
fn in_steady_state(mut run: impl FnMut()) -> u64 {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2) {
        yield_now();
    }
    run();
    let before = COUNT.get();
    run();
    COUNT.get() - before
}

#[test]
fn the_count_counts() {
    assert!(in_steady_state(|| drop(std::hint::black_box(Box::new(1)))) > 0);
}

#[test]
fn spawn_and_join_allocate_nothing() {
    let one = in_steady_state(|| (0..1000).for_each(|n| assert_eq!(spawn(move || n).join().unwrap(), n)));
    assert_eq!(one, 0, "one after the other");
    let mut handles = Vec::with_capacity(1000);
    let batch = in_steady_state(|| {
        handles.extend((0..1000).map(|n| spawn(move || n)));
        handles.drain(..).for_each(|thread| assert!(thread.join().unwrap() < 1000));
    });
    assert_eq!(batch, 0, "a thousand at a time");
    let detached = in_steady_state(|| {
        for _ in 0..1000 {
            drop(spawn(|| ()));
            yield_now();
        }
    });
    assert_eq!(detached, 0, "detached");
}

#[test]
fn a_scope_allocates_for_itself_and_not_for_each_thread() {
    let few = in_steady_state(|| scope(|s| (0..16).for_each(|_| s.spawn(|| ()).join().unwrap())));
    let many = in_steady_state(|| scope(|s| (0..16_000).for_each(|_| s.spawn(|| ()).join().unwrap())));
    assert!(many <= few + 4, "{many} for 16 000 threads, {few} for 16");
}

#[test]
fn a_yield_allocates_nothing() {
    let threads: Vec<_> = (0..10).map(|_| spawn(|| (0..3000).for_each(|_| yield_now()))).collect();
    assert_eq!(in_steady_state(|| (0..1000).for_each(|_| yield_now())), 0);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn park_and_unpark_allocate_nothing() {
    let rounds = 2000;
    let thread = spawn(move || (0..rounds).for_each(|_| park()));
    yield_now();
    let handle = thread.thread().clone();
    let count = in_steady_state(|| {
        for _ in 0..rounds / 2 {
            handle.unpark();
            yield_now();
        }
    });
    assert_eq!(count, 0);
    thread.join().unwrap();
}

#[test]
fn block_on_allocates_once_and_not_for_each_poll() {
    let polls = |count: u32| {
        let mut left = count;
        greenling::block_on(std::future::poll_fn(|cx| {
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            // Wakes itself, or is woken by another thread after a park.
            let waker = cx.waker().clone();
            if left.is_multiple_of(2) {
                waker.wake();
            } else {
                drop(spawn(move || waker.wake()));
            }
            Poll::Pending
        }));
    };
    assert_eq!(in_steady_state(|| polls(1)), 1);
    assert_eq!(in_steady_state(|| polls(1000)), 1);
    let awaited = in_steady_state(|| assert_eq!(greenling::block_on(spawn(|| 7)).unwrap(), 7));
    assert_eq!(awaited, 1);
}

#[test]
fn sleep_allocates_nothing() {
    let one = in_steady_state(|| (0..200).for_each(|_| sleep(Duration::from_micros(10))));
    assert_eq!(one, 0, "alone");
    // The most that can happen: all end in one tick of the wheel, in the wrong order, before anybody looks. Again with
    // more time, if the machine was so busy that some did not begin to wait.
    for wait in (0..).map(|tries| Duration::from_millis(20 << tries)) {
        let until = Instant::now() + wait;
        let crowd: Vec<_> = (0..200).map(|n| spawn(move || sleep_until(until - Duration::from_nanos(n)))).collect();
        yield_now();
        let all_wait = until.saturating_duration_since(Instant::now()) > wait / 4;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        crowd.into_iter().for_each(|thread| thread.join().unwrap());
        if all_wait {
            break;
        }
    }
    let threads: Vec<_> =
        (0..100).map(|n| spawn(move || (0..40).for_each(|_| sleep(Duration::from_micros(500 + n))))).collect();
    let crowd = in_steady_state(|| (0..8).for_each(|_| sleep(Duration::from_millis(1))));
    assert_eq!(crowd, 0, "in a crowd");
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn an_explicit_switch_allocates_nothing() {
    let greenlet = Greenlet::new(|mut n: u64| {
        let main = Greenlet::<u64>::current().parent().unwrap();
        loop {
            n = main.switch(n + 1);
        }
    });
    let count = in_steady_state(|| (0..1000).for_each(|n| assert_eq!(greenlet.switch(n), n + 1)));
    assert_eq!(count, 0);
}

/// Nor do they fill the timer wheel: its memory would grow.
#[test]
fn a_timeout_that_does_not_expire_allocates_nothing() {
    let far = Duration::from_secs(3600);
    let plain = in_steady_state(|| (0..100_000).for_each(|n| assert_eq!(timeout(far, || n), Ok(n))));
    assert_eq!(plain, 0, "around nothing");
    let partner = spawn(|| (0..100_000).for_each(|_| yield_now()));
    let waits = in_steady_state(|| {
        for _ in 0..5000 {
            timeout(far, yield_now).unwrap();
            timeout(2 * far, || timeout(far, || sleep(Duration::from_nanos(1))).unwrap()).unwrap();
        }
    });
    assert_eq!(waits, 0, "around waits");
    drop(partner);
}

#[test]
fn locks_and_signals_allocate_nothing() {
    let (mutex, rwlock, semaphore) = (Mutex::new(0), RwLock::new(0), Semaphore::bounded(1));
    let (event, once, cell, group) = (Event::new(), Once::new(), OnceLock::new(), WaitGroup::new());
    event.set();
    let free = in_steady_state(|| {
        for n in 0..1000 {
            *mutex.lock().unwrap() += 1;
            drop(rwlock.read().unwrap());
            *rwlock.write().unwrap() += 1;
            drop(semaphore.acquire());
            event.wait();
            once.call_once(|| ());
            assert_eq!(*cell.get_or_init(|| n), 0);
            group.add(1);
            group.done();
            group.wait();
        }
    });
    assert_eq!(free, 0, "without waiting");
    let pair: &'static (Mutex<u64>, Condvar) = Box::leak(Box::new((Mutex::new(0), Condvar::new())));
    let partner = spawn(move || {
        for turn in 0..2000 {
            let mut count = pair.1.wait_while(pair.0.lock().unwrap(), |count| *count % 2 == 0).unwrap();
            assert_eq!(*count, 2 * turn + 1);
            *count += 1;
            pair.1.notify_one();
        }
    });
    let waits = in_steady_state(|| {
        for _ in 0..1000 {
            *pair.0.lock().unwrap() += 1;
            pair.1.notify_one();
            drop(pair.1.wait_while(pair.0.lock().unwrap(), |count| *count % 2 == 1).unwrap());
        }
    });
    assert_eq!(waits, 0, "with waits");
    partner.join().unwrap();
}

/// Allocations of one of two threads that want the same thing again and again, and hold it while the other one wants it.
fn in_turns(mut hold: impl FnMut() + Copy + 'static) -> u64 {
    let partner = spawn(move || {
        loop {
            hold();
        }
    });
    let count = in_steady_state(|| (0..1000).for_each(|_| hold()));
    partner.kill();
    assert!(partner.join().unwrap_err().is_killed());
    count
}

/// Who has a lock has a name, but nobody asks for it.
#[test]
fn locks_that_are_handed_over_allocate_nothing() {
    let mutex: &'static Mutex<()> = Box::leak(Box::default());
    let count = in_turns(|| {
        let guard = mutex.lock().unwrap();
        yield_now();
        drop(guard);
    });
    assert_eq!(count, 0, "a Mutex");
    let rwlock: &'static RwLock<()> = Box::leak(Box::default());
    let count = in_turns(|| {
        let guard = rwlock.write().unwrap();
        yield_now();
        drop(guard);
        let guard = rwlock.read().unwrap();
        yield_now();
        drop(guard);
    });
    assert_eq!(count, 0, "a RwLock");
    let semaphore: &'static Semaphore = Box::leak(Box::new(Semaphore::new(1)));
    let count = in_turns(|| {
        let permit = semaphore.acquire();
        yield_now();
        drop(permit);
    });
    assert_eq!(count, 0, "a Semaphore");
}

#[test]
fn channels_and_selects_allocate_nothing() {
    let (send, receive) = channel::bounded(4);
    let free = in_steady_state(|| {
        for n in 0..1000 {
            send.send(n).unwrap();
            assert_eq!(select! { recv(receive) -> value => value, default => Ok(0) }, Ok(n));
        }
    });
    assert_eq!(free, 0, "without waiting");
    // Both sides wait: the receiver for values, the sender for room.
    let (ask, asked) = channel::rendezvous();
    let (answer, answered) = channel::bounded(1);
    let never = Event::new();
    let partner = spawn(move || {
        while let Ok(n) =
            select! { recv(asked) -> n => n, wait(never) => Ok(0), after(Duration::from_secs(3600)) => Ok(0) }
        {
            (0..3).for_each(|i| answer.send(n + i).unwrap());
        }
    });
    let waits = in_steady_state(|| {
        for n in 0..1000 {
            select! {
                send(ask, n) -> sent => sent.unwrap(),
                after(Duration::from_secs(3600)) => panic!("an hour?"),
            }
            (0..3).for_each(|i| assert_eq!(answered.recv(), Ok(n + i)));
        }
    });
    assert_eq!(waits, 0, "with waits");
    drop(ask);
    partner.join().unwrap();
}
