//! Readiness of any descriptor: wait until a read or a write would not block.
//!
//! ```text
//!   readable:  poll(0): ready? --yes--> return
//!                 `--no--> park until epoll reports an event, ask poll again
//! ```
//!
//! Three rules make this sound for descriptors that the crate knows nothing of:
//!
//! * epoll watches a *duplicate* that belongs to the `Registered` alone. So no other code can close the duplicate, give
//!   its number to another file, or register it twice, whatever happens to the descriptor itself. An `AsFd` that
//!   returns another descriptor each time harms only its owner.
//! * An event of epoll is a hint, and `poll` decides: each return follows a `poll`. So a stale hint costs one system
//!   call, and whatever others do with the open file, the answer was right at the time of that call.
//! * The kinds that epoll refuses (regular files, directories: EPERM) are always ready to `poll`, so they never get as
//!   far as epoll.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::runtime::arms::ReadyArm;
use crate::runtime::reactor::Direction;
use crate::runtime::select_source::{SelectReadable, SelectWritable};
use crate::runtime::source::Source;
use crate::sys::epoll::Interest;
use crate::sys::socket;

/// The bytes for which a blocking pipe has room if it is writable at all.
const PIPE_BUF: usize = 4096;

/// A descriptor of any kind to wait for: a socket of another library, a `timerfd`, a device, a pipe.
///
/// ```
/// use std::io::{Read, Write};
/// use greenling::io::Registered;
///
/// let (mut near, far) = std::os::unix::net::UnixStream::pair()?; // std's, and blocking
/// let far = Registered::new(far)?;
/// let writer = greenling::spawn(move || near.write_all(b"hello").unwrap());
/// far.readable()?; // waits, so that the writer runs
/// let mut buf = [0; 5];
/// assert_eq!(far.get_ref().read(&mut buf)?, 5);
/// # writer.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The descriptor may be blocking or not: its mode is not changed. Several green threads may wait for the same
/// direction; they are woken in order.
///
/// # Errors of the calls that wait
/// Those of poll(2) and epoll_ctl(2) (`ENOSPC`, `ENOMEM`); `Other` when the call would have to wait but the caller
/// unwinds from a panic or kill, or the OS thread is ending.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait.
#[derive(Debug)]
pub struct Registered<T: AsFd> {
    /// The duplicate that epoll watches. Declared, and so dropped, before the original.
    duplicate: Source<OwnedFd>,
    /// The owner of the original descriptor.
    inner: T,
}

impl<T: AsFd> Registered<T> {
    /// Takes a descriptor and makes a duplicate for epoll.
    ///
    /// # Errors
    /// `EMFILE`.
    ///
    /// May switch: no.
    pub fn new(inner: T) -> io::Result<Registered<T>> {
        let duplicate = inner.as_fd().try_clone_to_owned()?;
        Ok(Registered { duplicate: Source::new(duplicate).shared(), inner })
    }

    /// Returns the owner of the descriptor.
    ///
    /// May switch: no.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Returns the owner of the descriptor, to be changed. It may even be replaced, but then epoll still watches the
    /// file of the first owner.
    ///
    /// May switch: no.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Returns the owner of the descriptor, which epoll no longer watches.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Waits until a read would not block: there is data, the end, or an error.
    ///
    /// That holds when the call returns. Another reader may still take the data before the caller reads.
    ///
    /// # Errors
    /// See [`Registered`].
    ///
    /// # Panics
    /// See [`Registered`].
    ///
    /// May switch: yes.
    pub fn readable(&self) -> io::Result<()> {
        self.ready(Direction::Read, None)
    }

    /// Waits until a write would not block: there is some room or an error.
    ///
    /// # Errors
    /// See [`Registered`].
    ///
    /// # Panics
    /// See [`Registered`].
    ///
    /// May switch: yes.
    pub fn writable(&self) -> io::Result<()> {
        self.ready(Direction::Write, None)
    }

    /// Waits as [`readable`](Self::readable) does, but at most for `limit`. Reports whether a read would not block.
    ///
    /// # Errors
    /// See [`Registered`].
    ///
    /// # Panics
    /// See [`Registered`].
    ///
    /// May switch: yes.
    pub fn readable_timeout(&self, limit: Duration) -> io::Result<bool> {
        in_time(self.ready(Direction::Read, Some(limit)))
    }

    /// Waits as [`writable`](Self::writable) does, but at most for `limit`. Reports whether a write would not block.
    ///
    /// # Errors
    /// See [`Registered`].
    ///
    /// # Panics
    /// See [`Registered`].
    ///
    /// May switch: yes.
    pub fn writable_timeout(&self, limit: Duration) -> io::Result<bool> {
        in_time(self.ready(Direction::Write, Some(limit)))
    }

    /// Waits until a read would not block, calls `op`, and repeats both while `op` fails with `WouldBlock`. The
    /// descriptor may be blocking or not.
    ///
    /// # Errors
    /// Those of `op`; see [`Registered`].
    ///
    /// # Panics
    /// With the panics of `op`; see [`Registered`].
    ///
    /// May switch: yes.
    pub fn read_with<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        retry(&self.duplicate, Direction::Read, || op(&self.inner))
    }

    /// Waits until a write would not block, calls `op`, and repeats both while `op` fails with `WouldBlock`. A blocking
    /// descriptor then has room for *some* bytes, a pipe for 4096: an `op` that writes more would block the OS thread.
    ///
    /// # Errors
    /// Those of `op`; see [`Registered`].
    ///
    /// # Panics
    /// With the panics of `op`; see [`Registered`].
    ///
    /// May switch: yes.
    pub fn write_with<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        retry(&self.duplicate, Direction::Write, || op(&self.inner))
    }

    /// Waits until a call in this direction would not block.
    fn ready(&self, direction: Direction, limit: Option<Duration>) -> io::Result<()> {
        ready(&self.duplicate, direction, limit)
    }
}

impl<T: AsFd> SelectReadable for Registered<T> {
    type Arm<'s>
        = ReadyArm<'s>
    where
        Self: 's;

    fn select_readable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.duplicate, Direction::Read)
    }
}

impl<T: AsFd> SelectWritable for Registered<T> {
    type Arm<'s>
        = ReadyArm<'s>
    where
        Self: 's;

    fn select_writable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.duplicate, Direction::Write)
    }
}

/// Waits until a call in this direction would not block on the file behind `duplicate`.
fn ready(duplicate: &Source<OwnedFd>, direction: Direction, limit: Option<Duration>) -> io::Result<()> {
    let interest = match direction {
        Direction::Read => Interest::IN,
        Direction::Write => Interest::OUT,
    };
    // `poll` decides: the source parks only while `poll` says that the file is not ready.
    duplicate.run(direction, limit, &mut |fd| match socket::poll_one(fd.as_fd(), interest, Some(0)) {
        Ok(ready) if ready.is_empty() => Err(io::Error::from_raw_os_error(socket::EAGAIN)),
        result => result.map(drop),
    })
}

/// Waits for readiness and calls `op`, until `op` returns anything but `WouldBlock`.
fn retry<R>(duplicate: &Source<OwnedFd>, direction: Direction, mut op: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    // `op` is the caller's code and may wait for other things, so this function stands in no wait list meanwhile.
    let mut pause = Source::<OwnedFd>::FIRST_PAUSE;
    loop {
        ready(duplicate, direction, None)?;
        match op() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Ready, and yet `op` would block: `op` needs more than the file has, and no event reports that.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => duplicate.pause(&mut pause)?,
            done => return done,
        }
    }
}

/// Turns the `WouldBlock` of a wait with a limit into `false`.
fn in_time(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        result => result.map(|()| true),
    }
}

/// Waits until a read of `fd`, a descriptor of any kind, would not block: there is data, the end, or an error.
///
/// Each call makes a duplicate for epoll and closes the duplicate again, and the kernel decides on the order in which
/// several calls for one file wake. To wait more than once, use a [`Registered`].
///
/// ```
/// use std::io::Write;
///
/// let (reader, mut writer) = std::io::pipe()?;
/// let sender = greenling::spawn(move || writer.write_all(b"x").unwrap());
/// greenling::io::wait_readable(&reader)?;
/// # sender.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `EMFILE`; see [`Registered`].
///
/// # Panics
/// See [`Registered`].
///
/// May switch: yes.
pub fn wait_readable(fd: impl AsFd) -> io::Result<()> {
    Registered::new(fd)?.readable()
}

/// Waits until a write to `fd`, a descriptor of any kind, would not block: there is some room or an error. See
/// [`wait_readable`].
///
/// # Errors
/// `EMFILE`; see [`Registered`].
///
/// # Panics
/// See [`Registered`].
///
/// May switch: yes.
pub fn wait_writable(fd: impl AsFd) -> io::Result<()> {
    Registered::new(fd)?.writable()
}

/// May switch: yes. See [`Registered`] for errors and panics.
impl<T: AsFd + Read> Read for Registered<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Registered { duplicate, inner } = self;
        retry(duplicate, Direction::Read, || inner.read(buf))
    }
}

/// May switch: yes. See [`Registered`] for errors and panics.
impl<T: AsFd> Read for &Registered<T>
where
    for<'a> &'a T: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(|mut inner| inner.read(buf))
    }
}

/// A call writes at most 4096 bytes, so that a blocking pipe does not block. May switch: yes. See [`Registered`] for
/// errors and panics.
impl<T: AsFd + Write> Write for Registered<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Borrow the fields apart: the write needs `inner` mutably while the wait needs `duplicate`.
        let Registered { duplicate, inner } = self;
        retry(duplicate, Direction::Write, || inner.write(&buf[..buf.len().min(PIPE_BUF)]))
    }

    fn flush(&mut self) -> io::Result<()> {
        let Registered { duplicate, inner } = self;
        retry(duplicate, Direction::Write, || inner.flush())
    }
}

/// A call writes at most 4096 bytes, so that a blocking pipe does not block. May switch: yes. See [`Registered`] for
/// errors and panics.
impl<T: AsFd> Write for &Registered<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(|mut inner| inner.write(&buf[..buf.len().min(PIPE_BUF)]))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_with(|mut inner| inner.flush())
    }
}

impl<T: AsFd> AsFd for Registered<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd> AsRawFd for Registered<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_fd().as_raw_fd()
    }
}
