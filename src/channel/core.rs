//! The state that the ends of a channel share: values, reservations, pending sends, and two queues of waiters.
//!
//! ```text
//!                      +------------------------------------------+
//! send_queue: s1 s2 .. | pending_sends: p1 p2      store: a b c ..|  recv_queue: r1 r2 ..
//! (no room: each has   |               '------------^  '-+-' '-+-'|  (no value is free)
//! left its value)      |          when there is room     |   free |
//!                      |                              reserved    |
//!                      +------------------------------------------+
//! ```
//!
//! *Receiving.* A sender that finds a waiting receiver puts its value into the store, takes the receiver out of the
//! queue, and does not count the value as *free*: the value is reserved for that receiver, which takes the value when
//! it runs. Other receivers get free values only, and the store keeps these behind the reserved ones. If the receiver
//! is killed or times out first, the reservation passes to the next waiting receiver or is cancelled. The value is at
//! the front of the store already, where the next receiver expects it.
//!
//! *Sending.* A sender that finds no room leaves its value in `pending_sends`, marked with its fiber's id, and waits.
//! The receiver that makes room takes the first sender out of the queue and moves that sender's value into the store:
//! the value is sent, although the sender has not run yet. A sender that gives up before that takes its value back.
//!
//! So no flag says how a call ended. The place of the value does:
//!
//! * Invariant chan-1: a receiver that was taken out of the queue by another thread has a reservation. While receivers
//!   wait, no value is free.
//! * Invariant chan-2: a value was sent if and only if it is no longer pending and its sender did not take it back.
//!   While senders wait, there is no room: as many values are free as the capacity says.
//! * Invariant chan-3: `pending_sends` is not borrowed while foreign code runs. What the comparison of a priority
//!   channel may do is invariant store-2 of `store`.
//!
//! The end of a channel wakes the waiters and leaves them in their queues: each waiter looks at the state, and leaves
//! its queue itself.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::forget;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError, TrySendError};

use super::error::SendTimeoutError;
use super::store::Store;
use crate::pure::drops::{drop_each, drop_quietly};
use crate::runtime::caller::Caller;
use crate::runtime::choose::ArmId;
use crate::runtime::park::Wake;
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::existing_root;
use crate::switch::wait_list::WaitList;

/// The bit of [`Channel::flags`] that is set when no value may be sent any more: no receiver exists, or the channel was
/// closed.
const CLOSED: u8 = 1;

/// The bit of [`Channel::flags`] that is set if the order is the program's comparison, which may be running and use the
/// channel that it serves.
const SORTED: u8 = 2;

/// The shared state of a channel; see the head of the file.
pub(super) struct Channel<T> {
    /// The values, reserved and free.
    store: Store<T>,
    /// The number of free values that the channel may hold.
    capacity: usize,
    /// The number of free values in the store. The other values are reserved for receivers that have not run since.
    free: Cell<usize>,
    /// The receivers that wait for a value.
    recv_queue: WaitList,
    /// The senders that wait for room.
    send_queue: WaitList,
    /// The values of waiting senders, roughly in the order of `send_queue`. A value may belong to a wait that has just
    /// ended in another way.
    pending_sends: RefCell<VecDeque<(ArmId, T)>>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    /// [`CLOSED`] and [`SORTED`]: the reasons for a send to look twice. 0 for most channels, so that most sends look
    /// once.
    flags: Cell<u8>,
    /// Set when no value will come any more: no sender exists, or the channel was closed.
    disconnected: Cell<bool>,
}

/// Wakes all waiters in `list` and leaves them there.
fn wake_all(list: &WaitList) {
    if let Some(root) = existing_root() {
        list.for_each(|fiber| {
            root.wake(fiber);
        });
    }
}

/// Makes a chosen waiter runnable. A waiter has a root, or had one.
#[inline(always)]
fn wake(fiber: Fiber) {
    if let Some(root) = existing_root() {
        root.wake(fiber);
    }
}

impl<T> Channel<T> {
    /// Returns a channel with one sender and one receiver.
    pub(super) fn new(store: Store<T>, capacity: usize) -> Channel<T> {
        Channel {
            capacity,
            free: Cell::new(0),
            recv_queue: WaitList::new(),
            send_queue: WaitList::new(),
            pending_sends: RefCell::new(VecDeque::new()),
            senders: Cell::new(1),
            receivers: Cell::new(1),
            // A sorted store makes sends look twice from the first value on.
            flags: Cell::new(if store.is_sorted() { SORTED } else { 0 }),
            disconnected: Cell::new(false),
            store,
        }
    }

    /// Sends if there is room or a waiting receiver.
    #[inline(always)]
    pub(super) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if self.flags.get() != 0 {
            // Rare: a closed channel, or one with a comparison.
            if !self.is_open() {
                return Err(TrySendError::Disconnected(value));
            }
            self.store.assert_unused();
        }
        // The count changes before the store: if the comparison of a priority channel panics, the value is in the
        // store.
        match self.recv_queue.choose() {
            Some((receiver, _)) => wake(receiver),
            None if self.free.get() < self.capacity => self.free.set(self.free.get() + 1),
            None => return Err(TrySendError::Full(value)),
        }
        self.store.push(value);
        Ok(())
    }

    /// Receives if a value is free or a sender waits.
    #[inline(always)]
    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        let free = self.free.get();
        if free == 0 {
            return self.recv_from_sender();
        }
        if self.flags.get() & SORTED != 0 {
            self.store.assert_unused();
        }
        // The count changes before the store, as in `try_send`.
        self.free.set(free - 1);
        let value = self.store.pop_free(free);
        // There is room now.
        if !self.send_queue.is_empty() {
            self.admit_senders();
        }
        value.ok_or(TryRecvError::Empty)
    }

    /// Receives when no value is free. With a capacity of 0 the value comes directly from a waiting sender; with any
    /// other capacity senders wait behind free values.
    #[inline(always)]
    fn recv_from_sender(&self) -> Result<T, TryRecvError> {
        if !self.send_queue.is_empty()
            && let Some(value) = self.pop_pending()
        {
            return Ok(value);
        }
        Err(if self.disconnected.get() { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }

    /// Moves the values of waiting senders into the store for as long as there is room (chan-2).
    #[inline(never)]
    fn admit_senders(&self) {
        while self.free.get() < self.capacity
            && let Some(value) = self.pop_pending()
        {
            self.free.set(self.free.get() + 1);
            self.store.push(value);
        }
    }

    /// Takes the first waiting sender out of the queue and returns its value, which is sent from now on (chan-2).
    #[inline(never)]
    fn pop_pending(&self) -> Option<T> {
        if !self.is_open() {
            return None;
        }
        let (sender, number) = self.send_queue.choose()?;
        wake(sender);
        self.remove_pending((sender.id.get(), number))
    }

    /// Leaves the value of a sender that is about to wait.
    pub(super) fn push_pending(&self, id: ArmId, value: T) {
        self.pending_sends.borrow_mut().push_back((id, value));
    }

    /// Removes and returns the value that arm `id` has left, if no receiver has taken the value.
    #[inline]
    pub(super) fn remove_pending(&self, id: ArmId) -> Option<T> {
        let mut pending_sends = self.pending_sends.borrow_mut();
        let index = pending_sends.iter().position(|pending| pending.0 == id)?;
        pending_sends.remove(index).map(|(_, value)| value)
    }

    /// Takes the value that is reserved for the caller. After a discard there is none.
    #[inline(always)]
    pub(super) fn take_reserved(&self) -> Result<T, RecvTimeoutError> {
        self.store.pop().ok_or(RecvTimeoutError::Disconnected)
    }

    /// Passes the reservation of a receiver that gives up to the next waiting receiver, or frees the value (chan-1).
    #[cold]
    pub(super) fn pass_reservation_on(&self) {
        match self.recv_queue.choose() {
            Some((receiver, _)) => wake(receiver),
            // A discard has dropped the value.
            None if self.store.len() == self.free.get() => {}
            None => self.free.set(self.free.get() + 1),
        }
    }

    /// Ends the wait of a receiver without a value, and passes on its reservation if there is one.
    #[cold]
    #[inline(never)]
    fn abandon_recv(&self, me: Fiber) {
        if !self.recv_queue.leave(me) {
            self.pass_reservation_on();
        }
    }

    /// Ends the wait of a sender that unwinds, and drops its value if that is still pending. No borrow is held during
    /// the drop.
    #[cold]
    #[inline(never)]
    fn abandon_send(&self, me: Fiber) {
        self.send_queue.leave(me);
        drop_quietly(self.remove_pending((me.id.get(), 0)));
    }

    /// Receives, and waits until the deadline. `deadline` is called only if the call has to wait.
    #[inline(always)]
    pub(super) fn recv(&self, deadline: impl FnOnce() -> u64) -> Result<T, RecvTimeoutError> {
        match self.try_recv() {
            Ok(value) => return Ok(value),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => {}
        }
        // Nothing to receive: stand in the queue and park until a sender hands a value over.
        let Ok(caller) = Caller::current() else { return Err(RecvTimeoutError::Timeout) };
        let (me, deadline) = (caller.fiber, deadline());
        self.recv_queue.enter(me);
        let guard = RecvGuard { channel: self, me };
        loop {
            let woken = caller.park(Reason::Receive, deadline);
            if !me.is_linked() {
                // A sender has taken the caller out of the queue: the value is reserved, and the guard has nothing to
                // undo.
                forget(guard);
                return self.take_reserved();
            }
            // Still in the queue: the channel ended, the wake-up was for something else, or the wait must end.
            match woken {
                Ok(Wake::Woken) if self.disconnected.get() => return Err(RecvTimeoutError::Disconnected),
                Ok(Wake::Woken) => {}
                Ok(Wake::TimedOut) | Err(_) => return Err(RecvTimeoutError::Timeout),
            }
        }
    }

    /// Sends, and waits until the deadline. `deadline` is called only if the call has to wait.
    #[inline(always)]
    pub(super) fn send(&self, value: T, deadline: impl FnOnce() -> u64) -> Result<(), SendTimeoutError<T>> {
        let value = match self.try_send(value) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(value)) => return Err(SendTimeoutError::Disconnected(value)),
            Err(TrySendError::Full(value)) => value,
        };
        // No room: leave the value with the channel, and park until a receiver takes it.
        let Ok(caller) = Caller::current() else { return Err(SendTimeoutError::Timeout(value)) };
        let (me, deadline) = (caller.fiber, deadline());
        let id = (me.id.get(), 0);
        self.push_pending(id, value);
        self.send_queue.enter(me);
        let guard = SendGuard { channel: self, me };
        loop {
            let woken = caller.park(Reason::Send, deadline);
            if !me.is_linked() {
                // A receiver has taken the caller out of the queue, and the value with it.
                forget(guard);
                return Ok(());
            }
            let why: fn(T) -> SendTimeoutError<T> = match woken {
                Ok(Wake::Woken) if !self.is_open() => SendTimeoutError::Disconnected,
                Ok(Wake::Woken) => continue,
                Ok(Wake::TimedOut) | Err(_) => SendTimeoutError::Timeout,
            };
            // The wait failed: take the value back.
            forget(guard);
            self.send_queue.leave(me);
            // The value is still pending, since the caller was in the queue to the last (chan-2).
            return self.remove_pending(id).map_or(Ok(()), |value| Err(why(value)));
        }
    }

    /// Returns the number of free values.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.free.get()
    }

    /// Reports whether a sender that comes now would have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.recv_queue.is_empty() && self.len() >= self.capacity
    }

    /// Returns the number of free values that the channel may hold.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Reports whether values may be sent.
    #[inline(always)]
    pub(super) fn is_open(&self) -> bool {
        self.flags.get() & CLOSED == 0
    }

    /// Refuses values from now on.
    fn set_closed(&self) {
        self.flags.set(self.flags.get() | CLOSED);
    }

    /// Reports whether no value will come any more.
    pub(super) fn is_disconnected(&self) -> bool {
        self.disconnected.get()
    }

    /// Returns the queue of waiting receivers, for an arm of a `select!`.
    pub(super) fn recv_queue(&self) -> &WaitList {
        &self.recv_queue
    }

    /// Returns the queue of waiting senders, for an arm of a `select!`.
    pub(super) fn send_queue(&self) -> &WaitList {
        &self.send_queue
    }

    /// Refuses values from now on. Those in the store can be received.
    pub(super) fn close(&self) {
        self.set_closed();
        self.disconnected.set(true);
        wake_all(&self.send_queue);
        wake_all(&self.recv_queue);
    }

    /// Refuses values from now on, and drops those in the store, reserved or not.
    pub(super) fn close_and_discard(&self) {
        self.close();
        self.discard();
    }

    /// Drops the values in the store, with no borrow held (chan-3).
    fn discard(&self) {
        self.free.set(0);
        let (first, queue, others) = self.store.take();
        drop_each(first.into_iter().chain(queue).chain(others));
    }

    /// Counts one sender more.
    pub(super) fn add_sender(&self) {
        self.senders.set(self.senders.get() + 1);
    }

    /// Counts one sender fewer. After the last one no value will come.
    pub(super) fn drop_sender(&self) {
        self.senders.set(self.senders.get() - 1);
        if self.senders.get() == 0 {
            self.disconnected.set(true);
            wake_all(&self.recv_queue);
        }
    }

    /// Counts one receiver more.
    pub(super) fn add_receiver(&self) {
        self.receivers.set(self.receivers.get() + 1);
    }

    /// Counts one receiver fewer. After the last one the values in the store are out of reach, and are dropped.
    pub(super) fn drop_receiver(&self) {
        self.receivers.set(self.receivers.get() - 1);
        if self.receivers.get() == 0 {
            self.set_closed();
            wake_all(&self.send_queue);
            self.discard();
        }
    }
}

/// The place of a waiting receiver in the queue. Two words, with a destructor that is one call: a larger guard would
/// lie in memory during every wait, for the sake of the few waits that unwind.
struct RecvGuard<'a, T> {
    channel: &'a Channel<T>,
    me: Fiber,
}

impl<T> Drop for RecvGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.channel.abandon_recv(self.me);
    }
}

/// The place of a waiting sender in the queue; see [`RecvGuard`].
struct SendGuard<'a, T> {
    channel: &'a Channel<T>,
    me: Fiber,
}

impl<T> Drop for SendGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.channel.abandon_send(self.me);
    }
}
