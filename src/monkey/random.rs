//! getrandom and getentropy: random bytes, which in a simulation come from its seed.
//!
//! So do the hashes of `HashMap`: std seeds them once for each OS thread, at the first map that a run makes. Each run
//! has an OS thread to itself, if it draws bytes, so that a run finds no seed of another (`sim/world.rs`). The files
//! `/dev/random` and `/dev/urandom` stay the kernel's, and so does what was seeded before the run, in a static.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint, c_void};

use super::gate::{part, refuse, simulated};
use crate::sys::c_library;
use crate::sys::raw::{self, EIO};

/// The most bytes that getentropy(3) returns.
const MOST_ENTROPY: usize = 256;

/// Stands in for getrandom(2), hence for the seeds of `std::hash::RandomState`.
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getrandom(place: *mut c_void, len: usize, flags: c_uint) -> isize {
    let Some(simulated) = simulated(part::RANDOM) else {
        // SAFETY: monkey-1, as c-library-1.
        return unsafe { c_library::getrandom(place, len, flags) };
    };
    if len > 0 {
        // SAFETY: monkey-1: the caller's bytes. They need not be initialised, and are only written.
        let bytes = unsafe { std::slice::from_raw_parts_mut(place.cast::<u8>(), len) };
        simulated.fill(bytes);
    }
    len as isize
}

/// Stands in for getentropy(3).
///
/// # Safety
/// As [`getrandom`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn getentropy(place: *mut c_void, len: usize) -> c_int {
    if len > MOST_ENTROPY {
        return refuse(EIO);
    }
    let mut done = 0;
    while done < len {
        // SAFETY: monkey-1: the rest of the caller's bytes.
        let drawn = unsafe { getrandom(place.wrapping_byte_add(done), len - done, 0) };
        match usize::try_from(drawn) {
            Ok(drawn) => done += drawn,
            Err(_) if raw::errno() == raw::EINTR => {}
            Err(_) => return -1,
        }
    }
    0
}
