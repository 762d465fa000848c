//! TCP and UDP, shaped like `std::net`: the calls block the green thread, never the OS thread.
//!
//! To port a program that uses blocking sockets, change `std::net` to `greenling::net` and `std::thread` to
//! `greenling::thread`:
//!
//! ```
//! use std::io::{Read, Write};
//! use greenling::net::{TcpListener, TcpStream};
//! use greenling::thread;
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! thread::spawn(move || {
//!     for stream in listener.incoming() {
//!         let mut stream = stream.unwrap();
//!         thread::spawn(move || std::io::copy(&mut &stream, &mut &stream).unwrap());
//!     }
//! });
//! let mut client = TcpStream::connect(addr)?;
//! client.write_all(b"echo")?;
//! let mut buf = [0; 4];
//! client.read_exact(&mut buf)?;
//! assert_eq!(&buf, b"echo");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What differs from std
//!
//! Every call that has to wait lets other green threads run; a kill or an expired [`timeout`](crate::timeout) unwinds
//! the call; a signal does not interrupt it. "same" means the same signature, results and kinds of errors: the test
//! `tests/net/compared.rs` runs the same programs against both.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `TcpStream::connect` | same | names are looked up on another OS thread |
//! | `TcpStream::connect_timeout` | same | |
//! | `Read`, `Write` for `TcpStream` and `&TcpStream`, vectored too | same | several green threads that wait in one direction are served in order |
//! | `peek` | same | |
//! | – | [`TcpStream::read_with`] | waits without a buffer, then lends the hub's |
//! | `shutdown` | same | |
//! | – | [`TcpStream::close`], [`TcpListener::close`] | ends the socket and wakes its waiters with an error |
//! | `try_clone` | same | clones share timeouts and mode |
//! | `set_read_timeout`, `set_write_timeout`, `read_timeout`, `write_timeout` | same | kept by the stream, not by the kernel: exact, a store each; `WouldBlock` when they pass |
//! | `set_nonblocking` | same | kept likewise; the kernel's socket is always non-blocking |
//! | `peer_addr`, `local_addr`, `set_nodelay`, `nodelay`, `set_ttl`, `ttl`, `take_error` | same | |
//! | `linger`, `set_linger` | – | unstable in std: `socket2::SockRef::from(&stream).set_linger(..)` |
//! | `os::linux::net::TcpStreamExt::{quickack, set_quickack}` | [`TcpStreamExt`](crate::os::linux::net::TcpStreamExt) | |
//! | `TcpListener::bind` | same | 4096 connections may wait for `accept`, std: 128 |
//! | `accept`, `incoming`, [`Incoming`] | same | acceptors are served in order |
//! | `TcpListener::{local_addr, try_clone, set_ttl, ttl, take_error, set_nonblocking}` | same | |
//! | `TcpListener::{set_only_v6, only_v6}` | – | deprecated in std |
//! | `into_incoming` | – | unstable in std |
//! | `From<OwnedFd>`, `Into<OwnedFd>`, `AsFd`, `AsRawFd`, `IntoRawFd` | same | into: blocking again, unless `set_nonblocking(true)` was called |
//! | `FromRawFd` | – | an unsafe function: `OwnedFd::from_raw_fd(fd).into()` |
//! | – | `From` std's type and into it | timeouts and data go along |
//! | `Send`, `Sync` | – | a socket stays on one OS thread; send std's type and convert there |
//! | `UnwindSafe`, `RefUnwindSafe` | same | |
//! | `Debug` | same | |
//! | [`ToSocketAddrs`] and all implementations | same | a separate trait, since std's would block on a name |
//! | `UdpSocket` with all its methods | same | several green threads that wait for a datagram are served in order |
//! | – | [`UdpSocket::close`] | wakes the waiters of this handle with an error |
//! | – | [`copy_bidirectional`] | the inside of a proxy; the kernel moves large pieces |
//!
//! Two things to know about clones. After [`close`](TcpStream::close), the clones see the end of the connection. And if
//! one clone is turned into std's type, or a child process makes its duplicate blocking, the kernel's socket is
//! blocking for all clones. Green clones still park, because their calls ask the kernel not to wait (`MSG_DONTWAIT`).
//! Three calls have no such flag. An `accept` of a listener that was cloned, converted or lent (`as_fd`) first makes
//! the socket non-blocking, in all processes that share it. Before [`io::copy`](crate::io::copy) and
//! [`copy_bidirectional`] leave the moving of large chunks to the kernel, and after each wait, they check the mode: a
//! process that makes a socket blocking in between may stop the hub for as long as the kernel waits.
//!
//! Urgent (out-of-band) data is not supported: a read stops at the mark and may then wait although there is more.
#![forbid(unsafe_code)]

mod addr;
pub(crate) mod copy;
pub(crate) mod handle;
mod hosts;
pub(crate) mod options;
mod resolve;
pub(crate) mod scratch;
mod tcp_listener;
mod tcp_stream;
mod udp;
pub(crate) mod unix;

#[cfg(feature = "monkey")]
pub(crate) use hosts::Family;
#[cfg(feature = "monkey")]
pub(crate) use resolve::on_lookup_thread;
pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::ToSocketAddrs;
pub use copy::{Duplex, copy_bidirectional};
pub(crate) use tcp_listener::BACKLOG;
pub use tcp_listener::{Incoming, TcpListener};
pub use tcp_stream::TcpStream;
pub use udp::UdpSocket;
