//! A child that runs or has ended: std's, with a pidfd in the hub's epoll set from the first wait on.
//!
//! ```text
//!   wait:   ended already? (waitpid, WNOHANG) --yes--> the exit status
//!              | no
//!           pidfd, made by the first wait -> park until the pidfd is readable -> ask again
//! ```
//!
//! A pidfd stays readable after the end of the child, so any number of green threads may wait. The first waiter takes
//! the status from the kernel, std keeps the status, and each waiter that is woken wakes the next.
//!
//! * Invariant child-1: the id belongs to the child for as long as std's `Child` has no status, since only a wait by
//!   std frees the id. `send_signal` asks std first. (As in std, a program that waits for arbitrary children breaks
//!   this.)
//! * Invariant child-2: a doomed child has been sent SIGKILL, and is waited for before the last handle is gone.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::process::{self, ExitStatus, Output};
use std::rc::Rc;
use std::time::Duration;

use crate::io::child::{ChildStderr, ChildStdin, ChildStdout};
use crate::runtime::arms::ReadyArm;
use crate::runtime::checkpoint::checkpoint;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::hub::hub;
use crate::runtime::reactor::Direction;
use crate::runtime::select_source::SelectWait;
use crate::runtime::source::Source;
use crate::switch::wait_list::WaitList;
use crate::sys::process::{pidfd_open, send_signal};
use crate::sys::runtime_syscall::runtime_syscall;
use crate::thread::{Builder, scope};

/// The process, shared by the `Child` and its handles.
struct Process {
    /// std's child without the pipes. Borrowed for one system call at a time.
    std: RefCell<process::Child>,
    /// The process id of the child.
    id: u32,
    /// The pidfd, made by the first wait; readable when the process has ended.
    pidfd: OnceCell<Source<OwnedFd>>,
    /// Whether the process was killed by the drop of its `Child` (child-2).
    doomed: Cell<bool>,
    /// The place in the program that started the process.
    started_at: &'static Location<'static>,
}

impl Process {
    /// Returns the pidfd, and makes it if there is none.
    fn pidfd(&self) -> io::Result<&Source<OwnedFd>> {
        match self.pidfd.get() {
            Some(end) => Ok(end),
            None => pidfd_open(self.id).map(|fd| self.pidfd.get_or_init(|| Source::new(fd))),
        }
    }

    /// Returns the exit status, if the process has ended.
    fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.std.borrow_mut().try_wait()
    }

    /// Waits for the end of the process, at most for `timeout`. Returns the exit status; none if `timeout` passed.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<ExitStatus>> {
        // A process that has ended needs no pidfd.
        let ended = self.try_wait()?;
        if ended.is_some() || timeout == Some(Duration::ZERO) {
            return Ok(ended);
        }
        let end = match self.pidfd() {
            Ok(end) => end,
            // If the status was taken from the kernel in between, the error of `try_wait` says more.
            Err(error) => return self.try_wait()?.map(Some).ok_or(error),
        };
        let mut ask = |_: &OwnedFd| self.try_wait()?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
        match end.run(Direction::Read, timeout, &mut ask) {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the end of the process without a limit.
    fn wait_for_end(&self) -> io::Result<ExitStatus> {
        match self.wait(None)? {
            Some(status) => Ok(status),
            None => unreachable!("only a limit ends a wait early"),
        }
    }

    /// Sends SIGKILL, unless the child was waited for.
    fn kill(&self) -> io::Result<()> {
        self.std.borrow_mut().kill()
    }

    /// Sends a signal, unless the child has ended.
    fn send_signal(&self, signal: i32) -> io::Result<()> {
        if self.try_wait()?.is_some() { Ok(()) } else { send_signal(self.id, signal) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.doomed.get() {
            let _mark = runtime_syscall();
            // This blocks the OS thread, but not for long: after SIGKILL the process runs no more code of its own.
            let _ = self.std.get_mut().wait();
        }
    }
}

/// The part of a [`Child`] that acts on its drop.
struct Owner {
    /// The process of the child.
    process: Rc<Process>,
    /// Whether the drop kills the process.
    kill: bool,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // An error says that other code has waited for the child, that this is the child of a fork and so not its
        // parent, or that the child has become another user's and cannot be killed.
        let alive = |process: &Process| matches!(process.try_wait(), Ok(None));
        if !self.kill || !alive(&self.process) || self.process.kill().is_err() {
            return;
        }
        self.process.doomed.set(true);
        if alive(&self.process) {
            let process = Rc::clone(&self.process);
            // If there can be no thread, or the thread is killed, the drop of `process` waits.
            let builder = Builder::new().name("reaper".to_owned()).at(process.started_at);
            drop(builder.spawn(move || process.wait_for_end()));
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
/// As in std, the drop neither kills the child nor waits, unless [`kill_on_drop`](super::Command::kill_on_drop) was
/// set.
///
/// # Errors of the calls that wait
/// `Unsupported` where the kernel (before Linux 5.3) or a sandbox has no pidfds: there [`try_wait`](Self::try_wait) and
/// [`sleep`](crate::sleep) in turns remain. `ECHILD` if other code waited for the child, or the program ignores
/// SIGCHLD. `EMFILE`. `Other` when the call would have to wait but the caller unwinds from a panic or kill, or the OS
/// thread is ending. None of these errors affects the child.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. The child goes on, and another wait is possible.
pub struct Child {
    /// The child's standard input, if that was [`piped`](std::process::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The child's standard output, if that was piped.
    pub stdout: Option<ChildStdout>,
    /// The child's standard error, if that was piped.
    pub stderr: Option<ChildStderr>,
    /// The process, and what the drop does to it.
    owner: Owner,
}

// As std's child: a panic leaves the process alone.
impl UnwindSafe for Child {}
impl RefUnwindSafe for Child {}

impl Child {
    /// Makes a child of one that std has started. With `kill`, the drop kills the child.
    #[track_caller]
    pub(super) fn of_std(mut std: process::Child, kill: bool) -> Child {
        let (stdin, stdout, stderr) = (std.stdin.take(), std.stdout.take(), std.stderr.take());
        let id = std.id();
        let process = Process {
            std: RefCell::new(std),
            id,
            pidfd: OnceCell::new(),
            doomed: Cell::new(false),
            started_at: Location::caller(),
        };
        Child {
            stdin: stdin.map(ChildStdin::from),
            stdout: stdout.map(ChildStdout::from),
            stderr: stderr.map(ChildStderr::from),
            owner: Owner { process: Rc::new(process), kill },
        }
    }

    /// Returns the process id.
    ///
    /// May switch: no.
    pub fn id(&self) -> u32 {
        self.owner.process.id
    }

    /// Returns a handle with which other green threads can wait for the child and end it.
    ///
    /// May switch: no.
    pub fn handle(&self) -> ChildHandle {
        ChildHandle { process: Rc::clone(&self.owner.process) }
    }

    /// Kills the child with SIGKILL. Does nothing if the child has ended. Without a later wait, the child stays a
    /// zombie.
    ///
    /// # Errors
    /// `EPERM` if the child has become another user's.
    ///
    /// May switch: no.
    pub fn kill(&mut self) -> io::Result<()> {
        self.owner.process.kill()
    }

    /// Sends the child a signal, such as [`SIGTERM`](crate::signal::SIGTERM). Does nothing if the child has ended.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such signal; `EPERM` if the child has become another user's.
    ///
    /// May switch: no.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        self.owner.process.send_signal(signal)
    }

    /// Waits for the end of the child. First closes the child's standard input, if still in `stdin`, so that the child
    /// does not wait for more.
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

    /// Waits as [`wait`](Self::wait) does, but at most for `limit`; none if the child has not ended by then. Closes the
    /// standard input, too.
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

    /// Returns the exit status, if the child has ended.
    ///
    /// # Errors
    /// `ECHILD`, see [`Child`].
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        checkpoint();
        self.owner.process.try_wait()
    }

    /// Waits for the end of the child and returns all output from its pipes, which are read at the same time, each by
    /// another green thread. First closes the child's standard input.
    ///
    /// The call returns when the child has ended and the pipes are closed, also by processes that inherited them.
    ///
    /// # Errors
    /// See [`Child`] and [`PipeReader`](crate::io::PipeReader).
    ///
    /// # Panics
    /// See [`Child`]. In this case the output is lost and the child dropped: to keep both, read the pipes yourself.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        // Read to the end first: a child cannot end while a full pipe blocks a write.
        let (stdout, stderr) = match (self.stdout.take(), self.stderr.take()) {
            (Some(stdout), Some(stderr)) => read_both(stdout, stderr, Location::caller())?,
            (Some(stdout), None) => (read_all(stdout)?, Vec::new()),
            (None, Some(stderr)) => (Vec::new(), read_all(stderr)?),
            (None, None) => (Vec::new(), Vec::new()),
        };
        Ok(Output { status: self.wait()?, stdout, stderr })
    }
}

impl SelectWait for Child {
    type Arm<'s>
        = ChildArm<'s>
    where
        Self: 's;

    fn select_wait(&self) -> ChildArm<'_> {
        ChildArm::new(&self.owner.process)
    }
}

/// Reads a pipe to its end.
fn read_all(mut pipe: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads two pipes to their ends at the same time: a child that fills one pipe must not block while this side reads the
/// other.
fn read_both(
    stdout: ChildStdout,
    stderr: ChildStderr,
    site: &'static Location<'static>,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    // Without a hub, `scope` would panic.
    hub()?;
    scope(|scope| {
        let errors = Builder::new().name("standard error of a child".to_owned()).at(site);
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

/// Takes over a child that std started. Only std's `Child` may have waited for the process so far.
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
/// assert!(!watcher.join().unwrap()); // both waits return the same status
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A handle does not keep a child alive if [`kill_on_drop`](super::Command::kill_on_drop) ends the child with its
/// [`Child`]. No method of a handle closes the child's standard input.
///
/// Errors and panics of the calls: see [`Child`].
#[derive(Clone)]
pub struct ChildHandle {
    /// The process of the child.
    process: Rc<Process>,
}

// As for `Child`.
impl UnwindSafe for ChildHandle {}
impl RefUnwindSafe for ChildHandle {}

impl ChildHandle {
    /// Returns the child's process id.
    ///
    /// May switch: no.
    pub fn id(&self) -> u32 {
        self.process.id
    }

    /// Kills the child, as [`Child::kill`].
    ///
    /// # Errors
    /// Those of [`Child::kill`].
    ///
    /// May switch: no.
    pub fn kill(&self) -> io::Result<()> {
        self.process.kill()
    }

    /// Sends the child a signal, as [`Child::send_signal`].
    ///
    /// # Errors
    /// Those of [`Child::send_signal`].
    ///
    /// May switch: no.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        self.process.send_signal(signal)
    }

    /// Waits for the end of the child, as [`Child::wait`].
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

    /// Waits at most for `limit`, as [`Child::wait_timeout`].
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

    /// Returns the exit status, if the child has ended, as [`Child::try_wait`].
    ///
    /// # Errors
    /// Those of [`Child::try_wait`].
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        checkpoint();
        self.process.try_wait()
    }
}

impl SelectWait for ChildHandle {
    type Arm<'s>
        = ChildArm<'s>
    where
        Self: 's;

    fn select_wait(&self) -> ChildArm<'_> {
        ChildArm::new(&self.process)
    }
}

/// The arm of a `select!` that waits for the end of a child.
#[doc(hidden)]
pub struct ChildArm<'a> {
    /// The process of the child.
    process: &'a Process,
    /// The arm that waits on the pidfd, made when there is a wait.
    ready: OnceCell<ReadyArm<'a>>,
    /// The exit status, for the owner of the arm.
    result: Cell<Option<io::Result<ExitStatus>>>,
}

impl<'a> ChildArm<'a> {
    /// Makes the arm that waits for the end of `process`.
    fn new(process: &'a Process) -> ChildArm<'a> {
        ChildArm { process, ready: OnceCell::new(), result: Cell::new(None) }
    }
}

impl<'a> SelectArm for ChildArm<'a> {
    type Output = io::Result<ExitStatus>;

    fn finish(self) -> io::Result<ExitStatus> {
        match self.result.take() {
            Some(result) => result,
            // The wait failed before the child ended.
            None => match self.ready.into_inner().map(SelectArm::finish) {
                Some(Err(error)) => Err(error),
                _ => self.process.wait_for_end(),
            },
        }
    }
}

impl Arm for ChildArm<'_> {
    fn try_select(&self) -> bool {
        match self.process.try_wait() {
            Ok(None) => {
                if let Some(ready) = self.ready.get() {
                    // Whatever the reactor believes, the child has not ended.
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

    fn register(&self, id: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        match self.process.pidfd() {
            Ok(end) => self.ready.get_or_init(|| ReadyArm::new(end, Direction::Read)).register(id),
            Err(error) => {
                self.result.set(Some(self.process.try_wait().and_then(|ended| ended.ok_or(error))));
                Err(AlreadyWon)
            }
        }
    }

    fn accept(&self) {
        if let Some(ready) = self.ready.get() {
            ready.accept();
        }
    }

    fn unregister(&self, end: ArmEnd) {
        if let Some(ready) = self.ready.get() {
            ready.unregister(end);
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
