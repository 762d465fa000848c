//! Waiting for a number of things to be done.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::line::Line;
use crate::runtime::source::after;
use crate::switch::fiber::Reason;

/// Counts what is still to be done, and lets green threads of one OS thread wait for the end of it, as Go's `WaitGroup`.
///
/// ```
/// use std::rc::Rc;
/// use greenling::{spawn, sync::WaitGroup};
///
/// let group = Rc::new(WaitGroup::new());
/// for _ in 0..3 {
///     group.add(1);
///     let group = Rc::clone(&group);
///     drop(spawn(move || {
///         let _done = group.done_on_drop(); // also if this thread panics or is killed
///     }));
/// }
/// group.wait();
/// ```
#[derive(Debug, Default)]
pub struct WaitGroup {
    /// How many are not done. If it is 0, nobody waits.
    left: Cell<usize>,
    /// Who waits.
    line: Line,
}

impl WaitGroup {
    /// One with nothing to do.
    ///
    /// May switch: no.
    pub const fn new() -> WaitGroup {
        WaitGroup { left: Cell::new(0), line: Line::new() }
    }

    /// Adds `count` things to do.
    ///
    /// # Panics
    /// If there are more than fit a `usize`.
    ///
    /// May switch: no.
    pub fn add(&self, count: usize) {
        match self.left.get().checked_add(count) {
            Some(left) => self.left.set(left),
            None => panic!("greenling: a WaitGroup cannot count that far"),
        }
    }

    /// One of them is done. The last wakes all who wait, in the order in which they came.
    ///
    /// # Panics
    /// If nothing is left to do, as Go's.
    ///
    /// May switch: no.
    pub fn done(&self) {
        match self.left.get().checked_sub(1) {
            None => panic!("greenling: WaitGroup::done was called more often than was added"),
            Some(left) => self.left.set(left),
        }
        if self.left.get() == 0 {
            self.line.choose_all();
        }
    }

    /// Calls [`done`](Self::done) when the returned value is dropped.
    ///
    /// May switch: no.
    pub fn done_on_drop(&self) -> WaitGroupDone<'_> {
        WaitGroupDone { group: self }
    }

    /// How many are not done.
    ///
    /// May switch: no.
    pub fn remaining(&self) -> usize {
        self.left.get()
    }

    /// Waits until all are done.
    ///
    /// # Panics
    /// If it would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless all are done.
    pub fn wait(&self) {
        if self.left.get() > 0 {
            self.line.wait_or_panic(Reason::Event("a WaitGroup"), || "a WaitGroup", |_| {});
        }
    }

    /// [`wait`](Self::wait), but no longer than `limit`; says whether all are done. While the caller unwinds it does not
    /// wait at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, unless all are done.
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        self.left.get() == 0 || self.line.wait(Reason::Event("a WaitGroup"), after(limit), |_| {}).is_chosen()
    }
}

/// Says [`WaitGroup::done`] when dropped.
#[derive(Debug)]
#[must_use = "if unused it is done immediately"]
pub struct WaitGroupDone<'a> {
    /// To whom.
    group: &'a WaitGroup,
}

impl Drop for WaitGroupDone<'_> {
    fn drop(&mut self) {
        // A count that is wrong already is not made a second panic of.
        if self.group.left.get() > 0 || !std::thread::panicking() {
            self.group.done();
        }
    }
}
