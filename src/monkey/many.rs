//! recvmmsg and sendmmsg: many messages in a call.
//!
//! ```text
//!   recvmmsg   what is there now -- all, or MSG_WAITFORONE --> return
//!                 | fewer          ^
//!              the hub waits ------'     a time limit is looked at after each message, and only then: as the kernel does it
//!   sendmmsg   packets: as many as there is room for, wait, the rest;  streams: one message after the other, each whole
//! ```
//!
//! Invariant M1 holds here as in `stream.rs`, also for the list of messages.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::ptr::null_mut;

use super::gate::{Green, blocking, entry, finish, green, part, pass};
use super::stream::{Way, check, is_plain, send_message};
use crate::runtime::park::NEVER;
use crate::sys::clock::monotonic_ns;
use crate::sys::raw::{self, Answer, EAGAIN, MSG_DONTWAIT, MSG_WAITFORONE, POLLERR, POLLIN, mmsghdr, timespec};

/// As many messages as one sendmmsg takes (UIO_MAXIOV); the kernel cuts the count down to it.
const MOST_SENT: c_uint = 1024;

/// Calls `attempt` with what is done and what to add to the flags until `count` messages are done, waiting in the hub in
/// between. It says how many more it did. An error after some is none.
fn until_all(
    green: Green,
    fd: c_int,
    way: Way,
    count: c_uint,
    mut attempt: impl FnMut(c_uint, c_int) -> Answer,
) -> Answer {
    let mut done = 0;
    let mut deadline = None;
    let ended = loop {
        if done > 0 && way == Way::In && raw::ready_now(fd, POLLIN).is_ok_and(|ready| ready & POLLERR != 0) {
            break Ok(()); // an error, which is told once: by the next call
        }
        match attempt(done, MSG_DONTWAIT) {
            Ok(0) => break Ok(()),
            Ok(now) => {
                done += now as c_uint;
                // The kernel counts the socket's time anew for each message.
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
        if way == Way::In && raw::is_hung_up(fd) {
            // As in `until_ready`: a datagram socket that was shut down, which gives as many empty messages as are asked for.
            break attempt(done, 0).map(|now| done += now as c_uint);
        }
        let until = *deadline.get_or_insert_with(|| way.deadline(fd));
        let waited = check(until).and_then(|()| blocking(|| green.wait(fd, way.interest(), way.reason(fd), until))?);
        if let Err(error) = waited {
            break Err(error);
        }
    };
    green.pay();
    match ended {
        Err(error) if done == 0 => Err(error),
        _ => Ok(done as usize),
    }
}

/// recvmmsg(2).
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
    // SAFETY: M1.
    let plain = || unsafe { raw::recvmmsg(fd, list, count, flags, limit) };
    let may_wait = flags & MSG_DONTWAIT == 0 && is_plain(flags) && count > 0;
    let Some(green) = green(part::NET).filter(|_| may_wait) else { return pass(plain()) as c_int };
    let before = entry();
    // SAFETY: null, or the caller's span (M1).
    let mut limit = unsafe { limit.as_mut() };
    let end = match limit.as_deref().map(raw::nanos) {
        Some(None) => return pass(plain()) as c_int, // not a valid span, for the kernel to refuse
        Some(Some(nanos)) => monotonic_ns().saturating_add(nanos),
        None => NEVER,
    };
    let mut over = false;
    let answer = until_all(green, fd, Way::In, count, |done, now| {
        if over || done > 0 && flags & MSG_WAITFORONE != 0 {
            return Ok(0);
        }
        let at = list.wrapping_add(done as usize);
        let most = if end == NEVER { count - done } else { 1 };
        // SAFETY: M1: the rest of the caller's list; no span.
        let answer = unsafe { raw::recvmmsg(fd, at, most, flags | now, null_mut()) };
        over = answer.is_ok() && end <= monotonic_ns();
        answer
    });
    if let (Some(limit), Ok(1..)) = (&mut limit, answer) {
        **limit = raw::span(end.saturating_sub(monotonic_ns()));
    }
    finish(before, answer) as c_int
}

/// sendmmsg(2).
///
/// # Safety
/// As [`recvmmsg`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    let Some(green) = green(part::NET).filter(|_| flags & MSG_DONTWAIT == 0 && count > 0) else {
        // SAFETY: M1.
        return pass(unsafe { raw::sendmmsg(fd, list, count, flags) }) as c_int;
    };
    let before = entry();
    let count = count.min(MOST_SENT);
    let answer = if raw::is_stream(fd) {
        // SAFETY: M1.
        unsafe { send_streams(green, fd, list, count, flags) }
    } else {
        until_all(green, fd, Way::Out, count, |done, now| {
            // SAFETY: M1: the rest of the caller's list.
            unsafe { raw::sendmmsg(fd, list.wrapping_add(done as usize), count - done, flags | now) }
        })
    };
    finish(before, answer) as c_int
}

/// Sends the messages one after the other; a part of one ends it, and an error after some is none.
///
/// # Safety
/// M1.
unsafe fn send_streams(green: Green, fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> Answer {
    for done in 0..count as usize {
        let entry = list.wrapping_add(done);
        // SAFETY: M1: an entry of the caller's list, which the kernel would read, too.
        let message = unsafe { &raw const (*entry).msg_hdr };
        // SAFETY: M1.
        match unsafe { send_message(green, fd, message, flags) } {
            Ok(sent) => {
                // SAFETY: M1: where the caller wants to know how much it was.
                unsafe { (*entry).msg_len = sent as c_uint };
            }
            Err(error) if done == 0 => return Err(error),
            Err(_) => return Ok(done),
        }
    }
    Ok(count as usize)
}
