//! Random numbers for the tests of this layer: xorshift64*, with a seed that a failed test has on its output.
//!
//! Every run takes a new seed. `GREENLING_SEED=<number> cargo test <name>` repeats the run that failed.

#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};

/// A stream of random numbers. Equal seeds give equal streams.
pub(crate) struct Random {
    /// The state of the generator; never zero, which would be a fixed point.
    state: u64,
}

impl Random {
    /// Creates a stream with the seed of the environment, else with a new one. The seed is printed; the test harness
    /// shows the seed only if the test fails.
    pub(crate) fn new() -> Random {
        let seed = match std::env::var("GREENLING_SEED") {
            Ok(seed) => seed.parse().expect("GREENLING_SEED is a number"),
            // The standard library keys each `RandomState` with the system's randomness, which gives a seed without a
            // clock and without a dependency.
            Err(_) => RandomState::new().hash_one(0),
        };
        println!("GREENLING_SEED={seed}");
        Random { state: seed | 1 }
    }

    /// Returns the next 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `bound`, which is not 0. The slight bias of the remainder does not matter to a test.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a number of random *magnitude* below `2^bits`: 1, 1000 and 10^15 are about equally likely.
    pub(crate) fn magnitude(&mut self, bits: u64) -> u64 {
        let width = self.below(bits) + 1;
        self.next() >> (64 - width)
    }
}
