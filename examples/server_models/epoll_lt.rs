//! Shows level-triggered epoll: the kernel keeps the list, and returns only ready clients, so that idle ones cost
//! nothing per turn. What is not read yet is told again: one read and one accept per event are enough. The price is an
//! `epoll_ctl` whenever what a client waits for changes; the next rung, `epoll-et`, needs none.
//!
//! ```text
//!                      +--- input, while the queue is short ---+
//!                      v                                       |
//!   accept --add--> IN watched --- the answer does not fit ---> IN and OUT, or OUT alone --- queue empty ---> IN
//!                                       (change)                                               (change)
//! ```
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use libc::{EPOLLIN, EPOLLOUT, c_int};

use crate::epoll::{Epoll, Events};
use crate::shared::{Client, Listener, Service};

/// Serves the clients that are ready.
pub(crate) fn serve(mut listener: Listener, service: Service) -> io::Result<()> {
    listener.set_nonblocking()?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), EPOLLIN)?;
    // Each client, and the events that are watched for.
    let mut clients: HashMap<RawFd, (Client, c_int)> = HashMap::new();
    let mut events = Events::new();
    loop {
        for (fd, _) in epoll.wait(&mut events, true)? {
            if fd == listener.as_raw_fd() {
                if let Some((socket, peer)) = listener.accept(&service)? {
                    let client = Client::new(socket, peer, service);
                    epoll.add(client.as_raw_fd(), EPOLLIN)?;
                    clients.insert(client.as_raw_fd(), (client, EPOLLIN));
                }
                continue;
            }
            // Mended: the documents compare the events with EPOLLIN and ignore all other combinations, such as
            // EPOLLIN|EPOLLHUP after a reset: level-triggered, those come again and again. Whatever has happened,
            // reading and sending will tell.
            let Some((client, interest)) = clients.get_mut(&fd) else { continue };
            let how = match client.turn() {
                Ok(false) => {
                    let wanted = wanted(client);
                    if *interest != wanted {
                        epoll.change(fd, wanted)?;
                        *interest = wanted;
                    }
                    continue;
                }
                Ok(true) => Ok(()),
                Err(error) => Err(error),
            };
            if let Some((client, _)) = clients.remove(&fd) {
                client.leave(how);
            }
        }
    }
}

/// Returns the events that a client is to be watched for.
fn wanted(client: &Client) -> c_int {
    (if client.wants_read() { EPOLLIN } else { 0 }) | (if client.wants_write() { EPOLLOUT } else { 0 })
}
