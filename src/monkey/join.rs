//! The join of an OS thread, by pthread_join, hence by `std::thread::JoinHandle::join`.
//!
//! The C library waits for a word that the kernel clears at the end of the OS thread. A green thread waits for a pidfd
//! of the OS thread instead, which becomes readable just after that:
//!
//! ```text
//!   pthread_join -- not green --> the C library
//!      | tryjoin: over? an error? --> return
//!      | tid of the OS thread (its CPU clock has it), pidfd_open
//!      | tryjoin again: if it is still not over, the pidfd is the right OS thread's, and not that of a later one
//!      | wait for the pidfd in the hub
//!   tryjoin --> return
//! ```
//!
//! A kernel before 6.9 has no pidfds of OS threads, and there may be no descriptor left: then the C library is asked
//! again and again, in pauses that grow to `LONGEST_PAUSE`. As a wait for a lock, a join is ended by nothing else:
//! `std` takes any error for a bug in itself.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too, for the handle and the result.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::time::Duration;

use super::gate::{Green, blocking, patched, saved_errno};
use super::held_up::counted;
use super::wait::may_wait;
use crate::switch::fiber::{Foreign, Reason};
use crate::sys::c_library::{self, pthread_t};
use crate::sys::clock::after;
use crate::sys::process::thread_pidfd;
use crate::sys::raw::{EBUSY, set_errno};

/// The first pause where no pidfd is to be had.
const FIRST_PAUSE: Duration = Duration::from_micros(50);

/// What the pauses grow to.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Joins an OS thread as pthread_join(3) does.
///
/// # Safety
/// monkey-1.
pub(super) unsafe fn join_os_thread(thread: pthread_t, result: *mut *mut c_void) -> c_int {
    let Some(green) = may_wait() else {
        // SAFETY: monkey-1.
        let join = || unsafe { c_library::pthread_join(thread, result) };
        return if patched() == 0 { join() } else { counted(join) };
    };
    let before = saved_errno();
    // SAFETY: monkey-1; a thread that has not been joined has a handle.
    let mut answer = unsafe { c_library::pthread_tryjoin_np(thread, result) };
    if answer == EBUSY {
        let mut ask = || {
            // SAFETY: as above.
            answer = unsafe { c_library::pthread_tryjoin_np(thread, result) };
            answer != EBUSY
        };
        // SAFETY: as above.
        let tid = unsafe { c_library::tid_of(thread) };
        // Nothing inside unwinds (monkey-2).
        let _ = blocking(|| wait(green, tid, &mut ask));
    }
    set_errno(before);
    answer
}

/// Waits in the hub until `is_over`, which the end of the OS thread `tid` brings about.
fn wait(green: Green, tid: Option<u32>, is_over: &mut dyn FnMut() -> bool) {
    let reason = Reason::Foreign(Foreign::Thread, tid.unwrap_or(0) as usize);
    if let Some(tid) = tid
        && let Ok(pidfd) = thread_pidfd(tid)
        && green.wait_uninterrupted(&pidfd, reason, is_over).is_ok()
    {
        return;
    }
    let mut pause = FIRST_PAUSE;
    while !is_over() {
        let end = after(pause);
        while !green.caller().park_uninterrupted(reason, end).timed_out {}
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
