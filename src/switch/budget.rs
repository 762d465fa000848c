//! The poll budget: how many turns may pass until the loop polls the outside world, that is, remote queue, descriptors
//! and timers.
//!
//! ```text
//!   a turn (a yield, a resumption by the loop)
//!     `- spend: count > 0, flag quiet ------------> goes on                                    (the fast path)
//!               count is 0, flag and hub quiet ---> renew: a new count; after some in a row, poll
//!               else poll_is_due, asked by main's loop:
//!                 flag raised: a tick is over ----> poll
//!                 not watched: read the clock ----> poll if QUANTUM is over, or the count
//!                 watched: count on behind the fast path; at its end poll
//! ```
//!
//! So an event waits for the end of the slice in which it comes, and then for QUANTUM or one tick of the monitor,
//! whichever of the two applies, but never for a *number* of slices: see `pure::preempt` for why there are two.
//!
//! A hub asks the monitor to watch its flag when [`SHORT_TURNS`] checkpoints in a row took less than [`SHORT_SPAN`]:
//! for slices so short a clock is dear and the monitor cheap, and for longer ones the reverse holds.
//!
//! The count also tells how many turns there were: what was granted, less what is left ([`turns`](Budget::turns)). And
//! main's loop can ask for one turn to come ([`look_at`](Budget::look_at)): then the count is fast up to that one only.
//!
//! * Invariant budget-1: while fibers are in the injection queue (see `run_loop`), `fast` is 0, so that each turn
//!   comes to main's loop, which serves both queues. Upheld by `hold` and `release`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Arc;

use crate::pure::preempt::{Preempt, PreemptFlag};
use crate::sys::clock::monotonic_ns;

/// The number of turns between two polls while slices are short. Go and tokio also chose 61: a prime, so that no
/// program's own rhythm locks on to it.
const BUDGET: u32 = 61;

/// The number of budgets in a row that a quiet hub gets without a poll: so at most a thousand turns.
const QUIET_BUDGETS: u32 = 15;

/// The least time between two polls of epoll while fibers are runnable, in nanoseconds: a yield takes a few, a poll
/// some 500, so polls take 1 % of the time at most.
pub(crate) const EPOLL_INTERVAL: u64 = 50_000;

/// The time from one poll to the next, and the time for which a thread may go on without giving way in calls that
/// could have waited; in nanoseconds, and while no monitor watches. With a monitor the time is one tick, which is as
/// long.
const QUANTUM: u64 = 1_000_000;

/// The units of IO that a fiber may do without waiting, before the fiber goes to the back of the run queue.
pub(crate) const IO_CREDIT: u8 = 128;

/// The units of IO that a fiber may have done before it waits for IO, to be injected when it is woken. A fiber that
/// has done more goes to the back of the run queue: it is served in its turn, and fibers that ask for little in
/// between.
pub(crate) const LIGHT: u8 = 16;

/// The turns of the injection queue for one turn of the run queue, while both have fibers. An injected fiber has
/// waited, and as a rule will soon wait again.
pub(crate) const INJECTED_TURNS: u8 = 8;

/// The number of checkpoints in a row that decide whether slices are short.
const SHORT_TURNS: u32 = 64;

/// The time in nanoseconds below which [`SHORT_TURNS`] checkpoints mean short slices: then a clock at each checkpoint
/// takes more than 2 % of the time, and a monitor 0.3 %. System calls make slices longer, so a hub that only serves
/// sockets needs no second OS thread.
const SHORT_SPAN: u64 = 64_000;

/// The time in nanoseconds for which a monitor is not tried again after one could not be started.
const NO_MONITOR_FOR: u64 = 1_000_000_000;

/// The poll budget of one root; see the picture of the file.
pub(crate) struct Budget {
    /// The turns left that need no decision.
    fast: Cell<u32>,
    /// The turns left behind the fast ones, until a poll.
    slow: Cell<u32>,
    /// The budgets left that a quiet hub gets without a poll.
    quiet: Cell<u32>,
    /// The budgets left that a quiet hub gets without a poll, while no turn may be fast; see
    /// [`hold_all`](Self::hold_all).
    held_quiet: Cell<u32>,
    /// The turns that were granted so far. The sum of those that were taken, `fast` and `slow`.
    granted: Cell<u64>,
    /// The number of the turn before which no more turns are fast, so that main's loop sees it; the greatest number for
    /// none.
    look_at: Cell<u64>,
    /// The flag that the monitor raises.
    flag: Arc<PreemptFlag>,
    /// The number of checkpoints since `since` at which the clock was read.
    short: Cell<u32>,
    /// The time since which checkpoints are counted, in monotonic nanoseconds.
    since: Cell<u64>,
    /// Whether the slices are short, so that main's loop is to ask the monitor.
    wants_monitor: Cell<bool>,
}

impl Budget {
    /// Creates a whole budget, with a flag that is not used before [`keep_time`](Self::keep_time).
    pub(crate) fn new() -> Budget {
        Budget {
            fast: Cell::new(BUDGET),
            slow: Cell::new(0),
            quiet: Cell::new(QUIET_BUDGETS),
            held_quiet: Cell::new(0),
            granted: Cell::new(u64::from(BUDGET)),
            look_at: Cell::new(u64::MAX),
            flag: Arc::new(PreemptFlag::new()),
            short: Cell::new(0),
            since: Cell::new(0),
            wants_monitor: Cell::new(false),
        }
    }

    /// Makes polls due by time as well, for a thread that has a hub from now on.
    pub(crate) fn keep_time(&self) {
        self.flag.unwatch();
    }

    /// Makes no poll due any more, for the child of a fork, where the outside world must not be polled.
    /// Async-signal-safe.
    pub(crate) fn stop(&self) {
        self.flag.retire();
        self.fast.set(u32::MAX);
    }

    /// Counts a turn. False if the caller must first find out whether a poll is due.
    #[inline(always)]
    pub(crate) fn spend(&self) -> bool {
        match self.fast.get().checked_sub(1) {
            Some(left) if !self.flag.is_set() => {
                self.fast.set(left);
                true
            }
            _ => false,
        }
    }

    /// Renews a used-up budget without a poll, if the hub is quiet, so that a poll could find nothing but the time,
    /// and if so many renewals in a row are allowed. Returns whether the budget was renewed; the turn is then counted.
    ///
    /// A poll costs a way to main's loop and a reading of the clock, some 80 ns together, and so a yield more than a
    /// nanosecond.
    pub(crate) fn renew(&self, is_quiet: impl FnOnce() -> bool) -> bool {
        // A slow rest or a raised flag means that a poll is due: only a plain end of the count may be renewed.
        let renews = self.quiet.get() > 0 && self.slow.get() == 0 && !self.flag.is_set() && is_quiet();
        if renews {
            self.quiet.set(self.quiet.get() - 1);
            self.grant(BUDGET);
            self.fast.set(BUDGET - 1);
            self.limit();
        }
        renews
    }

    /// Reports whether a call that need not wait has to find out whether the caller may go on.
    #[inline(always)]
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        self.flag.is_set()
    }

    /// Reports whether main's loop has to poll before a turn that `spend` refused. `last_poll` is the time of the
    /// latest poll, in monotonic nanoseconds; `watch` asks the monitor to watch the flag, and returns whether the
    /// monitor will.
    #[cold]
    #[inline(never)]
    pub(crate) fn poll_is_due(&self, last_poll: u64, watch: impl FnOnce(&Arc<PreemptFlag>) -> bool) -> bool {
        match self.flag.take() {
            Preempt::Yes => return true,
            Preempt::AskClock => {
                let now = self.read_clock();
                // Here, on the stack of main's loop, and not on a fiber's stack, which may be too small to start an OS
                // thread on.
                if self.wants_monitor.take() && !watch(&self.flag) {
                    self.since.set(now + NO_MONITOR_FOR);
                }
                if now.saturating_sub(last_poll) >= QUANTUM {
                    return true;
                }
                // The count goes on: remote ops must not wait longer than in a hub that is watched.
                if let Some(left) = self.fast.get().checked_sub(1) {
                    self.fast.set(left);
                    return false;
                }
            }
            Preempt::No => {}
        }
        // Count on behind the fast path; a poll is due at the end.
        match self.slow.get().checked_sub(1) {
            Some(left) => {
                self.slow.set(left);
                false
            }
            None => true,
        }
    }

    /// Reports whether the caller of a call that need not wait has to give way, after
    /// [`is_checkpoint_due`](Self::is_checkpoint_due). `last_poll` is as for [`poll_is_due`](Self::poll_is_due).
    #[cold]
    #[inline(never)]
    pub(crate) fn must_give_way(&self, last_poll: u64) -> bool {
        match self.flag.take() {
            Preempt::No => false,
            Preempt::Yes => true,
            Preempt::AskClock => self.read_clock().saturating_sub(last_poll) >= QUANTUM,
        }
    }

    /// Reads the clock, and notes whether that happens too often.
    fn read_clock(&self) -> u64 {
        let now = monotonic_ns();
        // Measure how long SHORT_TURNS checkpoints take; main's loop asks for a monitor if they are short.
        self.short.set(self.short.get() + 1);
        if self.short.get() == SHORT_TURNS {
            // `since` lies in the future after a monitor could not be started.
            let is_short = now.checked_sub(self.since.get()).is_some_and(|span| span < SHORT_SPAN);
            self.wants_monitor.set(is_short);
            self.short.set(0);
            self.since.set(self.since.get().max(now));
        }
        now
    }

    /// Makes a poll due at the next turn, if the latest poll is [`EPOLL_INTERVAL`] ago.
    pub(crate) fn hasten_poll(&self, last_poll: u64) {
        if monotonic_ns().saturating_sub(last_poll) >= EPOLL_INTERVAL {
            self.poll_next();
        }
    }

    /// Makes a poll due at the next turn.
    pub(crate) fn poll_next(&self) {
        // What is left is not taken.
        self.granted.set(self.turns());
        self.fast.set(0);
        self.slow.set(0);
        self.quiet.set(0);
        self.held_quiet.set(0);
    }

    /// Renews the budget at the begin of a poll. A poll that `may_wait` ends a turn in which no fiber was runnable; any
    /// other is followed by a turn that was not counted.
    pub(crate) fn begin_poll(&self, may_wait: bool) {
        let turns = if may_wait { self.turns().wrapping_sub(1) } else { self.turns().wrapping_add(1) };
        self.granted.set(turns.wrapping_add(u64::from(BUDGET)));
        self.fast.set(BUDGET);
        self.slow.set(0);
        self.quiet.set(QUIET_BUDGETS);
        self.limit();
    }

    /// Notes that so many turns more were granted.
    fn grant(&self, turns: u32) {
        self.granted.set(self.granted.get().wrapping_add(u64::from(turns)));
    }

    /// Returns how many turns there were: how often main's loop, a deputy or a yield took a fiber from a run queue, or
    /// a yield found none.
    pub(crate) fn turns(&self) -> u64 {
        self.granted.get().wrapping_sub(u64::from(self.fast.get()) + u64::from(self.slow.get()))
    }

    /// Sends the turn that follows after `turns` others to main's loop, and those after it, until
    /// [`look_away`](Self::look_away).
    pub(crate) fn look_at(&self, turns: u64) {
        self.look_at.set(self.turns().saturating_add(turns));
        self.limit();
    }

    /// Ends what [`look_at`](Self::look_at) has begun. Turns that are held stay so until [`release`](Self::release).
    pub(crate) fn look_away(&self) {
        self.look_at.set(u64::MAX);
    }

    /// Holds the turns from the one on that main's loop is to see.
    fn limit(&self) {
        if self.look_at.get() < u64::MAX {
            let left = self.look_at.get().saturating_sub(self.turns());
            let held = self.fast.get().saturating_sub(u32::try_from(left).unwrap_or(u32::MAX));
            self.fast.set(self.fast.get() - held);
            self.slow.set(self.slow.get() + held);
        }
    }

    /// Makes no turn fast, after a fiber was injected (budget-1).
    pub(crate) fn hold(&self) {
        self.slow.set(self.slow.get() + self.fast.take());
    }

    /// Makes no turn fast and no budget renewed, for a trace, which has to see each turn in main's loop. With
    /// [`renew_held`](Self::renew_held) the polls come as often as without.
    #[inline]
    pub(crate) fn hold_all(&self) {
        self.hold();
        if self.quiet.get() > 0 {
            self.held_quiet.set(self.quiet.take());
        }
    }

    /// Does for a held budget what [`renew`](Self::renew) does.
    #[inline]
    pub(crate) fn renew_held(&self, is_quiet: impl FnOnce() -> bool) -> bool {
        let is_over = self.slow.get() == 0 && self.fast.get() == 0;
        let renews = is_over && self.held_quiet.get() > 0 && !self.flag.is_set() && is_quiet();
        if renews {
            self.held_quiet.set(self.held_quiet.get() - 1);
            self.grant(BUDGET);
            self.slow.set(BUDGET - 1);
        }
        renews
    }

    /// Makes turns fast again, after the injection queue has become empty.
    pub(crate) fn release(&self) {
        self.fast.set(self.fast.get() + self.slow.take());
        self.limit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes turns while they are fast, `most` at most. Returns how many there were.
    fn fast_turns(budget: &Budget, most: u32) -> u32 {
        (0..most).take_while(|_| budget.spend()).count() as u32
    }

    #[test]
    fn the_turn_that_is_looked_at_comes_to_the_loop_and_those_before_it_are_fast() {
        let budget = Budget::new();
        assert_eq!(fast_turns(&budget, 3), 3);
        budget.look_at(5);
        assert_eq!((fast_turns(&budget, BUDGET), budget.turns()), (5, 8));
        // The turns that are held are neither lost nor given twice, also by a poll.
        budget.look_away();
        budget.release();
        assert_eq!((fast_turns(&budget, BUDGET), budget.turns()), (BUDGET - 8, u64::from(BUDGET)));
        budget.look_at(2);
        budget.begin_poll(false);
        assert_eq!(budget.turns(), u64::from(BUDGET) + 1, "the poll was in the place of a turn");
        assert_eq!(fast_turns(&budget, BUDGET), 1);
        // A turn that is far off changes nothing, nor does what is left when a poll comes early.
        budget.look_at(u64::MAX);
        budget.release();
        assert_eq!(fast_turns(&budget, BUDGET), BUDGET - 1);
        let turns = budget.turns();
        budget.begin_poll(true);
        budget.poll_next();
        assert_eq!((budget.turns(), fast_turns(&budget, 1)), (turns - 1, 0), "no fiber was runnable");
    }
}
