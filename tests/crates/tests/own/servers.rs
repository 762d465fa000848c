//! Servers that hand requests from their own OS threads to those that handle them: `tiny_http`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use greenling_crates::{MANY, Meeting, Threads, Worker, patched_with_locks};

/// Takes requests with `recv`, and lets each be answered by a thread of its own, when all are there. Returns what the
/// clients got.
fn answers(threads: Threads) -> Vec<String> {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let addr = server.server_addr().to_ip().unwrap();
    let clients = threads.spawn(move || {
        threads.many(move |number| {
            let mut stream = TcpStream::connect(addr).unwrap();
            write!(stream, "GET /{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    });
    let meeting = Arc::new(Meeting::default());
    let one = |_| {
        let (request, meeting) = (server.recv().unwrap(), Arc::clone(&meeting));
        threads.spawn(move || {
            meeting.wait();
            let page = request.url().repeat(10_000);
            let date = tiny_http::Header::from_bytes("Date", "today").unwrap();
            request.respond(tiny_http::Response::from_string(page).with_header(date)).unwrap();
        })
    };
    let handlers: Vec<_> = (0..MANY).map(one).collect();
    handlers.into_iter().for_each(Worker::join);
    clients.join()
}

#[test]
fn a_tiny_http_server_is_asked_for_requests_by_recv() {
    let _guard = patched_with_locks();
    let got = answers(Threads::Own);
    assert!(got[7].ends_with(&format!("\r\n\r\n{}", "/7".repeat(10_000))), "{:.200}", got[7]);
    assert_eq!(got, answers(Threads::Os));
}
