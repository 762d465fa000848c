//! The names of threads and the bounds of their stacks, for green threads with thread-locals of their own.
//!
//! The kernel keeps a name for each OS thread, so a green thread that names itself would rename its hub's. Here the
//! name becomes the green thread's: reports and panics of this crate print it. The C library's notes of a stack are of
//! the OS thread too, or of none; here they are of the stack that the green thread runs on.
//!
//! ```text
//!   pthread_setname_np(3), prctl(PR_SET_NAME)    of the caller or of a thread on the list; else the C library's
//!   pthread_getname_np(3), prctl(PR_GET_NAME)    the same; a thread without a name has its OS thread's
//!   pthread_getattr_np(3)                        the same
//! ```
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::Arc;

use super::gate::pass;
use super::thread_list::{NAME_SIZE, StackRange};
use super::threads::{green_thread, is_patched, this_number};
use crate::switch::fiber::Fiber;
use crate::switch::root::existing_root;
use crate::switch::stack::GUARD;
use crate::sys::c_library::{self, pthread_attr_t, pthread_t};
use crate::sys::raw::{self, ERANGE, PR_GET_NAME, PR_SET_NAME, SYS_prctl};

/// A name as the kernel has it: up to 15 bytes, then zeroes.
type Name = [u8; NAME_SIZE];

/// Makes a name of the first 15 bytes.
fn shortened(bytes: &[u8]) -> Name {
    let mut name = [0; NAME_SIZE];
    let len = bytes.len().min(NAME_SIZE - 1);
    name[..len].copy_from_slice(&bytes[..len]);
    name
}

/// Returns the running fiber, if this part is patched and the fiber has thread-locals of its own.
fn here() -> Option<Fiber> {
    if !is_patched() {
        return None;
    }
    existing_root().map(|root| root.current()).filter(|fiber| !fiber.is_main() && fiber.has_block())
}

/// Returns the running fiber if `number` is its own.
fn this_fiber(number: pthread_t) -> Option<Fiber> {
    here().filter(|_| number as usize == this_number())
}

/// Names the running fiber.
fn name_fiber(fiber: Fiber, bytes: &[u8]) {
    fiber.set_name(Arc::from(String::from_utf8_lossy(bytes)));
    if let Some(thread) = green_thread(this_number() as pthread_t) {
        thread.set_name(shortened(bytes));
    }
}

/// Returns the name of the running fiber, if it has one.
fn name_of(fiber: Fiber) -> Option<Name> {
    fiber.name().map(|name| shortened(name.as_bytes()))
}

/// Stands in for pthread_setname_np(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_setname_np(number: pthread_t, name: *const c_char) -> c_int {
    let (fiber, thread) = (this_fiber(number), green_thread(number));
    if fiber.is_none() && thread.is_none() {
        // SAFETY: monkey-1.
        return unsafe { c_library::pthread_setname_np(number, name) };
    }
    // SAFETY: monkey-1: a C string.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    if bytes.len() >= NAME_SIZE {
        return ERANGE;
    }
    match (fiber, thread) {
        (Some(fiber), _) => name_fiber(fiber, bytes),
        // Another thread, perhaps another hub's: reports print the name that it had.
        (None, thread) => thread.into_iter().for_each(|thread| thread.set_name(shortened(bytes))),
    }
    0
}

/// Stands in for pthread_getname_np(3).
///
/// # Safety
/// As [`pthread_setname_np`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_getname_np(number: pthread_t, buffer: *mut c_char, len: usize) -> c_int {
    let named = this_fiber(number).and_then(name_of);
    let Some(name) = named.or_else(|| green_thread(number)?.name()) else {
        // SAFETY: monkey-1. A green thread without a name: the C library has the OS thread's.
        return unsafe { c_library::pthread_getname_np(number, buffer, len) };
    };
    if len < NAME_SIZE {
        return ERANGE;
    }
    // SAFETY: monkey-1: the caller's buffer has this length.
    unsafe { ptr::copy_nonoverlapping(name.as_ptr(), buffer.cast(), NAME_SIZE) };
    0
}

/// Stands in for prctl(2), of which two operations are about the name of the caller. C declares the function as
/// variadic; see `syscall` in `futex.rs`.
///
/// # Safety
/// As [`pthread_setname_np`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn prctl(operation: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
    let place = || ptr::with_exposed_provenance_mut::<c_char>(a);
    match (operation, here()) {
        (PR_SET_NAME, Some(fiber)) => {
            // SAFETY: monkey-1: a C string, of which the kernel would take the first 15 bytes.
            let bytes = unsafe { CStr::from_ptr(place()) }.to_bytes();
            name_fiber(fiber, &bytes[..bytes.len().min(NAME_SIZE - 1)]);
            return 0;
        }
        (PR_GET_NAME, Some(fiber)) => {
            if let Some(name) = name_of(fiber) {
                // SAFETY: monkey-1: the caller's buffer has 16 bytes (prctl(2)).
                unsafe { ptr::copy_nonoverlapping(name.as_ptr(), place().cast(), NAME_SIZE) };
                return 0;
            }
        }
        _ => {}
    }
    // SAFETY: monkey-1.
    pass(unsafe { raw::kernel(SYS_prctl, [operation as usize, a, b, c, d, 0]) }) as c_int
}

/// Stands in for pthread_getattr_np(3).
///
/// # Safety
/// As [`pthread_setname_np`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_getattr_np(number: pthread_t, attributes: *mut pthread_attr_t) -> c_int {
    let thread = green_thread(number);
    let stack = this_fiber(number).map(StackRange::of).or_else(|| thread.as_ref()?.stack());
    let Some(StackRange { low, len }) = stack else {
        // SAFETY: monkey-1.
        return unsafe { c_library::pthread_getattr_np(number, attributes) };
    };
    let detached = thread.is_some_and(|thread| thread.is_detached());
    // SAFETY: monkey-1: the caller's place for attributes; the same below, where they are initialised.
    let error = unsafe { c_library::pthread_attr_init(attributes) };
    if error != 0 {
        return error;
    }
    let low = ptr::with_exposed_provenance_mut(low);
    // SAFETY: as above.
    unsafe { c_library::pthread_attr_setstack(attributes, low, len) };
    // SAFETY: as above.
    unsafe { c_library::pthread_attr_setguardsize(attributes, GUARD) };
    if detached {
        // SAFETY: as above.
        unsafe { c_library::pthread_attr_setdetachstate(attributes, c_library::PTHREAD_CREATE_DETACHED) };
    }
    0
}
