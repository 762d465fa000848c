//! System calls by number, past whatever function of that name the program is linked with.
//!
//! With the feature `monkey` the program's `recv` is ours (see `monkey`), and so is the one that the `libc` crate
//! declares. What ours is made of are the calls below: `syscall(2)` is a function that nobody replaces. They are the
//! kernel's calls, not the C library's: no cancellation points, `dup2` is spelled `dup3`, `poll` is `ppoll`, since
//! aarch64 has no others.
//!
//! Here are also the C library's types and numbers that the layers above need, so that they need not name it, and the
//! two functions for which there is no system call: they are reached through `dlsym(RTLD_NEXT)`, that is, as the next
//! definition after the program's own.
//!
//! Invariant W1: pointers are handed to the kernel as they came, and whoever calls a function here vouches for them as C
//! callers do. A null pointer is one that the manual allows.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::{MaybeUninit, size_of};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use libc::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, EAI_SYSTEM, F_GETFD, FD_SETSIZE, MSG_DONTWAIT,
    MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_WAITALL, P_PID, POLLIN, POLLOUT, POLLPRI, SO_RCVTIMEO,
    SO_SNDTIMEO, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, TIMER_ABSTIME, WEXITED, WNOHANG, WNOWAIT, addrinfo,
    epoll_event, fd_set, id_t, idtype_t, iovec, msghdr, nfds_t, pid_t, pollfd, rusage, siginfo_t, sigset_t, sockaddr,
    socklen_t, timespec, timeval, useconds_t,
};
pub(crate) use libc::{
    EAGAIN, EBADF, ECANCELED, EDEADLK, EINPROGRESS, EINTR, EINVAL, ENOSYS, ENOTSOCK, EOPNOTSUPP, EPERM, ETIMEDOUT,
};

/// What a call returned, or its errno.
pub(crate) type Answer = Result<usize, i32>;

/// The errno of this OS thread.
#[inline]
pub(crate) fn errno() -> i32 {
    // SAFETY: the C library's function returns the address of this OS thread's errno and needs nothing.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: that address is good as long as the OS thread runs.
    unsafe { *at }
}

/// Sets the errno of this OS thread.
#[inline]
pub(crate) fn set_errno(errno: i32) {
    // SAFETY: as in `errno`.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as in `errno`; nobody holds a reference to it.
    unsafe { *at = errno };
}

/// What `syscall` returned, as an answer.
#[inline]
fn answer(result: libc::c_long) -> Answer {
    usize::try_from(result).map_err(|_| errno())
}

/// Defines one function for each system call, with its manual page.
macro_rules! calls {
    ($($page:literal $name:ident($($arg:ident: $kind:ty),*) = $number:ident $(, $more:expr)*;)*) => {$(
        #[doc = concat!("See ", $page, ".")]
        ///
        /// # Safety
        /// Invariant W1.
        #[inline]
        pub(crate) unsafe fn $name($($arg: $kind),*) -> Answer {
            // SAFETY: the number and the arguments go together, and the pointers are the caller's (Invariant W1).
            answer(unsafe { libc::syscall(libc::$number, $($arg,)* $($more),*) })
        }
    )*};
}

calls! {
    "read(2)" read(fd: c_int, buf: *mut c_void, len: usize) = SYS_read;
    "write(2)" write(fd: c_int, buf: *const c_void, len: usize) = SYS_write;
    "readv(2)" readv(fd: c_int, iov: *const iovec, count: c_int) = SYS_readv;
    "readv(2)" writev(fd: c_int, iov: *const iovec, count: c_int) = SYS_writev;
    "recv(2)" recvfrom(fd: c_int, buf: *mut c_void, len: usize, flags: c_int, addr: *mut sockaddr, room: *mut socklen_t)
        = SYS_recvfrom;
    "recv(2)" recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) = SYS_recvmsg;
    "send(2)" sendto(fd: c_int, buf: *const c_void, len: usize, flags: c_int, addr: *const sockaddr, addr_len: socklen_t)
        = SYS_sendto;
    "send(2)" sendmsg(fd: c_int, message: *const msghdr, flags: c_int) = SYS_sendmsg;
    "accept(2)" accept4(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t, flags: c_int) = SYS_accept4;
    "connect(2)" connect(fd: c_int, addr: *const sockaddr, len: socklen_t) = SYS_connect;
    "poll(2)" ppoll(fds: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t)
        = SYS_ppoll, KERNEL_SIGSET;
    "select(2)" pselect6(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        limit: *const timespec, mask: *const [usize; 2]
    ) = SYS_pselect6;
    "epoll_wait(2)" epoll_pwait(epoll: c_int, events: *mut epoll_event, most: c_int, limit: c_int, mask: *const sigset_t)
        = SYS_epoll_pwait, KERNEL_SIGSET;
    "clock_nanosleep(2)" clock_nanosleep(clock: c_int, flags: c_int, span: *const timespec, left: *mut timespec)
        = SYS_clock_nanosleep;
    "wait(2)" wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) = SYS_wait4;
    "waitid(2)" waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int, usage: *mut rusage) = SYS_waitid;
    "getsockopt(2)" getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t)
        = SYS_getsockopt;
    "ioctl(2)" ioctl(fd: c_int, request: libc::Ioctl, argument: *mut c_void) = SYS_ioctl;
    "fstat(2)" fstat(fd: c_int, status: *mut libc::stat) = SYS_fstat;
}

/// Bytes of a set of signals, as the kernel counts.
pub(crate) const KERNEL_SIGSET: usize = 8;

/// [`readv`] that says EAGAIN instead of waiting, on the kinds of file that can (EOPNOTSUPP on others).
///
/// # Safety
/// Invariant W1.
#[inline]
pub(crate) unsafe fn readv_now(fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    let here = -1_isize;
    // SAFETY: as for all calls above; offset -1 is the file's own position (preadv2(2)).
    answer(unsafe { libc::syscall(libc::SYS_preadv2, fd, iov, count, here, 0_usize, libc::RWF_NOWAIT) })
}

/// [`writev`] that says EAGAIN instead of waiting, on the kinds of file that can (EOPNOTSUPP on others).
///
/// # Safety
/// Invariant W1.
#[inline]
pub(crate) unsafe fn writev_now(fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    let here = -1_isize;
    // SAFETY: as in `readv_now`.
    answer(unsafe { libc::syscall(libc::SYS_pwritev2, fd, iov, count, here, 0_usize, libc::RWF_NOWAIT) })
}

/// See close(2). Any number may be asked: what follows from closing one that is in use is the caller's concern.
#[inline]
pub(crate) fn close(fd: c_int) -> Answer {
    // SAFETY: the call takes an integer and touches no memory.
    answer(unsafe { libc::syscall(libc::SYS_close, fd) })
}

/// See dup(2).
#[inline]
pub(crate) fn dup3(old: c_int, new: c_int, flags: c_int) -> Answer {
    // SAFETY: as in `close`.
    answer(unsafe { libc::syscall(libc::SYS_dup3, old, new, flags) })
}

/// fcntl(2) with an integer argument, or none.
#[inline]
pub(crate) fn fcntl(fd: c_int, command: c_int, argument: c_int) -> Answer {
    // SAFETY: the commands used take an integer or nothing; none that takes a pointer is passed.
    answer(unsafe { libc::syscall(libc::SYS_fcntl, fd, command, argument) })
}

/// Whether the open file has O_NONBLOCK, asked of the kernel each time: it is the only one who always knows, since the
/// flag belongs to the open file, which other descriptors, OS threads and processes share.
#[inline]
pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    fcntl(fd, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_NONBLOCK as usize != 0)
}

/// Sets or clears O_NONBLOCK.
pub(crate) fn set_nonblocking(fd: c_int, on: bool) -> Answer {
    let mut on = c_int::from(on);
    // SAFETY: FIONBIO reads one integer, which lives until the call returns (FIONBIO(2const)).
    unsafe { ioctl(fd, libc::FIONBIO, (&raw mut on).cast()) }
}

/// An option of the socket level that is of type `T`, a plain number or a struct of such.
fn option<T: Copy>(fd: c_int, name: c_int, mut value: T) -> Result<T, i32> {
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`, which has as many (getsockopt(2)).
    unsafe { getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) }?;
    Ok(value)
}

/// The error that waits on a socket, 0 for none.
pub(crate) fn take_error(fd: c_int) -> Result<c_int, i32> {
    option(fd, libc::SO_ERROR, 0)
}

/// Whether it is a stream socket.
pub(crate) fn is_stream(fd: c_int) -> bool {
    option(fd, libc::SO_TYPE, 0) == Ok(SOCK_STREAM)
}

/// Whether it listens for connections.
pub(crate) fn is_listener(fd: c_int) -> bool {
    option(fd, libc::SO_ACCEPTCONN, 0) == Ok(1)
}

/// Whether nothing more can arrive.
pub(crate) fn is_hung_up(fd: c_int) -> bool {
    ready_now(fd, POLLIN | libc::POLLRDHUP).is_ok_and(|ready| ready & (libc::POLLRDHUP | libc::POLLHUP) != 0)
}

/// SO_RCVTIMEO or SO_SNDTIMEO in nanoseconds; none if it is not set, or this is no socket.
pub(crate) fn time_limit(fd: c_int, name: c_int) -> Option<u64> {
    let limit = option(fd, name, timeval { tv_sec: 0, tv_usec: 0 }).ok()?;
    let nanos = (limit.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(limit.tv_usec as u64 * 1000);
    (nanos != 0).then_some(nanos)
}

/// The poll(2) bits of `interest` that are ready now.
///
/// # Errors
/// EBADF if it is not open.
pub(crate) fn ready_now(fd: c_int, interest: i16) -> Result<i16, i32> {
    let mut entry = pollfd { fd, events: interest, revents: 0 };
    let none = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one entry and one span, which live until the call returns; no mask (poll(2)).
    unsafe { ppoll(&raw mut entry, 1, &raw const none, ptr::null()) }?;
    if entry.revents & libc::POLLNVAL != 0 { Err(EBADF) } else { Ok(entry.revents) }
}

/// What matters of the kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file, a directory, a disk: waits for no event, and cannot be waited for. Also what cannot be asked.
    Disk,
    /// A pipe, and the kernel's own descriptors (eventfd, timerfd, ..).
    Pipe,
    /// A terminal or another character device.
    Device,
}

/// The kind of a file that is no socket.
pub(crate) fn kind(fd: c_int) -> Kind {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills `status` (fstat(2)).
    if unsafe { fstat(fd, status.as_mut_ptr()) }.is_err() {
        return Kind::Disk;
    }
    // SAFETY: the call succeeded, so it was filled.
    let status = unsafe { status.assume_init() };
    match status.st_mode & libc::S_IFMT {
        // The kernel's own descriptors have no kind.
        libc::S_IFIFO | 0 => Kind::Pipe,
        libc::S_IFCHR => Kind::Device,
        _ => Kind::Disk,
    }
}

/// A span or moment in nanoseconds; none if it is no valid one.
pub(crate) fn nanos(span: &timespec) -> Option<u64> {
    let (seconds, rest) = (u64::try_from(span.tv_sec).ok()?, u64::try_from(span.tv_nsec).ok()?);
    (rest < 1_000_000_000).then(|| seconds.saturating_mul(1_000_000_000).saturating_add(rest))
}

/// The kernel's form of `nanos` nanoseconds.
pub(crate) fn span(nanos: u64) -> timespec {
    super::clock::timespec(nanos)
}

/// The time of day in nanoseconds since 1970.
pub(crate) fn realtime_ns() -> u64 {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills `now` and cannot fail for this clock (clock_gettime(2)).
    unsafe { libc::clock_gettime(CLOCK_REALTIME, &raw mut now) };
    nanos(&now).unwrap_or(0)
}

/// Whether `fd` is in the set.
///
/// # Safety
/// `set` points to a set.
pub(crate) unsafe fn is_in(set: *const fd_set, fd: c_int) -> bool {
    // SAFETY: the caller's; numbers up to FD_SETSIZE are in range, and the callers ask for no others.
    unsafe { libc::FD_ISSET(fd, set) }
}

/// The program's next definition of `name`, after its own; cached in `cell`.
fn next(cell: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    // Relaxed: the address is all there is to it, and looking it up twice finds the same.
    let known = cell.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: the name is a C string; the lookup touches nothing of ours (dlsym(3)).
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if found.is_null() {
        std::process::abort();
    }
    cell.store(found, Ordering::Relaxed);
    found
}

/// The C library's getaddrinfo.
///
/// # Safety
/// Invariant W1.
pub(crate) unsafe fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    type Function = unsafe extern "C" fn(*const c_char, *const c_char, *const addrinfo, *mut *mut addrinfo) -> c_int;
    let function = next(&NEXT, c"getaddrinfo");
    // SAFETY: the C library's function of this name has this type (getaddrinfo(3)).
    let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
    // SAFETY: the caller's pointers.
    unsafe { function(node, service, hints, result) }
}

/// Frees what [`getaddrinfo`] made.
///
/// # Safety
/// `list` came from there and is not used again.
pub(crate) unsafe fn freeaddrinfo(list: *mut addrinfo) {
    // SAFETY: the caller's promise.
    unsafe { libc::freeaddrinfo(list) };
}

/// The C library's sigaction.
///
/// # Safety
/// Invariant W1; and the handler is one that may run at any time.
pub(crate) unsafe fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    type Function = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
    let function = next(&NEXT, c"sigaction");
    // SAFETY: the C library's function of this name has this type (sigaction(2)).
    let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
    // SAFETY: the caller's pointers.
    unsafe { function(signal, new, old) }
}

/// Ends the process as the C library does when a checked call (`__read_chk`) is told of a buffer that is too small.
pub(crate) fn check_failed() -> ! {
    unsafe extern "C" {
        fn __chk_fail() -> !;
    }
    // SAFETY: it takes nothing and does not return.
    unsafe { __chk_fail() }
}

/// The child in what waitid(2) filled; 0 for none.
///
/// # Safety
/// `info` points to a struct that was filled, or is all zeros.
pub(crate) unsafe fn pid_in(info: *const siginfo_t) -> pid_t {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    // SAFETY: the field is there for the end of a child, and zero where nothing was filled in.
    unsafe { info.si_pid() }
}

/// A number for `c_uint` arguments of the C library, where the kernel has an `int`.
pub(crate) fn seconds_left(nanos: u64) -> c_uint {
    c_uint::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(c_uint::MAX)
}
