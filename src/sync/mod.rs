//! Locks and signals between the green threads of one OS thread, shaped like `std::sync`.
//!
//! Green threads never run at the same time, so a `Cell` or `RefCell` protects what is changed between two blocking
//! calls. The types of this module are for threads that *wait*: for a lock that is held over a blocking call, for a
//! permit, for a signal.
//!
//! ```
//! use greenling::{sync::Semaphore, thread};
//!
//! let connections = Semaphore::new(2); // two at a time
//! thread::scope(|s| {
//!     for _ in 0..5 {
//!         s.spawn(|| {
//!             let _permit = connections.acquire();
//!             thread::yield_now();
//!         });
//!     }
//! });
//! ```
//!
//! | std | here | difference |
//! |---|---|---|
//! | `Mutex`, `RwLock` | same | first come, first served; a kill does not poison; `lock_timeout`, `read_timeout`, `write_timeout` |
//! | `Condvar`, `Barrier` | same | first come, first served; a thread that is killed while it waits was never there |
//! | `Once`, `OnceLock` | same | if the initialiser is killed, the next waiter runs its own closure |
//! | `LazyLock` with `get`, `get_mut`, `force_mut` and `DerefMut` | same | the initialiser is not interrupted |
//! | `PoisonError`, `TryLockError`, `LockResult`, `TryLockResult` | std's, re-exported | |
//! | `mpsc` | same: [`mpsc`] | the ends stay on their OS thread |
//! | – | [`Semaphore`], [`Event`], [`AsyncResult`], [`WaitGroup`] | |
//! | `Arc`, `Weak`, `atomic` | std's, re-exported | `Rc` and `Cell` are enough |
//! | `Send` and `Sync` for locks and channels | – | they stay on their OS thread; so a `static` takes a `thread_local!` around it |
//! | `ONCE_INIT`, `Condvar::wait_timeout_ms` | – | deprecated in std |
//!
//! For `static`s (a global logger, a cache), and for what OS threads share, [`hub::sync`](crate::hub::sync) has the
//! same locks, `Sync`. std's locks do not fit there if a thread waits while it holds one: the next green thread that
//! locks would block the OS thread for ever.
//!
//! # What all of them promise
//!
//! * They stay on their OS thread: none is `Send` or `Sync`, which the compiler checks.
//! * First come, first served. What is released belongs to the first waiter from that moment on, and no thread that
//!   comes before that waiter runs can take it. The price is a switch for each release of a lock that several threads
//!   want all the time.
//! * Nothing is lost: a waiter that is killed or times out after it was chosen passes on what it got. A release that
//!   comes in the same turn as the end of a call's own time limit wins.
//! * An operation that need not wait does not switch, does not allocate, and works also while the thread unwinds.
//! * **While a thread unwinds** from a panic or kill it cannot wait (see [`thread`](crate::thread#how-a-thread-ends)).
//!   A call that has a time limit then returns as if the time was up. A call that has none panics with the names of the
//!   thread that wants and the thread that holds, and a panic in a destructor that unwinding called ends the process.
//!   So in destructors use the `try_` form of locks.
//! * A thread that would wait for itself panics where that can be told. Other deadlocks are in the report that main
//!   gets, with the holders of the locks.

mod async_result;
mod barrier;
mod condvar;
mod event;
mod lazy_lock;
pub mod mpsc;
mod mutex;
mod once;
mod once_lock;
mod poison;
mod rwlock;
mod semaphore;
mod wait_group;
mod wait_queue;

use std::panic::{RefUnwindSafe, UnwindSafe};

pub use std::sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult, Weak, atomic};

pub use async_result::AsyncResult;
pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::Event;
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{ReleaseError, Semaphore, SemaphorePermit};
pub use wait_group::{WaitGroup, WaitGroupDone};

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
impl UnwindSafe for Barrier {}
impl RefUnwindSafe for Barrier {}
impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}
impl<T: RefUnwindSafe + UnwindSafe> RefUnwindSafe for OnceLock<T> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}
impl UnwindSafe for Event {}
impl RefUnwindSafe for Event {}
impl UnwindSafe for WaitGroup {}
impl RefUnwindSafe for WaitGroup {}
impl<T: UnwindSafe, E: UnwindSafe> UnwindSafe for AsyncResult<T, E> {}
impl<T: RefUnwindSafe + UnwindSafe, E: RefUnwindSafe + UnwindSafe> RefUnwindSafe for AsyncResult<T, E> {}
