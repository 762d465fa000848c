//! A value that is made when it is first used.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::once_lock::OnceLock;
use crate::interrupt::shield;

/// std's `LazyLock` for the green threads of one OS thread. While one thread makes the value, other users wait.
///
/// ```
/// use greenling::sync::LazyLock;
///
/// let table = LazyLock::new(|| (0..10).map(|n| n * n).collect::<Vec<u32>>());
/// assert_eq!(table[3], 9);
/// ```
///
/// The closure can run only once, so it is [shielded](crate::shield): a kill or timeout of the thread that runs the
/// closure waits until the value is made. If the closure panics, so does every later use, as with std's.
pub struct LazyLock<T, F = fn() -> T> {
    value: OnceLock<T>,
    /// The closure, until a thread has begun to run it.
    make: Cell<Option<F>>,
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// Creates a lazy value, which `f` will make.
    ///
    /// May switch: no.
    pub const fn new(f: F) -> LazyLock<T, F> {
        LazyLock { value: OnceLock::new(), make: Cell::new(Some(f)) }
    }

    /// Returns the value, and makes the value first if no thread has.
    ///
    /// # Panics
    /// As [`OnceLock::get_or_init`]. If the closure panicked.
    ///
    /// May switch: yes, if the value is not made, and another thread is making it or the closure switches.
    #[inline]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        // The closure is taken out before it runs: if it panics, there is none left, and later uses panic, too.
        this.value.get_or_init(|| match this.make.take() {
            Some(make) => shield(make),
            None => panic!("LazyLock instance has previously been poisoned"),
        })
    }

    /// Returns the value to change, and makes the value first if no thread has.
    ///
    /// ```
    /// use greenling::sync::LazyLock;
    ///
    /// let mut numbers = LazyLock::new(|| vec![1]);
    /// LazyLock::force_mut(&mut numbers).push(2);
    /// numbers.push(3);
    /// assert_eq!(*numbers, [1, 2, 3]);
    /// ```
    ///
    /// # Panics
    /// As [`force`](Self::force).
    ///
    /// May switch: yes, if the value is not made and the closure switches.
    pub fn force_mut(this: &mut LazyLock<T, F>) -> &mut T {
        LazyLock::force(this);
        match this.value.get_mut() {
            Some(value) => value,
            None => unreachable!("it was forced"),
        }
    }
}

impl<T, F> LazyLock<T, F> {
    /// Returns the value if made already; does not make the value.
    ///
    /// ```
    /// use greenling::sync::LazyLock;
    ///
    /// let answer = LazyLock::new(|| 42);
    /// assert_eq!(LazyLock::get(&answer), None);
    /// assert_eq!(*answer, 42);
    /// assert_eq!(LazyLock::get(&answer), Some(&42));
    /// ```
    ///
    /// May switch: no.
    pub fn get(this: &LazyLock<T, F>) -> Option<&T> {
        this.value.get()
    }

    /// Returns the value to change if made already; does not make the value.
    ///
    /// May switch: no.
    pub fn get_mut(this: &mut LazyLock<T, F>) -> Option<&mut T> {
        this.value.get_mut()
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        LazyLock::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> Self {
        LazyLock::new(T::default)
    }
}

/// Creates a lazy value that is made already.
impl<T, F> From<T> for LazyLock<T, F> {
    fn from(value: T) -> Self {
        LazyLock { value: OnceLock::from(value), make: Cell::new(None) }
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.get() {
            Some(value) => f.debug_tuple("LazyLock").field(value).finish(),
            None => f.debug_tuple("LazyLock").field(&format_args!("<uninit>")).finish(),
        }
    }
}
