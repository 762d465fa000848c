//! A lock that ignores poison, and values that are made once; neither lets other green threads run.
//!
//! Invariant lock-1: no holder of a mutex that is locked here panics, suspends or runs foreign code meanwhile. So
//! there is no poison to report, and the lock is held for a few instructions. Upheld by each caller.
//!
//! With the feature `monkey`, a wait for a lock of `std` may be one of the program's that lets others run. The waits
//! here must not: their callers rely on nothing else running meanwhile. So a caller that has to wait says so.

#![forbid(unsafe_code)]

#[cfg(feature = "monkey")]
use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

#[cfg(feature = "monkey")]
thread_local! {
    /// Whether this OS thread waits for a lock here. Has no destructor.
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Locks `mutex`. All holders of the mutex keep lock-1.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => wait(mutex),
    }
}

/// Locks a mutex of loom.
#[cfg(all(test, loom))]
pub(crate) fn lock_model<T>(mutex: &loom::sync::Mutex<T>) -> loom::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what [`lock`] does when another thread holds the lock.
#[cold]
#[inline(never)]
fn wait<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let _sign = Sign::set();
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the value of `cell`. If there is none, `make` makes it, and other threads that ask meanwhile wait; none of
/// these waits lets others run, those of `make` neither.
#[inline]
pub(crate) fn get_or_init<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(value) => value,
        None => init(cell, make),
    }
}

/// Does what [`get_or_init`] does before there is a value.
#[cold]
#[inline(never)]
fn init<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    let _sign = Sign::set();
    cell.get_or_init(make)
}

/// The sign that this OS thread waits for a lock here. Dropping it restores what was before.
struct Sign {
    /// Whether there was a sign already.
    #[cfg(feature = "monkey")]
    before: bool,
}

impl Sign {
    /// Says that this OS thread waits for a lock here, from now on.
    fn set() -> Sign {
        Sign {
            #[cfg(feature = "monkey")]
            before: WAITS.replace(true),
        }
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        #[cfg(feature = "monkey")]
        WAITS.set(self.before);
    }
}

/// Reports whether the caller is a lock of `std` that waits on behalf of [`lock`].
#[cfg(feature = "monkey")]
#[inline]
pub(crate) fn is_waiting() -> bool {
    WAITS.get()
}

#[cfg(all(test, feature = "monkey"))]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_lock_is_waited_for_under_a_sign_of_this_thread_alone() {
        let mutex = Mutex::new(0);
        let held = lock(&mutex);
        let (send, receive) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                *wait(&mutex) += 1;
                send.send(is_waiting()).unwrap();
            });
            assert!(!is_waiting());
            drop(held);
        });
        assert_eq!((receive.recv(), *lock(&mutex)), (Ok(false), 1));
    }

    #[test]
    fn a_value_is_made_once_under_the_same_sign() {
        let cell = OnceLock::new();
        assert!(*get_or_init(&cell, is_waiting) && !is_waiting());
        assert!(*get_or_init(&cell, || unreachable!("made already")));
        let unwinds = || {
            get_or_init(&OnceLock::new(), || std::panic::resume_unwind(Box::new(1)));
        };
        assert!(std::panic::catch_unwind(unwinds).is_err());
        assert!(!is_waiting());
    }
}
