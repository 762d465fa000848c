//! What the hot paths of greenling take, counted: instructions, cache misses, system calls, allocations, memory.
//!
//! ```text
//! counts check        counts, and compares with counts.txt; fails if a figure has changed
//! counts write        counts, and writes counts.txt anew
//! counts show NAME..  counts the paths of these names, and prints what it found
//! counts run NAME N   goes N times along one path: what the other three start, under the tools that count
//! ```
//!
//! Each path is run twice, the second time with twice as many rounds; a figure is the difference of both, divided by
//! the rounds. Times are not in the file: they are a machine's, and counts are the program's. A figure that got better
//! fails too, since the file is to be true. Which commit changed a figure: `git blame counts.txt`.
//!
//! | figure | counted by |
//! |---|---|
//! | instructions, misses in a first-level cache of 32 KiB | Valgrind's cachegrind |
//! | system calls of the hub's OS thread | strace |
//! | allocations | the allocator of this program |
//! | bytes, the highest resident memory and its page tables | /proc/self/status |

mod counted;
mod paths;
mod slow_clock;

use std::alloc::System;
use std::process::ExitCode;
use std::{env, fs};

use counted::Counted;
use paths::PATHS;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Where the figures are.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.txt");

/// How often a figure that differs is counted.
const TRIES: usize = 4;

const USAGE: &str = "usage: counts check | write | show NAME.. | run NAME ROUNDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["check"] => check(),
        ["write"] => write(),
        ["show", ref names @ ..] => show(names),
        ["run", name, rounds] => run(name, rounds),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Goes along a path and prints what this process can count itself.
fn run(name: &str, rounds: &str) -> Result<(), String> {
    let path = PATHS.iter().find(|path| path.name == name).ok_or_else(|| format!("no path is named {name:?}"))?;
    let rounds = rounds.parse().map_err(|_| format!("{rounds:?} is no number of rounds"))?;
    if !path.calls {
        slow_clock::slow_down();
    }
    (path.run)(rounds);
    let allocations = ALLOCATOR.stats().allocations;
    println!("{allocations} {}", counted::memory()?);
    Ok(())
}

fn show(names: &[&str]) -> Result<(), String> {
    if let Some(name) = names.iter().find(|name| PATHS.iter().all(|path| path.name != **name)) {
        let all: Vec<_> = PATHS.iter().map(|path| path.name).collect();
        return Err(format!("no path is named {name:?}; there are {}", all.join(", ")));
    }
    println!("{}", counted::header());
    for path in PATHS.iter().filter(|path| names.is_empty() || names.contains(&path.name)) {
        println!("{}", Counted::count(path)?);
    }
    Ok(())
}

fn write() -> Result<(), String> {
    let mut text = format!("{}\n{}\n", counted::compiler()?, counted::header());
    for path in &PATHS {
        let counted = Counted::count(path)?;
        println!("{counted}");
        text += &format!("{counted}\n");
    }
    fs::write(FILE, text).map_err(|error| format!("{FILE}: {error}"))
}

fn check() -> Result<(), String> {
    let text = fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    let compiler = counted::compiler()?;
    // Another compiler makes other code of the same program.
    let leeway = if text.starts_with(&compiler) { 1.0 } else { 10.0 };
    if leeway > 1.0 {
        println!("{compiler} is not the compiler of counts.txt: its figures may differ ten times as much");
    }
    let mut changed = Vec::new();
    for path in &PATHS {
        let Some(known) = text.lines().find_map(|line| Counted::parse(line, path.name)) else {
            changed.push(format!("{}: not in counts.txt", path.name));
            continue;
        };
        // A machine that is busy stops the program in other places, and then the runtime looks at the clock more often.
        let mut differences = Vec::new();
        for _ in 0..TRIES {
            let counted = Counted::count(path)?;
            println!("{counted}");
            differences = counted.differences(&known, leeway);
            if differences.is_empty() {
                break;
            }
        }
        changed.append(&mut differences);
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nIf that is meant, write the file anew (counts write) and say why in the commit.",
        changed.join("\n")
    ))
}
