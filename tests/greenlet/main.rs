//! Greenlets: the rules of Python's greenlet, a file for each part of its list of tests. `greenlet_main_thread.rs` is a
//! binary of its own, without the test harness.
//!
//! One binary, because each costs a fresh clone most of a second. Tests that look at a whole process run in a child.

mod death;
mod drop;
mod generators;
mod hub;
mod reentrancy;
mod shutdown;
mod start_failure;
mod switch;
mod throw;
mod trace;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Set in a child to the test that it is to run.
const CHILD: &str = "GREENLING_TEST_CHILD";

/// Runs the test `name`, with its module, in a child and returns what it printed, or says (`None`) that this is the
/// child. The child ends after a minute at the latest.
fn in_child(name: &str) -> Option<Output> {
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, name);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{name} did not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    // A child with no test to run would succeed.
    assert!(String::from_utf8_lossy(&output.stdout).contains("running 1 test\n"), "no test {name}");
    Some(output)
}
