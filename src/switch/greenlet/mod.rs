//! Greenlets: explicit, symmetric switches with values.
//!
//! ```text
//!                       first switch                return, panic, kill
//!   new --> UNSTARTED ---------------> STARTED ------------------------------> DEAD
//!              |                       (suspended, running, or blocked in the hub)   ^
//!              +---------- throw, kill: the body never runs -------------------------+
//! ```
//!
//! A switch is symmetric: it returns the value of the next switch to the caller, by any greenlet. The *parent*
//! matters only at death: return value and panic go to the nearest ancestor that lives. The rules are those of
//! Python's greenlet; the documents of this project number them C1 to C27, and the comments below cite the numbers.
//!
//! A greenlet does not know the hub. If the code blocks (`sleep`, a socket), the fiber parks there like any other,
//! and main or another runnable fiber goes on.
//!
//! | file | supplies |
//! |---|---|
//! | `error` | the errors of a switch and of a change of parent |
//! | `trace` | `settrace` and the events that it reports |
//! | `handle` | `Greenlet`, `WeakGreenlet` and the record that all handles of a greenlet share |
//! | `deliver` | which greenlet takes a message; the start of a body, and its result on the way to an ancestor |
//! | `unwind` | the drop of the last handle |
#![forbid(unsafe_code)]

mod deliver;
mod error;
mod handle;
mod trace;
mod unwind;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use self::deliver::received;
use self::error::fail;
pub use self::error::{ParentError, SwitchError, SwitchErrorKind};
use self::handle::{Body, Inner, Status};
pub use self::handle::{Greenlet, WeakGreenlet};
pub use self::trace::{GreenletId, TraceEvent, TraceKind, settrace};
use super::cancel::{self, GreenletExit, NO_VALUE};
use super::fiber::drop_quietly;
use super::mailbox::{Arrival, Message, exchange};
use super::root::{Root, existing_root, root, try_root};
use super::stack::{MIN_SHIFT, Slot};
use super::state::State;

/// What a greenlet is doing: see [`Greenlet::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GreenletState {
    /// The greenlet has not been switched to yet, and has no stack.
    Unstarted,
    /// The greenlet is in a switch to another one.
    Suspended,
    /// The greenlet waits in a blocking call (or is about to run): the hub, not a switch, will resume it.
    Blocked,
    /// The greenlet is the caller.
    Running,
    /// The greenlet has ended.
    Dead,
}

impl<M: 'static> Greenlet<M> {
    /// Creates a greenlet that will run `body` with the value of the first switch; the parent is the running greenlet
    /// (C1).
    ///
    /// The body does not run yet, and no stack is taken. When the OS thread is ending a greenlet can be created, but
    /// not started.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn new(body: impl FnOnce(M) -> M + 'static) -> Greenlet<M> {
        Self::build(Box::new(body), Self::current(), default_shift())
    }

    /// Creates a greenlet with another parent than the running greenlet: see [`new`](Self::new).
    ///
    /// May switch: no.
    #[track_caller]
    pub fn with_parent(body: impl FnOnce(M) -> M + 'static, parent: &Greenlet<M>) -> Greenlet<M> {
        Self::build(Box::new(body), parent.clone(), default_shift())
    }

    /// Creates a greenlet with a stack of at least `stack_size` bytes: see [`new`](Self::new). The size is address
    /// space: only the pages that are touched cost memory.
    ///
    /// Messages lie on the stack. Without optimisation every frame of a switch holds copies of its own, some sixty in
    /// all: a family that exchanges more than a few hundred bytes should box them, or ask for more stack.
    ///
    /// # Panics
    /// If `stack_size` is larger than 4 GiB less the guard.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn with_stack_size(body: impl FnOnce(M) -> M + 'static, stack_size: usize) -> Greenlet<M> {
        let shift = Slot::shift_for(stack_size).expect("a stack of more than 4 GiB");
        Self::build(Box::new(body), Self::current(), shift)
    }

    /// Creates an unstarted greenlet, for the constructors.
    #[track_caller]
    fn build(body: Body<M>, parent: Greenlet<M>, shift: u8) -> Greenlet<M> {
        let mut inner = Inner::blank(try_root().map_or(0, Root::fresh_id), Status::Unstarted, Location::caller());
        inner.body = Cell::new(Some(body));
        inner.parent = RefCell::new(Some(parent));
        inner.shift = shift;
        Self::from_inner(Rc::new(inner))
    }

    /// Returns the running greenlet (C22). Main, a green thread and a greenlet of another family are members as well.
    /// When the OS thread is ending every greenlet is dead.
    ///
    /// May switch: no.
    #[doc(alias = "getcurrent")]
    #[inline]
    pub fn current() -> Greenlet<M> {
        match try_root() {
            Some(root) => Self::member(root.current()),
            None => Self::gone(),
        }
    }

    /// Returns main of this OS thread, as a member of this family; dead when the OS thread is ending.
    ///
    /// May switch: no.
    pub fn main() -> Greenlet<M> {
        match try_root() {
            Some(root) => root.main_of_block().map_or_else(Self::gone, Self::guest),
            None => Self::gone(),
        }
    }

    /// Passes `value` to the parent of the running greenlet, as a generator does, and returns the value that is passed
    /// back.
    ///
    /// `Greenlet::current().parent().unwrap().switch(value)` does the same, but holds a handle of the running
    /// greenlet on the stack meanwhile, so that dropping all other handles would not unwind the greenlet.
    ///
    /// # Panics
    /// As [`switch`](Self::switch); and in main and in green threads, which have no parent.
    ///
    /// May switch: yes.
    #[inline]
    #[track_caller]
    pub fn switch_to_parent(value: M) -> M {
        let parent = Self::current().parent();
        match parent {
            Some(parent) => parent.switch(value),
            None => fail(&SwitchErrorKind::NoReceiver),
        }
    }

    /// Passes `value` to this greenlet and gives it the CPU; returns the value that is passed back.
    ///
    /// * Not started yet: `value` becomes the argument of the body (C2).
    /// * Suspended: `value` is returned by the greenlet's own pending `switch` (C3).
    /// * Dead: `value` goes to the first live ancestor (C10); if that is the caller, `switch` returns at once.
    /// * The caller itself: `switch` returns `value` at once (C5).
    ///
    /// # Panics
    /// With a panic that was thrown to the caller, or that ended a child of the caller (C7). With the message of
    /// [`SwitchErrorKind`] where [`try_switch`](Self::try_switch) gives an error; while unwinding this aborts the
    /// process, since a destructor must not panic then. Inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes.
    #[inline(always)]
    #[track_caller]
    pub fn switch(&self, value: M) -> M {
        match self.try_switch(value) {
            Ok(value) => value,
            Err(error) => fail(&error.kind),
        }
    }

    /// Passes `value` as [`switch`](Self::switch) does, but gives the value back where no switch is possible.
    ///
    /// # Errors
    /// See [`SwitchErrorKind`]. The caller and the target are unharmed.
    ///
    /// # Panics
    /// With what is thrown to the caller, as `switch` does.
    ///
    /// May switch: yes.
    #[inline(always)]
    pub fn try_switch(&self, value: M) -> Result<M, SwitchError<M>> {
        let Some(root) = existing_root() else { return self.switch_slow(value) };
        let me = root.current();
        // The common case, in a few comparisons: the caller does not unwind, has nothing pending and is not traced,
        // and the target waits in a switch of this family, which is then neither the caller nor dead.
        if cancel::obstacle().is_none()
            && !me.pending.any()
            && !root.traces_switches()
            && let Some(target) = self.inner.fiber.get()
            && let Some(target) = root.resolve(target)
        {
            return match exchange(root, me, target, value) {
                Ok(Arrival::Value(value)) => Ok(value),
                Ok(Arrival::Message(message)) => Ok(received(root, me, message)),
                Ok(Arrival::Nothing) => Ok(self.interrupted(root, me, false)),
                Err(value) => self.switch_slow(value),
            };
        }
        self.switch_slow(value)
    }

    /// Does the work of `try_switch` in every other case.
    #[inline(never)]
    fn switch_slow(&self, value: M) -> Result<M, SwitchError<M>> {
        let Some(root) = try_root() else { return Err(SwitchError { value, kind: SwitchErrorKind::ThreadEnding }) };
        if cancel::obstacle().is_some() {
            return Err(SwitchError { value, kind: SwitchErrorKind::Unwinding });
        }
        match self.send_from(root, Message::Value(value)) {
            Ok(value) => Ok(value),
            Err((kind, Message::Value(value))) => Err(SwitchError { value, kind }),
            Err((kind, Message::Throw(_))) => fail(&kind),
        }
    }

    /// Raises `payload` in this greenlet, at its pending switch, and gives it the CPU; returns the value that is
    /// passed back (C11). No panic hook is called.
    ///
    /// * Not started yet: the body never runs, the greenlet is dead, and the payload goes to the parent (C12).
    /// * Dead: the payload is raised in the first live ancestor (C13).
    ///
    /// # Panics
    /// As [`switch`](Self::switch), and with the payload if that comes back to the caller. Under `panic = "abort"`.
    ///
    /// A payload is a box; nothing else can be thrown:
    ///
    /// ```compile_fail,E0308
    /// greenling::Greenlet::new(|n: u32| n).throw("not a box");
    /// ```
    ///
    /// ```should_panic
    /// greenling::Greenlet::new(|n: u32| n).throw(Box::new("a box"));
    /// ```
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn throw(&self, payload: Box<dyn Any + Send>) -> M {
        self.send(Message::Throw(payload))
    }

    /// Raises [`GreenletExit`] in this greenlet; unless the exit is caught there, `value` goes to the parent as if
    /// the body had returned that value (C8). Returns the value that is passed back.
    ///
    /// * Not started yet: the body never runs, and `value` goes to the parent.
    /// * Dead: as `switch` (C13).
    /// * Main or a green thread: the exit is raised there, and `value` is dropped, since they have no parent.
    ///
    /// # Panics
    /// As [`switch`](Self::switch). Under `panic = "abort"`, unless the greenlet is unstarted or dead.
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn kill(&self, value: M) -> M {
        let root = root();
        let me = root.current();
        if cancel::obstacle().is_some() {
            fail(&SwitchErrorKind::Unwinding);
        }
        // A kill of the caller that is pending comes first.
        if me.pending.any() {
            cancel::before_suspension(root, me);
        }
        match self.inner.status.get() {
            // The body never runs; the parent gets the value.
            Status::Unstarted => match self.end_unstarted() {
                Some(parent) => parent.switch(value),
                None => fail(&SwitchErrorKind::NoReceiver),
            },
            Status::Started => {
                // Numbered, so that an exit that was caught does not lend the value to a later one.
                let number = root.fresh_number();
                let older = self.inner.exit_value.replace(Some((number, value)));
                drop_quietly(older);
                self.send(Message::Throw(Box::new(GreenletExit(number))))
            }
            // The value cannot go to a parent, since a guest has none.
            Status::Guest if self.fiber(root).is_some() => {
                drop_quietly(value);
                self.send(Message::Throw(Box::new(GreenletExit(NO_VALUE))))
            }
            Status::Guest | Status::Dead => self.switch(value),
        }
    }

    /// Returns the parent; `None` for main and other guests (C14). While the greenlet is unwound because its last
    /// handle was dropped, the dropper is the parent, and afterwards the one that the program chose (C18).
    ///
    /// May switch: no.
    pub fn parent(&self) -> Option<Greenlet<M>> {
        match self.inner.dropper.get().and_then(|dropper| try_root()?.resolve(dropper)) {
            Some(dropper) => Some(Self::member(dropper)),
            None => self.inner.parent.borrow().clone(),
        }
    }

    /// Makes `parent` the greenlet that gets this one's result. Allowed in any state (C14).
    ///
    /// A parent cannot be taken away, nor be of another family:
    ///
    /// ```compile_fail,E0308
    /// let g = greenling::Greenlet::new(|n: u32| n);
    /// g.set_parent(None);
    /// ```
    ///
    /// ```compile_fail,E0308
    /// let g = greenling::Greenlet::new(|n: u32| n);
    /// g.set_parent(&greenling::Greenlet::<String>::main());
    /// ```
    ///
    /// ```
    /// let g = greenling::Greenlet::new(|n: u32| n);
    /// g.set_parent(&greenling::Greenlet::<u32>::main()).unwrap();
    /// ```
    ///
    /// # Errors
    /// If this greenlet is main or another guest, or would become its own ancestor (C15).
    ///
    /// May switch: no.
    pub fn set_parent(&self, parent: &Greenlet<M>) -> Result<(), ParentError> {
        if self.inner.status.get() == Status::Guest {
            return Err(ParentError::Guest);
        }
        // C15: this greenlet must not be among the ancestors of the new parent.
        let mut at = Some(parent.clone());
        while let Some(ancestor) = at {
            if ancestor == *self {
                return Err(ParentError::Cycle);
            }
            at = ancestor.inner.parent.borrow().clone();
        }
        // The old parent may be the last handle of a greenlet, so its drop may switch.
        let old = self.inner.parent.replace(Some(parent.clone()));
        drop(old);
        Ok(())
    }

    /// Returns what the greenlet is doing (C21).
    ///
    /// May switch: no.
    pub fn state(&self) -> GreenletState {
        let Some(root) = try_root() else { return GreenletState::Dead };
        match self.inner.status.get() {
            Status::Unstarted => GreenletState::Unstarted,
            Status::Dead => GreenletState::Dead,
            Status::Started | Status::Guest => match self.fiber(root) {
                // Started, but the fiber is gone.
                None => GreenletState::Dead,
                Some(fiber) if fiber == root.current() => GreenletState::Running,
                // Only a greenlet that waits in a switch can be switched to (C21).
                Some(fiber) if fiber.state.get() == State::Switched => GreenletState::Suspended,
                Some(_) => GreenletState::Blocked,
            },
        }
    }

    /// Reports whether the greenlet has started and is not dead: what `bool(g)` is in Python (C21).
    ///
    /// May switch: no.
    pub fn is_active(&self) -> bool {
        !matches!(self.state(), GreenletState::Unstarted | GreenletState::Dead)
    }

    /// Reports whether the greenlet has finished, or was killed before the start (C21).
    ///
    /// May switch: no.
    pub fn is_dead(&self) -> bool {
        self.state() == GreenletState::Dead
    }

    /// Reports whether this is main.
    ///
    /// May switch: no.
    pub fn is_main(&self) -> bool {
        try_root().is_some_and(|root| self.fiber(root).is_some_and(|fiber| root.main_of_block() == Some(fiber)))
    }

    /// Returns the greenlet's identity in traces.
    ///
    /// May switch: no.
    pub fn id(&self) -> GreenletId {
        GreenletId(self.inner.id)
    }

    /// Returns the number of bytes of stack between the base of a suspended greenlet and the pending switch; 0 for a
    /// greenlet that runs, has not started, is blocked in the hub or is dead.
    ///
    /// May switch: no.
    pub fn stack_in_use(&self) -> usize {
        let Some(fiber) = try_root().and_then(|root| self.fiber(root)) else { return 0 };
        if fiber.state.get() != State::Switched || fiber.is_main() {
            return 0;
        }
        fiber.stack_base() - fiber.mailbox.get().addr()
    }
}

/// Returns the slot size of a greenlet that asks for none.
fn default_shift() -> u8 {
    try_root().map_or(MIN_SHIFT, |root| root.default_shift.get())
}

impl<M: 'static> fmt::Debug for Greenlet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.state() {
            GreenletState::Unstarted => "pending",
            GreenletState::Suspended => "suspended",
            GreenletState::Blocked => "blocked",
            GreenletState::Running => "current",
            GreenletState::Dead => "dead",
        };
        let main = if self.is_main() { " main" } else { "" };
        write!(f, "Greenlet#{}({word}{main}, made at {})", self.inner.id, self.inner.made_at)
    }
}

impl<M: 'static> fmt::Debug for WeakGreenlet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upgrade() {
            Some(greenlet) => write!(f, "Weak({greenlet:?})"),
            None => f.write_str("Weak(gone)"),
        }
    }
}
