//! Limits on waiting: [`timeout`], [`timeout_at`], [`remaining`], [`shield`], [`no_switch`].
//!
//! A `timeout` scope stores a deadline in the running thread's control block, and nothing else: each wait inside the
//! scope ends at that deadline at the latest, and then unwinds with the scope's identity, so that only the scope's own
//! `timeout` call catches the unwinding. Scopes nest without a list: each remembers the deadline that it replaced, and
//! puts that deadline back.
//!
//! ```text
//!   timeout(5 s) {            earliest = 5 s (scope 1)
//!       timeout(1 s) {        earliest = 1 s (scope 2)      the wait ends after 1 s and unwinds with "scope 2"
//!       }  <- caught here     earliest = 5 s (scope 1)      the outer scope went on counting
//!   }
//! ```
#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::runtime::hub::hub;
use crate::switch::cancel::{self, ScopeExpired};
use crate::switch::fiber::{Fiber, ScopeDeadline};
use crate::switch::pending;
use crate::switch::root::try_root;
use crate::sys::clock::{NEVER, after, monotonic_ns, monotonic_of};

/// Why [`timeout`] has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutError {
    /// The time was over before the closure ended.
    Elapsed,
    /// The program was built with `panic = "abort"`, so the closure could not be interrupted and was not run.
    CannotUnwind,
    /// The OS thread is ending, this is the child of a fork, or there are no descriptors for a hub: nothing can be
    /// interrupted, and the closure was not run.
    NoHub,
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeoutError::Elapsed => "the time limit was reached",
            TimeoutError::CannotUnwind => "timeouts need panic = \"unwind\"",
            TimeoutError::NoHub => {
                "timeouts need a hub: this OS thread is ending, the process was forked, or has no descriptors"
            }
        })
    }
}

impl std::error::Error for TimeoutError {}

impl From<TimeoutError> for std::io::Error {
    fn from(error: TimeoutError) -> Self {
        let kind = match error {
            TimeoutError::Elapsed => std::io::ErrorKind::TimedOut,
            TimeoutError::CannotUnwind => std::io::ErrorKind::Unsupported,
            TimeoutError::NoHub => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

/// Runs `f` for at most `limit`: blocking calls of `f` are interrupted when the time is over.
///
/// ```
/// use std::time::Duration;
/// use greenling::{TimeoutError, sleep, timeout};
///
/// let slow = timeout(Duration::from_millis(5), || sleep(Duration::from_secs(60)));
/// assert_eq!(slow, Err(TimeoutError::Elapsed));
/// assert_eq!(timeout(Duration::from_secs(60), || 7), Ok(7));
/// ```
///
/// * The blocking call in progress unwinds up to here, without a message; destructors run as for a panic.
/// * Code that never blocks is not interrupted, and a result that is ready is returned however late. A greenlet that is
///   switched back to at once did not wait either.
/// * Only the calling thread is interrupted, not those that it spawned: put their handles or a scope inside.
/// * Timeouts nest: the earliest fires first, each is caught only by its own call, an outer one keeps counting. Of two
///   that end at the same moment, the outer one fires: `timeout(d, || timeout(d, ..))` and `timeout_at` with one
///   `Instant` in another give `Err` outside, always. So does a wait with a time limit of its own that ends with the
///   scope's.
/// * If code inside swallows the unwinding with `catch_unwind`, the next blocking call unwinds again.
/// * IO that is ready in the same turn in which the time is over wins.
///
/// # Errors
/// [`TimeoutError::Elapsed`]; under `panic = "abort"` [`TimeoutError::CannotUnwind`]; when the OS thread is ending, in
/// the child of a fork, and when the kernel has no descriptors for a hub [`TimeoutError::NoHub`]. With the latter two,
/// `f` was not run.
///
/// # Panics
/// With the panics of `f`.
///
/// May switch: if `f` does.
#[doc(alias("Timeout", "with_timeout"))]
pub fn timeout<T>(limit: Duration, f: impl FnOnce() -> T) -> Result<T, TimeoutError> {
    until(|| after(limit), f)
}

/// Runs `f` until `deadline`, as [`timeout`]: blocking calls of `f` are interrupted at that point in time.
///
/// ```
/// use greenling::{TimeoutError, remaining, sleep, timeout_at};
/// use std::time::{Duration, Instant};
///
/// let deadline = Instant::now() + Duration::from_millis(20); // one for all that follows
/// assert_eq!(timeout_at(deadline, || remaining().unwrap() <= Duration::from_millis(20)), Ok(true));
/// assert_eq!(timeout_at(deadline, || sleep(Duration::from_secs(60))), Err(TimeoutError::Elapsed));
/// assert_eq!(timeout_at(deadline, || sleep(Duration::ZERO)), Err(TimeoutError::Elapsed)); // the deadline has passed
/// ```
///
/// A deadline that has passed interrupts the first blocking call. One `Instant` means one moment however often it is
/// given, so of two nested calls with the same `Instant` the outer one fires.
///
/// # Errors
/// As [`timeout`].
///
/// # Panics
/// With the panics of `f`.
///
/// May switch: if `f` does.
pub fn timeout_at<T>(deadline: Instant, f: impl FnOnce() -> T) -> Result<T, TimeoutError> {
    until(|| monotonic_of(deadline).min(NEVER - 1), f)
}

/// Returns how much time is left until the nearest deadline of the enclosing [`timeout`]s and [`timeout_at`]s of the
/// calling thread: zero if that deadline has passed, `None` if there is no deadline.
///
/// Inside a [`shield`] the deadlines outside of the shield do not count, since they wait for its end. Threads do not
/// inherit deadlines: pass the answer on to the threads that you spawn.
///
/// ```
/// use greenling::{remaining, timeout};
/// use std::time::Duration;
///
/// assert_eq!(remaining(), None);
/// timeout(Duration::from_secs(60), || {
///     timeout(Duration::from_secs(3600), || assert!(remaining().unwrap() <= Duration::from_secs(60)))
/// }).unwrap().unwrap();
/// ```
///
/// May switch: no.
pub fn remaining() -> Option<Duration> {
    let at = try_root()?.current().scope_deadline.get().at;
    (at != NEVER).then(|| Duration::from_nanos(at.saturating_sub(monotonic_ns())))
}

/// Runs `f` as [`timeout`], until the monotonic nanosecond that `at` returns. `at` is called only if `f` runs.
#[inline]
fn until<T>(at: impl FnOnce() -> u64, f: impl FnOnce() -> T) -> Result<T, TimeoutError> {
    if cfg!(panic = "abort") {
        return Err(TimeoutError::CannotUnwind);
    }
    let Ok((root, _)) = hub() else { return Err(TimeoutError::NoHub) };
    // Open the scope. An outer scope that ends earlier, or at the same moment, stays in force.
    let me = root.current();
    let outer = me.scope_deadline.get();
    let scope = root.fresh_number();
    let at = at();
    if at < outer.at {
        set_scope(me, ScopeDeadline { at, scope });
    }
    let result = catch_unwind(AssertUnwindSafe(f));
    // Close the scope, and catch what it raised; pass on what any other scope, a kill or the program raised.
    set_scope(me, outer);
    match result {
        Ok(value) => Ok(value),
        Err(payload) => match payload.downcast::<ScopeExpired>() {
            Ok(expired) if expired.0 == scope => {
                cancel::clear_unwinding(me);
                Err(TimeoutError::Elapsed)
            }
            Ok(expired) => cancel::raise(Some(me), expired),
            Err(payload) => cancel::raise(Some(me), payload),
        },
    }
}

/// Makes `deadline` the earliest of the open scopes.
fn set_scope(me: Fiber, deadline: ScopeDeadline) {
    me.scope_deadline.set(deadline);
    if deadline == ScopeDeadline::NONE {
        me.pending.clear(pending::DEADLINE)
    } else {
        me.pending.raise(pending::DEADLINE)
    }
}

/// Runs `f` without interruption: a kill, and the timeouts that were open before, wait until `f` is done.
///
/// The first blocking call after `f` raises them, not `shield` itself. Timeouts opened inside `f` work. Use a shield
/// around calls that must not be unwound, such as foreign functions that call back.
///
/// # Panics
/// With the panics of `f`.
///
/// May switch: if `f` does.
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    // Nothing interrupts while the OS thread is ending.
    let Some(root) = try_root() else { return f() };
    let me = root.current();
    let outer = me.scope_deadline.get();
    me.shields.set(me.shields.get() + 1);
    me.pending.clear(pending::KILL);
    set_scope(me, ScopeDeadline::NONE);
    let _shield = Shield { me, outer };
    f()
}

/// Takes a shield down, also when the closure panicked.
struct Shield {
    /// The fiber that is shielded.
    me: Fiber,
    /// The scope that was open outside the shield.
    outer: ScopeDeadline,
}

impl Drop for Shield {
    fn drop(&mut self) {
        // Teardown takes all shields down at once; then there is nothing left to count.
        let shields = self.me.shields.get().saturating_sub(1);
        self.me.shields.set(shields);
        set_scope(self.me, self.outer);
        if shields == 0 && (self.me.killed.get() || self.me.cancelled.get() > 0) {
            self.me.pending.raise(pending::KILL);
        }
    }
}

/// Runs `f` and panics if anything inside would have to wait and so let other green threads run.
///
/// For code that keeps a thread-local in an order of its own (scoped thread-locals, interpreter locks): two green
/// threads that interleave inside such a section would leave a dangling pointer in the thread-local. Calls that
/// complete without waiting work. A [`thread::scope`](crate::thread::scope) inside that has threads left panics at its
/// end, and these threads never run; so does [`hub::shutdown`](crate::hub::shutdown), whatever there is to unwind.
///
/// ```should_panic
/// greenling::no_switch(|| greenling::yield_now());
/// ```
///
/// # Panics
/// See above; and with the panics of `f`.
///
/// May switch: no.
pub fn no_switch<T>(f: impl FnOnce() -> T) -> T {
    // Nothing switches while the OS thread is ending.
    let Some(root) = try_root() else { return f() };
    let me = root.current();
    me.no_switch.set(me.no_switch.get() + 1);
    me.pending.raise(pending::NO_SWITCH);
    let _section = Section(me);
    f()
}

/// Ends a `no_switch` section, also when the closure panicked.
struct Section(Fiber);

impl Drop for Section {
    fn drop(&mut self) {
        let open = self.0.no_switch.get() - 1;
        self.0.no_switch.set(open);
        if open == 0 {
            self.0.pending.clear(pending::NO_SWITCH);
        }
    }
}
