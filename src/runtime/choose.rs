//! Waiting for several things at once: the machine under `select!`.
//!
//! ```text
//!   look at each arm ---- one can go on ---------------------------------------------------------> done
//!     | none can
//!     v
//!   join the list of each arm, with a node of its own
//!     |
//!     v                    somebody chose an arm (all nodes are out of their lists): it is complete -> done
//!   park -- woken -------> nobody did: look at each arm again; none can go on: park
//!        -- time is up --> the timer's arm ---------------------------------------------------------> done
//!        -- kill --------> an arm that was chosen passes on what it got; all lists are left; unwind
//! ```
//!
//! A waker has two ways to tell a waiter. It may *choose* it: take it out of its list, which makes what was waited for the
//! waiter's own (locks, events, channels; see `switch::wait_node` for why at most one arm is chosen). Or it may *wake* it
//! and leave it in the list, to look for itself (descriptors, the end of a channel). An arm knows which of the two its list
//! does, and the machine serves both.
//!
//! * Invariant K1: each arm that was entered is left, once, after all nodes are out of their lists, with the truth about
//!   how it ended. Upheld by the destructor of `Entered`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::hub::{Hub, ending, hub_of};
use super::park::{Counted, NEVER, Wake, park};
use super::reactor::{Direction, Registration};
use super::report::label_of;
use super::source::{Source, closed};
use crate::switch::cancel;
use crate::switch::fiber::Reason;
use crate::switch::root::{Root, try_root};
use crate::switch::wait_list::WaitList;
use crate::switch::wait_node::{Choice, WaitNode, choose_among};
use crate::sys::clock::monotonic_ns;
use crate::sys::epoll::Interest;
use crate::sys::socket;

/// How an arm that was entered ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is the one: `look` said yes, or it was chosen.
    Won,
    /// Another one is, or the wait unwinds.
    Lost,
    /// It was chosen, but the wait unwinds: what it got must be passed on.
    InVain,
}

/// Who waits, for arms that leave something where they wait: the fiber's id, and the number of the arm.
pub(crate) type Who = (u64, usize);

/// One thing to wait for. Arms keep their results in cells, so that lists inside them can be joined meanwhile.
pub(crate) trait Arm {
    /// Whether it can go on now. If so it does, and keeps the result. Called before the wait, and after wake-ups that chose
    /// nobody. It does not switch: another arm could be chosen meanwhile.
    fn look(&self) -> bool;

    /// The wait begins: leaves or registers whatever the wakers need. The list to wait in, if there is one.
    ///
    /// # Errors
    /// If that failed, or it can go on meanwhile. The arm keeps its result, and has won.
    fn enter(&self, who: Who) -> Result<Option<&WaitList>, Failed>;

    /// Somebody chose it: keeps the result.
    fn complete(&self);

    /// It has left its list.
    fn left(&self, end: End);

    /// When it can go on even if nobody wakes it: monotonic nanoseconds.
    fn deadline(&self) -> u64 {
        NEVER
    }

    /// Whether the kernel may wake it.
    fn is_descriptor(&self) -> bool {
        false
    }

    /// Whether another OS thread may wake it, by a [`Waiter`](super::remote::Waiter) that `enter` left.
    fn is_remote(&self) -> bool {
        false
    }
}

/// See [`Arm::enter`].
#[derive(Debug)]
pub(crate) struct Failed;

/// An arm whose type does not matter any more; only `select!` makes one.
#[derive(Clone, Copy)]
pub struct AnyArm<'l>(&'l dyn Arm);

impl<'l> AnyArm<'l> {
    /// Forgets the type.
    pub(crate) fn new(arm: &'l dyn Arm) -> AnyArm<'l> {
        AnyArm(arm)
    }
}

impl fmt::Debug for AnyArm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyArm").finish_non_exhaustive()
    }
}

/// Which arm is taken if several can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The looking begins at an arm drawn by lot.
    Fair,
    /// The first one that is written.
    Biased,
}

thread_local! {
    /// The state of the lot; any number but 0. The same in every run, so that programs repeat.
    static LOT: Cell<u64> = const { Cell::new(0x9E37_79B9_7F4A_7C15) };
}

/// Where to begin among `count` arms. Drawn, not counted up: two `select!`s that take turns would otherwise always get the
/// same half of the counter's values.
fn begin(order: Order, count: usize) -> usize {
    if order == Order::Biased {
        return 0;
    }
    // Marsaglia's xorshift; its upper bits are the better ones.
    let mut lot = LOT.get();
    lot ^= lot << 13;
    lot ^= lot >> 7;
    lot ^= lot << 17;
    LOT.set(lot);
    (lot >> 32) as usize % count
}

/// The arm that can go on, of several the one that `order` says.
fn look(arms: &[AnyArm<'_>], order: Order) -> Option<usize> {
    let first = begin(order, arms.len());
    (first..arms.len()).chain(0..first).find(|&number| arms[number].0.look())
}

/// The number of the arm that went on. With `wait` false, `None` if none can without waiting. `what` names the arms, for
/// reports.
///
/// # Panics
/// If it would have to wait without a time limit while the caller unwinds. As `park`.
pub fn select<const N: usize>(arms: [AnyArm<'_>; N], order: Order, wait: bool, what: &'static str) -> Option<usize> {
    match look(&arms, order) {
        None if wait => {
            let nodes = [const { WaitNode::new() }; N];
            Some(wait_for(&arms, &nodes, order, what))
        }
        found => found,
    }
}

/// The arm whose time is up first.
fn earliest(arms: &[AnyArm<'_>]) -> Option<(usize, u64)> {
    let deadlines = arms.iter().enumerate().map(|(number, arm)| (number, arm.0.deadline()));
    deadlines.filter(|(_, at)| *at != NEVER).min_by_key(|(_, at)| *at)
}

/// Arms that were entered, and how far their wait is.
struct Entered<'a, 'n, 'l> {
    /// All of them.
    arms: &'a [AnyArm<'l>],
    /// Their places in lists.
    choice: &'a Choice<'n, 'l>,
    /// How many were entered, from the first on.
    count: usize,
    /// Who won, once it is complete.
    winner: Option<usize>,
}

impl Entered<'_, '_, '_> {
    /// The wait is over, and this arm has its result. Leaves them all.
    fn won(mut self, number: usize) -> usize {
        self.winner = Some(number);
        number
    }
}

impl Drop for Entered<'_, '_, '_> {
    fn drop(&mut self) {
        self.choice.leave_all();
        for (number, arm) in self.arms[..self.count].iter().enumerate() {
            let end = match (self.winner, self.choice.chosen()) {
                (Some(winner), _) if winner == number => End::Won,
                (_, Some(chosen)) if chosen == number => End::InVain,
                _ => End::Lost,
            };
            arm.0.left(end);
        }
    }
}

/// Waits until an arm went on.
fn wait_for<'l>(arms: &[AnyArm<'l>], nodes: &[WaitNode], order: Order, what: &'static str) -> usize {
    let timer = earliest(arms);
    let (root, hub) = match (cancel::obstacle(), usable_root()) {
        (None, Ok(root)) => root,
        // As of other calls that may not wait: who has a time limit gets it at once.
        (obstacle, other) => match (timer, obstacle, other) {
            (Some((number, _)), ..) => return number,
            (None, Some(obstacle), _) => refused(what, &obstacle),
            (None, None, Err(error)) => refused(what, &error),
            (None, None, Ok(_)) => unreachable!("nothing is in the way"),
        },
    };
    let me = root.current();
    choose_among(me, nodes, |choice: &Choice<'_, 'l>| {
        let mut entered = Entered { arms, choice, count: 0, winner: None };
        for (number, arm) in arms.iter().enumerate() {
            entered.count = number + 1;
            match arm.0.enter((me.id.get(), number)) {
                Ok(Some(list)) => choice.join(number, list),
                Ok(None) => {}
                Err(Failed) => return entered.won(number),
            }
        }
        let descriptors = arms.iter().any(|arm| arm.0.is_descriptor());
        let _counted = descriptors.then(|| Counted::in_count(&hub.reactor().waiting));
        let remote = arms.iter().any(|arm| arm.0.is_remote());
        let _counted_too = remote.then(|| Counted::in_count(&hub.jobs));
        // Who waits for another OS thread must say so: letters to others are not delivered.
        let reason = if remote { Reason::Remote(what) } else { Reason::Event(what) };
        loop {
            let woken = park(root, hub, me, reason, timer.map_or(NEVER, |it| it.1));
            if let Some(number) = choice.chosen() {
                // It is the caller's, whatever else came.
                arms[number].0.complete();
                return entered.won(number);
            }
            match woken {
                Ok(Wake::Woken) => {
                    if let Some(number) = look(arms, order) {
                        return entered.won(number);
                    }
                }
                Ok(Wake::TimedOut) => {
                    if let Some((number, _)) = timer {
                        return entered.won(number);
                    }
                }
                Err(obstacle) => refused(what, &obstacle),
            }
        }
    })
}

/// The hub of this OS thread.
fn usable_root() -> io::Result<(&'static Root, &'static Hub)> {
    let root = try_root().ok_or_else(ending)?;
    Ok((root, hub_of(root)?))
}

/// Panics with who could not wait, and why.
#[cold]
fn refused(what: &'static str, why: &dyn fmt::Display) -> ! {
    let me = try_root().map_or(u64::MAX, |root| root.current().id.get());
    panic!("greenling: {} cannot wait for {what}: {why}", label_of(me));
}

/// An arm that goes on at a point in time.
#[derive(Debug)]
pub struct TimerArm {
    /// Monotonic nanoseconds.
    at: u64,
}

impl TimerArm {
    /// At `at`, in monotonic nanoseconds.
    pub(crate) fn new(at: u64) -> TimerArm {
        TimerArm { at }
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm(self)
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn finish(self) {}
}

impl Arm for TimerArm {
    fn look(&self) -> bool {
        self.at <= monotonic_ns()
    }

    fn enter(&self, _: Who) -> Result<Option<&WaitList>, Failed> {
        Ok(None)
    }

    fn complete(&self) {}

    fn left(&self, _: End) {}

    fn deadline(&self) -> u64 {
        self.at
    }
}

/// An arm that goes on when a descriptor is ready.
pub struct ReadyArm<'a> {
    /// The descriptor; none if it was closed.
    fd: Option<BorrowedFd<'a>>,
    /// What the hub knows of it.
    registration: &'a Rc<Registration>,
    /// Ready for what.
    direction: Direction,
    /// The result.
    result: Cell<Option<io::Result<()>>>,
    /// Whether it stands in the list, and so has the next turn to pass on.
    waits: Cell<bool>,
}

impl<'a> ReadyArm<'a> {
    /// For `source` in this direction.
    pub(crate) fn new<F: AsFd>(source: &'a Source<F>, direction: Direction) -> ReadyArm<'a> {
        ReadyArm {
            fd: source.open().ok().map(AsFd::as_fd),
            registration: source.registration(),
            direction,
            result: Cell::new(None),
            waits: Cell::new(false),
        }
    }

    /// For `select!`.
    #[doc(hidden)]
    pub fn erase(&self) -> AnyArm<'_> {
        AnyArm(self)
    }

    /// For `select!`.
    ///
    /// # Errors
    /// If the descriptor was closed, or cannot be waited for.
    #[doc(hidden)]
    pub fn finish(self) -> io::Result<()> {
        match self.result.take() {
            Some(result) => result,
            None => unreachable!("only the arm that won is asked"),
        }
    }

    /// The kernel says that there is nothing to do after all. Call it before anything else runs.
    pub(crate) fn not_ready(&self) {
        self.registration.clear_all(self.direction);
    }

    /// Whether the caller's turn has come, and there is something to do: the kernel is asked, since what the hub knows may
    /// be that it was ready once.
    fn is_ready(&self) -> io::Result<bool> {
        let Some(fd) = self.fd.filter(|_| !self.registration.is_closed()) else { return Err(closed()) };
        if !self.waits.get() && !self.registration.waiters(self.direction).is_empty()
            || !self.registration.worth_trying(self.direction)
        {
            return Ok(false);
        }
        let interest = match self.direction {
            Direction::Read => Interest::IN | Interest::RDHUP,
            Direction::Write => Interest::OUT,
        };
        let ready = !socket::poll_one(fd, interest, Some(0))?.is_empty();
        if !ready {
            self.not_ready();
        }
        Ok(ready)
    }
}

impl fmt::Debug for ReadyArm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyArm").field("direction", &self.direction).finish_non_exhaustive()
    }
}

impl Arm for ReadyArm<'_> {
    fn look(&self) -> bool {
        match self.is_ready() {
            Ok(false) => false,
            Ok(true) => {
                self.result.set(Some(Ok(())));
                true
            }
            Err(error) => {
                self.result.set(Some(Err(error)));
                true
            }
        }
    }

    fn enter(&self, _: Who) -> Result<Option<&WaitList>, Failed> {
        if let Some(fd) = self.fd
            && !self.registration.is_registered()
        {
            let registered = usable_root().and_then(|(_, hub)| hub.reactor().register(fd, self.registration));
            if let Err(error) = registered {
                self.result.set(Some(Err(error)));
                return Err(Failed);
            }
        }
        self.waits.set(true);
        Ok(Some(self.registration.waiters(self.direction)))
    }

    /// Only the close of the descriptor takes waiters out of their list.
    fn complete(&self) {
        self.result.set(Some(Err(closed())));
    }

    fn left(&self, _: End) {
        if self.waits.take() {
            self.registration.pass_on(self.direction);
        }
    }

    fn is_descriptor(&self) -> bool {
        true
    }
}
