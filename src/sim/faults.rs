//! [`Faults`]: what goes wrong on purpose, how often, and when.
#![forbid(unsafe_code)]

use std::cell::Cell;

use crate::sys::fault::{FaultKind, KINDS};

/// The chance of each fault, unless another one is set: one in sixteen, in parts of 2^32.
const USUAL_CHANCE: u64 = 1 << 28;

/// What goes wrong on purpose in the runs of a [`Config`](super::Config): by seed, by plan, or both.
///
/// A fault by seed is a choice of the schedule, as a switch is: the replay line repeats it, and shrinking leaves out
/// those that the failure does not need. At each place where one of the kinds can happen, it is drawn whether it does.
/// A fault by plan happens at its place in each run, whatever the schedule.
///
/// ```
/// use greenling::sim::{Config, FaultKind, Faults};
/// use greenling::thread::park;
///
/// // A program that takes it that `park` returns only after an unpark.
/// let faults = Faults::new().only(&[FaultKind::SpuriousWake]);
/// let failure = Config::new().faults(faults).check(|| {
///     let ready = std::rc::Rc::new(std::cell::Cell::new(false));
///     let (theirs, main) = (ready.clone(), greenling::thread::current());
///     greenling::spawn(move || (greenling::yield_now(), theirs.set(true), main.unpark()));
///     park();
///     assert!(ready.get());
/// });
/// assert!(failure.unwrap_err().trace().to_string().contains("spurious wake-up"));
/// ```
#[derive(Clone, Debug)]
pub struct Faults {
    /// The chance of each kind, in parts of 2^32; none for kinds that are not drawn.
    chances: [Option<u64>; KINDS],
    /// Kinds, with the number of the place, from 1 on.
    planned: Vec<(FaultKind, u64)>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults::new()
    }
}

impl Faults {
    /// Returns all kinds but [`FaultKind::Kill`], each with a chance of one in sixteen at each place where it can
    /// happen.
    ///
    /// May switch: no.
    pub fn new() -> Faults {
        let mut chances = [Some(USUAL_CHANCE); KINDS];
        chances[FaultKind::Kill as usize] = None;
        Faults { chances, planned: Vec::new() }
    }

    /// Returns nothing: what a run has unless told otherwise.
    pub(super) fn none() -> Faults {
        Faults { chances: [None; KINDS], planned: Vec::new() }
    }

    /// Draws these kinds only; those that were not drawn have a chance of one in sixteen.
    ///
    /// May switch: no.
    #[must_use]
    pub fn only(mut self, kinds: &[FaultKind]) -> Faults {
        for kind in FaultKind::ALL {
            let chance = &mut self.chances[kind as usize];
            *chance = kinds.contains(&kind).then(|| chance.unwrap_or(USUAL_CHANCE));
        }
        self
    }

    /// Sets the chance of each kind that is drawn: 0 for never, 1 for always.
    ///
    /// # Panics
    /// If `chance` is not between 0 and 1.
    ///
    /// May switch: no.
    #[must_use]
    #[track_caller]
    pub fn rate(mut self, chance: f64) -> Faults {
        assert!((0.0..=1.0).contains(&chance), "a chance of {chance}: not between 0 and 1");
        self.chances.iter_mut().flatten().for_each(|drawn| *drawn = (chance * 4_294_967_296.0) as u64);
        self
    }

    /// Plans a fault: `kind` happens at the place with this `number` where it can happen, from 1 on, in each run.
    ///
    /// ```
    /// use greenling::sim::{Config, FaultKind, Faults};
    /// use greenling::thread::Builder;
    ///
    /// let faults = Faults::new().rate(0.0).at(FaultKind::Spawn, 2);
    /// Config::new().faults(faults).run(|| {
    ///     let spawned = [1, 2, 3].map(|_| Builder::new().spawn(|| ()).is_ok());
    ///     assert_eq!(spawned, [true, false, true]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If `number` is 0.
    ///
    /// May switch: no.
    #[must_use]
    #[track_caller]
    pub fn at(mut self, kind: FaultKind, number: u64) -> Faults {
        assert!(number > 0, "the first place has the number 1");
        self.planned.push((kind, number));
        self
    }
}

/// The faults of one run, and the places that were there so far.
#[derive(Debug)]
pub(super) struct Places {
    /// What happens, and how often.
    faults: Faults,
    /// The number of places so far, for each kind.
    seen: [Cell<u64>; KINDS],
}

impl Places {
    /// Begins a run with `faults`.
    pub(super) fn new(faults: Faults) -> Places {
        Places { faults, seen: Default::default() }
    }

    /// Reports whether nothing can happen.
    pub(super) fn is_empty(&self) -> bool {
        self.faults.planned.is_empty() && self.faults.chances.iter().all(Option::is_none)
    }

    /// Counts a place where each of `possible` can happen. Returns the one that is planned here, if one is.
    pub(super) fn meet(&self, possible: impl Iterator<Item = FaultKind>) -> Option<FaultKind> {
        let mut met = None;
        for kind in possible {
            let seen = &self.seen[kind as usize];
            seen.set(seen.get() + 1);
            if self.faults.planned.contains(&(kind, seen.get())) {
                met = met.or(Some(kind));
            }
        }
        met
    }

    /// Returns the chance of `kind`, in parts of 2^32; `None` if it is not drawn.
    pub(super) fn chance(&self, kind: FaultKind) -> Option<u64> {
        self.faults.chances[kind as usize]
    }
}
