//! Many green threads at once: [`Group`], [`Pool`], [`join_all`], [`wait_any`], [`kill_all`].
//!
//! ```
//! use greenling::group::{Group, Pool, join_all};
//! use greenling::spawn;
//!
//! // A few threads, and all their results.
//! let handles = (1..=3).map(|n| spawn(move || n * n));
//! assert_eq!(join_all(handles).into_iter().map(Result::unwrap).sum::<i32>(), 14);
//!
//! // A group that grows, and results as they come.
//! let group = Group::new();
//! for n in 1..=3 {
//!     group.spawn(move || n);
//! }
//! while let Some(thread) = group.wait_any(1).pop() {
//!     assert!(thread.join().unwrap() <= 3);
//! }
//!
//! // Two at a time.
//! assert_eq!(Pool::new(2).map(1..=4, |n| n * n), [1, 4, 9, 16]);
//! ```
//!
//! | gevent | here | difference |
//! |---|---|---|
//! | `joinall`, `wait(objects, count)`, `killall` | [`join_all`], [`wait_any`], [`kill_all`] | results are `Result`s; `kill_all` does not wait |
//! | `Group` | [`Group`] | keeps the results until they are taken |
//! | `Pool` | [`Pool`] | `Pool::new(0)` is a panic, not a wait for ever |
//! | `Pool.map`, `imap`, `imap_unordered`, `apply` | same | `imap`s yield `Result`s, so that a panic of one job costs no other's result |
//! | `Greenlet.link` | [`JoinHandle::on_finish`] | |
//!
//! Threads whose lifetime should end with a block of code, or that borrow from it, belong in a
//! [`scope`](crate::thread::scope) or, if one failure should end all of them, a [`try_scope`](crate::thread::try_scope).
//!
//! Everything here stays on its OS thread. While a thread unwinds it cannot wait (see
//! [`thread`](crate::thread#how-a-thread-ends)): then `join_all` has an error for each thread that has not ended, `wait_any`
//! returns those that have, calls with a time limit return as if the time was up, and a [`Pool`] that is full panics.

mod pool;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use crate::switch::extras::Watch;
use crate::sync::{Semaphore, WaitGroup};
use crate::thread::{JoinError, JoinHandle, ThreadId, spawn};

pub use pool::{Imap, ImapUnordered, Pool, PoolFull};

use watch::{Finished, may_wait};

/// Joins all of them; the results are in the order of the handles.
///
/// # Panics
/// As [`JoinHandle::join`]. If the caller is interrupted, the handles are dropped and the threads go on.
///
/// May switch: yes, unless all have ended.
pub fn join_all<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<Result<T, JoinError>> {
    handles.into_iter().map(JoinHandle::join).collect()
}

/// Kills all of them, and says how many were still alive; see [`JoinHandle::kill`]. To wait for their end, [`join_all`].
///
/// May switch: no.
pub fn kill_all<'a, T: 'a>(handles: impl IntoIterator<Item = &'a JoinHandle<T>>) -> usize {
    handles.into_iter().filter(|handle| handle.kill()).count()
}

/// Waits until `count` of the threads have ended, or all if they are fewer, and takes their handles out of `handles`, in
/// the order in which they ended. Those that had ended before the call come first, in the order of `handles`.
///
/// ```
/// use greenling::{group::wait_any, sleep, spawn};
/// use std::time::Duration;
///
/// let mut handles: Vec<_> = [300, 0, 5].map(|ms| spawn(move || {
///     sleep(Duration::from_millis(ms));
///     ms
/// })).into();
/// let quick = wait_any(&mut handles, 2).into_iter().map(|thread| thread.join().unwrap());
/// assert!(quick.eq([0, 5]));
/// assert_eq!(handles.len(), 1); // the slow one
/// ```
///
/// If a kill or a timeout ends the wait, `handles` still has all of them.
///
/// # Panics
/// If it would have to wait for the calling thread itself. Unwinds with a kill or an expired [`timeout`](crate::timeout);
/// panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
///
/// May switch: yes, unless enough have ended.
pub fn wait_any<T: 'static>(handles: &mut Vec<JoinHandle<T>>, count: usize) -> Vec<JoinHandle<T>> {
    let count = count.min(handles.len());
    let finished = Rc::new(Finished::default());
    let mut order: Vec<usize> = (0..handles.len()).filter(|&at| handles[at].is_finished()).take(count).collect();
    if order.len() < count {
        refuse_own_end(handles.len() - count, handles.iter().filter(|handle| !handle.is_finished()));
        let watched = Watched::new(handles, &finished);
        finished.wait_for(count - order.len());
        drop(watched);
        order.extend(finished.tokens().into_iter().take(count - order.len()));
    }
    let mut slots: Vec<Option<JoinHandle<T>>> = mem::take(handles).into_iter().map(Some).collect();
    let taken = order.into_iter().filter_map(|at| slots[at].take()).collect();
    handles.extend(slots.into_iter().flatten());
    taken
}

/// Panics if the calling thread is among those whose end is waited for, and more than `spare` of them must end.
fn refuse_own_end<'a, T: 'a>(spare: usize, mut running: impl Iterator<Item = &'a JoinHandle<T>>) {
    assert!(spare > 0 || !running.any(JoinHandle::is_current), "a green thread cannot wait for its own end");
}

/// Handles that are watched until this is dropped.
struct Watched<'a, T> {
    /// Some of them had ended before.
    handles: &'a [JoinHandle<T>],
    /// Who is told.
    finished: Rc<dyn Watch>,
}

impl<'a, T> Watched<'a, T> {
    /// Each handle's token is its place.
    fn new(handles: &'a [JoinHandle<T>], finished: &Rc<Finished>) -> Watched<'a, T> {
        let watched = Watched { handles, finished: Rc::clone(finished) as Rc<dyn Watch> };
        for (at, handle) in handles.iter().enumerate() {
            if handle.watch(Rc::clone(&watched.finished), at as u64) {
                finished.expect_one();
            }
        }
        watched
    }
}

impl<T> Drop for Watched<'_, T> {
    fn drop(&mut self) {
        for (at, handle) in self.handles.iter().enumerate() {
            handle.unwatch(&self.finished, at as u64);
        }
        debug_assert_eq!(Rc::strong_count(&self.finished), 2, "only the caller of `wait_any` and this know it");
    }
}

/// Green threads that belong together, with their results.
///
/// A group keeps the handle of each thread, and so its result and its stack, until [`wait_any`](Self::wait_any) or
/// [`join_all`](Self::join_all) takes it: threads that nobody collects belong in a [`Pool`]. Dropping the group detaches its
/// threads, as dropping handles does; kill them before if they should end.
///
/// ```
/// use greenling::{group::Group, sleep};
/// use std::time::Duration;
///
/// let group = Group::new();
/// group.spawn(|| sleep(Duration::from_secs(3600)));
/// let quick = group.spawn(|| ());
/// let first = group.wait_any(1).pop().unwrap();
/// assert_eq!(first.thread().id(), quick);
/// assert!(!group.join_timeout(Duration::from_millis(1)));
/// assert_eq!(group.kill_all(), 1);
/// assert!(group.join_all()[0].as_ref().unwrap_err().is_killed());
/// assert!(group.is_empty());
/// ```
pub struct Group<T: 'static> {
    /// The rest, which its threads know.
    shared: Rc<Shared<T>>,
}

/// See [`Group`].
struct Shared<T> {
    /// Those that have not ended, by the number in which they came.
    running: RefCell<BTreeMap<u64, JoinHandle<T>>>,
    /// Those that have, with their number, in the order in which they ended.
    ended: RefCell<VecDeque<(u64, JoinHandle<T>)>>,
    /// The last number given.
    last: Cell<u64>,
    /// How many have not ended; for those who wait for all.
    left: WaitGroup,
    /// One at a time waits for some: who came first is served first.
    turn: Semaphore,
    /// Set when one ends; who has the turn waits for it.
    changed: crate::sync::Event,
}

impl<T> Watch for Shared<T> {
    fn ended(self: Rc<Self>, token: u64) {
        let handle = self.running.borrow_mut().remove(&token);
        // It is not there if the group was dropped.
        if let Some(handle) = handle {
            self.ended.borrow_mut().push_back((token, handle));
        }
        self.left.done();
        self.changed.set();
    }
}

impl<T: 'static> Group<T> {
    /// An empty one.
    ///
    /// May switch: no.
    pub fn new() -> Group<T> {
        let shared = Shared {
            running: RefCell::default(),
            ended: RefCell::default(),
            last: Cell::new(0),
            left: WaitGroup::new(),
            turn: Semaphore::new(1),
            changed: crate::sync::Event::auto_reset(),
        };
        Group { shared: Rc::new(shared) }
    }

    /// Spawns a thread in the group; see [`crate::spawn`].
    ///
    /// # Panics
    /// As [`crate::spawn`].
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn(&self, f: impl FnOnce() -> T + 'static) -> ThreadId {
        self.add(spawn(f))
    }

    /// Takes a thread into the group, running or not.
    ///
    /// May switch: no.
    pub fn add(&self, handle: JoinHandle<T>) -> ThreadId {
        let (shared, id) = (&self.shared, handle.id());
        let number = shared.last.get() + 1;
        shared.last.set(number);
        if handle.watch(Rc::clone(shared) as Rc<dyn Watch>, number) {
            shared.left.add(1);
            shared.running.borrow_mut().insert(number, handle);
        } else {
            shared.ended.borrow_mut().push_back((number, handle));
            shared.changed.set();
        }
        id
    }

    /// How many threads it has, running and ended, whose results were not taken.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.running() + self.shared.ended.borrow().len()
    }

    /// Whether it has none.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of its threads have not ended.
    ///
    /// May switch: no.
    pub fn running(&self) -> usize {
        self.shared.running.borrow().len()
    }

    /// Kills all its threads, and says how many were still alive. It does not wait, and does not concern threads that come
    /// later.
    ///
    /// May switch: no.
    pub fn kill_all(&self) -> usize {
        kill_all(self.shared.running.borrow().values())
    }

    /// Waits until no thread of the group is running, and takes all results, in the order in which the threads came.
    ///
    /// If the caller is interrupted, they all stay in the group.
    ///
    /// # Panics
    /// If the calling thread is one of them. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless all have ended.
    pub fn join_all(&self) -> Vec<Result<T, JoinError>> {
        self.refuse_own_end(0);
        if self.running() > 0 && may_wait() {
            self.shared.left.wait();
        }
        let mut all: Vec<_> = self.shared.ended.take().into();
        // Empty, unless it was not allowed to wait: then these have an error.
        all.extend(self.shared.running.take());
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, handle)| handle.join()).collect()
    }

    /// Waits until no thread of the group is running, but no longer than `limit`; says whether none is. The results stay in
    /// the group.
    ///
    /// # Panics
    /// If the calling thread is one of them. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, unless all have ended.
    pub fn join_timeout(&self, limit: Duration) -> bool {
        self.refuse_own_end(0);
        self.shared.left.wait_timeout(limit)
    }

    /// Waits until `count` threads of the group have ended, or all if they are fewer, and takes them out of the group, in
    /// the order in which they ended. Of several callers the one that came first is served first.
    ///
    /// If the caller is interrupted, they all stay in the group.
    ///
    /// # Panics
    /// If it would have to wait for the calling thread itself. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless enough have ended.
    pub fn wait_any(&self, count: usize) -> Vec<JoinHandle<T>> {
        let shared = &self.shared;
        let enough = || shared.ended.borrow().len() >= count || shared.running.borrow().is_empty();
        let turn = shared.turn.try_acquire();
        if count > 0 && (turn.is_none() || !enough()) && may_wait() {
            self.refuse_own_end(self.len().saturating_sub(count));
            let _turn = turn.unwrap_or_else(|| shared.turn.acquire());
            while !enough() {
                shared.changed.wait();
            }
            // With the turn, which the next one may take from here on.
            return self.take(count);
        }
        self.take(count)
    }

    /// Takes out at most `count` that have ended.
    fn take(&self, count: usize) -> Vec<JoinHandle<T>> {
        let mut ended = self.shared.ended.borrow_mut();
        let count = count.min(ended.len());
        ended.drain(..count).map(|(_, handle)| handle).collect()
    }

    /// Panics if the calling thread is one of the group, and must end for all but `spare` to have ended.
    fn refuse_own_end(&self, spare: usize) {
        refuse_own_end(spare, self.shared.running.borrow().values());
    }
}

impl<T: 'static> Default for Group<T> {
    fn default() -> Self {
        Group::new()
    }
}

impl<T: 'static> Extend<JoinHandle<T>> for Group<T> {
    fn extend<I: IntoIterator<Item = JoinHandle<T>>>(&mut self, handles: I) {
        for handle in handles {
            self.add(handle);
        }
    }
}

impl<T: 'static> FromIterator<JoinHandle<T>> for Group<T> {
    fn from_iter<I: IntoIterator<Item = JoinHandle<T>>>(handles: I) -> Self {
        let mut group = Group::new();
        group.extend(handles);
        group
    }
}

impl<T: 'static> Drop for Group<T> {
    fn drop(&mut self) {
        // Here, and not when the last thread ends and drops the rest: results are foreign code.
        let (running, ended) = (self.shared.running.take(), self.shared.ended.take());
        drop((running, ended));
    }
}

impl<T: 'static> fmt::Debug for Group<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("running", &self.running()).field("len", &self.len()).finish_non_exhaustive()
    }
}
