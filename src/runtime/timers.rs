//! The deadlines of one hub's fibers.
//!
//! Timers are lazy: a fiber has at most one wheel entry, which may be *earlier* than the deadline for which the fiber
//! waits. A wait with a timeout stores the deadline in the control block, and touches the wheel only if no early enough
//! entry is there; a wait that ends in time stores "none" and leaves the entry where it is. An entry that fires too
//! early is put back at the deadline of the moment. So a server's read timeout costs two stores a request.
//!
//! * Invariant timers-1: an entry in the wheel names a live fiber, and the `timer` field of that fiber holds the key.
//!   Upheld by `set_deadline`, `fire` and `forget` (called for each fiber that ends with an entry).
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};

use crate::pure::timer_wheel::TimerWheel;
use crate::switch::fiber::Fiber;
use crate::switch::recorder::What;
use crate::switch::root::Root;
use crate::sys::clock::NEVER;

/// Timers fired in one poll; the rest fires in the next, after the fibers just woken have run.
const FIRE_BATCH: usize = 1024;

/// The timers of one hub.
pub(super) struct Timers {
    /// The entries, by the time at which they fire.
    wheel: RefCell<TimerWheel<Fiber>>,
    /// Fibers with an entry that fired, while `fire` works on them; the vector is kept for its memory.
    due: Cell<Vec<Fiber>>,
}

impl Timers {
    /// Makes timers without an entry, at the time `now`.
    pub(super) fn new(now: u64) -> Timers {
        Timers { wheel: RefCell::new(TimerWheel::new(now)), due: Cell::new(Vec::new()) }
    }

    /// Begins anew at the time `now`, which may be earlier than before. There must be no entry (timers-1).
    pub(super) fn restart(&self, now: u64) {
        *self.wheel.borrow_mut() = TimerWheel::new(now);
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.wheel.borrow().len()
    }

    /// Returns the time to which the wheel has come.
    pub(super) fn at(&self) -> u64 {
        self.wheel.borrow().at()
    }

    /// Reports whether there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.wheel.borrow().is_empty()
    }

    /// Returns when the hub must wake up for the next entry at the latest.
    pub(super) fn next_wakeup(&self) -> Option<u64> {
        self.wheel.borrow().next_wakeup()
    }

    /// Reports whether `fire` may find an entry that is due. Then the poll of epoll must not be skipped, or a timeout
    /// would beat ready IO.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.next_wakeup().is_some_and(|at| at <= now)
    }

    /// Makes a timer wake `fiber` at `at` (monotonic nanoseconds) at the latest.
    #[inline]
    pub(super) fn set_deadline(&self, fiber: Fiber, at: u64) {
        fiber.deadline.set(at);
        if at < fiber.timer_at.get() {
            self.insert(fiber, at);
        }
    }

    /// Puts `fiber` into the wheel, in place of a later entry (timers-1).
    fn insert(&self, fiber: Fiber, at: u64) {
        let mut wheel = self.wheel.borrow_mut();
        if let Some(old) = fiber.timer.get() {
            wheel.cancel(old);
        }
        fiber.timer.set(Some(wheel.insert(at, fiber)));
        fiber.in_wheel.set(true);
        fiber.timer_at.set(at);
    }

    /// Takes the entry of `fiber` out of the wheel, if there is one (timers-1).
    pub(super) fn forget(&self, fiber: Fiber) {
        if let Some(key) = fiber.timer.take() {
            self.wheel.borrow_mut().cancel(key);
        }
        fiber.in_wheel.set(false);
        fiber.timer_at.set(NEVER);
    }

    /// Wakes the fibers that have reached their deadline, in the order of the deadlines; puts back those with a later
    /// deadline. At most `FIRE_BATCH`. Returns how many fibers were woken.
    pub(super) fn fire(&self, root: &Root, now: u64) -> u64 {
        // Take the entries that are due out of the wheel.
        let mut due = self.due.take();
        self.wheel.borrow_mut().advance(now, FIRE_BATCH, &mut |fiber, _| due.push(fiber));
        let (mut moved, mut woken) = (0, 0);
        for &fiber in &due {
            let was = fiber.timer_at.replace(NEVER);
            fiber.timer.set(None);
            fiber.in_wheel.set(false);
            moved += u32::from(fiber.deadline.get() != was);
        }
        // Entries come in the order in which they fire; a deadline that has moved and is over as well belongs further
        // back.
        if moved > 0 && !due.is_sorted_by_key(|fiber| fiber.deadline.get()) {
            due.sort_by_key(|fiber| fiber.deadline.get());
        }
        for fiber in due.drain(..) {
            let deadline = fiber.deadline.get();
            if deadline == NEVER {
                // The wait is over, and the entry was left behind.
                note(root, fiber, What::NoTimer);
                continue;
            }
            if deadline > now {
                self.insert(fiber, deadline);
                note(root, fiber, What::Timer(deadline));
            } else if fiber.state.get().is_waiting() {
                // Only a fiber that nothing else has woken timed out: ready IO wins.
                fiber.timed_out.set(true);
                root.inject(fiber);
                woken += 1;
            } else {
                note(root, fiber, What::NoTimer);
            }
        }
        self.due.set(due);
        woken
    }

    /// Takes out the entries of waits that are over, up to the first entry for which a fiber waits. For a hub that only
    /// timers can wake: an entry that is left over must not hide a deadlock.
    pub(super) fn drop_stale(&self, root: &Root) {
        loop {
            let Some(fiber) = self.wheel.borrow().first() else { return };
            let deadline = fiber.deadline.get();
            // A fiber waits for the first entry, so the timers will wake a fiber.
            if deadline == fiber.timer_at.get() {
                return;
            }
            self.forget(fiber);
            // The fiber waits for another time now, so the entry moves there.
            if deadline == NEVER {
                note(root, fiber, What::NoTimer);
            } else {
                self.insert(fiber, deadline);
                note(root, fiber, What::Timer(deadline));
            }
        }
    }
}

/// Notes for a trace that an entry was left behind, or moves. No wake-up goes along here.
fn note(root: &Root, fiber: Fiber, what: What) {
    if root.is_recording() {
        root.note_timer(fiber, what);
    }
}
