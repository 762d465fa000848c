//! The clock of this program, which can be a hundred times slower than the kernel's.
//!
//! A simulator of caches runs a program some fifty times slower. To the runtime each slice would be a long one, for
//! which it reads the clock, and what would be counted is not what a user's program does. With a clock as slow as the
//! simulator, slices are as short as they are in life. Paths with system calls, which the simulator slows down less,
//! have the kernel's clock: their slices are long ones in life, too.
//!
//! It is here by its name: the dynamic linker finds the program's function before the C library's.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicI64, Ordering};

/// How much slower it is.
static SLOWER: AtomicI64 = AtomicI64::new(1);

/// Makes the clock a hundred times slower. To be called before the runtime reads it.
pub fn slow_down() {
    // Relaxed: there is no other OS thread yet.
    SLOWER.store(100, Ordering::Relaxed);
}

/// Reads the clock; see clock_gettime(2).
///
/// # Safety
/// `to` is a place for a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, to: *mut libc::timespec) -> c_int {
    // SAFETY: the caller's place, handed on (clock_gettime(2)).
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), to) };
    if result == 0 {
        // SAFETY: the caller's place, filled above; nothing else uses it meanwhile.
        let time = unsafe { &mut *to };
        // Relaxed: as in `slow_down`.
        let nanos = (time.tv_sec * 1_000_000_000 + time.tv_nsec) / SLOWER.load(Ordering::Relaxed);
        time.tv_sec = nanos / 1_000_000_000;
        time.tv_nsec = nanos % 1_000_000_000;
    }
    result as c_int
}
