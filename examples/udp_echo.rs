//! You will see who sends datagrams to it and gets them back. Try `nc -u 127.0.0.1 7009`.
//!
//! There are no connections and so no thread for each: one socket, one loop. Another green thread counts meanwhile, and shows
//! that waiting for a datagram keeps nobody waiting.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use greenling::net::UdpSocket;
use greenling::thread;

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "udp_echo";

const HELP: &str = "\
Sends each datagram back to where it came from.

usage: udp_echo [--addr HOST:PORT] [--count N] [--every DURATION]

  --addr HOST:PORT  where to listen: 127.0.0.1:7009 by default; port 0 takes a free one
  --count N         end after N datagrams; goes on for ever by default
  --every DURATION  how often to print how many there were: 0.5 (seconds), 2s, 500ms; 10s by default
";

/// The longest datagram of IPv4 there can be.
const LONGEST: usize = 65_507;

/// What the command line says.
struct Args {
    /// Where to listen.
    addr: String,
    /// After how many datagrams to end.
    count: u64,
    /// How often to print the number.
    every: Duration,
}

fn main() {
    let args = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    let socket =
        UdpSocket::bind(args.addr.as_str()).unwrap_or_else(|error| cli::cannot_listen(NAME, &args.addr, &error));
    match socket.local_addr() {
        Ok(addr) => cli::say(NAME, format_args!("listening on {addr}")),
        Err(error) => cli::fail(1, NAME, error),
    }
    let answered = Rc::new(Cell::new(0));
    let counted = Rc::clone(&answered);
    let reporter = thread::spawn(move || -> () {
        loop {
            thread::sleep(args.every);
            cli::say(NAME, format_args!("{} datagrams so far", counted.get()));
        }
    });
    let mut buf = vec![0; LONGEST];
    while answered.get() < args.count {
        match socket.recv_from(&mut buf).and_then(|(len, from)| Ok((socket.send_to(&buf[..len], from)?, from))) {
            Ok((len, from)) => {
                answered.set(answered.get() + 1);
                cli::say(NAME, format_args!("{from} sent {len} bytes"));
            }
            // Of one datagram: its sender is gone, or cannot be reached.
            Err(error) => cli::say(NAME, format_args!("no answer sent: {error}")),
        }
    }
    reporter.kill();
    cli::say(NAME, format_args!("{} datagrams answered", answered.get()));
}

fn parse() -> Result<Args, String> {
    use lexopt::prelude::*;
    let mut args = Args { addr: String::from("127.0.0.1:7009"), count: u64::MAX, every: Duration::from_secs(10) };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("addr") => args.addr = cli::text("--addr", &mut parser)?,
            Long("count") => args.count = cli::count("--count", &mut parser)?,
            Long("every") => args.every = cli::duration("--every", &mut parser)?,
            Long("help") | Short('h') => cli::help(HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if args.every.is_zero() {
        return Err(String::from("--every must be more than 0"));
    }
    Ok(args)
}

// Output:
//
//     listening on 127.0.0.1:7009
//     127.0.0.1:40312 sent 6 bytes
//     1 datagrams so far
//
// Read next: src/net/udp.rs, and why a short datagram says nothing.
