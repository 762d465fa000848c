//! The hall of a server: who is in it, how one gets in, and how one leaves.
//!
//! ```text
//!   kernel's queue -- accept --> door -- limit.enter --> guest: a green thread and an entry --> Seat::drop: counted, once
//!                                 ^                                        |
//!                     full: waits here, one at most         handler returns, fails, panics, is killed
//! ```
//!
//! * Invariant G1: each connection that was accepted and is not in the door has an entry in `guests` until its `Seat` is
//!   dropped, and the drop counts it in exactly one counter. The seat travels inside the closure of the guest's thread, so
//!   it is dropped however the thread ends, also if it never starts.
//! * Invariant G2: the stream is closed before the seat is given back, so a limit on connections is one on descriptors too.
//! * No borrow of `guests` is held while a handler, or the drop of one, runs.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::panicking;
use std::time::Duration;

use super::handle::{Member, ServerHandle};
use super::limit::Limit;
use crate::interrupt::timeout;
use crate::net::options::{Stage, Watch};
use crate::pure::slab::{Key, Slab};
use crate::runtime::hub::hub;
use crate::runtime::park::NEVER;
use crate::runtime::remote::{Waiter, wait};
use crate::runtime::source::after;
use crate::switch::cancel::unwinds_quietly;
use crate::switch::fiber::{Fiber, FiberRef, Reason, State};
use crate::switch::root::try_root;
use crate::sys::socket::{AcceptError, sort_accept_error};
use crate::thread::{Builder, yield_now};

/// How long accepting is put off at first when there are no descriptors; twice as long each time, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Is told something by the server.
pub(super) type Callback<T> = Box<dyn Fn(&T)>;

/// What the builder was told.
pub(super) struct Settings {
    /// Connections accepted before the others have their turn.
    pub(super) accept_budget: u32,
    /// Bytes of stack of a handler; none: the hub's default.
    pub(super) stack_size: Option<usize>,
    /// How long a client may take for its first byte.
    pub(super) first_byte: Option<Duration>,
    /// How long one read or write may wait.
    pub(super) idle: Option<Duration>,
    /// How long a connection may last.
    pub(super) total: Option<Duration>,
    /// How long a drain lets connections go on.
    pub(super) grace: Duration,
    /// Whether a drain closes connections that wait for their next request.
    pub(super) close_idle: bool,
    /// Whether clients are turned away when there are no descriptors, in place of waiting.
    pub(super) refuse: bool,
    /// Is told why accepting was put off.
    pub(super) on_accept_error: Option<Callback<io::Error>>,
    /// Is told how many are still there when a drain begins.
    pub(super) on_drain: Option<Callback<usize>>,
}

impl Settings {
    /// Time limits of zero would be no limits at all to some and no time to others.
    ///
    /// # Errors
    /// `InvalidInput` if there is one.
    pub(super) fn check(&self) -> io::Result<()> {
        if [self.first_byte, self.idle, self.total].contains(&Some(Duration::ZERO)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a server's time limit of zero"));
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            accept_budget: 64,
            stack_size: None,
            first_byte: None,
            idle: None,
            total: None,
            grace: Duration::from_secs(5),
            close_idle: true,
            refuse: false,
            on_accept_error: None,
            on_drain: None,
        }
    }
}

/// Where guests come from: a listener whose connections they are, or a socket whose datagrams they are. The comments below
/// speak of connections.
pub(super) trait Port {
    /// Somebody who has come.
    type Arrived: 'static;

    /// Waits for somebody.
    fn accept(&self) -> io::Result<Self::Arrived>;

    /// Somebody who waits already, or `WouldBlock`.
    fn accept_waiting(&self) -> io::Result<Self::Arrived>;

    /// Whether somebody waits, for a caller that cannot take him.
    fn has_waiting(&self) -> bool;

    /// From now on as few new ones as possible are let into the queue.
    fn take_no_more(&self);

    /// Nobody is let in any more; the queue is gone.
    fn close(&self);

    /// The way to see whether a guest is idle: its descriptor and the stage of its conversation. None if it never is.
    fn watch(arrived: &Self::Arrived) -> Option<(RawFd, Watch)>;
}

/// What a server has, apart from its handler.
pub(super) struct Core<P: Port> {
    /// Where connections come from.
    pub(super) port: P,
    /// What the builder was told.
    pub(super) settings: Settings,
    /// How many there may be.
    pub(super) limit: Limit,
    /// What it is asked to do.
    pub(super) handle: ServerHandle,
    /// What it counts, and the way to wake its supervisor.
    pub(super) member: Arc<Member>,
    /// Who is served.
    pub(super) guests: RefCell<Slab<Guest>>,
    /// A connection that was accepted when there was no room any more.
    pub(super) door: Cell<Option<P::Arrived>>,
    /// Whoever waits until a guest leaves: the acceptor that has no descriptors, or the supervisor in a drain.
    pub(super) on_leave: Cell<Option<Waiter>>,
    /// A descriptor to give up when there is no other, if clients are to be turned away then.
    pub(super) reserve: Cell<Option<File>>,
    /// Why the acceptor has ended by itself.
    pub(super) accept_error: Cell<Option<io::Error>>,
    /// The acceptor has ended, be it by a panic.
    pub(super) acceptor_ended: Cell<bool>,
}

/// The core and the handler.
pub(super) struct Hall<P: Port, H> {
    /// All but the handler.
    pub(super) core: Core<P>,
    /// Serves one connection, within the limits of the settings.
    pub(super) handler: H,
}

/// Somebody who is served. Small, since there is one for each connection.
pub(super) struct Guest {
    /// The thread, which nobody joins; none until it was spawned.
    thread: Cell<Option<FiberRef>>,
    /// The way to see where its conversation stands, if a drain wants to know.
    watch: Option<Watch>,
    /// Its descriptor, to be compared with what the thread waits for; meaningful if there is a `watch`.
    fd: RawFd,
    /// What the server has decided.
    fate: Cell<Fate>,
}

/// What the server has decided about a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays as long as it likes.
    Free,
    /// It was killed because it was idle.
    Idle,
    /// It was killed because there is no time left.
    Killed,
}

/// How the handler of a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Well.
    Completed,
    /// With an error.
    Failed,
    /// With an error that says that a time limit was reached.
    TimedOut,
}

/// What a handler may return: nothing, or an `io::Result` whose errors are counted. An error of kind `WouldBlock` counts as that
/// of the idle time limit, if there is one.
///
/// It cannot be implemented for other types.
pub trait Served: sealed::Sealed {}

/// Keeps the trait's method to this crate.
pub(super) mod sealed {
    /// See [`Served`](super::Served).
    pub trait Sealed {
        /// How it went; `limited`: there is an idle time limit.
        fn outcome(self, limited: bool) -> Outcome;
    }

    /// [`End`](super::End), as a type that the public trait may name.
    #[derive(Debug)]
    pub struct Outcome(pub(in crate::server) super::End);
}

use sealed::{Outcome, Sealed};

impl Served for () {}

impl Sealed for () {
    fn outcome(self, _limited: bool) -> Outcome {
        Outcome(End::Completed)
    }
}

impl<T> Served for io::Result<T> {}

impl<T> Sealed for io::Result<T> {
    fn outcome(self, limited: bool) -> Outcome {
        Outcome(match self {
            Ok(_) => End::Completed,
            Err(error) if limited && error.kind() == io::ErrorKind::WouldBlock => End::TimedOut,
            Err(_) => End::Failed,
        })
    }
}

/// How a handler that returned `value` ended; `limited`: there is an idle time limit.
#[inline]
pub(super) fn outcome_of(value: impl Served, limited: bool) -> End {
    value.outcome(limited).0
}

/// Runs a handler, for `total` at most.
#[inline]
pub(super) fn served_within(total: Option<Duration>, serve: impl FnOnce() -> End) -> End {
    match total {
        None => serve(),
        // An error other than `Elapsed` says that nothing can be interrupted here.
        Some(total) => timeout(total, serve).unwrap_or(End::TimedOut),
    }
}

impl Guest {
    /// Whether it waits for a client that has not asked for anything: see `Stage`. With `fresh` those count that have
    /// never got a byte.
    fn is_idle(&self, fresh: bool) -> bool {
        let (Some(thread), Some(watch)) = (self.fiber(), &self.watch) else { return false };
        let waits = thread.state.get() == State::Parked && thread.waits_for() == Reason::Read(self.fd);
        waits
            && match watch.stage() {
                Stage::NextRequest => true,
                Stage::Fresh | Stage::FirstByte => fresh,
                Stage::Busy | Stage::Answered => false,
            }
    }

    /// The thread, if it has not ended.
    fn fiber(&self) -> Option<Fiber> {
        try_root()?.resolve(self.thread.get()?)
    }
}

impl<P: Port> Core<P> {
    /// How many are served, or wait in the door.
    pub(super) fn active(&self) -> usize {
        let door = self.door.take();
        let waits = usize::from(door.is_some());
        self.door.set(door);
        self.guests.borrow().len() + waits
    }

    /// The caller waits until a guest leaves or the time has come; or for nothing.
    pub(super) fn wait_for_a_leave(&self, what: &'static str, deadline: u64) {
        let Ok((root, hub)) = hub() else { return };
        let me = root.current();
        self.on_leave.set(Some(Waiter::new(root, hub, me)));
        // Whoever calls this does not unwind, or has looked.
        let _ = wait(root, hub, me, what, true, deadline);
        self.on_leave.set(None);
    }

    /// The acceptor waits until there may be room.
    fn wait_for_room(&self) {
        let Ok((root, hub)) = hub() else { return };
        let me = root.current();
        if self.limit.tell(Waiter::new(root, hub, me)) {
            // The acceptor does not unwind, and if it is killed the wait does so.
            let _ = wait(root, hub, me, "room for another connection of a server", true, NEVER);
        }
    }

    /// There are no descriptors: tells, turns clients away if that is wanted, else waits until there may be some.
    fn make_do(&self, error: &io::Error, pause: &mut Duration) {
        self.member.tally.backoffs.add_one();
        if let Some(tell) = &self.settings.on_accept_error {
            tell(error);
        }
        if self.turn_some_away() {
            return yield_now();
        }
        self.wait_for_a_leave("descriptors for another connection of a server", after(*pause));
        *pause = LONGEST_PAUSE.min(2 * *pause);
    }

    /// Accepts and closes connections with the descriptor in reserve. Says whether the queue is known to be shorter now; if it
    /// is empty, the next `accept` waits.
    fn turn_some_away(&self) -> bool {
        for turned_away in 0..self.settings.accept_budget {
            let Some(reserve) = self.reserve.take() else { return turned_away > 0 };
            drop(reserve);
            let arrived = self.port.accept_waiting();
            let gone = match arrived {
                Ok(arrived) => {
                    self.refuse(arrived);
                    None
                }
                Err(error) => Some(error.kind() == io::ErrorKind::WouldBlock),
            };
            self.reserve.set(File::open("/dev/null").ok());
            if let Some(queue_is_empty) = gone {
                return queue_is_empty || turned_away > 0;
            }
        }
        true
    }

    /// There are descriptors again: one of them is for the reserve, if it was lost to somebody else.
    fn restock(&self) {
        if self.settings.refuse {
            let reserve = self.reserve.take().or_else(|| File::open("/dev/null").ok());
            self.reserve.set(reserve);
        }
    }

    /// What is in the kernel's queue when nothing can be taken out of it.
    fn what_waits(&self) -> Swept {
        if self.port.has_waiting() { Swept::NoRoom } else { Swept::Empty }
    }

    /// Closes a connection without serving it.
    pub(super) fn refuse(&self, arrived: P::Arrived) {
        self.member.tally.accepted.add_one();
        self.member.tally.refused.add_one();
        drop(arrived);
    }

    /// Kills the guests that are chosen, unless they were killed before.
    pub(super) fn kill(&self, fate: Fate, chosen: impl Fn(&Guest) -> bool) {
        for (_, guest) in self.guests.borrow().iter() {
            if guest.fate.get() == Fate::Free && chosen(guest) {
                guest.fate.set(fate);
                if let (Some(root), Some(thread)) = (try_root(), guest.fiber()) {
                    // It marks and wakes, and runs nobody.
                    root.kill(thread);
                }
            }
        }
    }

    /// Kills the idle ones.
    pub(super) fn close_idle(&self, fresh: bool) {
        if self.settings.close_idle {
            self.kill(Fate::Idle, |guest| guest.is_idle(fresh));
        }
    }
}

impl<P, H> Hall<P, H>
where
    P: Port + 'static,
    H: Fn(P::Arrived, &Settings) -> End + 'static,
{
    /// Gives whoever waits in the door a thread, if there is room. Says whether the door is free now.
    pub(super) fn let_in(self: &Rc<Self>) -> bool {
        let Some(arrived) = self.core.door.take() else { return true };
        if !self.core.limit.enter() {
            self.core.door.set(Some(arrived));
            return false;
        }
        self.core.member.tally.accepted.add_one();
        let watch = if self.core.settings.close_idle { P::watch(&arrived) } else { None };
        let (fd, watch) = watch.map_or((-1, None), |(fd, watch)| (fd, Some(watch)));
        let guest = Guest { thread: Cell::new(None), watch, fd, fate: Cell::new(Fate::Free) };
        let key = self.core.guests.borrow_mut().insert(guest);
        let seat = Seat { hall: Rc::clone(self), key, end: Cell::new(None) };
        let life = Life { arrived, seat };
        let builder = match self.core.settings.stack_size {
            None => Builder::new(),
            Some(size) => Builder::new().stack_size(size),
        };
        // An error drops the closure, and the seat counts it.
        if let Ok(thread) = builder.spawn(move || life.live())
            && let Some(guest) = self.core.guests.borrow().get(key)
        {
            guest.thread.set(Some(thread.fiber_ref()));
        }
        true
    }

    /// Accepts until the listener fails, or for ever; returns why.
    pub(super) fn accept(self: &Rc<Self>) -> io::Error {
        let core = &self.core;
        let (mut pause, mut in_a_row, mut strays) = (FIRST_PAUSE, 0, 0);
        loop {
            if core.limit.is_full() {
                core.wait_for_room();
                continue;
            }
            match core.port.accept() {
                Ok(arrived) => {
                    (pause, strays) = (FIRST_PAUSE, 0);
                    core.restock();
                    core.door.set(Some(arrived));
                    // Another hub may have taken the room meanwhile.
                    while !self.let_in() {
                        core.wait_for_room();
                    }
                }
                Err(error) => match sort_accept_error(&error) {
                    AcceptError::OneConnection => {
                        core.member.tally.aborted.add_one();
                        strays += 1;
                        // So many, and nobody in between: it is a rule of this machine that keeps all out, and they stay in
                        // line.
                        if strays >= core.settings.accept_budget {
                            core.make_do(&error, &mut pause);
                        }
                    }
                    AcceptError::Exhausted => core.make_do(&error, &mut pause),
                    AcceptError::Listener => return error,
                },
            }
            in_a_row += 1;
            if in_a_row >= core.settings.accept_budget {
                in_a_row = 0;
                yield_now();
            }
        }
    }

    /// Accepts what waits already, as far as there is room and descriptors, but not more than the budget. Says how many.
    pub(super) fn sweep(self: &Rc<Self>) -> (u64, Swept) {
        let core = &self.core;
        let mut accepted = 0;
        for _ in 0..core.settings.accept_budget {
            if !self.let_in() {
                return (accepted, Swept::NoRoom);
            }
            if core.limit.is_full() {
                return (accepted, core.what_waits());
            }
            match core.port.accept_waiting() {
                Ok(arrived) => {
                    accepted += 1;
                    core.door.set(Some(arrived));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (accepted, Swept::Empty),
                Err(error) => match sort_accept_error(&error) {
                    AcceptError::OneConnection => core.member.tally.aborted.add_one(),
                    AcceptError::Exhausted => {
                        core.member.tally.backoffs.add_one();
                        return (accepted, core.what_waits());
                    }
                    AcceptError::Listener => return (accepted, Swept::Empty),
                },
            }
        }
        let swept = if self.let_in() { Swept::More } else { Swept::NoRoom };
        (accepted, swept)
    }
}

/// What a sweep leaves in the kernel's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swept {
    /// Nothing.
    Empty,
    /// Perhaps more; it was enough for one turn.
    More,
    /// More, for which there is no room now, or no descriptor.
    NoRoom,
}

/// A guest's thread: what its closure holds. The connection is dropped before the seat (G2).
struct Life<P: Port, H> {
    /// The connection.
    arrived: P::Arrived,
    /// Its seat.
    seat: Seat<P, H>,
}

impl<P, H> Life<P, H>
where
    P: Port,
    H: Fn(P::Arrived, &Settings) -> End,
{
    /// From the first byte to the last.
    #[inline]
    fn live(self) {
        let seat = self.seat;
        // The handler drops the connection, hence before the seat (G2).
        let end = (seat.hall.handler)(self.arrived, &seat.hall.core.settings);
        seat.end.set(Some(end));
    }
}

/// The right to be served; given back when dropped.
struct Seat<P: Port, H> {
    /// Where.
    hall: Rc<Hall<P, H>>,
    /// Which.
    key: Key,
    /// How the handler ended, if it did.
    end: Cell<Option<End>>,
}

impl<P: Port, H> Drop for Seat<P, H> {
    #[cold]
    fn drop(&mut self) {
        let core = &self.hall.core;
        let guest = core.guests.borrow_mut().remove(self.key);
        let tally = &core.member.tally;
        let spawned = guest.as_ref().is_some_and(|guest| guest.thread.get().is_some());
        let fate = guest.as_ref().map_or(Fate::Killed, |guest| guest.fate.get());
        let count = match self.end.get() {
            Some(End::Completed) => &tally.completed,
            Some(End::Failed) => &tally.failed,
            Some(End::TimedOut) => &tally.timed_out,
            None if !spawned => &tally.refused,
            None if panicking() && !unwinds_quietly() => &tally.panicked,
            None if fate == Fate::Idle => &tally.closed_idle,
            None => &tally.killed,
        };
        count.add_one();
        core.limit.leave();
        if let Some(waiter) = core.on_leave.take() {
            waiter.wake();
        }
    }
}
