//! A condition variable between threads of any hub: waiting without a lock until another thread says that what the lock
//! protects has changed.
//!
//! A waiter takes its place in the queue before it unlocks, so no notification falls into the gap. If the notified
//! waiter is killed, times out by an outer `timeout`, or is killed while it waits for the lock again, the notification
//! goes to the next waiter.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

use super::mutex::MutexGuard;
use super::raw::{Grant, RawLock, Request, Waited, refused};
use crate::switch::cancel;
use crate::switch::fiber::Reason;
use crate::switch::root::existing_root;
use crate::sync::WaitTimeoutResult;
use crate::sys::clock::{NEVER, after};

/// The name of a wait, in reports and panics.
const NOTIFICATION: &str = "a shared Condvar to be notified";

/// std's `Condvar` for green threads of any hub and for plain OS threads. First come, first notified.
///
/// ```
/// use greenling::hub::sync::{Condvar, Mutex};
///
/// static READY: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
///
/// let setter = std::thread::spawn(|| {
///     *READY.0.lock().unwrap() = true;
///     READY.1.notify_one();
/// });
/// let ready = READY.1.wait_while(READY.0.lock().unwrap(), |ready| !*ready).unwrap();
/// assert!(*ready);
/// setter.join().unwrap();
/// ```
pub struct Condvar {
    /// The queue of waiters.
    raw: RawLock,
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

/// Reports whether the caller, a thread of a hub, unwinds and so cannot wait. An OS thread without a hub can.
fn may_not_wait() -> bool {
    cancel::obstacle().is_some() && existing_root().is_some_and(|root| root.has_scheduler())
}

impl Condvar {
    /// Creates a condition variable without waiters.
    ///
    /// May switch: no.
    pub const fn new() -> Condvar {
        Condvar { raw: RawLock::new(Grant::Notification, 0) }
    }

    /// Unlocks, waits for a notification, and locks again. The call may return without a notification, as std's.
    ///
    /// A kill or an expired [`timeout`](crate::timeout) unwinds without the lock.
    ///
    /// # Errors
    /// With the guard, if a holder of the lock panicked.
    ///
    /// # Panics
    /// If the caller, a thread of a hub, unwinds from a panic or kill, and so may not wait. Otherwise as
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
    /// A caller that is a thread of a hub and unwinds does not wait: the time is over at once, and the lock is not
    /// released.
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
        if may_not_wait() {
            return with(guard.into_result(), true);
        }
        let (guard, timed_out) = self.wait_until(guard, after(limit));
        with(guard, timed_out)
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
                return with(guard.into_result(), false);
            }
            if over || may_not_wait() {
                return with(guard.into_result(), true);
            }
            let again;
            (again, over) = self.wait_until(guard, deadline);
            guard = match again {
                Ok(guard) => guard,
                poisoned => return with(poisoned, over),
            };
        }
    }

    /// Wakes the thread that waits longest. If none waits, the notification is lost.
    ///
    /// May switch: no.
    pub fn notify_one(&self) {
        self.notify(false);
    }

    /// Wakes all threads that wait now.
    ///
    /// May switch: no.
    pub fn notify_all(&self) {
        self.notify(true);
    }

    /// Wakes one waiter or all. A waiter takes its place before it unlocks, so a caller that has locked since sees the
    /// waiter.
    #[inline]
    fn notify(&self, all: bool) {
        if let Some(core) = self.raw.existing()
            && core.turns.has_waiters()
        {
            core.notify(all);
        }
    }

    /// Unlocks, waits until `deadline`, and locks again. Returns true if the time was over.
    fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, deadline: u64) -> (LockResult<MutexGuard<'a, T>>, bool) {
        let lock = guard.lock();
        let request = Request { wants: 0, reason: Reason::Remote(NOTIFICATION), deadline };
        let mut guard = Some(guard);
        // The lock is released once the caller stands in the queue, and not at all if the caller may not wait.
        let waited = self.raw.core().wait(request, || true, || drop(guard.take()));
        let timed_out = match waited {
            Waited::Chosen => false,
            Waited::TimedOut => true,
            Waited::Refused(refusal) => refused(&refusal, &NOTIFICATION),
        };
        // The lock may have to be waited for, too. A caller that unwinds from that wait passes its notification on.
        let mut notification = NotificationGuard((!timed_out).then_some(self));
        let guard = lock.lock();
        notification.0 = None;
        (guard, timed_out)
    }
}

/// Adds the result to the guard.
fn with<T>(guard: LockResult<T>, timed_out: bool) -> LockResult<(T, WaitTimeoutResult)> {
    let result = WaitTimeoutResult::new(timed_out);
    match guard {
        Ok(guard) => Ok((guard, result)),
        Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), result))),
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
