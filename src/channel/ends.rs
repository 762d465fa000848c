//! The two ends of a channel, what makes them, and their arms of a `select!`.
#![forbid(unsafe_code)]

use std::borrow::BorrowMut;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::iter::FusedIterator;
use std::rc::Rc;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::time::Duration;

use super::core::Core;
use super::store::Store;
use crate::runtime::choose::{AnyArm, Arm, End, Failed, Who};
use crate::runtime::park::NEVER;
use crate::runtime::source::after;
use crate::switch::wait_list::WaitList;

/// Both ends of a new channel.
fn pair<T>(store: Store<T>, capacity: usize) -> (Sender<T>, Receiver<T>) {
    let core = Rc::new(Core::new(store, capacity));
    (Sender { core: Rc::clone(&core) }, Receiver { core })
}

/// A channel that holds nothing: `send` waits until a receiver takes the value.
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
/// If the receiver that a value was handed to is killed before it has run, the value stays for the next one.
///
/// May switch: no.
pub fn rendezvous<T>() -> (Sender<T>, Receiver<T>) {
    pair(Store::fifo(), 0)
}

/// A channel that holds up to `capacity` values; the oldest comes out first. With 0 it is a [`rendezvous`].
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
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    pair(Store::fifo(), capacity)
}

/// A channel that holds any number of values; the oldest comes out first. Nothing slows its senders down.
///
/// ```
/// let (send, receive) = greenling::channel::unbounded();
/// (0..3).for_each(|n| send.send(n).unwrap());
/// drop(send);
/// assert_eq!(receive.iter().collect::<Vec<_>>(), [0, 1, 2]);
/// ```
///
/// May switch: no.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    pair(Store::fifo(), usize::MAX)
}

/// A channel that holds any number of values; the greatest comes out first. Put [`Reverse`](std::cmp::Reverse) around them
/// for the least. Which of two equal ones comes first is not said.
///
/// ```
/// let (send, receive) = greenling::channel::priority();
/// [2, 3, 1].into_iter().for_each(|n| send.send(n).unwrap());
/// drop(send);
/// assert_eq!(receive.iter().collect::<Vec<_>>(), [3, 2, 1]);
/// ```
///
/// A comparison that would have to wait panics, as in [`no_switch`](crate::no_switch), and so does one that uses the
/// channel itself.
///
/// May switch: no.
pub fn priority<T: Ord>() -> (Sender<T>, Receiver<T>) {
    pair(Store::priority(), usize::MAX)
}

/// A channel that holds any number of values; the newest comes out first.
///
/// ```
/// let (send, receive) = greenling::channel::lifo();
/// [1, 2, 3].into_iter().for_each(|n| send.send(n).unwrap());
/// assert_eq!(receive.recv(), Ok(3));
/// ```
///
/// May switch: no.
pub fn lifo<T>() -> (Sender<T>, Receiver<T>) {
    pair(Store::lifo(), usize::MAX)
}

/// Why [`Sender::send_timeout`] did not send. The value is inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// Nobody can receive it: all receivers are gone, or the channel was closed.
    Disconnected(T),
}

impl<T> SendTimeoutError<T> {
    /// The value.
    ///
    /// May switch: no.
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(value) | SendTimeoutError::Disconnected(value) => value,
        }
    }
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "Timeout(..)",
            SendTimeoutError::Disconnected(_) => "Disconnected(..)",
        })
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "timed out waiting for room in a channel",
            SendTimeoutError::Disconnected(_) => "sending on a closed channel",
        })
    }
}

impl<T> Error for SendTimeoutError<T> {}

/// The end that values go in at. Clone it for more senders.
///
/// ```compile_fail
/// fn sendable<T: Send>(_: T) {}
/// sendable(greenling::channel::unbounded::<i32>().0);
/// ```
pub struct Sender<T> {
    /// The channel.
    core: Rc<Core<T>>,
}

/// The end that values come out at. Clone it for more receivers; each value goes to one of them.
///
/// ```compile_fail
/// fn sendable<T: Send>(_: T) {}
/// sendable(greenling::channel::unbounded::<i32>().1);
/// ```
pub struct Receiver<T> {
    /// The channel.
    core: Rc<Core<T>>,
}

impl<T> Sender<T> {
    /// Sends a value, as soon as there is room for it.
    ///
    /// # Errors
    /// [`SendError`] with the value: all receivers are gone, or the channel was closed; or there is no room, and the caller
    /// cannot wait because it is unwinding or its OS thread is ending.
    ///
    /// # Panics
    /// If it has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout), and then the value is dropped, unless
    /// it was taken before; panics inside [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if there is no room.
    #[inline(always)]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.core.put(value, || NEVER).map_err(|error| SendError(error.into_inner()))
    }

    /// Sends a value if there is room for it now, or a receiver that waits.
    ///
    /// # Errors
    /// [`TrySendError`] with the value.
    ///
    /// May switch: no.
    #[inline(always)]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.core.try_put(value)
    }

    /// [`send`](Self::send), but waits no longer than `limit`. While the caller unwinds it does not wait at all.
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
        self.core.put(value, || after(limit))
    }

    /// How many values can be received now. Those that were handed to a receiver that has not run since do not count.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Whether nothing can be received now.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.core.len() == 0
    }

    /// Whether a `send` would have to wait now.
    ///
    /// May switch: no.
    pub fn is_full(&self) -> bool {
        self.core.is_full()
    }

    /// How many values it may hold; `None` for any number.
    ///
    /// May switch: no.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.core.capacity()).filter(|capacity| *capacity != usize::MAX)
    }

    /// Whether a value that is sent could still be received: a receiver exists, and nobody closed the channel.
    ///
    /// May switch: no.
    pub fn is_open(&self) -> bool {
        self.core.is_open()
    }

    /// Closes the channel from this or any other end. Senders get an error, those that wait included; receivers get what is
    /// in it, and then an error. Does nothing if it was closed before.
    ///
    /// May switch: no.
    pub fn close(&self) {
        self.core.close();
    }

    /// [`close`](Self::close), and drops what is in it, also what was handed to a receiver that has not run since.
    ///
    /// May switch: no, unless a value's destructor does.
    pub fn close_and_discard(&self) {
        self.core.close_and_discard();
    }

    /// Whether both are ends of one channel.
    ///
    /// May switch: no.
    pub fn same_channel(&self, other: &Sender<T>) -> bool {
        Rc::ptr_eq(&self.core, &other.core)
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_send(&self, value: T) -> SendArm<'_, T, Option<T>> {
        SendArm::new(&self.core, Some(value))
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_send_from<'a>(&'a self, slot: &'a mut Option<T>) -> SendArm<'a, T, &'a mut Option<T>> {
        SendArm::new(&self.core, slot)
    }
}

impl<T> Receiver<T> {
    /// Takes the next value, as soon as there is one.
    ///
    /// # Errors
    /// [`RecvError`]: the channel is empty, and all senders are gone or it was closed; or it is empty, and the caller cannot
    /// wait because it is unwinding or its OS thread is ending.
    ///
    /// # Panics
    /// If it has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout), and no value is lost; panics inside
    /// [`no_switch`](crate::no_switch), and in main on a deadlock.
    ///
    /// May switch: yes, if the channel is empty.
    #[inline(always)]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.core.take(|| NEVER).map_err(|_| RecvError)
    }

    /// Takes the next value if there is one now.
    ///
    /// # Errors
    /// [`TryRecvError`].
    ///
    /// May switch: no.
    #[inline(always)]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.core.try_take()
    }

    /// [`recv`](Self::recv), but waits no longer than `limit`. A value that comes in the turn in which the time is over wins.
    /// While the caller unwinds it does not wait at all.
    ///
    /// # Errors
    /// [`RecvTimeoutError`].
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    ///
    /// May switch: yes, if the channel is empty.
    #[inline(always)]
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.core.take(|| after(limit))
    }

    /// Values until no more can come.
    ///
    /// May switch: no, but its `next` does.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// The values that are there now.
    ///
    /// May switch: no.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// See [`Sender::len`].
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Whether nothing can be received now.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.core.len() == 0
    }

    /// Whether a `send` would have to wait now.
    ///
    /// May switch: no.
    pub fn is_full(&self) -> bool {
        self.core.is_full()
    }

    /// See [`Sender::capacity`].
    ///
    /// May switch: no.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.core.capacity()).filter(|capacity| *capacity != usize::MAX)
    }

    /// See [`Sender::close`].
    ///
    /// May switch: no.
    pub fn close(&self) {
        self.core.close();
    }

    /// See [`Sender::close_and_discard`].
    ///
    /// May switch: no, unless a value's destructor does.
    pub fn close_and_discard(&self) {
        self.core.close_and_discard();
    }

    /// Whether both are ends of one channel.
    ///
    /// May switch: no.
    pub fn same_channel(&self, other: &Receiver<T>) -> bool {
        Rc::ptr_eq(&self.core, &other.core)
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_recv(&self) -> RecvArm<'_, T> {
        RecvArm { core: &self.core, waits: Cell::new(false), result: Cell::new(None) }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.core.add_sender();
        Sender { core: Rc::clone(&self.core) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.core.add_receiver();
        Receiver { core: Rc::clone(&self.core) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.core.drop_sender();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.core.drop_receiver();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("len", &self.core.len()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.core.len()).finish_non_exhaustive()
    }
}

/// What [`Receiver::iter`] returns.
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Iter<'a, T> {
    /// Where the values come from.
    receiver: &'a Receiver<T>,
}

/// What [`Receiver::try_iter`] returns.
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct TryIter<'a, T> {
    /// Where the values come from.
    receiver: &'a Receiver<T>,
}

/// What iterates over a [`Receiver`] that it owns.
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct IntoIter<T> {
    /// Where the values come from.
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
    /// The channel.
    core: &'a Core<T>,
    /// Whether it stands in line.
    waits: Cell<bool>,
    /// The result.
    result: Cell<Option<Result<T, RecvError>>>,
}

impl<T> RecvArm<'_, T> {
    /// For `select!`.
    #[doc(hidden)]
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// As `recv`.
    #[doc(hidden)]
    pub fn finish(self) -> Result<T, RecvError> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl<T> Arm for RecvArm<'_, T> {
    fn look(&self) -> bool {
        if self.waits.get() {
            // A value would have chosen it. Only the end of the channel wakes it otherwise; and what could be taken from
            // hand to hand now is what another arm of the same `select!` wants to send.
            if self.core.is_ended() {
                self.result.set(Some(Err(RecvError)));
            }
            return self.core.is_ended();
        }
        match self.core.try_take() {
            Ok(value) => self.result.set(Some(Ok(value))),
            Err(TryRecvError::Disconnected) => self.result.set(Some(Err(RecvError))),
            Err(TryRecvError::Empty) => return false,
        }
        true
    }

    fn enter(&self, _: Who) -> Result<Option<&WaitList>, Failed> {
        self.waits.set(true);
        Ok(Some(self.core.takers()))
    }

    fn complete(&self) {
        // First: if the comparison of a priority channel panics, the value is gone, and no promise is left to pass on.
        self.waits.set(false);
        self.result.set(Some(self.core.collect().map_err(|_| RecvError)));
    }

    fn left(&self, end: End) {
        if end == End::InVain && self.waits.get() {
            self.core.pass_on();
        }
    }
}

impl<T> fmt::Debug for RecvArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvArm").finish_non_exhaustive()
    }
}

/// The sending arm of a `select!`. `S` is where the value is while it is not with the channel.
pub struct SendArm<'a, T, S> {
    /// The channel.
    core: &'a Core<T>,
    /// The value; empty while it is deposited. An arm without a value never goes on.
    slot: RefCell<S>,
    /// Whose the deposit is, if there is one.
    who: Cell<Option<Who>>,
    /// The result.
    result: Cell<Option<Result<(), SendError<T>>>>,
}

impl<'a, T, S: BorrowMut<Option<T>>> SendArm<'a, T, S> {
    /// Sends what is in `slot`.
    fn new(core: &'a Core<T>, slot: S) -> SendArm<'a, T, S> {
        SendArm { core, slot: RefCell::new(slot), who: Cell::new(None), result: Cell::new(None) }
    }

    /// The value out of its place.
    fn take(&self) -> Option<T> {
        BorrowMut::<Option<T>>::borrow_mut(&mut *self.slot.borrow_mut()).take()
    }

    /// Puts the value back. The place is empty, so nothing is dropped.
    fn put_back(&self, value: T) {
        *BorrowMut::<Option<T>>::borrow_mut(&mut *self.slot.borrow_mut()) = Some(value);
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// As `send`.
    #[doc(hidden)]
    pub fn finish(self) -> Result<(), SendError<T>> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl<T, S: BorrowMut<Option<T>>> Arm for SendArm<'_, T, S> {
    fn look(&self) -> bool {
        if let Some(who) = self.who.get() {
            // It waits: room would have chosen it. Only the end of the channel wakes it otherwise.
            if self.core.is_open() {
                return false;
            }
            self.result.set(self.core.withdraw(who).map(|value| Err(SendError(value))));
            return true;
        }
        let Some(value) = self.take() else { return false };
        match self.core.try_put(value) {
            Ok(()) => self.result.set(Some(Ok(()))),
            Err(TrySendError::Disconnected(value)) => self.result.set(Some(Err(SendError(value)))),
            Err(TrySendError::Full(value)) => {
                self.put_back(value);
                return false;
            }
        }
        true
    }

    fn enter(&self, who: Who) -> Result<Option<&WaitList>, Failed> {
        let Some(value) = self.take() else { return Ok(None) };
        self.core.deposit(who, value);
        self.who.set(Some(who));
        Ok(Some(self.core.putters()))
    }

    fn complete(&self) {
        self.result.set(Some(Ok(())));
    }

    fn left(&self, end: End) {
        if end == End::Lost
            && let Some(who) = self.who.get()
            && let Some(value) = self.core.withdraw(who)
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
