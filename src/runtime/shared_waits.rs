//! The waits of one hub's fibers in queues that other hubs share.
//!
//! A queue knows its waiters by number, and a hub knows its fibers; this list joins the two. The hub reads the list for
//! the reasons in reports and for the test whether a sleeping hub can still be woken. At the end of the hub, all waits
//! in the list are abandoned.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::sync::Arc;

use super::ended::SharedQueue;
use crate::pure::slab::{Key, Slab};
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::Root;

/// A fiber's wait in a [`SharedQueue`].
pub(crate) struct SharedWait {
    /// The fiber that waits.
    pub(crate) fiber: Fiber,
    /// The queue in which the fiber waits.
    pub(crate) queue: Arc<dyn SharedQueue>,
    /// The waiter's number in the queue.
    pub(crate) number: u64,
    /// How many units the fiber wants.
    pub(crate) wants: usize,
}

/// The list of such waits. No foreign code runs while the list is borrowed.
pub(crate) struct SharedWaits(RefCell<Slab<SharedWait>>);

impl SharedWaits {
    /// Makes an empty list.
    pub(super) fn new() -> SharedWaits {
        SharedWaits(RefCell::new(Slab::new()))
    }

    /// Adds a wait that begins.
    pub(crate) fn add(&self, wait: SharedWait) -> Key {
        self.0.borrow_mut().insert(wait)
    }

    /// Removes a wait that is over.
    pub(crate) fn remove(&self, key: Key) {
        let wait = self.0.borrow_mut().remove(key);
        drop(wait);
    }

    /// Brings the holders in the reasons of the waiting fibers up to date, for a report.
    pub(crate) fn note_holders(&self) {
        for (_, wait) in self.0.borrow().iter() {
            // The lock may have changed hands since the wait began.
            if let Reason::Shared(held, _) = wait.fiber.reason.get() {
                wait.fiber.reason.set(Reason::Shared(held, wait.queue.holder()));
            }
        }
    }

    /// Reports whether another OS thread may end one of the waits. What a fiber of this hub holds is released by that
    /// fiber, or not at all: the fiber stored its name on this OS thread, and takes the name away before it lets go.
    pub(super) fn can_be_released(&self, root: &Root) -> bool {
        self.0.borrow().iter().any(|(_, wait)| !root.has(wait.queue.holder()))
    }

    /// Ends all waits, of fibers that never run again: each fiber leaves the queue, or passes on what it was handed.
    pub(super) fn abandon_all(&self) {
        loop {
            // The list is not borrowed while the queue wakes other waiters.
            let mut waits = self.0.borrow_mut();
            let Some((key, _)) = waits.iter().next() else { return };
            let wait = waits.remove(key);
            drop(waits);
            if let Some(wait) = wait {
                wait.queue.abandon(wait.number, wait.wants);
            }
        }
    }
}
