//! What C's locks have in common: a try by the C library, and a wait in the hub between two tries.
//!
//! The state of a lock is the C library's, in the lock itself. This crate asks for it by `pthread_mutex_trylock` and
//! the like, which never wait. If the answer is no, the caller waits in the table of `wait.rs`, at the lock's address:
//!
//! ```text
//!   a green thread                              an OS thread, a light green thread
//!   try --- yes --> has it                      the C library's lock: sleeps in the kernel
//!    | no
//!   enter the table; try again under its lock   unlock, by either kind of thread:
//!    | no                                       1. the C library's: frees the lock, wakes one that sleeps in the kernel
//!   park                                        2. does the table have a waiter at this address? wakes one, too
//!    '-- woken: try
//! ```
//!
//! So a release wakes one of each kind, and whichever comes first has the lock; the other one waits for the next
//! release, which is the first one's. No wake-up is lost: the release is a full barrier, and comes before the look at
//! the table; the waiter enters the table before its last try, with a full barrier in between (wait-table-3).
//!
//! A process that never calls `patch_locks` pays a load and a jump in each call, an OS thread without a hub a load
//! more. Locks that other processes share, and robust and priority-inheriting ones, are left to the C library.
//!
//! Cancellation (`pthread_cancel`) is not supported in waits here: they are no cancellation points.
//!
//! * Invariant c-lock-1: the pointers are those of a C caller, which guarantees that each points to a lock which was
//!   initialised and not destroyed, as the C library demands: pthread-1 and c-library-1 hold. After a release, the lock
//!   may be gone, and only its address is used.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};

use super::gate::{Green, part, patched, saved_errno};
use super::wait::{self, Deadline};
use crate::pure::wait_table::Waited;
use crate::switch::fiber::Foreign;
use crate::switch::root::existing_root;
use crate::sys::allocator;
use crate::sys::pthread::{clockid_t, thread_id};
use crate::sys::raw::{CLOCK_MONOTONIC, CLOCK_REALTIME, EBUSY, EINVAL, ETIMEDOUT, set_errno, timespec};
use crate::sys::tls::os_pointer;

/// Reports whether C's locks are patched, so that releases have to look at the table.
#[inline(always)]
pub(super) fn is_patched() -> bool {
    patched() & part::LOCKS != 0
}

/// Reports whether a wait of this OS thread may be green: C's locks are patched, and there is a hub, or was one.
#[inline(always)]
pub(super) fn may_be_green() -> bool {
    let patched = patched();
    if patched & (part::LOCKS | part::ALLOCATOR) == 0 {
        return false;
    }
    if patched & part::ALLOCATOR != 0 {
        allocator::note_lock();
    }
    patched & part::LOCKS != 0 && existing_root().is_some()
}

thread_local! {
    /// The id of this thread in locks that know their owner, and the kernel's id of its OS thread as the C library has
    /// it; 0 for none yet. No destructor. Each thread with thread-locals of its own has another one.
    static ME: Cell<(i32, i32)> = const { Cell::new((0, 0)) };
}

/// Returns the caller's id in locks that know their owner, if that is not the id of the OS thread: the green threads of
/// an OS thread share that. The ids are negative, so that they are none of the kernel's. They begin anew after 2^31
/// threads that have used such locks.
pub(super) fn own_id() -> Option<i32> {
    if os_pointer() == 0 {
        return None;
    }
    let (id, tid) = ME.get();
    if id != 0 {
        return Some(id);
    }
    static LAST: AtomicI32 = AtomicI32::new(0);
    // Relaxed: only the number matters. The sign makes it negative, and never 0.
    let id = LAST.fetch_add(1, Ordering::Relaxed) | i32::MIN;
    ME.set((id, tid));
    Some(id)
}

/// Notes the id that the C library has written into a lock for the caller.
pub(super) fn note_os_id(tid: i32) {
    ME.set((ME.get().0, tid));
}

/// Returns the id that was noted last.
pub(super) fn os_id() -> i32 {
    ME.get().1
}

/// Reports whether `id` is the caller's OS thread: another thread of the OS thread has the lock, one that shares its
/// thread-locals, or main.
pub(super) fn is_os_thread(id: i32) -> bool {
    id > 0 && id == thread_id()
}

/// Returns the end of a wait until `time` on `clock`; EINVAL for what the C library refuses.
///
/// # Safety
/// c-lock-1: `time` points to a time.
pub(super) unsafe fn deadline(clock: clockid_t, time: *const timespec) -> Result<Deadline, c_int> {
    // SAFETY: the caller's promise.
    let time = unsafe { time.read() };
    if !(0..1_000_000_000).contains(&time.tv_nsec) {
        return Err(EINVAL);
    }
    // A time before the clock's zero is over, and one that is too far away is never.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = seconds.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64);
    match clock {
        CLOCK_MONOTONIC => Ok(Deadline::Monotonic(nanos)),
        CLOCK_REALTIME => Ok(Deadline::TimeOfDay(nanos)),
        _ => Err(EINVAL),
    }
}

/// Waits in the hub until `attempt` answers something else than EBUSY, or until `deadline`. Leaves errno alone.
pub(super) fn until_had(
    green: Green,
    what: Foreign,
    (address, bits): (usize, u32),
    deadline: Deadline,
    mut attempt: impl FnMut() -> c_int,
) -> c_int {
    let before = saved_errno();
    let answer = loop {
        let mut answer = EBUSY;
        let still_busy = || {
            answer = attempt();
            answer == EBUSY
        };
        let waited = wait::wait(green, what, (address, bits), still_busy, || true, deadline);
        if waited != Waited::Mismatch {
            answer = attempt();
        }
        match (answer, waited) {
            // The last release before the deadline may have been meant for this thread.
            (EBUSY, Waited::TimedOut) => break ETIMEDOUT,
            (EBUSY, _) => {}
            (answer, _) => break answer,
        }
    };
    set_errno(before);
    answer
}

/// Wakes one green thread that waits at `address`, after a release by the C library.
#[inline(always)]
pub(super) fn wake_one(address: usize) {
    if wait::may_have_waiters(address) {
        wait::wake(address, u32::MAX, 1);
    }
}
