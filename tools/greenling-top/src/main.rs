//! Shows what the green threads of a running program do.
//!
//! `greenling-top PID` in a terminal, `--once` as plain text, `--web` in a browser.

use std::path::PathBuf;
use std::process::ExitCode;

use greenling_top::agent::{Agent, all, find};
use greenling_top::once::{Rows, snapshot};
use greenling_top::{tui, web};

/// What `--help` prints.
const HELP: &str = "\
greenling-top shows what the green threads of a running program do.

  greenling-top                      lists the programs that can be asked
  greenling-top PID|PATH             shows one in the terminal, once a second
  greenling-top PID|PATH --once      prints what its threads do now
  greenling-top PID|PATH --web       serves a page on 127.0.0.1, with a port and a word in its address
  greenling-top PID|PATH --web=PORT  the same on that port

  --rows=N      rows of each part that --once prints (20)
  --stacks=N    stacks that --once prints (5)
  --help, --version

A program can be asked if it runs with GREENLING_CONSOLE=1, or calls greenling::hub::console().
";

/// How the program is shown.
#[derive(Default)]
enum Mode {
    /// In the terminal.
    #[default]
    Terminal,
    /// As text, once.
    Once,
    /// As a page, on this port; 0 for any.
    Web(u16),
}

/// What the arguments say.
#[derive(Default)]
struct Arguments {
    /// How to show it.
    mode: Mode,
    /// The program to show.
    program: Option<String>,
    /// The rows of each part.
    rows: Option<u64>,
    /// The stacks.
    stacks: Option<u64>,
}

/// Reads the arguments; none if they only ask for help.
fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("once") => arguments.mode = Mode::Once,
            // A port must be attached, since a number that follows is a process.
            Long("web") => {
                let port = parser.optional_value().map_or(Ok(0), |port| port.parse())?;
                arguments.mode = Mode::Web(port);
            }
            Long("rows") => arguments.rows = Some(parser.value()?.parse()?),
            Long("stacks") => arguments.stacks = Some(parser.value()?.parse()?),
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(None);
            }
            Long("version") | Short('V') => {
                println!("greenling-top {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Value(program) if arguments.program.is_none() => arguments.program = Some(program.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(arguments))
}

/// Lists the programs that can be asked.
fn list_programs() -> Result<(), String> {
    let agents: Vec<(PathBuf, Agent)> =
        all().into_iter().filter_map(|path| Some((path.clone(), Agent::connect(&path).ok()?))).collect();
    if agents.is_empty() {
        return Err(String::from("no program can be asked: start one with GREENLING_CONSOLE=1; see --help"));
    }
    for (path, agent) in agents {
        println!("{:>8}  {:<24}  {}", agent.greeting.pid, agent.greeting.program, path.display());
    }
    Ok(())
}

/// Does what the arguments say.
fn run(arguments: Arguments) -> Result<(), String> {
    let Some(program) = arguments.program else { return list_programs() };
    let path = find(&program)?;
    match arguments.mode {
        Mode::Terminal => tui::run(Agent::connect(&path)?).map_err(|error| error.to_string()),
        Mode::Once => {
            let most = Rows { rows: arguments.rows.unwrap_or(20), stacks: arguments.stacks.unwrap_or(5) };
            let text = snapshot(&mut Agent::connect(&path)?, most)?;
            // A reader that has read enough is no error.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            Ok(())
        }
        Mode::Web(port) => web::run(&path, port),
    }
}

fn main() -> ExitCode {
    let done = arguments().map_err(|error| error.to_string()).and_then(|arguments| arguments.map_or(Ok(()), run));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("greenling-top: {error}");
            ExitCode::FAILURE
        }
    }
}
