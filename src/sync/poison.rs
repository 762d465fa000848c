//! Poisoning as in std: a lock whose holder panicked says so to the next one.
//!
//! A kill or an expired `timeout` unwinds like a panic but poisons nothing: it comes from outside, at a blocking call, and
//! says nothing about the holder's own code. `switch::cancel` knows the two apart.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::{LockResult, PoisonError};

use crate::switch::cancel;

/// Whether a holder panicked.
#[derive(Debug)]
pub(super) struct Poison(Cell<bool>);

/// What a guard remembers: whether the thread was unwinding already when it took the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// See above.
    unwinding: bool,
}

impl Poison {
    /// Nobody did.
    pub(super) const fn new() -> Poison {
        Poison(Cell::new(false))
    }

    /// Whether somebody did.
    #[inline]
    pub(super) fn get(&self) -> bool {
        self.0.get()
    }

    /// Forgets it.
    pub(super) fn clear(&self) {
        self.0.set(false);
    }

    /// The lock was taken.
    #[inline]
    pub(super) fn enter(&self) -> Entry {
        Entry { unwinding: std::thread::panicking() }
    }

    /// The lock is about to be released.
    #[inline]
    pub(super) fn leave(&self, entry: Entry) {
        if !entry.unwinding && std::thread::panicking() {
            self.leave_unwinding();
        }
    }

    /// `leave` in a destructor that runs because of a panic or a kill.
    #[cold]
    fn leave_unwinding(&self) {
        if !cancel::unwinds_quietly() {
            self.0.set(true);
        }
    }

    /// `value` in std's words.
    #[inline]
    pub(super) fn wrap<T>(&self, value: T) -> LockResult<T> {
        if self.0.get() { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}
