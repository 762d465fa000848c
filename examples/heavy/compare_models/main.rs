//! You will see what each way of serving many clients costs: every model of `examples/server_models/` in turn, with
//! more and more connections that say nothing and a few that do, and what the old claims about them are worth.
//!
//! ```text
//!   main        for each model: start it, add idle connections, measure, end it; then print and draw
//! ```
//!
//! | file | is |
//! |---|---|
//! | `model.rs` | the models: what is not to be expected of them, and how they are drawn |
//! | `options.rs` | the command line |
//! | `measure.rs` | one model under load |
//! | `server.rs` | what the kernel says of a server: processes, CPU time, memory |
//! | `child.rs` | the server and the load generator, as processes |
//! | `small.rs` | what can be measured without a server |
//! | `claims.rs` | the documents' claims, each with a figure and a verdict |
//! | `output.rs`, `chart.rs` | table and CSV, SVG |
//!
//! The server has one processor, the load generator another, so that the server's CPU time is its own. CPU time for
//! each answer is the figure to compare: throughput also tells how fast the load generator is, and what else the
//! machine did. Resident memory is the process's own; what the kernel keeps for sockets, threads and page tables is not
//! in it.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

#[path = "../../common/busy.rs"]
mod busy;
#[path = "../../common/cli.rs"]
mod cli;
#[path = "../../common/process.rs"]
mod process;

mod chart;
mod child;
mod claims;
mod measure;
mod model;
mod options;
mod output;
mod server;
mod small;

use measure::{Bench, Figures, Refusal};
use model::Model;
use options::Options;

const NAME: &str = "compare_models";

/// A point of a model.
struct Row {
    /// The model of the server.
    model: &'static Model,
    /// The number of idle connections.
    idle: usize,
    /// What was measured, or why nothing was.
    outcome: Result<Figures, Refusal>,
}

fn main() {
    let options = options::parse().unwrap_or_else(|what| cli::misused(NAME, what));
    // The programs that are started inherit the limit. Models that need more descriptors say so.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let busy = busy::others();
    let begin = Instant::now();
    let progress = progress(&options);
    let (mut rows, mut kernel_kib) = (Vec::new(), Vec::new());
    for &model in &options.models {
        match measure(model, &options, &progress) {
            Ok((points, kernel)) => {
                rows.extend(points);
                kernel_kib.extend(kernel);
            }
            Err(error) => {
                progress.finish_and_clear();
                cli::fail(1, NAME, format_args!("{}: {error}", model.name));
            }
        }
    }
    progress.finish_and_clear();
    let caption = format!(
        "{} active connections, 64 bytes, closed loop; server and load on {}; the best of {} x {:.0?}",
        options.active,
        if options.processors.0 == options.processors.1 { "the same processor" } else { "a processor each" },
        options.rounds,
        options.duration / options.rounds,
    );
    say(format_args!("{caption}\n{}", machine()));
    // At other programs: those of this one have ended.
    for busy in busy.into_iter().chain(busy::others()).take(1) {
        say(format_args!("{busy}"));
    }
    say("");
    say(format_args!("{}\n\n{}\n", output::times(&rows), output::sizes(&rows)));
    say(format_args!("{}\n\n{}", output::COLUMNS, output::refusals(&rows)));
    let claims = claims::judge(&rows, &kernel_kib);
    say(format_args!("claims, of the texts that docs/book, chapter 0, goes through\n{}", output::claims(&claims)));
    cli::say(NAME, format_args!("measured in {:.0} s", begin.elapsed().as_secs_f64()));
    if let Some(path) = &options.csv {
        output::csv(path, &rows)
            .unwrap_or_else(|error| cli::fail(1, NAME, format_args!("{}: {error}", path.display())));
    }
    if let Some(path) = &options.svg {
        chart::draw(path, &rows, &[&caption, &machine()])
            .unwrap_or_else(|error| cli::fail(1, NAME, format_args!("{}: {error}", path.display())));
    }
}

/// Prints text with lines that fit on a terminal, which would break them in the middle of words.
fn say(text: impl Display) {
    cli::say_exactly(NAME, output::broken(&text.to_string()));
}

/// Measures all points of a model. Returns also the kernel's memory for an end of a connection, as the larger steps
/// showed it.
fn measure(model: &'static Model, options: &Options, progress: &ProgressBar) -> Result<(Vec<Row>, Vec<f64>), String> {
    let mut bench = Bench::start(model, options)?;
    let mut rows: Vec<Row> = Vec::new();
    for idle in options.points(model) {
        progress.set_message(format!("{}, {idle} idle", model.name));
        // What a model could not do with some connections is not tried with more.
        let before = rows.last().and_then(|row| row.outcome.as_ref().err().cloned());
        let outcome = before.map_or_else(|| bench.point(idle), Err);
        rows.push(Row { model, idle, outcome });
        progress.inc(1);
    }
    Ok((rows, std::mem::take(&mut bench.kernel_kib)))
}

/// Returns the machine on which this runs.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let name = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let name = name.map_or(std::env::consts::ARCH, |(_, name)| name);
    let build = if cfg!(debug_assertions) { "; a debug build" } else { "" };
    format!("{name}, Linux {}{build}", read("/proc/sys/kernel/osrelease").trim())
}

/// Returns a bar that shows on a terminal, and nothing elsewhere.
fn progress(options: &Options) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let points: usize = options.models.iter().map(|model| options.points(model).len()).sum();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}").expect("a template that is right");
    let bar = ProgressBar::new(points as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

// Read next: `claims.rs`, which says what is compared with what.
