//! [`Group`]: green threads that belong together, with their results.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::wait::{kill_all, may_wait, refuse_own_end};
use crate::pure::drops::collect_each;
use crate::switch::extras::EndListener;
use crate::sync::{Event, Semaphore, WaitGroup};
use crate::thread::{JoinError, JoinHandle, ThreadId, spawn};

/// Green threads that belong together, with their results.
///
/// A group keeps the handle of each thread, and so the result and the stack, until [`wait_any`](Self::wait_any) or
/// [`join_all`](Self::join_all) takes the handle: threads
/// with results that are never collected belong in a [`Pool`](super::Pool). Dropping the group detaches its threads, as
/// dropping handles does; kill them before if they should end.
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
///
/// A thread with thread-locals of its own is spawned by its builder and added:
///
/// ```
/// use greenling::{group::Group, thread::Builder};
///
/// # if greenling::thread::own_thread_locals_supported().is_err() { return Ok(()); }
/// let group = Group::new();
/// group.add(Builder::new().own_thread_locals().spawn(|| std::thread::current().id())?);
/// group.spawn(|| std::thread::current().id());
/// let ids = group.join_all();
/// assert_ne!(ids[0].as_ref().unwrap(), ids[1].as_ref().unwrap());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Group<T: 'static> {
    /// What the group shares with the listeners on its threads.
    shared: Rc<GroupState<T>>,
}

/// The members of a [`Group`], and what its waiters need.
struct GroupState<T> {
    /// The threads that have not ended, by the number in which they came.
    running: RefCell<BTreeMap<u64, JoinHandle<T>>>,
    /// The threads that have ended, with their numbers, in the order of their ends.
    ended: RefCell<VecDeque<(u64, JoinHandle<T>)>>,
    /// The last number given out.
    last: Cell<u64>,
    /// Counts the threads that have not ended, for callers that wait for all.
    left: WaitGroup,
    /// One permit: one caller at a time waits for some, and the one that came first is served first.
    turn: Semaphore,
    /// Set when a thread ends; the caller that holds `turn` waits for this.
    changed: Event,
}

impl<T> EndListener for GroupState<T> {
    fn ended(self: Rc<Self>, token: u64) {
        let handle = self.running.borrow_mut().remove(&token);
        // The handle is gone if the group was dropped.
        if let Some(handle) = handle {
            self.ended.borrow_mut().push_back((token, handle));
        }
        self.left.done();
        self.changed.set();
    }
}

impl<T: 'static> Group<T> {
    /// Makes an empty group.
    ///
    /// May switch: no.
    pub fn new() -> Group<T> {
        let shared = GroupState {
            running: RefCell::default(),
            ended: RefCell::default(),
            last: Cell::new(0),
            left: WaitGroup::new(),
            turn: Semaphore::new(1),
            changed: Event::auto_reset(),
        };
        Group { shared: Rc::new(shared) }
    }

    /// Spawns a thread in the group; see [`crate::spawn`].
    ///
    /// # Panics
    /// As [`crate::spawn`]; for an error instead, [`add`](Self::add) what
    /// [`Builder::spawn`](crate::thread::Builder::spawn) returns.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn(&self, f: impl FnOnce() -> T + 'static) -> ThreadId {
        self.add(spawn(f))
    }

    /// Adds a thread to the group, running or not.
    ///
    /// May switch: no.
    pub fn add(&self, handle: JoinHandle<T>) -> ThreadId {
        let (shared, id) = (&self.shared, handle.id());
        // The token of the listener is the number in the order of arrival.
        let number = shared.last.get() + 1;
        shared.last.set(number);
        if handle.add_listener(Rc::clone(shared) as Rc<dyn EndListener>, number) {
            shared.left.add(1);
            shared.running.borrow_mut().insert(number, handle);
        } else {
            shared.ended.borrow_mut().push_back((number, handle));
            shared.changed.set();
        }
        id
    }

    /// Returns how many threads are in the group, running and ended; those with results that were taken do not count.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.running() + self.shared.ended.borrow().len()
    }

    /// Reports whether the group is empty.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many threads of the group have not ended.
    ///
    /// May switch: no.
    pub fn running(&self) -> usize {
        self.shared.running.borrow().len()
    }

    /// Kills all threads of the group, and returns how many were still alive. Does not wait, and does not concern
    /// threads that are added later.
    ///
    /// May switch: no.
    pub fn kill_all(&self) -> usize {
        kill_all(self.shared.running.borrow().values())
    }

    /// Waits until no thread of the group is running, and takes all results, in the order in which the threads came.
    ///
    /// If the caller is interrupted, all results stay in the group.
    ///
    /// # Panics
    /// If the calling thread is in the group. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics
    /// inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless all have ended.
    pub fn join_all(&self) -> Vec<Result<T, JoinError>> {
        self.refuse_own_end(0);
        if self.running() > 0 && may_wait() {
            self.shared.left.wait();
        }
        let mut all: Vec<_> = self.shared.ended.take().into();
        // None are left, unless the caller may not wait: then each of these yields an error.
        all.extend(self.shared.running.take());
        all.sort_unstable_by_key(|(number, _)| *number);
        collect_each(all.into_iter().map(|(_, handle)| handle.join()))
    }

    /// Waits until no thread of the group is running, but no longer than `limit`; reports whether none is. The results
    /// stay in the group.
    ///
    /// # Panics
    /// If the calling thread is in the group. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics
    /// inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, unless all have ended.
    pub fn join_timeout(&self, limit: Duration) -> bool {
        self.refuse_own_end(0);
        self.shared.left.wait_timeout(limit)
    }

    /// Waits until `count` threads of the group have ended, or all if they are fewer, and takes them out of the group,
    /// in the order in which they ended. Of several callers the one that came first is served first.
    ///
    /// If the caller is interrupted, all threads stay in the group.
    ///
    /// # Panics
    /// If the call would have to wait for the calling thread itself. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless enough have ended.
    pub fn wait_any(&self, count: usize) -> Vec<JoinHandle<T>> {
        let shared = &self.shared;
        let enough = || shared.ended.borrow().len() >= count || shared.running.borrow().is_empty();
        // Wait only if there are not enough, or if an earlier caller waits.
        let turn = shared.turn.acquire_if_free();
        if count > 0 && (turn.is_none() || !enough()) && may_wait() {
            self.refuse_own_end(self.len().saturating_sub(count));
            let _turn = turn.unwrap_or_else(|| shared.turn.acquire());
            while !enough() {
                shared.changed.wait();
            }
            // Take the threads while the turn is held, so that the next caller cannot take them.
            return self.take(count);
        }
        self.take(count)
    }

    /// Takes at most `count` ended threads out of the group.
    fn take(&self, count: usize) -> Vec<JoinHandle<T>> {
        let mut ended = self.shared.ended.borrow_mut();
        let count = count.min(ended.len());
        ended.drain(..count).map(|(_, handle)| handle).collect()
    }

    /// Panics if the calling thread is in the group, and must end for all but `spare` to have ended.
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
        // Drop the handles here, not when the last thread ends and drops the rest: results are foreign code.
        let (running, ended) = (self.shared.running.take(), self.shared.ended.take());
        drop((running, ended));
    }
}

impl<T: 'static> fmt::Debug for Group<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("running", &self.running()).field("len", &self.len()).finish_non_exhaustive()
    }
}
