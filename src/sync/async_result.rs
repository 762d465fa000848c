//! A result that is set once, later.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::convert::Infallible;
use std::time::Duration;

use super::wait_queue::WaitQueue;
use crate::runtime::checkpoint::checkpoint;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::select_source::SelectWait;
use crate::switch::fiber::Reason;
use crate::switch::wait_list::WaitList;
use crate::sys::clock::after;

/// A value or an error that is set once, and that any number of green threads of one OS thread wait for.
///
/// ```
/// use std::rc::Rc;
/// use greenling::{spawn, sync::AsyncResult};
///
/// let answer = Rc::new(AsyncResult::<u32, String>::new());
/// let theirs = Rc::clone(&answer);
/// drop(spawn(move || theirs.set(42)));
/// assert_eq!(answer.get(), Ok(42));
/// assert_eq!(answer.set(43), Err(43)); // too late
/// ```
#[derive(Debug)]
pub struct AsyncResult<T, E = Infallible> {
    /// The result, once it is set.
    result: OnceCell<Result<T, E>>,
    /// The threads that wait for the result.
    queue: WaitQueue,
}

impl<T, E> AsyncResult<T, E> {
    /// Creates a result that is not set.
    ///
    /// May switch: no.
    pub const fn new() -> AsyncResult<T, E> {
        AsyncResult { result: OnceCell::new(), queue: WaitQueue::new() }
    }

    /// Sets the value and wakes all waiters, in the order in which they came.
    ///
    /// # Errors
    /// With `value`, if a result is set already; that one stays.
    ///
    /// May switch: no.
    pub fn set(&self, value: T) -> Result<(), T> {
        match self.set_result(Ok(value)) {
            Err(Ok(value)) => Err(value),
            _ => Ok(()),
        }
    }

    /// Sets an error instead of a value.
    ///
    /// # Errors
    /// With `error`, if a result is set already; that one stays.
    ///
    /// May switch: no.
    pub fn set_error(&self, error: E) -> Result<(), E> {
        match self.set_result(Err(error)) {
            Err(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets a value or an error.
    ///
    /// # Errors
    /// With `result`, if one is set already; that one stays.
    ///
    /// May switch: no.
    pub fn set_result(&self, result: Result<T, E>) -> Result<(), Result<T, E>> {
        self.result.set(result)?;
        // The result is set before the waiters run, which look at it.
        self.queue.choose_all();
        Ok(())
    }

    /// Reports whether the result is set.
    ///
    /// May switch: if the result is not set, and the caller's share of the CPU is used up (see
    /// [`thread`](crate::thread)).
    pub fn is_set(&self) -> bool {
        self.try_wait().is_some()
    }

    /// Returns the result if there is one.
    ///
    /// May switch: if the result is not set, and the caller's share of the CPU is used up (see
    /// [`thread`](crate::thread)).
    pub fn try_wait(&self) -> Option<Result<&T, &E>> {
        // A loop that asks until the result is set must let the setter run.
        if self.peek().is_none() {
            checkpoint();
        }
        self.peek()
    }

    /// [`try_wait`](Self::try_wait) without letting other threads run first.
    fn peek(&self) -> Option<Result<&T, &E>> {
        self.result.get().map(Result::as_ref)
    }

    /// Waits for the result and returns a reference to it.
    ///
    /// # Errors
    /// With the error that was set.
    ///
    /// # Panics
    /// If the call would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if the result is not set.
    pub fn wait(&self) -> Result<&T, &E> {
        loop {
            if let Some(result) = self.peek() {
                return result;
            }
            // The loop ends after one wait: a waiter is chosen only when the result is set.
            self.queue.wait_or_panic(Reason::Event("an AsyncResult"), || "an AsyncResult", |_| {});
        }
    }

    /// [`wait`](Self::wait)s, but no longer than `limit`; returns `None` if the result was not set in time. While the
    /// caller unwinds, the call does not wait at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if the result is not set.
    pub fn wait_timeout(&self, limit: Duration) -> Option<Result<&T, &E>> {
        // However the wait ended, what counts is whether the result is set.
        if self.peek().is_none() {
            self.queue.wait(Reason::Event("an AsyncResult"), after(limit), |_| {});
        }
        self.peek()
    }

    /// [`wait`](Self::wait)s and clones the result.
    ///
    /// # Errors
    /// With the error that was set.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    ///
    /// May switch: yes, if the result is not set.
    pub fn get(&self) -> Result<T, E>
    where
        T: Clone,
        E: Clone,
    {
        self.wait().cloned().map_err(E::clone)
    }

    /// Returns the result if there is one.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> Option<Result<T, E>> {
        self.result.into_inner()
    }
}

impl<T, E> SelectWait for AsyncResult<T, E> {
    type Arm<'s>
        = ResultArm<'s, T, E>
    where
        Self: 's;

    fn select_wait(&self) -> ResultArm<'_, T, E> {
        ResultArm { result: self }
    }
}

impl<T, E> Default for AsyncResult<T, E> {
    fn default() -> Self {
        AsyncResult::new()
    }
}

/// The arm of a `select!` that waits for an [`AsyncResult`].
#[derive(Debug)]
pub struct ResultArm<'a, T, E> {
    result: &'a AsyncResult<T, E>,
}

impl<'a, T, E> SelectArm for ResultArm<'a, T, E> {
    type Output = Result<&'a T, &'a E>;

    fn finish(self) -> Result<&'a T, &'a E> {
        match self.result.peek() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked, and a result stays"),
        }
    }
}

impl<T, E> Arm for ResultArm<'_, T, E> {
    fn try_select(&self) -> bool {
        self.result.peek().is_some()
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        Ok(Some(self.result.queue.list()))
    }

    fn accept(&self) {}

    fn unregister(&self, _: ArmEnd) {}
}
