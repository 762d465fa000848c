//! What a channel holds, and which value comes out next.
//!
//! ```text
//!   holds         first     rest
//!   0              -        (empty)        the next value goes into `first`
//!   FIRST          a        (empty)        so does this one's way: two tests, no ring and no borrow
//!   FIRST | REST   a        b c ..
//!   REST           -        b c ..
//!   REST           -        newest or greatest first, also when there is none
//! ```
//!
//! Most values meet an empty channel: somebody waits for them, or the two ends take turns. Those go through `first`.
//!
//! * Invariant V1: `first` is full exactly if `FIRST` is set, and then it is older than all in `rest`. If `REST` is not
//!   set, `rest` is an empty queue. Upheld by the functions below, the only ones to touch the three.
//! * Invariant V2: `rest` is borrowed only inside the functions below. Foreign code runs meanwhile only in the comparison of
//!   a priority channel; whoever finds `rest` borrowed was called from there.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BinaryHeap, VecDeque};

use crate::interrupt::no_switch;

/// In [`Store::holds`]: there is a value in `first`.
const FIRST: u8 = 1;

/// In [`Store::holds`]: values come and go by `rest`.
const REST: u8 = 2;

/// Values in a channel.
pub(super) struct Store<T> {
    /// The oldest value, if it found the store empty.
    first: Cell<Option<T>>,
    /// [`FIRST`] and [`REST`].
    holds: Cell<u8>,
    /// The other values.
    rest: RefCell<Rest<T>>,
}

/// See [`Store`].
enum Rest<T> {
    /// The oldest first.
    Fifo(VecDeque<T>),
    /// The newest first.
    Lifo(Vec<T>),
    /// The greatest first.
    Priority(Heap<T>),
}

/// A heap, with what only a maker who knows that `T: Ord` can say. The comparison is foreign code: it must not switch,
/// since another thread would find the store in use.
struct Heap<T> {
    /// The values.
    values: BinaryHeap<T>,
    /// Adds one. If the comparison panics the value is in all the same.
    push: fn(&mut BinaryHeap<T>, T),
    /// Takes the greatest out.
    pop: fn(&mut BinaryHeap<T>) -> Option<T>,
}

impl<T> Rest<T> {
    /// How many values are in it.
    fn len(&self) -> usize {
        match self {
            Rest::Fifo(values) => values.len(),
            Rest::Lifo(values) => values.len(),
            Rest::Priority(heap) => heap.values.len(),
        }
    }

    /// Puts a value in.
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

    /// Whether a value that comes now may go into `first`.
    fn is_passed_by(&self) -> bool {
        matches!(self, Rest::Fifo(values) if values.is_empty())
    }
}

impl<T> Store<T> {
    /// An empty one, the oldest first.
    pub(super) fn fifo() -> Store<T> {
        Store { first: Cell::new(None), holds: Cell::new(0), rest: RefCell::new(Rest::Fifo(VecDeque::new())) }
    }

    /// An empty one, the newest first.
    pub(super) fn lifo() -> Store<T> {
        Store { first: Cell::new(None), holds: Cell::new(REST), rest: RefCell::new(Rest::Lifo(Vec::new())) }
    }

    /// An empty one, the greatest first.
    pub(super) fn priority() -> Store<T>
    where
        T: Ord,
    {
        let heap = Heap { values: BinaryHeap::new(), push: BinaryHeap::push, pop: BinaryHeap::pop };
        Store { first: Cell::new(None), holds: Cell::new(REST), rest: RefCell::new(Rest::Priority(heap)) }
    }

    /// The values that are not the first (V2).
    fn rest(&self) -> RefMut<'_, Rest<T>> {
        match self.rest.try_borrow_mut() {
            Ok(rest) => rest,
            Err(_) => busy(),
        }
    }

    /// Whether the program's comparison says which value comes next.
    pub(super) fn is_sorted(&self) -> bool {
        matches!(*self.rest(), Rest::Priority(_))
    }

    /// Panics if the caller is the comparison of a value of this very channel. Call it before anything is changed.
    #[cold]
    #[inline(never)]
    pub(super) fn check(&self) {
        self.rest();
    }

    /// How many values are in it.
    pub(super) fn len(&self) -> usize {
        usize::from(self.holds.get() & FIRST) + self.rest().len()
    }

    /// Puts a value in.
    #[inline(always)]
    pub(super) fn push(&self, value: T) {
        if self.holds.get() != 0 {
            return self.push_rest(value);
        }
        self.holds.set(FIRST);
        self.first.set(Some(value));
    }

    /// `push`, if there is a value already, or the order is not that of arrival. Out of line, as `refill` and `bring`, to
    /// keep small what is inlined into every call of `send` and `recv`; none of them switches.
    #[inline(never)]
    fn push_rest(&self, value: T) {
        let mut rest = self.rest();
        self.holds.set(self.holds.get() | REST);
        rest.push(value);
    }

    /// Takes the next value out. All values leave by `first`: with one place that they come from, the compiler knows in
    /// each caller that there is one, and does not ask again.
    #[inline(always)]
    pub(super) fn pop(&self) -> Option<T> {
        loop {
            if let Some(value) = self.first.take() {
                self.holds.set(self.holds.get() - FIRST);
                return Some(value);
            }
            if !self.refill() {
                return None;
            }
        }
    }

    /// Moves the next value from `rest` to `first`, which is empty. Says whether there was one.
    #[inline(never)]
    fn refill(&self) -> bool {
        let mut rest = self.rest();
        let next = rest.pop();
        let found = next.is_some();
        self.put_first(next, &rest);
        found
    }

    /// Fills `first`, which is empty, with what has left `rest`.
    fn put_first(&self, value: Option<T>, rest: &Rest<T>) {
        let mut holds = self.holds.get();
        if value.is_some() {
            holds |= FIRST;
        }
        if rest.is_passed_by() {
            holds &= !REST;
        }
        self.holds.set(holds);
        self.first.set(value);
    }

    /// Takes out the next value that is one of the last `free` ones: the others belong to somebody. Where the order is not
    /// that of arrival there is no such thing as "the one that was promised", and any will do.
    #[inline(always)]
    pub(super) fn pop_free(&self, free: usize) -> Option<T> {
        // A single value is free if any is.
        if self.holds.get() != FIRST {
            self.bring(free);
        }
        self.pop()
    }

    /// Sees to it that the next `pop` takes the first of the last `free` values, not one of those before.
    #[inline(never)]
    fn bring(&self, free: usize) {
        let mut rest = self.rest();
        let Rest::Fifo(values) = &mut *rest else { return };
        let first = usize::from(self.holds.get() & FIRST);
        let promised = first + values.len() - free;
        if promised > 0
            && let Some(wanted) = values.remove(promised - first)
        {
            // The first of the promised values goes back to the head of the queue.
            if let Some(first) = self.first.take() {
                values.push_front(first);
            }
            self.put_first(Some(wanted), &rest);
        }
    }

    /// Takes everything out, for the caller to drop.
    pub(super) fn take(&self) -> (Option<T>, VecDeque<T>, Vec<T>) {
        let mut rest = self.rest();
        let (queue, others) = match &mut *rest {
            Rest::Fifo(values) => (std::mem::take(values), Vec::new()),
            Rest::Lifo(values) => (VecDeque::new(), std::mem::take(values)),
            // `mem::take` would need the `Ord` again.
            Rest::Priority(heap) => (VecDeque::new(), heap.values.drain().collect()),
        };
        let first = self.first.take();
        self.holds.set(self.holds.get() & !FIRST);
        self.put_first(None, &rest);
        (first, queue, others)
    }
}

/// The comparison of a priority channel used the channel (V2).
#[cold]
#[inline(never)]
fn busy() -> ! {
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
            assert_eq!(store.holds.get() & REST == 0, store.rest().is_passed_by(), "V1");
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
