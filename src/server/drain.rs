//! The supervisor of a server, and the drain that ends the server.
//!
//! ```text
//!   supervisor:  start the acceptor -> wait until asked -> kill the acceptor -> drain -> report
//!
//!   drain:   1 the kernel queues no more     2 the backlog is served     3 idle connections are closed, the busy go on
//!            4 the grace ends: the rest is killed       5 the report
//! ```
//!
//! The supervisor is the thread that called `run`, or the one that `start` spawned. The supervisor never serves, and
//! never accepts while the acceptor lives, so it can always be asked. A kill stops the acceptor, and reaches
//! the acceptor in any wait. A connection that the acceptor has in its hands then lies in `held_back`, where
//! the drain looks.
//!
//! * Invariant server-4: when the supervisor is gone, in whatever way, the listener is closed, the acceptor and all
//!   handlers are dead or have a kill pending, and the handle does not know the server any more. Upheld by the drop
//!   of `Running`.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::replace;
use std::panic::{Location, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connections::{Backlog, Connections, KillReason, Kind, Listener, ServerCore};
use super::handle::{Command, Counters, ServerHandle};
use super::limit::Limit;
use super::served::HandlerResult;
use super::settings::{Callbacks, Settings};
use crate::net::BACKLOG;
use crate::runtime::caller::Caller;
use crate::runtime::hub::NamesFibers;
use crate::runtime::remote::Waiter;
use crate::signal::Signals;
use crate::switch::cancel;
use crate::sys::clock::{NEVER, after, monotonic_ns, now};
use crate::thread::{Builder, JoinHandle, sleep, yield_now};

/// How long after the beginning of a drain a client that has connected and never sent a byte is not counted as idle:
/// the request may be on the way.
const FRESH_GRACE: Duration = Duration::from_secs(1);

/// How often a drain looks for idle connections.
const IDLE_SCAN_INTERVAL: Duration = Duration::from_millis(10);

/// How often a drain looks whether the kernel's queue can be served now, if no connection ends.
const BACKLOG_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long killed handlers may take to unwind.
const UNWIND_TIMEOUT: Duration = Duration::from_secs(1);

/// An upper bound on the connections that a drain takes from the queue, against a kernel that goes on filling the
/// queue. A queue cannot hold as many.
const MAX_BACKLOG: u64 = 2 * BACKLOG as u64;

/// How often the holder of the signals looks whether other servers of the handle still run.
const SIGNAL_HOLD_INTERVAL: Duration = Duration::from_millis(100);

/// The account of a server's end.
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
    /// Connections that were closed because they waited for their next request.
    pub closed_idle: u64,
    /// Handlers that were killed because the grace was over, or there was none.
    pub killed: u64,
    /// Handlers that go on although they were killed: they compute, are shielded, or swallow the kill. They are left
    /// alone, and are killed once more when their hub ends.
    pub stuck: u64,
    /// Connections that were closed without being served, for want of room, a descriptor or a stack in time.
    pub turned_away: u64,
    /// Whether the drain was cut short: by [`force`](ServerHandle::force) or a second signal.
    pub forced: bool,
    /// Hubs of a [`BalancedServer`](super::BalancedServer) that ended, or could not begin, before their part of the
    /// drain. What they had not begun went to the other hubs. What they had is in `counters`, as killed, and in no
    /// figure of this report.
    pub lost_hubs: u64,
    /// The error with which accepting had ended by itself, if that was the reason of the drain.
    pub accept_error: Option<io::ErrorKind>,
    /// How long the drain took.
    pub took: Duration,
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DrainReport { active_at_start, from_backlog, finished, closed_idle, killed, stuck, turned_away, .. } = self;
        let took = self.took.as_secs_f64();
        write!(f, "drained {active_at_start} connections and {from_backlog} from the queue in {took:.1} s: ")?;
        write!(f, "{finished} finished, {closed_idle} were idle, {killed} killed")?;
        for (count, what) in [(stuck, "could not be killed"), (turned_away, "turned away")] {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.lost_hubs > 0 {
            write!(f, "; {} hubs had ended before", self.lost_hubs)?;
        }
        if let Some(error) = self.accept_error {
            write!(f, "; it could not accept any more: {error}")?;
        }
        if self.forced { f.write_str(" (forced)") } else { Ok(()) }
    }
}

/// What a server needs to begin.
pub(super) struct ServerParts<L> {
    /// Where connections come from.
    pub(super) listener: L,
    /// What the builder was told.
    pub(super) settings: Settings,
    /// The functions of the program that report something.
    pub(super) callbacks: Callbacks,
    /// The limit on connections.
    pub(super) limit: Limit,
    /// The handle that asks the server to drain.
    pub(super) handle: ServerHandle,
    /// The signals that ask for a drain.
    pub(super) signals: Option<Signals>,
    /// The place in the program that started the server.
    pub(super) site: &'static Location<'static>,
}

/// A server that runs; the drop ends the server without grace (server-4).
struct Running<L: Listener, H> {
    /// The server that runs.
    connections: Rc<Connections<L, H>>,
    /// The thread that accepts.
    acceptor: Option<JoinHandle<()>>,
    /// The thread that waits for signals.
    signal_watcher: Option<JoinHandle<()>>,
}

impl<L, H> Running<L, H>
where
    L: Listener + 'static,
    H: Fn(L::Incoming, &Settings) -> HandlerResult + 'static,
{
    /// Spawns the thread that accepts.
    fn start_acceptor(&mut self) -> io::Result<()> {
        // Dropped with the closure, however the thread ends.
        let ended = AcceptorEnded(Rc::clone(&self.connections));
        let accept = move || {
            let error = ended.0.accept();
            ended.0.core.accept_error.set(Some(error));
        };
        let builder = Builder::new().name(String::from("acceptor")).at(self.connections.core.site);
        self.acceptor = Some(builder.spawn(accept)?);
        Ok(())
    }

    /// Spawns the thread that turns signals into a drain.
    fn start_signal_watcher(&mut self, signals: &Rc<Signals>) -> io::Result<()> {
        let (signals, handle) = (Rc::clone(signals), self.connections.core.handle.clone());
        let builder = signal_builder(self.connections.core.site);
        self.signal_watcher = Some(builder.spawn(move || forward_signals(&signals, &handle))?);
        Ok(())
    }

    /// Kills the acceptor and joins the thread.
    ///
    /// # Panics
    /// With the panic of a callback that the acceptor called.
    fn stop_acceptor(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            // The kill ends any wait of the acceptor; only a panic is of interest.
            acceptor.kill();
            if let Err(error) = acceptor.join()
                && error.is_panic()
            {
                resume_unwind(error.into_panic());
            }
        }
    }
}

impl<L: Listener, H> Drop for Running<L, H> {
    fn drop(&mut self) {
        let core = &self.connections.core;
        // No thread may accept or ask any more, then the listener goes, then the connections.
        for thread in [self.acceptor.take(), self.signal_watcher.take()].into_iter().flatten() {
            thread.kill();
        }
        core.listener.close();
        if let Some(incoming) = core.held_back.take() {
            core.listener.give_back(incoming);
        }
        core.kill(KillReason::Shutdown, |_| true);
        core.handle.unregister(&core.member);
        // The program's own, so last: the drop may panic (server-7).
        let callbacks = core.callbacks.take();
        drop(callbacks);
    }
}

/// Tells the supervisor, when dropped, that the acceptor has ended.
struct AcceptorEnded<L: Listener, H>(Rc<Connections<L, H>>);

impl<L: Listener, H> Drop for AcceptorEnded<L, H> {
    fn drop(&mut self) {
        self.0.core.acceptor_ended.set(true);
        self.0.core.member.supervisor.wake();
    }
}

/// Runs a server to its end.
///
/// # Errors
/// If there is no hub, no stack or no descriptor to put into reserve, or the caller unwinds.
///
/// # Panics
/// As every blocking call; and with the panics of the callbacks.
pub(super) fn supervise<L, H>(parts: ServerParts<L>, kind: Kind<L, H>, handler: H) -> io::Result<DrainReport>
where
    L: Listener + 'static,
    H: Fn(L::Incoming, &Settings) -> HandlerResult + 'static,
{
    let caller = Caller::current()?;
    if let Some(obstacle) = cancel::obstacle() {
        return Err(obstacle.into());
    }
    let ServerParts { listener, settings, callbacks, limit, handle, signals, site } = parts;
    let core = ServerCore::new(listener, settings, callbacks, limit, handle, Waiter::new(caller), site)?;
    let connections = Rc::new(Connections { core, handler, kind });
    // The threads of the connections are named when a report is made.
    let names: Rc<dyn NamesFibers> = Rc::<Connections<L, H>>::clone(&connections);
    caller.hub.add_names(Rc::downgrade(&names));
    drop(names);
    // From here on every way out of this function ends the server (server-4).
    let mut running = Running { connections: Rc::clone(&connections), acceptor: None, signal_watcher: None };
    let core = &connections.core;
    core.handle.register(&core.member);
    core.listener.begin(&core.member);
    running.start_acceptor()?;
    let signals = signals.map(Rc::new);
    if let Some(signals) = &signals {
        running.start_signal_watcher(signals)?;
    }
    // Wait for a drain: asked for by the handle or a signal, or due because accepting has ended by itself.
    while core.command() == Command::Serve && !core.acceptor_ended.get() && !core.listener.is_cut_off() {
        caller.wait_remote("a server to be drained", NEVER)?;
        core.report_elsewhere();
    }
    running.stop_acceptor();
    let report = drain(&connections);
    drop(running);
    // Other servers of the handle go on; meanwhile a signal must not have the default effect.
    if let Some(signals) = signals
        && core.handle.is_running()
    {
        let handle = core.handle.clone();
        // Without a stack the signals are not held any more.
        drop(signal_builder(site).spawn(move || hold_signals(&signals, &handle)));
    }
    Ok(report)
}

/// Returns the builder of the thread that waits for signals.
fn signal_builder(site: &'static Location<'static>) -> Builder {
    Builder::new().name(String::from("server signals")).at(site)
}

/// Turns the first signal into a drain, and later ones into the end of the grace.
fn forward_signals(signals: &Signals, handle: &ServerHandle) {
    while signals.recv().is_ok() {
        if handle.is_draining() { handle.force() } else { handle.drain() }
    }
}

/// Holds the signals after the end of their server, until the other servers of the handle have ended too; a signal ends
/// the grace of those.
fn hold_signals(signals: &Signals, handle: &ServerHandle) {
    while handle.is_running()
        && let Ok(signal) = signals.recv_timeout(SIGNAL_HOLD_INTERVAL)
    {
        if signal.is_some() {
            handle.force();
        }
    }
}

/// Drains a server that has no acceptor any more: the five steps of the picture above.
fn drain<L, H>(connections: &Rc<Connections<L, H>>) -> DrainReport
where
    L: Listener + 'static,
    H: Fn(L::Incoming, &Settings) -> HandlerResult + 'static,
{
    let mut drain = Drain::begin(connections);
    // Steps 2 and 3, until the grace is over or no connection is left.
    loop {
        drain.serve_backlog();
        if drain.backlog == Backlog::More {
            // The handlers of this round have their turn before the next round.
            yield_now();
        } else {
            drain.announce();
        }
        drain.close_idle();
        if drain.is_over() {
            break;
        }
        if drain.backlog != Backlog::More {
            drain.wait_for_exit();
        }
    }
    // Steps 4 and 5.
    drain.end_grace();
    drain.report()
}

/// A drain in progress.
struct Drain<'a, L: Listener, H> {
    /// The server that is drained.
    connections: &'a Rc<Connections<L, H>>,
    /// When the drain began.
    began: Instant,
    /// When the grace is over.
    deadline: u64,
    /// Until when a client that has not sent a byte is not counted as idle.
    fresh_until: u64,
    /// The number of connections when the drain began.
    active_at_start: u64,
    /// The counters when the drain began.
    before: Counters,
    /// The number of connections that were taken out of the kernel's queue.
    from_backlog: u64,
    /// What the kernel's queue still holds.
    backlog: Backlog,
    /// Whether `on_drain` was called.
    announced: bool,
    /// Whether the grace was ended by the handle.
    forced: bool,
}

impl<'a, L, H> Drain<'a, L, H>
where
    L: Listener + 'static,
    H: Fn(L::Incoming, &Settings) -> HandlerResult + 'static,
{
    /// Step 1: the kernel queues no more connections.
    fn begin(connections: &'a Rc<Connections<L, H>>) -> Drain<'a, L, H> {
        let core = &connections.core;
        let drain = Drain {
            connections,
            began: now(),
            deadline: after(core.settings.grace),
            fresh_until: after(FRESH_GRACE),
            active_at_start: core.active() as u64,
            // The figures of the drain are differences from here on.
            before: core.member.counters.read(),
            from_backlog: 0,
            backlog: Backlog::More,
            announced: false,
            forced: false,
        };
        core.listener.stop_queueing();
        drain
    }

    /// Step 2: serves what the kernel's queue holds, a budget at a time, and closes the listener when the queue is
    /// empty.
    fn serve_backlog(&mut self) {
        if self.backlog == Backlog::Empty {
            return;
        }
        let (accepted, left) = self.connections.accept_backlog();
        self.from_backlog += accepted;
        // A kernel that goes on filling the queue must not keep the drain from its end.
        self.backlog = if self.from_backlog >= MAX_BACKLOG { Backlog::Empty } else { left };
        if self.backlog == Backlog::Empty {
            self.connections.core.listener.close();
        }
    }

    /// Tells the program, once, how many connections there are.
    fn announce(&mut self) {
        let core = &self.connections.core;
        let callbacks = core.callbacks.borrow().clone();
        if !replace(&mut self.announced, true)
            && let Some(on_drain) = callbacks.as_ref().and_then(|callbacks| callbacks.on_drain.as_ref())
        {
            on_drain(&core.active());
        }
    }

    /// Step 3: kills the handlers of idle connections.
    fn close_idle(&self) {
        let core = &self.connections.core;
        if core.settings.close_idle {
            // The hub polls its descriptors before a timer fires, and a handler runs, if its request has arrived,
            // before this thread does: so no connection is closed that has asked.
            sleep(Duration::from_nanos(1));
            core.close_idle(monotonic_ns() >= self.fresh_until);
        }
    }

    /// Reports whether the grace is over or no connection is left.
    fn is_over(&self) -> bool {
        let core = &self.connections.core;
        core.command() == Command::Force
            || core.listener.is_cut_off()
            || monotonic_ns() >= self.deadline
            || self.backlog == Backlog::Empty && core.active() == 0
    }

    /// Suspends the supervisor until a connection ends, the next look is due, or the grace is over.
    fn wait_for_exit(&self) {
        let core = &self.connections.core;
        // Idle connections are looked for in turns; a full queue is tried again; otherwise only an end is of interest.
        let again = match (self.backlog, core.settings.close_idle) {
            (_, true) => after(IDLE_SCAN_INTERVAL),
            (Backlog::NoRoom, false) => after(BACKLOG_RETRY_INTERVAL),
            (_, false) => NEVER,
        };
        core.wait_for_exit("the connections of a server to end", self.deadline.min(again));
    }

    /// Step 4: refuses what was not served, kills the remaining handlers, and gives them time to unwind.
    fn end_grace(&mut self) {
        let core = &self.connections.core;
        self.forced = core.command() == Command::Force;
        // The backlog first: its connections need no time to unwind.
        if self.backlog != Backlog::Empty {
            self.from_backlog += refuse_backlog(core);
        }
        core.kill(KillReason::Shutdown, |_| true);
        // A handler may catch the kill, so this wait has an end, too.
        let deadline = after(UNWIND_TIMEOUT);
        while !core.conns.borrow().is_empty() && monotonic_ns() < deadline {
            core.wait_for_exit("the killed connections of a server to end", deadline);
        }
    }

    /// Step 5: makes the report. The figures are differences of the counters, so they cannot disagree with them.
    fn report(self) -> DrainReport {
        let core = &self.connections.core;
        let (counters, before) = (core.member.counters.read(), self.before);
        DrainReport {
            counters,
            active_at_start: self.active_at_start,
            from_backlog: self.from_backlog,
            finished: counters.ended_by_themselves() - before.ended_by_themselves(),
            closed_idle: counters.closed_idle - before.closed_idle,
            killed: counters.killed - before.killed,
            stuck: core.conns.borrow().len() as u64,
            turned_away: counters.refused - before.refused,
            forced: self.forced,
            lost_hubs: 0,
            accept_error: core.accept_error.take().map(|error| error.kind()),
            took: now() - self.began,
        }
    }
}

/// Closes the connections of the kernel's queue and the one that is held back, each in an orderly way, and then the
/// listener. Returns how many were in the queue.
fn refuse_backlog<L: Listener>(core: &ServerCore<L>) -> u64 {
    let mut from_queue = 0;
    // The bound keeps clients that connect all the time from holding up the end.
    while from_queue < MAX_BACKLOG
        && let Ok(incoming) = core.listener.try_accept()
    {
        from_queue += 1;
        core.refuse(incoming);
    }
    core.listener.close();
    if let Some(incoming) = core.held_back.take() {
        core.refuse(incoming);
    }
    from_queue
}
