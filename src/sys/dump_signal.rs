//! A signal that asks for a dump: the handler sets a word, and an OS thread that sleeps on that word does the work.
//!
//! ```text
//!   Ctrl-\ --> kernel --> on_signal, on whichever OS thread: sets RUNG, wakes --> wait, on the OS thread that dumps
//! ```
//!
//! A handler, and no signalfd: the signal need not be blocked anywhere, so it does not matter which OS threads were
//! started before, and OS threads that have blocked it do no harm as long as one has not.
//!
//! A futex, and no eventfd: a program may close every descriptor that it does not know, and use the number for another
//! file, into which the handler would write. And the child of a fork would share it; of the word the child has a copy.
//!
//! Invariant dump-signal-1: the kernel's calls get the address of `RUNG`, which is there as long as the process. Upheld
//! by [`futex`].
//!
//! Invariant dump-signal-2: from the kernel's jump to `on_signal` until the return only async-signal-safe things happen
//! (sys-signal-1): a store, and one system call without a descriptor. `errno` stays as it was. Upheld by `on_signal`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cvt;
use super::runtime_syscall::runtime_syscall;
use super::signalfd::can_wait;

/// 1 from a signal until the OS thread that dumps takes it.
static RUNG: AtomicU32 = AtomicU32::new(0);

/// Sleeps while `RUNG` is `value`, or wakes so many that sleep, as `operation` says. A sleep may end early.
fn futex(operation: c_int, value: u32) {
    // With the feature `monkey` the program's calls for futexes look into a table, which a handler must not touch.
    let _mark = runtime_syscall();
    let operation = operation | libc::FUTEX_PRIVATE_FLAG;
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: Invariant dump-signal-1; no limit of time is null (futex(2)).
    let _: c_long = unsafe { libc::syscall(libc::SYS_futex, RUNG.as_ptr(), operation, value, forever) };
}

/// Asks the OS thread that dumps. Without one in this process the word is set, and nothing else happens.
extern "C" fn on_signal(_: c_int) {
    // SAFETY: the function returns the address of this OS thread's errno, and has no condition.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: that address is good as long as the OS thread runs.
    let before = unsafe { *errno };
    // Release: pairs with the Acquire in `wait`; what the handler has interrupted comes before the dump.
    RUNG.store(1, Ordering::Release);
    futex(libc::FUTEX_WAKE, 1);
    // SAFETY: as above; nothing holds a reference to it.
    unsafe { *errno = before };
}

/// Forgets a signal of before, which the parent of this process has answered. Call before the OS thread is started.
pub(crate) fn forget() {
    // Relaxed: the start of the OS thread comes after it.
    RUNG.store(0, Ordering::Relaxed);
}

/// Waits until a signal has come that was not waited for before. Several that come meanwhile count as one.
pub(crate) fn wait() {
    // Acquire: pairs with the Release in `on_signal`. A signal after the swap changes the word, so the kernel does not
    // let this OS thread sleep.
    while RUNG.swap(0, Ordering::Acquire) == 0 {
        futex(libc::FUTEX_WAIT, 0);
    }
}

/// Makes `signal` ask for a dump from now on.
///
/// # Errors
///
/// `InvalidInput` for a signal that cannot be caught, or that says that the program is at fault; `AlreadyExists` if the
/// program has a handler for it.
pub(crate) fn ask_on(signal: c_int) -> io::Result<()> {
    if !can_wait(signal) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("signal {signal} cannot ask for a dump")));
    }
    // SAFETY: all zeros is a valid sigaction: integers, an empty mask, no restorer; and SIG_DFL is 0 (sigaction(2)).
    let (mut old, mut new): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
    // SAFETY: a null new action only asks; the kernel fills `old`, which outlives the call (sigaction(2)).
    cvt(unsafe { libc::sigaction(signal, ptr::null(), &raw mut old) })?;
    let ours = on_signal as extern "C" fn(c_int) as usize;
    if ![libc::SIG_DFL, libc::SIG_IGN, ours].contains(&old.sa_sigaction) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("signal {signal} has a handler already")));
    }
    new.sa_sigaction = ours;
    new.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the handler lives for ever and keeps Invariant dump-signal-2 (sigaction(2)).
    cvt(unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) })?;
    Ok(())
}
