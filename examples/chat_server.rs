//! You will see a chat server: each client gets what the others type; try it with two or three of `nc 127.0.0.1 PORT`.
//! A client that reads too slowly is told how many lines it missed, and does not slow down the others.
//!
//! One green thread per client waits for two things at once: a line from the client, and a line from another client.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use greenling::channel::{BroadcastError, BroadcastReceiver, BroadcastSender, broadcast};
use greenling::net::{TcpListener, TcpStream};
use greenling::thread::Builder;
use greenling::{select, sleep};

#[path = "common/cli.rs"]
mod cli;
#[path = "common/log.rs"]
mod log;

use log::{Log, Output};

const NAME: &str = "chat_server";

const HELP: &str = "\
Tells each client what the others type.

usage: chat_server [--addr HOST:PORT]

  --addr HOST:PORT  where to listen: a free port of 127.0.0.1 by default
";

/// Lines that are kept for slow clients.
const BACKLOG: usize = 64;

/// Bytes that a client may send without a line break.
const LONGEST: usize = 1024;

/// A line, and the number of the client that sent the line.
type Line = (u32, Rc<str>);

/// Sends a whole line in one write. `writeln!` would write each piece by itself, and a connection that is closed with
/// unread bytes takes with it what the kernel has not sent.
fn tell(mut stream: &TcpStream, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())
}

/// Serves one client until the client leaves.
fn serve(me: u32, stream: &TcpStream, room: &BroadcastSender<Line>, heard: &BroadcastReceiver<Line>) -> io::Result<()> {
    let mut typed = Vec::new();
    let say = |text: String| {
        // Fails only if no client is there.
        let _ = room.send((me, text.into()));
    };
    say(format!("* {me} comes in"));
    tell(stream, &format!("* you are {me}"))?;
    let left = loop {
        select! {
            readable(stream) -> ready => {
                ready?;
                let mut buf = [0; 512];
                match (&mut &*stream).read(&mut buf) {
                    Ok(0) => break Ok(()),
                    Ok(n) => typed.extend_from_slice(&buf[..n]),
                    Err(error) => break Err(error),
                }
                // Whole lines go to the others, the rest stays for the next read.
                while let Some(end) = typed.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = typed.drain(..=end).collect();
                    say(format!("{me}: {}", String::from_utf8_lossy(&line).trim_end()));
                }
                if typed.len() > LONGEST {
                    break Err(io::Error::new(io::ErrorKind::InvalidData, "too long a line"));
                }
            }
            recv(heard) -> line => {
                let written = match line {
                    Ok((from, _)) if from == me => Ok(()),
                    Ok((_, text)) => tell(stream, &text),
                    Err(BroadcastError::Lagged(missed)) => tell(stream, &format!("* you missed {missed} lines")),
                    Err(_) => break Ok(()),
                };
                if written.is_err() {
                    break written;
                }
            }
        }
    };
    say(format!("* {me} leaves"));
    left
}

fn main() {
    let addr = cli::address(NAME, HELP, "127.0.0.1:0");
    let listener = TcpListener::bind(addr.as_str()).unwrap_or_else(|error| cli::cannot_listen(NAME, &addr, &error));
    let local = listener.local_addr().unwrap_or_else(|error| cli::fail(1, NAME, error));
    // The clients do not wait for the reader of the logs.
    let (log, _writer) = Log::start(Output::Out).unwrap_or_else(|error| cli::fail(1, NAME, error));
    let (errors, _writer) = Log::start(Output::Err).unwrap_or_else(|error| cli::fail(1, NAME, error));
    log.say(format!("chat on {local}"));
    let complaints = cli::Complaints::default();
    let (room, _) = broadcast(BACKLOG);
    for (number, stream) in (1..).zip(listener.incoming()) {
        let welcomed = stream.and_then(|stream| {
            let (room, heard, errors) = (room.clone(), room.subscribe(), errors.clone());
            Builder::new().spawn(move || {
                if let Err(error) = serve(number, &stream, &room, &heard) {
                    errors.say(format!("{NAME}: client {number}: {}", cli::brief(&error)));
                }
            })
        });
        match welcomed {
            Ok(client) => drop(client),
            Err(error) if cli::is_broken(&error) => {
                cli::fail(1, NAME, format_args!("cannot accept any more: {error}"));
            }
            // No descriptor, or no stack: a client that leaves makes room.
            Err(error) => {
                if complaints.are_due() {
                    errors.say(format!("{NAME}: cannot let clients in: {}", cli::brief(&error)));
                }
                sleep(Duration::from_millis(50));
            }
        }
    }
}

// Output, of three clients that come one after the other, as the first one sees it:
//
//     * you are 1
//     * 2 comes in
//     * 3 comes in
//     2: hello
//     * 2 leaves
//
// Read next: src/channel/broadcast.rs, then src/select.rs and docs/book, chapter 13.
