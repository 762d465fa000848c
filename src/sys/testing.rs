//! Test helpers that run code which may kill the process in a process of its own.
//!
//! Invariant testing-1: between `fork` and `_exit` the child of [`in_fork`] calls async-signal-safe functions only,
//! because the other threads of the test binary are gone there and may have held any lock. Upheld by each caller.

#![allow(unsafe_code)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output};
use std::{env, process};

use super::cvt;

/// The environment variable that names the test which a child runs.
const ROLE: &str = "GREENLING_TEST_ROLE";

/// Prevents a core file, which is of no use after an expected death.
fn leave_no_core() {
    // SAFETY: Invariant testing-1: prctl is a bare system call, and PR_SET_DUMPABLE takes an integer (prctl(2)).
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

/// Forks, runs `body` in the child and returns how the child ended: with the result of `body`, or by a signal.
///
/// Faults kill the child at once: the child has no handler for SIGSEGV and SIGBUS. `body` must keep Invariant
/// testing-1.
pub(super) fn in_fork(body: impl FnOnce() -> i32) -> ExitStatus {
    // SAFETY: Invariant testing-1: the child does only what fork(2) allows after a fork of a process with threads.
    let child = cvt(unsafe { libc::fork() }).expect("fork");
    if child == 0 {
        // The child resets the handlers of faults and runs the body.
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
    // SAFETY: `status` is a live integer that waitpid fills, and `child` was not waited for (waitpid(2)).
    cvt(unsafe { libc::waitpid(child, &raw mut status, 0) }).expect("waitpid");
    ExitStatus::from_raw(status)
}

/// Runs `body` in a new process of this test binary and returns the output and the exit status.
///
/// `test` is the full path of the calling test without the crate's name; the child runs that test only and reaches this
/// call again, where it runs `body` and exits with 0.
pub(super) fn in_new_process(test: &str, body: fn()) -> Output {
    if env::var_os(ROLE).is_some_and(|role| role == test) {
        leave_no_core();
        body();
        process::exit(0);
    }
    // The parent runs this binary again, for the one test.
    let binary = env::current_exe().expect("the path of the test binary");
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--nocapture"]).env(ROLE, test);
    command.output().expect("the test binary runs again")
}
