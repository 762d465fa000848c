//! Hubs that ended while threads of theirs were suspended for ever, for the threads that wait for one of those.
//!
//! ```text
//!   a waiter                                        the hub, at its end
//!   1. joins the queue         (the queue's lock)   1. `end`: is in the set, COUNT is not 0
//!   2. reads COUNT             (under that lock)    2. wakes the queues that one of its threads keeps waiting
//!   3. not 0: is the holder's hub in the set?          (the lock of each)
//! ```
//!
//! * Invariant ended-1: no thread waits for ever for a thread of a hub in the set. If the waiter's critical section
//!   comes first, the hub's step 2 finds the waiter; if the hub's does, the waiter's step 2 sees the count, by way of
//!   the queue's lock.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::pure::lock::lock;
use crate::switch::fiber::Holder;

/// A queue in which fibers of several hubs wait, as the hub of one of them sees it.
pub(crate) trait SharedQueue: Send + Sync {
    /// Returns the thread without which no waiter goes on; unknown if there are several, or if a waiter is being woken
    /// to become the holder.
    fn holder(&self) -> Holder;

    /// Takes the waiter with this number, which wanted so many units, out of the queue, or passes on what the waiter
    /// was handed: the waiter's hub ends, and the waiter never runs again. Runs no foreign code.
    fn abandon(&self, number: u64, wants: usize);

    /// Lets all waiters try again, since the holder never lets go. Runs no foreign code.
    fn wake_all(&self);
}

/// How many hubs are in the set.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The hubs that ended, and the queues that are told.
static ENDED: Mutex<Ended> = Mutex::new(Ended { roots: BTreeSet::new(), queues: Vec::new(), tidy_at: 64 });

/// What the lock protects.
struct Ended {
    /// The numbers of the hubs' roots.
    roots: BTreeSet<u64>,
    /// Queues in which a thread has ever waited.
    queues: Vec<Weak<dyn SharedQueue>>,
    /// The number of queues at which those that are gone are taken out.
    tidy_at: usize,
}

/// Adds a queue, in which a thread will wait for the first time.
pub(crate) fn register(queue: &Arc<dyn SharedQueue>) {
    let mut ended = lock(&ENDED);
    if ended.queues.len() >= ended.tidy_at {
        ended.queues.retain(|queue| queue.strong_count() > 0);
        ended.tidy_at = (2 * ended.queues.len()).max(64);
    }
    ended.queues.push(Arc::downgrade(queue));
}

/// Reports whether a hub is in the set. Ask under the lock of a queue (ended-1).
pub(crate) fn any() -> bool {
    // Relaxed: ended-1.
    COUNT.load(Ordering::Relaxed) > 0
}

/// Reports whether `holder` is a thread of a hub in the set: such a thread never lets go.
pub(crate) fn has_ended(holder: Holder) -> bool {
    lock(&ENDED).roots.contains(&holder.root)
}

/// Adds the hub with this root, which ends and leaves threads behind that are suspended for ever.
pub(crate) fn end(root: u64) {
    let mut ended = lock(&ENDED);
    ended.roots.insert(root);
    // Relaxed: ended-1.
    COUNT.store(ended.roots.len(), Ordering::Relaxed);
    let queues: Vec<_> = ended.queues.iter().filter_map(Weak::upgrade).collect();
    drop(ended);
    queues.iter().filter(|queue| queue.holder().root == root).for_each(|queue| queue.wake_all());
}
