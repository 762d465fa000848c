//! flock: the lock of a file, tried again and again.
//!
//! No descriptor becomes ready when a lock becomes free, and an OS thread that waits for it in place of the caller would
//! get it also when the caller was killed meanwhile: the lock is the open file's, and giving it back could take it from
//! somebody who has it rightly. So the green thread tries without waiting, and sleeps in between, at first for
//! [`SHORTEST`], then longer and longer. What is lost is the kernel's order: who waits longest need not be first.
#![allow(unsafe_code)] // `no_mangle` counts as unsafe

use std::ffi::c_int;
use std::time::Duration;

use super::gate::{Green, blocking, entry, finish, green, part, pass};
use crate::runtime::source::after;
use crate::switch::fiber::Reason;
use crate::sys::raw::{self, Answer, EAGAIN, EWOULDBLOCK, LOCK_NB};

/// The first sleep.
const SHORTEST: Duration = Duration::from_millis(1);

/// No sleep is longer.
const LONGEST: Duration = Duration::from_millis(50);

/// Tries until it does not say EWOULDBLOCK.
fn until_free(green: Green, attempt: impl Fn() -> Answer) -> Answer {
    let mut pause = SHORTEST;
    blocking(|| {
        loop {
            match attempt() {
                Err(EWOULDBLOCK) => {}
                answer => return answer,
            }
            match green.wait_all(&mut std::iter::empty(), Reason::Lock("a file"), after(pause)) {
                Ok(()) => {}
                Err(EAGAIN) => pause = (2 * pause).min(LONGEST),
                Err(error) => return Err(error),
            }
        }
    })?
}

/// flock(2).
///
/// # Safety
/// None in C's sense: it takes numbers.
#[unsafe(no_mangle)]
pub(super) extern "C" fn flock(fd: c_int, operation: c_int) -> c_int {
    let before = entry();
    match green(part::FILES).filter(|_| operation & LOCK_NB == 0) {
        Some(green) => finish(before, until_free(green, || raw::flock(fd, operation | LOCK_NB))) as c_int,
        None => pass(raw::flock(fd, operation)) as c_int,
    }
}
