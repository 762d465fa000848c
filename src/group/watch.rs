//! Who has ended, in order, and waiting for some of them.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::runtime::hub::hub;
use crate::switch::cancel;
use crate::switch::extras::Watch;
use crate::sync::Event;
use crate::thread::JoinError;

/// Why the calling thread may not wait, if so: it unwinds, or its OS thread has no hub.
pub(super) fn refusal() -> Option<JoinError> {
    match (cancel::obstacle(), hub()) {
        (Some(obstacle), _) => Some(JoinError::refused(obstacle)),
        (None, Err(error)) => Some(JoinError::refused(error)),
        (None, Ok(_)) => None,
    }
}

/// Whether it may wait.
pub(super) fn may_wait() -> bool {
    refusal().is_none()
}

/// Threads that one caller watches.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// The places of those that have ended, in that order.
    tokens: RefCell<Vec<usize>>,
    /// How many have not.
    left: Cell<usize>,
    /// Set when one ends.
    changed: Event,
}

impl Watch for Finished {
    fn ended(self: Rc<Self>, token: u64) {
        self.tokens.borrow_mut().push(token as usize);
        self.left.set(self.left.get() - 1);
        self.changed.set();
    }
}

impl Finished {
    /// One more is watched.
    pub(super) fn expect_one(&self) {
        self.left.set(self.left.get() + 1);
    }

    /// Waits until `count` of those watched have ended, or all if they are fewer. Returns at once if it may not wait.
    ///
    /// # Panics
    /// As `Event::wait`.
    pub(super) fn wait_for(&self, count: usize) {
        while self.tokens.borrow().len() < count && self.left.get() > 0 && may_wait() {
            self.changed.clear();
            self.changed.wait();
        }
    }

    /// The places of those that have ended, in that order.
    pub(super) fn tokens(&self) -> Vec<usize> {
        self.tokens.take()
    }
}
