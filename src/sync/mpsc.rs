//! `std::sync::mpsc` between the green threads of one OS thread.
//!
//! Names, signatures and errors are std's. The implementation is that of [`greenling::channel`](crate::channel), which
//! has more to offer: several receivers, `send_timeout`, `close`, other orders. The difference from std: the ends stay
//! on their OS thread (those of [`hub::channel`](crate::hub::channel) do not).
//!
//! ```
//! use greenling::{spawn, sync::mpsc};
//!
//! let (send, receive) = mpsc::sync_channel(1);
//! for number in 0..3 {
//!     let send = send.clone();
//!     drop(spawn(move || send.send(number).unwrap()));
//! }
//! drop(send);
//! assert_eq!(receive.iter().collect::<Vec<_>>(), [0, 1, 2]);
//! ```
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use crate::channel;
pub use crate::channel::{IntoIter, Iter, TryIter};
use crate::runtime::select_source::{SelectRecv, SelectSend, SelectSendFrom};

/// Creates a channel that holds any number of values.
///
/// May switch: no.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::unbounded();
    (Sender { inner: sender }, Receiver { inner: receiver })
}

/// Creates a channel that holds up to `bound` values. With 0, `send` waits until the value was received.
///
/// May switch: no.
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = channel::bounded(bound);
    (SyncSender { inner: sender }, Receiver { inner: receiver })
}

/// The sending end of a [`channel()`].
pub struct Sender<T> {
    inner: channel::Sender<T>,
}

/// The sending end of a [`sync_channel`].
pub struct SyncSender<T> {
    inner: channel::Sender<T>,
}

/// The receiving end of a [`channel()`] or [`sync_channel`].
pub struct Receiver<T> {
    inner: channel::Receiver<T>,
}

impl<T> Sender<T> {
    /// Sends a value, without waiting.
    ///
    /// # Errors
    /// With the value, if the receiver is gone.
    ///
    /// May switch: no.
    #[inline(always)]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.inner.send(value)
    }
}

impl<T> SyncSender<T> {
    /// Sends a value, and waits until there is room.
    ///
    /// # Errors
    /// See [`channel::Sender::send`].
    ///
    /// # Panics
    /// See [`channel::Sender::send`].
    ///
    /// May switch: yes, if there is no room.
    #[inline(always)]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.inner.send(value)
    }

    /// Sends a value if there is room now.
    ///
    /// # Errors
    /// See [`channel::Sender::try_send`].
    ///
    /// May switch: no.
    #[inline(always)]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.inner.try_send(value)
    }
}

impl<T> Receiver<T> {
    /// Receives the next value, and waits until there is one.
    ///
    /// # Errors
    /// See [`channel::Receiver::recv`].
    ///
    /// # Panics
    /// See [`channel::Receiver::recv`].
    ///
    /// May switch: yes, if the channel is empty.
    #[inline(always)]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.inner.recv()
    }

    /// Receives the next value if there is one now.
    ///
    /// # Errors
    /// See [`channel::Receiver::try_recv`].
    ///
    /// May switch: no.
    #[inline(always)]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.inner.try_recv()
    }

    /// [`recv`](Self::recv), but waits no longer than `limit`.
    ///
    /// # Errors
    /// See [`channel::Receiver::recv_timeout`].
    ///
    /// # Panics
    /// See [`channel::Receiver::recv`].
    ///
    /// May switch: yes, if the channel is empty.
    #[inline(always)]
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.inner.recv_timeout(limit)
    }

    /// Returns an iterator that waits for values, and ends when all senders are gone.
    ///
    /// May switch: no, but its `next` does.
    pub fn iter(&self) -> Iter<'_, T> {
        self.inner.iter()
    }

    /// Returns an iterator over the values that are there now.
    ///
    /// May switch: no.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        self.inner.try_iter()
    }
}

impl<T> SelectSend for Sender<T> {
    type Value = T;

    type Arm<'a>
        = <channel::Sender<T> as SelectSend>::Arm<'a>
    where
        Self: 'a;

    fn select_send(&self, value: T) -> Self::Arm<'_> {
        self.inner.select_send(value)
    }
}

impl<T> SelectSend for SyncSender<T> {
    type Value = T;

    type Arm<'a>
        = <channel::Sender<T> as SelectSend>::Arm<'a>
    where
        Self: 'a;

    fn select_send(&self, value: T) -> Self::Arm<'_> {
        self.inner.select_send(value)
    }
}

impl<T> SelectSendFrom for SyncSender<T> {
    type FromArm<'a>
        = <channel::Sender<T> as SelectSendFrom>::FromArm<'a>
    where
        Self: 'a;

    fn select_send_from<'a>(&'a self, slot: &'a mut Option<T>) -> Self::FromArm<'a> {
        self.inner.select_send_from(slot)
    }
}

impl<T> SelectRecv for Receiver<T> {
    type Arm<'a>
        = <channel::Receiver<T> as SelectRecv>::Arm<'a>
    where
        Self: 'a;

    fn select_recv(&self) -> Self::Arm<'_> {
        self.inner.select_recv()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { inner: self.inner.clone() }
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> SyncSender<T> {
        SyncSender { inner: self.inner.clone() }
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        self.inner.into_iter()
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
