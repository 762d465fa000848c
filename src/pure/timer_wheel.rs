//! A hierarchical timing wheel: entries with the times at which they fire.
//!
//! Time is a `u64` of nanoseconds that the caller tells; there is no clock in here. A *tick* is 2^14 ns (16.4 us). A
//! tick number is read as nine digits to the base 64. Each digit has a level of 64 slots, each slot a list of entries:
//!
//! ```text
//!     level 0      one slot = one tick             16 us     64 slots =   1 ms
//!     level 1      one slot = 64 ticks              1 ms     64 slots =  67 ms
//!     level 2                                      67 ms     64 slots =   4 s
//!     level 3                                       4 s      64 slots = 275 s
//!     ...
//!     level 8      one slot = 64^8 ticks          146 years   4 slots = 584 years = all of `u64`
//! ```
//!
//! The *cursor* is the tick up to which everything has been fired. An entry lies on the level of the most significant
//! digit in which its tick differs from the cursor, in the slot of that digit:
//!
//! ```text
//!                      digit:  2   1   0
//!     cursor                   5  17  40
//!     an entry for tick        5  17  44     level 0, slot 44
//!     an entry for tick        5  20   3     level 1, slot 20: goes to level 0, slot 3 when the cursor is (5 20 0)
//!     an entry for tick        9   0   0     level 2, slot 9
//!     an overdue entry         5  17  12     level 0, slot 40: counts as belonging to the tick of the cursor
//! ```
//!
//! When the cursor reaches a slot of a level above 0, the slot *cascades*: its entries are placed anew, all of them on
//! lower levels. Empty slots are skipped by bitmaps, so a jump over years costs as much as a jump over a tick.
//!
//! Invariants:
//!
//! - wheel-1: every slot in use is ahead of the cursor's digit on its level, or, on level 0 only, is that digit's
//!   slot.
//! - wheel-2: so everything on a level comes before everything on the levels above, and within a level the slots are
//!   in order of time. The earliest entry is in the first slot in use of the lowest level in use.
//! - wheel-3: two entries with the same tick are in the same slot at all times, in order of insertion: the place of an
//!   entry depends on its tick and the cursor only, and a cascade keeps the order.
//! - wheel-4: a list in use is reached by its slot's bit in `occupied` and by its level's bit in `levels`; no other
//!   bits are set.
//!
//! What is promised:
//!
//! - An entry never fires before its exact deadline: the slot of the cursor is put in order of deadline and fired only
//!   as far as `now` reaches.
//! - Order: by exact deadline, and by insertion among equal deadlines, over all entries that were there when `advance`
//!   was called. This order is total; the tick is not visible in it.
//! - Cost: insertion and cancellation are O(1). A life until the end costs at most one cascade for each level that the
//!   entry starts above 0 (a 30 s timeout: 3 or 4), plus sorting those entries of one tick that were not inserted in
//!   order of deadline.
//!
//! Not promised: that `advance` is short. The budget bounds how many entries are fired, not how many cascade (a second
//! bound would have to stop in the middle of a slot, where insertions could overtake). And nothing shrinks: memory
//! stays at the greatest number of entries there ever was.
//!
//! Rejected: seven levels with the far entries held back in the last slot. Two more levels cost 1 KiB and cover all of
//! `u64`, without a clamp, its second check and its test. Also rejected: firing a tick's entries in order of
//! insertion. Every call within a tick would then have to walk over the entries that are not due yet.

#![forbid(unsafe_code)]

use std::num::NonZeroU32;

/// The length of a tick: 2^14 ns.
const TICK_BITS: u32 = 14;

/// The size of a level: 2^6 slots, as many as a `u64` has bits.
const LEVEL_BITS: u32 = 6;

/// The number of slots of a level.
const LEVEL_SLOTS: usize = 1 << LEVEL_BITS;

/// The number of levels: as many as the 50 bits of a tick number have digits.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(LEVEL_BITS) as usize;

/// The number of no node.
const NIL: u32 = u32::MAX;

/// The slot of a node that is in none.
const VACANT: u16 = u16::MAX;

/// The number of entries of one slot that `next_wakeup` looks at before the start of the slot will do.
const SCAN: usize = 16;

/// A name for one entry while the entry is in the wheel, and for nothing once it was fired or cancelled.
///
/// A node is used again, but its generation never is (a node with no generations left is retired for ever), so a stale
/// key is harmless. `Option<TimerKey>` is as small as `TimerKey`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerKey {
    /// The number of the node.
    index: u32,
    /// The generation that the node had when the entry came in.
    generation: NonZeroU32,
}

/// One entry, or a vacant place for one.
#[repr(C)]
struct Node<T> {
    /// When the entry is due, exactly. Stale in a vacant node.
    deadline: u64,
    /// What the caller gets back. Stale in a vacant node.
    payload: T,
    /// The next node of the slot's list, of the free list if vacant, or `NIL`.
    next: u32,
    /// The previous node of the slot's list, or `NIL`. Stale in a vacant node.
    prev: u32,
    /// The generation in the key of the present entry, or, if vacant, of the next one.
    generation: NonZeroU32,
    /// The slot of the list that the node is in, `level * 64 + digit`, or `VACANT`.
    slot: u16,
}

/// Two entries to a cache line, as long as the payload is a pointer or an id.
const _: () = assert!(size_of::<Node<u64>>() == 32);
const _: () = assert!(size_of::<Option<TimerKey>>() == 8);

/// The list of entries of one slot. Meaningless while the slot's bit in `occupied` is not set.
#[derive(Clone, Copy)]
struct List {
    /// The first node of the list.
    head: u32,
    /// The last node, after which the next one is appended.
    tail: u32,
}

/// Timers, ordered by the time that the caller tells.
pub(crate) struct TimerWheel<T: Copy> {
    /// All nodes there ever were.
    nodes: Vec<Node<T>>,
    /// The node that was vacated last, or `NIL`.
    free: u32,
    /// The number of nodes in slots.
    len: usize,
    /// The tick up to which everything has been fired. Never goes back.
    cursor: u64,
    /// Whether the slot of the cursor, on level 0, is known to be in order of deadline.
    in_order: bool,
    /// The slots with entries, as bits for each level.
    occupied: [u64; LEVELS],
    /// The levels with entries, as bits.
    levels: u16,
    /// The lists of all slots.
    lists: Box<[List; LEVELS * LEVEL_SLOTS]>,
    /// Deadline, position and node of each entry of the slot that is being sorted. Empty otherwise; kept for its
    /// memory.
    scratch: Vec<(u64, u32, u32)>,
    /// How often a node was touched, so that a test can tell linear from quadratic without a stopwatch.
    #[cfg(test)]
    visits: std::cell::Cell<usize>,
}

impl<T: Copy> TimerWheel<T> {
    /// Creates an empty wheel with the cursor at `now`.
    pub(crate) fn new(now: u64) -> TimerWheel<T> {
        TimerWheel {
            nodes: Vec::new(),
            free: NIL,
            len: 0,
            cursor: now >> TICK_BITS,
            in_order: true,
            occupied: [0; LEVELS],
            levels: 0,
            lists: Box::new([List { head: NIL, tail: NIL }; LEVELS * LEVEL_SLOTS]),
            scratch: Vec::new(),
            #[cfg(test)]
            visits: std::cell::Cell::new(0),
        }
    }

    /// Returns the number of entries.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the time of the cursor: everything that was due before has been fired.
    pub(crate) fn at(&self) -> u64 {
        self.cursor << TICK_BITS
    }

    /// Reports whether there is no entry.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry. An entry with a deadline in the past fires at the next `advance`.
    ///
    /// # Panics
    ///
    /// If there are 2^32 - 1 entries.
    #[inline]
    pub(crate) fn insert(&mut self, deadline: u64, payload: T) -> TimerKey {
        // A vacated node is used again, with the generation that its stale keys do not have.
        let index = self.free;
        if index == NIL {
            return self.insert_in_new_node(deadline, payload);
        }
        let node = &mut self.nodes[index as usize];
        self.free = node.next;
        node.deadline = deadline;
        node.payload = payload;
        let generation = node.generation;
        self.len += 1;
        self.place(index);
        TimerKey { index, generation }
    }

    /// Does the work of `insert` when there is no vacant node.
    #[cold]
    fn insert_in_new_node(&mut self, deadline: u64, payload: T) -> TimerKey {
        let index = match u32::try_from(self.nodes.len()) {
            // NIL ends the lists, so no node may have this number.
            Ok(index) if index != NIL => index,
            _ => panic!("a timer wheel holds at most 2^32 - 1 entries"),
        };
        let generation = NonZeroU32::MIN;
        self.nodes.push(Node { deadline, payload, next: NIL, prev: NIL, generation, slot: VACANT });
        self.len += 1;
        self.place(index);
        TimerKey { index, generation }
    }

    /// Removes an entry before it fires. `None` if the entry was fired or cancelled already.
    #[inline]
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let payload = self.find(key)?.payload;
        self.take(key.index);
        Some(payload)
    }

    /// Returns when the entry is due. `None` if the entry was fired or cancelled already.
    #[cfg(test)]
    #[inline]
    pub(crate) fn deadline(&self, key: TimerKey) -> Option<u64> {
        Some(self.find(key)?.deadline)
    }

    /// Returns the node of the key's entry, if the entry is still there.
    #[inline]
    fn find(&self, key: TimerKey) -> Option<&Node<T>> {
        // A vacant node fails this test: no key with its present generation has been given out.
        self.nodes.get(key.index as usize).filter(|node| node.generation == key.generation)
    }

    /// Fires the entries that are due at `now`, at most `budget` of them, with their payload and deadline, in order of
    /// deadline and, among equals, of insertion. Returns whether more are due.
    ///
    /// `fire` runs when the entry is out of the wheel, and its key stale. If `now` is earlier than at a former call,
    /// entries that are not due at `now` do not fire, and nothing else happens.
    #[inline]
    pub(crate) fn advance(&mut self, now: u64, budget: usize, fire: &mut impl FnMut(T, u64)) -> bool {
        let now_tick = (now >> TICK_BITS).max(self.cursor);
        let mut left = budget;
        while let Some(slot) = self.first_slot() {
            let start = self.start_of(slot);
            if start > now_tick {
                break;
            }
            // Above level 0: spread the entries over the lower levels, and look again.
            if slot >= LEVEL_SLOTS {
                self.cascade(slot, start);
                continue;
            }
            // On level 0: the cursor moves there, and the slot is put in order before any entry fires.
            if start != self.cursor {
                self.cursor = start;
                self.in_order = false;
            }
            if !self.in_order {
                self.sort(slot);
            }
            while self.occupied[0] & 1 << slot != 0 {
                let index = self.lists[slot].head;
                let Node { deadline, payload, .. } = self.nodes[index as usize];
                if deadline > now {
                    // The slot is in order, and by wheel-2 all other entries come later.
                    return false;
                }
                if left == 0 {
                    return true;
                }
                left -= 1;
                self.take(index);
                fire(payload, deadline);
            }
        }
        if self.cursor != now_tick {
            // No slot in use starts in between, so wheel-1 holds. The new slot of the cursor is empty, and thus in
            // order.
            self.cursor = now_tick;
            self.in_order = true;
        }
        false
    }

    /// Returns until when one may sleep: at most the earliest deadline, or some time in the past, if that deadline has
    /// passed. `None` if there is no entry.
    ///
    /// The time is exactly the earliest deadline unless more than 16 entries share the first slot; then it may be the
    /// start of that slot. To advance to that time fires no entry, but breaks the slot up (or puts it in order), so
    /// this happens at most once per level and at most once for each 17 entries.
    pub(crate) fn next_wakeup(&self) -> Option<u64> {
        let slot = self.first_slot()?;
        let start = self.start_of(slot);
        let mut index = self.lists[slot].head;
        let mut earliest = self.nodes[index as usize].deadline;
        // A slot in order has its earliest entry first; other slots are searched, if they are short.
        if slot < LEVEL_SLOTS && start == self.cursor && self.in_order {
            return Some(earliest);
        }
        for _ in 0..SCAN {
            self.visit();
            let node = &self.nodes[index as usize];
            earliest = earliest.min(node.deadline);
            index = node.next;
            if index == NIL {
                return Some(earliest);
            }
        }
        Some(start << TICK_BITS)
    }

    /// Returns one of the entries that may be the earliest: the first of the slot that comes first. `None` if there is
    /// none.
    pub(crate) fn first(&self) -> Option<T> {
        let slot = self.first_slot()?;
        Some(self.nodes[self.lists[slot].head as usize].payload)
    }

    /// Returns the slot in use that comes first in time.
    #[inline]
    fn first_slot(&self) -> Option<usize> {
        if self.levels == 0 {
            return None;
        }
        // By wheel-2.
        let level = self.levels.trailing_zeros() as usize;
        Some(level * LEVEL_SLOTS + self.occupied[level].trailing_zeros() as usize)
    }

    /// Returns the first tick of a slot in use.
    #[inline]
    fn start_of(&self, slot: usize) -> u64 {
        let shift = (slot / LEVEL_SLOTS) as u32 * LEVEL_BITS;
        let digit = (slot % LEVEL_SLOTS) as u64;
        // By wheel-1 the slot's digit is the cursor's or a later one, with the cursor's digits above it and zeros
        // below.
        let above = shift + LEVEL_BITS;
        self.cursor >> above << above | digit << shift
    }

    /// Appends a node to the slot of its deadline.
    #[inline]
    fn place(&mut self, index: u32) {
        self.visit();
        let node = &mut self.nodes[index as usize];
        let deadline = node.deadline;
        let tick = (deadline >> TICK_BITS).max(self.cursor);
        // The number of the most significant differing bit; `| 1` makes it 0 if there is none.
        let bit = u64::BITS - 1 - ((tick ^ self.cursor) | 1).leading_zeros();
        let level = (bit / LEVEL_BITS) as usize;
        let digit = (tick >> (level as u32 * LEVEL_BITS)) as usize % LEVEL_SLOTS;
        let slot = level * LEVEL_SLOTS + digit;
        node.slot = slot as u16;
        node.next = NIL;
        // The first node of a slot sets the bits; others go to the end of the list.
        if self.occupied[level] & 1 << digit == 0 {
            self.occupied[level] |= 1 << digit;
            self.levels |= 1 << level;
            node.prev = NIL;
            self.lists[slot] = List { head: index, tail: index };
        } else {
            let last = std::mem::replace(&mut self.lists[slot].tail, index);
            node.prev = last;
            let last = &mut self.nodes[last as usize];
            last.next = index;
            if tick == self.cursor && deadline < last.deadline {
                self.in_order = false;
            }
        }
    }

    /// Takes a node out of its slot and makes it vacant. The keys of its entry are stale from here on.
    #[inline]
    fn take(&mut self, index: u32) {
        // Unlink the node from the list of its slot.
        let Node { next, prev, slot, .. } = self.nodes[index as usize];
        let list = &mut self.lists[usize::from(slot)];
        match prev {
            NIL => list.head = next,
            _ => self.nodes[prev as usize].next = next,
        }
        match next {
            NIL => list.tail = prev,
            _ => self.nodes[next as usize].prev = prev,
        }
        if prev == NIL && next == NIL {
            self.clear_bit(usize::from(slot));
        }
        self.len -= 1;
        let node = &mut self.nodes[index as usize];
        // Vacate the node: a new generation makes the keys stale.
        node.slot = VACANT;
        match node.generation.checked_add(1) {
            // No key has the greatest generation, and no list has a node with it: the node is retired.
            Some(NonZeroU32::MAX) | None => node.generation = NonZeroU32::MAX,
            Some(generation) => {
                node.generation = generation;
                node.next = self.free;
                self.free = index;
            }
        }
    }

    /// Marks a slot as empty.
    #[inline]
    fn clear_bit(&mut self, slot: usize) {
        let level = slot / LEVEL_SLOTS;
        self.occupied[level] &= !(1 << (slot % LEVEL_SLOTS));
        // The bit of an empty level is clear (wheel-4).
        if self.occupied[level] == 0 {
            self.levels &= !(1 << level);
        }
    }

    /// Moves the cursor to the start of a slot above level 0 and the slot's entries to the levels below.
    #[cold]
    fn cascade(&mut self, slot: usize, start: u64) {
        // By wheel-2 all lower levels are empty. So is the new slot of the cursor, and thus in order.
        self.cursor = start;
        self.in_order = true;
        self.clear_bit(slot);
        let mut index = self.lists[slot].head;
        while index != NIL {
            // Read the link first: `place` overwrites it.
            let next = self.nodes[index as usize].next;
            self.place(index);
            index = next;
        }
    }

    /// Puts the slot of the cursor in order of deadline; equal deadlines keep their order.
    #[inline]
    fn sort(&mut self, slot: usize) {
        self.in_order = true;
        let List { head, tail } = self.lists[slot];
        // Most ticks have one entry.
        if head != tail && !self.is_sorted(head) {
            self.sort_list(slot);
        }
    }

    /// Reports whether the list from this node on is in order of deadline.
    fn is_sorted(&self, mut index: u32) -> bool {
        let mut previous = 0;
        while index != NIL {
            self.visit();
            let node = &self.nodes[index as usize];
            if node.deadline < previous {
                return false;
            }
            previous = node.deadline;
            index = node.next;
        }
        true
    }

    /// Sorts a slot's list, which is not empty.
    #[cold]
    fn sort_list(&mut self, slot: usize) {
        // A stable sort would allocate each time. With the position as part of the key an unstable sort will do, in
        // memory that is kept.
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut index = self.lists[slot].head;
        while index != NIL {
            self.visit();
            let node = &self.nodes[index as usize];
            scratch.push((node.deadline, scratch.len() as u32, index));
            index = node.next;
        }
        scratch.sort_unstable();
        self.clear_bit(slot);
        for &(_, _, index) in &scratch {
            self.place(index);
        }
        scratch.clear();
        self.scratch = scratch;
    }

    /// Counts, in tests, that a node was touched.
    #[inline(always)]
    fn visit(&self) {
        #[cfg(test)]
        self.visits.set(self.visits.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;
    use std::collections::{BTreeMap, HashMap};

    /// One tick in nanoseconds.
    const TICK: u64 = 1 << TICK_BITS;

    /// How many entries the tests on growth use.
    const MANY: usize = if cfg!(miri) { 2_000 } else { 1_000_000 };

    /// Fires everything that is due and returns it in the order of firing.
    fn fire_all<T: Copy>(wheel: &mut TimerWheel<T>, now: u64) -> Vec<T> {
        let mut fired = Vec::new();
        let more = wheel.advance(now, usize::MAX, &mut |payload, deadline| {
            assert!(deadline <= now, "never early");
            fired.push(payload);
        });
        assert!(!more);
        fired
    }

    /// Checks wheel-1 and wheel-4, the links, the order of the cursor's slot and the count.
    fn check<T: Copy>(wheel: &TimerWheel<T>) {
        let mut len = 0;
        for level in 0..LEVELS {
            assert_eq!(wheel.levels >> level & 1 == 1, wheel.occupied[level] != 0);
            let digit_of_cursor = (wheel.cursor >> (level as u32 * LEVEL_BITS)) as usize % LEVEL_SLOTS;
            for digit in 0..LEVEL_SLOTS {
                if wheel.occupied[level] >> digit & 1 == 0 {
                    continue;
                }
                assert!(digit > digit_of_cursor || (level == 0 && digit == digit_of_cursor));
                let slot = level * LEVEL_SLOTS + digit;
                let (mut index, mut prev) = (wheel.lists[slot].head, NIL);
                while index != NIL {
                    let node = &wheel.nodes[index as usize];
                    assert_eq!((node.prev, usize::from(node.slot)), (prev, slot));
                    len += 1;
                    (prev, index) = (index, node.next);
                }
                assert_eq!(wheel.lists[slot].tail, prev);
                if level == 0 && digit == digit_of_cursor && wheel.in_order {
                    assert!(wheel.is_sorted(wheel.lists[slot].head));
                }
            }
        }
        assert_eq!(len, wheel.len);
    }

    #[test]
    fn a_wheel_behaves_like_a_sorted_map() {
        let mut random = Random::new();
        let (rounds, steps) = if cfg!(miri) { (4, 300) } else { (60, 5_000) };
        for round in 0..rounds {
            let mut now = random.magnitude(60);
            let mut wheel = TimerWheel::new(now);
            // The model: deadline and order of insertion.
            let mut model: BTreeMap<(u64, u64), TimerKey> = BTreeMap::new();
            // Every key there ever was in this round, with its place in the model.
            let mut keys = Vec::new();
            // Some rounds stay within a few ticks, most go over years.
            let reach = [8, 16, 24, 40, 62][round % 5];
            for id in 0..steps {
                match random.below(10) {
                    0..5 => {
                        let distance = random.magnitude(reach);
                        let deadline = match random.below(8) {
                            0 => now.saturating_sub(distance),
                            _ => now.saturating_add(distance),
                        };
                        let key = wheel.insert(deadline, id);
                        model.insert((deadline, id), key);
                        keys.push((key, deadline, id));
                    }
                    5..8 if !keys.is_empty() => {
                        let (key, deadline, id) = keys[random.below(keys.len() as u64) as usize];
                        let alive = model.remove(&(deadline, id)).is_some();
                        assert_eq!(wheel.deadline(key), alive.then_some(deadline));
                        assert_eq!(wheel.cancel(key), alive.then_some(id));
                        assert_eq!(wheel.deadline(key), None);
                    }
                    _ => {
                        now = match random.below(4) {
                            0 => wheel.next_wakeup().unwrap_or(now).max(now),
                            // A clock that goes back must do no harm.
                            1 if random.below(10) == 0 => now.saturating_sub(random.magnitude(reach)),
                            _ => now.saturating_add(random.magnitude(reach)),
                        };
                        let budget = random.magnitude(8) as usize;
                        let mut fired = Vec::new();
                        let more = wheel.advance(now, budget, &mut |id, deadline| fired.push((deadline, id)));
                        assert!(fired.len() <= budget);
                        for entry in fired {
                            assert!(entry.0 <= now, "never early");
                            assert_eq!(model.pop_first().map(|(entry, _)| entry), Some(entry), "in order");
                        }
                        let due = model.first_key_value().is_some_and(|(entry, _)| entry.0 <= now);
                        assert_eq!(more, due, "all that is due, or the budget is used up");
                    }
                }
                assert_eq!((wheel.len(), wheel.is_empty()), (model.len(), model.is_empty()));
                let earliest = model.first_key_value().map(|(entry, _)| entry.0);
                match (wheel.next_wakeup(), earliest) {
                    (Some(wakeup), Some(earliest)) if model.len() <= SCAN => {
                        assert_eq!(wakeup, earliest)
                    }
                    (Some(wakeup), Some(earliest)) => {
                        assert!(wakeup <= earliest || wakeup <= wheel.cursor << TICK_BITS, "never late");
                    }
                    (wakeup, earliest) => assert_eq!(wakeup, earliest),
                }
                if id % 50 == 0 {
                    check(&wheel);
                }
            }
        }
    }

    #[test]
    fn a_timer_never_fires_early() {
        for (start, delay) in [(0, 1), (TICK - 1, 1), (12_345, TICK), (77, 1_000_000_007), (3, u64::MAX - 3)] {
            let mut wheel = TimerWheel::new(start);
            wheel.insert(start + delay, ());
            assert!(fire_all(&mut wheel, start + delay - 1).is_empty());
            assert_eq!(wheel.len(), 1);
            assert_eq!(fire_all(&mut wheel, start + delay).len(), 1);
        }
    }

    #[test]
    fn an_entry_within_the_current_tick_waits_for_its_exact_deadline() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(TICK + 300, 'c');
        wheel.insert(TICK + 100, 'a');
        wheel.insert(TICK + 200, 'b');
        assert!(fire_all(&mut wheel, TICK + 99).is_empty());
        assert_eq!(wheel.next_wakeup(), Some(TICK + 100));
        assert_eq!(fire_all(&mut wheel, TICK + 250), ['a', 'b']);
        wheel.insert(TICK + 260, 'd');
        assert_eq!(fire_all(&mut wheel, TICK + 300), ['d', 'c']);
    }

    #[test]
    fn an_overdue_entry_fires_at_the_next_advance_and_first() {
        let mut wheel = TimerWheel::new(1_000 * TICK);
        wheel.insert(1_000 * TICK, "now");
        wheel.insert(999 * TICK, "late");
        wheel.insert(0, "very late");
        assert_eq!(wheel.next_wakeup(), Some(0));
        assert_eq!(fire_all(&mut wheel, 1_000 * TICK), ["very late", "late", "now"]);
        wheel.insert(5, "late again");
        assert_eq!(fire_all(&mut wheel, 1_000 * TICK), ["late again"]);
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_of_insertion() {
        let mut wheel = TimerWheel::new(0);
        let deadline = 10_000 * TICK + 5;
        wheel.insert(deadline, 0);
        // The first entry starts on a higher level than the later ones; each pair is separated by a cascade.
        for (id, now) in [(1, 9_000 * TICK), (2, 9_990 * TICK), (3, 10_000 * TICK), (4, deadline - 1)] {
            assert!(fire_all(&mut wheel, now).is_empty());
            wheel.insert(deadline, id);
        }
        assert_eq!(fire_all(&mut wheel, deadline), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_budget_is_kept_and_no_client_is_lost_by_it() {
        let mut wheel = TimerWheel::new(0);
        for id in 0..1_000_u64 {
            wheel.insert(id * 1_000, id);
        }
        let mut fired = Vec::new();
        assert!(wheel.advance(500_000, 0, &mut |id, _| fired.push(id)), "501 are due");
        for _ in 0..50 {
            assert!(wheel.advance(500_000, 10, &mut |id, _| fired.push(id)));
        }
        assert_eq!(fired.len(), 500);
        assert!(!wheel.advance(500_000, 10, &mut |id, _| fired.push(id)), "only one was left");
        assert!(fired.into_iter().eq(0..=500));
    }

    #[test]
    fn a_budget_that_is_just_enough_leaves_nothing_due() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(1, ());
        wheel.insert(2, ());
        assert!(!wheel.advance(2, 2, &mut |_, _| ()));
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_stale_key_is_harmless() {
        let mut wheel = TimerWheel::new(0);
        let fired = wheel.insert(1, 'a');
        let cancelled = wheel.insert(1, 'b');
        assert_eq!(wheel.cancel(cancelled), Some('b'));
        assert_eq!(fire_all(&mut wheel, 1), ['a']);
        let new = wheel.insert(2, 'c');
        let newer = wheel.insert(2, 'd');
        for stale in [fired, cancelled] {
            assert!(stale.index == new.index || stale.index == newer.index);
            assert_eq!(wheel.cancel(stale), None);
            assert_eq!(wheel.deadline(stale), None);
        }
        assert_eq!(wheel.len(), 2);
    }

    #[test]
    fn a_node_retires_before_its_generation_wraps() {
        let mut wheel = TimerWheel::new(0);
        let first = wheel.insert(1, 'a');
        wheel.cancel(first);
        wheel.nodes[0].generation = NonZeroU32::new(u32::MAX - 1).unwrap();
        let last = wheel.insert(1, 'b');
        assert_eq!(last.index, 0);
        assert_eq!(wheel.cancel(last), Some('b'));
        assert_eq!(wheel.cancel(last), None);
        assert_eq!(wheel.insert(1, 'c').index, 1);
        assert_eq!(fire_all(&mut wheel, 1), ['c']);
    }

    #[test]
    fn the_end_of_time_is_reached() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(u64::MAX, "last");
        wheel.insert(u64::MAX - 1, "last but one");
        assert_eq!(wheel.next_wakeup(), Some(u64::MAX - 1));
        assert_eq!(fire_all(&mut wheel, u64::MAX - 1), ["last but one"]);
        assert_eq!(fire_all(&mut wheel, u64::MAX), ["last"]);
        wheel.insert(u64::MAX, "beyond");
        assert_eq!(fire_all(&mut wheel, u64::MAX), ["beyond"]);
    }

    #[test]
    fn sleeping_until_the_next_wakeup_reaches_every_entry_in_a_few_steps() {
        let mut random = Random::new();
        let crowds: &[u64] = if cfg!(miri) { &[1, 40] } else { &[1, 16, 17, 300, 50_000] };
        for &crowd in crowds {
            for reach in [10, 20, 36, 63] {
                let mut wheel = TimerWheel::new(0);
                for _ in 0..crowd {
                    wheel.insert(random.magnitude(reach), ());
                }
                let (mut now, mut steps) = (0, 0);
                while let Some(wakeup) = wheel.next_wakeup() {
                    let before = wheel.len();
                    now = wakeup.max(now);
                    let fired = fire_all(&mut wheel, now).len();
                    assert_eq!(fired, before - wheel.len());
                    steps += 1;
                }
                assert!(steps <= 2 * crowd, "{steps} steps for {crowd} entries");
            }
        }
    }

    #[test]
    fn the_next_wakeup_does_not_walk_over_a_crowd() {
        let mut wheel = TimerWheel::new(0);
        for id in 0..100_000 {
            wheel.insert(1 << 40, id);
        }
        wheel.visits.set(0);
        let wakeup = wheel.next_wakeup().unwrap();
        assert!(wakeup <= 1 << 40);
        assert!(wheel.visits.get() <= SCAN);
    }

    #[test]
    fn inserting_and_cancelling_touch_one_node_each() {
        let mut random = Random::new();
        let mut wheel = TimerWheel::new(0);
        let keys: Vec<TimerKey> = (0..MANY).map(|id| wheel.insert(random.magnitude(50), id)).collect();
        for (id, key) in keys.into_iter().enumerate() {
            assert_eq!(wheel.cancel(key), Some(id));
        }
        assert!(wheel.is_empty());
        assert_eq!((wheel.levels, wheel.occupied), (0, [0; LEVELS]));
        assert_eq!(wheel.visits.get(), MANY);
        let nodes = wheel.nodes.capacity();
        for id in 0..MANY {
            wheel.insert(id as u64, id);
        }
        assert_eq!(wheel.nodes.capacity(), nodes, "the steady state does not allocate");
    }

    #[test]
    fn expiry_is_linear_in_the_number_of_entries() {
        let mut random = Random::new();
        // Spread over an hour; all in one tick, in the worst order; all at the same time, far away.
        let deadlines: [&mut dyn FnMut(usize) -> u64; 3] = [
            &mut |_| random.below(3_600_000_000_000),
            &mut |id| (1_000 * TICK).saturating_sub(1 + (id as u64 * TICK / MANY as u64)),
            &mut |_| 1 << 55,
        ];
        for deadline in deadlines {
            let mut wheel = TimerWheel::new(0);
            for id in 0..MANY {
                wheel.insert(deadline(id), id);
            }
            let (mut last, mut fired) = (0, 0);
            while let Some(wakeup) = wheel.next_wakeup() {
                // A small budget must not make the wheel walk over the rest again and again.
                while wheel.advance(wakeup, 100, &mut |_, deadline| {
                    assert!(last <= deadline);
                    (last, fired) = (deadline, fired + 1);
                }) {}
            }
            assert_eq!(fired, MANY);
            assert!(wheel.visits.get() <= 12 * MANY, "{} visits", wheel.visits.get());
        }
    }

    #[test]
    fn a_jump_over_years_costs_no_more_than_a_step() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(1 << 62, ());
        wheel.visits.set(0);
        assert!(fire_all(&mut wheel, (1 << 62) - 1).is_empty());
        assert!(wheel.visits.get() <= LEVELS);
        assert_eq!(fire_all(&mut wheel, 1 << 62).len(), 1);
    }

    #[test]
    fn keys_of_the_living_are_all_different() {
        let mut wheel = TimerWheel::new(0);
        let mut seen = HashMap::new();
        for id in 0..if cfg!(miri) { 100 } else { 1_000_u64 } {
            let key = wheel.insert(id, id);
            assert_eq!(seen.insert((key.index, key.generation), id), None);
            if id % 3 == 0 {
                wheel.cancel(key);
            }
        }
    }
}
