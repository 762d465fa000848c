//! The thread-per-connection echo server as everybody writes it first: `std::net` only, a thread for each connection.
//! Two lines are new. `patch_all` turns the blocking calls green, and `greenling::spawn` stands where `thread::spawn` was;
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

fn serve(mut stream: TcpStream) -> io::Result<()> {
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
    // SAFETY: the green threads of this program hold no locks, no thread-locals and no C library's state over a call.
    unsafe { greenling::monkey::patch_all() }.map_err(io::Error::other)?;
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                drop(greenling::spawn(move || serve(stream)));
            }
            Err(error) => {
                // A peer that came and went, or no descriptor left: the next one may be luckier.
                eprintln!("accept: {error}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
