//! Shows that select(2) waits for anything with a descriptor: here for the terminal too, so that typing a line stops
//! the server between two messages, without a thread that reads and a flag that is checked. The next rung, `poll`, has
//! the same with room for more than 1024 descriptors.
#![allow(unsafe_code)]

use std::io::{self, ErrorKind};

use crate::select::Server;
use crate::shared::{Listener, Service, check};

/// What has come in on standard input.
enum Input {
    /// A line with its end.
    Line,
    /// Less than a line.
    Part,
    /// Nothing, and nothing more will come.
    End,
}

/// Serves until a line is typed.
pub(crate) fn serve(listener: Listener, service: Service) -> io::Result<()> {
    let mut server = Server::new(listener, service)?;
    let mut stdin = Some(libc::STDIN_FILENO);
    loop {
        if !server.turn(stdin)? {
            continue;
        }
        match read_stdin() {
            Ok(Input::Line) => return Ok(()),
            Ok(Input::Part) => {}
            // Mended: at the end, input is readable for ever. The documents' server reads an empty line, takes it for
            // no command, and turns at full speed. Ours goes on without input, as a server in the background should.
            Ok(Input::End) => stdin = None,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => stdin = None,
        }
    }
}

/// Reads once from standard input.
//
// Mended: the documents call `readline`, which waits for the end of the line while the clients wait, and keeps a second
// line in a buffer that select does not know of.
fn read_stdin() -> io::Result<Input> {
    let mut bytes = [0; 256];
    // SAFETY: the kernel writes at most `len` bytes into the buffer, which is live for the call.
    let count = check(unsafe { libc::read(libc::STDIN_FILENO, bytes.as_mut_ptr().cast(), bytes.len()) } as i64)?;
    Ok(match &bytes[..count as usize] {
        [] => Input::End,
        input if input.contains(&b'\n') => Input::Line,
        _ => Input::Part,
    })
}
