//! Telling a forked child from its parent, for the price of one load.
//!
//! A child of `fork` inherits the memory of a hub but shares its epoll instance and bell with the parent: had it gone
//! on, it would steal the parent's events. Comparing process ids would cost a system call each time; a counter that the
//! child itself raises, before `fork` returns in it, costs a load.
//!
//! Invariant F1: what runs in the child is one atomic addition and the hook of [`in_children`], and both are
//! async-signal-safe: fork(2) allows nothing more in a process that had threads. [`in_child`] and the hook uphold it.
//!
//! Not seen: a raw `clone` or `vfork` system call and `posix_spawn`, which run no handlers. None of them returns into
//! Rust code that could use a hub, unless written for the purpose.

#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Raised in every child of a fork; how far is no matter.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Whether the handler is registered.
static WATCHING: AtomicBool = AtomicBool::new(false);

/// What else is to be done in the child.
static IN_CHILD: OnceLock<fn()> = OnceLock::new();

/// Runs in the child, before `fork` returns there.
extern "C" fn in_child() {
    // Relaxed: the child has one thread, and whatever it starts later is started after this.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    if let Some(hook) = IN_CHILD.get() {
        hook();
    }
}

/// From now on every child calls `hook` first; the first hook stays. It must be async-signal-safe (Invariant F1).
pub(crate) fn in_children(hook: fn()) {
    let _ = IN_CHILD.set(hook);
}

/// From now on [`fork_generation`] changes in every child. Further calls do nothing.
///
/// # Errors
///
/// `ENOMEM`; the next call tries again.
pub(crate) fn watch_forks() -> io::Result<()> {
    // No lock: a fork could leave it held for ever in the child. Two threads at once may both register, and then a
    // child adds two, which differs from its parent's number just as well.
    // Acquire pairs with the Release below: who reads true finds the handler registered.
    if WATCHING.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: Invariant F1: the handler does only what a child may do; it is a function, so it lives for ever
    // (pthread_atfork(3)). A null handler is none.
    let error = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    if error != 0 {
        // This call returns the error instead of setting errno.
        return Err(io::Error::from_raw_os_error(error));
    }
    WATCHING.store(true, Ordering::Release);
    Ok(())
}

/// A number that differs between a process and its forked children, once [`watch_forks`] was called.
#[inline]
pub(crate) fn fork_generation() -> u32 {
    // Relaxed: it changes only while no other thread exists, and guards no other data.
    GENERATION.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::super::testing::in_fork;
    use super::*;

    #[test]
    fn a_fork_changes_the_number_in_the_child_alone() {
        watch_forks().unwrap();
        watch_forks().unwrap();
        let before = fork_generation();
        let child = in_fork(|| (fork_generation() - before) as i32);
        assert_eq!(child.code(), Some(1));
        assert_eq!(fork_generation(), before);
    }
}
