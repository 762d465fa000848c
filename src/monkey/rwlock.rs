//! pthread_rwlock_rdlock and its relatives. (`c_lock.rs` has the wait, and how both kinds of waiters are woken.)
//!
//! ```text
//!   in the table: writers, readers                 unlock: wakes one writer and all readers, which try again
//! ```
//!
//! That wakes readers in vain if the writer is faster. To wake only the first waiter would need to know whether the
//! lock is free or has other readers, and after the release that is not this thread's to look at.
//!
//! The lock has the id of its writer, to tell a writer that would wait for itself (EDEADLK), and to tell the unlock of
//! a writer from that of a reader. As in `mutex.rs`, a green thread with thread-locals of its own puts its own id
//! there, and the OS thread's again before it unlocks. A green writer that waits is not known to the C library, and
//! does not keep new readers out, whatever the lock prefers.
//!
//! Invariant c-lock-1 of `c_lock.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::c_lock::{deadline, is_os_thread, is_patched, may_be_green, note_os_id, os_id, own_id, until_had};
use super::wait::{self, Deadline, may_wait};
use crate::switch::fiber::Foreign;
use crate::sys::c_library;
use crate::sys::pthread::{clockid_t, pthread_rwlock_t, words};
use crate::sys::raw::{CLOCK_REALTIME, EBUSY, EDEADLK, timespec};

/// The bit of a waiter that wants to read.
const READER: u32 = 1;

/// The bit of a waiter that wants to write.
const WRITER: u32 = 2;

/// A lock, and what is wanted of it.
#[derive(Clone, Copy)]
struct Locking {
    /// The lock that is to be taken.
    rwlock: *mut pthread_rwlock_t,
    /// The bit of what is wanted: to read or to write.
    wants: u32,
    /// The caller's own id, if it has one.
    me: Option<i32>,
}

impl Locking {
    /// Tries to lock. Returns 0; EBUSY if another thread has the lock; EDEADLK if the caller writes.
    ///
    /// # Safety
    /// c-lock-1.
    #[inline]
    unsafe fn attempt(self) -> c_int {
        let Locking { rwlock, wants, me } = self;
        if let Some(me) = me
            // SAFETY: c-lock-1.
            && unsafe { words().rwlock_writer(rwlock) } == me
        {
            return EDEADLK;
        }
        if wants == READER {
            // SAFETY: c-lock-1.
            return unsafe { c_library::pthread_rwlock_tryrdlock(rwlock) };
        }
        // SAFETY: c-lock-1.
        let answer = unsafe { c_library::pthread_rwlock_trywrlock(rwlock) };
        if answer == 0 {
            // SAFETY: c-lock-1; the caller has the lock for writing.
            unsafe { self.put_name() };
        }
        answer
    }

    /// Puts the caller's id in place of the OS thread's.
    ///
    /// # Safety
    /// c-lock-1; the caller has the lock for writing, from the C library.
    unsafe fn put_name(self) {
        if let Some(me) = self.me {
            // SAFETY: c-lock-1.
            note_os_id(unsafe { words().rwlock_writer(self.rwlock) });
            // SAFETY: c-lock-1.
            unsafe { words().set_rwlock_writer(self.rwlock, me) };
        }
    }

    /// Locks in the hub if the caller may wait there; else by `plain`.
    ///
    /// # Safety
    /// c-lock-1.
    #[cold]
    #[inline(never)]
    unsafe fn lock_busy(self, plain: impl FnOnce() -> c_int, deadline: Deadline) -> c_int {
        // A writer of this OS thread: main itself, or one that cannot run while this OS thread is blocked. The C
        // library says EDEADLK in both cases. SAFETY: c-lock-1.
        let is_here = is_os_thread(unsafe { words().rwlock_writer(self.rwlock) });
        let Some(green) = may_wait().filter(|_| self.me.is_some() || !is_here) else {
            let answer = plain();
            if answer == 0 && self.wants == WRITER {
                // SAFETY: c-lock-1; the caller has the lock for writing.
                unsafe { self.put_name() };
            }
            return answer;
        };
        let at = (self.rwlock.addr(), self.wants);
        // SAFETY: c-lock-1.
        until_had(green, Foreign::Rwlock, at, deadline, || unsafe { self.attempt() })
    }
}

/// Locks `rwlock`, in the hub if the caller may wait there; else by `plain`.
///
/// # Safety
/// c-lock-1.
#[inline]
unsafe fn lock_with(
    rwlock: *mut pthread_rwlock_t,
    wants: u32,
    plain: impl FnOnce() -> c_int,
    limit: impl FnOnce() -> Result<Deadline, c_int>,
) -> c_int {
    // SAFETY: c-lock-1.
    if !may_be_green() || !unsafe { words().rwlock_is_private(rwlock) } {
        return plain();
    }
    // A time that is not valid is refused even if the lock is free.
    let deadline = match limit() {
        Ok(deadline) => deadline,
        Err(error) => return error,
    };
    let locking = Locking { rwlock, wants, me: own_id() };
    // SAFETY: c-lock-1.
    match unsafe { locking.attempt() } {
        // SAFETY: c-lock-1.
        EBUSY => unsafe { locking.lock_busy(plain, deadline) },
        answer => answer,
    }
}

/// Stands in for pthread_rwlock_rdlock(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_rwlock_rdlock(rwlock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_rwlock_rdlock(rwlock) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(rwlock, READER, plain, || Ok(Deadline::NEVER)) }
}

/// Stands in for pthread_rwlock_wrlock(3).
///
/// # Safety
/// As [`pthread_rwlock_rdlock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_rwlock_wrlock(rwlock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_rwlock_wrlock(rwlock) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(rwlock, WRITER, plain, || Ok(Deadline::NEVER)) }
}

/// Stands in for pthread_rwlock_timedrdlock(3).
///
/// # Safety
/// As [`pthread_rwlock_rdlock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_rwlock_timedrdlock(
    rwlock: *mut pthread_rwlock_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_rwlock_timedrdlock(rwlock, time) };
    // SAFETY: c-lock-1.
    let limit = || unsafe { deadline(CLOCK_REALTIME, time) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(rwlock, READER, plain, limit) }
}

/// Stands in for pthread_rwlock_timedwrlock(3).
///
/// # Safety
/// As [`pthread_rwlock_rdlock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_rwlock_timedwrlock(
    rwlock: *mut pthread_rwlock_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_rwlock_timedwrlock(rwlock, time) };
    // SAFETY: c-lock-1.
    let limit = || unsafe { deadline(CLOCK_REALTIME, time) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(rwlock, WRITER, plain, limit) }
}

/// Stands in for pthread_rwlock_clockrdlock(3).
///
/// # Safety
/// As [`pthread_rwlock_rdlock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_rwlock_clockrdlock(
    rwlock: *mut pthread_rwlock_t,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_rwlock_clockrdlock(rwlock, clock, time) };
    // SAFETY: c-lock-1.
    let limit = || unsafe { deadline(clock, time) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(rwlock, READER, plain, limit) }
}

/// Stands in for pthread_rwlock_clockwrlock(3).
///
/// # Safety
/// As [`pthread_rwlock_rdlock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_rwlock_clockwrlock(
    rwlock: *mut pthread_rwlock_t,
    clock: clockid_t,
    time: *const timespec,
) -> c_int {
    // SAFETY: c-lock-1.
    let plain = || unsafe { c_library::pthread_rwlock_clockwrlock(rwlock, clock, time) };
    // SAFETY: c-lock-1.
    let limit = || unsafe { deadline(clock, time) };
    // SAFETY: c-lock-1.
    unsafe { lock_with(rwlock, WRITER, plain, limit) }
}

/// Stands in for pthread_rwlock_trywrlock(3).
///
/// # Safety
/// As [`pthread_rwlock_rdlock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_rwlock_trywrlock(rwlock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: c-lock-1.
    let answer = unsafe { c_library::pthread_rwlock_trywrlock(rwlock) };
    // SAFETY: c-lock-1.
    if answer == 0 && may_be_green() && unsafe { words().rwlock_is_private(rwlock) } {
        let locking = Locking { rwlock, wants: WRITER, me: own_id() };
        // SAFETY: c-lock-1; the caller has the lock for writing.
        unsafe { locking.put_name() };
    }
    answer
}

/// Stands in for pthread_rwlock_unlock(3).
///
/// # Safety
/// As [`pthread_rwlock_rdlock`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_rwlock_unlock(rwlock: *mut pthread_rwlock_t) -> c_int {
    if !is_patched() {
        // SAFETY: c-lock-1.
        return unsafe { c_library::pthread_rwlock_unlock(rwlock) };
    }
    // A writer takes its name out.
    if let Some(me) = own_id()
        // SAFETY: c-lock-1.
        && unsafe { words().rwlock_writer(rwlock) } == me
    {
        // SAFETY: c-lock-1; the caller has the lock for writing.
        unsafe { words().set_rwlock_writer(rwlock, os_id()) };
    }
    // SAFETY: c-lock-1.
    let answer = unsafe { c_library::pthread_rwlock_unlock(rwlock) };
    // The lock may be gone.
    let at = rwlock.addr();
    if wait::may_have_waiters(at) {
        wait::wake(at, WRITER, 1);
        wait::wake(at, READER, usize::MAX);
    }
    answer
}
