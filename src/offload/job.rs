//! One job: what its caller and the OS thread that does it share.
//!
//! ```text
//!              start                 finish                  take
//!   WAITING ----------> RUNNING ---------------> DONE ----------------> OVER   the caller has the result
//!      |                   |                       |
//!      | give_up           | give_up               | give_up
//!      v                   v                       v
//!    OVER                 OVER                    OVER
//!   closure dropped      result dropped          result dropped
//!   by the caller        by the OS thread        by the caller
//! ```
//!
//! * Invariant J1: closure and result are moved in and out under the lock, but run and dropped outside of it, since they
//!   are foreign code. Upheld by every function here.
//! * Invariant J2: the caller is woken after DONE is there, so one that looks before it parks misses nothing: a letter that
//!   comes before the park waits in the inbox.
#![forbid(unsafe_code)]

use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;

use crate::runtime::remote::{Waiter, lock};
use crate::switch::fiber::drop_quietly;

/// What a pool's threads see of a job.
pub(super) trait Job: Send + Sync {
    /// Does it. The caller has taken it out of the queue, so this happens once.
    fn run(&self) -> Ended;

    /// Lets the job's caller look, once the pool has counted the job.
    fn wake(&self);
}

/// How a job ended that was taken out of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The caller gave up just before it was begun.
    NotBegun,
    /// The caller has its result.
    Done {
        /// With a panic.
        panicked: bool,
    },
    /// The caller gave up while it ran.
    Abandoned {
        /// With a panic.
        panicked: bool,
    },
}

/// A job of a caller that waits.
pub(super) struct Task<F, T> {
    /// See the file's picture.
    stage: Mutex<Stage<F, T>>,
    /// Who waits.
    waiter: Waiter,
}

/// See the file's picture.
enum Stage<F, T> {
    /// Not begun.
    Waiting(F),
    /// On an OS thread.
    Running,
    /// The result, or the payload of a panic.
    Done(thread::Result<T>),
    /// The result was taken, or nobody wants it.
    Over,
}

impl<F, T> Task<F, T> {
    /// A job that nobody has begun.
    pub(super) fn new(f: F, waiter: Waiter) -> Task<F, T> {
        Task { stage: Mutex::new(Stage::Waiting(f)), waiter }
    }

    /// Caller: the result, once it is there.
    pub(super) fn take(&self) -> Option<thread::Result<T>> {
        let mut stage = lock(&self.stage);
        match replace(&mut *stage, Stage::Over) {
            Stage::Done(result) => Some(result),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Caller: the closure back, of a job that no pool has taken.
    pub(super) fn take_back(&self) -> Option<F> {
        match replace(&mut *lock(&self.stage), Stage::Over) {
            Stage::Waiting(f) => Some(f),
            _ => None,
        }
    }

    /// Caller: waits no more. Drops what is there.
    pub(super) fn give_up(&self) {
        let left = replace(&mut *lock(&self.stage), Stage::Over);
        drop_quietly(left);
    }
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&self) -> Ended {
        let mut stage = lock(&self.stage);
        let f = match replace(&mut *stage, Stage::Running) {
            Stage::Waiting(f) => f,
            other => {
                *stage = other;
                return Ended::NotBegun;
            }
        };
        drop(stage);
        let result = catch_unwind(AssertUnwindSafe(f));
        let panicked = result.is_err();
        let mut stage = lock(&self.stage);
        if matches!(*stage, Stage::Running) {
            *stage = Stage::Done(result);
            Ended::Done { panicked }
        } else {
            drop(stage);
            drop_quietly(result);
            Ended::Abandoned { panicked }
        }
    }

    fn wake(&self) {
        self.waiter.wake();
    }
}
