//! close, dup, dup2, dup3, socket and socketpair: a number that goes away, or comes, or means another file from now on.
//!
//! Green threads of this OS thread that wait for it look again, and meet the kernel's answer: EBADF, or the new file. With
//! OS threads the one that waits would stay asleep. Other OS threads' hubs learn of it by the number's stamp, when somebody
//! waits there again. Nothing here waits, and nothing depends on it but that: a number that was closed by a call we never
//! saw is found out, too, at the latest a moment after somebody waits for it.
//!
//! Invariant M1 holds here as in `stream.rs`.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::gate::{hub_here, pass, patched, refuse};
use crate::sys::numbers::{closing, duplicated};
use crate::sys::own::is_own;
use crate::sys::raw::{self, Answer, EINVAL};

/// The watch of `fd` ends.
pub(super) fn forget(fd: c_int) {
    if let Some((root, hub)) = hub_here()
        && hub.reactor().knows_number(fd)
    {
        hub.reactor().forget_number(root, fd);
    }
}

/// [`forget`], on the way of a call of the program's.
#[inline]
fn forget_patched(fd: c_int) {
    if patched() != 0 {
        closing(fd);
        if !is_own() {
            forget(fd);
        }
    }
}

/// The kernel has just given out a number: if it was known, it was closed unseen.
pub(super) fn note_new(number: usize) {
    closing(number as c_int);
}

/// Two numbers name one file from now on, if `answer` is one.
pub(super) fn note_duplicate(old: c_int, answer: Answer) {
    if let Ok(new) = answer {
        note_new(new);
        duplicated(old);
        duplicated(new as c_int);
    }
}

/// close(2).
///
/// # Safety
/// None in C's sense: it takes a number.
#[unsafe(no_mangle)]
pub(super) extern "C" fn close(fd: c_int) -> c_int {
    forget_patched(fd);
    pass(raw::close(fd)) as c_int
}

/// dup(2).
///
/// # Safety
/// As [`close`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn dup(old: c_int) -> c_int {
    let answer = raw::dup(old);
    note_duplicate(old, answer);
    pass(answer) as c_int
}

/// dup2(2).
///
/// # Safety
/// As [`close`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // The one thing that dup3 refuses: it only looks whether the number is open.
        return match raw::fcntl(old, raw::F_GETFD, 0) {
            Ok(_) => new,
            Err(error) => refuse(error),
        };
    }
    forget_patched(new);
    let answer = raw::dup3(old, new, 0);
    note_duplicate(old, answer);
    pass(answer) as c_int
}

/// dup3(2).
///
/// # Safety
/// As [`close`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if old == new {
        return refuse(EINVAL);
    }
    forget_patched(new);
    let answer = raw::dup3(old, new, flags);
    note_duplicate(old, answer);
    pass(answer) as c_int
}

/// socket(2).
///
/// # Safety
/// As [`close`].
#[unsafe(no_mangle)]
pub(super) extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let answer = raw::socket(domain, kind, protocol);
    answer.iter().copied().for_each(note_new);
    pass(answer) as c_int
}

/// socketpair(2).
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
    // SAFETY: M1.
    let answer = unsafe { raw::socketpair(domain, kind, protocol, pair) };
    if answer.is_ok() {
        // SAFETY: the kernel has filled it.
        let numbers = unsafe { pair.read() };
        numbers.into_iter().for_each(|number| note_new(number as usize));
    }
    pass(answer) as c_int
}
