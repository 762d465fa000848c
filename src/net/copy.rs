//! Bytes from one descriptor to another, moved by the kernel where it can.
//!
//! ```text
//!   socket ---- read ----> hub's buffer ---- write ----> socket      what comes in small pieces
//!   socket --- splice ---> pipe ----------- splice ----> socket      once a read has filled half the buffer
//!   file   ------------------ sendfile ----------------> socket      regular files
//! ```
//!
//! On either side there may be a program's own pipe in place of a socket. Its bytes go through a second pipe all the same:
//! with one call from end to end, EAGAIN would not say for which of them to wait.
//!
//! A pipe holds references to the pages in which the network left the bytes, so `splice` copies nothing into this
//! process. But it costs two calls for each piece, and one more that says EAGAIN, since the short-read rule does not hold for
//! it; so a conversation of small messages is better off with a buffer. A stream starts with the buffer, changes to the
//! pipe when pieces are large, and back when they become small.
//!
//! What a kernel refuses to splice (EINVAL: it depends on the kinds of both ends), and a process that may have no more
//! descriptors for a pipe, get the buffer for good.
//!
//! * Invariant P1: a pipe in the pool is empty. Upheld by `Lease`, which counts what is inside and closes a pipe in which
//!   something was left, by an error or a kill.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};

use super::lent::Lent;
use super::tcp_stream::TcpStream;
use crate::os::unix::net::UnixStream;
use crate::runtime::reactor::Direction;
use crate::sys::file::{self, Pipe};
use crate::thread::scope;

/// Bytes asked for at once from a socket: what a pipe holds by default.
const PIECE: usize = 64 * 1024;

/// Bytes of a file asked for at once, so that others get their turns between them.
const FILE_PIECE: usize = 256 * 1024;

/// A piece smaller than this ends the use of the pipe.
const SMALL: usize = 4 * 1024;

/// Empty pipes kept by each OS thread.
const KEPT: usize = 4;

thread_local! {
    /// Empty pipes (P1).
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A stream that bytes are moved from or to: a socket, or an end of a pipe in its one direction.
#[derive(Clone, Copy)]
pub(crate) enum Socket<'a> {
    /// TCP.
    Tcp(&'a TcpStream),
    /// Unix.
    Unix(&'a UnixStream),
    /// An end of a pipe.
    Pipe(&'a dyn PipeEnd),
}

/// An end of a pipe, of which this file need not know more.
pub(crate) trait PipeEnd {
    /// A system call, as often as it takes.
    fn run(&self, op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize>;

    /// Waits, then reads into the hub's buffer; of the end that is read.
    fn receive(&self) -> io::Result<Lent>;

    /// Writes all; of the end that is written.
    fn send(&self, bytes: &[u8]) -> io::Result<()>;
}

/// Where bytes come from.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// The other side of a connection.
    Socket(Socket<'a>),
    /// A file, from where it stands.
    File(&'a File),
}

impl Socket<'_> {
    /// A system call in one direction, as often as it takes.
    fn run(self, direction: Direction, op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.run(direction, op),
            Socket::Unix(stream) => stream.run(direction, op),
            Socket::Pipe(end) => end.run(op),
        }
    }

    /// Waits, then reads into the hub's buffer.
    fn receive(self) -> io::Result<Lent> {
        match self {
            Socket::Tcp(stream) => stream.receive(),
            Socket::Unix(stream) => stream.receive(),
            Socket::Pipe(end) => end.receive(),
        }
    }

    /// Writes all.
    fn send(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Tcp(mut stream) => stream.write_all(bytes),
            Socket::Unix(mut stream) => stream.write_all(bytes),
            Socket::Pipe(end) => end.send(bytes),
        }
    }

    /// Ends one direction or both. An error says that it has ended already.
    fn shutdown(self, how: Shutdown) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(how),
            Socket::Unix(stream) => stream.shutdown(how),
            // It has one direction, which ends with its owner.
            Socket::Pipe(_) => Ok(()),
        };
    }
}

/// A pipe out of the pool; goes back if it is empty (P1).
struct Lease {
    /// There until it is dropped.
    pipe: Option<Pipe>,
    /// Bytes inside.
    held: usize,
}

impl Lease {
    /// A pipe, if one is to be had.
    fn take() -> Option<Lease> {
        let kept = POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
        let pipe = match kept {
            Some(pipe) => pipe,
            None => Pipe::new().ok()?,
        };
        Some(Lease { pipe: Some(pipe), held: 0 })
    }

    /// The pipe.
    fn pipe(&self) -> &Pipe {
        match &self.pipe {
            Some(pipe) => pipe,
            None => unreachable!("only the drop takes it"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.held == 0
            && let Some(pipe) = self.pipe.take()
        {
            // Without a pool, since the OS thread is ending, it is closed.
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < KEPT {
                    pool.push(pipe);
                }
            });
        }
    }
}

/// Moves all bytes up to the end of `from`, and says how many those were.
///
/// # Errors
/// Those of both ends.
///
/// # Panics
/// As every blocking call. What was taken out of `from` and not yet given to `to` is lost then.
pub(crate) fn copy(from: Origin<'_>, to: Socket<'_>) -> io::Result<u64> {
    match from {
        Origin::Socket(from) => relay(from, to),
        Origin::File(file) => send_file(file, to),
    }
}

/// [`copy`] between sockets.
fn relay(from: Socket<'_>, to: Socket<'_>) -> io::Result<u64> {
    let (mut total, mut splices) = (0, true);
    loop {
        let large = {
            let lent = from.receive()?;
            if lent.bytes().is_empty() {
                return Ok(total);
            }
            to.send(lent.bytes())?;
            total += lent.bytes().len() as u64;
            lent.bytes().len() >= lent.room() / 2
        };
        if large && splices {
            match through_pipe(from, to, &mut total)? {
                Piped::End => return Ok(total),
                Piped::Small => {}
                Piped::Refused => splices = false,
            }
        }
    }
}

/// Why [`through_pipe`] returned.
enum Piped {
    /// There is no more.
    End,
    /// The last piece was small.
    Small,
    /// These ends cannot be spliced, or no pipe is to be had.
    Refused,
}

/// Moves pieces through a pipe as long as they are large.
fn through_pipe(from: Socket<'_>, to: Socket<'_>, total: &mut u64) -> io::Result<Piped> {
    let Some(mut lease) = Lease::take() else { return Ok(Piped::Refused) };
    loop {
        let taken = from.run(Direction::Read, &mut |fd| file::splice(fd, lease.pipe().tail(), PIECE));
        let piece = match taken {
            Ok(0) => return Ok(Piped::End),
            Ok(piece) => piece,
            Err(error) if is_refusal(&error) => return Ok(Piped::Refused),
            Err(error) => return Err(error),
        };
        lease.held = piece;
        while lease.held > 0 {
            let given = to.run(Direction::Write, &mut |fd| file::splice(lease.pipe().head(), fd, lease.held));
            match given {
                Ok(given) => {
                    lease.held -= given;
                    *total += given as u64;
                }
                // The first piece only: what is in the pipe goes on by hand.
                Err(error) if is_refusal(&error) => {
                    drain(&mut lease, to, total)?;
                    return Ok(Piped::Refused);
                }
                Err(error) => return Err(error),
            }
        }
        if piece < SMALL {
            return Ok(Piped::Small);
        }
    }
}

/// Empties a pipe through the hub's buffer.
fn drain(lease: &mut Lease, to: Socket<'_>, total: &mut u64) -> io::Result<()> {
    while lease.held > 0 {
        let lent = Lent::filled_by(lease.pipe())?;
        to.send(lent.bytes())?;
        lease.held -= lent.bytes().len();
        *total += lent.bytes().len() as u64;
    }
    Ok(())
}

/// [`copy`] out of a file.
fn send_file(from: &File, to: Socket<'_>) -> io::Result<u64> {
    let mut total = 0;
    loop {
        match to.run(Direction::Write, &mut |fd| file::sendfile(fd, from.as_fd(), FILE_PIECE)) {
            Ok(0) => return Ok(total),
            Ok(sent) => total += sent as u64,
            // The file stands where it stood after what was sent.
            Err(error) if is_refusal(&error) => break,
            Err(error) => return Err(error),
        }
    }
    loop {
        let lent = Lent::filled_by(from)?;
        if lent.bytes().is_empty() {
            return Ok(total);
        }
        to.send(lent.bytes())?;
        total += lent.bytes().len() as u64;
    }
}

/// Whether the kernel cannot move bytes between these two, while it can read and write them.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

impl Read for &Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        crate::sys::socket::read(self.head(), buf)
    }
}

/// What can be done with both ends of a connection. The trait is sealed.
mod sealed {
    /// A connection that has two directions.
    pub trait Sealed {
        /// It.
        #[allow(private_interfaces, reason = "a sealed trait that nobody can name")]
        fn socket(&self) -> super::Socket<'_>;
    }
}

/// A connection of which each direction can be ended by itself: [`TcpStream`] and
/// [`UnixStream`](crate::os::unix::net::UnixStream), for [`copy_bidirectional`].
pub trait Duplex: sealed::Sealed {}

impl sealed::Sealed for TcpStream {
    #[allow(private_interfaces, reason = "a sealed trait that nobody can name")]
    fn socket(&self) -> Socket<'_> {
        Socket::Tcp(self)
    }
}

impl sealed::Sealed for UnixStream {
    #[allow(private_interfaces, reason = "a sealed trait that nobody can name")]
    fn socket(&self) -> Socket<'_> {
        Socket::Unix(self)
    }
}

impl Duplex for TcpStream {}
impl Duplex for UnixStream {}

/// Carries what comes from `a` to `b` and what comes from `b` to `a`, until both have ended: the inside of a proxy.
/// Returns how many bytes went from `a` to `b`, and from `b` to `a`.
///
/// The end of one direction is passed on (`shutdown` of the other side's writing), and the other direction goes on: a client
/// that has sent its request and ends its sending half still gets the answer. An error in one direction ends both, with
/// `shutdown` of both connections.
///
/// Large pieces are moved by the kernel, see [`io::copy`](crate::io::copy). One direction runs in the caller, the other in a
/// green thread of its own.
///
/// ```
/// use std::io::{Read, Write};
/// use greenling::net::{Shutdown, TcpListener, TcpStream, copy_bidirectional};
///
/// let backend = TcpListener::bind("127.0.0.1:0")?;
/// let backend_addr = backend.local_addr()?;
/// let proxy = TcpListener::bind("127.0.0.1:0")?;
/// let proxy_addr = proxy.local_addr()?;
/// let echo = greenling::spawn(move || {
///     let (stream, _) = backend.accept().unwrap();
///     std::io::copy(&mut &stream, &mut &stream).unwrap()
/// });
/// let between = greenling::spawn(move || {
///     let (client, _) = proxy.accept().unwrap();
///     copy_bidirectional(&client, &TcpStream::connect(backend_addr).unwrap()).unwrap()
/// });
/// let mut client = TcpStream::connect(proxy_addr)?;
/// client.write_all(b"echo")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut text = String::new();
/// client.read_to_string(&mut text)?;
/// assert_eq!(text, "echo");
/// assert_eq!(between.join().unwrap(), (4, 4));
/// # echo.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The first error of either direction. A read or write timeout of either stream is one (`WouldBlock`), so a read timeout
/// limits how long a direction may be silent.
///
/// # Panics
/// As every blocking call. What was received and not yet sent on is lost then; the connections are left open.
///
/// May switch: yes.
pub fn copy_bidirectional<A: Duplex, B: Duplex>(a: &A, b: &B) -> io::Result<(u64, u64)> {
    let (a, b) = (a.socket(), b.socket());
    let first_error = Cell::new(None);
    let error = &first_error;
    let both = scope(|scope| {
        let back = scope.spawn(move || one_way(b, a, error));
        let there = one_way(a, b, error);
        (there, back.join())
    });
    match (first_error.take(), both) {
        (None, (there, Ok(back))) => Ok((there, back)),
        (Some(error), _) => Err(error),
        // It was killed: its hub is ending, or the caller unwinds.
        (None, (_, Err(error))) => Err(io::Error::other(error.to_string())),
    }
}

/// Carries one direction to its end and passes the end on; says how many bytes there were. The first error is left in
/// `first_error`.
fn one_way(from: Socket<'_>, to: Socket<'_>, first_error: &Cell<Option<io::Error>>) -> u64 {
    match relay(from, to) {
        Ok(total) => {
            to.shutdown(Shutdown::Write);
            total
        }
        Err(error) => {
            first_error.set(first_error.take().or(Some(error)));
            // The other direction sees the end.
            from.shutdown(Shutdown::Both);
            to.shutdown(Shutdown::Both);
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leased pipe with these bytes inside.
    fn filled(bytes: &[u8]) -> Lease {
        let mut lease = Lease::take().unwrap();
        let (source, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        far.write_all(bytes).unwrap();
        lease.held = file::splice(source.as_fd(), lease.pipe().tail(), bytes.len()).unwrap();
        assert_eq!(lease.held, bytes.len());
        lease
    }

    #[test]
    fn what_is_in_a_pipe_when_the_writer_refuses_goes_on_by_hand() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut lease = filled(b"by hand");
        let mut total = 3;
        drain(&mut lease, Socket::Unix(&near), &mut total).unwrap();
        assert_eq!((lease.held, total), (0, 10));
        let mut buf = [0; 7];
        (&far).read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"by hand");
    }

    #[test]
    fn a_pipe_goes_back_to_the_pool_if_it_is_empty() {
        POOL.with(|pool| pool.borrow_mut().clear());
        drop(filled(b"left inside"));
        assert_eq!(POOL.with(|pool| pool.borrow().len()), 0);
        let leases: Vec<Lease> = (0..2 * KEPT).map(|_| Lease::take().unwrap()).collect();
        drop(leases);
        assert_eq!(POOL.with(|pool| pool.borrow().len()), KEPT);
    }
}
