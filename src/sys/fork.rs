//! A number that tells a forked child from its parent, for the price of one load.
//!
//! A child of `fork` inherits the memory of a hub but shares the epoll instance and the bell with the parent: a child
//! that used the hub would steal the parent's events. To compare process ids would cost a system call each time; a
//! counter that the child raises before `fork` returns there costs a load.
//!
//! The same handlers keep patched calls from waiting in the hub while `fork` runs the handlers of older libraries: an
//! allocator takes all of its locks there, one after the other, and a fiber that was suspended with one of them would
//! leave every other fiber without memory.
//!
//! ```text
//!   fork --> before_fork: mark --> handlers registered earlier --> the kernel --> the same, in the order of
//!            (the latest registration comes first)                              registration --> after_fork: no mark
//! ```
//!
//! Invariant fork-1: what runs in the child is arithmetic on numbers and the hooks of [`in_children`], and these are
//! async-signal-safe: fork(2) allows nothing more in a process that had threads. Upheld by [`in_child`] and the hooks.
//!
//! Not seen are a raw `clone` or `vfork` system call and `posix_spawn`, which run no handlers. None of these returns
//! into Rust code that could use a hub, unless written for the purpose.

#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::runtime_syscall::{RuntimeSyscall, runtime_syscall};
use crate::pure::lock::get_or_init;

/// The number of forks that lead to this process, or more: only differences matter.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Whether the handler is registered.
static WATCHING: AtomicBool = AtomicBool::new(false);

/// The hooks of [`in_children`], in order of registration.
static IN_CHILD: [OnceLock<fn()>; 4] = [const { OnceLock::new() }; 4];

/// Marks the OS thread's calls as the runtime's until [`after_fork`] or [`in_child`].
extern "C" fn before_fork() {
    runtime_syscall().leave();
}

/// Takes the mark back, in the parent.
extern "C" fn after_fork() {
    drop(RuntimeSyscall::take_back());
}

/// Takes the mark back, and raises the generation. Runs in the child, before `fork` returns there.
extern "C" fn in_child() {
    after_fork();
    // Relaxed: the child has one thread, and its later threads start after this store.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    IN_CHILD.iter().filter_map(OnceLock::get).for_each(|hook| hook());
}

/// Registers `hook`, which every child calls first. There is room for a few, and a second registration of one does
/// nothing. The hook must be async-signal-safe (Invariant fork-1).
pub(crate) fn in_children(hook: fn()) {
    let same = |known: &fn()| ptr::fn_addr_eq(*known, hook);
    let placed = IN_CHILD.iter().any(|place| same(get_or_init(place, || hook)));
    debug_assert!(placed);
}

/// Makes [`fork_generation`] change in every child from now on. Further calls do nothing.
///
/// # Errors
///
/// `ENOMEM`; the next call tries again.
pub(crate) fn watch_forks() -> io::Result<()> {
    // No lock: a fork could leave a lock held for ever in the child. Two threads at once may both register, and then a
    // child adds two, which differs from the parent's number just as well.
    // Acquire: pairs with the Release below, so a thread that reads true finds the handler registered.
    if WATCHING.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: Invariant fork-1: the child's handler does only what a child may do, and functions live for ever
    // (pthread_atfork(3)).
    let error = unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    if error != 0 {
        // This call returns the error instead of setting errno.
        return Err(io::Error::from_raw_os_error(error));
    }
    WATCHING.store(true, Ordering::Release);
    Ok(())
}

/// Returns a number that differs between a process and its forked children, once [`watch_forks`] was called.
#[inline]
pub(crate) fn fork_generation() -> u32 {
    // Relaxed: the number changes only while no other thread exists, and guards no other data.
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
