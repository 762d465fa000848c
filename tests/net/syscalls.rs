//! How often the kernel is entered: two calls and a wait for a request, none while nothing happens.

use std::env;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::net_support::bounded;
use crate::traced::{note_thread, thread_number, traced};
use greenling::net::TcpListener;
use greenling::spawn;

/// Set in a child: the file into which it writes the number of its hub's OS thread.
const ROLE: &str = "GREENLING_SYSCALLS_CHILD";

/// Requests that the child serves.
const REQUESTS: usize = 500;

/// Serves one connection on this OS thread's hub, another OS thread is the client.
fn serve(with_buffer: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        let mut buf = [0; 64];
        for _ in 0..REQUESTS {
            stream.write_all(b"request").unwrap();
            assert_eq!(stream.read(&mut buf).unwrap(), 7);
        }
    });
    let server = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if with_buffer {
            let mut buf = [0; 1024];
            while let Ok(n @ 1..) = stream.read(&mut buf) {
                stream.write_all(&buf[..n]).unwrap();
            }
        } else {
            let echo = |bytes: &[u8]| (&stream).write_all(bytes).map(|()| bytes.len());
            while let Ok(Ok(1..)) = stream.read_with(echo) {}
        }
    });
    server.join().unwrap();
    client.join().unwrap();
}

#[test]
fn a_request_takes_two_system_calls_and_a_wait() {
    const TEST: &str = "syscalls::a_request_takes_two_system_calls_and_a_wait";
    if let Some(file) = env::var_os(ROLE) {
        bounded(|| {
            note_thread(&file);
            serve(true);
            serve(false);
        });
        std::process::exit(0);
    }
    // A slice that lasts longer than the hub's quantum, on a busy machine and under a tracer, ends with one more look at the
    // descriptors: such a run is not the one that is counted.
    let mut waits = 0;
    for _ in 0..10 {
        let Some(trace) = traced(TEST, ROLE) else { return };
        let count = |names: &[&str]| trace.count(names);
        let (reads, writes) = (count(&["recvfrom"]), count(&["sendto"]));
        waits = count(&["epoll_wait", "epoll_pwait", "epoll_pwait2"]);
        println!("{} requests: {reads} reads, {writes} writes, {waits} waits", 2 * REQUESTS);
        assert_eq!(writes, 2 * REQUESTS);
        // For each of the two connections: one read to find out that it must wait, one for the end.
        assert!((2 * REQUESTS..=2 * REQUESTS + 4).contains(&reads), "{reads} reads");
        // The listener is accepted from twice, each at most once in vain; streams and listeners register once.
        assert!(count(&["epoll_ctl"]) <= 6 && count(&["accept4"]) <= 4);
        if waits <= 2 * REQUESTS + 20 {
            return;
        }
    }
    panic!("{waits} waits for {} requests, ten times", 2 * REQUESTS);
}

/// Times the OS thread `number` gave the CPU away because it waited.
fn waits_of(number: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{number}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn an_idle_hub_sleeps_in_one_system_call() {
    bounded(|| {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let hub = std::thread::spawn(move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
            let readers: Vec<_> = (0..10)
                .map(|_| {
                    let mut stream = listener.accept().unwrap().0;
                    spawn(move || stream.read(&mut [0; 8]).unwrap())
                })
                .collect();
            let acceptor = spawn(move || listener.accept().map(drop).unwrap());
            tell.send((thread_number(), clients, addr)).unwrap();
            for reader in readers {
                assert_eq!(reader.join().unwrap(), 0);
            }
            acceptor.join().unwrap();
            stopped.recv().unwrap();
        });
        let (number, clients, addr) = told.recv().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let before = waits_of(&number);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(waits_of(&number), before, "an idle hub woke up");
        drop((clients, std::net::TcpStream::connect(addr).unwrap()));
        stop.send(()).unwrap();
        hub.join().unwrap();
    });
}
