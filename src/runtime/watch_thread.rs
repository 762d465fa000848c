//! The OS thread of the watch: begins and ends it, and looks at the hubs in between.
//!
//! ```text
//!   set_limit: a limit ---> starts the OS thread, if there is none ---> waits for the next look, or for a change
//!              none    ---> the OS thread waits for a limit             looks (`watchdog`); writes reports
//! ```
//!
//! The OS thread is one of its own, and not the monitor: a report waits for the answer of a hub, for the loader's lock
//! and for the reader of standard error, and each of these would stop the ticks of all hubs.
#![forbid(unsafe_code)]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, OnceLock, PoisonError};
use std::time::Duration;

use super::by_environment;
use super::watchdog::{LEAST_LIMIT, Watchdog, interval};
use crate::pure::drops::drop_quietly;
use crate::sys::clock::monotonic_ns;
use crate::sys::fork::{fork_generation, watch_forks};
use crate::sys::fork_lock::ForkLock;
use crate::sys::service_thread;

/// The environment variable that says for how long a hub may be held up until that is reported.
const WATCH_VARIABLE: &str = "GREENLING_WATCH";

/// The size of the OS thread's stack, in bytes: a report formats texts and reads files.
const STACK: usize = 256 * 1024;

/// What the program and the OS thread of the watch share.
#[derive(Default)]
struct Shared {
    /// How long a hub may be held up, in nanoseconds; none while the watch is off.
    limit: Option<u64>,
    /// Whether the OS thread runs.
    runs: bool,
}

/// The limit, and whether the OS thread runs. No holder panics or runs foreign code (lock-1).
static SHARED: ForkLock<Shared> = ForkLock::new();

/// Notified when the limit changes.
static CHANGED: Condvar = Condvar::new();

/// One more than the count of forks of the process in which the watch is on; 0 while it is off. A copy of what is in
/// `SHARED`, which hubs read at each poll.
static ON_IN: AtomicU32 = AtomicU32::new(0);

/// Reports whether the watch is on in the process with this count of forks.
#[inline]
pub(super) fn is_on_in(generation: u32) -> bool {
    // Relaxed: the number guards nothing; a hub may see it one poll later.
    ON_IN.load(Ordering::Relaxed) == generation.wrapping_add(1)
}

/// Sets for how long a hub may be held up until that is reported, in nanoseconds; none ends the watch.
///
/// # Errors
/// No OS thread can be started; forks cannot be watched.
pub(crate) fn set_limit(limit: Option<u64>) -> io::Result<()> {
    watch_forks()?;
    let mut shared = SHARED.lock();
    if limit.is_some() && !shared.runs {
        service_thread::start("greenling-watch", Some(STACK), run)?;
        shared.runs = true;
    }
    shared.limit = limit;
    // Relaxed: as in `is_on_in`.
    ON_IN.store(limit.map_or(0, |_| fork_generation().wrapping_add(1)), Ordering::Relaxed);
    CHANGED.notify_one();
    Ok(())
}

/// Begins the watch if the environment says so; once per process. A value that is no time is complained of.
pub(super) fn watch_by_environment() {
    static DONE: OnceLock<()> = OnceLock::new();
    by_environment::once(&DONE, WATCH_VARIABLE, |text| {
        let limit = parse_time(text)
            .and_then(limit_of)
            .ok_or_else(|| String::from("not a time of 20 ms and more: write 500ms, 1s or 2m, or 0 for no watch"))?;
        set_limit(limit).map_err(|error| error.to_string())
    });
}

/// Returns the limit that a time stands for: none for zero, which ends the watch. Fails if the time is too short.
pub(crate) fn limit_of(time: Duration) -> Option<Option<u64>> {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    match nanos {
        0 => Some(None),
        _ => (nanos >= LEAST_LIMIT).then_some(Some(nanos)),
    }
}

/// Returns the time that a text stands for: a number with `ms`, `s` or `m` behind it, or 0.
fn parse_time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim_start() {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "" if number == 0.0 => 0.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// Looks at the hubs while there is a limit, until the process ends.
fn run() {
    let (mut watchdog, mut next_look) = (Watchdog::default(), 0_u64);
    let mut shared = SHARED.lock();
    loop {
        let rest = Duration::from_nanos(next_look.saturating_sub(monotonic_ns()));
        shared = match shared.limit {
            None => CHANGED.wait(shared).unwrap_or_else(PoisonError::into_inner),
            Some(_) if !rest.is_zero() => CHANGED.wait_timeout(shared, rest).unwrap_or_else(PoisonError::into_inner).0,
            Some(limit) => {
                // A report takes its time, and the program can change the limit meanwhile.
                drop(shared);
                // A panic would end the OS thread; then the report is dropped.
                drop_quietly(catch_unwind(AssertUnwindSafe(|| watchdog.look(limit))));
                next_look = monotonic_ns() + interval(limit);
                SHARED.lock()
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_units_and_other_texts_are_refused() {
        let time = |text| parse_time(text).map(|time| time.as_millis());
        assert_eq!(
            ["1s", "500ms", "1.5 s", "2m", "0", " 1s "].map(time),
            [1000, 500, 1500, 120_000, 0, 1000].map(Some)
        );
        assert_eq!(["", "1", "s", "-1s", "1h", "1s1", "1e3s", "NaN", "..s"].map(time), [None; 9]);
        assert_eq!(limit_of(Duration::ZERO), Some(None));
        assert_eq!(limit_of(Duration::from_millis(20)), Some(Some(LEAST_LIMIT)));
        assert_eq!(limit_of(Duration::from_millis(19)), None);
        assert_eq!(limit_of(Duration::MAX), Some(Some(u64::MAX)));
    }
}
