//! close, dup2 and dup3: a number that goes away or means another file from now on.
//!
//! Green threads of this OS thread that wait for it look again, and meet the kernel's answer: EBADF, or the new file. With
//! OS threads the one that waits would stay asleep. Nothing here waits, and nothing depends on it but those waiters: a
//! number that was closed by a call we never saw is found out when somebody waits for it again.
#![allow(unsafe_code)] // `no_mangle` counts as unsafe

use std::ffi::c_int;

use super::gate::{hub_here, pass, patched, refuse};
use crate::sys::own::is_own;
use crate::sys::raw::{self, EINVAL};

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
    if patched() != 0 && !is_own() {
        forget(fd);
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
    pass(raw::dup3(old, new, 0)) as c_int
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
    pass(raw::dup3(old, new, flags)) as c_int
}
