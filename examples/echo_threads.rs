//! The thread-per-connection echo server in its usual first form: `std` only, an OS thread for each connection. No line
//! here knows of greenling; `echo_threads_patched` is this file with one line more.
//!
//! ```text
//! $ cargo run --release --example echo_threads -- 127.0.0.1:7007
//! listening on 127.0.0.1:7007
//! ```
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "echo_threads";

const HELP: &str = "\
Sends back whatever its clients send: a thread of std for each.

usage: echo_threads [--addr HOST:PORT]

  --addr HOST:PORT  where to listen: 127.0.0.1:7007 by default

echo_threads_patched is the same program, with green threads.
";

/// Sends back what a client sends.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    // An answer is complete when written: no part may wait for more to come.
    stream.set_nodelay(true)?;
    let mut buf = [0; 1024];
    loop {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buf[..n])?;
    }
}

pub(crate) fn main() -> io::Result<()> {
    let addr = cli::address(NAME, HELP, "127.0.0.1:7007");
    let listener = TcpListener::bind(&addr).unwrap_or_else(|error| cli::cannot_listen(NAME, &addr, &error));
    // The clients must not wait for the reader of this line.
    cli::announce(format_args!("listening on {}", listener.local_addr()?));
    let complaints = cli::Complaints::default();
    loop {
        let accepted = listener.accept();
        let served = accepted.and_then(|(stream, _)| thread::Builder::new().spawn(move || serve(stream)));
        match served {
            Ok(thread) => drop(thread),
            Err(error) if cli::is_broken(&error) => {
                cli::fail(1, NAME, format_args!("cannot accept any more: {error}"));
            }
            Err(error) => {
                // No descriptor, memory or thread left: a client that leaves makes room. The client that came is gone,
                // if it was a thread that could not be had.
                if complaints.are_due() {
                    cli::complain(NAME, format_args!("cannot accept: {error}"));
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
