//! What the green threads of all hubs share: the options, the number of clients and the limit, the logs, and the handle
//! that stops all servers.
//!
//! ```text
//!   main      runs the server of the first hub, until that is drained
//!   acceptor  accepts, and spawns one green thread per connection          of `greenling::server`
//!   client    waits until its client sends something; sends it back        as many as there are connections
//!   log       writes what the other threads tell it; none waits for it     two: standard output and standard error
//!   terminal  waits for `quit`, `stats` or the end of input                if standard input is a terminal
//!   counters  waits for SIGUSR1 and SIGQUIT, and shows the counters or all threads
//! ```
//!
//! Several hubs are several such servers on one port: the kernel spreads connections over their listeners, and a
//! connection stays with its hub.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use greenling::RunningHubs;
use greenling::server::{DrainReport, Limit, ServerHandle, TcpServer};
use greenling::thread::Builder;

use crate::cli;
use crate::client::Why;
use crate::log::{Log, Output, Writer};
use crate::options::{NAME, Options};

/// What all hubs share.
pub(crate) struct Service {
    pub(crate) options: Options,
    /// How many clients there are, counted from their greeting to their goodbye.
    pub(crate) clients: AtomicUsize,
    /// Stops all servers, and knows their counters.
    pub(crate) handle: ServerHandle,
    /// How many clients there may be.
    limit: Limit,
    /// What is said on standard output.
    log: Log<Event>,
    /// What is said on standard error, even with --quiet.
    complaints: Log<String>,
    /// Says when to complain again of a failure that repeats itself.
    repeated: Mutex<cli::Complaints>,
    /// A listener has failed: the process ends with an error.
    has_failed: AtomicBool,
}

/// A line of the log. `clients` is how many there are now.
pub(crate) enum Event {
    Said(String),
    Came { peer: SocketAddr, clients: usize },
    Left { peer: SocketAddr, echoed: u64, why: Why, clients: usize },
}

impl Service {
    /// Starts the two logs. The writers end them.
    pub(crate) fn start(options: Options) -> (Arc<Service>, (Writer<Event>, Writer<String>)) {
        let (log, writer) = Log::start(Output::Out).unwrap_or_else(|error| cli::fail(1, NAME, error));
        let (complaints, complainer) = Log::start(Output::Err).unwrap_or_else(|error| cli::fail(1, NAME, error));
        let service = Service {
            limit: Limit::new(options.max_connections),
            options,
            clients: AtomicUsize::new(0),
            handle: ServerHandle::new(),
            log,
            complaints,
            repeated: Mutex::default(),
            has_failed: AtomicBool::new(false),
        };
        (Arc::new(service), (writer, complainer))
    }

    /// Gives a server the limits of the command line and what all hubs share.
    pub(crate) fn configure(self: &Arc<Service>, server: TcpServer) -> TcpServer {
        // An echo has no requests and answers, so no client is known to be idle.
        let mut server = server.limit(&self.limit).handle(&self.handle).grace(self.options.grace).close_idle(false);
        if let Some(limit) = self.options.idle_timeout {
            server = server.idle_timeout(limit);
        }
        let service = Arc::clone(self);
        server.on_accept_error(move |error| service.cannot_accept(error))
    }

    /// Starts a green thread beside the server, for as long as that runs.
    pub(crate) fn in_background(self: &Arc<Service>, work: impl FnOnce(&Service) + 'static) {
        let service = Arc::clone(self);
        let spawned = Builder::new().spawn(move || work(&service));
        drop(spawned.unwrap_or_else(|error| cli::fail(1, NAME, error)));
    }

    /// Says something to the user of the server.
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.log.say(Event::Said(text.into()));
    }

    /// Says something on standard error, even with --quiet.
    pub(crate) fn complain(&self, text: impl fmt::Display) {
        self.complaints.say(text.to_string());
    }

    /// Says that a client comes or goes.
    pub(crate) fn log(&self, event: Event) {
        if !self.options.quiet {
            self.log.say(event);
        }
    }

    /// Says, when the server begins to stop, how many clients are waited for.
    pub(crate) fn say_who_is_left(&self) {
        let (grace, clients) = (self.options.grace, self.clients.load(Ordering::SeqCst));
        if clients > 0 {
            self.say(format!("stopping: waiting up to {grace:?} for clients to leave ({clients} now)"));
        }
    }

    /// Says why new clients have to wait, when a complaint of that kind is due again.
    fn cannot_accept(&self, error: &io::Error) {
        if self.repeated.lock().unwrap_or_else(PoisonError::into_inner).are_due() {
            let clients = self.limit.in_use();
            let why = cli::brief(error);
            self.complain(format_args!("{NAME}: {why}; {clients} clients are served, new ones wait"));
        }
    }

    /// Looks at how a server ended. A server that could not begin ends the process; a broken listener stops the servers
    /// of the other hubs, where clients may finish.
    pub(crate) fn check_end(&self, ended: io::Result<DrainReport>) {
        let report = ended.unwrap_or_else(|error| cli::fail(1, NAME, format_args!("cannot serve: {error}")));
        let Some(error) = report.accept_error else { return };
        if !self.has_failed.swap(true, Ordering::SeqCst) {
            self.complain(format_args!("{NAME}: cannot accept any more: {error}"));
        }
        self.handle.drain();
    }

    /// Waits for the servers of the other hubs and for the logs, and ends the process.
    pub(crate) fn end(&self, others: Option<RunningHubs<()>>, writers: (Writer<Event>, Writer<String>)) -> ! {
        // Each hub has the same grace. A hub that panicked has said so.
        let all_well = others.is_none_or(|others| others.join().iter().all(Result::is_ok));
        let has_failed = self.has_failed.load(Ordering::SeqCst) || !all_well;
        if !has_failed {
            self.say("stopped");
        }
        // This does not take long, even if the outputs have no reader.
        writers.0.finish();
        writers.1.finish();
        std::process::exit(has_failed.into())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Said(text) => f.write_str(text),
            Event::Came { peer, clients } => write!(f, "{peer} connected ({clients} now)"),
            Event::Left { peer, echoed, why, clients } => {
                write!(f, "{peer} left: echoed {echoed} bytes, {why} ({clients} now)")
            }
        }
    }
}
