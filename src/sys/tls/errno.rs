//! The running thread's `errno`, by functions that are not inlined: an address of it belongs to one thread pointer.
//!
//! * Invariant tls-errno-1: the place that the C library returns is the running thread's, and lives as long as the
//!   thread. Upheld by the C library (errno(3)).

#![allow(unsafe_code)]

use std::ffi::c_int;

/// Returns why the last call failed.
#[inline(never)]
pub(super) fn errno() -> c_int {
    // SAFETY: Invariant tls-errno-1: the function takes nothing.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: Invariant tls-errno-1.
    unsafe { *place }
}

/// Says why a call failed.
#[inline(never)]
pub(super) fn set_errno(new: c_int) {
    // SAFETY: Invariant tls-errno-1: the function takes nothing.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: Invariant tls-errno-1.
    unsafe { *place = new };
}
