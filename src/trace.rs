//! Traces: what the green threads of a hub did, event by event.
//!
//! A trace says when each thread was spawned, ran, let others run, waited and for what, was woken and by which thread,
//! was killed, and ended; and when the hub polled, what was in its timer wheel, and which descriptors in its epoll set;
//! `docs/pictures` plays such traces. In a simulation the times are those of the virtual clock. The events go into a
//! ring of fixed size: a trace may be on for hours, and then has the latest events, and the number of those that it has
//! lost. While no trace is on, switches, yields, waits, wake-ups and spawns execute not one instruction for it. While
//! one is on, an event costs some 10 ns, and each turn a few more, since the short cuts between threads are not taken.
//!
//! ```
//! use greenling::{spawn, trace, yield_now};
//!
//! trace::start(trace::Options::new())?;
//! let worker = spawn(|| {
//!     trace::mark("half way");
//!     yield_now();
//! });
//! worker.join().unwrap();
//! let trace = trace::stop()?;
//! println!("{trace}");
//! let mut json = Vec::new();
//! trace.write_chrome(&mut json)?; // for https://ui.perfetto.dev
//! let mut page = Vec::new();
//! trace.write_html(&mut page)?; // for a browser, without network
//! # std::io::Result::Ok(())
//! ```
//!
//! A trace is that of one hub, the caller's. A program with several hubs starts and stops a trace in each, and
//! [merges](Trace::merge) them.
//!
//! # Without a change of code
//!
//! `GREENLING_TRACE=file.html program` traces the first hub of the program from its first moment, and writes the page
//! when the hub's OS thread ends; `file.json` writes the file for viewers. If the file cannot be written, one line on
//! standard error says so. The end of the process by a signal or `_exit` writes nothing; and a program that only
//! switches explicitly has no hub.

#![forbid(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::rc::Rc;

pub use crate::runtime::trace::data::Trace;
pub use crate::runtime::trace::event::{Event, EventKind, Wait, Waker};
pub use crate::runtime::trace::why::WaitSpan;

use crate::pure::event_ring::TextAt;
use crate::runtime::trace::session::{self, EVENTS, TEXT};
use crate::switch::recorder::TextKind;
use crate::switch::root::{existing_root, try_root};
use crate::sys::ticks::Moment;

/// The sizes of a trace.
///
/// May switch: no function of this does.
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `start`"]
pub struct Options {
    /// The number of events.
    events: usize,
    /// The bytes of text.
    text: usize,
}

impl Options {
    /// Returns the sizes that fit most programs: 65,536 events, which are 2 MiB, and 64 KiB of text.
    ///
    /// May switch: no.
    pub fn new() -> Options {
        Options { events: EVENTS, text: TEXT }
    }

    /// Sets how many events the trace keeps, 32 bytes each: the next power of two.
    ///
    /// May switch: no.
    pub fn events(self, events: usize) -> Options {
        Options { events, ..self }
    }

    /// Sets how many bytes of text the trace keeps, for names, marks and spans: the next power of two. Of each text the
    /// first 256 bytes are kept.
    ///
    /// May switch: no.
    pub fn text_bytes(self, bytes: usize) -> Options {
        Options { text: bytes, ..self }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

/// Starts a trace of the hub of this OS thread: of all its green threads, greenlets, and main.
///
/// # Errors
/// `AlreadyExists` if a trace of this hub is on, `InvalidInput` for a trace of no events, `OutOfMemory`; and when the
/// OS thread is ending, or in the child of a fork.
///
/// May switch: no.
pub fn start(options: Options) -> io::Result<()> {
    session::start(try_root(), options.events, options.text)
}

/// Ends the trace of the hub of this OS thread, and returns what it has. The threads go on as fast as without.
///
/// # Errors
/// `NotFound` if no trace of this hub is on.
///
/// May switch: no.
pub fn stop() -> io::Result<Trace> {
    session::stop(try_root())
}

/// Reports whether a trace of the hub of this OS thread is on.
///
/// May switch: no.
pub fn is_on() -> bool {
    existing_root().is_some_and(|root| root.is_recording())
}

/// Notes that the calling thread has come to this point, in words of the program. Does nothing while no trace is on.
///
/// May switch: no.
#[inline]
pub fn mark(text: &str) {
    if let Some(root) = existing_root()
        && root.is_recording()
    {
        root.note_text(TextKind::Mark, text);
    }
}

/// Notes that the calling thread does, from now on and until the result is dropped, what `text` says: a request, a
/// query. The thread may wait meanwhile. Does nothing while no trace is on.
///
/// ```
/// let _span = greenling::trace::span("load the table");
/// ```
///
/// May switch: no.
#[inline]
pub fn span(text: &str) -> Span {
    let root = existing_root().filter(|root| root.is_recording());
    Span { begun: root.and_then(|root| root.note_text(TextKind::Begin, text)), not_send: PhantomData }
}

/// A span of a trace, which ends when this is dropped; see [`span`].
#[derive(Debug)]
#[must_use = "the span ends when this is dropped"]
pub struct Span {
    /// The trace that has the begin, and where it has the text.
    begun: Option<(Moment, TextAt)>,
    /// A span belongs to the hub in which it has begun.
    not_send: PhantomData<Rc<()>>,
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let (Some(begun), Some(root)) = (self.begun, existing_root()) {
            root.note_span_end(begun);
        }
    }
}
