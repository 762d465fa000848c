//! recvmmsg and sendmmsg: many messages in one call.
//!
//! ```text
//!   recvmmsg   receive what is there -- all, or MSG_WAITFORONE --> return
//!                 | fewer          ^
//!              the hub waits ------'     the time limit is checked after each message only, as in the kernel
//!   sendmmsg   packets: as many as there is room for, wait, the rest; streams: one message after the other, whole
//! ```
//!
//! Invariant monkey-1 of `stream.rs` holds here, too, also for the list of messages.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::ptr::null_mut;

use super::gate::{Green, blocking, finish, green, part, pass, refuse, saved_errno};
use super::simulated::is_simulated;
use super::stream::{check, is_plain, send_message};
use crate::runtime::reactor::Direction;
use crate::sys::clock::{NEVER, monotonic_ns};
use crate::sys::numbers::file_of;
use crate::sys::raw::{self, Answer, EAGAIN, ENOSYS, MSG_DONTWAIT, MSG_WAITFORONE, POLLERR, POLLIN, mmsghdr, timespec};

/// The most messages that one sendmmsg takes (UIO_MAXIOV); the kernel cuts the count to this.
const MOST_SENT: c_uint = 1024;

/// Calls `attempt` until `count` messages are done, and waits in the hub in between. `attempt` takes the number of
/// messages that are done and the flags to add, and returns how many more are done. An error after some messages is no
/// error.
fn until_all(
    green: Green,
    fd: c_int,
    direction: Direction,
    count: c_uint,
    mut attempt: impl FnMut(c_uint, c_int) -> Answer,
) -> Answer {
    let file = file_of(fd);
    let mut done = 0;
    let mut deadline = None;
    let ended = loop {
        if done > 0
            && direction == Direction::Read
            && raw::ready_now(fd, POLLIN).is_ok_and(|ready| ready & POLLERR != 0)
        {
            break Ok(()); // an error is pending, which the kernel reports once: leave it to the next call
        }
        match attempt(done, MSG_DONTWAIT) {
            Ok(0) => break Ok(()),
            Ok(now) => {
                done += now as c_uint;
                // In the kernel, the socket's time limit starts anew for each message.
                deadline = None;
                if done >= count {
                    break Ok(());
                }
                continue;
            }
            Err(EAGAIN) if raw::is_nonblocking(fd) => break Err(EAGAIN),
            Err(EAGAIN) => {}
            Err(error) => break Err(error),
        }
        if direction == Direction::Read && raw::is_hung_up(fd) {
            // As in `until_ready`: a datagram socket that was shut down gives as many empty messages as the caller
            // wants.
            break attempt(done, 0).map(|now| done += now as c_uint);
        }
        // Nothing there, or no room: wait in the hub.
        let until = *deadline.get_or_insert_with(|| direction.deadline(fd));
        let waited = check(until)
            .and_then(|()| blocking(|| green.wait(file, direction.interest(), direction.reason(fd), until))?);
        if let Err(error) = waited {
            break Err(error);
        }
    };
    green.pay(match ended {
        Err(error) if done == 0 => Err(error),
        _ => Ok(done as usize),
    })
}

/// Stands in for recvmmsg(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recvmmsg(
    fd: c_int,
    list: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    limit: *mut timespec,
) -> c_int {
    if is_simulated(fd) {
        return refuse(ENOSYS);
    }
    // SAFETY: monkey-1.
    let plain = || unsafe { raw::recvmmsg(fd, list, count, flags, limit) };
    let may_wait = flags & MSG_DONTWAIT == 0 && is_plain(flags) && count > 0;
    let Some(green) = green(part::NET).filter(|_| may_wait) else { return pass(plain()) as c_int };
    let before = saved_errno();
    // SAFETY: null, or the caller's span (monkey-1).
    let mut limit = unsafe { limit.as_mut() };
    let end = match limit.as_deref().map(raw::nanos) {
        Some(None) => return pass(plain()) as c_int, // not a valid span: the kernel refuses it
        Some(Some(nanos)) => monotonic_ns().saturating_add(nanos),
        None => NEVER,
    };
    // Receive until the list is full, the time is over, or MSG_WAITFORONE has one message.
    let mut over = false;
    let answer = until_all(green, fd, Direction::Read, count, |done, now| {
        if over || done > 0 && flags & MSG_WAITFORONE != 0 {
            return Ok(0);
        }
        let at = list.wrapping_add(done as usize);
        let most = if end == NEVER { count - done } else { 1 };
        // SAFETY: monkey-1: the rest of the caller's list; no span.
        let answer = unsafe { raw::recvmmsg(fd, at, most, flags | now, null_mut()) };
        over = answer.is_ok() && end <= monotonic_ns();
        answer
    });
    // The kernel writes the time that is left, if there was a message.
    if let (Some(limit), Ok(1..)) = (&mut limit, answer) {
        **limit = raw::span(end.saturating_sub(monotonic_ns()));
    }
    finish(before, answer) as c_int
}

/// Stands in for sendmmsg(2).
///
/// # Safety
/// As [`recvmmsg`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    if is_simulated(fd) {
        return refuse(ENOSYS);
    }
    let Some(green) = green(part::NET).filter(|_| flags & MSG_DONTWAIT == 0 && count > 0) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::sendmmsg(fd, list, count, flags) }) as c_int;
    };
    let before = saved_errno();
    let count = count.min(MOST_SENT);
    // A message on a stream may be sent in part, so each one is watched by itself; a datagram is sent whole or not at
    // all.
    let answer = if raw::is_stream(fd) {
        // SAFETY: monkey-1.
        unsafe { send_streams(green, fd, list, count, flags) }
    } else {
        until_all(green, fd, Direction::Write, count, |done, now| {
            // SAFETY: monkey-1: the rest of the caller's list.
            unsafe { raw::sendmmsg(fd, list.wrapping_add(done as usize), count - done, flags | now) }
        })
    };
    finish(before, answer) as c_int
}

/// Sends the messages one after the other. Stops at a message that was sent in part; an error after some messages is no
/// error.
///
/// # Safety
/// monkey-1.
unsafe fn send_streams(green: Green, fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> Answer {
    for done in 0..count as usize {
        let entry = list.wrapping_add(done);
        // SAFETY: monkey-1: an entry of the caller's list, which the kernel would read, too.
        let message = unsafe { &raw const (*entry).msg_hdr };
        // SAFETY: monkey-1.
        match unsafe { send_message(green, fd, message, flags) } {
            Ok(sent) => {
                // SAFETY: monkey-1: the field for the number of bytes, in the same entry.
                unsafe { (*entry).msg_len = sent as c_uint };
            }
            // As with the kernel: an error counts only if no message was sent before.
            Err(error) if done == 0 => return Err(error),
            Err(_) => return Ok(done),
        }
    }
    Ok(count as usize)
}
