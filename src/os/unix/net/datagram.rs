//! A Unix datagram socket: std's, non-blocking, inside a `Source`.
//!
//! Unlike UDP, it never drops what the receiver has no room for: the sender waits. How it learns of room depends on
//! whether it is connected:
//!
//! | call | EAGAIN means | who tells of room |
//! |---|---|---|
//! | `send`, connected | the peer's queue is full | epoll: the kernel watches the peer's queue for us |
//! | `send_to` | the queue of whoever has that name is full | nobody: epoll looks at the own buffer only |
//!
//! Worse, an attempt that is refused has used the own buffer and frees it, and of that epoll does tell: to try again at that
//! event would be a busy loop. So `send_to` asks again after pauses (`Source::run_by_asking`), where std's blocks in the
//! kernel.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::net::handle::{handle_methods, handle_traits, into_std_with_timeouts, timeout_methods};
use crate::net::options::Options;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;

/// A Unix datagram socket whose calls park the green thread in place of blocking the OS thread; else as
/// [`std::os::unix::net::UnixDatagram`].
///
/// ```
/// use greenling::os::unix::net::UnixDatagram;
///
/// let (near, far) = UnixDatagram::pair()?;
/// let sender = greenling::spawn(move || near.send(b"hello").unwrap());
/// let mut buf = [0; 16];
/// assert_eq!(far.recv(&mut buf)?, 5); // waits, so that the sender runs
/// assert_eq!(sender.join().unwrap(), 5);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Errors and panics of the calls that wait are those of [`UdpSocket`](crate::net::UdpSocket).
pub struct UnixDatagram {
    /// The socket.
    source: Source<net::UnixDatagram>,
    /// Timeouts and mode.
    options: Options,
}

impl UnixDatagram {
    handle_methods!(net::UnixDatagram);
    timeout_methods!();

    /// A new socket of std's that nobody else knows.
    fn green(socket: net::UnixDatagram) -> io::Result<UnixDatagram> {
        socket.set_nonblocking(true)?;
        Ok(UnixDatagram { source: Source::new(socket, false, false), options: Options::default() })
    }

    /// A socket that receives what is sent to `path`, where nothing may be yet. The file stays when it is dropped.
    ///
    /// # Errors
    /// `AddrInUse` if something is there; `NotFound`, `PermissionDenied`; `InvalidInput` if the path is too long or has a
    /// zero byte.
    ///
    /// May switch: no.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        UnixDatagram::green(net::UnixDatagram::bind(path)?)
    }

    /// [`bind`](Self::bind) to an address: also one that has no path, see
    /// [`SocketAddrExt`](std::os::linux::net::SocketAddrExt).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// May switch: no.
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<UnixDatagram> {
        UnixDatagram::green(net::UnixDatagram::bind_addr(addr)?)
    }

    /// A socket without a name: it can send, and receive from whom it is connected to.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    ///
    /// May switch: no.
    pub fn unbound() -> io::Result<UnixDatagram> {
        UnixDatagram::green(net::UnixDatagram::unbound()?)
    }

    /// Two sockets, connected to each other.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    ///
    /// May switch: no.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (near, far) = net::UnixDatagram::pair()?;
        Ok((UnixDatagram::green(near)?, UnixDatagram::green(far)?))
    }

    /// From now on [`send`](Self::send) sends to `path`, and only what comes from there is received. Somebody must be
    /// there.
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRefused`, `PermissionDenied`.
    ///
    /// May switch: no.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.open()?.connect(path)
    }

    /// [`connect`](Self::connect) to an address.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// May switch: no.
    pub fn connect_addr(&self, addr: &SocketAddr) -> io::Result<()> {
        self.open()?.connect_addr(addr)
    }

    /// The address it receives on.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.open()?.local_addr()
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    /// `NotConnected` if there is none.
    ///
    /// May switch: no.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.open()?.peer_addr()
    }

    /// Waits for a datagram, puts it into `buf`, and returns its length and where it came from. What is longer than
    /// `buf` is cut off.
    ///
    /// # Errors
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// # Panics
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// May switch: yes.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let patience = self.options.patience(Direction::Read);
        self.source.run(Direction::Read, patience, &mut |socket| socket.recv_from(buf))
    }

    /// Waits for a datagram, puts it into `buf`, and returns its length. What is longer than `buf` is cut off.
    ///
    /// # Errors
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// # Panics
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// May switch: yes.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Direction::Read, self.options.patience(Direction::Read), &mut |socket| socket.recv(buf))
    }

    /// Sends one datagram to `path`, and returns its length. If the receiver's queue is full it waits until there is
    /// room; the kernel tells nobody of that, so it asks again, first after 0.1 ms, later every 20 ms. Who sends much to
    /// one receiver should [`connect`](Self::connect): then the kernel does tell.
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRefused`; see [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// # Panics
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// May switch: yes.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        let path = path.as_ref();
        self.source.run_by_asking(self.options.patience(Direction::Write), &mut |socket| socket.send_to(buf, path))
    }

    /// [`send_to`](Self::send_to) an address.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to).
    ///
    /// # Panics
    /// As [`send_to`](Self::send_to).
    ///
    /// May switch: yes.
    pub fn send_to_addr(&self, buf: &[u8], addr: &SocketAddr) -> io::Result<usize> {
        self.source.run_by_asking(self.options.patience(Direction::Write), &mut |socket| socket.send_to_addr(buf, addr))
    }

    /// Sends one datagram to the address that it is connected to, and returns its length. It waits while the receiver's
    /// queue is full.
    ///
    /// # Errors
    /// `NotConnected`, `ConnectionRefused`; see [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// # Panics
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// May switch: yes.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.source.run(Direction::Write, self.options.patience(Direction::Write), &mut |socket| socket.send(buf))
    }

    /// Ends one direction or both.
    ///
    /// # Errors
    /// `NotConnected` if it is not connected.
    ///
    /// May switch: no.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.open()?.shutdown(how)
    }

    /// Green threads that wait for this handle are woken with an error, and every later call on it fails with
    /// `NotConnected`. The descriptor is freed when the handle is dropped.
    ///
    /// std has no such call. Clones go on. Does nothing if it was closed before.
    ///
    /// May switch: no.
    pub fn close(&self) {
        self.source.close();
    }
}

handle_traits!(UnixDatagram, net::UnixDatagram, timeouts: |socket: &net::UnixDatagram| {
    [(Direction::Read, socket.read_timeout()), (Direction::Write, socket.write_timeout())]
});
into_std_with_timeouts!(UnixDatagram, net::UnixDatagram);
