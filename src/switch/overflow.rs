//! The stack-overflow report: which fiber hit its guard, and what to do about that.
//!
//! ```text
//! green thread #7 "worker", spawned at src/main.rs:12:5, has overflowed its stack of 241664 bytes
//! give it a larger one: greenling::thread::Builder::new().stack_size(bytes), or ...
//! ```
//!
//! Runs in a signal handler, on what is left of an alternate stack (sys-signal-1): numbers and
//! strings are formatted into a buffer, and nothing is allocated or locked. A fault elsewhere than in the running
//! fiber's own guard is not reported here: std reports main's overflow, and a null pointer has the default effect.
#![forbid(unsafe_code)]

use std::fmt::Write;

use super::fiber::Fiber;
use super::stack::Slot;
use super::state::State;
use crate::sys::message::Message;

/// The number of characters of a name that are shown at most.
const MAX_NAME: usize = 64;

/// Reports whether the fault at `address` is an overflow of the running fiber, `fiber`; if so, writes the report to
/// `out`. `given_name` writes the name that a fiber without one gets in reports.
pub(crate) fn describe(fiber: Fiber, address: usize, out: &mut Message, given_name: impl FnOnce(&mut Message)) -> bool {
    if fiber.is_main() || matches!(fiber.state.get(), State::Unused | State::Pooled) || !fiber.slot().guards(address) {
        return false;
    }
    // An error says that the message is full: then the end is missing.
    let _ = write_report(fiber, out, given_name);
    true
}

/// Writes the two lines of the report.
fn write_report(fiber: Fiber, out: &mut Message, given_name: impl FnOnce(&mut Message)) -> std::fmt::Result {
    let cure = if fiber.green_thread.get() {
        "greenling::thread::Builder::new().stack_size(bytes)"
    } else {
        "greenling::Greenlet::with_stack_size(body, bytes)"
    };
    // First line: which fiber, and where it was spawned. Second line: the cure.
    writeln!(out)?;
    write_label(fiber, out, given_name)?;
    let size = Slot::stack_size(fiber.slot().shift);
    writeln!(out, ", has overflowed its stack of {size} bytes")?;
    writeln!(out, "give it a larger one: {cure}, or greenling::hub::set_default_stack_size(bytes)")
}

/// Writes which fiber `fiber` is, and where it was spawned; that the runtime runs, if the fiber has just ended.
/// `given_name` writes the name that a fiber without one gets in reports. Runs in a signal handler, on the OS thread of
/// the fiber.
pub(crate) fn write_label(fiber: Fiber, out: &mut Message, given_name: impl FnOnce(&mut Message)) -> std::fmt::Result {
    if fiber.is_main() {
        return write!(out, "main");
    }
    if matches!(fiber.state.get(), State::Unused | State::Pooled | State::Finished) {
        return write!(out, "the runtime");
    }
    let kind = if fiber.green_thread.get() { "green thread" } else { "greenlet" };
    write!(out, "{kind} #{}", fiber.id.get())?;
    fiber.with_name(|name| match name {
        Some(name) => write_name(name, out),
        None => {
            given_name(out);
            Ok(())
        }
    })?;
    write!(out, ", spawned at {}", fiber.spawned_at())
}

/// Writes the name in quotes; a long one is cut, so that place and cure still fit.
fn write_name(name: &str, out: &mut Message) -> std::fmt::Result {
    match name.char_indices().nth(MAX_NAME) {
        None => write!(out, " \"{name}\""),
        Some((end, _)) => write!(out, " \"{}..\"", &name[..end]),
    }
}
