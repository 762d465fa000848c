//! The errors of simulated sockets and files, by the numbers that Linux gives them.
//!
//! This layer does not know the C library: `sys` checks that the numbers are those of `libc`.
#![forbid(unsafe_code)]

use std::io;

/// The number of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.0)
    }
}

/// The result of a call on a socket or a file.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Declares the numbers, and a list of them for the check.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)+) => {
        impl Errno {
            $($(#[$doc])* pub(crate) const $name: Errno = Errno($number);)+

            /// All of them, for the check against `libc`.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Errno] = &[$(Errno::$name),+];
        }
    };
}

numbers! {
    /// Another socket is the only one that may send there; or it is a directory, and has one name only.
    EPERM = 1;
    /// No socket has the name, or nothing.
    ENOENT = 2;
    /// The disk has failed.
    EIO = 5;
    /// The number names no socket or file, or none any more; or one that was not opened for that.
    EBADF = 9;
    /// The call would have to wait.
    EAGAIN = 11;
    /// The socket may not send there.
    EACCES = 13;
    /// It is in use.
    EBUSY = 16;
    /// There is something already.
    EEXIST = 17;
    /// It is no directory.
    ENOTDIR = 20;
    /// It is a directory.
    EISDIR = 21;
    /// The call does not fit the state of the socket or file.
    EINVAL = 22;
    /// The disk is full.
    ENOSPC = 28;
    /// The stream has ended in this direction.
    EPIPE = 32;
    /// A name, or a path, has too many bytes.
    ENAMETOOLONG = 36;
    /// There are names in the directory.
    ENOTEMPTY = 39;
    /// A path leads over too many symbolic links.
    ELOOP = 40;
    /// A datagram without a receiver.
    EDESTADDRREQ = 89;
    /// The datagram is too long.
    EMSGSIZE = 90;
    /// The socket at that address is of another type.
    EPROTOTYPE = 91;
    /// There is no such option.
    ENOPROTOOPT = 92;
    /// The call is for sockets of another type.
    EOPNOTSUPP = 95;
    /// The address is of another family.
    EAFNOSUPPORT = 97;
    /// Another socket has the address.
    EADDRINUSE = 98;
    /// The address belongs to another host.
    EADDRNOTAVAIL = 99;
    /// No host has the address.
    ENETUNREACH = 101;
    /// The peer has ended the connection.
    ECONNRESET = 104;
    /// The socket is connected already.
    EISCONN = 106;
    /// The socket is not connected.
    ENOTCONN = 107;
    /// The peer does not answer.
    ETIMEDOUT = 110;
    /// No socket listens there.
    ECONNREFUSED = 111;
    /// The socket connects already.
    EALREADY = 114;
}
