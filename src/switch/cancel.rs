//! What may interrupt a suspension: kill, an expired `timeout` scope, a deadlock, a forbidden switch.
//!
//! A fiber is interrupted only by itself: others set a bit in its `attention` byte and wake it, and when it runs
//! the blocking call it is in looks at the byte and unwinds with `resume_unwind`. That calls no panic hook and
//! prints nothing, and destructors run on the fiber's own stack, as itself.
//!
//! While a fiber unwinds it must not suspend: std counts panics per OS thread, so another fiber that ran meanwhile
//! would see `thread::panicking()` and poison its mutexes. [`obstacle`] says so before each suspension.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io::Write;
use std::panic::resume_unwind;

use super::fiber::{Fiber, State, attention};
use super::root::{Root, try_root};

/// The payload that a kill unwinds a green thread with.
#[derive(Debug)]
pub(crate) struct Killed;

/// The payload that an expired `timeout` scope unwinds with: the scope's identity.
#[derive(Debug)]
pub(crate) struct ScopeExpired(pub(crate) u64);

/// What a killed greenlet unwinds with: [`Greenlet::kill`](crate::Greenlet::kill), or the drop of its last handle.
///
/// It cannot be made by hand. Catch it with `catch_unwind` only to clean up, and pass it on with `resume_unwind`.
///
/// ```compile_fail
/// let exit = greenling::GreenletExit(0);
/// ```
#[derive(Debug)]
pub struct GreenletExit(
    /// Which kill it came from, and so which value goes with it; [`NO_VALUE`] for none.
    pub(crate) u64,
);

/// The number of a [`GreenletExit`] that carries no value.
pub(crate) const NO_VALUE: u64 = 0;

impl fmt::Display for GreenletExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the greenlet was killed")
    }
}

/// Why a suspension is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The caller is unwinding.
    Unwinding,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a call that would have to wait was refused, because this thread is unwinding from a panic or kill")
    }
}

/// Whether the current code may suspend at all. One relaxed load when nothing panics anywhere.
#[inline(always)]
pub(crate) fn obstacle() -> Option<Obstacle> {
    std::thread::panicking().then_some(Obstacle::Unwinding)
}

/// Raises what is due *before* a suspension: a kill, or the panic of a `no_switch` section.
///
/// Call it only where [`obstacle`] said that there is none.
#[cold]
#[inline(never)]
pub(crate) fn before_suspension(root: &Root, me: Fiber) {
    if me.attention.get() & attention::NO_SWITCH != 0 {
        panic!("greenling: a call inside `no_switch` would have to wait and let other green threads run");
    }
    raise_fork(me);
    calm(me);
    if me.attention.get() & (attention::KILL | attention::RAISED) == attention::KILL | attention::RAISED {
        step_aside(root, me);
    }
    raise_kill(me);
    raise_deadlock(root, me);
}

/// The program swallowed a kill and blocks again. It will be raised again, but not before the others had their turn:
/// a loop that goes on whatever happens would otherwise never let go of the OS thread.
fn step_aside(root: &Root, me: Fiber) {
    if root.closing() {
        // The next round of `unwind_all` wakes it; there is a last one.
        me.note_frames();
        me.state.set(State::Parked);
        root.switch_out(me);
        me.state.set(State::Running);
    } else {
        root.requeue_current(me);
    }
}

/// Raises what came *during* a suspension. `scope_due`: a `timeout` scope of this fiber expired.
#[cold]
#[inline(never)]
pub(crate) fn after_suspension(root: &Root, me: Fiber, scope_due: bool) {
    raise_fork(me);
    if me.attention.get() & attention::ABANDONED != 0 {
        // Nobody has a handle of this greenlet any more; this is its next turn.
        me.attention.set(me.attention.get() & !attention::ABANDONED | attention::KILL);
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
    if me.attention.get() & attention::KILL != 0 {
        raise(Some(me), kill_payload(me));
    }
}

/// Unwinds the running fiber `me` with a payload, new or caught, and notes whether it is one of the runtime's own.
pub(crate) fn raise(me: Option<Fiber>, payload: Box<dyn Any + Send>) -> ! {
    if let Some(me) = me
        && !std::thread::panicking()
    {
        calm(me);
        if is_control(&*payload) {
            me.attention.set(me.attention.get() | attention::QUIET);
        }
    }
    resume_unwind(payload)
}

/// `me` does not unwind any more.
pub(crate) fn calm(me: Fiber) {
    me.attention.set(me.attention.get() & !attention::QUIET);
}

/// Whether the unwinding in progress is a kill or a timeout, not a panic of the program.
///
/// A program that swallows a kill with `catch_unwind` and panics before it blocks again is taken for killed.
pub(crate) fn unwinds_quietly() -> bool {
    try_root().is_some_and(|root| root.current().attention.get() & attention::QUIET != 0)
}

/// What a kill unwinds `me` with. Call it only to raise it.
pub(crate) fn kill_payload(me: Fiber) -> Box<dyn Any + Send> {
    me.attention.set(me.attention.get() | attention::RAISED);
    if me.green_thread.get() { Box::new(Killed) } else { Box::new(GreenletExit(NO_VALUE)) }
}

/// Panics in the child of a fork, whose copy of the hub and of the other fibers must not be used.
fn raise_fork(me: Fiber) {
    if me.attention.get() & attention::FORKED != 0 {
        panic!("{FORKED}");
    }
}

/// What the child of a fork is told.
pub(crate) const FORKED: &str = "greenling: this process was forked from one that ran green threads, and cannot use its \
                                parent's hub; call exec, or start green threads only after the fork";

/// Panics in main if the scheduler found that nothing can ever wake it.
fn raise_deadlock(root: &Root, me: Fiber) {
    if me.attention.get() & attention::DEADLOCK != 0
        && let Some(report) = root.take_deadlock()
    {
        panic!("{report}");
    }
}

/// Whether an unwinding payload is one of the runtime's own, not a panic of the program.
pub(crate) fn is_control(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Killed>() || payload.is::<ScopeExpired>() || payload.is::<GreenletExit>()
}

/// Ends the process with a message where nothing may unwind. Unlike `eprintln!` it does not panic if nobody can read it.
#[cold]
pub(crate) fn abort_with(message: &dyn fmt::Display) -> ! {
    let _ = writeln!(std::io::stderr(), "{message}");
    std::process::abort();
}
