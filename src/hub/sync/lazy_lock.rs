//! A value that is made when a thread of any hub first uses it.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use super::once_lock::OnceLock;
use crate::interrupt::shield;
use crate::pure::lock::lock;
use crate::switch::root::existing_root;

/// std's `LazyLock` for green threads of any hub and for plain OS threads: can stand in a `static`. While one thread
/// makes the value, other users park.
///
/// ```
/// use greenling::hub::sync::LazyLock;
///
/// static TABLE: LazyLock<Vec<u32>> = LazyLock::new(|| (0..10).map(|n| n * n).collect());
///
/// assert_eq!(TABLE[3], 9);
/// ```
///
/// The closure can run only once, so it is [shielded](crate::shield): a kill or timeout of the thread that runs the
/// closure waits until the value is made. If the closure panics, so does every later use, as with std's.
pub struct LazyLock<T, F = fn() -> T> {
    value: OnceLock<T>,
    /// The closure, until a thread has begun to run it. Locked for the moment of taking it out; never while the closure
    /// runs.
    make: Mutex<Option<F>>,
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// Creates a lazy value, which `f` will make.
    ///
    /// May switch: no.
    pub const fn new(f: F) -> LazyLock<T, F> {
        LazyLock { value: OnceLock::new(), make: Mutex::new(Some(f)) }
    }

    /// Returns the value, and makes the value first if no thread has.
    ///
    /// # Panics
    /// As [`OnceLock::get_or_init`]. If the closure panicked.
    ///
    /// May switch: yes, if the value is not made, and another thread is making it or the closure switches.
    #[inline]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        this.value.get_or_init(|| {
            // The closure is taken out before it runs: if it panics, there is none left, and later uses panic, too.
            let make = lock(&this.make).take();
            match make {
                // Nothing interrupts an OS thread that has neither hub nor greenlets, and the thread gets none for
                // this.
                Some(make) if existing_root().is_none() => make(),
                Some(make) => shield(make),
                None => poisoned(),
            }
        })
    }

    /// Returns the value to change, and makes the value first if no thread has.
    ///
    /// # Panics
    /// As [`force`](Self::force).
    ///
    /// May switch: yes, if the value is not made and the closure switches.
    pub fn force_mut(this: &mut LazyLock<T, F>) -> &mut T {
        LazyLock::force(this);
        match this.value.get_mut() {
            Some(value) => value,
            None => poisoned(),
        }
    }
}

impl<T, F> LazyLock<T, F> {
    /// Returns the value if made already; does not make the value.
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

/// Panics with std's words.
#[cold]
#[inline(never)]
fn poisoned() -> ! {
    panic!("LazyLock instance has previously been poisoned");
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    fn deref_mut(&mut self) -> &mut T {
        LazyLock::force_mut(self)
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
