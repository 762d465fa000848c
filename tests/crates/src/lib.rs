//! The bench on which blocking crates are tried, as they are: who does the work, where they meet, and real servers.
//!
//! ```text
//!                 clients                      server
//!   number 0   ---- ask(addr, 0) ----->   serve(stream, meeting) --+
//!   number 1   ---- ask(addr, 1) ----->   serve(stream, meeting) --+-- nobody goes on before MANY are here
//!   ..                                    ..                       |
//!   number 49  ---- ask(addr, 49) ---->   serve(stream, meeting) --+
//!
//!   either side: green threads of one OS thread, or OS threads (`Threads`)
//! ```
//!
//! Nothing here looks at a clock. If the operations of green threads did not overlap, the first one would wait at the
//! meeting for ever, and the guard would end the process.
#![allow(unsafe_code)] // `patch_all` is a promise about the whole program

#[path = "../../common/mod.rs"]
mod common;
pub mod servers;

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

pub use common::{Guard, child, output_of, stderr, stdout};

/// How many do it at once.
pub const MANY: usize = 50;

/// Between two looks at something that nobody tells of.
pub const PAUSE: Duration = Duration::from_millis(1);

/// Patches everything. Until what is returned is dropped, a test that hangs ends the process.
pub fn patched() -> Guard {
    // SAFETY: the crates that are tried hold no thread-locals and no C library's state over their calls, and the tests
    // take care of those that hold locks.
    unsafe { greenling::monkey::patch_all() }.expect("linked so that std's calls arrive");
    common::guard()
}

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Green threads of the OS thread that asks for them.
    Green,
    /// OS threads.
    Os,
}

/// One of them at work.
#[derive(Debug)]
pub enum Worker<T> {
    /// A green thread.
    Green(greenling::thread::JoinHandle<T>),
    /// An OS thread.
    Os(std::thread::JoinHandle<T>),
}

impl Threads {
    /// Starts one.
    pub fn spawn<T: Send + 'static>(self, f: impl FnOnce() -> T + Send + 'static) -> Worker<T> {
        match self {
            Threads::Green => Worker::Green(greenling::spawn(f)),
            Threads::Os => Worker::Os(std::thread::spawn(f)),
        }
    }

    /// Starts [`MANY`], each with its number, and waits for all.
    ///
    /// # Panics
    /// As [`Worker::join`].
    pub fn many<T: Send + 'static>(self, f: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
        let start = |number| {
            let f = f.clone();
            self.spawn(move || f(number))
        };
        let workers: Vec<_> = (0..MANY).map(start).collect();
        workers.into_iter().map(Worker::join).collect()
    }
}

impl<T> Worker<T> {
    /// Waits for its end; green threads run meanwhile.
    ///
    /// # Panics
    /// If it panicked.
    pub fn join(self) -> T {
        match self {
            Worker::Green(thread) => thread.join().expect("a green thread"),
            Worker::Os(thread) => {
                while !thread.is_finished() {
                    sleep(PAUSE);
                }
                thread.join().expect("an OS thread")
            }
        }
    }
}

/// Counts who is being served.
#[derive(Debug, Default)]
pub struct Meeting {
    /// How many have come. Relaxed: it is a number, and guards nothing.
    here: AtomicUsize,
}

impl Meeting {
    /// Returns when [`MANY`] are here.
    pub fn wait(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
        while self.here.load(Ordering::Relaxed) < MANY {
            sleep(PAUSE);
        }
    }

    /// How many have come.
    pub fn count(&self) -> usize {
        self.here.load(Ordering::Relaxed)
    }
}

/// Lets [`MANY`] clients talk to a server over TCP: green clients to OS threads, OS threads to a green server, green to
/// green on one OS thread, and OS threads to OS threads. Returns what the clients got, which is the same each time.
///
/// # Panics
/// If it is not, or if a meeting was missed.
pub fn on_either_side<T: PartialEq + Debug + Send + 'static>(
    serve: impl Fn(TcpStream, &Meeting) + Clone + Send + 'static,
    ask: impl Fn(SocketAddr, usize) -> T + Clone + Send + 'static,
) -> Vec<T> {
    use Threads::{Green, Os};
    let by_os_threads = talk(Os, Os, serve.clone(), ask.clone());
    for (servers, clients) in [(Os, Green), (Green, Os), (Green, Green)] {
        let answers = talk(servers, clients, serve.clone(), ask.clone());
        assert_eq!(answers, by_os_threads, "{clients:?} clients, {servers:?} servers");
    }
    by_os_threads
}

/// One of the four.
fn talk<T: Send + 'static>(
    servers: Threads,
    clients: Threads,
    serve: impl Fn(TcpStream, &Meeting) + Clone + Send + 'static,
    ask: impl Fn(SocketAddr, usize) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    let meeting = Arc::new(Meeting::default());
    let acceptor = {
        let meeting = Arc::clone(&meeting);
        servers.spawn(move || {
            let one = |_| {
                let (stream, _) = listener.accept().expect("a client");
                let (serve, meeting) = (serve.clone(), Arc::clone(&meeting));
                servers.spawn(move || serve(stream, &meeting))
            };
            let handlers: Vec<_> = (0..MANY).map(one).collect();
            handlers.into_iter().for_each(Worker::join);
        })
    };
    let answers = clients.many(move |number| ask(addr, number));
    acceptor.join();
    assert_eq!(meeting.count(), MANY);
    answers
}

/// Answers one HTTP request for `/n` with `/n` ten thousand times, after a meeting. Returns the stream, for its farewell.
///
/// # Panics
/// If the stream fails or ends.
pub fn serve_page<S: Read + Write>(stream: S, meeting: &Meeting) -> S {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("a request") > 0, "{head:?}");
    }
    meeting.wait();
    let page = head.split(' ').nth(1).expect("a path").repeat(10_000);
    let mut stream = stream.into_inner();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len())
        .expect("a client that reads");
    stream
}
