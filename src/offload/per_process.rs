//! A pool for each process: the child of a fork has a copy of the parent's pool, but none of the OS threads.
//!
//! ```text
//!   PerProcess (static)        next                    next
//!   [pool of the parent] ----------> [of the child] --------> [of the grandchild]
//! ```
//!
//! A copy may have been locked at the moment of the fork, by an OS thread that does not exist any more, and counts OS
//! threads that do not exist. So a copy is never touched again: the child walks past it, without a lock, and makes a
//! new pool.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use super::pool::ThreadPool;
use crate::pure::lock::get_or_init;

/// A chain of pools, one for each process.
pub(crate) struct PerProcess {
    /// The pool, of this process or of an ancestor.
    pool: OnceLock<ThreadPool>,
    /// The link of a child.
    next: OnceLock<Box<PerProcess>>,
}

impl PerProcess {
    /// Makes a chain without a pool.
    pub(crate) const fn new() -> PerProcess {
        PerProcess { pool: OnceLock::new(), next: OnceLock::new() }
    }

    /// Returns the pool of this process, made by `make` if there is none.
    pub(crate) fn get(&'static self, make: fn() -> ThreadPool) -> &'static ThreadPool {
        // Walk past the pools of the processes that this one was forked from.
        let mut place = self;
        loop {
            let pool = get_or_init(&place.pool, make);
            if pool.is_of_this_process() {
                return pool;
            }
            place = &**get_or_init(&place.next, || Box::new(PerProcess::new()));
        }
    }

    /// Makes `pool` the pool of this process, unless there is one.
    ///
    /// # Errors
    /// With `pool`, if there is one.
    pub(crate) fn set(&'static self, pool: ThreadPool) -> Result<(), ThreadPool> {
        let mut place = self;
        while place.pool.get().is_some_and(|earlier| !earlier.is_of_this_process()) {
            place = &**get_or_init(&place.next, || Box::new(PerProcess::new()));
        }
        place.pool.set(pool)
    }
}
