//! Processes: the descriptor that says when a child has ended, signals to a child, the signals that a new child
//! blocks; the user, and the end of this process.
//!
//! A pidfd is readable from the moment at which the process ends, also if the pidfd is opened later, and stays so: the
//! end of a child is readiness like any other, and needs neither SIGCHLD nor polling. Pidfds need Linux 5.3.
//!
//! Invariant sys-process-1: a process id handed in here names a child of this process that has not been waited for, so
//! the id is not reused. Upheld by the callers, which record that beside the child.
//!
//! Invariant sys-process-2: what runs between fork and exec is async-signal-safe, because the other threads are gone
//! there and may have held any lock. Upheld by `unblock_before_exec`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::signalfd::SignalSet;
use super::{cvt, cvt_len};

/// Opens a descriptor that becomes readable at the end of the OS thread `tid`.
///
/// # Errors
/// `EINVAL` before Linux 6.9; `ESRCH`; `EMFILE` and the like.
#[cfg(feature = "monkey")]
pub(crate) fn thread_pidfd(tid: u32) -> io::Result<OwnedFd> {
    // PIDFD_THREAD has the value of O_EXCL (pidfd_open(2)).
    let flags = libc::O_EXCL;
    // SAFETY: the call takes two integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, tid as libc::pid_t, flags) };
    let fd = super::cvt(result as i32)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a descriptor of process `pid`, closed on exec, which becomes readable when the process has ended. No bytes can
/// be read from the descriptor.
///
/// # Errors
///
/// `Unsupported` on a kernel before 5.3 and where a sandbox forbids the call; `EMFILE`, `ENFILE`, `ENOMEM`; `ESRCH` if
/// the child was waited for already, by other code or by the kernel because the program ignores SIGCHLD.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let no_flags: libc::c_uint = 0;
    // SAFETY: the call takes two integers (pidfd_open(2)); the C library need not have a wrapper.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, no_flags) };
    let fd = cvt_len(result as isize).map_err(|error| match error.raw_os_error() {
        // A sandbox that does not know the call says EPERM, which the kernel itself never does.
        Some(libc::ENOSYS | libc::EPERM) => io::Error::new(
            io::ErrorKind::Unsupported,
            "waiting for a child takes pidfd_open, which this kernel (before 5.3) or sandbox does not have",
        ),
        _ => error,
    })?;
    // SAFETY: the kernel has just made the descriptor, so the OwnedFd is the only owner. A descriptor fits an i32.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Reports whether the calling OS thread is the process's first, with the end of which the process ends as a rule.
pub(crate) fn is_main_thread() -> bool {
    thread_id() == std::process::id()
}

/// Returns the effective user of the process.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail (geteuid(2)).
    unsafe { libc::geteuid() }
}

/// Calls `hook` when the process exits by a return of main or by `exit`, also in children of a fork. The hook must not
/// panic.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn at_exit(hook: extern "C" fn()) -> io::Result<()> {
    // SAFETY: a function of this program lives for ever (atexit(3)).
    match unsafe { libc::atexit(hook) } {
        0 => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::OutOfMemory)),
    }
}

/// Returns the kernel's id of the calling OS thread.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail (gettid(2)).
    let thread = unsafe { libc::gettid() };
    thread.unsigned_abs()
}

/// Sends `signal` to process `pid` (Invariant sys-process-1). Does nothing to a child that has ended and was not waited
/// for.
///
/// # Errors
///
/// `EINVAL` if there is no such signal; `EPERM` if the child has become another user.
pub(crate) fn send_signal(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes two integers (kill(2)).
    cvt(unsafe { libc::kill(pid as libc::pid_t, signal) })?;
    Ok(())
}

/// Makes the children of `command` start with the signals in `bits` unblocked, where bit 0 is signal 1. The bits are
/// read at each start. Otherwise a child would inherit what is blocked.
///
/// For such a command std forks, in place of using `posix_spawn`.
pub(crate) fn unblock_before_exec(command: &mut Command, bits: &'static AtomicU64) {
    let unblock = || {
        // Relaxed: a signal is blocked by this OS thread or by the thread that started it, after the bit was set; and a
        // fork copies all of memory.
        let set = SignalSet::of_bits(bits.load(Ordering::Relaxed))?;
        set.unblock()
    };
    // SAFETY: Invariant sys-process-2: the closure reads an atomic, fills a set on its stack, and makes one system
    // call; these functions of the C library are async-signal-safe, and the error is a number (signal-safety(7)).
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
