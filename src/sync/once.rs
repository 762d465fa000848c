//! Something that is done once, by whoever comes first.
//!
//! ```text
//!           call_once               returns
//!    NEW -------------> RUNNING ----------------> DONE
//!     ^                   |  |  panics
//!     '-------------------'  '----------------> POISONED -- call_once_force --> RUNNING
//!        killed, timed out
//! ```
//!
//! Whatever ends RUNNING wakes all who wait, and each looks again: after a kill the first of them is the next to try.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;

use super::line::{Line, held, me};
use crate::runtime::report::label_of;
use crate::switch::cancel;
use crate::switch::fiber::{Held, Reason};

/// See the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has begun.
    New,
    /// The thread with this id is at it.
    Running(u64),
    /// It is done.
    Done,
    /// Who tried panicked.
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
/// It is poisoned by a panic of the closure, as std's. If the thread at it is killed or times out, nothing has happened:
/// the next that waits runs its own closure.
pub struct Once {
    /// See [`State`].
    state: Cell<State>,
    /// Who waits for the end of RUNNING, or with [`Once::wait`] for DONE.
    line: Line,
}

/// What the closure of [`Once::call_once_force`] is told.
#[derive(Debug)]
pub struct OnceState {
    /// Whether an earlier closure panicked.
    poisoned: bool,
}

impl OnceState {
    /// Whether an earlier closure panicked.
    ///
    /// May switch: no.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}

/// Ends RUNNING.
struct Turn<'a> {
    /// Of what.
    once: &'a Once,
    /// The state after a return.
    then: State,
    /// The state before.
    before: State,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let state = match self.then {
            State::Done => State::Done,
            _ if cancel::unwinds_quietly() => self.before,
            _ => State::Poisoned,
        };
        self.once.state.set(state);
        self.once.line.choose_all();
    }
}

impl Once {
    /// Nothing is done yet.
    ///
    /// May switch: no.
    pub const fn new() -> Once {
        Once { state: Cell::new(State::New), line: Line::new() }
    }

    /// Calls `f` if no closure has returned yet; if another thread is at it, waits for that. When this returns, a closure
    /// has returned.
    ///
    /// # Panics
    /// If an earlier closure panicked. If `f` calls this for the same `Once`. With the panics of `f`. If it would have to
    /// wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if another thread is at it, or if `f` does.
    #[inline]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        if !self.is_completed() {
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
        if !self.is_completed() {
            self.run(true, f);
        }
    }

    /// Whether a closure has returned.
    ///
    /// May switch: no.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.state.get() == State::Done
    }

    /// Waits until a closure has returned.
    ///
    /// # Panics
    /// If a closure panicked. Otherwise as [`call_once`](Self::call_once).
    ///
    /// May switch: yes, unless it is completed.
    pub fn wait(&self) {
        self.wait_done(false);
    }

    /// [`wait`](Self::wait) that goes on waiting after a panic.
    ///
    /// # Panics
    /// As [`call_once`](Self::call_once), except for the first reason.
    ///
    /// May switch: yes, unless it is completed.
    pub fn wait_force(&self) {
        self.wait_done(true);
    }

    /// `wait` and `wait_force`.
    fn wait_done(&self, force: bool) {
        loop {
            match self.state.get() {
                State::Done => return,
                State::Poisoned if !force => poisoned(),
                State::Running(id) => self.wait_for(id),
                State::New | State::Poisoned => {
                    self.line.wait_or_panic(Reason::Event("a Once"), || "a Once", |_| {});
                }
            }
        }
    }

    /// Calls `f` if it is this thread's turn.
    #[cold]
    fn run<F: FnOnce(&OnceState)>(&self, force: bool, f: F) {
        loop {
            match self.state.get() {
                State::Done => return,
                State::Poisoned if !force => poisoned(),
                before @ (State::New | State::Poisoned) => {
                    self.state.set(State::Running(me()));
                    let mut turn = Turn { once: self, then: State::Poisoned, before };
                    f(&OnceState { poisoned: before == State::Poisoned });
                    turn.then = State::Done;
                    return;
                }
                State::Running(id) => self.wait_for(id),
            }
        }
    }

    /// Waits for the thread that is at it.
    fn wait_for(&self, id: u64) {
        if id == me() {
            panic!("greenling: {} waits inside the closure of a Once for its end", label_of(id));
        }
        let what = || format!("a Once that {} runs", label_of(id));
        self.line.wait_or_panic(held(Held::Once, id), what, |_| {});
    }
}

/// std's words.
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
