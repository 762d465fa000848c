//! pthread_barrier_wait: all threads that meet at a barrier are counted here, OS threads as well.
//!
//! ```text
//!   BARRIERS: address -> round { arrived, open }      the last one to arrive takes the round out and opens it
//!                           ^ shared by those that wait, in the table of `wait.rs`, at the address of `open`
//! ```
//!
//! The C library's barrier stays as it was made; only the number of threads is read. So a barrier at which threads wait
//! while `patch_locks` is called never opens. A barrier that other processes share is left to the C library.
//!
//! Invariant c-lock-1 of `c_lock.rs` holds here, too.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::c_lock::is_patched;
use super::gate::saved_errno;
use super::wait::{self, Deadline, may_wait};
use crate::pure::lock::lock;
use crate::switch::fiber::Foreign;
use crate::sys::c_library;
use crate::sys::pthread::{PTHREAD_BARRIER_SERIAL_THREAD, pthread_barrier_t, words};
use crate::sys::raw::set_errno;

/// The threads that have arrived at a barrier and not gone on.
#[derive(Default)]
struct Round {
    /// How many threads have arrived.
    arrived: u32,
    /// Set by the last one. Each round has another one, so that a thread of the next round is not taken for one of
    /// this.
    open: Arc<AtomicBool>,
}

/// The rounds that are not complete, by the address of the barrier.
static BARRIERS: Mutex<BTreeMap<usize, Round>> = Mutex::new(BTreeMap::new());

/// Arrives at the barrier with this address, where `count` threads meet. Returns the round, and whether the caller
/// completes it.
fn arrive(address: usize, count: u32) -> (Arc<AtomicBool>, bool) {
    let mut barriers = lock(&BARRIERS);
    let round = barriers.entry(address).or_default();
    round.arrived += 1;
    let (open, last) = (Arc::clone(&round.open), round.arrived >= count);
    let done = if last { barriers.remove(&address) } else { None };
    drop(barriers);
    drop(done);
    (open, last)
}

/// Stands in for pthread_barrier_wait(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_barrier_wait(barrier: *mut pthread_barrier_t) -> c_int {
    // SAFETY: c-lock-1.
    let count = if is_patched() { unsafe { words().barrier_count(barrier) } } else { None };
    let Some(count) = count else {
        // SAFETY: c-lock-1.
        return unsafe { c_library::pthread_barrier_wait(barrier) };
    };
    let before = saved_errno();
    let (open, last) = arrive(barrier.addr(), count);
    let at = (Arc::as_ptr(&open).addr(), u32::MAX);
    if last {
        // Release pairs with the Acquire below: all that was done before the barrier comes before all that is done
        // after. The lock of `BARRIERS` has ordered those that came earlier.
        open.store(true, Ordering::Release);
        wait::wake(at.0, at.1, usize::MAX);
        set_errno(before);
        return PTHREAD_BARRIER_SERIAL_THREAD;
    }
    while !open.load(Ordering::Acquire) {
        let is_closed = || !open.load(Ordering::Relaxed);
        match may_wait() {
            Some(green) => wait::wait(green, Foreign::Barrier, at, is_closed, || true, Deadline::NEVER),
            None => wait::wait_on_os_thread(at, is_closed, || true, Deadline::NEVER),
        };
    }
    set_errno(before);
    0
}
