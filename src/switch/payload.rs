//! The payload of a fiber: the closure, then the result. Launching a fiber, running its body, and taking the fiber
//! apart.
//!
//! * Invariant payload-1: the payload holds an `F` until `body` moves the `F` out, and a `T` after the function
//!   returned and until the result is taken or dropped; `payload_state` says which. Upheld by `body`, and by `Packet`,
//!   the only owner of a result.
#![allow(unsafe_code)]

use std::mem::{align_of, offset_of, size_of};
use std::panic::Location;
use std::ptr;

use super::control_block::{ControlBlock, Coro, PayloadState, SmallPayload, drop_in_place};
use super::extras::Life;
use super::fiber::{Fiber, STACK_IN_BLOCK, Suspender, state_of};
use super::stack::{FiberStack, Slot};
use super::state::State;
use crate::pure::drops::drop_quietly;

/// The kind of a fiber that is launched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    /// Whether a `Packet` will own the result.
    pub(crate) owned: bool,
    /// Whether the fiber is a green thread; see [`ControlBlock::green_thread`].
    pub(crate) green_thread: bool,
    /// Whether the payload may borrow; see [`ControlBlock::borrows`].
    pub(crate) borrows: bool,
}

/// The size up to which closures lie in the slot; larger ones belong in a `Box` (see `packet`).
pub(crate) const MAX_INLINE: usize = 1024;

/// The most bytes of a payload with its alignment: the parent link below the payload is at most 16 x 65 535 bytes from
/// the block.
const MAX_PAYLOAD: usize = 1 << 19;

/// Reports whether a closure and a result of these types fit into a slot of `1 << shift` bytes and leave most of the
/// slot free.
pub(crate) fn fits<F, T>(shift: u8) -> bool {
    let payload = size_of::<F>().max(size_of::<T>()) + align_of::<F>().max(align_of::<T>());
    payload <= MAX_PAYLOAD.min(Slot::stack_size(shift) / 4)
}

/// Puts a fiber that will run `f` into the slot. The fiber is RUNNABLE and in no queue yet.
///
/// # Safety
/// The slot is free and its guard is in place; `fits::<F, T>` holds; `f` does not unwind; whatever `F` and `T` borrow
/// outlives the fiber's end and the taking of its result.
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
        // SAFETY: the block lies in the slot (stack-2), is aligned, and holds nothing that would need dropping.
        unsafe { block.cast().write(ControlBlock::blank(slot.shift, slot.colour(), spawned_at)) };
    }
    // SAFETY: the block was just initialised, and the fiber is live from here on (fiber-1).
    let fiber = unsafe { Fiber::of_block(block.cast()) };
    // Closure and result share one place: inside the block, or below it, where the stack then begins.
    let size = size_of::<F>().max(size_of::<T>());
    let align = align_of::<F>().max(align_of::<T>()).max(16);
    let start = block.as_ptr().cast::<u8>();
    let (payload, base) = if size <= size_of::<SmallPayload>() && align <= align_of::<SmallPayload>() {
        (start.wrapping_add(offset_of!(ControlBlock, small_payload)), start.addr() + STACK_IN_BLOCK)
    } else {
        let payload = start.map_addr(|start| (start - size) & !(align - 1));
        (payload, payload.addr())
    };
    // SAFETY: the payload area is inside the slot by `fits`, aligned for F, and unused, since the slot is free.
    unsafe { payload.cast::<F>().write(f) };
    let coroutine = Coro::with_stack(FiberStack::new(slot, base), move |yielder, ()| {
        body::<F, T>(fiber, yielder);
    });
    // SAFETY: the slot is free, so nothing else refers to its coroutine.
    unsafe { &mut *fiber.coroutine.get() }.write(coroutine);
    // Lines 0 to 2 of the block; the other fields are neutral (see `ControlBlock`).
    fiber.id.set(id);
    fiber.pending.reset();
    fiber.state.set_launched();
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

/// Runs the closure on the fiber's stack and stores the result. The first function of this crate on every fiber's
/// stack: corosensei's entry functions, and the closure that `launch` gives to corosensei, lie above.
fn body<F, T>(fiber: Fiber, yielder: &Suspender)
where
    F: FnOnce(Fiber) -> T,
{
    // No bits are lost: both are multiples of 16, and `fits` limits what lies between them.
    fiber.link_below.set(((fiber.to_block().addr().get() - ptr::from_ref(yielder).addr()) / 16) as u16);
    if fiber.payload_state.get() != PayloadState::Closure {
        // Cancelled before the start.
        fiber.drop_extras();
        return;
    }
    // SAFETY: invariant payload-1: `launch` wrote an F here, and this is the only place that moves it out.
    let f = unsafe { fiber.payload.get().cast::<F>().read() };
    fiber.payload_state.set(PayloadState::Empty);
    let result = f(fiber);
    if !fiber.owned.get() {
        // The result is not wanted. Its destructor is foreign code, and belongs on this stack, not on the one of the
        // loop.
        drop_quietly(result);
        return;
    }
    // SAFETY: the payload is sized and aligned for T as well, and holds nothing since F was moved out.
    unsafe { fiber.payload.get().cast::<T>().write(result) };
    fiber.drop_payload.set(drop_in_place::<T>);
    fiber.payload_state.set(PayloadState::Result);
}

impl Fiber {
    /// Reports whether the closure has not been called yet.
    pub(crate) fn is_unstarted(self) -> bool {
        self.payload_state.get() == PayloadState::Closure
    }

    /// Reports whether the closure and the result may borrow from a stack.
    pub(crate) fn borrows(self) -> bool {
        self.borrows.get()
    }

    /// Takes the result, or returns `None` if the result was taken before.
    ///
    /// # Safety
    /// The fiber was launched with this `T`, and is FINISHED.
    pub(crate) unsafe fn take_result<T>(self) -> Option<T> {
        if self.payload_state.get() != PayloadState::Result {
            return None;
        }
        self.payload_state.set(PayloadState::Empty);
        // SAFETY: invariant payload-1, and the caller's promise on the type.
        Some(unsafe { self.payload.get().cast::<T>().read() })
    }

    /// Drops the closure of a fiber that has not started, so that the body will return at once. The closure's
    /// destructor runs here.
    pub(crate) fn cancel_unstarted(self) {
        if self.payload_state.get() == PayloadState::Closure {
            self.payload_state.set(PayloadState::Empty);
            // SAFETY: invariant payload-1: the payload held the F that `drop_payload` was made for, and the F is not
            // moved out any more, since the state says so.
            unsafe { (self.drop_payload.get())(self.payload.get()) };
        }
    }

    /// Takes the coroutine of a FINISHED fiber apart, which tells AddressSanitizer that the stack is free.
    #[cfg(feature = "sanitizer")]
    fn unpoison(self) {
        // SAFETY: the fiber is finished, so no loop uses the field any more.
        let coroutine = unsafe { &*self.coroutine.get() };
        // SAFETY: initialised since launch, and not used again.
        let coroutine = unsafe { coroutine.assume_init_read() };
        let FiberStack { .. } = coroutine.into_stack();
    }

    /// Ends the use of a FINISHED fiber, and returns the slot. A result that is still there is dropped here, which
    /// runs foreign code.
    ///
    /// # Safety
    /// The fiber is FINISHED and no [`Fiber`] of it is used any more; a `FiberRef` may be.
    #[inline]
    pub(crate) unsafe fn dismantle(self) -> Slot {
        // The id goes first: if the result owns the thread's own handle, that handle must not resolve.
        self.id.set(0);
        if self.payload_state.replace(PayloadState::Empty) == PayloadState::Result && !self.borrows.get() {
            // SAFETY: invariant payload-1: the payload holds the T that `drop_payload` was made for.
            unsafe { (self.drop_payload.get())(self.payload.get()) };
        }
        self.state.set_pooled();
        // The coroutine has returned and owns nothing, since the slot is its stack, so the coroutine is not dropped.
        // Only AddressSanitizer must be told that the stack will be used anew.
        #[cfg(feature = "sanitizer")]
        self.unpoison();
        if self.named.take() {
            // SAFETY: no reference into the cell exists: each function that makes one ends with it (fiber-1).
            drop(unsafe { (*self.name.get()).take() });
        }
        if self.awaited.get() {
            // The body never ran, and so did not wake the awaiter.
            drop_quietly(self.take_awaiter());
        }
        self.assert_neutral();
        self.slot()
    }
}
