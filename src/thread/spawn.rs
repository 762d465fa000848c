//! Spawning and joining.
//!
//! ```text
//!   spawn:  slot from the pool -> closure and control block into it -> back of the run queue      (no allocation)
//!   life:   run the closure -> outcome into the slot -> wake the joiners -> the coroutine returns
//!   join:   outcome there? take it, slot back to the pool. Otherwise queue up with the joiners and park.
//! ```
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;

use super::handle::Thread;
use crate::runtime::hub::{ending, hub_of};
use crate::runtime::park::{NEVER, park};
use crate::switch::cancel::{self, GreenletExit, Killed};
use crate::switch::fiber::{Fiber, Reason, State, attention, drop_quietly};
use crate::switch::packet::{self, Packet};
use crate::switch::root::{Root, root, try_root};
use crate::switch::stack::Slot;

/// How a thread ended.
pub(crate) type Outcome<T> = Result<T, JoinError>;

/// Why a [`join`](JoinHandle::join) has no result.
pub struct JoinError {
    /// What happened.
    kind: Kind,
}

/// See [`JoinError`].
enum Kind {
    /// It was killed.
    Killed,
    /// It panicked, with this payload.
    Panicked(Box<dyn Any + Send>),
    /// Its hub ended; whether it had started.
    HubEnded(bool),
    /// The caller cannot wait for it, for this reason.
    Refused(String),
}

impl JoinError {
    /// The thread was killed.
    pub(super) fn killed() -> JoinError {
        JoinError { kind: Kind::Killed }
    }

    /// The caller cannot wait.
    pub(crate) fn refused(why: impl fmt::Display) -> JoinError {
        JoinError { kind: Kind::Refused(why.to_string()) }
    }

    /// The thread's hub ended; `began`: the thread had started.
    pub(crate) fn hub_ended(began: bool) -> JoinError {
        JoinError { kind: Kind::HubEnded(began) }
    }

    /// It panicked.
    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> JoinError {
        JoinError { kind: Kind::Panicked(payload) }
    }

    /// Whether the thread was killed: by [`JoinHandle::kill`], its scope, or the end of its hub.
    pub fn is_killed(&self) -> bool {
        matches!(self.kind, Kind::Killed | Kind::HubEnded(_))
    }

    /// Whether the thread, one of another hub, was killed or never started because that hub ended or was shut down.
    pub fn is_hub_ended(&self) -> bool {
        matches!(self.kind, Kind::HubEnded(_))
    }

    /// Whether the thread panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.kind, Kind::Panicked(_))
    }

    /// What it panicked with, or the error itself if it did not.
    ///
    /// # Errors
    /// If the thread did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.kind {
            Kind::Panicked(payload) => Ok(payload),
            kind => Err(JoinError { kind }),
        }
    }

    /// What it panicked with, to be passed to `std::panic::resume_unwind`.
    ///
    /// # Panics
    /// If the thread did not panic.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("into_panic on a thread that did not panic: {error}"),
        }
    }

    /// The panic message, if it is a string, as that of `panic!` is.
    pub fn panic_message(&self) -> Option<&str> {
        let Kind::Panicked(payload) = &self.kind else { return None };
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str))
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Killed => f.write_str("the green thread was killed"),
            Kind::HubEnded(false) => f.write_str("the green thread never started: its hub has ended"),
            Kind::HubEnded(true) => f.write_str("the green thread was killed: its hub has ended"),
            Kind::Panicked(_) => {
                write!(f, "the green thread panicked: {}", self.panic_message().unwrap_or("(no message)"))
            }
            Kind::Refused(why) => write!(f, "cannot wait for the green thread: {why}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

/// The right to wait for a green thread and take its result. Dropping it detaches the thread, which goes on.
///
/// A handle stays on its OS thread:
///
/// ```compile_fail
/// let handle = greenling::spawn(|| 1);
/// std::thread::spawn(move || handle.join());
/// ```
#[must_use = "dropping the handle detaches the green thread: `join` it, or say `drop(handle)`"]
pub struct JoinHandle<T> {
    /// The result.
    packet: Packet<Outcome<T>>,
    /// Made when asked for, since it costs an atomic count; apart, since handles are moved about.
    thread: OnceCell<Box<Thread>>,
}

/// Spawns a green thread on this OS thread; it will run `f` when it is its turn, never before this call returns.
///
/// ```
/// let a = greenling::spawn(|| "first");
/// let b = greenling::spawn(|| "second");
/// assert_eq!((a.join().unwrap(), b.join().unwrap()), ("first", "second"));
/// ```
///
/// # Panics
/// If no stack can be had, when the OS thread is ending, and in the child of a fork; see [`Builder::spawn`] for an
/// error instead.
///
/// May switch: no.
#[inline]
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => panic!("failed to spawn a green thread: {error}"),
    }
}

/// What to spawn a green thread with: its name and stack size.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct Builder {
    /// The name.
    name: Option<String>,
    /// Bytes of stack.
    stack_size: Option<usize>,
}

impl Builder {
    /// No name, default stack size.
    #[inline]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the thread in panics, reports and [`Thread::name`].
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// Asks for at least `size` bytes of stack. It is address space: only touched pages cost memory.
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Spawns the thread; see [`spawn`].
    ///
    /// # Errors
    /// No memory or address space for the stack, a size above 4 GiB, a result that takes more than a quarter of the
    /// stack, an OS thread that is ending, the child of a fork. The closure is dropped.
    ///
    /// May switch: no.
    #[inline(always)]
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let root = try_root().ok_or_else(ending)?;
        let shift = self.shift(root)?;
        let (packet, fiber) = packet::launch(root, shift, Location::caller(), move |fiber| live(fiber, f))?;
        if self.has_name() {
            self.give_name(fiber);
        }
        root.enqueue(fiber);
        Ok(JoinHandle { packet, thread: OnceCell::new() })
    }

    /// The slot size to ask for, as a power of two. Makes the hub if there is none.
    #[inline(always)]
    pub(super) fn shift(&self, root: &'static Root) -> io::Result<u8> {
        hub_of(root)?;
        match self.stack_size {
            None => Ok(root.default_shift.get()),
            Some(size) => Slot::shift_for(size).ok_or_else(stack_too_large),
        }
    }

    /// Whether the thread is to have a name.
    #[inline(always)]
    pub(super) fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// Names a thread that was launched, if it is to have a name.
    #[cold]
    #[inline(never)]
    pub(super) fn give_name(self, fiber: Fiber) {
        if let Some(name) = self.name {
            fiber.set_name(Arc::from(name));
        }
    }
}

/// The error for a stack size above 4 GiB.
#[cold]
fn stack_too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a stack of more than 4 GiB")
}

/// A green thread's life, on its own stack: runs `f`, turns unwinding into an outcome, wakes who waits.
#[inline]
pub(crate) fn live<F, T>(fiber: Fiber, f: F) -> Outcome<T>
where
    F: FnOnce() -> T,
{
    let outcome = if fiber.attention.get() & attention::KILL != 0 {
        // Killed before it started: the body never runs.
        drop_quietly(f);
        Err(JoinError::killed())
    } else {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => Ok(value),
            Err(payload) if payload.is::<Killed>() || payload.is::<GreenletExit>() => Err(JoinError::killed()),
            Err(payload) => Err(JoinError { kind: Kind::Panicked(payload) }),
        }
    };
    let root = root();
    while let Some(joiner) = fiber.joiners.pop() {
        root.wake(joiner);
    }
    outcome
}

/// Waits for the end of the thread of `packet` and takes its outcome.
#[inline(always)]
pub(super) fn join<T>(packet: &Packet<Outcome<T>>) -> Outcome<T> {
    let root = match try_root() {
        Some(root) => root,
        None => return Err(JoinError::refused(ending())),
    };
    loop {
        if let Some(outcome) = packet.take() {
            return outcome;
        }
        let Some(fiber) = packet.fiber() else { return Err(JoinError::killed()) };
        if packet.is_finished() {
            // It was cancelled before it started, and left no outcome.
            return Err(JoinError::killed());
        }
        let me = root.current();
        if fiber == me && cancel::obstacle().is_none() {
            panic!("a green thread cannot wait for its own end");
        }
        let hub = match hub_of(root) {
            Ok(hub) => hub,
            Err(error) => return Err(JoinError::refused(error)),
        };
        let _place = fiber.joiners.join(me);
        if let Err(obstacle) = park(root, hub, me, Reason::Join(fiber.id.get()), NEVER) {
            return Err(JoinError::refused(obstacle));
        }
    }
}

/// The handle of the thread of `packet`.
pub(super) fn thread_of<'a, T>(packet: &Packet<T>, cell: &'a OnceCell<Box<Thread>>) -> &'a Thread {
    cell.get_or_init(|| {
        Box::new(match (try_root(), packet.fiber()) {
            (Some(root), Some(fiber)) => match hub_of(root) {
                Ok(hub) => Thread::of(root, fiber, hub),
                Err(error) => panic!("{error}"),
            },
            _ => Thread::of_the_dead(packet.fiber_ref().id()),
        })
    })
}

/// Marks the thread of `packet` for death.
pub(super) fn kill<T>(packet: &Packet<T>) -> bool {
    match (try_root(), packet.fiber()) {
        (Some(root), Some(fiber)) => root.kill(fiber),
        _ => false,
    }
}

impl<T> JoinHandle<T> {
    /// Waits for the thread to end and returns its result.
    ///
    /// # Errors
    /// [`JoinError`]: the thread panicked (its payload is inside) or was killed; or the caller is unwinding and may
    /// not wait, or the OS thread is ending.
    ///
    /// # Panics
    /// If the thread joins itself. Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller, and
    /// panics inside [`no_switch`](crate::no_switch), or in main on a deadlock.
    ///
    /// May switch: yes, unless the thread has ended.
    #[inline(always)]
    pub fn join(self) -> Result<T, JoinError> {
        let JoinHandle { packet, thread } = self;
        // Nobody can ask for it any more, and a handle that is left would hide a deadlock.
        drop(thread);
        match packet.take_and_release() {
            Ok(outcome) => outcome,
            Err(packet) => join(&packet),
        }
    }

    /// Its name, id and `unpark`. If the OS thread is ending and nobody asked before, the name is lost.
    ///
    /// # Panics
    /// In the child of a fork.
    ///
    /// May switch: no.
    pub fn thread(&self) -> &Thread {
        thread_of(&self.packet, &self.thread)
    }

    /// Whether the thread has ended.
    ///
    /// May switch: no.
    pub fn is_finished(&self) -> bool {
        self.packet.fiber().is_none() || self.packet.is_finished()
    }

    /// Whether the thread waits until descriptor `fd` can be read, and nobody has woken it yet.
    pub(crate) fn waits_to_read(&self, fd: RawFd) -> bool {
        let waits = |fiber: Fiber| fiber.state.get() == State::Parked && fiber.reason.get() == Reason::Read(fd);
        self.packet.fiber().is_some_and(waits)
    }

    /// Unwinds the thread, without a message, at the blocking call it is in or will make next; its destructors run on
    /// its own stack when it is its turn. Says whether it was still alive.
    ///
    /// A thread that has not started never runs its closure. If the thread catches the unwinding with `catch_unwind`,
    /// its next blocking call raises it again, after the others had their turn. [`shield`](crate::shield) defers it. Under
    /// `panic = "abort"` nothing can unwind: nothing happens, and the answer is false.
    ///
    /// Limits, and what to do about them: a frame of foreign code (C that calls back) must not be unwound, so put a
    /// [`shield`](crate::shield) around the call; code that computes and never blocks is not reached, so let it call
    /// [`yield_now`](super::yield_now) now and then.
    ///
    /// May switch: no; to wait for the end, `join`.
    pub fn kill(&self) -> bool {
        kill(&self.packet)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// Whether a payload is a panic of the program, as opposed to the runtime's own kinds of unwinding.
pub(super) fn is_program_panic(error: &JoinError) -> bool {
    match &error.kind {
        Kind::Panicked(payload) => !cancel::is_control(&**payload),
        _ => false,
    }
}
