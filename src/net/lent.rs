//! The hub's scratch buffer, lent to who has something to read: so nobody holds a buffer while waiting.
#![forbid(unsafe_code)]

use std::io::{self, Read};

use crate::runtime::hub::{Hub, hub};

/// The hub's scratch buffer while it is lent; goes back when dropped.
pub(crate) struct Lent {
    /// Where it goes back to.
    hub: &'static Hub,
    /// Empty once it went back.
    buffer: Box<[u8]>,
    /// How many bytes were read into it.
    len: usize,
}

impl Lent {
    /// Borrows the buffer and reads into it, once.
    ///
    /// # Errors
    /// Those of the read; the buffer is back then.
    #[inline]
    pub(crate) fn filled_by(mut from: impl Read) -> io::Result<Lent> {
        let (_, hub) = hub()?;
        let mut lent = Lent { hub, buffer: hub.take_scratch(), len: 0 };
        lent.len = from.read(&mut lent.buffer)?;
        Ok(lent)
    }

    /// What was read.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// How much there was room for.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.buffer.len()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.hub.return_scratch(std::mem::take(&mut self.buffer));
    }
}
