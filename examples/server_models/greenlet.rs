//! Shows greenlets, switched by hand: the conversation is straight-line code again, as in `blocking`, but where it would
//! wait it switches to the loop and says what for; the loop switches back when that has happened. One thread, no queue
//! and no state to keep: both are on the greenlet's stack. The next rung, `green`, has the loop in a library.
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

/// A client.
struct Seat {
    /// Runs its conversation, and owns its socket.
    greenlet: Greenlet<c_int>,
    /// What the socket is watched for.
    interest: c_int,
}

/// The loop: switches to whoever can go on.
pub(crate) fn serve(mut listener: Listener, service: Service) -> io::Result<()> {
    listener.set_nonblocking()?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), EPOLLIN)?;
    let mut seats: HashMap<RawFd, Seat> = HashMap::new();
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
                    seats.insert(fd, Seat { greenlet, interest: EPOLLIN });
                }
                continue;
            }
            let Some(seat) = seats.get_mut(&fd) else { continue };
            match seat.greenlet.try_switch(happened) {
                // It has returned, and with it the socket is closed, which ended its being watched.
                Ok(0) => drop(seats.remove(&fd)),
                Ok(wanted) if wanted != seat.interest => {
                    epoll.change(fd, wanted)?;
                    seat.interest = wanted;
                }
                Ok(_) => {}
                // No memory for its stack: it has not started, and is closed by being dropped.
                Err(error) => {
                    drop(seats.remove(&fd));
                    eprintln!("a client is turned away: {error}");
                }
            }
        }
    }
}

/// All that one client gets. Compare with `blocking`: the same lines, and a switch before each wait.
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

/// Sends all of `bytes`. For a client that does not take them this waits, and reads nothing meanwhile: there is no queue
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
