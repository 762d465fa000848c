//! The life of a server from its first connection to its report: the supervisor.
//!
//! ```text
//!   supervisor:  spawn the acceptor -> wait until asked -> kill the acceptor -> drain -> report
//!
//!   drain:   1 the kernel takes no more     2 the queue is served     3 the idle are closed, the busy go on
//!            4 the grace ends: who is left is killed     5 the report
//! ```
//!
//! The supervisor is whoever called `run`, or the thread that `start` spawned. It never serves and never accepts while the
//! acceptor lives, so it can always be asked; and it kills the acceptor, which a kill reaches in any of its waits with
//! nothing in its hands but what lies in the door, where the drain finds it.
//!
//! * Invariant D1: when the supervisor is gone, however it went, the port is closed, the acceptor and all guests are dead or
//!   have a kill in their way, and the handle does not know it any more. `Running` upholds it by its drop.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hall::{Core, End, Fate, Hall, Port, Settings, Swept};
use super::handle::{Asked, Counters, Member, ServerHandle, Tally};
use super::limit::Limit;
use crate::net::BACKLOG;
use crate::pure::slab::Slab;
use crate::runtime::hub::hub;
use crate::runtime::park::NEVER;
use crate::runtime::remote::{Waiter, wait};
use crate::runtime::source::after;
use crate::signal::Signals;
use crate::switch::cancel;
use crate::sys::clock::monotonic_ns;
use crate::thread::{Builder, JoinHandle, sleep, yield_now};

/// A client that has connected and never sent a byte counts as idle so long after the beginning of a drain: its request may
/// be on the way.
const FRESH: Duration = Duration::from_secs(1);

/// How often a drain looks who is idle.
const SCAN: Duration = Duration::from_millis(10);

/// How often a drain looks whether there are descriptors or room for who is still in the kernel's queue, if nobody leaves.
const RETRY: Duration = Duration::from_millis(50);

/// How long killed handlers may take to unwind.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// More than a queue can hold: against a kernel that goes on filling it.
const MOST_IN_QUEUE: u64 = 2 * BACKLOG as u64;

/// How a server came to its end.
///
/// Each connection that was there is accounted for: `active_at_start + from_backlog` is the sum of `finished`,
/// `closed_idle`, `killed`, `stuck` and `turned_away`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// What was counted since the server began, the drain included.
    pub counters: Counters,
    /// Connections that were served when the drain began.
    pub active_at_start: u64,
    /// Connections that were in the kernel's queue when the drain began.
    pub from_backlog: u64,
    /// Handlers that ended by themselves during the drain, well or not.
    pub finished: u64,
    /// Connections that were closed since they waited for their next request.
    pub closed_idle: u64,
    /// Handlers that were killed since the grace was over, or there was none.
    pub killed: u64,
    /// Handlers that go on although they were killed: they compute, are shielded, or swallow the kill. They are left alone,
    /// and are killed once more when their hub ends.
    pub stuck: u64,
    /// Connections that were closed without being served, since there was no room, descriptor or stack for them in time.
    pub turned_away: u64,
    /// Whether it was cut short: by [`force`](ServerHandle::force) or a second signal.
    pub forced: bool,
    /// Why accepting had ended by itself, if that was the reason of the drain.
    pub accept_error: Option<io::ErrorKind>,
    /// How long the drain took.
    pub took: Duration,
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DrainReport { active_at_start, from_backlog, finished, closed_idle, killed, stuck, turned_away, .. } = self;
        write!(f, "drained {active_at_start} connections and {from_backlog} from the queue in {:?}: ", self.took)?;
        write!(f, "{finished} finished, {closed_idle} were idle, {killed} killed")?;
        for (count, what) in [(stuck, "could not be killed"), (turned_away, "turned away")] {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.forced { f.write_str(" (forced)") } else { Ok(()) }
    }
}

/// What a server needs to begin.
pub(super) struct Ready<P> {
    /// Where connections come from.
    pub(super) port: P,
    /// What the builder was told.
    pub(super) settings: Settings,
    /// How many there may be.
    pub(super) limit: Limit,
    /// What it is asked to do.
    pub(super) handle: ServerHandle,
    /// Signals that ask for a drain.
    pub(super) signals: Option<Signals>,
}

/// A server that runs: see D1.
struct Running<P: Port, H> {
    /// Who is in it.
    hall: Rc<Hall<P, H>>,
    /// Accepts.
    acceptor: Option<JoinHandle<()>>,
    /// Waits for signals.
    watcher: Option<JoinHandle<()>>,
}

impl<P: Port, H> Drop for Running<P, H> {
    fn drop(&mut self) {
        let core = &self.hall.core;
        for thread in [self.acceptor.take(), self.watcher.take()].into_iter().flatten() {
            thread.kill();
        }
        core.port.close();
        drop(core.door.take());
        core.kill(Fate::Killed, |_| true);
        core.handle.leave(&core.member);
    }
}

/// Says that the acceptor has ended, when it is dropped.
struct Ended<P: Port, H>(Rc<Hall<P, H>>);

impl<P: Port, H> Drop for Ended<P, H> {
    fn drop(&mut self) {
        self.0.core.acceptor_ended.set(true);
        self.0.core.member.supervisor.wake();
    }
}

/// Runs a server to its end.
///
/// # Errors
/// No hub, no stack, no descriptor in reserve; the caller unwinds.
///
/// # Panics
/// As every blocking call; and with the panics of the callbacks.
pub(super) fn supervise<P, H>(ready: Ready<P>, handler: H) -> io::Result<DrainReport>
where
    P: Port + 'static,
    H: Fn(P::Arrived, &Settings) -> End + 'static,
{
    let (root, hub) = hub()?;
    if let Some(obstacle) = cancel::obstacle() {
        return Err(io::Error::other(obstacle.to_string()));
    }
    let me = root.current();
    let Ready { port, settings, limit, handle, signals } = ready;
    let reserve = if settings.refuse { Some(File::open("/dev/null")?) } else { None };
    let member = Arc::new(Member { supervisor: Waiter::new(root, hub, me), tally: Tally::default() });
    let core = Core {
        port,
        settings,
        limit,
        handle,
        member,
        guests: RefCell::new(Slab::new()),
        door: Cell::new(None),
        on_leave: Cell::new(None),
        reserve: Cell::new(reserve),
        accept_error: Cell::new(None),
        acceptor_ended: Cell::new(false),
    };
    let hall = Rc::new(Hall { core, handler });
    let mut running = Running { hall: Rc::clone(&hall), acceptor: None, watcher: None };
    let core = &hall.core;
    core.handle.join(&core.member);
    let ended = Ended(Rc::clone(&hall));
    let accept = move || {
        let error = ended.0.accept();
        ended.0.core.accept_error.set(Some(error));
    };
    running.acceptor = Some(Builder::new().name(String::from("acceptor")).spawn(accept)?);
    let signals = signals.map(Rc::new);
    let watcher = Builder::new().name(String::from("server signals"));
    if let Some(signals) = &signals {
        let (signals, handle) = (Rc::clone(signals), core.handle.clone());
        running.watcher = Some(watcher.clone().spawn(move || obey(&signals, &handle))?);
    }
    while core.handle.asked() == Asked::Serve && !core.acceptor_ended.get() {
        wait(root, hub, me, "a server to be drained", true, NEVER)
            .map_err(|obstacle| io::Error::other(obstacle.to_string()))?;
    }
    if let Some(acceptor) = running.acceptor.take() {
        acceptor.kill();
        if let Err(error) = acceptor.join()
            && error.is_panic()
        {
            // A callback's.
            resume_unwind(error.into_panic());
        }
    }
    let report = drain(&hall);
    drop(running);
    if let Some(signals) = signals
        && core.handle.is_running()
    {
        let handle = core.handle.clone();
        // Without a stack the signals are not held any more, and do what they do by default.
        drop(watcher.spawn(move || stay(&signals, &handle)));
    }
    Ok(report)
}

/// How long signals stay held at most after the last server of a handle has ended.
const STAY: Duration = Duration::from_millis(100);

/// The server that holds the signals has ended, others of its handle have not: until they have, a signal ends their grace.
fn stay(signals: &Signals, handle: &ServerHandle) {
    while handle.is_running()
        && let Ok(signal) = signals.recv_timeout(STAY)
    {
        if signal.is_some() {
            handle.force();
        }
    }
}

/// Turns the first signal into a drain, and the next ones into its end.
fn obey(signals: &Signals, handle: &ServerHandle) {
    while signals.recv().is_ok() {
        if handle.is_draining() { handle.force() } else { handle.drain() }
    }
}

/// See the file's picture. The acceptor is gone.
fn drain<P, H>(hall: &Rc<Hall<P, H>>) -> DrainReport
where
    P: Port + 'static,
    H: Fn(P::Arrived, &Settings) -> End + 'static,
{
    let core = &hall.core;
    let began = Instant::now();
    let deadline = after(core.settings.grace);
    let fresh_until = after(FRESH);
    let active_at_start = core.active() as u64;
    let before = core.member.tally.read();
    core.port.take_no_more();
    let (mut from_backlog, mut told) = (0, false);
    let mut swept = Swept::More;
    loop {
        if swept != Swept::Empty {
            let (accepted, left) = hall.sweep();
            from_backlog += accepted;
            swept = if from_backlog >= MOST_IN_QUEUE { Swept::Empty } else { left };
            if swept == Swept::Empty {
                core.port.close();
            }
        }
        if swept == Swept::More {
            yield_now();
        } else if !told {
            told = true;
            if let Some(tell) = &core.settings.on_drain {
                tell(&core.active());
            }
        }
        if core.settings.close_idle {
            // The hub looks at its descriptors before a timer fires, and whose request has come runs before we do: so
            // nobody is closed who has asked.
            sleep(Duration::from_nanos(1));
            core.close_idle(monotonic_ns() >= fresh_until);
        }
        let over = core.handle.asked() == Asked::Force || monotonic_ns() >= deadline;
        if over || swept == Swept::Empty && core.active() == 0 {
            break;
        }
        if swept != Swept::More {
            let again = match (swept, core.settings.close_idle) {
                (_, true) => after(SCAN),
                (Swept::NoRoom, false) => after(RETRY),
                (_, false) => NEVER,
            };
            core.wait_for_a_leave("the connections of a server to end", deadline.min(again));
        }
    }
    let forced = core.handle.asked() == Asked::Force;
    if swept != Swept::Empty {
        from_backlog += turn_away(core);
    }
    core.kill(Fate::Killed, |_| true);
    let patience = after(LAST_WORDS);
    while !core.guests.borrow().is_empty() && monotonic_ns() < patience {
        core.wait_for_a_leave("the killed connections of a server to end", patience);
    }
    let counters = core.member.tally.read();
    DrainReport {
        counters,
        active_at_start,
        from_backlog,
        finished: counters.ended_by_themselves() - before.ended_by_themselves(),
        closed_idle: counters.closed_idle - before.closed_idle,
        killed: counters.killed - before.killed,
        stuck: core.guests.borrow().len() as u64,
        turned_away: counters.refused - before.refused,
        forced,
        accept_error: core.accept_error.take().map(|error| error.kind()),
        took: began.elapsed(),
    }
}

/// There is no time left for who waits in the queue and in the door: closes them, orderly, and the port. Says how many were
/// in the queue.
fn turn_away<P: Port>(core: &Core<P>) -> u64 {
    let mut from_queue = 0;
    while from_queue < MOST_IN_QUEUE
        && let Ok(arrived) = core.port.accept_waiting()
    {
        from_queue += 1;
        core.refuse(arrived);
    }
    core.port.close();
    if let Some(arrived) = core.door.take() {
        core.refuse(arrived);
    }
    from_queue
}
