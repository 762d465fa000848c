//! One file descriptor of a hub: try, wait, try again.
//!
//! ```text
//!   worth trying? --yes--> system call --ok-----> (short? not ready any more)  done
//!        |  ^                   |
//!       no  |                 EAGAIN: not ready
//!        v  |                   v
//!       park <-----------------'     (registered in epoll at the first time)
//! ```
//!
//! The short-read rule: `0 < n < len` on a stream socket means that the socket was empty, so the next read waits
//! without asking the kernel first. That is what makes two system calls a request instead of three. It holds for
//! TCP and plain Unix stream sockets only; terminals, datagrams and peeks return short for other reasons.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use super::hub::{Hub, hub_of};
use super::park::{NEVER, Wake, park};
use super::reactor::{Direction, Registration};
use crate::switch::fiber::Reason;
use crate::switch::root::{Root, existing_root, root, try_root};
use crate::sys::clock::monotonic_ns;

/// IO calls that may succeed at once, one after the other, before the fiber goes to the back of the run queue.
const IO_CREDIT: u8 = 128;

/// A descriptor and what the hub knows of it.
#[derive(Debug)]
pub(crate) struct Source<F: AsFd> {
    /// The descriptor's owner; non-blocking.
    fd: F,
    /// Shared with the reactor while registered.
    registration: Rc<Registration>,
    /// Whether the short-read rule holds.
    stream: bool,
    /// Whether the open file may have other descriptors, so that closing this one does not leave the epoll set.
    shared: Cell<bool>,
}

impl<F: AsFd> Source<F> {
    /// Takes a non-blocking descriptor. `stream`: a stream socket. `shared`: it may have been duplicated.
    pub(crate) fn new(fd: F, stream: bool, shared: bool) -> Source<F> {
        Source { fd, registration: Rc::default(), stream, shared: Cell::new(shared) }
    }

    /// The descriptor's owner.
    #[inline]
    pub(crate) fn get(&self) -> &F {
        &self.fd
    }

    /// From now on the open file may have another descriptor.
    pub(crate) fn set_shared(&self) {
        self.shared.set(true);
    }

    /// Gives the descriptor back; it is no longer in the epoll set.
    pub(crate) fn into_inner(self) -> F
    where
        F: From<std::os::fd::OwnedFd> + Into<std::os::fd::OwnedFd>,
    {
        // A duplicate, since a type with a destructor cannot be taken apart without unsafe code.
        self.shared.set(true);
        match self.fd.as_fd().try_clone_to_owned() {
            Ok(fd) => F::from(fd),
            Err(error) => panic!("greenling: no descriptor left to hand the socket over: {error}"),
        }
    }

    /// Marks it closed: fibers that wait for it get an error, and so does every later call.
    pub(crate) fn close(&self) {
        if let Some(root) = existing_root() {
            self.registration.close(root);
        }
    }

    /// Whether it was closed that way.
    pub(crate) fn is_closed(&self) -> bool {
        self.registration.is_closed()
    }

    /// Runs a reading system call of up to `len` bytes until it does not say EAGAIN; see the file's picture.
    ///
    /// # Errors
    /// Those of `op`; `WouldBlock` when `timeout` passed; an error when the caller unwinds or the hub is gone.
    ///
    /// # Panics
    /// As every blocking call: kill, `timeout` scope, `no_switch`.
    #[inline]
    pub(crate) fn read(
        &self,
        timeout: Option<Duration>,
        len: usize,
        mut op: impl FnMut(&F) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let n = self.run(Direction::Read, timeout, &mut op)?;
        if self.stream && n < len && n > 0 {
            self.registration.clear(Direction::Read);
        }
        Ok(n)
    }

    /// [`read`](Self::read) for writing system calls.
    #[inline]
    pub(crate) fn write(
        &self,
        timeout: Option<Duration>,
        len: usize,
        mut op: impl FnMut(&F) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let n = self.run(Direction::Write, timeout, &mut op)?;
        if self.stream && n < len {
            self.registration.clear(Direction::Write);
        }
        Ok(n)
    }

    /// Runs a system call until it does not say EAGAIN. The short-read rule is the caller's.
    #[inline]
    pub(crate) fn run<R>(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
        op: &mut impl FnMut(&F) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut deadline = None;
        loop {
            if self.registration.is_closed() {
                return Err(closed());
            }
            if self.registration.worth_trying(direction) {
                match op(&self.fd) {
                    Ok(done) => {
                        spend_credit();
                        return Ok(done);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.registration.clear_all(direction);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
            }
            self.wait(direction, timeout, &mut deadline)?;
        }
    }

    /// Waits until an operation in this direction is worth trying.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn ready(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        let mut deadline = None;
        while !(self.registration.is_registered() && self.registration.worth_trying(direction)) {
            if self.registration.is_closed() {
                return Err(closed());
            }
            self.wait(direction, timeout, &mut deadline)?;
        }
        Ok(())
    }

    /// One wait: registers if needed, queues up, parks. `deadline` is set at the first one of a call.
    #[inline]
    fn wait(&self, direction: Direction, timeout: Option<Duration>, deadline: &mut Option<u64>) -> io::Result<()> {
        let root = try_root().ok_or_else(super::hub::ending)?;
        let hub = hub_of(root)?;
        if !self.registration.is_registered() {
            hub.reactor().register(self.fd.as_fd(), &self.registration)?;
        }
        let until = match (timeout, *deadline) {
            (None, _) => NEVER,
            (Some(_), Some(at)) => at,
            (Some(timeout), None) => {
                let at = after(timeout);
                *deadline = Some(at);
                at
            }
        };
        self.park(root, hub, direction, until)
    }

    /// Queues up and parks.
    #[inline]
    fn park(&self, root: &'static Root, hub: &'static Hub, direction: Direction, until: u64) -> io::Result<()> {
        let me = root.current();
        let fd = self.fd.as_fd().as_raw_fd();
        let reason = match direction {
            Direction::Read => Reason::Read(fd),
            Direction::Write => Reason::Write(fd),
        };
        let waiting = &hub.reactor().waiting;
        waiting.set(waiting.get() + 1);
        let _counted = Counted(waiting);
        let place = self.registration.waiters(direction).join(me);
        let woken = park(root, hub, me, reason, until);
        drop(place);
        me.io_credit.set(IO_CREDIT);
        match woken {
            Ok(Wake::Woken) => Ok(()),
            // What std says of a socket whose SO_RCVTIMEO expired.
            Ok(Wake::TimedOut) => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            Err(obstacle) => Err(io::Error::other(obstacle.to_string())),
        }
    }
}

impl<F: AsFd> Drop for Source<F> {
    fn drop(&mut self) {
        if self.registration.is_registered()
            && let Some(root) = existing_root()
            && let Ok(hub) = hub_of(root)
        {
            self.registration.close(root);
            hub.reactor().deregister(self.fd.as_fd(), &self.registration, self.shared.get());
        }
    }
}

/// Takes one off the count of fibers that wait for descriptors.
struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The monotonic time `timeout` from now, at most `NEVER - 1`.
#[inline]
pub(crate) fn after(timeout: Duration) -> u64 {
    let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    monotonic_ns().saturating_add(nanos).min(NEVER - 1)
}

/// The error of calls on a closed descriptor.
#[cold]
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket was closed by another green thread")
}

/// An operation succeeded at once. A fiber whose IO always does would never let anybody else run.
#[inline]
fn spend_credit() {
    let root = root();
    let me = root.current();
    match me.io_credit.get() {
        0 => yield_for_fairness(root),
        credit => me.io_credit.set(credit.min(IO_CREDIT) - 1),
    }
}

/// Goes to the back of the queue, if suspending is possible here.
#[cold]
#[inline(never)]
fn yield_for_fairness(root: &Root) {
    let me = root.current();
    me.io_credit.set(IO_CREDIT);
    // A kill, a scope or no_switch is looked at by the next call that waits; the data just read must not get lost.
    if me.attention.get() == 0 && crate::switch::cancel::obstacle().is_none() {
        root.requeue_current(me);
    }
}
