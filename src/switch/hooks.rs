//! Hooks on switches: functions of the program that are told which thread leaves the CPU, and which one comes.
//!
//! ```text
//!   A runs           A leaves          poll           B comes           B runs
//!   ------------->   hook: Leaves(A)   ----------->   hook: Comes(B)   ------------->
//! ```
//!
//! This file has the list and calls them; `traced` says when, and under which thread-locals. A hook may set and end
//! hooks, itself too, so nothing of the list is borrowed during a call.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::pure::drops::{drop_quietly, drop_safely};

/// What a hook on switches is told; see [`hub::on_switch`](crate::hub::on_switch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// The thread gives the CPU away: it waits, lets others run, switches to a greenlet, or has ended.
    Leaves {
        /// The number of the thread, as [`ThreadInfo::id`](crate::hub::ThreadInfo::id) has it; main's is 1.
        thread: u64,
        /// Whether the thread has ended, and so never comes again.
        ended: bool,
    },
    /// The thread gets the CPU, and goes on when the hooks have returned.
    Comes {
        /// The number of the thread, as in `Leaves`.
        thread: u64,
        /// Whether the thread has not run before.
        new: bool,
    },
}

/// A hook of the program.
struct Hook {
    /// The number of the hook; later hooks have greater ones.
    number: u64,
    /// The function. Borrowed during a call only; a hook cannot switch, and so is not called inside a call.
    call: RefCell<Box<dyn FnMut(Switch) + Send>>,
}

/// The hooks of one OS thread.
#[derive(Default)]
pub(super) struct Hooks {
    /// The hooks, by ascending number.
    list: RefCell<Vec<Rc<Hook>>>,
    /// The number given out last.
    last: Cell<u64>,
    /// The thread that came last, by its id; 0 if it has left.
    pub(super) running: Cell<u64>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Hooks {
    /// Adds a hook. Returns its number.
    pub(super) fn add(&self, call: Box<dyn FnMut(Switch) + Send>) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.list.borrow_mut().push(Rc::new(Hook { number, call: RefCell::new(call) }));
        number
    }

    /// Removes a hook, if it is there. What the hook has captured is dropped at once; after the call, if it is being
    /// called.
    pub(super) fn remove(&self, number: u64) {
        let mut list = self.list.borrow_mut();
        let hook = list.iter().position(|hook| hook.number == number).map(|index| list.remove(index));
        drop(list);
        // A destructor of the program.
        drop_safely(hook);
    }

    /// Removes all hooks. A destructor that panics has been reported by the panic hook.
    pub(super) fn clear(&self) {
        self.list.take().into_iter().for_each(drop_quietly);
    }

    /// Reports whether there is no hook.
    pub(super) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Calls the hooks, those that were set first before the others. A hook that panics is removed. Returns how many
    /// have panicked; the panic hook has printed why.
    pub(super) fn call(&self, switch: Switch) -> usize {
        let (mut done, mut failed) = (0, 0);
        loop {
            let next = self.list.borrow().iter().find(|hook| hook.number > done).cloned();
            let Some(hook) = next else { break };
            done = hook.number;
            let call = || hook.call.try_borrow_mut().map(|mut call| call(switch)).unwrap_or_default();
            if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
                drop_quietly(payload);
                // The function itself is dropped below.
                self.remove(hook.number);
                failed += 1;
            }
            drop_quietly(hook);
        }
        failed
    }
}
