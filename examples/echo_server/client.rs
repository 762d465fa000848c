//! One connection, from the greeting to the goodbye.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use greenling::net::TcpStream;

use crate::cli;
use crate::service::{Event, Service};

/// A client that is served. The drop says goodbye, also when the server's stop unwinds the thread of the client.
pub(crate) struct Client<'a> {
    service: &'a Service,
    peer: SocketAddr,
    /// Bytes sent back so far.
    echoed: Cell<u64>,
    /// Why the client left. Until then, the server's stop is the only reason there can be.
    why: Cell<Why>,
}

/// Why a client left.
pub(crate) enum Why {
    /// The client sent all it wanted to, and has got all bytes back.
    Ended,
    /// The client sent nothing for too long.
    Silent,
    /// The client took nothing for too long.
    Stuck,
    /// The server stops, and the grace is over.
    Stopped,
    /// The connection failed with an error.
    Broken(io::Error),
}

impl<'a> Client<'a> {
    /// Counts and logs a client that has come.
    #[cold]
    pub(crate) fn greet(service: &'a Service, stream: &TcpStream, peer: SocketAddr) -> Client<'a> {
        // Fails only if the client has gone again, and then the first read will say so.
        let _ = stream.set_nodelay(true);
        // SeqCst, as everywhere here: the price is nothing beside that of a connection.
        let clients = service.clients.fetch_add(1, Ordering::SeqCst) + 1;
        service.log(Event::Came { peer, clients });
        Client { service, peer, echoed: Cell::new(0), why: Cell::new(Why::Stopped) }
    }

    /// Sends all of `bytes`. Waits for a client that does not take them, and reads nothing from that client meanwhile.
    //
    // Mended: the documents' gevent server calls `send` once for each piece, and so loses the rest of a long answer.
    #[inline]
    pub(crate) fn send(&self, mut stream: &TcpStream, mut bytes: &[u8]) -> Result<(), Why> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(sent) => {
                    self.echoed.set(self.echoed.get() + sent as u64);
                    bytes = &bytes[sent..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Why::Stuck),
                Err(error) => return Err(Why::Broken(error)),
            }
        }
        Ok(())
    }

    /// Notes why the client left, and returns what the counters of the server want to know of it.
    pub(crate) fn leave(&self, why: Why) -> io::Result<()> {
        let result = match &why {
            Why::Ended | Why::Stopped => Ok(()),
            Why::Silent | Why::Stuck => Err(io::ErrorKind::WouldBlock.into()),
            Why::Broken(error) => Err(error.kind().into()),
        };
        self.why.set(why);
        result
    }
}

impl Drop for Client<'_> {
    #[cold]
    fn drop(&mut self) {
        let clients = self.service.clients.fetch_sub(1, Ordering::SeqCst) - 1;
        let why = self.why.replace(Why::Ended);
        self.service.log(Event::Left { peer: self.peer, echoed: self.echoed.get(), why, clients });
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Ended => f.write_str("closed by the client"),
            Why::Silent => f.write_str("it was silent for too long"),
            Why::Stuck => f.write_str("it took nothing for too long"),
            Why::Stopped => f.write_str("closed since the server stops"),
            Why::Broken(error) => f.write_str(&cli::brief(error)),
        }
    }
}
