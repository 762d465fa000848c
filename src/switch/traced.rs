//! Recording what fibers do, while a trace is on, and calling hooks on switches, while one is set; nothing of this is
//! on the way while neither is.
//!
//! No fast path asks. Starting a trace, or setting a hook, takes the fast paths away, and what is called in their place
//! asks, records and calls:
//!
//! | fast path | taken away by | what records, and calls hooks |
//! |---|---|---|
//! | a turn: a yield, a park | a budget without turns (`Budget::hold_all`) | `pick_traced`, in main's loop |
//! | a push into a run queue: a wake-up, a spawn | a watcher (`RunQueue::watch`), for a trace only | `note_push` |
//! | an explicit switch | the flag that a trace function raises, too | `note_switch` |
//!
//! ```text
//!   A yields, parks or ends      main's loop                                    B
//!   switch_out, suspend ------>  pick_slowly, pick_traced:
//!                                  note how A left: yield, park (why), end
//!                                  hooks: Leaves(A)
//!                                  poll, if that is due: wake-ups are noted
//!                                  take B, note that B runs
//!                                  hooks: Comes(B)  ------------------------->  goes on
//! ```
//!
//! So while a trace is on or a hook is set, each turn goes through main's loop: two more stack switches.
//!
//! A hook is foreign code. It runs with the thread-locals of the thread that it is told of, in the name of a fiber of
//! its own, and must not suspend: main's loop, or the fiber that makes an explicit switch, lends it the stack. So it
//! runs as inside `no_switch`, and a call that would wait panics. A hook that panics is removed, and the thread goes
//! on.
#![forbid(unsafe_code)]

use super::fiber::{Fiber, Reason};
use super::hooks::Switch;
use super::pending;
use super::recorder::{Cause, Recorder, Source, TextKind, What};
use super::root::{HOOKS, RECORDS, Root, existing_root};
use super::state::State;
use crate::pure::event_ring::TextAt;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::signal::write_stderr;
use crate::sys::ticks::Moment;

impl Root {
    /// Starts to record, with what is there now: the running thread, and those that wait. Returns the recorder if
    /// another one records already.
    pub(crate) fn start_recording(&self, recorder: Box<Recorder>) -> Result<(), Box<Recorder>> {
        if self.is_recording() || self.is_forked() {
            return Err(recorder);
        }
        *self.recorder.borrow_mut() = Some(recorder);
        self.with_recorder(|recorder| {
            self.note_found(recorder, self.main());
            self.for_each_fiber(|fiber| self.note_found(recorder, fiber));
            self.note_run(recorder, self.current(), recorder.ticker.now());
        });
        // From now on nothing is fast.
        self.set_traced(RECORDS, true);
        self.watch_queues();
        self.budget.hold_all();
        Ok(())
    }

    /// Has pushes into the run queues noted, if anything is to see them.
    pub(super) fn watch_queues(&self) {
        let is_seen = self.is_recording() || self.sampler.borrow().is_some();
        self.set_watcher(is_seen.then_some(note_push));
    }

    /// Stops to record. Returns the recorder, if there is one.
    pub(crate) fn stop_recording(&self) -> Option<Box<Recorder>> {
        let recorder = self.recorder.borrow_mut().take();
        if self.is_recording() {
            self.set_traced(RECORDS, false);
            self.watch_queues();
            // Turns are fast again after the next poll, unless a hook is set.
            self.budget.poll_next();
        }
        recorder
    }

    /// Sets a hook on switches. Returns its number; none in the child of a fork.
    pub(crate) fn add_hook(&self, hook: Box<dyn FnMut(Switch) + Send>) -> Option<u64> {
        if self.is_forked() {
            return None;
        }
        if !self.has_hooks() {
            // A hook that sets another one knows which thread runs.
            if !self.is_in_hook() {
                self.hooks.running.set(self.current().id.get());
            }
            // From now on nothing is fast.
            self.set_traced(HOOKS, true);
            self.budget.hold_all();
        }
        Some(self.hooks.add(hook))
    }

    /// Removes a hook, if it is still set. The program's destructors may panic.
    pub(crate) fn remove_hook(&self, number: u64) {
        let _end = EndHooks(self);
        self.hooks.remove(number);
    }

    /// Reports whether a hook is being called.
    pub(super) fn is_in_hook(&self) -> bool {
        self.hook_block.get().is_some_and(|block| self.current().to_block() == block)
    }

    /// Calls `f` with the recorder, if there is one. `f` runs no foreign code.
    #[inline]
    pub(crate) fn with_recorder<R>(&self, f: impl FnOnce(&Recorder) -> R) -> Option<R> {
        self.recorder.borrow().as_deref().map(f)
    }

    /// Notes a text for the running thread: a mark, or the begin of a span. Returns where the text lies, and which
    /// trace has it; `None` while no trace is on.
    pub(crate) fn note_text(&self, kind: TextKind, text: &str) -> Option<(Moment, TextAt)> {
        self.with_recorder(|recorder| (recorder.began, recorder.note_text(self.current().id.get(), kind, text)))
    }

    /// Notes the end of a span, unless the trace that has its begin is over.
    pub(crate) fn note_span_end(&self, (began, text): (Moment, TextAt)) {
        let what = What::Text(TextKind::End, text.len, text.from);
        self.with_recorder(|recorder| {
            if recorder.began == began {
                recorder.note(self.current().id.get(), what);
            }
        });
    }

    /// Notes what happened to a descriptor in the name of the running thread, or of the hub during a poll.
    #[cold]
    pub(crate) fn note_descriptor(&self, what: What) {
        self.with_recorder(|recorder| {
            let thread = if recorder.source.get() == Source::Thread { recorder.running.get() } else { 0 };
            recorder.note(thread, what);
        });
    }

    /// Notes what happened to the entry of `fiber` in the timer wheel.
    #[cold]
    pub(crate) fn note_timer(&self, fiber: Fiber, what: What) {
        self.with_recorder(|recorder| recorder.note(fiber.id.get(), what));
    }

    /// Sets what wakes fibers from now on.
    pub(crate) fn note_source(&self, source: Source) {
        self.with_recorder(|recorder| recorder.source.set(source));
    }

    /// Notes that `fiber`, which is in a run queue now, was made runnable, or spawned.
    fn note_ready(&self, fiber: Fiber) {
        self.with_recorder(|recorder| {
            let id = fiber.id.get();
            if recorder.source.get() == Source::Thread && recorder.running.get() == id {
                // The thread lets others run; `pick_traced` notes that.
                return;
            }
            let cause = recorder.cause(fiber);
            if fiber.is_unstarted() {
                recorder.note_fiber(fiber, What::Spawn(fiber.spawned_at()));
            }
            recorder.note(id, cause);
        });
    }

    /// Notes that `fiber` is killed, or interrupted because its scope has failed.
    #[cold]
    pub(super) fn note_kill(&self, fiber: Fiber) {
        self.with_recorder(|recorder| {
            let by = if recorder.source.get() == Source::Thread { recorder.running.get() } else { 0 };
            recorder.note(fiber.id.get(), What::Kill(by));
        });
    }

    /// Notes an explicit switch of `me`, which waits then or has `ended`, to `target`.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_switch(&self, me: Fiber, target: Fiber, ended: bool) {
        // A simulation asks which fiber left the CPU last.
        self.ran.set(target.id.get());
        self.with_recorder(|recorder| {
            let (from, to) = (me.id.get(), target.id.get());
            if ended {
                recorder.note(from, What::End);
            } else {
                recorder.note(from, recorder.pack(Reason::Switch(to)));
                recorder.note_timers(recorder.ticker.now(), me, || self.scheduler().wheel_at());
            }
            if target.is_unstarted() {
                recorder.note_fiber(target, What::Spawn(target.spawned_at()));
            }
            recorder.note(to, What::Ready(Cause::Thread, from));
            self.note_run(recorder, target, recorder.ticker.now());
        });
        if self.has_hooks() {
            self.call_hooks((!ended).then_some(me), Switch::Leaves { thread: me.id.get(), ended });
            self.hook_comes(target);
        }
    }

    /// Takes the next fiber of the queues for main's loop, after a poll if one is due, and notes all that happens. The
    /// traced form of `pick`: `None` if no fiber was runnable.
    #[cold]
    #[inline(never)]
    pub(super) fn pick_traced(&self) -> Option<Fiber> {
        let mut now = self.with_recorder(|recorder| self.note_leave(recorder));
        self.hook_leaves();
        if !self.budget.renew_held(|| self.is_quiet()) && self.poll_is_due() {
            self.poll_traced(false);
            now = None;
        }
        let fiber = self.dequeue();
        match fiber {
            // Without a poll between them, one thread leaves and the next goes on at the same moment.
            Some(fiber) => {
                let note = |recorder: &Recorder| {
                    self.note_run(recorder, fiber, now.unwrap_or_else(|| recorder.ticker.now()));
                };
                self.with_recorder(note);
            }
            None => self.poll_traced(true),
        }
        if fiber.is_none() && self.closing() {
            // The loop returns to main, which unwinds all fibers.
            self.with_recorder(|recorder| self.note_run(recorder, self.main(), recorder.ticker.now()));
            self.hook_comes(self.main());
        }
        // A poll, and the last injected fiber, make turns fast.
        self.budget.hold_all();
        fiber.inspect(|fiber| self.hook_comes(*fiber))
    }

    /// Polls, and notes that.
    pub(super) fn poll_traced(&self, may_wait: bool) {
        self.with_recorder(|recorder| {
            recorder.note(0, What::Poll(may_wait));
        });
        self.poll_noted(may_wait);
        self.with_recorder(|recorder| {
            recorder.note(0, What::Polled);
        });
    }

    /// Polls, and notes what was found: events and timers.
    pub(super) fn poll_noted(&self, may_wait: bool) {
        let (asked, had_timers) = (self.scheduler().asked(), self.scheduler().has_timers());
        self.note_source(Source::Poll);
        self.poll(may_wait);
        self.note_source(Source::Thread);
        self.scheduler().note_events(self, asked);
        if had_timers {
            self.with_recorder(|recorder| recorder.note_wheel(recorder.ticker.now(), self.scheduler().wheel_at()));
        }
    }

    /// Notes how the thread that ran last left the CPU, unless that was noted. Returns the time.
    #[inline(always)]
    pub(super) fn note_leave(&self, recorder: &Recorder) -> u64 {
        let (me, id, now) = (self.current(), recorder.running.replace(0), recorder.ticker.now());
        if id == 0 {
            return now;
        }
        // The slot of a thread that has ended may be free, or have a new one.
        let state = if me.id.get() == id { me.state.get() } else { State::Finished };
        let what = match state {
            State::Parked | State::Switched => recorder.pack(me.waits_for()),
            State::Runnable | State::Delivered | State::Notified => What::Yield,
            State::Finished | State::Pooled | State::Unused => What::End,
        };
        recorder.note_at(now, id, what);
        if let What::Park(..) = what {
            recorder.note_timers(now, me, || self.scheduler().wheel_at());
        }
        now
    }

    /// Notes that `fiber` gets the CPU, at `now` in ticks.
    #[inline(always)]
    pub(super) fn note_run(&self, recorder: &Recorder, fiber: Fiber, now: u64) {
        let id = fiber.id.get();
        recorder.running.set(id);
        // A queue of more is cut off in the picture only.
        recorder.note_at(now, id, What::Run(u32::try_from(self.runnable()).unwrap_or(u32::MAX)));
    }

    /// Tells the hooks that the thread that ran last has left the CPU, unless they were told.
    pub(super) fn hook_leaves(&self) {
        let (me, id) = (self.current(), self.hooks.running.replace(0));
        if !self.has_hooks() || id == 0 {
            return;
        }
        // As in `note_leave`: the slot of a thread that has ended may have a new one.
        let state = if me.id.get() == id { me.state.get() } else { State::Finished };
        let ended = matches!(state, State::Finished | State::Pooled | State::Unused);
        self.call_hooks((!ended).then_some(me), Switch::Leaves { thread: id, ended });
    }

    /// Tells the hooks that `fiber` gets the CPU.
    pub(super) fn hook_comes(&self, fiber: Fiber) {
        if self.has_hooks() {
            let thread = fiber.id.get();
            self.hooks.running.set(thread);
            self.call_hooks(Some(fiber), Switch::Comes { thread, new: fiber.is_unstarted() });
        }
    }

    /// Calls the hooks with the thread-locals of `thread`, or with those of the OS thread. The caller is main's loop,
    /// or an explicit switch.
    ///
    /// They run in the name of a fiber that is in no list: a call that would have to wait may enter one before it finds
    /// that it must not, and `thread` may be in one.
    fn call_hooks(&self, thread: Option<Fiber>, switch: Switch) {
        let fiber = self.hook_fiber();
        fiber.no_switch.set(1);
        fiber.pending.raise(pending::NO_SWITCH);
        let before = self.current.replace(fiber);
        // Nothing unwinds out of this.
        let failed = self.tls.with(thread.and_then(|thread| thread.block.get()), || self.call_hooks_here(switch));
        self.current.set(before);
        if failed > 0 {
            drop(EndHooks(self));
        }
    }

    /// Calls the hooks, out of line, since they use thread-locals (tls-pool-1). Returns how many have failed.
    #[inline(never)]
    fn call_hooks_here(&self, switch: Switch) -> usize {
        // Below main's loop, where no call may suspend.
        let _mark = runtime_syscall();
        let failed = self.hooks.call(switch);
        for _ in 0..failed {
            write_stderr(b"greenling: a hook on switches has panicked; it is removed, and the thread goes on\n");
        }
        failed
    }

    /// Notes a fiber that is there when the trace begins, and what it waits for.
    fn note_found(&self, recorder: &Recorder, fiber: Fiber) {
        recorder.note_fiber(fiber, What::Found(fiber.spawned_at()));
        if matches!(fiber.state.get(), State::Parked | State::Switched) && fiber != self.current() {
            recorder.note(fiber.id.get(), recorder.pack(fiber.waits_for()));
        }
    }
}

/// Makes turns fast again when dropped, after the next poll, if no hook is set any more.
struct EndHooks<'a>(&'a Root);

impl Drop for EndHooks<'_> {
    fn drop(&mut self) {
        if self.0.hooks.is_empty() && self.0.has_hooks() {
            self.0.set_traced(HOOKS, false);
            self.0.budget.poll_next();
        }
    }
}

/// Notes a push into a run queue of this OS thread. Called in the middle of the push, and so does not use the queues.
fn note_push(fiber: Fiber, before: usize) {
    let Some(root) = existing_root() else { return };
    if root.is_recording() {
        root.note_ready(fiber);
    }
    root.note_runnable(fiber, before);
}
