//! The time as a count of ticks, at a few nanoseconds a reading, for traces.
//!
//! The processor counts ticks in a register: the time-stamp counter of x86-64, the virtual counter of aarch64. The
//! latter counts at one speed by definition. The former does so on a processor with the flags `constant_tsc` and
//! `nonstop_tsc`; elsewhere the monotonic clock is read, which costs some 20 ns, and a tick is a nanosecond.
//!
//! What a tick is worth is not asked of the processor. Ticks and clock are read together at the beginning and at the
//! end, and times between the two lie in proportion:
//!
//! ```text
//!   ticks   began.0 ------------- t ----------------------- now.0
//!   clock   began.1 ------------- ? ----------------------- now.1
//! ```
//!
//! Invariant ticks-1: the instruction reads one register of the processor and no memory. It may be executed in user
//! mode: Linux forbids it only to processes that ask for that (`PR_SET_TSC`).

#![allow(unsafe_code)]

use std::arch::asm;
use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::sync::OnceLock;

use super::clock::monotonic_ns;
use super::runtime_syscall::runtime_syscall;
use super::simulation::simulated;
use crate::pure::lock::get_or_init;

/// What counts the ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ticker {
    /// The counter of the processor.
    Counter,
    /// The monotonic clock, in nanoseconds.
    Clock,
    /// The virtual clock of an OS thread that simulates, in nanoseconds.
    Virtual(&'static Cell<u64>),
}

/// One moment on both scales: ticks, and monotonic nanoseconds.
pub(crate) type Moment = (u64, u64);

impl Ticker {
    /// Returns the counter of the processor, if that counts at one speed; else the clock. The virtual clock where time
    /// is virtual.
    pub(crate) fn find() -> Ticker {
        if let Some(simulated) = simulated() {
            return Ticker::Virtual(&simulated.clock);
        }
        static FOUND: OnceLock<bool> = OnceLock::new();
        if *get_or_init(&FOUND, counts_evenly) { Ticker::Counter } else { Ticker::Clock }
    }

    /// Returns the ticks of this moment.
    #[inline(always)]
    pub(crate) fn now(self) -> u64 {
        match self {
            Ticker::Counter => counter(),
            Ticker::Clock => monotonic_ns(),
            Ticker::Virtual(clock) => clock.get(),
        }
    }

    /// Reads both scales at one moment: the closest of several pairs, since the OS thread may lose the processor
    /// between the readings.
    pub(crate) fn moment(self) -> Moment {
        if let Ticker::Virtual(clock) = self {
            return (clock.get(), clock.get());
        }
        let pair = || {
            let (before, ns, after) = (self.now(), monotonic_ns(), self.now());
            let width = after.wrapping_sub(before);
            (width, (before.wrapping_add(width / 2), ns))
        };
        (0..8).map(|_| pair()).fold(pair(), |best, other| if other.0 < best.0 { other } else { best }).1
    }
}

/// Converts ticks to monotonic nanoseconds, in proportion between two moments. Ticks from before `from` give its time:
/// counters of two processors may differ by a few ticks.
pub(crate) fn to_ns(ticks: u64, from: Moment, to: Moment) -> u64 {
    let (span, nanos) = (to.0.saturating_sub(from.0), to.1.saturating_sub(from.1));
    let since = ticks.saturating_sub(from.0).min(span);
    // No bits are lost: the proportion is 1 at most.
    let part = (u128::from(since) * u128::from(nanos)).checked_div(u128::from(span)).unwrap_or(0) as u64;
    from.1 + part
}

/// Reads the counter of the processor.
#[inline(always)]
fn counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let (low, high): (u64, u64);
        // SAFETY: Invariant ticks-1: reads a register, no memory, no flags.
        unsafe {
            asm!("rdtsc", out("rax") low, out("rdx") high, options(nomem, nostack, preserves_flags));
        }
        high << 32 | low
    }
    #[cfg(target_arch = "aarch64")]
    {
        let ticks: u64;
        // SAFETY: Invariant ticks-1: reads a register, no memory, no flags.
        unsafe {
            asm!("mrs {0}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags));
        }
        ticks
    }
}

/// Reports whether the counter counts at one speed, and in all states of the processor.
fn counts_evenly() -> bool {
    if cfg!(target_arch = "aarch64") {
        return true;
    }
    let _own = runtime_syscall();
    let Ok(file) = std::fs::File::open("/proc/cpuinfo") else { return false };
    // The first processor speaks for all, as Linux assumes, too.
    let flags = BufReader::new(file).lines().map_while(Result::ok).find(|line| line.starts_with("flags"));
    let has = |flag: &str| flags.as_ref().is_some_and(|flags| flags.split(' ').any(|word| word == flag));
    has("constant_tsc") && has("nonstop_tsc")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ticks_measure_what_the_clock_measures() {
        for ticker in [Ticker::find(), Ticker::Clock] {
            let began = ticker.moment();
            let (before, ticks, after) = (monotonic_ns(), ticker.now(), monotonic_ns());
            std::thread::sleep(Duration::from_millis(20));
            let ended = ticker.moment();
            let at = to_ns(ticks, began, ended);
            // Both scales are read one after the other: as far apart as the clock itself says, and a microsecond.
            assert!(at + 1_000 >= before && at <= after + 1_000, "{ticker:?}: {before} {at} {after}");
        }
    }

    #[test]
    fn times_lie_in_proportion_and_between_the_moments() {
        let (from, to) = ((1_000, 50), (3_000, 1_050));
        assert_eq!([1_000, 2_000, 3_000].map(|ticks| to_ns(ticks, from, to)), [50, 550, 1_050]);
        assert_eq!([0, 9_999].map(|ticks| to_ns(ticks, from, to)), [50, 1_050]);
        assert_eq!(to_ns(7, from, from), 50);
        assert_eq!(to_ns(u64::MAX, (0, 0), (u64::MAX, u64::MAX)), u64::MAX);
    }
}
