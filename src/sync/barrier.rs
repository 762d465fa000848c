//! A meeting point of several threads.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;

use super::wait_queue::WaitQueue;
use crate::runtime::checkpoint::checkpoint_if;
use crate::switch::fiber::Reason;

/// std's `Barrier` for the green threads of one OS thread.
///
/// ```
/// use std::rc::Rc;
/// use greenling::{spawn, sync::Barrier};
///
/// let meeting = Rc::new(Barrier::new(3));
/// let threads: Vec<_> = (0..3)
///     .map(|_| {
///         let meeting = Rc::clone(&meeting);
///         spawn(move || meeting.wait().is_leader())
///     })
///     .collect();
/// let leaders = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|leads| *leads).count();
/// assert_eq!(leaders, 1);
/// ```
pub struct Barrier {
    /// The number of threads that meet.
    size: usize,
    /// The number of threads that wait now.
    here: Cell<usize>,
    /// The threads that wait.
    queue: WaitQueue,
}

/// The result of [`Barrier::wait`]: which of the threads the caller was.
#[derive(Clone, Copy)]
pub struct BarrierWaitResult(
    /// Set for the last thread to arrive.
    bool,
);

impl BarrierWaitResult {
    /// Reports whether the caller completed the meeting, which is true for exactly one of its threads.
    ///
    /// May switch: no.
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult").field("is_leader", &self.0).finish()
    }
}

impl Barrier {
    /// Creates a barrier for `size` threads. As with std's, 0 is like 1: no thread waits.
    ///
    /// May switch: no.
    pub const fn new(size: usize) -> Barrier {
        Barrier { size, here: Cell::new(0), queue: WaitQueue::new() }
    }

    /// Waits until all threads have arrived. Then the barrier begins anew.
    ///
    /// A thread that is killed or times out while it waits has not arrived: another thread must come.
    ///
    /// # Panics
    /// If the call would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless the caller is the last.
    pub fn wait(&self) -> BarrierWaitResult {
        checkpoint_if(|| self.here.get() + 1 >= self.size);
        let here = self.here.get() + 1;
        if here >= self.size {
            // The last thread to arrive lets the others go. The count is that of the next meeting then.
            self.here.set(0);
            self.queue.choose_all();
            return BarrierWaitResult(true);
        }
        self.here.set(here);
        // A waiter that was chosen has met the others, even if it unwinds.
        self.queue.wait_or_panic(
            Reason::Event("a Barrier"),
            || "a Barrier",
            |chosen| {
                if !chosen {
                    self.here.set(self.here.get() - 1);
                }
            },
        );
        BarrierWaitResult(false)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}
