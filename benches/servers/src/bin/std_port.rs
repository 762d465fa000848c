//! The blocking server on greenling, by a change of the `use` line of `threads.rs`, and of nothing else.
#![forbid(unsafe_code)]

use greenling::{io, net, thread};

#[path = "../blocking/server.rs"]
mod server;

fn main() -> io::Result<()> {
    server::main()
}
