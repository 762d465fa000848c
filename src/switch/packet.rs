//! A packet: the owner of a green thread's result, which lies in the thread's stack slot.
//!
//! The slot of a finished thread waits for its packet: taking the result or dropping the packet frees it. A packet
//! dropped while the thread runs detaches it; then the thread drops its own result and the slot is free at once.
//!
//! * Invariant P1: a `Packet<T>` exists only for a fiber launched with result type `T`, one packet for one fiber.
//!   Upheld by `launch` below, the only maker.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::panic::Location;

use super::fiber::{self, Fiber, FiberRef, Role, State};
use super::root::{Root, existing_root, try_root};

/// See the file.
#[derive(Debug)]
pub(crate) struct Packet<T> {
    /// The thread; an owned slot is not reused, so this is never stale while the root lives.
    fiber: FiberRef,
    /// The result's type (invariant P1).
    result: PhantomData<fn() -> T>,
}

/// Launches a green thread that runs `f` and keeps its result for the packet. READY, but in no queue yet.
///
/// # Errors
/// No memory or address space for the stack; or `InvalidInput` if the closure or result is too large for it.
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

/// [`launch`] without `'static`.
///
/// # Safety
/// Whatever `F` and `T` borrow lives until the fiber has ended and the packet is gone. `f` must not unwind.
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

/// The common part: a closure too large for the slot goes into a box.
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
    let fiber = if const { size_of::<F>() <= fiber::MAX_INLINE } {
        if !fiber::fits::<F, T>(shift) {
            return Err(too_large());
        }
        // SAFETY: `fits` holds; the rest is the caller's promise.
        unsafe { root.launch(shift, id, role, spawned_at, f) }?
    } else {
        if !fiber::fits::<Box<F>, T>(shift) {
            return Err(too_large());
        }
        let f = Box::new(f);
        // SAFETY: as above.
        unsafe { root.launch(shift, id, role, spawned_at, f) }?
    };
    Ok((Packet { fiber: fiber.to_ref(), result: PhantomData }, fiber))
}

/// Launches a fiber, not a green thread, whose end nobody waits for and which has no result.
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
    if !fiber::fits::<F, ()>(shift) {
        return Err(too_large());
    }
    let role = Role { owned: false, green_thread: false, borrows: false };
    // SAFETY: `fits` holds, a 'static closure borrows nothing that could end, and callers catch every panic.
    unsafe { root.launch(shift, id, role, made_at, f) }
}

/// The error for a closure or result that the stack cannot hold.
#[cold]
fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the thread's closure or result, with its alignment, takes more than a quarter of its stack, or more than 512 KiB: \
         give it a larger stack, or a Box",
    )
}

impl<T> Packet<T> {
    /// The thread, until the packet is used up; `None` when the OS thread's root is gone.
    #[inline]
    pub(crate) fn fiber(&self) -> Option<Fiber> {
        try_root()?.resolve(self.fiber)
    }

    /// Whether the thread has finished. Its result may have been taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.fiber().is_some_and(|fiber| fiber.state.get() == State::Finished)
    }

    /// What identifies the thread, dead or alive.
    pub(crate) fn fiber_ref(&self) -> FiberRef {
        self.fiber
    }

    /// The result of a thread that has finished, and its slot back to the pool, in one go. The packet comes back if there
    /// is no result, or not yet.
    #[inline(always)]
    pub(crate) fn take_and_release(self) -> Result<T, Packet<T>> {
        let Some(root) = existing_root() else { return Err(self) };
        let Some(fiber) = root.resolve(self.fiber) else { return Err(self) };
        if fiber.state.get() != State::Finished {
            return Err(self);
        }
        // SAFETY: finished, and of this type by invariant P1.
        let Some(result) = (unsafe { fiber.take_result::<T>() }) else { return Err(self) };
        mem::forget(self);
        root.release(fiber);
        Ok(result)
    }

    /// The result, if the thread has finished.
    #[inline]
    pub(crate) fn take(&self) -> Option<T> {
        let fiber = self.fiber()?;
        if fiber.state.get() != State::Finished {
            return None;
        }
        // SAFETY: finished, and of this type by invariant P1.
        unsafe { fiber.take_result::<T>() }
    }
}

impl<T> Drop for Packet<T> {
    #[inline]
    fn drop(&mut self) {
        // Without a root the memory is gone, and with it the result.
        let Some(root) = try_root() else { return };
        let Some(fiber) = root.resolve(self.fiber) else { return };
        fiber.owned.set(false);
        if fiber.state.get() == State::Finished {
            let result = self.take();
            root.release(fiber);
            // Last, since it is foreign code: it may panic, or suspend.
            drop(result);
        }
    }
}
