//! Unix sockets, shaped like `std::os::unix::net`: the calls block the green thread, never the OS thread.
//!
//! ```
//! use std::io::{Read, Write};
//! use greenling::os::unix::net::UnixStream;
//!
//! let (mut near, mut far) = UnixStream::pair()?;
//! let greeter = greenling::spawn(move || near.write_all(b"hello").unwrap());
//! let mut text = String::new();
//! far.read_to_string(&mut text)?; // waits, so that the greeter runs
//! assert_eq!(text, "hello");
//! greeter.join().unwrap();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What differs from std
//!
//! As in [`net`](crate::net), a call that has to wait lets other green threads run, and a kill or an expired
//! [`timeout`](crate::timeout) unwinds the call.
//!
//! | std | here | difference |
//! |---|---|---|
//! | `UnixStream::{connect, connect_addr}` | same | while the listener's queue is full, the call tries again after pauses: see [`UnixStream::connect`] |
//! | `UnixStream::{pair, try_clone, local_addr, peer_addr, shutdown, take_error}` | same | |
//! | `set_read_timeout`, `set_write_timeout`, `read_timeout`, `write_timeout`, `set_nonblocking` | same | kept by the socket, not by the kernel |
//! | `Read`, `Write` for `UnixStream` and `&UnixStream`, vectored too | same | several green threads that wait in one direction are served in order |
//! | – | [`UnixStream::close`], [`UnixListener::close`], [`UnixDatagram::close`] | ends the socket and wakes its waiters with an error |
//! | `UnixListener::{bind, bind_addr, accept, incoming, try_clone, local_addr, take_error, set_nonblocking}` | same | acceptors are served in order |
//! | `UnixDatagram::{bind, bind_addr, unbound, pair, connect, connect_addr, send, recv, recv_from, ..}` | same | |
//! | `UnixDatagram::{send_to, send_to_addr}` | same | while the receiver's queue is full, the call tries again after pauses |
//! | [`SocketAddr`] | std's type | abstract names by `std::os::linux::net::SocketAddrExt` |
//! | `peer_cred`, `peek`, `set_passcred`, ancillary data (unstable) | – | `socket2::SockRef::from(&socket)` |
//! | `From<OwnedFd>`, `Into<OwnedFd>`, `AsFd`, `AsRawFd`, `IntoRawFd` | same | into: blocking again, unless `set_nonblocking(true)` was called |
//! | `FromRawFd` | – | an unsafe function: `OwnedFd::from_raw_fd(fd).into()` |
//! | `Send`, `Sync` | – | a socket stays on one OS thread; send std's type and convert there |
#![forbid(unsafe_code)]

pub use std::os::unix::net::SocketAddr;

pub use crate::net::unix::{Incoming, UnixDatagram, UnixListener, UnixStream};
