//! Threads on another hub: a closure goes there, the result comes back.
//!
//! ```text
//!   any OS thread                     RemoteTask (behind a lock)        the hub
//!   HubHandle::spawn -- closure ----> | closure   |
//!             `-------- the same task, as work, by remote queue --------> a poll makes a fiber of it
//!                                     | closure   | ------------------> the fiber takes it and runs it
//!   RemoteJoinHandle::join            | outcome   | <------------------ what it returned
//!             parks  <-- a remote op --- | joiners   |
//! ```
//!
//! * Invariant remote-thread-1: `set_outcome` is called for every `RemoteTask` once the fate of the thread is known, so
//!   a joiner never waits for ever: by the fiber at the end; by `abandon`, if the hub never starts the thread or ends
//!   and cannot unwind the thread; by `start`, if there is no stack.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::pure::drops::drop_safely;
use crate::pure::lock::lock;
use crate::pure::slab::Key;
use crate::runtime::caller::Caller;
use crate::runtime::checkpoint::checkpoint;
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::hub::{ending, existing_hub, hub, no_hub};
use crate::runtime::remote::{Waiter, is_here};
use crate::runtime::remote_queue::{RemoteOp, RemoteQueue, Work};
use crate::runtime::select_source::SelectEnd;
use crate::switch::fiber::{Fiber, drop_quietly};
use crate::switch::packet;
use crate::switch::remote_fiber::RemoteFiber;
use crate::switch::root::{Root, existing_root, try_root};
use crate::switch::wait_list::WaitList;
use crate::sys::clock::NEVER;
use crate::thread::{JoinError, Outcome, live_apart, wake_quietly};

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
/// What goes to another hub must be `Send`; what the closure makes there need not be, and cannot leave:
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
/// While a handle of a hub exists, wherever it is, that hub reports no deadlock when all threads wait: the holder may
/// spawn a thread that wakes them. A [`RemoteJoinHandle`] is such a handle, too, until the join, since the holder may
/// kill. When the last handle is dropped, the hub checks again. So keep no handle in the hub that it leads to, if
/// reports are wanted there. A thread that waits for a thread of another hub, or in a [`channel`](super::channel), does
/// not wait in vain either, as far as the waiting thread's hub knows. Cycles over several hubs are not found.
pub struct HubHandle {
    /// The way to the hub, in which this handle is counted.
    remote_queue: Arc<RemoteQueue>,
}

/// Returns a handle of the calling OS thread's hub, which is made if there is none.
///
/// # Panics
/// If the OS thread is ending, in the child of a fork, and when the kernel refused an epoll instance or an eventfd.
///
/// May switch: no.
pub fn handle() -> HubHandle {
    match try_handle() {
        Ok(handle) => handle,
        Err(error) => no_hub(&error),
    }
}

/// Returns what [`handle`] does, but an error where that would panic. A program that must not fail later calls this
/// first on each OS thread: then the hub is there.
///
/// ```
/// let hub = greenling::hub::try_handle()?;
/// assert_eq!(hub.spawn(|| 7).join().unwrap(), 7);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`; `Other` if the OS thread is ending, and in the child of a fork.
///
/// May switch: no.
pub fn try_handle() -> io::Result<HubHandle> {
    let (_, hub) = hub()?;
    Ok(HubHandle::new(hub.remote_queue()))
}

impl HubHandle {
    /// Makes a handle, which the queue counts.
    pub(crate) fn new(remote_queue: &Arc<RemoteQueue>) -> HubHandle {
        remote_queue.add_spawner();
        HubHandle { remote_queue: Arc::clone(remote_queue) }
    }

    /// Runs `f` as a green thread of that hub, with the hub's default stack size, behind what the hub has to run
    /// already.
    ///
    /// If the hub has ended, or ends before the thread has started, `f` is dropped without being run, as a rule by
    /// the caller of a `spawn`, and [`join`](RemoteJoinHandle::join) says so.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> RemoteJoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_at(Location::caller(), f)
    }

    /// Runs `f` as [`spawn`](Self::spawn) does, in a thread that is said to be spawned at `site`.
    pub(crate) fn spawn_at<F, T>(&self, site: &'static Location<'static>, f: F) -> RemoteJoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.post(RemoteTask::new(Some(Box::new(f)), site))
    }

    /// Runs `f` as [`spawn`](Self::spawn) does, in a thread with thread-locals of its own; see
    /// [`Builder::own_thread_locals`](crate::thread::Builder::own_thread_locals). Without, the thread shares those of
    /// the hub's OS thread.
    ///
    /// Where a thread cannot have its own, `f` is not run, and [`join`](RemoteJoinHandle::join) gives the reason; see
    /// [`own_thread_locals_supported`](crate::thread::own_thread_locals_supported).
    ///
    /// ```
    /// use std::cell::Cell;
    /// thread_local!(static COUNT: Cell<u32> = const { Cell::new(0) });
    ///
    /// # if greenling::thread::own_thread_locals_supported().is_err() { return; }
    /// COUNT.set(1);
    /// let hub = greenling::hub::handle();
    /// assert_eq!(hub.spawn(|| COUNT.get()).join().unwrap(), 1);
    /// assert_eq!(hub.spawn_own(|| COUNT.get()).join().unwrap(), 0);
    /// ```
    ///
    /// ```compile_fail,E0277
    /// let local = std::rc::Rc::new(6);
    /// greenling::hub::handle().spawn_own(move || *local);
    /// ```
    ///
    /// ```compile_fail,E0277
    /// greenling::hub::handle().spawn_own(|| std::rc::Rc::new(6));
    /// ```
    ///
    /// May switch: no.
    #[track_caller]
    pub fn spawn_own<F, T>(&self, f: F) -> RemoteJoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.post(RemoteTask { own: true, ..RemoteTask::new(Some(Box::new(f)), Location::caller()) })
    }

    /// Sends a task to the hub.
    fn post<T: Send + 'static>(&self, task: RemoteTask<T>) -> RemoteJoinHandle<T> {
        let task = Arc::new(task);
        let handle = RemoteJoinHandle { task: TaskRef(Arc::clone(&task)), target: self.clone() };
        self.remote_queue.post(task);
        handle
    }
}

impl Clone for HubHandle {
    fn clone(&self) -> HubHandle {
        HubHandle::new(&self.remote_queue)
    }
}

impl Drop for HubHandle {
    fn drop(&mut self) {
        self.remote_queue.drop_spawner();
    }
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubHandle").field("here", &is_here(&self.remote_queue)).finish_non_exhaustive()
    }
}

/// The function that the thread runs.
type Closure<T> = Box<dyn FnOnce() -> T + Send>;

/// A thread on another hub: what the hub, the thread and the handle share.
pub(crate) struct RemoteTask<T> {
    /// The closure, later the outcome, and the waiters.
    state: Mutex<TaskState<T>>,
    /// The place where `spawn` was called.
    spawned_at: &'static Location<'static>,
    /// Whether the thread has thread-locals of its own.
    own: bool,
}

/// The part of a [`RemoteTask`] behind the lock.
struct TaskState<T> {
    /// The closure, until the thread starts.
    closure: Option<Closure<T>>,
    /// The outcome, from the thread's end until the join.
    outcome: Option<Outcome<T>>,
    /// The outcome is there, or was taken.
    finished: bool,
    /// A handle has killed the thread.
    killed: bool,
    /// The thread, once it exists.
    fiber: Option<RemoteFiber>,
    /// The waiters for the outcome, each with a number of its own: `join`, or arms of `select!`s that share the handle.
    joiners: Vec<(u64, Waiter)>,
    /// The last number given to a waiter.
    last_joiner: u64,
    /// The task that polls the handle as a future.
    awaiter: Option<Waker>,
}

impl<T> Drop for TaskState<T> {
    /// Drops an outcome that was never taken. The destructor is the program's, and the caller may be unwinding.
    fn drop(&mut self) {
        drop_safely(self.outcome.take());
    }
}

impl<T: Send + 'static> RemoteTask<T> {
    /// Makes the task of a thread that will run `closure`; without one, of a caller that will call `set_outcome`.
    pub(crate) fn new(closure: Option<Closure<T>>, spawned_at: &'static Location<'static>) -> RemoteTask<T> {
        let state = TaskState {
            closure,
            outcome: None,
            finished: false,
            killed: false,
            // Known only when the target hub launches the thread.
            fiber: None,
            joiners: Vec::new(),
            last_joiner: 0,
            awaiter: None,
        };
        RemoteTask { state: Mutex::new(state), spawned_at, own: false }
    }

    /// Sets the outcome, if there is none yet, and wakes the joiners and the task that awaits the handle.
    pub(crate) fn set_outcome(&self, outcome: Outcome<T>) {
        let mut state = lock(&self.state);
        if state.finished {
            drop(state);
            return drop_quietly(outcome);
        }
        state.finished = true;
        state.outcome = Some(outcome);
        // Wake the waiters without the lock: a waker is foreign code.
        let (joiners, awaiter) = (mem::take(&mut state.joiners), state.awaiter.take());
        drop(state);
        for (_, joiner) in joiners {
            joiner.wake();
        }
        if let Some(awaiter) = awaiter {
            wake_quietly(awaiter);
        }
    }

    /// Reports whether the outcome is there or was taken.
    pub(crate) fn is_finished(&self) -> bool {
        lock(&self.state).finished
    }

    /// Runs the closure, as the thread's body on its own stack. `key` is that of the task in the hub.
    fn run(self: Arc<Self>, root: &Root, fiber: Fiber, key: Key) {
        // The closure is gone if `abandon` came first.
        let closure = lock(&self.state).closure.take();
        let Some(closure) = closure else { return };
        let began = !fiber.killed.get();
        let mut outcome = live_apart(fiber, closure);
        // A kill by the end of the hub is told apart from a kill by a handle.
        if root.closing() && outcome.as_ref().is_err_and(JoinError::is_killed) && !lock(&self.state).killed {
            outcome = Err(JoinError::hub_ended(began));
        }
        if let Some(hub) = existing_hub() {
            hub.remove_remote_work(key);
        }
        self.set_outcome(outcome);
        // If no handle is left, the outcome's destructor runs here.
        drop_quietly(self);
    }

    /// Takes the outcome, or leaves `waker`, to be woken by the outcome.
    fn poll(&self, waker: &Waker) -> Poll<Outcome<T>> {
        // The clone comes before the lock, and the drop of an earlier waker after the lock: both are foreign code.
        let waker = waker.clone();
        let mut state = lock(&self.state);
        if let Some(outcome) = state.outcome.take() {
            drop(state);
            return Poll::Ready(outcome);
        }
        if state.finished {
            drop(state);
            return Poll::Ready(Err(JoinError::refused("its result was taken already")));
        }
        let earlier = state.awaiter.replace(waker);
        drop(state);
        drop(earlier);
        Poll::Pending
    }

    /// Waits for the outcome; `foreign`: the thread is one of another hub. See [`RemoteJoinHandle::join`].
    pub(crate) fn wait(&self, what: &'static str, foreign: bool) -> Outcome<T> {
        loop {
            if let Some(outcome) = lock(&self.state).outcome.take() {
                return outcome;
            }
            let Some(root) = try_root() else { return Err(JoinError::refused(ending())) };
            let caller = match Caller::of(root) {
                Ok(caller) => caller,
                Err(error) => return Err(JoinError::refused(error)),
            };
            // The drop removes the waiter, however the wait ends.
            let Some(_guard) = JoinGuard::take(self, Waiter::new(caller)) else { continue };
            let wait = if foreign { Caller::wait_remote } else { Caller::wait_remote_uncounted };
            if let Err(obstacle) = wait(caller, what, NEVER) {
                return Err(JoinError::refused(obstacle));
            }
        }
    }
}

/// A place among the waiters for an outcome; the drop gives the place up.
struct JoinGuard<'a, T> {
    /// The task of the outcome.
    task: &'a RemoteTask<T>,
    /// The number of the waiter.
    number: u64,
}

impl<'a, T> JoinGuard<'a, T> {
    /// Lets the outcome wake `waiter` from now on. None if the outcome is there or was taken.
    fn take(task: &'a RemoteTask<T>, waiter: Waiter) -> Option<JoinGuard<'a, T>> {
        let mut state = lock(&task.state);
        if state.finished {
            return None;
        }
        state.last_joiner += 1;
        let number = state.last_joiner;
        state.joiners.push((number, waiter));
        Some(JoinGuard { task, number })
    }
}

impl<T> Drop for JoinGuard<'_, T> {
    fn drop(&mut self) {
        lock(&self.task.state).joiners.retain(|(number, _)| *number != self.number);
    }
}

/// The arm of a `select!` that waits for the end of a thread of another hub.
#[doc(hidden)]
pub struct RemoteEndArm<'a, T> {
    /// The task of the thread.
    task: &'a RemoteTask<T>,
    /// The arm's place among the waiters, once the arm waits.
    guard: Cell<Option<JoinGuard<'a, T>>>,
}

impl<T: Send + 'static> SelectArm for RemoteEndArm<'_, T> {
    type Output = ();

    fn finish(self) {}
}

impl<T: Send + 'static> Arm for RemoteEndArm<'_, T> {
    fn try_select(&self) -> bool {
        self.task.is_finished()
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        let Ok(caller) = Caller::current() else { return Ok(None) };
        match JoinGuard::take(self.task, Waiter::new(caller)) {
            None => Err(AlreadyWon),
            guard => {
                self.guard.set(guard);
                Ok(None)
            }
        }
    }

    fn accept(&self) {}

    fn unregister(&self, _: ArmEnd) {
        drop(self.guard.take());
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

impl<T: Send + 'static> Work for RemoteTask<T> {
    fn start(self: Arc<Self>, root: &'static Root) {
        let Some(hub) = existing_hub() else { return self.abandon() };
        // The hub keeps the task, and abandons the task if the hub ends first.
        let key = hub.add_remote_work(Arc::clone(&self) as Arc<dyn Work>);
        let me = Arc::clone(&self);
        let run = move |fiber: Fiber| me.run(root, fiber, key);
        // The block first: a launch that succeeds has all that it needs.
        let block = if self.own { root.new_block().map(Some) } else { Ok(None) };
        let launched = block.and_then(|block| {
            packet::launch(root, root.default_shift.get(), self.spawned_at, run).map(|launched| (launched, block))
        });
        match launched {
            Ok(((packet, fiber), block)) => {
                if let Some(block) = block {
                    root.enter_block(fiber, block);
                }
                // The packet is not needed: the outcome goes back by the task.
                drop(packet);
                // Kills that came before there was a fiber.
                let mut state = lock(&self.state);
                state.fiber = Some(root.to_remote(fiber));
                if state.killed {
                    root.kill(fiber);
                }
                drop(state);
                root.enqueue_injected(fiber);
            }
            Err(error) => {
                hub.remove_remote_work(key);
                self.set_outcome(Err(JoinError::refused(error)));
                // The closure stays inside: the destructor is foreign code, which cannot run in a poll. The join or the
                // drop of the handle drops the closure; if the thread was detached, the closure is leaked.
                mem::forget(self);
            }
        }
    }

    fn abandon(&self) {
        let closure = lock(&self.state).closure.take();
        let began = closure.is_none();
        if let Some(closure) = closure {
            drop_quietly(closure);
        }
        self.set_outcome(Err(JoinError::hub_ended(began)));
    }
}

/// The right to wait for a green thread of another hub and take its result. Dropping it detaches the thread, which goes
/// on.
///
/// Unlike a [`JoinHandle`](crate::thread::JoinHandle) this handle is `Send`: any OS thread may join, and the joiner's
/// own hub runs meanwhile.
#[must_use = "dropping the handle detaches the green thread: `join` it, or say `drop(handle)`"]
pub struct RemoteJoinHandle<T> {
    /// The task of the thread.
    task: TaskRef<T>,
    /// A handle of the thread's hub, counted as long as this handle may kill.
    target: HubHandle,
}

impl<T: Send + 'static> RemoteJoinHandle<T> {
    /// Waits for the thread to end and returns the result.
    ///
    /// # Errors
    /// [`JoinError`]: the thread panicked (the payload is inside) or was killed; the thread's hub ended first or was
    /// shut down ([`is_hub_ended`](JoinError::is_hub_ended)); that hub had no stack; or the caller is unwinding and may
    /// not wait, or the caller's OS thread is ending.
    ///
    /// # Panics
    /// Unwinds with a kill or an expired [`timeout`](crate::timeout) of the caller; the thread then goes on, detached.
    /// Panics inside [`no_switch`](crate::no_switch); and in main on a deadlock, if the thread is one of this hub.
    ///
    /// May switch: yes, unless the thread has ended.
    pub fn join(self) -> Result<T, JoinError> {
        let RemoteJoinHandle { task, target } = self;
        let foreign = !is_here(&target.remote_queue);
        // The thread cannot be killed any more, and a handle that is left would hide a deadlock there.
        drop(target);
        task.0.wait("the end of a green thread that was spawned through a hub's handle", foreign)
    }

    /// Reports whether the thread has ended.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn is_finished(&self) -> bool {
        checkpoint();
        self.task.0.is_finished()
    }

    /// Unwinds the thread, as [`JoinHandle::kill`](crate::thread::JoinHandle::kill) does. Reports whether the thread
    /// was still alive, as far as is known here.
    ///
    /// From another hub the kill is a remote op to the thread's hub. If the thread has not started when the hub reads
    /// the op, the closure never runs.
    ///
    /// May switch: no.
    pub fn kill(&self) -> bool {
        if cfg!(panic = "abort") {
            return false;
        }
        // Note the kill, for a thread that has not started.
        let mut state = lock(&self.task.0.state);
        if state.finished {
            return false;
        }
        state.killed = true;
        let fiber = state.fiber;
        drop(state);
        // A thread that has started is killed here, or by a remote op.
        match (fiber, existing_root()) {
            (Some(fiber), Some(root)) if is_here(&self.target.remote_queue) => {
                if let Some(fiber) = root.resolve_remote(fiber) {
                    root.kill(fiber);
                }
            }
            (Some(fiber), _) => self.target.remote_queue.send(RemoteOp::Kill(fiber)),
            // `start` will see the flag.
            (None, _) => {}
        }
        true
    }
}

impl<T: Send + 'static> SelectEnd for RemoteJoinHandle<T> {
    type Arm<'s>
        = RemoteEndArm<'s, T>
    where
        Self: 's;

    fn select_end(&self) -> RemoteEndArm<'_, T> {
        RemoteEndArm { task: &self.task.0, guard: Cell::new(None) }
    }
}

/// The end of a green thread of another hub, for `async` code on any OS thread and of any executor: the future that
/// `handle.await` polls; also in [`block_on`](crate::block_on).
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
/// The output is that of [`join`](RemoteJoinHandle::join), and goes to one poll; a later poll gets an error. Dropping
/// the future detaches the thread.
#[must_use = "futures do nothing unless they are awaited or polled"]
pub struct RemoteJoinFuture<T> {
    /// The task of the thread.
    task: TaskRef<T>,
}

impl<T: Send + 'static> IntoFuture for RemoteJoinHandle<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = RemoteJoinFuture<T>;

    /// Gives up the right to kill, as `join` does.
    ///
    /// May switch: no.
    fn into_future(self) -> RemoteJoinFuture<T> {
        RemoteJoinFuture { task: self.task }
    }
}

impl<T: Send + 'static> Future for RemoteJoinFuture<T> {
    type Output = Result<T, JoinError>;

    /// Returns the outcome, or leaves the waker for it.
    ///
    /// May switch: no.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.task.0.poll(cx.waker())
    }
}

impl<T> fmt::Debug for RemoteJoinFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = lock(&self.task.0.state).finished;
        f.debug_struct("RemoteJoinFuture").field("finished", &finished).finish_non_exhaustive()
    }
}

/// The handle's share in the task. The drop takes the closure of a thread that could not be started, and the waker.
struct TaskRef<T>(Arc<RemoteTask<T>>);

impl<T> Drop for TaskRef<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        let unstarted = if state.finished { state.closure.take() } else { None };
        let awaiter = state.awaiter.take();
        // Both are foreign code, so they are dropped without the lock.
        drop(state);
        drop_safely(unstarted);
        drop(awaiter);
    }
}

impl<T> fmt::Debug for RemoteJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = lock(&self.task.0.state).finished;
        f.debug_struct("RemoteJoinHandle").field("finished", &finished).finish_non_exhaustive()
    }
}
