//! poll, select and epoll_wait: waits for several descriptors at once.
//!
//! Each call is first made with a time limit of zero, which answers most calls and refuses bad arguments. If nothing is
//! ready, the descriptors are watched (see `runtime/watch.rs`), the green thread parks, and the call is made again: the
//! result is always the kernel's answer.
//!
//! A call with a signal mask goes to the kernel as it is: the mask belongs to the OS thread, and other green threads
//! would run under the mask.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{c_int, c_long};
use std::ptr::{self, null, null_mut};

use super::gate::{self, Green, blocking, finish, green, part, pass, saved_errno};
use super::simulated::{is_simulated, ready, socket_of, wanted};
use crate::switch::fiber::Reason;
use crate::sys::clock::{NEVER, after, monotonic_ns};
use crate::sys::epoll::Interest;
use crate::sys::numbers::file_of;
use crate::sys::raw::{
    self, Answer, EAGAIN, EBADF, EDEADLK, FD_SETSIZE, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI,
    epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval,
};
use std::time::Duration;

/// Returns the point in time `limit` nanoseconds from now.
fn deadline(limit: Option<u64>) -> u64 {
    limit.map_or(NEVER, |limit| after(Duration::from_nanos(limit)))
}

/// Returns the span until `deadline` in the kernel's form.
fn left(deadline: u64) -> Option<timespec> {
    (deadline != NEVER).then(|| raw::span(deadline.saturating_sub(monotonic_ns())))
}

/// Calls `wait` and `look` in turns, until `look` finds something, the time is over (0), or either fails. Calls `look`
/// once more after the last wait, whatever ended that. An unwinding of `wait` becomes an error (monkey-2).
fn wait_until_any(wait: impl Fn() -> Result<(), i32>, look: impl Fn() -> Answer) -> Answer {
    blocking(|| {
        loop {
            let waited = wait();
            // Look first: an event that came with the deadline still counts.
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

/// Polls descriptors as poll(2) does, for `limit` nanoseconds.
///
/// # Safety
/// monkey-1.
unsafe fn poll_for(green: Green, fds: *mut pollfd, count: nfds_t, limit: Option<u64>) -> Answer {
    let none = raw::span(0);
    // SAFETY: monkey-1; the span lives until the call returns.
    let look = || unsafe { raw::ppoll(fds, count, &raw const none, null()) };
    match look() {
        Ok(0) if limit != Some(0) => {}
        answer => return green.pay(answer),
    }
    // Watch the descriptors, park, and poll again.
    let until = deadline(limit);
    // SAFETY: monkey-1; the kernel has read the entries, too.
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

/// Notes in each entry what is ready of it, and returns how many have something. The kernel is asked for its own files.
fn look_at(entries: &mut [pollfd]) -> Answer {
    let mut found = 0;
    for entry in entries {
        entry.revents = match socket_of(entry.fd) {
            Some(socket) => ready(socket, entry.events),
            None if entry.fd < 0 => 0,
            None => raw::ready_now(entry.fd, entry.events).unwrap_or(POLLNVAL),
        };
        found += usize::from(entry.revents != 0);
    }
    Ok(found)
}

/// Polls descriptors of which some are simulated sockets; only these, and the end of the time, can end a wait.
fn poll_simulated(entries: &mut [pollfd], limit: Option<u64>) -> Answer {
    let green = green(part::NET);
    green.map_or(Ok(()), Green::begin_simulated)?;
    let until = deadline(limit);
    let watched = entries.to_vec();
    let reason = watched.first().map_or(Reason::Sleep, |entry| Reason::Read(entry.fd));
    let wait = || {
        let mut sockets = watched.iter().filter_map(|entry| wanted(entry.fd, entry.events));
        // A caller that must not let others run would wait for ever.
        green.ok_or(EDEADLK)?.wait_simulated(&mut sockets, reason, until)
    };
    match look_at(entries) {
        Ok(0) if limit != Some(0) => {
            let entries = RefCell::new(entries);
            wait_until_any(wait, || look_at(&mut entries.borrow_mut()))
        }
        answer => answer,
    }
}

/// Returns the caller's entries, if one of them is a simulated socket.
///
/// # Safety
/// monkey-1: `count` entries lie there, as long as the slice is used.
#[inline(always)]
unsafe fn simulated_entries<'a>(fds: *mut pollfd, count: nfds_t) -> Option<&'a mut [pollfd]> {
    gate::simulated(part::NET)?;
    if fds.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let entries = unsafe { std::slice::from_raw_parts_mut(fds, count as usize) };
    entries.iter().any(|entry| is_simulated(entry.fd)).then_some(entries)
}

/// Stands in for poll(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, limit: c_int) -> c_int {
    let limit = u64::try_from(limit).ok().map(|ms| ms * 1_000_000);
    // SAFETY: monkey-1.
    if let Some(entries) = unsafe { simulated_entries(fds, count) } {
        let before = saved_errno();
        return finish(before, poll_simulated(entries, limit)) as c_int;
    }
    let Some(green) = green(part::POLL) else {
        let span = limit.map(raw::span);
        // SAFETY: monkey-1; the span lives until the call returns.
        return pass(unsafe { raw::ppoll(fds, count, span.as_ref().map_or(null(), ptr::from_ref), null()) }) as c_int;
    };
    let before = saved_errno();
    // SAFETY: monkey-1.
    finish(before, unsafe { poll_for(green, fds, count, limit) }) as c_int
}

/// Stands in for poll(2) in programs that were compiled with checks.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __poll_chk(fds: *mut pollfd, count: nfds_t, limit: c_int, room: usize) -> c_int {
    if room / size_of::<pollfd>() < count as usize {
        raw::check_failed();
    }
    // SAFETY: monkey-1.
    unsafe { poll(fds, count, limit) }
}

/// Stands in for ppoll(2).
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
    // SAFETY: null, or the caller's span (monkey-1). The kernel writes the rest of the time into the span, the C
    // library does not.
    let span = unsafe { limit.as_ref() }.copied();
    let nanos = span.as_ref().map(raw::nanos);
    // SAFETY: monkey-1.
    if let Some(entries) = unsafe { simulated_entries(fds, count) } {
        let before = saved_errno();
        return finish(before, poll_simulated(entries, nanos.flatten())) as c_int;
    }
    let Some((green, nanos)) = green(part::POLL)
        .zip(match nanos {
            Some(None) => None, // not a valid span: the kernel refuses it
            Some(valid) => Some(valid),
            None => Some(None),
        })
        .filter(|_| mask.is_null())
    else {
        let limit = span.as_ref().map_or(null(), ptr::from_ref);
        // SAFETY: monkey-1.
        return pass(unsafe { raw::ppoll(fds, count, limit, mask) }) as c_int;
    };
    let before = saved_errno();
    // SAFETY: monkey-1.
    finish(before, unsafe { poll_for(green, fds, count, nanos) }) as c_int
}

/// Stands in for ppoll(2) in programs that were compiled with checks.
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
    // The same check as the C library's: the array must hold all entries.
    if room / size_of::<pollfd>() < count as usize {
        raw::check_failed();
    }
    // SAFETY: monkey-1.
    unsafe { ppoll(fds, count, limit, mask) }
}

/// The three sets of a select: pointers of the caller, or null.
#[derive(Clone, Copy)]
struct FdSets([*mut fd_set; 3]);

impl FdSets {
    /// Calls the kernel with copies of the sets, and copies the answer back unless nothing is ready.
    ///
    /// # Safety
    /// monkey-1.
    unsafe fn look(self, count: c_int) -> Answer {
        let none = raw::span(0);
        // The kernel overwrites the sets, and the caller's must stay whole for the next call.
        // SAFETY: null, or the caller's set.
        let mut copies = self.0.map(|set| unsafe { set.as_ref() }.copied());
        let [read, write, except] = copies.each_mut().map(|copy| copy.as_mut().map_or(null_mut(), ptr::from_mut));
        // SAFETY: the sets and the span are locals that live until the call returns.
        let answer = unsafe { raw::pselect6(count, read, write, except, &raw const none, null()) };
        if answer.is_ok_and(|ready| ready > 0) {
            for (set, copy) in self.0.into_iter().zip(copies) {
                if let Some(copy) = copy {
                    // SAFETY: the caller's set, since there is a copy.
                    unsafe { set.write(copy) };
                }
            }
        }
        answer
    }

    /// Empties the sets, when the time is over.
    ///
    /// # Safety
    /// monkey-1.
    unsafe fn clear(self) {
        for set in self.0 {
            // SAFETY: null, or the caller's set.
            if let Some(set) = unsafe { set.as_mut() } {
                // SAFETY: all zeros is the empty set.
                *set = unsafe { std::mem::zeroed() };
            }
        }
    }

    /// Returns the bits of poll(2) that the sets ask for `fd`.
    ///
    /// # Safety
    /// monkey-1.
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

/// Waits as select(2) does in a simulation, by way of poll.
///
/// # Safety
/// monkey-1.
unsafe fn select_simulated(count: c_int, sets: FdSets, limit: Option<u64>) -> Answer {
    // SAFETY: monkey-1; the numbers are below FD_SETSIZE.
    let bits = |fd: c_int| unsafe { sets.wanted(fd) };
    let entries = (0..count).map(|fd| pollfd { fd, events: bits(fd), revents: 0 });
    let mut entries: Vec<_> = entries.filter(|entry| entry.events != 0).collect();
    poll_simulated(&mut entries, limit)?;
    if entries.iter().any(|entry| entry.revents & POLLNVAL != 0) {
        return Err(EBADF);
    }
    // SAFETY: monkey-1.
    unsafe { sets.clear() };
    let mut found = 0;
    for entry in entries {
        // What an error or an end is to select: readable and writable.
        let all = if entry.revents & (POLLERR | POLLHUP) != 0 { POLLIN | POLLOUT } else { 0 };
        for (set, bit) in sets.0.into_iter().zip([POLLIN, POLLOUT, POLLPRI]) {
            if !set.is_null() && entry.events & bit != 0 && (entry.revents | all) & bit != 0 {
                // SAFETY: the caller's set; the number is below FD_SETSIZE.
                unsafe { raw::put_in(set, entry.fd) };
                found += 1;
            }
        }
    }
    Ok(found)
}

/// Waits as select(2) does, until `until`.
///
/// # Safety
/// monkey-1.
unsafe fn select_until(green: Green, count: c_int, sets: FdSets, limit: Option<u64>, until: u64) -> Answer {
    if gate::simulated(part::NET).is_some() {
        // SAFETY: monkey-1.
        return unsafe { select_simulated(count, sets, limit) };
    }
    // SAFETY: monkey-1.
    let look = || unsafe { sets.look(count) };
    match look() {
        Ok(0) if limit != Some(0) => {}
        Ok(0) => {
            // SAFETY: monkey-1.
            unsafe { sets.clear() };
            return green.pay(Ok(0));
        }
        answer => return green.pay(answer),
    }
    // Watch the descriptors of the sets, park, and ask again.
    let wait = || {
        // SAFETY: monkey-1; the numbers are below FD_SETSIZE.
        let bits = |fd: c_int| unsafe { sets.wanted(fd) };
        let entries = (0..count).map(|fd| (fd, bits(fd))).filter(|&(_, bits)| bits != 0);
        let mut wanted = entries.map(|(fd, bits)| (fd, Interest::of_poll_bits(bits)));
        green.wait_all(&mut wanted, Reason::Event("one of several descriptors"), until)
    };
    let ready = wait_until_any(wait, look)?;
    if ready == 0 {
        // SAFETY: monkey-1.
        unsafe { sets.clear() };
    }
    Ok(ready)
}

/// Reports whether the kernel would read no more than one `fd_set` of each set.
fn in_range(count: c_int) -> bool {
    (0..=FD_SETSIZE as c_int).contains(&count)
}

/// Stands in for select(2). As on Linux, the rest of the time is written into `limit`.
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
    // SAFETY: null, or the caller's span (monkey-1).
    let mut limit = unsafe { limit.as_mut() };
    // As in the C library: microseconds beyond a second are seconds, negative ones an error of the kernel.
    let span = limit.as_deref().map(|limit| timespec {
        tv_sec: limit.tv_sec.saturating_add(limit.tv_usec.div_euclid(1_000_000)),
        tv_nsec: (limit.tv_usec.rem_euclid(1_000_000) * 1000) as c_long,
    });
    let nanos = span.as_ref().map(raw::nanos);
    let until = deadline(nanos.flatten());
    let green = green(part::POLL).filter(|_| in_range(count) && nanos != Some(None));
    let before = saved_errno();
    let answer = match green {
        // SAFETY: monkey-1.
        Some(green) => unsafe { select_until(green, count, FdSets([read, write, except]), nanos.flatten(), until) },
        None => {
            let span = span.as_ref().map_or(null(), ptr::from_ref);
            // SAFETY: monkey-1.
            unsafe { raw::pselect6(count, read, write, except, span, null()) }
        }
    };
    // The rest of the time.
    if let (Some(limit), Some(left)) = (&mut limit, left(until)) {
        limit.tv_sec = left.tv_sec;
        limit.tv_usec = left.tv_nsec / 1000;
    }
    finish(before, answer) as c_int
}

/// Stands in for pselect(2).
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
    // SAFETY: null, or the caller's span (monkey-1). The kernel writes the rest of the time into the span, the C
    // library does not.
    let span = unsafe { limit.as_ref() }.copied();
    let nanos = span.as_ref().map(raw::nanos);
    let green = green(part::POLL).filter(|_| in_range(count) && nanos != Some(None) && mask.is_null());
    let before = saved_errno();
    let answer = match green {
        Some(green) => {
            let until = deadline(nanos.flatten());
            // SAFETY: monkey-1.
            unsafe { select_until(green, count, FdSets([read, write, except]), nanos.flatten(), until) }
        }
        // With a mask, or arguments that the kernel refuses.
        None => {
            let span = span.as_ref().map_or(null(), ptr::from_ref);
            let packed = [mask.addr(), raw::KERNEL_SIGSET];
            // SAFETY: monkey-1; the mask goes as a pointer and a size, which live until the call returns.
            unsafe { raw::pselect6(count, read, write, except, span, &raw const packed) }
        }
    };
    finish(before, answer) as c_int
}

/// Stands in for epoll_wait(2): an event loop inside a green thread. The hub watches the epoll instance of the loop.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, limit: c_int) -> c_int {
    // SAFETY: monkey-1; no mask.
    unsafe { epoll_pwait(epoll, events, most, limit, null()) }
}

/// Stands in for epoll_pwait(2).
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
    // Without a wait there is nothing to park for; a mask must be set by the kernel, together with the wait.
    let Some(green) = green(part::POLL).filter(|_| limit != 0 && mask.is_null()) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::epoll_pwait(epoll, events, most, limit, mask) }) as c_int;
    };
    let limit = u64::try_from(limit).ok().map(|ms| ms * 1_000_000);
    // SAFETY: monkey-1.
    unsafe { epoll_for(green, epoll, events, most, limit) }
}

/// Stands in for epoll_pwait2(2).
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
    // SAFETY: null, or the caller's span (monkey-1).
    let nanos = unsafe { limit.as_ref() }.map(raw::nanos);
    // As in `epoll_pwait`; an invalid limit goes to the kernel, too, which reports the error.
    let green = green(part::POLL).filter(|_| !matches!(nanos, Some(None | Some(0))) && mask.is_null());
    let Some(green) = green else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::epoll_pwait2(epoll, events, most, limit, mask) }) as c_int;
    };
    // SAFETY: monkey-1.
    unsafe { epoll_for(green, epoll, events, most, nanos.flatten()) }
}

/// Waits as epoll_wait(2) does, for `limit` nanoseconds.
///
/// # Safety
/// monkey-1.
unsafe fn epoll_for(green: Green, epoll: c_int, events: *mut epoll_event, most: c_int, limit: Option<u64>) -> c_int {
    let before = saved_errno();
    let file = file_of(epoll);
    // SAFETY: monkey-1.
    let look = || unsafe { raw::epoll_pwait(epoll, events, most, 0, null()) };
    // Ask without waiting first: often there are events, and no thread has to park.
    let answer = match look() {
        Ok(0) => {
            let until = deadline(limit);
            // An epoll descriptor is readable while events wait in there, so the reactor can watch one, too.
            wait_until_any(|| green.wait(file, Interest::IN, Reason::Read(epoll), until), look)
        }
        answer => green.pay(answer),
    };
    finish(before, answer) as c_int
}
