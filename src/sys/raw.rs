//! System calls by number, which bypass the program's functions of the same names.
//!
//! With the feature `monkey` this crate defines the program's `recv` (see `monkey`), which is also the one that the
//! `libc` crate declares. These definitions are made of the calls below, which are the instruction itself ([`kernel`]),
//! for two reasons: a call that is only passed on costs little more than the C library's, and `syscall(2)` is defined
//! by this crate as well (`monkey/futex.rs`). The calls are the kernel's, not the C library's: they are no cancellation
//! points, they leave errno alone, `dup2` is spelled `dup3` and `poll` is `ppoll`, since aarch64 has no others.
//!
//! This file also re-exports the C library's types and numbers that the layers above need, so that those need not name
//! `libc`, and has the functions for which there is no system call: these are found through `dlsym(RTLD_NEXT)`,
//! that is, as the next definition after the program's.
//!
//! Invariant sys-raw-1: pointers go to the kernel as they came, and the caller of a function here guarantees that they
//! are valid, as C callers do. A null pointer is one that the manual allows.
#![allow(unsafe_code)]

use std::arch::asm;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::mem::{MaybeUninit, size_of};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use libc::{
    __WNOTHREAD, AF_INET, AF_INET6, AF_UNIX, AI_NUMERICHOST, CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME, CLOCK_REALTIME_ALARM, CLOCK_REALTIME_COARSE,
    CLOCK_TAI, CLOCK_THREAD_CPUTIME_ID, EAI_NONAME, EAI_SYSTEM, F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETOWN,
    F_SETFL, FD_SETSIZE, FIONBIO, FIONREAD, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE,
    FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP, Ioctl, LOCK_NB, MSG_DONTWAIT,
    MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_WAITALL, MSG_WAITFORONE, O_ACCMODE, O_APPEND, O_CLOEXEC,
    O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, P_ALL, P_PGID, P_PID, P_PIDFD, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT,
    POLLPRI, PR_GET_NAME, PR_SET_NAME, SO_RCVTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO, SO_SNDTIMEO_NEW, SOCK_CLOEXEC,
    SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, SPLICE_F_NONBLOCK, SYS_futex, SYS_getrandom, SYS_prctl,
    TIMER_ABSTIME, WEXITED, WNOHANG, WNOWAIT, addrinfo, clockid_t, epoll_event, fd_set, id_t, idtype_t, iovec, mmsghdr,
    msghdr, nfds_t, off_t, pid_t, pollfd, rusage, siginfo_t, sigset_t, sockaddr, socklen_t, time_t, timespec, timeval,
    useconds_t,
};
pub(crate) use libc::{
    EAFNOSUPPORT, EAGAIN, EBADF, EBUSY, ECANCELED, EDEADLK, EDOM, EFAULT, EINPROGRESS, EINTR, EINVAL, EIO, ENOSYS,
    ENOTSOCK, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, ERANGE, ESRCH, ETIMEDOUT, EWOULDBLOCK,
};

/// The result of a system call, or the errno.
pub(crate) type Answer = Result<usize, i32>;

/// Returns the errno of this OS thread.
#[inline]
pub(crate) fn errno() -> i32 {
    // SAFETY: the C library's function returns the address of this OS thread's errno and has no condition.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: that address is good as long as the OS thread runs.
    unsafe { *at }
}

/// Sets the errno of this OS thread.
#[inline]
pub(crate) fn set_errno(errno: i32) {
    // SAFETY: as in `errno`.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as in `errno`; nothing holds a reference to it.
    unsafe { *at = errno };
}

/// Makes an array of six arguments; those that are not given are 0.
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

/// Executes the instruction of a system call, without the C library and without this crate's `syscall`. Leaves errno
/// alone.
///
/// # Safety
/// Invariant sys-raw-1. Arguments that a call does not use may be anything.
#[inline(always)]
pub(crate) unsafe fn kernel(number: c_long, arguments: [usize; 6]) -> Answer {
    let [a, b, c, d, e, f] = arguments;
    // The instruction, with each argument in its register.
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the number and the arguments go together (Invariant sys-raw-1). The kernel keeps all registers but the
    // two named and the result's, and does not touch the stack.
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
    // The kernel's convention: a result from -4095 to -1 is an errno.
    if (-4095..0).contains(&result) { Err(-result as i32) } else { Ok(result as usize) }
}

/// Defines one function for each system call, with its manual page.
macro_rules! calls {
    ($($page:literal $name:ident($($arg:ident: $kind:ty),*) = $number:ident $(, $more:expr)*;)*) => {$(
        #[doc = concat!("See ", $page, ".")]
        ///
        /// # Safety
        /// Invariant sys-raw-1.
        #[inline]
        pub(crate) unsafe fn $name($($arg: $kind),*) -> Answer {
            // SAFETY: the number and the arguments go together, and the pointers are the caller's (Invariant
            // sys-raw-1).
            unsafe { kernel(libc::$number, arguments!($($arg),* $(, $more)*)) }
        }
    )*};
}

/// Calls sched_yield(2), which does not fail.
pub(crate) fn sched_yield() {
    // SAFETY: the call takes no arguments (Invariant sys-raw-1).
    let _ = unsafe { kernel(libc::SYS_sched_yield, [0; 6]) };
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
    "bind(2)" bind(fd: c_int, addr: *const sockaddr, len: socklen_t) = SYS_bind;
    "getsockname(2)" getsockname(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t) = SYS_getsockname;
    "getpeername(2)" getpeername(fd: c_int, addr: *mut sockaddr, room: *mut socklen_t) = SYS_getpeername;
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

/// The size of a set of signals in the kernel, in bytes.
pub(crate) const KERNEL_SIGSET: usize = 8;

/// Calls [`readv`], but returns EAGAIN in place of waiting; EOPNOTSUPP on kinds of file that cannot do so.
///
/// # Safety
/// Invariant sys-raw-1.
#[inline]
pub(crate) unsafe fn readv_now(fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    let here = -1_isize;
    // SAFETY: as for all calls above; offset -1 is the file's own position (preadv2(2)).
    unsafe { kernel(libc::SYS_preadv2, arguments!(fd, iov, count, here, 0_usize, libc::RWF_NOWAIT)) }
}

/// Calls [`writev`], but returns EAGAIN in place of waiting; EOPNOTSUPP on kinds of file that cannot do so.
///
/// # Safety
/// Invariant sys-raw-1.
#[inline]
pub(crate) unsafe fn writev_now(fd: c_int, iov: *const iovec, count: c_int) -> Answer {
    let here = -1_isize;
    // SAFETY: as in `readv_now`.
    unsafe { kernel(libc::SYS_pwritev2, arguments!(fd, iov, count, here, 0_usize, libc::RWF_NOWAIT)) }
}

/// Calls close(2) on any number. What follows from closing a number that is in use is the caller's concern.
#[inline]
pub(crate) fn close(fd: c_int) -> Answer {
    // SAFETY: the call takes an integer and touches no memory.
    unsafe { kernel(libc::SYS_close, arguments!(fd)) }
}

/// Makes a socket, as socket(2) says.
#[inline]
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_socket, arguments!(domain, kind, protocol)) }
}

/// Makes a socket listen, as listen(2) says.
#[inline]
pub(crate) fn listen(fd: c_int, backlog: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_listen, arguments!(fd, backlog)) }
}

/// Ends directions of a socket, as shutdown(2) says.
#[inline]
pub(crate) fn shutdown(fd: c_int, how: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_shutdown, arguments!(fd, how)) }
}

/// Duplicates a descriptor, as dup(2) says.
#[inline]
pub(crate) fn dup(old: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_dup, arguments!(old)) }
}

/// Makes `new` a duplicate of `old`, as dup(2) says.
#[inline]
pub(crate) fn dup3(old: c_int, new: c_int, flags: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_dup3, arguments!(old, new, flags)) }
}

/// Copies bytes between two pipes, as tee(2) says.
#[inline]
pub(crate) fn tee(from: c_int, to: c_int, len: usize, flags: c_uint) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_tee, arguments!(from, to, len, flags)) }
}

/// Wakes threads that wait in the kernel for a word of this process, as FUTEX_WAKE_BITSET of futex(2) says.
#[inline]
pub(crate) fn futex_wake(address: usize, bits: u32, count: c_int) -> Answer {
    let operation = FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG;
    // SAFETY: the address of a private word is a key for the kernel, which does not look there.
    unsafe { kernel(SYS_futex, arguments!(address, operation, count, 0_usize, 0_usize, bits)) }
}

/// Takes or releases the lock of a file, as flock(2) says.
#[inline]
pub(crate) fn flock(fd: c_int, operation: c_int) -> Answer {
    // SAFETY: as in `close`.
    unsafe { kernel(libc::SYS_flock, arguments!(fd, operation)) }
}

/// Copies memory of this process that may be changed or unmapped meanwhile: the kernel copies, and stops where nothing
/// is mapped. Returns the number of bytes copied; 0 also where the call is forbidden.
pub(crate) fn read_memory(from: usize, into: &mut [u8]) -> usize {
    let here = iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let there = iovec { iov_base: ptr::without_provenance_mut(from), iov_len: into.len() };
    let (me, one) = (std::process::id(), 1_usize);
    let (here, there) = (&raw const here, &raw const there);
    // SAFETY: the kernel writes into `into`, of which the length is passed; at the other address the kernel only
    // reads, and an address that is not mapped is an error (process_vm_readv(2)).
    unsafe { kernel(libc::SYS_process_vm_readv, arguments!(me, here, one, there, one, 0_usize)) }.unwrap_or(0)
}

/// Calls fcntl(2) with an integer argument, or none.
#[inline]
pub(crate) fn fcntl(fd: c_int, command: c_int, argument: c_int) -> Answer {
    // SAFETY: the commands used take an integer or nothing; none that takes a pointer is passed.
    unsafe { fcntl_any(fd, command, argument as usize) }
}

/// Returns the owner of a file's signals as F_GETOWN of the C library does: a process group is negative. The result of
/// the kernel's F_GETOWN could not be told from an error.
pub(crate) fn owner(fd: c_int) -> Result<pid_t, i32> {
    /// The number of the command (`asm-generic/fcntl.h`).
    const F_GETOWN_EX: c_int = 16;
    /// The kind of owner that is a process group.
    const F_OWNER_PGRP: c_int = 2;
    let mut owner = [0 as c_int; 2];
    // SAFETY: the kernel fills a kind and a number, both of this type (F_GETOWN_EX(2const)).
    unsafe { fcntl_any(fd, F_GETOWN_EX, (&raw mut owner).addr()) }?;
    let [kind, number] = owner;
    Ok(if kind == F_OWNER_PGRP { -number } else { number })
}

/// Returns the flags of the open file: the access mode, O_NONBLOCK, O_APPEND and the like.
#[inline]
pub(crate) fn file_flags(fd: c_int) -> Result<c_int, i32> {
    fcntl(fd, libc::F_GETFL, 0).map(|flags| flags as c_int)
}

/// Reports whether the open file has O_NONBLOCK. Asks the kernel each time, since the flag belongs to the open file,
/// which other descriptors, OS threads and processes share.
#[inline]
pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    file_flags(fd).is_ok_and(|flags| flags & O_NONBLOCK != 0)
}

/// Sets or clears O_NONBLOCK of the open file.
pub(crate) fn set_nonblocking(fd: c_int, on: bool) -> Answer {
    let mut on = c_int::from(on);
    // SAFETY: FIONBIO reads one integer, which lives until the call returns (FIONBIO(2const)).
    unsafe { ioctl(fd, libc::FIONBIO, (&raw mut on).cast()) }
}

/// Options of sockets, as level and name.
pub(crate) mod option {
    use std::ffi::c_int;

    /// Whether small writes are sent at once.
    pub(crate) const NO_DELAY: (c_int, c_int) = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
    /// Whether what arrives is acknowledged at once.
    pub(crate) const QUICK_ACK: (c_int, c_int) = (libc::IPPROTO_TCP, libc::TCP_QUICKACK);
    /// Whether it may send to all hosts.
    pub(crate) const BROADCAST: (c_int, c_int) = (libc::SOL_SOCKET, libc::SO_BROADCAST);
    /// The hops that a packet may take.
    pub(crate) const TTL: (c_int, c_int) = (libc::IPPROTO_IP, libc::IP_TTL);
    /// Whether its own host gets what it sends to a group.
    pub(crate) const LOOP_V4: (c_int, c_int) = (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP);
    /// The same over IPv6.
    pub(crate) const LOOP_V6: (c_int, c_int) = (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP);
    /// The hops that a datagram to a group may take.
    pub(crate) const MULTICAST_TTL: (c_int, c_int) = (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL);
    /// The error that waits to be taken.
    pub(crate) const ERROR: (c_int, c_int) = (libc::SOL_SOCKET, libc::SO_ERROR);
    /// Whether it carries a stream or datagrams.
    pub(crate) const TYPE: (c_int, c_int) = (libc::SOL_SOCKET, libc::SO_TYPE);
    /// The family of its addresses.
    pub(crate) const DOMAIN: (c_int, c_int) = (libc::SOL_SOCKET, libc::SO_DOMAIN);
    /// The number of the protocol.
    pub(crate) const PROTOCOL: (c_int, c_int) = (libc::SOL_SOCKET, libc::SO_PROTOCOL);
    /// Whether it takes connections.
    pub(crate) const LISTENS: (c_int, c_int) = (libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
    /// Whether several listeners may share the address.
    pub(crate) const REUSE_PORT: (c_int, c_int) = (libc::SOL_SOCKET, libc::SO_REUSEPORT);

    /// Those that a simulated socket takes, and that change nothing there.
    pub(crate) const WITHOUT_EFFECT: [(c_int, c_int); 12] = [
        (libc::SOL_SOCKET, libc::SO_REUSEADDR),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::SOL_SOCKET, libc::SO_LINGER),
        (libc::SOL_SOCKET, libc::SO_SNDBUF),
        (libc::SOL_SOCKET, libc::SO_RCVBUF),
        (libc::SOL_SOCKET, libc::SO_PRIORITY),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
        (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
        (libc::IPPROTO_IP, libc::IP_TOS),
    ];
}

/// Reads an option of the socket level, of type `T`: a plain number, or a struct of plain numbers.
fn option<T: Copy>(fd: c_int, name: c_int, mut value: T) -> Result<T, i32> {
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`, which has as many (getsockopt(2)).
    unsafe { getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) }?;
    Ok(value)
}

/// Takes the pending error of a socket, 0 for none.
pub(crate) fn take_error(fd: c_int) -> Result<c_int, i32> {
    option(fd, libc::SO_ERROR, 0)
}

/// Reports whether `fd` is a stream socket.
pub(crate) fn is_stream(fd: c_int) -> bool {
    socket_type(fd) == Ok(SOCK_STREAM)
}

/// Returns the type of a socket: SOCK_STREAM and so on.
///
/// # Errors
/// ENOTSOCK, EBADF.
pub(crate) fn socket_type(fd: c_int) -> Result<c_int, i32> {
    option(fd, libc::SO_TYPE, 0)
}

/// Reports whether `fd` is a Unix socket.
pub(crate) fn is_unix(fd: c_int) -> bool {
    option(fd, libc::SO_DOMAIN, 0) == Ok(libc::AF_UNIX)
}

/// Returns how many bytes the kernel keeps for a socket until the peer takes them, overhead included.
pub(crate) fn send_buffer(fd: c_int) -> usize {
    option(fd, libc::SO_SNDBUF, 0).ok().and_then(|size: c_int| usize::try_from(size).ok()).unwrap_or(0)
}

/// Reports whether `fd` is a TCP socket: a read that does not fill the buffer has left nothing. (A read of a Unix
/// socket stops at descriptors that came along, even if more bytes follow.)
pub(crate) fn is_tcp(fd: c_int) -> bool {
    option(fd, libc::SO_PROTOCOL, 0) == Ok(libc::IPPROTO_TCP)
}

/// Reports whether `fd` listens for connections.
pub(crate) fn is_listener(fd: c_int) -> bool {
    option(fd, libc::SO_ACCEPTCONN, 0) == Ok(1)
}

/// Reports whether nothing more can arrive at `fd`.
pub(crate) fn is_hung_up(fd: c_int) -> bool {
    ready_now(fd, POLLIN | libc::POLLRDHUP).is_ok_and(|ready| ready & (libc::POLLRDHUP | libc::POLLHUP) != 0)
}

/// Returns SO_RCVTIMEO or SO_SNDTIMEO in nanoseconds; none if the option is not set, or `fd` is no socket.
pub(crate) fn time_limit(fd: c_int, name: c_int) -> Option<u64> {
    let limit = option(fd, name, timeval { tv_sec: 0, tv_usec: 0 }).ok()?;
    let nanos = (limit.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(limit.tv_usec as u64 * 1000);
    (nanos != 0).then_some(nanos)
}

/// Returns the poll(2) bits of `interest` that are ready now.
///
/// # Errors
/// EBADF if `fd` is not open.
pub(crate) fn ready_now(fd: c_int, interest: i16) -> Result<i16, i32> {
    let mut entry = pollfd { fd, events: interest, revents: 0 };
    let none = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one entry and one span, which live until the call returns; no mask (poll(2)).
    unsafe { ppoll(&raw mut entry, 1, &raw const none, ptr::null()) }?;
    if entry.revents & libc::POLLNVAL != 0 { Err(EBADF) } else { Ok(entry.revents) }
}

/// How a file that is no socket waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitKind {
    /// A regular file, a directory, a disk: no call waits for an event. Also a file that fstat(2) refuses.
    Disk,
    /// A pipe, and the kernel's own descriptors (eventfd, timerfd, ..).
    Pipe,
    /// A terminal or another character device.
    Device,
}

/// Calls fstat(2) and returns the struct.
fn status(fd: c_int) -> Result<libc::stat, i32> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills `status` (fstat(2)).
    unsafe { fstat(fd, status.as_mut_ptr()) }?;
    // SAFETY: the call succeeded, so the struct was filled.
    Ok(unsafe { status.assume_init() })
}

/// Identifies the pipe that `fd` is an end of, if any: both ends and all duplicates give the same numbers.
pub(crate) fn pipe_of(fd: c_int) -> Option<(libc::dev_t, libc::ino_t)> {
    let status = status(fd).ok().filter(|status| status.st_mode & libc::S_IFMT == libc::S_IFIFO)?;
    Some((status.st_dev, status.st_ino))
}

/// Returns how a file that is no socket waits.
pub(crate) fn wait_kind(fd: c_int) -> WaitKind {
    let Ok(status) = status(fd) else { return WaitKind::Disk };
    match status.st_mode & libc::S_IFMT {
        // The kernel's own files (eventfd, timerfd) have no type.
        libc::S_IFIFO | 0 => WaitKind::Pipe,
        libc::S_IFCHR => WaitKind::Device,
        _ => WaitKind::Disk,
    }
}

/// Converts a span or a moment to nanoseconds; none if the struct is not valid.
pub(crate) fn nanos(span: &timespec) -> Option<u64> {
    let (seconds, rest) = (u64::try_from(span.tv_sec).ok()?, u64::try_from(span.tv_nsec).ok()?);
    (rest < 1_000_000_000).then(|| seconds.saturating_mul(1_000_000_000).saturating_add(rest))
}

/// Returns the process group of this process.
pub(crate) fn process_group() -> pid_t {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::getpgrp() }
}

/// Converts `nanos` nanoseconds to the kernel's form.
pub(crate) fn span(nanos: u64) -> timespec {
    super::clock::timespec(nanos)
}

/// Returns the time of day in nanoseconds since 1970.
pub(crate) fn realtime_ns() -> u64 {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // The program's own function: in a simulation the time of day is virtual.
    // SAFETY: the call fills `now` and cannot fail for this clock (clock_gettime(2)).
    unsafe { libc::clock_gettime(CLOCK_REALTIME, &raw mut now) };
    nanos(&now).unwrap_or(0)
}

/// Reports whether `fd` is in the set.
///
/// # Safety
/// `set` points to a set.
pub(crate) unsafe fn is_in(set: *const fd_set, fd: c_int) -> bool {
    // SAFETY: the caller's promise; numbers up to FD_SETSIZE are in range, and the callers ask for no others.
    unsafe { libc::FD_ISSET(fd, set) }
}

/// Puts `fd` into the set.
///
/// # Safety
/// As [`is_in`].
pub(crate) unsafe fn put_in(set: *mut fd_set, fd: c_int) {
    // SAFETY: the caller's promise.
    unsafe { libc::FD_SET(fd, set) };
}

/// Finds the next definition of `name` after the program's, and caches the address in `cell`.
fn next(cell: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    // Relaxed: the address guards no other data, and a second lookup finds the same.
    let known = cell.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: the name is a C string; the lookup touches no memory of this crate (dlsym(3)).
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    // Cannot happen: the C library has all of them.
    if found.is_null() {
        std::process::abort();
    }
    cell.store(found, Ordering::Relaxed);
    found
}

/// Calls the C library's dlopen(3).
///
/// # Safety
/// Invariant sys-raw-1.
pub(crate) unsafe fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    type Function = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
    let function = next(&NEXT, c"dlopen");
    // SAFETY: the C library's function of this name has this type (dlopen(3)).
    let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
    // SAFETY: the caller's pointer.
    unsafe { function(name, flags) }
}

/// Calls the C library's dlmopen(3).
///
/// # Safety
/// Invariant sys-raw-1.
pub(crate) unsafe fn dlmopen(namespace: c_long, name: *const c_char, flags: c_int) -> *mut c_void {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    type Function = unsafe extern "C" fn(c_long, *const c_char, c_int) -> *mut c_void;
    let function = next(&NEXT, c"dlmopen");
    // SAFETY: the C library's function of this name has this type (dlmopen(3)).
    let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
    // SAFETY: the caller's pointer.
    unsafe { function(namespace, name, flags) }
}

/// Calls the C library's getaddrinfo(3).
///
/// # Safety
/// Invariant sys-raw-1.
pub(crate) unsafe fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    type Function = unsafe extern "C" fn(*const c_char, *const c_char, *const addrinfo, *mut *mut addrinfo) -> c_int;
    // The next definition after this program's own, which may be the patched one.
    let function = next(&NEXT, c"getaddrinfo");
    // SAFETY: the C library's function of this name has this type (getaddrinfo(3)).
    let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
    // SAFETY: the caller's pointers.
    unsafe { function(node, service, hints, result) }
}

/// Frees a list that [`getaddrinfo`] made.
///
/// # Safety
/// `list` came from [`getaddrinfo`] and is not used again.
pub(crate) unsafe fn freeaddrinfo(list: *mut addrinfo) {
    // SAFETY: the caller's promise.
    unsafe { libc::freeaddrinfo(list) };
}

/// Calls the C library's sigaction(2).
///
/// # Safety
/// Invariant sys-raw-1; and the handler may run at any time.
pub(crate) unsafe fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    type Function = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
    let function = next(&NEXT, c"sigaction");
    // SAFETY: the C library's function of this name has this type (sigaction(2)).
    let function = unsafe { std::mem::transmute::<*mut c_void, Function>(function) };
    // SAFETY: the caller's pointers.
    unsafe { function(signal, new, old) }
}

/// Writes to standard error without any buffer or lock. Bytes that cannot be written are lost.
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
    // SAFETY: the function takes nothing and does not return.
    unsafe { __chk_fail() }
}

/// Returns the child that waitid(2) reports in `info`; 0 for none.
///
/// # Safety
/// `info` points to a struct that was filled, or is all zeros.
pub(crate) unsafe fn pid_in(info: *const siginfo_t) -> pid_t {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    // SAFETY: the field is there for the end of a child, and zero where nothing was filled in.
    unsafe { info.si_pid() }
}

/// Converts nanoseconds to the seconds that sleep(3) returns, rounding up.
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
        // SAFETY: the mapping is this test's, and nothing uses the page.
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
