//! Shows what all rungs share: the socket calls, the answers, the log, and a client as event loops see it. Nothing here
//! waits for more than one client; how to wait for many is what the rungs are about.
//!
//! A client of the rungs from `nonblocking` to `epoll-et`:
//!
//! ```text
//!            receive                       flush
//!   socket ----------> queue of answers ----------> socket
//!
//!   wants to read     while the queue is short and the client has not ended
//!   wants to write    while there is something in the queue
//!   is over           when the client has ended and the queue is empty
//! ```
//!
//! The first line is what bounds the memory: who does not take its answers is not read from any more, and TCP makes it
//! wait. The last is what makes a half-closed connection work: the end of the input is not the end of the answers.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use libc::c_int;
use socket2::{SockAddr, SockAddrStorage};

/// How much is read at a time. The documents take 1024.
pub(crate) const BUFFER: usize = 16 * 1024;

/// A client with so many bytes of answers in its queue is not read from.
const QUEUE_LIMIT: usize = 64 * 1024;

/// What the spare descriptor is of; see [`Spare`].
const SPARE: &str = "/dev/null";

/// How long to wait when the kernel has no memory for another connection.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(100);

/// What is sent for what comes in.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    /// The same bytes.
    Echo,
    /// `thank you!` for each piece that one `recv` returned. The documents call such a piece a message, but TCP knows
    /// no messages: two that are sent in quick succession may arrive as one piece, and one as several.
    Thanks,
}

/// What the server does for its clients, whatever the model.
#[derive(Clone, Copy)]
pub(crate) struct Service {
    /// The answers.
    pub(crate) reply: Reply,
    /// How many OS threads `green-hubs` has; 0 is one for each processor.
    pub(crate) hubs: usize,
    /// Nothing is logged.
    pub(crate) quiet: bool,
}

impl Service {
    /// The answer to a piece of input.
    //
    // Mended: the documents decode each piece as text, to print it. A character may lie across two pieces, and a client
    // may send what is no text at all; either ends the server. Bytes are bytes here.
    pub(crate) fn answer<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        match self.reply {
            Reply::Echo => input,
            Reply::Thanks => b"thank you!",
        }
    }

    /// Logs an arrival.
    pub(crate) fn came(&self, peer: SocketAddr) {
        self.log(format_args!("{peer} connected"));
    }

    /// Logs a departure, after `received` bytes of input.
    pub(crate) fn left(&self, peer: SocketAddr, received: u64, how: io::Result<()>) {
        match how {
            Ok(()) => self.log(format_args!("{peer} left after {received} bytes: closed by the client")),
            Err(error) => self.log(format_args!("{peer} left after {received} bytes: {error}")),
        }
    }

    /// Logs that a client cannot be served.
    pub(crate) fn refused(&self, peer: SocketAddr, why: impl std::fmt::Display) {
        self.log(format_args!("{peer} refused: {why}"));
    }

    /// Writes a line, in one piece since processes and threads share the output.
    fn log(&self, line: std::fmt::Arguments) {
        if !self.quiet {
            // Clients are served even if nobody reads the log.
            let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// A system call's result, with -1 turned into the error. A call that a signal interrupted is to be made again.
pub(crate) fn check(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// The socket that accepts.
pub(crate) struct Listener {
    /// It listens.
    fd: OwnedFd,
    /// For a client for whom there is no descriptor.
    spare: Spare,
    /// Whether accepting, and all accepted sockets, are non-blocking.
    nonblocking: bool,
}

impl Listener {
    /// A socket that listens on `addr`; if `shared`, others that are shared may listen there, too.
    pub(crate) fn bind(addr: SocketAddr, shared: bool) -> io::Result<Listener> {
        let name = SockAddr::from(addr);
        // SAFETY: takes numbers only.
        let fd = check(unsafe { libc::socket(name.family().into(), libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: just opened, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        // Mended: the documents set SO_REUSEADDR after bind, if at all. It has to be set before, or a server that is
        // started again cannot have its address as long as a connection of the former one lingers in TIME_WAIT.
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        if shared {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        }
        // SAFETY: `name` is live for the call, and is as long as it says.
        check(unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr().cast(), name.len()) })?;
        // Mended: with listen(3) the fifth client of a burst has to try again after a second. The kernel shortens our
        // number to its own limit.
        // SAFETY: takes numbers only.
        check(unsafe { libc::listen(fd.as_raw_fd(), 4096) })?;
        Ok(Listener { fd, spare: Spare::new(), nonblocking: false })
    }

    /// Where it listens; with the port that the kernel chose for port 0.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let mut name = SockAddrStorage::zeroed();
        let mut len = name.size_of();
        // SAFETY: both are live for the call, `len` says how much room there is, and is set to what was written.
        check(unsafe { libc::getsockname(self.as_raw_fd(), (&raw mut name).cast(), &raw mut len) })?;
        // SAFETY: the kernel has just written so much of an address.
        internet(unsafe { SockAddr::new(name, len) })
    }

    /// From now on others of this user may listen on the same address. Asked for earlier, that would let a second server
    /// take half of the clients of a first one.
    pub(crate) fn share(&self) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)
    }

    /// From now on `accept` does not wait, and neither does any call on an accepted socket.
    //
    // Mended: the documents make the listener non-blocking and leave the accepted sockets as they are, blocking: one
    // client that does not read then stops an event loop in the middle of `send`, and all clients with it.
    pub(crate) fn set_nonblocking(&mut self) -> io::Result<()> {
        // SAFETY: takes numbers only.
        let flags = check(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_GETFL) })?;
        // SAFETY: takes numbers only.
        check(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_SETFL, flags as c_int | libc::O_NONBLOCK) })?;
        self.nonblocking = true;
        Ok(())
    }

    /// The next client, or none if the listener is non-blocking and nobody is in line. A client that has gone again is
    /// skipped; one for whom there is no descriptor is turned away. An error means that the listener is broken.
    pub(crate) fn accept(&self, service: &Service) -> io::Result<Option<(Socket, SocketAddr)>> {
        loop {
            match self.spare.accept(service, || self.accept_once()) {
                Ok(Some(client)) => return Ok(Some(client)),
                // This one was turned away. There may be another in line.
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => wait_after(error)?,
            }
        }
    }

    /// One call of accept.
    fn accept_once(&self) -> io::Result<(Socket, SocketAddr)> {
        let flags = libc::SOCK_CLOEXEC | if self.nonblocking { libc::SOCK_NONBLOCK } else { 0 };
        let mut name = SockAddrStorage::zeroed();
        let mut len = name.size_of();
        // SAFETY: both are live for the call, `len` says how much room there is, and is set to what was written.
        let fd = check(unsafe { libc::accept4(self.as_raw_fd(), (&raw mut name).cast(), &raw mut len, flags) })?;
        // SAFETY: just opened, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        // An answer is complete when it is sent: it must not wait for more to come. Fails only if the client has gone.
        let _ = set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY);
        // SAFETY: the kernel has just written so much of an address.
        let peer = internet(unsafe { SockAddr::new(name, len) })?;
        Ok((Socket(fd), peer))
    }

    /// The socket alone, for a library that has its own calls.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// An address as std has it.
fn internet(addr: SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket().ok_or_else(|| io::Error::other("not an internet address"))
}

/// An open file that is given up to accept, and turn away, a client for whom there is no descriptor; none only if it could
/// not be opened again.
pub(crate) struct Spare(RefCell<Option<File>>);

impl Spare {
    /// Opens it.
    pub(crate) fn new() -> Spare {
        Spare(RefCell::new(File::open(SPARE).ok()))
    }

    /// The next client, by `accept`, which is called once more if there is no descriptor. None if one was turned away.
    pub(crate) fn accept<S>(
        &self,
        service: &Service,
        accept: impl Fn() -> io::Result<(S, SocketAddr)>,
    ) -> io::Result<Option<(S, SocketAddr)>> {
        self.renew();
        let (accepted, was_full) = match accept() {
            // Mended: out of descriptors, accept fails and the client stays in line: an event loop turns at full
            // speed, and the documents' servers end. Ours gives up its spare one for a moment.
            Err(error) if out_of_descriptors(&error) && self.0.take().is_some() => (accept(), Some(error)),
            accepted => (accepted, None),
        };
        if was_full.is_some() {
            self.renew();
        }
        match (accepted, was_full) {
            // No spare one is left: this is the last descriptor there is.
            (Ok((socket, peer)), Some(error)) if self.0.borrow().is_none() => {
                service.refused(peer, error);
                drop(socket);
                self.renew();
                Ok(None)
            }
            (Ok((socket, peer)), _) => {
                service.came(peer);
                Ok(Some((socket, peer)))
            }
            // Also after the first call failed: the kernel looks for a descriptor before it looks for a client.
            (Err(error), _) => Err(error),
        }
    }

    /// Opens it again if it could not be opened when it was to be: an OS thread of ours was quicker.
    fn renew(&self) {
        let open = self.0.take().or_else(|| File::open(SPARE).ok());
        self.0.replace(open);
    }
}

/// Whether a call failed for want of a descriptor.
fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// What to do when accept fails: nothing that ends the server, unless the listener itself is broken.
pub(crate) fn wait_after(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) | None => Err(error),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            thread::sleep(BACK_OFF);
            Ok(())
        }
        // A signal, or an error of a connection that broke while it was in line: see accept(2).
        Some(_) => Ok(()),
    }
}

/// Switches a socket option on.
fn set_option(fd: &OwnedFd, level: c_int, option: c_int) -> io::Result<()> {
    let on: c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` is live for the call, and `len` is its size.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const on).cast(), len) }).map(drop)
}

/// A connection.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Some of what the client sent; 0 bytes mean that it has ended.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the kernel writes at most `len` bytes into the buffer, which is live for the call.
            let result =
                check(unsafe { libc::recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) } as i64);
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map(|count| count as usize),
            }
        }
    }

    /// Sends some of `bytes`; how many, the caller must look at. To a client that has gone this is an error, and not a
    /// signal that ends the process (MSG_NOSIGNAL).
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the kernel reads `len` bytes from the slice, which is live for the call.
            let result =
                check(unsafe { libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) }
                    as i64);
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map(|count| count as usize),
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A client of an event loop; see the picture above. Its socket is non-blocking.
pub(crate) struct Client {
    /// The connection; closed with the client.
    socket: Socket,
    /// Its address.
    //
    // Mended: the documents log `addr`, a variable of the loop: the address of whoever was accepted last.
    peer: SocketAddr,
    /// What it gets, and the log.
    service: Service,
    /// Answers that are not sent yet.
    //
    // Mended: one of the documents makes a new queue for each message, and so loses the answers in the old one; another
    // sends at most one answer per turn and then forgets to ask for the next. One queue of bytes, made once.
    queue: VecDeque<u8>,
    /// The client sends nothing any more.
    ended: bool,
    /// Bytes that it sent.
    received: u64,
}

/// How far an edge-triggered client got; see [`Client::pump`].
#[derive(PartialEq, Eq)]
pub(crate) enum Pumped {
    /// As far as the socket lets it: the next edge says when to go on.
    Blocked,
    /// As far as its turn goes: there may be more, and no edge will say so.
    OutOfTurn,
    /// Over.
    Over,
}

impl Client {
    /// A client that has just connected.
    pub(crate) fn new(socket: Socket, peer: SocketAddr, service: Service) -> Client {
        Client { socket, peer, service, queue: VecDeque::new(), ended: false, received: 0 }
    }

    /// Whether input is to be waited for.
    pub(crate) fn wants_read(&self) -> bool {
        !self.ended && self.queue.len() < QUEUE_LIMIT
    }

    /// Whether room for output is to be waited for.
    pub(crate) fn wants_write(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Reads once, if that is wanted, and sends what can be sent. True if the client is over.
    //
    // Mended: `recv` that returns nothing is the end. The documents' select servers look for an error only, so a
    // client that left in good order stays in their lists for ever, always readable: they turn at full speed.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        if self.wants_read() {
            self.receive()?;
        }
        self.flush()?;
        Ok(self.ended && self.queue.is_empty())
    }

    /// Reads and sends until the socket takes and gives no more, but not for ever: a client that sends without pause
    /// must not keep the others waiting.
    pub(crate) fn pump(&mut self) -> io::Result<Pumped> {
        for _ in 0..16 {
            self.flush()?;
            if self.ended {
                return Ok(if self.queue.is_empty() { Pumped::Over } else { Pumped::Blocked });
            }
            // A full queue that could not be flushed: when there is room again, that is an edge, and the input that was
            // left unread, of which no edge will tell, is read then.
            if !self.wants_read() || !self.receive()? {
                return Ok(Pumped::Blocked);
            }
        }
        Ok(Pumped::OutOfTurn)
    }

    /// Reads once. False if there was nothing.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; BUFFER];
        match self.socket.recv(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                self.received += count as u64;
                self.queue.extend(self.service.answer(&buffer[..count]));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Sends until the queue is empty or the socket is full.
    //
    // Mended: the documents call `send` and do not look at how much it took, so that a long answer loses its end; or
    // `sendall`, which on a non-blocking socket fails in the middle; and they do it also when the client has gone.
    fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            match self.socket.send(self.queue.as_slices().0) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes the connection, and says so.
    pub(crate) fn leave(self, how: io::Result<()>) {
        drop(self.socket);
        self.service.left(self.peer, self.received, how);
    }

    /// Turns a new client away that this model cannot serve.
    pub(crate) fn refuse(self, why: impl std::fmt::Display) {
        self.service.refused(self.peer, why);
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
