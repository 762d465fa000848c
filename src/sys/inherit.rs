//! Descriptors that this process got from the one that started it.
//!
//! The numbers come from outside of the program (`LISTEN_FDS`), so they are checked before they are believed.
//!
//! Invariant H1: a number handed in here was announced to this process by the one that started it, and is handed in once:
//! so nobody else in the program owns it. Upheld by `server/listen_fds.rs`, which compares the process id of the
//! announcement and has a flag for "taken".

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::cvt;

/// Takes descriptor `number` into ownership (Invariant H1), and marks it as closed on exec.
///
/// # Errors
///
/// `EBADF` if it is not open.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer, and touches nothing if the number is not an open descriptor (F_SETFD(2const)).
    cvt(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the call above found it open, and nobody else owns it (Invariant H1).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn a_number_that_is_open_is_taken_and_another_is_refused() {
        let number = File::open("/dev/null").unwrap().into_raw_fd();
        let taken = take(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        // SAFETY: the fd is open, and F_GETFD takes no argument (F_GETFD(2const)).
        let flags = cvt(unsafe { libc::fcntl(number, libc::F_GETFD) }).unwrap();
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
        assert_eq!(take(1_000_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
