//! Mail from other OS threads: an inbox and a bell.
//!
//! Any OS thread may push; the hub's thread drains it at each look. The bell (an eventfd in the hub's epoll set)
//! is rung only when the hub sleeps or is about to, and once however many letters arrive: see `pure::bell` for why
//! no wake-up can be lost between "the inbox is empty" and "I sleep".
//!
//! The drop of the last `Thread` handle is news as well, if the hub sleeps because its holder might have sent a letter:
//! now nobody can, and that is a deadlock. So it rings, too.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::pure::inbox::Inbox;
use crate::switch::root::Parcel;
use crate::sys::eventfd::EventFd;
use crate::sys::fork::fork_generation;

/// One letter. A fiber is named by a parcel, which only its own root opens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Letter {
    /// Give this fiber its permit.
    Unpark(Parcel),
    /// Wake this fiber: what it waits for is done.
    Wake(Parcel),
}

/// What a hub shares with the rest of the process.
pub(crate) struct Mail {
    /// The letters.
    inbox: Inbox<Letter>,
    /// Wakes the hub out of epoll_wait.
    bell: EventFd,
    /// The hub has ended; letters go nowhere.
    closed: AtomicBool,
    /// `Thread` handles that may still send one.
    handles: AtomicUsize,
    /// The process the hub belongs to, as a count of forks: a child's copy shares the bell with its parent.
    generation: u32,
}

impl Mail {
    /// A new inbox with its bell.
    ///
    /// # Errors
    /// Those of eventfd(2).
    pub(crate) fn new() -> io::Result<Mail> {
        Ok(Mail {
            inbox: Inbox::new(),
            bell: EventFd::new()?,
            closed: AtomicBool::new(false),
            handles: AtomicUsize::new(0),
            generation: fork_generation(),
        })
    }

    /// Sends a letter; wakes the hub if it sleeps. Usable from any OS thread.
    pub(crate) fn send(&self, letter: Letter) {
        // Relaxed: only saves work. A letter pushed after the close is never read, and never has to be.
        if self.closed.load(Ordering::Relaxed) || self.generation != fork_generation() {
            return;
        }
        if self.inbox.push(letter) {
            self.bell.ring();
        }
    }

    /// One more handle.
    pub(crate) fn add_handle(&self) {
        // Relaxed: who adds one has one, or is the hub's own thread.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// One handle fewer. The hub may have slept only because of it: then it must look again.
    pub(crate) fn drop_handle(&self) {
        // The bell's fences order it with the hub's sleep, as they order a letter: `must_ring` comes after it here, and the
        // hub reads it after `prepare_to_sleep`. Release pairs with the Acquire of `has_handles`.
        if self.handles.fetch_sub(1, Ordering::Release) == 1
            && !self.closed.load(Ordering::Relaxed)
            && self.generation == fork_generation()
            && self.inbox.must_ring()
        {
            self.bell.ring();
        }
    }

    /// Whether a handle is left. Only the hub's thread calls this.
    pub(crate) fn has_handles(&self) -> bool {
        // Acquire: who finds none also finds every letter that they sent.
        self.handles.load(Ordering::Acquire) > 0
    }

    /// The bell, for the reactor.
    pub(crate) fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Takes the oldest letter. Only the hub's thread calls this.
    #[inline]
    pub(crate) fn take(&self) -> Option<Letter> {
        self.inbox.pop()
    }

    /// Whether a letter may be there; a few loads. Only the hub's thread calls this.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.inbox.has_mail()
    }

    /// Announces that the hub is about to sleep; false if a letter is there after all, and it must not.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        self.inbox.prepare_to_sleep()
    }

    /// The hub is awake again.
    pub(crate) fn woke(&self) {
        self.inbox.woke();
    }

    /// The hub ends.
    pub(crate) fn close(&self) {
        // Relaxed: see `send`.
        self.closed.store(true, Ordering::Relaxed);
    }
}
