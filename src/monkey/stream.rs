//! read, write, connect, accept and their relatives, on sockets and pipes: the calls of `std::net` and of C.
//!
//! Only the kernel knows whether a file blocks and for how long (`O_NONBLOCK` and `SO_RCVTIMEO` belong to the open
//! file, which other descriptors and processes share), so a call that would wait asks the kernel, and no flag is
//! changed (but by `connect`). On a socket with short waits, a call waits first, and asks if that takes long: see
//! `runtime/watch.rs`.
//!
//! ```text
//!   queue known to be empty? --yes----------------.
//!      | no                                       |
//!   attempt --done--> return                      |
//!      | EAGAIN                                   |
//!      v                                          v
//!   trusted? --yes--> park --- event ----> attempt again (EAGAIN: from here on as below, once TRUST_WINDOW is over)
//!      | no             `-- TRUST_WINDOW is over: attempt again, then
//!   ask: does it block? --no--> EAGAIN (after an attempt)
//!        for how long?
//!   arm, park ----------------- event ----> attempt again
//! ```
//!
//! The kinds of file differ in how a call is tried without waiting:
//!
//! ```text
//!   socket            MSG_DONTWAIT
//!   pipe, eventfd ..  RWF_NOWAIT, where the kernel has it for this kind; else as a terminal
//!   terminal          poll first, then the plain call
//!   listener          poll first, then accept, one after the other in the process
//!   connect           there is no such form: O_NONBLOCK is set for the moment of the call
//!   disk              the plain call, which never switches
//! ```
//!
//! A blocking write to a stream returns when everything is written, so these calls go on after a part.
//!
//! * Invariant monkey-1: the pointers are those of the C caller, which guarantees them until the call returns; they go
//!   to the kernel as they are, or advanced by the number of bytes that the kernel has moved.
//!
//! The descriptors 0, 1 and 2 are left alone, as gevent leaves `sys.stdin` alone: `std` holds a lock around their
//! calls.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, PoisonError};

use super::closing::note_new;
use super::gate::{Green, Target, Verified, blocking, finish, green, part, pass, saved_errno};
use super::simulated::{self, socket_of};
use crate::runtime::reactor::Direction;
use crate::switch::fiber::Reason;
use crate::sys::clock::{NEVER, after, monotonic_ns};
use crate::sys::epoll::Interest;
use crate::sys::numbers::{NumberedFile, file_of, stamp};
use crate::sys::raw::{
    self, Answer, EAGAIN, EBADF, EINPROGRESS, EINVAL, ENOSYS, ENOTSOCK, EOPNOTSUPP, EPERM, MSG_DONTWAIT, MSG_ERRQUEUE,
    MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_WAITALL, POLLIN, POLLOUT, WaitKind, iovec, msghdr, sockaddr, socklen_t,
};

/// The first descriptor that is not a standard one.
const FIRST: c_int = 3;

/// The most buffers that one call takes (UIO_MAXIOV).
const MOST_BUFFERS: usize = 1024;

/// What a patched call in this direction waits for.
impl Direction {
    /// Returns the events of epoll.
    pub(super) fn interest(self) -> Interest {
        match self {
            Direction::Read => Interest::IN | Interest::RDHUP,
            Direction::Write => Interest::OUT,
        }
    }

    /// Returns the events of poll(2).
    pub(super) fn poll_bits(self) -> i16 {
        match self {
            Direction::Read => POLLIN,
            Direction::Write => POLLOUT,
        }
    }

    /// Returns the reason that reports print.
    pub(super) fn reason(self, fd: c_int) -> Reason {
        match self {
            Direction::Read => Reason::Read(fd),
            Direction::Write => Reason::Write(fd),
        }
    }

    /// Returns the time at which the socket ends a wait that begins now.
    pub(super) fn deadline(self, fd: c_int) -> u64 {
        self.deadline_from(fd, monotonic_ns())
    }

    /// Returns the time at which the socket ends a wait that began at `begin`.
    fn deadline_from(self, fd: c_int, begin: u64) -> u64 {
        let option = match self {
            Direction::Read => raw::SO_RCVTIMEO,
            Direction::Write => raw::SO_SNDTIMEO,
        };
        raw::time_limit(fd, option).map_or(NEVER, |limit| begin.saturating_add(limit).min(NEVER - 1))
    }

    /// Describes the wait for the reactor.
    fn target(self, file: NumberedFile) -> Target {
        Target { file, direction: self, interest: self.interest(), reason: self.reason(file.fd) }
    }
}

/// Fails with EAGAIN if `deadline` has passed. A call checks after each failed attempt, since a waiter that is always
/// woken early never reaches the timer.
pub(super) fn check(deadline: u64) -> Result<(), i32> {
    if deadline != NEVER && deadline <= monotonic_ns() { Err(EAGAIN) } else { Ok(()) }
}

/// The state of the waits of one call.
struct Waits {
    /// The right to wait in the hub.
    green: Green,
    /// The file that the call began with, and waits for.
    file: NumberedFile,
    /// The direction of the call.
    direction: Direction,
    /// Whether the file is a socket, and no listener: the reactor remembers what is learned of such a number.
    socket: bool,
    /// Whether the kernel has returned EAGAIN to this call.
    tried: bool,
    /// The time at which the first wait began; none before.
    begin: Option<u64>,
    /// The time at which the socket ends the wait; none as long as the kernel was not asked.
    deadline: Option<u64>,
    /// Whether the time in which the call trusts what is known has passed.
    window_over: bool,
}

impl Waits {
    /// Makes the state of a call on a socket.
    fn on_socket(green: Green, fd: c_int, direction: Direction) -> Waits {
        let file = file_of(fd);
        Waits { green, file, direction, socket: true, tried: false, begin: None, deadline: None, window_over: false }
    }

    /// Makes the state of a call on anything else, or on a listener.
    fn on_other(green: Green, fd: c_int, direction: Direction) -> Waits {
        Waits { socket: false, ..Waits::on_socket(green, fd, direction) }
    }

    /// Reports whether the queue is known to be empty.
    fn is_known_empty(&self) -> bool {
        self.socket && self.direction == Direction::Read && self.green.is_known_empty(self.file.fd)
    }

    /// Waits until it is time for another attempt.
    ///
    /// # Errors
    /// EAGAIN if the file does not block, or the time limit has passed; as [`Green::wait`].
    ///
    /// # Panics
    /// As [`Green::wait`].
    fn wait(&mut self) -> Result<(), i32> {
        // Trust what is known, for a while.
        let (green, file, direction) = (self.green, self.file, self.direction);
        let fd = file.fd;
        if self.socket
            && self.deadline.is_none()
            && !self.window_over
            && let Some(trusted) = green.trust(direction.target(file))
        {
            let begin = *self.begin.get_or_insert_with(monotonic_ns);
            return match trusted.wait(begin) {
                // One more attempt comes before the question whether the file blocks.
                Err(EAGAIN) => {
                    self.window_over = true;
                    Ok(())
                }
                result => result,
            };
        }
        // The kernel was asked by an earlier wait of this call.
        if let Some(deadline) = self.deadline {
            return green.wait(file, direction.interest(), direction.reason(fd), deadline);
        }
        // Ask the kernel: does the file block, and for how long?
        let before = stamp(fd);
        if raw::is_nonblocking(fd) {
            return if self.tried { Err(EAGAIN) } else { Ok(()) };
        }
        let begin = *self.begin.get_or_insert_with(monotonic_ns);
        let deadline = *self.deadline.insert(direction.deadline_from(fd, begin));
        if self.socket {
            green.wait_verified(direction.target(file), Verified { before, begin, deadline })
        } else {
            green.wait(file, direction.interest(), direction.reason(fd), deadline)
        }
    }

    /// Checks the time limit after a failed attempt.
    ///
    /// # Errors
    /// EAGAIN if the time limit has passed.
    fn check(&mut self) -> Result<(), i32> {
        self.tried = true;
        self.deadline.map_or(Ok(()), check)
    }
}

/// Repeats `attempt` on a socket until the result is not EAGAIN. `attempt` takes the flags to add: MSG_DONTWAIT, or
/// none if the call is known not to wait.
#[inline]
fn until_ready(green: Green, fd: c_int, direction: Direction, attempt: impl FnMut(c_int) -> Answer) -> Answer {
    repeat_until_ready(Waits::on_socket(green, fd, direction), attempt)
}

/// Repeats `attempt` as [`until_ready`] does, with the given state of waits.
#[inline]
fn repeat_until_ready(mut waits: Waits, mut attempt: impl FnMut(c_int) -> Answer) -> Answer {
    // No attempt if the queue is known to be empty.
    if !waits.is_known_empty() {
        match attempt(MSG_DONTWAIT) {
            Err(EAGAIN) => waits.tried = true,
            answer => return waits.green.pay(answer),
        }
    }
    let answer = blocking(|| {
        loop {
            waits.wait()?;
            match attempt(MSG_DONTWAIT) {
                Err(EAGAIN) => {}
                result => return result,
            }
            if waits.direction == Direction::Read && raw::is_hung_up(waits.file.fd) {
                // A datagram socket that was shut down returns EAGAIN to a call that must not wait, and 0 to one that
                // may.
                return attempt(0);
            }
            waits.check()?;
        }
    });
    waits.green.pay(answer.unwrap_or_else(Err))
}

/// Moves all of `total` bytes through a socket, in parts, as a blocking call does on a stream. `attempt` takes the
/// number of bytes that are done, and moves some of the rest without waiting; 0 ends the loop. An error after a part is
/// left to the next call.
fn until_done(
    green: Green,
    fd: c_int,
    direction: Direction,
    total: usize,
    attempt: impl FnMut(usize) -> Answer,
) -> Answer {
    repeat_until_done(Waits::on_socket(green, fd, direction), total, attempt)
}

/// Moves bytes as [`until_done`] does, with the given state of waits.
fn repeat_until_done(mut waits: Waits, total: usize, mut attempt: impl FnMut(usize) -> Answer) -> Answer {
    // The first attempt is the only one of most calls.
    let first = match attempt(0) {
        Err(EAGAIN) => 0,
        Ok(moved) if moved < total && moved > 0 => moved,
        answer => return waits.green.pay(answer),
    };
    waits.tried = true;
    // Wait and go on. Once a part is done, the result is its length, even after an error.
    let part = |done: usize, error: i32| if done > 0 { Ok(done) } else { Err(error) };
    let done = Cell::new(first);
    let ended = blocking(|| {
        loop {
            waits.wait()?;
            match attempt(done.get()) {
                Err(EAGAIN) => waits.check()?,
                Ok(moved) => {
                    done.set(done.get() + moved);
                    if moved == 0 || done.get() >= total {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    });
    waits.green.pay(match ended {
        Ok(Ok(())) => Ok(done.get()),
        Ok(Err(error)) | Err(error) => part(done.get(), error),
    })
}

/// Calls `call` on a file that cannot be tried without waiting: polls until the file is ready, then makes the plain
/// call.
fn poll_then_call(green: Green, fd: c_int, direction: Direction, call: impl Fn() -> Answer) -> Answer {
    let file = file_of(fd);
    loop {
        match raw::ready_now(fd, direction.poll_bits()) {
            Ok(0) if !raw::is_nonblocking(fd) => {}
            _ => return green.pay(call()),
        }
        match blocking(|| green.wait(file, direction.interest(), direction.reason(fd), NEVER))? {
            Ok(()) => {}
            // Epoll cannot watch the file.
            Err(EPERM) => return call(),
            Err(error) => return Err(error),
        }
    }
}

/// Returns the total length of the buffers.
///
/// # Safety
/// `count` buffers lie at `iov`.
unsafe fn total(iov: *const iovec, count: usize) -> usize {
    let mut sum = 0_usize;
    for at in 0..count.min(MOST_BUFFERS) {
        // SAFETY: the caller's promise.
        let buffer = unsafe { iov.wrapping_add(at).read() };
        sum = sum.saturating_add(buffer.iov_len);
    }
    sum
}

/// Returns the buffers without the first `skip` bytes.
///
/// # Safety
/// As [`total`].
unsafe fn remaining(iov: *const iovec, count: usize, mut skip: usize) -> Vec<iovec> {
    let mut buffers = Vec::new();
    for at in 0..count.min(MOST_BUFFERS) {
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { iov.wrapping_add(at).read() };
        // What was sent is cut off from the front: whole buffers first, then a part of one.
        let cut = skip.min(buffer.iov_len);
        skip -= cut;
        buffer.iov_base = buffer.iov_base.wrapping_byte_add(cut);
        buffer.iov_len -= cut;
        if buffer.iov_len > 0 {
            buffers.push(buffer);
        }
    }
    buffers
}

/// Makes a message header that has buffers only.
fn header(buffers: &mut [iovec]) -> msghdr {
    // SAFETY: all zeros is a valid header: null pointers, and lengths of 0.
    let mut message = unsafe { std::mem::zeroed::<msghdr>() };
    message.msg_iov = buffers.as_mut_ptr();
    message.msg_iovlen = buffers.len() as _;
    message
}

/// Reports whether the kernel, or this kind of file, has no RWF_NOWAIT.
fn has_no_nowait(answer: &Answer) -> bool {
    matches!(answer, Err(EOPNOTSUPP | ENOSYS | EINVAL | EPERM))
}

/// Reads as readv(2) does, from a file that is no socket.
///
/// # Safety
/// monkey-1.
unsafe fn read_other(green: Green, fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    // SAFETY: monkey-1.
    let plain = || unsafe { raw::readv(fd, iov, count) };
    match raw::wait_kind(fd) {
        // Files on disk are always ready.
        WaitKind::Disk => plain(),
        // A device may not know reads that do not wait: ask with poll, and then read.
        WaitKind::Device => poll_then_call(green, fd, Direction::Read, plain),
        WaitKind::Pipe => {
            // SAFETY: monkey-1.
            let answer = repeat_until_ready(Waits::on_other(green, fd, Direction::Read), |_| unsafe {
                raw::readv_now(fd, iov, count)
            });
            // Not every kind of pipe knows reads that do not wait.
            if has_no_nowait(&answer) { poll_then_call(green, fd, Direction::Read, plain) } else { answer }
        }
    }
}

/// Writes as writev(2) does, to a file that is no socket.
///
/// # Safety
/// monkey-1.
unsafe fn write_other(green: Green, fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    // SAFETY: monkey-1.
    let plain = || unsafe { raw::writev(fd, iov, count) };
    match raw::wait_kind(fd) {
        WaitKind::Disk => plain(),
        WaitKind::Device => poll_then_call(green, fd, Direction::Write, plain),
        WaitKind::Pipe => {
            // A count that is not valid is for the kernel to refuse.
            let Some(buffers) = valid_count(count) else { return plain() };
            // SAFETY: monkey-1.
            let most = unsafe { total(iov, buffers) };
            // A blocking write ends only when all bytes are written, so go on with the rest.
            let answer = repeat_until_done(Waits::on_other(green, fd, Direction::Write), most, |done| {
                // SAFETY: monkey-1.
                let list = unsafe { remaining(iov, buffers, done) };
                // SAFETY: the buffers are the caller's (monkey-1), and the list is a local.
                unsafe { raw::writev_now(fd, list.as_ptr(), list.len() as c_int) }
            });
            if has_no_nowait(&answer) { poll_then_call(green, fd, Direction::Write, plain) } else { answer }
        }
    }
}

/// Returns the number of buffers, if the kernel accepts that many.
fn valid_count(count: c_int) -> Option<usize> {
    usize::try_from(count).ok().filter(|count| (1..=MOST_BUFFERS).contains(count))
}

/// Reports whether a read with these flags returns what is there and waits for nothing else.
pub(super) fn is_plain(flags: c_int) -> bool {
    flags & (MSG_WAITALL | MSG_ERRQUEUE | MSG_OOB) == 0
}

/// Stands in for read(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn read(fd: c_int, buf: *mut c_void, len: usize) -> isize {
    if socket_of(fd).is_some() {
        // SAFETY: monkey-1.
        return unsafe { recv(fd, buf, len, 0) };
    }
    match green(part::NET) {
        // SAFETY: monkey-1.
        Some(green) if fd >= FIRST && len > 0 => unsafe { read_green(green, fd, buf, len) },
        // SAFETY: monkey-1.
        _ => pass(unsafe { raw::read(fd, buf, len) }),
    }
}

/// Reads as [`read`] does, and may wait in the hub. Out of line, so that a call that is only passed on saves no
/// registers.
///
/// # Safety
/// monkey-1.
#[inline(never)]
unsafe fn read_green(green: Green, fd: c_int, buf: *mut c_void, len: usize) -> isize {
    let before = saved_errno();
    // From a socket; from a pipe or a file if `fd` is no socket.
    let attempt = |now| {
        // SAFETY: monkey-1.
        let n = unsafe { raw::recvfrom(fd, buf, len, now, null_mut(), null_mut()) }?;
        green.note_read(fd, n, len);
        Ok(n)
    };
    let mut answer = until_ready(green, fd, Direction::Read, attempt);
    if answer == Err(ENOTSOCK) {
        let buffer = iovec { iov_base: buf, iov_len: len };
        // SAFETY: monkey-1, and a list of one buffer.
        answer = unsafe { read_other(green, fd, &raw const buffer, 1) };
    }
    finish(before, answer)
}

/// Stands in for read(2) in programs that were compiled with checks.
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __read_chk(fd: c_int, buf: *mut c_void, len: usize, room: usize) -> isize {
    if len > room {
        raw::check_failed();
    }
    // SAFETY: monkey-1.
    unsafe { read(fd, buf, len) }
}

/// Stands in for readv(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn readv(fd: c_int, iov: *const iovec, count: c_int) -> isize {
    let buffers = valid_count(count).filter(|_| fd >= FIRST);
    if let Some((socket, buffers)) = socket_of(fd).zip(buffers) {
        let before = saved_errno();
        // SAFETY: monkey-1.
        return finish(before, unsafe { simulated::read_list(fd, socket, iov, buffers) });
    }
    let Some((green, buffers)) = green(part::NET).zip(buffers) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::readv(fd, iov, count) });
    };
    // Buffers without room are for the kernel to judge.
    let before = saved_errno();
    // SAFETY: monkey-1.
    let mut list = unsafe { remaining(iov, buffers, 0) };
    if list.is_empty() {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::readv(fd, iov, count) });
    }
    // From a socket; from a pipe or a file if `fd` is no socket.
    let mut message = header(&mut list);
    // SAFETY: the buffers are the caller's (monkey-1), the header and the list are locals.
    let mut answer = until_ready(green, fd, Direction::Read, |now| unsafe { raw::recvmsg(fd, &raw mut message, now) });
    if answer == Err(ENOTSOCK) {
        // SAFETY: monkey-1.
        answer = unsafe { read_other(green, fd, iov, count) };
    }
    finish(before, answer)
}

/// Stands in for write(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn write(fd: c_int, buf: *const c_void, len: usize) -> isize {
    if socket_of(fd).is_some() {
        // SAFETY: monkey-1.
        return unsafe { send(fd, buf, len, 0) };
    }
    match green(part::NET) {
        // SAFETY: monkey-1.
        Some(green) if fd >= FIRST && len > 0 => unsafe { write_green(green, fd, buf, len) },
        // SAFETY: monkey-1.
        _ => pass(unsafe { raw::write(fd, buf, len) }),
    }
}

/// Writes as [`write`] does, and may wait in the hub.
///
/// # Safety
/// monkey-1.
#[inline(never)]
unsafe fn write_green(green: Green, fd: c_int, buf: *const c_void, len: usize) -> isize {
    let before = saved_errno();
    // SAFETY: monkey-1.
    let mut answer = unsafe { send_parts(green, fd, buf, len, 0) };
    if answer == Err(ENOTSOCK) {
        let buffer = iovec { iov_base: buf.cast_mut(), iov_len: len };
        // SAFETY: monkey-1, and a list of one buffer.
        answer = unsafe { write_other(green, fd, &raw const buffer, 1) };
    }
    finish(before, answer)
}

/// Sends a whole buffer, in parts if need be.
///
/// # Safety
/// monkey-1.
unsafe fn send_parts(green: Green, fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> Answer {
    until_done(green, fd, Direction::Write, len, |done| {
        // No SIGPIPE for the rest: the call as a whole does not fail.
        let quiet = if done > 0 { MSG_NOSIGNAL } else { 0 };
        let (at, left) = (buf.wrapping_byte_add(done), len - done);
        // SAFETY: monkey-1: the rest of the caller's buffer.
        unsafe { raw::sendto(fd, at, left, flags | quiet | MSG_DONTWAIT, null(), 0) }
    })
}

/// Stands in for writev(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn writev(fd: c_int, iov: *const iovec, count: c_int) -> isize {
    let buffers = valid_count(count).filter(|_| fd >= FIRST);
    if let Some((socket, buffers)) = socket_of(fd).zip(buffers) {
        let before = saved_errno();
        // SAFETY: monkey-1.
        let bytes = unsafe { simulated::gathered(iov, buffers) };
        return finish(before, simulated::send(fd, socket, &bytes, 0, None));
    }
    let Some((green, buffers)) = green(part::NET).zip(buffers) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::writev(fd, iov, count) });
    };
    let before = saved_errno();
    // SAFETY: monkey-1.
    let most = unsafe { total(iov, buffers) };
    if most == 0 {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::writev(fd, iov, count) });
    }
    // To a socket; to a pipe or a file if `fd` is no socket.
    let mut answer = until_done(green, fd, Direction::Write, most, |done| {
        let quiet = if done > 0 { MSG_NOSIGNAL } else { 0 };
        // SAFETY: monkey-1.
        let mut list = unsafe { remaining(iov, buffers, done) };
        let message = header(&mut list);
        // SAFETY: the buffers are the caller's (monkey-1), the header and the list are locals.
        unsafe { raw::sendmsg(fd, &raw const message, quiet | MSG_DONTWAIT) }
    });
    if answer == Err(ENOTSOCK) {
        // SAFETY: monkey-1.
        answer = unsafe { write_other(green, fd, iov, count) };
    }
    finish(before, answer)
}

/// Stands in for recv(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recv(fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> isize {
    // SAFETY: monkey-1; null pointers ask for no address.
    unsafe { recvfrom(fd, buf, len, flags, null_mut(), null_mut()) }
}

/// Stands in for recv(2) in programs that were compiled with checks.
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    room: usize,
    flags: c_int,
) -> isize {
    if len > room {
        raw::check_failed();
    }
    // SAFETY: monkey-1.
    unsafe { recv(fd, buf, len, flags) }
}

/// Stands in for recvfrom(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    flags: c_int,
    addr: *mut sockaddr,
    room: *mut socklen_t,
) -> isize {
    if let Some(socket) = socket_of(fd) {
        let before = saved_errno();
        // SAFETY: monkey-1.
        return finish(before, unsafe { simulated::receive_into(fd, socket, (buf, len), flags, (addr, room)) });
    }
    // A call that must not wait goes to the kernel as it is.
    match green(part::NET) {
        // SAFETY: monkey-1.
        Some(green) if flags & MSG_DONTWAIT == 0 => unsafe { recvfrom_green(green, fd, buf, len, flags, addr, room) },
        // SAFETY: monkey-1.
        _ => pass(unsafe { raw::recvfrom(fd, buf, len, flags, addr, room) }),
    }
}

/// Receives as [`recvfrom`] does, and may wait in the hub.
///
/// # Safety
/// monkey-1.
#[inline(never)]
unsafe fn recvfrom_green(
    green: Green,
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    flags: c_int,
    addr: *mut sockaddr,
    room: *mut socklen_t,
) -> isize {
    // With MSG_WAITALL on a stream the call receives the whole length, else what is there.
    let whole =
        flags & (MSG_WAITALL | MSG_PEEK) == MSG_WAITALL && len > 0 && addr.is_null() && is_plain(flags & !MSG_WAITALL);
    if !whole && !is_plain(flags) {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::recvfrom(fd, buf, len, flags, addr, room) });
    }
    let before = saved_errno();
    let answer = if whole && raw::is_stream(fd) {
        until_done(green, fd, Direction::Read, len, |done| {
            let (at, left) = (buf.wrapping_byte_add(done), len - done);
            // SAFETY: monkey-1: the rest of the caller's buffer.
            unsafe { raw::recvfrom(fd, at, left, flags | MSG_DONTWAIT, null_mut(), null_mut()) }
        })
    } else {
        until_ready(green, fd, Direction::Read, |now| {
            // SAFETY: monkey-1; nothing is written when the answer is EAGAIN.
            let n = unsafe { raw::recvfrom(fd, buf, len, flags | now, addr, room) }?;
            if flags == 0 {
                green.note_read(fd, n, len);
            }
            Ok(n)
        })
    };
    finish(before, answer)
}

/// Stands in for recvfrom(2) in programs that were compiled with checks.
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: usize,
    size: usize,
    flags: c_int,
    addr: *mut sockaddr,
    room: *mut socklen_t,
) -> isize {
    if len > size {
        raw::check_failed();
    }
    // SAFETY: monkey-1.
    unsafe { recvfrom(fd, buf, len, flags, addr, room) }
}

/// Stands in for recvmsg(2). A call with MSG_WAITALL goes to the kernel as it is, and blocks the OS thread.
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> isize {
    if let Some(socket) = socket_of(fd) {
        let before = saved_errno();
        // SAFETY: monkey-1.
        return finish(before, unsafe { simulated::receive_message(fd, socket, message, flags) });
    }
    let Some(green) = green(part::NET).filter(|_| flags & MSG_DONTWAIT == 0 && is_plain(flags)) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::recvmsg(fd, message, flags) });
    };
    let before = saved_errno();
    // SAFETY: monkey-1; nothing is written when the answer is EAGAIN.
    let attempt = |now| unsafe { raw::recvmsg(fd, message, flags | now) };
    finish(before, until_ready(green, fd, Direction::Read, attempt))
}

/// Stands in for send(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn send(fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> isize {
    if let Some(socket) = socket_of(fd) {
        let before = saved_errno();
        // SAFETY: monkey-1.
        return finish(before, unsafe { simulated::send_from(fd, socket, (buf, len), flags, (null(), 0)) });
    }
    match green(part::NET) {
        // SAFETY: monkey-1.
        Some(green) if flags & MSG_DONTWAIT == 0 => unsafe { send_green(green, fd, buf, len, flags) },
        // SAFETY: monkey-1.
        _ => pass(unsafe { raw::sendto(fd, buf, len, flags, null(), 0) }),
    }
}

/// Sends as [`send`] does, and may wait in the hub.
///
/// # Safety
/// monkey-1.
#[inline(never)]
unsafe fn send_green(green: Green, fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> isize {
    let before = saved_errno();
    // SAFETY: monkey-1.
    finish(before, unsafe { send_parts(green, fd, buf, len, flags) })
}

/// Stands in for sendto(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: usize,
    flags: c_int,
    addr: *const sockaddr,
    addr_len: socklen_t,
) -> isize {
    if addr.is_null() && addr_len == 0 {
        // SAFETY: monkey-1.
        return unsafe { send(fd, buf, len, flags) };
    }
    if let Some(socket) = socket_of(fd) {
        let before = saved_errno();
        // SAFETY: monkey-1.
        return finish(before, unsafe { simulated::send_from(fd, socket, (buf, len), flags, (addr, addr_len)) });
    }
    let Some(green) = green(part::NET).filter(|_| flags & MSG_DONTWAIT == 0) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::sendto(fd, buf, len, flags, addr, addr_len) });
    };
    let before = saved_errno();
    // A datagram: it goes in one piece.
    // SAFETY: monkey-1.
    let attempt = |now| unsafe { raw::sendto(fd, buf, len, flags | now, addr, addr_len) };
    finish(before, until_ready(green, fd, Direction::Write, attempt))
}

/// Stands in for sendmsg(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> isize {
    if let Some(socket) = socket_of(fd) {
        let before = saved_errno();
        // SAFETY: monkey-1.
        return finish(before, unsafe { simulated::send_message(fd, socket, message, flags) });
    }
    let Some(green) = green(part::NET).filter(|_| flags & MSG_DONTWAIT == 0) else {
        // SAFETY: monkey-1.
        return pass(unsafe { raw::sendmsg(fd, message, flags) });
    };
    let before = saved_errno();
    // SAFETY: monkey-1.
    finish(before, unsafe { send_message(green, fd, message, flags) })
}

/// Sends a message; on a stream, the whole message.
///
/// # Safety
/// monkey-1.
pub(super) unsafe fn send_message(green: Green, fd: c_int, message: *const msghdr, flags: c_int) -> Answer {
    // SAFETY: monkey-1.
    let sent = until_ready(green, fd, Direction::Write, |now| unsafe { raw::sendmsg(fd, message, flags | now) })?;
    // SAFETY: monkey-1; the kernel has read the header, too.
    let message = unsafe { &*message };
    let (iov, count) = (message.msg_iov, message.msg_iovlen);
    // SAFETY: monkey-1; the kernel has read the list, too.
    let most = unsafe { total(iov, count) };
    if sent == most || !raw::is_stream(fd) {
        return Ok(sent);
    }
    // The rest of a stream, as plain bytes. The control data went with the first part.
    let mut begun = Some(sent);
    until_done(green, fd, Direction::Write, most, |done| {
        if let Some(sent) = begun.take() {
            return Ok(sent);
        }
        // SAFETY: monkey-1.
        let mut list = unsafe { remaining(iov, count, done) };
        let message = header(&mut list);
        // SAFETY: the buffers are the caller's (monkey-1), the header and the list are locals.
        unsafe { raw::sendmsg(fd, &raw const message, flags | MSG_NOSIGNAL | MSG_DONTWAIT) }
    })
}

/// Stands in for accept(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn accept(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t) -> c_int {
    // SAFETY: monkey-1.
    unsafe { accept4(fd, addr, room, 0) }
}

/// Held from the poll for a connection to the accept: otherwise another OS thread could accept the connection in
/// between, and the call would wait for the next one.
static ACCEPT: Mutex<()> = Mutex::new(());

/// Stands in for accept4(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn accept4(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t, flags: c_int) -> c_int {
    if let Some(socket) = socket_of(fd) {
        let before = saved_errno();
        let answer = simulated::accept(fd, socket, flags).map(|(number, peer)| {
            note_new(number as usize);
            // SAFETY: monkey-1.
            unsafe { simulated::write_address(peer.as_ref(), addr, room) };
            number as usize
        });
        return finish(before, answer) as c_int;
    }
    let plain = || {
        // SAFETY: monkey-1.
        let new = unsafe { raw::accept4(fd, addr, room, flags) }?;
        note_new(new);
        Ok(new)
    };
    // The kernel refuses unknown flags before any wait.
    let known = flags & !(raw::SOCK_CLOEXEC | raw::SOCK_NONBLOCK) == 0;
    let Some(green) = green(part::NET).filter(|_| known) else { return pass(plain()) as c_int };
    let before = saved_errno();
    if !raw::is_listener(fd) {
        return pass(plain()) as c_int;
    }
    let answer = repeat_until_ready(Waits::on_other(green, fd, Direction::Read), |_| {
        let _held = ACCEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if raw::ready_now(fd, POLLIN)? == 0 { Err(EAGAIN) } else { plain() }
    });
    finish(before, answer) as c_int
}

/// Stands in for connect(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    if let Some(socket) = socket_of(fd) {
        let before = saved_errno();
        // SAFETY: monkey-1.
        let address = unsafe { simulated::read_address(addr, len) };
        return finish(before, address.and_then(|address| simulated::connect(fd, socket, &address))) as c_int;
    }
    // SAFETY: monkey-1.
    let plain = || unsafe { raw::connect(fd, addr, len) };
    let Some(green) = green(part::NET).filter(|_| !raw::is_nonblocking(fd)) else { return pass(plain()) as c_int };
    let before = saved_errno();
    let file = file_of(fd);
    // One attempt that does not wait.
    let at_once = || {
        raw::set_nonblocking(fd, true)?;
        let answer = plain();
        raw::set_nonblocking(fd, false)?;
        answer
    };
    // Wait for the outcome, or for room in the listener's queue.
    let answer = match at_once() {
        Err(EINPROGRESS) => connected(green, file),
        Err(EAGAIN) => connect_again(green, file, at_once),
        answer => answer,
    };
    finish(before, answer) as c_int
}

/// Waits until a connection in progress is established or refused.
fn connected(green: Green, file: NumberedFile) -> Answer {
    let fd = file.fd;
    let deadline = Direction::Write.deadline(fd);
    blocking(|| {
        loop {
            match green.wait(file, Interest::OUT, Reason::Write(fd), deadline) {
                // The error of connect when SO_SNDTIMEO has passed; the connection goes on.
                Err(EAGAIN) => return Err(EINPROGRESS),
                Err(error) => return Err(error),
                Ok(()) => {}
            }
            // Writable: SO_ERROR has the outcome.
            if raw::ready_now(fd, POLLOUT)? != 0 {
                return match raw::take_error(fd)? {
                    0 => Ok(0),
                    error => Err(error),
                };
            }
        }
    })?
}

/// Connects a Unix socket to a listener with a full queue. No event says when there is room, so the call is repeated.
fn connect_again(green: Green, file: NumberedFile, attempt: impl Fn() -> Answer) -> Answer {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
    let fd = file.fd;
    let deadline = Direction::Write.deadline(fd);
    blocking(|| {
        loop {
            // Sleep; a wake before the end is spurious.
            let until = after(PAUSE);
            match green.wait_all(&mut std::iter::empty(), Reason::Write(fd), until.min(deadline)) {
                Err(EAGAIN) if until < deadline => {}
                Err(error) => return Err(error),
                Ok(()) => continue,
            }
            // The number may have been closed during the pause.
            if !file.has_its_number() {
                return Err(EBADF);
            }
            match attempt() {
                Err(EAGAIN) => {}
                answer => return answer,
            }
        }
    })?
}
