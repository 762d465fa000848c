//! A semaphore between threads of any hub: a number of permits, for which threads wait if none is free.
//!
//! The free permits are the units of `pure::turns`. The number of all permits, free or held, is counted beside them,
//! for the bound.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem::forget;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::raw::{Grant, RawLock, Request, Waited, refused};
use crate::pure::turns::MOST;
use crate::runtime::checkpoint::{checkpoint, checkpoint_if};
use crate::switch::fiber::Reason;
use crate::sync::ReleaseError;
use crate::sys::clock::{NEVER, after};

/// The name of a wait, in reports and panics.
const PERMIT: &str = "a permit of a shared Semaphore";

/// A counting semaphore for green threads of any hub and for plain OS threads: can stand in a `static`. First come,
/// first served.
///
/// ```
/// use greenling::hub::sync::Semaphore;
///
/// static TWO_AT_A_TIME: Semaphore = Semaphore::new(2);
///
/// let work = || {
///     let _permit = TWO_AT_A_TIME.acquire();
///     greenling::sleep(std::time::Duration::from_micros(10));
/// };
/// let os_threads: Vec<_> = (0..4).map(|_| std::thread::spawn(work)).collect();
/// os_threads.into_iter().for_each(|thread| thread.join().unwrap());
/// assert_eq!(TWO_AT_A_TIME.available_permits(), 2);
/// ```
pub struct Semaphore {
    /// The lock: a unit for each free permit.
    raw: RawLock,
    /// The number of permits, free or held by a guard: the initial ones, plus those released since, less those
    /// forgotten.
    total: AtomicUsize,
    /// The most permits that there may be.
    bound: usize,
}

impl Semaphore {
    /// The most permits that a semaphore may have.
    pub const MAX_PERMITS: usize = MOST;

    /// Creates a semaphore with `permits` permits, to which any number may be added, up to
    /// [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Panics
    /// If there are more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// May switch: no.
    pub const fn new(permits: usize) -> Semaphore {
        assert!(permits <= MOST, "a Semaphore has at most MAX_PERMITS permits");
        Semaphore { raw: RawLock::new(Grant::Units, permits), total: AtomicUsize::new(permits), bound: MOST }
    }

    /// Creates a semaphore with `permits` permits that will never have more: one [`release`](Self::release) too many is
    /// an error.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    ///
    /// May switch: no.
    pub const fn bounded(permits: usize) -> Semaphore {
        let mut semaphore = Semaphore::new(permits);
        semaphore.bound = permits;
        semaphore
    }

    /// Takes a permit, and waits for one without a time limit. The permit comes back when the returned guard is
    /// dropped.
    ///
    /// # Panics
    /// If the call would have to wait while the caller, a thread of a hub, unwinds from a panic or kill. Unwinds with a
    /// kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in the child
    /// of a fork.
    ///
    /// May switch: yes, if no permit is free.
    #[inline]
    pub fn acquire(&self) -> SemaphorePermit<'_> {
        checkpoint_if(|| self.available_permits() > 0);
        // Take a free permit, or wait for one.
        if !self.raw.core().turns.take(1)
            && let Waited::Refused(refusal) = self.wait(NEVER)
        {
            refused(&refusal, &PERMIT);
        }
        SemaphorePermit { semaphore: self }
    }

    /// Takes a permit if one is free.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline]
    pub fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        checkpoint();
        self.raw.core().turns.take(1).then(|| SemaphorePermit { semaphore: self })
    }

    /// [`acquire`](Self::acquire), but waits no longer than `limit`. A caller that is a thread of a hub and unwinds
    /// does not wait at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if no permit is free.
    pub fn acquire_timeout(&self, limit: Duration) -> Option<SemaphorePermit<'_>> {
        checkpoint_if(|| self.available_permits() > 0);
        let got = self.raw.core().turns.take(1) || self.wait(after(limit)).is_chosen();
        got.then(|| SemaphorePermit { semaphore: self })
    }

    /// Adds a permit, or brings back one with a [forgotten](SemaphorePermit::forget) guard.
    ///
    /// # Errors
    /// If there would be more than the bound.
    ///
    /// May switch: no.
    pub fn release(&self) -> Result<(), ReleaseError> {
        let one_more = |total| (total < self.bound).then_some(total + 1);
        // Relaxed: the count only says how many permits there are; no other memory depends on it.
        match self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => {
                // The permit goes to the first waiter, if there is one.
                self.raw.core().give(1);
                Ok(())
            }
            Err(_) => Err(ReleaseError::new()),
        }
    }

    /// Returns the number of permits that are free now.
    ///
    /// May switch: no.
    pub fn available_permits(&self) -> usize {
        self.raw.existing().map_or(self.raw.units(), |core| core.turns.free())
    }

    /// Waits in the queue until `deadline`.
    #[cold]
    #[inline(never)]
    fn wait(&self, deadline: u64) -> Waited {
        self.raw.core().wait(Request { wants: 1, reason: Reason::Remote(PERMIT), deadline }, || true, || {})
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("free", &self.available_permits()).finish_non_exhaustive()
    }
}

/// A permit of a [`Semaphore`]; comes back when dropped. Unlike a lock's guard the permit may go to another thread.
#[derive(Debug)]
#[must_use = "if unused the permit comes back immediately"]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
}

impl SemaphorePermit<'_> {
    /// Keeps the permit; [`Semaphore::release`] brings it back.
    ///
    /// May switch: no.
    pub fn forget(self) {
        // Relaxed: as in `release`.
        self.semaphore.total.fetch_sub(1, Ordering::Relaxed);
        forget(self);
    }
}

impl Drop for SemaphorePermit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.raw.core().give(1);
    }
}
