//! The kernel's clocks, read behind the program's own `clock_gettime`.
//!
//! With the feature `monkey` this crate defines the program's `clock_gettime`, which in a simulation has another answer
//! (`monkey/clock.rs`). The C library's is found behind it, once, and reads the clock without entering the kernel; the
//! system call does not.
//!
//! Invariant kernel-clock-1: the place for the answer is the caller's, and one that may be written.
#![allow(unsafe_code)]

use std::ffi::c_int;

use libc::{clockid_t, timespec};

/// Reads a clock of the kernel, as clock_gettime(2) says.
///
/// # Safety
/// Invariant kernel-clock-1.
#[cfg(not(feature = "monkey"))]
#[inline(always)]
pub(crate) unsafe fn clock_gettime(clock: clockid_t, place: *mut timespec) -> c_int {
    // SAFETY: the caller's promise (kernel-clock-1).
    unsafe { libc::clock_gettime(clock, place) }
}

/// Reads a clock of the kernel, as clock_gettime(2) says.
///
/// # Safety
/// Invariant kernel-clock-1.
#[cfg(feature = "monkey")]
#[inline(always)]
pub(crate) unsafe fn clock_gettime(clock: clockid_t, place: *mut timespec) -> c_int {
    // Relaxed: the address guards no other data, and a second lookup finds the same.
    let known = behind::NEXT.load(std::sync::atomic::Ordering::Relaxed);
    let function = if known.is_null() { behind::find() } else { known };
    // SAFETY: the C library's function of this name, or one in its place, has this type (clock_gettime(2)).
    let function = unsafe { std::mem::transmute::<*mut std::ffi::c_void, behind::Function>(function) };
    // SAFETY: the caller's promise (kernel-clock-1).
    unsafe { function(clock, place) }
}

/// The function behind the program's own.
#[cfg(feature = "monkey")]
mod behind {
    use std::ffi::{c_int, c_void};
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use libc::{clockid_t, timespec};

    /// The type of the function.
    pub(super) type Function = unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int;

    /// The address of the function, once it is known.
    pub(super) static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

    /// Enters the kernel: for a program in which no function stands behind the one of this crate.
    unsafe extern "C" fn by_system_call(clock: clockid_t, place: *mut timespec) -> c_int {
        // SAFETY: kernel-clock-1; the number and the arguments go together.
        unsafe { libc::syscall(libc::SYS_clock_gettime, clock, place) as c_int }
    }

    /// Looks the function up for the first time.
    #[cold]
    #[inline(never)]
    pub(super) fn find() -> *mut c_void {
        // SAFETY: the name is a C string; the lookup touches no memory of this crate (dlsym(3)).
        let mut found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) };
        if found.is_null() {
            found = by_system_call as Function as *mut c_void;
        }
        // Relaxed: as the load.
        NEXT.store(found, Ordering::Relaxed);
        found
    }
}
