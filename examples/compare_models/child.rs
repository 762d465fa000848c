//! The programs that are started: each on one processor, listened to with patience, ended by its id, and ended by the
//! kernel if this process ends first.
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

/// A running example program. It ends with this value.
pub(crate) struct Program {
    /// It; not waited for yet.
    child: Child,
    /// Its lines go on when something is written here.
    input: Option<ChildStdin>,
    /// What it prints, line by line.
    lines: Receiver<String>,
    /// The first line of what it complains of, at its end.
    complaint: Receiver<String>,
}

impl Program {
    /// Starts an example that lies beside this one, on one processor.
    pub(crate) fn start(name: &str, args: &[&str], processor: usize) -> io::Result<Program> {
        let path = std::env::current_exe()?.with_file_name(name);
        let mut command = Command::new(&path);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut only = CpuSet::new();
        only.set(processor)?;
        let parent = getpid();
        let prepare = move || {
            sched_setaffinity(Pid::from_raw(0), &only)?;
            // Whoever starts a server by this must not leave it behind, even when it is killed.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
        };
        // SAFETY: the closure makes plain system calls: it takes no lock and allocates nothing after the fork.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn().map_err(|error| {
            let path = path.display();
            io::Error::other(format!("{path}: {error}; build it first: cargo build --release --examples"))
        })?;
        let lines = lines_of(child.stdout.take().expect("piped"));
        let complaint = lines_of(child.stderr.take().expect("piped"));
        let input = child.stdin.take();
        Ok(Program { child, input, lines, complaint })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its next line.
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
            // If it has ended, its next line will say so.
            let _ = input.write_all(b"\n");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a pipe, as they come.
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

/// The processors for the server and for the load: two different ones, if there are.
pub(crate) fn processors() -> io::Result<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut some = (0..CpuSet::count()).filter(|&processor| allowed.is_set(processor).unwrap_or(false));
    let first = some.next().ok_or_else(|| io::Error::other("no processor"))?;
    Ok((some.next_back().unwrap_or(first), first))
}
