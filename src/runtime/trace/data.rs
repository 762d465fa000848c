//! A trace: the events of one hub or several, as data of the program.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::event::{Event, EventKind};

/// What the threads of one hub did, or those of several: see [`merge`](Trace::merge).
///
/// The data are the program's own: they may go to another OS thread, and stay as they are. `Display` prints a summary
/// in one line.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The events, in the order of their times.
    pub(super) events: Vec<Event>,
    /// The begin of the trace, in monotonic nanoseconds.
    pub(super) began: u64,
    /// The end of the trace, in monotonic nanoseconds.
    pub(super) ended: u64,
    /// The number of events that were overwritten.
    pub(super) lost: u64,
    /// The names of threads that have one, by hub and id.
    pub(super) names: BTreeMap<(u64, u64), String>,
}

impl Trace {
    /// Makes a trace of its parts. The times of the events are relative to `began`.
    pub(crate) fn new(
        events: Vec<Event>,
        (began, ended): (u64, u64),
        lost: u64,
        names: BTreeMap<(u64, u64), String>,
    ) -> Trace {
        Trace { events, began, ended, lost, names }
    }

    /// Returns the events, in the order of their times.
    ///
    /// May switch: no.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Returns how many events were overwritten because the ring was full; they are older than all others of their
    /// hub.
    ///
    /// May switch: no.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns when the trace began, on the monotonic clock of the kernel (`CLOCK_MONOTONIC`); in a simulation, on the
    /// virtual clock.
    ///
    /// May switch: no.
    pub fn began(&self) -> Duration {
        Duration::from_nanos(self.began)
    }

    /// Returns how long the trace was on.
    ///
    /// May switch: no.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.ended.saturating_sub(self.began))
    }

    /// Returns the name of the thread `thread` of the hub `hub`, if it has one. Names that were given before the first
    /// event that is left are lost, except for those of threads that live at the end.
    ///
    /// May switch: no.
    pub fn name(&self, hub: u64, thread: u64) -> Option<&str> {
        self.names.get(&(hub, thread)).map(String::as_str)
    }

    /// Returns the label of a thread, as in reports: `#7 "name"`, `#7`, `main`.
    ///
    /// May switch: no.
    pub fn label(&self, hub: u64, thread: u64) -> String {
        match (thread, self.name(hub, thread)) {
            (0, _) => String::from("the hub"),
            (1, _) => String::from("main"),
            (_, Some(name)) => format!("#{thread} \"{name}\""),
            (_, None) => format!("#{thread}"),
        }
    }

    /// Adds the events of another hub, which may have been traced at another time. Times count from the begin of the
    /// earlier trace then. The clock is one for all processors, so the order of events of two hubs is right up to the
    /// microsecond or so by which readings of the clock differ.
    ///
    /// May switch: no.
    pub fn merge(&mut self, mut other: Trace) {
        let began = self.began.min(other.began);
        for trace in [&mut *self, &mut other] {
            let later = Duration::from_nanos(trace.began - began);
            trace.events.iter_mut().for_each(|event| event.at += later);
            trace.began = began;
        }
        self.events.append(&mut other.events);
        // Stable: events of one hub keep their order.
        self.events.sort_by_key(|event| event.at);
        self.ended = self.ended.max(other.ended);
        self.lost += other.lost;
        self.names.append(&mut other.names);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |is: fn(&EventKind) -> bool| self.events.iter().filter(|event| is(&event.kind)).count();
        let mut hubs: Vec<u64> = self.events.iter().map(|event| event.hub).collect();
        hubs.sort_unstable();
        hubs.dedup();
        write!(
            f,
            "{} events of {} {} in {:.1?}, {} lost: {} threads spawned and {} ended, {} turns, {} waits, {} wake-ups, {} polls",
            self.events.len(),
            hubs.len(),
            if hubs.len() == 1 { "hub" } else { "hubs" },
            self.duration(),
            self.lost,
            count(|kind| matches!(kind, EventKind::Spawned(_))),
            count(|kind| matches!(kind, EventKind::Ended)),
            count(|kind| matches!(kind, EventKind::Runs { .. })),
            count(|kind| matches!(kind, EventKind::Waits(_))),
            count(|kind| matches!(kind, EventKind::Ready(_))),
            count(|kind| matches!(kind, EventKind::PollBegins { .. })),
        )
    }
}
