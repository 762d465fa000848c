//! A histogram of times, with bounds in powers of two, which one OS thread fills and any may read.
//!
//! ```text
//!   bucket    0       1       2       3    ..    23        24
//!          |------|-------|-------|-------|..|--------|---------->
//!               1 us    2 us    4 us    8 us       8.4 s             a time on a bound counts below it
//! ```
//!
//! All accesses are Relaxed: each number stands for itself, and guards no other data. A copy that is made while a time
//! is added may lack a part of it.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of bounds.
pub(crate) const BOUNDS: usize = 24;

/// The number of buckets: one below each bound, and one for what is above all of them.
pub(crate) const BUCKETS: usize = BOUNDS + 1;

/// Nanoseconds in the least bound.
const LEAST: u64 = 1_000;

/// Counts of times, by bucket.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// How many times fell into each bucket.
    buckets: [AtomicU64; BUCKETS],
    /// The sum of the times, in nanoseconds.
    sum: AtomicU64,
}

/// Returns the bound above a bucket, in nanoseconds; none for the last bucket.
pub(crate) fn bound(bucket: usize) -> Option<u64> {
    (bucket < BOUNDS).then(|| LEAST << bucket)
}

/// Returns the bucket that `nanos` falls into.
fn bucket_of(nanos: u64) -> usize {
    let units = nanos.div_ceil(LEAST).max(1);
    // The number of the first power of two that is not less: the bits of `units - 1`.
    ((u64::BITS - (units - 1).leading_zeros()) as usize).min(BOUNDS)
}

impl Histogram {
    /// Counts a time of `nanos` nanoseconds `times` times. Only one OS thread calls this, so that no instruction that
    /// locks the bus is needed.
    pub(crate) fn add(&self, nanos: u64, times: u64) {
        let add = |to: &AtomicU64, more| to.store(to.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(bucket_of(nanos)) {
            add(bucket, times);
        }
        add(&self.sum, nanos.wrapping_mul(times));
    }

    /// Returns the counts of the buckets, and the sum of the times in nanoseconds.
    pub(crate) fn counts(&self) -> ([u64; BUCKETS], u64) {
        let mut counts = [0; BUCKETS];
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        (counts, self.sum.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_below_its_bound() {
        for bucket in 0..BOUNDS {
            let bound = bound(bucket).unwrap();
            assert_eq!([bound - 1, bound, bound + 1].map(bucket_of), [bucket, bucket, bucket + 1]);
        }
        assert_eq!([0, 1, u64::MAX].map(bucket_of), [0, 0, BOUNDS]);
        assert_eq!([0, 3, BOUNDS].map(bound), [Some(1_000), Some(8_000), None]);
    }

    #[test]
    fn times_are_counted_with_their_weight() {
        let histogram = Histogram::default();
        histogram.add(1_500, 3);
        histogram.add(0, 1);
        let (counts, sum) = histogram.counts();
        assert_eq!((counts[0], counts[1], counts.iter().sum::<u64>(), sum), (1, 3, 4, 4_500));
    }
}
