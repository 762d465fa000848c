//! What this process has done to its descriptors, by number: so that what somebody knows of a number can be told from what
//! was true of it once (feature `monkey`).
//!
//! ```text
//!   stamp(7) --> S, then the kernel is asked ............ stamp(7) == S: believe the answer
//!                                    close(7), dup2(.., 7), fcntl(7, F_SETFL), fcntl(8, F_SETFL) and 8 = dup(7):
//!                                                         stamp(7) != S: ask again
//! ```
//!
//! A flag belongs to the open file, which other numbers may share. Who shares with whom is not kept: a number that was
//! ever duplicated is marked, and a change through a marked number is a change of all.
//!
//! Not seen are system calls that do not go through the C library's functions, calls that the C library makes within itself
//! (`fclose`; but who makes a socket marks the number it gets), descriptors received from a socket, and other processes. A
//! stamp that is still the same is therefore a good reason to believe for a moment, and no proof.
//!
//! Orderings: who closes a number marks it first, who sets a flag marks the number after. Whoever learns of either without
//! taking part in a race learns it through something that orders memory: the kernel's table of files, a lock, a channel.
//! Release and Acquire here pair for those who have nothing but the number.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// Numbers told apart; those beyond share a place with the ones below. Untouched pages of the table take no memory.
const PLACES: usize = 1 << 16;

/// The number was duplicated. The other bits count its changes.
const DUPLICATED: u32 = 1;

/// One change.
const CHANGE: u32 = 2;

/// By number.
static NUMBERS: [AtomicU32; PLACES] = [const { AtomicU32::new(0) }; PLACES];

/// Changes through numbers that were duplicated.
static SHARED: AtomicU32 = AtomicU32::new(0);

/// A moment in the history of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Its own changes.
    own: u32,
    /// Everybody's.
    shared: u32,
}

/// Its place.
#[inline]
fn place(fd: RawFd) -> &'static AtomicU32 {
    &NUMBERS[fd as usize % PLACES]
}

/// What has been done to `fd` until now.
#[inline]
pub(crate) fn stamp(fd: RawFd) -> Stamp {
    // Acquire, both: pair with the stores of `closing`, `changed` and `duplicated`.
    Stamp { own: place(fd).load(Ordering::Acquire), shared: SHARED.load(Ordering::Acquire) }
}

/// `fd` is about to be closed, or to name another file, or has just come to name one.
pub(crate) fn closing(fd: RawFd) {
    let place = place(fd);
    // Not one atomic step, which would cost more than the rest: two who close the same number at once are in a race of
    // their own. Relaxed load: only the value matters.
    let new = (place.load(Ordering::Relaxed) & !DUPLICATED).wrapping_add(CHANGE);
    place.store(new, Ordering::Release); // pairs with `stamp`
}

/// A flag or a time limit of `fd` was set.
pub(crate) fn changed(fd: RawFd) {
    // Release, both: pair with `stamp`.
    if place(fd).fetch_add(CHANGE, Ordering::Release) & DUPLICATED != 0 {
        SHARED.fetch_add(1, Ordering::Release);
    }
}

/// The open file of `fd` has, or had, another number.
pub(crate) fn duplicated(fd: RawFd) {
    place(fd).fetch_or(DUPLICATED, Ordering::Release); // pairs with `stamp`
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_at_its_number_and_through_duplicates_at_every() {
        // Numbers that nobody else in this process has.
        let (one, other) = (60_001, 60_002);
        let both = || (stamp(one), stamp(other));
        let before = both();
        changed(one);
        assert_ne!(stamp(one), before.0);
        assert_eq!(stamp(other).own, before.1.own, "nothing was shared");
        duplicated(one);
        let before = both();
        changed(one);
        assert_ne!(stamp(one), before.0);
        assert_ne!(stamp(other), before.1);
        let before = both();
        closing(one);
        changed(one);
        assert_ne!(stamp(one), before.0);
        assert_eq!(stamp(other).own, before.1.own, "closed: a new file, not shared yet");
    }

    #[test]
    fn any_number_has_a_place() {
        for fd in [0, -1, RawFd::MIN, RawFd::MAX] {
            closing(fd);
            changed(fd);
            let _ = stamp(fd);
        }
    }
}
