//! One job: what the caller and the OS thread share.
//!
//! ```text
//!              start                 finish                  take
//!   WAITING ----------> RUNNING ---------------> DONE ----------------> OVER   the caller has the result
//!      |                   |                       |
//!      | leave             | leave                 | leave
//!      v                   v                       v
//!    OVER                 OVER                    OVER
//!   closure dropped      result dropped          result dropped
//!   by the caller        by the OS thread        by the caller
//! ```
//!
//! A caller that is suspended when its hub ends never leaves. The OS thread sees that the caller is gone, and drops
//! the closure or the result instead.
//!
//! * Invariant job-1: closure and result are moved in and out under the lock, but run and dropped outside of it, since
//!   they are foreign code. Upheld by every function here.
//! * Invariant job-2: the caller is woken after DONE is there, so a caller that checks and then parks misses nothing:
//!   a remote op that comes before the park waits in the inbox.
#![forbid(unsafe_code)]

use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;

use crate::pure::lock::lock;
use crate::runtime::remote::Waiter;
use crate::switch::fiber::drop_quietly;

/// A job, as the OS threads of a pool see it.
pub(super) trait Job: Send + Sync {
    /// Runs the job. The OS thread has taken the job out of the queue, so this is called once.
    fn run(&self) -> JobEnd;

    /// Wakes the job's caller, once the pool has counted the job.
    fn wake(&self);
}

/// How a job ended that was taken out of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// The caller gave up just before the job began.
    NotBegun,
    /// The job is done, and the caller gets the result.
    Done {
        /// The result is a panic.
        panicked: bool,
    },
    /// The caller gave up while the job ran, or the caller's hub has ended.
    Abandoned {
        /// The job ended with a panic.
        panicked: bool,
        /// The caller has [left](Task::leave) the job. The end of a hub makes no caller leave.
        left: bool,
    },
}

/// A job of a caller that waits.
pub(super) struct Task<F, T> {
    /// The progress of the job.
    state: Mutex<JobState<F, T>>,
    /// The caller, as other OS threads may wake it.
    waiter: Waiter,
}

/// The progress of a job: the states of the picture above.
enum JobState<F, T> {
    /// The job has not begun; the closure.
    Waiting(F),
    /// The job runs on an OS thread.
    Running,
    /// The job is done; the result, or the payload of a panic.
    Done(thread::Result<T>),
    /// The result was taken, or the caller has given up.
    Over,
}

/// What a caller leaves behind that gives up.
pub(super) struct Left<F, T>(JobState<F, T>);

impl<F, T> Left<F, T> {
    /// Reports whether an OS thread runs the job, and the result will not be taken.
    pub(super) fn runs(&self) -> bool {
        matches!(self.0, JobState::Running)
    }
}

impl<F, T> Task<F, T> {
    /// Makes a job that has not begun.
    pub(super) fn new(f: F, waiter: Waiter) -> Task<F, T> {
        Task { state: Mutex::new(JobState::Waiting(f)), waiter }
    }

    /// Takes the result, once the result is there. For the caller.
    pub(super) fn take(&self) -> Option<thread::Result<T>> {
        let mut state = lock(&self.state);
        match replace(&mut *state, JobState::Over) {
            JobState::Done(result) => Some(result),
            // Not done yet: put the state back.
            other => {
                *state = other;
                None
            }
        }
    }

    /// Takes the closure back, of a job that no pool has taken. For the caller.
    pub(super) fn take_back(&self) -> Option<F> {
        match replace(&mut *lock(&self.state), JobState::Over) {
            JobState::Waiting(f) => Some(f),
            _ => None,
        }
    }

    /// Gives the job up, for the caller. Returns what was there, to be dropped where no lock is held (job-1).
    pub(super) fn leave(&self) -> Left<F, T> {
        Left(replace(&mut *lock(&self.state), JobState::Over))
    }
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&self) -> JobEnd {
        // Begin, unless the caller has given up or the caller's hub has ended.
        let mut state = lock(&self.state);
        let f = match replace(&mut *state, JobState::Running) {
            JobState::Waiting(f) => f,
            other => {
                *state = other;
                return JobEnd::NotBegun;
            }
        };
        if self.waiter.is_gone() {
            *state = JobState::Over;
            drop(state);
            drop_quietly(f);
            return JobEnd::NotBegun;
        }
        // Run the closure without the lock (job-1).
        drop(state);
        let result = catch_unwind(AssertUnwindSafe(f));
        let panicked = result.is_err();
        // Leave the result, if there still is a caller to take it.
        let mut state = lock(&self.state);
        if matches!(*state, JobState::Running) && !self.waiter.is_gone() {
            *state = JobState::Done(result);
            JobEnd::Done { panicked }
        } else {
            let left = matches!(*state, JobState::Over);
            *state = JobState::Over;
            drop(state);
            drop_quietly(result);
            JobEnd::Abandoned { panicked, left }
        }
    }

    fn wake(&self) {
        self.waiter.wake();
    }
}
