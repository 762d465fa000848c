//! What all threads of the storm share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, RwLock};

use crate::operations::OPERATIONS;

/// The locks and channels, and the counts.
pub(crate) struct World {
    /// A mutex of std.
    pub(crate) map: Mutex<HashMap<u64, Vec<u8>>>,
    /// A lock of std for readers and writers; both numbers are the same outside of a writer.
    pub(crate) pair: RwLock<(u64, u64)>,
    /// A mutex of parking_lot; the same.
    pub(crate) parking: parking_lot::Mutex<(u64, u64)>,
    /// Its condition.
    pub(crate) changed: parking_lot::Condvar,
    /// A lock of parking_lot for readers and writers.
    pub(crate) parking_pair: parking_lot::RwLock<(u64, u64)>,
    /// A semaphore of three units, made of a mutex and a condition of std.
    pub(crate) units: (Mutex<usize>, Condvar),
    /// A channel of crossbeam.
    pub(crate) crossbeam: (crossbeam_channel::Sender<u64>, crossbeam_channel::Receiver<u64>),
    /// A channel of flume.
    pub(crate) flume: (flume::Sender<u64>, flume::Receiver<u64>),
    /// A channel of crossbeam in which sender and receiver meet.
    pub(crate) meeting: (crossbeam_channel::Sender<u64>, crossbeam_channel::Receiver<u64>),
    /// The sum of what was sent to the first two channels.
    pub(crate) sent: AtomicU64,
    /// The sum of what was received from them.
    pub(crate) received: AtomicU64,
    /// The number of operations of each kind.
    pub(crate) done: [AtomicU64; OPERATIONS.len()],
    /// The number of operations that have yet to begin.
    left: AtomicU64,
}

impl World {
    /// Makes a world for `count` operations.
    pub(crate) fn new(count: u64) -> World {
        World {
            map: Mutex::default(),
            pair: RwLock::default(),
            parking: parking_lot::Mutex::default(),
            changed: parking_lot::Condvar::new(),
            parking_pair: parking_lot::RwLock::default(),
            units: (Mutex::new(3), Condvar::new()),
            crossbeam: crossbeam_channel::unbounded(),
            flume: flume::unbounded(),
            meeting: crossbeam_channel::bounded(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            done: [const { AtomicU64::new(0) }; OPERATIONS.len()],
            left: AtomicU64::new(count),
        }
    }

    /// Takes one of the operations that are left.
    pub(crate) fn take(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        // Relaxed: a count that orders nothing.
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Returns how many operations were done.
    pub(crate) fn total(&self) -> u64 {
        self.done.iter().map(|done| done.load(Ordering::Relaxed)).sum()
    }
}
