//! A hint to the cache that a line will be read soon.
//!
//! Invariant prefetch-1: the instruction never faults, whatever the address: unmapped, guarded, null or misaligned.
//! Intel's and AMD's manuals say so of PREFETCHT0 and Arm's of PRFM. The hint reads nothing that the program can see
//! and writes nothing. So the function is safe although it takes a raw pointer.

#![allow(unsafe_code)]

/// Brings the cache line at `ptr` closer, for a read in the next few hundred nanoseconds.
#[inline(always)]
pub(crate) fn prefetch_read(ptr: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: Invariant prefetch-1; SSE, which has the instruction, belongs to every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr.cast()) };
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        // SAFETY: Invariant prefetch-1; the options say the rest: no stack, no flags, no memory that the compiler must
        // order.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) ptr, options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(miri)]
    let _ = ptr; // A hint to a cache that an interpreter does not have.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_harmful() {
        let local = 7_u8;
        prefetch_read(&raw const local);
        for address in [0, 1, 0x1000, 0x7fff_ffff_ffff, 0x8000_0000_0000, usize::MAX] {
            prefetch_read(std::ptr::without_provenance(address));
        }
    }
}
