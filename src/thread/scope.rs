//! Scoped green threads: they may borrow from the stack of the thread that opened the scope.
//!
//! * Invariant C1: `scope` returns or unwinds only when no thread of the scope is left. Upheld by `Open::close`,
//!   which runs on every way out: the body runs under `catch_unwind`, and the wait for the threads cannot be
//!   interrupted; a kill, a timeout or a deadlock meanwhile kills the threads, and is raised when they have ended.
//!   Nothing depends on a destructor that `mem::forget` could skip: what counts the threads down is the drop of a
//!   value in each thread's own closure or frame, and a frame is never freed without unwinding it.
//!   On a stack that unwinds nobody may wait: there the threads, none of which has run, are cancelled in place.
//! * Invariant C2: a result that borrows is dropped before the scope ends or never: if its handle was forgotten, it
//!   stays in its slot (`Spec::borrows`).
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;

use super::handle::Thread;
use super::local::inherited;
use super::spawn::{Builder, EndArm, JoinError, Outcome, is_program_panic, join, kill, live, thread_of};
use super::try_scope::{Failure, Failures, TryScope};
use crate::runtime::hub::{Hub, ending, hub_of};
use crate::runtime::park::{NEVER, park_uninterrupted};
use crate::switch::cancel::{self, ScopeExpired};
use crate::switch::fiber::{Fiber, FiberRef, Reason, State, drop_quietly};
use crate::switch::packet::{self, Packet};
use crate::switch::root::{Root, try_root};

/// Deadlocks inside one scope before the process gives up: its threads were killed, and wait again.
const PATIENCE: u32 = 8;

/// What the threads of a scope share.
#[derive(Debug)]
struct Shared {
    /// Threads that have not ended.
    running: Cell<usize>,
    /// Who waits for them; nobody when the OS thread is ending, and then there are no threads either.
    owner: Option<Fiber>,
    /// The scope is being unwound: what is spawned in it now never runs.
    cancelled: Cell<bool>,
    /// A thread panicked and nobody joined it.
    panicked: Cell<bool>,
    /// The threads, some of them ended.
    threads: RefCell<Vec<FiberRef>>,
}

/// A scope to spawn in; see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    /// The count.
    shared: Rc<Shared>,
    /// Invariant over 'scope, so that it cannot be made longer.
    scope: PhantomData<&'scope mut &'scope ()>,
    /// Invariant over 'env, likewise.
    env: PhantomData<&'env mut &'env ()>,
}

/// The right to wait for a thread of a scope; dropping it leaves the waiting to the scope.
pub struct ScopedJoinHandle<'scope, T> {
    /// The result.
    packet: Packet<Outcome<T>>,
    /// Made when asked for.
    thread: OnceCell<Box<Thread>>,
    /// To note a panic nobody looked at.
    shared: Rc<Shared>,
    /// The threads borrow for this long.
    scope: PhantomData<&'scope ()>,
}

/// Runs `f` with a scope whose threads may borrow whatever outlives the call, and waits for all of them.
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
/// on unwinding; what they spawn in the scope meanwhile never runs. The wait for them is not interrupted by anything, nor
/// forbidden by `no_switch`: nothing that they borrow may go away before they have ended. So a thread that cannot end
/// holds up the scope for ever; if that is a deadlock, and killing the threads does not help because they shield
/// themselves or swallow it, the process is aborted with a report.
///
/// While the caller unwinds (a scope in a destructor) nobody can be waited for: threads that are left when `f` is done
/// never run. When the OS thread is ending nothing can be spawned, and `f` just runs.
///
/// # Panics
/// As std's: if a thread panicked that was not joined. With the panic of `f`. In main on a deadlock. In the child of a
/// fork.
///
/// May switch: yes, if a thread is left when `f` is done.
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let open = Open::new();
    let scope = Scope { shared: Rc::clone(&open.shared), scope: PhantomData, env: PhantomData };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let interrupted = open.close(result.is_err());
    match (result, interrupted) {
        (Err(payload), _) | (Ok(_), Some(payload)) => open.raise(payload),
        (Ok(_), None) if open.shared.panicked.get() => somebody_panicked(),
        (Ok(value), None) => value,
    }
}

/// A thread panicked that nobody joined.
#[cold]
fn somebody_panicked() -> ! {
    panic!("a scoped green thread panicked")
}

/// Runs `f` with a scope whose threads may fail; the first failure ends all of them, and comes out of this call.
///
/// ```
/// use greenling::{sleep, thread::try_scope};
/// use std::time::Duration;
///
/// let limit = 3;
/// let result = try_scope(|s| {
///     for n in 1..10 {
///         s.spawn(move || {
///             if n > limit {
///                 return Err(format!("{n} is too much"));
///             }
///             sleep(Duration::from_secs(3600)); // unwound as soon as 4 fails
///             Ok(())
///         });
///     }
///     Ok(())
/// });
/// assert_eq!(result, Err("4 is too much".to_owned()));
/// ```
///
/// A failure is an `Err` or a panic, of a thread spawned with [`TryScope::spawn`] or of `f` itself. (Hence the name: what
/// `try_` does for iterators, this does for the threads of a scope.) When it comes,
///
/// * every other thread of the scope is killed, and those that are spawned in it from then on never run;
/// * `f`, if it has not returned, is interrupted like by a kill, at the blocking call that it is in or makes next; in a
///   [`shield`](crate::shield) that was open before, it goes on to its end;
/// * when all of them have ended, `try_scope` returns the error, or goes on with the panic.
///
/// It comes out once. Later failures, which as a rule are consequences, are dropped when all have ended; the panic hook
/// has printed those that are panics. A thread that is killed has not failed. As for the rest this is a [`scope`]: if the
/// caller is killed or times out, so are the threads, and that comes before any failure.
///
/// Under `panic = "abort"` nothing can be killed: it waits for all, and returns the first error.
///
/// # Errors
/// With the first failure that is an error.
///
/// # Panics
/// With the first failure that is a panic. In main on a deadlock. In the child of a fork.
///
/// May switch: yes, if a thread is left when `f` is done.
pub fn try_scope<'env, F, T, E>(f: F) -> Result<T, E>
where
    F: for<'scope> FnOnce(&'scope TryScope<'scope, 'env, E>) -> Result<T, E>,
{
    let open = Open::new();
    let failures = Rc::new(Failures::new(open.shared.owner));
    let scope = Scope { shared: Rc::clone(&open.shared), scope: PhantomData, env: PhantomData };
    let scope = TryScope { scope, failures: Rc::clone(&failures) };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let result = failures.after_body(result);
    let interrupted = open.close(!matches!(result, Ok(Some(_))) || failures.any());
    match (result, interrupted) {
        (Err(payload), _) | (Ok(_), Some(payload)) => open.raise(payload),
        (Ok(value), None) => match (failures.first(), value) {
            (Some(Failure::Error(error)), _) => Err(error),
            (Some(Failure::Panic(payload)), _) => open.raise(payload),
            (None, _) if open.shared.panicked.get() => somebody_panicked(),
            (None, Some(value)) => Ok(value),
            (None, None) => unreachable!("a body without a value has failed"),
        },
    }
}

/// A scope from its beginning to its end.
struct Open {
    /// Its thread's root and hub; none when the OS thread is ending.
    home: Option<(&'static Root, &'static Hub)>,
    /// What its threads share.
    shared: Rc<Shared>,
}

impl Open {
    /// A scope of the running thread.
    ///
    /// # Panics
    /// If there can be no hub.
    fn new() -> Open {
        let home = match try_root().map(|root| hub_of(root).map(|hub| (root, hub))).transpose() {
            Ok(home) => home,
            Err(error) => panic!("{error}"),
        };
        let shared = Rc::new(Shared {
            running: Cell::new(0),
            owner: home.map(|(root, _)| root.current()),
            cancelled: Cell::new(false),
            panicked: Cell::new(false),
            threads: RefCell::new(Vec::new()),
        });
        Open { home, shared }
    }

    /// See the function `close`.
    fn close(&self, kill_now: bool) -> Option<Box<dyn Any + Send>> {
        let (root, hub) = self.home?;
        close(root, hub, self.shared.owner?, &self.shared, kill_now)
    }

    /// Goes on unwinding, now that nobody is left.
    fn raise(&self, payload: Box<dyn Any + Send>) -> ! {
        cancel::raise(self.shared.owner, payload)
    }
}

/// Waits until no thread of the scope is left; kills them first if `kill_now`, and when something interrupts the wait.
/// Returns what to unwind with then (invariant C1).
fn close(root: &Root, hub: &Hub, me: Fiber, shared: &Shared, kill_now: bool) -> Option<Box<dyn Any + Send>> {
    let mut raise: Option<Box<dyn Any + Send>> = None;
    if shared.running.get() > 0 && cancel::obstacle().is_some() {
        // The caller unwinds and must not suspend, nor has it since before the scope was opened. So no thread of the
        // scope has ever run: end them here. Again and again, since the destructor of a closure may spawn more; and
        // whatever it throws, since the others must not be left behind.
        while shared.running.get() > 0 {
            for thread in shared.threads.take() {
                if let Some(fiber) = root.resolve(thread) {
                    drop_quietly(Cancel(fiber));
                }
            }
        }
        return None;
    }
    if kill_now {
        cancel_all(root, shared);
    }
    let mut deadlocks = 0;
    while shared.running.get() > 0 {
        let deadline = if raise.is_none() { me.scope_deadline.get().at } else { NEVER };
        let came = park_uninterrupted(root, hub, me, Reason::Scope, deadline);
        let payload: Box<dyn Any + Send> = if came.deadlock {
            let report = root.take_deadlock().unwrap_or_default();
            deadlocks += 1;
            if deadlocks > PATIENCE {
                cancel::abort_with(&format_args!(
                    "greenling: the threads of a scope cannot be unwound, they block again when killed\n{report}"
                ));
            }
            Box::new(report)
        } else if came.scope {
            Box::new(ScopeExpired(me.scope_deadline.get().scope))
        } else if came.kill && raise.is_none() {
            cancel::kill_payload(me)
        } else {
            continue;
        };
        raise.get_or_insert(payload);
        cancel_all(root, shared);
    }
    if let Some(payload) = &raise
        && let Some(report) = payload.downcast_ref::<String>()
    {
        // A deadlock is a panic like any other, and the hook prints it.
        panic!("{report}");
    }
    raise
}

/// Ends a thread that has not started when dropped, closure and all.
struct Cancel(Fiber);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancel_unstarted();
    }
}

/// Kills all threads of the scope, and those that will be spawned in it.
fn cancel_all(root: &Root, shared: &Shared) {
    shared.cancelled.set(true);
    kill_all(root, shared);
}

/// Kills all threads of the scope.
fn kill_all(root: &Root, shared: &Shared) {
    for thread in shared.threads.borrow().iter() {
        if let Some(fiber) = root.resolve(*thread) {
            root.kill(fiber);
        }
    }
}

/// Lives in each thread's closure, then in its frame; its drop says that the thread will not touch a borrow again.
struct Member(Rc<Shared>);

impl Drop for Member {
    fn drop(&mut self) {
        let running = self.0.running.get() - 1;
        self.0.running.set(running);
        if running == 0
            && let Some(root) = try_root()
            && let Some(owner) = self.0.owner
            && owner.state.get() == State::Parked
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

    /// Ends the scope's other threads, and what is spawned in it from now on: the calling one has failed.
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

    /// Remembers a thread, and forgets those that have ended when they become many.
    fn remember(&self, root: &Root, thread: FiberRef) {
        let mut threads = self.shared.threads.borrow_mut();
        if threads.len() > 16 + 2 * self.shared.running.get() {
            threads.retain(|thread| root.resolve(*thread).is_some());
        }
        threads.push(thread);
    }
}

impl Builder {
    /// [`Builder::spawn`] in a scope.
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
        let root = try_root().ok_or_else(ending)?;
        let shift = self.shift(root)?;
        let extras = inherited(root);
        let shared = &scope.shared;
        shared.running.set(shared.running.get() + 1);
        let member = Member(Rc::clone(shared));
        let body = move |fiber: Fiber| {
            let outcome = live(fiber, f);
            if !fiber.owned.get() && outcome.as_ref().is_err_and(is_program_panic) {
                member.0.panicked.set(true);
            }
            if fiber.owned.get() {
                drop(member);
                return outcome;
            }
            // Nobody will take the result: it goes before the scope can end, and so may still look at its borrows.
            drop_quietly(outcome);
            drop(member);
            Err(JoinError::killed())
        };
        // SAFETY: what `f` and its result borrow lives for 'scope. By invariant C1 the fiber has ended before the
        // scope returns, and by C2 its result is not dropped later; `live` catches every unwinding.
        let (packet, fiber) = unsafe { packet::launch_borrowing(root, shift, Location::caller(), body) }?;
        if let Some(extras) = extras {
            fiber.adopt(extras);
        }
        if self.has_name() {
            self.give_name(fiber);
        }
        scope.remember(root, packet.fiber_ref());
        root.enqueue(fiber);
        if shared.cancelled.get() {
            root.kill(fiber);
        }
        Ok(ScopedJoinHandle { packet, thread: OnceCell::new(), shared: Rc::clone(shared), scope: PhantomData })
    }
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the thread to end and returns its result; see [`JoinHandle::join`](super::JoinHandle::join).
    ///
    /// # Errors
    /// As [`JoinHandle::join`](super::JoinHandle::join).
    ///
    /// # Panics
    /// As [`JoinHandle::join`](super::JoinHandle::join).
    ///
    /// May switch: yes, unless the thread has ended.
    pub fn join(mut self) -> Result<T, JoinError> {
        // As in `JoinHandle::join`.
        drop(self.thread.take());
        join(&self.packet)
    }

    /// Its name, id and `unpark`.
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

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_end(&self) -> EndArm<'_> {
        EndArm::new(&self.packet)
    }

    /// See [`JoinHandle::kill`](super::JoinHandle::kill).
    ///
    /// May switch: no.
    pub fn kill(&self) -> bool {
        kill(&self.packet)
    }
}

impl<T> Drop for ScopedJoinHandle<'_, T> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.packet.take()
            && is_program_panic(&error)
        {
            self.shared.panicked.set(true);
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("running", &self.shared.running.get()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
