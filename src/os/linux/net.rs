//! Linux's additions for sockets, shaped like `std::os::linux::net`.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

pub use std::os::linux::net::SocketAddrExt;

use crate::net::TcpStream;
use crate::sys::socket;

/// The seal of [`TcpStreamExt`], which may so grow as std's does.
mod sealed {
    /// The supertrait that other crates cannot implement.
    pub trait Sealed {}

    impl Sealed for super::TcpStream {}
}

/// The methods that `std::os::linux::net::TcpStreamExt` adds to a connection, which Rust has from 1.89 on.
///
/// ```
/// use greenling::{net::{TcpListener, TcpStream}, os::linux::net::TcpStreamExt};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let stream = TcpStream::connect(listener.local_addr()?)?;
/// stream.set_quickack(false)?;
/// assert!(!stream.quickack()?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait TcpStreamExt: sealed::Sealed {
    /// Sets `TCP_QUICKACK`: acknowledgements are sent at once. The kernel may reset the option after any operation.
    ///
    /// # Errors
    /// What setsockopt(2) says; `NotConnected` after [`TcpStream::close`].
    ///
    /// May switch: no.
    fn set_quickack(&self, quickack: bool) -> io::Result<()>;

    /// Reads `TCP_QUICKACK`.
    ///
    /// # Errors
    /// What getsockopt(2) says; `NotConnected` after [`TcpStream::close`].
    ///
    /// May switch: no.
    fn quickack(&self) -> io::Result<bool>;
}

impl TcpStreamExt for TcpStream {
    fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        socket::set_quickack(self.open()?.as_fd(), quickack)
    }

    fn quickack(&self) -> io::Result<bool> {
        socket::quickack(self.open()?.as_fd())
    }
}
