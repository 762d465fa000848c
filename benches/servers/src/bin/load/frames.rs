//! The little of WebSocket (RFC 6455) that a driver needs: the request of the upgrade, frames of a client, which are
//! masked, and frames of a server, which are not. Pure.
#![forbid(unsafe_code)]

/// The request that asks for the upgrade. The key is always the same: the answer's proof is not what is measured.
pub(crate) const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What the answer to [`UPGRADE`] has to contain: the proof for that key, from the RFC.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A message of bytes in one frame.
pub(crate) const BINARY: u8 = 2;
/// The end of a connection.
pub(crate) const CLOSE: u8 = 8;
/// A question whether the other side is there.
pub(crate) const PING: u8 = 9;
/// The answer to a ping.
pub(crate) const PONG: u8 = 10;

/// The mask of all frames: any four bytes will do where no proxy is to be protected.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// Appends a masked frame to `out`.
pub(crate) fn write_frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(0x80 | kind);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A frame of a server, at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// What the frame is for: [`BINARY`] and the others.
    pub(crate) kind: u8,
    /// What the frame carries.
    pub(crate) payload: &'a [u8],
    /// How many bytes the frame takes.
    pub(crate) length: usize,
}

/// Returns the frame at the beginning of `bytes`; `None` if more has to come.
///
/// # Errors
/// A word about a frame that no server may send here.
pub(crate) fn read_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    // Servers of this package send whole messages, without a mask.
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame that begins with {first:#x} {second:#x}"));
    }
    let (size, head) = match second & 0x7f {
        126 => match rest.first_chunk() {
            Some(size) => (usize::from(u16::from_be_bytes(*size)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(size) => (u64::from_be_bytes(*size) as usize, 10),
            None => return Ok(None),
        },
        short => (usize::from(short), 2),
    };
    if size > 1 << 24 {
        return Err(format!("a frame of {size} bytes"));
    }
    let payload = bytes.get(head..head + size);
    Ok(payload.map(|payload| Frame { kind: first & 0x0f, payload, length: head + size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's frame.
    fn unmasked(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | kind];
        match payload.len() {
            short @ 0..=125 => frame.push(short as u8),
            middle @ 126..=0xffff => {
                frame.push(126);
                frame.extend((middle as u16).to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_of_all_lengths_are_read_wherever_they_are_cut() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let frame = unmasked(BINARY, &payload);
            for cut in (0..frame.len().min(20)).chain([frame.len() - 1]) {
                assert_eq!(read_frame(&frame[..cut]), Ok(None), "{size} bytes cut at {cut}");
            }
            let read = read_frame(&frame).unwrap().unwrap();
            assert_eq!((read.kind, read.payload, read.length), (BINARY, &payload[..], frame.len()));
        }
    }

    #[test]
    fn tungstenite_reads_what_is_written() {
        use std::io::{Cursor, Read, Write};
        use tungstenite::protocol::{Role, WebSocket};

        /// A stream that is only read.
        struct Input(Cursor<Vec<u8>>);
        impl Read for Input {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.read(buf)
            }
        }
        impl Write for Input {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                Ok(buf.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut bytes = Vec::new();
        for size in [0, 5, 200, 70_000] {
            write_frame(&mut bytes, BINARY, &vec![7; size]);
        }
        let mut socket = WebSocket::from_raw_socket(Input(Cursor::new(bytes)), Role::Server, None);
        for size in [0, 5, 200, 70_000] {
            assert_eq!(socket.read().unwrap().into_data(), vec![7; size]);
        }
    }

    #[test]
    fn frames_that_no_server_may_send_are_refused() {
        assert!(read_frame(&[0x82, 0x80]).is_err(), "masked");
        assert!(read_frame(&[0x02, 0x00]).is_err(), "a part of a message");
        assert!(read_frame(&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]).is_err(), "far too long");
    }
}
