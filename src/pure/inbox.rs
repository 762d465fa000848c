//! The inbox: a queue in which other OS threads leave messages for a hub, and learn whether they must ring for it.
//!
//! The queue has many pushers and a bell beside it. Neither side ever waits for the other here: the hub sleeps in its
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
//! Invariant inbox-1: when the hub sleeps after `prepare_to_sleep` has returned true, then for every message that is
//! in the queue some pusher was told to ring. `bell.rs` says why.
//!
//! # Once
//!
//! A message says *that* something is so, not how often: "the permit is there", "look again", "end". So a message that
//! is on its way already is not sent again, and the inbox holds each message at most once, however often others push
//! while the hub does not look.
//!
//! ```text
//!     another OS thread                              the hub's OS thread
//!
//!     lock                                           take the message off the queue
//!     not in `on_its_way`? put it there, push        lock
//!     unlock; ring, if the hub sleeps                take it out of `on_its_way`
//!                                                    unlock; do what it says
//! ```
//!
//! Invariant inbox-2: a message is in `on_its_way` from its push until after its pop. So a pusher that finds the
//! message there comes before the hub's removal in the order of the lock: the writes of this pusher before its push
//! happen before what the hub does next, and nothing is lost, although this pusher pushed nothing. A pusher that comes
//! after the removal pushes again.
//!
//! Order: the messages of one pusher arrive in the order of its pushes, but for those that were on their way already.
//! The messages of several pushers are in the order in which they won their places in the queue.
//!
//! Not promised: that `pop` never waits. A pusher takes its place in the queue first and fills the place then; if the
//! kernel stops the pusher in between, `pop` spins and yields the OS thread until the pusher has gone on.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

use super::bell::Bell;
#[cfg(not(all(test, loom)))]
use super::lock::lock;
#[cfg(all(test, loom))]
use super::lock::lock_model as lock;
#[cfg(not(all(test, loom)))]
use crossbeam_queue::SegQueue;
#[cfg(all(test, loom))]
use loom::sync::{Mutex, MutexGuard};
#[cfg(all(test, loom))]
use loom_queue::SegQueue;
#[cfg(not(all(test, loom)))]
use std::sync::{Mutex, MutexGuard};

/// The number of messages for which room is kept when none is on its way. Miri, for which a hash is slow, sees few.
const KEEP: usize = if cfg!(miri) { 32 } else { 1024 };

/// The messages on their way. The hashes have no seed: std's would be drawn for the OS thread before a simulation
/// begins there.
type OnItsWay<T> = HashSet<T, BuildHasherDefault<DefaultHasher>>;

/// Messages from many OS threads to one hub.
pub(crate) struct Inbox<T> {
    /// The messages. The queue allocates one block for every 31 of them.
    queue: SegQueue<T>,
    /// The messages that were pushed and not yet popped (inbox-2).
    on_its_way: Mutex<OnItsWay<T>>,
    /// The bell, which says whether the hub sleeps.
    bell: Bell,
}

impl<T: Copy + Eq + Hash> Inbox<T> {
    /// Creates an empty inbox with an awake hub.
    pub(crate) fn new() -> Inbox<T> {
        Inbox { queue: SegQueue::new(), on_its_way: Mutex::new(OnItsWay::default()), bell: Bell::new() }
    }

    /// Any thread: leaves a message, unless the same message is on its way already. If this returns true, the caller
    /// must ring the hub's eventfd.
    #[must_use = "if this is true the hub sleeps, and will not wake up until the caller rings"]
    #[inline]
    pub(crate) fn push(&self, message: T) -> bool {
        let mut on_its_way = self.on_its_way();
        if on_its_way.insert(message) {
            self.queue.push(message);
        }
        drop(on_its_way);
        // Also for a message that was there: its pusher may not have rung yet.
        self.bell.must_ring()
    }

    /// Locks the set of messages on their way. Holders of the lock only hash and compare.
    fn on_its_way(&self) -> MutexGuard<'_, OnItsWay<T>> {
        lock(&self.on_its_way)
    }

    /// Any thread: notes a change of something else that the hub looks at after `prepare_to_sleep`. If this returns
    /// true, the caller must ring the hub's eventfd.
    #[must_use = "if this is true the hub sleeps, and will not wake up until the caller rings"]
    pub(crate) fn must_ring(&self) -> bool {
        self.bell.must_ring()
    }

    /// Hub: takes the oldest message. On an empty inbox this costs a fence; `has_messages` does not.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        let message = self.queue.pop()?;
        let mut on_its_way = self.on_its_way();
        // From here on a push of the same message counts again.
        on_its_way.remove(&message);
        // Give back the memory of a burst.
        if on_its_way.is_empty() {
            on_its_way.shrink_to(KEEP);
        }
        Some(message)
    }

    /// Reports whether there is no message.
    #[cfg(test)]
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Hub: reports whether there is a message. Two loads and nothing else (on x86-64 two plain ones), cheap enough
    /// for every turn. The answer may miss a message that is just being pushed; the next turn, or `prepare_to_sleep`,
    /// sees that one.
    #[inline]
    pub(crate) fn has_messages(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Hub: announces a sleep. True: the hub may sleep; pushers ring from here on, and `woke` must follow. False:
    /// there is a message after all, and the hub counts as awake.
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

    /// Hub: notes the end of a sleep, for whatever reason.
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

    /// A locked deque with the face of crossbeam's `SegQueue`. Its lock orders more than the real one does, so it is
    /// the model in `bell.rs`, not one over this, that proves the fences necessary.
    pub(super) struct SegQueue<T> {
        /// The messages in the order of their pushes.
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

    /// Two pushers say the same, each after a write of its own: the hub acts after it has seen both writes, or is told
    /// twice. Relaxed writes, so that nothing but the inbox orders them.
    #[test]
    fn a_pusher_that_finds_its_message_on_its_way_is_seen_all_the_same() {
        use loom::sync::atomic::{AtomicUsize, Ordering};
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let inbox = Arc::new(Inbox::new());
            let written = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let pushers: Vec<_> = (0..2)
                .map(|number| {
                    let (inbox, written) = (inbox.clone(), written.clone());
                    loom::thread::spawn(move || {
                        written[number].store(1, Ordering::Relaxed);
                        let _ = inbox.push(7);
                    })
                })
                .collect();
            let seen = || written.iter().map(|word| word.load(Ordering::Relaxed)).sum::<usize>();
            let before_the_end = inbox.pop().map(|_| seen());
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            match (before_the_end, inbox.pop()) {
                (Some(2), _) | (_, Some(_)) => {}
                (seen, None) => panic!("a message was lost: {seen:?}"),
            }
            assert_eq!(inbox.pop(), None);
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
        shared::<Inbox<u64>>();
    }

    #[test]
    fn what_is_on_its_way_is_not_sent_again() {
        let inbox = Inbox::new();
        assert!(inbox.prepare_to_sleep());
        assert!(inbox.push(1), "the first one rings");
        let pushes = if cfg!(miri) { 100 } else { 1_000_000 };
        (0..pushes).for_each(|_| assert!(!inbox.push(1)));
        assert!(!inbox.push(2));
        assert_eq!(inbox.queue.len(), 2);
        assert!(std::iter::from_fn(|| inbox.pop()).eq([1, 2]));
        inbox.woke();
        // It was taken, so the next one is news again.
        assert!(inbox.prepare_to_sleep() && inbox.push(1));
        assert_eq!(inbox.pop(), Some(1));
        let many = if cfg!(miri) { 5 * KEEP } else { 10_000 };
        (0..many).for_each(|n| assert!(!inbox.push(n)));
        while inbox.pop().is_some() {}
        assert!(inbox.on_its_way().capacity() < 4 * KEEP, "the room for many goes back");
    }

    #[test]
    fn a_message_for_a_busy_hub_rings_no_bell() {
        let inbox = Inbox::new();
        assert!(!inbox.has_messages());
        assert!(!inbox.push(1));
        assert!(inbox.has_messages() && !inbox.is_empty());
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
        // A pusher may ring for an announcement that the hub takes back because it finds remote queue after all.
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
