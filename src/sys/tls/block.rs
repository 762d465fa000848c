//! One block: made, made fresh again, and ended.
//!
//! ```text
//!   x86-64
//!     memory                                  thread pointer
//!     | surplus | library .. libc | program   | struct pthread               | Tail |
//!
//!   aarch64
//!     memory           thread pointer
//!     | struct pthread | dtv | program | libc .. library | surplus           | Tail |
//! ```
//!
//! The modules' thread-locals and the dtv, the table by which `__tls_get_addr` finds those of modules that were loaded
//! later, are made by the dynamic linker itself (`_dl_allocate_tls`), so the dynamic linker keeps them up to date like
//! those of any thread. `struct pthread` and the C library's own thread-locals are a fresh OS thread's, from the probe.
//! What a green thread has in common with its OS thread is taken from that: the thread's number, which owns locks, and
//! malloc's cache.
//!
//! * Invariant tls-block-1: between [`Layout::create`] and [`Layout::destroy`] a block is complete whenever the thread
//!   pointer may be the block's: a signal handler may run at any instruction. Upheld by [`Layout::create`] and
//!   [`Layout::recycle`]: nothing runs under the block's pointer meanwhile.
//! * Invariant tls-block-2: the link in the list of threads points to itself in a block, and never in an OS thread's
//!   own `struct pthread`, which is in a list with a head; so the link tells which of them the thread pointer is.
//!   Upheld by [`Layout::create`].

#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use super::develop::WORD;
use super::image::Image;
use super::layout::Layout;
use super::live::{Live, Tail, live};
use super::memory::{copy_in, read, write};
use super::pointer::{thread_pointer, with_thread_pointer};

/// From the thread pointer to the link in the list of threads; 0 while there is no layout.
static LIST: AtomicIsize = AtomicIsize::new(0);

/// From the thread pointer to the [`Tail`].
static TAIL_AT: AtomicIsize = AtomicIsize::new(0);

/// Returns the thread pointer of the OS thread to which the running green thread belongs, and 0 if what runs is the OS
/// thread itself.
///
/// Async-signal-safe; uses no thread-local, which in a shared library might have to be allocated first.
#[inline]
pub(crate) fn os_pointer() -> usize {
    // Acquire: pairs with the Release in `publish`; a thread that reads a place of the link has the other place, too.
    let list = LIST.load(Ordering::Acquire);
    if list == 0 {
        return 0;
    }
    let pointer = thread_pointer();
    let link = pointer.wrapping_add_signed(list);
    // SAFETY: Invariant tls-memory-1: the running thread's own struct pthread, whichever that is.
    if unsafe { read::<usize>(link) } != link {
        return 0;
    }
    // Relaxed: written before the place of the link, which was read above.
    let tail = pointer.wrapping_add_signed(TAIL_AT.load(Ordering::Relaxed));
    // SAFETY: Invariant tls-block-2: the pointer is a block's, and a block has a tail.
    unsafe { read(tail + offset_of!(Tail, os)) }
}

impl Layout {
    /// Lets [`os_pointer`] know where to look.
    pub(super) fn publish(&self) {
        // Relaxed: the Release below orders this store before the place of the link.
        TAIL_AT.store(self.after as isize, Ordering::Relaxed);
        // Release: pairs with the Acquire in `os_pointer`.
        LIST.store(self.list as isize - self.below as isize, Ordering::Release);
    }

    /// Makes a fresh thread's block in `memory`, for green threads of the OS thread with the thread pointer `os`, and
    /// returns the block's thread pointer. What was in the memory before does not matter.
    ///
    /// May switch: no.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the dynamic linker gets no memory for the block's table of modules.
    ///
    /// # Safety
    ///
    /// `memory` has [`block_size`](Self::block_size) bytes at a multiple of [`block_align`](Self::block_align), nothing
    /// else uses them until [`destroy`](Self::destroy), and `os` is the calling OS thread's own pointer.
    pub(crate) unsafe fn create(&self, memory: *mut u8, os: usize) -> io::Result<usize> {
        let pointer = memory.expose_provenance() + self.before;
        // What is left free for libraries is empty until one comes.
        // SAFETY: the caller's promise.
        unsafe { memory.write_bytes(0, self.before + self.after) };
        loop {
            // SAFETY: the caller's promise.
            unsafe { self.allocate_modules(pointer) }?;
            let image = self.image().inspect_err(|_| {
                // SAFETY: allocated above.
                unsafe { self.deallocate_modules(pointer) };
            })?;
            if let Some(random) = self.seen.random {
                let state = live().random.pop().unwrap_or(0);
                // SAFETY: Invariant tls-layout-1.
                unsafe { write(pointer.wrapping_add_signed(random), state) };
            }
            // SAFETY: the caller's promise; the block has a dtv.
            unsafe { self.refresh(pointer, os, &image, slice::from_ref(&(0..image.words.len()))) };
            // SAFETY: the caller's promise.
            if unsafe { self.enter(pointer, os, image) } {
                return Ok(pointer);
            }
            // SAFETY: allocated above.
            unsafe { self.deallocate_modules(pointer) };
        }
    }

    /// Puts the block at `pointer` on the list of all. Returns false if a module came or went since the image was
    /// looked up: the image may have written over its thread-locals, and the next [`fill`](Self::fill) would not know.
    ///
    /// # Safety
    ///
    /// A new block, without a tail.
    unsafe fn enter(&self, pointer: usize, os: usize, image: Arc<Image>) -> bool {
        let mut live = live();
        if !image.stamp.holds() {
            // SAFETY: the block never ran.
            unsafe { self.keep_random(pointer, &mut live) };
            return false;
        }
        let tail = self.tail(pointer);
        // SAFETY: the memory of a block ends with the tail.
        unsafe { tail.write(Tail::new(pointer, os, image)) };
        // SAFETY: a new tail, which stays until `destroy`.
        unsafe { live.insert(tail) };
        true
    }

    /// Makes the block at `pointer`, in which a thread has ended, fresh again, for green threads of the OS thread with
    /// the pointer `os`. Returns false if it cannot, and then has changed nothing: modules were loaded or closed since
    /// the block was made, the thread used thread-locals that are allocated when they are used, or left values of
    /// pthread keys. The caller then destroys the block and creates another.
    ///
    /// May switch: no.
    ///
    /// # Safety
    ///
    /// `pointer` is a live block's, its destructors have run ([`run_destructors`](Self::run_destructors)), and the
    /// thread pointer is another. `os` is the calling OS thread's own pointer.
    #[inline]
    pub(crate) unsafe fn recycle(&self, pointer: usize, os: usize) -> bool {
        // SAFETY: a live block has a tail.
        let tail = unsafe { self.tail(pointer).as_ref() };
        let image = tail.image();
        // SAFETY: Invariant tls-layout-1.
        let has_values = unsafe { read::<u8>(pointer.wrapping_add_signed(self.seen.key_flag)) } != 0;
        // SAFETY: a live block has a dtv.
        if has_values || !image.stamp.holds() || unsafe { self.has_lazy(pointer, image) } {
            return false;
        }
        // Relaxed: read by this OS thread, and in a child of fork, which comes later.
        tail.os.store(os, Ordering::Relaxed);
        // SAFETY: Invariant tls-layout-1.
        let whole = unsafe { self.has_resolver(pointer) };
        let all = 0..image.words.len();
        let parts = if whole { slice::from_ref(&all) } else { &image.parts[..] };
        // SAFETY: the caller's promise, and the modules are the image's.
        unsafe { self.refresh(pointer, os, image, parts) };
        true
    }

    /// Ends the block at `pointer`: frees what was allocated for it. The memory is the caller's again.
    ///
    /// May switch: no.
    ///
    /// # Safety
    ///
    /// `pointer` is a live block's, nothing runs under it, and nothing uses it afterwards.
    pub(crate) unsafe fn destroy(&self, pointer: usize) {
        let tail = self.tail(pointer);
        {
            let mut live = live();
            // SAFETY: a live block is on the list.
            unsafe { live.remove(tail) };
            // SAFETY: nothing runs in the block any more.
            unsafe { self.keep_random(pointer, &mut live) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.free_tables(pointer) };
        // SAFETY: the same.
        unsafe { self.deallocate_modules(pointer) };
        // SAFETY: the block has a tail.
        let tail = unsafe { tail.as_ref() };
        // SAFETY: it was taken off the list.
        unsafe { tail.drop_image() };
    }

    /// Tells the C library's functions which ask for the running thread's stack that a thread in the block at `pointer`
    /// has `size` bytes from `low` on. A fresh block has none.
    ///
    /// # Safety
    ///
    /// `pointer` is a live block's.
    pub(crate) unsafe fn set_stack(&self, pointer: usize, low: usize, size: usize) {
        if let Some(stack) = self.seen.stack {
            // SAFETY: Invariant tls-layout-1.
            unsafe { write(pointer.wrapping_add_signed(stack), [low, size, 0, 0]) };
        }
    }

    /// Writes the first values of modules that were loaded since blocks were made, and lie in what was left free for
    /// such, into all blocks of the process; returns how many modules these are. To be called by what loads a library,
    /// before anything can use the library. Other OS threads may run in their blocks meanwhile: they do not know of the
    /// library yet.
    ///
    /// May switch: no.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the blocks are as they were.
    pub(crate) fn fill(&self) -> io::Result<usize> {
        let image = self.image()?;
        let mut live = live();
        let mut most = 0;
        for tail in live.tails() {
            let known = tail.image();
            let new = image.starts.iter().filter(|(number, _)| !image.stamp.shares(&known.stamp, *number));
            let mut count = 0;
            for (_, start) in new {
                count += 1;
                let end = image.starts.iter().map(|(_, other)| *other).filter(|other| other > start).min();
                let end = end.unwrap_or(if self.below == 0 { 0 } else { self.after as isize });
                let part = image.bytes(*start..end);
                // SAFETY: Invariant tls-image-1: the part that has this module, and which no other module uses.
                unsafe { copy_in(&part, tail.pointer.wrapping_add_signed(*start)) };
            }
            most = most.max(count);
        }
        if most > 0 {
            live.replace_images(&image);
        }
        Ok(most)
    }

    /// Writes the number of the OS thread with the pointer `os` into the blocks of its green threads: the child of a
    /// fork has a new one.
    pub(super) fn renumber(&self, live: &Live, os: usize) {
        // SAFETY: Invariant tls-layout-1, of the OS thread's own struct pthread.
        let tid: u32 = unsafe { read(os - self.below + self.tid) };
        // Relaxed: the child has this OS thread only.
        for tail in live.tails().filter(|tail| tail.os.load(Ordering::Relaxed) == os) {
            // SAFETY: Invariant tls-layout-1.
            unsafe { write(tail.pointer - self.below + self.tid, tid) };
        }
    }

    /// Returns the place of the tail of the block at `pointer`.
    fn tail(&self, pointer: usize) -> NonNull<Tail> {
        let tail = ptr::with_exposed_provenance_mut(pointer + self.after);
        NonNull::new(tail).expect("a block does not lie at address 0")
    }

    /// Keeps the state of random numbers of a block that ends, for the next block that is made.
    ///
    /// # Safety
    ///
    /// Nothing runs in the block any more.
    unsafe fn keep_random(&self, pointer: usize, live: &mut Live) {
        let Some(random) = self.seen.random else { return };
        // SAFETY: Invariant tls-layout-1.
        let state: usize = unsafe { read(pointer.wrapping_add_signed(random)) };
        if state != 0 {
            live.random.push(state);
        }
    }

    /// Reports whether the block has thread-locals that were allocated when the thread first used them.
    ///
    /// # Safety
    ///
    /// A block with a dtv, and the image of the modules that it knows.
    unsafe fn has_lazy(&self, pointer: usize, image: &Image) -> bool {
        // SAFETY: Invariant tls-layout-1.
        let dtv: usize = unsafe { read(pointer - self.below + self.dtv) };
        // SAFETY: Invariant tls-layout-1: the element before the first says how many follow.
        let length: usize = unsafe { read(dtv - self.dtv_element + self.dtv_counter) };
        image.lazy.iter().filter(|(number, _)| *number <= length).any(|(number, unused)| {
            // SAFETY: the dtv has an entry of this number.
            let value: usize = unsafe { read(dtv + number * self.dtv_element + self.dtv_value) };
            value != *unused
        })
    }

    /// Writes a fresh thread's state into a block that has a dtv: the parts of the image, and what differs from block
    /// to block.
    ///
    /// # Safety
    ///
    /// As of [`recycle`](Self::recycle); the block's modules are those of the image.
    #[inline]
    unsafe fn refresh(&self, pointer: usize, os: usize, image: &Image, parts: &[Range<usize>]) {
        let pthread = pointer - self.below;
        let random = self.seen.random.map(|random| pointer.wrapping_add_signed(random));
        // SAFETY: Invariant tls-layout-1.
        let dtv: usize = unsafe { read(pthread + self.dtv) };
        // SAFETY: the same.
        let state: Option<usize> = random.map(|random| unsafe { read(random) });
        for part in parts {
            let at = image.low + (part.start * WORD) as isize;
            // SAFETY: Invariant tls-image-1: the image is a part of a block.
            unsafe { copy_in(&image.words[part.clone()], pointer.wrapping_add_signed(at)) };
        }
        // SAFETY: Invariant tls-layout-1.
        unsafe { write(pthread + self.dtv, dtv) };
        if let (Some(random), Some(state)) = (random, state) {
            // SAFETY: Invariant tls-layout-1.
            unsafe { write(random, state) };
        }
        for (place, distance) in &image.relative {
            // SAFETY: Invariant tls-image-1.
            unsafe { write(pointer.wrapping_add_signed(*place), pointer.wrapping_add(*distance)) };
        }
        // The number by which the kernel and the owners of locks know the OS thread.
        // SAFETY: Invariant tls-layout-1, of the OS thread's own struct pthread.
        let tid: u32 = unsafe { read(os - self.below + self.tid) };
        // SAFETY: Invariant tls-layout-1.
        unsafe { write(pthread + self.tid, tid) };
        // SAFETY: the caller's promise.
        unsafe { self.share_malloc(pointer, os) };
        // As `__ctype_init` does in a thread that begins: setlocale may have been called since the probe.
        for (place, global) in &self.seen.ctype {
            // SAFETY: a field of the global locale, a static of the C library.
            let table: usize = unsafe { read(*global) };
            // SAFETY: Invariant tls-layout-1.
            unsafe { write(pointer.wrapping_add_signed(*place), table) };
        }
        if cfg!(feature = "sanitizer") {
            // SAFETY: the caller's promise.
            unsafe { self.share_sanitizer(pthread, os - self.below) };
        }
    }

    /// Gives the block the OS thread's words of malloc.
    ///
    /// # Safety
    ///
    /// `pointer` is a block's in which nothing runs, and `os` the calling OS thread's own.
    #[inline]
    unsafe fn share_malloc(&self, pointer: usize, os: usize) {
        // SAFETY: Invariant tls-layout-1, of the OS thread's own thread-locals.
        let word = |place: isize| unsafe { read::<usize>(os.wrapping_add_signed(place)) };
        if self.seen.malloc.iter().all(|(place, unused)| word(*place) == *unused) {
            // SAFETY: the caller's promise.
            unsafe { self.begin_malloc(os) };
        }
        for (place, _) in &self.seen.malloc {
            // SAFETY: Invariant tls-layout-1.
            unsafe { write(pointer.wrapping_add_signed(*place), word(*place)) };
        }
    }

    /// Has the OS thread call the C library's malloc for the first time: otherwise its green threads would do so, and
    /// each would get a cache of its own.
    ///
    /// # Safety
    ///
    /// `os` is the calling OS thread's own pointer.
    #[cold]
    unsafe fn begin_malloc(&self, os: usize) {
        // SAFETY: any size may be asked for (malloc(3)).
        let allocate = || unsafe { (self.call.malloc)(24) };
        // SAFETY: the caller's promise.
        let memory = unsafe { with_thread_pointer(os, allocate) };
        // SAFETY: the same function's memory, which any thread may give back.
        unsafe { (self.call.free)(memory) };
    }
}
