//! The two ends of a channel between hubs: [`RemoteSender`] and [`RemoteReceiver`].
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::time::Duration;

use super::state::{NotWoken, RemoteChannel, Side, WaitGuard};
use crate::channel::SendTimeoutError;
use crate::pure::drops::Held;
use crate::runtime::checkpoint::{begin_call, checkpoint, checkpoint_if, end_call};
use crate::sys::clock::{NEVER, after};

/// Makes a channel with ends that may be on different OS threads: any number of senders, any number of receivers, each
/// value goes to one of them. With a `capacity`, `send` waits while so many values are in the channel.
///
/// ```
/// use greenling::hub;
///
/// let (send, receive) = hub::channel(Some(2));
/// let os_thread = std::thread::spawn(move || {
///     for n in 0..10 {
///         send.send(n).unwrap(); // waits while two are in it
///     }
/// });
/// assert_eq!(receive.iter().sum::<i32>(), 45); // until the sender is gone
/// os_thread.join().unwrap();
/// ```
///
/// A call that waits parks the green thread; on an OS thread that has none, main. Values arrive in order, and so do
/// turns. A green thread that is suspended when its OS thread ends is never unwound, so an end that the thread holds
/// stays, and the other side is not told: end such a main with [`hub::shutdown`](crate::hub::shutdown). Within one hub
/// a channel works too, but takes a lock for nothing: [`channel`](crate::channel) has the better ones there. Ends of
/// either kind may stand in a [`select!`](crate::select).
///
/// # Panics
/// If `capacity` is `Some(0)`.
///
/// May switch: no.
pub fn channel<T: Send>(capacity: Option<usize>) -> (RemoteSender<T>, RemoteReceiver<T>) {
    assert_ne!(capacity, Some(0), "a channel between hubs must have room for a value");
    let channel = Arc::new(RemoteChannel::new(capacity));
    (RemoteSender { channel: Arc::clone(&channel) }, RemoteReceiver { channel })
}

/// The sending end of a [`channel`]. Clones are more senders; any OS thread may use one.
pub struct RemoteSender<T> {
    /// The channel, which counts this end.
    pub(super) channel: Arc<RemoteChannel<T>>,
}

impl<T: Send> RemoteSender<T> {
    /// Sends a value, after waiting for room if there is none.
    ///
    /// # Errors
    /// [`SendError`] with the value: all receivers are gone; or there is no room, and the caller cannot wait because it
    /// is unwinding or its OS thread is ending.
    ///
    /// # Panics
    /// If the call has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout), and panics inside
    /// [`no_switch`](crate::no_switch) and in the child of a fork. The value is dropped then.
    ///
    /// May switch: yes, if there is no room.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        begin_call();
        self.send_until(value, NEVER).map_err(|error| SendError(error.into_inner()))
    }

    /// Sends a value as [`send`](Self::send) does, but waits for at most `limit`. Room that is there when the time is
    /// over wins. A caller that cannot wait gets `Timeout` at once.
    ///
    /// # Errors
    /// [`SendTimeoutError`] with the value.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    ///
    /// May switch: yes, if there is no room.
    pub fn send_timeout(&self, value: T, limit: Duration) -> Result<(), SendTimeoutError<T>> {
        begin_call();
        self.send_until(value, after(limit))
    }

    /// Sends a value, and waits for room until `deadline`, in monotonic nanoseconds.
    fn send_until(&self, mut value: T, deadline: u64) -> Result<(), SendTimeoutError<T>> {
        let mut guard = WaitGuard::new(&self.channel, Side::Sending);
        // One try after each wake-up, and one after the wait has ended without one.
        let (mut ended, mut waited) = (false, false);
        loop {
            match guard.put(value) {
                Ok(()) => {
                    if !waited {
                        end_call();
                    }
                    return Ok(());
                }
                Err(TrySendError::Disconnected(value)) => return Err(SendTimeoutError::Disconnected(value)),
                Err(TrySendError::Full(value)) if ended => return Err(SendTimeoutError::Timeout(value)),
                Err(TrySendError::Full(back)) => {
                    // If the wait unwinds, a destructor that panics must not abort the process.
                    let held = Held::new(back);
                    waited = true;
                    ended = guard.wait(deadline).is_err();
                    value = held.into_inner();
                }
            }
        }
    }

    /// Sends a value if there is room now that no waiting sender is entitled to.
    ///
    /// # Errors
    /// [`TrySendError`] with the value.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        begin_call();
        let sent = WaitGuard::new(&self.channel, Side::Sending).put(value);
        end_call();
        sent
    }
}

impl<T> Clone for RemoteSender<T> {
    fn clone(&self) -> RemoteSender<T> {
        self.channel.add_sender();
        RemoteSender { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Drop for RemoteSender<T> {
    fn drop(&mut self) {
        self.channel.drop_sender();
    }
}

impl<T> fmt::Debug for RemoteSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSender").field("len", &self.channel.len()).finish_non_exhaustive()
    }
}

/// The receiving end of a [`channel`]. Clones are more receivers; any OS thread may use one.
pub struct RemoteReceiver<T> {
    /// The channel, which counts this end.
    pub(super) channel: Arc<RemoteChannel<T>>,
}

impl<T: Send> RemoteReceiver<T> {
    /// Takes the oldest value, after waiting for one if there is none.
    ///
    /// # Errors
    /// [`RecvError`]: the channel is empty and all senders are gone; or it is empty, and the caller cannot wait because
    /// it is unwinding or its OS thread is ending.
    ///
    /// # Panics
    /// If the call has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout), and panics inside
    /// [`no_switch`](crate::no_switch) and in the child of a fork. No value is lost.
    ///
    /// May switch: yes, if the channel is empty.
    pub fn recv(&self) -> Result<T, RecvError> {
        checkpoint_if(|| !self.is_empty());
        self.recv_until(NEVER).map_err(|_| RecvError)
    }

    /// Takes the oldest value as [`recv`](Self::recv) does, but waits for at most `limit`. A value that is there when
    /// the time is over wins. A caller that cannot wait gets `Timeout` at once.
    ///
    /// # Errors
    /// [`RecvTimeoutError`]: no value came in time, or none will come.
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    ///
    /// May switch: yes, if the channel is empty.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        checkpoint_if(|| !self.is_empty());
        self.recv_until(after(limit))
    }

    /// Takes the oldest value if there is one that no waiting receiver is entitled to.
    ///
    /// # Errors
    /// [`TryRecvError`]: there is no such value, or none will come.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        checkpoint();
        WaitGuard::new(&self.channel, Side::Receiving).take()
    }

    /// Takes a value, and waits for one until `deadline`, in monotonic nanoseconds.
    fn recv_until(&self, deadline: u64) -> Result<T, RecvTimeoutError> {
        let mut guard = WaitGuard::new(&self.channel, Side::Receiving);
        // One try after each wake-up, and one after the wait has ended without one.
        let mut ended = None;
        loop {
            match guard.take() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            match ended {
                None => ended = guard.wait(deadline).err(),
                Some(NotWoken::TimedOut | NotWoken::Impossible) => return Err(RecvTimeoutError::Timeout),
            }
        }
    }
}

impl<T> Clone for RemoteReceiver<T> {
    fn clone(&self) -> RemoteReceiver<T> {
        self.channel.add_receiver();
        RemoteReceiver { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Drop for RemoteReceiver<T> {
    fn drop(&mut self) {
        self.channel.drop_receiver();
    }
}

impl<T> fmt::Debug for RemoteReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteReceiver").field("len", &self.channel.len()).finish_non_exhaustive()
    }
}

/// Implements what both ends can report and do.
macro_rules! end {
    ($end:ident) => {
        impl<T> $end<T> {
            /// Returns how many values are in the channel now.
            ///
            /// May switch: no.
            pub fn len(&self) -> usize {
                self.channel.len()
            }

            /// Reports whether the channel is empty now.
            ///
            /// May switch: no.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Returns how many values the channel may hold; `None` for any number.
            ///
            /// May switch: no.
            pub fn capacity(&self) -> Option<usize> {
                self.channel.capacity()
            }

            /// Reports whether a value that is sent could still be received: a receiver exists, and the channel was not
            /// closed.
            ///
            /// May switch: no.
            pub fn is_open(&self) -> bool {
                self.channel.is_open()
            }

            /// Closes the channel from this or any other end. Senders get an error, those that wait included; receivers
            /// get the values that are in the channel, and then an error. Does nothing if the channel was closed
            /// before.
            ///
            /// May switch: no.
            pub fn close(&self) {
                self.channel.close(false);
            }

            /// Closes the channel as [`close`](Self::close) does, and drops all values.
            ///
            /// May switch: no, unless a value's destructor does.
            pub fn close_and_discard(&self) {
                self.channel.close(true);
            }
        }
    };
}

end!(RemoteSender);
end!(RemoteReceiver);
