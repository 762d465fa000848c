//! The counters of hubs: exact for the calling hub, readable for all others, and valid in Prometheus' text format.
#![forbid(unsafe_code)]

mod common;

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use greenling::hub::{self, Metrics, ProcessMetrics};
use greenling::{sleep, spawn, thread, yield_now};

/// Makes the hub of this OS thread: the first call that waits does.
fn make_hub() {
    sleep(Duration::from_millis(1));
}

/// Computes for `time`, without a call that could wait.
fn compute(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Returns the counters of the hub with this number, as other OS threads see them.
fn seen(number: u64) -> Option<Metrics> {
    hub::all_metrics().hubs.into_iter().find(|of| of.hub == number)
}

#[test]
fn threads_are_counted_as_they_are_spawned_and_as_they_end() {
    let _guard = common::guard();
    make_hub();
    let before = hub::metrics();
    let threads: Vec<_> = (0..100).map(|_| spawn(thread::park)).collect();
    let runnable = hub::metrics();
    assert_eq!((runnable.spawned - before.spawned, runnable.live, runnable.runnable), (100, 100, 100));
    assert!(runnable.runnable_max >= 100 && runnable.stacks.in_use == 100, "{runnable:?}");
    common::settle();
    let parked = hub::metrics();
    assert_eq!((parked.live, parked.runnable, parked.runnable_max >= 100), (100, 0, true));
    threads.iter().for_each(|thread| thread.thread().unpark());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let ended = hub::metrics();
    assert_eq!((ended.spawned - before.spawned, ended.live, ended.stacks.in_use), (100, 0, 0));
    assert_eq!(ended.age, Duration::ZERO);
}

#[test]
fn time_limits_and_their_scopes_are_no_threads() {
    let _guard = common::guard();
    make_hub();
    let before = hub::metrics();
    for _ in 0..100 {
        greenling::timeout(Duration::from_secs(60), yield_now).unwrap();
    }
    assert_eq!(hub::metrics().spawned, before.spawned);
}

#[test]
fn timers_events_and_remote_ops_are_counted() {
    let _guard = common::guard();
    make_hub();
    let before = hub::metrics();
    // The hub's timers are 10, whatever else takes the processor: none of them is due for an hour.
    let idle: Vec<_> = (0..10).map(|_| spawn(|| sleep(Duration::from_secs(3600)))).collect();
    yield_now();
    assert_eq!(hub::metrics().timers, 10);
    idle.iter().for_each(|thread| assert!(thread.kill()));
    idle.into_iter().for_each(|thread| drop(thread.join()));
    assert_eq!((hub::metrics().timers, hub::metrics().timers_fired), (0, before.timers_fired));
    let sleepers: Vec<_> = (0..10).map(|_| spawn(|| sleep(Duration::from_millis(1)))).collect();
    sleepers.into_iter().for_each(|thread| thread.join().unwrap());
    let after = hub::metrics();
    assert_eq!((after.timers_fired - before.timers_fired, after.timers), (10, 0));
    assert!(after.polls > before.polls && after.epoll_calls > before.epoll_calls);
    // An OS thread wakes main: one remote op, which rings the bell of a hub that sleeps, and none more.
    let main = thread::current();
    let os = std::thread::spawn(move || main.unpark());
    thread::park();
    os.join().unwrap();
    assert_eq!(hub::metrics().remote_ops - after.remote_ops, 1);
    // A byte that is waited for is an event.
    let before = hub::metrics();
    let (a, b) = greenling::os::unix::net::UnixStream::pair().unwrap();
    let reader = spawn(move || std::io::Read::read(&mut &b, &mut [0]).unwrap());
    yield_now();
    std::io::Write::write_all(&mut &a, b"x").unwrap();
    assert_eq!(reader.join().unwrap(), 1);
    assert!(hub::metrics().epoll_events > before.epoll_events);
}

#[test]
fn a_long_turn_counts_and_main_alone_holds_up_nothing() {
    let _guard = common::guard();
    sleep(Duration::from_millis(1));
    compute(Duration::from_millis(30));
    sleep(Duration::from_millis(1));
    let before = hub::metrics();
    assert_eq!((before.longest_turn, before.held_up), (Duration::ZERO, Duration::ZERO));
    let hog = spawn(|| {
        // By now there is a poll at which this thread lives.
        sleep(Duration::from_millis(1));
        compute(Duration::from_millis(30));
        yield_now();
    });
    hog.join().unwrap();
    sleep(Duration::from_millis(1));
    let after = hub::metrics();
    assert!(after.longest_turn >= Duration::from_millis(30) && after.held_up >= after.longest_turn, "{after:?}");
    // To sleep is no turn.
    spawn(|| sleep(Duration::from_millis(500))).join().unwrap();
    let rested = hub::metrics();
    assert!(rested.held_up - after.held_up < Duration::from_millis(400), "{after:?} {rested:?}");
}

#[test]
fn a_hub_that_computes_is_read_with_its_age_and_one_that_ended_is_gone() {
    let _guard = common::guard();
    let (tell, told) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let os = std::thread::spawn(move || {
        let threads: Vec<_> = (0..7).map(|_| spawn(|| sleep(Duration::from_secs(3600)))).collect();
        // On a busy machine a sleep ends before some of them have begun.
        while hub::metrics().timers < 7 {
            sleep(Duration::from_millis(1));
        }
        // The poll that ends this leaves a copy.
        sleep(Duration::from_millis(1));
        tell.send(hub::metrics().hub).unwrap();
        // Waits as a program may by mistake: nothing of the hub runs meanwhile.
        stopped.recv().unwrap();
        threads.iter().for_each(|thread| assert!(thread.kill()));
        threads.into_iter().for_each(|thread| drop(thread.join()));
    });
    let number = told.recv().unwrap();
    let first = seen(number).expect("it is on the list");
    assert_eq!((first.spawned, first.live, first.timers), (7, 7, 7));
    compute(Duration::from_millis(3));
    let second = seen(number).expect("it is on the list");
    assert!(second.age >= first.age + Duration::from_millis(3), "{first:?} {second:?}");
    assert_eq!((second.polls, second.live), (first.polls, 7));
    stop.send(()).unwrap();
    os.join().unwrap();
    assert_eq!(seen(number), None);
}

#[test]
fn an_os_thread_without_a_hub_has_counters_that_are_all_zero_and_gets_no_hub() {
    let _guard = common::guard();
    std::thread::spawn(|| {
        assert_eq!(hub::metrics(), Metrics::default());
        assert_eq!(hub::metrics().hub, 0, "the first call has made no hub");
        check_format(&hub::metrics().to_string(), 1).unwrap();
        let _ = hub::all_metrics();
    })
    .join()
    .unwrap();
    check_format(&ProcessMetrics::default().to_string(), 0).unwrap();
}

#[test]
fn the_text_is_valid_for_one_hub_and_for_many() {
    let _guard = common::guard();
    make_hub();
    check_format(&hub::metrics().to_string(), 1).unwrap();
    let (tell, told) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let os = std::thread::spawn(move || {
        make_hub();
        tell.send(()).unwrap();
        stopped.recv().unwrap();
    });
    told.recv().unwrap();
    let all = hub::all_metrics();
    assert!(all.hubs.len() >= 2 && all.hubs.is_sorted_by_key(|of| of.hub), "{all:?}");
    check_format(&all.to_string(), all.hubs.len()).unwrap();
    stop.send(()).unwrap();
    os.join().unwrap();
}

#[test]
fn a_text_that_is_not_valid_is_found_out() {
    let valid = "# HELP a_total Text.\n# TYPE a_total counter\na_total{hub=\"1\"} 3\n";
    check_format(valid, 1).unwrap();
    let complaint = |text: &str| check_format(text, 1).unwrap_err();
    assert!(complaint(&format!("{valid}{valid}")).contains("twice"));
    assert!(complaint(&valid.replace("a_total", "a-total")).contains("name"));
    assert!(complaint(&valid.replace("a_total", "a")).contains("_total"));
    assert!(complaint(&valid.replace(" 3", " three")).contains("number"));
    assert!(complaint(&valid.replace("\"1\"", "1")).contains("label"));
    assert!(complaint(&valid.replace("\"1\"", "\"\\x\"")).contains("escape"));
    assert!(complaint(valid.trim_end()).contains("newline"));
    assert!(complaint("a 3\n").contains("no family"));
    assert!(complaint("# TYPE a_total counter\na_total 3\n").contains("HELP"));
    assert!(complaint(&format!("{valid}a_total{{hub=\"1\"}} 4\n")).contains("again"));
    assert!(check_format(valid, 2).unwrap_err().contains("hubs"));
}

/// What a hub has counted since `before`.
fn delays_since(before: hub::Delays) -> (u64, Duration) {
    let delays = hub::metrics().delays;
    (delays.count() - before.count(), delays.sum - before.sum)
}

/// Runs `body` in a process of its own, in which the watch is on.
fn while_watched(name: &str, body: fn()) {
    let _guard = common::guard();
    let output = common::child(name, || {
        make_hub();
        assert_eq!((hub::metrics().delays.count(), hub::metrics().to_string().contains("_delay_")), (0, false));
        hub::watch(Duration::from_secs(600)).unwrap();
        // The next poll sees it.
        make_hub();
        body();
    });
    assert!(output.status.success(), "{}", common::stderr(&output));
}

#[test]
fn a_delay_from_ready_to_run_is_counted_while_the_watch_is_on() {
    while_watched("a_delay_from_ready_to_run_is_counted_while_the_watch_is_on", || {
        // Two threads are woken by one poll, and the first one computes: one delay is long, and it is the one that is
        // taken in half of the rounds.
        let before = hub::metrics().delays;
        for round in 0.. {
            assert!(round < 500, "{:?}", hub::metrics());
            let at = Instant::now() + Duration::from_millis(2);
            let both = [(); 2].map(|()| {
                spawn(move || {
                    greenling::time::sleep_until(at);
                    compute(Duration::from_millis(5));
                })
            });
            both.into_iter().for_each(|thread| thread.join().unwrap());
            if hub::metrics().delays.quantile(1.0) > Some(Duration::from_millis(5)) {
                break;
            }
        }
        let (count, sum) = delays_since(before);
        assert!(count >= 2 && sum >= Duration::from_millis(5), "{count} {sum:?}");
        assert_eq!(hub::Delays::bound(3), Some(Duration::from_micros(8)));
        assert_eq!((hub::Delays::bound(25), hub::Delays::default().quantile(0.5)), (None, None));
        check_format(&hub::metrics().to_string(), 1).unwrap();
        check_format(&hub::all_metrics().to_string(), 1).unwrap();
    });
}

#[test]
fn every_wake_up_is_counted_in_the_end_and_none_when_the_watch_is_off_again() {
    while_watched("every_wake_up_is_counted_in_the_end_and_none_when_the_watch_is_off_again", || {
        let before = hub::metrics();
        let idle: Vec<_> = (0..1000).map(|_| spawn(thread::park)).collect();
        common::settle();
        idle.iter().for_each(|thread| thread.thread().unpark());
        idle.into_iter().for_each(|thread| thread.join().unwrap());
        // One wake-up in each poll: soon one of them is taken, and stands for all before it.
        (0..20).for_each(|_| make_hub());
        let (count, _) = delays_since(before.delays);
        // A spawn and a wake-up of each; main's own wake-ups by joins and timers.
        assert!((2_000..4_000).contains(&count), "{count}");
        let turns = hub::metrics().turns - before.turns;
        assert!((2_000..10_000).contains(&turns), "{turns}");
        // The hub asks at each poll.
        hub::watch(Duration::ZERO).unwrap();
        make_hub();
        let before = hub::metrics().delays;
        (0..100).map(|_| spawn(yield_now)).collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        make_hub();
        assert_eq!(delays_since(before), (0, Duration::ZERO));
    });
}

#[test]
fn delays_are_taken_beside_a_trace_and_after_it() {
    while_watched("delays_are_taken_beside_a_trace_and_after_it", || {
        for _ in 0..3 {
            let before = hub::metrics().delays;
            greenling::trace::start(greenling::trace::Options::new()).unwrap();
            (0..10).for_each(|_| make_hub());
            greenling::trace::stop().unwrap();
            let (traced, _) = delays_since(before);
            (0..10).for_each(|_| make_hub());
            let (all, _) = delays_since(before);
            assert!(traced > 0 && all > traced, "{traced} {all}");
        }
    });
}

#[test]
fn turns_are_counted_one_by_one() {
    let _guard = common::guard();
    make_hub();
    // Whatever else the two do: of 1000 rounds each has a turn, and polls are none.
    let round = |rounds: u64| {
        let before = hub::metrics().turns;
        let threads = [(); 2].map(|()| spawn(move || (0..rounds).for_each(|_| yield_now())));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        hub::metrics().turns - before
    };
    for _ in 0..10 {
        let [few, many] = [1_000, 6_000].map(round);
        // A join lets others run if main's slice is over by then, which is a turn more.
        assert!((many - few).abs_diff(2 * 5_000) <= 2, "{few} {many}");
    }
}

/// Checks a text in Prometheus' format as `promtool check metrics` does: names, types, one block for each family,
/// labels and escapes, numbers, no sample twice; and that each family with the label `hub` has a sample for each hub.
fn check_format(text: &str, hubs: usize) -> Result<(), String> {
    if !text.ends_with('\n') {
        return Err("no newline at the end".into());
    }
    let (mut help, mut family, mut kinds) = (String::new(), String::new(), HashMap::new());
    let mut samples: HashMap<String, usize> = HashMap::new();
    let mut keys = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').ok_or(format!("no text: {line}"))?.0.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(format!("no type: {line}"))?;
            check_name(name)?;
            if name != help {
                return Err(format!("no HELP before: {line}"));
            }
            if kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err(format!("a family twice: {line}"));
            }
            if (kind == "counter") != name.ends_with("_total") || !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(format!("a counter ends in _total, and nothing else does: {line}"));
            }
            family = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or(format!("no value: {line}"))?;
            value.parse::<f64>().map_err(|_| format!("not a number: {line}"))?;
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            check_name(name)?;
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let is_histogram = kinds.get(&family).is_some_and(|kind| kind == "histogram");
            if (if is_histogram { of_histogram } else { Some(name) }) != Some(&family) {
                return Err(format!("in no family: {line}"));
            }
            check_labels(labels.strip_suffix('}').ok_or(format!("labels without an end: {line}"))?)?;
            if !keys.insert(series.to_owned()) {
                return Err(format!("a sample again: {line}"));
            }
            if labels.starts_with("hub=") && !labels.contains("state=") && !is_histogram {
                *samples.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    match samples.iter().find(|(_, number)| **number != hubs) {
        Some((name, number)) => Err(format!("{name} has {number} samples for {hubs} hubs")),
        None => Ok(()),
    }
}

/// Checks a name.
fn check_name(name: &str) -> Result<(), String> {
    let good = |at: usize, c: char| c.is_ascii_alphabetic() || c == '_' || at > 0 && c.is_ascii_digit();
    if name.is_empty() || !name.chars().enumerate().all(|(at, c)| good(at, c)) {
        return Err(format!("a bad name: {name}"));
    }
    Ok(())
}

/// Checks what stands between the braces.
fn check_labels(labels: &str) -> Result<(), String> {
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').ok_or(format!("a label without a value: {label}"))?;
        check_name(name)?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.ok_or(format!("a label without quotes: {label}"))?;
        let mut chars = value.chars();
        while let Some(c) = chars.next() {
            if c == '"' || c == '\\' && !chars.next().is_some_and(|next| "\\\"n".contains(next)) {
                return Err(format!("a bad escape: {label}"));
            }
        }
    }
    Ok(())
}
