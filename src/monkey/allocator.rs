//! [`Allocator`]: the program's allocator, of which the waits never let others run.
//!
//! The runtime allocates while it has its lists borrowed, inside a switch, and when it starts a fiber. An allocator
//! that waited in the hub there would run the scheduler within the scheduler. And if a green thread was suspended with
//! one lock of the allocator, waiting for another one, the next allocation on its OS thread would wait for ever, be it
//! the runtime's or the program's. So an allocator waits as it does in an OS thread, always:
//!
//! ```text
//!   Vec::push --> Allocator: mark --> jemalloc --> pthread_mutex_lock: held by another OS thread
//!                                                     mark? the C library's: the OS thread sleeps until the release
//! ```
//!
//! The holder is never a suspended green thread, since a suspension within the allocator is what the mark forbids. So
//! the holder runs, on another OS thread, and the wait is as short as the allocator's own.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};

use crate::sys::runtime_syscall::runtime_syscall;

/// An allocator that never waits in the hub. Programs that call [`patch_locks`](super::patch_locks) declare theirs as
/// one, if it has locks: jemalloc, mimalloc, or one that counts or checks under a `Mutex`. Costs less than a nanosecond
/// for each call (an addition and a subtraction on a thread-local).
///
/// ```
/// use greenling::monkey::Allocator;
/// use std::alloc::System; // or tikv_jemallocator::Jemalloc
///
/// #[global_allocator]
/// static ALLOCATOR: Allocator<System> = Allocator(System);
///
/// // SAFETY: nothing in this program holds thread-locals or locks of its OS thread over a blocking call.
/// unsafe { greenling::monkey::patch_locks() }?;
/// # Ok::<(), greenling::monkey::PatchError>(())
/// ```
///
/// All blocking calls that the allocator makes block the OS thread, also on green threads, as if they were made inside
/// [`no_switch`](crate::no_switch). Other functions of the allocator (for its figures, say, which it collects under its
/// locks) belong inside that.
///
/// glibc's own allocator, which [`System`](std::alloc::System) is, waits in nothing that is patched, and needs no such
/// declaration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator<A>(pub A);

// SAFETY: each function passes everything on to an allocator that keeps the contract. The mark allocates nothing and
// does not unwind.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Allocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _mark = runtime_syscall();
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let _mark = runtime_syscall();
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let _mark = runtime_syscall();
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _mark = runtime_syscall();
        // SAFETY: the caller's promise.
        unsafe { self.0.realloc(memory, layout, size) }
    }
}
