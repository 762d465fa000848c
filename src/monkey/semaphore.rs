//! sem_wait and its relatives. (`c_lock.rs` has the wait, and how both kinds of waiters are woken.)
//!
//! A post wakes one waiter of each kind, and there is one unit: one of the two waits on. Semaphores that other
//! processes share, named ones among them, are left to the C library. A signal does not end a green wait. A signal
//! handler may post, as C allows: `relay.rs` wakes the green waiter then.
//!
//! Invariant c-lock-1 of `c_lock.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::c_lock::{deadline, is_patched, may_be_green, until_had, wake_one};
use super::gate::{finish, refuse, saved_errno};
use super::relay;
use super::wait::{self, Deadline, may_wait};
use crate::switch::fiber::Foreign;
use crate::sys::c_library;
use crate::sys::pthread::{clockid_t, sem_t, words};
use crate::sys::raw::{CLOCK_REALTIME, EAGAIN, EBUSY, errno, timespec};
use crate::sys::runtime_syscall::is_runtime_syscall;

/// Takes a unit if there is one. Returns 0, EBUSY, or an errno.
///
/// # Safety
/// c-lock-1.
unsafe fn attempt(semaphore: *mut sem_t) -> c_int {
    // SAFETY: c-lock-1.
    if unsafe { c_library::sem_trywait(semaphore) } == 0 {
        return 0;
    }
    match errno() {
        EAGAIN => EBUSY,
        error => error,
    }
}

/// Takes a unit, and waits in the hub if the caller may; else by `plain`.
///
/// # Safety
/// c-lock-1.
unsafe fn wait_with(
    semaphore: *mut sem_t,
    plain: impl FnOnce() -> c_int,
    limit: impl FnOnce() -> Result<Deadline, c_int>,
) -> c_int {
    // SAFETY: c-lock-1.
    if !may_be_green() || !unsafe { words().semaphore_is_private(semaphore) } {
        return plain();
    }
    // A time that is not valid is refused even if there is a unit.
    let before = saved_errno();
    let deadline = match limit() {
        Ok(deadline) => deadline,
        Err(error) => return refuse(error),
    };
    // SAFETY: c-lock-1.
    let mut answer = unsafe { attempt(semaphore) };
    if answer == EBUSY {
        let Some(green) = may_wait() else { return plain() };
        relay::start();
        let at = (semaphore.addr(), u32::MAX);
        // SAFETY: c-lock-1.
        answer = until_had(green, Foreign::Semaphore, at, deadline, || unsafe { attempt(semaphore) });
    }
    finish(before, if answer == 0 { Ok(0) } else { Err(answer) }) as c_int
}

/// Stands in for sem_wait(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sem_wait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::sem_wait(semaphore) };
    // SAFETY: c-lock-1.
    unsafe { wait_with(semaphore, plain, || Ok(Deadline::NEVER)) }
}

/// Stands in for sem_timedwait(3).
///
/// # Safety
/// As [`sem_wait`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sem_timedwait(semaphore: *mut sem_t, time: *const timespec) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::sem_timedwait(semaphore, time) };
    // SAFETY: c-lock-1.
    let limit = || unsafe { deadline(CLOCK_REALTIME, time) };
    // SAFETY: c-lock-1.
    unsafe { wait_with(semaphore, plain, limit) }
}

/// Stands in for sem_clockwait(3).
///
/// # Safety
/// As [`sem_wait`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, time: *const timespec) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::sem_clockwait(semaphore, clock, time) };
    // SAFETY: c-lock-1.
    let limit = || unsafe { deadline(clock, time) };
    // SAFETY: c-lock-1.
    unsafe { wait_with(semaphore, plain, limit) }
}

/// Stands in for sem_post(3).
///
/// # Safety
/// As [`sem_wait`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sem_post(semaphore: *mut sem_t) -> c_int {
    // SAFETY: c-lock-1.
    let answer = unsafe { c_library::sem_post(semaphore) };
    // The semaphore may be gone.
    if answer == 0 && is_patched() {
        if !is_runtime_syscall() {
            wake_one(semaphore.addr());
        } else if wait::may_have_waiters(semaphore.addr()) {
            relay::post(semaphore.addr()); // a signal handler may have interrupted a user of the table
        }
    }
    answer
}
