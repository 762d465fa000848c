//! The sweep: a thread that used much of its stack once and waits now gives the pages back.
//!
//! ```text
//!              something ran, PAUSE is over, and          all slots visited
//!              FAULTS page faults since the last walk   .------------------.
//!   REST ---------------------------------------------> WALK               |
//!    ^ |                                                                   |
//!    | |  something ran or waits for its time, and some were put off       |
//!    | `----------------------------------------------> AGAIN --.          |
//!    `----------------------------------------------------------+----------'
//! ```
//!
//! A visit looks at one slot, and the state of its fiber says what can be done:
//!
//! | fiber | what is given back | and then |
//! |---|---|---|
//! | parked for [`PATIENCE`] | all below its frames | settled |
//! | the same, with more than [`DEEP`] of frames | the same | put off: it will return from them |
//! | parked since a moment ago | nothing | put off: if it parks again and again, its pages are in use |
//! | ready or running | nothing | put off |
//! | in an explicit switch | nothing: where its frames end is not known | settled |
//! | finished, its result is not fetched yet | all but [`KEEP_PAGES`] at the top | settled |
//! | none: the slot is free | the same | settled |
//!
//! *Who had a deep call?* Nobody notes it: that would cost each call or each switch something. But a stack gets deeper
//! than it was after the last visit only by touching pages that are not there, and the kernel counts those for each OS
//! thread. So as long as the count stands still there is nothing to find beyond the slots that were *put off*, and a
//! server in its steady state pays one getrusage(2) in [`PAUSE`], and for threads that it keeps ready.
//!
//! A hub that falls asleep wakes up for a walk that is under way, and for slots that were put off because of the time;
//! then no more, until something runs again.
//!
//! * Invariant Z1: pages are taken only from a PARKED fiber, below what F6 says that it needs, and from the stack of a
//!   FINISHED one or of none. Upheld by `visit`. Nothing runs on this OS thread between its look at the state and the discarding.
#![allow(unsafe_code)]

use super::fiber::{Fiber, State};
use super::stack::Slot;
use super::stack_pool::{KEEP_PAGES, StackPool, Walk};
use crate::sys::clock::monotonic_ns;
use crate::sys::mmap::{page_faults, page_size};

/// How long a thread must have waited in one call before its pages are taken, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// Least time from the end of a round to the beginning of the next, in nanoseconds.
const PAUSE: u64 = 2_000_000_000;

/// And at least this many times what the round took, so that looking costs a small part of the time at most. But whom a walk
/// put off because of the time is looked at after `PAUSE`: both count as one round.
const SHARE: u64 = 64;

/// Time between two steps of a round, in nanoseconds.
const STEP: u64 = 4_000_000;

/// Slots visited in a step: few enough that nobody waits long for it, even if each has much to give back.
const VISITS: usize = 256;

/// Page faults since the last walk from which another one is worth it.
const FAULTS: u64 = 16;

/// Bytes of frames from which a parked thread is looked at again later.
const DEEP: usize = 32 * 1024;

/// What the sweep is doing.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing.
    Rest,
    /// It visits all slots, and has come so far.
    Walk(Walk),
    /// It visits the slots that were put off, and has come so far.
    Again(usize),
}

/// What a visit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    /// There is nothing more to take, until the stack grows again.
    Settled,
    /// There may be, after something has run.
    Later,
    /// There may be, after some time.
    Young,
}

/// The sweep of one OS thread's stacks.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// See [`Phase`].
    phase: Phase,
    /// When the next step or the next round is due, in monotonic nanoseconds.
    next: u64,
    /// Page faults of this OS thread at the beginning of the last walk.
    faults: u64,
    /// Whether anything has run since the last round began.
    active: bool,
    /// Whether a slot was put off because of the time.
    young: bool,
    /// Slots that were put off, or whose fiber ended meanwhile.
    put_off: Vec<Slot>,
    /// Nanoseconds that this round has taken, and the one before if it left any `young`.
    spent: u64,
}

impl Sweep {
    /// A sweep that has visited nothing yet.
    pub(crate) fn new() -> Sweep {
        Sweep { phase: Phase::Rest, next: 0, faults: 0, active: true, young: false, put_off: Vec::new(), spent: 0 }
    }

    /// Something will run.
    #[inline]
    pub(crate) fn note_activity(&mut self) {
        self.active = true;
    }

    /// When [`tend`](Self::tend) will have something to do, if it ever will unless something runs.
    #[inline]
    pub(crate) fn due_at(&self) -> Option<u64> {
        (self.active || self.young || !matches!(self.phase, Phase::Rest)).then_some(self.next)
    }

    /// Does what is due at `now`, in monotonic nanoseconds.
    #[inline]
    pub(crate) fn tend(&mut self, pool: &StackPool, now: u64) {
        if self.due_at().is_some_and(|at| at <= now) {
            self.step(pool, now);
        }
    }

    /// Gives back what can be given back at once, however short a time its owner has been waiting.
    pub(crate) fn all(pool: &StackPool) {
        let mut walk = Walk::default();
        while let Some(slot) = pool.next_with_pages(&mut walk) {
            visit(pool, slot, u64::MAX);
        }
    }

    /// The part of [`tend`](Self::tend) that does something.
    #[cold]
    #[inline(never)]
    fn step(&mut self, pool: &StackPool, now: u64) {
        if matches!(self.phase, Phase::Rest) && !self.begin() {
            self.next = now.saturating_add(PAUSE);
            return;
        }
        let start = monotonic_ns();
        let is_walk = matches!(self.phase, Phase::Walk(_));
        let done = match self.phase {
            Phase::Rest => true,
            Phase::Walk(walk) => self.walk(pool, walk, now),
            Phase::Again(at) => self.visit_again(pool, at, now),
        };
        let end = monotonic_ns();
        self.spent = self.spent.saturating_add(end - start);
        if done {
            self.phase = Phase::Rest;
            let share = if is_walk && self.young { 0 } else { self.spent.saturating_mul(SHARE) };
            self.next = end.saturating_add(share.max(PAUSE));
        } else {
            self.next = end.saturating_add(STEP);
        }
    }

    /// Begins a round, if there is anything to look for.
    fn begin(&mut self) -> bool {
        let spent = if self.young { self.spent } else { 0 };
        (self.active, self.young, self.spent) = (false, false, spent);
        let faults = page_faults();
        if faults.saturating_sub(self.faults) >= FAULTS {
            self.faults = faults;
            self.put_off.clear();
            self.phase = Phase::Walk(Walk::default());
        } else if !self.put_off.is_empty() {
            self.phase = Phase::Again(0);
        }
        !matches!(self.phase, Phase::Rest)
    }

    /// One step of a walk. True if it was the last one.
    fn walk(&mut self, pool: &StackPool, mut walk: Walk, now: u64) -> bool {
        for _ in 0..VISITS {
            let Some(slot) = pool.next_with_pages(&mut walk) else { return true };
            let found = visit(pool, slot, now);
            self.young |= found == Visit::Young;
            if found != Visit::Settled {
                self.put_off.push(slot);
            }
        }
        self.phase = Phase::Walk(walk);
        false
    }

    /// One step through those that were put off. True if it was the last one.
    fn visit_again(&mut self, pool: &StackPool, mut at: usize, now: u64) -> bool {
        for _ in 0..VISITS {
            let Some(&slot) = self.put_off.get(at) else { return true };
            let found = visit(pool, slot, now);
            self.young |= found == Visit::Young;
            if found == Visit::Settled {
                self.put_off.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.phase = Phase::Again(at);
        false
    }
}

/// Gives back what the fiber in `slot` does not need any more.
fn visit(pool: &StackPool, slot: Slot, now: u64) -> Visit {
    // SAFETY: the slot is one of this pool's.
    let Some(fiber) = (unsafe { Fiber::in_slot(slot) }) else {
        // SAFETY: Z1: no fiber, and the next one begins at the top.
        unsafe { pool.discard_below(slot, slot.end() - KEEP_PAGES * page_size()) };
        return Visit::Settled;
    };
    match fiber.state.get() {
        State::Parked if fiber.since.get().saturating_add(PATIENCE) <= now => {
            let unused = fiber.unused_below();
            // SAFETY: Z1, by F6.
            unsafe { pool.discard_below(slot, unused) };
            if slot.top() - unused > DEEP { Visit::Later } else { Visit::Settled }
        }
        State::Parked => Visit::Young,
        State::Ready | State::Running | State::Notified => Visit::Later,
        State::Finished => {
            let unused = fiber.stack_base().min(slot.end() - KEEP_PAGES * page_size());
            // SAFETY: Z1: its function has returned (F2), and its result lies above the stack.
            unsafe { pool.discard_below(slot, unused) };
            Visit::Settled
        }
        State::Switched | State::Unused | State::Pooled => Visit::Settled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::stack::MIN_SHIFT;

    /// Touches `pages` pages that were not there.
    fn fault(pages: usize) {
        let mapping = crate::sys::mmap::Mapping::reserve(pages * page_size()).expect("memory");
        for page in 0..pages {
            let at = mapping.base().as_ptr().wrapping_add(page * page_size());
            // SAFETY: inside the mapping, which nobody else knows.
            unsafe { at.write_volatile(1) };
        }
    }

    /// Does what is due, as an idle hub would, until nothing is. Says how often that was.
    fn settle(sweep: &mut Sweep, pool: &StackPool, now: &mut u64) -> u32 {
        let mut looks = 0;
        while let Some(at) = sweep.due_at() {
            *now = at.max(*now);
            sweep.tend(pool, *now);
            looks += 1;
            assert!(looks < 1000, "it never settles");
        }
        looks
    }

    #[test]
    fn a_walk_begins_only_after_page_faults_and_ends() {
        let mut pool = StackPool::new(|_, _| false);
        let slots: Vec<Slot> = (0..5000).map(|_| pool.acquire(MIN_SHIFT).expect("memory")).collect();
        for slot in &slots {
            // As if each had no fiber, but had one once: its top page is there.
            let top = std::ptr::with_exposed_provenance_mut::<u8>(slot.top() - 1);
            // SAFETY: inside the slot, which is this test's.
            unsafe { top.write_volatile(0) };
        }
        let (mut sweep, mut now) = (Sweep::new(), monotonic_ns());
        fault(FAULTS as usize);
        let walk = settle(&mut sweep, &pool, &mut now);
        assert!(u64::from(walk) >= 5000 / VISITS as u64, "{walk} steps");
        // Something runs, but touches nothing new: one look at the count.
        sweep.note_activity();
        assert_eq!(settle(&mut sweep, &pool, &mut now), 1);
        sweep.note_activity();
        fault(FAULTS as usize);
        assert_eq!(settle(&mut sweep, &pool, &mut now), walk);
        slots.into_iter().for_each(|slot| pool.release(slot));
    }

    #[test]
    fn rounds_keep_their_distance() {
        let pool = StackPool::new(|_, _| false);
        let (mut sweep, start) = (Sweep::new(), monotonic_ns());
        let mut now = start;
        for _ in 0..10 {
            sweep.note_activity();
            settle(&mut sweep, &pool, &mut now);
        }
        assert!(now - start >= 9 * PAUSE);
    }
}
