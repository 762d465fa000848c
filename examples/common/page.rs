//! What a log writes at once: lines, after a note about lines that are missing.
#![forbid(unsafe_code)]

use std::fmt::{Display, Write as _};
use std::io::{self, Write};

use crate::cli;

/// The lines that are written at once, and what is missing before them.
pub(super) struct Page<W> {
    out: W,
    /// The lines as text; empty between two calls, and kept for the memory.
    text: String,
    /// Where each line of the text ends.
    ends: Vec<usize>,
    /// The number of lines that were dropped or could not be written, and were not mentioned yet.
    pub(super) missing: u64,
    /// The last line was written in part.
    is_torn: bool,
}

impl<W: Write> Page<W> {
    /// Returns an empty page of an output.
    pub(super) fn new(out: W) -> Page<W> {
        Page { out, text: String::new(), ends: Vec::new(), missing: 0, is_torn: false }
    }

    /// Says what is missing, then writes `lines`. After an error `missing` is what is missing now.
    pub(super) fn write<L: Display>(&mut self, lines: &[L]) -> io::Result<()> {
        self.text.clear();
        self.ends.clear();
        if self.is_torn {
            self.text.push('\n');
        }
        // Writing to a string does not fail.
        if self.missing > 0 {
            let _ = writeln!(self.text, "({} lines of the log are missing here)", self.missing);
        }
        // Each line, and where the line ends: after an error that says which lines were written.
        let said = self.text.len();
        for line in lines {
            self.text.push_str(&cli::fold(&format!("{line}\n")));
            self.ends.push(self.text.len());
        }
        let mut written = 0;
        let result = self.put(&mut written);
        self.is_torn = match written {
            0 => self.is_torn,
            written => !self.text[..written].ends_with('\n'),
        };
        if written >= said {
            self.missing = 0;
        }
        self.missing += self.ends.iter().filter(|end| **end > written).count() as u64;
        result
    }

    /// Writes the text, and counts the bytes.
    fn put(&mut self, written: &mut usize) -> io::Result<()> {
        while *written < self.text.len() {
            match self.out.write(&self.text.as_bytes()[*written..]) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
