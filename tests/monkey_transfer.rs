//! Patched calls that move bytes between descriptors, that take many messages, and that wait for any child.
#![allow(unsafe_code)]

mod common;
#[path = "common/patched.rs"]
mod helpers;

use std::cell::RefCell;
use std::ffi::c_int;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Seek, Write};
use std::mem::{MaybeUninit, zeroed};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use greenling::{spawn, timeout, yield_now};
use helpers::{errno, later, no_other_runs, others_run, patched, set_errno};

/// More than any socket's or pipe's buffer holds.
const LARGE: usize = 12 << 20;

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// A file without a name that holds `bytes` and stands at its beginning.
fn file_of(bytes: &[u8]) -> File {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("greenling-transfer-{}-{number}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// A connection over the loopback, in std's types.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Reads to the end, slowly enough that the writer must wait.
fn drain(mut from: impl Read + 'static) -> greenling::thread::JoinHandle<Vec<u8>> {
    spawn(move || {
        let (mut all, mut buf) = (Vec::new(), vec![0; 300_000]);
        loop {
            match from.read(&mut buf).unwrap() {
                0 => return all,
                n => all.extend_from_slice(&buf[..n]),
            }
            yield_now();
        }
    })
}

/// The result of a call and its errno, 0 if it succeeded.
fn answer(result: isize) -> (isize, i32) {
    (result, if result < 0 { errno() } else { 0 })
}

fn sendfile(to: &impl AsRawFd, from: &impl AsRawFd, offset: Option<&mut i64>, count: usize) -> (isize, i32) {
    let offset = offset.map_or(null_mut(), std::ptr::from_mut);
    // SAFETY: the offset lives until the call returns.
    answer(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), offset, count) })
}

fn splice(from: &impl AsRawFd, to: &impl AsRawFd, len: usize, flags: u32) -> (isize, i32) {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: without offsets it takes numbers.
    answer(unsafe { libc::splice(from, null_mut(), to, null_mut(), len, flags) })
}

fn tee(from: &PipeReader, to: &PipeWriter, len: usize, flags: u32) -> (isize, i32) {
    // SAFETY: it takes numbers.
    answer(unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), len, flags) })
}

/// The readers are on the same OS thread: if a call blocked it, the test would hang.
#[test]
fn files_are_sent_to_sockets_while_others_run() {
    let _guard = patched();
    let bytes = pattern(LARGE);
    let mut file = file_of(&bytes);
    let (near, far) = tcp_pair();
    let reader = drain(far);
    assert_eq!(others_run(|| sendfile(&near, &file, None, usize::MAX >> 1)), (LARGE as isize, 0));
    drop(near);
    assert!(reader.join().unwrap() == bytes);
    let (near, far) = UnixStream::pair().unwrap();
    let (reader, mut offset) = (drain(far), 1);
    assert_eq!(others_run(|| sendfile(&near, &file, Some(&mut offset), LARGE)), (LARGE as isize - 1, 0));
    assert_eq!(offset, LARGE as i64);
    drop(near);
    assert!(reader.join().unwrap() == bytes[1..]);
    // However std does it.
    let (mut near, far) = tcp_pair();
    let reader = drain(far);
    file.rewind().unwrap();
    assert_eq!(others_run(|| io::copy(&mut file, &mut near)).unwrap(), LARGE as u64);
    drop(near);
    assert!(reader.join().unwrap() == bytes);
}

/// `std::io::copy` asks splice here, which has something to wait for on both sides.
#[test]
fn std_copies_through_a_pipe_and_between_sockets_while_others_run() {
    let _guard = patched();
    let bytes = Rc::new(pattern(LARGE));
    let (mut source, mut near) = tcp_pair();
    let (far, sink) = tcp_pair();
    let (mut out, mut into) = io::pipe().unwrap();
    let writer = spawn({
        let bytes = Rc::clone(&bytes);
        move || source.write_all(&bytes).unwrap()
    });
    let first = spawn(move || io::copy(&mut near, &mut into).unwrap());
    let second = spawn(move || {
        let mut sink = sink;
        io::copy(&mut out, &mut sink).unwrap()
    });
    assert!(drain(far).join().unwrap() == *bytes);
    writer.join().unwrap();
    assert_eq!([first.join().unwrap(), second.join().unwrap()], [LARGE as u64; 2]);
}

#[test]
fn sendfile_moves_the_offset_or_the_file_and_ends_at_its_end() {
    let _guard = patched();
    let mut file = file_of(b"0123456789");
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut offset = 4;
    assert_eq!(sendfile(&near, &file, Some(&mut offset), 3), (3, 0));
    assert_eq!((offset, file.stream_position().unwrap()), (7, 0));
    assert_eq!(sendfile(&near, &file, None, 2), (2, 0));
    assert_eq!(sendfile(&near, &file, None, 1000), (8, 0));
    assert_eq!(sendfile(&near, &file, None, 1000), (0, 0));
    let mut buf = [0; 13];
    far.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"4560123456789");
    // Into a pipe, which takes what it has room for.
    let large = file_of(&pattern(LARGE));
    let (out, into) = io::pipe().unwrap();
    let (n, error) = sendfile(&into, &large, None, LARGE);
    assert!(n > 0 && n < LARGE as isize && error == 0, "{n}");
    let out = Rc::new(out);
    let reader = later({
        let out = Rc::clone(&out);
        move || assert!((&*out).read(&mut [0; 100_000]).unwrap() > 0)
    });
    let (n, error) = others_run(|| sendfile(&into, &large, None, LARGE));
    assert!(n > 0 && error == 0, "{n} {error}");
    reader.join().unwrap();
}

#[test]
fn time_limits_and_the_mode_of_descriptors_hold_for_transfers() {
    let _guard = patched();
    let file = file_of(&pattern(LARGE));
    let (near, _far) = UnixStream::pair().unwrap();
    let limit = Duration::from_millis(20);
    near.set_write_timeout(Some(limit)).unwrap();
    let begin = Instant::now();
    let (part, error) = others_run(|| sendfile(&near, &file, None, LARGE));
    assert!(part > 0 && part < LARGE as isize && error == 0, "{part} {error}");
    assert_eq!(sendfile(&near, &file, None, LARGE), (-1, libc::EAGAIN));
    assert!(begin.elapsed() >= 2 * limit);
    near.set_nonblocking(true).unwrap();
    // The kernel fills the buffer to the brim.
    no_other_runs(|| while sendfile(&near, &file, None, LARGE).0 > 0 {});
    no_other_runs(|| assert_eq!(sendfile(&near, &file, None, LARGE), (-1, libc::EAGAIN)));
    // Splice, each side.
    let (out, into) = io::pipe().unwrap();
    let (receiver, mut sender) = tcp_pair();
    receiver.set_read_timeout(Some(limit)).unwrap();
    assert_eq!(others_run(|| splice(&receiver, &into, 10, 0)), (-1, libc::EAGAIN));
    assert_eq!(others_run(|| splice(&receiver, &into, 10, libc::SPLICE_F_NONBLOCK)), (-1, libc::EAGAIN));
    receiver.set_nonblocking(true).unwrap();
    no_other_runs(|| assert_eq!(splice(&receiver, &into, 10, 0), (-1, libc::EAGAIN)));
    no_other_runs(|| assert_eq!(splice(&out, &sender, 10, libc::SPLICE_F_NONBLOCK), (-1, libc::EAGAIN)));
    sender.write_all(b"xy").unwrap();
    while splice(&receiver, &into, 10, 0) != (2, 0) {}
    assert_eq!(splice(&out, &sender, 1, 0), (1, 0));
    assert_eq!(splice(&out, &sender, 10, 0), (1, 0), "what is there, not what could come");
    // What is not possible is refused at once.
    no_other_runs(|| assert_eq!(splice(&receiver, &sender, 10, 0), (-1, libc::EINVAL)));
    no_other_runs(|| assert_eq!(splice(&out, &into, 10, 0), (-1, libc::EINVAL), "one pipe"));
    no_other_runs(|| assert_eq!(splice(&into, &sender, 10, 0), (-1, libc::EBADF), "its wrong end"));
    no_other_runs(|| assert_eq!(splice(&out, &sender, 10, 1 << 20), (-1, libc::EINVAL)));
    no_other_runs(|| assert_eq!(sendfile(&sender, &out, None, 10).0, -1));
}

#[test]
fn tee_waits_for_bytes_and_for_room_and_takes_nothing() {
    let _guard = patched();
    let ((mut out, into), (copy, copies)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let writer = later(move || (&into).write_all(b"twice").unwrap());
    assert_eq!(others_run(|| tee(&out, &copies, 100, 0)), (5, 0));
    writer.join().unwrap();
    let fill = 1_usize << 20;
    // SAFETY: it takes numbers.
    assert!(unsafe { libc::fcntl(copies.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } > 0);
    while tee(&out, &copies, fill, libc::SPLICE_F_NONBLOCK).0 > 0 {}
    no_other_runs(|| assert_eq!(tee(&out, &copies, fill, libc::SPLICE_F_NONBLOCK), (-1, libc::EAGAIN)));
    let copy = Rc::new(copy);
    let reader = later({
        let copy = Rc::clone(&copy);
        move || assert!((&*copy).read(&mut [0; 4096]).unwrap() > 0)
    });
    assert_eq!(others_run(|| tee(&out, &copies, 3, 0)), (3, 0));
    reader.join().unwrap();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "twice");
}

/// A call that waits for ever, and its name.
type Blocked = (&'static str, Rc<dyn Fn() -> (isize, i32)>);

/// One of each kind, and the child that one of them waits for, in a group of its own.
fn blocked() -> (Vec<Blocked>, Ended) {
    let (out, into) = io::pipe().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (full, unread) = UnixDatagram::pair().unwrap();
    let ((from, full_pipe), file) = (io::pipe().unwrap(), file_of(&pattern(LARGE)));
    while sendfile(&full_pipe, &file, Some(&mut 0), 1 << 16).0 == 1 << 16 {
        // SAFETY: it takes numbers.
        unsafe { libc::fcntl(full_pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    }
    // SAFETY: it takes numbers.
    unsafe { libc::fcntl(full_pipe.as_raw_fd(), libc::F_SETFL, 0) };
    full.set_nonblocking(true).unwrap();
    while full.send(&[0; 4000]).is_ok() {}
    full.set_nonblocking(false).unwrap();
    let path = std::env::temp_dir().join(format!("greenling-blocked-{}-{}", std::process::id(), udp.as_raw_fd()));
    let (locked, wants) = (File::create(&path).unwrap(), File::open(&path).unwrap());
    std::fs::remove_file(path).unwrap();
    // SAFETY: it takes numbers.
    assert_eq!(unsafe { libc::flock(locked.as_raw_fd(), libc::LOCK_EX) }, 0);
    let mut command = Command::new("sleep");
    let child = command.arg("60").process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let group = -(child.id() as i32);
    let ((empty, writer), (reader, copies)) = (io::pipe().unwrap(), io::pipe().unwrap());
    let calls: [Blocked; 7] = [
        ("splice", Rc::new(move || splice(&out, &near, 10, 0))),
        ("tee", Rc::new(move || tee(&empty, &copies, 10, 0))),
        ("sendfile", Rc::new(move || sendfile(&full_pipe, &file, Some(&mut 0), 10))),
        ("recvmmsg", Rc::new(move || Messages::of(vec![vec![0; 9]; 2]).receive(&udp, 0, None))),
        ("sendmmsg", Rc::new(move || Messages::of(vec![vec![0; 4000]; 2]).send(&full, 0))),
        // SAFETY: it takes numbers.
        ("flock", Rc::new(move || answer(unsafe { libc::flock(wants.as_raw_fd(), libc::LOCK_SH) } as isize))),
        // SAFETY: no status is asked for.
        ("waitpid", Rc::new(move || answer(unsafe { libc::waitpid(group, null_mut(), 0) } as isize))),
    ];
    // The other ends stay open, also when a test has failed.
    std::mem::forget((into, far, unread, from, locked, writer, reader));
    (calls.into(), Ended(child))
}

/// A child that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_kill_and_a_time_limit_end_each_call_with_an_error() {
    let _guard = patched();
    let (calls, _child) = blocked();
    for (name, call) in &calls {
        let seen = Rc::new(RefCell::new((0, 0)));
        let victim = spawn({
            let (call, seen) = (Rc::clone(call), Rc::clone(&seen));
            move || *seen.borrow_mut() = call()
        });
        yield_now();
        victim.kill();
        let _ = victim.join();
        assert_eq!(*seen.borrow(), (-1, libc::ECANCELED), "{name}");
        assert_eq!(timeout(Duration::from_millis(3), &**call), Ok((-1, libc::ETIMEDOUT)), "{name}");
    }
}

#[test]
fn an_unwinding_thread_does_not_wait_in_any_call() {
    let _guard = patched();
    struct Calls(Rc<dyn Fn() -> (isize, i32)>, Rc<RefCell<(isize, i32)>>);
    impl Drop for Calls {
        fn drop(&mut self) {
            let answer = (self.0)();
            *self.1.borrow_mut() = answer;
        }
    }
    let (calls, _child) = blocked();
    for (name, call) in &calls {
        let seen = Rc::new(RefCell::new((0, 0)));
        let calls = Calls(Rc::clone(call), Rc::clone(&seen));
        let thread = spawn(move || {
            let _calls = calls;
            std::panic::resume_unwind(Box::new("unwinds"));
        });
        assert!(thread.join().is_err());
        assert_eq!(*seen.borrow(), (-1, libc::ECANCELED), "{name}");
    }
}

#[test]
fn the_end_of_the_hub_ends_each_call() {
    let _guard = patched();
    let (calls, _child) = blocked();
    let seen = Rc::new(RefCell::new(Vec::new()));
    for (name, call) in &calls {
        let (name, call, seen) = (*name, Rc::clone(call), Rc::clone(&seen));
        drop(spawn(move || {
            let answer = call();
            seen.borrow_mut().push((name, answer));
        }));
    }
    yield_now();
    assert_eq!(greenling::hub::shutdown(), 0, "nobody is stuck");
    assert_eq!(seen.borrow().len(), calls.len());
    assert!(seen.borrow().iter().all(|(_, answer)| *answer == (-1, libc::ECANCELED)), "{:?}", seen.borrow());
}

#[test]
fn a_number_that_is_closed_ends_the_calls_that_wait_for_it() {
    let _guard = patched();
    let (out, _into) = io::pipe().unwrap();
    let (near, _far) = UnixStream::pair().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let [pipe, socket] = [out.into_raw_fd(), udp.into_raw_fd()];
    let first = spawn(move || splice(&pipe, &near, 10, 0));
    let second = spawn(move || Messages::of(vec![vec![0; 9]; 2]).receive(&socket, 0, None));
    yield_now();
    for fd in [pipe, socket] {
        // SAFETY: the descriptor is this test's own.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    }
    assert_eq!([first.join().unwrap(), second.join().unwrap()], [(-1, libc::EBADF); 2]);
}

/// A list of messages with one buffer each.
struct Messages {
    buffers: Vec<Vec<u8>>,
    parts: Vec<libc::iovec>,
    list: Vec<libc::mmsghdr>,
}

impl Messages {
    fn of(mut buffers: Vec<Vec<u8>>) -> Messages {
        let part = |buffer: &mut Vec<u8>| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut parts: Vec<libc::iovec> = buffers.iter_mut().map(part).collect();
        let list = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all zeros is a valid header.
                let mut message: libc::mmsghdr = unsafe { zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Messages { buffers, parts, list }
    }

    fn send(&mut self, to: &impl AsRawFd, flags: c_int) -> (isize, i32) {
        assert_eq!(self.parts.len(), self.list.len());
        // SAFETY: the list and all that it points to belong to `self`.
        let sent = unsafe { libc::sendmmsg(to.as_raw_fd(), self.list.as_mut_ptr(), self.list.len() as u32, flags) };
        answer(sent as isize)
    }

    fn receive(&mut self, from: &impl AsRawFd, flags: c_int, limit: Option<&mut libc::timespec>) -> (isize, i32) {
        let (fd, limit) = (from.as_raw_fd(), limit.map_or(null_mut(), std::ptr::from_mut));
        // SAFETY: the list and all that it points to belong to `self`; the span lives until the call returns.
        let got = unsafe { libc::recvmmsg(fd, self.list.as_mut_ptr(), self.list.len() as u32, flags, limit) };
        answer(got as isize)
    }

    /// What was received.
    fn texts(&self) -> Vec<&[u8]> {
        self.buffers.iter().zip(&self.list).map(|(buffer, entry)| &buffer[..entry.msg_len as usize]).collect()
    }
}

#[test]
fn many_messages_are_received_when_all_are_there_or_one_if_that_is_enough() {
    let _guard = patched();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = receiver.local_addr().unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(addr).unwrap();
    let sender = Rc::new(sender);
    let slowly = {
        let sender = Rc::clone(&sender);
        move |texts: &'static [&'static str]| {
            let sender = Rc::clone(&sender);
            spawn(move || {
                for text in texts {
                    greenling::sleep(Duration::from_millis(3));
                    sender.send(text.as_bytes()).unwrap();
                }
            })
        }
    };
    let writer = slowly(&["a", "bc", "def"]);
    let mut three = Messages::of(vec![vec![0; 9]; 3]);
    assert_eq!(others_run(|| three.receive(&receiver, 0, None)), (3, 0));
    assert_eq!(three.texts(), [b"a".as_slice(), b"bc", b"def"]);
    writer.join().unwrap();
    let writer = slowly(&["one", "two"]);
    assert_eq!(others_run(|| three.receive(&receiver, libc::MSG_WAITFORONE, None)), (1, 0));
    writer.join().unwrap();
    assert_eq!(three.receive(&receiver, libc::MSG_WAITFORONE, None), (1, 0));
    // A limit is looked at after each message.
    let writer = slowly(&["late", "later"]);
    let mut limit = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    assert_eq!(others_run(|| three.receive(&receiver, 0, Some(&mut limit))), (1, 0));
    assert_eq!((limit.tv_sec, limit.tv_nsec), (0, 0), "nothing is left");
    writer.join().unwrap();
    // The socket's own limit, counted for each message.
    receiver.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    assert_eq!(others_run(|| three.receive(&receiver, 0, None)), (1, 0));
    assert_eq!(others_run(|| three.receive(&receiver, 0, None)), (-1, libc::EAGAIN));
    let mut bad = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    no_other_runs(|| assert_eq!(three.receive(&receiver, 0, Some(&mut bad)), (-1, libc::EINVAL)));
}

#[test]
fn many_messages_are_sent_when_there_is_room_for_all() {
    let _guard = patched();
    const COUNT: usize = 600;
    let (near, far) = UnixDatagram::pair().unwrap();
    let reader = spawn(move || {
        let mut buf = [0; 5000];
        (0..COUNT).map(|_| far.recv(&mut buf).unwrap()).sum::<usize>()
    });
    let mut messages = Messages::of((0..COUNT).map(|at| pattern(4000 + at)).collect());
    assert_eq!(others_run(|| messages.send(&near, 0)), (COUNT as isize, 0));
    let sizes: Vec<usize> = messages.list.iter().map(|entry| entry.msg_len as usize).collect();
    assert_eq!(sizes, (4000..4000 + COUNT).collect::<Vec<_>>());
    assert_eq!(reader.join().unwrap(), sizes.iter().sum());
    // On a stream each of them goes whole.
    let (near, far) = UnixStream::pair().unwrap();
    let reader = drain(far);
    let mut messages = Messages::of(vec![pattern(LARGE / 4), pattern(10)]);
    assert_eq!(messages.send(&near, 0), (2, 0));
    assert_eq!(messages.list.iter().map(|entry| entry.msg_len as usize).collect::<Vec<_>>(), [LARGE / 4, 10]);
    near.set_nonblocking(true).unwrap();
    let mut messages = Messages::of(vec![pattern(LARGE / 4), pattern(10)]);
    let (sent, error) = no_other_runs(|| messages.send(&near, 0));
    assert!(sent == 1 && error == 0 && messages.list[0].msg_len < LARGE as u32 / 4, "{sent} {error}");
    near.set_nonblocking(false).unwrap();
    let part = messages.list[0].msg_len as usize;
    drop(near);
    assert_eq!(reader.join().unwrap().len(), LARGE / 4 + 10 + part);
}

#[test]
fn epoll_waits_by_nanoseconds_too() {
    let _guard = patched();
    // SAFETY: it takes a number.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    // SAFETY: the kernel has just made it.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    unsafe extern "C" {
        fn epoll_pwait2(
            epoll: c_int,
            events: *mut libc::epoll_event,
            most: c_int,
            limit: *const libc::timespec,
            mask: *const libc::sigset_t,
        ) -> c_int;
    }
    let wait = |nanos| {
        let limit = libc::timespec { tv_sec: 0, tv_nsec: nanos };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
        // SAFETY: two entries and one span, no mask.
        answer(unsafe {
            epoll_pwait2(epoll.as_raw_fd(), events.as_mut_ptr(), 2, &raw const limit, null_mut()) as isize
        })
    };
    let begin = Instant::now();
    assert_eq!(others_run(|| wait(3_000_000)), (0, 0));
    assert!(begin.elapsed() >= Duration::from_millis(3));
    no_other_runs(|| assert_eq!(wait(0), (0, 0)));
    no_other_runs(|| assert_eq!(wait(-1), (-1, libc::EINVAL)));
}

/// In a process of its own, which has no other children.
#[test]
fn any_child_is_waited_for_while_others_run() {
    let out = common::child("any_child_is_waited_for_while_others_run", || {
        let _guard = patched();
        yield_now();
        // Without the pipes of this process, so that none of them is waited for if the test fails.
        let start = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap().id() as i32
        };
        let wait = |pid: i32, options: c_int| {
            let mut status = 0;
            set_errno(0);
            // SAFETY: the status lives until the call returns.
            let found = unsafe { libc::waitpid(pid, &raw mut status, options) };
            (found, status, errno())
        };
        assert_eq!(wait(-1, 0), (-1, 0, libc::ECHILD));
        let slow = start("sleep 0.3; exit 2");
        let fast = start("sleep 0.05; exit 1");
        assert_eq!(others_run(|| wait(-1, 0)), (fast, 1 << 8, 0));
        assert_eq!(others_run(|| wait(0, 0)), (slow, 2 << 8, 0), "of this process's group");
        // A stop, and then the end, with what it used.
        let stops = start("kill -STOP $$; exit 3");
        let (found, status, _) = wait(stops, libc::WUNTRACED);
        assert!(found == stops && libc::WIFSTOPPED(status));
        // SAFETY: a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(stops, libc::SIGCONT) }, 0);
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the structs live until the call returns.
        let found = unsafe { libc::wait4(-1, null_mut(), 0, usage.as_mut_ptr()) };
        // SAFETY: filled by the call, and all zeros are valid anyway.
        let usage = unsafe { usage.assume_init() };
        assert!(found == stops && usage.ru_maxrss > 0);
        // SAFETY: no status is asked for.
        assert_eq!((unsafe { libc::wait(null_mut()) }, errno()), (-1, libc::ECHILD));
        // Two who wait for any, each finds one; and who is killed has taken none.
        let found = Rc::new(RefCell::new(Vec::new()));
        let pids = [start("sleep 0.1"), start("sleep 0.15")];
        let waiter = || {
            let found = Rc::clone(&found);
            spawn(move || {
                let answer = wait(-1, 0);
                found.borrow_mut().push(answer);
            })
        };
        let waiters = [waiter(), waiter(), waiter()];
        yield_now();
        waiters[2].kill();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(*found.borrow(), [(-1, 0, libc::ECANCELED), (pids[0], 0, 0), (pids[1], 0, 0)]);
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let last = start("sleep 0.05; exit 6");
        let peek = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: the struct lives until the call returns.
        assert_eq!(others_run(|| unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), peek) }), 0);
        // SAFETY: filled by the call.
        let info = unsafe { info.assume_init() };
        // SAFETY: the end of a child has an id.
        assert_eq!(unsafe { info.si_pid() }, last);
        assert_eq!(wait(-1, libc::WNOHANG), (last, 6 << 8, 0), "it was only looked at");
        println!("all found");
    });
    assert!(out.status.success() && common::stdout(&out).contains("all found"), "{out:?}");
}

#[test]
fn a_pidfd_is_waited_for_itself() {
    let _guard = patched();
    let pid = Command::new("sh").args(["-c", "sleep 0.02; exit 5"]).spawn().unwrap().id();
    // SAFETY: it takes numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: the kernel has just made it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as c_int) };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let number = fd.as_raw_fd() as u32;
    // SAFETY: the struct lives until the call returns.
    let wait = || unsafe { libc::waitid(libc::P_PIDFD, number, info.as_mut_ptr(), libc::WEXITED) };
    assert_eq!(others_run(wait), 0);
    // SAFETY: filled by the call.
    let info = unsafe { info.assume_init() };
    // SAFETY: a child's end has a status.
    assert_eq!(unsafe { info.si_status() }, 5);
}
