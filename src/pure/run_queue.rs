//! The run queue: who runs next, first in, first out.
//!
//! A ring whose size is a power of two. `head` and `tail` count pops and pushes and only ever grow (they wrap round at
//! the end of `usize`, which does no harm since only their difference and their low bits are looked at); the low bits of
//! a counter are the place in the ring.
//!
//! ```text
//!                head = 6          tail = 11
//!                  |                  |
//!     ring:   [8] [9] [10] [ ] [ ] [ ] [6] [7]        (8 places, 5 items: the numbers are the counters)
//!     place:   0   1    2   3   4   5   6   7
//!                       tail & 7 = 3    head & 7 = 6
//! ```
//!
//! Invariant Q1: `ring.len()` is 0 or a power of two, and `tail - head <= ring.len()`.
//!
//! The ring doubles when it is full and never shrinks, so a queue that has once seen its greatest length does not
//! allocate again. A place that holds no item keeps a stale copy of some earlier one: `T: Copy` has no destructor that
//! would mind, and a value that fills empty places is why this file needs neither `unsafe` nor an `Option` per place.
//!
//! Not promised: fairness between items that are pushed more than once (the queue does not look at them).

#![forbid(unsafe_code)]

/// The size of the ring after the first push.
const FIRST_SIZE: usize = 64;

/// A growable first-in-first-out queue of small copyable items.
pub(crate) struct RunQueue<T: Copy> {
    /// The places, all of them initialised. Items lie at the counters `head..tail`, masked; the rest is stale.
    ring: Vec<T>,
    /// How many items were popped so far (wrapping).
    head: usize,
    /// How many items were pushed so far (wrapping).
    tail: usize,
}

impl<T: Copy> RunQueue<T> {
    /// An empty queue, which owns no memory before the first push.
    pub(crate) const fn new() -> RunQueue<T> {
        RunQueue { ring: Vec::new(), head: 0, tail: 0 }
    }

    /// Where the item with this counter lies. Meaningless while the ring has no places.
    #[inline]
    fn place(&self, counter: usize) -> usize {
        // Taking the mask from the length, not from a field of its own, lets the compiler reduce every bounds check to
        // "the ring has places".
        counter & self.ring.len().wrapping_sub(1)
    }

    /// Appends an item.
    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        if self.len() == self.ring.len() {
            // A tail call, so that the common way saves no registers.
            return self.grow_and_push(item);
        }
        let place = self.place(self.tail);
        self.ring[place] = item;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Takes the item that has waited longest.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.peek(0)?;
        self.head = self.head.wrapping_add(1);
        Some(item)
    }

    /// `pop` and `push` in one: the item that waited longest, while `item` goes to the end. `None`, and nothing changes,
    /// if nobody waits. Never grows the ring, since a place becomes free.
    #[inline]
    pub(crate) fn rotate(&mut self, item: T) -> Option<T> {
        let first = self.pop()?;
        let place = self.place(self.tail);
        if let Some(free) = self.ring.get_mut(place) {
            *free = item;
        }
        self.tail = self.tail.wrapping_add(1);
        Some(first)
    }

    /// The item that the `k`-th pop from now would return, if nothing changes: `peek(0)` is what the next `pop` returns.
    #[inline]
    pub(crate) fn peek(&self, k: usize) -> Option<T> {
        if k >= self.len() {
            return None;
        }
        // By Q1 `get` cannot fail here. It is `get` all the same, because its empty branch falls together with the one
        // above, whereas an index would leave a panic in the hottest loop of the crate.
        self.ring.get(self.place(self.head.wrapping_add(k))).copied()
    }

    /// Whether a push would not allocate.
    pub(crate) fn has_room(&self) -> bool {
        self.len() < self.ring.len()
    }

    /// Forgets all items; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.head = self.tail;
    }

    /// How many items wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    /// Whether nobody waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// The items from the next to be popped to the last pushed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        (0..self.len()).filter_map(|k| self.peek(k))
    }

    /// `push`, when the ring is full: doubles it and moves the items to its start.
    #[cold]
    #[inline(never)]
    fn grow_and_push(&mut self, item: T) {
        let len = self.len();
        let size = FIRST_SIZE.max(len * 2);
        let mut ring = Vec::with_capacity(size);
        ring.extend(self.iter());
        // The new item fills the empty places. In the first of them it is not stale.
        ring.resize(size, item);
        self.ring = ring;
        self.head = 0;
        self.tail = len + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;
    use std::collections::VecDeque;

    #[test]
    fn a_rotation_is_a_pop_and_a_push() {
        let mut queue = RunQueue::new();
        assert_eq!(queue.rotate(9), None);
        assert!(queue.is_empty());
        // A full ring as well: the place that the pop frees takes the push.
        for item in 0..FIRST_SIZE {
            queue.push(item);
        }
        for item in 0..3 * FIRST_SIZE {
            assert_eq!(queue.rotate(FIRST_SIZE + item), Some(item));
        }
        assert_eq!(queue.len(), FIRST_SIZE);
    }

    #[test]
    fn a_new_queue_owns_no_memory() {
        static EMPTY: RunQueue<u64> = RunQueue::new();
        assert_eq!(EMPTY.ring.capacity(), 0);
        assert!(EMPTY.is_empty());
        assert_eq!(EMPTY.peek(0), None);
        assert_eq!(RunQueue::<u64>::new().pop(), None);
    }

    #[test]
    fn items_leave_in_the_order_of_arrival() {
        let mut random = Random::new();
        let mut queue = RunQueue::new();
        let mut model = VecDeque::new();
        // Counters that wrap round after a few thousand operations must go unnoticed.
        queue.head = usize::MAX - 5000;
        queue.tail = queue.head;
        for step in 0..if cfg!(miri) { 2_000 } else { 200_000_u64 } {
            // Long phases of growth and of decline, so that the ring is resized at many offsets and runs empty.
            let pushes = if (step / 700) % 2 == 0 { 6 } else { 4 };
            if random.below(10) < pushes {
                queue.push(step);
                model.push_back(step);
            } else {
                assert_eq!(queue.pop(), model.pop_front());
            }
            assert_eq!(queue.len(), model.len());
            assert_eq!(queue.is_empty(), model.is_empty());
            let k = random.below(8) as usize;
            assert_eq!(queue.peek(k), model.get(k).copied());
            if step % 97 == 0 {
                assert!(queue.iter().eq(model.iter().copied()));
            }
        }
    }

    #[test]
    fn the_steady_state_does_not_allocate() {
        let mut queue = RunQueue::new();
        for item in 0..1000_u64 {
            queue.push(item);
        }
        let (ring, size) = (queue.ring.as_ptr(), queue.ring.len());
        assert_eq!(size, 1024);
        for _ in 0..10_000 {
            let item = queue.pop().unwrap();
            queue.push(item);
        }
        assert_eq!((queue.ring.as_ptr(), queue.ring.len()), (ring, size));
    }

    #[test]
    fn growth_is_amortised() {
        let mut queue = RunQueue::new();
        let mut growths = 0;
        for item in 0..100_000_u64 {
            let size = queue.ring.len();
            queue.push(item);
            growths += usize::from(queue.ring.len() != size);
        }
        assert_eq!(queue.ring.len(), 1 << 17);
        assert_eq!(growths, 12, "64 doubled eleven times");
    }
}
