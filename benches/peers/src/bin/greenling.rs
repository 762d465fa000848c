//! greenling itself, by the rows of the peers. Ping-pong is `park` and `unpark`. There are two echo servers: the
//! example `echo_server`, which is lent a buffer, and this one, which owns 16 KiB for each connection as the peers
//! do.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::net::{TcpListener, TcpStream};
use greenling::{Greenlet, channel, spawn, thread, yield_now};
use greenling_peers::{BATCH, BUFFER, Gate, Meter, Peer, pass};

fn switch(n: u64) -> Duration {
    let took = Rc::new(Cell::new(Duration::ZERO));
    let echo = Greenlet::new(|mut n: u64| {
        let partner = Greenlet::<u64>::current().parent().expect("made by its partner");
        loop {
            n = partner.switch(n + 1);
        }
    });
    let driver = Greenlet::new({
        let took = Rc::clone(&took);
        move |first: u64| {
            // So that the partner's switches come here.
            echo.set_parent(&Greenlet::current()).expect("no cycle");
            let mut value = first;
            let start = Instant::now();
            for _ in 0..n {
                value = echo.switch(value);
            }
            took.set(start.elapsed());
            assert_eq!(value, first + n);
            value
        }
    });
    driver.switch(7);
    took.get()
}

fn yields(threads: u64, rounds: u64) -> Duration {
    let gate = Gate::new();
    let handles: Vec<_> = (0..threads).map(|_| spawn(move || pass!(gate, rounds, yield_now()))).collect();
    let start = loop {
        match gate.opens(threads) {
            Some(start) => break start,
            None => yield_now(),
        }
    };
    handles.into_iter().for_each(|handle| handle.join().expect("a thread that only yields"));
    gate.took(start)
}

fn ping_pong(n: u64) -> Duration {
    let ping_thread = Rc::new(OnceCell::new());
    let pong = spawn({
        let ping_thread: Rc<OnceCell<thread::Thread>> = Rc::clone(&ping_thread);
        move || {
            for _ in 0..n {
                thread::park();
                ping_thread.get().expect("ping began").unpark();
            }
        }
    });
    let pong_thread = pong.thread().clone();
    let ping = spawn(move || {
        ping_thread.get_or_init(thread::current);
        // Ping begins, so ping takes the time.
        let start = Instant::now();
        for _ in 0..n {
            pong_thread.unpark();
            thread::park();
        }
        start.elapsed()
    });
    pong.join().expect("pong");
    ping.join().expect("ping")
}

fn channel_ping_pong(n: u64) -> Duration {
    let (to_pong, at_pong) = channel::bounded(1);
    let (to_ping, at_ping) = channel::bounded(1);
    let pong = spawn(move || {
        while let Ok(value) = at_pong.recv() {
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
}

fn spawn_join(batches: u64) -> Duration {
    let mut handles = Vec::with_capacity(BATCH as usize);
    let start = Instant::now();
    for _ in 0..batches {
        handles.extend((0..BATCH).map(|i| spawn(move || i)));
        for handle in handles.drain(..) {
            std::hint::black_box(handle.join().expect("a thread that returns"));
        }
    }
    start.elapsed()
}

fn memory(meter: &mut Meter) {
    loop {
        let chunk = meter.grant();
        if chunk == 0 {
            return;
        }
        (0..chunk).for_each(|_| drop(spawn(thread::park)));
        yield_now();
    }
}

fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("listening on {}", listener.local_addr().expect("an address"));
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        drop(spawn(move || serve(stream)));
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
        switch: Some(switch),
        yields: Some(yields),
        ping_pong: Some(ping_pong),
        channel: Some(channel_ping_pong),
        spawn_join: Some(spawn_join),
        memory: Some(memory),
        echo: Some(echo),
        ..Peer::default()
    }
    .main()
}
