//! pthread_cond_wait and its relatives.
//!
//! The C library's wait releases the mutex inside, where no green waiter of the mutex would be woken. So after
//! `patch_locks`, all threads wait for a condition variable in the table of `wait.rs`, OS threads as well:
//!
//! ```text
//!   wait                                                     signal, broadcast
//!   1. enter the table, at the condition variable            1. the C library's: those that were there before
//!   2. unlock the mutex (mutex.rs: wakes its waiters)           `patch_locks`, or wait with a foreign mutex
//!   3. park; an OS thread sleeps in the kernel               2. one waiter of the table, or all
//!   4. woken, or the time is over: lock the mutex
//! ```
//!
//! No signal is lost: a thread that changes the condition locks the mutex for that, hence after step 2, and finds the
//! waiter in the table, whether it signals with the mutex or after it. At most one waiter more than needed is woken,
//! which C's rules allow.
//!
//! A condition variable that other processes share, and one that is waited for with a mutex of a kind that is the C
//! library's alone, is left to the C library. (A green thread that waits for such a mutex blocks its OS thread, too.)
//!
//! Invariant c-lock-1 of `c_lock.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::c_lock::{deadline, is_patched, wake_one};
use super::gate::saved_errno;
use super::mutex::{pthread_mutex_lock, pthread_mutex_unlock};
use super::wait::{self, Deadline, may_wait};
use crate::pure::wait_table::Waited;
use crate::switch::fiber::Foreign;
use crate::sys::c_library;
use crate::sys::pthread::{MutexKind, clockid_t, pthread_cond_t, pthread_mutex_t, words};
use crate::sys::raw::{CLOCK_MONOTONIC, CLOCK_REALTIME, ETIMEDOUT, set_errno, timespec};

/// Returns the clock of a condition variable, if it and the mutex are served here.
///
/// # Safety
/// c-lock-1.
unsafe fn clock_of(condvar: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> Option<clockid_t> {
    if !is_patched() {
        return None;
    }
    // SAFETY: c-lock-1.
    let monotonic = unsafe { words().condvar_is_monotonic(condvar) }?;
    // SAFETY: c-lock-1.
    let served = unsafe { words().mutex_kind(mutex) } != MutexKind::Foreign;
    served.then_some(if monotonic { CLOCK_MONOTONIC } else { CLOCK_REALTIME })
}

/// Waits as the picture says, until a signal or `deadline`.
///
/// # Safety
/// c-lock-1; the caller has the mutex.
unsafe fn wait_until(condvar: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, deadline: Deadline) -> c_int {
    let before = saved_errno();
    let at = (condvar.addr(), u32::MAX);
    let mut refused = 0;
    let unlock = || {
        // SAFETY: c-lock-1.
        refused = unsafe { pthread_mutex_unlock(mutex) };
        refused == 0
    };
    let waited = match may_wait() {
        Some(green) => wait::wait(green, Foreign::Condvar, at, || true, unlock, deadline),
        None => wait::wait_on_os_thread(at, || true, unlock, deadline),
    };
    if refused != 0 {
        // The caller does not have the mutex. A signal that it took meanwhile is another's.
        if waited == Waited::Woken {
            wait::wake(condvar.addr(), u32::MAX, 1);
        }
        set_errno(before);
        return refused;
    }
    // SAFETY: c-lock-1.
    let locked = unsafe { pthread_mutex_lock(mutex) };
    set_errno(before);
    match (locked, waited) {
        (0, Waited::TimedOut) => ETIMEDOUT,
        (locked, _) => locked,
    }
}

/// Stands in for pthread_cond_wait(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_cond_wait(condvar: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: c-lock-1.
    match unsafe { clock_of(condvar, mutex) } {
        // SAFETY: c-lock-1.
        Some(_) => unsafe { wait_until(condvar, mutex, Deadline::NEVER) },
        // SAFETY: c-lock-1.
        None => unsafe { c_library::pthread_cond_wait(condvar, mutex) },
    }
}

/// Stands in for pthread_cond_timedwait(3).
///
/// # Safety
/// As [`pthread_cond_wait`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_cond_timedwait(
    condvar: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: c-lock-1.
    let Some(clock) = (unsafe { clock_of(condvar, mutex) }) else {
        // SAFETY: c-lock-1.
        return unsafe { c_library::pthread_cond_timedwait(condvar, mutex, time) };
    };
    // SAFETY: c-lock-1.
    match unsafe { deadline(clock, time) } {
        // SAFETY: c-lock-1.
        Ok(deadline) => unsafe { wait_until(condvar, mutex, deadline) },
        Err(error) => error,
    }
}

/// Stands in for pthread_cond_clockwait(3).
///
/// # Safety
/// As [`pthread_cond_wait`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_cond_clockwait(
    condvar: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: c-lock-1.
    if unsafe { clock_of(condvar, mutex) }.is_none() {
        // SAFETY: c-lock-1.
        return unsafe { c_library::pthread_cond_clockwait(condvar, mutex, clock, time) };
    }
    // SAFETY: c-lock-1.
    match unsafe { deadline(clock, time) } {
        // SAFETY: c-lock-1.
        Ok(deadline) => unsafe { wait_until(condvar, mutex, deadline) },
        Err(error) => error,
    }
}

/// Stands in for pthread_cond_signal(3).
///
/// # Safety
/// As [`pthread_cond_wait`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_cond_signal(condvar: *mut pthread_cond_t) -> c_int {
    // SAFETY: c-lock-1.
    let answer = unsafe { c_library::pthread_cond_signal(condvar) };
    if is_patched() {
        wake_one(condvar.addr());
    }
    answer
}

/// Stands in for pthread_cond_broadcast(3).
///
/// # Safety
/// As [`pthread_cond_wait`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_cond_broadcast(condvar: *mut pthread_cond_t) -> c_int {
    // SAFETY: c-lock-1.
    let answer = unsafe { c_library::pthread_cond_broadcast(condvar) };
    if is_patched() && wait::may_have_waiters(condvar.addr()) {
        wait::wake(condvar.addr(), u32::MAX, usize::MAX);
    }
    answer
}
