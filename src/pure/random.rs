//! Random numbers: a stream that is drawn from a seed, and one step of a generator for callers that keep the state.
//!
//! | generator | state | for |
//! |---|---|---|
//! | splitmix64 (Steele, Lea and Flood, OOPSLA 2014) | any number, 0 too | schedules: each seed is a stream of its own |
//! | xorshift64 (Marsaglia, 2003) | any number but 0, which is a fixed point | hot paths: three shifts, no multiplication |
//!
//! Neither is for secrets.
#![forbid(unsafe_code)]

/// A state for [`xorshift`] to begin with, the same in every run, so that programs repeat.
pub(crate) const XORSHIFT_BEGIN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the state of xorshift64 that follows `state`, which is also the number drawn; its upper bits are the better
/// ones. 0 follows 0.
#[inline(always)]
pub(crate) fn xorshift(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    state
}

/// Returns the number below `bound`, which is less than 2^32, that 64 `random` bits give: Lemire's multiplication in
/// place of a division, of the upper bits.
#[inline(always)]
pub(crate) fn scaled(random: u64, bound: u64) -> u64 {
    ((random >> 32) * bound) >> 32
}

/// A stream of random numbers: splitmix64. Any seed will do.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Returns the stream of `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns the next 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is not 0 and less than 2^32.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        scaled(self.next(), bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_those_of_the_papers() {
        // The first numbers of the reference programs.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_eq!(xorshift(1), 0x4082_2041);
        assert_eq!(xorshift(0), 0);
    }

    #[test]
    fn each_number_below_a_bound_comes_as_often() {
        let (mut random, mut state) = (Random::new(7), XORSHIFT_BEGIN);
        let mut counts = [[0_u32; 5]; 2];
        for _ in 0..5_000 {
            state = xorshift(state);
            counts[0][random.below(5) as usize] += 1;
            counts[1][scaled(state, 5) as usize] += 1;
        }
        assert!(counts.iter().flatten().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }
}
