//! Where the running stack ends, from the register that says it.
//!
//! The address of a local variable is no answer: the compiler lays out a frame as it likes, and a function that was
//! inlined shares its frame with its callers, so a buffer of theirs may lie far below any local of its own.
//!
//! ```text
//!   high   frames of the callers
//!          +------------------------------------------+
//!          | the frame of the function that asks      |   `local` is somewhere in here
//!   SP --> +------------------------------------------+
//!   low    what it calls from now on
//! ```
//!
//! Invariant P1: the instruction reads one register and nothing else. It is written so that the frame of the function
//! that it ends up in is complete when it runs: it takes the address of a local as its input, and there is none before.

#![allow(unsafe_code)]

use std::arch::asm;
use std::mem::MaybeUninit;

/// The stack pointer in the function that this is inlined into: all that its frame and its callers' hold lies at this
/// address or above, whatever it calls afterwards below it (and on x86-64 128 bytes of its own, if it calls nothing).
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let local = MaybeUninit::<u8>::uninit();
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: Invariant P1: reads a register, no memory, no flags.
    unsafe {
        asm!("mov {0}, rsp", inout(reg) (&raw const local).addr() => pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: Invariant P1: reads a register, no memory, no flags.
    unsafe {
        asm!("mov {0}, sp", inout(reg) (&raw const local).addr() => pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn every_local_of_the_frame_lies_above() {
        let large = black_box([1_u8; 50_000]);
        let pointer = stack_pointer();
        assert!(pointer <= (&raw const large).addr());
        assert!(pointer <= (&raw const pointer).addr());
        assert!((&raw const large).addr() - pointer < 200_000);
        assert_eq!(large[49_999], 1);
    }

    #[test]
    fn a_callee_is_below() {
        #[inline(never)]
        fn callee() -> usize {
            black_box(stack_pointer())
        }
        assert!(callee() < stack_pointer());
    }
}
