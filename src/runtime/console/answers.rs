//! The answers of the console: what a request asks for, as one line of JSON.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::panic::Location;
use std::time::Duration;

use super::object::{Object, list};
use super::request::Request;
use super::snapshot::{Eye, HubView, Snapshot, hubs, with_endpoint};
use super::tracing;
use crate::runtime::backtraces::{self, BacktraceGroup, ThreadBacktrace};
use crate::runtime::counters::{self, Figures};
use crate::runtime::question::{Answer, Question};
use crate::runtime::thread_info::{
    Group, StateWords, ThreadInfo, ThreadKind, ThreadState, group_key, groups, write_cycle,
};
use crate::sys::clock::monotonic_ns;

/// The rows of an answer unless the request says how many.
const ROWS: usize = 100;

/// The most rows of an answer.
const MOST_ROWS: usize = 1000;

/// The most stacks of an answer: the names of each take some milliseconds.
const MOST_STACKS: usize = 50;

/// The most bytes of the text of one stack.
const MOST_STACK_TEXT: usize = 32 * 1024;

/// The most ids that are named with a stack.
const MOST_IDS: usize = 20;

/// How long the hubs may take to walk over their stacks.
const STACK_TIME: Duration = Duration::from_secs(2);

/// What is asked for that there is not.
const KINDS: &str = "hubs, groups, threads, stacks, stack, metrics and trace";

/// Returns the answer to a request.
///
/// # Errors
/// What is wrong with the request, in one line.
pub(super) fn answer(request: &Request, eye: &Eye) -> Result<String, String> {
    match request.get.as_str() {
        "hubs" => Ok(hub_rows(&eye.look(request.fresh))),
        "groups" => group_rows(request, &eye.look(request.fresh)),
        "threads" => thread_rows(request, &eye.look(request.fresh)),
        "stacks" => stack_rows(request),
        "stack" => one_stack(request),
        "metrics" => Ok(metric_rows()),
        "trace" => tracing::answer(request),
        "" => Err(format!("the field \"get\" is missing; there are {KINDS}")),
        other => Err(format!("there is no {other:?} to get; there are {KINDS}")),
    }
}

/// Returns an answer about a snapshot, with the age, and the hubs that are missing, since they have not answered.
fn of(snapshot: &Snapshot, name: &str, rows: &str) -> Object {
    let silent = snapshot.hubs.iter().filter(|view| view.threads.is_err()).map(|view| view.owner.root);
    Object::new().raw(name, rows).raw("silent", list(silent)).seconds("age", snapshot.taken.elapsed())
}

/// Returns which rows of so many are asked for.
fn page(request: &Request, rows: usize, most: usize) -> Range<usize> {
    let from = request.offset.min(rows);
    let limit = request.limit.unwrap_or(ROWS).min(most);
    from..from.saturating_add(limit).min(rows)
}

/// Returns one row for each hub.
fn hub_rows(snapshot: &Snapshot) -> String {
    let rows = list(snapshot.hubs.iter().map(hub_row));
    of(snapshot, "hubs", &rows).end()
}

/// Returns the row of a hub: how many threads do what, or what holds the hub up.
fn hub_row(view: &HubView) -> String {
    let owner = &view.owner;
    let row = Object::new()
        .raw("hub", owner.root)
        .raw("os_thread", owner.tid)
        .maybe(owner.name.as_deref(), |row, name| row.text("name", name))
        .raw("answered", view.threads.is_ok())
        .maybe(view.figures.as_ref(), |row, figures| {
            row.raw("live", figures.gauges.live)
                .raw("polls", figures.polls)
                .seconds("longest_turn", Duration::from_nanos(figures.longest_turn))
                .seconds("held_up", Duration::from_nanos(figures.held_up))
        });
    let threads = match &view.threads {
        Ok(threads) => threads,
        Err(held) => return row.text("held", held).end(),
    };
    let count = |state| threads.iter().filter(|info| info.state == state && info.kind != ThreadKind::Main).count();
    let mut cycle = String::new();
    // A `String` takes all that is written.
    let _ = write_cycle(&mut cycle, threads.cycle());
    row.raw("runnable", count(ThreadState::Runnable))
        .raw("waiting", count(ThreadState::Waiting))
        .raw("switched", count(ThreadState::Switched))
        .maybe((!cycle.is_empty()).then_some(cycle.trim()), |row, cycle| row.text("cycle", cycle))
        .end()
}

/// Returns the key of the group of a thread, as a text. It is the same for as long as the program runs.
fn key_text(info: &ThreadInfo) -> String {
    let mut hasher = DefaultHasher::new();
    match group_key(info) {
        Some(key) => (key, info.spawned_at.map(Location::file)).hash(&mut hasher),
        // Each main stands for itself.
        None => (info.hub, info.id).hash(&mut hasher),
    }
    format!("{:016x}", hasher.finish())
}

/// Reports whether a text has `part` in it, in any case.
fn has(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(part)
}

/// Returns the rows of the groups: threads of all hubs, or of one, that do the same.
fn group_rows(request: &Request, snapshot: &Snapshot) -> Result<String, String> {
    let threads: Vec<&ThreadInfo> = snapshot.threads(request.hub).collect();
    let mut groups = groups(threads.iter().copied());
    match request.sort.as_deref() {
        None | Some("count") => groups.sort_by_key(|group| Reverse(group.count)),
        Some("waited") => groups.sort_by_key(|group| Reverse(group.waited.map(|waited| waited.1))),
        Some("place") => groups.sort_by_key(|group| group.first.spawned_at.map(|place| (place.file(), place.line()))),
        Some(other) => return Err(format!("groups cannot be sorted by {other:?}, but by count, waited and place")),
    }
    if request.reverse {
        groups.reverse();
    }
    if let Some(part) = request.filter.as_deref().map(str::to_lowercase) {
        groups.retain(|group| has(&group_text(group).1, &part));
    }
    let rows = list(groups[page(request, groups.len(), MOST_ROWS)].iter().map(group_row));
    Ok(of(snapshot, "groups", &rows).raw("total", groups.len()).raw("threads", threads.len()).end())
}

/// Returns the first thread of a group, with what it waits for, and the text of the group.
fn group_text(group: &Group<'_>) -> (ThreadInfo, String) {
    // The hubs have not said what descriptors are: a connection, a pipe. Ask for one or two of the group.
    let (first, last) = (with_endpoint(group.first), with_endpoint(group.last));
    let first = if group_key(&first) == group_key(&last) { first } else { group.first.clone() };
    let text = group.with_first(&first).to_string();
    (first, text)
}

/// Returns the row of a group.
fn group_row(group: &Group<'_>) -> String {
    let (first, text) = group_text(group);
    Object::new()
        // The key is that of the snapshot, without what descriptors are.
        .text("key", &key_text(group.first))
        .raw("count", group.count)
        .text("state", state_name(&first))
        .maybe(group.waited, |row, (least, most)| row.seconds("least", least).seconds("most", most))
        .maybe(first.spawned_at, |row, place| row.text("place", &place.to_string()))
        .maybe((group.killed > 0).then_some(group.killed), |row, killed| row.raw("killed", killed))
        .text("text", &text)
        .end()
}

/// Returns the rows of threads.
fn thread_rows(request: &Request, snapshot: &Snapshot) -> Result<String, String> {
    let mut threads: Vec<&ThreadInfo> = snapshot.threads(request.hub).collect();
    threads.retain(|info| request.id.is_none_or(|id| id == info.id));
    if let Some(key) = request.group.as_deref() {
        threads.retain(|info| key_text(info) == key);
    }
    if let Some(part) = request.filter.as_deref().map(str::to_lowercase) {
        threads.retain(|info| has(&with_endpoint(info).to_string(), &part));
    }
    sort(&mut threads, request.sort.as_deref().unwrap_or("id"))?;
    if request.reverse {
        threads.reverse();
    }
    let rows = list(threads[page(request, threads.len(), MOST_ROWS)].iter().map(|info| thread_row(info)));
    Ok(of(snapshot, "threads", &rows).raw("total", threads.len()).end())
}

/// Sorts threads: the longest waits, the deepest stacks and the runnable threads come first.
fn sort(threads: &mut [&ThreadInfo], by: &str) -> Result<(), String> {
    let state = |info: &ThreadInfo| match info.state {
        ThreadState::Running => 0,
        ThreadState::Runnable => 1,
        ThreadState::Switched => 2,
        ThreadState::Waiting => 3,
    };
    match by {
        // The hubs list them so.
        "id" => {}
        "waited" => threads.sort_by_key(|info| Reverse(info.waited)),
        "stack" => threads.sort_by_key(|info| Reverse(info.stack.and_then(|stack| stack.used))),
        "name" => threads.sort_by(|one, other| {
            // Those without a name come last.
            (one.name.is_none(), &one.name).cmp(&(other.name.is_none(), &other.name))
        }),
        "state" => threads.sort_by_key(|info| state(info)),
        "place" => threads.sort_by_key(|info| info.spawned_at.map(|place| (place.file(), place.line()))),
        _ => {
            return Err(format!("threads cannot be sorted by {by:?}, but by id, waited, stack, name, state and place"));
        }
    }
    Ok(())
}

/// Returns the name of the state of a thread in the protocol.
fn state_name(info: &ThreadInfo) -> &'static str {
    match info.state {
        ThreadState::Running => "running",
        ThreadState::Runnable => "runnable",
        ThreadState::Waiting => "waiting",
        ThreadState::Switched => "switched",
    }
}

/// Returns the row of a thread.
fn thread_row(info: &ThreadInfo) -> String {
    let info = with_endpoint(info);
    let kind = match info.kind {
        ThreadKind::Main => "main",
        ThreadKind::GreenThread => "green thread",
        ThreadKind::Greenlet => "greenlet",
    };
    Object::new()
        .raw("hub", info.hub)
        .raw("id", info.id)
        .maybe(info.name.as_deref(), |row, name| row.text("name", name))
        .text("kind", kind)
        .text("state", state_name(&info))
        .text("does", &StateWords(&info).to_string())
        .maybe(info.awaits.as_ref(), |row, thread| row.raw("awaits_hub", thread.hub).raw("awaits_id", thread.id))
        .maybe(info.waited, |row, waited| row.seconds("waited", waited))
        .maybe(info.wait_left, |row, left| row.seconds("wait_left", left))
        .maybe(info.timeout_left, |row, left| row.seconds("timeout_left", left))
        .maybe(info.kill_pending.then_some(true), |row, killed| row.raw("killed", killed))
        .maybe(info.own_thread_locals.then_some(true), |row, own| row.raw("own_thread_locals", own))
        .maybe(info.spawned_at, |row, place| row.text("place", &place.to_string()))
        .maybe(info.stack.and_then(|stack| stack.used), |row, used| row.raw("stack_used", used))
        .maybe(info.stack, |row, stack| row.raw("stack_reserved", stack.reserved))
        .end()
}

/// Returns the rows of the stacks of all hubs, or of one: the most frequent ones first.
fn stack_rows(request: &Request) -> Result<String, String> {
    let asked = hubs(request.hub);
    let question = Question::ask(&asked, |root| root.as_main(|| backtraces::of_all(root)), None);
    question.block(STACK_TIME);
    let (answers, _) = question.end();
    let (mut stacks, mut silent): (Vec<(u64, BacktraceGroup)>, Vec<u64>) = (Vec::new(), Vec::new());
    for (hub, answer) in asked.iter().zip(answers) {
        let hub = hub.owner().root;
        match answer {
            Answer::Given(groups, _) => stacks.extend(groups.into_iter().map(|group| (hub, group))),
            Answer::Due => silent.push(hub),
            Answer::Gone => {}
        }
    }
    stacks.sort_by_key(|(_, group)| Reverse(group.threads.len()));
    let rows = stacks[page(request, stacks.len(), MOST_STACKS)].iter().map(|(hub, group)| {
        Object::new()
            .raw("hub", hub)
            .raw("count", group.threads.len())
            .raw("threads", list(group.threads.iter().take(MOST_IDS)))
            .text("text", &stack_text(&group.backtrace))
            .end()
    });
    Ok(Object::new().raw("stacks", list(rows)).raw("total", stacks.len()).raw("silent", list(silent)).end())
}

/// Returns the text of a stack, as far as an answer has it.
fn stack_text(backtrace: &ThreadBacktrace) -> String {
    let mut text = backtrace.to_string();
    if text.len() > MOST_STACK_TEXT {
        let end = (0..=MOST_STACK_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("\n  and more frames\n");
    }
    text
}

/// Returns the stack of one thread.
fn one_stack(request: &Request) -> Result<String, String> {
    let (Some(number), Some(id)) = (request.hub, request.id) else {
        return Err(String::from("a stack is that of a thread: give its \"hub\" and its \"id\""));
    };
    let asked = hubs(Some(number));
    let question = Question::ask(&asked, move |root| root.as_main(|| backtraces::of_thread(root, id)), None);
    question.block(STACK_TIME);
    match question.end().0.into_iter().next() {
        Some(Answer::Given(Some(backtrace), _)) => {
            Ok(Object::new().raw("hub", number).raw("id", id).text("text", &stack_text(&backtrace)).end())
        }
        Some(Answer::Given(None, _)) => Err(format!("hub {number} has no thread #{id} that has begun")),
        Some(Answer::Due) => Err(format!("hub {number} has not answered: it is busy")),
        Some(Answer::Gone) | None => Err(format!("there is no hub {number}")),
    }
}

/// Returns the rows of what the hubs have counted. No hub is asked: each leaves a copy.
fn metric_rows() -> String {
    let figures: Vec<Figures> = counters::all().iter().map(|counters| counters.figures()).collect();
    let now = monotonic_ns();
    Object::new().raw("metrics", list(figures.iter().map(|figures| metric_row(figures, now)))).end()
}

/// Returns the row of what one hub has counted: the names are those of `hub::Metrics`.
fn metric_row(figures: &Figures, now: u64) -> String {
    let gauges = figures.gauges;
    Object::new()
        .raw("hub", figures.hub)
        .seconds("age", Duration::from_nanos(now.saturating_sub(figures.copied_at)))
        .raw("polls", figures.polls)
        .raw("spawned", gauges.spawned)
        .raw("live", gauges.live)
        .raw("runnable", gauges.runnable)
        .raw("runnable_max", figures.runnable_max)
        .raw("epoll_calls", figures.epoll_calls)
        .raw("epoll_events", figures.epoll_events)
        .raw("timers", gauges.timers)
        .raw("timers_fired", figures.timers_fired)
        .raw("remote_ops", figures.remote_ops)
        .raw("stacks_in_use", gauges.stacks.in_use)
        .raw("stacks_warm", gauges.stacks.warm)
        .raw("stacks_cold", gauges.stacks.cold)
        .raw("stacks_made", gauges.stacks.made)
        .seconds("longest_turn", Duration::from_nanos(figures.longest_turn))
        .seconds("held_up", Duration::from_nanos(figures.held_up))
        .end()
}
