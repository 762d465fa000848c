//! The green thread of one connection: connects, sends, compares what comes back, and stays until all may leave.
//!
//! ```text
//!              window          start                        over            leave
//!   spawned ----|---> connect ---|---> send, compare, send ---|---> wait ----|---> close
//!                     and the first echo                      |
//!                                      silent: nothing -------+---> the last echo
//! ```
//!
//! The stack of a client that waits is one page: messages are pieces of a pattern that all clients share, and answers
//! are compared in the buffer that `read_with` lends.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::net::TcpStream;
use greenling::thread;

use crate::connect::connect;
use crate::failure::{Failed, Failure, failed};
use crate::run::Run;

/// Larger messages are sent by a green thread of their own: a server that answers before the end of a message must find
/// a client that reads. Smaller messages fit into the kernel's buffers of any connection.
const SENT_AT_ONCE: usize = 16 * 1024;

/// How far the places lie apart at which messages are cut out of the pattern, at most.
pub(crate) const SPREAD: usize = 4096;

/// In how many steps a connection notes what was not sent, at most.
const MOST_STEPS: u64 = 1000;

/// A connection in use.
pub(crate) struct Client {
    run: Rc<Run>,
    index: usize,
    stream: TcpStream,
    /// Where the next messages are cut out of the pattern.
    place: Cell<usize>,
}

/// Runs a client from the connection to the end. The first `connections` of all send, the others are silent.
pub(crate) fn live(run: Rc<Run>, index: usize) {
    let client = {
        let _connecting = run.connecting.done_on_drop();
        match connect(&run, index) {
            Ok(client) => client,
            Err((failure, error)) => {
                run.missing.set(run.missing.get() + 1);
                return run.fail(failure, error);
            }
        }
    };
    run.connected.set(run.connected.get() + 1);
    run.alive.set(run.alive.get() + 1);
    // All begin together.
    run.start.wait();
    let outcome = {
        let _working = run.working.done_on_drop();
        if index >= run.options.connections {
            run.over.wait();
            client.exchange(1, |_| {})
        } else {
            match run.options.rate {
                None => client.closed_loop(),
                Some(rate) => client.open_loop(rate),
            }
        }
    };
    if let Err((failure, error)) = outcome {
        return run.lose(failure, error);
    }
    run.leave.wait();
}

impl Client {
    /// Returns the client number `index`; its messages begin at a place of their own.
    pub(crate) fn new(run: Rc<Run>, index: usize, stream: TcpStream) -> Client {
        Client { run, index, stream, place: Cell::new(index * 61 % SPREAD) }
    }

    /// Sends as soon as everything is back, until the run is over.
    fn closed_loop(&self) -> Result<(), Failed> {
        loop {
            let count = self.run.take(self.run.options.pipeline);
            if count == 0 {
                return Ok(());
            }
            let begin = Instant::now();
            self.ask(begin, count)?;
        }
    }

    /// Sends each message when due, until the run is over. A late message is sent at once; a message that was due
    /// and not sent at the end of the run counts with the time waited by then.
    fn open_loop(&self, rate: f64) -> Result<(), Failed> {
        let run = &self.run;
        let (connections, pipeline) = (run.options.connections, run.options.pipeline);
        let interval = connections as f64 * pipeline as f64 / rate;
        let first = interval * self.index as f64 / connections as f64;
        let started = run.started.get().expect("set before `start`");
        let mut turns = 0_u64;
        loop {
            // A rate may be so low that a message is due after the end of time, which is never.
            let wait = Duration::try_from_secs_f64(first + interval * turns as f64).unwrap_or(Duration::MAX);
            let due = started.checked_add(wait);
            let left = due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
            if (!left.is_zero() && run.over.wait_timeout(left)) || run.over.is_set() {
                if let Some(due) = due {
                    self.skip_from(due, interval);
                }
                return Ok(());
            }
            let count = run.take(pipeline);
            let (Some(due), 1..) = (due, count) else {
                return Ok(());
            };
            run.put_back(due, count);
            self.ask(due, count)?;
            turns += 1;
        }
    }

    /// Counts what was due from `due` on, before the end, and was not sent.
    fn skip_from(&self, due: Instant, interval: f64) {
        let end = self.run.ended.get().unwrap_or(due);
        if due >= end || self.run.options.requests.is_some() {
            return;
        }
        let turns = ((end - due).as_secs_f64() / interval).ceil() as u64;
        // One by one, but in steps if there are very many.
        let steps = turns.min(MOST_STEPS);
        for step in 0..steps {
            let count = turns * (step + 1) / steps - turns * step / steps;
            let waited = (end - due).mul_f64(1.0 - step as f64 / steps as f64);
            self.run.skipped(end - waited, waited, count * self.run.options.pipeline as u64);
        }
    }

    /// Sends `count` messages that were due at `due`, waits until all have come back, and notes how long that took.
    #[inline]
    fn ask(&self, due: Instant, count: usize) -> Result<(), Failed> {
        // What has not come back when the connection fails will never come.
        let mut missing = count;
        let outcome = self.exchange(count, |done| {
            missing -= done;
            self.run.answered(due, done);
        });
        if missing > 0 {
            self.run.missed(missing);
        }
        outcome
    }

    /// Sends `count` messages and waits until all have come back; `done` gets how many more have, each time.
    #[inline]
    pub(crate) fn exchange(&self, count: usize, done: impl FnMut(usize)) -> Result<(), Failed> {
        let length = self.run.options.size * count;
        // Another place each time: an answer to an older message, or to that of another client, looks different.
        let place = (self.place.get() + 769) % SPREAD;
        self.place.set(place);
        let messages = &self.run.pattern[place..place + length];
        if length <= SENT_AT_ONCE {
            (&self.stream).write_all(messages).map_err(failed)?;
            return self.compare(messages, done);
        }
        thread::scope(|scope| {
            let sender = scope.spawn(|| (&self.stream).write_all(messages));
            let outcome = self.compare(messages, done);
            if outcome.is_err() {
                // Wakes the sender.
                self.stream.close();
            }
            let sent = sender.join().expect("it does not panic");
            outcome.and_then(|()| sent.map_err(failed))
        })
    }

    /// Waits for an echo, and compares the bytes.
    #[inline]
    fn compare(&self, mut expected: &[u8], mut done: impl FnMut(usize)) -> Result<(), Failed> {
        let size = self.run.options.size;
        while !expected.is_empty() {
            let length = self
                .stream
                .read_with(|bytes| if expected.starts_with(bytes) { Ok(bytes.len()) } else { Err(bytes.len()) })
                .map_err(failed)?
                .map_err(|_| (Failure::WrongBytes, None))?;
            if length == 0 {
                return Err((Failure::Closed, None));
            }
            // A read may end in the middle of a message: only whole ones are told.
            let before = expected.len().div_ceil(size);
            expected = &expected[length..];
            let whole = before - expected.len().div_ceil(size);
            if whole > 0 {
                done(whole);
            }
        }
        Ok(())
    }
}
