//! The builder of a child process: std's, with the settings that std's does not return.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};

use super::child::Child;
use crate::signal::ever_blocked;
use crate::sys::process::unblock_before_exec;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::signalfd::SignalSet;
use crate::sys::simulation::stay_inside;

/// A program to start, as [`std::process::Command`].
///
/// ```
/// use std::time::Duration;
/// use greenling::{process::Command, timeout};
///
/// let status = Command::new("sh").args(["-c", "exit $CODE"]).env("CODE", "7").status()?;
/// assert_eq!(status.code(), Some(7));
///
/// // Too slow: the child is killed, and leaves no zombie.
/// let late = timeout(Duration::from_millis(50), || Command::new("sleep").arg("60").status());
/// assert!(late.is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "Popen")]
pub struct Command {
    /// std's builder of the command.
    std: process::Command,
    /// Whether input, output and errors were set by the caller; [`output`](Self::output) captures the others.
    chosen: [bool; 3],
    /// Whether the drop of a [`Child`] kills the process: see [`kill_on_drop`](Self::kill_on_drop).
    kill_on_drop: bool,
    /// Whether std's builder already unblocks in the child the signals that `signal` has blocked here.
    unblocks: bool,
}

impl Command {
    /// Returns a builder that starts `program`, searched for in `PATH`, without arguments.
    ///
    /// May switch: no.
    pub fn new<S: AsRef<OsStr>>(program: S) -> Command {
        Command { std: process::Command::new(program), chosen: [false; 3], kill_on_drop: false, unblocks: false }
    }

    /// Adds one argument for the program.
    ///
    /// May switch: no.
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.std.arg(arg);
        self
    }

    /// Adds several arguments for the program.
    ///
    /// May switch: no.
    pub fn args<I, S>(&mut self, args: I) -> &mut Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.std.args(args);
        self
    }

    /// Sets a variable in the child's environment.
    ///
    /// May switch: no.
    pub fn env<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, key: K, value: V) -> &mut Command {
        self.std.env(key, value);
        self
    }

    /// Sets several variables in the child's environment.
    ///
    /// May switch: no.
    pub fn envs<I, K, V>(&mut self, vars: I) -> &mut Command
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.std.envs(vars);
        self
    }

    /// Removes a variable from the child's environment.
    ///
    /// May switch: no.
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Command {
        self.std.env_remove(key);
        self
    }

    /// Clears the child's environment: only variables that are set later remain.
    ///
    /// May switch: no.
    pub fn env_clear(&mut self) -> &mut Command {
        self.std.env_clear();
        self
    }

    /// Sets the child's working directory.
    ///
    /// May switch: no.
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Command {
        self.std.current_dir(dir);
        self
    }

    /// Sets the child's standard input. By default the child inherits that of this process, or with
    /// [`output`](Self::output) has none.
    ///
    /// May switch: no.
    pub fn stdin<T: Into<Stdio>>(&mut self, stdin: T) -> &mut Command {
        self.std.stdin(stdin);
        self.chosen[0] = true;
        self
    }

    /// Sets the child's standard output. By default the child inherits that of this process, or with
    /// [`output`](Self::output) writes to a pipe.
    ///
    /// May switch: no.
    pub fn stdout<T: Into<Stdio>>(&mut self, stdout: T) -> &mut Command {
        self.std.stdout(stdout);
        self.chosen[1] = true;
        self
    }

    /// Sets the child's standard error, with the defaults of [`stdout`](Self::stdout).
    ///
    /// May switch: no.
    pub fn stderr<T: Into<Stdio>>(&mut self, stderr: T) -> &mut Command {
        self.std.stderr(stderr);
        self.chosen[2] = true;
        self
    }

    /// Chooses whether the drop of a [`Child`] that has not ended kills the process and leaves no zombie. By default
    /// the process goes on, as in std.
    ///
    /// The drop does not wait: a green thread named `reaper` waits until the kernel has ended the child. If an OS
    /// thread ends while a suspended green thread owns a child, the child goes on, since no value on that stack is
    /// dropped: end `main` with [`hub::shutdown`](crate::hub::shutdown).
    ///
    /// May switch: no.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Command {
        self.kill_on_drop = kill;
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// `NotFound` if there is no such program or directory; `PermissionDenied`; `EAGAIN` or `EMFILE` if there are too
    /// many processes or descriptors; `InvalidInput` for a zero byte in an argument.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn(&mut self) -> io::Result<Child> {
        Ok(Child::of_std(self.start()?, self.kill_on_drop))
    }

    /// Starts the program and waits for its end.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn) and [`Child::wait`]; after the latter the child is killed.
    ///
    /// # Panics
    /// As [`Child::wait`]. The unwinding kills the child, since no other code has it.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        Child::of_std(self.start()?, true).wait()
    }

    /// Starts the program, waits for its end, and returns all output. Output and errors go to pipes unless they were
    /// set, and the child has no standard input unless that was set.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn) and [`Child::wait_with_output`]; after the latter the child is killed.
    ///
    /// # Panics
    /// As [`Child::wait_with_output`]. The unwinding kills the child, since no other code has it.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn output(&mut self) -> io::Result<Output> {
        // Capture the streams that the caller has not set.
        let [stdin, stdout, stderr] = self.chosen;
        if !stdin {
            self.std.stdin(Stdio::null());
        }
        if !stdout {
            self.std.stdout(Stdio::piped());
        }
        if !stderr {
            self.std.stderr(Stdio::piped());
        }
        let child = self.start();
        // Back to std's default, so that the next `spawn` of this command finds the streams as they were.
        if !stdin {
            self.std.stdin(Stdio::inherit());
        }
        if !stdout {
            self.std.stdout(Stdio::inherit());
        }
        if !stderr {
            self.std.stderr(Stdio::inherit());
        }
        Child::of_std(child?, true).wait_with_output()
    }

    /// Starts the program with std's `spawn`.
    fn start(&mut self) -> io::Result<process::Child> {
        stay_inside("another process")?;
        self.unblock();
        // std reads the result of exec from a pipe of its own, which must block the OS thread and not park.
        let _mark = runtime_syscall();
        self.std.spawn()
    }

    /// Makes std's builder unblock in the child the signals that `signal` has blocked here.
    fn unblock(&mut self) {
        if !self.unblocks
            && let Some(bits) = ever_blocked()
        {
            unblock_before_exec(&mut self.std, bits);
            self.unblocks = true;
        }
    }

    /// Replaces this process by the program. Returns the error if that fails.
    pub(crate) fn become_program(&mut self) -> io::Error {
        self.unblock();
        // std's hook unblocks in this OS thread, so keep the mask for the case that exec fails.
        let before = match SignalSet::blocked_here() {
            Ok(before) => before,
            Err(error) => return error,
        };
        let error = {
            let _mark = runtime_syscall();
            self.std.exec()
        };
        // exec has failed: block again the signals that were unblocked for the program.
        match before.block() {
            Ok(_) => error,
            Err(worse) => worse,
        }
    }

    /// Returns the name of the program.
    ///
    /// May switch: no.
    pub fn get_program(&self) -> &OsStr {
        self.std.get_program()
    }

    /// Returns the arguments, without the program.
    ///
    /// May switch: no.
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.std.get_args()
    }

    /// Returns the variables that were set or removed.
    ///
    /// May switch: no.
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.std.get_envs()
    }

    /// Returns the child's working directory, if one was set.
    ///
    /// May switch: no.
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.std.get_current_dir()
    }

    /// Returns std's builder, for its extensions: `pre_exec` of [`CommandExt`](std::os::unix::process::CommandExt), and
    /// traits of other crates. [`output`](Self::output) does not notice streams that are set there.
    ///
    /// May switch: no.
    #[doc(alias("pre_exec", "before_exec"))]
    pub fn as_std_mut(&mut self) -> &mut process::Command {
        &mut self.std
    }
}

/// Shows the program and its arguments, as std's builder does.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std.fmt(f)
    }
}
