//! A value that is written once, by a thread of any hub.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync;

use super::once::Once;
use crate::runtime::checkpoint::checkpoint;

/// std's `OnceLock` for green threads of any hub and for plain OS threads: can stand in a `static`, and a second
/// initialiser parks until the first is done.
///
/// ```
/// use greenling::hub::sync::OnceLock;
///
/// static NAME: OnceLock<String> = OnceLock::new();
///
/// assert_eq!(NAME.get_or_init(|| "first".into()), "first");
/// assert_eq!(NAME.set("second".into()), Err("second".into()));
/// ```
///
/// If the closure of an initialiser panics or is killed, nothing has happened: the next waiter tries with its own
/// closure.
pub struct OnceLock<T> {
    /// Lets one initialiser run at a time.
    once: Once,
    /// The value. Written under `once` only, so that no thread ever waits in this cell.
    value: sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    /// Creates an empty cell.
    ///
    /// May switch: no.
    pub const fn new() -> OnceLock<T> {
        OnceLock { once: Once::new(), value: sync::OnceLock::new() }
    }

    /// Returns the value if there is one.
    ///
    /// May switch: if the cell is empty, and the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline]
    pub fn get(&self) -> Option<&T> {
        // A loop that asks until there is a value must let the initialiser run.
        if self.value.get().is_none() {
            checkpoint();
        }
        self.value.get()
    }

    /// Returns the value to change if there is one.
    ///
    /// May switch: no.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// Waits until the value is set.
    ///
    /// # Panics
    /// As [`Once::wait_force`].
    ///
    /// May switch: yes, if the cell is empty.
    pub fn wait(&self) -> &T {
        self.once.wait_force();
        self.there()
    }

    /// Sets the value. If another thread is initialising the cell, waits for that thread.
    ///
    /// # Errors
    /// With `value`, if the cell is full already.
    ///
    /// # Panics
    /// As [`get_or_init`](Self::get_or_init).
    ///
    /// May switch: yes, if another thread is initialising the cell.
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        // The value stays here if another thread has initialised the cell.
        self.initialise(|| value.take());
        value.map_or(Ok(()), Err)
    }

    /// Returns the value. The first caller makes the value with `f`; other callers wait meanwhile.
    ///
    /// # Panics
    /// With the panics of `f`; if `f` asks for the same value. If the call would have to wait while the caller, a
    /// thread of a hub, unwinds from a panic or kill. Unwinds with a kill or an expired [`timeout`](crate::timeout);
    /// panics inside [`no_switch`](crate::no_switch), in the child of a fork, and in main on a deadlock within main's
    /// hub.
    ///
    /// May switch: yes, if the cell is empty and another thread is initialising it or `f` switches.
    #[inline]
    pub fn get_or_init<F: FnOnce() -> T>(&self, f: F) -> &T {
        match self.value.get() {
            // Most calls find the value.
            Some(value) => value,
            None => {
                self.initialise(|| Some(f()));
                self.there()
            }
        }
    }

    /// Returns the value if there is one.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Takes the value out and leaves the cell empty.
    ///
    /// May switch: no.
    pub fn take(&mut self) -> Option<T> {
        std::mem::take(self).into_inner()
    }

    /// Makes the value, unless another thread has or does.
    fn initialise(&self, f: impl FnOnce() -> Option<T>) {
        // Forced: a closure that panicked has stored nothing, so the next one may try.
        self.once.call_once_force(|_| {
            if let Some(value) = f()
                && self.value.set(value).is_err()
            {
                unreachable!("one initialiser at a time")
            }
        });
    }

    /// Returns the value of a full cell.
    fn there(&self) -> &T {
        match self.value.get() {
            Some(value) => value,
            None => unreachable!("the once is completed"),
        }
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        let cell = OnceLock::new();
        // The cell is new, so nothing is waited for.
        match cell.set(value) {
            Ok(()) => cell,
            Err(_) => unreachable!("it was empty"),
        }
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        self.value.get().cloned().map_or_else(OnceLock::new, OnceLock::from)
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value.get() == other.value.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.get() {
            Some(value) => f.debug_tuple("OnceLock").field(value).finish(),
            None => f.debug_tuple("OnceLock").field(&format_args!("<uninit>")).finish(),
        }
    }
}
