//! You will see three green threads in step, `thread 1 0`, `thread 2 0`, `thread 3 0`, then the ones, a second later: a
//! thread that sleeps lets the others run.
//!
//! `spawn_join` is the same program without the sleep. All fifteen naps take five seconds together, on one OS thread.
#![forbid(unsafe_code)]

use std::time::Duration;

use greenling::thread::{self, Builder, JoinHandle};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "sleep_interleave";

const HELP: &str = "\
Three green threads count to five and sleep after each number: they interleave.

usage: sleep_interleave [--delay TIME]

  --delay TIME  how long a nap is: 0, 0.5 (seconds), 200ms; 1 second by default
";

/// Counts, with a nap after each number.
fn count(n: u32, nap: Duration) {
    let me = thread::current();
    for i in 0..n {
        cli::say(NAME, format_args!("{} {i}", me.name().unwrap_or_default()));
        // Stands for any call that waits. `std::thread::sleep` would put all three to sleep.
        thread::sleep(nap);
    }
}

fn main() {
    let nap = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    let handles: Vec<JoinHandle<()>> = (1..=3)
        .map(|number| {
            let builder = Builder::new().name(format!("thread {number}"));
            builder.spawn(move || count(5, nap)).expect("there is memory for a stack")
        })
        .collect();
    for handle in handles {
        handle.join().expect("it does not panic");
    }
}

fn parse() -> Result<Duration, String> {
    use lexopt::prelude::*;
    let mut nap = Duration::from_secs(1);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("delay") => nap = cli::duration("--delay", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(nap)
}

// Output, a second between the groups:
//
//     thread 1 0
//     thread 2 0
//     thread 3 0
//
//     thread 1 1
//     thread 2 1
//     thread 3 1
//     ...
//     thread 3 4
//
// Read next: `sleep` in src/thread/mod.rs, then src/runtime/park.rs, the only way anything waits.
