//! The bytes of a block that has just been made: what a used block is overwritten with.
//!
//! ```text
//!   x86-64     | surplus | module .. module | struct pthread |         aarch64: struct pthread first, then modules
//!                        | <-------- the image ----------> |
//! ```
//!
//! An image is right as long as the same modules are loaded. Each block keeps the one it was made from.
//!
//! * Invariant tls-image-1: the image covers the thread-locals of each module that lies in the block, `struct pthread`
//!   and the rseq area; a word that points into the block is a distance from the thread pointer and is listed. Upheld
//!   by [`Layout::take`](super::Layout).

#![forbid(unsafe_code)]

use std::ops::Range;

use super::modules::Stamp;

/// The bytes of a fresh block.
#[derive(Debug)]
pub(super) struct Image {
    /// From the thread pointer to the first byte.
    pub(super) low: isize,
    pub(super) words: Vec<usize>,
    /// The words that an ended thread may have changed: two tables apart, which are empty when a thread has ended well.
    pub(super) parts: [Range<usize>; 3],
    /// The words that point into the block: where, and the distance from the thread pointer.
    pub(super) relative: Vec<(isize, usize)>,
    /// The modules that do not lie in the block: number, and the entry of the dtv while the thread has not used it.
    pub(super) lazy: Vec<(usize, usize)>,
    /// Where the others begin, by number: from the thread pointer.
    pub(super) starts: Vec<(usize, isize)>,
    /// Which modules this is the image of.
    pub(super) stamp: Stamp,
}

impl Image {
    /// Returns the bytes of a range that is counted from the thread pointer.
    pub(super) fn bytes(&self, range: Range<isize>) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_ne_bytes());
        let skipped = range.start.saturating_sub(self.low).max(0) as usize;
        let length = (range.end - range.start).max(0) as usize;
        bytes.skip(skipped).take(length).collect()
    }
}
