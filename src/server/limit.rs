//! A limit on the number of connections, of one server or of several on different hubs.
//!
//! ```text
//!   acquire:   used < max?  used + 1             release:   used - 1;  waiting > 0? wake all waiters, which look again
//!   wait:      register a Waiter behind the lock, raise `waiting`, look again, park
//! ```
//!
//! * Invariant server-6: an acceptor that waits for room is woken by the next release. The waiter is registered, and
//!   `waiting` raised, before the acceptor looks at `used` for the last time; a release lowers `used` before the look
//!   at `waiting`. Both are SeqCst, so at least one of the two sees the other.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::pure::lock::lock;
use crate::runtime::remote::Waiter;

/// A number of connections that several servers share, on one hub or on many: clone the limit, send it, pass it to
/// [`TcpServer::limit`](super::TcpServer::limit).
///
/// ```
/// use greenling::server::{Limit, TcpServer};
///
/// let limit = Limit::new(1000);
/// let one = TcpServer::bind("127.0.0.1:0")?.limit(&limit);
/// let two = TcpServer::bind("127.0.0.1:0")?.limit(&limit); // a thousand for both together
/// assert_eq!(limit.in_use(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Limit {
    /// The state that all clones share.
    inner: Arc<Inner>,
}

/// The state that all clones of a [`Limit`] share.
struct Inner {
    /// The number of connections allowed.
    max: usize,
    /// The number of connections there are.
    used: AtomicUsize,
    /// The number of waiters, at least, to be read without the lock.
    waiting: AtomicUsize,
    /// The acceptors that wait for room.
    waiters: Mutex<Vec<Waiter>>,
}

impl Limit {
    /// Creates a limit of `most` connections.
    ///
    /// # Panics
    /// If `most` is 0: such a server would serve nothing.
    ///
    /// May switch: no.
    pub fn new(most: usize) -> Limit {
        assert_ne!(most, 0, "a limit of 0 connections: the server would serve nothing");
        let (used, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Limit { inner: Arc::new(Inner { max: most, used, waiting, waiters: Mutex::default() }) }
    }

    /// Returns the number of connections there are now.
    ///
    /// May switch: no.
    pub fn in_use(&self) -> usize {
        self.inner.used.load(Ordering::SeqCst)
    }

    /// Reports whether there is no room.
    pub(super) fn is_full(&self) -> bool {
        self.in_use() >= self.inner.max
    }

    /// Takes a place, if there is one.
    pub(super) fn acquire(&self) -> bool {
        let more = |used| (used < self.inner.max).then_some(used + 1);
        // SeqCst: server-6.
        self.inner.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Gives a place back.
    pub(super) fn release(&self) {
        // SeqCst: server-6.
        self.inner.used.fetch_sub(1, Ordering::SeqCst);
        if self.inner.waiting.load(Ordering::SeqCst) != 0 {
            self.wake_all();
        }
    }

    /// Wakes all acceptors that wait.
    #[cold]
    fn wake_all(&self) {
        let mut waiters = lock(&self.inner.waiters);
        // SeqCst: server-6; a waiter that registers later raises the number again.
        self.inner.waiting.store(0, Ordering::SeqCst);
        let woken = take(&mut *waiters);
        drop(waiters);
        for waiter in &woken {
            waiter.wake();
        }
    }

    /// Registers `waiter` to be woken by the next release. Reports whether the limit is still full, so that waiting
    /// makes sense.
    pub(super) fn register(&self, waiter: Waiter) -> bool {
        let mut waiters = lock(&self.inner.waiters);
        // An acceptor registers each time that it looks, which may be often before a place is given back.
        if !waiters.iter().any(|other| other.is(&waiter)) {
            waiters.push(waiter);
        }
        // SeqCst: server-6.
        self.inner.waiting.store(waiters.len(), Ordering::SeqCst);
        drop(waiters);
        self.is_full()
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("most", &self.inner.max).field("in_use", &self.in_use()).finish()
    }
}
