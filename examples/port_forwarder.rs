//! You will see who connects through it, and how many bytes went each way: a TCP proxy in front of another server.
//!
//! Start the example `echo_server`, then this, and talk to this one: `nc 127.0.0.1 7008`. The end of one direction is passed
//! on and the other goes on, so `echo hello | nc -N 127.0.0.1 7008` gets its answer. Large transfers do not enter the
//! process: the kernel moves them from socket to socket.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream, copy_bidirectional};
use greenling::thread;

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "port_forwarder";

const HELP: &str = "\
Forwards TCP connections to another server.

usage: port_forwarder [--addr HOST:PORT] [--to HOST:PORT]

  --addr HOST:PORT  where to listen: 127.0.0.1:7008 by default; port 0 takes a free one
  --to HOST:PORT    whom to connect to for each client: 127.0.0.1:7007 by default
";

/// What the command line says.
struct Args {
    /// Where to listen.
    addr: String,
    /// Whom to connect to.
    to: String,
}

fn main() {
    let args = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    let listener =
        TcpListener::bind(args.addr.as_str()).unwrap_or_else(|error| cli::cannot_listen(NAME, &args.addr, &error));
    match listener.local_addr() {
        Ok(addr) => cli::say(NAME, format_args!("listening on {addr}")),
        Err(error) => cli::fail(1, NAME, error),
    }
    let to: Rc<str> = args.to.into();
    loop {
        match listener.accept() {
            Ok((client, peer)) => {
                let to = Rc::clone(&to);
                drop(thread::spawn(move || forward(&client, peer, &to)));
            }
            Err(error) => {
                // Out of descriptors, as a rule: those who leave make room.
                cli::say(NAME, format_args!("cannot accept: {error}"));
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// One client's life.
fn forward(client: &TcpStream, peer: SocketAddr, to: &str) {
    cli::say(NAME, format_args!("{peer} connected"));
    let carried = TcpStream::connect(to).and_then(|server| {
        // What comes in small pieces is passed on in small pieces.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        copy_bidirectional(client, &server)
    });
    match carried {
        Ok((there, back)) => cli::say(NAME, format_args!("{peer} left: {there} bytes there, {back} back")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            cli::say(NAME, format_args!("{peer} dropped: nobody listens on {to}"));
        }
        Err(error) => cli::say(NAME, format_args!("{peer} dropped: {error}")),
    }
}

fn parse() -> Result<Args, String> {
    use lexopt::prelude::*;
    let mut args = Args { addr: String::from("127.0.0.1:7008"), to: String::from("127.0.0.1:7007") };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("addr") => args.addr = cli::text("--addr", &mut parser)?,
            Long("to") => args.to = cli::text("--to", &mut parser)?,
            Long("help") | Short('h') => cli::help(HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(args)
}

// Output:
//
//     listening on 127.0.0.1:7008
//     127.0.0.1:40312 connected
//     127.0.0.1:40312 left: 6 bytes there, 6 back
//
// Read next: src/net/copy.rs, how the bytes get across.
