//! Tries all patches, many of them at once.
//!
//! ```text
//!   builder     batch 1    batch 2        batch 3       ..    what failed in a batch, alone
//!   runner                 tests of 1     tests of 2    ..
//! ```
//!
//! To build the crate takes longer than to run a test. So patches share builds, and the tests of one batch run while
//! the next one is built, from copies of their programs. That the patches of a batch do not disturb each other is what
//! the patches say of themselves. What does not end in its batch as it should has another try alone, which counts.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use super::copy::Copy;
use super::patch::{End, Patch};
use super::trial::{self, Ended, complaint, culprit};
use super::{NAME, cli, prepare};

/// The programs of a batch by target, or why there are none.
type Built = Result<BTreeMap<String, PathBuf>, String>;

/// A patch, and how its test has ended, or why it did not run.
type Tried<'a> = (&'a Patch, Result<Ended, String>);

/// Sorts the patches into those that are built at once: first solutions, which change no line of the crate, then
/// batches, then what stands alone.
fn batches(patches: &[Patch]) -> Vec<Vec<&Patch>> {
    let (solutions, others): (Vec<&Patch>, Vec<&Patch>) = patches.iter().partition(|patch| patch.solves);
    let mut named: BTreeMap<&str, Vec<&Patch>> = BTreeMap::new();
    let mut alone = Vec::new();
    for patch in others {
        match &patch.batch {
            Some(batch) => named.entry(batch).or_default().push(patch),
            None => alone.push(vec![patch]),
        }
    }
    let solutions = solutions.into_iter().map(|patch| vec![patch]);
    solutions.chain(named.into_values()).chain(alone).collect()
}

/// Counts what did not end as it should.
struct Judge {
    /// When the first build began.
    begin: Instant,
    /// How many patches did not end as they say.
    wrong: usize,
    /// The numbers of those that get another try.
    again: Vec<String>,
}

impl Judge {
    /// Judges a batch. What fails in a batch of several is tried again.
    fn judge(&mut self, batch: Vec<Tried<'_>>) {
        let is_last = batch.len() == 1;
        for (patch, ended) in batch {
            let complaint = ended.as_ref().map_or_else(|what| Some(what.clone()), |ended| complaint(patch, ended));
            if complaint.is_some() && !is_last {
                self.again.push(patch.number.clone());
                continue;
            }
            self.wrong += usize::from(complaint.is_some());
            say(patch, &ended, complaint.as_deref(), self.begin);
        }
    }

    /// Judges a batch of which the tests may still run.
    fn finish(&mut self, running: Option<ScopedJoinHandle<'_, Vec<Tried<'_>>>>) {
        match running.map(ScopedJoinHandle::join) {
            None => {}
            Some(Ok(batch)) => self.judge(batch),
            Some(Err(payload)) => std::panic::resume_unwind(payload),
        }
    }
}

/// Tries all patches, and prints a line for each. Returns how many did not end as they say.
pub(crate) fn try_all(copy: &Copy, patches: &[Patch]) -> usize {
    let mut judge = Judge { begin: Instant::now(), wrong: 0, again: Vec::new() };
    thread::scope(|scope| {
        let mut running: Option<ScopedJoinHandle<'_, Vec<Tried<'_>>>> = None;
        for batch in batches(patches) {
            let built = prepare(copy, &batch).and_then(|tests| keep(copy, tests));
            judge.finish(running.take());
            // A test that reads the copy runs before the next batch changes it.
            let reads = batch.iter().any(|patch| patch.target == "docs");
            running = Some(scope.spawn(move || run_batch(copy, &batch, &built)));
            if reads {
                judge.finish(running.take());
            }
        }
        judge.finish(running.take());
    });
    let again = std::mem::take(&mut judge.again);
    for patch in patches.iter().filter(|patch| !patch.solves && again.contains(&patch.number)) {
        let built = prepare(copy, &[patch]).and_then(|tests| keep(copy, tests));
        judge.judge(run_batch(copy, &[patch], &built));
    }
    cli::say(NAME, format_args!("{} of {} as the book says", patches.len() - judge.wrong, patches.len()));
    judge.wrong
}

/// Prints the verdict about a patch, with all that its test has said if it is not as it should be.
fn say(patch: &Patch, ended: &Result<Ended, String>, complaint: Option<&str>, begin: Instant) {
    let word = if complaint.is_none() { "ok" } else { "WRONG" };
    let end = ended.as_ref().map_or("was not run".to_owned(), |ended| ended.end.to_string());
    let failed = ended.as_ref().ok().filter(|ended| ended.end != End::Passes);
    let test = failed.and_then(|ended| culprit(&ended.output)).unwrap_or_default();
    let seconds = begin.elapsed().as_secs();
    let what = if test.is_empty() { &patch.title } else { test };
    cli::say_exactly(NAME, format_args!("{word:5} {seconds:4} s  {:5}  {end:7}  {what}", patch.number));
    if let Some(what) = complaint {
        cli::say_exactly(NAME, what);
        let output = ended.as_ref().map_or("", |ended| &ended.output);
        output.lines().for_each(|line| cli::say_exactly(NAME, format_args!("  | {line}")));
    }
}

/// Copies the programs of tests, since the next build writes over them.
fn keep(copy: &Copy, tests: BTreeMap<String, PathBuf>) -> Built {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let folder = copy.folder().join("programs").join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    fs::create_dir_all(&folder).map_err(|error| cli::brief(&error))?;
    let copied = tests.into_iter().map(|(target, test)| {
        let program = folder.join(&target);
        fs::copy(test, &program).map(|_| (target, program)).map_err(|error| cli::brief(&error))
    });
    copied.collect()
}

/// Runs the tests of a batch, one after the other, and removes their programs.
fn run_batch<'a>(copy: &Copy, batch: &[&'a Patch], built: &Built) -> Vec<Tried<'a>> {
    let run = |patch: &&'a Patch| {
        let tests = built.as_ref().map_err(String::clone);
        let run = |test| trial::run(patch, test, &copy.crate_folder()).map_err(|error| cli::brief(&error));
        (*patch, tests.and_then(|tests| run(&tests[&patch.target])))
    };
    let tried = batch.iter().map(run).collect();
    if let Some(folder) = built.as_ref().ok().and_then(|tests| tests.values().next()?.parent()) {
        drop(fs::remove_dir_all(folder));
    }
    tried
}
