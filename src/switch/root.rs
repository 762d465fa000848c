//! The root: an OS thread's side of switching. Which fiber runs, which are runnable, and how fibers are woken and
//! killed.
//!
//! `run_loop` has the loop that resumes fibers, `teardown` the end of the thread.
//!
//! * Invariant root-1: a thread's `Root` is made on first use and freed by the destructor of `GUARD`, which begins by
//!   setting `ROOT` to `GONE`, for ever. Between the two, `&'static Root` is a reference that stays valid. No
//!   reference is kept across the end of the thread: the only code that runs there is `tear_down` and foreign
//!   destructors, which get `None` from `try_root`.
//! * Invariant root-2: `ready`, `injected`, `pool` and `scheduler` are borrowed only inside the small functions of
//!   this file, `run_loop` and `teardown`. No foreign code (closures, destructors, `Debug`) runs meanwhile, except for
//!   the program's allocator, if it has one. An allocator must not call what may switch: implementing one is unsafe,
//!   and the limits of `thread` add this to the contract.
#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::fmt::{Display, Write};
use std::io;
use std::mem::offset_of;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::budget::{Budget, INJECTED_TURNS};
use super::control_block::ControlBlock;
use super::debug_list::{Entry, ROOT as ROOT_RECORD};
use super::debugger::{Descriptor, RootOffsets};
use super::fiber::{Fiber, FiberRef};
use super::hooks::Hooks;
use super::overflow;
use super::payload::{self, Role};
use super::pending;
use super::reason::{Holder, Reason};
use super::recorder::Recorder;
use super::sampler::Sampler;
use super::simulation::Simulation;
use super::stack_pool::{Listed, StackPool, StackStats};
use super::state::State;
use super::sweep::Sweep;
use super::tls_pool::{BlockPool, LoadedPointer};
use crate::pure::preempt::PreemptFlag;
use crate::pure::run_queue::RunQueue;
use crate::sys::fork::fork_generation;
use crate::sys::message::Message;
use crate::sys::prefetch::prefetch_read;
use crate::sys::process::thread_id;

/// The layer above, which the loop asks for events and timers.
pub(crate) trait Scheduler {
    /// Makes the scheduler the one that the layer above uses on this OS thread, until [`revoke`](Self::revoke).
    fn install(&'static self);

    /// Ends what [`install`](Self::install) began, before the root is freed: the layer above uses the scheduler no
    /// more. Async-signal-safe.
    fn revoke(&self);

    /// Polls the outside world and wakes the fibers that are ready.
    ///
    /// With `may_wait`, no fiber is runnable: sleeps until something happens. If nothing ever can, the scheduler calls
    /// [`Root::deadlock`].
    fn poll(&self, root: &Root, may_wait: bool);

    /// Returns how often events were asked for. Called before a poll while a trace is on.
    fn asked(&self) -> u64;

    /// Notes the events that were taken since [`asked`](Self::asked) returned this.
    fn note_events(&self, root: &Root, asked: u64);

    /// Reports whether the timer wheel has entries.
    fn has_timers(&self) -> bool;

    /// Returns the time to which the timer wheel has come.
    fn wheel_at(&self) -> u64;

    /// Reports whether a poll would find nothing, whatever the time: no remote op, no descriptor, no timer.
    fn is_quiet(&self) -> bool;

    /// Has a monitor raise `flag` once a millisecond for some time, and then unwatch the flag. Returns whether the
    /// monitor will.
    fn watch(&self, flag: &Arc<PreemptFlag>) -> bool;

    /// Arms what may have to wake `fiber`, which is about to suspend although `pending` flags are set.
    fn arm(&self, root: &Root, fiber: Fiber);

    /// Ends an armed suspension. Returns whether a `timeout` scope of this fiber is due.
    fn disarm(&self, root: &Root, fiber: Fiber) -> bool;

    /// Removes a fiber that has ended from the timer wheel.
    fn forget(&self, fiber: Fiber);

    /// Makes fibers of the threads that other OS threads want started, so that `unwind_all` unwinds them as well.
    fn collect(&self, root: &Root);

    /// Refuses new work of other OS threads, because the thread begins to end.
    fn refuse(&self);

    /// Calls `visit` with the id and the name of each fiber that has no name of its own, but gets one when a report is
    /// made. `visit` runs no foreign code, and does not switch. Usable in the handler of a stack overflow.
    fn names(&self, visit: &mut dyn FnMut(u64, &dyn Display));

    /// Tells the threads of other OS threads that wait for a fiber that the fibers have ended. No fiber runs any more;
    /// foreign destructors may run.
    fn close(&self, root: &Root);
}

/// The scheduler of a thread that only ever used greenlets, in which nothing outside can wake a fiber.
struct NoScheduler;

impl Scheduler for NoScheduler {
    fn install(&'static self) {}

    fn revoke(&self) {}

    fn poll(&self, root: &Root, may_wait: bool) {
        if may_wait {
            root.deadlock(String::from(
                "deadlock: main waits in an explicit switch, and no greenlet is left that could switch back",
            ));
        }
    }

    fn asked(&self) -> u64 {
        0
    }

    fn note_events(&self, _: &Root, _: u64) {}

    fn has_timers(&self) -> bool {
        false
    }

    fn wheel_at(&self) -> u64 {
        0
    }

    fn is_quiet(&self) -> bool {
        true
    }

    fn watch(&self, _: &Arc<PreemptFlag>) -> bool {
        false
    }

    fn arm(&self, _: &Root, _: Fiber) {}

    fn disarm(&self, _: &Root, _: Fiber) -> bool {
        false
    }

    fn forget(&self, _: Fiber) {}

    fn collect(&self, _: &Root) {}

    fn refuse(&self) {}

    fn names(&self, _: &mut dyn FnMut(u64, &dyn Display)) {}

    fn close(&self, _: &Root) {}
}

/// The switching state of one OS thread.
pub(crate) struct Root {
    /// What leads debuggers here; set once the root is in its place, and ended before anything else of the root.
    entry: OnceCell<Entry>,
    /// The fiber that runs. It may be main while the loop itself runs, which is harmless.
    pub(super) current: Cell<Fiber>,
    /// The fiber that runs when the fiber that is about to end has ended: the receiver of a dead greenlet's value.
    pub(super) successor: Cell<Option<Fiber>>,
    /// Whether a deputy runs the loop: then `current` was resumed by the deputy, and suspends to it. Never set while
    /// main runs.
    pub(super) deputy: Cell<bool>,
    /// The run queue: runnable fibers, in the order in which they became so.
    pub(super) ready: UnsafeCell<RunQueue<Fiber>>,
    /// The injection queue: runnable fibers that the outside world woke, in that order (invariant run-loop-2).
    pub(super) injected: UnsafeCell<RunQueue<Fiber>>,
    /// The turns that the injection queue has before the next one of `ready`, while both queues have fibers.
    pub(super) injected_turns: Cell<u8>,
    /// The count of turns until the next poll.
    pub(super) budget: Budget,
    /// Main: the program on the OS thread's own stack.
    pub(super) main: Fiber,
    /// The control block of main, freed with the root.
    pub(super) main_block: NonNull<ControlBlock>,
    /// The thread pointer that is loaded.
    pub(super) tls: LoadedPointer,
    /// The TLS blocks of this OS thread's fibers; empty until one asks for a block.
    pub(super) block_pool: OnceCell<RefCell<BlockPool>>,
    /// The number of this root, unique in the process.
    pub(super) number: u64,
    /// The id given out last.
    last_id: Cell<u64>,
    /// The number given out last that is no id.
    last_number: Cell<u64>,
    /// The stacks of this OS thread.
    pub(super) pool: RefCell<StackPool>,
    /// The sweep, which gives the pages of parked threads back.
    sweep: RefCell<Sweep>,
    /// The number of fibers launched and not yet finished.
    pub(super) live: Cell<usize>,
    /// The scheduler that is polled; empty while the thread has used nothing but greenlets.
    pub(super) scheduler: OnceCell<Box<dyn Scheduler>>,
    /// The time of the latest poll in monotonic nanoseconds; the coarse clock of wait reports.
    pub(crate) clock: Cell<u64>,
    /// The report of a deadlock, on its way to main.
    deadlock: Cell<Option<String>>,
    /// The process that this root belongs to, as a count of forks.
    generation: u32,
    /// Set while every fiber is being unwound: waits are refused, kills cannot be shielded, and nothing new starts.
    pub(super) closing: Cell<bool>,
    /// What is to see switches, and so sends them down the slow path: bits, `TRACES`, `RECORDS`, `HOOKS` and `DELAYS`;
    /// and `SIMULATES`, for which each turn is seen.
    traced: Cell<u8>,
    /// What takes delays, while `DELAYS` is set.
    pub(super) sampler: RefCell<Option<Box<Sampler>>>,
    /// What records, while a trace is on.
    pub(super) recorder: RefCell<Option<Box<Recorder>>>,
    /// The functions of the program that are told of switches.
    pub(super) hooks: Hooks,
    /// In the name of which hooks run: a block as main's, of a fiber that is never in a list, and never suspends. Made
    /// for the first hook, and freed with the root.
    pub(super) hook_block: Cell<Option<NonNull<ControlBlock>>>,
    /// The greenlet or fiber that made the latest explicit switch, and whether that was a throw; kept while tracing.
    pub(crate) origin: Cell<(u64, bool)>,
    /// The slot size of threads that ask for none, as a power of two.
    pub(crate) default_shift: Cell<u8>,
    /// What chooses which fiber goes on, in an OS thread that simulates; else empty.
    pub(super) simulation: OnceCell<Box<dyn Simulation>>,
    /// The fiber for which the running one gives way, by a choice that was made already.
    pub(super) chosen: Cell<Option<Fiber>>,
    /// Whether the next launch has a stack, in an OS thread that simulates.
    pub(super) reserved: Cell<bool>,
    /// The id of the fiber that had the latest simulated turn, or that was switched to in that turn.
    pub(super) ran: Cell<u64>,
}

thread_local! {
    /// This thread's root; null before the first use, `GONE` after the end. Has no destructor, so it can always be
    /// read.
    static ROOT: Cell<*const Root> = const { Cell::new(ptr::null()) };
    /// The number of this OS thread's root, 0 until it is asked for. Has no destructor either.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    /// The guard: its destructor runs `Root::tear_down` when the OS thread ends.
    static GUARD: Guard = const { Guard };
}

/// A value with the destructor that ends the root; see [`GUARD`].
#[derive(Debug)]
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        let made = ROOT.replace(GONE).cast_mut();
        if made.addr() > GONE.addr() {
            // SAFETY: invariant root-1: made by `Box::into_raw` and live until now; `ROOT` no longer leads to it.
            unsafe { Root::tear_down(made) };
        }
    }
}

/// The value of `ROOT` once the thread's root was freed.
const GONE: *const Root = ptr::without_provenance(1);

/// The bit of `Root::traced` for a trace function: `settrace`.
pub(crate) const TRACES: u8 = 1;

/// The bit of `Root::traced` for the recorder of a trace.
pub(crate) const RECORDS: u8 = 2;

/// The bit of `Root::traced` for hooks on switches.
pub(crate) const HOOKS: u8 = 4;

/// The bit of `Root::traced` for the delays of fibers that are runnable: only turns and pushes are to be seen.
pub(crate) const DELAYS: u8 = 8;

/// The bit of `Root::traced` for an OS thread that simulates.
pub(crate) const SIMULATES: u8 = 16;

/// The id of each OS thread's main.
pub(crate) const MAIN_ID: u64 = 1;

/// The id in the name of which hooks on switches run; no fiber gets so far.
const HOOK_ID: u64 = u64::MAX;

/// How many control blocks ahead a walk over all fibers prefetches.
const PREFETCH: usize = 16;

/// The default slot size: 256 KiB of address space. Only touched pages cost memory.
const DEFAULT_SHIFT: u8 = 18;

/// Returns this thread's root, made on first use.
///
/// # Panics
/// If the OS thread is ending and its root has been torn down.
#[inline(always)]
pub(crate) fn root() -> &'static Root {
    let root = ROOT.get();
    if root.addr() > GONE.addr() {
        // SAFETY: invariant root-1: neither null nor GONE, so it is the live root of this thread.
        return unsafe { &*root };
    }
    match try_root_slow() {
        Some(root) => root,
        None => panic!("greenling: this OS thread is ending and its hub is gone; nothing can switch here any more"),
    }
}

/// Returns this thread's root, made on first use; `None` when the thread is ending and the root is gone.
#[inline(always)]
pub(crate) fn try_root() -> Option<&'static Root> {
    let root = ROOT.get();
    if root.addr() > GONE.addr() {
        // SAFETY: as in `root`.
        return Some(unsafe { &*root });
    }
    try_root_slow()
}

/// Returns this thread's root if there is one now, and makes none. Usable in a signal handler.
#[inline(always)]
pub(crate) fn existing_root() -> Option<&'static Root> {
    let root = ROOT.get();
    // SAFETY: as in `root`.
    (root.addr() > GONE.addr()).then(|| unsafe { &*root })
}

/// Reports whether a fault at `address` is the overflow of the running fiber, and writes the report to `out`. Runs in
/// a signal handler.
fn classify_fault(address: usize, out: &mut Message) -> bool {
    let Some(root) = existing_root() else { return false };
    let fiber = root.current();
    let name = |out: &mut Message| {
        root.scheduler().names(&mut |id, name| {
            if id == fiber.id.get() {
                // An error says that the message is full.
                let _ = write!(out, " \"{name}\"");
            }
        });
    };
    overflow::describe(fiber, address, out, name)
}

/// Makes the root, unless the thread is ending.
#[cold]
#[inline(never)]
fn try_root_slow() -> Option<&'static Root> {
    // This registers the destructor. It fails when the thread's locals are being destroyed already.
    if ROOT.get() == GONE || GUARD.try_with(|_| ()).is_err() {
        return None;
    }
    let name = std::thread::current().name().map(Arc::from);
    let main_block = NonNull::from(Box::leak(Box::new(ControlBlock::main(MAIN_ID, name))));
    // SAFETY: the block is on the heap and freed by `tear_down` as its last act.
    let main = unsafe { Fiber::of_main(main_block) };
    let root = Box::into_raw(Box::new(Root {
        entry: OnceCell::new(),
        current: Cell::new(main),
        successor: Cell::new(None),
        deputy: Cell::new(false),
        ready: UnsafeCell::new(RunQueue::new()),
        injected: UnsafeCell::new(RunQueue::new()),
        injected_turns: Cell::new(INJECTED_TURNS),
        budget: Budget::new(),
        main,
        main_block,
        tls: LoadedPointer::default(),
        block_pool: OnceCell::new(),
        number: number(),
        last_id: Cell::new(MAIN_ID),
        last_number: Cell::new(0),
        pool: RefCell::new(StackPool::new(classify_fault, Listed(GREENLING_DEBUG.list(), number()))),
        sweep: RefCell::new(Sweep::new()),
        live: Cell::new(0),
        scheduler: OnceCell::new(),
        clock: Cell::new(crate::sys::clock::monotonic_ns()),
        deadlock: Cell::new(None),
        generation: fork_generation(),
        closing: Cell::new(false),
        traced: Cell::new(0),
        sampler: RefCell::new(None),
        recorder: RefCell::new(None),
        hooks: Hooks::default(),
        hook_block: Cell::new(None),
        origin: Cell::new((0, false)),
        default_shift: Cell::new(DEFAULT_SHIFT),
        simulation: OnceCell::new(),
        chosen: Cell::new(None),
        reserved: Cell::new(false),
        ran: Cell::new(MAIN_ID),
    }));
    // `tear_down` frees this pointer, which therefore must not come out of a reference.
    ROOT.set(root);
    // SAFETY: invariant root-1: it was just made.
    let made = unsafe { &*root };
    let values = [root.expose_provenance(), made.number as usize, thread_id() as usize, 0];
    let _ = made.entry.set(GREENLING_DEBUG.list().enter(ROOT_RECORD, values));
    Some(made)
}

/// What debuggers look for, by this name. Marked as used, since optimised builds would take it to pieces.
#[used]
static GREENLING_DEBUG: Descriptor = Descriptor::new(RootOffsets {
    main: offset_of!(Root, main) as u32,
    loaded: (offset_of!(Root, tls) + LoadedPointer::OFFSETS.0) as u32,
    os_pointer: (offset_of!(Root, tls) + LoadedPointer::OFFSETS.1) as u32,
});

impl Root {
    /// Returns the fiber that runs.
    #[inline(always)]
    pub(crate) fn current(&self) -> Fiber {
        self.current.get()
    }

    /// Calls `f` from a poll, where main's loop runs and no fiber: with main as the fiber that runs, on the stack of
    /// which the loop is.
    pub(crate) fn as_main<R>(&self, f: impl FnOnce() -> R) -> R {
        let before = self.current.replace(self.main);
        let result = f();
        self.current.set(before);
        result
    }

    /// Returns main: the program on the OS thread's own stack.
    pub(crate) fn main(&self) -> Fiber {
        self.main
    }

    /// Returns the fiber in the name of which hooks on switches run.
    pub(super) fn hook_fiber(&self) -> Fiber {
        let block = self.hook_block.get().unwrap_or_else(|| {
            let name = Some(Arc::from("a hook on switches"));
            NonNull::from(Box::leak(Box::new(ControlBlock::main(HOOK_ID, name))))
        });
        self.hook_block.set(Some(block));
        // SAFETY: the block is on the heap and freed by `tear_down` as one of its last acts.
        unsafe { Fiber::of_main(block) }
    }

    /// Returns an id that no fiber or greenlet of this thread has had.
    #[inline]
    pub(crate) fn fresh_id(&self) -> u64 {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        id
    }

    /// Returns a number that no `timeout` scope and no exit of a greenlet on this thread has had. Not an id, since the
    /// ids count the fibers.
    #[inline]
    pub(crate) fn fresh_number(&self) -> u64 {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        number
    }

    /// Returns how many threads and greenlets have got an id; main is not counted.
    pub(crate) fn spawned(&self) -> u64 {
        self.last_id.get() - MAIN_ID
    }

    /// Puts a runnable fiber at the back of the run queue (invariant run-loop-1).
    #[inline(always)]
    pub(crate) fn enqueue(&self, fiber: Fiber) {
        // SAFETY: invariant root-2: the reference ends with this statement, and a push runs no foreign code but the
        // allocator.
        unsafe { &mut *self.ready.get() }.push(fiber);
    }

    /// Sets the function that is told of each push into the run queues. The function must not use them.
    pub(super) fn set_watcher(&self, watcher: Option<fn(Fiber, usize)>) {
        // SAFETY: as in `enqueue`.
        unsafe { &mut *self.ready.get() }.watch(watcher);
        // SAFETY: as in `enqueue`.
        unsafe { &mut *self.injected.get() }.watch(watcher);
    }

    /// Moves the fibers of the injection queue to the end of the run queue, for a hub in which turns are chosen. No
    /// watcher is told: the fibers were runnable before.
    pub(super) fn merge_queues(&self) {
        // SAFETY: as in `enqueue`.
        let injected = unsafe { &mut *self.injected.get() };
        while let Some(fiber) = injected.pop() {
            // SAFETY: as in `enqueue`.
            unsafe { &mut *self.ready.get() }.push_untold(fiber);
        }
    }

    /// Returns the fiber with this place in the run queue.
    pub(super) fn runnable_at(&self, at: usize) -> Option<Fiber> {
        // SAFETY: as in `enqueue`.
        unsafe { &*self.ready.get() }.peek(at)
    }

    /// Takes the fiber with this place out of the run queue.
    pub(super) fn take_runnable(&self, at: usize) -> Option<Fiber> {
        // SAFETY: as in `enqueue`.
        unsafe { &mut *self.ready.get() }.take(at)
    }

    /// Reports whether anything is to see explicit switches.
    #[inline(always)]
    pub(crate) fn traces_switches(&self) -> bool {
        self.traced.get() & (TRACES | RECORDS | HOOKS | SIMULATES) != 0
    }

    /// Reports whether an explicit switch is to be noted: `note_switch`.
    #[inline(always)]
    pub(crate) fn notes_switches(&self) -> bool {
        self.traced.get() & (RECORDS | HOOKS | SIMULATES) != 0
    }

    /// Reports whether main's loop has to look at turns.
    #[inline(always)]
    pub(super) fn is_observed(&self) -> bool {
        self.traced.get() & (RECORDS | HOOKS | DELAYS | SIMULATES) != 0
    }

    /// Reports whether this OS thread simulates.
    #[inline(always)]
    pub(crate) fn is_simulated(&self) -> bool {
        self.traced.get() & SIMULATES != 0
    }

    /// Reports whether a trace is on.
    #[inline(always)]
    pub(crate) fn is_recording(&self) -> bool {
        self.traced.get() & RECORDS != 0
    }

    /// Reports whether a trace or a hook is to see each turn.
    #[inline(always)]
    pub(crate) fn sees_turns(&self) -> bool {
        self.traced.get() & (RECORDS | HOOKS) != 0
    }

    /// Reports whether a hook is set.
    #[inline(always)]
    pub(super) fn has_hooks(&self) -> bool {
        self.traced.get() & HOOKS != 0
    }

    /// Sets whether `what`, one of the bits, is to see switches.
    pub(crate) fn set_traced(&self, what: u8, sees: bool) {
        self.traced.set(if sees { self.traced.get() | what } else { self.traced.get() & !what });
    }

    /// Makes turns fast again that were held, unless fibers are injected, or each turn is to be seen.
    pub(super) fn release_turns(&self) {
        // SAFETY: as in `enqueue`.
        if unsafe { &*self.injected.get() }.is_empty() && !self.sees_turns() {
            self.budget.release();
        }
    }

    /// Returns how many turns there were; see `Budget::turns`.
    pub(crate) fn turns(&self) -> u64 {
        self.budget.turns()
    }

    /// Returns how many fibers are runnable.
    pub(crate) fn runnable(&self) -> usize {
        // SAFETY: as in `enqueue`.
        let ready = unsafe { &*self.ready.get() }.len();
        // SAFETY: as in `enqueue`.
        ready + unsafe { &*self.injected.get() }.len()
    }

    /// Returns how many fibers are launched and not finished; main is not counted.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Puts a RUNNABLE fiber into the injection queue (invariants run-loop-1, run-loop-2).
    pub(crate) fn enqueue_injected(&self, fiber: Fiber) {
        // SAFETY: as in `enqueue`.
        let injected = unsafe { &mut *self.injected.get() };
        // The first injected fiber starts a new share of turns.
        if injected.is_empty() {
            self.injected_turns.set(INJECTED_TURNS);
        }
        injected.push(fiber);
        self.budget.hold();
    }

    /// Does the work of [`wake`](Self::wake) on behalf of the outside world, that is, for an event, a timer, or a
    /// remote op of another OS thread. The fiber goes ahead of those in `ready`, however many they are and however
    /// long their slices; unless it has just done much IO, and so has had its share.
    pub(crate) fn inject(&self, fiber: Fiber) {
        if matches!(fiber.state.get(), State::Parked | State::Switched) {
            fiber.state.set_runnable();
            if fiber.is_heavy() { self.enqueue(fiber) } else { self.enqueue_injected(fiber) }
        }
    }

    /// Makes a PARKED or SWITCHED fiber runnable, and does nothing to any other. Returns whether the fiber was
    /// waiting.
    #[inline]
    pub(crate) fn wake(&self, fiber: Fiber) -> bool {
        match fiber.state.get() {
            State::Parked | State::Switched => {
                fiber.state.set_runnable();
                self.enqueue(fiber);
                true
            }
            _ => false,
        }
    }

    /// Does the work of [`give_permit`](Self::give_permit) on behalf of another OS thread.
    pub(crate) fn inject_permit(&self, fiber: Fiber) {
        // The permit stays if the fiber waits for something else.
        fiber.permit.set(true);
        if matches!(fiber.reason.get(), Reason::Park) {
            self.inject(fiber);
        }
    }

    /// Gives a fiber its permit, and wakes the fiber if it waits for the permit in `thread::park`.
    #[inline(always)]
    pub(crate) fn give_permit(&self, fiber: Fiber) {
        fiber.permit.set(true);
        if fiber.state.get() == State::Parked && matches!(fiber.reason.get(), Reason::Park) {
            fiber.state.set_runnable();
            self.enqueue(fiber);
        }
    }

    /// Makes sure that the next [`launch`](Self::launch) on a stack of `1 << shift` bytes has a stack, unless other
    /// code takes the stack before.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    pub(crate) fn reserve(&self, shift: u8) -> io::Result<()> {
        if self.is_simulated() {
            self.may_reserve()?;
        }
        // Take a slot and give it back: the slot released last is the first to be used again.
        let mut pool = self.pool.borrow_mut();
        let slot = pool.acquire(shift)?;
        pool.release(slot);
        Ok(())
    }

    /// Launches a fiber on a stack of `1 << shift` bytes; RUNNABLE, but in no queue yet.
    ///
    /// # Safety
    /// As for [`payload::launch`]: `f` does not unwind, what `F` and `T` borrow outlives the fiber, `fits` holds.
    ///
    /// # Errors
    /// No memory or address space for the stack; `f` is dropped.
    #[inline(always)]
    pub(crate) unsafe fn launch<F, T>(
        &self,
        shift: u8,
        id: u64,
        role: Role,
        spawned_at: &'static Location<'static>,
        f: F,
    ) -> io::Result<Fiber>
    where
        F: FnOnce(Fiber) -> T,
    {
        if self.is_simulated() {
            self.may_launch()?;
        }
        let slot = self.pool.borrow_mut().acquire(shift)?;
        self.live.set(self.live.get() + 1);
        // SAFETY: the slot is fresh from the pool; the rest is the caller's promise.
        let fiber = unsafe { payload::launch(slot, id, role, spawned_at, f) };
        // The new fiber shares the thread-locals of the code that launches it.
        if let Some(block) = self.tls.block() {
            self.join_block(fiber, block);
        }
        if self.closing.get() {
            // A destructor spawned the fiber while everything is being unwound: the fiber must never run, or the
            // unwinding would never end.
            self.kill(fiber);
        }
        Ok(fiber)
    }

    /// Makes the code under the loaded thread pointer know this root and its scheduler: the first thing that a TLS
    /// block is used for.
    pub(super) fn install_here(&'static self) {
        ROOT.set(self);
        NUMBER.set(self.number);
        self.scheduler().install();
    }

    /// Makes the code under the loaded thread pointer know that this root is gone, because the OS thread ends.
    pub(super) fn revoke_here(&self) {
        ROOT.set(GONE);
        self.scheduler().revoke();
    }

    /// Puts a scheduler in charge, for the rest of the thread's life; the first one stays.
    pub(crate) fn set_scheduler(&'static self, scheduler: Box<dyn Scheduler>) {
        if self.scheduler.set(scheduler).is_ok() {
            self.scheduler().install();
        }
    }

    /// Makes polls due by time as well, and not only by the number of turns.
    pub(crate) fn keep_time(&self) {
        self.budget.keep_time();
    }

    /// Reports whether a scheduler was ever set.
    pub(crate) fn has_scheduler(&self) -> bool {
        self.scheduler.get().is_some()
    }

    /// Returns the scheduler that polls and arms waits.
    #[inline]
    pub(crate) fn scheduler(&self) -> &dyn Scheduler {
        match self.scheduler.get() {
            Some(scheduler) => &**scheduler,
            None => &NoScheduler,
        }
    }

    /// Wakes main with a report, because main can never go on.
    pub(crate) fn deadlock(&self, report: String) {
        // Main may wait in any call: the flag makes that call end with the report.
        self.deadlock.set(Some(report));
        self.main.pending.raise(pending::DEADLOCK);
        self.wake(self.main);
    }

    /// Takes the report that `deadlock` left.
    pub(crate) fn take_deadlock(&self) -> Option<String> {
        self.main.pending.clear(pending::DEADLOCK);
        self.deadlock.take()
    }

    /// Reports whether every fiber is being unwound.
    pub(crate) fn closing(&self) -> bool {
        self.closing.get()
    }

    /// Marks `fiber` for death: its next or current blocking call unwinds the fiber. Returns whether the fiber was
    /// alive.
    pub(crate) fn kill(&self, fiber: Fiber) -> bool {
        if fiber.state.get() == State::Finished || cfg!(panic = "abort") {
            return false;
        }
        if self.is_recording() {
            self.note_kill(fiber);
        }
        // A shield holds the kill back: the flag is raised when the last shield ends.
        fiber.killed.set(true);
        if fiber.shields.get() == 0 {
            fiber.pending.raise(pending::KILL);
            self.wake(fiber);
        }
        true
    }

    /// Does the work of [`kill`](Self::kill) on behalf of another OS thread.
    pub(crate) fn inject_kill(&self, fiber: Fiber) {
        // Inject first: `kill` then finds the fiber runnable, and does not put it into `ready`.
        if fiber.shields.get() == 0 && !cfg!(panic = "abort") {
            self.inject(fiber);
        }
        self.kill(fiber);
    }

    /// Interrupts `fiber` like a kill, until [`end_cancel`](Self::end_cancel), for the body of a scope that has
    /// failed. `killed` tells a real kill from this.
    pub(crate) fn cancel(&self, fiber: Fiber) {
        if cfg!(panic = "abort") {
            return;
        }
        fiber.cancelled.set(fiber.cancelled.get() + 1);
        if self.is_recording() {
            self.note_kill(fiber);
        }
        if fiber.shields.get() == 0 {
            fiber.pending.raise(pending::KILL);
            self.wake(fiber);
        }
    }

    /// Takes one `cancel` of the running fiber `me` back, which has done its work or comes too late. Returns whether
    /// `me` is to be killed anyhow.
    pub(crate) fn end_cancel(&self, me: Fiber) -> bool {
        if !cfg!(panic = "abort") {
            me.cancelled.set(me.cancelled.get() - 1);
        }
        // The last cancel takes the kill flag down, unless a real kill is due.
        if !me.killed.get() && me.cancelled.get() == 0 {
            me.pending.clear(pending::KILL | pending::RAISED);
        }
        me.killed.get()
    }

    /// Calls `f` with every live fiber, in no particular order.
    pub(crate) fn for_each_fiber(&self, mut f: impl FnMut(Fiber)) {
        // A copy of the list: `f` may launch fibers, and so borrow the pool.
        let slots = self.pool.borrow().made();
        for (index, slot) in slots.iter().enumerate() {
            // Each block is in a page of its own, and of many none is in the cache.
            if let Some(later) = slots.get(index + PREFETCH) {
                prefetch_read(later.block_at(size_of::<ControlBlock>()).as_ptr().cast());
            }
            // SAFETY: the slot is one of this pool's.
            if let Some(fiber) = unsafe { Fiber::in_slot(*slot) }
                && fiber.state.get() != State::Finished
            {
                f(fiber);
            }
        }
    }

    /// Returns every live fiber, in no particular order, for a caller that may be anywhere in the program: none if the
    /// runtime is just making or freeing a stack.
    #[cfg(feature = "monkey")]
    pub(crate) fn try_fibers(&self) -> Vec<Fiber> {
        let mut fibers = Vec::new();
        if self.pool.try_borrow_mut().is_ok() {
            self.for_each_fiber(|fiber| fibers.push(fiber));
        }
        fibers
    }

    /// Reports whether this is a copy in the child of a fork.
    pub(crate) fn is_forked(&self) -> bool {
        self.generation != fork_generation()
    }

    /// Returns the counters of the stack pool.
    pub(crate) fn stack_stats(&self) -> StackStats {
        self.pool.borrow().stats()
    }

    /// Returns the pages of unused stacks to the kernel, and the pages that parked threads do not need.
    pub(crate) fn trim_stacks(&self) {
        let mut pool = self.pool.borrow_mut();
        pool.trim();
        Sweep::all(&pool);
        if let Some(blocks) = self.block_pool.get() {
            blocks.borrow_mut().trim();
        }
    }

    /// Returns the pages of stacks that were not used for a while, and of deep calls that are over. The scheduler
    /// calls this when it reads the clock, and before it waits.
    #[inline]
    pub(crate) fn tend_stacks(&self, now: u64) {
        let mut pool = self.pool.borrow_mut();
        // Free stacks first, then the stacks of fibers that wait.
        pool.tend(now);
        self.sweep.borrow_mut().tend(&pool, now);
    }

    /// Returns when [`tend_stacks`](Self::tend_stacks) will have work, in monotonic nanoseconds.
    pub(crate) fn tend_stacks_at(&self) -> Option<u64> {
        [self.pool.borrow().tend_at(), self.sweep.borrow().due_at()].into_iter().flatten().min()
    }

    /// Notes at the end of a poll that stacks will be used, if fibers are runnable.
    #[inline]
    pub(crate) fn note_activity(&self) {
        if self.runnable() > 0 {
            self.sweep.borrow_mut().note_activity();
        }
    }

    /// Returns the high-water mark of the fiber's stack; see [`StackPool::high_water`].
    pub(crate) fn high_water(&self, fiber: Fiber) -> io::Result<usize> {
        self.pool.borrow().high_water(fiber.slot())
    }

    /// Returns the fiber of a handle, if the fiber has not ended. Safe at any time, since the root keeps the pool
    /// alive.
    #[inline]
    pub(crate) fn resolve(&self, handle: FiberRef) -> Option<Fiber> {
        handle.get()
    }

    /// Returns the number of this root, unique in the process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Reports whether `holder` is a fiber of this root, or was.
    pub(crate) fn has(&self, holder: Holder) -> bool {
        holder.root == self.number
    }
}

/// Calls `f` with the thread-locals of the OS thread, whichever green thread calls: for what the runtime keeps once for
/// each OS thread. `f` must not switch or run code of the program.
#[inline(always)]
pub(crate) fn on_os_thread<R>(f: impl FnOnce() -> R) -> R {
    match existing_root() {
        Some(root) if root.tls.block().is_some() => root.tls.with(None, f),
        _ => f(),
    }
}

/// The number that the next root gets.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Returns the number of this OS thread's root, whether the root is not made yet, in use or gone.
pub(super) fn number() -> u64 {
    if NUMBER.get() == 0 {
        // Relaxed: the number only has to be unique.
        NUMBER.set(NUMBERS.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}

/// Returns the identity of the running thread: a fiber, main, or an OS thread that has no root and gets none here.
#[inline]
pub(crate) fn identity() -> Holder {
    match existing_root() {
        Some(root) => Holder { root: root.number, id: root.current().id.get() },
        None => Holder { root: number(), id: MAIN_ID },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_interruptions_are_taken_back_as_there_were() {
        let root = root();
        let me = root.current();
        let due = || me.pending.has(pending::KILL);
        // More than sixteen bits can count.
        const COUNT: u32 = 70_000;
        (0..COUNT).for_each(|_| root.cancel(me));
        for _ in 0..COUNT {
            assert!(due(), "some are left");
            assert!(!root.end_cancel(me), "it was not killed");
        }
        assert!(!due());
    }
}
