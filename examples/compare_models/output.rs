//! What is written: the table for people, and the same as CSV.
#![forbid(unsafe_code)]

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};

use crate::Row;
use crate::claims::Claim;
use crate::measure::Figures;

/// What the columns are that do not say it themselves.
pub(crate) const COLUMNS: &str = "\
CPU us: CPU time of the server for each answer; alone us: the same when there is one active client
asleep: CPU time of the server while nobody says anything, of one processor
RSS, PSS: memory of all its processes, shared pages counted for each and once; without the kernel's
threads: as the kernel sees them, of all its processes";

/// The points that could not be done, and how far the model came.
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

/// The table, as Markdown has it. A model's refusals are one row.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "model",
        "idle",
        "active",
        "answers/s",
        "p50 us",
        "p99 us",
        "CPU us",
        "alone us",
        "asleep",
        "RSS MiB",
        "PSS MiB",
        "processes",
        "threads",
        "why not",
    ]);
    let mut refused = "";
    for row in rows {
        let name = row.model.name.to_owned();
        match &row.outcome {
            Ok(figures) => {
                let mut cells = vec![name, row.idle.to_string()];
                cells.extend(cells_of(figures));
                table.add_row(cells);
            }
            Err(refusal) if refused != row.model.name => {
                refused = row.model.name;
                let mut cells = vec![name, format!(">= {}", row.idle)];
                cells.resize(13, String::from("-"));
                cells.push(refusal.why.clone());
                table.add_row(cells);
            }
            Err(_) => {}
        }
    }
    for column in table.column_iter_mut().skip(1).take(12) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn cells_of(figures: &Figures) -> Vec<String> {
    let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
    vec![
        figures.active.to_string(),
        format!("{:.0}", figures.answers_per_s),
        format!("{:.0}", figures.p50_us),
        format!("{:.0}", figures.p99_us),
        format!("{:.1}", figures.cpu_us),
        figures.cpu_us_alone.map_or_else(|| String::from("-"), |us| format!("{us:.1}")),
        format!("{:.0} %", figures.asleep_cores * 100.0),
        mib(figures.resident_kib),
        mib(figures.proportional_kib),
        figures.processes.to_string(),
        figures.threads.to_string(),
        String::new(),
    ]
}

/// The claims, one line for each, and the figure below it.
pub(crate) fn claims(claims: &[Claim]) -> String {
    let lines = claims.iter().map(|claim| format!("  {}: {}\n    {}\n", claim.says, claim.verdict, claim.figure));
    lines.collect()
}

/// One line for each point.
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
            Err(refusal) => {
                fields.resize(13, String::new());
                fields.push(format!("{}: {}", refusal.why, refusal.detail));
            }
        }
        file.write_record(fields)?;
    }
    Ok(file.flush()?)
}
