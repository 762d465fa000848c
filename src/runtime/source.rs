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
//! The short-read rule: `0 < n < len` on a TCP stream means that the socket was empty, so the next read waits without
//! asking the kernel first. That makes two system calls a request instead of three. The rule holds for TCP only: a read
//! of a Unix stream stops at a message that carries descriptors, and terminals, datagrams and peeks return short for
//! other reasons.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{self as unix, UnixStream};
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use super::caller::Caller;
use super::checkpoint::{charge, must_not_wait, spend_credit};
use super::hub::hub_of;
use super::park::{Counted, Wake};
use super::reactor::{Direction, Registration};
use crate::switch::budget::IO_CREDIT;
use crate::switch::fiber::Reason;
use crate::switch::root::existing_root;
use crate::switch::wait_list::Waiting;
use crate::sys::clock::{NEVER, after, monotonic_ns};
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::signalfd::Taken;
use crate::sys::socket::EAGAIN;
use crate::sys::virtual_sockets;

/// The longest [`Source::pause`], in nanoseconds.
const LONGEST_PAUSE: u64 = 20_000_000;

/// The result of an operation: the bytes that were moved count against the caller's share.
pub(crate) trait Moved {
    /// Returns how many bytes were moved; none for operations that move none.
    fn bytes(&self) -> usize {
        0
    }
}

impl Moved for usize {
    #[inline]
    fn bytes(&self) -> usize {
        *self
    }
}

/// Bytes with the address of their sender.
impl<A> Moved for (usize, A) {
    #[inline]
    fn bytes(&self) -> usize {
        self.0
    }
}

impl Moved for () {}
impl Moved for (OwnedFd, SocketAddr) {}
impl Moved for (UnixStream, unix::SocketAddr) {}
impl Moved for ExitStatus {}
impl Moved for Taken {}

/// A descriptor, with what the hub knows of it.
#[derive(Debug)]
pub(crate) struct Source<F: AsFd> {
    /// The descriptor's owner; none once `into_inner` has taken it.
    fd: Option<F>,
    /// What the hub knows; the reactor has a second handle while the descriptor is registered.
    registration: Rc<Registration>,
    /// Whether this is a TCP stream, for which the short-read rule holds.
    tcp: bool,
    /// Whether the open file may have other descriptors, so that the close of this one does not take it out of the
    /// epoll set.
    shared: Cell<bool>,
}

// A panic leaves the kernel's file and the hub's registration in order: std says so of its sockets and pipes.
impl<F: AsFd> UnwindSafe for Source<F> {}
impl<F: AsFd> RefUnwindSafe for Source<F> {}

impl<F: AsFd> Source<F> {
    /// The first [`pause`](Self::pause), in nanoseconds; each further one is twice as long.
    pub(crate) const FIRST_PAUSE: u64 = 100_000;

    /// Makes a source of a descriptor. Its operations must say EAGAIN instead of blocking.
    pub(crate) fn new(fd: F) -> Source<F> {
        Source { fd: Some(fd), registration: Rc::default(), tcp: false, shared: Cell::new(false) }
    }

    /// Makes a source of a TCP stream, for which the short-read rule holds.
    pub(crate) fn tcp(fd: F) -> Source<F> {
        Source { fd: Some(fd), registration: Rc::default(), tcp: true, shared: Cell::new(false) }
    }

    /// Returns the source of a descriptor that may have been duplicated.
    pub(crate) fn shared(self) -> Source<F> {
        self.set_shared();
        self
    }

    /// Returns the descriptor's owner.
    #[inline]
    pub(crate) fn get(&self) -> &F {
        match &self.fd {
            Some(fd) => fd,
            None => unreachable!("only `into_inner` takes the descriptor, and it consumes the source"),
        }
    }

    /// Returns the descriptor's owner.
    ///
    /// # Errors
    /// If `close` was called.
    pub(crate) fn open(&self) -> io::Result<&F> {
        if self.registration.is_closed() { Err(closed()) } else { Ok(self.get()) }
    }

    /// Notes the place in the program that made the descriptor, for simulations.
    #[inline]
    pub(crate) fn made_at(&self, place: &'static Location<'static>) {
        virtual_sockets::made_at(self.get(), place);
    }

    /// Counts a call that will not go through `run`; now and then, lets other fibers run first.
    pub(crate) fn spend_credit(&self) {
        spend_credit();
    }

    /// Returns what the hub knows of the descriptor.
    pub(super) fn registration(&self) -> &Rc<Registration> {
        &self.registration
    }

    /// Makes a source of `fd`, a duplicate of this source's descriptor.
    pub(crate) fn sibling(&self, fd: F) -> Source<F> {
        let source = if self.tcp { Source::tcp(fd) } else { Source::new(fd) };
        source.shared()
    }

    /// Notes that the open file may have another descriptor from now on.
    pub(crate) fn set_shared(&self) {
        self.shared.set(true);
    }

    /// Reports whether the open file may have other descriptors.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.get()
    }

    /// Returns the descriptor, which is no longer in the epoll set.
    pub(crate) fn into_inner(mut self) -> F {
        self.set_shared();
        self.leave();
        match self.fd.take() {
            Some(fd) => fd,
            None => unreachable!("only `into_inner` takes the descriptor, once"),
        }
    }

    /// Marks the descriptor closed: waiting fibers get an error, and so does every later call.
    pub(crate) fn close(&self) {
        self.registration.close(existing_root());
    }

    /// Leaves the reactor; waiters get an error.
    fn leave(&mut self) {
        // Without a usable hub there is no epoll set to leave.
        if self.registration.is_registered()
            && let Some(root) = existing_root()
            && let Ok(hub) = hub_of(root)
            && let Some(fd) = &self.fd
        {
            self.registration.close(Some(root));
            hub.deregister(fd.as_fd(), &self.registration, self.shared.get());
        }
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
        self.note_read(n, len);
        Ok(n)
    }

    /// Applies the short-read rule to a read that returned `n` of up to `len` bytes. To be called before anything else
    /// runs, since an event that comes after the read must not be cleared away.
    #[inline]
    pub(crate) fn note_read(&self, n: usize, len: usize) {
        if self.tcp && n < len && n > 0 {
            self.registration.clear(Direction::Read);
        }
    }

    /// Runs a writing system call, as [`read`](Self::read) a reading one.
    #[inline]
    pub(crate) fn write(
        &self,
        timeout: Option<Duration>,
        len: usize,
        mut op: impl FnMut(&F) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let n = self.run(Direction::Write, timeout, &mut op)?;
        // A short write has filled the socket's buffer.
        if self.tcp && n < len {
            self.registration.clear(Direction::Write);
        }
        Ok(n)
    }

    /// Runs a system call until it does not say EAGAIN. The short-read rule is left to the caller.
    ///
    /// With a timeout of zero the call is tried once, and EAGAIN is the result.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Panics
    /// As [`read`](Self::read).
    #[inline]
    pub(crate) fn run<R: Moved>(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
        op: &mut impl FnMut(&F) -> io::Result<R>,
    ) -> io::Result<R> {
        // A caller that has to wait lets others run by waiting, and need not ask whether it is time; but a wait with a
        // limit may be over at once. What is closed counts as ready.
        if self.registration.worth_trying(direction) || timeout.is_some() {
            spend_credit();
        }
        let mut position = QueuePosition { registration: &self.registration, direction, place: None };
        let mut deadline = None;
        loop {
            if self.registration.is_closed() {
                return Err(closed());
            }
            // Where a wait would be refused, only the kernel can say whether anything has come.
            let worth_trying = self.registration.worth_trying(direction) || must_not_wait();
            if position.may_try() && worth_trying || timeout == Some(Duration::ZERO) {
                let mark = runtime_syscall();
                let result = op(self.get());
                drop(mark);
                match result {
                    Ok(done) => {
                        charge(done.bytes());
                        return Ok(done);
                    }
                    // Not ready after all: wait for the next event.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.registration.clear_all(direction);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
            }
            self.wait(&mut position, timeout, &mut deadline)?;
        }
    }

    /// Runs a system call until it does not say EAGAIN, for calls of which no event tells when to try again: tries
    /// again after pauses. Fibers that wait so are served in no order.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn run_with_backoff<R: Moved>(
        &self,
        timeout: Option<Duration>,
        op: &mut impl FnMut(&F) -> io::Result<R>,
    ) -> io::Result<R> {
        spend_credit();
        let (mut deadline, mut pause) = (None, Self::FIRST_PAUSE);
        loop {
            if self.registration.is_closed() {
                return Err(closed());
            }
            let mark = runtime_syscall();
            let result = op(self.get());
            drop(mark);
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => {
                    charge(done.as_ref().map_or(0, Moved::bytes));
                    return done;
                }
            }
            // Not ready: pause, unless the time is over.
            let until = *deadline.get_or_insert_with(|| timeout.map_or(NEVER, after));
            if until <= monotonic_ns() {
                return Err(io::Error::from_raw_os_error(EAGAIN));
            }
            self.pause_until(&mut pause, until)?;
        }
    }

    /// Lets some time pass before an operation is tried again, where no event tells when; twice as much the next time.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn pause(&self, pause: &mut u64) -> io::Result<()> {
        self.pause_until(pause, NEVER)
    }

    /// Pauses as [`pause`](Self::pause), but not longer than until `until`.
    fn pause_until(&self, pause: &mut u64, until: u64) -> io::Result<()> {
        let caller = Caller::current()?;
        let reason = Reason::Write(self.get().as_fd().as_raw_fd());
        caller.park(reason, until.min(monotonic_ns() + *pause))?;
        caller.fiber.io_credit.set(IO_CREDIT);
        *pause = LONGEST_PAUSE.min(2 * *pause);
        Ok(())
    }

    /// Waits until an operation in this direction is worth trying.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn ready(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        let mut position = QueuePosition { registration: &self.registration, direction, place: None };
        let mut deadline = None;
        while !(self.registration.is_registered() && self.registration.worth_trying(direction)) {
            if self.registration.is_closed() {
                return Err(closed());
            }
            self.wait(&mut position, timeout, &mut deadline)?;
        }
        Ok(())
    }

    /// Waits once: registers if needed, queues up, parks. `deadline` is set in the first wait of a call.
    #[inline]
    fn wait<'a>(
        &'a self,
        position: &mut QueuePosition<'a>,
        timeout: Option<Duration>,
        deadline: &mut Option<u64>,
    ) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::from_raw_os_error(EAGAIN));
        }
        let caller = Caller::current()?;
        if !self.registration.is_registered() {
            caller.hub.register(self.get().as_fd(), &self.registration)?;
        }
        // The time limit counts from the first wait.
        let until = match (timeout, *deadline) {
            (None, _) => NEVER,
            (Some(_), Some(at)) => at,
            (Some(timeout), None) => {
                let at = after(timeout);
                *deadline = Some(at);
                at
            }
        };
        let fd = self.get().as_fd().as_raw_fd();
        let reason = match position.direction {
            Direction::Read => Reason::Read(fd),
            Direction::Write => Reason::Write(fd),
        };
        // Queue up behind those that wait already, and park; the place is kept for the next wait of this call.
        position.place.get_or_insert_with(|| self.registration.waiters(position.direction).join(caller.fiber));
        let _counted = Counted::in_count(&caller.hub.reactor().waiting);
        let woken = caller.park(reason, until);
        caller.fiber.io_credit.set(IO_CREDIT);
        match woken {
            Ok(Wake::Woken) => Ok(()),
            // As std when SO_RCVTIMEO expires.
            Ok(Wake::TimedOut) => Err(io::Error::from_raw_os_error(EAGAIN)),
            Err(obstacle) => Err(obstacle.into()),
        }
    }
}

/// A call's place in the queue of one direction: kept from the call's first wait to its end, so that calls are served
/// in the order in which they came. However the call ends, also by a kill, the next waiter is woken.
struct QueuePosition<'a> {
    /// What is waited for.
    registration: &'a Registration,
    /// The direction of the queue.
    direction: Direction,
    /// The place, once the call had to wait.
    place: Option<Waiting<'a>>,
}

impl QueuePosition<'_> {
    /// Reports whether the call may try: no other call waits, or this one was woken from its place (only the first in
    /// the queue is woken).
    #[inline]
    fn may_try(&self) -> bool {
        self.place.is_some() || self.registration.waiters(self.direction).is_empty()
    }
}

impl Drop for QueuePosition<'_> {
    #[inline]
    fn drop(&mut self) {
        // Out of the queue first, so that the next waiter is the first.
        if let Some(place) = self.place.take() {
            drop(place);
            self.registration.pass_on(self.direction);
        }
    }
}

impl<F: AsFd> Drop for Source<F> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
        if let Some(fd) = &self.fd {
            virtual_sockets::close(fd);
        }
    }
}

/// Returns the error of calls on a closed descriptor.
#[cold]
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket was closed by another green thread")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_kind_of_file_that_epoll_refuses_is_an_error_and_leaves_nothing_behind() {
        let source = Source::new(File::open("/proc/self/exe").unwrap());
        let error = source.ready(Direction::Read, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(!source.registration.is_registered());
        assert!(source.registration.waiters(Direction::Read).is_empty());
        let (_, hub) = super::super::hub::hub().unwrap();
        assert!(hub.reactor().is_empty());
        assert_eq!(hub.reactor().waiting.get(), 0);
    }

    #[test]
    fn an_operation_that_does_not_block_never_meets_epoll() {
        let source = Source::new(File::open("/proc/self/exe").unwrap());
        let read = source.read(None, 4, |mut file| io::Read::read(&mut file, &mut [0; 4]));
        assert_eq!(read.unwrap(), 4);
        assert!(!source.registration.is_registered());
    }

    #[test]
    fn what_was_taken_back_is_out_of_the_epoll_set() {
        let (near, _far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let source = Source::tcp(near);
        let waited = source.ready(Direction::Read, Some(Duration::from_micros(1)));
        // The first event says that the socket can be written, and wakes no reader.
        assert_eq!(waited.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (_, hub) = super::super::hub::hub().unwrap();
        assert!(!hub.reactor().is_empty());
        let number = source.get().as_raw_fd();
        assert_eq!(source.into_inner().as_raw_fd(), number, "moved, not duplicated");
        assert!(hub.reactor().is_empty());
    }
}
