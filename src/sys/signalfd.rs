//! The signalfd: signals that a program reads from a descriptor.
//!
//! A blocked signal is not delivered but stays pending, for one OS thread or for the whole process; a signalfd reads
//! the signals that are pending for the OS thread that reads and for the process. So a read finds only signals that are
//! blocked, and a signal that came before the read is still there.
//!
//! Invariant signalfd-1: a `SignalSet` was filled by `sigemptyset`, hence is valid for every call that takes one.
//! Upheld by `SignalSet::of`, the only constructor.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::{cvt, socket};

/// The numbers that `crate::signal` names, on the target architecture.
pub(crate) mod number {
    pub(crate) const ALRM: i32 = libc::SIGALRM;
    pub(crate) const CHLD: i32 = libc::SIGCHLD;
    pub(crate) const CONT: i32 = libc::SIGCONT;
    pub(crate) const HUP: i32 = libc::SIGHUP;
    pub(crate) const INT: i32 = libc::SIGINT;
    pub(crate) const KILL: i32 = libc::SIGKILL;
    pub(crate) const PIPE: i32 = libc::SIGPIPE;
    pub(crate) const QUIT: i32 = libc::SIGQUIT;
    pub(crate) const STOP: i32 = libc::SIGSTOP;
    pub(crate) const TERM: i32 = libc::SIGTERM;
    pub(crate) const TSTP: i32 = libc::SIGTSTP;
    pub(crate) const USR1: i32 = libc::SIGUSR1;
    pub(crate) const USR2: i32 = libc::SIGUSR2;
    pub(crate) const WINCH: i32 = libc::SIGWINCH;
}

/// The greatest number of a signal (signal(7)); the least is 1.
pub(crate) const LAST: i32 = 64;

/// Reports whether a signal can be waited for: KILL and STOP cannot be blocked, and a blocked fault ends the process at
/// once.
pub(crate) fn can_wait(signal: i32) -> bool {
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
    let unstoppable = [libc::SIGKILL, libc::SIGSTOP];
    // The signals between the standard and the real-time ones belong to the C library.
    let exists = (1..32).contains(&signal) || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal);
    exists && !faults.contains(&signal) && !unstoppable.contains(&signal)
}

/// A set of signal numbers.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet {
    /// The C library's representation (Invariant signalfd-1).
    set: libc::sigset_t,
}

impl SignalSet {
    /// Makes the set of `signals`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a number that is no signal.
    pub(crate) fn new(signals: &[i32]) -> io::Result<SignalSet> {
        SignalSet::of(signals.iter().copied())
    }

    /// Makes the set of the signals of which the bits are set; bit 0 is signal 1. Async-signal-safe.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a signal that belongs to the C library.
    pub(super) fn of_bits(bits: u64) -> io::Result<SignalSet> {
        SignalSet::of((1..=LAST).filter(|signal| bits >> (signal - 1) & 1 != 0))
    }

    /// Makes the set of all signals that can be waited for.
    ///
    /// # Errors
    ///
    /// None.
    pub(crate) fn all() -> io::Result<SignalSet> {
        SignalSet::of((1..=LAST).filter(|signal| can_wait(*signal)))
    }

    /// Returns the signals that this OS thread has blocked.
    ///
    /// # Errors
    ///
    /// None.
    pub(crate) fn blocked_here() -> io::Result<SignalSet> {
        SignalSet::new(&[])?.block()
    }

    /// Makes the set of `signals`.
    fn of(signals: impl Iterator<Item = i32>) -> io::Result<SignalSet> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `set` is room for one set, which the call fills (sigemptyset(3)).
        cvt(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
        // SAFETY: the call above has filled the set.
        let mut set = unsafe { set.assume_init() };
        for signal in signals {
            // SAFETY: Invariant signalfd-1, and the set lives until the call returns (sigaddset(3)).
            cvt(unsafe { libc::sigaddset(&raw mut set, signal) })?;
        }
        Ok(SignalSet { set })
    }

    /// Reports whether `signal` is in the set.
    pub(crate) fn contains(&self, signal: i32) -> bool {
        // SAFETY: Invariant signalfd-1, and the set lives until the call returns (sigismember(3)).
        unsafe { libc::sigismember(&raw const self.set, signal) == 1 }
    }

    /// Blocks these signals in this OS thread, and in threads that it starts later; returns what was blocked before.
    ///
    /// # Errors
    ///
    /// None.
    pub(crate) fn block(&self) -> io::Result<SignalSet> {
        let mut before = SignalSet::new(&[])?;
        self.change(libc::SIG_BLOCK, &raw mut before.set)?;
        Ok(before)
    }

    /// Unblocks these signals in this OS thread. Pending ones are delivered at once.
    ///
    /// # Errors
    ///
    /// None.
    pub(crate) fn unblock(&self) -> io::Result<()> {
        self.change(libc::SIG_UNBLOCK, ptr::null_mut())
    }

    /// Blocks these signals in this OS thread and no others, until the result is dropped.
    ///
    /// # Errors
    ///
    /// None.
    pub(crate) fn block_only(&self) -> io::Result<BlockedOnly> {
        let mut before = SignalSet::new(&[])?;
        self.change(libc::SIG_SETMASK, &raw mut before.set)?;
        Ok(BlockedOnly { before, thread: PhantomData })
    }

    /// Changes the blocked signals, and stores the previous ones in `before` unless that is null.
    fn change(&self, how: i32, before: *mut libc::sigset_t) -> io::Result<()> {
        // SAFETY: Invariant signalfd-1; `before` is null or points to a set of the caller's that lives until the
        // call returns (pthread_sigmask(3)).
        match unsafe { libc::pthread_sigmask(how, &raw const self.set, before) } {
            0 => Ok(()),
            // This call returns the error instead of setting errno.
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// A guard under which this OS thread blocks another set of signals. Dropping the guard restores the previous set.
#[derive(Debug)]
pub(crate) struct BlockedOnly {
    /// The signals that were blocked before.
    before: SignalSet,
    /// Keeps the guard on the OS thread that made it.
    thread: PhantomData<*const ()>,
}

impl Drop for BlockedOnly {
    fn drop(&mut self) {
        // Does not fail: the set came from the kernel.
        let _ = self.before.change(libc::SIG_SETMASK, ptr::null_mut());
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((1..=LAST).filter(|signal| self.contains(*signal))).finish()
    }
}

/// A signal that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The number of the signal.
    pub(crate) number: i32,
    /// The sender's process; 0 if the kernel sent the signal.
    pub(crate) pid: u32,
    /// The user of the sender's process.
    pub(crate) uid: u32,
}

/// A descriptor that reads pending signals.
#[derive(Debug)]
pub(crate) struct SignalFd {
    /// The descriptor of the kernel object.
    fd: OwnedFd,
}

impl SignalFd {
    /// Makes a descriptor that reads the signals of `set`, non-blocking and closed on exec.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM`, `ENODEV`.
    pub(crate) fn new(set: &SignalSet) -> io::Result<SignalFd> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: Invariant signalfd-1; the kernel reads the set, which lives until the call returns; -1 asks for a new
        // descriptor (signalfd(2)).
        let fd = cvt(unsafe { libc::signalfd(-1, &raw const set.set, flags) })?;
        // SAFETY: the kernel has just made `fd`, so the OwnedFd is the only owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(SignalFd { fd })
    }

    /// Reads one pending signal.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if none is pending.
    pub(crate) fn take(&self) -> io::Result<Taken> {
        // Bytes, so that a plain read suffices; the fields used are four bytes each (signalfd(2)).
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let n = socket::read(self.fd.as_fd(), &mut info)?;
        debug_assert_eq!(n, info.len(), "the kernel hands out whole records");
        let field = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&info[at..at + 4]);
            u32::from_ne_bytes(bytes)
        };
        Ok(Taken {
            number: field(offset_of!(libc::signalfd_siginfo, ssi_signo)) as i32,
            pid: field(offset_of!(libc::signalfd_siginfo, ssi_pid)),
            uid: field(offset_of!(libc::signalfd_siginfo, ssi_uid)),
        })
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a signal to this OS thread.
    fn raise(signal: i32) {
        // SAFETY: raise takes an integer (raise(3)).
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn a_blocked_signal_is_read_and_an_empty_fd_says_so() {
        let set = SignalSet::new(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
        let before = set.block().unwrap();
        assert!(!before.contains(libc::SIGUSR1));
        let fd = SignalFd::new(&set).unwrap();
        assert_eq!(fd.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        raise(libc::SIGUSR2);
        raise(libc::SIGUSR2);
        let taken = fd.take().unwrap();
        assert_eq!((taken.number, taken.pid), (libc::SIGUSR2, std::process::id()));
        assert_eq!(fd.take().unwrap_err().kind(), io::ErrorKind::WouldBlock, "two of a kind melt into one");
        set.unblock().unwrap();
        assert!(!set.block().unwrap().contains(libc::SIGUSR1));
    }

    #[test]
    fn another_mask_ends_with_its_guard() {
        let usr1 = SignalSet::new(&[libc::SIGUSR1]).unwrap();
        let blocked = |signal| SignalSet::blocked_here().unwrap().contains(signal);
        let all = SignalSet::all().unwrap().block_only().unwrap();
        assert!(blocked(libc::SIGTERM) && blocked(libc::SIGUSR1) && !blocked(libc::SIGSEGV));
        let inner = usr1.block_only().unwrap();
        assert!(!blocked(libc::SIGTERM) && blocked(libc::SIGUSR1));
        drop(inner);
        assert!(blocked(libc::SIGTERM));
        drop(all);
        assert!(!blocked(libc::SIGTERM) && !blocked(libc::SIGUSR1));
    }

    #[test]
    fn what_cannot_be_waited_for_is_known() {
        for signal in [0, -1, 65, 32, 33, libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS] {
            assert!(!can_wait(signal), "{signal}");
        }
        for signal in [libc::SIGINT, libc::SIGCHLD, libc::SIGWINCH, libc::SIGRTMIN(), libc::SIGRTMAX()] {
            assert!(can_wait(signal), "{signal}");
        }
        assert_eq!(SignalSet::new(&[65]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
