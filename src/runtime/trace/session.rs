//! Start and stop of a trace, the events that its records are, and the trace of a whole run that the environment asks
//! for.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::data::Trace;
use super::event::{Event, EventKind, Wait, Waker};
use crate::runtime::report::wait_reason;
use crate::runtime::thread_info::{ThreadKind, ThreadRef, WaitWords};
use crate::switch::fiber::{Fiber, Holder, Reason};
use crate::switch::recorder::{Cause, Recorder, Source, TextKind, What};
use crate::switch::root::{MAIN_ID, Root};
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::ticks::to_ns;

/// The environment variable that names the file for a trace of the first hub.
const VARIABLE: &str = "GREENLING_TRACE";

/// The records of a trace without an [`Options`](crate::trace::Options), and of one that the environment asks for.
pub(crate) const EVENTS: usize = 1 << 16;

/// The bytes of text of such a trace.
pub(crate) const TEXT: usize = 1 << 16;

/// Returns the error of a trace on an OS thread that ends.
fn ending() -> io::Error {
    io::Error::other("greenling: this OS thread is ending, and nothing is left to trace")
}

/// Starts a trace of the hub of `root`; `None` on an OS thread that ends.
///
/// # Errors
/// `AlreadyExists` if a trace is on; `InvalidInput` for no events; `OutOfMemory`.
pub(crate) fn start(root: Option<&Root>, events: usize, text: usize) -> io::Result<()> {
    let root = root.ok_or_else(ending)?;
    if events == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a trace of no events"));
    }
    if root.is_recording() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a trace of this hub is on already"));
    }
    let recorder = Recorder::new(events, text)
        .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, format!("no memory for the trace: {error}")))?;
    root.start_recording(Box::new(recorder)).map_err(|_| io::Error::other("no trace in the child of a fork"))
}

/// Ends the trace of the hub of `root`, and returns what it has.
///
/// # Errors
/// `NotFound` if no trace is on.
pub(crate) fn stop(root: Option<&Root>) -> io::Result<Trace> {
    let root = root.ok_or_else(ending)?;
    let recorder = root.stop_recording();
    let recorder = recorder.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no trace of this hub is on"))?;
    Ok(decode(root, &recorder))
}

/// Makes events of records.
fn decode(root: &Root, recorder: &Recorder) -> Trace {
    let (began, ended, hub) = (recorder.began, recorder.ticker.moment(), root.number());
    let text = |len, from| recorder.text(len, from).unwrap_or_else(|| String::from("(overwritten)"));
    let since = |at: u64| Duration::from_nanos(at.saturating_sub(began.1));
    let names = names(root, recorder);
    let mut waits = Waits { hub, names: &names, known: HashMap::new() };
    let mut events = Vec::with_capacity(recorder.records().count());
    for record in recorder.records() {
        let kind = match record.what {
            What::Spawn(at) => EventKind::Spawned(at),
            What::Found(at) => EventKind::Found(at),
            What::Ready(cause, number) => EventKind::Ready(match cause {
                Cause::Thread => Waker::Thread(number),
                // No bits are lost: the number was an `i32`.
                Cause::Descriptor => Waker::Descriptor(Some(number as i32)),
                Cause::Several => Waker::Descriptor(None),
                Cause::Timer => Waker::Timer,
                Cause::Remote => Waker::Remote,
            }),
            What::Run(queue) => EventKind::Runs { queue },
            What::Yield => EventKind::Yields,
            What::Park(shape, word, number) => EventKind::Waits(waits.wait(recorder.unpack(shape, word, number))),
            What::End => EventKind::Ended,
            What::Kill(by) => EventKind::Killed { by: (by != 0).then_some(by) },
            What::Poll(idle) => EventKind::PollBegins { idle },
            What::Polled => EventKind::PollEnds,
            What::Deadline(at) => EventKind::Deadline(since(at)),
            What::Timer(at) => EventKind::Timer(since(at)),
            What::NoTimer => EventKind::TimerDropped,
            What::Wheel(at) => EventKind::Wheel(since(at)),
            What::Registered(fd) => EventKind::Registered(fd),
            What::Deregistered(fd) => EventKind::Deregistered(fd),
            What::Event(fd, readable, writable) => EventKind::Event { fd, readable, writable },
            What::Text(TextKind::Name, ..) => continue,
            What::Text(TextKind::Mark, len, from) => EventKind::Mark(text(len, from).into()),
            What::Text(TextKind::Begin, len, span) => EventKind::SpanBegins { text: text(len, span).into(), span },
            What::Text(TextKind::End, len, span) => EventKind::SpanEnds { text: text(len, span).into(), span },
        };
        let at = Duration::from_nanos(to_ns(record.ticks, began, ended) - began.1);
        events.push(Event { at, hub, thread: record.thread, kind });
    }
    Trace::new(events, (began.1, ended.1), recorder.lost(), names)
}

/// Returns the names of threads: those that live, and those that were noted.
fn names(root: &Root, recorder: &Recorder) -> BTreeMap<(u64, u64), String> {
    let mut names = BTreeMap::new();
    for record in recorder.records() {
        if let What::Text(TextKind::Name, len, from) = record.what
            && let Some(name) = recorder.text(len, from)
        {
            names.insert((root.number(), record.thread), name);
        }
    }
    let mut name_of = |fiber: Fiber| {
        if let Some(name) = fiber.name() {
            names.insert((root.number(), fiber.id.get()), name.to_string());
        }
    };
    name_of(root.main());
    root.for_each_fiber(name_of);
    names
}

/// The waits of a trace: threads that wait for the same share one.
struct Waits<'a> {
    /// The number of the hub.
    hub: u64,
    /// The names of the threads.
    names: &'a BTreeMap<(u64, u64), String>,
    /// The waits so far, by the debug form of their reason, which has all parts of it.
    known: HashMap<String, Arc<Wait>>,
}

impl Waits<'_> {
    /// Returns what a thread waits for, as data and in words.
    fn wait(&mut self, reason: Reason) -> Arc<Wait> {
        let (hub, names) = (self.hub, self.names);
        let make = || {
            // What a descriptor was is not known any more.
            let (reason, awaits) = wait_reason(reason, hub, |_| None, |holder| thread_ref(holder, hub, names));
            let text = WaitWords(&reason, awaits.as_ref()).to_string();
            Arc::new(Wait { reason, awaits, text })
        };
        Arc::clone(self.known.entry(format!("{reason:?}")).or_insert_with(make))
    }
}

/// Returns a thread that another one of the hub `hub` waits for, which may have ended since; none for no thread.
fn thread_ref(holder: Holder, hub: u64, names: &BTreeMap<(u64, u64), String>) -> Option<ThreadRef> {
    let mut thread = ThreadRef::unknown(holder.root, holder.id, holder.root != hub);
    thread.name = names.get(&(holder.root, holder.id)).map(|name| Arc::from(name.as_str()));
    // It lived when the event happened. Whether it was a greenlet is not known.
    thread.kind = Some(if holder.id == MAIN_ID { ThreadKind::Main } else { ThreadKind::GreenThread });
    (holder != Holder::UNKNOWN).then_some(thread)
}

/// A guard of the time in which the hub does what other OS threads ask for, so that wake-ups are noted as theirs.
pub(in crate::runtime) struct FromRemote<'a>(&'a Root);

impl Drop for FromRemote<'_> {
    fn drop(&mut self) {
        if self.0.is_recording() {
            self.0.note_source(Source::Poll);
        }
    }
}

/// Begins such a time, inside a poll.
pub(in crate::runtime) fn remote(root: &Root) -> FromRemote<'_> {
    if root.is_recording() {
        root.note_source(Source::Remote);
    }
    FromRemote(root)
}

/// The number of the root that is traced because of the environment; 0 for none.
static TRACED: AtomicU64 = AtomicU64::new(0);

/// Starts the trace that the environment asks for, if this is the first hub of the process.
pub(in crate::runtime) fn begin_by_environment(root: &Root) {
    static ASKED: AtomicBool = AtomicBool::new(false);
    // Relaxed: whichever hub comes first; nothing else is shared.
    if ASKED.swap(true, Ordering::Relaxed) {
        return;
    }
    let Some(file) = std::env::var_os(VARIABLE).filter(|file| !file.is_empty()) else { return };
    let result = format_of(Path::new(&file)).and_then(|_| start(Some(root), EVENTS, TEXT));
    match result {
        // Relaxed: this OS thread reads it again.
        Ok(()) => TRACED.store(root.number(), Ordering::Relaxed),
        Err(error) => complain(Path::new(&file), &error),
    }
}

/// Writes the trace that the environment asked for, at the end of the hub. The program may have stopped it; then it has
/// the trace, and no file is written.
pub(in crate::runtime) fn end_by_environment(root: &Root) {
    // Relaxed: only the OS thread that has stored its number finds it.
    if TRACED.load(Ordering::Relaxed) != root.number() {
        return;
    }
    TRACED.store(0, Ordering::Relaxed);
    let (Ok(trace), Some(file)) = (stop(Some(root)), std::env::var_os(VARIABLE)) else { return };
    // As the OS thread: there is no hub any more that could wait.
    let _own = runtime_syscall();
    if let Err(error) = write(&trace, Path::new(&file)) {
        complain(Path::new(&file), &error);
    }
}

/// The formats of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// The page for browsers.
    Html,
    /// The file for Chrome and Perfetto.
    Json,
}

/// Returns the format that the name of a file asks for.
fn format_of(file: &Path) -> io::Result<Format> {
    match file.extension().and_then(OsStr::to_str) {
        Some("html") => Ok(Format::Html),
        Some("json") => Ok(Format::Json),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the name must end in .html or .json")),
    }
}

/// Writes a trace to a file.
fn write(trace: &Trace, file: &Path) -> io::Result<()> {
    let format = format_of(file)?;
    let mut out = BufWriter::new(File::create(file)?);
    match format {
        Format::Html => trace.write_html(&mut out)?,
        Format::Json => trace.write_chrome(&mut out)?,
    }
    out.flush()
}

/// Says on standard error that there will be no trace in the file.
fn complain(file: &Path, error: &io::Error) {
    // A standard error that is closed must not make a panic of this.
    let _ = writeln!(io::stderr(), "greenling: no trace is written to {VARIABLE}={}: {error}", file.display());
}
