//! The list of what a debugger looks for: the roots and the stacks of all OS threads, for a reader of raw memory.
//!
//! ```text
//!   first --> Record --> Record --> Record --> null      the youngest first; a record is never freed, but used again
//!             | kind  FREE | CLAIMED | ROOT | CHUNK
//!             | values, by kind
//! ```
//!
//! A reader finds the process stopped, at any instruction of any thread, or dead. So there is no lock that it could
//! find taken, and no collection of std's of which it would have to know the layout. A record with another kind than
//! ROOT and CHUNK is passed over.
//!
//! * Invariant debug-list-1: a record that was in a list once stays there, and is never freed. Upheld by `List::claim`,
//!   which leaks what it makes, and by the drop of an `Entry`, which only marks the record FREE.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// The record is in no use.
const FREE: u64 = 0;

/// The record has an owner, and no values yet.
const CLAIMED: u64 = 1;

/// The values are: address of the root, its number, the kernel's id of its OS thread.
pub(crate) const ROOT: u64 = 2;

/// The values are: address of the first slot, number of the root, size of a slot as a power of two, slots that were
/// used at least once.
pub(crate) const CHUNK: u64 = 3;

/// One root, or one chunk of stacks.
#[repr(C)]
#[derive(Debug)]
struct Record {
    /// The next record of the list; never changes once the record is in the list.
    next: *const Record,
    /// What the values mean.
    kind: AtomicU64,
    /// Numbers and addresses, by kind.
    values: [AtomicUsize; 4],
}

/// A list of records.
#[repr(transparent)]
#[derive(Debug)]
pub(crate) struct List {
    /// The head; each claim that finds no free record puts one in front.
    first: AtomicPtr<Record>,
}

impl List {
    /// Creates an empty list.
    pub(crate) const fn new() -> List {
        List { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Enters a record, until the entry is dropped.
    #[cold]
    pub(crate) fn enter(&'static self, kind: u64, values: [usize; 4]) -> Entry {
        let record = self.claim();
        for (place, value) in record.values.iter().zip(values) {
            // Relaxed: a reader of raw memory finds all stores done, or the kind CLAIMED.
            place.store(value, Ordering::Relaxed);
        }
        // Release: a debugger that stops the process here finds the values before the kind. Pairs with no load.
        record.kind.store(kind, Ordering::Release);
        Entry(record)
    }

    /// Returns a record that only the caller uses: a free one, or a new one.
    fn claim(&self) -> &'static Record {
        // Acquire: pairs with the Release below, which publishes `next` and the kind.
        let mut at = self.first.load(Ordering::Acquire).cast_const();
        // SAFETY: invariant debug-list-1: null, or a record that stays.
        while let Some(record) = unsafe { at.as_ref() } {
            // Acquire: pairs with the Release of `Entry::drop`, after which the former owner stores no more.
            if record.kind.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return record;
            }
            at = record.next;
        }
        let values = [const { AtomicUsize::new(0) }; 4];
        let made = Box::into_raw(Box::new(Record { next: ptr::null(), kind: AtomicU64::new(CLAIMED), values }));
        // Acquire on failure and at first: as above, for the `next` of the record that is found.
        let mut first = self.first.load(Ordering::Acquire);
        loop {
            // SAFETY: the record is the caller's alone until the exchange below.
            unsafe { (*made).next = first };
            // Release: publishes `next`. Pairs with the Acquire of each walk.
            match self.first.compare_exchange_weak(first, made, Ordering::Release, Ordering::Acquire) {
                // SAFETY: invariant debug-list-1: it stays from now on, and only its atomic fields are written.
                Ok(_) => return unsafe { &*made },
                Err(other) => first = other,
            }
        }
    }
}

// SAFETY: invariant debug-list-1: `next` is written before a record is shared, and the other fields are atomic.
unsafe impl Sync for Record {}

/// A record in use; its drop ends the use.
#[derive(Debug)]
pub(crate) struct Entry(&'static Record);

impl Entry {
    /// Replaces the last value.
    pub(crate) fn set_last(&self, value: usize) {
        let [.., last] = &self.0.values;
        // Relaxed: the owner is the only one that writes, and the only thread that loads.
        last.store(value, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of the next owner's claim.
        self.0.kind.store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the kinds and first values of all records, the youngest first.
    fn records(list: &List) -> Vec<(u64, usize)> {
        let mut found = Vec::new();
        let mut at = list.first.load(Ordering::Acquire).cast_const();
        // SAFETY: invariant debug-list-1: null, or a record that stays.
        while let Some(record) = unsafe { at.as_ref() } {
            found.push((record.kind.load(Ordering::Relaxed), record.values[0].load(Ordering::Relaxed)));
            at = record.next;
        }
        found
    }

    #[test]
    fn a_record_that_was_given_back_is_used_again() {
        static LIST: List = List::new();
        let first = LIST.enter(ROOT, [1; 4]);
        let second = LIST.enter(CHUNK, [2; 4]);
        assert_eq!(records(&LIST), [(CHUNK, 2), (ROOT, 1)]);
        drop(first);
        assert_eq!(records(&LIST), [(CHUNK, 2), (FREE, 1)]);
        let third = LIST.enter(CHUNK, [3; 4]);
        assert_eq!(records(&LIST), [(CHUNK, 2), (CHUNK, 3)]);
        drop((second, third));
    }

    #[test]
    fn os_threads_that_enter_at_once_get_a_record_each() {
        static LIST: List = List::new();
        std::thread::scope(|scope| {
            for number in 1..=4 {
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let entry = LIST.enter(ROOT, [number; 4]);
                        let mine = |value: &AtomicUsize| value.load(Ordering::Relaxed) == number;
                        assert!(entry.0.values.iter().all(mine), "two owners");
                    }
                });
            }
        });
        let left = records(&LIST);
        assert!(left.len() <= 4 && left.iter().all(|(kind, _)| *kind == FREE), "{left:?}");
    }
}
