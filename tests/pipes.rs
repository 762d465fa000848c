//! Pipes: `std::io::pipe` for green threads.
#![forbid(unsafe_code)]

mod common;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use greenling::io::{PipeReader, PipeWriter, pipe};
use greenling::{TimeoutError, no_switch, spawn, timeout, yield_now};

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(5);

/// More than any pipe holds.
const MUCH: usize = 1 << 20;

/// Whether a descriptor of this process is non-blocking.
fn is_nonblocking(fd: impl AsFd) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK != 0
}

/// Calls a function when a panic drops it.
fn while_panicking(f: impl FnOnce()) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _last = common::OnDrop::new(f);
        std::panic::resume_unwind(Box::new("expected"));
    }));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"expected"));
}

#[test]
fn a_reader_waits_and_others_run() {
    let _guard = common::guard();
    let (mut reader, mut writer) = pipe().unwrap();
    let thread = spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    yield_now();
    assert!(!thread.is_finished());
    writer.write_all(b"one ").unwrap();
    yield_now();
    writer.write_all(b"two").unwrap();
    drop(writer);
    assert_eq!(thread.join().unwrap(), "one two");
}

#[test]
fn a_writer_waits_for_room_and_everything_arrives() {
    let _guard = common::guard();
    let (mut reader, mut writer) = pipe().unwrap();
    let data: Vec<u8> = (0..MUCH).map(|n| (n % 251) as u8).collect();
    let expected = data.clone();
    let thread = spawn(move || writer.write_all(&data).unwrap());
    yield_now();
    assert!(!thread.is_finished(), "a pipe does not hold a megabyte");
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert!(got == expected);
    thread.join().unwrap();
}

#[test]
fn the_end_of_the_other_side_wakes_the_waiter() {
    let _guard = common::guard();
    let (mut reader, writer) = pipe().unwrap();
    let waiter = spawn(move || reader.read(&mut [0; 8]).unwrap());
    yield_now();
    drop(writer);
    assert_eq!(waiter.join().unwrap(), 0);

    let (reader, mut writer) = pipe().unwrap();
    let waiter = spawn(move || writer.write_all(&vec![0; MUCH]).unwrap_err().kind());
    yield_now();
    drop(reader);
    assert_eq!(waiter.join().unwrap(), ErrorKind::BrokenPipe);
    let (reader, mut writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(writer.write(&[1]).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn the_end_comes_with_the_last_writer() {
    let _guard = common::guard();
    let (mut reader, writer) = pipe().unwrap();
    let clone = writer.try_clone().unwrap();
    let waiter = spawn(move || reader.read(&mut [0; 8]).unwrap());
    yield_now();
    drop(writer);
    yield_now();
    assert!(!waiter.is_finished());
    drop(clone);
    assert_eq!(waiter.join().unwrap(), 0);
}

#[test]
fn a_read_that_is_given_up_loses_nothing() {
    let _guard = common::guard();
    let (reader, mut writer) = pipe().unwrap();
    let reader = Rc::new(reader);
    let theirs = Rc::clone(&reader);
    let waiter = spawn(move || (&*theirs).read(&mut [0; 8]).unwrap());
    yield_now();
    writer.write_all(b"kept").unwrap();
    waiter.kill();
    assert!(waiter.join().unwrap_err().is_killed());
    let mut buf = [0; 8];
    assert_eq!((&*reader).read(&mut buf).unwrap(), 4);
    assert_eq!(timeout(SHORT, || (&*reader).read(&mut [0; 8]).unwrap()), Err(TimeoutError::Elapsed));
    writer.write_all(b"again").unwrap();
    assert_eq!((&*reader).read(&mut buf).unwrap(), 5);
    // What was read before a kill is in the buffer of the reader.
    let mut kept = Vec::new();
    writer.write_all(b"half").unwrap();
    assert_eq!(timeout(SHORT, || (&*reader).read_to_end(&mut kept).map(drop).unwrap()), Err(TimeoutError::Elapsed));
    assert_eq!(kept, b"half");
}

#[test]
fn readers_get_their_turns_in_order() {
    let _guard = common::guard();
    let (reader, mut writer) = pipe().unwrap();
    let reader = Rc::new(reader);
    let log = common::Log::default();
    let threads: Vec<_> = (0..3)
        .map(|number| {
            let (reader, log) = (Rc::clone(&reader), log.clone());
            spawn(move || {
                (&*reader).read_exact(&mut [0]).unwrap();
                log.say(number);
            })
        })
        .collect();
    yield_now();
    writer.write_all(b"abc").unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(log.text(), "0 1 2");
    // Clones each have a line of their own, and none is forgotten.
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let mut clone = reader.try_clone().unwrap();
            spawn(move || clone.read_exact(&mut [0]).unwrap())
        })
        .collect();
    yield_now();
    writer.write_all(b"abc").unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn many_slices_go_at_once() {
    let _guard = common::guard();
    let (mut reader, mut writer) = pipe().unwrap();
    assert_eq!(writer.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cde")]).unwrap(), 5);
    let (mut one, mut two) = ([0; 3], [0; 3]);
    assert_eq!(reader.read_vectored(&mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)]).unwrap(), 5);
    assert_eq!((&one, &two[..2]), (b"abc", &b"de"[..]));
    writer.flush().unwrap();
}

#[test]
fn while_unwinding_nothing_waits_and_what_is_there_is_read() {
    let _guard = common::guard();
    let (mut reader, mut writer) = pipe().unwrap();
    while_panicking(|| {
        assert_eq!(writer.write_all(&vec![0; MUCH]).unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 8, "it need not wait");
    });
    assert!(catch_unwind(AssertUnwindSafe(|| no_switch(|| writer.write_all(&vec![0; MUCH])))).is_err());
    no_switch(|| reader.read(&mut [0; 8])).expect("it need not wait");
    let (mut empty, _writer) = pipe().unwrap();
    while_panicking(|| assert_eq!(empty.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::Other));
}

#[test]
fn an_os_thread_that_is_shut_down_takes_its_readers_out() {
    let _guard = common::guard();
    let mut writer = std::thread::spawn(|| {
        let (mut reader, writer) = pipe().unwrap();
        drop(spawn(move || reader.read(&mut [0; 8])));
        yield_now();
        assert_eq!(greenling::hub::shutdown(), 0);
        std::io::PipeWriter::from(writer)
    })
    .join()
    .unwrap();
    assert_eq!(writer.write(&[1]).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn as_std_it_blocks_and_back_it_does_not() {
    let _guard = common::guard();
    let (reader, writer) = pipe().unwrap();
    assert!(is_nonblocking(&reader) && is_nonblocking(&writer));
    assert!(format!("{reader:?} {writer:?}").contains("PipeReader("));
    let number = reader.as_raw_fd();
    let (reader, writer) = (std::io::PipeReader::from(reader), OwnedFd::from(writer));
    assert!(!is_nonblocking(&reader) && !is_nonblocking(&writer));
    assert_eq!(reader.as_raw_fd(), number, "moved, not duplicated");
    let (mut reader, mut writer) = (PipeReader::from(reader), PipeWriter::from(writer));
    assert!(is_nonblocking(&reader) && is_nonblocking(&writer));
    let thread = spawn(move || reader.read(&mut [0; 8]).unwrap());
    yield_now();
    writer.write_all(b"abc").unwrap();
    assert_eq!(thread.join().unwrap(), 3);
    // Over to another OS thread.
    let (reader, mut writer) = pipe().unwrap();
    let reader = std::io::PipeReader::from(reader);
    let other = std::thread::spawn(move || {
        let mut text = String::new();
        PipeReader::from(reader).read_to_string(&mut text).unwrap();
        text
    });
    writer.write_all(b"over there").unwrap();
    drop(writer);
    assert_eq!(other.join().unwrap(), "over there");
}
