//! A Unix datagram socket: std's, non-blocking, inside a `Source`.
//!
//! Unlike UDP, the kernel never drops a datagram that the receiver has no room for: the sender waits. Whether an event
//! reports room depends on the call:
//!
//! | call | EAGAIN means | room is reported by |
//! |---|---|---|
//! | `send`, connected | the peer's queue is full | epoll: the kernel watches the peer's queue for the sender |
//! | `send_to` | the queue of the socket with that name is full | no event: epoll watches the sender's own buffer only |
//!
//! And a refused attempt has used the sender's buffer and frees it, which epoll does report: to try again at that event
//! would be a busy loop. So `send_to` asks again after pauses (`Source::run_with_backoff`), where std's blocks in the
//! kernel.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{self, SocketAddr};
use std::panic::Location;
use std::path::Path;
use std::time::Duration;

use crate::net::handle::{
    descriptor_traits, handle_methods, handle_traits, into_std_with_timeouts, ready_arms, timeout_methods,
};
use crate::net::options::Options;
use crate::pure::network::Kind;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::{transfer, virtual_sockets};

/// A Unix datagram socket, as [`std::os::unix::net::UnixDatagram`], but calls park the green thread and do not block
/// the OS thread.
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
    /// The socket, and the green threads that wait for it.
    source: Source<net::UnixDatagram>,
    /// The timeouts and the mode, shared with clones.
    options: Options,
}

impl UnixDatagram {
    handle_methods!(net::UnixDatagram);
    timeout_methods!();

    /// Makes a green socket of a new, non-blocking one that has no other handle.
    fn of_new_socket(fd: OwnedFd) -> UnixDatagram {
        UnixDatagram { source: Source::new(fd.into()), options: Options::default() }
    }

    /// Makes a green socket of a new one of std's that has no other handle.
    fn green(socket: net::UnixDatagram) -> io::Result<UnixDatagram> {
        socket.set_nonblocking(true)?;
        Ok(UnixDatagram { source: Source::new(socket), options: Options::default() })
    }

    /// Makes a socket that receives what is sent to `path`, where no file may be yet. The socket's file stays when the
    /// socket is dropped.
    ///
    /// # Errors
    /// `AddrInUse` if there is a file; `NotFound`, `PermissionDenied`; `InvalidInput` if the path is too long or has a
    /// zero byte.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        UnixDatagram::bind_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Makes a socket with an address, as [`bind`](Self::bind) does. The address need not have a path: see
    /// [`SocketAddrExt`](std::os::linux::net::SocketAddrExt).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// May switch: no.
    #[track_caller]
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<UnixDatagram> {
        let name = || virtual_sockets::name_of(addr);
        if let Some(bound) = virtual_sockets::socket(Kind::UnixDatagram, |network, id| network.bind_unix(id, name())) {
            let (fd, ()) = bound?;
            virtual_sockets::made_at(&fd, Location::caller());
            return Ok(UnixDatagram::of_new_socket(fd));
        }
        UnixDatagram::green(net::UnixDatagram::bind_addr(addr)?)
    }

    /// Makes a socket without a name, which can send, and receive from the socket that it is connected to.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn unbound() -> io::Result<UnixDatagram> {
        if let Some(made) = virtual_sockets::socket(Kind::UnixDatagram, |_, _| Ok(())) {
            let (fd, ()) = made?;
            virtual_sockets::made_at(&fd, Location::caller());
            return Ok(UnixDatagram::of_new_socket(fd));
        }
        UnixDatagram::green(net::UnixDatagram::unbound()?)
    }

    /// Makes two sockets, connected to each other.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        if let Some(made) = virtual_sockets::pair(Kind::UnixDatagram) {
            let (near, far) = made?;
            virtual_sockets::made_at(&near, Location::caller());
            virtual_sockets::made_at(&far, Location::caller());
            return Ok((UnixDatagram::of_new_socket(near), UnixDatagram::of_new_socket(far)));
        }
        let (near, far) = net::UnixDatagram::pair()?;
        Ok((UnixDatagram::green(near)?, UnixDatagram::green(far)?))
    }

    /// Sets the path that [`send`](Self::send) sends to; from now on only datagrams from there are received. A socket
    /// must be bound to the path.
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRefused`, `PermissionDenied`.
    ///
    /// May switch: no.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Connects to an address, as [`connect`](Self::connect) does to a path.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// May switch: no.
    pub fn connect_addr(&self, addr: &SocketAddr) -> io::Result<()> {
        let socket = self.open()?;
        let name = || virtual_sockets::name_of(addr);
        let connected = virtual_sockets::with(socket, |network, id| network.connect_unix(id, &name()));
        connected.unwrap_or_else(|| socket.connect_addr(addr))
    }

    /// Returns the address that the socket receives on.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let socket = self.open()?;
        virtual_sockets::local_name(socket).unwrap_or_else(|| socket.local_addr())
    }

    /// Returns the address that the socket is connected to.
    ///
    /// # Errors
    /// `NotConnected` if there is none.
    ///
    /// May switch: no.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let socket = self.open()?;
        virtual_sockets::peer_name(socket).unwrap_or_else(|| socket.peer_addr())
    }

    /// Waits for a datagram and copies it into `buf`. Returns the length and the sender's address. A datagram that is
    /// longer than `buf` is cut off.
    ///
    /// # Errors
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// # Panics
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// May switch: yes.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        // `run` and not `read`, here and below: the short-read rule does not hold for datagrams.
        let timeout = self.options.begin_call(Direction::Read);
        self.source.run(Direction::Read, timeout, &mut |socket| transfer::recv_from_unix(socket.as_fd(), buf))
    }

    /// Waits for a datagram, copies it into `buf` and returns the length. A datagram that is longer than `buf` is cut
    /// off.
    ///
    /// # Errors
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// # Panics
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// May switch: yes.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Direction::Read, self.options.begin_call(Direction::Read), &mut |socket| {
            transfer::recv(socket.as_fd(), buf)
        })
    }

    /// Sends one datagram to `path`, and returns the length. Waits while the receiver's queue is full. The kernel does
    /// not report room, so the call tries again, first after 0.1 ms, later every 20 ms. To send much to one receiver,
    /// [`connect`](Self::connect) first: to a connected sender the kernel reports room.
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRefused`; see [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// # Panics
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// May switch: yes.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.send_to_addr(buf, &SocketAddr::from_pathname(path)?)
    }

    /// Sends one datagram to an address, as [`send_to`](Self::send_to) does to a path.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to).
    ///
    /// # Panics
    /// As [`send_to`](Self::send_to).
    ///
    /// May switch: yes.
    pub fn send_to_addr(&self, buf: &[u8], addr: &SocketAddr) -> io::Result<usize> {
        let timeout = self.options.begin_call(Direction::Write);
        // No event reports room in the receiver's queue: see the head of this file.
        self.source.run_with_backoff(timeout, &mut |socket| transfer::send_to_unix(socket.as_fd(), buf, addr))
    }

    /// Sends one datagram to the address that the socket is connected to, and returns the length. Waits while the
    /// receiver's queue is full.
    ///
    /// # Errors
    /// `NotConnected`, `ConnectionRefused`; see [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// # Panics
    /// See [`UdpSocket`](crate::net::UdpSocket).
    ///
    /// May switch: yes.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.source.run(Direction::Write, self.options.begin_call(Direction::Write), &mut |socket| {
            transfer::send(socket.as_fd(), buf)
        })
    }

    /// Ends one direction or both.
    ///
    /// # Errors
    /// `NotConnected` if the socket is not connected.
    ///
    /// May switch: no.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::shutdown(socket, how).unwrap_or_else(|| socket.shutdown(how))
    }

    /// Closes this handle: green threads that wait for the handle are woken with an error, and every later call fails
    /// with `NotConnected`. The descriptor is freed when the handle is dropped.
    ///
    /// std has no such call. Clones stay open. A second call does nothing.
    ///
    /// May switch: no.
    pub fn close(&self) {
        self.source.close();
    }
}

ready_arms!(UnixDatagram: SelectReadable::select_readable by Read, SelectWritable::select_writable by Write);

handle_traits!(UnixDatagram, net::UnixDatagram, timeouts: |socket: &net::UnixDatagram| {
    [(Direction::Read, socket.read_timeout()), (Direction::Write, socket.write_timeout())]
});
descriptor_traits!(UnixDatagram);
into_std_with_timeouts!(UnixDatagram, net::UnixDatagram);
