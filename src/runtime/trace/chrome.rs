//! A trace in the JSON format of Chrome, which chrome://tracing and ui.perfetto.dev open.
//!
//! A hub is a process of the viewer, a green thread is a thread of that process, and so are the hub's polls. The
//! format is called "Trace Event Format"; of its phases these are written:
//!
//! | phase | is |
//! |---|---|
//! | `X` | a slice: a thread runs, waits, or is runnable |
//! | `s`, `f` | the arrow of a wake-up, from the waker to the turn that follows |
//! | `C` | the length of the run queue |
//! | `i` | a mark, a kill |
//! | `b`, `e` | a span of the program, which may last through several slices |
//! | `M` | names |
//!
//! The viewers draw an arrow only if each of its ends lies in a slice of its thread, slices of a thread must not
//! overlap, and a span is its process's only if its number is said to be local (`id2`).
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use super::data::Trace;
use super::event::{EventKind, Waker};
use super::json::Json;
use super::slices::{Doing, Thread, ns, slices};

/// The number of the thread that has the polls: one that no green thread has, and not 0, which Perfetto takes for the
/// main thread of the process.
const POLLS: u64 = 1_000_000_000;

/// Returns the number of a thread in the file.
fn lane(thread: u64) -> u64 {
    if thread == 0 { POLLS } else { thread }
}

impl Trace {
    /// Writes the trace in the JSON format that `chrome://tracing` and <https://ui.perfetto.dev> open.
    ///
    /// Each hub is a process there and each green thread one of its threads; wake-ups are arrows, and the length of the
    /// run queue is a counter. The number of events that were lost is in `otherData`.
    ///
    /// # Errors
    /// Those of `out`.
    ///
    /// May switch: if writing to `out` does.
    pub fn write_chrome(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "{{\"otherData\":{{\"lost\":{}}},\"displayTimeUnit\":\"ns\",\"traceEvents\":[", self.lost)?;
        let mut list = List { out, first: true };
        self.write_names(&mut list)?;
        self.write_slices(&mut list)?;
        self.write_points(&mut list)?;
        list.out.write_all(b"\n]}\n")
    }

    /// Writes the names of hubs and threads.
    fn write_names(&self, list: &mut List<'_, impl Write>) -> io::Result<()> {
        let threads: BTreeSet<Thread> = self.events.iter().map(|event| (event.hub, event.thread)).collect();
        let hubs: BTreeSet<u64> = threads.iter().map(|thread| thread.0).collect();
        for hub in hubs {
            let name = format!("hub {hub}");
            list.item(format_args!(
                "\"ph\":\"M\",\"name\":\"process_name\",\"pid\":{hub},\"tid\":{POLLS},\"args\":{{\"name\":{}}}",
                Json(&name)
            ))?;
        }
        for (hub, thread) in threads {
            let name = if thread == 0 { String::from("poll") } else { self.label(hub, thread) };
            let thread = lane(thread);
            list.item(format_args!(
                "\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":{hub},\"tid\":{thread},\"args\":{{\"name\":{}}}",
                Json(&name)
            ))?;
        }
        Ok(())
    }

    /// Writes the slices, and the arrows between them.
    fn write_slices(&self, list: &mut List<'_, impl Write>) -> io::Result<()> {
        let mut arrows = 0;
        for ((hub, thread), slices) in slices(self) {
            let thread = lane(thread);
            let mut arrow: Option<(u64, u64)> = None;
            for slice in slices {
                let (name, category) = match slice.doing {
                    Doing::Runs => ("runs", "run"),
                    Doing::Waits(wait) => (&*wait.text, wait.kind()),
                    Doing::Runnable => ("runnable", "runnable"),
                    Doing::Polls(true) => ("sleeps", "poll"),
                    Doing::Polls(false) => ("polls", "poll"),
                };
                let (from, length) = (Micros(slice.from), Micros(slice.to - slice.from));
                list.item(format_args!(
                    "\"ph\":\"X\",\"name\":{},\"cat\":\"{category}\",\"pid\":{hub},\"tid\":{thread},\
                     \"ts\":{from},\"dur\":{length}",
                    Json(name)
                ))?;
                // An arrow begins at the wake-up and ends where the thread runs next, so that it has both ends or none.
                if let Some(by) = slice.woken_by {
                    let waker = if let Waker::Thread(id) = by { id } else { POLLS };
                    arrow = Some((waker, slice.from));
                }
                if slice.doing == Doing::Runs
                    && let Some((waker, at)) = arrow.take()
                {
                    arrows += 1;
                    let tail = format_args!("\"name\":\"wakes\",\"cat\":\"wake\",\"id\":{arrows},\"pid\":{hub}");
                    list.item(format_args!("\"ph\":\"s\",{tail},\"tid\":{waker},\"ts\":{}", Micros(at)))?;
                    list.item(format_args!("\"ph\":\"f\",\"bp\":\"e\",{tail},\"tid\":{thread},\"ts\":{from}"))?;
                }
            }
        }
        Ok(())
    }

    /// Writes what has no length: counters, marks, and the ends of spans.
    fn write_points(&self, list: &mut List<'_, impl Write>) -> io::Result<()> {
        let mut queues: HashMap<u64, u32> = HashMap::new();
        for event in &self.events {
            let (hub, thread, at) = (event.hub, lane(event.thread), Micros(ns(event.at)));
            let place = format_args!("\"pid\":{hub},\"tid\":{thread},\"ts\":{at}");
            match &event.kind {
                // Only changes: most turns leave the queue as long as it was.
                EventKind::Runs { queue } if queues.insert(hub, *queue) != Some(*queue) => list.item(format_args!(
                    "\"ph\":\"C\",\"name\":\"run queue\",{place},\"args\":{{\"runnable\":{queue}}}"
                ))?,
                EventKind::Mark(text) => list
                    .item(format_args!("\"ph\":\"i\",\"s\":\"t\",\"name\":{},\"cat\":\"mark\",{place}", Json(text)))?,
                EventKind::Killed { .. } => {
                    list.item(format_args!("\"ph\":\"i\",\"s\":\"t\",\"name\":\"killed\",\"cat\":\"kill\",{place}"))?
                }
                EventKind::SpanBegins { text, span } => list.item(format_args!(
                    "\"ph\":\"b\",\"name\":{},\"cat\":\"span\",\"id2\":{{\"local\":\"{span}\"}},{place}",
                    Json(text)
                ))?,
                EventKind::SpanEnds { text, span } => list.item(format_args!(
                    "\"ph\":\"e\",\"name\":{},\"cat\":\"span\",\"id2\":{{\"local\":\"{span}\"}},{place}",
                    Json(text)
                ))?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Nanoseconds that are printed as microseconds, the unit of the format, without a rounding.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// A list of objects, with commas between them.
struct List<'a, W: Write> {
    /// Where the list is written.
    out: &'a mut W,
    /// Whether nothing was written yet.
    first: bool,
}

impl<W: Write> List<'_, W> {
    /// Writes an object with these fields.
    fn item(&mut self, fields: std::fmt::Arguments<'_>) -> io::Result<()> {
        let comma = if std::mem::take(&mut self.first) { "" } else { "," };
        write!(self.out, "{comma}\n{{{fields}}}")
    }
}
