//! What the kernel says of a server: processes, CPU time, and the memory of the kernel itself.
#![forbid(unsafe_code)]

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The processes of a server, and how many OS threads they have.
#[derive(Default)]
pub(crate) struct Family {
    /// The ids of the processes.
    pub(crate) processes: Vec<u32>,
    /// OS threads of all of them.
    pub(crate) threads: u64,
}

impl Family {
    /// Returns a server and, if it forks, its children.
    pub(crate) fn of(server: u32) -> Family {
        let all = fs::read_dir("/proc").into_iter().flatten();
        let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let mut family = Family::default();
        for id in ids {
            if let Some((parent, threads)) = parent_and_threads(id)
                && (id == server || parent == server)
            {
                family.processes.push(id);
                family.threads += threads;
            }
        }
        family
    }
}

/// Returns the parent of a process, and how many OS threads the process has.
fn parent_and_threads(process: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // proc_pid_stat(5): after the name in parentheses, the parent is the 2nd and the number of threads the 18th.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(1);
    Some((fields.next()?.parse().ok()?, fields.nth(15)?.parse().ok()?))
}

/// Returns the CPU time of all threads of those processes that are there, to the nanosecond.
pub(crate) fn cpu(processes: &[u32]) -> Duration {
    let of_one = |&process: &u32| {
        let clock = clock_getcpuclockid(Pid::from_raw(process as i32)).ok()?;
        Some(Duration::from(clock_gettime(clock).ok()?))
    };
    processes.iter().filter_map(of_one).sum()
}

/// Returns the memory that the kernel has for its own objects: sockets, descriptors, files.
pub(crate) fn slab_kib() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    text.lines().find_map(|line| line.strip_prefix("Slab:"))?.trim().strip_suffix(" kB")?.parse().ok()
}
