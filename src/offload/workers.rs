//! The OS threads of a pool, and the queue of jobs that they take from.
//!
//! ```text
//!   green thread                    WorkersState (behind a lock)          OS threads
//!   run: task -------------------> queue: [7] [8] [9] ..  --------------> pop, run, leave the result
//!        park(Job)                 idle:  2   threads: 5                        |
//!        take the result <---------- Task (shared by the two) <-----------------'
//!                      ^------------ RemoteOp::Wake through the hub's remote queue
//! ```
//!
//! * An OS thread is started when a job comes and none is idle, until there are `max_threads`; then jobs wait in order.
//!   An OS thread that has had no job for a while ends.
//! * A caller that is killed or times out takes the job out of the queue. A job that has begun cannot be stopped: the
//!   job goes on, abandoned, and the result is dropped. The OS thread is replaced: that OS thread does not count
//!   towards `max_threads`, as long as no more than `max_abandoned` are in that state. When the abandoned job ends, and
//!   there are enough OS threads without this one, the OS thread ends, too.
//! * Invariant offload-1: `threads` counts the OS threads that have not left `work`, `idle` those of them that wait on
//!   the condition variable `work`, `abandoned` those that run jobs which their callers have left. Upheld by `start`,
//!   `leave` and `work`, under the lock; a job is left and counted in one step, so that `work` finds the job counted
//!   when it ends.
//! * Invariant offload-2: a job in the queue has an OS thread that will come to it: the condition variable was notified
//!   for as many jobs as there are idle OS threads, and if there are more jobs, `threads` is not 0, and no OS thread
//!   could be started in addition. Upheld by `submit` and `leave`.
//! * Invariant offload-3: numbers in the queue ascend, so that a job is found by number. Upheld by `submit`, the
//!   only function that pushes.
//!
//! The lock is held for a push or a pop; no foreign code runs under it.
//!
//! A pool must not receive signals: the kernel may give a signal to any OS thread that has not blocked that signal, and
//! a SIGTERM that a [`Signals`](crate::signal::Signals) of the program waits for would end the process there. So the
//! pool's OS threads are started with everything blocked, and stay so for what this crate asks of them; a job of the
//! program's code blocks what the caller blocks, and the children that the job starts inherit that.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::builder::Builder;
use super::error::{RunError, RunErrorKind};
use super::job::{Job, JobEnd, Task};
use crate::pure::lock::lock;
use crate::switch::fiber::drop_quietly;
use crate::switch::root::on_os_thread;
use crate::sys::fork::fork_generation;
use crate::sys::service_thread;

/// How many numbers were given to pools so far.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The number of the pool that this OS thread belongs to; 0 for none.
    static WORKER_OF: Cell<u64> = const { Cell::new(0) };
}

/// The counters of a [`ThreadPool`](super::ThreadPool).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many OS threads the pool has now.
    pub threads: usize,
    /// How many of these OS threads have no job.
    pub idle: usize,
    /// How many jobs wait for an OS thread.
    pub queued: usize,
    /// How many jobs run now, abandoned ones included.
    pub running: usize,
    /// How many of these jobs are abandoned: their callers were killed or timed out.
    pub running_abandoned: usize,
    /// How many jobs ended while their caller waited, with a result or a panic.
    pub completed: u64,
    /// How many jobs were given up before they began, because their caller was killed or timed out.
    pub cancelled: u64,
    /// How many jobs were given up while they ran, and have ended since.
    pub abandoned: u64,
    /// How many jobs panicked; each is completed or abandoned, too.
    pub panicked: u64,
}

/// What the handles and the OS threads of a pool share.
pub(super) struct Workers {
    /// The settings, as the builder left them.
    pub(super) settings: Builder,
    /// The number of the pool, unique in the process.
    number: u64,
    /// The process that the pool belongs to, as a count of forks: a child has none of the OS threads.
    generation: u32,
    /// What changes in the pool.
    state: Mutex<WorkersState>,
    /// Notified once for each job that an idle OS thread should take.
    work: Condvar,
}

/// The part of [`Workers`] behind the lock.
#[derive(Default)]
struct WorkersState {
    /// Jobs that have not begun, with their numbers (offload-2, offload-3).
    queue: VecDeque<(u64, Arc<dyn Job>)>,
    /// The number of the next job.
    next: u64,
    /// OS threads that have not ended (offload-1).
    threads: usize,
    /// OS threads without a job (offload-1).
    idle: usize,
    /// OS threads that run abandoned jobs (offload-1).
    abandoned: usize,
    /// All handles are gone.
    closed: bool,
    /// What is counted at once: `running` and the totals. `stats` fills in the rest.
    totals: Stats,
}

impl Workers {
    /// Makes the state of a pool that has no OS thread yet.
    pub(super) fn new(settings: Builder) -> Workers {
        Workers {
            settings,
            // Relaxed: the number only has to differ.
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            generation: fork_generation(),
            state: Mutex::new(WorkersState::default()),
            work: Condvar::new(),
        }
    }

    /// Reports whether the calling OS thread belongs to this pool.
    pub(super) fn is_worker(&self) -> bool {
        on_os_thread(|| WORKER_OF.get()) == self.number
    }

    /// Reports whether this process made the pool, not one that this process was forked from.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.generation == fork_generation()
    }

    /// Returns the counters, as they are now.
    pub(super) fn stats(&self) -> Stats {
        if !self.is_of_this_process() {
            // In a copy from before the fork, the lock may be held for ever.
            return Stats::default();
        }
        let state = lock(&self.state);
        Stats {
            threads: state.threads,
            idle: state.idle,
            queued: state.queue.len(),
            running_abandoned: state.abandoned,
            ..state.totals
        }
    }

    /// Closes the pool: its OS threads end, each after the job that it has.
    pub(super) fn close(&self) {
        if self.is_of_this_process() {
            lock(&self.state).closed = true;
            self.work.notify_all();
        }
    }

    /// Hands a job to an idle OS thread, to a new one, or to the next that is done. Returns the number of the job.
    pub(super) fn submit(self: &Arc<Workers>, job: Arc<dyn Job>, at_once: bool) -> Result<u64, RunError> {
        let mut state = lock(&self.state);
        // With `at_once`: refuse if the job would have to wait behind too many.
        let may_start = self.may_start(&state);
        let waiting = state.queue.len().saturating_sub(state.idle);
        if at_once && state.queue.len() >= state.idle && !may_start && waiting >= self.settings.queue_limit {
            return Err(RunError { kind: RunErrorKind::Full });
        }
        // Queue the job, and make sure that an OS thread comes to it (offload-2).
        let number = state.next;
        state.next += 1;
        state.queue.push_back((number, job));
        if state.queue.len() <= state.idle {
            self.work.notify_one();
        } else if may_start
            && let Err(error) = self.start(&mut state)
            && state.threads == state.abandoned
        {
            // No OS thread is there that is sure to come to the job.
            let job = state.queue.pop_back();
            drop(state);
            drop(job);
            return Err(RunError { kind: RunErrorKind::NoThread(error) });
        }
        Ok(number)
    }

    /// Reports whether one more OS thread may be started.
    fn may_start(&self, state: &WorkersState) -> bool {
        state.threads - state.abandoned.min(self.settings.max_abandoned) < self.settings.max_threads
    }

    /// Reports whether there is an OS thread more than there may be, after one with an abandoned job has come back.
    fn has_surplus(&self, state: &WorkersState) -> bool {
        state.threads - state.abandoned.min(self.settings.max_abandoned) > self.settings.max_threads
    }

    /// Starts an OS thread.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`; the threads that are there go on.
    fn start(self: &Arc<Workers>, state: &mut WorkersState) -> io::Result<()> {
        let workers = Arc::clone(self);
        service_thread::start(&self.settings.name, None, move || workers.work())?;
        state.threads += 1;
        Ok(())
    }

    /// Runs jobs until the pool is closed or there are none for a while: the life of an OS thread.
    fn work(&self) {
        WORKER_OF.set(self.number);
        let mut state = lock(&self.state);
        loop {
            // A job is there: run the job without the lock, then count.
            if let Some((_, job)) = state.queue.pop_front() {
                state.totals.running += 1;
                drop(state);
                let ended = job.run();
                state = lock(&self.state);
                state.totals.running -= 1;
                state.totals.count(ended);
                if let JobEnd::Abandoned { left: true, .. } = ended {
                    state.abandoned -= 1;
                }
                drop(state);
                // After the count, so that a caller with a result also finds the job counted.
                if let JobEnd::Done { .. } = ended {
                    job.wake();
                }
                drop(job);
                state = lock(&self.state);
                if self.has_surplus(&state) {
                    // This OS thread was replaced, and the others come to what is in the queue (offload-2).
                    state.threads -= 1;
                    return;
                }
                continue;
            }
            if state.closed {
                state.threads -= 1;
                return;
            }
            // Nothing to do: wait for a job.
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

    /// Gives a job up, when the caller waits no more: takes a job that has not begun out of the queue, and replaces the
    /// OS thread of one that runs.
    pub(super) fn leave<F, T>(self: &Arc<Workers>, number: u64, task: &Task<F, T>) {
        let mut state = lock(&self.state);
        let queued = state.queue.binary_search_by_key(&number, |(number, _)| *number).ok();
        let job = queued.and_then(|place| state.queue.remove(place));
        state.totals.cancelled += u64::from(job.is_some());
        // In one step under the lock: the job is abandoned, and counted (offload-1).
        let left = task.leave();
        if left.runs() {
            state.abandoned += 1;
            if state.queue.len() > state.idle && self.may_start(&state) {
                // If no OS thread can be started, the jobs in the queue wait for those that are there.
                let _ = self.start(&mut state);
            }
        }
        drop(state);
        // The closure is not in the task any more, so this drops a count only. What was in the task is foreign code,
        // and goes last.
        drop(job);
        drop_quietly(left);
    }
}

impl Stats {
    /// Counts one more job that has ended.
    fn count(&mut self, ended: JobEnd) {
        match ended {
            JobEnd::NotBegun => self.cancelled += 1,
            JobEnd::Done { panicked } => {
                self.completed += 1;
                self.panicked += u64::from(panicked);
            }
            JobEnd::Abandoned { panicked, .. } => {
                self.abandoned += 1;
                self.panicked += u64::from(panicked);
            }
        }
    }
}
