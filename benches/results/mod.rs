//! What a bench measured, as a file: `--json FILE`. A page that lays two such files side by side is written by
//! `cargo run --manifest-path tools/site/Cargo.toml -- figures FILE`.
//!
//! ```text
//!   { "schema": 1, "bench": "switch", "command": "cargo bench --bench switch -- yield",
//!     "date": "2026-11-30 12:00 UTC", "commit": "43d20de, changed",
//!     "processor": "..", "cores": 2, "kernel": "6.18.0", "compiler": "rustc 1.95.0 ..",
//!     "load": 0.2, "others": 0.03, "steal": 0.0,
//!     "rows": [ { "name": "yield/2", "unit": "ns", "median": 2.6, "low": 2.5, "high": 2.7, "values": 9,
//!                 "ratio": 0.8 } ] }
//! ```
//!
//! `load` is the load average before the run; `others` is the share of the machine that other processes took meanwhile,
//! `steal` the share that the hypervisor gave to other machines. `low` and `high` bound the middle half of the values.
//! `ratio` is to the row's yardstick, and is left out where there is none. `benches/peers/run --json` writes this form, too,
//! with a row for each row and peer, and its values as `rounds`: `[2.6, 2.5, 2.7]`. The page over several versions is
//! `cargo run --manifest-path tools/site/Cargo.toml -- versions FILE FILE ..`.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::process::Command;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, io};

/// The version of the form above. A reader of files refuses others.
pub(crate) const SCHEMA: u32 = 1;

/// The run that is being measured, if it is to be written.
static RUN: Mutex<Option<Run>> = Mutex::new(None);

/// One run of a bench.
struct Run {
    /// The file to write.
    file: String,
    /// The name of the bench.
    bench: &'static str,
    /// The load average of a minute, before the run.
    load: f64,
    /// What the processors had done before the run.
    before: Ticks,
    /// The rows so far.
    rows: Vec<Row>,
}

/// One figure.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: String,
    /// The values, in any order; one at least.
    pub(crate) values: Vec<f64>,
    /// The median of the ratios to the yardstick.
    pub(crate) ratio: Option<f64>,
}

/// The machine during a run.
pub(crate) struct Machine {
    pub(crate) load: f64,
    pub(crate) others: f64,
    pub(crate) steal: f64,
}

/// What processors have done since they started, in the kernel's ticks.
#[derive(Clone, Copy, Default)]
struct Ticks {
    /// All of it, idle or not.
    all: u64,
    /// The work of any process, and of the kernel.
    busy: u64,
    /// What other machines had.
    steal: u64,
    /// The work of this process and of its children that have ended.
    own: u64,
}

impl Ticks {
    fn now() -> Ticks {
        let numbers =
            |line: &str| -> Vec<u64> { line.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let all = numbers(stat.lines().next().unwrap_or_default());
        let at = |place: usize| all.get(place).copied().unwrap_or(0);
        // user, nice, system, idle, iowait, irq, softirq, steal
        let busy = at(0) + at(1) + at(2) + at(5) + at(6);
        // After the name, which may have blanks: utime, stime, cutime and cstime are the words 12 to 15.
        let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let own = own.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(4);
        let own = own.filter_map(|word| word.parse::<u64>().ok()).sum();
        Ticks { all: busy + at(3) + at(4) + at(7), busy, steal: at(7), own }
    }
}

/// Takes `--json FILE` out of the arguments of a program. If it is there, what the run [`note`]s will be
/// [written](write).
///
/// # Errors
/// If no file follows.
pub(crate) fn take_option(bench: &'static str, arguments: &mut Vec<String>) -> Result<(), String> {
    let Some(at) = arguments.iter().position(|argument| argument == "--json") else { return Ok(()) };
    if arguments.get(at + 1).is_none_or(|file| file.starts_with("--")) {
        return Err("--json wants a file".to_owned());
    }
    let file = arguments.drain(at..at + 2).nth(1).expect("there are two");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    *RUN.lock().expect("no thread panics") = Some(Run { file, bench, load, before: Ticks::now(), rows: Vec::new() });
    Ok(())
}

/// Adds a row of one or more values to the file, if there is to be one.
pub(crate) fn note(name: &str, unit: &str, values: &[f64], ratio: Option<f64>) {
    if let Some(run) = &mut *RUN.lock().expect("no thread panics") {
        run.rows.push(Row { name: name.to_owned(), unit: unit.to_owned(), values: values.to_vec(), ratio });
    }
}

/// Writes the file, if there is to be one.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write() -> io::Result<()> {
    let Some(run) = RUN.lock().expect("no thread panics").take() else { return Ok(()) };
    let now = Ticks::now();
    let all = (now.all - run.before.all).max(1) as f64;
    let busy = now.busy - run.before.busy;
    let machine = Machine {
        load: run.load,
        others: busy.saturating_sub(now.own - run.before.own) as f64 / all,
        steal: (now.steal - run.before.steal) as f64 / all,
    };
    let text = text(run.bench, &machine, &run.rows);
    fs::write(&run.file, text).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", run.file)))
}

/// The file's text.
pub(crate) fn text(bench: &str, machine: &Machine, rows: &[Row]) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let arguments = env::args().skip(1).filter(|argument| argument != "--bench").collect::<Vec<_>>().join(" ");
    let command = match bench {
        "servers" => format!("benches/servers/run {arguments}"),
        "monkey" => format!("cargo bench --features monkey --bench {bench} -- {arguments}"),
        _ => format!("cargo bench --bench {bench} -- {arguments}"),
    };
    let mut text = String::from("{\n");
    let mut field = |name: &str, value: String| _ = writeln!(text, "  {}: {value},", quoted(name));
    field("schema", SCHEMA.to_string());
    field("bench", quoted(bench));
    field("command", quoted(command.trim_end()));
    field("date", quoted(&date(seconds)));
    field("commit", quoted(&commit()));
    field("processor", quoted(&processor()));
    field("cores", std::thread::available_parallelism().map_or(1, usize::from).to_string());
    field("kernel", quoted(fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim()));
    field("compiler", quoted(&said_by("rustc", &["-V"])));
    field("load", number(machine.load));
    field("others", number(machine.others));
    field("steal", number(machine.steal));
    let rows: Vec<String> = rows.iter().map(row_text).collect();
    text + "  \"rows\": [\n" + &rows.join(",\n") + "\n  ]\n}\n"
}

/// A row's text.
fn row_text(row: &Row) -> String {
    let mut sorted = row.values.clone();
    sorted.sort_by(f64::total_cmp);
    let quarter = |n: usize| number(sorted.get((sorted.len().max(1) - 1) * n / 4).copied().unwrap_or(0.0));
    let median = number(sorted.get(sorted.len() / 2).copied().unwrap_or(0.0));
    let (low, high) = (quarter(1), number(sorted.get((3 * sorted.len().max(1) - 1) / 4).copied().unwrap_or(0.0)));
    let ratio = row.ratio.map_or(String::new(), |ratio| format!(", \"ratio\": {}", number(ratio)));
    let (name, unit) = (quoted(&row.name), quoted(&row.unit));
    format!(
        "    {{ \"name\": {name}, \"unit\": {unit}, \"median\": {median}, \"low\": {low}, \"high\": {high}, \
         \"values\": {}{ratio} }}",
        sorted.len()
    )
}

/// A number with four digits that count, which is more than any run has.
fn number(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return "0".to_owned();
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.digits$}")
}

/// A text in quotation marks.
fn quoted(text: &str) -> String {
    let plain = text.replace('\\', "\\\\").replace('"', "\\\"").replace(|c: char| c.is_control(), " ");
    format!("\"{plain}\"")
}

/// The day and the minute that is so many seconds after the beginning of 1970.
pub(crate) fn date(seconds: u64) -> String {
    // Days in years that begin in March, so that a leap day is the last one.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

/// The first line that a command prints, or nothing.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let said = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

/// The commit, and whether anything was changed since. Empty where there is no repository.
fn commit() -> String {
    let commit = said_by("git", &["rev-parse", "--short", "HEAD"]);
    let is_changed = !said_by("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if is_changed && !commit.is_empty() { format!("{commit}, changed") } else { commit }
}

/// What the processor calls itself.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    name.unwrap_or(env::consts::ARCH).to_owned()
}
