//! What green threads cost that wait: memory, and the time to make them and to end them.
//!
//! `cargo bench --bench memory -- --threads 1000000` prints one line for each figure: name, value, unit, bar, verdict;
//! `--json FILE` writes them to a file, too.
//! The parts can be named; each runs on an OS thread and a hub of its own:
//!
//! * `parked`: in `thread::park`. Making them, their memory, their end; what their stacks keep, and after a trim.
//! * `sleeping`: each with a timer. "Arm" is the first turn of each, which ends in the wait; "cancel, end, join" is
//!   woken threads that end with their timer still in the wheel; "fire, end, join" is threads that their timers wake.
//! * `own`: in `thread::park`, with thread-locals of their own, where these are supported.
//! * `deep` (10 000 at most): each makes a call that takes 200 KiB of stack, and then waits.
//! * `plateau`: ten times as many spawns, 1000 at a time, after which nothing may have grown.
//! * `tables` (100 000 at most): page tables of parked threads with stacks of 256 and of 64 KiB, what a trim leaves of
//!   them, and which calls of the kernel give them back (`limit/tables.rs`).
//!
//! "Resident" is what the kernel counts as the process's own memory (`VmRSS`); page tables (`VmPTE`) come on top and
//! have no bar: a page of them maps 2 MiB, that is eight stacks of the default size.

#[path = "results/mod.rs"]
mod results;
#[path = "limit/tables.rs"]
mod tables;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, hint};

use greenling::{hub, spawn, thread};

/// Most resident bytes of one parked thread, everything included: stack, control block, guard, queues, handle.
const BAR: f64 = 4.4 * 1024.0;

/// The same of a thread with thread-locals of its own: its TLS block and the dynamic linker's table of modules besides.
const OWN_BAR: f64 = 8.3 * 1024.0;

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
    note(name, value, unit);
}

/// Notes one figure for the file, under its part.
fn note(name: &str, value: f64, unit: &str) {
    let part = *PART.lock().expect("no thread panics");
    results::note(&format!("{part}: {name}"), unit, &[value], None);
}

/// The part that runs.
static PART: Mutex<&str> = Mutex::new("");

/// Measures threads that are parked.
fn park(count: usize) -> bool {
    park_each(count, BAR, |body| spawn(body))
}

/// Measures threads with thread-locals of their own that are parked.
fn own(count: usize) -> bool {
    if let Err(error) = thread::own_thread_locals_supported() {
        println!("skipped: {error}");
        return true;
    }
    park_each(count, OWN_BAR, |body| thread::Builder::new().own_thread_locals().spawn(body).expect("supported"))
}

/// Measures threads that `spawn` makes and that are parked, against the bar for their memory.
fn park_each(
    count: usize,
    bar: f64,
    spawn: impl Fn(Box<dyn FnOnce() -> usize + Send>) -> thread::JoinHandle<usize>,
) -> bool {
    spawn(Box::new(|| 0)).join().expect("a thread that does nothing");
    // After the first thread, so that what is made once does not count.
    let (memory, tables) = (status("VmRSS"), status("VmPTE"));
    let each = |bytes: usize, before: usize| bytes.saturating_sub(before) as f64 / count as f64;
    let nanoseconds = |start: Instant| start.elapsed().as_nanos() as f64 / count as f64;

    let start = Instant::now();
    let mut threads = Vec::with_capacity(count);
    // A closure without captures is no allocation, boxed or not.
    threads.extend((0..count).map(|_| {
        spawn(Box::new(|| {
            thread::park();
            hint::black_box(1)
        }))
    }));
    print("create", nanoseconds(start), "ns/thread");
    let start = Instant::now();
    thread::yield_now();
    print("first run, park", nanoseconds(start), "ns/thread");
    assert_eq!(hub::live_threads(), count);

    let resident = each(status("VmRSS"), memory);
    let met = resident <= bar;
    let verdict = if met { "PASS" } else { "MISS" };
    println!("{:<28} {resident:>12.1} {:<14} {bar:<10} {verdict}", "resident, parked", "bytes/thread");
    note("resident, parked", resident, "bytes/thread");
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

/// The same threads, asleep: what a timer costs each, and what waking all of them takes.
fn sleep(count: usize) -> bool {
    spawn(|| ()).join().expect("a thread that does nothing");
    // After the first thread, so that what is made once does not count.
    let (memory, tables) = (status("VmRSS"), status("VmPTE"));
    let each = |bytes: usize, before: usize| bytes.saturating_sub(before) as f64 / count as f64;
    let nanoseconds = |start: Instant| start.elapsed().as_nanos() as f64 / count as f64;

    // Woken before their time: the end of each takes the timer out of the wheel.
    let mut threads = Vec::with_capacity(count);
    threads.extend((0..count).map(|n| {
        // No two at the same moment.
        let limit = Duration::from_secs(3600) + Duration::from_micros(n as u64);
        spawn(move || thread::park_timeout(limit))
    }));
    let start = Instant::now();
    thread::yield_now();
    print("first run, arm", nanoseconds(start), "ns/thread");
    print("resident, sleeping", each(status("VmRSS"), memory), "bytes/thread");
    print("page tables, sleeping", each(status("VmPTE"), tables), "bytes/thread");
    threads.iter().for_each(|thread| thread.thread().unpark());
    let start = Instant::now();
    threads.drain(..).for_each(|thread| thread.join().expect("a thread that returns"));
    print("cancel, end, join", nanoseconds(start), "ns/thread");

    // Woken by their timers, spread over a second, all of which is over when the hub looks.
    let first = Instant::now() + Duration::from_micros(2 * count as u64) + Duration::from_secs(1);
    threads.extend((0..count).map(|n| {
        let until = first + Duration::from_secs(1) * n as u32 / count as u32;
        spawn(move || thread::sleep_until(until))
    }));
    let start = Instant::now();
    thread::yield_now();
    print("again, arm", nanoseconds(start), "ns/thread");
    // Blocks the OS thread with the hub.
    std::thread::sleep((first + Duration::from_secs(1)).saturating_duration_since(Instant::now()));
    let start = Instant::now();
    threads.drain(..).for_each(|thread| thread.join().expect("a thread that returns"));
    print("fire, end, join", nanoseconds(start), "ns/thread");
    true
}

/// Uses `bytes` of stack below `start`, and little more.
#[inline(never)]
fn dig(start: usize, bytes: usize) -> u8 {
    let frame = hint::black_box([1_u8; 512]);
    if start - (&raw const frame).addr() >= bytes { frame[7] } else { hint::black_box(dig(start, bytes)) ^ frame[7] }
}

/// Measures threads that make a deep call once, and then wait: what they keep, and how long.
fn deep(count: usize) -> bool {
    let memory = status("VmRSS");
    let each = || status("VmRSS").saturating_sub(memory) as f64 / count as f64;
    let threads: Vec<_> = (0..count)
        .map(|_| {
            spawn(|| {
                let here = 0_u8;
                hint::black_box(dig((&raw const here).addr(), 200 * 1024));
                thread::park();
            })
        })
        .collect();
    thread::yield_now();
    print("resident, deep and parked", each(), "bytes/thread");
    // The sweep gives the pages back, sooner or later.
    let start = Instant::now();
    while each() > 20.0 * 1024.0 && start.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(100));
    }
    print("idle, until given back", start.elapsed().as_secs_f64(), "s");
    let start = Instant::now();
    thread::sleep(Duration::from_secs(3));
    print("then, after seconds", start.elapsed().as_secs_f64(), "s");
    print("resident, given back", each(), "bytes/thread");
    let start = Instant::now();
    hub::trim_stacks();
    print("trim again", start.elapsed().as_nanos() as f64 / count as f64, "ns/thread");
    print("resident, trimmed", each(), "bytes/thread");
    threads.iter().for_each(|thread| thread.thread().unpark());
    threads.into_iter().for_each(|thread| thread.join().expect("a thread that returns"));
    true
}

/// Checks that stacks and memory do not become more in ten times as many spawns as threads, 1000 at a time.
fn plateau(count: usize) -> bool {
    let spawns = 10 * count;
    let mut handles = Vec::with_capacity(1000);
    let mut batches = |times: usize| {
        for _ in 0..times {
            handles.extend((0..1000).map(|n| spawn(move || n)));
            handles.drain(..).for_each(|thread| drop(hint::black_box(thread.join())));
        }
    };
    // The first batch makes the stacks, the others use them again.
    batches(1);
    let (memory, made) = (status("VmRSS"), hub::stack_stats().made);
    let start = Instant::now();
    batches(spawns.div_ceil(1000));
    print("spawn, join", start.elapsed().as_nanos() as f64 / spawns as f64, "ns/thread");
    let (grown, more) = (status("VmRSS").saturating_sub(memory), hub::stack_stats().made - made);
    let met = more == 0 && grown < 1 << 20;
    let verdict = if met { "PASS" } else { "MISS" };
    println!("{:<28} {:>12} {:<14} {:<10} {verdict}", "stacks made meanwhile", more, "stacks", 0);
    println!("{:<28} {:>12} {:<14} {:<10} {verdict}", "resident, more than before", grown, "bytes", 1 << 20);
    note("stacks made meanwhile", more as f64, "stacks");
    note("resident, more than before", grown as f64, "bytes");
    met
}

/// Measures the page tables of parked threads, and what gives them back.
fn page_tables(count: usize) -> bool {
    spawn(|| ()).join().expect("a thread that does nothing");
    for kib in [230, 40] {
        let before = status("VmPTE");
        let each = || status("VmPTE").saturating_sub(before) as f64 / count as f64;
        let spawn = |_| thread::Builder::new().stack_size(kib << 10).spawn(thread::park).expect("memory");
        let threads: Vec<_> = (0..count).map(spawn).collect();
        thread::yield_now();
        print(&format!("page tables, {kib} KiB"), each(), "bytes/thread");
        threads.iter().for_each(|thread| thread.thread().unpark());
        threads.into_iter().for_each(|thread| thread.join().expect("a thread that returns"));
        hub::trim_stacks();
        print(&format!("page tables, {kib} KiB, trimmed"), each(), "bytes/thread");
    }
    if let Err(error) = tables::compare(count, || status("VmPTE"), print) {
        println!("skipped: {error}");
    }
    true
}

/// A part of the bench: takes a number of threads, and says whether the bar was met.
type Part = fn(usize) -> bool;

/// What a part is called on the command line, how many threads it has at most, and the part.
type NamedPart = (&'static str, usize, Part);

/// All parts, in the usual order.
const PARTS: [NamedPart; 6] = [
    ("parked", usize::MAX, park),
    ("own", usize::MAX, own),
    ("sleeping", usize::MAX, sleep),
    ("deep", 10_000, deep),
    ("plateau", usize::MAX, plateau),
    ("tables", 100_000, page_tables),
];

/// Returns what `--threads` says, or a million, and the parts that were named, or all.
fn arguments() -> Result<(usize, Vec<NamedPart>), lexopt::Error> {
    use lexopt::prelude::*;
    let (mut count, mut parts) = (1_000_000, Vec::new());
    // A word names all parts that begin so.
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    results::take_option("memory", &mut words)?;
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("threads") => count = parser.value()?.parse()?,
            Long("bench") => {}
            Value(name) => {
                let name = name.string()?;
                let before = parts.len();
                parts.extend(PARTS.into_iter().filter(|(part, ..)| part.starts_with(&name)));
                if parts.len() == before {
                    return Err(format!("there is no part {name}").into());
                }
            }
            other => return Err(other.unexpected()),
        }
    }
    if count == 0 {
        return Err("--threads must be at least 1".into());
    }
    Ok((count, if parts.is_empty() { PARTS.to_vec() } else { parts }))
}

fn main() -> ExitCode {
    let (count, parts) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            let names = PARTS.map(|(name, ..)| format!("[{name}]")).join(" ");
            eprintln!("{error}; usage: memory [--threads N] [--json FILE] {names}");
            return ExitCode::from(2);
        }
    };
    let mut all_met = true;
    for (name, most, part) in parts {
        let count = count.min(most);
        println!("-- {name}, {count} threads");
        *PART.lock().expect("no thread panics") = name;
        // On another thread, to see what the end costs with all those stacks to unmap.
        let (met, start) = std::thread::spawn(move || (part(count), Instant::now())).join().expect("the benchmark");
        print("unmap", start.elapsed().as_nanos() as f64 / count as f64, "ns/thread");
        all_met &= met;
    }
    if let Err(error) = results::write() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
