//! You will see which clients send datagrams to a server and get them back. Try `nc -u 127.0.0.1 7009`.
//!
//! There are no connections and so no thread for each: one socket, one loop. Another green thread counts meanwhile, and
//! shows that a thread that waits for a datagram does not hold up the others.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use greenling::net::UdpSocket;
use greenling::thread::{self, Builder};

#[path = "common/cli.rs"]
mod cli;
#[path = "common/log.rs"]
mod log;

use log::{Log, Output};

const NAME: &str = "udp_echo";

const HELP: &str = "\
Sends each datagram back to where it came from.

usage: udp_echo [--addr HOST:PORT] [--count N] [--every DURATION]

  --addr HOST:PORT  where to listen: 127.0.0.1:7009 by default; port 0 takes a
                    free one
  --count N         end after N datagrams; goes on for ever by default
  --every DURATION  how often to print how many there were: 0.5 (seconds), 2s,
                    500ms; 10s by default
";

/// The longest datagram of IPv4 there can be.
const LONGEST: usize = 65_507;

/// The command line; see [`HELP`].
struct Args {
    /// The address to listen on.
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
    let addr = socket.local_addr().unwrap_or_else(|error| cli::fail(1, NAME, error));
    let (log, writer) = Log::start(Output::Out).unwrap_or_else(|error| cli::fail(1, NAME, error));
    log.say(format!("listening on {addr}"));
    let answered = Rc::new(Cell::new(0));
    let (counted, same_log) = (Rc::clone(&answered), log.clone());
    let report = move || -> () {
        loop {
            thread::sleep(args.every);
            same_log.say(format!("{} datagrams so far", counted.get()));
        }
    };
    let reporter = Builder::new().spawn(report).unwrap_or_else(|error| cli::fail(1, NAME, error));
    // The server: one datagram after the other.
    let mut buf = vec![0; LONGEST];
    while answered.get() < args.count {
        let (len, from) = match socket.recv_from(&mut buf) {
            Ok(received) => received,
            Err(error) if cli::is_broken(&error) => {
                cli::fail(1, NAME, format_args!("cannot receive any more: {error}"));
            }
            Err(error) => {
                log.say(format!("nothing received: {}", cli::brief(&error)));
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        match socket.send_to(&buf[..len], from) {
            Ok(_) => {
                answered.set(answered.get() + 1);
                log.say(format!("{from} sent {len} bytes"));
            }
            // Of one datagram: the sender is gone, or cannot be reached.
            Err(error) => log.say(format!("no answer sent: {}", cli::brief(&error))),
        }
    }
    reporter.kill();
    log.say(format!("{} datagrams answered", answered.get()));
    writer.finish();
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
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    // A report without a pause would be a flood.
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
