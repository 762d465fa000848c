//! What goes wrong with a connection, sorted.
#![forbid(unsafe_code)]

use std::io;

/// What goes wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Failure {
    /// No server listens at the address.
    Refused,
    /// The connection could not be made for another reason, or not in time.
    NotConnected,
    /// The server, or a machine on the way, reset the connection.
    Reset,
    /// The server closed the connection before all answers were in.
    Closed,
    /// No answer came for as long as the patience lasts.
    NoAnswer,
    /// Other bytes came back than were sent.
    WrongBytes,
    /// Anything else went wrong.
    Other,
}

impl Failure {
    /// All kinds, in the order of the output.
    pub(crate) const ALL: [Failure; 7] = [
        Failure::Refused,
        Failure::NotConnected,
        Failure::Reset,
        Failure::Closed,
        Failure::NoAnswer,
        Failure::WrongBytes,
        Failure::Other,
    ];

    /// Returns the name in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::NotConnected => "not_connected",
            Failure::Reset => "reset",
            Failure::Closed => "closed",
            Failure::NoAnswer => "no_answer",
            Failure::WrongBytes => "wrong_bytes",
            Failure::Other => "other",
        }
    }

    /// Sorts an error on a connection.
    pub(crate) fn of(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::NoAnswer,
            _ => Failure::Other,
        }
    }
}

/// A failure, and the kernel's words if there are any.
pub(crate) type Failed = (Failure, Option<io::Error>);

/// Returns an error on a connection as a failure.
pub(crate) fn failed(error: io::Error) -> Failed {
    (Failure::of(&error), Some(error))
}
