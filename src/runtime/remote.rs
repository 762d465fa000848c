//! Waiting for another hub: a waiter is left behind a lock, and the OS thread that ends the wait sends a remote op.
//!
//! ```text
//!   one hub                                      another OS thread
//!   lock; is it so? no: leave a Waiter; unlock   lock; make it so; take the Waiter; unlock
//!   park(Remote)                                 Waiter::wake  ---- RemoteOp::Wake ---->
//!   try again
//! ```
//!
//! No wake-up is lost: the waiter is left under the same lock under which the test was made, and a remote op that comes
//! before the park waits in the inbox, which is read only after the park. A remote op may come too late, because the
//! wait was unwound. Then the fiber is gone or waits for something else, and the op is dropped; or the fiber waits for
//! another hub again, and tries once more for nothing. So every wait here is a loop.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::caller::Caller;
use super::hub::existing_hub;
use super::park::{Counted, Wake};
use super::remote_queue::{RemoteOp, RemoteQueue};
use crate::switch::cancel::Obstacle;
use crate::switch::fiber::Reason;
use crate::switch::remote_fiber::RemoteFiber;
use crate::switch::root::Root;

/// A waiting fiber, in a form that any OS thread may hold.
#[derive(Clone)]
pub(crate) struct Waiter {
    /// The remote queue of the fiber's hub.
    remote_queue: Arc<RemoteQueue>,
    /// The fiber, by a name that its own OS thread resolves.
    fiber: RemoteFiber,
}

impl Waiter {
    /// Makes a waiter of `caller`.
    #[inline]
    pub(crate) fn new(caller: Caller) -> Waiter {
        Waiter { remote_queue: Arc::clone(caller.hub.remote_queue()), fiber: caller.root.to_remote(caller.fiber) }
    }

    /// Reports whether the fiber will never run again, since its hub has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.remote_queue.is_closed()
    }

    /// Reports whether the fiber is one of the root with this number.
    #[cfg(feature = "monkey")]
    pub(crate) fn is_of(&self, root: u64) -> bool {
        self.fiber.identity().0 == root
    }

    /// Reports whether `other` is the same fiber.
    pub(crate) fn is(&self, other: &Waiter) -> bool {
        self.fiber == other.fiber
    }

    /// Wakes the fiber, so that it tries again: at once on the fiber's own OS thread, else by a remote op.
    pub(crate) fn wake(&self) {
        if let Some(root) = root_of(&self.remote_queue) {
            // Here. A fiber that is gone, or waits for something else meanwhile, is left alone.
            if let Some(fiber) = root.resolve_remote(self.fiber)
                && fiber.waits_for().is_remote()
            {
                root.wake(fiber);
            }
            return;
        }
        // Elsewhere: the fiber's own hub makes the same test.
        self.remote_queue.send(RemoteOp::Wake(self.fiber));
    }
}

/// Returns the calling OS thread's root, if `remote_queue` is that thread's.
#[inline]
pub(crate) fn root_of(remote_queue: &Arc<RemoteQueue>) -> Option<&'static Root> {
    // An OS thread without a hub has no remote queue.
    let hub = existing_hub()?;
    Arc::ptr_eq(hub.remote_queue(), remote_queue).then(|| hub.root())
}

/// Reports whether `remote_queue` is that of the calling OS thread's hub.
pub(crate) fn is_here(remote_queue: &Arc<RemoteQueue>) -> bool {
    root_of(remote_queue).is_some()
}

impl Caller {
    /// Parks until a [`Waiter`] of the caller is woken. Something outside this hub may do that, and so the wait is no
    /// deadlock.
    ///
    /// # Errors
    /// As [`park`](Self::park).
    ///
    /// # Panics
    /// As [`park`](Self::park).
    #[inline]
    pub(crate) fn wait_remote(self, what: &'static str, deadline: u64) -> Result<Wake, Obstacle> {
        let _counted = Counted::in_count(&self.hub.jobs);
        self.wait_remote_uncounted(what, deadline)
    }

    /// Parks as [`wait_remote`](Self::wait_remote), where nothing outside this hub can wake the caller: a hub that can
    /// do nothing else is in a deadlock.
    ///
    /// # Errors
    /// As [`park`](Self::park).
    ///
    /// # Panics
    /// As [`park`](Self::park).
    #[inline]
    pub(crate) fn wait_remote_uncounted(self, what: &'static str, deadline: u64) -> Result<Wake, Obstacle> {
        self.park(Reason::Remote(what), deadline)
    }
}
