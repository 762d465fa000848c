//! Spawning and joining.
//!
//! ```text
//!   spawn:  slot from the pool -> closure and control block into it -> back of the run queue      (no allocation)
//!   life:   run the closure -> locals and links, if any -> outcome into the slot -> wake the joiners -> the coroutine returns
//!   join:   outcome there? take it, slot back to the pool. Otherwise queue up with the joiners and park.
//! ```
#![forbid(unsafe_code)]

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::future::tell_awaiter;
use super::handle::{Thread, ThreadId};
use super::local::inherited;
use crate::runtime::choose::{AnyArm, Arm, End, Failed, Who};
use crate::runtime::hub::{ending, hub_of};
use crate::runtime::park::{NEVER, Wake, park};
use crate::runtime::source::after;
use crate::switch::cancel::{self, GreenletExit, Killed};
use crate::switch::extras::{Ending, Life, Link, Watch};
use crate::switch::fiber::{Fiber, FiberRef, Reason, State, attention, drop_quietly};
use crate::switch::packet::{self, Packet};
use crate::switch::root::{Root, root, try_root};
use crate::switch::stack::Slot;
use crate::switch::wait_list::WaitList;

/// How a thread ended.
pub(crate) type Outcome<T> = Result<T, JoinError>;

/// Why a [`join`](JoinHandle::join) has no result.
///
/// `Send` and `Sync`, so `?` makes a `Box<dyn Error + Send + Sync>` of it.
///
/// ```
/// fn answer() -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
///     Ok(greenling::spawn(|| 42).join()?)
/// }
/// assert_eq!(answer().unwrap(), 42);
/// ```
pub struct JoinError {
    /// What happened.
    kind: Kind,
}

/// See [`JoinError`].
enum Kind {
    /// It was killed.
    Killed,
    /// It panicked.
    Panicked(Box<Panic>),
    /// Its hub ended; whether it had started.
    HubEnded(bool),
    /// The caller cannot wait for it, for this reason.
    Refused(String),
}

/// What a thread panicked with.
struct Panic {
    /// What the payload says, if it is a string. Apart, since the payload cannot be looked at by reference.
    message: Option<Cow<'static, str>>,
    /// Whether it is one of the runtime's own kinds of unwinding, not a panic of the program.
    control: bool,
    /// The payload. Payloads are `Send` and not `Sync`; nobody locks it but to take it out, which needs no lock then.
    payload: Mutex<Box<dyn Any + Send>>,
}

impl Panic {
    /// Of this payload.
    #[cold]
    fn new(payload: Box<dyn Any + Send>) -> Box<Panic> {
        let message = match payload.downcast_ref::<&'static str>() {
            Some(text) => Some(Cow::Borrowed(*text)),
            None => payload.downcast_ref::<String>().map(|text| Cow::Owned(text.clone())),
        };
        Box::new(Panic { message, control: cancel::is_control(&*payload), payload: Mutex::new(payload) })
    }

    /// The payload.
    fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JoinError {
    /// The thread was killed.
    pub(super) fn killed() -> JoinError {
        JoinError { kind: Kind::Killed }
    }

    /// What a thread that unwound with `payload` leaves.
    fn unwound(payload: Box<dyn Any + Send>) -> JoinError {
        if payload.is::<Killed>() || payload.is::<GreenletExit>() {
            return JoinError::killed();
        }
        JoinError::panicked(payload)
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
        JoinError { kind: Kind::Panicked(Panic::new(payload)) }
    }

    /// Whether the thread was killed: by [`JoinHandle::kill`], its scope, or the end of its hub.
    ///
    /// May switch: no.
    pub fn is_killed(&self) -> bool {
        matches!(self.kind, Kind::Killed | Kind::HubEnded(_))
    }

    /// Whether the thread, one of another hub, was killed or never started because that hub ended or was shut down.
    ///
    /// May switch: no.
    pub fn is_hub_ended(&self) -> bool {
        matches!(self.kind, Kind::HubEnded(_))
    }

    /// Whether the thread panicked.
    ///
    /// May switch: no.
    pub fn is_panic(&self) -> bool {
        matches!(self.kind, Kind::Panicked(_))
    }

    /// What it panicked with, or the error itself if it did not.
    ///
    /// # Errors
    /// If the thread did not panic.
    ///
    /// May switch: no.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.kind {
            Kind::Panicked(panic) => Ok(panic.into_payload()),
            kind => Err(JoinError { kind }),
        }
    }

    /// What it panicked with, to be passed to `std::panic::resume_unwind`.
    ///
    /// # Panics
    /// If the thread did not panic.
    ///
    /// May switch: no.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("into_panic on a thread that did not panic: {error}"),
        }
    }

    /// The panic message, if it is a string, as that of `panic!` is.
    ///
    /// May switch: no.
    pub fn panic_message(&self) -> Option<&str> {
        let Kind::Panicked(panic) = &self.kind else { return None };
        panic.message.as_deref()
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
    ///
    /// May switch: no.
    #[inline]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the thread in panics, reports and [`Thread::name`].
    ///
    /// May switch: no.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// Asks for at least `size` bytes of stack. It is address space: only touched pages cost memory.
    ///
    /// May switch: no.
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Spawns the thread; see [`spawn`].
    ///
    /// # Errors
    /// No memory or address space for the stack, a size above 4 GiB, a result that takes more than a quarter of the
    /// stack or more than 512 KiB, an OS thread that is ending, the child of a fork. The closure is dropped.
    ///
    /// # Panics
    /// With the panics of what the new thread [inherits](crate::green_local) its green-local values with.
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
        let extras = inherited(root);
        let (packet, fiber) = packet::launch(root, shift, Location::caller(), move |fiber| live(fiber, f))?;
        if let Some(extras) = extras {
            fiber.adopt(extras);
        }
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
            Err(payload) => Err(JoinError::unwound(payload)),
        }
    };
    let root = root();
    let outcome = match fiber.life.get() {
        Life::WithExtras => settle(root, fiber, outcome),
        Life::Plain | Life::Ended(_) => {
            fiber.life.set(Life::Ended(ending_of(&outcome)));
            outcome
        }
    };
    // From here on nothing of ours switches: who joins now would not be woken any more.
    while let Some(joiner) = fiber.joiners.pop() {
        root.wake(joiner);
    }
    if fiber.awaited.get() {
        tell_awaiter(root, fiber);
    }
    outcome
}

/// How a thread with this outcome ended.
#[inline(always)]
fn ending_of<T>(outcome: &Outcome<T>) -> Ending {
    match outcome {
        Ok(_) => Ending::Returned,
        Err(JoinError { kind: Kind::Panicked(_) }) => Ending::Panicked,
        Err(_) => Ending::Killed,
    }
}

/// The end of a thread that has green-local values or links: destroys the ones, on the thread's stack and before anybody
/// is told, then follows the others. What a destructor unwinds with becomes the outcome of a thread that had returned.
#[cold]
#[inline(never)]
fn settle<T>(root: &'static Root, fiber: Fiber, mut outcome: Outcome<T>) -> Outcome<T> {
    cancel::calm(fiber);
    fiber.drop_locals(|payload| match outcome {
        Ok(_) => drop_quietly(mem::replace(&mut outcome, Err(JoinError::unwound(payload)))),
        Err(_) => drop_quietly(payload),
    });
    let ending = ending_of(&outcome);
    let links = fiber.end_with(ending).map(|extras| extras.into_links());
    for link in links.unwrap_or_default() {
        match link {
            Link::Watch(watch, token) => watch.ended(token),
            Link::Call(f, asked_at) => call_back(root, f, ending, asked_at),
        }
    }
    outcome
}

/// Runs a callback in a thread of its own, where it may block and panic without hurting anybody.
pub(super) fn call_back(
    root: &'static Root,
    f: Box<dyn FnOnce(Ending)>,
    ending: Ending,
    asked_at: &'static Location<'static>,
) {
    // Shared, since a launch that fails drops its closure.
    let ours = Rc::new(Cell::new(Some(f)));
    let theirs = Rc::clone(&ours);
    let body = move || theirs.take().map(|f| f(ending)).unwrap_or_default();
    match packet::launch(root, root.default_shift.get(), asked_at, move |fiber| live(fiber, body)) {
        Ok((packet, fiber)) => {
            root.enqueue(fiber);
            drop(packet);
        }
        // No stack for it: it runs here, and waiting there holds up the caller.
        Err(_) => {
            let run = AssertUnwindSafe(|| ours.take().map(|f| f(ending)).unwrap_or_default());
            catch_unwind(run).unwrap_or_else(drop_quietly);
        }
    }
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

/// [`join`] until `deadline`; none if the thread has not ended by then, or the caller may not wait.
fn join_until<T>(packet: &Packet<Outcome<T>>, deadline: u64) -> Option<Outcome<T>> {
    while let Some(root) = try_root()
        && let Some(fiber) = packet.fiber()
        && !packet.is_finished()
        && let Ok(hub) = hub_of(root)
    {
        let me = root.current();
        assert!(fiber != me || cancel::obstacle().is_some(), "a green thread cannot wait for its own end");
        let _place = fiber.joiners.join(me);
        match park(root, hub, me, Reason::Join(fiber.id.get()), deadline) {
            Ok(Wake::Woken) => {}
            Ok(Wake::TimedOut) if packet.is_finished() => {}
            Ok(Wake::TimedOut) | Err(_) => return None,
        }
    }
    // It has ended, or there is nothing to wait for.
    Some(join(packet))
}

/// The arm of a `select!` that waits for the end of a thread.
#[derive(Debug)]
pub struct EndArm<'a> {
    /// The thread; none if it is gone.
    fiber: Option<Fiber>,
    /// The handle, without which the thread's slot could be reused.
    handle: PhantomData<&'a ()>,
}

impl<'a> EndArm<'a> {
    /// For the thread of `packet`.
    pub(super) fn new<T>(packet: &'a Packet<Outcome<T>>) -> EndArm<'a> {
        EndArm { fiber: packet.fiber(), handle: PhantomData }
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn finish(self) {}
}

impl Arm for EndArm<'_> {
    fn look(&self) -> bool {
        self.fiber.is_none_or(|fiber| fiber.state.get() == State::Finished)
    }

    fn enter(&self, who: Who) -> Result<Option<&WaitList>, Failed> {
        match &self.fiber {
            Some(fiber) if fiber.id.get() == who.0 => panic!("a green thread cannot wait for its own end"),
            fiber => Ok(fiber.as_ref().map(|fiber| &fiber.joiners)),
        }
    }

    fn complete(&self) {}

    fn left(&self, _: End) {}
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

    /// [`join`](Self::join), but no longer than `limit`: then the handle comes back. A thread that ends in the turn in which
    /// the time is over has ended in time. While the caller unwinds it does not wait at all.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let thread = greenling::spawn(|| greenling::sleep(Duration::from_millis(5)));
    /// let thread = thread.join_timeout(Duration::from_micros(10)).unwrap_err(); // not yet
    /// assert!(thread.join_timeout(Duration::from_secs(60)).unwrap().is_ok());
    /// ```
    ///
    /// # Errors
    /// With the handle, if the thread has not ended in time. The inner result is that of [`join`](Self::join).
    ///
    /// # Panics
    /// As [`join`](Self::join).
    ///
    /// May switch: yes, unless the thread has ended.
    pub fn join_timeout(self, limit: Duration) -> Result<Result<T, JoinError>, JoinHandle<T>> {
        join_until(&self.packet, after(limit)).ok_or(self)
    }

    /// Its only field that counts; the `Thread` handle is dropped, as in `join`.
    pub(super) fn into_packet(self) -> Packet<Outcome<T>> {
        self.packet
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

    /// [`join`](Self::join) for a caller that still has the handle if it is interrupted, and uses it no more if not.
    pub(crate) fn wait(&self) -> Result<T, JoinError> {
        join(&self.packet)
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_end(&self) -> EndArm<'_> {
        EndArm::new(&self.packet)
    }

    /// Has `f` called once with how the thread ended: in a green thread of its own, in the turn after the end, or in the
    /// next one if the thread has ended already.
    ///
    /// Callbacks start in the order in which they were registered, before whoever joins goes on. One that panics is
    /// reported like any thread that does, one that blocks holds up nobody. Dropping or joining the handle changes
    /// nothing. Threads that are killed before they start end, too. But when [`hub::shutdown`](crate::hub::shutdown) or
    /// the end of the OS thread unwinds everything, nothing new is started: callbacks are dropped.
    ///
    /// ```
    /// use greenling::{spawn, thread::{Ending, yield_now}};
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let seen = Rc::new(Cell::new(None));
    /// let theirs = Rc::clone(&seen);
    /// let thread = spawn(|| "value");
    /// thread.on_finish(move |ending| theirs.set(Some(ending)));
    /// assert_eq!(thread.join().unwrap(), "value");
    /// yield_now();
    /// assert_eq!(seen.get(), Some(Ending::Returned));
    /// ```
    ///
    /// May switch: no.
    #[track_caller]
    pub fn on_finish(&self, f: impl FnOnce(Ending) + 'static) {
        let (Some(root), Some(fiber)) = (try_root(), self.packet.fiber()) else { return };
        let mut call = Some(Link::Call(Box::new(f), Location::caller()));
        fiber.with_extras_made(|extras| extras.link(call.take().unwrap_or_else(|| unreachable!("called once"))));
        if let (Some(Link::Call(f, asked_at)), Life::Ended(ending)) = (call, fiber.life.get()) {
            call_back(root, f, ending, asked_at);
        }
    }

    /// Has `watch` told of the end. False if the thread has ended already: then it is not told.
    pub(crate) fn watch(&self, watch: Rc<dyn Watch>, token: u64) -> bool {
        let Some(fiber) = self.packet.fiber() else { return false };
        fiber.with_extras_made(|extras| extras.link(Link::Watch(watch, token))).is_some()
    }

    /// Takes back a [`watch`](Self::watch).
    pub(crate) fn unwatch(&self, watch: &Rc<dyn Watch>, token: u64) {
        if let Some(fiber) = self.packet.fiber() {
            fiber.with_extras(|extras| extras.unlink(watch, token));
        }
    }

    /// The thread's id, without a [`Thread`], which would hide deadlocks.
    pub(crate) fn id(&self) -> ThreadId {
        ThreadId::here(self.packet.fiber_ref())
    }

    /// What identifies the thread, for `Root::kill`.
    pub(crate) fn fiber_ref(&self) -> FiberRef {
        self.packet.fiber_ref()
    }

    /// Whether this is the calling thread.
    pub(crate) fn is_current(&self) -> bool {
        try_root().is_some_and(|root| root.current().to_ref() == self.packet.fiber_ref())
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
        Kind::Panicked(panic) => !panic.control,
        _ => false,
    }
}
