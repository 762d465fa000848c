//! `std::io` with green standard streams and [`pipe`]s, a [`copy`] that the kernel helps, and [`Registered`]: readiness
//! of any descriptor.
//!
//! Everything else is std's own, so to port a program, change `std::io` to `greenling::io`.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `stdin`, `Stdin::lock`, `read_line`, `lines` | same | the green thread waits, others run |
//! | `Read` for `Stdin` and `&Stdin`; `Read`, `BufRead` for `StdinLock` | same | |
//! | `AsFd`, `AsRawFd`, `Debug` | same | |
//! | `IsTerminal` | [`Stdin::is_terminal`] | a method, since the trait is sealed |
//! | one buffer in the process | one for each OS thread | read from one OS thread only; this module and `std::io::stdin` do not see each other's buffers |
//! | an abandoned read loses its bytes | no byte is lost | only whole lines are taken out of the buffer |
//! | `stdout`, `stderr`, `Stdout::lock`, `Stderr::lock`, `Write` for all of them | same | a slow reader of a full pipe delays the green thread, not the others; `println!` is std's |
//! | `Stdout::is_terminal`, `AsFd`, `AsRawFd`, `Debug` | same | |
//! | `copy` | same | between sockets and pipes, and from a file to one, the kernel moves the bytes |
//! | – | [`Registered`], [`wait_readable`], [`wait_writable`] | for descriptors of other libraries |
//! | waiting for a contended lock while unwinding | the lock is refused | every call on the refused lock returns an error |
//! | `pipe`, `PipeReader`, `PipeWriter` with `try_clone` and the conversions | same | the green thread waits; not `Send`: send std's type |
// No `forbid(unsafe_code)` here: that would apply to `downcast` as well. The crate-wide `deny` holds.
pub(crate) mod child;
mod copy;
mod downcast;
mod pipe;
mod registered;
mod stdin;
mod stdout;

// The names below shadow std's names from the glob.
pub use std::io::*;

pub use copy::copy;
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use registered::{Registered, wait_readable, wait_writable};
pub use stdin::{Stdin, StdinLock, stdin};
pub use stdout::{Stderr, StderrLock, Stdout, StdoutLock, stderr, stdout};
