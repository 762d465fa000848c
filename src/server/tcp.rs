//! A TCP server: its builder and the value that stands for a running one.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::Location;
use std::time::Duration;

use super::connections::{Kind, Listener};
use super::drain::{DrainReport, ServerParts, supervise};
use super::handle::{Counters, ServerHandle};
use super::limit::Limit;
use super::served::{HandlerResult, Served, outcome_of, served_within};
use super::settings::{Callbacks, Settings};
use crate::net::options::StageView;
use crate::net::{TcpListener, TcpStream, ToSocketAddrs};
use crate::signal::{SIGINT, SIGTERM, Signals};
use crate::thread::{Builder, JoinError, JoinHandle, own_thread_locals_supported};

impl Listener for TcpListener {
    type Incoming = (TcpStream, SocketAddr);
    type Place = ();

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self)
    }

    fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept_pending(self)
    }

    fn has_pending(&self) -> bool {
        TcpListener::has_pending(self)
    }

    fn stop_queueing(&self) {
        if self.is_passed() {
            // The next process serves what is in the queue.
            return self.leave();
        }
        // The call fails if a broken listener is the reason of the drain.
        let _ = TcpListener::take_no_more(self);
    }

    fn close(&self) {
        if self.is_passed() { self.leave() } else { TcpListener::close(self) }
    }

    fn name() -> &'static str {
        "tcp"
    }

    fn local(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
    }

    fn peer((_, peer): &(TcpStream, SocketAddr)) -> SocketAddr {
        *peer
    }

    fn stage_view((stream, _): &(TcpStream, SocketAddr)) -> Option<(RawFd, StageView)> {
        Some((stream.as_raw_fd(), stream.stage_view()))
    }

    fn place(_: &mut (TcpStream, SocketAddr)) {}
}

/// Calls the handler of a connection.
#[inline]
pub(super) fn serve<H, R>(handler: &H, (stream, peer): (TcpStream, SocketAddr), settings: &Settings) -> HandlerResult
where
    H: Fn(TcpStream, SocketAddr) -> R,
    R: Served,
{
    // Without limits, nothing is added to the handler.
    if settings.first_byte.is_some() || settings.idle.is_some() || settings.total.is_some() {
        return serve_within(handler, stream, peer, settings);
    }
    outcome_of(handler(stream, peer), false)
}

/// Calls the handler of a connection that has time limits.
fn serve_within<H, R>(handler: &H, stream: TcpStream, peer: SocketAddr, settings: &Settings) -> HandlerResult
where
    H: Fn(TcpStream, SocketAddr) -> R,
    R: Served,
{
    let serve = || {
        // The first byte, or the end of the stream, must come in time.
        if settings.first_byte.is_some()
            && let Err(error) = stream.wait_readable(settings.first_byte)
        {
            return if error.kind() == io::ErrorKind::WouldBlock {
                HandlerResult::TimedOut
            } else {
                HandlerResult::Failed
            };
        }
        // Neither call fails on an open stream, and `Settings::check` has refused limits of zero.
        let _ = stream.set_read_timeout(settings.idle);
        let _ = stream.set_write_timeout(settings.idle);
        outcome_of(handler(stream, peer), settings.idle.is_some())
    };
    served_within(settings.total, serve)
}

/// A TCP server to be started: a listener, and how its connections are served. See [`server`](super).
///
/// The handler is called for each connection, with the address of the other side, in a green thread of its own. The
/// connection is closed when the handler drops the stream, at the handler's end at the latest.
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
#[doc(alias = "StreamServer")]
#[must_use = "a server does nothing until `run` or `start`"]
pub struct TcpServer {
    /// Where connections come from.
    listener: TcpListener,
    /// What the builder was told.
    settings: Settings,
    /// The functions of the program that report something.
    callbacks: Callbacks,
    /// The limit on connections; `None` for any number.
    limit: Option<Limit>,
    /// The handle that controls the server.
    handle: ServerHandle,
    /// The signals that ask for a drain, or why they cannot be held.
    signals: Option<io::Result<Signals>>,
}

impl TcpServer {
    /// Creates a server for a listener.
    ///
    /// May switch: no.
    pub fn new(listener: TcpListener) -> TcpServer {
        TcpServer {
            listener,
            settings: Settings::default(),
            callbacks: Callbacks::default(),
            limit: None,
            handle: ServerHandle::new(),
            signals: None,
        }
    }

    /// Creates a server that listens on `addr`: see [`TcpListener::bind`]. For one of several servers on the same
    /// address use [`bind_reuse_port`](TcpListener::bind_reuse_port) and [`new`](Self::new).
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

    /// Returns the address that the server listens on.
    ///
    /// # Errors
    /// The error of getsockname(2).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves at most `most` connections at once. At the limit the server stops accepting: further clients wait in the
    /// kernel's queue, and are served as connections end. Any number by default.
    ///
    /// # Panics
    /// If `most` is 0.
    ///
    /// May switch: no.
    pub fn max_connections(self, most: usize) -> TcpServer {
        self.limit(&Limit::new(most))
    }

    /// Limits the connections of all servers together that are given this limit: see
    /// [`max_connections`](Self::max_connections).
    ///
    /// May switch: no.
    pub fn limit(mut self, limit: &Limit) -> TcpServer {
        self.limit = Some(limit.clone());
        self
    }

    /// Accepts at most `budget` connections before other threads have their turn; 64 by default.
    ///
    /// # Panics
    /// If `budget` is 0.
    ///
    /// May switch: no.
    pub fn accept_budget(mut self, budget: u32) -> TcpServer {
        assert_ne!(budget, 0, "an accept budget of 0: the server would accept nothing");
        self.settings.accept_budget = budget;
        self
    }

    /// Sets the stack size of the handlers' threads in bytes; by default
    /// [`hub::default_stack_size`](crate::hub::default_stack_size).
    ///
    /// May switch: no.
    pub fn stack_size(mut self, bytes: usize) -> TcpServer {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// Limits the time for a client's first byte. The handler is called when that byte, or the end of the stream, has
    /// come, and not at all for a client that sends nothing. Unfit for protocols in which the server speaks first. No
    /// limit by default.
    ///
    /// May switch: no.
    pub fn first_byte_timeout(mut self, limit: Duration) -> TcpServer {
        self.settings.first_byte = Some(limit);
        self
    }

    /// Limits the time that each read and each write of the handler may wait; then the call fails with `WouldBlock`.
    /// The limit is the stream's [`set_read_timeout`](TcpStream::set_read_timeout) and
    /// [`set_write_timeout`](TcpStream::set_write_timeout), set before the handler is called, and costs a store for
    /// each wait. No limit by default.
    ///
    /// May switch: no.
    pub fn idle_timeout(mut self, limit: Duration) -> TcpServer {
        self.settings.idle = Some(limit);
        self
    }

    /// Limits the time that a connection may last; then its handler is unwound, as by [`timeout`](crate::timeout). No
    /// limit by default. Under `panic = "abort"` no connection can be served with such a limit.
    ///
    /// May switch: no.
    pub fn total_timeout(mut self, limit: Duration) -> TcpServer {
        self.settings.total = Some(limit);
        self
    }

    /// Sets how long a drain lets connections go on; 5 seconds by default, and zero kills them at once.
    ///
    /// May switch: no.
    pub fn grace(mut self, grace: Duration) -> TcpServer {
        self.settings.grace = grace;
        self
    }

    /// Sets whether a drain closes connections that wait for their next request, which is the default. Say no where
    /// there are no requests and answers, as in a chat or a proxy: then every connection may go on until the grace
    /// ends.
    ///
    /// May switch: no.
    pub fn close_idle(mut self, close: bool) -> TcpServer {
        self.settings.close_idle = close;
        self
    }

    /// Sets what happens when there are no descriptors left, or no stack for another handler. By default clients wait
    /// in the kernel's queue until there are (one of them accepted, but not served). With `true` their connections
    /// are closed at once, one after the other, by means of a descriptor that is kept in reserve for this.
    ///
    /// May switch: no.
    pub fn refuse_when_exhausted(mut self, refuse: bool) -> TcpServer {
        self.settings.refuse = refuse;
        self
    }

    /// Calls `tell` each time accepting is put off for want of descriptors, memory or a stack for a handler, and for
    /// each client that is refused because there is no stack of such a [size](Self::stack_size). `tell` must not take
    /// long.
    ///
    /// May switch: no.
    pub fn on_accept_error(mut self, tell: impl Fn(&io::Error) + 'static) -> TcpServer {
        self.callbacks.on_accept_error = Some(Box::new(tell));
        self
    }

    /// Calls `tell` once when a drain has begun and has accepted the kernel's queue, as far as there is room, with
    /// the number of connections at that moment. `tell` must not take long.
    ///
    /// May switch: no.
    pub fn on_drain(mut self, tell: impl Fn(usize) + 'static) -> TcpServer {
        self.callbacks.on_drain = Some(Box::new(move |count| tell(*count)));
        self
    }

    /// Puts the server under the control of `handle`, with all other servers of that handle.
    ///
    /// May switch: no.
    pub fn handle(mut self, handle: &ServerHandle) -> TcpServer {
        self.handle = handle.clone();
        self
    }

    /// Drains the server, and all other servers of its handle, on SIGTERM and Ctrl-C (SIGINT); a second signal kills
    /// at once the handlers that still run. See [`drain_on`](Self::drain_on).
    ///
    /// May switch: no.
    pub fn drain_on_signals(self) -> TcpServer {
        self.drain_on([SIGTERM, SIGINT])
    }

    /// Does what [`drain_on_signals`](Self::drain_on_signals) does, for other [`signal`](crate::signal)s. From this
    /// call on the signals are held for the server, so call it before other OS threads are started; `run` or `start`
    /// reports an error. The signals are held as long as a server of the handle runs, if this hub does.
    ///
    /// May switch: no.
    pub fn drain_on(mut self, signals: impl IntoIterator<Item = i32>) -> TcpServer {
        self.signals = Some(Signals::new(signals));
        self
    }

    /// Runs the server in the calling thread until a drain ends: asked for by the handle or a signal, or due because
    /// the listener fails.
    ///
    /// # Errors
    /// `InvalidInput` for a time limit of zero. Otherwise the error says that signals cannot be held, that there is no
    /// stack, or that the caller unwinds or its OS thread is ending.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller: then the port is closed, and the
    /// handlers are killed. Panics inside [`no_switch`](crate::no_switch), and with the panics of the callbacks.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn run<H, R>(self, handler: H) -> io::Result<DrainReport>
    where
        H: Fn(TcpStream, SocketAddr) -> R + 'static,
        R: Served + 'static,
    {
        let serve = move |incoming, settings: &Settings| serve(&handler, incoming, settings);
        supervise(self.into_parts()?, Kind::light(), serve)
    }

    /// Runs the server as [`run`](Self::run) does, with a handler that is called in threads with thread-locals of their
    /// own; see [`Builder::own_thread_locals`]. The threads share the handler, which therefore is [`Sync`].
    ///
    /// # Errors
    /// `Unsupported`, with the reason, where a thread cannot have thread-locals of its own. Otherwise as
    /// [`run`](Self::run).
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
        let serve = move |incoming, settings: &Settings| serve(&handler, incoming, settings);
        supervise(self.into_parts()?, Kind::own(), serve)
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
        H: Fn(TcpStream, SocketAddr) -> R + 'static,
        R: Served + 'static,
    {
        self.start_kind(Kind::light(), move |incoming, settings: &Settings| serve(&handler, incoming, settings))
    }

    /// Starts the server as [`start`](Self::start) does, with a handler that is called in threads with thread-locals of
    /// their own; see [`run_own`](Self::run_own).
    ///
    /// ```
    /// use greenling::{net::TcpStream, server::TcpServer};
    /// use std::{cell::Cell, io::{Read, Write}};
    ///
    /// thread_local!(static REQUESTS: Cell<u8> = const { Cell::new(0) });
    ///
    /// # if greenling::thread::own_thread_locals_supported().is_err() { return Ok(()); }
    /// let server = TcpServer::bind("127.0.0.1:0")?.start_own(|mut stream, _peer| {
    ///     REQUESTS.set(REQUESTS.get() + 1); // of this connection
    ///     stream.write_all(&[REQUESTS.get()])
    /// })?;
    /// for _ in 0..3 {
    ///     let mut answer = [0];
    ///     TcpStream::connect(server.local_addr())?.read_exact(&mut answer)?;
    ///     assert_eq!(answer, [1]);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// What the handler owns goes to other threads, and is shared by them:
    ///
    /// ```compile_fail,E0277
    /// # use greenling::server::TcpServer;
    /// let local = std::rc::Rc::new(1);
    /// let server = TcpServer::bind("127.0.0.1:0").unwrap().start_own(move |_, _| drop(local.clone()));
    /// ```
    ///
    /// ```compile_fail,E0277
    /// # use greenling::server::TcpServer;
    /// let count = std::cell::Cell::new(1);
    /// let server = TcpServer::bind("127.0.0.1:0").unwrap().start_own(move |_, _| count.set(2));
    /// ```
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
        self.start_kind(Kind::own(), move |incoming, settings: &Settings| serve(&handler, incoming, settings))
    }

    /// Starts the server with threads of this kind.
    #[track_caller]
    fn start_kind<H>(self, kind: Kind<TcpListener, H>, serve: H) -> io::Result<Server>
    where
        H: Fn((TcpStream, SocketAddr), &Settings) -> HandlerResult + 'static,
    {
        // What can fail fails here, not in the thread.
        let addr = self.local_addr()?;
        let parts = self.into_parts()?;
        let handle = parts.handle.clone();
        Server::start(handle, addr, parts.site, move || supervise(parts, kind, serve))
    }

    /// Checks what the builder was told.
    #[track_caller]
    pub(super) fn into_parts(self) -> io::Result<ServerParts<TcpListener>> {
        let TcpServer { listener, settings, callbacks, limit, handle, signals } = self;
        settings.check()?;
        let limit = limit.unwrap_or_else(|| Limit::new(usize::MAX));
        let (signals, site) = (signals.transpose()?, Location::caller());
        Ok(ServerParts { listener, settings, callbacks, limit, handle, signals, site })
    }
}

impl fmt::Debug for TcpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpServer").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// A server that runs in a green thread. Dropping this value ends the server without grace: the port is closed, and the
/// handlers are killed.
#[derive(Debug)]
#[must_use = "dropping it ends the server: `join` or `drain` it"]
pub struct Server {
    /// The supervisor; `None` once it was joined.
    thread: Option<JoinHandle<io::Result<DrainReport>>>,
    /// The handle that controls the server.
    handle: ServerHandle,
    /// The address that the server listens on.
    addr: SocketAddr,
}

impl Server {
    /// Spawns the thread of the supervisor.
    pub(super) fn start(
        handle: ServerHandle,
        addr: SocketAddr,
        site: &'static Location<'static>,
        supervise: impl FnOnce() -> io::Result<DrainReport> + 'static,
    ) -> io::Result<Server> {
        let thread = Builder::new().name(String::from("server")).at(site).spawn(supervise)?;
        Ok(Server { thread: Some(thread), handle, addr })
    }

    /// Returns the address that the server listens, or listened, on.
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the handle that controls the server, to be cloned and sent.
    ///
    /// May switch: no.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Returns what the server has counted, together with the other servers of its handle.
    ///
    /// May switch: no.
    pub fn counters(&self) -> Counters {
        self.handle.counters()
    }

    /// Drains the server, and with it the other servers of its handle, and waits for its end: see [`server`](super).
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

    /// Waits until the server has been drained.
    ///
    /// # Errors
    /// [`JoinError`] if a callback panicked, the hub had no stack, or the caller is unwinding and may not wait. In
    /// the last case the server ends without grace.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller; the server then ends without grace.
    /// Panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes.
    pub fn join(mut self) -> Result<DrainReport, JoinError> {
        // The thread stays in its place while this waits: a kill of the caller drops `self`, which kills the server.
        let report = match &self.thread {
            Some(thread) => thread.wait()?,
            None => unreachable!("only this call takes the thread, and it consumes the server"),
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
