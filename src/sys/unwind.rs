//! Stacks of suspended code: the unwinder starts where that code waits, while it does not run.
//!
//! ```text
//!   stack of the caller                        stack of the suspended code
//!   | ..                                       | its frames
//!   | as_if_called_from                        | where it waits   <--- "the caller", says the table
//!   |   called_from   --- unwind table: -------'
//!   |     f           <-- the unwinder, on this stack
//! ```
//!
//! The function in the middle, `called_from`, has a table for the unwinder that does not tell where it will return to,
//! but that it was called from the suspended code. So `f` sees that code's frames as its callers, though it runs on the
//! stack of the thread that asks: the suspended stack needs no room, none of its pages is touched that was not, and
//! nothing runs in its name.
//!
//! * Invariant sys-unwind-1: nothing unwinds through `called_from`, since it would unwind the suspended frames. Upheld
//!   by `call`, which is `extern "C"`, and so ends the process at an unwinding out of it.
#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::ffi::{c_int, c_void};

/// The registers that suspended code goes on with; the others, its own frames keep.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspended {
    /// The address of the next instruction.
    pub(crate) pc: usize,
    /// The register that the compiler does not let inline assembly save: rbx, x19.
    pub(crate) kept: usize,
    /// The frame pointer: rbp, x29.
    pub(crate) frame: usize,
    /// What the stack pointer will be at `pc`.
    pub(crate) sp: usize,
}

/// Calls `f` with `argument`; the unwinder believes that the call stands in the suspended code.
///
/// # Safety
/// `suspended` is what suspended code goes on with, and that code does not run meanwhile. `f` does not unwind.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn called_from(
    suspended: *const Suspended,
    f: extern "C" fn(*mut c_void),
    argument: *mut c_void,
) -> *const Suspended {
    // rbx leads to the registers for the time of the call, since `f` keeps it. From there on, each register of the
    // caller is at an offset of it: DW_CFA_def_cfa_expression (0x0f): the value at rbx + 24. DW_CFA_expression (0x10)
    // of rip (16), rbx (3), rbp (6): the places rbx + 0, + 8, + 16. DW_OP_breg3 is 0x73, DW_OP_deref 0x06.
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset rbx, -16",
        "mov rbx, rdi",
        "mov rdi, rdx",
        ".cfi_remember_state",
        ".cfi_escape 0x0f, 3, 0x73, 24, 0x06",
        ".cfi_escape 0x10, 16, 2, 0x73, 0",
        ".cfi_escape 0x10, 3, 2, 0x73, 8",
        ".cfi_escape 0x10, 6, 2, 0x73, 16",
        "call rsi",
        "nop",
        ".cfi_restore_state",
        "mov rax, rbx",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbx",
        "ret",
        ".cfi_endproc",
    )
}

/// Calls `f` with `argument`; the unwinder believes that the call stands in the suspended code.
///
/// # Safety
/// As on x86-64.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn called_from(
    suspended: *const Suspended,
    f: extern "C" fn(*mut c_void),
    argument: *mut c_void,
) -> *const Suspended {
    // As on x86-64, with x19: DW_OP_breg19 is 0x83. The return address is register 30.
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-32]!",
        "str x19, [sp, #16]",
        ".cfi_adjust_cfa_offset 32",
        ".cfi_offset x29, -32",
        ".cfi_offset x30, -24",
        ".cfi_offset x19, -16",
        "mov x19, x0",
        "mov x9, x1",
        "mov x0, x2",
        ".cfi_remember_state",
        ".cfi_escape 0x0f, 3, 0x83, 24, 0x06",
        ".cfi_escape 0x10, 30, 2, 0x83, 0",
        ".cfi_escape 0x10, 19, 2, 0x83, 8",
        ".cfi_escape 0x10, 29, 2, 0x83, 16",
        "blr x9",
        "nop",
        ".cfi_restore_state",
        "mov x0, x19",
        "ldr x19, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        ".cfi_adjust_cfa_offset -32",
        ".cfi_restore x19",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        ".cfi_endproc",
    )
}

/// Calls the closure at `argument`, which is a `&mut &mut dyn FnMut()`.
extern "C" fn call(argument: *mut c_void) {
    // SAFETY: `as_if_called_from` passes this, and waits.
    let f = unsafe { &mut *argument.cast::<&mut dyn FnMut()>() };
    f();
}

/// Calls `f` so that the unwinder finds the frames of suspended code below it. A panic of `f` ends the process.
///
/// # Safety
/// `suspended` is what suspended code goes on with; that code does not run meanwhile, and its frames end: at a return
/// address of 0, or at the start of its OS thread.
pub(crate) unsafe fn as_if_called_from(suspended: &Suspended, mut f: &mut dyn FnMut()) {
    // SAFETY: the caller's promise; sys-unwind-1.
    unsafe { called_from(suspended, call, (&raw mut f).cast()) };
}

unsafe extern "C" {
    /// Calls `trace` with each frame, the innermost first, until it returns another number than 0.
    fn _Unwind_Backtrace(trace: extern "C" fn(*mut c_void, *mut c_void) -> c_int, argument: *mut c_void) -> c_int;
    /// Returns the address of the instruction that the frame goes on with.
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

/// What `_Unwind_Backtrace` has found.
struct Found<'a> {
    /// What was found so far, the innermost first.
    addresses: &'a mut Vec<usize>,
    /// The number of frames after which it ends.
    most: usize,
}

/// Notes the return address of a frame, and says whether the walk goes on.
extern "C" fn note(context: *mut c_void, argument: *mut c_void) -> c_int {
    // SAFETY: `return_addresses` passes this, and waits.
    let found = unsafe { &mut *argument.cast::<Found<'_>>() };
    // SAFETY: the unwinder passes the frame.
    found.addresses.push(unsafe { _Unwind_GetIP(context) });
    // Any number but 0 ends the walk; 4 is what a walk ends with in the normal case.
    if found.addresses.len() < found.most { 0 } else { 4 }
}

/// Replaces `addresses` by the return addresses of the frames below this function's caller, at most `most`.
#[inline(never)]
pub(crate) fn return_addresses(addresses: &mut Vec<usize>, most: usize) {
    addresses.clear();
    let mut found = Found { addresses, most };
    // SAFETY: the two functions fit together, and the value outlives the call.
    unsafe { _Unwind_Backtrace(note, (&raw mut found).cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_ends_after_as_many_frames_as_are_asked_for() {
        let mut addresses = vec![1; 100];
        return_addresses(&mut addresses, 3);
        assert_eq!(addresses.len(), 3);
        assert!(addresses.iter().all(|address| *address > 4096), "{addresses:?}");
    }

    #[test]
    fn the_frames_below_are_those_of_the_code_that_is_named() {
        // Code that nothing can unwind into: the walk ends there.
        let nowhere = Suspended { pc: 0, kept: 0, frame: 0, sp: 0 };
        let mut addresses = Vec::new();
        // SAFETY: a return address of 0.
        unsafe { as_if_called_from(&nowhere, &mut || return_addresses(&mut addresses, 100)) };
        let mut here = Vec::new();
        return_addresses(&mut here, 100);
        assert!(addresses.len() < 12, "{addresses:x?}");
        assert!(here.len() > addresses.len());
    }
}
