//! poll, select and epoll_wait: waiting for several descriptors at once.
//!
//! Each call is first made with no time limit at all, which answers most of them and refuses bad arguments. If nothing is
//! ready, the descriptors are watched (see `runtime/watch.rs`), the green thread parks, and the call is made again: what is
//! reported, and how, is always the kernel's answer.
//!
//! A call with a signal mask goes to the kernel as it is: the mask is the OS thread's, and others would run with it.
//!
//! Invariant M1 holds here as in `stream.rs`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};
use std::ptr::{self, null, null_mut};

use super::gate::{Green, blocking, entry, finish, green, part, pass};
use crate::runtime::park::NEVER;
use crate::runtime::source::after;
use crate::switch::fiber::Reason;
use crate::sys::clock::monotonic_ns;
use crate::sys::epoll::Interest;
use crate::sys::raw::{
    self, Answer, EAGAIN, FD_SETSIZE, POLLIN, POLLOUT, POLLPRI, epoll_event, fd_set, nfds_t, pollfd, sigset_t,
    timespec, timeval,
};
use std::time::Duration;

/// The moment `limit` nanoseconds from now.
fn deadline(limit: Option<u64>) -> u64 {
    limit.map_or(NEVER, |limit| after(Duration::from_nanos(limit)))
}

/// The span until `deadline`, for the kernel.
fn left(deadline: u64) -> Option<timespec> {
    (deadline != NEVER).then(|| raw::span(deadline.saturating_sub(monotonic_ns())))
}

/// Waits and looks in turns, until `look` finds something, the time is over (0), or either fails. Looks once more after
/// the last wait, whatever ended it. What unwinds a wait is an error here (M2).
fn wait_until_any(wait: impl Fn() -> Result<(), i32>, look: impl Fn() -> Answer) -> Answer {
    blocking(|| {
        loop {
            let waited = wait();
            match look() {
                Ok(0) => {}
                answer => return answer,
            }
            match waited {
                Ok(()) => {}
                Err(EAGAIN) => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    })?
}

/// poll(2) with `limit` nanoseconds.
///
/// # Safety
/// M1.
unsafe fn poll_for(green: Green, fds: *mut pollfd, count: nfds_t, limit: Option<u64>) -> Answer {
    let none = raw::span(0);
    // SAFETY: M1; the span lives until the call returns.
    let look = || unsafe { raw::ppoll(fds, count, &raw const none, null()) };
    match look() {
        Ok(0) if limit != Some(0) => {}
        answer => {
            green.pay();
            return answer;
        }
    }
    let until = deadline(limit);
    // SAFETY: M1; the kernel has read them, too.
    let entry = |at: usize| unsafe { fds.wrapping_add(at).read() };
    let wait = || {
        let first = (0..count as usize).map(entry).find(|entry| entry.fd >= 0);
        let reason = first.map_or(Reason::Sleep, |entry| Reason::Read(entry.fd));
        let entries = (0..count as usize).map(entry).filter(|entry| entry.fd >= 0);
        let mut wanted = entries.map(|entry| (entry.fd, Interest::of_poll_bits(entry.events)));
        green.wait_all(&mut wanted, reason, until)
    };
    wait_until_any(wait, look)
}

/// poll(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, limit: c_int) -> c_int {
    let limit = u64::try_from(limit).ok().map(|ms| ms * 1_000_000);
    let Some(green) = green(part::POLL) else {
        let span = limit.map(raw::span);
        // SAFETY: M1; the span lives until the call returns.
        return pass(unsafe { raw::ppoll(fds, count, span.as_ref().map_or(null(), ptr::from_ref), null()) }) as c_int;
    };
    let before = entry();
    // SAFETY: M1.
    finish(before, unsafe { poll_for(green, fds, count, limit) }) as c_int
}

/// poll(2), as programs call it that were compiled with checks.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __poll_chk(fds: *mut pollfd, count: nfds_t, limit: c_int, room: usize) -> c_int {
    if room / size_of::<pollfd>() < count as usize {
        raw::check_failed();
    }
    // SAFETY: M1.
    unsafe { poll(fds, count, limit) }
}

/// ppoll(2).
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    limit: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: null, or the caller's span (M1). The kernel writes what is left into it, the C library does not.
    let span = unsafe { limit.as_ref() }.copied();
    let nanos = span.as_ref().map(raw::nanos);
    let Some((green, nanos)) = green(part::POLL)
        .zip(match nanos {
            Some(None) => None, // not a valid span, for the kernel to refuse
            Some(valid) => Some(valid),
            None => Some(None),
        })
        .filter(|_| mask.is_null())
    else {
        let limit = span.as_ref().map_or(null(), ptr::from_ref);
        // SAFETY: M1.
        return pass(unsafe { raw::ppoll(fds, count, limit, mask) }) as c_int;
    };
    let before = entry();
    // SAFETY: M1.
    finish(before, unsafe { poll_for(green, fds, count, nanos) }) as c_int
}

/// ppoll(2), as programs call it that were compiled with checks.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    limit: *const timespec,
    mask: *const sigset_t,
    room: usize,
) -> c_int {
    if room / size_of::<pollfd>() < count as usize {
        raw::check_failed();
    }
    // SAFETY: M1.
    unsafe { ppoll(fds, count, limit, mask) }
}

/// The three sets of a select, each the caller's or null.
#[derive(Clone, Copy)]
struct Sets([*mut fd_set; 3]);

impl Sets {
    /// Calls the kernel with copies, and copies the answer back unless it is that nothing is ready.
    ///
    /// # Safety
    /// M1.
    unsafe fn look(self, count: c_int) -> Answer {
        let none = raw::span(0);
        // SAFETY: null, or the caller's set.
        let mut copies = self.0.map(|set| unsafe { set.as_ref() }.copied());
        let [read, write, except] = copies.each_mut().map(|copy| copy.as_mut().map_or(null_mut(), ptr::from_mut));
        // SAFETY: the sets and the span are ours and live until the call returns.
        let answer = unsafe { raw::pselect6(count, read, write, except, &raw const none, null()) };
        if answer.is_ok_and(|ready| ready > 0) {
            for (set, copy) in self.0.into_iter().zip(copies) {
                if let Some(copy) = copy {
                    // SAFETY: the caller's set, since there is a copy of it.
                    unsafe { set.write(copy) };
                }
            }
        }
        answer
    }

    /// Empties them: the time is over.
    ///
    /// # Safety
    /// M1.
    unsafe fn clear(self) {
        for set in self.0 {
            // SAFETY: null, or the caller's set.
            if let Some(set) = unsafe { set.as_mut() } {
                // SAFETY: all zeros is the empty set.
                *set = unsafe { std::mem::zeroed() };
            }
        }
    }

    /// What is asked of `fd`, in bits of poll(2).
    ///
    /// # Safety
    /// M1.
    unsafe fn wanted(self, fd: c_int) -> i16 {
        let mut bits = 0;
        for (set, bit) in self.0.into_iter().zip([POLLIN, POLLOUT, POLLPRI]) {
            // SAFETY: the caller's set, unless null.
            if !set.is_null() && unsafe { raw::is_in(set, fd) } {
                bits |= bit;
            }
        }
        bits
    }
}

/// select(2) until `until`.
///
/// # Safety
/// M1.
unsafe fn select_until(green: Green, count: c_int, sets: Sets, limit: Option<u64>, until: u64) -> Answer {
    // SAFETY: M1.
    let look = || unsafe { sets.look(count) };
    match look() {
        Ok(0) if limit != Some(0) => {}
        Ok(0) => {
            // SAFETY: M1.
            unsafe { sets.clear() };
            return Ok(0);
        }
        answer => {
            green.pay();
            return answer;
        }
    }
    let wait = || {
        // SAFETY: M1; the numbers are below FD_SETSIZE.
        let bits = |fd: c_int| unsafe { sets.wanted(fd) };
        let entries = (0..count).map(|fd| (fd, bits(fd))).filter(|&(_, bits)| bits != 0);
        let mut wanted = entries.map(|(fd, bits)| (fd, Interest::of_poll_bits(bits)));
        green.wait_all(&mut wanted, Reason::Event("one of several descriptors"), until)
    };
    let ready = wait_until_any(wait, look)?;
    if ready == 0 {
        // SAFETY: M1.
        unsafe { sets.clear() };
    }
    Ok(ready)
}

/// Whether the kernel would look at no more of a set than there is.
fn in_range(count: c_int) -> bool {
    (0..=FD_SETSIZE as c_int).contains(&count)
}

/// select(2). As on Linux, what is left of the time is written into `limit`.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    limit: *mut timeval,
) -> c_int {
    // SAFETY: null, or the caller's span (M1).
    let mut limit = unsafe { limit.as_mut() };
    // As the C library does it: microseconds beyond a second are seconds, negative ones an error of the kernel's.
    let span = limit.as_deref().map(|limit| timespec {
        tv_sec: limit.tv_sec.saturating_add(limit.tv_usec.div_euclid(1_000_000)),
        tv_nsec: (limit.tv_usec.rem_euclid(1_000_000) * 1000) as c_long,
    });
    let nanos = span.as_ref().map(raw::nanos);
    let until = deadline(nanos.flatten());
    let green = green(part::POLL).filter(|_| in_range(count) && nanos != Some(None));
    let before = entry();
    let answer = match green {
        // SAFETY: M1.
        Some(green) => unsafe { select_until(green, count, Sets([read, write, except]), nanos.flatten(), until) },
        None => {
            let span = span.as_ref().map_or(null(), ptr::from_ref);
            // SAFETY: M1.
            unsafe { raw::pselect6(count, read, write, except, span, null()) }
        }
    };
    if let (Some(limit), Some(left)) = (&mut limit, left(until)) {
        limit.tv_sec = left.tv_sec;
        limit.tv_usec = left.tv_nsec / 1000;
    }
    finish(before, answer) as c_int
}

/// pselect(2).
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    limit: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: null, or the caller's span (M1). The kernel writes what is left into it, the C library does not.
    let span = unsafe { limit.as_ref() }.copied();
    let nanos = span.as_ref().map(raw::nanos);
    let green = green(part::POLL).filter(|_| in_range(count) && nanos != Some(None) && mask.is_null());
    let before = entry();
    let answer = match green {
        Some(green) => {
            let until = deadline(nanos.flatten());
            // SAFETY: M1.
            unsafe { select_until(green, count, Sets([read, write, except]), nanos.flatten(), until) }
        }
        None => {
            let span = span.as_ref().map_or(null(), ptr::from_ref);
            let packed = [mask.addr(), raw::KERNEL_SIGSET];
            // SAFETY: M1; the mask goes as a pointer and a size, which live until the call returns.
            unsafe { raw::pselect6(count, read, write, except, span, &raw const packed) }
        }
    };
    finish(before, answer) as c_int
}

/// epoll_wait(2): an event loop inside a green thread. Its epoll instance is watched by the hub's.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, limit: c_int) -> c_int {
    // SAFETY: M1; no mask.
    unsafe { epoll_pwait(epoll, events, most, limit, null()) }
}

/// epoll_pwait(2).
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    limit: c_int,
    mask: *const sigset_t,
) -> c_int {
    let Some(green) = green(part::POLL).filter(|_| limit != 0 && mask.is_null()) else {
        // SAFETY: M1.
        return pass(unsafe { raw::epoll_pwait(epoll, events, most, limit, mask) }) as c_int;
    };
    let limit = u64::try_from(limit).ok().map(|ms| ms * 1_000_000);
    // SAFETY: M1.
    unsafe { epoll_for(green, epoll, events, most, limit) }
}

/// epoll_pwait2(2).
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    limit: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: null, or the caller's span (M1).
    let nanos = unsafe { limit.as_ref() }.map(raw::nanos);
    let green = green(part::POLL).filter(|_| !matches!(nanos, Some(None | Some(0))) && mask.is_null());
    let Some(green) = green else {
        // SAFETY: M1.
        return pass(unsafe { raw::epoll_pwait2(epoll, events, most, limit, mask) }) as c_int;
    };
    // SAFETY: M1.
    unsafe { epoll_for(green, epoll, events, most, nanos.flatten()) }
}

/// epoll_wait(2) with `limit` nanoseconds.
///
/// # Safety
/// M1.
unsafe fn epoll_for(green: Green, epoll: c_int, events: *mut epoll_event, most: c_int, limit: Option<u64>) -> c_int {
    let before = entry();
    // SAFETY: M1.
    let look = || unsafe { raw::epoll_pwait(epoll, events, most, 0, null()) };
    let answer = match look() {
        Ok(0) => {
            let until = deadline(limit);
            wait_until_any(|| green.wait(epoll, Interest::IN, Reason::Read(epoll), until), look)
        }
        answer => {
            green.pay();
            answer
        }
    };
    finish(before, answer) as c_int
}
