//! Timeouts and mode of a green socket, which std keeps in the kernel.
//!
//! The kernel's socket is always non-blocking, so `SO_RCVTIMEO` would have no effect, and `O_NONBLOCK` is in use. In
//! std both belong to the open socket and not to the descriptor, so clones share them. Here clones share one
//! `SharedOptions`. Most sockets never set an option, and have no `SharedOptions` at all.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::reactor::Direction;

/// The options of one handle.
#[derive(Debug, Default)]
pub(crate) struct Options(OnceCell<Rc<SharedOptions>>);

/// The options that all handles of one open socket share.
#[derive(Debug, Default)]
struct SharedOptions {
    /// The longest time that a read may wait.
    read: Cell<Option<Duration>>,
    /// The longest time that a write may wait.
    write: Cell<Option<Duration>>,
    /// Whether the program asked for `WouldBlock` in place of waiting.
    nonblocking: Cell<bool>,
    /// The point that the conversation has reached.
    stage: Cell<Stage>,
}

/// The point that a conversation of requests and answers has reached, as far as the calls tell: how many reads were
/// begun since the last write. Only sockets that have options keep a stage.
///
/// ```text
///            read                read
///   Fresh ---------> FirstByte ---------> Busy <---------.
///                                          |  read       | read
///                             write        v             |
///   (any) ----------------------------> Answered ----> NextRequest
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No read or write was begun.
    #[default]
    Fresh,
    /// The first read was begun, and no write. A reader that waits now has never got a byte.
    FirstByte,
    /// More than one read was begun since the last write, or since the beginning. A reader that waits now has a part
    /// of a request.
    Busy,
    /// The last call was a write.
    Answered,
    /// The first read since the last write was begun. A reader that waits now has nothing of the next request.
    NextRequest,
}

impl Stage {
    /// Returns the stage after a call in this direction was begun.
    #[inline]
    fn after(self, direction: Direction) -> Stage {
        match (direction, self) {
            // Reads count from the last write on, or from the beginning.
            (Direction::Write, _) => Stage::Answered,
            (Direction::Read, Stage::Fresh) => Stage::FirstByte,
            (Direction::Read, Stage::Answered) => Stage::NextRequest,
            (Direction::Read, Stage::FirstByte | Stage::NextRequest | Stage::Busy) => Stage::Busy,
        }
    }
}

/// A view of the [`Stage`] of a socket that another green thread may own.
#[derive(Debug)]
pub(crate) struct StageView(Rc<SharedOptions>);

impl StageView {
    /// Returns the stage that the socket has reached.
    pub(crate) fn stage(&self) -> Stage {
        self.0.stage.get()
    }
}

// The sockets that have these options are unwind safe as well; see `Source`.
impl UnwindSafe for Options {}
impl RefUnwindSafe for Options {}

impl SharedOptions {
    /// Returns the cell with the timeout of one direction.
    fn timeout(&self, direction: Direction) -> &Cell<Option<Duration>> {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }
}

impl Options {
    /// Returns the shared options, and makes them if there are none.
    fn shared(&self) -> &Rc<SharedOptions> {
        self.0.get_or_init(Rc::default)
    }

    /// Returns a view of the stage. From now on the socket keeps its stage.
    pub(super) fn stage_view(&self) -> StageView {
        StageView(Rc::clone(self.shared()))
    }

    /// Notes in the stage that a call in this direction begins. Returns how long the call may wait, in the form that
    /// `Source` takes: `None` for ever, zero not at all.
    #[inline]
    pub(crate) fn begin_call(&self, direction: Direction) -> Option<Duration> {
        match self.0.get() {
            // The common case: a socket without options waits for ever and keeps no stage.
            None => None,
            Some(shared) => {
                shared.stage.set(shared.stage.get().after(direction));
                if shared.nonblocking.get() { Some(Duration::ZERO) } else { shared.timeout(direction).get() }
            }
        }
    }

    /// Returns the timeout of one direction.
    pub(crate) fn timeout(&self, direction: Direction) -> Option<Duration> {
        self.0.get().and_then(|shared| shared.timeout(direction).get())
    }

    /// Sets the timeout of one direction.
    ///
    /// # Errors
    /// `InvalidInput` for zero, in std's words.
    pub(crate) fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        refuse_zero(timeout)?;
        // A socket without shared options has no timeout to remove.
        if timeout.is_some() || self.were_used() {
            self.shared().timeout(direction).set(timeout);
        }
        Ok(())
    }

    /// Reports whether the program asked for `WouldBlock` in place of waiting.
    pub(crate) fn nonblocking(&self) -> bool {
        self.0.get().is_some_and(|shared| shared.nonblocking.get())
    }

    /// Chooses between `WouldBlock` and waiting.
    pub(crate) fn set_nonblocking(&self, on: bool) {
        self.shared().nonblocking.set(on);
    }

    /// Returns the same options, for a clone of the socket.
    pub(crate) fn share(&self) -> Options {
        Options(OnceCell::from(Rc::clone(self.shared())))
    }

    /// Reports whether any option was ever set, here or on a clone, or a clone was made.
    pub(crate) fn were_used(&self) -> bool {
        self.0.get().is_some()
    }
}

/// Refuses a timeout of zero, as std does: to the kernel zero would mean "for ever".
///
/// # Errors
/// `InvalidInput` for zero.
pub(crate) fn refuse_zero(timeout: Option<Duration>) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout"));
    }
    Ok(())
}
