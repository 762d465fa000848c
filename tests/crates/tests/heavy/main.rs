//! Crates that take long to compile: `isahc`, `mongodb`, `rouille`, `websocket`, `zmq` with its C++ library.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenling_crates::{
    MANY, Meeting, Threads, on_either_side, on_own_threads, patched, patched_with_locks, serve_page,
};
use mongodb::bson::{Document, doc};

/// Its curl is on an OS thread of its own.
#[test]
fn isahc_requests_overlap() {
    let _guard = patched_with_locks();
    let serve = |stream, meeting: &Meeting| drop(serve_page(stream, meeting));
    let pages = on_own_threads(serve, |addr, number| {
        let mut page = String::new();
        let answer = isahc::get(format!("http://localhost:{}/{number}", addr.port())).unwrap();
        answer.into_body().read_to_string(&mut page).unwrap();
        page
    });
    assert_eq!(pages[7], "/7".repeat(10_000));
}

/// Answers a client of MongoDB: that this is a server, and, when all have asked, what each asks for.
fn serve_documents(mut stream: TcpStream, meeting: &Meeting) {
    let mut head = [0; 16];
    while stream.read_exact(&mut head).is_ok() {
        let [length, id, _, kind] = [0, 4, 8, 12].map(|at| i32::from_le_bytes(head[at..at + 4].try_into().unwrap()));
        let mut body = vec![0; length as usize - 16];
        stream.read_exact(&mut body).unwrap();
        // An old question has flags, a name, and two numbers before the document; a new one flags and a kind.
        let old = kind == 2004;
        let start = if old { 4 + body[4..].iter().position(|&byte| byte == 0).unwrap() + 1 + 8 } else { 5 };
        let question = Document::from_reader(&body[start..]).unwrap();
        let mut answer = doc! { "ok": 1, "isWritablePrimary": true, "ismaster": true, "minWireVersion": 0 };
        answer.extend(doc! { "maxWireVersion": 21, "maxBsonObjectSize": 1 << 24, "maxMessageSizeBytes": 1 << 25 });
        answer.extend(doc! { "maxWriteBatchSize": 1000 });
        if let Ok(number) = question.get_i32("echo") {
            meeting.wait();
            answer = doc! { "ok": 1, "text": format!("{number};").repeat(10_000) };
        }
        let prefix: &[u8] = if old { &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0] } else { &[0; 5] };
        let mut message = [prefix, &answer.to_vec().unwrap()].concat();
        let head = [message.len() as i32 + 16, 0, id, if old { 1 } else { 2013 }];
        message.splice(0..0, head.into_iter().flat_map(i32::to_le_bytes));
        stream.write_all(&message).unwrap();
    }
}

/// One client for all; its runtime is on OS threads of its own.
fn documents(threads: Threads) -> Vec<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let meeting = Arc::new(Meeting::default());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, meeting) = (stream.unwrap(), Arc::clone(&meeting));
            std::thread::spawn(move || serve_documents(stream, &meeting));
        }
    });
    let options = format!("mongodb://{addr}/?directConnection=true&maxPoolSize={MANY}&maxConnecting={MANY}");
    let client = mongodb::sync::Client::with_uri_str(options).unwrap();
    threads.many(move |number| {
        let command = doc! { "echo": number as i32 };
        client.database("test").run_command(command).run().unwrap().get_str("text").unwrap().to_owned()
    })
}

#[test]
fn mongodb_commands_of_one_client_overlap() {
    let _guard = patched_with_locks();
    let texts = documents(Threads::Own);
    assert_eq!(texts[7], "7;".repeat(10_000));
    assert_eq!(texts, documents(Threads::Os));
}

/// A server that waits for requests in one thread, and answers them in a pool of OS threads.
fn pages(threads: Threads) -> Vec<String> {
    let (meeting, over) = (Arc::new(Meeting::default()), Arc::new(AtomicBool::new(false)));
    let answer = move |request: &rouille::Request| {
        meeting.wait();
        rouille::Response::text(request.url().repeat(10_000))
    };
    let server = rouille::Server::new("127.0.0.1:0", answer).unwrap().pool_size(MANY);
    let addr = server.server_addr();
    let is_over = Arc::clone(&over);
    let server = threads.spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            server.poll_timeout(Duration::from_millis(10));
        }
    });
    let pages = threads.many(move |number| {
        let mut stream = TcpStream::connect(addr).unwrap();
        write!(stream, "GET /{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    });
    over.store(true, Ordering::Relaxed);
    server.join();
    pages
}

#[test]
fn a_rouille_server_waits_for_requests() {
    let _guard = patched_with_locks();
    let got = pages(Threads::Own);
    assert_eq!(got[7], "/7".repeat(10_000));
    assert_eq!(got, pages(Threads::Os));
}

#[test]
fn websocket_clients_overlap() {
    let _guard = patched();
    let serve = |stream, meeting: &Meeting| {
        let mut socket = tungstenite::accept(stream).unwrap();
        let message = socket.read().unwrap();
        meeting.wait();
        socket.send(message).unwrap();
        while socket.read().is_ok() {}
    };
    let answers = on_either_side(serve, |addr, number| {
        let mut client = websocket::ClientBuilder::new(&format!("ws://{addr}/")).unwrap().connect_insecure().unwrap();
        client.send_message(&websocket::Message::text(format!("number {number} ").repeat(1000))).unwrap();
        let websocket::OwnedMessage::Text(text) = client.recv_message().unwrap() else { panic!("no text") };
        client.shutdown().unwrap();
        text
    });
    assert_eq!(answers[7], "number 7 ".repeat(1000));
}

/// All ask a router, which answers when it has all questions.
fn routed(threads: Threads) -> Vec<String> {
    let context = zmq::Context::new();
    let router = context.socket(zmq::ROUTER).unwrap();
    router.bind("tcp://127.0.0.1:*").unwrap();
    let address = Arc::new(router.get_last_endpoint().unwrap().unwrap());
    let server = threads.spawn(move || {
        let questions: Vec<_> = (0..MANY).map(|_| router.recv_multipart(0).unwrap()).collect();
        for mut question in questions {
            let text = question.pop().unwrap().repeat(10_000);
            question.push(text);
            router.send_multipart(question, 0).unwrap();
        }
    });
    let answers = threads.many(move |number| {
        let socket = context.socket(zmq::REQ).unwrap();
        socket.connect(&address).unwrap();
        socket.send(&format!("{number};"), 0).unwrap();
        socket.recv_string(0).unwrap().unwrap()
    });
    server.join();
    answers
}

#[test]
fn zmq_requests_overlap() {
    let _guard = patched();
    let answers = routed(Threads::Own);
    assert_eq!(answers, routed(Threads::Green));
    assert_eq!(answers, routed(Threads::Os));
    assert_eq!(answers[7], "7;".repeat(10_000));
}
