//! The mailbox: moves one typed value into the frame of a suspended fiber.
//!
//! ```text
//!   receiver's stack                     sender
//!   +----------------------------+
//!   | receive():  mailbox        | <---- exchange(): the value            receiver's state: DELIVERED
//!   |                            | <---- deliver():  the message          receiver's state: NOTIFIED
//!   +----------------------------+
//!         ^ ControlBlock::mailbox (+ mailbox_type)
//! ```
//!
//! corosensei passes nothing but `()`, so the sender writes the value into the receiver's frame: once, and without an
//! allocation. No extra word tells the receiver what has arrived: the sender has to store the receiver's state
//! anyhow, and the state tells. So the common case, a plain value without a tracer, is one store in the sender and
//! one comparison in the receiver.
//!
//! * Invariant mailbox-1: while a fiber is SWITCHED, its `mailbox` points to a live, empty `Mailbox<M>` in the frame
//!   of that fiber's suspended `receive`, and `mailbox_type` returns the `TypeId` of that `M`. Upheld by `receive`,
//!   which sets both before it suspends, and by both senders, after which the fiber is DELIVERED or NOTIFIED and no
//!   longer SWITCHED.
//! * Invariant mailbox-2: when `receive` finds its fiber DELIVERED, the mailbox holds a value; when NOTIFIED, a
//!   message; and in any other state nothing. Upheld by `exchange` and `deliver`, which alone make these states out
//!   of SWITCHED; a wake makes RUNNABLE.
#![allow(unsafe_code)]

use std::any::{Any, TypeId};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;

use super::fiber::Fiber;
use super::root::Root;
use super::state::State;

/// What arrives at a suspended switch.
pub(crate) enum Message<M> {
    /// A value: `switch` returns it.
    Value(M),
    /// A panic payload: `switch` raises it.
    Throw(Box<dyn Any + Send>),
}

/// How a wait in [`receive`] ended.
pub(crate) enum Arrival<M> {
    /// The common case: a value, sent without a tracer.
    Value(M),
    /// Any message; the receiver reports to the tracer, if there is one.
    Message(Message<M>),
    /// Nothing: the fiber was woken without a message.
    Nothing,
}

/// The place where a message arrives. Uninitialised until then; afterwards a `Message<M>` or, at the same address, a
/// bare `M`, for which there is room since a message may hold one. Invariant mailbox-2 says which of them.
type Mailbox<M> = UnsafeCell<MaybeUninit<Message<M>>>;

/// Why a message could not be delivered; the message is returned to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliverError {
    /// The fiber is not in an explicit switch, but blocked in the hub, or about to run.
    NotSwitched,
    /// The fiber waits in a switch of another family, with messages of another type.
    OtherFamily,
}

/// Returns the type id of a family's messages. A function, so that the common case compares one word, the address.
fn family_id<M: 'static>() -> TypeId {
    TypeId::of::<M>()
}

/// Puts a message into the mailbox of `fiber`, which must wait in `receive::<M>`. The caller must make the fiber run
/// next, before any foreign code.
///
/// # Errors
/// If the fiber does not wait, or waits in another family; the message comes back.
#[inline(always)]
pub(crate) fn deliver<M: 'static>(fiber: Fiber, message: Message<M>) -> Result<(), (DeliverError, Message<M>)> {
    if fiber.state.get() != State::Switched {
        return Err((DeliverError::NotSwitched, message));
    }
    if !accepts::<M>(fiber) {
        return Err((DeliverError::OtherFamily, message));
    }
    let mailbox = fiber.mailbox.get().cast_mut().cast::<Message<M>>();
    // SAFETY: invariant mailbox-1: the mailbox is live and, as was just checked, of this type. The mailbox is empty,
    // so a plain write loses nothing.
    unsafe { mailbox.write(message) };
    fiber.state.set_notified();
    Ok(())
}

/// Reports whether the mailbox of a SWITCHED fiber takes messages of type `M`.
#[inline(always)]
fn accepts<M: 'static>(fiber: Fiber) -> bool {
    match fiber.mailbox_type.get() {
        // Equal addresses mean equal types. Two addresses may still belong to one type, from two codegen units.
        Some(theirs) => ptr::fn_addr_eq(theirs, family_id::<M> as fn() -> TypeId) || theirs() == TypeId::of::<M>(),
        None => false,
    }
}

/// Suspends `me` until a message arrives or the fiber is woken without one, and gives the CPU to `target`, or to the
/// run queue. Reports of blocked fibers name the greenlet `to`. The caller must look at `pending` before and after.
#[inline(always)]
pub(crate) fn receive<M: 'static>(root: &Root, me: Fiber, target: Option<Fiber>, to: u64) -> Arrival<M> {
    let mailbox: Mailbox<M> = UnsafeCell::new(MaybeUninit::uninit());
    // The mailbox is complete before a sender can see SWITCHED (mailbox-1).
    me.mailbox.set(mailbox.get().cast_const().cast());
    me.mailbox_type.set(Some(family_id::<M>));
    me.partner.set(to);
    me.state.set_switched();
    // The fiber is suspended inside this call.
    match target {
        Some(target) => root.transfer(me, target),
        None => root.switch_out(me),
    }
    if me.state.get() != State::Delivered {
        return received(me, mailbox);
    }
    let mailbox = mailbox.get().cast::<M>();
    // SAFETY: invariant mailbox-2; this is the one place that takes the value out.
    Arrival::Value(unsafe { mailbox.read() })
}

/// Returns what has arrived when that is not a plain value.
#[cold]
#[inline(never)]
fn received<M>(me: Fiber, mailbox: Mailbox<M>) -> Arrival<M> {
    if me.state.get() != State::Notified {
        return Arrival::Nothing;
    }
    me.state.set_received();
    // SAFETY: invariant mailbox-2; this is the one place that takes the message out.
    Arrival::Message(unsafe { mailbox.into_inner().assume_init() })
}

/// Passes `value` to `target` and waits for what comes back, if the target is known to wait in `receive::<M>`. One
/// comparison decides that, and may say no for the same type from another codegen unit; then the value comes back.
#[inline(always)]
pub(crate) fn exchange<M: 'static>(root: &Root, me: Fiber, target: Fiber, value: M) -> Result<Arrival<M>, M> {
    let same = |theirs| ptr::fn_addr_eq(theirs, family_id::<M> as fn() -> TypeId);
    if target.state.get() != State::Switched || !target.mailbox_type.get().is_some_and(same) {
        return Err(value);
    }
    // The fiber of a greenlet has the id of that greenlet.
    let to = target.id.get();
    let mailbox = target.mailbox.get().cast_mut().cast::<M>();
    // SAFETY: mailbox-1, as in `deliver`: the target is SWITCHED with a mailbox of this type, as was just checked.
    unsafe { mailbox.write(value) };
    target.state.set_delivered();
    Ok(receive(root, me, Some(target), to))
}
