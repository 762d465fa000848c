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
use std::panic::Location;
use std::time::Duration;

use super::addr::{ToSocketAddrs, each_addr};
use super::options::Options;
use super::tcp_stream::TcpStream;
use crate::pure::network::Setting;
use crate::runtime::arms::ReadyArm;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::reactor::Direction;
use crate::runtime::select_source::{SelectAccept, SelectReadable};
use crate::runtime::source::Source;
use crate::switch::wait_list::WaitList;
use crate::sys::epoll::{Interest, Ready};
use crate::sys::{socket, virtual_sockets};

/// The number of connections that may wait for `accept`; the kernel reduces the number to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// A TCP listener, as [`std::net::TcpListener`], but `accept` parks the green thread and does not block the OS thread.
///
/// Several green threads may accept from one listener; they are woken in the order in which they began to wait.
///
/// A process that shares the socket (a child that was given a duplicate, the service manager) should accept without
/// blocking, too. The kernel's `accept` has no flag that keeps the call from waiting. So once the listener was cloned,
/// converted or lent by `as_fd`, each `accept` first makes the socket non-blocking again, for all processes that share
/// the socket. A process that makes the socket blocking between these two calls can still stop the hub until the next
/// connection arrives.
///
/// Errors and panics of `accept` are those of every call that waits: see [`TcpStream`].
pub struct TcpListener {
    /// The socket, and the green threads that wait for connections.
    source: Source<net::TcpListener>,
    /// The mode, shared with clones; timeouts are not used.
    options: Options,
    /// Whether the process that started this one keeps the socket for a successor: a server then leaves the socket
    /// listening.
    passed: bool,
}

impl TcpListener {
    /// Makes a listener of a new socket that has no other handle.
    fn of_new_socket(fd: OwnedFd) -> TcpListener {
        TcpListener { source: Source::new(fd.into()), options: Options::default(), passed: false }
    }

    /// Makes a listener of a socket that the process that started this one has passed on and keeps.
    pub(crate) fn of_passed_socket(fd: OwnedFd) -> TcpListener {
        TcpListener { passed: true, ..TcpListener::from(fd) }
    }

    /// Returns std's listener, unless `close` was called.
    fn open(&self) -> io::Result<&net::TcpListener> {
        self.source.open()
    }

    /// Listens on `addr`, with `SO_REUSEADDR` as std does; of several addresses, on the first that works. With port 0
    /// the kernel chooses a port: see [`local_addr`](Self::local_addr).
    ///
    /// Up to 4096 connections (std: 128) wait for `accept`, if `net.core.somaxconn` allows so many.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`, ...: of the last address tried; `InvalidInput` if there is
    /// none.
    ///
    /// # Panics
    /// Those of [`ToSocketAddrs`], for a name.
    ///
    /// May switch: yes, if a name has to be looked up.
    #[track_caller]
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        bind(addr, false, Location::caller())
    }

    /// Listens as [`bind`](Self::bind) does, beside other listeners on the same address, each with `SO_REUSEPORT`: the
    /// kernel spreads the connections over the listeners. With one listener per hub, each hub serves its own
    /// connections; see [`Hubs`](crate::Hubs).
    ///
    /// All the listeners must be made by this call (or set the option otherwise) and belong to one user. With port 0
    /// the first listener gets a free port, which the others must then name. A connection that waits for `accept`
    /// belongs to one listener, and is reset if that listener closes.
    ///
    /// A second process of the same user that listens in this way is not refused, but gets a part of the connections.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); `AddrInUse` also if a listener without the option has the address.
    ///
    /// # Panics
    /// Those of [`ToSocketAddrs`], for a name.
    ///
    /// May switch: yes, if a name has to be looked up.
    #[track_caller]
    pub fn bind_reuse_port<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        bind(addr, true, Location::caller())
    }

    /// Waits for a connection and returns it with the address of the other side.
    ///
    /// # Errors
    /// See [`TcpStream`]. Most errors of the kernel concern one connection, which its peer has ended already
    /// (`ConnectionAborted`), or are temporary (`EMFILE`: free a descriptor or wait a little). The listener remains
    /// usable.
    ///
    /// # Panics
    /// See [`TcpStream`].
    ///
    /// May switch: yes.
    #[inline]
    #[track_caller]
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = self.accept_fd()?;
        Ok((TcpStream::of_new_socket(fd).made_at(Location::caller()), peer))
    }

    /// Accepts a connection that waits already, as [`accept`](Self::accept) does; `WouldBlock` if there is none.
    #[track_caller]
    pub(crate) fn accept_pending(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = self.accept_pending_fd()?;
        Ok((TcpStream::of_new_socket(fd).made_at(Location::caller()), peer))
    }

    /// Waits for a connection, as [`accept`](Self::accept) does, and returns its descriptor, for another hub.
    #[inline]
    pub(crate) fn accept_fd(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        let timeout = self.options.begin_call(Direction::Read);
        self.source.run(Direction::Read, timeout, &mut |listener| self.accept_now(listener))
    }

    /// Accepts a connection that waits already, as [`accept_fd`](Self::accept_fd) does; `WouldBlock` if there is none.
    pub(crate) fn accept_pending_fd(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        // A timeout of zero: one try, and no wait.
        self.source.run(Direction::Read, Some(Duration::ZERO), &mut |listener| self.accept_now(listener))
    }

    /// Takes a connection with one system call, and does not wait for one. `accept4` has no flag for that, so a socket
    /// that others may have made blocking is made non-blocking first.
    #[inline]
    fn accept_now(&self, listener: &net::TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
        if self.source.is_shared() {
            socket::set_nonblocking(listener.as_fd(), true)?;
        }
        socket::accept4(listener.as_fd())
    }

    /// Reports whether a connection waits for `accept`, and leaves the connection there.
    pub(crate) fn has_pending(&self) -> bool {
        let poll = |listener: &net::TcpListener| socket::poll_one(listener.as_fd(), Interest::IN, Some(0));
        self.open().and_then(poll).is_ok_and(|ready| ready.any(Ready::IN))
    }

    /// Shortens the queue: from now on the kernel takes no new connection while one waits for `accept`. Those that wait
    /// already stay.
    pub(crate) fn take_no_more(&self) -> io::Result<()> {
        socket::listen(self.open()?.as_fd(), 0)
    }

    /// Reports whether the socket goes on listening after the end of this process.
    pub(crate) fn is_passed(&self) -> bool {
        self.passed
    }

    /// Closes the listener for this process alone, while the socket goes on listening.
    pub(crate) fn leave(&self) {
        self.source.close();
    }

    /// Returns an endless iterator over [`accept`](Self::accept).
    ///
    /// May switch: no, but `next` of the iterator does.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Returns the address that the listener is bound to.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let listener = self.open()?;
        virtual_sockets::local_addr(listener).unwrap_or_else(|| listener.local_addr())
    }

    /// Stops listening at once: the port refuses connections and can be listened on again, green threads that wait in
    /// `accept` are woken with an error, and every later call fails with `NotConnected`. Connections that wait for
    /// `accept` are reset. The descriptor is freed when the listener is dropped.
    ///
    /// std has no such call. Clones stop listening too. A second call does nothing.
    ///
    /// May switch: no.
    pub fn close(&self) {
        if let Ok(listener) = self.open() {
            // `shutdown` does not fail on a socket that listens.
            let _ = socket::shutdown(listener.as_fd());
            self.source.close();
        }
    }

    /// Makes another handle of the same socket. Both share the mode, as in std; each connection goes to one of them.
    ///
    /// # Errors
    /// `EMFILE`; `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    #[track_caller]
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        // The open file has a second descriptor from now on, which other code may make blocking.
        let listener = self.open()?;
        let clone = listener.try_clone()?;
        virtual_sockets::duplicated(listener, &clone)?;
        virtual_sockets::made_at(&clone, Location::caller());
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
        let listener = self.open()?;
        virtual_sockets::set(listener, Setting::Ttl, ttl).unwrap_or_else(|| listener.set_ttl(ttl))
    }

    /// Reads `IP_TTL`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn ttl(&self) -> io::Result<u32> {
        let listener = self.open()?;
        virtual_sockets::setting(listener, Setting::Ttl).unwrap_or_else(|| listener.ttl())
    }

    /// Takes the pending error of the socket (`SO_ERROR`).
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        socket::take_error(self.open()?.as_fd())
    }

    /// Chooses whether `accept` fails with `WouldBlock` if no connection waits, here and on clones. The kernel's socket
    /// is non-blocking either way.
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

impl SelectReadable for TcpListener {
    type Arm<'s>
        = ReadyArm<'s>
    where
        Self: 's;

    fn select_readable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Read)
    }
}

impl SelectAccept for TcpListener {
    type Arm<'s>
        = AcceptArm<'s>
    where
        Self: 's;

    fn select_accept(&self) -> AcceptArm<'_> {
        // Spending CPU credit may switch, so that happens before the arm has a result or a place in a wait list.
        self.source.spend_credit();
        AcceptArm { listener: self, ready: self.select_readable(), result: Cell::new(None) }
    }
}

/// The arm of a `select!` that accepts a connection.
#[doc(hidden)]
pub struct AcceptArm<'a> {
    /// The listener that the connection comes from.
    listener: &'a TcpListener,
    /// The arm that waits until the listener is readable.
    ready: ReadyArm<'a>,
    /// The result of `accept`, for the owner of the arm.
    result: Cell<Option<io::Result<(TcpStream, SocketAddr)>>>,
}

impl SelectArm for AcceptArm<'_> {
    type Output = io::Result<(TcpStream, SocketAddr)>;

    fn finish(self) -> io::Result<(TcpStream, SocketAddr)> {
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
    fn try_select(&self) -> bool {
        if !self.ready.try_select() {
            return false;
        }
        // `Source::run` would not do here: it may switch.
        let accepted = self.listener.open().and_then(|listener| self.listener.accept_now(listener));
        match accepted {
            // The peer has ended the connection again, or another process was faster.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready.not_ready();
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.try_select(),
            accepted => self.result.set(Some(accepted.map(|(fd, peer)| (TcpStream::of_new_socket(fd), peer)))),
        }
        true
    }

    fn register(&self, id: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        self.ready.register(id)
    }

    fn accept(&self) {
        self.ready.accept();
    }

    fn unregister(&self, end: ArmEnd) {
        self.ready.unregister(end);
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

/// The endless iterator over connections that [`TcpListener::incoming`] returns.
#[must_use = "iterators are lazy and do nothing unless consumed"]
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The listener that the connections come from.
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    /// Waits for the next connection: always `Some`.
    ///
    /// May switch: yes.
    #[track_caller]
    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

/// Listens on the first of several addresses that works, for the caller at `place`.
fn bind(addr: impl ToSocketAddrs, reuse_port: bool, place: &'static Location<'static>) -> io::Result<TcpListener> {
    let listener = each_addr(addr, |addr| {
        let fd = socket::bind_listener(addr, BACKLOG, reuse_port)?;
        Ok(TcpListener::of_new_socket(fd))
    })?;
    listener.source.made_at(place);
    Ok(listener)
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listener = self.source.get();
        virtual_sockets::fmt(listener, "TcpListener", f).unwrap_or_else(|| listener.fmt(f))
    }
}

/// Makes the socket non-blocking, for all handles and processes that share it. `accept` waits, even after std's
/// `set_nonblocking(true)`: the kernel's flag has another meaning here.
impl From<net::TcpListener> for TcpListener {
    fn from(listener: net::TcpListener) -> TcpListener {
        // Making an open socket non-blocking does not fail; if the descriptor is none, the first call fails.
        let _ = listener.set_nonblocking(true);
        TcpListener { source: Source::new(listener).shared(), options: Options::default(), passed: false }
    }
}

/// Makes the socket blocking, unless [`set_nonblocking`](TcpListener::set_nonblocking) was called with `true`. Clones
/// of the green listener share the socket: each `accept` of a clone makes the socket non-blocking again, for both.
impl From<TcpListener> for net::TcpListener {
    fn from(listener: TcpListener) -> net::TcpListener {
        let TcpListener { source, options, .. } = listener;
        let listener = source.into_inner();
        // Setting the mode of an open socket does not fail.
        let _ = listener.set_nonblocking(options.nonblocking());
        listener
    }
}

/// Converts as `From` does for std's type.
impl From<OwnedFd> for TcpListener {
    fn from(fd: OwnedFd) -> TcpListener {
        TcpListener::from(net::TcpListener::from(fd))
    }
}

/// Converts as the conversion into std's type does.
impl From<TcpListener> for OwnedFd {
    fn from(listener: TcpListener) -> OwnedFd {
        net::TcpListener::from(listener).into()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // The caller may duplicate the descriptor and give the duplicate away.
        self.source.set_shared();
        self.source.get().as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        // The caller may duplicate the descriptor, as in `as_fd`.
        self.source.set_shared();
        self.source.get().as_raw_fd()
    }
}

/// Converts as the conversion into std's type does.
impl IntoRawFd for TcpListener {
    fn into_raw_fd(self) -> RawFd {
        net::TcpListener::from(self).into_raw_fd()
    }
}
