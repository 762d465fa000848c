//! The preempt flag: says whether the running thread should let others run.
//!
//! A hub asks at every checkpoint, that is, whenever a thread yields, and in every call that could have waited. A
//! clock costs 20 ns, ten times as much as a yield, so a hub with short slices has a monitor (an OS thread) read the
//! clock: the monitor raises the flag of each watched hub once a millisecond. A hub with long slices reads the clock
//! itself.
//!
//! ```text
//!                watch: the hub's slices are short           raise: every tick of the monitor
//!   UNWATCHED --------------------------------------> QUIET ----------------------------------> RAISED
//!       ^                                               ^                                          |
//!       |                                               '----------------- take: the hub ----------'
//!       '---- unwatch: the monitor, some ticks later, from QUIET or RAISED
//! ```
//!
//! A thread without a hub has a flag that stays QUIET: there is nothing to poll, and no thread to let run.
//!
//! | state | `raised` | `watched` |
//! |---|---|---|
//! | UNWATCHED | true | false |
//! | QUIET | false | true, or there is no hub |
//! | RAISED | true | true |
//!
//! The flag is two bytes with plain loads and stores, since a hub's own path has no instruction that locks the bus.
//! The price is a race. A hub takes a raise back (`raised = false`) at the very moment at which the monitor unwatches
//! (`watched = false`, `raised = true`), the store of the hub comes last, and nothing would raise the flag again. So
//! the monitor raises the flag once more a tick later: by then the hub sees that it is not watched, and takes nothing
//! back.
//!
//! All accesses are Relaxed: the bytes guard no other data, and what is seen late is seen at a later checkpoint.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

/// The preempt flag of one hub; see the picture of the file.
#[derive(Debug)]
pub(crate) struct PreemptFlag {
    /// Whether a checkpoint has to ask further.
    raised: AtomicBool,
    /// Whether the monitor raises the flag.
    watched: AtomicBool,
}

/// The decision at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preempt {
    /// The thread goes on.
    No,
    /// Let others run: a tick has passed.
    Yes,
    /// Read the clock and decide.
    AskClock,
}

impl PreemptFlag {
    /// Creates a flag that stays QUIET until [`unwatch`](Self::unwatch).
    pub(crate) const fn new() -> PreemptFlag {
        PreemptFlag { raised: AtomicBool::new(false), watched: AtomicBool::new(false) }
    }

    /// Reports whether [`take`](Self::take) may return anything but "no". One load.
    #[inline(always)]
    pub(crate) fn is_set(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// Returns the decision, and takes a raise back. Only the hub's thread calls this.
    pub(crate) fn take(&self) -> Preempt {
        if !self.is_set() {
            return Preempt::No;
        }
        if !self.watched.load(Ordering::Relaxed) {
            return Preempt::AskClock;
        }
        self.raised.store(false, Ordering::Relaxed);
        Preempt::Yes
    }

    /// Makes the monitor raise the flag from now on. Only the hub's thread calls this, and only on an unwatched flag.
    pub(crate) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
        self.raised.store(false, Ordering::Relaxed);
    }

    /// Raises the flag at a tick. Only the monitor calls this; once more a tick after [`unwatch`](Self::unwatch).
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }

    /// Makes the flag stay QUIET from now on, as in a thread without a hub: in the child of a fork, which the monitor
    /// has not followed. Async-signal-safe.
    pub(crate) fn retire(&self) {
        self.raised.store(false, Ordering::Relaxed);
    }

    /// Makes the hub read the clock from now on. Called by the monitor, or by the hub before the monitor knows of it.
    pub(crate) fn unwatch(&self) {
        self.watched.store(false, Ordering::Relaxed);
        self.raised.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_flag_says_no() {
        let flag = PreemptFlag::new();
        assert!(!flag.is_set());
        assert_eq!(flag.take(), Preempt::No);
    }

    #[test]
    fn a_raise_is_taken_once() {
        let flag = PreemptFlag::new();
        flag.watch();
        flag.raise();
        flag.raise();
        assert!(flag.is_set());
        assert_eq!([flag.take(), flag.take()], [Preempt::Yes, Preempt::No]);
    }

    #[test]
    fn an_unwatched_flag_asks_for_the_clock_until_it_is_watched() {
        let flag = PreemptFlag::new();
        flag.unwatch();
        flag.raise();
        assert!(flag.is_set());
        assert_eq!([flag.take(), flag.take()], [Preempt::AskClock, Preempt::AskClock]);
        flag.watch();
        assert_eq!(flag.take(), Preempt::No);
    }

    /// The monitor unwatches while the hub takes its last raise: the hub must not be left with a flag that is never
    /// raised.
    #[test]
    fn the_end_of_a_watch_is_never_lost() {
        for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
            let flag = PreemptFlag::new();
            flag.unwatch();
            flag.watch();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    flag.raise();
                    flag.unwatch();
                });
                for _ in 0..3 {
                    flag.take();
                }
            });
            // A tick later: the hub has seen the end of the watch by now.
            flag.raise();
            assert_eq!([flag.take(), flag.take()], [Preempt::AskClock, Preempt::AskClock]);
        }
    }
}
