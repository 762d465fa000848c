//! The monotonic clock as one integer: nanoseconds since some moment before the process began.
//!
//! `std::time::Instant` reads the same clock but has no integer view: a timer wheel counts ticks, a deadline in a
//! control block is one `u64`, and a virtual clock wants to invent values. A `u64` of nanoseconds lasts 584 years.
//!
//! Invariant clock-1: the clock never runs backwards and never jumps with the wall clock (clock_gettime(2)). The clock
//! stands still while the machine is suspended.

#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::kernel_clock;
use super::simulation::{instant_of, virtual_ns, virtual_of};
use crate::pure::lock::get_or_init;

/// How long a wait may last: `None` for ever, `Some(0)` not at all, `Some(ns)` at least that many nanoseconds.
pub(crate) type Timeout = Option<u64>;

/// The deadline of a wait without one, in monotonic nanoseconds.
pub(crate) const NEVER: u64 = u64::MAX;

/// The number of nanoseconds in a second.
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Reads the monotonic clock, in nanoseconds; the virtual one in a simulation.
///
/// Costs some 20 ns: the vDSO answers without entering the kernel.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    virtual_ns().unwrap_or_else(kernel_ns)
}

/// Reads the kernel's monotonic clock, in nanoseconds.
#[inline(always)]
fn kernel_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live timespec that the call fills (kernel-clock-1); the call cannot fail for CLOCK_MONOTONIC
    // (clock_gettime(2)).
    let result = unsafe { kernel_clock::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    debug_assert_eq!(result, 0, "CLOCK_MONOTONIC exists on every Linux");
    // Both parts are positive: the clock counts from the boot.
    now.tv_sec as u64 * NANOS_PER_SEC + now.tv_nsec as u64
}

/// Returns the deadline of a wait for `timeout` that begins now, in monotonic nanoseconds: at most `NEVER - 1`.
#[inline]
pub(crate) fn after(timeout: Duration) -> u64 {
    let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    monotonic_ns().saturating_add(nanos).min(NEVER - 1)
}

/// Converts a point in time to the count of [`monotonic_ns`]: never earlier, and at most about a microsecond later.
/// Equal points give equal numbers, and the order of points is kept. Points beyond the range give 0 or `u64::MAX`.
///
/// `std` reads the same clock but hides the number. The two are read side by side once, which gives the distance
/// between them for good; to measure from the moment of each call would give another number each time.
///
/// # Panics
/// In a simulation, for a point of the kernel's clock: its distance to the virtual time would be another in each run.
pub(crate) fn monotonic_of(at: Instant) -> u64 {
    if virtual_ns().is_some() {
        let Some(ns) = virtual_of(at) else {
            panic!("greenling: a simulation got a time of std's `Instant::now()`; use `greenling::time::now()`")
        };
        return ns;
    }
    static ANCHOR: OnceLock<(Instant, u64)> = OnceLock::new();
    let &(instant, ns) = get_or_init(&ANCHOR, anchor);
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    match at.checked_duration_since(instant) {
        Some(later) => ns.saturating_add(nanos(later)),
        None => ns.saturating_sub(nanos(instant.duration_since(at))),
    }
}

/// Returns the present moment as an `Instant`; that of the virtual clock in a simulation.
#[inline]
pub(crate) fn now() -> Instant {
    virtual_ns().map_or_else(Instant::now, instant_of)
}

/// Returns how long it is until `at`: zero if it has passed.
///
/// # Panics
/// As [`monotonic_of`].
#[inline]
pub(crate) fn left_until(at: Instant) -> Duration {
    match virtual_ns() {
        Some(now) => Duration::from_nanos(monotonic_of(at).saturating_sub(now)),
        None => at.saturating_duration_since(Instant::now()),
    }
}

/// Returns one reading of each clock; the number is not earlier than the `Instant`, nor much later. Takes the closest
/// of several pairs, since the OS thread may lose the processor between the two readings.
fn anchor() -> (Instant, u64) {
    let pair = || {
        let (before, instant, after) = (kernel_ns(), Instant::now(), kernel_ns());
        (after - before, (instant, after))
    };
    // The shorter the time between the readings, the closer they are.
    let mut best = pair();
    for _ in 0..8 {
        let another = pair();
        if another.0 < best.0 {
            best = another;
        }
    }
    best.1
}

/// Converts a span of `ns` nanoseconds to the kernel's form.
#[inline]
pub(super) fn timespec(ns: u64) -> libc::timespec {
    // No cast truncates: the seconds of a u64 of nanoseconds need 35 bits, the rest 30.
    libc::timespec { tv_sec: (ns / NANOS_PER_SEC) as libc::time_t, tv_nsec: (ns % NANOS_PER_SEC) as libc::c_long }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let mut last = monotonic_ns();
        for _ in 0..10_000 {
            let now = monotonic_ns();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_clock_counts_the_same_nanoseconds_as_instant() {
        // Each clock encloses the other, so the order of the four readings bounds both spans, however slow the machine.
        let (outer, inner) = (Instant::now(), monotonic_ns());
        std::thread::sleep(Duration::from_millis(5));
        let (inner, middle) = (monotonic_ns() - inner, Instant::now());
        assert!(inner >= 5_000_000);
        assert!(u128::from(inner) <= (middle - outer).as_nanos());
    }

    #[test]
    fn a_point_in_time_has_one_number_and_is_never_early() {
        let at = Instant::now() + Duration::from_millis(1);
        let number = monotonic_of(at);
        let micro = Duration::from_micros(1);
        for _ in 0..1000 {
            assert_eq!(monotonic_of(at), number);
        }
        assert_eq!(monotonic_of(at + micro), number + 1000);
        assert_eq!(monotonic_of(at - 1000 * micro), number - 1_000_000);
        while monotonic_ns() < number {
            std::hint::spin_loop();
        }
        assert!(Instant::now() >= at);
        // Of the far past and of the far future there is a number, too.
        let far = Duration::from_secs(1 << 40);
        assert!(at.checked_sub(far).is_none_or(|past| monotonic_of(past) == 0));
        assert!(at.checked_add(far).is_none_or(|future| monotonic_of(future) == u64::MAX));
    }

    #[test]
    fn a_span_splits_into_seconds_and_nanoseconds() {
        let split = |ns| (timespec(ns).tv_sec, timespec(ns).tv_nsec);
        assert_eq!(split(0), (0, 0));
        assert_eq!(split(999_999_999), (0, 999_999_999));
        assert_eq!(split(1_000_000_000), (1, 0));
        assert_eq!(split(u64::MAX), (18_446_744_073, 709_551_615));
    }
}
