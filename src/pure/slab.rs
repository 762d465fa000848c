//! Values under keys that are never reused: a late event cannot hit a new owner.
//!
//! A slot of the slab is used again, but its *generation* is not. A key names both, so the key of a removed value
//! matches nothing for ever after.
//!
//! ```text
//!     slot:        0                1                 2
//!              +--------------+ +---------------+ +---------------+
//!              | generation 1 | | generation 4  | | generation 2  |
//!              | value        | | vacant: 2 ----->| vacant: -     |      free = 1
//!              +--------------+ +---------------+ +---------------+
//!
//!     token of a key:   63       generation       32 31         slot         0
//! ```
//!
//! States of a slot, `g` being its generation:
//!
//! ```text
//!     VACANT(g) --insert--> OCCUPIED(g) --remove--> VACANT(g + 1)    if g + 1 < u32::MAX
//!                                       --remove--> RETIRED          if g + 1 = u32::MAX: in no list, never used again
//! ```
//!
//! Invariant slab-1: keys are given out with the generations `1 ..= u32::MAX - 1` only, each at most once per slot.
//!
//! Hence no token has an upper half of all zeros or all ones: 0, `u64::MAX` and `u64::MAX - 1` are no tokens and free
//! for other uses. A retired slot costs its memory and nothing else, once in 4 294 967 294 removals of that one slot.

#![forbid(unsafe_code)]

/// The end of the free list. No slot has this number, see `insert`.
const NONE: u32 = u32::MAX;

/// The generation of a slot that is used up. No key has this generation.
const RETIRED: u32 = u32::MAX;

/// A name for one value for as long as the value is in the slab, and for nothing afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// The number of the slot.
    index: u32,
    /// The generation that the slot had when the value came in.
    generation: u32,
}

impl Key {
    /// Returns the key as one word, for example for epoll's user data: the generation above, the slot below.
    #[inline]
    pub(crate) fn to_token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Returns the key with this token. Any word will do: a word that `to_token` never returned makes a key that
    /// matches nothing.
    #[inline]
    pub(crate) fn from_token(token: u64) -> Key {
        Key { index: token as u32, generation: (token >> 32) as u32 }
    }
}

/// A place for one value.
struct Slot<T> {
    /// The generation in the key of the present value, or, if vacant, of the next one.
    generation: u32,
    /// The value, or the number of the next vacant slot.
    content: Content<T>,
}

/// The content of a slot.
enum Content<T> {
    /// The slot holds this value.
    Occupied(T),
    /// The slot is vacant. The number is that of the next slot of the free list, or `NONE`; a retired slot has `NONE`
    /// and is in no list.
    Vacant(u32),
}

/// A growable set of values with generational keys.
pub(crate) struct Slab<T> {
    /// All slots there ever were. The vector never shrinks, or the generations would be lost.
    slots: Vec<Slot<T>>,
    /// The slot that was vacated last, or `NONE`. This slot is the first to be used again, while it is warm in the
    /// cache.
    free: u32,
    /// The number of occupied slots.
    len: usize,
}

impl<T> Slab<T> {
    /// Creates an empty slab, which owns no memory before the first insertion.
    pub(crate) const fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: NONE, len: 0 }
    }

    /// Inserts a value and returns its key.
    ///
    /// # Panics
    /// If 2^32 - 1 slots are occupied (or retired).
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Key {
        // The slot vacated last is used first, while it is warm in the cache.
        let index = if self.free == NONE { self.add_slot() } else { self.free };
        let slot = &mut self.slots[index as usize];
        let Content::Vacant(next) = slot.content else {
            unreachable!("the free list holds vacant slots only");
        };
        slot.content = Content::Occupied(value);
        self.free = next;
        self.len += 1;
        Key { index, generation: slot.generation }
    }

    /// Adds a vacant slot that is in no list and returns its number.
    #[cold]
    fn add_slot(&mut self) -> u32 {
        let index = match u32::try_from(self.slots.len()) {
            Ok(index) if index != NONE => index,
            _ => panic!("a slab holds at most 2^32 - 1 values"),
        };
        self.slots.push(Slot { generation: 1, content: Content::Vacant(NONE) });
        index
    }

    /// Removes the value of `key` and returns it. `None` if the value was removed before.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation || matches!(slot.content, Content::Vacant(_)) {
            return None;
        }
        // By slab-1 the generation is below `RETIRED`, so the sum does not overflow.
        slot.generation += 1;
        // A retired slot goes into no list.
        let next = if slot.generation == RETIRED { NONE } else { std::mem::replace(&mut self.free, key.index) };
        self.len -= 1;
        match std::mem::replace(&mut slot.content, Content::Vacant(next)) {
            Content::Occupied(value) => Some(value),
            Content::Vacant(_) => None,
        }
    }

    /// Returns the value of `key`, if the value is still there.
    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize)? {
            Slot { generation, content: Content::Occupied(value) } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Returns the value of `key`, if the value is still there.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize)? {
            Slot { generation, content: Content::Occupied(value) } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Returns all keys and values, in the order of the slots, which callers must not rely on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        // `slots.len()` fits into 32 bits, so the zip is complete.
        (0..).zip(&self.slots).filter_map(|(index, slot)| match &slot.content {
            Content::Occupied(value) => {
                let generation = slot.generation;
                Some((Key { index, generation }, value))
            }
            Content::Vacant(_) => None,
        })
    }

    /// Returns the number of values.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Reports whether the slab is empty.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;
    use std::collections::HashMap;

    #[test]
    fn a_key_of_a_removed_value_never_matches_the_next_occupant() {
        let mut slab = Slab::new();
        let old = slab.insert("old");
        assert_eq!(slab.remove(old), Some("old"));
        assert_eq!(slab.get(old), None, "a vacant slot matches nothing");
        let new = slab.insert("new");
        assert_eq!(new.index, old.index, "the slot is used again");
        assert_ne!(new, old);
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&"new"));
    }

    #[test]
    fn a_slab_behaves_like_a_map_with_fresh_keys() {
        let mut random = Random::new();
        let mut slab = Slab::new();
        let mut model = HashMap::new();
        let mut keys: Vec<Key> = Vec::new();
        for step in 0..if cfg!(miri) { 1_000 } else { 100_000_u64 } {
            if keys.is_empty() || random.below(100) < 40 {
                let key = slab.insert(step);
                assert_eq!(model.insert(key, step), None, "the key is fresh");
                keys.push(key);
            } else {
                // The keys of removed values stay in the list, so this asks for them as well.
                let key = keys[random.below(keys.len() as u64) as usize];
                match random.below(3) {
                    0 => assert_eq!(slab.remove(key), model.remove(&key)),
                    1 => assert_eq!(slab.get(key), model.get(&key)),
                    _ => assert_eq!(slab.get_mut(key), model.get_mut(&key)),
                }
            }
            assert_eq!(slab.len(), model.len());
            assert_eq!(slab.is_empty(), model.is_empty());
        }
        assert_eq!(slab.iter().count(), model.len());
        assert!(slab.iter().all(|(key, value)| model.get(&key) == Some(value)));
    }

    #[test]
    fn a_slot_retires_before_its_generation_wraps() {
        let mut slab = Slab::new();
        let first = slab.insert(1);
        slab.remove(first);
        slab.slots[0].generation = u32::MAX - 1;
        let last = slab.insert(2);
        assert_eq!((last.index, last.generation), (0, u32::MAX - 1));
        assert_eq!(slab.remove(last), Some(2));
        for value in 3..10 {
            assert_ne!(slab.insert(value).index, 0);
        }
        let forged = Key::from_token(u64::from(RETIRED) << 32);
        assert_eq!(slab.get(forged), None);
        assert_eq!(slab.remove(forged), None);
        assert_eq!(slab.len(), 7);
    }

    #[test]
    fn a_token_is_a_key_in_other_clothes() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..10).map(|value| slab.insert(value)).collect();
        for key in keys {
            assert_eq!(Key::from_token(key.to_token()), key);
        }
        assert_eq!(Key::from_token(7 << 32 | 9), Key { index: 9, generation: 7 });
    }

    #[test]
    fn the_reserved_tokens_belong_to_no_key() {
        let mut slab = Slab::new();
        let key = slab.insert(());
        slab.remove(key);
        // The greatest generation there is gives the greatest token, whatever the slot.
        slab.slots[0].generation = RETIRED - 1;
        let greatest = slab.insert(()).to_token() | u64::from(u32::MAX);
        assert!(greatest < u64::MAX - 1);
        for token in [0, u64::MAX, u64::MAX - 1] {
            assert_eq!(slab.get(Key::from_token(token)), None);
            assert_eq!(slab.remove(Key::from_token(token)), None);
        }
    }
}
