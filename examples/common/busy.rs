//! A look at how busy other programs keep the machine before a measurement.
#![forbid(unsafe_code)]

use std::fs;
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

/// How long to look.
const LOOK: Duration = Duration::from_millis(100);

/// The share of all processors from which on figures are about other programs, too.
const MUCH: f64 = 0.15;

/// How the processors have spent their time since the machine was started, in ticks.
struct Time {
    /// Ticks spent on work of any program, or, on a virtual machine, on another machine.
    busy: u64,
    /// The number of all ticks.
    all: u64,
}

impl Time {
    /// Reads the first line of `/proc/stat`; returns none if there is no such file.
    fn now() -> Option<Time> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<u64> = text.lines().next()?.split_whitespace().skip(1).map_while(|n| n.parse().ok()).collect();
        // proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user and
        // nice.
        let [user, nice, system, idle, waiting, irq, softirq, steal] = ticks[..].first_chunk().copied()?;
        let busy = user + nice + system + irq + softirq + steal;
        Some(Time { busy, all: busy + idle + waiting })
    }
}

/// Looks for a moment, before anything is measured, and returns a line that says how busy other programs keep the
/// machine, if they do.
pub(crate) fn others() -> Option<String> {
    let before = Time::now()?;
    sleep(LOOK);
    let after = Time::now()?;
    let share = (after.busy - before.busy) as f64 / (after.all - before.all).max(1) as f64;
    let processors = available_parallelism().map_or(1, usize::from);
    (share > MUCH)
        .then(|| format!("the machine is busy: others use {:.0} % of its {processors} processors", share * 100.0))
}
