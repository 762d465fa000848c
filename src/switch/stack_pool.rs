//! The stack pool: slots come from the kernel once, and from a LIFO free list afterwards.
//!
//! ```text
//! acquire:  warm (LIFO) --empty--> cold --empty--> bare --empty--> next slot of the newest chunk --full--> a new chunk
//! release:  push on warm
//!
//!   warm:   | tepid: not used in this second | used and released in this second   <-- pop, push
//!           ^ first                          ^ low                              ^ end
//!             `--> the kernel (DONTNEED) --> cold; bare, if whole pages of the page table are empty then
//! ```
//!
//! The list is LIFO, so that a slot is reused while its top lines are still in the cache. A cold slot costs one page
//! fault at the next use, but no memory, and no system call, since the guard stays. But the guard is a mark in the page
//! table, and the kernel takes no page of the table back that has a mark: 512 bytes for each slot of the default size.
//! So where neighbours that fill such pages become cold at once, their guards go too, and they are *bare*: they cost
//! one system call more at the next use, and nothing until then.
//!
//! # What free stacks keep
//!
//! A page fault costs fifty times what a spawn costs, so 100 000 threads that end at once and come back a moment
//! later must find their pages; if they do not come back, the memory must go. Both follow from one number for each
//! slot size, `low`: the least length that `warm` had since the second began. The slots below `low` were not used in
//! all that time, and since the list is LIFO they are its first entries.
//!
//! * *Whole slots.* [`StackPool::tend`], which the hub calls when it reads the clock, ends a second by declaring the
//!   slots below `low`, less [`MIN_WARM`], surplus, and from then on cools [`COOL_BATCH`] of them every 20 ms: at
//!   most some milliseconds at a time. A hub that falls asleep with more than [`MIN_WARM`] warm slots wakes up for
//!   this ([`StackPool::tend_at`]); with fewer slots it does not, so an idle hub stays idle.
//! * *Deep pages.* One deep call leaves its pages in the slot. Nothing cheap tells which slot had such a call: a
//!   dirty mark would have to lie where every deep frame passes, and a large frame skips that place. So every
//!   [`CLEAN_PERIOD`] releases the pages below the [`KEEP_PAGES`] top ones are discarded in [`CLEAN_BATCH`] warm
//!   slots, in turn. Asking mincore(2) first would cost three times as much as discarding nothing. 32 x 0.45 us in
//!   65536 releases is 0.2 ns for each.
//! * A thread that uses greenlets only has no hub and no clock. There [`PERIODS_PER_SECOND`] periods stand for a
//!   second, some 300 ms of nothing but spawning; with an idle program the memory stays until `hub::trim_stacks`.
//!
//! A fixed limit was rejected: with 4096 warm slots, 100 000 threads that come and go cost 96 000 page faults each
//! time.
//!
//! * Invariant pool-1: a chunk stays mapped until the pool is dropped or abandoned. Each slot's control block, once
//!   written, stays readable as long: the memory either is that block or reads as zero. A stale handle may therefore
//!   always read the `id` of its slot. Upheld here: only a drop and `abandon` unmap, and `discard` leaves zero pages.
//! * Invariant pool-2: a slot is in exactly one of four places: in `warm`, in `cold`, in `bare`, or handed out; and
//!   only free slots are discarded or have no guard. Upheld by `acquire`, which takes a slot off its list, and
//!   `release`, called once for each `acquire`.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::debug_list::{CHUNK, Entry, List};
use super::stack::{GUARD, MAX_SHIFT, MIN_SHIFT, Slot};
use crate::sys::mmap::{GuardKind, Mapping, page_size};
use crate::sys::process::is_main_thread;
use crate::sys::signal::{self, AltStack, Classify};

/// The number of slots of each size that stay warm for ever. Their memory is bounded by what 64 threads used at once.
const MIN_WARM: usize = 64;

/// The number of slots cooled at a time, so that one step takes a few milliseconds at most.
const COOL_BATCH: usize = 2048;

/// The number of releases between two rounds that discard deep pages.
const CLEAN_PERIOD: u32 = 65_536;

/// The number of such rounds that stand for a second in a thread without a clock.
const PERIODS_PER_SECOND: u32 = 256;

/// The number of slots that are cleaned of deep pages in one round.
const CLEAN_BATCH: usize = 32;

/// The number of top pages that a warm slot keeps: the one that every thread touches, and one for ordinary calls.
pub(crate) const KEEP_PAGES: usize = 2;

/// How long a slot lies unused before it is surplus, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The time between two steps of cooling the surplus, in nanoseconds.
const STEP: u64 = 20_000_000;

/// The least number of bytes reserved at once; address space only. Each further chunk is as large as all earlier ones
/// together, so that finding the chunk of a slot takes a few steps with a million slots.
const MIN_CHUNK: usize = 64 << 20;

/// The largest number of bytes reserved at once, unless one slot is larger.
const MAX_CHUNK: usize = 16 << 30;

/// The number of stacks that no thread will ever use again, because a fiber was suspended on them when its OS thread
/// ended. Counted for the whole process, since the pool that the stacks came from is gone.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// Returns the number of stacks that were given up for good in this process.
pub(crate) fn leaked_stacks() -> usize {
    // Relaxed: a statistic.
    LEAKED.load(Ordering::Relaxed)
}

/// Counters of a pool, as [`crate::hub::stack_stats`] shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackStats {
    /// Slots that a green thread or greenlet uses now (a finished thread that was not joined yet counts).
    pub in_use: usize,
    /// Free slots that kept their pages.
    pub warm: usize,
    /// Free slots that gave their pages back to the kernel.
    pub cold: usize,
    /// Slots ever made; address space, not memory.
    pub made: usize,
    /// Stacks given up for good when their OS thread ended, because their green thread or greenlet was suspended: see
    /// [`hub::shutdown`](crate::hub::shutdown). Counted for the whole process, all OS threads together.
    pub leaked: usize,
}

/// One reservation of address space, cut into slots of one size.
#[derive(Debug)]
struct Chunk {
    /// What leads debuggers here; ends before the memory does.
    entry: Entry,
    /// The memory; unmapped when the pool goes.
    mapping: Mapping,
    /// The number of slots that were handed out at least once.
    used: usize,
    /// The number of slots that fit.
    capacity: usize,
    /// A bit for each slot, by number: whether the slot is cold, so that even reading its control block would cost a
    /// page fault. Shorter than the slots if the rest is not cold.
    cold: Vec<u64>,
}

/// All slots of one size. Always `first <= low <= warm.len()`.
#[derive(Debug, Default)]
struct Class {
    /// The free slots with their pages, from `first` on; the last one is the warmest.
    warm: Vec<Slot>,
    /// The number of entries at the start of `warm` that were cooled already; they are removed in large batches.
    first: usize,
    /// The least length that `warm` had since the second began.
    low: usize,
    /// The number of slots, from `first` on, that are to be cooled unless they are used before.
    surplus: usize,
    /// The index in `warm` where the next round of discarding deep pages begins.
    cursor: usize,
    /// The free slots without pages.
    cold: Vec<Slot>,
    /// The free slots without pages and without guards.
    bare: Vec<Slot>,
    /// The reservations; only the last one has slots that were never used.
    chunks: Vec<Chunk>,
}

/// A position in a walk over all slots of a pool; see [`StackPool::next_with_pages`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    /// The index of the slot size in `classes`.
    class: usize,
    /// The index of the chunk in that class.
    chunk: usize,
    /// The number of the slot in that chunk.
    index: usize,
}

/// The list that has the chunks for debuggers, and the number of the root that they belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed(pub(crate) &'static List, pub(crate) u64);

/// The stacks of one OS thread.
#[derive(Debug)]
pub(crate) struct StackPool {
    /// The slots by size, `MIN_SHIFT` first.
    classes: [Class; (MAX_SHIFT - MIN_SHIFT) as usize + 1],
    /// The classes that have ever had a slot, a bit for each: most sizes are used by no program.
    used: u32,
    /// The number of slots handed out.
    in_use: usize,
    /// The number of releases until deep pages are discarded again.
    countdown: u32,
    /// The number of such rounds until a second is taken to be over.
    periods: u32,
    /// When the second ends, in monotonic nanoseconds.
    second_ends: u64,
    /// When to cool the next slots, in monotonic nanoseconds.
    next_step: u64,
    /// The function that recognises a fault in a guard.
    classify: Classify,
    /// Where debuggers find the chunks.
    listed: Listed,
    /// The signal stack of this OS thread; set when the first chunk is mapped.
    alt_stack: Option<AltStack>,
}

impl StackPool {
    /// Creates a pool without any memory. The first chunk makes the process report faults that `classify` recognises.
    /// Each chunk is listed for debuggers.
    pub(crate) fn new(classify: Classify, listed: Listed) -> StackPool {
        StackPool {
            classes: Default::default(),
            used: 0,
            in_use: 0,
            countdown: CLEAN_PERIOD,
            periods: PERIODS_PER_SECOND,
            second_ends: 0,
            next_step: 0,
            classify,
            listed,
            alt_stack: None,
        }
    }

    /// Returns a slot of `1 << shift` bytes with its guard in place.
    ///
    /// # Errors
    /// The error of mmap(2), madvise(2) or mprotect(2) when address space, memory or, with `PROT_NONE` guards, the
    /// kernel's `vm.max_map_count` runs out. The pool is unharmed, and the next call tries again.
    #[inline]
    pub(crate) fn acquire(&mut self, shift: u8) -> io::Result<Slot> {
        let class = &mut self.classes[(shift - MIN_SHIFT) as usize];
        // A warm slot has its top pages already. The entries before `first` were cooled, and count no more.
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

    /// Takes a slot back. The function on this stack must have returned or unwound (fiber-2).
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

    /// Cools the slots that are due at `now`, in monotonic nanoseconds.
    #[inline]
    pub(crate) fn tend(&mut self, now: u64) {
        if now >= self.next_step {
            self.step(now);
        }
    }

    /// Returns when [`tend`](Self::tend) will have something to do; `None` if never, as long as no slot is used.
    pub(crate) fn tend_at(&self) -> Option<u64> {
        self.used_classes().any(|class| class.warm() > MIN_WARM).then_some(self.next_step)
    }

    /// Returns the classes that have ever had a slot. Asked in each poll that may sleep.
    #[inline]
    fn used_classes(&self) -> impl Iterator<Item = &Class> {
        let mut left = self.used;
        std::iter::from_fn(move || {
            let class = self.classes.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(class)
        })
    }

    /// Does the work of [`tend`](Self::tend) when a step is due.
    #[cold]
    fn step(&mut self, now: u64) {
        if now >= self.second_ends {
            self.end_second();
            self.second_ends = now.saturating_add(SECOND);
        }
        // Cool a batch of each class, but no slot that was used since the second began.
        for class in &mut self.classes {
            class.cool(class.surplus.min(class.low - class.first).min(COOL_BATCH));
        }
        let more = self.classes.iter().any(|class| class.surplus > 0);
        self.next_step = if more { now.saturating_add(STEP).min(self.second_ends) } else { self.second_ends };
    }

    /// Ends a second: slots that were not used since the last one become surplus.
    fn end_second(&mut self) {
        self.periods = PERIODS_PER_SECOND;
        for class in &mut self.classes {
            class.surplus = (class.low - class.first).saturating_sub(MIN_WARM);
            class.low = class.warm.len();
        }
    }

    /// Discards the deep pages of some warm slots; see the head of the file.
    #[cold]
    #[inline(never)]
    fn clean(&mut self) {
        self.countdown = CLEAN_PERIOD;
        for class in &mut self.classes {
            class.clean();
        }
        // Without a clock, so many rounds stand for a second.
        self.periods -= 1;
        if self.periods == 0 {
            self.end_second();
            for class in &mut self.classes {
                class.cool(class.surplus.min(COOL_BATCH));
            }
        }
    }

    /// Returns the counters of this pool.
    pub(crate) fn stats(&self) -> StackStats {
        let mut stats = StackStats { in_use: self.in_use, leaked: leaked_stacks(), ..Default::default() };
        for class in self.used_classes() {
            stats.warm += class.warm();
            stats.cold += class.cold.len() + class.bare.len();
            stats.made += class.chunks.iter().map(|chunk| chunk.used).sum::<usize>();
        }
        stats
    }

    /// Returns every slot that may be in use, and free ones too; the caller looks at the control block.
    pub(crate) fn made(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        if self.in_use == 0 {
            // Reading the control block of a cold slot is a page fault: there may be a million, for nothing.
            return slots;
        }
        for (class, shift) in self.classes.iter().zip(MIN_SHIFT..) {
            for chunk in &class.chunks {
                slots.extend((0..chunk.used).map(|index| Slot::new(chunk.start(), index, shift)));
            }
        }
        slots
    }

    /// Returns the next slot, from `walk` on, that is in use or warm. Slots made during the walk come last.
    pub(crate) fn next_with_pages(&self, walk: &mut Walk) -> Option<Slot> {
        while let Some(class) = self.classes.get(walk.class) {
            while let Some(chunk) = class.chunks.get(walk.chunk) {
                while walk.index < chunk.used {
                    let index = walk.index;
                    walk.index += 1;
                    // A cold slot has no pages, so nothing can be discarded there.
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

    /// Gives the pages of `slot` that lie wholly below `address` back to the kernel. The guard stays.
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
            // SAFETY: the caller's promise; and the range is part of the slot, so the chunk is its mapping (pool-1).
            let _ = unsafe { chunk.mapping.discard(slot.stack_low() - start, end - slot.stack_low()) };
        }
    }

    /// Returns how deep the stack of `slot` was used since its pages were last given back, in bytes below the top;
    /// whole pages.
    ///
    /// # Errors
    /// `EAGAIN` if the kernel is short of memory, or whatever a sandbox makes of mincore(2).
    pub(crate) fn high_water(&self, slot: Slot) -> io::Result<usize> {
        let class = &self.classes[(slot.shift - MIN_SHIFT) as usize];
        let Some(chunk) = class.chunk_of(slot) else {
            return Err(io::Error::other("the stack is not one of this thread's pool"));
        };
        let deepest = chunk.mapping.first_resident(slot.stack_low() - chunk.start(), slot.end() - slot.stack_low())?;
        Ok(deepest.map_or(0, |deepest| slot.top().saturating_sub(chunk.start() + deepest)))
    }

    /// Leaks the memory around these stacks, in which fibers are still suspended, instead of unmapping it. Other slots
    /// of the same chunks give their pages back, unless the process ends anyhow.
    pub(crate) fn abandon(&mut self, stacks: &[Slot]) {
        // Relaxed: a statistic.
        LEAKED.fetch_add(stacks.len(), Ordering::Relaxed);
        if !is_main_thread() {
            self.trim();
        }
        for class in &mut self.classes {
            for chunk in class.chunks.drain(..) {
                if stacks.iter().any(|slot| chunk.mapping.contains(slot.low)) {
                    chunk.mapping.leak();
                }
            }
        }
    }

    /// Returns a slot that has no pages yet.
    #[cold]
    #[inline(never)]
    fn acquire_slow(&mut self, shift: u8) -> io::Result<Slot> {
        // Before the first stack: what reports an overflow of one.
        if self.alt_stack.is_none() {
            signal::install(self.classify)?;
            self.alt_stack = Some(signal::ensure_alt_stack()?);
        }
        let class = (shift - MIN_SHIFT) as usize;
        self.used |= 1 << class;
        self.classes[class].acquire_slow(shift, self.listed)
    }
}

impl Chunk {
    /// Returns the lowest address.
    fn start(&self) -> usize {
        self.mapping.base().as_ptr() as usize
    }

    /// Guards a free slot that has no guard.
    fn guard(&self, slot: Slot) -> io::Result<()> {
        // SAFETY: the slot is not handed out (pool-2), so none of its pages is in use.
        unsafe { self.mapping.guard_as_usual(slot.low - self.start(), GUARD) }.map_err(explain_guard)
    }

    /// Reports whether the slot of this number is cold.
    fn is_cold(&self, index: usize) -> bool {
        self.cold.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}

impl Class {
    /// Returns the number of warm slots.
    fn warm(&self) -> usize {
        self.warm.len() - self.first
    }

    /// Records in the slot's chunk whether the slot is cold.
    fn mark_cold(&mut self, slot: Slot, cold: bool) {
        let Some(chunk) = self.chunks.iter_mut().find(|chunk| chunk.mapping.contains(slot.low)) else { return };
        let index = (slot.low - chunk.start()) >> slot.shift;
        if chunk.cold.len() <= index / 64 {
            chunk.cold.resize(index / 64 + 1, 0);
        }
        let (word, bit) = (&mut chunk.cold[index / 64], 1 << (index % 64));
        *word = if cold { *word | bit } else { *word & !bit };
    }

    /// Returns the chunk that `slot` was cut from.
    fn chunk_of(&self, slot: Slot) -> Option<&Chunk> {
        self.chunks.iter().find(|chunk| chunk.mapping.contains(slot.low))
    }

    /// Returns a slot that has no pages yet: a cold one, or the next one of a chunk.
    fn acquire_slow(&mut self, shift: u8, listed: Listed) -> io::Result<Slot> {
        // Cold slots are guarded already: only their pages are gone.
        if let Some(slot) = self.cold.pop() {
            self.mark_cold(slot, false);
            return Ok(slot);
        }
        if let Some(&slot) = self.bare.last() {
            let Some(chunk) = self.chunk_of(slot) else { unreachable!("each slot is cut from a chunk") };
            chunk.guard(slot)?;
            self.bare.pop();
            self.mark_cold(slot, false);
            return Ok(slot);
        }
        // All chunks are full: map another one.
        if self.chunks.last().is_none_or(|chunk| chunk.used == chunk.capacity) {
            let chunk = self.map_chunk(shift, listed)?;
            self.chunks.push(chunk);
        }
        let Some(chunk) = self.chunks.last_mut() else { unreachable!("pushed above") };
        let slot = Slot::new(chunk.start(), chunk.used, shift);
        chunk.guard(slot)?;
        chunk.used += 1;
        chunk.entry.set_last(chunk.used);
        Ok(slot)
    }

    /// Maps a chunk for slots of `1 << shift` bytes, shorter than usual if the address space has no room for the usual
    /// length.
    fn map_chunk(&self, shift: u8, Listed(list, root): Listed) -> io::Result<Chunk> {
        let size = 1 << shift;
        let before: usize = self.chunks.iter().map(|chunk| chunk.mapping.len()).sum();
        let mut len = before.clamp(MIN_CHUNK, MAX_CHUNK).next_power_of_two().min(MAX_CHUNK).max(size);
        loop {
            match Mapping::reserve_aligned(len, size) {
                Ok(mapping) => {
                    let start = mapping.base().as_ptr().addr();
                    let entry = list.enter(CHUNK, [start, root as usize, usize::from(shift), 0]);
                    return Ok(Chunk { entry, mapping, used: 0, capacity: len / size, cold: Vec::new() });
                }
                Err(_) if len > size => len /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Discards the pages below the top ones in the next `CLEAN_BATCH` warm slots.
    fn clean(&mut self) {
        for _ in 0..self.warm().min(CLEAN_BATCH) {
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

    /// Gives the pages of the `count` coldest warm slots back to the kernel, those of neighbours in one call.
    fn cool(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        // By address, so that neighbours stand side by side: the slots leave `warm` anyhow.
        let end = self.first + count;
        self.warm[self.first..end].sort_unstable_by_key(|slot| slot.low);
        // Discard each run of neighbours in one call; a run ends with its chunk.
        let (mut run, mut chunk_end) = (self.first, 0);
        for at in self.first..end {
            let slot = self.warm[at];
            if at == run {
                chunk_end = self.chunk_of(slot).map_or(0, |chunk| chunk.start() + chunk.mapping.len());
            }
            if at + 1 == end || self.warm[at + 1].low != slot.end() || slot.end() == chunk_end {
                let bare = self.remove_guards(self.warm[run].low, slot.end());
                self.discard(self.warm[run].low, slot.end());
                (run..=at).for_each(|index| self.enter_cold(self.warm[index], &bare));
                run = at + 1;
            }
        }
        self.first += count;
        self.low = self.low.max(self.first);
        self.surplus = self.surplus.saturating_sub(count);
        // Remove cooled entries in large batches: each entry moves once, at most, for each that leaves.
        if self.first >= self.warm.len() / 2 {
            self.warm.drain(..self.first);
            self.low -= self.first;
            self.first = 0;
        }
    }

    /// Puts a slot that was discarded into `cold`, or, if the slot lies in the range `bare`, into that list.
    fn enter_cold(&mut self, slot: Slot, bare: &Range<usize>) {
        self.mark_cold(slot, true);
        if bare.contains(&slot.low) { self.bare.push(slot) } else { self.cold.push(slot) }
    }

    /// Takes the guards out of those pages of the page table that `from..to` fills, so that the kernel takes them back
    /// with the pages; since Linux 6.14, on x86-64 only. Returns the addresses of slots that have no guard any more.
    fn remove_guards(&self, from: usize, to: usize) -> Range<usize> {
        // A page of the page table has a word for each page of memory.
        let table = page_size() * (page_size() / size_of::<usize>());
        let Some(chunk) = self.chunks.iter().find(|chunk| chunk.mapping.contains(from)) else { return 0..0 };
        let (low, high) = (from.next_multiple_of(table), to & !(table - 1));
        if cfg!(not(target_arch = "x86_64")) || low >= high {
            return 0..0;
        }
        // SAFETY: every slot in the range is free (pool-2), and is guarded before it is handed out.
        match unsafe { chunk.mapping.remove_guards(low - chunk.start(), high - low) } {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => 0..0,
            // After an error some guards may be gone, and all are made once more.
            _ => low..high,
        }
    }

    /// Discards the pages in `from..to`, which lie in one chunk.
    fn discard(&self, from: usize, to: usize) {
        let Some(chunk) = self.chunks.iter().find(|chunk| chunk.mapping.contains(from)) else { return };
        // A refusal costs memory, not correctness: the slot keeps its pages. SAFETY: every slot in the range is free
        // (pool-2): its fiber was dismantled, and stale handles only read the id, which becomes 0 (pool-1).
        let _ = unsafe { chunk.mapping.discard(from - chunk.start(), to - from) };
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
    use crate::sys::mmap::guard_kind;
    use std::collections::HashSet;
    use std::os::fd::AsRawFd;

    /// Returns a pool that recognises no fault.
    fn new_pool() -> StackPool {
        static LIST: List = List::new();
        StackPool::new(|_, _| false, Listed(&LIST, 1))
    }

    /// Takes `count` slots of 64 KiB (128 KiB on aarch64) and writes into the top page of each.
    fn take(pool: &mut StackPool, count: usize) -> Vec<Slot> {
        let mut take = || pool.acquire(MIN_SHIFT).expect("memory");
        let slots: Vec<Slot> = (0..count).map(|_| take()).collect();
        slots.iter().for_each(|slot| touch(slot.end() - 64));
        slots
    }

    /// Writes one byte to `address`.
    fn touch(address: usize) {
        // SAFETY: the tests pass addresses inside a slot they acquired, above its guard.
        unsafe { (address as *mut u8).write_volatile(1) };
    }

    /// Returns the number of pages of a slot that are in memory, without the guard.
    fn resident(pool: &StackPool, slot: Slot) -> usize {
        let chunk = pool.classes[(slot.shift - MIN_SHIFT) as usize].chunk_of(slot).expect("one of the pool's");
        let offset = slot.stack_low() - chunk.start();
        chunk.mapping.count_resident(offset, slot.end() - slot.stack_low()).expect("mincore")
    }

    /// Gives the slots back.
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
    fn slots_that_are_no_longer_used_go_back_to_the_kernel() {
        let mut pool = new_pool();
        pool.tend(1);
        let slots = take(&mut pool, 5000);
        let eldest = slots[0];
        give(&mut pool, slots);
        let (mut looks, mut now) = (0, 1);
        // As an idle hub does: sleep exactly as long as the pool allows.
        while let Some(at) = pool.tend_at() {
            assert!(at > now, "the pool wants to be looked at for nothing");
            now = at;
            pool.tend(now);
            looks += 1;
        }
        let stats = pool.stats();
        assert_eq!((stats.warm, stats.cold), (MIN_WARM, 5000 - MIN_WARM));
        assert!(looks < 10 && now < 4 * SECOND, "{looks} looks until {now}");
        assert_eq!(resident(&pool, eldest), 0);
        // The slots can be used again.
        let slots = take(&mut pool, 5000);
        assert_eq!(pool.stats().made, 5000);
        give(&mut pool, slots);
    }

    #[test]
    fn a_pool_of_few_warm_slots_never_asks_for_a_look() {
        let mut pool = new_pool();
        let slots = take(&mut pool, MIN_WARM);
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
        for _ in 0..4 * CLEAN_PERIOD {
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

    /// Reports whether a byte cannot be written, without a signal: the kernel writes a zero there.
    fn faults(address: usize) -> bool {
        let zeros = std::fs::File::open("/dev/zero").expect("zeros");
        // SAFETY: the tests pass addresses of slots in which nothing lies, and the kernel checks them (read(2)).
        unsafe { libc::read(zeros.as_raw_fd(), address as *mut libc::c_void, 1) == -1 }
    }

    #[test]
    fn a_slot_that_lost_its_guard_has_one_when_it_is_used_again() {
        let mut pool = new_pool();
        for shift in [MIN_SHIFT, 18, 22] {
            let slots: Vec<Slot> = (0..200).map(|_| pool.acquire(shift).expect("memory")).collect();
            give(&mut pool, slots);
            pool.trim();
            // Where the kernel has such guards, neighbours fill whole pages of the page table.
            let class = &pool.classes[(shift - MIN_SHIFT) as usize];
            let fills = cfg!(target_arch = "x86_64") && guard_kind() == GuardKind::Install;
            assert_eq!(class.bare.is_empty(), !fills, "{shift}");
            assert_eq!(class.bare.len() + class.cold.len(), 200);
            let slots: Vec<Slot> = (0..200).map(|_| pool.acquire(shift).expect("memory")).collect();
            for slot in slots.iter().step_by(37).chain(slots.last()) {
                assert!(faults(slot.low) && faults(slot.stack_low() - 1) && !faults(slot.stack_low()), "{slot:?}");
            }
            give(&mut pool, slots);
        }
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
        pool.abandon(&slots);
        assert!(pool.stats().leaked >= before + 10);
        drop(pool);
        slots.iter().for_each(|slot| touch(slot.end() - 64));
    }

    #[test]
    fn beside_abandoned_stacks_the_rest_gives_its_memory_back() {
        let mut pool = new_pool();
        let (kept, freed) = (take(&mut pool, 1), take(&mut pool, 100));
        kept.iter().chain(&freed).for_each(|slot| touch(slot.end() - 64));
        let in_memory = |slot: &Slot| {
            let (page, mut answer) = ((slot.end() - 64) & !(page_size() - 1), 0_u8);
            // SAFETY: the page is one of a mapping that stays, and the kernel writes one byte for it (mincore(2)).
            assert_eq!(unsafe { libc::mincore(page as *mut libc::c_void, page_size(), &raw mut answer) }, 0);
            answer & 1 == 1
        };
        assert!(freed.iter().all(in_memory));
        give(&mut pool, freed.clone());
        pool.abandon(&kept);
        drop(pool);
        assert!(in_memory(&kept[0]) && !freed.iter().any(in_memory));
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
