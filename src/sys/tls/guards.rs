//! Two things that the C library does to an OS thread, and that must meet the OS thread's own block: setuid's signal
//! and fork.
//!
//! *setuid and the like.* To the kernel the user is a property of an OS thread, to POSIX one of the process. So the C
//! library sends all OS threads a signal, and the handler calls the kernel and then clears a bit in `struct pthread` of
//! the thread that runs. In a green thread's block there is no such bit to clear, and the caller would signal for ever.
//! The handler is wrapped here, so that it runs under the OS thread's own pointer.
//!
//! *fork.* The child has one thread, and the C library takes the running `struct pthread` for that thread's: it writes
//! the new number there and gives the stacks of all other OS threads in the list to later ones. In a green thread of an
//! OS thread other than the first, that would be the stack on which the hub runs. Handlers that `fork` calls before and
//! after go to the OS thread's own pointer and back. The C library reads its pointer behind the first handlers: the
//! system call is in `_Fork`, a function of its own, and the list is dealt with after that (the machine code of 2.36,
//! 2.41 and 2.43 on x86-64, and of 2.36 on aarch64, where alone the place of `errno` is from before the last handlers).
//!
//! * Invariant tls-guards-1: what runs under the OS thread's pointer in a handler uses no thread-local of the code that
//!   it interrupted, and goes back to the pointer that it found. Upheld by [`on_setxid`], [`before_fork`] and
//!   [`after_fork`].
//! * Invariant tls-guards-2: the guard that waits for the end of a fork is touched by the OS thread that has the lock.
//!   Upheld by [`before_fork`] and [`after_fork`], between which nothing else of this file runs on that OS thread.

#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::fork::watch_forks;
use super::LAYOUT;
use super::block::os_pointer;
use super::errno::{errno, set_errno};
use super::live::{Live, live};
use super::pointer::{set_thread_pointer, thread_pointer};
use super::unsupported::Unsupported;

/// The C library's signal for setuid and the like: the second one of the kernel's real-time signals.
const SETXID: c_int = 33;

/// The bytes of a signal set of the kernel.
const SET: usize = 8;

type Handler = unsafe extern "C" fn(c_int, *mut c_void, *mut c_void);

/// The kernel's `struct sigaction`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Action {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// The C library's handler.
static HANDLER: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The green thread's pointer to which a fork goes back, and the OS thread's own `errno`. Used under the OS
    /// thread's pointer only.
    static FORKED: Cell<(usize, c_int)> = const { Cell::new((0, 0)) };
}

/// The list of all blocks, locked while the process is forked: the child must not find it in the hands of an OS thread
/// that it does not have.
static LOCKED: Locked = Locked(UnsafeCell::new(None));

struct Locked(UnsafeCell<Option<MutexGuard<'static, Live>>>);

// SAFETY: Invariant tls-guards-2.
unsafe impl Sync for Locked {}

/// Calls the C library's handler under the OS thread's own pointer.
unsafe extern "C" fn on_setxid(signal: c_int, info: *mut c_void, context: *mut c_void) {
    // Relaxed: stored before the handler was installed, by a system call.
    let handler = HANDLER.load(Ordering::Relaxed);
    // SAFETY: the number is the address of the C library's handler.
    let handler = unsafe { mem::transmute::<usize, Handler>(handler) };
    let (os, present) = (os_pointer(), thread_pointer());
    if os != 0 {
        // SAFETY: Invariant tls-guards-1.
        unsafe { set_thread_pointer(os) };
    }
    // SAFETY: the arguments are the kernel's.
    unsafe { handler(signal, info, context) };
    if os != 0 {
        // SAFETY: Invariant tls-guards-1.
        unsafe { set_thread_pointer(present) };
    }
}

/// Sets what the process does at the C library's signal, and returns what it did before. The C library's `sigaction`
/// refuses this signal.
fn action(new: Option<&Action>) -> io::Result<Action> {
    let mut old = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the structures are the kernel's, or null (rt_sigaction(2)).
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, SETXID, new, &raw mut old, SET) };
    super::super::cvt(result as i32)?;
    Ok(old)
}

/// Wraps the C library's handler, which is installed when the first OS thread is started.
pub(super) fn guard_setxid() -> Result<(), Unsupported> {
    let failed = |_| Unsupported::Probe("the handler of setuid's signal is not to be had");
    let old = action(None).map_err(failed)?;
    if old.handler <= libc::SIG_IGN {
        return Err(Unsupported::Probe("there is no handler of setuid's signal"));
    }
    if old.handler == on_setxid as *const () as usize {
        return Ok(());
    }
    // Relaxed: the system call below comes later, and with it the first signal that reads this.
    HANDLER.store(old.handler, Ordering::Relaxed);
    action(Some(&Action { handler: on_setxid as *const () as usize, ..old })).map(drop).map_err(failed)
}

/// Goes to the OS thread's own pointer, and locks the list of all blocks.
pub(super) extern "C" fn before_fork() {
    #[inline(never)]
    fn keep(pointer: usize) {
        FORKED.set((pointer, errno()));
        set_errno(0);
        let guard = live();
        // SAFETY: Invariant tls-guards-2: this OS thread has the lock now.
        unsafe { *LOCKED.0.get() = Some(guard) };
    }
    let (os, present) = (os_pointer(), thread_pointer());
    if os != 0 {
        // SAFETY: Invariant tls-guards-1.
        unsafe { set_thread_pointer(os) };
    }
    keep(if os != 0 { present } else { 0 });
}

/// Goes back to the green thread that forks, in the parent. Why a fork failed goes with it.
pub(super) extern "C" fn after_fork() {
    #[inline(never)]
    fn take() -> (usize, c_int) {
        // SAFETY: Invariant tls-guards-2: this OS thread has had the lock since `before_fork`.
        drop(unsafe { (*LOCKED.0.get()).take() });
        let (pointer, kept) = FORKED.get();
        let error = errno();
        if pointer != 0 || error == 0 {
            set_errno(kept);
        }
        (pointer, error)
    }
    let (pointer, error) = take();
    if pointer != 0 {
        // SAFETY: Invariant tls-guards-1: the pointer of the green thread that forks, which waits meanwhile.
        unsafe { set_thread_pointer(pointer) };
        if error != 0 {
            set_errno(error);
        }
    }
}

/// Goes back to the green thread that forks, in the child, where the OS thread has a new number.
extern "C" fn after_fork_in_child() {
    #[inline(never)]
    fn renumber() {
        // SAFETY: Invariant tls-guards-2: this OS thread has had the lock since `before_fork`.
        let locked = unsafe { &*LOCKED.0.get() };
        if let (Some(live), Some(Ok(layout))) = (locked, LAYOUT.get()) {
            layout.renumber(live, thread_pointer());
        }
    }
    renumber();
    after_fork();
}

/// Registers the handlers of fork. Those of `sys/fork.rs` come first, so that all that they do before and after a fork
/// they do under one pointer, the OS thread's.
pub(super) fn guard_fork() -> Result<(), Unsupported> {
    let failed = Unsupported::Probe("no handler of fork can be registered");
    if watch_forks().is_err() {
        return Err(failed);
    }
    // SAFETY: functions of the program, which live as long as the process (pthread_atfork(3)).
    let error = unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork_in_child)) };
    if error == 0 { Ok(()) } else { Err(failed) }
}
