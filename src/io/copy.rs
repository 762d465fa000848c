//! `std::io::copy`, with a short cut where the kernel can move the bytes.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use super::known;
use crate::net::copy as kernel;

/// Copies everything from a reader to a writer, as [`std::io::copy`], and returns how many bytes that were.
///
/// Between two stream sockets of this crate large pieces go through a pipe with `splice`, and a regular file goes to such a
/// socket with `sendfile`: the bytes do not enter this process. Small messages, and all other kinds of readers and writers,
/// go through a buffer.
///
/// ```
/// use std::io::{Read, Write};
/// use greenling::io;
/// use greenling::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
/// let server = greenling::spawn(move || {
///     let (mut stream, _) = listener.accept().unwrap();
///     let mut file = std::fs::File::open("Cargo.toml").unwrap();
///     io::copy(&mut file, &mut stream).unwrap()
/// });
/// let mut text = String::new();
/// TcpStream::connect(addr)?.read_to_string(&mut text)?;
/// assert_eq!(text, std::fs::read_to_string("Cargo.toml")?);
/// assert_eq!(server.join().unwrap(), text.len() as u64);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Timeouts of the streams hold for each wait.
///
/// # Errors
/// Those of the reader and the writer. What was read by then and not yet written, at most 64 KiB, is lost, as with std's.
///
/// # Panics
/// Those of the reader and the writer: a kill or an expired [`timeout`](crate::timeout) loses as much as an error.
///
/// May switch: yes, if the reader or the writer does.
pub fn copy<R: Read + ?Sized, W: Write + ?Sized>(reader: &mut R, writer: &mut W) -> io::Result<u64> {
    match (known::origin(&*reader), known::socket(&*writer)) {
        (Some(from), Some(to)) => kernel::copy(from, to),
        _ => io::copy(reader, writer),
    }
}
