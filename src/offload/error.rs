//! [`RunError`]: why a pool of OS threads did not take a job.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use crate::runtime::hub::ending;

/// Why a pool did not take a job.
#[derive(Debug)]
pub struct RunError {
    pub(super) kind: RunErrorKind,
}

/// The reasons for a [`RunError`].
#[derive(Debug)]
pub(super) enum RunErrorKind {
    /// As many jobs wait as may.
    Full,
    /// No OS thread could be started, and there is none.
    NoThread(io::Error),
    /// The caller cannot wait.
    Refused(io::Error),
    /// The caller's OS thread is ending: a blocking call would hold up no green thread.
    Ending,
}

impl RunError {
    /// Reports whether [`ThreadPool::try_run`](super::ThreadPool::try_run) found as many jobs waiting as may wait.
    ///
    /// May switch: no.
    pub fn is_full(&self) -> bool {
        matches!(self.kind, RunErrorKind::Full)
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            RunErrorKind::Full => f.write_str("the queue of the pool is full"),
            RunErrorKind::NoThread(error) => write!(f, "no OS thread could be started: {error}"),
            RunErrorKind::Refused(error) => error.fmt(f),
            RunErrorKind::Ending => ending().fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

impl From<RunError> for io::Error {
    fn from(error: RunError) -> io::Error {
        // An error of the kernel is passed on as it is.
        match error.kind {
            RunErrorKind::Full => io::Error::new(io::ErrorKind::WouldBlock, error),
            RunErrorKind::NoThread(error) | RunErrorKind::Refused(error) => error,
            RunErrorKind::Ending => ending(),
        }
    }
}
