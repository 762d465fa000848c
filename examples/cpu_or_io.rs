//! You will see the same tasks run three ways, one after the other, on an OS thread each, on a green thread each: tasks
//! that wait, and tasks that compute.
//!
//! Threads of either kind can wait all at once. Computing needs processors: OS threads use all of them, the green
//! threads of one hub use one, and `blocking` lends them the others.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use greenling::offload::blocking;

#[path = "common/busy.rs"]
mod busy;
#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "cpu_or_io";

const HELP: &str = "\
Tasks that wait and tasks that compute, on OS threads and on green threads.

usage: cpu_or_io [--tasks N] [--wait TIME] [--below N]

  --tasks N    how many of each kind: 8 by default
  --wait TIME  how long a task of the first kind waits: 100ms by default
  --below N    a task of the second kind counts the primes below this: 500000 by
               default
";

/// Counts the primes below `limit`, by trial division: nothing but computing.
fn primes(limit: u32) -> u32 {
    let mut count = 0;
    for n in 2..limit {
        if (2..).take_while(|d| d * d <= n).all(|d| n % d != 0) {
            count += 1;
        }
    }
    count
}

/// Runs each task on an OS thread.
fn on_os_threads(tasks: usize, task: impl Fn() -> u32 + Copy + Send + 'static) -> Vec<u32> {
    let threads: Vec<_> = (0..tasks).map(|_| std::thread::spawn(task)).collect();
    threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
}

/// Runs each task on a green thread: the same lines but for the name of the module.
fn on_green_threads(tasks: usize, task: impl Fn() -> u32 + Copy + 'static) -> Vec<u32> {
    let threads: Vec<_> = (0..tasks).map(|_| greenling::thread::spawn(task)).collect();
    threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
}

/// Runs all tasks in one of the ways, and prints how long that took.
fn take_time(title: &str, expected: u32, run: impl FnOnce() -> Vec<u32>) {
    let begin = Instant::now();
    let results = run();
    let took = begin.elapsed().as_secs_f64();
    assert!(results.iter().all(|result| *result == expected), "all tasks come to the same result");
    cli::say(NAME, format_args!("  {title:<28} {took:6.2} s"));
}

fn main() {
    let (tasks, wait, below) = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    let busy = busy::others();

    // Stands for an answer from another machine. While the answer is on its way there is nothing to do.
    cli::say(NAME, format_args!("{tasks} tasks that wait {wait:?}"));
    let asleep = move || {
        std::thread::sleep(wait);
        0
    };
    take_time("one after the other", 0, || (0..tasks).map(|_| asleep()).collect());
    take_time("OS threads", 0, || on_os_threads(tasks, asleep));
    let parked = move || {
        greenling::sleep(wait);
        0
    };
    take_time("green threads", 0, || on_green_threads(tasks, parked));

    // Computing: only more processors make it faster.
    let count = primes(below);
    cli::say(NAME, format_args!("{tasks} tasks that count the {count} primes below {below}"));
    let computing = move || primes(below);
    take_time("one after the other", count, || (0..tasks).map(|_| computing()).collect());
    take_time("OS threads", count, || on_os_threads(tasks, computing));
    take_time("green threads", count, || on_green_threads(tasks, computing));
    take_time("green threads, blocking(..)", count, || on_green_threads(tasks, move || blocking(computing)));
    if let Some(busy) = busy {
        cli::say(NAME, busy);
    }
}

/// Reads the command line: how many tasks, how long they wait, how much they compute.
fn parse() -> Result<(usize, Duration, u32), String> {
    use lexopt::prelude::*;
    let (mut tasks, mut wait, mut below) = (8_u16, Duration::from_millis(100), 500_000);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("tasks") => tasks = cli::count("--tasks", &mut parser)?,
            Long("wait") => wait = cli::duration("--wait", &mut parser)?,
            Long("below") => below = cli::count("--below", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok((tasks.into(), wait, below))
}

// Output, on two processors:
//
//     8 tasks that wait 100ms
//       one after the other            0.80 s
//       OS threads                     0.10 s
//       green threads                  0.10 s
//     8 tasks that count the 41538 primes below 500000
//       one after the other            0.30 s
//       OS threads                     0.15 s
//       green threads                  0.30 s
//       green threads, blocking(..)    0.16 s
//
// Read next: offload_hash.rs, for what other threads see meanwhile.
