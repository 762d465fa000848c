//! A TCP listener: std's, non-blocking, inside a `Source`.
//!
//! Accepting is one system call: accept4(2) makes the new socket non-blocking and closed on exec.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::addr::{ToSocketAddrs, each_addr};
use super::options::Options;
use super::tcp_stream::TcpStream;
use crate::runtime::choose::{AnyArm, Arm, End, Failed, ReadyArm, Who};
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::switch::wait_list::WaitList;
use crate::sys::epoll::{Interest, Ready};
use crate::sys::socket;

/// Connections that may wait for `accept`; the kernel cuts it to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// A TCP listener whose `accept` parks the green thread in place of blocking the OS thread; else as
/// [`std::net::TcpListener`].
///
/// Several green threads may accept from one listener; they are woken in the order in which they began to wait.
///
/// Errors and panics of `accept` are those of every call that waits: see [`TcpStream`].
pub struct TcpListener {
    /// The socket.
    source: Source<net::TcpListener>,
    /// Only the mode is used.
    options: Options,
    /// Whoever started this process has the socket, too, for those who come later: a server leaves it listening.
    passed: bool,
}

impl TcpListener {
    /// One whose socket nobody else has.
    fn of_new_socket(fd: OwnedFd) -> TcpListener {
        TcpListener { source: Source::new(fd.into(), false, false), options: Options::default(), passed: false }
    }

    /// One whose socket whoever started this process keeps.
    pub(crate) fn of_passed_socket(fd: OwnedFd) -> TcpListener {
        TcpListener { passed: true, ..TcpListener::from(fd) }
    }

    /// std's listener, unless `close` was called.
    fn open(&self) -> io::Result<&net::TcpListener> {
        self.source.open()
    }

    /// Listens on `addr`, with `SO_REUSEADDR` as std does; if it yields several addresses, on the first that works.
    /// Port 0 lets the kernel choose one: see [`local_addr`](Self::local_addr).
    ///
    /// Up to 4096 connections (std: 128) wait for `accept`, if `net.core.somaxconn` allows it.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`, ...: of the last address tried; `InvalidInput` if there is
    /// none.
    ///
    /// # Panics
    /// Those of [`ToSocketAddrs`], if it is a name.
    ///
    /// May switch: yes, if a name has to be looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        each_addr(addr, |addr| {
            let fd = socket::bind_listener(addr, BACKLOG, false)?;
            Ok(TcpListener::of_new_socket(fd))
        })
    }

    /// [`bind`](Self::bind) for one of several listeners on the same address, each with `SO_REUSEPORT`: the kernel spreads
    /// the connections over them. One per hub, and each hub serves its own connections; see [`Hubs`](crate::Hubs).
    ///
    /// All of them must be made by this call (or set the option otherwise) and belong to one user. With port 0 the first
    /// gets a free one, which the others must then name. A connection that waits for `accept` belongs to one listener, and
    /// is reset if that one closes.
    ///
    /// A second process of the same user that does so is not refused, but gets a part of the connections: mean it.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); `AddrInUse` also if a listener is there that does not share.
    ///
    /// # Panics
    /// Those of [`ToSocketAddrs`], if it is a name.
    ///
    /// May switch: yes, if a name has to be looked up.
    pub fn bind_reuse_port<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        each_addr(addr, |addr| {
            let fd = socket::bind_listener(addr, BACKLOG, true)?;
            Ok(TcpListener::of_new_socket(fd))
        })
    }

    /// Waits for a connection and returns it with the address of the other side.
    ///
    /// # Errors
    /// See [`TcpStream`]. Most of the kernel's concern one connection that has gone again (`ConnectionAborted`) or pass
    /// (`EMFILE`: free a descriptor or wait a little), and the listener can be used further.
    ///
    /// # Panics
    /// See [`TcpStream`].
    ///
    /// May switch: yes.
    #[inline]
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let patience = self.options.patience(Direction::Read);
        let (fd, peer) =
            self.source.run(Direction::Read, patience, &mut |listener| socket::accept4(listener.as_fd()))?;
        Ok((TcpStream::of_new_socket(fd), peer))
    }

    /// [`accept`](Self::accept) of a connection that waits already; `WouldBlock` if there is none.
    pub(crate) fn accept_waiting(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = self
            .source
            .run(Direction::Read, Some(Duration::ZERO), &mut |listener| socket::accept4(listener.as_fd()))?;
        Ok((TcpStream::of_new_socket(fd), peer))
    }

    /// Whether a connection waits for `accept`, for a caller that cannot take it.
    pub(crate) fn has_waiting(&self) -> bool {
        let look = |listener: &net::TcpListener| socket::poll_one(listener.as_fd(), Interest::IN, Some(0));
        self.open().and_then(look).is_ok_and(|ready| ready.any(Ready::IN))
    }

    /// From now on the kernel takes no new connections while one waits for `accept`; those that wait stay.
    pub(crate) fn take_no_more(&self) -> io::Result<()> {
        socket::listen(self.open()?.as_fd(), 0)
    }

    /// Whether others will listen on this socket when this process has ended.
    pub(crate) fn is_passed(&self) -> bool {
        self.passed
    }

    /// [`close`](Self::close) for this process alone: the socket goes on listening.
    pub(crate) fn leave(&self) {
        self.source.close();
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_readable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Read)
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_accept(&self) -> AcceptArm<'_> {
        // Now, while it has nothing in its hands and stands in no line.
        self.source.spend_credit();
        AcceptArm { listener: self, ready: self.select_readable(), result: Cell::new(None) }
    }

    /// An endless iterator over [`accept`](Self::accept).
    ///
    /// May switch: no, but its `next` does.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.open()?.local_addr()
    }

    /// Stops listening at once: the port refuses connections and can be listened on again, green threads that wait in
    /// `accept` are woken with an error, and every later call fails with `NotConnected`. Connections that wait for
    /// `accept` are reset. The descriptor is freed when the listener is dropped.
    ///
    /// std has no such call. Clones stop listening too. Does nothing if it was closed before.
    ///
    /// May switch: no.
    pub fn close(&self) {
        if let Ok(listener) = self.open() {
            // It does not fail on a socket that listens.
            let _ = socket::shutdown(listener.as_fd());
            self.source.close();
        }
    }

    /// Another handle of the same socket. Both share the mode, as in std; each connection goes to one of them.
    ///
    /// # Errors
    /// `EMFILE`; `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        let clone = self.open()?.try_clone()?;
        self.source.set_shared();
        Ok(TcpListener { source: self.source.sibling(clone), options: self.options.share(), passed: self.passed })
    }

    /// Sets `IP_TTL`, which accepted connections inherit.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.open()?.set_ttl(ttl)
    }

    /// Reads `IP_TTL`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn ttl(&self) -> io::Result<u32> {
        self.open()?.ttl()
    }

    /// Takes the error that waits on the socket (`SO_ERROR`).
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.open()?.take_error()
    }

    /// With `true`, `accept` fails with `WouldBlock` if no connection waits, here and on clones. The kernel's socket is
    /// non-blocking either way.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.open()?;
        self.options.set_nonblocking(nonblocking);
        Ok(())
    }
}

/// The arm of a `select!` that accepts a connection.
#[doc(hidden)]
pub struct AcceptArm<'a> {
    /// Where it comes from.
    listener: &'a TcpListener,
    /// For the wait.
    ready: ReadyArm<'a>,
    /// The result.
    result: Cell<Option<io::Result<(TcpStream, SocketAddr)>>>,
}

impl AcceptArm<'_> {
    /// For `select!`.
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// As `accept`.
    pub fn finish(self) -> io::Result<(TcpStream, SocketAddr)> {
        match self.result.take() {
            Some(result) => result,
            // The wait failed before there was anything to accept.
            None => match self.ready.finish() {
                Err(error) => Err(error),
                Ok(()) => self.listener.accept(),
            },
        }
    }
}

impl Arm for AcceptArm<'_> {
    fn look(&self) -> bool {
        if !self.ready.look() {
            return false;
        }
        // Not by `run`, which may let others run.
        let accepted = self.listener.open().and_then(|listener| socket::accept4(listener.as_fd()));
        match accepted {
            // The connection has gone again, or another process was faster.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready.not_ready();
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.look(),
            accepted => self.result.set(Some(accepted.map(|(fd, peer)| (TcpStream::of_new_socket(fd), peer)))),
        }
        true
    }

    fn enter(&self, who: Who) -> Result<Option<&WaitList>, Failed> {
        self.ready.enter(who)
    }

    fn complete(&self) {
        self.ready.complete();
    }

    fn left(&self, end: End) {
        self.ready.left(end);
    }

    fn is_descriptor(&self) -> bool {
        true
    }
}

impl fmt::Debug for AcceptArm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptArm").finish_non_exhaustive()
    }
}

/// What [`TcpListener::incoming`] returns: yields connections, never ends.
#[must_use = "iterators are lazy and do nothing unless consumed"]
#[derive(Debug)]
pub struct Incoming<'a> {
    /// Where they come from.
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    /// Waits for the next connection: always `Some`.
    ///
    /// May switch: yes.
    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.get().fmt(f)
    }
}

/// Makes the socket non-blocking, for everybody who shares it. `accept` waits here, whether or not
/// `set_nonblocking` was called on std's: the kernel's flag has another meaning here.
impl From<net::TcpListener> for TcpListener {
    fn from(listener: net::TcpListener) -> TcpListener {
        // It fails for no open descriptor that is a socket; on any other the first call will fail.
        let _ = listener.set_nonblocking(true);
        TcpListener { source: Source::new(listener, false, true), options: Options::default(), passed: false }
    }
}

/// Makes the socket blocking, unless [`set_nonblocking`](TcpListener::set_nonblocking) was called with `true`. Clones of
/// the green listener share the socket: they would block their OS thread from now on.
impl From<TcpListener> for net::TcpListener {
    fn from(listener: TcpListener) -> net::TcpListener {
        let TcpListener { source, options, .. } = listener;
        let listener = source.into_inner();
        // It does not fail on an open socket.
        let _ = listener.set_nonblocking(options.nonblocking());
        listener
    }
}

/// As from std's type.
impl From<OwnedFd> for TcpListener {
    fn from(fd: OwnedFd) -> TcpListener {
        TcpListener::from(net::TcpListener::from(fd))
    }
}

/// As into std's type.
impl From<TcpListener> for OwnedFd {
    fn from(listener: TcpListener) -> OwnedFd {
        net::TcpListener::from(listener).into()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.get().as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.source.get().as_raw_fd()
    }
}

/// As into std's type.
impl IntoRawFd for TcpListener {
    fn into_raw_fd(self) -> RawFd {
        net::TcpListener::from(self).into_raw_fd()
    }
}
