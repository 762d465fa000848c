//! Which system calls are the runtime's: those made under a [`RuntimeSyscall`] mark, or in a signal handler, never
//! switch.
//!
//! The mark matters only with the feature `monkey`, where the program's `recv` leads to the hub. The runtime makes the
//! same calls (the run loop waits in epoll_wait, a native socket reads with `std`'s `recv`), and those must not lead to
//! the hub: the hub would wait for itself. Without the feature, [`runtime_syscall`] compiles to nothing.
//!
//! An allocator is treated as the runtime, since the runtime allocates: `monkey::Allocator` holds a mark over each of
//! its calls, `sys/tls/destructors.rs` over the end of what it has for a thread, and `fork.rs` over its preparation of
//! a fork.
//!
//! ```text
//!   RuntimeSyscall made (nests) ----> the OS thread's count is 1, 2, .. ----> calls go to the kernel
//!   RuntimeSyscall dropped      ----> 0                                 ----> calls may wait in the hub
//! ```
//!
//! Invariant runtime-syscall-1: no fiber suspends while it holds a mark, so the marks of one stack never cover the code
//! of another. Upheld by the callers of [`runtime_syscall`]: they hold the mark over plain calls only.
#![forbid(unsafe_code)]

#[cfg(feature = "monkey")]
use std::cell::Cell;
use std::mem;

#[cfg(feature = "monkey")]
thread_local! {
    /// The number of marks that are held. Has no destructor, so signal handlers can read it as long as the OS thread
    /// lives.
    static MARKS: Cell<u32> = const { Cell::new(0) };
}

/// A mark that the running code is the runtime's. Dropping it takes the mark back.
#[derive(Debug)]
pub(crate) struct RuntimeSyscall(());

/// Marks the system calls of this OS thread as the runtime's until the returned guard is dropped.
#[inline(always)]
pub(crate) fn runtime_syscall() -> RuntimeSyscall {
    #[cfg(feature = "monkey")]
    MARKS.set(MARKS.get() + 1);
    RuntimeSyscall(())
}

impl RuntimeSyscall {
    /// Leaves the mark to [`take_back`](Self::take_back), for two functions that the C library calls one after the
    /// other on one OS thread.
    pub(crate) fn leave(self) {
        mem::forget(self);
    }

    /// Returns the mark that [`leave`](Self::leave) has left on this OS thread.
    pub(crate) fn take_back() -> RuntimeSyscall {
        RuntimeSyscall(())
    }
}

impl Drop for RuntimeSyscall {
    #[inline(always)]
    fn drop(&mut self) {
        #[cfg(feature = "monkey")]
        MARKS.set(MARKS.get() - 1);
    }
}

/// Reports whether a mark is held on this OS thread.
#[cfg(feature = "monkey")]
#[inline(always)]
pub(crate) fn is_runtime_syscall() -> bool {
    MARKS.get() != 0
}

#[cfg(all(test, feature = "monkey"))]
mod tests {
    use super::*;

    #[test]
    fn marks_nest_and_belong_to_one_thread() {
        assert!(!is_runtime_syscall());
        let outer = runtime_syscall();
        drop(runtime_syscall());
        assert!(is_runtime_syscall());
        assert!(!std::thread::spawn(is_runtime_syscall).join().unwrap());
        drop(outer);
        assert!(!is_runtime_syscall());
    }
}
