//! Shows blocking code that turns green unmodified: the program of `thread` in its usual form, with `std::net` only.
//! Two lines are this library's: `patch_all`, since when `std`'s calls that would wait let another green thread run,
//! and the `use` line of `Builder`. `green` is cheaper, and this is for code that cannot be changed. The next rung,
//! `green-threads-patched`, leaves even the `use` lines alone.
//!
//! ```text
//!   main           accept ---> spawn ---> accept ...
//!                    |           |
//!                   std::net     |          `recv`, `send`, `accept4` and `nanosleep` are greenling's,
//!                                |          for the whole program
//!                   std::net     |
//!                    |           |
//!   green thread     +-----------+------> converse, close the socket
//! ```
//!
//! The price: system calls at each wait, since nothing is known of a number that may be closed and given out again at
//! any time; a buffer on every stack, since `std` has none to lend; and a promise about all code of the process, which
//! is why `patch_all` is unsafe.
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use greenling::monkey::patch_all;
use greenling::thread::Builder;

use crate::shared::{BUFFER, Listener, Service, wait_after};
use crate::{NAME, cli};

/// Spawns for each client.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    cli::make_hub(NAME);
    // SAFETY: no code of this program keeps a thread-local, a lock, or a C library's state over a call that waits: the
    // log, which is written under the lock of standard output, goes to a descriptor that is left alone.
    unsafe { patch_all() }.map_err(io::Error::other)?;
    let (listener, spare) = listener.into_parts();
    let listener = TcpListener::from(listener);
    loop {
        match spare.accept(&service, || listener.accept()) {
            Ok(Some((stream, peer))) => welcome(stream, peer, service),
            Ok(None) => {}
            // The sleep is `std`'s, and green: the other threads go on.
            Err(error) => wait_after(error)?,
        }
    }
}

/// Gives a client a thread.
fn welcome(stream: TcpStream, peer: SocketAddr, service: Service) {
    // Fails only if the client has gone again, and then reading will say so.
    let _ = stream.set_nodelay(true);
    let spawned = Builder::new().spawn(move || {
        let mut received = 0;
        let how = converse(&stream, &service, &mut received);
        drop(stream);
        service.left(peer, received, how);
    });
    if let Err(error) = spawned {
        service.refused(peer, error);
    }
}

/// Serves one client from the first byte to the last: `converse` of `blocking`, said with `std`.
fn converse(mut stream: &TcpStream, service: &Service, received: &mut u64) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        *received += count as u64;
        // Mended: the documents' gevent server calls `send`, which may take less than was given; the rest is lost.
        stream.write_all(service.answer(&buffer[..count]))?;
    }
}
