//! Locks for `static`s and for what several OS threads share, shaped like `std::sync`: a green thread that waits parks,
//! an OS thread without a hub sleeps.
//!
//! A `std::sync::Mutex` that is held over a wait stops a hub for good: the holder is parked, and the next green thread
//! that locks blocks the OS thread on which the holder would have to run. The locks of [`greenling::sync`](crate::sync)
//! park, but stay on their OS thread. The locks of this module are `Send` and `Sync` as std's are, `const` to make, and
//! may be held over any blocking call.
//!
//! ```
//! use std::io::Write;
//! use greenling::{fs::File, hub::sync::{Mutex, OnceLock}};
//!
//! static LOG: OnceLock<Mutex<File>> = OnceLock::new();
//!
//! fn log(line: &str) -> std::io::Result<()> {
//!     let file = LOG.get_or_init(|| Mutex::new(File::create("/dev/null").expect("it is there")));
//!     writeln!(file.lock().unwrap(), "{line}") // while the write waits, other threads run; those that log queue up
//! }
//!
//! let other = std::thread::spawn(|| log("from an OS thread without a hub"));
//! greenling::spawn(|| log("from a green thread")).join().unwrap()?;
//! other.join().unwrap()?;
//! # std::io::Result::Ok(())
//! ```
//!
//! | std | here | difference |
//! |---|---|---|
//! | `Mutex`, `RwLock` | same | first come, first served; a kill does not poison; `lock_timeout`, `read_timeout`, `write_timeout` |
//! | `Condvar` | same | first come, first served; a thread that is killed while it waits was never there |
//! | `Once`, `OnceLock` | same | if the initialiser is killed, the next waiter runs its own closure |
//! | `LazyLock` | same | the initialiser is not interrupted |
//! | `LockResult`, `PoisonError`, `TryLockError`, `TryLockResult` | std's, re-exported | |
//! | – | [`Semaphore`] | |
//! | `mpsc` | [`hub::channel`](super::channel) | |
//!
//! # What all of them promise
//!
//! * First come, first served, over all hubs. What is released belongs to the first waiter from that moment on, and
//!   nothing can overtake that waiter. The price: while threads of several hubs want one lock all the time, each
//!   release wakes another OS thread. Hold such a lock for a short time.
//! * Nothing is lost: a waiter that is killed or times out after it was chosen passes on what it got, and so does the
//!   hub of a waiter that ends. A release that comes before the end of a call's own time limit is noticed wins.
//! * An operation that need not wait does not switch, takes one atomic exchange, and works also while the thread
//!   unwinds. The first use of a lock allocates, and so does a wait.
//! * **While a thread of a hub unwinds** from a panic or kill, that thread cannot wait (see
//!   [`thread`](crate::thread#how-a-thread-ends)). A call that has a time limit then returns as if the time was up. A
//!   call that has none panics with the names of the thread that wants and the thread that holds, and a panic in a
//!   destructor that unwinding called ends the process. So in destructors use the `try_` form of locks, or one with a
//!   time limit. An OS thread without a hub waits, as with std's.
//! * A thread that would wait for itself panics where that can be told. If all threads of a hub wait for what other
//!   threads of the same hub hold, that is a deadlock, and main is told of it with the names of the holders, as far as
//!   these hold mutexes, write locks and initialisers. A wait for readers, permits, notifications, or for another hub
//!   is no deadlock: another OS thread may end such a wait. Cycles over several hubs are not found;
//!   [`hub::report`](super::report) names the hub and number of a holder.
//! * A holder that never lets go keeps the lock: `mem::forget` of a guard, or a green thread that was suspended when
//!   its OS thread ended and was not unwound. In the second case calls that wait for the lock, or would, panic with
//!   that reason, and those that have a time limit return as if the time was up; as far as the holder is known, see
//!   above.
//! * **After a fork** the child has copies. What no thread waits for works. A wait in a thread of a parent that had a
//!   hub panics with the reason, and what other threads of the parent held stays locked, as with std's.
//! * Locks of a thread that is ending, in the destructors of thread-locals, work as on an OS thread without a hub.

mod condvar;
mod lazy_lock;
mod mutex;
mod once;
mod once_lock;
mod poison;
mod raw;
mod rwlock;
mod semaphore;

use std::panic::{RefUnwindSafe, UnwindSafe};

pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

pub use condvar::Condvar;
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use once::Once;
pub use once_lock::OnceLock;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Semaphore, SemaphorePermit};

pub use crate::sync::{OnceState, ReleaseError, WaitTimeoutResult};

// As std says of its own: a panic leaves each of them in order, and a lock reports the panic.
impl<T: ?Sized> UnwindSafe for Mutex<T> {}
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}
impl<T: ?Sized> UnwindSafe for MutexGuard<'_, T> {}
impl<T: ?Sized> RefUnwindSafe for MutexGuard<'_, T> {}
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}
impl<T: ?Sized> UnwindSafe for RwLockReadGuard<'_, T> {}
impl<T: ?Sized> RefUnwindSafe for RwLockReadGuard<'_, T> {}
impl<T: ?Sized> UnwindSafe for RwLockWriteGuard<'_, T> {}
impl<T: ?Sized> RefUnwindSafe for RwLockWriteGuard<'_, T> {}
impl UnwindSafe for Condvar {}
impl RefUnwindSafe for Condvar {}
impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}
impl<T: RefUnwindSafe + UnwindSafe> RefUnwindSafe for OnceLock<T> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}
impl UnwindSafe for SemaphorePermit<'_> {}
impl RefUnwindSafe for SemaphorePermit<'_> {}
