//! The drop of the last handle, which unwinds the greenlet at once or at the next turn.
//!
//! There are four cases, between which `last_handle_dropped` decides:
//!
//! | state of the greenlet | what happens |
//! |---|---|
//! | suspended, and the dropper may wait | the greenlet is unwound at once, the dropper waits (C18) |
//! | suspended, and the dropper is being unwound by another dropper | the greenlet is unwound when that dropper goes on |
//! | suspended, and the dropper may not wait; or blocked in the hub, or woken there | the greenlet is unwound at the next turn |
//! | running | the greenlet goes on; its next switch passes the value on, and the next turn unwinds the greenlet |
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::rc::Rc;

use super::handle::{Greenlet, Inner, Status};
use super::trace::trace;
use crate::switch::cancel::{self, GreenletExit, NO_VALUE};
use crate::switch::fiber::{Fiber, drop_quietly};
use crate::switch::mailbox::{Arrival, Message, deliver, receive};
use crate::switch::pending;
use crate::switch::root::{Root, try_root};
use crate::switch::state::State;

/// A greenlet without handles, of any family, that is going to be unwound.
trait Doomed {
    /// Unwinds the greenlet if still suspended; `me`, the caller, waits for that.
    fn unwind(self: Rc<Self>, root: &Root, me: Fiber);
}

thread_local! {
    /// The ids of the greenlets that are being unwound while their droppers wait.
    static BEING_UNWOUND: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// Suspended greenlets that lost their last handle to a greenlet that is being unwound. The dropper which waits for
    /// that greenlet unwinds them next.
    static DOOMED: RefCell<VecDeque<Rc<dyn Doomed>>> = const { RefCell::new(VecDeque::new()) };
}

impl<M: 'static> Drop for Greenlet<M> {
    #[inline]
    fn drop(&mut self) {
        let handles = self.inner.handles.get() - 1;
        self.inner.handles.set(handles);
        if handles == 0
            && self.inner.status.get() == Status::Started
            && let Some(root) = try_root()
            && let Some(fiber) = self.fiber(root)
        {
            self.last_handle_dropped(root, fiber);
        }
    }
}

impl<M: 'static> Greenlet<M> {
    /// Handles the drop of the last handle of a started greenlet: see the table at the head of the file.
    #[cold]
    fn last_handle_dropped(&self, root: &Root, fiber: Fiber) {
        if cfg!(panic = "abort") {
            return;
        }
        let me = root.current();
        let state = fiber.state.get();
        // Running, or resumed by a switch in a moment: the greenlet's own next switch sees the flag.
        if fiber == me || matches!(state, State::Delivered | State::Notified) {
            fiber.pending.raise(pending::ABANDONED);
            return;
        }
        // Suspended, and the dropper may wait: unwind the greenlet here, then those that were dropped by its
        // destructors.
        let can_wait = cancel::obstacle().is_none() && me.no_switch.get() == 0 && !root.closing();
        if can_wait && state == State::Switched {
            Rc::clone(&self.inner).unwind(root, me);
            while let Ok(Some(doomed)) = DOOMED.try_with(|doomed| doomed.borrow_mut().pop_front()) {
                doomed.unwind(root, me);
            }
            return;
        }
        // Otherwise the result is unwanted. Unless the dropper is being unwound itself, the greenlet unwinds at
        // the next turn.
        self.inner.orphan.set(true);
        let id = me.id.get();
        let is_unwound = BEING_UNWOUND.try_with(|ids| ids.borrow().contains(&id)).unwrap_or(false);
        if !is_unwound || state != State::Switched || root.closing() {
            root.kill(fiber);
            return;
        }
        // The dropper of the dropper goes on when `me` has unwound, and unwinds this greenlet then.
        let inner: Rc<dyn Doomed> = Rc::<Inner<M>>::clone(&self.inner);
        if let Err(inner) = push_doomed(inner) {
            root.kill(fiber);
            drop(inner);
        }
    }
}

/// Leaves a greenlet to the dropper that unwinds the running one. Gives the greenlet back if the OS thread has no
/// list any more.
fn push_doomed(inner: Rc<dyn Doomed>) -> Result<(), Rc<dyn Doomed>> {
    let mut inner = Some(inner);
    let _ = DOOMED.try_with(|doomed| doomed.borrow_mut().extend(inner.take()));
    inner.map_or(Ok(()), Err)
}

impl<M: 'static> Doomed for Inner<M> {
    fn unwind(self: Rc<Self>, root: &Root, me: Fiber) {
        let Some(fiber) = self.fiber.get().and_then(|fiber| root.resolve(fiber)) else { return };
        if fiber.state.get() != State::Switched || fiber == me {
            // The greenlet was woken since; as an orphan it is killed at the next turn.
            root.kill(fiber);
            return;
        }
        // Throw the exit into the greenlet, and note that `me` waits for the end.
        if root.traces_switches() {
            root.origin.set((me.id.get(), true));
        }
        if deliver::<M>(fiber, Message::Throw(Box::new(GreenletExit(NO_VALUE)))).is_err() {
            unreachable!("a suspended greenlet of this family takes its messages");
        }
        if root.notes_switches() {
            root.note_switch(me, fiber, false);
        }
        self.dropper.set(Some(me.to_ref()));
        let _ = BEING_UNWOUND.try_with(|ids| ids.borrow_mut().push(self.id));
        let deadlock = self.wait_for_end(root, me, fiber);
        let _ = BEING_UNWOUND.try_with(|ids| ids.borrow_mut().retain(|id| *id != self.id));
        // A greenlet that has caught the exit survives. Without a handle nothing will resume it, so report that.
        if self.status.get() != Status::Dead {
            self.dropper.set(None);
            if self.handles.get() == 0 {
                self.orphan.set(true);
                self.report_survivor(deadlock);
            }
        }
        if root.traces_switches() {
            trace(root, me);
        }
    }
}

impl<M: 'static> Inner<M> {
    /// Suspends the dropper `me`, and lets `fiber` unwind, until the greenlet has ended or a message has come. Returns
    /// the report of a deadlock, if that ended the wait.
    fn wait_for_end(&self, root: &Root, me: Fiber, fiber: Fiber) -> Option<String> {
        me.since.set(root.clock.get());
        let mut target = Some(fiber);
        loop {
            // A kill or timeout of the dropper must wait, since the frame to be unwound is a destructor's. Such a
            // wake-up does not end the loop either: only the greenlet's status, a message or a deadlock does.
            let message = receive::<M>(root, me, target.take(), self.id);
            if self.status.get() == Status::Dead || !matches!(message, Arrival::Nothing) {
                drop_quietly(message);
                return None;
            }
            if me.pending.has(pending::DEADLOCK)
                && let Some(report) = root.take_deadlock()
            {
                return Some(report);
            }
        }
    }

    /// Prints that the greenlet has survived, without a handle.
    fn report_survivor(&self, deadlock: Option<String>) {
        // A standard error that is closed must not make a destructor panic.
        let _ = writeln!(
            io::stderr(),
            "greenling: a greenlet made at {} survived the drop of its last handle by catching GreenletExit; \
             it stays suspended{}{}",
            self.made_at,
            if deadlock.is_some() { ": " } else { "" },
            deadlock.unwrap_or_default(),
        );
    }
}
