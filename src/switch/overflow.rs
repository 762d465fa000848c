//! The stack-overflow report: whose guard was hit, and what to do about it.
//!
//! ```text
//! green thread #7 "worker", spawned at src/main.rs:12:5, has overflowed its stack of 241664 bytes
//! give it a larger one: greenling::thread::Builder::new().stack_size(bytes), or ...
//! ```
//!
//! Runs in a signal handler, on what is left of an alternate stack (invariant H1 of `sys::signal`): numbers and
//! strings are formatted into a buffer, nothing is allocated or locked. A fault elsewhere than in the running fiber's
//! own guard is somebody else's: main's overflow is std's to report, a null pointer the default's.
#![forbid(unsafe_code)]

use std::fmt::Write;

use super::fiber::{Fiber, State};
use super::stack::Slot;
use crate::sys::signal::Message;

/// Characters of a name that are shown at most.
const NAME_MOST: usize = 64;

/// Whether the fault at `address` is the overflow of `fiber`, which is the one that runs. If so, `out` has the report.
pub(crate) fn describe(fiber: Fiber, address: usize, out: &mut Message) -> bool {
    if fiber.is_main() || matches!(fiber.state.get(), State::Unused | State::Pooled) || !fiber.slot().guards(address) {
        return false;
    }
    // An error says that the message is full: then its end is missing.
    let _ = write_report(fiber, out);
    true
}

/// The two lines.
fn write_report(fiber: Fiber, out: &mut Message) -> std::fmt::Result {
    let (kind, cure) = if fiber.green_thread.get() {
        ("green thread", "greenling::thread::Builder::new().stack_size(bytes)")
    } else {
        ("greenlet", "greenling::Greenlet::with_stack_size(body, bytes)")
    };
    write!(out, "\n{kind} #{}", fiber.id.get())?;
    fiber.with_name(|name| name.map_or(Ok(()), |name| write_name(name, out)))?;
    let size = Slot::stack_size(fiber.slot().shift);
    writeln!(out, ", spawned at {}, has overflowed its stack of {size} bytes", fiber.spawned_at())?;
    writeln!(out, "give it a larger one: {cure}, or greenling::hub::set_default_stack_size(bytes)")
}

/// The name in quotes; a long one is cut, so that place and cure still fit.
fn write_name(name: &str, out: &mut Message) -> std::fmt::Result {
    match name.char_indices().nth(NAME_MOST) {
        None => write!(out, " \"{name}\""),
        Some((end, _)) => write!(out, " \"{}..\"", &name[..end]),
    }
}
