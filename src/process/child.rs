//! A child that runs or has ended: std's, and a pidfd in the hub's epoll set once somebody waits.
//!
//! ```text
//!   wait:   ended already? (waitpid, WNOHANG) --yes--> how it ended
//!              | no
//!           pidfd, the first time -> park until it is readable -> ask again
//! ```
//!
//! A pidfd stays readable when the child has ended, so any number of green threads may wait: the first to come takes the
//! status from the kernel, std keeps it, and each one that is woken wakes the next.
//!
//! * Invariant C1: the id is the child's as long as std's `Child` has no status for it, since only that takes it from the
//!   kernel. `send_signal` asks first. (As in std, a program that waits for children it does not know breaks this.)
//! * Invariant C2: a doomed child has been sent SIGKILL, and is waited for before the last handle of it is gone.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::process::{self, ExitStatus, Output};
use std::rc::Rc;
use std::time::Duration;

use super::stdio::{ChildStderr, ChildStdin, ChildStdout};
use crate::runtime::choose::{AnyArm, Arm, End, Failed, ReadyArm, Who};
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::switch::wait_list::WaitList;
use crate::sys::own::own;
use crate::sys::process::{pidfd_open, send_signal};
use crate::thread::{Builder, scope};

/// The process, shared by all who may wait for it.
struct Process {
    /// std's, without its pipes. Borrowed for one system call at a time.
    std: RefCell<process::Child>,
    /// Its id.
    id: u32,
    /// Readable when it has ended; made when somebody first waits.
    end: OnceCell<Source<OwnedFd>>,
    /// Whether it was killed and nobody need know how it ended (C2).
    doomed: Cell<bool>,
}

impl Process {
    /// The descriptor that is readable when it has ended, made if need be.
    fn end(&self) -> io::Result<&Source<OwnedFd>> {
        match self.end.get() {
            Some(end) => Ok(end),
            None => pidfd_open(self.id).map(|fd| self.end.get_or_init(|| Source::new(fd, false, false))),
        }
    }

    /// How it ended, if it has.
    fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.std.borrow_mut().try_wait()
    }

    /// Waits for its end for at most `timeout`; none if that passed.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<ExitStatus>> {
        let ended = self.try_wait()?;
        if ended.is_some() || timeout == Some(Duration::ZERO) {
            return Ok(ended);
        }
        let end = match self.end() {
            Ok(end) => end,
            // If the kernel threw it away in between, that says the better error.
            Err(error) => return self.try_wait()?.map(Some).ok_or(error),
        };
        let mut ask = |_: &OwnedFd| self.try_wait()?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
        match end.run(Direction::Read, timeout, &mut ask) {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// [`wait`](Self::wait) without a limit.
    fn wait_for_end(&self) -> io::Result<ExitStatus> {
        match self.wait(None)? {
            Some(status) => Ok(status),
            None => unreachable!("only a limit ends a wait early"),
        }
    }

    /// Sends SIGKILL; nothing to a child that was waited for.
    fn kill(&self) -> io::Result<()> {
        self.std.borrow_mut().kill()
    }

    /// Sends a signal; nothing to a child that has ended.
    fn send_signal(&self, signal: i32) -> io::Result<()> {
        if self.try_wait()?.is_some() { Ok(()) } else { send_signal(self.id, signal) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.doomed.get() {
            let _own = own();
            // The OS thread waits, but a process that was sent SIGKILL runs no more code of its own.
            let _ = self.std.get_mut().wait();
        }
    }
}

/// What a [`Child`] does with the process when it is dropped.
struct Owner {
    /// It.
    process: Rc<Process>,
    /// Whether it is killed.
    kill: bool,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Errors: it was taken from the kernel by somebody else, or this is the copy of a fork, whose children it is not; or
        // it has become another user's and cannot be killed.
        let alive = |process: &Process| matches!(process.try_wait(), Ok(None));
        if !self.kill || !alive(&self.process) || self.process.kill().is_err() {
            return;
        }
        self.process.doomed.set(true);
        if alive(&self.process) {
            let process = Rc::clone(&self.process);
            // If there can be no thread, or it is killed, the drop of what it holds waits.
            drop(Builder::new().name("reaper".to_owned()).spawn(move || process.wait_for_end()));
        }
    }
}

/// A child process, as [`std::process::Child`].
///
/// ```
/// use std::io::{Read, Write};
/// use greenling::process::{Command, Stdio};
///
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// assert_eq!(child.try_wait()?, None); // it runs
/// child.stdin.take().unwrap().write_all(b"meow")?; // and then the end: `take` leaves nothing open
/// let mut text = String::new();
/// child.stdout.take().unwrap().read_to_string(&mut text)?;
/// assert_eq!(text, "meow");
/// assert!(child.wait()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Dropping it neither kills the child nor waits for it, as in std, unless
/// [`kill_on_drop`](super::Command::kill_on_drop) was set.
///
/// # Errors of the calls that wait
/// `Unsupported` where the kernel (before Linux 5.3) or a sandbox has no pidfds: there [`try_wait`](Self::try_wait) and
/// [`sleep`](crate::sleep) in turns are left. `ECHILD` if somebody else waited for the child, or the program ignores
/// SIGCHLD. `EMFILE`. `Other` when the call would have to wait but the caller unwinds from a panic or kill, or its OS
/// thread is ending. The child is not touched by any of them.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. The child goes on, and can be waited for again.
pub struct Child {
    /// Its standard input, if that was [`piped`](std::process::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if that was piped.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if that was piped.
    pub stderr: Option<ChildStderr>,
    /// The process itself.
    owner: Owner,
}

// As std's: a panic leaves the child alone.
impl UnwindSafe for Child {}
impl RefUnwindSafe for Child {}

impl Child {
    /// One that std has started; `kill`: when it is dropped.
    pub(super) fn of_std(mut std: process::Child, kill: bool) -> Child {
        let (stdin, stdout, stderr) = (std.stdin.take(), std.stdout.take(), std.stderr.take());
        let id = std.id();
        let process = Process { std: RefCell::new(std), id, end: OnceCell::new(), doomed: Cell::new(false) };
        Child {
            stdin: stdin.map(ChildStdin::from),
            stdout: stdout.map(ChildStdout::from),
            stderr: stderr.map(ChildStderr::from),
            owner: Owner { process: Rc::new(process), kill },
        }
    }

    /// Its process id.
    ///
    /// May switch: no.
    pub fn id(&self) -> u32 {
        self.owner.process.id
    }

    /// Another way to wait for it and to end it, for other green threads.
    ///
    /// May switch: no.
    pub fn handle(&self) -> ChildHandle {
        ChildHandle { process: Rc::clone(&self.owner.process) }
    }

    /// Kills it (SIGKILL). Does nothing if it has ended. Wait for it afterwards, or it stays a zombie.
    ///
    /// # Errors
    /// `EPERM` if it has become another user's.
    ///
    /// May switch: no.
    pub fn kill(&mut self) -> io::Result<()> {
        self.owner.process.kill()
    }

    /// Sends it a signal, such as [`SIGTERM`](crate::signal::SIGTERM). Does nothing if it has ended.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such signal; `EPERM` if it has become another user's.
    ///
    /// May switch: no.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        self.owner.process.send_signal(signal)
    }

    /// Waits for its end. Its standard input, if still here, is closed before, so that it does not wait for more.
    ///
    /// # Errors
    /// See [`Child`].
    ///
    /// # Panics
    /// See [`Child`].
    ///
    /// May switch: yes.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.owner.process.wait_for_end()
    }

    /// [`wait`](Self::wait), but no longer than `limit`; none if it has not ended by then. It closes the standard input too.
    ///
    /// # Errors
    /// See [`Child`].
    ///
    /// # Panics
    /// See [`Child`].
    ///
    /// May switch: yes, unless `limit` is zero.
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        self.owner.process.wait(Some(limit))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// `ECHILD`, see [`Child`].
    ///
    /// May switch: no.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.owner.process.try_wait()
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_wait(&self) -> ChildArm<'_> {
        ChildArm::new(&self.owner.process)
    }

    /// Waits for its end and returns all that it wrote to its pipes, which are read at the same time, each by a green
    /// thread of its own. Its standard input is closed before.
    ///
    /// It returns when the pipes are closed, also by those to whom the child has passed them on, and the child has ended.
    ///
    /// # Errors
    /// See [`Child`] and [`PipeReader`](crate::io::PipeReader).
    ///
    /// # Panics
    /// See [`Child`]. What was read is lost then, and the child dropped: to keep both, read the pipes yourself.
    ///
    /// May switch: yes.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let (stdout, stderr) = match (self.stdout.take(), self.stderr.take()) {
            (Some(stdout), Some(stderr)) => read_both(stdout, stderr)?,
            (Some(stdout), None) => (read_all(stdout)?, Vec::new()),
            (None, Some(stderr)) => (Vec::new(), read_all(stderr)?),
            (None, None) => (Vec::new(), Vec::new()),
        };
        Ok(Output { status: self.wait()?, stdout, stderr })
    }
}

/// All that comes.
fn read_all(mut pipe: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All that comes from both, in turns as it comes: a child that fills one pipe must not wait for us at the other.
fn read_both(stdout: ChildStdout, stderr: ChildStderr) -> io::Result<(Vec<u8>, Vec<u8>)> {
    scope(|scope| {
        let errors = Builder::new().name("standard error of a child".to_owned());
        let errors = errors.spawn_scoped(scope, || read_all(stderr))?;
        let out = read_all(stdout);
        if out.is_err() {
            errors.kill();
        }
        let errors = errors.join().map_err(|error| io::Error::other(error.to_string()));
        Ok((out?, errors??))
    })
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Child");
        out.field("id", &self.id()).field("stdin", &self.stdin).field("stdout", &self.stdout);
        out.field("stderr", &self.stderr).finish_non_exhaustive()
    }
}

/// Takes over a child that std started, which must not have been waited for with anything but itself.
impl From<process::Child> for Child {
    fn from(std: process::Child) -> Child {
        Child::of_std(std, false)
    }
}

/// A child that several green threads of one OS thread wait for or end: see [`Child::handle`].
///
/// ```
/// use greenling::{process::Command, spawn, yield_now};
///
/// let mut child = Command::new("sleep").arg("60").spawn()?;
/// let handle = child.handle();
/// let watcher = spawn(move || handle.wait().unwrap().success());
/// yield_now();
/// child.kill()?;
/// assert!(!child.wait()?.success());
/// assert!(!watcher.join().unwrap()); // the same answer for everybody
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// It does not keep a child alive that [`kill_on_drop`](super::Command::kill_on_drop) ends with its [`Child`], and it
/// does not close the child's standard input.
///
/// Errors and panics of its calls: see [`Child`].
#[derive(Clone)]
pub struct ChildHandle {
    /// The process.
    process: Rc<Process>,
}

// As of the child.
impl UnwindSafe for ChildHandle {}
impl RefUnwindSafe for ChildHandle {}

impl ChildHandle {
    /// The child's process id.
    ///
    /// May switch: no.
    pub fn id(&self) -> u32 {
        self.process.id
    }

    /// As [`Child::kill`].
    ///
    /// # Errors
    /// As there.
    ///
    /// May switch: no.
    pub fn kill(&self) -> io::Result<()> {
        self.process.kill()
    }

    /// As [`Child::send_signal`].
    ///
    /// # Errors
    /// As there.
    ///
    /// May switch: no.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        self.process.send_signal(signal)
    }

    /// As [`Child::wait`].
    ///
    /// # Errors
    /// See [`Child`].
    ///
    /// # Panics
    /// See [`Child`].
    ///
    /// May switch: yes.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        self.process.wait_for_end()
    }

    /// As [`Child::wait_timeout`].
    ///
    /// # Errors
    /// See [`Child`].
    ///
    /// # Panics
    /// See [`Child`].
    ///
    /// May switch: yes, unless `limit` is zero.
    pub fn wait_timeout(&self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        self.process.wait(Some(limit))
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_wait(&self) -> ChildArm<'_> {
        ChildArm::new(&self.process)
    }

    /// As [`Child::try_wait`].
    ///
    /// # Errors
    /// As there.
    ///
    /// May switch: no.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }
}

/// The arm of a `select!` that waits for the end of a child.
#[doc(hidden)]
pub struct ChildArm<'a> {
    /// The child.
    process: &'a Process,
    /// Waits for its end; made when it has to.
    ready: OnceCell<ReadyArm<'a>>,
    /// How it ended.
    result: Cell<Option<io::Result<ExitStatus>>>,
}

impl<'a> ChildArm<'a> {
    /// For the child of `process`.
    fn new(process: &'a Process) -> ChildArm<'a> {
        ChildArm { process, ready: OnceCell::new(), result: Cell::new(None) }
    }

    /// For `select!`.
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn finish(self) -> io::Result<ExitStatus> {
        match self.result.take() {
            Some(result) => result,
            // The wait failed.
            None => match self.ready.into_inner().map(ReadyArm::finish) {
                Some(Err(error)) => Err(error),
                _ => self.process.wait_for_end(),
            },
        }
    }
}

impl Arm for ChildArm<'_> {
    fn look(&self) -> bool {
        match self.process.try_wait() {
            Ok(None) => {
                if let Some(ready) = self.ready.get() {
                    // The kernel said that it was readable once; it is not yet.
                    ready.not_ready();
                }
                false
            }
            Ok(Some(status)) => {
                self.result.set(Some(Ok(status)));
                true
            }
            Err(error) => {
                self.result.set(Some(Err(error)));
                true
            }
        }
    }

    fn enter(&self, who: Who) -> Result<Option<&WaitList>, Failed> {
        match self.process.end() {
            Ok(end) => self.ready.get_or_init(|| ReadyArm::new(end, Direction::Read)).enter(who),
            Err(error) => {
                self.result.set(Some(self.process.try_wait().and_then(|ended| ended.ok_or(error))));
                Err(Failed)
            }
        }
    }

    fn complete(&self) {
        if let Some(ready) = self.ready.get() {
            ready.complete();
        }
    }

    fn left(&self, end: End) {
        if let Some(ready) = self.ready.get() {
            ready.left(end);
        }
    }

    fn is_descriptor(&self) -> bool {
        true
    }
}

impl fmt::Debug for ChildArm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildArm").finish_non_exhaustive()
    }
}

impl fmt::Debug for ChildHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildHandle").field("id", &self.process.id).finish_non_exhaustive()
    }
}
