//! A TCP connection: std's, non-blocking, inside a `Source`.
//!
//! ```text
//!   TcpStream                  Source                       std::net::TcpStream
//!   read(buf) -- timeout ---> try, wait, try again --------> recv(2)
//!   set_nodelay, peer_addr, .. ----------------------------> the same method
//! ```
//!
//! The descriptor is non-blocking for as long as a green stream owns it; only the conversion into std's type makes the
//! descriptor blocking again.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::Location;
use std::time::Duration;

use super::addr::{ToSocketAddrs, each_addr};
use super::options::{Options, StageView, refuse_zero};
use super::scratch::Scratch;
use crate::pure::network::Setting;
use crate::runtime::arms::ReadyArm;
use crate::runtime::reactor::Direction;
use crate::runtime::select_source::{SelectReadable, SelectWritable};
use crate::runtime::source::Source;
use crate::sys::{socket, transfer, virtual_sockets};

/// The most bytes that one call of recv(2) or send(2) moves: a count below the caller's length says nothing beyond
/// this.
const MAX_RW_COUNT: usize = 0x7fff_f000;

/// The most buffers that readv(2) and writev(2) take; std cuts the list there.
const UIO_MAXIOV: usize = 1024;

/// A TCP connection, as [`std::net::TcpStream`], but calls park the green thread and do not block the OS thread.
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
/// A stream stays on its OS thread. To hand a connection over, convert the stream into std's type, and back there:
///
/// ```compile_fail
/// # let stream = greenling::net::TcpStream::connect("127.0.0.1:7007").unwrap();
/// std::thread::spawn(move || stream.peer_addr());
/// ```
///
/// # Errors of the calls that wait
/// Besides the kernel's: `WouldBlock` when a read or write timeout passed or the stream is
/// [non-blocking](Self::set_nonblocking); `NotConnected` after [`close`](Self::close); `Other` when the call would have
/// to wait but the caller unwinds from a panic or kill, or the OS thread is ending. A signal interrupts no call, so
/// there is no `Interrupted`.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. No data is lost: a call that has read something returns it.
pub struct TcpStream {
    /// The connection, and the green threads that wait for it.
    source: Source<net::TcpStream>,
    /// The timeouts and the mode, shared with clones.
    options: Options,
}

impl TcpStream {
    /// Makes a stream of a new, non-blocking socket that has no other handle.
    #[inline]
    pub(crate) fn of_new_socket(fd: OwnedFd) -> TcpStream {
        TcpStream { source: Source::tcp(fd.into()), options: Options::default() }
    }

    /// Returns the stream, made by the caller at `place`.
    #[inline]
    pub(crate) fn made_at(self, place: &'static Location<'static>) -> TcpStream {
        self.source.made_at(place);
        self
    }

    /// Returns the socket, as it was accepted, for another hub. Only for a stream that nothing has used.
    pub(crate) fn into_new_socket(self) -> OwnedFd {
        self.source.into_inner().into()
    }

    /// Returns std's stream, unless `close` was called.
    pub(crate) fn open(&self) -> io::Result<&net::TcpStream> {
        self.source.open()
    }

    /// Connects to `addr`; of several addresses, to the first that answers. Names are looked up without blocking the
    /// hub.
    ///
    /// # Errors
    /// Those of the last address tried; `InvalidInput` if there is none; see [`TcpStream`].
    ///
    /// # Panics
    /// See [`TcpStream`]. An interrupted attempt leaves no socket behind.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        Ok(each_addr(addr, |addr| connect(addr, None))?.made_at(Location::caller()))
    }

    /// Connects to one address, and waits for at most `timeout`.
    ///
    /// # Errors
    /// `TimedOut` when `timeout` has passed; `InvalidInput` for a timeout of zero; else as [`connect`](Self::connect).
    ///
    /// # Panics
    /// See [`TcpStream`].
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        refuse_zero(Some(timeout))?;
        Ok(connect(addr, Some(timeout))?.made_at(Location::caller()))
    }

    /// Waits until there is data to read or the end of the stream, and reads neither.
    ///
    /// # Errors
    /// See [`TcpStream`]; `WouldBlock` when `limit` has passed.
    pub(crate) fn wait_readable(&self, limit: Option<Duration>) -> io::Result<()> {
        self.source.ready(Direction::Read, limit)
    }

    /// Returns a view of the conversation's stage, for a server that may have to end the conversation.
    pub(crate) fn stage_view(&self) -> StageView {
        self.options.stage_view()
    }

    /// Returns the address of the other side.
    ///
    /// # Errors
    /// `NotConnected` if the connection has ended.
    ///
    /// May switch: no.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let stream = self.open()?;
        virtual_sockets::peer_addr(stream).unwrap_or_else(|| stream.peer_addr())
    }

    /// Returns the address of this side.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let stream = self.open()?;
        virtual_sockets::local_addr(stream).unwrap_or_else(|| stream.local_addr())
    }

    /// Ends one direction or both. Waiters for that direction, here and at the other side, are woken: a read returns
    /// what has arrived and then 0, a write fails with `BrokenPipe`.
    ///
    /// # Errors
    /// `NotConnected` if the connection has ended already.
    ///
    /// May switch: no.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let stream = self.open()?;
        virtual_sockets::shutdown(stream, how).unwrap_or_else(|| stream.shutdown(how))
    }

    /// Ends the connection at once: green threads that wait for this stream are woken with an error, and every later
    /// call fails with `NotConnected`. The descriptor is freed when the stream is dropped.
    ///
    /// std has no such call, because there a stream that another thread is using cannot be closed safely. Clones
    /// made by [`try_clone`](Self::try_clone) see the end of the connection, as if the peer had ended it. A second call
    /// does nothing.
    ///
    /// May switch: no.
    pub fn close(&self) {
        if self.open().is_ok() {
            // `shutdown` fails if the peer has ended the connection already.
            let _ = self.shutdown(Shutdown::Both);
            self.source.close();
        }
    }

    /// Makes another handle of the same connection. Both share timeouts and mode, as in std.
    ///
    /// # Errors
    /// `EMFILE`; `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    #[track_caller]
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        // The open file has a second descriptor from now on, so closing one does not take it out of the epoll set.
        let stream = self.open()?;
        let clone = stream.try_clone()?;
        virtual_sockets::duplicated(stream, &clone)?;
        virtual_sockets::made_at(&clone, Location::caller());
        self.source.set_shared();
        Ok(TcpStream { source: self.source.sibling(clone), options: self.options.share() })
    }

    /// Sets how long a read may wait before it fails with `WouldBlock`, as std's does on Linux. Data that arrives later
    /// is there for the next read. With `None`, a read waits for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    ///
    /// May switch: no.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.open()?;
        self.options.set_timeout(Direction::Read, timeout)
    }

    /// Sets how long a write may wait: see [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    ///
    /// May switch: no.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.open()?;
        self.options.set_timeout(Direction::Write, timeout)
    }

    /// Returns what [`set_read_timeout`](Self::set_read_timeout) set: exactly, where the kernel rounds std's.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.open()?;
        Ok(self.options.timeout(Direction::Read))
    }

    /// Returns what [`set_write_timeout`](Self::set_write_timeout) set.
    ///
    /// # Errors
    /// `NotConnected` after [`close`](Self::close).
    ///
    /// May switch: no.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.open()?;
        Ok(self.options.timeout(Direction::Write))
    }

    /// Waits for data and copies some into `buf`. The next read gets the same bytes again.
    ///
    /// # Errors
    /// See [`TcpStream`].
    ///
    /// # Panics
    /// See [`TcpStream`].
    ///
    /// May switch: yes.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.run(Direction::Read, self.options.begin_call(Direction::Read), &mut |stream| {
            transfer::peek(stream.as_fd(), buf)
        })
    }

    /// Waits for data *without holding a buffer*, then reads up to 64 KiB into a buffer that the hub keeps for this
    /// purpose, and calls `f` with what was read: an empty slice at the end of the stream.
    ///
    /// So an idle connection costs no more than a page of stack, while `read` needs a buffer of the caller for the
    /// whole wait. `f` may do anything, also wait; a second call meanwhile gets another buffer.
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
    /// See [`TcpStream`]; `f` is not called in this case.
    ///
    /// # Panics
    /// See [`TcpStream`]; also with the panics of `f`.
    ///
    /// May switch: yes.
    #[inline]
    pub fn read_with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
        let scratch = self.receive()?;
        Ok(f(scratch.bytes()))
    }

    /// Waits for data and reads into the hub's scratch buffer.
    #[inline]
    pub(super) fn receive(&self) -> io::Result<Scratch> {
        let timeout = self.options.begin_call(Direction::Read);
        let scratch = self.source.run(Direction::Read, timeout, &mut |stream| {
            Scratch::filled_by(|buf| transfer::recv(stream.as_fd(), buf))
        })?;
        // The short-read rule, before anything else runs that could see a new event.
        self.source.note_read(scratch.bytes().len(), scratch.capacity());
        Ok(scratch)
    }

    /// Calls `op`, and waits and calls again while `op` would block; see `Source::run`.
    pub(super) fn run(
        &self,
        direction: Direction,
        op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.source.run(direction, self.options.begin_call(direction), &mut |stream| op(stream.as_fd()))
    }

    /// Sets `TCP_NODELAY`: small writes are sent at once.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        let stream = self.open()?;
        let set = virtual_sockets::set(stream, Setting::NoDelay, nodelay.into());
        set.unwrap_or_else(|| stream.set_nodelay(nodelay))
    }

    /// Reads `TCP_NODELAY`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn nodelay(&self) -> io::Result<bool> {
        let stream = self.open()?;
        virtual_sockets::is_set(stream, Setting::NoDelay).unwrap_or_else(|| stream.nodelay())
    }

    /// Sets `IP_TTL`, the number of hops a packet may take.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    ///
    /// May switch: no.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let stream = self.open()?;
        virtual_sockets::set(stream, Setting::Ttl, ttl).unwrap_or_else(|| stream.set_ttl(ttl))
    }

    /// Reads `IP_TTL`.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn ttl(&self) -> io::Result<u32> {
        let stream = self.open()?;
        virtual_sockets::setting(stream, Setting::Ttl).unwrap_or_else(|| stream.ttl())
    }

    /// Takes the pending error of the socket (`SO_ERROR`).
    ///
    /// # Errors
    /// What getsockopt(2) says.
    ///
    /// May switch: no.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        socket::take_error(self.open()?.as_fd())
    }

    /// Chooses whether calls that would have to wait fail with `WouldBlock`, here and on clones. The kernel's socket is
    /// non-blocking either way.
    ///
    /// A loop over such calls must [`yield_now`](crate::yield_now) or sleep, or no other green thread runs.
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

    /// Reads, for the `Read` of the stream and of references to it.
    #[inline]
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        // The short-read rule compares the count with what the kernel would move at most.
        let len = buf.len().min(MAX_RW_COUNT);
        self.source.read(self.options.begin_call(Direction::Read), len, |stream| transfer::recv(stream.as_fd(), buf))
    }

    /// Writes, for the `Write` of the stream and of references to it.
    #[inline]
    fn send(&self, buf: &[u8]) -> io::Result<usize> {
        let len = buf.len().min(MAX_RW_COUNT);
        self.source.write(self.options.begin_call(Direction::Write), len, |stream| transfer::send(stream.as_fd(), buf))
    }
}

impl SelectReadable for TcpStream {
    type Arm<'s>
        = ReadyArm<'s>
    where
        Self: 's;

    fn select_readable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Read)
    }
}

impl SelectWritable for TcpStream {
    type Arm<'s>
        = ReadyArm<'s>
    where
        Self: 's;

    fn select_writable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Write)
    }
}

/// Starts to connect to one address, and waits for the result.
fn connect(addr: &SocketAddr, timeout: Option<Duration>) -> io::Result<TcpStream> {
    let (fd, connected) = socket::connect_start(addr)?;
    let stream = TcpStream::of_new_socket(fd);
    if !connected {
        // A socket that connects becomes writable at the end of the attempt, and `SO_ERROR` says how the attempt ended.
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

/// Returns the most bytes that one vectored call moves.
fn total(lens: impl Iterator<Item = usize>) -> usize {
    lens.take(UIO_MAXIOV).fold(0, usize::saturating_add).min(MAX_RW_COUNT)
}

/// May switch: yes. See [`TcpStream`] for errors and panics.
impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // As in `recv`, for the sum of the lengths.
        let len = total(bufs.iter().map(|buf| buf.len()));
        self.source
            .read(self.options.begin_call(Direction::Read), len, |stream| transfer::recv_vectored(stream.as_fd(), bufs))
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
        self.source.write(self.options.begin_call(Direction::Write), len, |stream| {
            transfer::send_vectored(stream.as_fd(), bufs)
        })
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
        let stream = self.source.get();
        virtual_sockets::fmt(stream, "TcpStream", f).unwrap_or_else(|| stream.fmt(f))
    }
}

/// Makes the socket non-blocking, for all handles and processes that share it, and takes over its timeouts. The green
/// stream waits where a blocking one would, even after std's `set_nonblocking(true)`: the kernel's flag has another
/// meaning here.
impl From<net::TcpStream> for TcpStream {
    fn from(stream: net::TcpStream) -> TcpStream {
        // Making an open socket non-blocking does not fail; if the descriptor is none, the first call fails.
        let _ = stream.set_nonblocking(true);
        let options = Options::default();
        for (direction, timeout) in
            [(Direction::Read, stream.read_timeout()), (Direction::Write, stream.write_timeout())]
        {
            if let Ok(Some(timeout)) = timeout {
                // The kernel reports a zero timeout as none, so `set_timeout` accepts what it reports.
                let _ = options.set_timeout(direction, Some(timeout));
            }
        }
        // std's type may hold a descriptor of another kind, for which the short-read rule does not hold.
        let is_stream = socket::is_stream_socket(stream.as_fd());
        TcpStream { source: (if is_stream { Source::tcp(stream) } else { Source::new(stream) }).shared(), options }
    }
}

/// Makes the socket blocking, unless [`set_nonblocking`](TcpStream::set_nonblocking) was called with `true`, and hands
/// the timeouts over to the kernel. Clones of the green stream share the kernel's socket, and still park.
impl From<TcpStream> for net::TcpStream {
    fn from(stream: TcpStream) -> net::TcpStream {
        let TcpStream { source, options } = stream;
        let stream = source.into_inner();
        if options.were_used() {
            // Setting a timeout does not fail on an open socket: its value was checked when it was set.
            let _ = stream.set_read_timeout(options.timeout(Direction::Read));
            let _ = stream.set_write_timeout(options.timeout(Direction::Write));
        }
        let _ = stream.set_nonblocking(options.nonblocking());
        stream
    }
}

/// Converts as `From` does for std's type.
impl From<OwnedFd> for TcpStream {
    fn from(fd: OwnedFd) -> TcpStream {
        TcpStream::from(net::TcpStream::from(fd))
    }
}

/// Converts as the conversion into std's type does.
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

/// Converts as the conversion into std's type does.
impl IntoRawFd for TcpStream {
    fn into_raw_fd(self) -> RawFd {
        net::TcpStream::from(self).into_raw_fd()
    }
}
