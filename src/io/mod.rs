//! `std::io`, with a green [`stdin`] and green [`pipe`]s.
//!
//! Everything else is std's own, so that changing `std::io` to `greenling::io` is all there is to it. [`stdout`] and
//! [`stderr`] block the OS thread if the reader of a full pipe is slow.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `stdin`, `Stdin::lock`, `read_line`, `lines` | same | the green thread waits, others run |
//! | `Read` for `Stdin` and `&Stdin`; `Read`, `BufRead` for `StdinLock` | same | |
//! | `AsFd`, `AsRawFd`, `Debug` | same | |
//! | `IsTerminal` | [`Stdin::is_terminal`] | the trait is sealed, so it is a method |
//! | one buffer in the process | one for each OS thread | read from one OS thread only; what `std::io::stdin` has in its buffer is not seen here, and the other way round |
//! | a read that is given up loses what it took | nothing is lost | a line is taken out of the buffer when it is whole |
//! | waiting for a contended lock while unwinding | the lock is refused | every call on the refused lock returns an error |
//! | `pipe`, `PipeReader`, `PipeWriter` with `try_clone` and the conversions | same | the green thread waits; not `Send`: hand one over as std's type |
#![forbid(unsafe_code)]

mod pipe;
mod stdin;

// The names below shadow those of the glob.
pub use std::io::*;

pub use pipe::{PipeReader, PipeWriter, pipe};
pub use stdin::{Stdin, StdinLock, stdin};
