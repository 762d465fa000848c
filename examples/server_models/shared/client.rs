//! A client of the event loops, from `nonblocking` to `epoll-et`. The socket is non-blocking.
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
//! The first line bounds the memory: the server does not read from a client that does not take the answers, and TCP
//! makes that client wait. The last line makes a half-closed connection work: the end of the input is not the end of
//! the answers.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use super::{BUFFER, Service, Socket};

/// A client with so many bytes of answers in the queue is not read from.
const QUEUE_LIMIT: usize = 64 * 1024;

/// A client of an event loop; see the picture above.
pub(crate) struct Client {
    /// The connection; closed with the client.
    socket: Socket,
    /// The address of the client.
    //
    // Mended: the documents log `addr`, a variable of the loop: the address of the client that was accepted last.
    peer: SocketAddr,
    /// The answers, and the log.
    service: Service,
    /// Answers that are not sent yet.
    //
    // Mended: one of the documents makes a new queue for each message, and so loses the answers in the old one; another
    // sends at most one answer per turn and then forgets to ask for the next. One queue of bytes, made once.
    queue: VecDeque<u8>,
    /// The client sends nothing any more.
    ended: bool,
    /// Bytes that the client sent.
    received: u64,
}

/// How far an edge-triggered client got; see [`Client::pump`].
#[derive(PartialEq, Eq)]
pub(crate) enum Pumped {
    /// As far as the socket allows: the next edge says when to go on.
    Blocked,
    /// As far as the turn goes: there may be more, and no edge will say so.
    OutOfTurn,
    /// The conversation is over.
    Over,
}

impl Client {
    /// Returns a client that has just connected.
    pub(crate) fn new(socket: Socket, peer: SocketAddr, service: Service) -> Client {
        Client { socket, peer, service, queue: VecDeque::new(), ended: false, received: 0 }
    }

    /// Reports whether the server is to wait for input.
    pub(crate) fn wants_read(&self) -> bool {
        !self.ended && self.queue.len() < QUEUE_LIMIT
    }

    /// Reports whether the server is to wait for room for output.
    pub(crate) fn wants_write(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Reads once, if that is wanted, and sends what can be sent. Returns whether the client is over.
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

    /// Reads once, and returns whether there was anything to read.
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
    // Mended: the documents call `send` and do not look at how much was taken, so that a long answer loses the end; or
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

    /// Closes the connection, and logs that.
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
