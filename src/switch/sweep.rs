//! The sweep: gives back the stack pages of deep calls that are over, while their thread waits.
//!
//! ```text
//!              a fiber ran, MIN_PAUSE is over, and         all slots visited
//!              MIN_FAULTS page faults since a walk      .------------------.
//!   REST ---------------------------------------------> WALK               |
//!    ^ |                                                                   |
//!    | |  a fiber ran or a visit is due, and slots were put off            |
//!    | `----------------------------------------------> AGAIN --.          |
//!    `----------------------------------------------------------+----------'
//! ```
//!
//! A visit looks at one slot, and the state of its fiber says what can be given back:
//!
//! | fiber | what is given back | and then |
//! |---|---|---|
//! | parked for [`MIN_WAIT`] | all below its frames | settled |
//! | the same, with more than [`DEEP`] of frames | the same | put off: the fiber will return from the deep frames |
//! | parked since a moment ago | nothing | put off: if the fiber parks again and again, its pages are in use |
//! | runnable, or with a message | nothing | put off |
//! | in an explicit switch | nothing: where the frames end is not known | settled |
//! | finished, the result is not fetched yet | all but [`KEEP_PAGES`] at the top | settled |
//! | none: the slot is free | the same | settled |
//!
//! *Which fiber had a deep call?* No record is kept: that would cost each call or each switch something. But a stack
//! gets deeper than at the last visit only by touching pages that are not there, and the kernel counts such page
//! faults for each OS thread. As long as the count stands still there is nothing to find beyond the slots that were
//! *put off*. So a server in its steady state pays one getrusage(2) in [`MIN_PAUSE`], and the visits of threads that
//! it keeps ready.
//!
//! A hub that falls asleep wakes up for a walk in progress, and for slots that were put off because of the time;
//! after that no more, until a fiber runs again.
//!
//! * Invariant sweep-1: pages are taken only from a PARKED fiber, below what fiber-5 says that the fiber needs, and
//!   from the stack of a FINISHED fiber or of none. Upheld by `visit`. Nothing runs on this OS thread between the
//!   look at the state and the discarding.
#![allow(unsafe_code)]

use super::fiber::Fiber;
use super::stack::Slot;
use super::stack_pool::{KEEP_PAGES, StackPool, Walk};
use super::state::State;
use crate::sys::clock::monotonic_ns;
use crate::sys::mmap::{page_faults, page_size};

/// How long a thread must have waited in one call before its pages are taken, in nanoseconds.
const MIN_WAIT: u64 = 1_000_000_000;

/// The least time from the end of a round to the beginning of the next, in nanoseconds.
const MIN_PAUSE: u64 = 2_000_000_000;

/// The pause after a round is at least so many times as long as the round, so that rounds cost a small part of the
/// time at most. Slots that a walk has put off because of the time are visited after `MIN_PAUSE` all the same: the
/// walk and that visit count as one round.
const IDLE_FACTOR: u64 = 64;

/// The time between two steps of a round, in nanoseconds.
const STEP: u64 = 4_000_000;

/// The number of slots visited in a step: few enough that fibers do not wait long, even if each slot has much to give
/// back.
const VISITS_PER_STEP: usize = 256;

/// The number of page faults since the last walk that makes another walk worthwhile.
const MIN_FAULTS: u64 = 16;

/// The number of bytes of frames above which a parked thread is visited again later.
const DEEP: usize = 32 * 1024;

/// What the sweep is doing: see the picture above.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The sweep rests until the next round.
    Rest,
    /// A walk visits all slots, and has come to this position.
    Walk(Walk),
    /// A round visits the slots that were put off, and has come to this index.
    Again(usize),
}

/// The result of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    /// Nothing more can be taken until the stack grows again.
    Settled,
    /// More may be taken after a fiber has run.
    Later,
    /// More may be taken after some time.
    Young,
}

/// The sweep of one OS thread's stacks.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// What the sweep is doing.
    phase: Phase,
    /// When the next step or the next round is due, in monotonic nanoseconds.
    next: u64,
    /// The number of page faults of this OS thread at the beginning of the last walk.
    faults: u64,
    /// Whether a fiber has run since the last round began.
    active: bool,
    /// Whether a slot was put off because of the time.
    young: bool,
    /// The slots that were put off; the fiber in one may have ended meanwhile.
    put_off: Vec<Slot>,
    /// The nanoseconds that this round has taken, together with the round before if that left slots for the time's
    /// sake.
    spent: u64,
}

impl Sweep {
    /// Creates a sweep that has visited nothing yet.
    pub(crate) fn new() -> Sweep {
        Sweep { phase: Phase::Rest, next: 0, faults: 0, active: true, young: false, put_off: Vec::new(), spent: 0 }
    }

    /// Notes that a fiber will run.
    #[inline]
    pub(crate) fn note_activity(&mut self) {
        self.active = true;
    }

    /// Returns when [`tend`](Self::tend) will have something to do; `None` if never, as long as no fiber runs.
    #[inline]
    pub(crate) fn due_at(&self) -> Option<u64> {
        (self.active || self.young || !matches!(self.phase, Phase::Rest)).then_some(self.next)
    }

    /// Does the step that is due at `now`, in monotonic nanoseconds.
    #[inline]
    pub(crate) fn tend(&mut self, pool: &StackPool, now: u64) {
        if self.due_at().is_some_and(|at| at <= now) {
            self.step(pool, now);
        }
    }

    /// Gives back all pages that can be given back at once, however short a time the fibers have waited.
    pub(crate) fn all(pool: &StackPool) {
        let mut walk = Walk::default();
        while let Some(slot) = pool.next_with_pages(&mut walk) {
            visit(pool, slot, u64::MAX);
        }
    }

    /// Does the work of [`tend`](Self::tend) when a step is due.
    #[cold]
    #[inline(never)]
    fn step(&mut self, pool: &StackPool, now: u64) {
        if matches!(self.phase, Phase::Rest) && !self.begin() {
            self.next = now.saturating_add(MIN_PAUSE);
            return;
        }
        // Visit a few slots.
        let start = monotonic_ns();
        let is_walk = matches!(self.phase, Phase::Walk(_));
        let done = match self.phase {
            Phase::Rest => true,
            Phase::Walk(walk) => self.walk(pool, walk, now),
            Phase::Again(at) => self.visit_again(pool, at, now),
        };
        // Plan the next step, or the next round if this one is over.
        let end = monotonic_ns();
        self.spent = self.spent.saturating_add(end - start);
        if done {
            self.phase = Phase::Rest;
            let share = if is_walk && self.young { 0 } else { self.spent.saturating_mul(IDLE_FACTOR) };
            self.next = end.saturating_add(share.max(MIN_PAUSE));
        } else {
            self.next = end.saturating_add(STEP);
        }
    }

    /// Begins a round, if there is anything to find. Reports whether there is.
    fn begin(&mut self) -> bool {
        let spent = if self.young { self.spent } else { 0 };
        (self.active, self.young, self.spent) = (false, false, spent);
        // Enough page faults: some stack may have grown, so look at all. Otherwise only those that were put off remain.
        let faults = page_faults();
        if faults.saturating_sub(self.faults) >= MIN_FAULTS {
            self.faults = faults;
            self.put_off.clear();
            self.phase = Phase::Walk(Walk::default());
        } else if !self.put_off.is_empty() {
            self.phase = Phase::Again(0);
        }
        !matches!(self.phase, Phase::Rest)
    }

    /// Does one step of a walk. Reports whether it was the last one.
    fn walk(&mut self, pool: &StackPool, mut walk: Walk, now: u64) -> bool {
        for _ in 0..VISITS_PER_STEP {
            let Some(slot) = pool.next_with_pages(&mut walk) else { return true };
            let found = visit(pool, slot, now);
            self.young |= found == Visit::Young;
            // More may be taken later: this slot is visited again after the walk.
            if found != Visit::Settled {
                self.put_off.push(slot);
            }
        }
        self.phase = Phase::Walk(walk);
        false
    }

    /// Does one step through the slots that were put off. Reports whether it was the last one.
    fn visit_again(&mut self, pool: &StackPool, mut at: usize, now: u64) -> bool {
        for _ in 0..VISITS_PER_STEP {
            let Some(&slot) = self.put_off.get(at) else { return true };
            let found = visit(pool, slot, now);
            self.young |= found == Visit::Young;
            if found == Visit::Settled {
                // The last slot takes this place, and is visited next.
                self.put_off.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.phase = Phase::Again(at);
        false
    }
}

/// Gives back the pages that the fiber in `slot` does not need any more.
fn visit(pool: &StackPool, slot: Slot, now: u64) -> Visit {
    // SAFETY: the slot is one of this pool's.
    let Some(fiber) = (unsafe { Fiber::in_slot(slot) }) else {
        // SAFETY: sweep-1: there is no fiber, and the next one begins at the top.
        unsafe { pool.discard_below(slot, slot.end() - KEEP_PAGES * page_size()) };
        return Visit::Settled;
    };
    match fiber.state.get() {
        // Parked long enough: the frames that it will return to lie above `unused`.
        State::Parked if fiber.since.get().saturating_add(MIN_WAIT) <= now => {
            let unused = fiber.unused_below();
            // SAFETY: sweep-1, by fiber-5.
            unsafe { pool.discard_below(slot, unused) };
            if slot.top() - unused > DEEP { Visit::Later } else { Visit::Settled }
        }
        State::Parked => Visit::Young,
        State::Runnable | State::Delivered | State::Notified => Visit::Later,
        // Only the result is needed, and lies above the stack.
        State::Finished => {
            let unused = fiber.stack_base().min(slot.end() - KEEP_PAGES * page_size());
            // SAFETY: sweep-1: the function has returned (fiber-2), and the result lies above the stack.
            unsafe { pool.discard_below(slot, unused) };
            Visit::Settled
        }
        State::Switched | State::Unused | State::Pooled => Visit::Settled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::debug_list::List;
    use crate::switch::stack::MIN_SHIFT;
    use crate::switch::stack_pool::Listed;

    /// Where the pools of these tests are listed.
    const LISTED: Listed = {
        static LIST: List = List::new();
        Listed(&LIST, 1)
    };

    /// Touches `pages` pages that were not in memory.
    fn fault(pages: usize) {
        let mapping = crate::sys::mmap::Mapping::reserve(pages * page_size()).expect("memory");
        for page in 0..pages {
            let at = mapping.base().as_ptr().wrapping_add(page * page_size());
            // SAFETY: inside the mapping, which only this function knows.
            unsafe { at.write_volatile(1) };
        }
    }

    /// Does what is due, as an idle hub would, until nothing is. Returns the number of steps.
    fn settle(sweep: &mut Sweep, pool: &StackPool, now: &mut u64) -> u32 {
        let mut looks = 0;
        while let Some(at) = sweep.due_at() {
            *now = at.max(*now);
            sweep.tend(pool, *now);
            looks += 1;
            assert!(looks < 1000, "the sweep never settles");
        }
        looks
    }

    #[test]
    fn a_walk_begins_only_after_page_faults_and_ends() {
        let mut pool = StackPool::new(|_, _| false, LISTED);
        let slots: Vec<Slot> = (0..5000).map(|_| pool.acquire(MIN_SHIFT).expect("memory")).collect();
        for slot in &slots {
            // As if each had no fiber, but had one once: its top page is there.
            let top = std::ptr::with_exposed_provenance_mut::<u8>(slot.top() - 1);
            // SAFETY: inside the slot, which is this test's.
            unsafe { top.write_volatile(0) };
        }
        let (mut sweep, mut now) = (Sweep::new(), monotonic_ns());
        fault(MIN_FAULTS as usize);
        let walk = settle(&mut sweep, &pool, &mut now);
        assert!(u64::from(walk) >= 5000 / VISITS_PER_STEP as u64, "{walk} steps");
        // Something runs, but touches nothing new: one look at the count.
        sweep.note_activity();
        assert_eq!(settle(&mut sweep, &pool, &mut now), 1);
        sweep.note_activity();
        fault(MIN_FAULTS as usize);
        assert_eq!(settle(&mut sweep, &pool, &mut now), walk);
        slots.into_iter().for_each(|slot| pool.release(slot));
    }

    #[test]
    fn rounds_keep_their_distance() {
        let pool = StackPool::new(|_, _| false, LISTED);
        let (mut sweep, start) = (Sweep::new(), monotonic_ns());
        let mut now = start;
        for _ in 0..10 {
            sweep.note_activity();
            settle(&mut sweep, &pool, &mut now);
        }
        assert!(now - start >= 9 * MIN_PAUSE);
    }
}
