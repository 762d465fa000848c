//! The waits of green threads for locks that are not this crate's: by address, in one table for the process.
//!
//! ```text
//!   a green thread, on any hub                 any thread: green, of an OS thread without a hub
//!   futex.rs: FUTEX_WAIT                       futex.rs: FUTEX_WAKE
//!      | may_wait? no --> the kernel              | wake: first those in the table,
//!   wait: enters the table, parks                 v then those in the kernel
//!      '-- the hub runs others, or sleeps      TABLE (pure/wait_table.rs) --> Waiter::wake --> the waiter's hub
//! ```
//!
//! What waits in the hub: green threads with thread-locals of their own, and the main of a hub. Not the green threads
//! that share either's thread-locals, with which the locks of `std` take themselves to be alone. Their waits block the
//! OS thread, and are reported (`futex.rs`). Where one table has to know all waiters (`condvar.rs`), OS threads are in
//! it, too.
//!
//! Such a wait ends by a wake-up or by its own time limit, and by nothing else. The code around is a lock's, of `std`
//! or C, which could not be unwound, and would take a refusal for a bug in itself. So a kill and the end of a
//! `timeout` scope stay due until the lock was had, and the next blocking call raises them. A hub that shuts down gives
//! such a thread up after a while, and leaks its stack; its place in the table goes when the hub ends (`close`), and a
//! wake-up that the thread got and could not use goes to the next waiter.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::gate::{Green, blocking, green, part};
use super::holder;
use crate::pure::lock;
use crate::pure::wait_table::{WaitTable, Waited, Wake};
use crate::runtime::foreign_waits::Hooks;
use crate::runtime::remote::Waiter;
use crate::switch::cancel::obstacle;
use crate::switch::fiber::{Fiber, Foreign, Reason};
use crate::switch::root::Root;
use crate::sys::clock::{NEVER, after};
use crate::sys::flag::{Flag, Raise, Until};
use crate::sys::fork;
use crate::sys::raw;
use crate::sys::runtime_syscall::runtime_syscall;

/// The number of lists in the table. 10 000 threads that are parked, each at an address of its own, are 5 to a list.
const SHARDS: usize = 2048;

/// All such waits of the process.
static TABLE: WaitTable<Parked, SHARDS> = WaitTable::new();

/// What the hub of a waiting thread calls.
const HOOKS: Hooks = Hooks { stuck, close };

/// A waiter in the table.
enum Parked {
    /// A fiber, which the hub of its OS thread resumes.
    Fiber(Waiter),
    /// An OS thread, which sleeps in the kernel.
    OsThread(Raise),
}

impl Wake for Parked {
    fn wake(self) {
        match self {
            Parked::Fiber(waiter) => waiter.wake(),
            Parked::OsThread(raise) => raise.call(),
        }
    }

    fn pause() {
        raw::sched_yield();
    }
}

/// The end of a wait, by one of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// In monotonic nanoseconds; [`NEVER`] for no end.
    Monotonic(u64),
    /// In nanoseconds since 1970. If the time of day is set back meanwhile, the wait is longer; if it is set forward,
    /// the wait ends at the moment that was right when it began.
    TimeOfDay(u64),
}

impl Deadline {
    /// A wait without a limit.
    pub(super) const NEVER: Deadline = Deadline::Monotonic(NEVER);

    /// Returns the end in monotonic nanoseconds, as the clocks are now.
    fn monotonic(self) -> u64 {
        match self {
            Deadline::Monotonic(at) => at,
            Deadline::TimeOfDay(at) => after(Duration::from_nanos(at.saturating_sub(raw::realtime_ns()))),
        }
    }

    /// Reports whether the end has come, once [`monotonic`](Self::monotonic) said so.
    fn is_over(self) -> bool {
        match self {
            Deadline::Monotonic(_) => true,
            Deadline::TimeOfDay(at) => raw::realtime_ns() >= at,
        }
    }
}

/// Makes the table ready for its first wait.
///
/// # Errors
/// Those of pthread_atfork(3).
pub(super) fn prepare() -> std::io::Result<()> {
    // The child of a fork has none of the waiters, and a lock of the table may be held there for ever.
    fork::in_children(|| TABLE.reset());
    fork::watch_forks()
}

/// Reports whether the running thread may wait in the hub for a foreign lock: whether the thread-locals, on which the
/// code of such locks relies, are its own, or its OS thread's, if it is main.
fn waits_green(root: &Root, me: Fiber) -> bool {
    root.main_of_block() == Some(me)
}

/// Returns the right to wait in the hub for a foreign lock, if the caller has it. None for the runtime's own locks, in
/// a signal handler, in a `no_switch` section, and while the caller unwinds.
#[inline]
pub(super) fn may_wait() -> Option<Green> {
    green(part::LOCKS).filter(|green| {
        let caller = green.caller();
        !lock::is_waiting() && obstacle().is_none() && waits_green(caller.root, caller.fiber)
    })
}

/// Waits in the hub for a wake-up of an address with one of some bits, if `validate` says under the lock of the table
/// that there is something to wait for. `begun` is called once the caller is in the table, and ends the wait if it
/// returns false. Nothing else but a wake-up and the deadline ends the wait.
pub(super) fn wait(
    green: Green,
    what: Foreign,
    (address, bits): (usize, u32),
    validate: impl FnOnce() -> bool,
    begun: impl FnOnce() -> bool,
    deadline: Deadline,
) -> Waited {
    let caller = green.caller();
    let reason = Reason::Foreign(what, address);
    let mut begun = Some(begun);
    let park = || {
        if begun.take().is_some_and(|begun| !begun()) {
            return false;
        }
        let ended = caller.park_uninterrupted(reason, deadline.monotonic());
        // A kill or another hub's late wake-up: the wait goes on.
        !(ended.timed_out && deadline.is_over())
    };
    let waited = blocking(|| {
        let _counted = caller.hub.foreign_waits().begin(HOOKS);
        TABLE.wait(address, bits, Parked::Fiber(Waiter::new(caller)), validate, park)
    });
    // Nothing here unwinds. If something did, the waiter would look at the word again.
    waited.unwrap_or(Waited::Woken)
}

/// Waits as [`wait`] does, and blocks the OS thread meanwhile. Allocates nothing.
pub(super) fn wait_on_os_thread(
    (address, bits): (usize, u32),
    validate: impl FnOnce() -> bool,
    begun: impl FnOnce() -> bool,
    deadline: Deadline,
) -> Waited {
    let flag = Flag::new();
    let until = match deadline {
        Deadline::NEVER => Until::Raised,
        Deadline::Monotonic(at) => Until::Monotonic(at),
        Deadline::TimeOfDay(at) => Until::TimeOfDay(at),
    };
    let mut begun = Some(begun);
    let sleep = || begun.take().is_none_or(|begun| begun()) && flag.sleep(until);
    let waited = TABLE.wait(address, bits, Parked::OsThread(flag.raise()), validate, sleep);
    if waited == Waited::Woken {
        // The waker may not have come to the flag yet, which is in this frame (flag-1).
        flag.join();
    }
    waited
}

/// Wakes the first `most` green threads that wait for `address` and listen to one of `bits`. Returns their number. The
/// caller has changed the word before, and wakes OS threads, if there is anything left of `most`.
#[inline]
pub(super) fn wake(address: usize, bits: u32, most: usize) -> usize {
    TABLE.wake(address, bits, most)
}

/// Wakes some of the green threads that wait for `from`, and makes others wait for `to`, as
/// [`WaitTable::requeue`] says.
pub(super) fn requeue(
    from: usize,
    to: usize,
    wake: usize,
    most: usize,
    validate: impl FnOnce() -> bool,
) -> Option<(usize, usize)> {
    TABLE.requeue(from, to, wake, most, validate)
}

/// Reports whether a green thread may wait for `address`. The caller has changed the word before.
#[inline]
pub(super) fn has_waiters(address: usize) -> bool {
    TABLE.has_waiters(address)
}

/// Reports whether a thread may wait at `address`, as [`has_waiters`] does, after the C library has released a lock
/// there, by an operation that is a full barrier where the processor's atomic operations are.
#[inline(always)]
pub(super) fn may_have_waiters(address: usize) -> bool {
    TABLE.has_waiters_after_release(address)
}

/// Takes the waits of a hub that ends out of the table.
fn close(root: &Root) {
    TABLE.abandon(|waiter| matches!(waiter, Parked::Fiber(waiter) if waiter.is_of(root.number())));
    // A thread that was woken and never ran again leaves its wake-up to the next waiter. One too many does no harm:
    // whatever waits for a futex looks again.
    let pass_on = |fiber: Fiber| {
        if let Reason::Foreign(Foreign::Futex, address) = fiber.waits_for()
            && wake(address, u32::MAX, 1) == 0
        {
            let _ = raw::futex_wake(address, u32::MAX, 1);
        }
    };
    root.for_each_fiber(pass_on);
}

/// Reports that all fibers of the hub wait in foreign locks. The program may hold any lock meanwhile, so this takes
/// none of `std`.
fn stuck(root: &Root) {
    let _mark = runtime_syscall();
    // A panic must not leave this function; the report is dropped then.
    if let Ok(Some(text)) = catch_unwind(AssertUnwindSafe(|| holder::stuck_report(root))) {
        raw::write_stderr(text.as_bytes());
    }
}
