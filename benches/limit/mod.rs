//! The limit of a yield: a program that touches the cache lines and pages that one yield of each thread touches, and
//! does nothing else. It says what the memory alone takes, in this layout or another.
//!
//! ```text
//!   queue       [.][.][.][.]           one word for each thread, read and written: 8 threads share a line
//!                |
//!                v
//!   line 0      [ frames | .. ]        of the control block, with the parent link and the stack pointer: both
//!                |
//!                v
//!   line -5     [....]                 the frame of the yield, five lines below the block: read and written
//!   line -3     [....]                 the frame of the thread's own loop: read
//! ```
//!
//! These are all lines that a yield touches and the next one does not, in 951 of 957 yields of a trace of the path
//! `yield-1000` of `benches/counts` (`valgrind --tool=lackey --trace-mem=yes`, with a clock so slow that no turn is
//! looked at). `benches/counts/counts.txt` keeps that true: its row `yield-1000` has 3.13 misses, these three lines and
//! an eighth of the queue's.

// Memory of the kernel's, cut up by hand.
#![allow(unsafe_code)]

mod mapping;

use std::time::Instant;
use std::{io, ptr};

use mapping::Memory;

/// The bytes of a control block.
const BLOCK: usize = 384;

/// The distance between two colours.
const COLOUR: usize = 128;

/// The bytes of a cache line.
const LINE: usize = 64;

/// The bytes of a page.
const PAGE: usize = 4096;

/// The line that a yield writes in its own frame, as a distance in lines from the block's start downwards.
const YIELD_FRAME: usize = 5;

/// The line that the caller's loop reads in its frame.
const LOOP_FRAME: usize = 3;

/// The length of the queue, and the distances in it, of `src/switch/prefetch.rs`.
const PREFETCH_FROM: usize = 8192;
const PREFETCH_BLOCK: usize = 24;
const PREFETCH_FRAMES: usize = 12;

/// Asks for a line before it is needed.
#[inline(always)]
fn prefetch(line: *const usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Where the lines of each thread are.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// The bytes from one stack to the next.
    pub(crate) stride: usize,
    /// The number of colours: tops are moved down by so many different multiples of two lines.
    pub(crate) colours: usize,
    /// The number of page colours: tops are moved down by so many different numbers of pages.
    pub(crate) pages: usize,
    /// Whether the control blocks are apart from the stacks, one beside the other in large pages.
    pub(crate) apart: bool,
    /// Whether threads have their turns in another order than that of their memory.
    pub(crate) shuffled: bool,
}

/// The layout of threads that ask for nothing, spawned one after the other.
pub(crate) const OURS: Layout = Layout { stride: 256 << 10, colours: 16, pages: 1, apart: false, shuffled: false };

/// What stands for some threads: their lines, and the queue.
pub(crate) struct Stacks {
    /// The blocks, in the order of turns.
    queue: Vec<*mut usize>,
    /// Where blocks and frames are.
    _memory: [Memory; 2],
}

impl Stacks {
    /// Lays out so many threads, and touches all their lines once.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub(crate) fn new(threads: usize, layout: Layout) -> io::Result<Stacks> {
        let stacks = Memory::map(threads * layout.stride, false)?;
        let blocks = Memory::map(threads * BLOCK, true)?;
        let mut queue: Vec<*mut usize> = (0..threads)
            .map(|index| {
                let moved = index % layout.colours * COLOUR + index % layout.pages * PAGE;
                let top = stacks.at((index + 1) * layout.stride - moved - BLOCK);
                let block: *mut usize = if layout.apart { blocks.at(index * BLOCK) } else { top }.cast();
                // SAFETY: in a mapping of this function, aligned to 128 bytes, and no reference leads there.
                unsafe { block.write(top.expose_provenance()) };
                block
            })
            .collect();
        if layout.shuffled {
            shuffle(&mut queue);
        }
        let mut made = Stacks { queue, _memory: [stacks, blocks] };
        made.turn();
        Ok(made)
    }

    /// Touches the lines of each thread once, in the order of the queue.
    fn turn(&mut self) {
        // As the run loop does: a queue that no cache holds is fetched some turns ahead, first blocks, then frames.
        let far = if self.queue.len() > PREFETCH_FROM { PREFETCH_BLOCK } else { usize::MAX };
        for index in 0..self.queue.len() {
            if let Some(later) = self.queue.get(index.saturating_add(far)) {
                prefetch(*later);
                // SAFETY: a block of `new`, in which the address of its frames is.
                let frames = unsafe { self.queue[index + PREFETCH_FRAMES].read_volatile() };
                prefetch(ptr::with_exposed_provenance(frames - YIELD_FRAME * LINE));
                prefetch(ptr::with_exposed_provenance(frames - LOOP_FRAME * LINE));
            }
            let entry = &mut self.queue[index];
            let block = *entry;
            // SAFETY: a block of `new`, in which the address of its frames is.
            let frames = unsafe { block.read_volatile() };
            // SAFETY: as above.
            unsafe { block.wrapping_add(1).write_volatile(frames) };
            let line = |distance: usize| ptr::with_exposed_provenance_mut::<usize>(frames - distance * LINE);
            // SAFETY: below the top of a stack of `new`, and aligned to a line.
            let before = unsafe { line(YIELD_FRAME).read_volatile() };
            // SAFETY: as above.
            unsafe { line(YIELD_FRAME).write_volatile(before + 1) };
            // SAFETY: as above.
            unsafe { line(LOOP_FRAME).read_volatile() };
            // The thread is put back at the end of the queue.
            // SAFETY: a reference to the entry.
            unsafe { ptr::from_mut(entry).write_volatile(block) };
        }
    }

    /// Touches all lines so often, and returns the nanoseconds for each thread and turn.
    pub(crate) fn turns(&mut self, rounds: usize) -> f64 {
        let start = Instant::now();
        (0..rounds).for_each(|_| self.turn());
        start.elapsed().as_nanos() as f64 / (rounds * self.queue.len()) as f64
    }
}

/// Brings a queue into an order that has nothing to do with memory, the same in each run.
fn shuffle<T>(queue: &mut [T]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for index in (1..queue.len()).rev() {
        // Knuth's generator for 64 bits; the upper bits are the random ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        queue.swap(index, (state >> 33) as usize % (index + 1));
    }
}
