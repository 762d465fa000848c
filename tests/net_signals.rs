//! A signal in the middle of a blocking call changes nothing.
#![allow(unsafe_code)] // to send signals to one OS thread

mod net_support;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenling::net::{TcpListener, TcpStream, ToSocketAddrs};
use greenling::{sleep, spawn};
use net_support::{bounded, with_std_peer};

/// Signals that were handled.
static CAUGHT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

/// Sends this OS thread a signal each half millisecond while `body` runs; the handler does not restart system calls.
fn under_fire(body: impl FnOnce()) {
    // SAFETY: all zeros is a valid sigaction: no flags, so no SA_RESTART, and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler touches an atomic only; both pointers are valid or null (sigaction(2)).
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
    // SAFETY: it takes nothing and cannot fail (pthread_self(3)).
    let target = unsafe { libc::pthread_self() };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let shooter = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            // SAFETY: the target joins this thread before it ends, so it is alive (pthread_kill(3)).
            unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            std::thread::sleep(Duration::from_micros(500));
        }
    });
    let before = CAUGHT.load(Ordering::Relaxed);
    body();
    stop.store(true, Ordering::Relaxed);
    shooter.join().unwrap();
    assert!(CAUGHT.load(Ordering::Relaxed) > before + 10, "hardly any signal came");
}

#[test]
fn signals_neither_end_nor_fail_a_blocking_call() {
    const WHILE: Duration = Duration::from_millis(30);
    bounded(|| {
        under_fire(|| {
            // Read.
            let (mut stream, mut peer) = with_std_peer();
            let writer = std::thread::spawn(move || {
                std::thread::sleep(WHILE);
                peer.write_all(b"x").unwrap();
                std::thread::sleep(WHILE);
            });
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "the drop of the peer ends it");
            writer.join().unwrap();

            // Read with a timeout: not early, not late for ever.
            let (mut stream, _peer) = with_std_peer();
            stream.set_read_timeout(Some(WHILE)).unwrap();
            let start = Instant::now();
            assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert!(start.elapsed() >= WHILE);

            // Accept and connect.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || {
                std::thread::sleep(WHILE);
                std::net::TcpStream::connect(addr).unwrap()
            });
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(client.join().unwrap().local_addr().unwrap(), peer);
            drop(accepted);
            for _ in 0..50 {
                let stream = TcpStream::connect(addr).unwrap();
                listener.accept().unwrap();
                drop(stream);
            }

            // Write to a slow reader.
            let (mut stream, mut peer) = with_std_peer();
            let reader = std::thread::spawn(move || {
                std::thread::sleep(WHILE);
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all.len()
            });
            stream.write_all(&vec![1; 8 << 20]).unwrap();
            drop(stream);
            assert_eq!(reader.join().unwrap(), 8 << 20);

            // Sleep, join, a lookup.
            let start = Instant::now();
            spawn(|| sleep(WHILE)).join().unwrap();
            assert!(start.elapsed() >= WHILE);
            assert!("localhost:1".to_socket_addrs().unwrap().count() > 0);
        });
    });
}
