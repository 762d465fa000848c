//! What the socket tests share: a limit on real time, pairs of connected sockets, and the same program against std and
//! against us.
#![allow(dead_code, unused_imports, unused_macros)] // each test binary uses its part

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

/// Makes a green stream and std's other end. Calls of the latter must not wait for green threads of this OS thread.
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

/// Lets all green threads run until they wait, and until events that are on their way have arrived.
pub(crate) fn settle() {
    for _ in 0..3 {
        greenling::sleep(Duration::from_millis(2));
    }
}

/// A few pseudo-random bytes that differ at each position modulo 251.
pub(crate) fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at % 251) as u8).collect()
}

/// What the steps of a program ended with, as text that does not depend on ports and numbers.
pub(crate) type Log = Vec<String>;

/// Notes what a step ended with.
pub(crate) fn note<T: std::fmt::Debug>(log: &mut Log, what: &str, result: std::io::Result<T>) {
    log.push(match result {
        Ok(value) => format!("{what}: {value:?}"),
        Err(error) => format!("{what}: {:?} {:?}", error.kind(), error.raw_os_error()),
    });
}

/// Runs a program three times, with `net` meaning std's module in an OS thread, then ours here, then ours in a
/// simulation, and compares what it noted.
/// `unix` before the program: the modules of Unix sockets; `kernel`: not in a simulation, since the program asks the
/// kernel for something itself.
macro_rules! same_as_std {
    ($name:ident, |$log:ident| $body:block) => {
        same_as_std!($name, simulated, { std::net }, { greenling::net }, |$log| $body);
    };
    ($name:ident, unix, |$log:ident| $body:block) => {
        same_as_std!($name, simulated, { std::os::unix::net }, { greenling::os::unix::net }, |$log| $body);
    };
    ($name:ident, kernel, |$log:ident| $body:block) => {
        same_as_std!($name, kernel, { std::net }, { greenling::net }, |$log| $body);
    };
    (@again simulated, $program:ident, $expected:ident) => {
        assert_eq!(greenling::sim::run(1, $program), $expected, "in a simulation");
    };
    (@again kernel, $program:ident, $expected:ident) => {};
    ($name:ident, $where:ident, { $($std:tt)* }, { $($ours:tt)* }, |$log:ident| $body:block) => {
        #[test]
        fn $name() {
            fn with_std() -> Log {
                #[allow(unused_imports)]
                use $($std)* as net;
                let mut $log = Log::new();
                $body
                $log
            }
            fn with_greenling() -> Log {
                #[allow(unused_imports)]
                use $($ours)* as net;
                let mut $log = Log::new();
                $body
                $log
            }
            bounded(|| {
                let expected = std::thread::spawn(with_std).join().unwrap();
                assert!(!expected.is_empty());
                assert_eq!(with_greenling(), expected);
                same_as_std!(@again $where, with_greenling, expected);
            });
        }
    };
}
pub(crate) use same_as_std;
