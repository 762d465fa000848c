//! The blocking servers of streams on greenling, by a change of the `use` lines of `streams_threads.rs`, and of nothing
//! else.
#![forbid(unsafe_code)]
#![allow(clippy::arc_with_non_send_sync)] // what needs an `Arc` between OS threads could do with an `Rc` here

use greenling::{net, sync, thread};

#[path = "../blocking/streams.rs"]
mod streams;

fn main() -> std::io::Result<()> {
    streams::main()
}
