//! A UDP server: a green thread for each datagram, as many at once as are allowed.
//!
//! The machine is that of the TCP server with another listener: what is accepted is a datagram. The kernel's queue is
//! the socket's receive buffer. When all handlers are busy nothing is taken from the buffer, and what does not fit
//! any more is lost, as UDP allows. There is no way to close the buffer for new datagrams without losing what is
//! there, so a drain serves what the buffer holds until it is empty, with a bound.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use super::connections::{Kind, Listener};
use super::drain::{DrainReport, ServerParts, supervise};
use super::handle::ServerHandle;
use super::limit::Limit;
use super::served::{HandlerResult, Served, outcome_of, served_within};
use super::settings::{Callbacks, Settings};
use super::tcp::Server;
use crate::net::options::StageView;
use crate::net::{ToSocketAddrs, UdpSocket};
use crate::signal::{SIGINT, SIGTERM, Signals};
use crate::thread::own_thread_locals_supported;

/// The default limit on handlers that run at once.
const DEFAULT_MAX_HANDLERS: usize = 1024;

/// The length of the longest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// A datagram that was received, and the way to answer it.
///
/// Its `Debug` shows the sender's address and the length.
pub struct Datagram {
    /// The bytes that were received.
    bytes: Box<[u8]>,
    /// The address of the sender.
    peer: SocketAddr,
    /// The socket that received the datagram.
    socket: Rc<UdpSocket>,
}

impl Datagram {
    /// Returns the bytes that were received.
    ///
    /// May switch: no.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the address of the sender.
    ///
    /// May switch: no.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the server's socket, for other things than an answer.
    ///
    /// May switch: no.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends `bytes` back to the sender, as one datagram.
    ///
    /// # Errors
    /// Those of [`UdpSocket::send_to`].
    ///
    /// # Panics
    /// Those of [`UdpSocket::send_to`].
    ///
    /// May switch: yes, if the send buffer is full.
    pub fn reply(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, self.peer).map(drop)
    }
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram").field("peer", &self.peer).field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// A socket of which each datagram counts as a connection, and the buffer that receives them.
struct UdpListener {
    /// Shared with the datagrams that are being handled.
    socket: Rc<UdpSocket>,
    /// Room for the longest datagram; pages are touched only as far as datagrams are long. Borrowed by the acceptor
    /// while it waits, and by the drain when the acceptor is gone.
    buffer: RefCell<Box<[u8]>>,
}

impl UdpListener {
    /// Copies a datagram out of the buffer.
    fn datagram(&self, bytes: &[u8], peer: SocketAddr) -> Datagram {
        Datagram { bytes: bytes.into(), peer, socket: Rc::clone(&self.socket) }
    }
}

impl Listener for UdpListener {
    type Incoming = Datagram;
    type Place = ();

    fn accept(&self) -> io::Result<Datagram> {
        let mut buffer = self.buffer.borrow_mut();
        let (len, peer) = self.socket.recv_from(&mut buffer)?;
        Ok(self.datagram(&buffer[..len], peer))
    }

    fn try_accept(&self) -> io::Result<Datagram> {
        let mut buffer = self.buffer.borrow_mut();
        let (len, peer) = self.socket.recv_pending(&mut buffer)?;
        Ok(self.datagram(&buffer[..len], peer))
    }

    fn has_pending(&self) -> bool {
        self.socket.has_pending()
    }

    /// Does nothing: the kernel has no such call for datagrams.
    fn stop_queueing(&self) {}

    /// Does nothing: handlers still answer through the socket, which stays open until the last datagram is dropped.
    fn close(&self) {}

    fn name() -> &'static str {
        "udp"
    }

    fn local(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    fn peer(datagram: &Datagram) -> SocketAddr {
        datagram.peer
    }

    fn stage_view(_: &Datagram) -> Option<(RawFd, StageView)> {
        None
    }

    fn place(_: &mut Datagram) {}
}

/// A UDP server to be started: a socket, and how its datagrams are handled. See [`server`](super).
///
/// ```
/// use greenling::net::UdpSocket;
/// use greenling::server::UdpServer;
///
/// let server = UdpServer::bind("127.0.0.1:0")?.start(|datagram| datagram.reply(datagram.bytes()))?;
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"echo", server.local_addr())?;
/// let mut buf = [0; 16];
/// assert_eq!(client.recv(&mut buf)?, 4);
/// let report = server.drain().unwrap();
/// assert_eq!(report.counters.completed, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// [`Counters`](super::Counters) and [`DrainReport`] count datagrams where those of a TCP server count connections. A
/// datagram is never idle. The port is closed when the last handler has ended.
#[doc(alias = "DatagramServer")]
#[must_use = "a server does nothing until `run` or `start`"]
pub struct UdpServer {
    /// Where datagrams come from.
    socket: UdpSocket,
    /// What the builder was told.
    settings: Settings,
    /// The limit on handlers that run at once.
    limit: Limit,
    /// The handle that controls the server.
    handle: ServerHandle,
    /// The signals that ask for a drain, or why they cannot be held.
    signals: Option<io::Result<Signals>>,
}

impl UdpServer {
    /// Creates a server for a socket.
    ///
    /// May switch: no.
    pub fn new(socket: UdpSocket) -> UdpServer {
        let (settings, limit, handle) = (Settings::default(), Limit::new(DEFAULT_MAX_HANDLERS), ServerHandle::new());
        UdpServer { socket, settings, limit, handle, signals: None }
    }

    /// Creates a server that receives what is sent to `addr`: see [`UdpSocket::bind`].
    ///
    /// # Errors
    /// Those of [`UdpSocket::bind`].
    ///
    /// # Panics
    /// Those of [`UdpSocket::bind`].
    ///
    /// May switch: yes, if a name has to be looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpServer> {
        Ok(UdpServer::new(UdpSocket::bind(addr)?))
    }

    /// Returns the address that the server receives on.
    ///
    /// # Errors
    /// The error of getsockname(2).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Handles at most `most` datagrams at once; 1024 by default. Further ones wait in the socket's receive buffer,
    /// and are lost when the buffer is full.
    ///
    /// # Panics
    /// If `most` is 0.
    ///
    /// May switch: no.
    pub fn max_handlers(mut self, most: usize) -> UdpServer {
        self.limit = Limit::new(most);
        self
    }

    /// Sets the stack size of the handlers' threads in bytes; by default
    /// [`hub::default_stack_size`](crate::hub::default_stack_size).
    ///
    /// May switch: no.
    pub fn stack_size(mut self, bytes: usize) -> UdpServer {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// Limits the time that a handler may take; then the handler is unwound, as by [`timeout`](crate::timeout). No
    /// limit by default.
    ///
    /// May switch: no.
    pub fn total_timeout(mut self, limit: Duration) -> UdpServer {
        self.settings.total = Some(limit);
        self
    }

    /// Sets how long a drain lets handlers go on; 5 seconds by default.
    ///
    /// May switch: no.
    pub fn grace(mut self, grace: Duration) -> UdpServer {
        self.settings.grace = grace;
        self
    }

    /// Puts the server under the control of `handle`, with all other servers of that handle.
    ///
    /// May switch: no.
    pub fn handle(mut self, handle: &ServerHandle) -> UdpServer {
        self.handle = handle.clone();
        self
    }

    /// Drains the server on SIGTERM and SIGINT, as
    /// [`TcpServer::drain_on_signals`](super::TcpServer::drain_on_signals).
    ///
    /// May switch: no.
    pub fn drain_on_signals(self) -> UdpServer {
        self.drain_on([SIGTERM, SIGINT])
    }

    /// Drains the server on other signals, as [`TcpServer::drain_on`](super::TcpServer::drain_on).
    ///
    /// May switch: no.
    pub fn drain_on(mut self, signals: impl IntoIterator<Item = i32>) -> UdpServer {
        self.signals = Some(Signals::new(signals));
        self
    }

    /// Runs the server in the calling thread until a drain ends: asked for by the handle or a signal, or due because
    /// the socket fails.
    ///
    /// # Errors
    /// As [`TcpServer::run`](super::TcpServer::run).
    ///
    /// # Panics
    /// As [`TcpServer::run`](super::TcpServer::run).
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn run<H, R>(self, handler: H) -> io::Result<DrainReport>
    where
        H: Fn(Datagram) -> R + 'static,
        R: Served + 'static,
    {
        supervise(self.into_parts()?, Kind::light(), serve(handler))
    }

    /// Runs the server with a handler that is called in threads with thread-locals of their own; see
    /// [`TcpServer::run_own`](super::TcpServer::run_own).
    ///
    /// # Errors
    /// As [`TcpServer::run_own`](super::TcpServer::run_own).
    ///
    /// # Panics
    /// As [`TcpServer::run`](super::TcpServer::run).
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn run_own<H, R>(self, handler: H) -> io::Result<DrainReport>
    where
        H: Fn(Datagram) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        own_thread_locals_supported()?;
        supervise(self.into_parts()?, Kind::own(), serve(handler))
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
        H: Fn(Datagram) -> R + 'static,
        R: Served + 'static,
    {
        self.start_kind(Kind::light(), serve(handler))
    }

    /// Starts the server with a handler that is called in threads with thread-locals of their own; see
    /// [`TcpServer::start_own`](super::TcpServer::start_own).
    ///
    /// ```compile_fail,E0277
    /// # use greenling::server::UdpServer;
    /// let count = std::cell::Cell::new(1);
    /// let server = UdpServer::bind("127.0.0.1:0").unwrap().start_own(move |_| count.set(2));
    /// ```
    ///
    /// # Errors
    /// As [`TcpServer::run_own`](super::TcpServer::run_own).
    ///
    /// May switch: no.
    #[track_caller]
    pub fn start_own<H, R>(self, handler: H) -> io::Result<Server>
    where
        H: Fn(Datagram) -> R + Send + Sync + 'static,
        R: Served + 'static,
    {
        own_thread_locals_supported()?;
        self.start_kind(Kind::own(), serve(handler))
    }

    /// Starts the server with threads of this kind.
    #[track_caller]
    fn start_kind<H>(self, kind: Kind<UdpListener, H>, serve: H) -> io::Result<Server>
    where
        H: Fn(Datagram, &Settings) -> HandlerResult + 'static,
    {
        let (addr, handle) = (self.local_addr()?, self.handle.clone());
        let parts = self.into_parts()?;
        Server::start(handle, addr, parts.site, move || supervise(parts, kind, serve))
    }

    /// Checks what the builder was told, and makes the buffer.
    #[track_caller]
    fn into_parts(self) -> io::Result<ServerParts<UdpListener>> {
        let UdpServer { socket, settings, limit, handle, signals } = self;
        settings.check()?;
        let buffer = RefCell::new(vec![0; MAX_DATAGRAM].into_boxed_slice());
        let listener = UdpListener { socket: Rc::new(socket), buffer };
        let (signals, site) = (signals.transpose()?, Location::caller());
        Ok(ServerParts { listener, settings, callbacks: Callbacks::default(), limit, handle, signals, site })
    }
}

impl fmt::Debug for UdpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpServer").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Returns a function that calls the handler of a datagram within its time limit.
fn serve<H, R>(handler: H) -> impl Fn(Datagram, &Settings) -> HandlerResult
where
    H: Fn(Datagram) -> R,
    R: Served,
{
    move |datagram, settings| served_within(settings.total, || outcome_of(handler(datagram), false))
}
