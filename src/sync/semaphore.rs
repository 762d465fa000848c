//! A number of permits: who wants one and finds none waits for it.
//!
//! ```text
//!   free = 2   held = 1        somebody releases:  free + 1, or the first in line holds it
//!   free = 0   held = 3   line: A B C
//! ```
//!
//! * Invariant S1: if permits are free, nobody waits.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::mem::forget;
use std::time::Duration;

use super::line::Line;
use crate::runtime::source::after;
use crate::switch::fiber::Reason;

/// What is waited for, in reports and panics.
const PERMIT: &str = "a permit of a Semaphore";

/// A counting semaphore for the green threads of one OS thread. First come, first served.
///
/// ```
/// use std::rc::Rc;
/// use greenling::{spawn, sync::Semaphore, yield_now};
///
/// let two_at_a_time = Rc::new(Semaphore::new(2));
/// let threads: Vec<_> = (0..6)
///     .map(|_| {
///         let limit = Rc::clone(&two_at_a_time);
///         spawn(move || {
///             let _permit = limit.acquire();
///             yield_now();
///         })
///     })
///     .collect();
/// for thread in threads {
///     thread.join().unwrap();
/// }
/// assert_eq!(two_at_a_time.available_permits(), 2);
/// ```
#[derive(Debug)]
pub struct Semaphore {
    /// Permits that nobody has.
    free: Cell<usize>,
    /// Permits that come back when a guard is dropped.
    held: Cell<usize>,
    /// How many there may be.
    bound: usize,
    /// Who waits.
    line: Line,
}

/// Why [`Semaphore::release`] failed: there would be more permits than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseError(());

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a semaphore was released more often than it was acquired")
    }
}

impl Error for ReleaseError {}

impl Semaphore {
    /// One with `permits` permits, to which any number may be added.
    ///
    /// May switch: no.
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore { free: Cell::new(permits), held: Cell::new(0), bound: usize::MAX, line: Line::new() }
    }

    /// One with `permits` permits that will never have more: a [`release`](Self::release) too many is an error.
    ///
    /// May switch: no.
    pub const fn bounded(permits: usize) -> Semaphore {
        Semaphore { bound: permits, ..Semaphore::new(permits) }
    }

    /// Takes a permit, and waits for one as long as it takes. It comes back when the returned guard is dropped.
    ///
    /// # Panics
    /// If it would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if no permit is free.
    #[inline(always)]
    pub fn acquire(&self) -> SemaphorePermit<'_> {
        if !self.take() {
            self.line.wait_or_panic(Reason::Event(PERMIT), || PERMIT, |chosen| self.left(chosen));
        }
        SemaphorePermit { semaphore: self }
    }

    /// Takes a permit if one is free.
    ///
    /// May switch: no.
    #[inline]
    pub fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.take().then(|| SemaphorePermit { semaphore: self })
    }

    /// [`acquire`](Self::acquire), but waits no longer than `limit`. While the caller unwinds it does not wait at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if no permit is free.
    pub fn acquire_timeout(&self, limit: Duration) -> Option<SemaphorePermit<'_>> {
        let waits = || self.line.wait(Reason::Event(PERMIT), after(limit), |chosen| self.left(chosen));
        (self.take() || waits().is_chosen()).then(|| SemaphorePermit { semaphore: self })
    }

    /// Adds a permit, or brings back one whose guard was [forgotten](SemaphorePermit::forget).
    ///
    /// # Errors
    /// If there would be more than the bound.
    ///
    /// May switch: no.
    pub fn release(&self) -> Result<(), ReleaseError> {
        // Permits are never more than `bound`, so the sum cannot overflow.
        if self.free.get() + self.held.get() >= self.bound {
            return Err(ReleaseError(()));
        }
        self.give();
        Ok(())
    }

    /// How many permits are free now.
    ///
    /// May switch: no.
    pub fn available_permits(&self) -> usize {
        self.free.get()
    }

    /// Takes a free permit.
    #[inline(always)]
    fn take(&self) -> bool {
        let free = self.free.get();
        if free > 0 {
            self.free.set(free - 1);
            self.held.set(self.held.get() + 1);
        }
        free > 0
    }

    /// A wait was in vain; `chosen` if it got a permit all the same.
    fn left(&self, chosen: bool) {
        if chosen {
            self.give_back();
        }
    }

    /// Gives a permit to the first in line, or sets it free.
    #[inline(always)]
    fn give(&self) {
        if self.line.is_empty() {
            self.free.set(self.free.get() + 1);
        } else {
            self.line.choose();
            self.held.set(self.held.get() + 1);
        }
    }

    /// A holder gives its permit up.
    #[inline(always)]
    fn give_back(&self) {
        self.held.set(self.held.get() - 1);
        self.give();
    }
}

/// A permit of a [`Semaphore`]; comes back when dropped.
#[derive(Debug)]
#[must_use = "if unused the permit comes back immediately"]
pub struct SemaphorePermit<'a> {
    /// Whose permit it is.
    semaphore: &'a Semaphore,
}

impl SemaphorePermit<'_> {
    /// Keeps the permit; [`Semaphore::release`] brings it back.
    ///
    /// May switch: no.
    pub fn forget(self) {
        self.semaphore.held.set(self.semaphore.held.get() - 1);
        forget(self);
    }
}

impl Drop for SemaphorePermit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.give_back();
    }
}
