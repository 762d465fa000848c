//! Mail from other OS threads: an inbox, a queue of work, and one bell for both.
//!
//! Any OS thread may push; the hub's thread drains it at each look. The bell (an eventfd in the hub's epoll set)
//! is rung only when the hub sleeps or is about to, and once however many letters arrive: see `pure::bell` for why
//! no wake-up can be lost between "the inbox is empty" and "I sleep".
//!
//! The drop of the last handle (a `Thread`, or a `HubHandle`) is news as well, if the hub sleeps because its holder might
//! have sent something: now nobody can, and that is a deadlock. So it rings, too.
//!
//! # Work, and the end of the hub
//!
//! A letter that nobody reads is no loss: whom it would have woken is gone. Work is different. A closure that was posted
//! and is never started has a joiner who waits. So each piece of work is either started by the hub or *abandoned*, by
//! whoever finds out that the hub will not start it. Both sides do the dance of `pure::bell`: write, fence, read.
//!
//! ```text
//!     the hub, at its end                        a poster
//!     1. refusing = true                         1. push the work
//!     2. fence (SeqCst)                          2. fence (SeqCst)
//!     3. take all work there is                  3. refusing? take all work there is, and abandon it
//! ```
//!
//! * Invariant L1: a piece of work is started or abandoned, once. If the hub's fence comes first, the poster's step 3 sees
//!   `refusing`; if the poster's comes first, the hub's step 3 sees the work. Both may look; the queue gives it to one.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crossbeam_queue::SegQueue;

use crate::pure::inbox::Inbox;
use crate::switch::root::{Parcel, Root};
use crate::sys::eventfd::EventFd;
use crate::sys::fork::fork_generation;

/// One letter. A fiber is named by a parcel, which only its own root opens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Letter {
    /// Give this fiber its permit.
    Unpark(Parcel),
    /// Wake this fiber: what it waits for is done.
    Wake(Parcel),
    /// Kill this fiber.
    Kill(Parcel),
}

/// Something that a hub is to start on behalf of another OS thread.
pub(crate) trait Work: Send + Sync {
    /// The hub's thread, in a look: makes a fiber of it. Runs no foreign code.
    fn start(self: Arc<Self>, root: &'static Root);

    /// Any thread: the hub will never start it, or has ended while it ran. Foreign destructors may run.
    fn abandon(&self);
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
    /// What is to be started.
    work: SegQueue<Arc<dyn Work>>,
    /// No work is started any more (L1).
    refusing: AtomicBool,
    /// Handles that may still post work, or kill.
    posters: AtomicUsize,
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
            work: SegQueue::new(),
            refusing: AtomicBool::new(false),
            posters: AtomicUsize::new(0),
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

    /// Posts work; wakes the hub if it sleeps. If the hub does not start any more, the work is abandoned, now. Usable
    /// from any OS thread, but foreign destructors may run.
    pub(crate) fn post(&self, work: Arc<dyn Work>) {
        // Relaxed: the first look only saves work.
        if self.refusing.load(Ordering::Relaxed) || self.generation != fork_generation() {
            return work.abandon();
        }
        self.work.push(work);
        // Pairs with the fence in `refuse` (L1).
        fence(Ordering::SeqCst);
        if self.refusing.load(Ordering::Relaxed) {
            while let Some(work) = self.work.pop() {
                work.abandon();
            }
        } else if self.inbox.must_ring() {
            self.bell.ring();
        }
    }

    /// The hub starts what is there now, and after that nothing any more.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::Relaxed);
        // Pairs with the fence in `post` (L1).
        fence(Ordering::SeqCst);
    }

    /// Takes the oldest work. Only the hub's thread calls this.
    pub(crate) fn take_work(&self) -> Option<Arc<dyn Work>> {
        // `pop` costs a fence even if the queue is empty.
        if self.work.is_empty() { None } else { self.work.pop() }
    }

    /// One more handle that may post work.
    pub(crate) fn add_poster(&self) {
        // Relaxed: as in `add_handle`.
        self.posters.fetch_add(1, Ordering::Relaxed);
    }

    /// One fewer.
    pub(crate) fn drop_poster(&self) {
        self.one_fewer(&self.posters);
    }

    /// Whether a handle is left that may post work. Only the hub's thread calls this.
    pub(crate) fn has_posters(&self) -> bool {
        // Acquire: see `one_fewer`.
        self.posters.load(Ordering::Acquire) > 0
    }

    /// One more handle.
    pub(crate) fn add_handle(&self) {
        // Relaxed: who adds one has one, or is the hub's own thread.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// One handle fewer. The hub may have slept only because of it: then it must look again.
    pub(crate) fn drop_handle(&self) {
        self.one_fewer(&self.handles);
    }

    /// Takes one off a count. The hub may have slept only because of it: then it must look again.
    fn one_fewer(&self, count: &AtomicUsize) {
        // The bell's fences order it with the hub's sleep, as they order a letter: `must_ring` comes after it here, and the
        // hub reads it after `prepare_to_sleep`. Release pairs with the Acquire of `has_handles` and `has_posters`.
        if count.fetch_sub(1, Ordering::Release) == 1
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

    /// Whether a letter or work may be there; a few loads. Only the hub's thread calls this.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.inbox.has_mail() || !self.work.is_empty()
    }

    /// Announces that the hub is about to sleep; false if a letter or work is there after all, and it must not.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        if !self.inbox.prepare_to_sleep() {
            return false;
        }
        // The bell's second look, at the second queue: `post` asks `must_ring` after its push.
        if self.work.is_empty() {
            return true;
        }
        self.inbox.woke();
        false
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often it was abandoned; is never started here.
    struct Count(AtomicUsize);

    impl Work for Count {
        fn start(self: Arc<Self>, _: &'static Root) {
            unreachable!("nobody looks");
        }

        fn abandon(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_hub_with_work_does_not_sleep() {
        let mail = Mail::new().unwrap();
        assert!(mail.prepare_to_sleep());
        mail.woke();
        // The hub is awake, so this rings nobody.
        mail.post(Arc::new(Count(AtomicUsize::new(0))));
        assert!(mail.has_mail());
        assert!(!mail.prepare_to_sleep());
        assert!(mail.take_work().is_some() && mail.take_work().is_none());
        assert!(mail.prepare_to_sleep());
    }

    #[test]
    fn work_for_a_hub_that_refuses_is_abandoned_once_and_what_came_before_is_the_hubs() {
        let mail = Mail::new().unwrap();
        let [early, late] = [(), ()].map(|()| Arc::new(Count(AtomicUsize::new(0))));
        mail.post(early.clone());
        mail.refuse();
        mail.post(late.clone());
        assert_eq!(late.0.load(Ordering::Relaxed), 1);
        assert_eq!(early.0.load(Ordering::Relaxed), 0);
        assert!(mail.take_work().is_some() && mail.take_work().is_none());
    }
}
