//! Runs the test of a patch, and compares how it ends with what the patch says.
#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::patch::{End, Patch};

/// How long a test may take that ends: much longer than it takes, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long a test is watched that may wait for ever, from its beginning on.
const FOR_EVER: Duration = Duration::from_secs(10);

/// How a run has ended, and what it has printed.
pub(crate) struct Ended {
    /// How it has ended.
    pub(crate) end: End,
    /// Standard output and standard error, as they came.
    pub(crate) output: String,
}

/// Runs the test of `patch` in the program `test`, and ends it, with all that it has started, when its time is over.
pub(crate) fn run(patch: &Patch, test: &Path, folder: &Path) -> io::Result<Ended> {
    let mut command = Command::new(test);
    command.current_dir(folder).env("CARGO_MANIFEST_DIR", folder).env("RUST_BACKTRACE", "0").arg("--test-threads=1");
    if !patch.filter.is_empty() {
        command.arg(&patch.filter);
        if !patch.filter.ends_with("::") {
            command.arg("--exact");
        }
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let output = Arc::new(Mutex::new(Vec::new()));
    let readers = [
        child.stdout.take().map(|pipe| read_all(pipe, Arc::clone(&output))),
        child.stderr.take().map(|pipe| read_all(pipe, Arc::clone(&output))),
    ];
    let text = || String::from_utf8_lossy(&output.lock().unwrap_or_else(|error| error.into_inner())).into_owned();
    let begin = Instant::now();
    let may_hang = patch.ends.contains(&End::Hangs);
    let mut begun: Option<Instant> = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.is_none() && text().contains("\nrunning ") {
            begun = Some(Instant::now());
        }
        let is_over = may_hang && begun.is_some_and(|begun| begun.elapsed() > FOR_EVER);
        if is_over || begin.elapsed() > PATIENCE {
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    // All that the test has started goes with it; this fails if nothing is left.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    child.wait()?;
    readers.into_iter().flatten().for_each(|reader| drop(reader.join()));
    Ok(Ended { end: end_of(status), output: text() })
}

/// Reads a pipe to its end, on an OS thread of its own: a full pipe would stop the test.
fn read_all(mut pipe: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            into.lock().unwrap_or_else(|error| error.into_inner()).extend_from_slice(&piece[..count]);
        }
    })
}

/// Returns how a run has ended; without a status, it was ended from outside.
fn end_of(status: Option<ExitStatus>) -> End {
    match status.map(|status| (status.signal(), status.success())) {
        None => End::Hangs,
        Some((Some(libc::SIGABRT), _)) => End::Signal("SIGABRT"),
        Some((Some(libc::SIGSEGV | libc::SIGBUS), _)) => End::Signal("SIGSEGV"),
        Some((Some(_), _)) => End::Signal("another signal"),
        Some((None, true)) => End::Passes,
        Some((None, false)) => End::Fails,
    }
}

/// Returns what differs from what the patch says, or none.
pub(crate) fn complaint(patch: &Patch, ended: &Ended) -> Option<String> {
    let Ended { end, output } = ended;
    let count = output.split("\nrunning ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    if count.is_none_or(|count| count == 0) {
        return Some(format!("there is no test {} in {}", patch.filter, patch.target));
    }
    if !patch.ends.contains(end) {
        let ends: Vec<String> = patch.ends.iter().map(End::to_string).collect();
        return Some(format!("the test {end}, where the patch says that it {}", ends.join(" or ")));
    }
    let missing = patch.says.iter().find(|words| !output.contains(&words[..]))?;
    Some(format!("the test {end}, and does not say \"{missing}\""))
}

/// Returns the test that failed, hangs or was ended by a signal: the first of those that ran, one after the other, that
/// did not pass.
pub(crate) fn culprit(output: &str) -> Option<&str> {
    let mut tests = output.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
    tests.find(|(_, how)| !how.ends_with("ok") && !how.starts_with("ignored")).map(|(name, _)| name)
}

/// Returns the lines of an output that say what went wrong.
pub(crate) fn telling(output: &str) -> Vec<&str> {
    let is_noise = |line: &&str| {
        let line = line.trim();
        line.is_empty()
            || line.starts_with("note: ")
            || line.starts_with("running ")
            || line.starts_with("failures:")
            || line.starts_with("test result")
            || line.starts_with("---- ")
            || line.starts_with("successes:")
    };
    let lines = output.lines().skip_while(|line| !line.contains("panicked at")).filter(|line| !is_noise(line));
    let found: Vec<&str> = lines.take(14).take_while(|line| !line.starts_with("test ")).collect();
    match (found.is_empty(), culprit(output)) {
        (true, Some(test)) => vec![test],
        (true, None) => output.lines().filter(|line| !is_noise(line)).take(8).collect(),
        (false, _) => found,
    }
}
