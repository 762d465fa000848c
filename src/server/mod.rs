//! Servers: one green thread for each connection or datagram, a limit on how many, and an orderly end.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! use greenling::net::TcpStream;
//! use greenling::server::TcpServer;
//! use greenling::spawn;
//!
//! let server = TcpServer::bind("127.0.0.1:0")?
//!     .max_connections(10_000)                    // more wait in the kernel's queue
//!     .first_byte_timeout(Duration::from_secs(10))
//!     .idle_timeout(Duration::from_secs(60))
//!     .grace(Duration::from_secs(5));
//! let server = server.start(|mut stream, _peer| {
//!     let mut request = [0; 4];
//!     while stream.read(&mut request)? > 0 {
//!         stream.write_all(b"answer")?;
//!     }
//!     Ok(())
//! })?;
//! let mut client = TcpStream::connect(server.local_addr())?;
//! client.write_all(b"ask!")?;
//! client.read_exact(&mut [0; 6])?;
//! let report = server.drain().unwrap(); // the client waits for nothing, so it need not be waited for
//! assert_eq!((report.closed_idle, report.killed), (1, 0));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What it does that a loop around `accept` does not
//!
//! * **A limit is back-pressure**: when the limit is reached nobody is accepted, and nobody is dropped. Who comes waits in
//!   the kernel's queue. [`Limit`] is one limit for the servers of several hubs.
//! * **Nobody starves**: after some accepts the connections that are there have their turn.
//! * **No descriptors is no disaster**: accepting is put off for 10 ms, twice as long each time up to a second, and goes on as
//!   soon as a connection of the server ends. Or clients are turned away, orderly
//!   ([`refuse_when_exhausted`](TcpServer::refuse_when_exhausted)).
//! * **A handler that panics** harms its own connection only; it is counted.
//! * **Time limits** for the first byte, for each wait, and for the whole connection.
//! * **Numbers**: [`Counters`], from any OS thread.
//!
//! # The drain
//!
//! [`Server::drain`], [`ServerHandle::drain`] or a signal ([`TcpServer::drain_on_signals`]) begins it:
//!
//! 1. The kernel takes no more connections. Whoever tries is answered when the port is closed, at the end of step 2: with a
//!    refusal, or by the next process that listens there.
//! 2. Who is in the kernel's queue is served, as far as the limit allows, and the port is closed.
//! 3. Connections that are *idle* are closed: at once, and when they become it. The others go on.
//! 4. When the grace is over, or at once after [`ServerHandle::force`] or a second signal, who is left is killed.
//! 5. [`DrainReport`] says what became of everybody.
//!
//! **A connection is idle** when its handler waits in the first read from it since it last wrote to it: it has answered, and
//! nothing of the next request has come. A handler that waits in a second read has got a part of a request, and is busy. A
//! client that has connected and never sent a byte may have its request on the way: it counts as idle a second after the
//! drain began. A handler that waits for something else than its connection is busy. What is idle is killed: its handler
//! unwinds, and the stream is closed as it is dropped. Where the rule is wrong, since there are no requests and answers, say
//! [`close_idle(false)`](TcpServer::close_idle).
//!
//! A kill reaches a handler where it waits. One that computes, is in a [`shield`](crate::shield) or swallows kills is given
//! a second, then left alone and reported as `stuck`.
//!
//! # Many hubs
//!
//! One server for each hub, on listeners that share the port, with one handle and one limit for all:
//!
//! ```
//! use greenling::Hubs;
//! use greenling::net::{TcpListener, TcpStream};
//! use greenling::server::{Limit, ServerHandle, TcpServer};
//!
//! let (handle, limit) = (ServerHandle::new(), Limit::new(1000));
//! let first = TcpListener::bind_reuse_port("127.0.0.1:0")?;
//! let addr = first.local_addr()?;
//! let hubs = Hubs::new(2).start({
//!     let (handle, limit) = (handle.clone(), limit.clone());
//!     move |_| {
//!         let listener = TcpListener::bind_reuse_port(addr)?;
//!         TcpServer::new(listener).handle(&handle).limit(&limit).run(|_stream, _peer| ())
//!     }
//! })?;
//! drop(first);
//! handle.drain(); // all of them
//! for report in hubs.join() {
//!     println!("{}", report.unwrap()?);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Socket activation
//!
//! [`listen_fds`] takes the listeners that systemd, or whoever speaks its protocol, has opened for the process. They outlive
//! it, so a drain skips its steps 1 and 2 for them: the port stays open, and who is in the kernel's queue, or comes now, is
//! served by the next process.
#![forbid(unsafe_code)]

mod drain;
mod hall;
mod handle;
mod limit;
mod listen_fds;
mod tcp;
mod udp;

pub use drain::DrainReport;
pub use hall::Served;
pub use handle::{Counters, ServerHandle};
pub use limit::Limit;
pub use listen_fds::{ListenFd, listen_fds};
pub use tcp::{Server, TcpServer};
pub use udp::{Datagram, UdpServer};
