//! Simulated turns: which fiber goes on is a choice of the simulation, and time does not pass by itself.
//!
//! No fast path asks whether its OS thread simulates. The preempt flag of such an OS thread is raised for ever
//! (`Budget::keep_time`, and no monitor), and so the slow paths do, which ask:
//!
//! | fast path | its slow path | asks |
//! |---|---|---|
//! | a turn: a yield, a park, an end | `pick_slowly`, in main's loop | `pick_simulated`: which fiber has the next turn? |
//! | a checkpoint: a call that need not wait | `must_give_way`, on the caller's stack | `is_preempted`: does another fiber go first? |
//!
//! ```text
//!   A yields, parks or ends      main's loop                                    B
//!   switch_out, suspend ------>  pick_slowly, pick_simulated:
//!                                  the simulation looks: invariants, kills
//!                                  nothing runnable? poll: the clock jumps to the next timer
//!                                  choose B of all that are runnable  ------->  goes on
//! ```
//!
//! A launch asks as well, whether there is a stack: one test of a bit for others.
//!
//! The two queues are one here, `ready`: what a timer or another OS thread wakes has no privilege, since the choice is
//! not the queue's.
#![forbid(unsafe_code)]

use std::io;

use super::fiber::Fiber;
use super::recorder::Recorder;
use super::root::{Root, SIMULATES};
use super::simulation::{Left, Simulation};
use super::state::State;
use crate::sys::fault::FaultKind;

impl Root {
    /// Makes this OS thread simulate, for the rest of its life. To be called before the scheduler is made.
    pub(crate) fn simulate(&self, simulation: Box<dyn Simulation>) {
        if self.simulation.set(simulation).is_ok() {
            self.set_traced(SIMULATES, true);
            // Raised from now on, so that no turn is fast.
            self.keep_time();
        }
    }

    /// Returns the simulation, if this OS thread simulates.
    pub(crate) fn simulation(&self) -> Option<&dyn Simulation> {
        self.simulation.get().map(|simulation| &**simulation)
    }

    /// Takes the next fiber for main's loop: one that the simulation chooses, after a poll if none is runnable. `None`
    /// if none was runnable; the poll that followed may have changed that.
    #[cold]
    #[inline(never)]
    pub(super) fn pick_simulated(&self) -> Option<Fiber> {
        // The simulation may run code of the program, as the OS thread.
        self.tls.load(None);
        self.pick_as_os_thread()
    }

    /// Does the work of [`pick_simulated`](Self::pick_simulated), out of line, since it uses thread-locals
    /// (tls-pool-1).
    #[inline(never)]
    fn pick_as_os_thread(&self) -> Option<Fiber> {
        let now = self.with_recorder(|recorder| self.note_leave(recorder));
        self.hook_leaves();
        let left = self.left();
        let chosen = self.chosen.take();
        if !self.closing()
            && let Some(simulation) = self.simulation()
        {
            simulation.between_turns(left.filter(|_| chosen.is_none()));
            // Timers that are due already, and what other OS threads sent.
            if !self.is_quiet() {
                if self.is_recording() { self.poll_noted(false) } else { self.poll(false) }
            }
        }
        let fiber = self.take_chosen(chosen, left);
        match fiber {
            Some(fiber) => {
                self.ran.set(fiber.id.get());
                let note = |recorder: &Recorder| {
                    self.note_run(recorder, fiber, now.unwrap_or_else(|| recorder.ticker.now()));
                };
                self.with_recorder(note);
                self.hook_comes(fiber);
            }
            None => {
                self.ran.set(0);
                self.poll_traced(true);
            }
        }
        fiber
    }

    /// Fails if the simulation has no stack for a fiber that is launched now.
    #[cold]
    #[inline(never)]
    pub(super) fn may_launch(&self) -> io::Result<()> {
        // What unwinds everything is not disturbed.
        if self.reserved.take() || self.closing() {
            return Ok(());
        }
        let fault = self.simulation().and_then(|simulation| simulation.fault(&[FaultKind::Spawn]));
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// Fails if the simulation has no stack for the fiber that is launched next; else there is one for certain.
    #[cold]
    #[inline(never)]
    pub(super) fn may_reserve(&self) -> io::Result<()> {
        self.may_launch()?;
        self.reserved.set(true);
        Ok(())
    }

    /// Forgets what was reserved, for a simulation that begins anew.
    pub(crate) fn forget_reserve(&self) {
        self.reserved.set(false);
    }

    /// Returns the fiber that ran last, unless it has ended.
    fn left(&self) -> Option<Fiber> {
        let me = self.current();
        // The slot of a fiber that has ended may be free, or have a new one.
        let is_there = me.id.get() == self.ran.get();
        (is_there && !matches!(me.state.get(), State::Finished | State::Pooled | State::Unused)).then_some(me)
    }

    /// Takes the fiber out of the run queue that was `chosen` before, or else is chosen now.
    fn take_chosen(&self, chosen: Option<Fiber>, left: Option<Fiber>) -> Option<Fiber> {
        self.merge_queues();
        let of = self.runnable();
        if of == 0 {
            return None;
        }
        if let Some(at) = chosen.and_then(|chosen| (0..of).find(|&at| self.runnable_at(at) == Some(chosen))) {
            return self.take_runnable(at);
        }
        let left = match left {
            Some(fiber) if matches!(fiber.state.get(), State::Runnable | State::Delivered | State::Notified) => {
                Left::Yields(fiber.id.get())
            }
            _ => Left::Waits,
        };
        let id = |at| self.runnable_at(at).map_or(0, |fiber| fiber.id.get());
        let at = match self.simulation() {
            Some(simulation) if !self.closing() => simulation.choose(of, &id, left),
            _ => 0,
        };
        self.take_runnable(at)
    }

    /// Reports whether another fiber is to run before the running one goes on, in a call that need not wait.
    #[cold]
    #[inline(never)]
    pub(super) fn is_preempted(&self) -> bool {
        let Some(simulation) = self.simulation() else { return false };
        self.merge_queues();
        let (me, of) = (self.current(), 1 + self.runnable());
        if self.closing() {
            return false;
        }
        let fiber = |at: usize| if at == 0 { Some(me) } else { self.runnable_at(at - 1) };
        let at = simulation.choose(of, &|at| fiber(at).map_or(0, |fiber| fiber.id.get()), Left::Preempts);
        // The choice is made here and used by main's loop, so that one switch is one choice.
        self.chosen.set(if at == 0 || at == of { None } else { fiber(at) });
        at > 0
    }
}
