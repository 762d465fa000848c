//! Pipes: std's, non-blocking, inside a `Source`.
//!
//! ```text
//!   PipeWriter --- open file A --->[ 64 KiB in the kernel ]--- open file B ---> PipeReader
//!                  O_NONBLOCK                                  O_NONBLOCK
//! ```
//!
//! The two ends are two open files, each with a flag of its own. So an end that is given to a child process is made
//! blocking again, as programs expect, while the end that stays here is not. But the descriptors of one end
//! (`try_clone`) share the flag of that end. So reads and writes do not rely on the flag: each call says that it must
//! not wait, where the kernel knows such a call. See `sys/transfer.rs`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::process::Stdio;

use crate::net::copy::PipeEnd;
use crate::net::scratch::Scratch;
use crate::runtime::arms::ReadyArm;
use crate::runtime::reactor::Direction;
use crate::runtime::select_source::{SelectReadable, SelectWritable};
use crate::runtime::source::Source;
use crate::sys::file::{Kind, identity};
use crate::sys::simulation::stay_inside;
use crate::sys::socket::set_nonblocking;
use crate::sys::transfer::{read_pipe, write_pipe};

/// Makes a pipe, as [`std::io::pipe`]: what is written to one end is read from the other.
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut reader, mut writer) = greenling::io::pipe()?;
/// let thread = greenling::spawn(move || {
///     let mut text = String::new();
///     reader.read_to_string(&mut text).unwrap(); // waits, so that others run
///     text
/// });
/// writer.write_all(b"through the pipe")?;
/// drop(writer); // the end, for the reader
/// assert_eq!(thread.join().unwrap(), "through the pipe");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The two ends may be cloned, and clones given to children, as in std. All clones of an end share one mode: a child
/// finds the open file blocking, as programs expect, and the handles that stay here still park. That needs a flag that
/// the kernel has since Linux 6.4. Before, and for a FIFO that has a name, a handle that shares an end with a child
/// blocks the OS thread when a call has to wait: in this case give the child an end of another pipe, and copy.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
///
/// May switch: no.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    stay_inside("a pipe")?;
    let (reader, writer) = io::pipe()?;
    set_nonblocking(reader.as_fd(), true)?;
    set_nonblocking(writer.as_fd(), true)?;
    Ok((
        PipeReader { source: Source::new(reader), flagged: Cell::new(true) },
        PipeWriter { source: Source::new(writer), flagged: Cell::new(true) },
    ))
}

/// The reading end of a pipe, as [`std::io::PipeReader`], but a read parks the green thread.
///
/// Several green threads may read at once, through `&PipeReader` or [`try_clone`](Self::try_clone), and get their
/// turns in order. A read returns 0 when all writers are gone and all data is read.
///
/// # Errors of the calls that wait
/// Besides the kernel's: `Other` when the call would have to wait but the caller unwinds from a panic or kill, or the
/// OS thread is ending. A signal interrupts no call, so there is no `Interrupted`.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. No data is lost: a call that has read something returns it.
pub struct PipeReader {
    /// The pipe's end, and the green threads that wait for data.
    source: Source<io::PipeReader>,
    /// Whether the kernel knows a read that does not wait whatever the mode.
    flagged: Cell<bool>,
}

/// The writing end of a pipe, as [`std::io::PipeWriter`], but a write to a full pipe parks the green thread.
///
/// A write fails with `BrokenPipe` when all readers are gone. Up to 4096 bytes (`PIPE_BUF`) are written in one piece:
/// no other writer's bytes come between them.
///
/// Errors and panics of the calls that wait: as those of [`PipeReader`]. An interrupted `write_all` does not say how
/// much was written.
pub struct PipeWriter {
    /// The pipe's end, and the green threads that wait for room.
    source: Source<io::PipeWriter>,
    /// Whether the kernel knows a write that does not wait whatever the mode.
    flagged: Cell<bool>,
}

impl PipeReader {
    /// Reads the data that is there, and does not wait.
    #[inline]
    fn read_now(&self, mut pipe: &io::PipeReader, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.flagged.get() {
            match read_pipe(pipe.as_fd(), bufs) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => self.flagged.set(false),
                result => return result,
            }
        }
        // A kernel before Linux 6.4, or a FIFO: the mode of the open file decides whether the call waits.
        pipe.read_vectored(bufs)
    }

    /// Makes another handle of the same end. To give one to a child, see [`pipe`].
    ///
    /// # Errors
    /// `EMFILE`.
    ///
    /// May switch: no.
    pub fn try_clone(&self) -> io::Result<PipeReader> {
        let clone = self.source.get().try_clone()?;
        self.source.set_shared();
        Ok(PipeReader { source: self.source.sibling(clone), flagged: self.flagged.clone() })
    }
}

impl SelectReadable for PipeReader {
    type Arm<'s>
        = ReadyArm<'s>
    where
        Self: 's;

    fn select_readable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Read)
    }
}

impl PipeWriter {
    /// Writes as much as there is room for, and does not wait.
    #[inline]
    fn write_now(&self, mut pipe: &io::PipeWriter, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.flagged.get() {
            match write_pipe(pipe.as_fd(), bufs) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => self.flagged.set(false),
                result => return result,
            }
        }
        // As in `PipeReader::read_now`.
        pipe.write_vectored(bufs)
    }

    /// Makes another handle of the same end. The reader sees the end when all handles are gone. To give one to a child,
    /// see [`pipe`].
    ///
    /// # Errors
    /// `EMFILE`.
    ///
    /// May switch: no.
    pub fn try_clone(&self) -> io::Result<PipeWriter> {
        let clone = self.source.get().try_clone()?;
        self.source.set_shared();
        Ok(PipeWriter { source: self.source.sibling(clone), flagged: self.flagged.clone() })
    }
}

impl SelectWritable for PipeWriter {
    type Arm<'s>
        = ReadyArm<'s>
    where
        Self: 's;

    fn select_writable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Write)
    }
}

/// May switch: yes. See [`PipeReader`] for errors and panics.
impl Read for &PipeReader {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.read(None, buf.len(), |pipe| self.read_now(pipe, &mut [IoSliceMut::new(buf)]))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // The length serves the short-read rule, which holds for stream sockets only.
        self.source.read(None, 0, |pipe| self.read_now(pipe, bufs))
    }
}

/// May switch: yes. See [`PipeReader`] for errors and panics.
impl Read for PipeReader {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

/// May switch: yes. See [`PipeWriter`] for errors and panics. `flush` does nothing, as std's.
impl Write for &PipeWriter {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.source.write(None, buf.len(), |pipe| self.write_now(pipe, &[IoSlice::new(buf)]))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // The length does not matter, as in `read_vectored`.
        self.source.write(None, 0, |pipe| self.write_now(pipe, bufs))
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// May switch: yes. See [`PipeWriter`] for errors and panics. `flush` does nothing, as std's.
impl Write for PipeWriter {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PipeEnd for PipeReader {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn run(&self, op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        self.source.run(Direction::Read, None, &mut |pipe| op(pipe.as_fd()))
    }

    fn receive(&self) -> io::Result<Scratch> {
        self.source.run(Direction::Read, None, &mut |pipe| {
            Scratch::filled_by(|buf| self.read_now(pipe, &mut [IoSliceMut::new(buf)]))
        })
    }

    fn send(&self, _: &[u8]) -> io::Result<()> {
        unreachable!("a reading end is no target of a copy")
    }
}

impl PipeEnd for PipeWriter {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn run(&self, op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        self.source.run(Direction::Write, None, &mut |pipe| op(pipe.as_fd()))
    }

    fn receive(&self) -> io::Result<Scratch> {
        unreachable!("a writing end is no origin of a copy")
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut end = self;
        end.write_all(bytes)
    }
}

/// Implements the traits that both ends have.
macro_rules! end {
    ($end:ident) => {
        // As std's ends. `flagged` states a fact about the kernel, which no panic can make wrong.
        impl UnwindSafe for $end {}
        impl RefUnwindSafe for $end {}

        impl fmt::Debug for $end {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($end)).field(&self.as_raw_fd()).finish()
            }
        }

        /// Makes the end non-blocking, for all handles and processes that share it.
        impl From<io::$end> for $end {
            fn from(end: io::$end) -> $end {
                // Setting the mode of an open descriptor does not fail.
                let _ = set_nonblocking(end.as_fd(), true);
                // Not for a regular file: there a read that must not wait fails when the data is still on the disk.
                let flagged = Cell::new(identity(end.as_fd()).is_ok_and(|file| file.kind == Kind::Other));
                $end { source: Source::new(end).shared(), flagged }
            }
        }

        /// Makes the end blocking. Clones of the green end share the mode, and still park; before Linux 6.4 they block
        /// the OS thread from now on.
        impl From<$end> for io::$end {
            fn from(end: $end) -> io::$end {
                let end = end.source.into_inner();
                // Setting the mode of an open descriptor does not fail.
                let _ = set_nonblocking(end.as_fd(), false);
                end
            }
        }

        /// Converts as `From` does for std's type.
        impl From<OwnedFd> for $end {
            fn from(fd: OwnedFd) -> $end {
                $end::from(io::$end::from(fd))
            }
        }

        /// Converts as the conversion into std's type does.
        impl From<$end> for OwnedFd {
            fn from(end: $end) -> OwnedFd {
                io::$end::from(end).into()
            }
        }

        /// Converts as the conversion into std's type does: the child gets a blocking end.
        impl From<$end> for Stdio {
            fn from(end: $end) -> Stdio {
                io::$end::from(end).into()
            }
        }

        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.source.get().as_fd()
            }
        }

        impl AsRawFd for $end {
            fn as_raw_fd(&self) -> RawFd {
                self.source.get().as_raw_fd()
            }
        }

        /// Converts as the conversion into std's type does.
        impl IntoRawFd for $end {
            fn into_raw_fd(self) -> RawFd {
                io::$end::from(self).into_raw_fd()
            }
        }
    };
}

end!(PipeReader);
end!(PipeWriter);
