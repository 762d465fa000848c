//! The part that all locks between hubs share: the wait in the queue, the kinds of waiters, and the name of the holder.
//!
//! ```text
//!   a green thread, or main of a hub     parks; woken directly on its own OS thread, by a remote op from another one
//!   an OS thread without a hub           sleeps in the kernel; gets no hub for that
//! ```
//!
//! The queue itself, and the reason why no unit of a lock is lost, is `pure::turns`. This file adds the beginning and
//! the end of a wait:
//!
//! ```text
//!   Caller::current: may the caller wait, and how? ---- no --> refused; nothing has happened
//!     |
//!   enter the queue -- units are free --> chosen
//!     |
//!   tell the hub (SharedWait), park <---------------------------------------+
//!     |    woken, and chosen ------------------------> chosen               |
//!     |    woken, and not chosen: a remote op of an earlier wait ------------'
//!     |      or the holder's hub has ended, and the holder with it ---> refused
//!     |    time is up ------> leave the queue; was the caller chosen? chosen : timed out
//!     |    kill ------------> leave the queue; was the caller chosen? pass it on; unwind
//!     '    the hub ends ----> the hub leaves the queue for the waiter (`abandon`), and passes on
//! ```
//!
//! * Invariant shared-lock-1: `root` of a `HolderCell` names the OS thread of a holder only while that thread holds.
//!   The holder stores the name itself, after taking, and removes the name before giving. So a thread that reads the
//!   name of its own OS thread reads the truth, whatever the order of memory: that value is the last that this OS
//!   thread wrote, and no other thread writes it. The name of another OS thread may be old; it serves reports, and
//!   `holder_is_gone`, which orders its reads.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once, OnceLock};
use std::time::Duration;

use crate::pure::lock::lock;
use crate::pure::slab::Key;
use crate::pure::turns::{Ticket, Turns, Wake};
use crate::runtime::caller::Caller;
use crate::runtime::ended::{self, SharedQueue};
use crate::runtime::hub::Hub;
use crate::runtime::park;
use crate::runtime::remote::Waiter;
use crate::runtime::report::{holder_label, label_of};
use crate::runtime::shared_waits::SharedWait;
use crate::switch::cancel::{self, Obstacle};
use crate::switch::fiber::{Held, Holder, Reason};
use crate::switch::root::{MAIN_ID, Root, existing_root, identity};
use crate::sys::clock::{NEVER, monotonic_ns};

/// The name of the thread that holds a lock.
#[derive(Debug)]
pub(super) struct HolderCell {
    /// The OS thread, as in [`Holder`] (shared-lock-1).
    root: AtomicU64,
    /// The thread, as in [`Holder`].
    id: AtomicU64,
}

impl HolderCell {
    /// Notes that the caller has the lock now.
    #[inline]
    pub(super) fn set(&self) {
        let me = identity();
        // Relaxed, here and below: shared-lock-1.
        self.id.store(me.id, Ordering::Relaxed);
        self.root.store(me.root, Ordering::Relaxed);
    }

    /// Removes the name, before the caller gives the lock away.
    #[inline]
    pub(super) fn clear(&self) {
        self.root.store(Holder::UNKNOWN.root, Ordering::Relaxed);
    }

    /// Returns the thread that has the lock, if it is known.
    pub(super) fn get(&self) -> Holder {
        match self.root.load(Ordering::Relaxed) {
            0 => Holder::UNKNOWN,
            root => Holder { root, id: self.id.load(Ordering::Relaxed) },
        }
    }
}

/// What a waiter leaves in the queue, to be woken by.
pub(super) enum AnyWaiter {
    /// A fiber, or main of a hub.
    Fiber(Waiter),
    /// An OS thread without a hub.
    OsThread(Parker),
}

impl Wake for AnyWaiter {
    fn wake(&self) {
        match self {
            AnyWaiter::Fiber(waiter) => waiter.wake(),
            AnyWaiter::OsThread(parker) => parker.wake(),
        }
    }
}

/// A place for one OS thread to sleep. Not `std::thread::park`, of which the one token may be meant for another wait of
/// the program.
#[derive(Default)]
pub(super) struct Parker {
    /// Set by a wake-up, until the next sleep ends.
    woken: Mutex<bool>,
    /// The kernel's side of the sleep.
    condvar: Condvar,
}

impl Parker {
    /// Wakes the OS thread.
    fn wake(&self) {
        *lock(&self.woken) = true;
        self.condvar.notify_one();
    }

    /// Sleeps until woken, or until `deadline` (monotonic nanoseconds). Reports whether the thread was woken. The next
    /// sleep waits for another wake-up.
    fn sleep(&self, deadline: u64) -> bool {
        let mut woken = lock(&self.woken);
        while !*woken {
            // Either sleep may end spuriously: the flag says whether this thread was woken.
            if deadline == NEVER {
                woken = self.condvar.wait(woken).unwrap_or_else(std::sync::PoisonError::into_inner);
                continue;
            }
            let left = deadline.saturating_sub(monotonic_ns());
            if left == 0 {
                break;
            }
            let slept = self.condvar.wait_timeout(woken, Duration::from_nanos(left));
            woken = slept.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        std::mem::take(&mut *woken)
    }
}

/// What a chosen waiter owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// Units, which are given back if the waiter does not want them any more.
    Units,
    /// A notification, which is passed on to the next waiter then.
    Notification,
    /// Nothing: all waiters are woken together, and look at the state again.
    Wakeup,
}

/// The shared part of a lock. In an `Arc`, so that a waiter's hub can finish the wait when the hub ends.
pub(super) struct LockCore {
    /// The units, and the queue.
    pub(super) turns: Turns<AnyWaiter>,
    /// The holder, for locks that have one.
    pub(super) holder: HolderCell,
    /// What a chosen waiter owns.
    grant: Grant,
    /// Completed once a thread has waited, and `runtime::ended` knows the queue.
    registered: Once,
}

impl LockCore {
    /// Passes on what a chosen waiter got, and does not want any more.
    fn pass_on(&self, wants: usize) {
        match self.grant {
            Grant::Units => self.turns.give(wants),
            Grant::Notification => self.turns.notify(false),
            Grant::Wakeup => {}
        }
    }
}

impl SharedQueue for LockCore {
    fn holder(&self) -> Holder {
        self.holder.get()
    }

    fn abandon(&self, number: u64, wants: usize) {
        if self.turns.leave(number) {
            self.pass_on(wants);
        }
    }

    fn wake_all(&self) {
        self.turns.wake_all();
    }
}

/// A lock without its value. The shared part is made on first use, so that the constructor can be `const`.
pub(super) struct RawLock {
    /// The shared part, once the lock was used.
    core: OnceLock<Arc<LockCore>>,
    /// The number of units at the beginning.
    units: usize,
    /// What a chosen waiter owns.
    grant: Grant,
}

impl RawLock {
    /// Returns a lock with that number of units.
    pub(super) const fn new(grant: Grant, units: usize) -> RawLock {
        RawLock { core: OnceLock::new(), units, grant }
    }

    /// Returns the shared part, and makes the value first if this is the first use.
    #[inline]
    pub(super) fn core(&self) -> &Arc<LockCore> {
        match self.core.get() {
            Some(core) => core,
            None => self.make_core(),
        }
    }

    /// Returns the shared part, if the lock was used.
    pub(super) fn existing(&self) -> Option<&Arc<LockCore>> {
        self.core.get()
    }

    /// Returns the number of units at the beginning.
    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// Makes the shared part.
    #[cold]
    #[inline(never)]
    fn make_core(&self) -> &Arc<LockCore> {
        self.core.get_or_init(|| {
            let holder = HolderCell { root: AtomicU64::new(Holder::UNKNOWN.root), id: AtomicU64::new(0) };
            let registered = Once::new();
            Arc::new(LockCore { turns: Turns::new(self.units), holder, grant: self.grant, registered })
        })
    }
}

/// The end of a wait that did not unwind.
#[derive(Debug)]
pub(super) enum Waited {
    /// The caller owns what it waited for.
    Chosen,
    /// The deadline came first.
    TimedOut,
    /// The caller may not wait.
    Refused(WaitRefusal),
}

impl Waited {
    /// Reports whether the caller was chosen. For waits with a deadline: a refused wait counts as one that timed out at
    /// once.
    pub(super) fn is_chosen(&self) -> bool {
        matches!(self, Waited::Chosen)
    }
}

/// The reason why a wait was refused.
#[derive(Debug)]
pub(super) enum WaitRefusal {
    /// The caller is unwinding.
    Obstacle(Obstacle),
    /// There is no hub to wait in, and the caller is no OS thread of its own.
    NoHub(io::Error),
    /// The holder is a green thread of a hub that has ended, and never lets go.
    HolderIsGone,
}

impl fmt::Display for WaitRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitRefusal::Obstacle(obstacle) => obstacle.fmt(f),
            WaitRefusal::NoHub(error) => error.fmt(f),
            WaitRefusal::HolderIsGone => {
                f.write_str("the holder was suspended when its OS thread ended, and never lets go")
            }
        }
    }
}

/// Panics with the thread that could not wait, what it wanted, and the reason. For waits without a deadline: there is
/// no error to return, and going on without what was waited for would be wrong.
#[cold]
#[inline(never)]
pub(super) fn refused(refusal: &WaitRefusal, what: &dyn fmt::Display) -> ! {
    panic!("greenling: {} cannot wait for {what}: {refusal}", Label(identity()));
}

/// A thread of any hub, in messages.
pub(super) struct Label(pub(super) Holder);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, existing_root()) {
            (Holder::UNKNOWN, _) => f.write_str("another thread"),
            // The OS thread has no hub, and so no other green thread than main.
            (holder, None) if holder.root == identity().root => f.write_str("main"),
            (holder, _) => f.write_str(&holder_label(holder, |id| label_of(id).to_string())),
        }
    }
}

/// Reports whether this process is the child of a fork of a thread that had a hub. The lock of a queue may be held for
/// ever here.
fn in_forked_child() -> bool {
    existing_root().is_some_and(Root::is_forked)
}

/// The way in which the caller waits.
enum AnyCaller {
    /// The caller is a fiber, which parks.
    Fiber(Caller),
    /// The caller is an OS thread without a hub, which sleeps.
    OsThread,
}

impl AnyCaller {
    /// Returns the way in which the current caller waits.
    fn current() -> Result<AnyCaller, WaitRefusal> {
        // There is no hub yet, or none any more.
        let Some(root) = existing_root() else { return Ok(AnyCaller::OsThread) };
        let me = root.current();
        if !root.has_scheduler() && me.is_main() && !me.pending.any() && !root.is_forked() {
            return Ok(AnyCaller::OsThread);
        }
        if let Some(obstacle) = cancel::obstacle() {
            return Err(WaitRefusal::Obstacle(obstacle));
        }
        match Caller::of(root) {
            Ok(caller) => Ok(AnyCaller::Fiber(caller)),
            Err(error) => Err(WaitRefusal::NoHub(error)),
        }
    }
}

/// A wait from the place in the queue to its end, whatever ends it.
struct WaitGuard<'a> {
    core: &'a Arc<LockCore>,
    /// The place in the queue.
    ticket: &'a Ticket<AnyWaiter>,
    /// The number of units that the waiter wants.
    wants: usize,
    /// The waiter's hub, and the key of the wait there.
    at: Option<(&'static Hub, Key)>,
    /// Set when the place was left or used.
    done: bool,
}

impl WaitGuard<'_> {
    /// Leaves the queue. Returns true if the waiter was chosen before.
    fn leave(&mut self) -> bool {
        self.done = true;
        self.core.turns.leave(self.ticket.number())
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        if let Some((hub, key)) = self.at {
            hub.shared_waits().remove(key);
        }
        if !self.done && self.leave() {
            self.core.pass_on(self.wants);
        }
    }
}

/// What a caller waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// The number of units; 0 for a notification.
    pub(super) wants: usize,
    /// The reason of the wait, for reports.
    pub(super) reason: Reason,
    /// The end of the wait, in monotonic nanoseconds.
    pub(super) deadline: u64,
}

impl Request {
    /// Returns the request for units of a lock that has a holder.
    pub(super) fn held(held: Held, wants: usize, deadline: u64) -> Request {
        Request { wants, reason: Reason::Shared(held, Holder::UNKNOWN), deadline }
    }
}

impl LockCore {
    /// Waits at the end of the queue until the caller is chosen, or the deadline has come. `still` is asked under the
    /// queue's lock whether there is anything to wait for; if not, the caller counts as chosen. `begun` is called once
    /// the caller has its place in the queue, before the wait.
    ///
    /// # Panics
    /// As `park`.
    pub(super) fn wait(
        self: &Arc<LockCore>,
        request: Request,
        still: impl FnOnce() -> bool,
        begun: impl FnOnce(),
    ) -> Waited {
        let Request { wants, reason, deadline } = request;
        let caller = match AnyCaller::current() {
            Ok(caller) => caller,
            Err(refusal) => return Waited::Refused(refusal),
        };
        let waiter = match &caller {
            AnyCaller::Fiber(caller) => AnyWaiter::Fiber(Waiter::new(*caller)),
            AnyCaller::OsThread => AnyWaiter::OsThread(Parker::default()),
        };
        let queue = || Arc::clone(self) as Arc<dyn SharedQueue>;
        // The first wait makes the queue known to hubs that end.
        self.registered.call_once(|| ended::register(&queue()));
        // Enter the queue. Whether hubs have ended is asked under the queue's lock, after which their end wakes this
        // waiter.
        let mut any_ended = false;
        let check = || {
            any_ended = ended::any();
            still()
        };
        let Some(ticket) = self.turns.enter(wants, waiter, check) else {
            begun();
            return Waited::Chosen;
        };
        let mut guard = WaitGuard { core: self, ticket: &ticket, wants, at: None, done: false };
        // The hub of a fiber ends the wait if the hub ends first.
        if let AnyCaller::Fiber(Caller { hub, fiber, .. }) = caller {
            let wait = SharedWait { fiber, queue: queue(), number: ticket.number(), wants };
            guard.at = Some((hub, hub.shared_waits().add(wait)));
        }
        begun();
        // Wait until chosen. Other wake-ups come late from earlier waits, or tell of the end of a hub.
        while !ticket.is_chosen() {
            // ended-1 in `runtime::ended`.
            if any_ended && self.holder_is_gone() {
                return Waited::Refused(WaitRefusal::HolderIsGone);
            }
            let woken = match (&caller, ticket.waiter()) {
                (AnyCaller::Fiber(caller), _) => match caller.park(reason, deadline) {
                    Ok(wake) => wake == park::Wake::Woken,
                    Err(obstacle) => return Waited::Refused(WaitRefusal::Obstacle(obstacle)),
                },
                (AnyCaller::OsThread, AnyWaiter::OsThread(parker)) => parker.sleep(deadline),
                (AnyCaller::OsThread, AnyWaiter::Fiber(_)) => unreachable!("the waiter is of the kind of its caller"),
            };
            // The time is up, unless a release was faster.
            if !woken {
                return if guard.leave() { Waited::Chosen } else { Waited::TimedOut };
            }
            any_ended = ended::any();
        }
        guard.done = true;
        Waited::Chosen
    }

    /// Reports whether the holder is a green thread that never runs again. Main may let go yet, in the destructor of a
    /// thread-local.
    fn holder_is_gone(&self) -> bool {
        let holder = self.holder.get();
        // The holder is read again after the question: its lock orders this read after all that threads of an ended
        // hub ever did.
        holder != Holder::UNKNOWN && holder.id != MAIN_ID && ended::has_ended(holder) && self.holder.get() == holder
    }

    /// Gives units back. In the child of a fork the queue is left alone, and what threads of the parent wait for stays
    /// taken.
    #[inline]
    pub(super) fn give(&self, count: usize) {
        if !self.turns.has_waiters() || !in_forked_child() {
            self.turns.give(count);
        }
    }

    /// [`give`](Self::give)s the one unit of a mutex.
    #[inline]
    pub(super) fn give_only(&self) {
        if !self.turns.has_waiters() || !in_forked_child() {
            self.turns.give_only();
        }
    }

    /// Chooses the first waiter, or all. In the child of a fork there is none.
    pub(super) fn notify(&self, all: bool) {
        if !in_forked_child() {
            self.turns.notify(all);
        }
    }
}
