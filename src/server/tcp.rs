//! A TCP server: how it is set up, started, and held.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use super::drain::{DrainReport, Ready, supervise};
use super::hall::{End, Port, Served, Settings, outcome_of, served_within};
use super::handle::{Counters, ServerHandle};
use super::limit::Limit;
use crate::net::options::Watch;
use crate::net::{TcpListener, TcpStream, ToSocketAddrs};
use crate::signal::{SIGINT, SIGTERM, Signals};
use crate::thread::{Builder, JoinError, JoinHandle};

impl Port for TcpListener {
    type Arrived = (TcpStream, SocketAddr);

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self)
    }

    fn accept_waiting(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept_waiting(self)
    }

    fn has_waiting(&self) -> bool {
        TcpListener::has_waiting(self)
    }

    fn take_no_more(&self) {
        if self.is_passed() {
            // Who is in its queue is the next process's.
            return self.leave();
        }
        // It fails if the listener is the reason of the drain.
        let _ = TcpListener::take_no_more(self);
    }

    fn close(&self) {
        if self.is_passed() { self.leave() } else { TcpListener::close(self) }
    }

    fn watch((stream, _): &(TcpStream, SocketAddr)) -> Option<(RawFd, Watch)> {
        Some((stream.as_raw_fd(), stream.watch()))
    }
}

/// Calls the handler of a connection.
#[inline]
fn serve<H, R>(handler: &H, (stream, peer): (TcpStream, SocketAddr), settings: &Settings) -> End
where
    H: Fn(TcpStream, SocketAddr) -> R,
    R: Served,
{
    if settings.first_byte.is_some() || settings.idle.is_some() || settings.total.is_some() {
        return serve_within(handler, stream, peer, settings);
    }
    outcome_of(handler(stream, peer), false)
}

/// [`serve`] for a connection that has time limits.
fn serve_within<H, R>(handler: &H, stream: TcpStream, peer: SocketAddr, settings: &Settings) -> End
where
    H: Fn(TcpStream, SocketAddr) -> R,
    R: Served,
{
    let serve = || {
        if settings.first_byte.is_some()
            && let Err(error) = stream.wait_readable(settings.first_byte)
        {
            return if error.kind() == io::ErrorKind::WouldBlock { End::TimedOut } else { End::Failed };
        }
        // Neither fails on a stream that is open, and `start` has refused zero.
        let _ = stream.set_read_timeout(settings.idle);
        let _ = stream.set_write_timeout(settings.idle);
        outcome_of(handler(stream, peer), settings.idle.is_some())
    };
    served_within(settings.total, serve)
}

/// A TCP server to be started: a listener, and what is to be done with who comes. See [`server`](super).
///
/// The handler gets each connection, with the address of the other side, in a green thread of its own; the connection is
/// closed when it drops the stream, at its end at the latest.
///
/// ```
/// use std::io::{Read, Write};
/// use greenling::net::TcpStream;
/// use greenling::server::TcpServer;
///
/// let server = TcpServer::bind("127.0.0.1:0")?.max_connections(1000).start(|mut stream, _peer| {
///     let mut buf = [0; 64];
///     let len = stream.read(&mut buf)?;
///     stream.write_all(&buf[..len])
/// })?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"echo")?;
/// client.read_exact(&mut [0; 4])?;
/// let report = server.drain().unwrap();
/// assert_eq!((report.counters.completed, report.killed), (1, 0));
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a server does nothing until `run` or `start`"]
pub struct TcpServer {
    /// Where connections come from.
    listener: TcpListener,
    /// What was asked for.
    settings: Settings,
    /// How many there may be; none: any number.
    limit: Option<Limit>,
    /// What controls it.
    handle: ServerHandle,
    /// Signals that ask for a drain, if they could be had.
    signals: Option<io::Result<Signals>>,
}

impl TcpServer {
    /// A server for a listener.
    ///
    /// May switch: no.
    pub fn new(listener: TcpListener) -> TcpServer {
        TcpServer { listener, settings: Settings::default(), limit: None, handle: ServerHandle::new(), signals: None }
    }

    /// A server that listens on `addr`: see [`TcpListener::bind`]. For one of several on the same address take
    /// [`bind_reuse_port`](TcpListener::bind_reuse_port) and [`new`](Self::new).
    ///
    /// # Errors
    /// Those of [`TcpListener::bind`].
    ///
    /// # Panics
    /// Those of [`TcpListener::bind`].
    ///
    /// May switch: yes, if a name has to be looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpServer> {
        Ok(TcpServer::new(TcpListener::bind(addr)?))
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// What getsockname(2) says.
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves at most `most` connections at once. When they are there, it does not accept: the others wait in the kernel's
    /// queue, and are served as soon as one leaves. Any number by default.
    ///
    /// # Panics
    /// If `most` is 0.
    pub fn max_connections(self, most: usize) -> TcpServer {
        self.limit(&Limit::new(most))
    }

    /// [`max_connections`](Self::max_connections), for all servers together that are given this limit.
    pub fn limit(mut self, limit: &Limit) -> TcpServer {
        self.limit = Some(limit.clone());
        self
    }

    /// Accepts at most `budget` connections before others have their turn; 64 by default.
    ///
    /// # Panics
    /// If `budget` is 0.
    pub fn accept_budget(mut self, budget: u32) -> TcpServer {
        assert_ne!(budget, 0, "an accept budget of 0: the server would accept nobody");
        self.settings.accept_budget = budget;
        self
    }

    /// Bytes of stack of the handlers' threads; by default [`hub::default_stack_size`](crate::hub::default_stack_size).
    pub fn stack_size(mut self, bytes: usize) -> TcpServer {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// A client has so long to send its first byte; the handler is called when it is there (or the end of the stream), and
    /// not called for who sends nothing. Not for protocols in which the server speaks first. No limit by default.
    pub fn first_byte_timeout(mut self, limit: Duration) -> TcpServer {
        self.settings.first_byte = Some(limit);
        self
    }

    /// Each read and each write of the handler waits so long at most, and then fails with `WouldBlock`. It is the stream's
    /// [`set_read_timeout`](TcpStream::set_read_timeout) and [`set_write_timeout`](TcpStream::set_write_timeout), set before
    /// the handler is called; it costs a store for each wait. No limit by default.
    pub fn idle_timeout(mut self, limit: Duration) -> TcpServer {
        self.settings.idle = Some(limit);
        self
    }

    /// A connection lasts so long at most; then its handler is unwound, as by [`timeout`](crate::timeout). No limit by
    /// default. Under `panic = "abort"` no connection can be served with it.
    pub fn total_timeout(mut self, limit: Duration) -> TcpServer {
        self.settings.total = Some(limit);
        self
    }

    /// How long a drain lets connections go on; 5 seconds by default, and zero kills them at once.
    pub fn grace(mut self, grace: Duration) -> TcpServer {
        self.settings.grace = grace;
        self
    }

    /// Whether a drain closes connections that wait for their next request; so by default. Say no where there are no
    /// requests and answers, as in a chat or a proxy: then everybody may go on until the grace ends.
    pub fn close_idle(mut self, close: bool) -> TcpServer {
        self.settings.close_idle = close;
        self
    }

    /// What happens when there are no descriptors left. By default clients wait in the kernel's queue until there are; with
    /// `true` they are closed at once, one after the other, by means of a descriptor that is kept in reserve for this.
    pub fn refuse_when_exhausted(mut self, refuse: bool) -> TcpServer {
        self.settings.refuse = refuse;
        self
    }

    /// Calls `tell` each time accepting is put off since there are no descriptors or no memory. It must not take long.
    pub fn on_accept_error(mut self, tell: impl Fn(&io::Error) + 'static) -> TcpServer {
        self.settings.on_accept_error = Some(Box::new(tell));
        self
    }

    /// Calls `tell` once when a drain has begun and the kernel's queue was taken over, as far as there is room, with the
    /// number of connections that are there then. It must not take long.
    pub fn on_drain(mut self, tell: impl Fn(usize) + 'static) -> TcpServer {
        self.settings.on_drain = Some(Box::new(move |count| tell(*count)));
        self
    }

    /// Is controlled by `handle`, with all other servers that are.
    pub fn handle(mut self, handle: &ServerHandle) -> TcpServer {
        self.handle = handle.clone();
        self
    }

    /// SIGTERM and Ctrl-C (SIGINT) drain it, and all other servers of its handle; a second one kills at once who is still
    /// served. See [`drain_on`](Self::drain_on).
    pub fn drain_on_signals(self) -> TcpServer {
        self.drain_on([SIGTERM, SIGINT])
    }

    /// [`drain_on_signals`](Self::drain_on_signals) for other [`signal`](crate::signal)s. From this call on they are held
    /// for the server, so make it before other OS threads are started; an error is reported by `run` or `start`. They are
    /// held as long as a server of the handle runs, if this hub does.
    pub fn drain_on(mut self, signals: impl IntoIterator<Item = i32>) -> TcpServer {
        self.signals = Some(Signals::new(signals));
        self
    }

    /// Runs the server in the calling thread, until somebody drains it: its handle, a signal, or a listener that fails.
    ///
    /// # Errors
    /// `InvalidInput` for a time limit of zero; signals that cannot be held; no stack; when the caller unwinds or its OS
    /// thread is ending.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller: the port is closed then, and the handlers
    /// are killed. Panics inside [`no_switch`](crate::no_switch), and with the panics of the callbacks.
    ///
    /// May switch: yes.
    pub fn run<H, R>(self, handler: H) -> io::Result<DrainReport>
    where
        H: Fn(TcpStream, SocketAddr) -> R + 'static,
        R: Served + 'static,
    {
        supervise(self.ready()?, move |arrived, settings: &Settings| serve(&handler, arrived, settings))
    }

    /// Runs the server in a green thread of its own.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// May switch: no.
    pub fn start<H, R>(self, handler: H) -> io::Result<Server>
    where
        H: Fn(TcpStream, SocketAddr) -> R + 'static,
        R: Served + 'static,
    {
        let addr = self.local_addr()?;
        let handle = self.handle.clone();
        let ready = self.ready()?;
        Server::start(handle, addr, move || {
            supervise(ready, move |arrived, settings: &Settings| serve(&handler, arrived, settings))
        })
    }

    /// Everything checked.
    fn ready(self) -> io::Result<Ready<TcpListener>> {
        let TcpServer { listener, settings, limit, handle, signals } = self;
        settings.check()?;
        let limit = limit.unwrap_or_else(|| Limit::new(usize::MAX));
        Ok(Ready { port: listener, settings, limit, handle, signals: signals.transpose()? })
    }
}

impl fmt::Debug for TcpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpServer").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// A server that runs in a green thread. If it is dropped, the server ends without grace: the port is closed, the handlers
/// are killed.
#[derive(Debug)]
#[must_use = "dropping it ends the server: `join` or `drain` it"]
pub struct Server {
    /// The supervisor; none once it was joined.
    thread: Option<JoinHandle<io::Result<DrainReport>>>,
    /// What controls it.
    handle: ServerHandle,
    /// Where it listens.
    addr: SocketAddr,
}

impl Server {
    /// Spawns the supervisor.
    pub(super) fn start(
        handle: ServerHandle,
        addr: SocketAddr,
        supervise: impl FnOnce() -> io::Result<DrainReport> + 'static,
    ) -> io::Result<Server> {
        let thread = Builder::new().name(String::from("server")).spawn(supervise)?;
        Ok(Server { thread: Some(thread), handle, addr })
    }

    /// The address it listens, or listened, on.
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// What controls it, to be cloned and sent.
    ///
    /// May switch: no.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// What it has counted, with the other servers of its handle.
    ///
    /// May switch: no.
    pub fn counters(&self) -> Counters {
        self.handle.counters()
    }

    /// Drains it, and with it the other servers of its handle: see [`server`](super). Waits for its end.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    ///
    /// # Panics
    /// As [`join`](Self::join).
    ///
    /// May switch: yes.
    pub fn drain(self) -> Result<DrainReport, JoinError> {
        self.handle.drain();
        self.join()
    }

    /// Waits until somebody has drained it.
    ///
    /// # Errors
    /// [`JoinError`]: a callback panicked, the hub had no stack, or the caller is unwinding and may not wait. In the last
    /// case the server ends without grace.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller; the server then ends without grace.
    /// Panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes.
    pub fn join(mut self) -> Result<DrainReport, JoinError> {
        let report = match &self.thread {
            Some(thread) => thread.wait()?,
            None => unreachable!("only this call takes it, and it consumes the server"),
        };
        self.thread = None;
        report.map_err(JoinError::refused)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(thread) = &self.thread {
            thread.kill();
        }
    }
}
