//! dlopen and dlmopen: libraries that come while threads with thread-locals of their own exist.
//!
//! A library may have its thread-locals in a part of each thread's block that was left free for such: those compiled
//! for the initial-exec model, and on aarch64 most small ones. The dynamic linker writes their first values into the
//! blocks of the OS threads, all of which it knows; those of green threads it does not, and they would begin with
//! zeroes.
//!
//! ```text
//!   dlopen:   under the OS thread's own pointer: the C library's, which runs the library's constructors
//!             fill all blocks
//!             return to the green thread
//! ```
//!
//! So nothing uses such a thread-local in a green thread before its first value is there: constructors run with the OS
//! thread's. A call that fails is repeated under the green thread's own pointer, as `dlerror` tells each thread of its
//! own failures.
//!
//! As with any definition in front of the C library's, the caller of its function is this program: a library that looks
//! for others by a search path of its own (RUNPATH) must name them with a path.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long, c_void};

use crate::switch::root::on_os_thread;
use crate::sys::raw;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::tls;

/// Loads a library by `load`, which returns null if it fails.
fn load(load: impl Fn() -> *mut c_void) -> *mut c_void {
    let own = tls::os_pointer() != 0;
    let handle = if own {
        on_os_thread(|| {
            // A constructor that waits blocks the OS thread: under this pointer nothing may switch.
            let _runtime = runtime_syscall();
            load()
        })
    } else {
        load()
    };
    // Without memory for it the blocks stay as they are; the library is loaded all the same.
    let _ = tls::fill();
    if own && handle.is_null() { load() } else { handle }
}

/// Stands in for dlopen(3).
///
/// # Safety
/// Invariant monkey-1.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: Invariant monkey-1.
    load(|| unsafe { raw::dlopen(name, flags) })
}

/// Stands in for dlmopen(3).
///
/// # Safety
/// Invariant monkey-1.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dlmopen(namespace: c_long, name: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: Invariant monkey-1.
    load(|| unsafe { raw::dlmopen(namespace, name, flags) })
}
