//! What an OS thread that simulates asks the layer above: which fiber goes on?
#![forbid(unsafe_code)]

use std::any::Any;
use std::panic::PanicHookInfo;

use super::fiber::Fiber;
use crate::sys::fault::{Fault, FaultKind};

/// The layer above, which chooses. It runs in main's loop, or in the middle of a call of a fiber, and does not switch.
pub(crate) trait Simulation {
    /// Returns which of `of` runnable fibers goes on, at least one; `id` returns the id of each. If the running fiber
    /// makes a call that need not wait, it is the first, and `of` itself means that it has to suspend.
    fn choose(&self, of: usize, id: &dyn Fn(usize) -> u64, left: Left) -> usize;

    /// Returns which of `of` possibilities is chosen that are not fibers.
    fn draw(&self, of: usize) -> usize;

    /// Returns which of the `possible` faults happens now, if one does. The running fiber asks.
    fn fault(&self, possible: &[FaultKind]) -> Option<Fault>;

    /// Looks at a moment at which no fiber runs. `left` is the fiber that ran last, unless it has ended.
    fn between_turns(&self, left: Option<Fiber>);

    /// Notes a panic of the program, before the hook that was in force prints it. Returns whether it is not to be
    /// printed.
    fn notes_panic(&self, info: &PanicHookInfo<'_>) -> bool;

    /// Notes that the green thread with this id ended with a panic that no thread will ask for, with `message` if the
    /// payload is one.
    fn lost_panic(&self, id: u64, message: Option<&str>);

    /// Notes that main is told of a deadlock.
    fn deadlock(&self, report: &str);

    /// Returns the simulation itself, for the layer that made it.
    fn as_any(&self) -> &dyn Any;
}

/// How the CPU became free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It is not free: the running fiber makes a call that need not wait.
    Preempts,
    /// The fiber with this id let others run, and stays runnable.
    Yields(u64),
    /// The fiber waits or has ended.
    Waits,
}
