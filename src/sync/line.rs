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

use crate::runtime::hub::{ending, hub_of};
use crate::runtime::park::{Wake, park};
use crate::runtime::report::label_of;
use crate::switch::cancel::{self, Obstacle};
use crate::switch::fiber::{Fiber, Held, Reason};
use crate::switch::root::try_root;
use crate::switch::wait_list::{WaitList, Waiting};

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
    /// For waits without a deadline.
    ///
    /// # Panics
    /// If the wait was refused: there is no way to return, and going on without what was waited for would be wrong.
    #[inline]
    pub(super) fn or_panic(self, what: fmt::Arguments<'_>) {
        if let Waited::Refused(refusal) = self {
            refused(&refusal, what);
        }
    }

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

/// Panics with who could not wait for what, and why.
#[cold]
#[inline(never)]
fn refused(refusal: &Refusal, what: fmt::Arguments<'_>) -> ! {
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
    pub(super) fn choose(&self) -> Option<u64> {
        let fiber = self.waiters.pop()?;
        if let Some(root) = try_root() {
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
    /// # Panics
    /// As `park`.
    #[inline(never)]
    pub(super) fn wait(&self, reason: Reason, deadline: u64, left: impl FnOnce(bool)) -> Waited {
        if let Some(refusal) = refusal() {
            left(false);
            return Waited::Refused(refusal);
        }
        let Some((root, Ok(hub))) = try_root().map(|root| (root, hub_of(root))) else {
            unreachable!("`refusal` found a hub")
        };
        let me = root.current();
        me.reason.set(reason);
        let mut place = Place { waiting: Some(self.waiters.join(me)), me, left: Some(left) };
        loop {
            let woken = park(root, hub, me, reason, deadline);
            match woken {
                Ok(_) if !me.linked.get() => {
                    place.left = None;
                    return Waited::Chosen;
                }
                Ok(Wake::Woken) => {}
                Ok(Wake::TimedOut) => return Waited::TimedOut,
                Err(obstacle) => return Waited::Refused(Refusal::Obstacle(obstacle)),
            }
        }
    }
}

/// A place in the line; given up when dropped.
struct Place<'a, F: FnOnce(bool)> {
    /// The place in the list.
    waiting: Option<Waiting<'a>>,
    /// Whose it is.
    me: Fiber,
    /// What to do when it is given up; taken out when it was not in vain.
    left: Option<F>,
}

impl<F: FnOnce(bool)> Drop for Place<'_, F> {
    fn drop(&mut self) {
        let chosen = !self.me.linked.get();
        drop(self.waiting.take());
        if let Some(left) = self.left.take() {
            left(chosen);
        }
    }
}

/// The reason of a waiter for something that `holder` has.
pub(super) fn held(what: Held, holder: u64) -> Reason {
    Reason::Held(what, holder)
}
