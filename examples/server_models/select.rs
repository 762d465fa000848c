//! Shows select(2): one thread sleeps until the kernel says which descriptors are ready. The sets are bitmaps with room
//! for 1024 descriptors, copied in and out and scanned on each call. The next rung but one, `poll`, knows no such
//! limit; `select-stdin`, in between, waits for something that is no socket.
//!
//! ```text
//!   fd_set    bit   0 1 2 3 4 5 6 7 ...                1023
//!   in              . . . 1 1 1 . 1      what to watch: written anew before each call,
//!   out             . . . . . 1 . .      what is ready: since the kernel overwrites it
//! ```
#![allow(unsafe_code)]

use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use crate::shared::{Client, Listener, Service, check};

/// Serves the clients that are ready.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    let mut server = Server::new(listener, service)?;
    loop {
        server.turn(None)?;
    }
}

/// A set of descriptors, each less than FD_SETSIZE.
struct Set(libc::fd_set);

impl Set {
    /// Makes an empty set.
    fn new() -> Set {
        // SAFETY: an fd_set is an array of integers, and all zeros is what FD_ZERO makes of it.
        Set(unsafe { mem::zeroed() })
    }

    /// Adds a descriptor to the set.
    fn insert(&mut self, fd: RawFd) {
        assert!(fits(fd), "descriptor {fd} lies outside of an fd_set");
        // SAFETY: the bit lies in the set, which is ours.
        unsafe { libc::FD_SET(fd, &raw mut self.0) }
    }

    /// Reports whether the kernel left a descriptor in the set.
    fn contains(&self, fd: RawFd) -> bool {
        // SAFETY: as in `insert`: only what fits was inserted, and only that is asked for.
        fits(fd) && unsafe { libc::FD_ISSET(fd, &raw const self.0) }
    }
}

/// Reports whether a set has a bit for this descriptor. In C, FD_SET with a larger one writes past the end of the set.
fn fits(fd: RawFd) -> bool {
    (0..libc::FD_SETSIZE as RawFd).contains(&fd)
}

/// A select server: the listener and the clients.
pub(crate) struct Server {
    /// The socket that accepts.
    listener: Listener,
    /// The answers, and the log.
    service: Service,
    /// The clients. Each has a descriptor that fits.
    clients: Vec<Client>,
}

impl Server {
    /// Returns a server without clients.
    pub(crate) fn new(mut listener: Listener, service: Service) -> io::Result<Server> {
        listener.set_nonblocking()?;
        Ok(Server { listener, service, clients: Vec::new() })
    }

    /// Sleeps until a client is ready, and serves all that are. Returns whether `other` is readable; the caller is to
    /// read it.
    pub(crate) fn turn(&mut self, other: Option<RawFd>) -> io::Result<bool> {
        let (mut readable, mut writable) = (Set::new(), Set::new());
        let mut highest = self.listener.as_raw_fd();
        readable.insert(highest);
        if let Some(fd) = other {
            readable.insert(fd);
        }
        for client in &self.clients {
            let fd = client.as_raw_fd();
            highest = highest.max(fd);
            if client.wants_read() {
                readable.insert(fd);
            }
            // Mended: the documents leave a client in the list of writers, or send without being in it. A socket is
            // writable nearly always: watched without need, it lets select return at once, for ever.
            if client.wants_write() {
                writable.insert(fd);
            }
        }
        // The third set is for urgent data. Mended: the documents take that set for a list of broken connections.
        let none = ptr::null_mut();
        // SAFETY: both sets are live for the call; null means: no third set, and no limit on the time.
        let result =
            check(unsafe { libc::select(highest + 1, &raw mut readable.0, &raw mut writable.0, none, none.cast()) });
        match result {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            result => result?,
        };
        // Backwards, so that a removal moves only clients that had their turn. New ones come last of all.
        for at in (0..self.clients.len()).rev() {
            let fd = self.clients[at].as_raw_fd();
            if readable.contains(fd) || writable.contains(fd) {
                match self.clients[at].turn() {
                    Ok(false) => {}
                    Ok(true) => self.clients.swap_remove(at).leave(Ok(())),
                    Err(error) => self.clients.swap_remove(at).leave(Err(error)),
                }
            }
        }
        if readable.contains(self.listener.as_raw_fd()) {
            self.admit()?;
        }
        Ok(other.is_some_and(|fd| readable.contains(fd)))
    }

    /// Takes in the next client, if the descriptor fits.
    fn admit(&mut self) -> io::Result<()> {
        let Some((socket, peer)) = self.listener.accept(&self.service)? else { return Ok(()) };
        let client = Client::new(socket, peer, self.service);
        let fd = client.as_raw_fd();
        if fits(fd) {
            self.clients.push(client);
        } else {
            client.refuse(format_args!("descriptor {fd} is beyond FD_SETSIZE ({})", libc::FD_SETSIZE));
        }
        Ok(())
    }
}
