//! The waits of one hub's fibers in locks that are not this crate's: how many, and what is to be done about them.
//!
//! Any OS thread may release such a lock, so a hub in which all fibers wait for one sleeps, and that is no deadlock for
//! certain. But if it stays so for a while, it may be one, and is reported:
//!
//! ```text
//!   nothing runnable, no timer, no descriptor, no job: only foreign waits --> sleep for REPORT_AFTER at most
//!      | a wake-up, an event, another wait: begin anew
//!      | nothing has happened
//!   `stuck`, once, and then sleep without limit
//! ```
//!
//! The waits themselves are in a table of the process (`monkey/wait.rs`), which this layer does not know, hence the
//! hooks.
#![forbid(unsafe_code)]

use std::cell::Cell;

use crate::switch::root::Root;
use crate::sys::clock::monotonic_ns;

/// How long a hub waits for foreign locks alone before that is reported, in nanoseconds.
const REPORT_AFTER: u64 = 1_000_000_000;

/// What the layer of the patched calls does for a hub.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// Reports that all fibers of the hub wait in foreign locks.
    pub(crate) stuck: fn(&Root),
    /// Takes the waits of a hub that ends out of the table.
    pub(crate) close: fn(&Root),
}

/// The count of such waits, and the state of the report.
#[derive(Default)]
pub(crate) struct ForeignWaits {
    /// The number of fibers that wait now.
    count: Cell<usize>,
    /// Since when the hub has had nothing but such waits, in monotonic nanoseconds; 0 for a moment that is yet to come.
    since: Cell<u64>,
    /// Whether the present state was reported.
    reported: Cell<bool>,
    /// The hooks, from the first wait on.
    hooks: Cell<Option<Hooks>>,
}

impl ForeignWaits {
    /// Notes that a fiber begins to wait. The wait lasts until the result is dropped.
    pub(crate) fn begin(&self, hooks: Hooks) -> ForeignWait<'_> {
        self.hooks.set(Some(hooks));
        self.count.set(self.count.get() + 1);
        self.changed();
        ForeignWait(self)
    }

    /// Reports whether a fiber waits.
    pub(super) fn any(&self) -> bool {
        self.count.get() > 0
    }

    /// Notes that something has happened, so that the time until a report begins anew.
    fn changed(&self) {
        self.since.set(0);
        self.reported.set(false);
    }

    /// Returns until when the hub, which has nothing but such waits, may sleep before it is to report; none if it has
    /// nothing to report.
    pub(super) fn report_at(&self) -> Option<u64> {
        if !self.any() || self.reported.get() {
            return None;
        }
        if self.since.get() == 0 {
            self.since.set(monotonic_ns());
        }
        Some(self.since.get().saturating_add(REPORT_AFTER))
    }

    /// Reports, if it is time and the sleep has brought nothing.
    pub(super) fn report_if_due(&self, root: &Root, at: u64) {
        if monotonic_ns() >= at {
            self.reported.set(true);
            if let Some(hooks) = self.hooks.get() {
                (hooks.stuck)(root);
            }
        }
    }

    /// Ends all waits, of fibers that never run again.
    pub(super) fn close(&self, root: &Root) {
        if let Some(hooks) = self.hooks.get() {
            (hooks.close)(root);
        }
    }
}

/// A wait in a foreign lock, until this is dropped.
pub(crate) struct ForeignWait<'a>(&'a ForeignWaits);

impl Drop for ForeignWait<'_> {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.changed();
    }
}
