//! Ends: unwinding every fiber at a shutdown, freeing the root when an OS thread ends, and the child of a fork.
#![allow(unsafe_code)]

use super::extras::{EndHook, Extras, Life};
use super::fiber::Fiber;
use super::pending;
use super::root::{DELAYS, HOOKS, RECORDS, Root, existing_root};
use super::stack::Slot;
use super::state::State;
use super::tls_pool::TlsBlock;
use crate::pure::drops::drop_quietly;

/// The number of times that `unwind_all` kills a fiber that swallows kills, before the fiber is given up.
const KILL_ROUNDS: u32 = 64;

impl Root {
    /// Unwinds every fiber: kills all, lets them run, and repeats this for fibers that swallowed the kill. Returns how
    /// many are left; these wait for something that cannot happen any more, or never stop catching kills.
    ///
    /// The caller is main.
    pub(crate) fn unwind_all(&self) -> usize {
        if cfg!(panic = "abort") {
            // Nothing can unwind: suspended fibers are leaked.
            return self.live.get();
        }
        self.closing.set(true);
        // A fiber may swallow a kill, or spawn others while it unwinds: kill and run in rounds.
        for _ in 0..KILL_ROUNDS {
            self.scheduler().collect(self);
            if self.live.get() == 0 && self.runnable() == 0 {
                break;
            }
            self.for_each_fiber(|fiber| {
                // An unwinding out of the destructor of a thread-local would abort; `shutdown` gives it time.
                if !self.destroys_locals(fiber) {
                    fiber.shields.set(0);
                    self.kill(fiber);
                }
            });
            self.drive(None);
        }
        self.closing.set(false);
        self.current.set(self.main);
        self.main.state.reset_main();
        self.live.get()
    }

    /// Drops what lies in slots but on no stack: results that were never joined (their handles outlive the thread and
    /// get an error), and closures that never ran, each with the thread-locals that they may rest on. What may borrow
    /// is not dropped, since the lender may be gone. Returns the slots of the other fibers, which are suspended.
    fn drop_all_but_suspended(&self) -> Vec<Slot> {
        let slots = self.pool.borrow().made();
        let suspended = |slot: &Slot| {
            // SAFETY: the slot is one of this pool's.
            let Some(fiber) = (unsafe { Fiber::in_slot(*slot) }) else { return false };
            if fiber.state.get() == State::Finished {
                self.drop_with_locals(fiber.block.get(), Release(self, fiber));
                return false;
            }
            // The closure lies in the slot, and no frame exists yet.
            let unstarted = fiber.is_unstarted();
            if unstarted {
                self.drop_hooks(fiber);
                self.drop_with_locals(fiber.block.get(), Unstarted(fiber));
            }
            !unstarted
        };
        slots.into_iter().filter(suspended).collect()
    }

    /// Drops the end hooks of a fiber that has not started, each with the thread-locals of the thread that registered
    /// the hook, since it need not be `Send`.
    fn drop_hooks(&self, fiber: Fiber) {
        if fiber.life.get() != Life::WithExtras {
            return;
        }
        for hook in fiber.with_extras(Extras::take_hooks).unwrap_or_default() {
            match hook {
                EndHook::Listener(listener, _) => drop(listener),
                EndHook::Callback(f, _, hold) => {
                    self.drop_with_locals(hold.block(), f);
                    self.end_hold(hold);
                }
            }
        }
    }

    /// Drops a value with the thread-locals that it may rest on, under which the root is gone, too.
    fn drop_with_locals<T>(&self, block: Option<TlsBlock>, value: T) {
        self.tls.with(block, || {
            self.revoke_here();
            drop_quietly(value);
        });
    }

    /// Runs when the OS thread ends: gives up suspended fibers, and frees the rest.
    ///
    /// Nothing is unwound here. Thread-locals are destroyed the youngest first, so some that suspended fibers borrow
    /// may be gone by now. To resume such a fiber, be it to run its destructors, would be a use after free. The time
    /// to unwind is `hub::shutdown`, called by main.
    ///
    /// 1. `ROOT` became `GONE` before the call: calls on this thread get an error from now on, and no fiber is
    ///    resumed.
    /// 2. Work of other hubs is refused, and threads that wait for such work are told. The scheduler closes.
    /// 3. Main's green-local values, hooks, results that were never joined and closures that never ran are dropped:
    ///    here, as std drops thread-locals. Those that may borrow from a stack are left as they are.
    /// 4. The stacks of suspended fibers are leaked, with all that they own (invariant fiber-2), and counted.
    /// 5. The rest goes: descriptors of the hub, timers, stacks.
    ///
    /// In three cases all is left as it is from step 3 on. The first is `process::exit` on a green thread's stack,
    /// which promises to run no destructors of any stack, and would lose the stack that it runs on. The second is
    /// `process::exit` in a destructor while main unwinds. The third is the end of a forked child, which has copies of
    /// its parent's threads.
    ///
    /// # Safety
    /// `made` comes from `Box::into_raw`, is live, and `ROOT` no longer leads to it.
    pub(super) unsafe fn tear_down(made: *mut Root) {
        // SAFETY: the caller's promise.
        let root = unsafe { &*made };
        // Refuse what comes from outside from now on.
        root.scheduler().revoke();
        root.scheduler().refuse();
        root.scheduler().close(root);
        if !root.current().is_main() || root.is_forked() || std::thread::panicking() {
            return;
        }
        root.main.drop_extras();
        root.hooks.clear();
        if root.hook_block.get().is_some() {
            root.hook_fiber().drop_extras();
        }
        let suspended = root.drop_all_but_suspended();
        let (main_block, hook_block) = (root.main_block, root.hook_block.get());
        // SAFETY: the caller's promise: made by `Box::into_raw`, and nothing else leads here.
        let root = unsafe { Box::from_raw(made) };
        if !suspended.is_empty() {
            root.pool.borrow_mut().abandon(&suspended);
            if let Some(blocks) = root.block_pool.get() {
                blocks.borrow_mut().abandon();
            }
            // The control block of main may still be named by what lives on the leaked stacks.
            return;
        }
        drop(root);
        // SAFETY: made by Box::leak; the root and every fiber that knew main are gone.
        drop(unsafe { Box::from_raw(main_block.as_ptr()) });
        if let Some(block) = hook_block {
            // SAFETY: made by Box::leak in `hook_fiber`; the root and every hook are gone.
            drop(unsafe { Box::from_raw(block.as_ptr()) });
        }
    }
}

/// A guard that releases a FINISHED fiber when dropped. Only teardown makes one.
struct Release<'a>(&'a Root, Fiber);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        // After teardown the packet finds no root, and does not look at the fiber again.
        self.0.release(self.1);
    }
}

/// A guard that drops the closure and the inherited values of a fiber that has not started. Only teardown makes one.
struct Unstarted(Fiber);

impl Drop for Unstarted {
    fn drop(&mut self) {
        self.0.drop_extras();
        if !self.0.borrows() {
            self.0.cancel_unstarted();
        }
    }
}

/// Makes the fiber that forked the only one of the child, before `fork` returns there. No other fiber runs any more,
/// and a call that would switch panics with a message that says so. Greenlets of a thread without a hub just go on.
///
/// Async-signal-safe: the function writes a few cells, into memory that is there.
pub(crate) fn after_fork_in_child() {
    let Some(root) = existing_root().filter(|root| root.has_scheduler()) else { return };
    root.scheduler().revoke();
    // Also for a fiber with thread-locals of its own, under which `fork` returns.
    root.tls.with_noted(|| root.scheduler().revoke());
    // SAFETY: invariant root-2: the program called fork, so the queue is not borrowed.
    let ready = unsafe { &mut *root.ready.get() };
    ready.clear();
    // SAFETY: as above.
    unsafe { &mut *root.injected.get() }.clear();
    root.budget.stop();
    // A trace goes on in the parent, and so do hooks and the watch.
    root.set_traced(RECORDS | HOOKS | DELAYS, false);
    root.successor.set(None);
    // Only main may get a turn again, to panic in its own call.
    let me = root.current();
    me.pending.raise(pending::FORKED);
    if me != root.main && ready.has_room() {
        root.main.pending.raise(pending::FORKED);
        root.main.state.reset_main();
        ready.push(root.main);
    }
}
