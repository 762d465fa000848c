//! syscall: how the locks of `std` wait, green or with a report of a wait that blocks a whole hub.
//!
//! `std`'s `Mutex`, `RwLock`, `Condvar`, `Once`, `mpsc` and `thread::park` have no function of the C library to wait
//! in. They call `syscall(SYS_futex, ..)`, so this crate defines that function too. Nearly all calls go on to the
//! kernel at once.
//!
//! # Green
//!
//! After `patch_locks`, the operations on private futexes are answered here, for the threads that may wait in the hub
//! (`wait.rs`), and for all that wake them:
//!
//! ```text
//!   FUTEX_WAIT, WAIT_BITSET    may it wait in the hub? no --> the kernel, as below
//!                              the word is read under the lock of the table (`sys/peek.rs`): EFAULT, EAGAIN, or park
//!   FUTEX_WAKE, WAKE_BITSET    those in the table first, what is left of the number in the kernel
//!   FUTEX_REQUEUE, CMP_REQUEUE the same
//!   FUTEX_WAKE_OP              the operation on the second word here, then two wake-ups
//! ```
//!
//! So a word may have both kinds of waiters. A waker changes the word first; a waiter in the table and one in the
//! kernel have each looked at the word under a lock that the waker takes afterwards. Futexes that are shared with other
//! processes (without FUTEX_PRIVATE_FLAG) are the kernel's: it keeps them apart from private ones too, and another
//! process knows no table of this one. `std`, parking_lot and the C library use private ones within a process. Other
//! operations (priority inheritance, futex_waitv, the newer system calls) are the kernel's, too.
//!
//! # Not green
//!
//! A wait of a green thread that shares its thread-locals with others goes to the kernel, and blocks the OS thread
//! (docs/book, chapter 15). But if it waits for
//! a lock of which the holder is suspended on the same OS thread, the wait never ends, and nothing would say so. This
//! file reports such a wait:
//!
//! ```text
//!   FUTEX_WAIT, FUTEX_WAIT_BITSET
//!      | patched? a hub here with other green threads? a time limit over REPORT_AFTER, or none? -- no --> kernel
//!   slice: the same wait, until REPORT_AFTER is over
//!      | woken, refused, interrupted --> return
//!      | REPORT_AFTER is over
//!   one report on standard error (`holder.rs`)
//!   the caller's own wait, with its own time limit
//! ```
//!
//! Shorter waits are added up (`held_up.rs`).
//!
//! Between the two waits the caller does not wait. A waker changes the word first, as it must for a waiter that has not
//! yet begun to wait, so the second wait returns at once (EAGAIN), and the caller reads the word. A signal during the
//! slice shows as EINTR, although the kernel would restart a wait without time limit after some handlers.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too, for the words and the span.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::gate::{Green, hub_here, part, patched, refuse, simulated};
use super::held_up::{self, REPORT_AFTER, blocks_others};
use super::holder;
use super::random::getrandom;
use super::wait::{self, Deadline, may_wait};
use crate::pure::wait_table::{ALL, Waited};
use crate::switch::fiber::Foreign;
use crate::switch::root::Root;
use crate::sys::clock::{NEVER, after, monotonic_ns};
use crate::sys::peek::peek;
use crate::sys::raw::{
    self, Answer, EAGAIN, EFAULT, EINVAL, ETIMEDOUT, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG,
    FUTEX_REQUEUE, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP, SYS_futex,
    SYS_getrandom, timespec,
};
use crate::sys::runtime_syscall::runtime_syscall;

/// Stands in for syscall(2), with as many arguments as any call takes: the kernel ignores those that the caller did not
/// pass. (C declares the function as variadic. For integers and pointers, the only types here, the calling convention
/// is the same on both architectures.)
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
    // A futex in a patched program; all other calls go on.
    let arguments = [a, b, c, d, e, f];
    let answer = if number == SYS_futex && patched() != 0 {
        // SAFETY: monkey-1.
        unsafe { futex(arguments) }
    } else if number == SYS_getrandom && simulated(part::RANDOM).is_some() {
        // SAFETY: monkey-1: the bytes of the caller.
        Ok(unsafe { getrandom(ptr::with_exposed_provenance_mut(a), b, c as u32) } as usize)
    } else {
        // SAFETY: monkey-1.
        unsafe { raw::kernel(number, arguments) }
    };
    match answer {
        Ok(value) => value as c_long,
        Err(errno) => c_long::from(refuse(errno)),
    }
}

/// Answers a call of futex(2) in a patched program. Out of line, since all other calls skip this, the runtime's
/// included.
///
/// # Safety
/// monkey-1.
#[inline(never)]
unsafe fn futex(arguments: [usize; 6]) -> Answer {
    let [address, operation, ..] = arguments;
    let command = operation as c_int & !FUTEX_PRIVATE_FLAG;
    let private = operation as c_int & FUTEX_PRIVATE_FLAG != 0;
    if private && patched() & part::LOCKS != 0 && address.is_multiple_of(size_of::<u32>()) {
        let futex = Private(arguments);
        // The kernel refuses the time of day with most commands, and so these are left to it.
        let answer = match command {
            FUTEX_WAKE => futex.wake(ALL),
            FUTEX_WAKE_BITSET => futex.wake(arguments[5] as u32),
            FUTEX_WAIT | FUTEX_WAIT_BITSET | FUTEX_WAIT_BITSET_TIME_OF_DAY => {
                may_wait().map(|green| futex.wait(green, command))
            }
            FUTEX_REQUEUE => futex.requeue(None),
            FUTEX_CMP_REQUEUE => futex.requeue(Some(arguments[5] as u32)),
            // SAFETY: monkey-1.
            FUTEX_WAKE_OP => unsafe { futex.wake_op() },
            _ => None,
        };
        if let Some(answer) = answer {
            return answer;
        }
    }
    if FutexWait::is_one(operation) {
        if let Some(answer) = FutexWait(arguments).passes_in_simulation() {
            return answer;
        }
        // SAFETY: monkey-1.
        held_up::counted(|| unsafe { FutexWait(arguments).wait() })
    } else {
        // SAFETY: monkey-1.
        unsafe { raw::kernel(SYS_futex, arguments) }
    }
}

/// The command of a wait until a time of day.
const FUTEX_WAIT_BITSET_TIME_OF_DAY: c_int = FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME;

/// The arguments of a call for a private futex. Each method returns none for what the kernel is to answer.
#[derive(Clone, Copy)]
struct Private([usize; 6]);

impl Private {
    /// Returns a number of waiters to wake as the kernel takes it: one is woken even if less is asked for.
    fn count(argument: usize) -> usize {
        usize::try_from(argument as c_int).unwrap_or(0).max(1)
    }

    /// Waits in the hub: FUTEX_WAIT and FUTEX_WAIT_BITSET, with the errors in the kernel's order.
    fn wait(self, green: Green, command: c_int) -> Answer {
        let [address, _, expected, span, _, bits] = self.0;
        // The time limit first, as the kernel does.
        let limit = match span {
            0 => None,
            span => Some(peek_span(span).ok_or(EFAULT).and_then(|span| raw::nanos(&span).ok_or(EINVAL))?),
        };
        let deadline = match (limit, command) {
            (None, _) => Deadline::NEVER,
            (Some(nanos), FUTEX_WAIT) => Deadline::Monotonic(after(Duration::from_nanos(nanos))),
            (Some(nanos), FUTEX_WAIT_BITSET) => Deadline::Monotonic(nanos),
            (Some(nanos), _) => Deadline::TimeOfDay(nanos),
        };
        let bits = if command == FUTEX_WAIT { ALL } else { bits as u32 };
        if bits == 0 {
            return Err(EINVAL);
        }
        // Look at the word under the table's lock, and park.
        let mut word = None;
        let validate = || {
            word = peek(address);
            word == Some(expected as u32)
        };
        match wait::wait(green, Foreign::Futex, (address, bits), validate, || true, deadline) {
            Waited::Woken => Ok(0),
            Waited::TimedOut => Err(ETIMEDOUT),
            Waited::Mismatch if word.is_none() => Err(EFAULT),
            Waited::Mismatch => Err(EAGAIN),
        }
    }

    /// Wakes waiters that listen to one of `bits`: FUTEX_WAKE and FUTEX_WAKE_BITSET.
    fn wake(self, bits: u32) -> Option<Answer> {
        let [address, _, count, ..] = self.0;
        let most = Private::count(count);
        // In most programs at most moments, nothing is in the table, and the kernel has the caller's own call.
        let woken = if bits == 0 { 0 } else { wait::wake(address, bits, most) };
        (woken > 0).then(|| Ok(woken + wake_in_kernel(address, bits, most - woken)))
    }

    /// Wakes some waiters and moves others to another word: FUTEX_REQUEUE, and FUTEX_CMP_REQUEUE if the word is as
    /// `expected`.
    fn requeue(self, expected: Option<u32>) -> Option<Answer> {
        let [from, operation, wake, most, to, value] = self.0;
        let (wake, most) = (wake as c_int, most as c_int);
        if wake < 0 || most < 0 || !to.is_multiple_of(size_of::<u32>()) || !wait::has_waiters(from) {
            return None;
        }
        // The green ones, if the word is right.
        let mut word = None;
        let validate = || {
            word = peek(from);
            expected.is_none_or(|_| word == expected)
        };
        let Some((woken, moved)) = wait::requeue(from, to, wake as usize, most as usize, validate) else {
            return Some(Err(if word.is_none() { EFAULT } else { EAGAIN }));
        };
        // The others, in the kernel. If the word has changed meanwhile, what was done was right, and the rest is not
        // done.
        let rest = [from, operation, wake as usize - woken, most as usize - moved, to, value];
        // SAFETY: monkey-1; the kernel reads one word, and refuses an address that is not good.
        let answer = unsafe { raw::kernel(SYS_futex, rest) };
        Some(match answer {
            Ok(others) => Ok(woken + moved + others),
            Err(_) if woken + moved > 0 => Ok(woken + moved),
            error => error,
        })
    }

    /// Changes the second word, wakes waiters for the first, and for the second, too, if it was as asked for:
    /// FUTEX_WAKE_OP.
    ///
    /// # Safety
    /// monkey-1.
    unsafe fn wake_op(self) -> Option<Answer> {
        let [first, operation, wake, wake_too, second, code] = self.0;
        let change = Change::of(code as u32)?;
        let word = peek(second).filter(|_| second.is_multiple_of(size_of::<u32>()))?;
        // A first word that is not this process's is an error before anything happens. Nothing is moved.
        let nowhere = [first, (FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG) as usize, 0, 0, first, 0];
        // SAFETY: monkey-1.
        if let Err(error) = unsafe { raw::kernel(SYS_futex, nowhere) } {
            return Some(Err(error));
        }
        // The kernel changes nothing of the word, and so finds out whether it may be written to. The comparison is
        // false, if the word stays as it is, and otherwise costs a wake-up too many.
        let nothing = Change::NOTHING | if word == 0 { 1 } else { 0 };
        let probe = [(&raw const word).expose_provenance(), operation, 1, 1, second, nothing];
        // SAFETY: monkey-1 for the second word; the first lives until the call returns, and nothing waits for it.
        if let Err(error) = unsafe { raw::kernel(SYS_futex, probe) } {
            return Some(Err(error));
        }
        let at = ptr::with_exposed_provenance_mut::<u32>(second);
        // SAFETY: monkey-1: it is a word that other threads change by atomic operations only, and it was there.
        let word = unsafe { AtomicU32::from_ptr(at) };
        // SeqCst: the kernel's operation is a full barrier, too.
        let changed = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(change.apply(old)));
        let old = changed.unwrap_or_else(|old| old);
        // Wake.
        let wake_all = |address, count| {
            let most = Private::count(count);
            let woken = wait::wake(address, ALL, most);
            woken + wake_in_kernel(address, ALL, most - woken)
        };
        let woken = wake_all(first, wake);
        let woken_too = if change.compare(old) { wake_all(second, wake_too) } else { 0 };
        Some(Ok(woken + woken_too))
    }
}

/// Wakes up to `most` OS threads. An address that the kernel refuses has none.
fn wake_in_kernel(address: usize, bits: u32, most: usize) -> usize {
    if most == 0 {
        return 0;
    }
    raw::futex_wake(address, bits, c_int::try_from(most).unwrap_or(c_int::MAX)).unwrap_or(0)
}

/// Reads a span that need not be there.
fn peek_span(at: usize) -> Option<timespec> {
    let word = |number: usize| peek(at.wrapping_add(number * size_of::<u32>()));
    let long = |number| Some((u64::from(word(number + 1)?) << 32 | u64::from(word(number)?)) as i64);
    Some(timespec { tv_sec: long(0)?, tv_nsec: long(2)? })
}

/// What FUTEX_WAKE_OP does with its second word (`linux/futex.h`).
#[derive(Clone, Copy)]
struct Change {
    /// The operation, 0 to 4.
    operation: u32,
    /// The number that the operation takes.
    number: u32,
    /// The comparison with the old value, 0 to 5.
    comparison: u32,
    /// The number that the old value is compared with.
    with: i32,
}

impl Change {
    /// The code of a change that changes nothing (OR 0), and compares for equality with the number in the lowest bits.
    const NOTHING: usize = 2 << 28;

    /// Decodes the call's last argument; none for one that the kernel refuses.
    fn of(code: u32) -> Option<Change> {
        // Twelve bits, of which the first is the sign.
        let signed = |bits: u32| (bits as i32) << 20 >> 20;
        let (operation, number) = (code >> 28 & 7, signed(code >> 12 & 0xfff));
        // The highest bit says that the number is a shift.
        let number = if code >> 31 != 0 { 1 << (number & 31) } else { number as u32 };
        let comparison = code >> 24 & 15;
        (operation < 5 && comparison < 6).then_some(Change {
            operation,
            number,
            comparison,
            with: signed(code & 0xfff),
        })
    }

    /// Returns the new value of the word.
    fn apply(self, old: u32) -> u32 {
        match self.operation {
            0 => self.number,
            1 => old.wrapping_add(self.number),
            2 => old | self.number,
            3 => old & !self.number,
            _ => old ^ self.number,
        }
    }

    /// Compares the old value.
    fn compare(self, old: u32) -> bool {
        let old = old as i32;
        match self.comparison {
            0 => old == self.with,
            1 => old != self.with,
            2 => old < self.with,
            3 => old >= self.with,
            4 => old <= self.with,
            _ => old > self.with,
        }
    }
}

/// The arguments of a futex wait: word, operation, expected value, span, nothing, bits.
#[derive(Clone, Copy)]
struct FutexWait([usize; 6]);

impl FutexWait {
    /// Reports whether the operation is one of those that wait.
    fn is_one(operation: usize) -> bool {
        matches!(FutexWait::command(operation), FUTEX_WAIT | FUTEX_WAIT_BITSET)
    }

    /// Returns the operation without the flags.
    fn command(operation: usize) -> c_int {
        operation as c_int & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    }

    /// Waits, and reports a long wait.
    ///
    /// # Safety
    /// monkey-1.
    unsafe fn wait(self) -> Answer {
        // Without other green threads there is nothing to report.
        let Some(root) = blocks_others() else {
            // SAFETY: monkey-1.
            return unsafe { self.plain() };
        };
        let now = monotonic_ns();
        let limit = self.limit();
        // A wait that ends before the next report goes to the kernel as it is.
        let until = now.saturating_add(REPORT_AFTER).max(held_up::next_report());
        if limit.is_none_or(|limit| limit <= until - now) {
            // SAFETY: monkey-1.
            return unsafe { self.plain() };
        }
        // The slice.
        // SAFETY: monkey-1.
        match unsafe { self.wait_until(self.clock_ns().saturating_add(until - now)) } {
            Err(ETIMEDOUT) => {}
            answer => return answer,
        }
        let over = monotonic_ns();
        if over >= until {
            held_up::reports(over);
            report(root, self.0[0], over - now);
        }
        // The caller's wait, with what is left of its time.
        match limit {
            Some(limit) if !self.is_absolute() && limit != NEVER => {
                let end = now.saturating_add(limit);
                // SAFETY: monkey-1.
                unsafe { self.wait_until(end) }
            }
            // SAFETY: monkey-1.
            _ => unsafe { self.plain() },
        }
    }

    /// Returns the answer of a wait with a time limit that blocks an OS thread which simulates: nothing else runs there
    /// meanwhile, so the time passes, and nothing has changed. None for other waits.
    fn passes_in_simulation(self) -> Option<Answer> {
        simulated(part::SLEEP)?;
        let limit = self.limit().filter(|limit| *limit != NEVER)?;
        if peek(self.0[0]) != Some(self.0[2] as u32) {
            return None;
        }
        let (_, hub) = hub_here()?;
        hub.advance(after(Duration::from_nanos(limit)));
        Some(Err(ETIMEDOUT))
    }

    /// Makes the caller's call as it is.
    ///
    /// # Safety
    /// monkey-1.
    unsafe fn plain(self) -> Answer {
        // SAFETY: monkey-1.
        unsafe { raw::kernel(SYS_futex, self.0) }
    }

    /// Makes the same wait, but until `end` on the clock of [`clock_flag`](Self::clock_flag).
    ///
    /// # Safety
    /// monkey-1.
    unsafe fn wait_until(self, end: u64) -> Answer {
        let [word, operation, expected, .., bits] = self.0;
        let span = raw::span(end);
        let flags = operation as c_int & FUTEX_PRIVATE_FLAG | self.clock_flag();
        let operation = (FUTEX_WAIT_BITSET | flags) as usize;
        let bits = if self.is_absolute() { bits } else { ALL as usize };
        // SAFETY: monkey-1 for the word; the span lives until the call returns.
        unsafe { raw::kernel(SYS_futex, [word, operation, expected, (&raw const span).expose_provenance(), 0, bits]) }
    }

    /// Returns how long the caller would wait, in nanoseconds; [`NEVER`] without a limit, none if the span is not
    /// valid or not there.
    fn limit(self) -> Option<u64> {
        let span = match self.0[3] {
            0 => return Some(NEVER),
            at => peek_span(at)?,
        };
        let nanos = raw::nanos(&span)?;
        Some(if self.is_absolute() { nanos.saturating_sub(self.clock_ns()) } else { nanos })
    }

    /// Reports whether the time limit is a point in time: FUTEX_WAIT takes a span, FUTEX_WAIT_BITSET a point in time.
    fn is_absolute(self) -> bool {
        FutexWait::command(self.0[1]) == FUTEX_WAIT_BITSET
    }

    /// Returns the flag of the clock that the caller's point in time refers to. If that clock is the time of day, and
    /// the time is set meanwhile, the slice ends early or late accordingly, and the caller's time limit is not missed.
    fn clock_flag(self) -> c_int {
        if self.is_absolute() { self.0[1] as c_int & FUTEX_CLOCK_REALTIME } else { 0 }
    }

    /// Reads the clock of [`clock_flag`](Self::clock_flag), in nanoseconds.
    fn clock_ns(self) -> u64 {
        if self.clock_flag() != 0 { raw::realtime_ns() } else { monotonic_ns() }
    }
}

/// Writes the report. The caller may wait for any lock, so this function takes no lock of `std`, not even that of
/// standard error.
#[cold]
#[inline(never)]
fn report(root: &Root, word: usize, waited: u64) {
    // The system calls of this function must not be reported.
    let _mark = runtime_syscall();
    let waited = Duration::from_nanos(waited);
    // A panic must not leave this function (monkey-2); the report is dropped then.
    if let Ok(text) = catch_unwind(AssertUnwindSafe(|| holder::report(root, word, waited))) {
        raw::write_stderr(text.as_bytes());
    }
}
