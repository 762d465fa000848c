//! Processes: a descriptor that says when one has ended, signals to it, and what it has blocked when it starts.
//!
//! A pidfd is readable from the moment the process ends, also if it is opened after that, until for ever: so the end of
//! a child is readiness like any other, and needs neither SIGCHLD nor asking again and again. It takes Linux 5.3.
//!
//! Invariant P1: a process id handed in here names a child of this process that has not been waited for, so it is not
//! reused. Upheld by the callers, who keep that in the same place as the child.
//!
//! Invariant P2: what runs between fork and exec is async-signal-safe, because the other threads are gone there and may
//! have held any lock. `unblock_before_exec` upholds it.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::signalfd::SignalSet;
use super::{cvt, cvt_len};

/// A descriptor of process `pid`, closed on exec. Nothing can be read from it; it is readable when the process has ended.
///
/// # Errors
///
/// `Unsupported` on a kernel before 5.3 and where a sandbox forbids the call; `EMFILE`, `ENFILE`, `ENOMEM`; `ESRCH` if
/// the child was waited for, by somebody else or by the kernel because the program ignores SIGCHLD.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let no_flags: libc::c_uint = 0;
    // SAFETY: the call takes two integers (pidfd_open(2)); the C library need not have a wrapper of it.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, no_flags) };
    let fd = cvt_len(result as isize).map_err(|error| match error.raw_os_error() {
        // A sandbox that does not know the call says EPERM, which the kernel itself never does.
        Some(libc::ENOSYS | libc::EPERM) => io::Error::new(
            io::ErrorKind::Unsupported,
            "waiting for a child takes pidfd_open, which this kernel (before 5.3) or sandbox does not have",
        ),
        _ => error,
    })?;
    // SAFETY: the kernel has just made this descriptor and nobody else knows it, so the OwnedFd is its only owner. A
    // descriptor fits an i32.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends `signal` to process `pid` (Invariant P1). To one that has ended and was not waited for it does nothing.
///
/// # Errors
///
/// `EINVAL` if there is no such signal; `EPERM` if the child has become another user.
pub(crate) fn send_signal(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes two integers (kill(2)).
    cvt(unsafe { libc::kill(pid as libc::pid_t, signal) })?;
    Ok(())
}

/// From now on the children of `command` start with the signals in `bits` unblocked, as they are when it starts them: bit
/// 0 is signal 1. A child inherits what is blocked, and std leaves it at that.
///
/// std forks for such a command by itself, in place of letting the C library spawn it.
pub(crate) fn unblock_before_exec(command: &mut Command, bits: &'static AtomicU64) {
    let unblock = || {
        // Relaxed: whoever blocked a signal for this OS thread did so in it, or in one that started it, after setting the
        // bit; and a fork copies all of memory.
        let set = SignalSet::of_bits(bits.load(Ordering::Relaxed))?;
        set.unblock()
    };
    // SAFETY: Invariant P2: the closure reads an atomic, fills a set on its stack, and makes one system call; these
    // functions of the C library are async-signal-safe, and the error is a number (signal-safety(7)).
    unsafe { command.pre_exec(unblock) };
}

#[cfg(test)]
mod tests {
    use super::super::epoll::Interest;
    use super::super::socket::poll_one;
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn a_pidfd_becomes_readable_at_the_end_and_stays_so() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let early = pidfd_open(child.id()).unwrap();
        assert!(poll_one(early.as_fd(), Interest::IN, Some(0)).unwrap().is_empty());
        send_signal(child.id(), libc::SIGTERM).unwrap();
        assert!(!poll_one(early.as_fd(), Interest::IN, None).unwrap().is_empty());
        let late = pidfd_open(child.id()).unwrap();
        assert!(!poll_one(late.as_fd(), Interest::IN, Some(0)).unwrap().is_empty());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert!(!poll_one(late.as_fd(), Interest::IN, Some(0)).unwrap().is_empty(), "waited for, it still is");
    }

    #[test]
    fn a_signal_that_does_not_exist_is_refused() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert_eq!(send_signal(child.id(), 1000).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
