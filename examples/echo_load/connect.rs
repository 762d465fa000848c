//! Making a connection, from one of few permits to the first echo.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use greenling::net::TcpStream;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::client::Client;
use crate::failure::{Failed, Failure};
use crate::run::Run;

/// Connects and gets one echo, so that the server has accepted and knows the connection. Waits for a
/// permit first.
pub(crate) fn connect(run: &Rc<Run>, index: usize) -> Result<Client, Failed> {
    let left = run.connect_until.saturating_duration_since(Instant::now());
    let Some(_permit) = run.window.acquire_timeout(left) else {
        return Err((Failure::NotConnected, None));
    };
    if run.missing.get() >= run.options.in_flight {
        // A server that has let down so many clients serves none any more, and each client would wait as long as its
        // patience lasts.
        return Err((Failure::NotConnected, None));
    }
    // While the socket connects, no answer and an unknown error mean the same.
    let lost = |error: io::Error| match Failure::of(&error) {
        Failure::Other | Failure::NoAnswer => (Failure::NotConnected, Some(error)),
        failure => (failure, Some(error)),
    };
    let stream = begin_to_connect(run, index).map_err(lost)?;
    let patience = Some(run.options.patience);
    stream.set_read_timeout(patience).map_err(lost)?;
    stream.set_write_timeout(patience).map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    let client = Client::new(Rc::clone(run), index, stream);
    client.exchange(1, |_| {}).map_err(|(failure, error)| match failure {
        Failure::Other => (Failure::NotConnected, error),
        failure => (failure, error),
    })?;
    Ok(client)
}

/// Returns a socket on its way to the server. The first write waits until the connection is made, or fails.
fn begin_to_connect(run: &Run, index: usize) -> io::Result<TcpStream> {
    let addr = run.options.addr;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Some(source) = run.options.source(index) {
        bind(run, &socket, source)?;
    }
    match socket.connect(&SockAddr::from(addr)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from(std::net::TcpStream::from(socket)))
}

/// Gives a socket this address and a port of it. The kernel would search for one, port by port and all addresses in
/// each, as it does not know that no other program takes ports from this address: with thousands in use most time goes
/// there.
fn bind(run: &Run, socket: &Socket, source: Ipv4Addr) -> io::Result<()> {
    let mut tries = run.options.ports.len();
    loop {
        let port = run.ports.borrow_mut().entry(source).or_insert_with(|| run.options.ports()).next();
        let addr = SocketAddr::from((source, port.expect("it never ends")));
        tries -= 1;
        match socket.bind(&SockAddr::from(addr)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            outcome => return outcome,
        }
    }
}
