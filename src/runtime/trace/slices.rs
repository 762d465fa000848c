//! The events of a trace as slices of time: a thread runs, waits, or is runnable and waits for its turn.
//!
//! ```text
//!   events    Runs          Waits         Ready        Runs      Yields     Runs
//!   slices      |---- runs ---|--- waits ---|- runnable -|- runs --|- runnable -| ..
//! ```
//!
//! The slices of a thread follow each other without overlap, so that a search by time finds one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::data::Trace;
use super::event::{EventKind, Wait, Waker};

/// What a thread does during a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing<'a> {
    /// It has the CPU.
    Runs,
    /// It waits for this.
    Waits(&'a Wait),
    /// It could run, and waits for its turn.
    Runnable,
    /// The hub looks for events; with `true`, it sleeps until there is one.
    Polls(bool),
}

/// One slice of the time of a thread, in nanoseconds since the begin of the trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice<'a> {
    /// The begin of the slice.
    pub(super) from: u64,
    /// The end of the slice.
    pub(super) to: u64,
    /// What the thread does.
    pub(super) doing: Doing<'a>,
    /// What began the slice, if that was a wake-up: then the thread is runnable.
    pub(super) woken_by: Option<Waker>,
}

/// A thread of a hub: the hub's number and the thread's id.
pub(super) type Thread = (u64, u64);

/// Returns the slices of each thread, in the order of time. Thread 0 is the hub itself, with its polls.
pub(super) fn slices(trace: &Trace) -> BTreeMap<Thread, Vec<Slice<'_>>> {
    let mut threads: BTreeMap<Thread, Lane<'_>> = BTreeMap::new();
    for event in &trace.events {
        let at = ns(event.at);
        let lane = threads.entry((event.hub, event.thread)).or_default();
        match &event.kind {
            EventKind::Ready(by) => lane.go_on(at, Some(Doing::Runnable), Some(*by)),
            EventKind::Runs { .. } => lane.go_on(at, Some(Doing::Runs), None),
            EventKind::Yields => lane.go_on(at, Some(Doing::Runnable), None),
            EventKind::Waits(wait) => lane.go_on(at, Some(Doing::Waits(wait)), None),
            EventKind::PollBegins { idle } => lane.go_on(at, Some(Doing::Polls(*idle)), None),
            EventKind::Ended | EventKind::PollEnds => lane.go_on(at, None, None),
            _ => {}
        }
    }
    let end = ns(trace.duration());
    threads.values_mut().for_each(|lane| lane.go_on(end, None, None));
    threads.into_iter().map(|(thread, lane)| (thread, lane.slices)).collect()
}

/// Returns a time as nanoseconds.
pub(super) fn ns(at: std::time::Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

/// The slices of a thread so far.
#[derive(Default)]
struct Lane<'a> {
    /// The slices that have ended.
    slices: Vec<Slice<'a>>,
    /// The slice that has not ended yet.
    open: Option<Slice<'a>>,
}

impl<'a> Lane<'a> {
    /// Ends the slice that is open, and begins the next.
    fn go_on(&mut self, at: u64, doing: Option<Doing<'a>>, woken_by: Option<Waker>) {
        if let Some(before) = self.open.take() {
            self.slices.push(Slice { to: at, ..before });
        }
        self.open = doing.map(|doing| Slice { from: at, to: at, doing, woken_by });
    }
}
