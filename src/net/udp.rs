//! A UDP socket: std's, non-blocking, inside a `Source`.
//!
//! ```text
//!               a datagram comes                    recv: EAGAIN
//!   not ready ------------------> READ bit set ---------------------> not ready
//!                                  |     ^
//!                                  `-----' recv: a datagram, of any length
//! ```
//!
//! The short-read rule of streams does not hold: a datagram that is shorter than the buffer says nothing of whether
//! another one waits behind it. Only EAGAIN, the kernel's own word, says that the queue is empty; so a server that is
//! asked once makes one more call before it waits, and one that has a thousand datagrams waiting makes none.
//!
//! An ICMP answer ("nobody listens on that port") comes as an error of the next call, whichever that is, and epoll tells
//! of it as ERR, which is sticky: a reader is woken and gets it.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::addr::{ToSocketAddrs, each_addr};
use super::handle::{handle_methods, handle_traits, into_std_with_timeouts, timeout_methods};
use super::options::Options;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::epoll::{Interest, Ready};
use crate::sys::socket::poll_one;

/// A UDP socket whose calls park the green thread in place of blocking the OS thread; else as
/// [`std::net::UdpSocket`].
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
/// Several green threads may use one socket at once; those that wait for a datagram get them in the order in which
/// they began to wait.
///
/// # Errors of the calls that wait
/// Besides the kernel's (`ConnectionRefused` if an earlier datagram of a connected socket met nobody): `WouldBlock` when
/// a timeout passed or the socket is [non-blocking](Self::set_nonblocking); `NotConnected` after
/// [`close`](Self::close); `Other` when the call would have to wait but the caller unwinds from a panic or kill, or its
/// OS thread is ending.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. No datagram is lost by that.
pub struct UdpSocket {
    /// The socket.
    source: Source<net::UdpSocket>,
    /// Timeouts and mode.
    options: Options,
}

impl UdpSocket {
    handle_methods!(net::UdpSocket);
    timeout_methods!();

    /// A socket that receives what is sent to `addr`; if it yields several addresses, the first that works. Port 0 lets
    /// the kernel choose one: see [`local_addr`](Self::local_addr).
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`, ...: of the last address tried; `InvalidInput` if there is
    /// none.
    ///
    /// # Panics
    /// Those of [`ToSocketAddrs`], if it is a name.
    ///
    /// May switch: yes, if a name has to be looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        each_addr(addr, |addr| {
            let socket = net::UdpSocket::bind(addr)?;
            socket.set_nonblocking(true)?;
            Ok(UdpSocket { source: Source::new(socket, false, false), options: Options::default() })
        })
    }

    /// From now on [`send`](Self::send) sends to `addr`, and only what comes from there is received; if it yields
    /// several addresses, the first that works. Nothing is sent, and nobody need be there.
    ///
    /// # Errors
    /// `NetworkUnreachable` and the like, of the last address tried; `InvalidInput` if there is none.
    ///
    /// # Panics
    /// Those of [`ToSocketAddrs`], if it is a name.
    ///
    /// May switch: yes, if a name has to be looked up.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        let socket = self.open()?;
        each_addr(addr, |addr| socket.connect(addr))
    }

    /// Waits for a datagram, puts it into `buf`, and returns its length and where it came from. What is longer than
    /// `buf` is cut off.
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
        let patience = self.options.patience(Direction::Read);
        self.source.run(Direction::Read, patience, &mut |socket| socket.recv_from(buf))
    }

    /// [`recv_from`](Self::recv_from) of a datagram that waits already; `WouldBlock` if there is none.
    pub(crate) fn recv_waiting(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.source.run(Direction::Read, Some(Duration::ZERO), &mut |socket| socket.recv_from(buf))
    }

    /// Whether a datagram waits, for a caller that does not take it.
    pub(crate) fn has_waiting(&self) -> bool {
        let look = |socket: &net::UdpSocket| poll_one(socket.as_fd(), Interest::IN, Some(0));
        self.open().and_then(look).is_ok_and(|ready| ready.any(Ready::IN))
    }

    /// [`recv_from`](Self::recv_from), but the datagram stays there for the next call.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let patience = self.options.patience(Direction::Read);
        self.source.run(Direction::Read, patience, &mut |socket| socket.peek_from(buf))
    }

    /// Sends one datagram to the first address that `addr` yields, and returns its length. It waits only if the send
    /// buffer is full.
    ///
    /// # Errors
    /// See [`UdpSocket`]; `InvalidInput` if there is no address; `EMSGSIZE` if it is too long for a datagram.
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    #[inline]
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let Some(addr) = addr.to_socket_addrs()?.next() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no addresses to send data to"));
        };
        let patience = self.options.patience(Direction::Write);
        self.source.run(Direction::Write, patience, &mut |socket| socket.send_to(buf, addr))
    }

    /// Waits for a datagram, puts it into `buf`, and returns its length. What is longer than `buf` is cut off.
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
        self.source.run(Direction::Read, self.options.patience(Direction::Read), &mut |socket| socket.recv(buf))
    }

    /// [`recv`](Self::recv), but the datagram stays there for the next call.
    ///
    /// # Errors
    /// See [`UdpSocket`].
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Direction::Read, self.options.patience(Direction::Read), &mut |socket| socket.peek(buf))
    }

    /// Sends one datagram to the address given to [`connect`](Self::connect), and returns its length.
    ///
    /// # Errors
    /// See [`UdpSocket`]; `EDESTADDRREQ` if it is not connected.
    ///
    /// # Panics
    /// See [`UdpSocket`].
    ///
    /// May switch: yes.
    #[inline]
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.source.run(Direction::Write, self.options.patience(Direction::Write), &mut |socket| socket.send(buf))
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

    /// The address given to [`connect`](Self::connect).
    ///
    /// # Errors
    /// `NotConnected` if there is none.
    ///
    /// May switch: no.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.open()?.peer_addr()
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

    /// Allows to send to broadcast addresses (`SO_BROADCAST`).
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.open()?.set_broadcast(on)
    }

    /// Reads `SO_BROADCAST`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.open()?.broadcast()
    }

    /// Sets `IP_TTL`, the number of hops a datagram may take.
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

    /// Whether multicast datagrams of IPv4 come back to this host (`IP_MULTICAST_LOOP`).
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_multicast_loop_v4(&self, on: bool) -> io::Result<()> {
        self.open()?.set_multicast_loop_v4(on)
    }

    /// Reads `IP_MULTICAST_LOOP`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.open()?.multicast_loop_v4()
    }

    /// Sets `IP_MULTICAST_TTL`, the number of hops a multicast datagram of IPv4 may take.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        self.open()?.set_multicast_ttl_v4(ttl)
    }

    /// Reads `IP_MULTICAST_TTL`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.open()?.multicast_ttl_v4()
    }

    /// Whether multicast datagrams of IPv6 come back to this host (`IPV6_MULTICAST_LOOP`).
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_multicast_loop_v6(&self, on: bool) -> io::Result<()> {
        self.open()?.set_multicast_loop_v6(on)
    }

    /// Reads `IPV6_MULTICAST_LOOP`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.open()?.multicast_loop_v6()
    }

    /// Receives what is sent to the group `multiaddr`, on the interface with the address `interface` (0.0.0.0: the
    /// kernel chooses).
    ///
    /// # Errors
    /// `EINVAL` if it is no group; what else setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn join_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.open()?.join_multicast_v4(multiaddr, interface)
    }

    /// Receives what is sent to the group `multiaddr`, on the interface with the index `interface` (0: the kernel
    /// chooses).
    ///
    /// # Errors
    /// `EINVAL` if it is no group; what else setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.open()?.join_multicast_v6(multiaddr, interface)
    }

    /// Ends what [`join_multicast_v4`](Self::join_multicast_v4) began.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if it did not.
    ///
    /// May switch: no.
    pub fn leave_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.open()?.leave_multicast_v4(multiaddr, interface)
    }

    /// Ends what [`join_multicast_v6`](Self::join_multicast_v6) began.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if it did not.
    ///
    /// May switch: no.
    pub fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.open()?.leave_multicast_v6(multiaddr, interface)
    }
}

handle_traits!(UdpSocket, net::UdpSocket, timeouts: |socket: &net::UdpSocket| {
    [(Direction::Read, socket.read_timeout()), (Direction::Write, socket.write_timeout())]
});
into_std_with_timeouts!(UdpSocket, net::UdpSocket);
