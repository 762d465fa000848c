//! The figures of one path, and the tools that count them.

use std::process::Command;
use std::{env, fmt, fs};

use super::paths::Path;

/// A column of the file.
#[derive(Debug)]
struct Figure {
    /// Its heading.
    name: &'static str,
    /// How much it may differ from the file: a share of what it was, and an amount besides.
    share: f64,
    more: f64,
}

/// What is counted, each for one round.
const FIGURES: [Figure; 5] = [
    Figure { name: "instructions", share: 0.02, more: 1.0 },
    Figure { name: "L1 misses", share: 0.05, more: 0.1 },
    Figure { name: "system calls", share: 0.02, more: 0.02 },
    Figure { name: "allocations", share: 0.01, more: 0.01 },
    Figure { name: "bytes", share: 0.03, more: 512.0 },
];

/// The caches that are simulated: the same on each machine.
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=32768,8,64", "--LL=8388608,16,64"];

/// The figures of a path.
#[derive(Debug)]
pub struct Counted {
    name: String,
    values: [f64; 5],
}

impl Counted {
    /// Counts a path: runs it twice under each tool.
    pub fn count(path: &Path) -> Result<Self, String> {
        let [less, more] = [path.rounds, 2 * path.rounds].map(|rounds| totals(path.name, rounds));
        let (less, more) = (less?, more?);
        let per_round = |index: usize| (more[index] - less[index]) / (path.rounds * path.units) as f64;
        let values = std::array::from_fn(per_round);
        // What does not grow with the rounds, as far as two runs can tell.
        let whole = |value: f64| if value < 0.005 { 0.0 } else { value };
        let mut counted = Self { name: path.name.to_owned(), values: values.map(whole) };
        // Memory comes in pages: a few of them more in one run are no growth.
        if counted.values[4] < 512.0 {
            counted.values[4] = 0.0;
        }
        Ok(counted)
    }

    /// Says which figures differ from what they were by more than `leeway` times as much as they may.
    pub fn differences(&self, before: &Self, leeway: f64) -> Vec<String> {
        let pairs = self.values.iter().zip(before.values);
        let differs = |figure: &Figure, now: f64, before: f64| {
            (now - before).abs() > leeway * (figure.share * before + figure.more)
        };
        let all = FIGURES.iter().zip(pairs).filter(|(figure, (now, before))| differs(figure, **now, *before));
        all.map(|(figure, (now, before))| format!("{}: {} {before} -> {now:.2}", self.name, figure.name)).collect()
    }

    /// Reads the line of the file that begins with `name`.
    pub fn parse(line: &str, name: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        if words.next() != Some(name) {
            return None;
        }
        let mut values = [0.0; 5];
        for value in &mut values {
            *value = words.next()?.parse().ok()?;
        }
        Some(Self { name: name.to_owned(), values })
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [instructions, misses, calls, allocations, bytes] = self.values;
        write!(f, "{:16}{instructions:14.1}{misses:14.2}{calls:14.2}", self.name)?;
        write!(f, "{allocations:14.2}{bytes:14.0}")
    }
}

/// Returns the line with the headings.
pub fn header() -> String {
    FIGURES.iter().fold(format!("{:16}", "# one round"), |line, figure| line + &format!("{:>14}", figure.name))
}

/// Returns the line that names the compiler.
pub fn compiler() -> Result<String, String> {
    let version = output(Command::new("rustc").arg("-V"))?;
    let words: Vec<_> = version.split_whitespace().take(2).collect();
    Ok(format!("# {}, {}", words.join(" "), env::consts::ARCH))
}

/// Returns the highest resident memory of this process and its page tables, in bytes.
pub fn memory() -> Result<u64, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let sum = kib("VmHWM:").zip(kib("VmPTE:")).map(|(resident, tables)| (resident + tables) * 1024);
    sum.ok_or_else(|| "/proc/self/status says nothing of memory".to_owned())
}

/// Returns what all rounds of a path took, with start and end.
fn totals(name: &str, rounds: u64) -> Result<[f64; 5], String> {
    let rounds = rounds.to_string();
    let program = env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let run = |tool: &mut Command| output(tool.arg(&program).args(["run", name, &rounds]));
    let mut cachegrind = Command::new("valgrind");
    cachegrind.args(["--tool=cachegrind", "--cache-sim=yes", "--cachegrind-out-file=/dev/null", "--log-fd=1"]);
    let report = run(cachegrind.args(CACHES))?;
    let instructions = after_colon(&report, "I   refs:").or_else(|| after_colon(&report, "I refs:"));
    let misses = after_colon(&report, "D1  misses:").or_else(|| after_colon(&report, "D1 misses:"));
    // Of the OS thread of the hub alone: what others do is a matter of time.
    let calls = run(Command::new("strace").args([
        "-c",
        "-U",
        "calls,name",
        "-o",
        "/dev/stdout",
        "-e",
        "trace=!clock_gettime",
    ]))?;
    let calls = calls.lines().find_map(|line| line.trim().strip_suffix(" total")?.trim().parse().ok());
    let own = output(Command::new(&program).args(["run", name, &rounds]))?;
    let mut own = own.split_whitespace().map(|word| word.parse().ok());
    let mut own = || own.next().flatten();
    let all = [instructions, misses, calls, own(), own()];
    let mut totals = [0.0; 5];
    for ((total, value), figure) in totals.iter_mut().zip(all).zip(&FIGURES) {
        *total = value.ok_or_else(|| format!("no {} in the report on {name}", figure.name))?;
    }
    Ok(totals)
}

/// Returns the number that follows `label` in the report of cachegrind.
fn after_colon(report: &str, label: &str) -> Option<f64> {
    let rest = report.lines().find_map(|line| line.split_once(label))?.1;
    rest.split_whitespace().next()?.replace(',', "").parse().ok()
}

/// Runs a command and returns what it prints.
fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
