//! wait, waitpid, waitid and their relatives: waiting for the end of one child, or of any.
//!
//! Each call is first made with WNOHANG. If there is no answer yet, the arguments say what to wait for:
//!
//! ```text
//!   the end of one child     the child's pidfd, in the hub
//!   the end of one pidfd     the pidfd, in the hub
//!   any child, a process     no descriptor stands for those: an OS thread of a pool waits, with WNOWAIT, which leaves
//!   group, a stop            the child to the caller; the caller then makes the call again, with WNOHANG
//! ```
//!
//! So it is always the caller's own call that takes the child, and a caller that is killed has taken none. The OS
//! thread that waited on behalf of the caller stays until some matching child ends; there are at most [`MAX_WAITERS`]
//! such threads.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use super::gate::{Green, blocking, finish, green, part, pass, saved_errno};
use crate::offload::{PerProcess, ThreadPool};
use crate::switch::fiber::Reason;
use crate::sys::clock::NEVER;
use crate::sys::epoll::Interest;
use crate::sys::numbers::{NumberedFile, file_of};
use crate::sys::process::pidfd_open;
use crate::sys::raw::{
    self, __WNOTHREAD, Answer, ECANCELED, P_ALL, P_PGID, P_PID, P_PIDFD, WEXITED, WNOHANG, WNOWAIT, id_t, idtype_t,
    pid_t, rusage, siginfo_t,
};
use crate::sys::runtime_syscall::runtime_syscall;

/// The most OS threads that wait for children at once.
const MAX_WAITERS: usize = 16;

/// The OS threads that wait for children.
static POOL: PerProcess = PerProcess::new();

/// The reason that reports print.
const REASON: Reason = Reason::Event("the end of a child");

/// The arguments of waitid(2), without pointers.
#[derive(Clone, Copy)]
struct WaitQuery {
    /// The meaning of `id`.
    kind: idtype_t,
    /// The child, process group or pidfd.
    id: id_t,
    /// The events besides an end, and flags.
    options: c_int,
}

impl WaitQuery {
    /// Translates the arguments of wait4(2). The options have the same bits, except that wait4 implies WEXITED.
    fn of_wait4(pid: pid_t, options: c_int) -> WaitQuery {
        let (kind, id) = match pid {
            ..-1 => (P_PGID, pid.unsigned_abs()),
            -1 => (P_ALL, 0),
            0 => (P_PGID, raw::process_group().cast_unsigned()),
            1.. => (P_PID, pid.cast_unsigned()),
        };
        WaitQuery { kind, id, options: options | WEXITED }
    }

    /// Reports whether the query is for the end of one child only.
    fn is_of_one_end(self) -> bool {
        matches!(self.kind, P_PID | P_PIDFD) && self.options & !WNOWAIT == WEXITED
    }

    /// Waits on an OS thread of the pool until there may be an answer.
    fn wait_on_pool(self) -> Result<(), i32> {
        let pool = POOL.get(|| ThreadPool::builder().max_threads(MAX_WAITERS).name("greenling-wait").build());
        let ask = move || {
            let mut info = MaybeUninit::<siginfo_t>::zeroed();
            let (WaitQuery { kind, id, options }, info) = (self, info.as_mut_ptr());
            // SAFETY: the struct lives until the call returns; a null pointer asks for no resource usage.
            let _ = unsafe { raw::waitid(kind, id, info, options | WNOWAIT, null_mut()) };
        };
        let asked = blocking(|| pool.offer("the end of any child", false, ask))?;
        asked.map_err(|(error, _)| std::io::Error::from(error).raw_os_error().unwrap_or(ECANCELED))
    }
}

/// Calls `look`, which does not wait, until `is_answer` accepts a result; waits in between as the query allows.
fn until_answered(
    green: Green,
    query: WaitQuery,
    look: impl Fn() -> Answer,
    is_answer: impl Fn(usize) -> bool,
) -> Option<Answer> {
    match look() {
        Ok(value) if !is_answer(value) => {}
        answer => return Some(answer),
    }
    let again = |wait: &dyn Fn() -> Result<(), i32>| {
        loop {
            wait()?;
            match look() {
                Ok(value) if !is_answer(value) => {}
                answer => return answer,
            }
        }
    };
    // Any child, a group, a stop: no descriptor stands for those.
    if !query.is_of_one_end() {
        return Some(again(&|| query.wait_on_pool()));
    }
    let wait = |end: NumberedFile| blocking(|| green.wait(end, Interest::IN, REASON, NEVER))?;
    if query.kind == P_PIDFD {
        let end = file_of(query.id.cast_signed());
        return Some(again(&|| wait(end)));
    }
    // One child: wait for the pidfd, or block the OS thread on a kernel without pidfds.
    let end = pidfd_open(query.id).ok()?;
    let answer = again(&|| wait(file_of(end.as_raw_fd())));
    super::closing::forget(end.as_raw_fd());
    let _mark = runtime_syscall();
    drop(end);
    Some(answer)
}

/// Stands in for wait4(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    let before = saved_errno();
    // With __WNOTHREAD only this OS thread finds the child, so the pool cannot wait.
    if options & (WNOHANG | __WNOTHREAD) == 0
        && let Some(green) = green(part::PROCESS)
    {
        // SAFETY: monkey-1.
        let look = || unsafe { raw::wait4(pid, status, options | WNOHANG, usage) };
        if let Some(answer) = until_answered(green, WaitQuery::of_wait4(pid, options), look, |found| found != 0) {
            return finish(before, answer) as pid_t;
        }
    }
    // SAFETY: monkey-1.
    pass(unsafe { raw::wait4(pid, status, options, usage) }) as pid_t
}

/// Stands in for wait3(2).
///
/// # Safety
/// As [`wait4`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    // SAFETY: monkey-1.
    unsafe { wait4(-1, status, options, usage) }
}

/// Stands in for wait(2).
///
/// # Safety
/// As [`wait4`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn wait(status: *mut c_int) -> pid_t {
    // SAFETY: monkey-1; a null pointer asks for no resource usage.
    unsafe { wait4(-1, status, 0, null_mut()) }
}

/// Stands in for waitpid(2).
///
/// # Safety
/// As [`wait4`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: monkey-1; a null pointer asks for no resource usage.
    unsafe { wait4(pid, status, options, null_mut()) }
}

/// Stands in for waitid(2).
///
/// # Safety
/// As [`wait4`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int {
    // A call that may wait in the hub.
    let before = saved_errno();
    if options & (WNOHANG | __WNOTHREAD) == 0
        && !info.is_null()
        && !(kind == P_PIDFD && raw::is_nonblocking(id.cast_signed()))
        && let Some(green) = green(part::PROCESS)
    {
        let look = || {
            // SAFETY: monkey-1: the caller's struct. If no child has ended, the kernel leaves the zeros.
            unsafe { info.write_bytes(0, 1) };
            // SAFETY: monkey-1; a null pointer asks for no resource usage.
            unsafe { raw::waitid(kind, id, info, options | WNOHANG, null_mut()) }
        };
        // SAFETY: monkey-1: `look` has filled the struct.
        let is_answer = |_| unsafe { raw::pid_in(info) } != 0;
        if let Some(answer) = until_answered(green, WaitQuery { kind, id, options }, look, is_answer) {
            return finish(before, answer) as c_int;
        }
    }
    // SAFETY: monkey-1.
    pass(unsafe { raw::waitid(kind, id, info, options, null_mut()) }) as c_int
}
