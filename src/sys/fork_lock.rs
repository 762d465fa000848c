//! A lock that the child of a fork never finds held: the child begins with a lock and a value of its own.
//!
//! A lock that another OS thread holds while one forks is held for ever in the child, which has no such OS thread, and
//! what the lock protects may be half changed. Handlers that take the lock before a fork would have to come before the
//! locks of every allocator, and which were registered later is not known. So each process has its own:
//!
//! ```text
//!   ForkLock --> OfProcess { generation 0, Mutex<T> }    the parent's; in the child a copy, which nothing touches
//!          `---> OfProcess { generation 1, Mutex<T> }    in the child from its first call of `lock` on
//! ```
//!
//! Invariant fork-lock-1: `current` is null or a box that was leaked, and is never freed. Upheld by [`ForkLock::lock`].
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::fork::fork_generation;
use crate::pure::lock::lock;

/// A lock that begins anew, with `T::default()`, in every child of a process that called
/// [`watch_forks`](super::fork::watch_forks). No holder panics, suspends or runs foreign code (lock-1).
pub(crate) struct ForkLock<T: Send> {
    /// The lock of this process, or of one that it is a copy of.
    current: AtomicPtr<OfProcess<T>>,
}

/// The lock of one process.
struct OfProcess<T> {
    /// The process, as a count of forks.
    generation: u32,
    /// What holders of the lock may touch.
    value: Mutex<T>,
}

impl<T: Send + Default> ForkLock<T> {
    /// Makes a lock without a value: the first call of [`ForkLock::lock`] makes one.
    pub(crate) const fn new() -> ForkLock<T> {
        ForkLock { current: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Locks the value of this process.
    pub(crate) fn lock(&'static self) -> MutexGuard<'static, T> {
        let generation = fork_generation();
        // Acquire: pairs with the Release of the exchange, so what is behind the pointer is visible.
        let known = self.current.load(Ordering::Acquire);
        // SAFETY: Invariant fork-lock-1.
        let of = unsafe { known.as_ref() }.filter(|of| of.generation == generation);
        lock(&of.unwrap_or_else(|| self.replace(known, generation)).value)
    }

    /// Puts a new lock into the place of `known`, unless another OS thread has done so; returns the one that is there.
    #[cold]
    fn replace(&'static self, known: *mut OfProcess<T>, generation: u32) -> &'static OfProcess<T> {
        // The one of the parent stays where it is: its destructor would run on what may be half changed.
        let mine = Box::into_raw(Box::new(OfProcess { generation, value: Mutex::default() }));
        // Release: pairs with the Acquire of `lock`. Acquire: with the Release of another OS thread's exchange.
        let there = match self.current.compare_exchange(known, mine, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => mine,
            Err(there) => {
                // SAFETY: made above, and no other thread has seen it.
                drop(unsafe { Box::from_raw(mine) });
                there
            }
        };
        // SAFETY: Invariant fork-lock-1. Only OS threads of this process exchange, so it is the lock of this one.
        unsafe { &*there }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fork::watch_forks;
    use super::super::testing::in_fork;
    use super::*;

    #[test]
    fn a_child_has_a_lock_of_its_own_even_if_the_parents_is_held_and_so_has_its_child() {
        static LOCK: ForkLock<Vec<u32>> = ForkLock::new();
        watch_forks().unwrap();
        let mut held = LOCK.lock();
        held.push(1);
        // A child that waits for the lock is killed, and has no exit code.
        let fork = |body: &dyn Fn() -> i32| {
            in_fork(|| {
                // SAFETY: alarm takes an integer, and is async-signal-safe (alarm(2)).
                unsafe { libc::alarm(20) };
                body()
            })
        };
        let grandchild = || {
            let began_empty = LOCK.lock().is_empty();
            LOCK.lock().push(3);
            i32::from(began_empty && LOCK.lock().len() == 1)
        };
        let child = fork(&|| {
            let mut own = LOCK.lock();
            own.extend([2, 2]);
            let below = fork(&grandchild).code();
            i32::from(below == Some(1)) + i32::try_from(own.len()).unwrap_or(-1)
        });
        assert_eq!(child.code(), Some(3));
        held.push(1);
        drop(held);
        assert_eq!(*LOCK.lock(), [1, 1]);
    }

    #[test]
    fn threads_that_come_first_at_once_get_one_value() {
        static LOCK: ForkLock<u32> = ForkLock::new();
        let go = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    go.wait();
                    *LOCK.lock() += 1;
                });
            }
        });
        assert_eq!(*LOCK.lock(), 8);
    }
}
