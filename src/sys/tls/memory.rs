//! Words at addresses that are numbers: blocks, `struct pthread` and the tables of the C library.
//!
//! These structures are foreign: their places are found at run time, so there are no types for them.
//!
//! * Invariant tls-memory-1: an address given here is aligned for its type and lies in memory that lives: a block, an
//!   OS thread's own, or a table that the C library never frees. What another OS thread may write meanwhile is a single
//!   word, read once. Upheld by the callers, with offsets that [`symbols`](super::symbols) checked.

#![allow(unsafe_code)]

use std::ptr;

/// Returns the value at `address`.
///
/// # Safety
///
/// Invariant tls-memory-1, and any bits are a `T`.
#[inline(always)]
pub(super) unsafe fn read<T: Copy>(address: usize) -> T {
    // SAFETY: Invariant tls-memory-1. Volatile: read where the code says so, and once.
    unsafe { ptr::with_exposed_provenance::<T>(address).read_volatile() }
}

/// Writes `value` at `address`.
///
/// # Safety
///
/// Invariant tls-memory-1, and nothing else uses the place meanwhile.
#[inline(always)]
pub(super) unsafe fn write<T: Copy>(address: usize, value: T) {
    // SAFETY: Invariant tls-memory-1.
    unsafe { ptr::with_exposed_provenance_mut::<T>(address).write_volatile(value) }
}

/// Copies the words from `address` on into `words`, as many as there is room for. Allocates nothing.
///
/// # Safety
///
/// Invariant tls-memory-1 for each word.
#[inline]
pub(super) unsafe fn copy_out(address: usize, words: &mut [usize]) {
    for (index, word) in words.iter_mut().enumerate() {
        // SAFETY: Invariant tls-memory-1, the caller's promise.
        *word = unsafe { read(address + index * size_of::<usize>()) };
    }
}

/// Copies `values` to `address`.
///
/// # Safety
///
/// Invariant tls-memory-1 for each value, and nothing else uses their places meanwhile.
#[inline]
pub(super) unsafe fn copy_in<T: Copy>(values: &[T], address: usize) {
    let to = ptr::with_exposed_provenance_mut::<T>(address);
    // SAFETY: Invariant tls-memory-1; `values` is Rust's own memory and no part of a block.
    unsafe { ptr::copy_nonoverlapping(values.as_ptr(), to, values.len()) };
}
