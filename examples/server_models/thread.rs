//! Shows a thread per client: as `process`, with shared memory and without the copy. Each client still costs a kernel
//! stack, a place in the scheduler and a switch through the kernel per message; and when the kernel has no more
//! threads, that is the end. The next rung, `nonblocking`, has one thread for all.
//!
//! ```text
//!   main       accept ---> spawn ---> accept ...
//!                            |
//!   thread                   +------> converse, close the socket
//! ```
#![forbid(unsafe_code)]

use std::io;
use std::thread::Builder;

use crate::blocking::converse;
use crate::shared::{Listener, Service};

/// Spawns for each client.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    loop {
        let Some((socket, peer)) = listener.accept(&service)? else { continue };
        // Mended: the documents' thread returns when the client leaves, and leaves the socket to the garbage collector.
        // Here the thread owns the socket.
        let spawned = Builder::new().spawn(move || {
            let mut received = 0;
            let how = converse(&socket, &service, &mut received);
            drop(socket);
            service.left(peer, received, how);
        });
        // Mended: out of threads, the documents' server ends. Ours turns this client away.
        if let Err(error) = spawned {
            service.refused(peer, error);
        }
    }
}
