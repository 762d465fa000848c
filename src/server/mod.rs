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
//! let report = server.drain().unwrap(); // the client asks for nothing more
//! assert_eq!((report.closed_idle, report.killed), (1, 0));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What a server does that a loop around `accept` does not
//!
//! * **A limit is back-pressure**: when the limit is reached the server stops accepting, and drops nothing. Clients
//!   that connect then wait in the kernel's queue. [`Limit`] is one limit for the servers of several hubs.
//! * **No connection starves**: after some accepts the connections that are there have their turn.
//! * **Lack of descriptors is no disaster, nor is lack of memory for a stack**: accepting is put off for 10 ms, twice
//!   as long each time up to a second, and goes on as soon as a connection of the server ends. Clients wait in the
//!   queue meanwhile. Each time [`on_accept_error`](TcpServer::on_accept_error) is called, and [`Counters::backoffs`]
//!   counts the pauses. On request clients are refused instead, in an orderly way
//!   ([`refuse_when_exhausted`](TcpServer::refuse_when_exhausted)).
//! * **A thread in Rust's sense for each connection**, if that is wanted: with [`start_own`](TcpServer::start_own)
//!   handlers run in threads with thread-locals of their own, which share the handler.
//! * **A handler that panics** harms that one connection only, and is counted.
//! * **Time limits** for the first byte, for each wait, and for the whole connection.
//! * **Numbers**: [`Counters`], from any OS thread.
//! * **Names**: reports, panics and overflows call the thread of a connection `tcp SERVER <- CLIENT`, with both
//!   addresses, and say that it was spawned where the program started the server. The name is made when it is asked
//!   for. [`Thread::name`](crate::thread::Thread::name) does not have it.
//!
//! # The drain
//!
//! [`Server::drain`], [`ServerHandle::drain`] or a signal ([`TcpServer::drain_on_signals`]) begins a drain:
//!
//! 1. The kernel queues no more connections. A client that tries is answered when the port is closed, at the end
//!    of step 2: a refusal, or the next process that listens there.
//! 2. Connections in the kernel's queue are served, as far as the limit allows, and the port is closed.
//! 3. Connections that are *idle* are closed: at once, and when they become idle. The others go on.
//! 4. When the grace is over, or at once after [`ServerHandle::force`] or a second signal, the remaining handlers are
//!    killed.
//! 5. [`DrainReport`] accounts for every connection.
//!
//! **A connection is idle** when its handler waits in the first read since the last write: the handler has answered,
//! and nothing of the next request has come. A handler that waits in a second read has got a part of a request, and
//! is busy. A client that has connected and never sent a byte may have a request on the way; such a connection
//! counts as idle a second after the drain began. A handler that waits for something else than the connection is
//! busy. The handler of an idle connection is killed: the handler unwinds, and the stream is dropped and closed. Where
//! the rule is wrong, since there are no requests and answers, say [`close_idle(false)`](TcpServer::close_idle).
//!
//! A kill reaches a handler where it waits. A handler that computes, is in a [`shield`](crate::shield) or swallows
//! kills is given a second, then left alone and reported as `stuck`.
//!
//! The threads of a server that is dropped or forced end when they have their turn. After a main that returns they
//! have none: the process ends, or, on another OS thread than the first, their stacks are given up, with listener and
//! connections open. Call [`hub::shutdown`](crate::hub::shutdown) at the end of such a main.
//!
//! # Many hubs
//!
//! There are two ways. One listener, and each connection goes to the hub with the fewest: [`BalancedServer`], for
//! connections that last. Or one server for each hub, on listeners that share the port, with one handle and one limit
//! for all; the kernel spreads the connections by a hash, which costs nothing:
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
//! [`listen_fds`](fn@listen_fds) takes the listeners that systemd, or another supervisor that speaks its protocol,
//! has opened for the process. They outlive the process, so a drain skips its steps 1 and 2 for them: the port stays
//! open, and clients that are in the kernel's queue, or come now, are served by the next process.
#![forbid(unsafe_code)]

mod balance;
mod balanced;
mod connections;
mod drain;
mod handle;
mod limit;
mod listen_fds;
mod served;
mod settings;
mod tcp;
mod udp;

pub use balanced::BalancedServer;
pub use drain::DrainReport;
pub use handle::{Counters, ServerHandle};
pub use limit::Limit;
pub use listen_fds::{ListenFd, listen_fds};
pub use served::Served;
pub use tcp::{Server, TcpServer};
pub use udp::{Datagram, UdpServer};
