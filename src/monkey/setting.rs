//! fcntl, ioctl and setsockopt: the calls that set whether a file blocks, and for how long.
//!
//! These calls go to the kernel as they are. The number is marked (see `sys/numbers.rs`), so that the next wait asks
//! the kernel anew.
//!
//! fcntl and ioctl are variadic in C. Callers pass the argument where a third one goes, or pass none: on the supported
//! architectures both use the same register, and the kernel reads it only if the command has an argument.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong, c_void};

use super::closing::note_duplicate;
use super::gate::{finish, pass, patched, refuse, saved_errno};
use super::simulated::{self, socket_of};
use super::sockets::set_option;
use crate::sys::numbers::changed;
use crate::sys::raw::{
    self, EFAULT, F_DUPFD, F_DUPFD_CLOEXEC, F_GETFL, F_GETOWN, F_SETFL, FIONBIO, FIONREAD, Ioctl, O_NONBLOCK, O_RDWR,
    SO_RCVTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO, SO_SNDTIMEO_NEW, SOL_SOCKET, socklen_t,
};

/// Marks `fd`, of which a flag or a time limit was set.
fn note_change(fd: c_int) {
    if patched() != 0 {
        changed(fd);
    }
}

/// Stands in for fcntl(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    if command == F_GETOWN {
        return raw::owner(fd).unwrap_or_else(refuse);
    }
    // Of a simulated socket, one flag counts.
    if let Some(socket) = socket_of(fd) {
        match command {
            F_GETFL => return O_RDWR | if socket.modes().nonblocking { O_NONBLOCK } else { 0 },
            F_SETFL => {
                socket.change(|modes| modes.nonblocking = argument as c_int & O_NONBLOCK != 0);
                return 0;
            }
            _ => {}
        }
    }
    // SAFETY: monkey-1.
    let answer = unsafe { raw::fcntl_any(fd, command, argument) };
    // A flag was set, or a number was made.
    match command {
        F_SETFL => note_change(fd),
        F_DUPFD | F_DUPFD_CLOEXEC => note_duplicate(fd, answer),
        _ => {}
    }
    pass(answer) as c_int
}

/// Stands in for fcntl(2) in programs that were compiled for large files.
///
/// # Safety
/// As [`fcntl`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: monkey-1.
    unsafe { fcntl(fd, command, argument) }
}

/// Stands in for ioctl(2).
///
/// # Safety
/// As [`fcntl`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if let Some(socket) = socket_of(fd)
        && matches!(request as Ioctl, FIONBIO | FIONREAD)
    {
        let before = saved_errno();
        // SAFETY: null, or the caller's number (monkey-1).
        let answer = unsafe { argument.cast::<c_int>().as_mut() }.ok_or(EFAULT).and_then(|number| {
            if request as Ioctl == FIONBIO {
                socket.change(|modes| modes.nonblocking = *number != 0);
            } else {
                *number = simulated::waiting(socket)? as c_int;
            }
            Ok(0)
        });
        return finish(before, answer) as c_int;
    }
    // SAFETY: monkey-1.
    let answer = unsafe { raw::ioctl(fd, request as Ioctl, argument) };
    // FIONBIO changes whether calls block, as F_SETFL does.
    if request as Ioctl == FIONBIO {
        note_change(fd);
    }
    pass(answer) as c_int
}

/// Stands in for setsockopt(2).
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
    if let Some(socket) = socket_of(fd) {
        let before = saved_errno();
        let bytes = if value.is_null() {
            &[][..]
        } else {
            // SAFETY: monkey-1: so many bytes lie there.
            unsafe { std::slice::from_raw_parts(value.cast::<u8>(), len as usize) }
        };
        return finish(before, set_option(socket, level, name, bytes)) as c_int;
    }
    // SAFETY: monkey-1.
    let answer = unsafe { raw::setsockopt(fd, level, name, value, len) };
    // These options change how long a call may block.
    if level == SOL_SOCKET && matches!(name, SO_RCVTIMEO | SO_RCVTIMEO_NEW | SO_SNDTIMEO | SO_SNDTIMEO_NEW) {
        note_change(fd);
    }
    pass(answer) as c_int
}
