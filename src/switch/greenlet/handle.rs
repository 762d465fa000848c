//! Handles of greenlets, and the record that all handles of one greenlet share.
//!
//! * Invariant greenlet-1: `status` is `Started` exactly while a fiber exists that runs this greenlet's body. Then
//!   `fiber` names that fiber, and the fiber's `greenlet` field holds the body's own reference to the record. Upheld
//!   by `start` and `finish`.
//! * Invariant greenlet-2: `handles` counts the `Greenlet` values that a program can see; the body's own reference is
//!   not one of them.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::{Rc, Weak};

use crate::switch::fiber::{Fiber, FiberRef};
use crate::switch::root::Root;
use crate::switch::stack::MIN_SHIFT;
use crate::switch::state::State;

/// A handle of a greenlet, in the family that exchanges messages of type `M`. Clones are cheap and mean the same
/// greenlet.
///
/// ```
/// use greenling::Greenlet;
///
/// let double = Greenlet::new(|mut n: u32| {
///     loop {
///         n = Greenlet::switch_to_parent(2 * n);
///     }
/// });
/// assert_eq!(double.switch(4), 8);
/// assert_eq!(double.switch(5), 10);
/// ```
///
/// A handle never leaves the OS thread:
///
/// ```compile_fail,E0277
/// let g = greenling::Greenlet::new(|n: u32| n);
/// std::thread::spawn(move || g.switch(1));
/// ```
///
/// ```
/// // The same, made and used in one OS thread, compiles.
/// std::thread::spawn(|| {
///     let g = greenling::Greenlet::new(|n: u32| n);
///     assert_eq!(g.switch(1), 1);
/// })
/// .join()
/// .unwrap();
/// ```
///
/// Nor can a handle be shared. The body is moved in and runs once:
///
/// ```compile_fail,E0277
/// let g = greenling::Greenlet::new(|n: u32| n);
/// std::thread::scope(|s| {
///     s.spawn(|| g.switch(1));
/// });
/// ```
///
/// ```compile_fail,E0382
/// let name = String::from("moved in");
/// let body = move |n: usize| n + name.len();
/// let (a, b) = (greenling::Greenlet::new(body), greenling::Greenlet::new(body));
/// ```
///
/// ```
/// let name = String::from("moved in");
/// let body = move |n: usize| n + name.len();
/// assert_eq!(greenling::Greenlet::new(body).switch(1), 9);
/// ```
///
/// # The last handle
///
/// Dropping the last handle of a suspended greenlet unwinds the greenlet with [`GreenletExit`](crate::GreenletExit)
/// on the spot, and returns when that is done. While the dropper itself unwinds or is in
/// [`no_switch`](crate::no_switch), and for a greenlet that is blocked in the hub, the unwinding happens at the
/// greenlet's next turn instead, when a thread waits in the hub. A greenlet that drops its own last handle goes on
/// until it switches away. A handle stored in the greenlet's own body is never dropped: such a greenlet ends with the
/// OS thread. Under `panic = "abort"` nothing can unwind, and a suspended greenlet stays suspended.
///
/// # The result
///
/// The result of a greenlet goes to the nearest ancestor that can take it. An ancestor cannot while blocked in the
/// hub or waiting in a switch of another family; if no ancestor can, the result is dropped.
pub struct Greenlet<M: 'static> {
    /// The record that all handles share.
    pub(super) inner: Rc<Inner<M>>,
}

/// A handle that does not keep the greenlet from being unwound: see [`Greenlet::downgrade`].
pub struct WeakGreenlet<M: 'static> {
    /// The record that all handles share, if that still exists.
    inner: Weak<Inner<M>>,
}

/// The body of a greenlet.
pub(super) type Body<M> = Box<dyn FnOnce(M) -> M>;

/// What has become of a greenlet: see the picture in `mod.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The greenlet has no stack yet.
    Unstarted,
    /// The greenlet has a fiber.
    Started,
    /// The body returned, panicked or will never run.
    Dead,
    /// Not a greenlet of this family: main, a green thread, or a greenlet of another family that takes part.
    Guest,
}

/// The record that all handles of one greenlet share.
pub(super) struct Inner<M: 'static> {
    /// The identity in comparisons, reports and traces; for a guest the id of the fiber.
    pub(super) id: u64,
    /// What has become of the greenlet.
    pub(super) status: Cell<Status>,
    /// The fiber, while the status is `Started` or `Guest`.
    pub(super) fiber: Cell<Option<FiberRef>>,
    /// The body, until the start.
    pub(super) body: Cell<Option<Body<M>>>,
    /// The first value, between `start` and the first instruction of the body.
    pub(super) first: Cell<Option<M>>,
    /// The greenlet that gets the result; `None` only for a guest, which has no parent.
    pub(super) parent: RefCell<Option<Greenlet<M>>>,
    /// The value of the latest `kill`, which the parent gets if the exit of this number is not caught.
    pub(super) exit_value: Cell<Option<(u64, M)>>,
    /// The fiber that dropped the last handle and waits until this greenlet has unwound.
    pub(super) dropper: Cell<Option<FiberRef>>,
    /// Whether the result is unwanted: the last handle was dropped where the dropper could not wait.
    pub(super) orphan: Cell<bool>,
    /// The number of visible handles (greenlet-2).
    pub(super) handles: Cell<usize>,
    /// The slot size as a power of two.
    pub(super) shift: u8,
    /// The place where the greenlet was made.
    pub(super) made_at: &'static Location<'static>,
}

impl<M: 'static> Greenlet<M> {
    /// Returns a handle of the guest that runs on `fiber`.
    pub(super) fn guest(fiber: Fiber) -> Greenlet<M> {
        let inner = Inner::blank(fiber.id.get(), Status::Guest, fiber.spawned_at());
        inner.fiber.set(Some(fiber.to_ref()));
        Self::from_inner(Rc::new(inner))
    }

    /// Returns one more visible handle (greenlet-2).
    pub(super) fn from_inner(inner: Rc<Inner<M>>) -> Greenlet<M> {
        inner.handles.set(inner.handles.get() + 1);
        Greenlet { inner }
    }

    /// Returns a handle that stands for main or the running greenlet of an OS thread that is ending: dead.
    #[cold]
    pub(super) fn gone() -> Greenlet<M> {
        Self::from_inner(Rc::new(Inner::blank(0, Status::Guest, Location::caller())))
    }

    /// Returns a handle of the member that runs on `fiber`.
    #[inline]
    pub(super) fn member(fiber: Fiber) -> Greenlet<M> {
        match Self::running_in(fiber) {
            Some(inner) => Self::from_inner(inner),
            None => Self::guest(fiber),
        }
    }

    /// Returns the greenlet of this family that runs on `fiber`, if there is one.
    pub(super) fn running_in(fiber: Fiber) -> Option<Rc<Inner<M>>> {
        // The field is a cell: take the reference out, put a copy back.
        let any = fiber.greenlet.take()?;
        fiber.greenlet.set(Some(Rc::clone(&any)));
        any.downcast::<Inner<M>>().ok()
    }

    /// Returns a handle that does not keep the greenlet from being unwound when all others are gone.
    ///
    /// May switch: no.
    pub fn downgrade(&self) -> WeakGreenlet<M> {
        WeakGreenlet { inner: Rc::downgrade(&self.inner) }
    }

    /// Returns the fiber, if this greenlet has one that lives.
    #[inline(always)]
    pub(super) fn fiber(&self, root: &Root) -> Option<Fiber> {
        let fiber = root.resolve(self.inner.fiber.get()?)?;
        (fiber.state.get() != State::Finished).then_some(fiber)
    }
}

impl<M> Inner<M> {
    /// Returns a record without a body, a fiber or a parent.
    pub(super) fn blank(id: u64, status: Status, made_at: &'static Location<'static>) -> Inner<M> {
        Inner {
            id,
            status: Cell::new(status),
            fiber: Cell::new(None),
            body: Cell::new(None),
            first: Cell::new(None),
            parent: RefCell::new(None),
            exit_value: Cell::new(None),
            dropper: Cell::new(None),
            orphan: Cell::new(false),
            handles: Cell::new(0),
            shift: MIN_SHIFT,
            made_at,
        }
    }

    /// Reports whether the result is unwanted: the last handle was dropped, or the OS thread ends.
    pub(super) fn is_unwatched(&self, root: &Root) -> bool {
        self.dropper.get().is_some() || (self.orphan.get() && self.handles.get() == 0) || root.closing()
    }
}

impl<M: 'static> Drop for Inner<M> {
    /// Drops a row of ancestors that only this record keeps, one by one, without recursion.
    fn drop(&mut self) {
        // The parent is taken out of each ancestor before that one is dropped, so no drop goes deeper than one level.
        let mut next = self.parent.get_mut().take();
        while let Some(ancestor) = next {
            let last = Rc::strong_count(&ancestor.inner) == 1;
            next = if last { ancestor.inner.parent.take() } else { None };
        }
    }
}

impl<M: 'static> Clone for Greenlet<M> {
    #[inline]
    fn clone(&self) -> Self {
        Self::from_inner(Rc::clone(&self.inner))
    }
}

impl<M: 'static> PartialEq for Greenlet<M> {
    fn eq(&self, other: &Self) -> bool {
        self.inner.id == other.inner.id
    }
}

impl<M: 'static> Eq for Greenlet<M> {}

impl<M: 'static> WeakGreenlet<M> {
    /// Returns a handle of the greenlet, if another one still exists. A greenlet that is being unwound because its last
    /// handle was dropped cannot be upgraded any more.
    ///
    /// May switch: no.
    pub fn upgrade(&self) -> Option<Greenlet<M>> {
        let inner = self.inner.upgrade()?;
        (inner.handles.get() > 0).then(|| Greenlet::from_inner(inner))
    }
}

impl<M: 'static> Clone for WeakGreenlet<M> {
    fn clone(&self) -> Self {
        WeakGreenlet { inner: Weak::clone(&self.inner) }
    }
}
