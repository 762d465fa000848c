//! You will see a server that sends back whatever its clients send, thousands of them at once, on one OS thread: try it
//! with `nc`, or with the example `echo_client`. `--hubs N` makes it N of them, on N OS threads.
//!
//! ```text
//!   main      runs the server, until it is drained
//!   acceptor  accepts, and spawns one green thread per connection          of `greenling::server`
//!   guest     waits until its client sends something; sends it back        as many as there are clients
//!   log       writes what the others tell it                               unless --quiet
//!   terminal  waits for `quit`, `stats` or the end of input                if standard input is one
//!   stats     waits for SIGUSR1, and shows the counters
//! ```
//!
//! Several hubs are several such servers on one port: the kernel spreads connections over their listeners, and a
//! connection stays with its hub. They share the number of guests and their limit, touched when one comes or leaves, and
//! the handle that stops them all.
//!
//! A guest is written as if it had the machine for itself: it reads, it writes, it waits. What it has on its stack
//! while it waits fits into the stack's first 4 KiB page, and that page is all the memory an idle client takes: the
//! bytes are read into a buffer that is lent for as long as there are any (`read_with`), and log lines are
//! put together on the stack of `log`.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenling::Hubs;
use greenling::hub;
use greenling::io::stdin;
use greenling::net::{TcpListener, TcpStream, ToSocketAddrs};
use greenling::server::{Limit, ListenFd, ServerHandle, TcpServer, listen_fds};
use greenling::signal::{SIGTERM, SIGUSR1, Signals};
use greenling::thread::{self, Thread};
use socket2::SockRef;

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "echo_server";

/// How often a failure to accept is reported at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// More OS threads than that are a typing error.
const MOST_HUBS: usize = 1024;

const HELP: &str = "\
Sends back whatever its clients send.

usage: echo_server [--addr HOST:PORT] [--quiet] [--max-connections N] [--idle-timeout TIME] [--grace TIME]
                   [--hubs N] [--reuse-port]

  --addr HOST:PORT     where to listen: 127.0.0.1:7007 by default; port 0 takes a free one
  --quiet              do not log who comes and goes
  --max-connections N  serve N clients at once, over all hubs; others wait in line until one leaves
  --idle-timeout TIME  close connections that neither send nor take anything for so long: 30 (seconds), 500ms
  --grace TIME         how long clients may go on after `quit`: 5 seconds by default
  --hubs N             serve on N OS threads: 1 by default; 0 is one for each processor. The kernel decides which of
                       them gets a client
  --reuse-port         share the address with other processes that do the same: the kernel spreads clients over them

On a terminal, typing `quit` or Ctrl-D stops it: it accepts nobody any more, goes on serving those who are there, or in
line, until they leave or the grace is over, and ends. SIGTERM does the same, a second one ends the grace; Ctrl-C ends all
at once. Typing `stats`, or SIGUSR1, shows the counters.

Started by socket activation (LISTEN_FDS), it serves the listener that it was passed, and not --addr.

A client takes a descriptor, and all that the hard limit allows are used: ulimit -H -n
";

/// The command line; see `HELP`.
#[derive(Clone)]
struct Options {
    addr: String,
    quiet: bool,
    max_connections: usize,
    idle_timeout: Option<Duration>,
    grace: Duration,
    hubs: usize,
    reuse_port: bool,
}

/// What all hubs share.
struct House {
    /// How many guests there are, as far as they have been greeted.
    guests: AtomicUsize,
    /// How many there may be.
    limit: Limit,
    /// Stops all servers, and knows their counters.
    handle: ServerHandle,
}

/// What the green threads of a hub share.
struct Service {
    options: Options,
    /// What all hubs share.
    house: Arc<House>,
    /// What is to be logged.
    log: Log,
}

/// A client that is served. Its drop, also by unwinding when the server is out of patience, says goodbye.
struct Guest<'a> {
    service: &'a Service,
    peer: SocketAddr,
    /// Bytes sent back so far.
    echoed: Cell<u64>,
    /// Why it left; until then, the server's stop is the only reason there can be.
    why: Cell<Why>,
}

/// Why a guest left.
enum Why {
    /// It sent all it wanted to, and has got it all back.
    Ended,
    /// It sent nothing for too long.
    Silent,
    /// It took nothing for too long.
    Stuck,
    /// The server stops, and its grace is over.
    Stopped,
    /// The connection broke.
    Broken(io::Error),
}

fn main() {
    let options = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    // Without it, some clients have to wait, which is said when it happens.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let hubs = match options.hubs {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        hubs => hubs,
    };
    let listener = match passed() {
        Some(listener) => listener,
        None if options.reuse_port => listen(&options, options.addr.as_str()),
        None => TcpListener::bind(options.addr.as_str())
            .unwrap_or_else(|error| cli::cannot_listen(NAME, &options.addr, &error)),
    };
    // Only now, when the address is ours, it is shared, with the other hubs. Asked for as a shared one, it would be given
    // to a second server, too, whose user has forgotten the first.
    if hubs > 1 {
        let shared = SockRef::from(&listener).set_reuse_port(true);
        shared.unwrap_or_else(|error| cli::cannot_listen(NAME, &options.addr, &error));
    }
    let addr = listener.local_addr().unwrap_or_else(|error| cli::cannot_listen(NAME, &options.addr, &error));
    let limit = Limit::new(options.max_connections);
    let house = Arc::new(House { guests: AtomicUsize::new(0), limit, handle: ServerHandle::new() });
    // Both hold signals, and so must come before other OS threads are started.
    let asked = Signals::new([SIGUSR1]).unwrap_or_else(|error| cli::fail(1, NAME, error));
    let first = TcpServer::new(listener).drain_on([SIGTERM]);

    // The others say when they listen.
    let (ready, all_ready) = hub::channel(None);
    let (theirs, same_house) = (options.clone(), Arc::clone(&house));
    let others = (hubs > 1).then(|| {
        let others = Hubs::new(hubs - 1).name("echo").start(move |_| {
            let server = TcpServer::new(listen(&theirs, addr));
            let _ = ready.send(());
            let service = Service::new(theirs.clone(), Arc::clone(&same_house));
            serve(&service, server, |_| ());
            service.finish();
        });
        others.unwrap_or_else(|error| cli::fail(1, NAME, format_args!("no OS threads: {error}")))
    });
    all_ready.iter().take(hubs - 1).for_each(drop);

    let service = Service::new(options, house);
    service.print(&format!("listening on {addr}\ntry: nc {} {}\n", reachable(addr.ip()), addr.port()));
    if stdin().is_terminal() && in_foreground() {
        service.print("type quit to stop, stats for the counters\n");
        let service = Rc::clone(&service);
        drop(thread::spawn(move || watch_terminal(&service)));
    }
    let same_service = Rc::clone(&service);
    drop(thread::spawn(move || asked.iter().map_while(Result::ok).for_each(|_| same_service.show_counters())));
    serve(&service, first, |service| {
        let (grace, guests) = (service.options.grace, service.house.guests.load(Ordering::SeqCst));
        if guests > 0 {
            service.print(&format!("stopping: waiting up to {grace:?} for clients to leave ({guests} now)\n"));
        }
    });
    if let Some(others) = others {
        // Each has the same grace. One that panicked has said so.
        drop(others.join());
    }
    service.finish();
    service.print("stopped\n");
}

/// The listener that whoever started this process has opened for it, if there is one.
fn passed() -> Option<TcpListener> {
    let first = listen_fds().and_then(|passed| passed.into_iter().next().map(ListenFd::into_tcp_listener).transpose());
    first.unwrap_or_else(|error| cli::fail(2, NAME, format_args!("cannot listen on what it was passed: {error}")))
}

/// Listens on an address that is shared: with other hubs, and with other processes if they are to.
fn listen(options: &Options, addr: impl ToSocketAddrs) -> TcpListener {
    TcpListener::bind_reuse_port(addr).unwrap_or_else(|error| cli::cannot_listen(NAME, &options.addr, &error))
}

/// One hub's server, from its first client to its last. `on_drain` is called when it begins to stop.
fn serve(service: &Rc<Service>, server: TcpServer, on_drain: fn(&Service)) {
    if !service.options.quiet {
        let same_service = Rc::clone(service);
        let writer = thread::spawn(move || write_log(&same_service));
        service.log.writer.get_or_init(|| writer.thread().clone());
    }
    let house = &service.house;
    // An echo has no requests and answers: nobody can be told to be idle.
    let mut server = server.limit(&house.limit).handle(&house.handle).grace(service.options.grace).close_idle(false);
    if let Some(limit) = service.options.idle_timeout {
        server = server.idle_timeout(limit);
    }
    let (teller, complainer, host) = (Rc::clone(service), Rc::clone(service), Rc::clone(service));
    let server = server.on_drain(move |_| on_drain(&teller));
    let server = server.on_accept_error(move |error| complainer.out_of_descriptors(error));
    let served = server.run(move |stream, peer| serve_guest(&host, stream, peer));
    if let Err(error) = served {
        complain(format_args!("cannot serve: {error}"));
    }
}

/// A guest's green thread.
#[inline]
fn serve_guest(service: &Service, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let guest = Guest::greet(service, &stream, peer);
    let why = echo(&stream, &guest.echoed);
    let result = why.as_result();
    guest.why.set(why);
    result
}

/// The whole service. While it waits for its client, there is nothing else on this stack.
fn echo(stream: &TcpStream, echoed: &Cell<u64>) -> Why {
    loop {
        let step =
            stream.read_with(|bytes| if bytes.is_empty() { Err(Why::Ended) } else { send(stream, bytes, echoed) });
        match step {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return why,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Why::Silent,
            Err(error) => return Why::Broken(error),
        }
    }
}

/// Sends all of `bytes`. Waits for a client that does not take them; nothing more is read from it meanwhile.
//
// Mended: the documents' gevent server calls `send` once for each piece, and so loses the rest of a long answer.
#[inline]
fn send(mut stream: &TcpStream, mut bytes: &[u8], echoed: &Cell<u64>) -> Result<(), Why> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => {
                echoed.set(echoed.get() + sent as u64);
                bytes = &bytes[sent..];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Why::Stuck),
            Err(error) => return Err(Why::Broken(error)),
        }
    }
    Ok(())
}

impl Why {
    /// For the server's counters.
    fn as_result(&self) -> io::Result<()> {
        match self {
            Why::Ended | Why::Stopped => Ok(()),
            Why::Silent | Why::Stuck => Err(io::ErrorKind::WouldBlock.into()),
            Why::Broken(error) => Err(error.kind().into()),
        }
    }
}

impl<'a> Guest<'a> {
    /// Somebody has come.
    #[cold]
    fn greet(service: &'a Service, stream: &TcpStream, peer: SocketAddr) -> Guest<'a> {
        // It fails only if the client has gone again, and then the first read will say so.
        let _ = stream.set_nodelay(true);
        // SeqCst, as everywhere here: it costs nothing beside a connection.
        let guests = service.house.guests.fetch_add(1, Ordering::SeqCst) + 1;
        service.log(Event::Came { peer, guests });
        Guest { service, peer, echoed: Cell::new(0), why: Cell::new(Why::Stopped) }
    }
}

impl Drop for Guest<'_> {
    #[cold]
    fn drop(&mut self) {
        let guests = self.service.house.guests.fetch_sub(1, Ordering::SeqCst) - 1;
        let why = self.why.replace(Why::Ended);
        self.service.log(Event::Left { peer: self.peer, echoed: self.echoed.get(), why, guests });
    }
}

/// Stops on `quit` and at the end of input.
fn watch_terminal(service: &Service) {
    let mut line = String::new();
    loop {
        line.clear();
        match stdin().read_line(&mut line) {
            Ok(0) => break,
            Ok(_) if line.trim() == "quit" => break,
            Ok(_) if line.trim() == "stats" => service.show_counters(),
            Ok(_) if line.trim().is_empty() => {}
            Ok(_) => service.print("type quit to stop, stats for the counters\n"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                service.print("type quit to stop, stats for the counters\n")
            }
            // The terminal is gone, the clients are not.
            Err(_) => return,
        }
    }
    service.house.handle.drain();
}

impl Service {
    fn new(options: Options, house: Arc<House>) -> Rc<Service> {
        Rc::new(Service { options, house, log: Log::default() })
    }

    /// After the last guest of this hub: unwinds `log` and the others, and writes what is left to be logged.
    fn finish(&self) {
        hub::shutdown();
        self.write_events();
    }

    /// Prints the counters of all hubs, in one line.
    fn show_counters(&self) {
        let now = self.house.guests.load(Ordering::SeqCst);
        let counters = self.house.handle.counters();
        self.print(&format!(
            "{now} clients now, {} came; left: {} by themselves, {} silent or stuck, {} broken; put off {} times\n",
            counters.accepted, counters.completed, counters.timed_out, counters.failed, counters.backoffs
        ));
    }

    /// Says so, but not every time.
    fn out_of_descriptors(&self, error: &io::Error) {
        if self.log.complained.get().is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
            self.log.complained.set(Some(Instant::now()));
            let guests = self.house.limit.in_use();
            complain(format_args!("{error}; {guests} clients are served, new ones have to wait"));
        }
    }

    /// Leaves a note for `log`.
    fn log(&self, event: Event) {
        if self.options.quiet {
            return;
        }
        let mut events = self.log.events.borrow_mut();
        events.push(event);
        if events.len() == 1
            && let Some(writer) = self.log.writer.get()
        {
            writer.unpark();
        }
    }

    /// Writes all notes, in one go.
    fn write_events(&self) {
        let mut text = self.log.text.take();
        for event in self.log.events.take() {
            // Writing to a string does not fail.
            let _ = match event {
                Event::Came { peer, guests } => writeln!(text, "{peer} connected ({guests} now)"),
                Event::Left { peer, echoed, why, guests } => {
                    let _ = write!(text, "{peer} left: echoed {echoed} bytes, ");
                    let _ = match why {
                        Why::Ended => write!(text, "closed by the client"),
                        Why::Silent => write!(text, "it was silent for too long"),
                        Why::Stuck => write!(text, "it took nothing for too long"),
                        Why::Stopped => write!(text, "closed since the server stops"),
                        Why::Broken(error) => write!(text, "{error}"),
                    };
                    writeln!(text, " ({guests} now)")
                }
            };
        }
        self.print(&text);
        text.clear();
        self.log.text.replace(text);
    }

    /// Writes to standard output as long as somebody reads it; the clients must not suffer if nobody does.
    fn print(&self, text: &str) {
        if !self.log.broken.get() && io::stdout().write_all(text.as_bytes()).is_err() {
            self.log.broken.set(true);
        }
    }
}

/// Something to log. `guests` is how many there are now.
enum Event {
    Came { peer: SocketAddr, guests: usize },
    Left { peer: SocketAddr, echoed: u64, why: Why, guests: usize },
}

/// What is to be logged, and who does it.
#[derive(Default)]
struct Log {
    /// Notes that are not written yet.
    events: RefCell<Vec<Event>>,
    /// Where lines are put together; kept for its memory.
    text: RefCell<String>,
    /// Writes them.
    writer: OnceCell<Thread>,
    /// Standard output cannot be written any more.
    broken: Cell<bool>,
    /// When a failure to accept was reported.
    complained: Cell<Option<Instant>>,
}

/// Writes notes as they come, for ever.
fn write_log(service: &Service) {
    loop {
        service.write_events();
        thread::park();
    }
}

/// What goes wrong is said even with --quiet.
fn complain(what: impl std::fmt::Display) {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "{NAME}: {what}");
}

/// An address at which a client on this machine reaches a server that listens on `ip`.
fn reachable(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => String::from("127.0.0.1"),
        IpAddr::V6(ip) if ip.is_unspecified() => String::from("::1"),
        ip => ip.to_string(),
    }
}

/// Whether what is typed is for us: a process started with `&` that reads from its terminal is stopped by the kernel as
/// soon as something is typed there.
fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // proc_pid_stat(5): after the name in parentheses, field 2 is the process group, 5 the terminal's foreground group.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let no_terminal = fields.get(5) == Some(&"-1");
    no_terminal || fields.get(2) == fields.get(5)
}

fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut options = Options {
        addr: String::from("127.0.0.1:7007"),
        quiet: false,
        max_connections: usize::MAX,
        idle_timeout: None,
        grace: Duration::from_secs(5),
        hubs: 1,
        reuse_port: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("addr") => options.addr = cli::text("--addr", &mut parser)?,
            Long("quiet") | Short('q') => options.quiet = true,
            Long("max-connections") => options.max_connections = cli::count("--max-connections", &mut parser)?,
            Long("idle-timeout") => {
                let limit = cli::duration("--idle-timeout", &mut parser)?;
                if limit.is_zero() {
                    return Err(String::from("--idle-timeout must be more than 0"));
                }
                options.idle_timeout = Some(limit);
            }
            Long("grace") => options.grace = cli::duration("--grace", &mut parser)?,
            Long("hubs") => {
                let hubs = cli::text("--hubs", &mut parser)?;
                options.hubs = match hubs.parse() {
                    Ok(hubs) if hubs <= MOST_HUBS => hubs,
                    _ => return Err(format!("--hubs {hubs}: not a whole number from 0 to {MOST_HUBS}")),
                };
            }
            Long("reuse-port") => options.reuse_port = true,
            Long("help") | Short('h') => cli::help(HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(options)
}

// Output, with a client that said "hello" and left:
//
//     listening on 127.0.0.1:7007
//     try: nc 127.0.0.1 7007
//     type quit to stop, stats for the counters
//     127.0.0.1:53004 connected (1 now)
//     127.0.0.1:53004 left: echoed 6 bytes, closed by the client (0 now)
//     quit
//     stopped
//
// Read next: src/server/mod.rs, then `read_with` in src/net/tcp_stream.rs, then src/runtime/source.rs: try, wait, try again.
