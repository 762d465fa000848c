//! The ring of a trace: the latest events of fixed size, and the latest text that they name.
//!
//! Both rings have a size that is given at the beginning. When a ring is full, what is new overwrites what is oldest,
//! so a trace of any length takes the memory of its rings.
//!
//! ```text
//!   events   | 8 | 9 | 6 | 7 |          4 places, 10 pushed so far: 6 to 9 are left, and 6 are lost
//!                      ^ next: 10 & 3
//!
//!   text     | n d | r e q u e s t |    positions count all bytes that were ever written, as a stream does
//!              ^ the end of the stream: what lies `size` bytes before it is overwritten
//! ```
//!
//! Invariant event-ring-1: the event with the number `n` lies at the place `n & (places - 1)`, and the byte with the
//! position `p` at `p & (size - 1)`; both sizes are powers of two. `pushed` and `written` only grow.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::TryReserveError;

/// The latest events: small copyable values.
#[derive(Debug)]
pub(crate) struct EventRing<T: Copy> {
    /// The places, all of them initialised.
    places: Box<[Cell<T>]>,
    /// The number of events pushed so far.
    pushed: Cell<u64>,
}

impl<T: Copy> EventRing<T> {
    /// Creates a ring of at least `events` places, filled with `blank`.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn new(events: usize, blank: T) -> Result<EventRing<T>, TryReserveError> {
        let places = filled(events, blank)?;
        Ok(EventRing { places, pushed: Cell::new(0) })
    }

    /// Adds an event, in place of the oldest one if the ring is full.
    #[inline(always)]
    pub(crate) fn push(&self, event: T) {
        let number = self.pushed.get();
        // The mask keeps the place in range (event-ring-1); `get` has no panic that would have to be compiled.
        if let Some(place) = self.places.get(number as usize & self.places.len().wrapping_sub(1)) {
            place.set(event);
        }
        self.pushed.set(number + 1);
    }

    /// Returns how many events were overwritten.
    pub(crate) fn lost(&self) -> u64 {
        self.pushed.get().saturating_sub(self.places.len() as u64)
    }

    /// Returns the events that are left, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        let mask = self.places.len().wrapping_sub(1);
        (self.lost()..self.pushed.get()).filter_map(move |number| Some(self.places.get(number as usize & mask)?.get()))
    }
}

/// The place of a text in the stream of a [`TextRing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextAt {
    /// The position of the first byte in the stream.
    pub(crate) from: u64,
    /// The number of bytes.
    pub(crate) len: u16,
}

/// The latest bytes of a stream of short texts.
#[derive(Debug)]
pub(crate) struct TextRing {
    /// The bytes, all of them initialised.
    bytes: Box<[Cell<u8>]>,
    /// The number of bytes written so far.
    written: Cell<u64>,
}

impl TextRing {
    /// Creates a ring of at least `size` bytes.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn new(size: usize) -> Result<TextRing, TryReserveError> {
        Ok(TextRing { bytes: filled(size, 0)?, written: Cell::new(0) })
    }

    /// Adds `text` to the stream, cut to `most` bytes at the end of a character, and to what the ring can hold.
    #[inline]
    pub(crate) fn push(&self, text: &str, most: u16) -> TextAt {
        let text = &text[..floor_boundary(text, self.bytes.len().min(usize::from(most)))];
        let (from, mask) = (self.written.get(), self.bytes.len().wrapping_sub(1));
        // The two pieces: up to the end of the ring, and from its start.
        let start = from as usize & mask;
        let (head, tail) = text.as_bytes().split_at(text.len().min(self.bytes.len() - start));
        for (place, byte) in self.bytes[start..].iter().zip(head) {
            place.set(*byte);
        }
        for (place, byte) in self.bytes.iter().zip(tail) {
            place.set(*byte);
        }
        // An empty text, too, has a position of its own.
        self.written.set(from + text.len().max(1) as u64);
        // No bits are lost: the text was cut to `most`.
        TextAt { from, len: text.len() as u16 }
    }

    /// Returns a text of the stream; `None` if it was overwritten, in whole or in part.
    pub(crate) fn get(&self, at: TextAt) -> Option<String> {
        if self.written.get() - at.from > self.bytes.len() as u64 {
            return None;
        }
        let mask = self.bytes.len().wrapping_sub(1);
        let byte = |position: u64| Some(self.bytes.get(position as usize & mask)?.get());
        let bytes = (at.from..at.from + u64::from(at.len)).map(byte).collect::<Option<Vec<u8>>>()?;
        String::from_utf8(bytes).ok()
    }
}

/// Returns the last end of a character of `text` at or before `at`, as `str::floor_char_boundary` of later compilers.
#[inline]
fn floor_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Returns places for at least `count` values, a power of two of them (event-ring-1).
fn filled<T: Copy>(count: usize, value: T) -> Result<Box<[Cell<T>]>, TryReserveError> {
    // Too many for a power of two are too many for `try_reserve_exact`: its error says so.
    let count = count.max(1).checked_next_power_of_two().unwrap_or(usize::MAX);
    let mut places = Vec::new();
    places.try_reserve_exact(count)?;
    places.resize_with(count, || Cell::new(value));
    Ok(places.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;

    #[test]
    fn the_latest_events_are_left_and_the_others_counted() {
        let ring = EventRing::new(5, 0).unwrap();
        assert_eq!((ring.lost(), ring.iter().count()), (0, 0));
        (0..8).for_each(|event| ring.push(event));
        assert_eq!((ring.lost(), ring.iter().collect::<Vec<_>>()), (0, (0..8).collect()));
        (8..21).for_each(|event| ring.push(event));
        assert_eq!((ring.lost(), ring.iter().collect::<Vec<_>>()), (13, (13..21).collect()));
    }

    #[test]
    fn a_text_comes_back_whole_or_not_at_all() {
        let ring = TextRing::new(64).unwrap();
        let mut random = Random::new();
        let mut written: Vec<(TextAt, String)> = Vec::new();
        for round in 0..if cfg!(miri) { 60 } else { 2000 } {
            let text: String =
                (0..random.below(40)).map(|_| ['a', 'ö', '語', '\n'][random.below(4) as usize]).collect();
            let at = ring.push(&text, 30);
            assert!(at.len <= 30);
            written.push((at, text));
            let end = at.from + u64::from(at.len.max(1));
            for (at, text) in written.iter().skip(round.max(20) - 20) {
                match ring.get(*at) {
                    Some(found) => assert!(text.starts_with(&found) && (found.len() > 26 || found == *text)),
                    None => assert!(end - at.from > 64),
                }
            }
        }
    }

    #[test]
    fn a_size_without_memory_is_an_error() {
        assert!(EventRing::new(usize::MAX, 0_u64).is_err());
        assert!(EventRing::new(1 << 62, 0_u64).is_err());
        assert!(TextRing::new(usize::MAX).is_err());
    }
}
