//! The eventfd as a bell: another thread rings the bell to end a wait.
//!
//! The kernel keeps a counter: a ring adds one, a drain sets the counter to zero, and the descriptor is readable while
//! the counter is above zero. So a ring is never lost, whether before, during or after the wait, and many rings make
//! one wake-up.
//!
//! Invariant eventfd-1: the descriptor is an eventfd, non-blocking and without `EFD_SEMAPHORE`. Upheld by
//! `EventFd::new`.
//!
//! After a fork both processes hold the same bell: the child must neither ring nor drain.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::runtime_syscall::runtime_syscall;
use super::{cvt, cvt_len};

/// A bell that any thread may ring.
#[derive(Debug)]
pub(crate) struct EventFd {
    /// The descriptor of the counter (Invariant eventfd-1).
    fd: OwnedFd,
}

impl EventFd {
    /// Makes a silent bell, closed on exec.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM` or `ENODEV`.
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd takes no pointer (eventfd(2)).
        let fd = cvt(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel has just made `fd`, so the OwnedFd is the only owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(EventFd { fd })
    }

    /// Rings the bell: a wait on the descriptor ends, now or as soon as the wait begins.
    ///
    /// # Panics
    ///
    /// If the kernel refuses, which cannot happen to a bell (Invariant eventfd-1): better a panic than a lost wake-up.
    pub(crate) fn ring(&self) {
        let _mark = runtime_syscall();
        let one = 1_u64;
        loop {
            // SAFETY: the fd is open, and the kernel reads 8 bytes from `one`, which lives until the call returns
            // (eventfd(2)).
            let result = cvt_len(unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) });
            match result {
                Ok(_) => return,
                // The counter is at its maximum, so the descriptor is readable.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("cannot ring an eventfd: {error}"),
            }
        }
    }

    /// Sets the counter to zero and returns the number of rings since the last drain. The hub needs none: its watch is
    /// for edges.
    ///
    /// # Panics
    ///
    /// As [`EventFd::ring`].
    #[cfg(test)]
    pub(crate) fn drain(&self) -> u64 {
        let mut rings = 0_u64;
        loop {
            // SAFETY: the fd is open, and the kernel writes 8 bytes into `rings`, which lives until the call returns
            // (eventfd(2)).
            let result = cvt_len(unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut rings).cast(), 8) });
            match result {
                Ok(_) => return rings,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("cannot drain an eventfd: {error}"),
            }
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoll::{Epoll, Events, Interest, Ready};
    use super::*;

    #[test]
    fn rings_before_a_drain_melt_into_one() {
        let bell = EventFd::new().unwrap();
        assert_eq!(bell.drain(), 0);
        bell.ring();
        bell.ring();
        assert_eq!(bell.drain(), 2);
        assert_eq!(bell.drain(), 0);
    }

    #[test]
    fn a_full_bell_counts_as_rung() {
        let bell = EventFd::new().unwrap();
        let full = u64::MAX - 1;
        // SAFETY: as in `ring`; u64::MAX - 1 is the largest value the counter takes (eventfd(2)).
        cvt_len(unsafe { libc::write(bell.fd.as_raw_fd(), (&raw const full).cast(), 8) }).unwrap();
        bell.ring();
        assert_eq!(bell.drain(), full);
    }

    #[test]
    fn a_ring_from_another_thread_ends_a_wait() {
        let (bell, epoll) = (EventFd::new().unwrap(), Epoll::new().unwrap());
        epoll.add(bell.as_fd(), 9, Interest::IN | Interest::EDGE).unwrap();
        let mut events = Events::with_capacity(1);
        for _ in 0..100 {
            std::thread::scope(|scope| {
                scope.spawn(|| bell.ring());
                epoll.wait(&mut events, None).unwrap();
            });
            assert_eq!(events.iter().collect::<Vec<_>>(), [(9, Ready::IN)]);
            assert_eq!(bell.drain(), 1);
        }
    }

    #[test]
    fn an_edge_watch_hears_each_ring_even_without_a_drain() {
        // This lets the reactor skip the drain: a write to an eventfd is an edge, whatever the counter was before.
        let (bell, epoll) = (EventFd::new().unwrap(), Epoll::new().unwrap());
        epoll.add(bell.as_fd(), 9, Interest::IN | Interest::EDGE).unwrap();
        let mut events = Events::with_capacity(1);
        for _ in 0..3 {
            bell.ring();
            assert_eq!(epoll.wait(&mut events, Some(0)).unwrap(), 1);
            assert_eq!(epoll.wait(&mut events, Some(0)).unwrap(), 0);
        }
    }
}
