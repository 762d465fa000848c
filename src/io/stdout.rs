//! Green standard output and standard error: a write that would block parks the green thread.
//!
//! ```text
//!   write:  lock (FIFO, the holder may lock again) --> buffer up to the last line end --> write_some --> unlock
//!
//!   write_some:
//!           regular file     write(2)                              a disk does not wait for another process
//!           terminal         write(2) on another open file         non-blocking: EAGAIN, park, again
//!           pipe, socket     poll(0): room? --no--> park, again    then at most 4096 bytes, for which a pipe has
//!                               `--yes--> write(2)                  room if it has any
//! ```
//!
//! `O_NONBLOCK` is never set on the descriptor itself: the shell and all other processes of the terminal share the open
//! file, and do not expect EAGAIN. A terminal can be opened once more through `/proc`, and no other process has *that*
//! open file. A pipe could be opened so too, but a second writer would keep the reader from seeing the end. If another
//! process writes to the same pipe and takes the room between `poll` and write, the write fails with EAGAIN where the
//! kernel has a flag for that (sockets; pipes since Linux 6.4), and otherwise blocks the OS thread until there is room.
//!
//! A program may put another file in place of its standard output (`dup2`), so each write first asks which file that
//! is.
//!
//! * Invariant stdout-1: only the holder of the lock takes the buffer out of its cell, and puts the rest back without
//!   the bytes that were written, however the write ends. So a kill loses no byte and writes no byte twice. Upheld by
//!   `write_lines`, which cannot unwind meanwhile, and by the drop of `Flushing`.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice, IsTerminal, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::hub::hub;
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::switch::cancel;
use crate::switch::fiber::Fiber;
use crate::switch::root::{on_os_thread, try_root};
use crate::sync::{Semaphore, SemaphorePermit};
use crate::sys::epoll::Interest;
use crate::sys::file::{self, Identity, Kind};
use crate::sys::{socket, transfer};
use crate::thread::sleep;

/// The bytes of an unfinished line that the buffer keeps.
const CAPACITY: usize = 8 * 1024;

/// The bytes for which a pipe has room if it has room at all.
const PIPE_BUF: usize = 4096;

/// The bytes of one write to a terminal that cannot be opened again. The terminal may have room for fewer, and then the
/// write blocks.
const TERMINAL_CHUNK: usize = 256;

/// The pause between two polls of an output for which there is no descriptor to wait on.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// std's handle of one of the two outputs.
#[derive(Debug)]
enum Std {
    /// Standard output, which is descriptor 1.
    Out(io::Stdout),
    /// Standard error, which is descriptor 2.
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

/// The file behind the descriptor of an output.
struct Target {
    /// The identity of the file, to notice a change.
    identity: Identity,
    /// A duplicate of the descriptor, or for a terminal another open file.
    source: Source<OwnedFd>,
    /// The most bytes of one write, after a `poll` for room; none if a write needs no `poll`.
    chunk: Option<usize>,
}

impl Target {
    /// Makes the target for the file behind `fd`.
    fn of(fd: BorrowedFd<'_>, identity: Identity) -> io::Result<Target> {
        let (own, chunk) = match identity.kind {
            // A disk never lets a write wait for another process.
            Kind::Regular => (None, None),
            // Another open file of the terminal can be non-blocking without harm to other processes.
            Kind::Character => match file::reopen(fd) {
                Ok(own) => (Some(OwnedFd::from(own)), None),
                Err(_) => (None, Some(TERMINAL_CHUNK)),
            },
            Kind::Other => (None, Some(PIPE_BUF)),
        };
        let fd = match own {
            Some(own) => own,
            None => fd.try_clone_to_owned()?,
        };
        Ok(Target { identity, source: Source::new(fd).shared(), chunk })
    }

    /// Writes some of `bytes`, and waits while there is no room.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.source.run(Direction::Write, None, &mut |fd| {
            // The write may block if the open file is blocking, so poll for room first where there is a limit.
            let Some(most) = self.chunk else { return socket::write(fd.as_fd(), bytes) };
            if socket::poll_one(fd.as_fd(), Interest::OUT, Some(0))?.is_empty() {
                return Err(io::Error::from_raw_os_error(socket::EAGAIN));
            }
            let chunk = &bytes[..bytes.len().min(most)];
            match transfer::write_pipe(fd.as_fd(), &[IoSlice::new(chunk)]) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => socket::write(fd.as_fd(), chunk),
                result => result,
            }
        })
    }
}

/// Standard output or standard error of one OS thread.
struct Output {
    /// std's handle, for the descriptor.
    std: Std,
    /// The bytes that were accepted and not yet written; taken out while they are written (stdout-1). Always empty for
    /// standard error.
    buffer: Cell<Vec<u8>>,
    /// The file that the last write went to.
    target: RefCell<Option<Rc<Target>>>,
    /// The lock: a semaphore with one permit.
    lock: Semaphore,
    /// The fiber that holds the lock.
    owner: Cell<Option<Fiber>>,
    /// The number of times that the owner has locked.
    depth: Cell<usize>,
}

impl Output {
    /// Makes an output with an empty buffer.
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

    /// Takes the lock, also a second time, and waits in line while another green thread has it. Returns false if the
    /// call would have to wait but must not.
    fn acquire(&self) -> bool {
        // Only the owner passes without a permit.
        let me = try_root().map(|root| root.current());
        if me.is_none() || self.owner.get() != me {
            let Some(permit) = self.lock.acquire_timeout(Duration::MAX) else { return false };
            SemaphorePermit::forget(permit);
            self.owner.set(me);
        }
        self.depth.set(self.depth.get() + 1);
        true
    }

    /// Gives the lock back, once for each `acquire`.
    fn release(&self) {
        self.depth.set(self.depth.get() - 1);
        if self.depth.get() == 0 {
            self.owner.set(None);
            // Releasing fails only for a semaphore with a bound.
            let _ = self.lock.release();
        }
    }

    /// Returns the target with this identity, which is the last one unless the file was replaced.
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

    /// Writes some of `bytes`, and waits while there is no room.
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match file::identity(self.std.as_fd()) {
            // As in std, a process without standard output drops what it writes.
            Err(error) if error.raw_os_error() == Some(socket::EBADF) => return Ok(bytes.len()),
            Ok(identity) if hub().is_ok() => match self.target(identity) {
                Ok(target) => target.write(bytes),
                // There is no descriptor left, which may be the very message to write.
                Err(_) => write_polling(&self.std, bytes),
            },
            // The OS thread is ending, or this is the child of a fork: no other green thread can run.
            _ => write_blocking(&self.std, bytes),
        }?;
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Writes out the buffer.
    fn flush(&self) -> io::Result<()> {
        let mut flushing = Flushing { output: self, bytes: self.buffer.take(), done: 0 };
        while flushing.done < flushing.bytes.len() {
            flushing.done += self.write_some(&flushing.bytes[flushing.done..])?;
        }
        Ok(())
    }

    /// Accepts some of `bytes`: writes whole lines, and keeps the rest in the buffer.
    fn write_lines(&self, bytes: &[u8]) -> io::Result<usize> {
        // Without a line end, `bytes` go into the buffer if there is room.
        let lines = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut kept = self.buffer.take();
        let room = CAPACITY.saturating_sub(kept.len());
        if lines == 0 && bytes.len() <= room {
            kept.extend_from_slice(bytes);
            self.buffer.set(kept);
            return Ok(bytes.len());
        }
        self.buffer.set(kept);
        // An error up to here means that no byte of `bytes` was accepted.
        self.flush()?;
        // Then whole lines, and an unfinished one only if it is longer than the buffer.
        match lines {
            0 if bytes.len() <= CAPACITY => self.write_lines(bytes),
            0 => self.write_some(bytes),
            lines => self.write_some(&bytes[..lines]),
        }
    }
}

/// Writes some of `bytes` without a descriptor to wait on: polls for room after pauses.
fn write_polling(std: &Std, bytes: &[u8]) -> io::Result<usize> {
    // A caller that must not wait blocks the OS thread, as a caller without a hub does.
    while cancel::obstacle().is_none() {
        if !socket::poll_one(std.as_fd(), Interest::OUT, Some(0))?.is_empty() {
            let chunk = &bytes[..bytes.len().min(PIPE_BUF)];
            match socket::write(std.as_fd(), chunk) {
                Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {}
                result => return result,
            }
        }
        sleep(POLL_INTERVAL);
    }
    write_blocking(std, bytes)
}

/// Writes some of `bytes`, and blocks the OS thread while there is no room.
fn write_blocking(std: &Std, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket::write(std.as_fd(), bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process has made the open file non-blocking.
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
            match write_blocking(&self.std, rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                _ => return,
            }
        }
    }
}

/// The buffer while it is written out; the drop puts the rest back (stdout-1).
struct Flushing<'a> {
    /// The output that gets the rest back.
    output: &'a Output,
    /// The bytes to write.
    bytes: Vec<u8>,
    /// The number of bytes that were written.
    done: usize,
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.bytes.drain(..self.done);
        self.output.buffer.set(std::mem::take(&mut self.bytes));
    }
}

thread_local! {
    /// The standard output of this OS thread, made on first use.
    static STDOUT: Rc<Output> = Output::new(Std::Out(io::stdout()));
    /// The standard error of this OS thread, made on first use.
    static STDERR: Rc<Output> = Output::new(Std::Err(io::stderr()));
}

/// The state of a lock guard.
enum LockState {
    /// The guard holds the lock.
    Held(Rc<Output>),
    /// The caller would have had to wait for the lock, and must not.
    Refused,
    /// The OS thread is ending and the buffer is gone: writes go straight to the descriptor.
    Gone(Std),
}

impl LockState {
    /// Takes the lock of `output`.
    fn take(output: &'static std::thread::LocalKey<Rc<Output>>, std: Std) -> LockState {
        match on_os_thread(|| output.try_with(Rc::clone)) {
            Ok(output) if output.acquire() => LockState::Held(output),
            Ok(_) => LockState::Refused,
            Err(_) => LockState::Gone(std),
        }
    }

    /// Accepts some of `bytes`; with `by_line`, keeps an unfinished line in the buffer.
    fn write(&self, bytes: &[u8], by_line: bool) -> io::Result<usize> {
        match self {
            _ if bytes.is_empty() => Ok(0),
            LockState::Held(output) if by_line => output.write_lines(bytes),
            LockState::Held(output) => output.write_some(bytes),
            LockState::Refused => Err(refused()),
            LockState::Gone(std) => write_blocking(std, bytes),
        }
    }

    /// Writes out the buffer, if there is one.
    fn flush(&self) -> io::Result<()> {
        match self {
            LockState::Held(output) => output.flush(),
            LockState::Refused => Err(refused()),
            LockState::Gone(_) => Ok(()),
        }
    }
}

impl Drop for LockState {
    fn drop(&mut self) {
        if let LockState::Held(output) = self {
            output.release();
        }
    }
}

/// Makes the error of every call on a refused lock.
fn refused() -> io::Error {
    io::Error::other("an output was locked while this thread could not wait for the lock")
}

/// Defines the handle and the lock of one output.
macro_rules! output {
    ($handle:ident, $lock:ident, $make:ident, $local:ident, $std:ident, $by_line:literal, $what:literal, $how:literal) => {
        #[doc = concat!("The standard ", $what, " of the process, as [`std::io::", stringify!($handle), "`],")]
        /// but a write that would block parks the green thread.
        ///
        /// ```
        /// use std::io::Write;
        ///
        #[doc = concat!("writeln!(greenling::io::", stringify!($make), "(), \"a line\")?;")]
        /// # Ok::<(), std::io::Error>(())
        /// ```
        ///
        #[doc = $how]
        /// The green threads of an OS thread take turns, in order; the holder of the lock may lock again.
        ///
        /// # Errors of the calls that wait
        /// Besides the kernel's: `Other` when the call would have to wait but the caller unwinds from a panic or kill.
        ///
        /// # Panics of the calls that wait
        /// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
        /// [`no_switch`](crate::no_switch) if they have to wait. Bytes that a call has accepted are not lost.
        pub struct $handle {
            /// std's handle, for the descriptor.
            std: io::$handle,
        }

        #[doc = concat!("The locked standard ", $what, ", as [`std::io::", stringify!($lock), "`]:")]
        /// no other green thread of the OS thread writes meanwhile.
        ///
        #[doc = concat!("Errors and panics of the calls: see [`", stringify!($handle), "`].")]
        pub struct $lock<'a> {
            /// The lock, or the reason why there is none.
            state: LockState,
            /// std's handle, for the descriptor.
            std: io::$handle,
            /// The lifetime that std's lock has.
            _lifetime: PhantomData<&'a ()>,
        }

        #[doc = concat!("Returns a handle of the standard ", $what, ".")]
        ///
        /// May switch: no.
        pub fn $make() -> $handle {
            $handle { std: io::$make() }
        }

        impl $handle {
            /// Waits until no other green thread of this OS thread has the lock, and takes the lock. If the call would
            /// have to wait while the caller unwinds, all calls on the returned lock fail.
            ///
            /// # Panics
            #[doc = concat!("See [`", stringify!($handle), "`].")]
            ///
            /// May switch: yes.
            pub fn lock(&self) -> $lock<'static> {
                let state = LockState::take(&$local, Std::$std(io::$make()));
                $lock { state, std: io::$make(), _lifetime: PhantomData }
            }

            /// Reports whether this output is a terminal.
            ///
            /// May switch: no.
            pub fn is_terminal(&self) -> bool {
                self.std.is_terminal()
            }
        }

        #[doc = concat!("May switch: yes. See [`", stringify!($handle), "`] for errors and panics.")]
        impl Write for $lock<'_> {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.state.write(buf, $by_line)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.state.flush()
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

        // As std's lock: the buffer is in order after a panic (stdout-1).
        impl UnwindSafe for $lock<'_> {}
        impl RefUnwindSafe for $lock<'_> {}

        /// Lets a child write to the same file, as std's handle does.
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
    "Whole lines are written at once. An unfinished line is kept, up to 8 KiB, until its end, until `flush`, or until the \
     OS thread ends. Each OS thread has a buffer of its own, and `println!` uses that of std, so mix outputs by whole lines."
);
output!(Stderr, StderrLock, stderr, STDERR, Err, false, "error", "Nothing is buffered: each write goes out at once.");
