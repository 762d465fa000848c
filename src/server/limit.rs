//! How many connections there may be, of one server or of several on different hubs.
//!
//! ```text
//!   enter:   used < most?  used + 1            leave:   used - 1;  somebody waits? wake all who do, they look again
//!   wait:    put a Waiter behind the lock, waits + 1, look again, park
//! ```
//!
//! * Invariant L1: an acceptor that waits for room is woken by the next leave. The waiter is put there, and `waits` raised,
//!   before the acceptor looks for the last time; a leave lowers `used` before it looks at `waits`. Both are SeqCst, so one
//!   of the two sees the other.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::runtime::remote::{Waiter, lock};

/// A number of connections that several servers share, on one hub or on many: clone it, send it, give it to
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
    /// Shared by all clones.
    inside: Arc<Inside>,
}

/// See [`Limit`].
struct Inside {
    /// How many there may be.
    most: usize,
    /// How many there are.
    used: AtomicUsize,
    /// How many wait, at least; for a look without the lock.
    waits: AtomicUsize,
    /// Who waits.
    waiters: Mutex<Vec<Waiter>>,
}

impl Limit {
    /// At most `most` connections.
    ///
    /// # Panics
    /// If `most` is 0: such a server would serve nobody.
    ///
    /// May switch: no.
    pub fn new(most: usize) -> Limit {
        assert_ne!(most, 0, "a limit of 0 connections: the server would serve nobody");
        let (used, waits) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Limit { inside: Arc::new(Inside { most, used, waits, waiters: Mutex::default() }) }
    }

    /// How many connections there are now.
    ///
    /// May switch: no.
    pub fn in_use(&self) -> usize {
        self.inside.used.load(Ordering::SeqCst)
    }

    /// Whether there is no room.
    pub(super) fn is_full(&self) -> bool {
        self.in_use() >= self.inside.most
    }

    /// One more, if there is room.
    pub(super) fn enter(&self) -> bool {
        let more = |used| (used < self.inside.most).then_some(used + 1);
        // SeqCst: L1.
        self.inside.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// One less.
    pub(super) fn leave(&self) {
        // SeqCst: L1.
        self.inside.used.fetch_sub(1, Ordering::SeqCst);
        if self.inside.waits.load(Ordering::SeqCst) != 0 {
            self.wake();
        }
    }

    /// Wakes all who wait.
    #[cold]
    fn wake(&self) {
        let mut waiters = lock(&self.inside.waiters);
        // SeqCst: L1; whoever comes later raises it again.
        self.inside.waits.store(0, Ordering::SeqCst);
        let woken = take(&mut *waiters);
        drop(waiters);
        for waiter in &woken {
            waiter.wake();
        }
    }

    /// From now on the next leave wakes `waiter`. Says whether it is still full, so that waiting makes sense.
    pub(super) fn tell(&self, waiter: Waiter) -> bool {
        let mut waiters = lock(&self.inside.waiters);
        waiters.push(waiter);
        // SeqCst: L1.
        self.inside.waits.store(waiters.len(), Ordering::SeqCst);
        drop(waiters);
        self.is_full()
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("most", &self.inside.most).field("in_use", &self.in_use()).finish()
    }
}
