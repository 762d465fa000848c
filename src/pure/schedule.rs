//! Schedules: the choices of a simulated hub, drawn from a seed, replayed, or enumerated.
//!
//! A simulated program is a function of its choices: which runnable thread goes on, which arm of a `select!` is tried
//! first, whether a call fails on purpose. Each choice is a number below the count of what can be chosen, and 0 is what
//! a hub does in life: the thread that runs goes on, or the first of the run queue has its turn. So a schedule is the
//! list of its choices, and the shortest description of one is the list of those that are not 0.
//!
//! ```text
//!   choices     0  0  2  0  1  0  0 ..        the text      17:2.2,4.1
//!   number      0  1  2  3  4  5  6            seed 17; choice 2 is 2, choice 4 is 1, all others are 0
//! ```
//!
//! | plan | a choice is |
//! |---|---|
//! | `Fifo` | 0 |
//! | `Random` | drawn, each with the same chance |
//! | `Pct` | the runnable thread of the highest priority; at `depth - 1` drawn moments, the running one gets the lowest |
//! | `Follow` | what the schedule says, else 0 |
//! | `Prefix` | what the list says, and 0 after its end |
//!
//! Whether something goes wrong on purpose is drawn in `Fifo`, too. Where nothing is to go wrong, that is no choice.
//!
//! `Pct` is the scheduler of "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs" (Burckhardt,
//! Kothari, Musuvathi and Nagarakatte, ASPLOS 2010): of n threads and k choices, a bug that needs `depth` ordering
//! constraints is found with a chance of at least `1 / (n * k^(depth - 1))`. A thread that yields gets the lowest
//! priority, so that one that waits in a loop of yields does not run for ever.
//!
//! * Invariant schedule-1: nothing here depends on an address, a clock or a hash: equal plans and seeds give equal
//!   choices, if the program asks equal questions.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;

use super::random::Random;

/// One schedule of a simulated program, as text: the seed, then what differs from the order of life.
///
/// `17` is a seed: the choices are drawn. `17:2.2,4.1` is a schedule: choice 2 takes possibility 2, choice 4 takes
/// possibility 1, and each other choice is what a hub does in life; the seed is that of
/// [`sim::random`](crate::sim::random). `17:k3` kills the thread that is the third to leave the CPU.
///
/// ```
/// use greenling::sim::Schedule;
///
/// let schedule: Schedule = "17:2.2,4.1".parse().unwrap();
/// assert_eq!((schedule.seed(), schedule.deviations()), (17, 2));
/// assert_eq!(schedule.to_string(), "17:2.2,4.1");
/// assert!("17:2".parse::<Schedule>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// What random numbers come from, those of choices and those of the program.
    seed: u64,
    /// The choices that are not 0, by their numbers, ascending; `None` if the choices are to be drawn.
    picks: Option<Vec<(u64, u32)>>,
    /// The number of the suspension at which the thread that suspends is killed, from 1 on.
    kill: Option<u64>,
}

impl Schedule {
    /// Returns the schedule that `seed` gives with the strategy of the exploration.
    pub(crate) fn drawn(seed: u64) -> Schedule {
        Schedule { seed, picks: None, kill: None }
    }

    /// Returns the schedule with these choices that are not 0.
    pub(crate) fn of_picks(seed: u64, picks: Vec<(u64, u32)>, kill: Option<u64>) -> Schedule {
        Schedule { seed, picks: Some(picks), kill }
    }

    /// Returns the seed.
    ///
    /// May switch: no.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns how many choices differ from what a hub does in life; 0 for a schedule that is only a seed.
    ///
    /// May switch: no.
    pub fn deviations(&self) -> usize {
        self.picks.as_ref().map_or(0, Vec::len)
    }

    /// Returns the choices that are not 0; `None` if the choices are to be drawn.
    pub(crate) fn picks(&self) -> Option<&[(u64, u32)]> {
        self.picks.as_deref()
    }

    /// Returns at which suspension a thread is killed.
    pub(crate) fn kill(&self) -> Option<u64> {
        self.kill
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        let Some(picks) = &self.picks else { return Ok(()) };
        let mut separator = ':';
        for (at, pick) in picks {
            write!(f, "{separator}{at}.{pick}")?;
            separator = ',';
        }
        match self.kill {
            Some(kill) => write!(f, "{separator}k{kill}"),
            None if picks.is_empty() => f.write_str(":"),
            None => Ok(()),
        }
    }
}

/// The error of a text that is no schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseScheduleError(String);

impl fmt::Display for ParseScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no schedule: a schedule is a seed such as 17, or a seed and choices such as 17:2.2,4.1",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for ParseScheduleError {}

/// Returns an error of kind `InvalidInput`.
impl From<ParseScheduleError> for io::Error {
    fn from(error: ParseScheduleError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl FromStr for Schedule {
    type Err = ParseScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ParseScheduleError> {
        parse(text).ok_or_else(|| ParseScheduleError(text.to_owned()))
    }
}

/// Returns the schedule that `text` is; `None` if it is none.
fn parse(text: &str) -> Option<Schedule> {
    let Some((seed, rest)) = text.split_once(':') else {
        return Some(Schedule::drawn(text.parse().ok()?));
    };
    let (mut picks, mut kill) = (Vec::<(u64, u32)>::new(), None);
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        if let Some(number) = part.strip_prefix('k') {
            kill = Some(number.parse().ok()?);
            continue;
        }
        let (at, pick) = part.split_once('.')?;
        let (at, pick) = (at.parse().ok()?, pick.parse().ok()?);
        // The chooser goes through them in order.
        if picks.last().is_some_and(|&(before, _)| before >= at) {
            return None;
        }
        picks.push((at, pick));
    }
    Some(Schedule::of_picks(seed.parse().ok()?, picks, kill))
}

/// How choices are made; see the table of the file.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Each choice is 0.
    Fifo,
    /// Each choice is drawn.
    Random,
    /// Priorities, with `depth - 1` changes among the first `choices` choices.
    Pct {
        /// The number of ordering constraints of the bugs that are looked for, at least 1.
        depth: u32,
        /// The number of choices that a run is expected to have.
        choices: u64,
    },
    /// The choices that are not 0, by their numbers, ascending.
    Follow(Vec<(u64, u32)>),
    /// The first choices, one after the other.
    Prefix(Vec<u32>),
}

/// A choice that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// The possibility that was taken.
    pub(crate) pick: u32,
    /// How many possibilities there were, at least 2.
    pub(crate) of: u32,
}

/// The priorities of `Pct`.
#[derive(Debug)]
struct Priorities {
    /// The priority of each thread that was seen.
    of: BTreeMap<u64, i64>,
    /// The numbers of the choices at which the priority changes, with the priority that it changes to.
    changes: Vec<(u64, i64)>,
    /// The lowest priority that was given to a thread that yields.
    lowest: i64,
}

/// What makes the choices of one run.
#[derive(Debug)]
pub(crate) struct Chooser {
    /// How choices are made.
    plan: Plan,
    /// What is drawn from.
    random: Random,
    /// The choices so far.
    made: Vec<Made>,
    /// The number of choices of the plan that were used.
    used: usize,
    /// The priorities; empty for other plans.
    priorities: Priorities,
    /// The numbers of the choices whether something goes wrong.
    faults: Vec<u64>,
}

impl Chooser {
    /// Begins a run with `seed`. The memory of `made`, the choices of an earlier run, is used again.
    pub(crate) fn new(seed: u64, plan: Plan, mut made: Vec<Made>) -> Chooser {
        made.clear();
        let mut random = Random::new(seed);
        let mut priorities = Priorities { of: BTreeMap::new(), changes: Vec::new(), lowest: 0 };
        if let Plan::Pct { depth, choices } = plan {
            // No run comes near to 2^32 choices; the number may be that of a bound.
            let choices = choices.clamp(1, u64::from(u32::MAX));
            let changes = (1..i64::from(depth)).map(|priority| (random.below(choices), priority));
            priorities.changes = changes.collect();
        }
        Chooser { plan, random, made, used: 0, priorities, faults: Vec::new() }
    }

    /// Takes the choices that were made.
    pub(crate) fn take_made(&mut self) -> Vec<Made> {
        std::mem::take(&mut self.made)
    }

    /// Takes the numbers of the choices whether something goes wrong, ascending.
    pub(crate) fn take_faults(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.faults)
    }

    /// Chooses whether something goes wrong: 0 for nothing, 1 for the first of the faults that have these `chances`, in
    /// parts of 2^32, and so on. Drawn in `Fifo`, too: it is the threads that run as in life there.
    pub(crate) fn fault(&mut self, chances: impl ExactSizeIterator<Item = u64>) -> usize {
        if chances.len() > 0 {
            self.faults.push(self.made.len() as u64);
        }
        self.choose(chances.len() + 1, |chooser| {
            if chooser.is_listed() {
                return 0;
            }
            let mut drawn = chooser.random.next() >> 32;
            for (number, chance) in (1..).zip(chances) {
                match drawn.checked_sub(chance) {
                    None => return number,
                    Some(rest) => drawn = rest,
                }
            }
            0
        })
    }

    /// Reports whether the plan is a list of choices, so that none is drawn.
    fn is_listed(&self) -> bool {
        matches!(self.plan, Plan::Follow(_) | Plan::Prefix(_))
    }

    /// Chooses one of `of` possibilities that are not threads. Returns 0 if there is only one, which is no choice.
    pub(crate) fn draw(&mut self, of: usize) -> usize {
        self.choose(of, |chooser| match chooser.plan {
            Plan::Random | Plan::Pct { .. } => chooser.random.below(of as u64),
            _ => 0,
        })
    }

    /// Chooses which of `of` runnable threads goes on; `id` returns the number of each. `yielded` is the number of the
    /// thread that has just yielded, if one has.
    pub(crate) fn pick(&mut self, of: usize, yielded: Option<u64>, id: impl Fn(usize) -> u64) -> usize {
        if let (Plan::Pct { .. }, Some(yielded)) = (&self.plan, yielded) {
            self.priorities.lowest -= 1;
            self.priorities.of.insert(yielded, self.priorities.lowest);
        }
        self.choose(of, |chooser| match chooser.plan {
            Plan::Random => chooser.random.below(of as u64),
            Plan::Pct { .. } => chooser.by_priority(of, id) as u64,
            _ => 0,
        })
    }

    /// Makes a choice: that of the plan if it lists choices, else what `draw` returns.
    #[inline]
    fn choose(&mut self, of: usize, draw: impl FnOnce(&mut Chooser) -> u64) -> usize {
        if of < 2 {
            return 0;
        }
        let number = self.made.len();
        let listed = match &self.plan {
            Plan::Prefix(picks) => picks.get(number).copied(),
            Plan::Follow(picks) => match picks.get(self.used) {
                Some(&(at, pick)) if at == number as u64 => {
                    self.used += 1;
                    Some(pick)
                }
                _ => None,
            },
            _ => None,
        };
        // A list that belongs to another program may name what is not there.
        let pick = listed.map_or_else(|| draw(self), u64::from).min(of as u64 - 1);
        // No run has 2^32 threads.
        self.made.push(Made { pick: pick as u32, of: of as u32 });
        pick as usize
    }

    /// Returns the thread of the highest priority, after the changes that are due.
    fn by_priority(&mut self, of: usize, id: impl Fn(usize) -> u64) -> usize {
        for number in 0..of {
            if !self.priorities.of.contains_key(&id(number)) {
                // Above the priorities that changes give. Of two equal ones, the first goes first.
                let drawn = (1 << 32) + (self.random.next() >> 32) as i64;
                self.priorities.of.insert(id(number), drawn);
            }
        }
        let mut first = self.highest(of, &id);
        let now = self.made.len() as u64;
        // Also those of the choices before that were not of a thread.
        while let Some(due) = self.priorities.changes.iter().position(|&(choice, _)| choice <= now) {
            let (_, priority) = self.priorities.changes.remove(due);
            self.priorities.of.insert(id(first), priority);
            first = self.highest(of, &id);
        }
        first
    }

    /// Returns the thread of the highest priority.
    fn highest(&self, of: usize, id: &impl Fn(usize) -> u64) -> usize {
        let priority = |number: &usize| (self.priorities.of.get(&id(*number)).copied(), std::cmp::Reverse(*number));
        (0..of).max_by_key(priority).unwrap_or(0)
    }
}

/// Returns the choices that are not 0, by their numbers.
pub(crate) fn deviations(made: &[Made]) -> Vec<(u64, u32)> {
    let numbered = made.iter().enumerate().map(|(at, made)| (at as u64, made.pick));
    numbered.filter(|&(_, pick)| pick != 0).collect()
}

/// Returns the first choices of the next run, in the order of depth first, after one with the choices `made`: the last
/// of the first `depth` choices that has a possibility left takes it. `None` after the last run.
pub(crate) fn next_prefix(made: &[Made], depth: usize) -> Option<Vec<u32>> {
    let within = &made[..made.len().min(depth)];
    let last = within.iter().rposition(|made| made.pick + 1 < made.of)?;
    let mut prefix: Vec<u32> = within[..=last].iter().map(|made| made.pick).collect();
    prefix[last] += 1;
    Some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program of `choices` choices of three.
    fn run(seed: u64, plan: Plan, choices: usize) -> Vec<Made> {
        let mut chooser = Chooser::new(seed, plan, Vec::new());
        for _ in 0..choices {
            chooser.pick(3, None, |number| number as u64);
        }
        chooser.take_made()
    }

    #[test]
    fn a_schedule_is_what_its_text_says() {
        for text in ["0", "17", "17:", "17:2.2", "17:2.2,4.1", "3:k9", "18446744073709551615:0.1,7.2,k1"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in ["", "x", "17:2", "17:2.x", "17:4.1,2.2", "-1", "17:k", "1\n7"] {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains("is no schedule") && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn equal_seeds_give_equal_choices() {
        for plan in [Plan::Random, Plan::Pct { depth: 3, choices: 50 }] {
            assert_eq!(run(5, plan.clone(), 100), run(5, plan.clone(), 100));
            assert_ne!(run(5, plan.clone(), 100), run(6, plan, 100));
        }
    }

    #[test]
    fn what_was_chosen_can_be_followed() {
        let made = run(5, Plan::Random, 100);
        assert_eq!(run(0, Plan::Follow(deviations(&made)), 100), made);
    }

    #[test]
    fn faults_have_their_chances_and_can_be_followed() {
        let run = |plan| {
            let mut chooser = Chooser::new(3, plan, Vec::new());
            let faults: Vec<_> = (0..1_000).map(|_| chooser.fault([1 << 30, 1 << 31].into_iter())).collect();
            (faults, chooser.take_faults(), chooser.take_made())
        };
        let (faults, places, made) = run(Plan::Fifo);
        let counts = [0, 1, 2].map(|fault| faults.iter().filter(|drawn| **drawn == fault).count());
        assert!((200..300).contains(&counts[0]) && (200..300).contains(&counts[1]), "{counts:?}");
        assert!(places.into_iter().eq(0..1_000));
        assert_eq!(run(Plan::Follow(deviations(&made))).0, faults);
        assert!(run(Plan::Follow(Vec::new())).0.iter().all(|fault| *fault == 0), "no fault unless it is listed");
        // Always, and never.
        let mut chooser = Chooser::new(3, Plan::Random, Vec::new());
        assert!((0..100).all(|_| chooser.fault([0, 1 << 32].into_iter()) == 2));
    }

    #[test]
    fn depth_first_comes_to_each_schedule_once() {
        let mut seen = std::collections::BTreeSet::new();
        let mut prefix = Some(Vec::new());
        while let Some(first) = prefix {
            let made = run(0, Plan::Prefix(first), 4);
            prefix = next_prefix(&made, usize::MAX);
            assert!(seen.insert(made.iter().map(|made| made.pick).collect::<Vec<_>>()));
        }
        assert_eq!(seen.len(), 3usize.pow(4));
    }

    #[test]
    fn a_bound_on_the_depth_leaves_the_rest_as_in_life() {
        let mut runs = 0;
        let mut prefix = Some(Vec::new());
        while let Some(first) = prefix {
            let made = run(0, Plan::Prefix(first), 4);
            assert!(made[2..].iter().all(|made| made.pick == 0));
            prefix = next_prefix(&made, 2);
            runs += 1;
        }
        assert_eq!(runs, 9);
    }

    #[test]
    fn the_highest_priority_runs_until_it_changes() {
        let plan = Plan::Pct { depth: 1, choices: 10 };
        let made = run(9, plan, 50);
        assert!(made.iter().all(|each| each.pick == made[0].pick), "without changes one thread runs on");
        let plan = Plan::Pct { depth: 2, choices: 50 };
        let made = run(9, plan, 50);
        assert_eq!(made.windows(2).filter(|pair| pair[0] != pair[1]).count(), 1);
    }

    #[test]
    fn a_change_of_priority_waits_for_the_next_choice_of_a_thread() {
        for seed in 0..50 {
            let mut chooser = Chooser::new(seed, Plan::Pct { depth: 2, choices: 20 }, Vec::new());
            // Of 21 choices only the first and the last are of a thread.
            let first = chooser.pick(2, None, |number| number as u64);
            (0..19).for_each(|_| assert!(chooser.draw(2) < 2));
            let is_changed = chooser.pick(2, None, |number| number as u64) != first;
            let at_once = Random::new(seed).below(20) == 0;
            assert_ne!(is_changed, at_once, "seed {seed}");
        }
        // A bound of any size is a number of choices.
        run(1, Plan::Pct { depth: 3, choices: u64::MAX }, 10);
    }

    #[test]
    fn a_thread_that_yields_does_not_run_for_ever() {
        let mut chooser = Chooser::new(1, Plan::Pct { depth: 1, choices: 10 }, Vec::new());
        let first = chooser.pick(2, None, |number| number as u64);
        assert_ne!(chooser.pick(2, Some(first as u64), |number| number as u64), first);
    }
}
