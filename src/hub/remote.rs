//! Threads on another hub: a closure goes there, its result comes back.
//!
//! ```text
//!   any OS thread                     Shared (behind a lock)            the hub
//!   HubHandle::spawn -- closure ----> | closure   |
//!             `-------- the same Shared, as work, by mail ------------> a look makes a fiber of it
//!                                     | closure   | ------------------> the fiber takes it and runs it
//!   RemoteJoinHandle::join            | outcome   | <------------------ what it returned
//!             parks  <-- a letter --- | joiners   |
//! ```
//!
//! * Invariant T1: `settle` is called for every `Shared` once something has become of its thread, so a joiner never waits
//!   for ever: by the fiber at its end; by `abandon`, if the hub never starts it or ends without being able to unwind
//!   it; by `start`, if there is no stack.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::pure::slab::Key;
use crate::runtime::choose::{AnyArm, Arm, End, Failed, Who};
use crate::runtime::hub::{ending, existing_hub_of, hub, hub_of};
use crate::runtime::mail::{Letter, Mail, Work};
use crate::runtime::park::NEVER;
use crate::runtime::remote::{Waiter, is_here, lock, wait};
use crate::switch::fiber::{Fiber, drop_quietly};
use crate::switch::packet;
use crate::switch::root::{Parcel, Root, existing_root, try_root};
use crate::switch::wait_list::WaitList;
use crate::thread::{JoinError, Outcome, live, wake_quietly};

/// A way to a hub for any OS thread: clone it, send it, share it.
///
/// ```
/// use greenling::hub;
///
/// let (send, receive) = std::sync::mpsc::channel();
/// let (stop, stopped) = hub::channel::<()>(None);
/// let os_thread = std::thread::spawn(move || {
///     send.send(hub::handle()).unwrap();
///     let _ = stopped.recv(); // this OS thread's hub runs what it is sent until `stop` is gone
/// });
/// let there = receive.recv().unwrap();
/// let answer = there.spawn(|| {
///     let local = std::rc::Rc::new(6); // made there, so it need not be `Send`
///     greenling::spawn(move || *local * 7).join().unwrap()
/// });
/// assert_eq!(answer.join().unwrap(), 42);
/// drop(stop);
/// os_thread.join().unwrap();
/// ```
///
/// What goes to another hub must be `Send`; what it makes there need not be, and cannot leave:
///
/// ```compile_fail
/// let local = std::rc::Rc::new(6);
/// greenling::hub::handle().spawn(move || *local);
/// ```
///
/// ```compile_fail
/// greenling::hub::handle().spawn(|| std::rc::Rc::new(6));
/// ```
///
/// # Deadlocks
///
/// While a handle of a hub exists, wherever it is, that hub does not call it a deadlock that all its threads wait: the
/// holder may spawn one that wakes them. A [`RemoteJoinHandle`] is such a handle, too, until it is joined, since it may
/// kill. When the last is dropped the hub looks again. So keep none in the hub it leads to, if reports are wanted there.
/// A thread that waits for a thread of another hub, or in a [`channel`](super::channel), does not wait in vain either,
/// as far as its own hub knows. Cycles over several hubs are not found.
pub struct HubHandle {
    /// The way there; counted in it.
    mail: Arc<Mail>,
}

/// A handle of the calling OS thread's hub, which is made if there is none.
///
/// # Panics
/// If the OS thread is ending, in the child of a fork, and when the kernel refused an epoll instance or an eventfd.
///
/// May switch: no.
pub fn handle() -> HubHandle {
    match hub() {
        Ok((_, hub)) => HubHandle::new(hub.mail()),
        Err(error) => panic!("{error}"),
    }
}

impl HubHandle {
    /// A handle, counted.
    pub(crate) fn new(mail: &Arc<Mail>) -> HubHandle {
        mail.add_poster();
        HubHandle { mail: Arc::clone(mail) }
    }

    /// Runs `f` as a green thread of that hub, with the hub's default stack size, behind what it has to run already.
    ///
    /// If the hub has ended, or ends before it has started the thread, `f` is dropped without being run, as a rule by
    /// the caller of a `spawn`, and [`join`](RemoteJoinHandle::join) says so.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> RemoteJoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let shared = Arc::new(Shared::new(Some(Box::new(f)), Location::caller()));
        let handle = RemoteJoinHandle { shared: Ours(Arc::clone(&shared)), target: self.clone() };
        self.mail.post(shared);
        handle
    }
}

impl Clone for HubHandle {
    fn clone(&self) -> HubHandle {
        HubHandle::new(&self.mail)
    }
}

impl Drop for HubHandle {
    fn drop(&mut self) {
        self.mail.drop_poster();
    }
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubHandle").field("here", &is_here(&self.mail)).finish_non_exhaustive()
    }
}

/// What is to be run.
type Closure<T> = Box<dyn FnOnce() -> T + Send>;

/// What the hub, the thread and the handle share.
pub(crate) struct Shared<T> {
    /// See the file's picture.
    inside: Mutex<Inside<T>>,
    /// Where `spawn` was called.
    spawned_at: &'static Location<'static>,
}

/// See [`Shared`].
struct Inside<T> {
    /// Until the thread starts.
    closure: Option<Closure<T>>,
    /// From its end until it is joined.
    outcome: Option<Outcome<T>>,
    /// The outcome is or was there.
    settled: bool,
    /// It is to be killed, or was.
    killed: bool,
    /// The thread, once it is one.
    fiber: Option<Parcel>,
    /// Who waits for the outcome, each with a number of its own: `join`, or arms of `select!`s that share the handle.
    joiners: Vec<(u64, Waiter)>,
    /// The last number given to one who waits.
    last_joiner: u64,
    /// The task that polls the handle as a future.
    awaiter: Option<Waker>,
}

impl<T: Send + 'static> Shared<T> {
    /// For a thread that will run `closure`; without one, for whoever calls `settle`.
    pub(crate) fn new(closure: Option<Closure<T>>, spawned_at: &'static Location<'static>) -> Shared<T> {
        let inside = Inside {
            closure,
            outcome: None,
            settled: false,
            killed: false,
            fiber: None,
            joiners: Vec::new(),
            last_joiner: 0,
            awaiter: None,
        };
        Shared { inside: Mutex::new(inside), spawned_at }
    }

    /// Leaves the outcome, the first to do so, and wakes the joiners, or the task that awaits it.
    pub(crate) fn settle(&self, outcome: Outcome<T>) {
        let mut inside = lock(&self.inside);
        if inside.settled {
            drop(inside);
            return drop_quietly(outcome);
        }
        inside.settled = true;
        inside.outcome = Some(outcome);
        let (joiners, awaiter) = (mem::take(&mut inside.joiners), inside.awaiter.take());
        drop(inside);
        for (_, joiner) in joiners {
            joiner.wake();
        }
        if let Some(awaiter) = awaiter {
            wake_quietly(awaiter);
        }
    }

    /// Whether something has become of it.
    pub(crate) fn is_settled(&self) -> bool {
        lock(&self.inside).settled
    }

    /// The thread's life, on its own stack. `key`: where its hub keeps it.
    fn run(self: Arc<Self>, root: &Root, fiber: Fiber, key: Key) {
        let closure = lock(&self.inside).closure.take();
        let Some(closure) = closure else { return };
        let began = !fiber.killed.get();
        let mut outcome = live(fiber, closure);
        if root.closing() && outcome.as_ref().is_err_and(JoinError::is_killed) && !lock(&self.inside).killed {
            outcome = Err(JoinError::hub_ended(began));
        }
        if let Some(hub) = try_root().and_then(existing_hub_of) {
            hub.remove_guest(key);
        }
        self.settle(outcome);
        // If nobody wants the outcome, its destructor runs here.
        drop_quietly(self);
    }

    /// The outcome, or `waker` is woken when it is there.
    fn poll(&self, waker: &Waker) -> Poll<Outcome<T>> {
        // Before the lock: a waker's clone is foreign code, and so is an earlier one's drop.
        let waker = waker.clone();
        let mut inside = lock(&self.inside);
        if let Some(outcome) = inside.outcome.take() {
            drop(inside);
            return Poll::Ready(outcome);
        }
        if inside.settled {
            drop(inside);
            return Poll::Ready(Err(JoinError::refused("its result was taken already")));
        }
        let earlier = inside.awaiter.replace(waker);
        drop(inside);
        drop(earlier);
        Poll::Pending
    }

    /// Waits for the outcome. `foreign`: it comes from another hub. See [`RemoteJoinHandle::join`].
    pub(crate) fn wait(&self, what: &'static str, foreign: bool) -> Outcome<T> {
        loop {
            if let Some(outcome) = lock(&self.inside).outcome.take() {
                return outcome;
            }
            let Some(root) = try_root() else { return Err(JoinError::refused(ending())) };
            let hub = match hub_of(root) {
                Ok(hub) => hub,
                Err(error) => return Err(JoinError::refused(error)),
            };
            let me = root.current();
            // Left when the wait is over, however it ends.
            let Some(_place) = Place::take(self, Waiter::new(root, hub, me)) else { continue };
            if let Err(obstacle) = wait(root, hub, me, what, foreign, NEVER) {
                return Err(JoinError::refused(obstacle));
            }
        }
    }
}

/// A place among those who wait for an outcome; left when dropped.
struct Place<'a, T> {
    /// Whose outcome.
    shared: &'a Shared<T>,
    /// Its number.
    number: u64,
}

impl<'a, T> Place<'a, T> {
    /// From now on `waiter` is woken by the outcome. None if that is or was there.
    fn take(shared: &'a Shared<T>, waiter: Waiter) -> Option<Place<'a, T>> {
        let mut inside = lock(&shared.inside);
        if inside.settled {
            return None;
        }
        inside.last_joiner += 1;
        let number = inside.last_joiner;
        inside.joiners.push((number, waiter));
        Some(Place { shared, number })
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        lock(&self.shared.inside).joiners.retain(|(number, _)| *number != self.number);
    }
}

/// The arm of a `select!` that waits for the end of a thread of another hub.
#[doc(hidden)]
pub struct RemoteEndArm<'a, T> {
    /// Where the outcome will be.
    shared: &'a Shared<T>,
    /// Its place among those who wait, once it does.
    place: Cell<Option<Place<'a, T>>>,
}

impl<T: Send + 'static> RemoteEndArm<'_, T> {
    /// For `select!`.
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    pub fn finish(self) {}
}

impl<T: Send + 'static> Arm for RemoteEndArm<'_, T> {
    fn look(&self) -> bool {
        self.shared.is_settled()
    }

    fn enter(&self, _: Who) -> Result<Option<&WaitList>, Failed> {
        let Ok((root, hub)) = hub() else { return Ok(None) };
        match Place::take(self.shared, Waiter::new(root, hub, root.current())) {
            None => Err(Failed),
            place => {
                self.place.set(place);
                Ok(None)
            }
        }
    }

    fn complete(&self) {}

    fn left(&self, _: End) {
        drop(self.place.take());
    }

    fn is_remote(&self) -> bool {
        true
    }
}

impl<T> fmt::Debug for RemoteEndArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteEndArm").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Work for Shared<T> {
    fn start(self: Arc<Self>, root: &'static Root) {
        let Some(hub) = existing_hub_of(root) else { return self.abandon() };
        let key = hub.add_guest(Arc::clone(&self) as Arc<dyn Work>);
        let me = Arc::clone(&self);
        let run = move |fiber: Fiber| me.run(root, fiber, key);
        match packet::launch(root, root.default_shift.get(), self.spawned_at, run) {
            Ok((packet, fiber)) => {
                // Nobody joins the fiber; its outcome goes another way.
                drop(packet);
                let mut inside = lock(&self.inside);
                inside.fiber = Some(root.pack(fiber));
                if inside.killed {
                    root.kill(fiber);
                }
                drop(inside);
                root.enqueue(fiber);
            }
            Err(error) => {
                hub.remove_guest(key);
                self.settle(Err(JoinError::refused(error)));
                // The closure stays inside: its destructor is foreign code, which cannot run in a look. Whoever joins or
                // drops the handle drops it; if the thread was detached, it is leaked.
                mem::forget(self);
            }
        }
    }

    fn abandon(&self) {
        let closure = lock(&self.inside).closure.take();
        let began = closure.is_none();
        if let Some(closure) = closure {
            drop_quietly(closure);
        }
        self.settle(Err(JoinError::hub_ended(began)));
    }
}

/// The right to wait for a green thread of another hub and take its result. Dropping it detaches the thread, which goes on.
///
/// Unlike a [`JoinHandle`](crate::thread::JoinHandle) it can be sent: any OS thread may join, and while it waits its own
/// hub runs.
#[must_use = "dropping the handle detaches the green thread: `join` it, or say `drop(handle)`"]
pub struct RemoteJoinHandle<T> {
    /// Where the result will be.
    shared: Ours<T>,
    /// The thread's hub. It counts as long as this handle may kill.
    target: HubHandle,
}

impl<T: Send + 'static> RemoteJoinHandle<T> {
    /// Waits for the thread to end and returns its result.
    ///
    /// # Errors
    /// [`JoinError`]: the thread panicked (its payload is inside) or was killed; its hub ended first or was shut down
    /// ([`is_hub_ended`](JoinError::is_hub_ended)); its hub had no stack for it; or the caller is unwinding and may not
    /// wait, or the caller's OS thread is ending.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller; the thread then goes on, detached.
    /// Panics inside [`no_switch`](crate::no_switch); and in main on a deadlock, if the thread is one of this hub.
    ///
    /// May switch: yes, unless the thread has ended.
    pub fn join(self) -> Result<T, JoinError> {
        let RemoteJoinHandle { shared, target } = self;
        let foreign = !is_here(&target.mail);
        // Nobody can kill it any more, and a handle that is left would hide a deadlock there.
        drop(target);
        shared.0.wait("the end of a green thread that was spawned through a hub's handle", foreign)
    }

    /// Whether the thread has ended.
    ///
    /// May switch: no.
    pub fn is_finished(&self) -> bool {
        self.shared.0.is_settled()
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_end(&self) -> RemoteEndArm<'_, T> {
        RemoteEndArm { shared: &self.shared.0, place: Cell::new(None) }
    }

    /// Unwinds the thread, as [`JoinHandle::kill`](crate::thread::JoinHandle::kill) does. Says whether it was still alive, as
    /// far as is known here.
    ///
    /// It is a letter to the thread's hub. If the thread has not started when the hub reads it, its closure never runs.
    ///
    /// May switch: no.
    pub fn kill(&self) -> bool {
        if cfg!(panic = "abort") {
            return false;
        }
        let mut inside = lock(&self.shared.0.inside);
        if inside.settled {
            return false;
        }
        inside.killed = true;
        let fiber = inside.fiber;
        drop(inside);
        match (fiber, existing_root()) {
            (Some(fiber), Some(root)) if is_here(&self.target.mail) => {
                if let Some(fiber) = root.open(fiber) {
                    root.kill(fiber);
                }
            }
            (Some(fiber), _) => self.target.mail.send(Letter::Kill(fiber)),
            // `start` will see it.
            (None, _) => {}
        }
        true
    }
}

/// The end of a green thread of another hub, for `async` code on any OS thread and of any executor: what `handle.await`
/// waits for; also in [`block_on`](crate::block_on).
///
/// ```
/// let (send, receive) = std::sync::mpsc::channel();
/// let os_thread = std::thread::spawn(move || {
///     let answer: greenling::hub::RemoteJoinHandle<u32> = receive.recv().unwrap();
///     greenling::block_on(async { answer.await.unwrap() + 1 })
/// });
/// send.send(greenling::hub::handle().spawn(|| 42)).unwrap();
/// greenling::blocking(move || assert_eq!(os_thread.join().unwrap(), 43)); // the thread runs while main waits
/// ```
///
/// The output is that of [`join`](RemoteJoinHandle::join), and goes to one poll; a later one gets an error. Dropping the
/// future detaches the thread.
#[must_use = "futures do nothing unless they are awaited or polled"]
pub struct RemoteJoinFuture<T> {
    /// Where the result will be.
    shared: Ours<T>,
}

impl<T: Send + 'static> IntoFuture for RemoteJoinHandle<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = RemoteJoinFuture<T>;

    /// As in `join`, nobody can kill the thread through it any more.
    ///
    /// May switch: no.
    fn into_future(self) -> RemoteJoinFuture<T> {
        RemoteJoinFuture { shared: self.shared }
    }
}

impl<T: Send + 'static> Future for RemoteJoinFuture<T> {
    type Output = Result<T, JoinError>;

    /// May switch: no.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.shared.0.poll(cx.waker())
    }
}

impl<T> fmt::Debug for RemoteJoinFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = lock(&self.shared.0.inside).settled;
        f.debug_struct("RemoteJoinFuture").field("finished", &finished).finish_non_exhaustive()
    }
}

/// The handle's part. Its drop takes care of the closure of a thread that could not be started.
struct Ours<T>(Arc<Shared<T>>);

impl<T> Drop for Ours<T> {
    fn drop(&mut self) {
        let mut inside = lock(&self.0.inside);
        let unstarted = if inside.settled { inside.closure.take() } else { None };
        let awaiter = inside.awaiter.take();
        // Not under the lock: they are foreign code.
        drop(inside);
        drop(unstarted);
        drop(awaiter);
    }
}

impl<T> fmt::Debug for RemoteJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = lock(&self.shared.0.inside).settled;
        f.debug_struct("RemoteJoinHandle").field("finished", &finished).finish_non_exhaustive()
    }
}
