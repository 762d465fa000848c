//! A fiber: one stackful coroutine, and the handles to its control block.
//!
//! `control_block` has the fields, `state` the states and transitions, `payload` the closure and the result.
//!
//! * Invariant fiber-1: a `Fiber` that is dereferenced belongs to a slot between `launch` and release, or is main's.
//!   Upheld by the holders: the run queue, wait lists, wheel entries and the registry of running fibers hold no fiber
//!   past its end, because a fiber leaves all of them before it finishes; handles that may be stale check the id first
//!   ([`FiberRef`]).
//! * Invariant fiber-2: the stack of a fiber is reused or unmapped only after its function returned or unwound. Upheld
//!   by `run_loop`, where release follows the coroutine's return, and by `teardown`, which leaks all other stacks.
//! * Invariant fiber-3: `link_below` leads to the parent link at the base of the fiber's own stack from the first
//!   instruction of its body to the last. Upheld by `body`, and by `fits`, which keeps the payload between link and
//!   block so small that the distance fits.
//! * Invariant fiber-4: a fiber is resumed only by a loop on its own OS thread, and never while its coroutine is
//!   active: running, or suspended in `run_nested` on behalf of the running one. Upheld by `run_loop`: of its loops at
//!   most main's and one deputy's are active. The topmost loop resumes neither main nor the deputy, but returns to
//!   them, and a fiber that a deputy has resumed suspends to that deputy. Nothing here is `Send`.
//! * Invariant fiber-5: all that a PARKED fiber needs of its stack lies above `frames_end() - SWITCH_FRAMES`. Upheld
//!   by the functions that make the running fiber PARKED (`park::leave_cpu`, `cancel::step_aside`): each calls
//!   `note_frames` in the frame from which the fiber suspends, or runs the loop as the deputy; in between only the
//!   runtime's own few functions are called.
//! * Invariant fiber-6: no panic leaves a fiber's own stack. Upheld by `thread::life` and `greenlet::deliver`, which
//!   catch those of closures at the bottom of that stack, and by what they do afterwards, which runs foreign code only
//!   under a catch of its own.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::{offset_of, size_of};
use std::num::NonZeroU64;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use corosensei::{CoroutineResult, Yielder};

use super::budget::{IO_CREDIT, LIGHT};
use super::control_block::ControlBlock;
pub(crate) use super::control_block::ScopeDeadline;
#[cfg(feature = "monkey")]
pub(crate) use super::reason::Foreign;
pub(crate) use super::reason::{Held, Holder, Reason};
use super::stack::Slot;
use super::state::State;
use super::tls_pool::LoadedPointer;
pub(crate) use crate::pure::drops::drop_quietly;
use crate::sys::stack_pointer::stack_pointer;

/// The end of the coroutine that the fiber suspends through.
pub(super) type Suspender = Yielder<(), Option<Fiber>>;

/// The bytes of the stack that lie in the control block: the parent link.
pub(super) const STACK_IN_BLOCK: usize = 16;

/// The most bytes of stack that lie between `note_frames` and the switch: the frames of `switch_out`, `run_nested` and
/// of corosensei's `suspend` and `resume`. Optimised builds inline most of these. Other builds need some hundred bytes
/// for each, and several times that under AddressSanitizer.
const SWITCH_FRAMES: usize = 8192;

/// A live fiber, or main. `Copy`, one word; invariant fiber-1 says where such a value may be kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fiber(NonNull<ControlBlock>, PhantomData<Rc<()>>);

impl std::ops::Deref for Fiber {
    type Target = ControlBlock;
    #[inline(always)]
    fn deref(&self) -> &ControlBlock {
        // SAFETY: invariant fiber-1, upheld by the holder of this value: the block is initialised and mapped.
        unsafe { self.0.as_ref() }
    }
}

impl std::fmt::Debug for Fiber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fiber#{}", self.id.get())
    }
}

/// The outcome of one resumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The fiber suspended, and named the fiber that runs next, or none for the first one of the queue.
    Suspended(Option<Fiber>),
    /// The function returned; the fiber must not be resumed again.
    Finished,
}

/// A reference to a fiber that may have ended: the address of a block and the id it had. Always safe to resolve
/// (invariant pool-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FiberRef {
    /// The address of the control block, also after the end of the fiber.
    block: NonNull<ControlBlock>,
    /// The id that the block has as long as the fiber lives.
    id: NonZeroU64,
}

impl Fiber {
    /// Returns main's fiber, for the block that `root` owns.
    ///
    /// # Safety
    /// The block stays where it is until no `Fiber` of it is used any more.
    pub(crate) unsafe fn of_main(block: NonNull<ControlBlock>) -> Fiber {
        Fiber(block, PhantomData)
    }

    /// Returns the address of the block, which `of_block` takes back.
    #[inline(always)]
    pub(crate) fn to_block(self) -> NonNull<ControlBlock> {
        self.0
    }

    /// Returns the fiber with the control block `block`.
    ///
    /// # Safety
    /// `block` comes from `to_block`, and the place that keeps `block` is a holder in the sense of invariant fiber-1.
    #[inline(always)]
    pub(crate) unsafe fn of_block(block: NonNull<ControlBlock>) -> Fiber {
        Fiber(block, PhantomData)
    }

    /// Returns the fiber in `slot`, if one is live there.
    ///
    /// # Safety
    /// The slot was handed out by a pool that still exists.
    pub(crate) unsafe fn in_slot(slot: Slot) -> Option<Fiber> {
        let block = slot.block_at(size_of::<ControlBlock>());
        // SAFETY: the caller's promise.
        match unsafe { state_of(block) } {
            // No fiber was launched here, or the last one has been dismantled.
            State::Unused | State::Pooled => None,
            _ => Some(Fiber(block.cast(), PhantomData)),
        }
    }

    /// Returns a reference for a handle, which may outlive the fiber.
    #[inline]
    pub(crate) fn to_ref(self) -> FiberRef {
        let Some(id) = NonZeroU64::new(self.id.get()) else { unreachable!("ids start at 1") };
        FiberRef { block: self.0, id }
    }

    /// Runs the fiber until it suspends or ends. Only `run_loop` calls this (invariant fiber-4).
    #[inline(always)]
    pub(crate) fn resume(self, loaded: &LoadedPointer) -> Progress {
        // SAFETY: only the loops use this field: the running fiber itself never does, and no loop resumes an
        // active coroutine (fiber-4).
        let coroutine = unsafe { &mut *self.coroutine.get() };
        // SAFETY: the coroutine is initialised from launch to release (fiber-1).
        let coroutine = unsafe { coroutine.assume_init_mut() };
        // Under the fiber's own thread pointer (tls-pool-1).
        loaded.load(self.block.get());
        match coroutine.resume(()) {
            CoroutineResult::Yield(next) => Progress::Suspended(next),
            CoroutineResult::Return(()) => Progress::Finished,
        }
    }

    /// Leaves the CPU: control goes to the loop that resumed this fiber. The loop runs `next`, or the first fiber of
    /// the queue. The call returns when a loop resumes this fiber.
    ///
    /// The caller is this fiber, and is not main.
    #[inline(always)]
    pub(crate) fn suspend(self, next: Option<Fiber>) {
        // SAFETY: invariant fiber-3: the caller runs on this fiber's stack, inside `body`, so the link is there, and
        // it is what corosensei calls a `Yielder`.
        let yielder = unsafe { &*self.link().cast::<Suspender>() };
        yielder.suspend(next);
    }

    /// Returns the address of the parent link, once the fiber has started. The address may lie outside of the block,
    /// so it is not derived from a reference to the block.
    #[inline(always)]
    pub(super) fn link(self) -> *const u8 {
        self.0.as_ptr().cast::<u8>().wrapping_sub(16 * usize::from(self.link_below.get()))
    }

    /// Returns the address at which the frames begin: everything below is the stack.
    pub(crate) fn stack_base(self) -> usize {
        self.link().addr() + STACK_IN_BLOCK
    }

    /// Returns how many bytes of frames a PARKED fiber has, without those of the switch itself (invariant fiber-5).
    pub(crate) fn stack_used(self) -> usize {
        self.stack_base().saturating_sub(self.frames_end())
    }

    /// Returns how many bytes of frames the running fiber has.
    pub(crate) fn stack_used_now(self) -> usize {
        self.stack_base().saturating_sub(stack_pointer())
    }

    /// Reports whether the fiber waits for IO after it has done much IO without waiting.
    pub(crate) fn is_heavy(self) -> bool {
        // A waiting fiber keeps the credit that it has not used; a new fiber has more than the full credit.
        self.io_credit.get() < IO_CREDIT - LIGHT && matches!(self.reason.get(), Reason::Read(_) | Reason::Write(_))
    }

    /// Returns the addresses among which the frames of a suspended fiber lie; an empty range if the fiber has not run,
    /// or is main. Exact after a park or a yield. The end of the frames of a SWITCHED fiber is not known, so the range
    /// is its whole stack.
    #[cfg(feature = "monkey")]
    pub(crate) fn frames(self) -> std::ops::Range<usize> {
        let top = self.stack_base();
        match self.state.get() {
            State::Parked | State::Runnable | State::Delivered if self.has_frames() => self.frames_end()..top,
            // An explicit switch does not note where its frames end.
            State::Switched => self.slot().stack_low()..top,
            _ => top..top,
        }
    }
}

impl ControlBlock {
    /// Notes where the frames of the running fiber end, for `prefetch_frames` and `unused_below`. Called on the way
    /// into the run queue and before a park (invariant fiber-5).
    #[inline(always)]
    pub(crate) fn note_frames(&self) {
        // A slot is 4 GiB at most. Main's stack is no slot, and there the number means nothing.
        self.frames_below.set(ptr::from_ref(self).addr().wrapping_sub(stack_pointer()) as u32);
        #[cfg(feature = "monkey")]
        self.frames_at.set(stack_pointer());
    }

    /// Returns where the frames end, if the fiber `has_frames`.
    #[inline(always)]
    pub(super) fn frames_end(&self) -> usize {
        ptr::from_ref(self).addr() - self.frames_below.get() as usize
    }

    /// Reports whether the fiber has been on the CPU, and so has frames worth prefetching.
    #[inline(always)]
    pub(crate) fn has_frames(&self) -> bool {
        self.frames_below.get() != 0
    }

    /// Returns the address below which nothing of the stack is needed, for a PARKED fiber (invariant fiber-5).
    pub(crate) fn unused_below(&self) -> usize {
        debug_assert_eq!(self.state.get(), State::Parked);
        self.frames_end() - SWITCH_FRAMES
    }

    /// Returns where the frames of main end while main is parked. The start of the frames is not known.
    #[cfg(feature = "monkey")]
    pub(crate) fn frames_of_main(&self) -> Option<usize> {
        (self.state.get() == State::Parked && self.frames_at.get() != 0).then(|| self.frames_at.get())
    }
}

/// Returns the state in the control block at `block`, or `Unused` if none was ever written there (invariant pool-1).
///
/// # Safety
/// The block belongs to a slot of a pool that still exists.
#[inline(always)]
pub(super) unsafe fn state_of(block: NonNull<()>) -> State {
    let state = block.as_ptr().cast::<State>().wrapping_byte_add(offset_of!(ControlBlock, state));
    // SAFETY: invariant pool-1: the state is readable, and zero pages read as Unused.
    unsafe { state.read() }
}

impl FiberRef {
    /// Returns the fiber, if it has not ended. A FINISHED fiber with an owner has not ended.
    #[inline]
    pub(crate) fn get(self) -> Option<Fiber> {
        // Only the id is read: the rest of the block may belong to another fiber by now.
        let id = self.block.as_ptr().cast::<u64>().wrapping_byte_add(offset_of!(ControlBlock, id));
        // SAFETY: invariant pool-1: as long as this thread's pool exists, which `root::try_root` vouches for, the id
        // of a slot is readable; main's block lives as long.
        let id = unsafe { id.read() };
        (id == self.id.get()).then_some(Fiber(self.block, PhantomData))
    }

    /// Returns the id, also of a fiber that has ended.
    pub(crate) fn id(self) -> u64 {
        self.id.get()
    }

    /// Returns the id, and the address of the block as an integer that other OS threads may carry.
    pub(crate) fn to_parts(self) -> (u64, usize) {
        (self.id.get(), self.block.as_ptr().expose_provenance())
    }

    /// Returns the reference that `to_parts` took apart.
    ///
    /// # Safety
    /// The parts come from `to_parts` on this OS thread.
    pub(crate) unsafe fn from_parts((id, block): (u64, usize)) -> Option<FiberRef> {
        Some(FiberRef { block: NonNull::new(ptr::with_exposed_provenance_mut(block))?, id: NonZeroU64::new(id)? })
    }
}
