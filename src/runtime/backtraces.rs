//! Backtraces of threads that wait: which have the same, and the frames that are the program's.
//!
//! A walk over the return addresses of one stack takes some microseconds; names and lines of them, milliseconds. So all
//! stacks are walked, those with the same addresses make a group, and only one of each group is captured with what
//! names need. The names are looked up when they are printed.
#![forbid(unsafe_code)]

use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::env;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::switch::fiber::Fiber;
use crate::switch::root::Root;
use crate::switch::suspended::Looker;
use crate::sys::unwind::return_addresses;

/// The number of frames by which stacks are compared: the innermost ones.
const COMPARED: usize = 256;

/// The backtrace of a thread at one moment: of one that runs, or of one that waits, as if it had been captured where it
/// waits.
///
/// `{}` shows the program's frames, from the call that waits to the closure of the thread, with the frames of the
/// runtime and of `std` left out at both ends; `{:#}` shows all. Names and lines are looked up when it is shown for the
/// first time, which may take some milliseconds, or seconds in a large program.
#[derive(Clone)]
pub struct ThreadBacktrace(Arc<Captured>);

/// What is shared by the clones of a [`ThreadBacktrace`].
struct Captured {
    /// What std has captured, from the unwinder's call to the base of the stack.
    all: Backtrace,
    /// The text of the program's frames, made once.
    short: OnceLock<String>,
}

impl fmt::Debug for ThreadBacktrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadBacktrace(\n{self})")
    }
}

impl fmt::Display for ThreadBacktrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return write!(f, "{}", self.0.all);
        }
        f.write_str(self.0.short.get_or_init(|| shortened(&self.0.all.to_string())))
    }
}

/// Threads with the same backtrace; made by [`hub::backtraces`](crate::hub::backtraces).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BacktraceGroup {
    /// The ids of the threads, as in [`ThreadInfo`](crate::hub::ThreadInfo), ascending.
    pub threads: Vec<u64>,
    /// The backtrace of each.
    pub backtrace: ThreadBacktrace,
}

/// Captures the backtrace of a fiber that has begun.
fn capture(looker: &Looker<'_>, fiber: Fiber) -> Option<ThreadBacktrace> {
    let mut all = None;
    looker.look(fiber, &mut || all = Some(Backtrace::force_capture()));
    Some(ThreadBacktrace(Arc::new(Captured { all: all?, short: OnceLock::new() })))
}

/// Returns the backtrace of the thread with this id, if there is one and it has begun.
pub(crate) fn of_thread(root: &Root, id: u64) -> Option<ThreadBacktrace> {
    let looker = Looker::new(root)?;
    let mut found = (root.main().id.get() == id).then(|| root.main());
    root.for_each_fiber(|fiber| {
        if fiber.id.get() == id {
            found = Some(fiber);
        }
    });
    capture(&looker, found?)
}

/// Returns the backtraces of all threads that have begun, the same ones together: the largest group first.
pub(crate) fn of_all(root: &Root) -> Vec<BacktraceGroup> {
    let Some(looker) = Looker::new(root) else { return Vec::new() };
    let mut fibers = vec![root.main()];
    root.for_each_fiber(|fiber| fibers.push(fiber));
    fibers.sort_unstable_by_key(|fiber| fiber.id.get());
    // Walk all stacks; the first of each kind is captured below.
    let mut kinds: HashMap<Vec<usize>, Vec<Fiber>> = HashMap::new();
    let mut addresses = Vec::new();
    for fiber in fibers {
        if looker.look(fiber, &mut || return_addresses(&mut addresses, COMPARED)) {
            match kinds.get_mut(&addresses) {
                Some(kind) => kind.push(fiber),
                None => drop(kinds.insert(addresses.clone(), vec![fiber])),
            }
        }
    }
    let mut groups: Vec<BacktraceGroup> = kinds
        .into_values()
        .filter_map(|fibers| {
            let backtrace = capture(&looker, *fibers.first()?)?;
            Some(BacktraceGroup { threads: fibers.iter().map(|fiber| fiber.id.get()).collect(), backtrace })
        })
        .collect();
    groups.sort_unstable_by_key(|group| (std::cmp::Reverse(group.threads.len()), group.threads[0]));
    groups
}

/// Returns the text of a backtrace without what is not the program's at both ends, numbered anew.
fn shortened(all: &str) -> String {
    // A frame is a line `  7: name`, and perhaps a second one, `at place`.
    let mut frames: Vec<(&str, &str)> = Vec::new();
    for line in all.lines().map(str::trim) {
        match (line.split_once(": "), frames.last_mut()) {
            (Some((number, name)), _) if number.bytes().all(|byte| byte.is_ascii_digit()) => frames.push((name, "")),
            (_, Some((_, place))) if line.starts_with("at ") => *place = line,
            _ => {}
        }
    }
    let own = own_frames(&frames);
    let mut text = String::new();
    for (number, (name, place)) in frames[own].iter().enumerate() {
        text += &format!("{number:4}: {name}\n");
        if !place.is_empty() {
            text += &format!("             {place}\n");
        }
    }
    text
}

/// Returns which frames are the program's: all from the first to the last that is; all, if none can be told.
fn own_frames(frames: &[(&str, &str)]) -> Range<usize> {
    let is_own = |(name, place): &(&str, &str)| !is_foreign(name, place);
    match (frames.iter().position(is_own), frames.iter().rposition(is_own)) {
        (Some(first), Some(last)) => first..last + 1,
        _ => 0..frames.len(),
    }
}

/// Reports whether a frame is the runtime's, std's, or what an OS thread begins with. Inlined functions have no path in
/// their names without type information, so the place counts, if there is one.
fn is_foreign(name: &str, place: &str) -> bool {
    const RUNTIME: [&str; 2] = ["greenling::", "corosensei::"];
    const STD: [&str; 5] = ["std::", "core::", "alloc::", "test::", "__rustc::"];
    const FIRST: [&str; 6] = ["main", "_start", "start_thread", "clone", "clone3", "<unknown>"];
    const PLACES: [&str; 5] =
        ["/library/core/src/", "/library/std/src/", "/library/alloc/src/", "/library/test/src/", "/corosensei-"];
    let path = name.trim_start_matches(['<', '&', '*', '(']);
    let begins = |starts: &[&str]| starts.iter().any(|start| path.starts_with(start));
    if begins(&RUNTIME) || name.starts_with("__") || name.starts_with("_Unwind") || name.contains("init_trampoline") {
        return true;
    }
    match place.strip_prefix("at ") {
        Some(place) => PLACES.iter().any(|part| place.contains(part)) || is_in_this_crate(place),
        None => begins(&STD) || FIRST.contains(&name),
    }
}

/// Reports whether a place is in the sources of this crate. `std` shows those below the current folder relative to it.
fn is_in_this_crate(place: &str) -> bool {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    match place.strip_prefix("./") {
        Some(below) => env::current_dir().is_ok_and(|folder| folder.join(below).starts_with(sources)),
        None => Path::new(place).starts_with(sources),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_between_the_first_and_the_last_of_the_program_are_shown() {
        let all = "   0: std::backtrace::Backtrace::force_capture\n   1: greenling::runtime::park::park\n             at src/runtime/park.rs:1:2\n\
                   2: program::waits\n             at /program/src/main.rs:7:9\n   3: core::iter::map\n   4: <program::Type as std::fmt::Debug>::fmt\n\
                   5: <core::panic::AssertUnwindSafe<F> as core::ops::FnOnce<()>>::call_once\n   6: __rust_try\n   7: <unknown>\n";
        let short = "   0: program::waits\n             at /program/src/main.rs:7:9\n   1: core::iter::map\n   2: <program::Type as std::fmt::Debug>::fmt\n";
        assert_eq!(shortened(all), short);
    }

    #[test]
    fn inlined_frames_are_told_by_their_places() {
        let frames = [
            ("suspend", concat!("at ", env!("CARGO_MANIFEST_DIR"), "/src/switch/fiber.rs:1:2")),
            ("take", "at /rustc/0123/library/core/src/option.rs:1:2"),
            ("suspend", "at ./main.rs:1:2"),
            ("call_once<fn()>", "at /rustc/0123/library/core/src/ops/function.rs:1:2"),
        ];
        assert_eq!(own_frames(&frames), 2..3);
    }

    #[test]
    fn all_is_shown_where_no_frame_is_the_programs() {
        assert_eq!(shortened("   0: <unknown>\n   1: <unknown>\n"), "   0: <unknown>\n   1: <unknown>\n");
    }
}
