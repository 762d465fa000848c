//! An echo server with two clients, on real sockets and the kernel's epoll.

use std::io::{self, Read, Write};

use greenling::os::unix::net::{UnixListener, UnixStream};
use greenling::thread::{Builder, JoinHandle};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

use crate::notes::{name, say};

#[track_caller]
fn named(name: &str, body: impl FnOnce() -> io::Result<()> + 'static) -> JoinHandle<io::Result<()>> {
    Builder::new().name(name.into()).spawn(body).unwrap()
}

fn echo(mut stream: UnixStream) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => stream.write_all(&buffer[..n])?,
        }
    }
    say("read the end of the stream, and closes");
    Ok(())
}

fn client(address: &SocketAddr, words: &[&str], own: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect_addr(address)?;
    name(&stream, own);
    for word in words {
        say("asks, and reads the answer");
        stream.write_all(word.as_bytes())?;
        stream.read_exact(&mut [0; 5])?;
    }
    say("closes");
    Ok(())
}

pub(crate) fn run() {
    // No file, and no other process has the name.
    let address = SocketAddr::from_abstract_name(format!("greenling pictures {}", std::process::id())).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    name(&listener, "the listener");
    let server = named("acceptor", move || {
        let mut served = Vec::new();
        for (thread, end) in [("echo 1", "the server's end of 1"), ("echo 2", "the server's end of 2")] {
            say("accepts, or waits until it can");
            let (stream, _) = listener.accept()?;
            name(&stream, end);
            served.push(named(thread, || echo(stream)));
        }
        served.into_iter().try_for_each(|thread| thread.join().unwrap())
    });
    let (near, far) = (address.clone(), address);
    let first = named("client 1", move || client(&near, &["hello", "again"], "client 1's end"));
    let second = named("client 2", move || client(&far, &["howdy"], "client 2's end"));
    for thread in [first, second, server] {
        thread.join().unwrap().unwrap();
    }
}
