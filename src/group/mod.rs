//! Many green threads at once: [`Group`], [`Pool`], [`join_all`], [`wait_any`], [`kill_all`].
//!
//! ```
//! use greenling::group::{Group, Pool, join_all};
//! use greenling::spawn;
//!
//! // A few threads, and all their results.
//! let handles = (1..=3).map(|n| spawn(move || n * n));
//! assert_eq!(join_all(handles).into_iter().map(Result::unwrap).sum::<i32>(), 14);
//!
//! // A group that grows, and results as they come.
//! let group = Group::new();
//! for n in 1..=3 {
//!     group.spawn(move || n);
//! }
//! while let Some(thread) = group.wait_any(1).pop() {
//!     assert!(thread.join().unwrap() <= 3);
//! }
//!
//! // Two at a time.
//! assert_eq!(Pool::new(2).map(1..=4, |n| n * n), [1, 4, 9, 16]);
//! ```
//!
//! | gevent | here | difference |
//! |---|---|---|
//! | `joinall`, `wait(objects, count)`, `killall` | [`join_all`], [`wait_any`], [`kill_all`] | results are `Result`s; `kill_all` does not wait |
//! | `Group` | [`Group`] | keeps the results until they are taken |
//! | `Pool` | [`Pool`] | `Pool::new(0)` is a panic, not a wait for ever |
//! | `Pool.map`, `imap`, `imap_unordered`, `apply` | same | `imap`s yield `Result`s, so that a panic of one job costs no other's result |
//! | `Greenlet.link` | [`JoinHandle::on_finish`](crate::thread::JoinHandle::on_finish) | |
//!
//! Threads that should end with a block of code, or that borrow from it, belong in a [`scope`](crate::thread::scope)
//! or, if one failure should end all of them, a [`try_scope`](crate::thread::try_scope).
//!
//! Threads with thread-locals of their own: [`Pool::own_thread_locals`] makes a pool of such threads, [`OwnPool`]; a
//! group takes them by [`add`](Group::add).
//!
//! Everything here stays on its OS thread. A thread that unwinds cannot wait (see
//! [`thread`](crate::thread#how-a-thread-ends)): then `join_all` has an error for each thread that has not ended,
//! `wait_any` returns the threads that have, calls with a time limit return as if the time was up, and a [`Pool`] that
//! is full panics.

mod imap;
mod members;
mod own_pool;
mod pool;
mod wait;

pub use imap::{Imap, ImapUnordered};
pub use members::Group;
pub use own_pool::{OwnImap, OwnImapUnordered, OwnPool};
pub use pool::{Pool, PoolFull};
pub use wait::{join_all, kill_all, wait_any};
