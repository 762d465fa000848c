//! Any descriptor: wait until it can be read or written, then do with it what you like.
//!
//! ```text
//!   readable:  poll(0): ready? --yes--> return
//!                 `--no--> park until epoll has news of it, ask again
//! ```
//!
//! Three things make this sound for descriptors that the crate knows nothing of:
//!
//! * epoll watches a *duplicate* that belongs to the `Registered` alone. So nobody can close it, hand its number to another
//!   file, or register it twice, whatever happens to the descriptor itself; and an `AsFd` that names another descriptor each
//!   time it is asked confuses nobody but its owner.
//! * What epoll said is a hint, and `poll` is the word: it is asked before each return. So a stale hint costs a system call,
//!   and what others do with the open file meanwhile cannot make it wrong for longer than that.
//! * Kinds that epoll refuses (regular files, directories: EPERM) are those that `poll` calls ready at all times, so
//!   they never get there.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::runtime::choose::ReadyArm;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::sys::epoll::Interest;
use crate::sys::socket;

/// Bytes for which a blocking pipe that can be written has room (PIPE_BUF).
const ATOMIC: usize = 4096;

/// A descriptor of any kind, with the ability to wait for it: a socket of another library, a `timerfd`, a device, a pipe.
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
/// Whether the descriptor is blocking is its owner's business and is not changed. Several green threads may wait for the
/// same direction; they are woken in order.
///
/// # Errors of the calls that wait
/// Those of poll(2) and epoll_ctl(2) (`ENOSPC`, `ENOMEM`); `Other` when the call would have to wait but the caller unwinds
/// from a panic or kill, or its OS thread is ending.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch) if they have to wait.
#[derive(Debug)]
pub struct Registered<T: AsFd> {
    /// What epoll watches: a duplicate. Declared, and so dropped, before the original.
    watch: Source<OwnedFd>,
    /// What it is a duplicate of.
    inner: T,
}

impl<T: AsFd> Registered<T> {
    /// Takes a descriptor and makes a duplicate of it to watch.
    ///
    /// # Errors
    /// `EMFILE`.
    ///
    /// May switch: no.
    pub fn new(inner: T) -> io::Result<Registered<T>> {
        let watch = inner.as_fd().try_clone_to_owned()?;
        Ok(Registered { watch: Source::new(watch, false, true), inner })
    }

    /// The descriptor's owner.
    ///
    /// May switch: no.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The descriptor's owner, to be changed. It may also be exchanged for another, but this one goes on watching the file
    /// of the first.
    ///
    /// May switch: no.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives the descriptor back; nobody watches it any more.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Waits until a read would not block: something is there, or the end, or an error.
    ///
    /// It is true when this returns. Whether it still is when you read depends on who else reads.
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

    /// Waits until a write would not block: there is some room, or an error.
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

    /// [`readable`](Self::readable) for at most `limit`; says whether it is.
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

    /// [`writable`](Self::writable) for at most `limit`; says whether it is.
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

    /// Waits until it is readable and calls `op`, until that says anything but `WouldBlock`. Works for blocking descriptors
    /// and for others.
    ///
    /// # Errors
    /// Those of `op`; see [`Registered`].
    ///
    /// # Panics
    /// With the panics of `op`; see [`Registered`].
    ///
    /// May switch: yes.
    pub fn read_with<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        retry(&self.watch, Direction::Read, || op(&self.inner))
    }

    /// Waits until it is writable and calls `op`, until that says anything but `WouldBlock`. A blocking descriptor has room
    /// for *some* bytes then, a pipe for 4096: an `op` that writes more would block the OS thread.
    ///
    /// # Errors
    /// Those of `op`; see [`Registered`].
    ///
    /// # Panics
    /// With the panics of `op`; see [`Registered`].
    ///
    /// May switch: yes.
    pub fn write_with<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        retry(&self.watch, Direction::Write, || op(&self.inner))
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_readable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.watch, Direction::Read)
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_writable(&self) -> ReadyArm<'_> {
        ReadyArm::new(&self.watch, Direction::Write)
    }

    /// Waits until it is ready in one direction.
    fn ready(&self, direction: Direction, limit: Option<Duration>) -> io::Result<()> {
        ready(&self.watch, direction, limit)
    }
}

/// Waits until the file behind `watch` is ready in one direction.
fn ready(watch: &Source<OwnedFd>, direction: Direction, limit: Option<Duration>) -> io::Result<()> {
    let interest = match direction {
        Direction::Read => Interest::IN,
        Direction::Write => Interest::OUT,
    };
    watch.run(direction, limit, &mut |fd| match socket::poll_one(fd.as_fd(), interest, Some(0)) {
        Ok(ready) if ready.is_empty() => Err(io::Error::from_raw_os_error(socket::EAGAIN)),
        result => result.map(drop),
    })
}

/// Waits and tries until `op` says anything but `WouldBlock`.
fn retry<R>(watch: &Source<OwnedFd>, direction: Direction, mut op: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    // `op` is the caller's code and may wait for other things, so no place in a line is held meanwhile.
    let mut pause = Source::<OwnedFd>::FIRST_PAUSE;
    loop {
        ready(watch, direction, None)?;
        match op() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Ready, and yet it would block: an operation that needs more than the file has. No event tells of that.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => watch.pause(&mut pause)?,
            done => return done,
        }
    }
}

/// Whether a wait with a limit ended in time.
fn in_time(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        result => result.map(|()| true),
    }
}

/// Waits until `fd`, a descriptor of any kind, can be read: something is there, or the end, or an error.
///
/// Each call makes a duplicate for epoll and closes it again, and of several calls for one file the kernel wakes them in an
/// order of its own; who waits more than once is better off with a [`Registered`].
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

/// Waits until `fd`, a descriptor of any kind, can be written: there is some room, or an error. See [`wait_readable`].
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
        let Registered { watch, inner } = self;
        retry(watch, Direction::Read, || inner.read(buf))
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

/// A call writes 4096 bytes at most, so that a blocking pipe does not block. May switch: yes. See [`Registered`] for errors
/// and panics.
impl<T: AsFd + Write> Write for Registered<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Registered { watch, inner } = self;
        retry(watch, Direction::Write, || inner.write(&buf[..buf.len().min(ATOMIC)]))
    }

    fn flush(&mut self) -> io::Result<()> {
        let Registered { watch, inner } = self;
        retry(watch, Direction::Write, || inner.flush())
    }
}

/// A call writes 4096 bytes at most, so that a blocking pipe does not block. May switch: yes. See [`Registered`] for errors
/// and panics.
impl<T: AsFd> Write for &Registered<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(|mut inner| inner.write(&buf[..buf.len().min(ATOMIC)]))
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
