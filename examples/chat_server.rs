//! You will see a chat server: whatever one client types, every other one gets; try it with two or three of
//! `nc 127.0.0.1 PORT`. A client that reads too slowly is told how many lines it missed, and slows nobody down.
//!
//! One green thread per client waits for two things at once: a line from its client, and a line from anybody else.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::rc::Rc;

use greenling::channel::{BroadcastError, BroadcastReceiver, BroadcastSender, broadcast};
use greenling::net::{TcpListener, TcpStream};
use greenling::{select, spawn};

/// Lines that are kept for slow clients.
const BACKLOG: usize = 64;

/// Bytes that a client may send without a line break.
const LONGEST: usize = 1024;

/// A line, and the number of the client that it came from.
type Line = (u32, Rc<str>);

/// Serves one client until it leaves.
fn serve(me: u32, stream: &TcpStream, room: &BroadcastSender<Line>, heard: &BroadcastReceiver<Line>) -> io::Result<()> {
    let mut typed = Vec::new();
    let say = |text: String| {
        // Nobody listens? Then nobody hears it.
        let _ = room.send((me, text.into()));
    };
    say(format!("* {me} comes in"));
    writeln!(&mut &*stream, "* you are {me}")?;
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
                    Ok((_, text)) => writeln!(&mut &*stream, "{text}"),
                    Err(BroadcastError::Lagged(missed)) => writeln!(&mut &*stream, "* you missed {missed} lines"),
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

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| String::from("127.0.0.1:0"));
    let listener = match TcpListener::bind(&addr) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("chat_server: cannot listen on {addr}: {error}");
            std::process::exit(2);
        }
    };
    println!("chat on {}", listener.local_addr()?);
    let (room, _) = broadcast(BACKLOG);
    for (number, stream) in (1..).zip(listener.incoming()) {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                eprintln!("chat_server: {error}");
                greenling::sleep(std::time::Duration::from_millis(100));
                continue;
            }
        };
        let (room, heard) = (room.clone(), room.subscribe());
        drop(spawn(move || {
            if let Err(error) = serve(number, &stream, &room, &heard) {
                eprintln!("chat_server: client {number}: {error}");
            }
        }));
    }
    Ok(())
}

// Output, of three clients that come one after the other, as the first one sees it:
//
//     * you are 1
//     * 2 comes in
//     * 3 comes in
//     2: hello
//     * 2 leaves
//
// Read next: src/channel/broadcast.rs, then src/select.rs and DESIGN.md chapter 13.
