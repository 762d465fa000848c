//! The search for the holder of a lock of `std`: a look through the stacks, for a report.
//!
//! A `std::sync::Mutex` is a word, 0 or 1 or 2, which does not name the holder. But the holder has a guard, in a local
//! variable as a rule, and a guard is a pointer to the lock. So the stacks of the suspended green threads of this OS
//! thread are searched for such a pointer:
//!
//! ```text
//!   stack of a suspended green thread                        memory around the lock
//!   top     | frames of its functions      |
//!           | guard: MutexGuard { lock: ---+---------------> futex word   exact
//!           |                              |               > struct around the lock, up to NEAR below: an Arc
//!           | frames of the patched call   |               > protected data, just above
//!   frames' | ............................ |
//!   end     | (old bytes, not read)        |
//! ```
//!
//! The end of the frames is known for each suspended fiber (`switch/fiber.rs: frames`). The kernel reads the memory, so
//! that an unmapped address is an error and no fault, and AddressSanitizer does not object; nothing else runs on this
//! OS thread meanwhile, so nothing moves.
//!
//! The result is a guess. A slot in a frame that held a guard keeps the bytes until the slot is used again, so the
//! report may name a green thread that held the lock before. And the address of a `static` lock need not be in any
//! frame.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use crate::runtime::report::{MAX_LINES, label, lines};
use crate::switch::fiber::{Fiber, Foreign, Reason};
use crate::switch::root::Root;
use crate::switch::state::State;
use crate::sys::peek::peek;
use crate::sys::raw::read_memory;

/// The number of bytes read at once.
const PIECE: usize = 16 * 1024;

/// How far below the word a struct may begin that is taken to contain the lock: an `Arc` has two counters before the
/// value.
const NEAR: usize = 64;

/// How far from the word a pointer may be that still means the lock: a `RwLock` has two words, and the data follow.
const CLOSE: usize = 16;

/// How much of main's stack is read. The start of that stack is not known, and the frames near the end matter.
const MAIN: usize = 1024 * 1024;

/// How well a pointer matches the lock; the best comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The pointer is the address of the word.
    Exact,
    /// The pointer is that of the lock's other word, or of the data.
    Close,
    /// The pointer is that of a struct that may contain the lock.
    Near,
}

/// Returns how well `pointer` matches the futex at `word`, if at all.
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

/// Searches the memory of `frames` for the best pointer to `word`.
fn best_fit(frames: Range<usize>, word: usize) -> Option<Fit> {
    let mut piece = vec![0; PIECE];
    let mut best = None;
    // A pointer in a frame is aligned, so only whole words are looked at.
    let mut at = frames.start.next_multiple_of(size_of::<usize>());
    while at < frames.end {
        let len = PIECE.min(frames.end - at);
        let read = read_memory(at, &mut piece[..len]);
        let (words, _) = piece[..read].as_chunks();
        let found = words.iter().filter_map(|bytes| fit(usize::from_ne_bytes(*bytes), word)).min();
        best = best.into_iter().chain(found).min();
        // Unreadable memory ends the search; so does an exact fit, since there is no better one.
        if read < len || best == Some(Fit::Exact) {
            break;
        }
        at += len;
    }
    best
}

/// Returns the addresses of the frames of a suspended fiber.
fn frames_of(fiber: Fiber) -> Range<usize> {
    if !fiber.is_main() {
        return fiber.frames();
    }
    fiber.frames_of_main().map_or(0..0, |end| end..end.saturating_add(MAIN))
}

/// Returns those of `fibers` that have the best pointer to `word` of all.
fn holders(fibers: &[Fiber], word: usize) -> Vec<Fiber> {
    holders_with(fibers, word, Fit::Near)
}

/// Returns those of `fibers` that have the best pointer to `word` of all, one that fits as `worst` does or better.
fn holders_with(fibers: &[Fiber], word: usize, worst: Fit) -> Vec<Fiber> {
    let fit_of = |fiber: &Fiber| best_fit(frames_of(*fiber), word).filter(|fit| *fit <= worst);
    let found: Vec<(Fit, Fiber)> = fibers.iter().filter_map(|fiber| Some((fit_of(fiber)?, *fiber))).collect();
    let best = found.iter().map(|(fit, _)| *fit).min();
    found.into_iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, fiber)| fiber).collect()
}

/// Writes the report: the waiter in the futex at `word`, how long it has waited, and the likely holders of the lock.
pub(super) fn report(root: &Root, word: usize, waited: Duration) -> String {
    let me = root.current();
    let mut all = root.try_fibers();
    all.push(root.main());
    all.sort_by_key(|fiber| fiber.id.get());
    let others: Vec<Fiber> = all.iter().copied().filter(|fiber| *fiber != me).collect();
    // The waiter.
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
    // The likely holders, or all other green threads.
    let holders = holders(&others, word);
    if holders.is_empty() {
        text.push_str("\n none of the others has a pointer to it in its frames; these could hold it all the same:");
        lines(root, &mut text, &others, &all, MAX_LINES);
    } else {
        let one = if holders.len() > 1 { " one of" } else { "" };
        let _ = write!(text, "\n likely held, unless by another OS thread, by{one}");
        lines(root, &mut text, &holders, &all, MAX_LINES);
        text.push_str("\n which cannot run before this one has it");
    }
    text.push_str(
        "\n cure: greenling::sync::Mutex and the like, greenling::no_switch around what runs while std's is held, or \
         greenling::offload::blocking around this wait\n",
    );
    text
}

/// Returns the fibers of `waiting` with their addresses, if they are waiting for a foreign lock.
fn foreign_waits(all: &[Fiber]) -> Vec<(Fiber, usize)> {
    let parked = all.iter().filter(|fiber| fiber.state.get() == State::Parked);
    parked
        .filter_map(|fiber| match fiber.waits_for() {
            Reason::Foreign(what, address) if what != Foreign::Thread => Some((*fiber, address)),
            _ => None,
        })
        .collect()
}

/// Reports whether what `fiber` waits for has a holder: not a park, a channel or an event, which stay where they are in
/// the memory of many. A futex of `std` has its kind in the value that it has while it is waited for.
fn is_held(fiber: Fiber, address: usize) -> bool {
    match fiber.waits_for() {
        Reason::Foreign(Foreign::Futex, _) => peek(address).is_some_and(is_locked),
        Reason::Foreign(Foreign::Condvar | Foreign::Semaphore | Foreign::Barrier, _) => false,
        _ => true,
    }
}

/// Reports whether a futex of `std` with this value is a lock that is held and waited for: a `Mutex` is 2 then, a
/// `Once` that runs 5, and a `RwLock` has one of the two highest bits. A parked thread's is all ones.
fn is_locked(word: u32) -> bool {
    matches!(word, 2 | 5) || word >= 1 << 30 && word != u32::MAX
}

/// Removes the holders of those waits that may well end: no thread of this hub seems to hold the lock, or one that
/// waits for such a lock itself. What is left leads into a circle, or to a thread that waits for something else, which
/// nothing can end.
fn forget_hopeful(waits: &[(Fiber, usize)], held: &mut [Vec<Fiber>]) {
    let is_hopeful = |fiber: &Fiber, held: &[Vec<Fiber>]| {
        waits.iter().zip(held).any(|((waiter, _), holders)| waiter == fiber && holders.is_empty())
    };
    while let Some(at) = held.iter().position(|holders| holders.iter().any(|holder| is_hopeful(holder, held))) {
        held[at].clear();
    }
}

/// Writes the report of a hub in which all threads wait in foreign locks; none if another OS thread may well release
/// the locks, that is, if there are other OS threads, and the waits do not seem to lead into a circle.
pub(super) fn stuck_report(root: &Root) -> Option<String> {
    let mut all = root.try_fibers();
    all.push(root.main());
    all.sort_by_key(|fiber| fiber.id.get());
    let waits = foreign_waits(&all);
    // A thread that waits for the same lock has a pointer to it, too, and does not hold it.
    let holders_of = |address: usize| {
        let waits_too = |fiber: &Fiber| waits.iter().any(|(waiter, at)| waiter == fiber && *at == address);
        let others: Vec<Fiber> = all.iter().copied().filter(|fiber| !waits_too(fiber)).collect();
        // A pointer to what the lock is in is not enough here: each thread that shares an `Arc` has one.
        holders_with(&others, address, Fit::Close)
    };
    let held = waits.iter().map(|(fiber, at)| if is_held(*fiber, *at) { holders_of(*at) } else { Vec::new() });
    let mut held: Vec<Vec<Fiber>> = held.collect();
    forget_hopeful(&waits, &mut held);
    if held.iter().all(Vec::is_empty) && has_other_os_threads() {
        return None;
    }
    let mut text = String::from(
        "greenling: all threads of this hub wait for locks or channels of std's or like those, and nothing else can \
         happen in it: a deadlock, unless another OS thread ends one of the waits",
    );
    for ((fiber, _), holders) in waits.iter().zip(held).take(MAX_LINES) {
        lines(root, &mut text, &[*fiber], &all, 1);
        let labels: Vec<String> = holders.into_iter().map(label).collect();
        if !labels.is_empty() {
            let _ = write!(text, "\n    likely held by {}", labels.join(" or "));
        }
    }
    if waits.len() > MAX_LINES {
        let _ = write!(text, "\n  and {} more", waits.len() - MAX_LINES);
    }
    text.push('\n');
    Some(text)
}

/// Reports whether the process has another OS thread than this one, or does not know.
fn has_other_os_threads() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.count() > 1)
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
