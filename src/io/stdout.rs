//! Standard output and standard error, green: a write that would block parks the green thread.
//!
//! ```text
//!   write:  lock (FIFO, the holder may lock again) --> buffer up to the last line end --> put --> unlock
//!
//!   put:    regular file     write(2)                              a disk keeps nobody waiting for another process
//!           terminal         write(2) on an open file of our own   non-blocking: EAGAIN, park, again
//!           pipe, socket     poll(0): room? --no--> park, again    then at most 4096 bytes, for which a pipe has
//!                               `--yes--> write(2)                  room if it has any
//! ```
//!
//! `O_NONBLOCK` is never set on the descriptor itself: its open file is shared with the shell and every other process on it,
//! and they do not expect EAGAIN. A terminal can be opened once more through `/proc`, and the flag of *that* open file is
//! nobody else's. A pipe could be too, but a second writer would keep its reader from seeing the end. If another process
//! writes to the same pipe at the same time and takes the room in between, the write blocks the OS thread until there
//! is more.
//!
//! A program may put another file in the place of its standard output (`dup2`), so each write asks which file it is.
//!
//! * Invariant O1: the buffer is taken out of its place by who holds the lock only, and put back without what was
//!   written, however the write ends. So a kill loses nothing and writes nothing twice.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::hub::hub;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::switch::fiber::Fiber;
use crate::switch::root::try_root;
use crate::sync::{Semaphore, SemaphorePermit};
use crate::sys::epoll::Interest;
use crate::sys::file::{self, Identity, Kind};
use crate::sys::socket;

/// Bytes kept until a line ends.
const CAPACITY: usize = 8 * 1024;

/// Bytes for which a pipe has room if it has any (PIPE_BUF).
const PIPE_PIECE: usize = 4096;

/// Bytes written at once to a terminal that cannot be opened again. It may have room for fewer, and then blocks.
const TERMINAL_PIECE: usize = 256;

/// Which of the two.
#[derive(Debug)]
enum Std {
    /// 1.
    Out(io::Stdout),
    /// 2.
    Err(io::Stderr),
}

impl AsFd for Std {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Std::Out(out) => out.as_fd(),
            Std::Err(err) => err.as_fd(),
        }
    }
}

/// The file behind the descriptor.
struct Target {
    /// Which it is.
    identity: Identity,
    /// A duplicate, or for a terminal an open file of our own.
    source: Source<OwnedFd>,
    /// Whether to ask for room first, and how much to write then.
    piece: Option<usize>,
}

impl Target {
    /// The target behind `fd`.
    fn of(fd: BorrowedFd<'_>, identity: Identity) -> io::Result<Target> {
        let (own, piece) = match identity.kind {
            Kind::Regular => (None, None),
            Kind::Character => match file::reopen(fd) {
                Ok(own) => (Some(OwnedFd::from(own)), None),
                Err(_) => (None, Some(TERMINAL_PIECE)),
            },
            Kind::Other => (None, Some(PIPE_PIECE)),
        };
        let fd = match own {
            Some(own) => own,
            None => fd.try_clone_to_owned()?,
        };
        Ok(Target { identity, source: Source::new(fd, false, true), piece })
    }

    /// Writes some of `bytes`, and waits if there is no room.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.source.run(Direction::Write, None, &mut |fd| {
            let Some(most) = self.piece else { return socket::write(fd.as_fd(), bytes) };
            if socket::poll_one(fd.as_fd(), Interest::OUT, Some(0))?.is_empty() {
                return Err(io::Error::from_raw_os_error(socket::EAGAIN));
            }
            socket::write(fd.as_fd(), &bytes[..bytes.len().min(most)])
        })
    }
}

/// Standard output or standard error of one OS thread.
struct Output {
    /// The descriptor.
    std: Std,
    /// What was accepted and not yet written; away while it is being written (O1). Always empty for standard error.
    buffer: Cell<Vec<u8>>,
    /// Where it went last.
    target: RefCell<Option<Rc<Target>>>,
    /// One permit: the lock.
    lock: Semaphore,
    /// Who holds it.
    owner: Cell<Option<Fiber>>,
    /// How often.
    depth: Cell<usize>,
}

impl Output {
    /// Nothing written yet.
    fn new(std: Std) -> Rc<Output> {
        Rc::new(Output {
            std,
            buffer: Cell::default(),
            target: RefCell::default(),
            lock: Semaphore::new(1),
            owner: Cell::new(None),
            depth: Cell::new(0),
        })
    }

    /// Takes the lock, or takes it once more; waits for it in line. False if it would have to wait but must not.
    fn acquire(&self) -> bool {
        let me = try_root().map(|root| root.current());
        if me.is_none() || self.owner.get() != me {
            let Some(permit) = self.lock.acquire_timeout(Duration::MAX) else { return false };
            SemaphorePermit::forget(permit);
            self.owner.set(me);
        }
        self.depth.set(self.depth.get() + 1);
        true
    }

    /// Gives it back.
    fn release(&self) {
        self.depth.set(self.depth.get() - 1);
        if self.depth.get() == 0 {
            self.owner.set(None);
            // It has no bound.
            let _ = self.lock.release();
        }
    }

    /// The file behind the descriptor.
    fn target(&self, identity: Identity) -> io::Result<Rc<Target>> {
        if let Some(target) = &*self.target.borrow()
            && target.identity == identity
        {
            return Ok(Rc::clone(target));
        }
        let target = Rc::new(Target::of(self.std.as_fd(), identity)?);
        *self.target.borrow_mut() = Some(Rc::clone(&target));
        Ok(target)
    }

    /// Writes some of `bytes`, and waits if there is no room.
    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match file::identity(self.std.as_fd()) {
            // As std: a process without standard output writes to nobody.
            Err(error) if error.raw_os_error() == Some(socket::EBADF) => return Ok(bytes.len()),
            Ok(identity) if hub().is_ok() => match self.target(identity) {
                Ok(target) => target.write(bytes),
                // No descriptor to be had: that may be what is to be said.
                Err(_) => put_blocking(&self.std, bytes),
            },
            // The OS thread is ending, or this is the child of a fork: there is nobody else to run.
            _ => put_blocking(&self.std, bytes),
        }?;
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Writes out what is in the buffer.
    fn flush(&self) -> io::Result<()> {
        let mut flushing = Flushing { output: self, bytes: self.buffer.take(), done: 0 };
        while flushing.done < flushing.bytes.len() {
            flushing.done += self.put(&flushing.bytes[flushing.done..])?;
        }
        Ok(())
    }

    /// Accepts some of `bytes`: what belongs to whole lines is written, the rest is kept.
    fn write_lines(&self, bytes: &[u8]) -> io::Result<usize> {
        let lines = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut kept = self.buffer.take();
        let room = CAPACITY.saturating_sub(kept.len());
        if lines == 0 && bytes.len() <= room {
            kept.extend_from_slice(bytes);
            self.buffer.set(kept);
            return Ok(bytes.len());
        }
        self.buffer.set(kept);
        // An error up to here says that nothing was accepted.
        self.flush()?;
        match lines {
            0 if bytes.len() <= CAPACITY => self.write_lines(bytes),
            0 => self.put(bytes),
            lines => self.put(&bytes[..lines]),
        }
    }
}

/// Blocks the OS thread.
fn put_blocking(std: &Std, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket::write(std.as_fd(), bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket::poll_one(std.as_fd(), Interest::OUT, None)?;
            }
            result => return result,
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let bytes = self.buffer.take();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match put_blocking(&self.std, rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                _ => return,
            }
        }
    }
}

/// The buffer on its way out (O1).
struct Flushing<'a> {
    /// Where the rest goes back to.
    output: &'a Output,
    /// What is to be written.
    bytes: Vec<u8>,
    /// How much of it was.
    done: usize,
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.bytes.drain(..self.done);
        self.output.buffer.set(std::mem::take(&mut self.bytes));
    }
}

thread_local! {
    /// Made on first use.
    static STDOUT: Rc<Output> = Output::new(Std::Out(io::stdout()));
    /// Made on first use.
    static STDERR: Rc<Output> = Output::new(Std::Err(io::stderr()));
}

/// What a lock guard has.
enum Hold {
    /// The lock.
    Held(Rc<Output>),
    /// It would have had to wait for the lock, and must not.
    Refused,
    /// The OS thread is ending and its buffer is gone: writes go straight to the descriptor.
    Gone(Std),
}

impl Hold {
    /// Takes the lock of `output`.
    fn take(output: &'static std::thread::LocalKey<Rc<Output>>, std: Std) -> Hold {
        match output.try_with(Rc::clone) {
            Ok(output) if output.acquire() => Hold::Held(output),
            Ok(_) => Hold::Refused,
            Err(_) => Hold::Gone(std),
        }
    }

    /// Accepts some of `bytes`; with `by_line` it keeps what is no whole line.
    fn write(&self, bytes: &[u8], by_line: bool) -> io::Result<usize> {
        match self {
            _ if bytes.is_empty() => Ok(0),
            Hold::Held(output) if by_line => output.write_lines(bytes),
            Hold::Held(output) => output.put(bytes),
            Hold::Refused => Err(refused()),
            Hold::Gone(std) => put_blocking(std, bytes),
        }
    }

    /// Writes out what was kept.
    fn flush(&self) -> io::Result<()> {
        match self {
            Hold::Held(output) => output.flush(),
            Hold::Refused => Err(refused()),
            Hold::Gone(_) => Ok(()),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Hold::Held(output) = self {
            output.release();
        }
    }
}

/// What every call on a refused lock says.
fn refused() -> io::Error {
    io::Error::other("an output was locked while this thread could not wait for the lock")
}

/// The two types of one of them.
macro_rules! output {
    ($handle:ident, $lock:ident, $make:ident, $local:ident, $std:ident, $by_line:literal, $what:literal, $how:literal) => {
        #[doc = concat!("The standard ", $what, " of the process, as [`std::io::", stringify!($handle), "`]:")]
        /// a write that would block parks the green thread.
        ///
        /// ```
        /// use std::io::Write;
        ///
        #[doc = concat!("writeln!(greenling::io::", stringify!($make), "(), \"a line\")?;")]
        /// # Ok::<(), std::io::Error>(())
        /// ```
        ///
        #[doc = $how]
        /// The green threads of an OS thread take turns, in order; who holds the lock may lock again.
        ///
        /// # Errors of the calls that wait
        /// Besides the kernel's: `Other` when the call would have to wait but the caller unwinds from a panic or kill.
        ///
        /// # Panics of the calls that wait
        /// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
        /// [`no_switch`](crate::no_switch) if they have to wait. What a call has accepted is not lost by that.
        pub struct $handle {
            /// The descriptor.
            std: io::$handle,
        }

        #[doc = concat!("The standard ", $what, " while nobody else of the OS thread may write to it, as [`std::io::", stringify!($lock), "`].")]
        ///
        #[doc = concat!("Errors and panics of its calls: see [`", stringify!($handle), "`].")]
        pub struct $lock<'a> {
            /// The lock.
            hold: Hold,
            /// The descriptor.
            std: io::$handle,
            /// As std's, which borrows.
            _lifetime: PhantomData<&'a ()>,
        }

        #[doc = concat!("A handle of the standard ", $what, ".")]
        ///
        /// May switch: no.
        pub fn $make() -> $handle {
            $handle { std: io::$make() }
        }

        impl $handle {
            /// Waits until no other green thread of this OS thread has the lock. If it would have to wait but must not,
            /// since the caller unwinds, it returns a lock of which every call fails.
            ///
            /// # Panics
            #[doc = concat!("See [`", stringify!($handle), "`].")]
            ///
            /// May switch: yes.
            pub fn lock(&self) -> $lock<'static> {
                let hold = Hold::take(&$local, Std::$std(io::$make()));
                $lock { hold, std: io::$make(), _lifetime: PhantomData }
            }

            /// Whether it is a terminal.
            ///
            /// May switch: no.
            pub fn is_terminal(&self) -> bool {
                self.std.is_terminal()
            }
        }

        #[doc = concat!("May switch: yes. See [`", stringify!($handle), "`] for errors and panics.")]
        impl Write for $lock<'_> {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.hold.write(buf, $by_line)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.hold.flush()
            }
        }

        #[doc = concat!("Each call takes the lock. May switch: yes. See [`", stringify!($handle), "`] for errors and panics.")]
        impl Write for &$handle {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.lock().write(buf)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.lock().flush()
            }

            fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
                self.lock().write_all(buf)
            }

            fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
                self.lock().write_fmt(args)
            }
        }

        #[doc = concat!("Each call takes the lock. May switch: yes. See [`", stringify!($handle), "`] for errors and panics.")]
        impl Write for $handle {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                (&*self).write(buf)
            }

            fn flush(&mut self) -> io::Result<()> {
                (&*self).flush()
            }

            fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
                (&*self).write_all(buf)
            }

            fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
                (&*self).write_fmt(args)
            }
        }

        // As std's: the buffer is in order after a panic (O1).
        impl UnwindSafe for $lock<'_> {}
        impl RefUnwindSafe for $lock<'_> {}

        /// As std's: the child writes to the same file.
        impl From<$handle> for Stdio {
            fn from(handle: $handle) -> Stdio {
                handle.std.into()
            }
        }

        impl fmt::Debug for $handle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($handle)).finish_non_exhaustive()
            }
        }

        impl fmt::Debug for $lock<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($lock)).finish_non_exhaustive()
            }
        }

        impl AsFd for $handle {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.std.as_fd()
            }
        }

        impl AsRawFd for $handle {
            fn as_raw_fd(&self) -> RawFd {
                self.std.as_raw_fd()
            }
        }

        impl AsFd for $lock<'_> {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.std.as_fd()
            }
        }

        impl AsRawFd for $lock<'_> {
            fn as_raw_fd(&self) -> RawFd {
                self.std.as_raw_fd()
            }
        }
    };
}

output!(
    Stdout,
    StdoutLock,
    stdout,
    STDOUT,
    Out,
    true,
    "output",
    "Whole lines are written at once; what is no whole line yet is kept, up to 8 KiB, until it is one, until `flush`, or until \
     the OS thread ends. Each OS thread keeps its own, and `println!` has std's, so mix them by whole lines."
);
output!(Stderr, StderrLock, stderr, STDERR, Err, false, "error", "Nothing is kept: it is written at once.");
