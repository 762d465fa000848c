//! The run loop: the one place where fibers are resumed, and the calls by which a fiber leaves the CPU.
//!
//! ```text
//!   OS thread's own stack                                     fibers' stacks
//!   +--------------------------------------+
//!   | main: join(), sleep(), g.switch(v)   |
//!   |   `- switch_out                      |   resume
//!   |       `- drive: next / ready / poll -+------------>  fiber runs ... suspend
//!   |              ^-----------------------+---------------------'
//!   +--------------------------------------+
//! ```
//!
//! corosensei is asymmetric: a fiber can only return to the code that resumed it. A switch from A to B is therefore
//! "suspend A with `next = B`" and "the loop resumes B": two stack switches. Main has no coroutine. When main
//! suspends, the loop runs *inside* main's call until main's turn comes. A fiber that main's loop has resumed does the
//! same: when the fiber gives the CPU away, the fiber does not suspend, but becomes the *deputy*. A deputy resumes
//! other fibers from inside its own call, until its own turn comes or something has to be done that only main's loop
//! can do.
//!
//! ```text
//!   main's stack          A's stack               others' stacks
//!   | drive ----------->  | hop, run_nested ----->  | B
//!   |                     |              ------>  | C  ..
//! ```
//!
//! So two fibers that switch to each other, or yield, or wake each other, pay two stack switches for two turns in
//! place of four. There is never more than one deputy: a fiber that a deputy has resumed always suspends.
//!
//! * Invariant run-loop-1: a fiber is in `ready` or `injected` at most once, and its state is then RUNNABLE or
//!   DELIVERED, so that `wake` leaves the fiber alone. A yield and a launch push only fibers that are in no list.
//! * Invariant run-loop-2: while fibers are injected, no turn is fast (`budget`), so that main's loop picks each next
//!   fiber. Main's loop gives a turn to `ready` after some turns of injected fibers, so neither queue starves the
//!   other. The order in which the outside world wakes fibers is a matter of time anyhow; all that happens inside the
//!   hub stays in the order of `ready`.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::budget::INJECTED_TURNS;
use super::fiber::{Fiber, Progress};
use super::prefetch::{PREFETCH_FROM, prefetch_next, prepare_long};
use super::root::Root;
use super::state::State;
use crate::pure::preempt::PreemptFlag;
use crate::sys::runtime_syscall::runtime_syscall;

impl Root {
    /// Lets all other runnable fibers go first. The fast path of `yield_now`: no kill, deadline or shield.
    ///
    /// The yielding fiber takes the first fiber of the queue and puts itself at the end, which is less work than
    /// leaving both to the loop. If no other fiber is runnable, the yielding fiber goes on at once, until a poll is
    /// due.
    #[inline(always)]
    pub(crate) fn requeue_current(&self, me: Fiber) {
        if cfg!(feature = "monkey") {
            // The frames of a fiber in the queue are searched for std's locks.
            me.note_frames();
        }
        if !self.spend() {
            return self.requeue_and_poll(me);
        }
        // SAFETY: as in `enqueue`.
        let ready = unsafe { &mut *self.ready.get() };
        if ready.is_empty_or_longer(PREFETCH_FROM) {
            // In this frame, since the lines of this frame will be touched.
            me.note_frames();
            if !prepare_long(ready) {
                return;
            }
        }
        // Take the first fiber and queue `me` in one step, while both ends of the queue are at hand.
        if let Some(next) = ready.rotate(me) {
            self.hop(me, next);
        }
    }

    /// Yields through main's loop, which decides whether to poll and which queue is next.
    #[cold]
    #[inline(never)]
    fn requeue_and_poll(&self, me: Fiber) {
        // SAFETY: as in `enqueue`. A fiber that lets others run was not woken, so no watcher is told.
        unsafe { &mut *self.ready.get() }.push_untold(me);
        self.switch_out(me);
    }

    /// Lets the fibers run that the outside world has woken, or that a poll would wake now. Then `me` goes on, before
    /// all fibers of `ready`.
    pub(crate) fn step_aside(&self, me: Fiber) {
        self.budget.poll_next();
        // SAFETY: as in `enqueue`.
        unsafe { &mut *self.ready.get() }.push_front(me);
        self.switch_out(me);
    }

    /// Gives the CPU to `target` at once, ahead of the queue. `target` is runnable already: it has a message, or is
    /// new.
    #[inline(always)]
    pub(crate) fn transfer(&self, me: Fiber, target: Fiber) {
        self.hop(me, target);
    }

    /// Gives the CPU to `target`, which is not `me`.
    ///
    /// Inlined together with the resume: the code that `me` returns through afterwards was then entered in this turn,
    /// and the processor predicts the returns. A second `resume` in the crate's busiest function pays off for pairs of
    /// fibers, which make most explicit switches.
    #[inline(always)]
    fn hop(&self, me: Fiber, target: Fiber) {
        let mut next = Some(target);
        if !self.deputy.get() && target != self.main {
            // `me` is main, or main's loop resumed `me`: resume the target from this frame.
            self.deputy.set(me != self.main);
            self.current.set(target);
            next = match target.resume(&self.tls) {
                Progress::Suspended(next) => next,
                Progress::Finished => self.reap_for(me, target),
            };
            if next == Some(me) {
                self.current.set(me);
                self.deputy.set(false);
                self.tls.load(me.block.get());
                return;
            }
            // Main goes on with its own loop.
            if me == self.main {
                return self.drive(next);
            }
            // The target named another fiber, or none: `me` goes on as the deputy.
            next = self.run_nested(me, next);
            if next == Some(me) {
                return;
            }
        }
        // Return to the loop that resumed `me`, with the fiber that is next.
        me.suspend(next);
    }

    /// Gives the CPU to the first fiber of the queue. The caller is `me`, and has arranged for its own wake-up.
    #[inline(always)]
    pub(crate) fn switch_out(&self, me: Fiber) {
        let mut next = None;
        if !self.deputy.get() {
            // Main runs the loop inside its own call, others become the deputy.
            if me == self.main {
                return self.drive(None);
            }
            next = self.run_nested(me, None);
            if next == Some(me) {
                return;
            }
        }
        me.suspend(next);
    }

    /// Runs the loop on the stack of the deputy `me`, inside the call in which `me` gives the CPU away: resumes
    /// `next`, or else the first fiber of the queue, and so on.
    ///
    /// Returns `me` when the deputy's turn has come. Any other result is for main's loop, and `me` suspends with it:
    /// main's turn has come, a poll is due, or no fiber is runnable.
    ///
    /// The caller suspends, not this function: a suspension in here would be returned through in another turn, and
    /// mispredict.
    #[inline(never)]
    fn run_nested(&self, me: Fiber, mut next: Option<Fiber>) -> Option<Fiber> {
        self.deputy.set(true);
        while let Some(fiber) = next.or_else(|| self.pick_at_hand()) {
            // The coroutine of either is active and cannot be resumed: go back there (fiber-4).
            if fiber == me || fiber == self.main {
                next = Some(fiber);
                break;
            }
            self.current.set(fiber);
            next = match fiber.resume(&self.tls) {
                Progress::Suspended(next) => next,
                Progress::Finished => self.reap_for(me, fiber),
            };
        }
        if next == Some(me) {
            self.current.set(me);
            self.tls.load(me.block.get());
        }
        self.deputy.set(false);
        next
    }

    /// Does the work of [`reap`](Self::reap) on the stack of `me`, which runs the loop. If that stack overflows, the
    /// report has to name `me`.
    #[inline(never)]
    fn reap_for(&self, me: Fiber, fiber: Fiber) -> Option<Fiber> {
        self.current.set(me);
        self.reap(fiber)
    }

    /// Takes the next fiber of the queue, if there is one and main's loop has nothing to decide.
    #[inline(always)]
    fn pick_at_hand(&self) -> Option<Fiber> {
        // No fiber is injected as long as turns are fast (run-loop-2).
        if self.spend() { self.dequeue_ready() } else { None }
    }

    /// Runs main's loop: resumes `next`, or else the first fiber of the queue, and so on until main's turn comes.
    pub(super) fn drive(&self, mut next: Option<Fiber>) {
        loop {
            // A fiber that was named goes first, then the queues; a poll fills them if both are empty.
            let fiber = match next {
                Some(fiber) => fiber,
                None => match self.pick() {
                    Some(fiber) => fiber,
                    None if self.closing.get() => return self.tls.load(None),
                    None => continue,
                },
            };
            self.current.set(fiber);
            // Main is not resumed: its call returns, under the OS thread's own thread pointer.
            if fiber == self.main {
                return self.tls.load(None);
            }
            next = match fiber.resume(&self.tls) {
                Progress::Suspended(next) => next,
                Progress::Finished => self.reap(fiber),
            };
        }
    }

    /// Takes the next fiber of the queue, after a poll if one is due. `None` if no fiber was runnable; the poll that
    /// followed may have changed that.
    #[inline(always)]
    fn pick(&self) -> Option<Fiber> {
        if !self.spend() {
            return self.pick_slowly();
        }
        // No fiber is injected as long as turns are fast (run-loop-2).
        let fiber = self.dequeue_ready();
        if fiber.is_none() {
            self.poll(true);
        }
        fiber
    }

    /// Does the work of [`pick`](Self::pick) after a turn that `spend` refused: polls first, if a poll is due.
    #[inline(never)]
    fn pick_slowly(&self) -> Option<Fiber> {
        if self.is_observed() {
            return self.pick_observed();
        }
        self.pick_plainly()
    }

    /// Does the work of [`pick_slowly`](Self::pick_slowly) while nothing looks at turns.
    #[inline(always)]
    pub(super) fn pick_plainly(&self) -> Option<Fiber> {
        if self.poll_is_due() {
            self.poll(false);
        }
        let fiber = self.dequeue();
        if fiber.is_none() {
            self.poll(true);
        }
        fiber
    }

    /// Takes the next runnable fiber. The two queues take turns, so that neither starves the other.
    #[inline(always)]
    pub(super) fn dequeue(&self) -> Option<Fiber> {
        // SAFETY: as in `enqueue`.
        if unsafe { &*self.injected.get() }.is_empty() { self.dequeue_ready() } else { self.dequeue_injected() }
    }

    /// Takes the first fiber of `ready`. While fibers are injected, [`dequeue`](Self::dequeue) decides between the
    /// queues.
    #[inline(always)]
    fn dequeue_ready(&self) -> Option<Fiber> {
        // SAFETY: as in `enqueue`.
        let ready = unsafe { &mut *self.ready.get() };
        prefetch_next(ready);
        ready.pop()
    }

    /// Does the work of `dequeue` while fibers are injected.
    #[inline(never)]
    fn dequeue_injected(&self) -> Option<Fiber> {
        // Count a turn of the injection queue; when its share is used up, `ready` has one.
        match self.injected_turns.get().checked_sub(1) {
            Some(left) => self.injected_turns.set(left),
            None => {
                self.injected_turns.set(INJECTED_TURNS);
                if let Some(fiber) = self.dequeue_ready() {
                    return Some(fiber);
                }
            }
        }
        // SAFETY: as in `enqueue`.
        let injected = unsafe { &mut *self.injected.get() };
        prefetch_next(injected);
        let fiber = injected.pop();
        // The last injected fiber is gone: turns may be fast again (run-loop-2).
        if injected.is_empty() {
            self.budget.release();
        }
        fiber
    }

    /// Polls the outside world through the scheduler, except during teardown, when nothing is waited for.
    #[cold]
    #[inline(never)]
    pub(super) fn poll(&self, may_wait: bool) {
        // What the scheduler does, it does as the OS thread: the fiber that ran before may be gone.
        self.tls.load(None);
        self.poll_as_os_thread(may_wait);
    }

    /// Does the work of [`poll`](Self::poll), out of line, since it uses thread-locals (tls-pool-1).
    #[inline(never)]
    fn poll_as_os_thread(&self, may_wait: bool) {
        self.budget.begin_poll(may_wait);
        // SAFETY: as in `enqueue`.
        if !unsafe { &*self.injected.get() }.is_empty() {
            self.budget.hold();
        }
        if !self.closing.get() {
            let _mark = runtime_syscall();
            self.scheduler().poll(self, may_wait);
        }
    }

    /// Handles the return of a fiber's function: frees the slot, unless a packet still owns the result. Returns the
    /// successor of the fiber, if the fiber has named one.
    #[inline]
    fn reap(&self, fiber: Fiber) -> Option<Fiber> {
        if fiber.has_block() { self.reap_with_block(fiber) } else { self.reap_here(fiber) }
    }

    /// Does the work of [`reap`](Self::reap) for a fiber with a TLS block, which may become free, and so must not be
    /// loaded any more.
    #[cold]
    #[inline(never)]
    fn reap_with_block(&self, fiber: Fiber) -> Option<Fiber> {
        self.tls.load(None);
        self.reap_as_os_thread(fiber)
    }

    /// Does the work of [`reap`](Self::reap), out of line, since it uses thread-locals (tls-pool-1).
    #[inline(never)]
    fn reap_as_os_thread(&self, fiber: Fiber) -> Option<Fiber> {
        self.reap_here(fiber)
    }

    /// Does the work of [`reap`](Self::reap).
    #[inline(always)]
    fn reap_here(&self, fiber: Fiber) -> Option<Fiber> {
        // Inside the loop, where no call may suspend.
        let _mark = runtime_syscall();
        fiber.state.set_finished();
        self.live.set(self.live.get() - 1);
        // Nothing may lead to the fiber any more: timers first, then the slot.
        if fiber.in_wheel.get() {
            self.scheduler().forget(fiber);
        }
        if !fiber.owned.get() {
            self.release(fiber);
        }
        self.successor.take()
    }

    /// Ends the use of a FINISHED fiber with a result that is not wanted any more. The result's destructor runs here.
    #[inline]
    pub(crate) fn release(&self, fiber: Fiber) {
        debug_assert_eq!(fiber.state.get(), State::Finished);
        if fiber.has_block() {
            return self.release_with_block(fiber);
        }
        // SAFETY: it is finished, and the caller is its last owner: the loop for an unowned one, else the packet.
        let slot = unsafe { fiber.dismantle() };
        self.pool.borrow_mut().release(slot);
    }

    /// Does the work of [`release`](Self::release) for a fiber with a TLS block, which is given back last: the result
    /// may rest on it.
    #[cold]
    #[inline(never)]
    fn release_with_block(&self, fiber: Fiber) {
        let block = fiber.block.take();
        // SAFETY: as in `release`.
        let slot = unsafe { fiber.dismantle() };
        self.pool.borrow_mut().release(slot);
        if let Some(block) = block {
            self.drop_block(block);
        }
    }

    /// Names the fiber that the loop resumes next, for a fiber that is about to end.
    pub(crate) fn set_successor(&self, target: Fiber) {
        self.successor.set(Some(target));
    }

    /// Counts a turn. False if main's loop must decide first whether to poll and which queue is next.
    #[inline(always)]
    fn spend(&self) -> bool {
        self.budget.spend() || self.renew()
    }

    /// Renews a budget that refused a turn, if a poll would find nothing.
    #[cold]
    #[inline(never)]
    fn renew(&self) -> bool {
        self.budget.renew(|| self.is_quiet())
    }

    /// Reports whether a poll would find nothing, and no fiber is injected (run-loop-2).
    pub(super) fn is_quiet(&self) -> bool {
        // SAFETY: as in `enqueue`.
        let injected = !unsafe { &*self.injected.get() }.is_empty();
        !injected && !self.closing.get() && self.scheduler().is_quiet()
    }

    /// Reports whether main's loop must poll before it goes on, after a turn that `spend` refused.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_is_due(&self) -> bool {
        let watch = |flag: &Arc<PreemptFlag>| self.scheduler().watch(flag);
        self.closing.get() || self.budget.poll_is_due(self.clock.get(), watch)
    }

    /// Reports whether a call that could have waited, but need not, has to ask [`must_give_way`](Self::must_give_way).
    #[inline(always)]
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        self.budget.is_checkpoint_due()
    }

    /// Reports whether the running fiber has had the CPU for so long that it has to give way.
    #[cold]
    #[inline(never)]
    pub(crate) fn must_give_way(&self) -> bool {
        if self.is_simulated() {
            return self.is_preempted();
        }
        self.budget.must_give_way(self.clock.get())
    }

    /// Makes the next poll come soon, because the running fiber gives way after its share of time.
    pub(crate) fn hasten_poll(&self) {
        self.budget.hasten_poll(self.clock.get());
    }
}
