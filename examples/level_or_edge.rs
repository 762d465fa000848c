//! You will see what epoll says to the same events twice: level-triggered it tells what *is*, edge-triggered what has
//! *changed*.
//!
//! The sockets are Unix ones, whose bytes and connections are there as soon as the call that sends them returns: so the
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
#[path = "server_models/shared.rs"]
mod shared;

use epoll::{Epoll, Events};

const NAME: &str = "level_or_edge";

/// The same descriptor in two lists.
struct Both {
    /// Tells what is.
    level: Epoll,
    /// Tells what has changed.
    edge: Epoll,
    /// Room for what they say.
    events: Events,
}

impl Both {
    /// Puts `fd` into both, and prints the head of a table.
    fn watch(title: &str, fd: RawFd, interest: c_int) -> io::Result<Both> {
        let both = Both { level: Epoll::new()?, edge: Epoll::new()?, events: Events::new() };
        both.level.add(fd, interest)?;
        both.edge.add(fd, interest | EPOLLET)?;
        cli::say(NAME, format_args!("{title:<40} level  edge"));
        Ok(both)
    }

    /// Asks both, and prints what they say after `what` has happened.
    fn step(&mut self, what: &str) -> io::Result<()> {
        let level = told(&self.level, &mut self.events)?;
        let edge = told(&self.edge, &mut self.events)?;
        cli::say(NAME, format_args!("  {what:<38} {level:<6} {edge}"));
        Ok(())
    }
}

/// What a list says of its one descriptor.
fn told(list: &Epoll, events: &mut Events) -> io::Result<&'static str> {
    let Some((_, what)) = list.wait(events, false)?.next() else { return Ok("-") };
    Ok(match (what & EPOLLIN != 0, what & EPOLLOUT != 0) {
        (true, true) => "IN OUT",
        (true, false) => "IN",
        (false, true) => "OUT",
        (false, false) => "other",
    })
}

/// Something to read.
fn input() -> io::Result<()> {
    let (mut near, mut far) = UnixStream::pair()?;
    let mut both = Both::watch("reading", near.as_raw_fd(), EPOLLIN)?;
    both.step("nothing has come")?;
    far.write_all(b"hello!")?;
    both.step("6 bytes come")?;
    both.step("nobody reads")?;
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

/// Room to write.
fn output() -> io::Result<()> {
    let (mut near, mut far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let mut both = Both::watch("writing", near.as_raw_fd(), EPOLLOUT)?;
    both.step("there is room")?;
    both.step("nobody writes")?;
    until_would_block(|| near.write(&[0; 4096]))?;
    both.step("written until EAGAIN")?;
    until_would_block(|| far.read(&mut [0; 4096]))?;
    both.step("the peer has read everything")?;
    both.step("nobody writes")
}

/// Calls it until it says that it would have to wait.
fn until_would_block(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            result => drop(result?),
        }
    }
}

/// Clients in line.
fn arrivals() -> io::Result<()> {
    // A name that is no file, and nobody else's.
    let addr = SocketAddr::from_abstract_name(format!("{NAME}-{}", std::process::id()))?;
    let listener = UnixListener::bind_addr(&addr)?;
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
    if std::env::args_os().len() > 1 {
        cli::misused(NAME, "it takes no arguments");
    }
    for part in [input, output, arrivals] {
        part().unwrap_or_else(|error| cli::fail(1, NAME, error));
    }
}

// Its output stands in DESIGN.md, chapter 17, and a test compares.
//
// Read next: server_models/epoll_lt.rs and server_models/epoll_et.rs, which live with the one and with the other.
