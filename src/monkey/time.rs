//! nanosleep and its relatives, hence `std::thread::sleep`; and sched_yield.
//!
//! A sleep that a kill or an expired `timeout` scope ends early returns success: `std` takes any error but EINTR for a
//! bug in `std`, and sleeps again after EINTR. The kill stays due. A signal does not end a green sleep.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::ptr::null_mut;
use std::time::Duration;

use super::clock::virtual_time;
use super::gate::{Green, finish, green, hub_here, part, refuse, saved_errno, simulated};
use super::wait;
use crate::switch::cancel::obstacle;
use crate::sys::clock::{NEVER, after, monotonic_ns};
use crate::sys::raw::{
    self, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, EINVAL, TIMER_ABSTIME, timespec, useconds_t,
};

/// Returns the right to sleep in the hub. A caller that unwinds has none: it blocks the OS thread, for a limited time.
fn may_sleep() -> Option<Green> {
    green(part::SLEEP).filter(|_| obstacle().is_none())
}

/// Stands in for nanosleep(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nanosleep(span: *const timespec, left: *mut timespec) -> c_int {
    // SAFETY: monkey-1. On Linux, nanosleep is this call, except that clock_nanosleep returns the errno.
    match unsafe { clock_nanosleep(CLOCK_REALTIME, 0, span, left) } {
        0 => 0,
        errno => refuse(errno),
    }
}

/// Stands in for clock_nanosleep(2). Calls for clocks other than the monotonic one and the time of day go to the
/// kernel.
///
/// # Safety
/// As [`nanosleep`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn clock_nanosleep(
    clock: c_int,
    flags: c_int,
    span: *const timespec,
    left: *mut timespec,
) -> c_int {
    let known = matches!(clock, CLOCK_MONOTONIC | CLOCK_REALTIME) && flags & !TIMER_ABSTIME == 0;
    if clock == CLOCK_THREAD_CPUTIME_ID {
        return EINVAL; // as the C library does; the kernel returns another error
    }
    // SAFETY: null, or the caller's span (monkey-1).
    let nanos = unsafe { span.as_ref() }.and_then(raw::nanos);
    if let Some(simulated) = simulated(part::SLEEP)
        && let Some(now) = virtual_time(simulated, clock)
    {
        let Some(nanos) = nanos else { return EINVAL };
        let span = if flags & TIMER_ABSTIME != 0 { nanos.saturating_sub(now) } else { nanos };
        sleep_in_simulation(span);
        return 0;
    }
    let Some((green, nanos)) = may_sleep().zip(nanos).filter(|_| known) else {
        // This function returns the error, and leaves errno alone.
        let before = saved_errno();
        // SAFETY: monkey-1.
        let answer = unsafe { raw::clock_nanosleep(clock, flags, span, left) };
        raw::set_errno(before);
        return answer.err().unwrap_or(0);
    };
    let before = saved_errno();
    match (clock, flags & TIMER_ABSTIME != 0) {
        (CLOCK_MONOTONIC, true) => green.sleep(nanos),
        // The time of day may be set meanwhile; this reads the clock once, as std's sleep_until does.
        (_, true) => green.sleep(after(Duration::from_nanos(nanos.saturating_sub(raw::realtime_ns())))),
        (_, false) => green.sleep(after(Duration::from_nanos(nanos))),
    }
    raw::set_errno(before);
    0
}

/// Sleeps in a simulation: nothing really sleeps there, so a caller that must not let others run lets time pass.
#[cold]
fn sleep_in_simulation(nanos: u64) {
    let before = saved_errno();
    let until = monotonic_ns().saturating_add(nanos).min(NEVER - 1);
    match (may_sleep(), hub_here()) {
        (Some(green), _) => green.sleep(until),
        (None, Some((_, hub))) => hub.advance(until),
        (None, None) => {}
    }
    raw::set_errno(before);
}

/// Stands in for usleep(3).
///
/// # Safety
/// None: the function takes a number.
#[unsafe(no_mangle)]
pub(super) extern "C" fn usleep(micros: useconds_t) -> c_int {
    let span = raw::span(u64::from(micros) * 1000);
    // SAFETY: the span lives until the call returns; a null pointer does not ask for the rest.
    unsafe { nanosleep(&raw const span, null_mut()) }
}

/// Stands in for sched_yield(2), hence for `std::thread::yield_now`: a green thread that spins lets the others run.
///
/// # Safety
/// None: the function takes nothing.
#[unsafe(no_mangle)]
pub(super) extern "C" fn sched_yield() -> c_int {
    let before = saved_errno();
    match may_sleep().or_else(wait::may_wait) {
        Some(green) => {
            green.give_way();
            // The caller may spin for an OS thread. If no other green thread can run, the kernel decides.
            if green.is_alone() {
                raw::sched_yield();
            }
        }
        None => raw::sched_yield(),
    }
    finish(before, Ok(0)) as c_int
}

/// Stands in for sleep(3): returns the seconds that are left if a signal ended the sleep.
///
/// # Safety
/// None: the function takes a number.
#[unsafe(no_mangle)]
pub(super) extern "C" fn sleep(seconds: c_uint) -> c_uint {
    let nanos = u64::from(seconds) * 1_000_000_000;
    if simulated(part::SLEEP).is_some() {
        sleep_in_simulation(nanos);
        return 0;
    }
    let before = saved_errno();
    if let Some(green) = may_sleep() {
        green.sleep(after(Duration::from_nanos(nanos)));
        finish(before, Ok(0));
        return 0;
    }
    // The OS thread sleeps, and a signal may end the sleep early.
    let (span, mut left) = (raw::span(nanos), raw::span(0));
    // SAFETY: both spans live until the call returns.
    match unsafe { raw::clock_nanosleep(CLOCK_REALTIME, 0, &raw const span, &raw mut left) } {
        Ok(_) => 0,
        Err(error) => {
            raw::set_errno(error);
            raw::seconds_left(raw::nanos(&left).unwrap_or(0))
        }
    }
}
