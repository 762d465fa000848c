//! waitpid and waitid: the end of a child is readiness of its pidfd.
//!
//! A wait for one child that is to end is made with WNOHANG, and if the child still runs, the green thread waits for its
//! pidfd. Everything else (any child, a process group, a stop) goes to the kernel as it is and blocks the OS thread: there
//! is no descriptor for those.
//!
//! Invariant M1 holds here as in `stream.rs`.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use super::gate::{Green, blocking, entry, finish, green, part, pass};
use crate::runtime::park::NEVER;
use crate::switch::fiber::Reason;
use crate::sys::epoll::Interest;
use crate::sys::own::own;
use crate::sys::process::pidfd_open;
use crate::sys::raw::{self, Answer, P_PID, WEXITED, WNOHANG, WNOWAIT, id_t, idtype_t, pid_t, siginfo_t};

/// Makes `look`, which does not wait, until it says that child `pid` has ended.
fn until_ended(green: Green, pid: u32, look: impl Fn() -> Answer, ended: impl Fn(usize) -> bool) -> Option<Answer> {
    match look() {
        Ok(value) if !ended(value) => {}
        answer => return Some(answer),
    }
    // Without pidfds the OS thread waits.
    let end = pidfd_open(pid).ok()?;
    let answer = blocking(|| {
        loop {
            green.wait(end.as_raw_fd(), Interest::IN, Reason::Event("the end of a child"), NEVER)?;
            match look() {
                Ok(value) if !ended(value) => {}
                answer => return answer,
            }
        }
    });
    super::closing::forget(end.as_raw_fd());
    let _own = own();
    drop(end);
    Some(answer.and_then(|answer| answer))
}

/// waitpid(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    let before = entry();
    if pid > 0
        && options == 0
        && let Some(green) = green(part::PROCESS)
    {
        // SAFETY: M1; the use of resources is not asked for.
        let look = || unsafe { raw::wait4(pid, status, WNOHANG, null_mut()) };
        if let Some(answer) = until_ended(green, pid.cast_unsigned(), look, |found| found != 0) {
            return finish(before, answer) as pid_t;
        }
    }
    // SAFETY: M1.
    pass(unsafe { raw::wait4(pid, status, options, null_mut()) }) as pid_t
}

/// waitid(2).
///
/// # Safety
/// As [`waitpid`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int {
    let before = entry();
    if kind == P_PID
        && options & !WNOWAIT == WEXITED
        && !info.is_null()
        && let Some(green) = green(part::PROCESS)
    {
        let look = || {
            // SAFETY: M1: the caller's struct; a child that still runs leaves all zeros in it.
            unsafe { info.write_bytes(0, 1) };
            // SAFETY: M1; the use of resources is not asked for.
            unsafe { raw::waitid(kind, id, info, options | WNOHANG, null_mut()) }
        };
        // SAFETY: M1: a struct that `look` has filled.
        let ended = |_| unsafe { raw::pid_in(info) } != 0;
        if let Some(answer) = until_ended(green, id, look, ended) {
            return finish(before, answer) as c_int;
        }
    }
    // SAFETY: M1.
    pass(unsafe { raw::waitid(kind, id, info, options, null_mut()) }) as c_int
}
