//! Green threads with thread-locals of their own, for tests of what patched locks do.
#![allow(dead_code, unreachable_pub)] // each test uses some of the helpers

use greenling::thread::{Builder, JoinHandle, own_thread_locals_supported};
use greenling::{monkey, yield_now};

/// Patches the locks, and makes the hub. None, with a message, where threads cannot have thread-locals of their own.
#[allow(unsafe_code)]
pub fn patched_locks() -> Option<super::common::Guard> {
    let guard = super::common::guard();
    // SAFETY: the code of the tests relies on nothing over a wait.
    unsafe { monkey::patch_locks() }.unwrap();
    yield_now();
    own_thread_locals_supported().inspect_err(|error| eprintln!("skipped: {error}")).ok()?;
    Some(guard)
}

/// Starts a green thread with thread-locals of its own.
#[track_caller]
pub fn own<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().own_thread_locals().spawn(f).unwrap()
}

/// Starts a green thread with thread-locals of its own, and with a name.
#[track_caller]
pub fn own_named(name: &str, f: impl FnOnce() + Send + 'static) {
    drop(Builder::new().name(name.into()).own_thread_locals().spawn(f).unwrap());
}
