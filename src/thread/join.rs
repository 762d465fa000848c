//! Waiting for the end of a thread by its packet, for the handles of `spawn` and of scopes.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::marker::PhantomData;

use super::handle::Thread;
use super::join_error::{JoinError, Outcome};
use crate::runtime::caller::Caller;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::hub::{ending, hub_of, no_hub};
use crate::runtime::park::Wake;
use crate::switch::cancel;
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::packet::Packet;
use crate::switch::root::try_root;
use crate::switch::state::State;
use crate::switch::wait_list::WaitList;
use crate::sys::clock::NEVER;

/// Reports whether the thread of `packet` has ended.
pub(super) fn has_ended<T>(packet: &Packet<Outcome<T>>) -> bool {
    packet.fiber().is_none() || packet.is_finished()
}

/// Waits for the end of the thread of `packet` and takes the outcome.
#[inline(always)]
pub(super) fn join<T>(packet: &Packet<Outcome<T>>) -> Outcome<T> {
    let root = match try_root() {
        Some(root) => root,
        None => return Err(JoinError::refused(ending())),
    };
    loop {
        // The outcome of a thread that has ended is taken once.
        if let Some(outcome) = packet.take() {
            return outcome;
        }
        let Some(fiber) = packet.fiber() else { return Err(JoinError::killed()) };
        if packet.is_finished() {
            // The thread was cancelled before it started, and left no outcome.
            return Err(JoinError::killed());
        }
        if fiber == root.current() && cancel::obstacle().is_none() {
            panic!("a green thread cannot wait for its own end");
        }
        let caller = match Caller::of(root) {
            Ok(caller) => caller,
            Err(error) => return Err(JoinError::refused(error)),
        };
        // Wait with the other joiners; the end of the thread wakes all of them.
        let _place = fiber.joiners.join(caller.fiber);
        if let Err(obstacle) = caller.park(Reason::Join(fiber.id.get()), NEVER) {
            return Err(JoinError::refused(obstacle));
        }
    }
}

/// Waits as [`join`] does until `deadline`. Returns none if the thread has not ended by then, or if the caller may not
/// wait.
pub(super) fn join_until<T>(packet: &Packet<Outcome<T>>, deadline: u64) -> Option<Outcome<T>> {
    while let Some(root) = try_root()
        && let Some(fiber) = packet.fiber()
        && !packet.is_finished()
        && let Ok(caller) = Caller::of(root)
    {
        assert!(fiber != caller.fiber || cancel::obstacle().is_some(), "a green thread cannot wait for its own end");
        let _place = fiber.joiners.join(caller.fiber);
        // An end in the turn in which the time is over still counts.
        match caller.park(Reason::Join(fiber.id.get()), deadline) {
            Ok(Wake::Woken) => {}
            Ok(Wake::TimedOut) if packet.is_finished() => {}
            Ok(Wake::TimedOut) | Err(_) => return None,
        }
    }
    // The thread has ended, or there is nothing to wait for.
    Some(join(packet))
}

/// The arm of a `select!` that waits for the end of a thread.
#[derive(Debug)]
pub struct EndArm<'a> {
    /// The thread; none if the slot was given back.
    fiber: Option<Fiber>,
    /// The borrow of the handle, without which the thread's slot could be reused.
    handle: PhantomData<&'a ()>,
}

impl<'a> EndArm<'a> {
    /// Makes the arm for the thread of `packet`.
    pub(super) fn new<T>(packet: &'a Packet<Outcome<T>>) -> EndArm<'a> {
        EndArm { fiber: packet.fiber(), handle: PhantomData }
    }
}

impl<'a> SelectArm for EndArm<'a> {
    type Output = ();

    fn finish(self) {}
}

impl Arm for EndArm<'_> {
    fn try_select(&self) -> bool {
        self.fiber.is_none_or(|fiber| fiber.state.get() == State::Finished)
    }

    fn register(&self, id: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        match &self.fiber {
            Some(fiber) if fiber.id.get() == id.0 => panic!("a green thread cannot wait for its own end"),
            fiber => Ok(fiber.as_ref().map(|fiber| &fiber.joiners)),
        }
    }

    fn accept(&self) {}

    fn unregister(&self, _: ArmEnd) {}
}

/// Returns the handle of the thread of `packet`, which is made and stored in `cell` at the first call.
pub(super) fn thread_of<'a, T>(packet: &Packet<T>, cell: &'a OnceCell<Box<Thread>>) -> &'a Thread {
    cell.get_or_init(|| {
        Box::new(match (try_root(), packet.fiber()) {
            (Some(root), Some(fiber)) => match hub_of(root) {
                Ok(hub) => Thread::of(root, fiber, hub),
                Err(error) => no_hub(&error),
            },
            _ => Thread::of_finished(packet.fiber_ref().id()),
        })
    })
}

/// Kills the thread of `packet`, and reports whether that thread was still alive.
pub(super) fn kill<T>(packet: &Packet<T>) -> bool {
    match (try_root(), packet.fiber()) {
        (Some(root), Some(fiber)) => root.kill(fiber),
        _ => false,
    }
}
