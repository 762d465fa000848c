//! You will see four numbers, each the hash of a hash of a hash, and how often a clock ticked while they were computed.
//!
//! A green thread that computes does not wait, and so holds up all the others: with `--in-place` the clock does not
//! tick once. Without `--in-place`, the same closures run on OS threads of the offload pool, and the green threads wait
//! for the results as they would wait for a socket.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use greenling::offload::blocking;
use greenling::thread::JoinHandle;
use greenling::{sleep, spawn};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "offload_hash";

const HELP: &str = "\
Four green threads hash for a while beside a ticking clock.

usage: offload_hash [--in-place] [--rounds N]

  --in-place  hash on the hub's own OS thread: no other thread runs meanwhile
  --rounds N  how often each hashes: 20000000 by default
";

/// Returns the 64-bit FNV-1a hash of its own last value, `rounds` times over.
fn hash(seed: u64, rounds: u64) -> u64 {
    let mut hash = seed;
    for _ in 0..rounds {
        hash = hash
            .to_le_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
    hash
}

fn main() {
    let (in_place, rounds) = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    let ticks = Rc::new(Cell::new(0_u64));
    let seen = Rc::clone(&ticks);
    let clock = spawn(move || {
        loop {
            sleep(Duration::from_millis(1));
            seen.set(seen.get() + 1);
        }
    });
    let hashers: Vec<JoinHandle<u64>> = (1..=4)
        .map(|seed| {
            // The line that differs. A closure that goes to the pool must be `Send`, which a number is.
            spawn(move || if in_place { hash(seed, rounds) } else { blocking(move || hash(seed, rounds)) })
        })
        .collect();
    for (seed, hasher) in (1..).zip(hashers) {
        let hash = hasher.join().expect("it does not panic");
        cli::say(NAME, format_args!("{seed} becomes {hash:016x}"));
    }
    clock.kill();
    cli::say(NAME, format_args!("{} ticks meanwhile", ticks.get()));
}

fn parse() -> Result<(bool, u64), String> {
    use lexopt::prelude::*;
    let (mut in_place, mut rounds) = (false, 20_000_000);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("in-place") => in_place = true,
            Long("rounds") => rounds = cli::count("--rounds", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok((in_place, rounds))
}

// Output; the ticks differ from run to run, and are 4 at most with --in-place, one after each:
//
//     1 becomes 1fff8832ea3e7943
//     2 becomes 1102e9b952d881cf
//     3 becomes f595b01aa192a609
//     4 becomes 6da6dd44063d5687
//     561 ticks meanwhile
//
// Read next: `offer` in src/offload/pool.rs, the wait, and `work` in src/offload/workers.rs, the life of an OS thread.
