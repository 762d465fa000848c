//! Numbers of descriptors that are closed, and given to other files, while green threads wait for them.
#![allow(unsafe_code)]

mod common;
#[path = "common/patched.rs"]
mod helpers;

use std::ffi::c_int;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use greenling::{spawn, yield_now};
use helpers::{errno, patched};

/// Keeps the tests apart: they use numbers that were just closed.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a call, with errno if it failed.
fn answer(result: isize) -> (isize, i32) {
    (result, if result < 0 { errno() } else { 0 })
}

/// Reads up to four bytes by C's read.
fn read(fd: RawFd) -> (isize, i32) {
    // SAFETY: four bytes; the number may be closed meanwhile, which is what this is about.
    answer(unsafe { libc::read(fd, [0_u8; 4].as_mut_ptr().cast(), 4) })
}

fn close(fd: RawFd) {
    // SAFETY: the descriptor is the test's own.
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

/// Makes pairs of sockets until one end has the number `fd`, which is free; returns this end and its peer.
fn take_number(fd: RawFd) -> (UnixStream, UnixStream) {
    let mut others = Vec::new();
    loop {
        let (one, other) = UnixStream::pair().unwrap();
        if one.as_raw_fd() == fd {
            return (one, other);
        }
        if other.as_raw_fd() == fd {
            return (other, one);
        }
        others.push((one, other));
        assert!(others.len() < 100, "{fd} is not free");
    }
}

/// Bytes that come for the next owner of the number go to this owner.
fn check_next_owner(owner: UnixStream, mut peer: UnixStream) {
    peer.write_all(b"mine").unwrap();
    drop(peer);
    let mut text = String::new();
    (&owner).read_to_string(&mut text).unwrap();
    assert_eq!(text, "mine");
}

/// A call that waits for a number.
type Call = fn(RawFd) -> (isize, i32);

/// Receives up to four bytes by C's recv.
fn receive(fd: RawFd, flags: c_int) -> (isize, i32) {
    // SAFETY: as in `read`.
    answer(unsafe { libc::recv(fd, [0_u8; 4].as_mut_ptr().cast(), 4, flags) })
}

/// Reads up to four bytes by C's readv.
fn read_vector(fd: RawFd) -> (isize, i32) {
    let mut bytes = [0_u8; 4];
    let buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 4 };
    // SAFETY: as in `read`.
    answer(unsafe { libc::readv(fd, &raw const buffer, 1) })
}

/// Receives one message by C's recvmmsg.
fn receive_list(fd: RawFd) -> (isize, i32) {
    let mut bytes = [0_u8; 4];
    let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 4 };
    // SAFETY: all zeros is a valid entry.
    let mut list = unsafe { std::mem::zeroed::<libc::mmsghdr>() };
    list.msg_hdr.msg_iov = &raw mut buffer;
    list.msg_hdr.msg_iovlen = 1;
    // SAFETY: as in `read`.
    answer(unsafe { libc::recvmmsg(fd, &raw mut list, 1, 0, std::ptr::null_mut()) } as isize)
}

/// Moves up to four bytes by splice.
fn splice(fd: RawFd) -> (isize, i32) {
    let (_reader, writer) = std::io::pipe().unwrap();
    let null = std::ptr::null_mut();
    // SAFETY: numbers, and null pointers, which are allowed.
    answer(unsafe { libc::splice(fd, null, writer.as_raw_fd(), null, 4, 0) })
}

/// The calls that wait, by name.
const CALLS: [(&str, Call); 6] = [
    ("read", read),
    ("recv", |fd| receive(fd, 0)),
    ("recv all", |fd| receive(fd, libc::MSG_WAITALL)),
    ("readv", read_vector),
    ("recvmmsg", receive_list),
    ("splice", splice),
];

#[test]
fn a_number_that_is_reused_under_a_waiter_is_bad_for_the_waiter() {
    let _alone = alone();
    let _guard = patched();
    for (name, call) in CALLS {
        let (near, _far) = UnixStream::pair().unwrap();
        let fd = near.into_raw_fd();
        let waiters: Vec<_> = (0..3).map(|_| spawn(move || call(fd))).collect();
        yield_now();
        close(fd);
        // The waiters have not run yet.
        let (owner, peer) = take_number(fd);
        (&peer).write_all(b"mine").unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), (-1, libc::EBADF), "{name}");
        }
        check_next_owner_has(owner, peer);
    }
}

/// As [`check_next_owner`], where the bytes are there already.
fn check_next_owner_has(owner: UnixStream, peer: UnixStream) {
    drop(peer);
    let mut text = String::new();
    (&owner).read_to_string(&mut text).unwrap();
    assert_eq!(text, "mine");
}

#[test]
fn a_number_that_is_given_another_file_is_bad_for_the_waiter() {
    let _alone = alone();
    let _guard = patched();
    let (near, _far) = UnixStream::pair().unwrap();
    let (next, peer) = UnixStream::pair().unwrap();
    let fd = near.into_raw_fd();
    let waiter = spawn(move || read(fd));
    yield_now();
    // SAFETY: both numbers are the test's own.
    assert_eq!(unsafe { libc::dup2(next.as_raw_fd(), fd) }, fd);
    (&peer).write_all(b"mine").unwrap();
    assert_eq!(waiter.join().unwrap(), (-1, libc::EBADF));
    // SAFETY: the number is the test's own.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    check_next_owner_has(next, peer);
}

#[test]
fn a_failed_dup2_wakes_no_waiter() {
    let _alone = alone();
    let _guard = patched();
    let (near, far) = UnixStream::pair().unwrap();
    let fd = near.as_raw_fd();
    let waiter = spawn(move || read(fd));
    yield_now();
    // SAFETY: numbers and flags that are not valid.
    let calls = [unsafe { libc::dup2(9999, fd) }, unsafe { libc::dup3(9999, fd, 0) }];
    assert_eq!((calls, errno()), ([-1; 2], libc::EBADF));
    // SAFETY: flags that are not valid.
    assert_eq!((unsafe { libc::dup3(far.as_raw_fd(), fd, 1) }, errno()), (-1, libc::EINVAL));
    (&far).write_all(b"abc").unwrap();
    assert_eq!(waiter.join().unwrap(), (3, 0));
}

#[test]
fn a_partly_written_message_ends_with_its_part() {
    let _alone = alone();
    let _guard = patched();
    let (near, _far) = UnixStream::pair().unwrap();
    let fd = near.into_raw_fd();
    let bytes = vec![7_u8; 16 << 20];
    // SAFETY: the buffer lives until the call returns.
    let waiter = spawn(move || answer(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }));
    yield_now();
    close(fd);
    let (owner, peer) = take_number(fd);
    let (written, _) = waiter.join().unwrap();
    assert!(written > 0 && written < 16 << 20, "{written}");
    check_next_owner(owner, peer);
}

#[test]
fn a_listener_that_is_closed_under_an_acceptor_gives_it_no_other_connection() {
    let _alone = alone();
    let _guard = patched();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = listener.into_raw_fd();
    // SAFETY: null pointers ask for no address.
    let accept = move || answer(unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) } as isize);
    let acceptor = spawn(accept);
    yield_now();
    close(fd);
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(other.as_raw_fd(), fd);
    let client = std::net::TcpStream::connect(other.local_addr().unwrap()).unwrap();
    assert_eq!(acceptor.join().unwrap(), (-1, libc::EBADF));
    assert_eq!(other.accept().unwrap().1, client.local_addr().unwrap());
}

/// Starts an OS thread with a hub in which a green thread reads `fd` until it fails, after `rounds` reads.
fn reader_elsewhere(fd: RawFd, rounds: usize) -> (std::thread::JoinHandle<(isize, i32)>, mpsc::Receiver<()>) {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let reader = spawn(move || {
            for _ in 0..rounds {
                assert_eq!(read(fd), (1, 0));
                tell.send(()).unwrap();
            }
            read(fd)
        });
        reader.join().unwrap()
    });
    (thread, told)
}

/// Closes a number for which a green thread of another OS thread waits, from a thread with a hub and from one without.
fn close_from_elsewhere(rounds: usize, with_hub: bool) {
    let (near, far) = UnixStream::pair().unwrap();
    let fd = near.into_raw_fd();
    let (reader, told) = reader_elsewhere(fd, rounds);
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(2));
        (&far).write_all(b"x").unwrap();
        told.recv().unwrap();
    }
    // Time for the last wait to begin.
    std::thread::sleep(Duration::from_millis(20));
    let begin = Instant::now();
    let next = move || {
        close(fd);
        let (owner, peer) = take_number(fd);
        (&peer).write_all(b"mine").unwrap();
        (owner, peer)
    };
    let (owner, peer) = if with_hub {
        std::thread::spawn(move || spawn(next).join().unwrap()).join().unwrap()
    } else {
        std::thread::spawn(next).join().unwrap()
    };
    assert_eq!(reader.join().unwrap(), (-1, libc::EBADF), "{rounds} {with_hub}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    check_next_owner_has(owner, peer);
}

#[test]
fn a_close_on_another_os_thread_ends_the_wait() {
    let _alone = alone();
    let _guard = patched();
    for rounds in [0, 5] {
        for with_hub in [false, true] {
            close_from_elsewhere(rounds, with_hub);
        }
    }
}

#[test]
fn a_number_that_is_closed_while_two_hubs_wait_is_bad_for_both() {
    let _alone = alone();
    let _guard = patched();
    let (near, _far) = UnixStream::pair().unwrap();
    let fd = near.into_raw_fd();
    let readers = [(); 2].map(|()| reader_elsewhere(fd, 0).0);
    std::thread::sleep(Duration::from_millis(30));
    close(fd);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), (-1 as c_int as isize, libc::EBADF));
    }
}

#[test]
fn the_late_news_that_a_number_was_closed_does_not_harm_the_join_that_has_the_number_now() {
    let (_alone, _guard) = (alone(), patched());
    // SAFETY: no lock and no thread-local is held over a wait.
    unsafe { greenling::monkey::patch_locks() }.expect("linked so that std's calls arrive");
    // This hub knows the number, since a green thread has waited for it.
    let (near, mut far) = UnixStream::pair().unwrap();
    let fd = near.into_raw_fd();
    let reader = spawn(move || read(fd));
    yield_now();
    far.write_all(b"four").unwrap();
    assert_eq!(reader.join().unwrap(), (4, 0));
    // What is to be joined ends when it is told to, once the hub has had time to hear the news.
    let go = Arc::new(AtomicBool::new(false));
    let until_go = Arc::clone(&go);
    let joined = std::thread::spawn(move || {
        while !until_go.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    // Another OS thread closes the number. The hub is not asked for news before the join waits: this spins.
    let closer = std::thread::spawn(move || close(fd));
    while !closer.is_finished() {
        std::hint::spin_loop();
    }
    // The next descriptor, which is the join's, gets the number.
    let lower: Vec<_> =
        std::iter::repeat_with(|| far.try_clone().unwrap()).take_while(|next| next.as_raw_fd() != fd).collect();
    spawn(move || {
        greenling::sleep(Duration::from_millis(20));
        go.store(true, Ordering::Release);
    });
    joined.join().unwrap();
    drop(lower);
    closer.join().unwrap();
}
