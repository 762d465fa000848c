//! Standard input, green: waits in epoll, reads when something is there.
//!
//! ```text
//!   lock: take the buffer out ---------------> StdinLock { buffer } -- drop --> put it back, or
//!         or queue up (FIFO)                                                    hand it to who waits longest
//!
//!   fill: poll(0): ready? --no--> park until epoll says so, ask again
//!              `--yes--> one read(2), which does not block
//! ```
//!
//! `O_NONBLOCK` is never set: the open terminal is shared with the shell and every other process on it, and they do
//! not expect EAGAIN. So readiness is asked for before each read. If another process reads the same terminal or pipe
//! and takes the data in between, the read blocks the OS thread until there is more. Regular files are always
//! ready, so they are read at once and never meet epoll, which refuses them.
//!
//! * Invariant I1: the buffer is in exactly one place: `free` (unlocked), `handed` (on its way to a waiter), or a
//!   `StdinLock`. Upheld by `acquire` and `release`; a waiter that is unwound passes on what was handed to it.
//! * Invariant I2: a call that unwinds while it waits leaves in the buffer all that it read. A line is taken out when
//!   it is whole.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, BufRead, IsTerminal, Lines, Read};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;

use crate::runtime::choose::{AnyArm, Arm, End, Failed, ReadyArm, Who};
use crate::runtime::hub::hub;
use crate::runtime::park::{NEVER, park};
use crate::runtime::reactor::Direction;
use crate::runtime::source::Source;
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::existing_root;
use crate::switch::wait_list::WaitList;
use crate::sys::epoll::Interest;
use crate::sys::socket;

/// Bytes asked for at once.
const CHUNK: usize = 8 * 1024;

/// A buffer that a very long line has made larger than this is given back.
const KEPT: usize = 64 * 1024;

/// What was read and not yet taken.
#[derive(Debug, Default)]
struct Buffer {
    /// The bytes; those before `taken` are gone.
    bytes: Vec<u8>,
    /// How many were taken.
    taken: usize,
}

impl Buffer {
    /// What is there.
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes `n` bytes.
    fn consume(&mut self, n: usize) {
        self.taken = self.bytes.len().min(self.taken + n);
        if self.taken == self.bytes.len() {
            self.taken = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        }
    }

    /// Reads once, without waiting.
    fn fill(&mut self, stdin: BorrowedFd<'_>) -> io::Result<usize> {
        if socket::poll_one(stdin, Interest::IN, Some(0))?.is_empty() {
            return Err(io::Error::from_raw_os_error(socket::EAGAIN));
        }
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let before = self.bytes.len();
        self.bytes.resize(before + CHUNK, 0);
        let result = socket::read(stdin, &mut self.bytes[before..]);
        self.bytes.truncate(before + *result.as_ref().unwrap_or(&0));
        match result {
            // As std: a process without standard input reads nothing.
            Err(error) if error.raw_os_error() == Some(socket::EBADF) => Ok(0),
            result => result,
        }
    }
}

/// Standard input of one OS thread.
struct Shared {
    /// The descriptor; blocking, see the file.
    source: Source<io::Stdin>,
    /// The buffer while nobody has the lock (I1).
    free: Cell<Option<Buffer>>,
    /// The buffer on its way, and to whom (I1).
    handed: RefCell<Option<(Fiber, Buffer)>>,
    /// Who waits for the lock.
    waiters: WaitList,
}

thread_local! {
    /// Made on first use.
    static STDIN: Rc<Shared> = Rc::new(Shared {
        source: Source::new(io::stdin(), false, true),
        free: Cell::new(Some(Buffer::default())),
        handed: RefCell::new(None),
        waiters: WaitList::new(),
    });
}

impl Shared {
    /// Takes the buffer; waits for it in line.
    fn acquire(&self) -> io::Result<Buffer> {
        if let Some(buffer) = self.free.take() {
            return Ok(buffer);
        }
        let (root, hub) = hub()?;
        let me = root.current();
        let _turn = Turn { shared: self, me };
        loop {
            let place = self.waiters.join(me);
            let woken = park(root, hub, me, Reason::Lock("standard input"), NEVER);
            drop(place);
            if let Some(buffer) = self.take_handed(me) {
                return Ok(buffer);
            }
            woken.map_err(|obstacle| io::Error::other(obstacle.to_string()))?;
        }
    }

    /// What `release` left for this fiber.
    fn take_handed(&self, me: Fiber) -> Option<Buffer> {
        self.handed.borrow_mut().take_if(|(fiber, _)| *fiber == me).map(|(_, buffer)| buffer)
    }

    /// Gives the buffer to who waits longest, or puts it back.
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

/// A fiber that waits for the lock; if a kill unwinds it after the buffer was handed to it, the next one gets it.
struct Turn<'a> {
    /// Whose lock.
    shared: &'a Shared,
    /// Who waits.
    me: Fiber,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.shared.take_handed(self.me) {
            self.shared.release(buffer);
        }
    }
}

/// The standard input of the process, as [`std::io::Stdin`]: reading parks the green thread.
///
/// ```no_run
/// for line in greenling::io::stdin().lines() {
///     println!("{}", line?.to_uppercase());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Each OS thread has its own buffer, so read from one OS thread only. Its green threads take turns, in order.
///
/// # Errors of the calls that wait
/// Besides the kernel's: `Other` when the call would have to wait but the caller unwinds from a panic or kill, or its
/// OS thread is ending.
///
/// # Panics of the calls that wait
/// They unwind with a kill or an expired [`timeout`](crate::timeout), and panic inside
/// [`no_switch`](crate::no_switch). No input is lost by that: the next read gets it.
pub struct Stdin {
    /// The descriptor.
    std: io::Stdin,
}

/// Standard input while nobody else may read from it, as [`std::io::StdinLock`]. It stays on its OS thread.
///
/// Errors and panics of its calls: see [`Stdin`].
pub struct StdinLock<'a> {
    /// Where the buffer goes back to; none if the lock was refused.
    shared: Option<Rc<Shared>>,
    /// What was read and not yet taken.
    buffer: Buffer,
    /// The descriptor.
    std: io::Stdin,
    /// As std's, which borrows.
    _lifetime: PhantomData<&'a ()>,
}

/// A handle of standard input.
///
/// May switch: no.
pub fn stdin() -> Stdin {
    Stdin { std: io::stdin() }
}

impl Stdin {
    /// Waits until no other green thread of this OS thread has the lock. If it would have to wait but must not, since the
    /// caller unwinds or the OS thread is ending, it returns a lock of which every call fails.
    ///
    /// # Panics
    /// See [`Stdin`]. A green thread that locks twice waits for itself.
    ///
    /// May switch: yes.
    pub fn lock(&self) -> StdinLock<'static> {
        let locked = STDIN.try_with(Rc::clone).ok().and_then(|shared| {
            let buffer = shared.acquire().ok()?;
            Some((shared, buffer))
        });
        let (shared, buffer) = locked.map_or_else(Default::default, |(shared, buffer)| (Some(shared), buffer));
        StdinLock { shared, buffer, std: io::stdin(), _lifetime: PhantomData }
    }

    /// Appends the next line, with its `\n`, to `buf`, and returns how many bytes that were: 0 at the end of input.
    ///
    /// # Errors
    /// `InvalidData` if the line is not UTF-8; it is skipped then. See [`Stdin`].
    ///
    /// # Panics
    /// See [`Stdin`].
    ///
    /// May switch: yes.
    pub fn read_line(&self, buf: &mut String) -> io::Result<usize> {
        self.lock().read_line(buf)
    }

    /// The lines of input without their ends, one after the other. The lock is held by the iterator.
    ///
    /// # Panics
    /// See [`Stdin`].
    ///
    /// May switch: yes.
    pub fn lines(self) -> Lines<StdinLock<'static>> {
        self.lock().lines()
    }

    /// Whether it is a terminal.
    ///
    /// May switch: no.
    pub fn is_terminal(&self) -> bool {
        self.std.is_terminal()
    }
}

// As std's: the buffer is in order after a panic (I2).
impl UnwindSafe for StdinLock<'_> {}
impl RefUnwindSafe for StdinLock<'_> {}

impl StdinLock<'_> {
    /// Waits for more input and appends it to the buffer; 0 at the end of input.
    fn fill(&mut self) -> io::Result<usize> {
        let Some(shared) = &self.shared else { return Err(refused()) };
        let buffer = &mut self.buffer;
        // Nothing runs between the read and the return, so that no unwinding can lose it (I2).
        shared.source.run(Direction::Read, None, &mut |stdin| buffer.fill(stdin.as_fd()))
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_readable(&self) -> InputArm<'_> {
        let ready = self.shared.as_ref().map(|shared| ReadyArm::new(&shared.source, Direction::Read));
        InputArm { filled: !self.buffer.rest().is_empty(), ready }
    }

    /// Reads until `end` is in the buffer, or all input is; returns how many bytes that is.
    fn fill_until(&mut self, end: Option<u8>) -> io::Result<usize> {
        let mut searched = 0;
        loop {
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

    /// Takes `n` bytes out of the buffer, as text.
    fn take_text(&mut self, n: usize, out: &mut String) -> io::Result<usize> {
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

/// The arm of a `select!` that waits for input.
#[doc(hidden)]
#[derive(Debug)]
pub struct InputArm<'a> {
    /// Something is in the buffer.
    filled: bool,
    /// Waits for more; none if the lock was refused.
    ready: Option<ReadyArm<'a>>,
}

impl InputArm<'_> {
    /// For `select!`.
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// If standard input cannot be waited for.
    pub fn finish(self) -> io::Result<()> {
        match self.ready {
            _ if self.filled => Ok(()),
            Some(ready) => ready.finish(),
            None => Err(refused()),
        }
    }
}

impl Arm for InputArm<'_> {
    fn look(&self) -> bool {
        self.filled || self.ready.as_ref().is_none_or(ReadyArm::look)
    }

    fn enter(&self, who: Who) -> Result<Option<&WaitList>, Failed> {
        match &self.ready {
            Some(ready) => ready.enter(who),
            None => Err(Failed),
        }
    }

    fn complete(&self) {
        if let Some(ready) = &self.ready {
            ready.complete();
        }
    }

    fn left(&self, end: End) {
        if let Some(ready) = &self.ready {
            ready.left(end);
        }
    }

    fn is_descriptor(&self) -> bool {
        true
    }
}

/// What every call on a refused lock says.
fn refused() -> io::Error {
    io::Error::other("standard input was locked while this thread could not wait for the lock")
}

impl Drop for StdinLock<'_> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.release(std::mem::take(&mut self.buffer));
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
