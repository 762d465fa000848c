//! You will see what epoll says to the same events twice: level-triggered it tells what *is*, edge-triggered what has
//! *changed*.
//!
//! The sockets are Unix ones: bytes and connections are there as soon as the call that sends them returns, so the
//! output is the same each time. Before a step's line is printed, both lists are asked once, without waiting.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use libc::{EPOLLET, EPOLLIN, EPOLLOUT, c_int};

#[path = "common/cli.rs"]
mod cli;
#[allow(dead_code, reason = "nothing is changed here that was added")]
#[path = "server_models/epoll.rs"]
mod epoll;
#[allow(dead_code, reason = "epoll.rs needs one of its functions")]
#[path = "server_models/shared/socket.rs"]
mod shared;

use epoll::{Epoll, Events};

const NAME: &str = "level_or_edge";

const HELP: &str = "\
What epoll says to the same events level-triggered and edge-triggered.

usage: level_or_edge
";

/// The same descriptor in two lists.
struct Both {
    /// The instance that reports levels.
    level: Epoll,
    /// The instance that reports edges.
    edge: Epoll,
    /// Room for the events of either.
    events: Events,
}

impl Both {
    /// Puts `fd` into both lists, and prints the head of a table.
    fn watch(title: &str, fd: RawFd, interest: c_int) -> io::Result<Both> {
        let both = Both { level: Epoll::new()?, edge: Epoll::new()?, events: Events::new() };
        both.level.add(fd, interest)?;
        both.edge.add(fd, interest | EPOLLET)?;
        cli::say(NAME, format_args!("{title:<40} level  edge"));
        Ok(both)
    }

    /// Asks both lists, and prints their answers after `what` has happened.
    fn step(&mut self, what: &str) -> io::Result<()> {
        let level = told(&self.level, &mut self.events)?;
        let edge = told(&self.edge, &mut self.events)?;
        cli::say(NAME, format_args!("  {what:<38} {level:<6} {edge}"));
        Ok(())
    }
}

/// Returns what a list says of the one descriptor.
fn told(list: &Epoll, events: &mut Events) -> io::Result<&'static str> {
    let Some((_, what)) = list.wait(events, false)?.next() else { return Ok("-") };
    Ok(match (what & EPOLLIN != 0, what & EPOLLOUT != 0) {
        (true, true) => "IN OUT",
        (true, false) => "IN",
        (false, true) => "OUT",
        (false, false) => "other",
    })
}

/// Shows the events of a socket with something to read.
fn input() -> io::Result<()> {
    let (mut near, mut far) = UnixStream::pair()?;
    // Two bytes that are left make no edge, three more do.
    let mut both = Both::watch("reading", near.as_raw_fd(), EPOLLIN)?;
    both.step("nothing has come")?;
    far.write_all(b"hello!")?;
    both.step("6 bytes come")?;
    both.step("nothing is read")?;
    near.read_exact(&mut [0; 4])?;
    both.step("4 are read, 2 are left")?;
    far.write_all(b"...")?;
    both.step("3 more come")?;
    near.read_exact(&mut [0; 5])?;
    both.step("all 5 are read")?;
    far.shutdown(Shutdown::Write)?;
    both.step("the peer has ended")?;
    assert_eq!(near.read(&mut [0; 8])?, 0);
    both.step("read: 0 bytes, the end")
}

/// Shows the events of a socket with room to write.
fn output() -> io::Result<()> {
    let (mut near, mut far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let mut both = Both::watch("writing", near.as_raw_fd(), EPOLLOUT)?;
    both.step("there is room")?;
    both.step("nothing is written")?;
    until_would_block(|| near.write(&[0; 4096]))?;
    both.step("written until EAGAIN")?;
    until_would_block(|| far.read(&mut [0; 4096]))?;
    both.step("the peer has read everything")?;
    both.step("nothing is written")
}

/// Repeats a call until the call would have to wait.
fn until_would_block(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            result => drop(result?),
        }
    }
}

/// Shows the events of a listener with clients in line.
fn arrivals() -> io::Result<()> {
    // A name that is no file, and belongs to this process.
    let addr = SocketAddr::from_abstract_name(format!("{NAME}-{}", std::process::id()))?;
    let listener = UnixListener::bind_addr(&addr)?;
    // B stays in line without an edge until C comes.
    let mut both = Both::watch("accepting", listener.as_raw_fd(), EPOLLIN)?;
    let mut clients = vec![UnixStream::connect_addr(&addr)?, UnixStream::connect_addr(&addr)?];
    both.step("A and B connect")?;
    let _a = listener.accept()?;
    both.step("A is accepted, B stays in line")?;
    clients.push(UnixStream::connect_addr(&addr)?);
    both.step("C connects")?;
    let _b = listener.accept()?;
    both.step("B is accepted, C stays in line")?;
    let _c = listener.accept()?;
    both.step("C is accepted")
}

fn main() {
    cli::no_arguments(NAME, HELP);
    cli::take_descriptors(NAME, 12);
    for part in [input, output, arrivals] {
        part().unwrap_or_else(|error| cli::fail(1, NAME, error));
    }
}

// The output stands in chapter 0 of docs/book, and a test compares the two.
//
// Read next: server_models/epoll_lt.rs and server_models/epoll_et.rs, which rely on the one and on the other.
