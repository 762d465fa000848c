//! Who holds a lock of `std`'s: a search through the stacks, for a report.
//!
//! A `std::sync::Mutex` is a word, 0 or 1 or 2. It does not say who locked it. But whoever did has a guard, in a local
//! variable as a rule, and a guard is a pointer to the lock. So the stacks of the suspended green threads of this OS thread
//! are searched for one:
//!
//! ```text
//!   stack of a suspended green thread                        what the waiter waits for
//!   top     | frames of its functions      |
//!           | guard: MutexGuard { lock: ---+---------------> futex word   exact
//!           |                              |               > struct around it, up to NEAR below: an Arc of it
//!           | frames of the patched call   |               > what it protects, just above
//!   frames' | ............................ |
//!   end     | (old bytes, not looked at)   |
//! ```
//!
//! Where the frames end is known of each that waits (`switch/fiber.rs: frames`). They are read by the kernel, so that a
//! stack that is not what it seems is an error and no fault, and AddressSanitizer has nothing to say; nothing runs on this
//! OS thread meanwhile, so nothing moves.
//!
//! It is a guess. A place in a frame that held a guard once still does until it is used again, so a green thread may be
//! named that held the lock before. And the address of a `static` lock need not be in any frame.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use crate::runtime::report::{MOST, label, lines};
use crate::switch::fiber::Fiber;
use crate::switch::root::Root;
use crate::sys::raw::read_memory;

/// Bytes read at once.
const PIECE: usize = 16 * 1024;

/// How far below the word a struct may begin to count as one that the lock is in: an `Arc` has two counters before it.
const NEAR: usize = 64;

/// How far around the word a pointer still means the lock itself: a `RwLock` has two words, data begin behind them.
const CLOSE: usize = 16;

/// How far up main's stack is read. Where it begins is not known, and whoever locks is near its end.
const MAIN: usize = 1024 * 1024;

/// How well a pointer fits; the best comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It points to the word.
    Exact,
    /// To the lock's other word, or to the data.
    Close,
    /// To something that the lock may be a part of.
    Near,
}

/// How well `pointer` fits to the futex at `word`.
fn fit(pointer: usize, word: usize) -> Option<Fit> {
    if pointer == word {
        Some(Fit::Exact)
    } else if pointer.abs_diff(word) <= CLOSE / 2 || pointer > word && pointer - word <= CLOSE {
        Some(Fit::Close)
    } else if pointer < word && word - pointer <= NEAR {
        Some(Fit::Near)
    } else {
        None
    }
}

/// The best pointer to `word` among these addresses.
fn best_fit(frames: Range<usize>, word: usize) -> Option<Fit> {
    let mut piece = vec![0; PIECE];
    let mut best = None;
    let mut at = frames.start.next_multiple_of(size_of::<usize>());
    while at < frames.end {
        let len = PIECE.min(frames.end - at);
        let read = read_memory(at, &mut piece[..len]);
        let (words, _) = piece[..read].as_chunks();
        let found = words.iter().filter_map(|bytes| fit(usize::from_ne_bytes(*bytes), word)).min();
        best = best.into_iter().chain(found).min();
        if read < len || best == Some(Fit::Exact) {
            break;
        }
        at += len;
    }
    best
}

/// Where the frames of a suspended fiber are.
fn frames_of(fiber: Fiber) -> Range<usize> {
    if !fiber.is_main() {
        return fiber.frames();
    }
    fiber.frames_of_main().map_or(0..0, |end| end..end.saturating_add(MAIN))
}

/// Those of `fibers` with the best pointer to `word` of all.
fn holders(fibers: &[Fiber], word: usize) -> Vec<Fiber> {
    let found: Vec<(Fit, Fiber)> =
        fibers.iter().filter_map(|fiber| Some((best_fit(frames_of(*fiber), word)?, *fiber))).collect();
    let best = found.iter().map(|(fit, _)| *fit).min();
    found.into_iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, fiber)| fiber).collect()
}

/// The report: who waits in the futex at `word`, for how long, and who is likely to hold it.
pub(super) fn report(root: &Root, word: usize, waited: Duration) -> String {
    let me = root.current();
    let mut all = root.try_fibers();
    all.push(root.main());
    all.sort_by_key(|fiber| fiber.id.get());
    let others: Vec<Fiber> = all.iter().copied().filter(|fiber| *fiber != me).collect();
    let mut text = format!("greenling: {}", label(me));
    if !me.is_main() {
        let _ = write!(text, ", spawned at {},", me.spawned_at());
    }
    let _ = write!(
        text,
        " has blocked its OS thread for {:.1} s: it waits for a Mutex, RwLock, Condvar, Once, mpsc channel or park of std's, \
         and no green thread of its hub runs meanwhile",
        waited.as_secs_f64()
    );
    let holders = holders(&others, word);
    if holders.is_empty() {
        text.push_str("\n none of the others has a pointer to it in its frames; these could hold it all the same:");
        lines(root, &mut text, &others, &all, MOST);
    } else {
        let one = if holders.len() > 1 { " one of" } else { "" };
        let _ = write!(text, "\n likely held, unless by another OS thread, by{one}");
        lines(root, &mut text, &holders, &all, MOST);
        text.push_str("\n which cannot run before this one has it");
    }
    text.push_str(
        "\n cure: greenling::sync::Mutex and the like, greenling::no_switch around what runs while std's is held, or \
         greenling::offload::blocking around this wait\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn pointers_to_the_lock_fit_better_than_those_to_what_it_is_in() {
        let word = 0x7000_0000;
        let fits = [word, word - 4, word + 8, word - 16, word + 24, word - 72, 0].map(|pointer| fit(pointer, word));
        let [close, near] = [Fit::Close, Fit::Near].map(Some);
        assert_eq!(fits, [Some(Fit::Exact), close, close, near, None, None, None]);
    }

    #[test]
    fn a_pointer_in_a_frame_is_found_and_one_outside_is_not() {
        let lock = 7_u32;
        let mut frame = vec![0_usize; 10_000];
        let begin = frame.as_ptr().addr();
        let end = begin + size_of_val(&*frame);
        assert_eq!(best_fit(begin..end, (&raw const lock).addr()), None);
        frame[9_000] = (&raw const lock).addr() - 16;
        assert_eq!(best_fit(begin..end, (&raw const lock).addr()), Some(Fit::Near));
        frame[5] = (&raw const lock).addr();
        assert_eq!(best_fit(begin..end, (&raw const lock).addr()), Some(Fit::Exact));
        assert_eq!(best_fit(begin + 48..end, (&raw const lock).addr()), Some(Fit::Near));
        assert_eq!(best_fit(8..64, 8), None, "nothing is mapped there");
        black_box((frame, lock));
    }
}
