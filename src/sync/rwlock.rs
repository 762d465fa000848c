//! A read-write lock: many readers or one writer, in the order in which they came.
//!
//! ```text
//!   queue:   R R W R R W        the first two readers enter together, then the writer, then the next two readers, ..
//! ```
//!
//! A reader that comes while a writer waits stands behind that writer, so writers do not starve.
//!
//! * Invariant rwlock-1: the first waiter may not enter yet. `admit` runs after every release, and after every
//!   departure from the queue.
#![forbid(unsafe_code)]

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use super::poison::{PanicMark, Poison};
use super::wait_queue::{WaitQueue, Waited, current_id};
use crate::runtime::checkpoint::{checkpoint, checkpoint_if};
use crate::runtime::report::label_of;
use crate::switch::fiber::{Held, Reason};
use crate::sys::clock::after;

/// The lock without the value.
#[derive(Debug)]
struct RawRwLock {
    /// The number of readers that have the lock.
    readers: Cell<usize>,
    /// The id of the writer that has the lock; 0 for none.
    writer: Cell<u64>,
    /// The threads that wait, readers and writers.
    queue: WaitQueue,
}

impl RawRwLock {
    /// Lets a reader in if no writer has the lock and no thread waits.
    #[inline(always)]
    fn try_read(&self) -> bool {
        // A waiting writer keeps later readers out, so that it does not starve.
        let free = self.writer.get() == 0 && self.queue.is_empty();
        if free {
            self.readers.set(self.readers.get() + 1);
        }
        free
    }

    /// Lets a writer in if no thread has the lock. Then no thread waits either (rwlock-1).
    #[inline(always)]
    fn try_write(&self) -> bool {
        let free = self.writer.get() == 0 && self.readers.get() == 0;
        if free {
            self.writer.set(current_id());
        }
        free
    }

    /// Releases the lock of a reader.
    #[inline(always)]
    fn end_read(&self) {
        self.readers.set(self.readers.get() - 1);
        if !self.queue.is_empty() {
            self.admit();
        }
    }

    /// Releases the lock of the writer.
    #[inline(always)]
    fn end_write(&self) {
        self.writer.set(0);
        if !self.queue.is_empty() {
            self.admit();
        }
    }

    /// Lets in all waiters that may enter, from the first one on.
    #[cold]
    #[inline(never)]
    fn admit(&self) {
        while self.writer.get() == 0 {
            match self.queue.first_reason() {
                // Readers in a row enter together.
                Some(Reason::Held(Held::Read, _)) => {
                    self.queue.choose();
                    self.readers.set(self.readers.get() + 1);
                }
                // A writer enters after the last reader has left, and ends the loop.
                Some(Reason::Held(Held::Write, _)) if self.readers.get() == 0 => {
                    self.writer.set(self.queue.choose().unwrap_or(0));
                }
                _ => break,
            }
        }
        // Reports name the writer that the next waiter waits for.
        self.queue.note_holder(self.writer.get());
    }

    /// Waits in the queue until `deadline`.
    fn wait(&self, what: Held, deadline: u64) -> Waited {
        self.queue.wait(Reason::Held(what, self.writer.get()), deadline, |chosen| self.abandoned(what, chosen))
    }

    /// Waits in the queue without a time limit.
    #[cold]
    #[inline(never)]
    fn wait_or_panic(&self, what: Held) {
        let writer = self.writer.get();
        // No other thread could ever let the caller in.
        if writer != 0 && writer == current_id() {
            panic!("greenling: {} locks a RwLock that it writes already: it would wait for itself", label_of(writer));
        }
        let words = || match writer {
            0 => String::from("a RwLock that others read"),
            _ => format!("a RwLock that {} writes", label_of(writer)),
        };
        self.queue.wait_or_panic(Reason::Held(what, writer), words, |chosen| self.abandoned(what, chosen));
    }

    /// Ends a wait in vain. A waiter that was `chosen` has the lock all the same, and gives it up.
    fn abandoned(&self, what: Held, chosen: bool) {
        match (chosen, what) {
            // The lock was handed over while the caller was about to give up.
            (true, Held::Read) => self.end_read(),
            (true, _) => self.end_write(),
            // A writer that leaves the queue may have kept out the readers behind it.
            (false, _) => self.admit(),
        }
    }
}

/// std's `RwLock` for the green threads of one OS thread.
///
/// ```
/// use greenling::sync::RwLock;
///
/// let config = RwLock::new(vec!["a"]);
/// {
///     let (one, two) = (config.read().unwrap(), config.read().unwrap());
///     assert_eq!(one.len() + two.len(), 2);
/// }
/// config.write().unwrap().push("b");
/// assert_eq!(*config.read().unwrap(), ["a", "b"]);
/// ```
///
/// * First come, first served. Readers that come in a row enter together, and stand behind a writer that came before
///   them. So a thread that reads must not read again, as with std's: if a writer came in between, the thread would
///   wait for ever.
/// * A panic of a writer poisons the lock, as with std's; a kill or an expired [`timeout`](crate::timeout) does not.
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    /// Set when a writer panicked.
    poison: Poison,
    /// The value; borrowed exactly while a guard exists.
    data: RefCell<T>,
}

impl<T> RwLock<T> {
    /// Creates an unlocked lock.
    ///
    /// May switch: no.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock {
            raw: RawRwLock { readers: Cell::new(0), writer: Cell::new(0), queue: WaitQueue::new() },
            poison: Poison::new(),
            data: RefCell::new(value),
        }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// With the value, if a writer panicked.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> LockResult<T> {
        // No guard exists, so the cell is not borrowed.
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
    /// If the caller is the writer already. If the call would have to wait while the caller unwinds from a panic or
    /// kill; in a destructor that aborts the process, so use [`try_read`](Self::try_read) there. Unwinds with a kill or
    /// an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a
    /// deadlock.
    ///
    /// May switch: yes, if another thread writes or waits.
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        // A call that goes on gives way first if its share is used up. A call that waits gives way anyway.
        checkpoint_if(|| self.raw.writer.get() == 0 && self.raw.queue.is_empty());
        if !self.raw.try_read() {
            self.raw.wait_or_panic(Held::Read);
        }
        self.poison.wrap(self.read_guard())
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
    fn read_if_free(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if !self.raw.try_read() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.read_guard())?)
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
        checkpoint_if(|| self.raw.writer.get() == 0 && self.raw.queue.is_empty());
        if !self.raw.try_read() && !self.raw.wait(Held::Read, after(limit)).is_chosen() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.read_guard())?)
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
        checkpoint_if(|| self.raw.writer.get() == 0 && self.raw.readers.get() == 0);
        if !self.raw.try_write() {
            self.raw.wait_or_panic(Held::Write);
        }
        self.poison.wrap(self.write_guard())
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
        if !self.raw.try_write() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.write_guard())?)
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
        checkpoint_if(|| self.raw.writer.get() == 0 && self.raw.readers.get() == 0);
        if !self.raw.try_write() && !self.raw.wait(Held::Write, after(limit)).is_chosen() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.write_guard())?)
    }

    /// Returns the guard of a reader that was let in.
    #[inline]
    fn read_guard(&self) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard { raw: &self.raw, data: self.data.borrow() }
    }

    /// Returns the guard of a writer that was let in.
    #[inline]
    fn write_guard(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard { lock: self, data: self.data.borrow_mut(), mark: self.poison.enter() }
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
        // Locked, not only borrowed: see the mutex.
        match self.read_if_free() {
            Ok(data) => out.field("data", &&*data),
            Err(TryLockError::Poisoned(poisoned)) => out.field("data", &&**poisoned.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

/// The guard of a [`RwLock`] that is locked for reading; unlocks when dropped. Covariant in `T`, as std's: a reader
/// cannot write.
///
/// ```
/// use greenling::sync::RwLockReadGuard;
///
/// fn shorter<'a: 'b, 'b, 'g>(guard: RwLockReadGuard<'g, &'a str>) -> RwLockReadGuard<'g, &'b str> {
///     guard
/// }
/// ```
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    /// The lock without the value: a reference to the whole would make the guard invariant in `T`.
    raw: &'a RawRwLock,
    data: Ref<'a, T>,
}

/// The guard of a [`RwLock`] that is locked for writing; unlocks when dropped.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    data: RefMut<'a, T>,
    /// What the poison flag must know when the guard is dropped.
    mark: PanicMark,
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Turns the writer into a reader, with no other writer in between. Readers that are the next to wait enter, too.
    ///
    /// ```
    /// use greenling::sync::{RwLock, RwLockWriteGuard};
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
        // The reader is counted before the writer leaves, so that no other writer is let in.
        lock.raw.readers.set(lock.raw.readers.get() + 1);
        drop(this);
        lock.read_guard()
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

// As with the mutex, the next holder does not run before the guard and its borrow are gone.

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.raw.end_read();
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.leave(self.mark);
        self.lock.raw.end_write();
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
