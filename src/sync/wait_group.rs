//! A counter of unfinished things, to wait for its end.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::wait_queue::WaitQueue;
use crate::runtime::checkpoint::checkpoint_if;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::select_source::SelectWait;
use crate::switch::fiber::Reason;
use crate::switch::wait_list::WaitList;
use crate::sys::clock::after;

/// A count of what is still to be done, and the end of which green threads of one OS thread wait for, as Go's
/// `WaitGroup`.
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
#[doc(alias = "JoinableQueue")]
#[derive(Debug, Default)]
pub struct WaitGroup {
    /// The number of things that are not done. While it is 0, no thread waits.
    left: Cell<usize>,
    /// The threads that wait for the end.
    queue: WaitQueue,
}

impl WaitGroup {
    /// Creates a group with nothing to do.
    ///
    /// May switch: no.
    pub const fn new() -> WaitGroup {
        WaitGroup { left: Cell::new(0), queue: WaitQueue::new() }
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

    /// Marks one thing as done. The last one wakes all waiters, in the order in which they came.
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
        // The waiters go on, even if more is added before they run.
        if self.left.get() == 0 {
            self.queue.choose_all();
        }
    }

    /// Returns a value that calls [`done`](Self::done) when it is dropped.
    ///
    /// May switch: no.
    pub fn done_on_drop(&self) -> WaitGroupDone<'_> {
        WaitGroupDone { group: self }
    }

    /// Returns the number of things that are not done.
    ///
    /// May switch: no.
    pub fn remaining(&self) -> usize {
        self.left.get()
    }

    /// Waits until all things are done.
    ///
    /// # Panics
    /// If the call would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless all things are done.
    pub fn wait(&self) {
        checkpoint_if(|| self.remaining() == 0);
        // One wait is enough: a waiter is chosen only when nothing was left to do.
        if self.left.get() > 0 {
            self.queue.wait_or_panic(Reason::Event("a WaitGroup"), || "a WaitGroup", |_| {});
        }
    }

    /// [`wait`](Self::wait)s, but no longer than `limit`, and reports whether all things are done. While the caller
    /// unwinds, the call does not wait at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, unless all things are done.
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        checkpoint_if(|| self.remaining() == 0);
        self.left.get() == 0 || self.queue.wait(Reason::Event("a WaitGroup"), after(limit), |_| {}).is_chosen()
    }
}

impl SelectWait for WaitGroup {
    type Arm<'s>
        = GroupArm<'s>
    where
        Self: 's;

    fn select_wait(&self) -> GroupArm<'_> {
        GroupArm { group: self }
    }
}

/// A guard that calls [`WaitGroup::done`] when it is dropped.
#[derive(Debug)]
#[must_use = "if unused it is done immediately"]
pub struct WaitGroupDone<'a> {
    group: &'a WaitGroup,
}

impl Drop for WaitGroupDone<'_> {
    fn drop(&mut self) {
        // A count that is wrong already must not become a second panic.
        if self.group.left.get() > 0 || !std::thread::panicking() {
            self.group.done();
        }
    }
}

/// The arm of a `select!` that waits for a [`WaitGroup`].
#[derive(Debug)]
pub struct GroupArm<'a> {
    group: &'a WaitGroup,
}

impl SelectArm for GroupArm<'_> {
    type Output = ();

    fn finish(self) {}
}

impl Arm for GroupArm<'_> {
    fn try_select(&self) -> bool {
        self.group.left.get() == 0
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        Ok(Some(self.group.queue.list()))
    }

    fn accept(&self) {}

    fn unregister(&self, _: ArmEnd) {}
}
