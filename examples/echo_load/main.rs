//! You will see how fast an echo server answers thousands of clients, and how long the slowest of them waited: start the
//! example `echo_server` first. The clients are green threads, all on one OS thread.
//!
//! ```text
//!   main       connects all, begins, waits, ends, reports
//!   client     sends, compares what comes back, notes how long it took      as many as there are connections
//!   progress   says on a terminal how far it is
//! ```
//!
//! | file | is |
//! |---|---|
//! | `options.rs` | the command line, and what bounds a run |
//! | `client.rs` | one connection, from its first byte to its last |
//! | `../common/process.rs` | CPU time and memory of the server, from `/proc` |
//! | `report.rs` | what is printed |
//!
//! # What a latency is
//!
//! A closed loop sends when it has its answer. If the server stops for a second, each client notes one slow answer, and all
//! that it would have sent meanwhile is in no statistics: the load generator has *omitted* it, in coordination with the
//! server. An open loop (`--rate`) has a timetable in place of that. A message is due at a time that does not depend on
//! the answers, it is sent then or as soon as the one before it is back, and its latency counts from when it was due.
//! Two seconds' worth of waiting messages then are two seconds' worth of bad latencies. What was due and could not be sent
//! before the end counts, too, with the time it had waited.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::io::stdin;
use greenling::sync::{Event, Semaphore, WaitGroup};
use greenling::thread::{self, Builder, Thread};
use hdrhistogram::Histogram;

#[path = "../common/cli.rs"]
mod cli;
#[path = "../common/process.rs"]
mod process;

mod client;
mod options;
mod report;

use client::{Failure, SPREAD};
use options::{Format, Options};
use process::{Memory, cpu, memory, own_cpu};
use report::{Report, Server};

const NAME: &str = "echo_load";

/// Connecting may take so long, whatever the number of connections.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);

/// What main and the clients share. Nothing is borrowed while anybody waits.
struct Run {
    options: Options,
    /// What messages are cut out of.
    pattern: Vec<u8>,
    /// Who may connect now.
    window: Semaphore,
    /// When connecting ends at the latest.
    connect_until: Instant,
    /// The next ports of each source address.
    ports: RefCell<BTreeMap<Ipv4Addr, options::Ports>>,
    /// Connections that are still to be made.
    connecting: WaitGroup,
    /// Connections that send or are to send their last message.
    working: WaitGroup,
    /// All have connected.
    start: Event,
    /// When that was.
    started: Cell<Option<Instant>>,
    /// The warm-up is over: what is due from now on counts.
    begun: Cell<Option<Instant>>,
    /// Nobody sends any more, but for the silent ones, once.
    over: Event,
    /// When that was.
    ended: Cell<Option<Instant>>,
    /// All may close their connections.
    leave: Event,
    /// Connections that were made.
    connected: Cell<usize>,
    /// Connections that were not.
    missing: Cell<usize>,
    /// Connections that work.
    alive: Cell<usize>,
    /// Messages that came back, before and after the warm-up.
    answers: Cell<u64>,
    /// Messages that may still be sent; `u64::MAX` while they are not counted.
    budget: Cell<u64>,
    /// Messages since the warm-up whose answers will not come: their connection has failed.
    lost: Cell<u64>,
    /// Nanoseconds.
    latencies: RefCell<Histogram<u64>>,
    /// Messages that were due before the end and were not sent.
    unsent: Cell<u64>,
    /// How often each of [`Failure::ALL`] came.
    failures: RefCell<[u64; Failure::ALL.len()]>,
    /// The first failure's words.
    first_words: RefCell<Option<String>>,
    /// Waits for the end of the measurement: is woken by the last message of `--requests` and by the last connection that
    /// breaks.
    main: Thread,
}

impl Run {
    /// Takes up to `count` messages out of what may be sent: 0 when the run is over.
    #[inline]
    fn take(&self, count: usize) -> usize {
        if self.over.is_set() {
            return 0;
        }
        let budget = self.budget.get();
        if budget == u64::MAX {
            return count;
        }
        let count = budget.min(count as u64);
        self.budget.set(budget - count);
        count as usize
    }

    /// `count` messages came back that were due at `due`.
    #[inline]
    fn answered(&self, due: Instant, count: usize) {
        self.answers.set(self.answers.get() + count as u64);
        let Some(begun) = self.begun.get() else { return };
        if due < begun {
            return;
        }
        self.latencies.borrow_mut().saturating_record_n(nanoseconds(due.elapsed()), count as u64);
        if self.is_enough() {
            self.main.unpark();
        }
    }

    /// `count` messages that were taken will never be answered.
    fn missed(&self, count: usize) {
        self.lost.set(self.lost.get() + count as u64);
        if self.is_enough() {
            self.main.unpark();
        }
    }

    /// Whether all of `--requests` are back or lost.
    #[inline]
    fn is_enough(&self) -> bool {
        self.options.requests.is_some_and(|requests| self.counted() + self.lost.get() >= requests)
    }

    /// Puts back what was taken for messages that were due at `due`, if that was during the warm-up: they do not count.
    #[inline]
    fn put_back(&self, due: Instant, count: usize) {
        let budget = self.budget.get();
        if budget != u64::MAX && self.begun.get().is_some_and(|begun| due < begun) {
            self.budget.set(budget + count as u64);
        }
    }

    /// `count` messages were due at `due`, and had waited so long, unsent, when the run ended.
    fn skipped(&self, due: Instant, waited: Duration, count: u64) {
        if self.begun.get().is_some_and(|begun| due >= begun) {
            self.unsent.set(self.unsent.get() + count);
            self.latencies.borrow_mut().saturating_record_n(nanoseconds(waited), count);
        }
    }

    /// A connection that worked does not any more.
    fn lose(&self, failure: Failure, error: Option<io::Error>) {
        self.alive.set(self.alive.get() - 1);
        if self.alive.get() == 0 {
            self.main.unpark();
        }
        self.fail(failure, error);
    }

    /// Notes what went wrong.
    fn fail(&self, failure: Failure, error: Option<io::Error>) {
        self.failures.borrow_mut()[failure as usize] += 1;
        // That nothing came is said already; the kernel's words for it would mislead.
        if let Some(error) = error.filter(|_| failure != Failure::NoAnswer) {
            self.first_words.borrow_mut().get_or_insert_with(|| error.to_string());
        }
    }

    /// Messages counted so far.
    fn counted(&self) -> u64 {
        self.latencies.borrow().len()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn main() {
    let options = options::parse().unwrap_or_else(|what| cli::misused(NAME, what));
    options::make_room(&options);
    let before = of_servers(memory(&options.servers));
    let run = Rc::new(Run {
        pattern: pattern(options.size * options.pipeline + SPREAD),
        window: Semaphore::new(options.in_flight),
        connect_until: Instant::now() + CONNECT_LIMIT,
        ports: RefCell::default(),
        connecting: WaitGroup::new(),
        working: WaitGroup::new(),
        start: Event::new(),
        started: Cell::new(None),
        begun: Cell::new(None),
        over: Event::new(),
        ended: Cell::new(None),
        leave: Event::new(),
        connected: Cell::new(0),
        missing: Cell::new(0),
        alive: Cell::new(0),
        answers: Cell::new(0),
        budget: Cell::new(u64::MAX),
        lost: Cell::new(0),
        latencies: RefCell::new(Histogram::new_with_max(HOUR, 3).expect("bounds that it takes")),
        unsent: Cell::new(0),
        failures: RefCell::default(),
        first_words: RefCell::default(),
        main: thread::current(),
        options,
    });
    let progress = Progress::start(&run);
    connect_all(&run);
    if run.connected.get() == 0 {
        progress.stop();
        nobody_connected(&run);
    }
    step(&run, "connected");
    let report = drive(&run, &before);
    step(&run, "done");
    run.leave.set();
    progress.stop();
    report.print(&run);
    std::process::exit(i32::from(run.failures.borrow().iter().sum::<u64>() > 0));
}

/// The longest latency that is told from a longer one.
const HOUR: u64 = 3_600_000_000_000;

/// What `/proc` says about the servers, or the end.
fn of_servers<T>(found: Result<T, u32>) -> T {
    found.unwrap_or_else(|process| {
        cli::fail(1, NAME, format_args!("there is no process {process}, which --server-pid names"))
    })
}

/// `length` bytes that look like nothing.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A green thread for each connection; returns when each has been made, or has failed.
fn connect_all(run: &Rc<Run>) {
    let clients = run.options.clients();
    run.connecting.add(clients);
    for index in 0..clients {
        let one = Rc::clone(run);
        if let Err(error) = Builder::new().spawn(move || client::live(one, index)) {
            run.fail(Failure::NotConnected, Some(error));
            run.connecting.done();
        }
        // So that not all wait before the first connects.
        if index % 1000 == 999 {
            thread::yield_now();
        }
    }
    run.connecting.wait();
}

/// With `--step`: says that all are as far as `word`, and waits until somebody else is.
fn step(run: &Run, word: &str) {
    if run.options.step {
        cli::say(NAME, format_args!("{word} {}", run.alive.get()));
        let _ = stdin().read_line(&mut String::new());
    }
}

/// Warm-up, measurement, end. `before`: the servers before the first connection.
fn drive(run: &Run, before: &Memory) -> Report {
    let options = &run.options;
    run.working.add(run.connected.get());
    let started = Instant::now();
    run.started.set(Some(started));
    run.start.set();
    if !options.warmup.is_zero() {
        // Ends early if nobody is left.
        run.working.wait_timeout(options.warmup);
    }
    let (own_at_begin, answers_at_begin) = (own_cpu(), run.answers.get());
    let cpu_at_begin = of_servers(cpu(&options.servers));
    // Without a warm-up nobody has run yet, and what is due first counts.
    let begun = if options.warmup.is_zero() { started } else { Instant::now() };
    run.begun.set(Some(begun));
    run.lost.set(0);
    if let Some(requests) = options.requests {
        run.budget.set(requests);
    }
    let until = begun + options.duration;
    while !run.is_enough() && run.alive.get() > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        thread::park_timeout(left);
    }
    let ended = Instant::now();
    let answers = run.answers.get() - answers_at_begin;
    let cpu_at_end = cpu(&options.servers);
    let own = own_cpu() - own_at_begin;
    run.ended.set(Some(ended));
    run.over.set();
    // Each waits for its answers as long as its patience lasts; the silent ones for one more.
    run.working.wait_timeout(options.patience * 2 + Duration::from_secs(1));
    let stuck = run.working.remaining() as u64;
    if stuck > 0 {
        run.failures.borrow_mut()[Failure::NoAnswer as usize] += stuck;
        run.alive.set(run.alive.get().saturating_sub(stuck as usize));
    }
    // The connections are still there, and so is what they take.
    let server = cpu_at_end.and_then(|cpu_at_end| {
        let Memory { resident_kib, threads, .. } = memory(&options.servers)?;
        let grown_kib = resident_kib as f64 - before.resident_kib as f64;
        Ok(Server { cpu: cpu_at_end.saturating_sub(cpu_at_begin), resident_kib, grown_kib, threads })
    });
    Report { seconds: (ended - begun).as_secs_f64(), answers, own_cpu: own, server: server.ok() }
}

/// Ends the process: there is nothing to measure.
fn nobody_connected(run: &Run) -> ! {
    let addr = run.options.addr;
    if run.failures.borrow()[Failure::Refused as usize] > 0 {
        cli::fail(1, NAME, format_args!("nobody listens on {addr}; start the example echo_server first"));
    }
    let kinds = report::failures(run);
    let words = run.first_words.borrow().clone().map(|words| format!(": {words}")).unwrap_or_default();
    cli::fail(1, NAME, format_args!("no connection to {addr} got its first echo ({kinds}){words}"));
}

/// The green thread that says how it goes.
struct Progress {
    /// Tells it to end.
    stop: Rc<Event>,
    /// It, if anybody wants to know.
    speaker: Option<thread::JoinHandle<()>>,
}

impl Progress {
    fn start(run: &Rc<Run>) -> Progress {
        let stop = Rc::new(Event::new());
        let terminal = io::stderr().is_terminal();
        let speaker = (terminal || run.options.progress).then(|| {
            let (run, stop) = (Rc::clone(run), Rc::clone(&stop));
            thread::spawn(move || speak(&run, &stop, terminal))
        });
        Progress { stop, speaker }
    }

    fn stop(self) {
        self.stop.set();
        if let Some(speaker) = self.speaker {
            speaker.join().expect("it only speaks");
        }
    }
}

/// One line that changes on a terminal, one after the other elsewhere.
fn speak(run: &Run, stop: &Event, terminal: bool) {
    let pause = Duration::from_millis(if terminal { 250 } else { 1000 });
    let (mut answers, mut at) = (0, Instant::now());
    while !stop.wait_timeout(pause) {
        let rate = (run.answers.get() - answers) as f64 / at.elapsed().as_secs_f64();
        (answers, at) = (run.answers.get(), Instant::now());
        let line = report::progress(run, rate);
        let (begin, end) = if terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        // Nobody may be there to read it.
        let _ = write!(io::stderr(), "{begin}{line}{end}");
    }
    if terminal {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

// Output of `echo_load --connections 1000 --duration 3`, on a machine that had much else to do:
//
//     127.0.0.1:7007, 1000 connections, 64 bytes, closed loop
//       answers     88108 in 3.0 s, 28922/s
//       latency     p50 32.90 ms, p90 43.71 ms, p99 152.17 ms, p99.9 163.97 ms, max 312.21 ms
//       client      9.761 us CPU/answer, 28 % of a core
//       connections 1000 of 1000 alive, no errors
//
// Read next: `examples/echo_server.rs`, the other side.
