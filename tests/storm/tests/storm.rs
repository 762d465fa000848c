//! Runs the program as a test, within bounds.
#![forbid(unsafe_code)]

use std::process::Command;

/// Runs a part of the program with `arguments`.
fn run(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_greenling-storm")).args(arguments).output().expect("it starts");
    let text = [output.stdout, output.stderr].concat();
    println!("{}", String::from_utf8_lossy(&text));
    assert!(output.status.success(), "{:?}", output.status);
}

#[test]
fn a_million_operations_lose_nothing_and_end() {
    let operations = if cfg!(debug_assertions) { "50000" } else { "1000000" };
    run(&["storm", "--operations", operations, "--seed", "1"]);
}

#[test]
fn few_threads_with_much_contention_lose_nothing() {
    for seed in ["2", "3", "4"] {
        run(&["storm", "--operations", "20000", "--seed", seed, "--threads", "3", "--os-threads", "2"]);
    }
}

#[test]
fn a_million_lives_leave_no_memory_behind() {
    run(&["lives", "--lives", if cfg!(debug_assertions) { "50000" } else { "1000000" }]);
}
