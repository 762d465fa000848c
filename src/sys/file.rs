//! Bytes moved between descriptors by the kernel, and what kind of file a descriptor is.
//!
//! ```text
//!   splice    socket -> pipe, pipe -> socket      pages change hands, nothing is copied to the process
//!   sendfile  regular file -> socket
//! ```
//!
//! All of it says `WouldBlock` in place of waiting for a socket or a pipe; a file on a disk is waited for.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;

use super::{cvt, cvt_len};

/// A pipe, non-blocking and closed on exec.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// What is written into the other end comes out here.
    head: OwnedFd,
    /// The other end.
    tail: OwnedFd,
}

impl Pipe {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`.
    pub(crate) fn new() -> io::Result<Pipe> {
        let mut ends = [-1; 2];
        // SAFETY: the kernel writes two numbers into `ends`, which has room for two (pipe2(2)).
        cvt(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        // SAFETY: the kernel has just made it and nobody else knows it, so the OwnedFd is its only owner.
        let head = unsafe { OwnedFd::from_raw_fd(ends[0]) };
        // SAFETY: as above.
        let tail = unsafe { OwnedFd::from_raw_fd(ends[1]) };
        Ok(Pipe { head, tail })
    }

    /// The end to take bytes out of.
    pub(crate) fn head(&self) -> BorrowedFd<'_> {
        self.head.as_fd()
    }

    /// The end to put bytes into.
    pub(crate) fn tail(&self) -> BorrowedFd<'_> {
        self.tail.as_fd()
    }
}

/// Moves up to `len` bytes; one of the two must be a pipe. Returns how many: 0 at the end of `from`.
///
/// # Errors
///
/// `WouldBlock` if nothing is in `from` or no room in `to`; `InvalidInput` if one of them cannot be spliced.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let (from, to, no_offset) = (from.as_raw_fd(), to.as_raw_fd(), ptr::null_mut());
    // SAFETY: both fds are open; without offsets the call takes no pointer (splice(2)).
    cvt_len(unsafe { libc::splice(from, no_offset, to, no_offset, len, libc::SPLICE_F_NONBLOCK) })
}

/// Sends up to `len` bytes of a file, from where it stands, which moves. Returns how many: 0 at the end of the file.
///
/// # Errors
///
/// `WouldBlock` if there is no room in `to`; `InvalidInput` if the file has no pages to send.
pub(crate) fn sendfile(to: BorrowedFd<'_>, from: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    // SAFETY: both fds are open; without an offset the call takes no pointer (sendfile(2)).
    cvt_len(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), ptr::null_mut(), len) })
}

/// What kind of file it is, as far as writing without waiting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file or a disk: never kept waiting by another process.
    Regular,
    /// A terminal, or another device of characters.
    Character,
    /// A pipe, a socket, anything else.
    Other,
}

/// Which file it is: two descriptors of one open file, or two openings of it, have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The device that it is on.
    device: u64,
    /// Its number there.
    inode: u64,
    /// Its kind.
    pub(crate) kind: Kind,
}

/// Which file `fd` is.
///
/// # Errors
///
/// `EBADF` if the standard stream that is asked about was closed.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> io::Result<Identity> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel writes one `stat`, for which there is room; a number that is not open is an error (fstat(2)).
    cvt(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so all of it was written.
    let stat = unsafe { stat.assume_init() };
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG | libc::S_IFBLK => Kind::Regular,
        libc::S_IFCHR => Kind::Character,
        _ => Kind::Other,
    };
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino, kind })
}

/// Opens the terminal behind `fd` once more for writing: an open file of its own, whose non-blocking mode nobody shares.
///
/// # Errors
///
/// `PermissionDenied` if it belongs to another user by now; `NotFound` without a `/proc`.
pub(crate) fn reopen(fd: BorrowedFd<'_>) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags).open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    /// A new file with this content, standing at its beginning.
    fn file(content: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("greenling-file-{}-{}", std::process::id(), content.len()));
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn splice_moves_bytes_through_a_pipe_and_says_when_there_are_none() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let (mut out, into) = UnixStream::pair().unwrap();
        let pipe = Pipe::new().unwrap();
        let empty = splice(near.as_fd(), pipe.tail(), 100).unwrap_err();
        assert_eq!(empty.kind(), ErrorKind::WouldBlock);
        far.write_all(b"spliced").unwrap();
        assert_eq!(splice(near.as_fd(), pipe.tail(), 100).unwrap(), 7);
        assert_eq!(splice(pipe.head(), into.as_fd(), 4).unwrap(), 4);
        assert_eq!(splice(pipe.head(), into.as_fd(), 100).unwrap(), 3);
        let mut buf = [0; 7];
        out.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"spliced");
        drop(far);
        assert_eq!(splice(near.as_fd(), pipe.tail(), 100).unwrap(), 0);
        let refused = splice(near.as_fd(), into.as_fd(), 100).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "neither is a pipe");
    }

    #[test]
    fn sendfile_goes_on_where_the_file_stands() {
        let (mut out, into) = UnixStream::pair().unwrap();
        let file = file(b"0123456789");
        assert_eq!(sendfile(into.as_fd(), file.as_fd(), 4).unwrap(), 4);
        assert_eq!(sendfile(into.as_fd(), file.as_fd(), 100).unwrap(), 6);
        assert_eq!(sendfile(into.as_fd(), file.as_fd(), 100).unwrap(), 0);
        let mut buf = [0; 10];
        out.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"0123456789");
    }

    #[test]
    fn identity_tells_files_apart_and_duplicates_not() {
        let (first, second) = (file(b"a"), file(b"bc"));
        let of = |file: &File| identity(file.as_fd()).unwrap();
        assert_eq!(of(&first), of(&first.try_clone().unwrap()));
        assert_ne!(of(&first), of(&second));
        assert_eq!(of(&first).kind, Kind::Regular);
        assert_eq!(of(&File::open("/dev/null").unwrap()).kind, Kind::Character);
        assert_eq!(identity(Pipe::new().unwrap().head()).unwrap().kind, Kind::Other);
    }

    #[test]
    fn a_reopened_device_is_another_open_file() {
        let null = File::open("/dev/null").unwrap();
        let mut again = reopen(null.as_fd()).unwrap();
        assert_eq!(identity(again.as_fd()).unwrap(), identity(null.as_fd()).unwrap());
        again.write_all(b"writable, which the first is not").unwrap();
    }
}
