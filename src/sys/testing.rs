//! Test helpers: run something that may kill the process in a process of its own.
//!
//! Invariant X1: between `fork` and `_exit` the child of [`in_fork`] calls async-signal-safe functions only, because
//! the other threads of the test binary are gone there and may have held any lock. Each caller upholds it.

#![allow(unsafe_code)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output};
use std::{env, process};

use super::cvt;

/// Names, in the environment of a child, the test that it runs.
const ROLE: &str = "GREENLING_TEST_ROLE";

/// A core file of an expected death helps nobody.
fn leave_no_core() {
    // SAFETY: Invariant X1: prctl is a bare system call, and PR_SET_DUMPABLE takes an integer (prctl(2)).
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

/// Forks, runs `body` in the child and returns how the child ended: with the number `body` returned, or by a signal.
///
/// Faults kill the child at once: it has no handler for SIGSEGV and SIGBUS. `body` must keep Invariant X1.
pub(super) fn in_fork(body: impl FnOnce() -> i32) -> ExitStatus {
    // SAFETY: Invariant X1: the child does only what fork(2) allows after a fork of a process with threads.
    let child = cvt(unsafe { libc::fork() }).expect("fork");
    if child == 0 {
        leave_no_core();
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            // SAFETY: the default action is valid for both signals, and signal is async-signal-safe (signal-safety(7)).
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        let code = body();
        // SAFETY: _exit is async-signal-safe and runs nothing of this process (_exit(2)).
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is a live integer that waitpid fills, and `child` is ours to wait for (waitpid(2)).
    cvt(unsafe { libc::waitpid(child, &raw mut status, 0) }).expect("waitpid");
    ExitStatus::from_raw(status)
}

/// Runs `body` in a fresh process of this test binary and returns what it printed and how it ended.
///
/// `test` is the full path of the calling test without the crate's name; the child runs that test only and gets to
/// this call again, where it runs `body` and exits with 0.
pub(super) fn in_new_process(test: &str, body: fn()) -> Output {
    if env::var_os(ROLE).is_some_and(|role| role == test) {
        leave_no_core();
        body();
        process::exit(0);
    }
    let binary = env::current_exe().expect("the path of the test binary");
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--nocapture"]).env(ROLE, test);
    command.output().expect("the test binary runs again")
}
