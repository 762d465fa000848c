//! The end of a green thread as a future, for `async` code on the same OS thread.
//!
//! ```text
//!   poll:  ended? the outcome. Otherwise the waker goes into the thread's control block
//!   end:   `live` wakes the joiners, then this one waker; what that makes runnable runs after the thread's last instruction
//! ```
//!
//! One waker is enough: a thread has one handle, and the handle became one future.
#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::spawn::{JoinError, JoinHandle, Outcome, call_back};
use crate::runtime::hub::{ending, hub_of};
use crate::switch::extras::Ending;
use crate::switch::fiber::{Fiber, drop_quietly};
use crate::switch::packet::Packet;
use crate::switch::root::{Root, try_root};

/// The end of a green thread, for `async` code on its OS thread: what `handle.await` waits for.
///
/// Await it in [`block_on`](crate::block_on), which runs the hub meanwhile. An executor that blocks the OS thread instead
/// waits for ever: nobody is left to run the thread. A task on another OS thread awaits a
/// [`RemoteJoinHandle`](crate::hub::RemoteJoinHandle).
///
/// ```
/// let handle = greenling::spawn(|| 42);
/// let answer = greenling::block_on(async { handle.await.unwrap() + 1 });
/// assert_eq!(answer, 43);
/// ```
///
/// The output is that of [`join`](JoinHandle::join), and goes to one poll; a later one gets an error. Dropping the future
/// detaches the thread.
#[must_use = "futures do nothing unless they are awaited or polled"]
pub struct JoinFuture<T> {
    /// The result.
    packet: Packet<Outcome<T>>,
}

impl<T> IntoFuture for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = JoinFuture<T>;

    /// May switch: no.
    fn into_future(self) -> JoinFuture<T> {
        JoinFuture { packet: self.into_packet() }
    }
}

impl<T> Future for JoinFuture<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If the thread polls its own end.
    ///
    /// May switch: no.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(root) = try_root() else { return Poll::Ready(Err(JoinError::refused(ending()))) };
        if let Some(outcome) = self.packet.take() {
            return Poll::Ready(outcome);
        }
        let Some(fiber) = self.packet.fiber() else { return Poll::Ready(Err(JoinError::killed())) };
        if self.packet.is_finished() {
            // As in `join`; or an earlier poll got the outcome.
            return Poll::Ready(Err(JoinError::killed()));
        }
        if let Err(error) = hub_of(root) {
            return Poll::Ready(Err(JoinError::refused(error)));
        }
        assert!(fiber != root.current(), "a green thread cannot wait for its own end");
        // Foreign code: it may let others run, and the thread end.
        let waker = cx.waker().clone();
        if let Some(outcome) = self.packet.take() {
            return Poll::Ready(outcome);
        }
        let earlier = fiber.set_awaiter(waker);
        drop(earlier);
        Poll::Pending
    }
}

impl<T> Drop for JoinFuture<T> {
    fn drop(&mut self) {
        if let Some(fiber) = self.packet.fiber() {
            let waker = fiber.take_awaiter();
            drop(waker);
        }
    }
}

impl<T> fmt::Debug for JoinFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinFuture").field("finished", &self.packet.is_finished()).finish_non_exhaustive()
    }
}

/// `fiber` is at its end, on its own stack: tells the task that awaits it, whose waker is foreign code.
///
/// The outcome is not there before the last instruction. If the waker waits for something, the task may poll meanwhile and
/// find nothing: it is told again, by a thread that runs after that.
#[cold]
#[inline(never)]
pub(super) fn tell_awaiter(root: &'static Root, fiber: Fiber) {
    if let Some(waker) = fiber.take_awaiter() {
        wake_quietly(waker);
    }
    if let Some(waker) = fiber.take_awaiter() {
        call_back(root, Box::new(|_| waker.wake()), Ending::Returned, fiber.spawned_at());
    }
}

/// Wakes a task. If its waker panics the panic hook has printed it, and nobody is left to be told.
pub(crate) fn wake_quietly(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        drop_quietly(payload);
    }
}
