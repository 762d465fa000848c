//! The sum of short waits that block an OS thread, and its report.
//!
//! A wait for another OS thread, in a lock, a channel or a join, blocks the hub of a caller that may not wait in it. If
//! each is short, none is worth a report. But a crate that has OS threads of its own makes a queue of a hundred green
//! threads, and the program is just slow. So the waits are added up:
//!
//! ```text
//!   time      0 s                                   1.3 s
//!   blocked   |----|  |---|  |-----|  |---|  |------|      1.0 s in all: one report, which says what to do
//!             the first one begins a period             after PERIOD a new one begins
//! ```
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::gate::hub_here;
use crate::runtime::report::label;
use crate::switch::root::{Root, on_os_thread};
use crate::sys::clock::monotonic_ns;
use crate::sys::raw;
use crate::sys::runtime_syscall::{is_runtime_syscall, runtime_syscall};

/// How long waits may block an OS thread, in nanoseconds: one of them, or all in a period.
pub(super) const REPORT_AFTER: u64 = 1_000_000_000;

/// How long waits are added up, in nanoseconds.
const PERIOD: u64 = 2 * REPORT_AFTER;

/// The least time between two reports of one OS thread, in nanoseconds. A wait that lasts longer is reported then.
const REPORT_INTERVAL: u64 = 10_000_000_000;

/// The waits of a period.
#[derive(Clone, Copy)]
struct Sum {
    /// When the period began, in monotonic nanoseconds.
    since: u64,
    /// How long the waits took, in nanoseconds.
    blocked: u64,
    /// How many there were.
    waits: u32,
}

thread_local! {
    /// The sum of this OS thread. No destructor.
    static SUM: Cell<Sum> = const { Cell::new(Sum { since: 0, blocked: 0, waits: 0 }) };

    /// When this OS thread may report again, in monotonic nanoseconds. No destructor.
    static NEXT_REPORT: Cell<u64> = const { Cell::new(0) };
}

/// Returns when this OS thread may report again, in monotonic nanoseconds.
pub(super) fn next_report() -> u64 {
    on_os_thread(|| NEXT_REPORT.get())
}

/// Notes that this OS thread reports now.
pub(super) fn reports(now: u64) {
    on_os_thread(|| NEXT_REPORT.set(now.saturating_add(REPORT_INTERVAL)));
}

/// Returns this OS thread's root, if the call would block other green threads: there is a hub, and a green thread
/// besides the caller. Returns none for the runtime's calls and in a signal handler, where nothing may be reported.
pub(super) fn blocks_others() -> Option<&'static Root> {
    let (root, _) = hub_here().filter(|_| !is_runtime_syscall())?;
    (!root.current().is_main() || root.live() > 0).then_some(root)
}

/// Makes a wait that blocks the OS thread, and counts it.
pub(super) fn counted<R>(wait: impl FnOnce() -> R) -> R {
    let Some(root) = blocks_others() else { return wait() };
    let begin = monotonic_ns();
    let result = wait();
    add(root, begin, monotonic_ns());
    result
}

/// Adds a wait to the sum, and reports the sum if it is due.
fn add(root: &Root, begin: u64, end: u64) {
    // A green thread that is alone with a main that waits for it holds up nothing.
    if root.live() < 2 {
        return;
    }
    let sum = on_os_thread(|| {
        let mut sum = SUM.get();
        if begin.saturating_sub(sum.since) > PERIOD {
            sum = Sum { since: begin, blocked: 0, waits: 0 };
        }
        sum.blocked += end - begin;
        sum.waits += 1;
        SUM.set(sum);
        sum
    });
    // A wait that was long enough to be reported by itself has been.
    if sum.blocked >= REPORT_AFTER && sum.waits > 1 && end >= next_report() {
        reports(end);
        report(root, sum, end);
    }
}

/// Writes the report. The caller may hold any lock, so this function takes none of `std`'s, not even that of standard
/// error.
#[cold]
#[inline(never)]
fn report(root: &Root, sum: Sum, now: u64) {
    // The system calls of this function must not be counted.
    let _mark = runtime_syscall();
    let make = || {
        let [blocked, period] = [sum.blocked, now - sum.since].map(|ns| Duration::from_nanos(ns).as_secs_f64());
        format!(
            "greenling: {} waits for locks, channels or other OS threads have blocked this OS thread for {blocked:.1} s of \
             the last {period:.1} s; {} green threads take turns meanwhile, and the last one that waited is {}, spawned \
             at {}\n cure: threads with Builder::own_thread_locals, and monkey::patch_locks, with which such waits let \
             others run; or greenling::offload::blocking around them\n",
            sum.waits,
            root.live(),
            label(root.current()),
            root.current().spawned_at(),
        )
    };
    // A panic must not leave this function (monkey-2); the report is dropped then.
    if let Ok(text) = catch_unwind(AssertUnwindSafe(make)) {
        raw::write_stderr(text.as_bytes());
    }
}
