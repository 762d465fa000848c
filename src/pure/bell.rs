//! The bell: is the sleeper asleep, and must the pusher ring?
//!
//! One sleeper (a hub's OS thread) takes messages from a queue and sleeps in the kernel when there are none. Many
//! pushers (other OS threads) add messages. Ringing means to write to the sleeper's eventfd, a system call; so a
//! pusher should ring only if the sleeper sleeps, and once per sleep. This file holds neither the queue nor the
//! eventfd, and answers one question: *must I ring?*
//!
//! ```text
//!                prepare_to_sleep (sleeper)
//!      AWAKE ---------------------------------> ASLEEP
//!        ^                                       |  |
//!        |      must_ring (one pusher: true)     |  |
//!        +---------------------------------------+  |
//!        |      woke (sleeper)                      |
//!        +------------------------------------------+
//! ```
//!
//! Invariant bell-1: only the sleeper makes the state ASLEEP, and between two such moments at most one `must_ring` is
//! true.
//!
//! # The broken version: check the queue, then sleep
//!
//! | sleeper | pusher | queue | state |
//! |---|---|---|---|
//! | looks: the queue is empty | | 0 | AWAKE |
//! | | pushes | 1 | AWAKE |
//! | | sees AWAKE: no need to ring | 1 | AWAKE |
//! | becomes ASLEEP, sleeps | | 1 | ASLEEP |
//!
//! The message lies there and no pusher rings: a lost wake-up. The cure is to look once more *after* becoming ASLEEP.
//!
//! # Why the second look is enough, but only with fences
//!
//! Both sides do the same dance, each writing its own word before reading the other's:
//!
//! ```text
//!     sleeper                                  pusher
//!     1. state = ASLEEP                        1. push onto the queue
//!     2. fence (SeqCst)                        2. fence (SeqCst)
//!     3. look at the queue                     3. look at the state
//!     4. sleep only if it was empty            4. ring only if it was ASLEEP
//! ```
//!
//! The two fences have an order, as all SeqCst fences do. If the sleeper's comes first, the pusher's step 3 sees the
//! sleeper's step 1, and the pusher rings. If the pusher's comes first, the sleeper's step 3 sees the pusher's step 1,
//! and the sleeper stays awake.
//! Both may happen, which costs a needless ring. Neither cannot.
//!
//! Without the fences neither *can*. A processor keeps its stores in a buffer while it goes on with its loads (x86 does
//! this as well; StoreLoad is the one reordering that x86 permits), so each side's step 3 may read before its step 1 is
//! seen by the other. Acquire and Release do not forbid this: they order a load before what follows and a store after
//! what precedes, never a store before a later load.
//!
//! # Not promised
//!
//! - A ring may come late: a pusher that was told to ring may do so when the sleeper has long been awake for another
//!   reason, or sleeps again. So the sleeper must expect a ring without a message, and then try to sleep again.
//! - The queue's own order of memory (that a message seen is a message complete) is the queue's affair.

#![forbid(unsafe_code)]

// Loom is a dev-dependency, so it is there for the unit tests only.
#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU8, Ordering, fence};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU8, Ordering, fence};

/// The sleeper runs, or a ring is on the way to the sleeper. A pusher need not ring now: before its next sleep the
/// sleeper looks at the queue.
const AWAKE: u8 = 0;

/// The sleeper sleeps, or is about to and will look at the queue once more. The next pusher must ring.
const ASLEEP: u8 = 1;

/// The state of one sleeper, shared with its pushers. See the top of the file.
pub(crate) struct Bell {
    /// `AWAKE` or `ASLEEP`. Never read on its own: each access is next to a fence, or the comment there says why none
    /// is needed.
    state: AtomicU8,
}

impl Bell {
    /// Creates a bell with an awake sleeper.
    pub(crate) fn new() -> Bell {
        Bell { state: AtomicU8::new(AWAKE) }
    }

    /// Pusher: reports *after* pushing whether the caller must ring. At most one of several pushers gets true, and no
    /// other then rings.
    #[inline]
    pub(crate) fn must_ring(&self) -> bool {
        // Pairs with the fence in `prepare_to_sleep`: if that one is earlier, the load below sees ASLEEP (or what came
        // after it); if it is later, the sleeper's second look sees what the caller pushed.
        fence(Ordering::SeqCst);
        // A plain load first, because the sleeper of a busy hub is nearly always awake, and a load lets all pushers
        // share the cache line. Relaxed: the fence has done the work.
        if self.state.load(Ordering::Relaxed) == AWAKE {
            return false;
        }
        // ASLEEP => AWAKE, by one pusher only. Relaxed: the exchange hands nothing over, but only elects. What the
        // sleeper finds after the ring is ordered by the queue, and by the fences should the sleeper go to sleep again
        // at once.
        self.state.compare_exchange(ASLEEP, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Sleeper: announces a sleep. From here on pushers ring. The sleeper must now look at the queue once more, and
    /// then either sleep or not; in both cases `woke` comes after.
    #[inline]
    pub(crate) fn prepare_to_sleep(&self) {
        // AWAKE => ASLEEP. Relaxed: the fence makes the store visible in time.
        self.state.store(ASLEEP, Ordering::Relaxed);
        // Pairs with the fence in `must_ring`, see there. A store and a SeqCst fence, not a SeqCst store alone: that
        // would order nothing relative to the loads of a queue which are not SeqCst themselves.
        fence(Ordering::SeqCst);
    }

    /// Sleeper: notes the end of a sleep, after a ring, for another reason, or because the sleeper did not sleep after
    /// all.
    #[inline]
    pub(crate) fn woke(&self) {
        // ASLEEP => AWAKE, or AWAKE => AWAKE if a pusher was first. Relaxed: a pusher that still sees ASLEEP rings in
        // vain (or loses the exchange), which is permitted. A pusher that sees AWAKE relies on the look that the
        // sleeper takes after the fence of its next `prepare_to_sleep`.
        self.state.store(AWAKE, Ordering::Relaxed);
    }
}

/// Every interleaving with at most `PREEMPTIONS` preemptions, with every reordering that loom knows of:
/// `RUSTFLAGS="--cfg loom" cargo test --lib pure::bell --release`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::AtomicUsize;
    use loom::sync::{Condvar, Mutex};
    // Not loom's: that one panics when it is dropped while a deadlock is being reported, and a panic during a panic
    // aborts.
    use std::sync::Arc;

    /// How many pushers there are, with one message each. Loom's effort grows steeply with it.
    const PUSHERS: usize = 2;

    /// How often per run loom takes the processor from a thread that could go on.
    const PREEMPTIONS: usize = 4;

    /// An eventfd: a count of rings, on which one can wait.
    struct EventFd {
        /// Rings not yet taken by the sleeper.
        rings: Mutex<usize>,
        /// Where the sleeper waits.
        rung: Condvar,
    }

    /// The three verbs, right or wrong.
    struct Verbs {
        /// `Bell::must_ring`, or a wrong one.
        must_ring: fn(&Bell) -> bool,
        /// `Bell::prepare_to_sleep`, or a wrong one.
        prepare_to_sleep: fn(&Bell),
        /// Whether the sleeper looks at the queue after `prepare_to_sleep`.
        second_look: bool,
    }

    /// What this file offers.
    const RIGHT: Verbs =
        Verbs { must_ring: Bell::must_ring, prepare_to_sleep: Bell::prepare_to_sleep, second_look: true };

    /// `must_ring` without its fence.
    fn must_ring_unfenced(bell: &Bell) -> bool {
        bell.state.compare_exchange(ASLEEP, AWAKE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// `prepare_to_sleep` without its fence.
    fn prepare_to_sleep_unfenced(bell: &Bell) {
        bell.state.store(ASLEEP, Ordering::Release);
    }

    /// Runs the pushers and the sleeper until all messages are taken. Loom reports a lost wake-up as a deadlock.
    fn exchange(verbs: &'static Verbs) {
        let mut model = loom::model::Builder::new();
        // Unbounded, the search was not finished after eight minutes. The wrong versions below all fail with a bound
        // of 1 already.
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            let bell = Arc::new(Bell::new());
            // The queue is a bare count of messages, with no more order of memory than a queue must have. A mutex
            // around a deque would not do: its lock orders the state on both sides, so that the fences would not be
            // missed.
            let queue = Arc::new(AtomicUsize::new(0));
            let eventfd = Arc::new(EventFd { rings: Mutex::new(0), rung: Condvar::new() });
            let pushers: Vec<_> = (0..PUSHERS)
                .map(|_| {
                    let (bell, queue, eventfd) = (bell.clone(), queue.clone(), eventfd.clone());
                    loom::thread::spawn(move || {
                        queue.fetch_add(1, Ordering::Release);
                        let ring = (verbs.must_ring)(&bell);
                        if ring {
                            *eventfd.rings.lock().unwrap() += 1;
                            eventfd.rung.notify_one();
                        }
                        ring
                    })
                })
                .collect();

            let mut sleeps = 0;
            let mut taken = 0;
            while taken < PUSHERS {
                let there = queue.load(Ordering::Acquire);
                if there > taken {
                    taken = there;
                    continue;
                }
                (verbs.prepare_to_sleep)(&bell);
                sleeps += 1;
                if verbs.second_look && queue.load(Ordering::Acquire) > taken {
                    bell.woke();
                    continue;
                }
                let mut rings = eventfd.rings.lock().unwrap();
                while *rings == 0 {
                    rings = eventfd.rung.wait(rings).unwrap();
                }
                *rings = 0;
                drop(rings);
                bell.woke();
            }

            let rings = pushers.into_iter().map(|pusher| usize::from(pusher.join().unwrap())).sum::<usize>();
            assert!(rings <= sleeps, "{rings} rings for {sleeps} sleeps");
        });
    }

    #[test]
    fn no_wake_up_is_lost_and_a_sleep_is_rung_at_most_once() {
        exchange(&RIGHT);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_the_second_look_a_wake_up_is_lost() {
        const WRONG: Verbs = Verbs { second_look: false, ..RIGHT };
        exchange(&WRONG);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_the_fence_of_the_pusher_a_wake_up_is_lost() {
        const WRONG: Verbs = Verbs { must_ring: must_ring_unfenced, ..RIGHT };
        exchange(&WRONG);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_the_fence_of_the_sleeper_a_wake_up_is_lost() {
        const WRONG: Verbs = Verbs { prepare_to_sleep: prepare_to_sleep_unfenced, ..RIGHT };
        exchange(&WRONG);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_ring_is_asked_for_while_the_sleeper_is_awake() {
        let bell = Bell::new();
        assert!(!bell.must_ring());
        bell.prepare_to_sleep();
        bell.woke();
        assert!(!bell.must_ring());
    }

    #[test]
    fn one_pusher_per_sleep_rings() {
        let bell = Bell::new();
        for _ in 0..3 {
            bell.prepare_to_sleep();
            assert!(bell.must_ring());
            assert!(!bell.must_ring(), "another pusher rings already");
            bell.woke();
        }
    }
}
