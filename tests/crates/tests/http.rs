//! HTTP and WebSocket: `ureq`, `tiny_http`, `tungstenite`.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use greenling::spawn;
use greenling_crates::{MANY, Meeting, PAUSE, Threads, on_either_side, patched, serve_page};

#[test]
fn ureq_requests_overlap() {
    let _guard = patched();
    let serve = |stream, meeting: &Meeting| drop(serve_page(stream, meeting));
    let pages = on_either_side(serve, |addr, number| {
        let url = format!("http://localhost:{}/{number}", addr.port());
        ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap()
    });
    assert_eq!(pages[7], "/7".repeat(10_000));
}

/// What a call is told that a kill ends.
const ECANCELED: i32 = 125;

/// The request has arrived when a client has connected, which is asked of the server.
#[test]
fn a_ureq_request_that_is_killed_fails_and_one_with_a_limit_keeps_to_it() {
    let _guard = patched();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let request = |limit| {
        let agent = ureq::Agent::config_builder().timeout_global(limit).build().new_agent();
        let url = url.clone();
        spawn(move || agent.get(&url).call().unwrap_err())
    };
    let (patient, limited) = (request(None), request(Some(Duration::from_millis(500))));
    let clients = [silent.accept().unwrap(), silent.accept().unwrap()];
    let error = limited.join().unwrap();
    assert!(matches!(error, ureq::Error::Timeout(_)), "{error:?}");
    assert!(!patient.is_finished());
    patient.kill();
    let error = patient.join().unwrap();
    assert!(matches!(&error, ureq::Error::Io(error) if error.raw_os_error() == Some(ECANCELED)), "{error:?}");
    drop(clients);
}

#[test]
fn tungstenite_sockets_overlap_at_both_ends() {
    let _guard = patched();
    let serve = |stream, meeting: &Meeting| {
        let mut socket = tungstenite::accept(stream).unwrap();
        let mut message = socket.read().unwrap();
        meeting.wait();
        while message.is_text() {
            socket.send(message).unwrap();
            message = socket.read().unwrap();
        }
        // What was read last is the client's close, which is answered by reading on.
        while socket.read().is_ok() {}
    };
    let answers = on_either_side(serve, |addr, number| {
        let stream = TcpStream::connect(addr).unwrap();
        let (mut socket, _) = tungstenite::client(format!("ws://{addr}/"), stream).unwrap();
        let texts = [1, 1000, 10_000].map(|times| {
            socket.send(format!("number {number} ").repeat(times).into()).unwrap();
            socket.read().unwrap().into_text().unwrap().to_string()
        });
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
        texts
    });
    assert_eq!(answers[7], [1, 1000, 10_000].map(|times| "number 7 ".repeat(times)));
}

/// Lets `threads` handle the requests of a server; returns what came over the wire. (The server accepts and parses in
/// OS threads of its own.)
fn tiny_http_answers(threads: Threads) -> Vec<String> {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let addr = server.server_addr().to_ip().unwrap();
    let clients = Threads::Os.spawn(move || {
        Threads::Os.many(move |number| {
            let mut stream = TcpStream::connect(addr).unwrap();
            write!(stream, "GET /{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    });
    let meeting = Arc::new(Meeting::default());
    let mut handlers = Vec::new();
    while handlers.len() < MANY {
        // `recv` waits for a condition variable, and so would the OS thread. `try_recv` is asked again and again.
        let Some(request) = server.try_recv().unwrap() else {
            sleep(PAUSE);
            continue;
        };
        let meeting = Arc::clone(&meeting);
        handlers.push(threads.spawn(move || {
            meeting.wait();
            let page = request.url().repeat(10_000);
            let date = tiny_http::Header::from_bytes("Date", "today").unwrap();
            request.respond(tiny_http::Response::from_string(page).with_header(date)).unwrap();
        }));
    }
    handlers.into_iter().for_each(|handler| handler.join());
    assert_eq!(meeting.count(), MANY);
    clients.join()
}

#[test]
fn a_tiny_http_server_answers_while_others_wait() {
    let _guard = patched();
    let answers = tiny_http_answers(Threads::Green);
    assert_eq!(answers, tiny_http_answers(Threads::Os));
    assert!(answers[7].ends_with(&format!("\r\n\r\n{}", "/7".repeat(10_000))), "{}", answers[7]);
}
