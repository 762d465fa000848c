//! A UDP socket: std's, non-blocking, inside a `Source`.
//!
//! ```text
//!               a datagram comes                    recv: EAGAIN
//!   not ready ------------------> READ bit set ---------------------> not ready
//!                                  |     ^
//!                                  `-----' recv: a datagram, of any length
//! ```
//!
//! The short-read rule of streams does not hold: a datagram that is shorter than the buffer does not say whether
//! another one is queued behind it. Only EAGAIN says that the queue is empty. So a server that gets a single request
//! makes one more call before it waits, and a server with a thousand queued datagrams makes no extra call.
//!
//! An ICMP answer ("port unreachable") becomes the error of the next call, whichever that is. epoll reports the answer
//! as ERR, which is sticky: a waiting reader is woken and gets the error.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::Location;
use std::time::Duration;

use super::addr::{ToSocketAddrs, each_addr};
use super::handle::{
    descriptor_traits, handle_methods, handle_traits, into_std_with_timeouts, ready_arms, timeout_methods,
};
use super::options::Options;
use crate::pure::network::{Kind, Setting};
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::epoll::{Interest, Ready};
use crate::sys::socket::poll_one;
use crate::sys::{transfer, virtual_sockets};

/// A UDP socket, as [`std::net::UdpSocket`], but calls park the green thread and do not block the OS thread.
///
/// ```
/// use greenling::net::UdpSocket;
///
/// let server = UdpSocket::bind("127.0.0.1:0")?;
/// let addr = server.local_addr()?;
/// greenling::spawn(move || {
///     let mut buf = [0; 1500];
///     let (len, from) = server.recv_from(&mut buf).unwrap(); // waits, so that others run
///     server.send_to(&buf[..len], from).unwrap()
/// });
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.connect(addr)?;
/// client.send(b"echo")?;
/// let mut buf = [0; 1500];
/// assert_eq!(client.recv(&mut buf)?, 4);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Several green threads may use one socket at once. Those that wait for a datagram are served in the order in which
/// they began to wait.
///
/// # Errors of the calls that wait
/// Besides the kernel's (`ConnectionRefused` if no socket received an earlier datagram of a connected socket):
/// `WouldBlock` when a timeout passed or the socket is [non-blocking](Self::set_nonblocking); `NotConnected` after
/// [`close`](Self::close); `Other` when the call would have to wait but the caller unwinds from a panic or kill, or the
/// OS thread is ending.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. No datagram is lost: a call that has taken one returns it.
pub struct UdpSocket {
    /// The socket, and the green threads that wait for it.
    source: Source<net::UdpSocket>,
    /// The timeouts and the mode, shared with clones.
    options: Options,
}

impl UdpSocket {
    handle_methods!(net::UdpSocket);
    timeout_methods!();

    /// Makes a socket that receives what is sent to `addr`; of several addresses, to the first that works. With port 0
    /// the kernel chooses a port: see [`local_addr`](Self::local_addr).
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
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        let place = Location::caller();
        each_addr(addr, |addr| {
            let kind = Kind::Udp { v6: addr.is_ipv6() };
            if let Some(bound) = virtual_sockets::socket(kind, |network, id| network.bind(id, *addr, false)) {
                let (fd, ()) = bound?;
                virtual_sockets::made_at(&fd, place);
                return Ok(UdpSocket { source: Source::new(fd.into()), options: Options::default() });
            }
            // std's socket is blocking at first; no other process has it yet.
            let socket = net::UdpSocket::bind(addr)?;
            socket.set_nonblocking(true)?;
            Ok(UdpSocket { source: Source::new(socket), options: Options::default() })
        })
    }

    /// Sets the address that [`send`](Self::send) sends to; from now on only datagrams from there are received. Of
    /// several addresses, the first that works is taken. Nothing is sent, so no socket need have the address.
    ///
    /// # Errors
    /// `NetworkUnreachable` and the like, of the last address tried; `InvalidInput` if there is none.
    ///
    /// # Panics
    /// Those of [`ToSocketAddrs`], for a name.
    ///
    /// May switch: yes, if a name has to be looked up.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        let socket = self.open()?;
        each_addr(addr, |addr| {
            let connected = virtual_sockets::with(socket, |network, id| network.connect(id, *addr));
            connected.map_or_else(|| socket.connect(addr), |connected| connected.map(|_| ()))
        })
    }

    /// Waits for a datagram and copies it into `buf`. Returns the length and the sender's address. A datagram that is
    /// longer than `buf` is cut off.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    #[inline]
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        // `run` and not `read`, here and below: the short-read rule does not hold for datagrams.
        let timeout = self.options.begin_call(Direction::Read);
        self.source.run(Direction::Read, timeout, &mut |socket| transfer::recv_from(socket.as_fd(), buf, false))
    }

    /// Receives a datagram that is there already, as [`recv_from`](Self::recv_from); `WouldBlock` if there is none.
    pub(crate) fn recv_pending(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        // A timeout of zero: one try, and no wait.
        self.source
            .run(Direction::Read, Some(Duration::ZERO), &mut |socket| transfer::recv_from(socket.as_fd(), buf, false))
    }

    /// Reports whether a datagram is there, and leaves it there.
    pub(crate) fn has_pending(&self) -> bool {
        let poll = |socket: &net::UdpSocket| poll_one(socket.as_fd(), Interest::IN, Some(0));
        self.open().and_then(poll).is_ok_and(|ready| ready.any(Ready::IN))
    }

    /// Receives as [`recv_from`](Self::recv_from) does, but leaves the datagram there for the next call.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let timeout = self.options.begin_call(Direction::Read);
        self.source.run(Direction::Read, timeout, &mut |socket| transfer::recv_from(socket.as_fd(), buf, true))
    }

    /// Sends one datagram to the first address that `addr` yields, and returns the length. Waits only if the send
    /// buffer is full.
    ///
    /// # Errors
    /// See [`UdpSocket`]; `InvalidInput` if there is no address; `EMSGSIZE` if `buf` is too long for a datagram.
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    #[inline]
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        // As in std, only the first address counts.
        let Some(addr) = addr.to_socket_addrs()?.next() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no addresses to send data to"));
        };
        let timeout = self.options.begin_call(Direction::Write);
        self.source.run(Direction::Write, timeout, &mut |socket| transfer::send_to(socket.as_fd(), buf, &addr))
    }

    /// Waits for a datagram, copies it into `buf` and returns the length. A datagram that is longer than `buf` is cut
    /// off.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    #[inline]
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Direction::Read, self.options.begin_call(Direction::Read), &mut |socket| {
            transfer::recv(socket.as_fd(), buf)
        })
    }

    /// Receives as [`recv`](Self::recv) does, but leaves the datagram there for the next call.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Direction::Read, self.options.begin_call(Direction::Read), &mut |socket| {
            transfer::peek(socket.as_fd(), buf)
        })
    }

    /// Sends one datagram to the address given to [`connect`](Self::connect), and returns the length.
    ///
    /// # Errors
    /// See [`UdpSocket`]; `EDESTADDRREQ` if the socket is not connected.
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    #[inline]
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.source.run(Direction::Write, self.options.begin_call(Direction::Write), &mut |socket| {
            transfer::send(socket.as_fd(), buf)
        })
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

    /// Returns the address given to [`connect`](Self::connect).
    ///
    /// # Errors
    /// `NotConnected` if there is none.
    ///
    /// May switch: no.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let socket = self.open()?;
        virtual_sockets::peer_addr(socket).unwrap_or_else(|| socket.peer_addr())
    }

    /// Returns the address that the socket receives on.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let socket = self.open()?;
        virtual_sockets::local_addr(socket).unwrap_or_else(|| socket.local_addr())
    }

    /// Sets `SO_BROADCAST`: whether the socket may send to broadcast addresses.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set(socket, Setting::Broadcast, on.into()).unwrap_or_else(|| socket.set_broadcast(on))
    }

    /// Reads `SO_BROADCAST`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn broadcast(&self) -> io::Result<bool> {
        let socket = self.open()?;
        virtual_sockets::is_set(socket, Setting::Broadcast).unwrap_or_else(|| socket.broadcast())
    }

    /// Sets `IP_TTL`, the number of hops a datagram may take.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set(socket, Setting::Ttl, ttl).unwrap_or_else(|| socket.set_ttl(ttl))
    }

    /// Reads `IP_TTL`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn ttl(&self) -> io::Result<u32> {
        let socket = self.open()?;
        virtual_sockets::setting(socket, Setting::Ttl).unwrap_or_else(|| socket.ttl())
    }

    /// Sets `IP_MULTICAST_LOOP`: whether multicast datagrams of IPv4 come back to this host.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_multicast_loop_v4(&self, on: bool) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set(socket, Setting::LoopV4, on.into()).unwrap_or_else(|| socket.set_multicast_loop_v4(on))
    }

    /// Reads `IP_MULTICAST_LOOP`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        let socket = self.open()?;
        virtual_sockets::is_set(socket, Setting::LoopV4).unwrap_or_else(|| socket.multicast_loop_v4())
    }

    /// Sets `IP_MULTICAST_TTL`, the number of hops a multicast datagram of IPv4 may take.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set(socket, Setting::MulticastTtl, ttl).unwrap_or_else(|| socket.set_multicast_ttl_v4(ttl))
    }

    /// Reads `IP_MULTICAST_TTL`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        let socket = self.open()?;
        virtual_sockets::setting(socket, Setting::MulticastTtl).unwrap_or_else(|| socket.multicast_ttl_v4())
    }

    /// Sets `IPV6_MULTICAST_LOOP`: whether multicast datagrams of IPv6 come back to this host.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_multicast_loop_v6(&self, on: bool) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set(socket, Setting::LoopV6, on.into()).unwrap_or_else(|| socket.set_multicast_loop_v6(on))
    }

    /// Reads `IPV6_MULTICAST_LOOP`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        let socket = self.open()?;
        virtual_sockets::is_set(socket, Setting::LoopV6).unwrap_or_else(|| socket.multicast_loop_v6())
    }

    /// Joins the group `multiaddr` on the interface with the address `interface` (0.0.0.0: the kernel chooses), to
    /// receive what is sent to the group.
    ///
    /// # Errors
    /// `EINVAL` if `multiaddr` is no group; what else setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn join_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set_member(socket, (*multiaddr).into(), true)
            .unwrap_or_else(|| socket.join_multicast_v4(multiaddr, interface))
    }

    /// Joins the group `multiaddr` on the interface with the index `interface` (0: the kernel chooses), to receive what
    /// is sent to the group.
    ///
    /// # Errors
    /// `EINVAL` if `multiaddr` is no group; what else setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set_member(socket, (*multiaddr).into(), true)
            .unwrap_or_else(|| socket.join_multicast_v6(multiaddr, interface))
    }

    /// Leaves a group that [`join_multicast_v4`](Self::join_multicast_v4) joined.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if the socket did not join the group.
    ///
    /// May switch: no.
    pub fn leave_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set_member(socket, (*multiaddr).into(), false)
            .unwrap_or_else(|| socket.leave_multicast_v4(multiaddr, interface))
    }

    /// Leaves a group that [`join_multicast_v6`](Self::join_multicast_v6) joined.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if the socket did not join the group.
    ///
    /// May switch: no.
    pub fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        let socket = self.open()?;
        virtual_sockets::set_member(socket, (*multiaddr).into(), false)
            .unwrap_or_else(|| socket.leave_multicast_v6(multiaddr, interface))
    }
}

ready_arms!(UdpSocket: SelectReadable::select_readable by Read, SelectWritable::select_writable by Write);

handle_traits!(UdpSocket, net::UdpSocket, timeouts: |socket: &net::UdpSocket| {
    [(Direction::Read, socket.read_timeout()), (Direction::Write, socket.write_timeout())]
});
descriptor_traits!(UdpSocket);
into_std_with_timeouts!(UdpSocket, net::UdpSocket);
