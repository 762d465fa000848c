//! A TCP connection: std's, non-blocking, inside a `Source`.
//!
//! ```text
//!   TcpStream                  Source                       std::net::TcpStream
//!   read(buf) -- patience --> try, wait, try again --------> recv(2)
//!   set_nodelay, peer_addr, .. ----------------------------> the same method
//! ```
//!
//! The descriptor is non-blocking from its first moment to its last as a green stream; `From` for std's type is the
//! one place that makes it blocking again.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::addr::{ToSocketAddrs, each_addr};
use super::lent::Lent;
use super::options::{Options, Watch, refuse_zero};
use crate::runtime::choose::ReadyArm;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::socket;

/// What one call of recv(2) or send(2) moves at most: beyond it, a short count says nothing (MAX_RW_COUNT).
const MOST_BYTES: usize = 0x7fff_f000;

/// How many buffers readv(2) and writev(2) take; std cuts the list there (UIO_MAXIOV).
const MOST_BUFFERS: usize = 1024;

/// A TCP connection whose calls park the green thread in place of blocking the OS thread; else as
/// [`std::net::TcpStream`].
///
/// ```
/// use std::io::{Read, Write};
/// use greenling::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
/// let server = greenling::spawn(move || {
///     let (mut stream, _) = listener.accept().unwrap();
///     stream.write_all(b"hello").unwrap();
/// });
/// let mut text = String::new();
/// TcpStream::connect(addr)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// server.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Several green threads may use one stream at once, through `&TcpStream` or [`try_clone`](Self::try_clone): one
/// reads while another writes, and those that wait for the same direction get their turns in order.
///
/// A stream stays on its OS thread. To hand a connection over, turn it into std's type and back:
///
/// ```compile_fail
/// # let stream = greenling::net::TcpStream::connect("127.0.0.1:7007").unwrap();
/// std::thread::spawn(move || stream.peer_addr());
/// ```
///
/// # Errors of the calls that wait
/// Besides the kernel's: `WouldBlock` when a read or write timeout passed or the stream is
/// [non-blocking](Self::set_nonblocking); `NotConnected` after [`close`](Self::close); `Other` when the call would have
/// to wait but the caller unwinds from a panic or kill, or its OS thread is ending. A signal never shows
/// (`Interrupted`): the call goes on.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. No data is lost by that: what was read is returned.
pub struct TcpStream {
    /// The connection.
    source: Source<net::TcpStream>,
    /// Timeouts and mode.
    options: Options,
}

impl TcpStream {
    /// For `select!`.
    #[doc(hidden)]
    pub fn select_readable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Read)
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_writable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Write)
    }

    /// A stream of a non-blocking socket that nobody else knows.
    #[inline]
    pub(super) fn of_new_socket(fd: OwnedFd) -> TcpStream {
        TcpStream { source: Source::new(fd.into(), true, false), options: Options::default() }
    }

    /// std's stream, unless `close` was called.
    fn open(&self) -> io::Result<&net::TcpStream> {
        self.source.open()
    }

    /// Connects to `addr`; if it yields several addresses, to the first that answers. Names are looked up without
    /// blocking the hub.
    ///
    /// # Errors
    /// Those of the last address tried; `InvalidInput` if there is none; see [`TcpStream`].
    ///
    /// # Panics
    /// See [`TcpStream`]. An interrupted attempt leaves nothing behind.
    ///
    /// May switch: yes.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        each_addr(addr, |addr| connect(addr, None))
    }

    /// Connects to one address and waits for at most `timeout`.
    ///
    /// # Errors
    /// `TimedOut` when the time is over; `InvalidInput` for a timeout of zero; else as [`connect`](Self::connect).
    ///
    /// # Panics
    /// See [`TcpStream`].
    ///
    /// May switch: yes.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        refuse_zero(Some(timeout))?;
        connect(addr, Some(timeout))
    }

    /// Waits until something can be read, or the end of the stream, without reading it.
    ///
    /// # Errors
    /// See [`TcpStream`]; `WouldBlock` when `limit` has passed.
    pub(crate) fn wait_readable(&self, limit: Option<Duration>) -> io::Result<()> {
        self.source.ready(Direction::Read, limit)
    }

    /// A look at where the conversation stands, for a server that may have to end it.
    pub(crate) fn watch(&self) -> Watch {
        self.options.watch()
    }

    /// The address of the other side.
    ///
    /// # Errors
    /// `NotConnected` if there is none any more.
    ///
    /// May switch: no.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.open()?.peer_addr()
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

    /// Ends one direction or both. Whoever waits for it, here or at the other side, is woken: a read returns what has
    /// arrived and then 0, a write fails with `BrokenPipe`.
    ///
    /// # Errors
    /// `NotConnected` if the connection is over already.
    ///
    /// May switch: no.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.open()?.shutdown(how)
    }

    /// Ends the connection at once for everybody who has it: green threads that wait for it are woken with an error,
    /// and every later call fails with `NotConnected`. The descriptor is freed when the stream is dropped.
    ///
    /// std has no such call, because there a stream that another thread is using cannot be closed safely. Clones
    /// made by [`try_clone`](Self::try_clone) see the end of the connection as they would see the peer's. Does nothing
    /// if it was closed before.
    ///
    /// May switch: no.
    pub fn close(&self) {
        if let Ok(stream) = self.open() {
            // It fails if the peer has ended the connection already.
            let _ = stream.shutdown(Shutdown::Both);
            self.source.close();
        }
    }

    /// Another handle of the same connection. Both share timeouts and mode, as in std.
    ///
    /// # Errors
    /// `EMFILE`; `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        let clone = self.open()?.try_clone()?;
        self.source.set_shared();
        Ok(TcpStream { source: self.source.sibling(clone), options: self.options.share() })
    }

    /// From now on a read that has waited for `timeout` fails with `WouldBlock`, as std's does on Linux; data that
    /// comes later is there for the next read. `None`: it waits for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    ///
    /// May switch: no.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.open()?;
        self.options.set_timeout(Direction::Read, timeout)
    }

    /// [`set_read_timeout`](Self::set_read_timeout) for writes.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    ///
    /// May switch: no.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.open()?;
        self.options.set_timeout(Direction::Write, timeout)
    }

    /// What [`set_read_timeout`](Self::set_read_timeout) set; exact, where the kernel rounds std's.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.open()?;
        Ok(self.options.timeout(Direction::Read))
    }

    /// What [`set_write_timeout`](Self::set_write_timeout) set.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.open()?;
        Ok(self.options.timeout(Direction::Write))
    }

    /// Reads without taking: the next read gets the same bytes again. Waits until there are some.
    ///
    /// # Errors
    /// See [`TcpStream`].
    ///
    /// # Panics
    /// See [`TcpStream`].
    ///
    /// May switch: yes.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Direction::Read, self.options.patience(Direction::Read), &mut |stream| stream.peek(buf))
    }

    /// Waits until something can be read *without holding a buffer*, then reads up to 64 KiB into a buffer that the
    /// hub keeps for this purpose, and calls `f` with what was read: an empty slice at the end of the stream.
    ///
    /// So a connection that is idle costs its stack page and nothing else, where `read` needs a buffer of the
    /// caller's the whole time. `f` may do anything, also wait; a second call meanwhile gets another buffer.
    ///
    /// ```
    /// use std::io::Write;
    /// use greenling::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// client.write_all(b"12 34")?;
    /// let (stream, _) = listener.accept()?;
    /// let words = stream.read_with(|bytes| bytes.split(|b| *b == b' ').count())?;
    /// assert_eq!(words, 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`TcpStream`]; `f` is not called then.
    ///
    /// # Panics
    /// See [`TcpStream`]; and with the panics of `f`.
    ///
    /// May switch: yes.
    #[inline]
    pub fn read_with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
        let lent = self.receive()?;
        Ok(f(lent.bytes()))
    }

    /// Waits, then reads into the scratch buffer.
    #[inline]
    pub(super) fn receive(&self) -> io::Result<Lent> {
        let patience = self.options.patience(Direction::Read);
        let lent = self.source.run(Direction::Read, patience, &mut |stream| Lent::filled_by(stream))?;
        self.source.note_read(lent.bytes().len(), lent.room());
        Ok(lent)
    }

    /// A system call in one direction, as often as it takes; see `Source::run`.
    pub(super) fn run(
        &self,
        direction: Direction,
        op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.source.run(direction, self.options.patience(direction), &mut |stream| op(stream.as_fd()))
    }

    /// Sets `TCP_NODELAY`: small writes are sent at once.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.open()?.set_nodelay(nodelay)
    }

    /// Reads `TCP_NODELAY`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.open()?.nodelay()
    }

    /// Sets `IP_TTL`, the number of hops a packet may take.
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

    /// Takes the error that waits on the socket (`SO_ERROR`).
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.open()?.take_error()
    }

    /// With `true`, calls that would have to wait fail with `WouldBlock`, here and on clones. The kernel's socket is
    /// non-blocking either way.
    ///
    /// A loop over such calls must [`yield_now`](crate::yield_now) or sleep, or nobody else runs.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.open()?;
        self.options.set_nonblocking(nonblocking);
        Ok(())
    }

    /// `read`, for the stream and references to it.
    #[inline]
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(MOST_BYTES);
        self.source.read(self.options.patience(Direction::Read), len, |mut stream| stream.read(buf))
    }

    /// `write`, for the stream and references to it.
    #[inline]
    fn send(&self, buf: &[u8]) -> io::Result<usize> {
        let len = buf.len().min(MOST_BYTES);
        self.source.write(self.options.patience(Direction::Write), len, |mut stream| stream.write(buf))
    }
}

/// Connects to one address.
fn connect(addr: &SocketAddr, timeout: Option<Duration>) -> io::Result<TcpStream> {
    let (fd, connected) = socket::connect_start(addr)?;
    let stream = TcpStream::of_new_socket(fd);
    if !connected {
        stream.source.ready(Direction::Write, timeout).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "connection timed out"),
            _ => error,
        })?;
        if let Some(error) = socket::take_error(stream.as_fd())? {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Bytes that one vectored call moves at most.
fn total(lens: impl Iterator<Item = usize>) -> usize {
    lens.take(MOST_BUFFERS).fold(0, usize::saturating_add).min(MOST_BYTES)
}

/// May switch: yes. See [`TcpStream`] for errors and panics.
impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = total(bufs.iter().map(|buf| buf.len()));
        self.source.read(self.options.patience(Direction::Read), len, |mut stream| stream.read_vectored(bufs))
    }
}

/// May switch: yes. See [`TcpStream`] for errors and panics.
impl Read for TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

/// May switch: yes. See [`TcpStream`] for errors and panics. `flush` does nothing, as std's.
impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = total(bufs.iter().map(|buf| buf.len()));
        self.source.write(self.options.patience(Direction::Write), len, |mut stream| stream.write_vectored(bufs))
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// May switch: yes. See [`TcpStream`] for errors and panics. `flush` does nothing, as std's.
impl Write for TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.get().fmt(f)
    }
}

/// Makes the socket non-blocking, for everybody who shares it, and takes its timeouts over. The green stream waits
/// where std's would, whether or not `set_nonblocking` was called on it: the kernel's flag has another meaning here.
impl From<net::TcpStream> for TcpStream {
    fn from(stream: net::TcpStream) -> TcpStream {
        // It fails for no open descriptor that is a socket; on any other the first call will fail.
        let _ = stream.set_nonblocking(true);
        let options = Options::default();
        for (direction, timeout) in
            [(Direction::Read, stream.read_timeout()), (Direction::Write, stream.write_timeout())]
        {
            if let Ok(Some(timeout)) = timeout {
                // The kernel says "none" for zero, so it is accepted.
                let _ = options.set_timeout(direction, Some(timeout));
            }
        }
        let is_stream = socket::is_stream_socket(stream.as_fd());
        TcpStream { source: Source::new(stream, is_stream, true), options }
    }
}

/// Makes the socket blocking, unless [`set_nonblocking`](TcpStream::set_nonblocking) was called with `true`, and gives
/// it its timeouts. Clones of the green stream share the socket: they would block their OS thread from now on.
impl From<TcpStream> for net::TcpStream {
    fn from(stream: TcpStream) -> net::TcpStream {
        let TcpStream { source, options } = stream;
        let stream = source.into_inner();
        if options.were_used() {
            // None of this fails on an open socket; timeouts were checked when they were set.
            let _ = stream.set_read_timeout(options.timeout(Direction::Read));
            let _ = stream.set_write_timeout(options.timeout(Direction::Write));
        }
        let _ = stream.set_nonblocking(options.nonblocking());
        stream
    }
}

/// As from std's type.
impl From<OwnedFd> for TcpStream {
    fn from(fd: OwnedFd) -> TcpStream {
        TcpStream::from(net::TcpStream::from(fd))
    }
}

/// As into std's type.
impl From<TcpStream> for OwnedFd {
    fn from(stream: TcpStream) -> OwnedFd {
        net::TcpStream::from(stream).into()
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.get().as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.source.get().as_raw_fd()
    }
}

/// As into std's type.
impl IntoRawFd for TcpStream {
    fn into_raw_fd(self) -> RawFd {
        net::TcpStream::from(self).into_raw_fd()
    }
}
