//! smol's parts: `async-executor`'s `LocalExecutor`, `async-io`, `async-channel`, `futures-lite`. Ping-pong is two
//! channels of capacity 1. A yield is `futures_lite::future::yield_now`.
#![forbid(unsafe_code)]

use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use async_executor::LocalExecutor;
use async_io::Async;
use futures_lite::future::{self, yield_now};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use greenling_peers::{BATCH, BUFFER, Gate, Meter, Peer, pass};

/// An executor for the length of the program.
fn executor() -> &'static LocalExecutor<'static> {
    Box::leak(Box::new(LocalExecutor::new()))
}

/// Runs the driver as a task; elsewhere the driver is a thread.
fn run<T: 'static>(executor: &'static LocalExecutor<'static>, driver: impl Future<Output = T> + 'static) -> T {
    future::block_on(executor.run(executor.spawn(driver)))
}

fn yields(threads: u64, rounds: u64) -> Duration {
    let executor = executor();
    run(executor, async move {
        let gate = Gate::new();
        let tasks: Vec<_> =
            (0..threads).map(|_| executor.spawn(async move { pass!(gate, rounds, yield_now().await) })).collect();
        // The driver yields, too, until all tasks have had a first turn.
        let start = loop {
            match gate.opens(threads) {
                Some(start) => break start,
                None => yield_now().await,
            }
        };
        for task in tasks {
            task.await;
        }
        gate.took(start)
    })
}

fn ping_pong(n: u64) -> Duration {
    let executor = executor();
    run(executor, async move {
        let (to_pong, at_pong) = async_channel::bounded::<()>(1);
        let (to_ping, at_ping) = async_channel::bounded::<()>(1);
        let pong = executor.spawn(async move {
            for _ in 0..n {
                at_pong.recv().await.expect("ping is there");
                to_ping.send(()).await.expect("ping is there");
            }
        });
        let ping = executor.spawn(async move {
            // Ping begins, so ping takes the time.
            let start = Instant::now();
            for _ in 0..n {
                to_pong.send(()).await.expect("pong is there");
                at_ping.recv().await.expect("pong is there");
            }
            start.elapsed()
        });
        pong.await;
        ping.await
    })
}

fn spawn_join(batches: u64) -> Duration {
    let executor = executor();
    run(executor, async move {
        let mut tasks = Vec::with_capacity(BATCH as usize);
        let start = Instant::now();
        for _ in 0..batches {
            tasks.extend((0..BATCH).map(|i| executor.spawn(async move { i })));
            for task in tasks.drain(..) {
                std::hint::black_box(task.await);
            }
        }
        start.elapsed()
    })
}

fn memory(meter: &mut Meter) {
    let executor = executor();
    // Never sent to. Each task listens, as for an event that comes.
    let (sender, receiver) = async_channel::bounded::<()>(1);
    loop {
        let chunk = meter.grant();
        if chunk == 0 {
            break;
        }
        for _ in 0..chunk {
            let receiver = receiver.clone();
            executor.spawn(async move { receiver.recv().await }).detach();
        }
        while executor.try_tick() {}
    }
    std::mem::forget(sender);
}

fn echo() {
    let executor = executor();
    async_io::block_on(executor.run(async move {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("a free port");
        println!("listening on {}", listener.get_ref().local_addr().expect("an address"));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.get_ref().set_nodelay(true).expect("nodelay");
            executor.spawn(serve(stream)).detach();
        }
    }));
}

async fn serve(mut stream: Async<TcpStream>) {
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
        channel: Some(ping_pong),
        spawn_join: Some(spawn_join),
        memory: Some(memory),
        echo: Some(echo),
        ..Peer::default()
    }
    .main()
}
