//! You will see four faults as the runtime shows them: two threads that wait for each other (`deadlock`), one that
//! computes and lets nothing else run (`hog`), a thousand that were forgotten (`leak`), and a request that takes long
//! (`slow`). The chapter "Debugging" of the book reads what this prints.
#![forbid(unsafe_code)]

use std::hint::spin_loop;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use greenling::sync::{Mutex, mpsc};
use greenling::thread::{Builder, JoinHandle};
use greenling::{hub, sleep, trace, yield_now};
use nix::time::{ClockId, clock_gettime};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "debugging";

const HELP: &str = "\
Shows a fault, and what finds it.

usage: debugging deadlock|hog|leak|slow

  deadlock  two threads take two locks, each in its own order: the report
  hog       a thread that computes for a second: what the watch says
  leak      requests whose answers never come: all threads, in groups
  slow      a request that waits for a lock: the trace says why
";

fn main() {
    let fault = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    if let Err(error) = fault() {
        cli::fail(1, NAME, cli::brief(&error));
    }
}

/// Starts a thread with a name. Reports show the line that calls this, because of `track_caller`.
#[track_caller]
fn start(name: &str, work: impl FnOnce() + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).spawn(work)
}

/// Two threads need both locks. Each has one when it asks for the other one.
fn deadlock() -> io::Result<()> {
    let accounts = [Rc::new(Mutex::new(100)), Rc::new(Mutex::new(100))];
    let transfer = |from: usize, to: usize| {
        let (from, to) = (Rc::clone(&accounts[from]), Rc::clone(&accounts[to]));
        move || {
            let mut from = from.lock().unwrap();
            yield_now(); // A real transfer would wait for its database here.
            let mut to = to.lock().unwrap();
            *from -= 10;
            *to += 10;
        }
    };
    let there = start("there", transfer(0, 1))?;
    let back = start("back", transfer(1, 0))?;
    // Nothing can ever wake main: this call panics, with a report.
    there.join().and_then(|()| back.join()).expect("the report comes first");
    Ok(())
}

/// Computes, and lets nothing else run, until it has had a second of the processor: longer on a busy machine.
#[inline(never)]
fn compute() {
    let had = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::MAX, Duration::from);
    let enough = had().saturating_add(Duration::from_secs(1));
    while had() < enough {
        for _ in 0..1_000_000 {
            spin_loop();
        }
    }
}

/// One thread computes, and all others wait for it.
fn hog() -> io::Result<()> {
    hub::watch(Duration::from_millis(500))?;
    start("heartbeat", || {
        loop {
            sleep(Duration::from_millis(10));
        }
    })?;
    let hog = start("hog", compute)?;
    hog.join().expect("it does not panic");
    // Time to turn, and for the watch to see that.
    sleep(Duration::from_millis(1200));
    Ok(())
}

/// Each request waits for an answer, and whatever was to answer keeps the channel and says nothing.
fn leak() -> io::Result<()> {
    let mut forgotten = Vec::new();
    for number in 0..1000 {
        let (answer, answers) = mpsc::channel::<u32>();
        forgotten.push(answer);
        drop(start(&format!("request {number}"), move || _ = answers.recv())?);
    }
    // Behind all of them, each of which waits by then.
    yield_now();
    cli::say(NAME, hub::threads());
    Ok(())
}

/// A request takes a lock that a slow one has.
fn slow() -> io::Result<()> {
    let cache = Rc::new(Mutex::new(()));
    let request = |pause: u64| {
        let cache = Rc::clone(&cache);
        move || {
            let _entry = cache.lock().unwrap();
            sleep(Duration::from_millis(pause));
        }
    };
    trace::start(trace::Options::new())?;
    let requests = [start("export", request(50))?, start("lookup", request(1))?];
    let lookup = requests[1].thread().clone();
    for request in requests {
        request.join().expect("it does not panic");
    }
    let trace = trace::stop()?;
    let waits = trace.waits().into_iter().filter(|wait| trace.name(wait.hub, wait.thread) == lookup.name());
    if let Some(longest) = waits.max_by_key(|wait| wait.lasted) {
        cli::say(NAME, cli::fold(&trace.why(longest.hub, longest.thread, longest.at)));
    }
    Ok(())
}

fn parse() -> Result<fn() -> io::Result<()>, String> {
    use lexopt::prelude::*;
    let mut fault = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Value(name) if fault.is_none() => {
                fault = Some(match name.to_str() {
                    Some("deadlock") => deadlock,
                    Some("hog") => hog,
                    Some("leak") => leak,
                    Some("slow") => slow,
                    _ => return Err(format!("{} is none of deadlock, hog, leak, slow", name.display())),
                });
            }
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    fault.ok_or_else(|| String::from("which fault? deadlock, hog, leak or slow"))
}
