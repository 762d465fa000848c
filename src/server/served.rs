//! What a handler may return, and how the server counts it.
#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use self::sealed::{Outcome, Sealed};
use crate::interrupt::timeout;

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandlerResult {
    /// The handler returned without an error.
    Completed,
    /// The handler returned an error.
    Failed,
    /// A time limit of the server was reached.
    TimedOut,
}

/// The result of a handler: nothing, or an `io::Result`, of which errors are counted.
///
/// An error of kind `WouldBlock` counts as one of the idle time limit, if there is such a limit.
///
/// The trait cannot be implemented for other types.
pub trait Served: sealed::Sealed {}

/// Keeps the method of [`Served`] private to this crate.
pub(super) mod sealed {
    /// The method of [`Served`](super::Served), out of the reach of other crates.
    pub trait Sealed {
        /// Returns how the handler ended; `limited` says whether there is an idle time limit.
        fn outcome(self, limited: bool) -> Outcome;
    }

    /// A [`HandlerResult`](super::HandlerResult), as a type that the public trait may name.
    #[derive(Debug)]
    pub struct Outcome(pub(in crate::server) super::HandlerResult);
}

impl Served for () {}

impl Sealed for () {
    fn outcome(self, _limited: bool) -> Outcome {
        Outcome(HandlerResult::Completed)
    }
}

impl<T> Served for io::Result<T> {}

impl<T> Sealed for io::Result<T> {
    fn outcome(self, limited: bool) -> Outcome {
        Outcome(match self {
            Ok(_) => HandlerResult::Completed,
            Err(error) if limited && error.kind() == io::ErrorKind::WouldBlock => HandlerResult::TimedOut,
            Err(_) => HandlerResult::Failed,
        })
    }
}

/// Returns how a handler that returned `value` ended; `limited` says whether there is an idle time limit.
#[inline]
pub(super) fn outcome_of(value: impl Served, limited: bool) -> HandlerResult {
    value.outcome(limited).0
}

/// Runs a handler, for `total` at most.
#[inline]
pub(super) fn served_within(total: Option<Duration>, serve: impl FnOnce() -> HandlerResult) -> HandlerResult {
    match total {
        None => serve(),
        // An error other than `Elapsed` says that nothing can be interrupted here.
        Some(total) => timeout(total, serve).unwrap_or(HandlerResult::TimedOut),
    }
}
