//! A million short lives: threads with thread-locals of their own that allocate, one after the other and a few at a time.
//! Allocators have a heap for each thread, which must go with the thread.

use std::cell::RefCell;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use greenling::thread::{Builder, yield_now};

thread_local! {
    /// What a thread leaves to its destructors.
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How many live at the same time.
const TOGETHER: u64 = 10;

/// How many bytes more than after the first tenth are no growth.
const SLACK: usize = 8 << 20;

/// Lives.
fn one(number: u64) {
    let size = 16 << (number % 10);
    KEPT.with_borrow_mut(|kept| kept.push(vec![1; size]));
    let short = black_box(vec![2_u8; 100]);
    yield_now();
    KEPT.with_borrow_mut(|kept| kept.push(short));
}

/// Returns how many bytes are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// Runs `count` lives, and checks that memory does not grow after the first tenth.
pub(crate) fn run(count: u64) -> ExitCode {
    let begin = Instant::now();
    let batch = |first: u64| {
        let spawn = |number| Builder::new().own_thread_locals().spawn(move || one(number)).expect("memory");
        let threads: Vec<_> = (first..first + TOGETHER).map(spawn).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it only allocates"));
    };
    let batches = |numbers: std::ops::Range<u64>| numbers.step_by(TOGETHER as usize).for_each(batch);
    batches(0..count / 10);
    let before = resident();
    batches(count / 10..count);
    let grown = resident().saturating_sub(before);
    println!("{count} lives, {grown} bytes more than after the first tenth, {:.1} s", begin.elapsed().as_secs_f64());
    if grown < SLACK { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
