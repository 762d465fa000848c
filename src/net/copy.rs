//! A copy of bytes from one descriptor to another, made by the kernel where possible.
//!
//! ```text
//!   socket ---- read ----> hub's buffer ---- write ----> socket      small chunks
//!   socket --- splice ---> pipe ----------- splice ----> socket      once a read has filled half the buffer
//!   file   ------------------ sendfile ----------------> socket      regular files
//! ```
//!
//! On either side, an end of a program's own pipe may take the place of a socket. Such bytes still go through a second
//! pipe: if one call moved them from end to end, EAGAIN would not say which end to wait for.
//!
//! A pipe holds references to the pages in which the network left the bytes, so `splice` copies nothing into this
//! process. But each chunk costs two calls, and one more that says EAGAIN, since the short-read rule does not hold for
//! `splice`. So a conversation of small messages is better off with a buffer: a copy starts with the buffer, changes to
//! the pipe when chunks are large, and back when they become small.
//!
//! In three cases a copy keeps to the buffer for good: the kernel refuses to splice these kinds of ends (EINVAL), the
//! process may have no more descriptors for a pipe, or another process has made an end blocking. `splice` and
//! `sendfile` have no flag that keeps them from waiting for a socket, so the mode of both ends is checked before the
//! first call, and again after a wait.
//!
//! * Invariant copy-1: a pipe in the pool is empty. Upheld by `PooledPipe`, which counts the bytes inside, and closes a
//!   pipe in which an error or a kill has left some.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;

use super::scratch::Scratch;
use super::tcp_stream::TcpStream;
use super::unix::UnixStream;
use crate::runtime::hub::hub;
use crate::runtime::reactor::Direction;
use crate::switch::root::on_os_thread;
use crate::sys::file::{self, Pipe};
use crate::sys::socket::read;
use crate::sys::transfer::waits;
use crate::thread::{Builder, scope};

/// The bytes that one call asks of a socket: the default size of a pipe.
const CHUNK: usize = 64 * 1024;

/// The bytes of a file that one call sends. Between the calls other green threads get their turns.
const FILE_CHUNK: usize = 256 * 1024;

/// The size below which a chunk ends the use of the pipe.
const SMALL_CHUNK: usize = 4 * 1024;

/// The number of empty pipes that an OS thread keeps.
const POOL_SIZE: usize = 4;

thread_local! {
    /// The empty pipes of this OS thread (copy-1).
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A stream that bytes are moved from or to: a socket, or one end of a pipe.
#[derive(Clone, Copy)]
pub(crate) enum Endpoint<'a> {
    /// A connection of TCP.
    Tcp(&'a TcpStream),
    /// A connection of Unix sockets.
    Unix(&'a UnixStream),
    /// An end of a pipe.
    Pipe(&'a dyn PipeEnd),
}

/// The methods of an end of a pipe that a copy needs. The ends are defined in `io`, a layer above.
pub(crate) trait PipeEnd {
    /// Returns the descriptor of the end.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Calls `op`, and waits and calls again while `op` would block.
    fn run(&self, op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize>;

    /// Waits for data and reads into the hub's buffer. Called on a reading end only.
    fn receive(&self) -> io::Result<Scratch>;

    /// Writes all of `bytes`. Called on a writing end only.
    fn send(&self, bytes: &[u8]) -> io::Result<()>;
}

/// The place that bytes come from.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// A stream, up to its end.
    Endpoint(Endpoint<'a>),
    /// A file, from its position on.
    File(&'a File),
}

impl Endpoint<'_> {
    /// Reports whether the open file is blocking, so that a call without a flag of its own would wait.
    fn is_blocking(&self) -> bool {
        let fd = match self {
            Endpoint::Tcp(stream) => stream.as_fd(),
            Endpoint::Unix(stream) => stream.as_fd(),
            Endpoint::Pipe(end) => end.fd(),
        };
        // If the mode cannot be read, assume the worse one.
        waits(fd).unwrap_or(true)
    }

    /// Calls `op` for one direction, and waits and calls again while `op` would block.
    fn run(self, direction: Direction, op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        match self {
            Endpoint::Tcp(stream) => stream.run(direction, op),
            Endpoint::Unix(stream) => stream.run(direction, op),
            Endpoint::Pipe(end) => end.run(op),
        }
    }

    /// Waits for data and reads into the hub's buffer.
    fn receive(self) -> io::Result<Scratch> {
        match self {
            Endpoint::Tcp(stream) => stream.receive(),
            Endpoint::Unix(stream) => stream.receive(),
            Endpoint::Pipe(end) => end.receive(),
        }
    }

    /// Writes all of `bytes`.
    fn send(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Endpoint::Tcp(mut stream) => stream.write_all(bytes),
            Endpoint::Unix(mut stream) => stream.write_all(bytes),
            Endpoint::Pipe(end) => end.send(bytes),
        }
    }

    /// Ends one direction or both. Ignores the error for a direction that has ended already.
    fn shutdown(self, how: Shutdown) {
        let _ = match self {
            Endpoint::Tcp(stream) => stream.shutdown(how),
            Endpoint::Unix(stream) => stream.shutdown(how),
            // An end of a pipe has one direction, which ends when its owner drops the end.
            Endpoint::Pipe(_) => Ok(()),
        };
    }
}

/// A pipe from the pool. Its drop returns an empty pipe to the pool, and closes any other (copy-1).
struct PooledPipe {
    /// The pipe; taken by the drop alone.
    pipe: Option<Pipe>,
    /// The number of bytes inside the pipe.
    buffered: usize,
}

impl PooledPipe {
    /// Takes a pipe from the pool, or makes one; none if there is no descriptor left.
    fn take() -> Option<PooledPipe> {
        let kept = on_os_thread(|| POOL.try_with(|pool| pool.borrow_mut().pop())).ok().flatten();
        let pipe = match kept {
            Some(pipe) => pipe,
            None => Pipe::new().ok()?,
        };
        Some(PooledPipe { pipe: Some(pipe), buffered: 0 })
    }

    /// Returns the pipe itself.
    fn pipe(&self) -> &Pipe {
        match &self.pipe {
            Some(pipe) => pipe,
            None => unreachable!("only the drop takes the pipe"),
        }
    }
}

impl Drop for PooledPipe {
    fn drop(&mut self) {
        if self.buffered == 0
            && let Some(pipe) = self.pipe.take()
        {
            // There is no pool while the OS thread ends; the pipe is closed then.
            let put = |pool: &RefCell<Vec<Pipe>>| {
                let mut pool = pool.borrow_mut();
                if pool.len() < POOL_SIZE {
                    pool.push(pipe);
                }
            };
            let _ = on_os_thread(|| POOL.try_with(put));
        }
    }
}

/// Moves all bytes up to the end of `from`, and returns how many those were.
///
/// # Errors
/// Those of both ends.
///
/// # Panics
/// As every blocking call. Bytes that were taken out of `from` and not yet given to `to` are lost in this case.
pub(crate) fn copy(from: Origin<'_>, to: Endpoint<'_>) -> io::Result<u64> {
    match from {
        Origin::Endpoint(from) => relay(from, to),
        Origin::File(file) => send_file(file, to),
    }
}

/// Copies from one stream to another, up to the end of `from`.
fn relay(from: Endpoint<'_>, to: Endpoint<'_>) -> io::Result<u64> {
    let (mut total, mut splices) = (0, true);
    loop {
        // One chunk through the buffer, which goes back to the hub before the next wait.
        let large = {
            let scratch = from.receive()?;
            if scratch.bytes().is_empty() {
                return Ok(total);
            }
            to.send(scratch.bytes())?;
            total += scratch.bytes().len() as u64;
            scratch.bytes().len() >= scratch.capacity() / 2
        };
        // A large chunk promises more of them: let the kernel move those.
        if large && splices {
            match splice_through_pipe(from, to, &mut total)? {
                Piped::End => return Ok(total),
                Piped::Small => {}
                Piped::Refused => splices = false,
            }
        }
    }
}

/// The reason why [`splice_through_pipe`] returned.
enum Piped {
    /// The stream has ended.
    End,
    /// The last chunk was small.
    Small,
    /// These ends cannot be spliced without blocking the OS thread, or not at all, or there is no pipe.
    Refused,
}

/// Moves chunks through a pipe for as long as they are large.
fn splice_through_pipe(from: Endpoint<'_>, to: Endpoint<'_>, total: &mut u64) -> io::Result<Piped> {
    if from.is_blocking() || to.is_blocking() {
        // Another process, or a handle that became std's, has made an end blocking. Only reads and writes have a flag
        // against that.
        return Ok(Piped::Refused);
    }
    let Some(mut pooled) = PooledPipe::take() else { return Ok(Piped::Refused) };
    loop {
        // More than one call for an end says that there was a wait, during which the mode of an end may have changed.
        let mut calls = 0;
        let taken = from.run(Direction::Read, &mut |fd| {
            calls += 1;
            file::splice(fd, pooled.pipe().tail(), CHUNK)
        });
        let chunk = match taken {
            Ok(0) => return Ok(Piped::End),
            Ok(chunk) => chunk,
            Err(error) if is_refusal(&error) => return Ok(Piped::Refused),
            Err(error) => return Err(error),
        };
        // Every return without an error must have moved these bytes on.
        pooled.buffered = chunk;
        while pooled.buffered > 0 {
            // After a wait the mode of `to` may have changed: move the rest of the chunk through the buffer.
            if calls > 1 && to.is_blocking() {
                drain_pipe(&mut pooled, to, total)?;
                return Ok(Piped::Refused);
            }
            let given = to.run(Direction::Write, &mut |fd| {
                calls += 1;
                file::splice(pooled.pipe().head(), fd, pooled.buffered)
            });
            match given {
                Ok(given) => {
                    pooled.buffered -= given;
                    *total += given as u64;
                }
                // Only the first chunk can be refused. Its bytes are in the pipe already and go on through the buffer.
                Err(error) if is_refusal(&error) => {
                    drain_pipe(&mut pooled, to, total)?;
                    return Ok(Piped::Refused);
                }
                Err(error) => return Err(error),
            }
        }
        if chunk < SMALL_CHUNK {
            return Ok(Piped::Small);
        }
        if calls > 2 && (from.is_blocking() || to.is_blocking()) {
            return Ok(Piped::Refused);
        }
    }
}

/// Moves what is left in a pipe through the hub's buffer.
fn drain_pipe(pooled: &mut PooledPipe, to: Endpoint<'_>, total: &mut u64) -> io::Result<()> {
    while pooled.buffered > 0 {
        let scratch = Scratch::filled_by(|buf| read(pooled.pipe().head(), buf))?;
        to.send(scratch.bytes())?;
        pooled.buffered -= scratch.bytes().len();
        *total += scratch.bytes().len() as u64;
    }
    Ok(())
}

/// Copies from a file to a stream, up to the end of the file.
fn send_file(from: &File, to: Endpoint<'_>) -> io::Result<u64> {
    let mut total = 0;
    // `sendfile` has no flag against a blocking socket either, and each call may have waited.
    while !to.is_blocking() {
        match to.run(Direction::Write, &mut |fd| file::sendfile(fd, from.as_fd(), FILE_CHUNK)) {
            Ok(0) => return Ok(total),
            Ok(sent) => total += sent as u64,
            // The position of the file is behind the bytes that were sent, so the buffer goes on from there.
            Err(error) if is_refusal(&error) => break,
            Err(error) => return Err(error),
        }
    }
    // The rest goes through the buffer.
    loop {
        let scratch = Scratch::filled_by(|buf| (&mut &*from).read(buf))?;
        if scratch.bytes().is_empty() {
            return Ok(total);
        }
        to.send(scratch.bytes())?;
        total += scratch.bytes().len() as u64;
    }
}

/// Reports whether `error` says that the kernel cannot move bytes between two ends, though reads and writes may work.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// The methods of [`Duplex`], which other crates cannot implement.
mod sealed {
    /// A connection that has two directions.
    pub trait Sealed {
        /// Returns the connection as an endpoint of a copy.
        #[allow(private_interfaces, reason = "a sealed trait that other crates cannot name")]
        fn socket(&self) -> super::Endpoint<'_>;
    }
}

/// A connection that can end each direction by itself, for [`copy_bidirectional`]: [`TcpStream`] and
/// [`UnixStream`](crate::os::unix::net::UnixStream).
pub trait Duplex: sealed::Sealed {}

impl sealed::Sealed for TcpStream {
    #[allow(private_interfaces, reason = "a sealed trait that other crates cannot name")]
    fn socket(&self) -> Endpoint<'_> {
        Endpoint::Tcp(self)
    }
}

impl sealed::Sealed for UnixStream {
    #[allow(private_interfaces, reason = "a sealed trait that other crates cannot name")]
    fn socket(&self) -> Endpoint<'_> {
        Endpoint::Unix(self)
    }
}

impl Duplex for TcpStream {}
impl Duplex for UnixStream {}

/// Copies from `a` to `b` and from `b` to `a` until both directions have ended, as a proxy does. Returns how many bytes
/// went from `a` to `b`, and from `b` to `a`.
///
/// The end of one direction is passed on (`shutdown` of the other side's writing), and the other direction goes on: a
/// client that ends its sending half after the request still gets the answer. An error in one direction ends both, with
/// `shutdown` of both connections.
///
/// The kernel moves large chunks, see [`io::copy`](crate::io::copy). One direction runs in the caller, the other in a
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
/// The first error of either direction. A read or write timeout of either stream is an error (`WouldBlock`), so a read
/// timeout limits how long a direction may be silent. If there is no memory for the other thread's stack, or no
/// descriptor for a hub, nothing was moved and the connections are as before.
///
/// # Panics
/// As every blocking call. Bytes that were received and not yet sent on are lost in this case; the connections stay
/// open.
///
/// May switch: yes.
#[track_caller]
pub fn copy_bidirectional<A: Duplex, B: Duplex>(a: &A, b: &B) -> io::Result<(u64, u64)> {
    let (a, b) = (a.socket(), b.socket());
    let (first_error, site) = (Cell::new(None), Location::caller());
    let error = &first_error;
    // Without a hub, `scope` would panic.
    hub()?;
    // One direction in a thread of its own, the other here; the scope ends when both have.
    let both = scope(|scope| {
        let back = Builder::new().at(site).spawn_scoped(scope, move || one_way(b, a, error))?;
        let there = one_way(a, b, error);
        io::Result::Ok((there, back.join()))
    })?;
    match (first_error.take(), both) {
        (None, (there, Ok(back))) => Ok((there, back)),
        (Some(error), _) => Err(error),
        // The other thread was killed, because its hub ends or the caller unwinds.
        (None, (_, Err(error))) => Err(io::Error::other(error.to_string())),
    }
}

/// Copies one direction to its end, passes the end on, and returns how many bytes that were. The first error of both
/// directions stays in `first_error`.
fn one_way(from: Endpoint<'_>, to: Endpoint<'_>, first_error: &Cell<Option<io::Error>>) -> u64 {
    match relay(from, to) {
        Ok(total) => {
            to.shutdown(Shutdown::Write);
            total
        }
        Err(error) => {
            first_error.set(first_error.take().or(Some(error)));
            // The shutdown lets the other direction see an end.
            from.shutdown(Shutdown::Both);
            to.shutdown(Shutdown::Both);
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a pipe with these bytes inside.
    fn filled(bytes: &[u8]) -> PooledPipe {
        let mut pooled = PooledPipe::take().unwrap();
        let (source, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        far.write_all(bytes).unwrap();
        pooled.buffered = file::splice(source.as_fd(), pooled.pipe().tail(), bytes.len()).unwrap();
        assert_eq!(pooled.buffered, bytes.len());
        pooled
    }

    #[test]
    fn bytes_in_a_pipe_go_on_through_the_buffer_when_the_writer_refuses() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut pooled = filled(b"by hand");
        let mut total = 3;
        drain_pipe(&mut pooled, Endpoint::Unix(&near), &mut total).unwrap();
        assert_eq!((pooled.buffered, total), (0, 10));
        let mut buf = [0; 7];
        (&far).read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"by hand");
    }

    #[test]
    fn a_pipe_goes_back_to_the_pool_if_it_is_empty() {
        POOL.with(|pool| pool.borrow_mut().clear());
        drop(filled(b"left inside"));
        assert_eq!(POOL.with(|pool| pool.borrow().len()), 0);
        let pipes: Vec<PooledPipe> = (0..2 * POOL_SIZE).map(|_| PooledPipe::take().unwrap()).collect();
        drop(pipes);
        assert_eq!(POOL.with(|pool| pool.borrow().len()), POOL_SIZE);
    }
}
