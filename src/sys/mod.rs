//! The kernel seam: the only files that name `libc`. Nothing of the crate is imported here.
//!
//! The layer turns system calls into facts and decides nothing: what to do with a full queue, a refused guard or an
//! interrupted read is the caller's business. What each file promises:
//!
//! | file | promise |
//! |---|---|
//! | `affinity` | which processors an OS thread may run on |
//! | `allocator` | whether the program's allocators take locks of C, and which pthread keys are theirs |
//! | `c_library` | functions of the C library behind the program's own of the same names |
//! | `clock` | the monotonic time in nanoseconds, without a kernel entry |
//! | `dump_signal` | a signal wakes an OS thread, whichever one gets it |
//! | `endpoint` | what a descriptor is, by its number: addresses, a path; or that the number is not open |
//! | `epoll` | the token registered with a descriptor comes back with the readiness; no wait ends early by rounding |
//! | `eventfd` | a bell: a ring is never lost, rings before a drain melt into one |
//! | `fault` | what a simulation can make go wrong, as errors of the kernel |
//! | `file` | bytes moved between descriptors without a copy; which file a descriptor is; file locks |
//! | `flag` | a sleep of an OS thread until another thread raises its flag |
//! | `fork` | a number that differs on the two sides of a fork |
//! | `fork_lock` | a lock that the child of a fork never finds held |
//! | `handlers` | a signal handler runs marked as the runtime's code |
//! | `inherit` | a descriptor left by the process that started this one is owned once, or refused |
//! | `kernel_clock` | the kernel's clocks, whatever the program's `clock_gettime` says |
//! | `message` | a text that is written without an allocation |
//! | `mmap` | address space that costs memory only where it was touched; guards; what is resident |
//! | `numbers` | whether this process has closed or changed a descriptor since a given moment |
//! | `os_thread` | what an OS thread of this process does: runs, or waits in which system call |
//! | `peek` | a word of memory, or that nothing is mapped there |
//! | `prefetch` | a hint to the cache, harmless on any address |
//! | `process` | a descriptor that is readable once a child has ended |
//! | `pthread` | what kind of lock a C lock is, and which thread has it; or that it is not understood |
//! | `raw` | system calls that bypass the program's functions of the same names |
//! | `runtime_syscall` | which calls are the runtime's |
//! | `service_thread` | an OS thread of the runtime's own gets no signal |
//! | `signal` | a fault that the caller knows is reported and aborts; any other goes where it went before |
//! | `signalfd` | signals that are read; one that came before the read is not lost |
//! | `sockaddr` | socket addresses in the kernel's form and in `std`'s |
//! | `simulation` | the virtual time and network of an OS thread that simulates, and none elsewhere |
//! | `socket` | the socket calls that `std::net` cannot make, and plain calls on any descriptor |
//! | `stack_pointer` | where the running stack ends |
//! | `stack_sample` | the stack of another OS thread, taken by a signal |
//! | `symbols` | the names of the functions that addresses lie in |
//! | `testing` | tests that need a process of their own |
//! | `ticks` | the time in ticks of a counter, at a few nanoseconds a reading |
//! | `tls` | blocks of thread-local storage for green threads, as the C library makes an OS thread's |
//! | `transfer` | reads and writes that do not wait, whatever the mode of the open file |
//! | `unix` | Unix stream sockets that connect without blocking |
//! | `unwind` | the frames of suspended code, for the unwinder |
//! | `virtual_address` | addresses of simulated sockets as bytes |
//! | `virtual_calls` | simulated sockets by their numbers, and how each waits |
//! | `virtual_files` | the files of a simulation behind descriptors, and none elsewhere |
//! | `virtual_sockets` | the sockets of a simulation behind descriptors, and none elsewhere |
//!
//! Two rules:
//!
//! * A descriptor is owned (`OwnedFd`) or borrowed (`BorrowedFd`), so no call here can meet a closed or reused one. A
//!   SAFETY comment that says "the fd is open" relies on this rule, `std`'s I/O safety. The exceptions take bare
//!   numbers: `raw`, `numbers`, `inherit`, `endpoint`, and the calls of `epoll` for numbers that a program may close
//!   (`rearm`, `delete_number`, `duplicate`). Each of these says what it does with a number that is closed or reused.
//! * `EINTR` is absorbed only where the file says so. `read` and `write` hand it on, as `std` does.
//!
//! This file cannot say `forbid(unsafe_code)`: the lint level would reach into the files below, of which all but
//! `fault`, `numbers`, `runtime_syscall`, `simulation`, `sockaddr`, `virtual_files` and `virtual_sockets` need some.
//! This file holds no unsafe code, and the crate-wide `deny` keeps it so.

use std::io;

pub(crate) mod affinity;
#[cfg(feature = "monkey")]
pub(crate) mod allocator;
#[cfg(feature = "monkey")]
pub(crate) mod c_library;
pub(crate) mod clock;
pub(crate) mod dump_signal;
pub(crate) mod endpoint;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod fault;
pub(crate) mod file;
#[cfg(feature = "monkey")]
pub(crate) mod flag;
pub(crate) mod fork;
pub(crate) mod fork_lock;
#[cfg(feature = "monkey")]
pub(crate) mod handlers;
pub(crate) mod inherit;
pub(crate) mod kernel_clock;
pub(crate) mod message;
pub(crate) mod mmap;
#[cfg(feature = "monkey")]
pub(crate) mod numbers;
pub(crate) mod os_thread;
#[cfg(feature = "monkey")]
pub(crate) mod peek;
pub(crate) mod prefetch;
pub(crate) mod process;
#[cfg(feature = "monkey")]
pub(crate) mod pthread;
#[cfg(feature = "monkey")]
pub(crate) mod raw;
pub(crate) mod runtime_syscall;
pub(crate) mod service_thread;
pub(crate) mod signal;
pub(crate) mod signalfd;
pub(crate) mod simulation;
mod sockaddr;
pub(crate) mod socket;
pub(crate) mod stack_pointer;
pub(crate) mod stack_sample;
pub(crate) mod symbols;
#[cfg(test)]
mod testing;
pub(crate) mod ticks;
// Without patched functions nothing loads a library; with another C library there is nothing to find out.
#[cfg_attr(not(all(feature = "monkey", target_env = "gnu")), allow(dead_code, unused_imports))]
pub(crate) mod tls;
pub(crate) mod transfer;
pub(crate) mod unix;
pub(crate) mod unwind;
#[cfg(feature = "monkey")]
pub(crate) mod virtual_address;
#[cfg(feature = "monkey")]
pub(crate) mod virtual_calls;
pub(crate) mod virtual_files;
pub(crate) mod virtual_sockets;

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
