//! What a program says of itself: marks of the trace with the line of the program, and names of descriptors.

use std::os::fd::AsRawFd;
use std::panic::Location;

use greenling::trace;

/// What a mark begins with that names a descriptor.
pub(crate) const NAMES: &str = "descriptor ";

/// What a mark begins with that names the thread.
pub(crate) const CALLED: &str = "called ";

/// Notes what the calling thread is called, if it could not be given a name when it was spawned.
pub(crate) fn call(name: &str) {
    trace::mark(&format!("{CALLED}{name}"));
}

/// Notes what the calling thread is about to do, with the line of the program.
#[track_caller]
pub(crate) fn say(text: &str) {
    trace::mark(&format!("{}: {text}", Location::caller().line()));
}

/// Notes what a descriptor is called: its number is another one in another process.
pub(crate) fn name(descriptor: &impl AsRawFd, name: &str) {
    trace::mark(&format!("{NAMES}{}: {name}", descriptor.as_raw_fd()));
}
