//! close, dup, dup2, dup3, socket and socketpair: the calls that free a number, make one, or give it another file.
//!
//! Green threads that wait for such a number, in any hub, wake up and return EBADF: they began with a file that has no
//! number any more, and what the number means next is not theirs. (A blocked OS thread would stay asleep.)
//!
//! ```text
//!   close(7):  mark 7 in `sys/numbers.rs`; wake the waiters here; do other hubs wait? tell all hubs; the kernel
//!   a waiter:  file_of(7) before the first attempt ... woken: does the file have its number? no: EBADF
//! ```
//!
//! Nothing here waits. Nothing else depends on these functions: a number that was closed by a call that does not arrive
//! here is detected soon after a green thread waits for the number.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::gate::{finish, hub_here, pass, patched, refuse, saved_errno};
use super::simulated;
use crate::runtime::remote_queue::{RemoteOp, RemoteQueue};
use crate::sys::numbers::{WatchedBy, closing, duplicated};
use crate::sys::raw::{self, Answer, EINVAL, O_CLOEXEC};
use crate::sys::runtime_syscall::is_runtime_syscall;
use crate::sys::virtual_sockets::{close_number, duplicated_number};

/// Ends the watch of `fd`, and wakes the green threads that wait for the number.
pub(super) fn forget(fd: c_int) {
    if let Some((root, hub)) = hub_here()
        && hub.watcher().knows_number(fd)
    {
        hub.watcher().forget_number(root, fd);
    }
}

/// Marks the number for a call of the program, and ends the watch of `fd` in all hubs.
#[inline]
fn forget_patched(fd: c_int) {
    if patched() == 0 {
        return;
    }
    if !is_runtime_syscall() {
        close_number(fd);
    }
    let watched = closing(fd, hub_here().map(|(root, _)| root.number()));
    if !is_runtime_syscall() {
        forget(fd);
    }
    if watched == WatchedBy::Others {
        RemoteQueue::send_to_all(RemoteOp::Closed(fd));
    }
}

/// Marks a number that the kernel has just given out: a number that was known before was closed unseen.
pub(super) fn note_new(number: usize) {
    closing(number as c_int, None);
}

/// Marks two numbers that name one file from now on, if `answer` is a number.
pub(super) fn note_duplicate(old: c_int, answer: Answer) {
    if let Ok(new) = answer {
        note_new(new);
        if !is_runtime_syscall() {
            duplicated_number(old, new as c_int);
        }
        duplicated(old);
        duplicated(new as c_int);
    }
}

/// Stands in for close(2).
///
/// # Safety
/// None in the sense of C: the function takes a number.
#[unsafe(no_mangle)]
pub(super) extern "C" fn close(fd: c_int) -> c_int {
    forget_patched(fd);
    pass(raw::close(fd)) as c_int
}

/// Stands in for dup(2).
///
/// # Safety
/// As [`close`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn dup(old: c_int) -> c_int {
    let answer = raw::dup(old);
    note_duplicate(old, answer);
    pass(answer) as c_int
}

/// Reports whether `old` can be duplicated with `flags`. Without this test a call that fails would wake the waiters of
/// the new number with EBADF, although the number stays open.
fn can_duplicate(old: c_int, flags: c_int) -> Result<(), i32> {
    if flags & !O_CLOEXEC != 0 {
        return Err(EINVAL);
    }
    raw::fcntl(old, raw::F_GETFD, 0).map(drop)
}

/// Stands in for dup2(2).
///
/// # Safety
/// As [`close`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // dup3 refuses equal numbers; dup2 only checks that the number is open.
        return match raw::fcntl(old, raw::F_GETFD, 0) {
            Ok(_) => new,
            Err(error) => refuse(error),
        };
    }
    if let Err(error) = can_duplicate(old, 0) {
        return refuse(error);
    }
    forget_patched(new);
    let answer = raw::dup3(old, new, 0);
    note_duplicate(old, answer);
    pass(answer) as c_int
}

/// Stands in for dup3(2).
///
/// # Safety
/// As [`close`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if old == new {
        return refuse(EINVAL);
    }
    if let Err(error) = can_duplicate(old, flags) {
        return refuse(error);
    }
    forget_patched(new);
    let answer = raw::dup3(old, new, flags);
    note_duplicate(old, answer);
    pass(answer) as c_int
}

/// Stands in for socket(2).
///
/// # Safety
/// As [`close`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if let Some(answer) = simulated::socket(domain, kind, protocol) {
        let before = saved_errno();
        answer.iter().copied().for_each(note_new);
        return finish(before, answer) as c_int;
    }
    let answer = raw::socket(domain, kind, protocol);
    answer.iter().copied().for_each(note_new);
    pass(answer) as c_int
}

/// Stands in for socketpair(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    pair: *mut [c_int; 2],
) -> c_int {
    if let Some(made) = simulated::pair(domain, kind, protocol) {
        let before = saved_errno();
        let answer = made.map(|numbers| {
            numbers.into_iter().for_each(|number| note_new(number as usize));
            // SAFETY: monkey-1: the caller's place for two numbers.
            unsafe { pair.write(numbers) };
            0
        });
        return finish(before, answer) as c_int;
    }
    // SAFETY: monkey-1.
    let answer = unsafe { raw::socketpair(domain, kind, protocol, pair) };
    // Files that had these numbers before may have been closed unseen.
    if answer.is_ok() {
        // SAFETY: the kernel has filled the pair.
        let numbers = unsafe { pair.read() };
        numbers.into_iter().for_each(|number| note_new(number as usize));
    }
    pass(answer) as c_int
}
