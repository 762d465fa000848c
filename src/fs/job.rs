//! Calls of file functions as jobs of the pool of OS threads, and the time that those of a simulation take.
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;

use crate::offload::default_pool;
use crate::runtime::caller::Caller;
use crate::runtime::park::Wake;
use crate::switch::fiber::Reason;
use crate::sys::simulation::{stay_inside, virtual_ns};

/// How long a call on a simulated disk takes, in nanoseconds.
const SIMULATED: u64 = 1_000;

/// How long a simulated disk takes until what it has is durable, in nanoseconds.
const SIMULATED_SYNC: u64 = 1_000_000;

/// Reports whether the caller is in a simulation, where files are on disks in memory, after the time that a call takes
/// there.
///
/// # Panics
/// As every blocking call.
pub(crate) fn is_simulated() -> bool {
    takes(SIMULATED)
}

/// Does the same as [`is_simulated`] for a call that waits for the disk.
///
/// # Panics
/// As every blocking call.
pub(crate) fn is_simulated_sync() -> bool {
    takes(SIMULATED_SYNC)
}

/// Lets `nanos` of virtual time pass; reports whether there is virtual time.
#[inline]
fn takes(nanos: u64) -> bool {
    let Some(now) = virtual_ns() else { return false };
    // A caller that cannot wait goes on at once, as outside.
    if let Ok(caller) = Caller::current() {
        while let Ok(Wake::Woken) = caller.park(Reason::Job("a file operation"), now + nanos) {}
    }
    true
}

/// Runs `call` on an OS thread of the pool, or on this one if the caller cannot wait.
///
/// # Errors
/// Those of `call`; `Unsupported` in a simulation.
pub(crate) fn run<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    stay_inside("a file")?;
    // The pool hands the call back if the caller cannot wait or no OS thread can be started.
    match default_pool().offer("a file operation", false, call) {
        Ok(result) => result,
        Err((_, call)) => call(),
    }
}

/// Runs a call that takes a path as [`run`] does.
///
/// # Errors
/// Those of `call`.
pub(crate) fn with_path<T: Send + 'static>(
    path: impl AsRef<Path>,
    call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = path.as_ref().to_owned();
    run(move || call(&path))
}

/// Runs a call that takes two paths as [`run`] does.
///
/// # Errors
/// Those of `call`.
pub(crate) fn with_two_paths<T: Send + 'static>(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    call: impl FnOnce(&Path, &Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    run(move || call(&from, &to))
}
