//! A text of limited length that is written without an allocation, for signal handlers.
#![forbid(unsafe_code)]

use std::fmt;

/// The size of a report. The buffer lies on the alternate stack, which is 8 KiB if `std` made it.
pub(super) const MESSAGE_LEN: usize = 1024;

/// A text of at most 1 KiB, written without an allocation. A longer text is cut off.
pub(crate) struct Message {
    /// The buffer of the text.
    text: [u8; MESSAGE_LEN],
    /// The number of bytes that are written.
    len: usize,
}

impl Message {
    /// Makes an empty text.
    pub(crate) const fn new() -> Message {
        Message { text: [0; MESSAGE_LEN], len: 0 }
    }

    /// Returns the bytes written so far.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

impl fmt::Write for Message {
    /// Appends `text`; an error says that its end was cut off.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = &mut self.text[self.len..];
        let fits = text.len().min(free.len());
        free[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?})", String::from_utf8_lossy(self.as_bytes()))
    }
}
