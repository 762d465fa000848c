//! The counters of each hub, as other OS threads may read them.
//!
//! A hub's own state is made of `Cell`s, which no other OS thread may look at, and a hub that computes answers no
//! question. So the hub leaves a copy of its figures where all can read:
//!
//! ```text
//!   the hub's OS thread                            any OS thread
//!     poll: counts by load and store                 all: the list of hubs ---> copy: loads, and how old they are
//!           copies its gauges, at most once in COPY_INTERVAL, and before each sleep
//! ```
//!
//! Only polls do that: a yield, a wake-up, a park and a spawn have not one instruction for it. Threads that were
//! spawned are counted all the same, since each has an id, and ids are given out in order; and so are turns, by what is
//! left of the budget. Explicit switches are not counted, because that would be an instruction in each.
//!
//! A turn that is long shows as a long time from one poll to the next: a hub that works polls after each turn that has
//! taken a millisecond, so what is counted here as a turn of 300 ms is one turn and at most a millisecond besides.
//!
//! All accesses are Relaxed: each figure stands for itself, and guards no other data. The figures of a copy need not be
//! of the same poll.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::pure::histogram::{BUCKETS, Histogram};
use crate::switch::stack_pool::StackStats;
use crate::sys::fork_lock::ForkLock;
use crate::sys::process::thread_id;

/// The least time between two copies of the gauges while the hub does not sleep, in nanoseconds.
const COPY_INTERVAL: u64 = 1_000_000;

/// How long a turn may be until its time is held-up time, in nanoseconds: Go's scheduler preempts after as long.
pub(super) const HELD_UP_FROM: u64 = 10_000_000;

/// The counters of the hubs of this process, some of which have ended. The monitor takes the lock often, so a fork
/// meanwhile is no rare thing.
static HUBS: ForkLock<Vec<Weak<Counters>>> = ForkLock::new();

/// A number that only the hub's OS thread changes, and any may read.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Returns what was counted.
    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds `more`. Only the hub's OS thread calls this, so that no instruction that locks the bus is needed.
    #[inline]
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    /// Makes the number `other`, if that is greater. Only the hub's OS thread calls this.
    #[inline]
    fn raise_to(&self, other: u64) {
        if other > self.get() {
            self.0.store(other, Ordering::Relaxed);
        }
    }
}

/// What a hub tells of itself when it copies its gauges.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    /// The ids given out to threads and greenlets.
    pub(crate) spawned: u64,
    /// The turns of fibers.
    pub(crate) turns: u64,
    /// The threads and greenlets that have started and not ended.
    pub(crate) live: usize,
    /// The threads that can run.
    pub(crate) runnable: usize,
    /// The entries of the timer wheel.
    pub(crate) timers: usize,
    /// The stacks, by state.
    pub(crate) stacks: StackStats,
}

/// Whether a hub works, and for how long it was held up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    /// When the present turn began, in monotonic nanoseconds; 0 while the hub sleeps.
    pub(super) working_since: u64,
    /// The sum of turns of [`HELD_UP_FROM`] and more that are over, in nanoseconds.
    pub(super) held_up: u64,
    /// How many such turns there were.
    pub(super) held_turns: u64,
}

impl Pulse {
    /// Returns how long the present turn has lasted at `now`, in nanoseconds, without the time before `floor`; 0 if
    /// that is not long.
    pub(super) fn turn(&self, now: u64, floor: u64) -> u64 {
        let turn = now.saturating_sub(self.working_since.max(floor));
        if self.working_since == 0 || turn < HELD_UP_FROM { 0 } else { turn }
    }
}

/// The counters of one hub.
#[derive(Debug)]
pub(crate) struct Counters {
    /// The number of the hub's root.
    pub(crate) hub: u64,
    /// The kernel's number of the hub's OS thread.
    pub(super) os_thread: i32,
    /// The hub has ended.
    ended: AtomicBool,
    /// The number of polls.
    pub(super) polls: Count,
    /// The calls of epoll_wait.
    pub(super) epoll_calls: Count,
    /// The events that these calls brought.
    pub(super) epoll_events: Count,
    /// The timers that woke a thread.
    pub(super) timers_fired: Count,
    /// The remote ops carried out, and the pieces of work started for other hubs.
    pub(super) remote_ops: Count,
    /// The longest turn, in nanoseconds.
    longest_turn: Count,
    /// The sum of turns of [`HELD_UP_FROM`] and more, in nanoseconds.
    held_up: Count,
    /// How many such turns there were.
    held_turns: Count,
    /// When the present turn began, in monotonic nanoseconds; 0 while the hub sleeps. One word for both, so that a hub
    /// that wakes up is not taken for one that has worked all the time.
    working_since: AtomicU64,
    /// The greatest number of runnable threads at the end of a poll or in a copy.
    runnable_max: Count,
    /// The delays from ready to run, as far as they are taken.
    pub(super) delays: Arc<Histogram>,
    /// When the gauges were copied, in monotonic nanoseconds.
    copied_at: AtomicU64,
    /// The copies of [`Gauges`].
    spawned: AtomicU64,
    turns: AtomicU64,
    live: AtomicUsize,
    runnable: AtomicUsize,
    timers: AtomicUsize,
    stacks_in_use: AtomicUsize,
    stacks_warm: AtomicUsize,
    stacks_cold: AtomicUsize,
    stacks_made: AtomicUsize,
}

/// What the fields of [`Counters`] with the same names held at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) hub: u64,
    /// When the gauges were copied, in monotonic nanoseconds.
    pub(crate) copied_at: u64,
    pub(crate) polls: u64,
    pub(crate) epoll_calls: u64,
    pub(crate) epoll_events: u64,
    pub(crate) timers_fired: u64,
    pub(crate) remote_ops: u64,
    pub(crate) longest_turn: u64,
    pub(crate) held_up: u64,
    pub(crate) runnable_max: usize,
    /// The counts of the buckets, and the sum in nanoseconds.
    pub(crate) delays: ([u64; BUCKETS], u64),
    pub(crate) gauges: Gauges,
}

impl Counters {
    /// Makes the counters of the hub with this number, and puts them on the list of the process.
    pub(super) fn enlist(hub: u64, now: u64) -> Arc<Counters> {
        let counters = Arc::new(Counters {
            hub,
            os_thread: thread_id().cast_signed(),
            ended: AtomicBool::new(false),
            polls: Count::default(),
            epoll_calls: Count::default(),
            epoll_events: Count::default(),
            timers_fired: Count::default(),
            remote_ops: Count::default(),
            longest_turn: Count::default(),
            held_up: Count::default(),
            held_turns: Count::default(),
            working_since: AtomicU64::new(now),
            runnable_max: Count::default(),
            delays: Arc::default(),
            copied_at: AtomicU64::new(now),
            spawned: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            runnable: AtomicUsize::new(0),
            timers: AtomicUsize::new(0),
            stacks_in_use: AtomicUsize::new(0),
            stacks_warm: AtomicUsize::new(0),
            stacks_cold: AtomicUsize::new(0),
            stacks_made: AtomicUsize::new(0),
        });
        let mut hubs = HUBS.lock();
        hubs.retain(|hub| hub.strong_count() > 0);
        hubs.push(Arc::downgrade(&counters));
        counters
    }

    /// Takes the counters off the list: the hub ends.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Notes that the fibers have run from `from`, the end of the latest poll, to `to`, without another poll.
    #[inline]
    pub(super) fn note_turn(&self, from: u64, to: u64) {
        // While there is no thread but main, main holds up nothing.
        if self.live.load(Ordering::Relaxed) > 0 {
            let turn = to.saturating_sub(from);
            self.longest_turn.raise_to(turn);
            if turn >= HELD_UP_FROM {
                self.held_up.add(turn);
                self.held_turns.add(1);
            }
        }
    }

    /// Notes that the hub sleeps from now on.
    #[inline]
    pub(super) fn note_sleep(&self) {
        self.working_since.store(0, Ordering::Relaxed);
    }

    /// Notes that a turn begins at `now`.
    #[inline]
    pub(super) fn begin_turn(&self, now: u64) {
        self.working_since.store(now, Ordering::Relaxed);
    }

    /// Returns what the watch looks at.
    pub(super) fn pulse(&self) -> Pulse {
        Pulse {
            working_since: self.working_since.load(Ordering::Relaxed),
            held_up: self.held_up.get(),
            held_turns: self.held_turns.get(),
        }
    }

    /// Notes how many fibers are runnable.
    #[inline]
    pub(super) fn note_runnable(&self, runnable: usize) {
        self.runnable_max.raise_to(runnable as u64);
    }

    /// Reports whether the gauges were copied long ago.
    #[inline]
    pub(super) fn copy_is_due(&self, now: u64) -> bool {
        now.saturating_sub(self.copied_at.load(Ordering::Relaxed)) >= COPY_INTERVAL
    }

    /// Leaves `gauges` for others to read.
    pub(super) fn copy_from(&self, now: u64, gauges: &Gauges) {
        self.note_runnable(gauges.runnable);
        self.spawned.store(gauges.spawned, Ordering::Relaxed);
        self.turns.store(gauges.turns, Ordering::Relaxed);
        self.live.store(gauges.live, Ordering::Relaxed);
        self.runnable.store(gauges.runnable, Ordering::Relaxed);
        self.timers.store(gauges.timers, Ordering::Relaxed);
        self.stacks_in_use.store(gauges.stacks.in_use, Ordering::Relaxed);
        self.stacks_warm.store(gauges.stacks.warm, Ordering::Relaxed);
        self.stacks_cold.store(gauges.stacks.cold, Ordering::Relaxed);
        self.stacks_made.store(gauges.stacks.made, Ordering::Relaxed);
        self.copied_at.store(now, Ordering::Relaxed);
    }

    /// Returns the figures as they were left.
    pub(crate) fn figures(&self) -> Figures {
        let stacks = StackStats {
            in_use: self.stacks_in_use.load(Ordering::Relaxed),
            warm: self.stacks_warm.load(Ordering::Relaxed),
            cold: self.stacks_cold.load(Ordering::Relaxed),
            made: self.stacks_made.load(Ordering::Relaxed),
            ..StackStats::default()
        };
        Figures {
            hub: self.hub,
            // First, so that the age is not less than that of any gauge.
            copied_at: self.copied_at.load(Ordering::Relaxed),
            polls: self.polls.get(),
            epoll_calls: self.epoll_calls.get(),
            epoll_events: self.epoll_events.get(),
            timers_fired: self.timers_fired.get(),
            remote_ops: self.remote_ops.get(),
            longest_turn: self.longest_turn.get(),
            held_up: self.held_up.get(),
            runnable_max: usize::try_from(self.runnable_max.get()).unwrap_or(usize::MAX),
            delays: self.delays.counts(),
            gauges: Gauges {
                spawned: self.spawned.load(Ordering::Relaxed),
                turns: self.turns.load(Ordering::Relaxed),
                live: self.live.load(Ordering::Relaxed),
                runnable: self.runnable.load(Ordering::Relaxed),
                timers: self.timers.load(Ordering::Relaxed),
                stacks,
            },
        }
    }
}

/// Returns the counters of all hubs of this process, the oldest hub first.
pub(crate) fn all() -> Vec<Arc<Counters>> {
    // A hub that ended stays on the list until the next one comes. The child of a fork has a list of its own.
    let is_there = |counters: &Arc<Counters>| !counters.ended.load(Ordering::Relaxed);
    let mut all: Vec<_> = HUBS.lock().iter().filter_map(Weak::upgrade).filter(is_there).collect();
    all.sort_unstable_by_key(|counters| counters.hub);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_counts_as_held_up_from_ten_milliseconds_on_and_if_others_live() {
        let counters = Counters::enlist(0, 0);
        counters.note_turn(0, HELD_UP_FROM);
        assert_eq!(counters.figures().held_up, 0, "there is no thread");
        counters.copy_from(1, &Gauges { live: 1, ..Gauges::default() });
        counters.note_turn(5, HELD_UP_FROM + 4);
        assert_eq!(counters.figures().held_up, 0, "a nanosecond is missing");
        counters.note_turn(0, HELD_UP_FROM);
        counters.note_turn(0, 2 * HELD_UP_FROM);
        counters.note_turn(7, 6);
        let figures = counters.figures();
        assert_eq!((figures.held_up, figures.longest_turn), (3 * HELD_UP_FROM, 2 * HELD_UP_FROM));
    }

    #[test]
    fn a_hub_that_ended_is_on_no_list() {
        let counters = Counters::enlist(u64::MAX, 0);
        let listed = || all().iter().any(|other| other.hub == u64::MAX);
        assert!(listed());
        counters.end();
        assert!(!listed());
    }
}
