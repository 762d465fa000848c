//! [`Builder`]: the settings of a pool of OS threads.
#![forbid(unsafe_code)]

use std::num::NonZero;
use std::thread;
use std::time::Duration;

/// The settings of a [`ThreadPool`](super::ThreadPool).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    /// The most OS threads at once, without those that run abandoned jobs.
    pub(super) max_threads: usize,
    /// The most abandoned jobs that have their OS threads replaced.
    pub(super) max_abandoned: usize,
    /// The most jobs that may wait when `try_run` is called.
    pub(super) queue_limit: usize,
    /// How long an OS thread waits for a job before the OS thread ends.
    pub(super) idle: Duration,
    /// The name of the OS threads.
    pub(super) name: String,
}

impl Builder {
    /// Makes a builder with the defaults: four OS threads for each processor that the process may use, eight at least;
    /// the OS threads of up to 512 abandoned jobs are replaced; 1024 jobs may wait; an OS thread ends after 5 seconds
    /// without a job; the OS threads are called `greenling-job`.
    ///
    /// Four, because most jobs wait for a disk more than they compute; not more, because jobs that compute would take
    /// the processors from the hubs.
    ///
    /// May switch: no.
    pub fn new() -> Builder {
        // The processors that the process may use.
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Builder {
            max_threads: (4 * processors).max(8),
            max_abandoned: 512,
            queue_limit: 1024,
            idle: Duration::from_secs(5),
            name: String::from("greenling-job"),
        }
    }

    /// Runs at most `count` jobs at once, each on an OS thread of its own; abandoned ones are not counted, see
    /// [`max_abandoned`](Self::max_abandoned).
    ///
    /// # Panics
    /// If `count` is 0: no job would ever run.
    ///
    /// May switch: no.
    pub fn max_threads(mut self, count: usize) -> Builder {
        assert!(count > 0, "a pool without OS threads");
        self.max_threads = count;
        self
    }

    /// Replaces the OS threads of up to `count` abandoned jobs, so that the pool goes on with as many as before: the
    /// process then has up to `count` OS threads more. With 0 an abandoned job keeps its OS thread occupied until the
    /// job ends.
    ///
    /// A job is abandoned when its caller is killed or times out while the job runs. Nothing can stop such a job, and
    /// it may never end: the `open` of a FIFO without a writer, a read from a file server that is gone. If more than
    /// `count` jobs are abandoned, the rest occupy OS threads that others need, and when they occupy all, callers wait
    /// until one of them ends.
    ///
    /// May switch: no.
    pub fn max_abandoned(mut self, count: usize) -> Builder {
        self.max_abandoned = count;
        self
    }

    /// Lets [`ThreadPool::try_run`](super::ThreadPool::try_run) refuse when more than `limit` jobs wait for an OS
    /// thread. With 0, a job is begun at once or not at all.
    ///
    /// May switch: no.
    pub fn queue_limit(mut self, limit: usize) -> Builder {
        self.queue_limit = limit;
        self
    }

    /// Lets an OS thread end that has had no job for `time`.
    ///
    /// May switch: no.
    pub fn idle_time(mut self, time: Duration) -> Builder {
        self.idle = time;
        self
    }

    /// Sets the name of the OS threads. The kernel keeps the first 15 bytes.
    ///
    /// # Panics
    /// If `name` contains a zero byte.
    ///
    /// May switch: no.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = name.into();
        assert!(!self.name.contains('\0'), "a thread's name cannot contain a zero byte");
        self
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}
