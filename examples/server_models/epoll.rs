//! Shows the three calls of epoll(7), for the rungs that use them: `epoll_create1` makes a list that the kernel keeps,
//! `epoll_ctl` changes one entry, `epoll_wait` returns the entries that are ready, and no others.
//!
//! Descriptors are the tokens. That is safe only since the rungs close a descriptor in answer to one of its own events
//! and at no other time: epoll returns each descriptor at most once per call, so no event of a closed client is left in
//! the batch when a new client gets its number. (`src/runtime/reactor.rs` cannot rely on that, and uses keys that are
//! never reused.)
#![allow(unsafe_code)]

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, epoll_event};

use crate::shared::check;

/// How many events one call returns at most.
const BATCH: usize = 256;

/// The kernel's list of descriptors.
pub(crate) struct Epoll(OwnedFd);

/// Room for what `wait` returns.
pub(crate) struct Events(Vec<epoll_event>);

impl Events {
    /// Makes room for a batch.
    pub(crate) fn new() -> Events {
        Events(vec![epoll_event { events: 0, u64: 0 }; BATCH])
    }
}

impl Epoll {
    /// Makes an empty list.
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: takes a number.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: just opened, and owned by nothing else.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// Watches `fd` for `interest`. Closing `fd` ends that.
    pub(crate) fn add(&self, fd: RawFd, interest: c_int) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest)
    }

    /// Watches `fd` for something else.
    pub(crate) fn change(&self, fd: RawFd, interest: c_int) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest)
    }

    /// Calls `epoll_ctl`; the token is the descriptor.
    fn control(&self, operation: c_int, fd: RawFd, interest: c_int) -> io::Result<()> {
        let mut event = epoll_event { events: interest as u32, u64: fd as u64 };
        // SAFETY: `event` is live for the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
    }

    /// Sleeps until something is ready, or, if not `sleep`, only looks. Returns descriptors and their events; none if a
    /// signal came.
    pub(crate) fn wait<'e>(
        &self,
        events: &'e mut Events,
        sleep: bool,
    ) -> io::Result<impl Iterator<Item = (RawFd, c_int)> + use<'e>> {
        let buffer = &mut events.0;
        let timeout = if sleep { -1 } else { 0 };
        // SAFETY: the kernel writes at most `len` events into the buffer, which is live for the call.
        let result =
            check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), buffer.as_mut_ptr(), buffer.len() as c_int, timeout) });
        let count = match result {
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            result => result? as usize,
        };
        Ok(buffer[..count].iter().map(|event| (event.u64 as RawFd, event.events as c_int)))
    }
}
