//! The end of the running stack, read from the stack pointer.
//!
//! The address of a local variable is no answer: the compiler lays out a frame as it likes, and an inlined function
//! shares a frame with its callers, so that a buffer of a caller may lie far below any local of the function.
//!
//! ```text
//!   high   frames of the callers
//!          +------------------------------------------+
//!          | the frame of the function that asks      |   `local` is somewhere in here
//!   SP --> +------------------------------------------+
//!   low    the functions that it calls from now on
//! ```
//!
//! Invariant stack-pointer-1: the instruction reads one register and nothing else. The address of a local is an input
//! of the instruction, so the frame of the function into which it is inlined is complete when it runs.

#![allow(unsafe_code)]

use std::arch::asm;
use std::mem::MaybeUninit;

/// Returns the stack pointer of the function into which this is inlined. That frame and those of the callers lie at the
/// address or above; frames of later calls lie below (and on x86-64 a red zone of 128 bytes, if nothing is called).
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    // The address of a local, as an input of the instruction, keeps the frame complete (stack-pointer-1).
    let local = MaybeUninit::<u8>::uninit();
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: Invariant stack-pointer-1: reads a register, no memory, no flags.
    unsafe {
        asm!("mov {0}, rsp", inout(reg) (&raw const local).addr() => pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: Invariant stack-pointer-1: reads a register, no memory, no flags.
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
