//! The OS thread's side of switching: who runs, who is next, and the loop that resumes fibers.
//!
//! ```text
//!   OS thread's own stack                                     fibers' stacks
//!   +--------------------------------------+
//!   | main: join(), sleep(), g.switch(v)   |
//!   |   `- suspend                         |   resume
//!   |       `- drive: next / ready / look -+------------>  fiber runs ... suspend
//!   |              ^-----------------------+---------------------'
//!   +--------------------------------------+
//! ```
//!
//! corosensei is asymmetric: a fiber can only return to whoever resumed it. A switch from A to B is therefore
//! "suspend A with `next = B`" and "the loop resumes B"; two stack switches. Main has no coroutine: when main suspends,
//! the loop runs *inside* main's call until main's turn comes. A fiber that main's loop has resumed does the same: when it
//! gives the CPU away it does not suspend, but becomes the *deputy* and resumes the others from inside its own call, until
//! its turn comes or there is something that only main's loop can do.
//!
//! ```text
//!   main's stack          A's stack               others' stacks
//!   | drive ----------->  | hop, deputise ----->  | B
//!   |                     |              ------>  | C  ..
//! ```
//!
//! So two fibers that switch to each other, or yield, or wake each other, pay two stack switches for two turns in place of
//! four. More than one deputy there never is: whom a deputy resumed suspends, always.
//!
//! * Invariant R1: a thread's `Root` is made on first use and freed by the destructor of `GUARD`, after which
//!   `ROOT` holds `GONE` for ever. Between the two, `&'static Root` is a reference that stays valid; nobody keeps
//!   one across the end of the thread, because the only code that runs there is `teardown` itself and foreign
//!   destructors, which get `None` from `try_root` once it is gone.
//! * Invariant R2: `ready`, `pool` and `scheduler` are borrowed only inside the small functions below, and no
//!   foreign code (closures, destructors, `Debug`) runs meanwhile.
//! * Invariant R3: a fiber is in `ready` at most once, and then its state is READY, or RUNNING if it yielded: in both
//!   cases `wake` leaves it alone. A yield and a launch push only fibers that are in no list.
//! * Invariant R4: all schedulers of a process are of one type, and `open`, unless null, is where this root's lies: the
//!   one in `scheduler`, which is set once and stays until the root is freed. Upheld by `set_scheduler`, which checks the
//!   type and is the only one to set `open`; and by `runtime::hub`, the only caller of `scheduler_as`, which names it.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::io;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::fiber::{self, ControlBlock, Fiber, FiberRef, Progress, Reason, Role, State, attention};
use super::overflow;
use super::stack_pool::{StackPool, StackStats};
use super::sweep::Sweep;
use crate::pure::run_queue::RunQueue;
use crate::sys::fork::fork_generation;
use crate::sys::own::own;
use crate::sys::signal::Message;

/// Resumptions between two looks at the scheduler's clock. Go and tokio also chose 61: a prime, so that no
/// program's own rhythm locks on to it.
const BUDGET: u32 = 61;

/// How often in a row a used-up budget may lead to a mere [`glance`](Root::glance) in place of a look: so a thousand
/// resumptions at most.
const GLANCES: u32 = 15;

/// The run queue is prefetched when it is longer than this. Shorter ones stay in the second-level cache, from where they
/// come as fast as the prefetches could be issued: with 1000 threads those cost more than they saved.
const PREFETCH_FROM: usize = 8192;

/// The next fiber of the queue is prefetched when it is longer than this.
const PREFETCH_NEXT_FROM: usize = 8;

/// How many fibers behind the running one a yield prefetches control blocks.
const PREFETCH_BLOCK: usize = 24;

/// How many fibers behind the running one a yield prefetches frames.
const PREFETCH_FRAMES: usize = 12;

/// How often teardown kills a fiber that swallowed the kill before it gives its stack up.
const KILL_ROUNDS: u32 = 64;

/// What the loop asks of the layer above.
pub(crate) trait Scheduler {
    /// Looks at the outside world and wakes whoever is ready.
    ///
    /// With `may_wait`, nobody is runnable: sleep until something happens. If nothing ever can, the scheduler
    /// calls [`Root::deadlock`].
    fn look(&self, root: &Root, may_wait: bool);

    /// Whether a look would find nothing that has waited for it, whatever the time: no mail, no descriptor, no timer.
    fn is_quiet(&self) -> bool;

    /// A fiber is about to suspend although `attention` is set; arms whatever may have to wake it.
    fn arm(&self, root: &Root, fiber: Fiber);

    /// A suspension that was armed is over. True if a `timeout` scope of this fiber is due.
    fn disarm(&self, root: &Root, fiber: Fiber) -> bool;

    /// A fiber that is still in the timer wheel ended.
    fn forget(&self, fiber: Fiber);

    /// Every fiber is being unwound: makes fibers of what other OS threads want started, so that they are unwound too.
    fn collect(&self, root: &Root);

    /// The thread begins to end: other OS threads cannot have anything started any more.
    fn refuse(&self);

    /// The thread ends, all fibers are gone: nothing may be waited for any more.
    fn close(&self);
}

/// The scheduler of a thread that only ever used greenlets: nobody outside can wake anybody.
struct NoScheduler;

impl Scheduler for NoScheduler {
    fn look(&self, root: &Root, may_wait: bool) {
        if may_wait {
            root.deadlock(String::from(
                "deadlock: main waits in an explicit switch, and no greenlet is left that could switch back",
            ));
        }
    }

    fn is_quiet(&self) -> bool {
        true
    }

    fn arm(&self, _: &Root, _: Fiber) {}

    fn disarm(&self, _: &Root, _: Fiber) -> bool {
        false
    }

    fn forget(&self, _: Fiber) {}

    fn collect(&self, _: &Root) {}

    fn refuse(&self) {}

    fn close(&self) {}
}

/// One OS thread's switching state.
pub(crate) struct Root {
    /// Who runs now; main while the loop itself runs is possible and harmless.
    current: Cell<Fiber>,
    /// Who runs when the fiber that is about to end has ended: a dead greenlet's receiver.
    heir: Cell<Option<Fiber>>,
    /// Whether a deputy runs the loop: then `current` was resumed by it, and suspends to it. Never while main runs.
    deputy: Cell<bool>,
    /// Runnable fibers, in the order they became so.
    ready: UnsafeCell<RunQueue<Fiber>>,
    /// Resumptions left until the next look.
    budget: Cell<u32>,
    /// Glances left until the next look.
    glances: Cell<u32>,
    /// The program on the root stack.
    main: Fiber,
    /// Main's control block, freed with the root.
    main_block: NonNull<ControlBlock>,
    /// Unique in the process.
    number: u64,
    /// The last id given out.
    last_id: Cell<u64>,
    /// Stacks.
    pool: RefCell<StackPool>,
    /// What gives the pages of parked threads back.
    sweep: RefCell<Sweep>,
    /// Fibers launched and not yet finished.
    live: Cell<usize>,
    /// Who is asked when nobody is runnable; empty while the thread used nothing but greenlets.
    scheduler: OnceCell<Box<dyn Scheduler>>,
    /// `scheduler` as long as it may be used, else null; invariant R4.
    open: Cell<*const ()>,
    /// Monotonic nanoseconds at the last look; the coarse clock of wait reports.
    pub(crate) clock: Cell<u64>,
    /// The report of a deadlock, on its way to main.
    deadlock: Cell<Option<String>>,
    /// The process this root belongs to, as a count of forks.
    generation: u32,
    /// Set while every fiber is being unwound: waits are refused, kills cannot be shielded, and nothing new starts.
    closing: Cell<bool>,
    /// Whether a trace function wants to see explicit switches.
    pub(crate) tracing: Cell<bool>,
    /// The greenlet or fiber that made the latest explicit switch, and whether it was a throw; kept when tracing.
    pub(crate) origin: Cell<(u64, bool)>,
    /// The slot size of threads that ask for none, as a power of two.
    pub(crate) default_shift: Cell<u8>,
}

/// The type of all schedulers (invariant R4), once there is one.
static SCHEDULER_TYPE: OnceLock<TypeId> = OnceLock::new();

thread_local! {
    /// This thread's root; null before the first use, `GONE` after the end. No destructor, so it is always there.
    static ROOT: Cell<*const Root> = const { Cell::new(ptr::null()) };
    /// The number of this OS thread's root, 0 as long as nobody asked. No destructor either.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    /// Runs `teardown` when the OS thread ends.
    static GUARD: Guard = const { Guard };
}

/// See [`GUARD`].
#[derive(Debug)]
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        teardown();
    }
}

/// What `ROOT` holds once the thread's root was freed.
const GONE: *const Root = ptr::without_provenance(1);

/// The id of each OS thread's main.
pub(crate) const MAIN_ID: u64 = 1;

/// 256 KiB of address space for each thread that asks for nothing else; only touched pages cost memory.
const DEFAULT_SHIFT: u8 = 18;

/// This thread's root, made on first use.
///
/// # Panics
/// If the OS thread is in its last breath: its root was torn down already.
#[inline(always)]
pub(crate) fn root() -> &'static Root {
    let root = ROOT.get();
    if root.addr() > GONE.addr() {
        // SAFETY: invariant R1: neither null nor GONE, so it is the live root of this thread.
        return unsafe { &*root };
    }
    match try_root_slow() {
        Some(root) => root,
        None => panic!("greenling: this OS thread is ending and its hub is gone; nothing can switch here any more"),
    }
}

/// This thread's root, made on first use; `None` when the thread is ending and the root is gone.
#[inline(always)]
pub(crate) fn try_root() -> Option<&'static Root> {
    let root = ROOT.get();
    if root.addr() > GONE.addr() {
        // SAFETY: as in `root`.
        return Some(unsafe { &*root });
    }
    try_root_slow()
}

/// This thread's root if there is one now; makes none. Usable in a signal handler.
#[inline(always)]
pub(crate) fn existing_root() -> Option<&'static Root> {
    let root = ROOT.get();
    // SAFETY: as in `root`.
    (root.addr() > GONE.addr()).then(|| unsafe { &*root })
}

/// Whether a fault at `address` is the overflow of the fiber that runs, and what to say then. Runs in a signal handler.
fn classify_fault(address: usize, out: &mut Message) -> bool {
    existing_root().is_some_and(|root| overflow::describe(root.current(), address, out))
}

/// Makes the root, unless the thread is ending.
#[cold]
#[inline(never)]
fn try_root_slow() -> Option<&'static Root> {
    // Registers the destructor; fails when the thread's locals are being destroyed already.
    if ROOT.get() == GONE || GUARD.try_with(|_| ()).is_err() {
        return None;
    }
    let name = std::thread::current().name().map(Arc::from);
    let main_block = NonNull::from(Box::leak(Box::new(ControlBlock::main(MAIN_ID, name))));
    // SAFETY: the block is on the heap and freed by `teardown` as its last act.
    let main = unsafe { Fiber::of_main(main_block) };
    let root = Box::leak(Box::new(Root {
        current: Cell::new(main),
        heir: Cell::new(None),
        deputy: Cell::new(false),
        ready: UnsafeCell::new(RunQueue::new()),
        budget: Cell::new(BUDGET),
        glances: Cell::new(GLANCES),
        main,
        main_block,
        number: number(),
        last_id: Cell::new(MAIN_ID),
        pool: RefCell::new(StackPool::new(classify_fault)),
        sweep: RefCell::new(Sweep::new()),
        live: Cell::new(0),
        scheduler: OnceCell::new(),
        open: Cell::new(ptr::null()),
        clock: Cell::new(crate::sys::clock::monotonic_ns()),
        deadlock: Cell::new(None),
        generation: fork_generation(),
        closing: Cell::new(false),
        tracing: Cell::new(false),
        origin: Cell::new((0, false)),
        default_shift: Cell::new(DEFAULT_SHIFT),
    }));
    ROOT.set(root);
    Some(root)
}

impl Root {
    /// Who runs.
    #[inline(always)]
    pub(crate) fn current(&self) -> Fiber {
        self.current.get()
    }

    /// The program on the root stack.
    pub(crate) fn main(&self) -> Fiber {
        self.main
    }

    /// An id that no fiber or greenlet of this thread has had.
    #[inline]
    pub(crate) fn fresh_id(&self) -> u64 {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        id
    }

    /// Puts a READY fiber at the back of the run queue (invariant R3).
    #[inline(always)]
    pub(crate) fn enqueue(&self, fiber: Fiber) {
        // SAFETY: invariant R2: the reference ends with this statement, and a push runs no foreign code.
        unsafe { &mut *self.ready.get() }.push(fiber);
    }

    /// Takes the first runnable fiber.
    #[inline(always)]
    fn dequeue(&self) -> Option<Fiber> {
        // SAFETY: as in `enqueue`.
        let ready = unsafe { &mut *self.ready.get() };
        prefetch_next(ready);
        ready.pop()
    }

    /// How many fibers are runnable.
    pub(crate) fn runnable(&self) -> usize {
        // SAFETY: as in `enqueue`.
        unsafe { &*self.ready.get() }.len()
    }

    /// How many fibers are launched and not finished; main is not among them.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Makes a parked (or switched-away) fiber runnable; does nothing to any other. Says whether it did.
    #[inline]
    pub(crate) fn wake(&self, fiber: Fiber) -> bool {
        match fiber.state.get() {
            State::Parked | State::Switched => {
                fiber.state.set(State::Ready);
                self.enqueue(fiber);
                true
            }
            State::Unused | State::Pooled | State::Ready | State::Running | State::Notified | State::Finished => false,
        }
    }

    /// Gives a fiber its permit, and wakes it if it waits for one in `thread::park`.
    #[inline(always)]
    pub(crate) fn give_permit(&self, fiber: Fiber) {
        fiber.permit.set(true);
        if fiber.state.get() == State::Parked && matches!(fiber.reason.get(), Reason::Park) {
            fiber.state.set(State::Ready);
            self.enqueue(fiber);
        }
    }

    /// Lets everybody else who is runnable go first. The fast path of `yield_now`: no kill, deadline or shield.
    ///
    /// The yielding fiber itself takes the first of the queue and puts itself at the end, which is less work than
    /// leaving both to the loop. If nobody else is runnable it goes on at once, until it is time for a look.
    #[inline(always)]
    pub(crate) fn requeue_current(&self, me: Fiber) {
        if cfg!(feature = "monkey") {
            // Whose turn comes later is looked through for std's locks.
            me.note_frames();
        }
        if !self.spend() {
            return self.requeue_and_look(me);
        }
        // SAFETY: as in `enqueue`.
        let ready = unsafe { &mut *self.ready.get() };
        if ready.len().wrapping_sub(1) >= PREFETCH_FROM {
            // In this frame, since it is its lines that will be touched.
            me.note_frames();
            if !prepare_long(ready) {
                return;
            }
        }
        if let Some(next) = ready.rotate(me) {
            self.hop(me, next);
        }
    }

    /// `requeue_current`, when it is time for a look, which main's loop takes.
    #[cold]
    #[inline(never)]
    fn requeue_and_look(&self, me: Fiber) {
        self.enqueue(me);
        self.switch_out(me);
    }

    /// Counts a resumption. False if it is time for a look first.
    #[inline(always)]
    fn spend(&self) -> bool {
        match self.budget.get().checked_sub(1) {
            Some(left) => {
                self.budget.set(left);
                true
            }
            None => self.glance(),
        }
    }

    /// The budget is used up: if nothing waits for a look, a new one, whose first resumption is counted.
    ///
    /// A look costs a way to main's loop and a reading of the clock, some 80 ns together, and so a yield more than a
    /// nanosecond. While there is neither mail nor a descriptor nor a timer it could find nothing but the time.
    #[cold]
    #[inline(never)]
    fn glance(&self) -> bool {
        let glances = self.glances.get();
        if glances == 0 || self.closing.get() || !self.scheduler().is_quiet() {
            // The next who asks is on the same way.
            self.glances.set(0);
            return false;
        }
        self.glances.set(glances - 1);
        self.budget.set(BUDGET - 1);
        true
    }

    /// Gives the CPU to `target` at once, ahead of the queue. It is RUNNING already: it has a message, or is new.
    #[inline(always)]
    pub(crate) fn transfer(&self, me: Fiber, target: Fiber) {
        self.hop(me, target);
    }

    /// Gives the CPU to `target`, which is not `me`.
    ///
    /// Inlined, and with it the resume: then what `me` returns through afterwards was entered in this turn, and the
    /// processor predicts where to. A second `resume` in the crate's busiest function is worth it for the pair, which is what
    /// explicit switches are mostly made by.
    #[inline(always)]
    fn hop(&self, me: Fiber, target: Fiber) {
        let mut next = Some(target);
        if !self.deputy.get() && target != self.main {
            self.deputy.set(me != self.main);
            self.current.set(target);
            next = match target.resume() {
                Progress::Suspended(next) => next,
                Progress::Finished => self.reap_for(me, target),
            };
            if next == Some(me) {
                self.current.set(me);
                self.deputy.set(false);
                return;
            }
            if me == self.main {
                return self.drive(next);
            }
            next = self.deputise(me, next);
            if next == Some(me) {
                return;
            }
        }
        me.suspend(next);
    }

    /// Leaves word whom the loop resumes next; for a fiber that is about to end.
    pub(crate) fn set_heir(&self, target: Fiber) {
        self.heir.set(Some(target));
    }

    /// Leaves the CPU to the first of the queue. The caller is `me`, and has said before who will bring it back.
    #[inline(always)]
    pub(crate) fn switch_out(&self, me: Fiber) {
        let mut next = None;
        if !self.deputy.get() {
            if me == self.main {
                return self.drive(None);
            }
            next = self.deputise(me, None);
            if next == Some(me) {
                return;
            }
        }
        me.suspend(next);
    }

    /// The loop as run by a fiber that main's loop has resumed, from inside the call in which it gives the CPU away:
    /// resumes `next`, or else the first of the queue, and so on. Ends with `me` when its turn has come; with anything
    /// else, `me` suspends and says so to main's loop: it is main's turn, or time for a look, or nobody is runnable.
    ///
    /// The caller suspends, not this function: it would be returned through in another turn, and mispredict.
    #[inline(never)]
    fn deputise(&self, me: Fiber, mut next: Option<Fiber>) -> Option<Fiber> {
        self.deputy.set(true);
        while let Some(fiber) = next.or_else(|| self.pick_at_hand()) {
            if fiber == me || fiber == self.main {
                next = Some(fiber);
                break;
            }
            self.current.set(fiber);
            next = match fiber.resume() {
                Progress::Suspended(next) => next,
                Progress::Finished => self.reap_for(me, fiber),
            };
        }
        if next == Some(me) {
            self.current.set(me);
        }
        self.deputy.set(false);
        next
    }

    /// [`reap`](Self::reap), on the stack of `me`, which runs the loop: if that overflows, it is the one to be named.
    #[inline(never)]
    fn reap_for(&self, me: Fiber, fiber: Fiber) -> Option<Fiber> {
        self.current.set(me);
        self.reap(fiber)
    }

    /// The next fiber of the queue, if there is one and no look is due.
    #[inline(always)]
    fn pick_at_hand(&self) -> Option<Fiber> {
        if self.spend() { self.dequeue() } else { None }
    }

    /// Main's loop: resumes `next`, or else the first of the queue, and so on until it is main's turn.
    fn drive(&self, mut next: Option<Fiber>) {
        loop {
            let fiber = match next {
                Some(fiber) => fiber,
                None => match self.pick() {
                    Some(fiber) => fiber,
                    None if self.closing.get() => return,
                    None => continue,
                },
            };
            self.current.set(fiber);
            if fiber == self.main {
                return;
            }
            next = match fiber.resume() {
                Progress::Suspended(next) => next,
                Progress::Finished => self.reap(fiber),
            };
        }
    }

    /// The next fiber of the queue, after a look at the world if it is time; `None` if there was none.
    #[inline(always)]
    fn pick(&self) -> Option<Fiber> {
        if !self.spend() {
            self.look(false);
        }
        let fiber = self.dequeue();
        if fiber.is_none() {
            self.look(true);
        }
        fiber
    }

    /// Asks the scheduler, except during teardown, when nothing is waited for.
    #[cold]
    #[inline(never)]
    fn look(&self, may_wait: bool) {
        self.budget.set(BUDGET);
        self.glances.set(GLANCES);
        if !self.closing.get() {
            let _own = own();
            self.scheduler().look(self, may_wait);
        }
    }

    /// A fiber's function returned: frees the slot, unless a packet still owns the result. Says who runs next.
    #[inline]
    fn reap(&self, fiber: Fiber) -> Option<Fiber> {
        // Inside the loop, where nothing may suspend.
        let _own = own();
        fiber.state.set(State::Finished);
        self.live.set(self.live.get() - 1);
        if fiber.in_wheel.get() {
            self.scheduler().forget(fiber);
        }
        if !fiber.owned.get() {
            self.release(fiber);
        }
        self.heir.take()
    }

    /// Ends the use of a FINISHED fiber whose result is not wanted any more. The result's destructor runs here.
    #[inline]
    pub(crate) fn release(&self, fiber: Fiber) {
        debug_assert_eq!(fiber.state.get(), State::Finished);
        // SAFETY: it is finished, and the caller is its last owner: the loop for an unowned one, else the packet.
        let slot = unsafe { fiber.dismantle() };
        self.pool.borrow_mut().release(slot);
    }

    /// Launches a fiber on a stack of `1 << shift` bytes; READY, but in no queue yet.
    ///
    /// # Safety
    /// As for [`fiber::launch`]: `f` does not unwind, what `F` and `T` borrow outlives the fiber, `fits` holds.
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
        let slot = self.pool.borrow_mut().acquire(shift)?;
        self.live.set(self.live.get() + 1);
        // SAFETY: the slot is fresh from the pool; the rest is the caller's promise.
        let fiber = unsafe { fiber::launch(slot, id, role, spawned_at, f) };
        if self.closing.get() {
            // A destructor spawned it while everything is being unwound: it never runs, or this would never end.
            self.kill(fiber);
        }
        Ok(fiber)
    }

    /// Puts a scheduler in charge, for the rest of the thread's life; the first one stays.
    pub(crate) fn set_scheduler<S: Scheduler + 'static>(&self, scheduler: Box<S>) {
        assert_eq!(*SCHEDULER_TYPE.get_or_init(TypeId::of::<S>), TypeId::of::<S>(), "one type of scheduler (R4)");
        if self.scheduler.set(scheduler).is_ok() {
            self.open.set(ptr::from_ref(self.scheduler()).cast());
        }
    }

    /// The scheduler in charge, as what it was when it was set, and as long as it may be used. Every blocking call begins
    /// with it, so it is one load and no question of the type, which only debug builds ask (invariant R4).
    #[inline(always)]
    pub(crate) fn scheduler_as<S: Scheduler + 'static>(&self) -> Option<&S> {
        let open = self.open.get();
        debug_assert!(open.is_null() || SCHEDULER_TYPE.get() == Some(&TypeId::of::<S>()));
        // SAFETY: invariant R4: null, or an `S` that lives as long as the root does.
        unsafe { open.cast::<S>().as_ref() }
    }

    /// From now on [`scheduler_as`](Self::scheduler_as) finds nothing. Async-signal-safe.
    fn revoke_scheduler(&self) {
        self.open.set(ptr::null());
    }

    /// Whether a scheduler was ever set.
    pub(crate) fn has_scheduler(&self) -> bool {
        self.scheduler.get().is_some()
    }

    /// The thread ends: the scheduler lets go of everything, and blocking calls are refused from now on.
    fn close_scheduler(&self) {
        self.revoke_scheduler();
        self.scheduler().close();
    }

    /// Who is asked to look and to arm waits.
    #[inline]
    pub(crate) fn scheduler(&self) -> &dyn Scheduler {
        match self.scheduler.get() {
            Some(scheduler) => &**scheduler,
            None => &NoScheduler,
        }
    }

    /// Main can never go on: wakes it with a report.
    pub(crate) fn deadlock(&self, report: String) {
        self.deadlock.set(Some(report));
        self.main.attention.set(self.main.attention.get() | attention::DEADLOCK);
        self.wake(self.main);
    }

    /// The report that `deadlock` left, once.
    pub(crate) fn take_deadlock(&self) -> Option<String> {
        self.main.attention.set(self.main.attention.get() & !attention::DEADLOCK);
        self.deadlock.take()
    }

    /// Whether every fiber is being unwound.
    pub(crate) fn closing(&self) -> bool {
        self.closing.get()
    }

    /// Marks `fiber` for death: its next (or current) blocking call unwinds it. Says whether it was alive.
    pub(crate) fn kill(&self, fiber: Fiber) -> bool {
        if fiber.state.get() == State::Finished || cfg!(panic = "abort") {
            return false;
        }
        fiber.killed.set(true);
        if fiber.shields.get() == 0 {
            fiber.attention.set(fiber.attention.get() | attention::KILL);
            self.wake(fiber);
        }
        true
    }

    /// Interrupts `fiber` like a kill, until [`end_cancel`](Self::end_cancel): for the body of a scope that has failed.
    /// A kill proper is told apart by `killed`.
    pub(crate) fn cancel(&self, fiber: Fiber) {
        if cfg!(panic = "abort") {
            return;
        }
        fiber.cancelled.set(fiber.cancelled.get() + 1);
        if fiber.shields.get() == 0 {
            fiber.attention.set(fiber.attention.get() | attention::KILL);
            self.wake(fiber);
        }
    }

    /// One `cancel` of the running fiber `me` has done its work, or comes too late. Says whether `me` is to be killed
    /// anyhow.
    pub(crate) fn end_cancel(&self, me: Fiber) -> bool {
        if !cfg!(panic = "abort") {
            me.cancelled.set(me.cancelled.get() - 1);
        }
        if !me.killed.get() && me.cancelled.get() == 0 {
            me.attention.set(me.attention.get() & !(attention::KILL | attention::RAISED));
        }
        me.killed.get()
    }

    /// Calls `f` with every live fiber, in no particular order.
    pub(crate) fn for_each_fiber(&self, mut f: impl FnMut(Fiber)) {
        let slots = self.pool.borrow().made();
        for slot in slots {
            // SAFETY: the slot is one of this pool's.
            if let Some(fiber) = unsafe { Fiber::in_slot(slot) }
                && fiber.state.get() != State::Finished
            {
                f(fiber);
            }
        }
    }

    /// Every live fiber, in no particular order, for a caller that may be anywhere in the program: none if the runtime is
    /// just making a stack or freeing one.
    #[cfg(feature = "monkey")]
    pub(crate) fn try_fibers(&self) -> Vec<Fiber> {
        let mut fibers = Vec::new();
        if self.pool.try_borrow_mut().is_ok() {
            self.for_each_fiber(|fiber| fibers.push(fiber));
        }
        fibers
    }

    /// Unwinds every fiber: kills all, lets them run, and repeats for those that swallowed it. Says how many are
    /// left; they wait for something that cannot happen any more, or never stop catching kills.
    ///
    /// The caller is main.
    pub(crate) fn unwind_all(&self) -> usize {
        if cfg!(panic = "abort") {
            // Nothing can unwind: what is suspended is leaked.
            return self.live.get();
        }
        self.closing.set(true);
        for _ in 0..KILL_ROUNDS {
            self.scheduler().collect(self);
            if self.live.get() == 0 && self.runnable() == 0 {
                break;
            }
            self.for_each_fiber(|fiber| {
                fiber.shields.set(0);
                self.kill(fiber);
            });
            self.drive(None);
        }
        self.closing.set(false);
        self.current.set(self.main);
        self.main.state.set(State::Running);
        self.live.get()
    }

    /// Whether this is a copy in the child of a fork.
    pub(crate) fn is_forked(&self) -> bool {
        self.generation != fork_generation()
    }

    /// Drops the results that nobody joined for: their handles outlive the thread, and get an error.
    fn drop_results(&self) {
        let slots = self.pool.borrow().made();
        for slot in slots {
            // SAFETY: the slot is one of this pool's.
            if let Some(fiber) = unsafe { Fiber::in_slot(slot) }
                && fiber.state.get() == State::Finished
            {
                fiber::drop_quietly(Dismantle(fiber));
            }
        }
    }

    /// The counters of the stack pool.
    pub(crate) fn stack_stats(&self) -> StackStats {
        self.pool.borrow().stats()
    }

    /// Returns the pages of unused stacks to the kernel, and those that parked threads do not need.
    pub(crate) fn trim_stacks(&self) {
        let mut pool = self.pool.borrow_mut();
        pool.trim();
        Sweep::all(&pool);
    }

    /// Returns the pages of stacks that nobody has used for a while, and of deep calls that are over. The scheduler calls
    /// it when it looks at the clock, and before it waits.
    #[inline]
    pub(crate) fn tend_stacks(&self, now: u64) {
        let mut pool = self.pool.borrow_mut();
        pool.tend(now);
        self.sweep.borrow_mut().tend(&pool, now);
    }

    /// When [`tend_stacks`](Self::tend_stacks) will have something to do, in monotonic nanoseconds.
    pub(crate) fn tend_stacks_at(&self) -> Option<u64> {
        [self.pool.borrow().tend_at(), self.sweep.borrow().due_at()].into_iter().flatten().min()
    }

    /// A look is over: if somebody is runnable, stacks will be used.
    #[inline]
    pub(crate) fn note_activity(&self) {
        if self.runnable() > 0 {
            self.sweep.borrow_mut().note_activity();
        }
    }

    /// See [`StackPool::high_water`].
    pub(crate) fn high_water(&self, fiber: Fiber) -> io::Result<usize> {
        self.pool.borrow().high_water(fiber.slot())
    }

    /// The fiber that a handle means, if it has not ended. Safe at any time, since the root vouches for the pool.
    #[inline]
    pub(crate) fn resolve(&self, handle: FiberRef) -> Option<Fiber> {
        handle.get()
    }

    /// A reference to `fiber` that other OS threads may carry.
    pub(crate) fn pack(&self, fiber: Fiber) -> Parcel {
        Parcel { home: self.number, parts: fiber.to_ref().to_parts() }
    }

    /// Whether this root packed it.
    #[inline(always)]
    pub(crate) fn packed(&self, parcel: Parcel) -> bool {
        parcel.home == self.number
    }

    /// The live fiber that a parcel means; nobody, if it was packed by another root.
    #[inline]
    pub(crate) fn open(&self, parcel: Parcel) -> Option<Fiber> {
        if !self.packed(parcel) {
            return None;
        }
        // SAFETY: the number says that this root packed it, on this OS thread, since numbers are never reused.
        let fiber = unsafe { FiberRef::from_parts(parcel.parts) }?;
        self.resolve(fiber)
    }
}

/// Numbers given to roots so far.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// The number of this OS thread's root, whether it is not made yet, in use or gone.
fn number() -> u64 {
    if NUMBER.get() == 0 {
        // Relaxed: the number only has to be unique.
        NUMBER.set(NUMBERS.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}

/// A reference to a fiber on its way through other OS threads: no pointer any more, until its own root opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// The number of the root that packed it.
    home: u64,
    /// See `FiberRef::to_parts`.
    parts: (u64, usize),
}

impl Parcel {
    /// For a fiber of this OS thread whose root is gone: nobody opens it, but it still has its identity.
    pub(crate) fn of_the_dead(id: u64) -> Parcel {
        Parcel { home: number(), parts: (id, 0) }
    }

    /// The number of its root, and the id of its fiber: unique in the process together.
    pub(crate) fn identity(self) -> (u64, u64) {
        (self.home, self.parts.0)
    }
}

/// Brings what the next turn will touch into the cache. For fibers that come from a wait, as opposed to a yield: they
/// run for microseconds in system calls, which push everything else out of the cache, and then each line of the next
/// one's block and frames is a miss. At 1000 echo connections that was 8 % of the server's time.
#[inline(always)]
fn prefetch_next(ready: &RunQueue<Fiber>) {
    if ready.len() > PREFETCH_NEXT_FROM
        && let Some(second) = ready.peek(2)
        && let Some(first) = ready.peek(1)
    {
        second.prefetch_whole_block();
        if first.has_frames() {
            first.prefetch_more_frames();
        }
    }
}

/// Brings what later turns will touch into the cache, if the queue is so long that it cannot be there already: the
/// control block of a fiber far behind, and the frames of one nearer, whose control block came in before.
#[inline(always)]
fn prefetch(ready: &RunQueue<Fiber>) {
    if ready.len() > PREFETCH_FROM
        && let Some(far) = ready.peek(PREFETCH_BLOCK)
        && let Some(near) = ready.peek(PREFETCH_FRAMES)
    {
        far.prefetch_block();
        near.prefetch_frames();
    }
}

/// A yield in a queue that is long, or empty: prefetches if it is long, and says whether anybody is in it.
#[cold]
#[inline(never)]
fn prepare_long(ready: &RunQueue<Fiber>) -> bool {
    prefetch(ready);
    !ready.is_empty()
}

/// Dismantles a FINISHED fiber when dropped; only teardown makes one.
struct Dismantle(Fiber);

impl Drop for Dismantle {
    fn drop(&mut self) {
        // SAFETY: finished, and after teardown its packet finds no root and does not look at it again.
        unsafe { self.0.dismantle() };
    }
}

/// In the child of a fork, before `fork` returns there: the fiber that forked goes on alone. Nobody else runs any
/// more, and whoever tries to switch gets a panic that says so. Greenlets of a thread without a hub just go on.
///
/// Async-signal-safe: it writes a few cells, into memory that is there.
pub(crate) fn after_fork_in_child() {
    let Some(root) = existing_root().filter(|root| root.has_scheduler()) else { return };
    root.revoke_scheduler();
    // SAFETY: invariant R2: fork was called by the program, so nobody borrows the queue.
    let ready = unsafe { &mut *root.ready.get() };
    ready.clear();
    root.heir.set(None);
    let me = root.current();
    me.attention.set(me.attention.get() | attention::FORKED);
    if me != root.main && ready.has_room() {
        root.main.attention.set(root.main.attention.get() | attention::FORKED);
        root.main.state.set(State::Ready);
        ready.push(root.main);
    }
}

/// Runs when the OS thread ends: unwinds what is suspended, then frees everything.
///
/// 0. Work of other hubs is refused; what came before is unwound with the rest.
/// 1. Every fiber is killed and runs until it ended; blocking calls are refused or raise the kill at once.
/// 2. Main's green-local values are destroyed, and results whose handles were never joined are dropped. If a destructor
///    spawned, 1 and this again, except for main's values, which are gone for good.
/// 3. The scheduler closes: descriptors, timers.
/// 4. What could not be unwound is leaked, its memory with it (invariant F2), and counted.
/// 5. `ROOT` becomes `GONE`; later calls on this thread get an error.
///
/// Where nothing may be unwound, everything is left as it is: `process::exit` on a green thread's stack, which promises
/// to run no destructors of any stack, and in a destructor while main unwinds, when no thread can be made to wait and one
/// that goes on whatever happens would never let go; and the end of a forked child, which has copies of its parent's
/// threads.
fn teardown() {
    let Some(root) = existing_root() else {
        ROOT.set(GONE);
        return;
    };
    if !root.current().is_main() || root.is_forked() || std::thread::panicking() {
        root.close_scheduler();
        ROOT.set(GONE);
        return;
    }
    root.scheduler().refuse();
    let mut stuck = root.unwind_all();
    root.main.drop_extras();
    for _ in 0..KILL_ROUNDS {
        root.drop_results();
        if root.live() == stuck {
            break;
        }
        stuck = root.unwind_all();
    }
    let stuck = root.live();
    root.close_scheduler();
    ROOT.set(GONE);
    let main_block = root.main_block;
    // SAFETY: invariant R1: made by Box::leak, and `ROOT` no longer leads here.
    let root = unsafe { Box::from_raw(ptr::from_ref(root).cast_mut()) };
    if stuck > 0 {
        root.pool.borrow_mut().abandon(stuck);
        // The control block of main may still be named by what lives on the leaked stacks.
        return;
    }
    drop(root);
    // SAFETY: made by Box::leak; the root and every fiber that knew main are gone.
    drop(unsafe { Box::from_raw(main_block.as_ptr()) });
}
