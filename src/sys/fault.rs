//! Faults on purpose: what a simulation can make go wrong, and the errors of the kernel that this gives.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::time::Duration;

/// What a simulation can make go wrong. Each is something that can happen in life at that place, and a program has to
/// expect it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FaultKind {
    /// A wait for an unpark or for a notification of a `Condvar` returns without one, as std allows.
    SpuriousWake,
    /// A timer fires late, by 1 ms, 1 s or 1 µs; never early.
    LateTimer,
    /// A thread that has a time limit and leaves the CPU does not go on before the limit: time passes until then at
    /// once, as on a machine that stalls. If the call has an earlier limit than the enclosing
    /// [`timeout`](crate::timeout), either can strike.
    Timeout,
    /// A thread cannot be spawned: ENOMEM or EAGAIN.
    Spawn,
    /// A thread other than main is killed where it leaves the CPU. Only if it is asked for by name.
    Kill,
    /// A call is interrupted by a signal: EINTR. The types of [`net`](crate::net) make the call again by themselves.
    Interrupted,
    /// A call would have to wait and must not: EAGAIN. A simulated socket says so although it could go on, and is ready
    /// again at once.
    WouldBlock,
    /// There is no descriptor left, for the process or for all: EMFILE or ENFILE. For what opens a socket, and accept.
    NoDescriptors,
    /// The kernel has no memory: ENOMEM. For what opens a socket, accept, and what sends a datagram.
    NoMemory,
    /// The peer has reset the connection: ECONNRESET. A simulated connection ends so at both ends.
    Reset,
    /// A read or a write moves fewer bytes than it could: one, half of them, or all but one.
    Short,
    /// The disk fails: EIO. For a read, and for `sync_all` and `sync_data`, after which nothing that was written before
    /// is durable any more, whatever a later one says; as in Linux.
    DiskError,
    /// The disk is full: ENOSPC. For a write, and for what makes a file or a directory.
    NoSpace,
}

/// The number of kinds.
pub(crate) const KINDS: usize = 13;

/// The number of ways of all kinds.
pub(crate) const WAYS: usize = 20;

/// How late a late timer is, in nanoseconds. The first is what shrinking prefers.
const LATE: [u64; 3] = [1_000_000, 1_000_000_000, 1_000];

impl FaultKind {
    /// All kinds, in the order of their declaration.
    pub(crate) const ALL: [FaultKind; KINDS] = [
        FaultKind::SpuriousWake,
        FaultKind::LateTimer,
        FaultKind::Timeout,
        FaultKind::Spawn,
        FaultKind::Kill,
        FaultKind::Interrupted,
        FaultKind::WouldBlock,
        FaultKind::NoDescriptors,
        FaultKind::NoMemory,
        FaultKind::Reset,
        FaultKind::Short,
        FaultKind::DiskError,
        FaultKind::NoSpace,
    ];

    /// Returns how many ways there are at most in which it can happen.
    pub(crate) fn variants(self) -> usize {
        match self {
            FaultKind::LateTimer | FaultKind::Short => 3,
            FaultKind::Timeout | FaultKind::Spawn | FaultKind::NoDescriptors => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::SpuriousWake => "spurious wake-up",
            FaultKind::LateTimer => "late timer",
            FaultKind::Timeout => "timeout",
            FaultKind::Spawn => "failed spawn",
            FaultKind::Kill => "kill",
            FaultKind::Interrupted => "EINTR",
            FaultKind::WouldBlock => "EAGAIN",
            FaultKind::NoDescriptors => "no descriptor",
            FaultKind::NoMemory => "ENOMEM",
            FaultKind::Reset => "ECONNRESET",
            FaultKind::Short => "short transfer",
            FaultKind::DiskError => "EIO",
            FaultKind::NoSpace => "ENOSPC",
        })
    }
}

/// A fault that happens. Its text has the way, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The kind, which has a text of its own.
    pub(crate) kind: FaultKind,
    /// In which way, below [`FaultKind::variants`].
    pub(crate) variant: usize,
}

impl Fault {
    /// Returns the error of the call that fails; `Short` is none, and comes as that of an interrupted call.
    pub(crate) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self.kind {
            FaultKind::Spawn if self.variant == 1 => libc::EAGAIN,
            FaultKind::Spawn | FaultKind::NoMemory => libc::ENOMEM,
            FaultKind::WouldBlock => libc::EAGAIN,
            FaultKind::NoDescriptors if self.variant == 1 => libc::ENFILE,
            FaultKind::NoDescriptors => libc::EMFILE,
            FaultKind::Reset => libc::ECONNRESET,
            FaultKind::DiskError => libc::EIO,
            FaultKind::NoSpace => libc::ENOSPC,
            _ => libc::EINTR,
        })
    }

    /// Returns how late a late timer is, in nanoseconds.
    pub(crate) fn lateness(self) -> u64 {
        LATE[self.variant % LATE.len()]
    }

    /// Returns how many of `len` bytes a short transfer moves: at least one, if there is one.
    pub(crate) fn shortened(self, len: usize) -> usize {
        match self.variant {
            0 => len.min(1),
            1 => len.div_ceil(2),
            _ => len.saturating_sub(1).max(len.min(1)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        match self.kind {
            FaultKind::LateTimer => write!(f, ", by {:?}", Duration::from_nanos(self.lateness())),
            FaultKind::Timeout if self.variant == 1 => f.write_str(", that of the call"),
            FaultKind::Spawn => f.write_str([", ENOMEM", ", EAGAIN"][self.variant % 2]),
            FaultKind::NoDescriptors => f.write_str([", EMFILE", ", ENFILE"][self.variant % 2]),
            FaultKind::Short => f.write_str([", one byte", ", half", ", all but one byte"][self.variant % 3]),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_are_counted_in_their_order() {
        assert_eq!(FaultKind::ALL.map(FaultKind::variants).iter().sum::<usize>(), WAYS);
        assert!(FaultKind::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
    }

    #[test]
    fn a_short_transfer_moves_something_and_not_more_than_there_is() {
        let moved = |variant, len| Fault { kind: FaultKind::Short, variant }.shortened(len);
        assert_eq!([0, 1, 2].map(|variant| moved(variant, 10)), [1, 5, 9]);
        assert_eq!([0, 1, 2].map(|variant| moved(variant, 1)), [1, 1, 1]);
        assert_eq!([0, 1, 2].map(|variant| moved(variant, 0)), [0, 0, 0]);
    }
}
