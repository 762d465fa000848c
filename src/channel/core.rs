//! The inside of a channel: values, promises, deposits, and two lines of those who wait.
//!
//! ```text
//!                        +--------------------------------------+
//!   putters: P1 P2  ..   | deposits: p1 p2     store: a b c .. |   takers: T1 T2 ..
//!   (no room: each has   |            '--------^  '-+-' '-+-'   |   (nothing for them)
//!   left its value)      |      when there is room  |   free    |
//!                        |                       promised       |
//!                        +--------------------------------------+
//! ```
//!
//! *Receiving.* A sender that finds a taker puts its value into the store all the same, takes the taker out of the line and
//! does not count the value as *free*: it is promised. The taker collects it when it runs. Nobody else can: only free values
//! are there for others, and in the store they come after the promised ones. If the taker dies first, the promise is given to the next taker or taken back,
//! and the value is where it belongs already, at the front.
//!
//! *Sending.* A sender that finds no room leaves its value with the channel, marked with its name, and waits. Who makes room
//! takes the first putter out of the line and moves its deposit into the store: the putter has sent, although it has not
//! run. If the putter leaves before that, it takes its deposit back.
//!
//! So the fate of a call is never a flag that somebody must not forget to set; it is read off where the things are:
//!
//! * Invariant C1: a taker that is out of the line without having left it has a promise. While takers wait, no value
//!   is free.
//! * Invariant C2: a value was sent exactly if its deposit is gone and its sender did not take it. While putters wait, there
//!   is no room: as many free values as the capacity.
//! * Invariant C3: `deposits` is not borrowed while foreign code runs. What the comparison of a priority channel may do is
//!   V2 of `store`.
//!
//! The end of a channel wakes who waits and leaves it in its line: it looks again, and leaves by itself.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::forget;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError, TrySendError};

use super::ends::SendTimeoutError;
use super::store::Store;
use crate::runtime::choose::Who;
use crate::runtime::hub::hub;
use crate::runtime::park::{Wake, park};
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::root::existing_root;
use crate::switch::wait_list::WaitList;

/// In [`Core::gate`]: no values are taken in, since no receiver exists, or somebody closed the channel.
const SHUT: u8 = 1;

/// In [`Core::gate`]: the program's comparison may be under way, and use the channel that it serves.
const SORTED: u8 = 2;

/// See the file.
pub(super) struct Core<T> {
    /// What is in it.
    store: Store<T>,
    /// How many free values it may hold.
    capacity: usize,
    /// How many of the values in the store are there for anybody. The others belong to takers that have not run since.
    free: Cell<usize>,
    /// Who waits for a value.
    takers: WaitList,
    /// Who waits for room.
    putters: WaitList,
    /// What they want to send. Roughly in their order; some may be of waits that have just ended otherwise.
    deposits: RefCell<VecDeque<(Who, T)>>,
    /// Senders that exist.
    senders: Cell<usize>,
    /// Receivers that exist.
    receivers: Cell<usize>,
    /// [`SHUT`] and [`SORTED`]: why a send must look twice. Zero for most, so that they look once.
    gate: Cell<u8>,
    /// Whether no value will come any more: no sender exists, or somebody closed it.
    ended: Cell<bool>,
}

/// Lets everybody in `list` look again, without taking them out.
fn wake_all(list: &WaitList) {
    if let Some(root) = existing_root() {
        list.for_each(|fiber| {
            root.wake(fiber);
        });
    }
}

/// Makes who was chosen runnable. Somebody who waits has a root, or had one.
#[inline(always)]
fn wake(fiber: Fiber) {
    if let Some(root) = existing_root() {
        root.wake(fiber);
    }
}

impl<T> Core<T> {
    /// With one sender and one receiver.
    pub(super) fn new(store: Store<T>, capacity: usize) -> Core<T> {
        Core {
            capacity,
            free: Cell::new(0),
            takers: WaitList::new(),
            putters: WaitList::new(),
            deposits: RefCell::new(VecDeque::new()),
            senders: Cell::new(1),
            receivers: Cell::new(1),
            gate: Cell::new(if store.is_sorted() { SORTED } else { 0 }),
            ended: Cell::new(false),
            store,
        }
    }

    /// Sends if nobody has to be waited for.
    #[inline(always)]
    pub(super) fn try_put(&self, value: T) -> Result<(), TrySendError<T>> {
        if self.gate.get() != 0 {
            if !self.is_open() {
                return Err(TrySendError::Disconnected(value));
            }
            self.store.check();
        }
        // First the count, then the value: should the comparison of a priority channel panic, the value is in it.
        match self.takers.choose() {
            Some((taker, _)) => wake(taker),
            None if self.free.get() < self.capacity => self.free.set(self.free.get() + 1),
            None => return Err(TrySendError::Full(value)),
        }
        self.store.push(value);
        Ok(())
    }

    /// Receives if nobody has to be waited for.
    #[inline(always)]
    pub(super) fn try_take(&self) -> Result<T, TryRecvError> {
        let free = self.free.get();
        if free == 0 {
            return self.take_from_hand();
        }
        if self.gate.get() & SORTED != 0 {
            self.store.check();
        }
        self.free.set(free - 1);
        let value = self.store.pop_free(free);
        if !self.putters.is_empty() {
            self.let_in();
        }
        value.ok_or(TryRecvError::Empty)
    }

    /// Receives although there is no free value. With a capacity of 0 the value of a putter goes from hand to hand; with any
    /// other, putters wait behind free values.
    #[inline(always)]
    fn take_from_hand(&self) -> Result<T, TryRecvError> {
        if !self.putters.is_empty()
            && let Some(value) = self.next_deposit()
        {
            return Ok(value);
        }
        Err(if self.ended.get() { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }

    /// Lets putters in for as long as there is room (C2).
    #[inline(never)]
    fn let_in(&self) {
        while self.free.get() < self.capacity
            && let Some(value) = self.next_deposit()
        {
            self.free.set(self.free.get() + 1);
            self.store.push(value);
        }
    }

    /// Takes the first putter out of the line, and what it wants to send: now it has sent it (C2).
    #[inline(never)]
    fn next_deposit(&self) -> Option<T> {
        if !self.is_open() {
            return None;
        }
        let (putter, number) = self.putters.choose()?;
        wake(putter);
        self.withdraw((putter.id.get(), number))
    }

    /// Leaves a value for who makes room.
    pub(super) fn deposit(&self, who: Who, value: T) {
        self.deposits.borrow_mut().push_back((who, value));
    }

    /// Takes a deposit out, if nobody has.
    #[inline]
    pub(super) fn withdraw(&self, who: Who) -> Option<T> {
        let mut deposits = self.deposits.borrow_mut();
        let place = deposits.iter().position(|deposit| deposit.0 == who)?;
        deposits.remove(place).map(|(_, value)| value)
    }

    /// A taker that has a promise collects the value. Only after a discard there is none.
    #[inline(always)]
    pub(super) fn collect(&self) -> Result<T, RecvTimeoutError> {
        self.store.pop().ok_or(RecvTimeoutError::Disconnected)
    }

    /// A taker that has a promise does not live to collect the value: it goes to the next one (C1).
    #[cold]
    pub(super) fn pass_on(&self) {
        match self.takers.choose() {
            Some((taker, _)) => wake(taker),
            // A discard has taken the value.
            None if self.store.len() == self.free.get() => {}
            None => self.free.set(self.free.get() + 1),
        }
    }

    /// A taker leaves without a value, and passes on the promise if it has one.
    #[cold]
    #[inline(never)]
    fn stop_taking(&self, me: Fiber) {
        if !self.takers.leave(me) {
            self.pass_on();
        }
    }

    /// The wait of a putter unwinds. If its value was not taken it ends here, with no borrow held.
    #[cold]
    #[inline(never)]
    fn stop_putting(&self, me: Fiber) {
        self.putters.leave(me);
        drop(self.withdraw((me.id.get(), 0)));
    }

    /// Receives, and waits until the time that `deadline` says, which is asked only if it has to.
    #[inline(always)]
    pub(super) fn take(&self, deadline: impl FnOnce() -> u64) -> Result<T, RecvTimeoutError> {
        match self.try_take() {
            Ok(value) => return Ok(value),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => {}
        }
        let Ok((root, hub)) = hub() else { return Err(RecvTimeoutError::Timeout) };
        let (me, deadline) = (root.current(), deadline());
        self.takers.enter(me);
        let place = Taking { core: self, me };
        loop {
            let woken = park(root, hub, me, Reason::Receive, deadline);
            if !me.linked.get() {
                // It is out of the line, and the promise is kept: nothing is left to do for the place.
                forget(place);
                return self.collect();
            }
            match woken {
                Ok(Wake::Woken) if self.ended.get() => return Err(RecvTimeoutError::Disconnected),
                Ok(Wake::Woken) => {}
                Ok(Wake::TimedOut) | Err(_) => return Err(RecvTimeoutError::Timeout),
            }
        }
    }

    /// Sends, and waits until the time that `deadline` says, which is asked only if it has to.
    #[inline(always)]
    pub(super) fn put(&self, value: T, deadline: impl FnOnce() -> u64) -> Result<(), SendTimeoutError<T>> {
        let value = match self.try_put(value) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(value)) => return Err(SendTimeoutError::Disconnected(value)),
            Err(TrySendError::Full(value)) => value,
        };
        let Ok((root, hub)) = hub() else { return Err(SendTimeoutError::Timeout(value)) };
        let (me, deadline) = (root.current(), deadline());
        let who = (me.id.get(), 0);
        self.deposit(who, value);
        self.putters.enter(me);
        let place = Putting { core: self, me };
        loop {
            let woken = park(root, hub, me, Reason::Send, deadline);
            if !me.linked.get() {
                forget(place);
                return Ok(());
            }
            let why: fn(T) -> SendTimeoutError<T> = match woken {
                Ok(Wake::Woken) if !self.is_open() => SendTimeoutError::Disconnected,
                Ok(Wake::Woken) => continue,
                Ok(Wake::TimedOut) | Err(_) => SendTimeoutError::Timeout,
            };
            forget(place);
            self.putters.leave(me);
            // It is there: the caller was in the line to the last (C2).
            return self.withdraw(who).map_or(Ok(()), |value| Err(why(value)));
        }
    }

    /// How many values are there for anybody.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.free.get()
    }

    /// Whether a sender that comes now would have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.takers.is_empty() && self.len() >= self.capacity
    }

    /// How many free values it may hold.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether values are taken in.
    #[inline(always)]
    pub(super) fn is_open(&self) -> bool {
        self.gate.get() & SHUT == 0
    }

    /// Values are not taken in any more.
    fn shut(&self) {
        self.gate.set(self.gate.get() | SHUT);
    }

    /// Whether no value will come any more.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Who waits for a value.
    pub(super) fn takers(&self) -> &WaitList {
        &self.takers
    }

    /// Who waits for room.
    pub(super) fn putters(&self) -> &WaitList {
        &self.putters
    }

    /// Nothing comes in any more; what is there can be received.
    pub(super) fn close(&self) {
        self.shut();
        self.ended.set(true);
        wake_all(&self.putters);
        wake_all(&self.takers);
    }

    /// Nothing comes in any more, and what is there is dropped, promised or not.
    pub(super) fn close_and_discard(&self) {
        self.close();
        self.discard();
    }

    /// Drops what is in the store, with no borrow held (C3).
    fn discard(&self) {
        self.free.set(0);
        let values = self.store.take();
        drop(values);
    }

    /// One more sender.
    pub(super) fn add_sender(&self) {
        self.senders.set(self.senders.get() + 1);
    }

    /// One fewer.
    pub(super) fn drop_sender(&self) {
        self.senders.set(self.senders.get() - 1);
        if self.senders.get() == 0 {
            self.ended.set(true);
            wake_all(&self.takers);
        }
    }

    /// One more receiver.
    pub(super) fn add_receiver(&self) {
        self.receivers.set(self.receivers.get() + 1);
    }

    /// One fewer. Nobody is left who could receive what is in it after the last.
    pub(super) fn drop_receiver(&self) {
        self.receivers.set(self.receivers.get() - 1);
        if self.receivers.get() == 0 {
            self.shut();
            wake_all(&self.putters);
            self.discard();
        }
    }
}

/// A taker's place in the line. Two words whose destructor is one call: anything larger would have to lie in memory during
/// every wait, for the sake of the few that unwind.
struct Taking<'a, T> {
    /// The channel.
    core: &'a Core<T>,
    /// Who waits.
    me: Fiber,
}

impl<T> Drop for Taking<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.core.stop_taking(self.me);
    }
}

/// A putter's place in the line; as [`Taking`].
struct Putting<'a, T> {
    /// The channel.
    core: &'a Core<T>,
    /// Who waits.
    me: Fiber,
}

impl<T> Drop for Putting<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.core.stop_putting(self.me);
    }
}
