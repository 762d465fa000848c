//! Turns: units that several OS threads take and give back, and a first-come, first-served queue of waiters.
//!
//! One machine serves all locks of `hub::sync`. A mutex is one unit. A read-write lock is a great many, of which a
//! reader takes one and a writer takes all. A semaphore has one for each permit. A condition variable has none,
//! and its waiters are only ever chosen.
//!
//! ```text
//!    word = units that are free              word = MANAGED: the state is behind the lock
//!    +---------------------------+  enter    +------------------------------------------+
//!    | take:  word - n, one CAS  | --------> | free units | queue of places: 7  8  9 .. |
//!    | give:  word + n, one CAS  | <-------- |                                          |
//!    +---------------------------+  the last +------------------------------------------+
//!                                   waiter left or was chosen
//!
//!    a place:   WAITING -- give, notify --> CHOSEN: out of the queue, and the units are the waiter's already
//!                  '------ leave ---------> GONE: out of the queue, and nothing is the waiter's
//! ```
//!
//! A give does not set units free while a thread waits: the units go to the first place, from that moment on, and
//! nothing can overtake. A waiter that was chosen and does not want the units any more (after a kill, or the end of its
//! hub) gives them again. A place is in the queue or was chosen, and both change under the lock only. So a waiter
//! that asks to leave learns which of the two holds, and no unit is lost between a give and a departure.
//!
//! * Invariant turns-1: `word` is MANAGED if and only if there are places in the queue. Only a holder of the lock
//!   makes `word` MANAGED or takes that away.
//! * Invariant turns-2: the first place wants more than is free. `admit` runs after every change that could break
//!   this.
//! * Invariant turns-3: what a thread did before it gave a unit happens before what another thread does after it took
//!   that unit. By `word`: the give is a Release, the take an Acquire, and all accesses between are
//!   read-modify-writes, which continue the release sequence. By the queue: the give, the choice and the change of
//!   `word` to MANAGED (an Acquire) lie in critical sections of one lock, and the waiter's Acquire of `chosen` pairs
//!   with the chooser's Release.
//!
//! The lock is held for a few instructions and, when the queue grows, an allocation. No waiter waits under the lock,
//! none is woken under it, and no code of the program runs.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
// Not loom's: see `bell`.
use std::sync::Arc;

#[cfg(not(all(test, loom)))]
use super::lock::lock;
#[cfg(all(test, loom))]
use super::lock::lock_model as lock;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(all(test, loom))]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::{Mutex, MutexGuard};

/// The `word` while there are waiters.
const MANAGED: usize = usize::MAX;

/// The greatest number of units.
pub(crate) const MOST: usize = usize::MAX >> 1;

/// A way to wake a waiter, which the waiter leaves in the queue.
pub(crate) trait Wake {
    /// Lets the waiter look again. Called by any thread.
    fn wake(&self);
}

/// Units and the queue of their waiters; see the picture of the file.
pub(crate) struct Turns<W> {
    /// The free units, or `MANAGED` (turns-1).
    word: AtomicUsize,
    /// The queue, and the free units while there are waiters.
    inside: Mutex<Inside<W>>,
}

/// The state that the lock protects.
struct Inside<W> {
    /// The free units, while `word` is `MANAGED`.
    free: usize,
    /// The number of the latest place.
    last: u64,
    /// Places with their numbers, in order of arrival.
    places: VecDeque<(u64, Arc<Place<W>>)>,
}

/// The place of one waiter in the queue.
struct Place<W> {
    /// The units that the waiter waits for.
    wants: usize,
    /// Whether the units are the waiter's.
    chosen: AtomicBool,
    /// The way to wake the waiter.
    waiter: W,
}

/// A waiter's own view of its place.
pub(crate) struct Ticket<W> {
    /// The number of the place.
    number: u64,
    /// The place, shared with the queue.
    place: Arc<Place<W>>,
}

impl<W> Ticket<W> {
    /// Returns the number of the place, for [`Turns::leave`] by another thread.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Reports whether the units are the waiter's.
    #[inline]
    pub(crate) fn is_chosen(&self) -> bool {
        // Acquire pairs with the Release in `Chosen::take` (turns-3).
        self.place.chosen.load(Ordering::Acquire)
    }

    /// Returns the way to wake the waiter.
    pub(crate) fn waiter(&self) -> &W {
        &self.place.waiter
    }
}

/// Places that were chosen, to be woken once the lock is free. The single place of a mutex needs no memory.
struct Chosen<W> {
    /// The first chosen place.
    first: Option<Arc<Place<W>>>,
    /// The other chosen places.
    more: Vec<Arc<Place<W>>>,
}

impl<W: Wake> Chosen<W> {
    /// Creates an empty set of places.
    fn new() -> Chosen<W> {
        Chosen { first: None, more: Vec::new() }
    }

    /// Chooses a place that has left the queue; the lock is held.
    fn take(&mut self, place: Arc<Place<W>>) {
        // Release pairs with the Acquire of `is_chosen` (turns-3).
        place.chosen.store(true, Ordering::Release);
        match self.first {
            None => self.first = Some(place),
            Some(_) => self.more.push(place),
        }
    }

    /// Wakes the places in order of arrival; the lock is free.
    fn wake(self) {
        self.first.iter().chain(&self.more).for_each(|place| place.waiter.wake());
    }
}

impl<W> Turns<W> {
    /// Creates `free` units, at most [`MOST`], without waiters.
    pub(crate) fn new(free: usize) -> Turns<W> {
        debug_assert!(free <= MOST);
        let inside = Inside { free: 0, last: 0, places: VecDeque::new() };
        Turns { word: AtomicUsize::new(free), inside: Mutex::new(inside) }
    }

    /// Takes the one unit of a mutex, if it is free.
    #[inline]
    pub(crate) fn take_only(&self) -> bool {
        // Acquire: turns-3. A failure reads nothing that matters.
        self.word.compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes `count` units, if so many are free and no thread waits.
    #[inline]
    pub(crate) fn take(&self, count: usize) -> bool {
        // Relaxed: the exchange decides.
        let mut free = self.word.load(Ordering::Relaxed);
        while free != MANAGED && free >= count {
            // Acquire: turns-3.
            match self.word.compare_exchange_weak(free, free - count, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => free = now,
            }
        }
        false
    }

    /// Returns the units that are free, and not waited for.
    pub(crate) fn free(&self) -> usize {
        // Relaxed: the answer may be old anyway.
        Some(self.word.load(Ordering::Relaxed)).filter(|&free| free != MANAGED).unwrap_or(0)
    }

    /// Reports whether a thread waits. A caller that is ordered after a waiter's `enter`, by a lock of both, sees that
    /// waiter.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        // Relaxed: the order is the caller's, see above.
        self.word.load(Ordering::Relaxed) == MANAGED
    }

    /// Locks the queue. No code panics under the lock.
    fn lock(&self) -> MutexGuard<'_, Inside<W>> {
        lock(&self.inside)
    }
}

impl<W: Wake> Turns<W> {
    /// Puts a waiter for `wants` units at the end of the queue. Returns `None` if the waiter got the units at once, or
    /// if `still`, which is called under the lock, returned that there is nothing to wait for any more; then nothing
    /// was taken.
    pub(crate) fn enter(&self, wants: usize, waiter: W, still: impl FnOnce() -> bool) -> Option<Ticket<W>> {
        let place = Arc::new(Place { wants, chosen: AtomicBool::new(false), waiter });
        let mut inside = self.lock();
        if !still() {
            return None;
        }
        // Relaxed: MANAGED cannot come or go while the lock is held (turns-1), and the exchanges decide about the rest.
        let mut free = self.word.load(Ordering::Relaxed);
        while free != MANAGED {
            let (enough, next) = if wants > 0 && free >= wants { (true, free - wants) } else { (false, MANAGED) };
            // Acquire: turns-3, for the taker, or for the waiter that gets what is free now.
            match self.word.compare_exchange_weak(free, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if enough => return None,
                Ok(_) => {
                    inside.free = free;
                    break;
                }
                Err(now) => free = now,
            }
        }
        // Units are managed from here on: queue up.
        inside.last += 1;
        let number = inside.last;
        inside.places.push_back((number, Arc::clone(&place)));
        Some(Ticket { number, place })
    }

    /// Removes a waiter's place. True if the place was chosen before, so that the waiter has what it waited for.
    #[must_use = "a waiter that was chosen has something to pass on"]
    pub(crate) fn leave(&self, number: u64) -> bool {
        let mut inside = self.lock();
        let Ok(at) = inside.places.binary_search_by_key(&number, |place| place.0) else { return true };
        let place = inside.places.remove(at);
        // The places behind a writer that gives up may be readers (turns-2).
        self.admit(inside);
        drop(place);
        false
    }

    /// Gives the one unit of a mutex back.
    #[inline]
    pub(crate) fn give_only(&self) {
        // Release: turns-3.
        if self.word.compare_exchange(0, 1, Ordering::Release, Ordering::Relaxed).is_err() {
            self.give_managed(1);
        }
    }

    /// Gives `count` units back.
    #[inline]
    pub(crate) fn give(&self, count: usize) {
        // Relaxed: the exchange decides.
        let mut free = self.word.load(Ordering::Relaxed);
        while free != MANAGED {
            // Release: turns-3.
            match self.word.compare_exchange_weak(free, free + count, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => free = now,
            }
        }
        self.give_managed(count);
    }

    /// Gives units back when there were waiters.
    #[cold]
    #[inline(never)]
    fn give_managed(&self, count: usize) {
        let mut inside = self.lock();
        // Relaxed: as in `enter`.
        if self.word.load(Ordering::Relaxed) == MANAGED {
            inside.free += count;
            self.admit(inside);
        } else {
            // The last waiter left meanwhile, and none can come while the lock is held. Release: turns-3.
            self.word.fetch_add(count, Ordering::Release);
        }
    }

    /// Chooses the first places, as far as the free units are enough for them (turns-2), and wakes them.
    fn admit(&self, mut inside: MutexGuard<'_, Inside<W>>) {
        let mut chosen = Chosen::new();
        while let Some((_, first)) = inside.places.front()
            && first.wants > 0
            && first.wants <= inside.free
        {
            inside.free -= first.wants;
            if let Some((_, place)) = inside.places.pop_front() {
                chosen.take(place);
            }
        }
        self.end(inside, chosen);
    }

    /// Chooses the first place, or with `all` every place, although nothing was given.
    pub(crate) fn notify(&self, all: bool) {
        let mut inside = self.lock();
        let mut chosen = Chosen::new();
        while let Some((_, place)) = inside.places.pop_front() {
            chosen.take(place);
            if !all {
                break;
            }
        }
        self.end(inside, chosen);
    }

    /// Lets all waiters look again, although none of them is chosen.
    pub(crate) fn wake_all(&self) {
        let inside = self.lock();
        let places: Vec<_> = inside.places.iter().map(|(_, place)| Arc::clone(place)).collect();
        drop(inside);
        places.iter().for_each(|place| place.waiter.wake());
    }

    /// Upholds turns-1, releases the lock, and wakes the chosen places.
    fn end(&self, inside: MutexGuard<'_, Inside<W>>, chosen: Chosen<W>) {
        // Relaxed: as in `enter`.
        if inside.places.is_empty() && self.word.load(Ordering::Relaxed) == MANAGED {
            // Release: turns-3; everything before lies in earlier critical sections of this lock.
            self.word.store(inside.free, Ordering::Release);
        }
        drop(inside);
        chosen.wake();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell as Watched;
    use loom::sync::Condvar;

    /// How often per run loom takes the processor from a thread that could go on.
    const PREEMPTIONS: usize = 3;

    /// A waiter that an OS thread sleeps on.
    #[derive(Clone)]
    struct Sleeper(Arc<(Mutex<bool>, Condvar)>);

    impl Sleeper {
        fn new() -> Sleeper {
            Sleeper(Arc::new((Mutex::new(false), Condvar::new())))
        }

        /// Waits for the wake-up.
        fn sleep(&self) {
            let mut woken = self.0.0.lock().unwrap();
            while !*woken {
                woken = self.0.1.wait(woken).unwrap();
            }
        }
    }

    impl Wake for Sleeper {
        fn wake(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }

    /// Takes units, however long it takes.
    fn take(turns: &Turns<Sleeper>, count: usize) {
        if turns.take(count) {
            return;
        }
        let sleeper = Sleeper::new();
        if let Some(ticket) = turns.enter(count, sleeper.clone(), || true) {
            sleeper.sleep();
            assert!(ticket.is_chosen());
        }
    }

    /// Runs a model in every interleaving.
    fn explore(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS);
        builder.check(model);
    }

    /// Three threads add one to a number that only the unit protects. `give` is what a holder does at the end.
    fn exclude(give: fn(&Turns<Sleeper>)) {
        explore(move || {
            let shared = Arc::new((Turns::<Sleeper>::new(1), Watched::new(0)));
            let add = move |shared: &(Turns<Sleeper>, Watched<i32>)| {
                take(&shared.0, 1);
                // Loom reports an access that is not ordered after the others. `with_mut` is safe; the pointer is used
                // as a number only by comparing counts below, so nothing is dereferenced.
                shared.1.with_mut(|pointer| assert!(!pointer.is_null()));
                give(&shared.0);
            };
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    loom::thread::spawn(move || add(&shared))
                })
                .collect();
            add(&shared);
            others.into_iter().for_each(|other| other.join().unwrap());
            assert!(shared.0.take_only(), "the unit is free again");
        });
    }

    #[test]
    fn one_holder_at_a_time_sees_what_the_last_one_did() {
        exclude(Turns::give_only);
    }

    /// A `give` that publishes nothing.
    fn give_unordered(turns: &Turns<Sleeper>) {
        if turns.word.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            turns.give_managed(1);
        }
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn without_the_release_of_a_give_the_next_holder_does_not_see_what_the_last_one_did() {
        exclude(give_unordered);
    }

    /// A waiter that leaves while the holder gives: with `passes_on`, it gives what it was handed meanwhile.
    fn depart(passes_on: bool) {
        explore(move || {
            let turns = Arc::new(Turns::<Sleeper>::new(1));
            assert!(turns.take_only());
            let [leaver, stayer] = [true, false].map(|leaves| {
                let turns = Arc::clone(&turns);
                loom::thread::spawn(move || {
                    if !leaves {
                        take(&turns, 1);
                        turns.give_only();
                        return;
                    }
                    let got = match turns.enter(1, Sleeper::new(), || true) {
                        Some(ticket) => turns.leave(ticket.number()),
                        None => true,
                    };
                    if got && passes_on {
                        turns.give_only();
                    }
                })
            });
            turns.give_only();
            leaver.join().unwrap();
            stayer.join().unwrap();
            assert!(turns.take_only(), "the unit is free again");
        });
    }

    #[test]
    fn what_a_departing_waiter_was_handed_is_passed_on() {
        depart(true);
    }

    #[test]
    #[should_panic]
    fn a_departing_waiter_that_keeps_what_it_was_handed_loses_it() {
        depart(false);
    }

    #[test]
    fn a_writer_gets_all_units_after_the_readers() {
        explore(|| {
            let turns = Arc::new(Turns::<Sleeper>::new(2));
            let others = [1, 2].map(|count| {
                let turns = Arc::clone(&turns);
                loom::thread::spawn(move || {
                    take(&turns, count);
                    turns.give(count);
                })
            });
            take(&turns, 1);
            turns.give(1);
            others.into_iter().for_each(|other| other.join().unwrap());
            assert_eq!(turns.free(), 2);
        });
    }

    /// Waits for a flag as the waiters of a `Once` do. `asks`: whether the flag is looked at again under the lock.
    fn announce(asks: bool) {
        explore(move || {
            let shared = Arc::new((Turns::<Sleeper>::new(0), AtomicBool::new(false)));
            let waiter = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    let sleeper = Sleeper::new();
                    if shared.1.load(Ordering::Acquire) {
                        return;
                    }
                    let still = || !asks || !shared.1.load(Ordering::Acquire);
                    if shared.0.enter(0, sleeper.clone(), still).is_some() {
                        sleeper.sleep();
                    }
                })
            };
            shared.1.store(true, Ordering::Release);
            shared.0.notify(true);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn a_waiter_that_looks_under_the_lock_misses_no_announcement() {
        announce(true);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_waiter_that_looks_before_the_lock_only_may_miss_it() {
        announce(false);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::pure::test_random::Random;
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    /// A waiter that sends its number when it is woken.
    struct Bell(Sender<u32>, u32);

    impl Wake for Bell {
        fn wake(&self) {
            let _ = self.0.send(self.1);
        }
    }

    /// Turns with waiters for so many units each, and where their numbers arrive.
    fn queue(free: usize, wants: &[usize]) -> (Turns<Bell>, Vec<Ticket<Bell>>, Receiver<u32>) {
        let turns = Turns::new(free);
        let (send, receive) = channel();
        let tickets = (0..).zip(wants).map(|(number, &wants)| {
            turns.enter(wants, Bell(send.clone(), number), || true).expect("not so many are free")
        });
        let tickets = tickets.collect();
        (turns, tickets, receive)
    }

    #[test]
    fn what_is_free_is_taken_and_given_without_waiting() {
        let turns = Turns::<Bell>::new(3);
        assert!(turns.take(2) && !turns.take(2) && turns.take(1) && !turns.take(1));
        turns.give(3);
        assert_eq!(turns.free(), 3);
        assert!(!turns.has_waiters());
        assert!(turns.enter(2, Bell(channel().0, 0), || true).is_none(), "it has them at once");
        assert_eq!(turns.free(), 1);
        assert!(turns.enter(2, Bell(channel().0, 0), || false).is_none(), "it need not wait");
        assert_eq!(turns.free(), 1);
    }

    #[test]
    fn units_go_to_the_first_place_and_nothing_overtakes() {
        let (turns, tickets, woken) = queue(0, &[1, 1]);
        turns.give(1);
        assert!(tickets[0].is_chosen() && !tickets[1].is_chosen());
        assert!(!turns.take(1) && turns.has_waiters());
        turns.give(2);
        assert!(tickets[1].is_chosen());
        assert_eq!(turns.free(), 1, "what nothing waits for is free");
        assert_eq!(woken.try_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_large_wish_at_the_front_holds_back_the_small_ones_behind_it() {
        let (turns, tickets, woken) = queue(1, &[2, 1]);
        assert!(!turns.take(1), "one is free, but others wait");
        assert!(!turns.leave(tickets[0].number()), "it was not chosen");
        assert!(tickets[1].is_chosen(), "its departure lets the next one in");
        assert_eq!((woken.try_iter().count(), turns.free()), (1, 0));
    }

    #[test]
    fn a_place_that_was_chosen_cannot_leave_any_more() {
        let (turns, tickets, _woken) = queue(0, &[1, 1]);
        turns.give_only();
        assert!(turns.leave(tickets[0].number()), "it has a unit");
        turns.give_only();
        assert!(tickets[1].is_chosen());
        turns.give_only();
        assert!(turns.take_only());
    }

    #[test]
    fn a_notification_reaches_places_and_is_not_kept() {
        let (turns, tickets, woken) = queue(0, &[0, 0, 0]);
        turns.notify(false);
        assert!(tickets[0].is_chosen() && !tickets[1].is_chosen());
        turns.notify(true);
        assert_eq!(woken.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
        turns.notify(true);
        assert!(!turns.has_waiters());
        assert_eq!(turns.free(), 0);
    }

    #[test]
    fn no_unit_is_lost_between_threads_that_come_and_go() {
        let (threads, rounds) = if cfg!(miri) { (3, 20) } else { (4, 20_000) };
        let mut random = Random::new();
        let (turns, inside) = (Turns::new(2), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (turns, inside) = (&turns, &inside);
                let mut choices: Vec<u64> = (0..64).map(|_| random.below(8)).collect();
                choices[0] = 0;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let choice = choices[round % choices.len()];
                        let count = 1 + (choice % 2) as usize;
                        let (send, woken) = channel();
                        if let Some(ticket) = turns.enter(count, Bell(send, 0), || true) {
                            // Some leave at once; the others wait, but not for ever.
                            let patience = Duration::from_secs(if choice < 3 { 0 } else { 60 });
                            let rung = woken.recv_timeout(patience).is_ok();
                            assert!(choice < 3 || rung, "a wake-up was lost");
                            if !rung && !turns.leave(ticket.number()) {
                                continue;
                            }
                        }
                        // Relaxed: only the sum matters.
                        let before = inside.fetch_add(count as u64, Ordering::Relaxed);
                        assert!(before + count as u64 <= 2, "{before} units are held");
                        inside.fetch_sub(count as u64, Ordering::Relaxed);
                        turns.give(count);
                    }
                });
            }
        });
        assert_eq!(turns.free(), 2);
    }
}
