//! You will see a server that sends back whatever its clients send, thousands of them at once, on one OS thread. Try
//! `nc`, or the example `echo_client`. `--hubs N` starts N servers, on N OS threads.
//!
//! | file | has |
//! |---|---|
//! | `main.rs` | the accept loop and the service of one client: read this file first |
//! | `service.rs`, `client.rs` | what all green threads share; one connection from the greeting to the goodbye |
//! | `options.rs`, `listen.rs` | the command line; listeners, and the servers of the other hubs |
//! | `counters.rs`, `terminal.rs` | two green threads beside the server: one for signals, one for what is typed |
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::sync::Arc;

use greenling::net::TcpStream;
use greenling::server::TcpServer;
use greenling::signal::SIGTERM;

#[path = "../common/cli.rs"]
mod cli;
mod client;
mod counters;
mod listen;
#[path = "../common/log.rs"]
mod log;
mod options;
mod service;
mod terminal;

use client::{Client, Why};
use service::Service;

fn main() {
    let options = options::parse().unwrap_or_else(|what| cli::misused(options::NAME, what));
    let (listener, addr) = listen::first(&options);
    // Both hold signals, and so must come before other OS threads are started.
    let (asked, server) = (counters::signals(), TcpServer::new(listener).drain_on([SIGTERM]));
    let (service, writers) = Service::start(options);
    let others = listen::start_others(&service, addr);
    service.say(listen::greeting(addr));
    counters::show_when(asked, &service);
    terminal::watch(&service);
    let at_drain = Arc::clone(&service);
    serve(&service, server.on_drain(move |_| at_drain.say_who_is_left()));
    service.end(others, writers)
}

/// Runs the server of one hub, from the first client to the last.
fn serve(service: &Arc<Service>, server: TcpServer) {
    let host = Arc::clone(service);
    let handler = move |stream: TcpStream, peer| {
        let client = Client::greet(&host, &stream, peer);
        client.leave(echo(&stream, &client))
    };
    // The accept loop: `run` accepts, and calls the closure for each client in a green thread of its own.
    let server = service.configure(server);
    let own = service.options.own_thread_locals;
    service.check_end(if own { server.run_own(handler) } else { server.run(handler) });
}

/// Sends back what a client sends, and returns why the client left. This is the whole service: read, write, wait.
fn echo(stream: &TcpStream, client: &Client) -> Why {
    loop {
        // `read_with` lends a buffer while there are bytes. A thread that waits has none, and a stack of one 4 KiB
        // page.
        let echoed = stream.read_with(|bytes| match bytes {
            [] => Err(Why::Ended),
            bytes => client.send(stream, bytes),
        });
        match echoed {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return why,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Why::Silent,
            Err(error) => return Why::Broken(error),
        }
    }
}

// Read next: src/server/mod.rs, then `read_with` in src/net/tcp_stream.rs, then src/runtime/source.rs.
