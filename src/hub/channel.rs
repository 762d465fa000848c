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
//!   turn it is. The end of all senders or all receivers, and a close, wake everybody. An arm of a `select!` has a place like
//!   any other caller, from the moment at which it waits.
//! * Nobody suspends, and no destructor of a value runs, under the lock.
#![forbid(unsafe_code)]

use std::borrow::BorrowMut;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::channel::SendTimeoutError;
use crate::runtime::choose::{AnyArm, Arm, End, Failed, Who};
use crate::runtime::hub::hub;
use crate::runtime::park::{NEVER, Wake};
use crate::runtime::remote::{Waiter, lock, wait};
use crate::runtime::source::after;
use crate::switch::cancel;
use crate::switch::wait_list::WaitList;

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
/// turns. Within one hub a channel works too, but takes a lock for nothing: there [`channel`](crate::channel) has the better ones.
/// Ends of either kind stand in a [`select!`](crate::select).
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
        closed: false,
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
    /// Somebody closed it: no value is taken in any more.
    closed: bool,
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

    /// Whether there is nothing to wait for on this side any more.
    fn is_closed(&self, side: Side) -> bool {
        match side {
            Side::Putting => self.receivers == 0 || self.closed,
            Side::Taking => (self.senders == 0 || self.closed) && self.queue.is_empty(),
        }
    }

    /// Everybody in both lines.
    fn everybody(&self) -> Vec<Waiter> {
        let mut all = self.putting.all();
        all.extend(self.taking.all());
        all
    }
}

/// Nothing comes in any more; with `discard`, what is there is dropped.
fn close<T>(core: &Mutex<Inside<T>>, discard: bool) {
    let mut inside = lock(core);
    inside.closed = true;
    let values = if discard { std::mem::take(&mut inside.queue) } else { VecDeque::new() };
    let waiting = inside.everybody();
    drop(inside);
    waiting.iter().for_each(Waiter::wake);
    drop(values);
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

impl<'a, T> Place<'a, T> {
    /// That of a call that has not had to wait.
    fn new(core: &'a Mutex<Inside<T>>, side: Side) -> Place<'a, T> {
        Place { core, side, number: None }
    }

    /// Takes a number, unless it may be the caller's turn by now. Says whether it stands in line.
    fn join(&mut self, waiter: Waiter) -> bool {
        let mut inside = lock(self.core);
        let closed = inside.is_closed(self.side);
        let (line, room) = inside.line(self.side);
        if closed || room > line.before(None) {
            return false;
        }
        line.last += 1;
        self.number = Some(line.last);
        line.places.push_back((line.last, waiter));
        true
    }

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
            if !self.join(Waiter::new(root, hub, me)) {
                // It came to pass since the caller looked.
                return Ok(());
            }
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
        self.send_until(value, NEVER).map_err(|error| SendError(error.into_inner()))
    }

    /// [`send`](Self::send) that waits for at most `limit`. Room that is there when the time is over wins. A caller that
    /// cannot wait gets `Timeout` at once.
    ///
    /// # Errors
    /// [`SendTimeoutError`] with the value.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    ///
    /// May switch: yes, if there is no room.
    pub fn send_timeout(&self, value: T, limit: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_until(value, after(limit))
    }

    /// [`send`](Self::send) with a deadline in monotonic nanoseconds.
    fn send_until(&self, mut value: T, deadline: u64) -> Result<(), SendTimeoutError<T>> {
        let mut place = Place::new(&self.core, Side::Putting);
        let mut ended = false;
        loop {
            match self.put(value, &mut place) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(value)) => return Err(SendTimeoutError::Disconnected(value)),
                Err(TrySendError::Full(value)) if ended => return Err(SendTimeoutError::Timeout(value)),
                Err(TrySendError::Full(back)) => value = back,
            }
            ended = place.wait(deadline).is_err();
        }
    }

    /// Sends a value if there is room for it now and nobody waits to send.
    ///
    /// # Errors
    /// [`TrySendError`] with the value.
    ///
    /// May switch: no.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.put(value, &mut Place::new(&self.core, Side::Putting))
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_send(&self, value: T) -> RemoteSendArm<'_, T, Option<T>> {
        RemoteSendArm::new(self, Some(value))
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_send_from<'a>(&'a self, slot: &'a mut Option<T>) -> RemoteSendArm<'a, T, &'a mut Option<T>> {
        RemoteSendArm::new(self, slot)
    }

    /// Sends a value if it is the caller's turn.
    fn put(&self, value: T, place: &mut Place<'_, T>) -> Result<(), TrySendError<T>> {
        let mut inside = lock(&self.core);
        if inside.is_closed(Side::Putting) {
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
        self.take(&mut Place::new(&self.core, Side::Taking))
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn select_recv(&self) -> RemoteRecvArm<'_, T> {
        let place = RefCell::new(Place::new(&self.core, Side::Taking));
        RemoteRecvArm { receiver: self, place, result: Cell::new(None) }
    }

    /// Values as they come, until the channel is empty and all senders are gone, or it was closed.
    ///
    /// May switch: no, but its `next` does.
    pub fn iter(&self) -> RemoteIter<'_, T> {
        RemoteIter { receiver: self }
    }

    /// The values that are there now and that nobody waits for.
    ///
    /// May switch: no.
    pub fn try_iter(&self) -> RemoteTryIter<'_, T> {
        RemoteTryIter { receiver: self }
    }

    /// [`recv`](Self::recv) with a deadline in monotonic nanoseconds.
    fn recv_until(&self, deadline: u64) -> Result<T, RecvTimeoutError> {
        let mut place = Place::new(&self.core, Side::Taking);
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

/// What both ends can say and do.
macro_rules! end {
    ($end:ident) => {
        impl<T> $end<T> {
            /// How many values are in it now.
            ///
            /// May switch: no.
            pub fn len(&self) -> usize {
                lock(&self.core).queue.len()
            }

            /// Whether nothing is in it now.
            ///
            /// May switch: no.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many values it may hold; `None` for any number.
            ///
            /// May switch: no.
            pub fn capacity(&self) -> Option<usize> {
                Some(lock(&self.core).capacity).filter(|capacity| *capacity != usize::MAX)
            }

            /// Whether a value that is sent could still be received: a receiver exists, and nobody closed the channel.
            ///
            /// May switch: no.
            pub fn is_open(&self) -> bool {
                !lock(&self.core).is_closed(Side::Putting)
            }

            /// Closes the channel from this or any other end. Senders get an error, those that wait included; receivers get
            /// what is in it, and then an error. Does nothing if it was closed before.
            ///
            /// May switch: no.
            pub fn close(&self) {
                close(&self.core, false);
            }

            /// [`close`](Self::close), and drops what is in it.
            ///
            /// May switch: no, unless a value's destructor does.
            pub fn close_and_discard(&self) {
                close(&self.core, true);
            }
        }
    };
}

end!(RemoteSender);
end!(RemoteReceiver);

impl<'a, T: Send> IntoIterator for &'a RemoteReceiver<T> {
    type Item = T;
    type IntoIter = RemoteIter<'a, T>;

    fn into_iter(self) -> RemoteIter<'a, T> {
        self.iter()
    }
}

impl<T: Send> IntoIterator for RemoteReceiver<T> {
    type Item = T;
    type IntoIter = RemoteIntoIter<T>;

    fn into_iter(self) -> RemoteIntoIter<T> {
        RemoteIntoIter { receiver: self }
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

/// See [`RemoteReceiver::try_iter`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct RemoteTryIter<'a, T> {
    /// Where values come from.
    receiver: &'a RemoteReceiver<T>,
}

impl<T: Send> Iterator for RemoteTryIter<'_, T> {
    type Item = T;

    /// May switch: no.
    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// What iterates over a [`RemoteReceiver`] that it owns.
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct RemoteIntoIter<T> {
    /// Where values come from.
    receiver: RemoteReceiver<T>,
}

impl<T: Send> Iterator for RemoteIntoIter<T> {
    type Item = T;

    /// As that of [`RemoteIter`].
    ///
    /// May switch: yes.
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T: Send> FusedIterator for RemoteIntoIter<T> {}

/// The caller as other OS threads may hold it, or nobody, where a `select!` would not have come to wait.
fn myself() -> Option<Waiter> {
    let (root, hub) = hub().ok()?;
    Some(Waiter::new(root, hub, root.current()))
}

/// The arm of a `select!` that receives from a channel between hubs.
#[doc(hidden)]
pub struct RemoteRecvArm<'a, T> {
    /// Who receives.
    receiver: &'a RemoteReceiver<T>,
    /// Its place in the line.
    place: RefCell<Place<'a, T>>,
    /// The result.
    result: Cell<Option<Result<T, RecvError>>>,
}

impl<T: Send> RemoteRecvArm<'_, T> {
    /// For `select!`.
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// As `recv`.
    pub fn finish(self) -> Result<T, RecvError> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl<T: Send> Arm for RemoteRecvArm<'_, T> {
    fn look(&self) -> bool {
        match self.receiver.take(&mut self.place.borrow_mut()) {
            Ok(value) => self.result.set(Some(Ok(value))),
            Err(TryRecvError::Disconnected) => self.result.set(Some(Err(RecvError))),
            Err(TryRecvError::Empty) => return false,
        }
        true
    }

    fn enter(&self, _: Who) -> Result<Option<&WaitList>, Failed> {
        let Some(me) = myself() else { return Ok(None) };
        while !self.place.borrow_mut().join(me.clone()) {
            if self.look() {
                return Err(Failed);
            }
        }
        Ok(None)
    }

    fn complete(&self) {}

    /// The place, if there is one still, passes its turn on.
    fn left(&self, _: End) {
        let place = self.place.replace(Place::new(&self.receiver.core, Side::Taking));
        drop(place);
    }

    fn is_remote(&self) -> bool {
        true
    }
}

impl<T> fmt::Debug for RemoteRecvArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteRecvArm").finish_non_exhaustive()
    }
}

/// The arm of a `select!` that sends into a channel between hubs. `S` is where the value is until it was sent.
#[doc(hidden)]
pub struct RemoteSendArm<'a, T, S> {
    /// Who sends.
    sender: &'a RemoteSender<T>,
    /// The value. An arm without one never goes on.
    slot: RefCell<S>,
    /// Its place in the line.
    place: RefCell<Place<'a, T>>,
    /// The result.
    result: Cell<Option<Result<(), SendError<T>>>>,
}

impl<'a, T: Send, S: BorrowMut<Option<T>>> RemoteSendArm<'a, T, S> {
    /// Sends what is in `slot`.
    fn new(sender: &'a RemoteSender<T>, slot: S) -> RemoteSendArm<'a, T, S> {
        let place = RefCell::new(Place::new(&sender.core, Side::Putting));
        RemoteSendArm { sender, slot: RefCell::new(slot), place, result: Cell::new(None) }
    }

    /// Calls `f` with the value's place.
    fn with_slot<R>(&self, f: impl FnOnce(&mut Option<T>) -> R) -> R {
        f(BorrowMut::<Option<T>>::borrow_mut(&mut *self.slot.borrow_mut()))
    }

    /// For `select!`.
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm::new(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// As `send`.
    pub fn finish(self) -> Result<(), SendError<T>> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }
}

impl<T: Send, S: BorrowMut<Option<T>>> Arm for RemoteSendArm<'_, T, S> {
    fn look(&self) -> bool {
        let Some(value) = self.with_slot(Option::take) else { return false };
        match self.sender.put(value, &mut self.place.borrow_mut()) {
            Ok(()) => self.result.set(Some(Ok(()))),
            Err(TrySendError::Disconnected(value)) => self.result.set(Some(Err(SendError(value)))),
            Err(TrySendError::Full(value)) => {
                // The place is empty, so nothing is dropped.
                self.with_slot(|slot| *slot = Some(value));
                return false;
            }
        }
        true
    }

    fn enter(&self, _: Who) -> Result<Option<&WaitList>, Failed> {
        let Some(me) = myself().filter(|_| self.with_slot(|slot| slot.is_some())) else { return Ok(None) };
        while !self.place.borrow_mut().join(me.clone()) {
            if self.look() {
                return Err(Failed);
            }
        }
        Ok(None)
    }

    fn complete(&self) {}

    /// As with the receiving arm.
    fn left(&self, _: End) {
        let place = self.place.replace(Place::new(&self.sender.core, Side::Putting));
        drop(place);
    }

    fn is_remote(&self) -> bool {
        true
    }
}

impl<T, S> fmt::Debug for RemoteSendArm<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSendArm").finish_non_exhaustive()
    }
}
