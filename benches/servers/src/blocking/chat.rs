//! A chat room over WebSocket: two threads for each member. One reads, and puts what the member says into the queues of
//! all; one takes what is in the member's queue, and writes that.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use greenling_servers::streams::{QUEUE, web_socket_config};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::{net, thread};
use crate::sync::{Condvar, Mutex};

/// The room: its members by their numbers.
#[derive(Clone)]
pub(super) struct Room(Arc<Mutex<Members>>);

#[derive(Default)]
struct Members {
    next: u64,
    inside: HashMap<u64, Arc<Mailbox>>,
}

/// What waits for a member.
struct Mailbox {
    queue: Mutex<Queue>,
    /// Told when there is something to write, or nothing more will come.
    news: Condvar,
    /// The connection, to be ended.
    stream: net::TcpStream,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// Whether nothing more comes.
    ended: bool,
}

impl Room {
    pub(super) fn new() -> Room {
        Room(Arc::new(Mutex::new(Members::default())))
    }

    fn enter(&self, mailbox: &Arc<Mailbox>) -> u64 {
        let mut members = self.0.lock().unwrap();
        members.next += 1;
        let number = members.next;
        members.inside.insert(number, Arc::clone(mailbox));
        number
    }

    fn leave(&self, number: u64) {
        self.0.lock().unwrap().inside.remove(&number);
    }

    /// Puts a message into all queues. The room waits for no member: one of which the queue is full is thrown out.
    fn say(&self, message: &Message) {
        let mut members = self.0.lock().unwrap();
        members.inside.retain(|_, mailbox| mailbox.put(message.clone()));
    }
}

impl Mailbox {
    /// Puts a message into the queue; false if the queue is full: then the member is thrown out.
    fn put(&self, message: Message) -> bool {
        let mut queue = self.queue.lock().unwrap();
        if queue.messages.len() == QUEUE {
            queue.messages.clear();
            queue.ended = true;
            // The thread that reads sees the end, and so does one that is stuck in a write.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        if !queue.ended {
            queue.messages.push_back(message);
        }
        // The writer takes all at once: it waits only where there was nothing.
        if queue.messages.len() <= 1 {
            self.news.notify_one();
        }
        !queue.ended
    }

    /// Says that nothing more comes.
    fn end(&self) {
        self.queue.lock().unwrap().ended = true;
        self.news.notify_one();
    }

    /// Waits for messages, and takes all; false if nothing more comes.
    fn take(&self, batch: &mut VecDeque<Message>) -> bool {
        let queue = self.queue.lock().unwrap();
        let mut queue = self.news.wait_while(queue, |queue| queue.messages.is_empty() && !queue.ended).unwrap();
        std::mem::swap(&mut queue.messages, batch);
        !batch.is_empty()
    }
}

/// A stream of which only the reading half is used: what `tungstenite` would answer by itself goes through the queue,
/// since only one thread writes.
struct Reading(net::TcpStream);

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Reading {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves a member from the handshake to the end.
pub(super) fn attend(stream: net::TcpStream, room: &Room) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let accepted = tungstenite::accept_with_config(stream, Some(web_socket_config()));
    let stream = accepted.map_err(|error| io::Error::other(error.to_string()))?.into_inner();
    let mailbox = Arc::new(Mailbox { queue: Mutex::default(), news: Condvar::new(), stream: stream.try_clone()? });
    let (to_write, its_mail) = (stream.try_clone()?, Arc::clone(&mailbox));
    drop(thread::Builder::new().spawn(move || write(to_write, &its_mail))?);
    let number = room.enter(&mailbox);
    let ended = listen(stream, &mailbox, room);
    room.leave(number);
    mailbox.end();
    if ended.is_err() {
        // No farewell: a writer that is stuck must not stay.
        let _ = mailbox.stream.shutdown(Shutdown::Both);
    }
    Ok(())
}

/// Reads what the member says, until it leaves.
fn listen(stream: net::TcpStream, mailbox: &Mailbox, room: &Room) -> tungstenite::Result<()> {
    let mut socket = WebSocket::from_raw_socket(Reading(stream), Role::Server, Some(web_socket_config()));
    loop {
        match socket.read()? {
            message @ (Message::Text(_) | Message::Binary(_)) => room.say(&message),
            Message::Ping(payload) => drop(mailbox.put(Message::Pong(payload))),
            Message::Close(farewell) => {
                mailbox.put(Message::Close(farewell));
                return Ok(());
            }
            Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// Writes what is in the queue, as much at once as there is.
fn write(stream: net::TcpStream, mailbox: &Mailbox) -> tungstenite::Result<()> {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(web_socket_config()));
    let mut batch = VecDeque::new();
    while mailbox.take(&mut batch) {
        for message in batch.drain(..) {
            socket.write(message)?;
        }
        socket.flush()?;
    }
    Ok(())
}
