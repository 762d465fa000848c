//! What the kernel says about other processes: CPU time, memory, OS threads.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "no example needs all of it")]

use std::fs;
use std::time::Duration;

/// The kernel counts `utime` and `stime` in ticks of 1/100 s, on every platform that greenling runs on (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// The memory and OS threads of several processes, added up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident memory, shared pages counted for each process that has them.
    pub(crate) resident_kib: u64,
    /// The same, but a page that `n` processes have counts for each of them as the `n`th part of a page.
    pub(crate) proportional_kib: u64,
    /// The number of OS threads.
    pub(crate) threads: u64,
}

/// Returns the CPU time, user's and kernel's, of all OS threads of all `processes`, ended ones included; a multiple of
/// [`TICK`].
/// `Err` names the first process that is not there.
pub(crate) fn cpu(processes: &[u32]) -> Result<Duration, u32> {
    processes.iter().map(|&process| cpu_of(process).ok_or(process)).sum()
}

/// Returns the memory of `processes`. Takes a while if there are many mappings.
pub(crate) fn memory(processes: &[u32]) -> Result<Memory, u32> {
    let mut sum = Memory::default();
    for &process in processes {
        let one = memory_of(process).ok_or(process)?;
        sum.resident_kib += one.resident_kib;
        sum.proportional_kib += one.proportional_kib;
        sum.threads += one.threads;
    }
    Ok(sum)
}

/// Returns the CPU time of this process.
pub(crate) fn own_cpu() -> Duration {
    cpu_of(std::process::id()).unwrap_or_default()
}

fn memory_of(process: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let threads = field(&status, "Threads:")?;
    // VmRSS is late by some pages for each processor; the sum over all mappings is exact.
    let exact = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok();
    let exact = |key| exact.as_ref().and_then(|text| field(text, key));
    let resident_kib = exact("Rss:").or_else(|| field(&status, "VmRSS:"))?;
    Some(Memory { resident_kib, proportional_kib: exact("Pss:").unwrap_or(resident_kib), threads })
}

fn cpu_of(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // proc_pid_stat(5): the name in parentheses may contain anything; utime and stime are the 12th and 13th after it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * ticks()?.saturating_add(ticks()?))
}

fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
