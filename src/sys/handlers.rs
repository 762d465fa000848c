//! Signal handlers run under a mark of [`runtime_syscall`]: a system call made in one never switches.
//!
//! A handler may interrupt the hub in the middle of its work. With the feature `monkey` a `write` in the handler is
//! this crate's, and if that `write` parked there, the hub would be entered a second time, below itself. Nothing in the
//! kernel tells a handler from other code, so this crate defines `sigaction` and `signal` too, from the start of the
//! program: they install [`trampoline`], which sets the mark, calls the program's handler, and takes the mark back.
//!
//! ```text
//!   program: sigaction(SIGINT, h) --> HANDLERS[SIGINT] = h; kernel: trampoline
//!   program: sigaction(SIGINT, ?) <-- h, with the flags that it came with
//!   signal:  kernel --> trampoline: mark, h(..), mark back
//! ```
//!
//! Invariant handlers-1: while the kernel has `trampoline` for a signal, the signal's slot in `HANDLERS` holds a
//! handler of the program that can be called with three arguments. Upheld by `sigaction`, which fills the slot first
//! and restores the previous content if the kernel refuses; a slot is never emptied. (A handler for one argument
//! ignores the others: they are in registers on both architectures.)
//!
//! The trampoline also recovers from faults of [`peek`], which never reach the program's handler.
//!
//! A handler that leaves by `longjmp` keeps its OS thread marked, and no call switches there any more: slow, not wrong.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::runtime_syscall::runtime_syscall;
use super::{peek, raw};

/// One more than the greatest signal number.
const SIGNALS: usize = 65;

/// The program's handler of each signal, 0 until one is installed.
static HANDLERS: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(0) }; SIGNALS];

/// Whether the program's handler was installed with SA_SIGINFO, as the trampoline always is.
static WITH_INFO: [AtomicBool; SIGNALS] = [const { AtomicBool::new(false) }; SIGNALS];

/// Calls the program's handler under a mark. The kernel calls this function in place of that handler.
extern "C" fn trampoline(signal: c_int, info: *mut c_void, context: *mut c_void) {
    type Handler = unsafe extern "C" fn(c_int, *mut c_void, *mut c_void);
    // SAFETY: the kernel passes the context of the fault.
    if matches!(signal, libc::SIGSEGV | libc::SIGBUS) && unsafe { peek::recover(context) } {
        return;
    }
    let _mark = runtime_syscall();
    // Acquire: pairs with the Release store in `sigaction`, so what the program prepared for its handler is visible.
    let handler = HANDLERS[signal as usize].load(Ordering::Acquire);
    // SAFETY: Invariant handlers-1: the slot holds a handler that takes these arguments.
    let handler = unsafe { std::mem::transmute::<*const (), Handler>(ptr::with_exposed_provenance(handler)) };
    // SAFETY: as the kernel would call it.
    unsafe { handler(signal, info, context) };
}

/// Stands in for sigaction(2) in the whole program.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    let Some(slot) = usize::try_from(signal).ok().filter(|at| (1..SIGNALS).contains(at)) else {
        // SAFETY: the caller's arguments, for the C library to refuse.
        return unsafe { raw::sigaction(signal, new, old) };
    };
    // Relaxed: two OS threads that install handlers for one signal at once have a race anyway.
    let before = (HANDLERS[slot].load(Ordering::Acquire), WITH_INFO[slot].load(Ordering::Relaxed));
    // SAFETY: null, or the caller's struct.
    let mut wrapped = unsafe { new.as_ref() }.copied();
    // A handler of the program goes into the slot, and the trampoline to the kernel.
    if let Some(action) = &mut wrapped
        && action.sa_sigaction != libc::SIG_DFL
        && action.sa_sigaction != libc::SIG_IGN
    {
        WITH_INFO[slot].store(action.sa_flags & libc::SA_SIGINFO != 0, Ordering::Relaxed);
        // Release: see `trampoline`.
        HANDLERS[slot].store(action.sa_sigaction, Ordering::Release);
        action.sa_sigaction = trampoline as extern "C" fn(c_int, *mut c_void, *mut c_void) as usize;
        action.sa_flags |= libc::SA_SIGINFO;
    }
    let new = wrapped.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is a local or null, `old` is the caller's; the trampoline may run at any time (handlers-1).
    let result = unsafe { raw::sigaction(signal, new, old) };
    if result != 0 {
        // The kernel keeps the old handler, so its slot is restored.
        HANDLERS[slot].store(before.0, Ordering::Release);
        WITH_INFO[slot].store(before.1, Ordering::Relaxed);
        return result;
    }
    // The program gets back the handler that it had installed, with that handler's flags.
    // SAFETY: null, or the caller's struct, which the kernel has just filled.
    if let Some(old) = unsafe { old.as_mut() }
        && old.sa_sigaction == trampoline as extern "C" fn(c_int, *mut c_void, *mut c_void) as usize
    {
        old.sa_sigaction = before.0;
        if !before.1 {
            old.sa_flags &= !libc::SA_SIGINFO;
        }
    }
    0
}

/// Stands in for signal(2) in the whole program, with BSD's meaning, as in the C library.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t {
    let mut new = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is a valid sigaction: SIG_DFL, no flags, an empty set.
    let new = unsafe { new.assume_init_mut() };
    new.sa_sigaction = handler;
    new.sa_flags = libc::SA_RESTART;
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: both live until the call returns; the handler is the caller's.
    match unsafe { sigaction(signal, new, old.as_mut_ptr()) } {
        // SAFETY: the call has filled the struct, and all zeros are valid anyway.
        0 => unsafe { old.assume_init() }.sa_sigaction,
        _ => libc::SIG_ERR,
    }
}

#[cfg(test)]
mod tests {
    use super::super::runtime_syscall::is_runtime_syscall;
    use super::*;

    /// Whether the handler ran under a mark.
    static MARKED: AtomicBool = AtomicBool::new(false);

    extern "C" fn note(_: c_int) {
        MARKED.store(is_runtime_syscall(), Ordering::Relaxed);
    }

    #[test]
    fn a_handler_runs_marked_and_is_given_back_as_it_came() {
        let note = note as extern "C" fn(c_int) as usize;
        // SAFETY: the handler stores a flag, which is async-signal-safe.
        let first = unsafe { libc::signal(libc::SIGUSR2, note) };
        assert_eq!(first, libc::SIG_DFL);
        // SAFETY: a signal to this OS thread, for which there is a handler.
        unsafe { libc::raise(libc::SIGUSR2) };
        assert!(MARKED.load(Ordering::Relaxed));
        assert!(!is_runtime_syscall());
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a question only; the struct lives until the call returns.
        assert_eq!(unsafe { libc::sigaction(libc::SIGUSR2, ptr::null(), old.as_mut_ptr()) }, 0);
        // SAFETY: filled by the call.
        let old = unsafe { old.assume_init() };
        assert_eq!((old.sa_sigaction, old.sa_flags & libc::SA_SIGINFO), (note, 0));
        // SAFETY: back to the default.
        assert_eq!(unsafe { libc::signal(libc::SIGUSR2, libc::SIG_DFL) }, note);
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        // SAFETY: no handler is installed: SIGKILL has none, and 99 is no signal.
        assert_eq!(unsafe { libc::signal(libc::SIGKILL, libc::SIG_IGN) }, libc::SIG_ERR);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::signal(99, libc::SIG_IGN) }, libc::SIG_ERR);
    }
}
