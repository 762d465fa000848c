//! What the server does for clients, whatever the model: the answers, and the log.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cli;

/// How long a line of the log waits for the reader, unless the line before has waited in vain.
const LOG_PATIENCE: Duration = Duration::from_millis(100);

/// Lines of the log that could not be written.
static MISSING: AtomicU64 = AtomicU64::new(0);

/// What is sent for what comes in.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    /// The bytes that came.
    Echo,
    /// `thank you!` for each piece that one `recv` returned. The documents call such a piece a message, but TCP knows
    /// no messages: two that are sent in quick succession may arrive as one piece, and one as several.
    Thanks,
}

/// What the server does for clients.
#[derive(Clone, Copy)]
pub(crate) struct Service {
    /// What the server answers.
    pub(crate) reply: Reply,
    /// How many OS threads `green-hubs` has; 0 is one for each processor.
    pub(crate) hubs: usize,
    /// Whether nothing is logged.
    pub(crate) quiet: bool,
}

impl Service {
    /// Returns the answer to a piece of input.
    //
    // Mended: the documents decode each piece as text, to print it. A character may lie across two pieces, and a client
    // may send what is no text at all; either ends the server. Bytes are bytes here.
    pub(crate) fn answer<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        match self.reply {
            Reply::Echo => input,
            Reply::Thanks => b"thank you!",
        }
    }

    /// Logs that a client has come.
    pub(crate) fn came(&self, peer: SocketAddr) {
        self.log(format_args!("{peer} connected"));
    }

    /// Logs a departure, after `received` bytes of input.
    pub(crate) fn left(&self, peer: SocketAddr, received: u64, how: io::Result<()>) {
        match how {
            Ok(()) => self.log(format_args!("{peer} left after {received} bytes: closed by the client")),
            Err(error) => self.log(format_args!("{peer} left after {received} bytes: {}", cli::brief(&error))),
        }
    }

    /// Logs that a client cannot be served.
    pub(crate) fn refused(&self, peer: SocketAddr, why: impl std::fmt::Display) {
        self.log(format_args!("{peer} refused: {why}"));
    }

    /// Writes a line, in one piece since processes and threads share the output. Clients are served even if the log has
    /// no reader: a reader that stops costs a moment, once, and then lines, which are counted.
    fn log(&self, line: std::fmt::Arguments) {
        if self.quiet {
            return;
        }
        let mut line = cli::fold(&format!("{line}\n"));
        // What was lost is said where the lines are missing: before the next line.
        let missing = MISSING.swap(0, Ordering::SeqCst);
        if missing > 0 {
            line.insert_str(0, &format!("({missing} lines of the log are missing here)\n"));
        }
        let patience = if missing == 0 { LOG_PATIENCE } else { Duration::ZERO };
        if !cli::note(io::stdout(), &line, patience) {
            MISSING.fetch_add(missing + 1, Ordering::SeqCst);
        }
    }
}
