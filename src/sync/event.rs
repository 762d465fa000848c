//! A flag to wait for.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::wait_queue::WaitQueue;
use crate::runtime::checkpoint::{checkpoint, checkpoint_if};
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::select_source::SelectWait;
use crate::switch::fiber::Reason;
use crate::switch::wait_list::WaitList;
use crate::sys::clock::after;

/// The name of a wait, in reports and panics.
const SET: &str = "an Event to be set";

/// A flag that green threads of one OS thread wait for.
///
/// [`new`](Self::new) makes a *manual* event: [`set`](Self::set) lets all threads through until [`clear`](Self::clear).
/// [`auto_reset`](Self::auto_reset) makes a turnstile: each `set` lets one thread through.
///
/// ```
/// use std::rc::Rc;
/// use greenling::{spawn, sync::Event, yield_now};
///
/// let start = Rc::new(Event::new());
/// let theirs = Rc::clone(&start);
/// let runner = spawn(move || {
///     theirs.wait();
///     "off"
/// });
/// yield_now();
/// start.set();
/// start.clear(); // a thread that waited for the set goes through all the same
/// assert_eq!(runner.join().unwrap(), "off");
/// ```
#[derive(Debug)]
pub struct Event {
    /// Whether a thread that comes now goes through. While the flag is set, no thread waits.
    flag: Cell<bool>,
    /// Whether a thread that goes through clears the flag.
    auto: bool,
    /// The threads that wait for the flag.
    queue: WaitQueue,
}

impl Event {
    /// Creates a manual event that is not set.
    ///
    /// May switch: no.
    pub const fn new() -> Event {
        Event { flag: Cell::new(false), auto: false, queue: WaitQueue::new() }
    }

    /// Creates an event that is not set, and is cleared by each thread that goes through.
    ///
    /// May switch: no.
    pub const fn auto_reset() -> Event {
        Event { flag: Cell::new(false), auto: true, queue: WaitQueue::new() }
    }

    /// Sets the event, and wakes all waiters in the order in which they came. An auto-reset event wakes the first
    /// waiter, and stays set only if no thread waits. Setting a set event does nothing.
    ///
    /// May switch: no.
    #[inline]
    pub fn set(&self) {
        if !self.auto {
            // The waiters go through, even if the flag is cleared before they run.
            self.flag.set(true);
            self.queue.choose_all();
        } else if self.queue.choose().is_none() {
            self.flag.set(true);
        }
    }

    /// Clears the event. Waiters that were woken already go through.
    ///
    /// May switch: no.
    pub fn clear(&self) {
        self.flag.set(false);
    }

    /// Reports whether the event is set now.
    ///
    /// May switch: if the event is not set, and the caller's share of the CPU is used up (see
    /// [`thread`](crate::thread)).
    pub fn is_set(&self) -> bool {
        // A loop that asks until the flag is set must let the setter run.
        if !self.flag.get() {
            checkpoint();
        }
        self.flag.get()
    }

    /// Waits until the event is set, also if it is cleared again before the caller runs.
    ///
    /// # Panics
    /// If the call would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if the event is not set.
    #[inline(always)]
    pub fn wait(&self) {
        checkpoint_if(|| self.flag.get());
        if !self.pass() {
            self.queue.wait_or_panic(Reason::Event(SET), || SET, |chosen| self.abandoned(chosen));
        }
    }

    /// [`wait`](Self::wait)s, but no longer than `limit`, and reports whether the event was set. While the caller
    /// unwinds, the call does not wait at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if the event is not set.
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        checkpoint_if(|| self.flag.get());
        self.pass() || self.queue.wait(Reason::Event(SET), after(limit), |chosen| self.abandoned(chosen)).is_chosen()
    }

    /// Goes through if the event is set.
    #[inline(always)]
    fn pass(&self) -> bool {
        let set = self.flag.get();
        if self.auto {
            self.flag.set(false);
        }
        set
    }

    /// Ends a wait in vain. A waiter that was `chosen` was let through, and lets the next one through instead.
    fn abandoned(&self, chosen: bool) {
        // The turn that the caller does not use goes to the next waiter.
        if chosen && self.auto {
            self.set();
        }
    }
}

impl SelectWait for Event {
    type Arm<'s>
        = EventArm<'s>
    where
        Self: 's;

    fn select_wait(&self) -> EventArm<'_> {
        EventArm { event: self }
    }
}

impl Default for Event {
    fn default() -> Self {
        Event::new()
    }
}

/// The arm of a `select!` that waits for an [`Event`].
#[derive(Debug)]
pub struct EventArm<'a> {
    event: &'a Event,
}

impl SelectArm for EventArm<'_> {
    type Output = ();

    fn finish(self) {}
}

impl Arm for EventArm<'_> {
    fn try_select(&self) -> bool {
        self.event.pass()
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        Ok(Some(self.event.queue.list()))
    }

    fn accept(&self) {}

    fn unregister(&self, end: ArmEnd) {
        // The arm was let through, but the `select!` unwinds.
        if end == ArmEnd::Aborted && self.event.auto {
            self.event.set();
        }
    }
}
