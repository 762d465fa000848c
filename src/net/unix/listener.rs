//! A listener of Unix sockets: std's, non-blocking, inside a `Source`.
//!
//! To accept takes two system calls, where TCP needs one: only std can make the address of a socket without a name, so
//! std's `accept` is used, which leaves the new socket blocking.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{self, SocketAddr};
use std::panic::Location;
use std::path::Path;
use std::time::Duration;

use super::stream::UnixStream;
use crate::net::handle::{handle_methods, handle_traits, ready_arms};
use crate::net::options::Options;
use crate::pure::network::Kind;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::{socket, virtual_sockets};

/// The connections that may wait for `accept` in a simulation, as many as std asks the kernel for.
const BACKLOG: usize = 128;

/// A listener of Unix sockets, as [`std::os::unix::net::UnixListener`], but `accept` parks the green thread and does
/// not block the OS thread.
///
/// Several green threads may accept from one listener; they are woken in the order in which they began to wait.
///
/// Errors and panics of `accept` are those of every call that waits: see [`TcpStream`](crate::net::TcpStream).
pub struct UnixListener {
    /// The socket, and the green threads that wait for connections.
    source: Source<net::UnixListener>,
    /// The mode, shared with clones; timeouts are not used.
    options: Options,
}

impl UnixListener {
    handle_methods!(net::UnixListener);

    /// Listens at `path`, where no file may be yet. The socket's file stays when the listener is dropped, as in std.
    ///
    /// # Errors
    /// `AddrInUse` if there is a file; `NotFound`, `PermissionDenied`; `InvalidInput` if the path is too long or has a
    /// zero byte.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Listens at an address, as [`bind`](Self::bind) does. The address need not have a path: see
    /// [`SocketAddrExt`](std::os::linux::net::SocketAddrExt).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// May switch: no.
    #[track_caller]
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<UnixListener> {
        let bound = virtual_sockets::socket(Kind::UnixStream, |network, id| {
            network.bind_unix(id, virtual_sockets::name_of(addr))?;
            network.listen(id, BACKLOG)
        });
        if let Some(bound) = bound {
            let (fd, ()) = bound?;
            virtual_sockets::made_at(&fd, Location::caller());
            return Ok(UnixListener { source: Source::new(fd.into()), options: Options::default() });
        }
        UnixListener::green(net::UnixListener::bind_addr(addr)?)
    }

    /// Makes a green listener of a new one of std's that has no other handle.
    fn green(listener: net::UnixListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        Ok(UnixListener { source: Source::new(listener), options: Options::default() })
    }

    /// Waits for a connection and returns it with the address of the other side, which has a name only if that side
    /// was bound to one.
    ///
    /// # Errors
    /// See [`TcpStream`](crate::net::TcpStream); `EMFILE`, `ENFILE`: free a descriptor or wait a little.
    ///
    /// # Panics
    /// See [`TcpStream`](crate::net::TcpStream).
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        // std's `accept` makes the address; the new socket is blocking until the second call.
        let timeout = self.options.begin_call(Direction::Read);
        let (stream, peer) = self.source.run(Direction::Read, timeout, &mut |listener| self.accept_now(listener))?;
        stream.set_nonblocking(true)?;
        virtual_sockets::made_at(&stream, Location::caller());
        Ok((UnixStream::of_new_socket(stream), peer))
    }

    /// Takes a connection, and does not wait for one: see `TcpListener::accept_now`.
    fn accept_now(&self, listener: &net::UnixListener) -> io::Result<(net::UnixStream, SocketAddr)> {
        if self.source.is_shared() {
            socket::set_nonblocking(listener.as_fd(), true)?;
        }
        let accepted = virtual_sockets::accept(listener, |network, id| network.peer_name(id));
        match accepted {
            Some(accepted) => accepted.and_then(|(fd, name)| Ok((fd.into(), virtual_sockets::std_name(&name)?))),
            None => listener.accept(),
        }
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
        virtual_sockets::local_name(listener).unwrap_or_else(|| listener.local_addr())
    }

    /// Stops listening at once: connections are refused, green threads that wait in `accept` are woken with an error,
    /// and every later call fails with `NotConnected`. The file stays. The descriptor is freed when the listener is
    /// dropped.
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
}

ready_arms!(UnixListener: SelectReadable::select_readable by Read, SelectWritable::select_writable by Write);

/// The endless iterator over connections that [`UnixListener::incoming`] returns.
#[must_use = "iterators are lazy and do nothing unless consumed"]
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The listener that the connections come from.
    listener: &'a UnixListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<UnixStream>;

    /// Waits for the next connection: always `Some`.
    ///
    /// May switch: yes.
    #[track_caller]
    fn next(&mut self) -> Option<io::Result<UnixStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

handle_traits!(UnixListener, net::UnixListener, timeouts: |_| -> [(Direction, io::Result<Option<Duration>>); 0] { [] });

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // The caller may duplicate the descriptor and give the duplicate away.
        self.source.set_shared();
        self.source.get().as_fd()
    }
}

impl AsRawFd for UnixListener {
    fn as_raw_fd(&self) -> RawFd {
        // The caller may duplicate the descriptor, as in `as_fd`.
        self.source.set_shared();
        self.source.get().as_raw_fd()
    }
}

/// Makes the socket blocking, unless [`set_nonblocking`](UnixListener::set_nonblocking) was called with `true`. Clones
/// of the green listener share the socket: each `accept` of a clone makes the socket non-blocking again, for both.
impl From<UnixListener> for net::UnixListener {
    fn from(listener: UnixListener) -> net::UnixListener {
        let UnixListener { source, options } = listener;
        let listener = source.into_inner();
        // Setting the mode of an open socket does not fail.
        let _ = listener.set_nonblocking(options.nonblocking());
        listener
    }
}
