//! The way of a message: its receiver, the start of a body, and the result of a body on the way to an ancestor.
//!
//! * Invariant greenlet-3: between the delivery of a message and the resumption of the receiver no foreign code runs on
//!   this OS thread: foreign code might switch, and then the receiver would never get its turn. Upheld by
//!   `mailbox::deliver`, which changes the receiver's state so that a second delivery is refused, by `finish`, which
//!   runs destructors before the delivery, and by the drop of the last handle.
#![forbid(unsafe_code)]

use std::any::Any;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::error::{SwitchErrorKind, fail};
use super::handle::{Greenlet, Inner, Status};
use super::trace::trace;
use crate::switch::cancel::{self, GreenletExit, Killed, NO_VALUE};
use crate::switch::extras::{Ending, Life};
use crate::switch::fiber::{Fiber, drop_quietly};
use crate::switch::mailbox::{Arrival, DeliverError, Message, deliver, receive};
use crate::switch::packet::launch_unowned;
use crate::switch::pending;
use crate::switch::root::{Root, root, try_root};

/// The payload that tells a dropper which waits that the greenlet has unwound; the dropper discards it. Zero-sized,
/// so the box costs no allocation.
struct Unwound;

/// What has become of a message that was sent.
enum Routed<M> {
    /// The message was delivered to this fiber, which must run next.
    Delivered(Fiber),
    /// The receiver is the caller itself.
    ToCaller(Message<M>),
    /// The message was not delivered, for this reason.
    Refused(SwitchErrorKind, Message<M>),
}

/// Returns the error that a refused delivery is for the program.
fn kind_of(error: DeliverError) -> SwitchErrorKind {
    match error {
        DeliverError::NotSwitched => SwitchErrorKind::Blocked,
        DeliverError::OtherFamily => SwitchErrorKind::OtherFamily,
    }
}

impl<M: 'static> Greenlet<M> {
    /// Sends a message for `throw` or `kill`, and waits until something arrives for the caller.
    #[track_caller]
    pub(super) fn send(&self, message: Message<M>) -> M {
        if cfg!(panic = "abort") {
            panic!("greenling: Greenlet::throw and kill need panic = \"unwind\"");
        }
        // A thread that unwinds cannot wait for the answer.
        if cancel::obstacle().is_some() {
            fail(&SwitchErrorKind::Unwinding);
        }
        match self.send_from(root(), message) {
            Ok(value) => value,
            Err((kind, message)) => {
                // Nothing was sent: drop the message before the panic.
                drop_quietly(message);
                drop_quietly(self.inner.exit_value.take());
                fail(&kind)
            }
        }
    }

    /// Sends a message to the greenlet or the ancestor that takes it, and waits until something arrives for the caller.
    pub(super) fn send_from(&self, root: &Root, message: Message<M>) -> Result<M, (SwitchErrorKind, Message<M>)> {
        let me = root.current();
        // A kill or another flag that is pending comes first, and unwinds from here.
        if me.pending.any() {
            cancel::before_suspension(root, me);
        }
        // The tracer runs in the receiver, which reads the origin there.
        if root.traces_switches() {
            root.origin.set((me.id.get(), matches!(message, Message::Throw(_))));
        }
        match self.route(root, me, message) {
            Routed::Delivered(target) => {
                if root.notes_switches() {
                    root.note_switch(me, target, false);
                }
                Ok(self.wait(root, me, target))
            }
            Routed::ToCaller(message) => Ok(value_or_raise(message)),
            Routed::Refused(kind, message) => Err((kind, message)),
        }
    }

    /// Suspends the caller until something arrives for it.
    fn wait(&self, root: &Root, me: Fiber, target: Fiber) -> M {
        // Only a fiber with something pending, a deadline for example, has to tell the scheduler that it waits.
        let armed = me.pending.any();
        if armed {
            if me.pending.has(pending::ABANDONED) {
                Self::leave_if_abandoned(root, me, target);
            }
            root.scheduler().arm(root, me);
        }
        let message = receive::<M>(root, me, Some(target), self.inner.id);
        let scope_due = armed && root.scheduler().disarm(root, me);
        match message {
            Arrival::Value(value) => value,
            Arrival::Message(message) => received(root, me, message),
            Arrival::Nothing => self.interrupted(root, me, scope_due),
        }
    }

    /// Goes on after a suspended switch was woken without a message: raises a kill, a timeout or a deadlock report
    /// that is due, and otherwise waits on.
    #[cold]
    #[inline(never)]
    pub(super) fn interrupted(&self, root: &Root, me: Fiber, mut scope_due: bool) -> M {
        loop {
            cancel::after_suspension(root, me, scope_due);
            // A deadline of a scope must be able to end this wait, too, so the timer is set again.
            let armed = me.pending.any();
            if armed {
                root.scheduler().arm(root, me);
            }
            let message = receive::<M>(root, me, None, self.inner.id);
            scope_due = armed && root.scheduler().disarm(root, me);
            match message {
                Arrival::Value(value) => return value,
                Arrival::Message(message) => return received(root, me, message),
                Arrival::Nothing => {}
            }
        }
    }

    /// Unwinds a caller that has dropped the last handle of itself and switches away, so that no switch can ever come
    /// back. `target` has a message and goes on; the caller is unwound at the next turn. This happens once: a
    /// greenlet that survives stays suspended.
    #[cold]
    #[inline(never)]
    fn leave_if_abandoned(root: &Root, me: Fiber, target: Fiber) {
        // A handle may exist again, or the unwinding have happened before.
        let Some(inner) = Self::running_in(me) else { return };
        if inner.handles.get() > 0 || inner.orphan.get() || cfg!(panic = "abort") {
            return;
        }
        inner.orphan.set(true);
        drop(inner);
        me.pending.clear(pending::ABANDONED);
        // The target runs; the caller's next turn is at the end of the run queue.
        root.enqueue(me);
        root.transfer(me, target);
        cancel::raise(Some(me), Box::new(GreenletExit(NO_VALUE)))
    }

    /// Finds the greenlet that takes a message sent to this one, and delivers the message: C2, C3, C5, C9, C10, C12.
    fn route(&self, root: &Root, me: Fiber, message: Message<M>) -> Routed<M> {
        let mut at = self.clone();
        loop {
            match at.inner.status.get() {
                Status::Started | Status::Guest => match at.fiber(root) {
                    Some(fiber) if fiber == me => return Routed::ToCaller(message),
                    Some(fiber) => {
                        return match deliver(fiber, message) {
                            Ok(()) => Routed::Delivered(fiber),
                            Err((error, message)) => Routed::Refused(kind_of(error), message),
                        };
                    }
                    // A green thread that has ended counts as dead; the last ancestor of all is main.
                    None => {
                        match root.main_of_block().map(Self::guest) {
                            Some(main) if main != at => at = main,
                            _ => return Routed::Refused(SwitchErrorKind::NoReceiver, message),
                        }
                        continue;
                    }
                },
                Status::Unstarted => match message {
                    Message::Value(value) => match at.start(root, value) {
                        Ok(fiber) => return Routed::Delivered(fiber),
                        Err((error, value)) => {
                            return Routed::Refused(SwitchErrorKind::NoStack(error), Message::Value(value));
                        }
                    },
                    // A throw into an unstarted greenlet: the greenlet dies, and the parent gets the payload.
                    Message::Throw(_) => drop(at.end_unstarted()),
                },
                Status::Dead => {}
            }
            // Dead: the message goes to the parent.
            let parent = at.inner.parent.borrow().clone();
            at = match parent {
                Some(parent) => parent,
                None => return Routed::Refused(SwitchErrorKind::NoReceiver, message),
            };
        }
    }

    /// Returns the first of this greenlet and its ancestors that is not dead: the one that refused a message.
    fn first_live(self) -> Option<Greenlet<M>> {
        let mut at = self;
        while at.inner.status.get() == Status::Dead {
            let parent = at.inner.parent.borrow().clone();
            at = parent?;
        }
        Some(at)
    }

    /// Marks an unstarted greenlet dead, drops the body, and returns the parent, which gets what was sent.
    pub(super) fn end_unstarted(&self) -> Option<Greenlet<M>> {
        self.inner.status.set(Status::Dead);
        let body = self.inner.body.take();
        let parent = self.inner.parent.borrow().clone();
        drop_quietly(body);
        parent
    }

    /// Launches the fiber of an unstarted greenlet, to run when resumed. An error changes nothing (C27).
    fn start(&self, root: &Root, first: M) -> Result<Fiber, (io::Error, M)> {
        let inner = Rc::clone(&self.inner);
        // The closure of a fiber takes no argument, so the first value waits in the record.
        self.inner.first.set(Some(first));
        match launch_unowned(root, self.inner.shift, self.inner.id, self.inner.made_at, move |fiber| run(inner, fiber))
        {
            Ok(fiber) => {
                self.inner.status.set(Status::Started);
                self.inner.fiber.set(Some(fiber.to_ref()));
                fiber.greenlet.set(Some(Rc::clone(&self.inner) as Rc<dyn Any>));
                fiber.state.set_started();
                Ok(fiber)
            }
            Err(error) => {
                let Some(first) = self.inner.first.take() else { unreachable!("set above") };
                Err((error, first))
            }
        }
    }
}

/// Returns a value that has arrived, or raises a payload.
#[inline(always)]
fn value_or_raise<M>(message: Message<M>) -> M {
    match message {
        Message::Value(value) => value,
        Message::Throw(payload) => cancel::raise(try_root().map(Root::current), payload),
    }
}

/// Opens a message that has arrived, after reporting the switch to a tracer.
pub(super) fn received<M>(root: &Root, me: Fiber, message: Message<M>) -> M {
    if root.traces_switches() {
        trace(root, me);
    }
    value_or_raise(message)
}

/// Runs the body of a greenlet, on the greenlet's own stack, and hands on the result.
fn run<M: 'static>(inner: Rc<Inner<M>>, fiber: Fiber) {
    let root = root();
    let (body, first) = (inner.body.take(), inner.first.take());
    // The body, after whatever waits to be raised, and after the report of the switch.
    let mut result = catch_unwind(AssertUnwindSafe(|| {
        let (Some(body), Some(first)) = (body, first) else { unreachable!("a greenlet starts once") };
        if fiber.pending.any() {
            cancel::before_suspension(root, fiber);
        }
        if root.traces_switches() {
            trace(root, fiber);
        }
        body(first)
    }));
    if fiber.life.get() == Life::WithExtras {
        // The panic of a local's destructor takes the place of the value, which is dropped.
        fiber.drop_locals(|payload| match result {
            Ok(_) => drop_quietly(mem::replace(&mut result, Err(payload))),
            Err(_) => drop_quietly(payload),
        });
    }
    if fiber.has_block() {
        root.leave_block(fiber);
    }
    // A greenlet has no hooks that could be told how it ended.
    drop(fiber.end_with(Ending::Returned));
    finish(root, inner, fiber, result);
}

/// Ends a greenlet: sends the value or panic to the parent (C6 to C9), and names the fiber that runs next.
fn finish<M: 'static>(root: &Root, inner: Rc<Inner<M>>, fiber: Fiber, result: Result<M, Box<dyn Any + Send>>) {
    let mut thrown = result.is_err();
    let mut message = message_of(root, &inner, result);
    thrown &= !matches!(message, Some(Message::Value(_)));
    // An unwanted value is dropped while the greenlet still lives, since destructors are foreign code and may switch
    // (greenlet-3). An unwanted panic was printed by the panic hook at its beginning.
    loop {
        if let Some(unused) = inner.exit_value.take() {
            drop_quietly(unused);
        } else if message.is_some() && inner.is_unwatched(root) {
            drop_quietly(message.take());
        } else {
            break;
        }
    }
    // From here on the greenlet is dead (greenlet-1).
    inner.status.set(Status::Dead);
    inner.fiber.set(None);
    drop(fiber.greenlet.take());
    let id = inner.id;
    let dropper = inner.dropper.take().and_then(|dropper| root.resolve(dropper));
    let parent = message.as_ref().and_then(|_| inner.parent.borrow().clone());
    // This may be the last reference, and so drop the last handle of an ancestor, which then gets nothing.
    drop_quietly(inner);
    if root.traces_switches() {
        root.origin.set((id, thrown));
    }
    let next = if let Some(dropper) = dropper {
        // C18: the result was discarded; the dropper is told.
        deliver(dropper, Message::<M>::Throw(Box::new(Unwound))).is_ok().then_some(dropper)
    } else {
        message.and_then(|message| pass_up(root, parent, fiber, message))
    };
    if let Some(next) = next {
        if root.notes_switches() {
            root.note_switch(fiber, next, true);
        }
        root.set_successor(next);
    }
}

/// Returns the message that a result is for the parent: a value, a panic, the value of a kill, or nothing.
#[inline]
fn message_of<M>(root: &Root, inner: &Inner<M>, result: Result<M, Box<dyn Any + Send>>) -> Option<Message<M>> {
    match result {
        Ok(value) => Some(Message::Value(value)),
        // The payload of a killed green thread says nothing to a parent.
        Err(payload) if payload.is::<Killed>() => None,
        Err(payload) => match payload.downcast_ref::<GreenletExit>() {
            None => Some(Message::Throw(payload)),
            // C8: an exit that was not caught brings the value of its own kill, and of no older one.
            Some(exit) => match inner.exit_value.take() {
                Some((number, value)) if number == exit.0 => Some(Message::Value(value)),
                older => {
                    drop_quietly(older);
                    (!inner.is_unwatched(root)).then_some(Message::Throw(payload))
                }
            },
        },
    }
}

/// Delivers the message of a dead greenlet to the first ancestor, from `at` on, that can take it. Returns the fiber of
/// that ancestor, or drops the message if there is none.
fn pass_up<M: 'static>(root: &Root, mut at: Option<Greenlet<M>>, me: Fiber, mut message: Message<M>) -> Option<Fiber> {
    while let Some(ancestor) = at {
        message = match ancestor.route(root, me, message) {
            Routed::Delivered(fiber) => return Some(fiber),
            // C9: an error while starting an ancestor goes to the next one; the ancestor can still start (C27).
            Routed::Refused(SwitchErrorKind::NoStack(error), value) => {
                drop_quietly(value);
                Message::Throw(Box::new(format!("no stack for a greenlet's parent: {error}")))
            }
            // The receiver is the dying fiber itself, as a guest of another family: the next ancestor is asked.
            Routed::ToCaller(message) | Routed::Refused(_, message) => message,
        };
        at = ancestor.first_live().and_then(|live| live.inner.parent.borrow().clone());
    }
    drop_quietly(message);
    None
}
