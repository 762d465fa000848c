//! [`spawn`], [`Builder`] and [`JoinHandle`]: spawning and joining green threads.
//!
//! ```text
//!   spawn:  slot from the pool -> closure and control block into it -> back of the run queue      (no allocation)
//!   life:   run the closure -> locals and hooks, if any -> outcome into the slot -> wake the joiners   (life.rs)
//!   join:   outcome there? take it, slot back to the pool. Otherwise queue up with the joiners and park.  (join.rs)
//! ```
//!
//! * Invariant hub-bound-1: a value that is `HubBound` may be used and dropped by any thread of its hub, under any
//!   thread-locals: it rests on none but the runtime's own, which are the same in all of them, and neither it nor its
//!   drop reaches a value of the program that is not `Send`. Such a value, a connection say, may therefore enter a
//!   thread with thread-locals of its own although it is not `Send`: the runtime hands it over, on one OS thread.
//!   Upheld by each implementation of the trait, which says why.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{Thread, ThreadId};
use super::join::{EndArm, has_ended, join, join_until, kill, thread_of};
use super::join_error::{JoinError, Outcome};
use super::life::{call_back, live};
use super::local::inherited;
use crate::runtime::checkpoint::checkpoint;
use crate::runtime::hub::hub;
use crate::runtime::select_source::SelectEnd;
use crate::switch::extras::{EndHook, EndListener, Ending, Life};
use crate::switch::fiber::{Fiber, FiberRef};
use crate::switch::packet::{self, Packet};
use crate::switch::root::{Root, try_root};
use crate::switch::stack::Slot;
use crate::sys::clock::after;
use crate::sys::tls;

/// The right to wait for a green thread and take its result. Dropping it detaches the thread, which goes on, as with
/// std's.
///
/// A handle stays on its OS thread:
///
/// ```compile_fail
/// let handle = greenling::spawn(|| 1);
/// std::thread::spawn(move || handle.join());
/// ```
pub struct JoinHandle<T> {
    /// The owner of the thread's slot, in which the outcome will be.
    packet: Packet<Outcome<T>>,
    /// The handle, made when asked for, since it costs an atomic count; boxed, to keep the join handle small.
    thread: OnceCell<Box<Thread>>,
}

/// Spawns a green thread on this OS thread. The new thread runs `f` at the next turn in the run queue, never before
/// this call returns.
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
#[doc(alias("spawn_raw", "spawn_later"))]
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

/// The settings of a new green thread: name and stack size.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct Builder {
    name: Option<String>,
    /// The least size of the stack, in bytes.
    stack_size: Option<usize>,
    /// The place that reports name; none for that of the spawn.
    site: Option<&'static Location<'static>>,
}

impl Builder {
    /// Makes a builder without a name, for the default stack size.
    ///
    /// May switch: no.
    #[inline]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the thread in panics, reports and [`Thread::name`]. As with std, spawning panics if the name has a zero
    /// byte.
    ///
    /// May switch: no.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// Asks for at least `size` bytes of stack, in place of
    /// [`hub::default_stack_size`](crate::hub::default_stack_size): 241,664 bytes on x86-64, where std's default is 2
    /// MiB. The size is address space: only touched pages cost memory.
    ///
    /// May switch: no.
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Has reports say that the thread was spawned at `site`: where the program asked for what the runtime spawns the
    /// thread for.
    pub(crate) fn at(mut self, site: &'static Location<'static>) -> Builder {
        self.site = Some(site);
        self
    }

    /// Returns the place that reports will name, for a spawn by the caller.
    #[inline(always)]
    #[track_caller]
    pub(super) fn site(&self) -> &'static Location<'static> {
        match self.site {
            Some(site) => site,
            None => Location::caller(),
        }
    }

    /// Spawns the thread; see [`spawn`].
    ///
    /// # Errors
    /// No memory or address space for the stack, a size above 4 GiB, a result that takes more than a quarter of the
    /// stack or more than 512 KiB, an OS thread that is ending, the child of a fork. The closure is dropped.
    ///
    /// # Panics
    /// If the name has a zero byte. With the panics of what the new thread [inherits](crate::green_local) green-local
    /// values with.
    ///
    /// May switch: no.
    #[inline(always)]
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        // Everything that can fail comes before the launch, or is the launch. A hub is needed as soon as there is a
        // thread.
        let (root, _) = hub()?;
        let shift = self.shift(root)?;
        let extras = inherited(root);
        let (packet, fiber) = packet::launch(root, shift, self.site(), move |fiber| live(fiber, f))?;
        // What few threads have: inherited green-local values, and a name.
        if let Some(extras) = extras {
            fiber.adopt(extras);
        }
        if self.has_name() {
            self.give_name(fiber);
        }
        root.enqueue(fiber);
        Ok(JoinHandle { packet, thread: OnceCell::new() })
    }

    /// Makes sure that there is a stack for such a thread: a spawn before anything else runs will get that stack. For a
    /// caller that must not lose the closure.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub(crate) fn reserve(&self) -> io::Result<()> {
        // A hub is needed as soon as there is a thread.
        let (root, _) = hub()?;
        root.reserve(self.shift(root)?)
    }

    /// Returns the slot size to ask for, as a power of two.
    #[inline(always)]
    #[track_caller]
    pub(super) fn shift(&self, root: &Root) -> io::Result<u8> {
        if let Some(name) = &self.name {
            without_zero(name);
        }
        match self.stack_size {
            None => Ok(root.default_shift.get()),
            Some(size) => Slot::shift_for(size).ok_or_else(stack_too_large),
        }
    }

    /// Reports whether the thread is to have a name.
    #[inline(always)]
    pub(super) fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// Names a thread that was launched, if the builder has a name.
    #[cold]
    #[inline(never)]
    pub(super) fn give_name(self, fiber: Fiber) {
        if let Some(name) = self.name {
            fiber.set_name(Arc::from(name));
        }
    }
}

/// The settings of a new green thread that is a thread in Rust's sense: with thread-locals of its own. Made by
/// [`Builder::own_thread_locals`].
///
/// ```
/// use greenling::thread;
/// use std::cell::Cell;
///
/// thread_local!(static COUNT: Cell<u32> = const { Cell::new(0) });
///
/// COUNT.set(1);
/// # if thread::own_thread_locals_supported().is_err() { return; }
/// let thread = thread::Builder::new().own_thread_locals().spawn(|| {
///     COUNT.set(COUNT.get() + 10);
///     thread::yield_now();
///     COUNT.get()
/// });
/// assert_eq!(thread.unwrap().join().unwrap(), 10);
/// assert_eq!(COUNT.get(), 1);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct OwnBuilder {
    /// Name and stack size.
    pub(super) builder: Builder,
}

impl Builder {
    /// Makes a builder for threads with thread-locals of their own.
    ///
    /// Such a thread is to Rust, to std and to C what an OS thread is, but for what belongs to the OS thread: every
    /// `thread_local!` is fresh in it, `std::thread::current().id()` is another, `panicking()` is its own count.
    /// Nothing is inherited, green-local values neither. At its end the destructors of its thread-locals run on its own
    /// stack, before joiners are told, and may wait. Calls may wait while the thread unwinds from a panic, which other
    /// green threads must not; a kill or timeout that comes meanwhile is not raised.
    ///
    /// Therefore everything that enters such a thread or leaves it must be [`Send`], as with `std::thread::spawn`. A
    /// value that is not may rest on the thread-locals of its thread, although both threads run on one OS thread.
    ///
    /// ```compile_fail,E0277
    /// let local = std::rc::Rc::new(1);
    /// let thread = greenling::thread::Builder::new().own_thread_locals().spawn(move || *local);
    /// ```
    ///
    /// ```compile_fail,E0277
    /// let thread = greenling::thread::Builder::new().own_thread_locals().spawn(|| std::rc::Rc::new(1));
    /// ```
    ///
    /// Green threads and greenlets that this thread starts share its thread-locals, unless they are given their own,
    /// and the thread-locals are destroyed when the last of them ends.
    ///
    /// The table of [`thread`](crate::thread#two-kinds-of-threads) has the calls for scopes, pools, servers and other
    /// hubs, and says when to take which kind.
    ///
    /// Common to all threads of the OS thread stay: the signal mask, the alternate signal stack, scheduling, the
    /// kernel's thread id and what goes by that, such as the owner of a C library's recursive mutex (unless
    /// `monkey::patch_locks` was called). `pthread_self()` must not leave the thread. What it costs is in
    /// docs/measurements.md.
    ///
    /// May switch: no.
    pub fn own_thread_locals(self) -> OwnBuilder {
        OwnBuilder { builder: self }
    }
}

impl OwnBuilder {
    /// Names the thread; see [`Builder::name`].
    ///
    /// May switch: no.
    pub fn name(self, name: String) -> OwnBuilder {
        OwnBuilder { builder: self.builder.name(name) }
    }

    /// Asks for at least `size` bytes of stack; see [`Builder::stack_size`].
    ///
    /// May switch: no.
    pub fn stack_size(self, size: usize) -> OwnBuilder {
        OwnBuilder { builder: self.builder.stack_size(size) }
    }

    /// Spawns the thread; see [`spawn`].
    ///
    /// # Errors
    /// `Unsupported`, with the reason, where a thread cannot have thread-locals of its own; see
    /// [`own_thread_locals_supported`]. Otherwise as [`Builder::spawn`].
    ///
    /// # Panics
    /// If the name has a zero byte.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.launch(f)
    }

    /// Spawns a thread that runs `f` with a value that the runtime hands over (hub-bound-1).
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub(crate) fn spawn_with<R, F, T>(self, handed_over: R, f: F) -> io::Result<JoinHandle<T>>
    where
        R: HubBound + 'static,
        F: FnOnce(R) -> T + Send + 'static,
        T: Send + 'static,
    {
        self.launch(move || f(handed_over))
    }

    /// Makes sure that there is a stack and a block for such a thread, as [`Builder::reserve`] does.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub(crate) fn reserve(&self) -> io::Result<()> {
        self.builder.reserve()?;
        let (root, _) = hub()?;
        // The block that was given back last is the first to be used again.
        drop(root.new_block()?);
        Ok(())
    }

    /// Spawns the thread. The callers see to it that what enters and leaves the thread is `Send` or `HubBound`.
    #[track_caller]
    fn launch<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let (root, _) = hub()?;
        let shift = self.builder.shift(root)?;
        // The block first: a spawn that fails has launched nothing.
        let block = root.new_block()?;
        let (packet, fiber) = packet::launch(root, shift, self.builder.site(), move |fiber| live(fiber, f))?;
        root.enter_block(fiber, block);
        if self.builder.has_name() {
            self.builder.give_name(fiber);
        }
        root.enqueue(fiber);
        Ok(JoinHandle { packet, thread: OnceCell::new() })
    }
}

/// A value of the runtime that may be handed over to a thread with thread-locals of its own although it is not `Send`
/// (hub-bound-1). No type of the program may get this by an implementation for all types of a kind.
pub(crate) trait HubBound {}

/// Reports whether green threads can have thread-locals of their own in this process. They need Linux on x86-64 or
/// aarch64, on x86-64 a processor and kernel with the FSGSBASE instructions, and glibc, of which the symbols are found
/// and a self-test passes. The first call makes the test, which takes some hundred microseconds.
///
/// # Errors
/// `Unsupported`, with the reason.
///
/// May switch: no.
pub fn own_thread_locals_supported() -> io::Result<()> {
    tls::layout()?;
    Ok(())
}

/// Panics if a thread's name has a zero byte, as std does.
#[cold]
#[track_caller]
fn without_zero(name: &str) {
    assert!(!name.contains('\0'), "thread name may not contain interior null bytes: {name:?}");
}

/// Makes the error for a stack size above 4 GiB.
#[cold]
fn stack_too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a stack of more than 4 GiB")
}

impl<T> JoinHandle<T> {
    /// Waits for the thread to end and returns the result.
    ///
    /// # Errors
    /// [`JoinError`]: the thread panicked (the payload is inside) or was killed; or the caller is unwinding and may
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
        // A `Thread` handle would hide a deadlock, and no call can ask for one any more.
        drop(thread);
        // Most joins come after the end: take the outcome and give the slot back, without a wait.
        match packet.take_and_release() {
            Ok(outcome) => outcome,
            Err(packet) => join(&packet),
        }
    }

    /// Waits as [`join`](Self::join) does, but no longer than `limit`; then the handle comes back. A thread that ends
    /// in the turn in which the time is over has ended in time. While the caller unwinds, the call does not wait at
    /// all.
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
        checkpoint();
        join_until(&self.packet, after(limit)).ok_or(self)
    }

    /// Takes the packet out, for a future; the `Thread` handle is dropped, as in `join`.
    pub(super) fn into_packet(self) -> Packet<Outcome<T>> {
        self.packet
    }

    /// Returns the thread's name, id and `unpark`. If the OS thread is ending and this was not called before, the name
    /// is lost.
    ///
    /// # Panics
    /// In the child of a fork.
    ///
    /// May switch: no.
    pub fn thread(&self) -> &Thread {
        thread_of(&self.packet, &self.thread)
    }

    /// Reports whether the thread has ended.
    ///
    /// May switch: if the thread has not, and the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn is_finished(&self) -> bool {
        // A caller that asks in a loop must let the thread run.
        self.has_ended() || {
            checkpoint();
            self.has_ended()
        }
    }

    /// Reports whether the thread has ended, without letting others run first.
    pub(crate) fn has_ended(&self) -> bool {
        has_ended(&self.packet)
    }

    /// Joins for a caller that keeps the handle if the wait is interrupted. After a result the caller must not use the
    /// handle.
    pub(crate) fn wait(&self) -> Result<T, JoinError> {
        join(&self.packet)
    }

    /// Calls `f` once with how the thread ended: in a green thread of its own, in the turn after the end, or in the
    /// next turn if the thread has ended already.
    ///
    /// Callbacks start in the order in which they were registered, before the joiners go on. A callback that panics is
    /// reported like any thread that does, and one that blocks holds up no other. Dropping or joining the handle
    /// changes nothing. Threads that are killed before they start end, too. But when
    /// [`hub::shutdown`](crate::hub::shutdown) unwinds everything, nothing new is started: callbacks are dropped. A
    /// thread that is given up at the end of its OS thread does not end.
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
    #[doc(alias("link", "rawlink"))]
    #[track_caller]
    pub fn on_finish(&self, f: impl FnOnce(Ending) + 'static) {
        // Add a hook. The closure stays in `call` if the thread has ended, and is called from here then.
        let (Some(root), Some(fiber)) = (try_root(), self.packet.fiber()) else { return };
        let mut call = Some(EndHook::Callback(Box::new(f), Location::caller(), root.hold_block()));
        fiber.with_extras_made(|extras| extras.add_hook(call.take().unwrap_or_else(|| unreachable!("called once"))));
        if let (Some(EndHook::Callback(f, asked_at, hold)), Life::Ended(ending)) = (call, fiber.life.get()) {
            call_back(root, f, ending, asked_at, hold);
        }
    }

    /// Registers `listener`, to be told of the end. Returns false if the thread has ended already: then `watch` is not
    /// told.
    pub(crate) fn add_listener(&self, listener: Rc<dyn EndListener>, token: u64) -> bool {
        let Some(fiber) = self.packet.fiber() else { return false };
        fiber.with_extras_made(|extras| extras.add_hook(EndHook::Listener(listener, token))).is_some()
    }

    /// Removes a listener that [`add_listener`](Self::add_listener) registered.
    pub(crate) fn remove_listener(&self, listener: &Rc<dyn EndListener>, token: u64) {
        if let Some(fiber) = self.packet.fiber() {
            fiber.with_extras(|extras| extras.remove_listener(listener, token));
        }
    }

    /// Returns the thread's id, without a [`Thread`], which would hide deadlocks.
    pub(crate) fn id(&self) -> ThreadId {
        ThreadId::here(self.packet.fiber_ref())
    }

    /// Returns what identifies the thread, for `Root::kill`.
    pub(crate) fn fiber_ref(&self) -> FiberRef {
        self.packet.fiber_ref()
    }

    /// Reports whether this is the calling thread.
    pub(crate) fn is_current(&self) -> bool {
        try_root().is_some_and(|root| root.current().to_ref() == self.packet.fiber_ref())
    }

    /// Unwinds the thread, without a message, at the blocking call that the thread is in or makes next; destructors run
    /// on the thread's own stack at the next turn. Reports whether the thread was still alive.
    ///
    /// A thread that has not started never runs its closure. If the thread catches the unwinding with `catch_unwind`,
    /// the next blocking call raises the kill again, after the others had their turn. [`shield`](crate::shield) defers
    /// a kill. Under `panic = "abort"` nothing can unwind: nothing happens, and the answer is false.
    ///
    /// Limits, and what to do about them: a frame of foreign code (C that calls back) must not be unwound, so put a
    /// [`shield`](crate::shield) around the call; code that computes and never blocks is not reached, so let such code
    /// call [`yield_now`](super::yield_now) now and then.
    ///
    /// May switch: no; to wait for the end, `join`.
    pub fn kill(&self) -> bool {
        kill(&self.packet)
    }
}

impl<T> SelectEnd for JoinHandle<T> {
    type Arm<'s>
        = EndArm<'s>
    where
        Self: 's;

    fn select_end(&self) -> EndArm<'_> {
        EndArm::new(&self.packet)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.has_ended()).finish_non_exhaustive()
    }
}
