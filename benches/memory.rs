//! What a parked green thread costs: memory, and the time to make it and to end it.
//!
//! `cargo bench --bench memory -- --threads 1000000` prints one line for each figure: name, value, unit, bar, verdict.
//! "Resident" is what the kernel counts as the process's own memory (`VmRSS`); page tables (`VmPTE`) come on top and
//! have no bar: a page of them maps 2 MiB, that is eight stacks of the default size.

use std::process::ExitCode;
use std::time::Instant;
use std::{fs, hint};

use greenling::{hub, spawn, thread};

/// Most resident bytes of one parked thread, everything included: stack, control block, guard, queues, handle.
const BAR: f64 = 4.4 * 1024.0;

/// A field of `/proc/self/status`, in bytes.
fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
    let kilobytes = line.split_whitespace().nth(1).expect("a value");
    kilobytes.parse::<usize>().expect("a number") * 1024
}

/// Prints one figure without a bar.
fn print(name: &str, value: f64, unit: &str) {
    println!("{name:<28} {value:>12.1} {unit:<14} -          -");
}

/// Runs it all; false if the bar was missed.
fn run(count: usize) -> bool {
    spawn(|| ()).join().expect("a thread that does nothing");
    let (memory, tables) = (status("VmRSS"), status("VmPTE"));
    let each = |bytes: usize, before: usize| bytes.saturating_sub(before) as f64 / count as f64;
    let nanoseconds = |start: Instant| start.elapsed().as_nanos() as f64 / count as f64;

    let start = Instant::now();
    let mut threads = Vec::with_capacity(count);
    threads.extend((0..count).map(|number| {
        spawn(move || {
            thread::park();
            hint::black_box(number)
        })
    }));
    print("create", nanoseconds(start), "ns/thread");
    let start = Instant::now();
    thread::yield_now();
    print("first run, park", nanoseconds(start), "ns/thread");
    assert_eq!(hub::live_threads(), count);

    let resident = each(status("VmRSS"), memory);
    let met = resident <= BAR;
    let verdict = if met { "PASS" } else { "MISS" };
    println!("{:<28} {resident:>12.1} {:<14} {BAR:<10} {verdict}", "resident, parked", "bytes/thread");
    print("page tables, parked", each(status("VmPTE"), tables), "bytes/thread");
    let maps = fs::read_to_string("/proc/self/maps").expect("proc").lines().count();
    print("mappings", maps as f64, "in all");

    let start = Instant::now();
    for thread in &threads {
        thread.thread().unpark();
    }
    print("unpark", nanoseconds(start), "ns/thread");
    let start = Instant::now();
    for thread in threads {
        thread.join().expect("a thread that returns");
    }
    print("end, join", nanoseconds(start), "ns/thread");
    print("resident, free and warm", each(status("VmRSS"), memory), "bytes/thread");
    let start = Instant::now();
    hub::trim_stacks();
    print("trim", nanoseconds(start), "ns/thread");
    print("resident, trimmed", each(status("VmRSS"), memory), "bytes/thread");
    met
}

/// What `--threads` says, or a million.
fn threads() -> Result<usize, lexopt::Error> {
    use lexopt::prelude::*;
    let mut count = 1_000_000;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("threads") => count = parser.value()?.parse()?,
            Long("bench") => {}
            other => return Err(other.unexpected()),
        }
    }
    Ok(count)
}

fn main() -> ExitCode {
    match threads() {
        Ok(count) if count > 0 => {
            // On a thread of its own, to see what its end costs with all those stacks to unmap.
            let (met, start) = std::thread::spawn(move || (run(count), Instant::now())).join().expect("the benchmark");
            print("unmap", start.elapsed().as_nanos() as f64 / count as f64, "ns/thread");
            if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(_) => {
            eprintln!("--threads must be at least 1");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{error}; usage: memory [--threads N]");
            ExitCode::from(2)
        }
    }
}
