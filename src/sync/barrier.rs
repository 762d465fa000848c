//! A meeting point.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;

use super::line::Line;
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
    /// How many meet.
    size: usize,
    /// How many are here.
    here: Cell<usize>,
    /// They.
    line: Line,
}

/// Which of the threads at a [`Barrier`] the caller was.
#[derive(Clone, Copy)]
pub struct BarrierWaitResult(
    /// Whether it was the last.
    bool,
);

impl BarrierWaitResult {
    /// Whether it was the one that completed the meeting; true for exactly one of them.
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
    /// One for `size` threads. As with std's, 0 is like 1: nobody waits.
    ///
    /// May switch: no.
    pub const fn new(size: usize) -> Barrier {
        Barrier { size, here: Cell::new(0), line: Line::new() }
    }

    /// Waits until all are here. Then it begins anew.
    ///
    /// A thread that is killed or times out while it waits was not here: another one must come.
    ///
    /// # Panics
    /// If it would have to wait while the caller unwinds from a panic or kill. Unwinds with a kill or an expired
    /// [`timeout`](crate::timeout); panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, unless the caller is the last.
    pub fn wait(&self) -> BarrierWaitResult {
        let here = self.here.get() + 1;
        if here >= self.size {
            self.here.set(0);
            self.line.choose_all();
            return BarrierWaitResult(true);
        }
        self.here.set(here);
        self.line.wait_or_panic(
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
