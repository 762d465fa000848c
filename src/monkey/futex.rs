//! syscall: how `std`'s locks wait, and the report when that holds up a whole hub.
//!
//! `std`'s `Mutex`, `RwLock`, `Condvar`, `Once`, `mpsc` and `thread::park` have no function of the C library to wait in.
//! They call `syscall(SYS_futex, ..)`. So that function is ours too. Nearly all numbers go on to the kernel at once; so does a
//! futex wait, which blocks the OS thread here as everywhere: who wakes it is told a word in memory or an OS thread, and
//! neither knows of green threads (DESIGN.md, chapter 18). But if a green thread waits so for a lock whose holder is
//! suspended on the same OS thread, it waits for ever, without a word. It is given one:
//!
//! ```text
//!   FUTEX_WAIT, FUTEX_WAIT_BITSET
//!      | patched? a hub here, and somebody besides the caller on it? it will take longer than PATIENCE? -- no --> kernel
//!   slice: the same wait, until PATIENCE is over
//!      | woken, refused, interrupted --> return
//!      | PATIENCE is over
//!   one report on standard error (`holder.rs`)
//!   the caller's own wait, with its own time limit
//! ```
//!
//! Between the two waits nobody waits. Whoever wakes changes the word first, as it must for a waiter that is only on its
//! way, so the second wait returns at once (EAGAIN), and the caller looks at the word. A signal during the slice shows as
//! EINTR, although the kernel would restart a wait without time limit after some handlers.
//!
//! * Invariant M1 holds here as in `stream.rs`, for the word and the span.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

use super::gate::{hub_here, patched, refuse};
use super::holder;
use crate::runtime::park::NEVER;
use crate::switch::root::Root;
use crate::sys::clock::monotonic_ns;
use crate::sys::own::{is_own, own};
use crate::sys::raw::{
    self, Answer, ETIMEDOUT, FUTEX_CLOCK_REALTIME, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAIT_BITSET, SYS_futex,
    timespec,
};

/// How long a green thread may hold up its OS thread before it is reported, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// Least time between two reports of one OS thread, in nanoseconds. Who waits longer is reported then.
const PAUSE: u64 = 10_000_000_000;

/// The bits of all wakers.
const ANYBODY: usize = u32::MAX as usize;

thread_local! {
    /// When this OS thread may report again, in monotonic nanoseconds. No destructor.
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// syscall(2), with as many arguments as any call takes: what the caller did not pass is not looked at by the kernel either.
/// (It is declared as variadic. For integers and pointers, and there are no others, that is the same on both processors.)
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let arguments = [a, b, c, d, e, f];
    let answer = if number == SYS_futex && patched() != 0 && Wait::is_one(b) {
        // SAFETY: M1.
        unsafe { Wait(arguments).wait() }
    } else {
        // SAFETY: M1.
        unsafe { raw::kernel(number, arguments) }
    };
    match answer {
        Ok(value) => value as c_long,
        Err(errno) => c_long::from(refuse(errno)),
    }
}

/// The arguments of a futex wait: word, operation, expected value, span, nothing, bits.
#[derive(Clone, Copy)]
struct Wait([usize; 6]);

impl Wait {
    /// Whether the operation is one of those that wait.
    fn is_one(operation: usize) -> bool {
        matches!(Wait::command(operation), FUTEX_WAIT | FUTEX_WAIT_BITSET)
    }

    /// The operation without its flags.
    fn command(operation: usize) -> c_int {
        operation as c_int & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    }

    /// Waits, and reports if it takes long. Out of line, since all other calls go past it, also the runtime's own.
    ///
    /// # Safety
    /// M1.
    #[cold]
    #[inline(never)]
    unsafe fn wait(self) -> Answer {
        let Some(root) = held_up() else {
            // SAFETY: M1.
            return unsafe { self.plain() };
        };
        let now = monotonic_ns();
        // SAFETY: M1.
        let limit = unsafe { self.limit() };
        let until = now.saturating_add(PATIENCE).max(NEXT.get());
        if limit.is_none_or(|limit| limit <= until - now) {
            // SAFETY: M1.
            return unsafe { self.plain() };
        }
        // SAFETY: M1.
        match unsafe { self.wait_until(self.clock_ns().saturating_add(until - now)) } {
            Err(ETIMEDOUT) => {}
            answer => return answer,
        }
        let over = monotonic_ns();
        if over >= until {
            NEXT.set(over.saturating_add(PAUSE));
            report(root, self.0[0], over - now);
        }
        match limit {
            Some(limit) if !self.is_absolute() && limit != NEVER => {
                let end = now.saturating_add(limit);
                // SAFETY: M1.
                unsafe { self.wait_until(end) }
            }
            // SAFETY: M1.
            _ => unsafe { self.plain() },
        }
    }

    /// The caller's call.
    ///
    /// # Safety
    /// M1.
    unsafe fn plain(self) -> Answer {
        // SAFETY: M1.
        unsafe { raw::kernel(SYS_futex, self.0) }
    }

    /// The same wait, but until `end` on its clock.
    ///
    /// # Safety
    /// M1.
    unsafe fn wait_until(self, end: u64) -> Answer {
        let [word, operation, expected, .., bits] = self.0;
        let span = raw::span(end);
        let flags = operation as c_int & FUTEX_PRIVATE_FLAG | self.clock_flag();
        let operation = (FUTEX_WAIT_BITSET | flags) as usize;
        let bits = if self.is_absolute() { bits } else { ANYBODY };
        // SAFETY: M1 for the word; the span lives until the call returns.
        unsafe { raw::kernel(SYS_futex, [word, operation, expected, (&raw const span).expose_provenance(), 0, bits]) }
    }

    /// For how long the caller would wait, in nanoseconds; [`NEVER`] without a limit, none if the span is not valid.
    ///
    /// # Safety
    /// M1.
    unsafe fn limit(self) -> Option<u64> {
        let span = ptr::with_exposed_provenance::<timespec>(self.0[3]);
        // SAFETY: null, or the caller's span (M1).
        let Some(span) = (unsafe { span.as_ref() }) else { return Some(NEVER) };
        let nanos = raw::nanos(span)?;
        Some(if self.is_absolute() { nanos.saturating_sub(self.clock_ns()) } else { nanos })
    }

    /// Whether the span is a moment: FUTEX_WAIT takes a length of time, the other one a moment.
    fn is_absolute(self) -> bool {
        Wait::command(self.0[1]) == FUTEX_WAIT_BITSET
    }

    /// The flag of the clock on which a moment of the caller's is meant: if that is the time of day, and it is set
    /// meanwhile, the slice ends early or late with it, and the caller's time limit is not missed.
    fn clock_flag(self) -> c_int {
        if self.is_absolute() { self.0[1] as c_int & FUTEX_CLOCK_REALTIME } else { 0 }
    }

    /// What that clock says.
    fn clock_ns(self) -> u64 {
        if self.clock_flag() != 0 { raw::realtime_ns() } else { monotonic_ns() }
    }
}

/// This OS thread's root, if the call would hold up others: there is a hub, and a green thread besides the caller. Not for
/// the runtime's own calls, nor in a signal handler, where nothing may be reported.
fn held_up() -> Option<&'static Root> {
    let (root, _) = hub_here().filter(|_| !is_own())?;
    (!root.current().is_main() || root.live() > 0).then_some(root)
}

/// Writes the report. The locks that it could need may be those that the caller waits for, so it takes none of `std`'s: not
/// that of standard error either.
#[cold]
#[inline(never)]
fn report(root: &Root, word: usize, waited: u64) {
    // What this allocates or writes is not to be reported itself.
    let _own = own();
    let waited = Duration::from_nanos(waited);
    // A panic must not leave this function (M2), and a report is not worth one.
    if let Ok(text) = catch_unwind(AssertUnwindSafe(|| holder::report(root, word, waited))) {
        raw::write_stderr(text.as_bytes());
    }
}
