//! The end of a thread: destructors of thread-locals and of values of pthread keys.
//!
//! Thread-locals of Rust and C++ have theirs in a list that `__call_tls_dtors` empties. Values of pthread keys have a
//! destructor each, in the table of all keys; `pthread_exit`'s own function for them is private, but the tables are
//! described for debuggers.
//!
//! ```text
//!   __pthread_keys      | sequence, destructor | sequence, destructor | ..                      all keys
//!   struct pthread      specific: | table 0 | table 1 | ..   a table: | sequence, value | ..    32 keys each
//! ```
//!
//! A value counts if its sequence is the key's: keys are deleted and made again.
//!
//! * Invariant tls-destructors-1: a table that `specific` points to has the entries that the descriptors say; tables
//!   but the first, which lies in `struct pthread`, were allocated with the program's malloc. Upheld by the C library
//!   (`nptl/pthread_setspecific.c`).

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

#[cfg(feature = "monkey")]
use super::super::allocator::has_key;
#[cfg(feature = "monkey")]
use super::super::runtime_syscall::runtime_syscall;
use super::develop::{RESOLVER_USED, Resolver, WORD};
use super::layout::Layout;
use super::memory::{copy_in, read, write};
use super::pointer::thread_pointer;

/// How often all values are gone through: destructors may set values again (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const ROUNDS: usize = 4;

impl Layout {
    /// Runs the destructors of the running thread: those of thread-locals, those of values of pthread keys, in up to
    /// four rounds, and those of thread-locals that these made. Frees the tables of the keys.
    ///
    /// May switch: yes, if a destructor does.
    ///
    /// # Panics
    ///
    /// A destructor that panics aborts the process, as it does at the end of an OS thread.
    ///
    /// # Safety
    ///
    /// The thread pointer is a block's, and the thread does nothing more than return.
    pub(crate) unsafe fn run_destructors(&self) {
        // SAFETY: Invariant tls-layout-1: the function takes nothing and works on the running thread.
        unsafe { (self.call.destructors)() };
        let pointer = thread_pointer();
        // SAFETY: Invariant tls-layout-1.
        if unsafe { read::<u8>(pointer.wrapping_add_signed(self.seen.key_flag)) } != 0 {
            // SAFETY: the caller's promise.
            unsafe { self.destroy_values(pointer) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.free_buffers(pointer) };
    }

    /// Frees what the C library has allocated for the thread, as it does itself at the end of an OS thread
    /// (`malloc/thread-freeres.c`), but for malloc's own, which is the OS thread's.
    ///
    /// # Safety
    ///
    /// As of [`run_destructors`](Self::run_destructors); `pointer` is the running thread's.
    unsafe fn free_buffers(&self, pointer: usize) {
        for place in &self.seen.buffers {
            let place = pointer.wrapping_add_signed(*place);
            // SAFETY: Invariant tls-layout-1: the buffer of a text, or null.
            let buffer: *mut c_void = unsafe { read(place) };
            if !buffer.is_null() {
                // SAFETY: the C library allocated it with the program's malloc; the thread asks for no text any more.
                unsafe { libc::free(buffer) };
                // SAFETY: Invariant tls-layout-1.
                unsafe { write(place, ptr::null_mut::<c_void>()) };
            }
        }
        // SAFETY: Invariant tls-layout-1.
        let has_message = |place: isize| unsafe { read::<usize>(pointer.wrapping_add_signed(place)) } != 0;
        if self.seen.dlerror.is_some_and(has_message) {
            // The first call returns the message, the second one frees it.
            for _ in 0..2 {
                // SAFETY: Invariant tls-layout-1: the function takes nothing.
                unsafe { (self.call.dlerror)() };
            }
        }
        // SAFETY: Invariant tls-layout-1.
        if unsafe { self.has_resolver(pointer) } {
            let state = pointer.wrapping_add_signed(self.seen.resolver);
            // SAFETY: the thread's own state, with which it does nothing more (resolver(3)).
            unsafe { (self.call.close_resolver)(ptr::with_exposed_provenance_mut(state)) };
            let fresh = [0_usize; size_of::<Resolver>() / WORD];
            // SAFETY: Invariant tls-layout-1.
            unsafe { copy_in(&fresh, state) };
        }
    }

    /// Reports whether the thread has used its state of the resolver.
    ///
    /// # Safety
    ///
    /// `pointer` is a block's.
    #[inline]
    pub(super) unsafe fn has_resolver(&self, pointer: usize) -> bool {
        let state = pointer.wrapping_add_signed(self.seen.resolver);
        // SAFETY: Invariant tls-layout-1.
        let words: [usize; RESOLVER_USED] = unsafe { read(state) };
        words.iter().any(|word| *word != 0)
    }

    /// Runs the destructors of the values of pthread keys, in the order and as often as the C library does
    /// (`nptl/nptl_deallocate_tsd.c`).
    ///
    /// # Safety
    ///
    /// As of [`run_destructors`](Self::run_destructors); `pointer` is the running thread's.
    #[cold]
    unsafe fn destroy_values(&self, pointer: usize) {
        let flag = pointer.wrapping_add_signed(self.seen.key_flag);
        let tables = pointer - self.below + self.specific;
        for _ in 0..ROUNDS {
            // SAFETY: Invariant tls-layout-1. A destructor that sets a value sets the flag again.
            unsafe { write(flag, 0_u8) };
            for number in 0..self.tables {
                // SAFETY: Invariant tls-layout-1.
                let table: usize = unsafe { read(tables + number * WORD) };
                if table != 0 {
                    // SAFETY: Invariant tls-destructors-1.
                    unsafe { self.destroy_table(table, number * self.keys.per_table) };
                }
            }
            // A destructor may have made a thread-local that has one.
            // SAFETY: as in `run_destructors`.
            unsafe { (self.call.destructors)() };
            // SAFETY: Invariant tls-layout-1.
            if unsafe { read::<u8>(flag) } == 0 {
                break;
            }
        }
        // SAFETY: Invariant tls-layout-1.
        if unsafe { read::<u8>(flag) } != 0 {
            // A destructor that never stops: the values in the table that stays are forgotten.
            // SAFETY: Invariant tls-layout-1.
            let first: usize = unsafe { read(tables) };
            for word in 0..self.keys.per_table * self.keys.value / WORD {
                // SAFETY: Invariant tls-destructors-1.
                unsafe { write(first + word * WORD, 0_usize) };
            }
        }
        // SAFETY: no destructor runs any more.
        unsafe { self.free_tables(pointer) };
        // SAFETY: Invariant tls-layout-1.
        unsafe { write(flag, 0_u8) };
    }

    /// Runs the destructors of the values in one table; `first` is the number of its first key.
    ///
    /// # Safety
    ///
    /// Invariant tls-destructors-1.
    unsafe fn destroy_table(&self, table: usize, first: usize) {
        for index in 0..self.keys.per_table {
            let entry = table + index * self.keys.value;
            if self.is_shared(first + index) {
                continue;
            }
            // SAFETY: Invariant tls-destructors-1.
            let data: *mut c_void = unsafe { read(entry + self.keys.value_data) };
            if data.is_null() {
                continue;
            }
            // A value is emptied in any case, so that a destructor runs once.
            // SAFETY: Invariant tls-destructors-1.
            unsafe { write(entry + self.keys.value_data, ptr::null_mut::<c_void>()) };
            let key = self.keys.table + (first + index) * self.keys.entry;
            // SAFETY: Invariant tls-destructors-1.
            let mine: usize = unsafe { read(entry + self.keys.value_sequence) };
            // SAFETY: the table of all keys has an entry for each key of which there can be a value.
            let current: usize = unsafe { read(key + self.keys.sequence) };
            // SAFETY: the same; the field is such a function or null.
            let destructor: Option<unsafe extern "C" fn(*mut c_void)> = unsafe { read(key + self.keys.destructor) };
            if let Some(destructor) = destructor.filter(|_| mine == current) {
                // An allocator takes its locks when it gives up what it has for a thread, and must not wait in the hub
                // with one of them.
                #[cfg(feature = "monkey")]
                let _mark = has_key(first + index).then(runtime_syscall);
                // SAFETY: the program gave the function to pthread_key_create for values of this key.
                unsafe { destructor(data) };
            }
        }
    }

    /// Frees the tables of values but the first, and forgets them.
    ///
    /// # Safety
    ///
    /// Invariant tls-destructors-1; nothing uses values of the block at `pointer` any more.
    pub(super) unsafe fn free_tables(&self, pointer: usize) {
        for number in 1..self.tables {
            let place = pointer - self.below + self.specific + number * WORD;
            // SAFETY: Invariant tls-layout-1.
            let table: *mut c_void = unsafe { read(place) };
            if !table.is_null() {
                // SAFETY: Invariant tls-destructors-1.
                unsafe { libc::free(table) };
                // SAFETY: Invariant tls-layout-1.
                unsafe { write(place, ptr::null_mut::<c_void>()) };
            }
        }
    }

    /// Reports whether green threads have the value of `key` in common with their OS thread.
    fn is_shared(&self, key: usize) -> bool {
        cfg!(feature = "sanitizer") && Some(key) == self.sanitizer_key
    }

    /// Gives the block the OS thread's value of AddressSanitizer's key: what it knows of a thread, which is a matter of
    /// the OS thread.
    ///
    /// # Safety
    ///
    /// Both are a `struct pthread`; the second is the calling OS thread's.
    pub(super) unsafe fn share_sanitizer(&self, pthread: usize, os: usize) {
        let Some(key) = self.sanitizer_key else { return };
        // SAFETY: Invariant tls-layout-1: the first table, which has this key.
        let from: usize = unsafe { read(os + self.specific) };
        // SAFETY: the same.
        let to: usize = unsafe { read(pthread + self.specific) };
        for at in [self.keys.value_sequence, self.keys.value_data] {
            // SAFETY: Invariant tls-destructors-1.
            let word: usize = unsafe { read(from + key * self.keys.value + at) };
            // SAFETY: the same.
            unsafe { write(to + key * self.keys.value + at, word) };
        }
    }
}
