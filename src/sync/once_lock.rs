//! A value that is written once.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fmt;

use super::once::Once;

/// std's `OnceLock` for the green threads of one OS thread; a second initialiser waits for the first.
///
/// ```
/// use greenling::sync::OnceLock;
///
/// thread_local! {
///     static NAME: OnceLock<String> = const { OnceLock::new() };
/// }
/// NAME.with(|name| {
///     assert_eq!(name.get_or_init(|| "first".into()), "first");
///     assert_eq!(name.set("second".into()), Err("second".into()));
/// });
/// ```
///
/// Not `Sync`, so in a `static` only together with `thread_local!`. If the closure of an initialiser panics or is killed,
/// nothing has happened: the next that waits tries with its own.
pub struct OnceLock<T> {
    /// Whose turn it is.
    once: Once,
    /// The value; there if and only if `once` is completed.
    value: OnceCell<T>,
}

impl<T> OnceLock<T> {
    /// An empty one.
    ///
    /// May switch: no.
    pub const fn new() -> OnceLock<T> {
        OnceLock { once: Once::new(), value: OnceCell::new() }
    }

    /// The value, if it is there.
    ///
    /// May switch: no.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, if it is there.
    ///
    /// May switch: no.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// Waits until the value is there.
    ///
    /// # Panics
    /// As [`Once::wait_force`].
    ///
    /// May switch: yes, if it is not there.
    pub fn wait(&self) -> &T {
        self.once.wait_force();
        self.there()
    }

    /// Sets the value. If another thread initialises it, waits for that.
    ///
    /// # Errors
    /// With `value`, if one is there already.
    ///
    /// # Panics
    /// As [`get_or_init`](Self::get_or_init).
    ///
    /// May switch: yes, if another thread initialises it.
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.initialise(|| value.take());
        value.map_or(Ok(()), Err)
    }

    /// The value; the first that asks makes it with `f`, and others that ask meanwhile wait.
    ///
    /// # Panics
    /// With the panics of `f`; if `f` asks for the same value. If it would have to wait while the caller unwinds from a
    /// panic or kill. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if the value is not there and another thread is at it or `f` switches.
    #[inline]
    pub fn get_or_init<F: FnOnce() -> T>(&self, f: F) -> &T {
        match self.value.get() {
            Some(value) => value,
            None => {
                self.initialise(|| Some(f()));
                self.there()
            }
        }
    }

    /// The value.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Takes the value out and leaves it empty.
    ///
    /// May switch: no.
    pub fn take(&mut self) -> Option<T> {
        std::mem::take(self).into_inner()
    }

    /// Makes the value, if it is this thread's turn.
    fn initialise(&self, f: impl FnOnce() -> Option<T>) {
        self.once.call_once_force(|_| {
            if let Some(value) = f()
                && self.value.set(value).is_err()
            {
                unreachable!("one initialiser at a time")
            }
        });
    }

    /// The value, which is there.
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
        match cell.set(value) {
            Ok(()) => cell,
            Err(_) => unreachable!("it was empty"),
        }
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        self.get().cloned().map_or_else(OnceLock::new, OnceLock::from)
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(value) => f.debug_tuple("OnceLock").field(value).finish(),
            None => f.debug_tuple("OnceLock").field(&format_args!("<uninit>")).finish(),
        }
    }
}
