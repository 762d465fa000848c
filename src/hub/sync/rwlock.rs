//! A read-write lock between threads of any hub: many readers or one writer, in the order in which they came.
//!
//! ```text
//!   MOST units:  a reader takes one, a writer takes all
//!   queue:   R R W R R W        the first two readers enter together, then the writer, then the next two readers, ..
//! ```
//!
//! * Invariant shared-rwlock-1: a write guard has all units of `raw`, a read guard has one. A guard is made after its
//!   units were taken; a guard that is dropped gives them back last. So beside a write guard there is no other guard.
//!   What a writer did happens before what the next holders do, and what readers did before what the next writer does
//!   (turns-3 in `pure::turns`).
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use super::poison::{PanicMark, Poison};
use super::raw::{Grant, Label, LockCore, RawLock, Request, Waited, refused};
use crate::pure::turns::MOST;
use crate::runtime::checkpoint::{checkpoint, checkpoint_if};
use crate::switch::fiber::{Held, Holder};
use crate::switch::root::identity;
use crate::sys::clock::{NEVER, after};

/// std's `RwLock` for green threads of any hub and for plain OS threads: can stand in a `static`.
///
/// ```
/// use greenling::hub::sync::RwLock;
///
/// static CONFIG: RwLock<Vec<&str>> = RwLock::new(Vec::new());
///
/// std::thread::spawn(|| CONFIG.write().unwrap().push("a")).join().unwrap();
/// let (one, two) = (CONFIG.read().unwrap(), CONFIG.read().unwrap());
/// assert_eq!(one.len() + two.len(), 2);
/// ```
///
/// * First come, first served, over all hubs. Readers that come in a row enter together, and stand behind a writer that
///   came before them, so writers do not starve. A thread that reads must not read again, as with std's: if a writer
///   came in between, the thread would wait for ever.
/// * A panic of a writer poisons the lock, as with std's; a kill or an expired [`timeout`](crate::timeout) does not.
/// * The guards stay on their OS thread, as std's.
pub struct RwLock<T: ?Sized> {
    /// The lock, of `MOST` units.
    raw: RawLock,
    /// Set when a writer panicked.
    poison: Poison,
    /// The value, which guards alone reach (shared-rwlock-1).
    data: UnsafeCell<T>,
}

// SAFETY: by shared-rwlock-1 the value is used by one writer, to which it goes as if sent, or by readers, which share
// it. `Send` needs no word: it is that of the fields.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// Creates an unlocked lock.
    ///
    /// May switch: no.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock { raw: RawLock::new(Grant::Units, MOST), poison: Poison::new(), data: UnsafeCell::new(value) }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// With the value, if a writer panicked.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> LockResult<T> {
        let RwLock { poison, data, .. } = self;
        poison.wrap(data.into_inner())
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Locks for reading, and waits for that without a time limit.
    ///
    /// # Errors
    /// With the guard, if a writer panicked.
    ///
    /// # Panics
    /// If the caller is the writer already. If the call would have to wait while the caller, a thread of a hub, unwinds
    /// from a panic or kill; in a destructor that aborts the process, so use [`try_read`](Self::try_read) there.
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), in
    /// the child of a fork, and in main on a deadlock within main's hub.
    ///
    /// May switch: yes, if another thread writes or waits.
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        // A call that goes on gives way first if its share is used up. A call that waits gives way anyway.
        checkpoint_if(|| self.raw.existing().is_none_or(|core| core.turns.free() > 0));
        let core = self.raw.core();
        if !core.turns.take(1) {
            wait_or_panic(core, Held::Read);
        }
        self.poison.wrap(self.read_guard(core))
    }

    /// Locks for reading if no thread writes or waits.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if a thread does; with the guard, if a writer panicked.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        checkpoint();
        self.read_if_free()
    }

    /// [`try_read`](Self::try_read) without letting other threads run first.
    #[inline]
    fn read_if_free(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let core = self.raw.core();
        if !core.turns.take(1) {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.read_guard(core))?)
    }

    /// [`read`](Self::read), but waits no longer than `limit`.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if the time was over first, or if the caller unwinds and may not wait; with the
    /// guard, if a writer panicked.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if another thread writes or waits.
    pub fn read_timeout(&self, limit: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        checkpoint_if(|| self.raw.existing().is_none_or(|core| core.turns.free() > 0));
        let core = self.raw.core();
        if !core.turns.take(1) && !wait(core, Held::Read, after(limit)).is_chosen() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.read_guard(core))?)
    }

    /// Locks for writing, and waits for that without a time limit.
    ///
    /// # Errors
    /// With the guard, if a writer panicked.
    ///
    /// # Panics
    /// As [`read`](Self::read). A caller that is a reader already waits for ever, as with std's.
    ///
    /// May switch: yes, if another thread reads or writes.
    #[inline]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        checkpoint_if(|| self.raw.existing().is_none_or(|core| core.turns.free() == self.raw.units()));
        let core = self.raw.core();
        if !core.turns.take(MOST) {
            wait_or_panic(core, Held::Write);
        }
        self.poison.wrap(self.write_guard(core))
    }

    /// Locks for writing if no thread reads or writes.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if a thread does; with the guard, if a writer panicked.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        checkpoint();
        let core = self.raw.core();
        if !core.turns.take(MOST) {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.write_guard(core))?)
    }

    /// [`write`](Self::write), but waits no longer than `limit`.
    ///
    /// # Errors
    /// As [`read_timeout`](Self::read_timeout).
    ///
    /// # Panics
    /// As [`read_timeout`](Self::read_timeout).
    ///
    /// May switch: yes, if another thread reads or writes.
    pub fn write_timeout(&self, limit: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        checkpoint_if(|| self.raw.existing().is_none_or(|core| core.turns.free() == self.raw.units()));
        let core = self.raw.core();
        if !core.turns.take(MOST) && !wait(core, Held::Write, after(limit)).is_chosen() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.write_guard(core))?)
    }

    /// Makes the guard of a reader that has just taken a unit of `core`, which is that of `raw` (shared-rwlock-1).
    #[inline]
    fn read_guard<'a>(&'a self, core: &'a LockCore) -> RwLockReadGuard<'a, T> {
        match NonNull::new(self.data.get()) {
            Some(data) => RwLockReadGuard { data, core },
            None => unreachable!("a field of a reference"),
        }
    }

    /// Makes the guard of a writer that has just taken all units of `core`, which is that of `raw` (shared-rwlock-1).
    #[inline]
    fn write_guard(&self, core: &LockCore) -> RwLockWriteGuard<'_, T> {
        core.holder.set();
        RwLockWriteGuard { lock: self, mark: self.poison.enter(), stays: PhantomData }
    }

    /// Reports whether a writer panicked.
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
    /// With the value, if a writer panicked.
    ///
    /// May switch: no.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let RwLock { poison, data, .. } = self;
        poison.wrap(data.get_mut())
    }
}

/// Waits in the queue until `deadline`.
fn wait(core: &Arc<LockCore>, held: Held, deadline: u64) -> Waited {
    let wants = if held == Held::Read { 1 } else { MOST };
    core.wait(Request::held(held, wants, deadline), || true, || {})
}

/// Waits in the queue without a time limit.
#[cold]
#[inline(never)]
fn wait_or_panic(core: &Arc<LockCore>, held: Held) {
    let writer = core.holder.get();
    // No other thread could ever let the caller in.
    if writer == identity() {
        panic!("greenling: {} locks a RwLock that it writes already: it would wait for itself", Label(writer));
    }
    // Without a deadline the wait ends with the units, or is refused.
    if let Waited::Refused(refusal) = wait(core, held, NEVER) {
        match core.holder.get() {
            Holder::UNKNOWN => refused(&refusal, &"a shared RwLock that others read"),
            writer => refused(&refusal, &format_args!("a shared RwLock that {} writes", Label(writer))),
        }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        RwLock::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> Self {
        RwLock::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RwLock");
        // Locked, since only a guard reaches the value (shared-rwlock-1).
        match self.read_if_free() {
            Ok(data) => out.field("data", &&*data),
            Err(TryLockError::Poisoned(poisoned)) => out.field("data", &&**poisoned.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

/// The guard of a [`RwLock`] that is locked for reading; unlocks when dropped.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    /// The value. A pointer, so that the guard of a `&'static str` can become that of a `&str`, as std's; and not
    /// `Send`.
    data: NonNull<T>,
    /// The shared part of the lock, which gets the unit back.
    core: &'a LockCore,
}

// SAFETY: a shared guard gives shared references to the value only.
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}

/// The guard of a [`RwLock`] that is locked for writing; unlocks when dropped.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    /// What the poison flag must know when the guard is dropped.
    mark: PanicMark,
    /// Neither `Send` nor, by itself, `Sync`: the holder is a thread of this OS thread.
    stays: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives shared references to the value only.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Turns the writer into a reader, with no other writer in between. Readers that are the next to wait enter, too.
    ///
    /// ```
    /// use greenling::hub::sync::{RwLock, RwLockWriteGuard};
    ///
    /// let config = RwLock::new(1);
    /// let mut guard = config.write().unwrap();
    /// *guard += 1;
    /// let guard = RwLockWriteGuard::downgrade(guard);
    /// assert_eq!(*guard + *config.read().unwrap(), 4);
    /// ```
    ///
    /// May switch: no.
    pub fn downgrade(this: Self) -> RwLockReadGuard<'a, T> {
        let lock = this.lock;
        lock.poison.leave(this.mark);
        // The guard's destructor would give back all units.
        std::mem::forget(this);
        let core = lock.raw.core();
        core.holder.clear();
        // All units go back but the reader's own.
        core.give(MOST - 1);
        lock.read_guard(core)
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: shared-rwlock-1: no write guard exists, and the lock is borrowed as long as this guard.
        unsafe { self.data.as_ref() }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: shared-rwlock-1: this is the only guard, and it is borrowed as long as the reference lives.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: shared-rwlock-1: this is the only guard, and it is borrowed mutably as long as the reference lives.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.core.give(1);
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.leave(self.mark);
        let core = self.lock.raw.core();
        // The name goes first (shared-lock-1), the units last (shared-rwlock-1).
        core.holder.clear();
        core.give(MOST);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
