//! What std keeps in the kernel for each open socket and a green socket must keep itself: timeouts and the mode.
//!
//! The socket is non-blocking all the time, so `SO_RCVTIMEO` would mean nothing and `O_NONBLOCK` is taken. In std both
//! belong to the open socket, not to the descriptor: clones share them. So clones share one `Shared`. Most sockets
//! never set any of this and have no `Shared` at all.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::reactor::Direction;

/// Options of one handle.
#[derive(Debug, Default)]
pub(crate) struct Options(OnceCell<Rc<Shared>>);

/// Options of all handles of one open socket.
#[derive(Debug, Default)]
struct Shared {
    /// How long a read may wait.
    read: Cell<Option<Duration>>,
    /// How long a write may wait.
    write: Cell<Option<Duration>>,
    /// Whether the program asked for `WouldBlock` in place of waiting.
    nonblocking: Cell<bool>,
    /// Between which calls of a conversation the socket is.
    stage: Cell<Stage>,
}

/// Where a conversation of requests and answers stands, as far as the calls tell: how many reads were begun since the last
/// write. It is known of sockets that have options only.
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
    /// Nothing was read or written.
    #[default]
    Fresh,
    /// The first read was begun, and nothing was written. A reader that waits now has never got a byte.
    FirstByte,
    /// More than one read was begun since the last write, or the beginning: a reader that waits now has a part already.
    Busy,
    /// The last call was a write.
    Answered,
    /// The first read since the last write was begun. A reader that waits now has nothing of the next request.
    NextRequest,
}

impl Stage {
    /// The stage after a call in this direction was begun.
    #[inline]
    fn after(self, direction: Direction) -> Stage {
        match (direction, self) {
            (Direction::Write, _) => Stage::Answered,
            (Direction::Read, Stage::Fresh) => Stage::FirstByte,
            (Direction::Read, Stage::Answered) => Stage::NextRequest,
            (Direction::Read, Stage::FirstByte | Stage::NextRequest | Stage::Busy) => Stage::Busy,
        }
    }
}

/// A look at the [`Stage`] of a socket, wherever the socket is.
#[derive(Debug)]
pub(crate) struct Watch(Rc<Shared>);

impl Watch {
    /// The stage.
    pub(crate) fn stage(&self) -> Stage {
        self.0.stage.get()
    }
}

// As of the sockets that have them; see `Source`.
impl UnwindSafe for Options {}
impl RefUnwindSafe for Options {}

impl Shared {
    /// The timeout of one direction.
    fn timeout(&self, direction: Direction) -> &Cell<Option<Duration>> {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }
}

impl Options {
    /// The options there are; made now if there are none.
    fn shared(&self) -> &Rc<Shared> {
        self.0.get_or_init(Rc::default)
    }

    /// From now on the stage of the socket is kept, and can be looked at.
    pub(super) fn watch(&self) -> Watch {
        Watch(Rc::clone(self.shared()))
    }

    /// How long a call that is begun now may wait, as `Source` takes it: `None` for ever, zero not at all.
    #[inline]
    pub(crate) fn patience(&self, direction: Direction) -> Option<Duration> {
        match self.0.get() {
            None => None,
            Some(shared) => {
                shared.stage.set(shared.stage.get().after(direction));
                if shared.nonblocking.get() { Some(Duration::ZERO) } else { shared.timeout(direction).get() }
            }
        }
    }

    /// The timeout of one direction.
    pub(crate) fn timeout(&self, direction: Direction) -> Option<Duration> {
        self.0.get().and_then(|shared| shared.timeout(direction).get())
    }

    /// Sets the timeout of one direction.
    ///
    /// # Errors
    /// `InvalidInput` for zero, in std's words.
    pub(crate) fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        refuse_zero(timeout)?;
        // Without a timeout there is nothing to remember.
        if timeout.is_some() || self.were_used() {
            self.shared().timeout(direction).set(timeout);
        }
        Ok(())
    }

    /// Whether the program asked for `WouldBlock` in place of waiting.
    pub(crate) fn nonblocking(&self) -> bool {
        self.0.get().is_some_and(|shared| shared.nonblocking.get())
    }

    /// Asks for `WouldBlock` in place of waiting, or for waiting.
    pub(crate) fn set_nonblocking(&self, on: bool) {
        self.shared().nonblocking.set(on);
    }

    /// Options for a clone of the socket: the same ones.
    pub(crate) fn share(&self) -> Options {
        Options(OnceCell::from(Rc::clone(self.shared())))
    }

    /// Whether any option was ever set, here or on a clone, or a clone was made.
    pub(crate) fn were_used(&self) -> bool {
        self.0.get().is_some()
    }
}

/// A timeout of zero would mean "for ever" to the kernel; std refuses it.
///
/// # Errors
/// See above.
pub(crate) fn refuse_zero(timeout: Option<Duration>) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout"));
    }
    Ok(())
}
