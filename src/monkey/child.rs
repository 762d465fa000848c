//! wait, waitpid, waitid and their relatives: the end of a child, or of any.
//!
//! Each call is first made with WNOHANG. If there is nothing to tell yet, what is waited for depends on the question:
//!
//! ```text
//!   the end of one child     its pidfd, in the hub
//!   the end of one pidfd     itself
//!   any child, a process     no descriptor stands for those: an OS thread of a pool waits, with WNOWAIT, which leaves
//!   group, a stop            what it finds to the caller; who then asks again, with WNOHANG
//! ```
//!
//! So it is always the caller's own call that takes the child, and a caller that is killed has taken none. The OS thread that
//! waited for it stays until some child that fits ends; there are [`MOST`] at once.
//!
//! Invariant M1 holds here as in `stream.rs`.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::null_mut;

use super::gate::{Green, blocking, entry, finish, green, part, pass};
use crate::offload::{PerProcess, ThreadPool};
use crate::runtime::park::NEVER;
use crate::switch::fiber::Reason;
use crate::sys::epoll::Interest;
use crate::sys::own::own;
use crate::sys::process::pidfd_open;
use crate::sys::raw::{
    self, __WNOTHREAD, Answer, ECANCELED, P_ALL, P_PGID, P_PID, P_PIDFD, WEXITED, WNOHANG, WNOWAIT, id_t, idtype_t,
    pid_t, rusage, siginfo_t,
};

/// OS threads that wait for children at once.
const MOST: usize = 16;

/// The pool.
static POOL: PerProcess = PerProcess::new();

/// What reports say.
const REASON: Reason = Reason::Event("the end of a child");

/// A question to waitid(2), without pointers.
#[derive(Clone, Copy)]
struct Question {
    /// What `id` is.
    kind: idtype_t,
    /// Whose end.
    id: id_t,
    /// What else than an end, and how.
    options: c_int,
}

impl Question {
    /// That of wait4(2) with these arguments, whose options have the same bits, but for the one that says "ends, too".
    fn of_wait4(pid: pid_t, options: c_int) -> Question {
        let (kind, id) = match pid {
            ..-1 => (P_PGID, pid.unsigned_abs()),
            -1 => (P_ALL, 0),
            0 => (P_PGID, raw::own_group().cast_unsigned()),
            1.. => (P_PID, pid.cast_unsigned()),
        };
        Question { kind, id, options: options | WEXITED }
    }

    /// Whether only the end of one child is asked for.
    fn is_of_one_end(self) -> bool {
        matches!(self.kind, P_PID | P_PIDFD) && self.options & !WNOWAIT == WEXITED
    }

    /// Waits on an OS thread of the pool until there may be an answer.
    fn ask_elsewhere(self) -> Result<(), i32> {
        let pool = POOL.get(|| ThreadPool::builder().max_threads(MOST).name("greenling-wait").build());
        let ask = move || {
            let mut info = MaybeUninit::<siginfo_t>::zeroed();
            let (Question { kind, id, options }, info) = (self, info.as_mut_ptr());
            // SAFETY: the struct lives until the call returns; the use of resources is not asked for.
            let _ = unsafe { raw::waitid(kind, id, info, options | WNOWAIT, null_mut()) };
        };
        let asked = blocking(|| pool.offer("the end of any child", false, ask))?;
        asked.map_err(|(error, _)| std::io::Error::from(error).raw_os_error().unwrap_or(ECANCELED))
    }
}

/// Makes `look`, which does not wait, until it tells something (`told`).
fn until_told(
    green: Green,
    question: Question,
    look: impl Fn() -> Answer,
    told: impl Fn(usize) -> bool,
) -> Option<Answer> {
    match look() {
        Ok(value) if !told(value) => {}
        answer => return Some(answer),
    }
    let again = |wait: &dyn Fn() -> Result<(), i32>| {
        loop {
            wait()?;
            match look() {
                Ok(value) if !told(value) => {}
                answer => return answer,
            }
        }
    };
    if !question.is_of_one_end() {
        return Some(again(&|| question.ask_elsewhere()));
    }
    let wait = |fd: RawFd| blocking(|| green.wait(fd, Interest::IN, REASON, NEVER))?;
    if question.kind == P_PIDFD {
        return Some(again(&|| wait(question.id.cast_signed())));
    }
    // Without pidfds the OS thread waits.
    let end = pidfd_open(question.id).ok()?;
    let answer = again(&|| wait(end.as_raw_fd()));
    super::closing::forget(end.as_raw_fd());
    let _own = own();
    drop(end);
    Some(answer)
}

/// wait4(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    let before = entry();
    // A child of this OS thread alone is one that the pool's would not find.
    if options & (WNOHANG | __WNOTHREAD) == 0
        && let Some(green) = green(part::PROCESS)
    {
        // SAFETY: M1.
        let look = || unsafe { raw::wait4(pid, status, options | WNOHANG, usage) };
        if let Some(answer) = until_told(green, Question::of_wait4(pid, options), look, |found| found != 0) {
            return finish(before, answer) as pid_t;
        }
    }
    // SAFETY: M1.
    pass(unsafe { raw::wait4(pid, status, options, usage) }) as pid_t
}

/// wait3(2).
///
/// # Safety
/// As [`wait4`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    // SAFETY: M1.
    unsafe { wait4(-1, status, options, usage) }
}

/// wait(2).
///
/// # Safety
/// As [`wait4`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn wait(status: *mut c_int) -> pid_t {
    // SAFETY: M1; the use of resources is not asked for.
    unsafe { wait4(-1, status, 0, null_mut()) }
}

/// waitpid(2).
///
/// # Safety
/// As [`wait4`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: M1; the use of resources is not asked for.
    unsafe { wait4(pid, status, options, null_mut()) }
}

/// waitid(2).
///
/// # Safety
/// As [`wait4`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int {
    let before = entry();
    if options & (WNOHANG | __WNOTHREAD) == 0
        && !info.is_null()
        && !(kind == P_PIDFD && raw::is_nonblocking(id.cast_signed()))
        && let Some(green) = green(part::PROCESS)
    {
        let look = || {
            // SAFETY: M1: the caller's struct; a child that still runs leaves all zeros in it.
            unsafe { info.write_bytes(0, 1) };
            // SAFETY: M1; the use of resources is not asked for.
            unsafe { raw::waitid(kind, id, info, options | WNOHANG, null_mut()) }
        };
        // SAFETY: M1: a struct that `look` has filled.
        let told = |_| unsafe { raw::pid_in(info) } != 0;
        if let Some(answer) = until_told(green, Question { kind, id, options }, look, told) {
            return finish(before, answer) as c_int;
        }
    }
    // SAFETY: M1.
    pass(unsafe { raw::waitid(kind, id, info, options, null_mut()) }) as c_int
}
