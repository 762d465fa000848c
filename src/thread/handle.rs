//! [`Thread`]: a handle of a green thread that any OS thread may hold.
#![forbid(unsafe_code)]

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::runtime::hub::{Hub, existing_hub};
use crate::runtime::remote_queue::{RemoteOp, RemoteQueue};
use crate::runtime::thread_info::ThreadInfo;
use crate::switch::fiber::{Fiber, FiberRef};
use crate::switch::remote_fiber::RemoteFiber;
use crate::switch::root::Root;

/// A green thread's identity: unique in the process, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadId {
    /// The number of the thread's hub.
    hub: u64,
    /// The thread's number there. Numbers begin at 1, so that an `Option<ThreadId>` is no larger.
    number: NonZeroU64,
}

impl ThreadId {
    /// Returns the identity of a fiber of the calling OS thread.
    pub(super) fn here(fiber: FiberRef) -> ThreadId {
        ThreadId::of(RemoteFiber::of_finished(fiber.id()))
    }

    /// Returns the identity of a fiber of any OS thread.
    fn of(fiber: RemoteFiber) -> ThreadId {
        let (hub, number) = fiber.identity();
        match NonZeroU64::new(number) {
            Some(number) => ThreadId { hub, number },
            None => unreachable!("fibers are counted from 1"),
        }
    }
}

impl ThreadInfo {
    /// Returns the thread's identity, as [`Thread::id`] does.
    ///
    /// May switch: no.
    pub fn thread_id(&self) -> ThreadId {
        let Some(number) = NonZeroU64::new(self.id) else { unreachable!("fibers are counted from 1") };
        ThreadId { hub: self.hub, number }
    }
}

impl fmt::Debug for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadId({}.{})", self.hub, self.number)
    }
}

/// A handle of a green thread: the name, the id, and a way to [`unpark`](Self::unpark) the thread from anywhere.
///
/// While such a handle exists, a hub reports no deadlock when all threads are parked: the handle's holder
/// may still unpark one.
pub struct Thread {
    /// The way to the thread's hub; none if the hub is gone already.
    remote_queue: Option<Arc<RemoteQueue>>,
    /// The fiber, in a form in which its own OS thread finds it again.
    fiber: RemoteFiber,
    /// The name at the time when the handle was made.
    name: Option<Arc<str>>,
}

impl Thread {
    /// Makes the handle of `fiber`, which is one of `hub`'s.
    pub(super) fn of(root: &Root, fiber: Fiber, hub: &Hub) -> Thread {
        // The hub reports no deadlock while this count is not 0.
        hub.remote_queue().add_handle();
        Thread { remote_queue: Some(Arc::clone(hub.remote_queue())), fiber: root.to_remote(fiber), name: fiber.name() }
    }

    /// Makes the handle of a thread of this OS thread after the hub is gone: there is nothing left to unpark.
    pub(super) fn of_finished(id: u64) -> Thread {
        Thread { remote_queue: None, fiber: RemoteFiber::of_finished(id), name: None }
    }

    /// Returns the thread's identity.
    ///
    /// May switch: no.
    pub fn id(&self) -> ThreadId {
        ThreadId::of(self.fiber)
    }

    /// Returns the thread's name, if the thread has one.
    ///
    /// May switch: no.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Gives the thread the permit: the current or next [`park`](super::park) of the thread returns. Does nothing if
    /// the thread has ended.
    ///
    /// Any OS thread may call this. Within one OS thread the call takes effect at once. From another one the call sends
    /// a remote op to the thread's hub, and wakes the hub if that sleeps; a remote op that is on its way already is not
    /// sent again, so no number of calls fills memory. As with std, what the caller wrote before happens before the
    /// park returns.
    ///
    /// May switch: no.
    #[inline]
    pub fn unpark(&self) {
        // A fiber of this OS thread gets the permit at once; any other by way of its hub.
        if let Some(root) = existing_hub().map(Hub::root)
            && root.is_local(self.fiber)
        {
            if let Some(fiber) = root.resolve_remote(self.fiber) {
                root.give_permit(fiber);
            }
        } else if let Some(remote_queue) = &self.remote_queue {
            send_permit(remote_queue, self.fiber);
        }
    }
}

/// Unparks a thread of another OS thread.
#[cold]
#[inline(never)]
fn send_permit(remote_queue: &RemoteQueue, fiber: RemoteFiber) {
    remote_queue.send(RemoteOp::Unpark(fiber));
}

impl Clone for Thread {
    fn clone(&self) -> Thread {
        if let Some(remote_queue) = &self.remote_queue {
            remote_queue.add_handle();
        }
        Thread { remote_queue: self.remote_queue.clone(), fiber: self.fiber, name: self.name.clone() }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(remote_queue) = &self.remote_queue {
            remote_queue.drop_handle();
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}
