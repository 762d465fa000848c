//! Pending flags: one byte for each fiber that sends a suspension down the slow path.
//!
//! The byte is zero on the fast path. Every wait tests the byte as a whole with [`PendingFlags::any`], before and
//! after the suspension; `cancel` and `interrupt` then look at the bits. Linux has the like for returns to user space,
//! `TIF_*`.
#![forbid(unsafe_code)]

use std::cell::Cell;

/// A kill is due at the next blocking call. Never set while a shield is up.
pub(crate) const KILL: u8 = 1;
/// At least one `timeout` scope is open: waits have a deadline that is not their own.
pub(crate) const DEADLINE: u8 = 2;
/// The fiber is inside `no_switch`: suspending is a panic.
pub(crate) const NO_SWITCH: u8 = 4;
/// Main only: nothing can ever wake main; the report is in the root.
pub(crate) const DEADLOCK: u8 = 8;
/// Greenlets only: the last handle was dropped while the greenlet ran. The next switch is its last; see `greenlet`.
pub(crate) const ABANDONED: u8 = 16;
/// In the child of a fork: nothing may switch any more. Set in the fiber that forked and in main.
pub(crate) const FORKED: u8 = 32;
/// A kill was raised in the fiber. If another one is due, the program swallowed that one.
pub(crate) const RAISED: u8 = 64;
/// The latest unwinding was a kill or a timeout, not a panic of the program. Means nothing unless the fiber unwinds.
pub(crate) const CONTROL_UNWIND: u8 = 128;

/// The pending flags of one fiber, as bits.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct PendingFlags(Cell<u8>);

impl PendingFlags {
    /// Creates flags of which none is set.
    pub(crate) const fn new() -> PendingFlags {
        PendingFlags(Cell::new(0))
    }

    /// Reports whether any flag is set, that is, whether the slow path has to be taken.
    #[inline(always)]
    pub(crate) fn any(&self) -> bool {
        self.0.get() != 0
    }

    /// Reports whether at least one of `flags` is set.
    #[inline(always)]
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.0.get() & flags != 0
    }

    /// Sets `flags`, and leaves the others as they are.
    #[inline(always)]
    pub(crate) fn raise(&self, flags: u8) {
        self.0.set(self.0.get() | flags);
    }

    /// Clears `flags`, and leaves the others as they are.
    #[inline(always)]
    pub(crate) fn clear(&self, flags: u8) {
        self.0.set(self.0.get() & !flags);
    }

    /// Clears all flags, for a new fiber in the slot.
    #[inline(always)]
    pub(super) fn reset(&self) {
        self.0.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_raised_and_cleared_one_by_one() {
        let flags = PendingFlags::new();
        assert!(!flags.any());
        flags.raise(KILL);
        flags.raise(RAISED | DEADLINE);
        assert!(flags.any() && flags.has(KILL) && flags.has(RAISED | NO_SWITCH) && !flags.has(NO_SWITCH));
        flags.clear(KILL | RAISED);
        assert!(flags.has(DEADLINE) && !flags.has(KILL));
        flags.reset();
        assert!(!flags.any());
    }
}
