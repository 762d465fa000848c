//! The hot paths. Each is a function that goes along its path as often as it is told, after what it needs was set up.
//!
//! A path is run twice, with different numbers of rounds, and the difference is what the rounds took: start, set-up and
//! end are in both.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream, UdpSocket};
use greenling::sync::{Mutex, Semaphore};
use greenling::{Greenlet, channel, select, spawn, thread, timeout, yield_now};

/// A hot path.
pub struct Path {
    /// Its name in the file.
    pub name: &'static str,
    /// How many rounds the shorter run has; the longer one has twice as many.
    pub rounds: u64,
    /// How many units a round has: a figure is one unit's.
    pub units: u64,
    /// Whether it makes system calls: see `slow_clock`.
    pub calls: bool,
    /// Goes along it.
    pub run: fn(u64),
}

/// All of them, in the order of the file.
pub const PATHS: [Path; 18] = [
    Path { name: "switch", rounds: 20_000, units: 2, calls: false, run: switch },
    Path { name: "yield-2", rounds: 20_000, units: 2, calls: false, run: |rounds| yields(2, rounds) },
    Path { name: "yield-1000", rounds: 20, units: 1000, calls: false, run: |rounds| yields(1000, rounds) },
    Path { name: "yield-20000", rounds: 3, units: 20_000, calls: false, run: |rounds| yields(20_000, rounds) },
    Path { name: "park-unpark", rounds: 10_000, units: 1, calls: false, run: park_unpark },
    Path { name: "channel", rounds: 10_000, units: 1, calls: false, run: channels },
    Path { name: "channel-full", rounds: 10_000, units: 1, calls: false, run: bounded_channel },
    Path { name: "select-2", rounds: 10_000, units: 1, calls: false, run: selects },
    Path { name: "lock-free", rounds: 20_000, units: 1, calls: false, run: free_lock },
    Path { name: "lock-contended", rounds: 10_000, units: 1, calls: false, run: contended_lock },
    Path { name: "permit", rounds: 20_000, units: 1, calls: false, run: permits },
    Path { name: "timeout-unused", rounds: 10_000, units: 1, calls: false, run: unused_timeout },
    Path { name: "spawn-join", rounds: 5_000, units: 1, calls: false, run: spawn_join },
    Path { name: "parked-thread", rounds: 5_000, units: 1, calls: false, run: parked },
    Path { name: "scope-spawn", rounds: 5_000, units: 1, calls: false, run: scope_spawn },
    Path { name: "tcp-echo", rounds: 2_000, units: 1, calls: true, run: tcp_echo },
    Path { name: "tcp-connection", rounds: 300, units: 1, calls: true, run: tcp_connections },
    Path { name: "udp-echo", rounds: 2_000, units: 1, calls: true, run: udp_echo },
];

/// Takes a value that the compiler is to make.
fn take(value: u64) {
    black_box(value);
}

/// Main and a greenlet that hand a number to each other. A unit: a switch.
fn switch(rounds: u64) {
    let main = Greenlet::<u64>::main();
    let echo = Greenlet::new(move |mut n: u64| {
        loop {
            n = main.switch(n + 1);
        }
    });
    for n in 0..rounds {
        black_box(echo.switch(n));
    }
}

/// As many threads as `threads` says, which do nothing else. A unit: a yield.
fn yields(threads: u64, rounds: u64) {
    let all: Vec<_> = (0..threads).map(|_| spawn(move || (0..rounds).for_each(|_| yield_now()))).collect();
    all.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Two threads that wake each other. A round: both did.
fn park_unpark(rounds: u64) {
    let main = thread::current();
    let other = spawn(move || {
        for _ in 0..rounds {
            thread::park();
            main.unpark();
        }
    });
    for _ in 0..rounds {
        other.thread().unpark();
        thread::park();
    }
    other.join().unwrap();
}

/// Two threads that pass a number to and fro. A round: both sent.
fn channels(rounds: u64) {
    let (ping, pinged) = channel::bounded(1);
    let (pong, ponged) = channel::bounded(1);
    let echo = spawn(move || {
        while let Ok(n) = pinged.recv() {
            pong.send(n).unwrap();
        }
    });
    for n in 0..rounds {
        ping.send(n).unwrap();
        black_box(ponged.recv().unwrap());
    }
    drop(ping);
    echo.join().unwrap();
}

/// A channel with room for 64 values, which is full or empty most of the time. A round: a value is through.
fn bounded_channel(rounds: u64) {
    let (send, receive) = channel::bounded(64);
    let sender = spawn(move || (0..rounds).for_each(|n| send.send(n).unwrap()));
    receive.iter().for_each(take);
    sender.join().unwrap();
}

/// A thread that waits for either of two channels, and two that send. A round: a value was taken.
fn selects(rounds: u64) {
    let senders: [_; 2] = std::array::from_fn(|_| {
        let (send, receive) = channel::bounded(1);
        (spawn(move || (0..rounds / 2).for_each(|n| send.send(n).unwrap())), receive)
    });
    let [(one, first), (two, second)] = senders;
    let mut closed = 0;
    while closed == 0 {
        let value = select! {
            recv(first) -> value => value,
            recv(second) -> value => value,
        };
        // One side is closed when both have sent almost all.
        closed += u64::from(value.is_err());
    }
    first.iter().chain(second.iter()).for_each(take);
    one.join().unwrap();
    two.join().unwrap();
}

/// A lock that is free. A round: it is taken and given back.
fn free_lock(rounds: u64) {
    let lock = Mutex::new(0);
    (0..rounds).for_each(|_| *black_box(&lock).lock().unwrap() += 1);
}

/// A lock that two threads want. A round: each had it, and let the other run meanwhile.
fn contended_lock(rounds: u64) {
    let lock = Rc::new(Mutex::new(0));
    let work = move |lock: Rc<Mutex<u64>>| {
        for _ in 0..rounds {
            let mut held = lock.lock().unwrap();
            yield_now();
            *held += 1;
        }
    };
    let threads = [(); 2].map(|()| {
        let lock = lock.clone();
        spawn(move || work(lock))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A permit that is free. A round: it is taken and given back.
fn permits(rounds: u64) {
    let semaphore = Semaphore::new(1);
    (0..rounds).for_each(|_| drop(black_box(black_box(&semaphore).acquire())));
}

/// A time limit around what does not wait. A round: it is set and taken back.
fn unused_timeout(rounds: u64) {
    for n in 0..rounds {
        black_box(timeout(Duration::from_secs(60), || black_box(n)).unwrap());
    }
}

/// A round: a thread was started and has ended.
fn spawn_join(rounds: u64) {
    (0..rounds).for_each(|n| take(spawn(move || n).join().unwrap()));
}

/// As many threads as rounds, all parked at once, and then woken. A round: one of them.
fn parked(rounds: u64) {
    let all: Vec<_> = (0..rounds).map(|_| spawn(thread::park)).collect();
    yield_now();
    all.iter().for_each(|thread| thread.thread().unpark());
    all.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A round: a scope with one thread.
fn scope_spawn(rounds: u64) {
    for n in 0..rounds {
        let n = black_box(n);
        black_box(thread::scope(|scope| scope.spawn(|| n + 1).join().unwrap()));
    }
}

/// A client and a server of this hub. A round: 64 bytes went there and back.
fn tcp_echo(rounds: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 64];
        while let Ok(()) = stream.read_exact(&mut buffer) {
            stream.write_all(&buffer).unwrap();
        }
    });
    let mut stream = TcpStream::connect(address).unwrap();
    let mut buffer = [7; 64];
    for _ in 0..rounds {
        stream.write_all(&buffer).unwrap();
        stream.read_exact(&mut buffer).unwrap();
    }
    drop(stream);
    server.join().unwrap();
}

/// A round: a connection was made, accepted and closed from both sides.
fn tcp_connections(rounds: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        for _ in 0..rounds {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    });
    for _ in 0..rounds {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    server.join().unwrap();
}

/// A round: a datagram went there and back.
fn udp_echo(rounds: u64) {
    let [here, there] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    here.connect(there.local_addr().unwrap()).unwrap();
    there.connect(here.local_addr().unwrap()).unwrap();
    let echo = spawn(move || {
        let mut buffer = [0; 64];
        for _ in 0..rounds {
            let len = there.recv(&mut buffer).unwrap();
            there.send(&buffer[..len]).unwrap();
        }
    });
    let mut buffer = [7; 64];
    for _ in 0..rounds {
        here.send(&buffer).unwrap();
        here.recv(&mut buffer).unwrap();
    }
    echo.join().unwrap();
}
