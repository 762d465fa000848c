//! The connections of a server: how one is accepted, gets a thread, and is counted at the end.
//!
//! ```text
//!   kernel's queue -- accept --> held back -- limit --> a thread and a `Conn` --> ConnPermit::drop: counted, once
//!                                    ^                           |
//!              limit or memory reached: waits here,    the handler returns, fails,
//!              one connection at most                  panics or is killed
//! ```
//!
//! * Invariant server-1: each connection that was accepted and is not held back has a `Conn` in `conns` until the
//!   `ConnPermit` is dropped, and that drop counts the connection in exactly one counter. The permit travels inside the
//!   closure of the connection's thread, so the permit is dropped however the thread ends, also if it never starts.
//! * Invariant server-2: the stream is closed before the permit is given back, so a limit on connections is a limit on
//!   descriptors too.
//! * Invariant server-7: the threads of the supervisor and the acceptor own the callbacks of the program, and
//!   `callbacks` does until the supervisor is gone. So the thread of a connection, which may have other thread-locals,
//!   never drops them. Upheld by the drop of `Running`, and by `report_backoff` and `announce`, which hold them for a
//!   call.
//! * Invariant server-3: no borrow of `conns` is held while a handler, or the drop of one, runs.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::panicking;
use std::time::Duration;

use super::handle::{Command, LiveCounters, Member, ServerHandle};
use super::limit::Limit;
use super::served::HandlerResult;
use super::settings::{Callbacks, Settings};
use crate::net::options::{Stage, StageView};
use crate::pure::slab::{Key, Slab};
use crate::runtime::caller::Caller;
use crate::runtime::hub::NamesFibers;
use crate::runtime::remote::Waiter;
use crate::switch::cancel::unwinds_quietly;
use crate::switch::fiber::{Fiber, FiberRef, Reason};
use crate::switch::root::try_root;
use crate::switch::state::State;
use crate::sys::clock::{NEVER, after};
use crate::sys::socket::{AcceptError, classify_accept_error};
use crate::thread::{Builder, HubBound, JoinHandle, yield_now};

/// The first pause of an acceptor that has no descriptors. Each further pause is twice as long, up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(10);

/// The longest pause of an acceptor that has no descriptors.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Where connections come from: a listener, or a socket of which each datagram counts as a connection.
///
/// The methods with a default are for a server of several hubs: one accepts, and hands the connections to the others.
pub(super) trait Listener {
    /// A connection that was accepted.
    type Incoming: 'static;

    /// What a connection holds beyond its place in the server's own limit: given back when the connection was counted.
    type Place: 'static;

    /// Waits for a connection.
    fn accept(&self) -> io::Result<Self::Incoming>;

    /// Accepts a connection that is pending, or fails with `WouldBlock`.
    fn try_accept(&self) -> io::Result<Self::Incoming>;

    /// Reports whether a connection is pending, without accepting one.
    fn has_pending(&self) -> bool;

    /// Makes the kernel queue as few new connections as possible.
    fn stop_queueing(&self);

    /// Closes the listener; what the queue still holds is lost.
    fn close(&self);

    /// Returns what connections of this kind are called.
    fn name() -> &'static str;

    /// Returns the address of the server, if that is known.
    fn local(&self) -> Option<SocketAddr>;

    /// Returns the address of the client.
    fn peer(incoming: &Self::Incoming) -> SocketAddr;

    /// Returns what tells whether a connection is idle: the descriptor and the stage of the conversation. `None` if a
    /// connection of this kind is never idle.
    fn stage_view(incoming: &Self::Incoming) -> Option<(RawFd, StageView)>;

    /// Takes out of a connection what is given back after the count.
    fn place(incoming: &mut Self::Incoming) -> Self::Place;

    /// Is told of the server's supervisor and counters, before anything is accepted.
    fn begin(&self, _: &Arc<Member>) {}

    /// Returns what the server is asked to do, beyond what its handle says.
    fn command(&self) -> Command {
        Command::Serve
    }

    /// Reports whether another hub may still hand connections over.
    fn is_fed(&self) -> bool {
        false
    }

    /// Hands a connection to another hub; by default to none.
    fn hand_over(&self, incoming: Self::Incoming) -> HandOver<Self::Incoming> {
        HandOver::Here(incoming)
    }

    /// Returns how many connections other hubs have.
    fn elsewhere(&self) -> usize {
        0
    }

    /// Reports whether no hub is left that could serve a connection.
    fn is_cut_off(&self) -> bool {
        false
    }

    /// Wakes `waiter` when a connection of another hub ends; with `None`, no longer. Reports whether one has ended
    /// since the last wait, so that the caller should look first.
    fn on_exit(&self, _: Option<Waiter>) -> bool {
        false
    }

    /// Takes the reasons for which other hubs have put off connections.
    fn take_errors(&self) -> Vec<io::Error> {
        Vec::new()
    }

    /// Takes a connection back that will not be served here.
    fn give_back(&self, incoming: Self::Incoming) {
        drop(incoming);
    }
}

/// What a listener does with a connection that has a place in the limit.
pub(super) enum HandOver<I> {
    /// It is served here.
    Here(I),
    /// Another hub has it.
    Gone,
    /// It belongs to another hub, and none is left.
    NoHub(I),
}

/// All of a server but the handler.
pub(super) struct ServerCore<L: Listener> {
    /// Where connections come from.
    pub(super) listener: L,
    /// What the builder was told.
    pub(super) settings: Settings,
    /// The functions of the program that report something, as long as the supervisor lives (server-7).
    pub(super) callbacks: RefCell<Option<Rc<Callbacks>>>,
    /// The limit on connections.
    pub(super) limit: Limit,
    /// The handle that asks the server to drain.
    pub(super) handle: ServerHandle,
    /// The server's entry in the handle: the counters, and the way to wake the supervisor.
    pub(super) member: Arc<Member>,
    /// The connections that are being served.
    pub(super) conns: RefCell<Slab<Conn>>,
    /// A connection that was accepted while no thread could be had for it.
    pub(super) held_back: Cell<Option<L::Incoming>>,
    /// The thread that waits for a connection to end: the acceptor without descriptors, or the supervisor in a drain.
    pub(super) exit_waiter: Cell<Option<Waiter>>,
    /// A spare descriptor with which clients are refused when there is no other, if that is wanted.
    pub(super) reserve: Cell<Option<File>>,
    /// The error with which the acceptor ended by itself.
    pub(super) accept_error: Cell<Option<io::Error>>,
    /// Whether the acceptor has ended, by a panic too.
    pub(super) acceptor_ended: Cell<bool>,
    /// The address of the server, also after the listener was closed.
    local: Option<SocketAddr>,
    /// The place in the program that started the server: its threads are said to be spawned there.
    pub(super) site: &'static Location<'static>,
}

/// A server with the handler: accepts connections and starts their threads.
pub(super) struct Connections<L: Listener, H> {
    /// All but the handler.
    pub(super) core: ServerCore<L>,
    /// Serves one connection, within the limits of the settings.
    pub(super) handler: H,
    /// The kind of the connections' threads.
    pub(super) kind: Kind<L, H>,
}

/// The kind of threads in which connections are served.
pub(super) struct Kind<L: Listener, H> {
    /// Makes sure that there is memory for another thread.
    reserve: fn(&Builder) -> io::Result<()>,
    /// Spawns the thread of a connection.
    spawn: fn(Builder, ConnTask<L, H>) -> io::Result<JoinHandle<()>>,
}

impl<L, H> Kind<L, H>
where
    L: Listener + 'static,
    H: Fn(L::Incoming, &Settings) -> HandlerResult + 'static,
{
    /// Returns the kind of threads that share the thread-locals of the server's.
    pub(super) fn light() -> Kind<L, H> {
        Kind { reserve: Builder::reserve, spawn: |builder, task| builder.spawn(move || task.run()) }
    }

    /// Returns the kind of threads with thread-locals of their own. They share the handler.
    pub(super) fn own() -> Kind<L, H>
    where
        H: Send + Sync,
    {
        Kind {
            reserve: |builder| builder.clone().own_thread_locals().reserve(),
            spawn: |builder, task| builder.own_thread_locals().spawn_with(task, ConnTask::run),
        }
    }

    /// Returns the kind of a server that starts no threads, since its listener hands all connections over.
    pub(super) fn none() -> Kind<L, H> {
        Kind { reserve: |_| Ok(()), spawn: |_, _| Err(no_hub_left()) }
    }
}

/// A connection is the runtime's own, and a listener has nothing else. Of the server, the permit reaches counters and
/// flags of the runtime, and the handler, which threads may share. The callbacks, which need not be `Send`, are gone
/// when the server's own thread ends (server-7).
impl<L: Listener, H: Send + Sync> HubBound for ConnTask<L, H> {}

/// A connection that is being served. Small, since there is one for each connection.
pub(super) struct Conn {
    /// The connection's thread, which is never joined; `None` until the spawn.
    thread: Cell<Option<FiberRef>>,
    /// The address of the client, by which reports name the thread.
    peer: SocketAddr,
    /// The way to see the stage of the conversation, if a drain needs it.
    view: Option<StageView>,
    /// The descriptor, to be compared with what the thread waits for; meaningful if there is a `view`.
    fd: RawFd,
    /// Why the server has killed the handler, if so.
    kill_reason: Cell<Option<KillReason>>,
}

/// Why the server has killed a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillReason {
    /// The connection was idle in a drain.
    Idle,
    /// The grace of a drain was over, or the server ended without one.
    Shutdown,
}

impl Conn {
    /// Reports whether the handler waits for a client that has not asked for anything: see [`Stage`]. With `fresh`,
    /// connections count that have never got a byte.
    fn is_idle(&self, fresh: bool) -> bool {
        let (Some(thread), Some(view)) = (self.fiber(), &self.view) else { return false };
        let waits = thread.state.get() == State::Parked && thread.waits_for() == Reason::Read(self.fd);
        waits
            && match view.stage() {
                Stage::NextRequest => true,
                Stage::Fresh | Stage::FirstByte => fresh,
                Stage::Busy | Stage::Answered => false,
            }
    }

    /// Returns the connection's thread, unless that has ended.
    fn fiber(&self) -> Option<Fiber> {
        try_root()?.resolve(self.thread.get()?)
    }
}

impl<L: Listener> ServerCore<L> {
    /// Creates a server, with the way to wake the supervisor.
    ///
    /// # Errors
    /// If there is no descriptor to put into reserve.
    pub(super) fn new(
        listener: L,
        settings: Settings,
        callbacks: Callbacks,
        limit: Limit,
        handle: ServerHandle,
        supervisor: Waiter,
        site: &'static Location<'static>,
    ) -> io::Result<ServerCore<L>> {
        // The spare descriptor is opened before there is a lack of descriptors.
        let reserve = if settings.refuse { Some(File::open("/dev/null")?) } else { None };
        let callbacks = RefCell::new(Some(Rc::new(callbacks)));
        Ok(ServerCore {
            local: listener.local(),
            site,
            listener,
            settings,
            callbacks,
            limit,
            handle,
            member: Arc::new(Member { supervisor, counters: LiveCounters::default() }),
            conns: RefCell::new(Slab::new()),
            held_back: Cell::new(None),
            exit_waiter: Cell::new(None),
            reserve: Cell::new(reserve),
            accept_error: Cell::new(None),
            acceptor_ended: Cell::new(false),
        })
    }

    /// Returns what the server is asked to do.
    pub(super) fn command(&self) -> Command {
        self.handle.command().max(self.listener.command())
    }

    /// Returns how many connections are served, here or on other hubs, or held back.
    pub(super) fn active(&self) -> usize {
        let held_back = self.held_back.take();
        let extra = usize::from(held_back.is_some());
        self.held_back.set(held_back);
        self.conns.borrow().len() + extra + self.listener.elsewhere()
    }

    /// Suspends the caller until a connection ends or the deadline has come. May return early.
    pub(super) fn wait_for_exit(&self, what: &'static str, deadline: u64) {
        let Ok(caller) = Caller::current() else { return };
        if self.listener.on_exit(Some(Waiter::new(caller))) {
            return;
        }
        self.exit_waiter.set(Some(Waiter::new(caller)));
        // The callers do not unwind, or have checked that.
        let _ = caller.wait_remote(what, deadline);
        self.exit_waiter.set(None);
        self.listener.on_exit(None);
    }

    /// Suspends the acceptor until the limit may have room.
    fn wait_for_room(&self) {
        let Ok(caller) = Caller::current() else { return };
        if self.limit.register(Waiter::new(caller)) {
            // The acceptor does not unwind, and a kill of the acceptor ends the wait.
            let _ = caller.wait_remote("room for another connection of a server", NEVER);
        }
    }

    /// Handles a lack of descriptors: reports it, then refuses pending clients if that is wanted, or else pauses.
    fn on_fd_exhaustion(&self, error: &io::Error, pause: &mut Duration) {
        self.report_backoff(error);
        if self.refuse_pending() {
            return yield_now();
        }
        self.back_off("descriptors for another connection of a server", pause);
    }

    /// Handles a lack of a stack for the connection that is held back: reports it, then refuses that connection if that
    /// is wanted, or else pauses.
    fn on_stack_exhaustion(&self, error: &io::Error, pause: &mut Duration) {
        self.report_backoff(error);
        // Waiting for a stack of an impossible size would be in vain.
        if (self.settings.refuse || error.kind() == io::ErrorKind::InvalidInput)
            && let Some(incoming) = self.held_back.take()
        {
            self.refuse(incoming);
            return yield_now();
        }
        self.back_off("a stack for another connection of a server", pause);
    }

    /// Counts a backoff and tells the program the reason.
    fn report_backoff(&self, error: &io::Error) {
        self.member.counters.backoffs.add_one();
        self.tell(error);
    }

    /// Tells the program the reasons for which other hubs have put off connections.
    pub(super) fn report_elsewhere(&self) {
        self.listener.take_errors().iter().for_each(|error| self.tell(error));
    }

    /// Tells the program the reason of a backoff.
    fn tell(&self, error: &io::Error) {
        let callbacks = self.callbacks.borrow().clone();
        if let Some(on_accept_error) = callbacks.as_ref().and_then(|callbacks| callbacks.on_accept_error.as_ref()) {
            on_accept_error(error);
        }
    }

    /// Pauses the acceptor until a connection ends, or for `pause`, and doubles `pause`.
    fn back_off(&self, what: &'static str, pause: &mut Duration) {
        self.wait_for_exit(what, after(*pause));
        *pause = MAX_BACKOFF.min(2 * *pause);
    }

    /// Accepts and closes pending connections with the descriptor in reserve. Reports whether the queue is known to be
    /// shorter now; if the queue is empty, the next `accept` waits.
    fn refuse_pending(&self) -> bool {
        for refused in 0..self.settings.accept_budget {
            // Closing the spare descriptor makes room for one connection, which then is closed in turn.
            let Some(reserve) = self.reserve.take() else { return refused > 0 };
            drop(reserve);
            let incoming = self.listener.try_accept();
            let failed = match incoming {
                Ok(incoming) => {
                    self.refuse(incoming);
                    None
                }
                Err(error) => Some(error.kind() == io::ErrorKind::WouldBlock),
            };
            // Another thread of the process may have taken the descriptor meanwhile; then the reserve stays empty.
            self.reserve.set(File::open("/dev/null").ok());
            if let Some(queue_is_empty) = failed {
                return queue_is_empty || refused > 0;
            }
        }
        true
    }

    /// Opens the descriptor in reserve again, if lost, now that there are descriptors.
    fn refill_reserve(&self) {
        if self.settings.refuse {
            let reserve = self.reserve.take().or_else(|| File::open("/dev/null").ok());
            self.reserve.set(reserve);
        }
    }

    /// Returns the state of the kernel's queue at a moment when nothing can be taken out of it.
    fn backlog_state(&self) -> Backlog {
        if self.listener.has_pending() { Backlog::NoRoom } else { Backlog::Empty }
    }

    /// Closes a connection that was not served.
    pub(super) fn refuse(&self, incoming: L::Incoming) {
        self.member.counters.accepted.add_one();
        self.member.counters.refused.add_one();
        drop(incoming);
    }

    /// Kills the handlers of the chosen connections, except those that were killed before.
    pub(super) fn kill(&self, reason: KillReason, chosen: impl Fn(&Conn) -> bool) {
        for (_, conn) in self.conns.borrow().iter() {
            if conn.kill_reason.get().is_none() && chosen(conn) {
                conn.kill_reason.set(Some(reason));
                if let (Some(root), Some(thread)) = (try_root(), conn.fiber()) {
                    // `kill` marks and wakes the thread; no foreign code runs here (server-3).
                    root.kill(thread);
                }
            }
        }
    }

    /// Kills the handlers of idle connections, if the settings say so.
    pub(super) fn close_idle(&self, fresh: bool) {
        if self.settings.close_idle {
            self.kill(KillReason::Idle, |conn| conn.is_idle(fresh));
        }
    }
}

impl<L, H> Connections<L, H>
where
    L: Listener + 'static,
    H: Fn(L::Incoming, &Settings) -> HandlerResult + 'static,
{
    /// Starts a thread for the connection that is held back, if the limit and the memory allow.
    pub(super) fn start_held_back(self: &Rc<Self>) -> Admission {
        let Some(mut incoming) = self.core.held_back.take() else { return Admission::Done };
        let builder = match self.core.settings.stack_size {
            None => Builder::new().at(self.core.site),
            Some(size) => Builder::new().at(self.core.site).stack_size(size),
        };
        // The stack is reserved before the spawn, because a spawn that fails drops the closure and the
        // connection inside.
        if let Err(error) = (self.kind.reserve)(&builder) {
            self.core.held_back.set(Some(incoming));
            return Admission::NoStack(error);
        }
        if !self.core.limit.acquire() {
            self.core.held_back.set(Some(incoming));
            return Admission::LimitReached;
        }
        // Another hub counts what it serves, and gives the place back.
        match self.core.listener.hand_over(incoming) {
            HandOver::Here(ours) => incoming = ours,
            HandOver::Gone => return Admission::Done,
            HandOver::NoHub(lost) => {
                self.core.limit.release();
                self.core.held_back.set(Some(lost));
                return Admission::NoHub;
            }
        }
        // From here on the permit counts the connection (server-1).
        self.core.member.counters.accepted.add_one();
        let view = if self.core.settings.close_idle { L::stage_view(&incoming) } else { None };
        let (fd, view) = view.map_or((-1, None), |(fd, view)| (fd, Some(view)));
        let peer = L::peer(&incoming);
        let conn = Conn { thread: Cell::new(None), peer, view, fd, kill_reason: Cell::new(None) };
        let key = self.core.conns.borrow_mut().insert(conn);
        let place = L::place(&mut incoming);
        let permit = ConnPermit { _place: place, connections: Rc::clone(self), key, result: Cell::new(None) };
        let task = ConnTask { incoming, permit };
        // An error, which a hub that is ending gives, drops the closure, and the permit counts the connection.
        if let Ok(thread) = (self.kind.spawn)(builder, task)
            && let Some(conn) = self.core.conns.borrow().get(key)
        {
            conn.thread.set(Some(thread.fiber_ref()));
        }
        Admission::Done
    }

    /// Accepts connections until the listener fails, and returns the error.
    pub(super) fn accept(self: &Rc<Self>) -> io::Error {
        let core = &self.core;
        let (mut pause, mut in_a_row, mut strays) = (MIN_BACKOFF, 0, 0);
        loop {
            // At the limit nothing is accepted: clients wait in the kernel's queue.
            if core.limit.is_full() {
                core.wait_for_room();
                continue;
            }
            match core.listener.accept() {
                Ok(incoming) => {
                    (pause, strays) = (MIN_BACKOFF, 0);
                    core.refill_reserve();
                    core.held_back.set(Some(incoming));
                    if let Err(error) = self.admit(&mut pause) {
                        return error;
                    }
                }
                Err(error) => match classify_accept_error(&error) {
                    AcceptError::OneConnection => {
                        core.member.counters.aborted.add_one();
                        strays += 1;
                        // So many errors and no connection in between: a rule of this machine keeps all clients out,
                        // and they stay in the queue.
                        if strays >= core.settings.accept_budget {
                            core.on_fd_exhaustion(&error, &mut pause);
                        }
                    }
                    AcceptError::Exhausted => core.on_fd_exhaustion(&error, &mut pause),
                    AcceptError::Listener => return error,
                },
            }
            // Connections that are there have their turn after each budget of new ones.
            in_a_row += 1;
            if in_a_row >= core.settings.accept_budget {
                in_a_row = 0;
                yield_now();
            }
        }
    }

    /// Suspends the acceptor until the connection that is held back has a thread or is refused.
    ///
    /// # Errors
    /// `NotConnected` if the connection is for other hubs, and none is left.
    fn admit(self: &Rc<Self>, pause: &mut Duration) -> io::Result<()> {
        loop {
            match self.start_held_back() {
                Admission::Done => return Ok(()),
                Admission::NoHub => return Err(no_hub_left()),
                // Another hub may have taken the last permit of a shared limit meanwhile.
                Admission::LimitReached => self.core.wait_for_room(),
                Admission::NoStack(error) => self.core.on_stack_exhaustion(&error, pause),
            }
        }
    }

    /// Accepts pending connections, as far as the limit and the descriptors allow, but not more than the budget.
    /// Returns how many were accepted and what the kernel's queue holds now.
    pub(super) fn accept_backlog(self: &Rc<Self>) -> (u64, Backlog) {
        let core = &self.core;
        let mut accepted = 0;
        for _ in 0..core.settings.accept_budget {
            // A connection that was held back before comes first.
            if self.is_still_held_back() {
                return (accepted, Backlog::NoRoom);
            }
            if core.limit.is_full() {
                return (accepted, core.backlog_state());
            }
            match core.listener.try_accept() {
                Ok(incoming) => {
                    accepted += 1;
                    core.held_back.set(Some(incoming));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let fed = core.listener.is_fed();
                    return (accepted, if fed { Backlog::NoRoom } else { Backlog::Empty });
                }
                Err(error) => match classify_accept_error(&error) {
                    AcceptError::OneConnection => core.member.counters.aborted.add_one(),
                    AcceptError::Exhausted => {
                        core.member.counters.backoffs.add_one();
                        return (accepted, core.backlog_state());
                    }
                    AcceptError::Listener => return (accepted, Backlog::Empty),
                },
            }
        }
        // The budget is spent; the last connection that was accepted needs a thread too.
        let backlog = if self.is_still_held_back() { Backlog::NoRoom } else { Backlog::More };
        (accepted, backlog)
    }

    /// Calls [`start_held_back`](Self::start_held_back) for a drain, and reports whether a connection stays held back.
    fn is_still_held_back(self: &Rc<Self>) -> bool {
        match self.start_held_back() {
            Admission::Done => false,
            Admission::LimitReached | Admission::NoHub => true,
            // A drain does not wait for a stack here, and refuses in the end what is left.
            Admission::NoStack(_) => {
                self.core.member.counters.backoffs.add_one();
                true
            }
        }
    }
}

impl<L: Listener, H> NamesFibers for Connections<L, H> {
    fn names(&self, visit: &mut dyn FnMut(u64, &dyn Display)) {
        // A report may be made anywhere, in a panic of the program's hook too, but never inside a borrow that changes
        // the list (server-3).
        let Ok(conns) = self.core.conns.try_borrow() else { return };
        for (_, conn) in conns.iter() {
            let Some(thread) = conn.thread.get() else { continue };
            match self.core.local {
                Some(local) => visit(thread.id(), &format_args!("{} {local} <- {}", L::name(), conn.peer)),
                None => visit(thread.id(), &format_args!("{} <- {}", L::name(), conn.peer)),
            }
        }
    }
}

/// What has become of the connection that was held back.
pub(super) enum Admission {
    /// No connection is held back any more.
    Done,
    /// The limit on connections is reached.
    LimitReached,
    /// There is no memory for a stack, or the kernel has as many mappings as the limit allows.
    NoStack(io::Error),
    /// The connection is for other hubs, and none is left.
    NoHub,
}

/// Returns the error of a server that has no hub any more.
fn no_hub_left() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "no hub is left for the connections of a server")
}

/// What the kernel's queue holds after a round of accepting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    /// The queue is empty.
    Empty,
    /// The queue may hold more; the budget of this round was spent.
    More,
    /// The queue holds connections for which there is no permit, descriptor or stack now.
    NoRoom,
}

/// What the closure of a connection's thread holds. The connection is dropped before the permit (server-2).
pub(super) struct ConnTask<L: Listener, H> {
    /// The connection, for the handler.
    incoming: L::Incoming,
    /// The permit of this connection.
    permit: ConnPermit<L, H>,
}

impl<L, H> ConnTask<L, H>
where
    L: Listener,
    H: Fn(L::Incoming, &Settings) -> HandlerResult,
{
    /// Serves the connection from the first byte to the last.
    #[inline]
    fn run(self) {
        let permit = self.permit;
        // The handler drops the connection, hence before the permit (server-2).
        let result = (permit.connections.handler)(self.incoming, &permit.connections.core.settings);
        permit.result.set(Some(result));
    }
}

/// The right of a connection to be served; the drop counts the connection and gives the place in the limit back.
struct ConnPermit<L: Listener, H> {
    /// What the connection holds beyond its place in the limit; dropped after the count.
    _place: L::Place,
    /// The server that the permit belongs to.
    connections: Rc<Connections<L, H>>,
    /// The key of the connection in `conns`.
    key: Key,
    /// How the handler ended; `None` unless it returned.
    result: Cell<Option<HandlerResult>>,
}

impl<L: Listener, H> Drop for ConnPermit<L, H> {
    #[cold]
    fn drop(&mut self) {
        let core = &self.connections.core;
        let conn = core.conns.borrow_mut().remove(self.key);
        let counters = &core.member.counters;
        let spawned = conn.as_ref().is_some_and(|conn| conn.thread.get().is_some());
        let kill_reason = conn.as_ref().and_then(|conn| conn.kill_reason.get());
        // The first cause that applies is counted, and no other (server-1).
        let count = match self.result.get() {
            Some(HandlerResult::Completed) => &counters.completed,
            Some(HandlerResult::Failed) => &counters.failed,
            Some(HandlerResult::TimedOut) => &counters.timed_out,
            None if !spawned => &counters.refused,
            None if panicking() && !unwinds_quietly() => &counters.panicked,
            None if kill_reason == Some(KillReason::Idle) => &counters.closed_idle,
            None => &counters.killed,
        };
        count.add_one();
        // Acceptors, of other hubs too, may wait for the place; a drain waits for the end.
        core.limit.release();
        if let Some(waiter) = core.exit_waiter.take() {
            waiter.wake();
        }
    }
}
