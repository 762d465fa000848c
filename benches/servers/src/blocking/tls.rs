//! Echo over TLS: `rustls` around a blocking stream.

use std::io::{self, Read, Write};
use std::sync::Arc;

use greenling_servers::streams::BUFFER;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::net;

/// Sends back what comes, until the client says that it has ended.
pub(super) fn serve(stream: net::TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    let (mut stream, mut buffer) = (StreamOwned::new(tls, stream), vec![0; BUFFER]);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            stream.conn.send_close_notify();
            return stream.flush();
        }
        stream.write_all(&buffer[..length])?;
    }
}
