//! The names that the expansion of `select!` uses.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

pub use crate::pure::drops::Held;
pub use crate::runtime::choose::{AT_ONCE, FOR_EVER, Order, SelectArm, select};
pub use crate::runtime::select_source::{
    SelectAccept, SelectEnd, SelectReadable, SelectRecv, SelectSend, SelectSendFrom, SelectWait, SelectWritable,
};

use crate::runtime::arms::TimerArm;
use crate::sys::clock::{NEVER, after as monotonic_after, left_until, monotonic_of};

/// Makes the arm `after(limit)`.
pub fn after(limit: Duration) -> TimerArm {
    TimerArm::new(monotonic_after(limit))
}

/// Makes the arm `at(instant)`, which goes on at once if the instant has passed.
pub fn at(instant: Instant) -> TimerArm {
    // `NEVER` stands for no deadline, so the farthest instant is just before it.
    TimerArm::new(monotonic_of(instant).min(NEVER - 1))
}

/// Returns the time limit `default(after: limit)`, in monotonic nanoseconds.
pub fn until_after(limit: Duration) -> u64 {
    // No time at all means no wait, as with a `default` without a limit.
    if limit.is_zero() { AT_ONCE } else { monotonic_after(limit) }
}

/// Returns the time limit `default(at: instant)`, in monotonic nanoseconds.
pub fn until_at(instant: Instant) -> u64 {
    until_after(left_until(instant))
}
