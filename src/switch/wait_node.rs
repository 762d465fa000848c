//! The entries of wait lists: fibers that wait for one thing, and nodes of fibers that wait for several.
//!
//! ```text
//!   list A:  head --> fiber 1 <----> node 0 of fiber 2 <----> fiber 3 <-- tail
//!                                        |  \
//!                                        |   Choice of fiber 2: nothing chosen yet      (in the frame of its `select!`)
//!                                        |  /
//!   list B:  head -----------------> node 1 of fiber 2 <-- tail
//! ```
//!
//! A fiber that waits for one thing is linked through the control block. A fiber that waits for several things has a
//! node for each of them in its own frame. A link is one word; the lowest bit tells the two kinds of
//! entry apart, so the ordinary wait pays for the other kind with a test of that bit.
//!
//! A choice is made once: a waker that takes one node out of a list takes all nodes of the fiber out of theirs, and
//! stores the number of that node. So a second waker does not find the fiber any more, and wakes the next waiter
//! instead.
//!
//! * Invariant wait-node-1: while a node is linked, the node, the `Choice` and the siblings are not moved or freed.
//!   Upheld by `choose_among`: all of them lie in the frame of that call or of its caller, and all nodes are taken
//!   out before the call returns or unwinds. The guard never leaves that frame, so it cannot be forgotten. A stack
//!   that never unwinds is leaked (fiber-2), and the nodes with it.
//! * Invariant wait-node-2: the list that a linked node is in exists. Upheld by the lifetime of `Choice`, for which
//!   `join` borrows the list: that lifetime contains the whole call of `choose_among`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;

use super::fiber::Fiber;
use super::wait_list::WaitList;

/// The bit that marks a link to a node. Both kinds of target are aligned to more than one byte.
const NODE: usize = 1;

/// A pointer to an entry of a wait list. Lists, and the neighbours of the entry, hold the link as long as the entry is
/// linked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link(NonNull<()>, PhantomData<Rc<()>>);

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fiber().fmt(f)
    }
}

impl Link {
    /// Returns a link to a fiber that waits for one thing.
    #[inline(always)]
    pub(crate) fn of(fiber: Fiber) -> Link {
        Link(fiber.to_block().cast(), PhantomData)
    }

    /// Returns a link to a node of a fiber that waits for several things.
    fn of_node(node: &WaitNode) -> Link {
        Link(NonNull::from(node).cast::<()>().map_addr(|address| address | NODE), PhantomData)
    }

    /// Reports whether this is a link to a node.
    #[inline(always)]
    fn is_node(self) -> bool {
        self.0.addr().get() & NODE != 0
    }

    /// Calls `f` with the node; the link must be one to a node.
    ///
    /// Cold, so that the ordinary wait is laid out in a straight line; without the attribute the compiler computes
    /// both addresses and selects one. The link is passed by value: a reference would force the link into the caller's
    /// stack frame, in the ordinary wait too.
    #[cold]
    #[inline(never)]
    fn with_node<R>(self, f: impl FnOnce(&WaitNode) -> R) -> R {
        debug_assert!(self.is_node());
        let node = self.0.as_ptr().map_addr(|address| address & !NODE).cast::<WaitNode>();
        // SAFETY: invariant wait-node-1: links are held only while their node is linked, so the node is in place.
        f(unsafe { &*node })
    }

    /// Returns the fiber, unless this is a link to a node.
    #[inline(always)]
    pub(super) fn sole(self) -> Option<Fiber> {
        if self.is_node() {
            return None;
        }
        // SAFETY: made by `of`, from `to_block`; a list holds no fiber past its end (fiber-1, wait-list-1).
        Some(unsafe { Fiber::of_block(self.0.cast()) })
    }

    /// Returns the fiber that waits.
    #[inline(always)]
    pub(crate) fn fiber(self) -> Fiber {
        self.sole().unwrap_or_else(|| self.with_node(|node| node.choice().fiber))
    }

    /// Calls `f` with the field that holds the next link of the list.
    #[inline(always)]
    pub(super) fn with_next<R>(self, f: impl FnOnce(&Cell<Option<Link>>) -> R) -> R {
        match self.sole() {
            Some(fiber) => f(&fiber.wait_next),
            None => self.with_node(|node| f(&node.next)),
        }
    }

    /// Calls `f` with the field that holds the previous link of the list.
    #[inline(always)]
    pub(super) fn with_prev<R>(self, f: impl FnOnce(&Cell<Option<Link>>) -> R) -> R {
        match self.sole() {
            Some(fiber) => f(&fiber.wait_prev),
            None => self.with_node(|node| f(&node.prev)),
        }
    }

    /// Returns the previous link of the list.
    pub(crate) fn before(self) -> Option<Link> {
        self.with_prev(Cell::get)
    }

    /// Chooses this node: unlinks all nodes of the fiber, and returns the fiber and the number of this
    /// node. The link must be one to a node.
    #[inline(always)]
    pub(super) fn choose_node(self) -> (Fiber, usize) {
        self.with_node(WaitNode::choose)
    }
}

/// A fiber's entry in one of several lists.
#[derive(Debug, Default)]
pub(crate) struct WaitNode {
    /// The next link of the list.
    next: Cell<Option<Link>>,
    /// The previous link of the list.
    prev: Cell<Option<Link>>,
    /// The list that the node is in, if any.
    list: Cell<Option<NonNull<WaitList>>>,
    /// The choice that the node belongs to; meaningful only while the node is linked.
    choice: Cell<Option<NonNull<Choice<'static, 'static>>>>,
    /// The number of the node among those of the fiber.
    number: Cell<usize>,
}

impl WaitNode {
    /// Returns a node that is in no list.
    pub(crate) const fn new() -> WaitNode {
        WaitNode {
            next: Cell::new(None),
            prev: Cell::new(None),
            list: Cell::new(None),
            choice: Cell::new(None),
            number: Cell::new(0),
        }
    }

    /// Returns the choice that the node belongs to; the node must be linked.
    fn choice(&self) -> &Choice<'_, '_> {
        let Some(choice) = self.choice.get() else { unreachable!("set before it is linked") };
        // SAFETY: invariant wait-node-1. The lifetimes are cut down to that of the borrow of this node.
        unsafe { choice.cast::<Choice<'_, '_>>().as_ref() }
    }

    /// Does what [`Link::choose_node`] does.
    fn choose(&self) -> (Fiber, usize) {
        let (choice, number) = (self.choice(), self.number.get());
        // All nodes leave their lists, this one too, so that no other waker finds the fiber.
        choice.chosen.set(Some(number));
        choice.leave_all();
        (choice.fiber, number)
    }

    /// Unlinks the node, if linked.
    fn leave(&self) {
        if let Some(list) = self.list.take() {
            // SAFETY: invariant wait-node-2.
            let list = unsafe { list.as_ref() };
            list.close_gap(self.prev.take(), self.next.take());
        }
    }
}

/// The wait of one fiber for several things. `'n` is the lifetime of the nodes, `'l` that of the lists that they may
/// join.
#[derive(Debug)]
pub(crate) struct Choice<'n, 'l> {
    /// The fiber that waits.
    fiber: Fiber,
    /// The nodes of the fiber.
    nodes: &'n [WaitNode],
    /// The number of the node that a waker took out of its list.
    chosen: Cell<Option<usize>>,
    /// Stands for the pointers to lists in the nodes (wait-node-2). The type is invariant in `'l`, so that the
    /// lifetime can be neither stretched nor shortened.
    lists: PhantomData<Cell<&'l WaitList>>,
}

impl<'l> Choice<'_, 'l> {
    /// Links the node of this number into `list`.
    pub(crate) fn join(&self, number: usize, list: &'l WaitList) {
        let node = &self.nodes[number];
        node.leave();
        // The node is complete before the list points there (wait-node-1, wait-node-2).
        node.number.set(number);
        node.choice.set(Some(NonNull::from(self).cast()));
        node.list.set(Some(NonNull::from(list)));
        node.next.set(None);
        node.prev.set(list.append(Link::of_node(node)));
    }

    /// Returns the number of the node that was chosen, if one was.
    pub(crate) fn chosen(&self) -> Option<usize> {
        self.chosen.get()
    }

    /// Unlinks all nodes of the fiber.
    pub(crate) fn leave_all(&self) {
        self.nodes.iter().for_each(WaitNode::leave);
    }
}

/// A guard that unlinks all nodes of a choice when dropped. Never leaves the frame of `choose_among` (wait-node-1).
struct UnlinkGuard<'a, 'n, 'l>(&'a Choice<'n, 'l>);

impl Drop for UnlinkGuard<'_, '_, '_> {
    fn drop(&mut self) {
        self.0.leave_all();
    }
}

/// Runs `body` with a choice of `fiber` among as many things as there are nodes, and unlinks all nodes afterwards.
pub(crate) fn choose_among<'l, R>(fiber: Fiber, nodes: &[WaitNode], body: impl FnOnce(&Choice<'_, 'l>) -> R) -> R {
    let choice = Choice { fiber, nodes, chosen: Cell::new(None), lists: PhantomData };
    let _guard = UnlinkGuard(&choice);
    body(&choice)
}
