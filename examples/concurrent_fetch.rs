//! You will see what five hosts answer, in the order of the hosts, after the time that one of them takes: they are
//! asked all at once, with plain blocking code.
//!
//! The hosts are servers of this program, on loopback: the program needs no network.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use greenling::group::Group;
use greenling::net::{Shutdown, TcpListener, TcpStream};
use greenling::{sleep, spawn};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "concurrent_fetch";

const HELP: &str = "\
Asks several hosts for their page, all at once, and waits for all answers or for
a time limit.

usage: concurrent_fetch [--hosts N] [--delay TIME] [--timeout TIME] [--silent N]

  --hosts N       how many hosts; 5 by default
  --delay TIME    how long each takes to answer: 0, 0.5 (seconds), 200ms; 200ms
                  by default
  --timeout TIME  how long to wait for all of them; 2 seconds by default
  --silent N      the first N hosts never answer
";

struct Options {
    hosts: u8,
    silent: u8,
    delay: Duration,
    timeout: Duration,
}

/// Asks for `/` and returns the first line of the answer, and how many bytes followed the head.
fn fetch(host: SocketAddr) -> io::Result<(String, usize)> {
    let mut stream = TcpStream::connect(host)?; // each of these calls lets the other threads run
    // One write: `write!` would send a packet for each piece.
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {}\r\n\r\n", host.ip()).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.len()))
}

/// Starts a host, which answers each request with a page of its own, after a while or never.
fn host(number: u8, delay: Option<Duration>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, number], 0)))?;
    let address = listener.local_addr()?;
    drop(spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            drop(spawn(move || -> io::Result<()> {
                let _request = stream.read(&mut [0; 1024])?;
                sleep(delay.unwrap_or(Duration::MAX));
                let page = "x".repeat(1000 * usize::from(number));
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
                stream.write_all((head + &page).as_bytes())?;
                stream.shutdown(Shutdown::Write)
            }));
        }
    }));
    Ok(address)
}

/// Asks all hosts, and prints their answers.
fn run(options: &Options) -> io::Result<()> {
    let mut hosts = Vec::new();
    for number in 1..=options.hosts {
        hosts.push(host(number, (number > options.silent).then_some(options.delay))?);
    }
    // All at once, and for so long.
    let begin = Instant::now();
    let jobs = Group::new();
    for &host in &hosts {
        jobs.spawn(move || fetch(host));
    }
    if !jobs.join_timeout(options.timeout) {
        let late = jobs.kill_all(); // the threads unwind, and their connections are closed
        cli::say(NAME, format_args!("{late} of {} hosts did not answer in time", hosts.len()));
    }
    let took = begin.elapsed();
    // In the order of the hosts, whatever the order of their answers.
    for (host, job) in hosts.iter().zip(jobs.join_all()) {
        match job {
            Ok(Ok((status, bytes))) => cli::say(NAME, format_args!("{}: {status}, {bytes} bytes", host.ip())),
            Ok(Err(error)) => cli::say(NAME, format_args!("{}: {error}", host.ip())),
            Err(killed) => cli::say(NAME, format_args!("{}: {killed}", host.ip())),
        }
    }
    cli::say(NAME, format_args!("all of them together took {} ms", took.as_millis()));
    Ok(())
}

fn main() {
    let options = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    // The standard streams and the hub's two; of each host a listener, and both ends of a connection.
    cli::take_descriptors(NAME, 5 + 3 * u64::from(options.hosts));
    if let Err(error) = run(&options) {
        cli::fail(1, NAME, error);
    }
}

fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut options =
        Options { hosts: 5, silent: 0, delay: Duration::from_millis(200), timeout: Duration::from_secs(2) };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("hosts") => options.hosts = cli::count("--hosts", &mut parser)?,
            Long("silent") => options.silent = cli::count("--silent", &mut parser)?,
            Long("delay") => options.delay = cli::duration("--delay", &mut parser)?,
            Long("timeout") => options.timeout = cli::duration("--timeout", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(options)
}

// Output, with a last line that depends on the machine:
//
//     127.0.0.1: HTTP/1.0 200 OK, 1000 bytes
//     127.0.0.2: HTTP/1.0 200 OK, 2000 bytes
//     127.0.0.3: HTTP/1.0 200 OK, 3000 bytes
//     127.0.0.4: HTTP/1.0 200 OK, 4000 bytes
//     127.0.0.5: HTTP/1.0 200 OK, 5000 bytes
//     all of them together took ... ms
//
// Read next: src/group/mod.rs, how a group hears of the end of the threads.
