//! The errors of a switch and of a change of parent.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

/// The error of [`Greenlet::try_switch`](crate::Greenlet::try_switch). The value comes back with the error, so nothing
/// is lost.
pub struct SwitchError<M> {
    /// The value that was to be passed.
    pub value: M,
    /// The reason of the error.
    pub kind: SwitchErrorKind,
}

/// The reasons of a [`SwitchError`].
#[derive(Debug)]
#[non_exhaustive]
pub enum SwitchErrorKind {
    /// The target had not started, and there was no memory for a stack. The switch can be tried again.
    NoStack(io::Error),
    /// The target is blocked in the hub (a `sleep`, a socket, a join); only the hub may resume it.
    Blocked,
    /// The target (main or a green thread) waits in a switch of another family, with another message type.
    OtherFamily,
    /// No ancestor is left that could take the value.
    NoReceiver,
    /// The caller is unwinding, and may not wait.
    Unwinding,
    /// The OS thread is ending.
    ThreadEnding,
}

impl fmt::Display for SwitchErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwitchErrorKind::NoStack(error) => write!(f, "no stack for the greenlet: {error}"),
            SwitchErrorKind::Blocked => f.write_str(
                "the greenlet is blocked in the hub; only a greenlet that waits in a switch can be switched to",
            ),
            SwitchErrorKind::OtherFamily => {
                f.write_str("the target waits in a switch of another family: its messages are of another type")
            }
            SwitchErrorKind::NoReceiver => f.write_str("neither the greenlet nor any of its ancestors is alive"),
            SwitchErrorKind::Unwinding => {
                f.write_str("a thread that is unwinding from a panic or kill cannot switch to a greenlet")
            }
            SwitchErrorKind::ThreadEnding => f.write_str("this OS thread is ending; nothing can switch any more"),
        }
    }
}

impl<M> fmt::Display for SwitchError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<M> fmt::Debug for SwitchError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwitchError").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<M> std::error::Error for SwitchError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            SwitchErrorKind::NoStack(error) => Some(error),
            _ => None,
        }
    }
}

/// Returns the error of the kernel, if there was no memory for a stack; the value is dropped.
impl<M> From<SwitchError<M>> for io::Error {
    fn from(error: SwitchError<M>) -> io::Error {
        match error.kind {
            SwitchErrorKind::NoStack(error) => error,
            kind => io::Error::other(kind.to_string()),
        }
    }
}

/// The error of [`Greenlet::set_parent`](crate::Greenlet::set_parent).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParentError {
    /// The new parent is the greenlet itself or one of its descendants (C15).
    Cycle,
    /// The greenlet is main or another guest, which has no parent and cannot get one (C14).
    Guest,
}

impl fmt::Display for ParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParentError::Cycle => "a greenlet cannot be its own ancestor",
            ParentError::Guest => "main and green threads have no parent",
        })
    }
}

impl std::error::Error for ParentError {}

/// Returns an error of kind `InvalidInput`.
impl From<ParentError> for io::Error {
    fn from(error: ParentError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Panics for a call that has no error to return.
#[cold]
#[inline(never)]
#[track_caller]
pub(super) fn fail(kind: &SwitchErrorKind) -> ! {
    panic!("greenling: {kind}")
}
