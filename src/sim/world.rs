//! One OS thread that simulates: what it is told before each run, and what it has seen after it.
//!
//! ```text
//!   run:   the clock at its start, a chooser of the plan
//!            the program, as main of this OS thread
//!          others run until nothing can ever run again      (unless leaks are allowed)
//!          what is left has leaked; it is killed
//! ```
//!
//! A run leaves nothing to the next one but the memory of the hub. What the program keeps in thread-locals and statics
//! stays, since it is the program's.
//!
//! * Invariant sim-1: what fails first is the failure of the run. From then on main has each turn that it can have, so
//!   that its next wait ends with the report.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, Location, PanicHookInfo, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::failure::{FailureKind, Step, StepKind};
use super::faults::{Faults, Places};
use super::registry::Registry;
use crate::interrupt::no_switch;
use crate::pure::drops::drop_quietly;
use crate::pure::network::{HostId, LOCALHOST, Mishap};
use crate::pure::random::Random;
use crate::pure::schedule::{Chooser, Made, Plan};
use crate::runtime::choose::draw_by_simulation;
use crate::runtime::faults::fault;
use crate::runtime::hub::{Hub, existing_hub, hub};
use crate::runtime::report;
use crate::switch::cancel;
use crate::switch::fiber::{Fiber, Reason};
use crate::switch::reason::NOTIFICATION;
use crate::switch::root::{MAIN_ID, Root, existing_root, root};
use crate::switch::simulation::{Left, Simulation};
use crate::switch::state::State;
use crate::sys::clock::NEVER;
use crate::sys::endpoint::endpoint;
use crate::sys::fault::{Fault, FaultKind, WAYS};
use crate::sys::simulation::{START, Simulated, virtual_ns};
use crate::sys::virtual_files::with_disk_of;
use crate::sys::virtual_sockets::left;
use crate::thread::yield_now;

/// The most turns after main has returned, in a run without a bound.
const MOST_DRAINED: u64 = 1_000_000;

/// The message of a panic with a payload that is no text.
const NO_MESSAGE: &str = "a panic without a message";

/// What a run is told.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The seed of the choices and of `random`.
    pub(super) seed: u64,
    /// How choices are made.
    pub(super) plan: Plan,
    /// The suspension at which the thread that suspends is killed; 0 for none.
    pub(super) kill: u64,
    /// What goes wrong on purpose.
    pub(super) faults: Faults,
    /// The number of turns and checkpoints after which the run is taken for endless.
    pub(super) max_turns: u64,
    /// Whether threads may be left at the end.
    pub(super) allow_leaks: bool,
    /// Whether panics are not printed.
    pub(super) quiet: bool,
    /// Whether the steps are kept.
    pub(super) records: bool,
}

/// What a run has come to.
#[derive(Debug)]
pub(super) struct Ended<R> {
    /// The result of the program, or how it failed.
    pub(super) result: Result<R, Failed>,
    /// All choices, in order.
    pub(super) made: Vec<Made>,
    /// The numbers of the choices whether something goes wrong.
    pub(super) faults: Vec<u64>,
    /// The steps, if they were kept.
    pub(super) steps: Vec<Step>,
    /// How often a thread other than main left the CPU before its end.
    pub(super) suspensions: u64,
    /// The turns and checkpoints.
    pub(super) turns: u64,
    /// Whether the OS thread may not be used for another run, since a thread of this one could not be ended, or values
    /// of the OS thread depend on the seed.
    pub(super) is_spoilt: bool,
}

/// How a run failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// What kind of failure it is.
    pub(super) kind: FailureKind,
    /// The message of the panic, or the report of what else failed.
    pub(super) text: String,
    /// What main panicked with, if it did.
    pub(super) payload: Payload,
}

/// What main panicked with. A payload that panics when it is dropped does not end an exploration.
#[derive(Debug, Default)]
pub(super) struct Payload(Option<Box<dyn Any + Send>>);

impl Payload {
    /// Takes the payload, if there is one.
    pub(super) fn take(&mut self) -> Option<Box<dyn Any + Send>> {
        self.0.take()
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        drop_quietly(self.0.take());
    }
}

/// Returns the message that `payload` is, if it is one.
fn message_of(payload: &(dyn Any + Send)) -> Option<&str> {
    let message = payload.downcast_ref::<&str>().copied();
    message.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Reports whether a wait for `reason` may end without what it was for.
fn is_woken_for_nothing(reason: Reason) -> bool {
    matches!(reason, Reason::Park) || reason == Reason::Event(NOTIFICATION)
}

/// The simulation of one OS thread.
pub(super) struct World {
    /// What makes the choices of the run.
    chooser: RefCell<Chooser>,
    /// The numbers for the program.
    random: RefCell<Random>,
    /// The seed of the run.
    seed: Cell<u64>,
    /// What is to hold whenever no thread runs.
    invariants: RefCell<Vec<Rc<dyn Fn()>>>,
    /// The first failure of the run.
    failure: RefCell<Option<(FailureKind, String)>>,
    /// The latest panic of the program, and where it came from.
    latest_panic: RefCell<String>,
    /// The steps of the run, if they are kept.
    steps: RefCell<Option<Vec<Step>>>,
    /// The turns and checkpoints so far.
    turns: Cell<u64>,
    /// The most turns and checkpoints.
    max_turns: Cell<u64>,
    /// The suspensions so far of threads other than main.
    suspensions: Cell<u64>,
    /// The suspension at which the thread is killed; 0 for none.
    kill: Cell<u64>,
    /// What goes wrong on purpose, if anything does.
    places: RefCell<Option<Places>>,
    /// What has to be given back before the end.
    registry: Registry,
    /// The latest id that was given out before the run.
    base: Cell<u64>,
    /// Whether panics are not printed.
    quiet: Cell<bool>,
    /// Whether main waits for the end of all others.
    drains: Cell<bool>,
    /// The host of the thread that runs.
    host: Cell<HostId>,
    /// The hosts of the threads that the run has spawned, by id from `base` on; those of the latest turn are missing.
    hosts: RefCell<Vec<HostId>>,
}

impl World {
    /// Makes this OS thread simulate, for the rest of its life. It must not have a hub yet.
    pub(super) fn begin() -> Rc<World> {
        let world = Rc::new(World {
            chooser: RefCell::new(Chooser::new(0, Plan::Fifo, Vec::new())),
            random: RefCell::new(Random::new(0)),
            seed: Cell::new(0),
            invariants: RefCell::default(),
            failure: RefCell::default(),
            latest_panic: RefCell::default(),
            steps: RefCell::default(),
            turns: Cell::new(0),
            max_turns: Cell::new(u64::MAX),
            suspensions: Cell::new(0),
            kill: Cell::new(0),
            places: RefCell::default(),
            registry: Registry::default(),
            base: Cell::new(MAIN_ID),
            quiet: Cell::new(false),
            drains: Cell::new(false),
            host: Cell::new(LOCALHOST),
            hosts: RefCell::default(),
        });
        root().simulate(Box::new(Rc::clone(&world)));
        draw_by_simulation();
        world
    }

    /// Calls `f` with the simulation of this OS thread, if it simulates.
    pub(super) fn with<R>(f: impl FnOnce(&Rc<World>) -> R) -> Option<R> {
        let simulation = existing_root()?.simulation()?;
        simulation.as_any().downcast_ref::<Rc<World>>().map(f)
    }

    /// Runs `f` once, as `order` says, as main of this OS thread.
    pub(super) fn run<R>(&self, order: &Order, f: impl FnOnce() -> R) -> Ended<R> {
        let root = root();
        match hub() {
            Ok((_, hub)) => {
                hub.restart();
                if let Some(simulated) = hub.simulated() {
                    simulated.restart(order.seed);
                    simulated.sockets.borrow_mut().network.ask_for_mishaps(mishap);
                    simulated.files.borrow_mut().restart();
                    simulated.ask_for_host(current_host);
                    simulated.ask_for_faults(fault);
                }
            }
            Err(error) => panic!("greenling: a simulation has no hub: {error}"),
        }
        self.restart(root, order);
        let result = catch_unwind(AssertUnwindSafe(f));
        if result.is_ok() && !order.allow_leaks {
            self.drain(root);
        }
        let mut is_spoilt = self.clean_up(root, result.is_ok() && !order.allow_leaks);
        // What is seeded once for each OS thread, as the hashes of std, has the seed of this run.
        is_spoilt |= existing_hub().and_then(Hub::simulated).is_some_and(Simulated::has_drawn);
        let result = match (result, self.failure.take()) {
            (Ok(value), None) => Ok(value),
            (Ok(value), Some((kind, text))) => {
                drop_quietly(value);
                Err(Failed { kind, text, payload: Payload::default() })
            }
            (Err(payload), Some((kind, text))) => Err(Failed { kind, text, payload: Payload(Some(payload)) }),
            (Err(payload), None) => {
                let text = self.text_of(message_of(&*payload));
                Err(Failed { kind: FailureKind::Panic, text, payload: Payload(Some(payload)) })
            }
        };
        let mut chooser = self.chooser.borrow_mut();
        let (made, faults) = (chooser.take_made(), chooser.take_faults());
        Ended {
            result,
            made,
            faults,
            steps: self.steps.take().unwrap_or_default(),
            suspensions: self.suspensions.get(),
            turns: self.turns.get(),
            is_spoilt,
        }
    }

    /// Returns the `message` of a panic, and where it came from, if that is known: the hook knows it, but the program
    /// may have a hook of its own, and `resume_unwind` calls none.
    fn text_of(&self, message: Option<&str>) -> String {
        let latest = self.latest_panic.take();
        match message {
            Some(message) if !latest.starts_with(message) || latest.is_empty() => message.to_owned(),
            None if latest.is_empty() => NO_MESSAGE.to_owned(),
            _ => latest,
        }
    }

    /// Begins a run: nothing is left of the run before.
    fn restart(&self, root: &Root, order: &Order) {
        let made = self.chooser.borrow_mut().take_made();
        self.chooser.replace(Chooser::new(order.seed, order.plan.clone(), made));
        // Another stream than that of the choices, so that a replayed schedule draws the same numbers.
        self.random.replace(Random::new(!order.seed));
        self.seed.set(order.seed);
        self.failure.take();
        self.latest_panic.take();
        self.steps.replace(order.records.then(Vec::new));
        self.turns.set(0);
        self.max_turns.set(order.max_turns);
        self.suspensions.set(0);
        self.kill.set(order.kill);
        let places = Places::new(order.faults.clone());
        self.places.replace((!places.is_empty()).then_some(places));
        root.forget_reserve();
        self.registry.clear();
        self.base.set(root.spawned());
        self.host.set(LOCALHOST);
        self.hosts.borrow_mut().clear();
        self.quiet.set(order.quiet);
    }

    /// Lets the other threads run until none is left, or until nothing can ever run again. The caller is main, and has
    /// each turn only if no other thread can have it.
    fn drain(&self, root: &Root) {
        self.drains.set(true);
        if self.max_turns.get() == u64::MAX {
            // Main had no bound, but what runs for ever without it would hang the test.
            self.max_turns.set(self.turns.get().saturating_add(MOST_DRAINED));
        }
        // A failure ends main's yield with its report.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            while root.live() > 0 && !self.has_failed() {
                if root.runnable() > 0 {
                    yield_now();
                } else if !existing_hub().is_some_and(|hub| hub.pass_time()) {
                    break;
                }
            }
        }));
        drop_quietly(ran);
        self.drains.set(false);
    }

    /// Ends what the run has left. With `reports`, threads that are left are a failure. Returns whether some could not
    /// be ended.
    fn clean_up(&self, root: &Root, reports: bool) -> bool {
        let main = root.main();
        let reports = reports && !self.has_failed();
        let mut text = String::from("leak: main has returned, and ");
        let are_threads_left = root.live() > 0;
        if are_threads_left && reports {
            let mut left = Vec::new();
            root.for_each_fiber(|fiber| left.push(fiber));
            left.sort_unstable_by_key(|fiber| fiber.id.get());
            text.push_str("threads are left that can never end");
            report::lines(root, &mut text, &left, &left, report::MAX_LINES);
        }
        // While the threads that are left hold what they hold.
        let mut things = if reports { self.ask_lenders() } else { Vec::new() };
        self.invariants.replace(Vec::new()).into_iter().for_each(drop_quietly);
        if root.live() > 0 {
            root.unwind_all();
        }
        // Main goes on to the next run.
        drop(root.take_deadlock());
        main.permit.set(false);
        cancel::clear_unwinding(main);
        main.restart_extras();
        things.extend(self.registry.take_values());
        things.extend(open_sockets());
        if reports && (are_threads_left || !things.is_empty()) {
            if !are_threads_left {
                text.push_str("something is left");
            }
            for thing in things {
                text.push_str("\n  ");
                text.push_str(&thing);
            }
            self.failure.replace(Some((FailureKind::Leak, text)));
        }
        root.live() > 0
    }

    /// Asks what is lent out, and returns a line for each answer. The answers are the program's code.
    fn ask_lenders(&self) -> Vec<String> {
        let asked = catch_unwind(AssertUnwindSafe(|| no_switch(|| self.registry.take_lent())));
        asked.unwrap_or_else(|payload| {
            let text = self.text_of(message_of(&*payload));
            drop_quietly(payload);
            vec![format!("what was asked for at the end, which panicked: {text}")]
        })
    }

    /// Notes the failure of the run, unless there is one already, and wakes main with the report (sim-1).
    fn fail(&self, kind: FailureKind, text: String) {
        if self.has_failed() {
            return;
        }
        self.failure.replace(Some((kind, text.clone())));
        if let Some(root) = existing_root() {
            root.deadlock(text);
        }
    }

    /// Reports whether the run has failed.
    fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Returns which of the `possible` faults happens to `thread` now, if one does; each of them has as many ways.
    fn choose_fault(&self, thread: u64, possible: &[(FaultKind, usize)]) -> Option<Fault> {
        let places = self.places.borrow();
        let places = places.as_ref().filter(|_| !self.has_failed())?;
        if let Some(kind) = places.meet(possible.iter().map(|(kind, _)| *kind)) {
            let fault = Fault { kind, variant: 0 };
            self.note_step(0, 0, thread, StepKind::Fault(fault));
            return Some(fault);
        }
        // Each way of each kind that is drawn has its part of the chance.
        let mut ways = [(Fault { kind: FaultKind::Kill, variant: 0 }, 0); WAYS];
        let drawn = possible.iter().filter_map(|&(kind, of)| Some((kind, of, places.chance(kind)? / of as u64)));
        let each = drawn.flat_map(|(kind, of, chance)| (0..of).map(move |variant| (Fault { kind, variant }, chance)));
        let count = ways.iter_mut().zip(each).map(|(way, drawn)| *way = drawn).count();
        let at = self.chooser.borrow_mut().fault(ways[..count].iter().map(|(_, chance)| *chance));
        let (fault, _) = *ways.get(at.checked_sub(1)?)?;
        self.note_step(count + 1, at, thread, StepKind::Fault(fault));
        Some(fault)
    }

    /// Decides whether something happens to a packet that has this chance, in parts of 2^32.
    fn choose_mishap(&self, mishap: Mishap, chance: u64) -> bool {
        if self.has_failed() {
            return false;
        }
        let at = self.chooser.borrow_mut().fault([chance].into_iter());
        if at > 0 {
            self.note_step(2, at, 0, StepKind::Packet(mishap));
        }
        at > 0
    }

    /// Lets go wrong what can go wrong where `left` has just left the CPU.
    fn strike(&self, root: &Root, left: Fiber) {
        let waits = matches!(left.state.get(), State::Parked | State::Switched);
        // The end of the wait at the latest, and that of the scope. The former is never after the latter.
        let (wait_ends, scope_ends) = (if waits { left.deadline.get() } else { NEVER }, left.scope_deadline.get().at);
        let limits = [scope_ends, wait_ends];
        let mut limits = limits.into_iter().filter(|at| *at != NEVER).collect::<Vec<_>>();
        limits.dedup();
        let is_woken = left.state.get() == State::Parked && is_woken_for_nothing(left.waits_for());
        let possible = [
            (FaultKind::SpuriousWake, usize::from(is_woken)),
            (FaultKind::LateTimer, if wait_ends == NEVER { 0 } else { FaultKind::LateTimer.variants() }),
            (FaultKind::Timeout, limits.len()),
            (FaultKind::Kill, usize::from(!left.is_main())),
        ];
        let possible: Vec<_> = possible.into_iter().filter(|(_, of)| *of > 0).collect();
        let Some(fault) = self.choose_fault(left.id.get(), &possible) else { return };
        match fault.kind {
            FaultKind::Kill => drop(root.kill(left)),
            FaultKind::LateTimer => left.deadline.set(wait_ends.saturating_add(fault.lateness()).min(NEVER - 1)),
            FaultKind::Timeout => existing_hub().into_iter().for_each(|hub| hub.advance(limits[fault.variant])),
            // The permit makes `park` return; a `Condvar` sees that it was woken for nothing.
            _ if matches!(left.waits_for(), Reason::Park) => root.give_permit(left),
            _ => drop(root.wake(left)),
        }
    }

    /// Counts a turn or a checkpoint; the run fails if there were too many.
    fn count_turn(&self) {
        let turns = self.turns.get() + 1;
        self.turns.set(turns);
        if turns == self.max_turns.get() {
            let returned = if self.drains.get() { "main has returned, and " } else { "" };
            let hint = if self.drains.get() { "; if they are to, allow leaks" } else { "" };
            let at = elapsed();
            let text =
                format!("no end: {returned}threads still run after {turns} turns, at {at:?} of virtual time{hint}");
            self.fail(FailureKind::NoEnd, text);
        }
    }

    /// Checks what is to hold whenever no thread runs.
    fn check_invariants(&self, root: &Root) {
        if self.invariants.borrow().is_empty() || self.has_failed() {
            return;
        }
        let invariants = self.invariants.borrow().clone();
        for invariant in invariants {
            let checked = root.as_main(|| catch_unwind(AssertUnwindSafe(|| no_switch(|| invariant()))));
            if let Err(payload) = checked {
                let text = format!("an invariant does not hold: {}", self.text_of(message_of(&*payload)));
                drop_quietly(payload);
                self.fail(FailureKind::Invariant, text);
            }
        }
    }

    /// Adds a step to those that are kept.
    fn note_step(&self, of: usize, picked: usize, thread: u64, what: StepKind) {
        if let Some(steps) = self.steps.borrow_mut().as_mut() {
            let thread = self.number_of(thread);
            steps.push(Step { at: elapsed(), thread, what, picked: picked as u32, of: of as u32 });
        }
    }

    /// Returns what has to be given back before the end.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the number of the running thread: main is 1 in each run, and the first thread that a run spawns 2.
    pub(super) fn current_number(&self) -> u64 {
        self.number_of(existing_root().map_or(MAIN_ID, |root| root.current().id.get()))
    }

    /// Returns the number of the thread with this id.
    fn number_of(&self, id: u64) -> u64 {
        if id == MAIN_ID { MAIN_ID } else { id.saturating_sub(self.base.get()) }
    }

    /// Adds what is to hold whenever no thread runs.
    pub(super) fn add_invariant(&self, invariant: Rc<dyn Fn()>) {
        self.invariants.borrow_mut().push(invariant);
    }

    /// Chooses a number below `count` for the program.
    pub(super) fn choose_number(self: &Rc<Self>, count: usize) -> usize {
        self.draw(count)
    }

    /// Returns the next random number of the run.
    pub(super) fn random(&self) -> u64 {
        self.random.borrow_mut().next()
    }

    /// Returns the host of a thread by its id: a thread is on the host of the thread that spawned it.
    fn host_of(&self, id: u64) -> HostId {
        // The first thread that a run spawns has the id after main's, counted from `base` on.
        let at = id.checked_sub(self.base.get() + MAIN_ID + 1);
        let known = at.and_then(|at| self.hosts.borrow().get(at as usize).copied());
        if id == MAIN_ID { LOCALHOST } else { known.unwrap_or(self.host.get()) }
    }

    /// Notes that what was spawned since the last call is on the host of the thread that runs.
    fn note_hosts(&self) {
        let spawned = existing_root().map_or(0, Root::spawned).saturating_sub(self.base.get());
        let mut hosts = self.hosts.borrow_mut();
        let len = hosts.len().max(spawned as usize);
        hosts.resize(len, self.host.get());
    }

    /// Spawns threads by `spawn`, which does not wait, on a host.
    pub(super) fn on_host<R>(&self, host: HostId, spawn: impl FnOnce() -> R) -> R {
        self.note_hosts();
        let before = self.host.replace(host);
        let spawned = catch_unwind(AssertUnwindSafe(spawn));
        self.note_hosts();
        self.host.set(before);
        spawned.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Ends the disk of a host: what was not synced is lost, but for what the schedule leaves of it.
    pub(super) fn crash_disk(self: &Rc<Self>, host: HostId) {
        if let Some(simulated) = existing_hub().and_then(|hub| hub.simulated()) {
            with_disk_of(simulated, host, |disk| disk.crash(&mut |of| self.draw(of)));
        }
    }

    /// Kills the threads of a host.
    pub(super) fn kill_all_of(&self, host: HostId) {
        self.note_hosts();
        let root = root();
        let mut doomed = Vec::new();
        root.for_each_fiber(|fiber| doomed.push(fiber));
        doomed.sort_unstable_by_key(|fiber| fiber.id.get());
        doomed.retain(|fiber| self.host_of(fiber.id.get()) == host);
        for fiber in doomed {
            root.kill(fiber);
        }
    }

    /// Returns the seed of the run.
    pub(super) fn seed(&self) -> u64 {
        self.seed.get()
    }
}

/// Decides for the network of this OS thread what happens to a packet.
fn mishap(mishap: Mishap, chance: u64) -> bool {
    World::with(|world| world.choose_mishap(mishap, chance)).unwrap_or(false)
}

/// Returns a line for each socket that is open.
fn open_sockets() -> Vec<String> {
    let Some(simulated) = existing_hub().and_then(|hub| hub.simulated()) else { return Vec::new() };
    let line = |(number, place): (RawFd, Option<&Location<'_>>)| {
        let what = endpoint(number).map_or_else(String::new, |endpoint| format!(": {endpoint}"));
        let place = place.map_or_else(String::new, |place| format!(", made at {place}"));
        format!("an open socket{what}{place}")
    };
    left(simulated).into_iter().map(line).collect()
}

/// Returns the host of the thread that runs.
pub(super) fn current_host() -> HostId {
    World::with(|world| world.host.get()).unwrap_or(LOCALHOST)
}

/// Returns how far the virtual clock of this OS thread is from its start.
pub(super) fn elapsed() -> Duration {
    Duration::from_nanos(virtual_ns().unwrap_or(START) - START)
}

impl Simulation for Rc<World> {
    fn choose(&self, of: usize, id: &dyn Fn(usize) -> u64, left: Left) -> usize {
        if left == Left::Preempts {
            self.count_turn();
        }
        let main = (0..of).find(|&at| id(at) == MAIN_ID);
        let at = match main {
            // Main is to see the failure; a main that runs has to suspend for that.
            Some(0) if self.has_failed() && left == Left::Preempts => return of,
            Some(main) if self.has_failed() => return main,
            // Main has its turn when no other thread can have it.
            Some(main) if self.drains.get() && of > 1 => {
                let other = |at: usize| if at < main { at } else { at + 1 };
                other(self.chooser.borrow_mut().pick(of - 1, None, |at| id(other(at))))
            }
            _ => {
                let yielded = match left {
                    Left::Yields(id) => Some(id),
                    Left::Preempts | Left::Waits => None,
                };
                self.chooser.borrow_mut().pick(of, yielded, id)
            }
        };
        if left != Left::Preempts {
            self.note_step(of, at, id(at), StepKind::Runs);
        } else if of > 1 && at == 0 {
            self.note_step(of, at, id(at), StepKind::GoesOn);
        } else if of > 1 {
            self.note_step(of, at, id(at), StepKind::Preempts);
        }
        if let Some(next) = (at < of).then(|| id(at)) {
            self.note_hosts();
            self.host.set(self.host_of(next));
        }
        at
    }

    fn draw(&self, of: usize) -> usize {
        let at = self.chooser.borrow_mut().draw(of);
        self.note_step(of, at, existing_root().map_or(0, |root| root.current().id.get()), StepKind::Draws);
        at
    }

    fn fault(&self, possible: &[FaultKind]) -> Option<Fault> {
        let possible: Vec<_> = possible.iter().map(|kind| (*kind, kind.variants())).collect();
        self.choose_fault(existing_root()?.current().id.get(), &possible)
    }

    fn between_turns(&self, left: Option<Fiber>) {
        self.count_turn();
        let root = root();
        if let Some(left) = left.filter(|left| !left.is_main()) {
            self.suspensions.set(self.suspensions.get() + 1);
            if self.suspensions.get() == self.kill.get() {
                root.kill(left);
            }
        }
        if let Some(left) = left
            && self.places.borrow().is_some()
        {
            self.strike(root, left);
        }
        self.check_invariants(root);
    }

    fn notes_panic(&self, info: &PanicHookInfo<'_>) -> bool {
        let place = info.location().map(|at| format!(", at {at}")).unwrap_or_default();
        self.latest_panic.replace(format!("{}{place}", message_of(info.payload()).unwrap_or(NO_MESSAGE)));
        self.quiet.get()
    }

    fn lost_panic(&self, id: u64, message: Option<&str>) {
        let id = id.saturating_sub(self.base.get());
        let text = format!("thread #{id} panicked, and no thread joins it: {}", self.text_of(message));
        self.fail(FailureKind::Panic, text);
    }

    fn deadlock(&self, report: &str) {
        if !self.has_failed() {
            self.failure.replace(Some((FailureKind::Deadlock, report.to_owned())));
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
