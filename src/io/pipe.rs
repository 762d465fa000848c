//! Pipes: std's, non-blocking, inside a `Source`.
//!
//! ```text
//!   PipeWriter --- open file A --->[ 64 KiB in the kernel ]--- open file B ---> PipeReader
//!                  O_NONBLOCK                                  O_NONBLOCK
//! ```
//!
//! The two ends are two open files, each with a flag of its own. So an end that is given to a child process is made
//! blocking again, as the child expects it, while the end that stays here is not. The descriptors of one end
//! (`try_clone`) share its flag.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::Stdio;

use crate::net::copy::PipeEnd;
use crate::net::lent::Lent;
use crate::runtime::choose::ReadyArm;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::socket::set_nonblocking;

/// Makes a pipe: what is written to the one end is read from the other. As [`std::io::pipe`].
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
/// # Errors
/// `EMFILE`, `ENFILE`.
///
/// May switch: no.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    set_nonblocking(reader.as_fd(), true)?;
    set_nonblocking(writer.as_fd(), true)?;
    Ok((
        PipeReader { source: Source::new(reader, false, false) },
        PipeWriter { source: Source::new(writer, false, false) },
    ))
}

/// The end of a pipe that is read: reading parks the green thread. Else as [`std::io::PipeReader`].
///
/// Several green threads may read at once, through `&PipeReader` or [`try_clone`](Self::try_clone), and get their
/// turns in order. A read returns 0 when all writers are gone and everything is read.
///
/// # Errors of the calls that wait
/// Besides the kernel's: `Other` when the call would have to wait but the caller unwinds from a panic or kill, or its
/// OS thread is ending. A signal never shows (`Interrupted`): the call goes on.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait. No data is lost by that: what was read is returned.
pub struct PipeReader {
    /// This end.
    source: Source<io::PipeReader>,
}

/// The end of a pipe that is written: writing to a full pipe parks the green thread. Else as [`std::io::PipeWriter`].
///
/// A write fails with `BrokenPipe` when all readers are gone. Up to 4096 bytes (`PIPE_BUF`) go in one piece: no other
/// writer's bytes come between them.
///
/// Errors and panics of the calls that wait: as those of [`PipeReader`]. A `write_all` that is interrupted does not say
/// how much it has written.
pub struct PipeWriter {
    /// This end.
    source: Source<io::PipeWriter>,
}

impl PipeReader {
    /// Another handle of the same end.
    ///
    /// # Errors
    /// `EMFILE`.
    ///
    /// May switch: no.
    pub fn try_clone(&self) -> io::Result<PipeReader> {
        let clone = self.source.get().try_clone()?;
        self.source.set_shared();
        Ok(PipeReader { source: self.source.sibling(clone) })
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_readable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Read)
    }
}

impl PipeWriter {
    /// Another handle of the same end. The reader comes to the end when all of them are gone.
    ///
    /// # Errors
    /// `EMFILE`.
    ///
    /// May switch: no.
    pub fn try_clone(&self) -> io::Result<PipeWriter> {
        let clone = self.source.get().try_clone()?;
        self.source.set_shared();
        Ok(PipeWriter { source: self.source.sibling(clone) })
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_writable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.source, Direction::Write)
    }
}

/// May switch: yes. See [`PipeReader`] for errors and panics.
impl Read for &PipeReader {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.read(None, buf.len(), |mut pipe| pipe.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // How many bytes there is room for matters to stream sockets only.
        self.source.read(None, 0, |mut pipe| pipe.read_vectored(bufs))
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
        self.source.write(None, buf.len(), |mut pipe| pipe.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // As in `read_vectored`.
        self.source.write(None, 0, |mut pipe| pipe.write_vectored(bufs))
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
    fn run(&self, op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        self.source.run(Direction::Read, None, &mut |pipe| op(pipe.as_fd()))
    }

    fn receive(&self) -> io::Result<Lent> {
        self.source.run(Direction::Read, None, &mut |pipe| Lent::filled_by(pipe))
    }

    fn send(&self, _: &[u8]) -> io::Result<()> {
        unreachable!("nobody writes to the end that is read")
    }
}

impl PipeEnd for PipeWriter {
    fn run(&self, op: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        self.source.run(Direction::Write, None, &mut |pipe| op(pipe.as_fd()))
    }

    fn receive(&self) -> io::Result<Lent> {
        unreachable!("nobody reads from the end that is written")
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut end = self;
        end.write_all(bytes)
    }
}

/// What both ends have in common.
macro_rules! end {
    ($end:ident) => {
        impl fmt::Debug for $end {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($end)).field(&self.as_raw_fd()).finish()
            }
        }

        /// Makes the end non-blocking, for everybody who shares it.
        impl From<io::$end> for $end {
            fn from(end: io::$end) -> $end {
                // It fails for no open descriptor.
                let _ = set_nonblocking(end.as_fd(), true);
                $end { source: Source::new(end, false, true) }
            }
        }

        /// Makes the end blocking. Clones of the green one share it: they would block their OS thread from now on.
        impl From<$end> for io::$end {
            fn from(end: $end) -> io::$end {
                let end = end.source.into_inner();
                // As above.
                let _ = set_nonblocking(end.as_fd(), false);
                end
            }
        }

        /// As from std's type.
        impl From<OwnedFd> for $end {
            fn from(fd: OwnedFd) -> $end {
                $end::from(io::$end::from(fd))
            }
        }

        /// As into std's type.
        impl From<$end> for OwnedFd {
            fn from(end: $end) -> OwnedFd {
                io::$end::from(end).into()
            }
        }

        /// As into std's type: the child gets a blocking end.
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

        /// As into std's type.
        impl IntoRawFd for $end {
            fn into_raw_fd(self) -> RawFd {
                io::$end::from(self).into_raw_fd()
            }
        }
    };
}

end!(PipeReader);
end!(PipeWriter);
