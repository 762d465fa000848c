//! The state of a fiber: one byte, and the transitions that change it.
//!
//! ```text
//!                 set_launched                           set_finished               set_pooled
//!   UNUSED, POOLED ----------> RUNNABLE, DELIVERED, NOTIFIED ------------> FINISHED ----------> POOLED
//!                               |   ^              |   ^
//!                    set_parked |   | set_runnable |   | set_delivered, set_notified, set_runnable
//!                               v   |              |   |
//!                              PARKED              |   |
//!                                     set_switched v   |
//!                                                 SWITCHED
//! ```
//!
//! RUNNABLE, DELIVERED and NOTIFIED all mean: on the CPU, or in the run queue, or about to be resumed by a switch.
//! `Root::current` says which: the loop stores no state when a fiber is resumed, and a yield stores none either. The
//! three differ only in what the latest explicit switch brought:
//!
//! * DELIVERED: a plain value. The fiber keeps this state until the next wait; a reset would cost a store per
//!   switch. A new greenlet is DELIVERED as well (`set_started`): the first switch brings its first value.
//! * NOTIFIED: a message, which the fiber takes out first of all; `set_received` then makes the state RUNNABLE.
//! * RUNNABLE: nothing. The fiber is a new green thread, or has been woken.
//!
//! *Which code makes which transition.* `launch` and `dismantle` begin and end the use of a slot, `Root::wake` and its
//! kind make a waiting fiber runnable, the loop makes a fiber FINISHED, and `mailbox::exchange` and `mailbox::deliver`
//! make a switched fiber DELIVERED and NOTIFIED. A fiber parks or switches away only itself. Main, the program on the
//! OS thread's own stack, has a control block and all of these states but FINISHED and POOLED.
//!
//! Debug builds check the source state of every transition.
#![forbid(unsafe_code)]

use std::cell::Cell;

/// The states of the file's diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// The slot was never used, or the kernel has taken its pages back. Zero, since such a page reads as zero.
    Unused = 0,
    /// The slot is in the pool, with a control block of neutral fields.
    Pooled,
    /// On the CPU or in the run queue; the last wait, if any, ended without a value.
    Runnable,
    /// Runnable, since an explicit switch delivered a plain value; see `mailbox`.
    Delivered,
    /// Waiting until `Root::wake` makes the fiber runnable.
    Parked,
    /// Waiting for an explicit switch, with the mailbox set.
    Switched,
    /// The function returned; the result may still be in the payload.
    Finished,
    /// Runnable, since an explicit switch delivered more than a plain value; see `mailbox`.
    Notified,
}

impl State {
    /// Reports whether a fiber in this state is on the CPU or in the run queue.
    #[inline(always)]
    pub(crate) fn is_runnable(self) -> bool {
        matches!(self, State::Runnable | State::Delivered | State::Notified)
    }

    /// Reports whether a fiber in this state waits for a wake-up or a switch.
    #[inline(always)]
    pub(crate) fn is_waiting(self) -> bool {
        matches!(self, State::Parked | State::Switched)
    }
}

/// The state byte of a control block. Only the transitions below write the byte.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct StateCell(Cell<State>);

impl StateCell {
    /// Creates the state of a slot that is in the pool.
    pub(crate) const fn pooled() -> StateCell {
        StateCell(Cell::new(State::Pooled))
    }

    /// Returns the current state of the fiber.
    #[inline(always)]
    pub(crate) fn get(&self) -> State {
        self.0.get()
    }

    /// Changes the state to `to`. Panics in debug builds unless `allowed` holds, which is the edge's source state.
    #[inline(always)]
    #[track_caller]
    fn change(&self, allowed: impl FnOnce(State) -> bool, to: State) {
        debug_assert!(allowed(self.get()), "a fiber cannot become {to:?} when it is {:?}", self.get());
        self.0.set(to);
    }

    /// POOLED => RUNNABLE: a slot gets its closure.
    #[inline(always)]
    pub(super) fn set_launched(&self) {
        self.change(|from| from == State::Pooled, State::Runnable);
    }

    /// PARKED, SWITCHED => RUNNABLE: the wait is over. The caller puts the fiber into a run queue.
    #[inline(always)]
    pub(super) fn set_runnable(&self) {
        self.change(State::is_waiting, State::Runnable);
    }

    /// RUNNABLE => PARKED, by the running fiber.
    #[inline(always)]
    pub(crate) fn set_parked(&self) {
        self.change(State::is_runnable, State::Parked);
    }

    /// RUNNABLE => SWITCHED, by the running fiber, which has set the mailbox.
    #[inline(always)]
    pub(super) fn set_switched(&self) {
        self.change(State::is_runnable, State::Switched);
    }

    /// RUNNABLE => DELIVERED: the switch that starts a new greenlet brings the first value.
    #[inline(always)]
    pub(super) fn set_started(&self) {
        self.change(|from| from == State::Runnable, State::Delivered);
    }

    /// SWITCHED => DELIVERED: a plain value is in the mailbox.
    #[inline(always)]
    pub(super) fn set_delivered(&self) {
        self.change(|from| from == State::Switched, State::Delivered);
    }

    /// SWITCHED => NOTIFIED: a message is in the mailbox.
    #[inline(always)]
    pub(super) fn set_notified(&self) {
        self.change(|from| from == State::Switched, State::Notified);
    }

    /// NOTIFIED => RUNNABLE, by the running fiber, which takes the message.
    #[inline(always)]
    pub(super) fn set_received(&self) {
        self.change(|from| from == State::Notified, State::Runnable);
    }

    /// RUNNABLE => FINISHED, by the loop.
    #[inline(always)]
    pub(super) fn set_finished(&self) {
        self.change(State::is_runnable, State::Finished);
    }

    /// FINISHED => POOLED: the slot is free again.
    #[inline(always)]
    pub(super) fn set_pooled(&self) {
        self.change(|from| from == State::Finished, State::Pooled);
    }

    /// Any state of main => RUNNABLE. Main's wait is given up, at the end of its OS thread or in the child of a fork;
    /// or main's control block is new.
    #[inline(always)]
    pub(super) fn reset_main(&self) {
        self.change(|from| !matches!(from, State::Unused | State::Finished), State::Runnable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a transition, and the transition.
    type Edge = (&'static str, fn(&StateCell));

    /// All states of a fiber.
    #[cfg(debug_assertions)]
    const STATES: [State; 8] = [
        State::Unused,
        State::Pooled,
        State::Runnable,
        State::Delivered,
        State::Parked,
        State::Switched,
        State::Finished,
        State::Notified,
    ];

    /// The edges of the diagram: transition, source states, target state.
    const DIAGRAM: [(Edge, &[State], State); 11] = [
        (("set_launched", StateCell::set_launched), &[State::Pooled], State::Runnable),
        (("set_runnable", StateCell::set_runnable), &[State::Parked, State::Switched], State::Runnable),
        (("set_parked", StateCell::set_parked), RUNNABLE, State::Parked),
        (("set_switched", StateCell::set_switched), RUNNABLE, State::Switched),
        (("set_started", StateCell::set_started), &[State::Runnable], State::Delivered),
        (("set_delivered", StateCell::set_delivered), &[State::Switched], State::Delivered),
        (("set_notified", StateCell::set_notified), &[State::Switched], State::Notified),
        (("set_received", StateCell::set_received), &[State::Notified], State::Runnable),
        (("set_finished", StateCell::set_finished), RUNNABLE, State::Finished),
        (("set_pooled", StateCell::set_pooled), &[State::Finished], State::Pooled),
        (
            ("reset_main", StateCell::reset_main),
            &[State::Pooled, State::Runnable, State::Delivered, State::Parked, State::Switched, State::Notified],
            State::Runnable,
        ),
    ];

    /// The states of a fiber that is on the CPU or in the run queue.
    const RUNNABLE: &[State] = &[State::Runnable, State::Delivered, State::Notified];

    /// Makes the transition from `from`; returns the new state, or `None` if the transition panicked.
    fn drive(edge: fn(&StateCell), from: State) -> Option<State> {
        let state = StateCell(Cell::new(from));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| edge(&state))).ok().map(|()| state.get())
    }

    #[test]
    fn each_edge_of_the_diagram_leads_where_it_says() {
        for ((name, edge), sources, target) in DIAGRAM {
            for source in sources {
                assert_eq!(drive(edge, *source), Some(target), "{name} from {source:?}");
            }
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    fn each_edge_that_is_not_in_the_diagram_panics() {
        for ((name, edge), sources, _) in DIAGRAM {
            for source in STATES.iter().filter(|state| !sources.contains(state)) {
                assert_eq!(drive(edge, *source), None, "{name} from {source:?}");
            }
        }
    }

    #[test]
    fn a_page_that_was_never_written_reads_as_unused() {
        assert_eq!(State::Unused as u8, 0);
    }
}
