//! Park: the only way anything blocks.
//!
//! ```text
//!            park_here                    wake (another fiber, the reactor, a timer, mail)
//!   RUNNING ------------> PARKED --------------------------------> READY --> RUNNING
//! ```
//!
//! A blocking call is built from three parts: *look* whether it can go on, *join* a wait list (or arm whatever will
//! wake it), *park*; then look again. There is no window between look and park in which a wake-up could get lost,
//! because nothing else runs on this OS thread meanwhile; other OS threads send letters, see `mail`.
//!
//! On top of this `thread::park` has one permit: `unpark` gives it, `park` takes it or waits for it. The permit is
//! kept apart from the wake-ups of other calls, so an unpark during a socket read is not lost.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;

use super::hub::{Hub, hub_of};
use crate::switch::cancel::{self, Obstacle};
use crate::switch::fiber::{Fiber, Reason, State, attention};
use crate::switch::root::Root;

/// No deadline.
pub(crate) const NEVER: u64 = u64::MAX;

/// How a park ended, when it did not unwind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Somebody woke the fiber; the caller looks again.
    Woken,
    /// The deadline came first.
    TimedOut,
}

/// Parks the running fiber until somebody wakes it or `deadline` (monotonic nanoseconds) has come.
///
/// # Errors
/// If the caller unwinds and must not suspend; nothing has happened then.
///
/// # Panics
/// Unwinds with a kill or an expired `timeout` scope; panics inside `no_switch`, and in main on a deadlock.
#[inline(always)]
pub(crate) fn park(root: &Root, hub: &Hub, me: Fiber, reason: Reason, deadline: u64) -> Result<Wake, Obstacle> {
    me.reason.set(reason);
    park_again(root, hub, me, deadline)
}

/// `park` for the reason that is noted already.
///
/// # Errors
/// As `park`.
///
/// # Panics
/// As `park`.
#[inline(always)]
pub(crate) fn park_again(root: &Root, hub: &Hub, me: Fiber, deadline: u64) -> Result<Wake, Obstacle> {
    if let Some(obstacle) = cancel::obstacle() {
        return Err(obstacle);
    }
    let mut scope = NEVER;
    if me.attention.get() != 0 {
        cancel::before_suspension(root, me);
        // A scope that is open shows in the attention.
        scope = me.scope_deadline.get().at;
    }
    Ok(suspend(root, hub, me, deadline, scope))
}

/// Suspends until somebody wakes `me`, with word of since when. What for has been noted.
#[inline(always)]
fn leave_cpu(root: &Root, me: Fiber) {
    me.since.set(root.clock.get());
    me.note_frames();
    me.state.set(State::Parked);
    root.switch_out(me);
    me.state.set(State::Running);
}

/// `park` after its checks. `scope` is when the `timeout` scope that expires first does.
#[inline(always)]
fn suspend(root: &Root, hub: &Hub, me: Fiber, deadline: u64, scope: u64) -> Wake {
    let until = deadline.min(scope);
    if until != NEVER {
        hub.set_deadline(me, until);
    }
    leave_cpu(root, me);
    if until == NEVER {
        if me.attention.get() != 0 {
            cancel::after_suspension(root, me, false);
        }
        return Wake::Woken;
    }
    me.deadline.set(NEVER);
    let timed_out = me.timed_out.take();
    if me.attention.get() != 0 {
        cancel::after_suspension(root, me, timed_out && scope <= root.clock.get());
    }
    if timed_out { Wake::TimedOut } else { Wake::Woken }
}

/// What came during a wait that may not end early.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interruption {
    /// The fiber is to be killed.
    pub(crate) kill: bool,
    /// A `timeout` scope of the fiber expired.
    pub(crate) scope: bool,
    /// Main would wait for ever.
    pub(crate) deadlock: bool,
}

/// Parks until woken, and only reports what would interrupt another call: for the one wait that may not end early,
/// a scope's for its threads. Spurious wake-ups are possible. `no_switch` does not apply.
pub(crate) fn park_uninterrupted(root: &Root, hub: &Hub, me: Fiber, reason: Reason, deadline: u64) -> Interruption {
    if deadline != NEVER {
        hub.set_deadline(me, deadline);
    }
    me.reason.set(reason);
    leave_cpu(root, me);
    me.deadline.set(NEVER);
    Interruption {
        kill: me.attention.get() & attention::KILL != 0,
        scope: me.timed_out.take() && deadline <= root.clock.get(),
        deadlock: me.attention.get() & attention::DEADLOCK != 0,
    }
}

/// `thread::park`: takes the permit or waits for it until `deadline`. True if it got the permit.
///
/// # Errors
/// When the thread's hub cannot be used.
#[inline(always)]
pub(crate) fn take_permit(root: &'static Root, deadline: u64) -> io::Result<bool> {
    let hub = hub_of(root)?;
    let me = root.current();
    let _parked = Counted::in_count(&hub.parked);
    loop {
        if me.permit.take() {
            return Ok(true);
        }
        match park(root, hub, me, Reason::Park, deadline) {
            Ok(Wake::Woken) => {}
            Ok(Wake::TimedOut) => return Ok(me.permit.take()),
            Err(_) => return Ok(false),
        }
    }
}

/// One more in a count of waiting fibers, until it is dropped: also if a kill unwinds the wait.
pub(crate) struct Counted<'a>(&'a Cell<usize>);

impl Counted<'_> {
    /// Counts the caller.
    #[inline]
    pub(crate) fn in_count(count: &Cell<usize>) -> Counted<'_> {
        count.set(count.get() + 1);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
