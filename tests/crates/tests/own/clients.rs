//! Clients of HTTP, JSON-RPC, memcached, MQTT and LDAP, against small servers that answer when all have asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use greenling_crates::{MANY, Meeting, Threads, child, stderr, stdout};
use greenling_crates::{on_either_side, on_own_threads, patched, patched_with_locks, serve_page};

/// Serves a page to one client.
fn page(stream: TcpStream, meeting: &Meeting) {
    drop(serve_page(stream, meeting));
}

#[test]
fn attohttpc_requests_overlap() {
    let _guard = patched();
    let pages = on_either_side(page, |addr, number| {
        attohttpc::get(format!("http://localhost:{}/{number}", addr.port())).send().unwrap().text().unwrap()
    });
    assert_eq!(pages[7], "/7".repeat(10_000));
}

#[test]
fn minreq_requests_overlap() {
    let _guard = patched();
    let pages = on_either_side(page, |addr, number| {
        let answer = minreq::get(format!("http://localhost:{}/{number}", addr.port())).send().unwrap();
        answer.as_str().unwrap().to_owned()
    });
    assert_eq!(pages[7], "/7".repeat(10_000));
}

/// Its runtime is on an OS thread of its own, which the caller waits for, parked.
#[test]
fn reqwest_blocking_requests_overlap() {
    let _guard = patched_with_locks();
    let pages = on_own_threads(page, |addr, number| {
        let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        client.get(format!("http://localhost:{}/{number}", addr.port())).send().unwrap().text().unwrap()
    });
    assert_eq!(pages[7], "/7".repeat(10_000));
}

#[test]
fn reqwest_blocking_requests_of_one_client_overlap() {
    let _guard = patched_with_locks();
    let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let pages = on_own_threads(page, move |addr, number| {
        client.get(format!("http://localhost:{}/{number}", addr.port())).send().unwrap().text().unwrap()
    });
    assert_eq!(pages[7], "/7".repeat(10_000));
}

/// Light threads cannot wait in a lock, so each request blocks the OS thread: a queue, of which the user is told.
#[test]
fn reqwest_blocking_requests_of_light_threads_are_a_queue_which_is_reported() {
    let out = child("clients::reqwest_blocking_requests_of_light_threads_are_a_queue_which_is_reported", || {
        let _guard = patched_with_locks();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::sleep(Duration::from_millis(200));
                serve_page(stream.unwrap(), &Meeting::of(1));
            }
        });
        let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        let ask = |_| {
            let (client, url) = (client.clone(), url.clone());
            Threads::Green.spawn(move || client.get(url).send().unwrap().text().unwrap())
        };
        let workers: Vec<_> = (0..8).map(ask).collect();
        workers.into_iter().for_each(|worker| assert_eq!(worker.join().len(), 10_000));
        println!("all were answered");
    });
    let said = stderr(&out);
    assert!(stdout(&out).contains("all were answered"), "{said}");
    assert!(said.contains("have blocked this OS thread") && said.contains("Builder::own_thread_locals"), "{said}");
}

/// Answers calls of JSON-RPC with their parameters, until the client goes. `before` is called before each answer.
fn serve_calls(stream: TcpStream, before: impl Fn()) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).unwrap() == 0 {
                return;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let call: jsonrpc::serde_json::Value = jsonrpc::serde_json::from_slice(&body).unwrap();
        before();
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{},"error":null}}"#, call["id"], call["params"][0]);
        // In one packet: the kernel would hold the second one back.
        let page = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        stream.get_mut().write_all(page.as_bytes()).unwrap();
    }
}

/// Calls once.
fn call(client: &jsonrpc::Client, number: usize) -> usize {
    let number = [jsonrpc::arg(number)];
    client.call("echo", Some(&jsonrpc::serde_json::value::to_raw_value(&number).unwrap())).unwrap()
}

#[test]
fn jsonrpc_calls_overlap() {
    let _guard = patched();
    let answers = on_either_side(
        |stream, meeting| serve_calls(stream, || meeting.wait()),
        |addr, number| call(&jsonrpc::Client::simple_http(&format!("http://{addr}/"), None, None).unwrap(), number),
    );
    assert!(answers.into_iter().eq(0..MANY));
}

/// The client holds a mutex over each call, so its calls follow each other, as on OS threads.
#[test]
fn jsonrpc_calls_of_one_client_take_turns() {
    let _guard = patched_with_locks();
    for threads in [Threads::Own, Threads::Os] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (meeting, all_ask) = (Arc::new(Meeting::default()), Arc::new(Meeting::default()));
        let server = {
            let (calls, all_ask) = (Arc::clone(&meeting), Arc::clone(&all_ask));
            threads.spawn(move || {
                serve_calls(listener.accept().unwrap().0, || {
                    all_ask.await_all();
                    calls.come();
                });
            })
        };
        let client = Arc::new(jsonrpc::Client::simple_http(&format!("http://{addr}/"), None, None).unwrap());
        let answers = threads.many(move |number| {
            all_ask.come();
            call(&client, number)
        });
        assert!(answers.into_iter().eq(0..MANY) && meeting.count() == MANY);
        server.join();
    }
}

/// Answers `get` of memcached's text protocol with a value made of the key.
fn serve_values(stream: TcpStream, before: impl Fn()) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while {
        line.clear();
        stream.read_line(&mut line).unwrap_or(0)
    } > 0
    {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["version"] => stream.get_mut().write_all(b"VERSION 1.6.0\r\n").unwrap(),
            ["get" | "gets", key] => {
                before();
                let value = format!("{key};").repeat(10_000);
                write!(stream.get_mut(), "VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len()).unwrap();
            }
            _ => panic!("{line:?}"),
        }
    }
}

/// Inside is a pool of `r2d2`, with OS threads of its own.
#[test]
fn memcache_gets_overlap() {
    let _guard = patched_with_locks();
    let values = on_own_threads(
        |stream, meeting| serve_values(stream, || meeting.wait()),
        |addr, number| {
            let client = memcache::connect(format!("memcache://{addr}?protocol=ascii")).unwrap();
            client.get::<String>(&number.to_string()).unwrap().unwrap()
        },
    );
    assert_eq!(values[7], "7;".repeat(10_000));
}

/// Answers a client of MQTT: its `CONNECT`, and each `PUBLISH` with the same one.
fn serve_messages(mut stream: TcpStream, meeting: &Meeting) {
    loop {
        // The kind, the length in units of seven bits, and so much.
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            return;
        }
        let (kind, mut packet, mut length) = (byte[0] >> 4, byte.to_vec(), 0);
        for shift in (0..).step_by(7) {
            stream.read_exact(&mut byte).unwrap();
            packet.push(byte[0]);
            length |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + length, 0);
        stream.read_exact(&mut packet[start..]).unwrap();
        match kind {
            1 => stream.write_all(&[0x20, 2, 0, 0]).unwrap(),
            3 => {
                meeting.wait();
                stream.write_all(&packet).unwrap();
            }
            14 => return,
            other => panic!("a packet of kind {other}"),
        }
    }
}

/// Each has a runtime of tokio's on its own thread, and waits in it.
#[test]
fn rumqttc_messages_overlap() {
    let _guard = patched_with_locks();
    let echoes = on_own_threads(serve_messages, |addr, number| {
        let mut options = rumqttc::MqttOptions::new(number.to_string(), addr.ip().to_string(), addr.port());
        options.set_keep_alive(Duration::from_secs(60)).set_max_packet_size(100_000, 100_000);
        let (client, mut connection) = rumqttc::Client::new(options, 10);
        let text = format!("{number};").repeat(1000);
        client.publish("echo", rumqttc::QoS::AtMostOnce, false, text).unwrap();
        for event in connection.iter() {
            if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(message)) = event.unwrap() {
                return String::from_utf8(message.payload.to_vec()).unwrap();
            }
        }
        panic!("the connection ended")
    });
    assert_eq!(echoes[7], "7;".repeat(1000));
}

/// Answers the first request of LDAP, which is a bind: granted, with the name that was bound.
fn serve_bind(mut stream: TcpStream, meeting: &Meeting) {
    // A sequence of: the number of the message, and the bind: version, name, password. All lengths are short.
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut request = vec![0; usize::from(head[1])];
    stream.read_exact(&mut request).unwrap();
    let [2, 1, id, 0x60, _, 2, 1, 3, 4, length, ref rest @ ..] = request[..] else { panic!("{request:?}") };
    let name = &rest[..usize::from(length)];
    meeting.wait();
    let result = [&[10, 1, 0, 4, length][..], name, &[4, 0]].concat();
    let bind = [&[2, 1, id, 0x61, result.len() as u8][..], &result].concat();
    stream.write_all(&[&[0x30, bind.len() as u8][..], &bind].concat()).unwrap();
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

#[test]
fn ldap3_binds_overlap() {
    let _guard = patched_with_locks();
    let names = on_own_threads(serve_bind, |addr, number| {
        let mut connection = ldap3::LdapConn::new(&format!("ldap://{addr}")).unwrap();
        let result = connection.simple_bind(&format!("cn={number}"), "secret").unwrap();
        assert_eq!(result.rc, 0);
        result.matched
    });
    assert_eq!(names[7], "cn=7");
}
