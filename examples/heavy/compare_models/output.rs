//! What is written: tables and text for people, and the figures as CSV.
#![forbid(unsafe_code)]

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};

use crate::Row;
use crate::claims::Claim;
use crate::measure::Figures;

/// How long a line on a terminal may be.
const WIDTH: usize = 80;

/// The meaning of the columns, where the titles are too short.
pub(crate) const COLUMNS: &str = "\
per s: answers in a second
CPU us: CPU time of the server for each answer
alone: the same when there is one active client
asleep: CPU time of the server while no client says anything, of one processor
RSS, PSS: memory of all its processes in MiB, shared pages counted for each of them and once; without the kernel's
procs, threads: as the kernel sees them";

/// Returns the points that could not be done, and how far the model came.
pub(crate) fn refusals(rows: &[Row]) -> String {
    let mut refused = "";
    let mut lines = String::new();
    for row in rows {
        if let Err(refusal) = &row.outcome
            && refused != row.model.name
        {
            refused = row.model.name;
            lines += &format!("{}, {} idle: {}; {}\n", row.model.name, row.idle, refusal.why, refusal.detail);
        }
    }
    lines
}

/// Returns the table of what the answers cost and how long they took.
pub(crate) fn times(rows: &[Row]) -> Table {
    let header = ["model", "idle", "per s", "p50 us", "p99 us", "CPU us", "alone"];
    table(rows, &header, |figures| {
        vec![
            format!("{:.0}", figures.answers_per_s),
            format!("{:.0}", figures.p50_us),
            format!("{:.0}", figures.p99_us),
            format!("{:.1}", figures.cpu_us),
            figures.cpu_us_alone.map_or_else(|| String::from("-"), |us| format!("{us:.1}")),
        ]
    })
}

/// Returns the table of what the servers take while they answer, and while they do not.
pub(crate) fn sizes(rows: &[Row]) -> Table {
    let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
    let header = ["model", "idle", "asleep", "RSS", "PSS", "procs", "threads"];
    table(rows, &header, |figures| {
        vec![
            format!("{:.0} %", figures.asleep_cores * 100.0),
            mib(figures.resident_kib),
            mib(figures.proportional_kib),
            figures.processes.to_string(),
            figures.threads.to_string(),
        ]
    })
}

/// Returns a table, as Markdown has it, that fits on a terminal: of each point the model, the idle connections, and
/// `cells`. The points that a model refused are one row.
fn table(rows: &[Row], header: &[&str], cells: impl Fn(&Figures) -> Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    let mut refused = "";
    for row in rows {
        let name = row.model.name.to_owned();
        match &row.outcome {
            Ok(figures) => {
                table.add_row([vec![name, row.idle.to_string()], cells(figures)].concat());
            }
            // The first refusal stands for all that follow.
            Err(_) if refused != row.model.name => {
                refused = row.model.name;
                let mut cells = vec![name, format!(">={}", row.idle)];
                cells.resize(header.len(), String::from("-"));
                table.add_row(cells);
            }
            Err(_) => {}
        }
    }
    // Numbers, to the right.
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Breaks lines before words that a terminal has no room for; the rest is indented as the line was. Tables fit as they
/// are.
pub(crate) fn broken(text: &str) -> String {
    let line = |line: &str| match line.starts_with('|') {
        true => line.to_owned(),
        false => broken_line(line),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Breaks one line into several.
fn broken_line(line: &str) -> String {
    let words = line.trim_start();
    let indent = &line[..line.len() - words.len()];
    let (mut broken, mut length) = (String::from(indent), indent.len());
    for (number, word) in words.split(' ').enumerate() {
        // A word that is too long by itself gets a line alone.
        let long = word.chars().count();
        if number > 0 && length + 1 + long > WIDTH {
            broken.push('\n');
            broken += indent;
            length = indent.len();
        } else if number > 0 {
            broken.push(' ');
            length += 1;
        }
        broken += word;
        length += long;
    }
    broken
}

/// Returns the claims, one line for each, and the figure below the line.
pub(crate) fn claims(claims: &[Claim]) -> String {
    let lines = claims.iter().map(|claim| format!("  {}: {}\n    {}\n", claim.says, claim.verdict, claim.figure));
    lines.collect()
}

/// Writes one line of CSV for each point.
pub(crate) fn csv(path: &Path, rows: &[Row]) -> csv::Result<()> {
    let mut file = csv::Writer::from_path(path)?;
    file.write_record([
        "model",
        "idle",
        "active",
        "answers_per_s",
        "p50_us",
        "p99_us",
        "cpu_us_per_answer",
        "cpu_us_per_answer_one_client",
        "asleep_cores",
        "rss_kib",
        "pss_kib",
        "processes",
        "threads",
        "why_not",
    ])?;
    for row in rows {
        let mut fields = vec![row.model.name.to_owned(), row.idle.to_string()];
        match &row.outcome {
            Ok(figures) => fields.extend([
                figures.active.to_string(),
                format!("{:.1}", figures.answers_per_s),
                format!("{:.1}", figures.p50_us),
                format!("{:.1}", figures.p99_us),
                format!("{:.3}", figures.cpu_us),
                figures.cpu_us_alone.map_or_else(String::new, |us| format!("{us:.3}")),
                format!("{:.4}", figures.asleep_cores),
                figures.resident_kib.to_string(),
                figures.proportional_kib.to_string(),
                figures.processes.to_string(),
                figures.threads.to_string(),
                String::new(),
            ]),
            // No figures, but the reason in the last column.
            Err(refusal) => {
                fields.resize(13, String::new());
                fields.push(format!("{}: {}", refusal.why, refusal.detail));
            }
        }
        file.write_record(fields)?;
    }
    Ok(file.flush()?)
}
