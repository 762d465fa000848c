//! Patched calls: `std` and C functions that wait in the hub, and do not where they must not.
#![allow(unsafe_code)]

mod common;
#[path = "common/patched.rs"]
mod helpers;

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::{MaybeUninit, zeroed};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use greenling::monkey::{self, Part};
use greenling::{no_switch, spawn, timeout, yield_now};
use helpers::{errno, later, no_other_runs, others_run, patched, set_errno};

#[test]
fn patching_is_reported_and_happens_once() {
    let _guard = patched();
    // SAFETY: as in `patched`.
    let report = unsafe { monkey::patch_all() }.unwrap();
    assert_eq!(report.newly_patched().count(), 0);
    assert!(report.functions().any(|name| name == "recv"));
    for part in [Part::Net, Part::Sleep, Part::Dns, Part::Poll, Part::Process, Part::Files] {
        assert!(monkey::is_patched(part));
    }
}

/// Code that backs off so, a spin lock or a queue without locks, waits for another green thread.
#[test]
fn a_loop_over_stds_yield_is_ended_by_another_green_thread() {
    let _guard = patched();
    let done = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&done);
    let other = spawn(move || theirs.set(true));
    while !done.get() {
        std::thread::yield_now();
    }
    other.join().unwrap();
}

#[test]
fn calls_that_fail_at_once_let_a_timer_fire() {
    let _guard = patched();
    let (near, _far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let done = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&done);
    let sleeper = spawn(move || {
        greenling::sleep(Duration::from_millis(3));
        theirs.set(true);
    });
    while !done.get() {
        assert_eq!((&near).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    sleeper.join().unwrap();
}

/// signal(7): a stop of the process interrupts epoll_wait, so that it says nothing of what has come.
#[test]
fn data_that_came_while_nothing_looked_beats_the_time_limit_of_a_socket() {
    let _guard = patched();
    let limit = Duration::from_millis(20);
    let read = common::undisturbed(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(limit)).unwrap();
        let begin = Instant::now();
        let reader = spawn(move || (&near).read(&mut [0]));
        yield_now();
        far.write_all(b"x").unwrap();
        let is_in_time = begin.elapsed() < limit;
        common::hog_until(begin + 3 * limit);
        let read = reader.join().unwrap();
        is_in_time.then_some(read)
    });
    assert_eq!(read.unwrap(), 1);
}

#[test]
fn connections_of_std_overlap_on_one_thread() {
    let _guard = patched();
    const CLIENTS: usize = 100;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (here, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let server = {
        let most = Rc::clone(&most);
        spawn(move || {
            let serve = |mut stream: TcpStream| {
                let (here, most) = (Rc::clone(&here), Rc::clone(&most));
                spawn(move || {
                    let mut buf = [0; 8];
                    stream.read_exact(&mut buf[..4]).unwrap();
                    here.set(here.get() + 1);
                    most.set(most.get().max(here.get()));
                    // Nobody is answered before all have asked.
                    while here.get() < CLIENTS {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    stream.write_all(&buf[..4]).unwrap();
                })
            };
            let all: Vec<_> = (0..CLIENTS).map(|_| serve(listener.accept().unwrap().0)).collect();
            all.into_iter().for_each(|one| one.join().unwrap());
        })
    };
    let client = |number: usize| {
        spawn(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            let text = (number as u32).to_le_bytes();
            stream.write_all(&text).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, text);
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    clients.into_iter().for_each(|one| one.join().unwrap());
    server.join().unwrap();
    assert_eq!(most.get(), CLIENTS);
}

#[test]
fn sleeps_of_std_and_c_interleave_and_never_end_early() {
    let _guard = patched();
    let log = Rc::new(RefCell::new(Vec::new()));
    let sleeper = |name: char, first: u64| {
        let log = Rc::clone(&log);
        spawn(move || {
            let begin = Instant::now();
            std::thread::sleep(Duration::from_millis(first));
            log.borrow_mut().push((name, 1));
            // SAFETY: it takes a number.
            unsafe { libc::usleep(40_000) };
            log.borrow_mut().push((name, 2));
            assert!(begin.elapsed() >= Duration::from_millis(first + 40));
        })
    };
    let (a, b) = (sleeper('a', 20), sleeper('b', 40));
    a.join().unwrap();
    b.join().unwrap();
    assert_eq!(*log.borrow(), [('a', 1), ('b', 1), ('a', 2), ('b', 2)]);
    let bad = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    // SAFETY: the span lives until the call returns.
    assert_eq!((unsafe { libc::nanosleep(&raw const bad, null_mut()) }, errno()), (-1, libc::EINVAL));
}

#[test]
fn a_file_that_does_not_block_says_so_and_flags_stay_as_they_were() {
    let _guard = patched();
    let (near, far) = UnixStream::pair().unwrap();
    let fd = near.as_raw_fd();
    // SAFETY: the fd is open.
    let flags = move || unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let before = flags();
    near.set_nonblocking(true).unwrap();
    no_other_runs(|| assert_eq!((&near).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock));
    near.set_nonblocking(false).unwrap();
    let writer = later(move || {
        assert_eq!(flags(), before, "seen while somebody waits");
        (&far).write_all(b"x").unwrap();
    });
    others_run(|| assert_eq!((&near).read(&mut [0]).unwrap(), 1));
    writer.join().unwrap();
    // SAFETY: the buffer has room for the byte.
    let now = unsafe { libc::recv(fd, [0_u8].as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT) };
    assert_eq!(now, 0, "the end, since the writer is gone");
}

#[test]
fn time_limits_of_sockets_hold() {
    let _guard = patched();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let limit = Duration::from_millis(20);
    socket.set_read_timeout(Some(limit)).unwrap();
    let begin = Instant::now();
    let error = others_run(|| socket.recv(&mut [0]).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(begin.elapsed() >= limit);
    let copy = socket.try_clone().unwrap();
    copy.set_read_timeout(None).unwrap();
    let addr = socket.local_addr().unwrap();
    let sender = later(move || assert_eq!(copy.send_to(b"late", addr).unwrap(), 4));
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 4, "no limit, by a duplicate");
    sender.join().unwrap();
}

#[test]
fn a_blocking_write_writes_everything() {
    let _guard = patched();
    const LEN: usize = 3 << 20;
    let drain = |mut from: Box<dyn Read>| {
        spawn(move || {
            let (mut buf, mut sum) = (vec![0; 10_000], 0);
            loop {
                match from.read(&mut buf).unwrap() {
                    0 => return sum,
                    n => sum += n,
                }
            }
        })
    };
    let bytes = vec![7_u8; LEN];
    let iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: LEN / 2 };
    let iov = [iov, iov];
    type Call<'a> = &'a dyn Fn(c_int) -> isize;
    // SAFETY: the buffers live until the call returns, and the fd is open.
    let write: Call<'_> = &|fd| unsafe { libc::write(fd, bytes.as_ptr().cast(), LEN) };
    // SAFETY: as above.
    let writev: Call<'_> = &|fd| unsafe { libc::writev(fd, iov.as_ptr(), 2) };
    // SAFETY: as above.
    let send: Call<'_> = &|fd| unsafe { libc::send(fd, bytes.as_ptr().cast(), LEN, 0) };
    let sendmsg: Call<'_> = &|fd| {
        // SAFETY: all zeros is a valid header.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = iov.as_ptr().cast_mut();
        message.msg_iovlen = 2;
        // SAFETY: as above.
        unsafe { libc::sendmsg(fd, &raw const message, 0) }
    };
    for call in [write, writev, send, sendmsg] {
        let (near, far) = UnixStream::pair().unwrap();
        let reader = drain(Box::new(far));
        assert_eq!(call(near.as_raw_fd()), LEN as isize);
        drop(near);
        assert_eq!(reader.join().unwrap(), LEN);
    }
    for call in [write, writev] {
        let (far, near) = io::pipe().unwrap();
        let reader = drain(Box::new(far));
        assert_eq!(call(near.as_raw_fd()), LEN as isize);
        drop(near);
        assert_eq!(reader.join().unwrap(), LEN);
    }
}

#[test]
fn a_read_that_wants_all_gets_all() {
    let _guard = patched();
    let (near, far) = UnixStream::pair().unwrap();
    let writer = spawn(move || {
        for part in ["ab", "cd", "ef"] {
            (&far).write_all(part.as_bytes()).unwrap();
            greenling::sleep(Duration::from_millis(2));
        }
    });
    let mut buf = [0_u8; 5];
    // SAFETY: the buffer has room.
    let n = unsafe { libc::recv(near.as_raw_fd(), buf.as_mut_ptr().cast(), 5, libc::MSG_WAITALL) };
    assert_eq!((n, &buf), (5, b"abcde"));
    writer.join().unwrap();
}

#[test]
fn pipes_wait_and_end() {
    let _guard = patched();
    let (mut reader, writer) = io::pipe().unwrap();
    let thread = later(move || (&writer).write_all(b"through").unwrap());
    let mut text = String::new();
    others_run(|| reader.read_to_string(&mut text)).unwrap();
    assert_eq!(text, "through");
    thread.join().unwrap();
}

#[test]
fn poll_select_and_epoll_wait_in_the_hub() {
    let _guard = patched();
    let (near, far) = UnixStream::pair().unwrap();
    let fd = near.as_raw_fd();
    let poll = |limit: c_int| {
        let mut entry = [-1, fd].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: two entries.
        (unsafe { libc::poll(entry.as_mut_ptr(), 2, limit) }, entry[1].revents)
    };
    let select = |micros: libc::suseconds_t| {
        // SAFETY: all zeros is the empty set.
        let mut set: libc::fd_set = unsafe { zeroed() };
        // SAFETY: the number is below FD_SETSIZE.
        unsafe { libc::FD_SET(fd, &raw mut set) };
        let mut limit = libc::timeval { tv_sec: 0, tv_usec: micros };
        // SAFETY: one set and one span; the others are null.
        let n = unsafe { libc::select(fd + 1, &raw mut set, null_mut(), null_mut(), &raw mut limit) };
        // SAFETY: as for FD_SET.
        (n, unsafe { libc::FD_ISSET(fd, &raw const set) })
    };
    // SAFETY: it takes a number.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    // SAFETY: the kernel has just made it.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 9 };
    // SAFETY: both are open, and the event is copied.
    unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    let epoll_wait = |limit: c_int| {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
        // SAFETY: two entries.
        (unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 2, limit) }, { events[0].u64 })
    };
    // The end of time, and nobody is held up.
    let begin = Instant::now();
    assert_eq!(others_run(|| poll(10)), (0, 0));
    assert_eq!(others_run(|| select(10_000)), (0, false));
    assert_eq!(others_run(|| epoll_wait(10)), (0, 0));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    // Readiness, for all three at once: each of them reports it and takes nothing.
    let writer = later(move || (&far).write_all(b"x").unwrap());
    let results = greenling::thread::scope(|scope| {
        let first = scope.spawn(|| poll(-1));
        let second = scope.spawn(|| select(60_000_000));
        let third = scope.spawn(|| epoll_wait(-1));
        (first.join().unwrap(), second.join().unwrap(), third.join().unwrap())
    });
    assert_eq!(results, ((1, libc::POLLIN | libc::POLLHUP), (1, true), (1, 9)).with_hup(results.0.1));
    writer.join().unwrap();
    // A number that is not open is reported as the kernel does it.
    let mut closed = libc::pollfd { fd: 99_999, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    assert_eq!(unsafe { libc::poll(&raw mut closed, 1, -1) }, 1);
    assert_eq!(closed.revents, libc::POLLNVAL);
}

/// The peer may be gone already when poll looks.
trait WithHup {
    fn with_hup(self, revents: i16) -> Self;
}

impl<A, B> WithHup for ((c_int, i16), A, B) {
    fn with_hup(self, revents: i16) -> Self {
        assert!(revents & libc::POLLIN != 0);
        ((self.0.0, revents), self.1, self.2)
    }
}

#[test]
fn names_are_looked_up_elsewhere() {
    let _guard = patched();
    yield_now();
    let thread = spawn(|| ("localhost", 80).to_socket_addrs().unwrap().count());
    assert!(thread.join().unwrap() > 0);
    let none = spawn(|| ("a name with blanks", 80).to_socket_addrs().is_err());
    assert!(none.join().unwrap());
}

#[test]
fn the_end_of_a_child_is_waited_for_in_the_hub() {
    let _guard = patched();
    let child = Command::new("sleep").arg("0.05").spawn();
    let status = others_run(|| child.unwrap().wait().unwrap());
    assert!(status.success());
    let output = others_run(|| Command::new("sh").args(["-c", "sleep 0.02; echo out; exit 3"]).output().unwrap());
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"out\n"[..]));
    let id = Command::new("sh").args(["-c", "sleep 0.02; exit 4"]).spawn().unwrap().id();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the struct lives until the call returns.
    let result = others_run(|| unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), libc::WEXITED) });
    assert_eq!(result, 0);
    // SAFETY: filled by the call.
    let info = unsafe { info.assume_init() };
    // SAFETY: a child's end has a status.
    assert_eq!(unsafe { info.si_status() }, 4);
}

#[test]
fn a_kill_ends_the_call_with_an_error_and_stays_due() {
    let _guard = patched();
    let (near, _far) = UnixStream::pair().unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let victim = {
        let seen = Rc::clone(&seen);
        spawn(move || {
            for _ in 0..3 {
                seen.borrow_mut().push((&near).read(&mut [0]).unwrap_err().raw_os_error().unwrap());
            }
            std::thread::sleep(Duration::from_secs(60));
            greenling::sleep(Duration::from_secs(60));
            unreachable!("a native call unwinds");
        })
    };
    yield_now();
    victim.kill();
    assert!(victim.join().unwrap_err().is_killed());
    assert_eq!(*seen.borrow(), [libc::ECANCELED; 3]);
}

#[test]
fn a_time_limit_ends_the_call_with_an_error() {
    let _guard = patched();
    let (near, mut far) = UnixStream::pair().unwrap();
    let read = timeout(Duration::from_millis(5), || (&near).read(&mut [0]));
    assert_eq!(read.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    far.write_all(b"x").unwrap();
    assert_eq!((&near).read(&mut [0]).unwrap(), 1, "it was only that scope's");
    assert_eq!(timeout(Duration::from_millis(5), || std::thread::sleep(Duration::from_secs(60))), Ok(()));
}

#[test]
fn no_other_thread_runs_inside_no_switch() {
    let _guard = patched();
    no_other_runs(|| no_switch(|| std::thread::sleep(Duration::from_millis(3))));
    let (near, far) = UnixStream::pair().unwrap();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        (&far).write_all(b"x").unwrap();
    });
    no_other_runs(|| no_switch(|| assert_eq!((&near).read(&mut [0]).unwrap(), 1)));
    other.join().unwrap();
}

#[test]
fn an_os_thread_without_a_hub_gets_none() {
    let _guard = patched();
    let out = common::child("an_os_thread_without_a_hub_gets_none", || {
        // SAFETY: as in `patched`.
        unsafe { monkey::patch_all() }.unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let other = std::thread::spawn(move || (&far).write_all(b"x").unwrap());
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!((&near).read(&mut [0]).unwrap(), 1);
        other.join().unwrap();
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        assert_eq!(targets.filter(|target| target.to_string_lossy().contains("eventpoll")).count(), 0);
    });
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn an_unwinding_thread_gets_an_error_and_does_not_wait() {
    let _guard = patched();
    struct Reads(UnixStream, Rc<Cell<i32>>);
    impl Drop for Reads {
        fn drop(&mut self) {
            assert_eq!((&self.0).read(&mut [0]).unwrap(), 1, "what need not wait works");
            let error = (&self.0).read(&mut [0]).unwrap_err();
            self.1.set(error.raw_os_error().unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"x").unwrap();
    let error = Rc::new(Cell::new(0));
    let reads = Reads(near, Rc::clone(&error));
    let thread = spawn(move || {
        let _reads = reads;
        std::panic::resume_unwind(Box::new("unwinds"));
    });
    assert!(thread.join().is_err());
    assert_eq!(error.get(), libc::ECANCELED);
}

static HANDLED: AtomicU32 = AtomicU32::new(0);
static HANDLER_FD: AtomicU32 = AtomicU32::new(0);

extern "C" fn handler(_: c_int) {
    let span = libc::timespec { tv_sec: 0, tv_nsec: 3_000_000 };
    // SAFETY: nanosleep is async-signal-safe.
    unsafe { libc::nanosleep(&raw const span, null_mut()) };
    // SAFETY: write is async-signal-safe; one byte.
    let n = unsafe { libc::write(HANDLER_FD.load(Ordering::Relaxed) as c_int, c"x".as_ptr().cast(), 1) };
    HANDLED.store(n as u32, Ordering::Relaxed);
}

#[test]
fn no_other_thread_runs_inside_a_signal_handler() {
    let _guard = patched();
    let (mut reader, writer) = io::pipe().unwrap();
    HANDLER_FD.store(writer.as_raw_fd() as u32, Ordering::Relaxed);
    // SAFETY: the handler is async-signal-safe.
    unsafe { libc::signal(libc::SIGUSR1, handler as extern "C" fn(c_int) as usize) };
    no_other_runs(|| {
        // SAFETY: a signal to this OS thread, for which there is a handler.
        unsafe { libc::raise(libc::SIGUSR1) };
    });
    assert_eq!(HANDLED.load(Ordering::Relaxed), 1);
    assert_eq!(reader.read(&mut [0; 2]).unwrap(), 1);
}

#[test]
fn a_number_that_is_closed_wakes_the_threads_that_wait_for_it() {
    let _guard = patched();
    let (near, _far) = UnixStream::pair().unwrap();
    let fd = near.into_raw_fd();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            spawn(move || {
                // SAFETY: one byte; the number is closed meanwhile, which is what this is about.
                let n = unsafe { libc::read(fd, [0_u8; 1].as_mut_ptr().cast(), 1) };
                (n, errno())
            })
        })
        .collect();
    yield_now();
    // SAFETY: the descriptor is this test's own.
    assert_eq!(unsafe { libc::close(fd) }, 0);
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), (-1, libc::EBADF));
    }
}

#[test]
fn a_number_that_was_closed_behind_our_back_is_found_out() {
    let _guard = patched();
    for _ in 0..20 {
        let (near, far) = UnixStream::pair().unwrap();
        let (fd, writer) = (near.into_raw_fd(), later(move || (&far).write_all(b"x").unwrap()));
        // SAFETY: one byte.
        assert_eq!(unsafe { libc::read(fd, [0_u8; 1].as_mut_ptr().cast(), 1) }, 1);
        writer.join().unwrap();
        // SAFETY: closes the test's own descriptor, past whoever keeps books.
        unsafe { libc::syscall(libc::SYS_close, fd) };
        let (mut reader, writer) = io::pipe().unwrap();
        let reused = reader.as_raw_fd() == fd || writer.as_raw_fd() == fd;
        let thread = later(move || (&writer).write_all(b"yz").unwrap());
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"yz", "reused: {reused}");
        thread.join().unwrap();
    }
}

#[test]
fn native_and_patched_waits_for_one_descriptor_do_not_disturb_each_other() {
    let _guard = patched();
    let listener = greenling::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = greenling::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let stream = Rc::new(stream);
    let fd = stream.as_raw_fd();
    let poll = move || {
        let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        (unsafe { libc::poll(&raw mut entry, 1, -1) }, entry.revents)
    };
    let read = {
        let stream = Rc::clone(&stream);
        move || {
            let mut all = Vec::new();
            (&*stream).take(4).read_to_end(&mut all).unwrap();
            all
        }
    };
    // The patched wait comes first, then the native one takes the number over; and the other way round.
    for patched_first in [true, false] {
        let early = patched_first.then(|| spawn(poll));
        yield_now();
        let native = spawn(read.clone());
        yield_now();
        let late = spawn(poll);
        yield_now();
        client.write_all(b"four").unwrap();
        assert_eq!(native.join().unwrap(), b"four");
        for poller in early.into_iter().chain([late]) {
            if !poller.is_finished() {
                client.write_all(b"more").unwrap();
                assert_eq!(poller.join().unwrap(), (1, libc::POLLIN));
                (&*stream).read_exact(&mut [0; 4]).unwrap();
            }
        }
    }
}

#[test]
fn errno_is_kept_over_a_call_that_succeeds() {
    let _guard = patched();
    let (near, far) = UnixStream::pair().unwrap();
    let writer = later(move || (&far).write_all(b"x").unwrap());
    set_errno(77);
    // SAFETY: one byte.
    let n = unsafe { libc::read(near.as_raw_fd(), [0_u8; 1].as_mut_ptr().cast(), 1) };
    assert_eq!((n, errno()), (1, 77));
    writer.join().unwrap();
}

#[test]
fn connections_are_refused_and_time_out_as_ever() {
    let _guard = patched();
    yield_now();
    let gone = common::free_address();
    let refused = spawn(move || TcpStream::connect(gone).unwrap_err().kind());
    assert_eq!(refused.join().unwrap(), ErrorKind::ConnectionRefused);
    let again = spawn(move || TcpStream::connect_timeout(&gone, Duration::from_secs(5)).unwrap_err().kind());
    assert_eq!(again.join().unwrap(), ErrorKind::ConnectionRefused);
}

#[test]
fn acceptors_of_one_listener_are_served_in_order() {
    let _guard = patched();
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let order = Rc::new(RefCell::new(Vec::new()));
    let acceptors: Vec<_> = (0..4)
        .map(|number| {
            let (listener, order) = (Rc::clone(&listener), Rc::clone(&order));
            spawn(move || {
                listener.accept().unwrap();
                order.borrow_mut().push(number);
            })
        })
        .collect();
    yield_now();
    let addr = listener.local_addr().unwrap();
    for acceptor in acceptors {
        let _client = TcpStream::connect(addr).unwrap();
        acceptor.join().unwrap();
    }
    assert_eq!(*order.borrow(), [0, 1, 2, 3]);
}

#[test]
fn descriptors_work_in_other_os_threads_and_children_meanwhile() {
    let _guard = patched();
    let (near, far) = UnixStream::pair().unwrap();
    let copy = near.try_clone().unwrap();
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let other = {
        let done = std::sync::Arc::clone(&done);
        std::thread::spawn(move || {
            // Blocks in the kernel, on the same open file that a green thread waits for.
            let n = (&copy).read(&mut [0]).unwrap();
            done.store(true, Ordering::SeqCst);
            n
        })
    };
    let green = spawn(move || (&near).read(&mut [0]).unwrap());
    greenling::sleep(Duration::from_millis(10));
    assert!(!done.load(Ordering::SeqCst), "it blocks");
    (&far).write_all(b"x").unwrap();
    greenling::sleep(Duration::from_millis(5));
    (&far).write_all(b"y").unwrap();
    drop(far);
    assert_eq!(green.join().unwrap() + other.join().unwrap(), 2);
}

#[test]
fn a_thread_that_never_waits_gives_way_sometimes() {
    let _guard = patched();
    let (near, far) = UnixStream::pair().unwrap();
    let chatty = spawn(move || {
        for _ in 0..1000 {
            (&near).write_all(b"x").unwrap();
            (&far).read_exact(&mut [0]).unwrap();
        }
    });
    let other = spawn(yield_now);
    other.join().unwrap();
    assert!(!chatty.is_finished());
    chatty.join().unwrap();
}

#[test]
fn the_end_of_the_hub_ends_its_waiters() {
    let _guard = patched();
    let (near, far) = UnixStream::pair().unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let reader = {
        let (seen, near) = (Rc::clone(&seen), near.try_clone().unwrap());
        spawn(move || seen.borrow_mut().push((&near).read(&mut [0]).unwrap_err().raw_os_error().unwrap()))
    };
    let sleeper = spawn(|| std::thread::sleep(Duration::from_secs(60)));
    yield_now();
    assert_eq!(greenling::hub::shutdown(), 0, "nobody is stuck");
    assert_eq!(*seen.borrow(), [libc::ECANCELED]);
    drop((reader, sleeper, near, far));
}

#[test]
fn the_child_of_a_fork_blocks_like_any_process() {
    let _guard = patched();
    spawn(|| ()).join().unwrap();
    let (mut to_child, mut to_parent) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    // SAFETY: the child makes a few system calls and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let mut byte = [0];
        let read = to_child.0.read(&mut byte).is_ok_and(|n| n == 1) && to_parent.0.write_all(&byte).is_ok();
        // SAFETY: it ends the process.
        unsafe { libc::_exit(i32::from(!read)) };
    }
    std::thread::sleep(Duration::from_millis(5));
    to_child.1.write_all(b"x").unwrap();
    let mut byte = [0];
    to_parent.1.read_exact(&mut byte).unwrap();
    let mut status = 0;
    // SAFETY: the status lives until the call returns.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!((byte, status), (*b"x", 0));
}
