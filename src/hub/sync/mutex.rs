//! A mutex between threads of any hub, and OS threads without one.
//!
//! * Invariant shared-mutex-1: the one unit of `raw` has one owner at a time: the free mutex, a guard, or a waiter that
//!   was chosen and makes a guard or gives the unit back. Only `guard` makes a guard, after the unit was taken. A guard
//!   that is dropped gives the unit back last. So at most one guard exists, and that guard alone reaches the value; and
//!   what one guard did happens before what the next one does (turns-3 in `pure::turns`).
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use super::poison::{PanicMark, Poison};
use super::raw::{Grant, Label, LockCore, RawLock, Request, Waited, refused};
use crate::runtime::checkpoint::{checkpoint, checkpoint_if};
use crate::switch::fiber::Held;
use crate::switch::root::identity;
use crate::sys::clock::{NEVER, after};

/// std's `Mutex` for green threads of any hub and for plain OS threads: can stand in a `static`.
///
/// ```
/// use greenling::hub::sync::Mutex;
///
/// static TOTAL: Mutex<u64> = Mutex::new(0);
///
/// let threads: Vec<_> = (0..3)
///     .map(|_| {
///         std::thread::spawn(|| {
///             let green: Vec<_> = (0..10)
///                 .map(|_| {
///                     greenling::spawn(|| {
///                         let mut total = TOTAL.lock().unwrap();
///                         let seen = *total;
///                         greenling::yield_now(); // others run here, and wait for the lock on other OS threads
///                         *total = seen + 1;
///                     })
///                 })
///                 .collect();
///             green.into_iter().for_each(|thread| thread.join().unwrap());
///         })
///     })
///     .collect();
/// threads.into_iter().for_each(|thread| thread.join().unwrap());
/// assert_eq!(*TOTAL.lock().unwrap(), 30);
/// ```
///
/// * A waiting green thread parks, and its hub goes on; an OS thread without a hub sleeps.
/// * First come, first served, over all hubs: an unlock makes the first waiter the holder, and nothing can overtake
///   that waiter.
/// * A panic of the holder poisons the mutex, as with std's; a kill or an expired [`timeout`](crate::timeout) does not.
/// * The guard stays on its OS thread, as std's.
///
/// ```compile_fail
/// fn sendable<T: Send>(_: T) {}
/// static LOCK: greenling::hub::sync::Mutex<u8> = greenling::hub::sync::Mutex::new(0);
/// sendable(LOCK.lock().unwrap());
/// ```
///
/// ```compile_fail
/// static LOCK: greenling::hub::sync::Mutex<Option<std::rc::Rc<u8>>> = greenling::hub::sync::Mutex::new(None);
/// ```
pub struct Mutex<T: ?Sized> {
    /// The lock, of one unit.
    raw: RawLock,
    /// Set when a holder panicked.
    poison: Poison,
    /// The value, which a guard alone reaches (shared-mutex-1).
    data: UnsafeCell<T>,
}

// SAFETY: by shared-mutex-1 the value is used by one thread at a time, to which it goes as if sent; `UnsafeCell` alone
// keeps the mutex from being shared. `Send` needs no word: it is that of the fields.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Creates an unlocked mutex.
    ///
    /// May switch: no.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { raw: RawLock::new(Grant::Units, 1), poison: Poison::new(), data: UnsafeCell::new(value) }
    }

    /// Returns the value.
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
    /// Locks the mutex, and waits for that without a time limit.
    ///
    /// # Errors
    /// With the guard, if a holder panicked.
    ///
    /// # Panics
    /// If the caller holds the mutex already. If another thread holds the mutex while the caller, a thread of a hub,
    /// unwinds from a panic or kill, and so may not wait; in a destructor that aborts the process, so use
    /// [`try_lock`](Self::try_lock) there. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch), in the child of a fork, and in main on a deadlock within main's hub.
    ///
    /// May switch: yes, if another thread holds the mutex.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        // A call that goes on gives way first if its share is used up. A call that waits gives way anyway.
        checkpoint_if(|| self.raw.existing().is_none_or(|core| core.turns.free() > 0));
        let core = self.raw.core();
        if !core.turns.take_only() {
            lock_contended(core);
        }
        self.poison.wrap(self.guard(core))
    }

    /// Locks the mutex if no thread holds it.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if a thread does; with the guard, if a holder panicked.
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
        let core = self.raw.core();
        if !core.turns.take_only() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.guard(core))?)
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
        checkpoint_if(|| self.raw.existing().is_none_or(|core| core.turns.free() > 0));
        let core = self.raw.core();
        if !core.turns.take_only() && !wait(core, after(limit)).is_chosen() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.guard(core))?)
    }

    /// Makes the guard of a caller that has just taken the unit of `core`, which is that of `raw` (shared-mutex-1).
    #[inline]
    fn guard(&self, core: &LockCore) -> MutexGuard<'_, T> {
        core.holder.set();
        MutexGuard { lock: self, mark: self.poison.enter(), stays: PhantomData }
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

/// Waits for the unit until `deadline`.
fn wait(core: &std::sync::Arc<LockCore>, deadline: u64) -> Waited {
    core.wait(Request::held(Held::Mutex, 1, deadline), || true, || {})
}

/// Waits for a lock that is taken.
#[cold]
#[inline(never)]
fn lock_contended(core: &std::sync::Arc<LockCore>) {
    let holder = core.holder.get();
    // No other thread could ever give the unit to the caller.
    if holder == identity() {
        panic!("greenling: {} locks a Mutex that it holds already: it would wait for itself", Label(holder));
    }
    // Without a deadline the wait ends with the unit, or is refused.
    if let Waited::Refused(refusal) = wait(core, NEVER) {
        refused(&refusal, &format_args!("a shared Mutex that {} holds", Label(core.holder.get())));
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
        // Locked, since only a guard reaches the value (shared-mutex-1).
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
    /// What the poison flag must know when the guard is dropped.
    mark: PanicMark,
    /// Neither `Send` nor, by itself, `Sync`: the holder is a thread of this OS thread.
    stays: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives shared references to the value only.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

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
        // SAFETY: shared-mutex-1: this is the only guard, and it is borrowed as long as the reference lives.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: shared-mutex-1: this is the only guard, and it is borrowed mutably as long as the reference lives.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.leave(self.mark);
        let core = self.lock.raw.core();
        // The name goes first (shared-lock-1), the unit last (shared-mutex-1).
        core.holder.clear();
        core.give_only();
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
