//! The command line.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{MODELS, Model};
use crate::{NAME, child, cli};

const HELP: &str = "\
Measures every model of the example server_models: CPU time, throughput, latency
and memory, against the number of connections that say nothing.

usage: compare_models [--models A,B,..] [--idle N,N,..] [--active N]
                      [--duration TIME] [--rounds N] [--quick] [--csv FILE]
                      [--svg FILE]

  --models A,B,..   which ones; `server_models --list` prints all, and all are
                    the default. green-patched and green-threads-patched are
                    among them in a build with --features monkey
  --idle N,N,..     idle connections: 0,100,1000,5000,10000 by default. The
                    select models get 900, too
  --active N        connections that ask for 64 bytes as fast as they get them:
                    50 by default
  --duration TIME   how long each point is measured: 1 second by default
  --rounds N        in how many rounds, of which the one with the most answers
                    counts: 3 by default
  --quick           the same as --idle 0,100,1000 --duration 200ms --rounds 1
  --csv FILE        write the figures
  --svg FILE        draw CPU time, throughput and memory

It needs the programs echo_load and server_models beside it, built with the same
features as it was, in examples/heavy: cargo build --release
";

/// No more idle connections than that are tried: from one address to one port there are about 28000.
const MOST_IDLE: usize = 20_000;

/// More rounds than that leave too little time for each.
const MOST_ROUNDS: u32 = 20;

/// The command line; see [`HELP`].
pub(crate) struct Options {
    /// The models, in this order.
    pub(crate) models: Vec<&'static Model>,
    /// The numbers of idle connections, ascending.
    pub(crate) idle: Vec<usize>,
    /// The number of connections that ask.
    pub(crate) active: usize,
    /// How long each point is measured.
    pub(crate) duration: Duration,
    /// Parts of the duration, of which the best counts.
    pub(crate) rounds: u32,
    /// The file for the figures.
    pub(crate) csv: Option<PathBuf>,
    /// The file for the chart.
    pub(crate) svg: Option<PathBuf>,
    /// The processor of the server, and that of the load.
    pub(crate) processors: (usize, usize),
}

impl Options {
    /// Returns the points of a model: numbers of idle connections.
    pub(crate) fn points(&self, model: &Model) -> Vec<usize> {
        let mut points = self.idle.clone();
        points.extend(model.last_point.filter(|&point| points.iter().any(|&other| other > point)));
        points.sort_unstable();
        points.dedup();
        points
    }
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Options, String> {
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
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    // What was not said, or said by --quick.
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
    // A run takes minutes, so a file that cannot be written is refused before.
    for (option, path) in [("--csv", &options.csv), ("--svg", &options.svg)] {
        if let Some(path) = path {
            let opened = File::options().append(true).create(true).open(path);
            opened.map_err(|error| format!("{option} {}: {error}", path.display()))?;
        }
    }
    Ok(options)
}

/// Finds a model by its name.
fn named(name: &str) -> Result<&'static Model, String> {
    let found = MODELS.iter().find(|model| model.name == name);
    found.ok_or_else(|| match name {
        "green-patched" | "green-threads-patched" => format!("{name} needs --features monkey"),
        _ => format!("--models {name}: there is no such model"),
    })
}

/// Reads a number of idle connections.
fn idle_count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(count) if count <= MOST_IDLE => Ok(count),
        _ => Err(format!("--idle {text}: not a whole number up to {MOST_IDLE}")),
    }
}
