//! You will see several programs run at once, each within a time limit: one that takes too long is killed, and
//! does not hold up the others, and all of them together take as long as the slowest.
//!
//! Ctrl-C ends those that are still running. No thread of the operating system is started for any of this.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use greenling::process::Command;
use greenling::signal::{SIGINT, SIGTERM, Signals};
use greenling::{thread, timeout};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "run_commands";

const HELP: &str = "\
Runs programs at once, each for at most a second, and says how they ended.

usage: run_commands [--limit TIME] [COMMAND..]

  --limit TIME  how long each may take: 0.5 (seconds), 200ms; 1 second by
                default
  COMMAND       a program and its arguments, as one word with blanks in it; no
                shell is involved
";

/// The commands that run if none is named: a quick one, one that waits, one that does not exist, one that takes too
/// long.
const COMMANDS: [&str; 4] = ["uname -s", "sleep 0.2", "no-such-program", "sleep 60"];

/// Runs one command to the end, or to the end of the time limit, and returns how the command ended.
fn run(command: &str, limit: Duration) -> String {
    let mut words = command.split_whitespace();
    let mut program = Command::new(words.next().unwrap_or_default());
    program.args(words);
    // When the time is over, `output` unwinds to this line and kills the program on the way.
    match timeout(limit, || program.output()) {
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stdout);
            format!("{}, {:?}", output.status, text.lines().next().unwrap_or_default())
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("killed, since it took longer than {limit:?}"),
    }
}

fn main() {
    let (limit, commands) = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    // With fewer, some would run and some would not.
    cli::take_descriptors(NAME, 10 + 4 * commands.len().min(4) as u64);
    let signals = Signals::new([SIGINT, SIGTERM]).unwrap_or_else(|error| cli::fail(1, NAME, error));
    let began = Instant::now();
    let interrupted = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let signal = signals.recv();
            // All threads of the scope unwind, this one too; `output` kills the program.
            scope.kill_all();
            signal
        });
        let running: Vec<_> =
            commands.iter().map(|command| (command, scope.spawn(move || run(command, limit)))).collect();
        for (command, thread) in running {
            let end = thread.join().unwrap_or_else(|_| "interrupted".to_owned());
            cli::say(NAME, format_args!("{command}: {end}"));
        }
        !watcher.kill()
    });
    cli::say(NAME, format_args!("{} commands in {:.1} s", commands.len(), began.elapsed().as_secs_f64()));
    if interrupted {
        // What a shell says of a program that Ctrl-C has ended.
        std::process::exit(130);
    }
}

fn parse() -> Result<(Duration, Vec<String>), String> {
    use lexopt::prelude::*;
    let (mut limit, mut commands) = (Duration::from_secs(1), Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("limit") => limit = cli::duration("--limit", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            Value(command) => commands.push(command.into_string().map_err(|_| "a command is not UTF-8".to_owned())?),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if commands.is_empty() {
        commands = COMMANDS.map(str::to_owned).into();
    }
    Ok((limit, commands))
}

// Output:
//
//     uname -s: exit status: 0, "Linux"
//     sleep 0.2: exit status: 0, ""
//     no-such-program: No such file or directory (os error 2)
//     sleep 60: killed, since it took longer than 1s
//     4 commands in 1.0 s
//
// Read next: `wait` in src/process/child.rs, then src/runtime/source.rs, where every wait for a descriptor ends up.
