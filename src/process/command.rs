//! How to start a child: std's builder, and what std does not keep for us.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{self, CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};

use super::child::Child;
use crate::signal::ever_blocked;
use crate::sys::own::own;
use crate::sys::process::unblock_before_exec;

/// A program to start, as [`std::process::Command`].
///
/// ```
/// use std::time::Duration;
/// use greenling::{process::Command, timeout};
///
/// let status = Command::new("sh").args(["-c", "exit $CODE"]).env("CODE", "7").status()?;
/// assert_eq!(status.code(), Some(7));
///
/// // Too slow: it is killed, and nothing of it is left.
/// let late = timeout(Duration::from_millis(50), || Command::new("sleep").arg("60").status());
/// assert!(late.is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Command {
    /// std's builder.
    std: process::Command,
    /// Which of input, output and errors the program has chosen; [`output`](Self::output) captures the others.
    chosen: [bool; 3],
    /// See [`kill_on_drop`](Self::kill_on_drop).
    kill_on_drop: bool,
    /// Whether std was told to unblock in the child what `signal` has blocked here.
    unblocks: bool,
}

impl Command {
    /// A program to be looked for in `PATH`, without arguments.
    ///
    /// May switch: no.
    pub fn new<S: AsRef<OsStr>>(program: S) -> Command {
        Command { std: process::Command::new(program), chosen: [false; 3], kill_on_drop: false, unblocks: false }
    }

    /// Adds an argument.
    ///
    /// May switch: no.
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.std.arg(arg);
        self
    }

    /// Adds arguments.
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

    /// Sets variables.
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

    /// The child does not get this variable.
    ///
    /// May switch: no.
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Command {
        self.std.env_remove(key);
        self
    }

    /// The child gets no variable but those set after this.
    ///
    /// May switch: no.
    pub fn env_clear(&mut self) -> &mut Command {
        self.std.env_clear();
        self
    }

    /// Where the child starts.
    ///
    /// May switch: no.
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Command {
        self.std.current_dir(dir);
        self
    }

    /// The child's standard input: this process's unless said otherwise, nothing for [`output`](Self::output).
    ///
    /// May switch: no.
    pub fn stdin<T: Into<Stdio>>(&mut self, stdin: T) -> &mut Command {
        self.std.stdin(stdin);
        self.chosen[0] = true;
        self
    }

    /// The child's standard output: this process's unless said otherwise, captured by [`output`](Self::output).
    ///
    /// May switch: no.
    pub fn stdout<T: Into<Stdio>>(&mut self, stdout: T) -> &mut Command {
        self.std.stdout(stdout);
        self.chosen[1] = true;
        self
    }

    /// The child's standard error: as [`stdout`](Self::stdout).
    ///
    /// May switch: no.
    pub fn stderr<T: Into<Stdio>>(&mut self, stderr: T) -> &mut Command {
        self.std.stderr(stderr);
        self.chosen[2] = true;
        self
    }

    /// With `true`, dropping a [`Child`] that has not ended kills it and leaves no zombie. `false` at first, as std: it
    /// goes on.
    ///
    /// The drop does not wait: a green thread named `reaper` does, until the kernel has taken the child down.
    ///
    /// May switch: no.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Command {
        self.kill_on_drop = kill;
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// `NotFound` if there is no such program or directory; `PermissionDenied`; `EAGAIN` or `EMFILE` if there are too many
    /// processes or descriptors; `InvalidInput` for a zero byte in an argument.
    ///
    /// May switch: no.
    pub fn spawn(&mut self) -> io::Result<Child> {
        Ok(Child::of_std(self.start()?, self.kill_on_drop))
    }

    /// Starts the program and waits for its end.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn) and [`Child::wait`]; after the latter the child is killed.
    ///
    /// # Panics
    /// As [`Child::wait`]. The child is killed when that unwinds: nobody else knows it.
    ///
    /// May switch: yes.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        Child::of_std(self.start()?, true).wait()
    }

    /// Starts the program, waits for its end, and returns all that it wrote. What was not set otherwise is captured,
    /// and the child has no standard input.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn) and [`Child::wait_with_output`]; after the latter the child is killed.
    ///
    /// # Panics
    /// As [`Child::wait_with_output`]. The child is killed when that unwinds: nobody else knows it.
    ///
    /// May switch: yes.
    pub fn output(&mut self) -> io::Result<Output> {
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
        // What std does when nothing is said: the next `spawn` of this command finds it as it was.
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

    /// std's spawn. A child must not inherit what is blocked for the sake of this process.
    fn start(&mut self) -> io::Result<process::Child> {
        if !self.unblocks
            && let Some(bits) = ever_blocked()
        {
            unblock_before_exec(&mut self.std, bits);
            self.unblocks = true;
        }
        // std reads from a pipe of its own what became of exec.
        let _own = own();
        self.std.spawn()
    }

    /// The program.
    ///
    /// May switch: no.
    pub fn get_program(&self) -> &OsStr {
        self.std.get_program()
    }

    /// The arguments.
    ///
    /// May switch: no.
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.std.get_args()
    }

    /// The variables that were set or removed.
    ///
    /// May switch: no.
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.std.get_envs()
    }

    /// Where the child starts, if that was set.
    ///
    /// May switch: no.
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.std.get_current_dir()
    }

    /// std's builder, for the traits that extend it, such as [`CommandExt`](std::os::unix::process::CommandExt) with
    /// `uid`, `process_group` and `pre_exec`. [`output`](Self::output) does not see streams that are set there.
    ///
    /// May switch: no.
    pub fn as_std_mut(&mut self) -> &mut process::Command {
        &mut self.std
    }
}

/// As std's: the program and its arguments.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std.fmt(f)
    }
}
