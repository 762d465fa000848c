//! A value that is made when it is first used.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;

use super::once_lock::OnceLock;
use crate::interrupt::shield;

/// std's `LazyLock` for the green threads of one OS thread; who uses it while another makes the value waits.
///
/// ```
/// use greenling::sync::LazyLock;
///
/// let table = LazyLock::new(|| (0..10).map(|n| n * n).collect::<Vec<u32>>());
/// assert_eq!(table[3], 9);
/// ```
///
/// The closure can run only once, so it is [shielded](crate::shield): a kill or timeout of the thread that runs it waits
/// until the value is made. If it panics, so does every later use, as with std's.
pub struct LazyLock<T, F = fn() -> T> {
    /// The value.
    value: OnceLock<T>,
    /// How to make it, until somebody began.
    make: Cell<Option<F>>,
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// One whose value `f` will make.
    ///
    /// May switch: no.
    pub const fn new(f: F) -> LazyLock<T, F> {
        LazyLock { value: OnceLock::new(), make: Cell::new(Some(f)) }
    }

    /// The value, made now if nobody has used it before.
    ///
    /// # Panics
    /// As [`OnceLock::get_or_init`]; and if the closure panicked.
    ///
    /// May switch: yes, if the value is not there and another thread is at it or the closure switches.
    #[inline]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        this.value.get_or_init(|| match this.make.take() {
            Some(make) => shield(make),
            None => panic!("LazyLock instance has previously been poisoned"),
        })
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> Self {
        LazyLock::new(T::default)
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
