//! Prefetching: brings the control blocks and frames of the next fibers into the cache before their turns.
#![forbid(unsafe_code)]

use std::ptr;

use super::control_block::ControlBlock;
use super::fiber::Fiber;
use crate::pure::run_queue::RunQueue;
use crate::sys::prefetch::prefetch_read;

/// The length from which on the run queue is prefetched. Shorter queues stay in the second-level cache, from where
/// they come as fast as the prefetches could be issued: with 1000 threads the prefetches cost more than they saved.
pub(super) const PREFETCH_FROM: usize = 8192;

/// The length from which on the next fiber of the queue is prefetched.
const PREFETCH_NEXT_FROM: usize = 8;

/// The distance behind the running fiber at which a yield prefetches control blocks.
const PREFETCH_BLOCK: usize = 24;

/// The distance behind the running fiber at which a yield prefetches frames.
const PREFETCH_FRAMES: usize = 12;

/// Prefetches what the next turn will touch, for fibers that come from a wait, as opposed to a yield. Such fibers run
/// for microseconds in system calls, which push everything else out of the cache; then each line of the next fiber's
/// block and frames is a miss. At 1000 echo connections these misses were 8 % of the server's time.
#[inline(always)]
pub(super) fn prefetch_next(ready: &RunQueue<Fiber>) {
    if ready.len() > PREFETCH_NEXT_FROM
        && let Some(second) = ready.peek(2)
        && let Some(first) = ready.peek(1)
    {
        // The block of the fiber after the next; and the frames of the next, with a block that came in a turn ago.
        second.prefetch_whole_block();
        if first.has_frames() {
            first.prefetch_more_frames();
        }
    }
}

/// Prefetches what later turns will touch, if the queue is so long that the lines cannot be in the cache: the control
/// block of a fiber far behind, and the frames of a nearer one, with a control block that came in before.
#[inline(always)]
fn prefetch(ready: &RunQueue<Fiber>) {
    if ready.len() > PREFETCH_FROM
        && let Some(far) = ready.peek(PREFETCH_BLOCK)
        && let Some(near) = ready.peek(PREFETCH_FRAMES)
    {
        // The frames are found through the block, so the block has to come in earlier.
        far.prefetch_block();
        near.prefetch_frames();
    }
}

/// Does the rest of a yield in a queue that is long, or empty: prefetches if it is long, and reports whether any fiber
/// is queued.
#[cold]
#[inline(never)]
pub(super) fn prepare_long(ready: &RunQueue<Fiber>) -> bool {
    prefetch(ready);
    !ready.is_empty()
}

impl ControlBlock {
    /// Prefetches the line of the block that tells where the frames are.
    #[inline(always)]
    fn prefetch_block(&self) {
        prefetch_read(ptr::from_ref(self).cast());
    }

    /// Prefetches the lines that a resume will touch at the end of the frames.
    #[inline(always)]
    fn prefetch_frames(&self) {
        // The newest frames, and the lines beside them.
        let newest = ptr::without_provenance::<u8>(self.frames_end());
        prefetch_read(newest);
        prefetch_read(newest.wrapping_sub(64));
        prefetch_read(newest.wrapping_add(64));
    }

    /// Prefetches all lines of the block that parking touched, for a fiber that comes out of a wait.
    #[inline(always)]
    pub(crate) fn prefetch_whole_block(&self) {
        // Lines 0, 1, 3 and 4; line 2 has the payload.
        let block = ptr::from_ref(self).cast::<u8>();
        prefetch_read(block);
        prefetch_read(block.wrapping_add(64));
        prefetch_read(block.wrapping_add(192));
        prefetch_read(block.wrapping_add(256));
    }

    /// Prefetches more frames than `prefetch_frames`, for a fiber that comes out of a wait: the fiber will return
    /// through the frames of a blocking call, and make the next one.
    #[inline(always)]
    fn prefetch_more_frames(&self) {
        let newest = ptr::without_provenance::<u8>(self.frames_end());
        for line in 0..12 {
            prefetch_read(newest.wrapping_add(64 * line).wrapping_sub(256));
        }
    }
}
