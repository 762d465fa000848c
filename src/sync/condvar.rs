//! Waiting, with a lock let go, until somebody says that what the lock protects has changed.
//!
//! Between letting the lock go and standing in line nothing else runs, so a notification cannot fall into the gap. One
//! that reaches a waiter which is killed, times out by an outer `timeout`, or is killed while it waits for the lock again,
//! goes to the next in line.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

use super::line::{Line, Waited, refusal, refused};
use super::mutex::MutexGuard;
use crate::runtime::park::NEVER;
use crate::runtime::source::after;
use crate::switch::fiber::Reason;

/// Whether a [`Condvar`] wait ended because its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(
    /// See above.
    bool,
);

impl WaitTimeoutResult {
    /// Whether it did.
    ///
    /// May switch: no.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// std's `Condvar` for the green threads of one OS thread. First come, first notified.
///
/// ```
/// use std::rc::Rc;
/// use greenling::{spawn, sync::{Condvar, Mutex}};
///
/// let pair = Rc::new((Mutex::new(false), Condvar::new()));
/// let theirs = Rc::clone(&pair);
/// let setter = spawn(move || {
///     *theirs.0.lock().unwrap() = true;
///     theirs.1.notify_one();
/// });
/// let (lock, changed) = &*pair;
/// let ready = changed.wait_while(lock.lock().unwrap(), |ready| !*ready).unwrap();
/// assert!(*ready);
/// setter.join().unwrap();
/// ```
#[derive(Default)]
pub struct Condvar {
    /// Who waits.
    line: Line,
}

/// Passes a notification on if its receiver unwinds before it has the lock again.
struct PassOn<'a>(Option<&'a Condvar>);

impl Drop for PassOn<'_> {
    fn drop(&mut self) {
        if let Some(condvar) = self.0 {
            condvar.notify_one();
        }
    }
}

impl Condvar {
    /// Nobody waits.
    ///
    /// May switch: no.
    pub const fn new() -> Condvar {
        Condvar { line: Line::new() }
    }

    /// Unlocks, waits for a notification, and locks again. As std's it may return without one.
    ///
    /// A kill or an expired [`timeout`](crate::timeout) unwinds without the lock.
    ///
    /// # Errors
    /// With the guard, if a holder of the lock panicked.
    ///
    /// # Panics
    /// If the caller unwinds from a panic or kill, and so may not wait. Otherwise as [`Mutex::lock`](super::Mutex::lock).
    ///
    /// May switch: yes.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(guard, NEVER).0
    }

    /// [`wait`](Self::wait)s as long as `condition` says so.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`wait`](Self::wait), and with the panics of `condition`.
    ///
    /// May switch: yes, if `condition` is true at first.
    pub fn wait_while<'a, T, F>(&self, mut guard: MutexGuard<'a, T>, mut condition: F) -> LockResult<MutexGuard<'a, T>>
    where
        F: FnMut(&mut T) -> bool,
    {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        guard.into_result()
    }

    /// [`wait`](Self::wait), but no longer than `limit`; locking again may take longer.
    ///
    /// While the caller unwinds it does not wait: the time is over at once, and the lock was not let go.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`Mutex::lock`](super::Mutex::lock).
    ///
    /// May switch: yes.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (guard, result) = match refusal() {
            Some(_) => (guard.into_result(), WaitTimeoutResult(true)),
            None => self.wait_until(guard, after(limit)),
        };
        with(guard, result)
    }

    /// [`wait_timeout`](Self::wait_timeout)s as long as `condition` says so, but no longer than `limit` in all.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`wait_timeout`](Self::wait_timeout), and with the panics of `condition`.
    ///
    /// May switch: yes, if `condition` is true at first.
    pub fn wait_timeout_while<'a, T, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
        mut condition: F,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>
    where
        F: FnMut(&mut T) -> bool,
    {
        let deadline = after(limit);
        let mut over = false;
        loop {
            if !condition(&mut *guard) {
                return with(guard.into_result(), WaitTimeoutResult(false));
            }
            if over || refusal().is_some() {
                return with(guard.into_result(), WaitTimeoutResult(true));
            }
            let (again, result) = self.wait_until(guard, deadline);
            over = result.timed_out();
            guard = match again {
                Ok(guard) => guard,
                Err(poisoned) => return Err(PoisonError::new((poisoned.into_inner(), result))),
            };
        }
    }

    /// Wakes who waits longest. Nothing is remembered if nobody waits.
    ///
    /// May switch: no.
    pub fn notify_one(&self) {
        self.line.choose();
    }

    /// Wakes all who wait now.
    ///
    /// May switch: no.
    pub fn notify_all(&self) {
        self.line.choose_all();
    }

    /// The wait itself.
    fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: u64,
    ) -> (LockResult<MutexGuard<'a, T>>, WaitTimeoutResult) {
        let lock = guard.lock();
        drop(guard);
        let waited = self.line.wait(Reason::Event("a Condvar to be notified"), deadline, |chosen| {
            if chosen {
                self.notify_one();
            }
        });
        let timed_out = match waited {
            Waited::Chosen => false,
            Waited::TimedOut => true,
            Waited::Refused(refusal) => refused(&refusal, "a Condvar to be notified"),
        };
        let mut pass_on = PassOn((!timed_out).then_some(self));
        let guard = lock.lock();
        pass_on.0 = None;
        (guard, WaitTimeoutResult(timed_out))
    }
}

/// Puts `result` next to the guard.
fn with<T>(guard: LockResult<T>, result: WaitTimeoutResult) -> LockResult<(T, WaitTimeoutResult)> {
    match guard {
        Ok(guard) => Ok((guard, result)),
        Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), result))),
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
