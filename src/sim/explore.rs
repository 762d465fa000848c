//! Runs: one, or many until one fails; then the one that fails with the fewest deviations.
//!
//! Each simulation has an OS thread of its own, which has done nothing before and does nothing else, so that the state
//! of the calling OS thread has no part in it. An exploration uses one for many runs.
//!
//! ```text
//!   check:   the environment names a schedule?  run that, and print its panics
//!            else runs .. until one fails       quiet
//!            shrink:  leave out deviations while it still fails in the same way
//!            once more, on a fresh OS thread, with the numbers that a replay will have
//! ```
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::env;
use std::fmt;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::calls::is_simulated;
use super::config::{Config, Strategy};
use super::failure::{Explored, Failure, FailureKind, Trace, replay};
use super::faults::Faults;
use super::world::{Ended, Order, World};
use crate::pure::lock::lock;
use crate::pure::schedule::{Made, Plan, Schedule, deviations, next_prefix};
use crate::sys::fault::FaultKind;
use crate::sys::runtime_syscall::runtime_syscall;

/// The environment variable that names the schedule to run.
const SEED_VARIABLE: &str = "GREENLING_SEED";

/// The most runs for each of the two steps of shrinking.
const MOST_SHRINKS: u32 = 5000;

/// The most turns for shrinking, about: thousands of runs that are long would take minutes.
const MOST_SHRINK_TURNS: u64 = 10_000_000;

/// The time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// What an exploration goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// Runs that differ in their choices.
    Schedules,
    /// Runs that differ in the suspension at which a thread is killed.
    Kills,
    /// Runs that differ in the one thing that goes wrong.
    Faults,
}

/// A run that has failed.
#[derive(Debug)]
struct Found {
    /// The number of the run, from 0 on.
    number: u64,
    /// What its random numbers came from.
    seed: u64,
    /// The suspension at which a thread was killed; 0 for none.
    kill: u64,
    /// Its choices that are not 0.
    picks: Vec<(u64, u32)>,
    /// What kind of failure it is.
    kind: FailureKind,
}

impl Found {
    /// Makes what was found of the run `ended`; none if it has not failed.
    fn of(number: u64, order: &Order, ended: &Ended<()>) -> Option<Found> {
        let kind = ended.result.as_ref().err()?.kind;
        Some(Found { number, seed: order.seed, kill: order.kill, picks: deviations(&ended.made), kind })
    }
}

impl Config {
    /// Runs `f` once, with the seed and the strategy of the configuration, and returns its result; see
    /// [`run`](super::run).
    ///
    /// # Panics
    /// As [`run`](super::run).
    ///
    /// May switch: no; the OS thread waits.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        run(self, f)
    }

    /// Runs `f` once and returns the steps, whether `f` fails or not. Prints nothing.
    ///
    /// May switch: no; the OS thread waits.
    pub fn trace(&self, f: impl Fn() + Sync) -> Trace {
        trace(self, &f)
    }

    /// Runs `f` in as many schedules as were asked for, until one fails. `f` is called for each.
    ///
    /// # Errors
    /// The failure, shrunk, with the line that replays it.
    ///
    /// # Panics
    /// If `GREENLING_SEED` is set to something that is no [`Schedule`](super::Schedule); if an OS thread or a hub could
    /// not be made.
    ///
    /// May switch: no; the OS thread waits.
    pub fn check(&self, f: impl Fn() + Sync) -> Result<Explored, Failure> {
        check(self, &f, Program::Schedules)
    }

    /// Runs `f` once for each suspension of a thread other than main, and kills that thread there. The schedule is the
    /// one of the configuration's seed; with [`Strategy::Fifo`], that of life.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    ///
    /// # Panics
    /// As [`check`](Self::check).
    ///
    /// May switch: no; the OS thread waits.
    pub fn check_kills(&self, f: impl Fn() + Sync) -> Result<Explored, Failure> {
        check(self, &f, Program::Kills)
    }

    /// Runs `f` once for each thing that can [go wrong](Config::faults), and lets that go wrong, and nothing else
    /// that is drawn. The schedule is the one of the configuration's seed; with [`Strategy::Fifo`], that of life.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    ///
    /// # Panics
    /// As [`check`](Self::check).
    ///
    /// May switch: no; the OS thread waits.
    pub fn check_faults(&self, f: impl Fn() + Sync) -> Result<Explored, Failure> {
        check(self, &f, Program::Faults)
    }

    /// Runs `f` once for each suspension of a thread that has a time limit, a [`timeout`](crate::timeout) or that of
    /// the call itself, and lets time pass there until the limit: [`check_faults`](Self::check_faults) with
    /// [`FaultKind::Timeout`] only.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    ///
    /// # Panics
    /// As [`check`](Self::check).
    ///
    /// May switch: no; the OS thread waits.
    pub fn check_timeouts(&self, f: impl Fn() + Sync) -> Result<Explored, Failure> {
        let faults = Faults::new().only(&[FaultKind::Timeout]);
        Config { faults, ..self.clone() }.check_faults(f)
    }
}

/// Calls `f` on a fresh OS thread that simulates, and returns the result.
fn on_fresh_thread<R: Send>(f: impl FnOnce(&World) -> R + Send) -> R {
    thread::scope(|scope| {
        // With the feature `monkey`, the program may have its own threads made green; not this one.
        let own = runtime_syscall();
        let spawned = thread::Builder::new().name("simulation".into()).spawn_scoped(scope, || f(&World::begin()));
        drop(own);
        let joined = match spawned {
            Ok(thread) => thread.join(),
            Err(error) => panic!("greenling: no OS thread for a simulation: {error}"),
        };
        joined.unwrap_or_else(|payload| resume_unwind(payload))
    })
}

/// Returns the schedule that the environment names, if it names one. It is that of the outermost simulation: one that
/// runs inside of another has the choices that it had when the schedule was found.
fn named_by_environment() -> Option<Schedule> {
    if is_simulated() {
        return None;
    }
    let text = env::var_os(SEED_VARIABLE)?;
    match text.to_string_lossy().parse() {
        Ok(schedule) => Some(schedule),
        Err(error) => panic!("greenling: {SEED_VARIABLE}: {error}"),
    }
}

/// Returns the name of the test that calls, if it is one. That of a test that calls in a simulation is not known.
fn test_name() -> Option<String> {
    if is_simulated() {
        return None;
    }
    thread::current().name().filter(|name| *name != "main").map(str::to_owned)
}

/// Returns the order that runs `schedule`. `choices` is as for [`Config::order`].
fn order_for(config: &Config, schedule: &Schedule, choices: u64) -> Order {
    let mut order = match schedule.picks() {
        Some(picks) => config.order_of(schedule.seed(), Plan::Follow(picks.to_vec())),
        None => config.order(schedule.seed(), choices),
    };
    order.kill = schedule.kill().unwrap_or(0);
    order
}

/// Returns how many choices a run in the order of life has; 0 for strategies that need not know.
fn measured_choices(config: &Config, f: &(impl Fn() + Sync)) -> u64 {
    match config.strategy {
        Strategy::Pct { .. } => {
            let order = config.order_of(config.seed, Plan::Fifo);
            on_fresh_thread(|world| world.run(&order, f).made.len() as u64)
        }
        _ => 0,
    }
}

/// Does the work of [`Config::run`].
fn run<R: Send>(config: &Config, f: impl FnOnce() -> R + Send) -> R {
    let schedule = named_by_environment().unwrap_or_else(|| Schedule::drawn(config.seed));
    let mut order = order_for(config, &schedule, config.max_turns);
    order.quiet = false;
    match on_fresh_thread(|world| world.run(&order, f).result) {
        Ok(value) => value,
        Err(mut failed) => {
            let line = replay(&schedule, test_name().as_deref());
            tell(format_args!("greenling: a simulation failed; replay: {line}\n"));
            match failed.payload.take() {
                Some(payload) => resume_unwind(payload),
                None => panic!("{}", failed.text),
            }
        }
    }
}

/// Does the work of [`Config::trace`].
fn trace(config: &Config, f: &(impl Fn() + Sync)) -> Trace {
    let mut order = config.order(config.seed, measured_choices(config, f));
    order.records = true;
    on_fresh_thread(|world| Trace(world.run(&order, f).steps.into()))
}

/// Does the work of [`Config::check`] and [`Config::check_kills`].
fn check(config: &Config, f: &(impl Fn() + Sync), program: Program) -> Result<Explored, Failure> {
    let began = Instant::now();
    if let Some(schedule) = named_by_environment() {
        return replay_named(config, f, schedule, began);
    }
    let mut explored = Explored { schedules: 0, complete: false, cut: 0, choices: 0, time: Duration::ZERO };
    let found = match (program, config.strategy) {
        (Program::Kills, _) => sweep_kills(config, f, &mut explored),
        (Program::Faults, _) => sweep_faults(config, f, &mut explored),
        (_, Strategy::Exhaustive { choices }) => exhaust(config, f, choices, &mut explored),
        _ => draw(config, f, &mut explored),
    };
    explored.time = began.elapsed();
    match found {
        None => Ok(explored),
        Some(found) => Err(shrunk(config, f, found)),
    }
}

/// Runs the schedule that the environment names, and prints its panics.
fn replay_named(
    config: &Config,
    f: &(impl Fn() + Sync),
    schedule: Schedule,
    began: Instant,
) -> Result<Explored, Failure> {
    let mut order = order_for(config, &schedule, measured_choices(config, f));
    (order.quiet, order.records) = (false, true);
    let ended = on_fresh_thread(|world| world.run(&order, f));
    let found = deviations(&ended.made).len();
    match ended.result {
        Ok(()) => {
            let choices = ended.made.len() as u64;
            Ok(Explored { schedules: 1, complete: false, cut: 0, choices, time: began.elapsed() })
        }
        Err(failed) => Err(Failure {
            kind: failed.kind,
            message: failed.text.into(),
            schedules: 1,
            schedule,
            found,
            trace: Trace(ended.steps.into()),
            test: test_name().map(Into::into),
        }),
    }
}

/// Runs drawn schedules on as many OS threads as were asked for. Returns the first one that fails.
fn draw(config: &Config, f: &(impl Fn() + Sync), explored: &mut Explored) -> Option<Found> {
    let choices = measured_choices(config, f);
    let shared = Shared {
        next: AtomicU64::new(0),
        end: AtomicU64::new(config.schedules),
        choices: AtomicU64::new(0),
        found: Mutex::new(None),
        began: Instant::now(),
    };
    thread::scope(|scope| {
        let own = runtime_syscall();
        for number in 1..config.os_threads {
            let work = || draw_here(config, f, choices, &shared, false);
            let spawned = thread::Builder::new().name(format!("simulations-{number}")).spawn_scoped(scope, work);
            if spawned.is_err() {
                // Those that are there do the work.
                break;
            }
        }
        drop(own);
        let shows = config.progress.unwrap_or_else(|| std::io::stderr().is_terminal());
        draw_here(config, f, choices, &shared, shows);
    });
    // A thread counts up once more before it sees the end.
    explored.schedules = shared.next.into_inner().min(config.schedules);
    explored.choices = shared.choices.into_inner();
    shared.found.into_inner().unwrap_or_default()
}

/// What the OS threads of an exploration share.
struct Shared {
    /// The number of the next run.
    next: AtomicU64,
    /// The number at which runs end: that of the first one that has failed, or how many there are.
    end: AtomicU64,
    /// The choices of all runs.
    choices: AtomicU64,
    /// The first run that has failed.
    found: Mutex<Option<Found>>,
    /// When the exploration began.
    began: Instant,
}

/// Runs schedules until there are none left. A spoilt OS thread is followed by another one.
fn draw_here(config: &Config, f: &(impl Fn() + Sync), choices: u64, shared: &Shared, shows: bool) {
    let mut shown = Instant::now();
    while on_fresh_thread(|world| {
        loop {
            // Relaxed: the numbers guard no other data; what was found is behind the lock.
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            if number >= shared.end.load(Ordering::Relaxed) {
                return false;
            }
            let order = config.order(config.seed.wrapping_add(number), choices);
            let ended = world.run(&order, f);
            shared.choices.fetch_add(ended.made.len() as u64, Ordering::Relaxed);
            if let Some(found) = Found::of(number, &order, &ended) {
                // Runs with smaller numbers still go on: what is found must not depend on which OS thread was faster.
                shared.end.fetch_min(number, Ordering::Relaxed);
                let mut first = lock(&shared.found);
                if first.as_ref().is_none_or(|first| number < first.number) {
                    *first = Some(found);
                }
                return false;
            }
            if ended.is_spoilt {
                return true;
            }
            // By the kernel's clock.
            let _own = runtime_syscall();
            if shows && number.is_multiple_of(64) && shown.elapsed() >= PROGRESS_INTERVAL {
                show(number, config.schedules, shared.began);
                shown = Instant::now();
            }
        }
    }) {}
    if shows && shared.began.elapsed() >= PROGRESS_INTERVAL {
        tell(format_args!("\n"));
    }
}

/// Shows how far an exploration is.
fn show(number: u64, of: u64, began: Instant) {
    let rate = number as f64 / began.elapsed().as_secs_f64();
    tell(format_args!("\rgreenling: {number} of {of} schedules, {rate:.0} a second"));
}

/// Prints `text` on standard error, or where a test keeps that. If it cannot be printed, what was found still counts.
fn tell(text: fmt::Arguments<'_>) {
    drop(catch_unwind(AssertUnwindSafe(|| eprint!("{text}"))));
}

/// Runs all schedules, depth first. Returns the first one that fails.
fn exhaust(config: &Config, f: &(impl Fn() + Sync), depth: usize, explored: &mut Explored) -> Option<Found> {
    let (mut prefix, mut strays) = (Some(Vec::new()), false);
    while prefix.is_some() && explored.schedules < config.schedules {
        let found = on_fresh_thread(|world| {
            while let Some(first) = prefix.take() {
                if explored.schedules >= config.schedules {
                    prefix = Some(first);
                    return None;
                }
                let order = config.order_of(config.seed, Plan::Prefix(first));
                let ended = world.run(&order, f);
                explored.schedules += 1;
                explored.choices += ended.made.len() as u64;
                explored.cut += u64::from(ended.made.len() > depth);
                strays |= matches!(&order.plan, Plan::Prefix(first) if !is_made(first, &ended.made));
                prefix = next_prefix(&ended.made, depth);
                let found = Found::of(explored.schedules - 1, &order, &ended);
                if found.is_some() || ended.is_spoilt {
                    return found;
                }
            }
            None
        });
        if found.is_some() {
            return found;
        }
    }
    // If a choice was not there again, the count went past schedules.
    explored.complete = prefix.is_none() && explored.cut == 0 && !strays;
    None
}

/// Reports whether the choices `made` begin with `prefix`, as those of each program do that has no other choices.
fn is_made(prefix: &[u32], made: &[Made]) -> bool {
    prefix.len() <= made.len() && prefix.iter().zip(made).all(|(pick, made)| *pick == made.pick)
}

/// Runs the schedule of the configuration once for each suspension, and kills the thread there. Returns the first run
/// that fails.
fn sweep_kills(config: &Config, f: &(impl Fn() + Sync), explored: &mut Explored) -> Option<Found> {
    let choices = measured_choices(config, f);
    loop {
        let (found, is_done) = on_fresh_thread(|world| {
            loop {
                // The first run kills nothing: what fails without a kill is no matter of kills.
                let order = Order { kill: explored.schedules, ..config.order(config.seed, choices) };
                let ended = world.run(&order, f);
                let found = Found::of(order.kill, &order, &ended);
                // The last run had no such suspension, and so was like the first.
                let is_done = order.kill > ended.suspensions;
                if !is_done {
                    explored.schedules += 1;
                    explored.choices += ended.made.len() as u64;
                }
                if found.is_some() || is_done || ended.is_spoilt {
                    return (found, is_done);
                }
            }
        });
        if found.is_some() || is_done {
            explored.complete = found.is_none();
            return found;
        }
    }
}

/// Runs the schedule of the configuration once without a fault that is drawn, and then once for each thing that could
/// have gone wrong there. Returns the first run that fails.
fn sweep_faults(config: &Config, f: &(impl Fn() + Sync), explored: &mut Explored) -> Option<Found> {
    let quiet = Config { faults: config.faults.clone().rate(0.0), ..config.clone() };
    let order = quiet.order(config.seed, measured_choices(&quiet, f));
    let first = on_fresh_thread(|world| world.run(&order, f));
    explored.schedules = 1;
    explored.choices = first.made.len() as u64;
    if let Some(found) = Found::of(0, &order, &first) {
        return Some(found);
    }
    let picks = deviations(&first.made);
    // A packet that the first run has lost arrives in another one.
    let possible = |at: u64| {
        let made = first.made.get(at as usize).copied().unwrap_or(Made { pick: 0, of: 0 });
        (0..made.of).filter(move |pick| *pick != made.pick).map(move |pick| (at, pick))
    };
    let mut faults = first.faults.iter().flat_map(|at| possible(*at)).peekable();
    while faults.peek().is_some() {
        let found = on_fresh_thread(|world| {
            for (at, pick) in faults.by_ref() {
                let mut picks = picks.clone();
                picks.retain(|&(other, _)| other != at);
                if pick > 0 {
                    picks.insert(picks.partition_point(|&(before, _)| before < at), (at, pick));
                }
                let order = config.order_of(config.seed, Plan::Follow(picks));
                let ended = world.run(&order, f);
                let found = Found::of(explored.schedules, &order, &ended);
                explored.schedules += 1;
                explored.choices += ended.made.len() as u64;
                if found.is_some() || ended.is_spoilt {
                    return found;
                }
            }
            None
        });
        if found.is_some() {
            return found;
        }
    }
    explored.complete = true;
    None
}

/// Shrinks what was found, and runs it once more.
fn shrunk(config: &Config, f: &(impl Fn() + Sync), found: Found) -> Failure {
    let order =
        |picks: &[(u64, u32)]| Order { kill: found.kill, ..config.order_of(found.seed, Plan::Follow(picks.to_vec())) };
    let mut picks = found.picks.clone();
    if config.shrinks {
        picks = on_fresh_thread(|world| {
            let (mut spoilt, mut turns) = (false, 0);
            shrink(picks, |picks| {
                // The rest is left as it is if the OS thread cannot go on, or if it takes too long.
                if spoilt || turns >= MOST_SHRINK_TURNS {
                    return (false, Vec::new());
                }
                let ended = world.run(&order(picks), f);
                spoilt = ended.is_spoilt;
                turns += ended.turns;
                (ended.result.is_err_and(|failed| failed.kind == found.kind), ended.made)
            })
        });
    }
    let last = Order { records: true, ..order(&picks) };
    let ended = on_fresh_thread(|world| world.run(&last, f));
    let (kind, message) = match ended.result {
        Err(failed) => (failed.kind, failed.text),
        Ok(()) => {
            let text = "a schedule failed, and did not fail again: the program depends on something besides its seed";
            (found.kind, format!("{}: {text}", found.kind))
        }
    };
    let kill = (found.kill > 0).then_some(found.kill);
    Failure {
        kind,
        message: message.into(),
        schedules: found.number + 1,
        schedule: Schedule::of_picks(found.seed, picks, kill),
        found: found.picks.len(),
        trace: Trace(ended.steps.into()),
        test: test_name().map(Into::into),
    }
}

/// Returns a schedule that fails with as few deviations as can be found: `picks`, which fails, without what can be left
/// out, or else one with fewer that was found among the schedules with one deviation, and then two, and so on. `run`
/// runs a schedule, and returns whether it fails in the same way, and its choices.
fn shrink(picks: Vec<(u64, u32)>, mut run: impl FnMut(&[(u64, u32)]) -> (bool, Vec<Made>)) -> Vec<(u64, u32)> {
    let picks = leave_out(picks, &mut run);
    // A deviation more moves all choices that follow, so one that is superfluous can often not be left out alone. But a
    // bug needs few deviations, as a rule.
    find_fewer(picks.len(), &mut run).unwrap_or(picks)
}

/// Leaves out as many of `picks` as possible: pieces of half of them, then a quarter, and so on, as in "Simplifying and
/// Isolating Failure-Inducing Input" (Zeller and Hildebrandt, 2002).
fn leave_out(mut picks: Vec<(u64, u32)>, run: &mut impl FnMut(&[(u64, u32)]) -> (bool, Vec<Made>)) -> Vec<(u64, u32)> {
    let mut runs = 0;
    let mut piece = picks.len();
    while piece > 0 {
        let (mut from, before) = (0, picks.len());
        while from < picks.len() && runs < MOST_SHRINKS {
            let mut fewer = picks.clone();
            fewer.drain(from..(from + piece).min(picks.len()));
            runs += 1;
            let (fails, made) = run(&fewer);
            let chosen = deviations(&made);
            // Only what is shorter counts, so that this ends.
            if fails && chosen.len() < picks.len() {
                picks = chosen;
            } else {
                from += piece;
            }
        }
        // Single ones are tried until none can go.
        if piece > 1 || picks.len() == before {
            piece = if piece > 1 { piece.div_ceil(2) } else { 0 };
        }
    }
    picks
}

/// Looks for a schedule with fewer than `most` deviations that fails: all of those with one, then with two, and so on,
/// as long as runs are left.
fn find_fewer(most: usize, run: &mut impl FnMut(&[(u64, u32)]) -> (bool, Vec<Made>)) -> Option<Vec<(u64, u32)>> {
    let mut queue = VecDeque::from([Vec::new()]);
    for _ in 0..MOST_SHRINKS {
        let picks = queue.pop_front().filter(|picks: &Vec<_>| picks.len() < most)?;
        let (fails, made) = run(&picks);
        if fails {
            return Some(picks);
        }
        // One more, behind the last: each list is made once.
        let from = picks.last().map_or(0, |&(at, _)| at as usize + 1);
        for (at, made) in made.iter().enumerate().skip(from) {
            if queue.len() < MOST_SHRINKS as usize {
                queue.extend((1..made.of).map(|pick| [&picks[..], &[(at as u64, pick)]].concat()));
            }
        }
    }
    None
}
