//! What a run may not leave behind: [`Tracked`] values, and what a lock or a pool has lent out.
#![forbid(unsafe_code)]

use std::any::type_name;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::rc::Rc;
use std::sync::TryLockError;

use super::world::World;
use crate::channel;
use crate::sync::{Mutex, RwLock, Semaphore};

/// A value that has to be dropped before the run ends; if it is not, that is a [leak](super::FailureKind::Leak), and
/// the report has the place where the value was made. Outside of a simulation it is a value like others.
///
/// For what a program hands from thread to thread, and what it keeps: a value in a cycle of references, in a static, or
/// forgotten, is found. One that a channel drops with itself is not left.
///
/// ```
/// use greenling::sim::{Config, FailureKind, Tracked};
/// use std::cell::RefCell;
/// use std::rc::Rc;
///
/// struct Node { next: RefCell<Option<Rc<Node>>>, _value: Tracked<u32> }
///
/// let failure = Config::new().check(|| {
///     let node = Rc::new(Node { next: RefCell::default(), _value: Tracked::new(7) });
///     node.next.replace(Some(node.clone())); // it keeps itself
/// }).unwrap_err();
/// assert_eq!(failure.kind(), FailureKind::Leak);
/// assert!(failure.message().contains("a value of type u32, made at "));
/// ```
#[derive(Debug)]
pub struct Tracked<T> {
    /// What the program uses.
    value: T,
    /// The entry in the registry.
    entry: Entry,
}

/// The entry of a value in the registry of its simulation, until this is dropped.
#[derive(Debug)]
struct Entry(
    /// The number of the value; 0 outside of a simulation.
    u64,
);

impl Drop for Entry {
    fn drop(&mut self) {
        World::with(|world| world.registry().remove_value(self.0));
    }
}

impl<T> Tracked<T> {
    /// Makes a tracked value. The place of the call is the one in the report.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn new(value: T) -> Tracked<T> {
        let made_at = Location::caller();
        let number = World::with(|world| world.registry().add_value(type_name::<T>(), made_at));
        Tracked { value, entry: Entry(number.unwrap_or(0)) }
    }

    /// Returns the value, which is tracked no more.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> T {
        drop(self.entry);
        self.value
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// What gives something out that has to come back: a lock, permits, the connections of a pool. See [`free_at_end`].
pub trait Lends {
    /// Returns what is out now, in words that stand for themselves; none if all is back. Must not wait.
    fn lent(&self) -> Option<String>;
}

impl<T: ?Sized> Lends for Mutex<T> {
    fn lent(&self) -> Option<String> {
        matches!(self.try_lock(), Err(TryLockError::WouldBlock)).then(|| String::from("a Mutex that is held"))
    }
}

impl<T: ?Sized> Lends for RwLock<T> {
    fn lent(&self) -> Option<String> {
        matches!(self.try_write(), Err(TryLockError::WouldBlock)).then(|| String::from("an RwLock that is held"))
    }
}

impl Lends for Semaphore {
    fn lent(&self) -> Option<String> {
        let out = self.permits_out();
        (out > 0).then(|| format!("a Semaphore of which {out} permits are out"))
    }
}

impl<T> Lends for channel::Receiver<T> {
    fn lent(&self) -> Option<String> {
        let count = self.len();
        (count > 0).then(|| format!("a channel with {count} values"))
    }
}

/// Takes it for a [leak](super::FailureKind::Leak) if something of `lender` is out when the run ends: a lock that is
/// held, permits, values in a channel; whatever [`Lends::lent`] says. The place of the call is the one in the report. A
/// lender that was dropped has nothing out.
///
/// ```
/// use greenling::{sim, spawn, sync::Semaphore};
/// use std::rc::Rc;
///
/// let failure = sim::Config::new().check(|| {
///     let permits = Rc::new(Semaphore::new(2));
///     sim::free_at_end(&permits);
///     let theirs = permits.clone();
///     spawn(move || {
///         let permit = theirs.acquire();
///         std::mem::forget(permit);
///         std::mem::forget(theirs);
///     });
/// });
/// assert!(failure.unwrap_err().message().contains("a Semaphore of which 1 permits are out, to be free"));
/// ```
///
/// # Panics
/// Outside of a simulation.
///
/// May switch: no.
#[track_caller]
pub fn free_at_end<L: Lends + 'static>(lender: &Rc<L>) {
    let (asked_at, lender) = (Location::caller(), Rc::downgrade(lender));
    let question = Box::new(move || lender.upgrade()?.lent());
    super::calls::inside(World::with(|world| world.registry().add_question(question, asked_at)));
}
