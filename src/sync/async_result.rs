//! A result that will be there later.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::convert::Infallible;
use std::time::Duration;

use super::line::Line;
use crate::runtime::source::after;
use crate::switch::fiber::Reason;

/// A value or an error that is set once and that any number of green threads of one OS thread wait for.
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
    /// The result, once it is there.
    result: OnceCell<Result<T, E>>,
    /// Who waits.
    line: Line,
}

impl<T, E> AsyncResult<T, E> {
    /// One whose result is not there yet.
    ///
    /// May switch: no.
    pub const fn new() -> AsyncResult<T, E> {
        AsyncResult { result: OnceCell::new(), line: Line::new() }
    }

    /// Sets the value and wakes all who wait, in the order in which they came.
    ///
    /// # Errors
    /// With `value`, if a result is there already; that one stays.
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
    /// With `error`, if a result is there already; that one stays.
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
    /// With `result`, if there is one already; that one stays.
    ///
    /// May switch: no.
    pub fn set_result(&self, result: Result<T, E>) -> Result<(), Result<T, E>> {
        self.result.set(result)?;
        self.line.choose_all();
        Ok(())
    }

    /// Whether the result is there.
    ///
    /// May switch: no.
    pub fn is_set(&self) -> bool {
        self.result.get().is_some()
    }

    /// The result if it is there.
    ///
    /// May switch: no.
    pub fn try_wait(&self) -> Option<Result<&T, &E>> {
        self.result.get().map(Result::as_ref)
    }

    /// Waits for the result and returns a reference to it.
    ///
    /// # Errors
    /// With the error that was set.
    ///
    /// # Panics
    /// If it would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if the result is not there.
    pub fn wait(&self) -> Result<&T, &E> {
        loop {
            if let Some(result) = self.try_wait() {
                return result;
            }
            self.line.wait_or_panic(Reason::Event("an AsyncResult"), || "an AsyncResult", |_| {});
        }
    }

    /// [`wait`](Self::wait), but no longer than `limit`; none if it was not there in time. While the caller unwinds it
    /// does not wait at all.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if the result is not there.
    pub fn wait_timeout(&self, limit: Duration) -> Option<Result<&T, &E>> {
        if !self.is_set() {
            self.line.wait(Reason::Event("an AsyncResult"), after(limit), |_| {});
        }
        self.try_wait()
    }

    /// [`wait`](Self::wait)s and clones the result.
    ///
    /// # Errors
    /// With the error that was set.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    ///
    /// May switch: yes, if the result is not there.
    pub fn get(&self) -> Result<T, E>
    where
        T: Clone,
        E: Clone,
    {
        self.wait().cloned().map_err(E::clone)
    }

    /// The result, if it is there.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> Option<Result<T, E>> {
        self.result.into_inner()
    }
}

impl<T, E> Default for AsyncResult<T, E> {
    fn default() -> Self {
        AsyncResult::new()
    }
}
