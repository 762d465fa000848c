//! What patched calls remember of a number from one wait to the next, and how they learn that it is not true any more.
#![allow(unsafe_code)]

mod common;
mod traced;

use std::cell::Cell;
use std::env;
use std::ffi::c_int;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use greenling::{hub, monkey, spawn, yield_now};
use traced::{note_thread, traced};

/// Patches everything and guards against hanging.
fn patched() -> common::Guard {
    // SAFETY: the tests hold nothing over a blocking call that minds other green threads.
    unsafe { monkey::patch_all() }.unwrap();
    common::guard()
}

/// A connection; its ends have no other number.
fn connection() -> (TcpStream, Rc<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, Rc::new(listener.accept().unwrap().0))
}

/// Waits in `near` so often that the number is well known: it blocks, waits are short, and it has been read empty.
fn acquaint(near: RawFd, far: &Rc<TcpStream>) {
    for _ in 0..6 {
        let far = Rc::clone(far);
        let writer = spawn(move || (&*far).write_all(b"x").unwrap());
        assert_eq!(read(near), Ok(1));
        writer.join().unwrap();
    }
}

/// read(2) of up to 8 bytes; how many, or errno.
fn read(fd: RawFd) -> Result<isize, i32> {
    // SAFETY: the buffer has room for 8 bytes.
    let n = unsafe { libc::read(fd, [0_u8; 8].as_mut_ptr().cast(), 8) };
    if n < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(n) }
}

/// Runs `f` and checks that nobody else ran meanwhile.
fn no_other_runs<T>(f: impl FnOnce() -> T) -> T {
    let ran = Rc::new(Cell::new(false));
    let other = {
        let ran = Rc::clone(&ran);
        spawn(move || ran.set(true))
    };
    let result = f();
    assert!(!ran.get(), "somebody else ran");
    other.join().unwrap();
    result
}

/// Closes a number by a call that nobody else sees.
fn close_unseen(fd: RawFd) {
    // SAFETY: it closes the test's own descriptor.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

/// Makes `fd` another number of `file`, by a call that nobody else sees.
fn dup_unseen(file: RawFd, fd: RawFd) {
    // SAFETY: both are the test's own.
    assert_eq!(unsafe { libc::syscall(libc::SYS_dup3, file, fd, 0) }, i64::from(fd) as libc::c_long);
}

/// Sets O_NONBLOCK by fcntl.
fn set_nonblocking(fd: RawFd) {
    // SAFETY: the descriptor is open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) }, 0);
}

#[test]
fn a_time_limit_set_between_two_reads_holds() {
    let _guard = patched();
    let (near, far) = connection();
    for limit in [Duration::from_millis(3), Duration::from_millis(90)] {
        acquaint(near.as_raw_fd(), &far);
        near.set_read_timeout(Some(limit)).unwrap();
        let begin = Instant::now();
        assert_eq!((&near).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(begin.elapsed() >= limit);
        near.set_read_timeout(None).unwrap();
    }
    // And one that was there, and is not any more.
    near.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    acquaint(near.as_raw_fd(), &far);
    near.set_read_timeout(None).unwrap();
    let writer = spawn(move || {
        greenling::sleep(Duration::from_millis(200));
        (&*far).write_all(b"late").unwrap();
    });
    assert_eq!((&near).read(&mut [0; 8]).unwrap(), 4);
    writer.join().unwrap();
}

#[test]
fn a_short_time_limit_ends_in_time() {
    let _guard = patched();
    let limit = Duration::from_millis(10);
    let (near, far) = connection();
    near.set_read_timeout(Some(limit)).unwrap();
    let wait = |_| {
        for _ in 0..4 {
            let far = Rc::clone(&far);
            let writer = spawn(move || (&*far).write_all(b"x").unwrap());
            while read(near.as_raw_fd()) == Err(libc::EAGAIN) {}
            writer.join().unwrap();
        }
        let begin = Instant::now();
        assert_eq!(read(near.as_raw_fd()), Err(libc::EAGAIN));
        begin.elapsed()
    };
    let spans: Vec<_> = (0..10).map(wait).collect();
    assert!(spans.iter().all(|&span| span >= limit), "{spans:?}");
    assert!(spans.iter().any(|&span| span < 2 * limit), "{spans:?}");
}

#[test]
fn a_time_limit_that_another_handle_has_set_holds() {
    let _guard = patched();
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    for millis in [1, 90] {
        let limit = libc::timeval { tv_sec: 0, tv_usec: millis * 1000 };
        let (fd, size) = (near.as_raw_fd(), size_of::<libc::timeval>());
        // SAFETY: the limit lives until the call returns.
        let set = unsafe {
            libc::syscall(libc::SYS_setsockopt, fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &raw const limit, size)
        };
        assert_eq!(set, 0);
        let begin = Instant::now();
        assert_eq!(read(fd), Err(libc::EAGAIN));
        assert!(begin.elapsed() >= Duration::from_millis(millis as u64));
    }
}

#[test]
fn a_file_that_was_made_nonblocking_says_so_at_once() {
    let _guard = patched();
    type Set = fn(&TcpStream);
    let by_fcntl: Set = |near| set_nonblocking(near.as_raw_fd());
    let by_ioctl: Set = |near| {
        let mut on: c_int = 1;
        // SAFETY: the number lives until the call returns.
        assert_eq!(unsafe { libc::ioctl(near.as_raw_fd(), libc::FIONBIO, &raw mut on) }, 0);
    };
    let by_std: Set = |near| near.set_nonblocking(true).unwrap();
    for set in [by_fcntl, by_ioctl, by_std] {
        let (near, far) = connection();
        acquaint(near.as_raw_fd(), &far);
        set(&near);
        no_other_runs(|| assert_eq!(read(near.as_raw_fd()), Err(libc::EAGAIN)));
        near.set_nonblocking(false).unwrap();
        acquaint(near.as_raw_fd(), &far);
    }
}

#[test]
fn a_file_that_was_made_nonblocking_through_a_duplicate_says_so_at_once() {
    let _guard = patched();
    type Duplicate = fn(RawFd) -> RawFd;
    // SAFETY: it takes a number; what it makes is closed below.
    let dup: Duplicate = |fd| unsafe { libc::dup(fd) };
    // SAFETY: as above.
    let dup2: Duplicate = |fd| unsafe { libc::dup2(fd, 900) };
    // SAFETY: as above.
    let dup3: Duplicate = |fd| unsafe { libc::dup3(fd, 901, libc::O_CLOEXEC) };
    // SAFETY: as above.
    let fcntl: Duplicate = |fd| unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    for duplicate in [dup, dup2, dup3, fcntl] {
        // The duplicate is made before, and after, the number is known.
        for first in [true, false] {
            let (near, far) = connection();
            let fd = near.as_raw_fd();
            let early = first.then(|| duplicate(fd));
            acquaint(fd, &far);
            let copy = early.unwrap_or_else(|| duplicate(fd));
            assert!(copy >= 0);
            set_nonblocking(copy);
            no_other_runs(|| assert_eq!(read(fd), Err(libc::EAGAIN)));
            // SAFETY: the test's own descriptor.
            assert_eq!(unsafe { libc::close(copy) }, 0);
        }
    }
}

#[test]
fn a_file_that_another_process_has_made_nonblocking_says_so() {
    let _guard = patched();
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    // SAFETY: the child makes two system calls and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        set_nonblocking(near.as_raw_fd());
        // SAFETY: it ends the process.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: the status is not asked for.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    assert_eq!(read(near.as_raw_fd()), Err(libc::EAGAIN));
    (&*far).write_all(b"xy").unwrap();
    near.set_nonblocking(false).unwrap();
    assert_eq!(read(near.as_raw_fd()), Ok(2));
}

#[test]
fn a_number_that_was_closed_and_is_another_file_is_read_at_once() {
    let _guard = patched();
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    let (other, other_far) = connection();
    (&*other_far).write_all(b"here").unwrap();
    // By dup2, over the number.
    let fd = near.into_raw_fd();
    // SAFETY: both are the test's own.
    assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
    no_other_runs(|| assert_eq!(read(fd), Ok(4)));
    acquaint(fd, &other_far);
    // By close, on another OS thread, and whoever gets the number next.
    let (third, third_far) = connection();
    (&*third_far).write_all(b"again").unwrap();
    let third_fd = third.as_raw_fd();
    let reopen = move || {
        // SAFETY: the test's own descriptor.
        assert_eq!(unsafe { libc::close(fd) }, 0);
        dup_unseen(third_fd, fd);
    };
    std::thread::spawn(reopen).join().unwrap();
    no_other_runs(|| assert_eq!(read(fd), Ok(5)));
    acquaint(fd, &third_far);
    // SAFETY: the test's own descriptor.
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

#[test]
fn a_number_that_was_closed_unseen_and_is_another_file_is_found_out() {
    let _guard = patched();
    for round in 0..8 {
        let [full, nonblocking, slow] = [1, 2, 4].map(|bit| round & bit != 0);
        let (near, far) = connection();
        acquaint(near.as_raw_fd(), &far);
        if slow {
            let far = Rc::clone(&far);
            let writer = spawn(move || {
                greenling::sleep(Duration::from_millis(80));
                (&*far).write_all(b"x").unwrap();
            });
            assert_eq!(read(near.as_raw_fd()), Ok(1));
            writer.join().unwrap();
        }
        let fd = near.into_raw_fd();
        let (other, other_far) = connection();
        other.set_nonblocking(nonblocking).unwrap();
        if full {
            (&*other_far).write_all(b"here").unwrap();
        }
        close_unseen(fd);
        dup_unseen(other.as_raw_fd(), fd);
        let writer = (!full && !nonblocking).then(|| {
            let far = Rc::clone(&other_far);
            spawn(move || (&*far).write_all(b"late").unwrap())
        });
        let expected = if full || !nonblocking { Ok(4) } else { Err(libc::EAGAIN) };
        assert_eq!(read(fd), expected, "round {round}");
        writer.into_iter().for_each(|writer| writer.join().unwrap());
        // SAFETY: the test's own descriptor.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    }
}

#[test]
fn a_number_that_was_closed_unseen_and_is_a_new_socket_is_read_at_once() {
    let _guard = patched();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    type Open<'a> = &'a dyn Fn(RawFd) -> (TcpStream, TcpStream);
    // Closes it when all numbers below are taken: the kernel gives out the lowest.
    let close_next = |fd| {
        let open = || File::open("/dev/null").unwrap();
        let fillers: Vec<_> = std::iter::repeat_with(open).take_while(|file| file.as_raw_fd() < fd).collect();
        close_unseen(fd);
        fillers
    };
    let accepted: Open<'_> = &|fd| {
        let client = TcpStream::connect(addr).unwrap();
        let _fillers = close_next(fd);
        (listener.accept().unwrap().0, client)
    };
    let connected: Open<'_> = &|fd| {
        let _fillers = close_next(fd);
        let client = TcpStream::connect(addr).unwrap();
        (client, listener.accept().unwrap().0)
    };
    for open in [accepted, connected] {
        // Other tests may be given the number; then it is tried again.
        let reused = (0..50).any(|_| {
            let (near, far) = connection();
            acquaint(near.as_raw_fd(), &far);
            let fd = near.into_raw_fd();
            let (stream, mut peer) = open(fd);
            peer.write_all(b"here").unwrap();
            if stream.as_raw_fd() == fd {
                no_other_runs(|| assert_eq!(read(fd), Ok(4)));
            }
            stream.as_raw_fd() == fd
        });
        assert!(reused, "the number was always given to somebody else");
    }
}

#[test]
fn a_number_that_was_closed_and_is_not_open_is_an_error() {
    let _guard = patched();
    for seen in [true, false] {
        let (near, far) = connection();
        acquaint(near.as_raw_fd(), &far);
        let fd = near.into_raw_fd();
        // A number that nobody gets in between.
        // SAFETY: the test's own.
        assert_eq!(unsafe { libc::dup2(fd, 950) }, 950);
        // SAFETY: the test's own.
        assert_eq!(unsafe { libc::close(fd) }, 0);
        acquaint(950, &far);
        if seen {
            // SAFETY: the test's own.
            assert_eq!(unsafe { libc::close(950) }, 0);
        } else {
            close_unseen(950);
        }
        assert_eq!(read(950), Err(libc::EBADF));
    }
}

#[test]
fn a_known_number_that_becomes_a_native_socket_is_waited_for() {
    let _guard = patched();
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    let mut native = greenling::net::TcpStream::from(near);
    for _ in 0..3 {
        let far = Rc::clone(&far);
        let writer = spawn(move || (&*far).write_all(b"native").unwrap());
        assert_eq!(native.read(&mut [0; 8]).unwrap(), 6);
        writer.join().unwrap();
    }
}

#[test]
fn a_child_that_closes_its_copy_takes_nothing_from_us() {
    let _guard = patched();
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    // SAFETY: the child makes a system call and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the child's own copy.
        let closed = unsafe { libc::close(near.as_raw_fd()) };
        // SAFETY: it ends the process.
        unsafe { libc::_exit(closed) };
    }
    let mut status = 1;
    // SAFETY: the status lives until the call returns.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
    acquaint(near.as_raw_fd(), &far);
}

#[test]
fn two_hubs_share_a_socket() {
    let _guard = patched();
    const BYTES: usize = 400;
    let (near, far) = connection();
    let near = Arc::new(near);
    let sum = Arc::new(AtomicUsize::new(0));
    let hubs: Vec<_> = (0..2)
        .map(|_| {
            let (near, sum) = (Arc::clone(&near), Arc::clone(&sum));
            std::thread::spawn(move || {
                let reader = spawn(move || {
                    loop {
                        match (&*near).read(&mut [0; 8]).unwrap() {
                            0 => return,
                            n => sum.fetch_add(n, Ordering::Relaxed),
                        };
                    }
                });
                reader.join().unwrap();
            })
        })
        .collect();
    for _ in 0..BYTES {
        (&*far).write_all(b"x").unwrap();
        yield_now();
    }
    drop(far);
    hubs.into_iter().for_each(|hub| hub.join().unwrap());
    assert_eq!(sum.load(Ordering::Relaxed), BYTES);
}

#[test]
fn several_green_threads_share_a_socket() {
    let _guard = patched();
    const READERS: usize = 5;
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    let near = Rc::new(near);
    let reader = |_| {
        let near = Rc::clone(&near);
        spawn(move || {
            let mut sum = 0;
            loop {
                match (&*near).read(&mut [0; 3]).unwrap() {
                    0 => return sum,
                    n => sum += n,
                }
            }
        })
    };
    let readers: Vec<_> = (0..READERS).map(reader).collect();
    yield_now();
    for round in 1..50 {
        (&*far).write_all(&vec![b'x'; round % 17 + 1]).unwrap();
        yield_now();
    }
    drop(far);
    let sum: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert_eq!(sum, (1..50).map(|round| round % 17 + 1).sum());
}

#[test]
fn an_end_that_comes_with_the_last_bytes_is_read_at_once() {
    let _guard = patched();
    let mut at_once = 0;
    for _ in 0..20 {
        let (near, far) = connection();
        acquaint(near.as_raw_fd(), &far);
        let writer = spawn(move || (&*far).write_all(b"bye").unwrap());
        assert_eq!(read(near.as_raw_fd()), Ok(3));
        writer.join().unwrap();
        let ran = Rc::new(Cell::new(false));
        let other = {
            let ran = Rc::clone(&ran);
            spawn(move || ran.set(true))
        };
        assert_eq!(read(near.as_raw_fd()), Ok(0));
        at_once += u32::from(!ran.get());
        other.join().unwrap();
    }
    // The kernel may bring the end a little later.
    assert!(at_once > 0, "each end was waited for");
}

#[test]
fn an_unwinding_thread_reads_what_is_there() {
    let _guard = patched();
    struct Reads(TcpStream, Rc<TcpStream>, Rc<Cell<usize>>);
    impl Drop for Reads {
        fn drop(&mut self) {
            (&*self.1).write_all(b"last").unwrap();
            self.2.set((&self.0).read(&mut [0; 8]).unwrap());
        }
    }
    for killed in [true, false] {
        let (near, far) = connection();
        acquaint(near.as_raw_fd(), &far);
        let got = Rc::new(Cell::new(0));
        let reads = Reads(near, far, Rc::clone(&got));
        let victim = spawn(move || {
            let _reads = reads;
            if killed {
                greenling::sleep(Duration::from_secs(60));
            }
            std::panic::resume_unwind(Box::new("quietly"));
        });
        yield_now();
        if killed {
            victim.kill();
        }
        assert_eq!(victim.join().unwrap_err().is_killed(), killed);
        assert_eq!(got.get(), 4);
    }
}

#[test]
fn a_kill_of_a_wait_that_trusts_is_an_error_of_the_call() {
    let _guard = patched();
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    let victim = spawn(move || [(); 3].map(|()| read(near.as_raw_fd())));
    yield_now();
    victim.kill();
    assert_eq!(victim.join().unwrap(), [Err(libc::ECANCELED); 3]);
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    let read = greenling::timeout(Duration::from_millis(5), || read(near.as_raw_fd()));
    assert_eq!(read, Ok(Err(libc::ETIMEDOUT)));
}

#[test]
fn a_closed_number_wakes_the_threads_that_wait_for_it_on_trust() {
    let _guard = patched();
    let (near, far) = connection();
    acquaint(near.as_raw_fd(), &far);
    let fd = near.into_raw_fd();
    let waiters: Vec<_> = (0..3).map(|_| spawn(move || read(fd))).collect();
    yield_now();
    // SAFETY: the test's own descriptor.
    assert_eq!(unsafe { libc::close(fd) }, 0);
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), Err(libc::EBADF));
    }
}

/// Times this hub waited, or looked, for events. Not of its OS thread, which an emulator stops for its own purposes.
fn waits() -> u64 {
    hub::metrics().epoll_calls
}

#[test]
fn a_file_that_another_process_goes_on_with_does_not_wake_the_hub() {
    const MESSAGES: u32 = 30;
    let _guard = patched();
    for closed in [true, false] {
        let (near, far) = connection();
        acquaint(near.as_raw_fd(), &far);
        let copy = 960;
        dup_unseen(near.as_raw_fd(), copy);
        let kept = if closed {
            drop(near);
            None
        } else {
            Some(near)
        };
        let far = far.try_clone().unwrap();
        let other = std::thread::spawn(move || {
            for _ in 0..MESSAGES {
                (&far).write_all(b"x").unwrap();
                assert_eq!(read(copy), Ok(1));
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let before = waits();
        greenling::sleep(Duration::from_millis(5 * u64::from(MESSAGES)));
        let woken = waits() - before;
        assert!(woken < u64::from(MESSAGES / 2), "closed: {closed}, waited {woken} times");
        other.join().unwrap();
        drop(kept);
        close_unseen(copy);
    }
}

#[test]
fn settings_are_the_kernels_own() {
    let _guard = patched();
    let (near, _far) = UnixStream::pair().unwrap();
    let fd = near.as_raw_fd();
    let owner = |who: c_int| {
        // SAFETY: it takes a number.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETOWN, who) }, 0);
        // SAFETY: it takes nothing.
        unsafe { libc::fcntl(fd, libc::F_GETOWN) }
    };
    let process = std::process::id() as c_int;
    // SAFETY: it takes nothing.
    let group = unsafe { libc::getpgrp() };
    assert_eq!(owner(process), process);
    assert_eq!(owner(-group), -group, "a process group is negative");
    // SAFETY: a number that is not open.
    assert_eq!(unsafe { libc::fcntl(99_999, libc::F_GETFD) }, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
    let mut bytes: c_int = 7;
    // SAFETY: the number lives until the call returns.
    assert_eq!(unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut bytes) }, 0);
    assert_eq!(bytes, 0);
    near.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert_eq!(near.read_timeout().unwrap(), Some(Duration::from_millis(1500)));
}

/// Set in a child: the file into which it writes the number of its hub's OS thread.
const ROLE: &str = "GREENLING_MEMORY_CHILD";

/// Requests that the child serves.
const REQUESTS: usize = 500;

/// Serves one connection by `std::net` on this OS thread's hub, another OS thread is the client.
fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        let mut buf = [0; 64];
        for _ in 0..REQUESTS {
            stream.write_all(b"request").unwrap();
            assert_eq!(stream.read(&mut buf).unwrap(), 7);
        }
        tell.send(()).unwrap();
    });
    let server = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buf = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            stream.write_all(&buf[..n]).unwrap();
        }
    });
    server.join().unwrap();
    told.recv().unwrap();
    client.join().unwrap();
}

#[test]
fn a_request_takes_the_native_two_system_calls_and_a_wait() {
    const TEST: &str = "a_request_takes_the_native_two_system_calls_and_a_wait";
    if let Some(file) = env::var_os(ROLE) {
        let _guard = patched();
        note_thread(&file);
        serve();
        std::process::exit(0);
    }
    let Some(trace) = traced(TEST, ROLE) else { return };
    let count = |names: &[&str]| trace.count(names);
    let (reads, writes) = (count(&["recvfrom"]), count(&["sendto"]));
    let questions = count(&["epoll_ctl", "fcntl", "getsockopt"]);
    println!("{REQUESTS} requests: {reads} reads, {writes} writes, {questions} questions");
    assert_eq!(writes, REQUESTS);
    // A machine that is busy with something else makes some waits long, and those ask.
    assert!(reads <= REQUESTS + REQUESTS / 5, "{reads} reads");
    assert!(questions <= REQUESTS / 2, "{questions} questions");
}
