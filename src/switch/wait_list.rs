//! A FIFO list of waiters, linked through the waiters themselves: joining a list allocates nothing.
//!
//! ```text
//!   head --> fiber A <--> fiber B <--> fiber C <-- tail
//! ```
//!
//! Most entries are fibers, linked through their control blocks. A fiber that waits for several things at once is
//! linked through nodes in a stack frame instead; see `wait_node`.
//!
//! * Invariant wait-list-1: a fiber is in at most one list by the control block, and `linked` says whether it is in
//!   one. Upheld by the callers: each blocking call joins one list, parks, and leaves the list before it returns or
//!   unwinds, by means of `Waiting` or of another guard that has more to do.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::fiber::Fiber;
use super::wait_node::Link;

/// A FIFO list of waiting fibers.
#[derive(Debug, Default)]
pub(crate) struct WaitList {
    /// The entry that waits longest.
    head: Cell<Option<Link>>,
    /// The entry that came last.
    tail: Cell<Option<Link>>,
}

impl WaitList {
    /// Returns an empty list.
    pub(crate) const fn new() -> WaitList {
        WaitList { head: Cell::new(None), tail: Cell::new(None) }
    }

    /// Reports whether the list is empty.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// Appends `fiber`, until the returned guard is dropped or a waker takes the fiber out.
    #[inline(always)]
    pub(crate) fn join(&self, fiber: Fiber) -> Waiting<'_> {
        self.enter(fiber);
        Waiting { list: self, fiber }
    }

    /// Appends `fiber`, until a waker takes the fiber out; the caller must make sure that the fiber leaves
    /// (wait-list-1).
    #[inline(always)]
    pub(crate) fn enter(&self, fiber: Fiber) {
        debug_assert!(!fiber.linked.get(), "a fiber waits in one list at a time, or has nodes");
        fiber.linked.set(true);
        fiber.wait_next.set(None);
        fiber.wait_prev.set(self.append(Link::of(fiber)));
    }

    /// Takes `fiber` out of this list, the only one that the fiber may be in. Reports whether the fiber was still
    /// there.
    #[inline(always)]
    pub(crate) fn leave(&self, fiber: Fiber) -> bool {
        let linked = fiber.linked.replace(false);
        if linked {
            self.close_gap(fiber.wait_prev.take(), fiber.wait_next.take());
        }
        linked
    }

    /// Appends `link` and returns the link that was the last before.
    #[inline(always)]
    pub(super) fn append(&self, link: Link) -> Option<Link> {
        let last = self.tail.replace(Some(link));
        match last {
            Some(last) => last.with_next(|next| next.set(Some(link))),
            None => self.head.set(Some(link)),
        }
        last
    }

    /// Returns the fiber that waits longest.
    #[inline]
    pub(crate) fn first(&self) -> Option<Fiber> {
        self.head.get().map(Link::fiber)
    }

    /// Takes out the fiber that waits longest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Fiber> {
        self.choose().map(|(fiber, _)| fiber)
    }

    /// Takes out the fiber that waits longest, and returns the fiber with the number of the node in this list: 0 for
    /// a fiber that waits for one thing only. The fiber's nodes in other lists are unlinked too.
    #[inline(always)]
    pub(crate) fn choose(&self) -> Option<(Fiber, usize)> {
        // A node has siblings in other lists, which are unlinked as well.
        let first = self.head.get()?;
        let Some(fiber) = first.sole() else { return Some(first.choose_node()) };
        // The first entry has no predecessor, so only the successor has to be mended.
        match fiber.wait_next.get() {
            None => {
                self.head.set(None);
                self.tail.set(None);
            }
            Some(next) => {
                fiber.wait_next.set(None);
                next.with_prev(|prev| prev.set(None));
                self.head.set(Some(next));
            }
        }
        fiber.linked.set(false);
        Some((fiber, 0))
    }

    /// Calls `f` with each fiber in order; `f` must not change the list.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Fiber)) {
        let mut at = self.head.get();
        while let Some(link) = at {
            f(link.fiber());
            at = link.with_next(Cell::get);
        }
    }

    /// Links the neighbours of an entry that leaves this list to each other.
    #[inline(always)]
    pub(super) fn close_gap(&self, prev: Option<Link>, next: Option<Link>) {
        // At either end of the list, head or tail takes the place of the neighbour.
        match prev {
            Some(prev) => prev.with_next(|cell| cell.set(next)),
            None => self.head.set(next),
        }
        match next {
            Some(next) => next.with_prev(|cell| cell.set(prev)),
            None => self.tail.set(prev),
        }
    }
}

/// A guard for a fiber's entry in a wait list: the drop takes the fiber out, also when a kill unwinds the wait.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    /// The list that the fiber is in.
    list: &'a WaitList,
    /// The fiber that waits.
    fiber: Fiber,
}

impl Drop for Waiting<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.list.leave(self.fiber);
    }
}
