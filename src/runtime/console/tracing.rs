//! A trace of all hubs for a while, for the console.
//!
//! ```text
//!   the agent        each hub, in its polls, in this order
//!   asks ----------> starts a trace, and notes itself in `Started`
//!   sleeps           the threads go on, traced
//!   asks ----------> ends the trace if it is in `Started`, and returns it
//! ```
//!
//! A hub that is busy may find both only later, when nothing waits for them. The first is void then. The second is not:
//! it must end a trace that was begun, though its answer comes too late (`Question::ask_even_late`).
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::object::{Object, list};
use super::request::Request;
use super::snapshot::hubs;
use crate::pure::lock::lock;
use crate::runtime::question::{Answer, Question};
use crate::runtime::trace::data::Trace;
use crate::runtime::trace::event::{Event, EventKind};
use crate::runtime::trace::session::{self, EVENTS, TEXT};
use crate::switch::root::Root;

/// The length of a trace, in milliseconds, unless the request says how long.
const LENGTH: u64 = 1000;

/// The longest trace, in milliseconds.
const MOST_LENGTH: u64 = 10_000;

/// How long the hubs may take to start and to end.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// The events of an answer unless the request says how many.
const ROWS: usize = 100;

/// The most events of an answer.
const MOST_ROWS: usize = 1000;

/// The hubs in which a trace was started, and has not ended. No holder panics or runs foreign code (lock-1).
type Started = Arc<Mutex<HashSet<u64>>>;

/// Traces all hubs, or one, for as long as the request says, and returns what was found.
///
/// # Errors
/// No hub could be traced, or the form is not known.
pub(super) fn answer(request: &Request) -> Result<String, String> {
    let form = request.form.as_deref().unwrap_or("events");
    if !["events", "page", "chrome"].contains(&form) {
        return Err(format!("a trace has no form {form:?}, but events, page and chrome"));
    }
    let (trace, missing) = take(request)?;
    let answer = Object::new()
        .text("summary", &trace.to_string())
        .raw("events", trace.events().len())
        .raw("lost", trace.lost())
        .seconds("seconds", trace.duration())
        .raw("missing", list(&missing));
    let mut out = Vec::new();
    let written = match form {
        "page" => trace.write_html(&mut out),
        "chrome" => trace.write_chrome(&mut out),
        _ => return Ok(with_events(answer, &trace, request)),
    };
    written.map_err(|error| error.to_string())?;
    Ok(answer.text("file", &String::from_utf8_lossy(&out)).end())
}

/// Traces for a while. Returns the trace, and the hubs that are not in it, since they were busy or are traced already.
fn take(request: &Request) -> Result<(Trace, Vec<u64>), String> {
    let asked = hubs(request.hub);
    let number = |at: usize| asked[at].owner().root;
    let (started, mut missing) = (Started::default(), Vec::new());
    let start = {
        let started = Arc::clone(&started);
        move |root: &'static Root| -> io::Result<()> {
            session::start(Some(root), EVENTS, TEXT)?;
            lock(&started).insert(root.number());
            Ok(())
        }
    };
    let question = Question::ask(&asked, start, None);
    question.block(ANSWER_TIME);
    let mut why = String::from("there is no such hub");
    for (at, answer) in question.end().0.into_iter().enumerate() {
        match answer {
            Answer::Given(Ok(()), _) => continue,
            Answer::Given(Err(error), _) => why = error.to_string(),
            Answer::Due => why = String::from("the hub is busy"),
            Answer::Gone => continue,
        }
        missing.push(number(at));
    }
    let begun = !lock(&started).is_empty();
    if begun {
        std::thread::sleep(Duration::from_millis(request.ms.unwrap_or(LENGTH).min(MOST_LENGTH)));
    }
    let stop = move |root: &'static Root| {
        let mine = lock(&started).remove(&root.number());
        mine.then(|| session::stop(Some(root)).ok()).flatten()
    };
    let question = Question::ask_even_late(&asked, stop, None);
    question.block(ANSWER_TIME);
    let mut trace: Option<Trace> = None;
    for (at, answer) in question.end().0.into_iter().enumerate() {
        match (answer, &mut trace) {
            (Answer::Given(Some(other), _), Some(trace)) => trace.merge(other),
            (Answer::Given(Some(first), _), None) => trace = Some(first),
            (Answer::Due, _) if !missing.contains(&number(at)) => missing.push(number(at)),
            _ => {}
        }
    }
    if begun && trace.is_none() {
        why = String::from("the hub is busy");
    }
    Ok((trace.ok_or(format!("nothing was traced: {why}"))?, missing))
}

/// Adds the latest events of a trace.
fn with_events(answer: Object, trace: &Trace, request: &Request) -> String {
    let rows = request.limit.unwrap_or(ROWS).min(MOST_ROWS).min(trace.events().len());
    let latest = &trace.events()[trace.events().len() - rows..];
    let row = |event: &Event| {
        Object::new()
            .seconds("at", event.at)
            .raw("hub", event.hub)
            .text("thread", &trace.label(event.hub, event.thread))
            .text("does", &words(&event.kind))
            .end()
    };
    answer.raw("latest", list(latest.iter().map(row))).end()
}

/// Returns what happened, in words that follow the name of the thread.
fn words(kind: &EventKind) -> String {
    match kind {
        EventKind::Spawned(place) => format!("is spawned at {place}"),
        EventKind::Found(place) => format!("was there, spawned at {place}"),
        EventKind::Ready(waker) => format!("is made runnable by {waker}"),
        EventKind::Runs { queue } => format!("runs; {queue} others are runnable"),
        EventKind::Yields => String::from("lets others run"),
        EventKind::Waits(wait) => wait.text.clone(),
        EventKind::Ended => String::from("ends"),
        EventKind::Killed { by: Some(by) } => format!("is killed by #{by}"),
        EventKind::Killed { by: None } => String::from("is killed by another OS thread"),
        EventKind::PollBegins { idle: true } => String::from("sleeps until something happens"),
        EventKind::PollBegins { idle: false } => String::from("polls"),
        EventKind::PollEnds => String::from("goes on"),
        EventKind::Deadline(at) => format!("waits until {at:?} after the begin of the trace at most"),
        EventKind::Timer(at) => format!("has a timer for {at:?} after the begin of the trace"),
        EventKind::TimerDropped => String::from("has no timer any more"),
        EventKind::Wheel(at) => format!("has fired the timers up to {at:?} after the begin of the trace"),
        EventKind::Registered(fd) => format!("puts descriptor {fd} into the epoll set"),
        EventKind::Deregistered(fd) => format!("takes descriptor {fd} out of the epoll set"),
        EventKind::Event { fd, .. } => format!("is told that descriptor {fd} is ready"),
        EventKind::Mark(text) => format!("marks: {text}"),
        EventKind::SpanBegins { text, .. } => format!("begins: {text}"),
        EventKind::SpanEnds { text, .. } => format!("has done: {text}"),
    }
}
