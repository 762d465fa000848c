//! Work that would block the hub, done by OS threads: [`blocking`], and pools of one's own.
//!
//! A green thread that computes for long, or calls something that blocks the OS thread (a database driver, a C library),
//! holds up every other green thread of its hub. [`blocking`] runs such a closure on a bounded pool of OS threads, and the
//! green thread waits for it as it waits for a socket.
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
//! The closure and its result cross over to another OS thread and back, so they must be `Send`:
//!
//! ```compile_fail
//! let local = std::rc::Rc::new(6);
//! greenling::offload::blocking(move || *local);
//! ```
//!
//! # What becomes of a job
//!
//! * It **panics**: the panic hook prints its message with the OS thread's name, and the caller unwinds with the payload.
//! * Its caller **is killed or times out before it has begun**: it never runs; the closure is dropped by the caller.
//! * Its caller **is killed or times out while it runs**: nothing can stop it, it runs on. The result is dropped by the OS
//!   thread that made it; or by the caller, if it was there but the caller had not run yet.
//! * The caller's **hub ends** while it runs: the same.
//! * The **process exits**: that waits for no job. Join what must be complete.
//!
//! A caller that waits for a job is no deadlock, whatever the job waits for.
//!
//! A job may use green threads itself: its OS thread then has a hub of its own. Join them before the job ends, since between
//! two jobs that hub does not run.
//!
//! # Which pool
//!
//! [`blocking`] and [`fs`](crate::fs) share one pool in the process, [`default_pool`]; names have one of their own. A kind of
//! work that may hold its OS threads for long belongs in a [`ThreadPool`] of its own, so that others do not wait behind it.
//!
//! | gevent | here |
//! |---|---|
//! | `ThreadPool(n)` | `ThreadPool::builder().max_threads(n).build()` |
//! | `pool.apply(f)` | [`pool.run(f)`](ThreadPool::run) |
//! | `pool.spawn(f)` | `greenling::spawn(move || pool.run(f))` |
//! | `get_hub().threadpool` | [`default_pool`] |

mod job;
mod per_process;
mod pool;

pub(crate) use per_process::PerProcess;
pub use pool::{Builder, RunError, Stats, ThreadPool};

/// The pool of [`blocking`].
static DEFAULT: PerProcess = PerProcess::new();

/// Runs `f` on an OS thread of the [`default_pool`] and returns its result; the green thread waits, others run.
///
/// See [the module](self) for what becomes of a job whose caller is killed.
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

/// The pool of [`blocking`] and [`fs`](crate::fs), one in the process, made on first use. A forked child has its own.
///
/// May switch: no.
pub fn default_pool() -> &'static ThreadPool {
    DEFAULT.get(ThreadPool::new)
}

/// Makes `pool` the [`default_pool`]. Call it at the beginning of the program.
///
/// # Errors
/// With `pool`, if the default pool is there already.
///
/// May switch: no.
pub fn set_default_pool(pool: ThreadPool) -> Result<(), ThreadPool> {
    DEFAULT.set(pool)
}
