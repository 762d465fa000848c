//! A UDP server: a green thread for each datagram, as many at once as are allowed.
//!
//! It is the machine of the TCP server with another port: what is accepted is a datagram. The kernel's queue is the
//! socket's receive buffer; when all handlers are busy nobody takes from it, and what does not fit any more is lost, as UDP
//! allows. There is no way to let nothing in any more without losing what is there, so a drain serves what it finds until it
//! finds nothing, with a bound.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use super::drain::{DrainReport, Ready, supervise};
use super::hall::{End, Port, Served, Settings, outcome_of, served_within};
use super::handle::ServerHandle;
use super::limit::Limit;
use super::tcp::Server;
use crate::net::options::Watch;
use crate::net::{ToSocketAddrs, UdpSocket};
use crate::signal::{SIGINT, SIGTERM, Signals};

/// Handlers at once, unless something else is asked for.
const MOST_HANDLERS: usize = 1024;

/// No datagram is longer.
const LONGEST: usize = 65_535;

/// A datagram that has come, and the way to answer it.
///
/// Its `Debug` shows where it is from and how long it is.
pub struct Datagram {
    /// What is in it.
    bytes: Box<[u8]>,
    /// Where it came from.
    peer: SocketAddr,
    /// Where it came to.
    socket: Rc<UdpSocket>,
}

impl Datagram {
    /// What is in it.
    ///
    /// May switch: no.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it came from.
    ///
    /// May switch: no.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The server's socket, for other things than an answer.
    ///
    /// May switch: no.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends `bytes` back to where it came from, as one datagram.
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

/// The socket as a port, and where datagrams are received.
struct UdpPort {
    /// Shared with the datagrams that are being handled.
    socket: Rc<UdpSocket>,
    /// Room for the longest; its pages are touched as far as datagrams are long. Borrowed by the acceptor while it waits, and
    /// by the drain when the acceptor is gone.
    buffer: RefCell<Box<[u8]>>,
}

impl UdpPort {
    /// A datagram of its own, out of the buffer.
    fn datagram(&self, bytes: &[u8], peer: SocketAddr) -> Datagram {
        Datagram { bytes: bytes.into(), peer, socket: Rc::clone(&self.socket) }
    }
}

impl Port for UdpPort {
    type Arrived = Datagram;

    fn accept(&self) -> io::Result<Datagram> {
        let mut buffer = self.buffer.borrow_mut();
        let (len, peer) = self.socket.recv_from(&mut buffer)?;
        Ok(self.datagram(&buffer[..len], peer))
    }

    fn accept_waiting(&self) -> io::Result<Datagram> {
        let mut buffer = self.buffer.borrow_mut();
        let (len, peer) = self.socket.recv_waiting(&mut buffer)?;
        Ok(self.datagram(&buffer[..len], peer))
    }

    fn has_waiting(&self) -> bool {
        self.socket.has_waiting()
    }

    fn take_no_more(&self) {}

    /// Handlers still answer through the socket, so it stays open until the last of them has dropped its datagram.
    fn close(&self) {}

    fn watch(_: &Datagram) -> Option<(RawFd, Watch)> {
        None
    }
}

/// A UDP server to be started: a socket, and what is to be done with each datagram. See [`server`](super).
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
/// [`Counters`](super::Counters) and [`DrainReport`] count datagrams where those of a TCP server count connections. No
/// datagram is idle. The port is closed when the last handler has ended.
#[must_use = "a server does nothing until `run` or `start`"]
pub struct UdpServer {
    /// Where datagrams come from.
    socket: UdpSocket,
    /// What was asked for.
    settings: Settings,
    /// How many handlers there may be at once.
    limit: Limit,
    /// What controls it.
    handle: ServerHandle,
    /// Signals that ask for a drain, if they could be had.
    signals: Option<io::Result<Signals>>,
}

impl UdpServer {
    /// A server for a socket.
    ///
    /// May switch: no.
    pub fn new(socket: UdpSocket) -> UdpServer {
        let (settings, limit, handle) = (Settings::default(), Limit::new(MOST_HANDLERS), ServerHandle::new());
        UdpServer { socket, settings, limit, handle, signals: None }
    }

    /// A server that receives what is sent to `addr`: see [`UdpSocket::bind`].
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

    /// The address it receives on.
    ///
    /// # Errors
    /// What getsockname(2) says.
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Handles at most `most` datagrams at once; 1024 by default. Others wait in the socket's receive buffer, and are lost
    /// when that is full.
    ///
    /// # Panics
    /// If `most` is 0.
    ///
    /// May switch: no.
    pub fn max_handlers(mut self, most: usize) -> UdpServer {
        self.limit = Limit::new(most);
        self
    }

    /// Bytes of stack of the handlers' threads; by default [`hub::default_stack_size`](crate::hub::default_stack_size).
    ///
    /// May switch: no.
    pub fn stack_size(mut self, bytes: usize) -> UdpServer {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// A handler may take so long at most; then it is unwound, as by [`timeout`](crate::timeout). No limit by default.
    ///
    /// May switch: no.
    pub fn total_timeout(mut self, limit: Duration) -> UdpServer {
        self.settings.total = Some(limit);
        self
    }

    /// How long a drain lets handlers go on; 5 seconds by default.
    ///
    /// May switch: no.
    pub fn grace(mut self, grace: Duration) -> UdpServer {
        self.settings.grace = grace;
        self
    }

    /// Is controlled by `handle`, with all other servers that are.
    ///
    /// May switch: no.
    pub fn handle(mut self, handle: &ServerHandle) -> UdpServer {
        self.handle = handle.clone();
        self
    }

    /// As [`TcpServer::drain_on_signals`](super::TcpServer::drain_on_signals).
    ///
    /// May switch: no.
    pub fn drain_on_signals(self) -> UdpServer {
        self.drain_on([SIGTERM, SIGINT])
    }

    /// As [`TcpServer::drain_on`](super::TcpServer::drain_on).
    ///
    /// May switch: no.
    pub fn drain_on(mut self, signals: impl IntoIterator<Item = i32>) -> UdpServer {
        self.signals = Some(Signals::new(signals));
        self
    }

    /// Runs the server in the calling thread, until somebody drains it: its handle, a signal, or a socket that fails.
    ///
    /// # Errors
    /// As [`TcpServer::run`](super::TcpServer::run).
    ///
    /// # Panics
    /// As [`TcpServer::run`](super::TcpServer::run).
    ///
    /// May switch: yes.
    pub fn run<H, R>(self, handler: H) -> io::Result<DrainReport>
    where
        H: Fn(Datagram) -> R + 'static,
        R: Served + 'static,
    {
        supervise(self.ready()?, serve(handler))
    }

    /// Runs the server in a green thread of its own.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// May switch: no.
    pub fn start<H, R>(self, handler: H) -> io::Result<Server>
    where
        H: Fn(Datagram) -> R + 'static,
        R: Served + 'static,
    {
        let (addr, handle) = (self.local_addr()?, self.handle.clone());
        let ready = self.ready()?;
        Server::start(handle, addr, move || supervise(ready, serve(handler)))
    }

    /// Everything checked.
    fn ready(self) -> io::Result<Ready<UdpPort>> {
        let UdpServer { socket, settings, limit, handle, signals } = self;
        settings.check()?;
        let buffer = RefCell::new(vec![0; LONGEST].into_boxed_slice());
        let port = UdpPort { socket: Rc::new(socket), buffer };
        Ok(Ready { port, settings, limit, handle, signals: signals.transpose()? })
    }
}

impl fmt::Debug for UdpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpServer").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Calls the handler of a datagram within its limit.
fn serve<H, R>(handler: H) -> impl Fn(Datagram, &Settings) -> End
where
    H: Fn(Datagram) -> R,
    R: Served,
{
    move |datagram, settings| served_within(settings.total, || outcome_of(handler(datagram), false))
}
