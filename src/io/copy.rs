//! A `copy` as std's, with a fast path where the kernel can move the bytes.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use super::downcast;
use crate::fs::File;
use crate::net::copy as kernel;

/// The bytes that one read takes for a copy into a green file.
const CHUNK: usize = 64 * 1024;

/// Copies everything from a reader to a writer, as [`std::io::copy`], and returns the number of bytes.
///
/// Between two streams of this crate, sockets or [pipes](super::pipe), large chunks go through a pipe with `splice`,
/// and a regular file goes to such a stream with `sendfile`: the bytes do not enter this process. Small messages, and
/// all other kinds of readers and writers, go through a buffer. To and from an [`fs::File`](crate::fs::File) chunks are
/// large, since each is a job for another OS thread; between two such files a job lets the kernel move the bytes.
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
/// The timeouts of the streams apply to each wait.
///
/// # Errors
/// Those of the reader and the writer. As with std, bytes that were read and not yet written are lost: at most 64 KiB,
/// or 256 KiB out of an `fs::File`.
///
/// # Panics
/// Those of the reader and the writer: a kill or an expired [`timeout`](crate::timeout) loses as much as an error.
///
/// May switch: yes, if the reader or the writer does.
pub fn copy<R: Read + ?Sized, W: Write + ?Sized>(reader: &mut R, writer: &mut W) -> io::Result<u64> {
    // Files first: each of their reads and writes is a job.
    match (downcast::green_file(&*reader), downcast::green_file(&*writer)) {
        (Some(from), Some(to)) => return from.copy_to(to),
        (Some(from), None) => return from_file(from, writer),
        (None, Some(to)) => return into_file(reader, to),
        (None, None) => {}
    }
    // Then the streams and regular files between which the kernel can move bytes.
    match (downcast::origin(&*reader), downcast::target(&*writer)) {
        (Some(from), Some(to)) => kernel::copy(from, to),
        _ => io::copy(reader, writer),
    }
}

/// Copies from a green file to any writer.
fn from_file<W: Write + ?Sized>(from: &File, to: &mut W) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let piece = from.read_chunk()?;
        if piece.is_empty() {
            return Ok(total);
        }
        to.write_all(&piece)?;
        total += piece.len() as u64;
    }
}

/// Copies from any reader into a green file.
fn into_file<R: Read + ?Sized>(from: &mut R, mut to: &File) -> io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                total += n as u64;
            }
            // A signal came before any byte was read: nothing is lost, so try again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
