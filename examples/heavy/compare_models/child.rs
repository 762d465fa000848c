//! The programs that are started: each runs on one processor, and ends with this process.
#![allow(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::{prctl, signal::Signal};
use nix::unistd::{Pid, getpid, getppid};

use crate::cli;

/// A running example program, which ends with this value.
pub(crate) struct Program {
    /// The process, not waited for yet.
    child: Child,
    /// The standard input: a program that waits goes on when a line is written here.
    input: Option<ChildStdin>,
    /// The lines that the program prints.
    lines: Receiver<String>,
    /// The lines of standard error.
    complaint: Receiver<String>,
}

impl Program {
    /// Starts a program that lies beside this one, on one processor.
    pub(crate) fn start(name: &str, args: &[&str], processor: usize) -> io::Result<Program> {
        let path = std::env::current_exe()?.with_file_name(name);
        let mut command = Command::new(&path);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In the child: on one processor, and ended by the kernel if this process ends first.
        let mut only = CpuSet::new();
        only.set(processor)?;
        let parent = getpid();
        let prepare = move || {
            sched_setaffinity(Pid::from_raw(0), &only)?;
            // A program must not be left behind, even when this process is killed.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
        };
        // SAFETY: the closure makes plain system calls: it takes no lock and allocates nothing after the fork.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn().map_err(|error| {
            let words = match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("{}: {error}; build it first, in examples/heavy: cargo build --release", path.display())
                }
                _ => format!("cannot start {name}: {}", cli::brief(&error)),
            };
            io::Error::new(error.kind(), words)
        })?;
        let lines = lines_of(child.stdout.take().expect("piped"));
        let complaint = lines_of(child.stderr.take().expect("piped"));
        let input = child.stdin.take();
        Ok(Program { child, input, lines, complaint })
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line of the program, or the reason why there is none.
    pub(crate) fn line(&mut self, patience: Duration) -> Result<String, String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => Err(format!("nothing was heard for {patience:?}")),
            Err(RecvTimeoutError::Disconnected) => {
                Err(self.complaint.recv_timeout(patience).unwrap_or_else(|_| String::from("ended without a word")))
            }
        }
    }

    /// Lets a program go on that waits for a line.
    pub(crate) fn go_on(&mut self) {
        if let Some(input) = &mut self.input {
            // If the program has ended, `line` will say so.
            let _ = input.write_all(b"\n");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the lines of a pipe, as they come.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Returns the processors for the server and for the load: two different ones, if there are.
pub(crate) fn processors() -> io::Result<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut some = (0..CpuSet::count()).filter(|&processor| allowed.is_set(processor).unwrap_or(false));
    let first = some.next().ok_or_else(|| io::Error::other("no processor"))?;
    Ok((some.next_back().unwrap_or(first), first))
}
