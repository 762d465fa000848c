//! Blocking crates as they are, on one OS thread: their calls overlap, which the side that answers counts. The same code on
//! OS threads, against the same server, gets the same bytes.
#![allow(unsafe_code)]

mod common;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greenling::spawn;

/// How many do it at once.
const MANY: usize = 50;

/// Patches everything and guards against hanging.
fn patched() -> common::Guard {
    // SAFETY: the crates here hold no thread-locals and no locks over their calls.
    unsafe { greenling::monkey::patch_all() }.unwrap();
    common::guard()
}

/// Runs `f` on `MANY` green threads of this OS thread.
fn green<T: 'static>(f: impl Fn(usize) -> T + Clone + 'static) -> Vec<T> {
    let start = |number| {
        let f = f.clone();
        spawn(move || f(number))
    };
    let threads: Vec<_> = (0..MANY).map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Runs `f` on as many OS threads.
fn native<T: Send + 'static>(f: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
    let start = |number| {
        let f = f.clone();
        std::thread::spawn(move || f(number))
    };
    let threads: Vec<_> = (0..MANY).map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Counts who is being served. Nobody is answered before `MANY` have asked: clients whose requests do not overlap would wait
/// here for ever.
#[derive(Default)]
struct Meeting {
    here: AtomicUsize,
}

impl Meeting {
    fn wait(&self, sleep: fn(Duration)) {
        let number = self.here.fetch_add(1, Ordering::SeqCst);
        let whole = (number / MANY + 1) * MANY;
        while self.here.load(Ordering::SeqCst) < whole {
            sleep(Duration::from_millis(1));
        }
    }
}

/// A server in OS threads of its own that answers each request of `GET /n` with n, after a meeting.
fn slow_http_server() -> (SocketAddr, Arc<Meeting>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let meeting = Arc::new(Meeting::default());
    let served = Arc::clone(&meeting);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, meeting) = (stream.unwrap(), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                meeting.wait(std::thread::sleep);
                let head = String::from_utf8(head).unwrap();
                let body = head.split(' ').nth(1).unwrap().repeat(1000);
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
                    .unwrap();
            });
        }
    });
    (addr, meeting)
}

#[test]
fn ureq_requests_overlap() {
    let _guard = patched();
    let (addr, meeting) = slow_http_server();
    let get = move |number: usize| {
        let url = format!("http://localhost:{}/{number}", addr.port());
        ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap()
    };
    let green = green(get);
    assert_eq!(meeting.here.load(Ordering::SeqCst), MANY);
    assert_eq!(green, native(get));
    assert_eq!(green[7], "/7".repeat(1000));
}

#[test]
fn a_tiny_http_server_answers_while_others_wait() {
    let _guard = patched();
    // The server's own OS threads accept and parse; the handlers are green threads of this one.
    let server = Rc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    let addr = server.server_addr().to_ip().unwrap();
    let clients = std::thread::spawn(move || {
        native(move |number| {
            let mut stream = TcpStream::connect(addr).unwrap();
            write!(stream, "GET /{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.rsplit("\r\n").next().unwrap().to_owned()
        })
    });
    let meeting = Rc::new(Meeting::default());
    let mut handlers = Vec::new();
    while handlers.len() < MANY {
        // `recv` waits for a condition variable, which no system call of the table is: so it is asked again and again.
        let Some(request) = server.try_recv().unwrap() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let meeting = Rc::clone(&meeting);
        handlers.push(spawn(move || {
            meeting.wait(std::thread::sleep);
            let text = request.url().to_owned();
            request.respond(tiny_http::Response::from_string(text)).unwrap();
        }));
    }
    handlers.into_iter().for_each(|handler| handler.join().unwrap());
    let answers = clients.join().unwrap();
    assert_eq!(answers, (0..MANY).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[test]
fn tungstenite_talks_to_itself() {
    let _guard = patched();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let meeting = Rc::new(Meeting::default());
    let server = {
        let meeting = Rc::clone(&meeting);
        spawn(move || {
            let serve = |stream| {
                let meeting = Rc::clone(&meeting);
                spawn(move || {
                    let mut socket = tungstenite::accept(stream).unwrap();
                    meeting.wait(std::thread::sleep);
                    while let Ok(message) = socket.read() {
                        if message.is_text() && socket.send(message).is_err() {
                            break;
                        }
                    }
                })
            };
            let all: Vec<_> = (0..MANY).map(|_| serve(listener.accept().unwrap().0)).collect();
            all.into_iter().for_each(|one| one.join().unwrap());
        })
    };
    let texts = green(move |number| {
        let stream = TcpStream::connect(addr).unwrap();
        let (mut socket, _) = tungstenite::client(format!("ws://{addr}/"), stream).unwrap();
        let text = format!("number {number}").repeat(1000);
        socket.send(text.clone().into()).unwrap();
        let answer = socket.read().unwrap().into_text().unwrap();
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
        answer.as_str() == text
    });
    assert!(texts.into_iter().all(|same| same));
    server.join().unwrap();
    assert_eq!(meeting.here.load(Ordering::SeqCst), MANY);
}

/// A Redis server of this test's own; ends with it.
struct Redis(Child);

impl Redis {
    /// On a free port of 127.0.0.1, keeping nothing.
    fn start() -> (Redis, u16) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let server = Redis(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        (server, port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn redis_clients_wait_for_each_other_on_a_real_server() {
    let _guard = patched();
    if !["/usr/bin/redis-server", "/usr/local/bin/redis-server"].iter().any(|path| Path::new(path).exists()) {
        eprintln!("SKIPPED: no redis-server");
        return;
    }
    let (_server, port) = Redis::start();
    let connect = move || redis::Client::open(("127.0.0.1", port)).unwrap().get_connection().unwrap();
    let waiting = Rc::new(Cell::new(0));
    let done = Rc::new(AtomicBool::new(false));
    // All wait in BLPOP, which the server answers when somebody pushes: that happens once all of them are there.
    let pusher = {
        let done = Rc::clone(&done);
        spawn(move || {
            let mut connection = connect();
            loop {
                let info: String = redis::cmd("INFO").arg("clients").query(&mut connection).unwrap();
                if info.contains(&format!("blocked_clients:{MANY}\r\n")) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            done.store(true, Ordering::SeqCst);
            for number in 0..MANY {
                let _: usize =
                    redis::cmd("RPUSH").arg(format!("list{number}")).arg(number * 11).query(&mut connection).unwrap();
            }
        })
    };
    let ask = {
        let waiting = Rc::clone(&waiting);
        move |number: usize| {
            let mut connection = connect();
            waiting.set(waiting.get() + 1);
            let mut blpop = redis::cmd("BLPOP");
            let (_, value): (String, usize) = blpop.arg(format!("list{number}")).arg(0).query(&mut connection).unwrap();
            assert!(done.load(Ordering::SeqCst));
            value
        }
    };
    assert_eq!(green(ask), (0..MANY).map(|number| number * 11).collect::<Vec<_>>());
    pusher.join().unwrap();
    assert_eq!(waiting.get(), MANY);
}
