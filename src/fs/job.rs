//! Calls of file functions as jobs of the pool of OS threads.
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;

use crate::offload::default_pool;
use crate::sys::simulation::stay_inside;

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
