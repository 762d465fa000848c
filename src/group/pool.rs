//! [`Pool`]: a limited number of green threads at a time.
//!
//! ```text
//!   spawn:  wait for a slot -> a thread with a closure that owns the slot -> the slot is free when the closure ends
//!   slots:  capacity = free + running + those given to callers of `spawn` that have not run since
//! ```
//!
//! There are no workers that wait for work: a spawn costs less than a queue would.
//!
//! * Invariant group-pool-1: a slot that was taken is owned by a `PoolSlot`, which lies in a frame or in a thread's
//!   closure, and so is dropped whatever becomes of these: end, panic, kill, kill before the start, a spawn that fails.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{Location, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::wait::refusal;
use crate::switch::fiber::FiberRef;
use crate::switch::root::try_root;
use crate::sync::{Semaphore, SemaphorePermit, WaitGroup};
use crate::thread::{Builder, JoinError, JoinHandle};

/// A limit to the green threads that run at a time. A caller that spawns when the pool is full waits, first come, first
/// served.
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
/// The panic of a job goes to its handle, as with any thread; [`map`](Self::map) and [`apply`](Self::apply) pass the
/// panic on to their caller, [`imap`](Self::imap) and [`imap_unordered`](Self::imap_unordered) yield it in place of the
/// result. Dropping the pool stops nothing: its threads go on.
///
/// A job may use the pool that it runs in. `apply`, `map` and the `imap`s then run jobs in the caller's thread rather
/// than wait for a slot that only the caller could set free; a `spawn` does wait.
#[derive(Debug)]
pub struct Pool {
    /// What the pool shares with its slots.
    shared: Rc<PoolShared>,
}

/// The state of a [`Pool`].
#[derive(Debug)]
struct PoolShared {
    /// The most threads at a time.
    capacity: usize,
    /// One permit for each free slot.
    slots: Semaphore,
    /// Counts the slots that are taken.
    taken: WaitGroup,
    /// The last ticket given out.
    last: Cell<u64>,
    /// The threads of the pool that have not ended, by ticket.
    threads: RefCell<BTreeMap<u64, FiberRef>>,
}

/// A slot that was taken (group-pool-1).
pub(super) struct PoolSlot {
    /// The pool of the slot.
    shared: Rc<PoolShared>,
    /// The key of the slot's thread in `threads`.
    ticket: u64,
}

impl PoolSlot {
    /// Turns a permit into a slot.
    fn new(shared: &Rc<PoolShared>, permit: SemaphorePermit<'_>) -> PoolSlot {
        // The slot stands for the permit from here on.
        permit.forget();
        shared.taken.add(1);
        let ticket = shared.last.get() + 1;
        shared.last.set(ticket);
        PoolSlot { shared: Rc::clone(shared), ticket }
    }

    /// Runs `f` in a thread that owns the slot.
    #[track_caller]
    pub(super) fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.spawn_at(Location::caller(), f)
    }

    /// Runs `f` as [`spawn`](Self::spawn) does, in a thread of which reports say that it was spawned at `site`.
    #[track_caller]
    pub(super) fn spawn_at<T: 'static>(
        self,
        site: &'static Location<'static>,
        f: impl FnOnce() -> T + 'static,
    ) -> JoinHandle<T> {
        // The closure owns the slot, whatever becomes of the closure (group-pool-1).
        let entry = self.entry();
        let job = move || {
            let _slot = self;
            f()
        };
        match Builder::new().at(site).spawn(job) {
            Ok(handle) => entry.enter(handle),
            Err(error) => panic!("failed to spawn a green thread: {error}"),
        }
    }

    /// Returns the place of the slot's thread among those of the pool.
    pub(super) fn entry(&self) -> PoolEntry {
        PoolEntry { shared: Rc::clone(&self.shared), ticket: self.ticket }
    }
}

/// The place of a slot's thread among those of the pool.
pub(super) struct PoolEntry {
    /// The pool of the slot.
    shared: Rc<PoolShared>,
    /// The key in `threads`.
    ticket: u64,
}

impl PoolEntry {
    /// Enters a thread that was just spawned with the slot.
    pub(super) fn enter<T>(self, handle: JoinHandle<T>) -> JoinHandle<T> {
        self.shared.threads.borrow_mut().insert(self.ticket, handle.fiber_ref());
        handle
    }
}

impl Drop for PoolSlot {
    fn drop(&mut self) {
        // The thread counts as ended from here on, and the slot as free.
        self.shared.threads.borrow_mut().remove(&self.ticket);
        // This never fails: each slot stands for a permit that was forgotten.
        let _ = self.shared.slots.release();
        self.shared.taken.done();
    }
}

/// The error of a pool that had no free slot, in time or at all, or no stack for another thread. The closure comes
/// back.
pub struct PoolFull<F>(
    /// The closure, which did not run.
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

/// Makes an error of the kind `WouldBlock`; the closure is dropped.
impl<F> From<PoolFull<F>> for io::Error {
    fn from(error: PoolFull<F>) -> io::Error {
        io::Error::new(io::ErrorKind::WouldBlock, error.to_string())
    }
}

/// The place in which a job runs while its caller waits for the result.
pub(super) enum Runner {
    /// A new thread that owns this slot.
    Thread(PoolSlot),
    /// The caller itself, which is one of the pool's threads and finds no slot.
    Caller,
}

impl Pool {
    /// Makes a pool that runs `capacity` threads at a time.
    ///
    /// # Panics
    /// If `capacity` is zero.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn new(capacity: usize) -> Pool {
        assert!(capacity > 0, "a pool needs room for at least one green thread");
        let shared = PoolShared {
            capacity,
            slots: Semaphore::new(capacity),
            taken: WaitGroup::new(),
            last: Cell::new(0),
            threads: RefCell::default(),
        };
        Pool { shared: Rc::new(shared) }
    }

    /// Spawns a thread, after waiting for a slot if none is free. Dropping the handle detaches the thread; the slot
    /// comes back all the same.
    ///
    /// # Panics
    /// As [`crate::spawn`]; if the call would have to wait while the caller unwinds from a panic or kill. Unwinds with
    /// a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on
    /// a deadlock.
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

    /// Spawns as [`spawn`](Self::spawn) does, but does not wait for a slot.
    ///
    /// # Errors
    /// With `f`, if the pool is full, or no stack can be had.
    ///
    /// # Panics
    /// With the panics of what the new thread [inherits](crate::green_local) its green-local values with.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        match self.try_slot() {
            // A stack is reserved, since a failed spawn would drop the closure.
            Some(slot) if Builder::new().reserve().is_ok() => Ok(slot.spawn(f)),
            _ => Err(PoolFull(f)),
        }
    }

    /// Spawns as [`spawn`](Self::spawn) does, but waits no longer than `limit` for a slot, and not at all while the
    /// caller unwinds.
    ///
    /// # Errors
    /// With `f`, if the pool was full all the time, or no stack can be had.
    ///
    /// # Panics
    /// As [`try_spawn`](Self::try_spawn). Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if the pool is full.
    #[track_caller]
    pub fn spawn_timeout<F, T>(&self, limit: Duration, f: F) -> Result<JoinHandle<T>, PoolFull<F>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        match self.slot_within(limit) {
            Some(slot) if Builder::new().reserve().is_ok() => Ok(slot.spawn(f)),
            _ => Err(PoolFull(f)),
        }
    }

    /// Runs `f` in the pool and returns its result. In a thread of the pool, runs `f` at once, in the caller.
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
        // A job of this pool may hold the last slot: run in place.
        if self.is_worker() {
            return f();
        }
        value_of(self.spawn(f).join())
    }

    /// Returns how many threads the pool runs at a time.
    ///
    /// May switch: no.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Returns how many slots are free.
    ///
    /// May switch: no.
    pub fn free(&self) -> usize {
        self.shared.slots.available_permits()
    }

    /// Returns how many threads of the pool have not ended.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.shared.threads.borrow().len()
    }

    /// Reports whether all threads of the pool have ended.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Kills the threads of the pool, and returns how many were still alive. Does not wait, and does not concern
    /// threads that are spawned later.
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
    /// In a thread of the pool. If the call would have to wait while the caller unwinds from a panic or kill. Unwinds
    /// with a kill or an expired [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in
    /// main on a deadlock.
    ///
    /// May switch: yes, unless all have ended.
    pub fn join(&self) {
        self.refuse_worker();
        self.shared.taken.wait();
    }

    /// Waits as [`join`](Self::join) does, but no longer than `limit`, and not at all while the caller unwinds; reports
    /// whether no slot is taken.
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

    /// Reports whether the calling thread is one of the pool's.
    fn is_worker(&self) -> bool {
        let me = try_root().map(|root| root.current().to_ref());
        me.is_some_and(|me| self.shared.threads.borrow().values().any(|thread| *thread == me))
    }

    /// Panics in a thread of the pool.
    fn refuse_worker(&self) {
        assert!(!self.is_worker(), "a green thread of a pool cannot wait for the end of all its threads");
    }

    /// Takes a slot, after waiting if none is free.
    pub(super) fn slot(&self) -> PoolSlot {
        PoolSlot::new(&self.shared, self.shared.slots.acquire())
    }

    /// Takes a slot, after waiting for at most `limit` if none is free.
    pub(super) fn slot_within(&self, limit: Duration) -> Option<PoolSlot> {
        Some(PoolSlot::new(&self.shared, self.shared.slots.acquire_timeout(limit)?))
    }

    /// Takes a slot, if one is free.
    pub(super) fn try_slot(&self) -> Option<PoolSlot> {
        Some(PoolSlot::new(&self.shared, self.shared.slots.acquire_if_free()?))
    }

    /// Returns where the next job can run, or none if the pool is full. With `wait`, waits for a slot if need be, or
    /// fails if the caller may not wait.
    pub(super) fn runner(&self, wait: bool) -> Result<Option<Runner>, JoinError> {
        if let Some(slot) = self.try_slot() {
            return Ok(Some(Runner::Thread(slot)));
        }
        if !wait {
            return Ok(None);
        }
        // A job of this pool may hold the last slot: a wait could be for the caller itself.
        if self.is_worker() {
            return Ok(Some(Runner::Caller));
        }
        refusal().map_or_else(|| Ok(Some(Runner::Thread(self.slot()))), Err)
    }
}

/// Returns the value of a job to a caller that has no use for an error, and panics in place of one.
#[track_caller]
pub(super) fn value_of<U>(result: Result<U, JoinError>) -> U {
    match result.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(payload)) => resume_unwind(payload),
        Err(Err(error)) => panic!("a job of a pool has no result: {error}"),
    }
}
