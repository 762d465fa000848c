//! Shows one client at a time: every call waits, and other clients stay in line until the first one leaves. The next
//! rung, `process`, gives each client a process that waits for it alone.
//!
//! ```text
//!   accept ---> recv ---> send ---> recv ... 0 bytes ---> accept
//!     waits       waits     waits                           the second client gets its turn here
//! ```
#![forbid(unsafe_code)]

use std::io;

use crate::shared::{BUFFER, Listener, Service, Socket};

/// Serves one client after the other.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    loop {
        let Some((socket, peer)) = listener.accept(&service)? else { continue };
        let mut received = 0;
        let how = converse(&socket, &service, &mut received);
        drop(socket);
        // Mended: in the documents an error, such as a reset by this client, ends the server for all the others.
        service.left(peer, received, how);
    }
}

/// Serves one client from the first byte to the last: straight-line code, with the state in local variables. `process`
/// and `thread` run the same function, and `green` has the same lines but for few words.
pub(crate) fn converse(socket: &Socket, service: &Service, received: &mut u64) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        let count = socket.recv(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        *received += count as u64;
        send_all(socket, service.answer(&buffer[..count]))?;
    }
}

/// Sends all of `bytes`.
//
// Mended: the documents call `send` once. `send` may take less than was given, and then the rest of the answer is
// lost; on a blocking socket that happens when a signal comes, which is so rare that only users find the bug.
fn send_all(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = socket.send(bytes)?;
        bytes = &bytes[count..];
    }
    Ok(())
}
