//! Address space of a bench: mapped, and unmapped in the end.

// The kernel's mmap(2) has no safe counterpart in std.
#![allow(unsafe_code)]

use std::{io, ptr};

/// A mapping, unmapped in the end.
pub(crate) struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    /// Maps so many bytes, aligned to 2 MiB, with large pages or without.
    pub(crate) fn map(len: usize, large: bool) -> io::Result<Memory> {
        let len = len.next_multiple_of(2 << 20) + (2 << 20);
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses a place where nothing is (mmap(2)).
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, flags | libc::MAP_NORESERVE, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let advice = if large { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the mapping was just made, and the advice changes no content (madvise(2)).
        unsafe { libc::madvise(start, len, advice) };
        Ok(Memory { start: start.cast(), len })
    }

    /// The address of a byte, counted from the first multiple of 2 MiB.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        self.start.wrapping_add(self.start.align_offset(2 << 20)).wrapping_add(offset)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing points there any more (munmap(2)).
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
