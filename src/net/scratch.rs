//! The hub's scratch buffer, lent to a reader only while there is data, so that no waiter holds a buffer.
//!
//! A reader may let others run before the buffer is back, as a rule in a write. Then they borrow another one; the hub
//! keeps a few of those.
#![forbid(unsafe_code)]

use std::io;

use crate::runtime::hub::{Hub, hub};
use crate::runtime::source::Moved;

/// The hub's scratch buffer on loan, until the drop of this guard.
pub(crate) struct Scratch {
    /// The hub that gets the buffer back.
    hub: &'static Hub,
    /// The buffer; empty once the hub has it back.
    buffer: Box<[u8]>,
    /// The number of bytes that were read into the buffer.
    len: usize,
}

impl Moved for Scratch {
    #[inline]
    fn bytes(&self) -> usize {
        self.len
    }
}

impl Scratch {
    /// Borrows the buffer and calls `read` once to fill it.
    ///
    /// # Errors
    /// Those of `read`; the hub has the buffer back then.
    #[inline]
    pub(crate) fn filled_by(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Scratch> {
        let (_, hub) = hub()?;
        let mut scratch = Scratch { hub, buffer: hub.take_scratch(), len: 0 };
        scratch.len = read(&mut scratch.buffer)?;
        Ok(scratch)
    }

    /// Returns the bytes that were read.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Returns the size of the buffer.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.len()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.hub.return_scratch(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_keeps_the_buffers_of_readers_that_overlap() {
        let borrow = || Scratch::filled_by(|_| Ok(0)).unwrap();
        let places = |lent: &[Scratch]| {
            let mut places: Vec<_> = lent.iter().map(|scratch| scratch.buffer.as_ptr()).collect();
            places.sort_unstable();
            places
        };
        let first: Vec<_> = (0..4).map(|_| borrow()).collect();
        let made = places(&first);
        drop(first);
        // Something else takes the place of a buffer that was freed.
        let _others: Vec<_> = (0..4).map(|_| vec![1_u8; 64 * 1024]).collect();
        let second: Vec<_> = (0..4).map(|_| borrow()).collect();
        assert_eq!(places(&second), made);
    }
}
