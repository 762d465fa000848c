//! The monitor: the one OS thread that keeps time for all hubs with short slices.
//!
//! ```text
//!   a hub: 64 checkpoints in a short time --- watch ---> on the list, for LEASE ticks ---> off the list
//!                                                           | each tick: raise the flag      | unwatch: the hub reads
//!   the monitor:  list empty: waits                         | (1 ms)                         |   the clock again, and
//!                 else: sleeps one tick, raises, removes ------------------------------------'   asks anew if it must
//! ```
//!
//! So the monitor sleeps when no hub is busy with short slices, and a hub that goes idle is off the list a few ticks
//! later. Go's `sysmon` has the same task.
//!
//! * Invariant monitor-1: a flag that is watched is on the list. The flag stays there for one tick more (see
//!   `pure::preempt`), in which the hub may ask again: then the flag is there twice. Upheld by `watch`, which fails if
//!   the list is in use, and by `tick`; both hold the lock.
//! * Invariant monitor-2: a hub that asks allocates nothing, but for the first of a process, which starts the monitor.
//!   The room for flags is the monitor's to make: `run` does so at each tick. A hub that finds none stays unwatched,
//!   and asks anew.
#![forbid(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use crate::pure::lock::lock;
use crate::pure::preempt::PreemptFlag;
use crate::sys::fork::fork_generation;
use crate::sys::service_thread;

/// The time between two raises of a flag, and so the time for which a thread may keep the CPU while its calls could
/// have waited.
const TICK: Duration = Duration::from_millis(1);

/// The number of ticks for which a flag is on the list. Then the hub has to ask again, which costs a wake-up of the
/// monitor.
const LEASE: u32 = 32;

/// The least room for more flags that the monitor leaves on the list.
const ROOM: usize = 64;

/// The size of the monitor's stack, in bytes; its calls are not deep.
const STACK: usize = 64 * 1024;

/// Watched flags, and for how many ticks they stay watched; 0 for those that have just ceased to be.
type List = Vec<(Arc<PreemptFlag>, u32)>;

/// What the hubs and the monitor share.
struct Shared {
    /// What the monitor raises.
    list: List,
    /// The process in which the monitor runs, as a count of forks; none before it is started.
    runs_in: Option<u32>,
}

/// The list, and whether the monitor runs.
static SHARED: Mutex<Shared> = Mutex::new(Shared { list: Vec::new(), runs_in: None });

/// Notified when the list is no longer empty.
static NOT_EMPTY: Condvar = Condvar::new();

/// Has the monitor raise `flag` at each tick for some time, and starts the monitor if there is none. Returns false if
/// that is not possible now: then the flag stays unwatched. Never waits.
pub(super) fn watch(flag: &Arc<PreemptFlag>) -> bool {
    // In the child of a fork the lock may be held for ever, by a thread that does not exist there.
    let mut shared = match SHARED.try_lock() {
        Ok(shared) => shared,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return false,
    };
    let process = fork_generation();
    if shared.runs_in != Some(process) {
        // What is on the list of a child is its parent's.
        shared.list.clear();
        if service_thread::start("greenling-monitor", Some(STACK), run).is_err() {
            return false;
        }
        shared.runs_in = Some(process);
        make_room(&mut shared.list);
    }
    if shared.list.is_empty() {
        NOT_EMPTY.notify_one();
    }
    put(&mut shared.list, flag)
}

/// Puts `flag` on the list and marks it as watched (monitor-1). Returns false if there is no room (monitor-2).
fn put(list: &mut List, flag: &Arc<PreemptFlag>) -> bool {
    let has_room = list.len() < list.capacity();
    if has_room {
        flag.watch();
        list.push((Arc::clone(flag), LEASE));
    }
    has_room
}

/// Makes room for as many flags as there are, and for a few at least.
fn make_room(list: &mut List) {
    list.reserve(list.len().max(ROOM));
}

/// Runs the monitor, until the process ends.
fn run() {
    let mut shared = lock(&SHARED);
    loop {
        shared = NOT_EMPTY.wait_while(shared, |shared| shared.list.is_empty()).unwrap_or_else(PoisonError::into_inner);
        drop(shared);
        // Hubs can ask during the sleep: the lock is free.
        thread::sleep(TICK);
        shared = lock(&SHARED);
        tick(&mut shared.list);
        make_room(&mut shared.list);
    }
}

/// Raises all flags, and unwatches those that have been on the list for their time; a tick later they leave the list.
fn tick(list: &mut List) {
    list.retain_mut(|(flag, left)| {
        // Unwatched a tick ago: raised once more, and off the list (monitor-1).
        let Some(less) = left.checked_sub(1) else {
            flag.raise();
            return false;
        };
        *left = less;
        if less == 0 {
            flag.unwatch()
        } else {
            flag.raise()
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::preempt::Preempt;

    #[test]
    fn a_watched_flag_is_raised_at_each_tick_and_unwatched_in_the_end() {
        let flag = Arc::new(PreemptFlag::new());
        flag.watch();
        let mut list = vec![(Arc::clone(&flag), LEASE)];
        for _ in 1..LEASE {
            tick(&mut list);
            assert_eq!([flag.take(), flag.take()], [Preempt::Yes, Preempt::No]);
        }
        tick(&mut list);
        assert_eq!(flag.take(), Preempt::AskClock);
        tick(&mut list);
        assert!(list.is_empty());
        assert_eq!(flag.take(), Preempt::AskClock);
    }

    /// Many hubs that asked at the same time once made the list grow, which counted as an allocation of one of them.
    #[test]
    fn a_hub_that_asks_does_not_grow_the_list() {
        let flag = Arc::new(PreemptFlag::new());
        let mut list = Vec::with_capacity(ROOM);
        let room = list.capacity();
        for _ in 0..room {
            assert!(put(&mut list, &flag));
        }
        assert!(!put(&mut list, &flag));
        assert_eq!((list.len(), list.capacity()), (room, room));
        make_room(&mut list);
        assert!(put(&mut list, &flag));
        assert!(list.capacity() >= 2 * room);
    }

    #[test]
    fn the_monitor_raises_a_flag_that_it_was_asked_to_watch() {
        let flag = Arc::new(PreemptFlag::new());
        flag.unwatch();
        // Fails if another test, or the monitor, has the lock.
        while !watch(&flag) {
            thread::yield_now();
        }
        let mut raised = 0;
        loop {
            match flag.take() {
                Preempt::Yes => raised += 1,
                Preempt::No => thread::sleep(TICK / 4),
                Preempt::AskClock => break,
            }
        }
        assert!(raised > 0);
        // The list drops the flag.
        while Arc::strong_count(&flag) > 1 {
            thread::yield_now();
        }
    }
}
