//! Limits on waiting: [`timeout`], [`timeout_at`], [`remaining`], [`shield`], [`no_switch`].
//!
//! A `timeout` scope stores a deadline in the running thread's control block, and nothing else: each wait inside it
//! ends at that deadline at the latest, and then unwinds with the scope's identity, so that only its own `timeout`
//! call catches it. Scopes nest without a list: each remembers what it replaced, and puts it back.
//!
//! ```text
//!   timeout(5 s) {            earliest = 5 s (scope 1)
//!       timeout(1 s) {        earliest = 1 s (scope 2)      the wait ends after 1 s and unwinds with "scope 2"
//!       }  <- caught here     earliest = 5 s (scope 1)      the outer one went on counting
//!   }
//! ```
#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::runtime::hub::hub;
use crate::runtime::park::NEVER;
use crate::runtime::source::after;
use crate::switch::cancel::{self, ScopeExpired};
use crate::switch::fiber::{Fiber, ScopeDeadline, attention};
use crate::switch::root::try_root;
use crate::sys::clock::monotonic_ns;

/// Why [`timeout`] has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutError {
    /// The time was over before the closure was.
    Elapsed,
    /// The program was built with `panic = "abort"`, so the closure could not be interrupted; it was not run.
    CannotUnwind,
    /// The OS thread is ending, or this is the child of a fork: nothing can be interrupted; the closure was not run.
    NoHub,
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeoutError::Elapsed => "the time limit was reached",
            TimeoutError::CannotUnwind => "timeouts need panic = \"unwind\"",
            TimeoutError::NoHub => "timeouts need a hub: this OS thread is ending, or the process was forked",
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

/// Runs `f` for at most `limit`: its blocking calls are interrupted when the time is over.
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
/// * Code that never blocks is not interrupted, and a result that is ready is returned however late it is. A greenlet
///   that is switched back to at once did not wait either.
/// * Only the calling thread is interrupted, not those that it spawned: put their handles or a scope inside.
/// * Timeouts nest: the earliest fires first, each is caught only by its own call, the outer one keeps counting.
/// * If code inside swallows the unwinding with `catch_unwind`, its next blocking call raises it again.
/// * IO that is ready in the same turn in which the time is over wins.
///
/// # Errors
/// [`TimeoutError::Elapsed`]; under `panic = "abort"` [`TimeoutError::CannotUnwind`], when the OS thread is ending and in
/// the child of a fork [`TimeoutError::NoHub`], and `f` is not run.
///
/// # Panics
/// With the panics of `f`.
///
/// May switch: if `f` does.
pub fn timeout<T>(limit: Duration, f: impl FnOnce() -> T) -> Result<T, TimeoutError> {
    until(|| after(limit), f)
}

/// [`timeout`] with a point in time for its end: `f`'s blocking calls are interrupted at `deadline`.
///
/// ```
/// use greenling::{TimeoutError, remaining, sleep, timeout_at};
/// use std::time::{Duration, Instant};
///
/// let deadline = Instant::now() + Duration::from_millis(20); // one for all that follows
/// assert_eq!(timeout_at(deadline, || remaining().unwrap() <= Duration::from_millis(20)), Ok(true));
/// assert_eq!(timeout_at(deadline, || sleep(Duration::from_secs(60))), Err(TimeoutError::Elapsed));
/// assert_eq!(timeout_at(deadline, || sleep(Duration::ZERO)), Err(TimeoutError::Elapsed)); // it has passed
/// ```
///
/// A deadline that has passed interrupts the first blocking call.
///
/// # Errors
/// As [`timeout`].
///
/// # Panics
/// With the panics of `f`.
///
/// May switch: if `f` does.
pub fn timeout_at<T>(deadline: Instant, f: impl FnOnce() -> T) -> Result<T, TimeoutError> {
    until(|| after(deadline.saturating_duration_since(Instant::now())), f)
}

/// How much time is left until the nearest deadline of the enclosing [`timeout`]s and [`timeout_at`]s of the calling
/// thread; zero if it has passed, none if there is none.
///
/// Inside a [`shield`] those outside of it do not count, since they wait for its end. Threads do not inherit deadlines:
/// pass the answer on to what is spawned.
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

/// [`timeout`] until the monotonic nanosecond that `at` gives, which is asked when it is sure that `f` runs.
#[inline]
fn until<T>(at: impl FnOnce() -> u64, f: impl FnOnce() -> T) -> Result<T, TimeoutError> {
    if cfg!(panic = "abort") {
        return Err(TimeoutError::CannotUnwind);
    }
    let Ok((root, _)) = hub() else { return Err(TimeoutError::NoHub) };
    let me = root.current();
    let outer = me.scope_deadline.get();
    let scope = root.fresh_id();
    let at = at();
    if at < outer.at {
        set_scope(me, ScopeDeadline { at, scope });
    }
    let result = catch_unwind(AssertUnwindSafe(f));
    set_scope(me, outer);
    match result {
        Ok(value) => Ok(value),
        Err(payload) => match payload.downcast::<ScopeExpired>() {
            Ok(expired) if expired.0 == scope => {
                cancel::calm(me);
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
    let bits = me.attention.get() & !attention::DEADLINE;
    me.attention.set(if deadline == ScopeDeadline::NONE { bits } else { bits | attention::DEADLINE });
}

/// Runs `f` without interruption: a kill, and the timeouts that were open before, wait until it is done.
///
/// They are raised by the first blocking call after `f`, not by `shield` itself. Timeouts opened inside `f` work.
/// Use it around calls that must not be unwound, such as foreign functions that call back.
///
/// # Panics
/// With the panics of `f`.
///
/// May switch: if `f` does.
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    // When the OS thread is ending nothing interrupts.
    let Some(root) = try_root() else { return f() };
    let me = root.current();
    let outer = me.scope_deadline.get();
    me.shields.set(me.shields.get() + 1);
    me.attention.set(me.attention.get() & !attention::KILL);
    set_scope(me, ScopeDeadline::NONE);
    let _shield = Shield { me, outer };
    f()
}

/// Takes a shield down, also when its closure panicked.
struct Shield {
    /// Whose it is.
    me: Fiber,
    /// The scope that was open before.
    outer: ScopeDeadline,
}

impl Drop for Shield {
    fn drop(&mut self) {
        // Teardown takes all shields down at once; then there is nothing left to count.
        let shields = self.me.shields.get().saturating_sub(1);
        self.me.shields.set(shields);
        set_scope(self.me, self.outer);
        if shields == 0 && (self.me.killed.get() || self.me.cancelled.get() > 0) {
            self.me.attention.set(self.me.attention.get() | attention::KILL);
        }
    }
}

/// Runs `f` and panics if anything inside would have to wait and so let other green threads run.
///
/// For code that keeps a thread-local in an order of its own (scoped thread-locals, interpreter locks): two green
/// threads that interleave inside such a section would leave a dangling pointer in it. Calls that complete without
/// waiting work; a [`thread::scope`](crate::thread::scope) that must wait for its threads does so.
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
    // When the OS thread is ending nothing switches.
    let Some(root) = try_root() else { return f() };
    let me = root.current();
    me.no_switch.set(me.no_switch.get() + 1);
    me.attention.set(me.attention.get() | attention::NO_SWITCH);
    let _section = Section(me);
    f()
}

/// Ends a `no_switch` section, also when its closure panicked.
struct Section(Fiber);

impl Drop for Section {
    fn drop(&mut self) {
        let open = self.0.no_switch.get() - 1;
        self.0.no_switch.set(open);
        if open == 0 {
            self.0.attention.set(self.0.attention.get() & !attention::NO_SWITCH);
        }
    }
}
