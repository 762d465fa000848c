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
//!   that).
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
    #[inline]
    pub(crate) fn join(&self, fiber: Fiber) -> Waiting<'_> {
        debug_assert!(!fiber.linked.get(), "a fiber waits in one list at a time, or has nodes");
        fiber.linked.set(true);
        self.push(Link::of(fiber));
        Waiting { list: self, fiber }
    }

    /// Puts an entry at the end, which knows already that it is in this list.
    #[inline(always)]
    pub(super) fn push(&self, link: Link) {
        link.with_next(|next| next.set(None));
        link.with_prev(|prev| prev.set(self.tail.get()));
        match self.tail.replace(Some(link)) {
            Some(last) => last.with_next(|next| next.set(Some(link))),
            None => self.head.set(Some(link)),
        }
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
        self.remove(first);
        Some(first.choose())
    }

    /// Calls `f` with everybody in order; it must not change the list.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Fiber)) {
        let mut at = self.head.get();
        while let Some(link) = at {
            f(link.fiber());
            at = link.with_next(Cell::get);
        }
    }

    /// Takes `link` out, which is in this list.
    #[inline(always)]
    pub(super) fn remove(&self, link: Link) {
        let (prev, next) = (link.with_prev(Cell::take), link.with_next(Cell::take));
        match prev {
            Some(prev) => prev.with_next(|cell| cell.set(next)),
            None => self.head.set(next),
        }
        match next {
            Some(next) => next.with_prev(|cell| cell.set(prev)),
            None => self.tail.set(prev),
        }
        link.note_unlinked();
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

impl Waiting<'_> {
    /// Leaves the list, unless somebody took the fiber out.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        if self.fiber.linked.get() {
            self.list.remove(Link::of(self.fiber));
        }
    }
}

impl Drop for Waiting<'_> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}
