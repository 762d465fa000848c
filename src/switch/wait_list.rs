//! A FIFO list of parked fibers, linked through their control blocks: joining one allocates nothing.
//!
//! ```text
//!   head --> fiber A <--> fiber B <--> fiber C <-- tail
//! ```
//!
//! * Invariant W1: a fiber is in at most one list, and `linked` says whether it is in one. Upheld by the callers:
//!   each blocking call joins one list, parks, and leaves it before it returns or unwinds (`Waiting` does that).
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::fiber::Fiber;

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct WaitList {
    /// Who waits longest.
    head: Cell<Option<Fiber>>,
    /// Who came last.
    tail: Cell<Option<Fiber>>,
}

impl WaitList {
    /// Nobody waits.
    pub(crate) const fn new() -> WaitList {
        WaitList { head: Cell::new(None), tail: Cell::new(None) }
    }

    /// Whether nobody waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// Puts `fiber` at the end, until the returned guard is dropped or somebody takes it out.
    #[inline]
    pub(crate) fn join(&self, fiber: Fiber) -> Waiting<'_> {
        debug_assert!(!fiber.linked.get(), "a fiber waits in one list at a time");
        fiber.linked.set(true);
        fiber.wait_next.set(None);
        fiber.wait_prev.set(self.tail.get());
        match self.tail.replace(Some(fiber)) {
            Some(last) => last.wait_next.set(Some(fiber)),
            None => self.head.set(Some(fiber)),
        }
        Waiting { list: self, fiber }
    }

    /// Who waits longest.
    #[inline]
    pub(crate) fn first(&self) -> Option<Fiber> {
        self.head.get()
    }

    /// Takes out who waits longest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Fiber> {
        let first = self.head.get()?;
        self.remove(first);
        Some(first)
    }

    /// Takes `fiber` out, which is in this list.
    fn remove(&self, fiber: Fiber) {
        let (prev, next) = (fiber.wait_prev.take(), fiber.wait_next.take());
        match prev {
            Some(prev) => prev.wait_next.set(next),
            None => self.head.set(next),
        }
        match next {
            Some(next) => next.wait_prev.set(prev),
            None => self.tail.set(prev),
        }
        fiber.linked.set(false);
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
    #[inline]
    fn drop(&mut self) {
        if self.fiber.linked.get() {
            self.list.remove(self.fiber);
        }
    }
}
