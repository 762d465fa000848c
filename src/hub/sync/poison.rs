//! Poisoning as in std, for locks of several OS threads: a panic of a holder poisons, a kill or an expired `timeout`
//! does not.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LockResult, PoisonError};

use crate::switch::cancel;

/// A flag that is set when a holder panicked. Only a thread that has the lock changes the flag, and the lock orders the
/// accesses: all of them are Relaxed.
#[derive(Debug)]
pub(super) struct Poison(AtomicBool);

/// What a guard remembers for [`Poison::leave`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PanicMark {
    /// Set if the thread was unwinding already when it took the lock.
    unwinding: bool,
}

impl Poison {
    /// Creates a flag that is not set.
    pub(super) const fn new() -> Poison {
        Poison(AtomicBool::new(false))
    }

    /// Reports whether a holder panicked.
    #[inline]
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Clears the flag, after the value was repaired.
    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Returns what the guard of a new holder must remember.
    #[inline]
    pub(super) fn enter(&self) -> PanicMark {
        PanicMark { unwinding: std::thread::panicking() }
    }

    /// Sets the flag if the holder, which is about to release the lock, has panicked since [`enter`](Self::enter).
    #[inline]
    pub(super) fn leave(&self, mark: PanicMark) {
        // A holder that was unwinding before did not panic under the lock.
        if !mark.unwinding && std::thread::panicking() {
            self.leave_unwinding();
        }
    }

    /// [`leave`](Self::leave) in a destructor that runs because of a panic or a kill.
    #[cold]
    fn leave_unwinding(&self) {
        // A kill or a timeout poisons nothing.
        if !cancel::unwinds_quietly() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Returns `value` as std's locks return theirs: as an error if the flag is set.
    #[inline]
    pub(super) fn wrap<T>(&self, value: T) -> LockResult<T> {
        if self.get() { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}
