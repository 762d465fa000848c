//! The kernel seam: the only files that name `libc`. Nothing of the crate is imported here.
//!
//! The layer turns system calls into facts and decides nothing: what to do with a full queue, a refused guard or an
//! interrupted read is the caller's business. What each file promises:
//!
//! | file | promise |
//! |---|---|
//! | `affinity` | which processors an OS thread may run on |
//! | `clock` | the monotonic time in nanoseconds, without a kernel entry |
//! | `epoll` | a token goes in with an fd, the same comes out with its readiness; no wait ends early by rounding |
//! | `eventfd` | a bell: a ring is never lost, rings before a drain melt into one |
//! | `file` | bytes moved between descriptors without a copy; which file a descriptor is |
//! | `fork` | a number that differs on the two sides of a fork |
//! | `handlers` | a signal handler runs marked as `own` |
//! | `inherit` | a descriptor of whoever started the process is owned once, or refused |
//! | `mmap` | address space that costs memory only where it was touched; guards; what is resident |
//! | `numbers` | whether this process has closed or changed a descriptor since somebody looked |
//! | `own` | which calls are the runtime's own |
//! | `prefetch` | a hint to the cache, harmless on any address |
//! | `process` | a descriptor that is readable once a child has ended |
//! | `raw` | system calls past whatever function of that name the program has |
//! | `signal` | a fault that the caller knows is reported and aborts; any other goes where it went before |
//! | `signalfd` | signals as something to read; one that came before the read is not lost |
//! | `socket` | the socket calls that `std::net` cannot make, and plain calls on any fd |
//! | `stack_pointer` | where the running stack ends |
//! | `unix` | Unix stream sockets that connect without blocking |
//!
//! Two rules hold in every file:
//!
//! * A descriptor is owned (`OwnedFd`) or borrowed (`BorrowedFd`), never a bare number, so no call here can meet a
//!   closed or reused one. A SAFETY comment that says "the fd is open" leans on this, `std`'s I/O safety.
//! * `EINTR` is absorbed only where the file says so. `read` and `write` hand it on, as `std` does.
//!
//! This file cannot say `forbid(unsafe_code)`: the lint level would reach into the files below, of which all but
//! `sockaddr` need some. It holds no unsafe code, and the crate-wide `deny` keeps it so.

use std::io;

pub(crate) mod affinity;
pub(crate) mod clock;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod file;
pub(crate) mod fork;
#[cfg(feature = "monkey")]
pub(crate) mod handlers;
pub(crate) mod inherit;
pub(crate) mod mmap;
#[cfg(feature = "monkey")]
pub(crate) mod numbers;
pub(crate) mod own;
pub(crate) mod prefetch;
pub(crate) mod process;
#[cfg(feature = "monkey")]
pub(crate) mod raw;
pub(crate) mod signal;
pub(crate) mod signalfd;
mod sockaddr;
pub(crate) mod socket;
pub(crate) mod stack_pointer;
#[cfg(test)]
mod testing;
pub(crate) mod unix;

/// Turns the C convention "-1, and `errno` says why" into a `Result`.
///
/// There is no macro around the call: the word `unsafe` stays visible, as `cvt(unsafe { libc::f(..) })`.
///
/// # Errors
///
/// The current `errno` if `result` is -1.
#[inline]
pub(crate) fn cvt(result: i32) -> io::Result<i32> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// [`cvt`] for the calls that return a number of bytes.
///
/// # Errors
///
/// The current `errno` if `result` is -1.
#[inline]
pub(crate) fn cvt_len(result: isize) -> io::Result<usize> {
    // Of the negative numbers these calls return only -1, so the failed conversion is that one.
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
