//! You will see which clients connect through a TCP proxy in front of another server, and how many bytes go each way.
//!
//! Start the example `echo_server`, then this one, and talk to the proxy: `nc 127.0.0.1 7008`. The end of one direction
//! is passed on and the other direction goes on, so `echo hello | nc -N 127.0.0.1 7008` gets its answer. Large
//! transfers do not enter the process: the kernel moves them from socket to socket.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use greenling::net::{TcpListener, TcpStream, copy_bidirectional};
use greenling::thread::{self, Builder};

#[path = "common/cli.rs"]
mod cli;
#[path = "common/log.rs"]
mod log;

use log::{Log, Output};

const NAME: &str = "port_forwarder";

const HELP: &str = "\
Forwards TCP connections to another server.

usage: port_forwarder [--addr HOST:PORT] [--to HOST:PORT]

  --addr HOST:PORT  where to listen: 127.0.0.1:7008 by default; port 0 takes a
                    free one
  --to HOST:PORT    what to connect to for each client: 127.0.0.1:7007 by
                    default
";

/// The command line; see [`HELP`].
struct Args {
    /// The address to listen on.
    addr: String,
    /// The address to connect to.
    to: String,
}

fn main() {
    let args = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    let listener =
        TcpListener::bind(args.addr.as_str()).unwrap_or_else(|error| cli::cannot_listen(NAME, &args.addr, &error));
    let addr = listener.local_addr().unwrap_or_else(|error| cli::fail(1, NAME, error));
    let (log, _writer) = Log::start(Output::Out).unwrap_or_else(|error| cli::fail(1, NAME, error));
    log.say(format!("listening on {addr}"));
    let to: Rc<str> = args.to.into();
    let complaints = cli::Complaints::default();
    loop {
        match listener.accept() {
            Ok((client, peer)) => {
                let (to, same_log) = (Rc::clone(&to), log.clone());
                let forwarding = Builder::new().spawn(move || forward(&client, peer, &to, &same_log));
                if let Err(error) = forwarding {
                    log.say(format!("{peer} dropped: {}", cli::brief(&error)));
                }
            }
            Err(error) if cli::is_broken(&error) => {
                cli::fail(1, NAME, format_args!("cannot accept any more: {error}"));
            }
            Err(error) => {
                // Out of descriptors, as a rule: clients that leave make room.
                if complaints.are_due() {
                    log.say(format!("cannot accept: {}", cli::brief(&error)));
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Serves one client from the connection to the end.
fn forward(client: &TcpStream, peer: SocketAddr, to: &str, log: &Log<String>) {
    log.say(format!("{peer} connected"));
    let carried = TcpStream::connect(to).and_then(|server| {
        // What comes in small pieces is passed on in small pieces.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        copy_bidirectional(client, &server)
    });
    log.say(match carried {
        Ok((there, back)) => format!("{peer} left: {there} bytes there, {back} back"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            format!("{peer} dropped: nothing listens on {to}")
        }
        Err(error) => format!("{peer} dropped: {}", cli::brief(&error)),
    });
}

fn parse() -> Result<Args, String> {
    use lexopt::prelude::*;
    let mut args = Args { addr: String::from("127.0.0.1:7008"), to: String::from("127.0.0.1:7007") };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("addr") => args.addr = cli::text("--addr", &mut parser)?,
            Long("to") => args.to = cli::text("--to", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
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
