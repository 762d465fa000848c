//! `echo_threads`, the server with a thread of `std` for each connection, to the last byte, and one line: ten thousand
//! connections are ten thousand threads on one OS thread.
//!
//! ```text
//! $ cargo run --release --features monkey --example echo_threads_patched -- 127.0.0.1:7007
//! listening on 127.0.0.1:7007
//! ```
//!
//! `patch_everything` makes the calls that block, the locks, and the creation of threads green; so `accept` and `read`
//! let others run, and `std::thread::Builder::spawn` makes a green thread of this hub, with thread-locals of its own.
//!
//! (As for any program of `std`, `ulimit -n` is to be raised first for more connections than there are descriptors, and
//! `RUST_MIN_STACK` says how large the stacks of its threads are.)
#![allow(unsafe_code)] // `patch_everything` is a promise about the whole program

use greenling::monkey::{Choice, patch_everything};

/// What is turned green: the file as it is.
#[path = "echo_threads.rs"]
mod server;

fn main() -> std::io::Result<()> {
    // SAFETY: the threads of this program hold no locks and no references to thread-locals over a call that waits.
    unsafe { patch_everything(|_| Choice::Green) }?;
    server::main()
}
