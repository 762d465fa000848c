//! A condition variable: waiting without a lock until another thread says that what the lock protects has changed.
//!
//! No other thread runs between the unlock and the wait, so no notification falls into the gap. If the notified waiter
//! is killed, times out by an outer `timeout`, or is killed while it waits for the lock again, the notification goes to
//! the next waiter.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

use super::mutex::MutexGuard;
use super::wait_queue::{WaitQueue, Waited, refusal, refused};
use crate::switch::fiber::Reason;
use crate::switch::reason::NOTIFICATION;
use crate::switch::root::Root;
use crate::sys::clock::{NEVER, after};

/// The result of a [`Condvar`] wait with a time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(
    /// Set if the time was over.
    bool,
);

impl WaitTimeoutResult {
    /// Returns a result, for the condvar between hubs.
    pub(crate) fn new(timed_out: bool) -> WaitTimeoutResult {
        WaitTimeoutResult(timed_out)
    }

    /// Reports whether the wait ended because its time was over.
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
    /// The threads that wait for a notification.
    queue: WaitQueue,
}

/// Passes a notification on if its receiver unwinds before that thread has the lock again.
struct NotificationGuard<'a>(Option<&'a Condvar>);

impl Drop for NotificationGuard<'_> {
    fn drop(&mut self) {
        if let Some(condvar) = self.0 {
            condvar.notify_one();
        }
    }
}

impl Condvar {
    /// Creates a condition variable without waiters.
    ///
    /// May switch: no.
    pub const fn new() -> Condvar {
        Condvar { queue: WaitQueue::new() }
    }

    /// Unlocks, waits for a notification, and locks again. The call may return without a notification, as std's.
    ///
    /// A kill or an expired [`timeout`](crate::timeout) unwinds without the lock.
    ///
    /// # Errors
    /// With the guard, if a holder of the lock panicked.
    ///
    /// # Panics
    /// If the caller unwinds from a panic or kill, and so may not wait. Otherwise as
    /// [`Mutex::lock`](super::Mutex::lock).
    ///
    /// May switch: yes.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(guard, NEVER).0
    }

    /// [`wait`](Self::wait)s as long as `condition` returns true.
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
    /// A caller that unwinds does not wait: the time is over at once, and the lock is not released.
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

    /// [`wait_timeout`](Self::wait_timeout)s as long as `condition` returns true, but no longer than `limit` in all.
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
            // The condition decides, also when the time is over.
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

    /// Wakes the thread that waits longest. If none waits, the notification is lost.
    ///
    /// May switch: no.
    pub fn notify_one(&self) {
        self.queue.choose();
    }

    /// Wakes all threads that wait now.
    ///
    /// May switch: no.
    pub fn notify_all(&self) {
        self.queue.choose_all();
    }

    /// Unlocks, waits until `deadline`, and locks again.
    fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: u64,
    ) -> (LockResult<MutexGuard<'a, T>>, WaitTimeoutResult) {
        let lock = guard.lock();
        drop(guard);
        // The guard's unlock does not switch, so no notification is missed before the wait begins.
        // In a simulation, a wake-up without a notification is one that was made on purpose, and is not hidden.
        let waited = self.queue.wait_or_wake(Reason::Event(NOTIFICATION), deadline, Root::is_simulated, |chosen| {
            // The caller was notified and unwinds: the notification goes to the next waiter.
            if chosen {
                self.notify_one();
            }
        });
        let is_notified = waited.is_chosen();
        let timed_out = match waited {
            Waited::Chosen | Waited::Woken => false,
            Waited::TimedOut => true,
            Waited::Refused(refusal) => refused(&refusal, NOTIFICATION),
        };
        // The lock may have to be waited for, too. A caller that unwinds from that wait passes its notification on.
        let mut notification = NotificationGuard(is_notified.then_some(self));
        let guard = lock.lock();
        notification.0 = None;
        (guard, WaitTimeoutResult(timed_out))
    }
}

/// Adds `result` to the guard.
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
