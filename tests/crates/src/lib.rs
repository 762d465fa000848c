//! The bench on which blocking crates are tried, as they are: the threads that do the work, where they meet, and real
//! servers.
//!
//! ```text
//!                 clients                      server
//!   number 0   ---- ask(addr, 0) ----->   serve(stream, meeting) --+
//!   number 1   ---- ask(addr, 1) ----->   serve(stream, meeting) --+-- none goes on before MANY are here
//!   ..                                    ..                       |
//!   number 99  ---- ask(addr, 99) ---->   serve(stream, meeting) --+
//!
//!   either side: green threads of one OS thread, with thread-locals of their own or without, or OS threads (`Threads`)
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

use greenling::thread::Builder;

pub use common::{Guard, child, output_of, stderr, stdout};

/// How many do it at once.
pub const MANY: usize = 100;

/// The pause between two looks at something that is not announced.
pub const PAUSE: Duration = Duration::from_millis(1);

/// Patches everything. Until what is returned is dropped, a test that hangs ends the process.
pub fn patched() -> Guard {
    // SAFETY: the crates that are tried hold no thread-locals and no C library's state over their calls, and the tests
    // take care of those that hold locks.
    unsafe { greenling::monkey::patch_all() }.expect("linked so that std's calls arrive");
    common::guard()
}

/// Patches everything and the locks, for threads with thread-locals of their own. Otherwise as [`patched`].
pub fn patched_with_locks() -> Guard {
    let guard = patched();
    // SAFETY: threads with thread-locals of their own are threads to Rust and C, also while they wait in a lock; and the
    // main functions of the tests hold no lock and no thread-local while they wait.
    unsafe { greenling::monkey::patch_locks() }.expect("linked so that std's calls arrive");
    guard
}

/// The kind of thread that does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Green threads of the OS thread that asks for them, which share its thread-locals.
    Green,
    /// Green threads of the OS thread that asks for them, with thread-locals of their own.
    Own,
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
            Threads::Own => Worker::Green(Builder::new().own_thread_locals().spawn(f).expect("thread-locals")),
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

/// Counts those that are at work, such as the clients that are being served.
#[derive(Debug)]
pub struct Meeting {
    /// How many have come. Relaxed: it is a number, and guards nothing.
    here: AtomicUsize,
    /// How many must come.
    all: usize,
}

impl Default for Meeting {
    fn default() -> Meeting {
        Meeting::of(MANY)
    }
}

impl Meeting {
    /// A meeting of `all`.
    pub fn of(all: usize) -> Meeting {
        Meeting { here: AtomicUsize::new(0), all }
    }

    /// Comes, and returns when all are here.
    pub fn wait(&self) {
        self.come();
        self.await_all();
    }

    /// Comes, without waiting for the others.
    pub fn come(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns when all are here.
    pub fn await_all(&self) {
        while self.here.load(Ordering::Relaxed) < self.all {
            sleep(PAUSE);
        }
    }

    /// How many have come.
    pub fn count(&self) -> usize {
        self.here.load(Ordering::Relaxed)
    }
}

/// Lets [`MANY`] clients talk to a server over TCP: green clients to OS threads, OS threads to a green server, green to
/// green on one OS thread, with thread-locals of their own and without, and OS threads to OS threads. Returns what the
/// clients got, which is the same each time.
///
/// # Panics
/// If it is not, or if a meeting was missed.
pub fn on_either_side<T: PartialEq + Debug + Send + 'static>(
    serve: impl Fn(TcpStream, &Meeting) + Clone + Send + 'static,
    ask: impl Fn(SocketAddr, usize) -> T + Clone + Send + 'static,
) -> Vec<T> {
    use Threads::{Green, Os, Own};
    talk_alike(&[(Os, Green), (Green, Os), (Green, Green), (Os, Own), (Own, Own)], serve, ask)
}

/// The same for clients that wait for locks or have thread-locals, and so need threads with thread-locals of their own
/// ([`patched_with_locks`]).
///
/// # Panics
/// As [`on_either_side`].
pub fn on_own_threads<T: PartialEq + Debug + Send + 'static>(
    serve: impl Fn(TcpStream, &Meeting) + Clone + Send + 'static,
    ask: impl Fn(SocketAddr, usize) -> T + Clone + Send + 'static,
) -> Vec<T> {
    use Threads::{Os, Own};
    talk_alike(&[(Os, Own), (Own, Own)], serve, ask)
}

/// Lets clients talk to servers, pairs of `Threads`, and OS threads to OS threads, and compares what the clients got.
fn talk_alike<T: PartialEq + Debug + Send + 'static>(
    pairs: &[(Threads, Threads)],
    serve: impl Fn(TcpStream, &Meeting) + Clone + Send + 'static,
    ask: impl Fn(SocketAddr, usize) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let by_os_threads = talk(Threads::Os, Threads::Os, serve.clone(), ask.clone());
    for &(servers, clients) in pairs {
        let answers = talk(servers, clients, serve.clone(), ask.clone());
        assert_eq!(answers, by_os_threads, "{clients:?} clients, {servers:?} servers");
    }
    by_os_threads
}

/// One of the pairs.
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

/// Answers one HTTP request for `/n` with `/n` ten thousand times, after a meeting. Returns the stream, for its
/// farewell.
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
