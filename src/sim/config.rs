//! [`Config`]: which schedules of a program are run, and how.
#![forbid(unsafe_code)]

use super::faults::Faults;
use super::world::Order;
use crate::pure::schedule::Plan;

/// How the choices of a schedule are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// As a hub does in life: the thread that runs goes on until it waits, and runnable threads have their turns in the
    /// order in which they became runnable. One schedule, whatever the seed, but for [`Faults`], which are drawn.
    Fifo,
    /// Each choice is drawn, and each possibility has the same chance. A good first choice.
    Random,
    /// Threads have random priorities, and the thread of the highest priority runs; at `depth - 1` random moments it
    /// gets the lowest. Finds a bug that needs `depth` orderings among n threads and k choices with a chance of at
    /// least `1 / (n * k^(depth - 1))` in each schedule: "PCT" (Burckhardt and others, ASPLOS 2010). k is taken from a
    /// run in the order of life, which comes first. `depth` 2 finds most bugs; a missing lock, for example.
    Pct {
        /// The number of orderings that the bugs need, at least 1.
        depth: u32,
    },
    /// All schedules, depth first. What follows the first `choices` choices of a run is as in life. For small programs:
    /// n choices of two have 2^n schedules.
    Exhaustive {
        /// The bound; `usize::MAX` for none.
        choices: usize,
    },
}

/// What is run: how many schedules, drawn how, on how many OS threads. See the [module](super).
///
/// ```
/// use greenling::sim::{Config, Strategy};
///
/// let config = Config::new().strategy(Strategy::Exhaustive { choices: usize::MAX });
/// let explored = config.check(|| {
///     let other = greenling::spawn(greenling::yield_now);
///     greenling::yield_now();
///     other.join().unwrap();
/// });
/// assert!(explored.unwrap().is_complete());
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) seed: u64,
    pub(super) strategy: Strategy,
    pub(super) schedules: u64,
    pub(super) os_threads: usize,
    pub(super) max_turns: u64,
    pub(super) allow_leaks: bool,
    pub(super) shrinks: bool,
    pub(super) progress: Option<bool>,
    pub(super) faults: Faults,
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

impl Config {
    /// Returns the usual configuration: 1000 schedules, drawn at random from the seeds 0, 1, 2, ..; one OS thread.
    ///
    /// May switch: no.
    pub fn new() -> Config {
        Config {
            seed: 0,
            strategy: Strategy::Random,
            schedules: 1000,
            os_threads: 1,
            max_turns: 100_000,
            allow_leaks: false,
            shrinks: true,
            progress: None,
            faults: Faults::none(),
        }
    }

    /// Sets how choices are made.
    ///
    /// May switch: no.
    #[must_use]
    pub fn strategy(self, strategy: Strategy) -> Config {
        Config { strategy, ..self }
    }

    /// Sets the seed of the first schedule; the next one has the next seed.
    ///
    /// May switch: no.
    #[must_use]
    pub fn seed(self, seed: u64) -> Config {
        Config { seed, ..self }
    }

    /// Sets the number of schedules, and for [`Strategy::Exhaustive`] the most.
    ///
    /// May switch: no.
    #[must_use]
    pub fn schedules(self, schedules: u64) -> Config {
        Config { schedules, ..self }
    }

    /// Sets the number of OS threads that share the schedules, at least 1. What is found is the same for each number.
    /// [`Strategy::Exhaustive`] uses one.
    ///
    /// May switch: no.
    #[must_use]
    pub fn os_threads(self, os_threads: usize) -> Config {
        Config { os_threads: os_threads.max(1), ..self }
    }

    /// Sets the number of turns, and of calls that need not wait, after which a run fails with
    /// [`NoEnd`](super::FailureKind::NoEnd): 100 000 unless set. Only a call can be counted: a loop without one hangs.
    ///
    /// May switch: no.
    #[must_use]
    pub fn max_turns(self, max_turns: u64) -> Config {
        Config { max_turns: max_turns.max(1), ..self }
    }

    /// Lets threads be left when main returns, as in life; they are killed. Else the others run until nothing can ever
    /// run again, and a thread that is left then is a failure, as is a socket that is still open.
    ///
    /// May switch: no.
    #[must_use]
    pub fn allow_leaks(self, allow_leaks: bool) -> Config {
        Config { allow_leaks, ..self }
    }

    /// Sets whether a schedule that fails is shrunk; yes unless set.
    ///
    /// May switch: no.
    #[must_use]
    pub fn shrink(self, shrinks: bool) -> Config {
        Config { shrinks, ..self }
    }

    /// Sets whether a line on standard error shows the progress. Unless set: if that is a terminal.
    ///
    /// May switch: no.
    #[must_use]
    pub fn progress(self, progress: bool) -> Config {
        Config { progress: Some(progress), ..self }
    }

    /// Sets what goes wrong on purpose; nothing unless set.
    ///
    /// May switch: no.
    #[must_use]
    pub fn faults(self, faults: Faults) -> Config {
        Config { faults, ..self }
    }

    /// Returns the order for one run. `choices` is how many choices a run has, for `Pct`.
    pub(super) fn order(&self, seed: u64, choices: u64) -> Order {
        let plan = match self.strategy {
            Strategy::Fifo => Plan::Fifo,
            Strategy::Random => Plan::Random,
            Strategy::Pct { depth } => Plan::Pct { depth, choices },
            Strategy::Exhaustive { .. } => Plan::Prefix(Vec::new()),
        };
        self.order_of(seed, plan)
    }

    /// Returns the order for one run with `plan`, which prints no panics.
    pub(super) fn order_of(&self, seed: u64, plan: Plan) -> Order {
        let (max_turns, allow_leaks, faults) = (self.max_turns, self.allow_leaks, self.faults.clone());
        Order { seed, plan, kill: 0, faults, max_turns, allow_leaks, quiet: true, records: false }
    }
}
