//! The two ends of a channel, the functions that make them, and their arms of a `select!`.
#![forbid(unsafe_code)]

use std::borrow::BorrowMut;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::iter::FusedIterator;
use std::rc::Rc;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::time::Duration;

use super::core::Channel;
use super::error::SendTimeoutError;
use super::store::Store;
use crate::pure::drops::Held;
use crate::runtime::checkpoint::{begin_call, checkpoint, checkpoint_if, end_call};
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::select_source::{SelectRecv, SelectSend, SelectSendFrom};
use crate::switch::wait_list::WaitList;
use crate::sys::clock::{NEVER, after};

/// Returns both ends of a new channel.
fn pair<T>(store: Store<T>, capacity: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Rc::new(Channel::new(store, capacity));
    (Sender { channel: Rc::clone(&channel) }, Receiver { channel })
}

/// Creates a channel that holds nothing: `send` waits until a receiver takes the value.
///
/// ```
/// use greenling::{channel, spawn};
///
/// let (send, receive) = channel::rendezvous();
/// let giver = spawn(move || send.send("hand to hand"));
/// assert_eq!(receive.recv(), Ok("hand to hand"));
/// assert_eq!(giver.join().unwrap(), Ok(()));
/// ```
///
/// If the receiver that a value was handed to is killed before it has run, the value goes to the next receiver.
///
/// May switch: no.
pub fn rendezvous<T>() -> (Sender<T>, Receiver<T>) {
    pair(Store::fifo(), 0)
}

/// Creates a channel that holds up to `capacity` values and delivers the oldest first. With a capacity of 0, a
/// [`rendezvous`].
///
/// ```
/// use greenling::channel::{self, TrySendError};
///
/// let (send, receive) = channel::bounded(1);
/// send.send(1).unwrap();
/// assert_eq!(send.try_send(2), Err(TrySendError::Full(2)));
/// assert_eq!(receive.recv(), Ok(1));
/// ```
///
/// May switch: no.
#[doc(alias = "Queue")]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    pair(Store::fifo(), capacity)
}

/// Creates a channel that holds any number of values and delivers the oldest first. Nothing slows its senders down.
///
/// ```
/// let (send, receive) = greenling::channel::unbounded();
/// (0..3).for_each(|n| send.send(n).unwrap());
/// drop(send);
/// assert_eq!(receive.iter().collect::<Vec<_>>(), [0, 1, 2]);
/// ```
///
/// May switch: no.
#[doc(alias = "Queue")]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    pair(Store::fifo(), usize::MAX)
}

/// Creates a channel that holds any number of values and delivers the greatest first. Put
/// [`Reverse`](std::cmp::Reverse) around the values to get the least first. The order of equal values is not specified.
///
/// ```
/// let (send, receive) = greenling::channel::priority();
/// [2, 3, 1].into_iter().for_each(|n| send.send(n).unwrap());
/// drop(send);
/// assert_eq!(receive.iter().collect::<Vec<_>>(), [3, 2, 1]);
/// ```
///
/// A comparison that would have to wait panics, as in [`no_switch`](crate::no_switch), and so does a comparison that
/// uses the channel itself.
///
/// May switch: no.
#[doc(alias = "PriorityQueue")]
pub fn priority<T: Ord>() -> (Sender<T>, Receiver<T>) {
    pair(Store::priority(), usize::MAX)
}

/// Creates a channel that holds any number of values and delivers the newest first.
///
/// ```
/// let (send, receive) = greenling::channel::lifo();
/// [1, 2, 3].into_iter().for_each(|n| send.send(n).unwrap());
/// assert_eq!(receive.recv(), Ok(3));
/// ```
///
/// May switch: no.
#[doc(alias = "LifoQueue")]
pub fn lifo<T>() -> (Sender<T>, Receiver<T>) {
    pair(Store::lifo(), usize::MAX)
}

/// The sending end of a channel. Clone it for more senders.
///
/// ```compile_fail
/// fn sendable<T: Send>(_: T) {}
/// sendable(greenling::channel::unbounded::<i32>().0);
/// ```
pub struct Sender<T> {
    channel: Rc<Channel<T>>,
}

/// The receiving end of a channel. Clone it for more receivers; each value goes to one of them.
///
/// ```compile_fail
/// fn sendable<T: Send>(_: T) {}
/// sendable(greenling::channel::unbounded::<i32>().1);
/// ```
pub struct Receiver<T> {
    channel: Rc<Channel<T>>,
}

impl<T> Sender<T> {
    /// Sends a value, and waits until there is room.
    ///
    /// # Errors
    /// [`SendError`] with the value, if all receivers are gone or the channel was closed; or if there is no room and
    /// the caller cannot wait, because the caller unwinds or its OS thread is ending.
    ///
    /// # Panics
    /// If the call has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout), and then drops the value
    /// unless a receiver has taken it; panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if there is no room.
    #[inline(always)]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        // A call that waits gives way by waiting; `end_call` is for a call that does not.
        begin_call();
        let waits = self.channel.is_full();
        self.channel.send(value, || NEVER).map_err(|error| SendError(error.into_inner()))?;
        if !waits {
            end_call();
        }
        Ok(())
    }

    /// Sends a value if there is room now, or a receiver waits.
    ///
    /// # Errors
    /// [`TrySendError`] with the value, if there is neither room nor a waiting receiver, or if no receiver can get the
    /// value.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline(always)]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        // Other threads run after the send, so that they find the value; what is due is raised before it.
        begin_call();
        let sent = self.channel.try_send(value);
        end_call();
        sent
    }

    /// [`send`](Self::send), but waits no longer than `limit`. While the caller unwinds, the call does not wait at all.
    ///
    /// # Errors
    /// [`SendTimeoutError`] with the value.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    ///
    /// May switch: yes, if there is no room.
    #[inline(always)]
    pub fn send_timeout(&self, value: T, limit: Duration) -> Result<(), SendTimeoutError<T>> {
        begin_call();
        let waits = self.channel.is_full();
        self.channel.send(value, || after(limit))?;
        if !waits {
            end_call();
        }
        Ok(())
    }

    /// Returns the number of values that can be received now. Values that were handed to a receiver that has not run
    /// since do not count.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.channel.len()
    }

    /// Reports whether no value can be received now.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.channel.len() == 0
    }

    /// Reports whether a `send` would have to wait now.
    ///
    /// May switch: no.
    pub fn is_full(&self) -> bool {
        self.channel.is_full()
    }

    /// Returns the number of values that the channel may hold, or `None` for any number.
    ///
    /// May switch: no.
    pub fn capacity(&self) -> Option<usize> {
        // The largest number stands for no bound.
        Some(self.channel.capacity()).filter(|capacity| *capacity != usize::MAX)
    }

    /// Reports whether a value that is sent now can still be received: a receiver exists, and the channel was not
    /// closed.
    ///
    /// May switch: no.
    pub fn is_open(&self) -> bool {
        self.channel.is_open()
    }

    /// Closes the channel, from this or any other end. Senders get an error, those that wait included. Receivers get
    /// what is left, then an error. Closing a closed channel does nothing.
    ///
    /// May switch: no.
    pub fn close(&self) {
        self.channel.close();
    }

    /// [`close`](Self::close)s the channel and drops what is left, also values that were handed to a receiver that has
    /// not run since.
    ///
    /// May switch: no, unless a value's destructor does.
    pub fn close_and_discard(&self) {
        self.channel.close_and_discard();
    }

    /// Reports whether both are ends of one channel.
    ///
    /// May switch: no.
    pub fn same_channel(&self, other: &Sender<T>) -> bool {
        Rc::ptr_eq(&self.channel, &other.channel)
    }
}

impl<T> SelectSend for Sender<T> {
    type Value = T;

    type Arm<'s>
        = SendArm<'s, T, Held<T>>
    where
        Self: 's;

    fn select_send(&self, value: T) -> SendArm<'_, T, Held<T>> {
        SendArm::new(&self.channel, Held::new(value))
    }
}

impl<T> SelectSendFrom for Sender<T> {
    type FromArm<'s>
        = SendArm<'s, T, &'s mut Option<T>>
    where
        Self: 's;

    fn select_send_from<'a>(&'a self, slot: &'a mut Option<T>) -> SendArm<'a, T, &'a mut Option<T>> {
        SendArm::new(&self.channel, slot)
    }
}

impl<T> Receiver<T> {
    /// Receives the next value, and waits until there is one.
    ///
    /// # Errors
    /// [`RecvError`], if the channel is empty and all senders are gone or the channel was closed; or if the channel is
    /// empty and the caller cannot wait, because the caller unwinds or its OS thread is ending.
    ///
    /// # Panics
    /// If the call has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout), and no value is lost;
    /// panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if the channel is empty.
    #[inline(always)]
    pub fn recv(&self) -> Result<T, RecvError> {
        // A call that goes on gives way first if its share is used up. A call that waits gives way anyway.
        checkpoint_if(|| self.channel.len() > 0);
        self.channel.recv(|| NEVER).map_err(|_| RecvError)
    }

    /// Receives the next value if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError`], if the channel is empty, or empty for good.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    #[inline(always)]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        checkpoint();
        self.channel.try_recv()
    }

    /// [`recv`](Self::recv), but waits no longer than `limit`. A value that comes in the turn in which the time ends
    /// wins. While the caller unwinds, the call does not wait at all.
    ///
    /// # Errors
    /// [`RecvTimeoutError`], if the channel stays empty for that long, or is empty for good.
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    ///
    /// May switch: yes, if the channel is empty.
    #[inline(always)]
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        checkpoint_if(|| self.channel.len() > 0);
        self.channel.recv(|| after(limit))
    }

    /// Returns an iterator that waits for values, and ends when no more can come.
    ///
    /// May switch: no, but its `next` does.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// Returns an iterator over the values that are there now.
    ///
    /// May switch: no.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// Returns the number of values that can be received now; see [`Sender::len`].
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.channel.len()
    }

    /// Reports whether no value can be received now.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.channel.len() == 0
    }

    /// Reports whether a `send` would have to wait now.
    ///
    /// May switch: no.
    pub fn is_full(&self) -> bool {
        self.channel.is_full()
    }

    /// Returns the number of values that the channel may hold; see [`Sender::capacity`].
    ///
    /// May switch: no.
    pub fn capacity(&self) -> Option<usize> {
        // The largest number stands for no bound.
        Some(self.channel.capacity()).filter(|capacity| *capacity != usize::MAX)
    }

    /// Closes the channel; see [`Sender::close`].
    ///
    /// May switch: no.
    pub fn close(&self) {
        self.channel.close();
    }

    /// Closes the channel and drops what is left; see [`Sender::close_and_discard`].
    ///
    /// May switch: no, unless a value's destructor does.
    pub fn close_and_discard(&self) {
        self.channel.close_and_discard();
    }

    /// Reports whether both are ends of one channel.
    ///
    /// May switch: no.
    pub fn same_channel(&self, other: &Receiver<T>) -> bool {
        Rc::ptr_eq(&self.channel, &other.channel)
    }
}

impl<T> SelectRecv for Receiver<T> {
    type Arm<'s>
        = RecvArm<'s, T>
    where
        Self: 's;

    fn select_recv(&self) -> RecvArm<'_, T> {
        RecvArm { channel: &self.channel, waits: Cell::new(false), result: Cell::new(None) }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.add_sender();
        Sender { channel: Rc::clone(&self.channel) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.channel.add_receiver();
        Receiver { channel: Rc::clone(&self.channel) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.drop_sender();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.channel.drop_receiver();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("len", &self.channel.len()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.channel.len()).finish_non_exhaustive()
    }
}

/// An iterator that waits for values; made by [`Receiver::iter`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Iter<'a, T> {
    receiver: &'a Receiver<T>,
}

/// An iterator over the values that are there; made by [`Receiver::try_iter`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
}

/// An iterator that waits for values, and owns its [`Receiver`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct IntoIter<T> {
    receiver: Receiver<T>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T> FusedIterator for Iter<'_, T> {}
impl<T> FusedIterator for IntoIter<T> {}

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
        IntoIter { receiver: self }
    }
}

/// The receiving arm of a `select!`.
pub struct RecvArm<'a, T> {
    channel: &'a Channel<T>,
    /// Set while the arm stands in the queue of receivers.
    waits: Cell<bool>,
    result: Cell<Option<Result<T, RecvError>>>,
}

impl<T> SelectArm for RecvArm<'_, T> {
    type Output = Result<T, RecvError>;

    fn finish(self) -> Result<T, RecvError> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl<T> Arm for RecvArm<'_, T> {
    fn try_select(&self) -> bool {
        if self.waits.get() {
            // A sender would have chosen this arm, so only the end of the channel can have woken the caller. A value
            // that could be received from a sender now would be that of another arm of the same `select!`.
            if self.channel.is_disconnected() {
                self.result.set(Some(Err(RecvError)));
            }
            return self.channel.is_disconnected();
        }
        match self.channel.try_recv() {
            Ok(value) => self.result.set(Some(Ok(value))),
            Err(TryRecvError::Disconnected) => self.result.set(Some(Err(RecvError))),
            Err(TryRecvError::Empty) => return false,
        }
        true
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        self.waits.set(true);
        Ok(Some(self.channel.recv_queue()))
    }

    fn accept(&self) {
        // Before the value is taken: if the comparison of a priority channel panics, no reservation is left to pass on.
        self.waits.set(false);
        self.result.set(Some(self.channel.take_reserved().map_err(|_| RecvError)));
    }

    fn unregister(&self, end: ArmEnd) {
        // A value was reserved for this arm, but the `select!` unwinds.
        if self.waits.take() && end == ArmEnd::Aborted {
            self.channel.pass_reservation_on();
        }
    }
}

impl<T> fmt::Debug for RecvArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvArm").finish_non_exhaustive()
    }
}

/// The sending arm of a `select!`. `S` holds the value while the channel does not.
pub struct SendArm<'a, T, S> {
    channel: &'a Channel<T>,
    /// The value; `None` while it is pending in the channel. An arm without a value never goes on.
    slot: RefCell<S>,
    /// The mark of the pending value, if there is one.
    id: Cell<Option<ArmId>>,
    result: Cell<Option<Result<(), SendError<T>>>>,
}

impl<'a, T, S: BorrowMut<Option<T>>> SendArm<'a, T, S> {
    /// Returns an arm that sends what is in `slot`.
    fn new(channel: &'a Channel<T>, slot: S) -> SendArm<'a, T, S> {
        SendArm { channel, slot: RefCell::new(slot), id: Cell::new(None), result: Cell::new(None) }
    }

    /// Takes the value out of the slot.
    fn take(&self) -> Option<T> {
        // No foreign code runs while the slot is borrowed.
        BorrowMut::<Option<T>>::borrow_mut(&mut *self.slot.borrow_mut()).take()
    }

    /// Puts the value back into the slot, which is empty, so that nothing is dropped.
    fn put_back(&self, value: T) {
        *BorrowMut::<Option<T>>::borrow_mut(&mut *self.slot.borrow_mut()) = Some(value);
    }
}

impl<'a, T, S: BorrowMut<Option<T>>> SelectArm for SendArm<'a, T, S> {
    type Output = Result<(), SendError<T>>;

    fn finish(self) -> Result<(), SendError<T>> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl<T, S: BorrowMut<Option<T>>> Arm for SendArm<'_, T, S> {
    fn try_select(&self) -> bool {
        if let Some(id) = self.id.get() {
            // A receiver would have chosen this arm, so only the end of the channel can have woken the caller.
            if self.channel.is_open() {
                return false;
            }
            self.result.set(self.channel.remove_pending(id).map(|value| Err(SendError(value))));
            return true;
        }
        let Some(value) = self.take() else { return false };
        match self.channel.try_send(value) {
            Ok(()) => self.result.set(Some(Ok(()))),
            Err(TrySendError::Disconnected(value)) => self.result.set(Some(Err(SendError(value)))),
            Err(TrySendError::Full(value)) => {
                self.put_back(value);
                return false;
            }
        }
        true
    }

    fn register(&self, id: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        // An arm without a value is in no queue.
        let Some(value) = self.take() else { return Ok(None) };
        // As a sender that waits does: the value waits in the channel, and its mark in the arm.
        self.channel.push_pending(id, value);
        self.id.set(Some(id));
        Ok(Some(self.channel.send_queue()))
    }

    fn accept(&self) {
        self.result.set(Some(Ok(())));
    }

    fn unregister(&self, end: ArmEnd) {
        if let Some(id) = self.id.take()
            // Another arm won: the value comes back, unless a receiver has taken it.
            && end == ArmEnd::Lost
            && let Some(value) = self.channel.remove_pending(id)
        {
            self.put_back(value);
        }
    }
}

impl<T, S> fmt::Debug for SendArm<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendArm").finish_non_exhaustive()
    }
}
