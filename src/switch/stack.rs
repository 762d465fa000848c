//! The shape of one stack slot: guard, stack, payload, control block, colour.
//!
//! ```text
//! low addresses                                                                 high addresses
//! +-----------+----------------------------------------+---------+---------------+---------+
//! |   guard   |   stack, grows down                <--  | payload | control block | colour  |
//! +-----------+----------------------------------------+---------+---------------+---------+
//! ^ low       ^ low + GUARD                      base ^           ^ block     top ^   end ^
//! ```
//!
//! A slot is a power of two in size and aligned to that size. The *colour* is 0 to 15 times 128 bytes, by slot number.
//! Without colours every stack top lies at the same page offset, all tops compete for the same few sets of the
//! first-level cache, and a yield among 1000 threads takes twice as long. Control block, payload and the first frames
//! share one page, so an idle fiber keeps 4 KiB resident: at the last colour 1.8 KiB of the page are left to payload
//! and frames. A closure aligned to a page or more takes two pages.
//!
//! The picture shows a large payload. A small payload lies inside the control block, and the stack then begins in the
//! first 16 bytes of the control block. There corosensei keeps its parent link, which every switch touches together
//! with the words beside it (`control_block::ControlBlock`).
//!
//! * Invariant stack-1: between `low` and `low + GUARD` every access faults. Upheld by `StackPool::acquire`, which
//!   installs the guard before the slot is handed out, unless the slot has one: discarding pages keeps the guard.
//! * Invariant stack-2: `low..end` belongs to one mapping that outlives every use of the slot. Upheld by `StackPool`,
//!   which unmaps only when the pool is dropped, and by `Root`, which drops the pool last.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use corosensei::stack::{Stack, StackPointer};

use crate::sys::mmap::page_size;

/// The bytes at the low end of each slot that fault. Four pages of 4 KiB, since C code compiled without stack probes
/// may step over a single page. On aarch64 a page may be 64 KiB, and a guard is whole pages.
pub(crate) const GUARD: usize = if cfg!(target_arch = "aarch64") { 64 * 1024 } else { 16 * 1024 };

/// The smallest slot: 64 KiB, of which 16 KiB are guard; on aarch64 twice as much, and half of it guard. A signal
/// frame with AVX-512 state alone takes 3 KiB.
pub(crate) const MIN_SHIFT: u8 = if cfg!(target_arch = "aarch64") { 17 } else { 16 };

/// The largest slot, 4 GiB.
pub(crate) const MAX_SHIFT: u8 = 32;

/// The distance between two colours: two cache lines, since the prefetcher fetches lines in pairs.
pub(super) const COLOUR_STEP: usize = 128;

/// The number of colours: 16 x 128 bytes spread the hot lines over half a page and leave the other half to the frames.
pub(super) const COLOURS: usize = 16;

/// The most bytes of a slot that are neither guard nor stack: colour, control block, a small payload.
const OVERHEAD: usize = 4096;

/// One stack slot: a plain value, which means what the picture of the file shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The lowest address of the slot, at which the guard starts.
    pub(crate) low: usize,
    /// The size of the slot as a power of two.
    pub(crate) shift: u8,
    /// The colour of the slot, by its number.
    colour: u8,
}

impl Slot {
    /// Returns the slot number `index`, of `1 << shift` bytes, of a chunk that starts at `chunk`.
    pub(crate) fn new(chunk: usize, index: usize, shift: u8) -> Slot {
        Slot { low: chunk + (index << shift), shift, colour: (index % COLOURS) as u8 }
    }

    /// Returns the power of two that gives at least `stack_size` bytes of stack, or `None` if no slot is that large.
    pub(crate) fn shift_for(stack_size: usize) -> Option<u8> {
        // Guard and overhead come on top, and a slot is a power of two.
        let bytes = stack_size.checked_add(GUARD + OVERHEAD)?.checked_next_power_of_two()?;
        let shift = (bytes.trailing_zeros() as u8).max(MIN_SHIFT);
        (shift <= MAX_SHIFT).then_some(shift)
    }

    /// Returns how many bytes of stack a slot of this power of two promises.
    pub(crate) fn stack_size(shift: u8) -> usize {
        (1usize << shift) - GUARD - OVERHEAD
    }

    /// Returns the slot in which a control block at `block` lies.
    #[inline(always)]
    pub(crate) fn around(block: usize, shift: u8, colour: u8) -> Slot {
        Slot { low: block & !((1 << shift) - 1), shift, colour }
    }

    /// Returns where a control block of `size` bytes lies: at the coloured top.
    #[inline(always)]
    pub(crate) fn block_at(self, size: usize) -> NonNull<()> {
        match NonNull::new(ptr::with_exposed_provenance_mut(self.top() - size)) {
            Some(block) => block,
            None => unreachable!("a slot never starts at address 0"),
        }
    }

    /// Returns the colour of the slot.
    #[inline(always)]
    pub(crate) fn colour(self) -> u8 {
        self.colour
    }

    /// Returns the address one past the highest of the slot.
    pub(crate) fn end(self) -> usize {
        self.low + (1 << self.shift)
    }

    /// Returns the coloured top, at which the control block ends.
    #[inline]
    pub(crate) fn top(self) -> usize {
        self.end() - self.colour as usize * COLOUR_STEP
    }

    /// Returns the lowest address of the stack proper.
    #[inline]
    pub(crate) fn stack_low(self) -> usize {
        self.low + GUARD
    }

    /// Returns what a free slot may hold between two uses beside the `keep` pages at its top, as the offset from `low`
    /// and the length; nothing if the slot is that small. The control block lies in the top page.
    pub(crate) fn below_top(self, keep: usize) -> Option<(usize, usize)> {
        let end = (1usize << self.shift).checked_sub(keep * page_size())?;
        (end > GUARD).then(|| (GUARD, end - GUARD))
    }

    /// Reports whether `address` lies in the guard of this slot.
    pub(crate) fn guards(self, address: usize) -> bool {
        (self.low..self.stack_low()).contains(&address)
    }
}

/// The stack that corosensei runs on: the part of a slot below the payload.
///
/// Invariant stack-3: `base` is a multiple of 16 inside the slot with the guard at `low`, and only the one coroutine
/// on this stack uses the bytes between them. Upheld by `payload::launch`, which carves control block and payload off
/// the top before it makes a `FiberStack`, but for the field of the control block that is kept for the stack's top.
#[derive(Debug)]
pub(crate) struct FiberStack {
    /// The highest address of the stack, 16-aligned; in the uppermost byte the size of the slot as a power of two. One
    /// word in place of two, since the first cache line of the control block has no room for more. No address of a
    /// program uses that byte.
    packed: NonZeroUsize,
}

/// Where the size of the slot lies in the word of a [`FiberStack`].
const SHIFT_AT: u32 = 56;

impl FiberStack {
    /// Returns the stack of `slot` below `base`.
    ///
    /// # Panics
    /// In debug builds if `base` is not a 16-aligned address inside the slot, which is a mistake of the runtime.
    #[inline]
    pub(crate) fn new(slot: Slot, base: usize) -> FiberStack {
        debug_assert!(base.is_multiple_of(16) && base > slot.stack_low() && base < slot.end());
        match NonZeroUsize::new(base | usize::from(slot.shift) << SHIFT_AT) {
            Some(packed) => FiberStack { packed },
            None => unreachable!("a slot never starts at address 0"),
        }
    }
}

// SAFETY: the trait asks for 16-aligned ends, at least MIN_STACK_SIZE usable bytes, a guard at the low end and memory
// that stays until the value is dropped: invariants stack-3 (alignment, exclusive use), stack-1 (guard) and stack-2
// (lifetime); MIN_SHIFT leaves 44 KiB at the least, of which `payload::fits` gives a quarter to the payload.
unsafe impl Stack for FiberStack {
    #[inline]
    fn base(&self) -> StackPointer {
        match NonZeroUsize::new(self.packed.get() & ((1 << SHIFT_AT) - 1)) {
            Some(base) => base,
            None => unreachable!("a slot never starts at address 0"),
        }
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        // The base may be the end of the slot at most, so the byte below it is in the slot.
        let low = (self.base().get() - 1) & !((1 << (self.packed.get() >> SHIFT_AT)) - 1);
        match NonZeroUsize::new(low) {
            Some(low) => low,
            None => unreachable!("a slot never starts at address 0"),
        }
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
