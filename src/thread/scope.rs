//! Scoped green threads: they may borrow from the stack of the thread that opened the scope.
//!
//! * Invariant scope-1: `scope` returns or unwinds only when no thread of the scope is left. Upheld by `Open::close`,
//!   which runs on every way out: the body runs under `catch_unwind`, and the wait for the threads cannot be
//!   interrupted; a kill, a timeout or a deadlock meanwhile kills the threads, and is raised when they have ended.
//!   Nothing depends on a destructor that `mem::forget` could skip: what counts the threads down is the drop of a value
//!   in each thread's own closure or frame, and a frame is never freed without unwinding. On a stack that unwinds
//!   nothing may wait, and in `no_switch` no other thread may run: in both cases the threads, none of which has run,
//!   are cancelled in place.
//! * Invariant scope-2: a result that borrows is dropped before the scope ends or never: if the handle was forgotten,
//!   the result stays in the slot (`packet::Role::borrows`).
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::handle::Thread;
use super::join::{EndArm, has_ended, join, kill, thread_of};
use super::join_error::{JoinError, Outcome, is_program_panic};
use super::life::live;
use super::local::inherited;
use super::spawn::{Builder, OwnBuilder};
use crate::pure::drops::drop_safely;
use crate::runtime::caller::Caller;
use crate::runtime::checkpoint::checkpoint;
use crate::runtime::hub::{hub, no_hub};
use crate::runtime::park::Interruption;
use crate::runtime::select_source::SelectEnd;
use crate::switch::cancel::{self, ScopeExpired};
use crate::switch::fiber::{Fiber, FiberRef, Reason, drop_quietly};
use crate::switch::own_locals::NewBlock;
use crate::switch::packet::{self, Packet};
use crate::switch::pending;
use crate::switch::root::{Root, try_root};
use crate::switch::state::State;
use crate::sys::clock::NEVER;

/// The most deadlocks inside one scope. At the next one the process gives up: the threads were killed each time, and
/// wait again.
const MAX_DEADLOCKS: u32 = 8;

/// What a scope shares with the threads in it.
#[derive(Debug)]
pub(super) struct ScopeData {
    /// The number of threads that have not ended.
    running: Cell<usize>,
    /// The thread that waits for them; none when the OS thread is ending, and then there are no threads either.
    pub(super) owner: Option<Fiber>,
    /// The scope is being unwound: what is spawned in the scope now never runs.
    cancelled: Cell<bool>,
    /// A thread panicked, and no handle has seen the panic.
    pub(super) panicked: Cell<bool>,
    /// The threads of the scope; some of them may have ended.
    threads: RefCell<Vec<FiberRef>>,
}

/// A scope to spawn in; see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    /// What the scope shares with its threads.
    shared: Rc<ScopeData>,
    /// Makes `Scope` invariant over 'scope, so that the lifetime cannot be made longer.
    scope: PhantomData<&'scope mut &'scope ()>,
    /// Makes `Scope` invariant over 'env, likewise.
    env: PhantomData<&'env mut &'env ()>,
}

// As with std: the counts are in order at every point where something can unwind.
impl RefUnwindSafe for Scope<'_, '_> {}

/// The right to wait for a thread of a scope; dropping it leaves the waiting to the scope.
pub struct ScopedJoinHandle<'scope, T> {
    packet: Packet<Outcome<T>>,
    /// The handle, made when asked for.
    thread: OnceCell<Box<Thread>>,
    /// What the scope shares with the threads: the handle notes a panic that was not joined.
    shared: Rc<ScopeData>,
    /// The lifetime that the threads borrow for.
    scope: PhantomData<&'scope ()>,
}

/// Runs `f` with a scope of threads that may borrow whatever outlives the call, and waits for all of these threads.
///
/// ```
/// let mut numbers = vec![1, 2, 3];
/// let sum = greenling::thread::scope(|s| {
///     let sum = s.spawn(|| numbers.iter().sum::<i32>());
///     sum.join().unwrap()
/// });
/// numbers.push(sum);
/// assert_eq!(numbers, [1, 2, 3, 6]);
/// ```
///
/// If `f` panics, or the caller is killed or times out, the threads are killed and have unwound before this call goes
/// on unwinding; what they spawn in the scope meanwhile never runs. A kill or timeout that is due already when `f` is
/// done does the same at once. Nothing interrupts the wait for the threads: what they borrow must not go away before
/// they have ended. So a thread that cannot end holds up the scope for ever; if that is a deadlock, and killing the
/// threads does not help because they shield themselves or swallow the kill, the process is aborted with a report.
///
/// While the caller unwinds (a scope in a destructor) the caller cannot wait, and in [`no_switch`](crate::no_switch) no
/// other thread may run: threads that are left when `f` is done then never run. When the OS thread is ending nothing
/// can be spawned, and `f` just runs.
///
/// # Panics
/// As std's: if a thread panicked that was not joined. With the panic of `f`. Inside [`no_switch`](crate::no_switch),
/// if a thread is left when `f` is done. In main on a deadlock. In the child of a fork.
///
/// May switch: yes, if a thread is left when `f` is done.
#[doc(alias = "spawn_unchecked")]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let open = Open::new();
    let scope = open.scope();
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    // Every way out leads through here (scope-1).
    let interrupted = open.close(result.is_err());
    match (result, interrupted) {
        (Err(payload), _) | (Ok(_), Some(payload)) => open.raise(payload),
        (Ok(_), None) if open.shared.panicked.get() => unjoined_panic(),
        (Ok(value), None) => value,
    }
}

/// Panics because a thread panicked that was not joined.
#[cold]
pub(super) fn unjoined_panic() -> ! {
    panic!("a scoped green thread panicked")
}

/// A scope from beginning to end.
pub(super) struct Open {
    /// The thread that opened the scope; none when the OS thread is ending.
    opener: Option<Caller>,
    /// What the scope shares with its threads.
    pub(super) shared: Rc<ScopeData>,
}

impl Open {
    /// Opens a scope in the running thread.
    ///
    /// # Panics
    /// If there is no hub and none can be made.
    pub(super) fn new() -> Open {
        // An OS thread that is ending has no root: such a scope can spawn nothing.
        let opener = match try_root().map(Caller::of).transpose() {
            Ok(opener) => opener,
            Err(error) => no_hub(&error),
        };
        let shared = Rc::new(ScopeData {
            running: Cell::new(0),
            owner: opener.map(|caller| caller.fiber),
            cancelled: Cell::new(false),
            panicked: Cell::new(false),
            threads: RefCell::new(Vec::new()),
        });
        Open { opener, shared }
    }

    /// Returns the handle to spawn with. Every way out of the function that called `new` leads through `close`
    /// (scope-1).
    pub(super) fn scope<'scope, 'env>(&self) -> Scope<'scope, 'env> {
        Scope { shared: Rc::clone(&self.shared), scope: PhantomData, env: PhantomData }
    }

    /// Ends the scope, as the function `close` does.
    pub(super) fn close(&self, failed: bool) -> Option<Box<dyn Any + Send>> {
        close(self.opener?, &self.shared, failed)
    }

    /// Goes on unwinding after the last thread has ended.
    pub(super) fn raise(&self, payload: Box<dyn Any + Send>) -> ! {
        cancel::raise(self.shared.owner, payload)
    }
}

/// Waits until no thread of the scope is left; kills the threads first if the scope has `failed`, and when something
/// interrupts the wait or is due already. Returns what to unwind with then (scope-1).
///
/// # Panics
/// In `no_switch`, unless the scope has `failed` anyhow; in main on a deadlock.
fn close(caller: Caller, shared: &ScopeData, failed: bool) -> Option<Box<dyn Any + Send>> {
    let Caller { root, fiber: me, .. } = caller;
    if shared.running.get() == 0 {
        return None;
    }
    // If the owner may not suspend, the threads end in place.
    let held = me.pending.has(pending::NO_SWITCH);
    if held || cancel::obstacle().is_some() {
        cancel_in_place(root, shared);
        assert!(failed || !held, "greenling: a scope inside `no_switch` would have to wait for its threads");
        return None;
    }
    if failed {
        cancel_all(root, shared);
    }
    let (mut raise, mut deadlocks) = (None::<Box<dyn Any + Send>>, 0);
    // A kill that was delivered before, and put off by a shield or swallowed by the program, wakes the owner no more.
    // So check the flag here.
    let mut came = Interruption { kill: me.pending.has(pending::KILL), ..Interruption::default() };
    loop {
        // First what came: note what to raise, and kill the threads.
        if came.deadlock {
            let report = root.take_deadlock().unwrap_or_default();
            deadlocks += 1;
            if deadlocks > MAX_DEADLOCKS {
                cancel::abort_with(&format_args!(
                    "greenling: the threads of a scope cannot be unwound, they block again when killed\n{report}"
                ));
            }
            raise.get_or_insert_with(|| Box::new(report));
        } else if came.timed_out {
            raise.get_or_insert_with(|| Box::new(ScopeExpired(me.scope_deadline.get().scope)));
        } else if came.kill {
            raise.get_or_insert_with(|| cancel::kill_payload(me));
        }
        if came.deadlock || came.timed_out || came.kill {
            // Kill them each time anew: a thread may have swallowed the earlier kill.
            cancel_all(root, shared);
        }
        if shared.running.get() == 0 {
            break;
        }
        // Then wait; until the deadline of an outer timeout, if there is nothing to raise yet.
        let deadline = if raise.is_none() { me.scope_deadline.get().at } else { NEVER };
        came = caller.park_uninterrupted(Reason::Scope, deadline);
    }
    if let Some(payload) = &raise
        && let Some(report) = payload.downcast_ref::<String>()
    {
        // A deadlock is a panic like any other, so the panic hook prints it.
        panic!("{report}");
    }
    raise
}

/// Ends the threads of a scope if its owner may not suspend, and could not since before the scope was opened. So none
/// of the threads has ever run, and they end here. The loop repeats, since the destructor of a closure may spawn more,
/// and goes on after a panic of one, since the others must not be left behind.
#[cold]
fn cancel_in_place(root: &Root, shared: &ScopeData) {
    while shared.running.get() > 0 {
        for thread in shared.threads.take() {
            if let Some(fiber) = root.resolve(thread) {
                drop_quietly(Cancel(fiber));
            }
        }
    }
}

/// Ends a thread that has not started, closure and all, when dropped.
struct Cancel(Fiber);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancel_unstarted();
    }
}

/// Kills all threads of the scope, and lets the threads that are spawned from now on never run.
fn cancel_all(root: &Root, shared: &ScopeData) {
    shared.cancelled.set(true);
    kill_all(root, shared);
}

/// Kills all threads of the scope that have not ended.
fn kill_all(root: &Root, shared: &ScopeData) {
    for thread in shared.threads.borrow().iter() {
        if let Some(fiber) = root.resolve(*thread) {
            root.kill(fiber);
        }
    }
}

/// A value in each thread's closure, then in its frame. The drop says that the thread will not touch a borrow again.
struct ScopeMember(Rc<ScopeData>);

impl Drop for ScopeMember {
    fn drop(&mut self) {
        let running = self.0.running.get() - 1;
        self.0.running.set(running);
        if running == 0
            && let Some(root) = try_root()
            && let Some(owner) = self.0.owner
            && owner.state.get() == State::Parked
            // The owner may be parked for something else, in the body of the scope.
            && owner.waits_for() == Reason::Scope
        {
            root.wake(owner);
        }
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Spawns a thread that may borrow for `'scope`; see [`crate::spawn`].
    ///
    /// # Panics
    /// If no stack can be had; see [`Builder::spawn_scoped`] for an error instead.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        match Builder::new().spawn_scoped(self, f) {
            Ok(handle) => handle,
            Err(error) => panic!("failed to spawn a green thread: {error}"),
        }
    }

    /// Kills every thread of the scope that has not ended; see [`JoinHandle::kill`](super::JoinHandle::kill).
    ///
    /// May switch: no.
    pub fn kill_all(&self) {
        if let Some(root) = try_root() {
            kill_all(root, &self.shared);
        }
    }

    /// Ends the scope's other threads, and those that are spawned from now on. For a thread that has failed.
    pub(super) fn fail(&self) {
        let Some(root) = try_root() else { return };
        self.shared.cancelled.set(true);
        let me = root.current();
        for thread in self.shared.threads.borrow().iter().filter_map(|thread| root.resolve(*thread)) {
            if thread != me {
                root.kill(thread);
            }
        }
    }

    /// Remembers a thread, and forgets ended threads when there are many of them.
    fn remember(&self, root: &Root, thread: FiberRef) {
        let mut threads = self.shared.threads.borrow_mut();
        if threads.len() > 16 + 2 * self.shared.running.get() {
            threads.retain(|thread| root.resolve(*thread).is_some());
        }
        threads.push(thread);
    }
}

impl Builder {
    /// Spawns a thread in a scope; see [`Builder::spawn`].
    ///
    /// # Errors
    /// As [`Builder::spawn`].
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        self.launch_scoped(scope, None, f)
    }

    /// Launches a thread in a scope, with thread-locals of its own if there is a `block` for them.
    #[track_caller]
    fn launch_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        block: Option<NewBlock<'_>>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let (root, _) = hub()?;
        let shift = self.shift(root)?;
        let extras = if block.is_some() { None } else { inherited(root) };
        let shared = &scope.shared;
        shared.running.set(shared.running.get() + 1);
        // From here on the drop of `member` counts the thread down, even if the launch fails.
        let member = ScopeMember(Rc::clone(shared));
        let body = move |fiber: Fiber| {
            let outcome = live(fiber, f);
            if !fiber.owned.get() && outcome.as_ref().is_err_and(is_program_panic) {
                member.0.panicked.set(true);
            }
            if fiber.owned.get() {
                drop(member);
                return outcome;
            }
            // No handle will take the result, so drop it before the scope can end: the destructor may still use the
            // borrows.
            drop_quietly(outcome);
            drop(member);
            Err(JoinError::killed())
        };
        // SAFETY: what `f` and its result borrow lives for 'scope. By scope-1 the fiber has ended before the scope
        // returns, and by scope-2 the result is not dropped later; `live` catches every unwinding.
        let (packet, fiber) = unsafe { packet::launch_borrowing(root, shift, self.site(), body) }?;
        if let Some(block) = block {
            root.enter_block(fiber, block);
        }
        if let Some(extras) = extras {
            fiber.adopt(extras);
        }
        if self.has_name() {
            self.give_name(fiber);
        }
        // Into the run queue, and killed at once if the scope is being unwound.
        scope.remember(root, packet.fiber_ref());
        root.enqueue(fiber);
        if shared.cancelled.get() {
            root.kill(fiber);
        }
        Ok(ScopedJoinHandle { packet, thread: OnceCell::new(), shared: Rc::clone(shared), scope: PhantomData })
    }
}

impl OwnBuilder {
    /// Spawns a thread with thread-locals of its own in a scope; see [`Builder::own_thread_locals`]. What it borrows
    /// must be [`Sync`].
    ///
    /// ```compile_fail,E0277
    /// let local = std::cell::Cell::new(1);
    /// greenling::thread::scope(|scope| {
    ///     let thread = greenling::thread::Builder::new().own_thread_locals().spawn_scoped(scope, || local.set(2));
    ///     drop(thread);
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`OwnBuilder::spawn`].
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.launch_scoped(scope, f)
    }

    /// Launches the thread. The callers see to it that what enters and leaves the thread is `Send`, or goes along by
    /// the runtime's hand (hub-bound-1).
    #[track_caller]
    pub(super) fn launch_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let (root, _) = hub()?;
        let block = root.new_block()?;
        self.builder.launch_scoped(scope, Some(block), f)
    }
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the thread to end and returns the result; see [`JoinHandle::join`](super::JoinHandle::join).
    ///
    /// # Errors
    /// As [`JoinHandle::join`](super::JoinHandle::join).
    ///
    /// # Panics
    /// As [`JoinHandle::join`](super::JoinHandle::join).
    ///
    /// May switch: yes, unless the thread has ended.
    pub fn join(mut self) -> Result<T, JoinError> {
        // As in `JoinHandle::join`, no `Thread` handle may hide a deadlock.
        drop(self.thread.take());
        join(&self.packet)
    }

    /// Returns the thread's name, id and `unpark`.
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
        has_ended(&self.packet) || {
            checkpoint();
            has_ended(&self.packet)
        }
    }

    /// Kills the thread; see [`JoinHandle::kill`](super::JoinHandle::kill).
    ///
    /// May switch: no.
    pub fn kill(&self) -> bool {
        kill(&self.packet)
    }
}

impl<T> SelectEnd for ScopedJoinHandle<'_, T> {
    type Arm<'s>
        = EndArm<'s>
    where
        Self: 's;

    fn select_end(&self) -> EndArm<'_> {
        EndArm::new(&self.packet)
    }
}

impl<T> Drop for ScopedJoinHandle<'_, T> {
    fn drop(&mut self) {
        // A result that was not joined: a panic counts for the scope.
        let outcome = self.packet.take();
        if let Some(Err(error)) = &outcome
            && is_program_panic(error)
        {
            self.shared.panicked.set(true);
        }
        drop_safely(outcome);
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("running", &self.shared.running.get()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("finished", &has_ended(&self.packet)).finish_non_exhaustive()
    }
}
