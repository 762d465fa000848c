//! The arms of a `select!` that wait for a channel between hubs.
#![forbid(unsafe_code)]

use std::borrow::BorrowMut;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::mpsc::{RecvError, SendError, TryRecvError, TrySendError};

use super::ends::{RemoteReceiver, RemoteSender};
use super::state::{Side, WaitGuard};
use crate::pure::drops::Held;
use crate::runtime::caller::Caller;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::remote::Waiter;
use crate::runtime::select_source::{SelectRecv, SelectSend, SelectSendFrom};
use crate::switch::wait_list::WaitList;

impl<T: Send> SelectSend for RemoteSender<T> {
    type Value = T;

    type Arm<'s>
        = RemoteSendArm<'s, T, Held<T>>
    where
        Self: 's;

    fn select_send(&self, value: T) -> RemoteSendArm<'_, T, Held<T>> {
        RemoteSendArm::new(self, Held::new(value))
    }
}

impl<T: Send> SelectSendFrom for RemoteSender<T> {
    type FromArm<'s>
        = RemoteSendArm<'s, T, &'s mut Option<T>>
    where
        Self: 's;

    fn select_send_from<'a>(&'a self, slot: &'a mut Option<T>) -> RemoteSendArm<'a, T, &'a mut Option<T>> {
        RemoteSendArm::new(self, slot)
    }
}

impl<T: Send> SelectRecv for RemoteReceiver<T> {
    type Arm<'s>
        = RemoteRecvArm<'s, T>
    where
        Self: 's;

    fn select_recv(&self) -> RemoteRecvArm<'_, T> {
        let guard = RefCell::new(WaitGuard::new(&self.channel, Side::Receiving));
        RemoteRecvArm { guard, result: Cell::new(None) }
    }
}

/// Returns the running thread as other OS threads may hold it; none if there is no hub, where a `select!` never waits.
fn current_waiter() -> Option<Waiter> {
    Caller::current().ok().map(Waiter::new)
}

/// The arm of a `select!` that receives from a channel between hubs.
#[doc(hidden)]
pub struct RemoteRecvArm<'a, T> {
    /// The arm's place in the queue of receivers.
    guard: RefCell<WaitGuard<'a, T>>,
    /// What `finish` returns, once `try_select` has succeeded.
    result: Cell<Option<Result<T, RecvError>>>,
}

impl<T: Send> SelectArm for RemoteRecvArm<'_, T> {
    type Output = Result<T, RecvError>;

    fn finish(self) -> Result<T, RecvError> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl<T: Send> Arm for RemoteRecvArm<'_, T> {
    fn try_select(&self) -> bool {
        match self.guard.borrow_mut().take() {
            Ok(value) => self.result.set(Some(Ok(value))),
            // A closed channel is a result, too: the arm wins with the error.
            Err(TryRecvError::Disconnected) => self.result.set(Some(Err(RecvError))),
            Err(TryRecvError::Empty) => return false,
        }
        true
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        // Without a hub there is no waiter to wake.
        let Some(me) = current_waiter() else { return Ok(None) };
        // A value may come between `try_select` and the registration: then the arm has won.
        while !self.guard.borrow_mut().enqueue(me.clone()) {
            if self.try_select() {
                return Err(AlreadyWon);
            }
        }
        Ok(None)
    }

    fn accept(&self) {}

    /// Leaves the queue, if the arm is still there, and passes on a turn that was not used.
    fn unregister(&self, _: ArmEnd) {
        self.guard.borrow_mut().leave();
    }

    fn is_remote(&self) -> bool {
        true
    }
}

impl<T> fmt::Debug for RemoteRecvArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteRecvArm").finish_non_exhaustive()
    }
}

/// The arm of a `select!` that sends into a channel between hubs. `S` holds the value until the send.
#[doc(hidden)]
pub struct RemoteSendArm<'a, T, S> {
    /// The value. An arm without one never goes on.
    slot: RefCell<S>,
    /// The arm's place in the queue of senders.
    guard: RefCell<WaitGuard<'a, T>>,
    /// What `finish` returns, once `try_select` has succeeded.
    result: Cell<Option<Result<(), SendError<T>>>>,
}

impl<'a, T: Send, S: BorrowMut<Option<T>>> RemoteSendArm<'a, T, S> {
    /// Makes an arm that sends what is in `slot`.
    fn new(sender: &'a RemoteSender<T>, slot: S) -> RemoteSendArm<'a, T, S> {
        let guard = RefCell::new(WaitGuard::new(&sender.channel, Side::Sending));
        RemoteSendArm { slot: RefCell::new(slot), guard, result: Cell::new(None) }
    }

    /// Calls `f` with the option that holds the value.
    fn with_slot<R>(&self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        f(BorrowMut::<Option<T>>::borrow_mut(&mut *self.slot.borrow_mut()))
    }
}

impl<'a, T: Send, S: BorrowMut<Option<T>>> SelectArm for RemoteSendArm<'a, T, S> {
    type Output = Result<(), SendError<T>>;

    fn finish(self) -> Result<(), SendError<T>> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl<T: Send, S: BorrowMut<Option<T>>> Arm for RemoteSendArm<'_, T, S> {
    fn try_select(&self) -> bool {
        let Some(value) = self.with_slot(Option::take) else { return false };
        match self.guard.borrow_mut().put(value) {
            Ok(()) => self.result.set(Some(Ok(()))),
            Err(TrySendError::Disconnected(value)) => self.result.set(Some(Err(SendError(value)))),
            Err(TrySendError::Full(value)) => {
                // The option is empty, so this assignment drops nothing.
                self.with_slot(|slot| *slot = Some(value));
                return false;
            }
        }
        true
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        // Room may come between `try_select` and the registration: then the arm has won.
        let Some(me) = current_waiter().filter(|_| self.with_slot(|slot| slot.is_some())) else { return Ok(None) };
        while !self.guard.borrow_mut().enqueue(me.clone()) {
            if self.try_select() {
                return Err(AlreadyWon);
            }
        }
        Ok(None)
    }

    fn accept(&self) {}

    /// Leaves the queue, if the arm is still there, and passes on a turn that was not used.
    fn unregister(&self, _: ArmEnd) {
        self.guard.borrow_mut().leave();
    }

    fn is_remote(&self) -> bool {
        true
    }
}

impl<T, S> fmt::Debug for RemoteSendArm<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSendArm").finish_non_exhaustive()
    }
}
