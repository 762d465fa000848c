//! The values in a channel, and the order in which they leave.
//!
//! ```text
//!   holds         first     rest
//!   0              -        (empty)        the next value goes into `first`
//!   FIRST          a        (empty)        a value that took that way: two tests, no ring and no borrow
//!   FIRST | REST   a        b c ..
//!   REST           -        b c ..
//!   REST           -        newest or greatest first, also when there is none
//! ```
//!
//! Most values meet an empty channel: a receiver waits for them, or the two ends take turns. These values pass through
//! `first` alone.
//!
//! * Invariant store-1: `first` is full if and only if `FIRST` is set, and then its value is older than all in `rest`.
//!   If `REST` is not set, `rest` is an empty queue. Upheld by the functions below, the only ones that touch the three
//!   fields.
//! * Invariant store-2: `rest` is borrowed only inside the functions below. The only foreign code that runs meanwhile
//!   is the comparison of a priority channel, so a caller that finds `rest` borrowed was called by that comparison.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BinaryHeap, VecDeque};

use crate::interrupt::no_switch;

/// The bit of [`Store::holds`] that is set while `first` holds a value.
const FIRST: u8 = 1;

/// The bit of [`Store::holds`] that is set while values come and go by `rest`.
const REST: u8 = 2;

/// The values in a channel.
pub(super) struct Store<T> {
    /// The oldest value, if the store was empty when that value came.
    first: Cell<Option<T>>,
    /// The bits [`FIRST`] and [`REST`].
    holds: Cell<u8>,
    /// The values that are not in `first`.
    rest: RefCell<Rest<T>>,
}

/// The values beside the first one, in the order of the channel.
enum Rest<T> {
    /// A queue: the oldest value leaves first.
    Fifo(VecDeque<T>),
    /// A stack: the newest value leaves first.
    Lifo(Vec<T>),
    /// A heap: the greatest value leaves first.
    Priority(Heap<T>),
}

/// A heap with the two functions that need `T: Ord`, which only the constructor knows. The comparison is foreign code:
/// it must not switch, since another thread would find the store in use.
struct Heap<T> {
    values: BinaryHeap<T>,
    /// Adds a value, also if the comparison panics.
    push: fn(&mut BinaryHeap<T>, T),
    /// Takes the greatest value out.
    pop: fn(&mut BinaryHeap<T>) -> Option<T>,
}

impl<T> Rest<T> {
    /// Returns the number of values.
    fn len(&self) -> usize {
        match self {
            Rest::Fifo(values) => values.len(),
            Rest::Lifo(values) => values.len(),
            Rest::Priority(heap) => heap.values.len(),
        }
    }

    /// Adds a value to the end, the top or the heap.
    fn push(&mut self, value: T) {
        match self {
            Rest::Fifo(values) => values.push_back(value),
            Rest::Lifo(values) => values.push(value),
            Rest::Priority(heap) => no_switch(|| (heap.push)(&mut heap.values, value)),
        }
    }

    /// Takes the next value out.
    fn pop(&mut self) -> Option<T> {
        match self {
            Rest::Fifo(values) => values.pop_front(),
            Rest::Lifo(values) => values.pop(),
            Rest::Priority(heap) => no_switch(|| (heap.pop)(&mut heap.values)),
        }
    }

    /// Reports whether a value that comes now may go into `first`.
    fn may_be_bypassed(&self) -> bool {
        matches!(self, Rest::Fifo(values) if values.is_empty())
    }
}

impl<T> Store<T> {
    /// Returns an empty store in which the oldest value leaves first.
    pub(super) fn fifo() -> Store<T> {
        Store { first: Cell::new(None), holds: Cell::new(0), rest: RefCell::new(Rest::Fifo(VecDeque::new())) }
    }

    /// Returns an empty store in which the newest value leaves first.
    pub(super) fn lifo() -> Store<T> {
        Store { first: Cell::new(None), holds: Cell::new(REST), rest: RefCell::new(Rest::Lifo(Vec::new())) }
    }

    /// Returns an empty store in which the greatest value leaves first.
    pub(super) fn priority() -> Store<T>
    where
        T: Ord,
    {
        let heap = Heap { values: BinaryHeap::new(), push: BinaryHeap::push, pop: BinaryHeap::pop };
        Store { first: Cell::new(None), holds: Cell::new(REST), rest: RefCell::new(Rest::Priority(heap)) }
    }

    /// Borrows the values that are not in `first` (store-2).
    fn rest(&self) -> RefMut<'_, Rest<T>> {
        match self.rest.try_borrow_mut() {
            Ok(rest) => rest,
            Err(_) => used_by_comparison(),
        }
    }

    /// Reports whether the program's comparison determines the order.
    pub(super) fn is_sorted(&self) -> bool {
        matches!(*self.rest(), Rest::Priority(_))
    }

    /// Panics if the caller is the comparison of a value of this channel. To be called before anything is changed.
    #[cold]
    #[inline(never)]
    pub(super) fn assert_unused(&self) {
        self.rest();
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        usize::from(self.holds.get() & FIRST) + self.rest().len()
    }

    /// Adds a value, and takes the short way if the store is empty.
    #[inline(always)]
    pub(super) fn push(&self, value: T) {
        // `first` is for a value that finds nothing before it.
        if self.holds.get() != 0 {
            return self.push_rest(value);
        }
        self.holds.set(FIRST);
        self.first.set(Some(value));
    }

    /// Adds a value to a store that is not empty, or of which the order is not that of arrival. Out of line, as
    /// `refill` and `move_free_to_front`, to keep small what is inlined into every call of `send` and `recv`; none of
    /// them switches.
    #[inline(never)]
    fn push_rest(&self, value: T) {
        let mut rest = self.rest();
        self.holds.set(self.holds.get() | REST);
        rest.push(value);
    }

    /// Takes the next value out. All values leave through `first`: with a single source, the compiler knows in each
    /// caller that there is a value, and does not test again.
    #[inline(always)]
    pub(super) fn pop(&self) -> Option<T> {
        loop {
            // A value that is not in `first` comes there by `refill`.
            if let Some(value) = self.first.take() {
                self.holds.set(self.holds.get() - FIRST);
                return Some(value);
            }
            if !self.refill() {
                return None;
            }
        }
    }

    /// Moves the next value from `rest` to `first`, which is empty. Reports whether there was one.
    #[inline(never)]
    fn refill(&self) -> bool {
        let mut rest = self.rest();
        let next = rest.pop();
        let found = next.is_some();
        self.put_first(next, &rest);
        found
    }

    /// Fills `first`, which is empty, with a value that was taken out of `rest`.
    fn put_first(&self, value: Option<T>, rest: &Rest<T>) {
        let mut holds = self.holds.get();
        // Keep store-1: the bits say what is full.
        if value.is_some() {
            holds |= FIRST;
        }
        if rest.may_be_bypassed() {
            holds &= !REST;
        }
        self.holds.set(holds);
        self.first.set(value);
    }

    /// Takes out the next of the last `free` values: those before them are reserved. Where the order is not that of
    /// arrival, the reserved values are not told apart, and any value will do.
    #[inline(always)]
    pub(super) fn pop_free(&self, free: usize) -> Option<T> {
        // A single value is free if any is.
        if self.holds.get() != FIRST {
            self.move_free_to_front(free);
        }
        self.pop()
    }

    /// Makes the first of the last `free` values the one that the next `pop` takes.
    #[inline(never)]
    fn move_free_to_front(&self, free: usize) {
        let mut rest = self.rest();
        let Rest::Fifo(values) = &mut *rest else { return };
        let first = usize::from(self.holds.get() & FIRST);
        // Reserved values stand before the free ones.
        let reserved = first + values.len() - free;
        if reserved > 0
            && let Some(wanted) = values.remove(reserved - first)
        {
            // The first of the reserved values goes back to the head of the queue.
            if let Some(first) = self.first.take() {
                values.push_front(first);
            }
            self.put_first(Some(wanted), &rest);
        }
    }

    /// Takes all values out, for the caller to drop.
    pub(super) fn take(&self) -> (Option<T>, VecDeque<T>, Vec<T>) {
        let mut rest = self.rest();
        let (queue, others) = match &mut *rest {
            Rest::Fifo(values) => (std::mem::take(values), Vec::new()),
            Rest::Lifo(values) => (VecDeque::new(), std::mem::take(values)),
            // `mem::take` would need `T: Ord` again.
            Rest::Priority(heap) => (VecDeque::new(), heap.values.drain().collect()),
        };
        let first = self.first.take();
        self.holds.set(self.holds.get() & !FIRST);
        self.put_first(None, &rest);
        (first, queue, others)
    }
}

/// Panics because the comparison of a priority channel uses the channel (store-2).
#[cold]
#[inline(never)]
fn used_by_comparison() -> ! {
    panic!("greenling: the comparison of a priority channel's values uses the channel itself");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;

    #[test]
    fn values_come_in_their_order_whichever_way_they_take() {
        let mut random = Random::new();
        let (store, mut model) = (Store::fifo(), VecDeque::new());
        for n in 0..50_000 {
            match random.below(5) {
                0 | 1 => {
                    store.push(n);
                    model.push_back(n);
                }
                2 if !model.is_empty() => {
                    let free = 1 + random.below(model.len() as u64) as usize;
                    assert_eq!(store.pop_free(free), model.remove(model.len() - free));
                }
                _ => assert_eq!(store.pop(), model.pop_front()),
            }
            assert_eq!(store.len(), model.len());
            assert_eq!(store.holds.get() & REST == 0, store.rest().may_be_bypassed(), "store-1");
            if n % 1000 == 0 {
                let (first, rest, others) = store.take();
                assert!(first.into_iter().chain(rest).chain(others).eq(model.drain(..)));
                assert_eq!((store.len(), store.holds.get()), (0, 0));
            }
        }
    }

    #[test]
    fn the_newest_and_the_greatest_come_first() {
        let (newest, greatest) = (Store::lifo(), Store::priority());
        for _ in 0..2 {
            for n in [2, 3, 1] {
                newest.push(n);
                greatest.push(n);
            }
            assert_eq!([newest.pop(), newest.pop_free(2), newest.pop()], [Some(1), Some(3), Some(2)]);
            assert_eq!([greatest.pop_free(2), greatest.pop(), greatest.pop()], [Some(3), Some(2), Some(1)]);
            assert_eq!((newest.pop(), greatest.pop()), (None, None));
        }
        newest.push(1);
        assert_eq!(newest.take(), (None, VecDeque::new(), vec![1]));
    }
}
