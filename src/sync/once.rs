//! Something that is done once, by the thread that comes first.
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
//! own closure.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;

use super::wait_queue::{WaitQueue, current_id};
use crate::runtime::checkpoint::checkpoint;
use crate::runtime::report::label_of;
use crate::switch::cancel;
use crate::switch::fiber::{Held, Reason};

/// The state of a [`Once`]; see the head of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No closure has begun, or those that did were killed.
    New,
    /// The thread with this id runs its closure.
    Running(u64),
    /// A closure has returned.
    Done,
    /// A closure panicked, and none has returned since.
    Poisoned,
}

/// std's `Once` for the green threads of one OS thread.
///
/// ```
/// use std::cell::Cell;
/// use greenling::{sync::Once, thread};
///
/// let (once, count) = (Once::new(), Cell::new(0));
/// thread::scope(|s| {
///     for _ in 0..3 {
///         s.spawn(|| {
///             once.call_once(|| {
///                 thread::yield_now(); // the others wait
///                 count.set(count.get() + 1);
///             })
///         });
///     }
/// });
/// assert_eq!(count.get(), 1);
/// ```
///
/// A panic of the closure poisons the `Once`, as with std's. If the thread that runs its closure is killed or times
/// out, nothing has happened: the next waiter runs its own closure.
pub struct Once {
    state: Cell<State>,
    /// The threads that wait for the end of RUNNING, or with [`Once::wait`] for DONE.
    queue: WaitQueue,
}

/// The state that the closure of [`Once::call_once_force`] sees.
#[derive(Debug)]
pub struct OnceState {
    /// Set if an earlier closure panicked.
    poisoned: bool,
}

impl OnceState {
    /// Returns a state, for the `Once` between hubs.
    pub(crate) fn new(poisoned: bool) -> OnceState {
        OnceState { poisoned }
    }

    /// Reports whether an earlier closure panicked.
    ///
    /// May switch: no.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}

/// Ends RUNNING when dropped, whether the closure returned or unwound.
struct CompletionGuard<'a> {
    once: &'a Once,
    /// `Done` once the closure has returned.
    then: State,
    /// The state before RUNNING.
    before: State,
}

impl Drop for CompletionGuard<'_> {
    fn drop(&mut self) {
        let state = match self.then {
            State::Done => State::Done,
            // A kill or a timeout is no fault of the closure: the next waiter runs its own.
            _ if cancel::unwinds_quietly() => self.before,
            _ => State::Poisoned,
        };
        self.once.state.set(state);
        // All waiters look again: some wait for DONE, some want to run.
        self.once.queue.choose_all();
    }
}

impl Once {
    /// Creates a `Once` of which no closure has run.
    ///
    /// May switch: no.
    pub const fn new() -> Once {
        Once { state: Cell::new(State::New), queue: WaitQueue::new() }
    }

    /// Calls `f` if no closure has returned yet. If another thread runs its closure, waits for that thread. When this
    /// call returns, a closure has returned.
    ///
    /// # Panics
    /// If an earlier closure panicked. If `f` calls this for the same `Once`. With the panics of `f`. If the call would
    /// have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if another thread runs its closure, or if `f` switches.
    #[inline]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        if self.state.get() != State::Done {
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
        if self.state.get() != State::Done {
            self.run(true, f);
        }
    }

    /// Reports whether a closure has returned.
    ///
    /// May switch: if none has, and the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.state.get() == State::Done || {
            checkpoint();
            self.state.get() == State::Done
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
            match self.state.get() {
                State::Done => return,
                State::Poisoned if !force => poisoned(),
                State::Running(id) => self.wait_for(id),
                // No thread runs a closure now; the next one that ends RUNNING wakes the caller.
                State::New | State::Poisoned => {
                    self.queue.wait_or_panic(Reason::Event("a Once"), || "a Once", |_| {});
                }
            }
        }
    }

    /// Calls `f` unless a closure has returned or another thread runs one.
    #[cold]
    fn run<F: FnOnce(&OnceState)>(&self, force: bool, f: F) {
        loop {
            match self.state.get() {
                State::Done => return,
                State::Poisoned if !force => poisoned(),
                before @ (State::New | State::Poisoned) => {
                    // The guard ends RUNNING, also if `f` unwinds.
                    self.state.set(State::Running(current_id()));
                    let mut guard = CompletionGuard { once: self, then: State::Poisoned, before };
                    f(&OnceState { poisoned: before == State::Poisoned });
                    guard.then = State::Done;
                    return;
                }
                State::Running(id) => self.wait_for(id),
            }
        }
    }

    /// Waits until the thread `id` has ended RUNNING.
    fn wait_for(&self, id: u64) {
        // The caller's own closure would have to return first.
        if id == current_id() {
            panic!("greenling: {} waits inside the closure of a Once for its end", label_of(id));
        }
        let what = || format!("a Once that {} runs", label_of(id));
        self.queue.wait_or_panic(Reason::Held(Held::Once, id), what, |_| {});
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
        f.debug_struct("Once").field("state", &self.state.get()).finish_non_exhaustive()
    }
}
