//! What the photographs of a fresh thread show: its words, and what each of them is for.

#![forbid(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_ushort};
use std::mem::offset_of;
use std::ops::Range;

use super::probe::{self, Frame, Roll};
use super::unsupported::Unsupported;

/// The bytes of a word.
pub(super) const WORD: usize = size_of::<usize>();

/// A `locale_t`, as the C library's headers have it: macros of `ctype.h` read these fields.
#[repr(C)]
struct Locale {
    categories: [usize; 13],
    class: usize,
    lower: usize,
    upper: usize,
}

/// The state of a thread's resolver, as the header of the resolver has it.
#[repr(C)]
pub(super) struct Resolver {
    retransmit: c_int,
    retry: c_int,
    options: c_ulong,
    servers: c_int,
    addresses: [[u32; 4]; 3],
    id: c_ushort,
    search: [usize; 7],
    domain: [c_char; 256],
    code: c_ulong,
    bits: c_uint,
    sort: [[u32; 2]; 10],
    hooks: [usize; 2],
    error: c_int,
    socket: c_int,
    flags: c_uint,
    private: [usize; 7],
}

/// The words of [`Resolver`] that are 0 while the thread has not used it: those up to the number of servers.
pub(super) const RESOLVER_USED: usize = (offset_of!(Resolver, servers) + size_of::<c_int>()).div_ceil(WORD);

/// What the photographs show. Distances begin at the thread pointer.
#[derive(Debug)]
pub(super) struct Seen {
    /// `struct pthread` as it begins, without what points into the probe's own stack.
    pub(super) pthread: Vec<usize>,
    /// The C library's own thread-locals as they begin, and where they are.
    pub(super) libc: Vec<usize>,
    pub(super) libc_at: isize,
    /// The words of both that point into the block; in the words above each is a distance from the thread pointer.
    pub(super) relative: Vec<isize>,
    /// The words by which malloc knows the cache and the arena of a thread, and what they hold before the first call.
    /// Green threads have them in common with their OS thread: a cache for each would hold memory back, and they never
    /// run at the same time.
    pub(super) malloc: Vec<(isize, usize)>,
    /// The byte that says whether a pthread key has a value.
    pub(super) key_flag: isize,
    /// The thread's tables of character classes, each with the address of the global locale's.
    pub(super) ctype: [(isize, usize); 3],
    /// Pointers to buffers that the C library frees at a thread's end.
    pub(super) buffers: Vec<isize>,
    /// What `dlerror` is to say.
    pub(super) dlerror: Option<isize>,
    /// The state of the resolver.
    pub(super) resolver: isize,
    /// The pointer to the thread's state of random numbers, if they are made in user space.
    pub(super) random: Option<isize>,
    /// Four words: lowest address of the stack, size, and the size of its guard as it is and as it is reported.
    pub(super) stack: Option<isize>,
}

/// Two photographs of the same words, the second one taken later.
struct Pair<'a> {
    before: &'a [usize],
    after: &'a [usize],
    at: isize,
}

impl<'a> Pair<'a> {
    /// Returns the words that differ: where, before, after.
    fn changes(&self) -> impl Iterator<Item = (isize, usize, usize)> + use<'a> {
        let at = self.at;
        let words = self.before.iter().zip(self.after).enumerate();
        words.filter(|(_, (a, b))| a != b).map(move |(index, (a, b))| (at + (index * WORD) as isize, *a, *b))
    }
}

impl Seen {
    /// Looks at the photographs. `block` has the addresses of the probe's block; `list` and `tables` are places in
    /// `struct pthread`: the link of the list of all threads, and the pointers to tables of values of pthread keys.
    pub(super) fn develop(
        roll: &Roll,
        frame: &Frame,
        block: &Range<usize>,
        list: usize,
        tables: &Range<usize>,
    ) -> Result<Self, Unsupported> {
        let below = -(frame.below as isize);
        let pthread = |before: usize, after: usize| Pair {
            before: &roll.shots[before].pthread,
            after: &roll.shots[after].pthread,
            at: below,
        };
        let libc = |before: usize, after: usize| Pair {
            before: &roll.shots[before].libc,
            after: &roll.shots[after].libc,
            at: frame.libc_at,
        };
        let malloc: Vec<(isize, usize)> =
            libc(probe::FRESH, probe::MALLOC).changes().map(|(at, unused, _)| (at, unused)).collect();
        if malloc.is_empty() || pthread(probe::FRESH, probe::MALLOC).changes().next().is_some() {
            return Err(Unsupported::Probe("the words of malloc are not to be found"));
        }
        let texts: Vec<_> = pthread(probe::LOCALE, probe::TEXTS).changes().collect();
        let texts = texts.into_iter().chain(libc(probe::LOCALE, probe::TEXTS).changes());
        let buffers = texts.filter(|(_, before, after)| *before == 0 && roll.texts.contains(after));
        // dlerror, asked twice, frees what it said, and then has nothing more to say.
        let taken: Vec<_> = libc(probe::FAILED, probe::TAKEN).changes().map(|(at, ..)| at).collect();
        let mut failed = libc(probe::TEXTS, probe::FAILED).changes().filter(|(_, before, _)| *before == 0);
        let mut random = pthread(probe::TAKEN, probe::RANDOM).changes();
        let mut seen = Self {
            pthread: Vec::new(),
            libc: Vec::new(),
            libc_at: frame.libc_at,
            relative: Vec::new(),
            malloc,
            key_flag: 0,
            ctype: ctype(roll, frame)?,
            buffers: buffers.map(|(at, ..)| at).collect(),
            dlerror: failed.find(|(at, ..)| taken.contains(at)).map(|(at, ..)| at),
            resolver: roll.resolver,
            random: random.next().filter(|(_, before, _)| *before == 0).map(|(at, ..)| at),
            stack: stack(roll, frame),
        };
        seen.fresh_words(roll, frame, block, list);
        let first = seen.pthread[tables.start / WORD].wrapping_add(frame.below);
        seen.key_flag = key_flag(roll, tables, first)? as isize + below;
        if !block.contains(&roll.pointer.wrapping_add_signed(seen.resolver)) {
            return Err(Unsupported::Probe("the resolver's state is not to be found"));
        }
        Ok(seen)
    }

    /// Makes words that fit any block out of the first photograph.
    fn fresh_words(&mut self, roll: &Roll, frame: &Frame, block: &Range<usize>, list: usize) {
        let shot = &roll.shots[probe::FRESH];
        let mut relative = Vec::new();
        let mut develop = |words: &[usize], at: isize| -> Vec<usize> {
            let one = |(index, word): (usize, &usize)| {
                if block.contains(word) {
                    relative.push(at + (index * WORD) as isize);
                    word.wrapping_sub(roll.pointer)
                } else if (roll.stack.0..roll.stack.1).contains(word) {
                    // Its stack, and where an unwinding thread would end: the frame of a function that returned.
                    0
                } else {
                    *word
                }
            };
            words.iter().enumerate().map(one).collect()
        };
        let below = -(frame.below as isize);
        self.pthread = develop(&shot.pthread, below);
        self.libc = develop(&shot.libc, frame.libc_at);
        // The list of all threads, which setuid and dlopen walk: a green thread is in none. A link that points to
        // itself also tells a block from an OS thread's own.
        for index in [list / WORD, list / WORD + 1] {
            self.pthread[index] = below.wrapping_add_unsigned(list) as usize;
            relative.push(below + (index * WORD) as isize);
        }
        relative.sort_unstable();
        relative.dedup();
        self.relative = relative;
        // Without a stack of its own the C library would look for the first thread's; the owner of a block may say
        // more.
        if let Some(stack) = self.stack {
            let index = stack.wrapping_sub(below) as usize / WORD;
            self.pthread[index..index + 4].fill(0);
        }
    }
}

/// Returns the place of the byte in `struct pthread` that the first value of a pthread key set, beside the value
/// itself, which lies in a table: the one at `first`, or one that is allocated and hangs in `tables`.
fn key_flag(roll: &Roll, tables: &Range<usize>, first: usize) -> Result<usize, Unsupported> {
    let (before, after) = (&roll.shots[probe::MALLOC].pthread, &roll.shots[probe::KEY].pthread);
    let bytes = |words: &[usize]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let (before, after) = (bytes(before), bytes(after));
    // The first table lies right before the pointers to all tables.
    let values = first..tables.start;
    let found: Vec<usize> = (0..before.len())
        .filter(|at| before[*at] != after[*at] && !tables.contains(at) && !values.contains(at))
        .collect();
    match found[..] {
        [at] if before[at] == 0 && after[at] == 1 => Ok(at),
        _ => Err(Unsupported::Probe("the flag of values of pthread keys is not to be found")),
    }
}

/// Returns the places of the tables of character classes, and those in the global locale, which a fresh thread has.
fn ctype(roll: &Roll, frame: &Frame) -> Result<[(isize, usize); 3], Unsupported> {
    let odd = Unsupported::Probe("the words of the locale are not to be found");
    let (before, after) = (&roll.shots[probe::KEY].libc, &roll.shots[probe::LOCALE].libc);
    let mut changed = before.iter().zip(after).filter(|(_, now)| **now == roll.locale);
    let (Some((global, _)), None) = (changed.next(), changed.next()) else { return Err(odd) };
    let fields = [offset_of!(Locale, class), offset_of!(Locale, lower), offset_of!(Locale, upper)];
    let mut words = [(0, 0); 3];
    for ((word, field), at) in words.iter_mut().zip(fields).zip(roll.ctype) {
        let index = at.wrapping_sub(frame.libc_at) / WORD as isize;
        if usize::try_from(index).ok().is_none_or(|index| index >= before.len()) {
            return Err(odd);
        }
        *word = (at, global + field);
    }
    Ok(words)
}

/// Returns the place of the words that say where a thread's stack is.
fn stack(roll: &Roll, frame: &Frame) -> Option<isize> {
    let (low, high, guard) = roll.stack;
    let words = &roll.shots[probe::FRESH].pthread;
    // The guard may be larger than what was asked for and is reported.
    let matches = |words: &[usize]| {
        let end = |index: usize| words[0].checked_add(words[index]);
        end(1) == Some(high) && end(2) == Some(low) && words[3] == guard
    };
    let mut found = words.windows(4).enumerate().filter(|(_, words)| matches(words));
    let (index, _) = found.next()?;
    found.next().is_none().then_some((index * WORD) as isize - frame.below as isize)
}
