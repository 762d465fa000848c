//! Park: the only way in which a call blocks.
//!
//! ```text
//!            leave_cpu                    wake (another fiber, the reactor, a timer, remote queue)
//!   RUNNABLE -----------> PARKED --------------------------------> RUNNABLE, in the run queue
//! ```
//!
//! A blocking call has three steps: *try* the operation, *join* a wait list (or arm what will wake the fiber), *park*;
//! then try again. No wake-up can get lost between the try and the park, because nothing else runs on this OS thread
//! meanwhile; other OS threads send remote ops, see `remote_queue`.
//!
//! On top of this `thread::park` has one permit: `unpark` gives the permit, `park` takes it or waits for it. The permit
//! is kept apart from the wake-ups of other calls, so an unpark during a socket read is not lost.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;

use super::caller::Caller;
use crate::switch::cancel::{self, Obstacle};
use crate::switch::fiber::Reason;
use crate::switch::pending;
use crate::switch::root::Root;
use crate::sys::clock::NEVER;

/// How a park ended, when it did not unwind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The fiber was woken; the caller tries again.
    Woken,
    /// The deadline came before a wake-up.
    TimedOut,
}

impl Caller {
    /// Parks the caller until a wake-up or until `deadline` (monotonic nanoseconds).
    ///
    /// # Errors
    /// If the caller unwinds and must not suspend; nothing has happened then.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired `timeout` scope; panics inside `no_switch`, and in main on a deadlock.
    #[inline(always)]
    pub(crate) fn park(self, reason: Reason, deadline: u64) -> Result<Wake, Obstacle> {
        self.fiber.reason.set(reason);
        self.park_again(deadline)
    }

    /// Parks as [`park`](Self::park), for the reason that is noted already.
    ///
    /// # Errors
    /// As [`park`](Self::park).
    ///
    /// # Panics
    /// As [`park`](Self::park).
    #[inline(always)]
    pub(crate) fn park_again(self, deadline: u64) -> Result<Wake, Obstacle> {
        if let Some(obstacle) = cancel::obstacle() {
            return Err(obstacle);
        }
        let me = self.fiber;
        let mut scope = NEVER;
        if me.pending.any() {
            cancel::before_suspension(self.root, me);
            // An open scope has a pending flag. In an unwinding nothing is raised.
            if !std::thread::panicking() {
                scope = me.scope_deadline.get().at;
            }
        }
        Ok(self.suspend(deadline, scope))
    }

    /// Parks until woken, and only reports what would interrupt another call: for the waits that may not end early: a
    /// scope's for its threads, and those in locks of `std` and C. Spurious wake-ups are possible. The caller has asked
    /// what is due already, since that does not wake the fiber.
    #[inline(always)]
    pub(crate) fn park_uninterrupted(self, reason: Reason, deadline: u64) -> Interruption {
        let me = self.fiber;
        if deadline != NEVER {
            self.hub.set_deadline(me, deadline);
        }
        me.reason.set(reason);
        self.leave_cpu();
        // Nothing is raised here: the caller waits on, and unwinds at its own end.
        me.deadline.set(NEVER);
        Interruption {
            kill: me.pending.has(pending::KILL),
            timed_out: me.timed_out.take() && deadline <= self.root.clock.get(),
            deadlock: me.pending.has(pending::DEADLOCK),
        }
    }

    /// Parks, after the checks of [`park`](Self::park). `scope` is the deadline of the `timeout` scope that expires
    /// first.
    #[inline(always)]
    fn suspend(self, deadline: u64, scope: u64) -> Wake {
        let Caller { root, hub, fiber: me } = self;
        let until = deadline.min(scope);
        if until != NEVER {
            hub.set_deadline(me, until);
        }
        self.leave_cpu();
        // Awake again. Without a deadline there is no timer to ask.
        if until == NEVER {
            if me.pending.any() {
                cancel::after_suspension(root, me, false);
            }
            return Wake::Woken;
        }
        // The wheel entry stays behind; `timers` says why.
        me.deadline.set(NEVER);
        let timed_out = me.timed_out.take();
        if me.pending.any() {
            cancel::after_suspension(root, me, timed_out && scope <= root.clock.get());
        }
        if timed_out { Wake::TimedOut } else { Wake::Woken }
    }

    /// Suspends the fiber until a wake-up, and notes since when. The reason has been noted.
    #[inline(always)]
    fn leave_cpu(self) {
        let Caller { root, fiber: me, .. } = self;
        me.since.set(root.clock.get());
        me.note_frames();
        me.state.set_parked();
        root.switch_out(me);
    }
}

/// What would have interrupted a wait that may not end early.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interruption {
    /// The fiber is to be killed.
    pub(crate) kill: bool,
    /// The deadline has come.
    pub(crate) timed_out: bool,
    /// Main would wait for ever.
    pub(crate) deadlock: bool,
}

/// Takes the permit, or waits for the permit until `deadline`: `thread::park`. Returns whether the caller got it.
///
/// # Errors
/// When the thread's hub cannot be used.
#[inline(always)]
pub(crate) fn take_permit(root: &'static Root, deadline: u64) -> io::Result<bool> {
    let caller = Caller::of(root)?;
    let permit = &caller.fiber.permit;
    let _parked = Counted::in_count(&caller.hub.parked);
    loop {
        if permit.take() {
            return Ok(true);
        }
        match caller.park(Reason::Park, deadline) {
            // A wake-up without a permit: park again.
            Ok(Wake::Woken) => {}
            // The permit may have come together with the deadline.
            Ok(Wake::TimedOut) => return Ok(permit.take()),
            Err(_) => return Ok(false),
        }
    }
}

/// Counts a waiting fiber until this is dropped, also if a kill unwinds the wait.
pub(crate) struct Counted<'a>(&'a Cell<usize>);

impl Counted<'_> {
    /// Counts the caller in `count`.
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
