//! Counters of one hub or all hubs of the process, as structs and in Prometheus' text format.
//!
//! ```text
//!   metrics()       the calling hub, exact                          Metrics: Display, for one hub
//!   all_metrics()   a copy that each hub leaves at its polls        ProcessMetrics: Display, for all: one family after
//!                                                                   the other, as the format demands
//! ```
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::pure::histogram::bound;
use crate::runtime::counters::{self, Figures};
use crate::runtime::hub::existing_hub;
use crate::switch::stack_pool::{StackStats, leaked_stacks};
use crate::sys::clock::monotonic_ns;

/// The counters of one hub, as [`metrics`] and [`all_metrics`] return them. `Display` writes them in Prometheus' text
/// format, with the label `hub`.
///
/// Explicit switches between greenlets are not counted: a counter would be an instruction in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// The number of the hub: the first one of the process is 1. 0 if there is no hub.
    pub hub: u64,
    /// How old `spawned`, `turns`, `live`, `runnable`, `timers` and `stacks` are; zero for the calling hub. A hub that
    /// sleeps has copied them before, so they are right however old they are. A hub that works copies them once a
    /// millisecond; if they are older, one thread holds the hub up, or main does something else.
    pub age: Duration,
    /// How often the hub has polled the outside world: once per turn of main's loop that was due, not per switch.
    pub polls: u64,
    /// The threads and greenlets that were spawned or made, main not counted.
    pub spawned: u64,
    /// The turns: how often a thread, or main, was taken from the run queue and got the CPU. A yield while no other
    /// thread can run counts, too.
    pub turns: u64,
    /// The green threads and started greenlets that have not ended, main not counted.
    pub live: usize,
    /// The threads that can run and wait for their turn.
    pub runnable: usize,
    /// The greatest `runnable` there was at the end of a poll, or that [`metrics`] has shown.
    pub runnable_max: usize,
    /// The calls of epoll_wait(2).
    pub epoll_calls: u64,
    /// The events that these calls returned, those of wake-ups by other OS threads included.
    pub epoll_events: u64,
    /// The timers that are armed. A wait that ended in time leaves its timer armed, for a later wait of the same
    /// thread.
    pub timers: usize,
    /// The timers that woke a thread: ends of sleeps, and time limits that were reached.
    pub timers_fired: u64,
    /// What other OS threads have sent: wake-ups, kills, work to start.
    pub remote_ops: u64,
    /// The stacks, by state. `stacks.leaked` is the process's, not the hub's.
    pub stacks: StackStats,
    /// The longest time from the end of one poll to the next. One thread has kept the hub for that time, or at most a
    /// millisecond less. Counted from the first poll at which a green thread lives; while main is the only thread, it
    /// holds up nothing.
    pub longest_turn: Duration,
    /// The sum of all such times of 10 ms and more.
    pub held_up: Duration,
    /// How long threads waited for the CPU after they could run, while [`watch`](super::watch) is on.
    pub delays: Delays,
}

/// A histogram of delays: the times from the moment at which threads were woken or spawned to their turns. They are
/// taken while [`watch`](super::watch) is on; what was counted stays when it is off again.
///
/// Of the wake-ups from one poll of the hub to the next one is taken, by chance, and counts for all of them. So a
/// hub that is busy reads the clock for a few wake-ups only, and does next to nothing for the others; a hub that wakes
/// one thread at a time has all delays.
///
/// ```
/// use greenling::{hub, sleep, spawn};
/// use std::time::{Duration, Instant};
///
/// hub::watch(Duration::from_secs(60))?;
/// sleep(Duration::from_millis(1)); // the hub polls, and sees that the watch is on
/// let sleeper = spawn(|| sleep(Duration::from_millis(1)));
/// spawn(|| {
///     let began = Instant::now();
///     while began.elapsed() < Duration::from_millis(40) {} // while this computes, nothing else runs
/// });
/// sleeper.join().unwrap();
/// let delays = hub::metrics().delays;
/// assert!(delays.count() >= 2 && delays.quantile(1.0) < Some(Duration::from_secs(9)));
/// # hub::watch(Duration::ZERO)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delays {
    /// How many delays there were up to 1 µs, and above that up to 2 µs, 4 µs and so on; the last is that of delays of
    /// more than 8.4 s. [`bound`](Delays::bound) has the bounds.
    pub buckets: [u64; 25],
    /// The sum of all delays.
    pub sum: Duration,
}

impl Delays {
    /// Returns the greatest delay that the bucket with this index counts: 1 µs for 0, 2 µs for 1. `None` for the last
    /// bucket, and beyond.
    pub fn bound(bucket: usize) -> Option<Duration> {
        bound(bucket).map(Duration::from_nanos)
    }

    /// Returns how many delays there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the bound below which this share of the delays was, for 0.99 that of all but one in a hundred; it is up
    /// to twice too large. A share is taken as 0 or 1 if it is outside. `None` if there were no delays, or if they
    /// were above all bounds.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        // At least one, so that the first bucket with a delay is found. No bits are lost: a share is 1 at most.
        let wanted = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        let found = self.buckets.iter().position(|bucket| {
            below += bucket;
            below >= wanted
        });
        found.and_then(Delays::bound)
    }
}

/// The counters of all hubs of the process, as [`all_metrics`] returns them. `Display` writes them in Prometheus' text
/// format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessMetrics {
    /// The hubs, by number.
    pub hubs: Vec<Metrics>,
}

/// Returns the counters of the calling OS thread's hub; all of them are 0 if there is none.
///
/// ```
/// use greenling::{hub, spawn, yield_now};
///
/// let threads: Vec<_> = (0..3).map(|_| spawn(yield_now)).collect();
/// assert_eq!(hub::metrics().runnable, 3);
/// threads.into_iter().for_each(|thread| thread.join().unwrap());
/// let metrics = hub::metrics();
/// assert_eq!((metrics.spawned, metrics.live, metrics.runnable), (3, 0, 0));
/// assert!(metrics.to_string().contains("\ngreenling_spawned_total{hub=\"1\"} 3\n"));
/// ```
///
/// May switch: no.
pub fn metrics() -> Metrics {
    existing_hub().map_or_else(Metrics::default, |hub| {
        let figures = hub.fresh_counters().figures();
        of_figures(&figures, figures.copied_at)
    })
}

/// Returns the counters of all hubs of the process, from any OS thread, and without waiting for any: a hub that
/// computes or is stuck in a system call is shown as it was at its latest poll, which [`Metrics::age`] tells. Empty if
/// there is no hub.
///
/// ```
/// use greenling::{hub, sleep};
///
/// sleep(std::time::Duration::from_millis(1)); // the first call that waits makes the hub
/// let scrape = std::thread::spawn(|| hub::all_metrics().to_string()).join().unwrap();
/// assert!(scrape.contains("# TYPE greenling_timers_fired_total counter\n"));
/// assert!(scrape.contains("greenling_timers_fired_total{hub=\"1\"} 1\n"));
/// ```
///
/// May switch: no.
pub fn all_metrics() -> ProcessMetrics {
    // The figures first, the time second: no copy is younger than now.
    let figures: Vec<Figures> = counters::all().iter().map(|counters| counters.figures()).collect();
    let now = monotonic_ns();
    ProcessMetrics { hubs: figures.iter().map(|figures| of_figures(figures, now)).collect() }
}

/// Makes public what a hub has counted.
fn of_figures(figures: &Figures, now: u64) -> Metrics {
    let gauges = figures.gauges;
    Metrics {
        hub: figures.hub,
        age: Duration::from_nanos(now.saturating_sub(figures.copied_at)),
        polls: figures.polls,
        spawned: gauges.spawned,
        turns: gauges.turns,
        live: gauges.live,
        runnable: gauges.runnable,
        runnable_max: figures.runnable_max,
        epoll_calls: figures.epoll_calls,
        epoll_events: figures.epoll_events,
        timers: gauges.timers,
        timers_fired: figures.timers_fired,
        remote_ops: figures.remote_ops,
        stacks: StackStats { leaked: leaked_stacks(), ..gauges.stacks },
        longest_turn: Duration::from_nanos(figures.longest_turn),
        held_up: Duration::from_nanos(figures.held_up),
        delays: Delays { buckets: figures.delays.0, sum: Duration::from_nanos(figures.delays.1) },
    }
}

/// The types of Prometheus' format that are used here.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Counts below bounds, with a count and a sum of all.
    Histogram,
}

/// A family of samples: one line for each hub.
struct Family {
    /// The name, with the unit and, for a counter, `_total` at its end.
    name: &'static str,
    /// The text behind `# HELP`.
    help: &'static str,
    /// The word behind `# TYPE`.
    kind: Kind,
    /// The sample of a hub.
    value: fn(&Metrics) -> Value,
}

/// The value of a sample.
enum Value {
    /// A count of things.
    Number(u64),
    /// A time, which Prometheus has in seconds.
    Seconds(Duration),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(f),
            Value::Seconds(time) => write!(f, "{}.{:09}", time.as_secs(), time.subsec_nanos()),
        }
    }
}

/// Returns a family of these parts, on one line of the table.
const fn family(kind: Kind, name: &'static str, help: &'static str, value: fn(&Metrics) -> Value) -> Family {
    Family { name, help, kind, value }
}

/// All families but those of the stacks and of delays, of which each has a label more.
const FAMILIES: [Family; 14] = [
    family(Kind::Counter, "greenling_polls_total", "Polls of the outside world.", |of| Value::Number(of.polls)),
    family(Kind::Counter, "greenling_spawned_total", "Green threads and greenlets made.", |of| {
        Value::Number(of.spawned)
    }),
    family(Kind::Counter, "greenling_turns_total", "Turns of threads that were taken from the run queue.", |of| {
        Value::Number(of.turns)
    }),
    family(Kind::Gauge, "greenling_live_threads", "Green threads and greenlets that have not ended.", |of| {
        Value::Number(of.live as u64)
    }),
    family(Kind::Gauge, "greenling_run_queue_length", "Threads that can run and wait for their turn.", |of| {
        Value::Number(of.runnable as u64)
    }),
    family(Kind::Gauge, "greenling_run_queue_length_max", "The most threads that could run after a poll.", |of| {
        Value::Number(of.runnable_max as u64)
    }),
    family(Kind::Counter, "greenling_epoll_calls_total", "Calls of epoll_wait.", |of| Value::Number(of.epoll_calls)),
    family(Kind::Counter, "greenling_epoll_events_total", "Events that epoll_wait returned.", |of| {
        Value::Number(of.epoll_events)
    }),
    family(Kind::Gauge, "greenling_timers", "Timers that are armed.", |of| Value::Number(of.timers as u64)),
    family(Kind::Counter, "greenling_timers_fired_total", "Timers that woke a thread.", |of| {
        Value::Number(of.timers_fired)
    }),
    family(Kind::Counter, "greenling_remote_ops_total", "Wake-ups, kills and work from other OS threads.", |of| {
        Value::Number(of.remote_ops)
    }),
    family(Kind::Gauge, "greenling_longest_turn_seconds", "The longest time between two polls.", |of| {
        Value::Seconds(of.longest_turn)
    }),
    family(Kind::Counter, "greenling_held_up_seconds_total", "Time in turns of 10 ms and more.", |of| {
        Value::Seconds(of.held_up)
    }),
    family(Kind::Gauge, "greenling_metrics_age_seconds", "Time since the hub copied its gauges.", |of| {
        Value::Seconds(of.age)
    }),
];

/// Writes the two lines that begin a family.
fn head(f: &mut fmt::Formatter<'_>, kind: Kind, name: &str, help: &str) -> fmt::Result {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// Writes the metrics of `hubs`, family by family. Every label is a number or a fixed word, so nothing is escaped.
fn write_all(f: &mut fmt::Formatter<'_>, hubs: &[Metrics]) -> fmt::Result {
    for family in &FAMILIES {
        head(f, family.kind, family.name, family.help)?;
        for of in hubs {
            writeln!(f, "{}{{hub=\"{}\"}} {}", family.name, of.hub, (family.value)(of))?;
        }
    }
    let name = "greenling_stacks";
    head(f, Kind::Gauge, name, "Stacks by state: used, free with memory, free without.")?;
    for of in hubs {
        for (state, number) in [("in_use", of.stacks.in_use), ("warm", of.stacks.warm), ("cold", of.stacks.cold)] {
            writeln!(f, "{name}{{hub=\"{}\",state=\"{state}\"}} {number}", of.hub)?;
        }
    }
    let name = "greenling_stacks_made_total";
    head(f, Kind::Counter, name, "Stacks ever made: address space, not memory.")?;
    for of in hubs {
        writeln!(f, "{name}{{hub=\"{}\"}} {}", of.hub, of.stacks.made)?;
    }
    let name = "greenling_stacks_leaked_total";
    head(f, Kind::Counter, name, "Stacks given up because their OS thread ended first, in the whole process.")?;
    let leaked = hubs.iter().map(|of| of.stacks.leaked).max().unwrap_or_else(leaked_stacks);
    writeln!(f, "{name} {leaked}")?;
    write_delays(f, hubs)
}

/// Writes the delays of the hubs that have taken any; no family if none has.
fn write_delays(f: &mut fmt::Formatter<'_>, hubs: &[Metrics]) -> fmt::Result {
    let name = "greenling_run_delay_seconds";
    let mut taken = hubs.iter().filter(|of| of.delays.count() > 0).peekable();
    if taken.peek().is_some() {
        head(f, Kind::Histogram, name, "Time from ready to run, while the watch is on.")?;
    }
    for Metrics { hub, delays, .. } in taken {
        // In this format each bucket has those below it, too.
        let mut below = 0;
        for (index, bucket) in delays.buckets.iter().enumerate() {
            below += bucket;
            match Delays::bound(index) {
                Some(bound) => writeln!(f, "{name}_bucket{{hub=\"{hub}\",le=\"{}\"}} {below}", bound.as_secs_f64())?,
                None => writeln!(f, "{name}_bucket{{hub=\"{hub}\",le=\"+Inf\"}} {below}")?,
            }
        }
        writeln!(f, "{name}_sum{{hub=\"{hub}\"}} {}", Value::Seconds(delays.sum))?;
        writeln!(f, "{name}_count{{hub=\"{hub}\"}} {below}")?;
    }
    Ok(())
}

impl fmt::Display for Metrics {
    /// Writes the text format: two comment lines for each family, and one sample.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, std::slice::from_ref(self))
    }
}

impl fmt::Display for ProcessMetrics {
    /// Writes the text format: two comment lines for each family, and one sample for each hub.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, &self.hubs)
    }
}
