//! What an exploration returns: what was covered, or how a schedule failed; and the steps of a run.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::{self, Write};
use std::io;
use std::time::Duration;

use crate::pure::network::Mishap;
use crate::pure::schedule::Schedule;
use crate::sys::fault::Fault;

/// What kind of failure a run had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// Main panicked, or a thread that no other thread joins.
    Panic,
    /// Nothing could ever run again, and main had not returned.
    Deadlock,
    /// Main had returned, and something was left: threads that could never end, a [`Tracked`](super::Tracked) value, an
    /// open socket, or what was to be [free at the end](super::free_at_end).
    Leak,
    /// An [`invariant`](super::invariant) did not hold.
    Invariant,
    /// The run had [as many turns as it may have](super::Config::max_turns).
    NoEnd,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureKind::Panic => "panic",
            FailureKind::Deadlock => "deadlock",
            FailureKind::Leak => "leak",
            FailureKind::Invariant => "invariant",
            FailureKind::NoEnd => "no end",
        })
    }
}

/// A schedule that fails: what went wrong, and how to run it again.
#[derive(Clone, Debug)]
pub struct Failure {
    pub(super) kind: FailureKind,
    pub(super) message: Box<str>,
    pub(super) schedules: u64,
    pub(super) schedule: Schedule,
    pub(super) found: usize,
    pub(super) trace: Trace,
    pub(super) test: Option<Box<str>>,
}

impl Failure {
    /// Returns what kind of failure it is.
    ///
    /// May switch: no.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Returns the message of the panic, or the report of the deadlock or leak.
    ///
    /// May switch: no.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the seed of the schedule that failed first.
    ///
    /// May switch: no.
    pub fn seed(&self) -> u64 {
        self.schedule.seed()
    }

    /// Returns the number of the schedule that failed first, from 1 on.
    ///
    /// May switch: no.
    pub fn schedules(&self) -> u64 {
        self.schedules
    }

    /// Returns the schedule that fails with the fewest deviations that were found.
    ///
    /// May switch: no.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Returns how many [deviations](Schedule::deviations) the schedule had that failed first.
    ///
    /// May switch: no.
    pub fn found_with(&self) -> usize {
        self.found
    }

    /// Returns the steps of the shrunk schedule.
    ///
    /// May switch: no.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns the line that runs the shrunk schedule again. It names the running test, if there is one.
    ///
    /// May switch: no.
    pub fn replay(&self) -> String {
        replay(&self.schedule, self.test.as_deref())
    }
}

/// Returns the line that runs `schedule` again, in `test` if one is given.
pub(super) fn replay(schedule: &Schedule, test: Option<&str>) -> String {
    match test {
        // The name may be the begin of another one's.
        Some(test) => format!("GREENLING_SEED={schedule} cargo test {test} -- --exact"),
        None => format!("GREENLING_SEED={schedule}"),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)?;
        writeln!(
            f,
            "  in schedule {} (seed {}); shrunk from {} deviations from the order of life to {}",
            self.schedules,
            self.seed(),
            self.found,
            self.schedule.deviations()
        )?;
        write!(f, "  replay: {}", self.replay())
    }
}

impl Error for Failure {}

/// Returns an error of kind `Other`.
impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::other(failure)
    }
}

/// What an exploration without a failure has covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    pub(super) schedules: u64,
    pub(super) complete: bool,
    pub(super) cut: u64,
    pub(super) choices: u64,
    pub(super) time: Duration,
}

impl Explored {
    /// Returns how many schedules were run.
    ///
    /// May switch: no.
    pub fn schedules(&self) -> u64 {
        self.schedules
    }

    /// Reports whether these were all schedules that there are: never so for a strategy that draws, nor if a schedule
    /// was [cut](Self::cut), or a choice was not there again, since the program depends on something else.
    ///
    /// May switch: no.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns how many of the schedules had more choices than the bound of
    /// [`Strategy::Exhaustive`](super::Strategy::Exhaustive), so that what follows the bound was run in one order only.
    ///
    /// May switch: no.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Returns how many choices all schedules had together.
    ///
    /// May switch: no.
    pub fn choices(&self) -> u64 {
        self.choices
    }

    /// Returns how long the exploration took, in real time.
    ///
    /// May switch: no.
    pub fn time(&self) -> Duration {
        self.time
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} schedules, {} choices", self.schedules, self.choices)?;
        match (self.complete, self.cut) {
            (true, _) => f.write_str("; there are no others"),
            (false, 0) => f.write_str("; there may be others"),
            (false, cut) => write!(f, "; there are others, since {cut} were cut at the bound"),
        }
    }
}

/// What happened in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepKind {
    /// The thread got the CPU.
    Runs,
    /// The thread makes a call that need not wait, and goes on.
    GoesOn,
    /// The thread gets the CPU in the middle of another one.
    Preempts,
    /// The thread draws, as `select!` does.
    Draws,
    /// Something happens to a packet by chance.
    Packet(Mishap),
    /// Something goes wrong for the thread, on purpose. There are no possibilities if that was planned.
    Fault(Fault),
}

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The time since the start of the virtual clock.
    pub(super) at: Duration,
    /// The number of the thread; main is 1, and others count from 2 on.
    pub(super) thread: u64,
    /// The way in which the thread came to this step.
    pub(super) what: StepKind,
    /// The possibility that was taken.
    pub(super) picked: u32,
    /// How many possibilities there were.
    pub(super) of: u32,
}

/// The steps of a run, in order: which thread had each turn, and each choice. Its text is the same, byte for byte,
/// whenever the same schedule of the same program is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(pub(super) Box<[Step]>);

impl Trace {
    /// Returns how many steps there are.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether there are no steps.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many things went wrong on purpose; see [`Faults`](super::Faults).
    ///
    /// May switch: no.
    pub fn faults(&self) -> usize {
        self.0.iter().filter(|step| matches!(step.what, StepKind::Fault(_))).count()
    }

    /// Returns how often a thread lost the CPU in a call that need not have waited.
    ///
    /// May switch: no.
    pub fn preemptions(&self) -> usize {
        self.0.iter().filter(|step| step.what == StepKind::Preempts).count()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        for step in self.0.iter() {
            line.clear();
            let _ = write!(line, "{:?}", step.at);
            let what = match step.what {
                StepKind::Runs => "runs",
                StepKind::GoesOn => "goes on",
                StepKind::Preempts => "runs first",
                StepKind::Draws => "draws",
                StepKind::Packet(mishap) => {
                    let how = match mishap {
                        Mishap::Lost => "lost",
                        Mishap::Doubled => "doubled",
                        Mishap::Late => "late",
                    };
                    writeln!(f, "{line:>12}  a packet is {how} ({} of {})", step.picked, step.of)?;
                    continue;
                }
                StepKind::Fault(fault) => {
                    write!(f, "{line:>12}  #{} fault: {fault}", step.thread)?;
                    match step.of {
                        0 => writeln!(f, " (planned)")?,
                        of => writeln!(f, " ({} of {of})", step.picked)?,
                    }
                    continue;
                }
            };
            writeln!(f, "{line:>12}  #{} {what} ({} of {})", step.thread, step.picked, step.of)?;
        }
        Ok(())
    }
}
