//! The packet: the owner of a green thread's result, which lies in the thread's stack slot.
//!
//! The slot of a finished thread is kept for the packet: taking the result or dropping the packet frees the slot.
//! Dropping a packet while the thread runs detaches the thread, which then drops the result itself, and the slot is
//! free at once.
//!
//! * Invariant packet-1: a `Packet<T>` exists only for a fiber launched with result type `T`, one packet for one fiber.
//!   Upheld by `launch_as` below, the only function that makes one.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::panic::Location;

use super::fiber::{Fiber, FiberRef};
use super::payload::{self, Role};
use super::root::{Root, existing_root, try_root};
use super::state::State;
use crate::pure::drops::drop_safely;

/// The owner of a green thread's result.
#[derive(Debug)]
pub(crate) struct Packet<T> {
    /// The thread. An owned slot is not reused, so the reference is never stale while the root lives.
    fiber: FiberRef,
    /// The type of the result (packet-1).
    result: PhantomData<fn() -> T>,
}

/// Launches a green thread that runs `f` and keeps the result for the packet. RUNNABLE, but in no queue yet.
///
/// # Errors
/// If there is no memory or address space for the stack; `InvalidInput` if the closure or result is too large for the
/// stack.
#[inline(always)]
pub(crate) fn launch<F, T>(
    root: &Root,
    shift: u8,
    spawned_at: &'static Location<'static>,
    f: F,
) -> io::Result<(Packet<T>, Fiber)>
where
    F: FnOnce(Fiber) -> T + 'static,
    T: 'static,
{
    let role = Role { owned: true, green_thread: true, borrows: false };
    // SAFETY: 'static closures and results borrow nothing that could end.
    unsafe { launch_as(root, shift, role, spawned_at, f) }
}

/// Launches a green thread as [`launch`] does, but without `'static`.
///
/// # Safety
/// Everything that `F` and `T` borrow must live until the fiber has ended and the packet is gone. `f` must not unwind.
#[inline(always)]
pub(crate) unsafe fn launch_borrowing<F, T>(
    root: &Root,
    shift: u8,
    spawned_at: &'static Location<'static>,
    f: F,
) -> io::Result<(Packet<T>, Fiber)>
where
    F: FnOnce(Fiber) -> T,
{
    let role = Role { owned: true, green_thread: true, borrows: true };
    // SAFETY: the caller's promise.
    unsafe { launch_as(root, shift, role, spawned_at, f) }
}

/// Launches a fiber with a packet. A closure too large to lie in the slot goes into a box.
///
/// # Safety
/// As [`launch_borrowing`].
#[inline(always)]
unsafe fn launch_as<F, T>(
    root: &Root,
    shift: u8,
    role: Role,
    spawned_at: &'static Location<'static>,
    f: F,
) -> io::Result<(Packet<T>, Fiber)>
where
    F: FnOnce(Fiber) -> T,
{
    let id = root.fresh_id();
    // The closure lies in the slot, or in a box in the slot; which of the two is known at compile time.
    let fiber = if const { size_of::<F>() <= payload::MAX_INLINE } {
        if !payload::fits::<F, T>(shift) {
            return Err(too_large());
        }
        // SAFETY: `fits` holds; the rest is the caller's promise.
        unsafe { root.launch(shift, id, role, spawned_at, f) }?
    } else {
        if !payload::fits::<Box<F>, T>(shift) {
            return Err(too_large());
        }
        let f = Box::new(f);
        // SAFETY: as above.
        unsafe { root.launch(shift, id, role, spawned_at, f) }?
    };
    Ok((Packet { fiber: fiber.to_ref(), result: PhantomData }, fiber))
}

/// Launches a fiber that is no green thread: no thread waits for the end, and there is no result.
///
/// # Errors
/// As [`launch`].
pub(crate) fn launch_unowned<F>(
    root: &Root,
    shift: u8,
    id: u64,
    made_at: &'static Location<'static>,
    f: F,
) -> io::Result<Fiber>
where
    F: FnOnce(Fiber) + 'static,
{
    // Such a closure is never boxed, so it must fit into the slot.
    if !payload::fits::<F, ()>(shift) {
        return Err(too_large());
    }
    let role = Role { owned: false, green_thread: false, borrows: false };
    // SAFETY: `fits` holds, a 'static closure borrows nothing that could end, and callers catch every panic.
    unsafe { root.launch(shift, id, role, made_at, f) }
}

/// Returns the error for a closure or result that the stack cannot hold.
#[cold]
fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the thread's closure or result, with its alignment, takes more than a quarter of its stack, or more than 512 KiB: \
         give it a larger stack, or a Box",
    )
}

impl<T> Packet<T> {
    /// Returns the thread; `None` when the OS thread's root is gone.
    #[inline]
    pub(crate) fn fiber(&self) -> Option<Fiber> {
        try_root()?.resolve(self.fiber)
    }

    /// Reports whether the thread has finished. The result may have been taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.fiber().is_some_and(|fiber| fiber.state.get() == State::Finished)
    }

    /// Returns the identity of the thread, dead or alive.
    pub(crate) fn fiber_ref(&self) -> FiberRef {
        self.fiber
    }

    /// Takes the result of a thread that has finished and gives the slot back to the pool, in one step. Returns the
    /// packet if there is no result, or not yet.
    #[inline(always)]
    pub(crate) fn take_and_release(self) -> Result<T, Packet<T>> {
        let Some(root) = existing_root() else { return Err(self) };
        let Some(fiber) = root.resolve(self.fiber) else { return Err(self) };
        if fiber.state.get() != State::Finished {
            return Err(self);
        }
        // SAFETY: the thread has finished, and the result is of this type by invariant packet-1.
        let Some(result) = (unsafe { fiber.take_result::<T>() }) else { return Err(self) };
        mem::forget(self);
        root.release(fiber);
        Ok(result)
    }

    /// Takes the result, if the thread has finished.
    #[inline]
    pub(crate) fn take(&self) -> Option<T> {
        let fiber = self.fiber()?;
        if fiber.state.get() != State::Finished {
            return None;
        }
        // SAFETY: the thread has finished, and the result is of this type by invariant packet-1.
        unsafe { fiber.take_result::<T>() }
    }
}

impl<T> Drop for Packet<T> {
    #[inline]
    fn drop(&mut self) {
        // Without a root the memory is gone, and the result with it.
        let Some(root) = try_root() else { return };
        let Some(fiber) = root.resolve(self.fiber) else { return };
        // A thread that runs is detached by this; a finished one has left its slot to the packet.
        fiber.owned.set(false);
        if fiber.state.get() == State::Finished {
            let result = self.take();
            root.release(fiber);
            // The result is dropped last, since the destructor is foreign code, which may panic or suspend.
            drop_safely(result);
        }
    }
}
