//! States from events: what each event of a trace changes, and nothing that no event says.
//!
//! ```text
//!   Spawned, Ready, Yields   -> the thread is runnable, at the end of the run queue
//!   Runs                     -> it is taken from the run queue, and has the CPU
//!   Waits, Ended             -> it has left the CPU
//!   Timer, TimerDropped      -> its entry in the timer wheel; a wake-up by a timer takes the entry out, too
//!   Wheel                    -> the place of the cursor, and with it the slots of all entries
//!   Registered, Deregistered -> the epoll set          Event   -> what epoll has reported last
//!   Mark                     -> the line of the program
//! ```
//!
//! A step has what it changes, before and after, so that a page goes backwards as it goes forwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use greenling::trace::{Event, EventKind, Trace, Waker};
use serde_json::{Map, Value, json};

use crate::notes::NAMES;
use crate::programs::Program;
use crate::words;

/// The length of a tick of the wheel, the size of its levels, and their number: chapter 8 of the book.
const TICK_BITS: u32 = 14;
const LEVEL_BITS: u32 = 6;
const LEVELS: u32 = 9;

/// What a page has of a run.
pub(crate) struct Picture {
    /// Id, name, and the line of the spawn of each thread.
    pub(crate) threads: Vec<Value>,
    /// The state before the first step.
    pub(crate) start: Map<String, Value>,
    /// The steps.
    pub(crate) steps: Vec<Value>,
}

/// What a thread does.
#[derive(Clone, Default)]
pub(crate) struct Thread {
    /// One of "runs", "can run", "waits", "has ended".
    pub(crate) does: &'static str,
    /// What the thread waits for, in words, while it waits.
    pub(crate) wait: String,
    /// The kind of the last wait.
    pub(crate) kind: &'static str,
    /// Whether the thread has run.
    pub(crate) has_run: bool,
    /// Whether the thread was killed.
    pub(crate) killed: bool,
    /// The line of the program at which the thread was last seen.
    line: Option<u32>,
}

/// A descriptor of the epoll set.
#[derive(Clone)]
struct Descriptor {
    /// Its number.
    fd: i32,
    /// What it is called.
    name: String,
    /// The threads that wait until it can be read, and until it can be written.
    waits: [Vec<u64>; 2],
    /// What epoll has reported last.
    reported: &'static str,
}

/// All that is shown, as it is between two steps.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// The threads that have not ended, and those that have.
    pub(crate) threads: BTreeMap<u64, Thread>,
    /// The run queue, the next thread first.
    queue: Vec<u64>,
    /// The epoll set.
    set: Vec<Descriptor>,
    /// The entries of the timer wheel: thread and time.
    pub(crate) wheel: Vec<(u64, u64)>,
    /// The time to which the wheel has come.
    pub(crate) cursor: u64,
    /// What the hub does: "", "polls" or "sleeps".
    hub: &'static str,
}

/// A run that is being told.
pub(crate) struct Run<'a> {
    /// The trace.
    pub(crate) trace: &'a Trace,
    /// Its events, those of a poll in the order of cause and effect.
    events: Vec<&'a Event>,
    /// The state so far.
    pub(crate) state: State,
    /// The letters of descriptors without a name.
    letters: Vec<i32>,
    /// How the name of the file of this program ends.
    file: String,
    /// The steps so far.
    steps: Vec<Value>,
    /// The state before the first step, as the page has it.
    start: Map<String, Value>,
    /// The state after the last step.
    shown: Map<String, Value>,
    /// The lines at which threads were spawned.
    lines: BTreeMap<u64, u32>,
    /// Whether the run is one on the kernel's clock and sockets.
    pub(crate) in_life: bool,
    /// Whether any thread has an entry in the timer wheel at any time.
    has_timers: bool,
}

/// Returns what a page has of a trace.
pub(crate) fn picture(program: &Program, trace: &Trace) -> Picture {
    let mut run = Run {
        trace,
        events: in_order(trace.events(), program.in_life),
        state: State::default(),
        letters: Vec::new(),
        file: format!("programs/{}.rs", program.name),
        steps: Vec::new(),
        start: Map::new(),
        shown: Map::new(),
        lines: BTreeMap::new(),
        in_life: program.in_life,
        has_timers: trace.events().iter().any(|event| matches!(event.kind, EventKind::Timer(_))),
    };
    let mut at = run.begin();
    while at < run.events.len() {
        at = run.step(at);
    }
    let ids = run.state.threads.keys();
    let threads = ids.map(|id| json!([id, words::label(trace, *id), run.lines.get(id)])).collect();
    Picture { threads, start: run.start, steps: run.steps }
}

/// Returns the events with those of one poll in the order of cause and effect: what epoll says and how far the wheel
/// has come first, then what that wakes. The recorder notes them as they come to its hands.
fn in_order(events: &[Event], in_life: bool) -> Vec<&Event> {
    let rank = |event: &Event| match event.kind {
        EventKind::Event { .. } => Some(0),
        EventKind::Wheel(_) => Some(1),
        EventKind::TimerDropped => Some(2),
        EventKind::Timer(_) => Some(3),
        EventKind::Ready(Waker::Descriptor(_) | Waker::Timer) => Some(4),
        _ => None,
    };
    let mut ordered: Vec<&Event> = events.iter().collect();
    let mut from = 0;
    while from < ordered.len() {
        // A wait tells of its own timers; they stay behind it.
        let is_wait = matches!(ordered[from].kind, EventKind::Waits(_) | EventKind::Deadline(_));
        let end = ordered[from..].iter().position(|event| rank(event).is_none()).map_or(ordered.len(), |at| from + at);
        if !is_wait && end > from {
            // A virtual clock jumps within a poll, and what came before that came before.
            ordered[from..end].sort_by_key(|event| (if in_life { Duration::ZERO } else { event.at }, rank(event)));
            from = end;
        } else if is_wait {
            let thread = ordered[from].thread;
            from += 1;
            while ordered.get(from).is_some_and(|event| of_wait(event, thread)) {
                from += 1;
            }
        } else {
            from += 1;
        }
    }
    ordered
}

/// Reports whether an event behind a wait of `thread` tells of its deadline and its entry in the wheel.
fn of_wait(event: &Event, thread: u64) -> bool {
    match event.kind {
        EventKind::Deadline(_) | EventKind::Timer(_) => event.thread == thread,
        _ => false,
    }
}

impl Run<'_> {
    /// Takes what was there when the trace began. Returns the number of the first event behind it.
    fn begin(&mut self) -> usize {
        self.state.cursor = self.nanos(0);
        for (number, event) in self.events.clone().into_iter().enumerate() {
            match event.kind {
                EventKind::Found(_) => self.thread(event.thread).does = "waits",
                EventKind::Runs { .. } => {
                    self.thread(event.thread).does = "runs";
                    self.thread(event.thread).has_run = true;
                    self.start = self.state.values(self);
                    self.shown = self.start.clone();
                    return number + 1;
                }
                _ => {}
            }
        }
        self.events.len()
    }

    /// Returns a time of the trace on the clock of the wheel.
    fn nanos(&self, at: u64) -> u64 {
        nanos(self.trace.began()) + at
    }

    /// Returns a thread, which is new if it was not there.
    fn thread(&mut self, id: u64) -> &mut Thread {
        self.state.threads.entry(id).or_default()
    }

    /// Makes a step of the event `at` and those that belong to it. Returns the number of the next.
    fn step(&mut self, at: usize) -> usize {
        let (event, old) = (self.events[at], self.state.clone());
        let next = self.apply(at);
        let Some((text, why)) = words::sentence(self, &old, at, next) else { return next };
        // With what no sentence was told of since the last step.
        let after = self.state.values(self);
        let changed = after.iter().filter(|(key, value)| self.shown.get(*key) != Some(*value));
        let changes: Vec<Value> = changed.map(|(key, value)| json!([key, self.shown.get(key), value])).collect();
        self.shown = after;
        // Events of a poll are told in another order than that in which they were noted.
        let last = self.steps.last().and_then(|step| step["at"].as_u64()).unwrap_or(0);
        let mut step = json!({ "at": nanos(event.at).max(last), "text": text, "why": why, "d": changes });
        if let EventKind::Runs { queue } = self.events[next - 1].kind {
            // The length of the run queue as the runtime has noted it: a test compares.
            step["others"] = json!(queue);
        }
        self.steps.push(step);
        next
    }

    /// Changes the state by the event `at`, and by those behind it that belong to it. Returns the number of the next.
    fn apply(&mut self, at: usize) -> usize {
        let (event, id) = (self.events[at], self.events[at].thread);
        let mut next = at + 1;
        match &event.kind {
            EventKind::Spawned(place) => {
                self.thread(id).does = "is new";
                if place.file().ends_with(&self.file) {
                    self.lines.insert(id, place.line());
                    self.thread(id).line = Some(place.line());
                }
                return self.apply(next);
            }
            EventKind::Ready(by) => next = self.ready(at, *by),
            EventKind::Runs { .. } => self.runs(id),
            EventKind::Yields => {
                self.thread(id).does = "can run";
                self.state.queue.push(id);
            }
            EventKind::Waits(_) => next = self.waits(at),
            EventKind::Ended => {
                self.thread(id).does = "has ended";
                self.state.wheel.retain(|entry| entry.0 != id);
            }
            EventKind::Killed { .. } => self.thread(id).killed = true,
            EventKind::PollBegins { idle } => self.state.hub = if *idle { "sleeps" } else { "polls" },
            EventKind::PollEnds => self.state.hub = "",
            EventKind::Timer(due) => self.entry(id, nanos(*due)),
            EventKind::TimerDropped => self.state.wheel.retain(|entry| entry.0 != id),
            EventKind::Wheel(to) => self.state.cursor = self.nanos(nanos(*to)),
            EventKind::Registered(fd) => {
                let name = self.name_of(at, *fd);
                self.state.set.push(Descriptor { fd: *fd, name, waits: Default::default(), reported: "" });
            }
            EventKind::Deregistered(fd) => self.state.set.retain(|descriptor| descriptor.fd != *fd),
            EventKind::Event { fd, readable, writable } => self.report(*fd, *readable, *writable),
            EventKind::Mark(text) => {
                if let Some((line, _)) = text.split_once(": ").filter(|_| !words::is_name(text)) {
                    self.thread(id).line = line.parse().ok();
                }
            }
            _ => {}
        }
        next
    }

    /// A thread becomes runnable; or it is switched to, and runs.
    fn ready(&mut self, at: usize, by: Waker) -> usize {
        let id = self.events[at].thread;
        if by == Waker::Timer {
            self.state.wheel.retain(|entry| entry.0 != id);
        }
        self.stop_waiting(id);
        self.thread(id).does = "can run";
        self.state.queue.push(id);
        if self.is_switch(at) { self.apply(at + 1) } else { at + 1 }
    }

    /// Reports whether a wake-up is an explicit switch: the thread runs at once.
    pub(crate) fn is_switch(&self, at: usize) -> bool {
        let is_thread = matches!(self.events[at].kind, EventKind::Ready(Waker::Thread(_)));
        let next = self.events.get(at + 1);
        is_thread && next.is_some_and(|next| next.thread == self.events[at].thread && is_run(next))
    }

    /// A thread gets the CPU.
    fn runs(&mut self, id: u64) {
        self.state.queue.retain(|other| *other != id);
        self.state.hub = "";
        self.stop_waiting(id);
        self.thread(id).does = "runs";
        self.thread(id).has_run = true;
    }

    /// A thread waits, with a deadline perhaps.
    fn waits(&mut self, at: usize) -> usize {
        let event = self.events[at];
        let (id, EventKind::Waits(wait)) = (event.thread, &event.kind) else { return at + 1 };
        let mut next = at + 1;
        // The wheel may be told of in between, once.
        if let Some(Event { kind: EventKind::Wheel(to), .. }) = self.events.get(next)
            && self.events.get(next + 1).is_some_and(|event| of_wait(event, id))
        {
            self.state.cursor = self.nanos(nanos(*to));
            next += 1;
        }
        while let Some(event) = self.events.get(next).filter(|event| of_wait(event, id)) {
            if let EventKind::Timer(due) = event.kind {
                self.entry(id, nanos(due));
            }
            next += 1;
        }
        let text = self.with_names(at, &wait.text);
        let (kind, direction) = (wait.kind(), usize::from(!wait.text.contains("read")));
        let thread = self.thread(id);
        (thread.does, thread.wait, thread.kind) = ("waits", text, kind);
        if let Some(fd) = words::descriptor(&wait.text)
            && let Some(descriptor) = self.state.set.iter_mut().find(|descriptor| descriptor.fd == fd)
        {
            descriptor.waits[direction].push(id);
        }
        next
    }

    /// Takes a thread from the lists of descriptors.
    fn stop_waiting(&mut self, id: u64) {
        let lists = self.state.set.iter_mut().flat_map(|descriptor| &mut descriptor.waits);
        lists.for_each(|waits| waits.retain(|other| *other != id));
        self.thread(id).wait.clear();
    }

    /// Sets the entry of a thread in the wheel.
    fn entry(&mut self, id: u64, due: u64) {
        let due = self.nanos(due);
        self.state.wheel.retain(|entry| entry.0 != id);
        let at = self.state.wheel.partition_point(|entry| entry.1 <= due);
        self.state.wheel.insert(at, (id, due));
    }

    /// Takes a report of epoll.
    fn report(&mut self, fd: i32, readable: bool, writable: bool) {
        let reported = words::readiness(readable, writable);
        if let Some(descriptor) = self.state.set.iter_mut().find(|descriptor| descriptor.fd == fd) {
            descriptor.reported = reported;
        }
    }

    /// Returns an event.
    pub(crate) fn event(&self, at: usize) -> &Event {
        self.events[at]
    }

    /// Returns a text with the names of the descriptor and the thread in it in place of their numbers.
    pub(crate) fn with_names(&mut self, at: usize, text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(fd) = words::descriptor(&text) {
            text = text.replacen(&format!("descriptor {fd}"), &self.name_of(at, fd), 1);
        }
        let ids: BTreeSet<u64> = self.events.iter().map(|event| event.thread).filter(|id| *id > 1).collect();
        // The highest first: the label of 12 begins as that of 1.
        for id in ids.into_iter().rev() {
            let of_hub = self.trace.label(self.events[at].hub, id);
            text = text.replacen(&of_hub, &words::label(self.trace, id), 1);
        }
        text
    }

    /// Returns what a descriptor is called at the event `at`: as a mark says that comes before its close, or came since
    /// the close of the one that had its number before.
    pub(crate) fn name_of(&mut self, at: usize, fd: i32) -> String {
        let prefix = format!("{NAMES}{fd}: ");
        let name = |event: &&Event| match &event.kind {
            EventKind::Mark(text) => text.strip_prefix(&prefix).map(str::to_owned),
            _ => None,
        };
        let is_close = |event: &&Event| matches!(event.kind, EventKind::Deregistered(closed) if closed == fd);
        let later =
            self.events[at..].iter().copied().take_while(|event| !is_close(event)).find_map(|event| name(&event));
        let sooner =
            || self.events[..at].iter().rev().copied().take_while(|event| !is_close(event)).find_map(|e| name(&e));
        if let Some(name) = later.or_else(sooner) {
            return name;
        }
        let place = self.letters.iter().position(|known| *known == fd).unwrap_or_else(|| {
            self.letters.push(fd);
            self.letters.len() - 1
        });
        format!("descriptor {}", char::from(b'A' + u8::try_from(place % 26).unwrap_or(0)))
    }
}

impl State {
    /// Returns the state as the page has it: a value for each thing that may change.
    fn values(&self, run: &Run<'_>) -> Map<String, Value> {
        let mut values = Map::new();
        for (id, thread) in &self.threads {
            let value = json!([thread.does, thread.wait, thread.killed, thread.line]);
            values.insert(format!("thread {id}"), value);
        }
        values.insert("queue".to_owned(), json!(self.queue));
        values.insert("hub".to_owned(), json!(self.hub));
        // The slots of a wheel without entries say nothing.
        if run.has_timers {
            let began = run.nanos(0);
            let wheel = self.wheel.iter().map(|(id, due)| {
                let (level, slot) = place(self.cursor, *due);
                json!([id, due - began, level, slot])
            });
            let cursor: Vec<u64> = (0..LEVELS).map(|level| digit(self.cursor, level)).collect();
            values.insert(
                "wheel".to_owned(),
                json!([self.cursor.saturating_sub(began), cursor, wheel.collect::<Vec<_>>()]),
            );
        }
        let set = self.set.iter().map(|descriptor| json!([descriptor.name, descriptor.waits, descriptor.reported]));
        values.insert("set".to_owned(), set.collect());
        values
    }
}

/// Returns the level and the slot of an entry, as chapter 8 has it: those of the most significant digit in which its
/// tick differs from the cursor's.
pub(crate) fn place(cursor: u64, due: u64) -> (u32, u64) {
    let (cursor, tick) = (cursor >> TICK_BITS, (due >> TICK_BITS).max(cursor >> TICK_BITS));
    let level = ((tick ^ cursor) | 1).ilog2() / LEVEL_BITS;
    (level, digit(tick << TICK_BITS, level))
}

/// Returns the digit of a time on a level.
fn digit(at: u64, level: u32) -> u64 {
    (at >> (TICK_BITS + level * LEVEL_BITS)) % (1 << LEVEL_BITS)
}

/// Reports whether an event is a turn.
fn is_run(event: &Event) -> bool {
    matches!(event.kind, EventKind::Runs { .. })
}

/// Returns a time as nanoseconds.
pub(crate) fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}
