//! A trace as a page: one HTML file that needs no network.
//!
//! The page is `trace/page.html`, written by hand; its first comment says what the data are. Here the data are written
//! into it, as JSON.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write as _};
use std::io::{self, Write};

use super::data::Trace;
use super::event::{EventKind, Waker};
use super::json::Json;
use super::slices::{Doing, Slice, Thread, ns, slices};

/// The page, with a mark where the data belong.
const PAGE: &str = include_str!("../../trace/page.html");

/// The mark for the data.
const DATA: &str = "@DATA@";

/// The numbers of what needs no text: runs, is runnable, the hub sleeps, polls. Waits follow.
const FIXED: usize = 4;

impl Trace {
    /// Writes the trace as one HTML page, for any browser, without network: a lane for each green thread with its turns
    /// and waits, arrows for wake-ups, the length of the run queue, and what a click tells of a slice: what the thread
    /// waited for, for how long, and what woke it.
    ///
    /// # Errors
    /// Those of `out`.
    ///
    /// May switch: if writing to `out` does.
    pub fn write_html(&self, out: &mut impl Write) -> io::Result<()> {
        let Some((head, tail)) = PAGE.split_once(DATA) else { unreachable!("the page has a mark for the data") };
        out.write_all(head.as_bytes())?;
        Page::new(self).write(out)?;
        out.write_all(tail.as_bytes())
    }
}

/// What a page has of a trace.
struct Page<'a> {
    /// The trace of which this is the page.
    trace: &'a Trace,
    /// The slices of each thread.
    slices: BTreeMap<Thread, Vec<Slice<'a>>>,
    /// The number of the lane of each thread.
    lanes: HashMap<Thread, usize>,
    /// Marks of each thread: time, number of the text.
    marks: HashMap<Thread, Vec<(u64, usize)>>,
    /// Spans of each thread: begin, length, number of the text.
    spans: HashMap<Thread, Vec<(u64, u64, usize)>>,
    /// The places at which threads were spawned.
    places: HashMap<Thread, String>,
    /// The texts of marks and spans.
    texts: Texts<&'a str>,
    /// The number of runnable threads of all hubs, where it changes.
    queue: Vec<(u64, u64)>,
}

/// Texts, each of which has one number.
struct Texts<T> {
    /// The numbers of the texts.
    numbers: HashMap<T, usize>,
    /// The texts in the order of their numbers.
    list: Vec<T>,
}

impl<T: Copy + Eq + std::hash::Hash> Texts<T> {
    /// Makes a list without texts.
    fn new() -> Texts<T> {
        Texts { numbers: HashMap::new(), list: Vec::new() }
    }

    /// Returns the number of a text, which is added if it is new.
    fn number(&mut self, text: T) -> usize {
        *self.numbers.entry(text).or_insert_with(|| {
            self.list.push(text);
            self.list.len() - 1
        })
    }
}

impl<'a> Page<'a> {
    /// Sorts the events of a trace by threads.
    fn new(trace: &'a Trace) -> Page<'a> {
        let slices = slices(trace);
        let lanes = slices.keys().enumerate().map(|(number, thread)| (*thread, number)).collect();
        let mut page = Page {
            trace,
            slices,
            lanes,
            marks: HashMap::new(),
            spans: HashMap::new(),
            places: HashMap::new(),
            texts: Texts::new(),
            queue: Vec::new(),
        };
        page.sort_events();
        page
    }

    /// Takes from the events what is in no slice.
    fn sort_events(&mut self) {
        let mut open: HashMap<(u64, u64), (Thread, u64, usize)> = HashMap::new();
        let (mut queues, mut total): (HashMap<u64, u64>, u64) = (HashMap::new(), 0);
        for event in &self.trace.events {
            let (thread, at) = ((event.hub, event.thread), ns(event.at));
            match &event.kind {
                EventKind::Spawned(place) | EventKind::Found(place) if event.thread > 1 => {
                    self.places.insert(thread, place.to_string());
                }
                EventKind::Mark(text) => {
                    let text = self.texts.number(text);
                    self.marks.entry(thread).or_default().push((at, text));
                }
                EventKind::SpanBegins { text, span } => {
                    open.insert((event.hub, *span), (thread, at, self.texts.number(text)));
                }
                EventKind::SpanEnds { span, .. } => {
                    // The begin may have been overwritten.
                    if let Some((thread, from, text)) = open.remove(&(event.hub, *span)) {
                        self.spans.entry(thread).or_default().push((from, at - from, text));
                    }
                }
                EventKind::Runs { queue } => {
                    // The sum of all hubs, of which one has changed.
                    let queue = u64::from(*queue);
                    total = total + queue - queues.insert(event.hub, queue).unwrap_or(0);
                    if self.queue.last().is_none_or(|last| last.1 != total) {
                        self.queue.push((at, total));
                    }
                }
                _ => {}
            }
        }
        let end = ns(self.trace.duration());
        for (thread, from, text) in open.into_values() {
            self.spans.entry(thread).or_default().push((from, end.saturating_sub(from), text));
        }
        self.spans.values_mut().for_each(|spans| spans.sort_unstable());
    }

    /// Writes the data as JSON.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let trace = self.trace;
        let hubs: BTreeSet<u64> = self.slices.keys().map(|thread| thread.0).collect();
        let longest = self.queue.iter().map(|change| change.1).max().unwrap_or(0);
        let summary = format!("{} threads, {trace}", self.slices.keys().filter(|thread| thread.1 != 0).count());
        write!(
            out,
            "{{\"summary\":{},\"length\":{},\"hubs\":{},\"longest\":{longest},\"texts\":{},\"queue\":{},\n\"lanes\":[",
            Json(&summary),
            ns(trace.duration()),
            hubs.len(),
            list(&self.texts.list, |f, text| write!(f, "{}", Json(text))),
            list(&self.queue, |f, change| write!(f, "{},{}", change.0, change.1)),
        )?;
        let mut waits = Texts::new();
        for (number, (thread, slices)) in self.slices.iter().enumerate() {
            self.write_lane(out, number, *thread, slices, &mut waits)?;
        }
        let waits = list(&waits.list, |f, (kind, text)| write!(f, "[{},{}]", Json(kind), Json(text)));
        write!(out, "],\n\"waits\":{waits}}}")
    }

    /// Writes the lane of one thread.
    fn write_lane(
        &self,
        out: &mut impl Write,
        number: usize,
        thread: Thread,
        slices: &[Slice<'a>],
        waits: &mut Texts<(&'a str, &'a str)>,
    ) -> io::Result<()> {
        let label = if thread.1 == 0 { String::from("hub") } else { self.trace.label(thread.0, thread.1) };
        let mut numbers = Vec::with_capacity(slices.len());
        for slice in slices {
            let what = match slice.doing {
                Doing::Runs => 0,
                Doing::Runnable => 1,
                Doing::Polls(true) => 2,
                Doing::Polls(false) => 3,
                Doing::Waits(wait) => FIXED + waits.number((wait.kind(), wait.text.as_str())),
            };
            numbers.push((slice.from, slice.to - slice.from, what, self.waker(thread.0, slice.woken_by)));
        }
        write!(
            out,
            "{}\n{{\"hub\":{},\"id\":{},\"label\":{},\"place\":{},\"slices\":{},\"marks\":{},\"spans\":{}}}",
            if number == 0 { "" } else { "," },
            thread.0,
            thread.1,
            Json(&label),
            Json(self.places.get(&thread).map_or("", String::as_str)),
            list(&numbers, |f, (from, len, what, waker)| write!(f, "{from},{len},{what},{waker}")),
            list(self.marks.get(&thread).map_or(&[], Vec::as_slice), |f, (at, text)| write!(f, "{at},{text}")),
            list(self.spans.get(&thread).map_or(&[], Vec::as_slice), |f, (from, len, text)| write!(
                f,
                "{from},{len},{text}"
            )),
        )
    }

    /// Returns the number that stands for what woke a thread of `hub`: a lane, or below 0 what has none.
    fn waker(&self, hub: u64, by: Option<Waker>) -> i64 {
        match by {
            None => -1,
            Some(Waker::Timer) => -2,
            Some(Waker::Remote) => -3,
            Some(Waker::Descriptor(None)) => -4,
            Some(Waker::Descriptor(Some(fd))) => -100 - i64::from(fd),
            // No bits are lost: a lane takes memory. Of a thread without a lane all events were overwritten.
            Some(Waker::Thread(id)) => self.lanes.get(&(hub, id)).map_or(-5, |lane| *lane as i64),
        }
    }
}

/// A list in JSON, of which the function writes the elements.
struct List<'a, T, F>(&'a [T], F);

/// Makes a list in JSON.
fn list<T, F>(elements: &[T], write: F) -> List<'_, T, F>
where
    F: Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
{
    List(elements, write)
}

impl<T, F: Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result> fmt::Display for List<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (number, element) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_char(',')?;
            }
            (self.1)(f, element)?;
        }
        f.write_char(']')
    }
}
