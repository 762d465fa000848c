//! Waiting for several things at once: the machine under `select!`.
//!
//! ```text
//!   try each arm --------- one can go on --------------------------------------------------------> done
//!     | none can
//!     v
//!   join the list of each arm, with a node of its own
//!     |
//!     v                    a waker chose an arm (all nodes are out of their lists): accept its result -> done
//!   park -- woken -------> no arm was chosen: try each arm again; none can go on: park
//!        -- time is up --> try each arm again, timers last; none can go on: the time limit -----------> done
//!        -- kill --------> an arm that was chosen passes on what it got; all lists are left; unwind
//! ```
//!
//! A waker has two ways to tell a waiter. A waker may *choose* the waiter: take the waiter's node out of the list,
//! which makes the thing that was waited for the waiter's own (locks, events, channels; `switch::wait_node` says why at
//! most one arm is chosen). Or a waker may *wake* the waiter and leave the node in the list, so that the waiter tries
//! by itself (descriptors, the end of a channel). An arm knows which of the two its list does, and the machine serves
//! both.
//!
//! Of several arms that can go on each has the same chance: `Shuffle` draws the order in which they are tried, and in
//! which they join their lists. What a waker chose is never drawn again: a sender was told that its value is taken.
//!
//! * Invariant choose-1: each arm that was registered is unregistered, once, after all nodes are out of their lists,
//!   with the truth about how it ended. Upheld by the destructor of `Registered`. An arm that has lost, or was chosen
//!   and then aborted, can be waited for anew.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;

use super::caller::Caller;
use super::checkpoint::{begin_call, end_call, spend_credit};
use super::park::{Counted, Wake};
use super::report::label_of;
use crate::pure::random::{XORSHIFT_BEGIN, scaled, xorshift};
use crate::switch::cancel;
use crate::switch::fiber::Reason;
use crate::switch::root::{existing_root, on_os_thread, try_root};
use crate::switch::wait_list::WaitList;
use crate::switch::wait_node::{Choice, WaitNode, choose_among};
use crate::sys::clock::NEVER;

/// How an arm that was registered ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArmEnd {
    /// This arm was selected: `try_select` said yes, or a waker chose it.
    Won,
    /// Another arm was selected, or the wait unwinds.
    Lost,
    /// A waker chose this arm, but the wait unwinds: the arm must pass on what it got.
    Aborted,
}

/// Names one arm of one wait, for arms that leave a value where they wait: the fiber's id and the number of the arm.
pub(crate) type ArmId = (u64, usize);

/// One thing to wait for. Arms keep their results in cells, so that lists inside them can be joined meanwhile.
pub(crate) trait Arm {
    /// Reports whether this arm can go on now. If so the operation is done and the result kept. Called before the wait,
    /// and after wake-ups that chose no arm. Does not switch: another arm could be chosen meanwhile.
    fn try_select(&self) -> bool;

    /// Begins the wait: leaves or registers what the wakers need. Returns the list to wait in, if there is one.
    ///
    /// # Errors
    /// If that failed, or the arm can go on meanwhile. The arm keeps its result, and has won.
    fn register(&self, id: ArmId) -> Result<Option<&WaitList>, AlreadyWon>;

    /// Keeps the result after a waker chose this arm.
    fn accept(&self);

    /// Ends the wait, after the arm's node has left its list. An arm that has not won must be as before `register`.
    fn unregister(&self, end: ArmEnd);

    /// Returns when the arm can go on even if nothing wakes it, in monotonic nanoseconds.
    fn deadline(&self) -> u64 {
        NEVER
    }

    /// Reports whether the kernel may wake the waiter.
    fn is_descriptor(&self) -> bool {
        false
    }

    /// Reports whether another OS thread may wake the waiter, by a [`Waiter`](super::remote::Waiter) that `register`
    /// left.
    fn is_remote(&self) -> bool {
        false
    }
}

/// The answer of an arm that has won while it registered: see [`Arm::register`].
#[derive(Debug)]
pub(crate) struct AlreadyWon;

/// An arm of any type; only `select!` makes one.
#[derive(Clone, Copy)]
pub struct AnyArm<'l>(&'l dyn Arm);

/// The calls that the expansion of `select!` makes on an arm. Its supertrait is private, which seals the trait.
#[allow(private_bounds)]
pub trait SelectArm: Arm + Sized {
    /// What the arm yields.
    type Output;

    /// Forgets the type of the arm, for the wait.
    fn erase(&self) -> AnyArm<'_> {
        AnyArm(self)
    }

    /// Takes the result of an arm that has won.
    fn finish(self) -> Self::Output;
}

impl fmt::Debug for AnyArm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyArm").finish_non_exhaustive()
    }
}

/// Which arm is taken if several can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each with the same chance.
    Fair,
    /// The first one that is written.
    Biased,
}

/// Do not wait at all: a time limit in monotonic nanoseconds that has passed.
pub const AT_ONCE: u64 = 0;

/// Wait for as long as it takes.
pub const FOR_EVER: u64 = NEVER;

thread_local! {
    /// The state of the generator, the same in every run, so that programs repeat. 0 in a simulation, which draws.
    static RANDOM: Cell<u64> = const { Cell::new(XORSHIFT_BEGIN) };
}

/// Draws a number below `count`. A counter would not do: two `select!`s that take turns would always get the same half
/// of its values.
#[inline]
fn draw(count: usize) -> usize {
    let random = on_os_thread(|| {
        let random = xorshift(RANDOM.get());
        RANDOM.set(random);
        random
    });
    if random == 0 {
        return draw_simulated(count);
    }
    // No count comes near to 2^32.
    scaled(random, count as u64) as usize
}

/// Makes each draw of this OS thread a choice of its simulation: the state 0 is a fixed point of the generator.
pub(crate) fn draw_by_simulation() {
    RANDOM.set(0);
}

/// Draws a number below `count` in a simulation.
#[cold]
#[inline(never)]
fn draw_simulated(count: usize) -> usize {
    existing_root().and_then(|root| root.simulation()).map_or(0, |simulation| simulation.draw(count))
}

/// The arms in the order in which they are tried.
///
/// Fair means a permutation that is drawn: of the arms that can go on each comes first in a random permutation with the
/// same chance, however many idle ones are among them. To draw only the arm with which to begin would give an arm the
/// chances of all idle ones that are written before it. The permutation is drawn step by step (Fisher and Yates), so a
/// round that ends at the first arm has drawn one number.
struct Shuffle<'a> {
    /// Numbers of arms, each once. What is before the present step is drawn.
    numbers: &'a mut [u32],
    /// Whether the order is drawn at all.
    order: Order,
}

impl Shuffle<'_> {
    /// Draws the arm that is tried at this step. Ask in order, from 0 on.
    #[inline]
    fn draw(&mut self, step: usize) -> usize {
        if self.order == Order::Fair && step + 1 < self.numbers.len() {
            let drawn = step + draw(self.numbers.len() - step);
            self.numbers.swap(step, drawn);
        }
        self.numbers[step] as usize
    }

    /// Finds an arm that can go on; of several, the one that the order says.
    fn try_select(&mut self, arms: &[AnyArm<'_>]) -> Option<usize> {
        (0..arms.len()).map(|step| self.draw(step)).find(|&number| arms[number].0.try_select())
    }

    /// Tries as [`try_select`](Self::try_select), after a wait. Events count in the order in which they happened: an
    /// event that came while the time was not over goes before the timers, and of the timers the earliest goes first. A
    /// biased order is that of the arms here too.
    fn try_select_again(&mut self, arms: &[AnyArm<'_>]) -> Option<usize> {
        if self.order == Order::Biased {
            return self.try_select(arms);
        }
        let is_timer = |number: usize| arms[number].0.deadline() != NEVER;
        // Events first: a deadline counts only if nothing else has come.
        let came = (0..arms.len())
            .map(|step| self.draw(step))
            .find(|&number| !is_timer(number) && arms[number].0.try_select());
        came.or_else(|| {
            // Of several timers that are due the earliest wins.
            let timers = self.numbers.iter().map(|&number| number as usize).filter(|&number| is_timer(number));
            timers.filter(|&number| arms[number].0.try_select()).min_by_key(|&number| arms[number].0.deadline())
        })
    }
}

/// Begins a call: raises what is due if the caller's share is used up. To ask the kernel whether a descriptor is ready
/// is an IO call.
fn begin(arms: &[AnyArm<'_>]) {
    if arms.iter().any(|arm| arm.0.is_descriptor()) { spend_credit() } else { begin_call() }
}

/// Returns the number of the arm that went on, or `None` if none could by the time `until`, in monotonic nanoseconds:
/// [`AT_ONCE`] and [`FOR_EVER`] are such times. `what` names the arms, for reports.
///
/// # Panics
/// If the call would have to wait without a time limit while the caller unwinds. As `park`.
pub fn select<const N: usize>(arms: [AnyArm<'_>; N], order: Order, until: u64, what: &'static str) -> Option<usize> {
    begin(&arms);
    let mut numbers: [u32; N] = std::array::from_fn(|number| number as u32);
    let mut shuffle = Shuffle { numbers: &mut numbers, order };
    match shuffle.try_select(&arms) {
        None if until != AT_ONCE => {
            let nodes = [const { WaitNode::new() }; N];
            wait_for(&arms, &nodes, shuffle, until, what)
        }
        found => {
            // The result is in the arm, so nothing may be raised here.
            end_call();
            found
        }
    }
}

/// [`select`] for a number of arms that is known only at run time.
///
/// # Panics
/// As [`select`].
pub(crate) fn select_any(arms: &[AnyArm<'_>], order: Order, until: u64, what: &'static str) -> Option<usize> {
    begin(arms);
    let mut numbers: Vec<u32> = (0..arms.len() as u32).collect();
    let mut shuffle = Shuffle { numbers: &mut numbers, order };
    match shuffle.try_select(arms) {
        None if until != AT_ONCE => {
            let nodes: Vec<_> = arms.iter().map(|_| WaitNode::new()).collect();
            wait_for(arms, &nodes, shuffle, until, what)
        }
        found => {
            // The result is in the arm, so nothing may be raised here.
            end_call();
            found
        }
    }
}

/// Returns the arm with the earliest deadline, and the deadline.
fn earliest(arms: &[AnyArm<'_>]) -> Option<(usize, u64)> {
    let deadlines = arms.iter().enumerate().map(|(number, arm)| (number, arm.0.deadline()));
    deadlines.filter(|(_, at)| *at != NEVER).min_by_key(|(_, at)| *at)
}

/// Arms that were registered, and how far their wait is.
struct Registered<'a, 'n, 'l> {
    /// All arms of the call.
    arms: &'a [AnyArm<'l>],
    /// The arms' places in lists.
    choice: &'a Choice<'n, 'l>,
    /// The order of the arms.
    shuffle: Shuffle<'a>,
    /// How many arms were registered: the first ones in that order, which changes only when all were.
    count: usize,
    /// The arm that won and has accepted its result.
    winner: Option<usize>,
}

impl Registered<'_, '_, '_> {
    /// Ends the wait in favour of this arm, which has the result, and unregisters all arms.
    fn won(mut self, number: usize) -> Option<usize> {
        self.winner = Some(number);
        self.winner
    }
}

impl Drop for Registered<'_, '_, '_> {
    fn drop(&mut self) {
        // Leave the lists first, so that no waker chooses an arm any more.
        self.choice.leave_all();
        for &number in &self.shuffle.numbers[..self.count] {
            let number = number as usize;
            let end = match (self.winner, self.choice.chosen()) {
                (Some(winner), _) if winner == number => ArmEnd::Won,
                // A waker chose this arm, but the wait ended otherwise: the arm passes on what it was given.
                (_, Some(chosen)) if chosen == number => ArmEnd::Aborted,
                _ => ArmEnd::Lost,
            };
            self.arms[number].0.unregister(end);
        }
    }
}

/// Waits until an arm went on, or until `until`. The shuffle is that of a round that found nothing.
fn wait_for<'l>(
    arms: &[AnyArm<'l>],
    nodes: &[WaitNode],
    shuffle: Shuffle<'_>,
    until: u64,
    what: &'static str,
) -> Option<usize> {
    let timer = earliest(arms).filter(|(_, at)| *at <= until);
    let caller = match (cancel::obstacle(), Caller::current()) {
        (None, Ok(caller)) => caller,
        // As in other calls that may not wait: a call with a time limit reaches it at once.
        (obstacle, other) => match (timer, obstacle, other) {
            (Some((number, _)), ..) => return Some(number),
            (None, ..) if until != FOR_EVER => return None,
            (None, Some(obstacle), _) => refused(what, &obstacle),
            (None, None, Err(error)) => refused(what, &error),
            (None, None, Ok(_)) => unreachable!("nothing is in the way"),
        },
    };
    let Caller { hub, fiber: me, .. } = caller;
    let deadline = timer.map_or(until, |(_, at)| at);
    choose_among(me, nodes, |choice: &Choice<'_, 'l>| {
        let mut registered = Registered { arms, choice, shuffle, count: 0, winner: None };
        // In the order of the shuffle: several arms may wait in one list, and a waker that takes out the first takes
        // any of them.
        for step in 0..arms.len() {
            let number = registered.shuffle.numbers[step] as usize;
            registered.count = step + 1;
            match arms[number].0.register((me.id.get(), number)) {
                Ok(Some(list)) => choice.join(number, list),
                Ok(None) => {}
                Err(AlreadyWon) => return registered.won(number),
            }
        }
        // Count the waits that something outside this hub may end: they are no deadlock.
        let descriptors = arms.iter().any(|arm| arm.0.is_descriptor());
        let _waiting = descriptors.then(|| Counted::in_count(&hub.reactor().waiting));
        let remote = arms.iter().any(|arm| arm.0.is_remote());
        let _job = remote.then(|| Counted::in_count(&hub.jobs));
        // A fiber that waits for another OS thread must say so: remote ops to other waits are not delivered.
        let reason = if remote { Reason::Remote(what) } else { Reason::Event(what) };
        loop {
            let woken = caller.park(reason, deadline);
            if let Some(number) = choice.chosen() {
                // The result is the caller's, whatever else came.
                arms[number].0.accept();
                return registered.won(number);
            }
            let woken = match woken {
                Ok(woken) => woken,
                Err(obstacle) => refused(what, &obstacle),
            };
            if let Some(number) = registered.shuffle.try_select_again(arms) {
                return registered.won(number);
            }
            // An arm's timer that fired early is waited for again; only the call's own limit ends the call.
            if woken == Wake::TimedOut && deadline == until {
                return None;
            }
        }
    })
}

/// Panics with the thread that could not wait, and why.
#[cold]
fn refused(what: &'static str, why: &dyn fmt::Display) -> ! {
    let me = try_root().map_or(u64::MAX, |root| root.current().id.get());
    panic!("greenling: {} cannot wait for {what}: {why}", label_of(me));
}
