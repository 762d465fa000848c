//! Child processes, shaped like `std::process`: waiting for one parks the green thread.
//!
//! ```
//! use greenling::process::Command;
//!
//! let output = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output()?;
//! assert_eq!(output.status.code(), Some(3));
//! assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The end of a child is waited for with a pidfd in the hub's epoll set, which takes Linux 5.3: no handler of SIGCHLD, no
//! asking again and again, and a hundred children are a hundred descriptors in one wait. The pipes to a child are
//! those of [`io::pipe`](crate::io::pipe). Whatever is not below is std's, re-exported.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `Command`, its builders and getters | same | [`Command::kill_on_drop`]; [`Command::as_std_mut`] for what is in `CommandExt` |
//! | `Command::{spawn, status, output}` | same | interrupted by a kill or `timeout`, `status` and `output` kill their child |
//! | `Child::{id, kill, wait, try_wait, wait_with_output}` | same | the green thread waits, others run |
//! | – | [`Child::wait_timeout`], [`Child::send_signal`] | |
//! | – | [`Child::handle`] | several green threads wait for one child |
//! | `ChildStdin`, `ChildStdout`, `ChildStderr` | same | not `Send`: hand one over as [`OwnedFd`](std::os::fd::OwnedFd) |
//! | `Output`, `ExitStatus`, `Stdio`, `exit`, `abort`, `id`, .. | std's | |
//!
//! # What else to know
//!
//! * Starting a child blocks the OS thread until the program was found and begins to run, as in std.
//! * A child inherits which signals are blocked, as in std, but not those that [`signal`](crate::signal) has blocked. To
//!   start it std forks then, which takes longer the larger this process is.
//! * A child that is waited for by nobody is left a zombie when it ends, as in std, until this process ends.
//!   [`Command::kill_on_drop`] leaves none.
//! * If the program ignores SIGCHLD the kernel throws away how children ended, and to wait for one fails with `ECHILD`.
#![forbid(unsafe_code)]

mod child;
mod command;
mod stdio;

// The names below shadow those of the glob.
pub use std::process::*;

#[doc(hidden)]
pub use child::ChildArm;
pub use child::{Child, ChildHandle};
pub use command::Command;
pub use stdio::{ChildStderr, ChildStdin, ChildStdout};
