//! A proxy: two threads for each connection, one for each direction.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use greenling_servers::streams::BUFFER;

use super::{net, thread};

/// Passes on what the client sends to `to`, and the answers back. The end of one direction is passed on, too, and the
/// other direction goes on.
pub(super) fn forward(client: net::TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = net::TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (to_client, from_server) = (client.try_clone()?, server.try_clone()?);
    let back = thread::Builder::new().spawn(move || pump(from_server, to_client))?;
    let there = pump(client, server);
    back.join().map_err(|_| io::Error::other("a panic"))?.and(there)
}

/// Passes on one direction. Where that fails, nothing goes on: both connections are ended, and the other direction sees
/// that.
fn pump(mut from: net::TcpStream, mut to: net::TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let passed = from.read(&mut buffer).and_then(|length| to.write_all(&buffer[..length]).map(|()| length));
        match passed {
            Ok(0) => return to.shutdown(Shutdown::Write),
            Ok(_) => {}
            Err(error) => {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return Err(error);
            }
        }
    }
}
