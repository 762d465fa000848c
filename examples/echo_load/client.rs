//! One connection: a green thread that connects, sends, compares what comes back, and stays until all may leave.
//!
//! ```text
//!              window          start                        over            leave
//!   spawned ----|---> connect ---|---> send, compare, send ---|---> wait ----|---> close
//!                     and the first echo                      |
//!                                      silent: nothing -------+---> the last echo
//! ```
//!
//! Its stack is one page while it waits: what it sends is a piece of a pattern that all share, and what comes back is
//! compared where `read_with` lends it.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::net::TcpStream;
use greenling::thread;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::Run;

/// What is larger is sent by a green thread of its own: a server that sends back before it has read all must not find
/// a client that reads nothing. What is smaller fits into what the kernel buffers for any connection.
const SENT_AT_ONCE: usize = 16 * 1024;

/// How far the places lie apart at which messages are cut out of the pattern, at most.
pub(crate) const SPREAD: usize = 4096;

/// In how many steps a connection notes what it has not sent, at most.
const MOST_STEPS: u64 = 1000;

/// What goes wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection could not be made for another reason, or not in time.
    NotConnected,
    /// The server, or somebody on the way, reset it.
    Reset,
    /// The server closed it before all answers were in.
    Closed,
    /// No answer came for as long as the patience lasts.
    NoAnswer,
    /// Other bytes came back than were sent.
    WrongBytes,
    /// Anything else.
    Other,
}

impl Failure {
    pub(crate) const ALL: [Failure; 7] = [
        Failure::Refused,
        Failure::NotConnected,
        Failure::Reset,
        Failure::Closed,
        Failure::NoAnswer,
        Failure::WrongBytes,
        Failure::Other,
    ];

    /// As it is called in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::NotConnected => "not_connected",
            Failure::Reset => "reset",
            Failure::Closed => "closed",
            Failure::NoAnswer => "no_answer",
            Failure::WrongBytes => "wrong_bytes",
            Failure::Other => "other",
        }
    }

    /// What an error on a connection means.
    fn of(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::NoAnswer,
            _ => Failure::Other,
        }
    }
}

/// A failure, and the kernel's words if it has any.
type Failed = (Failure, Option<io::Error>);

fn failed(error: io::Error) -> Failed {
    (Failure::of(&error), Some(error))
}

/// A connection in use.
struct Client {
    run: Rc<Run>,
    index: usize,
    stream: TcpStream,
    /// Where the next messages are cut out of the pattern.
    place: Cell<usize>,
}

/// A whole life. The first `connections` of all send, the others are silent.
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

/// Connects and gets one echo, so that the server has accepted and knows the connection. Waits until it is one of those
/// that may.
fn connect(run: &Rc<Run>, index: usize) -> Result<Client, Failed> {
    let left = run.connect_until.saturating_duration_since(Instant::now());
    let Some(_permit) = run.window.acquire_timeout(left) else {
        return Err((Failure::NotConnected, None));
    };
    if run.missing.get() >= run.options.in_flight {
        // A server that has let down so many serves nobody any more, and each would wait as long as its patience lasts.
        return Err((Failure::NotConnected, None));
    }
    let lost = |error: io::Error| match Failure::of(&error) {
        Failure::Other | Failure::NoAnswer => (Failure::NotConnected, Some(error)),
        failure => (failure, Some(error)),
    };
    let stream = begin_to_connect(run, index).map_err(lost)?;
    let patience = Some(run.options.patience);
    stream.set_read_timeout(patience).map_err(lost)?;
    stream.set_write_timeout(patience).map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    let client = Client { run: Rc::clone(run), index, stream, place: Cell::new(index * 61 % SPREAD) };
    client.exchange(1, |_| {}).map_err(|(failure, error)| match failure {
        Failure::Other => (Failure::NotConnected, error),
        failure => (failure, error),
    })?;
    Ok(client)
}

/// A socket on its way to the server. The first write waits until it has got there, or says why it has not.
fn begin_to_connect(run: &Run, index: usize) -> io::Result<TcpStream> {
    let addr = run.options.addr;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Some(source) = run.options.source(index) {
        bind(run, &socket, source)?;
    }
    match socket.connect(&SockAddr::from(addr)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from(std::net::TcpStream::from(socket)))
}

/// Gives a socket this address and a port of it. The kernel would search for one, port by port and all addresses in each,
/// as it does not know that nobody else takes ports from this address: with thousands in use most time goes there.
fn bind(run: &Run, socket: &Socket, source: Ipv4Addr) -> io::Result<()> {
    let mut tries = run.options.ports.len();
    loop {
        let port = run.ports.borrow_mut().entry(source).or_insert_with(|| run.options.ports()).next();
        let addr = SocketAddr::from((source, port.expect("it never ends")));
        tries -= 1;
        match socket.bind(&SockAddr::from(addr)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            outcome => return outcome,
        }
    }
}

impl Client {
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

    /// Sends when it is due, until the run is over. What is late is sent at once, and what was due when the run was over
    /// and had not been sent counts with the time it has waited by then.
    fn open_loop(&self, rate: f64) -> Result<(), Failed> {
        let run = &self.run;
        let (connections, pipeline) = (run.options.connections, run.options.pipeline);
        let interval = connections as f64 * pipeline as f64 / rate;
        let first = interval * self.index as f64 / connections as f64;
        let started = run.started.get().expect("set before `start`");
        let mut turns = 0_u64;
        loop {
            // More than 500 years are never.
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
    fn exchange(&self, count: usize, done: impl FnMut(usize)) -> Result<(), Failed> {
        let length = self.run.options.size * count;
        // Another place each time: an answer to an older message, or to somebody else's, looks different.
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

    /// Waits for an echo, and compares it.
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
