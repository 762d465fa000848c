//! You will see what green threads do, one event after the other: the pictures of five chapters of the book, each made
//! from a trace of a program that the chapter prints.
//!
//! A column is a thread. Only the order of events is shown, and no times, so a picture is the same in each run.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::panic::catch_unwind;
use std::process::Command;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream};
use greenling::thread::{Builder, JoinHandle, park};
use greenling::trace::{self, Event, EventKind, Trace, Wait, Waker};
use greenling::{Greenlet, sleep, yield_now};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "book_traces";

const HELP: &str = "\
What green threads do, event by event: the pictures of the book.

usage: book_traces switch|hub|park|reactor|kill

  switch   two greenlets (chapter 2)
  hub      greenlets, and a thread that waits for its turn (chapter 5)
  park     a thread that parks and is woken (chapter 6)
  reactor  a thread that waits for a socket (chapter 7)
  kill     a thread that is killed twice (chapter 12)

  # it runs   o it can run   : it waits   -> it wakes the other one
";

/// Says `off` if the hub polls after a number of turns, and not after a time, which would be in the pictures.
const QUANTUM: &str = "GREENLING_QUANTUM";

fn main() {
    let program = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    if std::env::var_os(QUANTUM).is_none_or(|value| value != "off") {
        return again();
    }
    cli::make_hub(NAME);
    match program() {
        Ok(trace) => cli::say_exactly(NAME, picture(&trace).trim_end()),
        Err(error) => cli::fail(1, NAME, cli::brief(&error)),
    }
}

/// Runs this program with the same arguments in a process in which time does not matter.
fn again() {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| NAME.into()));
    match command.args(std::env::args_os().skip(1)).env(QUANTUM, "off").status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => cli::fail(1, NAME, cli::brief(&error)),
    }
}

/// Spawns a thread with a name, which stands above its column.
fn named<T: 'static>(name: &str, body: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(body)
}

/// Chapter 2: a switch to a greenlet, and back.
fn switch() -> io::Result<Trace> {
    fn pong(first: u64) -> u64 {
        let mut n = first;
        loop {
            n = Greenlet::<u64>::main().switch(n + 1);
        }
    }

    trace::start(trace::Options::new())?;
    let g = Greenlet::new(pong);
    let n = g.switch(41);
    assert_eq!(g.switch(n), 43);
    trace::stop()
}

/// Chapter 5: explicit switches, which bypass the run queue.
fn hub() -> io::Result<Trace> {
    trace::start(trace::Options::new())?;
    let thread = named("thread", || ())?;
    let echo = Greenlet::new(|mut n: u32| {
        loop {
            n = Greenlet::main().switch(n);
        }
    });
    for n in 0..2 {
        assert_eq!(echo.switch(n), n);
    }
    yield_now();
    thread.join().expect("it returns");
    trace::stop()
}

/// Chapter 6: a park and two wake-ups.
fn parks() -> io::Result<Trace> {
    trace::start(trace::Options::new())?;
    let waiter = named("waiter", || {
        park();
        park();
    })?;
    yield_now();
    waiter.thread().unpark();
    waiter.thread().unpark(); // it can run already: nothing happens
    yield_now();
    waiter.thread().unpark();
    waiter.join().expect("it returns");
    trace::stop()
}

/// Chapter 7: a read that has to wait, and an event.
fn reactor() -> io::Result<Trace> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    trace::start(trace::Options::new())?;
    let reader = named("reader", move || {
        let mut buf = [0; 1000];
        [far.read(&mut buf), far.read(&mut buf)].map(|read| read.unwrap_or(0))
    })?;
    yield_now();
    near.write_all(b"hello")?;
    drop(near);
    assert_eq!(reader.join().expect("it returns"), [5, 0]);
    trace::stop()
}

/// Chapter 12: a kill that is swallowed, and raised again.
fn kill() -> io::Result<Trace> {
    trace::start(trace::Options::new())?;
    let deaf = named("deaf", || {
        let first = catch_unwind(|| sleep(Duration::from_secs(60)));
        assert!(first.is_err());
        sleep(Duration::from_secs(60));
    })?;
    yield_now();
    deaf.kill();
    assert!(deaf.join().is_err_and(|error| error.is_killed()));
    trace::stop()
}

/// Returns the picture of a trace: a line for each event, with the state of all threads at that time.
fn picture(trace: &Trace) -> String {
    let events: Vec<&Event> = trace.events().iter().filter(|event| is_shown(event)).collect();
    let mut lanes: Vec<u64> = Vec::new();
    for event in &events {
        if !lanes.contains(&event.thread) {
            lanes.push(event.thread);
        }
    }
    // The hub is thread 0, main is thread 1.
    lanes.sort_unstable();
    let mut picture =
        lanes.iter().fold(String::from("   "), |heads, lane| heads + &format!("{:<9}", name(trace, *lane)));
    picture.truncate(picture.trim_end().len());
    picture.push('\n');
    let mut states = vec![' '; lanes.len()];
    for (index, event) in events.iter().enumerate() {
        let lane = |thread| lanes.iter().position(|lane| *lane == thread);
        if let Some(at) = lane(event.thread) {
            states[at] = state(&event.kind).unwrap_or(states[at]);
        }
        let Some(text) = describe(trace, event, &events[..index]) else { continue };
        let wakes = waker(&event.kind).and_then(lane).zip(lane(event.thread));
        let _ = writeln!(picture, "   {}{text}", row(&states, wakes));
        if matches!(event.kind, EventKind::Ended) {
            lane(event.thread).into_iter().for_each(|at| states[at] = ' ');
        }
    }
    picture
}

/// Reports whether an event is in the picture: not that main was there, and runs, when the trace began, and not what is
/// in the timer wheel and in the epoll set.
fn is_shown(event: &Event) -> bool {
    !matches!(
        event.kind,
        EventKind::Found(_)
            | EventKind::Deadline(_)
            | EventKind::Timer(_)
            | EventKind::TimerDropped
            | EventKind::Wheel(_)
            | EventKind::Registered(_)
            | EventKind::Deregistered(_)
            | EventKind::Event { .. }
    )
}

/// Returns the state that an event begins.
fn state(kind: &EventKind) -> Option<char> {
    match kind {
        EventKind::Runs { .. } | EventKind::PollBegins { .. } => Some('#'),
        EventKind::Ready(_) | EventKind::Yields => Some('o'),
        EventKind::Waits(_) => Some(':'),
        EventKind::Ended | EventKind::PollEnds => Some(' '),
        _ => None,
    }
}

/// Returns the thread that wakes another one, 0 for the hub; none if no thread is woken.
fn waker(kind: &EventKind) -> Option<u64> {
    match kind {
        EventKind::Ready(Waker::Thread(id)) => Some(*id),
        EventKind::Ready(_) => Some(0),
        EventKind::Killed { by } => *by,
        _ => None,
    }
}

/// Returns the columns of a line, with an arrow from one to another.
fn row(states: &[char], wakes: Option<(usize, usize)>) -> String {
    let mut cells: Vec<char> =
        states.iter().flat_map(|state| format!("{state:<9}").chars().collect::<Vec<_>>()).collect();
    if let Some((from, to)) = wakes {
        let (first, last) = (9 * from.min(to) + 1, 9 * from.max(to) - 1);
        cells[first..=last].fill('-');
        if from < to {
            cells[last] = '>';
        } else {
            cells[first] = '<';
        }
    }
    cells.into_iter().collect()
}

/// Returns what a thread is called in the picture.
fn name(trace: &Trace, thread: u64) -> String {
    match (thread, trace.name(1, thread)) {
        (0, _) => String::from("hub"),
        (1, _) => String::from("main"),
        (_, Some(name)) => name.to_owned(),
        (_, None) => String::from("greenlet"),
    }
}

/// Returns an event in words; none for what is clear from the next line. `before` are the events before it.
fn describe(trace: &Trace, event: &Event, before: &[&Event]) -> Option<String> {
    let me = name(trace, event.thread);
    let other = |wait: &Wait| wait.awaits.as_ref().map_or(String::new(), |thread| name(trace, thread.id));
    // What happened before, but for the place of a spawn.
    let is_spawn = |event: &&&Event| matches!(event.kind, EventKind::Spawned(_));
    let is_new = before.last().filter(is_spawn).is_some();
    let is_switch = before.iter().rfind(|event| !is_spawn(event)).is_some_and(|event| match &event.kind {
        EventKind::Waits(wait) => wait.kind() == "switch",
        _ => false,
    });
    Some(match &event.kind {
        EventKind::Ready(Waker::Thread(by)) if is_switch => format!("{} switches to {me}", name(trace, *by)),
        EventKind::Ready(Waker::Thread(by)) if is_new => format!("{} spawns {me}", name(trace, *by)),
        EventKind::Ready(Waker::Thread(by)) => format!("{} wakes {me}", name(trace, *by)),
        EventKind::Ready(_) => format!("the hub wakes {me}: its descriptor is ready"),
        EventKind::Runs { .. } => format!("{me} runs"),
        EventKind::Yields => format!("{me} lets others run"),
        EventKind::Waits(wait) => match wait.kind() {
            "switch" => return None,
            "io" => format!("{me} waits for a descriptor"),
            "join" => format!("{me} waits for the end of {}", other(wait)),
            _ => format!("{me} {}", wait.text),
        },
        EventKind::Ended => format!("{me} ends"),
        EventKind::Killed { by } => format!("{} kills {me}", name(trace, by.unwrap_or(0))),
        EventKind::PollBegins { .. } => String::from("the hub polls: no thread can run"),
        EventKind::PollEnds => String::from("the hub has polled"),
        _ => return None,
    })
}

fn parse() -> Result<fn() -> io::Result<Trace>, String> {
    use lexopt::prelude::*;
    let mut program = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Value(name) if program.is_none() => {
                program = Some(match name.to_str() {
                    Some("switch") => switch as fn() -> io::Result<Trace>,
                    Some("hub") => hub,
                    Some("park") => parks,
                    Some("reactor") => reactor,
                    Some("kill") => kill,
                    _ => return Err(format!("{} is none of switch, hub, park, reactor, kill", name.to_string_lossy())),
                });
            }
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    program.ok_or_else(|| String::from("which picture? switch, hub, park, reactor or kill"))
}
