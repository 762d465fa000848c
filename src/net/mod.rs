//! TCP, shaped like `std::net`: the calls block the green thread, never the OS thread.
//!
//! A program that uses blocking sockets is ported by changing `std::net` to `greenling::net` and `std::thread` to
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
#![forbid(unsafe_code)]

mod addr;
mod options;
mod resolve;
mod tcp_listener;
mod tcp_stream;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::ToSocketAddrs;
pub use tcp_listener::{Incoming, TcpListener};
pub use tcp_stream::TcpStream;
