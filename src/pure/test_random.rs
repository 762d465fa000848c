//! Random numbers for the tests of this layer: xorshift64*, with a seed that a failed test has on its output.
//!
//! Every run takes a new seed. `GREENLING_SEED=<number> cargo test <name>` repeats the run that failed.

#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};

/// A stream of random numbers. Equal seeds give equal streams.
pub(crate) struct Random {
    /// The state of the generator; zero would be a fixed point, so it never is.
    state: u64,
}

impl Random {
    /// A stream with the seed of the environment, else a new one. The seed is printed; the test harness shows it only
    /// if the test fails.
    pub(crate) fn new() -> Random {
        let seed = match std::env::var("GREENLING_SEED") {
            Ok(seed) => seed.parse().expect("GREENLING_SEED is a number"),
            // The standard library keys each `RandomState` with the system's randomness, so that is where a seed is to
            // be had without a clock and without a dependency.
            Err(_) => RandomState::new().hash_one(0),
        };
        println!("GREENLING_SEED={seed}");
        Random { state: seed | 1 }
    }

    /// The next 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0. The slight bias of the remainder does not matter to a test.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number of random *magnitude*: 1, 1000 and 10^15 are about equally likely. Below `2^bits`.
    pub(crate) fn magnitude(&mut self, bits: u64) -> u64 {
        let width = self.below(bits) + 1;
        self.next() >> (64 - width)
    }
}
