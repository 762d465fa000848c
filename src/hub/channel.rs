//! A channel between hubs: a queue behind a lock, and two lines of those who wait.
//!
//! ```text
//!   senders --> | v v v .. |  --> receivers          room: capacity - length
//!   line of senders              line of receivers
//!   who is at place p may put    who is at place p may take
//!   if there is room for more    if there are more than p
//!   than p
//! ```
//!
//! Who waits stays in its line until its call is over, however it ends, and who comes anew counts as last. So turns come in
//! order, and each step makes at most one more caller's turn come: that one is woken.
//!
//! * Invariant C1: whoever's turn it is was woken since it came, or has not looked yet. A value that comes makes it the turn
//!   of the receiver at place `length - 1`; a value that goes, of the sender at place `room - 1`; one who leaves a line
//!   without having put or taken anything, although it was its turn, passes it on to the one who is now the last whose
//!   turn it is. The end of all senders or all receivers wakes everybody.
//! * Nobody suspends, and no destructor of a value runs, under the lock.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::runtime::hub::hub;
use crate::runtime::park::{NEVER, Wake};
use crate::runtime::remote::{Waiter, lock, wait};
use crate::runtime::source::after;
use crate::switch::cancel;

/// A channel whose ends may be on different OS threads: any number of senders, any number of receivers, each value goes to
/// one of them. With a `capacity`, `send` waits while so many values are in it.
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
/// A call that waits parks the green thread; on an OS thread that has none, its main. Values arrive in order, and so do
/// turns. Within one hub a channel works too, but takes a lock for nothing: there [`channel`](crate::channel) has the better ones,
/// and only those stand in a [`select!`](crate::select).
///
/// # Panics
/// If `capacity` is `Some(0)`.
///
/// May switch: no.
pub fn channel<T: Send>(capacity: Option<usize>) -> (RemoteSender<T>, RemoteReceiver<T>) {
    assert_ne!(capacity, Some(0), "a channel between hubs must have room for a value");
    let inside = Inside {
        queue: VecDeque::new(),
        capacity: capacity.unwrap_or(usize::MAX),
        senders: 1,
        receivers: 1,
        putting: Line::default(),
        taking: Line::default(),
    };
    let core = Arc::new(Mutex::new(inside));
    (RemoteSender { core: Arc::clone(&core) }, RemoteReceiver { core })
}

/// What all ends share.
struct Inside<T> {
    /// Values, the oldest first.
    queue: VecDeque<T>,
    /// How many may be there.
    capacity: usize,
    /// Senders that exist.
    senders: usize,
    /// Receivers that exist.
    receivers: usize,
    /// Who waits for room.
    putting: Line,
    /// Who waits for a value.
    taking: Line,
}

/// Callers in the order in which they came.
#[derive(Default)]
struct Line {
    /// Their numbers, and how to wake them.
    places: VecDeque<(u64, Waiter)>,
    /// The last number given out.
    last: u64,
}

impl Line {
    /// How many are before the caller with this number, or before one who comes now.
    fn before(&self, number: Option<u64>) -> usize {
        let place = number.and_then(|number| self.places.iter().position(|place| place.0 == number));
        place.unwrap_or(self.places.len())
    }

    /// The last one whose turn it is, if there is something for `count`.
    fn last_of(&self, count: usize) -> Option<Waiter> {
        self.places.get(count.checked_sub(1)?).map(|place| place.1.clone())
    }

    /// Everybody.
    fn all(&self) -> Vec<Waiter> {
        self.places.iter().map(|place| place.1.clone()).collect()
    }

    /// Takes a number out; says how many were before it.
    fn leave(&mut self, number: u64) -> Option<usize> {
        let place = self.places.iter().position(|place| place.0 == number)?;
        self.places.remove(place);
        Some(place)
    }
}

/// Which line.
#[derive(Clone, Copy)]
enum Side {
    /// Senders.
    Putting,
    /// Receivers.
    Taking,
}

impl<T> Inside<T> {
    /// A line, and how many of it may go on.
    fn line(&mut self, side: Side) -> (&mut Line, usize) {
        match side {
            Side::Putting => (&mut self.putting, self.capacity - self.queue.len()),
            Side::Taking => (&mut self.taking, self.queue.len()),
        }
    }

    /// Whether the other side is gone for good.
    fn is_closed(&self, side: Side) -> bool {
        match side {
            Side::Putting => self.receivers == 0,
            Side::Taking => self.senders == 0 && self.queue.is_empty(),
        }
    }
}

/// A call's place in a line, from its first wait to its end, however it ends.
struct Place<'a, T> {
    /// The channel.
    core: &'a Mutex<Inside<T>>,
    /// The line.
    side: Side,
    /// Its number, once it had to wait.
    number: Option<u64>,
}

impl<T> Place<'_, T> {
    /// Its turn came, and was used; the lock is held.
    fn done(&mut self, inside: &mut Inside<T>) {
        if let Some(number) = self.number.take() {
            inside.line(self.side).0.leave(number);
        }
    }

    /// Waits until it may be its turn.
    fn wait(&mut self, deadline: u64) -> Result<(), Refusal> {
        let (root, hub) = hub().map_err(|_| Refusal::Impossible)?;
        let me = root.current();
        if self.number.is_none() {
            if cancel::obstacle().is_some() {
                return Err(Refusal::Impossible);
            }
            let waiter = Waiter::new(root, hub, me);
            let mut inside = lock(self.core);
            let closed = inside.is_closed(self.side);
            let (line, room) = inside.line(self.side);
            if closed || room > line.before(None) {
                // It came to pass since the caller looked.
                return Ok(());
            }
            line.last += 1;
            self.number = Some(line.last);
            line.places.push_back((line.last, waiter));
        }
        let what = match self.side {
            Side::Putting => "room in a channel between hubs",
            Side::Taking => "a value from a channel between hubs",
        };
        match wait(root, hub, me, what, true, deadline) {
            Ok(Wake::Woken) => Ok(()),
            Ok(Wake::TimedOut) => Err(Refusal::TimedOut),
            Err(_) => Err(Refusal::Impossible),
        }
    }
}

/// Why a wait ended without a wake-up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The time is over.
    TimedOut,
    /// The caller unwinds, or its OS thread is ending.
    Impossible,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut inside = lock(self.core);
        let (line, count) = inside.line(self.side);
        // C1: a turn that was not used is passed on.
        let next = match line.leave(number) {
            Some(before) if before < count => line.last_of(count),
            _ => None,
        };
        drop(inside);
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// The sending end of a [`channel`]. Clone it for more senders; any OS thread may use it.
pub struct RemoteSender<T> {
    /// The channel.
    core: Arc<Mutex<Inside<T>>>,
}

impl<T: Send> RemoteSender<T> {
    /// Sends a value, when there is room for it.
    ///
    /// # Errors
    /// [`SendError`] with the value: all receivers are gone; or there is no room, and the caller cannot wait because it is
    /// unwinding or its OS thread is ending.
    ///
    /// # Panics
    /// If it has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout), and panics inside
    /// [`no_switch`](crate::no_switch) and in the child of a fork. The value is dropped then.
    ///
    /// May switch: yes, if there is no room.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut value = value;
        let mut place = Place { core: &self.core, side: Side::Putting, number: None };
        loop {
            match self.put(value, &mut place) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(value)) => return Err(SendError(value)),
                Err(TrySendError::Full(back)) => value = back,
            }
            if place.wait(NEVER).is_err() {
                return Err(SendError(value));
            }
        }
    }

    /// Sends a value if there is room for it now and nobody waits to send.
    ///
    /// # Errors
    /// [`TrySendError`] with the value.
    ///
    /// May switch: no.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.put(value, &mut Place { core: &self.core, side: Side::Putting, number: None })
    }

    /// Sends a value if it is the caller's turn.
    fn put(&self, value: T, place: &mut Place<'_, T>) -> Result<(), TrySendError<T>> {
        let mut inside = lock(&self.core);
        if inside.receivers == 0 {
            return Err(TrySendError::Disconnected(value));
        }
        let (line, room) = inside.line(Side::Putting);
        if room <= line.before(place.number) {
            return Err(TrySendError::Full(value));
        }
        inside.queue.push_back(value);
        place.done(&mut inside);
        let next = inside.taking.last_of(inside.queue.len());
        drop(inside);
        if let Some(next) = next {
            next.wake();
        }
        Ok(())
    }
}

impl<T> Clone for RemoteSender<T> {
    fn clone(&self) -> RemoteSender<T> {
        lock(&self.core).senders += 1;
        RemoteSender { core: Arc::clone(&self.core) }
    }
}

impl<T> Drop for RemoteSender<T> {
    fn drop(&mut self) {
        let mut inside = lock(&self.core);
        inside.senders -= 1;
        let waiting = if inside.senders == 0 { inside.taking.all() } else { Vec::new() };
        drop(inside);
        waiting.iter().for_each(Waiter::wake);
    }
}

impl<T> fmt::Debug for RemoteSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSender").field("len", &lock(&self.core).queue.len()).finish_non_exhaustive()
    }
}

/// The receiving end of a [`channel`]. Clone it for more receivers; any OS thread may use it.
pub struct RemoteReceiver<T> {
    /// The channel.
    core: Arc<Mutex<Inside<T>>>,
}

impl<T: Send> RemoteReceiver<T> {
    /// Takes the oldest value, when there is one.
    ///
    /// # Errors
    /// [`RecvError`]: the channel is empty and all senders are gone; or it is empty, and the caller cannot wait because it
    /// is unwinding or its OS thread is ending.
    ///
    /// # Panics
    /// If it has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout), and panics inside
    /// [`no_switch`](crate::no_switch) and in the child of a fork. No value is lost.
    ///
    /// May switch: yes, if the channel is empty.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(NEVER).map_err(|_| RecvError)
    }

    /// [`recv`](Self::recv) that waits for at most `limit`. A value that is there when the time is over wins. A caller that
    /// cannot wait gets `Timeout` at once.
    ///
    /// # Errors
    /// [`RecvTimeoutError`].
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    ///
    /// May switch: yes, if the channel is empty.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(after(limit))
    }

    /// Takes the oldest value if there is one that nobody waits for.
    ///
    /// # Errors
    /// [`TryRecvError`].
    ///
    /// May switch: no.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.take(&mut Place { core: &self.core, side: Side::Taking, number: None })
    }

    /// Values as they come, until the channel is empty and all senders are gone.
    ///
    /// May switch: no, but its `next` does.
    pub fn iter(&self) -> RemoteIter<'_, T> {
        RemoteIter { receiver: self }
    }

    /// [`recv`](Self::recv) with a deadline in monotonic nanoseconds.
    fn recv_until(&self, deadline: u64) -> Result<T, RecvTimeoutError> {
        let mut place = Place { core: &self.core, side: Side::Taking, number: None };
        let mut ended = None;
        loop {
            match self.take(&mut place) {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            match ended {
                None => ended = place.wait(deadline).err(),
                Some(Refusal::TimedOut | Refusal::Impossible) => return Err(RecvTimeoutError::Timeout),
            }
        }
    }

    /// Takes a value if it is the caller's turn.
    fn take(&self, place: &mut Place<'_, T>) -> Result<T, TryRecvError> {
        let mut inside = lock(&self.core);
        if inside.queue.len() <= inside.taking.before(place.number) {
            let closed = inside.is_closed(Side::Taking);
            return Err(if closed { TryRecvError::Disconnected } else { TryRecvError::Empty });
        }
        let Some(value) = inside.queue.pop_front() else { return Err(TryRecvError::Empty) };
        place.done(&mut inside);
        let (line, room) = inside.line(Side::Putting);
        let next = line.last_of(room);
        // The last value of a channel without senders: whoever still waits must hear of it.
        let others = if inside.is_closed(Side::Taking) { inside.taking.all() } else { Vec::new() };
        drop(inside);
        next.iter().chain(&others).for_each(Waiter::wake);
        Ok(value)
    }
}

impl<T> Clone for RemoteReceiver<T> {
    fn clone(&self) -> RemoteReceiver<T> {
        lock(&self.core).receivers += 1;
        RemoteReceiver { core: Arc::clone(&self.core) }
    }
}

impl<T> Drop for RemoteReceiver<T> {
    fn drop(&mut self) {
        let mut inside = lock(&self.core);
        inside.receivers -= 1;
        if inside.receivers > 0 {
            return;
        }
        let waiting = inside.putting.all();
        let values = std::mem::take(&mut inside.queue);
        drop(inside);
        waiting.iter().for_each(Waiter::wake);
        drop(values);
    }
}

impl<T> fmt::Debug for RemoteReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteReceiver").field("len", &lock(&self.core).queue.len()).finish_non_exhaustive()
    }
}

impl<'a, T: Send> IntoIterator for &'a RemoteReceiver<T> {
    type Item = T;
    type IntoIter = RemoteIter<'a, T>;

    fn into_iter(self) -> RemoteIter<'a, T> {
        self.iter()
    }
}

/// See [`RemoteReceiver::iter`].
#[derive(Debug)]
pub struct RemoteIter<'a, T> {
    /// Where values come from.
    receiver: &'a RemoteReceiver<T>,
}

impl<T: Send> Iterator for RemoteIter<'_, T> {
    type Item = T;

    /// Waits for the next value. Errors and panics are those of [`RemoteReceiver::recv`].
    ///
    /// May switch: yes.
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T: Send> FusedIterator for RemoteIter<'_, T> {}
