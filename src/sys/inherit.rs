//! Descriptors that this process got from the process that started it.
//!
//! The numbers come from outside of the program (`LISTEN_FDS`), so each number is checked first.
//!
//! Invariant inherit-1: a number that is taken here was announced to this process by the process that started it, is
//! taken once, and names a descriptor without FD_CLOEXEC. A descriptor that came over exec has no such flag; a
//! descriptor that std or this crate opens has the flag from the first moment, and so has one that another library has
//! taken of the same announcement. So no other part of the program owns the number. Upheld by `server/listen_fds.rs`,
//! which compares the process id of the announcement and has a flag for "taken", and by `take`. A descriptor that the
//! program opened by other means, without the flag and before the call, cannot be told apart; so `listen_fds` is
//! documented to come first.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::cvt;

/// Takes ownership of descriptors (Invariant inherit-1), and marks them as closed on exec: all of them or none.
///
/// # Errors
///
/// The first number that cannot be taken, with `EBADF` if the number is not open, and `InvalidData` if it was not
/// passed. Nothing has changed then.
pub(crate) fn take(numbers: Range<RawFd>) -> Result<Vec<OwnedFd>, (RawFd, io::Error)> {
    // Check all numbers before the first one is taken.
    for number in numbers.clone() {
        // SAFETY: F_GETFD takes no argument, and touches nothing if the number is not open (F_GETFD(2const)).
        let flags = cvt(unsafe { libc::fcntl(number, libc::F_GETFD) }).map_err(|error| (number, error))?;
        if flags & libc::FD_CLOEXEC != 0 {
            return Err((number, io::Error::new(io::ErrorKind::InvalidData, NOT_PASSED)));
        }
    }
    let take_one = |number| {
        // SAFETY: F_SETFD takes an integer, and touches nothing if the descriptor was closed meanwhile
        // (F_SETFD(2const)).
        let _ = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        // SAFETY: the number was found open, and nothing else owns it (Invariant inherit-1).
        unsafe { OwnedFd::from_raw_fd(number) }
    };
    Ok(numbers.map(take_one).collect())
}

/// The message for a descriptor with FD_CLOEXEC.
const NOT_PASSED: &str = "it is marked to be closed on exec, so it was not passed to this process but opened by it, or was \
                          taken before";

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsRawFd, IntoRawFd};

    /// Makes a descriptor that looks as if it came over exec, and returns the number.
    fn passed() -> RawFd {
        let number = File::open("/dev/null").unwrap().into_raw_fd();
        // SAFETY: the fd is open, and F_SETFD takes an integer (F_SETFD(2const)).
        cvt(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).unwrap();
        number
    }

    /// Reports whether `number` is closed on exec.
    fn closes_on_exec(number: RawFd) -> bool {
        // SAFETY: F_GETFD takes no argument (F_GETFD(2const)).
        cvt(unsafe { libc::fcntl(number, libc::F_GETFD) }).unwrap() & libc::FD_CLOEXEC != 0
    }

    #[test]
    fn a_number_that_was_passed_is_taken_and_one_that_is_not_open_is_refused() {
        let number = passed();
        let taken = take(number..number + 1).unwrap();
        assert_eq!(taken[0].as_raw_fd(), number);
        assert!(closes_on_exec(number));
        let (refused, error) = take(1_000_000..1_000_002).unwrap_err();
        assert_eq!((refused, error.raw_os_error()), (1_000_000, Some(libc::EBADF)));
    }

    #[test]
    fn a_number_that_the_program_owns_is_refused_and_left_alone() {
        let mine = File::open("/dev/null").unwrap();
        let number = mine.as_raw_fd();
        let (refused, error) = take(number..number + 1).unwrap_err();
        assert_eq!((refused, error.kind()), (number, io::ErrorKind::InvalidData));
        assert!(mine.metadata().is_ok(), "it is still open");
        // Nor is a second owner made of a number that was taken.
        let number = passed();
        let taken = take(number..number + 1).unwrap();
        assert!(take(number..number + 1).is_err());
        drop(taken);
    }
}
