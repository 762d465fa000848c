//! Whole programs: how main ends with threads suspended, and life under `panic = "abort"`.
//!
//! `programs/end.rs` is built as a package of its own, since the way to panic belongs to a whole build.
#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Builds the program for one way to panic and returns its path.
fn build(panic: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("end-{panic}"));
    fs::create_dir_all(folder.join("src")).expect("a folder");
    // Under AddressSanitizer the flags of the build are inherited, and the feature that goes with them must follow.
    let features = if cfg!(feature = "sanitizer") { "\"sanitizer\"" } else { "" };
    let manifest = format!(
        "[package]\nname = \"end\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\ngreenling = {{ path = {:?}, features = [{features}] }}\n\n\
         [profile.dev]\npanic = {panic:?}\ndebug = false\n\n[workspace]\n",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::write(folder.join("Cargo.toml"), manifest).expect("a manifest");
    fs::write(folder.join("src/main.rs"), include_str!("programs/end.rs")).expect("a source");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline"]).current_dir(&folder).env("CARGO_TARGET_DIR", folder.join("target"));
    let output = common::output_of(cargo);
    assert!(output.status.success(), "{}", common::stderr(&output));
    folder.join("target/debug/end")
}

/// Runs the program that unwinds.
fn unwinding(scenario: &str) -> Output {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(PROGRAM.get_or_init(|| build("unwind")));
    command.arg(scenario);
    common::output_of(command)
}

/// Runs the program that aborts.
fn aborting(scenario: &str) -> Output {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(PROGRAM.get_or_init(|| build("abort")));
    command.arg(scenario);
    common::output_of(command)
}

#[test]
fn threads_that_are_suspended_when_main_returns_are_given_up_and_one_that_never_ran_is_dropped() {
    let output = unwinding("returns");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(common::stdout(&output), "dropped unstarted\n");
    assert_eq!(common::stderr(&output), "");
}

#[test]
fn a_panic_of_main_unwinds_no_other_thread() {
    let output = unwinding("panics");
    assert_eq!(output.status.code(), Some(101), "{output:?}");
    assert_eq!(common::stdout(&output), "dropped unstarted\n");
    assert!(common::stderr(&output).contains("main panics"));
}

/// Nothing panics in the last moment of a process for a lock that is not needed any more.
#[test]
fn an_os_thread_that_waits_for_a_lock_when_main_returns_says_nothing() {
    let output = unwinding("leaves-a-holder");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(common::stderr(&output), "");
}

#[test]
fn exit_in_main_ends_like_a_return() {
    let output = unwinding("exits");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(common::stdout(&output), "dropped unstarted\n");
}

#[test]
fn a_main_that_ends_with_a_shutdown_unwinds_all() {
    let output = unwinding("shuts-down");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut said: Vec<_> = common::stdout(&output).lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(said, ["dropped", "dropped", "dropped", "dropped unstarted"]);
    assert_eq!(common::stderr(&output), "");
}

/// Safe code that holds references into thread-locals over a wait, and main returns. Each of these read or wrote freed memory
/// when the end of an OS thread unwound what was suspended.
#[test]
fn what_suspended_threads_borrow_from_thread_locals_is_not_looked_at_after_main() {
    for (scenario, said) in [("borrows", "main is over\n"), ("borrows-in-thread", "main is over\n"), ("writes", "")] {
        let output = unwinding(scenario);
        assert_eq!(output.status.code(), Some(0), "{scenario}: {output:?}");
        assert_eq!(common::stdout(&output), said, "{scenario}");
        assert_eq!(common::stderr(&output), "", "{scenario}");
    }
}

#[test]
fn a_greenlet_whose_last_handle_goes_is_unwound_or_with_panic_abort_leaked() {
    let output = aborting("drop-greenlet");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(common::stdout(&output), "all well\n");
}

#[test]
fn a_program_that_cannot_unwind_works_without_kills_and_timeouts() {
    let output = aborting("without-unwinding");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(common::stdout(&output), "all well\ndropped unstarted\n");
}
