//! Scopes that fail fast: [`try_scope`], the threads in such a scope, and the first of their failures.
//!
//! ```text
//!   thread:  closure fails -> first? keep it -> kill the siblings -> interrupt the body -> end
//!                             else keep it for the end: its destructor may do anything
//!   body:    unwinds, or returns -> not to be interrupted any more -> wait for all -> the first failure comes out
//! ```
//!
//! The body runs in the thread that opened the scope, and the scope has no right to kill that thread. So the thread is
//! *cancelled*: the flag is that of a kill, raised at the same places and put off by shields, but cancels are counted
//! apart (`Root::cancel`), and taken back when the body is done. A kill that comes meanwhile is not taken back.
//!
//! * Invariant try-scope-1: an owner is cancelled at most once for each of its scopes, only while the scope's body
//!   runs, and `after_body` takes the cancel back. Upheld by `BodyState`, which only `Failures` changes.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::handle::Thread;
use super::join::EndArm;
use super::join_error::JoinError;
use super::scope::{Open, Scope, ScopedJoinHandle, unjoined_panic};
use super::spawn::{Builder, OwnBuilder};
use crate::pure::drops::drop_each;
use crate::runtime::select_source::SelectEnd;
use crate::switch::cancel::{self, is_control};
use crate::switch::fiber::{Fiber, drop_quietly};
use crate::switch::root::try_root;

/// What a thread failed with.
pub(super) enum Failure<E> {
    /// The error that the thread returned.
    Error(E),
    /// The payload of the thread's panic.
    Panic(Box<dyn Any + Send>),
}

/// The progress of a scope's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    /// The body runs undisturbed.
    Running,
    /// The body runs, and was told to end.
    Cancelled,
    /// The body has ended.
    Done,
}

/// The failures of one scope.
pub(super) struct Failures<E> {
    /// The failures, in order. Only the first one matters; the others wait here for a place to be dropped at.
    failures: RefCell<Vec<Failure<E>>>,
    /// The thread that runs the body; none when the OS thread is ending.
    owner: Option<Fiber>,
    state: Cell<BodyState>,
}

/// How a body ended: with a value, without one since the scope has failed, or with what goes on unwinding.
type BodyResult<T> = Result<Option<T>, Box<dyn Any + Send>>;

impl<E> Failures<E> {
    /// Makes an empty record for the scope of `owner`.
    pub(super) fn new(owner: Option<Fiber>) -> Failures<E> {
        Failures { failures: RefCell::default(), owner, state: Cell::new(BodyState::Running) }
    }

    /// Reports whether there is a failure.
    pub(super) fn any(&self) -> bool {
        !self.failures.borrow().is_empty()
    }

    /// Takes the first failure out, and drops the others.
    pub(super) fn first(&self) -> Option<Failure<E>> {
        let mut failures = self.failures.take().into_iter();
        let first = failures.next();
        failures.for_each(drop_quietly);
        first
    }

    /// Keeps a failure. Reports whether this is the first.
    fn add(&self, failure: Failure<E>) -> bool {
        let mut failures = self.failures.borrow_mut();
        failures.push(failure);
        failures.len() == 1
    }

    /// Interrupts the body, if the body runs in another thread than the calling one.
    fn cancel_body(&self) {
        if let (Some(root), Some(owner), BodyState::Running) = (try_root(), self.owner, self.state.get())
            && root.current() != owner
        {
            self.state.set(BodyState::Cancelled);
            root.cancel(owner);
        }
    }

    /// Keeps the body's failure, and ends the interruption of the body.
    pub(super) fn after_body<T>(&self, result: Result<Result<T, E>, Box<dyn Any + Send>>) -> BodyResult<T> {
        // Take the cancel back; what is left is a kill from outside, if there is one (try-scope-1).
        let cancelled = self.state.replace(BodyState::Done) == BodyState::Cancelled;
        let killed = match (try_root(), self.owner) {
            (Some(root), Some(me)) if cancelled => {
                cancel::clear_unwinding(me);
                root.end_cancel(me)
            }
            _ => false,
        };
        match result {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(error)) => {
                self.add(Failure::Error(error));
                Ok(None)
            }
            Err(payload) if !is_control(&*payload) => {
                self.add(Failure::Panic(payload));
                Ok(None)
            }
            // What unwinds is an outer timeout, or a kill from outside: the caller outside waits for that.
            Err(payload) if !cancelled || killed || payload.is::<cancel::ScopeExpired>() => Err(payload),
            Err(_) => Ok(None),
        }
    }
}

impl<E> Drop for Failures<E> {
    fn drop(&mut self) {
        drop_each(self.failures.get_mut().drain(..));
    }
}

/// A scope to spawn in; the first failure ends all threads in the scope; see [`try_scope`].
pub struct TryScope<'scope, 'env: 'scope, E> {
    /// The scope that the threads belong to.
    pub(super) scope: Scope<'scope, 'env>,
    /// The failures of the threads and of the body.
    pub(super) failures: Rc<Failures<E>>,
}

/// Runs `f` with a scope of threads that may fail; the first failure ends all of them, and comes out of this call.
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
/// A failure is an `Err` or a panic, of a thread spawned with [`TryScope::spawn`] or of `f` itself. (Hence the name:
/// what `try_` does for iterators, this does for the threads of a scope.) When a failure comes,
///
/// * every other thread of the scope is killed, and those that are spawned in the scope from then on never run;
/// * `f`, if it has not returned, is interrupted like by a kill, at the blocking call that `f` is in or makes next; in
///   a [`shield`](crate::shield) that was open before, `f` goes on to its end;
/// * when all of them have ended, `try_scope` returns the error, or goes on with the panic.
///
/// Only the first failure comes out. Later ones, which as a rule are consequences, are dropped when all threads have
/// ended; the panic hook has printed those that are panics. A thread that is killed has not failed. As for the rest
/// this is a [`scope`](super::scope()): if the caller is killed or times out, so are the threads, and that comes before
/// any failure.
///
/// Under `panic = "abort"` nothing can be killed: the call waits for all threads, and returns the first error.
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
    let scope = TryScope { scope: open.scope(), failures: Rc::clone(&failures) };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    // The body's failure counts like a thread's.
    let result = failures.after_body(result);
    // Wait for the threads; a failure kills them first.
    let interrupted = open.close(!matches!(result, Ok(Some(_))) || failures.any());
    match (result, interrupted) {
        (Err(payload), _) | (Ok(_), Some(payload)) => open.raise(payload),
        // All have ended: the first failure comes out, or the value.
        (Ok(value), None) => match (failures.first(), value) {
            (Some(Failure::Error(error)), _) => Err(error),
            (Some(Failure::Panic(payload)), _) => open.raise(payload),
            (None, _) if open.shared.panicked.get() => unjoined_panic(),
            (None, Some(value)) => Ok(value),
            (None, None) => unreachable!("a body without a value has failed"),
        },
    }
}

/// The right to wait for a thread of a [`TryScope`]; dropping it leaves the waiting to the scope.
pub struct TryJoinHandle<'scope, T> {
    /// The handle of the scope below; the result is none if the thread failed.
    handle: ScopedJoinHandle<'scope, Option<T>>,
}

impl<'scope, 'env, E: 'scope> TryScope<'scope, 'env, E> {
    /// Spawns a thread that may borrow for `'scope` and may fail; see [`try_scope`].
    ///
    /// # Panics
    /// If no stack can be had; see [`spawn_with`](Self::spawn_with) for an error instead.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> TryJoinHandle<'scope, T>
    where
        F: FnOnce() -> Result<T, E> + 'scope,
        T: 'scope,
    {
        match self.spawn_with(Builder::new(), f) {
            Ok(handle) => handle,
            Err(error) => panic!("failed to spawn a green thread: {error}"),
        }
    }

    /// Spawns as [`spawn`](Self::spawn) does, with a name or a stack size.
    ///
    /// # Errors
    /// As [`Builder::spawn`].
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn_with<F, T>(&'scope self, builder: Builder, f: F) -> io::Result<TryJoinHandle<'scope, T>>
    where
        F: FnOnce() -> Result<T, E> + 'scope,
        T: 'scope,
    {
        let handle = builder.spawn_scoped(&self.scope, move || self.run(f))?;
        Ok(TryJoinHandle { handle })
    }

    /// Spawns a thread with thread-locals of its own; see [`Builder::own_thread_locals`]. The first failure ends the
    /// threads of the scope, whichever kind they are.
    ///
    /// ```
    /// use greenling::thread::{Builder, own_thread_locals_supported, try_scope};
    ///
    /// # if own_thread_locals_supported().is_err() { return; }
    /// let words = vec!["1", "2", "x"];
    /// let sum = try_scope(|scope| {
    ///     let parse = |word: &str| word.parse::<u32>().map_err(|error| error.to_string());
    ///     let (a, b) = (words[0], words[2]);
    ///     let first = scope.spawn_own(Builder::new().own_thread_locals(), move || parse(a)).unwrap();
    ///     let second = scope.spawn_own(Builder::new().own_thread_locals(), move || parse(b)).unwrap();
    ///     Ok(first.join().unwrap() + second.join().unwrap())
    /// });
    /// assert_eq!(sum, Err("invalid digit found in string".to_string()));
    /// ```
    ///
    /// What the thread borrows must be [`Sync`], and its closure, its value and its error [`Send`]:
    ///
    /// ```compile_fail,E0277
    /// # use greenling::thread::{Builder, try_scope};
    /// let local = std::cell::Cell::new(1);
    /// let _ = try_scope(|scope| {
    ///     let thread = scope.spawn_own(Builder::new().own_thread_locals(), || Ok(local.set(2)));
    ///     thread.unwrap().join().map_err(|error| error.to_string())
    /// });
    /// ```
    ///
    /// ```compile_fail,E0277
    /// # use greenling::thread::{Builder, try_scope};
    /// let _ = try_scope::<_, _, String>(|scope| {
    ///     let thread = scope.spawn_own(Builder::new().own_thread_locals(), || Ok(std::rc::Rc::new(1)));
    ///     Ok(drop(thread))
    /// });
    /// ```
    ///
    /// ```compile_fail,E0277
    /// # use greenling::thread::{Builder, try_scope};
    /// let _ = try_scope(|scope| {
    ///     let thread = scope.spawn_own(Builder::new().own_thread_locals(), || Err::<(), _>(std::rc::Rc::new(1)));
    ///     Ok(drop(thread))
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`OwnBuilder::spawn`].
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn_own<F, T>(&'scope self, builder: OwnBuilder, f: F) -> io::Result<TryJoinHandle<'scope, T>>
    where
        F: FnOnce() -> Result<T, E> + Send + 'scope,
        T: Send + 'scope,
        E: Send,
    {
        // The scope itself goes along by the runtime's hand (hub-bound-1): of it, the thread reaches only the failures,
        // which are `Send`, and flags of its siblings.
        let handle = builder.launch_scoped(&self.scope, move || self.run(f))?;
        Ok(TryJoinHandle { handle })
    }

    /// Runs the closure of a thread, and keeps what it fails with.
    fn run<T>(&self, f: impl FnOnce() -> Result<T, E>) -> Option<T> {
        // A kill or an expired timeout is no failure.
        let failure = match catch_unwind(AssertUnwindSafe(f)) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => Failure::Error(error),
            Err(payload) if is_control(&*payload) => resume_unwind(payload),
            Err(payload) => Failure::Panic(payload),
        };
        if self.failures.add(failure) {
            self.scope.fail();
            self.failures.cancel_body();
        }
        None
    }

    /// Kills every thread of the scope that has not ended. A kill is no failure.
    ///
    /// May switch: no.
    pub fn kill_all(&self) {
        self.scope.kill_all();
    }
}

impl<T> TryJoinHandle<'_, T> {
    /// Waits for the thread to end and returns the result.
    ///
    /// # Errors
    /// As [`JoinHandle::join`](super::JoinHandle::join). For a thread that failed the error says killed: the failure
    /// itself comes out of `try_scope`.
    ///
    /// # Panics
    /// As [`JoinHandle::join`](super::JoinHandle::join); and when the scope fails, the body unwinds from here.
    ///
    /// May switch: yes, unless the thread has ended.
    pub fn join(self) -> Result<T, JoinError> {
        self.handle.join()?.ok_or_else(JoinError::killed)
    }

    /// Returns the thread's name, id and `unpark`.
    ///
    /// # Panics
    /// In the child of a fork.
    ///
    /// May switch: no.
    pub fn thread(&self) -> &Thread {
        self.handle.thread()
    }

    /// Reports whether the thread has ended.
    ///
    /// May switch: if the thread has not, and the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Kills the thread; see [`JoinHandle::kill`](super::JoinHandle::kill). A thread that is killed has not failed.
    ///
    /// May switch: no.
    pub fn kill(&self) -> bool {
        self.handle.kill()
    }
}

impl<T> SelectEnd for TryJoinHandle<'_, T> {
    type Arm<'s>
        = EndArm<'s>
    where
        Self: 's;

    fn select_end(&self) -> EndArm<'_> {
        self.handle.select_end()
    }
}

impl<E> fmt::Debug for TryScope<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryScope").field("scope", &self.scope).field("failed", &self.failures.any()).finish()
    }
}

impl<T> fmt::Debug for TryJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryJoinHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
