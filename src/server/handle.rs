//! The handle of a server: what other threads, hubs and OS threads may ask of the server, and what they may read.
//!
//! ```text
//!            drain                force
//!   Serve ----------> Drain -----------------> Force          never back
//!     `--------------------- force --------------^
//! ```
//!
//! One handle may control several servers, one on each hub: each is a *member* while running, with counters and a way
//! to wake the supervisor.
//!
//! * Invariant server-5: a supervisor sees each command. The supervisor becomes a member before it reads `command`
//!   for the first time, and a caller stores a new command before it takes the lock to wake the members; so the
//!   supervisor is woken, or sees the command in its first look.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::pure::lock::lock;
use crate::runtime::remote::Waiter;

/// What a server is asked to do. A later variant outranks an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Command {
    /// Accept and serve connections.
    Serve,
    /// End after a grace.
    Drain,
    /// End without any grace.
    Force,
}

/// Controls one or more servers, from any OS thread.
///
/// ```
/// use greenling::server::{ServerHandle, TcpServer};
/// use greenling::net::TcpStream;
///
/// let handle = ServerHandle::new();
/// let server = TcpServer::bind("127.0.0.1:0")?.handle(&handle).start(|_stream, _peer| ())?;
/// let _client = TcpStream::connect(server.local_addr())?;
/// std::thread::spawn({
///     let handle = handle.clone();
///     move || handle.drain()
/// });
/// let report = server.join().unwrap();
/// assert_eq!(report.counters.completed, 1); // the client was in the queue, and was served
/// assert!(handle.is_draining());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    /// The state that all clones share.
    control: Arc<Control>,
}

/// The state that all clones of a [`ServerHandle`] share.
struct Control {
    /// The latest [`Command`], as a number.
    command: AtomicU8,
    /// The servers of the handle.
    members: Mutex<Members>,
}

/// The servers of a handle.
#[derive(Default)]
struct Members {
    /// The servers that run.
    running: Vec<Arc<Member>>,
    /// The servers that have ended before all of their handlers.
    ending: Vec<Arc<Member>>,
    /// The sum of the counters of the servers that have ended, and all of their handlers.
    ended: Counters,
}

/// A server that runs, as the handle sees one.
pub(super) struct Member {
    /// Wakes the server's supervisor.
    pub(super) supervisor: Waiter,
    /// The counters of the server.
    pub(super) counters: LiveCounters,
}

impl Members {
    /// Adds to the sum the counters of those servers of which the last handler has ended meanwhile.
    fn settle(&mut self) {
        let ended = &mut self.ended;
        self.ending.retain(|member| {
            let counters = member.counters.read();
            let goes_on = counters.active() > 0;
            if !goes_on {
                *ended = ended.plus(&counters);
            }
            goes_on
        });
    }
}

impl ServerHandle {
    /// Creates a handle that controls nothing yet: pass one to [`TcpServer::handle`](super::TcpServer::handle).
    ///
    /// May switch: no.
    pub fn new() -> ServerHandle {
        let (command, members) = (AtomicU8::new(Command::Serve as u8), Mutex::default());
        ServerHandle { control: Arc::new(Control { command, members }) }
    }

    /// Asks the servers of this handle to drain: see [`server`](super). Servers that are started later drain at once. A
    /// second call does nothing.
    ///
    /// May switch: no; to wait for the end, join the server.
    pub fn drain(&self) {
        self.give(Command::Drain);
    }

    /// Asks the servers of this handle to drain without any grace: handlers that run are killed.
    ///
    /// May switch: no; to wait for the end, join the server.
    pub fn force(&self) {
        self.give(Command::Force);
    }

    /// Reports whether the servers were asked to drain. A handler can use this to announce the end in the last answer.
    ///
    /// May switch: no.
    pub fn is_draining(&self) -> bool {
        self.command() != Command::Serve
    }

    /// Returns what the servers of this handle have counted, those that have ended included. While they run on other OS
    /// threads, the figures are of slightly different moments.
    ///
    /// May switch: no.
    pub fn counters(&self) -> Counters {
        let mut members = lock(&self.control.members);
        members.settle();
        members
            .running
            .iter()
            .chain(&members.ending)
            .fold(members.ended, |sum, member| sum.plus(&member.counters.read()))
    }

    /// Returns the latest command.
    pub(super) fn command(&self) -> Command {
        // SeqCst, for server-5; accepts and drains read this, nothing hotter.
        match self.control.command.load(Ordering::SeqCst) {
            0 => Command::Serve,
            1 => Command::Drain,
            _ => Command::Force,
        }
    }

    /// Gives a command, unless a stronger one was given already, and wakes the supervisors.
    fn give(&self, command: Command) {
        if self.control.command.fetch_max(command as u8, Ordering::SeqCst) < command as u8 {
            // The wakes come after the lock is released: a wake may enter the hub's own cells, which is fine, but no
            // other caller should wait for that.
            let members = lock(&self.control.members).running.clone();
            for member in members {
                member.supervisor.wake();
            }
        }
    }

    /// Adds a server that begins.
    pub(super) fn register(&self, member: &Arc<Member>) {
        lock(&self.control.members).running.push(Arc::clone(member));
    }

    /// Reports whether any server of this handle runs.
    pub(super) fn is_running(&self) -> bool {
        !lock(&self.control.members).running.is_empty()
    }

    /// Removes a server that has ended, and keeps the counters.
    pub(super) fn unregister(&self, member: &Arc<Member>) {
        let mut members = lock(&self.control.members);
        if let Some(index) = members.running.iter().position(|running| Arc::ptr_eq(running, member)) {
            let member = members.running.swap_remove(index);
            members.ending.push(member);
            members.settle();
        }
    }
}

impl Default for ServerHandle {
    fn default() -> Self {
        ServerHandle::new()
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("asked", &self.command()).finish_non_exhaustive()
    }
}

/// Declares the counters twice: as plain numbers, and as what is counted up.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a server has counted since the start. Each connection that was accepted is either still
        /// [`active`](Self::active) or in exactly one of `completed`, `failed`, `panicked`, `timed_out`, `closed_idle`,
        /// `killed` and `refused`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters of a server that runs: written by the server's OS thread only, read by any.
        #[derive(Debug, Default)]
        pub(super) struct LiveCounters {
            $($(#[$doc])* pub(super) $name: Counter,)*
        }

        impl LiveCounters {
            /// Returns the present figures.
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }
        }

        impl Counters {
            /// Returns the sums of two servers' counters.
            pub(super) fn plus(&self, other: &Counters) -> Counters {
                Counters { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

counters! {
    /// Connections taken from the kernel.
    accepted,
    /// Handlers that returned without an error.
    completed,
    /// Handlers that returned an error, other than that of a time limit.
    failed,
    /// Handlers that ended with a panic.
    panicked,
    /// Connections that reached a time limit of the server.
    timed_out,
    /// Connections that waited for their next request when the server was drained.
    closed_idle,
    /// Handlers that were killed: by a drain at the end of the grace, by an end without grace, or by the server's own
    /// death.
    killed,
    /// Connections that were closed without being served, for want of a descriptor, a stack or any grace left.
    refused,
    /// Errors of `accept` about a connection that had gone again.
    aborted,
    /// How often accepting was put off: the process or the system had no descriptors left, or no memory for the
    /// connection or the handler's stack, or a rule of the machine kept all connections out.
    backoffs,
}

impl Counters {
    /// Returns the number of connections that are served now.
    ///
    /// May switch: no.
    pub fn active(&self) -> u64 {
        let ended = self.ended_by_themselves() + self.closed_idle + self.killed + self.refused;
        // Figures that another OS thread counts are of slightly different moments, so the difference may be negative.
        self.accepted.saturating_sub(ended)
    }

    /// Returns the number of handlers that ended without the help of a drain.
    pub(super) fn ended_by_themselves(&self) -> u64 {
        self.completed + self.failed + self.panicked + self.timed_out
    }
}

/// A number that one OS thread counts up, and any may read.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds one to the number.
    #[inline]
    pub(super) fn add_one(&self) {
        self.add(1);
    }

    /// Adds `count` to the number.
    #[inline]
    pub(super) fn add(&self, count: u64) {
        // Relaxed, and no read-modify-write: there is one writer, and readers take each figure for itself.
        self.0.store(self.get() + count, Ordering::Relaxed);
    }

    /// Returns the present number.
    #[inline]
    pub(super) fn get(&self) -> u64 {
        // Relaxed: see `add`.
        self.0.load(Ordering::Relaxed)
    }
}
