//! Shows green threads: the program of `thread`, with `greenling` in place of `std`. Calls that would wait let another
//! green thread run; the loop, the switches and the bookkeeping of the rungs before are in the library. The
//! program uses one processor; the next rung, `green-hubs`, uses them all.
//!
//! ```text
//!   main           accept ---> spawn ---> accept ...
//!                                |
//!   green thread                 +------> converse, close the socket
//! ```
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;

use greenling::net::{TcpListener, TcpStream};
use greenling::{select, sleep, thread::Builder};

use crate::shared::{BACK_OFF, Listener, Service};
use crate::{NAME, cli};

/// Spawns for each client.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    cli::make_hub(NAME);
    accept(listener, service)
}

/// Gives each client of `listener` a green thread, for ever. An error means that the listener is broken.
pub(crate) fn accept(listener: Listener, service: Service) -> io::Result<()> {
    let (listener, spare) = listener.into_parts();
    let listener = TcpListener::from(listener);
    // Waits where no spare descriptor is given up meanwhile: below, when no client is in line.
    listener.set_nonblocking(true)?;
    loop {
        match spare.accept(&service, || listener.accept()) {
            Ok(Some((stream, peer))) => welcome(stream, peer, service),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => select! { readable(listener) -> _ => {} },
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) if cli::is_broken(&error) => return Err(error),
            // A green wait: the other threads go on meanwhile.
            Err(_) => sleep(BACK_OFF),
        }
    }
}

/// Gives a client a green thread.
fn welcome(stream: TcpStream, peer: SocketAddr, service: Service) {
    // Fails only if the client has gone again, and then reading will say so.
    let _ = stream.set_nodelay(true);
    let spawned = Builder::new().spawn(move || {
        let mut received = 0;
        // Mended: in the documents' gevent server an error, such as a reset, skips the line that closes the connection.
        let how = converse(&stream, &service, &mut received);
        drop(stream);
        service.left(peer, received, how);
    });
    if let Err(error) = spawned {
        service.refused(peer, error);
    }
}

/// Serves one client from the first byte to the last. `read_with` lends a buffer for as long as there are bytes in it,
/// so that an idle client has none.
fn converse(stream: &TcpStream, service: &Service, received: &mut u64) -> io::Result<()> {
    loop {
        let count = stream.read_with(|input| -> io::Result<usize> {
            if !input.is_empty() {
                let mut stream = stream;
                stream.write_all(service.answer(input))?;
            }
            Ok(input.len())
        })??;
        if count == 0 {
            return Ok(());
        }
        *received += count as u64;
    }
}
