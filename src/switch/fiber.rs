//! A fiber: one stackful coroutine with its control block, both in one stack slot.
//!
//! ```text
//!                 launch                resume                      body returns
//!   (free slot) ---------> READY ----------------> RUNNING ------------------------> FINISHED --> (free slot)
//!                           ^  ^   suspend, queued |  |  |                                  release
//!                           |  +-------------------+  |  | suspend, waiting for a transfer
//!                     wake  |        suspend, waiting |  v
//!                           +---------- PARKED <------+ SWITCHED --> RUNNING (a greenlet switched to it)
//! ```
//!
//! *Who may make which move.* `launch` and `wake` (in `root`) make READY; only the loop makes RUNNING out of
//! READY; a fiber parks or switches only itself; a greenlet's switch makes RUNNING out of SWITCHED, or NOTIFIED, which is
//! RUNNING with something to look at first; the loop makes FINISHED. Main, the program on the OS thread's own stack, has a control block and all of these states,
//! but no coroutine.
//!
//! * Invariant F1: a `Fiber` that is dereferenced belongs to a slot between `launch` and release, or is main's.
//!   Upheld by its holders: the run queue, wait lists, wheel entries and the registry of running fibers hold no
//!   fiber past its end, because a fiber leaves all of them before it finishes; handles that may be stale check
//!   the id first ([`FiberRef`]).
//! * Invariant F2: the stack of a fiber is reused or unmapped only after its function returned or unwound.
//!   Upheld by `root`: release follows the coroutine's return, and teardown leaks what it cannot unwind.
//! * Invariant F3: `link_below` leads to the parent link at the base of the fiber's own stack from the first
//!   instruction of its body to the last. Upheld by `body`, and by `fits`, which keeps the payload between link and block
//!   so small that the distance fits.
//! * Invariant F4: a fiber is resumed only by a loop on its own OS thread, and never while its coroutine is on its way: while
//!   it runs, or while it is the deputy below who runs. Upheld by `root::Root`: of its loops main's and one deputy's are
//!   under way at most, the one that is on top resumes neither main nor the deputy but returns to them, and who was resumed
//!   by a deputy suspends to it. Nothing here is `Send`.
//! * Invariant F5: the payload holds an `F` until `run` moves it out, and a `T` after `run` returned and until
//!   the result is taken or dropped; `payload_state` says which. Upheld by `run` and by `Packet`, the only owner.
//! * Invariant F6: in a PARKED fiber everything that it needs of its stack lies above `frames_end() - SWITCH_FRAMES`.
//!   Upheld by who makes itself PARKED (`park::leave_cpu`, `cancel::step_aside`): it calls `note_frames` in the frame
//!   from which it suspends, or runs the loop as the deputy, and between the two nothing but the runtime's own few functions
//!   is called.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::{MaybeUninit, align_of, offset_of, size_of};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::pure::timer_wheel::TimerKey;

use super::extras::{Ending, Extras, Life};
use super::stack::{FiberStack, Slot};
use super::wait_list::WaitList;
use super::wait_node::Link;
use crate::sys::prefetch::prefetch_read;
use crate::sys::stack_pointer::stack_pointer;

/// The coroutine of every fiber. Values pass outside of it; a suspension says who runs next, and that one word
/// travels in a register: through memory it would cost a store and a dependent load on the way of every switch.
type Coro = Coroutine<(), Option<Fiber>, (), FiberStack>;

/// The other end of a [`Coro`].
type Suspender = Yielder<(), Option<Fiber>>;

/// Where a fiber is in the life shown in the file's picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// The slot was never used, or its pages went back to the kernel. Zero, since such a page reads as zero.
    Unused = 0,
    /// The slot is in the pool, with a block whose fields are neutral.
    Pooled,
    /// In the run queue, or about to be resumed.
    Ready,
    /// On the CPU, or main while its loop resumes others.
    Running,
    /// Waiting for `wake`.
    Parked,
    /// Waiting for an explicit switch, its mailbox set.
    Switched,
    /// Its function returned; the result may still be in the payload.
    Finished,
    /// As RUNNING, of a fiber that is about to return from an explicit switch with more than a plain value; see `mailbox`.
    Notified,
}

/// What a fiber waits for; printed by reports. Each has one place in the runtime that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// `thread::park`.
    Park,
    /// `sleep`.
    Sleep,
    /// The end of the green thread with this id.
    Join(u64),
    /// The end of all threads of a scope.
    Scope,
    /// An explicit switch; the id is the greenlet it switched to.
    Switch(u64),
    /// Readability of a file descriptor.
    Read(i32),
    /// Writability of a file descriptor.
    Write(i32),
    /// A lock, by what it protects.
    Lock(&'static str),
    /// Something that one fiber has at a time, and the id of who has it; 0 if several readers do. Of several waiters in
    /// a list only the first one's id is kept up to date; the others wait for those before them.
    Held(Held, u64),
    /// A value from a channel.
    Receive,
    /// Room in a channel.
    Send,
    /// An event, in words that follow "waits for".
    Event(&'static str),
    /// A job on an OS thread, by what it does.
    Job(&'static str),
    /// Something that another hub does, by what it is.
    Remote(&'static str),
}

/// What a fiber can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A `sync::Mutex`.
    Mutex,
    /// A `sync::RwLock`; the waiter wants to read.
    Read,
    /// A `sync::RwLock`; the waiter wants to write.
    Write,
    /// The turn of a `sync::Once`.
    Once,
}

/// Bits of [`ControlBlock::attention`]: why a suspension must take the slow path. Zero on the fast one.
pub(crate) mod attention {
    /// A kill is due at the next blocking call. Never set while a shield is up.
    pub(crate) const KILL: u8 = 1;
    /// At least one `timeout` scope is open: waits have a deadline that is not their own.
    pub(crate) const DEADLINE: u8 = 2;
    /// Inside `no_switch`: suspending is a panic.
    pub(crate) const NO_SWITCH: u8 = 4;
    /// Main only: nothing can ever wake it; the report is in the root.
    pub(crate) const DEADLOCK: u8 = 8;
    /// Greenlets only: its last handle was dropped while it ran. Its next switch is its last; see `greenlet`.
    pub(crate) const ABANDONED: u8 = 16;
    /// In the child of a fork: nothing may switch any more. Set in the fiber that forked and in main.
    pub(crate) const FORKED: u8 = 32;
    /// A kill was raised in it. If another one is due, the program swallowed that one.
    pub(crate) const RAISED: u8 = 64;
    /// The latest unwinding was a kill or a timeout, not a panic of the program. Means nothing unless it unwinds.
    pub(crate) const QUIET: u8 = 128;
}

/// The deadline of the innermost `timeout` scope that expires first, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScopeDeadline {
    /// Monotonic nanoseconds; `u64::MAX` when no scope is open.
    pub(crate) at: u64,
    /// Which scope set it.
    pub(crate) scope: u64,
}

impl ScopeDeadline {
    /// No scope is open.
    pub(crate) const NONE: ScopeDeadline = ScopeDeadline { at: u64::MAX, scope: 0 };
}

/// Room for a small closure or result.
type SmallPayload = [u128; 3];

/// What the payload holds (invariant F5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum PayloadState {
    /// Nothing.
    Empty = 0,
    /// The closure.
    Closure,
    /// The result.
    Result,
}

/// All that the runtime knows of one fiber.
///
/// ```text
/// line 0   what every switch touches: the top of the stack with the parent link, coroutine, state
/// line 1   what spawning, running to the end, parking and joining touch besides: id, end of the frames
/// line 2   a small closure or result, and flags
/// line 3.. what waiting touches, then what is rare
/// ```
///
/// A spawn writes lines 0 to 2 only. The rest is *neutral* whenever the slot is in the pool (no timer, no scope, no
/// greenlet, no name, in no list): whoever sets one of those fields takes it back before the fiber ends. All fields are
/// `Cell`s because only one OS thread ever sees them.
#[repr(C, align(64))]
pub(crate) struct ControlBlock {
    /// The stack's topmost bytes, where corosensei has its parent link, unless a large payload lies between stack and block.
    /// Part of the stack (invariant S3), and here only so that a switch touches one cache line less.
    top_of_stack: UnsafeCell<MaybeUninit<[u64; 2]>>,
    /// The coroutine; initialised from launch to release, never for main.
    coroutine: UnsafeCell<MaybeUninit<Coro>>,
    /// How far below this block's start its frames ended when it last yielded or parked, but for the few words of the switch
    /// itself; 0 before. Exact only while it is PARKED (invariant F6).
    frames_below: Cell<u32>,
    /// Where `suspend` finds its coroutine: the parent link lies so many times 16 bytes below this block's start (invariant
    /// F3).
    link_below: Cell<u16>,
    /// Bits of [`attention`].
    pub(crate) attention: Cell<u8>,
    /// See [`State`].
    pub(crate) state: Cell<State>,

    /// Where the closure, then the result lies; null for main.
    payload: Cell<*mut u8>,
    /// Drops what the payload holds, closure or result.
    drop_payload: Cell<unsafe fn(*mut u8)>,
    /// Where it was spawned.
    spawned_at: Cell<&'static Location<'static>>,
    /// Unique on this OS thread, never reused, never 0 while live: what makes a stale handle harmless.
    pub(crate) id: Cell<u64>,
    /// Fibers that wait for the end of this one.
    pub(crate) joiners: WaitList,
    /// Set by a timer that woke this fiber; read and cleared by the wait that armed it.
    pub(crate) timed_out: Cell<bool>,
    /// The one permit of `thread::park`.
    pub(crate) permit: Cell<bool>,
    /// Whether it is in the timer wheel.
    pub(crate) in_wheel: Cell<bool>,
    /// A kill was asked for; sticky until the fiber ends.
    pub(crate) killed: Cell<bool>,
    /// Whether a `Packet` exists, that is: whether the slot must wait for it.
    pub(crate) owned: Cell<bool>,
    /// What the payload holds.
    payload_state: Cell<PayloadState>,
    /// Whether this fiber was spawned (a green thread) or made by a greenlet.
    pub(crate) green_thread: Cell<bool>,
    /// Closure and result may borrow from a scope: nobody drops them after the scope has ended.
    borrows: Cell<bool>,
    /// Whether `extras` is set, or how it ended; see `extras`.
    pub(crate) life: Cell<Life>,
    /// The slot's size as a power of two.
    shift: u8,

    /// The payload, if it is small.
    small_payload: UnsafeCell<MaybeUninit<SmallPayload>>,
    /// Open shields.
    pub(crate) shields: Cell<u16>,
    /// Open `no_switch` sections.
    pub(crate) no_switch: Cell<u16>,
    /// Open `try_scope`s whose body is to be interrupted.
    pub(crate) cancelled: Cell<u16>,
    /// Whether it is in a wait list.
    pub(crate) linked: Cell<bool>,
    /// Whether `name` is set.
    named: Cell<bool>,
    /// Whether `awaiter` is set.
    pub(crate) awaited: Cell<bool>,
    /// The slot's colour.
    colour: u8,
    /// IO calls that may still succeed at once before the fiber must yield.
    pub(crate) io_credit: Cell<u8>,

    /// What it waits for, or waited for last; meaningful while it is PARKED or in a wait list. `waits_for` knows of explicit
    /// switches too.
    pub(crate) reason: Cell<Reason>,
    /// When it was parked: the root's clock, in monotonic nanoseconds.
    pub(crate) since: Cell<u64>,
    /// What `frames_below` says, as an address: main's stack is no slot, and may be further away than that can say.
    #[cfg(feature = "monkey")]
    frames_at: Cell<usize>,
    /// Next in the wait list this fiber is in.
    pub(crate) wait_next: Cell<Option<Link>>,
    /// Previous in the wait list this fiber is in.
    pub(crate) wait_prev: Cell<Option<Link>>,
    /// The deadline of the current wait, `u64::MAX` for none. The wheel entry may be earlier (lazy).
    pub(crate) deadline: Cell<u64>,
    /// When the wheel entry fires, `u64::MAX` if there is none.
    pub(crate) timer_at: Cell<u64>,

    /// The wheel entry, if there is one; see `hub`.
    pub(crate) timer: Cell<Option<TimerKey>>,
    /// The `timeout` scope that expires first.
    pub(crate) scope_deadline: Cell<ScopeDeadline>,
    /// While SWITCHED: where the value goes; see `mailbox`.
    pub(crate) mailbox: Cell<*const ()>,
    /// While SWITCHED: the id of the greenlet it switched to.
    pub(crate) partner: Cell<u64>,
    /// While SWITCHED: the type of message the mailbox takes.
    pub(crate) mailbox_type: Cell<Option<fn() -> std::any::TypeId>>,
    /// The greenlet whose body this fiber runs, as `greenlet` keeps it; none for green threads and main.
    pub(crate) greenlet: Cell<Option<Rc<dyn Any>>>,
    /// Whom to tell of its end: the task that polls its handle as a future.
    awaiter: Cell<Option<Waker>>,
    /// Its name, if it was given one. Shared with the `Thread` handles.
    name: UnsafeCell<Option<Arc<str>>>,
    /// Green-local values and links, if there are any (invariant E1 of `extras`).
    extras: Cell<Option<Box<Extras>>>,
}

/// A live fiber, or main. `Copy`, one word; see invariant F1 for who may hold one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fiber(NonNull<ControlBlock>, PhantomData<Rc<()>>);

impl std::ops::Deref for Fiber {
    type Target = ControlBlock;
    #[inline(always)]
    fn deref(&self) -> &ControlBlock {
        // SAFETY: invariant F1, upheld by the holder of this value: the block is initialised and mapped.
        unsafe { self.0.as_ref() }
    }
}

impl std::fmt::Debug for Fiber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fiber#{}", self.id.get())
    }
}

/// What one resumption ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The fiber suspended, and says who runs next: a fiber, or the first of the queue.
    Suspended(Option<Fiber>),
    /// Its function returned; it must not be resumed again.
    Finished,
}

/// A fiber that may have ended: the address of a block and the id it had. Always safe to ask (invariant A1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FiberRef {
    /// Where the control block is or was.
    block: NonNull<ControlBlock>,
    /// The id it must still have.
    id: NonZeroU64,
}

/// What kind of fiber is launched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    /// Whether a `Packet` will own the result.
    pub(crate) owned: bool,
    /// See [`ControlBlock::green_thread`].
    pub(crate) green_thread: bool,
    /// See [`ControlBlock::borrows`].
    pub(crate) borrows: bool,
}

/// Closures up to this many bytes lie in the slot; larger ones belong in a `Box` (see `thread::spawn`).
pub(crate) const MAX_INLINE: usize = 1024;

/// Bytes of the stack that lie in the control block: the parent link.
const STACK_IN_BLOCK: usize = 16;

/// Most bytes of stack that lie between `note_frames` and the switch: the frames of `switch_out`, `deputise` and of
/// corosensei's `suspend` and `resume`, which are mostly inlined in an optimised build, some hundred bytes each without, and
/// several times that under AddressSanitizer.
const SWITCH_FRAMES: usize = 8192;

/// Most bytes of a payload, with its alignment: the parent link below it is at most 16 x 65 535 bytes from the block.
const MAX_PAYLOAD: usize = 1 << 19;

/// Whether a closure and a result of these types fit into a slot of `1 << shift` bytes and leave most of it free.
pub(crate) fn fits<F, T>(shift: u8) -> bool {
    let payload = size_of::<F>().max(size_of::<T>()) + align_of::<F>().max(align_of::<T>());
    payload <= MAX_PAYLOAD.min(Slot::stack_size(shift) / 4)
}

/// Puts a fiber that will run `f` into the slot. It is READY and in no queue yet.
///
/// # Safety
/// The slot is free and its guard is in place; `fits::<F, T>` holds; `f` does not unwind; whatever `F` and `T`
/// borrow outlives the fiber's end and the taking of its result.
#[inline(always)]
pub(crate) unsafe fn launch<F, T>(
    slot: Slot,
    id: u64,
    role: Role,
    spawned_at: &'static Location<'static>,
    f: F,
) -> Fiber
where
    F: FnOnce(Fiber) -> T,
{
    let block = slot.block_at(size_of::<ControlBlock>());
    // SAFETY: the slot is the caller's, fresh from a pool.
    if unsafe { state_of(block) } == State::Unused {
        // SAFETY: the block lies in the slot (S2), is aligned, and holds nothing that would need dropping.
        unsafe { block.cast().write(ControlBlock::blank(slot.shift, slot.colour(), spawned_at)) };
    }
    let fiber = Fiber(block.cast(), PhantomData);
    let size = size_of::<F>().max(size_of::<T>());
    let align = align_of::<F>().max(align_of::<T>()).max(16);
    let start = block.as_ptr().cast::<u8>();
    let (payload, base) = if size <= size_of::<SmallPayload>() && align <= align_of::<SmallPayload>() {
        (start.wrapping_add(offset_of!(ControlBlock, small_payload)), start.addr() + STACK_IN_BLOCK)
    } else {
        let payload = start.map_addr(|start| (start - size) & !(align - 1));
        (payload, payload.addr())
    };
    // SAFETY: the payload area is inside the slot by `fits`, aligned for F, and nobody else's (the slot is free).
    unsafe { payload.cast::<F>().write(f) };
    let coroutine = Coro::with_stack(FiberStack::new(slot, base), move |yielder, ()| {
        body::<F, T>(fiber, yielder);
    });
    // SAFETY: nobody else refers to the coroutine of a free slot.
    unsafe { &mut *fiber.coroutine.get() }.write(coroutine);
    fiber.id.set(id);
    fiber.attention.set(0);
    fiber.state.set(State::Ready);
    fiber.frames_below.set(0);
    fiber.timed_out.set(false);
    fiber.permit.set(false);
    fiber.killed.set(false);
    fiber.owned.set(role.owned);
    fiber.payload_state.set(PayloadState::Closure);
    fiber.payload.set(payload);
    fiber.drop_payload.set(drop_in_place::<F>);
    fiber.spawned_at.set(spawned_at);
    fiber.shields.set(0);
    fiber.no_switch.set(0);
    fiber.green_thread.set(role.green_thread);
    fiber.borrows.set(role.borrows);
    fiber.life.set(Life::Plain);
    fiber
}

/// The state in the control block at `block`, or `Unused` if none was ever written there (invariant A1).
///
/// # Safety
/// The block is that of a slot whose pool still exists.
#[inline(always)]
unsafe fn state_of(block: NonNull<()>) -> State {
    let state = block.as_ptr().cast::<State>().wrapping_byte_add(offset_of!(ControlBlock, state));
    // SAFETY: invariant A1: the state is readable, and zero pages read as Unused.
    unsafe { state.read() }
}

/// The first function on every fiber's stack.
fn body<F, T>(fiber: Fiber, yielder: &Suspender)
where
    F: FnOnce(Fiber) -> T,
{
    // No bits are lost: both are multiples of 16, and `fits` limits what lies between them.
    fiber.link_below.set(((fiber.0.addr().get() - ptr::from_ref(yielder).addr()) / 16) as u16);
    if fiber.payload_state.get() != PayloadState::Closure {
        // Cancelled before it started.
        fiber.drop_extras();
        return;
    }
    // SAFETY: invariant F5: `launch` wrote an F here, and this is the only place that moves it out.
    let f = unsafe { fiber.payload.get().cast::<F>().read() };
    fiber.payload_state.set(PayloadState::Empty);
    let result = f(fiber);
    if !fiber.owned.get() {
        // Nobody will ask for it; its destructor is foreign code and belongs on this stack, not on the root's.
        drop_quietly(result);
        return;
    }
    // SAFETY: the payload is sized and aligned for T as well, and holds nothing since F was moved out.
    unsafe { fiber.payload.get().cast::<T>().write(result) };
    fiber.drop_payload.set(drop_in_place::<T>);
    fiber.payload_state.set(PayloadState::Result);
}

/// Drops a value whose destructor may panic: the panic hook has printed it, and nobody is left to be told.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping a payload may panic too.
        std::mem::forget(payload);
    }
}

/// Drops the `T` at `at`.
///
/// # Safety
/// `at` holds a `T` that nobody uses again.
unsafe fn drop_in_place<T>(at: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { ptr::drop_in_place(at.cast::<T>()) }
}

impl ControlBlock {
    /// A block with nothing in it, for a slot that has none yet.
    #[cold]
    fn blank(shift: u8, colour: u8, spawned_at: &'static Location<'static>) -> ControlBlock {
        ControlBlock {
            coroutine: UnsafeCell::new(MaybeUninit::uninit()),
            top_of_stack: UnsafeCell::new(MaybeUninit::uninit()),
            small_payload: UnsafeCell::new(MaybeUninit::uninit()),
            link_below: Cell::new(0),
            id: Cell::new(0),
            attention: Cell::new(0),
            state: Cell::new(State::Pooled),
            in_wheel: Cell::new(false),
            timed_out: Cell::new(false),
            permit: Cell::new(false),
            killed: Cell::new(false),
            owned: Cell::new(false),
            payload_state: Cell::new(PayloadState::Empty),
            payload: Cell::new(ptr::null_mut()),
            drop_payload: Cell::new(drop_in_place::<()>),
            spawned_at: Cell::new(spawned_at),
            frames_below: Cell::new(0),
            joiners: WaitList::new(),
            shields: Cell::new(0),
            no_switch: Cell::new(0),
            cancelled: Cell::new(0),
            green_thread: Cell::new(false),
            borrows: Cell::new(false),
            linked: Cell::new(false),
            named: Cell::new(false),
            awaited: Cell::new(false),
            life: Cell::new(Life::Plain),
            shift,
            colour,
            io_credit: Cell::new(u8::MAX),
            reason: Cell::new(Reason::Park),
            since: Cell::new(0),
            #[cfg(feature = "monkey")]
            frames_at: Cell::new(0),
            wait_next: Cell::new(None),
            wait_prev: Cell::new(None),
            deadline: Cell::new(u64::MAX),
            timer_at: Cell::new(u64::MAX),
            timer: Cell::new(None),
            scope_deadline: Cell::new(ScopeDeadline::NONE),
            mailbox: Cell::new(ptr::null()),
            mailbox_type: Cell::new(None),
            partner: Cell::new(0),
            greenlet: Cell::new(None),
            awaiter: Cell::new(None),
            name: UnsafeCell::new(None),
            extras: Cell::new(None),
        }
    }

    /// What it waits for. An explicit switch is so cheap that it notes whom it waits for, and not that it is a switch.
    pub(crate) fn waits_for(&self) -> Reason {
        if self.state.get() == State::Switched { Reason::Switch(self.partner.get()) } else { self.reason.get() }
    }

    /// The control block of main, for `root`, which keeps it at one address until the thread ends.
    pub(crate) fn main(id: u64, name: Option<Arc<str>>) -> ControlBlock {
        let block = ControlBlock::blank(super::stack::MIN_SHIFT, 0, Location::caller());
        block.id.set(id);
        block.state.set(State::Running);
        block.named.set(name.is_some());
        ControlBlock { name: UnsafeCell::new(name), ..block }
    }

    /// Gives a fiber its name; once, before it runs.
    pub(crate) fn set_name(&self, name: Arc<str>) {
        self.named.set(true);
        // SAFETY: nobody holds a reference into the cell: every function here that makes one ends with it.
        unsafe { *self.name.get() = Some(name) };
    }

    /// Where it was spawned.
    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at.get()
    }

    /// Whether this is main's block.
    pub(crate) fn is_main(&self) -> bool {
        self.payload.get().is_null()
    }

    /// Its end will be told to `waker`, in place of an earlier one, which is returned: its drop is foreign code.
    pub(crate) fn set_awaiter(&self, waker: Waker) -> Option<Waker> {
        self.awaited.set(true);
        self.awaiter.replace(Some(waker))
    }

    /// Whom to tell of its end.
    pub(crate) fn take_awaiter(&self) -> Option<Waker> {
        self.awaited.set(false);
        self.awaiter.take()
    }

    /// The name, if it has one.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        if !self.named.get() {
            return None;
        }
        // SAFETY: the name is written at launch only, and its clone runs no foreign code.
        let name = unsafe { &*self.name.get() };
        name.clone()
    }

    /// In debug builds, that a spawn into this slot may leave alone what it leaves alone.
    fn assert_neutral(&self) {
        debug_assert!(self.joiners.is_empty(), "somebody waits for the end of a fiber that is gone");
        debug_assert!(!self.linked.get() && self.wait_next.get().is_none() && self.wait_prev.get().is_none());
        debug_assert!(!self.in_wheel.get() && self.timer.get().is_none() && self.timer_at.get() == u64::MAX);
        debug_assert_eq!(self.deadline.get(), u64::MAX);
        debug_assert_eq!(self.scope_deadline.get(), ScopeDeadline::NONE);
        debug_assert_eq!((self.shields.get(), self.no_switch.get(), self.cancelled.get()), (0, 0, 0));
        debug_assert!(self.extras.take().is_none(), "somebody was not told of the end");
        debug_assert!(self.greenlet.take().is_none() && !self.named.get() && !self.awaited.get());
    }

    /// Calls `f` with the extras if there are any. `f` must not run foreign code (invariant E1 of `extras`).
    #[inline]
    pub(crate) fn with_extras<R>(&self, f: impl FnOnce(&mut Extras) -> R) -> Option<R> {
        if self.life.get() != Life::WithExtras {
            return None;
        }
        let mut extras = self.extras.take()?;
        let result = f(&mut extras);
        self.extras.set(Some(extras));
        Some(result)
    }

    /// Calls `f` with the extras, which are made if need be; none if the fiber has ended. `f` must not run foreign code.
    pub(crate) fn with_extras_made<R>(&self, f: impl FnOnce(&mut Extras) -> R) -> Option<R> {
        if self.life.get() == Life::Plain {
            self.adopt(Box::default());
        }
        self.with_extras(f)
    }

    /// Gives the fiber, which has none, its extras.
    pub(crate) fn adopt(&self, extras: Box<Extras>) {
        self.life.set(Life::WithExtras);
        self.extras.set(Some(extras));
    }

    /// Takes the extras away, for ever: it has ended like this.
    pub(crate) fn end_with(&self, ending: Ending) -> Option<Box<Extras>> {
        self.life.set(Life::Ended(ending));
        self.extras.take()
    }

    /// Destroys the values of green-local keys, the one made last first; destructors may make others meanwhile. `failed`
    /// gets what they unwind with. They are foreign code, and run here.
    #[cold]
    pub(crate) fn drop_locals(&self, mut failed: impl FnMut(Box<dyn Any + Send>)) {
        while let Some(value) = self.with_extras(Extras::pop_local).flatten() {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
                failed(payload);
            }
        }
    }

    /// The end of the extras of a fiber whose end nobody is told of. Destructors run here.
    pub(crate) fn drop_extras(&self) {
        if self.life.get() == Life::WithExtras {
            self.drop_locals(drop_quietly);
        }
        drop_quietly(self.end_with(Ending::Killed));
    }

    /// The name for a signal handler: no count is touched.
    pub(crate) fn with_name<R>(&self, f: impl FnOnce(Option<&str>) -> R) -> R {
        // SAFETY: as in `name`; the fiber is live for the whole call, so the string stays.
        let name = unsafe { &*self.name.get() };
        f(name.as_deref())
    }

    /// The slot; not for main.
    pub(crate) fn slot(&self) -> Slot {
        Slot::around(ptr::from_ref(self).addr(), self.shift, self.colour)
    }

    /// Notes where the frames of the running fiber end, for `prefetch_frames` and `unused_below`. Called by what goes
    /// through the queue, and by whoever parks (invariant F6).
    #[inline(always)]
    pub(crate) fn note_frames(&self) {
        // A slot is 4 GiB at most. On main's stack, which is no slot, it means nothing.
        self.frames_below.set(ptr::from_ref(self).addr().wrapping_sub(stack_pointer()) as u32);
        #[cfg(feature = "monkey")]
        self.frames_at.set(stack_pointer());
    }

    /// Where its frames end, if it `has_frames`.
    #[inline(always)]
    fn frames_end(&self) -> usize {
        ptr::from_ref(self).addr() - self.frames_below.get() as usize
    }

    /// Whether it has been on the CPU, and so has frames worth bringing in.
    #[inline(always)]
    pub(crate) fn has_frames(&self) -> bool {
        self.frames_below.get() != 0
    }

    /// Brings the lines that asking for the frames will touch into the cache.
    #[inline(always)]
    pub(crate) fn prefetch_block(&self) {
        prefetch_read(ptr::from_ref(self).cast());
    }

    /// Brings the lines that a resume will touch into the cache: the newest frames, and the parent link at the base.
    #[inline(always)]
    pub(crate) fn prefetch_frames(&self) {
        let newest = ptr::without_provenance::<u8>(self.frames_end());
        prefetch_read(newest);
        prefetch_read(newest.wrapping_sub(64));
        prefetch_read(newest.wrapping_add(64));
    }

    /// `prefetch_block` for a fiber that comes out of a wait: all lines that parking touched.
    #[inline(always)]
    pub(crate) fn prefetch_whole_block(&self) {
        let block = ptr::from_ref(self).cast::<u8>();
        prefetch_read(block);
        prefetch_read(block.wrapping_add(64));
        prefetch_read(block.wrapping_add(192));
        prefetch_read(block.wrapping_add(256));
    }

    /// `prefetch_frames` for a fiber that comes out of a wait: it will return through the frames of a blocking call,
    /// and call the next one.
    #[inline(always)]
    pub(crate) fn prefetch_more_frames(&self) {
        let newest = ptr::without_provenance::<u8>(self.frames_end());
        for line in 0..12 {
            prefetch_read(newest.wrapping_add(64 * line).wrapping_sub(256));
        }
    }

    /// While PARKED: the address below which nothing of the stack is needed (invariant F6).
    pub(crate) fn unused_below(&self) -> usize {
        debug_assert_eq!(self.state.get(), State::Parked);
        self.frames_end() - SWITCH_FRAMES
    }

    /// The addresses among which the frames of a suspended fiber lie; none if it has not run, or is main. Exact after a
    /// park or a yield. Of one in an explicit switch nobody knows where they end, so it is its whole stack.
    #[cfg(feature = "monkey")]
    pub(crate) fn frames(&self) -> std::ops::Range<usize> {
        let top = self.stack_base();
        match self.state.get() {
            State::Parked | State::Ready | State::Running if self.has_frames() => self.frames_end()..top,
            State::Switched => self.slot().stack_low()..top,
            _ => top..top,
        }
    }

    /// Where the frames of main end while it is parked. Where they begin is not known.
    #[cfg(feature = "monkey")]
    pub(crate) fn frames_of_main(&self) -> Option<usize> {
        (self.state.get() == State::Parked && self.frames_at.get() != 0).then(|| self.frames_at.get())
    }

    /// Where the frames of a fiber begin, as an address: everything below is its stack.
    pub(crate) fn stack_base(&self) -> usize {
        self.link().addr() + STACK_IN_BLOCK
    }

    /// Where the parent link is, once it has started.
    #[inline(always)]
    fn link(&self) -> *const u8 {
        ptr::from_ref(self).cast::<u8>().wrapping_sub(16 * usize::from(self.link_below.get()))
    }
}

impl Fiber {
    /// Main's fiber, out of the block that `root` owns.
    ///
    /// # Safety
    /// The block stays where it is until no `Fiber` of it is used any more.
    pub(crate) unsafe fn of_main(block: NonNull<ControlBlock>) -> Fiber {
        Fiber(block, PhantomData)
    }

    /// The address of its block, which `of_block` takes back.
    #[inline(always)]
    pub(crate) fn to_block(self) -> NonNull<ControlBlock> {
        self.0
    }

    /// The fiber whose block this is.
    ///
    /// # Safety
    /// `block` comes from `to_block`, and whoever keeps it there is a holder in the sense of invariant F1.
    #[inline(always)]
    pub(crate) unsafe fn of_block(block: NonNull<ControlBlock>) -> Fiber {
        Fiber(block, PhantomData)
    }

    /// The fiber in `slot`, if one is live there.
    ///
    /// # Safety
    /// The slot was handed out by a pool that still exists.
    pub(crate) unsafe fn in_slot(slot: Slot) -> Option<Fiber> {
        let block = slot.block_at(size_of::<ControlBlock>());
        // SAFETY: the caller's promise.
        match unsafe { state_of(block) } {
            State::Unused | State::Pooled => None,
            _ => Some(Fiber(block.cast(), PhantomData)),
        }
    }

    /// Runs the fiber until it suspends or ends. Only the loops of `root` call this (invariant F4).
    #[inline(always)]
    pub(crate) fn resume(self) -> Progress {
        // SAFETY: the loops are the only users of this field: the fiber itself, which runs meanwhile, never touches it,
        // and no loop resumes a fiber that is on its way already (F4).
        let coroutine = unsafe { &mut *self.coroutine.get() };
        // SAFETY: the coroutine is initialised from launch to release (F1).
        let coroutine = unsafe { coroutine.assume_init_mut() };
        match coroutine.resume(()) {
            CoroutineResult::Yield(next) => Progress::Suspended(next),
            CoroutineResult::Return(()) => Progress::Finished,
        }
    }

    /// Leaves the CPU: control goes to the loop that resumed it, which runs `next`, or the first of the queue; it comes back
    /// when a loop resumes this fiber.
    ///
    /// The caller is this fiber, and is not main.
    #[inline(always)]
    pub(crate) fn suspend(self, next: Option<Fiber>) {
        // SAFETY: invariant F3: the caller runs on this fiber's stack, inside `body`, so the link is there, and a `Yielder` is
        // what corosensei calls it.
        let yielder = unsafe { &*self.link().cast::<Suspender>() };
        yielder.suspend(next);
    }

    /// What a handle keeps.
    #[inline]
    pub(crate) fn to_ref(self) -> FiberRef {
        let Some(id) = NonZeroU64::new(self.id.get()) else { unreachable!("ids start at 1") };
        FiberRef { block: self.0, id }
    }

    /// Takes the result out, which must be there and of type `T`.
    ///
    /// # Safety
    /// The fiber was launched with this `T`, and is FINISHED.
    pub(crate) unsafe fn take_result<T>(self) -> Option<T> {
        if self.payload_state.get() != PayloadState::Result {
            return None;
        }
        self.payload_state.set(PayloadState::Empty);
        // SAFETY: invariant F5, and the caller's promise on the type.
        Some(unsafe { self.payload.get().cast::<T>().read() })
    }

    /// Drops the closure of a fiber that has not started; its body will return at once. Its destructor runs here.
    pub(crate) fn cancel_unstarted(self) {
        if self.payload_state.get() == PayloadState::Closure {
            self.payload_state.set(PayloadState::Empty);
            // SAFETY: invariant F5: the payload held the F that `drop_payload` was made for, and nobody moves it out
            // any more since the state says so.
            unsafe { (self.drop_payload.get())(self.payload.get()) };
        }
    }

    /// Takes the coroutine of a FINISHED fiber apart, which tells AddressSanitizer.
    #[cfg(feature = "sanitizer")]
    fn unpoison(self) {
        // SAFETY: the fiber is finished, so no loop uses the field, and nobody else ever does.
        let coroutine = unsafe { &*self.coroutine.get() };
        // SAFETY: initialised since launch, and not used again.
        let coroutine = unsafe { coroutine.assume_init_read() };
        let FiberStack { .. } = coroutine.into_stack();
    }

    /// Ends the use of a FINISHED fiber: its result, if still there, is dropped here, by foreign code, and the slot comes
    /// back.
    ///
    /// # Safety
    /// The fiber is FINISHED and nobody holds it any more, except as a [`FiberRef`].
    #[inline]
    pub(crate) unsafe fn dismantle(self) -> Slot {
        // First of all: if the result owns the thread's own handle, that handle finds nobody.
        self.id.set(0);
        if self.payload_state.replace(PayloadState::Empty) == PayloadState::Result && !self.borrows.get() {
            // SAFETY: invariant F5: the payload holds the T that `drop_payload` was made for.
            unsafe { (self.drop_payload.get())(self.payload.get()) };
        }
        self.state.set(State::Pooled);
        // The coroutine is done and owns nothing, since its stack is the slot: it is left as it is. Only AddressSanitizer
        // must hear that the stack will be used anew.
        #[cfg(feature = "sanitizer")]
        self.unpoison();
        if self.named.take() {
            // SAFETY: nobody holds a reference into the cell: every function here that makes one ends with it.
            drop(unsafe { (*self.name.get()).take() });
        }
        if self.awaited.get() {
            // It never ran, so it never told.
            drop_quietly(self.take_awaiter());
        }
        self.assert_neutral();
        self.slot()
    }
}

impl FiberRef {
    /// The fiber, if it has not ended (a FINISHED one with an owner has not).
    #[inline]
    pub(crate) fn get(self) -> Option<Fiber> {
        let id = self.block.as_ptr().cast::<u64>().wrapping_byte_add(offset_of!(ControlBlock, id));
        // SAFETY: invariant A1: as long as this thread's pool exists, which `root::try_root` vouches for, the id
        // of a slot is readable; main's block lives as long.
        let id = unsafe { id.read() };
        (id == self.id.get()).then_some(Fiber(self.block, PhantomData))
    }

    /// The id, also of a fiber that has ended.
    pub(crate) fn id(self) -> u64 {
        self.id.get()
    }

    /// The number of the fiber, and the address of its block as an integer that other OS threads may carry.
    pub(crate) fn to_parts(self) -> (u64, usize) {
        (self.id.get(), self.block.as_ptr().expose_provenance())
    }

    /// The reference that `to_parts` took apart.
    ///
    /// # Safety
    /// The parts come from `to_parts` on this OS thread.
    pub(crate) unsafe fn from_parts((id, block): (u64, usize)) -> Option<FiberRef> {
        Some(FiberRef { block: NonNull::new(ptr::with_exposed_provenance_mut(block))?, id: NonZeroU64::new(id)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_switch_share_the_first_cache_line() {
        if cfg!(not(any(feature = "sanitizer", feature = "monkey"))) {
            assert_eq!(offset_of!(ControlBlock, payload), 64);
            assert_eq!(offset_of!(ControlBlock, small_payload), 128);
            assert_eq!(offset_of!(ControlBlock, reason), 192);
            assert_eq!(offset_of!(ControlBlock, timer), 256);
        }
        assert!(size_of::<ControlBlock>() <= 384, "{}", size_of::<ControlBlock>());
    }
}
