//! Shows poll(2): an array in place of bitmaps, so that any number of descriptors fits. All of it is copied to the
//! kernel and back, and looked through on both sides, on each call, however few are ready. In the next rung,
//! `epoll-lt`, the kernel keeps the list.
//!
//! ```text
//!   pollfd    { fd: 3, events: IN, revents: .. }       the listener: always the first
//!             { fd: 7, events: IN, revents: IN }       clients[0]
//!             { fd: 5, events: IN|OUT, revents: .. }   clients[1]
//! ```
#![allow(unsafe_code)]

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use libc::{POLLIN, POLLOUT, pollfd};

use crate::shared::{Client, Listener, Service, check};

/// Serves the clients that are ready.
pub(crate) fn serve(mut listener: Listener, service: Service) -> io::Result<()> {
    listener.set_nonblocking()?;
    let mut clients: Vec<Client> = Vec::new();
    let mut watched: Vec<pollfd> = Vec::new();
    loop {
        watched.clear();
        watched.push(pollfd { fd: listener.as_raw_fd(), events: POLLIN, revents: 0 });
        watched.extend(clients.iter().map(|client| pollfd {
            fd: client.as_raw_fd(),
            events: if client.wants_read() { POLLIN } else { 0 } | if client.wants_write() { POLLOUT } else { 0 },
            revents: 0,
        }));
        // SAFETY: the array is live for the call, and as long as the count says; -1 means: no limit on the time.
        match check(unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) }) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        };
        // Backwards, so that a removal moves only clients that had their turn. POLLERR and POLLHUP are reported without
        // being asked for, and count: reading or sending says what happened.
        for at in (0..clients.len()).rev() {
            if watched[at + 1].revents != 0 {
                match clients[at].turn() {
                    Ok(false) => {}
                    Ok(true) => clients.swap_remove(at).leave(Ok(())),
                    Err(error) => clients.swap_remove(at).leave(Err(error)),
                }
            }
        }
        // One client per turn: as long as there are more in line, the listener is readable.
        if watched[0].revents != 0
            && let Some((socket, peer)) = listener.accept(&service)?
        {
            clients.push(Client::new(socket, peer, service));
        }
    }
}
