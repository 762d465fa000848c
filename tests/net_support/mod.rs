//! What the socket tests share: a limit on real time, and pairs of connected sockets.
#![allow(dead_code)] // each test binary uses its part

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream};

/// Runs `test` and ends the process with a message if it takes longer than 60 s: a lost wake-up must not hang the
/// suite.
pub(crate) fn bounded<T>(test: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    std::thread::spawn(move || {
        if is_done.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    let result = test();
    drop(done);
    result
}

/// A green stream and std's other end, whose calls may not wait for green threads of this OS thread.
pub(crate) fn with_std_peer() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0.into(), peer)
}

/// Two green streams, connected to each other.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// Makes the drop of `stream` a reset.
pub(crate) fn reset(stream: std::net::TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Lets everybody run until they all wait, and events that are on their way arrive.
pub(crate) fn settle() {
    for _ in 0..3 {
        greenling::sleep(Duration::from_millis(2));
    }
}

/// A few pseudo-random bytes that differ at each position modulo 251.
pub(crate) fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at % 251) as u8).collect()
}
