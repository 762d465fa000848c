//! Many readers or one writer, in the order in which they came.
//!
//! ```text
//!   line:   R R W R R W        the first two readers go in together, then the writer, then the next two readers, ..
//! ```
//!
//! A reader that comes while a writer waits stands behind it, so writers do not starve.
//!
//! * Invariant W1: if the first in line could go in, it has been let in: `admit` runs after every release, and after
//!   every departure from the line.
#![forbid(unsafe_code)]

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use super::line::{Line, Waited, held, me};
use super::poison::{Entry, Poison};
use crate::runtime::report::label_of;
use crate::runtime::source::after;
use crate::switch::fiber::{Held, Reason};

/// The lock without the value.
#[derive(Debug)]
struct Raw {
    /// How many read.
    readers: Cell<usize>,
    /// The id of the thread that writes; 0 for nobody.
    writer: Cell<u64>,
    /// Who waits, for either.
    line: Line,
}

impl Raw {
    /// Lets a reader in if that is fair.
    #[inline(always)]
    fn try_read(&self) -> bool {
        let free = self.writer.get() == 0 && self.line.is_empty();
        if free {
            self.readers.set(self.readers.get() + 1);
        }
        free
    }

    /// Lets a writer in if nobody is in. Then nobody waits either (invariant W1).
    #[inline(always)]
    fn try_write(&self) -> bool {
        let free = self.writer.get() == 0 && self.readers.get() == 0;
        if free {
            self.writer.set(me());
        }
        free
    }

    /// A reader leaves.
    #[inline(always)]
    fn end_read(&self) {
        self.readers.set(self.readers.get() - 1);
        if !self.line.is_empty() {
            self.admit();
        }
    }

    /// The writer leaves.
    #[inline(always)]
    fn end_write(&self) {
        self.writer.set(0);
        if !self.line.is_empty() {
            self.admit();
        }
    }

    /// Lets in who may go in, from the first in line on.
    #[cold]
    #[inline(never)]
    fn admit(&self) {
        while self.writer.get() == 0 {
            match self.line.first_reason() {
                Some(Reason::Held(Held::Read, _)) => {
                    self.line.choose();
                    self.readers.set(self.readers.get() + 1);
                }
                Some(Reason::Held(Held::Write, _)) if self.readers.get() == 0 => {
                    self.writer.set(self.line.choose().unwrap_or(0));
                }
                _ => break,
            }
        }
        self.line.note_holder(self.writer.get());
    }

    /// Waits in line.
    fn wait(&self, what: Held, deadline: u64) -> Waited {
        self.line.wait(held(what, self.writer.get()), deadline, |chosen| self.left(what, chosen))
    }

    /// Waits in line for as long as it takes.
    #[cold]
    #[inline(never)]
    fn wait_or_panic(&self, what: Held) {
        let writer = self.writer.get();
        if writer != 0 && writer == me() {
            panic!("greenling: {} locks a RwLock that it writes already: it would wait for itself", label_of(writer));
        }
        let words = || match writer {
            0 => String::from("a RwLock that others read"),
            _ => format!("a RwLock that {} writes", label_of(writer)),
        };
        self.line.wait_or_panic(held(what, writer), words, |chosen| self.left(what, chosen));
    }

    /// A wait was in vain; `chosen` if it got the lock all the same.
    fn left(&self, what: Held, chosen: bool) {
        match (chosen, what) {
            (true, Held::Read) => self.end_read(),
            (true, _) => self.end_write(),
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
/// * First come, first served; readers that come in a row go in together, and stand behind a writer that came before
///   them. So a thread that reads must not read again, as with std's: if a writer came in between it would wait for ever.
/// * It is poisoned by the panic of a writer, as std's; not by a kill or an expired [`timeout`](crate::timeout).
pub struct RwLock<T: ?Sized> {
    /// Who may.
    raw: Raw,
    /// Whether a writer panicked.
    poison: Poison,
    /// The value; borrowed exactly while a guard exists.
    data: RefCell<T>,
}

impl<T> RwLock<T> {
    /// An unlocked one.
    ///
    /// May switch: no.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock {
            raw: Raw { readers: Cell::new(0), writer: Cell::new(0), line: Line::new() },
            poison: Poison::new(),
            data: RefCell::new(value),
        }
    }

    /// The value.
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
    /// Locks for reading, and waits for that as long as it takes.
    ///
    /// # Errors
    /// With the guard, if a writer panicked.
    ///
    /// # Panics
    /// If the caller writes it already. If it would have to wait while it unwinds from a panic or kill; in a destructor
    /// that aborts the process, so use [`try_read`](Self::try_read) there. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if another thread writes or waits.
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        if !self.raw.try_read() {
            self.raw.wait_or_panic(Held::Read);
        }
        self.poison.wrap(self.read_guard())
    }

    /// Locks for reading if nobody writes or waits.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody does; with the guard, if a writer panicked.
    ///
    /// May switch: no.
    #[inline]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if !self.raw.try_read() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.read_guard())?)
    }

    /// [`read`](Self::read), but waits no longer than `limit`.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if the time was over first, or if the caller unwinds and may not wait; with the guard,
    /// if a writer panicked.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if another thread writes or waits.
    pub fn read_timeout(&self, limit: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if !self.raw.try_read() && !self.raw.wait(Held::Read, after(limit)).is_chosen() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.read_guard())?)
    }

    /// Locks for writing, and waits for that as long as it takes.
    ///
    /// # Errors
    /// With the guard, if a writer panicked.
    ///
    /// # Panics
    /// As [`read`](Self::read). A caller that reads it already waits for ever, as with std's.
    ///
    /// May switch: yes, if somebody reads or writes.
    #[inline]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        if !self.raw.try_write() {
            self.raw.wait_or_panic(Held::Write);
        }
        self.poison.wrap(self.write_guard())
    }

    /// Locks for writing if nobody reads or writes.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody does; with the guard, if a writer panicked.
    ///
    /// May switch: no.
    #[inline]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
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
    /// May switch: yes, if somebody reads or writes.
    pub fn write_timeout(&self, limit: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        if !self.raw.try_write() && !self.raw.wait(Held::Write, after(limit)).is_chosen() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(self.write_guard())?)
    }

    /// The guard of a reader that was let in.
    #[inline]
    fn read_guard(&self) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard { lock: self, data: self.data.borrow() }
    }

    /// The guard of a writer that was let in.
    #[inline]
    fn write_guard(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard { lock: self, data: self.data.borrow_mut(), entry: self.poison.enter() }
    }

    /// Whether a writer panicked.
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
        match self.data.try_borrow() {
            Ok(data) => out.field("data", &&*data),
            Err(_) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

/// A [`RwLock`] locked for reading; unlocks when dropped.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    /// Whose guard it is.
    lock: &'a RwLock<T>,
    /// The value.
    data: Ref<'a, T>,
}

/// A [`RwLock`] locked for writing; unlocks when dropped.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    /// Whose guard it is.
    lock: &'a RwLock<T>,
    /// The value.
    data: RefMut<'a, T>,
    /// For poisoning.
    entry: Entry,
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

// As with the mutex, who is let in does not run before the guard, and its borrow, are gone.

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.raw.end_read();
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.leave(self.entry);
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
