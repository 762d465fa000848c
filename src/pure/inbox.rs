//! The inbox: where other OS threads leave messages for a hub, and learn whether they must ring for it.
//!
//! A queue for many pushers with a bell beside it. Neither side ever waits for the other here: the hub sleeps in its
//! reactor, and ringing means to write to the reactor's eventfd, which is the caller's job.
//!
//! ```text
//!     another OS thread                              the hub's OS thread
//!
//!     if inbox.push(message) {  ---- queue --->      while let Some(message) = inbox.pop() { .. }
//!         eventfd.write(1)      -- eventfd -->       if inbox.prepare_to_sleep() {
//!     }                                                  epoll_wait(..);
//!                                                        inbox.woke();
//!                                                    }
//! ```
//!
//! Invariant I1: when the hub sleeps after `prepare_to_sleep` has returned true, then for every message that is in the
//! queue some pusher was told to ring. `bell.rs` says why.
//!
//! Order: the messages of one pusher arrive in the order of its pushes. Those of several are in the order in which they
//! won their places in the queue.
//!
//! Not promised: that `pop` never waits. A pusher takes its place in the queue first and fills it then; if the kernel
//! stops it in between, `pop` spins and yields the OS thread until it has gone on.

#![forbid(unsafe_code)]

use super::bell::Bell;
#[cfg(not(all(test, loom)))]
use crossbeam_queue::SegQueue;
#[cfg(all(test, loom))]
use loom_queue::SegQueue;

/// Messages from many OS threads to one hub.
pub(crate) struct Inbox<T> {
    /// The messages. It allocates one block for every 31 of them.
    queue: SegQueue<T>,
    /// Whether the hub sleeps.
    bell: Bell,
}

impl<T> Inbox<T> {
    /// An empty inbox, whose hub is awake.
    pub(crate) fn new() -> Inbox<T> {
        Inbox { queue: SegQueue::new(), bell: Bell::new() }
    }

    /// Any thread: leaves a message. If it returns true, the caller must ring the hub's eventfd.
    #[must_use = "if this is true the hub sleeps, and will not wake up until the caller rings"]
    #[inline]
    pub(crate) fn push(&self, message: T) -> bool {
        self.queue.push(message);
        self.bell.must_ring()
    }

    /// Any thread: something else changed that the hub looks at after `prepare_to_sleep`. If it returns true, the caller must
    /// ring the hub's eventfd.
    #[must_use = "if this is true the hub sleeps, and will not wake up until the caller rings"]
    pub(crate) fn must_ring(&self) -> bool {
        self.bell.must_ring()
    }

    /// Hub: takes the oldest message. On an empty inbox this costs a fence; `has_mail` does not.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether there is no message.
    #[cfg(test)]
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Hub: whether there is a message. Two loads and nothing else (on x86-64 two plain ones), so it may be asked at every
    /// turn. It may miss a message that is just being pushed; the next turn, or `prepare_to_sleep`, sees it.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Hub: announces that it will sleep. True: it may; pushers ring from here on, and `woke` must follow. False: there is
    /// a message after all, and the hub counts as awake.
    #[inline]
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        self.bell.prepare_to_sleep();
        // The second look, without which `bell.rs` shows a wake-up lost.
        if self.queue.is_empty() {
            return true;
        }
        self.bell.woke();
        false
    }

    /// Hub: is awake again, for whatever reason.
    #[inline]
    pub(crate) fn woke(&self) {
        self.bell.woke();
    }
}

/// What stands in for the queue under loom, which does not know crossbeam's atomics.
#[cfg(all(test, loom))]
mod loom_queue {
    use loom::sync::Mutex;
    use std::collections::VecDeque;

    /// A locked deque with the face of crossbeam's `SegQueue`. Its lock orders more than the real one does, so it is the
    /// model in `bell.rs`, not one over this, that proves the fences necessary.
    pub(super) struct SegQueue<T> {
        /// The messages.
        messages: Mutex<VecDeque<T>>,
    }

    impl<T> SegQueue<T> {
        pub(super) fn new() -> SegQueue<T> {
            SegQueue { messages: Mutex::new(VecDeque::new()) }
        }

        pub(super) fn push(&self, message: T) {
            self.messages.lock().unwrap().push_back(message);
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.messages.lock().unwrap().pop_front()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.messages.lock().unwrap().is_empty()
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Condvar, Mutex};
    use std::sync::Arc;

    #[test]
    fn every_message_arrives() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let inbox = Arc::new(Inbox::new());
            let eventfd = Arc::new((Mutex::new(0), Condvar::new()));
            for message in 1..=2 {
                let (inbox, eventfd) = (inbox.clone(), eventfd.clone());
                loom::thread::spawn(move || {
                    if inbox.push(message) {
                        *eventfd.0.lock().unwrap() += 1;
                        eventfd.1.notify_one();
                    }
                });
            }
            let mut sum = 0;
            while sum < 3 {
                if let Some(message) = inbox.pop() {
                    sum += message;
                } else if inbox.prepare_to_sleep() {
                    let mut rings = eventfd.0.lock().unwrap();
                    while *rings == 0 {
                        rings = eventfd.1.wait(rings).unwrap();
                    }
                    *rings = 0;
                    drop(rings);
                    inbox.woke();
                }
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    #[test]
    fn an_inbox_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Inbox<Box<dyn FnOnce() + Send>>>();
    }

    #[test]
    fn a_message_for_a_busy_hub_rings_nobody() {
        let inbox = Inbox::new();
        assert!(!inbox.has_mail());
        assert!(!inbox.push(1));
        assert!(inbox.has_mail() && !inbox.is_empty());
        assert_eq!(inbox.pop(), Some(1));
        assert_eq!(inbox.pop(), None);
    }

    #[test]
    fn the_first_message_for_a_sleeping_hub_rings() {
        let inbox = Inbox::new();
        assert!(inbox.prepare_to_sleep());
        assert!(inbox.push(1));
        assert!(!inbox.push(2));
        inbox.woke();
        assert!(!inbox.push(3));
        assert!(std::iter::from_fn(|| inbox.pop()).eq(1..=3));
    }

    #[test]
    fn a_hub_with_mail_does_not_sleep() {
        let inbox = Inbox::new();
        assert!(!inbox.push(1));
        assert!(!inbox.prepare_to_sleep());
        assert!(!inbox.push(2), "the hub counts as awake again");
    }

    /// An eventfd made of std parts, which remembers how often it was rung.
    #[derive(Default)]
    struct EventFd {
        /// Whether there was a ring since the last wait.
        rung: Mutex<bool>,
        /// Where the hub waits.
        rings: Condvar,
        /// How often it was rung in all.
        count: AtomicU64,
    }

    impl EventFd {
        fn ring(&self) {
            // Relaxed: a statistic, read after the threads were joined.
            self.count.fetch_add(1, Ordering::Relaxed);
            *self.rung.lock().unwrap() = true;
            self.rings.notify_one();
        }

        /// Waits for a ring. A minute without one, while pushers push all the time, is a lost wake-up.
        fn wait(&self) {
            let guard = self.rung.lock().unwrap();
            let patience = Duration::from_secs(60);
            let (mut rung, timeout) = self.rings.wait_timeout_while(guard, patience, |rung| !*rung).unwrap();
            assert!(!timeout.timed_out(), "a wake-up was lost");
            *rung = false;
        }
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        let pushers = 3;
        let messages: u64 = if cfg!(miri) { 100 } else { 100_000 };
        let mut random = Random::new();
        let inbox = Inbox::new();
        let eventfd = EventFd::default();
        // A pusher may ring for an announcement that the hub takes back because it finds mail after all.
        let mut announced = 0;
        std::thread::scope(|scope| {
            for pusher in 0..pushers {
                let (inbox, eventfd) = (&inbox, &eventfd);
                let mut pauses: Vec<u64> = (0..64).map(|_| random.below(60)).collect();
                // One in 64 messages comes after a pause in which the hub has time to fall asleep.
                pauses[0] = 2_000;
                scope.spawn(move || {
                    for message in 0..messages {
                        for _ in 0..pauses[message as usize % pauses.len()] {
                            std::hint::spin_loop();
                        }
                        if inbox.push((pusher, message)) {
                            eventfd.ring();
                        }
                    }
                });
            }
            let mut expected = vec![0; pushers];
            while expected.iter().sum::<u64>() < messages * pushers as u64 {
                if let Some((pusher, message)) = inbox.pop() {
                    assert_eq!(message, expected[pusher], "in the order of this pusher's pushes");
                    expected[pusher] += 1;
                } else {
                    announced += 1;
                    if inbox.prepare_to_sleep() {
                        eventfd.wait();
                        inbox.woke();
                    }
                }
            }
        });
        assert!(inbox.is_empty());
        let rings = eventfd.count.into_inner();
        assert!(rings <= announced, "{rings} rings for {announced} announcements of sleep");
    }
}
