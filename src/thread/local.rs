//! Values that each green thread has for itself: `green_local!` and [`LocalKey`].
//!
//! ```text
//!   static KEY ------------- address ---------------.
//!                                                   v
//!   running fiber -> control block -> extras -> | KEY: Rc<T> | OTHER: Rc<U> |       (switch/extras.rs)
//! ```
//!
//! * Invariant local-1: foreign code (initialisers, `with`'s closure, destructors, inheritance) runs when nothing of
//!   the fiber is borrowed: `with` holds a clone of the `Rc`. So foreign code may use other keys, spawn, and switch;
//!   and a value that is in use outlives its removal from the table.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::io;
use std::rc::Rc;

use crate::switch::extras::{Extras, Found, Key, Life};
use crate::switch::root::{Root, try_root};

/// Declares keys that have a value for each green thread, shaped like std's `thread_local!`.
///
/// ```
/// use greenling::{green_local, spawn};
/// use std::cell::{Cell, RefCell};
///
/// green_local! {
///     /// How deep we are.
///     static DEPTH: Cell<u32> = Cell::new(0);
///     /// The request that is served, also for threads that are spawned on the way.
///     static REQUEST: RefCell<String> = RefCell::new(String::new()), inherit = clone;
///     /// Counts generations.
///     static GENERATION: Cell<u32> = Cell::new(0), inherit = with(|parent| Cell::new(parent.get() + 1));
/// }
///
/// DEPTH.set(7);
/// REQUEST.set("request 12".into());
/// GENERATION.set(1);
/// let child = spawn(|| (DEPTH.get(), REQUEST.with_borrow(String::clone), GENERATION.get()));
/// assert_eq!(child.join().unwrap(), (0, "request 12".to_owned(), 2));
/// assert_eq!(GENERATION.get(), 1);
/// ```
///
/// * The initialiser makes the value when the thread first uses the key.
/// * **Inheritance** is the key's choice. `inherit = none`, the default: a new thread makes a new value. `inherit =
///   clone`: the new thread gets a clone of the spawner's value, taken at the spawn. `inherit = with(f)`: the new
///   thread gets what `f` makes of a reference to that value. A key that the spawner has not used is not inherited.
///   `spawn`, `Builder::spawn` and scopes inherit; a [`Greenlet`](crate::Greenlet) starts without values, as in Python,
///   and so does what another hub is given to run. `f` runs in the spawner; if `f` panics, so does the spawn.
/// * **Destructors** run on the thread's own stack, when the closure is done and before the joiners go on, also after a
///   kill or panic: the value that was made last goes first. They may use other keys, even for the first time; a value
///   that is gone is not made again ([`AccessError`]). They may block; in a thread that was killed, blocking raises the
///   kill again, which ends that destructor only. If a destructor panics, that becomes the outcome of a thread that had
///   returned. If the handle was dropped, the result is destroyed after the values.
/// * **Main** and each greenlet have values of their own. Main's are destroyed when the OS thread ends, and cannot wait
///   then; as with std, not if the process ends by `exit`. Those of threads that are suspended at that time never are,
///   unless [`hub::shutdown`](crate::hub::shutdown) has unwound the threads before.
/// * A key that is never used costs nothing. A value costs an allocation, and the first one of a thread one more.
#[doc(alias("thread_local", "local"))]
#[macro_export]
macro_rules! green_local {
    () => {};
    ($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = $init:expr $(; $($rest:tt)*)?) => {
        $crate::__green_local!([$(#[$meta])*] $vis $name, $type, $init, none);
        $($crate::green_local!($($rest)*);)?
    };
    ($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = $init:expr, inherit = $how:ident $(($with:expr))?
     $(; $($rest:tt)*)?) => {
        $crate::__green_local!([$(#[$meta])*] $vis $name, $type, $init, $how $(($with))?);
        $($crate::green_local!($($rest)*);)?
    };
}

/// Declares one key of `green_local!`.
#[doc(hidden)]
#[macro_export]
macro_rules! __green_local {
    ([$($meta:tt)*] $vis:vis $name:ident, $type:ty, $init:expr, $($how:tt)*) => {
        $($meta)*
        $vis static $name: $crate::thread::LocalKey<$type> = {
            fn __init() -> $type {
                $init
            }
            $crate::thread::LocalKey::__new(__init, $crate::__green_local!(@ $type, $($how)*))
        };
    };
    (@ $type:ty, none) => { ::core::option::Option::None };
    (@ $type:ty, clone) => { ::core::option::Option::Some(<$type as ::core::clone::Clone>::clone) };
    (@ $type:ty, with($f:expr)) => {{
        const __INHERIT: fn(&$type) -> $type = $f;
        ::core::option::Option::Some(__INHERIT)
    }};
}

/// A key that has a value for each green thread. Made by [`green_local!`](crate::green_local), which has the
/// rules.
///
/// ```
/// use greenling::{green_local, spawn};
/// use std::cell::RefCell;
///
/// green_local!(static LOG: RefCell<Vec<u32>> = RefCell::default());
///
/// LOG.with_borrow_mut(|log| log.push(1));
/// assert_eq!(spawn(|| LOG.take()).join().unwrap(), []); // that thread's own
/// assert_eq!(LOG.take(), [1]);
/// ```
pub struct LocalKey<T: 'static> {
    /// The initialiser of a value.
    init: fn() -> T,
    /// Makes the value of a new thread from the spawner's; none if the key is not inherited.
    inherit: Option<fn(&T) -> T>,
}

/// The error for a value of a [`LocalKey`] that was destroyed already, because the thread or the OS thread is about to
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessError;

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a green-local value was used after it was destroyed")
    }
}

impl Error for AccessError {}

impl From<AccessError> for io::Error {
    fn from(error: AccessError) -> io::Error {
        io::Error::other(error)
    }
}

impl<T: 'static> Key for LocalKey<T> {
    fn is_inherited(&self) -> bool {
        self.inherit.is_some()
    }

    fn inherit(&self, value: &dyn Any) -> Option<Rc<dyn Any>> {
        let (inherit, value) = (self.inherit?, value.downcast_ref()?);
        Some(Rc::new(inherit(value)))
    }
}

/// Returns the extras of a thread that is spawned now: what the thread inherits of the running one. May run foreign
/// code.
#[inline(always)]
pub(super) fn inherited(root: &Root) -> Option<Box<Extras>> {
    if root.current().life.get() == Life::WithExtras { inherit(root) } else { None }
}

/// Returns what is inherited from the running thread, which has extras.
#[cold]
#[inline(never)]
fn inherit(root: &Root) -> Option<Box<Extras>> {
    // A copy of the values first: `Key::inherit` runs foreign code, and nothing may be borrowed then (local-1).
    let values = root.current().with_extras(|extras| extras.inherited())?;
    let mut extras: Option<Box<Extras>> = None;
    for (key, value) in values {
        if let Some(value) = key.inherit(&*value) {
            extras.get_or_insert_default().put(key, value);
        }
    }
    extras
}

impl<T: 'static> LocalKey<T> {
    /// Makes a key, for `green_local!`.
    #[doc(hidden)]
    pub const fn __new(init: fn() -> T, inherit: Option<fn(&T) -> T>) -> LocalKey<T> {
        LocalKey { init, inherit }
    }

    /// Calls `f` with the running thread's value, which is made if there is none yet.
    ///
    /// # Panics
    /// If the value was destroyed already; with the panics of `f` and of the initialiser.
    ///
    /// May switch: if `f` or the initialiser does.
    #[inline]
    #[track_caller]
    pub fn with<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    /// Calls `f` as [`with`](Self::with) does, but returns an error in place of the first panic.
    ///
    /// # Errors
    /// If the value was destroyed already, or the OS thread is ending.
    ///
    /// # Panics
    /// With the panics of `f` and of the initialiser.
    ///
    /// May switch: if `f` or the initialiser does.
    #[inline]
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        // A clone of the `Rc` keeps the value while `f` runs (local-1).
        let value = match self.find()? {
            Some(value) => value,
            None => self.store((self.init)())?,
        };
        let result = f(typed(&*value));
        // This may be the last share by now, and the destructor may unwind: then the result is dropped, too.
        drop(value);
        Ok(result)
    }

    /// Returns the running thread's value, if there is one.
    #[inline]
    fn find(&'static self) -> Result<Option<Rc<dyn Any>>, AccessError> {
        let me = try_root().ok_or(AccessError)?.current();
        // A thread at its end has no values any more, and must not make new ones.
        if let Life::Ended(_) = me.life.get() {
            return Err(AccessError);
        }
        // Three answers: never made, there, or destroyed.
        match me.with_extras(|extras| extras.find(self)) {
            None | Some(Found::Nothing) => Ok(None),
            Some(Found::Value(value)) => Ok(Some(value)),
            Some(Found::Destroyed) => Err(AccessError),
        }
    }

    /// Makes `value` the running thread's. If the initialiser has already stored another value, that one stays and is
    /// returned.
    fn store(&'static self, value: T) -> Result<Rc<dyn Any>, AccessError> {
        if let Some(theirs) = self.find()? {
            // The destructor is foreign code; after an unwinding no share of the other value may be left behind.
            drop(value);
            return Ok(theirs);
        }
        // Put a clone into the table; the caller goes on with the other one.
        let (value, me): (Rc<dyn Any>, _) = (Rc::new(value), try_root().ok_or(AccessError)?.current());
        let mine = Rc::clone(&value);
        me.with_extras_made(|extras| extras.put(self, mine)).ok_or(AccessError)?;
        Ok(value)
    }

    /// Puts `new` into the running thread's value by `place`, or makes the value from `new` by `make`, without the
    /// initialiser.
    #[track_caller]
    fn set_with<V>(&'static self, new: V, make: impl FnOnce(V) -> T, place: impl FnOnce(&T, V)) {
        // The initialiser never runs: either there is a value, or `new` becomes it.
        let set = match self.find() {
            Ok(Some(value)) => {
                place(typed(&*value), new);
                Ok(())
            }
            Ok(None) => self.store(make(new)).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = set {
            panic!("{error}");
        }
    }
}

/// Returns the value as what the key holds.
#[inline]
fn typed<T: 'static>(value: &dyn Any) -> &T {
    match value.downcast_ref() {
        Some(value) => value,
        None => unreachable!("a key has values of one type"),
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value. If there is none yet, the initialiser is not run.
    ///
    /// # Panics
    /// If the value was destroyed already.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.set_with(value, Cell::new, |cell, value| cell.set(value));
    }

    /// Returns a copy of the value.
    ///
    /// # Panics
    /// As [`with`](Self::with).
    ///
    /// May switch: if the initialiser does.
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Returns the value, and leaves the default in its place.
    ///
    /// # Panics
    /// As [`with`](Self::with).
    ///
    /// May switch: if the initialiser does.
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Returns the value, and leaves `value` in its place.
    ///
    /// # Panics
    /// As [`with`](Self::with).
    ///
    /// May switch: if the initialiser does.
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with the value borrowed.
    ///
    /// # Panics
    /// If the value is mutably borrowed, and as [`with`](Self::with).
    ///
    /// May switch: if `f` or the initialiser does.
    #[track_caller]
    pub fn with_borrow<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with the value mutably borrowed.
    ///
    /// # Panics
    /// If the value is borrowed, and as [`with`](Self::with).
    ///
    /// May switch: if `f` or the initialiser does.
    #[track_caller]
    pub fn with_borrow_mut<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the value. If there is none yet, the initialiser is not run.
    ///
    /// # Panics
    /// If the value is borrowed, or was destroyed already.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.set_with(value, RefCell::new, |cell, value| drop(cell.replace(value)));
    }

    /// Returns the value, and leaves the default in its place.
    ///
    /// # Panics
    /// If the value is borrowed, and as [`with`](Self::with).
    ///
    /// May switch: if the initialiser does.
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Returns the value, and leaves `value` in its place.
    ///
    /// # Panics
    /// If the value is borrowed, and as [`with`](Self::with).
    ///
    /// May switch: if the initialiser does.
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").field("inherited", &self.is_inherited()).finish_non_exhaustive()
    }
}
