//! `std::io`, with green standard streams and green [`pipe`]s, a [`copy`] that the kernel helps, and [`Registered`]: readiness
//! of any descriptor.
//!
//! Everything else is std's own, so that changing `std::io` to `greenling::io` is all there is to it.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `stdin`, `Stdin::lock`, `read_line`, `lines` | same | the green thread waits, others run |
//! | `Read` for `Stdin` and `&Stdin`; `Read`, `BufRead` for `StdinLock` | same | |
//! | `AsFd`, `AsRawFd`, `Debug` | same | |
//! | `IsTerminal` | [`Stdin::is_terminal`] | the trait is sealed, so it is a method |
//! | one buffer in the process | one for each OS thread | read from one OS thread only; what `std::io::stdin` has in its buffer is not seen here, and the other way round |
//! | a read that is given up loses what it took | nothing is lost | a line is taken out of the buffer when it is whole |
//! | `stdout`, `stderr`, `Stdout::lock`, `Stderr::lock`, `Write` for all of them | same | a slow reader of a full pipe keeps the green thread waiting, not the others; `println!` is std's |
//! | `Stdout::is_terminal`, `AsFd`, `AsRawFd`, `Debug` | same | |
//! | `copy` | same | between sockets and pipes, and from a file to one, the kernel moves the bytes |
//! | – | [`Registered`], [`wait_readable`], [`wait_writable`] | for descriptors of other libraries |
//! | waiting for a contended lock while unwinding | the lock is refused | every call on the refused lock returns an error |
//! | `pipe`, `PipeReader`, `PipeWriter` with `try_clone` and the conversions | same | the green thread waits; not `Send`: hand one over as std's type |
// No `forbid(unsafe_code)` here, since it would reach into `known`; the crate-wide `deny` holds.
mod copy;
mod known;
mod pipe;
mod registered;
mod stdin;
mod stdout;

// The names below shadow those of the glob.
pub use std::io::*;

pub use copy::copy;
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use registered::{Registered, wait_readable, wait_writable};
#[doc(hidden)]
pub use stdin::InputArm;
pub use stdin::{Stdin, StdinLock, stdin};
pub use stdout::{Stderr, StderrLock, Stdout, StdoutLock, stderr, stdout};
