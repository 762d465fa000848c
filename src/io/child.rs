//! The parent's ends of the pipes to a child. The child's own ends are blocking, as programs expect: see `io/pipe.rs`.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::{self, Stdio};

use super::pipe::{PipeReader, PipeWriter};
use crate::runtime::arms::ReadyArm;
use crate::runtime::select_source::{SelectReadable, SelectWritable};

/// A child's standard input, as [`std::process::ChildStdin`]. The child sees the end of input when this is dropped.
///
/// Errors and panics of the calls: see [`PipeWriter`].
#[derive(Debug)]
pub struct ChildStdin {
    /// The pipe to the child.
    pipe: PipeWriter,
}

/// A child's standard output, as [`std::process::ChildStdout`].
///
/// Errors and panics of the calls: see [`PipeReader`].
#[derive(Debug)]
pub struct ChildStdout {
    /// The pipe from the child.
    pipe: PipeReader,
}

/// A child's standard error, as [`std::process::ChildStderr`].
///
/// Errors and panics of the calls: see [`PipeReader`].
#[derive(Debug)]
pub struct ChildStderr {
    /// The pipe from the child.
    pipe: PipeReader,
}

/// Implements the methods and traits that all three ends have.
macro_rules! end {
    ($end:ident, $pipe:ident, $select:ident::$method:ident) => {
        impl $end {
            /// Returns the pipe, for a copy that the kernel makes.
            pub(crate) fn pipe(&self) -> &$pipe {
                &self.pipe
            }
        }

        impl $select for $end {
            type Arm<'a> = ReadyArm<'a>;

            fn $method(&self) -> ReadyArm<'_> {
                self.pipe.$method()
            }
        }

        /// Makes the end non-blocking.
        impl From<process::$end> for $end {
            fn from(end: process::$end) -> $end {
                $end { pipe: $pipe::from(OwnedFd::from(end)) }
            }
        }

        /// Makes the end non-blocking.
        impl From<OwnedFd> for $end {
            fn from(fd: OwnedFd) -> $end {
                $end { pipe: $pipe::from(fd) }
            }
        }

        /// Makes the end blocking.
        impl From<$end> for OwnedFd {
            fn from(end: $end) -> OwnedFd {
                end.pipe.into()
            }
        }

        /// Makes the end blocking, as the other child expects.
        impl From<$end> for Stdio {
            fn from(end: $end) -> Stdio {
                end.pipe.into()
            }
        }

        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.pipe.as_fd()
            }
        }

        impl AsRawFd for $end {
            fn as_raw_fd(&self) -> RawFd {
                self.pipe.as_raw_fd()
            }
        }

        /// Makes the end blocking.
        impl IntoRawFd for $end {
            fn into_raw_fd(self) -> RawFd {
                self.pipe.into_raw_fd()
            }
        }
    };
}

/// Implements `Read` for an end that reads.
macro_rules! read {
    ($end:ident) => {
        /// May switch: yes. See [`PipeReader`] for errors and panics.
        impl Read for $end {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.pipe.read(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.pipe.read_vectored(bufs)
            }
        }
    };
}

end!(ChildStdin, PipeWriter, SelectWritable::select_writable);
end!(ChildStdout, PipeReader, SelectReadable::select_readable);
end!(ChildStderr, PipeReader, SelectReadable::select_readable);
read!(ChildStdout);
read!(ChildStderr);

/// May switch: yes. See [`PipeWriter`] for errors and panics. `flush` does nothing, as std's.
impl Write for &ChildStdin {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.pipe).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.pipe).write_vectored(bufs)
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// May switch: yes. See [`PipeWriter`] for errors and panics. `flush` does nothing, as std's.
impl Write for ChildStdin {
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
