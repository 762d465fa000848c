//! You will see 0 to 4 of thread 1, then of thread 2, then of thread 3: green threads run until they wait, and these
//! never do.
//!
//! `sleep_interleave` is the same program with a wait inside.
#![forbid(unsafe_code)]

use greenling::thread::{self, Builder, JoinHandle};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "spawn_join";

const HELP: &str = "\
Three green threads that never wait run one after the other.

usage: spawn_join
";

/// Counts, without a wait.
fn count(n: u32) {
    let me = thread::current();
    for i in 0..n {
        cli::say(NAME, format_args!("{} {i}", me.name().unwrap_or_default()));
    }
}

fn main() {
    cli::no_arguments(NAME, HELP);
    cli::make_hub(NAME);
    let handles: Vec<JoinHandle<()>> = (1..=3)
        .map(|number| {
            let builder = Builder::new().name(format!("thread {number}"));
            builder.spawn(|| count(5)).expect("there is memory for a stack")
        })
        .collect();
    // Nothing has run yet. While main waits here, the hub runs the others, in the order in which they were spawned.
    for handle in handles {
        handle.join().expect("it does not panic");
    }
}

// Output:
//
//     thread 1 0
//     thread 1 1
//     thread 1 2
//     thread 1 3
//     thread 1 4
//     thread 2 0
//     ...
//     thread 3 4
//
// Read next: src/thread/spawn.rs and, beside it, life.rs and join.rs.
