//! C's own locks after `patch_locks`: the same answers as in OS threads, owners that are green threads, and no wake-up
//! lost between green threads and OS threads.
#![allow(unsafe_code)]
#![allow(clippy::multiple_unsafe_ops_per_block)] // lists of calls on one lock

mod common;
#[path = "common/own.rs"]
mod own_threads;

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenling::hub::{ForeignKind, ThreadState, WaitReason, threads};
use libc::{
    CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, EBUSY, EDEADLK, EINVAL, EPERM, ETIMEDOUT, clockid_t,
    pthread_barrier_t, pthread_cond_t, pthread_mutex_t, pthread_once_t, pthread_rwlock_t, sem_t, timespec,
};
use own_threads::{own, own_named, patched_locks};

unsafe extern "C" {
    fn pthread_mutex_clocklock(mutex: *mut pthread_mutex_t, clock: clockid_t, time: *const timespec) -> c_int;
    fn pthread_cond_clockwait(
        condvar: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        time: *const timespec,
    ) -> c_int;
    fn pthread_rwlock_clockrdlock(lock: *mut pthread_rwlock_t, clock: clockid_t, time: *const timespec) -> c_int;
    fn pthread_rwlock_clockwrlock(lock: *mut pthread_rwlock_t, clock: clockid_t, time: *const timespec) -> c_int;
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, time: *const timespec) -> c_int;
    fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, time: *const timespec) -> c_int;
    fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, time: *const timespec) -> c_int;
    fn pthread_once(control: *mut pthread_once_t, routine: extern "C" fn()) -> c_int;
}

/// A lock of C, shared by all threads of a test.
struct Shared<T>(UnsafeCell<T>);

// SAFETY: C's locks are made to be used by several threads.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(value: T) -> Arc<Shared<T>> {
        Arc::new(Shared(UnsafeCell::new(value)))
    }

    fn at(&self) -> *mut T {
        self.0.get()
    }
}

/// Makes a mutex of a kind.
fn mutex_of(kind: c_int) -> Arc<Shared<pthread_mutex_t>> {
    let mut attributes = MaybeUninit::uninit();
    let mutex = Shared::new(libc::PTHREAD_MUTEX_INITIALIZER);
    // SAFETY: memory for attributes and a mutex.
    unsafe {
        libc::pthread_mutexattr_init(attributes.as_mut_ptr());
        libc::pthread_mutexattr_settype(attributes.as_mut_ptr(), kind);
        assert_eq!(libc::pthread_mutex_init(mutex.at(), attributes.as_ptr()), 0);
    }
    mutex
}

fn mutex() -> Arc<Shared<pthread_mutex_t>> {
    mutex_of(libc::PTHREAD_MUTEX_NORMAL)
}

/// Makes a condition variable with a clock.
fn condvar_of(clock: clockid_t) -> Arc<Shared<pthread_cond_t>> {
    let mut attributes = MaybeUninit::uninit();
    let condvar = Shared::new(libc::PTHREAD_COND_INITIALIZER);
    // SAFETY: memory for attributes and a condition variable.
    unsafe {
        libc::pthread_condattr_init(attributes.as_mut_ptr());
        libc::pthread_condattr_setclock(attributes.as_mut_ptr(), clock);
        assert_eq!(libc::pthread_cond_init(condvar.at(), attributes.as_ptr()), 0);
    }
    condvar
}

fn rwlock() -> Arc<Shared<pthread_rwlock_t>> {
    Shared::new(libc::PTHREAD_RWLOCK_INITIALIZER)
}

fn semaphore(units: u32) -> Arc<Shared<sem_t>> {
    // SAFETY: all zeros is valid memory for a semaphore.
    let semaphore = Shared::new(unsafe { std::mem::zeroed() });
    // SAFETY: memory for a semaphore.
    assert_eq!(unsafe { libc::sem_init(semaphore.at(), 0, units) }, 0);
    semaphore
}

/// Makes a barrier for some threads.
fn barrier(count: u32) -> Arc<Shared<pthread_barrier_t>> {
    // SAFETY: all zeros is valid memory for a barrier.
    let barrier = Shared::new(unsafe { std::mem::zeroed() });
    // SAFETY: memory for a barrier.
    assert_eq!(unsafe { libc::pthread_barrier_init(barrier.at(), std::ptr::null(), count) }, 0);
    barrier
}

/// The moment `millis` from now on a clock.
fn moment(clock: clockid_t, millis: i64) -> timespec {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives until the call returns.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let nanos = now.tv_nsec + millis * 1_000_000;
    timespec { tv_sec: now.tv_sec + nanos.div_euclid(1_000_000_000), tv_nsec: nanos.rem_euclid(1_000_000_000) }
}

/// The result of a function that reports by errno.
fn or_errno(result: c_int) -> c_int {
    if result == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
}

/// What a thread of a script does.
type Step = Box<dyn FnOnce() -> Vec<c_int> + Send>;

/// A thread that does steps one by one.
struct Actor(Sender<Step>, Receiver<Vec<c_int>>);

/// What starts a thread.
type Start = fn(Box<dyn FnOnce() + Send>);

impl Actor {
    fn new(start: Start) -> Actor {
        let (steps, next) = channel::<Step>();
        let (tell, done) = channel();
        start(Box::new(move || {
            for step in next {
                tell.send(step()).unwrap();
            }
        }));
        Actor(steps, done)
    }

    /// Has the thread do a step, and waits for the answers.
    fn act(&self, step: impl FnOnce() -> Vec<c_int> + Send + 'static) -> Vec<c_int> {
        self.begin(step);
        self.end()
    }

    /// Has the thread begin a step.
    fn begin(&self, step: impl FnOnce() -> Vec<c_int> + Send + 'static) {
        self.0.send(Box::new(step)).unwrap();
    }

    /// Waits for the end of the step.
    fn end(&self) -> Vec<c_int> {
        self.1.recv().unwrap()
    }
}

fn start_os_thread(f: Box<dyn FnOnce() + Send>) {
    drop(std::thread::spawn(f));
}

fn start_own(f: Box<dyn FnOnce() + Send>) {
    drop(own(f));
}

/// Runs a script with two OS threads, two green threads, and one of each; all must answer alike.
fn same_answers(name: &str, script: impl Fn(&Actor, &Actor) -> Vec<c_int>) -> Vec<c_int> {
    let kinds: [(&str, [Start; 2]); 4] = [
        ("OS threads", [start_os_thread, start_os_thread]),
        ("green threads", [start_own, start_own]),
        ("a green one and an OS thread", [start_own, start_os_thread]),
        ("an OS thread and a green one", [start_os_thread, start_own]),
    ];
    let answers = kinds.map(|(kind, [first, second])| {
        let answers = script(&Actor::new(first), &Actor::new(second));
        (kind, answers)
    });
    for (kind, answer) in &answers {
        assert_eq!(answer, &answers[0].1, "{name}: {kind}");
    }
    answers[0].1.clone()
}

/// A call on a mutex.
type OnMutex = unsafe extern "C" fn(*mut pthread_mutex_t) -> c_int;

/// Makes calls on a mutex, one after the other.
fn calls(
    mutex: &Arc<Shared<pthread_mutex_t>>,
    calls: &'static [OnMutex],
) -> impl FnOnce() -> Vec<c_int> + Send + use<> {
    let mutex = Arc::clone(mutex);
    // SAFETY: a mutex.
    move || calls.iter().map(|call| unsafe { call(mutex.at()) }).collect()
}

const LOCK: OnMutex = libc::pthread_mutex_lock;
const TRY: OnMutex = libc::pthread_mutex_trylock;
const UNLOCK: OnMutex = libc::pthread_mutex_unlock;

/// Locks with a time limit on a clock; a clock of -1 stands for the call without a clock.
fn timed_lock(mutex: &Shared<pthread_mutex_t>, clock: clockid_t, time: timespec) -> c_int {
    // SAFETY: a mutex, and a time that lives until the call returns.
    unsafe {
        match clock {
            -1 => libc::pthread_mutex_timedlock(mutex.at(), &raw const time),
            clock => pthread_mutex_clocklock(mutex.at(), clock, &raw const time),
        }
    }
}

/// Answers of timed locks that need not wait long.
fn timed_locks(mutex: &Arc<Shared<pthread_mutex_t>>) -> impl FnOnce() -> Vec<c_int> + Send + use<> {
    let mutex = Arc::clone(mutex);
    let bad = |tv_nsec| timespec { tv_sec: 1, tv_nsec };
    move || {
        vec![
            timed_lock(&mutex, -1, moment(CLOCK_REALTIME, 3)),
            timed_lock(&mutex, CLOCK_REALTIME, moment(CLOCK_REALTIME, 3)),
            timed_lock(&mutex, CLOCK_MONOTONIC, moment(CLOCK_MONOTONIC, 3)),
            timed_lock(&mutex, -1, moment(CLOCK_REALTIME, -3)),
            timed_lock(&mutex, -1, timespec { tv_sec: -1, tv_nsec: 0 }),
            timed_lock(&mutex, -1, bad(-1)),
            timed_lock(&mutex, -1, bad(1_000_000_000)),
            timed_lock(&mutex, CLOCK_PROCESS_CPUTIME_ID, bad(0)),
        ]
    }
}

#[test]
fn a_mutex_of_each_kind_answers_green_threads_as_it_does_os_threads() {
    let Some(_guard) = patched_locks() else { return };
    for kind in [0, 1, 2, 3] {
        let answers = same_answers(&format!("kind {kind}"), |first, second| {
            let mutex = mutex_of(kind);
            let mut answers = first.act(calls(&mutex, &[LOCK]));
            answers.extend(second.act(calls(&mutex, &[TRY])));
            answers.extend(second.act(timed_locks(&mutex)));
            if kind != 0 && kind != 3 {
                // Only these kinds know their owner.
                answers.extend(second.act(calls(&mutex, &[UNLOCK])));
                answers.extend(first.act(calls(&mutex, &[LOCK, TRY, UNLOCK])));
                answers.extend(first.act(timed_locks(&mutex)));
            }
            answers.extend(second.act(calls(&mutex, &[TRY])));
            answers.extend(first.act(calls(&mutex, &[UNLOCK, TRY, UNLOCK])));
            if kind == 1 {
                // What is locked again has to be unlocked again: once for the loop below, and for the timed ones.
                answers.extend(first.act(calls(&mutex, &[UNLOCK, UNLOCK, UNLOCK, UNLOCK, UNLOCK, UNLOCK, UNLOCK])));
                answers.extend(first.act(calls(&mutex, &[UNLOCK, UNLOCK, UNLOCK])));
            }
            answers.extend(second.act(calls(&mutex, &[TRY, UNLOCK])));
            if kind == 1 || kind == 2 {
                answers.extend(second.act(calls(&mutex, &[UNLOCK])));
            }
            // A free mutex, and times that are over or bad.
            let free = Arc::clone(&mutex);
            answers.extend(second.act(move || {
                let bad = timespec { tv_sec: 0, tv_nsec: -1 };
                let first = timed_lock(&free, -1, bad);
                // SAFETY: a mutex.
                let unlock = || unsafe { libc::pthread_mutex_unlock(free.at()) };
                let second = (unlock(), timed_lock(&free, CLOCK_MONOTONIC, timespec { tv_sec: 0, tv_nsec: 0 }));
                vec![first, second.0, second.1, unlock(), timed_lock(&free, CLOCK_PROCESS_CPUTIME_ID, bad)]
            }));
            // SAFETY: a mutex that no thread uses any more.
            answers.push(unsafe { libc::pthread_mutex_destroy(mutex.at()) });
            answers
        });
        assert_eq!(answers[1], EBUSY, "they meant what they should");
        assert!(answers.contains(&ETIMEDOUT) && answers.contains(&EINVAL));
        assert_eq!(answers.contains(&EPERM), kind == 1 || kind == 2);
        assert_eq!(answers.contains(&EDEADLK), kind == 2);
    }
}

/// Locks in the background, and unlocks a little later: the waiter gets the lock.
#[test]
fn a_waiter_of_each_kind_gets_the_mutex_from_one_of_each_kind() {
    let Some(_guard) = patched_locks() else { return };
    for kind in [0, 1, 2, 3] {
        same_answers(&format!("kind {kind}"), |first, second| {
            let mutex = mutex_of(kind);
            let mut answers = first.act(calls(&mutex, &[LOCK]));
            second.begin(calls(&mutex, &[LOCK, UNLOCK]));
            std::thread::sleep(Duration::from_millis(5));
            answers.extend(first.act(calls(&mutex, &[UNLOCK])));
            answers.extend(second.end());
            let held = Arc::clone(&mutex);
            answers.extend(first.act(calls(&mutex, &[LOCK])));
            second.begin(move || vec![timed_lock(&held, CLOCK_MONOTONIC, moment(CLOCK_MONOTONIC, 30_000))]);
            std::thread::sleep(Duration::from_millis(5));
            answers.extend(first.act(calls(&mutex, &[UNLOCK])));
            answers.extend(second.end());
            answers.extend(second.act(calls(&mutex, &[UNLOCK])));
            answers
        });
    }
}

/// Main of a hub is its OS thread, and its green threads are others.
#[test]
fn main_and_a_green_thread_are_different_owners() {
    let Some(_guard) = patched_locks() else { return };
    for kind in [1, 2] {
        let mutex = mutex_of(kind);
        let again = if kind == 1 { 0 } else { EDEADLK };
        assert_eq!(calls(&mutex, &[LOCK, LOCK])(), [0, again]);
        let other = own({
            let mutex = Arc::clone(&mutex);
            move || {
                let refused = calls(&mutex, &[TRY, UNLOCK])();
                let limited = timed_lock(&mutex, CLOCK_MONOTONIC, moment(CLOCK_MONOTONIC, 3));
                (refused, limited, calls(&mutex, &[LOCK, LOCK, TRY])())
            }
        });
        greenling::sleep(Duration::from_millis(10));
        if kind == 1 {
            assert_eq!(calls(&mutex, &[UNLOCK])(), [0]);
            greenling::yield_now();
            assert!(!other.is_finished());
        }
        assert_eq!(calls(&mutex, &[UNLOCK])(), [0]);
        let (refused, limited, locked) = other.join().unwrap();
        assert_eq!((refused, limited), (vec![EBUSY, EPERM], ETIMEDOUT));
        assert_eq!(locked, [0, again, if kind == 1 { 0 } else { EBUSY }]);
        // It ended with the mutex locked, and is nobody's from now on but its own.
        assert_eq!(calls(&mutex, &[TRY, UNLOCK])(), [EBUSY, EPERM]);
    }
}

/// The answers of waits for a condition variable that are not signalled.
fn idle_waits(condvar: &Shared<pthread_cond_t>, mutex: &Shared<pthread_mutex_t>, clock: clockid_t) -> Vec<c_int> {
    let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    let [soon, past] = [3, -3].map(|millis| moment(clock, millis));
    let monotonic = moment(CLOCK_MONOTONIC, 3);
    // SAFETY: locks, and times that live until the calls return.
    unsafe {
        vec![
            libc::pthread_mutex_lock(mutex.at()),
            libc::pthread_cond_timedwait(condvar.at(), mutex.at(), &raw const soon),
            libc::pthread_cond_timedwait(condvar.at(), mutex.at(), &raw const past),
            libc::pthread_cond_timedwait(condvar.at(), mutex.at(), &raw const bad),
            pthread_cond_clockwait(condvar.at(), mutex.at(), CLOCK_MONOTONIC, &raw const monotonic),
            pthread_cond_clockwait(condvar.at(), mutex.at(), CLOCK_MONOTONIC, &raw const bad),
            pthread_cond_clockwait(condvar.at(), mutex.at(), CLOCK_PROCESS_CPUTIME_ID, &raw const monotonic),
            libc::pthread_mutex_unlock(mutex.at()),
        ]
    }
}

#[test]
fn a_condition_variable_answers_green_threads_as_it_does_os_threads() {
    let Some(_guard) = patched_locks() else { return };
    for (clock, kind) in [(CLOCK_REALTIME, 0), (CLOCK_MONOTONIC, 0), (CLOCK_REALTIME, 1), (CLOCK_REALTIME, 2)] {
        let answers = same_answers(&format!("clock {clock}, kind {kind}"), |first, second| {
            let (condvar, mutex) = (condvar_of(clock), mutex_of(kind));
            let pair = (Arc::clone(&condvar), Arc::clone(&mutex));
            let mut answers = first.act(move || idle_waits(&pair.0, &pair.1, clock));
            // A wait by a thread that does not have the mutex.
            if kind == 2 {
                let pair = (Arc::clone(&condvar), Arc::clone(&mutex));
                // SAFETY: locks.
                let call = move || vec![unsafe { libc::pthread_cond_wait(pair.0.at(), pair.1.at()) }];
                answers.extend(second.act(call));
            }
            // A wait that is signalled, and one that is broadcast to.
            for signal in [libc::pthread_cond_signal, libc::pthread_cond_broadcast] {
                let word = Arc::new(AtomicU32::new(0));
                let (pair, flag) = ((Arc::clone(&condvar), Arc::clone(&mutex)), Arc::clone(&word));
                second.begin(move || {
                    let (condvar, mutex) = (pair.0.at(), pair.1.at());
                    // SAFETY: locks.
                    let mut answers = vec![unsafe { libc::pthread_mutex_lock(mutex) }];
                    while flag.load(Ordering::Relaxed) == 0 {
                        // SAFETY: as above.
                        assert_eq!(unsafe { libc::pthread_cond_wait(condvar, mutex) }, 0);
                    }
                    // SAFETY: as above.
                    answers.push(unsafe { libc::pthread_mutex_unlock(mutex) });
                    answers
                });
                std::thread::sleep(Duration::from_millis(5));
                let pair = (Arc::clone(&condvar), Arc::clone(&mutex));
                answers.extend(first.act(move || {
                    let mut answers = calls(&pair.1, &[LOCK])();
                    word.store(1, Ordering::Relaxed);
                    // SAFETY: a condition variable.
                    answers.push(unsafe { signal(pair.0.at()) });
                    answers.extend(calls(&pair.1, &[UNLOCK])());
                    answers
                }));
                answers.extend(second.end());
            }
            // SAFETY: locks that no thread uses any more.
            answers
                .extend(unsafe { [libc::pthread_cond_destroy(condvar.at()), libc::pthread_mutex_destroy(mutex.at())] });
            answers
        });
        assert!(answers.contains(&ETIMEDOUT) && answers.contains(&EINVAL), "{answers:?}");
        assert_eq!(answers.contains(&EPERM), kind == 2);
    }
}

/// A call on a read-write lock.
type OnRwlock = unsafe extern "C" fn(*mut pthread_rwlock_t) -> c_int;

/// Makes calls on a read-write lock, one after the other.
fn on_rwlock(
    lock: &Arc<Shared<pthread_rwlock_t>>,
    calls: &'static [OnRwlock],
) -> impl FnOnce() -> Vec<c_int> + Send + use<> {
    let lock = Arc::clone(lock);
    // SAFETY: a lock.
    move || calls.iter().map(|call| unsafe { call(lock.at()) }).collect()
}

const READ: OnRwlock = libc::pthread_rwlock_rdlock;
const WRITE: OnRwlock = libc::pthread_rwlock_wrlock;
const TRY_READ: OnRwlock = libc::pthread_rwlock_tryrdlock;
const TRY_WRITE: OnRwlock = libc::pthread_rwlock_trywrlock;
const LEAVE: OnRwlock = libc::pthread_rwlock_unlock;

/// The answers of the four timed calls, for a time that is near, over or bad.
fn timed_rwlocks(lock: &Arc<Shared<pthread_rwlock_t>>) -> impl FnOnce() -> Vec<c_int> + Send + use<> {
    let lock = Arc::clone(lock);
    move || {
        let bad = timespec { tv_sec: 0, tv_nsec: -1 };
        let mut answers = Vec::new();
        for (real, monotonic) in [
            (moment(CLOCK_REALTIME, 3), moment(CLOCK_MONOTONIC, 3)),
            (moment(CLOCK_REALTIME, -3), moment(CLOCK_MONOTONIC, -3)),
            (bad, bad),
        ] {
            // SAFETY: a lock, and times that live until the calls return.
            answers.extend(unsafe {
                [
                    pthread_rwlock_timedrdlock(lock.at(), &raw const real),
                    pthread_rwlock_timedwrlock(lock.at(), &raw const real),
                    pthread_rwlock_clockrdlock(lock.at(), CLOCK_MONOTONIC, &raw const monotonic),
                    pthread_rwlock_clockwrlock(lock.at(), CLOCK_MONOTONIC, &raw const monotonic),
                    pthread_rwlock_clockwrlock(lock.at(), CLOCK_PROCESS_CPUTIME_ID, &raw const monotonic),
                ]
            });
        }
        answers
    }
}

#[test]
fn a_read_write_lock_answers_green_threads_as_it_does_os_threads() {
    let Some(_guard) = patched_locks() else { return };
    let answers = same_answers("rwlock", |first, second| {
        let lock = rwlock();
        // A writer.
        let mut answers = first.act(on_rwlock(&lock, &[WRITE, WRITE, READ, TRY_READ, TRY_WRITE]));
        answers.extend(first.act(timed_rwlocks(&lock)));
        answers.extend(second.act(on_rwlock(&lock, &[TRY_READ, TRY_WRITE])));
        answers.extend(second.act(timed_rwlocks(&lock)));
        for wanted in [&[READ, LEAVE] as &[OnRwlock], &[WRITE, LEAVE]] {
            second.begin(on_rwlock(&lock, wanted));
            std::thread::sleep(Duration::from_millis(5));
            answers.extend(first.act(on_rwlock(&lock, &[LEAVE])));
            answers.extend(second.end());
            answers.extend(first.act(on_rwlock(&lock, &[TRY_WRITE])));
        }
        answers.extend(first.act(on_rwlock(&lock, &[LEAVE])));
        // Readers.
        answers.extend(first.act(on_rwlock(&lock, &[READ, READ])));
        answers.extend(second.act(on_rwlock(&lock, &[READ, LEAVE, TRY_WRITE])));
        second.begin(on_rwlock(&lock, &[WRITE, LEAVE]));
        std::thread::sleep(Duration::from_millis(5));
        answers.extend(first.act(on_rwlock(&lock, &[LEAVE, LEAVE])));
        answers.extend(second.end());
        // SAFETY: a lock that no thread uses any more.
        answers.push(unsafe { libc::pthread_rwlock_destroy(lock.at()) });
        answers
    });
    assert_eq!(answers[..3], [0, EDEADLK, EDEADLK], "they meant what they should");
    assert!(answers.contains(&ETIMEDOUT) && answers.contains(&EINVAL) && answers.contains(&EBUSY));
}

#[test]
fn a_semaphore_answers_green_threads_as_it_does_os_threads() {
    let Some(_guard) = patched_locks() else { return };
    let answers = same_answers("semaphore", |first, second| {
        let semaphore = semaphore(1);
        let its = Arc::clone(&semaphore);
        let mut answers = first.act(move || {
            let (real, monotonic) = (moment(CLOCK_REALTIME, 3), moment(CLOCK_MONOTONIC, 3));
            let bad = timespec { tv_sec: 0, tv_nsec: -1 };
            // SAFETY: a semaphore, and times that live until the calls return.
            unsafe {
                vec![
                    or_errno(libc::sem_timedwait(its.at(), &raw const bad)),
                    or_errno(libc::sem_wait(its.at())),
                    or_errno(libc::sem_trywait(its.at())),
                    or_errno(libc::sem_timedwait(its.at(), &raw const real)),
                    or_errno(sem_clockwait(its.at(), CLOCK_MONOTONIC, &raw const monotonic)),
                    or_errno(sem_clockwait(its.at(), CLOCK_PROCESS_CPUTIME_ID, &raw const monotonic)),
                    or_errno(libc::sem_timedwait(its.at(), &raw const bad)),
                ]
            }
        });
        let its = Arc::clone(&semaphore);
        // SAFETY: a semaphore.
        second.begin(move || vec![or_errno(unsafe { libc::sem_wait(its.at()) })]);
        std::thread::sleep(Duration::from_millis(5));
        let its = Arc::clone(&semaphore);
        // SAFETY: a semaphore.
        answers.extend(first.act(move || vec![or_errno(unsafe { libc::sem_post(its.at()) })]));
        answers.extend(second.end());
        answers
    });
    assert_eq!(answers[..3], [EINVAL, 0, libc::EAGAIN], "they meant what they should");
    assert_eq!(answers[3..5], [ETIMEDOUT; 2]);
}

#[test]
fn a_time_limit_never_ends_early_and_others_run_meanwhile() {
    let Some(_guard) = patched_locks() else { return };
    let (lock, condvar) = (mutex(), condvar_of(CLOCK_MONOTONIC));
    let [turns, seen] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
    let counts = Arc::clone(&turns);
    let ticker = greenling::spawn(move || {
        loop {
            counts.fetch_add(1, Ordering::Relaxed);
            greenling::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(calls(&lock, &[LOCK])(), [0]);
    let waiter = own({
        let (lock, seen) = (Arc::clone(&lock), Arc::clone(&seen));
        move || {
            let begin = Instant::now();
            let answer = timed_lock(&lock, CLOCK_MONOTONIC, moment(CLOCK_MONOTONIC, 30));
            seen.fetch_add(1, Ordering::Relaxed);
            (answer, begin.elapsed())
        }
    });
    // Main waits, too, and releases the mutex for that.
    let begin = Instant::now();
    let until = moment(CLOCK_MONOTONIC, 40);
    let other = mutex();
    assert_eq!(calls(&other, &[LOCK])(), [0]);
    // SAFETY: locks, and a time that lives until the call returns.
    let answer = unsafe { libc::pthread_cond_timedwait(condvar.at(), other.at(), &raw const until) };
    assert!(answer == ETIMEDOUT && begin.elapsed() >= Duration::from_millis(39), "{answer} {:?}", begin.elapsed());
    let (answer, took) = waiter.join().unwrap();
    assert!(answer == ETIMEDOUT && took >= Duration::from_millis(29), "{answer} {took:?}");
    assert!(turns.load(Ordering::Relaxed) > 1, "others ran while main waited");
    ticker.kill();
}

/// How many rounds a storm has, of each thread.
fn rounds() -> u32 {
    if cfg!(debug_assertions) { 300 } else { 3000 }
}

/// Runs `body` in OS threads, and in green threads of two hubs, three of each; each gets its number and a seed.
fn storm(body: impl Fn(u32, u64) + Send + Sync + 'static) {
    let body = Arc::new(body);
    let mut random = common::Random::new();
    let mut seeds = (0..9).map(|_| random.next()).collect::<Vec<u64>>();
    let mut threads = Vec::new();
    for (number, seed) in (0..3).zip(seeds.split_off(6)) {
        let body = Arc::clone(&body);
        threads.push(std::thread::spawn(move || body(number, seed)));
    }
    for hub in 0..2 {
        let (body, seeds) = (Arc::clone(&body), seeds.split_off(3 - 3 * hub));
        threads.push(std::thread::spawn(move || {
            let green: Vec<_> = (0..)
                .zip(seeds)
                .map(|(number, seed)| {
                    let body = Arc::clone(&body);
                    own(move || body(3 + 3 * hub as u32 + number, seed))
                })
                .collect();
            for thread in green {
                thread.join().unwrap();
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Lets others run sometimes, in the middle of what a lock protects.
fn sometimes_yield(dice: &mut u64) {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    match *dice % 16 {
        0..4 => std::thread::yield_now(),
        4 => greenling::sleep(Duration::from_micros(50)),
        _ => {}
    }
}

#[test]
fn mutexes_exclude_all_threads_and_lose_no_wake_up() {
    let Some(_guard) = patched_locks() else { return };
    for kind in [0, 1, 2] {
        let locks: [_; 2] = std::array::from_fn(|_| mutex_of(kind));
        let inside = Arc::new([const { AtomicU32::new(0) }; 2]);
        let total = Arc::new([const { AtomicU32::new(0) }; 2]);
        let counts = Arc::clone(&total);
        storm(move |_, seed| {
            let mut dice = seed | 1;
            for _ in 0..rounds() {
                sometimes_yield(&mut dice);
                let at = (dice >> 40) as usize % 2;
                let lock = &locks[at];
                let answer = match dice >> 50 & 3 {
                    0 => timed_lock(lock, CLOCK_MONOTONIC, moment(CLOCK_MONOTONIC, 1)),
                    _ => calls(lock, &[LOCK])()[0],
                };
                if answer == ETIMEDOUT {
                    continue;
                }
                assert_eq!(answer, 0);
                assert_eq!(inside[at].fetch_add(1, Ordering::Relaxed), 0, "two have the mutex");
                sometimes_yield(&mut dice);
                if kind == 1 {
                    assert_eq!(calls(lock, &[LOCK, UNLOCK])(), [0, 0]);
                }
                counts[at].fetch_add(1, Ordering::Relaxed);
                assert_eq!(inside[at].fetch_sub(1, Ordering::Relaxed), 1);
                assert_eq!(calls(lock, &[UNLOCK])(), [0]);
            }
        });
        let done = total.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u32>();
        assert!(done >= 9 * rounds() / 2, "{done}");
    }
}

/// A queue with a condition variable for each end.
struct Queue {
    lock: Arc<Shared<pthread_mutex_t>>,
    filled: Arc<Shared<pthread_cond_t>>,
    emptied: Arc<Shared<pthread_cond_t>>,
    values: Mutex<Vec<u32>>,
}

impl Queue {
    /// Waits with the mutex until `ready`, does `act`, and notifies the other end.
    fn when<T>(
        &self,
        own: &Shared<pthread_cond_t>,
        other: &Shared<pthread_cond_t>,
        ready: impl Fn(usize) -> bool,
        act: impl FnOnce(&mut Vec<u32>) -> T,
        all: bool,
    ) -> T {
        let len = || self.values.lock().unwrap().len();
        // SAFETY: locks of this queue.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(self.lock.at()), 0);
            while !ready(len()) {
                assert_eq!(libc::pthread_cond_wait(own.at(), self.lock.at()), 0);
            }
            let result = act(&mut self.values.lock().unwrap());
            let told =
                if all { libc::pthread_cond_broadcast(other.at()) } else { libc::pthread_cond_signal(other.at()) };
            assert_eq!((told, libc::pthread_mutex_unlock(self.lock.at())), (0, 0));
            result
        }
    }
}

/// As many values are taken as are put in; a signal that was lost would leave a thread waiting.
#[test]
fn condition_variables_lose_no_signal() {
    let Some(_guard) = patched_locks() else { return };
    let queue = Queue {
        lock: mutex(),
        filled: condvar_of(CLOCK_REALTIME),
        emptied: condvar_of(CLOCK_REALTIME),
        values: Mutex::new(Vec::new()),
    };
    let sum = Arc::new(AtomicU32::new(0));
    let taken = Arc::clone(&sum);
    // A pair of each kind puts in, one of each takes twice as much.
    storm(move |number, seed| {
        let mut dice = seed | 1;
        let takes = number % 3 == 0;
        for round in 0..if takes { 2 * rounds() } else { rounds() } {
            sometimes_yield(&mut dice);
            let all = dice >> 50 & 7 == 0;
            if takes {
                let pop = |values: &mut Vec<u32>| values.pop().unwrap();
                let value = queue.when(&queue.filled, &queue.emptied, |len| len > 0, pop, all);
                taken.fetch_add(value % 1000, Ordering::Relaxed);
            } else {
                let push = |values: &mut Vec<u32>| values.push(round);
                queue.when(&queue.emptied, &queue.filled, |len| len < 4, push, all);
            }
        }
    });
    assert_eq!(sum.load(Ordering::Relaxed), 6 * (0..rounds()).map(|round| round % 1000).sum::<u32>());
}

#[test]
fn read_write_locks_let_in_readers_or_one_writer_and_lose_no_wake_up() {
    let Some(_guard) = patched_locks() else { return };
    let (lock, state) = (rwlock(), Arc::new(AtomicU32::new(0)));
    const WRITER: u32 = 1 << 16;
    storm(move |_, seed| {
        let mut dice = seed | 1;
        for _ in 0..rounds() {
            sometimes_yield(&mut dice);
            if dice >> 50 & 3 == 0 {
                assert_eq!(on_rwlock(&lock, &[WRITE])(), [0]);
                assert_eq!(state.fetch_add(WRITER, Ordering::Relaxed), 0);
                sometimes_yield(&mut dice);
                assert_eq!(state.fetch_sub(WRITER, Ordering::Relaxed), WRITER);
            } else {
                assert_eq!(on_rwlock(&lock, &[READ])(), [0]);
                assert!(state.fetch_add(1, Ordering::Relaxed) < WRITER);
                sometimes_yield(&mut dice);
                state.fetch_sub(1, Ordering::Relaxed);
            }
            assert_eq!(on_rwlock(&lock, &[LEAVE])(), [0]);
        }
    });
}

#[test]
fn semaphores_lose_no_unit() {
    let Some(_guard) = patched_locks() else { return };
    let (semaphore, inside) = (semaphore(2), Arc::new(AtomicUsize::new(0)));
    storm(move |_, seed| {
        let mut dice = seed | 1;
        for _ in 0..rounds() {
            sometimes_yield(&mut dice);
            // SAFETY: a semaphore.
            assert_eq!(or_errno(unsafe { libc::sem_wait(semaphore.at()) }), 0);
            assert!(inside.fetch_add(1, Ordering::Relaxed) < 2);
            sometimes_yield(&mut dice);
            inside.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: a semaphore.
            assert_eq!(or_errno(unsafe { libc::sem_post(semaphore.at()) }), 0);
        }
    });
}

#[test]
fn a_barrier_lets_all_go_on_together_and_names_one() {
    let Some(_guard) = patched_locks() else { return };
    let barrier = barrier(9);
    let serial = Arc::new(AtomicU32::new(0));
    let arrived = Arc::new(AtomicU32::new(0));
    let named = Arc::clone(&serial);
    let rounds = rounds() / 4;
    storm(move |_, seed| {
        let mut dice = seed | 1;
        for round in 1..=rounds {
            sometimes_yield(&mut dice);
            arrived.fetch_add(1, Ordering::Relaxed);
            // SAFETY: a barrier.
            match unsafe { libc::pthread_barrier_wait(barrier.at()) } {
                0 => {}
                libc::PTHREAD_BARRIER_SERIAL_THREAD => drop(named.fetch_add(1, Ordering::Relaxed)),
                error => panic!("{error}"),
            }
            let now = arrived.load(Ordering::Relaxed);
            assert!((9 * round..9 * (round + 1)).contains(&now), "{now} in round {round}");
        }
    });
    assert_eq!(serial.load(Ordering::Relaxed), rounds);
}

/// The control words of the test of `pthread_once`.
static ONCES: [AtomicU32; 50] = [const { AtomicU32::new(0) }; 50];
/// How often the routine has run.
static RUNS: AtomicU32 = AtomicU32::new(0);

extern "C" fn routine() {
    // Others run meanwhile, and need what this makes.
    std::thread::yield_now();
    greenling::sleep(Duration::from_micros(500));
    RUNS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_routine_runs_once_and_is_done_when_any_thread_goes_on() {
    let Some(_guard) = patched_locks() else { return };
    storm(|_, _| {
        for (index, control) in (0..).zip(&ONCES) {
            // SAFETY: a control word of C, which is one word.
            assert_eq!(unsafe { pthread_once(control.as_ptr().cast(), routine) }, 0);
            assert!(RUNS.load(Ordering::Relaxed) > index);
        }
    });
    assert_eq!(RUNS.load(Ordering::Relaxed), 50);
}

#[test]
fn a_kill_and_a_time_limit_come_after_the_lock() {
    let Some(_guard) = patched_locks() else { return };
    let lock = mutex();
    assert_eq!(calls(&lock, &[LOCK])(), [0]);
    let had = Arc::new(AtomicU32::new(0));
    let waiter = || {
        let (lock, had) = (Arc::clone(&lock), Arc::clone(&had));
        move || {
            assert_eq!(calls(&lock, &[LOCK])(), [0]);
            had.fetch_add(1, Ordering::Relaxed);
            assert_eq!(calls(&lock, &[UNLOCK])(), [0]);
            greenling::sleep(Duration::from_secs(60));
        }
    };
    let [killed, limited] = [own(waiter()), {
        let wait = waiter();
        own(move || assert!(greenling::timeout(Duration::from_millis(5), wait).is_err()))
    }];
    greenling::sleep(Duration::from_millis(2));
    killed.kill();
    greenling::sleep(Duration::from_millis(15));
    assert!(!killed.is_finished() && !limited.is_finished());
    assert_eq!(calls(&lock, &[UNLOCK])(), [0]);
    assert!(killed.join().unwrap_err().is_killed());
    limited.join().unwrap();
    assert_eq!(had.load(Ordering::Relaxed), 2);
}

#[test]
fn a_hub_that_ends_gives_up_its_waiters_and_passes_on_their_wake_ups() {
    let Some(_guard) = patched_locks() else { return };
    let (lock, condvar, semaphore) = (mutex(), condvar_of(CLOCK_REALTIME), semaphore(0));
    assert_eq!(calls(&lock, &[LOCK])(), [0]);
    let all = (Arc::clone(&lock), Arc::clone(&condvar), Arc::clone(&semaphore));
    let hub = std::thread::spawn(move || {
        let (lock, condvar, semaphore) = all;
        let its = Arc::clone(&lock);
        drop(own(move || calls(&its, &[LOCK])()));
        // SAFETY: a semaphore.
        drop(own(move || unsafe { libc::sem_wait(semaphore.at()) }));
        drop(own(move || {
            let other = mutex();
            assert_eq!(calls(&other, &[LOCK])(), [0]);
            // SAFETY: locks.
            unsafe { libc::pthread_cond_wait(condvar.at(), other.at()) }
        }));
        greenling::yield_now();
        greenling::hub::shutdown();
    });
    hub.join().unwrap();
    // What they waited for goes to others.
    // SAFETY: locks.
    unsafe {
        assert_eq!(libc::pthread_cond_signal(condvar.at()), 0);
        assert_eq!(libc::pthread_mutex_unlock(lock.at()), 0);
        assert_eq!(libc::sem_post(semaphore.at()), 0);
    }
    let other = own(move || {
        // SAFETY: a semaphore.
        (calls(&lock, &[LOCK, UNLOCK])(), or_errno(unsafe { libc::sem_wait(semaphore.at()) }))
    });
    assert_eq!(other.join().unwrap(), (vec![0, 0], 0));
}

#[test]
fn mutexes_of_the_kernel_and_other_processes_stay_as_they_are() {
    let Some(_guard) = patched_locks() else { return };
    let answers = same_answers("shared", |first, second| {
        let mut answers = Vec::new();
        for (robust, shared, protocol) in [(1, 0, 0), (0, 1, 0), (0, 0, libc::PTHREAD_PRIO_INHERIT)] {
            let mut attributes = MaybeUninit::uninit();
            let mutex = Shared::new(libc::PTHREAD_MUTEX_INITIALIZER);
            // SAFETY: memory for attributes and a mutex.
            unsafe {
                let at = attributes.as_mut_ptr();
                libc::pthread_mutexattr_init(at);
                libc::pthread_mutexattr_setrobust(at, robust);
                libc::pthread_mutexattr_setpshared(at, shared);
                libc::pthread_mutexattr_setprotocol(at, protocol);
                assert_eq!(libc::pthread_mutex_init(mutex.at(), at), 0);
            }
            answers.extend(first.act(calls(&mutex, &[LOCK])));
            answers.extend(second.act(calls(&mutex, &[TRY])));
            answers.extend(first.act(calls(&mutex, &[UNLOCK, TRY, UNLOCK])));
        }
        answers
    });
    assert_eq!(answers[..2], [0, EBUSY]);
}

/// The semaphore that the handler posts.
static POSTED: AtomicUsize = AtomicUsize::new(0);

/// Posts, in the middle of whatever the OS thread does.
extern "C" fn post_in_handler(_: c_int) {
    // SAFETY: a semaphore, and a function that handlers may call.
    unsafe { libc::sem_post(std::ptr::with_exposed_provenance_mut(POSTED.load(Ordering::Relaxed))) };
}

/// As many units are taken as handlers have posted, by green threads whose hub is interrupted all the time.
#[test]
fn a_signal_handler_may_post_a_semaphore_that_a_green_thread_waits_for() {
    let out = common::child("a_signal_handler_may_post_a_semaphore_that_a_green_thread_waits_for", || {
        let Some(_guard) = patched_locks() else { return };
        let semaphore = semaphore(0);
        POSTED.store(semaphore.at().expose_provenance(), Ordering::Relaxed);
        // SAFETY: the handler does what handlers may do.
        unsafe { libc::signal(libc::SIGUSR1, post_in_handler as extern "C" fn(c_int) as libc::sighandler_t) };
        // SAFETY: it returns a number.
        let hub = unsafe { libc::pthread_self() };
        let rounds = 10 * rounds();
        let taken = Arc::new(AtomicU32::new(0));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (semaphore, taken) = (Arc::clone(&semaphore), Arc::clone(&taken));
                own(move || {
                    for _ in 0..rounds / 2 {
                        // SAFETY: a semaphore.
                        assert_eq!(or_errno(unsafe { libc::sem_wait(semaphore.at()) }), 0);
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let seen = Arc::clone(&taken);
        let sender = std::thread::spawn(move || {
            for round in 0..rounds {
                // SAFETY: the thread lives until this one has ended.
                assert_eq!(unsafe { libc::pthread_kill(hub, libc::SIGUSR1) }, 0);
                // Signals that come together are one.
                while seen.load(Ordering::Relaxed) <= round {
                    std::thread::yield_now();
                }
            }
        });
        for waiter in waiters {
            waiter.join().unwrap();
        }
        sender.join().unwrap();
        assert_eq!(taken.load(Ordering::Relaxed), rounds);
    });
    assert!(out.status.success(), "{out:?}");
}

/// Compiles the part in C++ as a library; none, with a message, without a compiler.
fn library_of_cpp() -> Option<std::ffi::CString> {
    let place = std::env::temp_dir().join(format!("greenling-c-locks-{}.so", std::process::id()));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c_locks/locks.cpp");
    let mut compiler = std::process::Command::new("c++");
    compiler.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", "-o"]).arg(&place).arg(source);
    match compiler.status() {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            eprintln!("skipped: no C++ compiler: {error}");
            return None;
        }
    }
    Some(std::ffi::CString::new(place.into_os_string().into_encoded_bytes()).unwrap())
}

/// Green threads of two hubs and OS threads, in the locks of C++, which are C's inside.
#[test]
fn locks_of_cpp_work_among_green_threads_and_os_threads() {
    type Part = extern "C" fn(c_int, c_int) -> c_int;
    let out = common::child("locks_of_cpp_work_among_green_threads_and_os_threads", || {
        let Some(_guard) = patched_locks() else { return };
        // SAFETY: the code of this test relies on nothing over a wait.
        unsafe { greenling::monkey::patch_all() }.unwrap();
        let Some(place) = library_of_cpp() else { return };
        // SAFETY: the library's constructors make its locks, and do nothing else.
        let library = unsafe { libc::dlopen(place.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null());
        let _ = std::fs::remove_file(place.to_str().unwrap());
        // SAFETY: a handle, and a name that is there.
        let part = unsafe { libc::dlsym(library, c"locks_of_cpp".as_ptr()) };
        // SAFETY: the function has this type.
        let part = unsafe { std::mem::transmute::<*mut std::ffi::c_void, Part>(part) };
        let rounds = rounds() as c_int / 5;
        let mut threads: Vec<_> = (0..2).map(|number| std::thread::spawn(move || part(number, rounds))).collect();
        for hub in 1..3 {
            threads.push(std::thread::spawn(move || {
                let green = [0, 1].map(|number| own(move || part(2 * hub + number, rounds)));
                green.map(|thread| thread.join().unwrap()).into_iter().max().unwrap()
            }));
        }
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 0);
        }
    });
    assert!(out.status.success(), "{out:?}");
}

/// The control word of a `pthread_once` of which the routine runs as long as [`HELD`] says.
static SLOW: AtomicU32 = AtomicU32::new(0);
/// Whether the routine goes on.
static HELD: AtomicU32 = AtomicU32::new(1);

extern "C" fn slow_routine() {
    while HELD.load(Ordering::Relaxed) != 0 {
        greenling::sleep(Duration::from_micros(200));
    }
}

/// Returns what the thread with this name waits for, when it does.
fn reason_of(name: &str) -> WaitReason {
    loop {
        let all = threads();
        let info = all.iter().find(|info| info.name.as_deref() == Some(name)).unwrap_or_else(|| panic!("{all:#}"));
        if let (ThreadState::Waiting, Some(reason)) = (info.state, &info.reason) {
            return reason.clone();
        }
        greenling::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_snapshot_tells_the_kind_of_lock_and_where_it_lies() {
    let Some(_guard) = patched_locks() else { return };
    let (lock, condvar, table) = (mutex(), condvar_of(CLOCK_MONOTONIC), rwlock());
    let (units, meeting, std_lock) = (semaphore(0), barrier(2), Arc::new(Mutex::new(())));
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    // Main has all of them.
    assert_eq!(calls(&lock, &[LOCK])(), [0]);
    // SAFETY: a lock.
    assert_eq!(unsafe { libc::pthread_rwlock_wrlock(table.at()) }, 0);
    let held = std_lock.lock().unwrap();
    let locks = calls(&lock, &[LOCK, UNLOCK]);
    own_named("mutex", move || drop(locks()));
    let (on, inner) = (Arc::clone(&condvar), mutex());
    // SAFETY: a condition variable, and a mutex that is held.
    own_named("condvar", move || unsafe {
        libc::pthread_mutex_lock(inner.at());
        libc::pthread_cond_wait(on.at(), inner.at());
        libc::pthread_mutex_unlock(inner.at());
    });
    let on = Arc::clone(&table);
    // SAFETY: a lock.
    own_named("rwlock", move || assert_eq!(unsafe { libc::pthread_rwlock_rdlock(on.at()) }, 0));
    let on = Arc::clone(&units);
    // SAFETY: a semaphore.
    own_named("semaphore", move || assert_eq!(unsafe { libc::sem_wait(on.at()) }, 0));
    let on = Arc::clone(&meeting);
    // SAFETY: a barrier.
    own_named("barrier", move || assert_eq!(unsafe { libc::pthread_barrier_wait(on.at()) }, 0));
    for name in ["runs the routine", "once"] {
        // SAFETY: a control word of C, which is one word.
        own_named(name, || assert_eq!(unsafe { pthread_once(SLOW.as_ptr().cast(), slow_routine) }, 0));
        greenling::yield_now();
    }
    let on = Arc::clone(&std_lock);
    own_named("futex", move || drop(on.lock().unwrap()));
    own_named("join", move || drop(std::thread::spawn(move || stopped.recv()).join()));
    let expected = [
        ("mutex", ForeignKind::Mutex, Some(lock.at().addr())),
        ("condvar", ForeignKind::Condvar, Some(condvar.at().addr())),
        ("rwlock", ForeignKind::RwLock, Some(table.at().addr())),
        ("semaphore", ForeignKind::Semaphore, Some(units.at().addr())),
        // Each round of a barrier is something of its own.
        ("barrier", ForeignKind::Barrier, None),
        ("once", ForeignKind::Once, Some(SLOW.as_ptr().addr())),
        ("futex", ForeignKind::Futex, None),
    ];
    for (name, wanted, at) in expected {
        let WaitReason::Foreign { kind, address, .. } = reason_of(name) else { panic!("{name}: {}", threads()) };
        assert_eq!(kind, wanted, "{name}");
        // A lock may be waited for by any of its words.
        assert!(at.is_none_or(|at| (at..at + 64).contains(&address)), "{name}");
    }
    let WaitReason::OsThread(tid) = reason_of("join") else { panic!("{}", threads()) };
    assert!(std::path::Path::new(&format!("/proc/self/task/{tid}")).exists());
    // All go on.
    drop((held, stop));
    HELD.store(0, Ordering::Relaxed);
    // SAFETY: each lock, as its functions want it.
    unsafe {
        libc::pthread_mutex_unlock(lock.at());
        libc::pthread_cond_broadcast(condvar.at());
        libc::pthread_rwlock_unlock(table.at());
        libc::sem_post(units.at());
        assert_eq!(libc::pthread_barrier_wait(meeting.at()), libc::PTHREAD_BARRIER_SERIAL_THREAD);
    }
    while greenling::hub::live_threads() > 0 {
        greenling::sleep(Duration::from_micros(200));
    }
}
