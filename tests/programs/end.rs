//! A program with a main of its own, built and run by `tests/programs.rs`, once for each way to panic.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream};
use greenling::thread::{park, scope, spawn, yield_now};
use greenling::{Greenlet, TimeoutError, hub, sleep, timeout};

/// Says so when it is dropped.
struct Mark;

impl Drop for Mark {
    fn drop(&mut self) {
        println!("unwound");
    }
}

/// Three threads in different waits, and one that has not started.
fn suspend() {
    drop(spawn(|| {
        let _mark = Mark;
        park();
    }));
    drop(spawn(|| {
        let _mark = Mark;
        sleep(Duration::from_secs(3600));
    }));
    drop(spawn(|| {
        let _mark = Mark;
        scope(|s| drop(s.spawn(park)));
    }));
    yield_now();
    yield_now();
    let mark = Mark;
    drop(spawn(move || drop(mark)));
}

/// What must work without unwinding.
fn without_unwinding() {
    assert_eq!(spawn(|| 6 * 7).join().unwrap(), 42);
    sleep(Duration::from_millis(1));
    assert_eq!(timeout(Duration::from_secs(1), || unreachable!("it is not run")), Err::<(), _>(TimeoutError::CannotUnwind));
    let thread = spawn(|| {
        park();
        1
    });
    yield_now();
    assert!(!thread.kill(), "nothing can unwind it");
    thread.thread().unpark();
    assert_eq!(thread.join().unwrap(), 1);
    let unstarted = spawn(|| 2);
    assert!(!unstarted.kill());
    assert_eq!(unstarted.join().unwrap(), 2);
    let borrowed = [1, 2, 3];
    assert_eq!(scope(|s| s.spawn(|| borrowed.iter().sum::<i32>()).join().unwrap()), 6);
    let greenlet = Greenlet::new(|n: u32| {
        let main = Greenlet::<u32>::current().parent().unwrap();
        main.switch(n + 1)
    });
    assert_eq!(greenlet.switch(1), 2);
    assert_eq!(greenlet.switch(5), 5);
    assert_eq!(echo("hello"), "hello");
    let os = std::thread::spawn(|| {
        drop(spawn(park));
        yield_now();
        assert_eq!(hub::shutdown(), 1, "it stays");
    });
    os.join().unwrap();
    println!("all well");
}

/// Sends a line to an echo thread and back.
fn echo(line: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        std::io::copy(&mut &stream, &mut &stream).unwrap()
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(server.join().unwrap(), line.len() as u64);
    back
}

/// Drops the last handle of a suspended greenlet, which cannot be unwound.
fn drop_greenlet() {
    let kept = Rc::new(());
    let inner = Rc::clone(&kept);
    let greenlet = Greenlet::new(move |n: u32| {
        let main = Greenlet::<u32>::current().parent().unwrap();
        let _inner = inner;
        main.switch(n)
    });
    assert_eq!(greenlet.switch(1), 1);
    drop(greenlet);
    assert_eq!(Rc::strong_count(&kept), 2);
    println!("all well");
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("returns") => suspend(),
        Some("panics") => {
            suspend();
            panic!("main panics");
        }
        Some("exits") => {
            suspend();
            std::process::exit(3);
        }
        Some("without-unwinding") => {
            without_unwinding();
            suspend();
        }
        Some("drop-greenlet") => drop_greenlet(),
        other => panic!("what is {other:?}?"),
    }
}
