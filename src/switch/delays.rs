//! Delays from ready to run: how long fibers that were woken or spawned wait for the CPU, for a histogram.
//!
//! To take the time of each wake-up and of each turn would cost more than they do. So of the wake-ups from one poll to
//! the next one is taken, by chance, and counted for all those that were not counted so far. The fiber and the time are
//! noted when it is pushed into a run queue, and how many fibers are before it: that turn has to come to main's loop
//! (`Budget::look_at`), and the turns before it stay fast.
//!
//! ```text
//!   a poll      the next poll
//!   | A B C     | D E F        D      E                 F       |      of three, the second was chosen
//!   | pushed    | pushed       fast   main's loop adds  fast    |
//!   |           |   E: noted          its delay, for A to F     |
//! ```
//!
//! Nothing of this is on the way while no delays are taken: the fast paths are taken away as for a trace (`traced`).
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::fiber::Fiber;
use super::root::{DELAYS, Root};
use super::sampler::Sampler;
use crate::pure::histogram::Histogram;
use crate::sys::clock::monotonic_ns;

impl Root {
    /// Takes delays from now on and counts them in `histogram`, or takes none any more.
    pub(crate) fn set_delays(&self, histogram: Option<Arc<Histogram>>) {
        self.set_traced(DELAYS, histogram.is_some());
        *self.sampler.borrow_mut() = histogram.map(|histogram| Box::new(Sampler::new(histogram)));
        self.watch_queues();
        // Turns that were held for a sample are fast again after the next poll.
        self.budget.look_away();
    }

    /// Begins a new choice, at a poll.
    pub(crate) fn begin_delays(&self) {
        if let Some(sampler) = self.sampler.borrow().as_deref() {
            sampler.begin();
        }
    }

    /// Counts that `fiber` was woken or spawned, behind `before` others of its queue. Called in the middle of the push,
    /// and so does not use the queues.
    pub(super) fn note_runnable(&self, fiber: Fiber, before: usize) {
        if let Some(sampler) = self.sampler.borrow().as_deref()
            && sampler.choose()
        {
            sampler.sample.set(Some((fiber, monotonic_ns())));
            // While fibers are injected no turn is fast anyhow, whichever queue this was.
            self.budget.look_at(before as u64);
        }
    }

    /// Counts the delay of `fiber`, which main's loop has taken from a queue, if it is the sample.
    fn note_turn(&self, fiber: Fiber) {
        let sampler = self.sampler.borrow();
        if let Some(sampler) = sampler.as_deref()
            && let Some((sample, since)) = sampler.sample.get()
            && sample == fiber
        {
            sampler.sample.set(None);
            sampler.histogram.add(monotonic_ns().saturating_sub(since), sampler.uncounted.take());
            self.budget.look_away();
            self.release_turns();
        }
    }

    /// Takes the next fiber for main's loop, while a trace is on, a hook is set, or delays are taken. The observed form
    /// of `pick`: `None` if no fiber was runnable.
    #[cold]
    #[inline(never)]
    pub(super) fn pick_observed(&self) -> Option<Fiber> {
        if self.is_simulated() {
            // Time stands still, so there is no delay to take.
            return self.pick_simulated();
        }
        let fiber = if self.sees_turns() { self.pick_traced() } else { self.pick_plainly() };
        if let Some(fiber) = fiber {
            self.note_turn(fiber);
        }
        fiber
    }
}
