//! Reads and writes that never wait, whatever the mode of the open file.
//!
//! ```text
//!   sockets   recvfrom, sendto, recvmsg, sendmsg    with MSG_DONTWAIT
//!   pipes     preadv2, pwritev2                     with RWF_NOWAIT, where the kernel has it for them (Linux 6.4)
//! ```
//!
//! `O_NONBLOCK` belongs to the open file, and any process with a descriptor of the file may clear the flag: a child
//! process that was given a duplicate, or another handle here that becomes one of `std`'s. A flag of the call cannot be
//! cleared, and costs nothing. `accept4`, `splice` and `sendfile` on the side of a socket have no such flag: see their
//! callers.
//!
//! Invariant sys-transfer-1: the message that goes to `recvmsg` and `sendmsg` names the caller's buffers, at most
//! [`MOST_BUFFERS`], and no address and no control data. Upheld by `message`.

#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix;

use super::sockaddr::RawAddr;
use super::unix::UnixAddr;
use super::{cvt_len, virtual_sockets};
use crate::pure::network::errno::Result;
use crate::pure::network::{Network, SocketId, Way};

/// The most buffers that one call takes (`UIO_MAXIOV`); as in `std`, further ones wait for the next call.
const MOST_BUFFERS: usize = 1024;

/// The flags of a call that receives.
const RECEIVE: libc::c_int = libc::MSG_DONTWAIT;

/// The flags of a call that sends: no SIGPIPE, as in `std`.
const SEND: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Receives from a socket. 0 is the end of a stream, an empty datagram, or an empty `buf`.
///
/// # Errors
///
/// Those of recv(2), `WouldBlock` and `Interrupted` included.
#[inline]
pub(crate) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    if let Some(received) = received(fd, buf, |network, id, buf| network.recv(id, buf, false)) {
        return received;
    }
    // SAFETY: the fd is open, and the kernel writes at most `buf.len()` bytes into `buf` (recv(2)).
    cvt_len(unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), RECEIVE) })
}

/// Copies bytes as [`recv`] does, but leaves them for the next call.
///
/// # Errors
///
/// As [`recv`].
pub(crate) fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    if let Some(received) = received(fd, buf, |network, id, buf| network.recv(id, buf, true)) {
        return received;
    }
    let flags = RECEIVE | libc::MSG_PEEK;
    // SAFETY: as for `recv`.
    cvt_len(unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) })
}

/// Receives from an internet socket, and returns the sender's address. With `peek` the datagram stays for the next
/// call.
///
/// # Errors
///
/// As [`recv`]; `InvalidInput` if the sender has no internet address.
#[inline]
pub(crate) fn recv_from(fd: BorrowedFd<'_>, buf: &mut [u8], peek: bool) -> io::Result<(usize, SocketAddr)> {
    if let Some(received) = received(fd, buf, |network, id, buf| network.recv_from(id, buf, peek)) {
        return received;
    }
    let flags = if peek { RECEIVE | libc::MSG_PEEK } else { RECEIVE };
    let mut sender = RawAddr::room();
    let (bytes, len) = (sender.bytes.as_mut_ptr().cast(), &raw mut sender.len);
    // SAFETY: the fd is open, and the kernel writes at most `buf.len()` bytes into `buf`, and at most `len` bytes, as
    // many as `sender` has room for (Invariant sys-socket-1), of an address (recv(2)).
    let n = cvt_len(unsafe { libc::recvfrom(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags, bytes, len) })?;
    Ok((n, sender.to_std()?))
}

/// Receives from a Unix socket, and returns the sender's address.
///
/// # Errors
///
/// As [`recv`]; `InvalidInput` if the sender has no Unix address.
pub(crate) fn recv_from_unix(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, unix::net::SocketAddr)> {
    if let Some(received) = received(fd, buf, |network, id, buf| network.recv_unix_datagram(id, buf, false)) {
        return received.and_then(|(count, name)| Ok((count, virtual_sockets::std_name(&name)?)));
    }
    let mut sender = UnixAddr::room();
    let mut size = sender.len as libc::socklen_t;
    let (bytes, len) = (sender.bytes.as_mut_ptr().cast(), &raw mut size);
    let (data, room) = (buf.as_mut_ptr().cast(), buf.len());
    // SAFETY: as for `recv_from`, by Invariant sys-unix-1.
    let n = cvt_len(unsafe { libc::recvfrom(fd.as_raw_fd(), data, room, RECEIVE, bytes, len) })?;
    sender.len = size as usize;
    Ok((n, sender.to_std()?))
}

/// Sends on a connected socket, and returns how many bytes of `buf` were sent.
///
/// # Errors
///
/// Those of send(2), `WouldBlock` and `Interrupted` included.
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    if let Some(sent) = sent(fd, buf, Network::send) {
        return sent;
    }
    // SAFETY: the fd is open, and the kernel reads at most `buf.len()` bytes of `buf` (send(2)).
    cvt_len(unsafe { libc::send(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), SEND) })
}

/// Sends a datagram to an internet address.
///
/// # Errors
///
/// As [`send`].
#[inline]
pub(crate) fn send_to(fd: BorrowedFd<'_>, buf: &[u8], to: &SocketAddr) -> io::Result<usize> {
    if let Some(sent) = sent(fd, buf, |network, id, buf| network.send_udp(id, buf, Some(*to))) {
        return sent;
    }
    let to = RawAddr::from(to);
    let (bytes, len) = (to.bytes.as_ptr().cast(), to.len);
    // SAFETY: as for `send`, and the kernel reads `len` bytes of `to` (Invariant sys-socket-1), which lives until the
    // call returns (send(2)).
    cvt_len(unsafe { libc::sendto(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), SEND, bytes, len) })
}

/// Sends a datagram to a Unix address.
///
/// # Errors
///
/// As [`send`].
pub(crate) fn send_to_unix(fd: BorrowedFd<'_>, buf: &[u8], to: &unix::net::SocketAddr) -> io::Result<usize> {
    let name = || virtual_sockets::name_of(to);
    if let Some(sent) = sent(fd, buf, |network, id, buf| network.send_unix_datagram(id, buf, Some(&name()))) {
        return sent;
    }
    let to = UnixAddr::from(to);
    let (bytes, len) = (to.bytes.as_ptr().cast(), to.len as libc::socklen_t);
    // SAFETY: as for `send_to`, by Invariant sys-unix-1.
    cvt_len(unsafe { libc::sendto(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), SEND, bytes, len) })
}

/// Makes a message of some buffers (sys-transfer-1).
fn message(buffers: *const libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: all zeros is a valid `msghdr`: no address, no buffers, no control data.
    let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    message.msg_iov = buffers.cast_mut();
    // The type of this field differs between C libraries.
    message.msg_iovlen = count.min(MOST_BUFFERS) as _;
    message
}

/// Receives into several buffers, one after the other.
///
/// # Errors
///
/// As [`recv`].
pub(crate) fn recv_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    if let Some(received) = recv_vectored_virtual(fd, bufs) {
        return received;
    }
    let mut message = message(bufs.as_mut_ptr().cast(), bufs.len());
    // SAFETY: the fd is open, an `IoSliceMut` is laid out as an `iovec` (its documentation), and the kernel writes into
    // what these name and into `message`, which live until the call returns (Invariant sys-transfer-1, recv(2)).
    cvt_len(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, RECEIVE) })
}

/// Sends out of several buffers, one after the other.
///
/// # Errors
///
/// As [`send`].
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let len = || bufs.iter().take(MOST_BUFFERS).map(|buf| buf.len()).sum();
    let send = |network: &mut Network, id, most: usize| network.send(id, &gathered(bufs)[..most]);
    if let Some(sent) = virtual_sockets::transfer(&fd, Way::Send, len, send) {
        return sent;
    }
    let message = message(bufs.as_ptr().cast(), bufs.len());
    // SAFETY: as for `recv_vectored`; the kernel only reads.
    cvt_len(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, SEND) })
}

/// Receives by `f` what a simulated socket has; none from one of the kernel.
#[inline(always)]
fn received<R>(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    f: impl FnOnce(&mut Network, SocketId, &mut [u8]) -> Result<R>,
) -> Option<io::Result<R>> {
    let len = buf.len();
    virtual_sockets::transfer(&fd, Way::Receive, || len, |network, id, most| f(network, id, &mut buf[..most]))
}

/// Sends by `f` out of a simulated socket; none for one of the kernel.
#[inline(always)]
fn sent<R>(
    fd: BorrowedFd<'_>,
    buf: &[u8],
    f: impl FnOnce(&mut Network, SocketId, &[u8]) -> Result<R>,
) -> Option<io::Result<R>> {
    virtual_sockets::transfer(&fd, Way::Send, || buf.len(), |network, id, most| f(network, id, &buf[..most]))
}

/// Receives as [`recv_vectored`] does, from a simulated socket; none from one of the kernel.
#[inline(always)]
fn recv_vectored_virtual(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> Option<io::Result<usize>> {
    // Both closures look at the buffers, one after the other.
    let bufs = std::cell::RefCell::new(bufs);
    let room = || bufs.borrow().iter().take(MOST_BUFFERS).map(|buf| buf.len()).sum();
    virtual_sockets::transfer(&fd, Way::Receive, room, |network, id, most| {
        let mut bufs = bufs.borrow_mut();
        let mut whole = vec![0; most];
        let received = network.recv(id, &mut whole, false)?;
        let mut rest = &whole[..received];
        for buf in bufs.iter_mut().take(MOST_BUFFERS) {
            let (now, later) = rest.split_at(buf.len().min(rest.len()));
            buf[..now.len()].copy_from_slice(now);
            rest = later;
        }
        Ok(received)
    })
}

/// Returns the bytes of as many buffers as one call takes.
#[cold]
fn gathered(bufs: &[IoSlice<'_>]) -> Vec<u8> {
    bufs.iter().take(MOST_BUFFERS).flat_map(|buf| buf.iter().copied()).collect()
}

/// Reads from a pipe into several buffers. 0 is the end of the data.
///
/// # Errors
///
/// Those of preadv2(2), `WouldBlock` and `Interrupted` included; `Unsupported` if the kernel has no such flag for this
/// file.
pub(crate) fn read_pipe(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let (buffers, count) = (bufs.as_mut_ptr().cast(), bufs.len().min(MOST_BUFFERS) as libc::c_int);
    // SAFETY: as for `recv_vectored`; an offset of -1 is "where the file stands" (preadv2(2)).
    cvt_len(unsafe { libc::preadv2(fd.as_raw_fd(), buffers, count, -1, libc::RWF_NOWAIT) }).map_err(unsupported)
}

/// Writes to a pipe from several buffers.
///
/// # Errors
///
/// As [`read_pipe`]; `BrokenPipe`.
pub(crate) fn write_pipe(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let (buffers, count) = (bufs.as_ptr().cast(), bufs.len().min(MOST_BUFFERS) as libc::c_int);
    // SAFETY: as for `read_pipe`; the kernel only reads.
    cvt_len(unsafe { libc::pwritev2(fd.as_raw_fd(), buffers, count, -1, libc::RWF_NOWAIT) }).map_err(unsupported)
}

/// Maps the errors by which kernels and sandboxes reject an unknown call or flag to `Unsupported`.
fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM) => io::ErrorKind::Unsupported.into(),
        _ => error,
    }
}

/// Reports whether calls on the open file wait, that is, whether `O_NONBLOCK` is clear.
///
/// # Errors
///
/// None for an open descriptor.
pub(crate) fn waits(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // The kernel can move no bytes of a simulated socket, as it may not those of a blocking one.
    if virtual_sockets::is_virtual(&fd) {
        return Ok(true);
    }
    // SAFETY: the fd is open, and F_GETFL takes no argument (F_GETFL(2const)).
    super::cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }).map(|flags| flags & libc::O_NONBLOCK == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    /// Makes a connected pair of sockets.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Checks files that are all blocking: a call that waits would hang the test.
    #[test]
    fn no_call_waits_for_a_stream_although_it_is_blocking() {
        let (tcp, _tcp_far) = connected();
        let (unix, _unix_far) = UnixStream::pair().unwrap();
        for fd in [tcp.as_fd(), unix.as_fd()] {
            assert!(waits(fd).unwrap());
            let mut buf = [0; 4];
            assert_eq!(recv(fd, &mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(peek(fd, &mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
            let mut bufs = [IoSliceMut::new(&mut buf)];
            assert_eq!(recv_vectored(fd, &mut bufs).unwrap_err().kind(), ErrorKind::WouldBlock);
            let full = vec![1; 1 << 20];
            while send(fd, &full).is_ok() {}
            assert_eq!(send(fd, &full).unwrap_err().kind(), ErrorKind::WouldBlock);
            let full = [IoSlice::new(&full), IoSlice::new(&full)];
            assert_eq!(send_vectored(fd, &full).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn no_call_waits_for_a_datagram_although_the_socket_is_blocking() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for peek in [true, false] {
            assert_eq!(recv_from(udp.as_fd(), &mut [0], peek).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        let (near, _far) = UnixDatagram::pair().unwrap();
        assert_eq!(recv_from_unix(near.as_fd(), &mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        while send(near.as_fd(), b"x").is_ok() {}
        assert_eq!(send(near.as_fd(), b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn bytes_and_addresses_come_over_as_stds_calls_have_them() {
        let (near, mut far) = connected();
        let bufs = [IoSlice::new(b"gre"), IoSlice::new(b"en")];
        assert_eq!(send_vectored(near.as_fd(), &bufs).unwrap(), 5);
        let mut text = [0; 5];
        far.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"green");
        far.write_all(b"back").unwrap();
        let (mut one, mut two) = ([0; 3], [0; 3]);
        super::super::socket::poll_one(near.as_fd(), super::super::epoll::Interest::IN, None).unwrap();
        assert_eq!(peek(near.as_fd(), &mut one).unwrap(), 3);
        let read = recv_vectored(near.as_fd(), &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)]).unwrap();
        assert_eq!((read, &one, &two), (4, b"bac", b"k\0\0"));
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let (first, second) = (UdpSocket::bind(ip).unwrap(), UdpSocket::bind(ip).unwrap());
            let (from, to) = (first.local_addr().unwrap(), second.local_addr().unwrap());
            assert_eq!(send_to(first.as_fd(), b"datagram", &to).unwrap(), 8);
            let mut buf = [0; 16];
            assert_eq!(recv_from(second.as_fd(), &mut buf, true).unwrap(), (8, from));
            assert_eq!(recv_from(second.as_fd(), &mut buf, false).unwrap(), (8, from));
        }
    }

    #[test]
    fn unix_senders_have_the_names_that_std_says() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("greenling-transfer-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let receiver = UnixDatagram::bind_addr(&unix::net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let to = receiver.local_addr().unwrap();
        let bound = UnixDatagram::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let named = UnixDatagram::bind_addr(&unix::net::SocketAddr::from_abstract_name(b"a\0b").unwrap()).unwrap();
        let unnamed = UnixDatagram::unbound().unwrap();
        for sender in [&bound, &named, &unnamed] {
            for _ in 0..2 {
                assert_eq!(send_to_unix(sender.as_fd(), b"x", &to).unwrap(), 1);
            }
            let mut buf = [0; 2];
            let (n, from) = recv_from_unix(receiver.as_fd(), &mut buf).unwrap();
            let (_, by_std) = receiver.recv_from(&mut buf).unwrap();
            assert_eq!((n, format!("{from:?}")), (1, format!("{by_std:?}")));
            assert_eq!(from.is_unnamed(), by_std.is_unnamed());
        }
    }

    #[test]
    fn more_buffers_than_the_kernel_takes_are_no_error() {
        let (near, far) = UnixStream::pair().unwrap();
        let many = vec![IoSlice::new(b"x"); MOST_BUFFERS + 5];
        assert_eq!(send_vectored(near.as_fd(), &many).unwrap(), MOST_BUFFERS);
        let mut room = vec![[0; 1]; MOST_BUFFERS + 5];
        let mut bufs: Vec<_> = room.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        assert_eq!(recv_vectored(far.as_fd(), &mut bufs).unwrap(), MOST_BUFFERS);
    }

    #[test]
    fn a_blocking_pipe_does_not_wait_where_the_kernel_has_the_flag() {
        let (reader, writer) = io::pipe().unwrap();
        let mut buf = [0; 8];
        match read_pipe(reader.as_fd(), &mut [IoSliceMut::new(&mut buf)]) {
            Err(error) if error.kind() == ErrorKind::Unsupported => return, // before Linux 6.4
            empty => assert_eq!(empty.unwrap_err().kind(), ErrorKind::WouldBlock),
        }
        assert_eq!(write_pipe(writer.as_fd(), &[IoSlice::new(b"gr"), IoSlice::new(b"een")]).unwrap(), 5);
        assert_eq!(read_pipe(reader.as_fd(), &mut [IoSliceMut::new(&mut buf)]).unwrap(), 5);
        assert_eq!(&buf[..5], b"green");
        let full = vec![0; 1 << 20];
        while write_pipe(writer.as_fd(), &[IoSlice::new(&full)]).is_ok() {}
        let error = write_pipe(writer.as_fd(), &[IoSlice::new(&full)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop(reader);
        // A child that another test has forked may have the reader for a moment longer.
        let end = (0..10_000).find_map(|_| {
            let kind = write_pipe(writer.as_fd(), &[IoSlice::new(b"x")]).unwrap_err().kind();
            std::thread::sleep(std::time::Duration::from_millis(1));
            (kind != ErrorKind::WouldBlock).then_some(kind)
        });
        assert_eq!(end, Some(ErrorKind::BrokenPipe));
    }
}
