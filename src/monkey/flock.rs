//! flock: the lock of a file, which a green thread tries to take again and again.
//!
//! No descriptor becomes ready when a lock becomes free, and an OS thread that waits in place of the caller would take
//! the lock even if the caller was killed meanwhile: the lock belongs to the open file, and to release it could take it
//! from a rightful holder. So the green thread tries without waiting, and sleeps in between, at first for [`SHORTEST`],
//! then longer and longer, up to [`LONGEST`]. The kernel's order is lost: the longest waiter is not always first.
#![allow(unsafe_code)] // `no_mangle` counts as unsafe

use std::ffi::c_int;
use std::time::Duration;

use super::gate::{Green, blocking, finish, green, part, pass, saved_errno};
use crate::switch::fiber::Reason;
use crate::sys::clock::after;
use crate::sys::raw::{self, Answer, EAGAIN, EWOULDBLOCK, LOCK_NB};

/// The length of the first sleep.
const SHORTEST: Duration = Duration::from_millis(1);

/// The length of the longest sleep.
const LONGEST: Duration = Duration::from_millis(50);

/// Repeats `attempt` until the result is not EWOULDBLOCK.
fn until_free(green: Green, attempt: impl Fn() -> Answer) -> Answer {
    let mut pause = SHORTEST;
    blocking(|| {
        loop {
            match attempt() {
                Err(EWOULDBLOCK) => {}
                answer => return answer,
            }
            // No descriptor reports that a lock is free, so the wait is a pause.
            match green.wait_all(&mut std::iter::empty(), Reason::Lock("a file"), after(pause)) {
                Ok(()) => {}
                // The pause is over: try again, and pause longer next time.
                Err(EAGAIN) => pause = (2 * pause).min(LONGEST),
                Err(error) => return Err(error),
            }
        }
    })?
}

/// Stands in for flock(2).
///
/// # Safety
/// None in the sense of C: the function takes numbers.
#[unsafe(no_mangle)]
pub(super) extern "C" fn flock(fd: c_int, operation: c_int) -> c_int {
    let before = saved_errno();
    match green(part::FILES).filter(|_| operation & LOCK_NB == 0) {
        Some(green) => finish(before, until_free(green, || raw::flock(fd, operation | LOCK_NB))) as c_int,
        None => pass(raw::flock(fd, operation)) as c_int,
    }
}
