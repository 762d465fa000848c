//! Mutual exclusion between green threads that keep something half done over a blocking call.
//!
//! ```text
//!   holder = 0         free, and nobody waits
//!   holder = id        locked; others stand in line
//!   unlock             the first in line becomes the holder at once, before it runs; nobody can overtake it
//! ```
//!
//! The value lies in a `RefCell`, whose borrow the guard carries: the lock decides who may, the cell checks it.
//!
//! * Invariant M1: if `holder` is 0, the line is empty.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use super::line::{Line, held, me};
use super::poison::{Entry, Poison};
use crate::runtime::report::label_of;
use crate::runtime::source::after;
use crate::switch::fiber::{Held, Reason};

/// The lock without the value.
#[derive(Debug)]
struct Raw {
    /// The id of the thread that has it; 0 for nobody.
    holder: Cell<u64>,
    /// Who waits for it.
    line: Line,
}

impl Raw {
    /// Takes the lock if it is free.
    #[inline(always)]
    fn try_lock(&self) -> bool {
        let free = self.holder.get() == 0;
        if free {
            self.holder.set(me());
        }
        free
    }

    /// Takes the lock or waits for it.
    #[inline(always)]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_contended();
        }
    }

    /// `lock` when it is taken.
    #[inline(always)]
    fn lock_contended(&self) {
        let holder = self.holder.get();
        if holder == me() {
            locked_twice(holder);
        }
        let what = || format!("a Mutex that {} holds", label_of(self.holder.get()));
        self.line.wait_or_panic(self.reason(), what, |chosen| self.left(chosen));
    }

    /// Takes the lock, or waits for it until `deadline`. Says whether the caller has it.
    fn lock_until(&self, deadline: u64) -> bool {
        self.try_lock() || self.line.wait(self.reason(), deadline, |chosen| self.left(chosen)).is_chosen()
    }

    /// The reason to wait.
    #[inline(always)]
    fn reason(&self) -> Reason {
        held(Held::Mutex, self.holder.get())
    }

    /// A wait was in vain; `chosen` if it got the lock all the same.
    fn left(&self, chosen: bool) {
        match chosen {
            true => self.unlock(),
            false => self.line.note_holder(self.holder.get()),
        }
    }

    /// Gives the lock to the first in line.
    #[inline(always)]
    fn unlock(&self) {
        if self.line.is_empty() {
            self.holder.set(0);
        } else {
            self.hand_over();
        }
    }

    /// `unlock` when somebody waits.
    #[cold]
    #[inline(never)]
    fn hand_over(&self) {
        let next = self.line.choose().unwrap_or(0);
        self.holder.set(next);
        self.line.note_holder(next);
    }
}

/// The caller would wait for itself.
#[cold]
#[inline(never)]
fn locked_twice(holder: u64) -> ! {
    panic!("greenling: {} locks a Mutex that it holds already: it would wait for itself", label_of(holder));
}

/// std's `Mutex` for the green threads of one OS thread.
///
/// Green threads take turns anyway: a `Cell` or `RefCell` is enough unless the holder makes a blocking call. A `Mutex` is
/// for those that do.
///
/// ```
/// use std::rc::Rc;
/// use greenling::{spawn, sync::Mutex, yield_now};
///
/// let total = Rc::new(Mutex::new(0));
/// let threads: Vec<_> = (0..10)
///     .map(|_| {
///         let total = Rc::clone(&total);
///         spawn(move || {
///             let mut total = total.lock().unwrap();
///             let seen = *total;
///             yield_now(); // the others run, and wait for the lock
///             *total = seen + 1;
///         })
///     })
///     .collect();
/// for thread in threads {
///     thread.join().unwrap();
/// }
/// assert_eq!(*total.lock().unwrap(), 10);
/// ```
///
/// * First come, first served: an unlock makes the first waiter the holder, and nobody can overtake it.
/// * It is poisoned by a panic, as std's; not by a kill or an expired [`timeout`](crate::timeout).
/// * The thread that locks is the holder, also if the guard is moved to another one.
///
/// It stays on its OS thread:
///
/// ```compile_fail
/// fn sendable<T: Send>(_: T) {}
/// sendable(greenling::sync::Mutex::new(0));
/// ```
pub struct Mutex<T: ?Sized> {
    /// Who may.
    raw: Raw,
    /// Whether a holder panicked.
    poison: Poison,
    /// The value; borrowed exactly while a guard exists.
    data: RefCell<T>,
}

impl<T> Mutex<T> {
    /// An unlocked one.
    ///
    /// May switch: no.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { raw: Raw { holder: Cell::new(0), line: Line::new() }, poison: Poison::new(), data: RefCell::new(value) }
    }

    /// The value.
    ///
    /// # Errors
    /// With the value, if a holder panicked.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> LockResult<T> {
        let Mutex { poison, data, .. } = self;
        poison.wrap(data.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks, and waits for that as long as it takes.
    ///
    /// # Errors
    /// With the guard, if a holder panicked.
    ///
    /// # Panics
    /// If the caller holds it already. If it is held by another thread while the caller unwinds from a panic or kill, and
    /// so may not wait; in a destructor that aborts the process, so use [`try_lock`](Self::try_lock) there. Unwinds with
    /// a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a
    /// deadlock.
    ///
    /// May switch: yes, if another thread holds it.
    #[inline(always)]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.raw.lock();
        self.poison.wrap(self.guard())
    }

    /// Locks if nobody holds it.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if it is held; with the guard, if a holder panicked.
    ///
    /// May switch: no.
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.raw.try_lock() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.guard())?)
    }

    /// [`lock`](Self::lock), but waits no longer than `limit`.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if the time was over first, or if the caller unwinds and may not wait; with the guard,
    /// if a holder panicked.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if it is held.
    pub fn lock_timeout(&self, limit: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.raw.lock_until(after(limit)) {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.guard())?)
    }

    /// The guard of whom the lock belongs to.
    #[inline]
    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: self, data: self.data.borrow_mut(), entry: self.poison.enter() }
    }

    /// Whether a holder panicked.
    ///
    /// May switch: no.
    pub fn is_poisoned(&self) -> bool {
        self.poison.get()
    }

    /// Says that the value is in order again after a panic.
    ///
    /// May switch: no.
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// The value, without locking: the borrow shows that nobody else has it.
    ///
    /// # Errors
    /// With the value, if a holder panicked.
    ///
    /// May switch: no.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let Mutex { poison, data, .. } = self;
        poison.wrap(data.get_mut())
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Mutex::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Mutex");
        match self.data.try_borrow() {
            Ok(data) => out.field("data", &&*data),
            Err(_) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

/// A locked [`Mutex`]; unlocks when dropped.
#[must_use = "if unused the Mutex will immediately unlock"]
pub struct MutexGuard<'a, T: ?Sized> {
    /// Whose guard it is.
    lock: &'a Mutex<T>,
    /// The value.
    data: RefMut<'a, T>,
    /// For poisoning.
    entry: Entry,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The lock it is of.
    pub(super) fn lock(&self) -> &'a Mutex<T> {
        self.lock
    }

    /// The guard in std's words.
    pub(super) fn into_result(self) -> LockResult<Self> {
        self.lock.poison.wrap(self)
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.leave(self.entry);
        // The next holder does not run before this guard is gone, and the borrow with it: an unlock does not switch.
        self.lock.raw.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
