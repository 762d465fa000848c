//! Checkpoints: where a thread that need not wait lets others run all the same, once its share of the CPU is used up.
//!
//! Switching is cooperative, so a thread would keep the CPU for ever if its calls never had to wait. Every call of this
//! crate that could have waited is a checkpoint, whether it waits or not, and so is every question with the answer "not
//! yet" (`try_recv`, `is_finished`, ..), since programs ask in loops.
//!
//! ```text
//!   checkpoint: flag quiet? --yes--> on (three loads)
//!                 | raised, or the clock says that the last poll is QUANTUM ago
//!                 v
//!   give_way:   back of the run queue, and the run loop polls the outside world
//! ```
//!
//! A system call is worth many checkpoints, so IO has a credit besides: each call costs a unit, and each [`UNIT`] bytes
//! that were moved one more. A fiber that waits has a whole credit afterwards. While there is credit left, IO does not
//! give way to all others when the quantum is over, but *steps aside* for those that the outside world has woken, and
//! goes on: to move a large piece through one socket is cheaper than small pieces in turns through many sockets, since
//! their buffers leave the caches meanwhile.
//!
//! Giving way raises what any blocking call raises: a kill, an expired `timeout`. Nothing happens where a wait would be
//! refused: inside `no_switch`, and while the caller unwinds. Giving way comes *before* the operation of the call: a
//! kill finds no data in the thread's hands, and the answer of the call is as new as can be.
#![forbid(unsafe_code)]

use crate::switch::budget::IO_CREDIT;
use crate::switch::cancel;
use crate::switch::fiber::Fiber;
use crate::switch::pending;
use crate::switch::root::{Root, existing_root, try_root};
use crate::sys::clock::{NEVER, monotonic_ns};

/// The number of bytes that cost as much as a call.
const UNIT: usize = 64 * 1024;

/// Reports whether a wait would be refused here. Then the hub cannot poll for what has come since its last poll, and
/// only the kernel can say.
#[inline]
pub(super) fn must_not_wait() -> bool {
    let in_section = |root: &Root| root.current().pending.has(pending::NO_SWITCH);
    cancel::obstacle().is_some() || try_root().is_some_and(in_section)
}

/// Lets other fibers run if it is time; for calls that could have waited. Does nothing on an OS thread without green
/// threads.
///
/// # Panics
/// As every blocking call: kill, `timeout` scope.
#[inline(always)]
pub(crate) fn checkpoint() {
    checkpoint_if(|| true);
}

/// Lets other fibers run as [`checkpoint`], in a call that may have to wait: only if the call `goes_on` at once. A
/// caller that has to wait lets others run by waiting; at the back of the run queue the caller would lose its place
/// among the waiters.
///
/// # Panics
/// As [`checkpoint`].
#[inline(always)]
pub(crate) fn checkpoint_if(goes_on: impl FnOnce() -> bool) {
    if let Some(root) = existing_root()
        && root.is_checkpoint_due()
        && goes_on()
    {
        slow_checkpoint(root);
    }
}

/// The slow path of [`checkpoint`]: the flag is up.
#[cold]
#[inline(never)]
fn slow_checkpoint(root: &Root) {
    if !must_not_wait() && root.must_give_way() {
        give_way(root, root.current());
    }
}

/// Begins a call that lets others run at its end, by [`end_call`]: a send, so that they find the value, or a call that
/// cannot tell before whether it has to wait. Raises what is due, if the caller's share is used up: raised at the end,
/// a kill would hide what the call has done.
///
/// # Panics
/// As every blocking call: kill, `timeout` scope.
#[inline(always)]
pub(crate) fn begin_call() {
    if let Some(root) = existing_root()
        && root.is_checkpoint_due()
    {
        raise_due(root);
    }
}

/// The slow path of [`begin_call`]: the flag is up.
#[cold]
#[inline(never)]
fn raise_due(root: &Root) {
    let me = root.current();
    if me.pending.any() && !must_not_wait() {
        // What a suspension here would raise, without the suspension.
        cancel::before_suspension(root, me);
        raise_after_suspension(root, me);
    }
}

/// Ends such a call: lets other fibers run if it is time. Raises nothing; the next call raises what is due.
#[inline(always)]
pub(crate) fn end_call() {
    if let Some(root) = existing_root()
        && root.is_checkpoint_due()
    {
        slow_end(root);
    }
}

/// The slow path of [`end_call`]: the flag is up.
#[cold]
#[inline(never)]
fn slow_end(root: &Root) {
    if !must_not_wait() && root.must_give_way() {
        // As `give_way`, but nothing may be raised here.
        root.hasten_poll();
        root.requeue_current(root.current());
    }
}

/// Counts an IO call, before its operation; now and then, lets other fibers run first.
///
/// # Panics
/// As every blocking call: kill, `timeout` scope.
#[inline]
pub(crate) fn spend_credit() {
    if let Some(root) = try_root() {
        let me = root.current();
        match me.io_credit.get() {
            0 => give_way(root, me),
            credit => {
                // A new block starts with more than a credit; `min` cuts that down.
                me.io_credit.set(credit.min(IO_CREDIT) - 1);
                if root.is_checkpoint_due() {
                    slow_io_checkpoint(root);
                }
            }
        }
    }
}

/// The slow path of [`spend_credit`] while the caller has credit left: the flag is up.
#[cold]
#[inline(never)]
fn slow_io_checkpoint(root: &Root) {
    if !must_not_wait() && root.must_give_way() {
        suspend_with(root, root.current(), Root::step_aside);
    }
}

/// Charges the caller for an IO call that has moved `bytes` bytes, whether it waited or not.
#[inline]
pub(crate) fn charge(bytes: usize) {
    if bytes >= UNIT
        && let Some(root) = existing_root()
    {
        let me = root.current();
        // A call that moved more than a whole credit uses up the credit.
        let units = u8::try_from(bytes / UNIT).unwrap_or(u8::MAX);
        me.io_credit.set(me.io_credit.get().min(IO_CREDIT).saturating_sub(units));
    }
}

/// Does what is left of [`spend_credit`] when [`spent_credit`] said yes: lets other fibers run.
///
/// # Panics
/// As [`spend_credit`].
#[cfg(feature = "monkey")]
pub(crate) fn pay(root: &Root, me: Fiber) {
    match me.io_credit.get() {
        0 => give_way(root, me),
        _ => suspend_with(root, me, Root::step_aside),
    }
}

/// Counts an IO call as [`spend_credit`], without letting others run. Returns whether the caller has to [`pay`].
#[cfg(feature = "monkey")]
pub(crate) fn spent_credit() -> bool {
    existing_root().is_some_and(|root| {
        let me = root.current();
        let credit = me.io_credit.get();
        me.io_credit.set(credit.min(IO_CREDIT).saturating_sub(1));
        credit == 0 || root.is_checkpoint_due() && !must_not_wait() && root.must_give_way()
    })
}

/// Puts the caller at the back of the run queue, if it may suspend here, and has the outside world polled first. Raises
/// what any blocking call raises.
#[cold]
#[inline(never)]
pub(crate) fn give_way(root: &Root, me: Fiber) {
    me.io_credit.set(IO_CREDIT);
    if must_not_wait() {
        // The call may well succeed without waiting, which is allowed here.
        return;
    }
    root.hasten_poll();
    suspend_with(root, me, Root::requeue_current);
}

/// Suspends `me`, which stays runnable, by `suspend`. Raises what any blocking call raises.
fn suspend_with(root: &Root, me: Fiber, suspend: fn(&Root, Fiber)) {
    // As `park` does: what is due is raised before and after.
    if me.pending.any() {
        cancel::before_suspension(root, me);
    }
    suspend(root, me);
    raise_after_suspension(root, me);
}

/// Raises what came during a suspension.
fn raise_after_suspension(root: &Root, me: Fiber) {
    if me.pending.any() {
        // Not the root's clock, which may be as old as the last poll.
        let scope = me.scope_deadline.get().at;
        cancel::after_suspension(root, me, scope != NEVER && scope <= monotonic_ns());
    }
}
