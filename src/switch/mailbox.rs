//! Moving one typed value into the frame of a suspended fiber.
//!
//! ```text
//!   receiver's stack                     sender
//!   +----------------------------+
//!   | receive():  slot: Cell<..> | <---- deliver(): *slot = Some(message)
//!   +----------------------------+
//!         ^ ControlBlock::mailbox (+ mailbox_type)
//! ```
//!
//! corosensei carries nothing but `()`; the value is written where it is wanted, once, without an allocation.
//!
//! * Invariant X1: while a fiber is SWITCHED, its `mailbox` points to a live, empty `Mailbox<M>` in the frame of that
//!   fiber's suspended `receive`, and `mailbox_type` returns the `TypeId` of that `M`. Upheld by `receive`, which
//!   sets both before it suspends, and by everybody who puts a message: the fiber is RUNNING from then on.
#![allow(unsafe_code)]

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::ptr;

use super::fiber::{Fiber, Reason, State};
use super::root::Root;

/// What arrives at a suspended switch.
pub(crate) enum Message<M> {
    /// A value: `switch` returns it.
    Value(M),
    /// A panic payload: `switch` raises it.
    Throw(Box<dyn Any + Send>),
}

/// Where a message arrives.
type Mailbox<M> = Cell<Option<Message<M>>>;

/// Why a message could not be delivered; it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The fiber is not in an explicit switch: it is blocked in the hub, or about to run.
    NotSwitched,
    /// The fiber waits in a switch of another family, whose messages have another type.
    OtherFamily,
}

/// The type id as a function, so that the common case compares one word.
fn type_of<M: 'static>() -> TypeId {
    TypeId::of::<M>()
}

/// Puts a message into the mailbox of `fiber`, which must wait in `receive::<M>`. The caller makes it run next, before
/// any foreign code.
#[inline(always)]
pub(crate) fn deliver<M: 'static>(fiber: Fiber, message: Message<M>) -> Result<(), (Refusal, Message<M>)> {
    if fiber.state.get() != State::Switched {
        return Err((Refusal::NotSwitched, message));
    }
    if !accepts::<M>(fiber) {
        return Err((Refusal::OtherFamily, message));
    }
    // SAFETY: `SWITCHED` and `accepts` were just checked.
    unsafe { put(fiber, message) };
    Ok(())
}

/// Puts a message into a mailbox that is known to take it.
///
/// # Safety
/// `fiber` is SWITCHED and waits in `receive::<M>`, and nothing was put there since it suspended.
#[inline(always)]
pub(crate) unsafe fn put<M: 'static>(fiber: Fiber, message: Message<M>) {
    // A `Cell<T>` has the layout of a `T`.
    let inside = fiber.mailbox.get().cast_mut().cast::<Option<Message<M>>>();
    // SAFETY: invariant X1: the mailbox is live and of this type; it is empty, so nothing is lost by a plain write.
    unsafe { inside.write(Some(message)) };
    fiber.state.set(State::Running);
}

/// Whether the mailbox of a SWITCHED fiber takes messages of this type.
#[inline(always)]
fn accepts<M: 'static>(fiber: Fiber) -> bool {
    match fiber.mailbox_type.get() {
        // One function has one result; two functions may still be the same type's, from two codegen units.
        Some(theirs) => ptr::fn_addr_eq(theirs, type_of::<M> as fn() -> TypeId) || theirs() == TypeId::of::<M>(),
        None => false,
    }
}

/// Suspends `me` until a message arrives or somebody wakes it without one, and gives the CPU to `target`, or to
/// the run queue. `to` is whom a report names. The caller has looked at `attention` before and looks at it after.
#[inline(always)]
pub(crate) fn receive<M: 'static>(root: &Root, me: Fiber, target: Option<Fiber>, to: u64) -> Option<Message<M>> {
    let slot: Mailbox<M> = Cell::new(None);
    me.mailbox.set(ptr::from_ref(&slot).cast());
    me.mailbox_type.set(Some(type_of::<M>));
    me.reason.set(Reason::Switch(to));
    me.state.set(State::Switched);
    match target {
        Some(target) => root.transfer(me, target),
        None => root.switch_out(me),
    }
    slot.into_inner()
}

/// Passes `value` to `target` and waits for what comes back, if the target surely waits in `receive::<M>`: "surely"
/// by one comparison, which may say no for the same type in another codegen unit. Otherwise the value comes back.
#[inline(always)]
pub(crate) fn exchange<M: 'static>(root: &Root, me: Fiber, target: Fiber, value: M) -> Result<Option<Message<M>>, M> {
    let same = |theirs| ptr::fn_addr_eq(theirs, type_of::<M> as fn() -> TypeId);
    if target.state.get() != State::Switched || !target.mailbox_type.get().is_some_and(same) {
        return Err(value);
    }
    // SAFETY: it is SWITCHED and its mailbox is of this type, as just seen; nobody put anything, or it were RUNNING.
    unsafe { put(target, Message::Value(value)) };
    // A greenlet's fiber has the greenlet's id.
    Ok(receive(root, me, Some(target), target.id.get()))
}
