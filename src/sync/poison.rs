//! Poisoning as in std: after a panic of its holder, a lock tells the next holder.
//!
//! A kill or an expired `timeout` unwinds like a panic but poisons nothing: it comes from outside, at a blocking call,
//! and says nothing about the holder's own code. `switch::cancel` tells the two apart.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::{LockResult, PoisonError};

use crate::switch::cancel;

/// A flag that is set when a holder panicked.
#[derive(Debug)]
pub(super) struct Poison(Cell<bool>);

/// What a guard remembers for [`Poison::leave`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PanicMark {
    /// Set if the thread was unwinding already when it took the lock.
    unwinding: bool,
}

impl Poison {
    /// Creates a flag that is not set.
    pub(super) const fn new() -> Poison {
        Poison(Cell::new(false))
    }

    /// Reports whether a holder panicked.
    #[inline]
    pub(super) fn get(&self) -> bool {
        self.0.get()
    }

    /// Clears the flag, after the value was repaired.
    pub(super) fn clear(&self) {
        self.0.set(false);
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
            self.0.set(true);
        }
    }

    /// Returns `value` as std's locks return theirs: as an error if the flag is set.
    #[inline]
    pub(super) fn wrap<T>(&self, value: T) -> LockResult<T> {
        if self.0.get() { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}
