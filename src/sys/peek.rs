//! A load from an address that need not be mapped, for the price of a load.
//!
//! The kernel answers EFAULT to a futex call with a bad address, and a futex call that this crate answers itself must
//! do the same. To ask the kernel first costs a system call for each wait; nearly all addresses are good. So the word
//! is read by one instruction at a known place, and the handler of faults knows that place:
//!
//! ```text
//!   peek --> load: the instruction -- mapped --> the word
//!                        '-- fault --> kernel --> handlers::trampoline --> recover: goes on in `failed` --> none
//! ```
//!
//! * Invariant peek-1: `load` and `failed` have no frame and touch nothing but registers, so a fault in the first
//!   instruction of `load` may go on at the first of `failed`, which returns to the caller of `load`. Upheld by their
//!   code.
//!
//! A program that takes the handler of SIGSEGV away (SIG_DFL, or a system call made by hand) dies of a bad address.
#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::ffi::c_void;

/// The result of `load` that is no word.
const FAILED: u64 = u64::MAX;

/// Returns the word at `address`, with zeros above; [`FAILED`] if there is none.
///
/// # Safety
/// `recover` is called for faults.
#[unsafe(naked)]
unsafe extern "C" fn load(address: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    // The bytes behind it make the function unlike any other, with which a linker could merge it.
    naked_asm!("mov eax, dword ptr [rdi]", "ret", ".ascii \"greenling load\"");
    #[cfg(target_arch = "aarch64")]
    naked_asm!("ldr w0, [x0]", "ret", ".ascii \"greenling load..\"");
}

/// Returns [`FAILED`] to the caller of `load`.
#[unsafe(naked)]
extern "C" fn failed() -> u64 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov rax, -1", "ret");
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x0, #-1", "ret");
}

/// Returns the word at `address`, which is a multiple of four; none if nothing that can be read is mapped there.
#[inline]
pub(crate) fn peek(address: usize) -> Option<u32> {
    // SAFETY: peek-1, and `handlers::trampoline` calls `recover`. Other threads may change the word: it is one
    // instruction, which reads it whole.
    let word = unsafe { load(address) };
    (word != FAILED).then_some(word as u32)
}

/// Lets a fault in [`peek`] go on with the answer that there is no word. Returns false for any other fault. Runs in a
/// signal handler.
///
/// # Safety
/// `context` is the third argument of a handler of SIGSEGV or SIGBUS.
pub(super) unsafe fn recover(context: *mut c_void) -> bool {
    // SAFETY: the caller's promise (sigaction(2)); the handler is the only user of the struct.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    let at = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    #[cfg(target_arch = "aarch64")]
    let at = &mut context.uc_mcontext.pc;
    let faulted = *at as usize == load as *const () as usize;
    if faulted {
        *at = failed as *const () as usize as _;
    }
    faulted
}

#[cfg(test)]
mod tests {
    use super::super::mmap::{GuardKind, Mapping, page_size};
    use super::*;

    #[test]
    fn a_word_is_read_and_none_where_nothing_is_mapped() {
        for word in [0, 7, u32::MAX] {
            assert_eq!(peek((&raw const word).addr()), Some(word));
        }
        let bad = [0, 8, 1 << 46, usize::MAX - 3, 1 << 63];
        assert_eq!(bad.map(peek), [None; 5]);
        let page = page_size();
        let mapping = Mapping::reserve(2 * page).expect("memory");
        // SAFETY: the mapping is this test's, and nothing uses the page.
        unsafe { mapping.guard(page, page, GuardKind::Protect) }.expect("a guard");
        let end = mapping.base().as_ptr().addr() + page;
        assert_eq!([peek(end - 4), peek(end)], [Some(0), None]);
    }
}
