//! Bugs that a review of the core found, one test for each. The names say what must not happen again.
#![allow(unsafe_code)] // dup2 and pipe, to break standard error

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use greenling::net::TcpStream;
use greenling::thread::{self, spawn};
use greenling::{shield, sleep, timeout};

/// Makes standard error a pipe that nobody reads: every write to it fails.
fn break_standard_error() {
    let mut ends = [0; 2];
    // SAFETY: pipe(2) fills two integers.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: both numbers are open; from now on 2 is the writing end.
    assert_eq!(unsafe { libc::dup2(ends[1], 2) }, 2);
    for end in ends {
        // SAFETY: the ends are this function's, and nobody uses them again.
        assert_eq!(unsafe { libc::close(end) }, 0);
    }
}

/// An epoll set knows an open file by its number as well: one left behind by a stream whose file lives on in a
/// duplicate refused the duplicate's duplicate when that got the old number.
#[test]
fn a_duplicate_that_gets_the_number_of_a_dropped_stream_can_wait() {
    let _guard = common::guard();
    let name = "a_duplicate_that_gets_the_number_of_a_dropped_stream_can_wait";
    let out = common::child(name, || {
        let listener = greenling::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        // Registers it.
        assert!(timeout(Duration::from_millis(1), || (&near).read(&mut [0])).is_err());
        let number = near.as_raw_fd();
        let file: OwnedFd = near.as_fd().try_clone_to_owned().unwrap();
        drop(near);
        let mut others = Vec::new();
        let again = loop {
            let next = file.try_clone().unwrap();
            if next.as_raw_fd() == number {
                break next;
            }
            others.push(next);
        };
        let mut again = TcpStream::from(again);
        let reader = spawn(move || {
            let mut byte = [0];
            again.read_exact(&mut byte).unwrap();
            byte[0]
        });
        sleep(Duration::from_millis(1));
        far.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), b'x');
    });
    assert!(out.status.success(), "{}{}", common::stdout(&out), common::stderr(&out));
}

/// The hook that names green threads printed with `eprintln!`, which panics when it cannot: inside a hook, an abort.
#[test]
fn a_panic_with_a_broken_standard_error_does_not_abort() {
    let _guard = common::guard();
    let out = common::child("a_panic_with_a_broken_standard_error_does_not_abort", || {
        break_standard_error();
        assert!(spawn(|| panic!("nobody reads this")).join().unwrap_err().is_panic());
        println!("went on");
    });
    assert!(out.status.success() && common::stdout(&out).contains("went on"), "{out:?}");
}

/// The message before the abort panicked when it could not be printed: the scope was left, its threads were not.
#[test]
fn no_scope_is_left_because_its_last_words_cannot_be_printed() {
    let _guard = common::guard();
    let out = common::child("no_scope_is_left_because_its_last_words_cannot_be_printed", || {
        break_standard_error();
        let left = catch_unwind(|| {
            let borrowed = Cell::new(0);
            thread::scope(|s| {
                s.spawn(|| {
                    shield(thread::park);
                    borrowed.set(1);
                });
            });
        });
        println!("escaped: {left:?}");
    });
    assert!(!out.status.success() && !common::stdout(&out).contains("escaped"), "{out:?}");
}

/// A letter that is on its way when the last handle goes is a wake-up: the hub looked at the inbox, then at the
/// handles, and in between somebody sent one and dropped the other.
#[test]
fn an_unpark_whose_handle_is_dropped_at_once_is_no_deadlock() {
    let _guard = common::guard();
    let (send, receive) = std::sync::mpsc::channel::<thread::Thread>();
    let other = std::thread::spawn(move || {
        let mut random = common::Random::new();
        for handle in receive {
            // Somewhere around the moment at which the hub falls asleep.
            for _ in 0..random.below(600) {
                std::hint::spin_loop();
            }
            handle.unpark();
        }
    });
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        send.send(thread::current()).unwrap();
        thread::park();
    }
    drop(send);
    other.join().unwrap();
}

/// Calls that would have to wait return at once while the OS thread counts a panic, so a thread that goes on whatever
/// happens kept the CPU for ever.
#[test]
fn an_exit_out_of_an_unwinding_main_does_not_hang() {
    let _guard = common::guard();
    let out = common::child("an_exit_out_of_an_unwinding_main_does_not_hang", || {
        drop(spawn(|| {
            loop {
                let _ = catch_unwind(|| sleep(Duration::from_secs(10)));
            }
        }));
        thread::yield_now();
        let _exit = common::OnDrop::new(|| std::process::exit(3));
        panic!("main unwinds");
    });
    assert_eq!(out.status.code(), Some(3));
}

/// A read stops at the mark of urgent data, however much comes after it: such a short read does not mean that the socket
/// is empty.
#[test]
fn a_read_that_stops_at_urgent_data_does_not_lose_what_follows() {
    let _guard = common::guard();
    let listener = greenling::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    // Registers it.
    assert!(timeout(Duration::from_millis(1), || near.read(&mut [0])).is_err());
    far.write_all(b"abc").unwrap();
    // SAFETY: the descriptor is open, and send(2) reads one byte of a string that lives.
    let sent = unsafe { libc::send(far.as_raw_fd(), c"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    far.write_all(b"def").unwrap();
    sleep(Duration::from_millis(20));
    let mut text = Vec::new();
    let mut bytes = [0; 64];
    near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    while text.len() < 6 {
        let n = near.read(&mut bytes).unwrap();
        text.extend_from_slice(&bytes[..n]);
    }
    assert_eq!(text, b"abcdef");
}

/// What the hub knows of a descriptor is as old as its last look at epoll. Where nobody may wait there is no other look,
/// so a call was refused although what it wanted had come.
#[test]
fn a_call_that_may_not_wait_asks_the_kernel_before_it_is_refused() {
    let _guard = common::guard();
    let (reader, writer) = greenling::io::pipe().unwrap();
    // As std's, so that a write does not look at epoll.
    let mut writer = std::io::PipeWriter::from(writer);
    // From now on the hub knows that there is nothing.
    assert!(timeout(Duration::from_millis(1), || (&reader).read(&mut [0])).is_err());
    writer.write_all(b"x").unwrap();
    assert_eq!(greenling::no_switch(|| (&reader).read(&mut [0])).unwrap(), 1);
    assert!(timeout(Duration::from_millis(1), || (&reader).read(&mut [0])).is_err());
    writer.write_all(b"x").unwrap();
    let result = catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _last = common::OnDrop::new(|| assert_eq!((&reader).read(&mut [0]).unwrap(), 1));
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(result.is_err());
}
