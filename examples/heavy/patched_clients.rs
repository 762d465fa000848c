//! You will see a hundred pages fetched by a blocking HTTP client in the time that one of them takes, on one OS thread.
//! The client is `ureq`, and knows nothing of green threads; `patch_all` turns its system calls green. With the address
//! of a Redis, the blocking `redis` client does the same.
//!
//! The pages come from a server of this program, written with `std::net`, unless an address is given.
//!
//! ```text
//! $ cargo run --release --features monkey --bin patched_clients -- --redis 127.0.0.1:6379 http://127.0.0.1:8000/
//! ```

#![allow(unsafe_code)] // `patch_all` is a promise about the whole program

use std::cell::Cell;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenling::group::Group;
use greenling::spawn;

#[path = "../common/cli.rs"]
mod cli;

const NAME: &str = "patched_clients";

const HELP: &str = "\
Asks an HTTP server for a page many times at once, with a client that blocks;
and a Redis as often.

usage: patched_clients [--clients N] [--redis ADDR] [URL]

  --clients N   how many clients; 100 by default
  --redis ADDR  sends PING to the Redis at this address as well, as
                127.0.0.1:6379
  URL           the page; by default one of this program's own, which takes 200
                ms
";

struct Options {
    clients: usize,
    redis: Option<String>,
    url: Option<String>,
}

/// Calls `ask` in as many green threads as there are clients, and prints how many calls were under way at the same
/// time.
fn all_at_once<E: Display + 'static>(
    clients: usize,
    what: &str,
    ask: impl Fn() -> Result<String, E> + Clone + 'static,
) -> Result<(), Box<dyn Error>> {
    // All on one OS thread: counters need no lock.
    let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let begin = Instant::now();
    let jobs = Group::new();
    for _ in 0..clients {
        let (ask, now, most) = (ask.clone(), Rc::clone(&now), Rc::clone(&most));
        jobs.spawn(move || {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            let answer = ask();
            now.set(now.get() - 1);
            answer
        });
    }
    let answers = jobs.join_all().into_iter().map(|job| match job {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(error) => Err(format!("{what}: {error}")),
    });
    let bytes = answers.map(|answer| answer.map(|answer| answer.len())).sum::<Result<usize, String>>()?;
    let took = begin.elapsed().as_millis();
    cli::say(NAME, format_args!("{what}: {clients} answers, {bytes} bytes, {} at the same time", most.get()));
    cli::say(NAME, format_args!("{what}: all of them together took {took} ms"));
    Ok(())
}

/// Starts a server with a page that takes a while, and returns the address of the page.
fn slow_server() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    drop(spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            drop(spawn(move || serve(stream)));
        }
    }));
    Ok(url)
}

/// Answers one request of a client.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let _request = stream.read(&mut [0; 1024])?;
    sleep(Duration::from_millis(200));
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")
}

fn run(options: Options) -> Result<(), Box<dyn Error>> {
    // SAFETY: neither this program nor the clients hold locks, thread-locals or C code's state over a call.
    unsafe { greenling::monkey::patch_all() }?;
    let url = options.url.map_or_else(slow_server, Ok)?;
    all_at_once(options.clients, "ureq", move || ureq::get(&url).call()?.body_mut().read_to_string())?;
    if let Some(addr) = options.redis {
        let client = redis::Client::open(format!("redis://{addr}/"))?;
        all_at_once(options.clients, "redis", move || redis::cmd("PING").query(&mut client.get_connection()?))?;
    }
    Ok(())
}

fn main() {
    let options = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    // The standard streams and the hub's two, the listener, both ends of each connection.
    cli::take_descriptors(NAME, 6 + 2 * options.clients as u64);
    if let Err(error) = run(options) {
        cli::fail(1, NAME, error);
    }
}

fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut options = Options { clients: 100, redis: None, url: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("clients") => options.clients = cli::count("--clients", &mut parser)?,
            Long("redis") => options.redis = Some(cli::text("--redis", &mut parser)?),
            Long("help") | Short('h') => cli::help(NAME, HELP),
            Value(url) if options.url.is_none() => options.url = Some(url.string().map_err(|error| error.to_string())?),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(options)
}

// Output, with a last line that depends on the machine:
//
//     ureq: 100 answers, 600 bytes, 100 at the same time
//     ureq: all of them together took ... ms
//
// Read next: docs/book, chapter 15, which crates were tried, and which of them cannot work.
