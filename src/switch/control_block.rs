//! The control block: all that the runtime knows of one fiber, at the end of the fiber's stack slot.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};
use std::task::Waker;

use corosensei::Coroutine;

use super::extras::{Ending, Extras, Life};
use super::fiber::Fiber;
use super::pending::PendingFlags;
use super::reason::Reason;
use super::stack::{FiberStack, MIN_SHIFT, Slot};
use super::state::{State, StateCell};
use super::tls_pool::TlsBlock;
use super::wait_list::WaitList;
use super::wait_node::Link;
use crate::pure::drops::drop_quietly;
use crate::pure::timer_wheel::TimerKey;

/// The coroutine of every fiber. Values do not pass through it. A suspension passes one word, the fiber that runs
/// next, and this word travels in a register: through memory it would cost a store and a dependent load in every
/// switch.
pub(super) type Coro = Coroutine<(), Option<Fiber>, (), FiberStack>;

/// The deadline of the `timeout` scope that expires first, among the open scopes of a fiber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScopeDeadline {
    /// The deadline in monotonic nanoseconds; `u64::MAX` when no scope is open.
    pub(crate) at: u64,
    /// The number of the scope that set the deadline.
    pub(crate) scope: u64,
}

impl ScopeDeadline {
    /// The value when no scope is open.
    pub(crate) const NONE: ScopeDeadline = ScopeDeadline { at: u64::MAX, scope: 0 };
}

/// Room for a small closure or result, inside the control block.
pub(super) type SmallPayload = [u128; 3];

/// What the payload holds (invariant payload-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PayloadState {
    /// The payload holds nothing.
    Empty = 0,
    /// The payload holds the closure, which has not been called.
    Closure,
    /// The payload holds the result, which has not been taken.
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
/// A spawn writes lines 0 to 2 only. The other fields are *neutral* whenever the slot is in the pool: no timer, no
/// scope, no greenlet, no name, in no list. Code that sets one of these fields takes the value back before the fiber
/// ends. All fields are `Cell`s, because only one OS thread ever sees them.
#[repr(C, align(64))]
pub(crate) struct ControlBlock {
    // Line 0: every switch.
    /// The topmost bytes of the stack, where corosensei keeps its parent link, unless a large payload lies between
    /// stack and block. The field is part of the stack (invariant stack-3), and is here only so that a switch touches
    /// one cache line less.
    pub(super) top_of_stack: UnsafeCell<MaybeUninit<[u64; 2]>>,
    /// The coroutine: initialised from launch to release, never for main.
    pub(super) coroutine: UnsafeCell<MaybeUninit<Coro>>,
    /// The TLS block that the fiber runs with; none for the thread-locals of the OS thread.
    pub(super) block: Cell<Option<TlsBlock>>,
    /// The distance from this block's start down to the end of the frames at the latest yield or park, without the few
    /// words of the switch itself; 0 before the first. Exact only while the fiber is PARKED (invariant fiber-5).
    pub(super) frames_below: Cell<u32>,
    /// The distance from this block's start down to the parent link, in units of 16 bytes. `suspend` finds the
    /// coroutine by it (invariant fiber-3).
    pub(super) link_below: Cell<u16>,
    /// The flags that send a suspension down the slow path.
    pub(crate) pending: PendingFlags,
    /// The state of the fiber. Reads as UNUSED before the slot's first use.
    pub(crate) state: StateCell,

    // Line 1: spawning, running to the end, parking, joining.
    /// The address of the closure, then of the result; null for main.
    pub(super) payload: Cell<*mut u8>,
    /// The function that drops what the payload holds, closure or result.
    pub(super) drop_payload: Cell<unsafe fn(*mut u8)>,
    /// The place in the program where the fiber was spawned.
    pub(super) spawned_at: Cell<&'static Location<'static>>,
    /// The id: unique on this OS thread, never reused, never 0 while the fiber lives. A stale handle is harmless
    /// because of it.
    pub(crate) id: Cell<u64>,
    /// The fibers that wait for the end of this one.
    pub(crate) joiners: WaitList,
    /// Set by a timer that woke this fiber; read and cleared by the wait that armed the timer.
    pub(crate) timed_out: Cell<bool>,
    /// The one permit of `thread::park`.
    pub(crate) permit: Cell<bool>,
    /// Whether the timer wheel holds an entry of the fiber.
    pub(crate) in_wheel: Cell<bool>,
    /// A kill was requested; stays set until the fiber ends.
    pub(crate) killed: Cell<bool>,
    /// Whether a `Packet` exists, for which the slot must wait.
    pub(crate) owned: Cell<bool>,
    /// What the payload holds.
    pub(super) payload_state: Cell<PayloadState>,
    /// Whether this fiber was spawned (a green thread) or made by a greenlet.
    pub(crate) green_thread: Cell<bool>,
    /// Closure and result may borrow from a scope: they are not dropped after the scope has ended.
    pub(super) borrows: Cell<bool>,
    /// Whether `extras` is set, or how the fiber ended; see `extras`.
    pub(crate) life: Cell<Life>,
    /// The size of the slot as a power of two.
    pub(super) shift: u8,
    /// The cache colour of the slot; see `stack`.
    pub(super) colour: u8,

    // Line 2: a small payload, and flags.
    /// The payload, if it is small.
    pub(super) small_payload: UnsafeCell<MaybeUninit<SmallPayload>>,
    /// The number of open shields. Like the next two fields, a count of calls on one stack, which holds fewer than
    /// 2^32 frames.
    pub(crate) shields: Cell<u32>,
    /// The number of open `no_switch` sections.
    pub(crate) no_switch: Cell<u32>,
    /// The number of open `try_scope`s that are to be interrupted.
    pub(crate) cancelled: Cell<u32>,
    /// Whether the fiber is in a wait list.
    pub(super) linked: Cell<bool>,
    /// Whether `name` is set.
    pub(super) named: Cell<bool>,
    /// Whether `awaiter` is set.
    pub(super) awaited: Cell<bool>,
    /// The number of IO calls that may still succeed at once before the fiber must yield.
    pub(crate) io_credit: Cell<u8>,

    // Line 3: every wait.
    /// The reason of the current or the latest wait. Meaningful while the fiber is PARKED or in a wait list;
    /// `waits_for` covers explicit switches as well.
    pub(crate) reason: Cell<Reason>,
    /// The root's clock at the latest park, in monotonic nanoseconds.
    pub(crate) since: Cell<u64>,
    /// The end of the frames as an address, for main: its stack is no slot, and may be further away than
    /// `frames_below` can say.
    #[cfg(feature = "monkey")]
    pub(super) frames_at: Cell<usize>,
    /// The next element of the wait list that the fiber is in.
    pub(super) wait_next: Cell<Option<Link>>,
    /// The previous element of the wait list that the fiber is in.
    pub(crate) wait_prev: Cell<Option<Link>>,
    /// The deadline of the current wait, `u64::MAX` for none. The wheel entry may fire earlier: it is moved lazily.
    pub(crate) deadline: Cell<u64>,
    /// The time at which the wheel entry fires, `u64::MAX` if there is none.
    pub(crate) timer_at: Cell<u64>,

    // Line 4 and on: timers and deadlines, explicit switches, and what few fibers have.
    /// The wheel entry, if there is one; see `hub`.
    pub(crate) timer: Cell<Option<TimerKey>>,
    /// The deadline of the `timeout` scope that expires first.
    pub(crate) scope_deadline: Cell<ScopeDeadline>,
    /// While SWITCHED: the address at which the value is delivered; see `mailbox`.
    pub(super) mailbox: Cell<*const ()>,
    /// While SWITCHED: the id of the greenlet that the fiber switched to.
    pub(super) partner: Cell<u64>,
    /// While SWITCHED: the type of message that the mailbox takes.
    pub(super) mailbox_type: Cell<Option<fn() -> std::any::TypeId>>,
    /// The greenlet of the body that this fiber runs, as `greenlet` keeps it; none for green threads and main.
    pub(super) greenlet: Cell<Option<Rc<dyn Any>>>,
    /// The waker of the task that polls the fiber's handle as a future, to be woken at the end of the fiber.
    pub(super) awaiter: Cell<Option<Waker>>,
    /// The name, if the fiber has one. Shared with the `Thread` handles.
    pub(super) name: UnsafeCell<Option<Arc<str>>>,
    /// Green-local values and end hooks, if there are any (extras-1).
    pub(super) extras: Cell<Option<Box<Extras>>>,
}

/// Drops the `T` at `at`.
///
/// # Safety
/// `at` holds a `T` that is not used again.
pub(super) unsafe fn drop_in_place<T>(at: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { ptr::drop_in_place(at.cast::<T>()) }
}

impl ControlBlock {
    /// Creates a block with neutral fields, for a slot that has none yet.
    #[cold]
    pub(super) fn blank(shift: u8, colour: u8, spawned_at: &'static Location<'static>) -> ControlBlock {
        ControlBlock {
            // The parts of the stack and the payload: written when a fiber is launched.
            coroutine: UnsafeCell::new(MaybeUninit::uninit()),
            top_of_stack: UnsafeCell::new(MaybeUninit::uninit()),
            small_payload: UnsafeCell::new(MaybeUninit::uninit()),
            link_below: Cell::new(0),
            block: Cell::new(None),
            // The state and the flags: no fiber yet.
            id: Cell::new(0),
            pending: PendingFlags::new(),
            state: StateCell::pooled(),
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
            // The wait: in no list, without a deadline.
            wait_next: Cell::new(None),
            wait_prev: Cell::new(None),
            deadline: Cell::new(u64::MAX),
            timer_at: Cell::new(u64::MAX),
            timer: Cell::new(None),
            scope_deadline: Cell::new(ScopeDeadline::NONE),
            // Greenlets, futures and what few fibers have.
            mailbox: Cell::new(ptr::null()),
            mailbox_type: Cell::new(None),
            partner: Cell::new(0),
            greenlet: Cell::new(None),
            awaiter: Cell::new(None),
            name: UnsafeCell::new(None),
            extras: Cell::new(None),
        }
    }

    /// Creates the control block of main, for `root`, which keeps the block at one address until the thread ends.
    pub(crate) fn main(id: u64, name: Option<Arc<str>>) -> ControlBlock {
        let block = ControlBlock::blank(MIN_SHIFT, 0, Location::caller());
        block.id.set(id);
        block.state.reset_main();
        block.named.set(name.is_some());
        ControlBlock { name: UnsafeCell::new(name), ..block }
    }

    /// Returns what the fiber waits for. An explicit switch is so cheap that it stores only its partner, and no
    /// reason.
    pub(crate) fn waits_for(&self) -> Reason {
        if self.state.get() == State::Switched { Reason::Switch(self.partner.get()) } else { self.reason.get() }
    }

    /// Returns the place in the program where the fiber was spawned.
    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at.get()
    }

    /// Reports whether this is main's block.
    pub(crate) fn is_main(&self) -> bool {
        self.payload.get().is_null()
    }

    /// Reports whether the fiber has a TLS block: other thread-locals than the OS thread's.
    #[inline(always)]
    pub(crate) fn has_block(&self) -> bool {
        self.block.get().is_some()
    }

    /// Returns the slot of the fiber, which must not be main.
    pub(crate) fn slot(&self) -> Slot {
        Slot::around(ptr::from_ref(self).addr(), self.shift, self.colour)
    }

    /// Gives a fiber its name. A handle that was made before keeps the name of then.
    pub(crate) fn set_name(&self, name: Arc<str>) {
        // A signal handler reads the name: not while it is half written.
        self.named.set(false);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: no reference into the cell exists: each function here that makes one ends with it (fiber-1).
        let before = unsafe { self.name.get().replace(Some(name)) };
        compiler_fence(Ordering::SeqCst);
        self.named.set(true);
        // A fault in the drop, of which the handler prints the name, finds the new one.
        drop(before);
    }

    /// Returns the name, if the fiber has one.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        if !self.named.get() {
            return None;
        }
        // SAFETY: nothing writes the name meanwhile, since the clone runs no foreign code.
        let name = unsafe { &*self.name.get() };
        name.clone()
    }

    /// Calls `f` with the name, for a signal handler: no reference count is touched.
    pub(crate) fn with_name<R>(&self, f: impl FnOnce(Option<&str>) -> R) -> R {
        if !self.named.get() {
            return f(None);
        }
        // SAFETY: as in `name`; the fiber is live for the whole call, so the string stays.
        let name = unsafe { &*self.name.get() };
        f(name.as_deref())
    }

    /// Registers `waker` to be woken at the end of the fiber, in place of an earlier waker. Returns the earlier waker,
    /// to be dropped by the caller: that is foreign code.
    pub(crate) fn set_awaiter(&self, waker: Waker) -> Option<Waker> {
        self.awaited.set(true);
        self.awaiter.replace(Some(waker))
    }

    /// Reports whether a waker is registered for the end of the fiber.
    #[inline(always)]
    pub(crate) fn has_awaiter(&self) -> bool {
        self.awaited.get()
    }

    /// Reports whether the fiber is in a wait list.
    #[inline(always)]
    pub(crate) fn is_linked(&self) -> bool {
        self.linked.get()
    }

    /// Takes the waker to be woken at the end of the fiber, if there is one.
    pub(crate) fn take_awaiter(&self) -> Option<Waker> {
        self.awaited.set(false);
        self.awaiter.take()
    }

    /// Calls `f` with the extras if there are any. `f` must not run foreign code (extras-1).
    #[inline]
    pub(crate) fn with_extras<R>(&self, f: impl FnOnce(&mut Extras) -> R) -> Option<R> {
        if self.life.get() != Life::WithExtras {
            return None;
        }
        // Out of the cell while `f` runs, so that nothing else can borrow the extras.
        let mut extras = self.extras.take()?;
        let result = f(&mut extras);
        self.extras.set(Some(extras));
        Some(result)
    }

    /// Calls `f` with the extras, which are made if need be; none if the fiber has ended. `f` must not run foreign
    /// code.
    pub(crate) fn with_extras_made<R>(&self, f: impl FnOnce(&mut Extras) -> R) -> Option<R> {
        // The first use makes the extras; a fiber that has ended gets none.
        if self.life.get() == Life::Plain {
            self.adopt(Box::default());
        }
        self.with_extras(f)
    }

    /// Gives the fiber its extras. The fiber must have none.
    pub(crate) fn adopt(&self, extras: Box<Extras>) {
        self.life.set(Life::WithExtras);
        self.extras.set(Some(extras));
    }

    /// Takes the extras away for ever, and notes how the fiber has ended.
    pub(crate) fn end_with(&self, ending: Ending) -> Option<Box<Extras>> {
        self.life.set(Life::Ended(ending));
        self.extras.take()
    }

    /// Destroys the values of green-local keys, the youngest first; destructors may make others meanwhile. `failed`
    /// gets the payloads that they unwind with. The destructors are foreign code, and run here.
    #[cold]
    pub(crate) fn drop_locals(&self, mut failed: impl FnMut(Box<dyn Any + Send>)) {
        // One at a time, out of the list before its destructor runs: the destructor may use other keys.
        while let Some(value) = self.with_extras(Extras::pop_local).flatten() {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
                failed(payload);
            }
        }
    }

    /// Gives main a new life, as if it had never had green-local values or end hooks. Destructors run here.
    pub(crate) fn restart_extras(&self) {
        if self.life.get() == Life::WithExtras {
            self.drop_locals(drop_quietly);
            drop_quietly(self.end_with(Ending::Returned));
        }
        self.life.set(Life::Plain);
    }

    /// Ends the extras of a fiber without reporting the end to any hook. Destructors run here.
    pub(crate) fn drop_extras(&self) {
        if self.life.get() == Life::WithExtras {
            self.drop_locals(drop_quietly);
        }
        drop_quietly(self.end_with(Ending::Killed));
    }

    /// Asserts in debug builds that every field that `launch` does not write is neutral.
    pub(super) fn assert_neutral(&self) {
        // In no list, in no wheel, no scope, no greenlet, no name.
        debug_assert!(self.joiners.is_empty(), "a fiber waits for the end of one that is gone");
        debug_assert!(!self.linked.get() && self.wait_next.get().is_none() && self.wait_prev.get().is_none());
        debug_assert!(!self.in_wheel.get() && self.timer.get().is_none() && self.timer_at.get() == u64::MAX);
        debug_assert_eq!(self.deadline.get(), u64::MAX);
        debug_assert_eq!(self.scope_deadline.get(), ScopeDeadline::NONE);
        debug_assert_eq!((self.shields.get(), self.no_switch.get(), self.cancelled.get()), (0, 0, 0));
        debug_assert!(self.extras.take().is_none(), "an end hook was not called");
        debug_assert!(self.block.get().is_none(), "the block was not given back");
        debug_assert!(self.greenlet.take().is_none() && !self.named.get() && !self.awaited.get());
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

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

    #[test]
    fn a_debugger_finds_what_it_reads_without_types() {
        // A reason: its number in the first byte, its values where `debugger` says.
        let number = |reason: Reason| {
            // SAFETY: `repr(u8)`: the first byte is the number.
            unsafe { ptr::from_ref(&reason).cast::<u8>().read() }
        };
        let numbers = [
            (0, Reason::Park),
            (1, Reason::Sleep),
            (2, Reason::Join(1)),
            (3, Reason::Scope),
            (4, Reason::Switch(1)),
            (5, Reason::Read(1)),
            (6, Reason::Write(1)),
            (7, Reason::Lock("")),
            (8, Reason::Held(super::super::reason::Held::Once, 1)),
            (9, Reason::Receive),
            (10, Reason::Send),
            (11, Reason::Event("")),
            (12, Reason::Job("")),
            (13, Reason::Remote("")),
        ];
        for (expected, reason) in numbers {
            assert_eq!(number(reason), expected, "{reason:?}");
        }
        let event = Reason::Event("ab");
        // SAFETY: `repr(u8)`: the fields follow the number, each aligned.
        let words = unsafe { ptr::from_ref(&event).cast::<[usize; 3]>().read() };
        assert_eq!(words[1..], ["ab".as_ptr().addr(), 2]);
        // A name: the address of two counts with the text behind them, and the length of the text.
        let name: Option<Arc<str>> = Some(Arc::from("name"));
        // SAFETY: two words, the address and the length.
        let words = unsafe { ptr::from_ref(&name).cast::<[usize; 2]>().read() };
        assert_eq!(words, [name.as_deref().map_or(0, |text| text.as_ptr().addr()) - 16, 4]);
        // A place: address and length of the file's name, which may count the zero behind it; line and column.
        let place = Location::caller();
        assert_eq!(size_of::<Location<'_>>(), 24);
        // SAFETY: so large, and aligned as its reference.
        let words = unsafe { ptr::from_ref(place).cast::<[u64; 3]>().read() };
        assert_eq!(words[0] as usize, place.file().as_ptr().addr());
        assert!((0..2).contains(&(words[1] as usize - place.file().len())));
        assert_eq!(words[2], u64::from(place.line()) | u64::from(place.column()) << 32);
    }
}
