//! A pool for each process: the child of a fork has a copy of its parent's pool, but none of the pool's OS threads.
//!
//! ```text
//!   PerProcess (static)        next                    next
//!   [pool of the parent] ----------> [of the child] --------> [of the grandchild]
//! ```
//!
//! A copy may have been locked at the moment of the fork, by an OS thread that is not there any more, and counts threads
//! that are not there. So it is never touched again: the child walks past it, without a lock, and makes a pool of its own.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use super::pool::ThreadPool;

/// See the file.
pub(crate) struct PerProcess {
    /// The pool, of this process or of one that it was forked from.
    pool: OnceLock<ThreadPool>,
    /// That of a child.
    next: OnceLock<Box<PerProcess>>,
}

impl PerProcess {
    /// No pool yet.
    pub(crate) const fn new() -> PerProcess {
        PerProcess { pool: OnceLock::new(), next: OnceLock::new() }
    }

    /// The pool of this process, made by `make` if there is none.
    pub(crate) fn get(&'static self, make: fn() -> ThreadPool) -> &'static ThreadPool {
        let mut place = self;
        loop {
            let pool = place.pool.get_or_init(make);
            if pool.is_of_this_process() {
                return pool;
            }
            place = place.next.get_or_init(|| Box::new(PerProcess::new()));
        }
    }

    /// Makes `pool` the one of this process, unless there is one.
    ///
    /// # Errors
    /// With `pool`, if there is one.
    pub(crate) fn set(&'static self, pool: ThreadPool) -> Result<(), ThreadPool> {
        let mut place = self;
        while place.pool.get().is_some_and(|earlier| !earlier.is_of_this_process()) {
            place = place.next.get_or_init(|| Box::new(PerProcess::new()));
        }
        place.pool.set(pool)
    }
}
