//! Fibers with TLS blocks: which fiber gets one, which fibers share one, and when the destructors run.
//!
//! ```text
//!   new_block --> enter_block        the thread that the block is for; running 1, holders 1
//!                    |
//!   launch under the block           each light thread, greenlet: running + 1, holders + 1
//!                    |
//!   leave_block                      the end of a fiber's body: running - 1. The last one runs the destructors of the
//!                    |               thread-locals before, on its own stack; they may switch, and launch others
//!   drop_block                       the release of a fiber: holders - 1. The last one gives the block to the pool
//! ```
//!
//! End hooks of the program hold the block of the fiber that registered them, since their closure may have borrowed
//! from its thread-locals: they run in a new fiber with that block.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io;

use super::fiber::{Fiber, FiberRef};
use super::root::Root;
use super::tls_pool::{BlockHold, BlockPool, TlsBlock};
use crate::sys::fork::watch_forks;

/// A block that no fiber has yet. Goes back to the pool when dropped.
pub(crate) struct NewBlock<'a> {
    /// The root, for the way back.
    root: &'a Root,
    /// The block; none once a fiber has it.
    block: Option<TlsBlock>,
}

impl Drop for NewBlock<'_> {
    fn drop(&mut self) {
        if let Some(block) = self.block {
            self.root.blocks().release(block);
        }
    }
}

impl Root {
    /// Returns the pool of blocks, which exists since the first block.
    fn blocks(&self) -> std::cell::RefMut<'_, BlockPool> {
        match self.block_pool.get() {
            Some(pool) => pool.borrow_mut(),
            None => unreachable!("a block was made by this pool"),
        }
    }

    /// Reports whether there ever was a block.
    pub(super) fn has_blocks(&self) -> bool {
        self.block_pool.get().is_some()
    }

    /// Makes a block with the thread-locals of a fresh thread, for [`enter_block`](Self::enter_block).
    ///
    /// # Errors
    /// `Unsupported`, with the reason, where threads cannot have thread-locals of their own; `ENOMEM`.
    pub(crate) fn new_block(&'static self) -> io::Result<NewBlock<'static>> {
        if self.block_pool.get().is_none() {
            // `fork` in such a thread needs the handlers of `sys::fork`.
            watch_forks()?;
            let pool = BlockPool::new(&self.tls)?;
            let _ = self.block_pool.set(RefCell::new(pool));
        }
        let block = self.blocks().acquire(|block| self.tls.with(Some(block), || self.install_here()))?;
        Ok(NewBlock { root: self, block: Some(block) })
    }

    /// Gives a launched fiber, which has not run, a block of its own, in place of the one of the fiber that launched
    /// it.
    pub(crate) fn enter_block(&self, fiber: Fiber, mut new: NewBlock<'_>) {
        let Some(block) = new.block.take() else { unreachable!("given once") };
        self.replace_block(fiber, Some(block));
        let blocks = self.blocks();
        let (low, top) = (fiber.slot().stack_low(), fiber.slot().top());
        // SAFETY: the block was made by the pool, and no thread has it yet (tls-pool-2).
        unsafe { blocks.layout().set_stack(block.pointer(), low, top - low) };
        let header = blocks.header(block);
        header.running.set(1);
        header.holders.set(1);
        header.thread.set(fiber.to_ref().to_parts());
    }

    /// Counts a fiber that was launched under the loaded block.
    #[cold]
    #[inline(never)]
    pub(super) fn join_block(&self, fiber: Fiber, block: TlsBlock) {
        fiber.block.set(Some(block));
        let blocks = self.blocks();
        let header = blocks.header(block);
        header.running.set(header.running.get() + 1);
        header.holders.set(header.holders.get() + 1);
    }

    /// Ends the running fiber's use of its thread-locals, at the end of its body: the last fiber with the block runs
    /// their destructors, which are foreign code, and may switch. No kill or timeout is raised meanwhile: an unwinding
    /// out of the destructor of a thread-local aborts.
    #[cold]
    #[inline(never)]
    pub(crate) fn leave_block(&self, fiber: Fiber) {
        let Some(block) = fiber.block.get() else { return };
        // The destructors may launch fibers with this block; then the last one of these runs what is left.
        if self.blocks().header(block).running.get() == 1 {
            self.blocks().header(block).destroyer.set(fiber.id.get());
            let layout = self.blocks().layout();
            // SAFETY: the fiber runs, so its block is loaded (tls-pool-1), and it uses none of its thread-locals after
            // this but as after their destruction.
            unsafe { layout.run_destructors() };
            self.blocks().header(block).destroyer.set(0);
        }
        self.count_out(block);
    }

    /// Counts out a fiber that ends or never ran.
    pub(super) fn count_out(&self, block: TlsBlock) {
        let blocks = self.blocks();
        let running = &blocks.header(block).running;
        running.set(running.get() - 1);
    }

    /// Takes one hold on a block back; the last one gives the block to the pool.
    #[cold]
    #[inline(never)]
    pub(super) fn drop_block(&self, block: TlsBlock) {
        let mut blocks = self.blocks();
        let holders = &blocks.header(block).holders;
        holders.set(holders.get() - 1);
        if holders.get() == 0 {
            blocks.release(block);
        }
    }

    /// Reports whether `fiber` runs the destructors of its thread-locals.
    pub(crate) fn destroys_locals(&self, fiber: Fiber) -> bool {
        fiber.block.get().is_some_and(|block| self.blocks().header(block).destroyer.get() == fiber.id.get())
    }

    /// Reports whether any fiber runs the destructors of its thread-locals.
    pub(crate) fn any_destroys_locals(&self) -> bool {
        let mut any = false;
        self.for_each_fiber(|fiber| any |= self.destroys_locals(fiber));
        any
    }

    /// Reports whether the running fiber is the only one with its thread-locals, which are not the OS thread's.
    pub(crate) fn is_alone_in_block(&self) -> bool {
        self.tls.block().is_some_and(|block| self.blocks().header(block).running.get() == 1)
    }

    /// Returns the fiber that plays main's part for greenlets: that of the thread with the loaded thread-locals; none
    /// if it has ended.
    pub(crate) fn main_of_block(&self) -> Option<Fiber> {
        let Some(block) = self.tls.block() else { return Some(self.main) };
        let parts = self.blocks().header(block).thread.get();
        // SAFETY: the parts are of a fiber of this root.
        unsafe { FiberRef::from_parts(parts) }.and_then(|thread| self.resolve(thread))
    }

    /// Holds the loaded block, for a closure that is to run with the same thread-locals later.
    pub(crate) fn hold_block(&self) -> BlockHold {
        let block = self.tls.block();
        if let Some(block) = block {
            self.add_holder(block);
        }
        BlockHold(block)
    }

    /// Holds the block of a fiber that has one. Returns the hold, and what `pthread_self` returns under the block.
    #[cfg(feature = "monkey")]
    pub(crate) fn hold_block_of(&self, fiber: Fiber) -> (BlockHold, usize) {
        let Some(block) = fiber.block.get() else { unreachable!("the caller gave the fiber a block") };
        self.add_holder(block);
        (BlockHold(Some(block)), self.blocks().layout().pthread_self(block.pointer()))
    }

    /// Reports whether the block that `hold` holds is loaded.
    pub(crate) fn has_loaded(&self, hold: &BlockHold) -> bool {
        hold.0 == self.tls.block()
    }

    /// Ends a hold without a fiber.
    pub(crate) fn end_hold(&self, hold: BlockHold) {
        if let Some(block) = hold.0 {
            self.drop_block(block);
        }
    }

    /// Gives a launched fiber, which has not run, the block that `hold` holds.
    pub(crate) fn share_block(&self, fiber: Fiber, hold: BlockHold) {
        if let Some(block) = hold.0 {
            let blocks = self.blocks();
            let running = &blocks.header(block).running;
            running.set(running.get() + 1);
        }
        self.replace_block(fiber, hold.0);
    }

    /// Puts a block, which the caller has counted, in place of the one that the fiber shares since its launch.
    fn replace_block(&self, fiber: Fiber, block: Option<TlsBlock>) {
        if let Some(old) = fiber.block.replace(block) {
            self.count_out(old);
            self.drop_block(old);
        }
    }

    /// Counts one more holder of a block.
    fn add_holder(&self, block: TlsBlock) {
        let blocks = self.blocks();
        let holders = &blocks.header(block).holders;
        holders.set(holders.get() + 1);
    }
}
