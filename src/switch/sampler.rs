//! The sampler: chooses the wake-ups of which the delay is taken. `delays` says when it is asked.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Arc;

use super::fiber::Fiber;
use crate::pure::histogram::Histogram;
use crate::pure::random::{XORSHIFT_BEGIN, xorshift};

/// What takes the delays of one root.
pub(crate) struct Sampler {
    /// Where they are counted.
    pub(super) histogram: Arc<Histogram>,
    /// The fiber of which the delay is taken, and since when it is runnable, in monotonic nanoseconds. It is only
    /// compared: it leaves its queue through main's loop, or is never seen again.
    pub(super) sample: Cell<Option<(Fiber, u64)>>,
    /// The wake-ups since the latest poll.
    wakes: Cell<u64>,
    /// The number of the wake-up that becomes the sample, from 1.
    chosen: Cell<u64>,
    /// The wake-ups for which the next delay is counted.
    pub(super) uncounted: Cell<u64>,
    /// The state of the random numbers, never 0.
    random: Cell<u64>,
}

impl Sampler {
    /// Makes a sampler that counts in `histogram`.
    pub(super) fn new(histogram: Arc<Histogram>) -> Sampler {
        Sampler {
            histogram,
            sample: Cell::new(None),
            wakes: Cell::new(0),
            chosen: Cell::new(1),
            uncounted: Cell::new(0),
            random: Cell::new(XORSHIFT_BEGIN),
        }
    }

    /// Begins a new choice, at a poll: among as many wake-ups as there were before it.
    pub(super) fn begin(&self) {
        self.random.set(xorshift(self.random.get()));
        self.chosen.set(1 + self.random.get() % self.wakes.take().max(1));
    }

    /// Counts a wake-up, and reports whether it becomes the sample. One that has not run yet stays: a long delay must
    /// not be given up.
    pub(super) fn choose(&self) -> bool {
        self.uncounted.set(self.uncounted.get() + 1);
        self.wakes.set(self.wakes.get() + 1);
        self.wakes.get() == self.chosen.get() && self.sample.get().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wake_up_of_a_choice_becomes_the_sample_as_often() {
        let sampler = Sampler::new(Arc::default());
        let mut chosen = [0_u32; 8];
        assert!(sampler.choose(), "the first one of all");
        for _ in 0..8_000 {
            // As many as before, but for the first time.
            sampler.begin();
            (0..8).filter(|_| sampler.choose()).for_each(|wake| chosen[wake] += 1);
        }
        assert!(chosen.iter().all(|times| (800..1_200).contains(times)), "{chosen:?}");
        assert_eq!((chosen.iter().sum::<u32>(), sampler.uncounted.get()), (8_000, 64_001));
    }

    #[test]
    fn a_hub_that_wakes_one_at_a_time_has_all_delays_taken() {
        let sampler = Sampler::new(Arc::default());
        for _ in 0..100 {
            sampler.begin();
            assert_eq!([sampler.choose(), sampler.choose()], [true, false]);
            // A poll at which none was woken changes nothing.
            sampler.wakes.set(1);
            sampler.begin();
            sampler.begin();
        }
    }
}
