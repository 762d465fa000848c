//! A TCP server of several hubs: one hub accepts, and each connection goes to the hub with the fewest.
//!
//! ```text
//!   the caller's hub                                   each of the hubs
//!     `run`: a server with a Front as its listener       a server with a Mailbox as its listener
//!        accept, a place in the limit                      accept: take from the slot's queue
//!        hand over ------------- Balance ------------->    a thread, a Conn, a ConnPermit with the Ticket
//!     Crew: one thread waits for the end of each          supervisor, drain, report: those of one hub
//! ```
//!
//! So each hub has a whole server of its own: what holds for connections, kills, names and the drain in one hub, holds
//! in each. The drain of the front serves the kernel's queue, closes the port, and stops feeding; only then does an
//! empty queue of a slot end the drain of its hub. A hub that ends closes its slot: by the drop of its server's
//! `Running`, or, if its OS thread has ended without, by the thread of the crew that waits for it.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::balance::{Balance, Handed, Taken, Ticket};
use super::connections::{HandOver, Kind, Listener};
use super::drain::{DrainReport, ServerParts, supervise};
use super::handle::{Command, Member, ServerHandle};
use super::limit::Limit;
use super::served::{HandlerResult, Served};
use super::settings::{Callbacks, Settings};
use super::tcp::{Server, TcpServer, serve};
use crate::hub::{HubHandle, RemoteJoinHandle};
use crate::net::options::StageView;
use crate::net::{TcpListener, TcpStream};
use crate::runtime::caller::Caller;
use crate::runtime::remote::Waiter;
use crate::switch::root::{Root, try_root};
use crate::sys::clock::{NEVER, after, monotonic_ns};
use crate::thread::{Builder, JoinHandle, own_thread_locals_supported, sleep};

/// How long the drained server waits for a hub that has been asked to end, and does not turn: a thread computes there.
const UNRESPONSIVE: Duration = Duration::from_secs(10);

/// How often the crew looks whether a hub without a server has ended, at first.
const MIN_LOOK: Duration = Duration::from_millis(1);

/// How often the crew looks in the end.
const MAX_LOOK: Duration = Duration::from_secs(1);

/// The listener of the hub that accepts: hands connections over.
struct Front {
    /// Where connections come from.
    listener: TcpListener,
    /// Chooses the hubs that they go to.
    balance: Arc<Balance>,
}

impl Listener for Front {
    type Incoming = Handed;
    type Place = ();

    fn accept(&self) -> io::Result<Handed> {
        self.listener.accept_fd().map(|(fd, peer)| Handed { fd, peer })
    }

    fn try_accept(&self) -> io::Result<Handed> {
        self.listener.accept_pending_fd().map(|(fd, peer)| Handed { fd, peer })
    }

    fn has_pending(&self) -> bool {
        Listener::has_pending(&self.listener)
    }

    fn stop_queueing(&self) {
        Listener::stop_queueing(&self.listener);
    }

    fn close(&self) {
        Listener::close(&self.listener);
        self.balance.stop_feeding();
    }

    fn name() -> &'static str {
        <TcpListener as Listener>::name()
    }

    fn local(&self) -> Option<SocketAddr> {
        self.balance.local
    }

    fn peer(handed: &Handed) -> SocketAddr {
        handed.peer
    }

    fn stage_view(_: &Handed) -> Option<(RawFd, StageView)> {
        None
    }

    fn place(_: &mut Handed) {}

    fn begin(&self, member: &Arc<Member>) {
        self.balance.begin_front(member);
    }

    fn hand_over(&self, handed: Handed) -> HandOver<Handed> {
        match self.balance.hand_over(handed) {
            Ok(()) => HandOver::Gone,
            Err(handed) => HandOver::NoHub(handed),
        }
    }

    fn elsewhere(&self) -> usize {
        self.balance.load()
    }

    fn is_cut_off(&self) -> bool {
        self.balance.is_cut_off()
    }

    fn on_exit(&self, waiter: Option<Waiter>) -> bool {
        self.balance.on_exit(waiter)
    }

    fn take_errors(&self) -> Vec<io::Error> {
        self.balance.take_errors()
    }
}

/// A connection that a hub has taken.
struct Arrived {
    /// The connection, as a stream of this hub.
    stream: TcpStream,
    /// The address of the client.
    peer: SocketAddr,
    /// What counts the connection, until a permit does. After the stream, so that the drop comes after the stream's
    /// (server-2).
    ticket: Option<Ticket>,
}

/// The listener of one of the hubs: takes what is handed over.
struct Mailbox {
    /// Where connections come from.
    balance: Arc<Balance>,
    /// The slot of the hub.
    index: usize,
    /// The place in the program that started the server.
    site: &'static Location<'static>,
}

impl Mailbox {
    /// Takes a connection, if there is one. If not, `waiter` is woken by the next one.
    fn take(&self, waiter: Option<Waiter>) -> Taken {
        // A hub that unwinds its threads starts no handler: what is there is left to the other hubs.
        if try_root().is_none_or(Root::closing) {
            return Taken::Closed;
        }
        self.balance.take(self.index, waiter)
    }

    /// Makes a stream of a connection that was taken.
    fn arrived(&self, Handed { fd, peer }: Handed, ticket: Ticket) -> Arrived {
        Arrived { stream: TcpStream::of_new_socket(fd).made_at(self.site), peer, ticket: Some(ticket) }
    }
}

impl Listener for Mailbox {
    type Incoming = Arrived;
    type Place = Option<Ticket>;

    fn accept(&self) -> io::Result<Arrived> {
        loop {
            let caller = Caller::current()?;
            match self.take(Some(Waiter::new(caller))) {
                Taken::One(handed, ticket) => return Ok(self.arrived(handed, ticket)),
                Taken::Closed => return Err(closed()),
                Taken::Nothing => drop(caller.wait_remote("a connection that another hub accepts", NEVER)?),
            }
        }
    }

    fn try_accept(&self) -> io::Result<Arrived> {
        match self.take(None) {
            Taken::One(handed, ticket) => Ok(self.arrived(handed, ticket)),
            Taken::Closed => Err(closed()),
            Taken::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn has_pending(&self) -> bool {
        self.balance.has_pending(self.index)
    }

    fn stop_queueing(&self) {
        self.balance.begin_drain(self.index);
    }

    fn close(&self) {
        self.balance.close(self.index);
    }

    fn name() -> &'static str {
        <TcpListener as Listener>::name()
    }

    fn local(&self) -> Option<SocketAddr> {
        self.balance.local
    }

    fn peer(arrived: &Arrived) -> SocketAddr {
        arrived.peer
    }

    fn stage_view(arrived: &Arrived) -> Option<(RawFd, StageView)> {
        Some((arrived.stream.as_raw_fd(), arrived.stream.stage_view()))
    }

    fn place(arrived: &mut Arrived) -> Option<Ticket> {
        arrived.ticket.take()
    }

    fn begin(&self, member: &Arc<Member>) {
        self.balance.begin(self.index, member);
    }

    fn command(&self) -> Command {
        self.balance.command()
    }

    fn is_fed(&self) -> bool {
        self.balance.is_fed()
    }

    fn give_back(&self, Arrived { stream, peer, ticket }: Arrived) {
        let handed = Handed { fd: stream.into_new_socket(), peer };
        if let Some(ticket) = ticket {
            self.balance.give_back(handed, ticket);
        }
    }
}

/// Returns the error of a slot that is closed.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the hub takes no more connections of its server")
}

/// One hub's part of a server, on its way there.
struct Part<H> {
    /// Where connections come from.
    mailbox: Mailbox,
    /// What the builder was told.
    settings: Settings,
    /// The handle of the whole server.
    handle: ServerHandle,
    /// Serves a connection; shared by the hubs.
    handler: Arc<H>,
    /// Whether the connections' threads have thread-locals of their own.
    own: bool,
}

impl<H> Part<H> {
    /// Runs the part to its end, on its hub.
    fn run<R>(self) -> io::Result<DrainReport>
    where
        H: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        let Part { mailbox, settings, handle, handler, own } = self;
        // What the program wants to be told, it is told by the hub that accepts.
        let balance = Arc::clone(&mailbox.balance);
        let on_accept_error = Some(Box::new(move |error: &io::Error| balance.report(error)) as Box<_>);
        let callbacks = Callbacks { on_accept_error, on_drain: None };
        // The limit of the whole server is behind the tickets.
        let (limit, site) = (Limit::new(usize::MAX), mailbox.site);
        let parts = ServerParts { listener: mailbox, settings, callbacks, limit, handle, signals: None, site };
        let serve = move |Arrived { stream, peer, .. }: Arrived, settings: &Settings| {
            serve(&*handler, (stream, peer), settings)
        };
        supervise(parts, if own { Kind::own() } else { Kind::light() }, serve)
    }
}

/// How the part of a hub has ended.
enum PartEnd {
    /// The drain was over, and this is its report.
    Drained(DrainReport),
    /// Its hub ended, or had no stack for it.
    Lost,
}

/// The parts of a server, as the hub that accepts sees them. The drop ends them without grace.
struct Crew {
    /// What the parts share.
    balance: Arc<Balance>,
    /// The handle of the whole server.
    handle: ServerHandle,
    /// How the parts have ended, so far.
    ends: Rc<RefCell<Vec<Option<PartEnd>>>>,
    /// A thread for each part, which waits for its end.
    watchers: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts a part on each of the hubs, and a thread here that waits for its end.
    ///
    /// # Errors
    /// If there is no stack for such a thread.
    fn start<H, R>(parts: &ServerParts<Front>, hubs: Vec<HubHandle>, handler: &Arc<H>, own: bool) -> io::Result<Crew>
    where
        H: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        let balance = Arc::clone(&parts.listener.balance);
        let ends = Rc::new(RefCell::new(hubs.iter().map(|_| None).collect()));
        // From here on an error ends what was started.
        let mut crew = Crew { balance, handle: parts.handle.clone(), ends, watchers: Vec::new() };
        for (index, hub) in hubs.into_iter().enumerate() {
            let mailbox = Mailbox { balance: Arc::clone(&crew.balance), index, site: parts.site };
            let (settings, handle, handler) = (parts.settings, parts.handle.clone(), Arc::clone(handler));
            let part = Part { mailbox, settings, handle, handler, own };
            let end = hub.spawn_at(parts.site, move || part.run());
            let watcher = crew.watcher(index);
            let name = format!("server on hub {index}");
            crew.watchers.push(Builder::new().name(name).at(parts.site).spawn(move || watcher.watch(end))?);
        }
        Ok(crew)
    }

    /// Makes what the thread that waits for a part needs.
    fn watcher(&self, index: usize) -> Watcher {
        let (balance, handle, ends) = (Arc::clone(&self.balance), self.handle.clone(), Rc::clone(&self.ends));
        Watcher { balance, handle, ends, index }
    }

    /// Waits for the ends of the parts, after the front has ended with `report`, and makes the report of all.
    ///
    /// # Errors
    /// If the caller unwinds.
    fn end(self, mut report: DrainReport) -> io::Result<DrainReport> {
        // Connections are done, or their grace is over.
        let (began, deadline) = (monotonic_ns(), after(UNRESPONSIVE));
        self.balance.give(Command::Force);
        let caller = Caller::current()?;
        while self.ends.borrow().iter().any(Option::is_none) && monotonic_ns() < deadline {
            caller.wait_remote("the hubs of a server to end", deadline)?;
        }
        // What the front itself has refused, or finds astray, came from the queue.
        let strays = self.balance.refuse_strays();
        if let Some(front) = self.balance.front() {
            front.counters.accepted.add(strays);
            front.counters.refused.add(strays);
        }
        report.turned_away += strays;
        (report.active_at_start, report.from_backlog) = (0, report.turned_away);
        for (index, end) in self.ends.borrow().iter().enumerate() {
            self.add_part(index, end.as_ref(), &mut report);
        }
        if report.lost_hubs == self.ends.borrow().len() as u64 {
            report.accept_error.get_or_insert(io::ErrorKind::NotConnected);
        }
        report.counters = self.balance.counters();
        report.took += Duration::from_nanos(monotonic_ns().saturating_sub(began));
        Ok(report)
    }

    /// Adds the figures of one hub to a report.
    fn add_part(&self, index: usize, end: Option<&PartEnd>, report: &mut DrainReport) {
        match end {
            Some(PartEnd::Drained(part)) => {
                report.active_at_start += part.active_at_start;
                report.from_backlog += part.from_backlog;
                report.finished += part.finished;
                report.closed_idle += part.closed_idle;
                report.killed += part.killed;
                report.stuck += part.stuck;
                report.turned_away += part.turned_away;
                return;
            }
            Some(PartEnd::Lost) => report.lost_hubs += 1,
            None => {}
        }
        // What such a hub still has goes on without the server.
        let left = self.balance.load_of(index) as u64;
        report.active_at_start += left;
        report.stuck += left;
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.balance.give(Command::Force);
        // A thread that is left gives up what an ended hub has, as long as there is any: it ends by itself.
        self.watchers.drain(..).for_each(drop);
    }
}

/// What the thread that waits for the end of a part has.
struct Watcher {
    /// What the parts share.
    balance: Arc<Balance>,
    /// The handle of the whole server.
    handle: ServerHandle,
    /// How the parts have ended, so far.
    ends: Rc<RefCell<Vec<Option<PartEnd>>>>,
    /// The slot of the part.
    index: usize,
}

impl Watcher {
    /// Waits for the end of the part, notes it, and gives up what an ended hub cannot end.
    fn watch(self, part: RemoteJoinHandle<io::Result<DrainReport>>) {
        let end = match part.join() {
            Ok(Ok(report)) => PartEnd::Drained(report),
            Ok(Err(_)) | Err(_) => PartEnd::Lost,
        };
        let lost = matches!(end, PartEnd::Lost);
        // The hub may have ended without a drop: then its queue is still there.
        self.balance.close(self.index);
        if lost {
            self.write_off_what_ended();
        }
        self.ends.borrow_mut()[self.index] = Some(end);
        if let Some(front) = self.balance.front() {
            front.supervisor.wake();
        }
    }

    /// Waits until the connections of a lost hub have ended, or the hub has: then they are not counted any more.
    fn write_off_what_ended(&self) {
        let Some(member) = self.balance.member(self.index) else { return };
        let mut pause = MIN_LOOK;
        while self.balance.load_of(self.index) > 0 && !member.supervisor.is_gone() {
            sleep(pause);
            pause = MAX_LOOK.min(2 * pause);
        }
        let killed = self.balance.write_off(self.index);
        if let Some(front) = self.balance.front() {
            front.counters.killed.add(killed);
        }
        // An ended hub cannot do it.
        self.handle.unregister(&member);
    }
}

/// A TCP server of several hubs: one hub accepts, and each connection is served by the hub that has the fewest. Made by
/// [`TcpServer::hubs`].
///
/// ```
/// use std::io::{Read, Write};
/// use greenling::net::TcpStream;
/// use greenling::server::TcpServer;
/// use greenling::{Hubs, hub};
///
/// // Two more hubs, which live until `stop` is dropped.
/// let (stop, stopped) = hub::channel::<()>(None);
/// let hubs = Hubs::new(2).start(move |_| _ = stopped.recv())?;
///
/// let server = TcpServer::bind("127.0.0.1:0")?
///     .max_connections(10_000)                    // of all hubs together
///     .hubs([hub::handle(), hubs.handle(0), hubs.handle(1)])
///     .start(|mut stream, _peer| {
///         let name = std::thread::current().name().map(String::from);
///         stream.write_all(name.unwrap_or_default().as_bytes())
///     })?;
/// let mut names: Vec<String> = Vec::new();
/// for _ in 0..6 {
///     let mut name = String::new();
///     TcpStream::connect(server.local_addr())?.read_to_string(&mut name)?;
///     names.push(name);
/// }
/// names.sort();
/// names.dedup();
/// assert_eq!(names.len(), 3); // the three OS threads
/// let report = server.drain().unwrap(); // of all hubs together
/// assert_eq!(report.counters.completed, 6);
/// drop(stop);
/// hubs.join();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # When
///
/// With a listener for each hub ([`TcpListener::bind_reuse_port`]) the kernel chooses the hub by a hash of the
/// addresses. That costs nothing, and is fair with thousands of short connections. With few connections that last, one
/// hub may have twice as many as another, and a connection never moves. Here the hubs differ by one at most as long as
/// connections only come, and a hub of which connections have ended gets the next ones. The price: the hub that
/// accepts has work with each connection, which goes to another hub by the remote queue.
///
/// # What holds
///
/// All that [`server`](super) says, over all hubs together: limit, counters, refusals, time limits, the drain and its
/// report, signals, names of threads. In the report the drain of each hub begins when the hub hears of it, and what is
/// on the way to a hub then counts as from the queue. The [callbacks](TcpServer::on_accept_error) are called on the hub
/// that accepts; the stack size and the time limits hold on each. Of several hubs with equally many connections each
/// has its turn. A connection counts for its hub from the moment of the choice until its handler has ended in whatever
/// way. A hub that is named twice has two shares. Hubs that are not named serve nothing, the caller's neither.
///
/// **A hub that ends** before the server loses nothing that it has not begun: those connections go to the other hubs,
/// or, if none is left, are closed and reported as [`turned_away`](DrainReport::turned_away). Handlers that it has
/// started are killed, or given up with the stacks of the hub; they are counted as killed, and hold no place in the
/// limit any more. [`DrainReport::lost_hubs`] says how many hubs there were. When all have ended the server ends, with
/// [`accept_error`](DrainReport::accept_error) `NotConnected`. A hub on which a thread computes serves nothing
/// meanwhile, and what it was given waits; a drain waits for it ten seconds longer than the grace, then reports its
/// connections as [`stuck`](DrainReport::stuck).
///
/// The server's parts keep no hub alive: let the mains of the hubs wait until the server has ended.
#[doc(alias = "least_conn")]
#[doc(alias = "load balancing")]
#[must_use = "a server does nothing until `run` or `start`"]
pub struct BalancedServer {
    /// The server of the hub that accepts.
    server: TcpServer,
    /// The hubs that serve.
    hubs: Vec<HubHandle>,
}

impl TcpServer {
    /// Serves the connections on `hubs`: the calling hub accepts, and each connection goes to the hub that has the
    /// fewest. See [`BalancedServer`]. The last call of the builder before `run` or `start`.
    ///
    /// May switch: no.
    pub fn hubs(self, hubs: impl IntoIterator<Item = HubHandle>) -> BalancedServer {
        BalancedServer { server: self, hubs: hubs.into_iter().collect() }
    }
}

impl BalancedServer {
    /// Returns the address that the server listens on.
    ///
    /// # Errors
    /// The error of getsockname(2).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// Runs the server in the calling thread, and on the hubs, until a drain ends on all of them. The handler is shared
    /// by the hubs, and called on each; what it makes there need not be `Send`.
    ///
    /// ```compile_fail,E0277
    /// # use greenling::{hub, server::TcpServer};
    /// let count = std::cell::Cell::new(1);
    /// let server = TcpServer::bind("127.0.0.1:0").unwrap().hubs([hub::handle()]).run(move |_, _| count.set(2));
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if there is no hub. Otherwise as [`TcpServer::run`].
    ///
    /// # Panics
    /// As [`TcpServer::run`]: a kill of the caller kills the handlers on all hubs.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn run<H, R>(self, handler: H) -> io::Result<DrainReport>
    where
        H: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        let (parts, hubs) = self.into_parts()?;
        supervise_crew(parts, hubs, handler, false)
    }

    /// Runs the server as [`run`](Self::run) does, with a handler that is called in threads with thread-locals of their
    /// own; see [`TcpServer::run_own`].
    ///
    /// # Errors
    /// As [`run`](Self::run) and [`TcpServer::run_own`].
    ///
    /// # Panics
    /// As [`run`](Self::run).
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn run_own<H, R>(self, handler: H) -> io::Result<DrainReport>
    where
        H: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        own_thread_locals_supported()?;
        let (parts, hubs) = self.into_parts()?;
        supervise_crew(parts, hubs, handler, true)
    }

    /// Runs the server in a green thread of its own.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// May switch: no.
    #[track_caller]
    pub fn start<H, R>(self, handler: H) -> io::Result<Server>
    where
        H: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        self.start_kind(handler, false)
    }

    /// Starts the server with a handler that is called in threads with thread-locals of their own; see
    /// [`TcpServer::start_own`].
    ///
    /// # Errors
    /// As [`run_own`](Self::run_own).
    ///
    /// May switch: no.
    #[track_caller]
    pub fn start_own<H, R>(self, handler: H) -> io::Result<Server>
    where
        H: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        own_thread_locals_supported()?;
        self.start_kind(handler, true)
    }

    /// Starts the server; `own`: the connections' threads have thread-locals of their own.
    #[track_caller]
    fn start_kind<H, R>(self, handler: H, own: bool) -> io::Result<Server>
    where
        H: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        // What can fail fails here, not in the thread.
        let addr = self.local_addr()?;
        let (parts, hubs) = self.into_parts()?;
        let handle = parts.handle.clone();
        Server::start(handle, addr, parts.site, move || supervise_crew(parts, hubs, handler, own))
    }

    /// Checks what the builder was told, and makes what the hubs share.
    #[track_caller]
    fn into_parts(self) -> io::Result<(ServerParts<Front>, Vec<HubHandle>)> {
        if self.hubs.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a server of no hubs"));
        }
        let ServerParts { listener, settings, callbacks, limit, handle, signals, site } = self.server.into_parts()?;
        let balance = Arc::new(Balance::new(self.hubs.len(), limit.clone(), Listener::local(&listener)));
        let listener = Front { listener, balance };
        Ok((ServerParts { listener, settings, callbacks, limit, handle, signals, site }, self.hubs))
    }
}

impl fmt::Debug for BalancedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hubs = self.hubs.len();
        f.debug_struct("BalancedServer").field("server", &self.server).field("hubs", &hubs).finish_non_exhaustive()
    }
}

/// Runs a server of several hubs to its end.
fn supervise_crew<H, R>(
    parts: ServerParts<Front>,
    hubs: Vec<HubHandle>,
    handler: H,
    own: bool,
) -> io::Result<DrainReport>
where
    H: Fn(TcpStream, SocketAddr) -> R + Send + Sync + 'static,
    R: Served + 'static,
{
    // From here on every way out ends the parts.
    let crew = Crew::start(&parts, hubs, &Arc::new(handler), own)?;
    let unused = |_: Handed, _: &Settings| HandlerResult::Failed;
    let report = supervise(parts, Kind::none(), unused)?;
    crew.end(report)
}
