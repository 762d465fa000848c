//! What other green threads, hubs and OS threads may ask of a server, and what they may know of it.
//!
//! ```text
//!            drain                force
//!   Serve ----------> Drain -----------------> Force          never back
//!     `--------------------- force --------------^
//! ```
//!
//! One handle may control several servers, one on each hub: each is a *member* while it runs, with its counters and a way
//! to wake its supervisor.
//!
//! * Invariant H2: a supervisor sees what was asked. It becomes a member before it looks at `asked` for the first time, and
//!   whoever asks stores before it takes the lock to wake the members; so it is woken, or sees it in its first look.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::runtime::remote::{Waiter, lock};

/// What a server is asked to do. The numbers grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Accept and serve.
    Serve,
    /// Come to an end.
    Drain,
    /// Come to an end at once.
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
/// assert_eq!(report.counters.completed, 1); // it was in line, and was served
/// assert!(handle.is_draining());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    /// Shared by all clones.
    control: Arc<Control>,
}

/// See [`ServerHandle`].
struct Control {
    /// An [`Asked`].
    asked: AtomicU8,
    /// Servers that run, and the sum of those that have ended.
    members: Mutex<Members>,
}

/// See [`Control`].
#[derive(Default)]
struct Members {
    /// Servers that run.
    running: Vec<Arc<Member>>,
    /// What those have counted that have ended.
    ended: Counters,
}

/// A server that runs.
pub(super) struct Member {
    /// The way to wake its supervisor.
    pub(super) supervisor: Waiter,
    /// What it counts.
    pub(super) tally: Tally,
}

impl ServerHandle {
    /// One that controls nothing yet: give it to [`TcpServer::handle`](super::TcpServer::handle).
    ///
    /// May switch: no.
    pub fn new() -> ServerHandle {
        let (asked, members) = (AtomicU8::new(Asked::Serve as u8), Mutex::default());
        ServerHandle { control: Arc::new(Control { asked, members }) }
    }

    /// Asks its servers to drain: see [`server`](super). Those that are started later do so at once. A second call does
    /// nothing.
    ///
    /// May switch: no; to wait for the end, join the server.
    pub fn drain(&self) {
        self.ask(Asked::Drain);
    }

    /// Asks its servers to drain without any grace: who is being served is killed.
    ///
    /// May switch: no; to wait for the end, join the server.
    pub fn force(&self) {
        self.ask(Asked::Force);
    }

    /// Whether they were asked to drain. A handler can look at it to announce the end in its last answer.
    ///
    /// May switch: no.
    pub fn is_draining(&self) -> bool {
        self.asked() != Asked::Serve
    }

    /// What its servers have counted, also those that have ended. While they run on other OS threads, the figures are
    /// of slightly different moments.
    ///
    /// May switch: no.
    pub fn counters(&self) -> Counters {
        let members = lock(&self.control.members);
        members.running.iter().fold(members.ended, |sum, member| sum.plus(&member.tally.read()))
    }

    /// What they were asked.
    pub(super) fn asked(&self) -> Asked {
        // SeqCst, for H2; it is read at accepts and in drains only.
        match self.control.asked.load(Ordering::SeqCst) {
            0 => Asked::Serve,
            1 => Asked::Drain,
            _ => Asked::Force,
        }
    }

    /// Asks them, unless more was asked already, and wakes them.
    fn ask(&self, what: Asked) {
        if self.control.asked.fetch_max(what as u8, Ordering::SeqCst) < what as u8 {
            // Not under the lock: a wake may run into the hub's own cells, which is fine, but nobody should wait for it.
            let members = lock(&self.control.members).running.clone();
            for member in members {
                member.supervisor.wake();
            }
        }
    }

    /// A server begins.
    pub(super) fn join(&self, member: &Arc<Member>) {
        lock(&self.control.members).running.push(Arc::clone(member));
    }

    /// Whether any of its servers runs.
    pub(super) fn is_running(&self) -> bool {
        !lock(&self.control.members).running.is_empty()
    }

    /// A server has ended.
    pub(super) fn leave(&self, member: &Arc<Member>) {
        let mut members = lock(&self.control.members);
        if let Some(place) = members.running.iter().position(|running| Arc::ptr_eq(running, member)) {
            members.running.swap_remove(place);
            members.ended = members.ended.plus(&member.tally.read());
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
        f.debug_struct("ServerHandle").field("asked", &self.asked()).finish_non_exhaustive()
    }
}

/// How a connection ended, or what else happened to a server.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a server has counted since it began. Each connection that was accepted is either still
        /// [`active`](Self::active) or in exactly one of `completed`, `failed`, `panicked`, `timed_out`, `closed_idle`,
        /// `killed` and `refused`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The same, while it is counted: written by the server's OS thread only, read by any.
        #[derive(Debug, Default)]
        pub(super) struct Tally {
            $($(#[$doc])* pub(super) $name: Count,)*
        }

        impl Tally {
            /// The figures now.
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }
        }

        impl Counters {
            /// The sum of two servers'.
            fn plus(&self, other: &Counters) -> Counters {
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
    /// Handlers that panicked.
    panicked,
    /// Connections that reached a time limit of the server.
    timed_out,
    /// Connections that waited for their next request when the server was drained.
    closed_idle,
    /// Handlers that were killed: by a drain whose grace was over, by its end without grace, by the server's own death.
    killed,
    /// Connections that were closed without being served: no stack, no descriptor, or no grace left.
    refused,
    /// Errors of `accept` that were about a connection that had gone again.
    aborted,
    /// How often accepting was put off since the process or the system had no descriptors or memory left, or a rule of the
    /// machine kept all connections out.
    backoffs,
}

impl Counters {
    /// Connections that are served now.
    ///
    /// May switch: no.
    pub fn active(&self) -> u64 {
        let ended = self.ended_by_themselves() + self.closed_idle + self.killed + self.refused;
        // Of another OS thread, the figures are of slightly different moments.
        self.accepted.saturating_sub(ended)
    }

    /// Connections whose handlers ended without the help of a drain.
    pub(super) fn ended_by_themselves(&self) -> u64 {
        self.completed + self.failed + self.panicked + self.timed_out
    }
}

/// A number that one OS thread counts up, and any may read.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// One more.
    #[inline]
    pub(super) fn add_one(&self) {
        // Relaxed, and no read-modify-write: there is one writer, and readers take each figure for itself.
        self.0.store(self.get() + 1, Ordering::Relaxed);
    }

    /// The number.
    #[inline]
    pub(super) fn get(&self) -> u64 {
        // Relaxed: see `add_one`.
        self.0.load(Ordering::Relaxed)
    }
}
