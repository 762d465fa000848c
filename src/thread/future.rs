//! [`JoinFuture`]: the end of a green thread as a future, for `async` code on the same OS thread.
//!
//! ```text
//!   poll:  ended? the outcome. Otherwise the waker goes into the thread's control block
//!   end:   `live` wakes the joiners, then this waker; what becomes runnable runs after the thread's last instruction
//! ```
//!
//! One waker is enough: a thread has one handle, and the handle became one future.
#![forbid(unsafe_code)]

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::join_error::{JoinError, Outcome};
use super::spawn::JoinHandle;
use crate::runtime::hub::{ending, hub_of};
use crate::switch::packet::Packet;
use crate::switch::root::try_root;

/// The end of a green thread, for `async` code on the same OS thread: the future that `handle.await` polls.
///
/// Await the future in [`block_on`](crate::block_on), which runs the hub meanwhile. An executor that blocks the OS
/// thread instead waits for ever: the green thread cannot run then. A task on another OS thread awaits a
/// [`RemoteJoinHandle`](crate::hub::RemoteJoinHandle).
///
/// ```
/// let handle = greenling::spawn(|| 42);
/// let answer = greenling::block_on(async { handle.await.unwrap() + 1 });
/// assert_eq!(answer, 43);
/// ```
///
/// The output is that of [`join`](JoinHandle::join), and goes to one poll; a later poll gets an error. Dropping the
/// future detaches the thread.
#[must_use = "futures do nothing unless they are awaited or polled"]
pub struct JoinFuture<T> {
    /// The owner of the thread's slot, in which the outcome will be.
    packet: Packet<Outcome<T>>,
}

impl<T> IntoFuture for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = JoinFuture<T>;

    /// Makes a future of the handle.
    ///
    /// May switch: no.
    fn into_future(self) -> JoinFuture<T> {
        JoinFuture { packet: self.into_packet() }
    }
}

impl<T> Future for JoinFuture<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If a thread polls its own end.
    ///
    /// May switch: no.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Is the outcome there, or can there be none?
        let Some(root) = try_root() else { return Poll::Ready(Err(JoinError::refused(ending()))) };
        if let Some(outcome) = self.packet.take() {
            return Poll::Ready(outcome);
        }
        let Some(fiber) = self.packet.fiber() else { return Poll::Ready(Err(JoinError::killed())) };
        if self.packet.is_finished() {
            // The thread was cancelled before it started; or an earlier poll took the outcome.
            return Poll::Ready(Err(JoinError::killed()));
        }
        if let Err(error) = hub_of(root) {
            return Poll::Ready(Err(JoinError::refused(error)));
        }
        assert!(fiber != root.current(), "a green thread cannot wait for its own end");
        // The clone is foreign code, which may let others run, and the thread may end meanwhile.
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
