//! A program with a main of its own, built and run by `tests/programs.rs`, once for each way to panic.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream};
use greenling::thread::{park, scope, spawn, yield_now};
use greenling::{Greenlet, TimeoutError, hub, sleep, timeout};

/// Says so when it is dropped.
struct Mark(&'static str);

impl Drop for Mark {
    fn drop(&mut self) {
        println!("dropped{}", self.0);
    }
}

/// Three threads in different waits, and one that has not started.
fn suspend() {
    drop(spawn(|| {
        let _mark = Mark("");
        park();
    }));
    drop(spawn(|| {
        let _mark = Mark("");
        sleep(Duration::from_secs(3600));
    }));
    drop(spawn(|| {
        let _mark = Mark("");
        scope(|s| drop(s.spawn(park)));
    }));
    yield_now();
    yield_now();
    let mark = Mark(" unstarted");
    drop(spawn(move || drop(mark)));
}

thread_local! {
    static NAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Says what it sees when it is dropped.
struct Show<'a>(&'a [u8]);

impl Drop for Show<'_> {
    fn drop(&mut self) {
        println!("a destructor reads: {:?}", String::from_utf8_lossy(self.0));
    }
}

/// Threads that are suspended with references into a thread-local that is younger than the runtime's own: on a stack, in a
/// closure that has not run, in a result that nobody takes, and in the frames of a greenlet.
fn borrow() {
    spawn(|| ()).join().unwrap();
    drop(spawn(|| {
        NAME.with(|name| {
            *name.borrow_mut() = vec![b'x'; 64];
            let name = name.borrow();
            let _show = Show(&name);
            park();
        })
    }));
    drop(spawn(|| {
        NAME.with(|name| {
            let name = name.borrow();
            scope(|s| {
                let show = Show(&name);
                std::mem::forget(s.spawn(move || show));
                yield_now();
                yield_now();
                let show = Show(&name);
                drop(s.spawn(move || drop(show)));
                park();
            })
        })
    }));
    let greenlet = Greenlet::new(|_| {
        NAME.with(|name| {
            let name = name.borrow();
            let _show = Show(&name);
            Greenlet::switch_to_parent(())
        })
    });
    (0..3).for_each(|_| yield_now());
    greenlet.switch(());
    std::mem::forget(greenlet);
}

/// A buffered writer into a thread-local, which its drop would flush.
fn write() {
    spawn(|| ()).join().unwrap();
    drop(spawn(|| {
        LINES.with_borrow_mut(|lines| {
            let mut writer = std::io::BufWriter::new(lines);
            writer.write_all(&[b'y'; 60]).unwrap();
            park();
            writer.flush().unwrap();
        })
    }));
    yield_now();
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

thread_local! {
    /// Ends after the hub, if it is made before it.
    static LAST: Pause = const { Pause };
}

/// Takes a while to drop.
struct Pause;

impl Drop for Pause {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Leaves a lock in the hands of a thread that cannot be unwound, and an OS thread that waits for it.
fn leave_a_holder() {
    static LOCK: hub::sync::Mutex<()> = hub::sync::Mutex::new(());
    LAST.with(|_| ());
    drop(spawn(|| {
        let _held = LOCK.lock();
        while std::panic::catch_unwind(park).is_err() {}
    }));
    yield_now();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        send.send(()).unwrap();
        drop(LOCK.lock());
    });
    receive.recv().unwrap();
    std::thread::sleep(Duration::from_millis(20));
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("returns") => suspend(),
        Some("shuts-down") => {
            suspend();
            assert_eq!(hub::shutdown(), 0);
        }
        Some("borrows") => {
            borrow();
            println!("main is over");
        }
        Some("borrows-in-thread") => {
            std::thread::spawn(borrow).join().unwrap();
            println!("main is over");
        }
        Some("writes") => write(),
        Some("panics") => {
            suspend();
            panic!("main panics");
        }
        Some("leaves-a-holder") => leave_a_holder(),
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
