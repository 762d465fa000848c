//! A listener of Unix sockets: std's, non-blocking, inside a `Source`.
//!
//! Accepting is two system calls, where TCP's is one: std makes the address, which has no public constructor for "no
//! name", and its accept leaves the new socket blocking.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::stream::UnixStream;
use crate::net::handle::{handle_methods, handle_traits};
use crate::net::options::Options;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::socket;

/// A listener of Unix sockets whose `accept` parks the green thread in place of blocking the OS thread; else as
/// [`std::os::unix::net::UnixListener`].
///
/// Several green threads may accept from one listener; they are woken in the order in which they began to wait.
///
/// Errors and panics of `accept` are those of every call that waits: see [`TcpStream`](crate::net::TcpStream).
pub struct UnixListener {
    /// The socket.
    source: Source<net::UnixListener>,
    /// Only the mode is used.
    options: Options,
}

impl UnixListener {
    handle_methods!(net::UnixListener);

    /// Listens at `path`, where nothing may be yet. The file stays when the listener is dropped, as in std.
    ///
    /// # Errors
    /// `AddrInUse` if something is there; `NotFound`, `PermissionDenied`; `InvalidInput` if the path is too long or has a
    /// zero byte.
    ///
    /// May switch: no.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        UnixListener::green(net::UnixListener::bind(path)?)
    }

    /// [`bind`](Self::bind) to an address: also one that has no path, see
    /// [`SocketAddrExt`](std::os::linux::net::SocketAddrExt).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// May switch: no.
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<UnixListener> {
        UnixListener::green(net::UnixListener::bind_addr(addr)?)
    }

    /// A new listener of std's that nobody else knows.
    fn green(listener: net::UnixListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        Ok(UnixListener { source: Source::new(listener, false, false), options: Options::default() })
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
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let patience = self.options.patience(Direction::Read);
        let (stream, peer) = self.source.run(Direction::Read, patience, &mut net::UnixListener::accept)?;
        stream.set_nonblocking(true)?;
        Ok((UnixStream::of_new_socket(stream), peer))
    }

    /// An endless iterator over [`accept`](Self::accept).
    ///
    /// May switch: no, but its `next` does.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The address it listens at.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.open()?.local_addr()
    }

    /// Stops listening at once: connections are refused, green threads that wait in `accept` are woken with an error, and
    /// every later call fails with `NotConnected`. The file stays. The descriptor is freed when the listener is dropped.
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
}

/// What [`UnixListener::incoming`] returns: yields connections, never ends.
#[must_use = "iterators are lazy and do nothing unless consumed"]
#[derive(Debug)]
pub struct Incoming<'a> {
    /// Where they come from.
    listener: &'a UnixListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<UnixStream>;

    /// Waits for the next connection: always `Some`.
    ///
    /// May switch: yes.
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

/// Makes the socket blocking, unless [`set_nonblocking`](UnixListener::set_nonblocking) was called with `true`. Clones of
/// the green listener share the socket: they would block their OS thread from now on.
impl From<UnixListener> for net::UnixListener {
    fn from(listener: UnixListener) -> net::UnixListener {
        let UnixListener { source, options } = listener;
        let listener = source.into_inner();
        // It does not fail on an open socket.
        let _ = listener.set_nonblocking(options.nonblocking());
        listener
    }
}
