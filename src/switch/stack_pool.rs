//! The stack pool: slots come from the kernel once, and from a LIFO free list ever after.
//!
//! ```text
//! acquire:  warm (LIFO) --empty--> cold --empty--> next slot of the newest chunk --full--> map a new chunk
//! release:  push on warm; above WARM_LIMIT the oldest BATCH go to the kernel (DONTNEED) and then to cold
//! ```
//!
//! LIFO, because the slot released last is the one whose top lines are still in the cache. A cold slot costs one
//! page fault at its next use, but no memory; its guard stays, so it costs no system call.
//!
//! * Invariant A1: a chunk stays mapped until the pool is dropped, and each slot's control block, once written,
//!   stays readable as long: it either is that block or reads as zero. A stale handle may therefore always look at
//!   the `id` of its slot. Upheld here: only `Drop` unmaps, and `discard` leaves zero pages.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::stack::{GUARD, MAX_SHIFT, MIN_SHIFT, Slot};
use crate::sys::mmap::{GuardKind, Mapping, guard_kind};

/// Slots that are kept warm for each size. 4096 parked-and-gone fibers hold 16 MiB.
const WARM_LIMIT: usize = 4096;

/// How many slots are trimmed at a time, so that neighbours share one system call.
const BATCH: usize = 256;

/// Least bytes reserved at once; address space only.
const CHUNK: usize = 64 << 20;

/// Counters of a pool, as [`crate::hub::stack_stats`] shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackStats {
    /// Slots that some green thread or greenlet uses now (a finished thread that nobody joined yet counts).
    pub in_use: usize,
    /// Free slots that kept their pages.
    pub warm: usize,
    /// Free slots whose pages went back to the kernel.
    pub cold: usize,
    /// Slots ever made; address space, not memory.
    pub made: usize,
    /// Stacks given up for good when their OS thread ended, because their green thread could not be unwound; of the whole
    /// process, all OS threads together.
    pub leaked: usize,
}

/// One reservation of address space, cut into slots of one size.
#[derive(Debug)]
struct Chunk {
    /// The memory; unmapped when the pool goes.
    mapping: Mapping,
    /// How many slots have been handed out for the first time.
    used: usize,
    /// How many slots fit.
    capacity: usize,
}

/// All slots of one size.
#[derive(Debug, Default)]
struct Class {
    /// Free slots with their pages; the last one is the warmest.
    warm: Vec<Slot>,
    /// Free slots without pages.
    cold: Vec<Slot>,
    /// The reservations; only the last one has slots never used.
    chunks: Vec<Chunk>,
}

/// The stacks of one OS thread.
#[derive(Debug)]
pub(crate) struct StackPool {
    /// By slot size, `MIN_SHIFT` first.
    classes: [Class; (MAX_SHIFT - MIN_SHIFT) as usize + 1],
    /// See [`StackStats::in_use`].
    in_use: usize,
}

/// See [`StackStats::leaked`].
static LEAKED: AtomicUsize = AtomicUsize::new(0);

impl StackPool {
    /// A pool without any memory.
    pub(crate) fn new() -> StackPool {
        StackPool { classes: Default::default(), in_use: 0 }
    }

    /// A slot of `1 << shift` bytes with its guard in place.
    ///
    /// # Errors
    /// What mmap(2), madvise(2) or mprotect(2) said when address space, memory or, with `PROT_NONE` guards, the
    /// kernel's `vm.max_map_count` ran out.
    #[inline]
    pub(crate) fn acquire(&mut self, shift: u8) -> io::Result<Slot> {
        let class = &mut self.classes[(shift - MIN_SHIFT) as usize];
        let slot = match class.warm.pop() {
            Some(slot) => slot,
            None => class.acquire_slow(shift)?,
        };
        self.in_use += 1;
        Ok(slot)
    }

    /// Takes a slot back. Its function must have returned or unwound (invariant F2 of `fiber`).
    #[inline]
    pub(crate) fn release(&mut self, slot: Slot) {
        self.in_use -= 1;
        let class = &mut self.classes[(slot.shift - MIN_SHIFT) as usize];
        class.warm.push(slot);
        if class.warm.len() >= WARM_LIMIT + BATCH {
            class.cool(BATCH);
        }
    }

    /// Returns the pages of every free slot to the kernel.
    pub(crate) fn trim(&mut self) {
        for class in &mut self.classes {
            class.cool(class.warm.len());
        }
    }

    /// The counters.
    pub(crate) fn stats(&self) -> StackStats {
        // Relaxed: a statistic.
        let leaked = LEAKED.load(Ordering::Relaxed);
        let mut stats = StackStats { in_use: self.in_use, leaked, ..Default::default() };
        for class in &self.classes {
            stats.warm += class.warm.len();
            stats.cold += class.cold.len();
            stats.made += class.chunks.iter().map(|chunk| chunk.used).sum::<usize>();
        }
        stats
    }

    /// Every slot that was ever handed out, free ones included; the caller looks at its control block.
    pub(crate) fn made(&self) -> impl Iterator<Item = Slot> + '_ {
        self.classes.iter().enumerate().flat_map(|(class, slots)| {
            let shift = class as u8 + MIN_SHIFT;
            slots.chunks.iter().flat_map(move |chunk| {
                let start = chunk.mapping.base().as_ptr() as usize;
                (0..chunk.used).map(move |index| Slot::new(start, index, shift))
            })
        })
    }

    /// How deep the stack of `slot` has ever been used since its pages were last returned, in bytes below its top;
    /// whole pages.
    ///
    /// # Errors
    /// Those of mincore(2).
    pub(crate) fn high_water(&self, slot: Slot) -> io::Result<usize> {
        let class = &self.classes[(slot.shift - MIN_SHIFT) as usize];
        for chunk in &class.chunks {
            let start = chunk.mapping.base().as_ptr() as usize;
            if chunk.mapping.contains(slot.low) {
                let offset = slot.stack_low() - start;
                let len = slot.end() - slot.stack_low();
                let deepest = chunk.mapping.first_resident(offset, len)?;
                return Ok(deepest.map_or(0, |deepest| slot.top().saturating_sub(start + deepest)));
            }
        }
        Err(io::Error::other("the stack is not one of this thread's pool"))
    }

    /// Forgets the memory instead of unmapping it; for the one case in which something on `stacks` of them still lives.
    pub(crate) fn abandon(&mut self, stacks: usize) {
        // Relaxed: a statistic.
        LEAKED.fetch_add(stacks, Ordering::Relaxed);
        for class in &mut self.classes {
            for chunk in class.chunks.drain(..) {
                chunk.mapping.leak();
            }
        }
    }
}

impl Class {
    /// A slot that has no pages yet.
    #[cold]
    fn acquire_slow(&mut self, shift: u8) -> io::Result<Slot> {
        if let Some(slot) = self.cold.pop() {
            return Ok(slot);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.used == chunk.capacity) {
            let size = 1usize << shift;
            let len = size.max(CHUNK);
            let mapping = Mapping::reserve_aligned(len, size)?;
            self.chunks.push(Chunk { mapping, used: 0, capacity: len >> shift });
        }
        let Some(chunk) = self.chunks.last_mut() else { unreachable!("pushed above") };
        let start = chunk.mapping.base().as_ptr() as usize;
        // SAFETY: the slot was never handed out, so nobody uses any of its pages.
        unsafe { chunk.mapping.guard(chunk.used << shift, GUARD, guard_kind()) }.map_err(explain_guard)?;
        let slot = Slot::new(start, chunk.used, shift);
        chunk.used += 1;
        Ok(slot)
    }

    /// Returns the pages of the `count` coldest warm slots; neighbours in one call.
    #[cold]
    fn cool(&mut self, count: usize) {
        let mut slots: Vec<Slot> = self.warm.drain(..count).collect();
        slots.sort_unstable_by_key(|slot| slot.low);
        let mut run = 0;
        for at in 0..slots.len() {
            let last_of_run = slots.get(at + 1).is_none_or(|next| next.low != slots[at].end());
            if last_of_run {
                self.discard(slots[run].low, slots[at].end());
                run = at + 1;
            }
        }
        self.cold.append(&mut slots);
    }

    /// Discards the pages in `from..to`, which may span chunks that the kernel placed side by side.
    fn discard(&self, from: usize, to: usize) {
        for chunk in &self.chunks {
            let start = chunk.mapping.base().as_ptr() as usize;
            let (low, high) = (from.max(start), to.min(start + chunk.mapping.len()));
            if low < high {
                // A refusal costs memory, not correctness: the slot keeps its pages.
                // SAFETY: every slot in the range is free: its fiber was dismantled, and stale handles only read
                // the id, which becomes 0 (invariant A1).
                let _ = unsafe { chunk.mapping.discard(low - start, high - low) };
            }
        }
    }
}

/// Names the cure when `PROT_NONE` guards hit the kernel's limit on mappings.
#[cold]
fn explain_guard(error: io::Error) -> io::Error {
    if guard_kind() == GuardKind::Protect && error.raw_os_error() == Some(libc_enomem()) {
        return io::Error::new(
            error.kind(),
            "no guard for another stack: each PROT_NONE guard takes two memory mappings and vm.max_map_count is \
             reached; raise it with sysctl, or use Linux 6.13 or newer, whose guards take none",
        );
    }
    error
}

/// `ENOMEM`, the same number on every Linux.
const fn libc_enomem() -> i32 {
    12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_released_last_is_the_first_to_be_used_again() {
        let mut pool = StackPool::new();
        let first = pool.acquire(18).expect("memory");
        let second = pool.acquire(18).expect("memory");
        pool.release(first);
        pool.release(second);
        assert_eq!(pool.acquire(18).expect("memory").low, second.low);
        assert_eq!(pool.acquire(18).expect("memory").low, first.low);
    }

    #[test]
    fn the_pool_stops_growing_when_slots_are_reused() {
        let mut pool = StackPool::new();
        for _ in 0..3 {
            let slots: Vec<_> = (0..10_000).map(|_| pool.acquire(16).expect("memory")).collect();
            for slot in slots {
                pool.release(slot);
            }
        }
        let stats = pool.stats();
        assert_eq!((stats.made, stats.in_use), (10_000, 0));
        assert!(stats.warm < WARM_LIMIT + BATCH, "{stats:?}");
        assert_eq!(stats.warm + stats.cold, 10_000);
    }
}
