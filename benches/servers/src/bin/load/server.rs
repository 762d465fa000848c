//! What is read of the server's process: CPU time, exact to the nanosecond and with that of ended threads, and memory.
#![forbid(unsafe_code)]

use std::fs;
use std::io;

use nix::time::ClockId;
use nix::unistd::Pid;

/// A process that is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    pid: i32,
    clock: ClockId,
}

impl Server {
    /// Finds the process.
    pub(crate) fn new(pid: i32) -> io::Result<Server> {
        Ok(Server { pid, clock: ClockId::pid_cpu_clock_id(Pid::from_raw(pid))? })
    }

    /// Returns the CPU nanoseconds so far, of all its threads, user and kernel.
    pub(crate) fn cpu(&self) -> io::Result<u64> {
        let time = self.clock.now()?;
        Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    }

    /// Returns the bytes in memory, page tables included.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Ok(field("VmRSS:") + field("VmPTE:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_process_advances_while_it_computes() {
        let server = Server::new(std::process::id() as i32).unwrap();
        let before = server.cpu().unwrap();
        let mut sum = 0_u64;
        while server.cpu().unwrap() == before {
            (0..1000).for_each(|i| sum = std::hint::black_box(sum + i));
        }
        assert!(server.memory().unwrap() > 100 * 1024);
    }
}
