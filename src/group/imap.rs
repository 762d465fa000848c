//! Jobs for the items of an iterator, in a [`Pool`]: `map`, [`Imap`] and [`ImapUnordered`].
#![forbid(unsafe_code)]

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::members::Group;
use super::pool::{Pool, PoolSlot, Runner, value_of};
use super::wait::wait_any;
use crate::pure::drops::{Each, collect_each, drop_each};
use crate::switch::cancel::is_control;
use crate::thread::{Builder, JoinError, JoinHandle};

/// How the jobs of a pool start.
pub(super) trait Start<F, T, U> {
    /// Makes sure that the next job can be started.
    fn reserve() -> io::Result<()>;

    /// Runs `f` on `item` in a thread that owns the slot, and of which reports say that it was spawned at `site`.
    fn start(site: &'static Location<'static>, slot: PoolSlot, f: Rc<F>, item: T) -> JoinHandle<U>;
}

/// How the jobs of a [`Pool`] start.
struct Light;

impl<F, T, U> Start<F, T, U> for Light
where
    F: Fn(T) -> U + 'static,
    T: 'static,
    U: 'static,
{
    fn reserve() -> io::Result<()> {
        Builder::new().reserve()
    }

    #[track_caller]
    fn start(site: &'static Location<'static>, slot: PoolSlot, f: Rc<F>, item: T) -> JoinHandle<U> {
        slot.spawn_at(site, move || f(item))
    }
}

impl Pool {
    /// Runs `f` on all items in the pool and returns the results in the order of the items, when all are there.
    ///
    /// An item is taken when there is a slot for it. If jobs panic, the others run all the same, and then the first
    /// panic, in the order of the items, goes on in the caller; to get the results of the others use
    /// [`imap`](Self::imap). If the caller is interrupted, jobs that run go on, and nothing new is started.
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
        self.map_by::<Light, _, _, _>(items.into_iter(), f)
    }

    /// Does the work of `map`, with jobs that start as `S` does.
    #[track_caller]
    pub(super) fn map_by<S, I, F, U>(&self, mut items: I, f: F) -> Vec<U>
    where
        S: Start<F, I::Item, U>,
        I: Iterator,
        F: Fn(I::Item) -> U,
    {
        let f = Rc::new(f);
        let mut jobs: Vec<Result<JoinHandle<U>, Result<U, JoinError>>> = Vec::new();
        loop {
            // A slot first, then the item for it: an item that was taken has a place to run.
            let runner = match self.runner(true) {
                Ok(runner) => runner,
                Err(refusal) => panic!("a pool is full: {refusal}"),
            };
            let Some(item) = items.next() else { break };
            jobs.push(match runner {
                Some(Runner::Thread(slot)) => Ok(S::start(Location::caller(), slot, Rc::clone(&f), item)),
                _ => Err(run_here(|| f(item))),
            });
        }
        // Join all of them, before any panic goes on.
        let jobs = Each(jobs.into_iter()).map(|job| job.map_or_else(|done| done, JoinHandle::join));
        let results = Each(collect_each(jobs).into_iter());
        let values = collect_each(results.map(value_of));
        // Drop these before the values are on their way out, where a destructor that unwinds would leak the values
        // (rust-lang/rust#47949).
        drop(f);
        drop(items);
        values
    }

    /// Returns an iterator over the results of `f` on the items, in the order of the items. The iterator takes items
    /// only when results are asked for: at most as many results as the pool has slots are in work or there already.
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
    /// A job that panics or is killed, or for which no stack can be had although none of the jobs runs any more, yields
    /// a [`JoinError`] in place of its result. Dropping the iterator leaves jobs that run alone. If `next` is
    /// interrupted, no result is lost. While the caller unwinds, `next` yields an error for a result that it would have
    /// to wait for, and then nothing.
    ///
    /// May switch: no; `next` may, and panics as [`spawn`](Self::spawn) does.
    #[track_caller]
    pub fn imap<I, F, U>(&self, items: I, f: F) -> Imap<'_, I::IntoIter, F, U>
    where
        I: IntoIterator,
        I::Item: 'static,
        F: Fn(I::Item) -> U + 'static,
        U: 'static,
    {
        Imap::new(self, items.into_iter(), f)
    }

    /// Returns an iterator as [`imap`](Self::imap) does, but over the results in the order in which the jobs end.
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
    #[track_caller]
    pub fn imap_unordered<I, F, U>(&self, items: I, f: F) -> ImapUnordered<'_, I::IntoIter, F, U>
    where
        I: IntoIterator,
        I::Item: 'static,
        F: Fn(I::Item) -> U + 'static,
        U: 'static,
    {
        ImapUnordered::new(self, items.into_iter(), f)
    }
}

/// Runs a job in the calling thread, with the outcome that a thread of its own would have.
fn run_here<U>(f: impl FnOnce() -> U) -> Result<U, JoinError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload: Box<dyn Any + Send>| {
        // A kill or an expired timeout is meant for the caller.
        if is_control(&*payload) { resume_unwind(payload) } else { JoinError::panicked(payload) }
    })
}

/// The source of the jobs of an `imap`.
struct Feed<'a, I, F> {
    /// The pool that the jobs run in.
    pool: &'a Pool,
    /// The items of the jobs to come, until they are exhausted.
    items: Option<I>,
    /// The function that the jobs run.
    f: Rc<F>,
    /// The place that asked for the results.
    site: &'static Location<'static>,
}

impl<'a, I, F> Feed<'a, I, F> {
    /// Makes the source of jobs that run `f` on the items.
    #[track_caller]
    fn new(pool: &'a Pool, items: I, f: F) -> Feed<'a, I, F> {
        Feed { pool, items: Some(items), f: Rc::new(f), site: Location::caller() }
    }

    /// Starts the next job, if there is one and a slot for it. With `wait`, waits for a slot, or runs the job in the
    /// caller and returns its result; a caller that may not wait gets an error, and the iteration ends.
    fn start<S, U>(&mut self, wait: bool) -> Option<Result<JoinHandle<U>, Result<U, JoinError>>>
    where
        S: Start<F, I::Item, U>,
        I: Iterator,
        F: Fn(I::Item) -> U,
    {
        let items = self.items.as_mut()?;
        // A slot and a stack first: an item that was taken must run.
        let runner = match self.pool.runner(wait) {
            Ok(runner) => runner?,
            Err(refusal) => {
                self.items = None;
                return Some(Err(Err(refusal)));
            }
        };
        let stack = match runner {
            Runner::Thread(_) => S::reserve(),
            Runner::Caller => Ok(()),
        };
        if stack.is_err() && !wait {
            // The jobs that run give their stacks back.
            return None;
        }
        let Some(item) = items.next() else {
            self.items = None;
            return None;
        };
        if let Err(error) = stack {
            return Some(Err(Err(JoinError::refused(error))));
        }
        Some(match runner {
            Runner::Thread(slot) => Ok(S::start(self.site, slot, Rc::clone(&self.f), item)),
            Runner::Caller => Err(run_here(|| (self.f)(item))),
        })
    }
}

/// The iterator of [`Pool::imap`].
pub struct Imap<'a, I, F, U> {
    feed: Feed<'a, I, F>,
    /// The job that has the next result, once the iterator waits for it.
    first: Vec<JoinHandle<U>>,
    /// The jobs after `first`.
    jobs: VecDeque<JoinHandle<U>>,
}

impl<'a, I, F, U: 'static> Imap<'a, I, F, U> {
    /// Makes the iterator, before the first job.
    #[track_caller]
    pub(super) fn new(pool: &'a Pool, items: I, f: F) -> Imap<'a, I, F, U> {
        Imap { feed: Feed::new(pool, items, f), first: Vec::new(), jobs: VecDeque::new() }
    }

    /// Does the work of `next`, with jobs that start as `S` does.
    pub(super) fn next_by<S>(&mut self) -> Option<Result<U, JoinError>>
    where
        S: Start<F, I::Item, U>,
        I: Iterator,
        F: Fn(I::Item) -> U,
    {
        // Fill the pool, but wait for a slot only if there is nothing else to wait for.
        loop {
            let waiting = self.first.len() + self.jobs.len();
            if waiting == self.feed.pool.capacity() {
                break;
            }
            match self.feed.start::<S, U>(waiting == 0) {
                Some(Ok(job)) => self.jobs.push_back(job),
                Some(Err(done)) => return Some(done),
                None => break,
            }
        }
        if self.first.is_empty() {
            self.first.extend(self.jobs.pop_front());
        }
        // Two steps, so that an interrupted wait does not lose the job.
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

impl<I, F, U> Iterator for Imap<'_, I, F, U>
where
    I: Iterator,
    I::Item: 'static,
    F: Fn(I::Item) -> U + 'static,
    U: 'static,
{
    type Item = Result<U, JoinError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_by::<Light>()
    }
}

/// The iterator of [`Pool::imap_unordered`].
pub struct ImapUnordered<'a, I, F, U: 'static> {
    feed: Feed<'a, I, F>,
    /// The jobs that were started.
    jobs: Group<U>,
}

impl<'a, I, F, U> ImapUnordered<'a, I, F, U> {
    /// Makes the iterator, before the first job.
    #[track_caller]
    pub(super) fn new(pool: &'a Pool, items: I, f: F) -> ImapUnordered<'a, I, F, U> {
        ImapUnordered { feed: Feed::new(pool, items, f), jobs: Group::new() }
    }

    /// Does the work of `next`, with jobs that start as `S` does.
    pub(super) fn next_by<S>(&mut self) -> Option<Result<U, JoinError>>
    where
        S: Start<F, I::Item, U>,
        I: Iterator,
        F: Fn(I::Item) -> U,
    {
        // Fill the pool, but wait for a slot only if there is nothing else to wait for.
        while self.jobs.len() < self.feed.pool.capacity() {
            match self.feed.start::<S, U>(self.jobs.is_empty()) {
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
                // Nothing is left, or the caller may not wait.
                self.feed.items = None;
                let mut results = self.jobs.join_all();
                let result = results.pop();
                drop_each(results.into_iter());
                result
            }
        }
    }
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
        self.next_by::<Light>()
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
