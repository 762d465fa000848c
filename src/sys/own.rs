//! Whether the code that runs is the runtime's own, or a signal handler: system calls made there never switch.
//!
//! Matters only with the feature `monkey`, where the program's `recv` leads to the hub. The runtime makes the same calls
//! (the loop waits in epoll_wait, a native socket reads with `std`'s `recv`), and for those the hub must not be asked:
//! it would wait for itself. Without the feature [`own`] is nothing at all.
//!
//! ```text
//!   Own made (nests) ----> the OS thread's mark is 1, 2, .. ----> calls go to the kernel
//!   Own dropped      ----> 0                                ----> calls may wait in the hub
//! ```
//!
//! Invariant O1: no fiber suspends while a mark of its is set, so marks of one stack never cover another's code. Upheld by
//! those who call [`own`]: they hold it over plain calls only.
#![forbid(unsafe_code)]

#[cfg(feature = "monkey")]
use std::cell::Cell;

#[cfg(feature = "monkey")]
thread_local! {
    /// How many marks are set. No destructor, so it is there as long as the OS thread is, in signal handlers too.
    static MARKS: Cell<u32> = const { Cell::new(0) };
}

/// A mark; gone when dropped.
#[derive(Debug)]
pub(crate) struct Own(());

/// From now on, and until the mark is dropped, the calls of this OS thread are the runtime's.
#[inline(always)]
pub(crate) fn own() -> Own {
    #[cfg(feature = "monkey")]
    MARKS.set(MARKS.get() + 1);
    Own(())
}

impl Drop for Own {
    #[inline(always)]
    fn drop(&mut self) {
        #[cfg(feature = "monkey")]
        MARKS.set(MARKS.get() - 1);
    }
}

/// Whether a mark is set.
#[cfg(feature = "monkey")]
#[inline(always)]
pub(crate) fn is_own() -> bool {
    MARKS.get() != 0
}

#[cfg(all(test, feature = "monkey"))]
mod tests {
    use super::*;

    #[test]
    fn marks_nest_and_belong_to_one_thread() {
        assert!(!is_own());
        let outer = own();
        drop(own());
        assert!(is_own());
        assert!(!std::thread::spawn(is_own).join().unwrap());
        drop(outer);
        assert!(!is_own());
    }
}
