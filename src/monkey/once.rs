//! pthread_once: a routine that waits lets others run, and those that need it wait in the hub.
//!
//! ```text
//!   control word   0 --> generation of forks | RUNS --> DONE        the C library's states (sys/pthread.rs)
//!
//!   a thread that may wait in the hub       any other
//!   DONE: returns                           the C library's
//!   RUNS: waits in the table                  '-- then wakes those in the table
//!   0: runs the routine, as the C library does, and wakes those in the table and those in the kernel
//! ```
//!
//! A routine that unwinds (a C++ exception out of `std::call_once`) leaves the word as if it had not begun.
//!
//! Invariant c-lock-1 of `c_lock.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

use super::c_lock::{is_patched, may_be_green};
use super::gate::saved_errno;
use super::wait::{self, Deadline, may_wait};
use crate::switch::fiber::Foreign;
use crate::sys::c_library;
use crate::sys::pthread::{once, once_word, pthread_once_t, running_state, words};
use crate::sys::raw::{futex_wake, set_errno};

/// Wakes the green threads that wait for a routine, when this is dropped.
struct WakeGreen(usize);

impl Drop for WakeGreen {
    fn drop(&mut self) {
        wait::wake(self.0, u32::MAX, usize::MAX);
    }
}

/// A routine that runs. When this is dropped, the word is set to `then`, and all waiters are woken.
struct Running<'a> {
    /// The control word of the routine.
    word: &'a AtomicU32,
    /// The state to leave: not begun, unless the routine has returned.
    then: u32,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let address = std::ptr::from_ref(self.word).addr();
        // Release: what the routine did comes before all that is done by those that find the word.
        self.word.store(self.then, Ordering::Release);
        let _ = futex_wake(address, u32::MAX, c_int::MAX);
        drop(WakeGreen(address));
    }
}

/// Runs the routine, or waits for the thread that does.
///
/// # Safety
/// c-lock-1.
unsafe fn once_green(word: &AtomicU32, routine: extern "C-unwind" fn()) {
    let at = (std::ptr::from_ref(word).addr(), u32::MAX);
    // With the number of this process: a word that says that a routine runs in the parent says nothing here.
    let runs = running_state();
    loop {
        // Acquire, here and below, pairs with the Release above, and with the C library's.
        let state = word.load(Ordering::Acquire);
        if state & once::DONE != 0 {
            return;
        }
        if state == runs {
            let still_runs = || word.load(Ordering::Relaxed) == runs;
            match may_wait() {
                Some(green) => wait::wait(green, Foreign::Once, at, still_runs, || true, Deadline::NEVER),
                None => wait::wait_on_os_thread(at, still_runs, || true, Deadline::NEVER),
            };
            continue;
        }
        if word.compare_exchange(state, runs, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            let mut running = Running { word, then: 0 };
            routine();
            running.then = once::DONE;
            return;
        }
    }
}

/// Stands in for pthread_once(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn pthread_once(
    control: *mut pthread_once_t,
    routine: extern "C-unwind" fn(),
) -> c_int {
    if !is_patched() || !words().once {
        // SAFETY: c-lock-1.
        return unsafe { c_library::pthread_once(control, routine) };
    }
    // SAFETY: c-lock-1.
    let word = unsafe { once_word(control) };
    // Acquire: see `once_green`.
    if word.load(Ordering::Acquire) & once::DONE != 0 {
        return 0;
    }
    let before = saved_errno();
    let answer = if may_be_green() && may_wait().is_some() {
        // SAFETY: c-lock-1.
        unsafe { once_green(word, routine) };
        0
    } else {
        let _wake = WakeGreen(control.addr());
        // SAFETY: c-lock-1.
        unsafe { c_library::pthread_once(control, routine) }
    };
    set_errno(before);
    answer
}
