//! [`OwnPool`]: a limited number of green threads with thread-locals of their own.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use super::imap::{Imap, ImapUnordered, Start};
use super::pool::{Pool, PoolFull, PoolSlot, value_of};
use crate::thread::{Builder, HubBound, JoinError, JoinHandle, OwnBuilder, own_thread_locals_supported};

/// A [`Pool`] of which each thread has thread-locals of its own; see [`Builder::own_thread_locals`]. Made by
/// [`Pool::own_thread_locals`].
///
/// ```
/// use greenling::{group::Pool, yield_now};
/// use std::cell::Cell;
///
/// thread_local!(static COUNT: Cell<u32> = const { Cell::new(0) });
///
/// # if greenling::thread::own_thread_locals_supported().is_err() { return; }
/// let pool = Pool::new(3).own_thread_locals().unwrap();
/// let counts = pool.map(1..=9, |n| {
///     COUNT.set(COUNT.get() + n);
///     yield_now();
///     COUNT.get()
/// });
/// assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
/// ```
///
/// Jobs, items and results are [`Send`], and a function that several jobs run is [`Sync`], too:
///
/// ```compile_fail,E0277
/// # let pool = greenling::group::Pool::new(1).own_thread_locals().unwrap();
/// let local = std::rc::Rc::new(1);
/// pool.spawn(move || *local);
/// ```
///
/// ```compile_fail,E0277
/// # let pool = greenling::group::Pool::new(1).own_thread_locals().unwrap();
/// pool.spawn(|| std::rc::Rc::new(1));
/// ```
///
/// ```compile_fail,E0277
/// # let pool = greenling::group::Pool::new(1).own_thread_locals().unwrap();
/// pool.map([std::rc::Rc::new(1)], |n| *n);
/// ```
///
/// ```compile_fail,E0277
/// # let pool = greenling::group::Pool::new(1).own_thread_locals().unwrap();
/// let shared = std::cell::Cell::new(1);
/// pool.map([1], move |n| shared.replace(n));
/// ```
///
/// The pool itself is not `Send`, so no job reaches the pool that it runs in.
pub struct OwnPool {
    /// The slots, and the threads that have them.
    pool: Pool,
}

/// What a job gets from the pool.
struct Handed<F> {
    /// The function of all jobs. Dropped before the slot, like what a job holds otherwise.
    f: F,
    /// The right to run; the drop gives it back.
    slot: PoolSlot,
}

/// A slot has counts and flags of the pool only. The function is one that threads may share; the count of its owners is
/// not atomic, but these are all on one OS thread.
impl<F: Send + Sync> HubBound for Handed<Rc<F>> {}

/// A slot for a job with a function of its own.
impl HubBound for Handed<()> {}

/// Runs `f` in a thread that owns the slot.
#[track_caller]
fn spawn_in<F, T>(slot: PoolSlot, f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let entry = slot.entry();
    let run = move |Handed { slot: _slot, .. }: Handed<()>| f();
    entry.enter(or_panic(builder().spawn_with(Handed { f: (), slot }, run)))
}

/// Returns the builder of the pools' threads.
fn builder() -> OwnBuilder {
    Builder::new().own_thread_locals()
}

/// Panics in place of an error.
#[track_caller]
fn or_panic<T>(spawned: io::Result<JoinHandle<T>>) -> JoinHandle<T> {
    match spawned {
        Ok(handle) => handle,
        Err(error) => panic!("failed to spawn a green thread: {error}"),
    }
}

/// How the jobs of an [`OwnPool`] start.
struct Own;

impl<F, T, U> Start<F, T, U> for Own
where
    F: Fn(T) -> U + Send + Sync + 'static,
    T: Send + 'static,
    U: Send + 'static,
{
    fn reserve() -> io::Result<()> {
        builder().reserve()
    }

    #[track_caller]
    fn start(site: &'static Location<'static>, slot: PoolSlot, f: Rc<F>, item: T) -> JoinHandle<U> {
        let entry = slot.entry();
        let run = move |Handed { slot: _slot, f }: Handed<Rc<F>>| f(item);
        entry.enter(or_panic(Builder::new().at(site).own_thread_locals().spawn_with(Handed { f, slot }, run)))
    }
}

impl Pool {
    /// Makes a pool of threads with thread-locals of their own, which takes the slots over; threads that run go on.
    ///
    /// # Errors
    /// `Unsupported`, with the reason, where a thread cannot have thread-locals of its own; see
    /// [`own_thread_locals_supported`].
    ///
    /// May switch: no.
    pub fn own_thread_locals(self) -> io::Result<OwnPool> {
        own_thread_locals_supported()?;
        Ok(OwnPool { pool: self })
    }
}

impl OwnPool {
    /// Spawns a thread, after waiting for a slot if none is free; see [`Pool::spawn`].
    ///
    /// # Panics
    /// As [`Pool::spawn`].
    ///
    /// May switch: yes, if the pool is full.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        spawn_in(self.pool.slot(), f)
    }

    /// Spawns as [`spawn`](Self::spawn) does, but does not wait for a slot.
    ///
    /// # Errors
    /// With `f`, if the pool is full, or no stack or memory can be had.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.pool.try_slot() {
            Some(slot) if builder().reserve().is_ok() => Ok(spawn_in(slot, f)),
            _ => Err(PoolFull(f)),
        }
    }

    /// Spawns as [`spawn`](Self::spawn) does, but waits no longer than `limit` for a slot; see [`Pool::spawn_timeout`].
    ///
    /// # Errors
    /// With `f`, if the pool was full all the time, or no stack or memory can be had.
    ///
    /// # Panics
    /// As [`Pool::spawn_timeout`].
    ///
    /// May switch: yes, if the pool is full.
    #[track_caller]
    pub fn spawn_timeout<F, T>(&self, limit: Duration, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.pool.slot_within(limit) {
            Some(slot) if builder().reserve().is_ok() => Ok(spawn_in(slot, f)),
            _ => Err(PoolFull(f)),
        }
    }

    /// Runs `f` in the pool and returns its result.
    ///
    /// # Panics
    /// As [`Pool::apply`].
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn apply<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        value_of(self.spawn(f).join())
    }

    /// Runs `f` on all items in the pool and returns the results in the order of the items; see [`Pool::map`].
    ///
    /// # Panics
    /// As [`Pool::map`].
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn map<I, F, U>(&self, items: I, f: F) -> Vec<U>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        self.pool.map_by::<Own, _, _, _>(items.into_iter(), f)
    }

    /// Returns an iterator over the results of `f` on the items, in the order of the items; see [`Pool::imap`].
    ///
    /// May switch: no; `next` may, and panics as [`spawn`](Self::spawn) does.
    #[track_caller]
    pub fn imap<I, F, U>(&self, items: I, f: F) -> OwnImap<'_, I::IntoIter, F, U>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        OwnImap(Imap::new(&self.pool, items.into_iter(), f))
    }

    /// Returns an iterator as [`imap`](Self::imap) does, but over the results in the order in which the jobs end; see
    /// [`Pool::imap_unordered`].
    ///
    /// May switch: no; `next` may, and panics as [`spawn`](Self::spawn) does.
    #[track_caller]
    pub fn imap_unordered<I, F, U>(&self, items: I, f: F) -> OwnImapUnordered<'_, I::IntoIter, F, U>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> U + Send + Sync + 'static,
        U: Send + 'static,
    {
        OwnImapUnordered(ImapUnordered::new(&self.pool, items.into_iter(), f))
    }

    /// Returns how many threads the pool runs at a time.
    ///
    /// May switch: no.
    pub fn capacity(&self) -> usize {
        self.pool.capacity()
    }

    /// Returns how many slots are free.
    ///
    /// May switch: no.
    pub fn free(&self) -> usize {
        self.pool.free()
    }

    /// Returns how many threads of the pool have not ended.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.pool.len()
    }

    /// Reports whether all threads of the pool have ended.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.pool.is_empty()
    }

    /// Kills the threads of the pool; see [`Pool::kill_all`].
    ///
    /// May switch: no.
    pub fn kill_all(&self) -> usize {
        self.pool.kill_all()
    }

    /// Waits until no slot is taken; see [`Pool::join`].
    ///
    /// # Panics
    /// As [`Pool::join`].
    ///
    /// May switch: yes, unless all have ended.
    pub fn join(&self) {
        self.pool.join();
    }

    /// Waits as [`join`](Self::join) does, but no longer than `limit`; see [`Pool::join_timeout`].
    ///
    /// # Panics
    /// As [`Pool::join_timeout`].
    ///
    /// May switch: yes, unless all have ended.
    pub fn join_timeout(&self, limit: Duration) -> bool {
        self.pool.join_timeout(limit)
    }
}

/// The iterator of [`OwnPool::imap`].
pub struct OwnImap<'a, I, F, U>(Imap<'a, I, F, U>);

impl<I, F, U> Iterator for OwnImap<'_, I, F, U>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> U + Send + Sync + 'static,
    U: Send + 'static,
{
    type Item = Result<U, JoinError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_by::<Own>()
    }
}

/// The iterator of [`OwnPool::imap_unordered`].
pub struct OwnImapUnordered<'a, I, F, U: 'static>(ImapUnordered<'a, I, F, U>);

impl<I, F, U> Iterator for OwnImapUnordered<'_, I, F, U>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> U + Send + Sync + 'static,
    U: Send + 'static,
{
    type Item = Result<U, JoinError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_by::<Own>()
    }
}

impl fmt::Debug for OwnPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnPool").field("pool", &self.pool).finish()
    }
}

impl<I, F, U> fmt::Debug for OwnImap<'_, I, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnImap").field(&self.0).finish()
    }
}

impl<I, F, U> fmt::Debug for OwnImapUnordered<'_, I, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnImapUnordered").field(&self.0).finish()
    }
}
