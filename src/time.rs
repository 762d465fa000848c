//! Time: [`sleep`], and [`interval`]s that tick.
//!
//! ```
//! use greenling::time::{Duration, interval};
//!
//! let mut heartbeat = interval(Duration::from_millis(2));
//! let first = heartbeat.tick(); // at once
//! let second = heartbeat.tick(); // lets other green threads run meanwhile
//! assert_eq!(second - first, Duration::from_millis(2)); // when it was due, not when it came
//! ```
//!
//! | tokio | here | difference |
//! |---|---|---|
//! | `sleep`, `sleep_until`, `Instant`, `Duration` | same | std's types |
//! | `interval`, `interval_at`, `Interval::{tick, period, reset}` | same | |
//! | `MissedTickBehavior` | [`MissedTicks`] | a tick is missed when the next one is due, not 5 ms after its time |
//! | `timeout`, `timeout_at` | [`timeout`](crate::timeout), [`timeout_at`](crate::timeout_at) | |
//!
//! The items of `std::time` are re-exported. [`now`] is `Instant::now()` for code that is to run in a
//! [simulation](crate::sim), too.
//!
//! Ticks are computed in whole nanoseconds from the first tick, so they do not drift, however late each tick is seen:
//!
//! ```text
//!   due            0     1     2     3     4     5     6
//!   seen           0     1           (busy)   4.5              the tick of 2 is seen at 4.5: 3 and 4 are missed
//!   then Burst                                 3 4 5     6     all ticks, one after the other, until none is late
//!        Skip                                      5     6     missed ticks are left out
//!        Delay                                        5.5  6.5 a period from now on
//! ```
#![forbid(unsafe_code)]

pub use std::time::{Duration, Instant, SystemTime, SystemTimeError, TryFromFloatSecsError, UNIX_EPOCH};

use crate::sys::clock;
pub use crate::thread::{sleep, sleep_until};

/// What an [`Interval`] does with missed ticks. Ticks are missed if the next tick is due already when a tick is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MissedTicks {
    /// Missed ticks come at once, one after the other, until the interval has caught up. No tick is lost.
    #[default]
    Burst,
    /// The next tick comes a period after the late one, and the others follow from there.
    Delay,
    /// Missed ticks are left out; the next tick comes at the next multiple of the period.
    Skip,
}

/// Ticks in equal distances; see [`interval`].
#[derive(Clone, Debug)]
pub struct Interval {
    /// When the first tick is or was due.
    start: Instant,
    /// When the next tick is due, in nanoseconds after `start`.
    next: u64,
    /// Nanoseconds between ticks, at least 1.
    period: u64,
    /// What happens to missed ticks.
    missed: MissedTicks,
}

/// Returns the present moment: std's `Instant::now()`, or the virtual time in a [simulation](crate::sim).
///
/// May switch: no.
pub fn now() -> Instant {
    clock::now()
}

/// Returns an interval that ticks every `period`, the first time at once. Missed ticks come in a
/// [burst](MissedTicks::Burst).
///
/// # Panics
/// If `period` is zero.
///
/// May switch: no.
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(now(), period)
}

/// Returns an [`interval`] with its first tick at `start`.
///
/// # Panics
/// If `period` is zero.
///
/// May switch: no.
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval's period must be more than zero");
    Interval { start, next: 0, period: nanos(period), missed: MissedTicks::Burst }
}

/// Returns `duration` in nanoseconds, as many as fit: 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns when the next tick is due, after a tick that was due at `due` and is seen at `now`. All in nanoseconds from
/// the first tick.
fn next_due(due: u64, now: u64, period: u64, missed: MissedTicks) -> u64 {
    let next = due.saturating_add(period);
    if now < next {
        return next;
    }
    match missed {
        MissedTicks::Burst => next,
        MissedTicks::Delay => now.saturating_add(period),
        // The first multiple after `now`: a tick that is due at `now` itself is seen as late as `now`, and so missed.
        MissedTicks::Skip => now.saturating_add(period - (now - due) % period),
    }
}

impl Interval {
    /// Returns the same interval with another answer to missed ticks.
    ///
    /// May switch: no.
    pub fn on_missed(self, missed: MissedTicks) -> Interval {
        Interval { missed, ..self }
    }

    /// Waits for the next tick and returns when that tick was due. Never early. A tick is not lost if a kill or a
    /// [`timeout`](crate::timeout) ends the wait: the next call waits for the same tick.
    ///
    /// If the tick is due already, other threads that can run have their turn first. So a loop that is late for every
    /// tick does not starve them, and can be killed. While the caller unwinds, the call returns at once, and the tick
    /// is still to come.
    ///
    /// # Panics
    /// As [`sleep_until`].
    ///
    /// May switch: yes.
    pub fn tick(&mut self) -> Instant {
        let due = self.next_tick();
        // Also if the tick is due already: that lets other threads run.
        sleep_until(due);
        let now = now();
        // Not so if the caller unwinds, and the sleep returned at once.
        if now >= due {
            self.next = next_due(self.next, nanos(now.saturating_duration_since(self.start)), self.period, self.missed);
        }
        due
    }

    /// Returns when the next tick is due, which may be in the past.
    ///
    /// May switch: no.
    pub fn next_tick(&self) -> Instant {
        self.start.checked_add(Duration::from_nanos(self.next)).unwrap_or(self.start)
    }

    /// Returns the time between ticks.
    ///
    /// May switch: no.
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.period)
    }

    /// Restarts the interval: the next tick comes a period from now.
    ///
    /// May switch: no.
    pub fn reset(&mut self) {
        (self.start, self.next) = (now(), self.period);
    }
}

#[cfg(test)]
mod tests {
    use super::MissedTicks::{Burst, Delay, Skip};
    use super::*;

    #[test]
    fn in_time_all_policies_agree() {
        for missed in [Burst, Delay, Skip] {
            for (due, now) in [(0, 0), (0, 9), (10, 10), (10, 19), (1_000_000, 1_000_009)] {
                assert_eq!(next_due(due, now, 10, missed), due + 10, "{missed:?} {due} {now}");
            }
        }
    }

    #[test]
    fn a_burst_loses_no_tick() {
        let (mut due, mut seen) = (0, Vec::new());
        for _ in 0..5 {
            due = next_due(due, 35, 10, Burst);
            seen.push(due);
        }
        assert_eq!(seen, [10, 20, 30, 40, 50]);
    }

    #[test]
    fn a_delay_starts_over_from_when_the_tick_was_seen() {
        assert_eq!(next_due(0, 10, 10, Delay), 20);
        assert_eq!(next_due(0, 35, 10, Delay), 45);
        assert_eq!(next_due(45, 47, 10, Delay), 55); // and does not drift from there
    }

    #[test]
    fn a_skip_goes_to_the_next_multiple() {
        for (now, next) in [(10, 20), (11, 20), (19, 20), (20, 30), (35, 40), (40, 50)] {
            assert_eq!(next_due(0, now, 10, Skip), next, "{now}");
        }
        assert_eq!(next_due(7, 47, 10, Skip), 57);
        // Every tick that is due comes or is skipped, none twice, whatever the delays.
        let mut due = 0;
        for late in [0, 3, 10, 99, 100, 101, 1, 12_345] {
            let next = next_due(due, due + late, 100, Skip);
            assert!(next > due + late && next - (due + late) <= 100 && next.is_multiple_of(100), "{due} {late} {next}");
            due = next;
        }
    }

    #[test]
    fn no_time_is_too_far() {
        for missed in [Burst, Delay, Skip] {
            assert_eq!(next_due(u64::MAX - 5, u64::MAX - 5, 10, missed), u64::MAX);
            assert_eq!(next_due(0, u64::MAX, u64::MAX, missed), u64::MAX);
            assert_eq!(next_due(u64::MAX, u64::MAX, 1, missed), u64::MAX);
        }
        let never = interval(Duration::MAX);
        assert_eq!(never.period(), Duration::from_nanos(u64::MAX));
        assert!(never.next_tick() <= Instant::now(), "the first one comes at once");
    }

    #[test]
    fn the_picture_is_right() {
        let half = |halves: u64| halves * 5; // in units of half a period
        assert_eq!(next_due(half(4), half(9), 10, Burst), half(6));
        assert_eq!(next_due(half(4), half(9), 10, Skip), half(10));
        assert_eq!(next_due(half(4), half(9), 10, Delay), half(11));
    }
}
