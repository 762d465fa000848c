//! TLS blocks: the thread-locals that some fibers have apart from those of their OS thread.
//!
//! Compiled code reaches a thread-local by its distance from the *thread pointer*, a register. A fiber with a block of
//! its own runs under another thread pointer than the OS thread's, and so sees other thread-locals:
//!
//! ```text
//!   header     static TLS of the modules | struct pthread            one entry of the pool
//!   | Header | ... libc | the program    | the C library's own ... |
//!                                        ^ thread pointer = TlsBlock
//! ```
//!
//! The switch loads the thread pointer of the fiber that it resumes, if another one is loaded. Fibers of the OS
//! thread's own thread-locals have no block, so between two of them the register is not written.
//!
//! A fiber launched by code that runs under a block gets the same block: green threads and greenlets share the
//! thread-locals of the thread that made them. The block is free when the last of them is gone.
//!
//! * Invariant tls-pool-1: code on a fiber's stack runs under the pointer of the fiber's block, or the OS thread's if
//!   the fiber has none. Upheld by `run_loop`: it loads the pointer before it resumes a fiber, and before it returns to
//!   the code of the fiber that lends it the stack. In between, the loop runs under the pointer that was loaded last,
//!   and uses no thread-local but inside functions that are not inlined, so that no address of a thread-local is kept
//!   over a load. Before it polls it loads the OS thread's.
//! * Invariant tls-pool-2: the memory of a block is neither freed nor given to another thread as long as `holders` is
//!   not 0, that is, until each fiber with the block was released and no end hook will start one. Upheld by
//!   `own_locals`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use crate::sys::mmap::Mapping;
use crate::sys::tls::{self, Layout};

/// A TLS block, by its thread pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlsBlock(NonZeroUsize);

impl TlsBlock {
    /// Returns the thread pointer.
    #[inline(always)]
    pub(crate) fn pointer(self) -> usize {
        self.0.get()
    }
}

/// A hold on the block of a fiber: the block is not given to another thread. None if the fiber has no block.
#[derive(Debug)]
pub(crate) struct BlockHold(pub(super) Option<TlsBlock>);

impl BlockHold {
    /// Returns a hold on nothing: for what may run with the thread-locals of the OS thread.
    pub(crate) fn none() -> BlockHold {
        BlockHold(None)
    }

    /// Returns the block that is held.
    pub(super) fn block(&self) -> Option<TlsBlock> {
        self.0
    }
}

/// What the runtime notes of a block, in front of the block.
#[derive(Debug)]
pub(crate) struct Header {
    /// The number of fibers with this block that have not ended.
    pub(crate) running: Cell<u32>,
    /// The number of fibers with this block that were not released, and of end hooks that will start one.
    pub(crate) holders: Cell<u32>,
    /// The thread that the block was made for, as [`FiberRef::to_parts`](super::fiber::FiberRef::to_parts) has it.
    pub(crate) thread: Cell<(u64, usize)>,
    /// The id of the fiber that runs the destructors of the thread-locals; 0 while none does.
    pub(crate) destroyer: Cell<u64>,
}

/// The bytes in front of a block. A multiple of what any block is aligned to in practice; `BlockPool::new` rounds up.
const HEADER: usize = size_of::<Header>();

/// The thread pointer that is loaded, and the OS thread's own.
#[derive(Debug, Default)]
pub(crate) struct LoadedPointer {
    /// The block of which the pointer is loaded; none for the OS thread's own.
    block: Cell<Option<TlsBlock>>,
    /// The OS thread's own pointer; set before the first block is made.
    os: Cell<usize>,
}

impl LoadedPointer {
    /// Where the loaded block's pointer and the OS thread's lie, for debuggers.
    pub(super) const OFFSETS: (usize, usize) = (offset_of!(LoadedPointer, block), offset_of!(LoadedPointer, os));

    /// Returns the block of which the pointer is loaded.
    #[inline(always)]
    pub(crate) fn block(&self) -> Option<TlsBlock> {
        self.block.get()
    }

    /// Loads the pointer of `block`, or of the OS thread, unless it is loaded.
    #[inline(always)]
    pub(crate) fn load(&self, block: Option<TlsBlock>) {
        if block != self.block.get() {
            self.write(block);
        }
    }

    /// Writes the register. Out of line, so that fibers without a block pay for a comparison only.
    #[cold]
    #[inline(never)]
    fn write(&self, block: Option<TlsBlock>) {
        let pointer = block.map_or(self.os.get(), TlsBlock::pointer);
        self.block.set(block);
        // SAFETY: tls-pool-1: the caller is the run loop, which uses no thread-local before it resumes or returns to
        // the fiber of the block. `os` was set before the first block was made, and a block lives (tls-pool-2).
        unsafe { tls::set_thread_pointer(pointer) };
    }

    /// Notes the OS thread's own pointer, which is loaded.
    fn note_os(&self) -> usize {
        if self.os.get() == 0 {
            self.os.set(tls::thread_pointer());
        }
        self.os.get()
    }

    /// Runs `f` under the pointer of `block`, or of the OS thread. `f` must not switch.
    pub(crate) fn with<R>(&self, block: Option<TlsBlock>, f: impl FnOnce() -> R) -> R {
        let outer = self.block.get();
        if block == outer {
            return f();
        }
        let _back = Back(self, self.block.replace(block));
        let pointer = block.map_or(self.os.get(), TlsBlock::pointer);
        // SAFETY: as in `load`; the function goes back to the pointer of the caller.
        unsafe { tls::with_thread_pointer(pointer, f) }
    }
}

impl LoadedPointer {
    /// Runs `f` under the pointer that is noted as loaded, in a handler that runs under the OS thread's own. `f` must
    /// not switch.
    pub(crate) fn with_noted(&self, f: impl FnOnce()) {
        if let Some(block) = self.block.get() {
            // SAFETY: as in `load`; the function goes back to the pointer of the caller.
            unsafe { tls::with_thread_pointer(block.pointer(), f) }
        }
    }
}

/// Notes again, when dropped, which block was loaded before.
struct Back<'a>(&'a LoadedPointer, Option<TlsBlock>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.0.block.set(self.1);
    }
}

/// The number of blocks in the first chunk; each further chunk has as many as all earlier ones together.
const FIRST_CHUNK: usize = 16;

/// The largest number of blocks in a chunk.
const MAX_CHUNK: usize = 16_384;

/// The blocks of one OS thread: memory from the kernel, and made blocks that wait for the next thread.
#[derive(Debug)]
pub(crate) struct BlockPool {
    /// How blocks look in this process.
    layout: &'static Layout,
    /// The OS thread's own thread pointer.
    os: usize,
    /// The distance from the start of an entry to the block's memory: the header, rounded up.
    header: usize,
    /// The distance from one entry to the next.
    stride: usize,
    /// The distance from an entry to its thread pointer; 0 until the first block was made.
    distance: usize,
    /// Made blocks of which the thread has ended, the latest last.
    free: Vec<TlsBlock>,
    /// Entries without a block, since one could not be made: there was no memory.
    vacant: Vec<NonNull<u8>>,
    /// The reservations; only the last one has entries that were never used.
    chunks: Vec<Mapping>,
    /// The runtime's own thread-locals, as words of a block: index and value. The same in all blocks of the OS thread.
    runtime_words: Vec<(usize, usize)>,
    /// The number of blocks that there are, in use or free.
    made: usize,
    /// The number of entries of the last chunk that were handed out at least once.
    used: usize,
}

impl BlockPool {
    /// Creates a pool without memory, on the OS thread that the blocks are for.
    ///
    /// # Errors
    /// `Unsupported`, with the reason, if threads cannot have thread-locals of their own in this process.
    pub(crate) fn new(loaded: &LoadedPointer) -> io::Result<BlockPool> {
        let layout = tls::layout()?;
        let align = layout.block_align().max(64);
        let header = HEADER.next_multiple_of(align);
        let stride = (header + layout.block_size()).next_multiple_of(align);
        let os = loaded.note_os();
        Ok(BlockPool {
            layout,
            os,
            header,
            stride,
            distance: 0,
            free: Vec::new(),
            vacant: Vec::new(),
            chunks: Vec::new(),
            runtime_words: Vec::new(),
            made: 0,
            used: 0,
        })
    }

    /// Returns a block with the thread-locals of a fresh thread and those of the runtime, which `install` writes into
    /// the block that it is given.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(crate) fn acquire(&mut self, install: impl FnOnce(TlsBlock)) -> io::Result<TlsBlock> {
        let entry = match self.free.pop() {
            Some(block) => {
                // SAFETY: the block was made by `create`, its thread has ended, and nothing uses it (tls-pool-2).
                if unsafe { self.layout.recycle(block.pointer(), self.os) } {
                    self.write_runtime_words(block);
                    return Ok(block);
                }
                // Modules were loaded since, or the thread has left more than its static thread-locals: make it anew.
                // SAFETY: as above.
                unsafe { self.layout.destroy(block.pointer()) };
                self.made -= 1;
                self.entry_of(block)
            }
            None => self.empty_entry()?,
        };
        let block = self.place(entry, BlockPool::create)?;
        let before = if self.runtime_words.is_empty() { self.words(block) } else { Vec::new() };
        install(block);
        // What the first block shows, every block that is used again gets, with as many stores.
        if !before.is_empty() {
            let after = self.words(block);
            let changed = before.iter().zip(&after).enumerate().filter(|(_, (before, after))| before != after);
            self.runtime_words = changed.map(|(index, (_, after))| (index, *after)).collect();
        }
        Ok(block)
    }

    /// Makes a block in an entry that has none, by `create`, and counts the block. If that fails, the entry stays
    /// without one.
    fn place(
        &mut self,
        entry: NonNull<u8>,
        create: impl FnOnce(&mut BlockPool, NonNull<u8>) -> io::Result<TlsBlock>,
    ) -> io::Result<TlsBlock> {
        let made = create(self, entry);
        if made.is_ok() {
            self.made += 1;
        } else if self.vacant.try_reserve(1).is_ok() {
            // Without that little memory the entry is not used again.
            self.vacant.push(entry);
        }
        made
    }

    /// Returns the words of a block that is not in use: its thread-locals and the C library's part.
    fn words(&self, block: TlsBlock) -> Vec<usize> {
        let start = self.entry_of(block).as_ptr().wrapping_add(self.header).cast::<usize>();
        // SAFETY: so much memory the block has, aligned, and nothing uses it; all bits are words.
        unsafe { std::slice::from_raw_parts(start, self.layout.thread_size() / size_of::<usize>()) }.to_vec()
    }

    /// Writes the runtime's thread-locals into a block that is used again.
    fn write_runtime_words(&self, block: TlsBlock) {
        let start = self.entry_of(block).as_ptr().wrapping_add(self.header).cast::<usize>();
        for (index, value) in &self.runtime_words {
            // SAFETY: as in `words`.
            unsafe { start.wrapping_add(*index).write(*value) };
        }
    }

    /// Takes back a block of which the thread has ended.
    pub(crate) fn release(&mut self, block: TlsBlock) {
        self.free.push(block);
    }

    /// Returns the header of a block of this pool.
    pub(crate) fn header(&self, block: TlsBlock) -> &Header {
        // SAFETY: the header was written by `create`, and its memory stays until the pool is dropped.
        unsafe { self.entry_of(block).cast::<Header>().as_ref() }
    }

    /// Returns how blocks look in this process.
    pub(crate) fn layout(&self) -> &'static Layout {
        self.layout
    }

    /// Returns the memory of free blocks to the kernel if no block is in use.
    pub(crate) fn trim(&mut self) {
        if self.free.len() == self.made {
            self.clear();
        }
    }

    /// Keeps all memory for ever, because a thread is suspended that will never run again, or a block is held.
    pub(crate) fn abandon(&mut self) {
        self.chunks.drain(..).for_each(Mapping::leak);
        self.free.clear();
        self.vacant.clear();
    }

    /// Frees all blocks, none of which is in use.
    fn clear(&mut self) {
        for block in self.free.drain(..) {
            // SAFETY: its thread has ended, and nothing uses it (tls-pool-2).
            unsafe { self.layout.destroy(block.pointer()) };
        }
        self.vacant.clear();
        self.chunks.clear();
        (self.made, self.used) = (0, 0);
    }

    /// Makes a block in `entry`.
    fn create(&mut self, entry: NonNull<u8>) -> io::Result<TlsBlock> {
        let header =
            Header { running: Cell::new(0), holders: Cell::new(0), thread: Cell::new((0, 0)), destroyer: Cell::new(0) };
        // SAFETY: the entry is aligned, large enough, and not in use.
        unsafe { entry.cast::<Header>().write(header) };
        let memory = entry.as_ptr().wrapping_add(self.header);
        // SAFETY: the memory has the size and alignment that the layout asks for, and is not in use.
        let pointer = unsafe { self.layout.create(memory, self.os) }?;
        self.distance = pointer - entry.addr().get();
        match NonZeroUsize::new(pointer) {
            Some(pointer) => Ok(TlsBlock(pointer)),
            None => unreachable!("a block is not at address 0"),
        }
    }

    /// Returns the entry of a block.
    fn entry_of(&self, block: TlsBlock) -> NonNull<u8> {
        let address = block.pointer() - self.distance;
        match NonNull::new(std::ptr::with_exposed_provenance_mut(address)) {
            Some(entry) => entry,
            None => unreachable!("an entry is not at address 0"),
        }
    }

    /// Returns an entry that has no block: one for which there was no memory before, or one that was never used.
    fn empty_entry(&mut self) -> io::Result<NonNull<u8>> {
        if let Some(entry) = self.vacant.pop() {
            return Ok(entry);
        }
        let fits = |chunk: &Mapping| chunk.len() / self.stride;
        if self.chunks.last().is_none_or(|chunk| self.used == fits(chunk)) {
            let count = self.made.clamp(FIRST_CHUNK, MAX_CHUNK);
            self.chunks.push(Mapping::reserve_aligned(count * self.stride, 64)?);
            self.used = 0;
        }
        let Some(chunk) = self.chunks.last() else { unreachable!("just made") };
        let entry = chunk.base().as_ptr().wrapping_add(self.used * self.stride);
        entry.expose_provenance();
        self.used += 1;
        match NonNull::new(entry) {
            Some(entry) => Ok(entry),
            None => unreachable!("inside a mapping"),
        }
    }
}

impl Drop for BlockPool {
    fn drop(&mut self) {
        // A block that is not free is held, since no fiber is left: by a thread of `std` that was not joined, or was
        // joined by another OS thread. The program may know the block's address as the thread's number (tls-pool-2).
        if self.free.len() == self.made { self.clear() } else { self.abandon() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_block_is_not_counted_and_used_again() {
        let Ok(mut pool) = BlockPool::new(&LoadedPointer::default()) else { return };
        let entry = pool.empty_entry().unwrap();
        for _ in 0..3 {
            let failed = pool.place(entry, |_, _| Err(io::ErrorKind::OutOfMemory.into()));
            assert_eq!(failed.map_err(|error| error.kind()), Err(io::ErrorKind::OutOfMemory));
            assert_eq!((pool.made, pool.empty_entry().ok()), (0, Some(entry)));
        }
        let block = pool.place(entry, BlockPool::create).unwrap();
        assert_eq!((pool.made, pool.entry_of(block)), (1, entry));
        // All blocks are free then, so the memory goes back.
        pool.release(block);
        pool.trim();
        assert_eq!((pool.made, pool.chunks.len()), (0, 0));
    }
}
