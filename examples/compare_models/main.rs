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
//! | `measure.rs` | one model under load |
//! | `child.rs` | the server and the load generator, as processes |
//! | `small.rs` | what can be measured without a server |
//! | `claims.rs` | the documents' claims, each with a figure and a verdict |
//! | `output.rs`, `chart.rs` | table and CSV, SVG |
//!
//! The server has one processor, the load generator another, so that the server's CPU time is its own. CPU time for each
//! answer is the figure to compare: throughput also tells how fast the load generator is, and what else the machine did.
//! Resident memory is the process's own; what the kernel keeps for sockets, threads and page tables is not in it.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

#[path = "../common/cli.rs"]
mod cli;
#[path = "../common/process.rs"]
mod process;

mod chart;
mod child;
mod claims;
mod measure;
mod model;
mod output;
mod small;

use measure::{Bench, Figures, Refusal};
use model::{MODELS, Model};

const NAME: &str = "compare_models";

const HELP: &str = "\
Measures every model of the example server_models: CPU time, throughput, latency and memory, against the number of
connections that say nothing.

usage: compare_models [--models A,B,..] [--idle N,N,..] [--active N] [--duration TIME] [--rounds N]
                      [--quick] [--csv FILE] [--svg FILE]

  --models A,B,..   which ones; `server_models --list` prints all, and all are the default. green-patched is among them
                    in a build with --features monkey
  --idle N,N,..     idle connections: 0,100,1000,5000,10000 by default. The select models get 900, too
  --active N        connections that ask for 64 bytes as fast as they get them: 50 by default
  --duration TIME   how long each point is measured: 1 second by default
  --rounds N        in how many rounds, of which the one with the most answers counts: 3 by default
  --quick           the same as --idle 0,100,1000 --duration 200ms --rounds 1
  --csv FILE        write the figures
  --svg FILE        draw CPU time, throughput and memory

It needs the examples echo_load and server_models beside it, built with the same features as it was:
cargo build --release --examples
";

/// No more idle connections than that are tried: from one address to one port there are about 28000.
const MOST_IDLE: usize = 20_000;

/// More rounds than that leave too little time for each.
const MOST_ROUNDS: u32 = 20;

/// The command line; see [`HELP`].
struct Options {
    /// Which, in this order.
    models: Vec<&'static Model>,
    /// Ascending.
    idle: Vec<usize>,
    /// Connections that ask.
    active: usize,
    /// How long each point is measured.
    duration: Duration,
    /// Parts of the duration, of which the best counts.
    rounds: u32,
    /// Where the figures go.
    csv: Option<PathBuf>,
    /// Where the chart goes.
    svg: Option<PathBuf>,
    /// The server's, and the load's.
    processors: (usize, usize),
}

impl Options {
    /// The points of a model.
    fn points(&self, model: &Model) -> Vec<usize> {
        let mut points = self.idle.clone();
        points.extend(model.last_point.filter(|&point| points.iter().any(|&other| other > point)));
        points.sort_unstable();
        points.dedup();
        points
    }
}

/// A point of a model.
struct Row {
    /// Whose.
    model: &'static Model,
    /// Idle connections.
    idle: usize,
    /// What came of it.
    outcome: Result<Figures, Refusal>,
}

fn main() {
    let options = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    // The programs that are started inherit it. The models that need more than there are say so.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
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
    say(format_args!("{caption}\n{}\n", machine()));
    say(format_args!("{}\n\n{}\n", output::times(&rows), output::sizes(&rows)));
    say(format_args!("{}\n\n{}", output::COLUMNS, output::refusals(&rows)));
    let claims = claims::judge(&rows, &kernel_kib);
    say(format_args!("claims\n{}", output::claims(&claims)));
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

/// Prints text; on a terminal, which would break its lines in the middle of words, with lines that fit.
fn say(text: impl Display) {
    let text = text.to_string();
    let text = if io::stdout().is_terminal() { output::broken(&text) } else { text };
    cli::say(NAME, text);
}

/// All points of a model, and the kernel's memory for an end of a connection as its larger steps showed it.
fn measure(model: &'static Model, options: &Options, progress: &ProgressBar) -> Result<(Vec<Row>, Vec<f64>), String> {
    let mut bench = Bench::start(model, options)?;
    let mut rows: Vec<Row> = Vec::new();
    for idle in options.points(model) {
        progress.set_message(format!("{}, {idle} idle", model.name));
        // What it could not do it cannot do with more.
        let before = rows.last().and_then(|row| row.outcome.as_ref().err().cloned());
        let outcome = before.map_or_else(|| bench.point(idle), Err);
        rows.push(Row { model, idle, outcome });
        progress.inc(1);
    }
    Ok((rows, std::mem::take(&mut bench.kernel_kib)))
}

/// What it was measured on.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let name = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let name = name.map_or(std::env::consts::ARCH, |(_, name)| name);
    let build = if cfg!(debug_assertions) { "; a debug build" } else { "" };
    format!("{name}, Linux {}{build}", read("/proc/sys/kernel/osrelease").trim())
}

/// A bar on a terminal, nothing elsewhere.
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

/// The command line.
fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut models = None;
    let mut idle = None;
    let (mut duration, mut rounds) = (None, None);
    let mut quick = false;
    let mut options = Options {
        models: Vec::new(),
        idle: Vec::new(),
        active: 50,
        duration: Duration::ZERO,
        rounds: 0,
        csv: None,
        svg: None,
        processors: child::processors().map_err(|error| error.to_string())?,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("models") => models = Some(cli::text("--models", &mut parser)?),
            Long("idle") => idle = Some(cli::text("--idle", &mut parser)?),
            Long("active") => options.active = cli::count("--active", &mut parser)?,
            Long("duration") => duration = Some(cli::duration("--duration", &mut parser)?),
            Long("rounds") => rounds = Some(cli::count("--rounds", &mut parser)?),
            Long("quick") => quick = true,
            Long("csv") => options.csv = Some(PathBuf::from(cli::text("--csv", &mut parser)?)),
            Long("svg") => options.svg = Some(PathBuf::from(cli::text("--svg", &mut parser)?)),
            Long("help") | Short('h') => cli::help(HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    options.models = match models {
        None => MODELS.iter().collect(),
        Some(names) => names.split(',').map(named).collect::<Result<_, _>>()?,
    };
    let (few, short) = (String::from("0,100,1000"), Duration::from_millis(200));
    let idle = idle.unwrap_or_else(|| if quick { few } else { String::from("0,100,1000,5000,10000") });
    options.idle = idle.split(',').map(idle_count).collect::<Result<_, _>>()?;
    options.idle.sort_unstable();
    options.idle.dedup();
    options.duration = duration.unwrap_or(if quick { short } else { Duration::from_secs(1) });
    options.rounds = rounds.unwrap_or(if quick { 1 } else { 3 });
    if options.rounds > MOST_ROUNDS {
        return Err(format!("--rounds must be {MOST_ROUNDS} at most"));
    }
    if !(Duration::from_millis(20)..=Duration::from_secs(60)).contains(&options.duration) {
        return Err(String::from("--duration must be from 20ms to 60s"));
    }
    // A run takes minutes: that there is no such folder is to be known before.
    for (option, path) in [("--csv", &options.csv), ("--svg", &options.svg)] {
        if let Some(path) = path {
            let opened = File::options().append(true).create(true).open(path);
            opened.map_err(|error| format!("{option} {}: {error}", path.display()))?;
        }
    }
    Ok(options)
}

fn named(name: &str) -> Result<&'static Model, String> {
    let found = MODELS.iter().find(|model| model.name == name);
    found.ok_or_else(|| match name {
        "green-patched" => format!("--models {name}: this build is without it, for want of --features monkey"),
        _ => format!("--models {name}: there is none; `server_models --list` prints all"),
    })
}

fn idle_count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(count) if count <= MOST_IDLE => Ok(count),
        _ => Err(format!("--idle {text}: not a whole number up to {MOST_IDLE}")),
    }
}

// Read next: `claims.rs`, which says what is compared with what.
