//! The threads of the operating system, by std. Ping-pong is `park` and `unpark`; a yield is `sched_yield`.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use greenling_peers::{BATCH, BUFFER, Gate, Meter, Peer, pass};

/// More would use up the machine's process ids.
const MOST: u64 = 10_000;

const WHY: &str = "limit of this benchmark: 10 000 OS threads, to leave process ids for others";

fn yields(threads: u64, rounds: u64) -> Duration {
    let gate = Gate::new();
    let handles: Vec<_> =
        (0..threads).map(|_| thread::spawn(move || pass!(gate, rounds, thread::yield_now()))).collect();
    let start = loop {
        match gate.opens(threads) {
            Some(start) => break start,
            None => thread::yield_now(),
        }
    };
    handles.into_iter().for_each(|handle| handle.join().expect("a thread that only yields"));
    gate.took(start)
}

fn ping_pong(n: u64) -> Duration {
    let ping = thread::current();
    let pong = thread::spawn(move || {
        for _ in 0..n {
            thread::park();
            ping.unpark();
        }
    });
    let start = Instant::now();
    for _ in 0..n {
        pong.thread().unpark();
        thread::park();
    }
    let took = start.elapsed();
    pong.join().expect("pong");
    took
}

fn spawn_join(batches: u64) -> Duration {
    let mut handles = Vec::with_capacity(BATCH as usize);
    let start = Instant::now();
    for _ in 0..batches {
        handles.extend((0..BATCH).map(|i| thread::spawn(move || i)));
        for handle in handles.drain(..) {
            std::hint::black_box(handle.join().expect("a thread that returns"));
        }
    }
    start.elapsed()
}

fn memory(meter: &mut Meter) {
    let chunk = meter.grant().min(MOST);
    let mut made = 0;
    let why = loop {
        if made == chunk {
            break WHY.to_owned();
        }
        match thread::Builder::new().spawn(thread::park) {
            Ok(_) => made += 1,
            Err(error) => break error.to_string(),
        }
    };
    // All of them have run and sleep again.
    thread::sleep(Duration::from_millis(500));
    meter.fail(chunk - made, why);
}

fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("listening on {}", listener.local_addr().expect("an address"));
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        thread::spawn(move || serve(stream));
    }
}

fn serve(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length) = stream.read(&mut buffer)
        && length > 0
        && stream.write_all(&buffer[..length]).is_ok()
    {}
}

fn main() -> ExitCode {
    Peer {
        yields: Some(yields),
        most_threads: Some((MOST, WHY)),
        ping_pong: Some(ping_pong),
        spawn_join: Some(spawn_join),
        memory: Some(memory),
        echo: Some(echo),
        ..Peer::default()
    }
    .main()
}
