//! You will see how fast an echo server answers thousands of clients, and how long the slowest of them waited: start
//! the example `echo_server` first. The clients are green threads, all on one OS thread.
//!
//! ```text
//!   main       connects all, begins, waits, ends, reports
//!   client     sends, compares what comes back, notes how long that took    as many as there are connections
//!   progress   says on a terminal how far the run is
//! ```
//!
//! | file | is |
//! |---|---|
//! | `options.rs` | the command line, and what bounds a run |
//! | `source.rs` | source addresses and ports |
//! | `run.rs` | what main and the clients share |
//! | `client.rs`, `connect.rs` | one connection, from the first byte to the last; how a connection is made |
//! | `failure.rs` | what goes wrong with a connection |
//! | `../common/busy.rs` | whether other programs use the processors |
//! | `../common/process.rs` | CPU time and memory of the server, from `/proc` |
//! | `report.rs`, `progress.rs`, `units.rs` | what is printed: at the end, and meanwhile |
//!
//! # What a latency is
//!
//! A closed loop sends only after the answer. If the server stops for a second, each client notes one slow answer, and
//! all that it would have sent meanwhile is in no statistics: the load generator has *omitted* it, in coordination with
//! the server. An open loop (`--rate`) has a timetable in place of that. A message is due at a time that does not
//! depend on the answers, it is sent then or as soon as the one before it is back, and its latency counts from when it
//! was due. Two seconds' worth of waiting messages then are two seconds' worth of bad latencies. What was due and could
//! not be sent before the end counts, too, with the time it had waited.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::io::stdin;
use greenling::thread::{self, Builder};

#[path = "../common/busy.rs"]
mod busy;
#[path = "../common/cli.rs"]
mod cli;
#[path = "../common/process.rs"]
mod process;

mod client;
mod connect;
mod failure;
mod options;
mod progress;
mod report;
mod run;
mod source;
mod units;

use failure::Failure;
use options::Format;
use process::{Memory, cpu, memory, own_cpu};
use progress::Progress;
use report::{Report, Server};
use run::Run;

const NAME: &str = "echo_load";

fn main() {
    let options = options::parse().unwrap_or_else(|what| cli::misused(NAME, what));
    options::make_room(&options);
    cli::make_hub(NAME);
    let before = of_servers(memory(&options.servers));
    // For people; a program that reads the figures can look for itself.
    let busy = if options.format == Format::Text { busy::others() } else { None };
    let run = Rc::new(Run::new(options));
    let progress = Progress::start(&run);
    connect_all(&run);
    if run.connected.get() == 0 {
        progress.stop();
        nobody_connected(&run);
    }
    step(&run, "connected");
    let report = Report { busy, ..drive(&run, &before) };
    step(&run, "done");
    run.leave.set();
    progress.stop();
    report.print(&run);
    std::process::exit(i32::from(run.failures.borrow().iter().sum::<u64>() > 0));
}

/// Returns what `/proc` says about the servers, or ends the process.
fn of_servers<T>(found: Result<T, u32>) -> T {
    found.unwrap_or_else(|process| {
        cli::fail(1, NAME, format_args!("there is no process {process}, which --server-pid names"))
    })
}

/// Starts a green thread for each connection; returns when each connection has been made, or has failed.
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

/// With `--step`, says that all are as far as `word`, and waits for a line on standard input.
fn step(run: &Run, word: &str) {
    if run.options.step {
        cli::say(NAME, format_args!("{word} {}", run.alive.get()));
        let _ = stdin().read_line(&mut String::new());
    }
}

/// Warms up, measures, and ends the run. `before` is the memory of the servers before the first connection.
fn drive(run: &Run, before: &Memory) -> Report {
    let options = &run.options;
    run.working.add(run.connected.get());
    let started = Instant::now();
    run.started.set(Some(started));
    run.start.set();
    if !options.warmup.is_zero() {
        // Ends early if no connection is left.
        run.working.wait_timeout(options.warmup);
    }
    let (own_at_begin, answers_at_begin) = (own_cpu(), run.answers.get());
    let cpu_at_begin = of_servers(cpu(&options.servers));
    // Without a warm-up no client has run yet, and what is due first counts.
    let begun = if options.warmup.is_zero() { started } else { Instant::now() };
    run.begun.set(Some(begun));
    run.lost.set(0);
    if let Some(requests) = options.requests {
        run.budget.set(requests);
    }
    // The measurement. The last message that is counted, or lost, wakes this thread.
    let until = begun + options.duration;
    while !run.is_enough() && run.alive.get() > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        thread::park_timeout(left);
    }
    // The end: what is measured is read before the clients are told.
    let ended = Instant::now();
    let answers = run.answers.get() - answers_at_begin;
    let cpu_at_end = cpu(&options.servers);
    let own = own_cpu() - own_at_begin;
    run.ended.set(Some(ended));
    run.over.set();
    // Each waits for the answers as long as the patience lasts; the silent ones for one more.
    run.working.wait_timeout(options.patience * 2 + Duration::from_secs(1));
    let stuck = run.working.remaining() as u64;
    if stuck > 0 {
        run.failures.borrow_mut()[Failure::NoAnswer as usize] += stuck;
        run.alive.set(run.alive.get().saturating_sub(stuck as usize));
    }
    // The connections are still there, and so is their memory.
    let server = cpu_at_end.and_then(|cpu_at_end| {
        let Memory { resident_kib, threads, .. } = memory(&options.servers)?;
        let grown_kib = resident_kib as f64 - before.resident_kib as f64;
        Ok(Server { cpu: cpu_at_end.saturating_sub(cpu_at_begin), resident_kib, grown_kib, threads })
    });
    Report { seconds: (ended - begun).as_secs_f64(), answers, own_cpu: own, server: server.ok(), busy: None }
}

/// Ends the process: there is nothing to measure.
fn nobody_connected(run: &Run) -> ! {
    let addr = run.options.addr;
    if run.failures.borrow()[Failure::Refused as usize] > 0 {
        cli::fail(1, NAME, format_args!("nothing listens on {addr}; start echo_server first"));
    }
    let kinds = report::failures(run);
    let words = run.first_words.borrow().clone().map(|words| format!(": {words}")).unwrap_or_default();
    cli::fail(1, NAME, format_args!("no echo from {addr} ({kinds}){words}"));
}

// Output of `echo_load --connections 1000 --duration 3`, on a machine that had much else to do:
//
//     127.0.0.1:7007, 1000 connections, 64 bytes, closed loop
//       answers     88108 in 3.0 s, 28922/s
//       latency     p50 32.9 ms, p90 43.7 ms, p99 152 ms, p99.9 164 ms, max 312 ms
//       client      9.761 us CPU/answer, 28 % of a core
//       connections 1000 of 1000 alive, no errors
//
// Read next: `examples/echo_server/main.rs`, the other side.
