//! The socket calls that `std::net` cannot make, and plain calls on any descriptor.
//!
//! `std` connects only by blocking, accepts in two system calls (the second makes the socket non-blocking), and sets no
//! option between `socket` and `bind`. Everything else (`read`, `shutdown`, `set_nodelay`, ...) is `std`'s, after
//! `TcpStream::from(OwnedFd)`.
//!
//! Every socket made here is non-blocking and closed on exec from its first moment. A call that would block says
//! `WouldBlock`; nothing here waits, except [`poll_one`].
//!
//! Invariant sys-socket-1: the length passed with a `RawAddr` is never above the size of `bytes`. Upheld by
//! `RawAddr::room` and `RawAddr::from`.

#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::clock::{Timeout, timespec};
use super::epoll::{Interest, Ready};
use super::sockaddr::{RawAddr, family};
use super::{cvt, cvt_len, virtual_sockets};
use crate::pure::network::{Kind, Network, Setting};

/// The error of a call that would have to wait.
pub(crate) const EAGAIN: i32 = libc::EAGAIN;

/// The error of a call on a descriptor that is not open.
pub(crate) const EBADF: i32 = libc::EBADF;

/// Makes a TCP socket of the family of `addr`, non-blocking and closed on exec.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`; `EAFNOSUPPORT` on a kernel without that family.
pub(crate) fn stream_socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointer (socket(2)).
    let fd = cvt(unsafe { libc::socket(family(addr), kind, 0) })?;
    // SAFETY: the kernel has just made `fd`, so the OwnedFd is the only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a TCP socket and begins to connect it to `addr`. The flag says whether the socket is connected
/// already; if not, wait until it is writable, then ask [`take_error`] for the result.
///
/// # Errors
///
/// As [`stream_socket`], and the errors that connect(2) returns at once: `ENETUNREACH`, `EADDRNOTAVAIL` (no free port),
/// ...
pub(crate) fn connect_start(addr: &SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let kind = Kind::Tcp { v6: addr.is_ipv6() };
    if let Some(started) = virtual_sockets::socket(kind, |network, id| network.connect(id, *addr)) {
        return started;
    }
    let socket = stream_socket(addr)?;
    let raw = RawAddr::from(addr);
    // SAFETY: the fd is open, and the kernel reads `len` bytes of `raw` (Invariant sys-socket-1), which lives until the
    // call returns (connect(2)).
    let result = cvt(unsafe { libc::connect(socket.as_raw_fd(), raw.bytes.as_ptr().cast(), raw.len) });
    match result {
        Ok(_) => Ok((socket, true)),
        // After EINTR the kernel goes on connecting as after EINPROGRESS; a second call would return EALREADY.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Ok((socket, false)),
        Err(error) => Err(error),
    }
}

/// Makes a TCP listener on `addr`, non-blocking and closed on exec, with `SO_REUSEADDR` as `std` sets it.
///
/// `backlog` is the number of connections that wait for accept, at most `net.core.somaxconn`. With `reuse_port` several
/// sockets may listen on one address, and the kernel spreads the connections over the sockets; all of them must have
/// the option and belong to one user.
///
/// # Errors
///
/// As [`stream_socket`]; `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` (a port below 1024).
pub(crate) fn bind_listener(addr: &SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<OwnedFd> {
    let kind = Kind::Tcp { v6: addr.is_ipv6() };
    let bound = virtual_sockets::socket(kind, |network, id| {
        network.bind(id, *addr, reuse_port)?;
        network.listen(id, backlog.max(0) as usize)
    });
    if let Some(bound) = bound {
        return bound.map(|(fd, ())| fd);
    }
    let socket = stream_socket(addr)?;
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, true)?;
    if reuse_port {
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, true)?;
    }
    let raw = RawAddr::from(addr);
    // SAFETY: as for connect in `connect_start` (bind(2)).
    cvt(unsafe { libc::bind(socket.as_raw_fd(), raw.bytes.as_ptr().cast(), raw.len) })?;
    listen(socket.as_fd(), backlog)?;
    Ok(socket)
}

/// Makes a bound socket listen, or changes the backlog of one that listens. Connections that wait already stay. With a
/// backlog of 0 the kernel answers no new connections while one waits; the peers try again after a second.
///
/// # Errors
///
/// `EINVAL` after a shutdown; `EADDRINUSE`.
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    if let Some(listens) = virtual_sockets::with(&fd, |network, id| network.listen(id, backlog.max(0) as usize)) {
        return listens;
    }
    // SAFETY: the fd is open, and listen takes no pointer (listen(2)).
    cvt(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

/// The subject of an error of [`accept4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// The process or the system has no descriptors or memory left. The connection stays in the queue.
    Exhausted,
    /// One connection, which has left the queue: it has come and gone, or a firewall has refused it.
    OneConnection,
    /// The listener, which accepts no more connections.
    Listener,
}

/// Classifies an error of [`accept4`]; an error that does not come from the kernel is about the listener.
pub(crate) fn classify_accept_error(error: &io::Error) -> AcceptError {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => AcceptError::Exhausted,
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT) | None => {
            AcceptError::Listener
        }
        Some(_) => AcceptError::OneConnection,
    }
}

/// The kind of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketKind {
    /// An IPv4 or IPv6 socket.
    pub(crate) internet: bool,
    /// A socket of the Unix family.
    pub(crate) unix: bool,
    /// A socket of type SOCK_STREAM.
    pub(crate) stream: bool,
    /// A socket of type SOCK_DGRAM.
    pub(crate) datagram: bool,
    /// A socket that listens for connections.
    pub(crate) listens: bool,
}

/// Returns the kind of the socket; none if `fd` is no socket.
pub(crate) fn socket_kind(fd: BorrowedFd<'_>) -> Option<SocketKind> {
    if let Some(kind) = virtual_sockets::with(&fd, |network, id| Ok((network.kind(id)?, network.listens(id)?))) {
        return kind.ok().map(|(kind, listens)| SocketKind {
            internet: matches!(kind, Kind::Tcp { .. } | Kind::Udp { .. }),
            unix: matches!(kind, Kind::UnixStream | Kind::UnixDatagram),
            stream: kind.is_stream(),
            datagram: !kind.is_stream(),
            listens,
        });
    }
    let domain = option(fd, libc::SO_DOMAIN).ok()?;
    let kind = option(fd, libc::SO_TYPE).ok()?;
    Some(SocketKind {
        internet: domain == libc::AF_INET || domain == libc::AF_INET6,
        unix: domain == libc::AF_UNIX,
        stream: kind == libc::SOCK_STREAM,
        datagram: kind == libc::SOCK_DGRAM,
        listens: option(fd, libc::SO_ACCEPTCONN).is_ok_and(|listens| listens != 0),
    })
}

/// Takes one connection off an internet listener: the socket, non-blocking and closed on exec, and the peer's address.
///
/// # Errors
///
/// `WouldBlock` if no connection waits and `fd` is non-blocking; `ECONNABORTED` and network errors if one has come and
/// gone (accept again); `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`; `InvalidInput` if the peer has no internet address.
pub(crate) fn accept4(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    if let Some(accepted) = virtual_sockets::accept(&fd, Network::accepted_from) {
        return accepted;
    }
    let mut peer = RawAddr::room();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let accepted = loop {
        let (bytes, len) = (peer.bytes.as_mut_ptr().cast(), &raw mut peer.len);
        // SAFETY: the fd is open, and the kernel writes at most `len` bytes, as many as `peer` has room for (Invariant
        // sys-socket-1); a longer address is cut off (accept(2)).
        match cvt(unsafe { libc::accept4(fd.as_raw_fd(), bytes, len, flags) }) {
            // Nothing was written, so `len` is still the size of `bytes`.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    // SAFETY: the kernel has just made `accepted`, so the OwnedFd is the only owner.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
    Ok((accepted, peer.to_std()?))
}

/// Makes `fd` non-blocking or blocking, for all users of the open file, other processes included.
///
/// # Errors
///
/// None for an open file of the usual kinds.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let on = libc::c_int::from(on);
    // SAFETY: the fd is open, and FIONBIO reads one integer, which lives until the call returns (FIONBIO(2const)).
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const on) })?;
    Ok(())
}

/// Ends both directions of a socket, for all users of the open file; a listener stops listening. `std` has this call
/// for streams only.
///
/// # Errors
///
/// `ENOTCONN`, `ENOTSOCK`.
pub(crate) fn shutdown(fd: BorrowedFd<'_>) -> io::Result<()> {
    if let Some(done) = virtual_sockets::shutdown(&fd, std::net::Shutdown::Both) {
        return done;
    }
    // SAFETY: the fd is open, and shutdown takes no pointer (shutdown(2)).
    cvt(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) })?;
    Ok(())
}

/// Takes the pending error of a socket (`SO_ERROR`): the result of a connect, or after [`Ready::ERR`].
///
/// # Errors
///
/// `ENOTSOCK`.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    if let Some(taken) = virtual_sockets::take_error(&fd) {
        return taken;
    }
    match option(fd, libc::SO_ERROR)? {
        0 => Ok(None),
        errno => Ok(Some(io::Error::from_raw_os_error(errno))),
    }
}

/// Reports whether `fd` is a stream socket of a family (IPv4, IPv6, Unix) in which a read that returns fewer bytes than
/// asked for has emptied the queue, so that no second read is needed to learn that. `false` for everything else.
pub(crate) fn is_stream_socket(fd: BorrowedFd<'_>) -> bool {
    if let Some(kind) = virtual_sockets::with(&fd, |network, id| network.kind(id)) {
        return kind.is_ok_and(Kind::is_stream);
    }
    let is_stream = matches!(option(fd, libc::SO_TYPE), Ok(libc::SOCK_STREAM));
    is_stream && matches!(option(fd, libc::SO_DOMAIN), Ok(libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX))
}

/// Reads from any descriptor into `buf`. 0 means the end of the file (or an empty `buf`).
///
/// # Errors
///
/// Those of read(2), `WouldBlock` and `Interrupted` included.
pub(crate) fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the fd is open, and the kernel writes at most `buf.len()` bytes into `buf` (read(2)).
    cvt_len(unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) })
}

/// Writes to any descriptor from `buf`, and returns the number of bytes written.
///
/// # Errors
///
/// Those of write(2), `WouldBlock` and `Interrupted` included. `EPIPE` comes with a SIGPIPE, which Rust programs
/// ignore from the start unless told otherwise.
pub(crate) fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    // SAFETY: the fd is open, and the kernel reads at most `buf.len()` bytes of `buf` (write(2)).
    cvt_len(unsafe { libc::write(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len()) })
}

/// Returns which of `interest` is ready at `fd`, or blocks the OS thread until some is.
///
/// Returns [`Ready::NONE`] if the time is over, and also, early, when a signal interrupts the wait. Unlike epoll,
/// poll takes every kind of descriptor: a regular file is always ready.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn poll_one(fd: BorrowedFd<'_>, interest: Interest, timeout: Timeout) -> io::Result<Ready> {
    // No caller waits here for a socket that may be simulated.
    if let Some(ready) = virtual_sockets::with(&fd, |network, id| Ok(network.readiness(id))) {
        return ready.map(|bits| Ready::of_virtual(bits).covered_by(interest));
    }
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: interest.poll_bits(), revents: 0 };
    let span = timeout.map(timespec);
    let span = span.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the kernel reads and fills one entry, which lives until the call returns as the span does; a null span
    // is for ever, a null mask is none (poll(2), ppoll).
    match cvt(unsafe { libc::ppoll(&raw mut entry, 1, span, ptr::null()) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Ready::NONE),
        result => result.map(|_| Ready::from_poll_bits(entry.revents)),
    }
}

/// Switches `TCP_QUICKACK` on or off.
///
/// # Errors
///
/// `ENOPROTOOPT` if `fd` is no TCP socket.
pub(crate) fn set_quickack(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    if let Some(set) = virtual_sockets::set(&fd, Setting::QuickAck, on.into()) {
        return set;
    }
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, on)
}

/// Reports whether `TCP_QUICKACK` is set.
///
/// # Errors
///
/// As [`set_quickack`].
pub(crate) fn quickack(fd: BorrowedFd<'_>) -> io::Result<bool> {
    if let Some(on) = virtual_sockets::is_set(&fd, Setting::QuickAck) {
        return on;
    }
    Ok(option_of(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK)? != 0)
}

/// Switches a boolean option on or off.
fn set_option(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, on: bool) -> io::Result<()> {
    let on = libc::c_int::from(on);
    let (value, len) = ((&raw const on).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the fd is open, and the kernel reads `len` bytes of `on`, which lives until the call returns
    // (setsockopt(2)).
    cvt(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, len) })?;
    Ok(())
}

/// Reads an integer option of the socket level.
fn option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    option_of(fd, libc::SOL_SOCKET, name)
}

/// Reads an integer option of any level.
fn option_of(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut result: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let value = (&raw mut result).cast();
    // SAFETY: the fd is open, and the kernel writes at most `len` bytes into `result`, which has as many
    // (getsockopt(2)).
    cvt(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value, &raw mut len) })?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    /// Makes a listener on a free port of the given loopback address; returns the address with the port, too.
    fn listener(ip: &str) -> (OwnedFd, SocketAddr) {
        let fd = bind_listener(&SocketAddr::new(ip.parse().unwrap(), 0), 16, false).unwrap();
        let addr = TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap();
        (fd, addr)
    }

    #[test]
    fn a_shorter_queue_keeps_its_clients_and_lets_no_other_in() {
        let (server, addr) = listener("127.0.0.1");
        let first = TcpStream::connect(addr).unwrap();
        listen(server.as_fd(), 0).unwrap();
        let late = TcpStream::connect_timeout(&addr, std::time::Duration::from_millis(50));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        let (_, peer) = accept4(server.as_fd()).unwrap();
        assert_eq!(peer, first.local_addr().unwrap());
        assert_eq!(accept4(server.as_fd()).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn kinds_of_sockets_and_of_errors_are_told_apart() {
        let (server, addr) = listener("127.0.0.1");
        let kind = |fd: BorrowedFd<'_>| socket_kind(fd).map(|kind| (kind.internet, kind.stream, kind.listens));
        assert_eq!(kind(server.as_fd()), Some((true, true, true)));
        assert_eq!(kind(TcpStream::connect(addr).unwrap().as_fd()), Some((true, true, false)));
        assert_eq!(kind(UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()), Some((true, false, false)));
        assert_eq!(kind(UnixDatagram::unbound().unwrap().as_fd()), Some((false, false, false)));
        assert_eq!(kind(File::open("/dev/null").unwrap().as_fd()), None);
        let sorted = |errno| classify_accept_error(&io::Error::from_raw_os_error(errno));
        assert_eq!([libc::EMFILE, libc::ENFILE].map(sorted), [AcceptError::Exhausted; 2]);
        assert_eq!([libc::ECONNABORTED, libc::EPERM].map(sorted), [AcceptError::OneConnection; 2]);
        assert_eq!([libc::EINVAL, libc::EBADF].map(sorted), [AcceptError::Listener; 2]);
        assert_eq!(classify_accept_error(&io::Error::other("no hub")), AcceptError::Listener);
    }

    /// Waits until a connect is over and returns the error.
    fn finish(socket: &OwnedFd) -> Option<io::Error> {
        poll_one(socket.as_fd(), Interest::OUT, None).unwrap();
        take_error(socket.as_fd()).unwrap()
    }

    /// Reports whether the flags of `fd` are those of every socket made here.
    fn is_nonblocking_and_cloexec(fd: &OwnedFd) -> bool {
        // SAFETY: the fd is open, and F_GETFL takes no argument (F_GETFL(2const)).
        let status = cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }).unwrap();
        // SAFETY: as above (F_GETFD(2const)).
        let own = cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }).unwrap();
        status & libc::O_NONBLOCK != 0 && own & libc::FD_CLOEXEC != 0
    }

    #[test]
    fn connect_and_accept_meet_on_both_families() {
        for ip in ["127.0.0.1", "::1"] {
            let (server, addr) = listener(ip);
            let (client, connected) = connect_start(&addr).unwrap();
            assert!(connected || finish(&client).is_none());
            poll_one(server.as_fd(), Interest::IN, None).unwrap();
            let (accepted, peer) = accept4(server.as_fd()).unwrap();
            for fd in [&server, &client, &accepted] {
                assert!(is_nonblocking_and_cloexec(fd));
            }
            let (mut client, mut accepted) = (TcpStream::from(client), TcpStream::from(accepted));
            assert_eq!(peer, client.local_addr().unwrap());
            assert_eq!(accepted.local_addr().unwrap(), addr);
            client.write_all(b"hello").unwrap();
            poll_one(accepted.as_fd(), Interest::IN, None).unwrap();
            let mut buf = [0; 8];
            assert_eq!(accepted.read(&mut buf).unwrap(), 5);
        }
    }

    #[test]
    fn nothing_waits() {
        let (server, _) = listener("127.0.0.1");
        assert_eq!(accept4(server.as_fd()).unwrap_err().kind(), ErrorKind::WouldBlock);
        // A listener that accepts nothing and a full backlog: the connect stays in progress, and the call returns.
        let addr = SocketAddr::new("127.0.0.1".parse().unwrap(), 0);
        let full = TcpListener::from(bind_listener(&addr, 0, false).unwrap());
        let addr = full.local_addr().unwrap();
        let all: Vec<_> = (0..4).map(|_| connect_start(&addr).unwrap()).collect();
        let late = all
            .iter()
            .filter(|(fd, done)| !done && poll_one(fd.as_fd(), Interest::OUT, Some(1_000_000)).unwrap().is_empty());
        assert!(late.count() > 0);
    }

    #[test]
    fn a_refused_connect_ends_with_the_reason() {
        let (server, addr) = listener("127.0.0.1");
        drop(server);
        let error = match connect_start(&addr) {
            Ok((socket, _)) => finish(&socket).expect("nobody listens"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn one_address_is_shared_only_if_all_agree() {
        let addr = SocketAddr::new("127.0.0.1".parse().unwrap(), 0);
        let first = TcpListener::from(bind_listener(&addr, 16, true).unwrap());
        let addr = first.local_addr().unwrap();
        bind_listener(&addr, 16, true).unwrap();
        assert_eq!(bind_listener(&addr, 16, false).unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn nonblocking_can_be_switched_both_ways() {
        let (near, _far) = UnixStream::pair().unwrap();
        set_nonblocking(near.as_fd(), true).unwrap();
        assert_eq!(read(near.as_fd(), &mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        set_nonblocking(near.as_fd(), false).unwrap();
        // SAFETY: the fd is open, and F_GETFL takes no argument (F_GETFL(2const)).
        let status = cvt(unsafe { libc::fcntl(near.as_raw_fd(), libc::F_GETFL) }).unwrap();
        assert_eq!(status & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn the_short_read_rule_holds_for_stream_sockets_alone() {
        let (tcp, _) = listener("127.0.0.1");
        let (tcp6, _) = listener("::1");
        let (unix, _) = UnixStream::pair().unwrap();
        for stream in [tcp.as_fd(), tcp6.as_fd(), unix.as_fd()] {
            assert!(is_stream_socket(stream));
        }
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (datagram, _) = UnixDatagram::pair().unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        for other in [udp.as_fd(), datagram.as_fd(), pipe.as_fd(), file.as_fd()] {
            assert!(!is_stream_socket(other));
        }
        assert_eq!(take_error(pipe.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }

    #[test]
    fn bytes_go_through_a_pipe() {
        let (reader, writer) = io::pipe().unwrap();
        assert_eq!(write(writer.as_fd(), b"green").unwrap(), 5);
        let mut buf = [0; 8];
        assert_eq!(read(reader.as_fd(), &mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"green");
        drop(writer);
        assert_eq!(read(reader.as_fd(), &mut buf).unwrap(), 0);
    }

    #[test]
    fn poll_sees_readiness_and_the_end_of_time() {
        let (near, mut far) = UnixStream::pair().unwrap();
        assert!(poll_one(near.as_fd(), Interest::IN, Some(0)).unwrap().is_empty());
        assert!(poll_one(near.as_fd(), Interest::IN, Some(100_000)).unwrap().is_empty());
        assert_eq!(poll_one(near.as_fd(), Interest::IN | Interest::OUT, None).unwrap(), Ready::OUT);
        far.write_all(b"x").unwrap();
        assert_eq!(poll_one(near.as_fd(), Interest::IN | Interest::OUT, None).unwrap(), Ready::IN | Ready::OUT);
        drop(far);
        let ready = poll_one(near.as_fd(), Interest::IN | Interest::RDHUP, None).unwrap();
        assert!(ready.any(Ready::HUP) && ready.any(Ready::RDHUP));
    }
}
