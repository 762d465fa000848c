//! The thread-per-connection echo server in its usual first form: `std::net` only, a thread for each connection. Two
//! lines are new. `patch_all` turns the blocking calls green, and greenling's `Builder::spawn` stands where std's was;
//! so ten thousand connections are ten thousand green threads on one OS thread.
//!
//! ```text
//! $ cargo run --release --features monkey --example echo_std_patched -- 127.0.0.1:7007
//! listening on 127.0.0.1:7007
//! ```
//!
//! (As for any program of `std`, `ulimit -n` is to be raised first for more connections than there are descriptors.)

#![allow(unsafe_code)] // `patch_all` is a promise about the whole program

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "echo_std_patched";

const HELP: &str = "\
Sends back whatever its clients send, with nothing but std's blocking calls.

usage: echo_std_patched [--addr HOST:PORT]

  --addr HOST:PORT  where to listen: 127.0.0.1:7007 by default
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

fn main() -> io::Result<()> {
    let addr = cli::address(NAME, HELP, "127.0.0.1:7007");
    cli::make_hub(NAME);
    // SAFETY: the green threads of this program hold no locks, no thread-locals and no C library's state over a call.
    unsafe { greenling::monkey::patch_all() }.map_err(io::Error::other)?;
    let listener = match TcpListener::bind(&addr) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => cli::cannot_listen(NAME, &addr, &error),
        bound => bound?,
    };
    // The clients must not wait for the reader of this line.
    cli::announce(format_args!("listening on {}", listener.local_addr()?));
    let complaints = cli::Complaints::default();
    loop {
        let accepted = listener.accept();
        let served = accepted.and_then(|(stream, _)| greenling::thread::Builder::new().spawn(move || serve(stream)));
        match served {
            Ok(thread) => drop(thread),
            Err(error) if cli::is_broken(&error) => {
                cli::fail(1, NAME, format_args!("cannot accept any more: {error}"));
            }
            Err(error) => {
                // No descriptor or no memory left: a client that leaves makes room. The client that came is gone.
                if complaints.are_due() {
                    cli::complain(NAME, format_args!("cannot accept: {error}"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
