//! Work that would block the hub, done by OS threads: [`blocking`], and pools of one's own.
//!
//! A green thread that computes for long, or calls something that blocks the OS thread (a database driver, a C
//! library), holds up every other green thread of the hub. [`blocking`] runs such a closure on a bounded pool of OS
//! threads, and the green thread waits for the result as for a socket.
//!
//! ```
//! use greenling::{offload::blocking, spawn};
//!
//! let slow = spawn(|| {
//!     blocking(|| {
//!         std::thread::sleep(std::time::Duration::from_millis(10)); // blocks an OS thread of the pool
//!         42
//!     })
//! });
//! let other = spawn(|| "meanwhile, this runs");
//! assert_eq!(other.join().unwrap(), "meanwhile, this runs");
//! assert_eq!(slow.join().unwrap(), 42);
//! ```
//!
//! The closure and the result cross over to another OS thread and back, so they must be `Send`:
//!
//! ```compile_fail
//! let local = std::rc::Rc::new(6);
//! greenling::offload::blocking(move || *local);
//! ```
//!
//! # What becomes of a job
//!
//! * The job **panics**: the panic hook prints the message with the OS thread's name, and the caller unwinds with the
//!   payload.
//! * The caller **is killed or times out before the job has begun**: the job never runs; the caller drops the closure.
//! * The caller **is killed or times out while the job runs**: nothing can stop the job, which runs on, *abandoned*.
//!   The OS thread that made the result drops it; or the caller does, if the result was there but the caller had not
//!   run yet. The pool goes on with another OS thread in place of the one that is lost, for up to 512 jobs that are
//!   abandoned at the same time ([`max_abandoned`](Builder::max_abandoned)); beyond that an abandoned job keeps its OS
//!   thread occupied until the job ends, and when all OS threads are occupied so, callers wait.
//!   [`Stats::running_abandoned`] counts abandoned jobs. As they end, the OS threads above the limit do.
//! * The caller's **hub ends** while the job runs: the same.
//! * The **process exits**: the exit waits for no job. Join what must be complete.
//!
//! A caller that waits for a job is no deadlock, whatever the job waits for.
//!
//! A job may use green threads itself: its OS thread then has a hub of its own. Join them before the job ends, since
//! that hub does not run between two jobs.
//!
//! # Which pool
//!
//! [`blocking`] and [`fs`](crate::fs) share one pool in the process, [`default_pool`]; name lookups have one of their
//! own. A kind of work that may hold OS threads for long belongs in another [`ThreadPool`], so that other jobs
//! do not wait behind it.
//!
//! | gevent | here |
//! |---|---|
//! | `ThreadPool(n)` | `ThreadPool::builder().max_threads(n).build()` |
//! | `pool.apply(f)` | [`pool.run(f)`](ThreadPool::run) |
//! | `pool.spawn(f)` | `greenling::spawn(move || pool.run(f))` |
//! | `get_hub().threadpool` | [`default_pool`] |

mod builder;
mod error;
mod job;
mod per_process;
mod pool;
mod workers;

pub use builder::Builder;
pub use error::RunError;
pub(crate) use per_process::PerProcess;
pub use pool::ThreadPool;
pub use workers::Stats;

/// The pool of [`blocking`], one in each process.
static DEFAULT: PerProcess = PerProcess::new();

/// Runs `f` on an OS thread of the [`default_pool`] and returns the result; the green thread waits, others run.
///
/// See [the module](self) for what becomes of a job when the caller is killed.
///
/// # Panics
/// As [`ThreadPool::run`]; among others with the panic of `f`.
///
/// May switch: yes.
#[track_caller]
pub fn blocking<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    default_pool().run(f)
}

/// Returns the pool of [`blocking`] and [`fs`](crate::fs), one in the process, made on first use. A forked child has
/// its own.
///
/// May switch: no.
pub fn default_pool() -> &'static ThreadPool {
    DEFAULT.get(ThreadPool::new)
}

/// Makes `pool` the [`default_pool`]. To be called at the beginning of the program.
///
/// # Errors
/// With `pool`, if the default pool is there already.
///
/// May switch: no.
pub fn set_default_pool(pool: ThreadPool) -> Result<(), ThreadPool> {
    DEFAULT.set(pool)
}
