//! The run queue: a ring of the items that run next, first in, first out.
//!
//! The size of the ring is a power of two. `head` and `tail` count pops and pushes and only ever grow. They wrap round
//! at the end of `usize`, which does no harm since only their difference and their low bits are used. The low bits of
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
//! Invariant run-queue-1: `ring.len()` is 0 or a power of two, and `tail - head <= ring.len()`.
//!
//! The ring doubles when it is full and never shrinks, so a queue does not allocate again until it grows beyond its
//! greatest length. A place without an item keeps a stale copy of some earlier item: `T: Copy` has no destructor, and
//! a value that fills empty places is why this file needs neither `unsafe` nor an `Option` for each place.
//!
//! A queue may have a *watcher*, a function that is told of each push at the end, and of how many items are before it;
//! only [`push_untold`](RunQueue::push_untold) tells it nothing. While there is none, it costs the
//! push nothing: the push compares the length with a limit, which is the length of the ring, or 0 for a queue with a
//! watcher. So each push of such a queue takes the way of a push into a full ring.
//!
//! Not promised: fairness between items that are pushed more than once. The queue does not compare items.

#![forbid(unsafe_code)]

/// The size of the ring after the first push.
const FIRST_SIZE: usize = 64;

/// A growable first-in-first-out queue of small copyable items.
pub(crate) struct RunQueue<T: Copy> {
    /// The length below which a push is fast: that of the ring, or 0 if there is a watcher.
    limit: usize,
    /// The function that is told of each push.
    watcher: Option<fn(T, usize)>,
    /// The places, all of them initialised. Items lie at the counters `head..tail`, masked; the rest is stale.
    ring: Vec<T>,
    /// The number of items popped so far (wrapping).
    head: usize,
    /// The number of items pushed so far (wrapping).
    tail: usize,
}

impl<T: Copy> RunQueue<T> {
    /// Creates an empty queue, which owns no memory before the first push.
    pub(crate) const fn new() -> RunQueue<T> {
        RunQueue { limit: 0, watcher: None, ring: Vec::new(), head: 0, tail: 0 }
    }

    /// Returns the place of the item with this counter. Meaningless while the ring has no places.
    #[inline]
    fn place(&self, counter: usize) -> usize {
        // Taking the mask from the length, not from a field of its own, lets the compiler reduce every bounds check to
        // "the ring has places".
        counter & self.ring.len().wrapping_sub(1)
    }

    /// Appends an item at the end.
    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        if self.len() >= self.limit {
            // A tail call, so that the common way saves no registers.
            return self.push_slowly(item);
        }
        self.put(item);
    }

    /// Puts an item at the end of a ring that has room.
    #[inline(always)]
    fn put(&mut self, item: T) {
        let place = self.place(self.tail);
        self.ring[place] = item;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Pushes into a ring that is full, or tells the watcher of a push.
    #[cold]
    #[inline(never)]
    fn push_slowly(&mut self, item: T) {
        let before = self.len();
        self.push_untold(item);
        if let Some(watcher) = self.watcher {
            watcher(item, before);
        }
    }

    /// Appends an item at the end, of which no watcher is told.
    #[inline(always)]
    pub(crate) fn push_untold(&mut self, item: T) {
        if self.len() == self.ring.len() {
            self.grow_and_push(item);
        } else {
            self.put(item);
        }
    }

    /// Sets the function that is told of each item that is pushed at the end, and of the number of those before it,
    /// after the push; none for a queue that is as fast as can be. The function must not use the queue.
    pub(crate) fn watch(&mut self, watcher: Option<fn(T, usize)>) {
        self.watcher = watcher;
        self.limit = if watcher.is_some() { 0 } else { self.ring.len() };
    }

    /// Puts an item before all others.
    pub(crate) fn push_front(&mut self, item: T) {
        if self.len() == self.ring.len() {
            // The ring grows at its end; there the item is taken off again.
            self.grow_and_push(item);
            self.tail = self.tail.wrapping_sub(1);
        }
        self.head = self.head.wrapping_sub(1);
        let place = self.place(self.head);
        self.ring[place] = item;
    }

    /// Takes the item that has waited longest.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.peek(0)?;
        self.head = self.head.wrapping_add(1);
        Some(item)
    }

    /// Takes the item that the `k`-th pop from now would return, and keeps the order of the others.
    pub(crate) fn take(&mut self, k: usize) -> Option<T> {
        let taken = self.peek(k)?;
        // The items before it move up by one place, from the nearest to the first.
        for before in (0..k).rev() {
            let (from, to) =
                (self.place(self.head.wrapping_add(before)), self.place(self.head.wrapping_add(before + 1)));
            self.ring[to] = self.ring[from];
        }
        self.head = self.head.wrapping_add(1);
        Some(taken)
    }

    /// Takes the item that has waited longest, and appends `item` at the end. Returns `None` and changes nothing if
    /// the queue is empty. Never grows the ring, since a place becomes free.
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

    /// Returns the item that the `k`-th pop from now would return, if nothing changes: `peek(0)` is what the next
    /// `pop` returns.
    #[inline]
    pub(crate) fn peek(&self, k: usize) -> Option<T> {
        if k >= self.len() {
            return None;
        }
        // By run-queue-1 `get` cannot fail here. `get` is used all the same, because its empty branch falls together
        // with the one above, whereas an index would leave a panic in the hottest loop of the crate.
        self.ring.get(self.place(self.head.wrapping_add(k))).copied()
    }

    /// Reports whether a push would not allocate.
    pub(crate) fn has_room(&self) -> bool {
        self.len() < self.ring.len()
    }

    /// Removes all items; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.head = self.tail;
    }

    /// Reports whether the queue is empty or longer than `most`, in one comparison.
    #[inline(always)]
    pub(crate) fn is_empty_or_longer(&self, most: usize) -> bool {
        // The length less one is the complement of `head - tail`; for an empty queue it is the greatest number.
        self.head.wrapping_sub(self.tail) <= !most
    }

    /// Returns the number of items.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    /// Reports whether the queue has no items.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Returns the items from the next to be popped to the last pushed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        (0..self.len()).filter_map(|k| self.peek(k))
    }

    /// Pushes into a full ring: doubles the ring and moves the items to its start.
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
        self.watch(self.watcher);
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
    fn a_watcher_is_told_of_every_push_at_the_end() {
        use std::cell::RefCell;
        thread_local!(static SEEN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) });
        // The ring grows meanwhile, and once more after the watcher is gone.
        let mut queue = RunQueue::new();
        queue.watch(Some(|item, before| {
            assert_eq!(item, before, "nothing was popped so far");
            SEEN.with_borrow_mut(|seen| seen.push(item));
        }));
        (0..FIRST_SIZE + 3).for_each(|item| queue.push(item));
        queue.push_front(1000);
        queue.push_untold(2000);
        queue.watch(None);
        (0..2 * FIRST_SIZE).for_each(|item| queue.push(item));
        assert_eq!(SEEN.take(), (0..FIRST_SIZE + 3).collect::<Vec<_>>());
        assert_eq!(queue.pop(), Some(1000));
        assert!((0..FIRST_SIZE + 3).chain([2000]).chain(0..2 * FIRST_SIZE).all(|item| queue.pop() == Some(item)));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn an_item_is_taken_out_of_the_middle() {
        let mut queue = RunQueue::new();
        // Across the end of the ring.
        (0..FIRST_SIZE - 2).for_each(|item| queue.push(item));
        (0..FIRST_SIZE - 2).for_each(|item| assert_eq!(queue.pop(), Some(item)));
        (0..5).for_each(|item| queue.push(item));
        assert_eq!((queue.take(5), queue.take(3), queue.take(0), queue.take(2)), (None, Some(3), Some(0), Some(4)));
        assert_eq!(queue.iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn empty_and_long_queues_are_told_from_others() {
        let mut queue = RunQueue::new();
        for len in 0..5 {
            assert_eq!(queue.is_empty_or_longer(3), len == 0 || len > 3);
            queue.push(0);
        }
    }

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
    fn what_is_pushed_to_the_front_is_next_also_if_the_ring_is_full_or_empty() {
        let mut queue = RunQueue::new();
        for item in 0..3 * FIRST_SIZE {
            queue.push_front(item);
            assert_eq!((queue.peek(0), queue.len()), (Some(item), item + 1));
        }
        assert!(queue.iter().eq((0..3 * FIRST_SIZE).rev()));
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
            } else if random.below(20) == 0 {
                queue.push_front(step);
                model.push_front(step);
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
        let items = if cfg!(miri) { 1_000 } else { 100_000_u64 };
        for item in 0..items {
            let size = queue.ring.len();
            queue.push(item);
            growths += usize::from(queue.ring.len() != size);
        }
        assert_eq!(queue.ring.len() as u64, items.next_power_of_two());
        assert_eq!(growths, if cfg!(miri) { 5 } else { 12 }, "64 doubled four or eleven times");
    }
}
