//! The blocking servers of streams, threads for each connection. Where `net`, `sync` and `thread` come from says the
//! file that has this one as a module: that is all the difference between OS threads and green ones.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use greenling_servers::streams::{Service, tls_config};
use rustls::ServerConfig;

use super::{net, thread};

#[path = "chat.rs"]
mod chat;
#[path = "proxy.rs"]
mod proxy;
#[path = "tls.rs"]
mod tls;

/// What a connection is served with. A type without parameters: whether a thread may be given it, the compiler finds
/// out where threads are OS threads, and need not know where they are green.
#[derive(Clone)]
enum Work {
    Tls(Arc<ServerConfig>),
    Proxy(SocketAddr),
    Chat(chat::Room),
}

impl Work {
    fn serve(&self, stream: net::TcpStream) -> io::Result<()> {
        match self {
            Work::Tls(config) => tls::serve(stream, Arc::clone(config)),
            Work::Proxy(to) => proxy::forward(stream, *to),
            Work::Chat(room) => chat::attend(stream, room),
        }
    }
}

pub(crate) fn main() -> io::Result<()> {
    let work = match Service::asked() {
        Service::Tls => Work::Tls(tls_config()),
        Service::Proxy(to) => Work::Proxy(to),
        Service::Chat => Work::Chat(chat::Room::new()),
    };
    let listener = net::TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, work) = (stream?, work.clone());
        // What ends a connection is no concern of the others.
        drop(thread::Builder::new().spawn(move || work.serve(stream))?);
    }
    Ok(())
}
