//! Scopes that fail fast: the threads of [`try_scope`](super::try_scope), and who of them failed first.
//!
//! ```text
//!   thread:  closure fails -> first? keep it -> kill the siblings -> interrupt the body -> end
//!                             else keep it for the end: its destructor may do anything
//!   body:    unwinds, or returns -> not to be interrupted any more -> wait for all -> the first failure comes out
//! ```
//!
//! The body runs in the thread that opened the scope, which is nobody's to kill. So it is *cancelled*: the same bit as a
//! kill's, raised at the same places and put off by shields, but it is counted apart (`Root::cancel`), and taken back when
//! the body is done. A kill that comes meanwhile is not taken back.
//!
//! * Invariant Y1: an owner is cancelled at most once for each of its scopes, only while the scope's body runs, and
//!   `after_body` takes it back. Upheld by `State`, which only `Failures` changes.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::handle::Thread;
use super::scope::{Scope, ScopedJoinHandle};
use super::spawn::{Builder, EndArm, JoinError};
use crate::switch::cancel::{self, is_control};
use crate::switch::fiber::{Fiber, drop_quietly};
use crate::switch::root::try_root;

/// What a thread failed with.
pub(super) enum Failure<E> {
    /// It returned this.
    Error(E),
    /// It panicked.
    Panic(Box<dyn Any + Send>),
}

/// Where the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It runs.
    Running,
    /// It runs, and was told to end.
    Cancelled,
    /// It has ended.
    Done,
}

/// The failures of one scope.
pub(super) struct Failures<E> {
    /// All of them, in order. Only the first one matters; the others wait here for a place to be dropped at.
    failures: RefCell<Vec<Failure<E>>>,
    /// Who runs the body; nobody when the OS thread is ending.
    owner: Option<Fiber>,
    /// Where the body is.
    state: Cell<State>,
}

/// How a body ended: with a value, without one since the scope has failed, or with what goes on unwinding.
type Body<T> = Result<Option<T>, Box<dyn Any + Send>>;

impl<E> Failures<E> {
    /// None so far.
    pub(super) fn new(owner: Option<Fiber>) -> Failures<E> {
        Failures { failures: RefCell::default(), owner, state: Cell::new(State::Running) }
    }

    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        !self.failures.borrow().is_empty()
    }

    /// The first. The others are dropped here.
    pub(super) fn first(&self) -> Option<Failure<E>> {
        let mut failures = self.failures.take().into_iter();
        let first = failures.next();
        failures.for_each(drop_quietly);
        first
    }

    /// Keeps a failure. Says whether it is the first.
    fn add(&self, failure: Failure<E>) -> bool {
        let mut failures = self.failures.borrow_mut();
        failures.push(failure);
        failures.len() == 1
    }

    /// Interrupts the body, if it runs.
    fn cancel_body(&self) {
        if let (Some(root), Some(owner), State::Running) = (try_root(), self.owner, self.state.get())
            && root.current() != owner
        {
            self.state.set(State::Cancelled);
            root.cancel(owner);
        }
    }

    /// The body has ended like this: keeps its failure, and ends its interruption.
    pub(super) fn after_body<T>(&self, result: Result<Result<T, E>, Box<dyn Any + Send>>) -> Body<T> {
        let cancelled = self.state.replace(State::Done) == State::Cancelled;
        let killed = match (try_root(), self.owner) {
            (Some(root), Some(me)) if cancelled => {
                cancel::calm(me);
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
            // An outer timeout's, or a kill's; if it is not the interruption from here, somebody outside waits for it.
            Err(payload) if !cancelled || killed || payload.is::<cancel::ScopeExpired>() => Err(payload),
            Err(_) => Ok(None),
        }
    }
}

/// A scope to spawn in whose first failure ends it; see [`try_scope`](super::try_scope).
pub struct TryScope<'scope, 'env: 'scope, E> {
    /// The scope.
    pub(super) scope: Scope<'scope, 'env>,
    /// Who failed.
    pub(super) failures: Rc<Failures<E>>,
}

/// The right to wait for a thread of a [`TryScope`]; dropping it leaves the waiting to the scope.
pub struct TryJoinHandle<'scope, T> {
    /// That of the scope below; the result is none if the thread failed.
    handle: ScopedJoinHandle<'scope, Option<T>>,
}

impl<'scope, 'env, E: 'scope> TryScope<'scope, 'env, E> {
    /// Spawns a thread that may borrow for `'scope` and may fail; see [`try_scope`](super::try_scope).
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

    /// [`spawn`](Self::spawn) with a name or a stack size.
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
        let body = move || {
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
        };
        let handle = builder.spawn_scoped(&self.scope, body)?;
        Ok(TryJoinHandle { handle })
    }

    /// Kills every thread of the scope that has not ended. That is no failure.
    ///
    /// May switch: no.
    pub fn kill_all(&self) {
        self.scope.kill_all();
    }
}

impl<T> TryJoinHandle<'_, T> {
    /// Waits for the thread to end and returns its result.
    ///
    /// # Errors
    /// As [`JoinHandle::join`](super::JoinHandle::join). A thread that failed is said to be killed: what it failed with
    /// comes out of `try_scope`.
    ///
    /// # Panics
    /// As [`JoinHandle::join`](super::JoinHandle::join); and when the scope fails, the body unwinds from here.
    ///
    /// May switch: yes, unless the thread has ended.
    pub fn join(self) -> Result<T, JoinError> {
        self.handle.join()?.ok_or_else(JoinError::killed)
    }

    /// Its name, id and `unpark`.
    ///
    /// # Panics
    /// In the child of a fork.
    ///
    /// May switch: no.
    pub fn thread(&self) -> &Thread {
        self.handle.thread()
    }

    /// Whether the thread has ended.
    ///
    /// May switch: no.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_end(&self) -> EndArm<'_> {
        self.handle.select_end()
    }

    /// See [`JoinHandle::kill`](super::JoinHandle::kill). A thread that is killed has not failed.
    ///
    /// May switch: no.
    pub fn kill(&self) -> bool {
        self.handle.kill()
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
