//! The blocking server on OS threads. `std_port.rs` differs in its `use` line, `patched.rs` in one call.
#![forbid(unsafe_code)]

use std::{io, net, thread};

#[path = "../blocking/server.rs"]
mod server;

fn main() -> io::Result<()> {
    server::main()
}
