//! All blocks of the process, and what outlives one.
//!
//! ```text
//!   first --> | block | Tail | <--> | block | Tail | <--> | block | Tail |         in use, and kept for later use
//! ```
//!
//! A library that is loaded later may have thread-locals in the part of a block that was left free for such
//! (initial-exec). The dynamic linker writes their first values into the blocks of all OS threads; into these,
//! [`Layout::fill`](super::Layout::fill) does. And a forked child has new numbers to write.
//!
//! * Invariant tls-live-1: the list has exactly the blocks between `create` and `destroy`; links and list are touched
//!   by the holder of the lock only. Upheld by [`Live::insert`] and [`Live::remove`].
//! * Invariant tls-live-2: an image that a tail points to stays: images are shared, and one that was replaced is kept
//!   in `replaced` for a thread that may be reading it. Upheld by [`Live::replace_images`].

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::image::Image;
use crate::pure::lock::lock;
use crate::sys::runtime_syscall::runtime_syscall;

/// What this project keeps of a block, behind what is the C library's.
#[repr(C)]
pub(super) struct Tail {
    /// The thread pointer of the OS thread.
    pub(super) os: AtomicUsize,
    /// The thread pointer of the block.
    pub(super) pointer: usize,
    /// The image from which the block was made, or to which it was filled: one count of an [`Arc`].
    image: AtomicPtr<Image>,
    next: Cell<Option<NonNull<Self>>>,
    previous: Cell<Option<NonNull<Self>>>,
}

/// The blocks, and what is common to them.
pub(super) struct Live {
    first: Option<NonNull<Tail>>,
    /// The image of the modules that were loaded when a block was last made.
    pub(super) image: Option<Arc<Image>>,
    /// Images that were replaced in tails.
    replaced: Vec<Arc<Image>>,
    /// States of the kernel's random numbers that blocks had which were destroyed: the C library, which gave them, has
    /// no function that takes one back.
    pub(super) random: Vec<usize>,
}

// SAFETY: Invariant tls-live-1: what the pointers lead to is touched under the lock, by whichever OS thread.
unsafe impl Send for Live {}

static LIVE: Mutex<Live> = Mutex::new(Live { first: None, image: None, replaced: Vec::new(), random: Vec::new() });

/// Waits for the lock of the list of all blocks. Lets no other green thread run meanwhile: the caller may be the
/// switch.
pub(super) fn live() -> MutexGuard<'static, Live> {
    let _runtime = runtime_syscall();
    lock(&LIVE)
}

impl Tail {
    /// Returns the tail of a new block, with a count of the image.
    pub(super) fn new(pointer: usize, os: usize, image: Arc<Image>) -> Self {
        let image = AtomicPtr::new(Arc::into_raw(image).cast_mut());
        Self { os: AtomicUsize::new(os), pointer, image, next: Cell::new(None), previous: Cell::new(None) }
    }

    /// Returns the image of the block.
    #[inline]
    pub(super) fn image(&self) -> &Image {
        // Acquire: pairs with the Release in `replace_images`, so the image is whole.
        let image = self.image.load(Ordering::Acquire);
        // SAFETY: Invariant tls-live-2.
        unsafe { &*image }
    }

    /// Gives up the count of the image.
    ///
    /// # Safety
    ///
    /// The block is off the list, and the tail is not used again.
    pub(super) unsafe fn drop_image(&self) {
        // Relaxed: off the list, nothing replaces the image any more; the lock ordered what did.
        let image = self.image.load(Ordering::Relaxed);
        // SAFETY: the tail's own count, which is given up once.
        drop(unsafe { Arc::from_raw(image) });
    }
}

impl Live {
    /// Puts a block on the list.
    ///
    /// # Safety
    ///
    /// A tail that is on no list, and stays where it is until it is removed.
    pub(super) unsafe fn insert(&mut self, tail: NonNull<Tail>) {
        // SAFETY: the caller's promise.
        unsafe { tail.as_ref() }.next.set(self.first);
        if let Some(first) = self.first {
            // SAFETY: Invariant tls-live-1.
            unsafe { first.as_ref() }.previous.set(Some(tail));
        }
        self.first = Some(tail);
    }

    /// Takes a block off the list.
    ///
    /// # Safety
    ///
    /// A tail that is on the list.
    pub(super) unsafe fn remove(&mut self, tail: NonNull<Tail>) {
        // SAFETY: the caller's promise.
        let tail = unsafe { tail.as_ref() };
        let (next, previous) = (tail.next.get(), tail.previous.get());
        if let Some(next) = next {
            // SAFETY: Invariant tls-live-1.
            unsafe { next.as_ref() }.previous.set(previous);
        }
        match previous {
            // SAFETY: Invariant tls-live-1.
            Some(previous) => unsafe { previous.as_ref() }.next.set(next),
            None => self.first = next,
        }
    }

    /// Returns the tails of all blocks.
    pub(super) fn tails(&self) -> impl Iterator<Item = &Tail> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let tail = next?;
            // SAFETY: Invariant tls-live-1: `self` is borrowed, so the lock is held.
            let tail = unsafe { tail.as_ref() };
            next = tail.next.get();
            Some(tail)
        })
    }

    /// Lets all blocks be of `image`. Their old ones are kept: an OS thread may be making a block fresh from one.
    pub(super) fn replace_images(&mut self, image: &Arc<Image>) {
        let mut replaced: Vec<Arc<Image>> = Vec::new();
        for tail in self.tails() {
            let new = Arc::into_raw(Arc::clone(image)).cast_mut();
            // AcqRel: pairs with the Acquire in `image`; and what comes back was whole.
            let old = tail.image.swap(new, Ordering::AcqRel);
            // SAFETY: the tail's own count, which it has given up.
            let old = unsafe { Arc::from_raw(old) };
            if replaced.last().is_none_or(|last| !Arc::ptr_eq(last, &old)) {
                replaced.push(old);
            }
        }
        self.replaced.append(&mut replaced);
    }
}
