//! Linearizability: is there an order of some calls, each somewhere between its begin and its end, in which one thread
//! alone would have had the same results?
//!
//! ```text
//!   #1   |--- push(1) ---|                      push(1), pop -> 1 and push(2) is such an order: each point lies
//!   #2         |------------ push(2) ------|    within its call
//!   #3                     |- pop -> 1 -|
//!   events  0  1         2 3            4  5
//! ```
//!
//! The search is that of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993): as the next call take one
//! that no other call has ended before; if the model gives another result, take another one; go back where none is
//! left. What it has seen it does not look at again: the calls that are done together with the state that they have
//! led to (Lowe, "Testing for Linearizability", 2017). The question is NP-complete, so the search is for small
//! histories, and gives up in the end.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::hash::Hash;

/// The most pairs of done calls and state that are looked at.
const MOST_SEEN: usize = 1 << 15;

/// When a call was made, in a count of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The number of the event at which the call began.
    pub(crate) began: u64,
    /// The number of the event at which it ended; `None` for a call that never did. Such a call may have had its
    /// effect at any time since, or never.
    pub(crate) ended: Option<u64>,
}

/// What a search has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// An order that explains all results; calls that never ended need not be in it.
    Found(Vec<usize>),
    /// There is none. The longest that explains those that are in it.
    None(Vec<usize>),
    /// There are too many possibilities.
    Unknown,
}

/// Looks for an order of `calls` that explains their results. `apply` carries out the call of a number in a state, and
/// reports whether it has the result that it had.
pub(crate) fn order<S: Clone + Eq + Hash>(calls: &[Span], state: S, apply: impl Fn(&mut S, usize) -> bool) -> Order {
    let mut search = Search { calls, apply, done: vec![0; calls.len().div_ceil(64)], seen: HashSet::new() };
    let mut left = calls.iter().filter(|call| call.ended.is_some()).count();
    // The calls that are taken, and the states before and after each.
    let (mut taken, mut states, mut longest) = (Vec::new(), vec![state], Vec::new());
    let mut from = 0;
    while left > 0 {
        if search.seen.len() > MOST_SEEN {
            return Order::Unknown;
        }
        let next = states.last().and_then(|state| search.next(state, from));
        if let Some((call, state)) = next {
            taken.push(call);
            states.push(state);
            left -= usize::from(calls[call].ended.is_some());
            from = 0;
            if taken.len() > longest.len() {
                longest.clone_from(&taken);
            }
        } else if let Some(call) = taken.pop() {
            // Another one in its place.
            states.pop();
            search.mark(call, false);
            left += usize::from(calls[call].ended.is_some());
            from = call + 1;
        } else {
            return Order::None(longest);
        }
    }
    Order::Found(taken)
}

/// The state of a search.
struct Search<'a, S, F> {
    /// The history that is searched.
    calls: &'a [Span],
    /// Carries out a call.
    apply: F,
    /// A bit for each call that is taken.
    done: Vec<u64>,
    /// What was looked at.
    seen: HashSet<(Vec<u64>, S)>,
}

impl<S: Clone + Eq + Hash, F: Fn(&mut S, usize) -> bool> Search<'_, S, F> {
    /// Takes the next call that can follow in `state`, from number `from` on, and that leads to something new. Returns
    /// its number, and the state after it.
    fn next(&mut self, state: &S, from: usize) -> Option<(usize, S)> {
        let open = (0..self.calls.len()).filter(|call| !self.is_done(*call));
        let first_end = open.filter_map(|call| self.calls[call].ended).min().unwrap_or(u64::MAX);
        for call in from..self.calls.len() {
            if self.is_done(call) || self.calls[call].began > first_end {
                continue;
            }
            let mut after = state.clone();
            if (self.apply)(&mut after, call) {
                self.mark(call, true);
                if self.seen.insert((self.done.clone(), after.clone())) {
                    return Some((call, after));
                }
                self.mark(call, false);
            }
        }
        None
    }

    /// Reports whether a call is taken.
    fn is_done(&self, call: usize) -> bool {
        self.done[call / 64] & (1 << (call % 64)) != 0
    }

    /// Notes whether a call is taken.
    fn mark(&mut self, call: usize, done: bool) {
        let (word, bit) = (&mut self.done[call / 64], 1 << (call % 64));
        *word = if done { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::random::Random;

    /// A call of a register: a value to write, or the value that was read.
    #[derive(Clone, Copy, Debug)]
    enum Call {
        Write(u32),
        Read(u32),
    }

    /// Looks for an order of calls of a register that is 0 at first.
    fn register(calls: &[(u64, Option<u64>, Call)]) -> Order {
        let spans: Vec<_> = calls.iter().map(|&(began, ended, _)| Span { began, ended }).collect();
        order(&spans, 0, |state, call| match calls[call].2 {
            Call::Write(value) => {
                *state = value;
                true
            }
            Call::Read(value) => *state == value,
        })
    }

    #[test]
    fn calls_that_overlap_may_have_either_order() {
        let write = (0, Some(3), Call::Write(1));
        assert_eq!(register(&[write, (1, Some(2), Call::Read(0))]), Order::Found(vec![1, 0]));
        assert_eq!(register(&[write, (1, Some(2), Call::Read(1))]), Order::Found(vec![0, 1]));
        assert_eq!(register(&[]), Order::Found(vec![]));
    }

    #[test]
    fn a_call_that_has_ended_comes_before_one_that_begins_then() {
        assert_eq!(register(&[(0, Some(1), Call::Write(1)), (2, Some(3), Call::Read(0))]), Order::None(vec![0]));
        // New, then old again: two reads that do not overlap.
        let calls = [(0, Some(5), Call::Write(1)), (1, Some(2), Call::Read(1)), (3, Some(4), Call::Read(0))];
        assert_eq!(register(&calls), Order::None(vec![0, 1]));
    }

    #[test]
    fn a_call_that_never_ended_has_an_effect_or_none() {
        let write = (0, None, Call::Write(1));
        for value in [0, 1] {
            assert!(matches!(register(&[write, (1, Some(2), Call::Read(value))]), Order::Found(_)));
        }
        assert!(matches!(register(&[write, (1, Some(2), Call::Read(7))]), Order::None(_)));
    }

    #[test]
    fn the_search_agrees_with_all_orders_tried_one_by_one() {
        let mut random = Random::new(5);
        let mut found = [0; 2];
        for _ in 0..2_000 {
            // Up to five calls with begins and ends at drawn places.
            let count = 1 + random.below(5) as usize;
            let calls: Vec<_> = (0..count)
                .map(|_| {
                    let began = random.below(20);
                    let call = match random.below(2) {
                        0 => Call::Write(random.below(2) as u32),
                        _ => Call::Read(random.below(2) as u32),
                    };
                    (2 * began, Some(2 * (began + random.below(8)) + 1), call)
                })
                .collect();
            let is_found = matches!(register(&calls), Order::Found(_));
            assert_eq!(is_found, any_order(&calls, &mut Vec::new()), "{calls:?}");
            found[usize::from(is_found)] += 1;
        }
        assert!(found.iter().all(|count| *count > 200), "{found:?}");
    }

    /// Reports whether some permutation that begins with `taken` explains all calls.
    fn any_order(calls: &[(u64, Option<u64>, Call)], taken: &mut Vec<usize>) -> bool {
        let mut value = 0;
        for (at, call) in taken.iter().enumerate() {
            let is_before = |later: &usize| calls[*later].1 < Some(calls[*call].0);
            if taken[at + 1..].iter().any(is_before) {
                return false;
            }
            match calls[*call].2 {
                Call::Write(new) => value = new,
                Call::Read(read) if read != value => return false,
                Call::Read(_) => {}
            }
        }
        if taken.len() == calls.len() {
            return true;
        }
        for call in 0..calls.len() {
            if !taken.contains(&call) {
                taken.push(call);
                let is_found = any_order(calls, taken);
                taken.pop();
                if is_found {
                    return true;
                }
            }
        }
        false
    }

    #[test]
    fn a_search_that_would_take_too_long_gives_up() {
        // All at once, and one read of what none has written: each subset of the writes is looked at.
        let mut calls: Vec<_> = (0..24).map(|value| (value, Some(100), Call::Write(value as u32))).collect();
        calls.push((50, Some(60), Call::Read(99)));
        assert_eq!(register(&calls), Order::Unknown);
    }
}
