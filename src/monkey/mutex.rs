//! pthread_mutex_lock and its relatives. (`c_lock.rs` has the wait, and how both kinds of waiters are woken.)
//!
//! A recursive mutex, and one that checks errors, knows its owner. The C library writes the kernel's id of the OS
//! thread there, which all green threads of the OS thread share: a second one would be let in. So a green thread with
//! thread-locals of its own has an id of its own, a negative number, and puts that into the lock once it has it:
//!
//! ```text
//!   owner    0              free: the C library's trylock writes the OS thread's id; then the thread's own
//!            own id         lock: counts, or EDEADLK          unlock: the OS thread's id again, then the C library's
//!            another id     lock: waits                       unlock: EPERM
//!            the OS thread  main, or a light green thread of this OS thread has it, which the C library would take
//!                           for the caller: lock: waits, the C library is not asked      unlock: EPERM
//! ```
//!
//! The C library compares the owner with its own id and nothing else (mutexes for which the kernel reads it are not
//! touched), and so any other number is another thread to it; `sys/pthread.rs` has tried that before. Main of an OS
//! thread is the OS thread here.
//!
//! Invariant c-lock-1 of `c_lock.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::c_lock::{deadline, is_os_thread, is_patched, may_be_green, note_os_id, os_id, own_id, until_had, wake_one};
use super::wait::{Deadline, may_wait};
use crate::switch::fiber::Foreign;
use crate::sys::c_library;
use crate::sys::pthread::{
    MutexKind, clockid_t, mutex_count, mutex_owner, pthread_mutex_t, set_mutex_count, set_mutex_owner, words,
};
use crate::sys::raw::{CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, EBUSY, EDEADLK, EINVAL, EPERM, timespec};

/// A mutex, what kind it is, and the caller's id in it.
#[derive(Clone, Copy)]
struct Locking {
    /// The mutex that is to be locked or unlocked.
    mutex: *mut pthread_mutex_t,
    /// What kind it is.
    kind: MutexKind,
    /// The caller's own id, if the mutex has an owner, and the caller an id.
    me: Option<i32>,
}

impl Locking {
    /// Reads the kind of `mutex`.
    ///
    /// # Safety
    /// c-lock-1.
    #[inline]
    unsafe fn of(mutex: *mut pthread_mutex_t) -> Locking {
        // SAFETY: c-lock-1.
        let kind = unsafe { words().mutex_kind(mutex) };
        let has_owner = matches!(kind, MutexKind::Recursive | MutexKind::ErrorCheck);
        Locking { mutex, kind, me: if has_owner { own_id() } else { None } }
    }

    /// Returns the owner.
    ///
    /// # Safety
    /// c-lock-1.
    unsafe fn owner(self) -> i32 {
        // SAFETY: c-lock-1.
        unsafe { mutex_owner(self.mutex) }
    }

    /// Tries to lock. Returns 0; EBUSY if another thread has the lock; EDEADLK or EAGAIN if the caller has.
    ///
    /// # Safety
    /// c-lock-1.
    #[inline]
    unsafe fn attempt(self) -> c_int {
        let Some(me) = self.me else {
            // SAFETY: c-lock-1.
            return unsafe { c_library::pthread_mutex_trylock(self.mutex) };
        };
        // SAFETY: c-lock-1.
        let owner = unsafe { self.owner() };
        if owner == me {
            // SAFETY: c-lock-1; the caller has the lock.
            return unsafe { self.again() };
        }
        if is_os_thread(owner) {
            return EBUSY;
        }
        // SAFETY: c-lock-1.
        let answer = unsafe { c_library::pthread_mutex_trylock(self.mutex) };
        if answer == 0 {
            // SAFETY: c-lock-1; the caller has the lock.
            unsafe { self.put_name(me) };
        }
        answer
    }

    /// Locks once more.
    ///
    /// # Safety
    /// c-lock-1; the caller has the lock.
    unsafe fn again(self) -> c_int {
        if self.kind == MutexKind::ErrorCheck {
            return EDEADLK;
        }
        // SAFETY: c-lock-1.
        let count = unsafe { mutex_count(self.mutex) };
        let Some(more) = count.checked_add(1) else { return EAGAIN };
        // SAFETY: c-lock-1.
        unsafe { set_mutex_count(self.mutex, more) };
        0
    }

    /// Puts the caller's id in place of the OS thread's.
    ///
    /// # Safety
    /// c-lock-1; the caller has the lock, from the C library.
    unsafe fn put_name(self, me: i32) {
        // SAFETY: c-lock-1.
        note_os_id(unsafe { self.owner() });
        // SAFETY: c-lock-1.
        unsafe { set_mutex_owner(self.mutex, me) };
    }

    /// Blocks the OS thread until the C library has the lock for the caller.
    ///
    /// # Safety
    /// c-lock-1.
    unsafe fn block(self, plain: impl FnOnce() -> c_int) -> c_int {
        // SAFETY: c-lock-1.
        if self.me.is_some() && is_os_thread(unsafe { self.owner() }) {
            return EDEADLK; // the holder cannot run while this OS thread is blocked
        }
        let answer = plain();
        if let (0, Some(me)) = (answer, self.me) {
            // SAFETY: c-lock-1; the caller has the lock.
            unsafe { self.put_name(me) };
        }
        answer
    }
}

/// Locks `mutex`, in the hub if the caller may wait there; else by `plain`. `limit` returns the end of the wait.
///
/// # Safety
/// c-lock-1.
#[inline]
unsafe fn lock_with(
    mutex: *mut pthread_mutex_t,
    plain: impl FnOnce() -> c_int,
    limit: impl FnOnce() -> Result<Deadline, c_int>,
) -> c_int {
    if !may_be_green() {
        return plain();
    }
    // SAFETY: c-lock-1.
    let locking = unsafe { Locking::of(mutex) };
    if locking.kind == MutexKind::Foreign {
        return plain();
    }
    // SAFETY: c-lock-1.
    match unsafe { locking.attempt() } {
        EBUSY => {}
        answer => return answer,
    }
    // SAFETY: c-lock-1.
    unsafe { lock_busy(locking, plain, limit) }
}

/// Locks a mutex that another thread has. Out of line, since a mutex is free as a rule.
///
/// # Safety
/// c-lock-1.
#[cold]
#[inline(never)]
unsafe fn lock_busy(
    locking: Locking,
    plain: impl FnOnce() -> c_int,
    limit: impl FnOnce() -> Result<Deadline, c_int>,
) -> c_int {
    // Main that locks what main has: the C library says what it says, without waiting.
    // SAFETY: c-lock-1.
    let is_mine = locking.me.is_none()
        && locking.kind == MutexKind::ErrorCheck
        && is_os_thread(unsafe { mutex_owner(locking.mutex) });
    let Some(green) = may_wait().filter(|_| !is_mine) else {
        // SAFETY: c-lock-1.
        return unsafe { locking.block(plain) };
    };
    let deadline = match limit() {
        Ok(deadline) => deadline,
        Err(error) => return error,
    };
    let at = (locking.mutex.addr(), u32::MAX);
    // SAFETY: c-lock-1.
    until_had(green, Foreign::Mutex, at, deadline, || unsafe { locking.attempt() })
}

/// Stands in for pthread_mutex_lock(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_mutex_lock(mutex) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(mutex, plain, || Ok(Deadline::NEVER)) }
}

/// Stands in for pthread_mutex_trylock(3).
///
/// # Safety
/// As [`pthread_mutex_lock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int {
    if may_be_green() {
        // SAFETY: c-lock-1.
        let locking = unsafe { Locking::of(mutex) };
        if locking.me.is_some() {
            // SAFETY: c-lock-1.
            let answer = unsafe { locking.attempt() };
            return if answer == EDEADLK { EBUSY } else { answer };
        }
    }
    // SAFETY: c-lock-1.
    unsafe { c_library::pthread_mutex_trylock(mutex) }
}

/// Stands in for pthread_mutex_timedlock(3).
///
/// # Safety
/// As [`pthread_mutex_lock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, time: *const timespec) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_mutex_timedlock(mutex, time) };
    // SAFETY: c-lock-1.
    let limit = || unsafe { deadline(CLOCK_REALTIME, time) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(mutex, plain, limit) }
}

/// Stands in for pthread_mutex_clocklock(3).
///
/// # Safety
/// As [`pthread_mutex_lock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_mutex_clocklock(
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // Another clock is refused even if the mutex is free.
    if !matches!(clock, CLOCK_REALTIME | CLOCK_MONOTONIC) {
        return EINVAL;
    }
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_mutex_clocklock(mutex, clock, time) };
    // SAFETY: c-lock-1.
    let limit = || unsafe { deadline(clock, time) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(mutex, plain, limit) }
}

/// Stands in for pthread_mutex_unlock(3).
///
/// # Safety
/// As [`pthread_mutex_lock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    if !is_patched() {
        // SAFETY: c-lock-1.
        return unsafe { c_library::pthread_mutex_unlock(mutex) };
    }
    // SAFETY: c-lock-1.
    let locking = unsafe { Locking::of(mutex) };
    if let Some(me) = locking.me {
        // SAFETY: c-lock-1.
        if unsafe { locking.owner() } != me {
            return EPERM;
        }
    }
    // One of several locks of a recursive mutex is taken back: it stays locked.
    // SAFETY: c-lock-1.
    let count = if locking.kind == MutexKind::Recursive { unsafe { mutex_count(mutex) } } else { 1 };
    if locking.me.is_some() {
        if count > 1 {
            // SAFETY: c-lock-1; the caller has the lock.
            unsafe { set_mutex_count(mutex, count - 1) };
            return 0;
        }
        // SAFETY: c-lock-1; the caller has the lock.
        unsafe { set_mutex_owner(mutex, os_id()) };
    }
    // SAFETY: c-lock-1.
    let answer = unsafe { c_library::pthread_mutex_unlock(mutex) };
    // The mutex may be gone.
    if answer == 0 && count <= 1 {
        wake_one(mutex.addr());
    }
    answer
}
