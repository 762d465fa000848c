//! The state of a channel between hubs: values behind a lock, and a queue of waiters for each side.
//!
//! ```text
//!   senders --> | v v v .. |  --> receivers          room: capacity - length
//!   queue of senders             queue of receivers
//!   the waiter at index i may    the waiter at index i may
//!   put if room > i              take if length > i
//! ```
//!
//! A call that waits stays in the queue until the call is over, however the call ends, and a new call counts as last.
//! So turns come in order, and each step makes at most one more waiter entitled to go on: that waiter is woken.
//!
//! * Invariant remote-chan-1: every waiter that is entitled to go on has been woken since, or has not checked the state
//!   yet. A new value entitles the receiver at index `length - 1`; a value that is taken, the sender at index `room -
//!   1`; a waiter that leaves the queue while entitled, without having put or taken anything, passes the turn on to the
//!   waiter that is now the last entitled one. The end of all senders or all receivers wakes all waiters of the other
//!   side, and a close those of both. An arm of a `select!` is in the queue like any other call, from the moment at
//!   which the arm waits. A waiter that is suspended when its hub ends never leaves by itself: the next call that locks
//!   the channel removes the waiter, and every hub that waits for others is told of the end and checks again.
//! * Nothing suspends, and no destructor of a value runs, under the lock.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::mem;
use std::sync::mpsc::{TryRecvError, TrySendError};
use std::sync::{Mutex, MutexGuard};

use crate::pure::drops::drop_each;
use crate::pure::lock::lock;
use crate::runtime::caller::Caller;
use crate::runtime::park::Wake;
use crate::runtime::remote::Waiter;
use crate::runtime::remote_queue::ended_hubs;
use crate::switch::cancel;

/// A channel: what all ends share.
pub(super) struct RemoteChannel<T> {
    /// Locked for a few instructions at a time, and never across a wait.
    state: Mutex<ChannelState<T>>,
}

/// The part of a [`RemoteChannel`] behind the lock.
struct ChannelState<T> {
    /// The values, the oldest first.
    queue: VecDeque<T>,
    /// The most values that `queue` may hold.
    capacity: usize,
    /// How many senders exist.
    senders: usize,
    /// How many receivers exist.
    receivers: usize,
    /// The channel was closed by a call: no value goes in any more.
    closed: bool,
    /// Calls that wait for room.
    waiting_senders: WaitQueue,
    /// Calls that wait for a value.
    waiting_receivers: WaitQueue,
    /// How many hubs had ended when the queues were last cleared of waiters of ended hubs.
    ends_seen: u64,
}

/// Waiters in the order in which they came.
#[derive(Default)]
struct WaitQueue {
    /// The number of each waiter, and the way to wake that waiter.
    entries: VecDeque<(u64, Waiter)>,
    /// The last number given out.
    last: u64,
}

/// A side of a channel: that of the senders or that of the receivers.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Sending,
    Receiving,
}

impl WaitQueue {
    /// Returns how many waiters are ahead of the one with this number, or of a call that comes now.
    fn ahead_of(&self, number: Option<u64>) -> usize {
        let index = number.and_then(|number| self.entries.iter().position(|entry| entry.0 == number));
        index.unwrap_or(self.entries.len())
    }

    /// Returns the last waiter that is entitled to go on, if `count` waiters are.
    fn last_entitled(&self, count: usize) -> Option<Waiter> {
        self.entries.get(count.checked_sub(1)?).map(|entry| entry.1.clone())
    }

    /// Returns all waiters, the first one first.
    fn all(&self) -> Vec<Waiter> {
        self.entries.iter().map(|entry| entry.1.clone()).collect()
    }

    /// Removes the waiters of ended hubs: these never check again.
    fn remove_gone(&mut self) {
        self.entries.retain(|entry| !entry.1.is_gone());
    }

    /// Adds a waiter at the end, and returns the number.
    fn push(&mut self, waiter: Waiter) -> u64 {
        self.last += 1;
        self.entries.push_back((self.last, waiter));
        self.last
    }

    /// Removes the waiter with this number, and returns how many were ahead.
    fn remove(&mut self, number: u64) -> Option<usize> {
        let index = self.entries.iter().position(|entry| entry.0 == number)?;
        self.entries.remove(index);
        Some(index)
    }
}

impl<T> ChannelState<T> {
    /// Returns the queue of a side, and how many waiters of that side may go on.
    fn waiters(&mut self, side: Side) -> (&mut WaitQueue, usize) {
        match side {
            Side::Sending => (&mut self.waiting_senders, self.capacity - self.queue.len()),
            Side::Receiving => (&mut self.waiting_receivers, self.queue.len()),
        }
    }

    /// Reports whether a call of this side has nothing to wait for any more.
    fn is_closed(&self, side: Side) -> bool {
        match side {
            Side::Sending => self.receivers == 0 || self.closed,
            Side::Receiving => (self.senders == 0 || self.closed) && self.queue.is_empty(),
        }
    }
}

impl<T> RemoteChannel<T> {
    /// Makes a channel that has one end of each kind.
    pub(super) fn new(capacity: Option<usize>) -> RemoteChannel<T> {
        let state = ChannelState {
            queue: VecDeque::new(),
            capacity: capacity.unwrap_or(usize::MAX),
            senders: 1,
            receivers: 1,
            closed: false,
            waiting_senders: WaitQueue::default(),
            waiting_receivers: WaitQueue::default(),
            // A hub that has ended by now cannot have a waiter here.
            ends_seen: ended_hubs(),
        };
        RemoteChannel { state: Mutex::new(state) }
    }

    /// Locks the state, and clears the queues of waiters of ended hubs.
    fn lock(&self) -> MutexGuard<'_, ChannelState<T>> {
        let mut state = lock(&self.state);
        let ends = ended_hubs();
        if state.ends_seen != ends {
            state.ends_seen = ends;
            // A waiter that becomes entitled by this needs no wake-up: every hub was told of the end, so all waiters
            // check again.
            state.waiting_senders.remove_gone();
            state.waiting_receivers.remove_gone();
        }
        state
    }

    /// Closes the channel; with `discard`, drops all values.
    pub(super) fn close(&self, discard: bool) {
        let mut state = self.lock();
        state.closed = true;
        // Everything leaves the state under the lock, and is woken and dropped without it.
        let values = if discard { mem::take(&mut state.queue) } else { VecDeque::new() };
        let mut waiting = state.waiting_senders.all();
        waiting.extend(state.waiting_receivers.all());
        drop(state);
        waiting.iter().for_each(Waiter::wake);
        drop_each(values.into_iter());
    }

    /// Counts one more sender.
    pub(super) fn add_sender(&self) {
        self.lock().senders += 1;
    }

    /// Counts one sender less; the last one to go wakes the receivers.
    pub(super) fn drop_sender(&self) {
        let mut state = self.lock();
        state.senders -= 1;
        let waiting = if state.senders == 0 { state.waiting_receivers.all() } else { Vec::new() };
        drop(state);
        waiting.iter().for_each(Waiter::wake);
    }

    /// Counts one more receiver.
    pub(super) fn add_receiver(&self) {
        self.lock().receivers += 1;
    }

    /// Counts one receiver less; the last one to go wakes the senders and drops the values.
    pub(super) fn drop_receiver(&self) {
        let mut state = self.lock();
        state.receivers -= 1;
        if state.receivers > 0 {
            return;
        }
        // The values are dropped without the lock: their destructors are foreign code.
        let waiting = state.waiting_senders.all();
        let values = mem::take(&mut state.queue);
        drop(state);
        waiting.iter().for_each(Waiter::wake);
        drop_each(values.into_iter());
    }

    /// Returns how many values are in the channel.
    pub(super) fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Returns how many values the channel may hold; `None` for any number.
    pub(super) fn capacity(&self) -> Option<usize> {
        Some(self.lock().capacity).filter(|capacity| *capacity != usize::MAX)
    }

    /// Reports whether values may still go in.
    pub(super) fn is_open(&self) -> bool {
        !self.lock().is_closed(Side::Sending)
    }
}

/// A call's place in the queue of one side, from the first wait to the end of the call; the drop leaves the queue.
pub(super) struct WaitGuard<'a, T> {
    /// The channel of the call.
    channel: &'a RemoteChannel<T>,
    /// The side of the call.
    side: Side,
    /// The number in the queue, once the call had to wait.
    number: Option<u64>,
}

impl<'a, T> WaitGuard<'a, T> {
    /// Makes the guard of a call that has not had to wait.
    pub(super) fn new(channel: &'a RemoteChannel<T>, side: Side) -> WaitGuard<'a, T> {
        WaitGuard { channel, side, number: None }
    }

    /// Puts a value in, if the caller is entitled to.
    pub(super) fn put(&mut self, value: T) -> Result<(), TrySendError<T>> {
        let mut state = self.channel.lock();
        if state.is_closed(Side::Sending) {
            return Err(TrySendError::Disconnected(value));
        }
        let (waiters, room) = state.waiters(Side::Sending);
        if room <= waiters.ahead_of(self.number) {
            return Err(TrySendError::Full(value));
        }
        state.queue.push_back(value);
        self.served(&mut state);
        // The value entitles one more receiver (remote-chan-1).
        let next = state.waiting_receivers.last_entitled(state.queue.len());
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
        Ok(())
    }

    /// Takes the oldest value out, if the caller is entitled to.
    pub(super) fn take(&mut self) -> Result<T, TryRecvError> {
        let mut state = self.channel.lock();
        if state.queue.len() <= state.waiting_receivers.ahead_of(self.number) {
            let closed = state.is_closed(Side::Receiving);
            return Err(if closed { TryRecvError::Disconnected } else { TryRecvError::Empty });
        }
        let Some(value) = state.queue.pop_front() else { return Err(TryRecvError::Empty) };
        self.served(&mut state);
        // The room entitles one more sender (remote-chan-1).
        let (waiters, room) = state.waiters(Side::Sending);
        let next = waiters.last_entitled(room);
        // After the last value of a channel without senders, the remaining receivers have to learn that none comes.
        let others = if state.is_closed(Side::Receiving) { state.waiting_receivers.all() } else { Vec::new() };
        drop(state);
        next.iter().chain(&others).for_each(Waiter::wake);
        Ok(value)
    }

    /// Joins the queue, unless the caller may be entitled by now. Reports whether the caller is in the queue.
    pub(super) fn enqueue(&mut self, waiter: Waiter) -> bool {
        let mut state = self.channel.lock();
        let closed = state.is_closed(self.side);
        let (waiters, room) = state.waiters(self.side);
        if closed || room > waiters.ahead_of(None) {
            return false;
        }
        self.number = Some(waiters.push(waiter));
        true
    }

    /// Leaves the queue after the turn was used; the caller holds the lock.
    fn served(&mut self, state: &mut ChannelState<T>) {
        if let Some(number) = self.number.take() {
            state.waiters(self.side).0.remove(number);
        }
    }

    /// Leaves the queue, if the call is there, without having put or taken anything.
    pub(super) fn leave(&mut self) {
        let Some(number) = self.number.take() else { return };
        let mut state = self.channel.lock();
        let (waiters, count) = state.waiters(self.side);
        // A turn that was not used is passed on (remote-chan-1).
        let next = match waiters.remove(number) {
            Some(ahead) if ahead < count => waiters.last_entitled(count),
            _ => None,
        };
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Waits until the caller may be entitled to go on.
    pub(super) fn wait(&mut self, deadline: u64) -> Result<(), NotWoken> {
        let caller = Caller::current().map_err(|_| NotWoken::Impossible)?;
        // Join the queue with the first wait.
        if self.number.is_none() {
            if cancel::obstacle().is_some() {
                return Err(NotWoken::Impossible);
            }
            if !self.enqueue(Waiter::new(caller)) {
                // The turn came after the caller's last check.
                return Ok(());
            }
        }
        let what = match self.side {
            Side::Sending => "room in a channel between hubs",
            Side::Receiving => "a value from a channel between hubs",
        };
        match caller.wait_remote(what, deadline) {
            Ok(Wake::Woken) => Ok(()),
            Ok(Wake::TimedOut) => Err(NotWoken::TimedOut),
            Err(_) => Err(NotWoken::Impossible),
        }
    }
}

/// Why a wait ended without a wake-up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NotWoken {
    /// The deadline has passed.
    TimedOut,
    /// The caller unwinds, or its OS thread is ending.
    Impossible,
}

impl<T> Drop for WaitGuard<'_, T> {
    fn drop(&mut self) {
        self.leave();
    }
}
