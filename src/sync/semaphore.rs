//! A semaphore: a number of permits, for which threads wait if none is free.
//!
//! ```text
//!   free = 2   held = 1                  on a release:  free + 1, or the first waiter holds the permit
//!   free = 0   held = 3   queue: A B C
//! ```
//!
//! * Invariant semaphore-1: while permits are free, no thread waits.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::mem::forget;
use std::time::Duration;

use super::wait_queue::WaitQueue;
use crate::runtime::checkpoint::{checkpoint, checkpoint_if};
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::select_source::SelectWait;
use crate::switch::fiber::Reason;
use crate::switch::wait_list::WaitList;
use crate::sys::clock::after;

/// The name of a wait, in reports and panics.
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
#[doc(alias = "BoundedSemaphore")]
#[derive(Debug)]
pub struct Semaphore {
    /// Permits that no thread has.
    free: Cell<usize>,
    /// Permits that come back when a guard is dropped.
    held: Cell<usize>,
    /// The most permits that there may be.
    bound: usize,
    /// The threads that wait for a permit.
    queue: WaitQueue,
}

/// The error of [`Semaphore::release`]: there would be more permits than the bound allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseError(());

impl ReleaseError {
    /// Returns the error, for the semaphore between hubs.
    pub(crate) fn new() -> ReleaseError {
        ReleaseError(())
    }
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a semaphore was released more often than it was acquired")
    }
}

impl Error for ReleaseError {}

impl From<ReleaseError> for io::Error {
    fn from(error: ReleaseError) -> io::Error {
        io::Error::other(error)
    }
}

impl Semaphore {
    /// Returns how many permits come back when a guard is dropped.
    pub(crate) fn permits_out(&self) -> usize {
        self.held.get()
    }

    /// Creates a semaphore with `permits` permits, to which any number may be added.
    ///
    /// May switch: no.
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore { free: Cell::new(permits), held: Cell::new(0), bound: usize::MAX, queue: WaitQueue::new() }
    }

    /// Creates a semaphore with `permits` permits that will never have more: one [`release`](Self::release) too many is
    /// an error.
    ///
    /// May switch: no.
    pub const fn bounded(permits: usize) -> Semaphore {
        Semaphore { bound: permits, ..Semaphore::new(permits) }
    }

    /// Takes a permit, and waits for one without a time limit. The permit comes back when the returned guard is
    /// dropped.
    ///
    /// # Panics
    /// If the call would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if no permit is free.
    #[inline(always)]
    pub fn acquire(&self) -> SemaphorePermit<'_> {
        // A call that goes on gives way first if its share is used up. A call that waits gives way anyway.
        checkpoint_if(|| self.free.get() > 0);
        if !self.take() {
            self.queue.wait_or_panic(Reason::Event(PERMIT), || PERMIT, |chosen| self.abandoned(chosen));
        }
        SemaphorePermit { semaphore: self }
    }

    /// Takes a permit if one is free.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline]
    pub fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        checkpoint();
        self.acquire_if_free()
    }

    /// [`try_acquire`](Self::try_acquire) without letting other threads run first.
    #[inline]
    pub(crate) fn acquire_if_free(&self) -> Option<SemaphorePermit<'_>> {
        self.take().then(|| SemaphorePermit { semaphore: self })
    }

    /// [`acquire`](Self::acquire), but waits no longer than `limit`. While the caller unwinds, the call does not wait
    /// at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if no permit is free.
    pub fn acquire_timeout(&self, limit: Duration) -> Option<SemaphorePermit<'_>> {
        checkpoint_if(|| self.free.get() > 0);
        // Called only if no permit is free.
        let waits = || self.queue.wait(Reason::Event(PERMIT), after(limit), |chosen| self.abandoned(chosen));
        (self.take() || waits().is_chosen()).then(|| SemaphorePermit { semaphore: self })
    }

    /// Adds a permit, or brings back one with a [forgotten](SemaphorePermit::forget) guard.
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

    /// Returns the number of permits that are free now.
    ///
    /// May switch: no.
    pub fn available_permits(&self) -> usize {
        self.free.get()
    }

    /// Takes a free permit, if there is one.
    #[inline(always)]
    fn take(&self) -> bool {
        let free = self.free.get();
        if free > 0 {
            self.free.set(free - 1);
            self.held.set(self.held.get() + 1);
        }
        free > 0
    }

    /// Ends a wait in vain. A waiter that was `chosen` has a permit all the same, and gives it back.
    fn abandoned(&self, chosen: bool) {
        if chosen {
            self.give_back();
        }
    }

    /// Gives a permit to the first waiter, or sets the permit free.
    #[inline(always)]
    fn give(&self) {
        // A waiter gets the permit directly: it never becomes free, so no other thread can take it (semaphore-1).
        if self.queue.is_empty() {
            self.free.set(self.free.get() + 1);
        } else {
            self.queue.choose();
            self.held.set(self.held.get() + 1);
        }
    }

    /// Takes a permit back from its holder.
    #[inline(always)]
    fn give_back(&self) {
        self.held.set(self.held.get() - 1);
        self.give();
    }
}

impl SelectWait for Semaphore {
    type Arm<'s>
        = PermitArm<'s>
    where
        Self: 's;

    fn select_wait(&self) -> PermitArm<'_> {
        PermitArm { semaphore: self }
    }
}

/// A permit of a [`Semaphore`]; comes back when dropped.
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
        // No longer counted, so that `release` may bring the permit back.
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

/// The arm of a `select!` that waits for a permit of a [`Semaphore`].
#[derive(Debug)]
pub struct PermitArm<'a> {
    semaphore: &'a Semaphore,
}

impl<'a> SelectArm for PermitArm<'a> {
    type Output = SemaphorePermit<'a>;

    fn finish(self) -> SemaphorePermit<'a> {
        SemaphorePermit { semaphore: self.semaphore }
    }
}

impl Arm for PermitArm<'_> {
    fn try_select(&self) -> bool {
        self.semaphore.take()
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        Ok(Some(self.semaphore.queue.list()))
    }

    fn accept(&self) {}

    fn unregister(&self, end: ArmEnd) {
        // The arm was given a permit, but the `select!` unwinds.
        if end == ArmEnd::Aborted {
            self.semaphore.give_back();
        }
    }
}
