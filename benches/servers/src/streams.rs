//! What the Rust servers of streams share: TLS echo, a proxy, a chat room over WebSocket.
//!
//! ```text
//! PROGRAM tls           sends back what it gets, encrypted
//! PROGRAM proxy ADDR    passes everything on to the server at ADDR, and its answers back
//! PROGRAM chat          a room: what one member says goes to all
//! ```
//!
//! Each prints `listening on ADDR` and serves until killed.
//!
//! In the room each member has a queue of [`QUEUE`] messages. The member of which the queue is full when one more comes
//! is thrown out: the room waits for no member, and keeps no more than that for one. A chat that must lose nothing
//! would have to stop the speaker instead, and so all.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::{env, process};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tungstenite::protocol::WebSocketConfig;

/// Bytes of the buffer into which a connection is read.
pub const BUFFER: usize = 16 * 1024;

/// Messages that wait for a member of the chat room, at most.
pub const QUEUE: usize = 256;

/// What the command line asks for.
pub enum Service {
    /// Echo over TLS.
    Tls,
    /// A proxy in front of that address.
    Proxy(SocketAddr),
    /// A chat room.
    Chat,
}

impl Service {
    /// Returns what the command line asks for; ends the program if that is nothing.
    pub fn asked() -> Service {
        raise_limit();
        let mut arguments = env::args().skip(1);
        match (arguments.next().as_deref(), arguments.next().and_then(|addr| addr.parse().ok())) {
            (Some("tls"), None) => Service::Tls,
            (Some("proxy"), Some(to)) => Service::Proxy(to),
            (Some("chat"), None) => Service::Chat,
            _ => {
                eprintln!("usage: PROGRAM tls | proxy ADDR | chat");
                process::exit(2);
            }
        }
    }
}

/// Allows as many descriptors as this process may have: a connection has up to three where it has several threads.
pub fn raise_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without more of them there are fewer connections, which a driver sees.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Returns the configuration of TLS, with a new certificate that nothing but a driver of this package trusts.
pub fn tls_config() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name of a host");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that ring has")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into());
    Arc::new(config.expect("a certificate for its key"))
}

/// Returns the configuration of WebSocket: small buffers, since there are many members and messages are short.
pub fn web_socket_config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(16 * 1024)
}
