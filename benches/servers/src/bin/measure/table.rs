//! The figures, as a table and as rows of a file.

use std::process::Command;
use std::{env, fs};

use crate::options::Options;
use crate::server::Kind;
use crate::{Figures, IDLE, PARTS, ROWS, load_average, results};

/// The name of a row, the one of idle connections among them.
fn row_name(row: usize) -> String {
    ROWS.get(row).map_or_else(|| format!("hello-idle/{IDLE}"), |row| row.name.to_owned())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A number with three digits that count, or the digits that it has.
fn short(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Prints the medians, a column for each server.
pub(crate) fn print(kinds: &[Kind], figures: &Figures) {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    println!("| | {} |", names.join(" | "));
    println!("|---|{}", "--:|".repeat(names.len()));
    for row in 0..=ROWS.len() {
        for (part, (_, unit)) in PARTS.iter().enumerate() {
            let of = |name: &&str| figures.get(&(row, part, (*name).to_owned()));
            if names.iter().all(|name| of(name).is_none()) {
                continue;
            }
            let what = if PARTS[part].0.starts_with('p') { PARTS[part].0.to_owned() + ", " } else { String::new() };
            let name = if part == 0 || row == ROWS.len() { row_name(row) } else { "..".to_owned() };
            let cells: Vec<String> =
                names.iter().map(|name| of(name).map_or_else(String::new, |values| short(median(values)))).collect();
            println!("| {name} {what}{unit} | {} |", cells.join(" | "));
        }
    }
}

/// Prints what belongs below the table.
pub(crate) fn print_rest(options: &Options, load: String, missing: &[String], problems: &[String]) {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let versions: Vec<String> = [
        said_by("rustc", &["--version"]),
        said_by("go", &["version"]),
        said_by("wrk", &["--version"]),
        said_by("redis-benchmark", &["--version"]),
    ]
    .into_iter()
    .flatten()
    .collect();
    println!(
        "\nMachine: {}, Linux {}, {}. Load average {load} before, {} after. {} rounds of {} s. {}.",
        processor.unwrap_or(env::consts::ARCH),
        kernel.trim(),
        said_by("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default(),
        load_average(),
        options.rounds,
        options.seconds,
        versions.join(", ")
    );
    missing.iter().for_each(|missing| println!("- not measured: {missing}"));
    problems.iter().for_each(|problem| println!("- failed: {problem}"));
}

/// The first line that a command prints.
fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
    (!line.is_empty()).then_some(line)
}

/// Adds the figures to the file, if there is to be one. The ratio is to greenling.
pub(crate) fn note(kinds: &[Kind], figures: &Figures) {
    for ((row, part, name), values) in figures {
        let ours = figures.get(&(*row, *part, kinds.first().map_or("", |kind| kind.name).to_owned()));
        let ratio = ours.map(|ours| median(values) / median(ours));
        let (what, unit) = PARTS[*part];
        results::note(&format!("{}/{what}/{name}", row_name(*row)), unit, values, ratio);
    }
}
