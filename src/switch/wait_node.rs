//! What a wait list links: a fiber that waits for one thing, or a node of one that waits for several.
//!
//! ```text
//!   list A:  head --> fiber 1 <----> node 0 of fiber 2 <----> fiber 3 <-- tail
//!                                        |  \
//!                                        |   Choice of fiber 2: nothing chosen yet      (in the frame of its `select!`)
//!                                        |  /
//!   list B:  head -----------------> node 1 of fiber 2 <-- tail
//! ```
//!
//! A fiber that waits for one thing is linked through its control block. One that waits for several has a node for each
//! in its own frame. A link is one word, and its lowest bit says which of the two it points to, so the ordinary wait pays
//! for the other kind with a test of that bit.
//!
//! A choice is made once: whoever takes one node out of its list takes all of them out of theirs, and leaves word which it
//! was. So a second waker does not find the fiber any more, and gives what it has to the next in line.
//!
//! * Invariant N1: a node that is linked, its `Choice` and its siblings are in place. Upheld by `choose_among`: they lie in
//!   its frame or its caller's, it takes all nodes out before it returns or unwinds, its guard never leaves it, and so
//!   nobody can forget the guard; a stack that never unwinds is leaked (F2), and its nodes with it.
//! * Invariant N2: the list that a linked node is in exists. Upheld by the lifetime of `Choice`, for which `join` borrows
//!   the list: it contains the whole call of `choose_among`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;

use super::fiber::Fiber;
use super::wait_list::WaitList;

/// Set in a link that points to a node. Both kinds of target are aligned to more than one byte.
const NODE: usize = 1;

/// An entry of a wait list. Held by lists, and by the neighbours of the entry, for as long as it is linked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link(NonNull<()>, PhantomData<Rc<()>>);

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fiber().fmt(f)
    }
}

impl Link {
    /// A fiber that waits for one thing.
    #[inline(always)]
    pub(crate) fn of(fiber: Fiber) -> Link {
        Link(fiber.to_block().cast(), PhantomData)
    }

    /// One of several places of a fiber.
    fn of_node(node: &WaitNode) -> Link {
        Link(NonNull::from(node).cast::<()>().map_addr(|address| address | NODE), PhantomData)
    }

    /// Whether it is one of several places of a fiber.
    #[inline(always)]
    fn is_node(self) -> bool {
        self.0.addr().get() & NODE != 0
    }

    /// Calls `f` with the node, for a link that is one. Cold, so that the ordinary wait is laid out straight on; without it
    /// the compiler computes both addresses and selects one. The link comes by value: by reference it would be written to
    /// the caller's stack, on the ordinary way too.
    #[cold]
    #[inline(never)]
    fn with_node<R>(self, f: impl FnOnce(&WaitNode) -> R) -> R {
        debug_assert!(self.is_node());
        let node = self.0.as_ptr().map_addr(|address| address & !NODE).cast::<WaitNode>();
        // SAFETY: invariant N1: whoever holds a link holds it while it is linked, so the node is in place.
        f(unsafe { &*node })
    }

    /// The fiber, for a link that is no node.
    #[inline(always)]
    pub(super) fn sole(self) -> Option<Fiber> {
        if self.is_node() {
            return None;
        }
        // SAFETY: made by `of`, from `to_block`; a list holds no fiber past its end (F1, W1).
        Some(unsafe { Fiber::of_block(self.0.cast()) })
    }

    /// Who waits.
    #[inline(always)]
    pub(crate) fn fiber(self) -> Fiber {
        self.sole().unwrap_or_else(|| self.with_node(|node| node.choice().fiber))
    }

    /// Who comes after it in its list.
    #[inline(always)]
    pub(super) fn with_next<R>(self, f: impl FnOnce(&Cell<Option<Link>>) -> R) -> R {
        match self.sole() {
            Some(fiber) => f(&fiber.wait_next),
            None => self.with_node(|node| f(&node.next)),
        }
    }

    /// Who comes before it in its list.
    #[inline(always)]
    pub(super) fn with_prev<R>(self, f: impl FnOnce(&Cell<Option<Link>>) -> R) -> R {
        match self.sole() {
            Some(fiber) => f(&fiber.wait_prev),
            None => self.with_node(|node| f(&node.prev)),
        }
    }

    /// Who comes before it in its list.
    pub(crate) fn before(self) -> Option<Link> {
        self.with_prev(Cell::get)
    }

    /// For a link that is a node: it leaves its list, for its fiber to have what it waits for. Says which of the fiber's
    /// places it was; the others are given up.
    #[inline(always)]
    pub(super) fn choose_node(self) -> (Fiber, usize) {
        self.with_node(WaitNode::choose)
    }
}

/// One of several places of a fiber.
#[derive(Debug, Default)]
pub(crate) struct WaitNode {
    /// Next in the list.
    next: Cell<Option<Link>>,
    /// Previous in the list.
    prev: Cell<Option<Link>>,
    /// The list it is in, if it is in one.
    list: Cell<Option<NonNull<WaitList>>>,
    /// Whose it is; means something only while it is linked.
    choice: Cell<Option<NonNull<Choice<'static, 'static>>>>,
    /// Which of the fiber's places it is.
    number: Cell<usize>,
}

impl WaitNode {
    /// In no list.
    pub(crate) const fn new() -> WaitNode {
        WaitNode {
            next: Cell::new(None),
            prev: Cell::new(None),
            list: Cell::new(None),
            choice: Cell::new(None),
            number: Cell::new(0),
        }
    }

    /// Whose it is; only of a linked one.
    fn choice(&self) -> &Choice<'_, '_> {
        let Some(choice) = self.choice.get() else { unreachable!("set before it is linked") };
        // SAFETY: invariant N1. The lifetimes are cut down to that of the borrow of this node.
        unsafe { choice.cast::<Choice<'_, '_>>().as_ref() }
    }

    /// See [`Link::choose_node`].
    fn choose(&self) -> (Fiber, usize) {
        let (choice, number) = (self.choice(), self.number.get());
        choice.chosen.set(Some(number));
        choice.leave_all();
        (choice.fiber, number)
    }

    /// Leaves its list, if it is in one.
    fn leave(&self) {
        if let Some(list) = self.list.take() {
            // SAFETY: invariant N2.
            let list = unsafe { list.as_ref() };
            list.close_gap(self.prev.take(), self.next.take());
        }
    }
}

/// The wait of one fiber for several things: `'n` is the life of its nodes, `'l` that of the lists they may join.
#[derive(Debug)]
pub(crate) struct Choice<'n, 'l> {
    /// Who waits.
    fiber: Fiber,
    /// Its places.
    nodes: &'n [WaitNode],
    /// Which of them was taken out of its list by somebody else.
    chosen: Cell<Option<usize>>,
    /// It keeps pointers to lists (N2); invariant, so that the lifetime can be neither stretched nor shortened.
    lists: PhantomData<Cell<&'l WaitList>>,
}

impl<'l> Choice<'_, 'l> {
    /// Joins `list` with the place of this number.
    pub(crate) fn join(&self, number: usize, list: &'l WaitList) {
        let node = &self.nodes[number];
        node.leave();
        node.number.set(number);
        node.choice.set(Some(NonNull::from(self).cast()));
        node.list.set(Some(NonNull::from(list)));
        node.next.set(None);
        node.prev.set(list.append(Link::of_node(node)));
    }

    /// Which place was chosen, if one was.
    pub(crate) fn chosen(&self) -> Option<usize> {
        self.chosen.get()
    }

    /// Leaves all lists.
    pub(crate) fn leave_all(&self) {
        self.nodes.iter().for_each(WaitNode::leave);
    }
}

/// Leaves all lists when dropped. Never leaves the frame of `choose_among` (N1).
struct Leave<'a, 'n, 'l>(&'a Choice<'n, 'l>);

impl Drop for Leave<'_, '_, '_> {
    fn drop(&mut self) {
        self.0.leave_all();
    }
}

/// Runs `body` with a choice of `fiber` among as many things as there are nodes. When it is over, all lists are left.
pub(crate) fn choose_among<'l, R>(fiber: Fiber, nodes: &[WaitNode], body: impl FnOnce(&Choice<'_, 'l>) -> R) -> R {
    let choice = Choice { fiber, nodes, chosen: Cell::new(None), lists: PhantomData };
    let _leave = Leave(&choice);
    body(&choice)
}
