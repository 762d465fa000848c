//! You will see each line you type come back from the server: start the example `echo_server` first.
//!
//! Two threads use one connection at the same time: main sends what is typed, a green thread prints what comes back. So
//! a file of any size can be sent through: `echo_client < file | cmp - file`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::Shutdown;
use std::rc::Rc;

use greenling::io::stdin;
use greenling::net::TcpStream;
use greenling::thread::{self, Thread};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "echo_client";

const HELP: &str = "\
Sends lines from standard input to an echo server and prints what comes back.

usage: echo_client [--addr HOST:PORT]

  --addr HOST:PORT  where the server listens: 127.0.0.1:7007 by default

The end of input (Ctrl-D on a terminal) ends it, when all answers are in.
";

/// What main and the receiver share.
#[derive(Default)]
struct Traffic {
    /// Bytes sent to the server.
    sent: Cell<u64>,
    /// Bytes that came back.
    received: Cell<u64>,
    /// The input is over, so the server may close the connection.
    ended: Cell<bool>,
}

fn main() {
    let addr = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    let stream = match TcpStream::connect(addr.as_str()) {
        Ok(stream) => Rc::new(stream),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fail(format_args!("nothing listens on {addr}; start echo_server first"))
        }
        Err(error) => fail(format_args!("cannot connect to {addr}: {error}")),
    };
    let traffic = Rc::new(Traffic::default());
    let receiver = thread::spawn({
        let (stream, traffic, main) = (Rc::clone(&stream), Rc::clone(&traffic), thread::current());
        move || receive(&stream, &traffic, &main)
    });

    // What is typed goes to the server at once; whole lines are not needed.
    let interactive = stdin().is_terminal() && io::stdout().is_terminal();
    let mut input = stdin().lock();
    loop {
        if interactive {
            // A prompt comes after the answer.
            while traffic.received.get() < traffic.sent.get() {
                thread::park();
            }
            print(b"Input:");
        }
        let bytes = input.fill_buf().unwrap_or_else(|error| fail(format_args!("cannot read the input: {error}")));
        let length = bytes.len();
        if length == 0 {
            break;
        }
        traffic.sent.set(traffic.sent.get() + length as u64);
        (&*stream).write_all(bytes).unwrap_or_else(|error| lost(error));
        input.consume(length);
    }
    if interactive {
        print(b"\n");
    }
    traffic.ended.set(true);
    // Tells the server that there is no more. This fails if the server is gone, which the receiver finds out, too.
    let _ = stream.shutdown(Shutdown::Write);
    receiver.join().expect("the receiver does not panic");
    if traffic.received.get() < traffic.sent.get() {
        fail("the server closed the connection before all answers were in");
    }
}

/// Prints what comes back, up to the end of the connection.
//
// Mended: the documents' clients receive once for each line, so that the rest of an answer longer than 1024 bytes is
// taken for the next answer; and one client waits for the answer to an empty line, for which it has sent nothing.
fn receive(stream: &TcpStream, traffic: &Traffic, main: &Thread) {
    loop {
        let count = stream.read_with(|bytes| {
            print(bytes);
            bytes.len()
        });
        match count {
            Ok(0) if traffic.ended.get() => return,
            Ok(0) => lost("the server closed the connection"),
            Ok(count) => traffic.received.set(traffic.received.get() + count as u64),
            Err(error) => lost(error),
        }
        main.unpark();
    }
}

/// Prints raw bytes. Ends the process when the output has no reader any more.
fn print(bytes: &[u8]) {
    let mut stdout = io::stdout();
    if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        fail(error);
    }
}

fn lost(why: impl Display) -> ! {
    fail(format_args!("the connection is lost: {why}"))
}

fn fail(what: impl Display) -> ! {
    cli::fail(1, NAME, what)
}

fn parse() -> Result<String, String> {
    use lexopt::prelude::*;
    let mut addr = String::from("127.0.0.1:7007");
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("addr") => addr = cli::text("--addr", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(addr)
}

// Output:
//
//     Input:123
//     123
//     Input:345
//     345
//     Input:
//
// Read next: src/io/stdin.rs, how to wait for a terminal.
