//! Shows a program that is not changed at all: `thread`, which asks `std` for an OS thread for each client, with one
//! line before. `patch_everything` makes the creation of threads green, too, so what `std` takes for OS threads are
//! green threads with thread-locals of their own. The top of the ladder.
//!
//! ```text
//!   main           patch_everything, and then all of `thread`:
//!                  accept ---> std::thread::Builder::spawn ---> accept ...
//!                                |
//!                                pthread_create is greenling's
//!                                |
//!   green thread                 +------> converse, close the socket
//! ```
//!
//! The price: that of `green-patched`, and for each thread a block of thread-locals, of which the address is written to
//! a register at each switch, and the stack that `std` asks for, 2 MiB of addresses. And again the promise about all
//! code of the process.
#![allow(unsafe_code)]

use std::io;

use greenling::monkey::{Choice, patch_everything};

use crate::shared::{Listener, Service};
use crate::thread;

/// Serves as `thread` does, on one OS thread.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    // SAFETY: as for `green-patched`: no code of this program keeps a reference to a thread-local, or a C library's
    // state, over a call that waits. The log's lock is that of a descriptor which is left alone.
    unsafe { patch_everything(|_| Choice::Green) }?;
    thread::serve(listener, service)
}
