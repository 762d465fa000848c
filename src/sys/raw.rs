//! System calls by number, past whatever function of that name the program is linked with.
//!
//! With the feature `monkey` the program's `recv` is ours (see `monkey`), and so is the one that the `libc` crate
//! declares. What ours is made of are the calls below: the instruction itself ([`kernel`]), so that a call that is only passed
//! on costs little more than the C library's, and past `syscall(2)`, which is ours as well (`monkey/futex.rs`, which looks at
//! one number and hands on the rest). They are the kernel's calls, not the C library's: no cancellation points, errno is left
//! alone, `dup2` is spelled `dup3`, `poll` is `ppoll`, since aarch64 has no others.
//!
//! Here are also the C library's types and numbers that the layers above need, so that they need not name it, and the
//! two functions for which there is no system call: they are reached through `dlsym(RTLD_NEXT)`, that is, as the next
//! definition after the program's own.
//!
//! Invariant W1: pointers are handed to the kernel as they came, and whoever calls a function here vouches for them as C
//! callers do. A null pointer is one that the manual allows.
#![allow(unsafe_code)]

use std::arch::asm;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::mem::{MaybeUninit, size_of};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use libc::{
    __WNOTHREAD, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, EAI_SYSTEM, F_DUPFD, F_DUPFD_CLOEXEC,
    F_GETFD, F_GETOWN, F_SETFL, FD_SETSIZE, FIONBIO, FUTEX_CLOCK_REALTIME, FUTEX_PRIVATE_FLAG, FUTEX_WAIT,
    FUTEX_WAIT_BITSET, Ioctl, LOCK_NB, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_WAITALL,
    MSG_WAITFORONE, O_ACCMODE, O_APPEND, O_NONBLOCK, O_RDONLY, O_WRONLY, P_ALL, P_PGID, P_PID, P_PIDFD, POLLERR,
    POLLIN, POLLOUT, POLLPRI, SO_RCVTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO, SO_SNDTIMEO_NEW, SOCK_CLOEXEC, SOCK_NONBLOCK,
    SOCK_STREAM, SOL_SOCKET, SPLICE_F_NONBLOCK, SYS_futex, TIMER_ABSTIME, WEXITED, WNOHANG, WNOWAIT, addrinfo,
    epoll_event, fd_set, id_t, idtype_t, iovec, mmsghdr, msghdr, nfds_t, off_t, pid_t, pollfd, rusage, siginfo_t,
    sigset_t, sockaddr, socklen_t, timespec, timeval, useconds_t,
};
pub(crate) use libc::{
    EAGAIN, EBADF, ECANCELED, EDEADLK, EINPROGRESS, EINTR, EINVAL, ENOSYS, ENOTSOCK, EOPNOTSUPP, EPERM, ETIMEDOUT,
    EWOULDBLOCK,
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

/// Room for an argument each.
macro_rules! arguments {
    ($a:expr) => { arguments!($a, 0) };
    ($a:expr, $b:expr) => { arguments!($a, $b, 0) };
    ($a:expr, $b:expr, $c:expr) => { arguments!($a, $b, $c, 0) };
    ($a:expr, $b:expr, $c:expr, $d:expr) => { arguments!($a, $b, $c, $d, 0) };
    ($a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => { arguments!($a, $b, $c, $d, $e, 0) };
    ($a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize]
    };
}

/// The system call itself, past the C library and past our own `syscall`. Leaves errno alone.
///
/// # Safety
/// Invariant W1; what a number does not use of the arguments may be anything.
#[inline(always)]
pub(crate) unsafe fn kernel(number: c_long, arguments: [usize; 6]) -> Answer {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the number and the arguments go together (Invariant W1). The kernel keeps all registers but the two named
    // and the result's, and does not touch the stack.
    unsafe {
        asm!(
            "syscall", inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; here the kernel keeps all registers but the result's.
    unsafe {
        asm!(
            "svc 0", in("x8") number, inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f, options(nostack)
        );
    }
    // The kernel's convention: what lies in the last page of numbers is an errno.
    if (-4095..0).contains(&result) { Err(-result as i32) } else { Ok(result as usize) }
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
            unsafe { kernel(libc::$number, arguments!($($arg),* $(, $more)*)) }
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
    "socketpair(2)" socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut [c_int; 2]) = SYS_socketpair;
    "fcntl(2)" fcntl_any(fd: c_int, command: c_int, argument: usize) = SYS_fcntl;
    "setsockopt(2)" setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t)
        = SYS_setsockopt;
    "sendfile(2)" sendfile(to: c_int, from: c_int, offset: *mut off_t, count: usize) = SYS_sendfile;
    "splice(2)" splice(
        from: c_int, from_at: *mut off_t, to: c_int, to_at: *mut off_t, len: usize, flags: c_uint
    ) = SYS_splice;
    "recvmmsg(2)" recvmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int, limit: *mut timespec) = SYS_recvmmsg;
    "sendmmsg(2)" sendmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) = SYS_sendmmsg;
    "epoll_wait(2)" epoll_pwait2(
        epoll: c_int, events: *mut epoll_event, most: c_int, limit: *const timespec, mask: *const sigset_t
    ) = SYS_epoll_pwait2, KERNEL_SIGSET;
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
    unsafe { kernel(libc::SYS_preadv2, arguments!(fd, iov, count, here, 0_usize, libc::RWF_NOWAIT)) }
}

/// [`writev`] that says EAGAIN instead of waiting, on the kinds of file that can (EOPNOTSUPP on others).
///
/// # Safety
/// Invariant W1.
#[inline]
pub(crate) unsafe fn writev_now(fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    let here = -1_isize;
    // SAFETY: as in `readv_now`.
    unsafe { kernel(libc::SYS_pwritev2, arguments!(fd, iov, count, here, 0_usize, libc::RWF_NOWAIT)) }
}

/// See close(2). Any number may be asked: what follows from closing one that is in use is the caller's concern.
#[inline]
pub(crate) fn close(fd: c_int) -> Answer {
    // SAFETY: the call takes an integer and touches no memory.
    unsafe { kernel(libc::SYS_close, arguments!(fd)) }
}

/// See socket(2).
#[inline]
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_socket, arguments!(domain, kind, protocol)) }
}

/// See dup(2).
#[inline]
pub(crate) fn dup(old: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_dup, arguments!(old)) }
}

/// See dup(2).
#[inline]
pub(crate) fn dup3(old: c_int, new: c_int, flags: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_dup3, arguments!(old, new, flags)) }
}

/// See tee(2).
#[inline]
pub(crate) fn tee(from: c_int, to: c_int, len: usize, flags: c_uint) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_tee, arguments!(from, to, len, flags)) }
}

/// See flock(2).
#[inline]
pub(crate) fn flock(fd: c_int, operation: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_flock, arguments!(fd, operation)) }
}

/// Copies memory of this process that may be changed or unmapped meanwhile: the kernel does it, and stops where nothing
/// is mapped. Returns how many bytes it was; 0 also where the call is forbidden.
pub(crate) fn read_memory(from: usize, into: &mut [u8]) -> usize {
    let here = iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let there = iovec { iov_base: ptr::without_provenance_mut(from), iov_len: into.len() };
    let (me, one) = (std::process::id(), 1_usize);
    let (here, there) = (&raw const here, &raw const there);
    // SAFETY: the kernel writes into `into`, which is ours and as long as it says; from the other address it only reads,
    // and an address that is not mapped is an error (process_vm_readv(2)).
    unsafe { kernel(libc::SYS_process_vm_readv, arguments!(me, here, one, there, one, 0_usize)) }.unwrap_or(0)
}

/// fcntl(2) with an integer argument, or none.
#[inline]
pub(crate) fn fcntl(fd: c_int, command: c_int, argument: c_int) -> Answer {
    // SAFETY: the commands used take an integer or nothing; none that takes a pointer is passed.
    unsafe { fcntl_any(fd, command, argument as usize) }
}

/// The owner of a file's signals as F_GETOWN of the C library tells it: a process group is negative. The kernel's own
/// F_GETOWN cannot be told from an error.
pub(crate) fn owner(fd: c_int) -> Result<pid_t, i32> {
    /// The command, and what it says of a process group (`asm-generic/fcntl.h`).
    const F_GETOWN_EX: c_int = 16;
    const F_OWNER_PGRP: c_int = 2;
    let mut owner = [0 as c_int; 2];
    // SAFETY: the kernel fills a kind and a number, both of this type (F_GETOWN_EX(2const)).
    unsafe { fcntl_any(fd, F_GETOWN_EX, (&raw mut owner).addr()) }?;
    let [kind, number] = owner;
    Ok(if kind == F_OWNER_PGRP { -number } else { number })
}

/// The flags of the open file: its access mode, O_NONBLOCK, O_APPEND and the like.
#[inline]
pub(crate) fn file_flags(fd: c_int) -> Result<c_int, i32> {
    fcntl(fd, libc::F_GETFL, 0).map(|flags| flags as c_int)
}

/// Whether the open file has O_NONBLOCK, asked of the kernel each time: it is the only one who always knows, since the
/// flag belongs to the open file, which other descriptors, OS threads and processes share.
#[inline]
pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    file_flags(fd).is_ok_and(|flags| flags & O_NONBLOCK != 0)
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
    socket_type(fd) == Ok(SOCK_STREAM)
}

/// The type of a socket: SOCK_STREAM and so on.
///
/// # Errors
/// ENOTSOCK, EBADF.
pub(crate) fn socket_type(fd: c_int) -> Result<c_int, i32> {
    option(fd, libc::SO_TYPE, 0)
}

/// Whether it is a Unix socket.
pub(crate) fn is_unix(fd: c_int) -> bool {
    option(fd, libc::SO_DOMAIN, 0) == Ok(libc::AF_UNIX)
}

/// How many bytes the kernel keeps for a socket that its peer has not taken, with what it takes to keep them.
pub(crate) fn send_buffer(fd: c_int) -> usize {
    option(fd, libc::SO_SNDBUF, 0).ok().and_then(|size: c_int| usize::try_from(size).ok()).unwrap_or(0)
}

/// Whether it is TCP: a read that returns less than it has room for has left nothing. (A Unix socket stops at descriptors
/// that came along, whatever follows.)
pub(crate) fn is_tcp(fd: c_int) -> bool {
    option(fd, libc::SO_PROTOCOL, 0) == Ok(libc::IPPROTO_TCP)
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

/// See fstat(2).
fn status(fd: c_int) -> Result<libc::stat, i32> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills `status` (fstat(2)).
    unsafe { fstat(fd, status.as_mut_ptr()) }?;
    // SAFETY: the call succeeded, so it was filled.
    Ok(unsafe { status.assume_init() })
}

/// Which pipe it is an end of, if it is one: both ends and all duplicates have the same number.
pub(crate) fn pipe_of(fd: c_int) -> Option<(libc::dev_t, libc::ino_t)> {
    let status = status(fd).ok().filter(|status| status.st_mode & libc::S_IFMT == libc::S_IFIFO)?;
    Some((status.st_dev, status.st_ino))
}

/// The kind of a file that is no socket.
pub(crate) fn kind(fd: c_int) -> Kind {
    let Ok(status) = status(fd) else { return Kind::Disk };
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

/// The process group of this process.
pub(crate) fn own_group() -> pid_t {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::getpgrp() }
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

/// Writes to standard error, past every buffer and lock. What cannot be written is lost.
pub(crate) fn write_stderr(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and the length are those of one slice (write(2)).
        match unsafe { write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) } {
            Ok(written) => bytes = &bytes[written..],
            Err(EINTR) => {}
            Err(_) => return,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_up_to_where_none_is_mapped() {
        let (bytes, mut copy) = (*b"what is there", [0; 13]);
        assert_eq!(read_memory(bytes.as_ptr().addr(), &mut copy), 13);
        assert_eq!(copy, bytes);
        assert_eq!(read_memory(8, &mut copy), 0);
        let page = crate::sys::mmap::page_size();
        let mapping = crate::sys::mmap::Mapping::reserve(2 * page).expect("memory");
        // SAFETY: the mapping is this test's, and nothing lies there.
        unsafe { mapping.guard(page, page, crate::sys::mmap::GuardKind::Protect) }.expect("a guard");
        assert_eq!(read_memory(mapping.base().as_ptr().addr() + page - 5, &mut copy), 5);
    }

    #[test]
    fn the_kernel_is_called_with_all_six_arguments_and_errno_stays() {
        let words = [1_u8, 2, 3];
        let mut copy = [0_u8; 3];
        let here = iovec { iov_base: copy.as_mut_ptr().cast(), iov_len: 3 };
        let there = iovec { iov_base: words.as_ptr().cast_mut().cast(), iov_len: 3 };
        let lists = [(&raw const here).expose_provenance(), (&raw const there).expose_provenance()];
        let me = std::process::id() as usize;
        set_errno(77);
        // SAFETY: as in `read_memory`.
        let answer = unsafe { kernel(libc::SYS_process_vm_readv, [me, lists[0], 1, lists[1], 1, 0]) };
        assert_eq!((answer, copy), (Ok(3), words));
        // SAFETY: the same; flags other than 0 are refused.
        let answer = unsafe { kernel(libc::SYS_process_vm_readv, [me, lists[0], 1, lists[1], 1, 1]) };
        assert_eq!((answer, errno()), (Err(EINVAL), 77));
    }
}
