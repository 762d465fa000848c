//! The error of `send_timeout`, the one error of a channel that std does not have.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;

/// The reason why [`Sender::send_timeout`](super::Sender::send_timeout) did not send, with the value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// No receiver can get the value: all receivers are gone, or the channel was closed.
    Disconnected(T),
}

impl<T> SendTimeoutError<T> {
    /// Returns the value.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(value) | SendTimeoutError::Disconnected(value) => value,
        }
    }
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "Timeout(..)",
            SendTimeoutError::Disconnected(_) => "Disconnected(..)",
        })
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "timed out waiting for room in a channel",
            SendTimeoutError::Disconnected(_) => "sending on a closed channel",
        })
    }
}

impl<T> Error for SendTimeoutError<T> {}

/// `TimedOut` or `BrokenPipe`. The value is dropped.
impl<T> From<SendTimeoutError<T>> for io::Error {
    fn from(error: SendTimeoutError<T>) -> io::Error {
        let kind = match error {
            SendTimeoutError::Timeout(_) => io::ErrorKind::TimedOut,
            SendTimeoutError::Disconnected(_) => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error.to_string())
    }
}
