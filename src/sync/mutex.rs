//! A mutex, for green threads that hold a lock over a blocking call.
//!
//! ```text
//!   holder = 0         free, and no thread waits
//!   holder = id        locked; other threads may stand in the queue
//!   unlock             the first waiter becomes the holder at once, before it runs; no thread can overtake it
//! ```
//!
//! The value lies in a `RefCell`, and the guard carries its borrow: the lock decides which thread may, the cell checks
//! it.
//!
//! * Invariant mutex-1: if `holder` is 0, the queue is empty.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use super::poison::{PanicMark, Poison};
use super::wait_queue::{WaitQueue, current_id};
use crate::runtime::checkpoint::{checkpoint, checkpoint_if};
use crate::runtime::report::label_of;
use crate::switch::fiber::{Held, Reason};
use crate::sys::clock::after;

/// The lock without the value.
#[derive(Debug)]
struct RawMutex {
    /// The id of the thread that has the lock; 0 for none.
    holder: Cell<u64>,
    /// The threads that wait for the lock.
    queue: WaitQueue,
}

impl RawMutex {
    /// Takes the lock if free.
    #[inline(always)]
    fn try_lock(&self) -> bool {
        let free = self.holder.get() == 0;
        if free {
            self.holder.set(current_id());
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

    /// Waits for a lock that is taken.
    #[inline(always)]
    fn lock_contended(&self) {
        let holder = self.holder.get();
        // No other thread could ever give the lock to the caller.
        if holder == current_id() {
            locked_twice(holder);
        }
        // The holder is named in the panic as it is then; the one in the reason is kept up to date by `note_holder`.
        let what = || format!("a Mutex that {} holds", label_of(self.holder.get()));
        self.queue.wait_or_panic(self.reason(), what, |chosen| self.abandoned(chosen));
    }

    /// Takes the lock, or waits for it until `deadline`. Reports whether the caller has the lock.
    fn lock_until(&self, deadline: u64) -> bool {
        self.try_lock() || self.queue.wait(self.reason(), deadline, |chosen| self.abandoned(chosen)).is_chosen()
    }

    /// Returns the reason of a wait for this lock.
    #[inline(always)]
    fn reason(&self) -> Reason {
        Reason::Held(Held::Mutex, self.holder.get())
    }

    /// Ends a wait in vain. A waiter that was `chosen` has the lock all the same, and gives it up.
    fn abandoned(&self, chosen: bool) {
        match chosen {
            // The lock was handed over while the caller was about to give up.
            true => self.unlock(),
            // The first waiter may be another one now.
            false => self.queue.note_holder(self.holder.get()),
        }
    }

    /// Gives the lock to the first waiter.
    #[inline(always)]
    fn unlock(&self) {
        if self.queue.is_empty() {
            self.holder.set(0);
        } else {
            self.hand_over();
        }
    }

    /// Gives the lock to the first waiter, of which there is one.
    #[cold]
    #[inline(never)]
    fn hand_over(&self) {
        // The next waiter is the holder from now on, before it runs. So `holder` is never 0 in between, and no thread
        // can take the lock.
        let next = self.queue.choose().unwrap_or(0);
        self.holder.set(next);
        self.queue.note_holder(next);
    }
}

/// Panics because the caller would wait for itself.
#[cold]
#[inline(never)]
fn locked_twice(holder: u64) -> ! {
    panic!("greenling: {} locks a Mutex that it holds already: it would wait for itself", label_of(holder));
}

/// std's `Mutex` for the green threads of one OS thread.
///
/// Green threads never run at the same time, so a `Cell` or `RefCell` is enough unless the holder makes a blocking
/// call. A `Mutex` is for holders that do.
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
/// * First come, first served: an unlock makes the first waiter the holder, and no thread can overtake it.
/// * A panic of the holder poisons the mutex, as with std's; a kill or an expired [`timeout`](crate::timeout) does not.
/// * The thread that locks is the holder, also if the guard moves to another thread.
///
/// A mutex stays on its OS thread:
///
/// ```compile_fail
/// fn sendable<T: Send>(_: T) {}
/// sendable(greenling::sync::Mutex::new(0));
/// ```
pub struct Mutex<T: ?Sized> {
    raw: RawMutex,
    /// Set when a holder panicked.
    poison: Poison,
    /// The value; borrowed exactly while a guard exists.
    data: RefCell<T>,
}

impl<T> Mutex<T> {
    /// Creates an unlocked mutex.
    ///
    /// May switch: no.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex {
            raw: RawMutex { holder: Cell::new(0), queue: WaitQueue::new() },
            poison: Poison::new(),
            data: RefCell::new(value),
        }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// With the value, if a holder panicked.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> LockResult<T> {
        // No guard exists, so the cell is not borrowed.
        let Mutex { poison, data, .. } = self;
        poison.wrap(data.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks the mutex, and waits for that without a time limit.
    ///
    /// # Errors
    /// With the guard, if a holder panicked.
    ///
    /// # Panics
    /// If the caller holds the mutex already. If another thread holds the mutex while the caller unwinds from a panic
    /// or kill, and so may not wait; in a destructor that aborts the process, so use [`try_lock`](Self::try_lock)
    /// there. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if another thread holds the mutex.
    #[inline(always)]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        // A call that goes on gives way first if its share is used up. A call that waits gives way anyway.
        checkpoint_if(|| self.raw.holder.get() == 0);
        self.raw.lock();
        self.poison.wrap(self.guard())
    }

    /// Locks the mutex if no thread holds it.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if a thread holds the mutex; with the guard, if a holder panicked.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        checkpoint();
        self.lock_if_free()
    }

    /// [`try_lock`](Self::try_lock) without letting other threads run first.
    #[inline]
    fn lock_if_free(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.raw.try_lock() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.guard())?)
    }

    /// [`lock`](Self::lock), but waits no longer than `limit`.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if the time was over first, or if the caller unwinds and may not wait; with the
    /// guard, if a holder panicked.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if another thread holds the mutex.
    pub fn lock_timeout(&self, limit: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        checkpoint_if(|| self.raw.holder.get() == 0);
        if !self.raw.lock_until(after(limit)) {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.guard())?)
    }

    /// Returns the guard of a caller that has the lock.
    #[inline]
    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: self, data: self.data.borrow_mut(), mark: self.poison.enter() }
    }

    /// Reports whether a holder panicked.
    ///
    /// May switch: no.
    pub fn is_poisoned(&self) -> bool {
        self.poison.get()
    }

    /// Declares that the value is in order again after a panic.
    ///
    /// May switch: no.
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// Returns the value without locking: the borrow shows that no other thread has it.
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
        // Locked, not only borrowed: the value's `Debug`, or the writer behind `f`, may let other threads run, and
        // these may lock.
        match self.lock_if_free() {
            Ok(data) => out.field("data", &&*data),
            Err(TryLockError::Poisoned(poisoned)) => out.field("data", &&**poisoned.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

/// The guard of a locked [`Mutex`]; unlocks when dropped.
#[must_use = "if unused the Mutex will immediately unlock"]
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    data: RefMut<'a, T>,
    /// What the poison flag must know when the guard is dropped.
    mark: PanicMark,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Returns the mutex of this guard.
    pub(super) fn lock(&self) -> &'a Mutex<T> {
        self.lock
    }

    /// Returns the guard as std's locks return theirs: as an error if the mutex is poisoned.
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
        self.lock.poison.leave(self.mark);
        // The next holder does not run before this guard and its borrow are gone: an unlock does not switch.
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
