//! Sleeping: nanosleep and its relatives, and with them `std::thread::sleep`.
//!
//! A sleep that a kill or an expired `timeout` scope ends early says that it has slept: `std` takes any error but EINTR for
//! a bug of its own, and after EINTR it sleeps again. The kill stays due. A signal does not end a green sleep.
//!
//! Invariant M1 holds here as in `stream.rs`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::ptr::null_mut;
use std::time::Duration;

use super::gate::{Green, entry, finish, green, part, refuse};
use crate::runtime::source::after;
use crate::switch::cancel::obstacle;
use crate::sys::raw::{
    self, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, EINVAL, TIMER_ABSTIME, timespec, useconds_t,
};

/// The right to sleep in the hub. Whoever unwinds sleeps with the OS thread: it is only for a time.
fn may_doze() -> Option<Green> {
    green(part::SLEEP).filter(|_| obstacle().is_none())
}

/// nanosleep(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn nanosleep(span: *const timespec, left: *mut timespec) -> c_int {
    // SAFETY: M1. This is what nanosleep is on Linux, except that it returns its errno.
    match unsafe { clock_nanosleep(CLOCK_REALTIME, 0, span, left) } {
        0 => 0,
        errno => refuse(errno),
    }
}

/// clock_nanosleep(2). Clocks other than the monotonic one and the time of day go to the kernel as they are.
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
        return EINVAL; // as the C library says; the kernel has another word for it
    }
    // SAFETY: null, or the caller's span (M1).
    let nanos = unsafe { span.as_ref() }.and_then(raw::nanos);
    let Some((green, nanos)) = may_doze().zip(nanos).filter(|_| known) else {
        // It is the one that returns its errno, and leaves errno itself alone.
        let before = entry();
        // SAFETY: M1.
        let answer = unsafe { raw::clock_nanosleep(clock, flags, span, left) };
        raw::set_errno(before);
        return answer.err().unwrap_or(0);
    };
    let before = entry();
    match (clock, flags & TIMER_ABSTIME != 0) {
        (CLOCK_MONOTONIC, true) => green.sleep(nanos),
        // The time of day may be set meanwhile; it is looked at once, as std's sleep_until does.
        (_, true) => green.sleep(after(Duration::from_nanos(nanos.saturating_sub(raw::realtime_ns())))),
        (_, false) => green.sleep(after(Duration::from_nanos(nanos))),
    }
    raw::set_errno(before);
    0
}

/// usleep(3).
///
/// # Safety
/// None: it takes a number.
#[unsafe(no_mangle)]
pub(super) extern "C" fn usleep(micros: useconds_t) -> c_int {
    let span = raw::span(u64::from(micros) * 1000);
    // SAFETY: the span lives until the call returns, and what is left is not asked for.
    unsafe { nanosleep(&raw const span, null_mut()) }
}

/// sleep(3): returns the seconds that are left if a signal ended it.
///
/// # Safety
/// None: it takes a number.
#[unsafe(no_mangle)]
pub(super) extern "C" fn sleep(seconds: c_uint) -> c_uint {
    let nanos = u64::from(seconds) * 1_000_000_000;
    let before = entry();
    if let Some(green) = may_doze() {
        green.sleep(after(Duration::from_nanos(nanos)));
        finish(before, Ok(0));
        return 0;
    }
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
