//! Sentences from events: what happened, and why.

use greenling::trace::{EventKind, Trace, Waker};

use crate::model::{Run, State, nanos, place};
use crate::notes::{CALLED, NAMES};

/// A sentence about what happened, and one about the reason.
pub(crate) type Told = (String, String);

/// Returns what a thread is called.
pub(crate) fn label(trace: &Trace, id: u64) -> String {
    let hub = trace.events().first().map_or(1, |event| event.hub);
    let called = trace.events().iter().filter(|event| event.thread == id).find_map(|event| match &event.kind {
        EventKind::Mark(text) => text.strip_prefix(CALLED),
        _ => None,
    });
    match (id, called.or(trace.name(hub, id))) {
        (0, _) => String::from("the hub"),
        (1, _) => String::from("main"),
        (_, Some(name)) => name.to_owned(),
        (_, None) => format!("thread {id}"),
    }
}

/// Reports whether a mark only says what something is called.
pub(crate) fn is_name(mark: &str) -> bool {
    mark.starts_with(NAMES) || mark.starts_with(CALLED)
}

/// Returns the number of the descriptor of which a text tells.
pub(crate) fn descriptor(text: &str) -> Option<i32> {
    let (_, behind) = text.split_once("descriptor ")?;
    let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    behind[..digits].parse().ok()
}

/// Returns what epoll says of a descriptor.
pub(crate) fn readiness(readable: bool, writable: bool) -> &'static str {
    match (readable, writable) {
        (true, true) => "can be read and written",
        (true, false) => "can be read",
        (false, true) => "can be written",
        (false, false) => "has changed",
    }
}

/// Returns a length of time with a unit that fits.
fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let text = format!("{value:.3}");
    format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Returns the sentences for the events from `at` to `next`, which have changed `old` to the state of the run; none for
/// what goes with the step that follows.
pub(crate) fn sentence(run: &mut Run<'_>, old: &State, at: usize, next: usize) -> Option<Told> {
    let event = run.event(at).clone();
    let name = label(run.trace, event.thread);
    Some(match &event.kind {
        EventKind::Spawned(_) => spawned(run, at, next, &name),
        EventKind::Ready(by) => ready(run, old, at, *by, &name),
        EventKind::Runs { queue } => runs(old, event.thread, *queue, &name),
        EventKind::Yields => (
            format!("{name} lets others run, and goes to the end of the run queue."),
            String::from("It could go on: a yield is a turn given away, and no wait."),
        ),
        EventKind::Waits(wait) => waits(run, at, next, &wait.text, wait.kind(), &name),
        EventKind::Ended => (format!("{name} has ended."), String::from("Its stack is free for the next thread.")),
        EventKind::Killed { by } => killed(run, old, event.thread, *by, &name),
        EventKind::PollBegins { idle: true } => (String::from("No thread can run: the hub sleeps."), sleeps_until(run)),
        EventKind::PollBegins { idle: false } => (
            String::from("The hub looks for events."),
            String::from("It does so now and then, also while threads run."),
        ),
        EventKind::Timer(due) => (
            format!("The hub moves the entry of {name} to +{}.", time(nanos(*due))),
            String::from(
                "Its turn came, but the wait that it was for is over, and the thread waits for a later time now.",
            ),
        ),
        EventKind::TimerDropped => (
            format!("The hub drops the entry of {name}."),
            String::from("Its turn came, but the wait that it was for has ended before."),
        ),
        EventKind::Wheel(to) => wheel(run, old.cursor, nanos(*to)),
        EventKind::Registered(fd) => (
            format!("{name} puts {} into the {}.", run.name_of(at, *fd), set(run)),
            String::from("A call has to wait there for the first time. One registration does for both directions."),
        ),
        EventKind::Deregistered(fd) => (
            format!("{name} takes {} out of the {}.", run.name_of(at, *fd), set(run)),
            String::from("It is closed, or leaves the hub: no event may reach what has its number next."),
        ),
        EventKind::Event { fd, readable, writable } => (
            format!(
                "{} reports: {} {}.",
                if run.in_life { "epoll" } else { "The simulated network" },
                run.name_of(at, *fd),
                readiness(*readable, *writable)
            ),
            String::from(
                "Each change is reported once. The report wakes the first thread that waits in that direction.",
            ),
        ),
        EventKind::Mark(text) if !is_name(text) => {
            let (line, said) = text.split_once(": ")?;
            (format!("{name} {said}."), format!("Line {line} of the program."))
        }
        _ => return None,
    })
}

/// Returns what watches descriptors.
fn set(run: &Run<'_>) -> &'static str {
    if run.in_life { "epoll set" } else { "set of watched descriptors" }
}

/// A thread was spawned.
fn spawned(run: &Run<'_>, at: usize, next: usize, name: &str) -> Told {
    let by = (at..next).find_map(|at| match run.event(at).kind {
        EventKind::Ready(Waker::Thread(by)) => Some(label(run.trace, by)),
        _ => None,
    });
    let by = by.unwrap_or_else(|| String::from("the hub"));
    if run.event(next - 1).thread == run.event(at).thread && matches!(run.event(next - 1).kind, EventKind::Runs { .. })
    {
        return (
            format!("{by} switches to {name}, which begins at once."),
            String::from("A switch by name goes past the run queue: those that stand in it wait on."),
        );
    }
    (
        format!("{by} spawns {name}, which stands at the end of the run queue."),
        String::from("A spawn is no switch: the new thread begins when its turn comes."),
    )
}

/// A thread was made runnable.
fn ready(run: &Run<'_>, old: &State, at: usize, by: Waker, name: &str) -> Told {
    let before = old.threads.get(&run.event(at).thread);
    let kind = before.map_or("", |thread| thread.kind);
    let at_end = format!("{name} can run, and goes to the end of the run queue.");
    match by {
        Waker::Thread(by) if run.is_switch(at) => (
            format!("{} switches to {name}, which goes on at once.", label(run.trace, by)),
            String::from("A switch by name goes past the run queue: those that stand in it wait on."),
        ),
        Waker::Thread(by) => {
            let by = label(run.trace, by);
            let why = match kind {
                _ if before.is_some_and(|thread| thread.killed) => String::from("The kill has ended its wait."),
                "park" => format!("{by} has unparked it."),
                "join" => format!("It waited for the end of {by}, which has come."),
                "event" => format!("{by} has done what it waited for."),
                "channel" => format!("{by} has done the other half of what it waited for in a channel."),
                _ => format!("{by} has ended its wait."),
            };
            (at_end, format!("{why} A wake-up is no switch: the waker goes on."))
        }
        Waker::Timer => (at_end, String::from("Its time is over, and its entry has left the wheel.")),
        Waker::Descriptor(_) => (at_end, String::from("What was reported may let its call go on: it tries again.")),
        _ => (at_end, String::from("Another OS thread has asked for that.")),
    }
}

/// A thread got the CPU.
fn runs(old: &State, id: u64, queue: u32, name: &str) -> Told {
    let others = match queue {
        0 => String::from("No other thread can run."),
        1 => String::from("One other thread can run."),
        n => format!("{n} other threads can run."),
    };
    if old.threads.get(&id).is_some_and(|thread| thread.killed) {
        let why = format!("It was killed: its turn begins with an unwinding. {others}");
        return (format!("{name} has the CPU."), why);
    }
    let first =
        if old.threads.get(&id).is_some_and(|thread| thread.has_run) { "goes on" } else { "has its first turn" };
    (format!("{name} {first}."), format!("It was the first in the run queue. {others}"))
}

/// A thread began to wait.
fn waits(run: &mut Run<'_>, at: usize, next: usize, text: &str, kind: &str, name: &str) -> Told {
    let text = run.with_names(at, text);
    let mut why = String::from(match kind {
        "park" => "It is in no queue, and goes on when it is unparked.",
        "sleep" => "It is in no queue: only the wheel has it.",
        "join" if text.contains("scope") => "The end of the last of them will wake it.",
        "join" => "The end of that thread will wake it.",
        "switch" => "The thread that it switches to has the CPU next.",
        "io" => "The call could not go on at once. The thread stands in the list of the descriptor.",
        "channel" => "It stands in the list of the channel.",
        _ => "It stands in the lists of what it waits for.",
    });
    let (mut deadline, mut timer) = (None, None);
    for event in (at + 1..next).map(|at| run.event(at)) {
        match event.kind {
            EventKind::Deadline(due) => deadline = Some(nanos(due)),
            EventKind::Timer(due) => timer = Some(nanos(due)),
            _ => {}
        }
    }
    match (deadline, timer) {
        (Some(due), Some(entry)) if due == entry => {
            why += &format!(" Until +{} at most: its entry in the wheel is for then.", time(due));
        }
        (Some(due), Some(entry)) => {
            why += &format!(
                " Until +{} at most; its entry of before, for +{}, is early enough and stays.",
                time(due),
                time(entry)
            );
        }
        (None, Some(entry)) => {
            why +=
                &format!(" Its entry for +{} is left of a wait that is over: to leave it costs nothing.", time(entry));
        }
        _ => {}
    }
    (format!("{name} {text}."), why)
}

/// A thread was killed.
fn killed(run: &Run<'_>, old: &State, id: u64, by: Option<u64>, name: &str) -> Told {
    let by = by.map_or_else(|| String::from("another OS thread"), |by| label(run.trace, by));
    let has_run = old.threads.get(&id).is_some_and(|thread| thread.has_run);
    let why = if has_run {
        "Its wait will end with an unwinding: at its next turn its destructors run, and nothing else of it."
    } else {
        "It has not begun, and never will: at its turn what it was given is dropped."
    };
    (format!("{by} kills {name}."), String::from(why))
}

/// The wheel has come to a time.
fn wheel(run: &Run<'_>, cursor: u64, to: u64) -> Told {
    let began = nanos(run.trace.began());
    let moved = run.state.wheel.iter().filter_map(|(id, due)| {
        let (before, after) = (place(cursor, *due), place(began + to, *due));
        let cascades = before.0 > after.0 && *due > began + to;
        cascades.then(|| format!("{} goes from level {} to level {}", label(run.trace, *id), before.0, after.0))
    });
    let moved: Vec<String> = moved.collect();
    let why = if moved.is_empty() {
        String::from("What was due by then fires.")
    } else {
        format!("A slot cascades, since the wheel has come to it: {}.", moved.join(", "))
    };
    (format!("The timer wheel comes to the tick at +{}.", time(to)), why)
}

/// Returns until when a hub that sleeps will sleep.
fn sleeps_until(run: &Run<'_>) -> String {
    if !run.in_life {
        return match run.state.wheel.first() {
            Some((id, due)) => format!(
                "In this simulation that takes no time: the clock jumps to the first entry of the wheel ({}, at +{}), \
                 or to a packet that arrives sooner.",
                label(run.trace, *id),
                time(due - nanos(run.trace.began()))
            ),
            None => String::from("In this simulation the clock jumps to the next packet that arrives."),
        };
    }
    match run.state.wheel.first() {
        Some((id, due)) => {
            let due = due - nanos(run.trace.began());
            format!(
                "Until a descriptor is ready, or at the latest until +{}, the first entry of the wheel ({}).",
                time(due),
                label(run.trace, *id)
            )
        }
        None => String::from("Until a descriptor is ready: the wheel is empty."),
    }
}
