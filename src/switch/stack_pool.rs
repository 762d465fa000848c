//! The stack pool: slots come from the kernel once, and from a LIFO free list ever after.
//!
//! ```text
//! acquire:  warm (LIFO) --empty--> cold --empty--> next slot of the newest chunk --full--> map a new chunk
//! release:  push on warm
//!
//!   warm:   | tepid: not used in this second | used and released in this second   <-- pop, push
//!           ^ first                          ^ low                              ^ end
//!             `--> the kernel (DONTNEED) --> cold
//! ```
//!
//! LIFO, because the slot released last is the one whose top lines are still in the cache. A cold slot costs one page
//! fault at its next use, but no memory; its guard stays, so it costs no system call.
//!
//! # What free stacks keep
//!
//! A page fault costs fifty times what a spawn costs, so 100 000 threads that end at once and come back a moment later
//! must find their pages; and if they do not come back, the memory must go. Both follow from one number for each size,
//! `low`: the least length that `warm` had since the second began. The slots below it were not used in all that time,
//! and since the list is LIFO they are the first ones in it.
//!
//! * *Whole slots.* [`StackPool::tend`], which the hub calls when it looks at the clock, ends a second by taking what
//!   lies below `low`, less [`KEEP`], as surplus, and from then on cools [`COOL_MOST`] of it every 20 ms: at most some
//!   milliseconds at a time. A hub that falls asleep with more than [`KEEP`] warm slots wakes up for this
//!   ([`StackPool::tend_at`]), with fewer it never does, and an idle hub stays idle.
//! * *Deep pages.* One deep call leaves its pages in the slot. Nothing cheap says which slot had one: the dirty mark
//!   would have to lie where every deep frame passes, and a large frame skips it. So every [`PERIOD`] releases the
//!   pages below the [`KEEP_PAGES`] top ones are discarded in [`CLEAN_MOST`] warm slots, in turn. Asking mincore(2)
//!   first would cost three times as much as discarding nothing. 32 x 0.45 us in 65 536 releases is 0.2 ns for each.
//! * A thread that uses greenlets only has no hub and no clock. There [`PERIODS`] periods stand for a second, some
//!   300 ms of nothing but spawning; with an idle program the memory stays until `hub::trim_stacks`.
//!
//! Rejected: a fixed limit. With 4096 warm slots, 100 000 threads that come and go cost 96 000 page faults each time.
//!
//! * Invariant A1: a chunk stays mapped until the pool is dropped, and each slot's control block, once written,
//!   stays readable as long: it either is that block or reads as zero. A stale handle may therefore always look at
//!   the `id` of its slot. Upheld here: only `Drop` unmaps, and `discard` leaves zero pages.
//! * Invariant A2: a slot is in `warm`, in `cold` or handed out, in exactly one of them, and only free slots are
//!   discarded. Upheld by `acquire`, which takes it off its list, and `release`, called once for each `acquire`.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::stack::{GUARD, MAX_SHIFT, MIN_SHIFT, Slot};
use crate::sys::mmap::{GuardKind, Mapping, page_size};
use crate::sys::signal::{self, AltStack, Classify};

/// Warm slots of each size that stay warm for ever. What they hold is bounded by what 64 threads used at once.
const KEEP: usize = 64;

/// Slots cooled at a time, so that it takes a few milliseconds at most.
const COOL_MOST: usize = 2048;

/// Releases between two looks at deep pages.
const PERIOD: u32 = 65_536;

/// Periods that stand for a second where nobody has a clock.
const PERIODS: u32 = 256;

/// Slots whose deep pages are discarded at such a look.
const CLEAN_MOST: usize = 32;

/// Pages at the top of a warm slot that it keeps: the one that every thread touches, and one for ordinary calls.
pub(crate) const KEEP_PAGES: usize = 2;

/// How long a slot lies unused before it is surplus, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Time between two steps of cooling the surplus, in nanoseconds.
const STEP: u64 = 20_000_000;

/// Least bytes reserved at once; address space only. Each further chunk is as large as all before it together, so that
/// finding the chunk of a slot takes a few steps with a million of them.
const CHUNK: usize = 64 << 20;

/// Most bytes reserved at once, unless one slot is larger.
const CHUNK_MOST: usize = 16 << 30;

/// Stacks that no thread will ever use again, because something on them could not be unwound. In the whole process: the
/// pool they came from is gone with its OS thread.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

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
    /// A bit for each slot, by its number: whether it is cold, so that even a look at its control block would cost a page
    /// fault. Shorter than the slots if the rest is not.
    cold: Vec<u64>,
}

/// All slots of one size. At all times `first <= low <= warm.len()`.
#[derive(Debug, Default)]
struct Class {
    /// From `first` on the free slots with their pages; the last one is the warmest.
    warm: Vec<Slot>,
    /// Entries at the start of `warm` that have been cooled already; they leave it in large batches.
    first: usize,
    /// The least length that `warm` had since the second began.
    low: usize,
    /// How many of the slots from `first` on are to be cooled, unless they are used before.
    surplus: usize,
    /// Where in `warm` the next look at deep pages begins.
    cursor: usize,
    /// Free slots without pages.
    cold: Vec<Slot>,
    /// The reservations; only the last one has slots never used.
    chunks: Vec<Chunk>,
}

/// How far somebody got through all slots of a pool; see [`StackPool::next_with_pages`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    /// The size of slots, as an index into the classes.
    class: usize,
    /// The chunk of that class.
    chunk: usize,
    /// The slot of that chunk.
    index: usize,
}

/// The stacks of one OS thread.
#[derive(Debug)]
pub(crate) struct StackPool {
    /// By slot size, `MIN_SHIFT` first.
    classes: [Class; (MAX_SHIFT - MIN_SHIFT) as usize + 1],
    /// Slots handed out.
    in_use: usize,
    /// Releases until the next look at deep pages.
    countdown: u32,
    /// Such looks until a second is taken to be over.
    periods: u32,
    /// When the second ends, in monotonic nanoseconds.
    second_ends: u64,
    /// When to cool the next slots, in monotonic nanoseconds.
    next_step: u64,
    /// Who recognises a fault in a guard.
    classify: Classify,
    /// The signal stack of this OS thread; there since the first chunk.
    alt_stack: Option<AltStack>,
}

impl StackPool {
    /// A pool without any memory. Its first chunk makes the process report faults that `classify` knows.
    pub(crate) fn new(classify: Classify) -> StackPool {
        StackPool {
            classes: Default::default(),
            in_use: 0,
            countdown: PERIOD,
            periods: PERIODS,
            second_ends: 0,
            next_step: 0,
            classify,
            alt_stack: None,
        }
    }

    /// A slot of `1 << shift` bytes with its guard in place.
    ///
    /// # Errors
    /// What mmap(2), madvise(2) or mprotect(2) said when address space, memory or, with `PROT_NONE` guards, the
    /// kernel's `vm.max_map_count` ran out. The pool is unharmed, and the next call tries again.
    #[inline]
    pub(crate) fn acquire(&mut self, shift: u8) -> io::Result<Slot> {
        let class = &mut self.classes[(shift - MIN_SHIFT) as usize];
        let slot = if class.warm.len() > class.first
            && let Some(slot) = class.warm.pop()
        {
            class.low = class.low.min(class.warm.len());
            slot
        } else {
            self.acquire_slow(shift)?
        };
        self.in_use += 1;
        Ok(slot)
    }

    /// Takes a slot back. Its function must have returned or unwound (invariant F2 of `fiber`).
    #[inline]
    pub(crate) fn release(&mut self, slot: Slot) {
        self.in_use -= 1;
        self.classes[(slot.shift - MIN_SHIFT) as usize].warm.push(slot);
        self.countdown -= 1;
        if self.countdown == 0 {
            self.clean();
        }
    }

    /// Returns the pages of every free slot to the kernel.
    pub(crate) fn trim(&mut self) {
        for class in &mut self.classes {
            class.cool(class.warm());
        }
    }

    /// Cools what is due at `now`, in monotonic nanoseconds.
    #[inline]
    pub(crate) fn tend(&mut self, now: u64) {
        if now >= self.next_step {
            self.step(now);
        }
    }

    /// When [`tend`](Self::tend) will have something to do, if it ever will unless slots are used meanwhile.
    pub(crate) fn tend_at(&self) -> Option<u64> {
        self.classes.iter().any(|class| class.warm() > KEEP).then_some(self.next_step)
    }

    /// The part of [`tend`](Self::tend) that does something.
    #[cold]
    fn step(&mut self, now: u64) {
        if now >= self.second_ends {
            self.end_second();
            self.second_ends = now.saturating_add(SECOND);
        }
        for class in &mut self.classes {
            class.cool(class.surplus.min(class.low - class.first).min(COOL_MOST));
        }
        let more = self.classes.iter().any(|class| class.surplus > 0);
        self.next_step = if more { now.saturating_add(STEP).min(self.second_ends) } else { self.second_ends };
    }

    /// Says what is surplus: what was not used since the last time.
    fn end_second(&mut self) {
        self.periods = PERIODS;
        for class in &mut self.classes {
            class.surplus = (class.low - class.first).saturating_sub(KEEP);
            class.low = class.warm.len();
        }
    }

    /// Discards deep pages of some warm slots; see the file.
    #[cold]
    #[inline(never)]
    fn clean(&mut self) {
        self.countdown = PERIOD;
        for class in &mut self.classes {
            class.clean();
        }
        self.periods -= 1;
        if self.periods == 0 {
            self.end_second();
            for class in &mut self.classes {
                class.cool(class.surplus.min(COOL_MOST));
            }
        }
    }

    /// The counters.
    pub(crate) fn stats(&self) -> StackStats {
        // Relaxed: a statistic.
        let leaked = LEAKED.load(Ordering::Relaxed);
        let mut stats = StackStats { in_use: self.in_use, leaked, ..Default::default() };
        for class in &self.classes {
            stats.warm += class.warm();
            stats.cold += class.cold.len();
            stats.made += class.chunks.iter().map(|chunk| chunk.used).sum::<usize>();
        }
        stats
    }

    /// Every slot that may be in use, and free ones too; the caller looks at its control block.
    pub(crate) fn made(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        if self.in_use == 0 {
            // To look at the control block of a cold slot is a page fault: a million for nothing.
            return slots;
        }
        for (class, shift) in self.classes.iter().zip(MIN_SHIFT..) {
            for chunk in &class.chunks {
                slots.extend((0..chunk.used).map(|index| Slot::new(chunk.start(), index, shift)));
            }
        }
        slots
    }

    /// The next slot, from `walk` on, that is in use or warm; those made meanwhile come last.
    pub(crate) fn next_with_pages(&self, walk: &mut Walk) -> Option<Slot> {
        while let Some(class) = self.classes.get(walk.class) {
            while let Some(chunk) = class.chunks.get(walk.chunk) {
                while walk.index < chunk.used {
                    let index = walk.index;
                    walk.index += 1;
                    if !chunk.is_cold(index) {
                        return Some(Slot::new(chunk.start(), index, MIN_SHIFT + walk.class as u8));
                    }
                }
                (walk.chunk, walk.index) = (walk.chunk + 1, 0);
            }
            (walk.class, walk.chunk) = (walk.class + 1, 0);
        }
        None
    }

    /// Gives the pages of `slot` that lie wholly below `address` back to the kernel. Its guard stays.
    ///
    /// # Safety
    /// Nothing below `address` in this slot will be read before it is written.
    pub(crate) unsafe fn discard_below(&self, slot: Slot, address: usize) {
        let end = address & !(page_size() - 1);
        if end <= slot.stack_low() {
            return;
        }
        let class = &self.classes[(slot.shift - MIN_SHIFT) as usize];
        if let Some(chunk) = class.chunk_of(slot) {
            let start = chunk.start();
            // A refusal costs memory, not correctness: the pages stay.
            // SAFETY: the caller's promise.
            let _ = unsafe { chunk.mapping.discard(slot.stack_low() - start, end - slot.stack_low()) };
        }
    }

    /// How deep the stack of `slot` has ever been used since its pages were last returned, in bytes below its top;
    /// whole pages.
    ///
    /// # Errors
    /// `EAGAIN` if the kernel is short of memory, or what a sandbox makes of mincore(2).
    pub(crate) fn high_water(&self, slot: Slot) -> io::Result<usize> {
        let class = &self.classes[(slot.shift - MIN_SHIFT) as usize];
        let Some(chunk) = class.chunk_of(slot) else {
            return Err(io::Error::other("the stack is not one of this thread's pool"));
        };
        let deepest = chunk.mapping.first_resident(slot.stack_low() - chunk.start(), slot.end() - slot.stack_low())?;
        Ok(deepest.map_or(0, |deepest| slot.top().saturating_sub(chunk.start() + deepest)))
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

    /// A slot that has no pages yet.
    #[cold]
    #[inline(never)]
    fn acquire_slow(&mut self, shift: u8) -> io::Result<Slot> {
        if self.alt_stack.is_none() {
            signal::install(self.classify)?;
            self.alt_stack = Some(signal::ensure_alt_stack()?);
        }
        self.classes[(shift - MIN_SHIFT) as usize].acquire_slow(shift)
    }
}

impl Chunk {
    /// Its lowest address.
    fn start(&self) -> usize {
        self.mapping.base().as_ptr() as usize
    }

    /// Whether the slot of this number is cold.
    fn is_cold(&self, index: usize) -> bool {
        self.cold.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}

impl Class {
    /// How many slots are warm.
    fn warm(&self) -> usize {
        self.warm.len() - self.first
    }

    /// Notes in its chunk whether `slot` is cold.
    fn mark_cold(&mut self, slot: Slot, cold: bool) {
        let Some(chunk) = self.chunks.iter_mut().find(|chunk| chunk.mapping.contains(slot.low)) else { return };
        let index = (slot.low - chunk.start()) >> slot.shift;
        if chunk.cold.len() <= index / 64 {
            chunk.cold.resize(index / 64 + 1, 0);
        }
        let (word, bit) = (&mut chunk.cold[index / 64], 1 << (index % 64));
        *word = if cold { *word | bit } else { *word & !bit };
    }

    /// The chunk that `slot` was cut from.
    fn chunk_of(&self, slot: Slot) -> Option<&Chunk> {
        self.chunks.iter().find(|chunk| chunk.mapping.contains(slot.low))
    }

    /// A slot that has no pages yet.
    fn acquire_slow(&mut self, shift: u8) -> io::Result<Slot> {
        if let Some(slot) = self.cold.pop() {
            self.mark_cold(slot, false);
            return Ok(slot);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.used == chunk.capacity) {
            let chunk = self.map_chunk(1 << shift)?;
            self.chunks.push(chunk);
        }
        let Some(chunk) = self.chunks.last_mut() else { unreachable!("pushed above") };
        // SAFETY: the slot was never handed out, so nobody uses any of its pages.
        unsafe { chunk.mapping.guard_as_usual(chunk.used << shift, GUARD) }.map_err(explain_guard)?;
        let slot = Slot::new(chunk.start(), chunk.used, shift);
        chunk.used += 1;
        Ok(slot)
    }

    /// A new chunk for slots of `size` bytes. If there is not enough for one of the usual length, for a shorter one.
    fn map_chunk(&self, size: usize) -> io::Result<Chunk> {
        let before: usize = self.chunks.iter().map(|chunk| chunk.mapping.len()).sum();
        let mut len = before.clamp(CHUNK, CHUNK_MOST).next_power_of_two().min(CHUNK_MOST).max(size);
        loop {
            match Mapping::reserve_aligned(len, size) {
                Ok(mapping) => return Ok(Chunk { mapping, used: 0, capacity: len / size, cold: Vec::new() }),
                Err(_) if len > size => len /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Discards what lies below the top pages of the next `CLEAN_MOST` warm slots.
    fn clean(&mut self) {
        for _ in 0..self.warm().min(CLEAN_MOST) {
            if !(self.first..self.warm.len()).contains(&self.cursor) {
                self.cursor = self.first;
            }
            let slot = self.warm[self.cursor];
            self.cursor += 1;
            if let Some((offset, len)) = slot.below_top(KEEP_PAGES) {
                self.discard(slot.low + offset, slot.low + offset + len);
            }
        }
    }

    /// Returns the pages of the `count` coldest warm slots; neighbours in one call.
    fn cool(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let already = self.cold.len();
        self.cold.extend_from_slice(&self.warm[self.first..self.first + count]);
        self.cold[already..].sort_unstable_by_key(|slot| slot.low);
        let mut run = already;
        for at in already..self.cold.len() {
            let slot = self.cold[at];
            self.mark_cold(slot, true);
            if self.cold.get(at + 1).is_none_or(|next| next.low != slot.end()) {
                self.discard(self.cold[run].low, slot.end());
                run = at + 1;
            }
        }
        self.first += count;
        self.low = self.low.max(self.first);
        self.surplus = self.surplus.saturating_sub(count);
        // Each entry is moved once for each that leaves, at most.
        if self.first >= self.warm.len() / 2 {
            self.warm.drain(..self.first);
            self.low -= self.first;
            self.first = 0;
        }
    }

    /// Discards the pages in `from..to`, which may span chunks that the kernel placed side by side.
    fn discard(&self, from: usize, to: usize) {
        for chunk in &self.chunks {
            let start = chunk.start();
            let (low, high) = (from.max(start), to.min(start + chunk.mapping.len()));
            if low < high {
                // A refusal costs memory, not correctness: the slot keeps its pages.
                // SAFETY: every slot in the range is free (A2): its fiber was dismantled, and stale handles only read
                // the id, which becomes 0 (A1).
                let _ = unsafe { chunk.mapping.discard(low - start, high - low) };
            }
        }
    }
}

/// Names the cure when `PROT_NONE` guards hit the kernel's limit on mappings.
#[cold]
fn explain_guard((kind, error): (GuardKind, io::Error)) -> io::Error {
    if kind == GuardKind::Protect && error.kind() == io::ErrorKind::OutOfMemory {
        return io::Error::new(
            error.kind(),
            "no guard for another stack: each PROT_NONE guard takes two memory mappings and vm.max_map_count is \
             reached; raise it with sysctl, or use Linux 6.13 or newer, whose guards take none",
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;
    use std::collections::HashSet;

    /// A pool that knows no fault.
    fn new_pool() -> StackPool {
        StackPool::new(|_, _| false)
    }

    /// Takes `count` slots of 64 KiB (128 KiB on aarch64) and writes into the top page of each.
    fn take(pool: &mut StackPool, count: usize) -> Vec<Slot> {
        let mut take = || pool.acquire(MIN_SHIFT).expect("memory");
        let slots: Vec<Slot> = (0..count).map(|_| take()).collect();
        slots.iter().for_each(|slot| touch(slot.end() - 64));
        slots
    }

    /// Writes one byte.
    fn touch(address: usize) {
        // SAFETY: the tests pass addresses inside a slot they acquired, above its guard.
        unsafe { (address as *mut u8).write_volatile(1) };
    }

    /// How many pages of a slot are in memory, guard excluded.
    fn resident(pool: &StackPool, slot: Slot) -> usize {
        let chunk = pool.classes[(slot.shift - MIN_SHIFT) as usize].chunk_of(slot).expect("one of the pool's");
        let offset = slot.stack_low() - chunk.start();
        chunk.mapping.count_resident(offset, slot.end() - slot.stack_low()).expect("mincore")
    }

    /// Gives all of them back.
    fn give(pool: &mut StackPool, slots: Vec<Slot>) {
        slots.into_iter().for_each(|slot| pool.release(slot));
    }

    #[test]
    fn the_slot_released_last_is_the_first_to_be_used_again() {
        let mut pool = new_pool();
        let first = pool.acquire(18).expect("memory");
        let second = pool.acquire(18).expect("memory");
        pool.release(first);
        pool.release(second);
        assert_eq!(pool.acquire(18).expect("memory").low, second.low);
        assert_eq!(pool.acquire(18).expect("memory").low, first.low);
    }

    #[test]
    fn the_pool_stops_growing_when_slots_are_reused() {
        let mut pool = new_pool();
        for _ in 0..3 {
            let slots = take(&mut pool, 10_000);
            give(&mut pool, slots);
        }
        let stats = pool.stats();
        assert_eq!((stats.made, stats.in_use, stats.warm, stats.cold), (10_000, 0, 10_000, 0));
    }

    #[test]
    fn slots_that_come_and_go_in_bursts_stay_warm() {
        let mut pool = new_pool();
        // A burst every 0.3 s for 6 s, and a look at the clock every 10 ms.
        for now in (0..600).map(|turn| 5_000_000_000 + turn * 10_000_000) {
            if now % 300_000_000 == 0 {
                let slots = take(&mut pool, 3000);
                give(&mut pool, slots);
            }
            pool.tend(now);
            assert_eq!(pool.stats().cold, 0, "at {now}");
        }
    }

    #[test]
    fn slots_that_nobody_uses_any_more_go_back_to_the_kernel() {
        let mut pool = new_pool();
        pool.tend(1);
        let slots = take(&mut pool, 5000);
        let eldest = slots[0];
        give(&mut pool, slots);
        let (mut looks, mut now) = (0, 1);
        // What an idle hub does: it sleeps exactly as long as the pool lets it.
        while let Some(at) = pool.tend_at() {
            assert!(at > now, "the pool wants to be looked at for nothing");
            now = at;
            pool.tend(now);
            looks += 1;
        }
        let stats = pool.stats();
        assert_eq!((stats.warm, stats.cold), (KEEP, 5000 - KEEP));
        assert!(looks < 10 && now < 4 * SECOND, "{looks} looks until {now}");
        assert_eq!(resident(&pool, eldest), 0);
        // And they can be used again.
        let slots = take(&mut pool, 5000);
        assert_eq!(pool.stats().made, 5000);
        give(&mut pool, slots);
    }

    #[test]
    fn a_pool_of_few_warm_slots_never_asks_for_a_look() {
        let mut pool = new_pool();
        let slots = take(&mut pool, KEEP);
        give(&mut pool, slots);
        assert_eq!(pool.tend_at(), None);
    }

    #[test]
    fn slots_in_use_are_not_surplus() {
        let mut pool = new_pool();
        let slots = take(&mut pool, 1000);
        for turn in 0..10 {
            pool.tend(turn * SECOND);
        }
        assert!(slots.iter().all(|slot| resident(&pool, *slot) == 1));
        give(&mut pool, slots);
    }

    #[test]
    fn the_deep_pages_of_a_reused_slot_go_back_in_time() {
        let mut pool = new_pool();
        let page = page_size();
        let slots = take(&mut pool, 100);
        for slot in &slots {
            for depth in 1..=8 {
                touch(slot.end() - depth * page);
            }
        }
        let deep = slots.clone();
        give(&mut pool, slots);
        assert!(deep.iter().all(|slot| resident(&pool, *slot) == 8));
        for _ in 0..4 * PERIOD {
            let slot = pool.acquire(MIN_SHIFT).expect("memory");
            pool.release(slot);
        }
        // 4 x 32 looks are enough for 100 slots; the top pages stay.
        assert!(deep.iter().all(|slot| resident(&pool, *slot) == KEEP_PAGES));
    }

    #[test]
    fn a_trim_leaves_nothing_and_every_guard() {
        let mut pool = new_pool();
        let slots = take(&mut pool, 300);
        let kept = slots.clone();
        give(&mut pool, slots);
        pool.trim();
        assert_eq!((pool.stats().warm, pool.stats().cold), (0, 300));
        assert!(kept.iter().all(|slot| resident(&pool, *slot) == 0));
        assert_eq!(pool.tend_at(), None);
    }

    #[test]
    fn every_slot_that_is_out_is_listed_with_its_colour() {
        let mut pool = new_pool();
        let mut slots = take(&mut pool, 3000);
        slots.push(pool.acquire(20).expect("memory"));
        let listed: HashSet<_> = pool.made().iter().map(|slot| (slot.low, slot.shift, slot.top())).collect();
        assert_eq!(listed.len(), slots.len());
        assert!(slots.iter().all(|slot| listed.contains(&(slot.low, slot.shift, slot.top()))));
        assert!(slots.iter().all(|slot| slot.low.is_multiple_of(1 << slot.shift)), "a slot is aligned to its size");
        give(&mut pool, slots);
        assert!(pool.made().is_empty());
    }

    #[test]
    fn a_walk_meets_every_slot_that_has_pages_once() {
        let mut pool = new_pool();
        let slots = take(&mut pool, 300);
        let (kept, given): (Vec<Slot>, Vec<Slot>) = slots.into_iter().partition(|slot| slot.low / 65_536 % 3 == 0);
        let large = pool.acquire(20).expect("memory");
        give(&mut pool, given);
        let met = |pool: &StackPool| {
            let mut walk = Walk::default();
            std::iter::from_fn(|| pool.next_with_pages(&mut walk)).map(|slot| slot.low).collect::<Vec<_>>()
        };
        assert_eq!(met(&pool).len(), 301);
        pool.trim();
        let warm: HashSet<usize> = met(&pool).into_iter().collect();
        assert_eq!(warm, kept.iter().chain([&large]).map(|slot| slot.low).collect());
        assert_eq!(met(&pool).len(), warm.len());
        // A cold slot that is used again has pages again.
        let again = take(&mut pool, 1);
        assert!(met(&pool).contains(&again[0].low));
        give(&mut pool, again);
        give(&mut pool, kept);
        pool.release(large);
    }

    #[test]
    fn abandoned_stacks_stay_mapped_and_are_counted() {
        let mut pool = new_pool();
        let slots = take(&mut pool, 10);
        let before = pool.stats().leaked;
        pool.abandon(slots.len());
        assert!(pool.stats().leaked >= before + 10);
        drop(pool);
        slots.iter().for_each(|slot| touch(slot.end() - 64));
    }

    #[test]
    fn any_order_of_calls_hands_each_slot_to_one_owner() {
        let mut random = Random::new();
        let mut pool = new_pool();
        let mut owned: Vec<Slot> = Vec::new();
        let mut lows: HashSet<usize> = HashSet::new();
        let (mut now, mut most) = (0, 0);
        for _ in 0..20_000 {
            match random.below(100) {
                0..45 => {
                    for _ in 0..random.below(20) {
                        let slot = pool.acquire(MIN_SHIFT + random.below(3) as u8).expect("memory");
                        assert!(lows.insert(slot.low), "handed out twice");
                        touch(slot.end() - 64);
                        owned.push(slot);
                    }
                }
                45..95 => {
                    for _ in 0..random.below(20).min(owned.len() as u64) {
                        let slot = owned.swap_remove(random.below(owned.len() as u64) as usize);
                        lows.remove(&slot.low);
                        pool.release(slot);
                    }
                }
                95..99 => {
                    now += random.below(2 * SECOND);
                    pool.tend(now);
                }
                _ => pool.trim(),
            }
            most = most.max(owned.len());
            let stats = pool.stats();
            assert_eq!(stats.in_use, owned.len());
            assert_eq!(stats.made, stats.in_use + stats.warm + stats.cold);
            for class in &pool.classes {
                assert!(class.first <= class.low && class.low <= class.warm.len());
            }
        }
        assert!(most > 0);
        give(&mut pool, owned);
    }
}
