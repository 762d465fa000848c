//! The blocking servers of streams on OS threads. `streams_std_port.rs` differs in its `use` lines,
//! `streams_patched.rs` in one call.
#![forbid(unsafe_code)]

use std::{net, sync, thread};

#[path = "../blocking/streams.rs"]
mod streams;

fn main() -> std::io::Result<()> {
    streams::main()
}
