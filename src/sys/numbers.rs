//! What this process has done to its descriptors, by number: stamps that tell whether knowledge of a number is still
//! current, and whether the number still means the same file (feature `monkey`).
//!
//! ```text
//!   stamp(7) --> S, then the kernel is asked ............ stamp(7) == S: trust the answer
//!                                    close(7), dup2(.., 7), fcntl(7, F_SETFL), fcntl(8, F_SETFL) and 8 = dup(7):
//!                                                         stamp(7) != S: ask again
//!   file_of(7) --> F, then a wait for 7 ................. F.has_its_number(): go on
//!                                    close(7), dup2(.., 7), 7 = socket(..):
//!                                                         not: EBADF, whatever 7 means now
//!
//!   a slot:   63        40 39         16 15      1  0
//!             | changes   | closings    | watcher | duplicated |
//! ```
//!
//! A flag belongs to the open file, which several numbers may share. Which numbers share a file is not recorded: a
//! number that was ever duplicated is marked, and a change through a marked number counts as a change of all numbers.
//!
//! Some changes are not seen: system calls that do not go through the C library's functions, calls that the C library
//! makes within itself (`fclose`; but `socket` and `accept` mark the number that they return), descriptors received
//! from a socket, and other processes. An unchanged stamp is therefore a good reason to trust for a moment, and no
//! proof.
//!
//! The slot also names the hub that waits for the number, so that a close on another OS thread wakes the waiters there.
//! `closing` and `note_watcher` change the slot in one atomic step each: of two that happen at once, either the close
//! finds the watcher, or the watcher, which compares the file afterwards, finds the close.
//!
//! Orderings: a close marks the number before the call, a change of a flag marks the number after the call. A thread
//! that learns of either without a data race learns it through something that orders memory: the kernel's table of
//! files, a lock, a channel. Release and Acquire here pair for threads that share nothing but the number.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The length of the table. Numbers beyond share a slot with a number below. Untouched pages take no memory.
const SLOTS: usize = 1 << 16;

/// The bit of a slot that says that its number was duplicated.
const DUPLICATED: u64 = 1;

/// One watcher, as added to a slot that has none.
const WATCHER: u64 = 1 << 1;

/// The bits of the watcher.
const WATCHERS: u64 = CLOSING - WATCHER;

/// The watcher that stands for several.
const SEVERAL: u64 = WATCHERS / WATCHER;

/// One close, as added to a slot.
const CLOSING: u64 = 1 << 16;

/// The bits of the count of closings.
const CLOSINGS: u64 = CHANGE - CLOSING;

/// One change, as added to a slot; the count wraps around at the top of the slot.
const CHANGE: u64 = 1 << 40;

/// The slot of each number.
static NUMBERS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// The count of changes through duplicated numbers.
static SHARED_CHANGES: AtomicU32 = AtomicU32::new(0);

/// A moment in the history of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The slot of the number, without the watcher.
    slot: u64,
    /// [`SHARED_CHANGES`] at that moment.
    shared: u32,
}

/// The file that has a number at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumberedFile {
    /// The descriptor that means the file at that moment.
    pub(crate) fd: RawFd,
    /// The count of closings at that moment.
    closings: u64,
}

impl NumberedFile {
    /// Reports whether the number was neither closed nor given another file since.
    #[inline]
    pub(crate) fn has_its_number(self) -> bool {
        // Acquire: pairs with `closing`.
        slot(self.fd).load(Ordering::Acquire) & CLOSINGS == self.closings
    }
}

/// The hubs that wait for a number, as far as a close has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchedBy {
    /// No hub, or only the one that asks.
    NoOther,
    /// Another hub, or several.
    Others,
}

/// Returns the slot of `fd`.
#[inline]
fn slot(fd: RawFd) -> &'static AtomicU64 {
    &NUMBERS[fd as usize % SLOTS]
}

/// Returns the bits that stand for the hub with the number `hub`.
fn watcher(hub: u64) -> u64 {
    (1 + hub % (SEVERAL - 1)) * WATCHER
}

/// Returns the file that has the number `fd` now.
#[inline]
pub(crate) fn file_of(fd: RawFd) -> NumberedFile {
    // Acquire: pairs with `closing`.
    NumberedFile { fd, closings: slot(fd).load(Ordering::Acquire) & CLOSINGS }
}

/// Returns a stamp that differs from later ones once `fd` was closed, duplicated or changed.
#[inline]
pub(crate) fn stamp(fd: RawFd) -> Stamp {
    // Acquire, both: pair with the stores of `closing`, `changed` and `duplicated`.
    let slot = slot(fd).load(Ordering::Acquire) & !WATCHERS;
    Stamp { slot, shared: SHARED_CHANGES.load(Ordering::Acquire) }
}

/// Records that the hub with the number `hub` waits for `fd`. Compare the file afterwards.
pub(crate) fn note_watcher(fd: RawFd, hub: u64) {
    let me = watcher(hub);
    // Relaxed: a watcher that is there was put there by this hub, or by this function.
    let known = slot(fd).load(Ordering::Relaxed) & WATCHERS;
    if known == me || known == WATCHERS {
        return;
    }
    let add = |slot: u64| Some(if slot & WATCHERS == 0 { slot | me } else { slot | WATCHERS });
    // AcqRel: of this step and a `closing` one comes first, and the other finds what it has done.
    let _ = slot(fd).fetch_update(Ordering::AcqRel, Ordering::Relaxed, add);
}

/// Records that `fd` is about to be closed or to name another file, or has just come to name one. Returns which hubs
/// wait for the number besides `hub`, the one that asks, and forgets the hubs.
pub(crate) fn closing(fd: RawFd, hub: Option<u64>) -> WatchedBy {
    let add = |slot: u64| {
        let closings = slot.wrapping_add(CLOSING) & CLOSINGS;
        Some(slot & !(DUPLICATED | WATCHERS | CLOSINGS) | closings)
    };
    // Release pairs with `stamp` and `has_its_number`; Acquire: see `note_watcher`.
    let before = slot(fd).fetch_update(Ordering::AcqRel, Ordering::Relaxed, add).unwrap_or_default();
    match before & WATCHERS {
        0 => WatchedBy::NoOther,
        known if hub.is_some_and(|hub| watcher(hub) == known) => WatchedBy::NoOther,
        _ => WatchedBy::Others,
    }
}

/// Records that a flag or a time limit of `fd` was set.
pub(crate) fn changed(fd: RawFd) {
    // Release, both: pair with `stamp`.
    if slot(fd).fetch_add(CHANGE, Ordering::Release) & DUPLICATED != 0 {
        SHARED_CHANGES.fetch_add(1, Ordering::Release);
    }
}

/// Records that the open file of `fd` has, or had, another number.
pub(crate) fn duplicated(fd: RawFd) {
    slot(fd).fetch_or(DUPLICATED, Ordering::Release); // pairs with `stamp`
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_at_one_number_and_through_duplicates_at_all() {
        // Numbers that nothing else in this process uses.
        let (one, other) = (60_001, 60_002);
        let both = || (stamp(one), stamp(other));
        let before = both();
        changed(one);
        assert_ne!(stamp(one), before.0);
        assert_eq!(stamp(other).slot, before.1.slot, "nothing was shared");
        duplicated(one);
        let before = both();
        changed(one);
        assert_ne!(stamp(one), before.0);
        assert_ne!(stamp(other), before.1);
        let before = both();
        closing(one, None);
        changed(one);
        assert_ne!(stamp(one), before.0);
        assert_eq!(stamp(other).slot, before.1.slot, "closed: a new file, not shared yet");
    }

    #[test]
    fn a_file_loses_its_number_by_a_close_and_not_by_a_change() {
        let fd = 60_003;
        let file = file_of(fd);
        changed(fd);
        duplicated(fd);
        note_watcher(fd, 4);
        assert!(file.has_its_number());
        closing(fd, None);
        assert!(!file.has_its_number() && file_of(fd).has_its_number());
        assert_ne!(file_of(fd), file);
    }

    #[test]
    fn a_close_finds_the_hubs_that_wait_for_the_number() {
        let fd = 60_004;
        let before = stamp(fd);
        assert_eq!(closing(fd, None), WatchedBy::NoOther);
        assert_ne!(stamp(fd), before);
        let before = stamp(fd);
        note_watcher(fd, 7);
        assert_eq!(stamp(fd), before, "a wait is no change");
        assert_eq!(closing(fd, Some(7)), WatchedBy::NoOther);
        for hubs in [&[7][..], &[7, 8], &[8, 7, 7], &[0]] {
            hubs.iter().for_each(|hub| note_watcher(fd, *hub));
            assert_eq!(closing(fd, Some(9)), WatchedBy::Others, "{hubs:?}");
            assert_eq!(closing(fd, Some(9)), WatchedBy::NoOther, "the hubs were forgotten");
        }
        note_watcher(fd, 7);
        note_watcher(fd, 8);
        assert_eq!(closing(fd, Some(7)), WatchedBy::Others);
        note_watcher(fd, u64::MAX);
        assert_eq!(closing(fd, None), WatchedBy::Others);
    }

    #[test]
    fn counts_wrap_around_and_touch_nothing_else() {
        let fd = 60_005;
        slot(fd).store(CLOSINGS | !(CHANGE - 1), Ordering::Relaxed);
        note_watcher(fd, 3);
        changed(fd);
        assert_eq!(slot(fd).load(Ordering::Relaxed), CLOSINGS | watcher(3));
        closing(fd, None);
        assert_eq!(slot(fd).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn any_number_has_a_slot() {
        for fd in [0, -1, RawFd::MIN, RawFd::MAX] {
            closing(fd, None);
            changed(fd);
            let _ = stamp(fd);
        }
    }
}
