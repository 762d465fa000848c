//! A FIFO list of those who wait, linked through the waiters themselves: joining one allocates nothing.
//!
//! ```text
//!   head --> fiber A <--> fiber B <--> fiber C <-- tail
//! ```
//!
//! Most entries are fibers, linked through their control blocks. A fiber that waits for several things at once is linked
//! through nodes in its frame instead; see `wait_node`.
//!
//! * Invariant W1: a fiber is in at most one list by its control block, and `linked` says whether it is in one. Upheld by
//!   the callers: each blocking call joins one list, parks, and leaves it before it returns or unwinds (`Waiting` does
//!   that, or a guard of the caller's that has more to do).
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::fiber::Fiber;
use super::wait_node::Link;

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct WaitList {
    /// Who waits longest.
    head: Cell<Option<Link>>,
    /// Who came last.
    tail: Cell<Option<Link>>,
}

impl WaitList {
    /// Nobody waits.
    pub(crate) const fn new() -> WaitList {
        WaitList { head: Cell::new(None), tail: Cell::new(None) }
    }

    /// Whether nobody waits.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// Puts `fiber` at the end, until the returned guard is dropped or somebody takes it out.
    #[inline(always)]
    pub(crate) fn join(&self, fiber: Fiber) -> Waiting<'_> {
        self.enter(fiber);
        Waiting { list: self, fiber }
    }

    /// Puts `fiber` at the end, until it is taken out; the caller sees to it that it leaves (invariant W1).
    #[inline(always)]
    pub(crate) fn enter(&self, fiber: Fiber) {
        debug_assert!(!fiber.linked.get(), "a fiber waits in one list at a time, or has nodes");
        fiber.linked.set(true);
        fiber.wait_next.set(None);
        fiber.wait_prev.set(self.append(Link::of(fiber)));
    }

    /// Takes `fiber` out if it is still in this list, the only one that it may be in, and says whether it was.
    #[inline(always)]
    pub(crate) fn leave(&self, fiber: Fiber) -> bool {
        let linked = fiber.linked.replace(false);
        if linked {
            self.close_gap(fiber.wait_prev.take(), fiber.wait_next.take());
        }
        linked
    }

    /// Makes `link` the last, and says who was.
    #[inline(always)]
    pub(super) fn append(&self, link: Link) -> Option<Link> {
        let last = self.tail.replace(Some(link));
        match last {
            Some(last) => last.with_next(|next| next.set(Some(link))),
            None => self.head.set(Some(link)),
        }
        last
    }

    /// Who waits longest.
    #[inline]
    pub(crate) fn first(&self) -> Option<Fiber> {
        self.head.get().map(Link::fiber)
    }

    /// Takes out who waits longest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Fiber> {
        self.choose().map(|(fiber, _)| fiber)
    }

    /// Takes out who waits longest, and says which of its places in lists this was: 0 for a fiber that waits for one thing
    /// only. Its other places are gone too.
    #[inline(always)]
    pub(crate) fn choose(&self) -> Option<(Fiber, usize)> {
        let first = self.head.get()?;
        let Some(fiber) = first.sole() else { return Some(first.choose_node()) };
        // Nobody comes before it, so half of the way out is enough.
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

    /// Calls `f` with everybody in order; it must not change the list.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Fiber)) {
        let mut at = self.head.get();
        while let Some(link) = at {
            f(link.fiber());
            at = link.with_next(Cell::get);
        }
    }

    /// Joins the neighbours of one that leaves this list.
    #[inline(always)]
    pub(super) fn close_gap(&self, prev: Option<Link>, next: Option<Link>) {
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

/// A fiber's place in a wait list; leaves it when dropped, also when a kill unwinds the wait.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    /// The list.
    list: &'a WaitList,
    /// Who waits.
    fiber: Fiber,
}

impl Drop for Waiting<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.list.leave(self.fiber);
    }
}
