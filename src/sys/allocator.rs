//! What the program's allocators do to locks of the C library, found out by trying: on a fresh OS thread, which does
//! nothing else.
//!
//! ```text
//!   try_out --> OS thread:  allocates by Rust's allocator --.
//!                           allocates by C's malloc --------+--> note_lock, called by C's locks (monkey/c_lock.rs)
//!                           which pthread keys have a value now? those are the allocators' own --> has_key
//! ```
//!
//! A lock counts if it is taken without a mark of `runtime_syscall.rs`: such a lock could make its caller wait in the
//! hub. Seen are C's mutexes, read-write locks and semaphores, whether free or held, since a fresh thread has no memory
//! in store. Not seen are locks that call nothing while they are free, such as `std`'s.
//!
//! Invariant allocator-1: memory that the trial gets is freed once, by the same allocator, with the size that it has,
//! and by nothing else. Upheld by [`use_rust`] and [`use_c`].
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::c_library;
use super::runtime_syscall::is_runtime_syscall;

/// The greatest number of pthread keys (`PTHREAD_KEYS_MAX`).
const KEYS: usize = 1024;

/// The sizes that are tried, in bytes: small ones come from a thread's store, large ones from what all threads share.
const SIZES: [usize; 5] = [24, 1000, 20_000, 500_000, 10_000_000];

/// Which keys had a value after the trial, one bit each. Relaxed everywhere: written before any lock is green, and the
/// bits guard no data.
static HAS_VALUE: [AtomicUsize; KEYS / WORD_BITS] = [const { AtomicUsize::new(0) }; KEYS / WORD_BITS];

/// The bits of a word.
const WORD_BITS: usize = usize::BITS as usize;

/// What a trial is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// What `#[global_allocator]` names, or `std`'s.
    Rust,
    /// `malloc`, whatever defines that.
    C,
}

thread_local! {
    /// The allocator that this OS thread tries out. No destructor.
    static TRIED: Cell<Option<Tried>> = const { Cell::new(None) };
}

/// Which allocators take locks of the C library, without a mark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Locks {
    /// What `#[global_allocator]` names, or `std`'s.
    pub(crate) rust: bool,
    /// `malloc`, whatever defines that.
    pub(crate) c: bool,
}

/// Whether a trial of Rust's allocator has noted a lock. Relaxed everywhere: the thread of the trial is joined before
/// this is read.
static RUST: AtomicBool = AtomicBool::new(false);

/// The same of C's malloc.
static C: AtomicBool = AtomicBool::new(false);

/// Notes that the caller takes a lock of the C library, if the caller is an allocator that is tried out.
#[cold]
#[inline(never)]
pub(crate) fn note_lock() {
    if is_runtime_syscall() {
        return;
    }
    match TRIED.get() {
        Some(Tried::Rust) => RUST.store(true, Ordering::Relaxed),
        Some(Tried::C) => C.store(true, Ordering::Relaxed),
        None => {}
    }
}

/// Reports whether `key` is a pthread key of an allocator. False before the first trial.
pub(crate) fn has_key(key: usize) -> bool {
    HAS_VALUE.get(key / WORD_BITS).is_some_and(|bits| bits.load(Ordering::Relaxed) >> (key % WORD_BITS) & 1 != 0)
}

/// Tries both allocators out, while each lock of the C library calls [`note_lock`]. One caller at a time.
///
/// # Errors
/// Those of pthread_create(3): EAGAIN if there can be no OS thread.
pub(crate) fn try_out() -> io::Result<Locks> {
    RUST.store(false, Ordering::Relaxed);
    C.store(false, Ordering::Relaxed);
    let mut thread = MaybeUninit::uninit();
    // SAFETY: Invariant c-library-1: a place for the number, no attributes, and a routine that needs no argument.
    let error = unsafe { c_library::pthread_create(thread.as_mut_ptr(), ptr::null(), trial, ptr::null_mut()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: filled when the thread was started.
    let thread = unsafe { thread.assume_init() };
    // SAFETY: Invariant c-library-1: the thread was started above, and is joined once.
    unsafe { c_library::pthread_join(thread, ptr::null_mut()) };
    Ok(Locks { rust: RUST.load(Ordering::Relaxed), c: C.load(Ordering::Relaxed) })
}

/// What the OS thread of a trial does.
unsafe extern "C-unwind" fn trial(_: *mut c_void) -> *mut c_void {
    TRIED.set(Some(Tried::Rust));
    SIZES.iter().for_each(|size| use_rust(*size));
    TRIED.set(Some(Tried::C));
    SIZES.iter().for_each(|size| use_c(*size));
    TRIED.set(None);
    // The thread has called nothing else, so other values are there only if the C library's own functions set some.
    for key in 0..KEYS {
        // SAFETY: any number may be asked for; one that is no key answers null (pthread_getspecific(3), glibc).
        if !unsafe { libc::pthread_getspecific(key as libc::pthread_key_t) }.is_null() {
            HAS_VALUE[key / WORD_BITS].fetch_or(1 << (key % WORD_BITS), Ordering::Relaxed);
        }
    }
    ptr::null_mut()
}

/// Gets and frees memory of Rust's allocator.
fn use_rust(size: usize) {
    let Ok(layout) = Layout::array::<u8>(size) else { return };
    // SAFETY: the layout is not empty.
    let memory = unsafe { std::alloc::alloc(layout) };
    // What is not looked at, the compiler would leave out.
    let memory = black_box(memory);
    if !memory.is_null() {
        // SAFETY: Invariant allocator-1.
        unsafe { std::alloc::dealloc(memory, layout) };
    }
}

/// Gets and frees memory of C's malloc.
fn use_c(size: usize) {
    // SAFETY: any size may be asked for (malloc(3)).
    let memory = unsafe { libc::malloc(size) };
    // SAFETY: Invariant allocator-1; or null, which free(3) ignores.
    unsafe { libc::free(black_box(memory)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_trial_does_is_not_noted() {
        note_lock();
        let locks = try_out().unwrap();
        // C's locks call `note_lock` only while `gate::try_allocators` runs.
        assert!(!locks.rust && !locks.c);
        assert!(!has_key(KEYS) && !has_key(usize::MAX));
    }
}
