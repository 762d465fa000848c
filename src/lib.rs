//! Green threads for Linux: greenlet-style switches and gevent-style blocking IO on one epoll reactor per OS thread.
//!
//! Write plain blocking Rust; calls that would wait let another green thread run. No `async`, no `Send`, no locks: the
//! green threads of an OS thread take turns, each on a stack of its own.
//!
//! ```
//! use greenling::{net::{TcpListener, TcpStream}, spawn};
//! use std::io::{Read, Write};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! let server = spawn(move || {
//!     let (stream, _) = listener.accept().unwrap(); // waits, so that others run
//!     std::io::copy(&mut &stream, &mut &stream).unwrap()
//! });
//! let mut client = TcpStream::connect(addr)?;
//! client.write_all(b"echo")?;
//! client.read_exact(&mut [0; 4])?;
//! drop(client);
//! assert_eq!(server.join().unwrap(), 4); // bytes that were copied
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! There is no `run`: a blocking call in `main` runs the hub until it can return.
//!
//! No function here is `unsafe`, but for those of the feature `monkey`. Safe code in light threads must keep to one
//! rule beside the compiler's: code that keeps a thread-local in use, or is initialising one, does not wait. The limits
//! of [`thread`] say why, and how. Threads with [thread-locals of their own](thread::Builder::own_thread_locals), which
//! take and return only what is `Send`, need no rule but the compiler's.
//!
//! # What is where
//!
//! * [`spawn`], [`sleep`], [`yield_now`] and [`thread`]: green threads, shaped like `std::thread`.
//! * [`group`]: many green threads at once: groups, pools with a limit, `join_all`, `wait_any`.
//! * [`green_local!`]: values that each green thread has for itself, inherited or not.
//! * [`Greenlet`]: explicit switches with values, as in Python's greenlet.
//! * [`net`]: TCP and UDP, shaped like `std::net`; [`os::unix::net`]: Unix sockets, shaped like std's.
//! * [`fs`]: files, shaped like `std::fs`; [`offload`] and [`blocking`]: whatever else blocks or computes, on OS
//!   threads.
//! * [`block_on`]: waits for a future as for anything else. Join handles are futures, too.
//! * [`io`]: `std::io`, with green standard streams and pipes, a `copy` that the kernel helps, and readiness of any
//!   descriptor.
//! * [`server`]: TCP and UDP servers with limits and an orderly end.
//! * [`process`]: children, shaped like `std::process`. [`signal`]: signals to wait for.
//! * `monkey` (a feature): the blocking calls of the program itself, made green: `std::net` and blocking crates
//!   unmodified.
//! * [`sync`]: `std::sync` for green threads, with semaphores, events and wait groups.
//! * [`channel`]: values from one green thread to another. [`select!`] and [`Select`]: waiting for several things at
//!   once.
//! * [`time`]: intervals that tick. [`sim`]: tests with a virtual clock, in schedules that a seed gives.
//! * [`trace`]: what the threads of a hub did, event by event, for people and for viewers.
//! * [`timeout`], [`timeout_at`], [`remaining`], [`shield`], [`no_switch`]: limits on waiting.
//! * [`hub`]: the OS thread's scheduler: stacks, counters, shutdown; handles and channels to the hubs of other OS
//!   threads, and [locks](hub::sync) that the hubs share, for `static`s. [`Hubs`] starts several hubs.
//!
//! The README has the table from `std` to this crate and the limits with their cures.
//!
//! # Reading order
//!
//! The runtime is five folders and one file: `pure/`, `switch/`, `runtime/`, `thread/`, those parts of `sys/` that they
//! call, and `interrupt.rs`. Everything else is std's API, written on `park`.
//!
//! `DESIGN.md` is the map of the code and `docs/book` the guided tour. The short route:
//!
//! 1. `src/switch/stack.rs`: one stack slot, and what lies where in the slot.
//! 2. `src/switch/state.rs` and `src/switch/fiber.rs`: one coroutine, the states, how a fiber is resumed and suspends.
//! 3. `src/switch/run_loop.rs`: the loop that resumes fibers.
//! 4. `src/switch/greenlet/mod.rs`: explicit switches on top of the loop, and nothing else.
//! 5. `src/runtime/hub.rs`: which fibers can run now? Remote queue, epoll, timers.
//! 6. `src/runtime/park.rs`: the only way anything blocks.
//! 7. `src/runtime/source.rs`: one descriptor: try, wait, try again.
//! 8. `src/thread/spawn.rs`, `src/thread/life.rs`: a green thread from spawn to join.
//! 9. `src/net/tcp_stream.rs`: std's methods on 7.
//!
//! # Layers
//!
//! A file imports lower ranks only. There are no circles of imports, except for one: an intrusive list and its
//! elements (`switch/fiber.rs`, `switch/wait_list.rs` and the like).
//!
//! | rank | folder | is | names |
//! |---|---|---|---|
//! | 0 | `pure/` | data structures without kernel, clock or stacks | `crossbeam-queue`, nothing of the crate |
//! | 1 | `sys/` | the kernel seam | `libc`, `pure/` |
//! | 10 to 60 | `switch/` | stacks, fibers, the run loop, greenlets | `corosensei` |
//! | 70 to 100 | `runtime/` | reactor, remote queue, reports, traces; hub; park; source, remote | `crossbeam-queue` |
//! | 110 | `interrupt.rs`, `thread/`, `offload/` | what programs call | |
//! | 120 | `net/`, `os/`, `fs/`, `sync/`, `channel/`, `time.rs`, `signal.rs`, `bridge.rs`, `select.rs`, `select/` | sockets, files and locks with std's methods; channels; intervals; signals; futures; the first of several things | |
//! | 130 | `io/`, `hub.rs`, `hub/`, `trace.rs`, `group/` | standard streams, pipes, copies, any descriptor; the hub, this one and others; many things, many threads at once | |
//! | 140 | `hubs.rs`, `process/`, `server/`, `sim/` | many hubs; children; servers; programs under a virtual clock | |
//! | 150 | `monkey/` | C's blocking functions, in front of the C library's (feature `monkey`) | |
//!
//! `tests/tidy.rs` has the rank of each file (the last digit orders the files of a folder), and checks the imports.
//!
//! Four inversions keep the ranks free of circles: the reactor schedules no fiber, the inbox *answers* whether the bell
//! must be rung, the timer wheel is *told* the time, and the run loop polls a trait object, so that greenlets know no
//! hub.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("greenling runs on Linux on x86-64 and aarch64 only: it needs epoll, eventfd and madvise guards");

mod bridge;
pub mod channel;
pub mod fs;
pub mod group;
pub mod hub;
mod hubs;
mod interrupt;
pub mod io;
#[cfg(feature = "monkey")]
pub mod monkey;
pub mod net;
pub mod offload;
pub mod os;
pub mod process;
mod pure;
mod runtime;
mod select;
pub mod server;
pub mod signal;
pub mod sim;
mod switch;
pub mod sync;
mod sys;
pub mod thread;
pub mod time;
pub mod trace;

pub use bridge::block_on;
pub use hubs::{Hubs, RunningHubs};
pub use interrupt::{TimeoutError, no_switch, remaining, shield, timeout, timeout_at};
pub use offload::blocking;
pub use select::Select;
#[doc(hidden)]
pub use select::pieces as __select;
pub use switch::cancel::GreenletExit;
pub use switch::greenlet::{
    Greenlet, GreenletId, GreenletState, ParentError, SwitchError, SwitchErrorKind, TraceEvent, TraceKind,
    WeakGreenlet, settrace,
};
pub use thread::{sleep, spawn, yield_now};

/// The examples of chapter 0 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/00-from-blocking-to-green.md")]
mod book_00 {}

/// The examples of chapter 1 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/01-blocking-code-without-threads.md")]
mod book_01 {}

/// The examples of chapter 2 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/02-one-switch.md")]
mod book_02 {}

/// The examples of chapter 3 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/03-the-life-of-a-fiber.md")]
mod book_03 {}

/// The examples of chapter 4 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/04-stacks.md")]
mod book_04 {}

/// The examples of chapter 5 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/05-the-hub.md")]
mod book_05 {}

/// The examples of chapter 6 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/06-park-and-unpark.md")]
mod book_06 {}

/// The examples of chapter 7 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/07-the-reactor.md")]
mod book_07 {}

/// The examples of chapter 8 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/08-the-timer-wheel.md")]
mod book_08 {}

/// The examples of chapter 9 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/09-one-byte.md")]
mod book_09 {}

/// The examples of chapter 10 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/10-waking-from-another-thread.md")]
mod book_10 {}

/// The examples of chapter 11 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/11-unsafe-inventory.md")]
mod book_11 {}

/// The examples of chapter 12 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/12-kill-timeouts-and-the-end.md")]
mod book_12 {}

/// The examples of chapter 13 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/13-waiting-for-several-things.md")]
mod book_13 {}

/// The examples of chapter 14 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/14-rejected-designs.md")]
mod book_14 {}

/// The examples of chapter 15 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/15-unmodified-code.md")]
mod book_15 {}

/// The examples of chapter 16 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/16-limits-glossary-sources.md")]
mod book_16 {}

/// The examples of chapter 17 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/17-what-is-a-thread.md")]
mod book_17 {}

/// The examples of chapter 18 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/18-debugging.md")]
mod book_18 {}

/// The examples of chapter 19 of the book, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/book/19-time-and-chance.md")]
mod book_19 {}

/// The measurements, for their examples.
#[cfg(doctest)]
#[doc = include_str!("../docs/measurements.md")]
mod measurements {}

/// The examples of README.md, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
