//! The numbers that a question is made of: splitmix64, so that each seed gives its own question everywhere.
#![forbid(unsafe_code)]

/// A source of numbers.
pub(crate) struct Draw(u64);

impl Draw {
    /// Makes the source of a seed.
    pub(crate) fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    /// Returns the next number, below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The bounds are small, so that the unevenness does not show.
        (z ^ (z >> 31)) % bound
    }

    /// Returns one of `choices`.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
