//! [`ThreadPool`]: a bounded pool of OS threads, and the wait of a green thread for its job there.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::mem;
use std::panic::Location;
use std::sync::Arc;

use super::builder::Builder;
use super::error::{RunError, RunErrorKind};
use super::job::{Job, Task};
use super::workers::{Stats, Workers};
use crate::runtime::caller::Caller;
use crate::runtime::park::Counted;
use crate::runtime::remote::Waiter;
use crate::runtime::report::label_of;
use crate::switch::cancel;
use crate::switch::fiber::Reason;
use crate::switch::root::try_root;
use crate::sys::clock::NEVER;
use crate::sys::signalfd::SignalSet;
use crate::sys::simulation::stay_inside;

/// A bounded pool of OS threads for code that blocks or computes: the green thread waits, the hub goes on.
///
/// A clone is another handle of the same pool. Any OS thread may use the pool, with or without a hub.
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
/// When the last handle is dropped, the OS threads of the pool end, each after the job that it has.
#[derive(Clone)]
pub struct ThreadPool {
    /// The share of this handle; the last one to go closes the pool.
    handle: Arc<PoolHandle>,
}

impl Builder {
    /// Makes the pool, which has no OS thread yet.
    ///
    /// May switch: no.
    pub fn build(self) -> ThreadPool {
        let workers = Workers::new(self);
        ThreadPool { handle: Arc::new(PoolHandle(Arc::new(workers))) }
    }
}

impl ThreadPool {
    /// Makes a pool with the settings of [`Builder::new`].
    ///
    /// May switch: no.
    pub fn new() -> ThreadPool {
        Builder::new().build()
    }

    /// Returns a builder, which makes a pool with other settings.
    ///
    /// May switch: no.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Runs `f` on one of the pool's OS threads and returns the result; the green thread waits, others run.
    ///
    /// If all OS threads have a job, callers wait, first come, first served, however many wait. See [the
    /// module](super#what-becomes-of-a-job) for what becomes of a job when its caller is killed, and of its panics.
    ///
    /// Called by a job of the same pool, `f` runs at once, in place: the job is on an OS thread that may block already,
    /// and if all jobs waited for others none would ever end.
    ///
    /// # Panics
    /// With the panic of `f`. If the caller unwinds from a panic or kill and so cannot wait, in the child of a fork,
    /// and if no OS thread can be started and there is none. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout), and panics inside [`no_switch`](crate::no_switch).
    ///
    /// May switch: yes. When the OS thread is ending, `f` runs on that.
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.offer("a job", false, with_signals_of_caller(f)) {
            Ok(result) => result,
            // The OS thread is ending, so a job that runs here holds up no green thread.
            Err((RunError { kind: RunErrorKind::Ending }, f)) => f(),
            Err((error, f)) => {
                // The closure goes before the panic, which would drop it during an unwind.
                drop(f);
                refuse(&error, Location::caller())
            }
        }
    }

    /// Runs `f` as [`run`](Self::run) does, but returns an error where that would panic, and when the queue is full: to
    /// shed load.
    ///
    /// # Errors
    /// [`RunError`]: as many jobs wait as [may](Builder::queue_limit); no OS thread could be started; the caller
    /// unwinds or its OS thread is ending; the child of a fork. `f` was not run and is dropped.
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
        self.offer("a job", true, with_signals_of_caller(f)).map_err(|(error, _)| error)
    }

    /// Returns the pool's counters.
    ///
    /// May switch: no.
    pub fn stats(&self) -> Stats {
        self.workers().stats()
    }

    /// Returns what the handles and the OS threads share.
    fn workers(&self) -> &Arc<Workers> {
        &self.handle.0
    }

    /// Reports whether this process made the pool, not one that this process was forked from.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.workers().is_of_this_process()
    }

    /// Runs `f` on an OS thread and waits for the result. `what` names the job in reports. With `at_once`, refuses if
    /// too many jobs wait.
    ///
    /// # Errors
    /// With the reason why the job was not taken, and with `f`.
    ///
    /// # Panics
    /// As [`run`](Self::run), but for the refusals.
    pub(crate) fn offer<F, T>(&self, what: &'static str, at_once: bool, f: F) -> Result<T, (RunError, F)>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // A job that comes from an OS thread of this pool runs in place.
        let workers = self.workers();
        if workers.is_worker() {
            return Ok(f());
        }
        // Give `f` back if the caller cannot wait.
        let Some(root) = try_root() else { return Err((RunError { kind: RunErrorKind::Ending }, f)) };
        let caller = match Caller::of(root) {
            Ok(caller) if self.is_of_this_process() => caller,
            Ok(_) => return Err((RunError { kind: RunErrorKind::Refused(io::Error::other(cancel::FORKED)) }, f)),
            Err(error) => return Err((RunError { kind: RunErrorKind::Refused(error) }, f)),
        };
        if let Some(obstacle) = cancel::obstacle() {
            return Err((RunError { kind: RunErrorKind::Refused(obstacle.into()) }, f));
        }
        if let Err(error) = stay_inside("a job on another OS thread") {
            return Err((RunError { kind: RunErrorKind::Refused(error) }, f));
        }
        let Caller { hub, fiber: me, .. } = caller;
        if me.pending.any() {
            // A kill that is due comes before the job begins.
            cancel::before_suspension(root, me);
        }
        // Hand the job over.
        let _counted = Counted::in_count(&hub.jobs);
        let task = Arc::new(Task::new(f, Waiter::new(caller)));
        let number = match workers.submit(Arc::clone(&task) as Arc<dyn Job>, at_once) {
            Ok(number) => number,
            Err(error) => match task.take_back() {
                Some(f) => return Err((error, f)),
                None => unreachable!("a job that was not taken has not begun"),
            },
        };
        // Wait for the result. If the wait unwinds, the guard gives the job up.
        let guard = JobGuard { workers, task: &task, number };
        loop {
            if let Some(result) = task.take() {
                mem::forget(guard);
                match result {
                    Ok(value) => return Ok(value),
                    Err(payload) => cancel::raise(Some(me), payload),
                }
            }
            if caller.park(Reason::Job(what), NEVER).is_err() {
                unreachable!("the caller did not unwind before, and a thread that waits does not begin to");
            }
        }
    }
}

/// Makes a job of the program's code: `f` with those signals blocked that the caller has blocked.
fn with_signals_of_caller<F, T>(f: F) -> impl FnOnce() -> T + Send + 'static
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

/// Panics with the name of the thread that could not run a job, and with the reason.
#[cold]
#[inline(never)]
fn refuse(error: &RunError, at: &Location<'_>) -> ! {
    let caller = try_root().map_or_else(|| String::from("main"), |root| label_of(root.current().id.get()).to_string());
    panic!("greenling: {caller} cannot run a job on another OS thread (at {at}): {error}");
}

impl Default for ThreadPool {
    fn default() -> Self {
        ThreadPool::new()
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("settings", &self.workers().settings)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// A share in the pool for the handles: the drop closes the pool.
struct PoolHandle(Arc<Workers>);

impl Drop for PoolHandle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A caller's wait for a job; the drop gives the job up.
struct JobGuard<'a, F, T> {
    workers: &'a Arc<Workers>,
    task: &'a Task<F, T>,
    /// The job's number in the queue.
    number: u64,
}

impl<F, T> Drop for JobGuard<'_, F, T> {
    fn drop(&mut self) {
        self.workers.leave(self.number, self.task);
    }
}
