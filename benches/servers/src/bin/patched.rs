//! The blocking server of std, with std's sockets and threads turned green by one call.
#![allow(unsafe_code)] // `patch_everything` is a promise about the whole program

use std::{io, net, thread};

use greenling::monkey::{Choice, patch_everything};

#[path = "../blocking/server.rs"]
mod server;

fn main() -> io::Result<()> {
    // SAFETY: the threads of this program hold no locks and no references to thread-locals over a call that waits.
    unsafe { patch_everything(|_| Choice::Green) }?;
    server::main()
}
