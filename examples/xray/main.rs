//! You will see the stacks of green threads and greenlets that wait, word by word, each with its name: where the code
//! goes on, registers, a value on its way, the link to the resumer, the guard.
//!
//! ```text
//!   scenes.rs    brings a fiber to a moment       words.rs     what each word is
//!   fibers.rs    finds it, as a debugger does     unwind.rs    its frames
//!   memory.rs    reads words                      program.rs   functions and lines
//!   print.rs     the lines
//! ```
//!
//! Every meaning comes from the run: from the table that the runtime has for debuggers, from the unwind tables, and
//! from the lines of this program's file. Addresses are distances, so that two runs of one build print the same.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

#[path = "../common/cli.rs"]
mod cli;
mod fibers;
mod memory;
mod print;
mod program;
mod scenes;
mod unwind;
mod words;

use print::Options;
use scenes::{Scene, Shared};

const NAME: &str = "xray";

const HELP: &str = "\
The stack of a fiber that waits, word by word.

usage: xray [--all] [--absolute] [fresh|parked|switched|value|ended|own ...]

  fresh      a green thread that has never run
  parked     one that is parked
  switched   a greenlet that waits in a switch
  value      the same, with a value on its way to it
  ended      a green thread that has ended
  own        one with thread-locals of its own

  --all        every local and every field of the control block
  --absolute   addresses and values as they are
";

/// What brings a fiber to a moment, and looks.
type Bring = fn(&Shared) -> io::Result<Scene>;

/// The moments, by name.
const SCENES: [(&str, Bring); 6] = [
    ("fresh", scenes::fresh),
    ("parked", scenes::parked),
    ("switched", scenes::switched),
    ("value", scenes::value),
    ("ended", scenes::ended),
    ("own", scenes::own),
];

fn main() {
    let (options, wanted) = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    let failed = |error: io::Error| -> ! { cli::fail(1, NAME, cli::brief(&error)) };
    cli::make_hub(NAME);
    let xray = words::Xray::open().unwrap_or_else(|error| failed(error));
    if options.absolute {
        let (root, main) = xray.table.root(&xray.memory).unwrap_or_default();
        let distance = xray.program.distance;
        cli::say_exactly(NAME, format_args!("program {distance:#x}, root {root:#x}, main's block {main:#x}\n"));
    }
    let xray: Shared = Arc::new(Mutex::new(xray));
    for (name, bring) in SCENES.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        match bring(&xray) {
            Ok(scene) => {
                let lines = xray.lock().unwrap_or_else(PoisonError::into_inner).lines(&scene.look, options);
                let Scene { title, beside, .. } = scene;
                cli::say_exactly(NAME, format_args!("== {name}: {title}\n{lines}{beside}"));
            }
            // A machine need not have what these threads stand on.
            Err(error) if name == "own" && error.kind() == io::ErrorKind::Unsupported => {
                cli::say(NAME, format_args!("== {name}: not here: {}", cli::brief(&error)));
            }
            Err(error) => failed(error),
        }
    }
}

/// Reads the command line: how to print, and which moments.
fn parse() -> Result<(Options, Vec<String>), String> {
    use lexopt::prelude::*;
    let (mut options, mut wanted) = (Options::default(), Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("all") => options.all = true,
            Long("absolute") => options.absolute = true,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            Value(value) => {
                let value = value.string().map_err(|error| error.to_string())?;
                if !SCENES.iter().any(|(name, _)| *name == value) {
                    return Err(format!("{value} is none of fresh, parked, switched, value, ended, own"));
                }
                wanted.push(value);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok((options, wanted))
}
