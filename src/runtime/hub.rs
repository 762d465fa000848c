//! The hub: one per OS thread, made on first use; it answers the run loop's question which fibers can run now.
//!
//! ```text
//!   poll(may_wait)
//!     1. remote queue    of other OS threads: unparks, finished jobs; work to start
//!     2. sleep           if nothing is runnable: in epoll_wait, until a timer or an event; then the remote queue again
//!     3. clock           what came before this moment comes before the timers that are due at it
//!     4. epoll           epoll_wait(0), if a timer is due or the last call was EPOLL_INTERVAL ago
//!     5. stacks          memory of stacks that were not used for a while goes back; also before the sleep
//!     6. timers          that were due at 3
//! ```
//!
//! While there is no remote op, no descriptor and no timer, the run loop polls less often (`is_quiet`).
//!
//! * Invariant hub-1: the hub belongs to the thread's `Root` and lives as long. `HUB`, unless `None`, is that hub:
//!   `install` sets it when the root has its scheduler, and `revoke` clears it before the root is freed, and in the
//!   child of a fork. From then on `hub_of` is an error. No destructor of a part of the hub uses the hub's `root`.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::env;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::backtraces;
use super::console::agent;
use super::counters::{Counters, Gauges};
use super::dump::{self, Described};
use super::ended;
#[cfg(feature = "monkey")]
use super::foreign_waits::ForeignWaits;
use super::monitor;
use super::reactor::{Reactor, Registration};
use super::remote_queue::{RemoteOp, RemoteQueue, Work};
use super::report;
use super::shared_waits::SharedWaits;
use super::thread_info::Threads;
use super::timers::Timers;
use super::trace::session as trace;
#[cfg(feature = "monkey")]
use super::watch::{Watcher, Watches};
use super::watch_thread;
use crate::pure::preempt::PreemptFlag;
use crate::pure::slab::{Key, Slab};
use crate::switch::budget::EPOLL_INTERVAL;
use crate::switch::cancel::{FORKED, abort_with};
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::recorder::What;
use crate::switch::root::{Root, Scheduler, try_root};
use crate::sys::clock::{NEVER, monotonic_ns};
use crate::sys::fork;
use crate::sys::process::is_main_thread;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::simulation::{self, START, Simulated, stay_inside};
use crate::sys::virtual_sockets;

/// The environment variable that says `off` if polls are to be due by the number of turns alone.
const QUANTUM_VARIABLE: &str = "GREENLING_QUANTUM";

/// Pieces of other hubs' work started in one poll; the rest is started in the next.
const START_BATCH: usize = 1024;

/// The size of the scratch buffer, in bytes.
const SCRATCH: usize = 64 * 1024;

/// The scratch buffers that a hub keeps beside the one that is lent next.
const SPARE_SCRATCHES: usize = 3;

/// A part of the crate that names fibers when a report is made.
pub(crate) trait NamesFibers {
    /// Calls `visit` with the id and the name of each fiber. `visit` runs no foreign code, and does not switch.
    fn names(&self, visit: &mut dyn FnMut(u64, &dyn Display));
}

/// One OS thread's hub.
pub(crate) struct Hub {
    /// The root that owns this hub.
    root: &'static Root,
    /// The descriptors for which fibers wait.
    reactor: Reactor,
    /// The numbers for which patched calls wait.
    #[cfg(feature = "monkey")]
    watches: Watches,
    /// The deadlines of fibers that sleep, or wait with a timeout.
    timers: Timers,
    /// What other OS threads send. Each `Thread` handle and running job holds a clone.
    remote_queue: Arc<RemoteQueue>,
    /// What this hub has counted, where other OS threads can read it.
    counters: Arc<Counters>,
    /// When epoll was last asked, in monotonic nanoseconds.
    polled: Cell<u64>,
    /// Whether delays from ready to run are taken.
    takes_delays: Cell<bool>,
    /// The number of fibers in `thread::park`: a handle in another OS thread may wake them.
    pub(crate) parked: Cell<usize>,
    /// The number of jobs on other OS threads that will send a remote op, and of fibers that wait for another hub.
    pub(crate) jobs: Cell<usize>,
    /// Other hubs' work that was started here and has not ended.
    remote_work: RefCell<Slab<Arc<dyn Work>>>,
    /// Waits of this hub's fibers in queues that other hubs share.
    shared_waits: SharedWaits,
    /// The parts of the crate that name fibers, as long as they are there.
    names: RefCell<Vec<Weak<dyn NamesFibers>>>,
    /// Waits of this hub's fibers in locks of `std` and C.
    #[cfg(feature = "monkey")]
    foreign_waits: ForeignWaits,
    /// The process this hub belongs to, as a count of forks: a child's copy must not be used.
    generation: u32,
    /// The virtual clock and network of an OS thread that simulates.
    simulated: Option<Simulated>,
    /// The buffer lent to callers that read without a buffer of their own; made on first use, away while it is lent.
    scratch: Cell<Option<Box<[u8]>>>,
    /// Further scratch buffers, of threads that let others run while they had one.
    spare_scratches: RefCell<Vec<Box<[u8]>>>,
}

thread_local! {
    /// This thread's hub, as long as the hub may be used (invariant hub-1). Has no destructor, so `HUB` can always be
    /// read.
    static HUB: Cell<Option<&'static Hub>> = const { Cell::new(None) };
}

/// Returns the root and the hub of this OS thread, made on first use.
///
/// # Errors
/// When the thread is ending, in the child of a fork, or when the kernel refused an epoll instance or an eventfd.
#[inline(always)]
pub(crate) fn hub() -> io::Result<(&'static Root, &'static Hub)> {
    // One test on the hot path: a hub that can be used has a root that can be used.
    match HUB.get() {
        Some(hub) => Ok((hub.root, hub)),
        None => hub_slow(),
    }
}

/// `hub`, when there is no hub that can be used.
#[cold]
#[inline(never)]
fn hub_slow() -> io::Result<(&'static Root, &'static Hub)> {
    let root = try_root().ok_or_else(ending)?;
    Ok((root, hub_of(root)?))
}

/// Returns the hub that belongs to `root`, made on first use.
///
/// # Errors
/// As [`hub`].
#[inline(always)]
pub(crate) fn hub_of(root: &'static Root) -> io::Result<&'static Hub> {
    match HUB.get() {
        Some(hub) => Ok(hub),
        None => hub_of_slow(root),
    }
}

/// `hub_of`, when there is no hub that can be used.
#[cold]
#[inline(never)]
fn hub_of_slow(root: &'static Root) -> io::Result<&'static Hub> {
    if !root.has_scheduler() {
        return create(root);
    }
    Err(if root.is_forked() { io::Error::other(FORKED) } else { ending() })
}

/// Returns this thread's hub, if there is one that can be used.
#[inline(always)]
pub(crate) fn existing_hub() -> Option<&'static Hub> {
    HUB.get()
}

/// Returns the error of calls on a thread that has no hub any more.
#[cold]
pub(crate) fn ending() -> io::Error {
    io::Error::other("greenling: this OS thread is ending and its hub is gone")
}

/// Panics for a call that has no error of its own and found no hub; `error` says why.
#[cold]
#[track_caller]
pub(crate) fn no_hub(error: &io::Error) -> ! {
    match error.raw_os_error() {
        Some(_) => panic!("greenling: the hub of this OS thread could not be made: {error}"),
        // The error's own text is about hubs.
        None => panic!("{error}"),
    }
}

/// Makes the hub of this OS thread.
#[cold]
fn create(root: &'static Root) -> io::Result<&'static Hub> {
    // Once per process: forks are noticed, and panics name the green thread.
    fork::in_children(crate::switch::teardown::after_fork_in_child);
    fork::watch_forks()?;
    report::name_panics();
    let remote_queue = Arc::new(RemoteQueue::new()?);
    remote_queue.enlist();
    let simulated = root.is_simulated().then(Simulated::new);
    let now = simulated.as_ref().map_or_else(monotonic_ns, |simulated| simulated.clock.get());
    let hub = Hub {
        root,
        reactor: Reactor::new(remote_queue.bell())?,
        #[cfg(feature = "monkey")]
        watches: Watches::default(),
        timers: Timers::new(now),
        remote_queue,
        counters: Counters::enlist(root.number(), now),
        polled: Cell::new(0),
        takes_delays: Cell::new(false),
        parked: Cell::new(0),
        jobs: Cell::new(0),
        remote_work: RefCell::new(Slab::new()),
        shared_waits: SharedWaits::new(),
        names: RefCell::default(),
        #[cfg(feature = "monkey")]
        foreign_waits: ForeignWaits::default(),
        generation: fork::fork_generation(),
        simulated,
        scratch: Cell::new(None),
        spare_scratches: RefCell::default(),
    };
    root.set_scheduler(Box::new(hub));
    if root.is_simulated() {
        // No time of the kernel's clock counts here, and no trace that the environment asks for is of a simulation.
        return HUB.get().ok_or_else(ending);
    }
    watch_thread::watch_by_environment();
    dump::dump_by_environment(describe_threads);
    agent::start_by_environment(list_threads);
    // Under a tracer that slows the program a thousandfold, time says nothing, and a poll at each turn hides the rest.
    if env::var_os(QUANTUM_VARIABLE).is_none_or(|value| value != "off") {
        root.keep_time();
    }
    trace::begin_by_environment(root);
    match HUB.get() {
        Some(hub) => Ok(hub),
        None => unreachable!("only `create` sets a scheduler"),
    }
}

/// Writes what the threads of all hubs do to standard error whenever `signal` comes.
///
/// # Errors
/// As [`dump::dump_on`].
pub(crate) fn dump_on(signal: i32) -> io::Result<()> {
    dump::dump_on(signal, describe_threads)
}

/// Starts the agent of the console, at `path` or in its default place, and returns the path.
///
/// # Errors
/// As [`agent::start`].
pub(crate) fn start_console(path: Option<&Path>) -> io::Result<PathBuf> {
    agent::start(path, list_threads)
}

/// Returns what the threads of `root`, this OS thread's, do, without what the kernel would have to be asked for. Called
/// in a poll, so that no thread has the CPU.
fn list_threads(root: &'static Root) -> Threads {
    // The holders of the locks that threads of this hub wait for.
    if let Some(hub) = existing_hub() {
        hub.shared_waits.note_holders();
    }
    report::brief_threads(root)
}

/// Returns what the threads of `root`, this OS thread's, do. Called in a poll, so that no thread has the CPU.
fn describe_threads(root: &'static Root) -> Described {
    // The holders of the locks that threads of this hub wait for.
    if let Some(hub) = existing_hub() {
        hub.shared_waits.note_holders();
    }
    Described { threads: report::threads(root, None), stacks: root.as_main(|| backtraces::of_all(root)) }
}

/// What the runtime and the calls of programs use of the hub.
impl Hub {
    /// Reports whether this is a copy in the child of a fork.
    fn is_forked(&self) -> bool {
        self.generation != fork::fork_generation()
    }

    /// Returns the root that owns this hub.
    #[inline(always)]
    pub(crate) fn root(&self) -> &'static Root {
        self.root
    }

    /// Returns the reactor of this hub.
    #[inline]
    pub(crate) fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// Returns what patched calls wait with.
    #[cfg(feature = "monkey")]
    #[inline]
    pub(crate) fn watcher(&self) -> Watcher<'_> {
        Watcher::new(&self.reactor, &self.watches)
    }

    /// Puts a descriptor into the epoll set. If it is ready already, the next poll says so.
    ///
    /// # Errors
    /// EPERM for kinds that epoll refuses (regular files, directories), ENOSPC, ENOMEM: epoll_ctl(2). `Unsupported` in
    /// a simulation.
    pub(crate) fn register(&self, fd: BorrowedFd<'_>, registration: &Rc<Registration>) -> io::Result<()> {
        if simulation::virtual_ns().is_some() && !virtual_sockets::is_virtual(&fd) {
            stay_inside("a descriptor of the kernel")?;
        }
        self.reactor.register(fd, registration)?;
        if self.root.is_recording() {
            self.root.note_descriptor(What::Registered(fd.as_raw_fd()));
        }
        #[cfg(feature = "monkey")]
        self.watches.add_native(&self.reactor, fd.as_raw_fd());
        Ok(())
    }

    /// Forgets a descriptor. With `shared`, its open file may have other descriptors.
    pub(crate) fn deregister(&self, fd: BorrowedFd<'_>, registration: &Registration, shared: bool) {
        #[cfg(feature = "monkey")]
        if registration.is_registered() {
            self.watches.remove_native(fd.as_raw_fd());
        }
        self.reactor.deregister(fd, registration, shared);
        if self.root.is_recording() {
            self.root.note_descriptor(What::Deregistered(fd.as_raw_fd()));
        }
    }

    /// Returns the queue through which other OS threads send remote ops.
    pub(crate) fn remote_queue(&self) -> &Arc<RemoteQueue> {
        &self.remote_queue
    }

    /// Notes that other hubs' work was started here: if the hub ends first, the work is abandoned.
    pub(crate) fn add_remote_work(&self, work: Arc<dyn Work>) -> Key {
        self.remote_work.borrow_mut().insert(work)
    }

    /// Notes that such work has ended. No destructor runs, as long as the caller holds the work too.
    pub(crate) fn remove_remote_work(&self, key: Key) {
        let work = self.remote_work.borrow_mut().remove(key);
        drop(work);
    }

    /// Adds a part of the crate that names fibers in reports.
    pub(crate) fn add_names(&self, names: Weak<dyn NamesFibers>) {
        let mut list = self.names.borrow_mut();
        list.retain(|names| names.strong_count() > 0);
        list.push(names);
    }

    /// Returns the waits of this hub's fibers in queues that other hubs share.
    pub(crate) fn shared_waits(&self) -> &SharedWaits {
        &self.shared_waits
    }

    /// Returns the waits of this hub's fibers in locks of `std` and C.
    #[cfg(feature = "monkey")]
    pub(crate) fn foreign_waits(&self) -> &ForeignWaits {
        &self.foreign_waits
    }

    /// Takes the scratch buffer, or makes one: while the buffer is lent, the next caller gets another.
    #[inline]
    pub(crate) fn take_scratch(&self) -> Box<[u8]> {
        self.scratch.take().unwrap_or_else(|| self.spare_scratch())
    }

    /// Puts a scratch buffer back. The one that came back last is lent first, since the caches still have it.
    #[inline]
    pub(crate) fn return_scratch(&self, buffer: Box<[u8]>) {
        if let Some(older) = self.scratch.replace(Some(buffer)) {
            self.keep_scratch(older);
        }
    }

    /// Takes a spare scratch buffer, or makes one. To make one is to clear 64 KiB, so a thread that lets others run
    /// while it has the buffer would cost as much as several requests.
    #[cold]
    #[inline(never)]
    fn spare_scratch(&self) -> Box<[u8]> {
        let spare = self.spare_scratches.borrow_mut().pop();
        spare.unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice())
    }

    /// Keeps a second scratch buffer and a few more, and frees any other.
    #[cold]
    #[inline(never)]
    fn keep_scratch(&self, buffer: Box<[u8]>) {
        let mut spares = self.spare_scratches.borrow_mut();
        if spares.len() < SPARE_SCRATCHES {
            spares.push(buffer);
        }
    }

    /// Makes a timer wake `fiber` at `at` (monotonic nanoseconds) at the latest.
    #[inline]
    pub(crate) fn set_deadline(&self, fiber: Fiber, at: u64) {
        self.timers.set_deadline(fiber, at);
    }
}

/// The steps of a poll.
impl Hub {
    /// Carries out the remote ops, and starts work of other hubs.
    fn run_remote_ops(&self, root: &'static Root) {
        // The queues may yield the OS thread for a moment, and that must not lead back here.
        let _mark = runtime_syscall();
        let _source = trace::remote(root);
        while let Some(op) = self.remote_queue.take() {
            self.counters.remote_ops.add(1);
            match op {
                RemoteOp::Unpark(remote_fiber) => {
                    if let Some(fiber) = root.resolve_remote(remote_fiber) {
                        root.inject_permit(fiber);
                    }
                }
                RemoteOp::Wake(remote_fiber) => {
                    // If the wait was unwound, the fiber waits for something else now, and must not be disturbed.
                    if let Some(fiber) = root.resolve_remote(remote_fiber)
                        && fiber.waits_for().is_remote()
                    {
                        root.inject(fiber);
                    }
                }
                RemoteOp::Recheck => {
                    let wake = |fiber: Fiber| {
                        if matches!(fiber.waits_for(), Reason::Remote(_)) {
                            root.inject(fiber);
                        }
                    };
                    wake(root.main());
                    root.for_each_fiber(wake);
                }
                #[cfg(feature = "monkey")]
                RemoteOp::Closed(fd) => self.watcher().forget_number(root, fd),
                RemoteOp::Kill(remote_fiber) => {
                    if let Some(fiber) = root.resolve_remote(remote_fiber) {
                        root.inject_kill(fiber);
                    }
                }
            }
        }
        for _ in 0..START_BATCH {
            let Some(work) = self.remote_queue.take_work() else { return };
            self.counters.remote_ops.add(1);
            work.start(root);
        }
    }

    /// Does the work of a poll in an OS thread that simulates: never waits, and never asks the kernel. With `may_wait`
    /// the clock jumps to what happens next.
    #[cold]
    fn poll_simulated(&self, simulated: &Simulated, may_wait: bool) {
        let (root, clock) = (self.root, &simulated.clock);
        if !self.remote_queue.is_empty() {
            self.run_remote_ops(root);
        }
        if may_wait && root.runnable() == 0 && !self.jump(simulated) {
            self.shared_waits.note_holders();
            let report = report::deadlock(root);
            if let Some(simulation) = root.simulation() {
                simulation.deadlock(&report);
            }
            root.deadlock(report);
        }
        root.clock.set(clock.get());
        self.reactor.take_simulated(root, simulated);
        if self.timers.is_due(clock.get()) {
            self.counters.timers_fired.add(self.timers.fire(root, clock.get()));
        }
    }

    /// Moves the virtual clock to the next timer, or to the next packet that arrives. Returns whether there is one, or
    /// what has arrived already is to be looked at.
    fn jump(&self, simulated: &Simulated) -> bool {
        // An entry that was left over must not hide a deadlock.
        self.timers.drop_stale(self.root);
        let mut sockets = simulated.sockets.borrow_mut();
        if sockets.network.has_changes() {
            return true;
        }
        let next = [self.timers.next_wakeup(), sockets.network.next_event()].into_iter().flatten().min();
        if let Some(at) = next {
            simulated.clock.set(simulated.clock.get().max(at));
        }
        next.is_some()
    }

    /// Lets time pass in a simulation in which nothing is runnable, until something happens. Returns whether anything
    /// can.
    pub(crate) fn pass_time(&self) -> bool {
        let Some(simulated) = &self.simulated else { return false };
        let passes = self.jump(simulated);
        self.poll_simulated(simulated, false);
        passes
    }

    /// Returns the virtual clock and network of this hub, if it simulates.
    pub(crate) fn simulated(&self) -> Option<&Simulated> {
        self.simulated.as_ref()
    }

    /// Lets time pass in a simulation until `at`, if that is not over. What is due then happens at the next poll.
    pub(crate) fn advance(&self, at: u64) {
        if let Some(simulated) = &self.simulated {
            simulated.clock.set(simulated.clock.get().max(at));
            self.root.clock.set(simulated.clock.get());
        }
    }

    /// Sets the virtual clock back to its start, for a simulation that begins anew. No fiber but main is left.
    pub(crate) fn restart(&self) {
        if let Some(simulated) = &self.simulated {
            self.timers.forget(self.root.main());
            self.timers.restart(START);
            simulated.clock.set(START);
            self.root.clock.set(START);
        }
    }

    /// Asks epoll for events, and waits up to `timeout` nanoseconds (`None`: for ever) for the first one.
    fn ask_epoll(&self, root: &Root, timeout: Option<u64>) {
        if timeout != Some(0) {
            self.counters.note_sleep();
        }
        self.counters.epoll_calls.add(1);
        self.counters.epoll_events.add(self.reactor.poll(root, timeout) as u64);
    }

    /// Returns the figures that other OS threads cannot ask this hub for.
    fn gauges(&self) -> Gauges {
        let root = self.root;
        Gauges {
            spawned: root.spawned(),
            turns: root.turns(),
            live: root.live(),
            runnable: root.runnable(),
            timers: self.timers.len(),
            stacks: root.stack_stats(),
        }
    }

    /// Returns the counters of this hub, with gauges that are new.
    pub(crate) fn fresh_counters(&self) -> &Counters {
        self.counters.copy_from(monotonic_ns(), &self.gauges());
        &self.counters
    }

    /// Begins or ends to take delays, as the watch is on or off; if it is on, a new choice of wake-ups begins.
    #[cold]
    #[inline(never)]
    fn take_delays(&self, root: &Root, is_watched: bool) {
        if self.takes_delays.replace(is_watched) != is_watched {
            root.set_delays(is_watched.then(|| Arc::clone(&self.counters.delays)));
        }
        root.begin_delays();
    }

    /// Sleeps until something happens, or reports that nothing ever can. Nothing is runnable.
    fn sleep(&self, root: &'static Root) {
        if !self.remote_queue.prepare_to_sleep() {
            return;
        }
        // Asked after `prepare_to_sleep`: the drop of the last handle rings from now on, and then this is asked again.
        let can_be_woken = self.can_be_woken(root);
        if !can_be_woken {
            // Only timers can wake a fiber here.
            self.timers.drop_stale(root);
        }
        let next = self.timers.next_wakeup();
        #[cfg(feature = "monkey")]
        if next.is_none() && !can_be_woken && self.foreign_waits.any() {
            return self.sleep_for_foreign_locks(root);
        }
        if next.is_none() && !can_be_woken {
            self.remote_queue.woke();
            // A remote op is a wake-up even if its sender dropped the last handle after `prepare_to_sleep`.
            if self.remote_queue.is_empty() {
                self.shared_waits.note_holders();
                root.deadlock(report::deadlock(root));
            }
            return;
        }
        // Unused stacks are given back in steps, for which an idle hub wakes up a few times.
        let wakeup = [next, root.tend_stacks_at()].into_iter().flatten().min();
        let timeout = wakeup.map(|at| at.saturating_sub(monotonic_ns()));
        self.ask_epoll(root, timeout);
        self.remote_queue.woke();
    }

    /// Sleeps where only locks of `std` and C can wake a fiber, and reports that after a while.
    #[cfg(feature = "monkey")]
    #[cold]
    #[inline(never)]
    fn sleep_for_foreign_locks(&self, root: &Root) {
        let report_at = self.foreign_waits.report_at();
        let wakeup = [report_at, root.tend_stacks_at()].into_iter().flatten().min();
        self.ask_epoll(root, wakeup.map(|at| at.saturating_sub(monotonic_ns())));
        self.remote_queue.woke();
        if let Some(at) = report_at
            && root.runnable() == 0
            && self.remote_queue.is_empty()
        {
            self.foreign_waits.report_if_due(root, at);
        }
    }

    /// Reports whether anything but a timer or a lock of `std` or C may still wake a fiber of this hub.
    fn can_be_woken(&self, root: &Root) -> bool {
        // Only `thread::park` listens to `Thread` handles; what another hub starts here may wake any fiber.
        self.reactor.waiting.get() > 0
            || self.jobs.get() > 0
            || (self.parked.get() > 0 && self.remote_queue.has_handles())
            || self.remote_queue.has_spawners()
            || self.shared_waits.can_be_released(root)
    }
}

impl Scheduler for Hub {
    fn install(&'static self) {
        HUB.set(Some(self));
        if self.simulated.is_some() {
            simulation::follow(self.simulated.as_ref());
        }
    }

    fn revoke(&self) {
        HUB.set(None);
        if self.simulated.is_some() {
            simulation::follow(None);
        }
    }

    fn poll(&self, _: &Root, may_wait: bool) {
        // The root that asks, which lives as long as the thread switches (root-1).
        let root = self.root;
        if self.is_forked() {
            // A forked child in a wait that cannot be interrupted: epoll would steal its parent's events.
            abort_with(&FORKED);
        }
        if let Some(simulated) = &self.simulated {
            return self.poll_simulated(simulated, may_wait);
        }
        let is_watched = watch_thread::is_on_in(self.generation);
        if is_watched || self.takes_delays.get() {
            self.take_delays(root, is_watched);
        }
        // 1 and 2: the remote queue, and the sleep.
        if !self.remote_queue.is_empty() {
            self.run_remote_ops(root);
        }
        let sleeps = may_wait && root.runnable() == 0;
        if sleeps {
            let before = monotonic_ns();
            root.tend_stacks(before);
            self.counters.note_turn(root.clock.get(), before);
            self.counters.copy_from(before, &self.gauges());
            self.sleep(root);
        }
        // 3: what came before a timer is due has come before this moment. So the rest of it is taken after this moment,
        // and only then timers fire: also if the process was stopped just now, or if a signal has ended the sleep
        // (which then took no events).
        let now = monotonic_ns();
        if sleeps {
            self.polled.set(now);
        } else {
            self.counters.note_turn(root.clock.get(), now);
        }
        if !self.remote_queue.is_empty() {
            self.run_remote_ops(root);
        }
        // 4: events.
        if !self.reactor.is_empty() && (now - self.polled.get() >= EPOLL_INTERVAL || self.timers.is_due(now)) {
            self.ask_epoll(root, Some(0));
            self.polled.set(now);
        }
        // 5 and 6: stacks, and timers.
        root.clock.set(now);
        root.tend_stacks(now);
        if !self.timers.is_empty() {
            self.counters.timers_fired.add(self.timers.fire(root, now));
        }
        root.note_activity();
        self.counters.begin_turn(now);
        // What was counted, for others to read.
        self.counters.polls.add(1);
        self.counters.note_runnable(root.runnable());
        if self.counters.copy_is_due(now) {
            self.counters.copy_from(now, &self.gauges());
        }
    }

    fn asked(&self) -> u64 {
        self.counters.epoll_calls.get()
    }

    fn note_events(&self, root: &Root, asked: u64) {
        if root.is_recording() && self.counters.epoll_calls.get() != asked {
            self.reactor.note_events(root);
        }
    }

    fn has_timers(&self) -> bool {
        !self.timers.is_empty()
    }

    fn wheel_at(&self) -> u64 {
        self.timers.at()
    }

    fn is_quiet(&self) -> bool {
        !self.is_forked() && self.remote_queue.is_empty() && self.reactor.is_empty() && self.timers.is_empty()
    }

    fn watch(&self, flag: &Arc<PreemptFlag>) -> bool {
        let _own = runtime_syscall();
        monitor::watch(flag)
    }

    fn arm(&self, _: &Root, fiber: Fiber) {
        let at = fiber.scope_deadline.get().at;
        // In an unwinding nothing is raised.
        if at != NEVER && !std::thread::panicking() {
            self.set_deadline(fiber, at);
        }
    }

    fn disarm(&self, root: &Root, fiber: Fiber) -> bool {
        fiber.deadline.set(NEVER);
        fiber.timed_out.take() && fiber.scope_deadline.get().at <= root.clock.get()
    }

    fn forget(&self, fiber: Fiber) {
        self.timers.forget(fiber);
    }

    fn collect(&self, _: &Root) {
        while let Some(work) = self.remote_queue.take_work() {
            work.start(self.root);
        }
    }

    fn refuse(&self) {
        self.remote_queue.refuse();
    }

    fn names(&self, visit: &mut dyn FnMut(u64, &dyn Display)) {
        // An overflow while the list grows is reported without a name.
        let Ok(list) = self.names.try_borrow() else { return };
        for names in list.iter() {
            // Others hold it too, and do not let go meanwhile: nothing switches here.
            if let Some(names) = names.upgrade() {
                names.names(visit);
            }
        }
    }

    fn close(&self, root: &Root) {
        self.remote_queue.close();
        self.counters.end();
        if self.is_forked() {
            // In a child, the threads that wait for remote work do not exist; and a lock may be held for ever.
            return;
        }
        trace::end_by_environment(root);
        // Fibers that could not be unwound: other threads wait for what these were handed.
        self.shared_waits.abandon_all();
        #[cfg(feature = "monkey")]
        self.foreign_waits.close(root);
        // What such fibers hold they keep, and the fibers that wait for it are told; but not in the last moment of a
        // process, where that would be a panic for nothing: main has returned, or something has called `process::exit`.
        if root.live() > 0 && root.current().is_main() && !is_main_thread() {
            ended::end(root.number());
        }
        if self.jobs.get() > 0 {
            self.remote_queue.notify_other_hubs();
        }
        // Work that never started, and work that will not go on: joiners of either must not wait for ever.
        while let Some(work) = self.remote_queue.take_work() {
            work.abandon();
        }
        loop {
            let mut remote_work = self.remote_work.borrow_mut();
            let Some((key, _)) = remote_work.iter().next() else { return };
            let work = remote_work.remove(key);
            drop(remote_work);
            if let Some(work) = work {
                work.abandon();
            }
        }
    }
}
