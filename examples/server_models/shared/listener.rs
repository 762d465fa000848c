//! The socket that accepts, and what to do when a client cannot be accepted.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::RwLock;
use std::thread;
use std::time::Duration;

use libc::c_int;
use socket2::{SockAddr, SockAddrStorage};

use super::socket::set_option;
use super::{Service, Socket, check};

/// The file that the spare descriptor is of; see [`Spare`].
const SPARE: &str = "/dev/null";

/// Held to accept; exclusively by the OS thread that has given up its spare descriptor, since all OS threads of the
/// process share one table of descriptors.
static ACCEPTING: RwLock<()> = RwLock::new(());

/// How long to wait when the kernel has no memory for another connection.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(100);

/// The socket that accepts.
pub(crate) struct Listener {
    fd: OwnedFd,
    /// For a client for which there is no descriptor.
    spare: Spare,
    /// Whether accepting, and all accepted sockets, are non-blocking.
    nonblocking: bool,
}

impl Listener {
    /// Returns a socket that listens on `addr`; if `shared`, others that are shared may listen there, too.
    pub(crate) fn bind(addr: SocketAddr, shared: bool) -> io::Result<Listener> {
        let name = SockAddr::from(addr);
        // SAFETY: takes numbers only.
        let fd = check(unsafe { libc::socket(name.family().into(), libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: just opened, and owned by nothing else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        // Mended: the documents set SO_REUSEADDR after bind, if at all. It must come before: a server that is
        // started again cannot have the address as long as a connection of the former one lingers in TIME_WAIT.
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        if shared {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        }
        // SAFETY: `name` is live for the call, and the length is right.
        check(unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr().cast(), name.len()) })?;
        // Mended: with listen(3) the fifth client of a burst has to try again after a second. The kernel shortens our
        // number to its own limit.
        // SAFETY: takes numbers only.
        check(unsafe { libc::listen(fd.as_raw_fd(), 4096) })?;
        Ok(Listener { fd, spare: Spare::new(), nonblocking: false })
    }

    /// Returns the address; with the port that the kernel chose for port 0.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let mut name = SockAddrStorage::zeroed();
        let mut len = name.size_of();
        // SAFETY: both are live for the call, `len` says how much room there is, and is set to what was written.
        check(unsafe { libc::getsockname(self.as_raw_fd(), (&raw mut name).cast(), &raw mut len) })?;
        // SAFETY: the kernel has just written so much of an address.
        internet(unsafe { SockAddr::new(name, len) })
    }

    /// Lets others of this user listen on the same address from now on. Asked for earlier, that would let a second
    /// server take half of the clients of a first one.
    pub(crate) fn share(&self) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)
    }

    /// Makes the listener non-blocking: from now on `accept` does not wait, and neither does any call on an accepted
    /// socket.
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

    /// Returns the next client, or none if the listener is non-blocking and no client is in line. A client that has
    /// gone again is skipped; one for which there is no descriptor is turned away. An error means that the listener is
    /// broken.
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

    /// Calls accept once, and returns the connection.
    fn accept_once(&self) -> io::Result<(Socket, SocketAddr)> {
        let flags = libc::SOCK_CLOEXEC | if self.nonblocking { libc::SOCK_NONBLOCK } else { 0 };
        let mut name = SockAddrStorage::zeroed();
        let mut len = name.size_of();
        // SAFETY: both are live for the call, `len` says how much room there is, and is set to what was written.
        let fd = check(unsafe { libc::accept4(self.as_raw_fd(), (&raw mut name).cast(), &raw mut len, flags) })?;
        // SAFETY: just opened, and owned by nothing else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        // An answer is complete when sent: no part must wait for more to come. Fails only if the client has gone.
        let _ = set_option(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY);
        // SAFETY: the kernel has just written so much of an address.
        let peer = internet(unsafe { SockAddr::new(name, len) })?;
        Ok((Socket(fd), peer))
    }

    /// Returns the socket, for a library that has its own calls, and the spare descriptor.
    pub(crate) fn into_parts(self) -> (OwnedFd, Spare) {
        (self.fd, self.spare)
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Returns an address in std's form.
fn internet(addr: SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket().ok_or_else(|| io::Error::other("not an internet address"))
}

/// An open file that is given up to accept, and turn away, a client for which there is no descriptor; none only if the
/// file could not be opened again.
pub(crate) struct Spare(RefCell<Option<File>>);

impl Spare {
    /// Opens the spare file.
    fn new() -> Spare {
        Spare(RefCell::new(File::open(SPARE).ok()))
    }

    /// Returns the next client, by `accept`, which is called once more if there is no descriptor; none if that client
    /// was turned away. If several OS threads of the process accept, `accept` must not wait.
    pub(crate) fn accept<S>(
        &self,
        service: &Service,
        accept: impl Fn() -> io::Result<(S, SocketAddr)>,
    ) -> io::Result<Option<(S, SocketAddr)>> {
        let accepted = {
            let _others = ACCEPTING.read();
            self.renew();
            accept()
        };
        match accepted {
            Ok((socket, peer)) => {
                service.came(peer);
                Ok(Some((socket, peer)))
            }
            // Mended: out of descriptors, accept fails and the client stays in line: an event loop turns at full
            // speed, and the documents' servers end. Ours gives up its spare one for a moment.
            Err(error) if out_of_descriptors(&error) => self.accept_with_spare(service, accept, error),
            Err(error) => Err(error),
        }
    }

    /// Returns the next client with the descriptor of the spare file, as `accept` does after the error `was_full`. A
    /// client that takes the last descriptor is turned away.
    fn accept_with_spare<S>(
        &self,
        service: &Service,
        accept: impl Fn() -> io::Result<(S, SocketAddr)>,
        was_full: io::Error,
    ) -> io::Result<Option<(S, SocketAddr)>> {
        // Another OS thread that accepts now would take the descriptor, and keep it.
        let _alone = ACCEPTING.write();
        if self.0.take().is_none() {
            return Err(was_full);
        }
        let accepted = accept();
        self.renew();
        // Also after the first call failed: the kernel looks for a descriptor before it looks for a client.
        let (socket, peer) = accepted?;
        if self.0.borrow().is_none() {
            service.refused(peer, was_full);
            drop(socket);
            self.renew();
            return Ok(None);
        }
        service.came(peer);
        Ok(Some((socket, peer)))
    }

    /// Opens the file again if it is not open.
    fn renew(&self) {
        let open = self.0.take().or_else(|| File::open(SPARE).ok());
        self.0.replace(open);
    }
}

/// Reports whether a call failed for want of a descriptor.
fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Does what is to be done when accept fails: nothing that ends the server, unless the listener itself is broken.
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
