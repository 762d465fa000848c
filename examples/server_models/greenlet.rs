//! Shows greenlets, switched by hand: the conversation is straight-line code again, as in `blocking`, but where
//! `blocking` would wait, the greenlet switches to the loop, with the event that it waits for; the loop switches back
//! when the event has come. One thread, no queue and no state to keep: both are on the greenlet's stack. The next rung,
//! `green`, has the loop in a library.
//!
//! ```text
//!   loop                         greenlet of one client
//!   epoll_wait
//!   switch(IN)  -------------->  recv, send ... EAGAIN
//!   watch for OUT  <-----------  switch_to_parent(OUT)
//!   epoll_wait
//!   switch(OUT)  ------------->  send the rest
//!   watch for IN  <------------  switch_to_parent(IN)
//! ```
//!
//! A message between the two is a set of epoll events: to the greenlet what has happened, to the loop what is waited
//! for, and 0, the value that the greenlet returns, when it is over.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};

use greenling::Greenlet;
use libc::{EPOLLIN, EPOLLOUT, c_int};

use crate::epoll::{Epoll, Events};
use crate::shared::{BUFFER, Listener, Service, Socket};

/// A client, from the loop's side.
struct Conn {
    /// Runs the conversation, and owns the socket.
    greenlet: Greenlet<c_int>,
    /// The events that the socket is watched for.
    interest: c_int,
}

/// Runs the loop, which switches to the greenlets that can go on.
pub(crate) fn serve(mut listener: Listener, service: Service) -> io::Result<()> {
    listener.set_nonblocking()?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), EPOLLIN)?;
    let mut conns: HashMap<RawFd, Conn> = HashMap::new();
    let mut events = Events::new();
    loop {
        for (fd, happened) in epoll.wait(&mut events, true)? {
            if fd == listener.as_raw_fd() {
                if let Some((socket, peer)) = listener.accept(&service)? {
                    let fd = socket.as_raw_fd();
                    epoll.add(fd, EPOLLIN)?;
                    let greenlet = Greenlet::new(move |_| {
                        let mut received = 0;
                        let how = converse(&socket, &service, &mut received);
                        drop(socket);
                        service.left(peer, received, how);
                        0
                    });
                    conns.insert(fd, Conn { greenlet, interest: EPOLLIN });
                }
                continue;
            }
            let Some(conn) = conns.get_mut(&fd) else { continue };
            match conn.greenlet.try_switch(happened) {
                // The greenlet has returned and closed the socket, which also took the socket out of the list.
                Ok(0) => drop(conns.remove(&fd)),
                Ok(wanted) if wanted != conn.interest => {
                    epoll.change(fd, wanted)?;
                    conn.interest = wanted;
                }
                Ok(_) => {}
                // No memory for a stack: the greenlet has not started, and the drop closes the socket.
                Err(error) => {
                    drop(conns.remove(&fd));
                    eprintln!("a client is turned away: {error}");
                }
            }
        }
    }
}

/// Serves one client from the first byte to the last. Compare with `blocking`: the same lines, and a switch before each
/// wait.
fn converse(socket: &Socket, service: &Service, received: &mut u64) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        let count = match socket.recv(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        *received += count as u64;
        if count > 0 {
            send_all(socket, service.answer(&buffer[..count]))?;
        }
        // Also when there may be more: a client that sends without pause must not keep the others waiting.
        Greenlet::switch_to_parent(EPOLLIN);
    }
}

/// Sends all of `bytes`. Waits for a client that does not take them, and reads nothing meanwhile: there is no queue
/// that could grow.
fn send_all(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.send(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => drop(Greenlet::switch_to_parent(EPOLLOUT)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
