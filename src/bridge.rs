//! The bridge to `async`: [`block_on`] waits for a future as any other call waits for a socket.
//!
//! ```text
//!   the green thread                                    whoever has a clone of the waker, on any OS thread
//!   loop:
//!     woken = false
//!     poll the future   -- ready --> return
//!     woken? poll again, but let others go first        wake:  woken = true
//!     park(Remote)                                             was it false? wake the thread (by letter, from outside)
//!     woken? poll again; else park again
//! ```
//!
//! While it sleeps the thread has no waker of its own, only a weak reference to the knock. So the knock's destructor tells that
//! the last clone is gone, and nobody is left to wake the thread: then it polls once more, for a wake-up that may have come just
//! before, and if the future has made no clone then, the hub knows that this waits for ever. A waker that is consumed by its
//! wake-up goes back to the thread, which needs one for the next poll.
//!
//! * Invariant K1: between the moment at which `woken` becomes true and the next poll the thread is not parked for good.
//!   Who makes it true wakes the thread *after* that, and the thread looks at it before each park: a wake-up on its own OS
//!   thread cannot come in between, and a letter from another one waits in the inbox until the thread is parked.
//!
//! The other direction, a green thread that `async` code waits for: `thread/future.rs` and `hub/remote.rs`.
#![forbid(unsafe_code)]

use std::mem::replace;
use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use crate::runtime::hub::hub_of;
use crate::runtime::park::NEVER;
use crate::runtime::remote::{Waiter, lock, wait};
use crate::runtime::report::label_of;
use crate::switch::cancel;
use crate::switch::root::{Root, try_root};
use crate::thread::yield_now;

/// Waits until `future` is ready and returns its output; other green threads run meanwhile.
///
/// Any future that needs no executor of its own: channels, locks and streams of `async` crates, a join handle, a combination
/// of them. What a runtime's reactor drives (a socket of tokio's) needs that runtime to run on some OS thread; its wakers
/// find the way back here. Wakers may be cloned and sent anywhere.
///
/// ```
/// use std::{pin::Pin, task::{Context, Poll}, thread};
/// use greenling::{block_on, spawn};
///
/// /// Ready at the second poll; another OS thread asks for that.
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
///   [`timeout`](crate::timeout) unwinds the call. So it may call everything that a green thread may.
/// * A future that wakes itself while it is polled is polled again after the others had their turn.
/// * One allocation for the waker, none for a poll. A thread that finds the future ready does not switch.
/// * While a clone of the waker exists somebody may wake it, and so it is no deadlock that the hub can see. If nobody has a
///   clone any more, nobody ever can: the future is polled once more, and if it makes no clone then, main is told.
///
/// # Panics
/// If the future is not ready at once while the caller unwinds from a panic or kill; in the child of a fork; with the panics
/// of the future. Unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
/// [`no_switch`](crate::no_switch), and in main on a deadlock.
///
/// May switch: yes, unless the future is ready. When the OS thread is ending, it blocks the OS thread.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    let root = try_root();
    let mut home = Home { knock: Weak::new() };
    let mut knock = Knock::new(root);
    home.knock = Arc::downgrade(&knock);
    loop {
        // Acquire: what was written before a wake-up is seen by the poll that follows it.
        knock.woken.swap(false, Ordering::Acquire);
        let waker = Waker::from(Arc::clone(&knock));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        drop(waker);
        let Some(root) = root else {
            knock.sleep_outside();
            continue;
        };
        knock = match home.sleep(root, knock) {
            Some(knock) => knock,
            None => {
                let knock = Knock::new(Some(root));
                home.knock = Arc::downgrade(&knock);
                knock
            }
        };
    }
}

/// What the wakers of one `block_on` share.
struct Knock {
    /// Somebody called `wake` since the last poll began.
    woken: AtomicBool,
    /// The waker that a wake-up consumed.
    returned: Mutex<Returned>,
    /// Whom to wake.
    sleeper: Sleeper,
}

/// Where a consumed waker goes.
enum Returned {
    /// Back to the thread, which keeps its memory for the next poll.
    Open(Option<Arc<Knock>>),
    /// Away: the call is over.
    Closed,
}

/// Who waits.
enum Sleeper {
    /// A green thread or main.
    Green(Waiter),
    /// An OS thread whose hub is gone.
    Outside(std::thread::Thread),
}

impl Sleeper {
    /// The caller.
    ///
    /// # Panics
    /// In the child of a fork, and if the kernel refuses what a hub needs.
    fn current(root: Option<&'static Root>) -> Sleeper {
        match root.map(|root| (root, hub_of(root))) {
            Some((root, Ok(hub))) => Sleeper::Green(Waiter::new(root, hub, root.current())),
            Some((_, Err(error))) => panic!("{error}"),
            None => Sleeper::Outside(std::thread::current()),
        }
    }

    /// Lets it look.
    fn wake(&self) {
        match self {
            Sleeper::Green(waiter) => waiter.wake(),
            Sleeper::Outside(thread) => thread.unpark(),
        }
    }
}

impl Wake for Knock {
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

impl Drop for Knock {
    fn drop(&mut self) {
        if let Returned::Open(_) = lock(&self.returned).deref() {
            self.sleeper.wake();
        }
    }
}

impl Knock {
    /// Of the caller.
    fn new(root: Option<&'static Root>) -> Arc<Knock> {
        let returned = Mutex::new(Returned::Open(None));
        Arc::new(Knock { woken: AtomicBool::new(false), returned, sleeper: Sleeper::current(root) })
    }

    /// Somebody wakes it. Says whether he is the one who must wake the thread.
    fn mark(&self) -> bool {
        // Release pairs with the Acquire of `block_on` and `is_woken`. Who finds it true already leaves it to the one who
        // made it true, who wakes (K1).
        !self.woken.swap(true, Ordering::Release)
    }

    /// Whether to poll again.
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
        // Not under the lock, which is inside of it; and not the last, since the caller has one.
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

/// The thread's own part: the knock, as long as somebody has a waker.
struct Home {
    /// See above.
    knock: Weak<Knock>,
}

impl Home {
    /// Parks until it is time to poll again. None if nobody has a waker any more.
    fn sleep(&self, root: &'static Root, knock: Arc<Knock>) -> Option<Arc<Knock>> {
        let me = root.current();
        if let Some(obstacle) = cancel::obstacle() {
            panic!("greenling: {} cannot wait for a future: {obstacle}", label_of(me.id.get()));
        }
        if knock.is_woken() {
            knock.take_back();
            yield_now();
            return Some(knock);
        }
        let mut awake = Some(knock);
        loop {
            if let Some(knock) = awake {
                knock.take_back();
                if knock.is_woken() {
                    return Some(knock);
                }
                // If that is the last, its destructor wakes who is awake, which does nothing.
            }
            let hub = match hub_of(root) {
                Ok(hub) => hub,
                Err(error) => panic!("{error}"),
            };
            let others = self.knock.strong_count() > 0;
            if wait(root, hub, me, "a future", others, NEVER).is_err() {
                unreachable!("it did not unwind before, and a thread that waits does not begin to");
            }
            awake = Some(self.knock.upgrade()?);
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(knock) = self.knock.upgrade() {
            let back = replace(&mut *lock(&knock.returned), Returned::Closed);
            drop(back);
        }
    }
}
