//! What the kernel tells of an OS thread of this process: its number and name, whether it runs or in which system call
//! it waits, which signals it has blocked, and how long it had to wait for a processor.
//!
//! All of this is text in `/proc/self/task`; where that is not mounted, nothing is known, which is no error.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;

use super::endpoint::endpoint;

/// What an OS thread does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It has a processor, or waits for one.
    Runs,
    /// It is in a system call: the number, and the first argument.
    Calls(i64, u64),
    /// It waits in the kernel, but not in a system call: for a page of a file, say.
    Faults,
    /// The kernel does not say.
    Unknown,
}

/// The system calls in which programs wait, what they wait for, and whether the first argument is a descriptor.
const CALLS: &[(i64, &str, &str, bool)] = &[
    (libc::SYS_futex, "futex", "a lock, a channel or the end of an OS thread", false),
    (libc::SYS_read, "read", "", true),
    (libc::SYS_readv, "readv", "", true),
    (libc::SYS_pread64, "pread64", "", true),
    (libc::SYS_write, "write", "", true),
    (libc::SYS_writev, "writev", "", true),
    (libc::SYS_pwrite64, "pwrite64", "", true),
    (libc::SYS_recvfrom, "recvfrom", "", true),
    (libc::SYS_recvmsg, "recvmsg", "", true),
    (libc::SYS_sendto, "sendto", "", true),
    (libc::SYS_sendmsg, "sendmsg", "", true),
    (libc::SYS_sendfile, "sendfile", "", true),
    (libc::SYS_accept, "accept", "", true),
    (libc::SYS_accept4, "accept4", "", true),
    (libc::SYS_connect, "connect", "", true),
    (libc::SYS_fsync, "fsync", "", true),
    (libc::SYS_fdatasync, "fdatasync", "", true),
    (libc::SYS_flock, "flock", "", true),
    (libc::SYS_fcntl, "fcntl", "a lock of a file", true),
    (libc::SYS_ioctl, "ioctl", "", true),
    (libc::SYS_openat, "openat", "a file to be opened", false),
    (libc::SYS_wait4, "wait4", "a child", false),
    (libc::SYS_waitid, "waitid", "a child", false),
    (libc::SYS_ppoll, "ppoll", "descriptors", false),
    (libc::SYS_pselect6, "pselect6", "descriptors", false),
    (libc::SYS_epoll_pwait, "epoll_pwait", "descriptors", false),
    (libc::SYS_nanosleep, "nanosleep", "a point in time", false),
    (libc::SYS_clock_nanosleep, "clock_nanosleep", "a point in time", false),
    (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait", "a signal", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", "descriptors", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, "select", "descriptors", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait", "descriptors", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", "a file to be opened", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pause, "pause", "a signal", false),
];

impl fmt::Display for Doing {
    /// Writes what follows the name of the OS thread in a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Doing::Runs => f.write_str("runs"),
            Doing::Faults => f.write_str("waits in the kernel, but in no system call"),
            Doing::Unknown => f.write_str("does something that the kernel does not tell"),
            Doing::Calls(number, argument) => match CALLS.iter().find(|call| call.0 == number) {
                None => write!(f, "is in system call {number}"),
                Some((_, name, what, false)) => write!(f, "is in system call {name}, which waits for {what}"),
                Some((_, name, _, true)) => {
                    // The argument is a C int.
                    let fd = argument as u32 as i32;
                    write!(f, "is in system call {name} of descriptor {fd}")?;
                    endpoint(fd).map_or(Ok(()), |endpoint| write!(f, " ({endpoint})"))
                }
            },
        }
    }
}

/// Reports whether a system call is the one in which threads wait for each other.
pub(crate) fn is_futex(number: i64) -> bool {
    number == libc::SYS_futex
}

/// Returns what OS thread `thread` of this process does.
pub(crate) fn doing(thread: i32) -> Doing {
    match fs::read_to_string(format!("/proc/self/task/{thread}/syscall")) {
        Ok(text) => parse_syscall(&text),
        // A kernel without this file: the state says a little.
        Err(_) => match fs::read_to_string(format!("/proc/self/task/{thread}/stat")) {
            // Behind the name, which is in parentheses and may hold any byte.
            Ok(text) if text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R')) => Doing::Runs,
            _ => Doing::Unknown,
        },
    }
}

/// Returns what the text of `/proc/../syscall` says.
fn parse_syscall(text: &str) -> Doing {
    let mut words = text.split_whitespace();
    match words.next() {
        Some("running") => Doing::Runs,
        Some("-1") => Doing::Faults,
        Some(number) => {
            let argument = words.next().and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
            number.parse().map_or(Doing::Unknown, |number| Doing::Calls(number, argument.unwrap_or(0)))
        }
        None => Doing::Unknown,
    }
}

/// Returns the signals that OS thread `thread` of this process has blocked, one bit each, where bit 0 is signal 1; none
/// if the kernel does not say.
pub(crate) fn blocked_signals(thread: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    let word = text.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
    u64::from_str_radix(word.trim(), 16).ok()
}

/// Returns for how long OS thread `thread` of this process could have run and had no processor since it began, in
/// nanoseconds; none if the kernel does not say. A wait counts when it is over.
pub(crate) fn waited(thread: i32) -> Option<u64> {
    schedstat(thread, 1)
}

/// Returns for how long OS thread `thread` of this process has had a processor since it began, in nanoseconds; none if
/// the kernel does not say.
pub(crate) fn ran(thread: i32) -> Option<u64> {
    schedstat(thread, 0)
}

/// Returns a number of what the kernel counts of an OS thread: the time on a processor, that in the run queue, and how
/// often it got a processor.
fn schedstat(thread: i32, which: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().nth(which)?.parse().ok()
}

/// Returns the name of OS thread `thread` of this process, if the kernel tells it.
pub(crate) fn name(thread: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::process::thread_id;
    use super::*;

    #[test]
    fn the_text_of_the_kernel_is_understood() {
        assert_eq!(parse_syscall("running\n"), Doing::Runs);
        assert_eq!(parse_syscall("-1 0x7ffc 0x7f3a\n"), Doing::Faults);
        assert_eq!(parse_syscall("202 0x7f00 0x80 0x0 0x0 0x0 0x0 0x7ffc 0x7f3a\n"), Doing::Calls(202, 0x7f00));
        assert_eq!(["", "what"].map(parse_syscall), [Doing::Unknown, Doing::Unknown]);
        assert_eq!(Doing::Calls(9999, 1).to_string(), "is in system call 9999");
        let futex = Doing::Calls(libc::SYS_futex, 1).to_string();
        assert_eq!(futex, "is in system call futex, which waits for a lock, a channel or the end of an OS thread");
    }

    #[test]
    fn this_os_thread_runs_under_its_name_and_one_that_is_gone_is_unknown() {
        assert_eq!(doing(0), Doing::Unknown);
        assert_eq!((name(0), blocked_signals(0), waited(0)), (None, None, None));
        if name(thread_id().cast_signed()).is_some() {
            assert_eq!(blocked_signals(thread_id().cast_signed()).expect("a mask") & 1 << (libc::SIGSEGV - 1), 0);
        }
    }
}
