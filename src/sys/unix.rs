//! Unix addresses in the kernel's byte layout, and stream sockets that connect without blocking, or that only their
//! user may connect to, as `std` cannot.
//!
//! ```text
//!   sockaddr_un   0 family   2 path (108): "/a/path\0", or "\0an abstract name", or nothing
//! ```
//!
//! Invariant sys-unix-1: the length that goes with an address is at most the size of `bytes`. Upheld by
//! `UnixAddr::from` and `UnixAddr::room`, the only constructors.

#![allow(unsafe_code)]

use std::ffi::{OsStr, c_int};
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;

use super::{cvt, virtual_sockets};
use crate::pure::network::Kind;

/// The size of a `sockaddr_un`, in bytes.
const LEN: usize = 110;
/// The offset of the path.
const PATH: usize = 2;

const _: () = {
    use libc::sockaddr_un;
    assert!(size_of::<sockaddr_un>() == LEN && offset_of!(sockaddr_un, sun_path) == PATH);
    assert!(offset_of!(sockaddr_un, sun_family) == 0 && size_of::<libc::sa_family_t>() == PATH);
};

/// An address as the kernel reads or writes it.
#[repr(C, align(8))]
pub(super) struct UnixAddr {
    /// A `sockaddr_un`; zeros where nothing was written.
    pub(super) bytes: [u8; LEN],
    /// The number of bytes that count (sys-unix-1).
    pub(super) len: usize,
}

impl UnixAddr {
    /// Makes room for the kernel to write an address into.
    pub(super) fn room() -> UnixAddr {
        UnixAddr { bytes: [0; LEN], len: LEN }
    }

    /// Converts to an address of `std`. An address without a name is of length 0 or 2.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the address is of another family.
    pub(super) fn to_std(&self) -> io::Result<SocketAddr> {
        let (family, path) = self.bytes[..self.len.min(LEN)].split_at(PATH.min(self.len));
        if !family.is_empty() && *family != (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the sender has no Unix address"));
        }
        match path {
            [0, name @ ..] => SocketAddr::from_abstract_name(name),
            // As a rule the length includes the zero behind a path.
            path => SocketAddr::from_pathname(OsStr::from_bytes(path.split(|byte| *byte == 0).next().unwrap_or(path))),
        }
    }
}

impl From<&SocketAddr> for UnixAddr {
    fn from(addr: &SocketAddr) -> UnixAddr {
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
        UnixAddr { bytes, len }
    }
}

/// Makes a Unix stream socket, non-blocking and closed on exec.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`.
pub(crate) fn stream_socket() -> io::Result<OwnedFd> {
    if let Some(made) = virtual_sockets::socket(Kind::UnixStream, |_, _| Ok(())) {
        return made.map(|(fd, ())| fd);
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointer (socket(2)).
    let fd = cvt(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the kernel has just made `fd`, so the OwnedFd is the only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Connects a Unix socket. The socket is connected when this returns without an error.
///
/// # Errors
///
/// `WouldBlock` if the listener's queue is full and `fd` is non-blocking: no event tells when to try again. Those of
/// connect(2): `ENOENT`, `ECONNREFUSED`, `EACCES`, `EPROTOTYPE`.
pub(crate) fn connect(fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    let connected = virtual_sockets::with(&fd, |network, id| network.connect_unix(id, &virtual_sockets::name_of(addr)));
    if let Some(connected) = connected {
        return connected;
    }
    let raw = UnixAddr::from(addr);
    let len = raw.len as libc::socklen_t;
    // SAFETY: the fd is open, and the kernel reads `len` bytes of `raw` (Invariant sys-unix-1), which lives until the
    // call returns (connect(2)).
    cvt(unsafe { libc::connect(fd.as_raw_fd(), raw.bytes.as_ptr().cast(), len) })?;
    Ok(())
}

/// The number of connections that may wait to be accepted.
const BACKLOG: c_int = 16;

/// Binds a Unix socket to an address, and listens. A socket file gets the mode that the socket has, as by fchmod(2),
/// less the umask: so no other user can connect before the mode is right.
///
/// # Errors
///
/// Those of bind(2): `EADDRINUSE`, `EACCES`, `ENOENT`, `ENOTDIR`, `EROFS`.
pub(crate) fn bind_and_listen(fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    let raw = UnixAddr::from(addr);
    let len = raw.len as libc::socklen_t;
    // SAFETY: the fd is open, and the kernel reads `len` bytes of `raw` (Invariant sys-unix-1), which lives until the
    // call returns (bind(2)).
    cvt(unsafe { libc::bind(fd.as_raw_fd(), raw.bytes.as_ptr().cast(), len) })?;
    // SAFETY: the fd is open; the call takes two integers (listen(2)).
    cvt(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) })?;
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
