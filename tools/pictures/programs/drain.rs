//! The drain of a server with a client that is idle, one that is busy, and one that comes too late.

use std::io::{Read, Write};
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream};
use greenling::server::TcpServer;
use greenling::sleep;
use greenling::thread::{Builder, JoinHandle};

use crate::notes::{call, name, say};

#[track_caller]
fn named(name: &str, body: impl FnOnce() + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(body).unwrap()
}

pub(crate) fn run() {
    let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
    name(&listener, "the listener");
    let server = TcpServer::new(listener).grace(Duration::from_secs(5)).start(|mut stream, _| {
        let mut request = [0; 4];
        while stream.read(&mut request)? > 0 {
            let is_slow = request == *b"slow";
            call(if is_slow { "handler of busy" } else { "handler of idle" });
            name(&stream, if is_slow { "the server's end of busy" } else { "the server's end of idle" });
            if is_slow {
                say("works on the answer");
                sleep(Duration::from_millis(45));
            }
            say("answers");
            stream.write_all(b"done")?;
        }
        Ok(())
    });
    let server = server.unwrap();
    let client = |own: &'static str, end: &'static str, request: &'static [u8; 4]| {
        named(own, move || {
            let mut stream = TcpStream::connect("127.0.0.1:8080").unwrap();
            name(&stream, end);
            stream.write_all(request).unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            if request == b"slow" {
                return say("has its answer, and closes");
            }
            say("has its answer, and waits for what comes next");
            assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
            say("reads the end: the server has closed");
        })
    };
    let clients = [client("idle", "idle's socket", b"fast"), client("busy", "busy's socket", b"slow")];
    sleep(Duration::from_millis(20));
    say("begins the drain");
    server.handle().drain();
    let late = named("late", || {
        sleep(Duration::from_millis(12));
        say("connects, too late");
        let refused = TcpStream::connect("127.0.0.1:8080").unwrap_err();
        say(&format!("is told: {}", refused.kind()));
    });
    let report = server.join().unwrap();
    say(&format!(
        "has the report: {} idle closed, {} finished, {} killed",
        report.closed_idle, report.finished, report.killed
    ));
    for client in clients.into_iter().chain([late]) {
        client.join().unwrap();
    }
}
