//! A bounded pool of OS threads, and the wait of a green thread for its job there.
//!
//! ```text
//!   green thread                    State (behind a lock)                 OS threads, `max_threads` at most
//!   run: task -------------------> queue: [7] [8] [9] ..  --------------> pop, run, leave the result
//!        park(Job)                 idle:  2   threads: 5                        |
//!        take the result <---------- Task (shared by the two) <-----------------'
//!                      ^------------ Letter::Wake through the hub's mail
//! ```
//!
//! * An OS thread is started when a job comes and none is idle, until there are `max_threads`; then jobs wait in order.
//!   One that has had no job for a while ends.
//! * A caller that is killed or times out takes its job out of the queue. A job that has begun cannot be stopped: it goes
//!   on, and its result is dropped.
//! * Invariant O1: `threads` counts the OS threads that will look into `queue` again before they end, `idle` those of them
//!   that wait for `work`. Upheld by `submit` and `work`, under the lock.
//! * Invariant O2: a job in the queue has a thread that will come to it: for as many jobs as there are idle threads `work`
//!   was rung, and if there are more, `threads` is not 0. Upheld by `submit`.
//! * Invariant O3: numbers in the queue ascend, so that a job is found by its number. Upheld by `submit`, the only one that
//!   pushes.
//!
//! The lock is held for a push or a pop; no foreign code runs under it.
//!
//! Signals are none of the pool's business: an OS thread that has not blocked a signal may be given it, and a SIGTERM that
//! a [`Signals`](crate::signal::Signals) of the program waits for would end the process there. So the pool's OS threads are
//! started with everything blocked, and stay so for what this crate asks of them; a job of the program's has blocked what
//! its caller has, which the children that it starts inherit.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::job::{Ended, Job, Task};
use crate::runtime::hub::{ending, hub_of};
use crate::runtime::park::{Counted, NEVER, park};
use crate::runtime::remote::{Waiter, lock};
use crate::runtime::report::label_of;
use crate::switch::cancel;
use crate::switch::fiber::Reason;
use crate::switch::root::try_root;
use crate::sys::fork::fork_generation;
use crate::sys::signalfd::SignalSet;

/// Settings of a [`ThreadPool`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    /// OS threads at once.
    max_threads: usize,
    /// Jobs that may wait when `try_run` is called.
    queue_limit: usize,
    /// How long a thread waits for a job before it ends.
    idle: Duration,
    /// What its threads are called.
    name: String,
}

impl Builder {
    /// Four OS threads for each processor that the process may use, eight at least; 1024 jobs may wait; an OS thread ends
    /// after 5 seconds without a job; they are called `greenling-job`.
    ///
    /// Four, because most jobs wait for a disk more than they compute; not more, because those that compute would take
    /// the processors from the hubs.
    pub fn new() -> Builder {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Builder {
            max_threads: (4 * processors).max(8),
            queue_limit: 1024,
            idle: Duration::from_secs(5),
            name: String::from("greenling-job"),
        }
    }

    /// At most `count` OS threads at once.
    ///
    /// # Panics
    /// If `count` is 0: no job would ever run.
    pub fn max_threads(mut self, count: usize) -> Builder {
        assert!(count > 0, "a pool without OS threads");
        self.max_threads = count;
        self
    }

    /// Beyond `limit` jobs that wait for an OS thread, [`ThreadPool::try_run`] refuses. With 0, a job is begun at once or
    /// not at all.
    pub fn queue_limit(mut self, limit: usize) -> Builder {
        self.queue_limit = limit;
        self
    }

    /// An OS thread that has had no job for `time` ends.
    pub fn idle_time(mut self, time: Duration) -> Builder {
        self.idle = time;
        self
    }

    /// What its OS threads are called. The kernel keeps the first 15 bytes.
    ///
    /// # Panics
    /// If `name` contains a zero byte.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = name.into();
        assert!(!self.name.contains('\0'), "a thread's name cannot contain a zero byte");
        self
    }

    /// Makes the pool. It has no OS thread yet.
    pub fn build(self) -> ThreadPool {
        let shared = Shared {
            settings: self,
            // Relaxed: it only has to differ.
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            generation: fork_generation(),
            state: Mutex::new(State::default()),
            work: Condvar::new(),
        };
        ThreadPool { open: Arc::new(Open(Arc::new(shared))) }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

/// Numbers given to pools so far.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The number of the pool that this OS thread belongs to; 0 for none.
    static WORKS_FOR: Cell<u64> = const { Cell::new(0) };
}

/// A bounded pool of OS threads for code that blocks or computes: the green thread waits, the hub goes on.
///
/// A clone is another handle of the same pool; any OS thread may use it, with or without a hub.
///
/// ```
/// use greenling::{offload::ThreadPool, thread};
///
/// let two = ThreadPool::builder().max_threads(2).build();
/// thread::scope(|s| {
///     for n in 0..10_u64 {
///         let pool = two.clone();
///         s.spawn(move || assert_eq!(pool.run(move || n * n), n * n)); // two at a time
///     }
/// });
/// assert_eq!(two.stats().completed, 10);
/// ```
///
/// When the last handle is dropped its OS threads end, each after the job it has.
#[derive(Clone)]
pub struct ThreadPool {
    /// The last clone's drop closes the pool.
    open: Arc<Open>,
}

/// Counters of a [`ThreadPool`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// OS threads now.
    pub threads: usize,
    /// Those of them without a job.
    pub idle: usize,
    /// Jobs that wait for an OS thread.
    pub queued: usize,
    /// Jobs that run now, also those that nobody waits for any more.
    pub running: usize,
    /// Jobs that ended while their caller waited, with a result or a panic.
    pub completed: u64,
    /// Jobs that were given up before they began, because their caller was killed or timed out.
    pub cancelled: u64,
    /// Jobs that were given up while they ran, and have ended since.
    pub abandoned: u64,
    /// Jobs that panicked; each is completed or abandoned, too.
    pub panicked: u64,
}

/// Why a pool did not take a job.
#[derive(Debug)]
pub struct RunError {
    /// What happened.
    kind: Kind,
}

/// See [`RunError`].
#[derive(Debug)]
enum Kind {
    /// Too many wait.
    Full,
    /// No OS thread could be started, and there is none.
    NoThread(io::Error),
    /// The caller cannot wait.
    Refused(io::Error),
    /// The caller's OS thread is ending: there is nobody whom a blocking call could hold up.
    Ending,
}

impl RunError {
    /// Whether [`ThreadPool::try_run`] found as many jobs waiting as may wait.
    pub fn is_full(&self) -> bool {
        matches!(self.kind, Kind::Full)
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Full => f.write_str("the queue of the pool is full"),
            Kind::NoThread(error) => write!(f, "no OS thread could be started: {error}"),
            Kind::Refused(error) => error.fmt(f),
            Kind::Ending => ending().fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

impl From<RunError> for io::Error {
    fn from(error: RunError) -> io::Error {
        match error.kind {
            Kind::Full => io::Error::new(io::ErrorKind::WouldBlock, error),
            Kind::NoThread(error) | Kind::Refused(error) => error,
            Kind::Ending => ending(),
        }
    }
}

impl ThreadPool {
    /// A pool with the settings of [`Builder::new`].
    ///
    /// May switch: no.
    pub fn new() -> ThreadPool {
        Builder::new().build()
    }

    /// Settings for a pool.
    ///
    /// May switch: no.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Runs `f` on one of the pool's OS threads and returns its result; the green thread waits, others run.
    ///
    /// If all OS threads have a job, the caller waits its turn, first come, first served, however many wait. See
    /// [`blocking`](super::blocking) for what becomes of a job whose caller is killed, and of its panics.
    ///
    /// Called by a job of the same pool, `f` runs at once, in place: it is on an OS thread that may block already, and if
    /// all jobs waited for others none would ever end.
    ///
    /// # Panics
    /// With the panic of `f`. If the caller unwinds from a panic or kill and so cannot wait, in the child of a fork, and if
    /// no OS thread can be started and there is none. Unwinds with a kill or an expired [`timeout`](crate::timeout), and
    /// panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes. When the OS thread is ending, `f` runs on it.
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.offer("a job", false, as_the_caller(f)) {
            Ok(result) => result,
            Err((RunError { kind: Kind::Ending }, f)) => f(),
            Err((error, f)) => {
                drop(f);
                refused(&error, Location::caller())
            }
        }
    }

    /// [`run`](Self::run), but an error where that would panic, and when the queue is full: to shed load.
    ///
    /// # Errors
    /// [`RunError`]: as many jobs wait as [may](Builder::queue_limit); no OS thread could be started; the caller unwinds or
    /// its OS thread is ending; the child of a fork. `f` was not run and is dropped.
    ///
    /// # Panics
    /// With the panic of `f`. Unwinds with a kill or an expired [`timeout`](crate::timeout), and panics inside
    /// [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes, if the job is taken.
    pub fn try_run<F, T>(&self, f: F) -> Result<T, RunError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.offer("a job", true, as_the_caller(f)).map_err(|(error, _)| error)
    }

    /// Its counters.
    ///
    /// May switch: no.
    pub fn stats(&self) -> Stats {
        if !self.is_of_this_process() {
            // The lock may be held for ever in this copy.
            return Stats::default();
        }
        let state = lock(&self.shared().state);
        Stats { threads: state.threads, idle: state.idle, queued: state.queue.len(), ..state.totals }
    }

    /// What the handles and the OS threads share.
    fn shared(&self) -> &Arc<Shared> {
        &self.open.0
    }

    /// Whether it was made by this process, not by one that it was forked from.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.shared().generation == fork_generation()
    }

    /// Runs `f` on an OS thread and waits for it; `what` it is, for reports. `at_once`: refuses if too many wait.
    ///
    /// # Errors
    /// Why it was not taken, and `f`.
    ///
    /// # Panics
    /// As [`run`](Self::run), but for the refusals.
    pub(crate) fn offer<F, T>(&self, what: &'static str, at_once: bool, f: F) -> Result<T, (RunError, F)>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let shared = self.shared();
        if WORKS_FOR.get() == shared.number {
            return Ok(f());
        }
        let Some(root) = try_root() else { return Err((RunError { kind: Kind::Ending }, f)) };
        let hub = match hub_of(root) {
            Ok(hub) if self.is_of_this_process() => hub,
            Ok(_) => return Err((RunError { kind: Kind::Refused(io::Error::other(cancel::FORKED)) }, f)),
            Err(error) => return Err((RunError { kind: Kind::Refused(error) }, f)),
        };
        if let Some(obstacle) = cancel::obstacle() {
            return Err((RunError { kind: Kind::Refused(io::Error::other(obstacle.to_string())) }, f));
        }
        let me = root.current();
        if me.attention.get() != 0 {
            // A kill that is due comes before the job begins.
            cancel::before_suspension(root, me);
        }
        let _counted = Counted::in_count(&hub.jobs);
        let task = Arc::new(Task::new(f, Waiter::new(root, hub, me)));
        let number = match shared.submit(Arc::clone(&task) as Arc<dyn Job>, at_once) {
            Ok(number) => number,
            Err(error) => match task.take_back() {
                Some(f) => return Err((error, f)),
                None => unreachable!("nobody else has a job that was not taken"),
            },
        };
        let place = Place { shared, task: &task, number };
        loop {
            if let Some(result) = task.take() {
                std::mem::forget(place);
                match result {
                    Ok(value) => return Ok(value),
                    Err(payload) => cancel::raise(Some(me), payload),
                }
            }
            if park(root, hub, me, Reason::Job(what), NEVER).is_err() {
                unreachable!("it did not unwind before, and a thread that waits does not begin to");
            }
        }
    }
}

/// A job of the program's: `f` with those signals blocked that are blocked here, in its caller.
fn as_the_caller<F, T>(f: F) -> impl FnOnce() -> T + Send + 'static
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // Neither call fails; if one did, `f` would run with all signals blocked.
    let blocked = SignalSet::blocked_here().ok();
    move || {
        let _blocked = blocked.and_then(|blocked| blocked.block_only().ok());
        f()
    }
}

/// Panics with who could not have what run, and why.
#[cold]
#[inline(never)]
fn refused(error: &RunError, at: &Location<'_>) -> ! {
    let who = try_root().map_or_else(|| String::from("main"), |root| label_of(root.current().id.get()).to_string());
    panic!("greenling: {who} cannot run a job on another OS thread (at {at}): {error}");
}

impl Default for ThreadPool {
    fn default() -> Self {
        ThreadPool::new()
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("settings", &self.shared().settings)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The handles' part of a pool.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.generation == fork_generation() {
            lock(&self.0.state).closed = true;
            self.0.work.notify_all();
        }
    }
}

/// A pool.
struct Shared {
    /// As the builder left them.
    settings: Builder,
    /// Unique in the process.
    number: u64,
    /// The process it belongs to, as a count of forks: its threads are not in a child.
    generation: u32,
    /// See [`State`].
    state: Mutex<State>,
    /// Rung once for each job that an idle thread should take.
    work: Condvar,
}

/// What changes in a pool.
#[derive(Default)]
struct State {
    /// Not begun (O2, O3).
    queue: VecDeque<(u64, Arc<dyn Job>)>,
    /// The number of the next job.
    next: u64,
    /// OS threads (O1).
    threads: usize,
    /// Those without a job (O1).
    idle: usize,
    /// No handle is left.
    closed: bool,
    /// What is counted as it happens: `running` and the totals. The rest is filled in by `stats`.
    totals: Stats,
}

impl Shared {
    /// Hands a job to an idle thread, to a new one, or to the next that is done. Returns its number.
    fn submit(self: &Arc<Shared>, job: Arc<dyn Job>, at_once: bool) -> Result<u64, RunError> {
        let mut state = lock(&self.state);
        let may_start = state.threads < self.settings.max_threads;
        let waiting = state.queue.len().saturating_sub(state.idle);
        if at_once && state.queue.len() >= state.idle && !may_start && waiting >= self.settings.queue_limit {
            return Err(RunError { kind: Kind::Full });
        }
        let number = state.next;
        state.next += 1;
        state.queue.push_back((number, job));
        if state.queue.len() <= state.idle {
            self.work.notify_one();
        } else if may_start {
            let shared = Arc::clone(self);
            // The new thread inherits it, so that there is no moment in which it would take a signal.
            let _blocked = SignalSet::all().and_then(|all| all.block_only());
            match thread::Builder::new().name(self.settings.name.clone()).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    let job = state.queue.pop_back();
                    drop(state);
                    drop(job);
                    return Err(RunError { kind: Kind::NoThread(error) });
                }
                // The threads there are will come to it.
                Err(_) => {}
            }
        }
        Ok(number)
    }

    /// An OS thread's life.
    fn work(&self) {
        WORKS_FOR.set(self.number);
        let mut state = lock(&self.state);
        loop {
            if let Some((_, job)) = state.queue.pop_front() {
                state.totals.running += 1;
                drop(state);
                let ended = job.run();
                state = lock(&self.state);
                state.totals.running -= 1;
                state.totals.count(ended);
                drop(state);
                // After the count, so that who has a result also finds it counted.
                if let Ended::Done { .. } = ended {
                    job.wake();
                }
                drop(job);
                state = lock(&self.state);
                continue;
            }
            if state.closed {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            let (woken, waited) =
                self.work.wait_timeout(state, self.settings.idle).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// Takes a job out of the queue, if it has not begun.
    fn remove(&self, number: u64) -> Option<Arc<dyn Job>> {
        let mut state = lock(&self.state);
        let at = state.queue.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        state.totals.cancelled += 1;
        state.queue.remove(at).map(|(_, job)| job)
    }
}

impl Stats {
    /// One more that has ended.
    fn count(&mut self, ended: Ended) {
        match ended {
            Ended::NotBegun => self.cancelled += 1,
            Ended::Done { panicked } => {
                self.completed += 1;
                self.panicked += u64::from(panicked);
            }
            Ended::Abandoned { panicked } => {
                self.abandoned += 1;
                self.panicked += u64::from(panicked);
            }
        }
    }
}

/// A caller's wait; given up when dropped.
struct Place<'a, F, T> {
    /// Where.
    shared: &'a Shared,
    /// For what.
    task: &'a Task<F, T>,
    /// Its number in the queue.
    number: u64,
}

impl<F, T> Drop for Place<'_, F, T> {
    fn drop(&mut self) {
        // The closure is dropped by `give_up`, so this is only a count of it.
        drop(self.shared.remove(self.number));
        self.task.give_up();
    }
}
