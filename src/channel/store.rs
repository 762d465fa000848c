//! What a channel holds, and which value comes out next.
#![forbid(unsafe_code)]

use std::collections::{BinaryHeap, VecDeque};

use crate::interrupt::no_switch;

/// Values in a channel.
pub(super) struct Store<T> {
    /// The oldest first; empty for channels of another order.
    fifo: VecDeque<T>,
    /// The values of channels of another order.
    other: Option<Box<Other<T>>>,
}

/// See [`Store`].
enum Other<T> {
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

// Out of line, to keep the store small where it is inlined into its callers.
impl<T> Other<T> {
    /// How many values are in it.
    #[cold]
    #[inline(never)]
    fn len(&self) -> usize {
        match self {
            Other::Lifo(values) => values.len(),
            Other::Priority(heap) => heap.values.len(),
        }
    }

    /// Puts a value in.
    #[cold]
    #[inline(never)]
    fn push(&mut self, value: T) {
        match self {
            Other::Lifo(values) => values.push(value),
            Other::Priority(heap) => no_switch(|| (heap.push)(&mut heap.values, value)),
        }
    }

    /// Takes the next value out.
    #[cold]
    #[inline(never)]
    fn pop(&mut self) -> Option<T> {
        match self {
            Other::Lifo(values) => values.pop(),
            Other::Priority(heap) => no_switch(|| (heap.pop)(&mut heap.values)),
        }
    }
}

impl<T> Store<T> {
    /// An empty one, the oldest first.
    pub(super) fn fifo() -> Store<T> {
        Store { fifo: VecDeque::new(), other: None }
    }

    /// An empty one, the newest first.
    pub(super) fn lifo() -> Store<T> {
        Store { fifo: VecDeque::new(), other: Some(Box::new(Other::Lifo(Vec::new()))) }
    }

    /// An empty one, the greatest first.
    pub(super) fn priority() -> Store<T>
    where
        T: Ord,
    {
        let heap = Heap { values: BinaryHeap::new(), push: BinaryHeap::push, pop: BinaryHeap::pop };
        Store { fifo: VecDeque::new(), other: Some(Box::new(Other::Priority(heap))) }
    }

    /// How many values are in it.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        match &self.other {
            None => self.fifo.len(),
            Some(other) => other.len(),
        }
    }

    /// Puts a value in.
    #[inline(always)]
    pub(super) fn push(&mut self, value: T) {
        match &mut self.other {
            None => self.fifo.push_back(value),
            Some(other) => other.push(value),
        }
    }

    /// Takes the next value out.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<T> {
        match &mut self.other {
            None => self.fifo.pop_front(),
            Some(other) => other.pop(),
        }
    }

    /// Takes out the next value after the first `promised` ones, which belong to others. Where the order is not that of
    /// arrival there is no such thing as "the one that was promised", and any will do.
    #[cold]
    #[inline(never)]
    pub(super) fn pop_behind(&mut self, promised: usize) -> Option<T> {
        match &mut self.other {
            None => self.fifo.remove(promised),
            Some(other) => other.pop(),
        }
    }

    /// Takes everything out, for the caller to drop.
    pub(super) fn take(&mut self) -> (VecDeque<T>, Vec<T>) {
        let others = match self.other.as_deref_mut() {
            None => Vec::new(),
            Some(Other::Lifo(values)) => std::mem::take(values),
            // `mem::take` would need the `Ord` again.
            Some(Other::Priority(heap)) => heap.values.drain().collect(),
        };
        (std::mem::take(&mut self.fifo), others)
    }
}
