//! Posts of signal handlers: a handler must not touch the table of waiters, which it may have interrupted, so an OS
//! thread does that for it.
//!
//! ```text
//!   sem_post in a handler                            the relay, an OS thread
//!   1. the C library's                               1. takes the flag, or sleeps until it is set
//!   2. is there a waiter? puts the address into      2. takes the addresses out of POSTED
//!      POSTED, unless it is there already            3. wakes what waits there in the table
//!   3. sets the flag
//! ```
//!
//! The relay is started by the first green wait for a semaphore, since a handler cannot start a thread; so a program
//! without such waits has no relay. A child of a fork starts its own.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::wait;
use crate::sys::flag::Flag;
use crate::sys::fork::fork_generation;
use crate::sys::service_thread;

/// How many semaphores may have posts of handlers on their way.
const PLACES: usize = 64;

/// The size of the relay's stack, in bytes; its calls are not deep.
const STACK: usize = 64 * 1024;

/// The addresses at which handlers have posted; 0 for a place that is free.
static POSTED: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];

/// Set when there is an address.
static FLAG: Flag = Flag::new();

/// One more than the count of forks of the process in which the relay runs; 0 before it is started.
static RUNS_IN: AtomicU32 = AtomicU32::new(0);

/// Starts the relay of this process, if there is none. Without a thread for it, posts of handlers wake no green thread.
#[inline]
pub(super) fn start() {
    let process = fork_generation().wrapping_add(1);
    // Relaxed: the number guards nothing; of two threads that start at once, one changes it.
    let known = RUNS_IN.load(Ordering::Relaxed);
    if known != process
        && RUNS_IN.compare_exchange(known, process, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        && service_thread::start("greenling-relay", Some(STACK), run).is_err()
    {
        RUNS_IN.store(0, Ordering::Relaxed);
    }
}

/// Runs the relay, until the process ends.
fn run() {
    loop {
        if !FLAG.take() {
            FLAG.sleep_until_set();
            continue;
        }
        for place in &POSTED {
            // Acquire: the post comes before the wake-up. The place is free before the wake-up, so that a post that
            // comes later is put in again.
            let address = place.swap(0, Ordering::Acquire);
            if address != 0 {
                wait::wake(address, u32::MAX, usize::MAX);
            }
        }
    }
}

/// Has the relay wake what waits at `address`. Async-signal-safe.
pub(super) fn post(address: usize) {
    let free_or_same = |place: &AtomicUsize| {
        // Release: pairs with the Acquire of `run`.
        match place.compare_exchange(0, address, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => true,
            // SeqCst: not a mere load, so that the relay's swap comes either after the post or before this.
            Err(known) => {
                known == address
                    && place.compare_exchange(address, address, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            }
        }
    };
    let _ = POSTED.iter().any(free_or_same);
    FLAG.set();
}
