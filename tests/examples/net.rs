//! What `port_forwarder` and `udp_echo` promise.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::support::{PATIENCE, Server, echo, noise, reset};

/// A forwarder in front of `to`.
fn forwarder(to: &str) -> Server {
    Server::start_program("port_forwarder", &["--to", to], |_| {})
}

#[test]
fn a_forwarder_carries_both_directions() {
    let server = Server::start(&[]);
    let proxy = forwarder(&server.addr.to_string());
    let mut clients = [proxy.connect(), proxy.connect(), proxy.connect()];
    for (number, client) in clients.iter_mut().enumerate() {
        echo(client, &noise(number as u64, 1000));
    }
    // More than all buffers on the way.
    let message = noise(9, 16 << 20);
    let mut writing = clients[0].try_clone().unwrap();
    let copy = message.clone();
    let writer = thread::spawn(move || writing.write_all(&copy).unwrap());
    let mut answer = vec![0; message.len()];
    clients[0].read_exact(&mut answer).unwrap();
    assert!(answer == message);
    writer.join().unwrap();
    echo(&mut clients[1], b"still there");
    let name = clients[0].local_addr().unwrap();
    clients[0].shutdown(Shutdown::Write).unwrap();
    assert_eq!(clients[0].read(&mut [0; 8]).unwrap(), 0, "the server's end comes through");
    let total = message.len() + 1000;
    proxy.out.wait_for(&format!("{name} left: {total} bytes there, {total} back"));
    assert!(proxy.err.all().is_empty());
}

#[test]
fn a_forwarder_passes_the_end_of_a_request_on_and_waits_for_the_answer() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = forwarder(&backend.local_addr().unwrap().to_string());
    let mut client = proxy.connect();
    let (mut server, _) = backend.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut request = String::new();
    server.read_to_string(&mut request).unwrap();
    assert_eq!(request, "request");
    server.write_all(b"the answer").unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "the answer");
}

#[test]
fn a_forwarder_survives_servers_and_clients_that_fail() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = backend.local_addr().unwrap();
    let proxy = forwarder(&addr.to_string());
    // A client that resets: the server sees the end.
    let client = proxy.connect();
    let (mut server, _) = backend.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    reset(client);
    assert!(matches!(server.read(&mut [0; 8]), Ok(0) | Err(_)));
    // No server.
    drop(backend);
    let mut client = proxy.connect();
    assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)));
    proxy.out.wait_for(&format!("{} dropped: nothing listens on {addr}", client.local_addr().unwrap()));
    // And one again.
    let backend = TcpListener::bind(addr).unwrap();
    let mut client = proxy.connect();
    let (mut server, _) = backend.accept().unwrap();
    server.write_all(b"back").unwrap();
    let mut buf = [0; 4];
    client.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"back");
}

#[test]
fn datagrams_come_back_and_are_counted() {
    let mut server = Server::start_program("udp_echo", &["--count", "5", "--every", "20ms"], |_| {});
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buf = vec![0; 70_000];
    for len in [1, 0, 1000, 60_000] {
        let sent = noise(len as u64, len);
        socket.send(&sent).unwrap();
        let got = socket.recv(&mut buf).unwrap();
        assert!(buf[..got] == sent[..]);
    }
    // The server counts while waiting.
    server.out.wait_for("4 datagrams so far");
    thread::sleep(Duration::from_millis(5));
    socket.send(b"last").unwrap();
    assert_eq!(socket.recv(&mut buf).unwrap(), 4);
    server.out.wait_for("5 datagrams answered");
    assert!(server.process.wait().success());
    assert!(server.err.all().is_empty());
}
