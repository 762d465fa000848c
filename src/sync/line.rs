//! A line of waiters: first come, first served, and what is released goes to the first one directly.
//!
//! ```text
//!   wait:    RUNNING -- joins the line, parks --> in line -- choose, wake --> chosen --> RUNNING, owns what was released
//!                                                    |                          |
//!                                   time is up, kill |                          | kill, outer timeout
//!                                                    v                          v
//!                                              left(false)                 left(true): pass it on
//! ```
//!
//! There is no flag for "chosen": whoever chooses takes the fiber out of the list, so a waiter that is no longer linked
//! owns what it waited for, although it has not run yet. Nobody can come in between, hence no barging, and if the waiter
//! unwinds before its turn, `left` gives it to the next, hence nothing is lost.
//!
//! * Invariant L1: the `reason` of a fiber in the line is the one that `wait` was called with. It is set before the
//!   fiber joins; `first_reason` relies on it to tell readers from writers.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::forget;

use crate::runtime::hub::{ending, hub, hub_of};
use crate::runtime::park::{NEVER, Wake, park_again};
use crate::runtime::report::label_of;
use crate::switch::cancel::{self, Obstacle};
use crate::switch::fiber::{Fiber, Held, Reason};
use crate::switch::root::{Root, existing_root, try_root};
use crate::switch::wait_list::WaitList;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Who waits.
    waiters: WaitList,
}

/// How a wait ended, when it did not unwind.
#[derive(Debug)]
pub(super) enum Waited {
    /// What was waited for is the caller's.
    Chosen,
    /// The deadline came first.
    TimedOut,
    /// The caller may not wait.
    Refused(Refusal),
}

impl Waited {
    /// For waits with a deadline: a refused one is like one whose time was up at once.
    #[inline]
    pub(super) fn is_chosen(&self) -> bool {
        matches!(self, Waited::Chosen)
    }
}

/// Why a wait was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The caller is unwinding.
    Obstacle(Obstacle),
    /// There is no hub.
    NoHub(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Obstacle(obstacle) => obstacle.fmt(f),
            Refusal::NoHub(error) => error.fmt(f),
        }
    }
}

/// Panics with who could not wait for what, and why: for waits without a deadline. There is no way to return, and going on
/// without what was waited for would be wrong.
#[cold]
#[inline(never)]
pub(super) fn refused(refusal: &Refusal, what: impl fmt::Display) -> ! {
    panic!("greenling: {} cannot wait for {what}: {refusal}", label_of(me()));
}

/// The id of the running fiber. When the OS thread is ending there is only one left that can ask.
#[inline(always)]
pub(super) fn me() -> u64 {
    try_root().map_or(u64::MAX, |root| root.current().id.get())
}

/// Why the caller could not wait now, if so.
pub(super) fn refusal() -> Option<Refusal> {
    match (cancel::obstacle(), try_root().map(hub_of)) {
        (Some(obstacle), _) => Some(Refusal::Obstacle(obstacle)),
        (None, None) => Some(Refusal::NoHub(ending())),
        (None, Some(Err(error))) => Some(Refusal::NoHub(error)),
        (None, Some(Ok(_))) => None,
    }
}

impl Line {
    /// Nobody waits.
    pub(super) const fn new() -> Line {
        Line { waiters: WaitList::new() }
    }

    /// Whether nobody waits.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Those who wait, for an arm of a `select!`. Who is in it that way is chosen as everybody else.
    pub(super) fn waiters(&self) -> &WaitList {
        &self.waiters
    }

    /// What who waits longest waits for (invariant L1).
    pub(super) fn first_reason(&self) -> Option<Reason> {
        self.waiters.first().map(|fiber| fiber.waits_for())
    }

    /// Tells who waits longest that `holder` has it now. The others wait for those before them; see `report`.
    pub(super) fn note_holder(&self, holder: u64) {
        if let Some(first) = self.waiters.first()
            && let Reason::Held(what, _) = first.waits_for()
        {
            first.reason.set(Reason::Held(what, holder));
        }
    }

    /// Takes out who waits longest and makes it runnable: it owns what it waited for. Returns its id.
    #[inline]
    pub(super) fn choose(&self) -> Option<u64> {
        let fiber = self.waiters.pop()?;
        if let Some(root) = existing_root() {
            root.wake(fiber);
        }
        Some(fiber.id.get())
    }

    /// Chooses everybody.
    pub(super) fn choose_all(&self) {
        while self.choose().is_some() {}
    }

    /// Waits at the end of the line until somebody chooses the caller, or `deadline` has come.
    ///
    /// `left` is called if the caller does not get what it waited for, before the call returns or unwinds. Its argument
    /// says whether the caller had been chosen, and so must pass on what it owns.
    ///
    /// Inlined, as everything between a call that blocks and the switch: each frame that is returned through after a switch
    /// is a return that the processor predicted wrongly.
    ///
    /// # Panics
    /// As `park`.
    #[inline(always)]
    pub(super) fn wait<F: Fn(bool) + Copy>(&self, reason: Reason, deadline: u64, left: F) -> Waited {
        let (root, hub) = match hub() {
            Ok(found) => found,
            Err(error) => return Waited::Refused(no_hub(error, left)),
        };
        let (me, place) = self.enter(root, reason, left);
        loop {
            match park_again(root, hub, me, deadline) {
                Ok(_) if !me.linked.get() => {
                    forget(place);
                    return Waited::Chosen;
                }
                Ok(Wake::Woken) => {}
                Ok(Wake::TimedOut) => return Waited::TimedOut,
                Err(obstacle) => return Waited::Refused(Refusal::Obstacle(obstacle)),
            }
        }
    }

    /// [`wait`](Self::wait) without a deadline, for what the words of `what` say.
    ///
    /// # Panics
    /// As `park`; and if the caller may not wait.
    #[inline(always)]
    pub(super) fn wait_or_panic<W: fmt::Display>(
        &self,
        reason: Reason,
        what: impl Fn() -> W,
        left: impl Fn(bool) + Copy,
    ) {
        // Not by way of `wait`: whoever panics inside need not be told apart from whoever was chosen after it.
        let (root, hub) = match hub() {
            Ok(found) => found,
            Err(error) => refused(&no_hub(error, left), what()),
        };
        let (me, place) = self.enter(root, reason, left);
        while me.linked.get() {
            if let Err(obstacle) = park_again(root, hub, me, NEVER) {
                drop(place);
                refused(&Refusal::Obstacle(obstacle), what());
            }
        }
        forget(place);
    }

    /// Puts the running fiber at the end.
    #[inline(always)]
    fn enter<F: Fn(bool) + Copy>(&self, root: &Root, reason: Reason, left: F) -> (Fiber, Place<'_, F>) {
        let me = root.current();
        me.reason.set(reason);
        self.waiters.enter(me);
        (me, Place { line: self, me, left })
    }
}

/// There is no hub to wait in.
#[cold]
#[inline(never)]
fn no_hub(error: io::Error, left: impl Fn(bool)) -> Refusal {
    left(false);
    cancel::obstacle().map_or(Refusal::NoHub(error), Refusal::Obstacle)
}

/// A place in the line; given up when dropped, and forgotten if it was not in vain. Its destructor is one call, as that of
/// a taker of a channel.
struct Place<'a, F: Fn(bool) + Copy> {
    /// The line.
    line: &'a Line,
    /// Whose it is.
    me: Fiber,
    /// What to do when it is given up.
    left: F,
}

impl<F: Fn(bool) + Copy> Drop for Place<'_, F> {
    #[inline(always)]
    fn drop(&mut self) {
        give_up(self.line, self.me, self.left);
    }
}

/// `me` does not get what it waited for, or not any more.
#[cold]
#[inline(never)]
fn give_up(line: &Line, me: Fiber, left: impl Fn(bool)) {
    let chosen = !line.waiters.leave(me);
    left(chosen);
}

/// The reason of a waiter for something that `holder` has.
pub(super) fn held(what: Held, holder: u64) -> Reason {
    Reason::Held(what, holder)
}
