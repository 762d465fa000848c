//! You will see a server that sends back whatever its clients send, thousands of them at once, on one OS thread: try it
//! with `nc`, or with the example `echo_client`. `--hubs N` makes it N of them, on N OS threads.
//!
//! ```text
//!   main      accepts, and spawns one green thread per connection; waits when the house is full
//!   guest     waits until its client sends something; sends it back        as many as there are clients
//!   log       writes what the others tell it                               unless --quiet
//!   terminal  waits for `quit` or the end of input                         if standard input is one
//!   stop      waits for word that all hubs are to stop                     on each hub but the first
//! ```
//!
//! Several hubs are several such servers on one port: the kernel spreads connections over their listeners, and a
//! connection stays with its hub. They share the number of guests, touched when one comes or leaves, and nothing else.
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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenling::hub::{self, RemoteReceiver, RemoteSender};
use greenling::io::stdin;
use greenling::net::{TcpListener, TcpStream, ToSocketAddrs};
use greenling::thread::{self, Builder, Thread};
use greenling::{Hubs, RunningHubs};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "echo_server";

/// How long to wait before accepting is tried again after it failed.
const BACK_OFF: Duration = Duration::from_millis(100);

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

On a terminal, typing `quit` or Ctrl-D stops it: it accepts nobody any more, goes on serving those who are there until
they leave or the grace is over, and ends. Ctrl-C ends it at once.

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
    /// How many guests there are.
    guests: AtomicUsize,
    /// A flag and a way to wake it for each hub's main: whether it waits until a guest leaves, any guest.
    doors: Vec<Door>,
}

/// See [`House`].
struct Door {
    /// Main waits until a guest leaves.
    waits: AtomicBool,
    /// Main, which accepts.
    main: Thread,
}

/// What the green threads of a hub share.
struct Server {
    options: Options,
    listener: TcpListener,
    /// What all hubs share.
    house: Arc<House>,
    /// Which hub this is.
    index: usize,
    /// How many guests this hub has.
    guests: Cell<usize>,
    /// `quit` was typed.
    stopping: Cell<bool>,
    /// What is to be logged.
    log: Log,
}

/// A connection. Its drop, also by unwinding when the server is out of patience, says goodbye.
struct Guest {
    server: Rc<Server>,
    stream: TcpStream,
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
    let listener = listen(&options, options.addr.as_str(), hubs);
    let addr = listener.local_addr().unwrap_or_else(|error| cannot_listen(&options, &error));
    let greeting = format!("listening on {addr}\ntry: nc {} {}\n", reachable(addr.ip()), addr.port());
    if hubs == 1 {
        let doors = vec![Door { waits: AtomicBool::new(false), main: thread::current() }];
        let house = Arc::new(House { guests: AtomicUsize::new(0), doors });
        return serve(Server::new(options, listener, house, 0), &greeting, Part::Alone);
    }
    serve_on_many(options, listener, addr, hubs, &greeting);
}

/// Several servers: this OS thread's, and one on each of the others'. When this one stops, all do.
fn serve_on_many(options: Options, listener: TcpListener, addr: SocketAddr, hubs: usize, greeting: &str) {
    // The mains introduce themselves, and get the house that has a door for each.
    let (introduce, introduced) = hub::channel(None);
    let (invite, invited) = hub::channel::<Arc<House>>(None);
    // Nothing is ever sent: its end is the news.
    let (stop, stopped) = hub::channel::<()>(None);
    let theirs = options.clone();
    let others = Hubs::new(hubs - 1).name("echo").start(move |index| {
        let listener = listen(&theirs, addr, hubs);
        let _ = introduce.send((index + 1, thread::current()));
        let Ok(house) = invited.recv() else { return };
        serve(Server::new(theirs.clone(), listener, house, index + 1), "", Part::Other(stopped.clone()));
    });
    let others = others.unwrap_or_else(|error| cli::fail(1, NAME, format_args!("no OS threads: {error}")));
    let mut mains = vec![(0, thread::current())];
    mains.extend(introduced.iter().take(hubs - 1));
    mains.sort_by_key(|main| main.0);
    let doors = mains.into_iter().map(|(_, main)| Door { waits: AtomicBool::new(false), main }).collect();
    let house = Arc::new(House { guests: AtomicUsize::new(0), doors });
    for _ in 1..hubs {
        let _ = invite.send(Arc::clone(&house));
    }
    serve(Server::new(options, listener, house, 0), greeting, Part::First { stop, others });
}

/// Listens, so that as many hubs can, and other processes if they are to.
fn listen(options: &Options, addr: impl ToSocketAddrs, hubs: usize) -> TcpListener {
    let shared = hubs > 1 || options.reuse_port;
    let listener = if shared { TcpListener::bind_reuse_port(addr) } else { TcpListener::bind(addr) };
    listener.unwrap_or_else(|error| cannot_listen(options, &error))
}

/// A hub's part.
enum Part {
    /// There is no other.
    Alone,
    /// It has the terminal. The drop of `stop` tells the others to stop.
    First { stop: RemoteSender<()>, others: RunningHubs<()> },
    /// The end of the channel tells it to stop.
    Other(RemoteReceiver<()>),
}

/// One hub's server, from its first client to its last.
fn serve(server: Server, greeting: &str, part: Part) {
    let server = Rc::new(server);
    server.print(greeting);
    if let Part::Other(stopped) = &part {
        let (server, stopped) = (Rc::clone(&server), stopped.clone());
        drop(thread::spawn(move || {
            let _ = stopped.recv();
            server.stop();
        }));
    } else if stdin().is_terminal() && in_foreground() {
        server.print("type quit to stop\n");
        let server = Rc::clone(&server);
        drop(thread::spawn(move || watch_terminal(&server)));
    }
    if !server.options.quiet {
        let server_too = Rc::clone(&server);
        let writer = thread::spawn(move || write_log(&server_too));
        server.log.writer.get_or_init(|| writer.thread().clone());
    }
    accept(&server);
    match part {
        Part::Alone => {
            drain(&server);
            server.print("stopped\n");
        }
        Part::First { stop, others } => {
            drop(stop);
            drain(&server);
            // Each has the same grace. One that panicked has said so.
            drop(others.join());
            server.print("stopped\n");
        }
        Part::Other(_) => drain(&server),
    }
}

/// Accepts until `quit`.
fn accept(server: &Rc<Server>) {
    let mut complained: Option<Instant> = None;
    while !server.stopping.get() {
        if server.wait_for_room() {
            continue;
        }
        match server.listener.accept() {
            Ok((stream, peer)) => {
                // Another hub may have filled the house meanwhile; then this client waits in the door.
                let guests = loop {
                    match server.enter() {
                        Some(guests) => break guests,
                        None if server.stopping.get() => return,
                        None => drop(server.wait_for_room()),
                    }
                };
                welcome(server, stream, peer, guests);
            }
            // `quit` closes the listener.
            Err(_) if server.stopping.get() => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of descriptors, as a rule. The client stays in line, so `accept` would fail again at once.
                if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                    complained = Some(Instant::now());
                    let guests = server.house.guests.load(Ordering::SeqCst);
                    complain(format_args!("{error}; {guests} clients are served, new ones have to wait"));
                }
                server.wait_for_a_leave(Some(BACK_OFF));
            }
        }
    }
}

/// Gives a new client its green thread. `guests`: how many there are now.
fn welcome(server: &Rc<Server>, stream: TcpStream, peer: SocketAddr, guests: usize) {
    // Each of these fails only if the client has gone again, and then the guest's first read will say so.
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(server.options.idle_timeout);
    let _ = stream.set_write_timeout(server.options.idle_timeout);
    server.guests.set(server.guests.get() + 1);
    server.log(Event::Came { peer, guests });
    let guest = Guest { server: Rc::clone(server), stream, peer, echoed: Cell::new(0), why: Cell::new(Why::Stopped) };
    let spawned = Builder::new().spawn(move || guest.why.set(echo(&guest.stream, &guest.echoed)));
    if let Err(error) = spawned {
        complain(format_args!("no thread for {peer}: {error}"));
    }
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

impl Drop for Guest {
    #[cold]
    fn drop(&mut self) {
        let server = &self.server;
        server.guests.set(server.guests.get() - 1);
        // SeqCst, as everywhere here: a main that goes to wait and a guest that leaves must not miss each other.
        let guests = server.house.guests.fetch_sub(1, Ordering::SeqCst) - 1;
        let why = self.why.replace(Why::Ended);
        server.log(Event::Left { peer: self.peer, echoed: self.echoed.get(), why, guests });
        for door in &server.house.doors {
            if door.waits.load(Ordering::SeqCst) && door.waits.swap(false, Ordering::SeqCst) {
                door.main.unpark();
            }
        }
    }
}

/// Stops on `quit` and at the end of input.
fn watch_terminal(server: &Server) {
    let mut line = String::new();
    loop {
        line.clear();
        match stdin().read_line(&mut line) {
            Ok(0) => break,
            Ok(_) if line.trim() == "quit" => break,
            Ok(_) if line.trim().is_empty() => {}
            Ok(_) => server.print("type quit to stop\n"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => server.print("type quit to stop\n"),
            // The terminal is gone, the clients are not.
            Err(_) => return,
        }
    }
    server.stop();
}

/// Serves the guests who are there until they leave or the grace is over.
fn drain(server: &Server) {
    let deadline = Instant::now().checked_add(server.options.grace);
    let guests = server.house.guests.load(Ordering::SeqCst);
    if guests > 0 && server.index == 0 {
        let grace = server.options.grace;
        server.print(&format!("stopping: waiting up to {grace:?} for clients to leave ({guests} now)\n"));
    }
    while server.guests.get() > 0 {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break;
        }
        server.wait_for_a_leave(left);
    }
    // Unwinds whoever is left: guests, and `log`.
    hub::shutdown();
    server.write_events();
}

impl Server {
    fn new(options: Options, listener: TcpListener, house: Arc<House>, index: usize) -> Server {
        let (guests, stopping, log) = (Cell::new(0), Cell::new(false), Log::default());
        Server { options, listener, house, index, guests, stopping, log }
    }

    /// Accepts nobody any more.
    fn stop(&self) {
        self.stopping.set(true);
        self.listener.close();
        self.door().main.unpark();
    }

    /// This hub's.
    fn door(&self) -> &Door {
        &self.house.doors[self.index]
    }

    /// Counts a new guest, if there is room; says how many there are then.
    fn enter(&self) -> Option<usize> {
        let one_more = |guests| (guests < self.options.max_connections).then_some(guests + 1);
        let before = self.house.guests.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        before.ok().map(|guests| guests + 1)
    }

    /// If the house is full, main waits until a guest leaves, from this hub or another, or the server stops. Says
    /// whether it was full.
    fn wait_for_room(&self) -> bool {
        let full = || self.house.guests.load(Ordering::SeqCst) >= self.options.max_connections;
        if !full() {
            return false;
        }
        self.door().waits.store(true, Ordering::SeqCst);
        // Once more: who leaves from now on sees that main waits.
        if full() && !self.stopping.get() {
            thread::park();
        }
        self.door().waits.store(false, Ordering::SeqCst);
        true
    }

    /// Main waits until a guest leaves, the server stops, or `limit` is over.
    fn wait_for_a_leave(&self, limit: Option<Duration>) {
        self.door().waits.store(true, Ordering::SeqCst);
        match limit {
            Some(limit) => thread::park_timeout(limit),
            None => thread::park(),
        }
        self.door().waits.store(false, Ordering::SeqCst);
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
}

/// Writes notes as they come, for ever.
fn write_log(server: &Server) {
    loop {
        server.write_events();
        thread::park();
    }
}

/// What goes wrong is said even with --quiet.
fn complain(what: impl std::fmt::Display) {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "{NAME}: {what}");
}

/// Ends the process: there is nowhere to listen.
fn cannot_listen(options: &Options, error: &io::Error) -> ! {
    let addr = &options.addr;
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            cli::fail(2, NAME, format_args!("{addr} is in use; take another port with --addr HOST:PORT"))
        }
        _ => cli::fail(2, NAME, format_args!("cannot listen on {addr}: {error}")),
    }
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
//     type quit to stop
//     127.0.0.1:53004 connected (1 now)
//     127.0.0.1:53004 left: echoed 6 bytes, closed by the client (0 now)
//     quit
//     stopped
//
// Read next: `read_with` in src/net/tcp_stream.rs, then src/runtime/source.rs: try, wait, try again.
