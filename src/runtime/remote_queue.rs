//! The remote queue of a hub: what other OS threads send, as an inbox, a queue of work, and one bell for both.
//!
//! Any OS thread may push; the hub's thread drains the queue in each poll. The bell (an eventfd in the hub's epoll set)
//! is rung only when the hub sleeps or is about to sleep, and once however many remote ops arrive: `pure::bell` says
//! why no wake-up can be lost between "the inbox is empty" and "the hub sleeps".
//!
//! The drop of the last handle (a `Thread`, or a `HubHandle`) counts as a message as well, if the hub sleeps because
//! the handle's holder might have sent something: now no sender is left, and that is a deadlock. So the drop rings,
//! too.
//!
//! # Work, and the end of the hub
//!
//! A remote op that is never read is no loss: the fiber that the op would have woken is gone. Work is different. A
//! closure that was posted and is never started has a joiner that waits. So each piece of work is either started by the
//! hub or *abandoned*, by the first side to find out that the hub will not start the work. Both sides act as in
//! `pure::bell`: write, fence, read.
//!
//! ```text
//!     the hub, at the end                        a spawner
//!     1. refusing = true                         1. push the work
//!     2. fence (SeqCst)                          2. fence (SeqCst)
//!     3. take all work there is                  3. refusing? take all work there is, and abandon it
//! ```
//!
//! * Invariant remote-queue-1: a piece of work is started or abandoned, once. If the hub's fence comes first, the
//!   spawner's step 3 sees `refusing`; if the spawner's comes first, the hub's step 3 sees the work. Both sides may
//!   take work; the queue gives each piece to one of them.
//!
//! # Fibers that wait for another hub, and will not go on
//!
//! A fiber that is suspended when its OS thread ends keeps its place in the queue in which it waits, of a channel
//! between hubs say, and may be the next one to go on. So a hub that ends with such fibers raises [`ended_hubs`]
//! after it has closed, and has all other hubs wake every fiber that waits for another hub. A fiber that finds the
//! count changed removes the places of hubs that [have closed](RemoteQueue::is_closed) from its queue.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

use crossbeam_queue::SegQueue;

use crate::pure::inbox::Inbox;
use crate::switch::remote_fiber::RemoteFiber;
use crate::switch::root::{Root, identity};
use crate::sys::eventfd::EventFd;
use crate::sys::fork::fork_generation;
use crate::sys::fork_lock::ForkLock;
use crate::sys::process::thread_id;
use crate::sys::runtime_syscall::runtime_syscall;

/// One remote op: a state of affairs that concerns one fiber. A `RemoteFiber` names the fiber, and only the fiber's own
/// root resolves that name. A second op of the same kind to the same fiber would say nothing new, and is not sent while
/// the first is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RemoteOp {
    /// Give this fiber its permit.
    Unpark(RemoteFiber),
    /// Wake this fiber: what it waits for is done.
    Wake(RemoteFiber),
    /// Kill this fiber: its present wait, or its next one, unwinds.
    Kill(RemoteFiber),
    /// Wake every fiber that waits for another hub: a hub has ended.
    Recheck,
    /// Wake every fiber that waits for this number of a descriptor: it is being closed.
    #[cfg(feature = "monkey")]
    Closed(std::os::fd::RawFd),
}

/// The number of hubs that have ended with fibers that waited for other hubs.
static ENDED_HUBS: AtomicU64 = AtomicU64::new(0);

/// The hubs of this process, some of them ended.
static HUBS: ForkLock<Vec<Weak<RemoteQueue>>> = ForkLock::new();

/// Returns how many hubs have ended with fibers that waited for other hubs.
pub(crate) fn ended_hubs() -> u64 {
    // Acquire: a caller that sees a new count also sees that the hub's remote queue is closed.
    ENDED_HUBS.load(Ordering::Acquire)
}

/// Something that a hub is to start on behalf of another OS thread.
pub(crate) trait Work: Send + Sync {
    /// Makes a fiber of the work. Called by the hub's thread, in a poll. Runs no foreign code.
    fn start(self: Arc<Self>, root: &'static Root);

    /// Gives the work up: the hub will never start the work, or has ended while the work ran. Called by any thread.
    /// Foreign destructors may run.
    fn abandon(&self);
}

/// The OS thread of a hub, for reports.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// The number of the hub's root.
    pub(crate) root: u64,
    /// The kernel's id of the OS thread.
    pub(crate) tid: u32,
    /// The name that std knows.
    pub(crate) name: Option<Arc<str>>,
}

/// What a hub shares with the rest of the process.
pub(crate) struct RemoteQueue {
    /// The OS thread of the hub.
    owner: Owner,
    /// Remote ops, until the hub takes them.
    inbox: Inbox<RemoteOp>,
    /// Wakes the hub out of epoll_wait.
    bell: EventFd,
    /// The hub has ended; remote ops are dropped.
    closed: AtomicBool,
    /// The number of `Thread` handles that may still send a remote op.
    handles: AtomicUsize,
    /// Work that is to be started.
    work: SegQueue<Arc<dyn Work>>,
    /// No work is started any more (remote-queue-1).
    refusing: AtomicBool,
    /// The number of handles that may still post work, or kill.
    spawners: AtomicUsize,
    /// The process the hub belongs to, as a count of forks: a child's copy shares the bell with its parent.
    generation: u32,
}

impl RemoteQueue {
    /// Makes an empty queue with its bell, for the calling OS thread.
    ///
    /// # Errors
    /// Those of eventfd(2).
    pub(crate) fn new() -> io::Result<RemoteQueue> {
        let name = std::thread::current().name().map(Arc::from);
        Ok(RemoteQueue {
            owner: Owner { root: identity().root, tid: thread_id(), name },
            inbox: Inbox::new(),
            bell: EventFd::new()?,
            closed: AtomicBool::new(false),
            handles: AtomicUsize::new(0),
            work: SegQueue::new(),
            refusing: AtomicBool::new(false),
            spawners: AtomicUsize::new(0),
            // A child after fork(2) has another number, and so finds that the queue is its parent's.
            generation: fork_generation(),
        })
    }

    /// Puts the hub on the list of the process: from now on other hubs notify this one when they end.
    pub(crate) fn enlist(self: &Arc<RemoteQueue>) {
        let mut hubs = HUBS.lock();
        hubs.retain(|hub| hub.strong_count() > 0);
        hubs.push(Arc::downgrade(self));
    }

    /// Tells all other hubs that this one, which is closed, has ended with fibers that waited for others.
    pub(crate) fn notify_other_hubs(&self) {
        // Release: pairs with `ended_hubs`.
        ENDED_HUBS.fetch_add(1, Ordering::Release);
        RemoteQueue::send_to_all(RemoteOp::Recheck);
    }

    /// Returns the queues of the hubs of the process that have not ended.
    pub(crate) fn all() -> Vec<Arc<RemoteQueue>> {
        let mut hubs: Vec<_> = HUBS.lock().iter().filter_map(Weak::upgrade).collect();
        hubs.retain(|hub| !hub.is_closed());
        hubs
    }

    /// Returns the OS thread of the hub.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Sends a remote op to all hubs of the process.
    pub(crate) fn send_to_all(op: RemoteOp) {
        let hubs: Vec<_> = HUBS.lock().iter().filter_map(Weak::upgrade).collect();
        hubs.iter().for_each(|hub| hub.send(op));
    }

    /// Reports whether the hub has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sends a remote op; wakes a sleeping hub. Usable from any OS thread.
    pub(crate) fn send(&self, op: RemoteOp) {
        // Relaxed: only saves work. A remote op pushed after the close is never read, and never has to be.
        if self.closed.load(Ordering::Relaxed) || self.generation != fork_generation() {
            return;
        }
        // The queue may yield the OS thread for a moment, and with the feature `monkey` a green thread that yields lets
        // others run.
        let mark = runtime_syscall();
        let ring = self.inbox.push(op);
        drop(mark);
        if ring {
            self.bell.ring();
        }
    }

    /// Posts work; wakes a sleeping hub. If the hub does not start work any more, the work is abandoned, now. Usable
    /// from any OS thread, but foreign destructors may run.
    pub(crate) fn post(&self, work: Arc<dyn Work>) {
        // Relaxed: this first test only saves work.
        if self.refusing.load(Ordering::Relaxed) || self.generation != fork_generation() {
            return work.abandon();
        }
        self.work.push(work);
        // Pairs with the fence in `refuse` (remote-queue-1).
        fence(Ordering::SeqCst);
        if self.refusing.load(Ordering::Relaxed) {
            while let Some(work) = self.work.pop() {
                work.abandon();
            }
        } else if self.inbox.must_ring() {
            self.bell.ring();
        }
    }

    /// Ends the starting of work: the hub starts what is there now, and after that no work any more.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::Relaxed);
        // Pairs with the fence in `post` (remote-queue-1).
        fence(Ordering::SeqCst);
    }

    /// Takes the oldest work. Only the hub's thread calls this.
    pub(crate) fn take_work(&self) -> Option<Arc<dyn Work>> {
        // `pop` costs a fence even if the queue is empty.
        if self.work.is_empty() { None } else { self.work.pop() }
    }

    /// Counts one more handle that may post work.
    pub(crate) fn add_spawner(&self) {
        // Relaxed: as in `add_handle`.
        self.spawners.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one spawner fewer.
    pub(crate) fn drop_spawner(&self) {
        self.drop_one(&self.spawners);
    }

    /// Reports whether a handle is left that may post work. Only the hub's thread calls this.
    pub(crate) fn has_spawners(&self) -> bool {
        // Acquire: see `drop_one`.
        self.spawners.load(Ordering::Acquire) > 0
    }

    /// Counts one more handle.
    pub(crate) fn add_handle(&self) {
        // Relaxed: the caller has a handle already, or is the hub's own thread.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one handle fewer.
    pub(crate) fn drop_handle(&self) {
        self.drop_one(&self.handles);
    }

    /// Takes one off a count. The hub may sleep only because of this one: then the hub must ask again.
    fn drop_one(&self, count: &AtomicUsize) {
        // The bell's fences order this write with the hub's sleep, as they order a remote op: `must_ring` comes after
        // the write here, and the hub reads the count after `prepare_to_sleep`. Release pairs with the Acquire of
        // `has_handles` and `has_spawners`.
        if count.fetch_sub(1, Ordering::Release) == 1
            && !self.closed.load(Ordering::Relaxed)
            && self.generation == fork_generation()
            && self.inbox.must_ring()
        {
            self.bell.ring();
        }
    }

    /// Reports whether a handle is left. Only the hub's thread calls this.
    pub(crate) fn has_handles(&self) -> bool {
        // Acquire: a hub that finds no handle also finds every remote op that the handles sent.
        self.handles.load(Ordering::Acquire) > 0
    }

    /// Returns the bell, for the reactor.
    pub(crate) fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Takes the oldest remote op. Only the hub's thread calls this.
    #[inline]
    pub(crate) fn take(&self) -> Option<RemoteOp> {
        self.inbox.pop()
    }

    /// Reports whether there is no remote op and no work; a few loads. Only the hub's thread calls this.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.inbox.has_messages() && self.work.is_empty()
    }

    /// Announces that the hub is about to sleep. Returns false if a remote op or work is there after all, and the hub
    /// must not sleep.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        if !self.inbox.prepare_to_sleep() {
            return false;
        }
        // The bell's second test, of the second queue: `post` asks `must_ring` after its push.
        if self.work.is_empty() {
            return true;
        }
        self.inbox.woke();
        false
    }

    /// Notes that the hub is awake again.
    pub(crate) fn woke(&self) {
        self.inbox.woke();
    }

    /// Closes the queue: the hub ends.
    pub(crate) fn close(&self) {
        // Relaxed: see `send`.
        self.closed.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work that counts how often it was abandoned, and is never started here.
    struct Count(AtomicUsize);

    impl Work for Count {
        fn start(self: Arc<Self>, _: &'static Root) {
            unreachable!("no hub polls");
        }

        fn abandon(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_hub_with_work_does_not_sleep() {
        let remote_queue = RemoteQueue::new().unwrap();
        assert!(remote_queue.prepare_to_sleep());
        remote_queue.woke();
        // The hub is awake, so this does not ring.
        remote_queue.post(Arc::new(Count(AtomicUsize::new(0))));
        assert!(!remote_queue.is_empty());
        assert!(!remote_queue.prepare_to_sleep());
        assert!(remote_queue.take_work().is_some() && remote_queue.take_work().is_none());
        assert!(remote_queue.prepare_to_sleep());
    }

    #[test]
    fn a_remote_op_that_is_on_its_way_is_not_sent_again() {
        let remote_queue = RemoteQueue::new().unwrap();
        let ops = [RemoteOp::Unpark, RemoteOp::Wake, RemoteOp::Kill].map(|op| op(RemoteFiber::of_finished(7)));
        for _ in 0..1000 {
            ops.iter().for_each(|op| remote_queue.send(*op));
        }
        assert!(std::iter::from_fn(|| remote_queue.take()).eq(ops), "three kinds, and each once");
    }

    #[test]
    fn work_for_a_hub_that_refuses_is_abandoned_once_and_what_came_before_is_the_hubs() {
        let remote_queue = RemoteQueue::new().unwrap();
        let [early, late] = [(), ()].map(|()| Arc::new(Count(AtomicUsize::new(0))));
        remote_queue.post(early.clone());
        remote_queue.refuse();
        remote_queue.post(late.clone());
        assert_eq!(late.0.load(Ordering::Relaxed), 1);
        assert_eq!(early.0.load(Ordering::Relaxed), 0);
        assert!(remote_queue.take_work().is_some() && remote_queue.take_work().is_none());
    }
}
