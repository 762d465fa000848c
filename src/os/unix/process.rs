//! The additions of Unix systems for processes, shaped like `std::os::unix::process`.
//!
//! std's `CommandExt` is sealed, so this crate has its own [`CommandExt`], with the same methods except `pre_exec` and
//! `before_exec`: those are unsafe functions, and remain reachable through
//! [`Command::as_std_mut`](crate::process::Command::as_std_mut).
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;

pub use std::os::unix::process::{ExitStatusExt, parent_id};

use crate::process::Command;

/// The seal of [`CommandExt`], which may so grow as std's does.
mod sealed {
    /// The supertrait that other crates cannot implement.
    pub trait Sealed {}

    impl Sealed for super::Command {}
}

/// The methods that [`std::os::unix::process::CommandExt`] adds to a command.
///
/// ```
/// use greenling::{os::unix::process::CommandExt, process::Command};
///
/// let output = Command::new("sh").arg0("green").args(["-c", "echo $0"]).output()?;
/// assert_eq!(output.stdout, b"green\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait CommandExt: sealed::Sealed {
    /// Sets the user id of the child. If the kernel refuses the id, `spawn` fails.
    ///
    /// May switch: no.
    fn uid(&mut self, id: u32) -> &mut Command;

    /// Sets the group id of the child.
    ///
    /// May switch: no.
    fn gid(&mut self, id: u32) -> &mut Command;

    /// Sets the child's first argument, which is the name of the program by default.
    ///
    /// May switch: no.
    fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command;

    /// Puts the child into the process group `pgroup`; with 0, into a new group.
    ///
    /// May switch: no.
    fn process_group(&mut self, pgroup: i32) -> &mut Command;

    /// Replaces this process, with all OS threads and green threads, by the program. No destructor runs. Returns only
    /// if that fails.
    ///
    /// # Errors
    /// The returned value is the error, one of those of [`Command::spawn`]. As with std, the working directory, user or
    /// group may have changed by then if the command sets one. A signal that [`Signals`](crate::signal::Signals) was
    /// about to receive may have had its default effect.
    ///
    /// May switch: no.
    #[must_use]
    fn exec(&mut self) -> io::Error;
}

impl CommandExt for Command {
    fn uid(&mut self, id: u32) -> &mut Command {
        self.as_std_mut().uid(id);
        self
    }

    fn gid(&mut self, id: u32) -> &mut Command {
        self.as_std_mut().gid(id);
        self
    }

    fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.as_std_mut().arg0(arg);
        self
    }

    fn process_group(&mut self, pgroup: i32) -> &mut Command {
        self.as_std_mut().process_group(pgroup);
        self
    }

    fn exec(&mut self) -> io::Error {
        self.become_program()
    }
}
