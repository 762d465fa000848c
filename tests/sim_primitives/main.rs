//! greenling by its own means: what threads promise each other through every call that may wait, in thousands of
//! schedules, with a kill at each suspension, and with wake-ups and timers that misbehave at each.
//!
//! Each scenario asserts what must hold in every schedule. `cargo test --release --test sim_primitives -- --ignored
//! --nocapture` runs a million schedules; the usual run has some ten thousand. What would leave the simulation has no
//! scenario here: pipes, files, processes, signals, jobs on OS threads, other hubs.
//!
//! `tests/planted.rs` puts bugs of the past into a copy of the crate, and asks in how many schedules they are found.
#![forbid(unsafe_code)]

mod channels;
mod groups;
mod listed;
mod locks;
mod server;
mod shared;
mod threads;

use std::cell::Cell;
use std::env;
use std::rc::Rc;
use std::time::Duration;

use greenling::sim::{self, Config, Explored, Failure, FaultKind, Faults, Strategy};
use greenling::spawn;
use greenling::thread::JoinHandle;

/// A scenario, with its name.
type Scenario = (&'static str, fn());

/// All scenarios.
const SCENARIOS: [Scenario; 48] = [
    ("mutex", locks::mutex),
    ("mutex in order", locks::mutex_in_order),
    ("mutex with limits", locks::mutex_limits),
    ("condvar", locks::condvar),
    ("condvar that passes on", locks::condvar_passes_on),
    ("rwlock", locks::rwlock),
    ("rwlock with limits", locks::rwlock_limits),
    ("semaphore", locks::semaphore),
    ("semaphore that passes on", locks::semaphore_passes_on),
    ("event and barrier", locks::event_and_barrier),
    ("event that passes on", locks::event_passes_on),
    ("once", locks::once),
    ("wait group", locks::wait_group),
    ("async result", locks::async_result),
    ("bounded channel", channels::bounded_channel),
    ("rendezvous", channels::rendezvous),
    ("sorted channels", channels::sorted_channels),
    ("broadcast", channels::broadcast),
    ("channels of std", channels::channels_of_std),
    ("select", channels::select_takes_each_value_once),
    ("select of siblings", channels::select_meets_others_only),
    ("select that drops", channels::select_drops_what_it_has),
    ("select set", channels::select_set),
    ("timeout", channels::timeout_loses_nothing),
    ("park", threads::park_and_unpark),
    ("join", threads::joins),
    ("sleep", threads::sleeps),
    ("limits", threads::limits),
    ("scope", threads::scope_outlives_its_threads),
    ("scope with a kill that is due", threads::scope_sees_a_kill_that_is_due),
    ("scope that fails", threads::try_scope_ends_at_once),
    ("locals", threads::locals),
    ("greenlets", threads::greenlets),
    ("futures", threads::futures),
    ("end of an awaited thread", threads::a_task_is_told_of_an_end),
    ("group and pool", groups::group_and_pool),
    ("group", groups::group_gives_each_result_once),
    ("many at once", groups::many_at_once),
    ("pool with limits", groups::pool_with_limits),
    ("pool that maps", groups::pool_maps),
    ("pool of own threads", groups::pool_of_own_threads),
    ("mutex between hubs", shared::mutex),
    ("rwlock between hubs", shared::rwlock),
    ("condvar between hubs", shared::condvar),
    ("semaphore between hubs", shared::semaphore),
    ("once between hubs", shared::once),
    ("channel between hubs", shared::channels),
    ("drain under partitions", server::drain_under_partitions),
];

/// The orders in which threads are killed at each suspension: that of life, and some others.
const ORDERS: [(Strategy, u64); 4] =
    [(Strategy::Fifo, 0), (Strategy::Random, 1), (Strategy::Random, 2), (Strategy::Random, 3)];

/// The unit of virtual time.
const TICK: Duration = Duration::from_micros(1);

/// A limit that only what hangs reaches.
const SOON: Duration = Duration::from_secs(1);

/// Starts `count` threads of `f`, which gets their number.
fn threads<T: 'static>(count: usize, f: impl Fn(usize) -> T + 'static) -> Vec<JoinHandle<T>> {
    let f = Rc::new(f);
    (0..count)
        .map(|number| {
            let f = Rc::clone(&f);
            spawn(move || f(number))
        })
        .collect()
}

/// Waits for all, and returns what those gave that were not killed.
fn join_all<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads
        .into_iter()
        .filter_map(|thread| thread.join().map_err(|error| assert!(!error.is_panic(), "{error}")).ok())
        .collect()
}

/// Counts its owner while it lives.
struct Count<'a>(&'a Cell<u32>);

impl Count<'_> {
    fn of(count: &Cell<u32>) -> Count<'_> {
        count.set(count.get() + 1);
        Count(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

thread_local! {
    /// Whether the scenario that runs is one of a sweep.
    static SWEEPS: Cell<bool> = const { Cell::new(false) };
}

/// Reports whether a thread of the scenario may have been killed.
fn may_be_killed() -> bool {
    SWEEPS.get()
}

/// Explores a scenario in `schedules` schedules of a strategy.
fn explore(scenario: fn(), strategy: Strategy, schedules: u64) -> Result<Explored, Failure> {
    Config::new().strategy(strategy).schedules(schedules).os_threads(2).check(|| {
        SWEEPS.set(false);
        scenario();
    })
}

/// Kills each thread of a scenario at each of its suspensions, in one schedule of a strategy.
fn sweep(scenario: fn(), strategy: Strategy, seed: u64) -> Result<Explored, Failure> {
    Config::new().strategy(strategy).seed(seed).check_kills(|| {
        SWEEPS.set(true);
        scenario();
    })
}

/// Explores each scenario in `schedules` schedules of each strategy that draws.
fn explore_all(schedules: u64) {
    let (mut total, mut choices, mut failed) = (0, 0, String::new());
    for (name, scenario) in SCENARIOS {
        for strategy in [Strategy::Random, Strategy::Pct { depth: 3 }] {
            match explore(scenario, strategy, schedules) {
                Ok(explored) => (total, choices) = (total + explored.schedules(), choices + explored.choices()),
                Err(failure) => failed += &format!("{name}, {strategy:?}: {failure}\n{}\n", failure.trace()),
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
    println!("{total} schedules, {choices} choices: every promise held");
}

#[test]
fn every_promise_holds_in_ten_thousand_schedules() {
    explore_all(10_000 / (2 * SCENARIOS.len() as u64) + 1);
}

#[test]
#[ignore = "takes a minute in a release build"]
fn every_promise_holds_in_a_million_schedules() {
    explore_all(1_000_000 / (2 * SCENARIOS.len() as u64) + 1);
}

#[test]
fn a_kill_at_any_suspension_leaves_nothing_behind() {
    let (mut total, mut failed) = (0, String::new());
    for (name, scenario) in SCENARIOS {
        // In the order of life, and in some others.
        for (strategy, seed) in ORDERS {
            match sweep(scenario, strategy, seed) {
                Ok(swept) => total += swept.schedules(),
                Err(failure) => failed += &format!("{name}, {strategy:?}: {failure}\n{}\n", failure.trace()),
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
    println!("{total} kills: every promise held");
    assert!(sim::seed().is_none() && total > 1000, "{total}");
}

/// What `tests/planted.rs` runs in a copy of the crate that has a bug: prints in how many schedules each strategy finds
/// it, and how many kills a sweep needs, with the scenario that `GREENLING_SCENARIO` names.
#[test]
#[ignore = "run by tests/planted.rs"]
fn a_bug_is_found_soon() {
    let named = env::var("GREENLING_SCENARIO").unwrap_or_default();
    for (name, scenario) in SCENARIOS.into_iter().filter(|(name, _)| *name == named) {
        let mut columns = Vec::new();
        for strategy in [Strategy::Fifo, Strategy::Random, Strategy::Pct { depth: 3 }] {
            columns.push(explore(scenario, strategy, 2000).map(drop).map_err(|failure| failure.schedules()));
        }
        // The sweeps one after the other, until one finds it.
        let mut kills = 0;
        columns.push(ORDERS.into_iter().try_for_each(|(strategy, seed)| match sweep(scenario, strategy, seed) {
            Ok(swept) => {
                kills += swept.schedules();
                Ok(())
            }
            Err(failure) => Err(kills + failure.schedules()),
        }));
        let columns: Vec<_> = columns
            .into_iter()
            .map(|found| found.err().map_or("never".to_owned(), |schedules: u64| schedules.to_string()))
            .collect();
        println!("found: {name} {}", columns.join(" | "));
    }
}

/// Returns what may go wrong in a scenario without an end to its promises.
fn faults_of(name: &str) -> Faults {
    use FaultKind::{LateTimer, SpuriousWake, Timeout};
    Faults::new().only(match name {
        // Parks to the end of a limit, with nothing else to wait for.
        "limits" => &[],
        // To the tick.
        "event that passes on" | "async result" | "broadcast" | "join" | "sleep" | "scope that fails" => {
            &[SpuriousWake]
        }
        // A receiver that asks at each tick asks a million times while a sender is late by a second.
        "timeout" => &[SpuriousWake, Timeout],
        // A thread that gives up after a while has its reason only if the others are not held up.
        "condvar"
        | "condvar between hubs"
        | "select"
        | "end of an awaited thread"
        | "many at once"
        | "park"
        | "wait group" => &[SpuriousWake, LateTimer],
        _ => &[SpuriousWake, LateTimer, Timeout],
    })
}

#[test]
fn a_fault_at_any_place_breaks_no_promise() {
    let (mut total, mut failed) = ((0, 0), String::new());
    for (name, scenario) in SCENARIOS {
        // As after a kill: not all get as far as they would.
        let scenario = || {
            SWEEPS.set(true);
            scenario();
        };
        let config = Config::new().faults(faults_of(name));
        // One of them at each place in turn, in the order of life and in another; and several, drawn.
        for (strategy, seed) in &ORDERS[..2] {
            match config.clone().strategy(*strategy).seed(*seed).check_faults(scenario) {
                Ok(swept) => total.0 += swept.schedules(),
                Err(failure) => failed += &format!("{name}: {failure}\n{}\n", failure.trace()),
            }
        }
        match config.schedules(50).check(scenario) {
            Ok(explored) => total.1 += explored.schedules(),
            Err(failure) => failed += &format!("{name}: {failure}\n{}\n", failure.trace()),
        }
    }
    assert!(failed.is_empty(), "{failed}");
    println!("{} runs with one fault, {} with drawn ones: every promise held", total.0, total.1);
    assert!(total.0 > 500, "{total:?}");
}
