//! The arms of `select!` that belong to no type of their own: a point in time, and a descriptor that becomes ready.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use super::hub::hub;
use super::reactor::{Direction, Registration};
use super::source::{Source, closed};
use crate::switch::wait_list::WaitList;
use crate::sys::clock::monotonic_ns;
use crate::sys::epoll::Interest;
use crate::sys::socket;

/// An arm that goes on at a point in time.
#[derive(Debug)]
pub struct TimerArm {
    /// The point in time, in monotonic nanoseconds.
    at: u64,
}

impl TimerArm {
    /// Makes an arm that goes on at `at`, in monotonic nanoseconds.
    pub(crate) fn new(at: u64) -> TimerArm {
        TimerArm { at }
    }
}

impl SelectArm for TimerArm {
    type Output = ();

    fn finish(self) {}
}

impl Arm for TimerArm {
    fn try_select(&self) -> bool {
        self.at <= monotonic_ns()
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        Ok(None)
    }

    fn accept(&self) {}

    fn unregister(&self, _: ArmEnd) {}

    fn deadline(&self) -> u64 {
        self.at
    }
}

/// An arm that goes on when a descriptor is ready.
pub struct ReadyArm<'a> {
    /// The descriptor; none if it was closed.
    fd: Option<BorrowedFd<'a>>,
    /// What the hub knows of the descriptor.
    registration: &'a Rc<Registration>,
    /// The direction in which the descriptor is to be ready.
    direction: Direction,
    /// The result, once there is one.
    result: Cell<Option<io::Result<()>>>,
    /// Whether the arm stands in the list of waiters, and so has the next turn to pass on.
    waits: Cell<bool>,
}

impl<'a> ReadyArm<'a> {
    /// Makes an arm that goes on when `source` is ready in this direction.
    pub(crate) fn new<F: AsFd>(source: &'a Source<F>, direction: Direction) -> ReadyArm<'a> {
        ReadyArm {
            fd: source.open().ok().map(AsFd::as_fd),
            registration: source.registration(),
            direction,
            result: Cell::new(None),
            waits: Cell::new(false),
        }
    }

    /// Notes that the kernel says that there is nothing to do after all. To be called before anything else runs.
    pub(crate) fn not_ready(&self) {
        self.registration.clear_all(self.direction);
    }

    /// Reports whether the caller's turn has come, and there is something to do. Asks the kernel, since the hub may
    /// know only that the descriptor was ready once.
    fn is_ready(&self) -> io::Result<bool> {
        let Some(fd) = self.fd.filter(|_| !self.registration.is_closed()) else { return Err(closed()) };
        // Waiters that came earlier go first; and what the bits deny is not worth a system call.
        if !self.waits.get() && !self.registration.waiters(self.direction).is_empty()
            || !self.registration.worth_trying(self.direction)
        {
            return Ok(false);
        }
        let interest = match self.direction {
            Direction::Read => Interest::IN | Interest::RDHUP,
            Direction::Write => Interest::OUT,
        };
        let ready = !socket::poll_one(fd, interest, Some(0))?.is_empty();
        if !ready {
            // The bits were out of date.
            self.not_ready();
        }
        Ok(ready)
    }
}

impl SelectArm for ReadyArm<'_> {
    type Output = io::Result<()>;

    fn finish(self) -> io::Result<()> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl fmt::Debug for ReadyArm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyArm").field("direction", &self.direction).finish_non_exhaustive()
    }
}

impl Arm for ReadyArm<'_> {
    fn try_select(&self) -> bool {
        match self.is_ready() {
            Ok(false) => false,
            Ok(true) => {
                self.result.set(Some(Ok(())));
                true
            }
            Err(error) => {
                self.result.set(Some(Err(error)));
                true
            }
        }
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        // As a call of the source: registered when something first has to wait.
        if let Some(fd) = self.fd
            && !self.registration.is_registered()
        {
            let registered = hub().and_then(|(_, hub)| hub.register(fd, self.registration));
            if let Err(error) = registered {
                self.result.set(Some(Err(error)));
                return Err(AlreadyWon);
            }
        }
        self.waits.set(true);
        Ok(Some(self.registration.waiters(self.direction)))
    }

    /// Keeps the error of a closed descriptor: only the close takes waiters out of their list.
    fn accept(&self) {
        self.result.set(Some(Err(closed())));
    }

    fn unregister(&self, _: ArmEnd) {
        // An arm that lost was woken in vain, perhaps in place of the next waiter.
        if self.waits.take() {
            self.registration.pass_on(self.direction);
        }
    }

    fn is_descriptor(&self) -> bool {
        true
    }
}
