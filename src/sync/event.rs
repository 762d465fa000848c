//! A flag to wait for.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::line::Line;
use crate::runtime::choose::{AnyArm, Arm, End, Failed, Who};
use crate::runtime::source::after;
use crate::switch::fiber::Reason;
use crate::switch::wait_list::WaitList;

/// What is waited for, in reports and panics.
const SET: &str = "an Event to be set";

/// A flag that green threads of one OS thread wait for.
///
/// [`new`](Self::new) makes a *manual* one: [`set`](Self::set) lets everybody through until [`clear`](Self::clear).
/// [`auto_reset`](Self::auto_reset) makes a turnstile: each `set` lets one through.
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
/// start.clear(); // who waited when it was set is let through all the same
/// assert_eq!(runner.join().unwrap(), "off");
/// ```
#[derive(Debug)]
pub struct Event {
    /// Whether who comes now goes through. If it is set, nobody waits.
    flag: Cell<bool>,
    /// Whether who goes through clears it.
    auto: bool,
    /// Who waits.
    line: Line,
}

impl Event {
    /// A manual one, not set.
    ///
    /// May switch: no.
    pub const fn new() -> Event {
        Event { flag: Cell::new(false), auto: false, line: Line::new() }
    }

    /// One that is cleared by the thread that it lets through, not set.
    ///
    /// May switch: no.
    pub const fn auto_reset() -> Event {
        Event { flag: Cell::new(false), auto: true, line: Line::new() }
    }

    /// Sets it, and wakes all waiters in the order in which they came; an auto-reset one wakes the first, and stays set
    /// only if nobody waits. Setting a set one does nothing.
    ///
    /// May switch: no.
    #[inline]
    pub fn set(&self) {
        if !self.auto {
            self.flag.set(true);
            self.line.choose_all();
        } else if self.line.choose().is_none() {
            self.flag.set(true);
        }
    }

    /// Takes it back. Waiters that were woken already go through.
    ///
    /// May switch: no.
    pub fn clear(&self) {
        self.flag.set(false);
    }

    /// Whether it is set now.
    ///
    /// May switch: no.
    pub fn is_set(&self) -> bool {
        self.flag.get()
    }

    /// Waits until it is set, also if it is cleared again before the caller runs.
    ///
    /// # Panics
    /// If it would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if it is not set.
    #[inline(always)]
    pub fn wait(&self) {
        if !self.pass() {
            self.line.wait_or_panic(Reason::Event(SET), || SET, |chosen| self.left(chosen));
        }
    }

    /// [`wait`](Self::wait), but no longer than `limit`; says whether it was set. While the caller unwinds it does not
    /// wait at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if it is not set.
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        self.pass() || self.line.wait(Reason::Event(SET), after(limit), |chosen| self.left(chosen)).is_chosen()
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_wait(&self) -> EventArm<'_> {
        EventArm { event: self }
    }

    /// Goes through if it is set.
    #[inline(always)]
    fn pass(&self) -> bool {
        let set = self.flag.get();
        if self.auto {
            self.flag.set(false);
        }
        set
    }

    /// A wait was in vain; `chosen` if it was let through all the same.
    fn left(&self, chosen: bool) {
        if chosen && self.auto {
            self.set();
        }
    }
}

impl Default for Event {
    fn default() -> Self {
        Event::new()
    }
}

/// The arm of a `select!` that waits for an [`Event`].
#[doc(hidden)]
#[derive(Debug)]
pub struct EventArm<'a> {
    /// Which one.
    event: &'a Event,
}

impl EventArm<'_> {
    /// For `select!`.
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    pub fn finish(self) {}
}

impl Arm for EventArm<'_> {
    fn look(&self) -> bool {
        self.event.pass()
    }

    fn enter(&self, _: Who) -> Result<Option<&WaitList>, Failed> {
        Ok(Some(self.event.line.waiters()))
    }

    fn complete(&self) {}

    fn left(&self, end: End) {
        if end == End::InVain && self.event.auto {
            self.event.set();
        }
    }
}
