//! Making an image: the dynamic linker makes a block, a fresh thread's words are put into it, and the bytes are copied.

#![allow(unsafe_code)]

use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use super::develop::{Resolver, WORD};
use super::image::Image;
use super::layout::{Layout, RSEQ_SIZE};
use super::live::live;
use super::memory::{copy_in, copy_out, read, write};
use super::modules::Stamp;

/// Where the number of the processor is, in the area.
const RSEQ_CPU: usize = 4;
/// That number in a thread that has not asked the kernel to write it: `RSEQ_CPU_ID_UNINITIALIZED`.
const RSEQ_NOT_REGISTERED: i32 = -1;

impl Layout {
    /// Returns the image of the modules that are loaded now.
    pub(super) fn image(&self) -> io::Result<Arc<Image>> {
        let newest = live().image.clone();
        if let Some(image) = newest.filter(|image| image.stamp.holds()) {
            return Ok(image);
        }
        let image = Arc::new(self.build()?);
        live().image = Some(Arc::clone(&image));
        Ok(image)
    }

    /// Makes an image, by having the dynamic linker make a block that is thrown away.
    fn build(&self) -> io::Result<Image> {
        let layout = std::alloc::Layout::from_size_align(self.size, self.align).map_err(io::Error::other)?;
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        let pointer = memory.expose_provenance() + self.before;
        let image = loop {
            let stamp = self.modules.stamp();
            // SAFETY: the memory is as large as a block, and this function's own.
            if let Err(error) = unsafe { self.allocate_modules(pointer) } {
                break Err(error);
            }
            // SAFETY: the memory has the modules' thread-locals now.
            let image = unsafe { self.take(pointer, stamp) };
            // SAFETY: it was allocated above, and no thread runs in it.
            unsafe { self.deallocate_modules(pointer) };
            // Otherwise a module came or went in the middle: which of them the block has, nothing tells.
            if image.stamp.holds() {
                break Ok(image);
            }
        };
        // SAFETY: allocated above, with the same layout.
        unsafe { dealloc(memory, layout) };
        image
    }

    /// Makes a fresh thread's words of the block at `pointer`, and takes its image.
    ///
    /// # Safety
    ///
    /// A block in which the dynamic linker has put the modules' thread-locals, and in which nothing runs.
    unsafe fn take(&self, pointer: usize, stamp: Stamp) -> Image {
        let (seen, pthread) = (&self.seen, pointer - self.below);
        // SAFETY: Invariant tls-layout-1: the place of the words in any block, this one included.
        let dtv: usize = unsafe { read(pthread + self.dtv) };
        // SAFETY: the same.
        unsafe { copy_in(&seen.pthread, pthread) };
        // SAFETY: the same.
        unsafe { copy_in(&seen.libc, pointer.wrapping_add_signed(seen.libc_at)) };
        let rseq = pointer.wrapping_add_signed(self.rseq);
        // SAFETY: the same; the area lies in the block.
        unsafe { write(rseq, [0_u32; RSEQ_SIZE / 4]) };
        // SAFETY: the same.
        unsafe { write(rseq + RSEQ_CPU, RSEQ_NOT_REGISTERED) };
        let (mut starts, mut lazy) = (Vec::new(), Vec::new());
        let inside = pointer - self.before..pointer + self.after;
        for number in stamp.numbers() {
            // SAFETY: the dtv has an entry for each module that was loaded when the block was made.
            let value: usize = unsafe { read(dtv + number * self.dtv_element + self.dtv_value) };
            if inside.contains(&value) {
                starts.push((number, value.wrapping_sub(pointer) as isize));
            } else {
                lazy.push((number, value));
            }
        }
        // SAFETY: Invariant tls-layout-1. The dynamic linker frees what this leads to.
        unsafe { write(pthread + self.dtv, dtv) };
        let lowest = starts.iter().map(|(_, start)| *start).min().unwrap_or(0);
        let low = lowest.min(self.rseq).min(-(self.below as isize)) & -(WORD as isize);
        // On x86-64, struct pthread is the end of a block; on aarch64, modules and what is left free for others.
        let mut words = vec![0; (self.after as isize - low) as usize / WORD];
        // SAFETY: Invariant tls-memory-1: the part of the block from `low` to its end.
        unsafe { copy_out(pointer.wrapping_add_signed(low), &mut words) };
        let index = |place: isize| (place - low) as usize / WORD;
        let relative = seen.relative.iter().map(|place| (*place, words[index(*place)])).collect();
        let parts = self.parts(&words, index);
        Image { low, words, parts, relative, lazy, starts, stamp }
    }

    /// Returns the words without the first table of values of pthread keys and the resolver's state.
    fn parts(&self, words: &[usize], index: impl Fn(isize) -> usize) -> [Range<usize>; 3] {
        let tables = index(self.specific as isize - self.below as isize);
        let first = index(words[tables] as isize);
        let resolver = index(self.seen.resolver);
        let after = resolver + size_of::<Resolver>() / WORD;
        if first <= tables && tables <= resolver && after <= words.len() {
            [0..first, tables..resolver, after..words.len()]
        } else {
            [0..words.len(), 0..0, 0..0]
        }
    }

    /// Has the dynamic linker put the modules' thread-locals and a dtv into the block at `pointer`.
    ///
    /// # Safety
    ///
    /// The memory of a block, in which nothing runs.
    pub(super) unsafe fn allocate_modules(&self, pointer: usize) -> io::Result<()> {
        // SAFETY: Invariant tls-layout-1: the memory has the size that the function writes, at the right alignment.
        let made = unsafe { (self.call.allocate)(ptr::with_exposed_provenance_mut(pointer)) };
        if made.is_null() { Err(io::Error::from_raw_os_error(libc::ENOMEM)) } else { Ok(()) }
    }

    /// Has the dynamic linker free the dtv and what hangs on it.
    ///
    /// # Safety
    ///
    /// `allocate_modules` succeeded for this block, and nothing runs in it any more.
    pub(super) unsafe fn deallocate_modules(&self, pointer: usize) {
        // SAFETY: the caller's promise. False: the block itself is the caller's.
        unsafe { (self.call.deallocate)(ptr::with_exposed_provenance_mut(pointer), false) };
    }
}
