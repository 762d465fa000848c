//! A connection of Unix sockets: std's, non-blocking, inside a `Source`.
//!
//! The short-read rule is off, although these are streams: a read stops at a message that carries descriptors
//! (`SCM_RIGHTS`) even if more data follows, and the peer alone decides whether to send such messages. The price is one
//! more read, which says EAGAIN, before each wait.
//!
//! If the queue of the listener is full, `connect` says EAGAIN, and no event reports room in the queue: std's `connect`
//! blocks in the kernel, this one asks again after pauses (`Source::run_with_backoff`).
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
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
use crate::net::scratch::Scratch;
use crate::pure::network::Kind;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::{transfer, unix, virtual_sockets};

/// A connection of Unix sockets, as [`std::os::unix::net::UnixStream`], but calls park the green thread and do not
/// block the OS thread.
///
/// ```
/// use std::io::{Read, Write};
/// use greenling::os::unix::net::{UnixListener, UnixStream};
///
/// let path = std::env::temp_dir().join(format!("greenling-doc-{}.sock", std::process::id()));
/// let listener = UnixListener::bind(&path)?;
/// let server = greenling::spawn(move || {
///     let (mut stream, _) = listener.accept().unwrap();
///     stream.write_all(b"hello").unwrap();
/// });
/// let mut text = String::new();
/// UnixStream::connect(&path)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// server.join().unwrap();
/// std::fs::remove_file(path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Errors and panics of the calls that wait are those of [`TcpStream`](crate::net::TcpStream).
pub struct UnixStream {
    /// The connection, and the green threads that wait for it.
    source: Source<net::UnixStream>,
    /// The timeouts and the mode, shared with clones.
    options: Options,
}

impl UnixStream {
    handle_methods!(net::UnixStream);
    timeout_methods!();

    /// Makes a stream of a new, non-blocking socket that has no other handle.
    pub(super) fn of_new_socket(socket: net::UnixStream) -> UnixStream {
        UnixStream { source: Source::new(socket), options: Options::default() }
    }

    /// Connects to the socket at `path`.
    ///
    /// If as many connections wait for `accept` as the listener allows, the call waits until there is room. The kernel
    /// does not report room, so the call tries again, first after 0.1 ms, later every 20 ms; such callers are not
    /// served in order.
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRefused`, `PermissionDenied`; `InvalidInput` if the path is too long or has a zero byte;
    /// and as [`TcpStream`](crate::net::TcpStream).
    ///
    /// # Panics
    /// As [`TcpStream`](crate::net::TcpStream). An interrupted attempt leaves no socket behind.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Connects to an address, as [`connect`](Self::connect) does. The address need not have a path: see
    /// [`SocketAddrExt`](std::os::linux::net::SocketAddrExt).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn connect_addr(addr: &SocketAddr) -> io::Result<UnixStream> {
        // A dropped stream closes the socket, also when the wait is interrupted.
        let stream = UnixStream::of_new_socket(unix::stream_socket()?.into());
        stream.source.made_at(Location::caller());
        stream.source.run_with_backoff(None, &mut |socket| unix::connect(socket.as_fd(), addr))?;
        Ok(stream)
    }

    /// Makes two streams, connected to each other.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        if let Some(made) = virtual_sockets::pair(Kind::UnixStream) {
            let (near, far) = made?;
            virtual_sockets::made_at(&near, Location::caller());
            virtual_sockets::made_at(&far, Location::caller());
            return Ok((UnixStream::of_new_socket(near.into()), UnixStream::of_new_socket(far.into())));
        }
        // std's sockets are blocking at first.
        let (near, far) = net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok((UnixStream::of_new_socket(near), UnixStream::of_new_socket(far)))
    }

    /// Returns the address of this side.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let stream = self.open()?;
        virtual_sockets::local_name(stream).unwrap_or_else(|| stream.local_addr())
    }

    /// Returns the address of the other side.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let stream = self.open()?;
        virtual_sockets::peer_name(stream).unwrap_or_else(|| stream.peer_addr())
    }

    /// Ends one direction or both. Waiters for that direction, here and at the other side, are woken: a read returns
    /// what has arrived and then 0, a write fails with `BrokenPipe`.
    ///
    /// # Errors
    /// `NotConnected` if the socket was never connected, or after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let stream = self.open()?;
        virtual_sockets::shutdown(stream, how).unwrap_or_else(|| stream.shutdown(how))
    }

    /// Ends the connection at once: green threads that wait for this stream are woken with an error, and every later
    /// call fails with `NotConnected`. The descriptor is freed when the stream is dropped.
    ///
    /// std has no such call. Clones see the end of the connection, as if the peer had ended it. A second call does
    /// nothing.
    ///
    /// May switch: no.
    pub fn close(&self) {
        if self.open().is_ok() {
            // `shutdown` does not fail on a connected socket.
            let _ = self.shutdown(Shutdown::Both);
            self.source.close();
        }
    }

    /// Waits for data *without holding a buffer*, then reads up to 64 KiB into a buffer that the hub keeps for this
    /// purpose, and calls `f` with what was read: an empty slice at the end of the stream. See
    /// [`TcpStream::read_with`](crate::net::TcpStream::read_with).
    ///
    /// # Errors
    /// As [`TcpStream`](crate::net::TcpStream); `f` is not called in this case.
    ///
    /// # Panics
    /// As [`TcpStream`](crate::net::TcpStream); also with the panics of `f`.
    ///
    /// May switch: yes.
    pub fn read_with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
        let scratch = self.receive()?;
        Ok(f(scratch.bytes()))
    }

    /// Waits for data and reads into the hub's scratch buffer.
    pub(crate) fn receive(&self) -> io::Result<Scratch> {
        let timeout = self.options.begin_call(Direction::Read);
        self.source
            .run(Direction::Read, timeout, &mut |stream| Scratch::filled_by(|buf| transfer::recv(stream.as_fd(), buf)))
    }

    /// Calls `op`, and waits and calls again while `op` would block; see `Source::run`.
    pub(crate) fn run(
        &self,
        direction: Direction,
        op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.source.run(direction, self.options.begin_call(direction), &mut |stream| op(stream.as_fd()))
    }
}

ready_arms!(UnixStream: SelectReadable::select_readable by Read, SelectWritable::select_writable by Write);

/// May switch: yes. See [`TcpStream`](crate::net::TcpStream) for errors and panics.
impl Read for &UnixStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // `run` and not `read`, here and below: the short-read rule is off.
        self.source.run(Direction::Read, self.options.begin_call(Direction::Read), &mut |stream| {
            transfer::recv(stream.as_fd(), buf)
        })
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let timeout = self.options.begin_call(Direction::Read);
        self.source.run(Direction::Read, timeout, &mut |stream| transfer::recv_vectored(stream.as_fd(), bufs))
    }
}

/// May switch: yes. See [`TcpStream`](crate::net::TcpStream) for errors and panics.
impl Read for UnixStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

/// May switch: yes. See [`TcpStream`](crate::net::TcpStream) for errors and panics. `flush` does nothing, as std's.
impl Write for &UnixStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.source.run(Direction::Write, self.options.begin_call(Direction::Write), &mut |stream| {
            transfer::send(stream.as_fd(), buf)
        })
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let timeout = self.options.begin_call(Direction::Write);
        self.source.run(Direction::Write, timeout, &mut |stream| transfer::send_vectored(stream.as_fd(), bufs))
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// May switch: yes. See [`TcpStream`](crate::net::TcpStream) for errors and panics. `flush` does nothing, as std's.
impl Write for UnixStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

handle_traits!(UnixStream, net::UnixStream, timeouts: |socket: &net::UnixStream| {
    [(Direction::Read, socket.read_timeout()), (Direction::Write, socket.write_timeout())]
});
descriptor_traits!(UnixStream);
into_std_with_timeouts!(UnixStream, net::UnixStream);
