//! The blocking servers of streams on may, with one worker thread, by a change of the `use` lines.
//!
//! A spawn is `unsafe` in may, since a coroutine may move to another OS thread and run out of the stack. With one
//! worker no coroutine moves; the stacks are large enough for a handshake of TLS.
// The one reason is may's spawn.
#![allow(unsafe_code)]

use may::{net, sync};

#[path = "../blocking/streams.rs"]
mod streams;

/// `Builder` of `std::thread`, for coroutines.
mod thread {
    use std::io;

    use may::coroutine::{self, JoinHandle};

    /// Words of a stack, of eight bytes each.
    const STACK: usize = 0x4000;

    pub(crate) struct Builder(coroutine::Builder);

    impl Builder {
        pub(crate) fn new() -> Builder {
            Builder(coroutine::Builder::new().stack_size(STACK))
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            f: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            // SAFETY: there is one worker, so no thread-local changes under the coroutine; the frames fit into the
            // stack.
            unsafe { self.0.spawn(f) }
        }
    }
}

fn main() -> std::io::Result<()> {
    may::config().set_workers(1);
    // The acceptor is a coroutine, so that no other OS thread takes part in what is measured.
    thread::Builder::new().spawn(streams::main)?.join().expect("no panic")
}
