//! The life of a green thread on its own stack: the closure, the locals, the outcome, the joiners.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::task::Waker;

use super::join_error::{JoinError, Outcome, ending_of};
use crate::switch::cancel;
use crate::switch::extras::{EndHook, Ending, Life};
use crate::switch::fiber::{Fiber, drop_quietly};
use crate::switch::packet;
use crate::switch::pending;
use crate::switch::root::{Root, root};
use crate::switch::tls_pool::BlockHold;

/// Runs `f` as a green thread's body on the thread's own stack, turns unwinding into an outcome, and wakes the waiters.
/// The outcome goes to the thread's packet: if that is gone, nothing asks for the value.
#[inline]
pub(crate) fn live<F, T>(fiber: Fiber, f: F) -> Outcome<T>
where
    F: FnOnce() -> T,
{
    live_for(fiber, f, || fiber.owned.get())
}

/// Does what [`live`] does, with an outcome that does not go to the thread's packet.
#[inline]
pub(crate) fn live_apart<F, T>(fiber: Fiber, f: F) -> Outcome<T>
where
    F: FnOnce() -> T,
{
    live_for(fiber, f, || true)
}

/// Does what [`live`] does; `is_wanted` tells whether something may ask for the value.
#[inline(always)]
fn live_for<F, T>(fiber: Fiber, f: F, is_wanted: impl Fn() -> bool) -> Outcome<T>
where
    F: FnOnce() -> T,
{
    let outcome = if fiber.pending.has(pending::KILL) {
        // The thread was killed before it started: the body never runs.
        drop_quietly(f);
        Err(JoinError::killed())
    } else {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => Ok(value),
            Err(payload) => Err(JoinError::unwound(payload)),
        }
    };
    let root = root();
    if let Err(error) = &outcome
        && error.is_panic()
        && let Some(simulation) = root.simulation()
        && !is_wanted()
    {
        simulation.lost_panic(fiber.id.get(), error.message());
    }
    if fiber.has_block() { leave_block(root, fiber, outcome, is_wanted()) } else { conclude(root, fiber, outcome) }
}

/// Ends a thread of which the closure has an outcome: green-local values, end hooks, joiners.
#[inline(always)]
fn conclude<T>(root: &'static Root, fiber: Fiber, outcome: Outcome<T>) -> Outcome<T> {
    // Destroy green-local values and follow end hooks; most threads have neither.
    let outcome = match fiber.life.get() {
        Life::WithExtras => end_extras(root, fiber, outcome),
        Life::Plain | Life::Ended(_) => {
            fiber.life.set(Life::Ended(ending_of(&outcome)));
            outcome
        }
    };
    // Nothing below may switch: a thread that joined during a switch would find no outcome yet, and would not be woken
    // any more.
    while let Some(joiner) = fiber.joiners.pop() {
        root.wake(joiner);
    }
    if fiber.has_awaiter() {
        tell_awaiter(root, fiber);
    }
    outcome
}

/// Ends a thread with thread-locals of its own, or that shares some: their destructors run, on the thread's stack and
/// before any waiter is told, after those of green-local values. An unwinding out of them would abort, so nothing
/// interrupts. The result of a detached thread is dropped before, as at the end of an OS thread: its destructor may use
/// thread-locals.
#[cold]
#[inline(never)]
fn leave_block<T>(root: &'static Root, fiber: Fiber, mut outcome: Outcome<T>, is_wanted: bool) -> Outcome<T> {
    cancel::clear_unwinding(fiber);
    if fiber.life.get() == Life::WithExtras {
        drop_locals(fiber, &mut outcome);
    }
    if is_wanted {
        root.leave_block(fiber);
        return conclude(root, fiber, outcome);
    }
    let rest = match outcome {
        Ok(value) => {
            drop_quietly(value);
            Ok(())
        }
        Err(mut error) => {
            error.drop_payload();
            Err(error)
        }
    };
    root.leave_block(fiber);
    // What follows asks how the thread ended. The value, or the lack of one, is dropped unseen.
    Err(conclude(root, fiber, rest).err().unwrap_or_else(JoinError::killed))
}

/// Destroys the green-local values of a thread that ends. What a destructor unwinds with becomes the outcome of a
/// thread that had returned.
fn drop_locals<T>(fiber: Fiber, outcome: &mut Outcome<T>) {
    fiber.drop_locals(|payload| match outcome {
        Ok(_) => drop_quietly(mem::replace(outcome, Err(JoinError::unwound(payload)))),
        Err(_) => drop_quietly(payload),
    });
}

/// Ends a thread that has green-local values or end hooks: destroys the values, on the thread's stack and before any
/// waiter is told, then follows the hooks.
#[cold]
#[inline(never)]
fn end_extras<T>(root: &'static Root, fiber: Fiber, mut outcome: Outcome<T>) -> Outcome<T> {
    // The unwinding is over; a panic of a destructor is one of the program.
    cancel::clear_unwinding(fiber);
    drop_locals(fiber, &mut outcome);
    // After this no value can be made and no hook added.
    let ending = ending_of(&outcome);
    let hooks = fiber.end_with(ending).map(|extras| extras.into_hooks());
    for hook in hooks.unwrap_or_default() {
        match hook {
            EndHook::Listener(listener, token) => listener.ended(token),
            EndHook::Callback(f, asked_at, hold) => call_back(root, f, ending, asked_at, hold),
        }
    }
    outcome
}

/// Runs a callback in a thread of its own, where the callback may block and panic without harm to the thread that ends.
pub(super) fn call_back(
    root: &'static Root,
    f: Box<dyn FnOnce(Ending)>,
    ending: Ending,
    asked_at: &'static Location<'static>,
    hold: BlockHold,
) {
    // The closure is shared because a launch that fails drops one copy.
    let ours = Rc::new(Cell::new(Some(f)));
    let theirs = Rc::clone(&ours);
    let body = move || theirs.take().map(|f| f(ending)).unwrap_or_default();
    match packet::launch(root, root.default_shift.get(), asked_at, move |fiber| live(fiber, body)) {
        Ok((packet, fiber)) => {
            // With the thread-locals of the thread that asked.
            root.share_block(fiber, hold);
            root.enqueue(fiber);
            drop(packet);
        }
        // There is no stack: the callback runs here, and a callback that waits holds up the caller. One that needs
        // other thread-locals cannot run, and is leaked: it need not be `Send`, and its drop may switch.
        Err(_) if !root.has_loaded(&hold) => {
            mem::forget(ours.take());
            root.end_hold(hold);
        }
        Err(_) => {
            root.end_hold(hold);
            let run = AssertUnwindSafe(|| ours.take().map(|f| f(ending)).unwrap_or_default());
            catch_unwind(run).unwrap_or_else(drop_quietly);
        }
    }
}

/// Tells the task that awaits `fiber`, which is at the end of the body, on its own stack. The waker is foreign code.
///
/// The outcome is in place only after the thread's last instruction. If the waker waits for something, the task may
/// poll meanwhile, find no outcome, and leave a waker again: then a new thread, which runs later, tells the task once
/// more.
#[cold]
#[inline(never)]
fn tell_awaiter(root: &'static Root, fiber: Fiber) {
    if let Some(waker) = fiber.take_awaiter() {
        wake_quietly(waker);
    }
    if let Some(waker) = fiber.take_awaiter() {
        call_back(root, Box::new(|_| waker.wake()), Ending::Returned, fiber.spawned_at(), BlockHold::none());
    }
}

/// Wakes a task. A panic of the waker was printed by the panic hook, and ends here.
pub(crate) fn wake_quietly(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        drop_quietly(payload);
    }
}
