//! Something that is done once, by the thread of any hub that comes first.
//!
//! ```text
//!           call_once               returns
//!    NEW -------------> RUNNING ----------------> DONE
//!     ^                   |  |  panics
//!     '-------------------'  '----------------> POISONED -- call_once_force --> RUNNING
//!        killed, timed out
//! ```
//!
//! Whatever ends RUNNING wakes all waiters, and each looks at the state again. After a kill the first of them runs its
//! own closure. A waiter looks at the state once more under the lock of the queue, and the state changes before that
//! lock is taken to wake the waiters. So a waiter sees the change, or is in the queue in time.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use super::raw::{Grant, Label, RawLock, Request, Waited, refused};
use crate::runtime::checkpoint::checkpoint;
use crate::switch::cancel;
use crate::switch::fiber::{Held, Holder};
use crate::switch::root::identity;
use crate::sync::OnceState;
use crate::sys::clock::NEVER;

/// No closure has begun, or those that did were killed.
const NEW: u8 = 0;

/// A thread, the holder, runs its closure.
const RUNNING: u8 = 1;

/// A closure has returned.
const DONE: u8 = 2;

/// A closure panicked, and none has returned since.
const POISONED: u8 = 3;

/// std's `Once` for green threads of any hub and for plain OS threads: can stand in a `static`.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use greenling::hub::sync::Once;
///
/// static ONCE: Once = Once::new();
/// static COUNT: AtomicU32 = AtomicU32::new(0);
///
/// let begin = || {
///     ONCE.call_once(|| {
///         greenling::yield_now(); // the others wait
///         COUNT.fetch_add(1, Ordering::Relaxed);
///     })
/// };
/// let os_threads = [std::thread::spawn(begin), std::thread::spawn(begin)];
/// os_threads.into_iter().for_each(|thread| thread.join().unwrap());
/// assert_eq!(COUNT.load(Ordering::Relaxed), 1);
/// ```
///
/// A panic of the closure poisons the `Once`, as with std's. If the thread that runs its closure is killed or times
/// out, nothing has happened: the next waiter runs its own closure.
pub struct Once {
    /// The state; see the head of the file. Release by the thread that leaves RUNNING, Acquire by those that look:
    /// these see what the closure did.
    state: AtomicU8,
    /// The threads that wait for the end of RUNNING, or with [`Once::wait`] for DONE.
    raw: RawLock,
}

/// Ends RUNNING when dropped, whether the closure returned or unwound.
struct CompletionGuard<'a> {
    once: &'a Once,
    /// Set when the closure has returned.
    done: bool,
    /// The state before RUNNING.
    before: u8,
}

impl Drop for CompletionGuard<'_> {
    fn drop(&mut self) {
        let state = match self.done {
            true => DONE,
            // A kill or a timeout is no fault of the closure: the next waiter runs its own.
            false if cancel::unwinds_quietly() => self.before,
            false => POISONED,
        };
        let core = self.once.raw.core();
        core.holder.clear();
        // Release pairs with the Acquire of `state`.
        self.once.state.store(state, Ordering::Release);
        core.notify(true);
    }
}

impl Once {
    /// Creates a `Once` of which no closure has run.
    ///
    /// May switch: no.
    pub const fn new() -> Once {
        Once { state: AtomicU8::new(NEW), raw: RawLock::new(Grant::Wakeup, 0) }
    }

    /// Calls `f` if no closure has returned yet. If another thread runs its closure, waits for that thread. When this
    /// call returns, a closure has returned, and what it did is visible.
    ///
    /// # Panics
    /// If an earlier closure panicked. If `f` calls this for the same `Once`. With the panics of `f`. If the call would
    /// have to wait while the caller, a thread of a hub, unwinds from a panic or kill. Unwinds with a kill or an
    /// expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), in the child of a fork, and
    /// in main on a deadlock within main's hub.
    ///
    /// May switch: yes, if another thread runs its closure, or if `f` switches.
    #[inline]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        if self.state() != DONE {
            self.run(false, |_| f());
        }
    }

    /// [`call_once`](Self::call_once) that also tries again after a panic.
    ///
    /// # Panics
    /// As [`call_once`](Self::call_once), except for the first reason.
    ///
    /// May switch: as [`call_once`](Self::call_once).
    pub fn call_once_force<F: FnOnce(&OnceState)>(&self, f: F) {
        if self.state() != DONE {
            self.run(true, f);
        }
    }

    #[inline]
    fn state(&self) -> u8 {
        // Acquire pairs with the Release of `CompletionGuard`.
        self.state.load(Ordering::Acquire)
    }

    /// Reports whether a closure has returned.
    ///
    /// May switch: if none has, and the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.state() == DONE || {
            checkpoint();
            self.state() == DONE
        }
    }

    /// Waits until a closure has returned.
    ///
    /// # Panics
    /// If a closure panicked. Otherwise as [`call_once`](Self::call_once).
    ///
    /// May switch: yes, unless a closure has returned.
    pub fn wait(&self) {
        self.wait_done(false);
    }

    /// [`wait`](Self::wait) that goes on waiting after a panic.
    ///
    /// # Panics
    /// As [`call_once`](Self::call_once), except for the first reason.
    ///
    /// May switch: yes, unless a closure has returned.
    pub fn wait_force(&self) {
        self.wait_done(true);
    }

    /// Waits until a closure has returned; with `force` also after a panic.
    fn wait_done(&self, force: bool) {
        loop {
            match self.state() {
                DONE => return,
                POISONED if !force => poisoned(),
                state => self.wait_while(state),
            }
        }
    }

    /// Calls `f` unless a closure has returned or another thread runs one.
    #[cold]
    fn run<F: FnOnce(&OnceState)>(&self, force: bool, f: F) {
        loop {
            match self.state() {
                DONE => return,
                POISONED if !force => poisoned(),
                RUNNING => self.wait_while(RUNNING),
                before => {
                    let core = self.raw.core();
                    // Acquire pairs with the Release of the guard before. If another thread was faster, the loop looks
                    // at the state anew.
                    let taken = self.state.compare_exchange(before, RUNNING, Ordering::Acquire, Ordering::Relaxed);
                    if taken.is_err() {
                        continue;
                    }
                    core.holder.set();
                    // The guard ends RUNNING, also if `f` unwinds.
                    let mut guard = CompletionGuard { once: self, done: false, before };
                    f(&OnceState::new(before == POISONED));
                    guard.done = true;
                    return;
                }
            }
        }
    }

    /// Waits until the state may be another one than `state`.
    fn wait_while(&self, state: u8) {
        let core = self.raw.core();
        let holder = core.holder.get();
        // The caller's own closure would have to return first.
        if state == RUNNING && holder == identity() {
            panic!("greenling: {} waits inside the closure of a Once for its end", Label(holder));
        }
        let request = Request::held(Held::Once, 0, NEVER);
        // Asked once more under the queue's lock: whether the state is still `state`.
        if let Waited::Refused(refusal) = core.wait(request, || self.state() == state, || {}) {
            match core.holder.get() {
                Holder::UNKNOWN => refused(&refusal, &"a shared Once"),
                holder => refused(&refusal, &format_args!("a shared Once that {} runs", Label(holder))),
            }
        }
    }
}

/// Panics with std's words.
#[cold]
#[inline(never)]
fn poisoned() -> ! {
    panic!("Once instance has previously been poisoned");
}

impl Default for Once {
    fn default() -> Self {
        Once::new()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state() {
            NEW => "New",
            RUNNING => "Running",
            DONE => "Done",
            _ => "Poisoned",
        };
        f.debug_struct("Once").field("state", &format_args!("{state}")).finish_non_exhaustive()
    }
}
