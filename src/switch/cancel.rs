//! Cancellation: kills, expired `timeout` scopes, deadlocks and forbidden switches, raised in the fiber that they
//! concern.
//!
//! A fiber is interrupted only by itself. Other fibers set a bit in the fiber's `pending` byte and wake the fiber. At
//! its next turn the blocking call that it is in looks at the byte and unwinds with `resume_unwind`, which calls no
//! panic hook and prints nothing. Destructors run on the fiber's own stack, in the fiber's own name.
//!
//! A fiber must not suspend while it unwinds: std counts panics in a thread-local, so another fiber with the same
//! thread-locals that ran meanwhile would see `thread::panicking()` and poison its mutexes. [`obstacle`] checks that
//! before each suspension. A fiber that is alone with its thread-locals may suspend; then nothing interrupts the wait,
//! since an unwinding out of a destructor that runs in an unwinding aborts.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io::{self, Write};
use std::panic::resume_unwind;

use super::fiber::Fiber;
use super::pending;
use super::root::{Root, existing_root};

/// The payload that a kill unwinds a green thread with.
#[derive(Debug)]
pub(crate) struct Killed;

/// The payload that an expired `timeout` scope unwinds with: the identity of the scope.
#[derive(Debug)]
pub(crate) struct ScopeExpired(pub(crate) u64);

/// The payload that a greenlet unwinds with after [`Greenlet::kill`](crate::Greenlet::kill), or after the drop of the
/// last handle.
///
/// A `GreenletExit` cannot be made by hand. Catch one with `catch_unwind` only to clean up, and pass it on with
/// `resume_unwind`.
///
/// ```compile_fail
/// let exit = greenling::GreenletExit(0);
/// ```
#[derive(Debug)]
pub struct GreenletExit(
    /// The number of the kill, which tells what value goes with the exit; [`NO_VALUE`] for none.
    pub(crate) u64,
);

/// The number of a [`GreenletExit`] that carries no value.
pub(crate) const NO_VALUE: u64 = 0;

impl fmt::Display for GreenletExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the greenlet was killed")
    }
}

/// The reason why a suspension is refused: the caller is unwinding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle;

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a call that would have to wait was refused, because this thread is unwinding from a panic or kill")
    }
}

impl std::error::Error for Obstacle {}

impl From<Obstacle> for io::Error {
    fn from(obstacle: Obstacle) -> io::Error {
        io::Error::other(obstacle)
    }
}

/// Returns why the caller may not suspend, if so. One relaxed load when no thread of the process panics.
#[inline(always)]
pub(crate) fn obstacle() -> Option<Obstacle> {
    if std::thread::panicking() { obstacle_in_unwinding() } else { None }
}

/// Returns why the caller, which unwinds, may not suspend, if so.
#[cold]
#[inline(never)]
fn obstacle_in_unwinding() -> Option<Obstacle> {
    // No other fiber sees the count of panics of one that is alone with its thread-locals.
    let may_wait = existing_root().is_some_and(|root| {
        root.is_alone_in_block() && root.current().no_switch.get() == 0 && !root.closing() && !root.is_forked()
    });
    (!may_wait).then_some(Obstacle)
}

/// Reports whether nothing may be raised in `me`, since an unwinding from here would abort: `me` waits in an unwinding,
/// or in the destructor of a thread-local.
fn must_not_raise(root: &Root, me: Fiber) -> bool {
    std::thread::panicking() || root.destroys_locals(me)
}

/// Raises what is due *before* a suspension: a kill, or the panic of a `no_switch` section.
///
/// To be called only where [`obstacle`] has returned `None`.
#[cold]
#[inline(never)]
pub(crate) fn before_suspension(root: &Root, me: Fiber) {
    if must_not_raise(root, me) {
        return;
    }
    if me.pending.has(pending::NO_SWITCH) {
        assert!(!root.is_in_hook(), "greenling: a hook on switches must not wait, nor let other green threads run");
        panic!("greenling: a call inside `no_switch` would have to wait and let other green threads run");
    }
    raise_fork(me);
    // The caller may suspend, so an unwinding that was in progress has ended.
    clear_unwinding(me);
    if me.pending.has(pending::KILL) && me.pending.has(pending::RAISED) {
        step_aside(root, me);
    }
    raise_kill(me);
    raise_deadlock(root, me);
}

/// Gives other fibers a turn before a kill is raised again that the program has swallowed. Without that, a loop that
/// goes on after each kill would keep the OS thread for ever.
fn step_aside(root: &Root, me: Fiber) {
    if root.closing() {
        // The next round of `unwind_all` wakes the fiber; there is a last round.
        me.note_frames();
        me.state.set_parked();
        root.switch_out(me);
    } else {
        root.requeue_current(me);
    }
}

/// Raises what has become due *during* a suspension; `scope_due` says that a `timeout` scope of this fiber has expired.
#[cold]
#[inline(never)]
pub(crate) fn after_suspension(root: &Root, me: Fiber, scope_due: bool) {
    if must_not_raise(root, me) {
        return;
    }
    // The worst first: a child of a fork may not go on at all, then kills, a deadlock, and timeouts last.
    raise_fork(me);
    if me.pending.has(pending::ABANDONED) {
        // No handle of this greenlet is left, and this is the fiber's next turn.
        me.pending.clear(pending::ABANDONED);
        me.pending.raise(pending::KILL);
        me.killed.set(true);
    }
    raise_kill(me);
    raise_deadlock(root, me);
    if scope_due {
        raise(Some(me), Box::new(ScopeExpired(me.scope_deadline.get().scope)));
    }
}

/// Unwinds if a kill is due.
fn raise_kill(me: Fiber) {
    if me.pending.has(pending::KILL) {
        raise(Some(me), kill_payload(me));
    }
}

/// Unwinds the running fiber `me` with a payload, new or caught, and notes whether the payload is one of the
/// runtime's own.
pub(crate) fn raise(me: Option<Fiber>, payload: Box<dyn Any + Send>) -> ! {
    if let Some(me) = me
        && !std::thread::panicking()
    {
        // Remembered for `unwinds_quietly`, which destructors ask.
        clear_unwinding(me);
        if is_control(&*payload) {
            me.pending.raise(pending::CONTROL_UNWIND);
        }
    }
    resume_unwind(payload)
}

/// Notes that `me` does not unwind any more.
pub(crate) fn clear_unwinding(me: Fiber) {
    me.pending.clear(pending::CONTROL_UNWIND);
}

/// Reports whether the unwinding in progress is a kill or a timeout, not a panic of the program.
///
/// A program that swallows a kill with `catch_unwind` and panics before it blocks again is taken for killed.
pub(crate) fn unwinds_quietly() -> bool {
    existing_root().is_some_and(|root| root.current().pending.has(pending::CONTROL_UNWIND))
}

/// Returns the payload that a kill unwinds `me` with. To be called only to raise the payload.
pub(crate) fn kill_payload(me: Fiber) -> Box<dyn Any + Send> {
    me.pending.raise(pending::RAISED);
    if me.green_thread.get() { Box::new(Killed) } else { Box::new(GreenletExit(NO_VALUE)) }
}

/// Panics in the child of a fork, where the copy of the hub and of the other fibers must not be used.
fn raise_fork(me: Fiber) {
    if me.pending.has(pending::FORKED) {
        panic!("{FORKED}");
    }
}

/// The message of the panic in the child of a fork.
pub(crate) const FORKED: &str = "greenling: this process was forked from one that ran green threads, and cannot use its \
                                parent's hub; call exec, or start green threads only after the fork";

/// Panics in main if the scheduler found that nothing can ever wake main.
fn raise_deadlock(root: &Root, me: Fiber) {
    if me.pending.has(pending::DEADLOCK)
        && let Some(report) = root.take_deadlock()
    {
        panic!("{report}");
    }
}

/// Reports whether a payload is one of the runtime's own, not a panic of the program.
pub(crate) fn is_control(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Killed>() || payload.is::<ScopeExpired>() || payload.is::<GreenletExit>()
}

/// Ends the process with a message where nothing may unwind. Unlike `eprintln!` this does not panic if standard error
/// is closed.
#[cold]
pub(crate) fn abort_with(message: &dyn fmt::Display) -> ! {
    let _ = writeln!(std::io::stderr(), "{message}");
    std::process::abort();
}
