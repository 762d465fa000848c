//! may with one worker thread. Ping-pong is `park` and `unpark`. Stacks are of may's default size.
//!
//! A spawn is `unsafe` in may, since a coroutine may move to another OS thread and run out of the stack. With one
//! worker no coroutine moves, and nothing here uses much stack.
// The one reason is may's spawn.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use greenling_peers::{BATCH, BUFFER, Gate, Meter, Peer, pass};
use may::coroutine::{self, Builder, Coroutine, JoinHandle, yield_now};
use may::net::{TcpListener, TcpStream};
use may::sync::mpsc;

/// What is in the way of more than about 32 000 coroutines.
const NO_STACK: &str = "no stack for more: each is two memory mappings, of which vm.max_map_count allows 65530";

fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    // SAFETY: there is one worker, so no thread-local changes under the coroutine; the frames fit into the stack.
    unsafe { coroutine::spawn(f) }
}

/// Runs the driver as a coroutine, so that no other OS thread takes part in what is measured.
fn run<T: Send + 'static>(driver: impl FnOnce() -> T + Send + 'static) -> T {
    spawn(driver).join().expect("the driver")
}

/// A fresh coroutine runs only when no other can, so the threads park on their first turn, and yield from the second
/// on.
fn yields(threads: u64, rounds: u64) -> Duration {
    run(move || {
        let gate = Gate::new();
        let (driver, born) = (coroutine::current(), Arc::new(AtomicU64::new(0)));
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                let (driver, born) = (driver.clone(), Arc::clone(&born));
                spawn(move || {
                    if born.fetch_add(1, Relaxed) + 1 == threads {
                        // The last one to have a first turn tells the driver.
                        driver.unpark();
                    }
                    coroutine::park();
                    pass!(gate, rounds, yield_now());
                })
            })
            .collect();
        coroutine::park();
        // All have begun: let them yield.
        handles.iter().for_each(|handle| handle.coroutine().unpark());
        let start = loop {
            match gate.opens(threads) {
                Some(start) => break start,
                None => yield_now(),
            }
        };
        handles.into_iter().for_each(|handle| handle.join().expect("a coroutine that only yields"));
        gate.took(start)
    })
}

fn ping_pong(n: u64) -> Duration {
    run(move || {
        let ping_coroutine = Arc::new(OnceLock::<Coroutine>::new());
        let pong = spawn({
            let ping_coroutine = Arc::clone(&ping_coroutine);
            move || {
                for _ in 0..n {
                    coroutine::park();
                    ping_coroutine.get().expect("ping began").unpark();
                }
            }
        });
        let pong_coroutine = pong.coroutine().clone();
        let ping = spawn(move || {
            ping_coroutine.get_or_init(coroutine::current);
            // Ping begins, so ping takes the time.
            let start = Instant::now();
            for _ in 0..n {
                pong_coroutine.unpark();
                coroutine::park();
            }
            start.elapsed()
        });
        pong.join().expect("pong");
        ping.join().expect("ping")
    })
}

fn channel(n: u64) -> Duration {
    run(move || {
        let (to_pong, at_pong) = mpsc::channel();
        let (to_ping, at_ping) = mpsc::channel();
        let pong = spawn(move || {
            for value in at_pong.iter() {
                to_ping.send(value + 1).expect("ping is there");
            }
        });
        let ping = spawn(move || {
            let start = Instant::now();
            let mut value = 0_u64;
            for _ in 0..n {
                to_pong.send(value).expect("pong is there");
                value = at_ping.recv().expect("pong is there");
            }
            // Each round trip adds one, so none was left out.
            assert_eq!(value, n);
            start.elapsed()
        });
        let took = ping.join().expect("ping");
        pong.join().expect("pong");
        took
    })
}

fn spawn_join(batches: u64) -> Duration {
    run(move || {
        let mut handles = Vec::with_capacity(BATCH as usize);
        let start = Instant::now();
        for _ in 0..batches {
            handles.extend((0..BATCH).map(|i| spawn(move || i)));
            for handle in handles.drain(..) {
                std::hint::black_box(handle.join().expect("a coroutine that returns"));
            }
        }
        start.elapsed()
    })
}

fn memory(meter: &mut Meter) {
    static PARKED: AtomicU64 = AtomicU64::new(0);
    let mut all = 0;
    loop {
        let chunk = meter.grant();
        let mut made = 0;
        while made < chunk {
            let park = || {
                PARKED.fetch_add(1, Relaxed);
                coroutine::park();
            };
            // This panics when there is no memory for a stack.
            // SAFETY: as in `spawn`.
            match std::panic::catch_unwind(|| unsafe { Builder::new().spawn(park) }) {
                Ok(Ok(_)) => made += 1,
                _ => break,
            }
        }
        all += made;
        while PARKED.load(Relaxed) < all {
            std::thread::sleep(Duration::from_millis(1));
        }
        if made < chunk {
            return meter.fail(chunk - made, NO_STACK);
        }
        if chunk == 0 {
            return;
        }
    }
}

fn echo() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        println!("listening on {}", listener.local_addr().expect("an address"));
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            stream.set_nodelay(true).expect("nodelay");
            spawn(move || serve(stream));
        }
    });
}

fn serve(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length) = stream.read(&mut buffer)
        && length > 0
        && stream.write_all(&buffer[..length]).is_ok()
    {}
}

fn main() -> ExitCode {
    may::config().set_workers(1);
    Peer {
        yields: Some(yields),
        most_threads: Some((30_000, NO_STACK)),
        ping_pong: Some(ping_pong),
        channel: Some(channel),
        spawn_join: Some(spawn_join),
        memory: Some(memory),
        echo: Some(echo),
        ..Peer::default()
    }
    .main()
}
