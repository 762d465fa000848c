//! OS threads of the runtime's own: they block all signals, since signals are for the program's threads.
#![forbid(unsafe_code)]

use std::io;
use std::thread;

use super::runtime_syscall::runtime_syscall;
use super::signalfd::SignalSet;

/// Starts an OS thread with this name that runs `life`, on a stack of `stack` bytes, or of `std`'s size.
///
/// # Errors
///
/// `EAGAIN`, `ENOMEM`.
pub(crate) fn start(name: &str, stack: Option<usize>, life: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // With the feature `monkey`, the program may have its own threads made green; not this one.
    let _own = runtime_syscall();
    // The new OS thread inherits the mask, so no signal comes in between.
    let _blocked = SignalSet::all()?.block_only()?;
    let builder = stack.map_or_else(thread::Builder::new, |stack| thread::Builder::new().stack_size(stack));
    builder.name(name.to_owned()).spawn(life).map(drop)
}
