//! The servers of streams as one would write them for greenling: the kernel's help for a proxy, and a room without
//! locks, since its threads never run at the same time. TLS is that of the blocking server: there is nothing to add.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;

use greenling::channel::{self, Receiver, Sender};
use greenling::net::{self, TcpListener, TcpStream, copy_bidirectional};
use greenling::{no_switch, spawn};
use greenling_servers::streams::{QUEUE, Service, tls_config, web_socket_config};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

#[path = "../blocking/tls.rs"]
mod tls;

fn main() -> io::Result<()> {
    match Service::asked() {
        Service::Tls => {
            let config = tls_config();
            listen(move |stream| tls::serve(stream, config.clone()))
        }
        Service::Proxy(to) => listen(move |stream| forward(&stream, to)),
        Service::Chat => {
            let room = Rc::new(Room::default());
            listen(move |stream| attend(stream, &room))
        }
    }
}

/// Serves each connection in a green thread of its own.
fn listen(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + 'static) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, serve) = (stream?, serve.clone());
        // What ends a connection is no concern of the others.
        drop(spawn(move || serve(stream)));
    }
    Ok(())
}

/// Passes on both directions; the end of one, too.
fn forward(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(client, &server).map(drop)
}

/// The members, by their numbers.
#[derive(Default)]
struct Room {
    next: Cell<u64>,
    inside: RefCell<HashMap<u64, Rc<Member>>>,
}

/// A member of the room.
struct Member {
    queue: Sender<Message>,
    stream: TcpStream,
}

impl Member {
    /// Puts a message into the queue. False if that is full: then the member is thrown out.
    fn put(&self, message: Message) -> bool {
        let put = self.queue.try_send(message).is_ok();
        if !put {
            // The thread that reads sees the end, and so does one that is stuck in a write.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        put
    }
}

/// A stream of which only the reading half is used: what `tungstenite` would answer by itself goes through the queue,
/// since only one thread writes.
struct Reading<'a>(&'a TcpStream);

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Reading<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves a member from the handshake to the end.
fn attend(stream: TcpStream, room: &Room) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let accepted = tungstenite::accept_with_config(stream, Some(web_socket_config()));
    let stream = accepted.map_err(|error| io::Error::other(error.to_string()))?.into_inner();
    let (queue, to_write) = channel::bounded(QUEUE);
    let writing = stream.try_clone()?;
    drop(spawn(move || write(writing, &to_write)));
    let member = Rc::new(Member { queue, stream });
    let number = room.next.replace(room.next.get() + 1);
    room.inside.borrow_mut().insert(number, Rc::clone(&member));
    if read(&member, room).is_err() {
        // No farewell: a writer that is stuck must not stay.
        let _ = member.stream.shutdown(Shutdown::Both);
    }
    room.inside.borrow_mut().remove(&number);
    Ok(())
}

/// Reads what the member says, until it leaves.
fn read(member: &Member, room: &Room) -> tungstenite::Result<()> {
    let mut socket = WebSocket::from_raw_socket(Reading(&member.stream), Role::Server, Some(web_socket_config()));
    loop {
        match socket.read()? {
            message @ (Message::Text(_) | Message::Binary(_)) => {
                // The room waits for no member. But a thread of which the share is used up also gives way in
                // `try_send`, and the next would find the room borrowed: so not in here.
                no_switch(|| room.inside.borrow_mut().retain(|_, member| member.put(message.clone())));
            }
            Message::Ping(payload) => drop(member.put(Message::Pong(payload))),
            Message::Close(farewell) => {
                member.put(Message::Close(farewell));
                return Ok(());
            }
            Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// Writes what is in the queue, as much at once as there is.
fn write(stream: net::TcpStream, queue: &Receiver<Message>) -> tungstenite::Result<()> {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(web_socket_config()));
    while let Ok(message) = queue.recv() {
        socket.write(message)?;
        while let Ok(message) = queue.try_recv() {
            socket.write(message)?;
        }
        socket.flush()?;
    }
    Ok(())
}
