//! The register that holds the thread pointer: reading it, writing it, and running a closure under another one.
//!
//! ```text
//!   x86-64    FS base      thread-locals below it, struct pthread at it; the word at it is its own address
//!   aarch64   TPIDR_EL0    struct pthread below it, thread-locals above it
//! ```
//!
//! A compiler takes the thread pointer for a constant of the function that it compiles: it may work out the address of
//! a thread-local once and use it again further down. So no function here has a thread-local on both sides of a write:
//! what runs under another pointer is a function of its own, which is never inlined.
//!
//! * Invariant tls-pointer-1: the register holds the pointer of the OS thread's own block or of a block that
//!   [`Layout::create`](super::Layout::create) made and that was not destroyed; no instruction between two writes uses
//!   an address of a thread-local that was worked out before the first. Upheld by the callers of
//!   [`set_thread_pointer`].

#![allow(unsafe_code)]

use std::arch::asm;
use std::panic::{self, AssertUnwindSafe};

use super::unsupported::Unsupported;

/// Reports whether the program may write the register.
pub(super) fn is_writable() -> Result<(), Unsupported> {
    #[cfg(target_arch = "x86_64")]
    {
        /// The bit by which the kernel tells that programs may write the FS base (asm/hwcap2.h).
        const FSGSBASE: libc::c_ulong = 1 << 1;
        // SAFETY: getauxval takes any number and has no side effects (getauxval(3)).
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & FSGSBASE == 0 {
            return Err(Unsupported::NoFsgsbase);
        }
    }
    Ok(())
}

/// Returns the thread pointer.
#[inline(always)]
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // Neither `pure` nor `nomem`: the compiler must not move the reading over a switch, nor melt two into one.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: Invariant tls-pointer-1: on x86-64 the first word of every block is the block's thread pointer
    // (ELF Handling for Thread-Local Storage, section 3.4.6).
    unsafe {
        asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: Invariant tls-pointer-1: reads a register that every program may read.
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags));
    }
    pointer
}

/// Sets the thread pointer.
///
/// # Safety
///
/// `pointer` is a live block's, and the calling function uses no thread-local after this (Invariant tls-pointer-1). On
/// x86-64 the kernel allows the instruction ([`layout`](super::layout) has checked it).
#[inline(always)]
pub(crate) unsafe fn set_thread_pointer(pointer: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise. Not `nomem`: accesses stay on their side.
    unsafe {
        asm!("wrfsbase {}", in(reg) pointer, options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller's promise. Not `nomem`: accesses stay on their side.
    unsafe {
        asm!("msr tpidr_el0, {}", in(reg) pointer, options(nostack, preserves_flags));
    }
}

/// Runs `f` under the thread pointer `pointer` and returns to the present one, also when `f` panics: the panic goes on
/// under the present one. What counts panics is a thread-local, so it is caught under the one and raised again, without
/// the hook, under the other.
///
/// May switch: only if `f` does; then the pointer is the switch's business.
///
/// # Safety
///
/// `pointer` is a live block's (Invariant tls-pointer-1).
#[inline(never)]
pub(crate) unsafe fn with_thread_pointer<R>(pointer: usize, f: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn catch<R>(f: impl FnOnce() -> R) -> std::thread::Result<R> {
        panic::catch_unwind(AssertUnwindSafe(f))
    }
    let present = thread_pointer();
    // SAFETY: Invariant tls-pointer-1: the caller vouches for the pointer, and this function uses no thread-local.
    unsafe { set_thread_pointer(pointer) };
    let result = catch(f);
    // SAFETY: Invariant tls-pointer-1: that block is the one that runs, and this function uses no thread-local.
    unsafe { set_thread_pointer(present) };
    match result {
        Ok(value) => value,
        Err(payload) => panic::resume_unwind(payload),
    }
}
