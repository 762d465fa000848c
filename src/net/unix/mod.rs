//! The sockets behind `os::unix::net`: streams, listeners and datagram sockets.
#![forbid(unsafe_code)]

mod datagram;
mod listener;
mod stream;

pub use datagram::UnixDatagram;
pub use listener::{Incoming, UnixListener};
pub use stream::UnixStream;
