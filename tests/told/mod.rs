//! Programs in processes of their own, which a test starts, tells how to go on by their standard input, and reads by
//! their standard error: nothing depends on how long anything takes.
#![forbid(unsafe_code)]
#![allow(dead_code, unreachable_pub)] // each test uses some of the helpers

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenling::hub::{self, ThreadInfo, ThreadKind, ThreadState};

/// The environment variable that names the program which a child runs.
const ROLE: &str = "GREENLING_TEST_TOLD";

/// The number of lines that the program was told.
static TOLD: AtomicUsize = AtomicUsize::new(0);

/// Reports whether the program was told so many lines.
pub fn told(lines: usize) -> bool {
    TOLD.load(Ordering::Relaxed) >= lines
}

/// Computes until the program was told so many lines.
#[inline(never)]
pub fn compute_until(lines: usize) {
    while !told(lines) {
        std::hint::spin_loop();
    }
}

/// Lets the hub turn until the program was told so many lines.
pub fn idle_until(lines: usize) {
    while !told(lines) {
        greenling::sleep(Duration::from_millis(2));
    }
}

/// Lets the threads of this hub run until each of them waits. On a busy machine a short sleep ends before some of them
/// have begun.
pub fn until_all_wait() {
    let waits = |info: &ThreadInfo| info.kind == ThreadKind::Main || info.state == ThreadState::Waiting;
    while !hub::threads().iter().all(waits) {
        greenling::sleep(Duration::from_millis(1));
    }
}

/// A program that runs.
pub struct Program {
    /// The process.
    pub child: Child,
    /// Its standard input.
    stdin: ChildStdin,
    /// Its standard error.
    stderr: BufReader<ChildStderr>,
    /// What was read of that.
    pub text: String,
}

impl Program {
    /// Starts `program` in a process of its own, as the test `name`, with `variables` in its environment.
    pub fn start(name: &str, variables: &[(&str, &str)], program: fn()) -> Program {
        if env::var_os(ROLE).is_some_and(|role| role == name) {
            std::thread::spawn(|| {
                for _ in std::io::stdin().lines() {
                    TOLD.fetch_add(1, Ordering::Relaxed);
                }
                // The test is gone.
                std::process::exit(1);
            });
            program();
            std::process::exit(0);
        }
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, name);
        command.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stderr) = (child.stdin.take().unwrap(), BufReader::new(child.stderr.take().unwrap()));
        Program { child, stdin, stderr, text: String::new() }
    }

    /// Reads standard error up to a line with `part`.
    pub fn read_to(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "no line with {part:?} in:\n{}", self.text);
            self.text.push_str(&line);
        }
    }

    /// Tells the program a line.
    pub fn tell(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    /// Waits for the end of the program, which must be a success, and returns its standard error.
    pub fn end(mut self) -> String {
        self.stderr.read_to_string(&mut self.text).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}:\n{}", self.text);
        self.text
    }
}
