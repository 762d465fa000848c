//! Green standard input: waits in epoll, reads when there is data.
//!
//! ```text
//!   lock: take the buffer out ---------------> StdinLock { buffer } -- drop --> put it back, or
//!         or queue up (FIFO)                                                    hand it to the longest waiter
//!
//!   fill: poll(0): ready? --no--> park until epoll reports an event, ask again
//!              `--yes--> one read(2), which does not block
//! ```
//!
//! `O_NONBLOCK` is never set: the shell and all other processes of the terminal share the open file, and do not expect
//! EAGAIN. So a `poll` comes before each read. If another process reads the same terminal or pipe and takes the data in
//! between, the read fails with EAGAIN where the kernel has a flag for that (sockets; pipes since Linux 6.4), and
//! otherwise blocks the OS thread until there is more data. Regular files are always ready, so they are read at once,
//! and epoll, which refuses them, is not needed.
//!
//! * Invariant stdin-1: the buffer is in exactly one place: `free` (unlocked), `handed` (given to a waiter that has not
//!   run yet), or a `StdinLock`. Upheld by `acquire` and `release`; a waiter that unwinds passes the buffer on.
//! * Invariant stdin-2: a call that unwinds while it waits leaves in the buffer all that it read. Upheld by `fill`,
//!   which appends what it read before anything can unwind, and by the callers, which take bytes out after the last
//!   wait.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, BufRead, IoSliceMut, IsTerminal, Lines, Read};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;

use crate::runtime::arms::ReadyArm;
use crate::runtime::caller::Caller;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::reactor::Direction;
use crate::runtime::select_source::SelectReadable;
use crate::runtime::source::Source;
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::{existing_root, on_os_thread};
use crate::switch::wait_list::WaitList;
use crate::sys::clock::NEVER;
use crate::sys::epoll::Interest;
use crate::sys::file::{self, Kind};
use crate::sys::{socket, transfer};

/// The bytes that one read asks for.
const CHUNK: usize = 8 * 1024;

/// The capacity above which an empty buffer, grown by a very long line, is freed.
const MAX_KEPT: usize = 64 * 1024;

/// The bytes that were read and not yet taken.
#[derive(Debug, Default)]
struct Buffer {
    /// The bytes that were read; those before `taken` are gone.
    bytes: Vec<u8>,
    /// The number of bytes that were taken.
    taken: usize,
}

impl Buffer {
    /// Returns the bytes that are left.
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes `n` bytes out.
    fn consume(&mut self, n: usize) {
        self.taken = self.bytes.len().min(self.taken + n);
        if self.taken == self.bytes.len() {
            self.taken = 0;
            self.bytes.clear();
            if self.bytes.capacity() > MAX_KEPT {
                self.bytes = Vec::new();
            }
        }
    }

    /// Reads once if there is data, and does not wait.
    fn fill(&mut self, stdin: BorrowedFd<'_>) -> io::Result<usize> {
        // The read may block, so poll for data first.
        if socket::poll_one(stdin, Interest::IN, Some(0))?.is_empty() {
            return Err(io::Error::from_raw_os_error(socket::EAGAIN));
        }
        // Make room behind the bytes that are left, and keep as much as the read returned.
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let before = self.bytes.len();
        self.bytes.resize(before + CHUNK, 0);
        let result = read_now(stdin, &mut self.bytes[before..]);
        self.bytes.truncate(before + *result.as_ref().unwrap_or(&0));
        match result {
            // As in std, a process without standard input reads nothing.
            Err(error) if error.raw_os_error() == Some(socket::EBADF) => Ok(0),
            result => result,
        }
    }
}

/// Reads once from a descriptor that was ready a moment ago.
fn read_now(stdin: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    match transfer::read_pipe(stdin, &mut [IoSliceMut::new(buf)]) {
        // Terminals know no read with a flag.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => socket::read(stdin, buf),
        // The data of a file may still be on the disk; the read waits for the disk then.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_regular(stdin) => socket::read(stdin, buf),
        result => result,
    }
}

/// Reports whether standard input is a file on a disk.
fn is_regular(stdin: BorrowedFd<'_>) -> bool {
    file::identity(stdin).is_ok_and(|file| file.kind == Kind::Regular)
}

/// The standard input of one OS thread.
struct Input {
    /// The descriptor, with its mode unchanged; see the head of this file.
    source: Source<io::Stdin>,
    /// The buffer while no green thread has the lock (stdin-1).
    free: Cell<Option<Buffer>>,
    /// The buffer that was handed to a waiter, and the waiter (stdin-1).
    handed: RefCell<Option<(Fiber, Buffer)>>,
    /// The green threads that wait for the lock.
    waiters: WaitList,
}

thread_local! {
    /// The standard input of this OS thread, made on first use.
    static STDIN: Rc<Input> = Rc::new(Input {
        source: Source::new(io::stdin()).shared(),
        free: Cell::new(Some(Buffer::default())),
        handed: RefCell::new(None),
        waiters: WaitList::new(),
    });
}

impl Input {
    /// Takes the buffer, and waits in line while another green thread has it.
    fn acquire(&self) -> io::Result<Buffer> {
        if let Some(buffer) = self.free.take() {
            return Ok(buffer);
        }
        let caller = Caller::current()?;
        let me = caller.fiber;
        let _guard = HandoffGuard { input: self, me };
        loop {
            let place = self.waiters.join(me);
            let woken = caller.park(Reason::Lock("standard input"), NEVER);
            drop(place);
            if let Some(buffer) = self.take_handed(me) {
                return Ok(buffer);
            }
            // There was a wake without the buffer, or no wait at all.
            woken?;
        }
    }

    /// Takes the buffer if `release` has handed it to this fiber.
    fn take_handed(&self, me: Fiber) -> Option<Buffer> {
        self.handed.borrow_mut().take_if(|(fiber, _)| *fiber == me).map(|(_, buffer)| buffer)
    }

    /// Hands the buffer to the longest waiter, or puts it back.
    fn release(&self, buffer: Buffer) {
        match (existing_root(), self.waiters.pop()) {
            (Some(root), Some(next)) => {
                *self.handed.borrow_mut() = Some((next, buffer));
                root.wake(next);
            }
            _ => self.free.set(Some(buffer)),
        }
    }
}

/// A guard of a fiber that waits for the lock. If the fiber unwinds after `release` has handed over the buffer, the
/// guard passes the buffer on.
struct HandoffGuard<'a> {
    /// The input that the fiber waits for.
    input: &'a Input,
    /// The fiber that waits.
    me: Fiber,
}

impl Drop for HandoffGuard<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.input.take_handed(self.me) {
            self.input.release(buffer);
        }
    }
}

/// The standard input of the process, as [`std::io::Stdin`], but a read parks the green thread.
///
/// ```no_run
/// for line in greenling::io::stdin().lines() {
///     println!("{}", line?.to_uppercase());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Each OS thread has a buffer of its own, so read from one OS thread only. Its green threads take turns, in order.
///
/// # Errors of the calls that wait
/// Besides the kernel's: `Other` when the call would have to wait but the caller unwinds from a panic or kill, or the
/// OS thread is ending.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch). No input is lost: the next read gets the bytes.
pub struct Stdin {
    /// std's handle, for the descriptor.
    std: io::Stdin,
}

/// The locked standard input, as [`std::io::StdinLock`]: no other green thread reads meanwhile. A lock stays on its OS
/// thread.
///
/// Errors and panics of the calls: see [`Stdin`].
pub struct StdinLock<'a> {
    /// The input that gets the buffer back; none if the lock was refused.
    input: Option<Rc<Input>>,
    /// The bytes that were read and not yet taken.
    buffer: Buffer,
    /// std's handle, for the descriptor.
    std: io::Stdin,
    /// The lifetime that std's lock has.
    _lifetime: PhantomData<&'a ()>,
}

/// Returns a handle of standard input.
///
/// May switch: no.
pub fn stdin() -> Stdin {
    Stdin { std: io::stdin() }
}

impl Stdin {
    /// Waits until no other green thread of this OS thread has the lock, and takes the lock. If the call would have to
    /// wait while the caller unwinds or the OS thread is ending, all calls on the returned lock fail.
    ///
    /// # Panics
    /// See [`Stdin`]. A green thread that locks twice waits for itself.
    ///
    /// May switch: yes.
    pub fn lock(&self) -> StdinLock<'static> {
        let locked = on_os_thread(|| STDIN.try_with(Rc::clone)).ok().and_then(|input| {
            let buffer = input.acquire().ok()?;
            Some((input, buffer))
        });
        let (input, buffer) = locked.map_or_else(Default::default, |(input, buffer)| (Some(input), buffer));
        StdinLock { input, buffer, std: io::stdin(), _lifetime: PhantomData }
    }

    /// Appends the next line, with the `\n`, to `buf`, and returns the number of bytes: 0 at the end of input.
    ///
    /// # Errors
    /// `InvalidData` if the line is not UTF-8; such a line is skipped. See [`Stdin`].
    ///
    /// # Panics
    /// See [`Stdin`].
    ///
    /// May switch: yes.
    pub fn read_line(&self, buf: &mut String) -> io::Result<usize> {
        self.lock().read_line(buf)
    }

    /// Locks standard input and returns an iterator over its lines, without the line ends. The iterator holds the lock.
    ///
    /// # Panics
    /// See [`Stdin`].
    ///
    /// May switch: yes.
    pub fn lines(self) -> Lines<StdinLock<'static>> {
        self.lock().lines()
    }

    /// Reports whether standard input is a terminal.
    ///
    /// May switch: no.
    pub fn is_terminal(&self) -> bool {
        self.std.is_terminal()
    }
}

// As std's lock: the buffer is in order after a panic (stdin-2).
impl UnwindSafe for StdinLock<'_> {}
impl RefUnwindSafe for StdinLock<'_> {}

impl StdinLock<'_> {
    /// Waits for more input and appends the bytes to the buffer. Returns the number of bytes: 0 at the end of input.
    fn fill(&mut self) -> io::Result<usize> {
        let Some(input) = &self.input else { return Err(refused()) };
        let buffer = &mut self.buffer;
        // No code runs between the read and the return, so no unwinding can lose the bytes (stdin-2).
        input.source.run(Direction::Read, None, &mut |stdin| buffer.fill(stdin.as_fd()))
    }

    /// Reads until the buffer contains `end` or all input. Returns the number of bytes up to there.
    fn fill_until(&mut self, end: Option<u8>) -> io::Result<usize> {
        let mut searched = 0;
        loop {
            // Search only the bytes that the last read added.
            let rest = self.buffer.rest();
            if let Some(end) = end
                && let Some(at) = rest[searched..].iter().position(|byte| *byte == end)
            {
                return Ok(searched + at + 1);
            }
            searched = rest.len();
            if self.fill()? == 0 {
                return Ok(searched);
            }
        }
    }

    /// Takes `n` bytes out of the buffer and appends them to `out`, unless they are not UTF-8.
    fn take_text(&mut self, n: usize, out: &mut String) -> io::Result<usize> {
        // Text that is not UTF-8 is taken as well: the next call gets the next line.
        let text = match str::from_utf8(&self.buffer.rest()[..n]) {
            Ok(text) => {
                out.push_str(text);
                Ok(n)
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8")),
        };
        self.buffer.consume(n);
        text
    }
}

impl SelectReadable for StdinLock<'_> {
    type Arm<'s>
        = InputArm<'s>
    where
        Self: 's;

    fn select_readable(&self) -> InputArm<'_> {
        let ready = self.input.as_ref().map(|input| ReadyArm::new(&input.source, Direction::Read));
        InputArm { filled: !self.buffer.rest().is_empty(), ready }
    }
}

/// The arm of a `select!` that waits for input.
#[doc(hidden)]
#[derive(Debug)]
pub struct InputArm<'a> {
    /// Whether the buffer had bytes when the arm was made.
    filled: bool,
    /// The arm that waits for more input; none if the lock was refused.
    ready: Option<ReadyArm<'a>>,
}

impl SelectArm for InputArm<'_> {
    type Output = io::Result<()>;

    fn finish(self) -> io::Result<()> {
        match self.ready {
            _ if self.filled => Ok(()),
            Some(ready) => ready.finish(),
            None => Err(refused()),
        }
    }
}

impl Arm for InputArm<'_> {
    fn try_select(&self) -> bool {
        self.filled || self.ready.as_ref().is_none_or(ReadyArm::try_select)
    }

    fn register(&self, id: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        match &self.ready {
            Some(ready) => ready.register(id),
            None => Err(AlreadyWon),
        }
    }

    fn accept(&self) {
        if let Some(ready) = &self.ready {
            ready.accept();
        }
    }

    fn unregister(&self, end: ArmEnd) {
        if let Some(ready) = &self.ready {
            ready.unregister(end);
        }
    }

    fn is_descriptor(&self) -> bool {
        true
    }
}

/// Makes the error of every call on a refused lock.
fn refused() -> io::Error {
    io::Error::other("standard input was locked while this thread could not wait for the lock")
}

impl Drop for StdinLock<'_> {
    fn drop(&mut self) {
        if let Some(input) = &self.input {
            input.release(std::mem::take(&mut self.buffer));
        }
    }
}

/// May switch: yes. See [`Stdin`] for errors and panics.
impl BufRead for StdinLock<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.buffer.rest().is_empty() {
            self.fill()?;
        }
        Ok(self.buffer.rest())
    }

    fn consume(&mut self, n: usize) {
        self.buffer.consume(n);
    }

    fn read_until(&mut self, end: u8, out: &mut Vec<u8>) -> io::Result<usize> {
        let n = self.fill_until(Some(end))?;
        out.extend_from_slice(&self.buffer.rest()[..n]);
        self.buffer.consume(n);
        Ok(n)
    }

    fn read_line(&mut self, out: &mut String) -> io::Result<usize> {
        let n = self.fill_until(Some(b'\n'))?;
        self.take_text(n, out)
    }
}

/// May switch: yes. See [`Stdin`] for errors and panics.
impl Read for StdinLock<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }

    fn read_to_end(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        let n = self.fill_until(None)?;
        out.extend_from_slice(&self.buffer.rest()[..n]);
        self.buffer.consume(n);
        Ok(n)
    }

    fn read_to_string(&mut self, out: &mut String) -> io::Result<usize> {
        let n = self.fill_until(None)?;
        self.take_text(n, out)
    }
}

/// Each call takes the lock. May switch: yes. See [`Stdin`] for errors and panics.
impl Read for &Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buf)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.lock().read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        self.lock().read_to_string(buf)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.lock().read_exact(buf)
    }
}

/// Each call takes the lock. May switch: yes. See [`Stdin`] for errors and panics.
impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        (&*self).read_exact(buf)
    }
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdin").finish_non_exhaustive()
    }
}

impl fmt::Debug for StdinLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinLock").finish_non_exhaustive()
    }
}

impl AsFd for Stdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.std.as_fd()
    }
}

impl AsRawFd for Stdin {
    fn as_raw_fd(&self) -> RawFd {
        self.std.as_raw_fd()
    }
}

impl AsFd for StdinLock<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.std.as_fd()
    }
}

impl AsRawFd for StdinLock<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.std.as_raw_fd()
    }
}
