//! The blocking servers of streams, with std's sockets, locks and threads turned green by one call.
#![allow(unsafe_code)] // `patch_everything` is a promise about the whole program

use std::{net, sync, thread};

use greenling::monkey::{Choice, patch_everything};

#[path = "../blocking/streams.rs"]
mod streams;

fn main() -> std::io::Result<()> {
    // SAFETY: the threads of this program hold no locks and no references to thread-locals over a call that waits.
    unsafe { patch_everything(|_| Choice::Green) }?;
    streams::main()
}
