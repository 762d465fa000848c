//! The calls on a connection, as libc has them.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::c_int;

/// Returns the result of a system call, with -1 turned into the error. A call that a signal interrupted is to be made
/// again.
pub(crate) fn check(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// Switches a socket option on.
pub(super) fn set_option(fd: &OwnedFd, level: c_int, option: c_int) -> io::Result<()> {
    let on: c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` is live for the call, and `len` is its size.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const on).cast(), len) }).map(drop)
}

/// A connection to a client.
pub(crate) struct Socket(pub(super) OwnedFd);

impl Socket {
    /// Receives some of what the client sent; 0 bytes mean that the client has ended.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the kernel writes at most `len` bytes into the buffer, which is live for the call.
            let result =
                check(unsafe { libc::recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) } as i64);
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map(|count| count as usize),
            }
        }
    }

    /// Sends some of `bytes`, and returns how many: the caller must look. To a client that has gone this is an error,
    /// and not a signal that ends the process (MSG_NOSIGNAL).
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the kernel reads `len` bytes from the slice, which is live for the call.
            let result =
                check(unsafe { libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) }
                    as i64);
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map(|count| count as usize),
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
