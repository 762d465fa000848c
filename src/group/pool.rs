//! A number of green threads that run at a time: [`Pool`].
//!
//! ```text
//!   spawn:  wait in line for a slot -> a thread whose closure owns the slot -> the slot comes back when the closure ends
//!   slots:  capacity = free + running + those given to callers of `spawn` that have not run since
//! ```
//!
//! There are no workers that wait for work: a spawn costs less than a queue would.
//!
//! * Invariant O1: a slot that was taken is owned by a `Slot`, which lies in a frame or in a thread's closure, and so is
//!   dropped whatever becomes of these: end, panic, kill, kill before the start, a spawn that fails.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::watch::refusal;
use super::{Group, wait_any};
use crate::switch::cancel::is_control;
use crate::switch::fiber::FiberRef;
use crate::switch::root::try_root;
use crate::sync::{Semaphore, SemaphorePermit, WaitGroup};
use crate::thread::{JoinError, JoinHandle, spawn};

/// Runs at most so many green threads at a time; who spawns when it is full waits, first come, first served.
///
/// ```
/// use greenling::{group::Pool, yield_now};
/// use std::{cell::Cell, rc::Rc};
///
/// let pool = Pool::new(3);
/// let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
/// for _ in 0..20 {
///     let (now, most) = (Rc::clone(&now), Rc::clone(&most));
///     drop(pool.spawn(move || {
///         now.set(now.get() + 1);
///         most.set(most.get().max(now.get()));
///         yield_now();
///         now.set(now.get() - 1);
///     }));
/// }
/// pool.join();
/// assert_eq!((most.get(), pool.free()), (3, 3));
/// ```
///
/// A job's panic is its handle's, as with any thread; [`map`](Self::map) and [`apply`](Self::apply) pass it on to their
/// caller, [`imap`](Self::imap) and [`imap_unordered`](Self::imap_unordered) yield it in its place. Dropping the pool stops
/// nothing: its threads go on.
///
/// A job may use the pool that it runs in. `apply`, `map` and the `imap`s then run jobs in the caller's thread rather than
/// wait for a slot that only the caller could set free; a `spawn` does wait.
#[derive(Debug)]
pub struct Pool {
    /// The rest, which its threads know.
    shared: Rc<Shared>,
}

/// See [`Pool`].
#[derive(Debug)]
struct Shared {
    /// Threads at a time.
    capacity: usize,
    /// One permit for each free slot.
    slots: Semaphore,
    /// Counts slots that are taken.
    taken: WaitGroup,
    /// The last ticket given.
    last: Cell<u64>,
    /// Its threads that have not ended, by ticket.
    threads: RefCell<BTreeMap<u64, FiberRef>>,
}

/// A slot that was taken (invariant O1).
struct Slot {
    /// Whose it is.
    shared: Rc<Shared>,
    /// Its thread's place in `threads`.
    ticket: u64,
}

impl Slot {
    /// Makes a slot of a permit.
    fn new(shared: &Rc<Shared>, permit: SemaphorePermit<'_>) -> Slot {
        permit.forget();
        shared.taken.add(1);
        let ticket = shared.last.get() + 1;
        shared.last.set(ticket);
        Slot { shared: Rc::clone(shared), ticket }
    }

    /// Runs `f` in a thread that owns the slot.
    #[track_caller]
    fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        let (shared, ticket) = (Rc::clone(&self.shared), self.ticket);
        let handle = spawn(move || {
            let _slot = self;
            f()
        });
        shared.threads.borrow_mut().insert(ticket, handle.fiber_ref());
        handle
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.threads.borrow_mut().remove(&self.ticket);
        // Never too often: each slot stands for a permit that was forgotten.
        let _ = self.shared.slots.release();
        self.shared.taken.done();
    }
}

/// The pool had no free slot, in time or at all; the closure comes back.
pub struct PoolFull<F>(
    /// What was to be run.
    pub F,
);

impl<F> fmt::Debug for PoolFull<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolFull").finish_non_exhaustive()
    }
}

impl<F> fmt::Display for PoolFull<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pool is full")
    }
}

impl<F> Error for PoolFull<F> {}

/// What runs a job for a caller who waits for it.
enum Place {
    /// A thread with this slot.
    Thread(Slot),
    /// The caller, which is one of the pool's threads and finds no slot.
    Here,
}

impl Pool {
    /// One that runs `capacity` threads at a time.
    ///
    /// # Panics
    /// If `capacity` is zero.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn new(capacity: usize) -> Pool {
        assert!(capacity > 0, "a pool needs room for at least one green thread");
        let shared = Shared {
            capacity,
            slots: Semaphore::new(capacity),
            taken: WaitGroup::new(),
            last: Cell::new(0),
            threads: RefCell::default(),
        };
        Pool { shared: Rc::new(shared) }
    }

    /// Spawns a thread, after waiting for a slot if none is free. Dropping the handle detaches the thread; its slot comes
    /// back all the same.
    ///
    /// # Panics
    /// As [`crate::spawn`]; if it would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an
    /// expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if the pool is full.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.slot().spawn(f)
    }

    /// [`spawn`](Self::spawn), but does not wait.
    ///
    /// # Errors
    /// With `f`, if the pool is full.
    ///
    /// # Panics
    /// As [`crate::spawn`].
    ///
    /// May switch: no.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        match self.try_slot() {
            Some(slot) => Ok(slot.spawn(f)),
            None => Err(PoolFull(f)),
        }
    }

    /// [`spawn`](Self::spawn), but waits no longer than `limit` for a slot. While the caller unwinds it does not wait at all.
    ///
    /// # Errors
    /// With `f`, if the pool was full all the time.
    ///
    /// # Panics
    /// As [`crate::spawn`]. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if the pool is full.
    #[track_caller]
    pub fn spawn_timeout<F, T>(&self, limit: Duration, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        match self.shared.slots.acquire_timeout(limit) {
            Some(permit) => Ok(Slot::new(&self.shared, permit).spawn(f)),
            None => Err(PoolFull(f)),
        }
    }

    /// Runs `f` in the pool and waits for its result. In a thread of the pool it runs at once, in the caller.
    ///
    /// # Panics
    /// With the panic of `f`; if the job was killed; and as [`spawn`](Self::spawn).
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn apply<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        if self.is_worker() {
            return f();
        }
        value_of(self.spawn(f).join())
    }

    /// Runs `f` on all items in the pool and returns the results in the order of the items, when all are there.
    ///
    /// An item is asked for when there is a slot for it. If jobs panic, the others run all the same, and then the first
    /// panic, in the order of the items, goes on in the caller; to get the results of the others use [`imap`](Self::imap).
    /// If the caller is interrupted, jobs that run go on, and nothing new is started.
    ///
    /// # Panics
    /// With the first panic of a job; if a job was killed; and as [`spawn`](Self::spawn).
    ///
    /// May switch: yes.
    #[track_caller]
    pub fn map<I, F, U>(&self, items: I, f: F) -> Vec<U>
    where
        I: IntoIterator,
        I::Item: 'static,
        F: Fn(I::Item) -> U + 'static,
        U: 'static,
    {
        let f = Rc::new(f);
        let mut items = items.into_iter();
        let mut jobs: Vec<Result<JoinHandle<U>, Result<U, JoinError>>> = Vec::new();
        loop {
            let place = match self.place(true) {
                Ok(place) => place,
                Err(refusal) => panic!("a pool is full: {refusal}"),
            };
            let Some(item) = items.next() else { break };
            jobs.push(match place {
                Some(Place::Thread(slot)) => {
                    let f = Rc::clone(&f);
                    Ok(slot.spawn(move || f(item)))
                }
                _ => Err(run_here(|| f(item))),
            });
        }
        // All of them, before any panic goes on.
        let results: Vec<_> = jobs.into_iter().map(|job| job.map_or_else(|done| done, JoinHandle::join)).collect();
        results.into_iter().map(value_of).collect()
    }

    /// An iterator over the results of `f` on the items, in the order of the items. It asks for items when it is asked for
    /// results: at most as many results as the pool has slots are waited for or there already.
    ///
    /// ```
    /// use greenling::group::Pool;
    ///
    /// let pool = Pool::new(2);
    /// let mut results = pool.imap([1, 0, 4], |n| std::panic::catch_unwind(|| 4 / n).is_ok());
    /// assert_eq!(results.next().unwrap().unwrap(), true);
    /// assert_eq!(results.next().unwrap().unwrap(), false);
    /// assert_eq!(results.next().unwrap().unwrap(), true);
    /// assert!(results.next().is_none());
    /// ```
    ///
    /// A job that panics or is killed yields a [`JoinError`] in its place. Dropping the iterator leaves jobs that run alone.
    /// If `next` is interrupted, no result is lost. While the caller unwinds, `next` yields an error for what it would have
    /// to wait for, and then nothing.
    ///
    /// May switch: no; `next` may, and panics as [`spawn`](Self::spawn) does.
    pub fn imap<I, F, U>(&self, items: I, f: F) -> Imap<'_, I::IntoIter, F, U>
    where
        I: IntoIterator,
        I::Item: 'static,
        F: Fn(I::Item) -> U + 'static,
        U: 'static,
    {
        let feed = Feed { pool: self, items: Some(items.into_iter()), f: Rc::new(f) };
        Imap { feed, first: Vec::new(), jobs: VecDeque::new() }
    }

    /// [`imap`](Self::imap), with the results in the order in which the jobs end.
    ///
    /// ```
    /// use greenling::{group::Pool, sleep};
    /// use std::time::Duration;
    ///
    /// let pool = Pool::new(3);
    /// let results = pool.imap_unordered([300, 0, 5], |ms| {
    ///     sleep(Duration::from_millis(ms));
    ///     ms
    /// });
    /// assert!(results.map(Result::unwrap).eq([0, 5, 300]));
    /// ```
    ///
    /// May switch: no; `next` may, and panics as [`spawn`](Self::spawn) does.
    pub fn imap_unordered<I, F, U>(&self, items: I, f: F) -> ImapUnordered<'_, I::IntoIter, F, U>
    where
        I: IntoIterator,
        I::Item: 'static,
        F: Fn(I::Item) -> U + 'static,
        U: 'static,
    {
        let feed = Feed { pool: self, items: Some(items.into_iter()), f: Rc::new(f) };
        ImapUnordered { feed, jobs: Group::new() }
    }

    /// How many threads it runs at a time.
    ///
    /// May switch: no.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// How many slots are free.
    ///
    /// May switch: no.
    pub fn free(&self) -> usize {
        self.shared.slots.available_permits()
    }

    /// How many of its threads have not ended.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.shared.threads.borrow().len()
    }

    /// Whether none of its threads is left.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Kills its threads, and says how many were still alive. It does not wait, and does not concern threads that come
    /// later.
    ///
    /// May switch: no.
    pub fn kill_all(&self) -> usize {
        let Some(root) = try_root() else { return 0 };
        let threads = self.shared.threads.borrow();
        threads.values().filter_map(|thread| root.resolve(*thread)).filter(|thread| root.kill(*thread)).count()
    }

    /// Waits until no slot is taken.
    ///
    /// # Panics
    /// In a thread of the pool. If it would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or
    /// an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless all have ended.
    pub fn join(&self) {
        self.refuse_worker();
        self.shared.taken.wait();
    }

    /// [`join`](Self::join), but no longer than `limit`; says whether no slot is taken. While the caller unwinds it does not
    /// wait at all.
    ///
    /// # Panics
    /// In a thread of the pool. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, unless all have ended.
    pub fn join_timeout(&self, limit: Duration) -> bool {
        self.refuse_worker();
        self.shared.taken.wait_timeout(limit)
    }

    /// Whether the calling thread is one of the pool's.
    fn is_worker(&self) -> bool {
        let me = try_root().map(|root| root.current().to_ref());
        me.is_some_and(|me| self.shared.threads.borrow().values().any(|thread| *thread == me))
    }

    /// Panics in a thread of the pool.
    fn refuse_worker(&self) {
        assert!(!self.is_worker(), "a green thread of a pool cannot wait for the end of all its threads");
    }

    /// Waits for a slot.
    fn slot(&self) -> Slot {
        Slot::new(&self.shared, self.shared.slots.acquire())
    }

    /// A slot, if one is free.
    fn try_slot(&self) -> Option<Slot> {
        Some(Slot::new(&self.shared, self.shared.slots.try_acquire()?))
    }

    /// Where the next job can run; with `wait`, it waits for a slot if need be, or fails if it may not wait.
    fn place(&self, wait: bool) -> Result<Option<Place>, JoinError> {
        if let Some(slot) = self.try_slot() {
            return Ok(Some(Place::Thread(slot)));
        }
        if !wait {
            return Ok(None);
        }
        if self.is_worker() {
            return Ok(Some(Place::Here));
        }
        refusal().map_or_else(|| Ok(Some(Place::Thread(self.slot()))), Err)
    }
}

/// Runs a job in the calling thread, as if it were one of its own.
fn run_here<U>(f: impl FnOnce() -> U) -> Result<U, JoinError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload: Box<dyn Any + Send>| {
        // A kill or timeout means the caller.
        if is_control(&*payload) { resume_unwind(payload) } else { JoinError::panicked(payload) }
    })
}

/// The value of a job for a caller who can get nothing else.
#[track_caller]
fn value_of<U>(result: Result<U, JoinError>) -> U {
    match result.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(payload)) => resume_unwind(payload),
        Err(Err(error)) => panic!("a job of a pool has no result: {error}"),
    }
}

/// Where the jobs of an `imap` come from.
struct Feed<'a, I, F> {
    /// Where they run.
    pool: &'a Pool,
    /// What is to be done, until it is exhausted.
    items: Option<I>,
    /// What is done with it.
    f: Rc<F>,
}

impl<I, F, U> Feed<'_, I, F>
where
    I: Iterator,
    I::Item: 'static,
    F: Fn(I::Item) -> U + 'static,
    U: 'static,
{
    /// Starts the next job, if there is one and a slot for it. With `wait` it waits for a slot, or runs the job here and
    /// returns its result; if it may not wait, that is an error, and the end.
    fn start(&mut self, wait: bool) -> Option<Result<JoinHandle<U>, Result<U, JoinError>>> {
        let items = self.items.as_mut()?;
        let place = match self.pool.place(wait) {
            Ok(place) => place?,
            Err(refusal) => {
                self.items = None;
                return Some(Err(Err(refusal)));
            }
        };
        let Some(item) = items.next() else {
            self.items = None;
            return None;
        };
        Some(match place {
            Place::Thread(slot) => {
                let f = Rc::clone(&self.f);
                Ok(slot.spawn(move || f(item)))
            }
            Place::Here => Err(run_here(|| (self.f)(item))),
        })
    }
}

/// The results of a [`Pool::imap`].
pub struct Imap<'a, I, F, U> {
    /// Where jobs come from.
    feed: Feed<'a, I, F>,
    /// The job whose result is next, if it is waited for.
    first: Vec<JoinHandle<U>>,
    /// Those after it.
    jobs: VecDeque<JoinHandle<U>>,
}

impl<I, F, U> Iterator for Imap<'_, I, F, U>
where
    I: Iterator,
    I::Item: 'static,
    F: Fn(I::Item) -> U + 'static,
    U: 'static,
{
    type Item = Result<U, JoinError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let waiting = self.first.len() + self.jobs.len();
            if waiting == self.feed.pool.capacity() {
                break;
            }
            match self.feed.start(waiting == 0) {
                Some(Ok(job)) => self.jobs.push_back(job),
                Some(Err(done)) => return Some(done),
                None => break,
            }
        }
        if self.first.is_empty() {
            self.first.extend(self.jobs.pop_front());
        }
        // In two steps, so that an interrupted wait does not lose it.
        match wait_any(&mut self.first, 1).pop() {
            Some(job) => Some(job.join()),
            None => {
                self.feed.items = None;
                self.jobs.clear();
                self.first.pop().map(JoinHandle::join)
            }
        }
    }
}

/// The results of a [`Pool::imap_unordered`].
pub struct ImapUnordered<'a, I, F, U: 'static> {
    /// Where jobs come from.
    feed: Feed<'a, I, F>,
    /// Those that were started.
    jobs: Group<U>,
}

impl<I, F, U> Iterator for ImapUnordered<'_, I, F, U>
where
    I: Iterator,
    I::Item: 'static,
    F: Fn(I::Item) -> U + 'static,
    U: 'static,
{
    type Item = Result<U, JoinError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.jobs.len() < self.feed.pool.capacity() {
            match self.feed.start(self.jobs.is_empty()) {
                Some(Ok(job)) => {
                    self.jobs.add(job);
                }
                Some(Err(done)) => return Some(done),
                None => break,
            }
        }
        match self.jobs.wait_any(1).pop() {
            Some(job) => Some(job.join()),
            None => {
                // Nothing is left, or nothing may be waited for.
                self.feed.items = None;
                self.jobs.join_all().pop()
            }
        }
    }
}

impl<I, F, U> fmt::Debug for Imap<'_, I, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("jobs", &(self.first.len() + self.jobs.len())).finish_non_exhaustive()
    }
}

impl<I, F, U> fmt::Debug for ImapUnordered<'_, I, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}
