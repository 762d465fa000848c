//! The same calls with and without: random sequences of patched functions on random kinds of descriptors, once through
//! glibc's own functions before anything is patched, once through ours in a green thread. Results, errno, bytes and the
//! flags of the descriptors must be the same. `GREENLING_SEED=n` takes other sequences.
#![allow(unsafe_code)]

mod common;
#[path = "common/patched.rs"]
mod helpers;

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void};
use std::fs::{File, OpenOptions};
use std::mem::{transmute, zeroed};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use greenling::spawn;
use helpers::{errno, patched, set_errno};
use libc::{
    epoll_event, fd_set, iovec, mmsghdr, msghdr, nfds_t, off_t, pid_t, pollfd, rusage, siginfo_t, sigset_t, sockaddr,
    socklen_t, timespec, timeval,
};

/// Defines [`Calls`], a table of C functions, and its two contents.
macro_rules! calls {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $result:ty;)*) => {
        /// C functions, as they are called here.
        #[derive(Clone, Copy)]
        struct Calls {
            $($name: unsafe extern "C" fn($($kind),*) -> $result,)*
        }

        impl Calls {
            /// Those that the program is linked with.
            fn ours() -> Calls {
                unsafe extern "C" {
                    $(fn $name($($arg: $kind),*) -> $result;)*
                }
                Calls { $($name,)* }
            }

            /// The C library's own.
            fn theirs() -> Calls {
                // SAFETY: the library is loaded already; this only finds it.
                let library = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
                assert!(!library.is_null());
                let find = |name: &CStr| {
                    // SAFETY: the name is a C string.
                    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
                    assert!(!found.is_null(), "{name:?}");
                    found
                };
                Calls { $($name: {
                    let found = find(&CString::new(stringify!($name)).unwrap());
                    // SAFETY: the C library's function of this name has this type.
                    unsafe { transmute::<*mut c_void, unsafe extern "C" fn($($kind),*) -> $result>(found) }
                },)* }
            }
        }
    };
}

calls! {
    read(fd: c_int, buf: *mut c_void, len: usize) -> isize;
    write(fd: c_int, buf: *const c_void, len: usize) -> isize;
    readv(fd: c_int, iov: *const iovec, count: c_int) -> isize;
    writev(fd: c_int, iov: *const iovec, count: c_int) -> isize;
    recv(fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> isize;
    recvfrom(fd: c_int, buf: *mut c_void, len: usize, flags: c_int, a: *mut sockaddr, n: *mut socklen_t) -> isize;
    recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> isize;
    recvmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int, limit: *mut timespec) -> c_int;
    send(fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> isize;
    sendto(fd: c_int, buf: *const c_void, len: usize, flags: c_int, a: *const sockaddr, n: socklen_t) -> isize;
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> isize;
    sendmmsg(fd: c_int, list: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    accept(fd: c_int, a: *mut sockaddr, n: *mut socklen_t) -> c_int;
    accept4(fd: c_int, a: *mut sockaddr, n: *mut socklen_t, flags: c_int) -> c_int;
    connect(fd: c_int, a: *const sockaddr, n: socklen_t) -> c_int;
    __read_chk(fd: c_int, buf: *mut c_void, len: usize, room: usize) -> isize;
    __recv_chk(fd: c_int, buf: *mut c_void, len: usize, room: usize, flags: c_int) -> isize;
    __poll_chk(fds: *mut pollfd, count: nfds_t, limit: c_int, room: usize) -> c_int;
    poll(fds: *mut pollfd, count: nfds_t, limit: c_int) -> c_int;
    ppoll(fds: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t) -> c_int;
    select(count: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, limit: *mut timeval) -> c_int;
    pselect(
        count: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, limit: *const timespec, mask: *const sigset_t
    ) -> c_int;
    epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, limit: c_int) -> c_int;
    epoll_pwait2(
        epoll: c_int, events: *mut epoll_event, most: c_int, limit: *const timespec, mask: *const sigset_t
    ) -> c_int;
    sendfile(to: c_int, from: c_int, offset: *mut off_t, count: usize) -> isize;
    sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: usize) -> isize;
    splice(from: c_int, fo: *mut off_t, to: c_int, to_at: *mut off_t, len: usize, flags: c_uint) -> isize;
    tee(from: c_int, to: c_int, len: usize, flags: c_uint) -> isize;
    flock(fd: c_int, operation: c_int) -> c_int;
    nanosleep(span: *const timespec, left: *mut timespec) -> c_int;
    clock_nanosleep(clock: c_int, flags: c_int, span: *const timespec, left: *mut timespec) -> c_int;
    usleep(micros: c_uint) -> c_int;
    wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t;
    wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t;
    waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t;
    waitid(kind: c_uint, id: c_uint, info: *mut siginfo_t, options: c_int) -> c_int;
    dup2(old: c_int, new: c_int) -> c_int;
    dup3(old: c_int, new: c_int, flags: c_int) -> c_int;
    close(fd: c_int) -> c_int;
    syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long;
}

/// What a descriptor is, as far as a call on it could wait for ever.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A socket: it has time limits.
    Socket,
    /// A pipe or the like: it is asked first.
    Pipe,
    /// Never waits.
    Other,
}

/// Makes random calls and writes down what each returned.
struct Differ {
    calls: Calls,
    random: common::Random,
    fds: Vec<(OwnedFd, Kind)>,
    lines: Vec<String>,
}

/// How long a socket waits, and a poll.
const SHORT: i64 = 1_000_000;

fn owned(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn flags_of(fd: RawFd) -> c_int {
    // SAFETY: it takes numbers.
    unsafe { libc::fcntl(fd, libc::F_GETFL) }
}

impl Differ {
    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn add(&mut self, fd: impl Into<OwnedFd>, kind: Kind) {
        self.fds.push((fd.into(), kind));
    }

    fn add_socket(&mut self, fd: impl Into<OwnedFd>) {
        let fd = fd.into();
        let limit = timeval { tv_sec: 0, tv_usec: SHORT / 1000 };
        for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            let (at, len) = ((&raw const limit).cast(), size_of::<timeval>() as u32);
            // SAFETY: the fd is open, and the kernel reads one timeval.
            assert_eq!(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, at, len) }, 0);
        }
        self.add(fd, Kind::Socket);
    }

    /// A few of each kind.
    fn open(&mut self) {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            let mut pair = [0; 2];
            // SAFETY: two numbers are filled in.
            unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) };
            pair.into_iter().for_each(|fd| self.add_socket(owned(fd)));
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for stream in [TcpStream::connect(listener.local_addr().unwrap()).unwrap(), listener.accept().unwrap().0] {
            // What was sent is there at once, whatever was sent before.
            stream.set_nodelay(true).unwrap();
            self.add_socket(stream);
        }
        self.add_socket(listener);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect(udp.local_addr().unwrap()).unwrap();
        self.add_socket(udp);
        self.add_socket(UdpSocket::bind("127.0.0.1:0").unwrap());
        for _ in 0..2 {
            let (reader, writer) = std::io::pipe().unwrap();
            self.add(reader, Kind::Pipe);
            self.add(writer, Kind::Pipe);
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("greenling-fuzz-{}-{number}", std::process::id()));
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        self.add(OpenOptions::new().read(true).write(true).open(&path).unwrap(), Kind::Pipe);
        std::fs::remove_file(&path).unwrap();
        let file = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        std::fs::write(&path, [7; 20_000]).unwrap();
        self.add(file(), Kind::Other);
        self.add(file(), Kind::Other);
        std::fs::remove_file(&path).unwrap();
        self.add(File::open("/").unwrap(), Kind::Other);
        self.add(File::open("/dev/zero").unwrap(), Kind::Other);
        self.add(OpenOptions::new().write(true).open("/dev/null").unwrap(), Kind::Other);
        // SAFETY: it takes numbers.
        self.add(owned(unsafe { libc::eventfd(3, libc::EFD_NONBLOCK) }), Kind::Pipe);
        // SAFETY: it takes numbers.
        let timer = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) });
        // SAFETY: all zeros but one nanosecond is a valid span; nothing old is asked for.
        let mut once: libc::itimerspec = unsafe { zeroed() };
        once.it_value.tv_nsec = 1;
        // SAFETY: the span lives until the call returns.
        unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const once, null_mut()) };
        self.add(timer, Kind::Pipe);
        // The program's side of a terminal whose other side does nothing.
        // SAFETY: it takes numbers.
        let terminal = owned(unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) });
        let mut name = [0 as c_char; 64];
        // SAFETY: the fd is open.
        unsafe { libc::grantpt(terminal.as_raw_fd()) };
        // SAFETY: the fd is open.
        unsafe { libc::unlockpt(terminal.as_raw_fd()) };
        // SAFETY: the buffer is as long as it says.
        assert_eq!(unsafe { libc::ptsname_r(terminal.as_raw_fd(), name.as_mut_ptr(), name.len()) }, 0);
        // SAFETY: the call has written a C string.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_str().unwrap().to_owned();
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let program = OpenOptions::new().read(true).write(true).custom_flags(flags).open(name).unwrap();
        self.add(program, Kind::Pipe);
        self.add(terminal, Kind::Other);
    }

    /// Where the terminal's other side is, which is not used.
    fn usable(&self) -> u64 {
        self.fds.len() as u64 - 1
    }

    /// A place in the list and the number there; one that is not open now and then.
    fn pick(&mut self) -> (usize, RawFd) {
        let at = self.random.below(self.usable()) as usize;
        if self.below(40) == 0 { (99, 99_999) } else { (at, self.fds[at].0.as_raw_fd()) }
    }

    /// Whether a call might wait for ever, or what the kernel does depends on how full its buffers are: a pipe, unless it
    /// is ready now or has O_NONBLOCK.
    fn may_hang(&self, at: usize, fd: RawFd, events: i16) -> bool {
        let kind = self.fds.get(at).map_or(Kind::Other, |(_, kind)| *kind);
        kind == Kind::Pipe && flags_of(fd) & libc::O_NONBLOCK == 0 && !is_ready(fd, events)
    }

    fn step(&mut self) {
        let (at, fd) = self.pick();
        let (from_at, from) = self.pick();
        let kind = self.fds.get(at).map_or(Kind::Other, |(_, kind)| *kind);
        let is_tcp = (6..=7).contains(&at);
        let is_terminal = at as u64 == self.usable() - 1;
        let mut len = [0, 1, 7, 8, 100, 4096, 5000][self.below(7) as usize];
        if kind == Kind::Pipe || is_terminal {
            len = len.min(100); // what a pipe that is ready has room for
        }
        if is_tcp {
            len = len.max(2); // to receive no bytes from TCP after the time limit is a limit of `monkey`
        }
        let flags = [0, 0, libc::MSG_DONTWAIT, libc::MSG_PEEK, libc::MSG_TRUNC, libc::MSG_OOB, libc::MSG_WAITALL]
            [self.below(7) as usize];
        let mut buf = vec![at as u8; len];
        let mut bytes: *mut c_void = buf.as_mut_ptr().cast();
        if self.below(50) == 0 && len > 0 {
            bytes = null_mut();
        }
        let mut iov = [iovec { iov_base: bytes, iov_len: len / 2 }; 2];
        // SAFETY: all zeros is a valid header.
        let mut message: msghdr = unsafe { zeroed() };
        message.msg_iov = iov.as_mut_ptr();
        message.msg_iovlen = 2;
        let mut list = [mmsghdr { msg_hdr: message, msg_len: 0 }; 3];
        let many = self.below(4) as c_uint;
        let mut entry = pollfd { fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
        let (which, count) = (self.below(44), self.below(4) as c_int - 1);
        let other = self.below(3);
        let mut span = timespec { tv_sec: 0, tv_nsec: [0, SHORT, 1_000_000_000][other as usize] };
        let mut limit = timeval { tv_sec: 0, tv_usec: SHORT / 1000 };
        let mut offset = self.below(30_000) as off_t;
        let place = if other == 0 { &raw mut offset } else { null_mut() };
        // SAFETY: all zeros is the empty set.
        let mut sets: [fd_set; 2] = unsafe { zeroed() };
        if fd < libc::FD_SETSIZE as c_int {
            for set in &mut sets {
                // SAFETY: the number is in range.
                unsafe { libc::FD_SET(fd, set) };
            }
        }
        let [reads, writes] = sets.each_mut().map(std::ptr::from_mut);
        let mut events = [epoll_event { events: 0, u64: 0 }; 2];
        let mut word = 5_u32;
        let (shut, lock) = (self.below(3) as c_int, [libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN, 77]);
        let lock = lock[self.below(4) as usize] | libc::LOCK_NB;
        let waits = [0, libc::WUNTRACED, 1 << 20, libc::WNOHANG][self.below(4) as usize];
        let moves = [0, libc::SPLICE_F_NONBLOCK, libc::SPLICE_F_MOVE, 1 << 20][self.below(4) as usize];
        // Not the CPU's time of the process, on which a sleeper would sleep for ever.
        let clock =
            [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_THREAD_CPUTIME_ID, 99][(count + 1) as usize];
        // SAFETY: all zeros is a valid address.
        let mut peer: libc::sockaddr_in = unsafe { zeroed() };
        (peer.sin_family, peer.sin_port) = (libc::AF_INET as u16, 9_u16.to_be());
        peer.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let is_transfer = (30..=33).contains(&which);
        if is_transfer {
            let full = [(at, fd, libc::POLLOUT), (from_at, from, libc::POLLIN)]
                .into_iter()
                .any(|(at, fd, events)| self.may_hang(at, fd, events));
            // What goes into a full socket before it waits is a limit of `monkey`.
            if full || kind == Kind::Socket && !is_ready(fd, libc::POLLOUT) {
                return;
            }
        }
        let needs = match which {
            0 | 4 | 21 => libc::POLLIN,
            1 | 5 => libc::POLLOUT,
            _ => 0,
        };
        if needs != 0 && self.may_hang(at, fd, needs) {
            return;
        }
        if which == 29 && (18..99).contains(&at) {
            return; // these are shared with the whole system, and so are their locks
        }
        let calls = self.calls;
        /// One of them.
        macro_rules! call {
            ($name:ident($($arg:expr),* $(,)?)) => {
                // SAFETY: pointers to what is above, as long as it says, or null, which the kernel refuses or which is none.
                (unsafe { (calls.$name)($($arg),*) }) as i64
            };
        }
        set_errno(0);
        let result: i64 = match which {
            0 => call!(read(fd, bytes, len)),
            1 => call!(write(fd, bytes, len)),
            2 => call!(recv(fd, bytes, len, flags)),
            3 => call!(send(fd, bytes, len, flags & libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)),
            4 => call!(readv(fd, iov.as_ptr(), count)),
            5 => call!(writev(fd, iov.as_ptr(), count)),
            6 => call!(recvmsg(fd, &raw mut message, flags)),
            7 => call!(sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL)),
            8 => call!(poll(&raw mut entry, 1, 1)),
            9 => call!(accept(fd, null_mut(), null_mut())),
            // SAFETY: it takes numbers.
            10 => unsafe { libc::shutdown(fd, shut).into() },
            11 => call!(waitpid(-1, null_mut(), waits)),
            12 => call!(connect(fd, null(), 0)),
            13 => call!(recvfrom(fd, bytes, len, flags, null_mut(), null_mut())),
            14 => call!(dup2(fd, fd)),
            15 => call!(sendto(fd, bytes, len, libc::MSG_NOSIGNAL, null(), 0)),
            16 => {
                let (peer, n) = ((&raw const peer).cast(), size_of::<libc::sockaddr_in>() as socklen_t);
                call!(sendto(fd, bytes, len, libc::MSG_NOSIGNAL, peer, n))
            }
            17 => call!(recvmmsg(fd, list.as_mut_ptr(), many, flags, null_mut())),
            18 => call!(recvmmsg(fd, list.as_mut_ptr(), many, libc::MSG_WAITFORONE, null_mut())),
            19 => call!(sendmmsg(fd, list.as_mut_ptr(), many, libc::MSG_NOSIGNAL)),
            20 => call!(accept4(fd, null_mut(), null_mut(), count)),
            21 => call!(__read_chk(fd, bytes, len, len)),
            22 => call!(__recv_chk(fd, bytes, len, len, flags)),
            23 => call!(__poll_chk(&raw mut entry, 1, 1, size_of::<pollfd>())),
            24 => call!(ppoll(&raw mut entry, 1, &raw const span, null())),
            25 => call!(select(fd.min(1000) + 1, reads, writes, null_mut(), &raw mut limit)),
            26 => call!(pselect(fd.min(1000) + 1, reads, null_mut(), null_mut(), &raw const span, null())),
            27 => call!(epoll_wait(fd, events.as_mut_ptr(), count, 1)),
            28 => call!(epoll_pwait2(fd, events.as_mut_ptr(), 2, &raw const span, null())),
            29 => call!(flock(fd, lock)),
            30 => call!(sendfile(fd, from, place, len)),
            31 => call!(sendfile64(fd, from, place, len)),
            32 => call!(splice(from, place, fd, null_mut(), len, moves)),
            33 => call!(tee(from, fd, len, moves)),
            34 => call!(nanosleep(&raw const span, null_mut())),
            35 => call!(clock_nanosleep(clock, 0, &raw const span, &raw mut span)),
            36 => call!(usleep(1)),
            37 => call!(wait3(null_mut(), waits, null_mut())),
            38 => call!(wait4(count, null_mut(), waits, null_mut())),
            39 => call!(waitid(count as c_uint, 0, null_mut(), waits | libc::WEXITED)),
            40 => call!(dup3(fd, fd, count)),
            41 => call!(close(if fd == 99_999 { fd } else { -1 })),
            42 => {
                let (at, span) = ((&raw mut word).expose_provenance(), (&raw const span).expose_provenance());
                let operation = [libc::FUTEX_WAIT, libc::FUTEX_WAKE, 99, libc::FUTEX_WAIT_BITSET][(count + 1) as usize];
                let expected = 4 + other as usize % 2;
                call!(syscall(libc::SYS_futex, at, operation as usize, expected, span, 0, shut as usize))
            }
            // SAFETY: it takes numbers.
            _ => unsafe { libc::fcntl(fd, libc::F_SETFL, if other == 0 { libc::O_NONBLOCK } else { 0 }).into() },
        };
        let error = if result < 0 { errno() } else { 0 };
        let result = match which {
            9 | 14 | 20 | 40 if result > 0 => {
                if which != 14 {
                    drop(owned(result as c_int));
                }
                1 // a number, which differs from run to run
            }
            _ => result,
        };
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
        let lens = list.map(|entry| entry.msg_len);
        // SAFETY: the number is in range.
        let bits = fd < 1024 && unsafe { libc::FD_ISSET(fd, reads) } || fd < 0;
        self.lines.push(format!(
            "{at} from {from_at}: call {which}, len {len} flags {flags:x} moves {moves:x} {other} {many} {count} -> {result} \
             errno {error} {:x} {lens:?} offset {offset} poll {:x} {bits} mode {:x}",
            sum(&buf),
            entry.revents,
            flags_of(fd)
        ));
    }
}

/// Whether it is ready now, asked past all patches.
fn is_ready(fd: RawFd, events: i16) -> bool {
    let mut entry = pollfd { fd, events, revents: 0 };
    let none = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one entry and one span.
    unsafe { libc::syscall(libc::SYS_ppoll, &raw mut entry, 1_usize, &raw const none, 0_usize, 8_usize) != 0 }
}

/// The lines of one sequence.
fn sequence(calls: Calls, seed: u64) -> Vec<String> {
    let mut differ = Differ { calls, random: common::Random::of(seed), fds: Vec::new(), lines: Vec::new() };
    differ.open();
    for _ in 0..400 {
        differ.step();
    }
    differ.lines
}

/// In a process of its own, which has no children that a call could find.
#[test]
fn random_calls_return_what_they_return_unpatched() {
    let out = common::child("random_calls_return_what_they_return_unpatched", || {
        // The writer of a pipe without a reader is to see the error.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        let first = std::env::var("GREENLING_SEED").map_or(20_261_120, |seed| seed.parse().unwrap());
        println!("GREENLING_SEED={first}");
        let (began, mut seed, mut unpatched) = (Instant::now(), first, Vec::new());
        // As many as there is time for, and a few on any machine.
        while seed < first + 3 || seed < first + 24 && began.elapsed() < Duration::from_secs(4) {
            unpatched.push(sequence(Calls::theirs(), seed));
            seed += 1;
        }
        let _guard = patched();
        for (seed, theirs) in (first..).zip(&unpatched) {
            let ours = spawn(move || sequence(Calls::ours(), seed)).join().unwrap();
            for (number, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
                assert_eq!(theirs, ours, "seed {seed}, call {number}");
            }
            assert_eq!(theirs.len(), ours.len());
        }
        println!("{} calls agree", unpatched.iter().map(Vec::len).sum::<usize>());
    });
    let text = common::stdout(&out);
    assert!(out.status.success() && text.contains(" calls agree"), "{text}\n{}", common::stderr(&out));
}
