//! Shows busy polling: one thread serves all clients by asking each of them, all the time, whether there is something.
//! The server works, and takes a whole CPU to do nothing. The next rung, `select`, lets the kernel say which are ready.
//!
//! ```text
//!   +-> accept? -- no --> recv from 1? -- no --> recv from 2? -- no --> recv from 3? -- no --+
//!   +----------------------------------------------------------------------------------------+
//!      all day long, EAGAIN after EAGAIN: watch it with `top`, or count with `strace -c`
//! ```
#![forbid(unsafe_code)]

use std::io;

use crate::shared::{Client, Listener, Service};

/// Asks all clients, again and again.
pub(crate) fn serve(mut listener: Listener, service: Service) -> io::Result<()> {
    listener.set_nonblocking()?;
    let mut clients: Vec<Client> = Vec::new();
    loop {
        if let Some((socket, peer)) = listener.accept(&service)? {
            clients.push(Client::new(socket, peer, service));
        }
        // Mended, three times. The documents remove from the list they walk through, so that the client after the one
        // that left misses a turn. They remove (its socket, the address of the client that came last), which as a rule
        // is not in the list, so that the server ends. And they take every error for "nothing there yet": a client that
        // was reset stays for ever.
        let mut at = 0;
        while at < clients.len() {
            match clients[at].turn() {
                Ok(false) => at += 1,
                Ok(true) => clients.swap_remove(at).leave(Ok(())),
                Err(error) => clients.swap_remove(at).leave(Err(error)),
            }
        }
    }
}
