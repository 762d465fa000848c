//! Page tables: what they take, and which calls give them back.
//!
//! A page of the page table maps 2 MiB, so eight stacks of 256 KiB. A range of address space stands for the stacks:
//! each has its guard and one page that was touched. Then the range is given back in some way, and used again.

// The kernel's madvise(2) has no safe counterpart in std.
#![allow(unsafe_code)]

#[path = "mapping.rs"]
mod mapping;

use std::time::Instant;
use std::{io, ptr};

use mapping::Memory;

/// The bytes of a stack.
const STACK: usize = 256 << 10;

/// The bytes of a guard.
const GUARD: usize = 16 << 10;

/// `MADV_GUARD_INSTALL` and `MADV_GUARD_REMOVE` of Linux 6.13, which the `libc` crate does not name yet.
const INSTALL: i32 = 102;
const REMOVE: i32 = 103;

/// A way to give the memory of idle stacks back.
struct Way {
    name: &'static str,
    /// Whether the stacks have guards before.
    guarded: bool,
    /// Whether they have none afterwards, and need new ones.
    unguards: bool,
    /// What gives the memory of so many bytes back.
    release: fn(*mut u8, usize) -> io::Result<()>,
}

/// The ways that are compared.
const WAYS: [Way; 5] = [
    Way { name: "discard each stack", guarded: true, unguards: false, release: discard_each },
    Way { name: "discard all", guarded: true, unguards: false, release: discard },
    Way { name: "discard all, no guards", guarded: false, unguards: false, release: discard },
    Way { name: "guards off, discard all", guarded: true, unguards: true, release: remove_and_discard },
    Way { name: "map anew", guarded: true, unguards: true, release: map_anew },
];

/// Gives the kernel an advice about memory.
fn advise(start: *mut u8, len: usize, advice: i32) -> io::Result<()> {
    // SAFETY: the callers name memory of their own mapping, to which no reference leads (madvise(2)).
    let result = unsafe { libc::madvise(start.cast(), len, advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Discards the pages of each stack, as `hub::trim_stacks` does for stacks that have no free neighbour.
fn discard_each(start: *mut u8, len: usize) -> io::Result<()> {
    (0..len)
        .step_by(STACK)
        .try_for_each(|stack| advise(start.wrapping_add(stack + GUARD), STACK - GUARD, libc::MADV_DONTNEED))
}

/// Discards all pages in one call.
fn discard(start: *mut u8, len: usize) -> io::Result<()> {
    advise(start, len, libc::MADV_DONTNEED)
}

/// Takes all guards away, then discards all pages.
fn remove_and_discard(start: *mut u8, len: usize) -> io::Result<()> {
    advise(start, len, REMOVE)?;
    discard(start, len)
}

/// Puts a new mapping in the place of the old one.
fn map_anew(start: *mut u8, len: usize) -> io::Result<()> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the range is one of this file's, to which no reference leads (mmap(2)).
    let made = unsafe { libc::mmap(start.cast(), len, access, flags, -1, 0) };
    if made == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    advise(start, len, libc::MADV_NOHUGEPAGE)
}

/// Guards so many stacks.
fn guard(start: *mut u8, stacks: usize) -> io::Result<()> {
    (0..stacks).try_for_each(|stack| advise(start.wrapping_add(stack * STACK), GUARD, INSTALL))
}

/// Writes to the top of so many stacks.
fn touch(start: *mut u8, stacks: usize) {
    for stack in 1..=stacks {
        // SAFETY: a byte of the mapping, above the guard.
        unsafe { ptr::write_volatile(start.wrapping_add(stack * STACK - 1), 1) };
    }
}

/// Tries each way on so many stacks, and gives `found` the name of a figure, the figure, and its unit. `tables` returns
/// the bytes of the process's page tables.
///
/// # Errors
/// Those of mmap(2) and madvise(2): `EINVAL` before Linux 6.13, which has no such guards.
pub(crate) fn compare(
    stacks: usize,
    tables: impl Fn() -> usize,
    mut found: impl FnMut(&str, f64, &str),
) -> io::Result<()> {
    for way in &WAYS {
        let memory = Memory::map(stacks * STACK, false)?;
        let (start, before) = (memory.at(0), tables());
        let each = |bytes: usize| bytes.saturating_sub(before) as f64 / stacks as f64;
        let nanoseconds = |since: Instant| since.elapsed().as_nanos() as f64 / stacks as f64;
        if way.guarded {
            guard(start, stacks)?;
        }
        touch(start, stacks);
        let used = each(tables());
        // Given back, and used again.
        let since = Instant::now();
        (way.release)(start, stacks * STACK)?;
        let (release, left) = (nanoseconds(since), each(tables()));
        let since = Instant::now();
        if way.unguards {
            guard(start, stacks)?;
        }
        touch(start, stacks);
        let again = nanoseconds(since);
        found(&format!("{}: tables, used", way.name), used, "bytes/stack");
        found(&format!("{}: tables, after", way.name), left, "bytes/stack");
        found(&format!("{}: takes", way.name), release, "ns/stack");
        found(&format!("{}: use again", way.name), again, "ns/stack");
    }
    Ok(())
}
