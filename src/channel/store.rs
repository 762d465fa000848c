//! What a channel holds, and which value comes out next.
#![forbid(unsafe_code)]

use std::collections::{BinaryHeap, VecDeque};

use crate::interrupt::no_switch;

/// Values in a channel.
pub(super) enum Store<T> {
    /// The oldest first.
    Fifo(VecDeque<T>),
    /// The newest first.
    Lifo(Vec<T>),
    /// The greatest first.
    Priority(Heap<T>),
}

/// A heap, with what only a maker who knows that `T: Ord` can say. The comparison is foreign code: it must not switch,
/// since another thread would find the store in use.
pub(super) struct Heap<T> {
    /// The values.
    values: BinaryHeap<T>,
    /// Adds one. If the comparison panics the value is in all the same.
    push: fn(&mut BinaryHeap<T>, T),
    /// Takes the greatest out.
    pop: fn(&mut BinaryHeap<T>) -> Option<T>,
}

impl<T: Ord> Heap<T> {
    /// An empty one.
    pub(super) fn new() -> Heap<T> {
        Heap { values: BinaryHeap::new(), push: BinaryHeap::push, pop: BinaryHeap::pop }
    }
}

// Out of line, to keep the other kinds of channels small where they are inlined into their callers.
impl<T> Heap<T> {
    /// Puts a value in.
    #[cold]
    #[inline(never)]
    fn push(&mut self, value: T) {
        no_switch(|| (self.push)(&mut self.values, value));
    }

    /// Takes the greatest out.
    #[cold]
    #[inline(never)]
    fn pop(&mut self) -> Option<T> {
        no_switch(|| (self.pop)(&mut self.values))
    }
}

impl<T> Store<T> {
    /// How many values are in it.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        match self {
            Store::Fifo(values) => values.len(),
            Store::Lifo(values) => values.len(),
            Store::Priority(heap) => heap.values.len(),
        }
    }

    /// Puts a value in.
    #[inline(always)]
    pub(super) fn push(&mut self, value: T) {
        match self {
            Store::Fifo(values) => values.push_back(value),
            Store::Lifo(values) => values.push(value),
            Store::Priority(heap) => heap.push(value),
        }
    }

    /// Takes the next value out.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<T> {
        match self {
            Store::Fifo(values) => values.pop_front(),
            Store::Lifo(values) => values.pop(),
            Store::Priority(heap) => heap.pop(),
        }
    }

    /// Takes out the next value after the first `promised` ones, which belong to others. Where the order is not that of
    /// arrival there is no such thing as "the one that was promised", and any will do.
    #[cold]
    pub(super) fn pop_behind(&mut self, promised: usize) -> Option<T> {
        match self {
            Store::Fifo(values) => values.remove(promised),
            Store::Lifo(_) | Store::Priority(_) => self.pop(),
        }
    }

    /// Takes everything out, for the caller to drop.
    pub(super) fn take(&mut self) -> (VecDeque<T>, Vec<T>) {
        match self {
            Store::Fifo(values) => (std::mem::take(values), Vec::new()),
            Store::Lifo(values) => (VecDeque::new(), std::mem::take(values)),
            Store::Priority(heap) => {
                // `mem::take` would need the `Ord` again.
                (VecDeque::new(), heap.values.drain().collect())
            }
        }
    }
}
