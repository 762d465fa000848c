//! Shows fork per client: the kernel runs as many straight-line conversations as there are processes. Each costs a copy
//! of the page tables and a place in the scheduler; the next rung, `thread`, shares the memory.
//!
//! ```text
//!   parent   accept ---> fork ---> close the client's socket ---> accept ...
//!                          |
//!   child                  +-----> close the listener, converse, exit
//! ```
#![allow(unsafe_code)]

use std::io;

use crate::blocking::converse;
use crate::shared::{Listener, Service, check};

/// Forks for each client.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    // Mended: in the documents a child that has ended stays in the process table until the next client comes. If the
    // parent ignores SIGCHLD, the kernel reaps the children at once.
    // SAFETY: SIG_IGN is no function of ours.
    let old = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    if old == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes nothing.
    let parent = unsafe { libc::getpid() };
    loop {
        let Some((socket, peer)) = listener.accept(&service)? else { continue };
        // SAFETY: this process has one thread, so that the child finds no lock that another thread holds.
        match check(unsafe { libc::fork() }) {
            // The child's copy of the socket is the one that counts; ours is closed at the end of this turn. Until both
            // are, the client does not learn that the conversation is over.
            Ok(child) if child != 0 => {}
            Ok(_) => {
                // Mended: a child that keeps the listener keeps the port, even when the server has ended.
                drop(listener);
                end_with(parent);
                let mut received = 0;
                let how = converse(&socket, &service, &mut received);
                drop(socket);
                service.left(peer, received, how);
                // SAFETY: takes a number. What the parent would clean up at the end is not the child's to clean up.
                unsafe { libc::_exit(0) };
            }
            // Out of processes: this client is turned away, the others are served.
            Err(error) => service.refused(peer, error),
        }
    }
}

/// Makes the child end when the parent does: a server that was stopped serves no client.
fn end_with(parent: libc::pid_t) {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    // The parent may have ended before the call above.
    // SAFETY: takes nothing.
    if unsafe { libc::getppid() } != parent {
        // SAFETY: takes a number.
        unsafe { libc::_exit(0) };
    }
}
