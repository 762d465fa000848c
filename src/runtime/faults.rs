//! What calls ask a simulation: whether they fail now, and how. Elsewhere nothing fails on purpose.
//!
//! Code that stands for the kernel in a simulation asks here, at each place where the kernel could say no. A call that
//! lists what can happen to it makes one choice of the schedule, unless none of that is [asked
//! for](crate::sim::Faults), which makes none.
#![forbid(unsafe_code)]

use std::io;

use crate::switch::root::existing_root;
use crate::sys::fault::{Fault, FaultKind};

/// Returns which of the `possible` faults happens now, if one does.
pub(crate) fn fault(possible: &[FaultKind]) -> Option<Fault> {
    existing_root()?.simulation()?.fault(possible)
}

/// Fails if the calling call is to fail now, in one of the `possible` ways, each of which is an error.
///
/// # Errors
/// That of the fault.
pub(crate) fn may_fail(possible: &[FaultKind]) -> io::Result<()> {
    fault(possible).map_or(Ok(()), |fault| Err(fault.error()))
}

/// Returns how many of `len` bytes the calling transfer moves: all of them, unless it is to be short now.
pub(crate) fn transferred(len: usize) -> usize {
    // One byte cannot be moved in part.
    let fault = if len > 1 { fault(&[FaultKind::Short]) } else { None };
    fault.map_or(len, |fault| fault.shortened(len))
}
