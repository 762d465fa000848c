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
//! A wait for the end of a child uses a pidfd in the hub's epoll set, which takes Linux 5.3. There is no handler of
//! SIGCHLD and no polling, and a hundred children are a hundred descriptors in one wait. The pipes to a child are those
//! of [`io::pipe`](crate::io::pipe). Everything that is not in the table is std's, re-exported.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `Command`, its builders and getters | same | [`Command::kill_on_drop`] |
//! | `os::unix::process::CommandExt::{uid, gid, arg0, process_group, exec}` | [`CommandExt`](crate::os::unix::process::CommandExt) | |
//! | `CommandExt::pre_exec` | – | an unsafe function: [`Command::as_std_mut`] has it |
//! | `Command::{spawn, status, output}` | same | `status` and `output` kill their child when a kill or `timeout` interrupts them |
//! | `Child::{id, kill, wait, try_wait, wait_with_output}` | same | the green thread waits, others run |
//! | – | [`Child::wait_timeout`], [`Child::send_signal`] | |
//! | – | [`Child::handle`] | several green threads wait for one child |
//! | `ChildStdin`, `ChildStdout`, `ChildStderr` | same | not `Send`: send an [`OwnedFd`](std::os::fd::OwnedFd) |
//! | `FromRawFd` for the ends of pipes | – | an unsafe function: `OwnedFd::from_raw_fd(fd).into()` |
//! | `Output`, `ExitStatus`, `Stdio`, `exit`, `abort`, `id`, .. | std's, re-exported | |
//!
//! # What else to know
//!
//! * Starting a child blocks the OS thread until the program was found and begins to run, as in std.
//! * A child inherits the mask of blocked signals, as in std, but without those that [`signal`](crate::signal) has
//!   blocked. To unblock them std has to fork, which takes longer the larger this process is.
//! * An ended child that was never waited for is a zombie until this process ends, as in std. [`Command::kill_on_drop`]
//!   leaves none.
//! * A socket or pipe may be a standard stream of the child while this process still uses a clone or duplicate. Both
//!   processes then share one mode, and the child may make the open file blocking. Streams, datagram sockets and pipes
//!   still park here; for the exceptions see [`io::pipe`](crate::io::pipe), [`net`](crate::net) and
//!   [`TcpListener`](crate::net::TcpListener).
//! * If the program ignores SIGCHLD, the kernel drops the exit status of children, and a wait fails with `ECHILD`.
#![forbid(unsafe_code)]

mod child;
mod command;

// The names below shadow std's names from the glob.
pub use std::process::*;

pub use crate::io::child::{ChildStderr, ChildStdin, ChildStdout};
pub use child::{Child, ChildHandle};
pub use command::Command;
