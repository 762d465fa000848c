//! The bridge to `async`: [`block_on`] waits for a future as any other call waits for a socket.
//!
//! ```text
//!   the green thread                                    the holder of a waker, on any OS thread
//!   loop:
//!     woken = false
//!     poll the future   -- ready --> return
//!     woken? poll again, but let others go first        wake:  woken = true
//!     park(Remote)                                             was false? wake the thread (by remote op, from outside)
//!     woken? poll again; else park again
//! ```
//!
//! While the thread sleeps it has no waker of its own, only a weak reference to the shared state of the wakers. So the
//! destructor of that state runs when the last waker is gone, and no holder is left to wake the thread: then the thread
//! polls once more, for a wake-up that may have come just before, and if the future has made no waker then, the hub
//! knows that the thread waits for ever. A waker that a wake-up consumes goes back to the thread, which needs
//! one for the next poll.
//!
//! * Invariant bridge-1: between the moment at which `woken` becomes true and the next poll the thread is not parked
//!   for good. The caller that makes `woken` true wakes the thread *after* that, and the thread reads `woken` before
//!   each park: a wake-up on the thread's own OS thread cannot come in between, and a remote op from another OS thread
//!   waits in the inbox until the thread is parked.
//!
//! The other direction, a green thread that `async` code waits for: `thread/future.rs` and `hub/remote.rs`.
#![forbid(unsafe_code)]

use std::mem::replace;
use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use crate::pure::lock::lock;
use crate::runtime::caller::Caller;
use crate::runtime::checkpoint::{begin_call, end_call};
use crate::runtime::remote::Waiter;
use crate::runtime::report::label_of;
use crate::switch::cancel;
use crate::switch::root::{Root, try_root};
use crate::sys::clock::NEVER;
use crate::thread::yield_now;

/// Waits until `future` is ready and returns the output; other green threads run meanwhile.
///
/// Any future will do that needs no special executor: channels, locks and streams of `async` crates, a join handle,
/// a combination of them. A future that a runtime's reactor drives (a socket of tokio's) needs that runtime to run on
/// some OS thread; its wakers find the way back here. Wakers may be cloned and sent anywhere.
///
/// ```
/// use std::{pin::Pin, task::{Context, Poll}, thread};
/// use greenling::{block_on, spawn};
///
/// /// Ready at the second poll, for which another OS thread asks.
/// struct Twice(bool);
///
/// impl Future for Twice {
///     type Output = &'static str;
///     fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<&'static str> {
///         if std::mem::replace(&mut self.0, true) {
///             return Poll::Ready("ready");
///         }
///         let waker = cx.waker().clone();
///         thread::spawn(move || waker.wake());
///         Poll::Pending
///     }
/// }
///
/// let other = spawn(|| 1);
/// assert_eq!(block_on(async { (Twice(false).await, other.await.unwrap()) }), ("ready", 1));
/// ```
///
/// * The future is polled, and dropped, on the calling thread's own stack, also when a kill or an expired
///   [`timeout`](crate::timeout) unwinds the call. So the future may call everything that a green thread may.
/// * A future that wakes itself while it is polled is polled again after the other threads had their turn.
/// * One allocation for the waker, none for a poll. A thread that finds the future ready does not switch.
/// * While a clone of the waker exists, its holder may wake the thread, and so the hub sees no deadlock. Once no clone
///   is left, nothing can wake the thread: the future is polled once more, and if the poll makes no clone, the hub
///   reports a deadlock.
///
/// # Panics
/// If the future is not ready at once while the caller unwinds from a panic or kill; in the child of a fork; with the
/// panics of the future. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
/// [`no_switch`](crate::no_switch), and in main on a deadlock.
///
/// May switch: yes, unless the future is ready. When the OS thread is ending, the call blocks the OS thread.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    begin_call();
    let mut waited = false;
    let mut future = pin!(Some(future.into_future()));
    let root = try_root();
    let mut waker_ref = WakerRef { state: Weak::new() };
    let mut state = WakerState::new(root);
    waker_ref.state = Arc::downgrade(&state);
    loop {
        // Acquire: what was written before a wake-up is seen by the poll that follows it.
        state.woken.swap(false, Ordering::Acquire);
        let waker = Waker::from(Arc::clone(&state));
        let Some(polled) = future.as_mut().as_pin_mut() else { unreachable!("dropped only at the end") };
        if let Poll::Ready(output) = polled.poll(&mut Context::from_waker(&waker)) {
            // Drop the future before the output is on its way out, where a destructor that unwinds would leak the
            // output (rust-lang/rust#47949).
            future.set(None);
            if !waited {
                end_call();
            }
            return output;
        }
        // Not ready: wait with no waker in hand, so that the last holder's drop is noticed.
        drop(waker);
        waited = true;
        let Some(root) = root else {
            state.sleep_outside();
            continue;
        };
        state = match waker_ref.sleep(root, state) {
            Some(state) => state,
            None => {
                let state = WakerState::new(Some(root));
                waker_ref.state = Arc::downgrade(&state);
                state
            }
        };
    }
}

/// What the wakers of one `block_on` share.
struct WakerState {
    /// A holder called `wake` since the last poll began.
    woken: AtomicBool,
    /// The waker that a wake-up consumed.
    returned: Mutex<Returned>,
    /// The thread to wake.
    sleeper: Sleeper,
}

/// Where a consumed waker goes.
enum Returned {
    /// Back to the thread, which keeps the waker's memory for the next poll.
    Open(Option<Arc<WakerState>>),
    /// Nowhere: the call is over, and the waker is dropped.
    Closed,
}

/// The thread that waits.
enum Sleeper {
    /// A green thread or main.
    Green(Waiter),
    /// An OS thread without a hub: the hub is gone.
    Outside(std::thread::Thread),
}

impl Sleeper {
    /// Returns the calling thread.
    ///
    /// # Panics
    /// In the child of a fork, and if the kernel refuses what a hub needs.
    fn current(root: Option<&'static Root>) -> Sleeper {
        match root.map(Caller::of) {
            Some(Ok(caller)) => Sleeper::Green(Waiter::new(caller)),
            Some(Err(error)) => panic!("{error}"),
            None => Sleeper::Outside(std::thread::current()),
        }
    }

    /// Wakes the thread, so that it reads `woken`.
    fn wake(&self) {
        match self {
            Sleeper::Green(waiter) => waiter.wake(),
            Sleeper::Outside(thread) => thread.unpark(),
        }
    }
}

impl Wake for WakerState {
    fn wake(self: Arc<Self>) {
        if self.mark() {
            let me = Arc::clone(&self);
            if let Returned::Open(place) = &mut *lock(&me.returned) {
                *place = Some(self);
            }
            me.sleeper.wake();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.mark() {
            self.sleeper.wake();
        }
    }
}

impl Drop for WakerState {
    fn drop(&mut self) {
        if let Returned::Open(_) = lock(&self.returned).deref() {
            self.sleeper.wake();
        }
    }
}

impl WakerState {
    /// Makes the state of a call of the calling thread.
    fn new(root: Option<&'static Root>) -> Arc<WakerState> {
        let returned = Mutex::new(Returned::Open(None));
        Arc::new(WakerState { woken: AtomicBool::new(false), returned, sleeper: Sleeper::current(root) })
    }

    /// Notes a wake-up. Returns whether this call must wake the thread.
    fn mark(&self) -> bool {
        // Release pairs with the Acquire of `block_on` and `is_woken`. A caller that finds `woken` true leaves the
        // thread to the caller that made it true (bridge-1).
        !self.woken.swap(true, Ordering::Release)
    }

    /// Reports whether to poll again.
    fn is_woken(&self) -> bool {
        // Acquire: see `mark`.
        self.woken.load(Ordering::Acquire)
    }

    /// Takes back a waker that was consumed.
    fn take_back(&self) {
        let back = match &mut *lock(&self.returned) {
            Returned::Open(place) => place.take(),
            Returned::Closed => None,
        };
        // Not under the lock, which is part of what is dropped here; and not the last one, since the caller has one.
        drop(back);
    }

    /// Blocks the OS thread until it is time to poll again.
    fn sleep_outside(&self) {
        while !self.is_woken() {
            std::thread::park();
        }
        self.take_back();
    }
}

/// The thread's own reference to the state of its wakers. The reference is weak, so that the state dies with the last
/// waker.
struct WakerRef {
    /// The state, while a waker is left.
    state: Weak<WakerState>,
}

impl WakerRef {
    /// Parks until it is time to poll again. Returns none if no waker is left.
    fn sleep(&self, root: &'static Root, state: Arc<WakerState>) -> Option<Arc<WakerState>> {
        if let Some(obstacle) = cancel::obstacle() {
            panic!("greenling: {} cannot wait for a future: {obstacle}", label_of(root.current().id.get()));
        }
        if state.is_woken() {
            state.take_back();
            yield_now();
            return Some(state);
        }
        let mut awake = Some(state);
        loop {
            // Awake: let go of the state again unless it is time to poll.
            if let Some(state) = awake {
                state.take_back();
                if state.is_woken() {
                    return Some(state);
                }
                // If this reference is the last, the destructor wakes this thread, which is awake: that does nothing.
            }
            let caller = match Caller::of(root) {
                Ok(caller) => caller,
                Err(error) => panic!("{error}"),
            };
            // While a holder is left, it may wake the thread, and so this is no deadlock.
            let others = self.state.strong_count() > 0;
            let wait = if others { Caller::wait_remote } else { Caller::wait_remote_uncounted };
            if wait(caller, "a future", NEVER).is_err() {
                unreachable!("it did not unwind before, and a thread that waits does not begin to");
            }
            awake = Some(self.state.upgrade()?);
        }
    }
}

impl Drop for WakerRef {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            let back = replace(&mut *lock(&state.returned), Returned::Closed);
            drop(back);
        }
    }
}
