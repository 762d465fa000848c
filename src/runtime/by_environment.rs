//! What variables of the environment ask for: done once in each process, and complained of in one line if that fails.
#![forbid(unsafe_code)]

use std::env;
use std::sync::OnceLock;

use crate::pure::lock::get_or_init;
use crate::sys::signal::write_stderr;

/// Does what the variable with this name asks for, if it is set and nothing is `done` so far: calls `obey` with its
/// value. An error is a line on standard error.
pub(super) fn once(done: &OnceLock<()>, variable: &str, obey: impl FnOnce(&str) -> Result<(), String>) {
    get_or_init(done, || {
        let Some(value) = env::var_os(variable) else { return };
        let text = value.to_string_lossy();
        if let Err(error) = obey(&text) {
            write_stderr(format!("greenling: {variable}={text}: {error}\n").as_bytes());
        }
    });
}
