//! fcntl, ioctl and setsockopt: what sets whether a file blocks, and for how long.
//!
//! They are the program's, and go to the kernel as they are. We only note that they were called, so that what was known of
//! the number is asked anew (see `sys/numbers.rs`).
//!
//! fcntl and ioctl take three dots in C. Callers put the argument where a third one goes, or nothing at all: on the
//! architectures we have, that is the same register, and the kernel looks at it only if the command has an argument.
//!
//! Invariant M1 holds here as in `stream.rs`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong, c_void};

use super::closing::note_duplicate;
use super::gate::{pass, patched, refuse};
use crate::sys::numbers::changed;
use crate::sys::raw::{
    self, F_DUPFD, F_DUPFD_CLOEXEC, F_GETOWN, F_SETFL, FIONBIO, Ioctl, SO_RCVTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO,
    SO_SNDTIMEO_NEW, SOL_SOCKET, socklen_t,
};

/// A flag or limit of `fd` was set.
fn note_change(fd: c_int) {
    if patched() != 0 {
        changed(fd);
    }
}

/// fcntl(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    if command == F_GETOWN {
        return raw::owner(fd).unwrap_or_else(refuse);
    }
    // SAFETY: M1.
    let answer = unsafe { raw::fcntl_any(fd, command, argument) };
    match command {
        F_SETFL => note_change(fd),
        F_DUPFD | F_DUPFD_CLOEXEC => note_duplicate(fd, answer),
        _ => {}
    }
    pass(answer) as c_int
}

/// fcntl(2), as programs call it that were compiled for large files.
///
/// # Safety
/// As [`fcntl`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: M1.
    unsafe { fcntl(fd, command, argument) }
}

/// ioctl(2).
///
/// # Safety
/// As [`fcntl`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // SAFETY: M1.
    let answer = unsafe { raw::ioctl(fd, request as Ioctl, argument) };
    if request as Ioctl == FIONBIO {
        note_change(fd);
    }
    pass(answer) as c_int
}

/// setsockopt(2).
///
/// # Safety
/// As [`fcntl`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: M1.
    let answer = unsafe { raw::setsockopt(fd, level, name, value, len) };
    if level == SOL_SOCKET && matches!(name, SO_RCVTIMEO | SO_RCVTIMEO_NEW | SO_SNDTIMEO | SO_SNDTIMEO_NEW) {
        note_change(fd);
    }
    pass(answer) as c_int
}
