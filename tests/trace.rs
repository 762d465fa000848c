//! Traces: that every event is there and in its order, that rings are bounded, and what is written is whole.
//!
//! Most tests compare whole sequences of events, as lines. They run in a process of their own in which polls are due by
//! the number of turns alone: on a busy machine a thread may else give way wherever a call could have waited.
#![forbid(unsafe_code)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use greenling::os::unix::net::UnixStream;
use greenling::trace::{self, Event, EventKind, Options, Trace, Waker};
use greenling::{Greenlet, hub, sleep, spawn, thread, timeout, yield_now};
use serde_json::Value;

/// The environment variable that is set in the processes of [`alone`].
const QUANTUM: &str = "GREENLING_QUANTUM";

/// Runs `body` in a process of its own in which time makes no thread give way. `name` is the calling test.
fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(QUANTUM).is_some() {
        let _guard = common::guard();
        return body();
    }
    let output = again(name, &[(QUANTUM, Path::new("off"))]);
    assert!(output.status.success(), "{}{}", common::stdout(&output), common::stderr(&output));
    assert!(common::stdout(&output).contains("1 passed"), "no test {name}");
}

/// Runs the test `name` of this program in a process of its own, with these variables.
fn again(name: &str, variables: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).envs(variables.iter().copied());
    common::output_of(command)
}

/// Traces `f` and returns the trace.
fn traced(f: impl FnOnce()) -> Trace {
    trace::start(Options::new()).unwrap();
    f();
    trace::stop().unwrap()
}

/// Returns an event of a thread as a line.
fn line(trace: &Trace, event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Spawned(at) => return format!("{} spawned at {}", trace.label(event.hub, event.thread), at.file()),
        EventKind::Found(_) => String::from("found"),
        EventKind::Ready(by) => format!("ready by {by}"),
        EventKind::Runs { queue } => format!("runs, {queue} more"),
        EventKind::Yields => String::from("yields"),
        EventKind::Waits(wait) => wait.text.to_string(),
        EventKind::Ended => String::from("ends"),
        EventKind::Killed { by } => format!("killed by {by:?}"),
        EventKind::Mark(text) => format!("marks {text}"),
        EventKind::SpanBegins { text, .. } => format!("begins {text}"),
        EventKind::SpanEnds { text, .. } => format!("ends {text}"),
        kind => format!("{kind:?}"),
    };
    format!("{} {what}", trace.label(event.hub, event.thread))
}

/// Reports whether an event is one of a poll, of the timer wheel or of the epoll set.
fn is_of_hub(event: &Event) -> bool {
    is_of_wheel_or_set(event) || matches!(event.kind, EventKind::PollBegins { .. } | EventKind::PollEnds)
}

/// Reports whether an event is one of the timer wheel or of the epoll set.
fn is_of_wheel_or_set(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::Deadline(_)
            | EventKind::Timer(_)
            | EventKind::TimerDropped
            | EventKind::Wheel(_)
            | EventKind::Registered(_)
            | EventKind::Deregistered(_)
            | EventKind::Event { .. }
    )
}

/// Asserts that a trace has these events, and those of polls, the timer wheel and the epoll set between them.
#[track_caller]
fn assert_events(trace: &Trace, expected: &[&str]) {
    let found: Vec<String> =
        trace.events().iter().filter(|event| !is_of_hub(event)).map(|event| line(trace, event)).collect();
    assert_eq!(found, expected, "\n{}", found.join("\n"));
    assert!(trace.events().is_sorted_by_key(|event| event.at), "the times are in order");
    assert!(trace.events().iter().all(|event| event.at <= trace.duration()));
}

#[test]
fn a_parked_thread_is_seen_from_spawn_to_end() {
    alone("a_parked_thread_is_seen_from_spawn_to_end", || {
        let trace = traced(|| {
            let thread = thread::Builder::new().name("parker".into()).spawn(thread::park).unwrap();
            yield_now();
            thread.thread().unpark();
            thread.join().unwrap();
        });
        assert_events(
            &trace,
            &[
                "main found",
                "main runs, 0 more",
                "#2 \"parker\" spawned at tests/trace.rs",
                "#2 \"parker\" ready by main",
                "main yields",
                "#2 \"parker\" runs, 1 more",
                "#2 \"parker\" is parked, waiting for an unpark",
                "main runs, 0 more",
                "#2 \"parker\" ready by main",
                "main waits for the end of #2 \"parker\"",
                "#2 \"parker\" runs, 0 more",
                "main ready by #2",
                "#2 \"parker\" ends",
                "main runs, 0 more",
            ],
        );
        assert_eq!(trace.lost(), 0);
    });
}

#[test]
fn a_trace_that_is_on_says_how_often_and_for_how_long_each_thread_ran() {
    alone("a_trace_that_is_on_says_how_often_and_for_how_long_each_thread_ran", || {
        let traced = || hub::threads().iter().map(|info| (info.id, info.traced)).collect::<BTreeMap<_, _>>();
        assert!(traced().values().all(|traced| traced.is_none()), "no trace is on");
        trace::start(Options::new()).unwrap();
        let busy = spawn(|| {
            for _ in 0..3 {
                let began = std::time::Instant::now();
                while began.elapsed() < Duration::from_millis(5) {}
                yield_now();
            }
            thread::park();
        });
        let idle = spawn(thread::park);
        (0..5).for_each(|_| yield_now());
        let of = |thread: &thread::JoinHandle<()>| {
            hub::threads().iter().find(|info| info.thread_id() == thread.thread().id()).unwrap().traced.unwrap()
        };
        let (busy_had, idle_had) = (of(&busy), of(&idle));
        assert_eq!((busy_had.turns, idle_had.turns), (4, 1));
        assert!(busy_had.ran >= Duration::from_millis(15), "{busy_had:?}");
        // Main runs at this moment, and its turn counts so far.
        let [main, later] = [(); 2].map(|()| traced()[&1].unwrap());
        assert!(main.turns == 6 && later.turns == 6 && later.ran > main.ran, "{main:?} {later:?}");
        for thread in [busy, idle] {
            thread.thread().unpark();
            thread.join().unwrap();
        }
        trace::stop().unwrap();
        assert!(traced().values().all(|traced| traced.is_none()), "no trace is on any more");
    });
}

#[test]
fn a_kill_says_who_killed_and_a_thread_that_never_ran_ends() {
    alone("a_kill_says_who_killed_and_a_thread_that_never_ran_ends", || {
        let trace = traced(|| {
            let (parked, fresh) = (spawn(thread::park), spawn(|| unreachable!("killed before its start")));
            fresh.kill();
            yield_now();
            parked.kill();
            assert!(parked.join().is_err() && fresh.join().is_err());
        });
        assert_events(
            &trace,
            &[
                "main found",
                "main runs, 0 more",
                "#2 spawned at tests/trace.rs",
                "#2 ready by main",
                "#3 spawned at tests/trace.rs",
                "#3 ready by main",
                "#3 killed by Some(1)",
                "main yields",
                "#2 runs, 2 more",
                "#2 is parked, waiting for an unpark",
                "#3 runs, 1 more",
                "#3 ends",
                "main runs, 0 more",
                "#2 killed by Some(1)",
                "#2 ready by main",
                "main waits for the end of #2",
                "#2 runs, 0 more",
                "main ready by #2",
                "#2 ends",
                "main runs, 0 more",
            ],
        );
    });
}

#[test]
fn timers_and_descriptors_are_told_from_each_other() {
    alone("timers_and_descriptors_are_told_from_each_other", || {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&theirs);
        let trace = traced(|| {
            let reader = spawn(move || theirs.read_exact(&mut [0]).unwrap());
            sleep(Duration::from_millis(1));
            ours.write_all(&[1]).unwrap();
            reader.join().unwrap();
            assert!(timeout(Duration::from_millis(1), thread::park).is_err());
        });
        let (reads, ready) =
            (format!("#2 waits until descriptor {fd} can be read"), format!("#2 ready by descriptor {fd}"));
        assert_events(
            &trace,
            &[
                "main found",
                "main runs, 0 more",
                "#2 spawned at tests/trace.rs",
                "#2 ready by main",
                "main sleeps",
                "#2 runs, 0 more",
                &reads,
                "main ready by a timer",
                "main runs, 0 more",
                "main waits for the end of #2",
                &ready,
                "#2 runs, 0 more",
                "main ready by #2",
                "#2 ends",
                "main runs, 0 more",
                "main is parked, waiting for an unpark",
                "main ready by a timer",
                "main runs, 0 more",
            ],
        );
        let idle = |event: &&Event| matches!(event.kind, EventKind::PollBegins { idle: true });
        assert!(trace.events().iter().filter(idle).count() >= 3, "the hub slept for each");
    });
}

#[test]
fn explicit_switches_and_the_end_of_a_greenlet_are_seen() {
    alone("explicit_switches_and_the_end_of_a_greenlet_are_seen", || {
        let trace = traced(|| {
            let greenlet = Greenlet::new(|n: u32| Greenlet::<u32>::main().switch(n + 1) + 1);
            assert_eq!((greenlet.switch(1), greenlet.switch(5)), (2, 6));
            // The drop of the last handle unwinds a greenlet.
            let dropped = Greenlet::new(|n: u32| Greenlet::<u32>::main().switch(n));
            dropped.switch(1);
            drop(dropped);
        });
        assert_events(
            &trace,
            &[
                "main found",
                "main runs, 0 more",
                "main waits in a switch to #2",
                "#2 spawned at tests/trace.rs",
                "#2 ready by main",
                "#2 runs, 0 more",
                "#2 waits in a switch to main",
                "main ready by #2",
                "main runs, 0 more",
                "main waits in a switch to #2",
                "#2 ready by main",
                "#2 runs, 0 more",
                "#2 ends",
                "main ready by #2",
                "main runs, 0 more",
                "main waits in a switch to #3",
                "#3 spawned at tests/trace.rs",
                "#3 ready by main",
                "#3 runs, 0 more",
                "#3 waits in a switch to main",
                "main ready by #3",
                "main runs, 0 more",
                "main waits in a switch to #3",
                "#3 ready by main",
                "#3 runs, 0 more",
                "#3 ends",
                "main ready by #3",
                "main runs, 0 more",
            ],
        );
    });
}

#[test]
fn a_trace_function_and_a_trace_do_not_disturb_each_other() {
    let _guard = common::guard();
    let seen = std::rc::Rc::new(std::cell::Cell::new(0));
    let theirs = std::rc::Rc::clone(&seen);
    let greenlet = Greenlet::new(|n: u32| loop_of(n));
    fn loop_of(mut n: u32) -> u32 {
        loop {
            n = Greenlet::<u32>::main().switch(n + 1);
        }
    }
    greenling::settrace(Some(Box::new(move |_| theirs.set(theirs.get() + 1))));
    greenlet.switch(1);
    assert_eq!(seen.get(), 2);
    let trace = traced(|| assert_eq!(greenlet.switch(1), 2));
    assert_eq!(seen.get(), 4);
    assert!(trace.events().iter().any(|event| event.kind == EventKind::Ready(Waker::Thread(1))));
    // The end of the trace does not end what `settrace` began, nor the other way round.
    greenlet.switch(1);
    assert_eq!(seen.get(), 6);
    let trace = traced(|| {
        greenling::settrace(None);
        greenlet.switch(1);
    });
    assert_eq!(seen.get(), 6);
    assert!(trace.events().iter().any(|event| event.kind == EventKind::Ready(Waker::Thread(1))));
}

#[test]
fn a_full_ring_has_the_latest_events_and_counts_the_others() {
    alone("a_full_ring_has_the_latest_events_and_counts_the_others", || {
        trace::start(Options::new().events(60)).unwrap();
        let other = spawn(|| (0..1000).for_each(|_| yield_now()));
        (0..1000).for_each(|_| yield_now());
        other.join().unwrap();
        trace::mark("the last");
        let trace = trace::stop().unwrap();
        // The next power of two; two records for each of 2000 turns went through it.
        assert_eq!(trace.events().len(), 64);
        assert!((3900..4200).contains(&trace.lost()), "{}", trace.lost());
        assert_eq!(trace.events().last().unwrap().kind, EventKind::Mark("the last".into()));
        assert!(trace.to_string().starts_with("64 events of 1 hub in "), "{trace}");
        write_and_check(&trace);
    });
}

#[test]
fn a_trace_that_begins_late_finds_what_is_there_and_its_end_ends_it() {
    alone("a_trace_that_begins_late_finds_what_is_there_and_its_end_ends_it", || {
        let parked = thread::Builder::new().name("early".into()).spawn(thread::park).unwrap();
        yield_now();
        assert!(!trace::is_on());
        trace::mark("nothing is on");
        let first = traced(|| {
            assert!(trace::is_on());
            parked.thread().unpark();
            parked.join().unwrap();
        });
        assert_events(
            &first,
            &[
                "main found",
                "#2 \"early\" found",
                "#2 \"early\" is parked, waiting for an unpark",
                "main runs, 0 more",
                "#2 \"early\" ready by main",
                "main waits for the end of #2 \"early\"",
                "#2 \"early\" runs, 0 more",
                "main ready by #2",
                "#2 \"early\" ends",
                "main runs, 0 more",
            ],
        );
        spawn(yield_now).join().unwrap();
        let second = traced(|| trace::mark("second"));
        assert_events(&second, &["main found", "main runs, 0 more", "main marks second"]);
    });
}

#[test]
fn a_thread_may_start_a_trace_and_another_stop_it() {
    alone("a_thread_may_start_a_trace_and_another_stop_it", || {
        // The starter runs under a deputy, which resumes threads from inside its own yield.
        let deputy = spawn(|| (0..10).for_each(|_| yield_now()));
        let starter = spawn(|| {
            yield_now();
            trace::start(Options::new()).unwrap();
            yield_now();
        });
        deputy.join().unwrap();
        starter.join().unwrap();
        let trace = spawn(|| trace::stop().unwrap()).join().unwrap();
        let runs: Vec<u64> = trace
            .events()
            .iter()
            .filter_map(|event| matches!(event.kind, EventKind::Runs { .. }).then_some(event.thread))
            .collect();
        // The two take turns until the starter has ended.
        assert_eq!(runs[..4], [3, 2, 3, 2], "{runs:?}");
        assert!(runs.ends_with(&[1, 4]), "{runs:?}");
    });
}

#[test]
fn marks_and_spans_belong_to_the_thread_that_runs() {
    alone("marks_and_spans_belong_to_the_thread_that_runs", || {
        let trace = traced(|| {
            let _outer = trace::span("request");
            let thread = spawn(|| {
                let _inner = trace::span("query \"x\"\n");
                yield_now();
                trace::mark("half way");
            });
            thread.join().unwrap();
            trace::mark(&"ö".repeat(400));
            trace::mark("");
        });
        let long = format!("main marks {}", "ö".repeat(128));
        assert_events(
            &trace,
            &[
                "main found",
                "main runs, 0 more",
                "main begins request",
                "#2 spawned at tests/trace.rs",
                "#2 ready by main",
                "main waits for the end of #2",
                "#2 runs, 0 more",
                "#2 begins query \"x\"\n",
                "#2 yields",
                "#2 runs, 0 more",
                "#2 marks half way",
                "#2 ends query \"x\"\n",
                "main ready by #2",
                "#2 ends",
                "main runs, 0 more",
                &long,
                "main marks ",
                "main ends request",
            ],
        );
        // A span that outlives its trace says nothing in the next.
        trace::start(Options::new()).unwrap();
        let span = trace::span("old");
        trace::stop().unwrap();
        assert_eq!(traced(|| drop(span)).events().len(), 2);
        // Texts that were overwritten say so.
        trace::start(Options::new().text_bytes(16)).unwrap();
        ["first of all", "second", "third"].into_iter().for_each(trace::mark);
        let trace = trace::stop().unwrap();
        assert!(line(&trace, &trace.events()[2]).ends_with("(overwritten)"));
        assert!(line(&trace, &trace.events()[4]).ends_with("third"));
    });
}

#[test]
fn bad_input_is_one_clear_error() {
    let _guard = common::guard();
    let error = |result: io::Result<()>| result.map_err(|error| (error.kind(), error.to_string())).unwrap_err();
    let nothing_on = error(trace::stop().map(|_| ()));
    assert_eq!(nothing_on, (ErrorKind::NotFound, "no trace of this hub is on".into()));
    let none = error(trace::start(Options::new().events(0)));
    assert_eq!(none, (ErrorKind::InvalidInput, "a trace of no events".into()));
    assert_eq!(error(trace::start(Options::new().events(usize::MAX))).0, ErrorKind::OutOfMemory);
    assert_eq!(error(trace::start(Options::new().text_bytes(usize::MAX))).0, ErrorKind::OutOfMemory);
    assert!(!trace::is_on());
    trace::start(Options::default()).unwrap();
    let twice = error(trace::start(Options::new()));
    assert_eq!(twice, (ErrorKind::AlreadyExists, "a trace of this hub is on already".into()));
    trace::stop().unwrap();
}

#[test]
fn two_hubs_are_merged_and_a_remote_wake_up_is_told_from_others() {
    let _guard = common::guard();
    let (tell, told) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        trace::start(Options::new()).unwrap();
        tell.send((hub::handle(), thread::current())).unwrap();
        thread::park();
        trace::stop().unwrap()
    });
    let mut both = traced(|| {
        let (handle, main) = told.recv().unwrap();
        handle.spawn(|| trace::mark("sent over")).join().unwrap();
        main.unpark();
    });
    let theirs = other.join().unwrap();
    let number = |trace: &Trace| trace.events()[0].hub;
    let (one, two) = (number(&both), number(&theirs));
    assert_ne!(one, two);
    let ready = |thread| {
        Event::clone(
            theirs.events().iter().find(|e| e.thread == thread && matches!(e.kind, EventKind::Ready(_))).unwrap(),
        )
    };
    assert_eq!(ready(1).kind, EventKind::Ready(Waker::Remote));
    assert_eq!(ready(2).kind, EventKind::Ready(Waker::Remote));
    let count = both.events().len() + theirs.events().len();
    both.merge(theirs);
    assert_eq!(both.events().len(), count);
    assert!(both.events().is_sorted_by_key(|event| event.at));
    assert!(both.to_string().contains("of 2 hubs in "), "{both}");
    // The spawn was sent before it arrived.
    let position =
        |hub, is: &dyn Fn(&EventKind) -> bool| both.events().iter().position(|e| e.hub == hub && is(&e.kind)).unwrap();
    let sent = position(one, &|kind| matches!(kind, EventKind::Found(_)));
    assert!(sent < position(two, &|kind| matches!(kind, EventKind::Mark(_))));
    write_and_check(&both);
}

#[test]
fn an_os_thread_may_end_while_its_trace_is_on() {
    let _guard = common::guard();
    std::thread::spawn(|| {
        trace::start(Options::new()).unwrap();
        drop(spawn(thread::park));
        yield_now();
    })
    .join()
    .unwrap();
    std::thread::spawn(|| {
        trace::start(Options::new()).unwrap();
        drop(spawn(thread::park));
        yield_now();
        assert_eq!(hub::shutdown(), 0);
        let trace = trace::stop().unwrap();
        assert!(matches!(trace.events().last().unwrap().kind, EventKind::Runs { .. }));
        assert_eq!(trace.events().last().unwrap().thread, 1);
    })
    .join()
    .unwrap();
}

/// Writes a trace for Chrome and checks what was written. Returns the items.
#[track_caller]
fn write_and_check(trace: &Trace) -> Vec<Value> {
    let mut text = Vec::new();
    trace.write_chrome(&mut text).unwrap();
    let json: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(json["otherData"]["lost"], trace.lost());
    let items = json["traceEvents"].as_array().unwrap().clone();
    // Each arrow has both ends, and each end lies in a slice of its track.
    let mut ends: BTreeMap<u64, [Option<f64>; 2]> = BTreeMap::new();
    let mut spans: BTreeMap<(u64, &str), [Option<f64>; 2]> = BTreeMap::new();
    let mut tracks: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    for item in &items {
        let (ts, track) = (item["ts"].as_f64(), (item["pid"].as_u64().unwrap(), item["tid"].as_u64().unwrap()));
        match item["ph"].as_str().unwrap() {
            "s" => ends.entry(item["id"].as_u64().unwrap()).or_default()[0] = ts,
            "f" => ends.entry(item["id"].as_u64().unwrap()).or_default()[1] = ts,
            "b" => spans.entry((track.0, item["id2"]["local"].as_str().unwrap())).or_default()[0] = ts,
            "e" => spans.entry((track.0, item["id2"]["local"].as_str().unwrap())).or_default()[1] = ts,
            "X" => tracks.entry(track).or_default().push((ts.unwrap(), item["dur"].as_f64().unwrap())),
            _ => {}
        }
    }
    for (name, ends) in [("arrows", ends.values().collect::<Vec<_>>()), ("spans", spans.values().collect())] {
        assert!(ends.iter().all(|[from, to]| from.is_some() && to.is_some() && from <= to), "{name}: {ends:?}");
    }
    for item in items.iter().filter(|item| item["ph"] == "s" || item["ph"] == "f") {
        let slices = &tracks[&(item["pid"].as_u64().unwrap(), item["tid"].as_u64().unwrap())];
        let at = item["ts"].as_f64().unwrap();
        let holds = |(from, length): &(f64, f64)| *from - 0.000_5 <= at && at <= from + length + 0.000_5;
        assert!(slices.iter().any(holds), "an end of an arrow in no slice: {item}");
    }
    for slices in tracks.values() {
        let follows = |pair: &[(f64, f64)]| pair[0].0 + pair[0].1 <= pair[1].0 + 0.000_5;
        assert!(slices.windows(2).all(follows), "slices of a track overlap: {slices:?}");
    }
    let named: BTreeSet<_> =
        items.iter().filter(|i| i["ph"] == "M").map(|i| (i["pid"].as_u64(), i["tid"].as_u64())).collect();
    assert!(items.iter().all(|i| named.contains(&(i["pid"].as_u64(), i["tid"].as_u64()))), "each track has a name");
    items
}

#[test]
fn the_json_has_slices_arrows_counters_marks_and_spans() {
    alone("the_json_has_slices_arrows_counters_marks_and_spans", || {
        let trace = traced(|| {
            let name = "a \"quoted\" \\ name\twith </script> ö";
            let thread = thread::Builder::new().name(name.into()).spawn(thread::park).unwrap();
            let _span = trace::span("the span");
            yield_now();
            trace::mark("the mark");
            thread.kill();
            assert!(thread.join().is_err());
            trace::mark("sleeps now");
            sleep(Duration::from_millis(1));
        });
        let items = write_and_check(&trace);
        let count = |ph: &str| items.iter().filter(|item| item["ph"] == ph).count();
        assert_eq!((count("i"), count("b"), count("e"), count("C")), (3, 1, 1, 3));
        // Spawn, kill, the end of the join and the sleep.
        assert_eq!((count("s"), count("f")), (4, 4));
        let names: Vec<&str> = items.iter().filter_map(|item| item["args"]["name"].as_str()).collect();
        assert!(names.contains(&"#2 \"a \"quoted\" \\ name\twith </script> ö\""), "{names:?}");
        assert!(names.contains(&"main") && names.contains(&"poll"));
        assert!(items.iter().all(|item| item["tid"] != 0), "Perfetto has what thread 0 does in the lane of main");
        let sleeps = items.iter().find(|item| item["ph"] == "X" && item["cat"] == "sleep").unwrap();
        // From the mark: on a busy machine the wait may begin long after its time was set. The clocks are as close as this.
        let mark = items.iter().find(|item| item["name"] == "sleeps now").unwrap();
        let number = |item: &Value, field: &str| item[field].as_f64().unwrap();
        let micros = number(sleeps, "ts") + number(sleeps, "dur") - number(mark, "ts");
        assert!(micros >= 990.0, "{mark} {sleeps}");
    });
}

/// Returns the data of a page, after a check of what a page must not have.
#[track_caller]
fn page_data(page: &str) -> Value {
    let (script, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let (data, end) = rest.split_once("</script>").unwrap();
    assert_eq!(end.trim(), "</html>");
    assert!(!script.contains("http:") && !script.contains("https:") && !script.contains("src="), "no network");
    serde_json::from_str(data).unwrap()
}

#[test]
fn the_page_has_every_slice_once_and_needs_no_network() {
    alone("the_page_has_every_slice_once_and_needs_no_network", || {
        let (send, receive) = greenling::channel::bounded(1);
        let trace = traced(|| {
            let name = "</script><b> \"x\"";
            let consumer = move || while receive.recv().is_ok() {};
            let consumer = thread::Builder::new().name(name.into()).spawn(consumer).unwrap();
            for number in 0..5 {
                let _span = trace::span(&format!("send {number}"));
                send.send(number).unwrap();
                trace::mark("sent");
                sleep(Duration::from_millis(1));
            }
            drop(send);
            consumer.join().unwrap();
        });
        let mut page = Vec::new();
        trace.write_html(&mut page).unwrap();
        let data = page_data(std::str::from_utf8(&page).unwrap());
        let lanes = data["lanes"].as_array().unwrap();
        let labels: Vec<&str> = lanes.iter().map(|lane| lane["label"].as_str().unwrap()).collect();
        assert_eq!(labels, ["hub", "main", "#2 \"</script><b> \"x\"\""]);
        let numbers = |lane: &Value, list: &str| -> Vec<i64> {
            lane[list].as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
        };
        let waits = data["waits"].as_array().unwrap();
        let (mut turns, mut causes) = (0, BTreeSet::new());
        for lane in lanes {
            let slices = numbers(lane, "slices");
            for pair in slices.chunks(4).collect::<Vec<_>>().windows(2) {
                assert!(pair[0][0] + pair[0][1] <= pair[1][0], "slices overlap: {pair:?}");
            }
            for slice in slices.chunks(4) {
                assert!(slice[1] >= 0 && slice[2] < 4 + waits.len() as i64 && slice[3] < 3, "{slice:?}");
                assert!(slice[2] == 1 || slice[3] == -1, "only what is runnable was woken: {slice:?}");
                turns += u32::from(slice[2] == 0);
                causes.insert(slice[3]);
            }
        }
        let runs = |event: &&Event| matches!(event.kind, EventKind::Runs { .. });
        assert_eq!(turns as usize, trace.events().iter().filter(runs).count());
        // Nothing, a timer, main and the consumer; no descriptor and no other OS thread.
        assert_eq!(causes, BTreeSet::from([-1, -2, 1, 2]));
        assert_eq!(numbers(&lanes[1], "marks").len(), 5 * 2);
        assert_eq!(numbers(&lanes[1], "spans").len(), 5 * 3);
        assert_eq!(data["texts"].as_array().unwrap().len(), 6, "each text once");
    });
}

#[test]
fn an_empty_and_a_torn_trace_are_written() {
    alone("an_empty_and_a_torn_trace_are_written", || {
        // Of one event, all begins are lost.
        for events in [1, 2, 3, 16] {
            trace::start(Options::new().events(events).text_bytes(1)).unwrap();
            let _span = trace::span("span");
            let threads = [(); 3].map(|()| spawn(|| (0..3).for_each(|_| yield_now())));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let trace = trace::stop().unwrap();
            write_and_check(&trace);
            let mut page = Vec::new();
            trace.write_html(&mut page).unwrap();
            page_data(std::str::from_utf8(&page).unwrap());
            for wait in trace.waits() {
                assert!(!trace.why(wait.hub, wait.thread, wait.at).is_empty());
            }
        }
    });
}

/// Returns a text with `_` in place of times, which differ from run to run.
fn without_times(text: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in text.split(' ') {
        let number = word.trim_start_matches('+');
        match word.trim_end_matches([',', ';']) {
            "ns" | "µs" | "ms" | "s" if words.last() == Some(&"_") => {}
            word if word.starts_with("ns;") || word.starts_with("µs;") || word.starts_with("ms;") => {
                words.push(&word[word.find('\n').unwrap()..]);
            }
            _ if number.starts_with(|c: char| c.is_ascii_digit()) => words.push("_"),
            _ => words.push(word),
        }
    }
    words.join(" ")
}

#[test]
fn why_follows_the_wake_ups_back() {
    alone("why_follows_the_wake_ups_back", || {
        let (send, receive) = greenling::channel::bounded(1);
        let trace = traced(|| {
            let sleeper = move || {
                trace::mark("sleeps now");
                sleep(Duration::from_millis(2));
                send.send(1).unwrap();
            };
            let sleeper = thread::Builder::new().name("sleeper".into()).spawn(sleeper).unwrap();
            let receiver = spawn(move || receive.recv().unwrap());
            assert_eq!(receiver.join().unwrap(), 1);
            sleeper.join().unwrap();
        });
        let hub = trace.events()[0].hub;
        let waits = trace.waits();
        let of = |thread| waits.iter().find(|wait| wait.thread == thread).unwrap();
        assert_eq!(
            without_times(&trace.why(hub, 1, of(1).at)),
            "main waited for the end of #3 for _ from _ to _ then _ for its turn;\n  woken by #3 at _ which had waited for \
             a value from a channel for _ \n  woken by #2 \"sleeper\" at _ which had slept for _ \n  woken by a timer at _"
        );
        assert_eq!((of(3).wait.kind(), of(3).woken_by), ("channel", Some(Waker::Thread(2))));
        // From the mark: on a busy machine the wait may begin long after its time was set. The clocks are as close as this.
        let mark = trace.events().iter().find(|event| matches!(event.kind, EventKind::Mark(_))).unwrap();
        assert!(of(2).at + of(2).lasted >= mark.at + Duration::from_micros(1_990));
        // What is no wait is said to be something else.
        let ran = trace.events().iter().find(|event| matches!(event.kind, EventKind::Runs { .. })).unwrap();
        assert!(trace.why(hub, 1, ran.at).starts_with("main ran at +"));
        assert_eq!(trace.why(hub, 9, Duration::ZERO), "of #9 at +0.000 ms the trace says nothing");
        let spawned = trace.events().iter().find(|event| event.kind == EventKind::Ready(Waker::Thread(1))).unwrap();
        assert!(trace.why(hub, 2, spawned.at).contains("; made so by main"));
    });
}

/// Returns the path of a file that is not there.
fn fresh_file(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&file);
    file
}

/// The test that the processes of the next one run.
#[test]
fn a_small_program() {
    if std::env::var_os("GREENLING_TRACE").is_some() {
        spawn(|| trace::mark("in the program")).join().unwrap();
    }
}

#[test]
fn the_environment_can_ask_for_a_trace() {
    let run = |file: &Path| again("a_small_program", &[("GREENLING_TRACE", file)]);
    let file = fresh_file("a.json");
    let output = run(&file);
    assert!(output.status.success() && !common::stderr(&output).contains("greenling"), "{output:?}");
    let json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let marks = json["traceEvents"].as_array().unwrap().iter().filter(|item| item["name"] == "in the program").count();
    assert_eq!(marks, 1);
    fs::remove_file(&file).unwrap();
    let file = fresh_file("a.html");
    let output = run(&file);
    assert!(output.status.success() && !common::stderr(&output).contains("greenling"), "{output:?}");
    assert_eq!(page_data(&fs::read_to_string(&file).unwrap())["texts"][0], "in the program");
    fs::remove_file(&file).unwrap();
    // What cannot be written is said once, and the program runs as without.
    for (name, why) in [("a.txt", "the name must end in"), ("missing/a.json", "No such file or directory")] {
        let output = run(&fresh_file(name));
        let complaints: Vec<String> = common::stderr(&output)
            .lines()
            .filter(|line| line.contains("GREENLING_TRACE"))
            .map(str::to_owned)
            .collect();
        assert!(output.status.success() && complaints.len() == 1 && complaints[0].contains(why), "{output:?}");
    }
}

#[test]
fn a_descriptor_is_seen_from_its_first_wait_to_its_close() {
    alone("a_descriptor_is_seen_from_its_first_wait_to_its_close", || {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let trace = traced(|| {
            let reader = spawn(move || far.read_to_end(&mut Vec::new()).unwrap());
            yield_now();
            near.write_all(b"!").unwrap();
            drop(near);
            assert_eq!(reader.join().unwrap(), 1);
        });
        let mut events = trace.events().iter().filter(|event| is_of_wheel_or_set(event));
        let Some(EventKind::Registered(number)) = events.next().map(|event| &event.kind) else { panic!("{trace:?}") };
        let reported = EventKind::Event { fd: *number, readable: true, writable: true };
        assert_eq!(events.next().map(|event| (event.thread, &event.kind)), Some((0, &reported)));
        let gone = EventKind::Deregistered(*number);
        assert_eq!(events.next().map(|event| (event.thread, &event.kind)), Some((2, &gone)));
        assert_eq!(events.next(), None);
    });
}

#[test]
fn a_trace_of_a_simulation_has_its_times_and_the_timer_wheel_exactly() {
    let ms = Duration::from_millis;
    let config = greenling::sim::Config::new().strategy(greenling::sim::Strategy::Fifo);
    let trace = config.run(|| {
        traced(|| {
            // The deadline is never reached. Its entry is moved by the sleep, which is shorter, and then comes true
            // for nothing.
            let _ = timeout(ms(7), || timeout(ms(5), || sleep(ms(2))));
            thread::park_timeout(ms(40));
            sleep(ms(10));
        })
    });
    let events: Vec<(Duration, &EventKind)> = trace
        .events()
        .iter()
        .filter(|event| is_of_wheel_or_set(event) && event.thread == 1)
        .map(|event| (event.at, &event.kind))
        .collect();
    let expected = [
        (ms(0), EventKind::Deadline(ms(2))),
        (ms(0), EventKind::Timer(ms(2))),
        (ms(2), EventKind::Deadline(ms(42))),
        (ms(2), EventKind::Timer(ms(42))),
        (ms(42), EventKind::Deadline(ms(52))),
        (ms(42), EventKind::Timer(ms(52))),
    ];
    assert_eq!(events, expected.each_ref().map(|(at, kind)| (*at, kind)));
    let ends = trace.events().iter().filter(|event| matches!(event.kind, EventKind::Ready(_)));
    assert_eq!(ends.map(|event| event.at).collect::<Vec<_>>(), [ms(2), ms(42), ms(52)]);
}

#[test]
fn a_timer_that_is_left_behind_is_seen_to_move_and_to_be_dropped() {
    let ms = Duration::from_millis;
    let config = greenling::sim::Config::new().strategy(greenling::sim::Strategy::Fifo);
    let trace = config.run(|| {
        traced(|| {
            let waker = |thread: thread::Thread| move || thread.unpark();
            let main = thread::current();
            // The park ends early, and its entry stays behind: it is found when it is due, and moves or goes.
            for (limit, then) in [(4, Some(9)), (4, None)] {
                spawn(waker(main.clone()));
                thread::park_timeout(ms(limit));
                match then {
                    Some(then) => sleep(ms(then)),
                    None => drop(spawn(move || sleep(ms(20))).join()),
                }
            }
        })
    });
    let of_main = trace.events().iter().filter(|event| is_of_wheel_or_set(event) && event.thread == 1);
    let found: Vec<(Duration, &EventKind)> = of_main.map(|event| (event.at, &event.kind)).collect();
    let expected = [
        (ms(0), EventKind::Deadline(ms(4))),
        (ms(0), EventKind::Timer(ms(4))),
        (ms(0), EventKind::Deadline(ms(9))),
        (ms(0), EventKind::Timer(ms(4))),
        (ms(0), EventKind::Timer(ms(9))),
        (ms(9), EventKind::Deadline(ms(13))),
        (ms(9), EventKind::Timer(ms(13))),
        (ms(9), EventKind::Timer(ms(13))),
        (ms(9), EventKind::TimerDropped),
    ];
    assert_eq!(found, expected.each_ref().map(|(at, kind)| (*at, kind)));
}
