//! The shape of one stack slot.
//!
//! ```text
//! low addresses                                                                 high addresses
//! +-----------+----------------------------------------+---------+---------------+---------+
//! |   guard   |   stack, grows down                <--  | payload | control block | colour  |
//! +-----------+----------------------------------------+---------+---------------+---------+
//! ^ low       ^ low + GUARD                      base ^           ^ block     top ^   end ^
//! ```
//!
//! A slot is a power of two in size and aligned to it. The *colour* is 0 to 15 times 128 bytes, by slot number:
//! without it every stack top lies at the same page offset, all of them compete for the same few L1 sets, and a
//! yield among 1000 threads takes twice as long. Control block, payload and the first frames share one page, so an
//! idle fiber keeps 4 KiB resident: at the last colour 1.8 KiB of the page are left to payload and frames. A closure
//! aligned to a page or more takes two.
//!
//! That is the picture of a large payload. A small one lies inside the control block, and then the stack begins in the first
//! 16 bytes of the control block: corosensei keeps its parent link there, which every switch touches, as it does the words
//! beside it (`fiber::ControlBlock`).
//!
//! * Invariant S1: between `low` and `low + GUARD` every access faults. Upheld by `StackPool::acquire`, which
//!   installs the guard once, before the slot is handed out for the first time; discarding pages keeps it.
//! * Invariant S2: `low..end` belongs to one mapping that outlives every use of the slot. Upheld by `StackPool`,
//!   which unmaps only when it is dropped, and by `Root`, which drops it last.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use corosensei::stack::{Stack, StackPointer};

use crate::sys::mmap::page_size;

/// Bytes at the low end of each slot that fault. Four pages of 4 KiB, since C code compiled without stack probes may
/// step over a single one. On aarch64 a page may be 64 KiB, and a guard is whole pages.
pub(crate) const GUARD: usize = if cfg!(target_arch = "aarch64") { 64 * 1024 } else { 16 * 1024 };

/// The smallest slot: 64 KiB, of which 16 KiB are guard; on aarch64 twice as much, and half of it guard. A signal
/// frame with AVX-512 state alone takes 3 KiB.
pub(crate) const MIN_SHIFT: u8 = if cfg!(target_arch = "aarch64") { 17 } else { 16 };

/// The largest slot, 4 GiB.
pub(crate) const MAX_SHIFT: u8 = 32;

/// Distance between two colours: two cache lines, since the prefetcher fetches them in pairs.
const COLOUR_STEP: usize = 128;

/// Number of colours: 16 x 128 bytes spread the hot lines over half a page and leave the other half to the frames.
const COLOURS: usize = 16;

/// Bytes of a slot that are neither guard nor stack, at most: colour, control block, a small payload.
const OVERHEAD: usize = 4096;

/// One stack slot; a plain value, its meaning is the file's picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Lowest address of the slot; the guard starts here.
    pub(crate) low: usize,
    /// Slot size as a power of two.
    pub(crate) shift: u8,
    /// Which colour this slot has.
    colour: u8,
}

impl Slot {
    /// The slot number `index` of a chunk that starts at `chunk`, of `1 << shift` bytes.
    pub(crate) fn new(chunk: usize, index: usize, shift: u8) -> Slot {
        Slot { low: chunk + (index << shift), shift, colour: (index % COLOURS) as u8 }
    }

    /// The power of two that gives at least `stack_size` bytes of stack, or `None` if no slot is that large.
    pub(crate) fn shift_for(stack_size: usize) -> Option<u8> {
        let bytes = stack_size.checked_add(GUARD + OVERHEAD)?.checked_next_power_of_two()?;
        let shift = (bytes.trailing_zeros() as u8).max(MIN_SHIFT);
        (shift <= MAX_SHIFT).then_some(shift)
    }

    /// Bytes of stack that a slot of this power of two promises.
    pub(crate) fn stack_size(shift: u8) -> usize {
        (1usize << shift) - GUARD - OVERHEAD
    }

    /// The slot that a control block at `block` lies in.
    #[inline(always)]
    pub(crate) fn around(block: usize, shift: u8, colour: u8) -> Slot {
        Slot { low: block & !((1 << shift) - 1), shift, colour }
    }

    /// Where a control block of `size` bytes lies: at the coloured top.
    #[inline(always)]
    pub(crate) fn block_at(self, size: usize) -> NonNull<()> {
        match NonNull::new(ptr::with_exposed_provenance_mut(self.top() - size)) {
            Some(block) => block,
            None => unreachable!("a slot never starts at address 0"),
        }
    }

    /// Which colour this slot has.
    #[inline(always)]
    pub(crate) fn colour(self) -> u8 {
        self.colour
    }

    /// One past the highest address of the slot.
    pub(crate) fn end(self) -> usize {
        self.low + (1 << self.shift)
    }

    /// The coloured top: the control block ends here.
    #[inline]
    pub(crate) fn top(self) -> usize {
        self.end() - self.colour as usize * COLOUR_STEP
    }

    /// Lowest address of the stack proper.
    #[inline]
    pub(crate) fn stack_low(self) -> usize {
        self.low + GUARD
    }

    /// What a free slot may hold between two uses beside the `keep` pages at its top: offset from `low` and length, or
    /// nothing if the slot is that small. The control block lies in the top page.
    pub(crate) fn below_top(self, keep: usize) -> Option<(usize, usize)> {
        let end = (1usize << self.shift).checked_sub(keep * page_size())?;
        (end > GUARD).then(|| (GUARD, end - GUARD))
    }

    /// Whether `address` lies in this slot's guard.
    pub(crate) fn guards(self, address: usize) -> bool {
        (self.low..self.stack_low()).contains(&address)
    }
}

/// What corosensei runs on: the part of a slot below the payload.
///
/// Invariant S3: `base` is a multiple of 16 inside the slot whose guard starts at `low`, and nothing but the one
/// coroutine on this stack uses the bytes between them. Upheld by `fiber::launch`, which carves control block and
/// payload off the top before it makes one of these, but for the field of the control block that is kept for the stack's top.
#[derive(Debug)]
pub(crate) struct FiberStack {
    /// Highest address of the stack, 16-aligned.
    base: NonZeroUsize,
    /// Lowest address, the guard's.
    low: NonZeroUsize,
}

impl FiberStack {
    /// The stack of `slot` below `base`.
    ///
    /// # Panics
    /// If `base` is not a 16-aligned address inside the slot: the runtime's own mistake.
    #[inline]
    pub(crate) fn new(slot: Slot, base: usize) -> FiberStack {
        debug_assert!(base.is_multiple_of(16) && base > slot.stack_low() && base < slot.end());
        match (NonZeroUsize::new(base), NonZeroUsize::new(slot.low)) {
            (Some(base), Some(low)) => FiberStack { base, low },
            _ => unreachable!("a slot never starts at address 0"),
        }
    }
}

// SAFETY: the trait asks for 16-aligned ends, at least MIN_STACK_SIZE usable bytes, a guard at the low end and
// memory that stays until the value is dropped: invariants S3 (alignment, exclusive use), S1 (guard) and S2
// (lifetime); MIN_SHIFT leaves 44 KiB at the least, of which `fiber::fits` gives a quarter to the payload.
unsafe impl Stack for FiberStack {
    #[inline]
    fn base(&self) -> StackPointer {
        self.base
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_holds_at_least_the_stack_that_was_asked_for() {
        for size in [1, 4096, 40_000, 65_536, 240_000, 262_144, 1 << 20, 100 << 20] {
            let shift = Slot::shift_for(size).expect("a sane size");
            assert!(Slot::stack_size(shift) >= size, "{size}");
        }
        assert_eq!(Slot::shift_for(usize::MAX), None);
        assert_eq!(Slot::shift_for(5 << 30), None);
    }

    #[test]
    fn neighbouring_slots_have_different_colours() {
        let tops: Vec<_> = (0..COLOURS).map(|i| Slot::new(0x1000_0000, i, 18).top() % 4096).collect();
        let mut distinct = tops.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), COLOURS, "{tops:?}");
    }
}
