//! clock_gettime, gettimeofday and time: the clocks of `std` and C, which in a simulation are the virtual one.
//!
//! ```text
//!   CLOCK_MONOTONIC, BOOTTIME and their kinds   the virtual clock, which starts at `START`, a hundred years
//!   CLOCK_REALTIME, TAI and their kinds         as long after the begin of 2000, in UTC
//!   the CPU time of the process or a thread     the kernel's
//! ```
//!
//! Outside of a simulation each call goes on to the C library, and costs one load of a flag. `Instant::now()` and
//! [`time::now`](crate::time::now) are the same moment in a simulation.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use super::gate::{part, simulated};
use crate::sys::kernel_clock;
use crate::sys::raw::{
    self, CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW,
    CLOCK_REALTIME, CLOCK_REALTIME_ALARM, CLOCK_REALTIME_COARSE, CLOCK_TAI, clockid_t, time_t, timespec, timeval,
};
use crate::sys::simulation::{Simulated, take_asked_start};

/// Returns what a clock shows in a simulation, in nanoseconds; none for a clock that is the kernel's there, too.
pub(super) fn virtual_time(simulated: &Simulated, clock: clockid_t) -> Option<u64> {
    match clock {
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_COARSE | CLOCK_MONOTONIC_RAW | CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => {
            Some(simulated.clock.get())
        }
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_REALTIME_ALARM | CLOCK_TAI => Some(simulated.time_of_day()),
        _ => None,
    }
}

/// Stands in for clock_gettime(2), hence for `Instant::now` and `SystemTime::now`.
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn clock_gettime(clock: clockid_t, place: *mut timespec) -> c_int {
    let shown = match take_asked_start() {
        None => simulated(part::SLEEP).and_then(|simulated| virtual_time(simulated, clock)),
        start => start,
    };
    match shown {
        Some(nanos) => {
            // SAFETY: monkey-1: the caller's place.
            unsafe { place.write(raw::span(nanos)) };
            0
        }
        // SAFETY: monkey-1, as kernel-clock-1.
        None => unsafe { kernel_clock::clock_gettime(clock, place) },
    }
}

/// Returns the time of day, in the form that the program's clock has.
fn time_of_day() -> timespec {
    let mut now = raw::span(0);
    // SAFETY: a place for the time; the call cannot fail for this clock (clock_gettime(2)).
    unsafe { clock_gettime(CLOCK_REALTIME, &raw mut now) };
    now
}

/// Stands in for gettimeofday(2). There is no time zone: its place is filled with zeros.
///
/// # Safety
/// As [`clock_gettime`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn gettimeofday(place: *mut timeval, zone: *mut c_void) -> c_int {
    // SAFETY: null, or the caller's place, of two integers (monkey-1).
    if let Some(zone) = unsafe { zone.cast::<[c_int; 2]>().as_mut() } {
        *zone = [0; 2];
    }
    // SAFETY: null, or the caller's place (monkey-1).
    if let Some(place) = unsafe { place.as_mut() } {
        let now = time_of_day();
        (place.tv_sec, place.tv_usec) = (now.tv_sec, now.tv_nsec / 1000);
    }
    0
}

/// Stands in for time(2).
///
/// # Safety
/// As [`clock_gettime`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn time(place: *mut time_t) -> time_t {
    let mut now = raw::span(0);
    // The coarse clock: the C library's `time` does not show a second before it does.
    // SAFETY: a place for the time; the call cannot fail for this clock (clock_gettime(2)).
    unsafe { clock_gettime(CLOCK_REALTIME_COARSE, &raw mut now) };
    // SAFETY: null, or the caller's place (monkey-1).
    if let Some(place) = unsafe { place.as_mut() } {
        *place = now.tv_sec;
    }
    now.tv_sec
}
