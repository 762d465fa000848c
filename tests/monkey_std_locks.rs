//! The locks and channels of std after `patch_locks`: they let other green threads run, and work between hubs and OS
//! threads as before.
#![allow(unsafe_code)]

mod common;
#[path = "common/own.rs"]
mod own_threads;

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, OnceLock, RwLock, mpsc};
use std::time::{Duration, Instant};

use greenling::{hub, spawn, yield_now};
use own_threads::{own, own_named, patched_locks};

fn nap() {
    greenling::sleep(Duration::from_millis(2));
}

#[test]
fn a_mutex_whose_holder_sleeps_lets_others_run() {
    let Some(_guard) = patched_locks() else { return };
    let count = Arc::new(Mutex::new(0));
    let threads: Vec<_> = (0..50)
        .map(|_| {
            let count = Arc::clone(&count);
            own(move || {
                let mut count = count.lock().unwrap();
                let before = *count;
                greenling::sleep(Duration::from_micros(200));
                *count = before + 1;
            })
        })
        .collect();
    // Main waits as well.
    let begin = Instant::now();
    while *count.lock().unwrap() < 50 {
        assert!(begin.elapsed() < Duration::from_secs(60));
        nap();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn condvars_rwlocks_barriers_and_onces_let_others_run() {
    let Some(_guard) = patched_locks() else { return };
    // A condition variable, notified from a green thread of the same hub, with a wait of main.
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    for _ in 0..10 {
        let pair = Arc::clone(&pair);
        drop(own(move || {
            nap();
            *pair.0.lock().unwrap() += 1;
            pair.1.notify_all();
        }));
    }
    let reached = pair.1.wait_while(pair.0.lock().unwrap(), |count| *count < 10).unwrap();
    assert_eq!(*reached, 10);
    drop(reached);
    let (_held, end) = pair.1.wait_timeout(pair.0.lock().unwrap(), Duration::from_millis(3)).unwrap();
    assert!(end.timed_out());
    drop(_held);
    // Readers and writers.
    let lock = Arc::new(RwLock::new(0));
    let all: Vec<_> = (0..20)
        .map(|number| {
            let lock = Arc::clone(&lock);
            own(move || {
                if number % 4 == 0 {
                    let mut value = lock.write().unwrap();
                    let before = *value;
                    nap();
                    *value = before + 1;
                } else {
                    let value = lock.read().unwrap();
                    let before = *value;
                    nap();
                    assert_eq!(*value, before);
                }
            })
        })
        .collect();
    all.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*lock.read().unwrap(), 5);
    // A barrier, and a `Once` that takes its time.
    let (barrier, once, cell) = (Arc::new(Barrier::new(11)), Arc::new(Once::new()), Arc::new(OnceLock::new()));
    let leaders = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let (barrier, once, cell, leaders) = (barrier.clone(), once.clone(), cell.clone(), leaders.clone());
        drop(own(move || {
            once.call_once(nap);
            assert_eq!(*cell.get_or_init(|| (nap(), 7).1), 7);
            leaders.fetch_add(usize::from(barrier.wait().is_leader()), Ordering::Relaxed);
        }));
    }
    leaders.fetch_add(usize::from(barrier.wait().is_leader()), Ordering::Relaxed);
    greenling::sleep(Duration::from_millis(5));
    assert_eq!(leaders.load(Ordering::Relaxed), 1);
}

#[test]
fn main_waits_for_a_channel_a_park_and_an_os_thread_while_others_run() {
    let Some(_guard) = patched_locks() else { return };
    let ticks = Rc::new(std::cell::Cell::new(0_u32));
    let ticker = spawn({
        let ticks = Rc::clone(&ticks);
        move || {
            loop {
                ticks.set(ticks.get() + 1);
                greenling::sleep(Duration::from_micros(500));
            }
        }
    });
    yield_now();
    let ran = |what: &str, f: &dyn Fn()| {
        let before = ticks.get();
        f();
        assert!(ticks.get() > before, "nothing ran during {what}");
    };
    ran("recv", &|| {
        let (send, receive) = mpsc::sync_channel(0);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            send.send(7).unwrap();
        });
        assert_eq!(receive.recv(), Ok(7));
        thread.join().unwrap();
    });
    ran("park", &|| {
        let main = std::thread::current();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            main.unpark();
        });
        std::thread::park();
        thread.join().unwrap();
    });
    ran("park_timeout", &|| std::thread::park_timeout(Duration::from_millis(20)));
    ran("scope", &|| {
        std::thread::scope(|scope| {
            scope.spawn(|| std::thread::sleep(Duration::from_millis(20)));
        });
    });
    ticker.kill();
    let _ = ticker.join();
}

#[test]
fn channels_and_parks_work_among_green_threads_and_os_threads() {
    let Some(_guard) = patched_locks() else { return };
    // A bounded channel with ten green senders, a relay that is an OS thread, and ten green receivers that share one end.
    let (send, relay) = mpsc::sync_channel(1);
    let (out, receive) = mpsc::sync_channel(0);
    let receive = Arc::new(Mutex::new(receive));
    let relay = std::thread::spawn(move || relay.iter().for_each(|value: u64| out.send(value).unwrap()));
    let senders: Vec<_> = (0..10)
        .map(|number| {
            let send = send.clone();
            own(move || (0..50).for_each(|value| send.send(number * 50 + value).unwrap()))
        })
        .collect();
    drop(send);
    let receivers: Vec<_> = (0..10)
        .map(|_| {
            let receive = Arc::clone(&receive);
            own(move || {
                let mut sum = 0;
                loop {
                    // The lock is held over the wait.
                    let Ok(value) = receive.lock().unwrap().recv() else { return sum };
                    sum += value;
                }
            })
        })
        .collect();
    let sum: u64 = receivers.into_iter().map(|thread| thread.join().unwrap()).sum();
    senders.into_iter().for_each(|thread| thread.join().unwrap());
    relay.join().unwrap();
    assert_eq!(sum, (0..500).sum());
    // std's park and unpark in a ring of green threads: each has its own handle.
    let (send, handles) = mpsc::channel();
    let ring: Vec<_> = (0..20)
        .map(|_| {
            let send = send.clone();
            own(move || {
                send.send(std::thread::current()).unwrap();
                std::thread::park();
            })
        })
        .collect();
    for handle in handles.iter().take(20).collect::<Vec<_>>() {
        handle.unpark();
    }
    ring.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn os_threads_are_joined_while_others_run() {
    let Some(_guard) = patched_locks() else { return };
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let join_later = |count: usize| {
        let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
        move || {
            let threads: Vec<_> = (0..count)
                .map(|number| {
                    let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
                    std::thread::spawn(move || {
                        // None ends before all have begun: a join that stopped the others would wait for ever.
                        begun.fetch_add(1, Ordering::Relaxed);
                        let begin = Instant::now();
                        while begun.load(Ordering::Relaxed) < 43 {
                            assert!(begin.elapsed() < Duration::from_secs(60), "one after the other");
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        ended.fetch_add(1, Ordering::Relaxed);
                        number
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        }
    };
    let green: Vec<_> = (0..20).map(|_| own(join_later(2))).collect();
    assert_eq!(join_later(3)(), 3);
    let sum: usize = green.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!((sum, ended.load(Ordering::Relaxed)), (20, 43));
    // A panic is reported, an OS thread that has ended is joined at once, and a kill comes after the join.
    assert!(own(|| std::thread::spawn(|| std::panic::resume_unwind(Box::new(7))).join().is_err()).join().unwrap());
    let done = Arc::clone(&ended);
    let victim = own(move || {
        let thread = std::thread::spawn(|| std::thread::sleep(Duration::from_millis(30)));
        thread.join().unwrap();
        done.store(100, Ordering::Relaxed);
        greenling::sleep(Duration::from_secs(60));
    });
    yield_now();
    victim.kill();
    assert!(victim.join().is_err_and(|error| error.is_killed()));
    assert_eq!(ended.load(Ordering::Relaxed), 100);
}

#[test]
fn os_threads_are_joined_without_a_descriptor() {
    let out = common::child("os_threads_are_joined_without_a_descriptor", || {
        let Some(_guard) = patched_locks() else { return };
        // Ends when the others have run: a joiner that stopped them would stop for ever.
        let (others_ran, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || told.recv_timeout(Duration::from_secs(60)).unwrap());
        // The first such thread needs descriptors.
        own(|| ()).join().unwrap();
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the struct lives until the call returns.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) }, 0);
        let joiner = own(move || thread.join().unwrap());
        greenling::sleep(Duration::from_millis(5));
        others_ran.send(()).unwrap();
        joiner.join().unwrap();
    });
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn a_green_thread_without_its_own_thread_locals_blocks_its_os_thread_as_before() {
    let Some(_guard) = patched_locks() else { return };
    let lock = Arc::new(Mutex::new(()));
    let (send, receive) = mpsc::channel();
    let holder = std::thread::spawn({
        let lock = Arc::clone(&lock);
        move || {
            let _held = lock.lock().unwrap();
            send.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    receive.recv().unwrap();
    let ran = Rc::new(std::cell::Cell::new(false));
    let (seen, bystander) = (Rc::clone(&ran), Rc::clone(&ran));
    let light = spawn(move || {
        drop(lock.lock().unwrap());
        seen.get()
    });
    drop(spawn(move || bystander.set(true)));
    assert!(!light.join().unwrap(), "nothing ran while it waited");
    holder.join().unwrap();
}

#[test]
fn a_kill_and_a_timeout_come_after_the_lock_was_had() {
    let Some(_guard) = patched_locks() else { return };
    let lock = Arc::new(Mutex::new(0));
    let held = lock.lock().unwrap();
    let had = Arc::new(AtomicUsize::new(0));
    let wait = {
        let (lock, had) = (Arc::clone(&lock), Arc::clone(&had));
        move || {
            *lock.lock().unwrap() += 1;
            had.fetch_add(1, Ordering::Relaxed);
            greenling::sleep(Duration::from_secs(60));
            had.store(100, Ordering::Relaxed);
        }
    };
    let victim = own(wait.clone());
    let limited = own(move || greenling::timeout(Duration::from_millis(1), wait).is_err());
    yield_now();
    victim.kill();
    greenling::sleep(Duration::from_millis(10));
    assert_eq!((had.load(Ordering::Relaxed), victim.is_finished()), (0, false), "it still waits");
    drop(held);
    assert!(victim.join().is_err_and(|error| error.is_killed()));
    assert!(limited.join().unwrap(), "the scope expires at the first wait after the lock");
    assert_eq!((had.load(Ordering::Relaxed), *lock.lock().unwrap()), (2, 2));
}

#[test]
fn a_shutdown_gives_up_a_thread_that_waits_for_a_lock() {
    let Some(_guard) = patched_locks() else { return };
    let lock = Arc::new(Mutex::new(0));
    let held = lock.lock().unwrap();
    let waiter = Arc::clone(&lock);
    drop(own(move || *waiter.lock().unwrap() += 1));
    yield_now();
    let begin = Instant::now();
    assert_eq!(hub::shutdown(), 1, "it is left");
    assert!(begin.elapsed() < Duration::from_secs(10));
    drop(held);
    // It goes on if its hub does, and has no wait for the kill to end.
    nap();
    assert_eq!(*lock.lock().unwrap(), 1);
    assert_eq!(hub::shutdown(), 0);
}

#[test]
fn a_wake_up_of_a_hub_that_has_ended_goes_to_the_next_waiter() {
    let Some(_guard) = patched_locks() else { return };
    let lock: &'static Mutex<u32> = Box::leak(Box::default());
    let mut held = lock.lock().unwrap();
    // A hub that ends while its green thread waits, ..
    let wait = || {
        drop(own(|| *lock.lock().unwrap() += 100));
        yield_now();
    };
    std::thread::spawn(wait).join().unwrap();
    // .. and one that ends when its green thread was woken, and has not run again.
    let (send, receive) = mpsc::channel();
    let second = std::thread::spawn(move || {
        wait();
        send.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    });
    receive.recv().unwrap();
    let third = std::thread::spawn(|| *lock.lock().unwrap() += 1);
    std::thread::sleep(Duration::from_millis(20));
    *held += 1;
    drop(held);
    second.join().unwrap();
    third.join().unwrap();
    assert_eq!(*lock.lock().unwrap(), 2);
}

#[test]
fn a_deadlock_is_reported_with_waiters_and_holders_and_blames_no_other() {
    let out = common::child("a_deadlock_is_reported_with_waiters_and_holders_and_blames_no_other", || {
        let Some(_guard) = patched_locks() else { return };
        let locks: [Arc<Mutex<()>>; 2] = Default::default();
        for (name, first, second) in [("left", 0, 1), ("right", 1, 0)] {
            let (first, second) = (Arc::clone(&locks[first]), Arc::clone(&locks[second]));
            own_named(name, move || {
                let _first = first.lock().unwrap();
                nap();
                let _second = second.lock().unwrap();
            });
        }
        let third = Arc::clone(&locks[0]);
        own_named("third", move || {
            nap();
            nap();
            drop(third.lock().unwrap());
        });
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(2500));
            // SAFETY: it ends the process.
            unsafe { libc::_exit(0) };
        });
        greenling::sleep(Duration::from_millis(20));
        drop(locks[1].lock().unwrap());
    });
    assert!(out.status.success(), "{out:?}");
    let text = common::stderr(&out);
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("greenling: ")).collect();
    assert!(lines[0].contains("all threads of this hub wait") && lines[0].contains("deadlock, unless"), "{text}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("greenling: ")).count(), 1, "one report: {text}");
    // The line of a waiter, and the names in the line behind.
    let blamed = |waiter: &str| {
        let is_its =
            |line: &&str| line.contains(&format!("\"{waiter}\" waits for a lock")) && line.contains(", spawned at ");
        let at = lines.iter().position(is_its).unwrap_or_else(|| panic!("{waiter} is missing: {text}"));
        ["left", "right", "third", "main"].map(|name| lines[at + 1].contains(name))
    };
    assert_eq!(blamed("left"), [false, true, false, false], "{text}");
    assert_eq!(blamed("right"), [true, false, false, false], "{text}");
    assert_eq!(blamed("third"), [true, false, false, false], "{text}");
}

#[test]
fn a_long_wait_for_an_os_thread_is_no_deadlock_and_not_reported() {
    let out = common::child("a_long_wait_for_an_os_thread_is_no_deadlock_and_not_reported", || {
        let Some(_guard) = patched_locks() else { return };
        let lock = Arc::new(Mutex::new(()));
        let (send, receive) = mpsc::channel();
        let held = Arc::clone(&lock);
        std::thread::spawn(move || {
            let _held = held.lock().unwrap();
            send.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(1500));
            send.send(()).unwrap();
        });
        receive.recv().unwrap();
        drop(own(move || drop(lock.lock().unwrap())));
        receive.recv().unwrap();
    });
    assert!(out.status.success(), "{out:?}");
    assert!(!common::stderr(&out).contains("greenling: "), "{out:?}");
}

/// What the threads of the storm share.
#[derive(Default)]
struct Shared {
    counts: [Mutex<u64>; 3],
    map: RwLock<[u64; 2]>,
    queue: Mutex<Vec<u64>>,
    filled: Condvar,
    taken: AtomicU64,
    done: AtomicU64,
}

/// One operation of the storm.
fn step(shared: &Shared, random: &mut common::Random, pause: fn()) {
    match random.below(8) {
        0..3 => {
            let mut count = shared.counts[random.below(3) as usize].lock().unwrap();
            let before = *count;
            if random.below(8) == 0 {
                pause();
            }
            *count = before + 1;
        }
        3 => {
            // Two at once, in order.
            let first = shared.counts[0].lock().unwrap();
            let mut second = shared.counts[1].lock().unwrap();
            *second += 1;
            drop(first);
        }
        4 => {
            let both = shared.map.read().unwrap();
            assert_eq!(both[0], both[1]);
            if random.below(8) == 0 {
                pause();
            }
            assert_eq!(both[0], both[1]);
        }
        5 => {
            let mut both = shared.map.write().unwrap();
            both[0] += 1;
            if random.below(8) == 0 {
                pause();
            }
            both[1] += 1;
        }
        6 => {
            shared.queue.lock().unwrap().push(1);
            shared.filled.notify_one();
        }
        _ => {
            let limit = Duration::from_millis(1 + random.below(3));
            let queue = shared.queue.lock().unwrap();
            let (mut queue, _) = shared.filled.wait_timeout_while(queue, limit, |queue| queue.is_empty()).unwrap();
            shared.taken.fetch_add(queue.pop().unwrap_or(0), Ordering::Relaxed);
        }
    }
    shared.done.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_storm_of_green_and_os_threads_loses_nothing() {
    let Some(_guard) = patched_locks() else { return };
    let shared = Arc::new(Shared::default());
    let mut random = common::Random::new();
    let end = Instant::now() + Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 2 });
    let mut threads = Vec::new();
    for hub in 0..5 {
        let (shared, mut random) = (Arc::clone(&shared), random.fork());
        threads.push(std::thread::spawn(move || {
            // Three OS threads without a hub, two with one.
            if hub >= 2 {
                while Instant::now() < end {
                    step(&shared, &mut random, std::thread::yield_now);
                }
                return;
            }
            let green: Vec<_> = (0..50)
                .map(|_| {
                    let (shared, mut random) = (Arc::clone(&shared), random.fork());
                    own(move || {
                        while Instant::now() < end {
                            step(&shared, &mut random, yield_now);
                            yield_now();
                        }
                    })
                })
                .collect();
            green.into_iter().for_each(|thread| thread.join().unwrap());
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let done = shared.done.load(Ordering::Relaxed);
    println!("{done} operations");
    assert!(done > 1000, "{done}");
    let both = shared.map.read().unwrap();
    assert_eq!(both[0], both[1]);
}
