//! The timetable: when each request is due, and how late its answer is. Pure: the clock is a number that the caller
//! passes in, nanoseconds from any beginning.
//!
//! ```text
//!   due       |     |     |     |     |     |        fixed beforehand, on lanes in turn
//!   sent      |     |                 |||   |        a lane whose server stalls sends late ..
//!   latency   |-|   |-----------------|              .. but each is counted from the moment it was due
//!                         |-----------|
//!                               |-----|
//! ```
//!
//! A driver that counts from the moment of sending asks nothing while the server stalls, and so sees one slow answer
//! where users see many. That is coordinated omission; here it cannot happen.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// A second, in the unit of this file.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Fixed moments, evenly spread.
#[derive(Debug)]
pub(crate) struct Timetable {
    /// The first moment.
    start: u64,
    /// Moments a second.
    rate: f64,
    /// How many moments there are.
    total: u64,
    /// The number of the next moment that was not taken.
    next: u64,
}

impl Timetable {
    /// Makes a timetable of `rate` moments a second, for so many seconds, but of no more than `most`.
    pub(crate) fn new(start: u64, rate: f64, seconds: f64, most: u64) -> Timetable {
        Timetable { start, rate, total: ((rate * seconds).round() as u64).clamp(1, most), next: 0 }
    }

    /// Returns when the moment of this number is. From the number, not from the moment before: nothing adds up.
    fn moment(&self, number: u64) -> u64 {
        self.start + (number as f64 * SECOND as f64 / self.rate) as u64
    }

    /// Returns the moment after those taken; `None` at the end.
    pub(crate) fn next_due(&self) -> Option<u64> {
        (self.next < self.total).then(|| self.moment(self.next))
    }

    /// Takes the next moment, with its number, if it has come.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<(u64, u64)> {
        let due = self.next_due().filter(|&due| due <= now)?;
        self.next += 1;
        Some((self.next - 1, due))
    }

    /// Returns how many moments there are.
    #[cfg(test)]
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// One connection: at most one request is on its way, and those that are due meanwhile wait in their order.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// When the requests that were not sent yet were due.
    waiting: VecDeque<u64>,
    /// When the request that is on its way was due.
    on_its_way: Option<u64>,
}

impl Lane {
    /// Enters a request that is due at this moment.
    pub(crate) fn enter(&mut self, due: u64) {
        self.waiting.push_back(due);
    }

    /// Begins the next request if there is one and none is on its way; says whether the caller has to send one.
    pub(crate) fn begin(&mut self) -> bool {
        if self.on_its_way.is_none() {
            self.on_its_way = self.waiting.pop_front();
            return self.on_its_way.is_some();
        }
        false
    }

    /// Ends the request that is on its way; returns how long after its due moment that is. `None` if there is none: an
    /// answer that was not asked for.
    pub(crate) fn answered(&mut self, now: u64) -> Option<u64> {
        self.on_its_way.take().map(|due| now.saturating_sub(due))
    }

    /// Gives up all that has no answer: how long each of them has been due.
    pub(crate) fn give_up(&mut self, now: u64) -> impl Iterator<Item = u64> + '_ {
        self.on_its_way.take().into_iter().chain(self.waiting.drain(..)).map(move |due| now.saturating_sub(due))
    }

    /// Reports whether nothing waits and nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.on_its_way.is_none() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Latencies;

    const MICROSECOND: u64 = 1_000;
    const MILLISECOND: u64 = 1_000_000;

    /// Drives one lane against a server of which the answers take `service`, but which does nothing from `stall` on for
    /// as long as told. Returns the latencies, and the times from sending to answer.
    fn drive(rate: f64, seconds: f64, service: u64, stall: (u64, u64)) -> (Vec<u64>, Vec<u64>) {
        let mut timetable = Timetable::new(0, rate, seconds, u64::MAX);
        let mut lane = Lane::default();
        let (mut latencies, mut from_sending) = (Vec::new(), Vec::new());
        let mut now = 0;
        loop {
            while let Some((_, due)) = timetable.take_due(now) {
                lane.enter(due);
            }
            if lane.begin() {
                // The answer comes after the service, which begins after the stall if it would fall into it.
                let begins = if (stall.0..stall.0 + stall.1).contains(&now) { stall.0 + stall.1 } else { now };
                let answer = begins + service;
                from_sending.push(answer - now);
                now = answer;
                latencies.push(lane.answered(now).expect("one is on its way"));
            } else {
                match timetable.next_due() {
                    Some(due) => now = due,
                    None => return (latencies, from_sending),
                }
            }
        }
    }

    #[test]
    fn moments_are_evenly_spread_and_do_not_drift() {
        let mut timetable = Timetable::new(7, 3.0, 1000.0, u64::MAX);
        assert_eq!(timetable.total(), 3000);
        let taken: Vec<_> = std::iter::from_fn(|| timetable.take_due(u64::MAX)).collect();
        assert_eq!(taken.len(), 3000);
        for (number, due) in taken {
            assert!(due.abs_diff(7 + number * SECOND / 3) <= 1, "{number} is due at {due}");
        }
        assert_eq!(timetable.next_due(), None);
    }

    #[test]
    fn no_moment_is_taken_before_it_has_come_and_there_are_no_more_than_allowed() {
        let mut timetable = Timetable::new(100, 1000.0, 60.0, 2);
        assert_eq!(timetable.take_due(99), None);
        assert_eq!(timetable.take_due(100), Some((0, 100)));
        assert_eq!(timetable.take_due(100), None);
        assert_eq!(timetable.take_due(100 + MILLISECOND), Some((1, 100 + MILLISECOND)));
        assert_eq!(timetable.take_due(u64::MAX), None);
    }

    #[test]
    fn a_stall_of_100_ms_counts_for_each_request_that_was_due_in_it() {
        // A thousand requests a second for ten seconds; the server answers in 10 us, but stalls once, from the very
        // moment at which the request 5000 is due.
        let (latencies, _) = drive(1000.0, 10.0, 10 * MICROSECOND, (5 * SECOND, 100 * MILLISECOND));
        assert_eq!(latencies.len(), 10_000);
        // The request that is due i ms after the beginning waits until the stall is over, then for those before it.
        let late: Vec<_> = latencies.iter().copied().filter(|&latency| latency > 10 * MICROSECOND).collect();
        let expected: Vec<_> = (0..=100).map(|i| (100 - i) * MILLISECOND + (i + 1) * 10 * MICROSECOND).collect();
        // The last ones are due when the stall is over, and wait for nothing but those before them.
        assert_eq!(late[..101], expected);
        assert!(late[101..].iter().all(|&latency| latency < MILLISECOND + 11 * MICROSECOND), "{:?}", &late[101..]);
        // Of ten thousand, ten are above p99.9: those due in the first ten milliseconds of the stall.
        let mut counted = Latencies::default();
        latencies.iter().for_each(|&latency| counted.record(latency));
        let p999 = counted.at(99.9);
        assert!((89 * MILLISECOND..=92 * MILLISECOND).contains(&p999), "p99.9 is {p999} ns");
        assert_eq!(counted.count(), 10_000);
        assert!(counted.max() >= 100 * MILLISECOND);
    }

    #[test]
    fn from_the_moment_of_sending_the_same_stall_would_be_one_slow_request() {
        let (_, from_sending) = drive(1000.0, 10.0, 10 * MICROSECOND, (5 * SECOND, 100 * MILLISECOND));
        assert_eq!(from_sending.iter().filter(|&&latency| latency > MILLISECOND).count(), 1);
        let mut counted = Latencies::default();
        from_sending.iter().for_each(|&latency| counted.record(latency));
        assert!(counted.at(99.9) < MILLISECOND);
    }

    #[test]
    fn a_lane_keeps_the_order_and_gives_up_with_the_time_that_passed() {
        let mut lane = Lane::default();
        assert!(!lane.begin());
        [10, 20, 30].into_iter().for_each(|due| lane.enter(due));
        assert!(lane.begin());
        assert!(!lane.begin(), "one is on its way");
        assert_eq!(lane.answered(15), Some(5));
        assert_eq!(lane.answered(15), None, "an answer that was not asked for");
        assert!(lane.begin());
        assert_eq!(lane.give_up(100).collect::<Vec<_>>(), [80, 70]);
        assert!(lane.is_idle());
    }
}
