//! Reading and writing, connecting and accepting: the calls of `std::net` and of C's sockets, on sockets and pipes.
//!
//! The kernel alone knows whether a file blocks and for how long (`O_NONBLOCK`, `SO_RCVTIMEO`: they belong to the open
//! file, which other descriptors and processes share), so it is asked when a call would wait, and nothing is ever set. A
//! socket whose waits are short waits first, and asks if that takes long: see `runtime/watch.rs`.
//!
//! ```text
//!   read empty by the last call? --yes------------.
//!      | no, or nobody knows                      |
//!   attempt --done--> return                      |
//!      | EAGAIN                                   |
//!      v                                          v
//!   believed? --yes--> park --- event ----> attempt again (EAGAIN: from here on as below, once BELIEF is over)
//!      | no              `-- BELIEF is over: attempt again, then
//!   ask: does it block? --no--> EAGAIN (after an attempt)
//!        for how long?
//!   arm, park ----------------- event ----> attempt again
//! ```
//!
//! What differs between the kinds is how a call is tried without waiting:
//!
//! ```text
//!   socket            MSG_DONTWAIT
//!   pipe, eventfd ..  RWF_NOWAIT, where the kernel has it for this kind; else as a terminal
//!   terminal          poll first, then the plain call
//!   listener          poll first, then accept, one after the other in the process
//!   connect           the one that has no such form: O_NONBLOCK is set for the moment of the call
//!   disk              the plain call: it never switches
//! ```
//!
//! A blocking write to a stream returns when everything is written, so ours goes on after a part.
//!
//! * Invariant M1: the pointers are the C caller's, who vouches for them until the call returns; they go to the kernel as
//!   they are, or advanced by what the kernel said it has moved.
//!
//! The descriptors 0, 1 and 2 are not touched, as gevent leaves `sys.stdin` alone: `std` holds a lock around them.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, PoisonError};

use super::closing::note_new;
use super::gate::{Asked, Green, Target, blocking, entry, finish, green, part, pass};
use crate::runtime::park::NEVER;
use crate::runtime::reactor::Direction;
use crate::runtime::source::after;
use crate::switch::fiber::Reason;
use crate::sys::clock::monotonic_ns;
use crate::sys::epoll::Interest;
use crate::sys::numbers::stamp;
use crate::sys::raw::{
    self, Answer, EAGAIN, EINPROGRESS, EINVAL, ENOSYS, ENOTSOCK, EOPNOTSUPP, EPERM, Kind, MSG_DONTWAIT, MSG_ERRQUEUE,
    MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_WAITALL, POLLIN, POLLOUT, iovec, msghdr, sockaddr, socklen_t,
};

/// Descriptors below this are the program's standard ones.
const FIRST: c_int = 3;

/// How many buffers one call takes (UIO_MAXIOV).
const MOST_BUFFERS: usize = 1024;

/// Which way a call goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Reading, accepting.
    In,
    /// Writing, connecting.
    Out,
}

impl Way {
    /// What to wait for.
    pub(super) fn interest(self) -> Interest {
        match self {
            Way::In => Interest::IN | Interest::RDHUP,
            Way::Out => Interest::OUT,
        }
    }

    /// The same for poll(2).
    pub(super) fn poll_bits(self) -> i16 {
        match self {
            Way::In => POLLIN,
            Way::Out => POLLOUT,
        }
    }

    /// What reports say.
    pub(super) fn reason(self, fd: c_int) -> Reason {
        match self {
            Way::In => Reason::Read(fd),
            Way::Out => Reason::Write(fd),
        }
    }

    /// Until when the socket lets a call wait that waits from now on.
    pub(super) fn deadline(self, fd: c_int) -> u64 {
        self.deadline_from(fd, monotonic_ns())
    }

    /// The same of a call that began to wait at `begin`.
    fn deadline_from(self, fd: c_int, begin: u64) -> u64 {
        let option = match self {
            Way::In => raw::SO_RCVTIMEO,
            Way::Out => raw::SO_SNDTIMEO,
        };
        raw::time_limit(fd, option).map_or(NEVER, |limit| begin.saturating_add(limit).min(NEVER - 1))
    }

    /// What the reactor is told.
    fn target(self, fd: c_int) -> Target {
        let direction = match self {
            Way::In => Direction::Read,
            Way::Out => Direction::Write,
        };
        Target { fd, direction, interest: self.interest(), reason: self.reason(fd) }
    }
}

/// What is left of the time until `deadline` after a try that was in vain: an error if nothing is. Whoever is woken at each
/// turn never meets the timer.
pub(super) fn check(deadline: u64) -> Result<(), i32> {
    if deadline != NEVER && deadline <= monotonic_ns() { Err(EAGAIN) } else { Ok(()) }
}

/// The waits of one call.
struct Waits {
    /// Who waits.
    green: Green,
    /// For what.
    fd: c_int,
    /// In which direction.
    way: Way,
    /// It is a socket, and no listener: what is learned of the number is worth remembering.
    socket: bool,
    /// The kernel has said EAGAIN to this call, and not only our memory.
    tried: bool,
    /// When the first wait began; none before.
    begin: Option<u64>,
    /// Until when the socket lets it wait; none as long as the kernel was not asked.
    deadline: Option<u64>,
    /// The time for belief is over.
    doubts: bool,
}

impl Waits {
    /// Of a call on a socket.
    fn on_socket(green: Green, fd: c_int, way: Way) -> Waits {
        Waits { green, fd, way, socket: true, tried: false, begin: None, deadline: None, doubts: false }
    }

    /// Of a call on anything else, or on a listener.
    fn elsewhere(green: Green, fd: c_int, way: Way) -> Waits {
        Waits { socket: false, ..Waits::on_socket(green, fd, way) }
    }

    /// Whether there is nothing to read, as far as is known.
    fn is_dry(&self) -> bool {
        self.socket && self.way == Way::In && self.green.is_dry(self.fd)
    }

    /// Waits until it is time to try again.
    ///
    /// # Errors
    /// EAGAIN if the file does not block, or its time is over; as [`Green::wait`].
    ///
    /// # Panics
    /// As [`Green::wait`].
    fn wait(&mut self) -> Result<(), i32> {
        let (green, fd, way) = (self.green, self.fd, self.way);
        if self.socket
            && self.deadline.is_none()
            && !self.doubts
            && let Some(believing) = green.believe(way.target(fd))
        {
            let begin = *self.begin.get_or_insert_with(monotonic_ns);
            return match believing.wait(begin) {
                // Before it is asked whether the file blocks, the kernel is asked whether there is something.
                Err(EAGAIN) => {
                    self.doubts = true;
                    Ok(())
                }
                result => result,
            };
        }
        if let Some(deadline) = self.deadline {
            return green.wait(fd, way.interest(), way.reason(fd), deadline);
        }
        let before = stamp(fd);
        if raw::is_nonblocking(fd) {
            return if self.tried { Err(EAGAIN) } else { Ok(()) };
        }
        let begin = *self.begin.get_or_insert_with(monotonic_ns);
        let deadline = *self.deadline.insert(way.deadline_from(fd, begin));
        if self.socket {
            green.wait_asked(way.target(fd), Asked { before, begin, deadline })
        } else {
            green.wait(fd, way.interest(), way.reason(fd), deadline)
        }
    }

    /// After a try that was in vain.
    ///
    /// # Errors
    /// EAGAIN if the time is over.
    fn check(&mut self) -> Result<(), i32> {
        self.tried = true;
        self.deadline.map_or(Ok(()), check)
    }
}

/// Runs `attempt` on a socket until it does not say EAGAIN. It is told what to add to its flags: MSG_DONTWAIT, or nothing if
/// the call is known not to wait.
#[inline]
fn until_ready(green: Green, fd: c_int, way: Way, attempt: impl FnMut(c_int) -> Answer) -> Answer {
    repeat_until_ready(Waits::on_socket(green, fd, way), attempt)
}

/// [`until_ready`], however it waits.
#[inline]
fn repeat_until_ready(mut waits: Waits, mut attempt: impl FnMut(c_int) -> Answer) -> Answer {
    // If nothing is there as far as is known, the kernel is not asked for it.
    if !waits.is_dry() {
        match attempt(MSG_DONTWAIT) {
            Err(EAGAIN) => waits.tried = true,
            Ok(done) => {
                waits.green.pay();
                return Ok(done);
            }
            Err(error) => return Err(error),
        }
    }
    blocking(|| {
        loop {
            waits.wait()?;
            match attempt(MSG_DONTWAIT) {
                Err(EAGAIN) => {}
                result => return result,
            }
            if waits.way == Way::In && raw::is_hung_up(waits.fd) {
                // A datagram socket that was shut down says EAGAIN to a call that must not wait, and 0 to one that may.
                return attempt(0);
            }
            waits.check()?;
        }
    })?
}

/// Moves all of `total` bytes through a socket, in parts, as a blocking call does on a stream. `attempt` is told how many
/// are done, and moves some of the rest without waiting; 0 ends it. An error after a part is left for the next call to find.
fn until_done(green: Green, fd: c_int, way: Way, total: usize, attempt: impl FnMut(usize) -> Answer) -> Answer {
    repeat_until_done(Waits::on_socket(green, fd, way), total, attempt)
}

/// [`until_done`], however it waits.
fn repeat_until_done(mut waits: Waits, total: usize, mut attempt: impl FnMut(usize) -> Answer) -> Answer {
    let first = match attempt(0) {
        Err(EAGAIN) => 0,
        Ok(moved) if moved < total && moved > 0 => moved,
        Ok(moved) => {
            waits.green.pay();
            return Ok(moved);
        }
        Err(error) => return Err(error),
    };
    waits.tried = true;
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
    match ended {
        Ok(Ok(())) => Ok(done.get()),
        Ok(Err(error)) | Err(error) => part(done.get(), error),
    }
}

/// For files that cannot be tried without waiting: asks whether they are ready, then makes the plain call.
fn polled(green: Green, fd: c_int, way: Way, call: impl Fn() -> Answer) -> Answer {
    loop {
        match raw::ready_now(fd, way.poll_bits()) {
            Ok(0) if !raw::is_nonblocking(fd) => {}
            _ => return call(),
        }
        match blocking(|| green.wait(fd, way.interest(), way.reason(fd), NEVER))? {
            Ok(()) => {}
            // It cannot be waited for.
            Err(EPERM) => return call(),
            Err(error) => return Err(error),
        }
    }
}

/// The bytes that buffers have room for.
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

/// The buffers without the first `skip` bytes.
///
/// # Safety
/// As [`total`].
unsafe fn rest(iov: *const iovec, count: usize, mut skip: usize) -> Vec<iovec> {
    let mut buffers = Vec::new();
    for at in 0..count.min(MOST_BUFFERS) {
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { iov.wrapping_add(at).read() };
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

/// A header for nothing but buffers.
fn header(buffers: &mut [iovec]) -> msghdr {
    // SAFETY: all zeros is a valid header: null pointers, and nothing at them.
    let mut message = unsafe { std::mem::zeroed::<msghdr>() };
    message.msg_iov = buffers.as_mut_ptr();
    message.msg_iovlen = buffers.len() as _;
    message
}

/// Whether the kernel, or this kind of file, has no RWF_NOWAIT.
fn has_no_nowait(answer: &Answer) -> bool {
    matches!(answer, Err(EOPNOTSUPP | ENOSYS | EINVAL | EPERM))
}

/// readv(2) on what is no socket.
///
/// # Safety
/// M1.
unsafe fn read_other(green: Green, fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    // SAFETY: M1.
    let plain = || unsafe { raw::readv(fd, iov, count) };
    match raw::kind(fd) {
        Kind::Disk => plain(),
        Kind::Device => polled(green, fd, Way::In, plain),
        Kind::Pipe => {
            // SAFETY: M1.
            let answer =
                repeat_until_ready(Waits::elsewhere(green, fd, Way::In), |_| unsafe { raw::readv_now(fd, iov, count) });
            if has_no_nowait(&answer) { polled(green, fd, Way::In, plain) } else { answer }
        }
    }
}

/// writev(2) on what is no socket.
///
/// # Safety
/// M1.
unsafe fn write_other(green: Green, fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    // SAFETY: M1.
    let plain = || unsafe { raw::writev(fd, iov, count) };
    match raw::kind(fd) {
        Kind::Disk => plain(),
        Kind::Device => polled(green, fd, Way::Out, plain),
        Kind::Pipe => {
            let Some(buffers) = few(count) else { return plain() };
            // SAFETY: M1.
            let most = unsafe { total(iov, buffers) };
            let answer = repeat_until_done(Waits::elsewhere(green, fd, Way::Out), most, |done| {
                // SAFETY: M1.
                let list = unsafe { rest(iov, buffers, done) };
                // SAFETY: the buffers are the caller's (M1), and the list of them is ours.
                unsafe { raw::writev_now(fd, list.as_ptr(), list.len() as c_int) }
            });
            if has_no_nowait(&answer) { polled(green, fd, Way::Out, plain) } else { answer }
        }
    }
}

/// A number of buffers that the kernel takes.
fn few(count: c_int) -> Option<usize> {
    usize::try_from(count).ok().filter(|count| (1..=MOST_BUFFERS).contains(count))
}

/// Whether a read with these flags returns what is there and waits for nothing else.
pub(super) fn is_plain(flags: c_int) -> bool {
    flags & (MSG_WAITALL | MSG_ERRQUEUE | MSG_OOB) == 0
}

/// read(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn read(fd: c_int, buf: *mut c_void, len: usize) -> isize {
    match green(part::NET) {
        // SAFETY: M1.
        Some(green) if fd >= FIRST && len > 0 => unsafe { read_green(green, fd, buf, len) },
        // SAFETY: M1.
        _ => pass(unsafe { raw::read(fd, buf, len) }),
    }
}

/// [`read`], if it may wait in the hub. Apart from it, so that a call that is only passed on saves no registers.
///
/// # Safety
/// M1.
#[inline(never)]
unsafe fn read_green(green: Green, fd: c_int, buf: *mut c_void, len: usize) -> isize {
    let before = entry();
    let attempt = |now| {
        // SAFETY: M1.
        let n = unsafe { raw::recvfrom(fd, buf, len, now, null_mut(), null_mut()) }?;
        green.note_read(fd, n, len);
        Ok(n)
    };
    let mut answer = until_ready(green, fd, Way::In, attempt);
    if answer == Err(ENOTSOCK) {
        let buffer = iovec { iov_base: buf, iov_len: len };
        // SAFETY: M1, and a list of one buffer.
        answer = unsafe { read_other(green, fd, &raw const buffer, 1) };
    }
    finish(before, answer)
}

/// read(2), as programs call it that were compiled with checks.
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn __read_chk(fd: c_int, buf: *mut c_void, len: usize, room: usize) -> isize {
    if len > room {
        raw::check_failed();
    }
    // SAFETY: M1.
    unsafe { read(fd, buf, len) }
}

/// readv(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn readv(fd: c_int, iov: *const iovec, count: c_int) -> isize {
    let buffers = few(count).filter(|_| fd >= FIRST);
    let Some((green, buffers)) = green(part::NET).zip(buffers) else {
        // SAFETY: M1.
        return pass(unsafe { raw::readv(fd, iov, count) });
    };
    let before = entry();
    // SAFETY: M1.
    let mut list = unsafe { rest(iov, buffers, 0) };
    if list.is_empty() {
        // SAFETY: M1.
        return pass(unsafe { raw::readv(fd, iov, count) });
    }
    let mut message = header(&mut list);
    // SAFETY: the buffers are the caller's (M1), the header and the list are ours.
    let mut answer = until_ready(green, fd, Way::In, |now| unsafe { raw::recvmsg(fd, &raw mut message, now) });
    if answer == Err(ENOTSOCK) {
        // SAFETY: M1.
        answer = unsafe { read_other(green, fd, iov, count) };
    }
    finish(before, answer)
}

/// write(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn write(fd: c_int, buf: *const c_void, len: usize) -> isize {
    match green(part::NET) {
        // SAFETY: M1.
        Some(green) if fd >= FIRST && len > 0 => unsafe { write_green(green, fd, buf, len) },
        // SAFETY: M1.
        _ => pass(unsafe { raw::write(fd, buf, len) }),
    }
}

/// [`write`], if it may wait in the hub.
///
/// # Safety
/// M1.
#[inline(never)]
unsafe fn write_green(green: Green, fd: c_int, buf: *const c_void, len: usize) -> isize {
    let before = entry();
    // SAFETY: M1.
    let mut answer = unsafe { send_parts(green, fd, buf, len, 0) };
    if answer == Err(ENOTSOCK) {
        let buffer = iovec { iov_base: buf.cast_mut(), iov_len: len };
        // SAFETY: M1, and a list of one buffer.
        answer = unsafe { write_other(green, fd, &raw const buffer, 1) };
    }
    finish(before, answer)
}

/// Sends all of a buffer.
///
/// # Safety
/// M1.
unsafe fn send_parts(green: Green, fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> Answer {
    until_done(green, fd, Way::Out, len, |done| {
        // A signal for what the first part would not have raised is not sent for the rest.
        let quiet = if done > 0 { MSG_NOSIGNAL } else { 0 };
        let (at, left) = (buf.wrapping_byte_add(done), len - done);
        // SAFETY: M1: the rest of the caller's buffer.
        unsafe { raw::sendto(fd, at, left, flags | quiet | MSG_DONTWAIT, null(), 0) }
    })
}

/// writev(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn writev(fd: c_int, iov: *const iovec, count: c_int) -> isize {
    let buffers = few(count).filter(|_| fd >= FIRST);
    let Some((green, buffers)) = green(part::NET).zip(buffers) else {
        // SAFETY: M1.
        return pass(unsafe { raw::writev(fd, iov, count) });
    };
    let before = entry();
    // SAFETY: M1.
    let most = unsafe { total(iov, buffers) };
    if most == 0 {
        // SAFETY: M1.
        return pass(unsafe { raw::writev(fd, iov, count) });
    }
    let mut answer = until_done(green, fd, Way::Out, most, |done| {
        let quiet = if done > 0 { MSG_NOSIGNAL } else { 0 };
        // SAFETY: M1.
        let mut list = unsafe { rest(iov, buffers, done) };
        let message = header(&mut list);
        // SAFETY: the buffers are the caller's (M1), the header and the list are ours.
        unsafe { raw::sendmsg(fd, &raw const message, quiet | MSG_DONTWAIT) }
    });
    if answer == Err(ENOTSOCK) {
        // SAFETY: M1.
        answer = unsafe { write_other(green, fd, iov, count) };
    }
    finish(before, answer)
}

/// recv(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recv(fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> isize {
    // SAFETY: M1; no address is asked for.
    unsafe { recvfrom(fd, buf, len, flags, null_mut(), null_mut()) }
}

/// recv(2), as programs call it that were compiled with checks.
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
    // SAFETY: M1.
    unsafe { recv(fd, buf, len, flags) }
}

/// recvfrom(2).
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
    match green(part::NET) {
        // SAFETY: M1.
        Some(green) if flags & MSG_DONTWAIT == 0 => unsafe { recvfrom_green(green, fd, buf, len, flags, addr, room) },
        // SAFETY: M1.
        _ => pass(unsafe { raw::recvfrom(fd, buf, len, flags, addr, room) }),
    }
}

/// [`recvfrom`], if it may wait in the hub.
///
/// # Safety
/// M1.
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
    let whole =
        flags & (MSG_WAITALL | MSG_PEEK) == MSG_WAITALL && len > 0 && addr.is_null() && is_plain(flags & !MSG_WAITALL);
    if !whole && !is_plain(flags) {
        // SAFETY: M1.
        return pass(unsafe { raw::recvfrom(fd, buf, len, flags, addr, room) });
    }
    let before = entry();
    let answer = if whole && raw::is_stream(fd) {
        until_done(green, fd, Way::In, len, |done| {
            let (at, left) = (buf.wrapping_byte_add(done), len - done);
            // SAFETY: M1: the rest of the caller's buffer.
            unsafe { raw::recvfrom(fd, at, left, flags | MSG_DONTWAIT, null_mut(), null_mut()) }
        })
    } else {
        until_ready(green, fd, Way::In, |now| {
            // SAFETY: M1; nothing is written when the answer is EAGAIN.
            let n = unsafe { raw::recvfrom(fd, buf, len, flags | now, addr, room) }?;
            if flags == 0 {
                green.note_read(fd, n, len);
            }
            Ok(n)
        })
    };
    finish(before, answer)
}

/// recvfrom(2), as programs call it that were compiled with checks.
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
    // SAFETY: M1.
    unsafe { recvfrom(fd, buf, len, flags, addr, room) }
}

/// recvmsg(2). With MSG_WAITALL it goes to the kernel as it is, and blocks the OS thread.
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> isize {
    let Some(green) = green(part::NET).filter(|_| flags & MSG_DONTWAIT == 0 && is_plain(flags)) else {
        // SAFETY: M1.
        return pass(unsafe { raw::recvmsg(fd, message, flags) });
    };
    let before = entry();
    // SAFETY: M1; nothing is written when the answer is EAGAIN.
    let attempt = |now| unsafe { raw::recvmsg(fd, message, flags | now) };
    finish(before, until_ready(green, fd, Way::In, attempt))
}

/// send(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn send(fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> isize {
    match green(part::NET) {
        // SAFETY: M1.
        Some(green) if flags & MSG_DONTWAIT == 0 => unsafe { send_green(green, fd, buf, len, flags) },
        // SAFETY: M1.
        _ => pass(unsafe { raw::sendto(fd, buf, len, flags, null(), 0) }),
    }
}

/// [`send`], if it may wait in the hub.
///
/// # Safety
/// M1.
#[inline(never)]
unsafe fn send_green(green: Green, fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> isize {
    let before = entry();
    // SAFETY: M1.
    finish(before, unsafe { send_parts(green, fd, buf, len, flags) })
}

/// sendto(2).
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
        // SAFETY: M1.
        return unsafe { send(fd, buf, len, flags) };
    }
    let Some(green) = green(part::NET).filter(|_| flags & MSG_DONTWAIT == 0) else {
        // SAFETY: M1.
        return pass(unsafe { raw::sendto(fd, buf, len, flags, addr, addr_len) });
    };
    let before = entry();
    // What has an address goes in one piece: it is a datagram.
    // SAFETY: M1.
    let attempt = |now| unsafe { raw::sendto(fd, buf, len, flags | now, addr, addr_len) };
    finish(before, until_ready(green, fd, Way::Out, attempt))
}

/// sendmsg(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> isize {
    let Some(green) = green(part::NET).filter(|_| flags & MSG_DONTWAIT == 0) else {
        // SAFETY: M1.
        return pass(unsafe { raw::sendmsg(fd, message, flags) });
    };
    let before = entry();
    // SAFETY: M1.
    finish(before, unsafe { send_message(green, fd, message, flags) })
}

/// Sends a message; on a stream all of it.
///
/// # Safety
/// M1.
pub(super) unsafe fn send_message(green: Green, fd: c_int, message: *const msghdr, flags: c_int) -> Answer {
    // SAFETY: M1.
    let sent = until_ready(green, fd, Way::Out, |now| unsafe { raw::sendmsg(fd, message, flags | now) })?;
    // SAFETY: M1; the kernel has read it, too.
    let message = unsafe { &*message };
    let (iov, count) = (message.msg_iov, message.msg_iovlen);
    // SAFETY: M1; the kernel has read the list, too.
    let most = unsafe { total(iov, count) };
    if sent == most || !raw::is_stream(fd) {
        return Ok(sent);
    }
    // The control data has gone with the first part.
    let mut begun = Some(sent);
    until_done(green, fd, Way::Out, most, |done| {
        if let Some(sent) = begun.take() {
            return Ok(sent);
        }
        // SAFETY: M1.
        let mut list = unsafe { rest(iov, count, done) };
        let message = header(&mut list);
        // SAFETY: the buffers are the caller's (M1), the header and the list are ours.
        unsafe { raw::sendmsg(fd, &raw const message, flags | MSG_NOSIGNAL | MSG_DONTWAIT) }
    })
}

/// accept(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn accept(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t) -> c_int {
    // SAFETY: M1.
    unsafe { accept4(fd, addr, room, 0) }
}

/// One accept at a time between the look whether a connection waits and the call that takes it: otherwise another OS
/// thread of ours could take it in between, and the call would wait for the next one.
static ACCEPT: Mutex<()> = Mutex::new(());

/// accept4(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn accept4(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t, flags: c_int) -> c_int {
    let plain = || {
        // SAFETY: M1.
        let new = unsafe { raw::accept4(fd, addr, room, flags) }?;
        note_new(new);
        Ok(new)
    };
    // Flags that there are not are refused before anything is waited for.
    let known = flags & !(raw::SOCK_CLOEXEC | raw::SOCK_NONBLOCK) == 0;
    let Some(green) = green(part::NET).filter(|_| known) else { return pass(plain()) as c_int };
    let before = entry();
    if !raw::is_listener(fd) {
        return pass(plain()) as c_int;
    }
    let answer = repeat_until_ready(Waits::elsewhere(green, fd, Way::In), |_| {
        let _turn = ACCEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if raw::ready_now(fd, POLLIN)? == 0 { Err(EAGAIN) } else { plain() }
    });
    finish(before, answer) as c_int
}

/// connect(2).
///
/// # Safety
/// As [`read`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: M1.
    let plain = || unsafe { raw::connect(fd, addr, len) };
    let Some(green) = green(part::NET).filter(|_| !raw::is_nonblocking(fd)) else { return pass(plain()) as c_int };
    let before = entry();
    let at_once = || {
        raw::set_nonblocking(fd, true)?;
        let answer = plain();
        raw::set_nonblocking(fd, false)?;
        answer
    };
    let answer = match at_once() {
        Err(EINPROGRESS) => connected(green, fd),
        Err(EAGAIN) => connect_again(green, fd, at_once),
        answer => answer,
    };
    finish(before, answer) as c_int
}

/// Waits until a connection that was begun is there or was refused.
fn connected(green: Green, fd: c_int) -> Answer {
    let deadline = Way::Out.deadline(fd);
    blocking(|| {
        loop {
            match green.wait(fd, Interest::OUT, Reason::Write(fd), deadline) {
                // What connect says when SO_SNDTIMEO has passed: it goes on.
                Err(EAGAIN) => return Err(EINPROGRESS),
                Err(error) => return Err(error),
                Ok(()) => {}
            }
            if raw::ready_now(fd, POLLOUT)? != 0 {
                return match raw::take_error(fd)? {
                    0 => Ok(0),
                    error => Err(error),
                };
            }
        }
    })?
}

/// A Unix socket whose listener has no room says so, and nothing tells when it has: asks again and again.
fn connect_again(green: Green, fd: c_int, attempt: impl Fn() -> Answer) -> Answer {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
    let deadline = Way::Out.deadline(fd);
    blocking(|| {
        loop {
            let until = after(PAUSE);
            match green.wait_all(&mut std::iter::empty(), Reason::Write(fd), until.min(deadline)) {
                Err(EAGAIN) if until < deadline => {}
                Err(error) => return Err(error),
                Ok(()) => continue,
            }
            match attempt() {
                Err(EAGAIN) => {}
                answer => return answer,
            }
        }
    })?
}
