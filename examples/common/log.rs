//! The log of a server. Clients of the server never wait for the reader of the log.
//!
//! ```text
//!   client, on any hub --- say ---> queue ---> green thread `log` ---> standard output
//!                            |      10000 lines at most                waits as long as that has no room
//!                            `--> full: the line is dropped, and counted; the log says so when writing goes on
//! ```
//!
//! std's `println!` would do for a program without clients. In a server on green threads `println!` would stop all
//! clients as soon as the reader of the output stops: a pager, a terminal after Ctrl-S, a full pipe. Here only `log`
//! waits, and its wait is green ([`greenling::io::stdout`]).
//!
//! A write that fails, on a full disk for example, costs the lines that were to be written, and the log goes on with
//! the next. When there is no reader any more (EPIPE), the log ends, and the server does not.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "no example needs all of it")]

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use greenling::io::{stderr, stdout};
use greenling::thread::{Builder, JoinHandle, Thread, park};

mod page;

use page::Page;

/// Lines that wait to be written, at most.
const MOST: usize = 10_000;

/// Lines that are written at once, at most.
const BATCH: usize = 256;

/// How long [`Writer::finish`] waits for the reader.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines are left; a clone leaves them at the same place. `L` is a line, which the writer turns into text: the
/// stack that this takes is taken once.
pub(crate) struct Log<L>(Arc<Shared<L>>);

/// What all clones of a log and the writer share.
struct Shared<L> {
    /// The lines to write. The lock is held for a moment, and never over a wait.
    queue: Mutex<Queue<L>>,
    /// The green thread that writes them.
    writer: OnceLock<Thread>,
}

/// The lines that wait to be written.
struct Queue<L> {
    /// The lines, in order.
    lines: VecDeque<L>,
    /// How many were dropped after those.
    dropped: u64,
    /// Nothing more will come.
    closed: bool,
    /// The output has no reader any more.
    over: bool,
}

/// A part of a queue.
struct Batch<L> {
    /// The lines that were kept.
    lines: Vec<L>,
    /// How many were dropped after those; 0 if there are more.
    dropped: u64,
    /// Nothing more will come.
    closed: bool,
}

/// The right to end a log.
pub(crate) struct Writer<L> {
    log: Log<L>,
    thread: JoinHandle<()>,
}

/// The two outputs of a process.
#[derive(Clone, Copy)]
pub(crate) enum Output {
    /// For what a server says.
    Out,
    /// The log that complaints go to.
    Err,
}

impl<L> Clone for Log<L> {
    fn clone(&self) -> Log<L> {
        Log(Arc::clone(&self.0))
    }
}

impl<L: Display + Send + 'static> Log<L> {
    /// Starts a log and the writer, a green thread of this hub.
    ///
    /// # Errors
    /// There is no hub, or no stack for the thread.
    pub(crate) fn start(output: Output) -> io::Result<(Log<L>, Writer<L>)> {
        let queue = Queue { lines: VecDeque::new(), dropped: 0, closed: false, over: false };
        let log = Log(Arc::new(Shared { queue: Mutex::new(queue), writer: OnceLock::new() }));
        let same = log.clone();
        let thread = Builder::new().name(String::from("log")).spawn(move || match output {
            Output::Out => same.write(stdout()),
            Output::Err => same.write(stderr()),
        })?;
        log.0.writer.get_or_init(|| thread.thread().clone());
        Ok((log.clone(), Writer { log, thread }))
    }

    /// Leaves a line, which is dropped if there are too many. Never waits.
    pub(crate) fn say(&self, line: L) {
        let mut queue = self.queue();
        if queue.over {
            return;
        }
        if queue.lines.len() >= MOST {
            queue.dropped += 1;
            return;
        }
        queue.lines.push_back(line);
        let is_first = queue.lines.len() == 1;
        drop(queue);
        // Otherwise the writer is awake, with the lines before still to write.
        if is_first {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(writer) = self.0.writer.get() {
            writer.unpark();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<L>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Batch<L> {
        let mut queue = self.queue();
        let count = queue.lines.len().min(BATCH);
        let lines = queue.lines.drain(..count).collect();
        let dropped = if queue.lines.is_empty() { std::mem::take(&mut queue.dropped) } else { 0 };
        Batch { lines, dropped, closed: queue.closed && queue.lines.is_empty() }
    }

    /// Writes lines as they come, until the log is closed or the reader gone.
    fn write(&self, out: impl Write) {
        let mut page = Page::new(out);
        loop {
            let batch = self.take();
            let is_empty = batch.lines.is_empty() && batch.dropped == 0;
            if is_empty && !batch.closed {
                park();
                continue;
            }
            // A note about lines that were dropped is written now, not when the next line comes.
            let mut written = page.write(&batch.lines);
            if written.is_ok() && batch.dropped > 0 {
                page.missing += batch.dropped;
                written = page.write::<L>(&[]);
            }
            if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                let mut queue = self.queue();
                queue.over = true;
                queue.lines.clear();
                return;
            }
            if batch.closed {
                return;
            }
        }
    }
}

impl<L: Display + Send + 'static> Writer<L> {
    /// Waits until everything is written, but not for long: lines that are not read are given up.
    pub(crate) fn finish(self) {
        self.log.queue().closed = true;
        self.log.wake();
        if let Err(stuck) = self.thread.join_timeout(PATIENCE) {
            stuck.kill();
        }
    }
}
