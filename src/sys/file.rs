//! Bytes moved between descriptors by the kernel, the kind of file that a descriptor names, and file locks.
//!
//! ```text
//!   splice    socket -> pipe, pipe -> socket      pages change hands, nothing is copied to the process
//!   sendfile  regular file -> socket
//! ```
//!
//! A simulation has a file in memory, of which std makes metadata, and a descriptor that stands for its files.
//!
//! The calls that move bytes return `WouldBlock` in place of waiting for a socket or a pipe; they do wait for a file on
//! a disk.

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
    /// The end to read from.
    head: OwnedFd,
    /// The end to write into.
    tail: OwnedFd,
}

impl Pipe {
    /// Makes an empty pipe.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`.
    pub(crate) fn new() -> io::Result<Pipe> {
        let mut ends = [-1; 2];
        // SAFETY: the kernel writes two numbers into `ends`, which has room for two (pipe2(2)).
        cvt(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        // SAFETY: the kernel has just made the descriptor, so the OwnedFd is the only owner.
        let head = unsafe { OwnedFd::from_raw_fd(ends[0]) };
        // SAFETY: as above.
        let tail = unsafe { OwnedFd::from_raw_fd(ends[1]) };
        Ok(Pipe { head, tail })
    }

    /// Returns the end to read from.
    pub(crate) fn head(&self) -> BorrowedFd<'_> {
        self.head.as_fd()
    }

    /// Returns the end to write into.
    pub(crate) fn tail(&self) -> BorrowedFd<'_> {
        self.tail.as_fd()
    }
}

/// Moves up to `len` bytes; one of the two must be a pipe. Returns the number of bytes moved, 0 at the end of `from`.
///
/// # Errors
///
/// `WouldBlock` if `from` is empty or `to` is full; `InvalidInput` if one of the two cannot be spliced.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let (from, to, no_offset) = (from.as_raw_fd(), to.as_raw_fd(), ptr::null_mut());
    // SAFETY: both fds are open; without offsets the call takes no pointer (splice(2)).
    cvt_len(unsafe { libc::splice(from, no_offset, to, no_offset, len, libc::SPLICE_F_NONBLOCK) })
}

/// Sends up to `len` bytes from the position of a file, and moves the position. Returns the number of bytes sent, 0 at
/// the end of the file.
///
/// # Errors
///
/// `WouldBlock` if there is no room in `to`; `InvalidInput` if the file has no pages to send.
pub(crate) fn sendfile(to: BorrowedFd<'_>, from: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    // SAFETY: both fds are open; without an offset the call takes no pointer (sendfile(2)).
    cvt_len(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), ptr::null_mut(), len) })
}

/// Makes a file in memory that has no name.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub(crate) fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a C string, which the kernel reads (memfd_create(2)).
    let fd = cvt(unsafe { libc::memfd_create(c"greenling".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the kernel has just made the descriptor, so the OwnedFd is the only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Opens something that can neither be read nor written.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`.
pub(crate) fn unreadable() -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/")
}

/// The operation of [`flock`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum FileLock {
    /// Takes the lock for this open file alone.
    Exclusive,
    /// Takes the lock together with others that take it shared.
    Shared,
    /// Releases the lock again.
    None,
}

/// Takes the advisory lock of a file for the open file `fd`, without waiting for others, or releases the lock.
///
/// # Errors
///
/// `WouldBlock` if another open file has the lock; `EINTR`, `ENOLCK`, `ENOTSUP`.
pub(crate) fn flock(fd: BorrowedFd<'_>, lock: FileLock) -> io::Result<()> {
    let operation = match lock {
        FileLock::Exclusive => libc::LOCK_EX,
        FileLock::Shared => libc::LOCK_SH,
        FileLock::None => libc::LOCK_UN,
    };
    // SAFETY: the fd is open, and the call takes no pointer (flock(2)).
    cvt(unsafe { libc::flock(fd.as_raw_fd(), operation | libc::LOCK_NB) })?;
    Ok(())
}

/// The kind of a file, as far as writing without waiting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file or a disk: never kept waiting by another process.
    Regular,
    /// A terminal, or another character device.
    Character,
    /// A pipe, a socket, or anything else.
    Other,
}

/// The identity of a file: equal for two descriptors of one open file, and for two openings of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The device that the file is on.
    device: u64,
    /// The number of the file on the device.
    inode: u64,
    /// The kind of the file.
    pub(crate) kind: Kind,
}

/// Returns the identity of the file that `fd` names.
///
/// # Errors
///
/// `EBADF` if the standard stream that is asked about was closed.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> io::Result<Identity> {
    // Ask the kernel.
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel writes one `stat`, for which there is room; a number that is not open is an error (fstat(2)).
    cvt(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the whole struct was written.
    let stat = unsafe { stat.assume_init() };
    // Block devices are disks, so writes to one do not wait for another process.
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG | libc::S_IFBLK => Kind::Regular,
        libc::S_IFCHR => Kind::Character,
        _ => Kind::Other,
    };
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino, kind })
}

/// Opens the terminal that `fd` names once more for writing: a new open file, with a non-blocking mode of its own.
///
/// # Errors
///
/// `PermissionDenied` if the terminal belongs to another user by now; `NotFound` without a `/proc`.
pub(crate) fn reopen(fd: BorrowedFd<'_>) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags).open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    /// Makes a file with this content, positioned at the start.
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
