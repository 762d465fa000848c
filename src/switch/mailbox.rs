//! Moving one typed value into the frame of a suspended fiber.
//!
//! ```text
//!   receiver's stack                     sender
//!   +----------------------------+
//!   | receive():  inside         | <---- exchange(): the value            receiver's state: RUNNING
//!   |                            | <---- deliver():  the message          receiver's state: NOTIFIED
//!   +----------------------------+
//!         ^ ControlBlock::mailbox (+ mailbox_type)
//! ```
//!
//! corosensei carries nothing but `()`; the value is written where it is wanted, once, without an allocation. There is no
//! word beside it that says what arrived: the sender has to write the receiver's state anyhow, and that says it. So the
//! common way, a plain value while nobody traces, is one store here and one comparison there.
//!
//! * Invariant X1: while a fiber is SWITCHED, its `mailbox` points to a live, empty `Mailbox<M>` in the frame of that
//!   fiber's suspended `receive`, and `mailbox_type` returns the `TypeId` of that `M`. Upheld by `receive`, which
//!   sets both before it suspends, and by everybody who puts a message: the fiber is RUNNING or NOTIFIED from then on.
//! * Invariant X2: when `receive` finds its fiber RUNNING, the mailbox holds a value, when it finds it NOTIFIED, a message, and
//!   in any other state nothing. Upheld by `exchange` and `deliver`, the only ones to make either out of SWITCHED; `wake`
//!   makes READY.
#![allow(unsafe_code)]

use std::any::{Any, TypeId};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;

use super::fiber::{Fiber, State};
use super::root::Root;

/// What arrives at a suspended switch.
pub(crate) enum Message<M> {
    /// A value: `switch` returns it.
    Value(M),
    /// A panic payload: `switch` raises it.
    Throw(Box<dyn Any + Send>),
}

/// How a wait in [`receive`] ended.
pub(crate) enum Arrival<M> {
    /// The common case: a value, and nobody traced when it was sent.
    Value(M),
    /// Any message; the receiver looks whether somebody traces.
    Message(Message<M>),
    /// Nothing: somebody woke the fiber.
    Nothing,
}

/// Where a message arrives: uninitialised until then, and then either a `Message<M>` or, at the same place, a bare `M`, for
/// which there is room since a message may hold one. Which of them is invariant X2.
type Mailbox<M> = UnsafeCell<MaybeUninit<Message<M>>>;

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
    let inside = fiber.mailbox.get().cast_mut().cast::<Message<M>>();
    // SAFETY: invariant X1: the mailbox is live and, as was just checked, of this type. It is empty, so nothing is lost by a
    // plain write.
    unsafe { inside.write(message) };
    fiber.state.set(State::Notified);
    Ok(())
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
pub(crate) fn receive<M: 'static>(root: &Root, me: Fiber, target: Option<Fiber>, to: u64) -> Arrival<M> {
    let inside: Mailbox<M> = UnsafeCell::new(MaybeUninit::uninit());
    me.mailbox.set(inside.get().cast_const().cast());
    me.mailbox_type.set(Some(type_of::<M>));
    me.partner.set(to);
    me.state.set(State::Switched);
    match target {
        Some(target) => root.transfer(me, target),
        None => root.switch_out(me),
    }
    if me.state.get() != State::Running {
        return received(me, inside);
    }
    let inside = inside.get().cast::<M>();
    // SAFETY: invariant X2; this is the one place that takes the value out.
    Arrival::Value(unsafe { inside.read() })
}

/// What `receive` finds when it is not a plain value.
#[cold]
#[inline(never)]
fn received<M>(me: Fiber, inside: Mailbox<M>) -> Arrival<M> {
    if me.state.get() != State::Notified {
        return Arrival::Nothing;
    }
    me.state.set(State::Running);
    // SAFETY: invariant X2; this is the one place that takes the message out.
    Arrival::Message(unsafe { inside.into_inner().assume_init() })
}

/// Passes `value` to `target` and waits for what comes back, if the target surely waits in `receive::<M>`: "surely"
/// by one comparison, which may say no for the same type in another codegen unit. Otherwise the value comes back.
#[inline(always)]
pub(crate) fn exchange<M: 'static>(root: &Root, me: Fiber, target: Fiber, value: M) -> Result<Arrival<M>, M> {
    let same = |theirs| ptr::fn_addr_eq(theirs, type_of::<M> as fn() -> TypeId);
    if target.state.get() != State::Switched || !target.mailbox_type.get().is_some_and(same) {
        return Err(value);
    }
    // A greenlet's fiber has the greenlet's id.
    let to = target.id.get();
    let inside = target.mailbox.get().cast_mut().cast::<M>();
    // SAFETY: as in `deliver`: it is SWITCHED and its mailbox is of this type, as just seen.
    unsafe { inside.write(value) };
    target.state.set(State::Running);
    Ok(receive(root, me, Some(target), to))
}
