//! A connection of Unix sockets: std's, non-blocking, inside a `Source`.
//!
//! The short-read rule is off, although these are streams: a read stops at a message that carries descriptors
//! (`SCM_RIGHTS`) whatever follows it, and the peer alone decides whether it sends such messages. The price is one more
//! read, which says EAGAIN, before each wait.
//!
//! `connect` to a listener whose queue is full says EAGAIN, and no event tells when there is room: std's blocks in the
//! kernel, this one asks again (`Source::run_by_asking`).
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::net::handle::{handle_methods, handle_traits, into_std_with_timeouts, timeout_methods};
use crate::net::lent::Lent;
use crate::net::options::Options;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::unix;

/// A connection of Unix sockets whose calls park the green thread in place of blocking the OS thread; else as
/// [`std::os::unix::net::UnixStream`].
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
    /// The connection.
    source: Source<net::UnixStream>,
    /// Timeouts and mode.
    options: Options,
}

impl UnixStream {
    handle_methods!(net::UnixStream);
    timeout_methods!();

    /// A stream of a non-blocking socket that nobody else knows.
    pub(super) fn of_new_socket(socket: net::UnixStream) -> UnixStream {
        UnixStream { source: Source::new(socket, false, false), options: Options::default() }
    }

    /// Connects to the socket at `path`.
    ///
    /// If as many connections wait for `accept` as the listener allows, it waits until there is room. The kernel tells
    /// nobody of that, so it asks again, first after 0.1 ms, later every 20 ms; those who wait so are not served in
    /// order.
    ///
    /// # Errors
    /// `NotFound`, `ConnectionRefused`, `PermissionDenied`; `InvalidInput` if the path is too long or has a zero byte; and
    /// as [`TcpStream`](crate::net::TcpStream).
    ///
    /// # Panics
    /// As [`TcpStream`](crate::net::TcpStream). An interrupted attempt leaves nothing behind.
    ///
    /// May switch: yes.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// [`connect`](Self::connect) to an address: also one that has no path, see
    /// [`SocketAddrExt`](std::os::linux::net::SocketAddrExt).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    ///
    /// May switch: yes.
    pub fn connect_addr(addr: &SocketAddr) -> io::Result<UnixStream> {
        let stream = UnixStream::of_new_socket(unix::stream_socket()?.into());
        stream.source.run_by_asking(None, &mut |socket| unix::connect(socket.as_fd(), addr))?;
        Ok(stream)
    }

    /// Two streams, connected to each other.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    ///
    /// May switch: no.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (near, far) = net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok((UnixStream::of_new_socket(near), UnixStream::of_new_socket(far)))
    }

    /// The address of this side.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.open()?.local_addr()
    }

    /// The address of the other side.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.open()?.peer_addr()
    }

    /// Ends one direction or both. Whoever waits for it, here or at the other side, is woken: a read returns what has
    /// arrived and then 0, a write fails with `BrokenPipe`.
    ///
    /// # Errors
    /// `NotConnected` if it was never connected, or after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.open()?.shutdown(how)
    }

    /// Ends the connection at once for everybody who has it: green threads that wait for it are woken with an error,
    /// and every later call fails with `NotConnected`. The descriptor is freed when the stream is dropped.
    ///
    /// std has no such call. Clones see the end of the connection as they would see the peer's. Does nothing if it was
    /// closed before.
    ///
    /// May switch: no.
    pub fn close(&self) {
        if let Ok(stream) = self.open() {
            // It does not fail on a connected socket.
            let _ = stream.shutdown(Shutdown::Both);
            self.source.close();
        }
    }

    /// Waits until something can be read *without holding a buffer*, then reads up to 64 KiB into a buffer that the hub keeps
    /// for this purpose, and calls `f` with what was read: an empty slice at the end of the stream. See
    /// [`TcpStream::read_with`](crate::net::TcpStream::read_with).
    ///
    /// # Errors
    /// As [`TcpStream`](crate::net::TcpStream); `f` is not called then.
    ///
    /// # Panics
    /// As [`TcpStream`](crate::net::TcpStream); and with the panics of `f`.
    ///
    /// May switch: yes.
    pub fn read_with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
        let lent = self.receive()?;
        Ok(f(lent.bytes()))
    }

    /// Waits, then reads into the scratch buffer.
    pub(crate) fn receive(&self) -> io::Result<Lent> {
        let patience = self.options.patience(Direction::Read);
        self.source.run(Direction::Read, patience, &mut |stream| Lent::filled_by(stream))
    }

    /// A system call in one direction, as often as it takes; see `Source::run`.
    pub(crate) fn run(
        &self,
        direction: Direction,
        op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.source.run(direction, self.options.patience(direction), &mut |stream| op(stream.as_fd()))
    }
}

/// May switch: yes. See [`TcpStream`](crate::net::TcpStream) for errors and panics.
impl Read for &UnixStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Direction::Read, self.options.patience(Direction::Read), &mut |mut stream| stream.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let patience = self.options.patience(Direction::Read);
        self.source.run(Direction::Read, patience, &mut |mut stream| stream.read_vectored(bufs))
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
        self.source.run(Direction::Write, self.options.patience(Direction::Write), &mut |mut stream| stream.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let patience = self.options.patience(Direction::Write);
        self.source.run(Direction::Write, patience, &mut |mut stream| stream.write_vectored(bufs))
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
into_std_with_timeouts!(UnixStream, net::UnixStream);
