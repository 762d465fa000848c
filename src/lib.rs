//! Green threads for Linux: greenlet-style switches and gevent-style blocking IO on one epoll reactor per OS thread.
//!
//! Write plain blocking Rust; calls that would wait let another green thread run. No `async`, no `Send`, no locks: the
//! green threads of an OS thread take turns on it, each on a stack of its own.
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
//! # What is where
//!
//! * [`spawn`], [`sleep`], [`yield_now`] and [`thread`]: green threads, shaped like `std::thread`.
//! * [`group`]: many of them at once: groups, pools with a limit, `join_all`, `wait_any`.
//! * [`green_local!`]: values that each green thread has for itself, inherited or not.
//! * [`Greenlet`]: explicit switches with values, as in Python's greenlet.
//! * [`net`]: TCP and UDP, shaped like `std::net`; [`os::unix::net`]: Unix sockets, shaped like std's.
//! * [`fs`]: files, shaped like `std::fs`; [`offload`] and [`blocking`]: whatever else blocks or computes, on OS threads.
//! * [`block_on`]: waits for a future as for anything else. Join handles are futures, too.
//! * [`io`]: `std::io`, with green standard streams and pipes, a `copy` that the kernel helps, and readiness of any descriptor.
//! * [`server`]: TCP and UDP servers with limits and an orderly end.
//! * [`process`]: children, shaped like `std::process`. [`signal`]: signals to wait for.
//! * `monkey` (a feature): the blocking calls of the program itself, made green: `std::net` and blocking crates unmodified.
//! * [`sync`]: `std::sync` for green threads, with semaphores, events and wait groups.
//! * [`channel`] and [`select!`]: values from one green thread to another, and waiting for several things at once.
//! * [`time`]: intervals that tick.
//! * [`timeout`], [`timeout_at`], [`remaining`], [`shield`], [`no_switch`]: limits on waiting.
//! * [`hub`]: what the OS thread's scheduler is asked and told: stacks, counters, shutdown; handles and channels to the
//!   hubs of other OS threads. [`Hubs`] starts several.
//!
//! The README has the table from `std` to this crate and the limits with their cures.
//!
//! # Reading order
//!
//! For those who read the code. `DESIGN.md` is the guided tour; its chapter 0 lists every file. The short route:
//!
//! 1. `src/switch/stack.rs`: one stack, and what lies where in it.
//! 2. `src/switch/fiber.rs`: one coroutine, its states, how it is resumed and suspends.
//! 3. `src/switch/root.rs`: the loop that resumes fibers.
//! 4. `src/switch/greenlet.rs`: explicit switches on top of that, and nothing else.
//! 5. `src/runtime/hub.rs`: who can run now? Mail, epoll, timers.
//! 6. `src/runtime/park.rs`: the only way anything blocks.
//! 7. `src/runtime/source.rs`: one descriptor: try, wait, try again.
//! 8. `src/thread/spawn.rs`: a green thread's life.
//! 9. `src/net/tcp_stream.rs`: std's methods on 7.
//!
//! # Layers
//!
//! A file imports lower ranks only:
//!
//! | rank | folder | is | names |
//! |---|---|---|---|
//! | 0 | `pure/` | data structures without kernel, clock or stacks | `crossbeam-queue`, nothing of the crate |
//! | 0 | `sys/` | the kernel seam | `libc`, nothing of the crate |
//! | 1 to 6 | `switch/` | stacks, fibers, the root loop, greenlets | `corosensei` |
//! | 7 to 10 | `runtime/` | reactor, mail, reports; hub; park; source, remote | `crossbeam-queue` |
//! | 11 | `interrupt.rs`, `thread/`, `offload/` | what programs call | |
//! | 12 | `net/`, `os/`, `fs/`, `sync/`, `channel/`, `time.rs`, `signal.rs`, `bridge.rs` | sockets, files and locks with std's methods; channels; intervals; signals; futures | |
//! | 13 | `io/`, `process/stdio.rs`, `hub.rs`, `hub/`, `select.rs`, `group/` | standard streams, pipes, copies, any descriptor; the hub, this one and others; many things, many threads at once | |
//! | 14 | `hubs.rs`, `process/`, `server/` | many hubs; children; servers | |
//! | 15 | `monkey/` | C's blocking functions, in front of the C library's (feature `monkey`) | |
//!
//! `tests/tidy.rs` has the rank of each file, and checks the imports.
//!
//! Four inversions keep this free of cycles: the reactor wakes and schedules nobody, the inbox *answers* whether the bell
//! must be rung, the timer wheel is *told* the time, and the root loop asks a trait object who can run, so that greenlets
//! know no hub.

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
mod switch;
pub mod sync;
mod sys;
pub mod thread;
pub mod time;

pub use bridge::block_on;
pub use hubs::{Hubs, RunningHubs};
pub use interrupt::{TimeoutError, no_switch, remaining, shield, timeout, timeout_at};
pub use offload::blocking;
#[doc(hidden)]
pub use select::pieces as __select;
pub use switch::cancel::GreenletExit;
pub use switch::greenlet::{
    Greenlet, GreenletId, GreenletState, ParentError, SwitchError, SwitchErrorKind, TraceEvent, TraceKind,
    WeakGreenlet, settrace,
};
pub use thread::{sleep, spawn, yield_now};

/// DESIGN.md, for its examples.
#[cfg(doctest)]
#[doc = include_str!("../DESIGN.md")]
mod design {}

/// README.md, for its examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
