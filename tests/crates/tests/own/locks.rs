//! Locks that are held over a wait: the holder waits until all others are about to ask, and so do nothing else meanwhile.
//! And what waits for a notice.

use std::cell::Cell;
use std::sync::{Arc, Barrier, Condvar, Mutex, OnceLock, RwLock};
use std::thread::sleep;

use greenling_crates::{MANY, Meeting, PAUSE, Threads, patched_with_locks};

/// Lets all take a lock in turns: `with` calls what it is given while it has the lock. Returns what each read below the
/// lock, sorted; each adds one.
fn in_turns<L: Send + Sync + 'static>(threads: Threads, lock: L, with: fn(&L, &mut dyn FnMut())) -> Vec<usize> {
    let (lock, meeting, value) = (Arc::new(lock), Arc::new(Meeting::default()), Arc::new(Mutex::new(0)));
    let mut seen = threads.many(move |_| {
        let mut found = 0;
        meeting.come();
        with(&lock, &mut || {
            // Each other one waits for the lock, or is about to.
            meeting.await_all();
            found = *value.lock().unwrap();
            sleep(PAUSE / 10); // what gets in now reads the same
            *value.lock().unwrap() = found + 1;
        });
        found
    });
    seen.sort_unstable();
    seen
}

/// Checks that a lock lets one in at a time, and the others run meanwhile.
fn excludes<L: Send + Sync + 'static>(make: impl Fn() -> L, with: fn(&L, &mut dyn FnMut())) {
    let _guard = patched_with_locks();
    let each: Vec<_> = (0..MANY).collect();
    assert_eq!(in_turns(Threads::Own, make(), with), each);
    assert_eq!(in_turns(Threads::Os, make(), with), each);
}

#[test]
fn std_locks_are_held_over_waits() {
    excludes(
        || Mutex::new(()),
        |lock, body| {
            let _held = lock.lock().unwrap();
            body();
        },
    );
    excludes(
        || RwLock::new(()),
        |lock, body| {
            let _held = lock.write().unwrap();
            body();
        },
    );
}

#[test]
fn parking_lot_locks_are_held_over_waits() {
    excludes(
        || parking_lot::Mutex::new(()),
        |lock, body| {
            let _held = lock.lock();
            body();
        },
    );
    excludes(
        || parking_lot::RwLock::new(()),
        |lock, body| {
            let _held = lock.write();
            body();
        },
    );
    excludes(parking_lot::FairMutex::<()>::default, |lock, body| {
        let _held = lock.lock();
        body();
    });
    excludes(parking_lot::ReentrantMutex::<()>::default, |lock, body| {
        let _held = (lock.lock(), lock.lock());
        body();
    });
}

#[test]
fn dashmap_guards_are_held_over_waits() {
    excludes(dashmap::DashMap::<u8, u8>::new, |map, body| {
        let _held = map.entry(1).or_default();
        body();
    });
}

/// Lets all ask for a value that is made once, by an initialiser that waits until all have asked; returns what they got,
/// and how often it was made.
fn made_once<L: Send + Sync + 'static>(
    threads: Threads,
    place: L,
    get: fn(&L, &mut dyn FnMut() -> usize) -> usize,
) -> (Vec<usize>, usize) {
    let (place, meeting, made) = (Arc::new(place), Arc::new(Meeting::default()), Arc::new(Mutex::new(0)));
    let by_them = Arc::clone(&made);
    let values = threads.many(move |number| {
        meeting.come();
        get(&place, &mut || {
            meeting.await_all();
            *by_them.lock().unwrap() += 1;
            1000 + number
        })
    });
    let times = *made.lock().unwrap();
    (values, times)
}

/// Checks that the initialiser ran once, and that all got what it made.
fn initialises<L: Send + Sync + 'static>(make: impl Fn() -> L, get: fn(&L, &mut dyn FnMut() -> usize) -> usize) {
    let _guard = patched_with_locks();
    for threads in [Threads::Own, Threads::Os] {
        let (values, times) = made_once(threads, make(), get);
        assert!(times == 1 && values[0] >= 1000 && values.iter().all(|&value| value == values[0]), "{values:?}");
    }
}

#[test]
fn values_of_std_once_cell_and_moka_are_made_once_by_initialisers_that_wait() {
    initialises(OnceLock::new, |place, make| *place.get_or_init(make));
    initialises(once_cell::sync::OnceCell::new, |place, make| *place.get_or_init(make));
    initialises(|| moka::sync::Cache::new(10), |cache, make| cache.get_with(1, make));
}

#[test]
fn condition_variables_barriers_and_parked_threads_are_woken() {
    let _guard = patched_with_locks();
    assert_eq!(notices(Threads::Own), notices(Threads::Os));
}

/// Each waits for a barrier, for two condition variables, and parks; then it is its number.
fn notices(threads: Threads) -> Vec<usize> {
    let barrier = Arc::new(Barrier::new(MANY + 1));
    let (door, other) = (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(Pair::default()));
    let parked = Arc::new(Mutex::new(Vec::new()));
    let opener = {
        let (barrier, door, other, parked) = (barrier.clone(), door.clone(), other.clone(), parked.clone());
        threads.spawn(move || {
            barrier.wait();
            *door.0.lock().unwrap() = true;
            door.1.notify_all();
            while *other.0.lock() < MANY {
                sleep(PAUSE);
            }
            (0..MANY).for_each(|_| assert!(other.1.notify_one()));
            while parked.lock().unwrap().len() < MANY {
                sleep(PAUSE);
            }
            parked.lock().unwrap().drain(..).for_each(|thread: std::thread::Thread| thread.unpark());
        })
    };
    let numbers = threads.many(move |number| {
        thread_local!(static MINE: Cell<usize> = const { Cell::new(0) });
        MINE.set(number);
        barrier.wait();
        drop(door.1.wait_while(door.0.lock().unwrap(), |open| !*open).unwrap());
        let mut count = other.0.lock();
        *count += 1;
        other.1.wait(&mut count);
        drop(count);
        parked.lock().unwrap().push(std::thread::current());
        std::thread::park();
        MINE.get()
    });
    opener.join();
    assert!(numbers.iter().copied().eq(0..MANY), "{numbers:?}");
    numbers
}

/// How many wait, and what for.
type Pair = (parking_lot::Mutex<usize>, parking_lot::Condvar);
