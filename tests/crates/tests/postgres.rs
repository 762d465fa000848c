//! The `postgres` crate, against a real PostgreSQL: what does not work in green threads, how that shows, and what does.
//!
//! The crate is blocking outside and asynchronous inside: each client has a runtime of tokio's, and each of its calls
//! runs that runtime on the OS thread of the caller. tokio notes in a thread-local that a runtime is running, and
//! refuses to start another one. So one green thread of an OS thread may be in such a call at a time. The client's drop
//! is such a call.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, mpsc};
use std::thread::sleep;

use greenling::offload::ThreadPool;
use greenling::{blocking, spawn};
use greenling_crates::servers::Server;
use greenling_crates::{MANY, PAUSE, Threads, child, patched, stderr};
use postgres::{Client, NoTls};

fn connect(addr: SocketAddr) -> Client {
    let config = format!("host={} port={} user=tester dbname=postgres", addr.ip(), addr.port());
    Client::connect(&config, NoTls).unwrap()
}

/// Asks for what comes back late: all wait for a lock, which is taken before. Then it is many of the number.
fn ask(addr: SocketAddr, number: usize) -> String {
    let mut client = connect(addr);
    client.execute("SELECT pg_advisory_lock_shared(1)", &[]).unwrap();
    let row = client.query_one("SELECT repeat($1::text || ';', 10000)", &[&number.to_string()]).unwrap();
    row.get(0)
}

/// Takes the lock, and gives it back when the server says that `many` wait for it. Returns what ends when that has
/// happened.
fn open_for(addr: SocketAddr, many: i64) -> std::thread::JoinHandle<()> {
    let (locked, is_locked) = mpsc::channel();
    let opener = std::thread::spawn(move || {
        let mut client = connect(addr);
        client.execute("SELECT pg_advisory_lock(1)", &[]).unwrap();
        locked.send(()).unwrap();
        let waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        while client.query_one(waiting, &[]).unwrap().get::<_, i64>(0) < many {
            sleep(PAUSE);
        }
        client.execute("SELECT pg_advisory_unlock(1)", &[]).unwrap();
    });
    is_locked.recv().unwrap();
    opener
}

#[test]
fn postgres_sessions_overlap_on_os_threads_that_green_threads_wait_for() {
    let _guard = patched();
    let Some(server) = ready() else { return };
    let addr = server.addr;
    let opener = open_for(addr, MANY as i64);
    let pool = Arc::new(ThreadPool::builder().max_threads(MANY).build());
    let values = Threads::Green.many(move |number| pool.run(move || ask(addr, number)));
    opener.join().unwrap();
    let opener = open_for(addr, MANY as i64);
    assert_eq!(values, Threads::Os.many(move |number| ask(addr, number)));
    opener.join().unwrap();
    assert_eq!(values[7], "7;".repeat(10_000));
}

#[test]
fn postgres_refuses_a_second_client_and_does_the_first_no_harm() {
    let _guard = patched();
    let Some(server) = ready() else { return };
    let addr = server.addr;
    let opener = open_for(addr, 1);
    let first = spawn(move || ask(addr, 1));
    greenling::yield_now(); // it has begun to connect, and waits
    let second = spawn(move || drop(connect(addr)));
    let refusal = second.join().unwrap_err().to_string();
    assert!(refusal.contains("Cannot start a runtime from within a runtime"), "{refusal}");
    assert_eq!(first.join().unwrap(), "1;".repeat(10_000));
    opener.join().unwrap();
    // One after the other is no matter.
    let opener = open_for(addr, 1);
    assert_eq!(spawn(move || ask(addr, 2)).join().unwrap(), "2;".repeat(10_000));
    opener.join().unwrap();
}

/// The refusal unwinds, drops the client, and that is refused as well: a panic in a destructor while unwinding.
#[test]
fn postgres_ends_the_process_when_two_connected_clients_wait() {
    let out = child("postgres_ends_the_process_when_two_connected_clients_wait", || {
        let _guard = patched();
        let addr = mute_server();
        let (mut first, mut second) = (connect(addr), connect(addr));
        let first = spawn(move || first.batch_execute("SELECT 1"));
        let second = spawn(move || second.batch_execute("SELECT 2"));
        let _ = (second.join(), first.join());
    });
    let said = stderr(&out);
    assert_eq!(out.status.signal(), Some(6), "{said}");
    assert!(said.contains("Cannot start a runtime from within a runtime"), "{said}");
    assert!(said.contains("panic in a destructor during cleanup"), "{said}");
}

/// A server that has started.
fn ready() -> Option<Server> {
    let server = Server::postgres()?;
    let config = format!("host={} port={} user=tester dbname=postgres", server.addr.ip(), server.addr.port());
    let connects = move || {
        while Client::connect(&config, NoTls).is_err() {
            sleep(PAUSE)
        }
    };
    blocking(connects);
    Some(server)
}

/// Something that lets clients in as PostgreSQL does, and never answers them again.
fn mute_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut clients = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4]).unwrap();
            // You are who you say; I am ready.
            stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
            clients.push(stream);
        }
    });
    addr
}
