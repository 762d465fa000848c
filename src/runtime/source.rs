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
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::time::Duration;

use super::hub::{hub, hub_of};
use super::park::{Counted, NEVER, Wake, park};
use super::reactor::{Direction, Registration};
use crate::switch::cancel;
use crate::switch::fiber::{Fiber, Reason, attention};
use crate::switch::root::{Root, existing_root, try_root};
use crate::switch::wait_list::Waiting;
use crate::sys::clock::monotonic_ns;
use crate::sys::own::own;
use crate::sys::socket::EAGAIN;

/// IO calls that may succeed at once, one after the other, before the fiber goes to the back of the run queue.
const IO_CREDIT: u8 = 128;

/// How long a [`Source::pause`] lasts at most, in nanoseconds.
const LONGEST_PAUSE: u64 = 20_000_000;

/// A descriptor and what the hub knows of it.
#[derive(Debug)]
pub(crate) struct Source<F: AsFd> {
    /// The descriptor's owner; there until `into_inner` takes it.
    fd: Option<F>,
    /// Shared with the reactor while registered.
    registration: Rc<Registration>,
    /// Whether the short-read rule holds.
    stream: bool,
    /// Whether the open file may have other descriptors, so that closing this one does not leave the epoll set.
    shared: Cell<bool>,
}

// A panic leaves the kernel's file and the hub's registration in order: std says so of its sockets and pipes.
impl<F: AsFd> UnwindSafe for Source<F> {}
impl<F: AsFd> RefUnwindSafe for Source<F> {}

impl<F: AsFd> Source<F> {
    /// How long the first [`pause`](Self::pause) lasts, in nanoseconds; the next is twice as long.
    pub(crate) const FIRST_PAUSE: u64 = 100_000;

    /// Takes a descriptor whose operations say EAGAIN instead of blocking. `stream`: a stream socket. `shared`: it may
    /// have been duplicated.
    pub(crate) fn new(fd: F, stream: bool, shared: bool) -> Source<F> {
        Source { fd: Some(fd), registration: Rc::default(), stream, shared: Cell::new(shared) }
    }

    /// The descriptor's owner.
    #[inline]
    pub(crate) fn get(&self) -> &F {
        match &self.fd {
            Some(fd) => fd,
            None => unreachable!("only `into_inner` takes the descriptor, and it consumes the source"),
        }
    }

    /// The descriptor's owner, unless `close` was called.
    ///
    /// # Errors
    /// If it was.
    pub(crate) fn open(&self) -> io::Result<&F> {
        if self.registration.is_closed() { Err(closed()) } else { Ok(self.get()) }
    }

    /// Counts a call that will not go through `run`; now and then it lets others run first.
    pub(crate) fn spend_credit(&self) {
        spend_credit();
    }

    /// What the hub knows of the descriptor.
    pub(super) fn registration(&self) -> &Rc<Registration> {
        &self.registration
    }

    /// A source of `fd`, a duplicate of this one's descriptor.
    pub(crate) fn sibling(&self, fd: F) -> Source<F> {
        Source::new(fd, self.stream, true)
    }

    /// From now on the open file may have another descriptor.
    pub(crate) fn set_shared(&self) {
        self.shared.set(true);
    }

    /// Gives the descriptor back; it is no longer in the epoll set.
    pub(crate) fn into_inner(mut self) -> F {
        self.set_shared();
        self.leave();
        match self.fd.take() {
            Some(fd) => fd,
            None => unreachable!("nobody else takes the descriptor"),
        }
    }

    /// Marks it closed: fibers that wait for it get an error, and so does every later call.
    pub(crate) fn close(&self) {
        self.registration.close(existing_root());
    }

    /// Leaves the reactor; whoever waits gets an error.
    fn leave(&mut self) {
        if self.registration.is_registered()
            && let Some(root) = existing_root()
            && let Ok(hub) = hub_of(root)
            && let Some(fd) = &self.fd
        {
            self.registration.close(Some(root));
            hub.reactor().deregister(fd.as_fd(), &self.registration, self.shared.get());
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

    /// A read returned `n` of up to `len` bytes: the short-read rule. Call it before anything else runs, since an event
    /// that comes after the read must not be cleared away.
    #[inline]
    pub(crate) fn note_read(&self, n: usize, len: usize) {
        if self.stream && n < len && n > 0 {
            self.registration.clear(Direction::Read);
        }
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
    ///
    /// A timeout of zero means: try once, and hand EAGAIN on.
    #[inline]
    pub(crate) fn run<R>(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
        op: &mut impl FnMut(&F) -> io::Result<R>,
    ) -> io::Result<R> {
        spend_credit();
        let mut turn = Turn { registration: &self.registration, direction, place: None };
        let mut deadline = None;
        loop {
            if self.registration.is_closed() {
                return Err(closed());
            }
            let worth_trying = self.registration.worth_trying(direction) || must_not_wait();
            if turn.has_come() && worth_trying || timeout == Some(Duration::ZERO) {
                let own = own();
                let result = op(self.get());
                drop(own);
                match result {
                    Ok(done) => return Ok(done),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.registration.clear_all(direction);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
            }
            self.wait(&mut turn, timeout, &mut deadline)?;
        }
    }

    /// Runs a system call whose EAGAIN no event ends until it does not say EAGAIN: asks again after pauses. There is no
    /// line of those who wait so.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn run_by_asking<R>(
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
            let own = own();
            let result = op(self.get());
            drop(own);
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => return done,
            }
            let until = *deadline.get_or_insert_with(|| timeout.map_or(NEVER, after));
            if until <= monotonic_ns() {
                return Err(io::Error::from_raw_os_error(EAGAIN));
            }
            self.pause_until(&mut pause, until)?;
        }
    }

    /// Lets some time pass before an operation is tried again of which no event will tell; more time the next time.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn pause(&self, pause: &mut u64) -> io::Result<()> {
        self.pause_until(pause, NEVER)
    }

    /// [`pause`](Self::pause), but not longer than until `until`.
    fn pause_until(&self, pause: &mut u64, until: u64) -> io::Result<()> {
        let (root, hub) = hub()?;
        let me = root.current();
        let reason = Reason::Write(self.get().as_fd().as_raw_fd());
        park(root, hub, me, reason, until.min(monotonic_ns() + *pause))
            .map_err(|obstacle| io::Error::other(obstacle.to_string()))?;
        me.io_credit.set(IO_CREDIT);
        *pause = LONGEST_PAUSE.min(2 * *pause);
        Ok(())
    }

    /// Waits until an operation in this direction is worth trying.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn ready(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        let mut turn = Turn { registration: &self.registration, direction, place: None };
        let mut deadline = None;
        while !(self.registration.is_registered() && self.registration.worth_trying(direction)) {
            if self.registration.is_closed() {
                return Err(closed());
            }
            self.wait(&mut turn, timeout, &mut deadline)?;
        }
        Ok(())
    }

    /// One wait: registers if needed, queues up, parks. `deadline` is set at the first one of a call.
    #[inline]
    fn wait<'a>(
        &'a self,
        turn: &mut Turn<'a>,
        timeout: Option<Duration>,
        deadline: &mut Option<u64>,
    ) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::from_raw_os_error(EAGAIN));
        }
        let root = try_root().ok_or_else(super::hub::ending)?;
        let hub = hub_of(root)?;
        if !self.registration.is_registered() {
            hub.reactor().register(self.get().as_fd(), &self.registration)?;
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
        let me = root.current();
        let fd = self.get().as_fd().as_raw_fd();
        let reason = match turn.direction {
            Direction::Read => Reason::Read(fd),
            Direction::Write => Reason::Write(fd),
        };
        turn.place.get_or_insert_with(|| self.registration.waiters(turn.direction).join(me));
        let _counted = Counted::in_count(&hub.reactor().waiting);
        let woken = park(root, hub, me, reason, until);
        me.io_credit.set(IO_CREDIT);
        match woken {
            Ok(Wake::Woken) => Ok(()),
            // What std says of a socket whose SO_RCVTIMEO expired.
            Ok(Wake::TimedOut) => Err(io::Error::from_raw_os_error(EAGAIN)),
            Err(obstacle) => Err(io::Error::other(obstacle.to_string())),
        }
    }
}

/// A call's place in the line of one direction: kept from its first wait to its end, so that who came first is served
/// first. However the call ends, also by a kill, the next one's turn comes.
struct Turn<'a> {
    /// Whose line.
    registration: &'a Registration,
    /// Which line.
    direction: Direction,
    /// The place, once the call had to wait.
    place: Option<Waiting<'a>>,
}

impl Turn<'_> {
    /// Whether the call may try: nobody waits, or it was woken from its place (only who is first is woken).
    #[inline]
    fn has_come(&self) -> bool {
        self.place.is_some() || self.registration.waiters(self.direction).is_empty()
    }
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
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
    }
}

/// The monotonic time `timeout` from now, at most `NEVER - 1`.
#[inline]
pub(crate) fn after(timeout: Duration) -> u64 {
    let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    monotonic_ns().saturating_add(nanos).min(NEVER - 1)
}

/// Whether a wait would be refused here. Then the hub cannot look whether anything has come since its last look, and only
/// the kernel can say.
#[inline]
fn must_not_wait() -> bool {
    let in_section = |root: &Root| root.current().attention.get() & attention::NO_SWITCH != 0;
    cancel::obstacle().is_some() || try_root().is_some_and(in_section)
}

/// The error of calls on a closed descriptor.
#[cold]
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket was closed by another green thread")
}

/// Counts a call. A fiber whose IO always succeeds at once would never let anybody else run.
///
/// It gives way *before* its operation: so a kill or an expired `timeout` scope that came meanwhile is raised while no
/// data is in its hands, and readiness is never cleared later than the operation that found it gone.
#[inline]
fn spend_credit() {
    if let Some(root) = try_root() {
        let me = root.current();
        match me.io_credit.get() {
            0 => give_way(root, me),
            credit => me.io_credit.set(credit.min(IO_CREDIT) - 1),
        }
    }
}

/// [`spend_credit`] without giving way: whether the caller has to.
#[cfg(feature = "monkey")]
pub(crate) fn spent_credit() -> bool {
    existing_root().is_some_and(|root| {
        let me = root.current();
        let credit = me.io_credit.get();
        me.io_credit.set(credit.min(IO_CREDIT).saturating_sub(1));
        credit == 0
    })
}

/// Goes to the back of the queue, if suspending is possible here. Raises what any blocking call raises.
#[cold]
#[inline(never)]
pub(crate) fn give_way(root: &Root, me: Fiber) {
    me.io_credit.set(IO_CREDIT);
    if must_not_wait() {
        // The call may well succeed without waiting, which is allowed here.
        return;
    }
    if me.attention.get() != 0 {
        cancel::before_suspension(root, me);
    }
    root.requeue_current(me);
    if me.attention.get() != 0 {
        cancel::after_suspension(root, me, me.scope_deadline.get().at <= root.clock.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_kind_of_file_that_epoll_refuses_is_an_error_and_leaves_nothing_behind() {
        let source = Source::new(File::open("/proc/self/exe").unwrap(), false, false);
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
        let source = Source::new(File::open("/proc/self/exe").unwrap(), false, false);
        let read = source.read(None, 4, |mut file| io::Read::read(&mut file, &mut [0; 4]));
        assert_eq!(read.unwrap(), 4);
        assert!(!source.registration.is_registered());
    }

    #[test]
    fn what_was_taken_back_is_out_of_the_epoll_set() {
        let (near, _far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let source = Source::new(near, true, false);
        let waited = source.ready(Direction::Read, Some(Duration::from_micros(1)));
        // The first event says that it can be written, and wakes nobody who wants to read.
        assert_eq!(waited.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (_, hub) = super::super::hub::hub().unwrap();
        assert!(!hub.reactor().is_empty());
        let number = source.get().as_raw_fd();
        assert_eq!(source.into_inner().as_raw_fd(), number, "moved, not duplicated");
        assert!(hub.reactor().is_empty());
    }
}
