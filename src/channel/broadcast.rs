//! A channel in which every receiver gets every value.
//!
//! ```text
//!   numbers     first                 first + len
//!                 v                        v
//!   values        | 7 | 8 | 9 | 10 | 11 |            at most `capacity`; the oldest goes when a new one comes
//!                         ^         ^
//!   receivers            next=9    next=11           one whose `next` is before `first` has missed some
//! ```
//!
//! A sender never waits. It wakes who waits and leaves them in the line: each looks for itself, since each has a place of
//! its own in the row.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::sync::mpsc::SendError;
use std::time::Duration;

use crate::runtime::choose::{AnyArm, Arm, End, Failed, Who};
use crate::runtime::hub::hub;
use crate::runtime::park::{NEVER, Wake, park};
use crate::runtime::source::after;
use crate::switch::cancel;
use crate::switch::fiber::Reason;
use crate::switch::root::existing_root;
use crate::switch::wait_list::WaitList;

/// A channel in which each receiver gets each value that is sent from its creation on. The last `capacity` ones are kept:
/// who is later than that is told how many it missed, and goes on with the oldest there is.
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
/// With a capacity of 1 it is a watched value: receivers see the newest, and are told if they missed some.
///
/// # Panics
/// If `capacity` is 0: nobody could receive anything.
///
/// May switch: no.
pub fn broadcast<T: Clone>(capacity: usize) -> (BroadcastSender<T>, BroadcastReceiver<T>) {
    assert_ne!(capacity, 0, "greenling: a broadcast channel must have room for a value");
    let row = Rc::new(Row {
        values: RefCell::new(VecDeque::new()),
        first: Cell::new(0),
        capacity,
        line: WaitList::new(),
        senders: Cell::new(1),
        receivers: Cell::new(1),
        closed: Cell::new(false),
    });
    (BroadcastSender { row: Rc::clone(&row) }, BroadcastReceiver { row, next: Cell::new(0) })
}

/// What all ends share.
struct Row<T> {
    /// The newest values, the oldest of them first. Shared, since a clone is foreign code and runs with nothing borrowed.
    values: RefCell<VecDeque<Rc<T>>>,
    /// The number of the oldest that is there.
    first: Cell<u64>,
    /// How many are kept.
    capacity: usize,
    /// Receivers that wait.
    line: WaitList,
    /// Senders that exist.
    senders: Cell<usize>,
    /// Receivers that exist.
    receivers: Cell<usize>,
    /// No value will come any more.
    closed: Cell<bool>,
}

/// Why a receiver of a [`broadcast`] channel got no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastError {
    /// It was late, and missed this many. The next call returns the oldest value there is.
    Lagged(u64),
    /// There is nothing new, or was not in time.
    Empty,
    /// There is nothing new, and nothing will come: all senders are gone, or the channel was closed. Or there is nothing
    /// new, and the caller cannot wait because it is unwinding or its OS thread is ending.
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

impl<T> Row<T> {
    /// The number that the next value will get.
    fn end(&self) -> u64 {
        self.first.get() + self.values.borrow().len() as u64
    }

    /// Lets everybody look.
    fn wake_all(&self) {
        if let Some(root) = existing_root() {
            self.line.for_each(|fiber| {
                root.wake(fiber);
            });
        }
    }

    /// Nothing will come any more.
    fn close(&self) {
        self.closed.set(true);
        self.wake_all();
    }
}

/// The sending end of a [`broadcast`] channel. Clone it for more senders.
pub struct BroadcastSender<T> {
    /// The channel.
    row: Rc<Row<T>>,
}

impl<T: Clone> BroadcastSender<T> {
    /// Sends a value to all receivers, and says how many they are.
    ///
    /// # Errors
    /// [`SendError`] with the value: there is no receiver, or the channel was closed.
    ///
    /// May switch: no, unless the destructor of the value that has to go does.
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        let row = &*self.row;
        if row.receivers.get() == 0 || row.closed.get() {
            return Err(SendError(value));
        }
        let mut values = row.values.borrow_mut();
        let oldest = if values.len() == row.capacity { values.pop_front() } else { None };
        row.first.set(row.first.get() + u64::from(oldest.is_some()));
        values.push_back(Rc::new(value));
        drop(values);
        row.wake_all();
        // Asked before the destructor runs, which may change it.
        let receivers = row.receivers.get();
        drop(oldest);
        Ok(receivers)
    }

    /// A receiver of what is sent from now on.
    ///
    /// May switch: no.
    pub fn subscribe(&self) -> BroadcastReceiver<T> {
        self.row.receivers.set(self.row.receivers.get() + 1);
        BroadcastReceiver { row: Rc::clone(&self.row), next: Cell::new(self.row.end()) }
    }

    /// How many receivers there are.
    ///
    /// May switch: no.
    pub fn receiver_count(&self) -> usize {
        self.row.receivers.get()
    }

    /// Ends the channel for all: receivers get what is in it, then an error.
    ///
    /// May switch: no.
    pub fn close(&self) {
        self.row.close();
    }
}

/// The receiving end of a [`broadcast`] channel. A clone gets what this one has not got yet.
pub struct BroadcastReceiver<T> {
    /// The channel.
    row: Rc<Row<T>>,
    /// The number of the value it gets next.
    next: Cell<u64>,
}

impl<T: Clone> BroadcastReceiver<T> {
    /// Takes the next value, as soon as there is one.
    ///
    /// # Errors
    /// `Lagged`, `Disconnected`.
    ///
    /// # Panics
    /// If it has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
    /// [`no_switch`](crate::no_switch), and in main on a deadlock. With the panics of the value's `clone`.
    ///
    /// May switch: yes, if there is nothing new.
    pub fn recv(&self) -> Result<T, BroadcastError> {
        self.recv_until(|| NEVER).map_err(|error| match error {
            BroadcastError::Empty => BroadcastError::Disconnected,
            error => error,
        })
    }

    /// Takes the next value if there is one now.
    ///
    /// # Errors
    /// [`BroadcastError`].
    ///
    /// May switch: no, unless the value's `clone` does.
    pub fn try_recv(&self) -> Result<T, BroadcastError> {
        let row = &*self.row;
        let (first, next) = (row.first.get(), self.next.get());
        if next < first {
            self.next.set(first);
            return Err(BroadcastError::Lagged(first - next));
        }
        let values = row.values.borrow();
        let value = values.get((next - first) as usize).map(Rc::clone);
        drop(values);
        match value {
            Some(value) => {
                self.next.set(next + 1);
                Ok((*value).clone())
            }
            None if row.closed.get() => Err(BroadcastError::Disconnected),
            None => Err(BroadcastError::Empty),
        }
    }

    /// [`recv`](Self::recv), but waits no longer than `limit`. While the caller unwinds it does not wait at all.
    ///
    /// # Errors
    /// [`BroadcastError`]; `Empty` if nothing came in time.
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    ///
    /// May switch: yes, if there is nothing new.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, BroadcastError> {
        self.recv_until(|| after(limit))
    }

    /// How many values are there for this receiver.
    ///
    /// May switch: no.
    pub fn len(&self) -> usize {
        (self.row.end() - self.next.get().max(self.row.first.get())) as usize
    }

    /// Whether there is nothing new for this receiver.
    ///
    /// May switch: no.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Receives, and waits until the time that `deadline` says.
    fn recv_until(&self, deadline: impl FnOnce() -> u64) -> Result<T, BroadcastError> {
        match self.try_recv() {
            Err(BroadcastError::Empty) => {}
            got => return got,
        }
        if cancel::obstacle().is_some() {
            return Err(BroadcastError::Empty);
        }
        let Ok((root, hub)) = hub() else { return Err(BroadcastError::Empty) };
        let (me, deadline) = (root.current(), deadline());
        let place = self.row.line.join(me);
        loop {
            let woken = park(root, hub, me, Reason::Event("a value from a broadcast channel"), deadline);
            if !self.is_empty() || self.row.closed.get() {
                // Left before the clone, which is foreign code and may wait.
                drop(place);
                return self.try_recv();
            }
            if woken != Ok(Wake::Woken) {
                return Err(BroadcastError::Empty);
            }
        }
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_recv(&self) -> BroadcastArm<'_, T> {
        BroadcastArm { receiver: self }
    }
}

impl<T> Clone for BroadcastSender<T> {
    fn clone(&self) -> BroadcastSender<T> {
        self.row.senders.set(self.row.senders.get() + 1);
        BroadcastSender { row: Rc::clone(&self.row) }
    }
}

impl<T> Clone for BroadcastReceiver<T> {
    fn clone(&self) -> BroadcastReceiver<T> {
        self.row.receivers.set(self.row.receivers.get() + 1);
        BroadcastReceiver { row: Rc::clone(&self.row), next: self.next.clone() }
    }
}

impl<T> Drop for BroadcastSender<T> {
    fn drop(&mut self) {
        self.row.senders.set(self.row.senders.get() - 1);
        if self.row.senders.get() == 0 {
            self.row.close();
        }
    }
}

impl<T> Drop for BroadcastReceiver<T> {
    fn drop(&mut self) {
        self.row.receivers.set(self.row.receivers.get() - 1);
        if self.row.receivers.get() == 0 {
            // Nobody can get them any more: who subscribes later gets what is sent later.
            self.row.first.set(self.row.end());
            let values = self.row.values.take();
            drop(values);
        }
    }
}

impl<T> fmt::Debug for BroadcastSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastSender").field("receivers", &self.row.receivers.get()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for BroadcastReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastReceiver").field("next", &self.next.get()).finish_non_exhaustive()
    }
}

/// The arm of a `select!` that receives from a [`broadcast`] channel.
#[doc(hidden)]
pub struct BroadcastArm<'a, T> {
    /// Who receives.
    receiver: &'a BroadcastReceiver<T>,
}

impl<T: Clone> BroadcastArm<'_, T> {
    /// For `select!`.
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// As `recv`.
    pub fn finish(self) -> Result<T, BroadcastError> {
        self.receiver.try_recv()
    }
}

impl<T: Clone> Arm for BroadcastArm<'_, T> {
    /// Takes nothing: `finish` does, since the clone is foreign code and may wait.
    fn look(&self) -> bool {
        let receiver = self.receiver;
        receiver.next.get() < receiver.row.end() || receiver.row.closed.get()
    }

    fn enter(&self, _: Who) -> Result<Option<&WaitList>, Failed> {
        Ok(Some(&self.receiver.row.line))
    }

    fn complete(&self) {}

    fn left(&self, _: End) {}
}

impl<T> fmt::Debug for BroadcastArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastArm").finish_non_exhaustive()
    }
}
