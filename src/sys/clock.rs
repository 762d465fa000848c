//! The monotonic clock as one integer: nanoseconds since some moment before the process began.
//!
//! `std::time::Instant` reads the same clock but has no integer view: a timer wheel counts ticks, a deadline in a
//! control block is one `u64`, and a virtual clock wants to invent values. A `u64` of nanoseconds lasts 584 years.
//!
//! Invariant T1: the clock never runs backwards and never jumps with the wall clock (clock_gettime(2)). It stands
//! still while the machine is suspended.

#![allow(unsafe_code)]

/// How long a wait may last: `None` = for ever, `Some(0)` = look and return, `Some(ns)` = at least that many
/// nanoseconds.
pub(crate) type Timeout = Option<u64>;

/// Nanoseconds in a second.
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Reads the monotonic clock, in nanoseconds.
///
/// Costs some 20 ns: the vDSO answers without entering the kernel.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live timespec that the call fills; it cannot fail for CLOCK_MONOTONIC (clock_gettime(2)).
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    debug_assert_eq!(result, 0, "CLOCK_MONOTONIC exists on every Linux");
    // Both parts are positive: the clock counts from the boot.
    now.tv_sec as u64 * NANOS_PER_SEC + now.tv_nsec as u64
}

/// The kernel's form of a span of `ns` nanoseconds.
#[inline]
pub(super) fn timespec(ns: u64) -> libc::timespec {
    // No cast cuts: the seconds of a u64 of nanoseconds need 35 bits, the rest 30.
    libc::timespec { tv_sec: (ns / NANOS_PER_SEC) as libc::time_t, tv_nsec: (ns % NANOS_PER_SEC) as libc::c_long }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

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
    fn a_span_splits_into_seconds_and_nanoseconds() {
        let split = |ns| (timespec(ns).tv_sec, timespec(ns).tv_nsec);
        assert_eq!(split(0), (0, 0));
        assert_eq!(split(999_999_999), (0, 999_999_999));
        assert_eq!(split(1_000_000_000), (1, 0));
        assert_eq!(split(u64::MAX), (18_446_744_073, 709_551_615));
    }
}
