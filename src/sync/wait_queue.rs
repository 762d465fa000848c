//! The queue of waiters behind each lock and signal: first come, first served, and a release goes to the first waiter
//! directly.
//!
//! ```text
//!  wait:    RUNNABLE -- joins the queue, parks --> queued -- choose, wake --> chosen --> runs, owns what was released
//!                                                    |                          |
//!                                   time is up, kill |                          | kill, outer timeout
//!                                                    v                          v
//!                                           abandoned(false)           abandoned(true): pass it on
//! ```
//!
//! There is no flag for "chosen". `choose` takes the fiber out of the list, so a waiter that is no longer linked owns
//! what it waited for, although the waiter has not run yet. No other thread can take the released thing in between, so
//! there is no barging. If the waiter unwinds before it runs, `abandoned` gives the thing to the next waiter, so
//! nothing is lost.
//!
//! * Invariant wait-queue-1: the `reason` of a queued fiber is the one that `wait` was called with, but for the name of
//!   the holder. `enter` sets the reason before the fiber joins the list, and `note_holder` changes the name only.
//!   `first_reason` tells readers from writers by it.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::forget;

use crate::runtime::caller::Caller;
use crate::runtime::hub::hub;
use crate::runtime::park::Wake;
use crate::runtime::report::label_of;
use crate::switch::cancel::{self, Obstacle};
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::{Root, existing_root, try_root};
use crate::switch::wait_list::WaitList;
use crate::sys::clock::NEVER;

/// A queue of waiters; see the head of the file.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    list: WaitList,
}

/// The end of a wait that did not unwind.
#[derive(Debug)]
pub(super) enum Waited {
    /// The caller owns what it waited for.
    Chosen,
    /// The deadline came first.
    TimedOut,
    /// The caller was woken for nothing; only from [`WaitQueue::wait_or_wake`].
    Woken,
    /// The caller may not wait.
    Refused(WaitRefusal),
}

impl Waited {
    /// Reports whether the caller was chosen. For waits with a deadline: a refused wait counts as one that timed out at
    /// once.
    #[inline]
    pub(super) fn is_chosen(&self) -> bool {
        matches!(self, Waited::Chosen)
    }
}

/// The reason why a wait was refused.
#[derive(Debug)]
pub(super) enum WaitRefusal {
    /// The caller is unwinding.
    Obstacle(Obstacle),
    /// There is no hub to wait in.
    NoHub(io::Error),
}

impl fmt::Display for WaitRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitRefusal::Obstacle(obstacle) => obstacle.fmt(f),
            WaitRefusal::NoHub(error) => error.fmt(f),
        }
    }
}

/// Panics with the thread that could not wait, what it wanted, and the reason. For waits without a deadline: there is
/// no error to return, and going on without what was waited for would be wrong.
#[cold]
#[inline(never)]
pub(super) fn refused(refusal: &WaitRefusal, what: impl fmt::Display) -> ! {
    panic!("greenling: {} cannot wait for {what}: {refusal}", label_of(current_id()));
}

/// Returns the id of the running fiber. While the OS thread is ending there is only one left that can ask.
#[inline(always)]
pub(super) fn current_id() -> u64 {
    try_root().map_or(u64::MAX, |root| root.current().id.get())
}

/// Returns the reason why the caller could not wait now, if there is one.
pub(super) fn refusal() -> Option<WaitRefusal> {
    // A caller that unwinds is refused, also where there is a hub.
    match (cancel::obstacle(), hub()) {
        (Some(obstacle), _) => Some(WaitRefusal::Obstacle(obstacle)),
        (None, Err(error)) => Some(WaitRefusal::NoHub(error)),
        (None, Ok(_)) => None,
    }
}

impl WaitQueue {
    /// Returns an empty queue.
    pub(super) const fn new() -> WaitQueue {
        WaitQueue { list: WaitList::new() }
    }

    /// Reports whether no fiber waits.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the list of waiters, for an arm of a `select!`. An arm in the list is chosen as any other waiter is.
    pub(super) fn list(&self) -> &WaitList {
        &self.list
    }

    /// Returns what the first waiter waits for (wait-queue-1).
    pub(super) fn first_reason(&self) -> Option<Reason> {
        self.list.first().map(|fiber| fiber.waits_for())
    }

    /// Notes in the first waiter's reason that `holder` holds the lock now. The other waiters wait for those before
    /// them; see `report`.
    pub(super) fn note_holder(&self, holder: u64) {
        // Only the reasons of locks name a holder.
        if let Some(first) = self.list.first()
            && let Reason::Held(what, _) = first.waits_for()
        {
            first.reason.set(Reason::Held(what, holder));
        }
    }

    /// Takes out the first waiter and makes it runnable: that fiber owns what it waited for. Returns the fiber's id.
    #[inline]
    pub(super) fn choose(&self) -> Option<u64> {
        // Out of the list means chosen, although the fiber runs later.
        let fiber = self.list.pop()?;
        if let Some(root) = existing_root() {
            root.wake(fiber);
        }
        Some(fiber.id.get())
    }

    /// Chooses all waiters, the first one first.
    pub(super) fn choose_all(&self) {
        while self.choose().is_some() {}
    }

    /// Waits at the end of the queue until the caller is chosen, or `deadline` has come.
    ///
    /// `abandoned` is called if the caller does not get what it waited for, before the call returns or unwinds. The
    /// argument is true if the caller had been chosen, and so must pass on what it owns.
    ///
    /// Inlined, as everything between a blocking call and the switch: each frame that is returned through after a
    /// switch is a return that the processor predicted wrongly.
    ///
    /// # Panics
    /// As `park`.
    #[inline(always)]
    pub(super) fn wait<F: Fn(bool) + Copy>(&self, reason: Reason, deadline: u64, abandoned: F) -> Waited {
        self.wait_or_wake(reason, deadline, |_| false, abandoned)
    }

    /// Does what [`wait`](Self::wait) does, and ends with [`Waited::Woken`] after a wake-up for something else, if
    /// `ends` says so.
    ///
    /// # Panics
    /// As `park`.
    #[inline(always)]
    pub(super) fn wait_or_wake<F: Fn(bool) + Copy>(
        &self,
        reason: Reason,
        deadline: u64,
        ends: impl Fn(&'static Root) -> bool,
        abandoned: F,
    ) -> Waited {
        let caller = match hub() {
            Ok((root, hub)) => Caller::new(root, hub),
            Err(error) => return Waited::Refused(no_hub(error, abandoned)),
        };
        // Join the queue; the guard leaves it on every way out but the first.
        let guard = self.enter(caller, reason, abandoned);
        loop {
            match caller.park_again(deadline) {
                // Chosen: the guard has nothing to undo.
                Ok(_) if !caller.fiber.is_linked() => {
                    forget(guard);
                    return Waited::Chosen;
                }
                // The wake-up was for something else, such as an unpark: wait on.
                Ok(Wake::Woken) if ends(caller.root) => return Waited::Woken,
                Ok(Wake::Woken) => {}
                Ok(Wake::TimedOut) => return Waited::TimedOut,
                Err(obstacle) => return Waited::Refused(WaitRefusal::Obstacle(obstacle)),
            }
        }
    }

    /// [`wait`](Self::wait) without a deadline. `what` names the thing that is waited for, in the panic of a refused
    /// wait.
    ///
    /// # Panics
    /// As `park`. If the caller may not wait.
    #[inline(always)]
    pub(super) fn wait_or_panic<W: fmt::Display>(
        &self,
        reason: Reason,
        what: impl Fn() -> W,
        abandoned: impl Fn(bool) + Copy,
    ) {
        // Not by way of `wait`: all ends but one panic here, so they need not be told apart.
        // `Caller::current` would cost one instruction more here.
        let caller = match hub() {
            Ok((root, hub)) => Caller::new(root, hub),
            Err(error) => refused(&no_hub(error, abandoned), what()),
        };
        let guard = self.enter(caller, reason, abandoned);
        // Woken and still in the list: the wake-up was for something else.
        while caller.fiber.is_linked() {
            if let Err(obstacle) = caller.park_again(NEVER) {
                // Out of the queue first: the panic may be caught.
                drop(guard);
                refused(&WaitRefusal::Obstacle(obstacle), what());
            }
        }
        forget(guard);
    }

    /// Appends the caller to the queue.
    #[inline(always)]
    fn enter<F: Fn(bool) + Copy>(&self, caller: Caller, reason: Reason, abandoned: F) -> QueueGuard<'_, F> {
        let me = caller.fiber;
        me.reason.set(reason);
        self.list.enter(me);
        QueueGuard { queue: self, me, abandoned }
    }
}

/// Gives up a wait that cannot begin, since there is no hub.
#[cold]
#[inline(never)]
fn no_hub(error: io::Error, abandoned: impl Fn(bool)) -> WaitRefusal {
    // A caller that unwinds is told so, although it has no hub either.
    abandoned(false);
    cancel::obstacle().map_or(WaitRefusal::NoHub(error), WaitRefusal::Obstacle)
}

/// A place in the queue. Dropping the guard abandons the wait; the guard is forgotten if the caller was chosen. Its
/// destructor is one call, as that of `RecvGuard` in `channel/core.rs`.
struct QueueGuard<'a, F: Fn(bool) + Copy> {
    queue: &'a WaitQueue,
    me: Fiber,
    /// What to do when the wait is abandoned.
    abandoned: F,
}

impl<F: Fn(bool) + Copy> Drop for QueueGuard<'_, F> {
    #[inline(always)]
    fn drop(&mut self) {
        give_up(self.queue, self.me, self.abandoned);
    }
}

/// Ends a wait in vain: the fiber does not get what it waited for, or does not want that any more.
#[cold]
#[inline(never)]
fn give_up(queue: &WaitQueue, me: Fiber, abandoned: impl Fn(bool)) {
    // Not in the list any more: a waker was faster.
    let chosen = !queue.list.leave(me);
    abandoned(chosen);
}
