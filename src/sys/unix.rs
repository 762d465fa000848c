//! Unix stream sockets that connect without blocking, which `std` has no call for.
//!
//! ```text
//!   sockaddr_un   0 family   2 path (108): "/a/path\0", or "\0an abstract name", or nothing
//! ```
//!
//! Invariant U1: the length that goes with an address is at most the bytes it has. `RawAddr::from` upholds it, the only
//! maker.

#![allow(unsafe_code)]

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;

use super::cvt;

/// Bytes of a `sockaddr_un`.
const LEN: usize = 110;
/// Where its path begins.
const PATH: usize = 2;

const _: () = {
    use libc::sockaddr_un;
    assert!(size_of::<sockaddr_un>() == LEN && offset_of!(sockaddr_un, sun_path) == PATH);
    assert!(offset_of!(sockaddr_un, sun_family) == 0 && size_of::<libc::sa_family_t>() == PATH);
};

/// An address as the kernel reads it.
#[repr(C, align(8))]
struct RawAddr {
    /// A `sockaddr_un`.
    bytes: [u8; LEN],
    /// How many of them count (U1).
    len: usize,
}

impl From<&SocketAddr> for RawAddr {
    fn from(addr: &SocketAddr) -> RawAddr {
        let mut bytes = [0; LEN];
        bytes[..PATH].copy_from_slice(&(libc::AF_UNIX as libc::sa_family_t).to_ne_bytes());
        // std has checked that a path and the zero behind it, or the zero before a name, fit.
        let len = if let Some(path) = addr.as_pathname() {
            let path = path.as_os_str().as_bytes();
            bytes[PATH..][..path.len()].copy_from_slice(path);
            (PATH + path.len() + 1).min(LEN)
        } else if let Some(name) = addr.as_abstract_name() {
            bytes[PATH + 1..][..name.len()].copy_from_slice(name);
            PATH + 1 + name.len()
        } else {
            PATH
        };
        RawAddr { bytes, len }
    }
}

/// Makes a Unix stream socket, non-blocking and closed on exec.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`.
pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointer (socket(2)).
    let fd = cvt(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the kernel has just made `fd` and nobody else knows it, so the OwnedFd is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Connects a Unix socket; it is connected, or not, when this returns.
///
/// # Errors
///
/// `WouldBlock` if the listener's queue is full and `fd` is non-blocking: no event tells when to try again. What else
/// connect(2) says: `ENOENT`, `ECONNREFUSED`, `EACCES`, `EPROTOTYPE`.
pub(crate) fn connect(fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    let raw = RawAddr::from(addr);
    let len = raw.len as libc::socklen_t;
    // SAFETY: the fd is open, and the kernel reads `len` bytes of `raw` (Invariant U1), which lives until the call
    // returns (connect(2)).
    cvt(unsafe { libc::connect(fd.as_raw_fd(), raw.bytes.as_ptr().cast(), len) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    #[test]
    fn names_and_paths_of_every_length_meet_their_listener() {
        let folder = std::env::temp_dir();
        let mark = format!("greenling-unix-{}", std::process::id());
        let long = "n".repeat(107 - mark.len());
        for name in [mark.clone(), format!("{mark}{long}"), format!("{mark}\0with\0zeros")] {
            let addr = SocketAddr::from_abstract_name(&name).unwrap();
            let listener = UnixListener::bind_addr(&addr).unwrap();
            let socket = stream_socket().unwrap();
            connect(socket.as_fd(), &addr).unwrap();
            listener.accept().unwrap();
        }
        let stem = folder.join(&mark);
        // 107 bytes and a zero are the most that fit.
        let padding = "p".repeat(107 - stem.as_os_str().len());
        for path in [stem.clone(), folder.join(format!("{mark}{padding}"))] {
            let addr = SocketAddr::from_pathname(&path).unwrap();
            let listener = UnixListener::bind(&path).unwrap();
            let socket = stream_socket().unwrap();
            let result = connect(socket.as_fd(), &addr);
            std::fs::remove_file(&path).unwrap();
            result.unwrap();
            listener.accept().unwrap();
        }
    }

    #[test]
    fn no_name_at_all_is_refused_by_the_kernel() {
        let unnamed = std::os::unix::net::UnixDatagram::unbound().unwrap().local_addr().unwrap();
        let error = connect(stream_socket().unwrap().as_fd(), &unnamed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
