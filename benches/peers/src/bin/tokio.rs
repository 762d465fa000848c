//! tokio on one OS thread: the current-thread runtime with `tokio::spawn`, or, with `--local` as last argument, with a
//! `LocalSet` and `spawn_local`. Ping-pong is two `Notify`. A yield is `tokio::task::yield_now`.
#![forbid(unsafe_code)]

use std::env;
use std::future::Future;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use greenling_peers::{BATCH, BUFFER, Gate, Meter, Peer, pass};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

/// Whether the tasks are a `LocalSet`'s.
fn local() -> bool {
    static LOCAL: OnceLock<bool> = OnceLock::new();
    *LOCAL.get_or_init(|| env::args().next_back().is_some_and(|last| last == "--local"))
}

fn run<T: Send + 'static>(driver: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    // The driver is a task itself; elsewhere the driver is a thread.
    if local() {
        let set = LocalSet::new();
        set.block_on(&runtime, async { spawn_local(driver).await.expect("the driver") })
    } else {
        runtime.block_on(async { tokio::spawn(driver).await.expect("the driver") })
    }
}

#[inline(always)]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    if local() { spawn_local(task) } else { tokio::spawn(task) }
}

fn yields(threads: u64, rounds: u64) -> Duration {
    run(async move {
        let gate = Gate::new();
        let handles: Vec<_> =
            (0..threads).map(|_| spawn(async move { pass!(gate, rounds, yield_now().await) })).collect();
        let start = loop {
            match gate.opens(threads) {
                Some(start) => break start,
                None => yield_now().await,
            }
        };
        for handle in handles {
            handle.await.expect("a task that only yields");
        }
        gate.took(start)
    })
}

fn ping_pong(n: u64) -> Duration {
    run(async move {
        let (to_pong, to_ping) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let pong = spawn({
            let (to_pong, to_ping) = (Arc::clone(&to_pong), Arc::clone(&to_ping));
            async move {
                for _ in 0..n {
                    to_pong.notified().await;
                    to_ping.notify_one();
                }
            }
        });
        let ping = spawn(async move {
            // Ping begins, so ping takes the time.
            let start = Instant::now();
            for _ in 0..n {
                to_pong.notify_one();
                to_ping.notified().await;
            }
            start.elapsed()
        });
        pong.await.expect("pong");
        ping.await.expect("ping")
    })
}

fn channel(n: u64) -> Duration {
    run(async move {
        let (to_pong, mut at_pong) = mpsc::channel(1);
        let (to_ping, mut at_ping) = mpsc::channel(1);
        let pong = spawn(async move {
            while let Some(value) = at_pong.recv().await {
                to_ping.send(value + 1).await.expect("ping is there");
            }
        });
        let ping = spawn(async move {
            let start = Instant::now();
            let mut value = 0_u64;
            for _ in 0..n {
                to_pong.send(value).await.expect("pong is there");
                value = at_ping.recv().await.expect("pong is there");
            }
            // Each round trip adds one, so none was left out.
            assert_eq!(value, n);
            start.elapsed()
        });
        let took = ping.await.expect("ping");
        pong.await.expect("pong");
        took
    })
}

fn spawn_join(batches: u64) -> Duration {
    run(async move {
        let mut handles = Vec::with_capacity(BATCH as usize);
        let start = Instant::now();
        for _ in 0..batches {
            handles.extend((0..BATCH).map(|i| spawn(async move { i })));
            for handle in handles.drain(..) {
                std::hint::black_box(handle.await.expect("a task that returns"));
            }
        }
        start.elapsed()
    })
}

fn memory(meter: &mut Meter) {
    // Ends with the process; a drop would cancel what is parked.
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    let set = LocalSet::new();
    let park = async {
        loop {
            let chunk = meter.grant();
            if chunk == 0 {
                return;
            }
            (0..chunk).for_each(|_| drop(spawn(park_for_ever())));
            // A turn of the runtime polls some dozens of tasks, not all.
            for _ in 0..chunk {
                yield_now().await;
            }
        }
    };
    if local() {
        set.block_on(&runtime, park)
    } else {
        runtime.block_on(park)
    }
    std::mem::forget((runtime, set));
}

/// Waits for what does not come.
async fn park_for_ever() {
    Notify::new().notified().await;
}

fn echo() {
    let runtime = runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let serve = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("listening on {}", listener.local_addr().expect("an address"));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("nodelay");
            drop(spawn(serve(stream)));
        }
    };
    if local() { LocalSet::new().block_on(&runtime, serve) } else { runtime.block_on(serve) }
}

async fn serve(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length) = stream.read(&mut buffer).await
        && length > 0
        && stream.write_all(&buffer[..length]).await.is_ok()
    {}
}

fn main() -> ExitCode {
    Peer {
        yields: Some(yields),
        ping_pong: Some(ping_pong),
        channel: Some(channel),
        spawn_join: Some(spawn_join),
        memory: Some(memory),
        echo: Some(echo),
        ..Peer::default()
    }
    .main()
}
