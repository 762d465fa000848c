//! A flag in the frame of an OS thread that sleeps until another thread raises it.
//!
//! ```text
//!   the sleeper's frame:  Flag <--------- Raise, in a list that other threads read
//!     sleep, until raised or a deadline     raise: 1. store 1 (the last access to the frame)   2. wake the address
//! ```
//!
//! Nothing is allocated: the caller may be an allocator that waits for a lock.
//!
//! Invariant flag-1: the frame of a flag is there until each [`Raise`] of it was used or dropped. A sleeper that knows
//! that its `Raise` was taken waits for the store ([`Flag::join`]). After the store, the raiser has an address only, at
//! which the kernel looks for sleepers; if another one uses it by then, that one wakes up once too often, which futexes
//! do anyhow. Upheld by `monkey/wait.rs`, which joins whenever the table has given the waiter away.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

use super::raw::{
    self, ETIMEDOUT, FUTEX_CLOCK_REALTIME, FUTEX_PRIVATE_FLAG, FUTEX_WAIT_BITSET, SYS_futex, futex_wake, kernel,
};

/// A word that is 0 until the flag is raised.
pub(crate) struct Flag(AtomicU32);

/// The right to raise a flag, once.
pub(crate) struct Raise(*const AtomicU32);

// SAFETY: the flag is an atomic, and is there (Invariant flag-1).
unsafe impl Send for Raise {}

/// Until when a sleep lasts, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Nothing but the raise ends it.
    Raised,
    /// A point of the monotonic clock.
    Monotonic(u64),
    /// A point of the time of day.
    TimeOfDay(u64),
}

impl Flag {
    /// Makes a flag that is not raised.
    pub(crate) const fn new() -> Flag {
        Flag(AtomicU32::new(0))
    }

    /// Returns the right to raise the flag.
    pub(crate) fn raise(&self) -> Raise {
        Raise(&raw const self.0)
    }

    /// Sleeps until the flag is raised, and perhaps a little less. Returns false once the time is over.
    pub(crate) fn sleep(&self, until: Until) -> bool {
        let (nanos, clock) = match until {
            Until::Raised => (None, 0),
            Until::Monotonic(at) => (Some(at), 0),
            Until::TimeOfDay(at) => (Some(at), FUTEX_CLOCK_REALTIME),
        };
        let span = nanos.map(raw::span);
        let at = span.as_ref().map_or(0, |span| std::ptr::from_ref(span).expose_provenance());
        let operation: c_int = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | clock;
        // SAFETY: the word and the span live until the call returns (futex(2)).
        let answer = unsafe { kernel(SYS_futex, [self.address(), operation as usize, 0, at, 0, u32::MAX as usize]) };
        answer != Err(ETIMEDOUT)
    }

    /// Waits for a raise that has begun: its caller is about to store.
    pub(crate) fn join(&self) {
        // Acquire pairs with the Release of `Raise::call`.
        while self.0.load(Ordering::Acquire) == 0 {
            self.sleep(Until::Raised);
        }
    }

    /// Sets a flag that lives as long as the process, and wakes its sleeper. Async-signal-safe.
    pub(crate) fn set(&'static self) {
        // Release pairs with the Acquire of `take`.
        self.0.store(1, Ordering::Release);
        let _ = futex_wake(self.address(), u32::MAX, 1);
    }

    /// Takes the flag back. Returns whether it was set.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(0, Ordering::Acquire) != 0
    }

    /// Sleeps until the flag is set, and perhaps a little less.
    pub(crate) fn sleep_until_set(&self) {
        self.sleep(Until::Raised);
    }

    /// Returns the address of the word, for the kernel.
    fn address(&self) -> usize {
        (&raw const self.0).expose_provenance()
    }
}

impl Raise {
    /// Raises the flag, and wakes the sleeper.
    pub(crate) fn call(self) {
        // SAFETY: Invariant flag-1.
        let flag = unsafe { &*self.0 };
        // Release pairs with the Acquire of `join`. The frame may be gone from here on.
        flag.store(1, Ordering::Release);
        let _ = futex_wake(self.0.addr(), u32::MAX, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::monotonic_ns;

    #[test]
    fn a_sleep_ends_when_the_flag_is_raised_or_the_time_is_over() {
        let flag = Flag::new();
        let raise = flag.raise();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                raise.call();
            });
            while flag.0.load(Ordering::Acquire) == 0 {
                assert!(flag.sleep(Until::Raised));
            }
            flag.join();
        });
        let flag = Flag::new();
        let end = monotonic_ns() + 2_000_000;
        while flag.sleep(Until::Monotonic(end)) {}
        assert!(monotonic_ns() >= end);
        let end = raw::realtime_ns() + 2_000_000;
        while flag.sleep(Until::TimeOfDay(end)) {}
        assert!(raw::realtime_ns() >= end);
    }
}
