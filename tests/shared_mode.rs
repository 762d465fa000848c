//! An open file that another process or handle makes blocking does not stop the hub: calls that would have to wait park
//! all the same.
//!
//! Each case makes the file blocking by a handle that becomes one of std's, or by a child process, and then lets a
//! green thread wait for it, in every call there is. If one of them waited in the kernel, no other would run, and the
//! guard would end the test.
#![forbid(unsafe_code)]

mod common;
mod told;

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use greenling::io::{PipeReader, PipeWriter, copy, pipe};
use greenling::net::{TcpListener, TcpStream, UdpSocket, copy_bidirectional};
use greenling::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenling::process::{Command, Stdio};
use greenling::{sleep, spawn, yield_now};
use told::until_all_wait;

/// More than any buffer of the kernel's holds.
const MUCH: usize = 16 << 20;

/// A call that has to wait.
type Call = Box<dyn FnOnce()>;

/// Lets each call wait, and sees others run meanwhile and the kill arrive.
fn all_wait(what: &str, calls: impl IntoIterator<Item = Call>) {
    for (number, call) in calls.into_iter().enumerate() {
        let waits = spawn(call);
        for _ in 0..3 {
            yield_now();
            sleep(Duration::from_millis(1));
        }
        assert!(!waits.is_finished(), "{what}, call {number}: it did not have to wait");
        waits.kill();
        assert!(waits.join().unwrap_err().is_killed(), "{what}, call {number}");
    }
}

/// Makes the open file of `fd` blocking, as any process can that has it: Python clears the flag of its standard input.
fn child_clears(fd: impl AsFd) -> bool {
    let duplicate: OwnedFd = fd.as_fd().try_clone_to_owned().unwrap();
    let script = "import os; os.set_blocking(0, True)";
    match Command::new("python3").args(["-c", script]).stdin(Stdio::from(duplicate)).status() {
        Ok(status) => {
            assert!(status.success());
            true
        }
        Err(_) => false, // no Python here
    }
}

/// The calls of a stream that reads and writes.
macro_rules! stream_calls {
    ($stream:expr, $kind:ty) => {{
        let stream = Rc::new($stream);
        let reading = |f: fn(&$kind)| {
            let stream = Rc::clone(&stream);
            Box::new(move || f(&stream)) as Call
        };
        all_wait(
            "reading",
            [
                reading(|stream| drop((&*stream).read(&mut [0; 8]))),
                reading(|stream| drop((&*stream).read_vectored(&mut [IoSliceMut::new(&mut [0; 8])]))),
                reading(|stream| drop(stream.read_with(|bytes| bytes.len()))),
            ],
        );
        all_wait(
            "writing",
            [
                reading(|stream| drop((&*stream).write_all(&vec![0; MUCH]))),
                reading(|stream| while (&*stream).write_vectored(&[IoSlice::new(&[0; 4096]); 4]).is_ok() {}),
            ],
        );
    }};
}

/// A connection, and its other side.
fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn a_stream_with_a_blocking_clone_parks() {
    let _guard = common::guard();
    let (stream, _far) = tcp();
    let blocking = std::net::TcpStream::from(stream.try_clone().unwrap());
    let peeks = stream.try_clone().unwrap();
    all_wait("peek", [Box::new(move || drop(peeks.peek(&mut [0]))) as Call]);
    stream_calls!(stream, TcpStream);
    drop(blocking);
    let (stream, _far) = UnixStream::pair().unwrap();
    let blocking = std::os::unix::net::UnixStream::from(stream.try_clone().unwrap());
    stream_calls!(stream, UnixStream);
    drop(blocking);
}

#[test]
fn a_datagram_socket_with_a_blocking_clone_parks() {
    let _guard = common::guard();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let blocking = std::net::UdpSocket::from(udp.try_clone().unwrap());
    let udp = Rc::new(udp);
    let calls: [fn(&UdpSocket); 4] = [
        |udp| drop(udp.recv(&mut [0])),
        |udp| drop(udp.recv_from(&mut [0])),
        |udp| drop(udp.peek(&mut [0])),
        |udp| drop(udp.peek_from(&mut [0])),
    ];
    all_wait(
        "udp",
        calls.map(|call| {
            let udp = Rc::clone(&udp);
            Box::new(move || call(&udp)) as Call
        }),
    );
    drop(blocking);
    let (near, far) = UnixDatagram::pair().unwrap();
    let name = format!("greenling-shared-{}", std::process::id());
    let to = <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).unwrap();
    let full = std::os::unix::net::UnixDatagram::bind_addr(&to).unwrap();
    let blocking = std::os::unix::net::UnixDatagram::from(near.try_clone().unwrap());
    let unbound = UnixDatagram::unbound().unwrap();
    let blocking_too = std::os::unix::net::UnixDatagram::from(unbound.try_clone().unwrap());
    let (near, receives) = (Rc::new(near), Rc::new(far));
    let theirs = [Rc::clone(&near), Rc::clone(&near), near];
    let [one, two, three] = theirs;
    all_wait(
        "unix datagrams",
        [
            Box::new(move || drop(one.recv(&mut [0]))) as Call,
            Box::new(move || drop(two.recv_from(&mut [0]))) as Call,
            Box::new(move || while three.send(b"x").is_ok() {}) as Call,
            Box::new(move || while unbound.send_to_addr(b"x", &to).is_ok() {}) as Call,
        ],
    );
    drop((blocking, blocking_too, full, receives));
}

/// Whether the kernel has a flag for reads of pipes that do not wait (Linux 6.4).
fn pipes_have_a_flag() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(4))
}

#[test]
fn a_pipe_with_a_blocking_clone_parks() {
    let _guard = common::guard();
    if !pipes_have_a_flag() {
        return;
    }
    let (reader, _writer) = pipe().unwrap();
    let blocking = std::io::PipeReader::from(reader.try_clone().unwrap());
    let reader = Rc::new(reader);
    let calls: [fn(&PipeReader); 3] = [
        |mut reader| drop(reader.read(&mut [0])),
        |mut reader| drop(reader.read_vectored(&mut [IoSliceMut::new(&mut [0])])),
        |mut reader| drop(copy(&mut reader, &mut greenling::io::sink())),
    ];
    all_wait(
        "reading a pipe",
        calls.map(|call| {
            let reader = Rc::clone(&reader);
            Box::new(move || call(&reader)) as Call
        }),
    );
    drop(blocking);
    let (_reader, writer) = pipe().unwrap();
    // A child has it, and finds it blocking, as it expects.
    let mut child = Command::new("sleep").arg("60").stdout(writer.try_clone().unwrap()).spawn().unwrap();
    let writer = Rc::new(writer);
    let calls: [fn(&PipeWriter); 2] = [
        |mut writer| drop(writer.write_all(&vec![0; MUCH])),
        |mut writer| while writer.write_vectored(&[IoSlice::new(&[0; 4096])]).is_ok() {},
    ];
    all_wait(
        "writing to a pipe",
        calls.map(|call| {
            let writer = Rc::clone(&writer);
            Box::new(move || call(&writer)) as Call
        }),
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_copy_of_much_parks_although_an_end_was_made_blocking() {
    let _guard = common::guard();
    let file = std::env::temp_dir().join(format!("greenling-shared-{}", std::process::id()));
    std::fs::write(&file, vec![1; MUCH]).unwrap();
    let ((near, _near_far), (there, _there_far)) = (tcp(), tcp());
    let blocking = std::net::TcpStream::from(there.try_clone().unwrap());
    let path = file.clone();
    let to = there.try_clone().unwrap();
    let file_to_socket = move || drop(copy(&mut std::fs::File::open(&path).unwrap(), &mut &to));
    let (from, mut feed) = tcp();
    let feeder = spawn(move || feed.write_all(&vec![2; MUCH]));
    let to = there.try_clone().unwrap();
    let socket_to_socket = move || drop(copy(&mut &from, &mut &to));
    let both_ways = move || drop(copy_bidirectional(&near, &there));
    all_wait("copies", [Box::new(file_to_socket) as Call, Box::new(socket_to_socket), Box::new(both_ways)]);
    feeder.kill();
    drop((feeder.join(), blocking));
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_copy_that_waits_when_an_end_becomes_blocking_waits_on_and_loses_nothing() {
    let _guard = common::guard();
    for reader_is_late in [false, true] {
        let ((from, mut feed), (to, far)) = (tcp(), tcp());
        let clones = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let copier = spawn(move || copy(&mut &from, &mut &to).unwrap());
        let piece = vec![5; 1 << 20];
        // Much of it goes through the kernel's pipe; then it waits, for more or for room.
        let read = |mut bytes: usize| {
            let mut buf = vec![0; 1 << 16];
            while bytes > 0 {
                bytes -= (&far).read(&mut buf[..bytes.min(1 << 16)]).unwrap();
            }
        };
        if !reader_is_late {
            let feeder = spawn({
                let (piece, mut feed) = (piece.clone(), feed.try_clone().unwrap());
                move || feed.write_all(&piece).unwrap()
            });
            read(piece.len());
            feeder.join().unwrap();
        }
        let feeder = spawn(move || {
            feed.write_all(&vec![6; MUCH]).unwrap();
            // It waits for more, and there is none.
            sleep(Duration::from_millis(20));
        });
        // A copy that runs meanwhile would begin a call that blocks the OS thread, which reads the other end.
        until_all_wait();
        let blocking = (std::net::TcpStream::from(clones.0), std::net::TcpStream::from(clones.1));
        read(MUCH);
        feeder.join().unwrap();
        let total = if reader_is_late { MUCH } else { MUCH + piece.len() };
        assert_eq!(copier.join().unwrap(), total as u64);
        drop(blocking);
    }
}

#[test]
fn a_listener_that_a_child_made_blocking_parks() {
    let _guard = common::guard();
    let path = std::env::temp_dir().join(format!("greenling-listener-{}", std::process::id()));
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let (tcp, unix) = (Rc::new(tcp), Rc::new(unix));
    // Before the first accept, and once more after it has waited.
    for _ in 0..2 {
        if !child_clears(&*tcp) || !child_clears(&*unix) {
            return;
        }
        let (first, second, third) = (Rc::clone(&tcp), Rc::clone(&unix), Rc::clone(&tcp));
        all_wait(
            "accept",
            [
                Box::new(move || drop(first.accept())) as Call,
                Box::new(move || drop(second.accept())),
                Box::new(move || greenling::select! { accept(third) -> _accepted => {} }),
            ],
        );
    }
    let client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    assert_eq!(tcp.accept().unwrap().1, client.local_addr().unwrap());
}
