//! You will see that twenty clients of a server on a Unix socket got along with three connections.
//!
//! The server is this program's own. A client that finds all connections in use waits for one. A conversation that
//! failed, or was killed in the middle, closes its connection, since other bytes may still come
//! there.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::time::Duration;

use greenling::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use greenling::sync::Semaphore;
use greenling::{sleep, spawn, thread};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "connection_pool";

const HELP: &str = "\
Asks a server that it runs itself, with more clients than connections.

usage: connection_pool [--clients N] [--connections N] [--delay TIME]

  --clients N      how many ask; 20 by default
  --connections N  how many connections they share; 3 by default
  --delay TIME     how long an answer takes: 0, 0.5 (seconds), 5ms; 5ms by
                   default
";

struct Options {
    clients: u64,
    connections: u16,
    delay: Duration,
}

/// Connections to one server, made when needed and used again.
struct Connections {
    server: SocketAddr,
    /// One permit for each connection that there may be.
    permits: Semaphore,
    /// Connections that are not in use.
    idle: RefCell<Vec<UnixStream>>,
    /// How many connections were ever made.
    made: Cell<usize>,
}

impl Connections {
    /// Calls `f` with a connection; waits for one if all are in use.
    fn with<R>(&self, f: impl FnOnce(&mut UnixStream) -> io::Result<R>) -> io::Result<R> {
        let _permit = self.permits.acquire(); // given back however the call ends
        let idle = self.idle.borrow_mut().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                self.made.set(self.made.get() + 1);
                UnixStream::connect_addr(&self.server)?
            }
        };
        let answer = f(&mut connection)?;
        self.idle.borrow_mut().push(connection);
        Ok(answer)
    }
}

/// Answers each number with the square, after a while.
fn serve(stream: &UnixStream, delay: Duration) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let number: u64 = line?.parse().map_err(|_| io::ErrorKind::InvalidData)?;
        sleep(delay);
        (&*stream).write_all(&(number * number).to_be_bytes())?;
    }
    Ok(())
}

/// Starts the server, asks for squares, and prints how many connections that took.
fn run(options: &Options) -> io::Result<()> {
    // An address that is no file, and goes with the process.
    let server = SocketAddr::from_abstract_name(format!("greenling-{NAME}-{}", std::process::id()))?;
    let listener = UnixListener::bind_addr(&server)?;
    let delay = options.delay;
    drop(spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            drop(spawn(move || serve(&stream, delay)));
        }
    }));
    let connections = Connections {
        server,
        permits: Semaphore::new(options.connections.into()),
        idle: RefCell::default(),
        made: Cell::new(0),
    };
    // The clients borrow the pool: a scope lends it out.
    let right = thread::scope(|scope| -> io::Result<usize> {
        let ask = |number: u64| {
            connections.with(|stream| {
                stream.write_all(format!("{number}\n").as_bytes())?;
                let mut answer = [0; 8];
                stream.read_exact(&mut answer)?;
                Ok(u64::from_be_bytes(answer) == number * number)
            })
        };
        let clients: Vec<_> = (1..=options.clients).map(|number| scope.spawn(move || ask(number))).collect();
        let mut right = 0;
        for client in clients {
            right += usize::from(client.join().expect("asking does not panic")?);
        }
        Ok(right)
    })?;
    cli::say(NAME, format_args!("{} questions, {right} right answers", options.clients));
    cli::say(NAME, format_args!("{} connections", connections.made.get()));
    Ok(())
}

fn main() {
    let options = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    // The standard streams and the hub's two, the listener, both ends of each connection.
    cli::take_descriptors(NAME, 6 + 2 * u64::from(options.connections).min(options.clients));
    if let Err(error) = run(&options) {
        cli::fail(1, NAME, error);
    }
}

fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut options = Options { clients: 20, connections: 3, delay: Duration::from_millis(5) };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("clients") => options.clients = cli::count("--clients", &mut parser)?,
            Long("connections") => options.connections = cli::count("--connections", &mut parser)?,
            Long("delay") => options.delay = cli::duration("--delay", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(options)
}

// Output:
//
//     20 questions, 20 right answers
//     3 connections
//
// Read next: src/sync/semaphore.rs, and what becomes of a permit when the holder is killed.
