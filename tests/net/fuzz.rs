//! Random sequences of socket calls, against the kernel's loopback and in a simulation: the results are the same.
//!
//! A sequence runs in a simulation first. The kernel may take a moment for what the simulation does at once, so there a
//! call that would have to wait is made again for a while if the simulation's did not have to; and if the results still
//! differ, the sequence is run again, with a pause after each call.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::os::unix::net::UnixStream;
use greenling::sim;

/// The sequences of one run, and the calls of each.
const SEQUENCES: u64 = 400;
const CALLS: usize = 60;

/// How often a sequence is run against the kernel before a difference counts, and how often a call is made again.
const ATTEMPTS: usize = 4;
const TRIES: usize = 500;

/// A small generator (xorshift64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}

/// A call, with the numbers of the sockets that it is about.
#[derive(Clone, Copy, Debug)]
enum Call {
    Listen(usize),
    Connect(usize, usize),
    Accept(usize, usize),
    Pair(usize, usize),
    Write(usize, usize),
    Read(usize, usize),
    Peek(usize, usize),
    Shutdown(usize, Shutdown),
    Close(usize),
    CloseListener(usize),
    Error(usize),
    Peer(usize),
    Bind(usize),
    ConnectUdp(usize, usize),
    SendTo(usize, usize, usize),
    Send(usize, usize),
    Receive(usize, usize),
    CloseUdp(usize),
    ErrorUdp(usize),
}

/// Draws a sequence of calls.
fn draw(seed: u64) -> Vec<Call> {
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut calls = vec![Call::Listen(0), Call::Connect(0, 0), Call::Accept(0, 1), Call::Bind(0), Call::Bind(1)];
    while calls.len() < CALLS {
        let (one, other, size) = (draw.below(4), draw.below(4), [0, 1, 10, 700, 2000][draw.below(5)]);
        calls.push(match draw.below(27) {
            0 => Call::Listen(one % 2),
            1 | 2 => Call::Connect(one % 2, other),
            3 | 4 => Call::Accept(one % 2, other),
            5 => Call::Pair(one, (one + 1) % 4),
            6..=9 => Call::Write(one, size),
            10..=13 => Call::Read(one, size),
            14 => Call::Peek(one, size),
            15 => Call::Shutdown(one, [Shutdown::Read, Shutdown::Write, Shutdown::Both][draw.below(3)]),
            16 => Call::Close(one),
            17 => Call::CloseListener(one % 2),
            18 => Call::Error(one),
            19 => Call::Peer(one),
            20 => Call::Bind(one % 3),
            21 => Call::ConnectUdp(one % 3, other % 3),
            22 => Call::SendTo(one % 3, other % 3, size),
            23 => Call::Send(one % 3, size),
            24 => Call::Receive(one % 3, size),
            25 => Call::CloseUdp(one % 3),
            _ => Call::ErrorUdp(one % 3),
        });
    }
    calls
}

/// A stream of either family.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The sockets of one run. The addresses of UDP sockets are kept when they are closed.
#[derive(Default)]
struct Sockets {
    listeners: [Option<TcpListener>; 2],
    addresses: [Option<SocketAddr>; 2],
    streams: [Option<Stream>; 4],
    udp: [Option<UdpSocket>; 3],
    udp_addresses: [Option<SocketAddr>; 3],
}

/// Returns the result of a call as text that does not depend on ports.
fn shown<T: std::fmt::Debug>(result: std::io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

/// The text of a call for which there is no socket.
const NONE: &str = "-";

/// The text of a call that would have to wait.
fn would_wait() -> String {
    shown::<()>(Err(std::io::Error::from_raw_os_error(libc::EAGAIN)))
}

impl Sockets {
    /// Makes a call.
    fn call(&mut self, call: Call) -> String {
        match call {
            Call::Listen(at) => {
                let made = TcpListener::bind("127.0.0.1:0").unwrap();
                made.set_nonblocking(true).unwrap();
                self.addresses[at] = Some(made.local_addr().unwrap());
                self.listeners[at] = Some(made);
                "()".into()
            }
            Call::Connect(from, to) => {
                let Some(addr) = self.addresses[from] else { return NONE.into() };
                let made = TcpStream::connect(addr);
                let text = shown(made.as_ref().map(drop).map_err(copied));
                if let Ok(stream) = made {
                    stream.set_nonblocking(true).unwrap();
                    self.streams[to] = Some(Stream::Tcp(stream));
                }
                text
            }
            Call::Accept(from, to) => {
                let Some(listener) = &self.listeners[from] else { return NONE.into() };
                let made = listener.accept();
                let text = shown(made.as_ref().map(drop).map_err(copied));
                if let Ok((stream, _)) = made {
                    stream.set_nonblocking(true).unwrap();
                    self.streams[to] = Some(Stream::Tcp(stream));
                }
                text
            }
            Call::Pair(one, other) => {
                let (near, far) = UnixStream::pair().unwrap();
                for (at, stream) in [(one, near), (other, far)] {
                    stream.set_nonblocking(true).unwrap();
                    self.streams[at] = Some(Stream::Unix(stream));
                }
                "()".into()
            }
            Call::Close(at) => self.streams[at].take().map_or(NONE, |_| "()").into(),
            Call::CloseListener(at) => self.listeners[at].take().map_or(NONE, |_| "()").into(),
            Call::Bind(_) | Call::ConnectUdp(..) | Call::CloseUdp(_) => self.call_udp(call),
            Call::SendTo(..) | Call::Send(..) | Call::Receive(..) | Call::ErrorUdp(_) => self.call_udp(call),
            _ => self.call_stream(call),
        }
    }

    /// Makes a call on a stream.
    fn call_stream(&mut self, call: Call) -> String {
        let (Call::Write(at, _)
        | Call::Read(at, _)
        | Call::Peek(at, _)
        | Call::Shutdown(at, _)
        | Call::Error(at)
        | Call::Peer(at)) = call
        else {
            return NONE.into();
        };
        match (self.streams[at].as_mut(), call) {
            (Some(Stream::Tcp(stream)), Call::Write(_, size)) => shown(stream.write(&pattern(size))),
            (Some(Stream::Unix(stream)), Call::Write(_, size)) => shown(stream.write(&pattern(size))),
            (Some(Stream::Tcp(stream)), Call::Read(_, size)) => shown(read(stream, size)),
            (Some(Stream::Unix(stream)), Call::Read(_, size)) => shown(read(stream, size)),
            (Some(Stream::Tcp(stream)), Call::Peek(_, size)) => shown(stream.peek(&mut vec![0; size])),
            (Some(Stream::Tcp(stream)), Call::Shutdown(_, how)) => shown(stream.shutdown(how)),
            (Some(Stream::Unix(stream)), Call::Shutdown(_, how)) => shown(stream.shutdown(how)),
            (Some(Stream::Tcp(stream)), Call::Error(_)) => shown(stream.take_error().map(kind_of)),
            (Some(Stream::Unix(stream)), Call::Error(_)) => shown(stream.take_error().map(kind_of)),
            (Some(Stream::Tcp(stream)), Call::Peer(_)) => shown(stream.peer_addr().map(drop)),
            _ => NONE.into(),
        }
    }

    /// Makes a call on a socket for datagrams.
    fn call_udp(&mut self, call: Call) -> String {
        match call {
            Call::Bind(at) => {
                let made = UdpSocket::bind("127.0.0.1:0").unwrap();
                made.set_nonblocking(true).unwrap();
                self.udp_addresses[at] = Some(made.local_addr().unwrap());
                self.udp[at] = Some(made);
                "()".into()
            }
            Call::CloseUdp(at) => self.udp[at].take().map_or(NONE, |_| "()").into(),
            Call::ConnectUdp(at, to) => match (&self.udp[at], self.udp_addresses[to]) {
                (Some(socket), Some(addr)) => shown(socket.connect(addr)),
                _ => NONE.into(),
            },
            Call::SendTo(at, to, size) => match (&self.udp[at], self.udp_addresses[to]) {
                (Some(socket), Some(addr)) => shown(socket.send_to(&pattern(size), addr)),
                _ => NONE.into(),
            },
            Call::Send(at, size) => {
                self.udp[at].as_ref().map_or(NONE.into(), |socket| shown(socket.send(&pattern(size))))
            }
            Call::Receive(at, size) => {
                self.udp[at].as_ref().map_or(NONE.into(), |socket| shown(socket.recv(&mut vec![0; size])))
            }
            Call::ErrorUdp(at) => {
                self.udp[at].as_ref().map_or(NONE.into(), |socket| shown(socket.take_error().map(kind_of)))
            }
            _ => NONE.into(),
        }
    }

    /// Returns how many bytes a TCP stream has to read, up to `size`.
    fn pending(&self, at: usize, size: usize) -> usize {
        match &self.streams[at] {
            Some(Stream::Tcp(stream)) => stream.peek(&mut vec![0; size]).unwrap_or(0),
            _ => size,
        }
    }
}

/// Returns an error of the same kind and number.
fn copied(error: &std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error)
}

/// Returns the kind of a pending error.
fn kind_of(error: Option<std::io::Error>) -> Option<ErrorKind> {
    error.map(|error| error.kind())
}

/// Returns bytes to write.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// Reads up to `size` bytes, and returns how many came and their sum.
fn read(stream: &mut impl Read, size: usize) -> std::io::Result<(usize, u64)> {
    let mut buf = vec![0; size];
    let count = stream.read(&mut buf)?;
    Ok((count, buf.iter().map(|&byte| u64::from(byte)).sum()))
}

/// Makes the calls, and returns what each ended with.
fn simulated(calls: &[Call]) -> Vec<String> {
    sim::run(1, || {
        let mut sockets = Sockets::default();
        calls.iter().map(|&call| sockets.call(call)).collect()
    })
}

/// Makes the calls against the kernel, with a pause after each. Returns what differs first.
fn differs(calls: &[Call], expected: &[String], pause: Duration) -> Option<String> {
    let mut sockets = Sockets::default();
    for (at, (&call, expected)) in calls.iter().zip(expected).enumerate() {
        // A read must not come before all of what it is to read.
        if let Call::Read(from, size) | Call::Peek(from, size) = call
            && let Some(count) = expected.trim_start_matches('(').split([',', ')']).next().and_then(|n| n.parse().ok())
        {
            wait_until(|| sockets.pending(from, size) >= count);
        }
        let mut found = sockets.call(call);
        wait_until(|| {
            let waits = found != *expected && found == would_wait();
            if waits {
                found = sockets.call(call);
            }
            !waits
        });
        if found != *expected {
            let before = &calls[..=at];
            return Some(format!("{call:?}: the kernel says {found}, the simulation {expected}\n{before:?}"));
        }
        if !pause.is_zero() {
            greenling::sleep(pause);
        }
    }
    None
}

/// Calls `f` until it says that it is done, or has been called often enough.
fn wait_until(mut f: impl FnMut() -> bool) {
    for _ in 0..TRIES {
        if f() {
            return;
        }
        greenling::sleep(Duration::from_millis(1));
    }
}

#[test]
fn random_calls_end_on_loopback_as_in_a_simulation() {
    let mut differences = Vec::new();
    for seed in 0..SEQUENCES {
        let calls = draw(seed);
        let expected = simulated(&calls);
        assert_eq!(simulated(&calls), expected, "seed {seed}: a simulation repeats");
        let pause = |attempt: usize| Duration::from_millis(3 * attempt as u64);
        let mut found = None;
        for attempt in 0..ATTEMPTS {
            found = differs(&calls, &expected, pause(attempt));
            if found.is_none() {
                break;
            }
        }
        differences.extend(found.map(|found| format!("seed {seed}: {found}")));
        // Many differences have few causes.
        if differences.len() > 5 {
            break;
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
