//! epoll: which of many descriptors are ready.
//!
//! ```text
//!   add(fd, token, IN | OUT | EDGE)        wait(events, timeout)
//!   ------------------------------> kernel -----------------------> (token, Ready), (token, Ready), ...
//! ```
//!
//! The token is 64 bits that the kernel hands back untouched; what it means, and that it may be stale, is the caller's
//! concern. Not promised: that a reported fd is still ready when it is used, the order of the events, or that all ready
//! ones fit into one wait.
//!
//! Timeouts are nanoseconds. `epoll_pwait2` (Linux 5.11) takes them as they are. Where it is missing, milliseconds
//! rounded *up* take their place, once and for all, so that a wait is never shorter than asked: a wait rounded down
//! makes the caller spin until the deadline. Either way the kernel may add its timer slack (50 us by default).

#![allow(unsafe_code)]

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::clock::{Timeout, timespec};
use super::{cvt, virtual_sockets};

/// The events to report about a descriptor. `HUP` and `ERR` are always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest(
    /// `EPOLL*` bits that epoll_ctl takes.
    u32,
);

impl Interest {
    /// Something can be read, or the peer has closed its sending half.
    pub(crate) const IN: Interest = Interest(libc::EPOLLIN as u32);
    /// Something can be written.
    pub(crate) const OUT: Interest = Interest(libc::EPOLLOUT as u32);
    /// The peer has closed its sending half.
    pub(crate) const RDHUP: Interest = Interest(libc::EPOLLRDHUP as u32);
    /// Something exceptional, such as out-of-band data.
    pub(crate) const PRI: Interest = Interest(libc::EPOLLPRI as u32);
    /// Edge-triggered: report each change once. The caller then reads or writes until the call says `WouldBlock`.
    pub(crate) const EDGE: Interest = Interest(libc::EPOLLET as u32);
    /// One-shot: report one event, and then nothing until the descriptor is rearmed.
    #[cfg(feature = "monkey")]
    pub(crate) const ONCE: Interest = Interest(libc::EPOLLONESHOT as u32);

    /// Reports whether every bit of this is in `other`.
    #[cfg(feature = "monkey")]
    pub(crate) fn is_in(self, other: Interest) -> bool {
        self.0 & !other.0 == 0
    }

    /// Converts from the bits of poll(2).
    #[cfg(feature = "monkey")]
    pub(crate) fn of_poll_bits(bits: i16) -> Interest {
        Interest(u32::from(bits.cast_unsigned()))
    }

    /// Converts to the bits of poll(2). `EDGE` has no meaning there and is cut off.
    pub(super) fn poll_bits(self) -> libc::c_short {
        self.0 as libc::c_short
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

/// The events that the kernel reports about a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready(
    /// `EPOLL*` bits that epoll_wait returned.
    u32,
);

impl Ready {
    /// The empty set of events.
    pub(crate) const NONE: Ready = Ready(0);
    /// A read will not block.
    pub(crate) const IN: Ready = Ready(libc::EPOLLIN as u32);
    /// A write will not block.
    pub(crate) const OUT: Ready = Ready(libc::EPOLLOUT as u32);
    /// The peer has closed its sending half: after the data that is still queued, a read returns 0. Writing goes on.
    pub(crate) const RDHUP: Ready = Ready(libc::EPOLLRDHUP as u32);
    /// Both halves of the connection are closed.
    pub(crate) const HUP: Ready = Ready(libc::EPOLLHUP as u32);
    /// An error is pending; the next call on the fd returns it. Also: the reader of a pipe is gone.
    pub(crate) const ERR: Ready = Ready(libc::EPOLLERR as u32);
    /// Something exceptional, such as out-of-band data.
    pub(crate) const PRI: Ready = Ready(libc::EPOLLPRI as u32);

    /// Reports whether at least one bit of `other` is set.
    #[inline]
    pub(crate) fn any(self, other: Ready) -> bool {
        self.0 & other.0 != 0
    }

    /// Reports whether no bit is set.
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reports whether a waiter with this interest can go on.
    #[cfg(feature = "monkey")]
    pub(crate) fn meets(self, interest: Interest) -> bool {
        self.0 & interest.0 != 0
    }

    /// Returns the events that remain after a waiter with this interest was woken.
    #[cfg(feature = "monkey")]
    pub(crate) fn without(self, interest: Interest) -> Ready {
        Ready(self.0 & !interest.0)
    }

    /// Converts the readiness of a simulated socket, which has the bits of poll(2).
    pub(crate) fn of_virtual(bits: u32) -> Ready {
        Ready(bits)
    }

    /// Returns what of this `interest` covers; an end and an error are always covered.
    pub(super) fn covered_by(self, interest: Interest) -> Ready {
        Ready(self.0 & (interest.0 | Ready::HUP.0 | Ready::ERR.0))
    }

    /// Converts from the bits that poll(2) returns.
    pub(super) fn from_poll_bits(bits: libc::c_short) -> Ready {
        Ready(u32::from(bits.cast_unsigned()))
    }
}

impl BitOr for Ready {
    type Output = Ready;

    #[inline]
    fn bitor(self, other: Ready) -> Ready {
        Ready(self.0 | other.0)
    }
}

/// poll(2) and epoll(7) number their bits alike on Linux, which is why both share [`Interest`] and [`Ready`].
const _: () = {
    assert!(libc::POLLIN as i32 == libc::EPOLLIN && libc::POLLOUT as i32 == libc::EPOLLOUT);
    assert!(libc::POLLERR as i32 == libc::EPOLLERR && libc::POLLHUP as i32 == libc::EPOLLHUP);
    assert!(libc::POLLPRI as i32 == libc::EPOLLPRI && libc::POLLRDHUP as i32 == libc::EPOLLRDHUP);
};

/// A buffer that [`Epoll::wait`] fills, made once and used for every wait.
///
/// Invariant epoll-1: `buffer` holds at least one and at most `i32::MAX` entries, all of them initialised, and never
/// moves. Upheld by [`Events::with_capacity`]; no other function changes the buffer.
pub(crate) struct Events {
    /// Room for events. The entries from `len` on are from earlier waits.
    buffer: Box<[libc::epoll_event]>,
    /// The number of entries that the last wait filled.
    len: usize,
}

impl Events {
    /// Makes room for `capacity` events per wait. Events that do not fit stay in the kernel for the next wait.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0 or above `i32::MAX`: epoll_wait refuses both.
    pub(crate) fn with_capacity(capacity: usize) -> Events {
        assert!(capacity > 0 && i32::try_from(capacity).is_ok(), "an event buffer of {capacity} entries");
        Events { buffer: vec![libc::epoll_event { events: 0, u64: 0 }; capacity].into(), len: 0 }
    }

    /// Returns the tokens and the readiness that the last wait brought.
    #[inline]
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u64, Ready)> {
        // On x86-64 `epoll_event` is packed, so that a reference to a field may be misaligned: the pattern copies.
        self.buffer[..self.len].iter().map(|&libc::epoll_event { events, u64: token }| (token, Ready(events)))
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Whether the kernel was found to lack `epoll_pwait2`. Set at most once; `Relaxed`, as the flag guards no other data.
static PWAIT2_MISSING: AtomicBool = AtomicBool::new(false);

/// An epoll instance, owned.
#[derive(Debug)]
pub(crate) struct Epoll {
    /// The instance. The kernel forgets what was added when the instance is closed, with `self`.
    fd: OwnedFd,
}

impl Epoll {
    /// Makes an instance, closed on exec.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE` or `ENOMEM`.
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1 takes no pointer (epoll_create(2)).
        let fd = cvt(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made `fd`, so the OwnedFd is the only owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll { fd })
    }

    /// Starts to watch `fd` under `token`. Events that are pending already are reported by the next wait.
    ///
    /// The kernel watches the open file, not the number: a duplicate (`dup`, `fork`) keeps the file watched after `fd`
    /// is closed, so call [`Epoll::delete`] first.
    ///
    /// # Errors
    ///
    /// `EEXIST` if `fd` is watched already, `EPERM` for a file that cannot be watched (a regular file, a directory:
    /// always ready), `ENOSPC` or `ENOMEM`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        if let Some(watched) = virtual_sockets::watch(&fd, token) {
            return watched;
        }
        let mut event = libc::epoll_event { events: interest.0, u64: token };
        let (epoll, fd) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both fds are open, and the kernel copies `event`, which lives until the call returns (epoll_ctl(2)).
        cvt(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) })?;
        Ok(())
    }

    /// Asks anew for `interest` in a number that may or may not be watched already, and may name another file by now.
    /// Events that are pending already are reported by the next wait. Returns whether the number was not watched.
    ///
    /// # Errors
    ///
    /// As [`Epoll::add`], but for `EEXIST`; `EBADF`.
    #[cfg(feature = "monkey")]
    pub(crate) fn rearm(&self, fd: std::os::fd::RawFd, token: u64, interest: Interest) -> io::Result<bool> {
        // As a rule the number is watched.
        let epoll = self.fd.as_raw_fd();
        let mut event = libc::epoll_event { events: interest.0, u64: token };
        // SAFETY: the kernel copies `event`, which lives until the call returns; a number that is not open is an error
        // (epoll_ctl(2)).
        match cvt(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd, &raw mut event) }) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result.map(|_| false),
        }
        // The number was not watched, or named another file then.
        // SAFETY: as above.
        cvt(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) })?;
        Ok(true)
    }

    /// Stops watching a number that may or may not be open.
    ///
    /// # Errors
    ///
    /// As [`Epoll::delete`]; `EBADF`.
    #[cfg(feature = "monkey")]
    pub(crate) fn delete_number(&self, fd: std::os::fd::RawFd) -> io::Result<()> {
        // SAFETY: the event is ignored and may be null; a number that is not open is an error (epoll_ctl(2)).
        cvt(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, ptr::null_mut()) })?;
        Ok(())
    }

    /// Stops watching `fd`. Events that a wait has already returned are not taken back.
    ///
    /// # Errors
    ///
    /// `ENOENT` if `fd` is not watched.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(deleted) = virtual_sockets::unwatch(&fd) {
            return deleted;
        }
        let (epoll, fd) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both fds are open, and EPOLL_CTL_DEL ignores the event, which may be null (epoll_ctl(2)).
        cvt(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, ptr::null_mut()) })?;
        Ok(())
    }

    /// Waits until a descriptor is ready or `timeout` is over, and returns how many events are now in `events`.
    ///
    /// Returns 0 if the time is over, and also, early, when a signal interrupts the wait: a caller that waits for a
    /// point in time must read the clock. On an error `events` is empty.
    ///
    /// # Errors
    ///
    /// None that a valid instance and buffer can cause.
    pub(crate) fn wait(&self, events: &mut Events, timeout: Timeout) -> io::Result<usize> {
        events.len = 0;
        let result = match timeout {
            // Both calls know these two spans, and epoll_wait copies no timespec.
            None => self.wait_ms(events, -1),
            Some(0) => self.wait_ms(events, 0),
            Some(ns) if PWAIT2_MISSING.load(Ordering::Relaxed) => self.wait_ms(events, ms_rounded_up(ns)),
            Some(ns) => match self.wait_ns(events, ns) {
                Err(error) if is_missing_call(&error) => {
                    PWAIT2_MISSING.store(true, Ordering::Relaxed);
                    self.wait_ms(events, ms_rounded_up(ns))
                }
                result => result,
            },
        };
        // A signal ends the wait without an event.
        match result {
            Ok(len) => {
                events.len = len;
                Ok(len)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Calls epoll_wait for `ms` milliseconds, or for ever if `ms` is -1. Leaves `events.len` alone.
    #[inline]
    fn wait_ms(&self, events: &mut Events, ms: i32) -> io::Result<usize> {
        let (epoll, buffer, len) = (self.fd.as_raw_fd(), events.buffer.as_mut_ptr(), events.buffer.len());
        // SAFETY: Invariant epoll-1: `buffer` has `len` entries and `len` fits an i32; the kernel writes into those
        // only (epoll_wait(2)), and `events` is borrowed mutably until then.
        let filled = cvt(unsafe { libc::epoll_wait(epoll, buffer, len as i32, ms) })?;
        Ok(filled as usize)
    }

    /// Calls epoll_pwait2 without a signal mask for `ns` nanoseconds. Leaves `events.len` alone.
    #[inline]
    fn wait_ns(&self, events: &mut Events, ns: u64) -> io::Result<usize> {
        let timeout = timespec(ns);
        let (epoll, buffer, len) = (self.fd.as_raw_fd(), events.buffer.as_mut_ptr(), events.buffer.len());
        let no_mask = ptr::null::<libc::sigset_t>();
        // SAFETY: Invariant epoll-1 as in `wait_ms`; `timeout` lives until the call returns, and a null mask is no mask
        // (epoll_pwait2(2)). The C library's wrapper is younger than the call, hence `syscall`.
        let filled = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll,
                buffer,
                len as libc::c_int,
                &raw const timeout,
                no_mask,
                0_usize,
            )
        };
        super::cvt_len(filled as isize)
    }
}

/// Converts to milliseconds, rounding up; a wait longer than epoll_wait can express (24 days) is cut.
fn ms_rounded_up(ns: u64) -> i32 {
    i32::try_from(ns.div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Reports whether the kernel, or a sandbox, does not know the call. Old container profiles say `EPERM` instead of
/// `ENOSYS`, and epoll_pwait2 has no `EPERM` of its own.
fn is_missing_call(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// Duplicates a number that may or may not be open: another descriptor of the same open file, closed on exec.
///
/// # Errors
///
/// `EBADF`, `EMFILE`.
#[cfg(feature = "monkey")]
pub(crate) fn duplicate(fd: std::os::fd::RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer (F_DUPFD_CLOEXEC(2const)).
    let copy = cvt(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just made `copy`, so the OwnedFd is the only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use super::super::clock::monotonic_ns;
    use super::super::testing;
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    /// Makes an instance that watches one end of a pair under `token`.
    fn watched(token: u64, extra: Interest) -> (Epoll, UnixStream, UnixStream) {
        let epoll = Epoll::new().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        epoll.add(near.as_fd(), token, Interest::IN | Interest::RDHUP | extra).unwrap();
        (epoll, near, far)
    }

    #[test]
    fn the_same_64_bits_come_out_as_went_in() {
        let (epoll, _near, mut far) = watched(0xfedc_ba98_7654_3210, Interest::EDGE);
        let mut events = Events::with_capacity(4);
        far.write_all(b"x").unwrap();
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
        let all: Vec<_> = events.iter().collect();
        assert_eq!(all, [(0xfedc_ba98_7654_3210, Ready::IN)]);
    }

    #[test]
    fn every_entry_of_a_full_buffer_is_read_back() {
        // More than one entry: a wrong idea of the packed layout shows from the second entry on.
        let epoll = Epoll::new().unwrap();
        let pairs: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
        for (token, (near, _)) in pairs.iter().enumerate() {
            epoll.add(near.as_fd(), token as u64, Interest::OUT | Interest::EDGE).unwrap();
        }
        let mut events = Events::with_capacity(3);
        let mut seen = Vec::new();
        while epoll.wait(&mut events, Some(0)).unwrap() > 0 {
            seen.extend(events.iter());
        }
        seen.sort_by_key(|&(token, _)| token);
        assert_eq!(seen, (0..5).map(|token| (token, Ready::OUT)).collect::<Vec<_>>());
    }

    #[test]
    fn an_edge_is_reported_once_and_a_level_each_time() {
        let mut events = Events::with_capacity(1);
        for (extra, again) in [(Interest::EDGE, 0), (Interest::IN, 1)] {
            let (epoll, mut near, mut far) = watched(1, extra);
            far.write_all(b"x").unwrap();
            assert_eq!(epoll.wait(&mut events, Some(0)).unwrap(), 1);
            assert_eq!(epoll.wait(&mut events, Some(0)).unwrap(), again);
            near.read_exact(&mut [0]).unwrap();
            assert_eq!(epoll.wait(&mut events, Some(0)).unwrap(), 0);
        }
    }

    #[test]
    fn a_half_closed_peer_is_not_a_hang_up() {
        let (epoll, _near, far) = watched(1, Interest::EDGE);
        let mut events = Events::with_capacity(1);
        far.shutdown(Shutdown::Write).unwrap();
        epoll.wait(&mut events, None).unwrap();
        let (_, ready) = events.iter().next().unwrap();
        assert!(ready.any(Ready::RDHUP) && ready.any(Ready::IN) && !ready.any(Ready::HUP | Ready::ERR));
        drop(far);
        epoll.wait(&mut events, None).unwrap();
        let (_, ready) = events.iter().next().unwrap();
        assert!(ready.any(Ready::HUP));
    }

    #[test]
    fn nothing_comes_after_delete() {
        let (epoll, near, mut far) = watched(1, Interest::EDGE);
        let mut events = Events::with_capacity(1);
        epoll.delete(near.as_fd()).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(epoll.wait(&mut events, Some(0)).unwrap(), 0);
        assert_eq!(epoll.delete(near.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_wait_is_never_shorter_than_asked() {
        let epoll = Epoll::new().unwrap();
        let mut events = Events::with_capacity(1);
        for ns in [1, 999, 50_000, 999_999, 1_000_001, 3_500_000] {
            let start = monotonic_ns();
            assert_eq!(epoll.wait(&mut events, Some(ns)).unwrap(), 0);
            assert!(monotonic_ns() - start >= ns, "asked for {ns} ns");
        }
    }

    #[test]
    fn an_old_event_does_not_outlive_the_next_wait() {
        let (epoll, mut near, mut far) = watched(1, Interest::EDGE);
        let mut events = Events::with_capacity(1);
        far.write_all(b"x").unwrap();
        epoll.wait(&mut events, None).unwrap();
        near.read_exact(&mut [0]).unwrap();
        epoll.wait(&mut events, Some(0)).unwrap();
        assert_eq!(events.iter().len(), 0);
    }

    #[test]
    fn a_signal_ends_a_wait_with_no_event_and_no_error() {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: the handler does nothing, which is async-signal-safe (signal(2)).
        unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as usize) };
        // SAFETY: pthread_self has no condition (pthread_self(3)).
        let waiter = unsafe { libc::pthread_self() };
        let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(1));
        for timeout in [None, Some(u64::MAX)] {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    // Repeatedly, since the first signal may come before the wait.
                    while stopped.recv_timeout(std::time::Duration::from_millis(1)).is_err() {
                        // SAFETY: the scope keeps the waiting thread alive (pthread_kill(3)).
                        unsafe { libc::pthread_kill(waiter, libc::SIGUSR1) };
                    }
                });
                assert_eq!(epoll.wait(&mut events, timeout).unwrap(), 0);
                stop.send(()).unwrap();
            });
        }
    }

    #[test]
    fn milliseconds_are_rounded_up() {
        assert_eq!([1, 999_999, 1_000_000, 1_000_001].map(ms_rounded_up), [1, 1, 1, 2]);
        assert_eq!(ms_rounded_up(u64::MAX), i32::MAX);
    }

    /// Makes the kernel answer `ENOSYS` to epoll_pwait2 on this thread from now on.
    fn forbid_pwait2() {
        let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut program = [
            op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the call
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_epoll_pwait2 as u32),
            op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: PR_SET_NO_NEW_PRIVS takes integers only (PR_SET_NO_NEW_PRIVS(2const)).
        cvt(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).unwrap();
        // SAFETY: the kernel copies `filter` and the program it points to, and both live until the call returns
        // (PR_SET_SECCOMP(2const)).
        cvt(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) }).unwrap();
    }

    #[test]
    fn a_kernel_without_pwait2_is_asked_once_and_waits_as_long() {
        let output = testing::in_new_process(
            "sys::epoll::tests::a_kernel_without_pwait2_is_asked_once_and_waits_as_long",
            || {
                forbid_pwait2();
                let (epoll, _near, mut far) = watched(7, Interest::EDGE);
                let mut events = Events::with_capacity(1);
                for _ in 0..2 {
                    let start = monotonic_ns();
                    assert_eq!(epoll.wait(&mut events, Some(1_200_000)).unwrap(), 0);
                    assert!(monotonic_ns() - start >= 1_200_000);
                    assert!(PWAIT2_MISSING.load(Ordering::Relaxed));
                }
                far.write_all(b"x").unwrap();
                assert_eq!(epoll.wait(&mut events, Some(u64::MAX)).unwrap(), 1);
            },
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
