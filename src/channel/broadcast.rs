//! A channel in which every receiver gets every value.
//!
//! ```text
//!   numbers     first                 first + len
//!                 v                        v
//!   values        | 7 | 8 | 9 | 10 | 11 |            at most `capacity`; the oldest goes when a new one comes
//!                         ^         ^
//!   receivers            next=9    next=11           a receiver with `next` before `first` has missed values
//! ```
//!
//! A sender never waits. A send wakes all waiting receivers and leaves them in their list: each receiver has its own
//! position in the buffer, and looks for its next value itself.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::SendError;
use std::time::Duration;

use crate::pure::drops::drop_each;
use crate::runtime::caller::Caller;
use crate::runtime::checkpoint::{begin_call, checkpoint, checkpoint_if, end_call};
use crate::runtime::choose::{AlreadyWon, Arm, ArmEnd, ArmId, SelectArm};
use crate::runtime::park::Wake;
use crate::runtime::select_source::SelectRecv;
use crate::switch::cancel;
use crate::switch::fiber::Reason;
use crate::switch::root::existing_root;
use crate::switch::wait_list::WaitList;
use crate::sys::clock::{NEVER, after};

/// Creates a channel in which each receiver gets each value that is sent from the receiver's creation on. The channel
/// keeps the last `capacity` values. A receiver that is later than that is told how many values it missed, and goes on
/// with the oldest one that is kept.
///
/// ```
/// use greenling::channel::{self, BroadcastError};
///
/// let (send, one) = channel::broadcast(2);
/// let two = send.subscribe();
/// send.send("a").unwrap();
/// send.send("b").unwrap();
/// assert_eq!((one.recv(), two.recv()), (Ok("a"), Ok("a")));
/// send.send("c").unwrap();
/// send.send("d").unwrap();
/// assert_eq!(one.recv(), Err(BroadcastError::Lagged(1)));
/// assert_eq!(one.recv(), Ok("c"));
/// ```
///
/// With a capacity of 1 the channel is a watched value: receivers see the newest value, and are told if they missed
/// some.
///
/// # Panics
/// If `capacity` is 0, since no receiver could get anything.
///
/// May switch: no.
pub fn broadcast<T: Clone>(capacity: usize) -> (BroadcastSender<T>, BroadcastReceiver<T>) {
    assert_ne!(capacity, 0, "greenling: a broadcast channel must have room for a value");
    let buffer = Rc::new(Buffer {
        values: RefCell::new(VecDeque::new()),
        first: Cell::new(0),
        capacity,
        waiters: WaitList::new(),
        // One for each of the ends that are returned.
        senders: Cell::new(1),
        receivers: Cell::new(1),
        closed: Cell::new(false),
    });
    (BroadcastSender { buffer: Rc::clone(&buffer) }, BroadcastReceiver { buffer, next: Cell::new(0) })
}

/// The state that all ends share.
struct Buffer<T> {
    /// The kept values, oldest first. In an `Rc`, since `clone` is foreign code and must run with nothing borrowed.
    values: RefCell<VecDeque<Rc<T>>>,
    /// The number of the oldest kept value.
    first: Cell<u64>,
    /// The number of values that are kept.
    capacity: usize,
    /// The receivers that wait for a value.
    waiters: WaitList,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    /// Set when no value will come any more.
    closed: Cell<bool>,
}

/// The reason why a receiver of a [`broadcast`] channel got no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastError {
    /// The receiver was late and missed this many values. The next call returns the oldest value that is kept.
    Lagged(u64),
    /// There is nothing new, or nothing came in time.
    Empty,
    /// There is nothing new and nothing will come, since all senders are gone or the channel was closed. Or there is
    /// nothing new, and the caller cannot wait because the caller unwinds or its OS thread is ending.
    Disconnected,
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BroadcastError::Lagged(missed) => write!(f, "missed {missed} values of a broadcast channel"),
            BroadcastError::Empty => f.write_str("nothing new in a broadcast channel"),
            BroadcastError::Disconnected => f.write_str("receiving on a closed broadcast channel"),
        }
    }
}

impl Error for BroadcastError {}

/// `WouldBlock` for an empty channel, `BrokenPipe` for a disconnected one.
impl From<BroadcastError> for io::Error {
    fn from(error: BroadcastError) -> io::Error {
        let kind = match error {
            BroadcastError::Lagged(_) => io::ErrorKind::Other,
            BroadcastError::Empty => io::ErrorKind::WouldBlock,
            BroadcastError::Disconnected => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

impl<T> Buffer<T> {
    /// Returns the number that the next value will get.
    fn end(&self) -> u64 {
        self.first.get() + self.values.borrow().len() as u64
    }

    /// Wakes all waiting receivers, and leaves them in the list.
    fn wake_all(&self) {
        if let Some(root) = existing_root() {
            self.waiters.for_each(|fiber| {
                root.wake(fiber);
            });
        }
    }

    /// Ends the channel: no value will come any more.
    fn close(&self) {
        self.closed.set(true);
        self.wake_all();
    }
}

/// The sending end of a [`broadcast`] channel. Clone it for more senders.
pub struct BroadcastSender<T> {
    buffer: Rc<Buffer<T>>,
}

impl<T: Clone> BroadcastSender<T> {
    /// Sends a value to all receivers, and returns the number of receivers.
    ///
    /// # Errors
    /// [`SendError`] with the value, if there is no receiver or the channel was closed.
    ///
    /// May switch: yes, if the destructor of the oldest value does, which makes room, or if the caller's share of the
    /// CPU is used up (see [`thread`](crate::thread)).
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        begin_call();
        let buffer = &*self.buffer;
        // No receiver can get the value.
        if buffer.receivers.get() == 0 || buffer.closed.get() {
            return Err(SendError(value));
        }
        // A full buffer loses its oldest value. That value is dropped last, when nothing is borrowed.
        let mut values = buffer.values.borrow_mut();
        let oldest = if values.len() == buffer.capacity { values.pop_front() } else { None };
        buffer.first.set(buffer.first.get() + u64::from(oldest.is_some()));
        values.push_back(Rc::new(value));
        drop(values);
        buffer.wake_all();
        // Before the destructor, which is foreign code and may change the number.
        let receivers = buffer.receivers.get();
        drop(oldest);
        end_call();
        Ok(receivers)
    }

    /// Returns a receiver of the values that are sent from now on.
    ///
    /// May switch: no.
    pub fn subscribe(&self) -> BroadcastReceiver<T> {
        // A new receiver begins behind all values that were sent.
        self.buffer.receivers.set(self.buffer.receivers.get() + 1);
        BroadcastReceiver { buffer: Rc::clone(&self.buffer), next: Cell::new(self.buffer.end()) }
    }

    /// Returns the number of receivers.
    ///
    /// May switch: no.
    pub fn receiver_count(&self) -> usize {
        self.buffer.receivers.get()
    }

    /// Closes the channel for all ends: receivers get what is left, then an error.
    ///
    /// May switch: no.
    pub fn close(&self) {
        self.buffer.close();
    }
}

/// The receiving end of a [`broadcast`] channel. A clone gets the values that the original has not got yet.
pub struct BroadcastReceiver<T> {
    buffer: Rc<Buffer<T>>,
    /// The number of the value that this receiver gets next.
    next: Cell<u64>,
}

impl<T: Clone> BroadcastReceiver<T> {
    /// Receives the next value, and waits until there is one.
    ///
    /// # Errors
    /// [`BroadcastError::Lagged`] or [`BroadcastError::Disconnected`].
    ///
    /// # Panics
    /// If the call has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch), and in main on a deadlock. With the panics of the value's `clone`.
    ///
    /// May switch: yes, if there is nothing new.
    pub fn recv(&self) -> Result<T, BroadcastError> {
        checkpoint_if(|| !self.is_empty());
        self.recv_until(|| NEVER).map_err(|error| match error {
            BroadcastError::Empty => BroadcastError::Disconnected,
            error => error,
        })
    }

    /// Receives the next value if there is one now.
    ///
    /// # Errors
    /// [`BroadcastError`], if there is none.
    ///
    /// May switch: yes, if the value's `clone` does, or the caller's share of the CPU is used up (see
    /// [`thread`](crate::thread)).
    pub fn try_recv(&self) -> Result<T, BroadcastError> {
        checkpoint();
        self.take_next()
    }

    /// [`try_recv`](Self::try_recv) without letting other threads run first.
    fn take_next(&self) -> Result<T, BroadcastError> {
        let buffer = &*self.buffer;
        let (first, next) = (buffer.first.get(), self.next.get());
        // Too late: report how many values are gone, and go on with the oldest one.
        if next < first {
            self.next.set(first);
            return Err(BroadcastError::Lagged(first - next));
        }
        let values = buffer.values.borrow();
        let value = values.get((next - first) as usize).map(Rc::clone);
        drop(values);
        match value {
            Some(value) => {
                self.next.set(next + 1);
                // This may be the last reference to the value by now. The value's destructor is foreign code and may
                // unwind; then the clone is dropped, too.
                let copy = (*value).clone();
                drop(value);
                Ok(copy)
            }
            None if buffer.closed.get() => Err(BroadcastError::Disconnected),
            None => Err(BroadcastError::Empty),
        }
    }

    /// [`recv`](Self::recv), but waits no longer than `limit`. While the caller unwinds, the call does not wait at all.
    ///
    /// # Errors
    /// [`BroadcastError`], which is `Empty` if nothing came in time.
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    ///
    /// May switch: yes, if there is nothing new.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, BroadcastError> {
        checkpoint_if(|| !self.is_empty());
        self.recv_until(|| after(limit))
    }

    /// Returns the number of values that are there for this receiver.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        (self.buffer.end() - self.next.get().max(self.buffer.first.get())) as usize
    }

    /// Reports whether there is nothing new for this receiver.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Receives, and waits until the deadline. `deadline` is called only if the call has to wait.
    fn recv_until(&self, deadline: impl FnOnce() -> u64) -> Result<T, BroadcastError> {
        match self.take_next() {
            Err(BroadcastError::Empty) => {}
            got => return got,
        }
        if cancel::obstacle().is_some() {
            return Err(BroadcastError::Empty);
        }
        let Ok(caller) = Caller::current() else { return Err(BroadcastError::Empty) };
        // Nothing new: stand in the list and look again after each wake-up.
        let deadline = deadline();
        let guard = self.buffer.waiters.join(caller.fiber);
        loop {
            let woken = caller.park(Reason::Event("a value from a broadcast channel"), deadline);
            if !self.is_empty() || self.buffer.closed.get() {
                // The receiver leaves the list before the clone, which is foreign code and may wait.
                drop(guard);
                return self.take_next();
            }
            // The time is up, or the caller may not wait.
            if woken != Ok(Wake::Woken) {
                return Err(BroadcastError::Empty);
            }
        }
    }
}

impl<T: Clone> SelectRecv for BroadcastReceiver<T> {
    type Arm<'s>
        = BroadcastArm<'s, T>
    where
        Self: 's;

    fn select_recv(&self) -> BroadcastArm<'_, T> {
        BroadcastArm { receiver: self }
    }
}

impl<T> Clone for BroadcastSender<T> {
    fn clone(&self) -> BroadcastSender<T> {
        self.buffer.senders.set(self.buffer.senders.get() + 1);
        BroadcastSender { buffer: Rc::clone(&self.buffer) }
    }
}

impl<T> Clone for BroadcastReceiver<T> {
    fn clone(&self) -> BroadcastReceiver<T> {
        self.buffer.receivers.set(self.buffer.receivers.get() + 1);
        BroadcastReceiver { buffer: Rc::clone(&self.buffer), next: self.next.clone() }
    }
}

impl<T> Drop for BroadcastSender<T> {
    fn drop(&mut self) {
        self.buffer.senders.set(self.buffer.senders.get() - 1);
        if self.buffer.senders.get() == 0 {
            self.buffer.close();
        }
    }
}

impl<T> Drop for BroadcastReceiver<T> {
    fn drop(&mut self) {
        self.buffer.receivers.set(self.buffer.receivers.get() - 1);
        if self.buffer.receivers.get() == 0 {
            // No receiver can get these values any more: a later subscriber gets what is sent later.
            self.buffer.first.set(self.buffer.end());
            let values = self.buffer.values.take();
            drop_each(values.into_iter());
        }
    }
}

impl<T> fmt::Debug for BroadcastSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastSender").field("receivers", &self.buffer.receivers.get()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for BroadcastReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastReceiver").field("next", &self.next.get()).finish_non_exhaustive()
    }
}

/// The arm of a `select!` that receives from a [`broadcast`] channel.
pub struct BroadcastArm<'a, T> {
    receiver: &'a BroadcastReceiver<T>,
}

impl<T: Clone> SelectArm for BroadcastArm<'_, T> {
    type Output = Result<T, BroadcastError>;

    fn finish(self) -> Result<T, BroadcastError> {
        self.receiver.take_next()
    }
}

impl<T: Clone> Arm for BroadcastArm<'_, T> {
    /// Takes nothing: `finish` does, since the clone is foreign code and may wait.
    fn try_select(&self) -> bool {
        let receiver = self.receiver;
        receiver.next.get() < receiver.buffer.end() || receiver.buffer.closed.get()
    }

    fn register(&self, _: ArmId) -> Result<Option<&WaitList>, AlreadyWon> {
        Ok(Some(&self.receiver.buffer.waiters))
    }

    fn accept(&self) {}

    fn unregister(&self, _: ArmEnd) {}
}

impl<T> fmt::Debug for BroadcastArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastArm").finish_non_exhaustive()
    }
}
